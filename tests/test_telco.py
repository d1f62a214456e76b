"""Part 4 as a learner does it: each lesson by hand, then four days of the loop.

All tests look at one pass. What a lesson must not change is compared before and after it.
"""

import contextlib
import hashlib
import json
import os
import re
import sqlite3
from types import SimpleNamespace

import mlflow
import numpy as np
import pandas as pd
import pytest
from conftest import CODE, client_of, files_of, runs_in, table_in
from servers import ask

from cmlflow import drift, promotion, scores, towers

pytestmark = pytest.mark.spark
NAMESPACE = "spark_catalog.default"
TABLES = ("telco_cell_towers", "telco_messages", "telco_predictions", "telco_monitoring")
EXPERIMENT, MODEL = "xgb-telco", "CellTwrFail-CLF"
FEATURES, LABEL = towers.FEATURES, towers.LABEL
CODE_OF_TRAINING = (CODE / "telco" / "training.py").read_text(encoding="utf-8")
THRESHOLDS = drift.read_thresholds(CODE / "telco" / "thresholds.yaml")
FIRMWARE = towers.Story(drift="firmware", drift_from=8)


def served(work):
    """What the endpoint of a working area says that it serves, and in which process."""
    (file,) = (work / "endpoints").glob("*.json")
    facts = json.loads(file.read_text(encoding="utf-8"))
    status, told = ask(facts["port"], "/deployment")
    assert status == 200, told
    return json.loads(told) | {name: facts[name] for name in ("pid", "port", "ends")}


def state(work):
    """All that a lesson could change: files, tables, the store, the registry, the endpoint."""
    files = {
        str(path): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in work.rglob("*")
        if path.is_file()
        and path.suffix != ".lock"
        and not path.name.startswith("mlflow.db")
        and "spark-tmp" not in path.parts
    }
    with contextlib.closing(sqlite3.connect(work / "mlflow.db")) as database:
        return files, list(database.iterdump()), served(work)


def rows_of(work, table, **how):
    return table_in(work, table).scan(**how).to_pandas()


def count_of(work):
    """How many snapshots, runs and versions there are."""
    return SimpleNamespace(
        snapshots={name: len(table_in(work, name).snapshots()) for name in TABLES},
        runs={name: len(runs_in(work, name)) for name in (EXPERIMENT, "telco-monitoring")},
        versions=len(client_of(work).search_model_versions()),
    )


@pytest.fixture(scope="module")
def telco(module_work, warm):
    """The lessons in their order, most of them twice; then the loop, and a kill.

    Days 6 and 7 are by hand, 8 to 11 by the loop; the drift begins on day 8.
    """
    work, said, counts, states = module_work, {}, {}, {}

    def step(name, script, *options, refused=False):
        done = warm.run_script(f"telco/{script}", work, *options, CMLFLOW_ROWS_PER_REQUEST="36")
        assert done.returncode == int(refused), f"{name}: {done.stdout}\n{done.stderr[-3000:]}"
        said[name] = done.stderr if refused else done.stdout
        counts[name] = count_of(work)

    step("00", "00_datagen.py")
    step("01", "01_train_xgboost.py")
    step("01 again", "01_train_xgboost.py")
    step("02", "02_api_deployment.py")
    first = served(work)
    step("03", "03_newbatch.py")
    step("03, the next day", "03_newbatch.py")
    step("03, a day that is there", "03_newbatch.py", "--day", "7")
    step("03, a day too far", "03_newbatch.py", "--day", "9", refused=True)
    step("04", "04_train_xgboost.py")
    step("04 again", "04_train_xgboost.py")
    step("02 again", "02_api_deployment.py")
    states["before"] = state(work)
    step("05 dry-run", "05_api_redeployment.py", "--gate", "dry-run")
    states["dry-run"] = state(work)
    step("05", "05_api_redeployment.py")
    states["05"] = state(work)
    step("05 again", "05_api_redeployment.py")
    states["05 again"] = state(work)
    step("06", "06_model_simulation.py")
    step("06 again", "06_model_simulation.py")
    step("07", "07_model_monitoring.py")
    step("07 again", "07_model_monitoring.py")
    step("04 without a reason", "04_train_xgboost.py", "--when", "drift")
    step("09", "09_jobs.py", "--days", "4")
    last = served(work)
    os.kill(last["pid"], 9)
    step("02 after a kill", "02_api_deployment.py")
    step("04 on all rows", "04_train_xgboost.py", "--rows", "all")
    runs = {run.data.tags["batch_id"]: run for run in runs_in(work, EXPERIMENT)}
    return SimpleNamespace(
        work=work,
        said=said,
        counts=counts,
        states=states,
        first=first,
        last=last,
        model=runs.get("5"),
        refused=runs.get("6"),
        promoted=runs.get("8"),
        all_rows=runs.get("10"),
        runs=runs,
        tables={name: rows_of(work, name) for name in TABLES},
    )


def model_of(telco, run_id):
    client_of(telco.work)
    return mlflow.pyfunc.load_model(f"runs:/{run_id}/model")


def reference_of(telco, run_id):
    client_of(telco.work)
    return mlflow.artifacts.load_dict(f"runs:/{run_id}/reference.json")


def of_days(telco, table, *days):
    rows = telco.tables[table]
    return rows[rows["batch_id"].isin(days)].sort_values("message_id", ignore_index=True)


def as_generated(rows):
    """Rows of a table as `towers` makes them: Iceberg keeps the time without its zone's name."""
    return rows.assign(
        reported_at=pd.to_datetime(rows["reported_at"], utc=True).astype("datetime64[ns, UTC]")
    )


def equal(found, expected):
    pd.testing.assert_frame_equal(as_generated(found), as_generated(expected))


class TestData:
    def test_the_history_is_five_days_with_their_truth(self, telco):
        story = towers.Story()
        expected = towers.with_failures(story, towers.messages(story, range(1, 6)))
        equal(of_days(telco, "telco_cell_towers", *range(1, 6)), expected)

    def test_the_tables_say_who_made_them_and_how_the_story_goes_on(self, telco):
        for name in TABLES:
            table = table_in(telco.work, name)
            assert table.properties["made_by"] == "code/telco/00_datagen.py"
            if name != "telco_cell_towers":
                assert table.snapshots()[0].summary["total-records"] == "0"
        told = table_in(telco.work, "telco_cell_towers").properties
        assert (told["telco.seed"], told["telco.rows-per-day"]) == ("42", "1440")

    def test_what_feeds_the_endpoint_holds_no_label(self, telco):
        for name in ("telco_messages", "telco_predictions"):
            assert LABEL not in telco.tables[name].columns

    def test_the_printed_ceiling_is_that_of_the_true_probability(self, telco):
        rows = of_days(telco, "telco_cell_towers", *range(1, 6))
        best = towers.ceiling(towers.Story(), rows)
        printed = telco.said["00"]
        assert (
            f"{best['failure_share']:.1%} of 7200 messages announce a failure\n"
            f"ceiling: roc_auc {best['roc_auc']:.3f}, log loss {best['log_loss']:.3f}, "
            f"net revenue {best['net_per_message']:.2f} per message\n"
            f"no truck ever: {best['net_never']:.2f}; one to each: {best['net_always']:.2f}\n"
        ) in printed
        alone = dict(re.findall(r"^  (\w+) +alone: roc_auc (\S+)$", printed, re.MULTILINE))
        assert list(alone) == FEATURES
        for name, value in alone.items():
            either_way = scores.roc_auc(rows[LABEL], rows[name])
            assert float(value) == pytest.approx(max(either_way, 1 - either_way), abs=6e-4)
            assert float(value) < 0.75


class TestDays:
    def test_each_day_is_there_once_and_is_what_the_story_tells(self, telco):
        equal(
            of_days(telco, "telco_messages", *range(6, 12)), towers.messages(FIRMWARE, range(6, 12))
        )
        assert sorted(set(telco.tables["telco_messages"]["batch_id"])) == list(range(6, 12))

    def test_the_truth_of_a_day_is_that_of_its_messages_and_comes_a_day_later(self, telco):
        rows = of_days(telco, "telco_cell_towers", *range(6, 12))
        assert sorted(set(rows["batch_id"])) == [6, 7, 8, 9, 10]  # day 11 is today
        messages = of_days(telco, "telco_messages", *range(6, 11))
        equal(rows, messages.assign(**{LABEL: towers.failures(FIRMWARE, messages)}))

    def test_a_new_day_repeats_nothing(self, telco):
        """The batch of the original repeated the one before."""
        values = [*FEATURES, "device_id", "event_type"]
        old = of_days(telco, "telco_cell_towers", *range(1, 6))
        for day in range(6, 12):
            new = of_days(telco, "telco_messages", day)
            assert new["message_id"].min() > old["message_id"].max()
            assert new["reported_at"].min() > old["reported_at"].max()
            assert new["message_id"].is_unique and len(new) == 1440
            last = old.tail(1440).reset_index(drop=True)
            assert (new[values] == last[values]).all(axis=1).mean() < 0.01
            assert len(new.merge(last[values], on=values)) < 0.05 * len(new)  # in any order
            old = pd.concat([old, new])

    def test_a_day_that_is_there_adds_nothing(self, telco):
        before, after = telco.counts["03, the next day"], telco.counts["03, a day that is there"]
        assert after == before
        assert "Done: day 7 is there already\n" in telco.said["03, a day that is there"]

    def test_a_day_cannot_be_skipped(self, telco):
        assert telco.counts["03, a day too far"] == telco.counts["03, the next day"]
        assert (
            "Day 9 cannot come after day 7.\nExpected: day 8, the next one.\n"
            in (telco.said["03, a day too far"])
        )

    def test_each_commit_is_an_append_that_says_which_day_it_is(self, telco):
        for table, days in (("telco_messages", range(6, 12)), ("telco_cell_towers", range(6, 11))):
            _, *commits = table_in(telco.work, table).snapshots()
            assert [one.summary["telco-batch"] for one in commits] == [str(day) for day in days]
            assert {one.summary.operation.value for one in commits} == {"append"}
            assert {one.summary["added-records"] for one in commits} == {"1440"}
        _, *commits = table_in(telco.work, "telco_messages").snapshots()
        drifts = {(one.summary["telco-drift"], one.summary["telco-drift-from"]) for one in commits}
        assert drifts == {("firmware", "8")}


def rows_of_run(telco, run):
    """The rows that a run was trained on, by its tags, read without Spark."""
    table, tags = table_in(telco.work, "telco_cell_towers"), run.data.tags
    rows = table.scan(snapshot_id=int(tags["iceberg_snapshot_id"])).to_pandas()
    start = tags.get("iceberg_start_snapshot_id")
    if start:
        old = table.scan(snapshot_id=int(start)).to_pandas()["message_id"]
        rows = rows[~rows["message_id"].isin(old)]
    return rows.sort_values("message_id", ignore_index=True)


@pytest.fixture(params=["model", "refused", "promoted"])
def run(request, telco):
    return getattr(telco, request.param)


class TestTraining:
    def test_scores_are_metrics_beside_their_baseline(self, telco, run):
        rows = rows_of_run(telco, run)
        train, test = rows[rows["message_id"] % 5 != 0], rows[rows["message_id"] % 5 == 0]
        model, share = model_of(telco, run.info.run_id), train[LABEL].mean()
        threshold, _ = scores.best_threshold(train[LABEL], model.predict(train[FEATURES]))
        expected = scores.of(test[LABEL], model.predict(test[FEATURES]), threshold) | {
            "baseline_roc_auc": 0.5,
            "baseline_average_precision": test[LABEL].mean(),
            "baseline_log_loss": scores.log_loss(test[LABEL], np.full(len(test), share)),
            "train_failure_share": share,
        }
        logged = dict(run.data.metrics)
        logged.pop("out_of_fold_roc_auc")
        assert logged == pytest.approx(expected)

    def test_out_of_fold_each_message_is_answered_by_a_model_that_never_saw_it(self, telco):
        code, rows = {}, rows_of_run(telco, telco.refused)
        exec(CODE_OF_TRAINING, code)
        found = np.empty(len(rows))
        for fold in range(5):
            here = rows["message_id"] % 5 == fold
            model = code["fit"](rows[~here], telco.refused.data.params)
            found[here] = code["probability"](model, rows[here])
        logged = telco.refused.data.metrics["out_of_fold_roc_auc"]
        assert logged == pytest.approx(scores.roc_auc(rows[LABEL], found))

    def test_it_learns_but_knows_no_more_than_the_truth_does(self, telco, run):
        """With a leak, as in the original, a model knows more than the true probability."""
        rows = rows_of_run(telco, run)
        best = towers.ceiling(FIRMWARE, rows)
        logged = run.data.metrics
        assert 0.75 < logged["out_of_fold_roc_auc"] < best["roc_auc"]
        assert logged["log_loss"] < logged["baseline_log_loss"]
        assert logged["net_per_message"] > max(logged["net_never"], logged["net_always"])

    def test_params_are_settings_only(self, run):
        assert run.data.params == {
            "n_estimators": "60",
            "max_depth": "3",
            "max_leaves": "0",
            "learning_rate": "0.15",
            "tree_method": "hist",
            "n_jobs": "1",
            "random_state": "42",
        }

    def test_the_model_answers_the_probability_of_its_booster(self, telco, run):
        client_of(telco.work)
        uri = f"runs:/{run.info.run_id}/model"
        rows = rows_of_run(telco, run)
        code = {}
        exec(CODE_OF_TRAINING, code)
        booster = code["fit"](rows[rows["message_id"] % 5 != 0], run.data.params)
        own = code["probability"](booster, rows)
        assert np.array_equal(model_of(telco, run.info.run_id).predict(rows[FEATURES]), own)
        assert np.array_equal(code["probability"](mlflow.xgboost.load_model(uri), rows), own)
        assert len(np.unique(own)) > 100
        signature = mlflow.models.get_model_info(uri).signature
        assert signature.inputs.input_names() == FEATURES
        assert {str(kind) for kind in signature.inputs.input_types()} == {"DataType.double"}

    def test_tags_and_dataset_name_the_rows(self, telco, run):
        table, tags = table_in(telco.work, "telco_cell_towers"), run.data.tags
        snapshot = table.snapshot_by_id(int(tags["iceberg_snapshot_id"]))
        parent = snapshot.parent_snapshot_id
        start = tags.get("iceberg_start_snapshot_id")
        assert tags["training_table"] == f"{NAMESPACE}.telco_cell_towers"
        assert tags["iceberg_parent_id"] == str(parent or "none")
        assert start == (None if run is telco.model else str(parent))
        (used,) = run.inputs.dataset_inputs
        assert used.dataset.digest.partition("-")[0] == tags["iceberg_snapshot_id"]
        assert json.loads(used.dataset.source).get("start_snapshot_id") == start
        rows = rows_of_run(telco, run)
        assert json.loads(used.dataset.profile) == {"num_rows": len(rows)}
        assert tags["row_count"] == str(len(rows)) == snapshot.summary["added-records"]
        assert tags["batch_id"] == str(rows["batch_id"].max())
        assert {tag.key: tag.value for tag in used.tags} == {"mlflow.data.context": "training"}

    def test_the_code_that_trained_is_logged(self, telco, run):
        client_of(telco.work)
        logged = mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/training.py")
        assert logged == CODE_OF_TRAINING
        digest = hashlib.sha256(logged.encode()).hexdigest()
        assert digest.startswith(run.data.tags["training_code"])

    def test_the_reference_is_that_of_the_training_rows(self, telco, run):
        rows = rows_of_run(telco, run)
        train = rows[rows["message_id"] % 5 != 0]
        reference = reference_of(telco, run.info.run_id)
        metrics = run.data.metrics
        assert reference == drift.reference(
            train,
            FEATURES,
            metrics["train_failure_share"],
            metrics["out_of_fold_roc_auc"],
            metrics["threshold"],
        )
        for one in reference["features"].values():
            assert sum(one["counts"]) == reference["rows"] == len(train)

    @pytest.mark.parametrize("again", ["01", "04"])
    def test_a_second_run_on_the_same_rows_adds_nothing(self, telco, again):
        assert telco.counts[f"{again} again"] == telco.counts[again]
        assert " is there already" in telco.said[f"{again} again"]

    def test_the_challengers_are_of_one_day_each(self, telco):
        assert set(telco.runs) == {"5", "6", "8", "10"}
        for day in ("6", "8"):
            rows = rows_of_run(telco, telco.runs[day])
            assert set(rows["batch_id"]) == {int(day)}
            assert telco.runs[day].data.tags["trained_by"] == "code/telco/04_train_xgboost.py"
        assert telco.refused.data.tags["reason"] == "You asked for it."
        assert telco.promoted.data.tags["reason"].startswith("retrain: The roc_auc of day 8 is ")

    def test_all_rows_are_those_of_the_whole_snapshot(self, telco):
        tags = telco.all_rows.data.tags
        assert tags["row_count"] == "14400" and "iceberg_start_snapshot_id" not in tags
        (used,) = telco.all_rows.inputs.dataset_inputs
        assert used.dataset.digest == tags["iceberg_snapshot_id"]
        assert json.loads(used.dataset.profile) == {"num_rows": 14400}
        assert reference_of(telco, telco.all_rows.info.run_id)["rows"] == 14400 * 4 / 5

    def test_without_a_reason_nothing_is_trained_and_that_is_a_success(self, telco):
        assert telco.counts["04 without a reason"] == telco.counts["07 again"]
        assert "\nDone: nothing to train, keep: " in telco.said["04 without a reason"]

    @pytest.mark.parametrize("which", ["model", "promoted"])
    def test_lesson_08_repeats_it_to_the_last_bit(self, telco, warm, which):
        run_id = getattr(telco, which).info.run_id
        printed = warm.succeed("08_Reproduce_Run.py", telco.work, "--run-id", run_id)
        assert "\nVerdict: identical" in printed
        tags = client_of(telco.work).get_run(run_id).data.tags
        assert tags["reproduction_verdict"].startswith("identical")


def versions_of(telco):
    found = client_of(telco.work).search_model_versions()
    return {int(one.version): one for one in found if one.name == MODEL}


class TestEndpoint:
    def test_the_version_that_serves_is_of_the_run_of_01(self, telco):
        run_id = telco.model.info.run_id
        assert telco.first["run_id"] == versions_of(telco)[1].run_id == run_id
        assert (telco.first["model"], telco.first["version"]) == (MODEL, 1)
        assert (
            f"Proof 1: the registry says version 1 of '{MODEL}' (run {run_id})\n"
            in (telco.said["02"])
        )

    def test_a_second_run_deploys_nothing_new_and_no_run_that_nobody_judged(self, telco):
        """By then there is a newer run, of 04."""
        assert telco.counts["02 again"] == telco.counts["04 again"]
        assert telco.states["before"][2] == telco.first
        assert f"{MODEL} served already: version 1 " in telco.said["02 again"]

    def test_the_printed_request_is_answered_by_the_models_own_probability(self, telco):
        request = re.search(r"A request that it understands: (.*)", telco.said["02 after a kill"])
        split = json.loads(request[1])["dataframe_split"]
        rows = pd.DataFrame(split["data"], columns=split["columns"])
        port = served(telco.work)["port"]
        header = {"Content-Type": "application/json"}
        status, answer = ask(port, "/invocations", "POST", request[1], **header)
        (probability,) = json.loads(answer)["predictions"]
        assert status == 200
        assert probability == model_of(telco, telco.promoted.info.run_id).predict(rows)[0]

    def test_after_a_kill_the_promoted_run_serves_again_and_not_the_first(self, telco):
        now = served(telco.work)
        assert (now["run_id"], now["version"]) == (telco.promoted.info.run_id, 2)
        assert now["pid"] != telco.last["pid"] and now["port"] == telco.last["port"]
        assert telco.counts["02 after a kill"] == telco.counts["09"]


class TestGate:
    def test_a_dry_run_judges_and_changes_nothing_at_all(self, telco):
        assert telco.states["dry-run"] == telco.states["before"]
        assert telco.counts["05 dry-run"] == telco.counts["02 again"]
        printed = telco.said["05 dry-run"]
        assert (
            re.search(r"^Verdict: keep, .*", printed, re.MULTILINE)[0].partition(": ")[2]
            in (
                re.search(r"^Done: (.*) \(dry-run: nothing was changed\)$", printed, re.MULTILINE)[
                    1
                ]
            )
        )

    def test_a_challenger_that_loses_leaves_the_endpoint_and_the_registry(self, telco):
        assert telco.states["05"][2] == telco.states["before"][2]
        assert telco.counts["05"].versions == 1
        tags = telco.refused.data.tags
        assert tags["gate.decision"] == "keep" and "so the champion stays" in tags["gate.reason"]

    def test_what_was_judged_is_not_judged_again(self, telco):
        assert telco.states["05 again"] == telco.states["05"]
        assert "Done: nothing to judge\n" in telco.said["05 again"]

    def judged(self, telco, run):
        """What the gate must say, from the tables and the models."""
        rows = rows_of_run(telco, run)
        test = rows[rows["message_id"] % 5 == 0]
        pair = (telco.model.info.run_id, run.info.run_id)
        answers = [
            np.asarray(model_of(telco, one).predict(test[FEATURES]), "float64") for one in pair
        ]
        champion, challenger = (reference_of(telco, one) for one in pair)
        return (
            test,
            answers,
            promotion.judge(
                test[LABEL].to_numpy(),
                *answers,
                test["manufacturer"].to_numpy(),
                challenger["failure_share"],
                (champion["threshold"], challenger["threshold"]),
                THRESHOLDS,
            ),
        )

    @pytest.mark.parametrize(("which", "day"), [("refused", 6), ("promoted", 8)])
    def test_the_verdict_is_that_of_both_models_on_the_test_messages(self, telco, which, day):
        run = getattr(telco, which)
        test, answers, verdict = self.judged(telco, run)
        tags = run.data.tags
        assert tags["gate.decision"] == verdict.decision
        assert verdict.decision == ("promote" if which == "promoted" else "keep")
        assert tags["gate.reason"] == verdict.reason and tags["gate.mode"] == "on"
        for name, value in verdict.numbers.items():
            assert float(tags[f"gate.{name}"]) == value
        assert tags["gate.against_run"] == telco.model.info.run_id
        assert tags["gate.against_version"] == "1"
        rows = telco.tables["telco_monitoring"]
        (row,) = rows[(rows["kind"] == "verdict") & (rows["batch_id"] == day)].itertuples()
        assert (row.feature, row.value) == ("on", float(which == "promoted"))
        assert (row.rows, row.run_id) == (len(test), run.info.run_id)
        client_of(telco.work)
        kept = mlflow.artifacts.load_dict(f"runs:/{run.info.run_id}/gate.json")
        assert kept["messages"] == len(test) == 288
        for side, one in zip(("champion", "challenger"), answers, strict=True):
            counts = scores.counts(test[LABEL].to_numpy(), one)
            assert kept[side]["counts"] == counts[["tn", "fp", "fn", "tp"]].to_dict("list")
            assert kept[side]["roc_auc"] == verdict.numbers[f"{side}_roc_auc"]

    def test_the_champions_run_says_who_challenged_it_last_and_how_it_ended(self, telco):
        tags = telco.model.data.tags
        assert tags["challenged_by"] == telco.promoted.info.run_id
        reason = telco.promoted.data.tags["gate.reason"]
        assert tags["challenge"] == f"promote: {reason}"

    def test_the_winner_has_the_next_version_the_alias_and_the_endpoint(self, telco):
        run_id, found = telco.promoted.info.run_id, versions_of(telco)
        assert {number: one.run_id for number, one in found.items()} == {
            1: telco.model.info.run_id,
            2: run_id,
        }
        champion = client_of(telco.work).get_model_version_by_alias(MODEL, "champion")
        assert champion.run_id == run_id
        assert found[2].description == telco.promoted.data.tags["gate.reason"]
        assert (telco.last["run_id"], telco.last["version"]) == (run_id, 2)
        assert telco.last["port"] == telco.first["port"]
        aliases = {
            run.info.run_id: run.data.tags.get("registered_alias") for run in telco.runs.values()
        }
        assert aliases == {
            run_id: "champion",
            telco.model.info.run_id: None,
            telco.refused.info.run_id: None,
            telco.all_rows.info.run_id: None,
        }

    def test_the_row_of_the_verdict_is_the_last_that_is_written(self, telco):
        """With it, 07 and 04 know that the challenger was judged: all else must be done by then."""
        (row,) = (
            one
            for one in table_in(telco.work, "telco_monitoring").snapshots()
            if one.summary.get("telco-verdict") == telco.promoted.info.run_id
        )
        assert versions_of(telco)[2].last_updated_timestamp <= row.timestamp_ms
        assert 1000 * (telco.last["ends"] - 8 * 3600) <= row.timestamp_ms


class TestAnswers:
    def test_every_message_is_answered_once_as_it_is(self, telco):
        sent = of_days(telco, "telco_predictions", *range(6, 12))
        assert sent["message_id"].is_unique
        messages = of_days(telco, "telco_messages", *range(6, 12))
        columns = ["message_id", "batch_id", *FEATURES]
        pd.testing.assert_frame_equal(sent[columns], messages[columns])

    def test_each_row_says_which_run_and_version_answered(self, telco):
        """The challenger took over at the end of day 9."""
        sent = telco.tables["telco_predictions"]
        found = set(sent[["batch_id", "version", "run_id"]].itertuples(index=False, name=None))
        first, second = telco.model.info.run_id, telco.promoted.info.run_id
        assert found == {(day, 1, first) for day in (6, 7, 8, 9)} | {
            (day, 2, second) for day in (10, 11)
        }

    def test_the_answers_are_those_of_that_runs_own_model(self, telco):
        for run_id, rows in telco.tables["telco_predictions"].groupby("run_id"):
            own = model_of(telco, run_id).predict(rows[FEATURES])
            assert np.array_equal(rows["probability"].astype("float32"), own)

    def test_a_day_is_a_commit_and_a_second_run_makes_none(self, telco):
        _, *commits = table_in(telco.work, "telco_predictions").snapshots()
        assert [one.summary["telco-batch"] for one in commits] == [str(day) for day in range(6, 12)]
        assert telco.counts["06 again"] == telco.counts["06"]
        assert "Done: 0 messages answered\n" in telco.said["06 again"]

    def test_the_time_is_what_the_sender_waited_in_milliseconds(self, telco):
        sent = telco.tables["telco_predictions"]
        assert (sent["latency_ms"] > 0).all()
        median = sent.loc[sent["batch_id"].isin((6, 7)), "latency_ms"].median()
        assert f", half of them within {median:.1f} ms, " in telco.said["06"]
        # Two connections at a time: together they waited at most twice as long as the day took.
        for _, rows in sent.groupby("batch_id"):
            requests = rows.drop_duplicates("requested_at").sort_values("requested_at")
            took = (requests["requested_at"].max() - requests["requested_at"].min()).total_seconds()
            waited = requests["latency_ms"].iloc[:-2].sum() / 1000
            assert waited <= 2 * took + requests["latency_ms"].max() / 1000
            assert waited > took / 50  # and spent no fifty times as long on anything else


def measured(telco):
    rows = telco.tables["telco_monitoring"]
    return rows[~rows["kind"].isin(("decision", "verdict"))]


def in_order(rows):
    return rows.sort_values(drift.KEY, ignore_index=True)[drift.COLUMNS]


class TestMonitoring:
    def test_the_windows_are_measured_against_the_reference_of_the_run_that_answered(self, telco):
        expected = [
            drift.measure(reference_of(telco, run_id), drift.in_windows(rows), THRESHOLDS)
            for (_, run_id), rows in telco.tables["telco_predictions"].groupby(
                ["batch_id", "run_id"]
            )
        ]
        found = measured(telco)
        pd.testing.assert_frame_equal(
            in_order(found[found["window"] > 0]), in_order(pd.concat(expected)), rtol=1e-12
        )

    def test_the_scores_are_those_of_the_truth_of_each_message(self, telco):
        truth = telco.tables["telco_cell_towers"][["message_id", LABEL]]
        known = telco.tables["telco_predictions"].merge(truth, on="message_id")
        expected = [
            drift.performance(reference_of(telco, run_id), rows, LABEL)
            for (_, run_id), rows in known.groupby(["batch_id", "run_id"])
        ]
        found = measured(telco)
        found = found[found["window"] == 0]
        assert set(found["batch_id"]) == {6, 7, 8, 9, 10}
        pd.testing.assert_frame_equal(in_order(found), in_order(pd.concat(expected)), rtol=1e-12)

    def test_the_decisions_are_those_of_the_table_as_it_was_that_day(self, telco):
        rows = telco.tables["telco_monitoring"]
        decisions = rows[rows["kind"] == "decision"].set_index("batch_id")["feature"].to_dict()
        assert decisions == {7: "keep", 8: "wait", 9: "retrain", 10: "keep", 11: "keep"}
        table = table_in(telco.work, "telco_monitoring")
        for snapshot in table.snapshots():
            day = snapshot.summary.get("telco-batch")
            if day:
                then = table.scan(snapshot_id=snapshot.snapshot_id).to_pandas()
                made = drift.decide(then, THRESHOLDS)
                assert (made.batch_id, made.action) == (int(day), decisions[int(day)])

    def test_drift_is_seen_at_once_and_its_damage_a_day_later(self, telco):
        rows = telco.tables["telco_monitoring"]
        worst = rows[rows["kind"] == "psi"].groupby(["batch_id", "feature"])["value"].min()
        assert worst[8, "iot_signal_4"] > 0.25  # in each of its windows
        assert worst[11, "iot_signal_4"] < 0.25  # against the reference of the new model
        roc_auc = rows[rows["kind"] == "roc_auc"].set_index("batch_id")["value"]
        assert roc_auc[[8, 9]].max() < roc_auc[[6, 7]].min() - 0.05  # a normal day varies by .013
        assert roc_auc[10] > roc_auc[9] + 0.05

    def test_a_second_run_measures_nothing_and_logs_no_run(self, telco):
        assert telco.counts["07 again"] == telco.counts["07"]
        assert f"\n0 new numbers in {NAMESPACE}.telco_monitoring\n" in telco.said["07 again"]
        assert re.search(r"^Run \w+ says it all already$", telco.said["07 again"], re.M)

    def test_each_number_of_a_day_is_a_metric_whose_step_is_the_day(self, telco):
        newest, *_ = runs_in(telco.work, "telco-monitoring")
        client, rows = client_of(telco.work), telco.tables["telco_monitoring"]
        for name in ("roc_auc", "accuracy", "log_loss", "reference_roc_auc"):
            history = client.get_metric_history(newest.info.run_id, name)
            expected = rows[rows["kind"] == name].set_index("batch_id")["value"].to_dict()
            assert {one.step: one.value for one in history} == expected
            assert len(history) == 5
        history = client.get_metric_history(newest.info.run_id, "psi_iot_signal_4")
        psi = rows[(rows["kind"] == "psi") & (rows["feature"] == "iot_signal_4")]
        expected = psi.groupby("batch_id")["value"].max().to_dict()
        assert {one.step: one.value for one in history} == expected

    def test_figures_and_page_are_logged(self, telco):
        newest, *_ = runs_in(telco.work, "telco-monitoring")
        assert files_of(telco.work, newest) == [
            "dashboard.json",
            "predicted_failures.png",
            "processing_time.png",
            "psi.png",
            "scores.png",
        ]
        client_of(telco.work)
        page = mlflow.artifacts.load_dict(f"runs:/{newest.info.run_id}/dashboard.json")
        run_id = telco.promoted.info.run_id
        threshold = reference_of(telco, run_id)["threshold"]
        assert page["served"] == {"run_id": run_id, "version": 2, "threshold": threshold}
        assert page["promotions"] == [{"day": 10, "run_id": run_id, "version": 2}]
        assert [day["day"] for day in page["days"]] == list(range(6, 12))
        truth = telco.tables["telco_cell_towers"][["message_id", LABEL]]
        known = telco.tables["telco_predictions"].merge(truth, on="message_id")
        for day in page["days"]:
            rows = known[known["batch_id"] == day["day"]]
            if day["day"] == 11:
                assert day["truth"] is None
                continue
            counts = scores.counts(rows[LABEL].to_numpy(), rows["probability"].to_numpy())
            assert day["truth"]["counts"] == counts[["tn", "fp", "fn", "tp"]].to_dict("list")
        challenge = page["challenge"]
        assert (challenge["day"], challenge["decision"], challenge["mode"]) == (8, "promote", "on")
        assert (challenge["champion"]["version"], challenge["challenger"]["version"]) == (1, 2)
        assert challenge["challenger"]["run_id"] == run_id

    def test_the_runs_say_what_was_decided_and_who_served(self, telco):
        """What served while 07 ran: on day 9 that was still the old one."""
        told = [
            (run.data.tags["day"], run.data.tags["decision"], run.data.tags["served_run"])
            for run in reversed(runs_in(telco.work, "telco-monitoring"))
        ]
        first, second = telco.model.info.run_id, telco.promoted.info.run_id
        assert told == [
            ("7", "keep", first),
            ("8", "wait", first),
            ("9", "retrain", first),
            ("10", "keep", second),
            ("11", "keep", second),
        ]


class TestLoop:
    def test_each_day_has_its_five_steps(self, telco):
        lines = telco.said["09"].splitlines()
        steps = [
            "New Batch",
            "Model Simulation",
            "Model Monitoring",
            "Retrain XGBoost",
            "API Redeployment",
        ]
        for day in range(1, 5):
            (at,) = (
                number for number, line in enumerate(lines) if line.startswith(f"Day {day} of 4, ")
            )
            told = [re.match(r"  (\w+ \w+) +succeeded (.+)$", line) for line in lines[at + 1 :][:5]]
            assert [one[1] for one in told] == steps
            assert told[0][2].endswith(f"the messages of day {day + 7}")
            assert told[1][2].startswith("1440 messages answered")

    def test_its_last_table_is_that_of_the_monitoring(self, telco):
        rows = telco.tables["telco_monitoring"]
        roc_auc = rows[rows["kind"] == "roc_auc"].set_index("batch_id")["value"]
        decisions = rows[rows["kind"] == "decision"].set_index("batch_id")["feature"]
        found = re.findall(
            r"^ +(\d+) +(\d) +([\d.]+|not yet known) *(\w*)$", telco.said["09"], re.MULTILINE
        )
        assert found == [
            (
                str(day),
                "1" if day < 10 else "2",
                f"{roc_auc[day]:.3f}" if day in roc_auc.index else "not yet known",
                decisions.get(day, ""),
            )
            for day in range(6, 12)
        ]
        assert (
            "\nDone: 4 days (wait, retrain, keep, keep); version 2 serves "
            f"(run {telco.promoted.info.run_id})\n"
        ) in telco.said["09"]
