import json
import re
import signal
import sqlite3
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import mlflow
import numpy as np
import pandas as pd
import pytest
from conftest import (
    CODE,
    STANDINS,
    client_of,
    files_of,
    run_script,
    runs_in,
    start_script,
    stop_in_the_middle,
    succeed,
    table_in,
    wait_until,
)

SCRIPT = "06_Spark_Iceberg.py"
EXPERIMENT = "sparkml-experiment"
NAMES = ("experiment-1", "experiment-2", "experiment-3")
pytestmark = pytest.mark.spark


@pytest.fixture(scope="module")
def lesson(module_work, warm):
    """A whole pass, one that is interrupted, one that is killed, and a whole pass again."""
    work = module_work
    first_printed = succeed(SCRIPT, work)
    first_runs = runs_in(work, EXPERIMENT)
    stopped = []
    for sign in (signal.SIGINT, signal.SIGKILL):
        before = {run.info.run_id for run in runs_in(work, EXPERIMENT)}
        process = start_script(SCRIPT, work)

        def second_is_running(before=before):
            return any(
                run.info.run_name == "experiment-2"
                and run.info.status == "RUNNING"
                and run.info.run_id not in before
                for run in runs_in(work, EXPERIMENT)
            )

        wait_until(second_is_running, "experiment 2")
        stop_in_the_middle(process, sign)
        runs = runs_in(work, EXPERIMENT)
        stopped.append([run for run in runs if run.info.run_id not in before])
    before = {run.info.run_id for run in runs_in(work, EXPERIMENT)}
    printed = warm.succeed(SCRIPT, work)
    newest = [run for run in runs_in(work, EXPERIMENT) if run.info.run_id not in before]
    return SimpleNamespace(
        work=work,
        printed=printed,
        first_printed=first_printed,
        first=by_name(first_runs),
        interrupted=by_name(stopped[0]),
        killed=by_name(stopped[1]),
        second=by_name(newest),
        table=table_in(work, "training"),
    )


def by_name(runs):
    return {run.info.run_name: run for run in runs}


def snapshot_of(lesson, run):
    return lesson.table.snapshot_by_id(int(run.data.tags["iceberg_snapshot_id"]))


def test_a_pass_leaves_three_finished_runs(lesson):
    for runs in (lesson.first, lesson.second):
        assert sorted(runs) == list(NAMES)
        assert {run.info.status for run in runs.values()} == {"FINISHED"}


def test_params_are_those_of_the_lesson(lesson):
    expected = {
        "experiment-1": {"maxIter": "8", "regParam": "0.01"},
        "experiment-2": {"maxIter": "10", "regParam": "0.002"},
        "experiment-3": {"maxIter": "7", "regParam": "0.005"},
    }
    assert {name: run.data.params for name, run in lesson.second.items()} == expected


@pytest.mark.parametrize("name", NAMES)
def test_tags_are_the_facts_of_the_table_itself(lesson, name):
    tags = lesson.second[name].data.tags
    snapshot = snapshot_of(lesson, lesson.second[name])
    assert tags["training_table"] == "spark_catalog.default.training"
    assert tags["iceberg_catalog"] == (lesson.work / "spark-warehouse").as_uri()
    assert tags["iceberg_parent_id"] == str(snapshot.parent_snapshot_id or "none")
    assert tags["row_count"] == snapshot.summary["total-records"]
    committed = datetime.fromisoformat(tags["iceberg_snapshot_committed_at"])
    since_1970 = committed - datetime(1970, 1, 1, tzinfo=timezone.utc)
    assert since_1970 // timedelta(milliseconds=1) == snapshot.timestamp_ms
    assert committed.utcoffset() == timedelta(0)


def test_experiment_1_trains_on_four_rows_without_a_past(lesson):
    tags = lesson.second["experiment-1"].data.tags
    assert (tags["row_count"], tags["iceberg_parent_id"]) == ("4", "none")
    assert ids_in(lesson, lesson.second["experiment-1"]) == [0, 1, 2, 3]


def test_experiment_2_trains_on_four_new_rows_too(lesson):
    tags = lesson.second["experiment-2"].data.tags
    first_tags = lesson.second["experiment-1"].data.tags
    assert tags["iceberg_parent_id"] == first_tags["iceberg_snapshot_id"]
    assert tags["row_count"] == "8"
    assert ids_in(lesson, lesson.second["experiment-2"]) == list(range(8))


def test_experiment_3_trains_on_the_rows_of_experiment_1_again(lesson):
    first, third = lesson.second["experiment-1"].data.tags, lesson.second["experiment-3"].data.tags
    for tag in (
        "iceberg_snapshot_id",
        "iceberg_parent_id",
        "iceberg_snapshot_committed_at",
        "row_count",
    ):
        assert third[tag] == first[tag]


def ids_in(lesson, run):
    snapshot_id = int(run.data.tags["iceberg_snapshot_id"])
    return sorted(lesson.table.scan(snapshot_id=snapshot_id).to_pandas()["id"])


@pytest.mark.parametrize("name", NAMES)
def test_the_logged_model_has_the_params_of_its_run(lesson, name):
    run = lesson.second[name]
    (path,) = [
        path
        for path in files_of(lesson.work, run, "model")
        if "LogisticRegression" in path and "/metadata/part-" in path
    ]
    fitted = mlflow.artifacts.load_dict(f"runs:/{run.info.run_id}/{path}")["paramMap"]
    assert str(fitted["maxIter"]) == run.data.params["maxIter"]
    assert str(fitted["regParam"]) == run.data.params["regParam"]


def test_scores_stand_beside_a_baseline(lesson):
    for run in lesson.second.values():
        assert run.data.metrics["train_accuracy"] == 1.0
        assert run.data.metrics["baseline_accuracy"] == 0.5
        assert 0 < run.data.metrics["train_loss"] < 0.6931  # ln 2: the loss of "one half" always


def test_another_process_gets_the_same_metrics_to_the_last_bit(lesson):
    for name in NAMES:
        assert lesson.first[name].data.metrics == lesson.second[name].data.metrics


def test_the_loaded_model_scores_texts_it_has_not_seen(lesson):
    # Texts, labels and answers are those of Spark's own example "Pipeline".
    assert "'spark i j k': 0\n'l m n': 0\n'spark hadoop spark': 1\n'apache hadoop': 0" in (
        lesson.printed
    )


def test_it_prints_the_history_of_the_table_newest_first(lesson):
    ids = [str(snapshot.snapshot_id) for snapshot in lesson.table.snapshots()]
    history = lesson.printed.partition("The history of")[2].splitlines()
    printed = [line.split("|")[2].strip() for line in history if re.match(r"\|\d{4}-", line)]
    assert printed == ids[:-11:-1]


def test_the_history_is_in_utc_whatever_the_zone_of_the_session(work, warm):
    lesson = (CODE / SCRIPT).read_text(encoding="utf-8")
    start = "spark = start_spark(CONNECTION_NAME)\n"
    assert lesson.count(start) == 1
    zone = 'spark.conf.set("spark.sql.session.timeZone", "America/Los_Angeles")\n'
    edited = work / "edited.py"
    edited.write_text(lesson.replace(start, start + zone), encoding="utf-8")
    printed = warm.succeed(str(edited), work)
    for snapshot in table_in(work, "training").snapshots():
        committed = datetime.fromtimestamp(snapshot.timestamp_ms // 1000, timezone.utc)
        assert f"|{committed:%Y-%m-%d %H:%M:%S}|{snapshot.snapshot_id}" in printed


def test_each_run_has_its_snapshot_as_a_dataset(lesson):
    for run in lesson.second.values():
        (used,) = run.inputs.dataset_inputs
        assert used.dataset.name == "spark_catalog.default.training"
        assert used.dataset.digest == run.data.tags["iceberg_snapshot_id"]
        assert json.loads(used.dataset.profile) == {"num_rows": int(run.data.tags["row_count"])}
        schema = json.loads(used.dataset.schema)["mlflow_colspec"]
        assert [column["name"] for column in schema] == ["id", "text", "label"]


def test_the_snapshot_finds_the_models_that_were_trained_on_it(lesson):
    snapshot_id = lesson.second["experiment-1"].data.tags["iceberg_snapshot_id"]
    found = re.findall(
        rf"^trained on snapshot {snapshot_id}: (\S+), run (\w+)$", lesson.printed, re.M
    )
    assert found == [
        (name, lesson.second[name].info.run_id) for name in ("experiment-1", "experiment-3")
    ]


def stored_weights(lesson, run):
    """The intercept and the weights in the files of a model."""
    (path,) = [
        path
        for path in files_of(lesson.work, run, "model")
        if "LogisticRegression" in path and "/data/part-" in path
    ]
    file = mlflow.artifacts.download_artifacts(f"runs:/{run.info.run_id}/{path}")
    (stored,) = pd.read_parquet(file).to_dict("records")
    return stored["interceptVector"]["values"][0], stored["coefficientMatrix"]["values"]


def test_the_printed_weights_explain_the_predictions(lesson):
    """They are those of the stored model, and their sums have the signs of the four answers."""
    intercept, weights = stored_weights(lesson, lesson.second["experiment-3"])
    found = re.search(
        r"^intercept (\S+), weights {'spark': '(\S+)', 'hadoop': '(\S+)'}$", lesson.printed, re.M
    )
    start, spark, hadoop = map(float, found.groups())
    assert (start, spark) == (round(intercept, 1), round(max(weights), 1)) == (-3.2, 2.8)
    assert hadoop in np.round(weights, 1)
    sums = [start + spark, start, start + 2 * spark + hadoop, start + hadoop]
    assert [int(total > 0) for total in sums] == [0, 0, 1, 0]


def test_no_two_words_of_the_lesson_share_a_place_among_the_features(lesson):
    """Else they would have one weight together: all 21 have their own, and none is zero."""
    run = lesson.second["experiment-2"]
    _, weights = stored_weights(lesson, run)
    texts = lesson.table.scan(snapshot_id=int(run.data.tags["iceberg_snapshot_id"])).to_pandas()
    words = set(" ".join(texts["text"]).split())
    assert len(words) == 21 == np.count_nonzero(weights)


def test_a_store_that_refuses_datasets_is_told_in_one_line_and_the_tags_carry_the_facts(work, warm):
    """As a managed store may: here the database itself refuses each input."""
    with sqlite3.connect(work / "mlflow.db") as store:
        store.execute(
            "CREATE TRIGGER no_inputs BEFORE INSERT ON inputs "
            "BEGIN SELECT RAISE(ABORT, 'this store has no inputs'); END"
        )
    store.close()
    printed = warm.succeed(SCRIPT, work)
    assert printed.count("No dataset: this store refused it") == 3
    for run in runs_in(work, EXPERIMENT):
        assert run.inputs.dataset_inputs == []
        assert run.info.status == "FINISHED"
    runs = by_name(runs_in(work, EXPERIMENT))
    snapshot_id = runs["experiment-1"].data.tags["iceberg_snapshot_id"]
    for name in ("experiment-1", "experiment-3"):  # found by their tags
        line = f"trained on snapshot {snapshot_id}: {name}, run {runs[name].info.run_id}\n"
        assert line in printed


def test_a_table_that_is_somebody_elses_is_not_replaced(work, warm):
    """Nor is it touched after the reader has edited TABLE, as the lesson tells them."""
    warm.python(
        "from cmlflow.spark import start_spark\n"
        "spark = start_spark('any')\n"
        "spark.range(3).writeTo('spark_catalog.default.training').using('iceberg').create()\n",
        work,
    )
    before = table_in(work, "training").metadata
    done = warm.run_script(SCRIPT, work)
    assert done.returncode != 0
    assert "TableTaken" in done.stderr
    assert runs_in(work, EXPERIMENT) == []
    lesson = (CODE / SCRIPT).read_text(encoding="utf-8")
    assert lesson.count("spark_catalog.default.training") == 2  # the docstring, and TABLE
    edited = work / "edited.py"
    edited.write_text(lesson.replace("default.training", "mine.texts"), encoding="utf-8")
    printed = warm.succeed(str(edited), work)
    assert table_in(work, "training").metadata == before
    own = [str(one.snapshot_id) for one in table_in(work, "../mine/texts").snapshots()]
    history = printed.partition("The history of spark_catalog.mine.texts")[2]
    assert len(own) == 2 and all(snapshot_id in history for snapshot_id in own)
    assert {run.data.tags["training_table"] for run in runs_in(work, EXPERIMENT)} == {
        "spark_catalog.mine.texts"
    }


@pytest.mark.parametrize(
    ("ours", "runs"),
    [
        ("spark.createDataFrame(new_rows, COLUMNS).writeTo(TABLE).append()\n", ["experiment-1"]),
        ("first_snapshot = snapshots.just_written(spark, TABLE, made_by=LESSON)\n", []),
    ],
    ids=["between the lesson's two writes", "after its first"],
)
def test_a_write_by_somebody_else_in_between_is_noticed(work, warm, ours, runs):
    """The lesson, with one more write at this place: by another program, Iceberg's Java library."""
    lesson = (CODE / SCRIPT).read_text(encoding="utf-8")
    assert lesson.count(ours) == 1
    theirs = (
        "iceberg = spark._jvm.org.apache.iceberg\n"
        "shared = iceberg.spark.Spark3Util.loadIcebergTable(spark._jsparkSession, TABLE)\n"
        "everything = iceberg.expressions.Expressions.alwaysTrue()\n"
        "shared.newDelete().deleteFromRowFilter(everything).commit()\n"
    )
    edited = work / "edited.py"
    edited.write_text(lesson.replace(ours, theirs + ours), encoding="utf-8")
    done = warm.run_script(str(edited), work)
    assert "Somebody else wrote to spark_catalog.default.training: its snapshot" in done.stderr
    assert [run.info.run_name for run in runs_in(work, EXPERIMENT)] == runs


def test_a_rerun_takes_the_first_snapshot_of_its_own_pass(lesson):
    ids = [
        runs["experiment-3"].data.tags["iceberg_snapshot_id"]
        for runs in (lesson.first, lesson.second)
    ]
    assert ids[0] != ids[1]
    without_parent = [
        str(snapshot.snapshot_id)
        for snapshot in lesson.table.snapshots()
        if snapshot.parent_snapshot_id is None
    ]
    assert without_parent[0] == ids[0] and without_parent[-1] == ids[1]
    assert len(without_parent) == 4  # one for each pass: a null parent does not name one


def test_an_interrupted_run_is_marked_failed(lesson):
    assert lesson.interrupted["experiment-1"].info.status == "FINISHED"
    assert lesson.interrupted["experiment-2"].info.status == "FAILED"
    assert "experiment-3" not in lesson.interrupted
    assert "experiment-3" not in lesson.killed


def test_what_was_stored_before_the_interrupt_and_the_kill_is_still_there(lesson):
    stored = {run.info.run_id: run for run in runs_in(lesson.work, EXPERIMENT)}
    for before in lesson.first.values():
        after = stored[before.info.run_id]
        assert (after.info.status, after.data.tags) == ("FINISHED", before.data.tags)
        assert after.data.metrics == before.data.metrics
        assert "model/MLmodel" in files_of(lesson.work, after, "model")
    assert ids_in(lesson, lesson.first["experiment-1"]) == [0, 1, 2, 3]
    assert ids_in(lesson, lesson.first["experiment-2"]) == list(range(8))


def test_it_leaves_nothing_in_the_folder_for_spark(lesson):
    assert [path for path in (lesson.work / "spark-tmp").rglob("*") if path.is_file()] == []


def test_without_spark_it_says_what_to_install_and_writes_nothing(work):
    done = run_script(SCRIPT, work, PYTHONPATH=str(STANDINS / "no_pyspark"))
    assert done.returncode != 0
    assert "pyspark is not installed" in done.stderr
    assert "run:  pip install -r requirements-local.txt" in done.stderr
    assert client_of(work).get_experiment_by_name(EXPERIMENT) is None
