"""May a challenger answer for the towers? Four conditions, on messages that no model has seen."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cmlflow import gate, scores
from cmlflow.errors import BadInput

if TYPE_CHECKING:
    import numpy as np

    from cmlflow.drift import Thresholds

NO_MAKER = "no manufacturer"


def judge(
    failed: np.ndarray,
    champion: np.ndarray,
    challenger: np.ndarray,
    slices: np.ndarray,
    baseline: float,
    send_from: tuple[float, float],
    thresholds: Thresholds,
) -> gate.Verdict:
    """Decide whether a challenger may take the champion's place.

    It must (1) have the higher roc_auc, beyond chance, by a paired bootstrap of the messages;
    (2) have a lower log loss than the baseline; (3) earn no less per message, each model with its
    own threshold; (4) be no worse in any slice. All four are computed, and the reason
    names the first that fails. Too few failures keep the champion: that is a verdict and no error,
    because an error would stop a chain of jobs.

    Args:
        failed: the truth of the test messages, 0 or 1.
        champion: the probabilities that the champion answers, in the same order.
        challenger: those of the challenger.
        slices: the manufacturer of each message; those without one are a slice too.
        baseline: the probability that the baseline answers to every message: the share of failures
            in the challenger's training rows.
        send_from: the threshold of the champion and that of the challenger, chosen on training
            rows.
        thresholds: what must be reached.

    Raises:
        BadInput: the arrays differ in length, or an answer is no probability.
    """
    import numpy as np

    failed = np.asarray(failed)
    slices = np.array([one if isinstance(one, str) else NO_MAKER for one in slices], dtype=str)
    answers = {
        "champion": np.asarray(champion, dtype="float64"),
        "challenger": np.asarray(challenger, dtype="float64"),
    }
    for name, one in answers.items():
        if not len(one) == len(failed) == len(slices):
            raise _bad(f"{len(one)} answers of the {name} to {len(failed)} messages.", "one each")
        if not ((one >= 0) & (one <= 1)).all():
            raise _bad(f"The {name} answers no probability to a message.", "0 to 1")
    failures = int((failed == 1).sum())
    if min(failures, len(failed) - failures) < thresholds.min_failures:
        reason = f"{failures} failures in {len(failed)} test messages: too few of one kind to judge"
        return gate.Verdict(gate.KEEP, reason, {"test_failures": float(failures)})

    numbers = {"test_failures": float(failures)}
    for (name, one), threshold in zip(answers.items(), send_from, strict=True):
        net = scores.net_revenue(**scores.counts_at(failed, one, threshold))
        numbers |= {
            f"{name}_roc_auc": scores.roc_auc(failed, one),
            f"{name}_log_loss": scores.log_loss(failed, one),
            f"{name}_net_per_message": net / len(failed),
        }
    numbers["baseline_log_loss"] = scores.log_loss(failed, np.full(len(failed), baseline))

    gain = gate.gain(
        *(np.column_stack([failed, one]) for one in answers.values()), thresholds, _lost_pairs
    )
    numbers |= {"gain_roc_auc": gain.value, "gain_roc_auc_low": gain.low}
    numbers["gain_roc_auc_high"] = gain.high
    below_baseline = numbers["baseline_log_loss"] - numbers["challenger_log_loss"]
    earned = numbers["challenger_net_per_message"] - numbers["champion_net_per_message"]
    drops = {}
    for name in np.unique(slices):
        here = slices == name
        if (failed[here] == 1).sum() >= thresholds.min_slice_failures:
            before, after = (scores.roc_auc(failed[here], one[here]) for one in answers.values())
            drops[str(name)] = before - after
            key = re.sub(r"[^\w. -]", "_", name)  # other characters cannot stand in a tag
            numbers[f"gain_roc_auc/{key}"] = after - before
    worst = max(drops, key=drops.get, default="")

    if not gain.low > thresholds.min_gain_roc_auc:
        reason = f"roc_auc changes by {gain}: no gain beyond chance, so the champion stays"
    elif not below_baseline > thresholds.min_gain_log_loss:
        reason = (
            f"log loss is {numbers['challenger_log_loss']:.3f}, that of the baseline "
            f"{numbers['baseline_log_loss']:.3f}: the probabilities are wrong"
        )
    elif not earned >= thresholds.min_gain_net:
        reason = f"it earns {earned:+.2f} per message against the champion: too little"
    elif worst and drops[worst] > thresholds.max_slice_drop:
        reason = f"for {worst}, roc_auc is lower by {drops[worst]:.3f}"
    else:
        reason = f"roc_auc is higher by {gain}, and it earns {earned:+.2f} per message"
        return gate.Verdict(gate.PROMOTE, reason, numbers)
    return gate.Verdict(gate.KEEP, reason, numbers)


def _lost_pairs(rows: np.ndarray) -> float:
    """Return 1 - roc_auc of rows of truth and probability: lower is better, as `gate.gain` asks."""
    return 1 - scores.roc_auc(rows[:, 0], rows[:, 1])


def _bad(found: str, expected: str) -> BadInput:
    cure = "To train another challenger, run:  python code/telco/04_train_xgboost.py"
    return BadInput(found, expected, cure)
