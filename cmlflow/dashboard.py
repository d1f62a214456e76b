"""What the ROI dashboard shows: one JSON file of counts in, numbers out. Nothing is trained here.

07_model_monitoring.py logs the file as `dashboard.json` with each of its runs: for each day, how
many messages were found, missed, left alone or alarmed for nothing at each threshold; the drift of
the inputs; the decisions; and the last pair of models that was judged.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cmlflow import scores, store
from cmlflow.errors import BadInput, StoreError

if TYPE_CHECKING:
    import numpy as np
    from mlflow.entities import Run

EXPERIMENT = "telco-monitoring"
FILE = "dashboard.json"
MAKE = "python code/telco/07_model_monitoring.py"
SCHEMA = 1
CELLS = ("tn", "fp", "fn", "tp")
LARGEST = 10**9
"""The highest price, in either direction."""

_KEYS = (
    *("schema", "model", "day", "served", "thresholds", "psi_watch", "psi_alarm"),
    *("days", "promotions", "challenge"),
)
_CURE = f"To measure anew, run:  {MAKE}"


@dataclass(frozen=True)
class Messages:
    """Labelled messages: how many of them each threshold decides rightly and wrongly."""

    title: str
    """Which messages they are, for example `Day 8 (version 2)`."""
    counts: dict[str, list[int]]
    """tn, fp, fn and tp, each at every one of `scores.THRESHOLDS`."""


@dataclass(frozen=True)
class Figures:
    """What these messages are worth at these prices, at one threshold and at the others."""

    threshold: float
    tn: int
    fp: int
    fn: int
    tp: int
    net: float
    net_never: float
    """If no truck is ever sent."""
    net_always: float
    """If a truck is sent to each message."""
    net_by_threshold: tuple[float, ...]
    best: float
    """The threshold with the highest net revenue; the lowest one wins a tie."""
    net_best: float
    break_even: float | None
    """The probability from which a truck pays; None if there is none at these prices."""

    @property
    def messages(self) -> int:
        """How many messages there are."""
        return self.tn + self.fp + self.fn + self.tp

    @property
    def accuracy(self) -> float:
        """The share that was decided rightly; NaN without messages."""
        return (self.tn + self.tp) / self.messages if self.messages else math.nan

    @property
    def net_per_1000(self) -> float:
        """Net revenue of 1000 messages like these; NaN without messages."""
        return 1000 * self.net / self.messages if self.messages else math.nan


def counted(failed: np.ndarray, probability: np.ndarray) -> dict[str, list[int]]:
    """Return tn, fp, fn and tp of these answers, each at every one of `scores.THRESHOLDS`.

    Args:
        failed: 0 or 1 for each message.
        probability: of a failure, in the same order.
    """
    return scores.counts(failed, probability)[list(CELLS)].to_dict("list")


def newest_run(experiment: str = EXPERIMENT) -> Run | None:
    """Return the newest finished run of an experiment that logged FILE; None if there is none.

    We sort the runs and look at their status ourselves, because a managed store may ignore an order
    or a filter.

    Raises:
        StoreError: the store gave no answer.
    """
    import mlflow

    for run in store.newest_first(store.runs_of([experiment])):
        if store.status(run) == "FINISHED":
            try:
                artifacts = mlflow.MlflowClient().list_artifacts(run.info.run_id)
            except Exception as error:
                raise _no_answer(run.info.run_id, error) from None  # it may show a password
            if any(artifact.path == FILE for artifact in artifacts):
                return run
    return None


def load(run_id: str) -> dict[str, Any]:
    """Return what a run of EXPERIMENT logged as FILE, checked.

    Raises:
        BadInput: the file is of another schema, or its counts do not fit together.
        StoreError: the store did not give it.
    """
    import mlflow

    if not re.fullmatch(r"[\w-]+", run_id):
        raise BadInput(f"{run_id[:50]!r} is no id of a run.", "letters, digits and -", _CURE)
    try:
        board = mlflow.artifacts.load_dict(f"runs:/{run_id}/{FILE}")
    except Exception as error:
        raise _no_answer(run_id, error) from None  # it may show a password
    return checked(board)


def checked(board: Any) -> dict[str, Any]:
    """Return a dashboard as it was logged, if this version of the lessons can read it.

    Raises:
        BadInput: another schema, a missing entry, or counts that do not fit together.
    """
    found = board.get("schema") if isinstance(board, dict) else type(board).__name__
    if found != SCHEMA:
        raise BadInput(f"{FILE} has the schema {found!r}.", f"schema {SCHEMA}", _CURE)
    missing = [key for key in _KEYS if key not in board]
    if missing:
        raise BadInput(f"{FILE} lacks {', '.join(missing)}.", ", ".join(_KEYS), _CURE)
    if tuple(board["thresholds"]) != scores.THRESHOLDS:
        raise BadInput(f"{FILE} has other thresholds.", "0, 0.01 and so on up to 1", _CURE)
    judged = board["challenge"]
    tables = {f"day {day['day']}": day["truth"] for day in board["days"] if day["truth"]}
    tables |= {name: judged[name] for name in ("champion", "challenger") if judged}
    for name, table in tables.items():
        columns = [table["counts"].get(cell, ()) for cell in CELLS]
        lengths = {len(column) for column in columns}
        sums = {sum(cells) for cells in zip(*columns, strict=False)}
        if lengths != {len(scores.THRESHOLDS)} or len(sums) != 1:
            raise BadInput(
                f"The counts of {name} in {FILE} do not fit together.",
                f"tn, fp, fn and tp at {len(scores.THRESHOLDS)} thresholds, with the same sum",
                _CURE,
            )
    return board


def choices(board: dict[str, Any]) -> list[Messages]:
    """Return the messages that the reader can choose: all of the served model, then each day.

    If the served model has no labelled day yet, because it took over just now, the first choice is
    the model that answered on the newest labelled day. Nothing if no day is labelled.
    """
    labelled = [day for day in board["days"] if day["truth"]]
    if not labelled:
        return []
    served = board["served"]
    of_served = [day for day in labelled if day["run_id"] == served["run_id"]]
    if of_served:
        title, together = "All days of the served model", of_served
    else:
        newest = labelled[-1]
        title = (
            f"All days of version {newest['version']}: the served version {served['version']} "
            "has no labelled day yet"
        )
        together = [day for day in labelled if day["run_id"] == newest["run_id"]]
    counts = [day["truth"]["counts"] for day in together]
    added = {
        cell: [sum(at) for at in zip(*(one[cell] for one in counts), strict=True)] for cell in CELLS
    }
    return [
        Messages(title, added),
        *(
            Messages(f"Day {day['day']} (version {day['version']})", day["truth"]["counts"])
            for day in labelled
        ),
    ]


def price(entered: object) -> tuple[float, str]:
    """Return a price as it was typed, and what to tell the reader about it.

    Returns:
        The number and an empty text; or 0 and what the field holds instead of a number.
    """
    text = "" if entered is None else str(entered).strip()
    if not text:
        return 0.0, "is empty and counts as 0"
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if abs(value) <= LARGEST:
        return value, ""
    shown = text if len(text) <= 20 else f"{text[:20]}..."
    what = "not a number" if math.isnan(value) else f"beyond {LARGEST:,}"
    return 0.0, f"holds {shown!r}, which is {what}: it counts as 0"


def figures(
    counts: dict[str, list[int]], threshold: float, prices: scores.Prices = scores.PRICES
) -> Figures:
    """Return what messages are worth at these prices, and at which threshold they are worth most.

    Args:
        counts: tn, fp, fn and tp, each at every one of `scores.THRESHOLDS`.
        threshold: from which a truck is sent, 0 to 1; the nearest of `scores.THRESHOLDS` is taken.
        prices: what an answer earns or costs.
    """
    at = min(range(len(scores.THRESHOLDS)), key=lambda i: abs(scores.THRESHOLDS[i] - threshold))
    net = [
        scores.net_revenue(*cells, prices=prices)
        for cells in zip(*(counts[cell] for cell in CELLS), strict=True)
    ]
    best = max(range(len(net)), key=net.__getitem__)  # the first of several
    quiet, failures = counts["tn"][at] + counts["fp"][at], counts["fn"][at] + counts["tp"][at]
    pays = 2 * prices.failure + prices.quiet + prices.false_alarm > 0
    break_even = scores.break_even(prices)
    return Figures(
        threshold=scores.THRESHOLDS[at],
        **{cell: counts[cell][at] for cell in CELLS},
        net=net[at],
        net_never=scores.net_revenue(tn=quiet, fp=0, fn=failures, tp=0, prices=prices),
        net_always=scores.net_revenue(tn=0, fp=quiet, fn=0, tp=failures, prices=prices),
        net_by_threshold=tuple(net),
        best=scores.THRESHOLDS[best],
        net_best=net[best],
        break_even=break_even if pays and 0 <= break_even <= 1 else None,
    )


def _no_answer(run_id: str, error: Exception) -> StoreError:
    return StoreError(
        f"The store did not give {FILE} of run {run_id}: {store.one_line(error)}",
        "a store that answers",
        f"To see what it holds, open:  {store.how_to_open_ui()}",
    )
