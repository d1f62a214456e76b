"""Where a lesson reads and writes: the project root, the working area, the MLflow store in it.

In CML the platform brings the MLflow store. On a laptop the store is one SQLite file and one
artifact folder inside the project, or inside the folder that CMLFLOW_WORKAREA names.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

if TYPE_CHECKING:
    from mlflow.entities import Run

SQLITE_ENDINGS = ("", "-journal", "-wal", "-shm")
"""A SQLite database is up to four files: a journal that is left over changes the next database."""
MADE_BY_LESSONS = (
    *(name + ending for name in ("mlflow.db", "mlflow.db.new") for ending in SQLITE_ENDINGS),
    "mlflow.db.lock",
    "mlartifacts",
    "mlruns",
    "spark-warehouse",
    "spark-warehouse.lock",
    "spark-tmp",
    "data/states",
    "data/predictions.csv",
    "data/.predictions-*.unfinished",
)
"""What the lessons leave in the working area, as glob patterns relative to it."""


class ProjectNotFound(RuntimeError):
    """No folder of this project is near the script, the current folder or the package."""


class MissingStep(RuntimeError):
    """A lesson needs what an earlier step makes, and it is not there."""

    def __init__(self, found: str, expected: str, command: str) -> None:
        super().__init__(f"{found}\nExpected: {expected}\nRun this first:  {command}")


class StoreError(RuntimeError):
    """The local MLflow store is there, but this MLflow cannot use it as it is."""


def root() -> Path:
    """Return the project root, the folder that holds `code/` and `data/`.

    Looked for at the script that runs, then at the current folder, then at the installed package,
    each time upwards: a notebook kernel has no `__file__` and may start in any folder.

    Raises:
        ProjectNotFound: none of the three lies inside a checkout of this project.
    """
    starts = (Path(sys.argv[0] or "."), Path.cwd(), Path(__file__))
    for start in starts:
        for folder in start.resolve().parents if start.is_file() else (start, *start.parents):
            if (folder / "code" / "00_datagen.py").is_file() and (folder / "cmlflow").is_dir():
                return folder.resolve()
    raise ProjectNotFound(
        f"No project folder above {starts[0]} or {starts[1]}.\n"
        "Expected: a folder with code/00_datagen.py and cmlflow/ in it.\n"
        "Change into the project first:  cd <the folder you cloned>"
    )


def path(*parts: str) -> Path:
    """Return a path in the working area: the project root, or what CMLFLOW_WORKAREA names."""
    chosen = os.environ.get("CMLFLOW_WORKAREA")
    area = Path(chosen).expanduser().resolve() if chosen else root()
    return area.joinpath(*parts)


def in_cml() -> bool:
    """Tell whether this process runs inside CML: its sessions and jobs set CDSW_PROJECT_ID."""
    return bool(os.environ.get("CDSW_PROJECT_ID"))


def use_store(experiment: str | None = None) -> None:
    """Let MLflow log to the store of this platform; call it before the first MLflow call.

    With MLFLOW_TRACKING_URI set (CML sets it, and so may you) nothing changes. Otherwise the store
    is `mlflow.db` in the working area; a fresh one is made whole or not at all, once, also when
    two lessons start at the same moment.

    Args:
        experiment: name of an experiment to create in the local store if it is absent, so that
            its artifacts lie in the working area and not in `./mlruns` of the current folder.

    Raises:
        StoreError: `mlflow.db` was made by another MLflow version, or the experiment was deleted.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    _fail_the_open_run_on_error()
    # A bar for each file that is read, however small, hides what a lesson prints.
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    if not _store_is_ours():
        return
    _create_database()
    from alembic.util import CommandError  # comes with mlflow, but not with CML's mlflow-skinny

    mlflow.set_tracking_uri(_local_uri())
    try:
        found = mlflow.get_experiment_by_name(experiment or "Default")
    except (MlflowException, CommandError) as error:
        if "schema" not in str(error) and "revision" not in str(error):
            raise
        newer = _made_by_a_newer_mlflow()
        age = "newer" if newer else "older"
        raise StoreError(
            f"{path('mlflow.db')} was made by another version of MLflow than "
            f"{mlflow.__version__}.\n"
            f"Expected: one database file per environment; this one is {age}.\n"
            + (
                "To keep it, use another folder (CMLFLOW_WORKAREA=<folder>); to remove it, run:"
                "  make clean"
                if newer
                else "To bring it up to date, run:  "
                + _as_typed(sys.executable, "-m", "mlflow", "db", "upgrade", _local_uri())
            )
        ) from error
    if experiment is None:
        return
    if found is None:
        try:
            mlflow.create_experiment(experiment, artifact_location=artifact_location(experiment))
        except MlflowException:  # another lesson may have created it at this moment
            if mlflow.get_experiment_by_name(experiment) is None:
                raise
    elif found.lifecycle_stage == "deleted":
        raise StoreError(
            f"The experiment {experiment!r} was deleted.\n"
            "Expected: an experiment that is active or does not exist yet.\n"
            f"To bring it back, run:  MLFLOW_TRACKING_URI={_as_typed(_local_uri())} "
            + _as_typed(sys.executable, "-m", "mlflow", "experiments", "restore")
            + f" --experiment-id {found.experiment_id}"
        )


def find_run(run_id: str) -> Run | None:
    """Return a run of the store, or None.

    In CML a new process may be told only of runs of the experiment that it has set: if so, each
    experiment is set in turn, and that of the run stays set.
    """
    import mlflow

    with contextlib.suppress(Exception):
        return mlflow.get_run(run_id)
    experiments = []
    if in_cml():
        with contextlib.suppress(Exception):  # a store that does not list them
            experiments = mlflow.search_experiments()
    for experiment in experiments:
        with contextlib.suppress(Exception):
            mlflow.set_experiment(experiment_id=experiment.experiment_id)
            return mlflow.get_run(run_id)
    return None


def artifact_location(experiment: str) -> str | None:
    """Return the artifact folder of an experiment as a URI, or None where the server decides."""
    return path("mlartifacts", experiment).as_uri() if _store_is_ours() else None


def how_to_open_ui() -> str:
    """Say, as one phrase, where the reader sees the runs: in CML, on a laptop, on a server."""
    if _store_is_ours():
        return "make ui, then http://127.0.0.1:5000"
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if uri.startswith("cml:"):
        return "the Experiments page of this CML project"
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https"):
        return "mlflow ui, on the store that MLFLOW_TRACKING_URI names"
    # An address may carry a password or a token: they are not shown.
    shown = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="")
    return f"the MLflow UI of {urlunsplit(shown)}"


def remove_what_lessons_made() -> list[Path]:
    """Remove what the lessons left in the working area, and return the paths that were there."""
    removed = []
    for pattern in MADE_BY_LESSONS:
        for made in sorted(path().glob(pattern)):
            if made.is_dir():
                shutil.rmtree(made)
            else:
                made.unlink()
            removed.append(made)
    return removed


def _local_uri() -> str:
    return f"sqlite:///{path('mlflow.db').as_posix()}"


def _as_typed(*words: str) -> str:
    """Return the words of a command as a terminal takes them, for example with spaces in them."""
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


def _made_by_a_newer_mlflow() -> bool:
    """Tell whether `mlflow.db` has a schema for which this MLflow has no migration."""
    import mlflow

    with contextlib.closing(sqlite3.connect(path("mlflow.db"))) as database:
        revisions = database.execute("SELECT version_num FROM alembic_version").fetchall()
    known = Path(mlflow.__file__).with_name("store") / "db_migrations" / "versions"
    return not all(list(known.glob(f"{revision}_*.py")) for (revision,) in revisions)


def _store_is_ours() -> bool:
    """Tell whether nobody chose a store: no MLFLOW_TRACKING_URI, no `set_tracking_uri`."""
    import mlflow

    if os.environ.get("MLFLOW_TRACKING_URI"):
        return os.environ["MLFLOW_TRACKING_URI"] == _local_uri()
    return not mlflow.is_tracking_uri_set() or mlflow.get_tracking_uri() == _local_uri()


def _fail_the_open_run_on_error() -> None:
    """Mark a run that an error leaves open as FAILED: MLflow's own clean-up calls it FINISHED.

    `with mlflow.start_run()` does so by itself, but for an interrupt inside `start_run`.
    """
    import mlflow

    before = sys.excepthook
    if getattr(before, "fails_the_open_run", False):
        return

    def hook(kind, error, trace):
        with contextlib.suppress(Exception):
            mlflow.end_run("FAILED")
        before(kind, error, trace)

    hook.fails_the_open_run = True
    sys.excepthook = hook


def _create_database() -> None:
    """Create `mlflow.db` under a lock, in a file of its own that is then moved into place."""
    from filelock import FileLock

    database = path("mlflow.db")
    if database.exists():
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(database.with_name("mlflow.db.lock")):
        if database.exists():
            return
        unfinished = database.with_name("mlflow.db.new")
        _unlink(unfinished, SQLITE_ENDINGS)
        # In a process of its own: when it ends, nothing holds the file open any more.
        create = "import sys, mlflow; mlflow.MlflowClient(sys.argv[1]).search_experiments()"
        made = subprocess.run(
            [sys.executable, "-c", create, f"sqlite:///{unfinished.as_posix()}"],
            cwd=database.parent,
            capture_output=True,
            text=True,
        )
        if made.returncode != 0:
            raise StoreError(
                f"MLflow could not create {database}:\n{made.stderr.strip()[-2000:]}\n"
                "Expected: a folder that can be written to, and a complete environment.\n"
                + (
                    "Start a new session, in which CML sets the variable:  MLFLOW_TRACKING_URI"
                    if in_cml()
                    else "To install the environment again, run:  "
                    "pip install -r requirements-local.txt"
                )
            )
        _unlink(database, SQLITE_ENDINGS[1:])  # SQLite would replay it into the new database
        unfinished.replace(database)


def _unlink(database: Path, endings: tuple[str, ...]) -> None:
    for ending in endings:
        database.with_name(database.name + ending).unlink(missing_ok=True)
