"""The gate: who may become champion, by numbers that can be checked by hand."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import ROOT

from cmlflow import errors, gate

THRESHOLDS = gate.Thresholds(
    min_rows=50,
    min_gain_over_baseline=0.0,
    min_gain_over_champion=0.0,
    confidence=0.9,
    resamples=400,
    seed=1,
)
FILE = ROOT / "code" / "22_thresholds.yaml"


def losses(mean, rows=400, seed=0):
    """Squared errors of a model whose errors are normal, with this mean square."""
    return np.random.default_rng(seed).normal(0, mean**0.5, rows) ** 2


class TestGain:
    def test_it_is_the_difference_of_the_two_scores_inside_its_interval(self):
        worse, better = losses(4.0), losses(1.0, seed=1)
        found = gate.gain(worse, better, THRESHOLDS)
        assert found.value == np.sqrt(worse.mean()) - np.sqrt(better.mean())
        assert found.low < found.value < found.high

    def test_the_same_seed_gives_the_same_interval_and_another_seed_another(self):
        arguments = losses(4.0), losses(1.0, seed=1)
        found = gate.gain(*arguments, THRESHOLDS)
        assert found == gate.gain(*arguments, THRESHOLDS)
        assert found != gate.gain(*arguments, replace(THRESHOLDS, seed=2))

    def test_rows_are_drawn_in_pairs(self):
        """A constant advantage on every row is no less certain because the rows differ much."""
        hard = losses(9.0)
        found = gate.gain(hard + 1, hard, THRESHOLDS, score=lambda one: one.mean(axis=-1))
        assert (found.low, found.high) == pytest.approx((1, 1))

    def test_the_interval_is_as_wide_as_the_standard_error_says(self):
        """Of a mean of differences: 1.645 standard errors to both sides hold 90 %."""
        worse, better = losses(4.0), losses(1.0, seed=1)
        many = replace(THRESHOLDS, resamples=4000)
        found = gate.gain(worse, better, many, score=lambda one: one.mean(axis=-1))
        error = (worse - better).std() / len(worse) ** 0.5
        assert found.high - found.low == pytest.approx(2 * 1.645 * error, rel=0.06)

    def test_more_confidence_is_a_wider_interval(self):
        arguments = losses(4.0), losses(1.0, seed=1)
        sure = gate.gain(*arguments, replace(THRESHOLDS, confidence=0.99))
        assert sure.low < gate.gain(*arguments, THRESHOLDS).low

    def test_of_models_that_are_equal_one_in_ten_intervals_does_not_hold_zero(self):
        """At 90 % confidence; 200 pairs, so 8 to 34 (three standard deviations around 20)."""
        misses = 0
        for seed in range(200):
            one, other = losses(1.0, seed=2 * seed), losses(1.0, seed=2 * seed + 1)
            found = gate.gain(one, other, THRESHOLDS)
            misses += not found.low <= 0 <= found.high
        assert 8 <= misses <= 34


class TestJudge:
    def test_one_that_is_better_than_both_is_promoted(self):
        verdict = gate.judge(losses(1.0), losses(4.0, seed=1), losses(2.0, seed=2), THRESHOLDS)
        assert verdict.decision == gate.PROMOTE
        assert verdict.numbers["gain_over_champion_low"] > 0
        assert "better than the champion" in verdict.reason

    def test_a_tie_keeps_the_champion(self):
        same = losses(1.0)
        verdict = gate.judge(same, losses(4.0, seed=1), same.copy(), THRESHOLDS)
        assert verdict.decision == gate.KEEP
        assert verdict.numbers["gain_over_champion"] == 0
        assert verdict.reason.endswith(": no more than chance, and the champion stays")

    def test_a_lucky_one_keeps_the_champion(self):
        """Better on these rows, but not beyond chance."""
        champion = losses(1.0)
        lucky = champion.copy()
        lucky[champion.argmax()] = 0
        verdict = gate.judge(lucky, losses(4.0, seed=1), champion, THRESHOLDS)
        assert verdict.numbers["gain_over_champion"] > 0
        assert verdict.decision == gate.KEEP

    def test_one_that_is_worse_keeps_the_champion(self):
        verdict = gate.judge(losses(2.0), losses(4.0, seed=1), losses(1.0, seed=2), THRESHOLDS)
        assert verdict.decision == gate.KEEP
        assert verdict.numbers["gain_over_champion_high"] < 0
        assert verdict.reason.endswith(": so it is worse, and the champion stays")

    def test_one_that_is_better_but_not_by_enough_keeps_the_champion(self):
        much = replace(THRESHOLDS, min_gain_over_champion=10.0)
        verdict = gate.judge(losses(1.0), losses(4.0, seed=1), losses(2.0, seed=2), much)
        assert verdict.decision == gate.KEEP
        assert verdict.reason.endswith(": less than asked for, and the champion stays")

    def test_one_that_beats_a_bad_champion_but_not_the_baseline_is_not_promoted(self):
        verdict = gate.judge(losses(2.0), losses(1.0, seed=1), losses(9.0, seed=2), THRESHOLDS)
        assert verdict.decision == gate.KEEP
        assert "baseline" in verdict.reason
        assert "champion_rmse" not in verdict.numbers

    @pytest.mark.parametrize(("mean", "decision"), [(1.0, gate.PROMOTE), (5.0, gate.KEEP)])
    def test_without_a_champion_the_baseline_decides(self, mean, decision):
        verdict = gate.judge(losses(mean), losses(4.0, seed=1), None, THRESHOLDS)
        assert verdict.decision == decision
        assert ("no champion yet" in verdict.reason) == (decision == gate.PROMOTE)

    @pytest.mark.parametrize("name", ["min_gain_over_baseline", "min_gain_over_champion"])
    def test_the_lower_end_must_exceed_the_threshold(self, name):
        arguments = losses(1.0), losses(4.0, seed=1), losses(2.0, seed=2)
        numbers = gate.judge(*arguments, THRESHOLDS).numbers
        low = numbers[name.removeprefix("min_") + "_low"]
        above, below = (replace(THRESHOLDS, **{name: low + step}) for step in (0, -1e-9))
        assert gate.judge(*arguments, above).decision == gate.KEEP
        assert gate.judge(*arguments, below).decision == gate.PROMOTE

    def test_its_scores_are_those_of_the_losses(self):
        given = losses(1.0), losses(4.0, seed=1), losses(2.0, seed=2)
        numbers = gate.judge(*given, THRESHOLDS, metric="log_loss", score=np.mean).numbers
        names = ("challenger_log_loss", "baseline_log_loss", "champion_log_loss")
        assert [numbers[name] for name in names] == [one.mean() for one in given]

    def test_off_promotes_and_says_what_the_gate_would_say(self):
        worse = gate.judge(losses(2.0), losses(4.0, seed=1), losses(1.0, seed=2), THRESHOLDS)
        verdict = gate.unjudged(worse)
        assert verdict.decision == gate.PROMOTE
        assert verdict.reason.startswith("not judged, the gate is off; it would say keep:")

    @pytest.mark.parametrize(
        ("rows", "other"), [(49, 49), (400, 399)], ids=["too few", "of different number"]
    )
    def test_rows_that_cannot_be_compared_are_refused(self, rows, other):
        with pytest.raises(errors.BadInput, match="test rows"):
            gate.judge(losses(1.0, rows), losses(4.0, other), None, THRESHOLDS)

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_a_prediction_that_is_no_number_never_wins(self, value):
        broken = losses(1.0)
        broken[7] = value
        with pytest.raises(errors.BadInput, match="no finite number"):
            gate.judge(broken, losses(4.0), losses(2.0), THRESHOLDS)


class TestThresholds:
    def test_each_value_of_the_file_has_its_meaning_beside_it(self):
        lines = FILE.read_text(encoding="utf-8").splitlines()
        values = [line for line in lines if not line.startswith("#")]
        assert len(values) == len(vars(gate.read_thresholds(FILE)))
        assert all(len(line.partition("#")[2]) > 20 for line in values)

    @pytest.mark.parametrize(
        ("line", "instead", "told"),
        [
            ("seed: 7", "", "seed is missing or unknown"),
            ("seed: 7", "seed: 7\nsed: 8", "sed is missing or unknown"),
            ("confidence: 0.95", "confidence: 95", "confidence is 95"),
            ("confidence: 0.95", "confidence: .nan", "confidence is nan"),
            ("resamples: 2000", "resamples: 2000.5", "resamples is 2000.5"),
            ("resamples: 2000", "resamples: 0", "resamples is 0"),
            ("min_rows: 200", "min_rows: yes", "min_rows is True"),
            ("min_gain_over_baseline: 0.01", "min_gain_over_baseline: a", "_baseline is 'a'"),
            ("min_gain_over_champion: 0.0", "min_gain_over_champion: .inf", "_champion is inf"),
            ("seed: 7", "seed: [", "cannot be read"),
        ],
    )
    def test_a_value_that_cannot_be_is_named(self, tmp_path, line, instead, told):
        text = FILE.read_text(encoding="utf-8")
        assert line in text
        file = tmp_path / "thresholds.yaml"
        file.write_text(text.replace(line, instead))
        with pytest.raises(errors.BadInput, match=told.replace("[", r"\[")) as caught:
            gate.read_thresholds(file)
        assert "git checkout" in caught.value.cure

    def test_a_file_that_is_not_there_is_named(self, tmp_path):
        with pytest.raises(errors.BadInput, match="cannot be read"):
            gate.read_thresholds(tmp_path / "thresholds.yaml")
