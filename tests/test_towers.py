"""Cell towers: the same rows for ever, a label that can be learnt, drift that moves one thing."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

from cmlflow import drift, errors, scores, towers
from cmlflow.spark import start_spark

MANY = 300_000  # a standard error of a share of .2 is .0007


def story(kind="none", rows=MANY, **others):
    return towers.Story(drift=kind, rows_per_day=rows, **{"drift_from": 1, "seed": 3} | others)


@pytest.fixture(scope="module")
def worlds():
    """A day of each kind of drift, from the first message on."""
    return {kind: towers.messages(story(kind), [1]) for kind in towers.DRIFTS}


class TestRows:
    def test_a_day_is_36_messages_of_40_towers_every_40_minutes(self):
        rows = towers.messages(towers.Story(), [3])
        assert rows["message_id"].tolist() == list(range(2880, 4320))
        assert set(rows["batch_id"]) == {3}
        assert rows.groupby("device_id").size().tolist() == [36] * 40
        assert rows["reported_at"].is_monotonic_increasing
        assert rows["reported_at"].iloc[[0, -1]].astype(str).tolist() == [
            "2024-01-03 00:00:00+00:00",
            "2024-01-03 23:20:00+00:00",
        ]
        gaps = rows.groupby("device_id")["reported_at"].diff().dropna()
        assert set(gaps) == {pd.Timedelta(minutes=40)}

    def test_what_belongs_to_a_tower_never_changes(self):
        rows = towers.messages(towers.Story(drift="firmware", drift_from=2), [1, 2, 9])
        fixed = rows.groupby("device_id")[["manufacturer", "longitude", "latitude"]].nunique()
        assert (fixed == 1).all(axis=None)
        assert rows["longitude"].nunique() == rows["latitude"].nunique() == 40
        assert set(rows["manufacturer"]) == set(towers.MAKERS)
        assert rows["longitude"].between(-83.63, -82.62).all()
        assert rows["latitude"].between(51.59, 52.60).all()

    def test_the_test_rows_hold_every_tower(self):
        """A fifth by message_id: were towers in a fixed order, it would be eight of them."""
        rows = towers.messages(towers.Story(), [1])
        assert rows.loc[rows["message_id"] % 5 == 0, "device_id"].nunique() == 40

    def test_any_subset_in_any_order_has_the_same_rows(self):
        one = towers.Story(drift="firmware", drift_from=2)
        whole = towers.with_failures(one, towers.messages(one, [1, 2, 3]))
        some = np.array([4000, 17, 1439, 1440])
        part = towers.with_failures(one, towers.of_ids(one, some))
        pd.testing.assert_frame_equal(part, whole.loc[some].reset_index(drop=True))
        pd.testing.assert_frame_equal(
            towers.messages(one, [3, 1]), towers.of_ids(one, np.r_[2880:4320, 0:1440])
        )

    def test_the_truth_does_not_depend_on_the_order_or_company_of_the_messages(self):
        one = towers.Story()
        rows = towers.messages(one, [1, 2])
        mixed = rows.sample(frac=0.5, random_state=1)
        assert (towers.failures(one, mixed) == towers.failures(one, rows)[mixed.index]).all()

    def test_another_seed_is_another_story(self):
        one, other = (towers.messages(towers.Story(seed=seed), [1]) for seed in (1, 2))
        assert not set(one["device_id"]) & set(other["device_id"])
        assert abs(np.corrcoef(one["iot_signal_1"], other["iot_signal_1"])[0, 1]) < 0.1

    @pytest.mark.parametrize("kind", towers.DRIFTS)
    def test_every_day_is_new(self, kind):
        """The original's batches repeat each other row by row.

        Here that is rarer than 1 %. Values are whole numbers, so 1.5 % of the rows have a twin
        anywhere in the day before, of the same tower: as many as within a day, twice over.
        """
        one = towers.Story(drift=kind, drift_from=5)
        columns = ["device_id", *towers.FEATURES]
        days = [towers.messages(one, [day]) for day in range(1, 8)]
        assert pd.concat(days)["message_id"].is_unique
        for before, after in pairwise(days):
            assert after["reported_at"].min() > before["reported_at"].max()
            same = before[towers.FEATURES].to_numpy() == after[towers.FEATURES].to_numpy()
            assert same.all(axis=1).mean() < 0.01
            twins = pd.concat([before, after]).duplicated(columns)[len(before) :]
            assert twins.mean() < 0.03

    def test_features_are_doubles_within_the_ranges_of_the_original(self, worlds):
        ranges = {
            "iot_signal_1": (1, 10),
            "iot_signal_2": (1, 12),
            "iot_signal_3": (50, 55),
            "iot_signal_4": (100, 107),
            "event_severity": (0, 3),
        }
        for rows in worlds.values():
            assert (rows[towers.FEATURES].dtypes == "float64").all()
            for name, (low, high) in ranges.items():
                assert sorted(rows[name].unique()) == list(range(low, high + 1))
            assert rows["signal_score"].between(0, 100).all()
            assert (rows["event_type"].map(towers.EVENTS.index) == rows["event_severity"]).all()

    def test_normal_and_uniform_numbers_are_what_they_are_called(self):
        """By moments; 300,000 of them, so .01 is five standard errors."""
        uniform = towers._uniform(1, "any", np.arange(MANY))
        assert uniform.min() > 0 and uniform.max() < 1
        assert uniform.mean() == pytest.approx(0.5, abs=0.003)
        assert np.corrcoef(uniform[:-1], uniform[1:])[0, 1] == pytest.approx(0, abs=0.01)
        other = towers._uniform(1, "other", np.arange(MANY))
        assert np.corrcoef(uniform, other)[0, 1] == pytest.approx(0, abs=0.01)

    @pytest.mark.parametrize(
        ("wrong", "told"),
        [
            ({"drift": "cold"}, "no drift called 'cold'"),
            ({"rows_per_day": 0}, "0 rows a day"),
            ({"drift_from": 0}, "from day 0"),
        ],
    )
    def test_a_story_that_cannot_be_told_is_refused(self, wrong, told):
        with pytest.raises(errors.BadInput, match=told):
            towers.Story(**wrong)
        with pytest.raises(errors.BadInput, match="no day 0"):
            towers.messages(towers.Story(), [0])


class TestTruth:
    # share, roc_auc, average precision, log loss, accuracy, best net, never, always
    CEILINGS = {  # noqa: RUF012
        "none": (0.211, 0.852, 0.644, 0.363, 0.841, 8.4, -13.2, -18.4),
        "heat": (0.406, 0.852, 0.804, 0.466, 0.778, 23.2, -34.7, 10.9),
        "firmware": (0.129, 0.871, 0.568, 0.263, 0.895, 6.6, -4.1, -30.7),
    }

    @pytest.mark.parametrize("kind", CEILINGS)
    def test_the_ceiling_is_that_of_an_independent_million(self, kind, worlds):
        found = towers.ceiling(story(kind), worlds[kind])
        assert found["threshold"] == pytest.approx(0.23, abs=0.03)
        names = ("failure_share", "roc_auc", "average_precision", "log_loss", "accuracy")
        expected = self.CEILINGS[kind]
        assert [found[name] for name in names] == pytest.approx(expected[:5], abs=0.006)
        money = [found[name] for name in ("net_per_message", "net_never", "net_always")]
        assert money == pytest.approx(expected[5:], abs=0.5)

    def test_failures_happen_as_often_as_their_probability_says(self, worlds):
        for kind, rows in worlds.items():
            p, failed = towers.probability(story(kind), rows), towers.failures(story(kind), rows)
            tenth = pd.qcut(p, 10, labels=False)
            said, happened = (pd.Series(one).groupby(tenth).mean() for one in (p, failed))
            assert (said - happened).abs().max() < 0.012  # 30,000 rows: four standard errors

    def test_no_column_alone_says_much(self, worlds):
        for kind, rows in worlds.items():
            failed = towers.failures(story(kind), rows)
            for name in rows.columns.drop(["reported_at", "batch_id"]):
                codes = pd.factorize(rows[name], sort=True)[0]
                alone = scores.roc_auc(failed, codes)
                assert max(alone, 1 - alone) < 0.75, (kind, name)

    def test_the_score_comes_from_the_signals_only(self, worlds):
        """Where it does not equal them, in one message of five, it says nothing about the label."""
        rows = worlds["none"]
        signals = (
            50 * (rows["iot_signal_1"] - 1) / 9
            + 30 * (55 - rows["iot_signal_3"]) / 5
            + 20 * (rows["iot_signal_4"] - 100) / 7
        )
        lost = (rows["signal_score"] - signals).abs() > 1e-9
        assert lost.mean() == pytest.approx(0.2, abs=0.004)
        failed = towers.failures(story(), rows)
        assert scores.roc_auc(failed[lost], rows["signal_score"][lost]) == pytest.approx(
            0.5, abs=0.01
        )
        assert scores.roc_auc(failed, lost) == pytest.approx(0.5, abs=0.005)

    def test_messages_hold_no_label(self, worlds):
        assert towers.LABEL not in worlds["none"]
        assert towers.LABEL not in towers.FEATURES


class TestDrift:
    MOVED = {  # noqa: RUF012
        "heat": {"iot_signal_1", "iot_signal_2", "iot_signal_3", "signal_score"},
        "firmware": {"iot_signal_4", "signal_score"},
        "silent": set(),
    }

    @pytest.mark.parametrize("kind", MOVED)
    def test_it_moves_what_it_says_and_nothing_else(self, kind, worlds):
        """The random numbers are the same, so what does not move is equal in every row."""
        then, now = worlds["none"], worlds[kind]
        moved = {name for name in now if not now[name].equals(then[name])}
        assert moved == self.MOVED[kind]

    def test_silent_turns_the_meaning_and_firmware_does_both(self, worlds):
        rows = worlds["none"]
        known = towers.probability(story(), rows)
        expected = {"silent": (0.63, 0.67), "firmware": (0.63, 0.69), "heat": (0.84, 0.86)}
        for kind, (low, high) in expected.items():
            truth = towers.failures(story(kind), worlds[kind])
            old = towers.probability(story(), worlds[kind])  # what the old model would answer
            assert low < scores.roc_auc(truth, old) < high, kind
        assert not np.allclose(known, towers.probability(story("silent"), rows))

    def test_heat_changes_no_meaning(self, worlds):
        rows = worlds["heat"]
        same = towers.probability(story("heat"), rows) == towers.probability(story(), rows)
        assert same.all()

    def test_psi_of_a_silent_day_is_that_of_chance(self):
        one = towers.Story(drift="silent", drift_from=6)
        then = drift.reference(towers.messages(one, range(1, 6)), towers.FEATURES, 0.2, 0.85, 0.23)
        for day in (6, 7, 8):
            assert max(drift.psi(then, towers.messages(one, [day])).values()) <= 0.02

    @pytest.mark.parametrize("kind", towers.DRIFTS)
    def test_it_begins_on_its_day_at_once(self, kind):
        one, calm = (towers.Story(drift=name, drift_from=4) for name in (kind, "none"))
        for day in (1, 3, 4, 5):
            rows = towers.messages(one, [day])
            before = rows.equals(towers.messages(calm, [day]))
            truth = (towers.failures(one, rows) == towers.failures(calm, rows)).all()
            if kind != "none":
                assert (before and truth) == (day < 4)
            else:
                assert before and truth


class TestScores:
    FAILED = np.array([1, 0, 1, 0, 0, 1, 0, 0])
    SAID = np.array([0.9, 0.8, 0.6, 0.6, 0.3, 0.2, 0.1, 0.0])

    def test_counts_by_hand(self):
        """At .6: found .9 and .6, missed .2; false alarms .8 and .6; quiet .3, .1 and 0."""
        assert scores.counts_at(self.FAILED, self.SAID, 0.6) == {"tn": 3, "fp": 2, "fn": 1, "tp": 2}
        net = 2 * 100 + 3 * 10 - 2 * 50 - 1 * 100
        assert scores.net_revenue(tn=3, fp=2, fn=1, tp=2) == net == 30

    def test_all_thresholds_agree_with_counting_one_by_one(self):
        table = scores.counts(self.FAILED, self.SAID)
        assert table["threshold"].tolist() == [step / 100 for step in range(101)]
        for row in table.to_dict("records"):
            expected = scores.counts_at(self.FAILED, self.SAID, row.pop("threshold"))
            assert row == expected

    def test_never_and_always_are_the_ends(self):
        found = scores.of(self.FAILED, self.SAID)
        table = scores.counts(self.FAILED, self.SAID).drop(columns="threshold")
        ends = [scores.net_revenue(**table.iloc[row]) / 8 for row in (0, -1)]
        assert ends == [found["net_always"], found["net_never"]]

    def test_best_threshold_earns_most_and_the_lowest_wins_a_tie(self):
        threshold, net = scores.best_threshold(self.FAILED, self.SAID)
        table = scores.counts(self.FAILED, self.SAID)
        nets = scores.net_revenue(table["tn"], table["fp"], table["fn"], table["tp"]) / 8
        assert net == nets.max()
        assert threshold == table["threshold"][nets == nets.max()].iloc[0] == 0.11

    @pytest.mark.parametrize("prices", [scores.PRICES, scores.Prices(10, 3, 7)])
    def test_at_break_even_a_truck_earns_as_much_as_none(self, prices):
        p = scores.break_even(prices)
        send = scores.net_revenue(0, 1 - p, 0, p, prices)
        stay = scores.net_revenue(1 - p, 0, p, 0, prices)
        assert send == pytest.approx(stay)
        assert scores.break_even() == 60 / 260
        assert np.isnan(scores.break_even(scores.Prices(0, 0, 0)))

    def test_scores_are_those_of_sklearn(self):
        generator = np.random.default_rng(1)
        failed, said = generator.integers(0, 2, 500), generator.integers(0, 20, 500) / 20  # ties
        found = scores.of(failed, said)
        assert found["roc_auc"] == pytest.approx(metrics.roc_auc_score(failed, said))
        assert found["log_loss"] == pytest.approx(metrics.log_loss(failed, said.clip(1e-15, 1)))
        assert found["accuracy"] == metrics.accuracy_score(failed, said >= 0.5)
        assert found["baseline_accuracy"] == max(failed.mean(), 1 - failed.mean())

    def test_one_class_alone_has_no_roc_auc(self):
        assert np.isnan(scores.roc_auc(np.zeros(3), np.arange(3)))
        found = scores.of(np.zeros(3), np.full(3, 0.1))
        assert np.isnan(found["roc_auc"]) and np.isnan(found["average_precision"])


@pytest.mark.spark
def test_spark_generates_the_same_rows(tmp_path, monkeypatch):
    monkeypatch.setenv("CMLFLOW_WORKAREA", str(tmp_path))
    spark = start_spark("any")
    spark.conf.set("spark.sql.session.timeZone", "UTC")
    one = towers.Story(drift="heat", drift_from=2)
    try:
        # A few rows are generated here, many by the executors.
        for labelled, limit in ((False, towers.IN_DRIVER), (True, towers.IN_DRIVER), (True, 2879)):
            monkeypatch.setattr(towers, "IN_DRIVER", limit)
            frame = towers.in_spark(spark, one, range(1, 3), labelled)
            assert (frame.rdd.getNumPartitions() > 1) == (limit == 2879)
            found = frame.toPandas().sort_values("message_id", ignore_index=True)
            expected = towers.messages(one, [1, 2])
            expected = towers.with_failures(one, expected) if labelled else expected
            expected["reported_at"] = expected["reported_at"].dt.tz_localize(None)
            pd.testing.assert_frame_equal(found, expected)
        written = spark.createDataFrame(towers.messages(one, [1])).toPandas()
        assert written["reported_at"].equals(expected["reported_at"][:1440])
        with pytest.raises(errors.BadInput, match="gaps"):
            towers.in_spark(spark, one, [1, 3])
    finally:
        spark.stop()
