"""The MLflow store: a local one on a laptop, and what CML's does differently.

In CML the platform brings the store. On a laptop it is one SQLite file and one artifact folder in
the working area.
"""

from __future__ import annotations

import atexit
import contextlib
import getpass
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit, urlunsplit

from cmlflow import database, libraries, workarea
from cmlflow.errors import BadInput, StoreError
from cmlflow.workarea import in_cml, path

if TYPE_CHECKING:
    from mlflow.entities import Experiment, Run
    from mlflow.models.model import ModelInfo

ENDING_SIGNALS = ("SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGBREAK")
"""What ends a process without an error message: a stopped job, a closed terminal, a time limit."""


def use_store(experiment: str | None = None) -> None:
    """Let MLflow log to the store of this platform; call it before the first MLflow call.

    With MLFLOW_TRACKING_URI set (CML sets it, and so may you) that store is used. Otherwise it is
    `mlflow.db` in the working area; a fresh one is made whole or not at all, once, also when two
    lessons start at the same moment.

    Args:
        experiment: name of an experiment to create in the local store if it is absent, so that
            its artifacts lie in the working area and not in `./mlruns` of the current folder.

    Raises:
        StoreError: the store does not answer; or `mlflow.db` is damaged, locked, read-only or of
            another MLflow version; or the experiment was deleted.
        Unsupported: MLflow or pandas is of a release that the lessons do not run with.
        LessonError: the working area was moved or copied, or cannot be written to.
    """
    libraries.require_supported()
    end_run_when_stopped()
    # A bar for each file that is read, however small, hides what a lesson prints.
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    for variable in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        if variable in os.environ and not os.environ[variable].strip():
            del os.environ[variable]  # blanks count as not set
    if not _store_is_ours():
        _require_an_answer()
    else:
        database.require_plain_name()
        workarea.make_folder()
        workarea.require_same_place()
        database.prepare()
        workarea.make_folder("mlartifacts")
        if experiment is not None:
            _make_experiment(experiment)


def end_run_when_stopped() -> None:
    """Let a signal that stops this process end the open run first, as FAILED; `use_store` calls it.

    Without it, a stopped job or a closed terminal leaves the run RUNNING for ever. The signal is
    turned into SystemExit, so `with mlflow.start_run()` ends its run as after any error. Nothing
    can be done about `kill -9`. A kernel keeps its own handlers, and so does a signal that
    somebody else handles or ignores.
    """
    if workarea.in_kernel() or threading.current_thread() is not threading.main_thread():
        return
    import mlflow

    def stop(number: int, frame) -> None:
        inside = frame
        while inside is not None:
            # In the middle of these a run is in the store, but MLflow does not know it (any more).
            if inside.f_code.co_name in ("start_run", "end_run"):
                again = threading.Timer(0.05, os.kill, (os.getpid(), number))
                again.daemon = True
                again.start()
                return
            inside = inside.f_back
        # Registered last, so it runs before MLflow's own, which calls an open run FINISHED.
        atexit.register(mlflow.end_run, "FAILED")
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        for handled in signals:  # a second one must not interrupt the end of the run
            signal.signal(handled, signal.SIG_IGN)
        raise SystemExit(128 + number)

    signals = [getattr(signal, name) for name in ENDING_SIGNALS if hasattr(signal, name)]
    for handled in (*signals, signal.SIGINT):
        if signal.getsignal(handled) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(handled, stop)


def not_deleted(found: Experiment | None) -> Experiment | None:
    """Return what `get_experiment_by_name` gave: an experiment, or None where there is none.

    Raises:
        StoreError: it was deleted. MLflow keeps deleted experiments, and their names stay taken.
    """
    if found is None or found.lifecycle_stage != "deleted":
        return found
    uri = repr(database.uri()) if _store_is_ours() else ""
    restore = (
        f"import mlflow; mlflow.MlflowClient({uri}).restore_experiment('{found.experiment_id}')"
    )
    typed = database.as_typed(sys.executable, "-c", restore)
    raise StoreError(
        f"The experiment {found.name!r} was deleted.",
        "an experiment that is active or does not exist yet",
        f"To bring it back, run:  {typed}",
    )


def find_run(run_id: str, experiments: Iterable[str] = ()) -> Run | None:
    """Return a run of the store, or None if the store says that it has no such run.

    In CML a new process may be told only of runs of the experiment that it has set: if so, each
    experiment is set in turn, and that of the run stays set.

    Args:
        run_id: the id of the run.
        experiments: names of experiments in which it may be; a store may not list them.

    Raises:
        StoreError: the store gave no answer, so nobody knows whether it has the run.
    """
    import mlflow

    names = dict.fromkeys(experiments) if in_cml() else {}
    refusals = []
    try:
        return mlflow.get_run(run_id)
    except Exception as error:
        refusals.append(error)
    all_are_known = True
    if in_cml():
        try:
            names |= dict.fromkeys(found.name for found in mlflow.search_experiments())
        except Exception:  # a store that does not list them
            all_are_known = False
    for name in names:
        try:
            if mlflow.get_experiment_by_name(name) is not None:
                mlflow.set_experiment(name)
                return mlflow.get_run(run_id)
        except Exception as error:
            refusals.append(error)
    if all_are_known and any(_says_absent(error) for error in refusals):
        return None
    raise StoreError(
        f"The store did not say whether it has a run {run_id}: {one_line(refusals[-1])}",
        "a store that answers, and a run of this project",
        f"To see what it holds, open:  {how_to_open_ui()}",
    ) from None  # the cause may show a password


def choose_run(
    run_id: str | None = None,
    model: str | None = None,
    version: int | None = None,
    alias: str | None = None,
    *,
    wanted: Callable[[Run], bool] = lambda run: True,
    experiments: Iterable[str] = (),
) -> tuple[Run, str] | None:
    """Return a run and the URI of its model: by its id, by a model version, or the newest wanted.

    Args:
        run_id: the id of a run; or
        model: the name of a registered model, alone or with one of the next two.
        version: the number of a version of it.
        alias: an alias of a version of it.
        wanted: without a run id, version or alias: which runs are looked for, newest version first.
        experiments: names of experiments. Their finished runs are looked at when no model is
            given and no version fits: there may be no registry, or one that lists no versions.
            They are also where a run is looked for, see `find_run`.

    Returns:
        The run, and `models:/<name>/<version>` or `runs:/<run id>/model`; None if all that could
        be asked was asked and no run is wanted.

    Raises:
        BadInput: no run, version or alias of this name is there.
        StoreError: the store or the registry gave no answer.
    """
    import mlflow

    experiments, client = tuple(experiments), mlflow.MlflowClient()
    if run_id is not None:
        run = find_run(run_id, experiments)
        if run is None:
            raise BadInput(
                f"There is no run {run_id} in this store ({how_to_open_ui()}).",
                "the id of a run that logged a model",
                "To list runs with their ids, run:  python code/03_Get_Experiment.py",
            )
        return run, f"runs:/{run_id}/model"
    refusal, versions = None, []
    try:
        if alias is not None:
            versions = [client.get_model_version_by_alias(model, alias)]
        elif version is not None:
            versions = [client.get_model_version(model, str(version))]
        else:  # a managed registry may ignore the filter
            found = client.search_model_versions(named_model(model) if model else "")
            versions = [one for one in found if model in (None, one.name)]
    except Exception as error:
        refusal = error
    one_is_named = alias is not None or version is not None
    if refusal is not None and (model is not None or not experiments):
        named = f"version {version}" if version is not None else f"alias {alias!r}"
        if one_is_named and _says_absent(refusal):
            raise BadInput(
                f"The registered model {model!r} has no {named}: {one_line(refusal)}",
                "a version or an alias that is there",
                f"To see what there is, open:  {how_to_open_ui(model_page(model))}",
            ) from refusal
        raise StoreError(
            f"The registry gave no version of {model or 'any model'}: {one_line(refusal)}",
            "a registry that answers, or the id of a run",
            "To choose a run by its id, add:  --run-id <run id>",
        ) from None  # the cause may show a password
    for one in sorted(versions, key=lambda one: one.creation_timestamp or 0, reverse=True):
        try:
            run = find_run(one.run_id, experiments) if one.run_id else None
        except StoreError as error:  # of another project, perhaps
            refusal = error
            continue
        if run is not None and (one_is_named or wanted(run)):
            return run, f"models:/{one.name}/{one.version}"
    if model is None:
        for run in newest_first(runs_of(experiments)):
            if status(run) == "FINISHED" and wanted(run):
                find_run(run.info.run_id, experiments)  # sets its experiment where CML asks for it
                return run, f"runs:/{run.info.run_id}/model"
    if isinstance(refusal, StoreError):
        raise refusal
    return None


def finished_like(experiment: str, tags: dict[str, str], params: dict[str, Any]) -> Run | None:
    """Return the newest finished run of an experiment with these tags and exactly these params.

    To train on the same rows with the same code would give the same model again.
    """
    wanted = {name: str(value) for name, value in params.items()}
    for run in newest_first(runs_of([experiment])):  # a store may ignore a filter: compare here
        alike = tags.items() <= run.data.tags.items() and wanted == run.data.params
        if alike and status(run) == "FINISHED":
            return run
    return None


def author(run: Run) -> str:
    """Return the name of the user who started a run; `unknown` where the store keeps none."""
    return run.data.tags.get("mlflow.user") or run.info.user_id or "unknown"


def is_mine(run: Run) -> bool:
    """Tell whether a run was made by this user, in the working area or in this CML project.

    The members of a CML project may share a user.

    On a server that others use too the answer is always no: there the name is a text that
    anybody may write.
    """
    me = {getpass.getuser(), os.environ.get("HADOOP_USER_NAME")}
    ours = _store_is_ours() or (in_cml() and _chosen_uri().startswith("cml:"))
    return ours and author(run) in me


def artifact_location(experiment: str) -> str | None:
    """Return the artifact folder of an experiment as a URI, or None where the server decides."""
    return path("mlartifacts", experiment).as_uri() if _store_is_ours() else None


@contextlib.contextmanager
def may_refuse(what: str, instead: str) -> Iterator[list[Exception]]:
    """Let a managed store refuse what is done in this block: say so in one line, and go on.

    Args:
        what: what the store would then not have, for example `a dataset`.
        instead: where the same fact stands, for example `the tags`.

    Yields:
        A list: empty, or with the refusal in it once the block has ended.
    """
    refusals: list[Exception] = []
    try:
        yield refusals
    except Exception as error:
        refusals.append(error)
        noun = re.sub(r"^(an?|the) ", "", what)
        print(f"No {noun}: this store refused it ({type(error).__name__}); see {instead}")


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

    Raises:
        StoreError: neither `log_model` nor the registry tells it.
    """
    import mlflow

    if logged.registered_model_version is not None:
        return int(logged.registered_model_version)
    found, refusal = [], None
    try:
        found = mlflow.MlflowClient().search_model_versions(named_model(model))
    except Exception as error:
        refusal = error
    run_id = run.info.run_id
    numbers = [int(one.version) for one in found if (one.name, one.run_id) == (model, run_id)]
    if not numbers:
        raise StoreError(
            f"The registry does not tell which version of {model!r} run {run_id} became"
            + (f": {one_line(refusal)}" if refusal else "."),
            "a registry that lists its versions",
            f"To see whether it has one, open:  {how_to_open_ui(model_page(model))}",
        ) from None  # the cause may show a password
    return max(numbers)


def run_page(run: Run, tab: str = "") -> str:
    """Return the page of a run in the MLflow UI, for `how_to_open_ui`.

    Args:
        run: the run.
        tab: for example `model-metrics`, `artifacts`, or `artifacts/figures/grades.png`.
    """
    page = f"#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
    return f"{page}/{quote(tab)}" if tab else page


def runs_page(experiment_id: str, lowest_first: str = "") -> str:
    """Return the page that lists the runs of an experiment, for `how_to_open_ui`.

    Args:
        experiment_id: of the experiment.
        lowest_first: a metric; the runs with the smallest value come first, those without it last.
    """
    page = f"#/experiments/{experiment_id}/runs?workflowType=machine_learning"
    key = quote(f"metrics.`{lowest_first}`")
    return f"{page}&orderByKey={key}&orderByAsc=true" if lowest_first else page


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
    uri = _chosen_uri()
    if uri.startswith("cml:"):
        return "the Experiments page of this CML project"
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https"):
        return "mlflow ui, on the store that MLFLOW_TRACKING_URI names"
    # An address may carry a password or a token: they are not shown.
    shown = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="")
    return f"the MLflow UI of {urlunsplit(shown)}" + (f"/{page}" if page else "")


def one_line(error: Exception) -> str:
    """Return the first line of an error, without the password that an address may hold."""
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    first = re.sub(r"(\w://)[^\s'\"]*@", r"\1", first)
    return re.sub(r"\?[^\s'\")]*", "", first)[:300]


def named_model(model: str) -> str:
    """Return the filter that finds the versions of a registered model."""
    mark = '"' if "'" in model else "'"
    return f"name = {mark}{model}{mark}"


def runs_of(experiments: Iterable[str]) -> list[Run]:
    """Return the runs of those experiments that are there.

    Raises:
        StoreError: the store gave no answer.
    """
    import mlflow

    runs = []
    for name in experiments:
        try:
            found = mlflow.get_experiment_by_name(name)
            if found is None or found.lifecycle_stage == "deleted":
                continue
            if in_cml():  # a store may know only the experiment that was set
                mlflow.set_experiment(name)
            runs += mlflow.search_runs([found.experiment_id], output_format="list")
        except Exception as error:
            raise StoreError(
                f"The store gave no runs of the experiment {name!r}: {one_line(error)}",
                "a store that answers",
                f"To see what it holds, open:  {how_to_open_ui()}",
            ) from None  # the cause may show a password
    return runs


def _chosen_uri() -> str:
    """Return the address of the store that the environment names, or nothing."""
    return os.environ.get("MLFLOW_TRACKING_URI", "").strip()


def _says_absent(error: Exception) -> bool:
    """Tell whether a store answered that what was asked for is not there."""
    return getattr(error, "error_code", "") in (
        "RESOURCE_DOES_NOT_EXIST",
        "INVALID_PARAMETER_VALUE",  # a text that cannot be an id
        "NOT_FOUND",
    )


def _make_experiment(name: str) -> None:
    """Create an experiment whose artifacts lie in the working area, unless it is there."""
    import mlflow
    from mlflow.exceptions import MlflowException

    if not_deleted(mlflow.get_experiment_by_name(name)) is None:
        try:
            mlflow.create_experiment(name, artifact_location=artifact_location(name))
        except MlflowException:  # another lesson may have created it at this moment
            if mlflow.get_experiment_by_name(name) is None:
                raise


def _store_is_ours() -> bool:
    """Tell whether nobody chose a store: no MLFLOW_TRACKING_URI, no `set_tracking_uri`."""
    import mlflow

    if "MLFLOW_TRACKING_URI" in os.environ:
        return _chosen_uri() in ("", database.uri())
    return not mlflow.is_tracking_uri_set() or mlflow.get_tracking_uri() == database.uri()


def _require_an_answer() -> None:
    """Ask the store that somebody chose for one experiment, without MLflow's minutes of retries.

    Raises:
        StoreError: nobody answers there, or it is no store.
    """
    import mlflow

    uri = _chosen_uri() or mlflow.get_tracking_uri()
    if uri.startswith("cml:"):
        return
    patience = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
    added = [variable for variable in patience if variable not in os.environ]
    os.environ |= {variable: patience[variable] for variable in added}
    try:
        mlflow.search_experiments(max_results=1)
    except Exception as error:
        if getattr(error, "error_code", "") == "PERMISSION_DENIED":
            return  # one may log without being allowed to list
        raise StoreError(
            f"The store that MLFLOW_TRACKING_URI names cannot be used: {one_line(error)}",
            "the address of an MLflow store that is running",
            "To use a store in the project instead, run:  unset MLFLOW_TRACKING_URI",
        ) from None  # the cause may show a password
    finally:
        for variable in added:
            del os.environ[variable]
