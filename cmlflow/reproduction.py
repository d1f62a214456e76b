"""Was a run repeated? Two trainings compared to the last bit, and the verdict."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import mlflow.data  # noqa: F401  (first: it imports cmlflow.dataset by itself)
import numpy as np

from cmlflow import store
from cmlflow.dataset import training_dataset
from cmlflow.errors import BadInput, LessonError, MissingStep, StoreError
from cmlflow.libraries import version

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities import Run

LESSON = "python code/08_Reproduce_Run.py"


@dataclass(frozen=True)
class Training:
    """What a training gave.

    Attributes:
        row_count: rows that were read, as text; `unknown` where nobody counted them.
        metrics: by name, all values as pairs of step and value.
        predictions: what the model says of each row, in the order of the key.
    """

    row_count: str
    metrics: dict[str, list[tuple[int, float]]]
    predictions: np.ndarray


@dataclass(frozen=True)
class Libraries:
    """How the libraries of this environment compare with those that a model was trained with.

    Attributes:
        known: whether the model names any.
        others: those that differ, as phrases: `numpy 1.26.4 then, 2.4.0 now`.
        pins: how pip gets the model's libraries back, for those that differ.
    """

    known: bool
    others: list[str] = field(default_factory=list)
    pins: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """Return a phrase for the verdict."""
        if not self.known:
            return "the model names none"
        return "; ".join(self.others) or "the same"


def compare_libraries(requirements: str) -> Libraries:
    """Compare a model's `requirements.txt` with what is installed here.

    MLflow itself is left out: it stores the model, it does not train it.
    """
    lines = [line.split("#")[0].strip() for line in requirements.splitlines()]
    named = [line for line in lines if line and not line.startswith(("mlflow", "-"))]
    others, pins = [], []
    for line in named:
        name, _, then = line.partition("==")
        now = version(name) or "not installed"
        if now != then:
            others.append(f"{name} {then or 'unknown'} then, {now} now")
            pins.append(line)
    return Libraries(bool(named), others, pins)


def compare(first: Training, again: Training) -> pd.DataFrame:
    """Compare two trainings to the last bit.

    Returns:
        One row for the number of rows, for each metric and for the predictions: `what`, `first`
        and `again` (texts; of a metric the last value) and `equal` (bool). A metric is equal if
        all its steps and values are. NaN equals NaN.
    """
    import pandas as pd

    table = [
        ("rows", first.row_count, again.row_count, str(first.row_count) == str(again.row_count))
    ]
    for name in sorted({*first.metrics, *again.metrics}):
        # As text: there a NaN equals a NaN, and each other number has a text of its own.
        texts = [
            sorted(
                repr((int(step), float(value))) for step, value in training.metrics.get(name, [])
            )
            for training in (first, again)
        ]
        last = [
            max(training.metrics[name])[1] if training.metrics.get(name) else None
            for training in (first, again)
        ]
        table.append((name, *last, texts[0] == texts[1]))
    one, two = (np.asarray(training.predictions) for training in (first, again))
    alike = one.shape == two.shape and one.dtype == two.dtype
    same = int(np.sum((one == two) | ((one != one) & (two != two)))) if alike else 0
    table.append(("predictions", len(one), f"{same} equal", alike and same == one.size))
    comparison = pd.DataFrame(table, columns=["what", "first", "again", "equal"])
    return comparison.astype({"first": str, "again": str, "equal": bool})


def verdict_of(comparison: pd.DataFrame, libraries: Libraries) -> str:
    """Return the verdict in words; "identical" only if nothing differs, libraries included."""
    different = ", ".join(comparison.loc[~comparison["equal"], "what"])
    if different:
        return f"different: {different} (libraries: {libraries})"
    if not libraries.known:
        return "equal numbers, but the model names no libraries"
    if libraries.others:
        return f"equal numbers, but other libraries: {libraries}"
    return "identical"


@contextlib.contextmanager
def impossible_if_it_fails(
    where: str, libraries: Libraries, write_verdict: Callable[[str], None]
) -> Iterator[None]:
    """Give the verdict "impossible" if logged code or a logged model fails in this block.

    Args:
        where: for example `in its code or its model`.
        libraries: as in `compare_libraries`; another library is the usual reason.
        write_verdict: writes the verdict down.

    Raises:
        LessonError: whatever was raised in the block, in three lines; also for `SystemExit`, which
            would end the lesson as if it had succeeded.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        verdict = f"impossible: {type(error).__name__} {where} (libraries: {libraries})"
        write_verdict(verdict)
        said = (str(error).splitlines() or [""])[0]
        raise not_repeated(
            verdict, libraries, f"Mend its code or its model: {type(error).__name__} {said}"
        ) from error


def not_repeated(verdict: str, libraries: Libraries, otherwise: str) -> LessonError:
    """Return the error that ends the lesson when a run was not repeated.

    Args:
        verdict: the verdict.
        libraries: those that differ come first, because they are the usual reason.
        otherwise: what to do if no library differs.
    """
    pins = " ".join(f"'{pin}'" for pin in libraries.pins)
    return LessonError(
        f"The run could not be repeated: {verdict}.",
        "equal rows, metrics and predictions",
        f"To install the model's libraries, run:  pip install {pins}" if pins else otherwise,
    )


def require_one_run(chosen: dict[str, Any], trust: bool) -> None:
    """Raise BadInput unless the options of 08 name one run, or leave the choice to the lesson."""
    fitting = (set(), {"run_id"}, {"model"}, {"model", "version"}, {"model", "alias"})
    if set(chosen) in fitting and (chosen or not trust):
        return
    given = [f"--{name.replace('_', '-')} {value}" for name, value in chosen.items()]
    raise BadInput(
        f"These options do not name one run: {', '.join(given + ['--trust'] * trust)}.",
        "a run id; or a model, alone or with one of version and alias; or no option at all",
        f"For the newest that was trained on a snapshot, run:  {LESSON}",
    )


def nothing_to_repeat(model: str | None) -> MissingStep:
    """Return the error that ends the lesson if no run was trained on an Iceberg snapshot."""
    return MissingStep(
        f"No run of {model or 'any registered model or lesson'} names an Iceberg snapshot.",
        "a run that does, or a run of your choice (--run-id)",
        "python code/07_Keep_Snapshot.py",
    )


def require_snapshot(run: Run) -> None:
    """Raise MissingStep unless a run names the Iceberg snapshot that it was trained on."""
    if training_dataset(run) is None and "iceberg_snapshot_id" not in run.data.tags:
        raise MissingStep(
            f"Run {run.info.run_id} names no Iceberg snapshot, as a dataset or in its tags.",
            "a run of 06_Spark_Iceberg.py, 07_Keep_Snapshot.py or 14_XGBoost_Iceberg.py",
            "python code/07_Keep_Snapshot.py",
        )


def not_trusted(run: Run, model_uri: str) -> LessonError:
    """Return the error that ends the lesson before it runs the code of somebody else.

    Args:
        run: the run that logged the code.
        model_uri: `models:/<name>/<version>` or `runs:/<run id>/model`.
    """
    kind, _, name = model_uri.partition(":/")
    model, _, number = name.rpartition("/")
    which = f"--model {shlex.quote(model)} --version {number}" if kind == "models" else ""
    page = store.how_to_open_ui(store.run_page(run, "artifacts/training.py"))
    return LessonError(
        f"Run {run.info.run_id} is by {store.author(run)}, and its code could do whatever you can.",
        "a run that you made, in this working area or this CML project",
        f"Read its code ({page}). If you trust it, run:  "
        f"{LESSON} {which or f'--run-id {run.info.run_id}'} --trust",
    )


def counted(run: Run) -> str:
    """Return how many rows a run says that it read, as text; `unknown` if it does not say."""
    used = training_dataset(run)
    profile = json.loads(used.dataset.profile or "{}") if used else {}
    return str(run.data.tags.get("row_count", profile.get("num_rows", "unknown")))


@contextlib.contextmanager
def impossible_without(uri: str, write_verdict: Callable[[str], None]) -> Iterator[None]:
    """Give the verdict "impossible" if what a run should have logged cannot be read.

    Args:
        uri: what is read in this block.
        write_verdict: writes the verdict down.

    Raises:
        MissingStep: it is not there.
        StoreError: nobody knows whether it is there, so there is no verdict.
    """
    try:
        yield
    except Exception as error:
        code = getattr(error, "error_code", "")
        if code != "RESOURCE_DOES_NOT_EXIST" and "No such file" not in str(error):
            raise StoreError(
                f"{uri} could not be read: {type(error).__name__}.",
                "a store that answers",
                f"To try again, run:  {LESSON}",
            ) from None  # the cause may show a password
        write_verdict(f"impossible: the run has no {uri.rpartition('/')[2]}")
        raise MissingStep(
            f"There is no {uri}, so nobody can repeat the run.",
            "a finished run with its training code and its model, such as that of 07; "
            "15_XGBoost_Distributed.py logs no code",
            "python code/07_Keep_Snapshot.py",
        ) from error
