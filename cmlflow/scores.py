"""How good the answers about failing towers are: in the field's scores, and in money.

A truck is sent where the probability of a failure reaches a threshold. With the prices R1 (a
failure that a truck prevents), R0 (a quiet day) and P (a truck for nothing), the net revenue is

    net = TP R1 + TN R0 - FP P - FN R1

so a missed failure counts twice against one that was found: it earns nothing, and it costs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

THRESHOLDS = tuple(step / 100 for step in range(101))
"""Where trucks may begin: 0 sends one to every message, and above 1 nobody would send any."""


@dataclass(frozen=True)
class Prices:
    """What an answer earns or costs."""

    failure: float = 100.0
    """R1: earned by a failure that was found, lost by one that was missed."""
    quiet: float = 10.0
    """R0: earned where nothing fails and no truck is sent."""
    false_alarm: float = 50.0
    """P: the price of a truck for nothing."""


PRICES = Prices()


def net_revenue(tn, fp, fn, tp, prices: Prices = PRICES):
    """Return what these counts earn together; numbers or arrays of them."""
    return tp * prices.failure + tn * prices.quiet - fp * prices.false_alarm - fn * prices.failure


def break_even(prices: Prices = PRICES) -> float:
    """Return the probability from which a truck pays: (R0 + P) / (2 R1 + R0 + P).

    A truck earns p R1 - (1 - p) P, no truck (1 - p) R0 - p R1; at this p they are equal. It is the
    best threshold for probabilities that are right. NaN if nothing has a price.
    """
    idle = prices.quiet + prices.false_alarm
    return idle / (2 * prices.failure + idle) if 2 * prices.failure + idle else float("nan")


def counts(failed: np.ndarray, probability: np.ndarray) -> pd.DataFrame:
    """Return what each of THRESHOLDS would do: the columns threshold, tn, fp, fn, tp.

    A failure is predicted where the probability is equal to the threshold or above it.

    Args:
        failed: 0 or 1 for each message.
        probability: of a failure, in the same order.
    """
    import numpy as np
    import pandas as pd

    failed, probability = np.asarray(failed) == 1, np.asarray(probability, dtype="float64")
    edges = np.array(THRESHOLDS)
    missed = np.searchsorted(np.sort(probability[failed]), edges, side="left")
    quiet = np.searchsorted(np.sort(probability[~failed]), edges, side="left")
    found, alarms = failed.sum() - missed, (~failed).sum() - quiet
    return pd.DataFrame({"threshold": edges, "tn": quiet, "fp": alarms, "fn": missed, "tp": found})


def counts_at(failed: np.ndarray, probability: np.ndarray, threshold: float) -> dict[str, int]:
    """Return tn, fp, fn and tp at one threshold, as `net_revenue` takes them."""
    import numpy as np

    failed = np.asarray(failed) == 1
    sent = np.asarray(probability, dtype="float64") >= threshold
    return {
        "tn": int((~failed & ~sent).sum()),
        "fp": int((~failed & sent).sum()),
        "fn": int((failed & ~sent).sum()),
        "tp": int((failed & sent).sum()),
    }


def best_threshold(
    failed: np.ndarray, probability: np.ndarray, prices: Prices = PRICES
) -> tuple[float, float]:
    """Return the one of THRESHOLDS that earns most on these rows, and its net per message.

    On the rows that it was chosen on, it looks better than it is: choose it on training rows. The
    lowest one wins a tie.
    """
    table = counts(failed, probability)
    net = net_revenue(table["tn"], table["fp"], table["fn"], table["tp"], prices)
    best = int(net.to_numpy().argmax())
    return float(table["threshold"][best]), float(net[best]) / len(failed)


def roc_auc(failed: np.ndarray, probability: np.ndarray) -> float:
    """Return the share of pairs in which the message that failed has the higher probability.

    Half a pair for a tie. This is sklearn's roc_auc_score by the ranks of Mann and Whitney (1947),
    fast enough to be computed on hundreds of resamples. NaN unless some failed and some did not.
    """
    import numpy as np
    from scipy.stats import rankdata

    failed = np.asarray(failed) == 1
    bad, good = int(failed.sum()), int((~failed).sum())
    if not bad or not good:
        return float("nan")
    ranks = rankdata(probability)[failed].sum()
    return float((ranks - bad * (bad + 1) / 2) / (bad * good))


def log_loss(failed: np.ndarray, probability: np.ndarray) -> float:
    """Return the mean of -log(the probability of what happened); an answer of 0 or 1 is clipped."""
    import numpy as np

    said = np.clip(np.asarray(probability, dtype="float64"), 1e-15, 1 - 1e-15)
    return float(-np.log(np.where(np.asarray(failed) == 1, said, 1 - said)).mean())


def of(
    failed: np.ndarray,
    probability: np.ndarray,
    threshold: float | None = None,
    prices: Prices = PRICES,
) -> dict[str, float]:
    """Return the scores of these answers, each with what a trivial rule gets beside it.

    Args:
        failed: 0 or 1 for each message; without some of both, roc_auc is NaN.
        probability: of a failure, in the same order.
        threshold: from which a truck is sent; None for the best on these very rows.
        prices: for the net revenue.

    Returns:
        failure_share (the roc_auc of a trivial rule is .5, its average precision this share),
        roc_auc, average_precision, log_loss, accuracy (at .5), baseline_accuracy (of the more
        frequent answer), threshold, net_per_message there, net_never and net_always (per message,
        if no truck is ever sent or one to each).
    """
    import numpy as np
    from sklearn.metrics import average_precision_score

    failed, probability = np.asarray(failed), np.asarray(probability, dtype="float64")
    share = float((failed == 1).mean())
    if threshold is None:
        threshold, _ = best_threshold(failed, probability, prices)
    net = net_revenue(**counts_at(failed, probability, threshold), prices=prices)
    return {
        "failure_share": share,
        "roc_auc": roc_auc(failed, probability),
        "average_precision": (
            float(average_precision_score(failed, probability)) if share else float("nan")
        ),
        "log_loss": log_loss(failed, probability),
        "accuracy": float(((probability >= 0.5) == (failed == 1)).mean()),
        "baseline_accuracy": max(share, 1 - share),
        "threshold": float(threshold),
        "net_per_message": net / len(failed),
        "net_never": net_revenue(1 - share, 0, share, 0, prices),
        "net_always": net_revenue(0, 1 - share, 0, share, prices),
    }
