"""Drift: statistics against scipy and their own distribution, decisions as a table of cases."""

import json
from dataclasses import replace

import mlflow
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from scipy import stats

from cmlflow import drift, errors, gate, promotion, scores, towers

FILE = ROOT / "code" / "telco" / "thresholds.yaml"
THRESHOLDS = drift.read_thresholds(FILE)


def reference(rows, features=None):
    found = drift.reference(rows, features or list(rows.columns), 0.2, 0.85, 0.23)
    return json.loads(json.dumps(found))  # as it comes back from the run


def frame(*values, name="x"):
    return pd.DataFrame({name: np.array(values, dtype="float64")})


class TestReference:
    def test_few_values_are_bins_and_more_are_cut_at_deciles(self):
        one = reference(pd.DataFrame({"few": np.arange(1300) % 13, "many": np.arange(1300) % 14}))
        few, many = one["features"].values()
        assert few["values"] == list(range(13)) and "edges" not in few
        assert few["counts"] == [100] * 13 + [0, 0]  # never seen, missing
        assert (
            many["edges"]
            == np.unique(np.quantile(np.arange(1300) % 14, np.arange(1, 10) / 10)).tolist()
        )
        assert sum(many["counts"]) == one["rows"] == 1300

    def test_deciles_hold_a_tenth_each_and_an_edge_belongs_to_the_bin_above(self):
        rows = frame(*range(100))
        one = reference(rows)
        assert one["features"]["x"]["counts"] == [10] * 10 + [0, 0]
        edge = one["features"]["x"]["edges"][0]
        assert drift.bin_counts(one, frame(edge, np.nextafter(edge, 0)))["x"].tolist()[:2] == [1, 1]

    def test_bins_are_those_of_the_reference_whatever_the_window_holds(self):
        one = reference(frame(1, 1, 2, 3, np.nan))
        assert one["features"]["x"]["counts"] == [2, 1, 1, 0, 1]
        counts = drift.bin_counts(one, frame(3, 3, 2.5, 9, np.nan, np.nan, -1))["x"]
        assert counts.tolist() == [0, 0, 2, 3, 2]

    def test_counts_of_parts_add_up_to_those_of_the_whole(self):
        rows = towers.messages(towers.Story(), [1, 2])
        one = reference(rows, towers.FEATURES)
        whole = drift.bin_counts(one, rows)
        parts = [drift.bin_counts(one, rows[start::7]) for start in range(7)]
        for name, counts in whole.items():
            assert counts.tolist() == sum(part[name] for part in parts).tolist()
            assert counts.tolist() == one["features"][name]["counts"]

    @pytest.mark.parametrize(
        ("rows", "told"),
        [
            (pd.DataFrame({"y": [1.0]}), "no column x"),
            (pd.DataFrame({"x": ["a"]}), "x is no column of numbers"),
            (frame(np.nan), "x has no value in 1 training rows"),
        ],
    )
    def test_rows_without_numbers_are_refused(self, rows, told):
        with pytest.raises(errors.BadInput, match=told):
            reference(rows, ["x"])


class TestPsi:
    def test_by_hand(self):
        """Counts 30, 10 and 10, 30, each and a half: shares 30.5 / 41 and 10.5 / 41."""
        expected = 2 * (20 / 41) * np.log(30.5 / 10.5)
        assert drift.psi_of_counts([30, 10], [10, 30]) == pytest.approx(expected)
        rows, window = frame(*[1] * 30, *[2] * 10), frame(*[1] * 10, *[2] * 30)
        assert drift.psi(reference(rows), window) == {"x": pytest.approx(expected)}

    def test_equal_counts_and_bins_that_are_empty_in_both_add_nothing(self):
        assert drift.psi_of_counts([5, 7], [5, 7]) == 0
        assert drift.psi_of_counts([30, 0, 10], [10, 0, 30]) == drift.psi_of_counts(
            [30, 10], [10, 30]
        )

    def test_missing_and_new_values_are_seen(self):
        one = reference(frame(*[1, 2] * 500))
        calm = drift.psi(one, frame(*[1, 2] * 200))["x"]
        missing = drift.psi(one, frame(*[1, 2] * 150, *[np.nan] * 100))["x"]
        unseen = drift.psi(one, frame(*[1, 2] * 150, *[7] * 100))["x"]
        assert calm < 0.001 and missing > 1 and unseen == missing

    @pytest.mark.parametrize("rows", [240, 480, 1440])
    def test_without_drift_it_is_distributed_as_chi_square(self, rows):
        """2000 windows of 10 bins: the mean is known to 1 %, the 95 % point to 3 %."""
        generator = np.random.default_rng(1)
        shares = np.full(10, 0.1)
        found = [
            drift.psi_of_counts(
                generator.multinomial(5760, shares), generator.multinomial(rows, shares)
            )
            for _ in range(2000)
        ]
        scale = 1 / 5760 + 1 / rows
        assert np.mean(found) == pytest.approx(9 * scale, rel=0.06)
        often = stats.chi2(9).ppf(0.95) * scale
        assert np.quantile(found, 0.95) == pytest.approx(often, rel=0.08)

    def test_a_window_must_have_as_many_rows_as_the_formula_says(self):
        one = reference(frame(*[*range(10)] * 576))
        needed = drift.rows_needed(one, 0.05)
        assert 9 * (1 / 5760 + 1 / needed) <= 0.05 < 9 * (1 / 5760 + 1 / (needed - 1))
        assert drift.rows_needed(reference(frame(*[*range(10)] * 60)), 0.045) == 300

    def test_the_feature_with_most_bins_counts(self):
        rows = pd.DataFrame({"x": np.arange(5760) % 2, "y": np.arange(5760) % 12})
        assert drift.rows_needed(reference(rows), 0.05) == drift.rows_needed(
            reference(rows[["y"]]), 0.05
        )

    def test_a_reference_that_is_too_small_for_any_window_is_refused(self):
        with pytest.raises(errors.BadInput, match="180 rows in 10 bins: too few"):
            drift.rows_needed(reference(frame(*[*range(10)] * 18)), 0.05)


class TestKs:
    def test_with_few_values_it_is_that_of_scipy(self):
        generator = np.random.default_rng(1)
        then, now = generator.integers(0, 9, 5000), generator.integers(1, 10, 480)
        found = drift.ks(reference(frame(*then)), frame(*now, np.nan))["x"]
        assert found == pytest.approx(stats.ks_2samp(then, now).statistic)

    @pytest.mark.parametrize("shift", [0, 0.2, 1])
    def test_with_many_it_is_that_of_scipy_within_the_sample(self, shift):
        generator = np.random.default_rng(1)
        then, now = generator.normal(0, 1, 5760), generator.normal(shift, 1, 480)
        found = drift.ks(reference(frame(*then)), frame(*now))["x"]
        assert found == pytest.approx(stats.ks_2samp(then, now).statistic, abs=0.005)

    def test_without_any_value_there_is_none(self):
        assert np.isnan(drift.ks(reference(frame(1, 2)), frame(np.nan))["x"])


def scored(rows, run_id="a", probability=0.3):
    return drift.in_windows(rows.assign(probability=probability, run_id=run_id))


class TestMeasure:
    STORY = towers.Story(seed=5, drift="firmware", drift_from=7)

    @pytest.fixture(scope="class")
    def then(self):
        return reference(towers.messages(self.STORY, range(1, 5)), towers.FEATURES)

    def test_windows_are_eight_hours_each(self):
        rows = scored(towers.messages(towers.Story(), [2]).sample(frac=1, random_state=1))
        assert rows.groupby("window").size().tolist() == [480] * 3
        hours = rows["reported_at"].dt.hour
        assert (hours // 8 + 1 == rows["window"]).all()

    @pytest.mark.parametrize(("day", "drifted"), [(6, set()), (7, {"iot_signal_4"})])
    def test_only_what_moved_is_above_the_alarm(self, then, day, drifted):
        found = drift.measure(then, scored(towers.messages(self.STORY, [day])), THRESHOLDS)
        assert list(found) == drift.COLUMNS
        assert not found.duplicated(drift.KEY).any()
        psi = found[found["kind"] == "psi"]
        assert len(psi) == 3 * len(towers.FEATURES)
        assert set(psi.loc[psi["value"] > 0.25, "feature"]) == drifted
        assert set(found["rows"]) == {480}

    def test_shares_by_hand(self, then):
        rows = scored(towers.messages(self.STORY, [5])[:480])
        rows = rows.assign(window=1, probability=[0.1] * 360 + [0.23] * 60 + [0.9] * 60)
        rows.loc[:47, "iot_signal_1"] = np.nan
        rows.loc[100:123, "iot_signal_4"] = 120
        found = drift.measure(then, rows, THRESHOLDS)
        at = found.set_index(["kind", "feature"])["value"]
        assert at["missing_share", "iot_signal_1"] == 0.1
        assert at["out_of_range", "iot_signal_4"] == 0.05
        assert at["out_of_range", "iot_signal_1"] == 0
        assert at["predicted_share", ""] == 0.25  # equal to the threshold counts
        estimate = (360 * 0.9 + 60 * 0.77 + 60 * 0.9) / 480
        assert at["accuracy_estimate", ""] == pytest.approx(estimate)

    def test_a_window_that_is_too_small_is_refused_and_not_alarmed(self, then):
        needed = drift.rows_needed(then, 0.05)
        for rows, kinds in ((needed - 1, {"too_few"}), (needed, {"psi", "ks"})):
            few = scored(towers.messages(self.STORY, [7])[:rows]).assign(window=1)
            found = drift.measure(then, few, THRESHOLDS)
            assert set(found["kind"]) & {"too_few", "psi", "ks"} == kinds
        few = scored(towers.messages(self.STORY, [7])[: needed - 1]).assign(window=1)
        found = drift.measure(then, few, THRESHOLDS)
        decision = drift.decide(found, THRESHOLDS)
        assert decision.action == drift.KEEP
        assert decision.reason == (
            f"Too few rows in a window of day 7: {needed - 1}, at least {needed}."
        )

    def test_performance_is_that_of_the_truth_and_the_baseline_of_the_reference(self, then):
        rows = towers.with_failures(self.STORY, towers.messages(self.STORY, [5]))
        p = towers.probability(self.STORY, rows)
        found = drift.performance(then, rows.assign(probability=p, run_id="a"), towers.LABEL)
        at = found.set_index("kind")["value"]
        failed = rows[towers.LABEL]
        assert at["roc_auc"] == scores.roc_auc(failed, p)
        assert at["reference_roc_auc"] == 0.85
        share = failed.mean()
        constant = -(share * np.log(0.2) + (1 - share) * np.log(0.8))
        assert at["baseline_log_loss"] == pytest.approx(constant)
        assert at["net_per_message"] == scores.of(failed, p, 0.23)["net_per_message"]
        assert set(found["window"]) == {0} and set(found["rows"]) == {1440}

    def test_a_day_of_one_class_has_a_truth_and_no_roc_auc(self, then):
        rows = towers.messages(self.STORY, [5]).assign(truth=0, probability=0.1, run_id="a")
        kinds = set(drift.performance(then, rows, "truth")["kind"])
        assert "failure_share" in kinds and "roc_auc" not in kinds


# The decision. One letter is a window: . calm, w worth a look, A above the alarm, B the same in
# another feature, s too small. Days from 1.
LEVELS = {".": (0.02, 0.02), "w": (0.2, 0.02), "A": (0.4, 0.02), "B": (0.02, 0.4), "=": (0.25, 0)}


def table(days, truth=None, verdicts=(), run="a", first=1, rows=1440):
    """Rows of telco_monitoring: windows of days, roc_auc by day, (day, mode) of verdicts."""
    found = []
    for day, windows in enumerate(days.split(), start=first):
        for window, letter in enumerate(windows, start=1):
            if letter == "s":
                found.append((day, window, "too_few", "", 230.0, 100, run))
                continue
            for feature, value in zip(("x", "y"), LEVELS[letter], strict=True):
                found.append((day, window, "psi", feature, value, 480, run))
                found.append((day, window, "ks", feature, 0.9, 480, run))
    for day, value in (truth or {}).items():
        found.append((day, 0, "failure_share", "", 0.2, rows, run))
        found.append((day, 0, "roc_auc", "", value, rows, run))
        found.append((day, 0, "reference_roc_auc", "", 0.85, rows, run))
    rows = [pd.DataFrame(found, columns=drift.COLUMNS)]
    rows += [drift.verdict_rows(day, mode, False, 288, "c") for day, mode in verdicts]
    return pd.concat(rows, ignore_index=True)


GOOD = {1: 0.84, 2: 0.85}
CASES = {
    "no drift": (("... ... ...", GOOD), "keep"),
    "worth a look": (("... www",), "keep"),
    "one window above": (("... ..A",), "keep"),
    "two of three": (("... .AA",), "wait"),
    "two of three, with a gap": (("... A.A",), "wait"),
    "the newest one is calm": (("... AA.",), "keep"),
    "two above, too far apart": (("... A.. A",), "keep"),
    "two in different features": (("... .AB",), "keep"),
    "equal to the threshold": (("... ===",), "keep"),
    "across midnight": (("..A A",), "wait"),
    "truth of calm days only": (("... ... AAA", GOOD), "wait"),
    "truth of a drifted day": (("... AAA AAA", GOOD), "retrain"),
    "judged on a drifted day": (("... AAA AAA", GOOD, [(2, "on")]), "keep"),
    "judged, and going on": (
        ("... AAA AAA AAA AAA", GOOD | {3: 0.85, 4: 0.85}, [(2, "on")]),
        "keep",
    ),
    "judged before any drifted truth": (("... AAA AAA", GOOD, [(1, "on")]), "retrain"),
    "promoted unjudged": (("... AAA AAA", GOOD, [(2, "off")]), "keep"),
    "a dry run changes nothing": (("... AAA AAA", GOOD, [(2, "dry-run")]), "retrain"),
    "a new episode": (("AAA AAA ... AAA AAA", GOOD | {3: 0.85, 4: 0.85}, [(1, "on")]), "retrain"),
    "a new episode, without its truth": (
        ("AAA AAA ... AAA", GOOD | {3: 0.85}, [(1, "on")]),
        "wait",
    ),
    "a calm window ends no episode": (("AAA AA. .AA", GOOD, [(1, "on")]), "keep"),
    "drift at the end of a day only": (("... ..A AAA", GOOD), "wait"),
    "small windows raise no alarm": (("... sss",), "keep"),
    "small windows end no alarm": (("... AAA sss",), "wait"),
    "damage": (("... ...", {1: 0.79}), "retrain"),
    "damage, as much as allowed": (("... ...", {1: 0.85 - 0.05}), "keep"),
    "damage, judged": (("... ...", {1: 0.79}, [(1, "on")]), "keep"),
    "damage of a later day": (("... ... ...", {1: 0.79, 2: 0.79}, [(1, "on")]), "retrain"),
    "damage of an earlier day only": (("... ... ...", {1: 0.7, 2: 0.84}), "keep"),
    "better than the reference": (("... ...", {1: 0.95}), "keep"),
    "damage and drift without its truth": (("... AAA", {1: 0.79}), "retrain"),
    "damage after a refusal": (("AAA AAA AAA", {1: 0.7, 2: 0.7}, [(1, "on")]), "retrain"),
}


class TestDecide:
    @pytest.mark.parametrize("case", CASES)
    def test_case(self, case):
        given, expected = CASES[case]
        decision = drift.decide(table(*given), THRESHOLDS)
        assert decision.action == expected, decision
        assert decision.reason.endswith(".") and "\n" not in decision.reason

    def test_nothing_measured_yet(self):
        empty = drift.decide(table("").astype({"value": float}), THRESHOLDS)
        assert (empty.action, empty.batch_id, empty.run_id) == (drift.KEEP, 0, "")

    def test_it_is_a_function_of_the_rows_in_any_order_even_doubled(self):
        rows = table("... AAA AAA", GOOD)
        expected = drift.decide(rows, THRESHOLDS)
        mixed = pd.concat([rows, rows]).sample(frac=1, random_state=1)
        assert drift.decide(mixed, THRESHOLDS) == expected
        after = pd.concat([rows, drift.decision_rows(expected)])
        assert drift.decide(after, THRESHOLDS) == expected

    def test_a_new_run_starts_without_the_alarms_of_the_old_one(self):
        old = table("... AAA AAA", GOOD | {3: 0.6}, run="a")
        new = table("...", run="b", first=4)
        decision = drift.decide(pd.concat([old, new]), THRESHOLDS)
        assert (decision.action, decision.run_id, decision.batch_id) == (drift.KEEP, "b", 4)
        above = table(".A", run="b", first=4)  # one window of its own is above, those of a are not
        assert drift.decide(pd.concat([old, above]), THRESHOLDS).action == drift.KEEP

    def test_a_run_that_came_back_is_not_charged_with_what_it_did_before(self):
        parts = [table("..A", {1: 0.6}), table("...", run="b", first=2), table("A", first=3)]
        assert drift.decide(pd.concat(parts), THRESHOLDS).action == drift.KEEP

    def test_truth_of_few_rows_is_no_damage(self):
        for rows, action in ((999, drift.KEEP), (1000, drift.RETRAIN)):
            one = table("... ...", {1: 0.7}, rows=rows)
            assert drift.decide(one, THRESHOLDS).action == action

    @pytest.mark.parametrize(
        ("given", "words"),
        [
            (("... ...",), "Highest PSI of day 2 is 0.02, of"),
            (("... www",), "is 0.20, of x: worth a look, no alarm."),
            (("... AAA",), "The inputs have drifted since day 2, PSI 0.40 in x, and no truth of"),
            (("... ...", {1: 0.7}), "The roc_auc of day 1 is 0.700, not 0.850 as in training."),
            (("... AAA AAA", GOOD, [(2, "on")]), "and a challenger has been judged on it."),
        ],
    )
    def test_the_reason_has_the_numbers(self, given, words):
        assert words in drift.decide(table(*given), THRESHOLDS).reason

    def test_the_numbers_of_the_rule_are_those_of_the_file(self):
        one = table("... A.A")
        for changed, action in (
            ({"alarm_windows": 3}, drift.KEEP),
            ({"of_windows": 2}, drift.KEEP),
            ({"psi_alarm": 0.4}, drift.KEEP),
            ({"alarm_windows": 1}, drift.WAIT),
        ):
            assert drift.decide(one, replace(THRESHOLDS, **changed)).action == action

    @pytest.mark.parametrize(
        ("value", "expected"), [(0.1, ""), (0.11, "watch"), (0.25, "watch"), (0.26, "alarm")]
    )
    def test_levels(self, value, expected):
        assert drift.level(value, 0.1, 0.25) == expected


class TestGate:
    """600 messages; the challenger knows the probability, the champion half of it."""

    @pytest.fixture(scope="class")
    def given(self):
        generator = np.random.default_rng(4)
        signal = generator.normal(0, 1.5, (2, 600))
        p = 1 / (1 + np.exp(1 - signal.sum(axis=0)))
        half = 1 / (1 + np.exp(1 - signal[0]))
        failed = (generator.uniform(size=600) < p).astype(int)
        slices = np.array(towers.MAKERS)[np.arange(600) % 3]
        return {
            "failed": failed,
            "champion": half,
            "challenger": p,
            "slices": slices,
            "baseline": 0.35,
            "send_from": (0.23, 0.23),
            "thresholds": THRESHOLDS,
        }

    def test_the_better_one_is_promoted_with_all_numbers(self, given):
        verdict = promotion.judge(**given)
        assert verdict.decision == gate.PROMOTE
        numbers, failed = verdict.numbers, given["failed"]
        for name in ("champion", "challenger"):
            assert numbers[f"{name}_roc_auc"] == scores.roc_auc(failed, given[name])
            net = scores.of(failed, given[name], 0.23)["net_per_message"]
            assert numbers[f"{name}_net_per_message"] == net
        gained = numbers["challenger_roc_auc"] - numbers["champion_roc_auc"]
        assert numbers["gain_roc_auc"] == pytest.approx(gained)
        assert numbers["gain_roc_auc_low"] < gained < numbers["gain_roc_auc_high"]
        assert {f"gain_roc_auc/{maker}" for maker in towers.MAKERS} <= numbers.keys()

    def test_the_interval_is_that_of_a_bootstrap_of_the_messages(self, given):
        generator, found = np.random.default_rng(99), []
        for _ in range(1000):
            drawn = generator.integers(0, 600, 600)
            failed = given["failed"][drawn]
            found.append(
                scores.roc_auc(failed, given["challenger"][drawn])
                - scores.roc_auc(failed, given["champion"][drawn])
            )
        low = promotion.judge(**given).numbers["gain_roc_auc_low"]
        assert low == pytest.approx(np.quantile(found, 0.05), abs=0.01)

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            (lambda g: {"challenger": g["champion"]}, "no gain beyond chance"),
            (
                lambda g: {"challenger": g["champion"], "champion": g["challenger"]},
                "no gain beyond chance",
            ),
            (lambda g: {"challenger": g["challenger"] ** 8}, "log loss is"),
            (lambda g: {"send_from": (0.23, 0.999)}, "it earns -"),
        ],
        ids=["tie", "worse", "probabilities wrong", "earns less"],
    )
    def test_each_condition_alone_keeps_the_champion(self, given, change, told):
        verdict = promotion.judge(**given | change(given))
        assert verdict.decision == gate.KEEP
        assert pytest.approx(verdict.numbers["champion_roc_auc"]) == scores.roc_auc(
            given["failed"], (given | change(given))["champion"]
        )
        assert told in verdict.reason

    def test_the_lower_end_of_the_interval_must_exceed_the_threshold(self, given):
        low = promotion.judge(**given).numbers["gain_roc_auc_low"]
        for least, decision in ((low, gate.KEEP), (low - 1e-9, gate.PROMOTE)):
            asked = replace(THRESHOLDS, min_gain_roc_auc=least)
            assert promotion.judge(**given | {"thresholds": asked}).decision == decision

    def test_equal_revenue_is_enough(self, given):
        never = given | {"send_from": (1.0, 1.0)}
        assert promotion.judge(**never).decision == gate.PROMOTE

    def test_one_manufacturer_that_loses_keeps_the_champion(self, given):
        mixed, one = given["challenger"].copy(), given["slices"] == "AI Inc."
        mixed[one] = 0.3  # says nothing about a third of the towers
        given = given | {"champion": np.where(one, given["champion"], 0.3)}  # nothing of the others
        verdict = promotion.judge(**given | {"challenger": mixed})
        assert verdict.decision == gate.KEEP and "for AI Inc., roc_auc is lower" in verdict.reason
        few = replace(THRESHOLDS, min_slice_failures=1000)
        again = promotion.judge(**given | {"challenger": mixed, "thresholds": few})
        assert again.decision == gate.PROMOTE
        assert "gain_roc_auc/AI Inc." not in again.numbers

    @pytest.mark.parametrize(
        ("maker", "named"),
        [
            (None, "no manufacturer"),
            (float("nan"), "no manufacturer"),
            ("Ärger & Söhne (new)", "Ärger _ Söhne _new_"),
        ],
    )
    def test_a_manufacturer_that_nobody_knows_is_a_slice_like_any_other(self, given, maker, named):
        slices = np.where(given["slices"] == "AI Inc.", maker, given["slices"].astype(object))
        known, found = promotion.judge(**given), promotion.judge(**given | {"slices": slices})
        assert found.decision == known.decision
        assert found.numbers[f"gain_roc_auc/{named}"] == known.numbers["gain_roc_auc/AI Inc."]
        for name in found.numbers:  # each becomes a tag of a run
            mlflow.utils.validation._validate_tag_name(name)

    def test_too_few_failures_are_a_verdict_and_no_error(self, given):
        failed = np.zeros(600, dtype=int)
        failed[:19] = 1
        verdict = promotion.judge(**given | {"failed": failed})
        assert verdict.decision == gate.KEEP
        assert verdict.reason.startswith("19 failures in 600 test messages: too few")
        failed[19] = 1
        assert "too few" not in promotion.judge(**given | {"failed": failed}).reason

    @pytest.mark.parametrize("answers", [np.full(599, 0.5), np.full(600, np.nan), np.full(600, 2)])
    def test_answers_that_are_no_probabilities_are_refused(self, given, answers):
        with pytest.raises(errors.BadInput, match="answers"):
            promotion.judge(**given | {"challenger": answers})


class TestThresholds:
    def test_each_value_has_its_meaning_beside_it(self):
        lines = FILE.read_text(encoding="utf-8").splitlines()
        values = [line for line in lines if line and not line.startswith("#")]
        assert len(values) == len(vars(THRESHOLDS))
        assert all(len(line.partition("#")[2]) > 20 for line in values)

    def test_they_are_those_of_the_literature_and_of_what_was_measured(self):
        one = THRESHOLDS
        assert (one.psi_watch, one.psi_alarm, one.ks_alarm) == (0.1, 0.25, 0.2)
        assert (one.alarm_windows, one.of_windows, one.max_roc_auc_drop) == (2, 3, 0.05)
        assert (one.max_psi_by_chance, one.confidence, one.min_slice_failures) == (0.05, 0.9, 30)

    @pytest.mark.parametrize(
        ("line", "instead", "told"),
        [
            ("psi_alarm: 0.25", "psi_alarm: 0.05", "psi_watch 0.1 is above psi_alarm 0.05"),
            ("of_windows: 3", "of_windows: 1", "alarm_windows 2 is above of_windows 1"),
            ("ks_watch: 0.1 ", "ks_watch: 0.3 ", "ks_watch 0.3 is above ks_alarm 0.2"),
            ("seed: 7", "", "seed is missing"),
            ("confidence: 0.9", "confidence: 90", "confidence is 90"),
            ("of_windows: 3", "of_windows: 3.5", "of_windows is 3.5"),
            ("max_roc_auc_drop: 0.05", "max_roc_auc_drop: -0.05", "max_roc_auc_drop is -0.05"),
        ],
    )
    def test_values_that_cannot_be_are_named(self, tmp_path, line, instead, told):
        text = FILE.read_text(encoding="utf-8")
        assert line in text
        file = tmp_path / "thresholds.yaml"
        file.write_text(text.replace(line, instead))
        with pytest.raises(errors.BadInput, match=told) as caught:
            drift.read_thresholds(file)
        assert "git checkout" in caught.value.cure
