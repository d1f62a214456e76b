"""The MLflow store of a laptop: one SQLite file in the working area."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import sqlite3
import subprocess
import sys
from pathlib import Path

from cmlflow.errors import StoreError
from cmlflow.workarea import SQLITE_ENDINGS, in_cml, path

LONGEST_WAIT_S = 5
"""How long another program may hold the database: lessons hold it for milliseconds."""


def prepare() -> None:
    """Make `mlflow.db` in the working area if it is absent; see that this MLflow can use it.

    A fresh one is made whole or not at all, once, also when two lessons start at the same moment.

    Raises:
        StoreError: it is damaged, locked, read-only or of another version of MLflow.
    """
    import mlflow

    _create_database()
    _require_usable(path("mlflow.db"))
    mlflow.set_tracking_uri(uri())
    _require_this_version()


def uri() -> str:
    """Return the address of `mlflow.db` in the working area."""
    return f"sqlite:///{path('mlflow.db').as_posix()}"


def require_plain_name() -> None:
    """Refuse a folder whose name means another folder in the address of a database.

    Raises:
        StoreError: MLflow would make its database in that other folder, whatever the spelling.
    """
    if re.search("[?]|%[0-9A-Fa-f]{2}", str(path())):
        raise StoreError(
            f"MLflow cannot keep its database in this folder: {path()}",
            "a working area without ? and without codes such as %20 in its path",
            _use_another_folder(),
        )


def as_typed(*words: str) -> str:
    """Return the words of a command as a terminal takes them, for example with spaces in them."""
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


def _use_another_folder() -> str:
    return "To use another folder, set:  CMLFLOW_WORKAREA=<folder>"


def _require_usable(database: Path) -> None:
    """Let SQLite read the whole file and lock it for writing: MLflow would try for two minutes.

    Raises:
        StoreError: it is no database, damaged, locked, or cannot be written to.
    """
    problem = "it is a folder" if database.is_dir() else "ok"
    for place in (database.parent, database):
        if place.exists() and not os.access(place, os.W_OK):
            raise _unusable(database, f"{place} is read-only")
    try:
        opened = sqlite3.connect(database, timeout=LONGEST_WAIT_S, isolation_level=None)
        with contextlib.closing(opened):
            opened.execute("BEGIN IMMEDIATE")
            (problem,) = opened.execute("PRAGMA quick_check(1)").fetchone()
            tables = {name for (name,) in opened.execute("SELECT name FROM sqlite_master")}
            opened.execute("ROLLBACK")
            if problem == "ok" and tables and "alembic_version" not in tables:
                problem = "it has no table alembic_version"
    except sqlite3.Error as error:
        problem = problem if problem != "ok" else str(error)
    if problem != "ok":
        raise _unusable(database, problem)


def _unusable(database: Path, problem: str) -> StoreError:
    """Return an error that says what is wrong with the database, and what mends that."""
    kept = f"{database}.damaged"
    move = as_typed("move" if os.name == "nt" else "mv", str(database), kept)
    expected, cure = "a database that MLflow made", f"To keep it and start a new one, run:  {move}"
    if "locked" in problem:
        expected = "a database that no other program holds"
        cure = f"To see which program holds it, run:  {as_typed('lsof', str(database))}"
    elif re.search("full|No space|I/O", problem):
        expected = "a few MB of free disk space"
        cure = f"To see how much is left, run:  {as_typed('df', '-h', str(database.parent))}"
    elif re.search("readonly|[Rr]ead-only|unable to open|ermission|too long", problem):
        expected = "a file and a folder that you may write to, in a path of up to 500 characters"
        cure = _use_another_folder()
    return StoreError(f"{database} cannot be used: {problem}.", expected, cure)


def _require_this_version() -> None:
    """Let MLflow open `mlflow.db`.

    Raises:
        StoreError: it was made by another version of MLflow.
    """
    import mlflow
    from alembic.util import CommandError  # comes with mlflow, but not with CML's mlflow-skinny
    from mlflow.exceptions import MlflowException

    try:
        mlflow.get_experiment_by_name("Default")
    except (MlflowException, CommandError) as error:
        if "schema" not in str(error) and "revision" not in str(error):
            raise
        newer = _made_by_a_newer_mlflow()
        age = "newer" if newer else "older"
        raise StoreError(
            f"{path('mlflow.db')} was made by another version of MLflow than {mlflow.__version__}.",
            f"one database file per environment; this one is {age}",
            "To keep it, use another folder (CMLFLOW_WORKAREA=<folder>); to remove it, run:"
            "  make clean"
            if newer
            else "To bring it up to date, run:  "
            + as_typed(sys.executable, "-m", "mlflow", "db", "upgrade", uri()),
        ) from error


def _made_by_a_newer_mlflow() -> bool:
    """Tell whether `mlflow.db` has a schema for which this MLflow has no migration."""
    import mlflow

    with contextlib.closing(sqlite3.connect(path("mlflow.db"))) as database:
        revisions = database.execute("SELECT version_num FROM alembic_version").fetchall()
    known = Path(mlflow.__file__).with_name("store") / "db_migrations" / "versions"
    return not all(list(known.glob(f"{revision}_*.py")) for (revision,) in revisions)


def _create_database() -> None:
    """Create `mlflow.db` under a lock, in a file of its own that is then moved into place."""
    from filelock import FileLock

    database = path("mlflow.db")
    if database.exists():
        return
    try:
        with FileLock(database.with_name("mlflow.db.lock")):
            if not database.exists():
                _create_database_alone(database)
    except OSError as error:
        raise _unusable(database, error.strerror or str(error)) from error


def _create_database_alone(database: Path) -> None:
    unfinished = database.with_name("mlflow.db.new")
    _unlink(unfinished, SQLITE_ENDINGS)
    _require_usable(unfinished)
    # In a process of its own: when it ends, nothing holds the file open any more.
    create = "import sys, mlflow; mlflow.MlflowClient(sys.argv[1]).search_experiments()"
    made = subprocess.run(
        [sys.executable, "-c", create, f"sqlite:///{unfinished.as_posix()}"],
        cwd=database.parent,
        capture_output=True,
        text=True,
    )
    if made.returncode != 0:
        _unlink(unfinished, SQLITE_ENDINGS)
        errors = re.findall(r"^[\w.]*(?:Error|Exception): .*", made.stderr, re.MULTILINE)
        problem = errors[-1] if errors else made.stderr.strip()[-500:]
        if "sqlite3." in problem:
            raise _unusable(database, problem)
        raise StoreError(
            f"MLflow could not create {database}: {problem}",
            "a complete environment",
            "Start a new session, in which CML sets the variable:  MLFLOW_TRACKING_URI"
            if in_cml()
            else "To install the environment again, run:  pip install -r requirements-local.txt",
        )
    _unlink(database, SQLITE_ENDINGS[1:])  # SQLite would replay it into the new database
    unfinished.replace(database)


def _unlink(database: Path, endings: tuple[str, ...]) -> None:
    for ending in endings:
        database.with_name(database.name + ending).unlink(missing_ok=True)
