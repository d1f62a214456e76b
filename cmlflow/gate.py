"""May a challenger take the champion's place? Judged by both on the same rows, beyond chance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cmlflow.errors import BadInput

if TYPE_CHECKING:
    import numpy as np

MODES = ("off", "dry-run", "on")
PROMOTE, KEEP = "promote", "keep"
T = TypeVar("T")


def between(low: float, high: float = float("inf")) -> Any:
    """Return a field of thresholds whose value lies between these two, or is equal to one."""
    return field(metadata={"low": low, "high": high})


@dataclass(frozen=True)
class Thresholds:
    """What a challenger must reach; a YAML file beside the lesson holds the values."""

    min_rows: int = between(2)
    """Test rows below which nothing is judged."""
    min_gain_over_baseline: float
    """What the lower end of the interval of baseline minus challenger must exceed."""
    min_gain_over_champion: float
    """What the lower end of the interval of champion minus challenger must exceed."""
    confidence: float = between(0.01, 0.9999)
    """The share of resamples inside an interval, between 0 and 1."""
    resamples: int = between(100)
    """How often the rows are drawn again."""
    seed: int = between(0)
    """So that the same rows give the same interval."""

    def __str__(self) -> str:
        """Return them as one line: `min_rows 200, ...`."""
        return ", ".join(f"{name} {value}" for name, value in vars(self).items())


@dataclass(frozen=True)
class Gain:
    """By how much one score is lower than another, with its interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """Return it as a text such as `0.088 [0.071, 0.105]`."""
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


@dataclass(frozen=True)
class Verdict:
    """What the gate decided, and the numbers behind it."""

    decision: str
    """PROMOTE or KEEP."""
    reason: str
    """One sentence."""
    numbers: dict[str, float]
    """Scores and intervals, by their name as a metric."""


def read_thresholds(file: Path, kind: type[T] = Thresholds) -> T:
    """Read thresholds from a YAML file.

    Args:
        file: one line for each field of `kind`.
        kind: a dataclass of numbers, each int or float; `between` gives a field its range.

    Raises:
        BadInput: there is no such file, or a value is missing, unknown or out of its range.
    """
    import yaml

    expected = f"the numbers {', '.join(one.name for one in fields(kind))}"
    cure = f"To bring the file back, run:  git checkout -- {file.name}  (in {file.parent})"
    try:
        read = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise BadInput(f"{file} cannot be read: {error}".splitlines()[0], expected, cure) from error
    names = {one.name for one in fields(kind)}
    given = read if isinstance(read, dict) else {}
    if given.keys() != names:
        odd = sorted(names ^ given.keys(), key=str)
        raise BadInput(f"{file}: {odd[0]} is missing or unknown.", expected, cure)
    for one in fields(kind):
        value, low, high = given[one.name], one.metadata.get("low"), one.metadata.get("high")
        types = int if one.type in ("int", int) else (int, float)
        good = isinstance(value, types) and not isinstance(value, bool)
        if not good or value != value or abs(value) == float("inf"):
            wanted = "a whole number" if types is int else "a number"
            raise BadInput(f"{file}: {one.name} is {value!r}.", wanted, cure)
        if low is not None and not low <= value <= high:
            raise BadInput(f"{file}: {one.name} is {value!r}.", f"{low} to {high}", cure)
    return kind(**given)


def rmse(squared_errors: np.ndarray) -> np.ndarray:
    """Return the root of the mean along the last axis: the score of squared errors."""
    return squared_errors.mean(axis=-1) ** 0.5


def gain(
    losses: np.ndarray,
    challenger_losses: np.ndarray,
    thresholds: Thresholds,
    score: Callable[[np.ndarray], np.ndarray] = rmse,
) -> Gain:
    """Return by how much the challenger's score is lower, with a paired bootstrap interval.

    The same rows are drawn for both, so what makes a row hard for both cancels out. Percentile
    interval: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.

    Args:
        losses: shape (n_rows,), the loss of each row, such as its squared error.
        challenger_losses: shape (n_rows,), of the same rows in the same order.
        thresholds: confidence, resamples and seed.
        score: from losses, shape (..., n_rows), to scores, shape (...); lower is better.
    """
    import numpy as np

    rows = len(losses)
    generator = np.random.default_rng(thresholds.seed)
    differences = np.empty(thresholds.resamples)
    for number in range(thresholds.resamples):
        drawn = generator.integers(0, rows, rows)
        differences[number] = score(losses[drawn]) - score(challenger_losses[drawn])
    tail = (1 - thresholds.confidence) / 2
    low, high = np.quantile(differences, [tail, 1 - tail])
    return Gain(float(score(losses) - score(challenger_losses)), float(low), float(high))


def judge(
    challenger_losses: np.ndarray,
    baseline_losses: np.ndarray,
    champion_losses: np.ndarray | None,
    thresholds: Thresholds,
    score: Callable[[np.ndarray], np.ndarray] = rmse,
    metric: str = "rmse",
) -> Verdict:
    """Decide whether a challenger may take the champion's place.

    It must beat the baseline, and the champion, by more than chance; a tie keeps the champion.

    Args:
        challenger_losses: shape (n_rows,), the loss of each test row.
        baseline_losses: the same for the trivial rule.
        champion_losses: the same for the champion; None if there is none yet.
        thresholds: what must be reached.
        score: as for `gain`.
        metric: the name of the score, for the names of the numbers: `challenger_rmse`.

    Raises:
        BadInput: too few rows, rows of different number, or a loss that is no finite number.
    """
    import numpy as np

    given = [challenger_losses, baseline_losses]
    given += [champion_losses] if champion_losses is not None else []
    rows = len(challenger_losses)
    if rows < thresholds.min_rows or any(len(one) != rows for one in given):
        raise BadInput(
            f"{' and '.join(str(len(one)) for one in given)} test rows.",
            f"the same {thresholds.min_rows} rows or more for each model",
            "To see the threshold, open the file of thresholds:  min_rows",
        )
    if not all(np.isfinite(one).all() for one in given):
        raise BadInput(
            "A model predicts no finite number for a test row.",
            "a number for each row",
            "To register another version, run:  python code/05_Auto_Model_Registration.py",
        )
    over_baseline = gain(baseline_losses, challenger_losses, thresholds, score)
    numbers = {
        f"challenger_{metric}": float(score(challenger_losses)),
        f"baseline_{metric}": float(score(baseline_losses)),
        **_named("over_baseline", over_baseline),
    }
    if over_baseline.low <= thresholds.min_gain_over_baseline:
        return Verdict(KEEP, f"{over_baseline} better than the baseline: too little", numbers)
    if champion_losses is None:
        what = f"{over_baseline} better than the baseline, and there is no champion yet"
        return Verdict(PROMOTE, what, numbers)
    over_champion = gain(champion_losses, challenger_losses, thresholds, score)
    numbers |= {f"champion_{metric}": float(score(champion_losses))}
    numbers |= _named("over_champion", over_champion)
    if over_champion.low <= thresholds.min_gain_over_champion:
        why = "no more than chance" if over_champion.low <= 0 else "less than asked for"
        why = "so it is worse" if over_champion.high < 0 else why
        what = f"{over_champion} better than the champion: {why}, and the champion stays"
        return Verdict(KEEP, what, numbers)
    return Verdict(PROMOTE, f"{over_champion} better than the champion", numbers)


def unjudged(verdict: Verdict) -> Verdict:
    """Return the verdict of a gate that is off: promoted, and its reason says what it would be."""
    reason = f"not judged, the gate is off; it would say {verdict.decision}: {verdict.reason}"
    return Verdict(PROMOTE, reason, verdict.numbers)


def _named(what: str, one: Gain) -> dict[str, float]:
    """Return the three numbers of a gain by their names as metrics."""
    key = f"gain_{what}"
    return {key: one.value, f"{key}_low": one.low, f"{key}_high": one.high}
