"""Have the data changed since the served model was trained, and what follows from it?

The reference is what the training rows of the served run looked like: counts that are logged with
the run, so nobody reads the training rows again. A day is a batch of three windows; each window is
compared with the reference. What is measured becomes rows of one table (COLUMNS), and the decision
is a function of that table alone.

kind                             window  feature      value
psi, ks                          1 to 3  a feature    distance from the reference
missing_share, out_of_range      1 to 3  a feature    share of the window's rows
predicted_share                  1 to 3  -            share to which a truck would be sent
accuracy_estimate                1 to 3  -            accuracy, if the probabilities are right
too_few                          1 to 3  -            how many rows the window should have
failure_share                    0       -            the truth of the day is known: its share
roc_auc, log_loss, net_ ...      0       -            scores of the day, by the truth
reference_roc_auc                0       -            roc_auc of the served run when it was trained
decision                         0       the action   0 keep, 1 wait, 2 retrain
verdict                          0       the mode     1 promoted, 0 refused: see `verdict_rows`

`-` is an empty text. run_id is the run that answered the requests of this batch; that of a verdict
is the challenger's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmlflow import gate
from cmlflow.errors import BadInput

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from pyspark.sql import DataFrame

COLUMNS = ["batch_id", "window", "kind", "feature", "value", "rows", "run_id"]
KEY = ["batch_id", "window", "kind", "feature", "run_id"]
WINDOWS_PER_DAY = 3
KEEP, WAIT, RETRAIN = "keep", "wait", "retrain"
MOST_VALUES = 13
"""Up to so many different values, each is a bin; a feature with more is cut at its deciles."""
_SAMPLE = 200


@dataclass(frozen=True)
class Thresholds:
    """When there is drift, and what a challenger must reach; a YAML file holds the values."""

    psi_watch: float = gate.between(0)
    """PSI above which a feature is worth a look."""
    psi_alarm: float = gate.between(0)
    """PSI above which a window counts for an alarm."""
    ks_watch: float = gate.between(0, 1)
    """KS statistic above which a feature is worth a look; for the reader, no rule uses it."""
    ks_alarm: float = gate.between(0, 1)
    """KS statistic that is high; for the reader, no rule uses it."""
    alarm_windows: int = gate.between(1)
    """So many of the last `of_windows` windows must be above psi_alarm, the newest among them."""
    of_windows: int = gate.between(1)
    """How many windows are looked at together."""
    max_psi_by_chance: float = gate.between(0.001, 0.25)
    """A window is too small if rows without drift would have this PSI on average."""
    max_roc_auc_drop: float = gate.between(0, 0.5)
    """A day whose roc_auc is lower than the reference's by more than this asks for a retraining."""
    min_truth_rows: int = gate.between(2)
    """A day with fewer labelled rows says nothing about roc_auc."""
    min_failures: int = gate.between(5)
    """Failures among the test rows below which no challenger is promoted."""
    min_gain_roc_auc: float = gate.between(-1, 1)
    """What the lower end of the interval of the gain in roc_auc must exceed."""
    min_gain_log_loss: float = gate.between(-10, 10)
    """The log loss must be lower than the baseline's by more than this."""
    min_gain_net: float
    """By how much the net revenue per message must at least be higher than the champion's."""
    max_slice_drop: float = gate.between(0, 1)
    """By how much roc_auc may be lower than the champion's for a single manufacturer."""
    min_slice_failures: int = gate.between(2)
    """A manufacturer with fewer failures among the test rows is not judged apart."""
    confidence: float = gate.between(0.01, 0.9999)
    """The share of resamples inside the interval of the gain."""
    resamples: int = gate.between(100)
    """How often the test rows are drawn again."""
    seed: int = gate.between(0)
    """So that the same rows give the same interval."""


@dataclass(frozen=True)
class Decision:
    """What to do after a day was measured."""

    action: str
    """KEEP, WAIT or RETRAIN."""
    reason: str
    """One sentence."""
    batch_id: int
    """The newest day that was measured; 0 if there is none."""
    run_id: str
    """The run that answered the newest window; empty if there is none."""


def read_thresholds(file: Path) -> Thresholds:
    """Read thresholds from a YAML file.

    Raises:
        BadInput: as `gate.read_thresholds` does, or two values contradict each other.
    """
    read = gate.read_thresholds(file, Thresholds)
    for low, high in (
        ("psi_watch", "psi_alarm"),
        ("ks_watch", "ks_alarm"),
        ("alarm_windows", "of_windows"),
    ):
        if getattr(read, low) > getattr(read, high):
            raise BadInput(
                f"{file}: {low} {getattr(read, low)} is above {high} {getattr(read, high)}.",
                f"{low} at most as high as {high}",
                f"To bring the file back, run:  git checkout -- {file.name}  (in {file.parent})",
            )
    return read


def level(value: float, watch: float, alarm: float) -> str:
    """Return `alarm`, `watch` or an empty text: what is equal to a threshold is not above it."""
    return "alarm" if value > alarm else "watch" if value > watch else ""


def reference(
    rows: pd.DataFrame,
    features: list[str],
    failure_share: float,
    roc_auc: float,
    threshold: float,
) -> dict[str, Any]:
    """Return what later windows are compared with, as a dict for JSON.

    Args:
        rows: the training rows, with all features; a missing value is NaN.
        features: their names; all of them numbers.
        failure_share: of the training rows; the baseline answers it to every message.
        roc_auc: of the run, on rows that it was not trained on.
        threshold: from which this run sends a truck.

    Returns:
        rows, failure_share, roc_auc, threshold, and for each of `features`:
        `values` (each a bin) or, of more than MOST_VALUES, `edges` (a bin from each edge up to, not
        including, the next; the first and the last bin are open); `counts` of the bins, of values
        never seen (0 here) and of missing ones; `low` and `high`; and with edges a `sample` of 200
        values at equal distances in the order of size, for the KS statistic.

    Raises:
        BadInput: a feature is missing, is no number, or has no value at all.
    """
    import numpy as np

    found: dict[str, Any] = {}
    for name in features:
        column = _numbers(rows, name)
        known = column[~np.isnan(column)]
        if not len(known):
            raise _bad_rows(f"{name} has no value in {len(column)} training rows.", "numbers")
        values = np.unique(known)
        one: dict[str, Any] = {"low": float(values[0]), "high": float(values[-1])}
        if len(values) <= MOST_VALUES:
            one["values"] = values.tolist()
        else:
            one["edges"] = np.unique(np.quantile(known, np.arange(1, 10) / 10)).tolist()
            places = (np.arange(_SAMPLE) + 0.5) / _SAMPLE
            one["sample"] = np.quantile(known, places, method="inverted_cdf").tolist()
        one["counts"] = _count(one, column).tolist()
        found[name] = one
    return {
        "rows": len(rows),
        "failure_share": float(failure_share),
        "roc_auc": float(roc_auc),
        "threshold": float(threshold),
        "features": found,
    }


def bin_counts(reference: dict[str, Any], rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return the rows per bin of the reference, for each feature, as `counts` there.

    Counts of parts add up to those of the whole, so parts may be counted wherever they are.

    Raises:
        BadInput: a feature is missing, or is no number.
    """
    return {name: _count(one, _numbers(rows, name)) for name, one in reference["features"].items()}


def bin_counts_in_spark(reference: dict[str, Any], rows: DataFrame) -> dict[str, np.ndarray]:
    """Return what `bin_counts` does, counted by Spark: only the counts leave it.

    For windows that one machine cannot hold. All features in one pass.

    Args:
        reference: as `reference` returns it.
        rows: of Spark, with all features.
    """
    import numpy as np

    places, sums, sizes = [], [], {}
    for name, one in reference["features"].items():
        value, bins = f"CAST({name} AS DOUBLE)", len(one["counts"])
        if "values" in one:  # its place, or the bin of values never seen
            cases = [f"WHEN {cut!r} THEN {place}" for place, cut in enumerate(one["values"])]
            place = f"CASE {value} {' '.join(cases)} ELSE {bins - 2} END"
        else:
            place = " + ".join(f"IF({value} >= {cut!r}, 1, 0)" for cut in one["edges"]) or "0"
        missing = f"{name} IS NULL OR isnan({value})"
        places.append(f"CASE WHEN {missing} THEN {bins - 1} ELSE {place} END AS {name}")
        sums += [f"count_if({name} = {number}) AS `{name} {number}`" for number in range(bins)]
        sizes[name] = bins
    row = rows.selectExpr(*places).selectExpr(*sums).first()
    return {
        name: np.array([row[f"{name} {number}"] for number in range(bins)])
        for name, bins in sizes.items()
    }


def psi_of_counts(reference_counts: np.ndarray, counts: np.ndarray) -> float:
    """Return the population stability index of two counts of the same bins.

    The sum of (a - b) ln(a / b), where a and b are a bin's shares: Lewis, An Introduction to Credit
    Scoring (1992). Each count is raised by a half before it is divided, so an empty bin weighs what
    the number of rows allows. A bin that is empty in both is left out.
    """
    import numpy as np

    a, b = np.asarray(reference_counts, dtype="float64"), np.asarray(counts, dtype="float64")
    used = a + b > 0
    a, b = a[used] + 0.5, b[used] + 0.5
    a, b = a / a.sum(), b / b.sum()
    return float(((a - b) * np.log(a / b)).sum())


def psi(reference: dict[str, Any], rows: pd.DataFrame) -> dict[str, float]:
    """Return the PSI of each feature."""
    features = reference["features"]
    found = bin_counts(reference, rows)
    return {name: psi_of_counts(features[name]["counts"], found[name]) for name in features}


def rows_needed(reference: dict[str, Any], max_psi_by_chance: float) -> int:
    """Return how many rows a window must have; with fewer, chance alone would move PSI.

    Without drift the mean of PSI is (bins - 1) * (1 / reference rows + 1 / rows): Yurdakul,
    Statistical Properties of Population Stability Index (2018). This holds for rows that are
    independent; where they are not, PSI is larger.

    Raises:
        BadInput: the reference itself has too few rows for any window.
    """
    import numpy as np

    bins = max(np.count_nonzero(one["counts"]) for one in reference["features"].values())
    left = max_psi_by_chance - (bins - 1) / reference["rows"]
    if left <= 0:
        raise BadInput(
            f"The reference has {reference['rows']} rows in {bins} bins: too few for any window.",
            f"more than {(bins - 1) / max_psi_by_chance:.0f} training rows",
            "To write more rows, run:  python code/telco/00_datagen.py",
        )
    # Rounded first: 9 / 0.03 is a little more than 300 in binary numbers.
    return max(2, int(np.ceil(round((bins - 1) / left, 6))))


def ks(reference: dict[str, Any], rows: pd.DataFrame) -> dict[str, float]:
    """Return the Kolmogorov-Smirnov statistic of each feature, without missing values.

    That is the largest distance between the two cumulative shares. With `values` it is exact; with
    `edges` it rests on the sample of 200, which is within 0.005 of the training rows. NaN for a
    feature without any value. No p-value: with enough rows it flags a shift of no consequence.
    """
    import numpy as np
    from scipy.stats import ks_2samp

    found = {}
    for name, one in reference["features"].items():
        known = _numbers(rows, name)
        known = known[~np.isnan(known)]
        then = one.get("sample")
        if then is None:
            then = np.repeat(one["values"], one["counts"][: len(one["values"])])
        found[name] = (
            float(ks_2samp(then, known, method="asymp").statistic) if len(known) else float("nan")
        )
    return found


def in_windows(rows: pd.DataFrame, windows: int = WINDOWS_PER_DAY) -> pd.DataFrame:
    """Return the rows of a batch by message_id, with a column `window`: 1, 2 ... of equal size."""
    import numpy as np

    ordered = rows.sort_values("message_id", ignore_index=True)
    return ordered.assign(window=np.arange(len(rows)) * windows // max(len(rows), 1) + 1)


def measure(
    reference: dict[str, Any], scored: pd.DataFrame, thresholds: Thresholds
) -> pd.DataFrame:
    """Return what the windows of a batch say, as rows of COLUMNS.

    A window with too few rows gets a row `too_few` and neither psi nor ks: it raises no alarm, and
    it ends none.

    Args:
        reference: that of the run which answered.
        scored: one batch, answered by one run: batch_id, window, run_id, probability, features.
        thresholds: max_psi_by_chance is used.
    """
    import numpy as np

    needed = rows_needed(reference, thresholds.max_psi_by_chance)
    found = []
    for (batch_id, window, run_id), rows in scored.groupby(["batch_id", "window", "run_id"]):

        def add(
            kind, value, feature="", batch_id=batch_id, window=window, run_id=run_id, rows=rows
        ):
            if np.isfinite(value):
                found.append((batch_id, window, kind, feature, float(value), len(rows), run_id))

        if len(rows) < needed:
            add("too_few", needed)
        else:
            for kind, values in (("psi", psi(reference, rows)), ("ks", ks(reference, rows))):
                for name, value in values.items():
                    add(kind, value, name)
        for name, one in reference["features"].items():
            column = _numbers(rows, name)
            outside = (column < one["low"]) | (column > one["high"])
            add("missing_share", np.isnan(column).mean(), name)
            add("out_of_range", outside.mean(), name)
        probability = rows["probability"].to_numpy(dtype="float64")
        add("predicted_share", (probability >= reference["threshold"]).mean())
        add("accuracy_estimate", accuracy_estimate(probability))
    return _table(found)


def accuracy_estimate(probability: np.ndarray) -> float:
    """Return the accuracy that these answers would have if the model's probabilities were right.

    The mean of max(p, 1 - p): an estimate without any truth, which cannot see that the meaning of
    the data has changed. Print it as an estimate, and decide nothing by it.
    """
    import numpy as np

    return float(np.maximum(probability, 1 - np.asarray(probability)).mean())


def performance(reference: dict[str, Any], answered: pd.DataFrame, label: str) -> pd.DataFrame:
    """Return the scores of a batch whose truth is known, as rows of COLUMNS with window 0.

    Args:
        reference: that of the run which answered.
        answered: one batch, answered by one run: batch_id, run_id, probability and the label.
        label: the name of the column with the truth, 0 or 1.
    """
    import numpy as np

    from cmlflow import scores

    found = []
    for (batch_id, run_id), rows in answered.groupby(["batch_id", "run_id"]):
        failed = rows[label].to_numpy()
        values = scores.of(failed, rows["probability"].to_numpy(), reference["threshold"])
        constant = np.full(len(rows), reference["failure_share"])
        values["baseline_log_loss"] = scores.log_loss(failed, constant)
        values["reference_roc_auc"] = reference["roc_auc"]
        found += [
            (batch_id, 0, kind, "", value, len(rows), run_id)
            for kind, value in values.items()
            if value == value
        ]
    return _table(found)


def verdict_rows(batch_id: int, mode: str, promoted: bool, rows: int, run_id: str) -> pd.DataFrame:
    """Return the row that says a challenger was judged; write it when all else is done.

    Args:
        batch_id: the newest day whose truth the challenger was trained on; not the day on which it
            was judged, because a challenger that never saw a drifted day says nothing about it.
        mode: `on`, or `off` for one that was promoted unjudged. A `dry-run` changes nothing, so
            `decide` goes on as if there had been none.
        promoted: whether the challenger is served now.
        rows: how many test rows it was judged on.
        run_id: the challenger's run.
    """
    return _table([(batch_id, 0, "verdict", mode, float(promoted), rows, run_id)])


def decision_rows(decision: Decision) -> pd.DataFrame:
    """Return a decision as a row of COLUMNS."""
    number = float((KEEP, WAIT, RETRAIN).index(decision.action))
    row = (decision.batch_id, 0, "decision", decision.action, number, 0, decision.run_id)
    return _table([row])


def decide(monitoring: pd.DataFrame, thresholds: Thresholds) -> Decision:
    """Decide what follows from all that was measured so far.

    Only what concerns the served run counts: the one that answered the newest window, since it last
    took over. Two rules ask for a retraining:

    1. Inputs: in the newest window and in `alarm_windows` of the last `of_windows`, the same
       feature is above psi_alarm. As long as no truth of a day with this alarm is known, the answer
       is WAIT, because a challenger would learn the old world. Then it is RETRAIN, until a
       challenger that knows such a day was judged. An episode ends with a day on which no window
       is above.
    2. Damage: the newest day with enough truth has a roc_auc that is lower than the reference's by
       more than max_roc_auc_drop, and no challenger that knows this day was judged.

    Anything else is KEEP. Earlier decisions are not read, so the same rows give the same answer.

    Args:
        monitoring: rows of COLUMNS, in any order; a row that is there twice counts once.
        thresholds: the rules.
    """
    rows = monitoring.drop_duplicates(KEY, keep="last").sort_values(["batch_id", "window"])
    windows = rows[rows["kind"].isin(("psi", "too_few"))]
    if windows.empty:
        return Decision(KEEP, "No window has been measured yet.", 0, "")
    newest = windows.iloc[-1]
    today, run_id = int(newest["batch_id"]), str(newest["run_id"])
    others = windows.loc[windows["run_id"] != run_id, "batch_id"]
    since = others.max() if len(others) else 0  # a run may be served again after a roll-back
    served = rows[(rows["run_id"] == run_id) & (rows["batch_id"] >= since)]
    verdicts = rows[(rows["kind"] == "verdict") & (rows["feature"] != "dry-run")]
    judged = verdicts["batch_id"].max() if len(verdicts) else 0
    reasons = {KEEP: [], WAIT: [], RETRAIN: []}

    low = _damage(served, thresholds)
    if low is not None:
        day, value, was = low
        text = f"the roc_auc of day {day} is {value:.3f}, not {was:.3f} as in training"
        reasons[KEEP if judged >= day else RETRAIN].append(text)

    alarm = _alarm(served[served["kind"] == "psi"], thresholds)
    if alarm is not None:
        day, feature, value = alarm
        text = f"the inputs have drifted since day {day}, PSI {value:.2f} in {feature}"
        known = rows.loc[(rows["kind"] == "failure_share") & (rows["batch_id"] >= day), "batch_id"]
        if known.empty:
            reasons[WAIT].append(f"{text}, and no truth of that time is known yet")
        else:
            reasons[KEEP if judged >= day else RETRAIN].append(text)

    action = next((one for one in (RETRAIN, WAIT) if reasons[one]), KEEP)
    reason = "; ".join(reasons[action])
    if action == KEEP and reason:
        reason += ", and a challenger has been judged on it"
    elif action == KEEP:
        reason = _calm(served, today, thresholds)
    return Decision(action, reason[0].upper() + reason[1:] + ".", today, run_id)


def _damage(served: pd.DataFrame, thresholds: Thresholds) -> tuple[int, float, float] | None:
    """Return day, roc_auc and the reference's, if the newest day with enough truth is too low."""
    enough = served[served["rows"] >= thresholds.min_truth_rows].set_index("batch_id")
    days = enough.loc[enough["kind"] == "roc_auc", "value"]
    was = enough.loc[enough["kind"] == "reference_roc_auc", "value"]
    if days.empty:
        return None
    day, value = int(days.index[-1]), float(days.iloc[-1])
    before = float(was[day])
    return (day, value, before) if value < before - thresholds.max_roc_auc_drop else None


def _alarm(served: pd.DataFrame, thresholds: Thresholds) -> tuple[int, str, float] | None:
    """Return first day of the episode, worst feature and its PSI, if the newest window alarms."""
    if served.empty:
        return None
    table = served.pivot(index=["batch_id", "window"], columns="feature", values="value")
    above = table > thresholds.psi_alarm
    often = above.rolling(thresholds.of_windows, min_periods=1).sum() >= thresholds.alarm_windows
    alarms = above & often
    if not alarms.iloc[-1].any():
        return None
    worst = table.iloc[-1][alarms.iloc[-1]]
    first = None
    for day, windows in reversed(list(above.groupby("batch_id"))):
        if not windows.any(axis=None):
            break
        if alarms.loc[day].iloc[-1].any():
            first = day
    return int(first), str(worst.idxmax()), float(worst.max())


def _calm(served: pd.DataFrame, today: int, thresholds: Thresholds) -> str:
    """Return why nothing is to be done."""
    here = served[served["batch_id"] == today]
    small = here[here["kind"] == "too_few"]
    if len(small):
        last = small.iloc[-1]
        return (
            f"too few rows in a window of day {today}: {last['rows']}, at least {last['value']:.0f}"
        )
    worst = here[here["kind"] == "psi"].sort_values("value").iloc[-1]
    seen = level(worst["value"], thresholds.psi_watch, thresholds.psi_alarm)
    text = f"highest PSI of day {today} is {worst['value']:.2f}, of {worst['feature']}"
    return f"{text}: {'worth a look, no alarm' if seen else 'no drift'}"


def _count(one: dict[str, Any], column: np.ndarray) -> np.ndarray:
    """Return the counts of the bins, of values never seen and of missing values."""
    import numpy as np

    known = column[~np.isnan(column)]
    if "values" in one:
        values = np.asarray(one["values"])
        place = np.searchsorted(values, known).clip(max=len(values) - 1)
        place = np.where(values[place] == known, place, len(values))
        bins = len(values)
    else:
        place = np.searchsorted(one["edges"], known, side="right")
        bins = len(one["edges"]) + 1
    counts = np.bincount(place, minlength=bins + 1)
    return np.append(counts, len(column) - len(known))


def _numbers(rows: pd.DataFrame, name: str) -> np.ndarray:
    """Return a column as float64, with NaN for what is missing."""
    if name not in rows.columns:
        raise _bad_rows(f"The rows have no column {name}.", "all features of the reference")
    try:
        return rows[name].to_numpy(dtype="float64", na_value=float("nan"))
    except (TypeError, ValueError) as error:
        raise _bad_rows(f"{name} is no column of numbers: {error}.", "numbers") from error


def _bad_rows(found: str, expected: str) -> BadInput:
    cure = "To write the tables anew, run:  python code/telco/00_datagen.py"
    return BadInput(found, expected, cure)


def _table(rows: list[tuple]) -> pd.DataFrame:
    """Return rows of COLUMNS, with the same types even if there are none."""
    import pandas as pd

    types = {"batch_id": "int64", "window": "int64", "value": "float64", "rows": "int64"}
    return pd.DataFrame(rows, columns=COLUMNS).astype(types)
