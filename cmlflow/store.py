"""The MLflow store: a local one on a laptop, and what CML's does differently.

In CML the platform brings the store. On a laptop it is one SQLite file and one artifact folder in
the working area.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sqlite3
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit, urlunsplit

from cmlflow.errors import StoreError
from cmlflow.workarea import SQLITE_ENDINGS, in_cml, path

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.models.model import ModelInfo


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
            f"{path('mlflow.db')} was made by another version of MLflow than {mlflow.__version__}.",
            f"one database file per environment; this one is {age}",
            "To keep it, use another folder (CMLFLOW_WORKAREA=<folder>); to remove it, run:"
            "  make clean"
            if newer
            else "To bring it up to date, run:  "
            + _as_typed(sys.executable, "-m", "mlflow", "db", "upgrade", _local_uri()),
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
            f"The experiment {experiment!r} was deleted.",
            "an experiment that is active or does not exist yet",
            f"To bring it back, run:  MLFLOW_TRACKING_URI={_as_typed(_local_uri())} "
            + _as_typed(sys.executable, "-m", "mlflow", "experiments", "restore")
            + f" --experiment-id {found.experiment_id}",
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


@contextlib.contextmanager
def may_refuse(what: str, instead: str) -> Iterator[None]:
    """Let a managed store refuse what is done in this block: say so in one line, and go on.

    Args:
        what: what the store would then not have, for example `a dataset`.
        instead: where the same fact stands, for example `the tags`.
    """
    try:
        yield
    except Exception as error:
        print(f"This store refused {what} ({type(error).__name__}); see {instead}")


def status(run: Run) -> str:
    """Return the status of a run as MLflow writes it: CML puts `EXPERIMENT_RUN_` before it."""
    return run.info.status.removeprefix("EXPERIMENT_RUN_")


def name(run: Run) -> str:
    """Return the name of a run, or its id: not every platform keeps the name."""
    return run.info.run_name or run.info.run_id


def newest_first(runs: Iterable[Run]) -> list[Run]:
    """Return runs in the order in which they started, newest first, whatever the store did."""
    return sorted(runs, key=lambda run: run.info.start_time or 0, reverse=True)


def version_of(logged: ModelInfo, run: Run, model: str) -> int:
    """Return the version of a registered model that `log_model` made for a run.

    Args:
        logged: what `log_model` returned; a managed store may not tell the version there.
        run: the run that logged the model.
        model: name of the registered model.
    """
    import mlflow

    if logged.registered_model_version is not None:
        return int(logged.registered_model_version)
    versions = mlflow.MlflowClient().search_model_versions(f"name = '{model}'")
    return max(int(found.version) for found in versions if found.run_id == run.info.run_id)


def run_page(run: Run, tab: str = "") -> str:
    """Return the page of a run in the MLflow UI, for `how_to_open_ui`.

    Args:
        run: the run.
        tab: for example `model-metrics`, `artifacts`, or `artifacts/figures/grades.png`.
    """
    page = f"#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
    return f"{page}/{quote(tab)}" if tab else page


def runs_page(experiment_id: str, order_by: str = "") -> str:
    """Return the page that lists the runs of an experiment, for `how_to_open_ui`.

    Args:
        experiment_id: of the experiment.
        order_by: a metric; the runs with the smallest value come first, those without it last.
    """
    page = f"#/experiments/{experiment_id}/runs?workflowType=machine_learning"
    key = quote(f"metrics.`{order_by}`")
    return f"{page}&orderByKey={key}&orderByAsc=true" if order_by else page


def compare_page(runs: Iterable[Run]) -> str:
    """Return the page that compares runs, for `how_to_open_ui`."""
    runs = list(runs)
    experiments = list(dict.fromkeys(run.info.experiment_id for run in runs))
    ids = quote(json.dumps([run.info.run_id for run in runs], separators=(",", ":")))
    return f"#/compare-runs?runs={ids}&experiments={quote(json.dumps(experiments))}"


def model_page(model: str, version: int | None = None) -> str:
    """Return the page of a registered model, or of one version, for `how_to_open_ui`."""
    return f"#/models/{quote(model)}" + (f"/versions/{version}" if version is not None else "")


def how_to_open_ui(page: str = "") -> str:
    """Say, as one phrase, where the reader sees the runs: in CML, on a laptop, on a server.

    Args:
        page: the page to open in the MLflow UI, from `run_page` and the like. CML has another UI.
    """
    if _store_is_ours():
        return f"make ui, then http://127.0.0.1:5000/{page}".removesuffix("/")
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if uri.startswith("cml:"):
        return "the Experiments page of this CML project"
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https"):
        return "mlflow ui, on the store that MLFLOW_TRACKING_URI names"
    # An address may carry a password or a token: they are not shown.
    shown = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="")
    return f"the MLflow UI of {urlunsplit(shown)}"


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
                f"MLflow could not create {database}:\n{made.stderr.strip()[-2000:]}",
                "a folder that can be written to, and a complete environment",
                "Start a new session, in which CML sets the variable:  MLFLOW_TRACKING_URI"
                if in_cml()
                else "To install the environment again, run:  "
                "pip install -r requirements-local.txt",
            )
        _unlink(database, SQLITE_ENDINGS[1:])  # SQLite would replay it into the new database
        unfinished.replace(database)


def _unlink(database: Path, endings: tuple[str, ...]) -> None:
    for ending in endings:
        database.with_name(database.name + ending).unlink(missing_ok=True)
