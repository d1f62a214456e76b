"""What the days of a model in production look like together: as data for a page, and as figures.

`page` brings the rows of the monitoring table (see `drift`) and the answers into the form of
dashboard.json, which `code/telco/08_model_roi_dashboard.py` shows; `metrics` and `figures` are made
of that.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from cmlflow import dashboard, drift, scores, store

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from cmlflow.drift import Thresholds
    from cmlflow.serving import Deployment

TRUTH = ("roc_auc", "reference_roc_auc", "accuracy", "baseline_accuracy", "log_loss")
_MARKS = "osD^vP*X"


def page(
    model: str,
    rows: pd.DataFrame,
    answered: pd.DataFrame,
    label: str,
    reference: dict[str, Any],
    thresholds: Thresholds,
    serves: Deployment | None,
    challenge: dict[str, Any] | None,
) -> dict[str, Any]:
    """Return what a page needs, as a dict for JSON.

    Args:
        model: name of the registered model.
        rows: all rows of the monitoring table; a row that is there twice counts once.
        answered: the answers of the complete days, each once: batch_id, run_id, version,
            probability, latency_ms and the label, which is missing where the truth is not known.
        label: the column with the truth.
        reference: that of the run which answers now, for its threshold.
        thresholds: those of PSI are drawn.
        serves: what answers now; None where nothing does, then it is what answered last.
        challenge: the last judged pair, or None.
    """
    rows = rows.drop_duplicates(drift.KEY, keep="last")
    days = []
    for day, here in answered.groupby("batch_id"):
        run_id, version = here.iloc[-1][["run_id", "version"]]
        numbers = rows[(rows["batch_id"] == day) & (rows["run_id"] == run_id)]
        decisions = numbers[numbers["kind"] == "decision"]
        days.append(
            {
                "day": int(day),
                "run_id": run_id,
                "version": int(version),
                "decision": decisions["feature"].iloc[-1] if len(decisions) else None,
                "predicted_share": _mean(numbers, "predicted_share"),
                "latency_ms": _finite(here["latency_ms"].dropna().median()),
                "psi": _psi(numbers),
                "truth": _truth(numbers, here[here["run_id"] == run_id], label),
            }
        )
    runs = [(one["day"], one["run_id"], one["version"]) for one in days]
    taken = [now for before, now in itertools.pairwise(runs) if now[1] != before[1]]
    served = {name: days[-1][name] for name in ("run_id", "version")}
    if serves is not None:
        served = {"run_id": serves.run_id, "version": serves.version}
    served["threshold"] = reference["threshold"]
    return {
        "schema": dashboard.SCHEMA,
        "model": model,
        "day": days[-1]["day"],
        "served": served,
        "thresholds": list(scores.THRESHOLDS),
        "psi_watch": thresholds.psi_watch,
        "psi_alarm": thresholds.psi_alarm,
        "days": days,
        "promotions": [dict(zip(("day", "run_id", "version"), one, strict=True)) for one in taken],
        "challenge": challenge,
    }


def last_challenge(rows: pd.DataFrame, versions: dict[str, int]) -> dict[str, Any] | None:
    """Return who met whom last, as the run of the challenger says; None if nobody was judged.

    Args:
        rows: all rows of the monitoring table.
        versions: of the registered model, by run.
    """
    import mlflow

    verdicts = rows[(rows["kind"] == "verdict") & (rows["feature"] != "dry-run")]
    if verdicts.empty:
        return None
    last = verdicts.sort_values("batch_id", kind="stable").iloc[-1]
    told = mlflow.get_run(last["run_id"]).data.tags
    with store.may_refuse("gate.json", instead="the tags of the run"):
        found = mlflow.artifacts.load_dict(f"runs:/{last['run_id']}/gate.json")
        for side in ("champion", "challenger"):
            found[side]["version"] = versions.get(found[side]["run_id"])
        return {
            "day": int(last["batch_id"]),
            "decision": told["gate.decision"],
            "mode": told["gate.mode"],
            "reason": told["gate.reason"],
            **found,
        }
    return None


def metrics(page: dict[str, Any]) -> list[tuple[str, int, float]]:
    """Return name, day and value of every number that has a day."""
    found = []
    for day in page["days"]:
        values = {name: day[name] for name in ("predicted_share", "latency_ms")}
        values |= {f"psi_{name}": _largest(one) for name, one in day["psi"].items()}
        values |= {name: (day["truth"] or {}).get(name) for name in TRUTH}
        found += [(name, day["day"], one) for name, one in values.items() if one is not None]
    return found


def figures(page: dict[str, Any]) -> dict[str, Figure]:
    """Return the four figures, by file name."""
    days = page["days"]
    known = [day for day in days if day["truth"]]
    times = {"median of the day": [(day["day"], day["latency_ms"]) for day in days]}
    scored = {
        "roc_auc": [(day["day"], day["truth"]["roc_auc"]) for day in known],
        "roc_auc in training": [(day["day"], day["truth"]["reference_roc_auc"]) for day in known],
        "accuracy": [(day["day"], day["truth"]["accuracy"]) for day in known],
        "accuracy of the baseline": [
            (day["day"], day["truth"]["baseline_accuracy"]) for day in known
        ],
    }
    windows: dict[str, list] = {}
    for day in days:
        for name, values in day["psi"].items():
            for number, value in enumerate(values):
                windows.setdefault(name, []).append((day["day"] + number / len(values), value))
    shares = {
        "share to which a truck would be sent": [
            (day["day"], day["predicted_share"]) for day in days
        ],
        "share that failed": [
            (day["day"], _share(day["truth"])) for day in known if day["truth"]["messages"]
        ],
    }
    lines = ((page["psi_watch"], "worth a look"), (page["psi_alarm"], "alarm"))
    return {
        "processing_time.png": _drawn("Processing time of a message, ms", times, page, lowest=0),
        "scores.png": _drawn("Scores of a day", scored, page),
        "psi.png": _drawn("PSI of an input, by window", windows, page, lines),
        "predicted_failures.png": _drawn("Failures, predicted and true", shares, page),
    }


def _drawn(
    title: str,
    curves: dict[str, list[tuple[float, float | None]]],
    page: dict[str, Any],
    lines: tuple[tuple[float, str], ...] = (),
    lowest: float | None = None,
) -> Figure:
    """Draw curves by day, horizontal lines, and a vertical line where another version took over."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    for mark, (name, points) in zip(_MARKS, curves.items(), strict=False):
        days = [day for day, value in points if value is not None]
        axes.plot(days, [value for _, value in points if value is not None], mark + "-", label=name)
    for height, name in lines:
        axes.axhline(height, color="black", linestyle="--", linewidth=1)
        axes.annotate(name, (0, height), xycoords=("axes fraction", "data"), va="bottom")
    for one in page["promotions"]:
        axes.axvline(one["day"], color="black", linestyle=":")
        text = f"version {one['version']}"
        axes.annotate(text, (one["day"], 1), xycoords=("data", "axes fraction"), va="bottom")
    axes.set_ylim(bottom=lowest)
    axes.set_xlabel("day")
    axes.set_title(title, loc="left", pad=18)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


def _psi(numbers: pd.DataFrame) -> dict[str, list[float | None]]:
    """Return the PSI of each input by window; None for a window that was too small."""
    windows = sorted(numbers.loc[numbers["window"] > 0, "window"].unique())
    table = numbers[numbers["kind"] == "psi"].pivot_table(
        index="window", columns="feature", values="value"
    )
    table = table.reindex(windows)
    return {name: [_finite(value) for value in table[name]] for name in table.columns}


def _truth(numbers: pd.DataFrame, here: pd.DataFrame, label: str) -> dict[str, Any] | None:
    """Return the scores of a day and its counts at every threshold; None without its truth."""
    values = numbers[numbers["window"] == 0].set_index("kind")["value"]
    if "failure_share" not in values:
        return None
    known = here.dropna(subset=label)
    return {
        "messages": len(known),
        "failures": int((known[label] == 1).sum()),
        **{name: _finite(values.get(name)) for name in TRUTH},
        "counts": dashboard.counted(known[label].to_numpy(), known["probability"].to_numpy()),
    }


def _share(truth: dict[str, Any]) -> float:
    return truth["failures"] / truth["messages"]


def _mean(numbers: pd.DataFrame, kind: str) -> float | None:
    return _finite(numbers.loc[numbers["kind"] == kind, "value"].mean())


def _largest(values: list[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _finite(value: Any) -> float | None:
    """Return a number, or None for what JSON cannot hold."""
    return None if value is None or value != value else float(value)
