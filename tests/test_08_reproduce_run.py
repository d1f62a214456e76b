import sqlite3
from types import SimpleNamespace

import mlflow
import numpy as np
import pytest
from conftest import client_of, files_of, run_script, runs_in, succeed, table_in

SCRIPT = "08_Reproduce_Run.py"
EXPERIMENT = "reproductions"
pytestmark = pytest.mark.spark


@pytest.fixture(scope="module")
def area(module_work):
    """One model of each kind, each on a snapshot that is no longer the table's current one."""
    succeed("06_Spark_Iceberg.py", module_work)
    succeed("00_datagen.py", module_work, "--rows", "3000")
    succeed("14_XGBoost_Iceberg.py", module_work)
    succeed("00_datagen.py", module_work, "--rows", "3000", "--append")
    succeed("07_Keep_Snapshot.py", module_work)  # it expires all it can of its own table
    run = {
        run.info.run_name: run
        for name in ("sparkml-experiment", "xgboost-fraud", "keep-snapshot")
        for run in runs_in(module_work, name)
    }
    return SimpleNamespace(work=module_work, run=run)


def reproduce(work, *arguments, succeeds=True, **options):
    """Run the lesson; return its process and the run that it made, or None."""
    before = {run.info.run_id for run in runs_in(work, EXPERIMENT)}
    done = run_script(SCRIPT, work, *arguments, **options)
    assert (done.returncode == 0) == succeeds, done.stdout[-2000:] + done.stderr[-2000:]
    made = [run for run in runs_in(work, EXPERIMENT) if run.info.run_id not in before]
    return done, (made[0] if made else None)


def tags_of(area, run):
    return client_of(area.work).get_run(run.info.run_id).data.tags


def values_of(area, run, name):
    history = client_of(area.work).get_metric_history(run.info.run_id, name)
    return [metric.value for metric in sorted(history, key=lambda metric: metric.step)]


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("experiment-1", ("taskset", "--cpu-list", "0")),  # on one core, whatever there is
        ("experiment-2", ()),
        ("one-machine", ("taskset", "--cpu-list", "0")),
        ("forest", ()),
    ],
)
def test_each_kind_of_model_is_repeated_to_the_last_bit(area, name, prefix):
    original = area.run[name]
    done, again = reproduce(area.work, "--run-id", original.info.run_id, prefix=prefix)
    assert again.info.status == "FINISHED"
    assert again.data.metrics == original.data.metrics
    assert again.data.params == original.data.params
    for metric in original.data.metrics:
        assert values_of(area, again, metric) == values_of(area, original, metric)
    tags = tags_of(area, original)
    assert again.data.tags["reproduction_of"] == original.info.run_id
    assert tags["reproduction_run"] == again.info.run_id
    assert tags["reproduction_verdict"] == again.data.tags["reproduction_verdict"] == "identical"
    for tag in ("training_table", "iceberg_snapshot_id", "row_count"):
        assert again.data.tags[tag] == original.data.tags[tag]
    (used,) = again.inputs.dataset_inputs
    assert used.dataset.digest == original.data.tags["iceberg_snapshot_id"]
    comparison = mlflow.artifacts.load_dict(f"runs:/{again.info.run_id}/comparison.json")
    rows = {row[0]: row[1:] for row in comparison["data"]}
    assert set(rows) == {"rows", "predictions", *original.data.metrics}
    assert {row[-1] for row in rows.values()} == {"True"}
    assert rows["predictions"][0] == original.data.tags["row_count"]
    assert "Done: identical" in done.stdout


def test_by_default_it_takes_the_newest_model_that_was_trained_on_a_snapshot(area):
    """Of three: the forest is older, and what 05 registers is newer, but knows no snapshot."""
    client_of(area.work)
    run_id = area.run["experiment-1"].info.run_id
    mlflow.register_model(f"runs:/{run_id}/model", "words")
    succeed("05_Auto_Model_Registration.py", area.work)
    done, again = reproduce(area.work)
    assert again.data.tags["reproduction_of"] == run_id
    assert "Version 1 of the registered model words" in done.stdout


@pytest.mark.parametrize("chosen", [("--alias", "champion"), ("--version", "1")])
def test_a_registered_model_is_found_by_name_with_version_or_alias(area, chosen):
    client = client_of(area.work)
    name = "sparkml" + "".join(chosen).replace("-", "_")
    run_id = area.run["experiment-3"].info.run_id
    mlflow.register_model(f"runs:/{run_id}/model", name)
    client.set_registered_model_alias(name, "champion", "1")
    _, again = reproduce(area.work, "--model", name, *chosen)
    assert again.data.tags["reproduction_of"] == run_id


def test_without_datasets_the_tags_lead_to_the_rows(area):
    original = area.run["experiment-3"]
    with sqlite3.connect(area.work / "mlflow.db") as store:
        store.execute("DELETE FROM inputs WHERE destination_id = ?", (original.info.run_id,))
    store.close()
    assert client_of(area.work).get_run(original.info.run_id).inputs.dataset_inputs == []
    _, again = reproduce(area.work, "--run-id", original.info.run_id)
    assert again.data.tags["reproduction_verdict"] == "identical"


def requirements_of(area, run):
    """The file of the model's requirements, in the store itself."""
    for model in area.work.joinpath("mlartifacts").rglob("MLmodel"):
        if run.info.run_id in model.read_text(encoding="utf-8"):
            return model.with_name("requirements.txt")
    raise AssertionError(f"no model of run {run.info.run_id}")


def test_other_libraries_are_named_and_never_called_identical(area):
    original = area.run["experiment-2"]
    file = requirements_of(area, original)
    text = file.read_text()
    other = text.replace("pyspark==", "pyspark==9.")
    file.write_text(other + "\nno-such-library==1.0\nnumpy\n")
    try:
        done, again = reproduce(area.work, "--run-id", original.info.run_id)
    finally:
        file.write_text(text)
    verdict = again.data.tags["reproduction_verdict"]
    assert verdict.startswith("equal numbers, but other libraries: pyspark 9.")
    assert "no-such-library 1.0 then, not installed now; numpy unknown then, " in verdict
    assert tags_of(area, original)["reproduction_verdict"] == verdict
    assert "identical" not in done.stdout.replace("Verdict: " + verdict, "")


def test_another_metric_is_named_and_never_called_identical(area):
    """In the store: one metric in its last bit, another in its step, a third with a value more."""
    original = area.run["experiment-2"]
    run_id, value = original.info.run_id, original.data.metrics["train_loss"]
    with sqlite3.connect(area.work / "mlflow.db") as store:
        changed = (np.nextafter(value, 1), run_id, value)
        cursor = store.execute(
            "UPDATE metrics SET value = ? WHERE run_uuid = ? AND key = 'train_loss' AND value = ?",
            changed,
        )
        store.execute(
            "UPDATE metrics SET step = 1 WHERE run_uuid = ? AND key = 'baseline_accuracy'",
            (run_id,),
        )
    store.close()
    assert cursor.rowcount == 1
    client_of(area.work).log_metric(run_id, "train_accuracy", 1.0, timestamp=10**15)
    done, again = reproduce(area.work, "--run-id", run_id, succeeds=False)
    verdict = again.data.tags["reproduction_verdict"]
    names = "baseline_accuracy, train_accuracy, train_loss"
    assert verdict == f"different: {names} (libraries: the same)"
    assert tags_of(area, original)["reproduction_verdict"] == verdict
    assert f"Run {run_id} could not be repeated: {verdict}" in done.stderr
    assert "pip install" not in done.stderr  # no library differs
    assert "Done" not in done.stdout


def test_another_model_of_a_run_is_not_taken_for_its_own(area):
    """A run as the forest's; its second model was registered, and its rows were miscounted."""
    forest = area.run["forest"]
    client_of(area.work)
    model = mlflow.sklearn.load_model(f"runs:/{forest.info.run_id}/model")
    code = mlflow.artifacts.load_text(f"runs:/{forest.info.run_id}/training.py")
    options = {"pip_requirements": [], "serialization_format": "cloudpickle"}
    names = ("training_table", "iceberg_snapshot_id")
    with mlflow.start_run(experiment_id=forest.info.experiment_id) as run:
        mlflow.set_tags({name: forest.data.tags[name] for name in names} | {"row_count": 2999})
        mlflow.log_params(forest.data.params)
        mlflow.log_metrics(forest.data.metrics)
        mlflow.log_text(code, "training.py")
        mlflow.sklearn.log_model(model, "model", **options)
        model.estimators_ = model.estimators_[:-1]  # one tree less
        mlflow.sklearn.log_model(model, "small", registered_model_name="small", **options)
    _, again = reproduce(area.work, "--model", "small", succeeds=False)
    assert again.data.tags["reproduction_of"] == run.info.run_id
    verdict = again.data.tags["reproduction_verdict"]
    assert verdict == "different: rows, predictions (libraries: the same)"


def test_a_model_that_the_libraries_cannot_load_gets_a_verdict_that_names_them(area):
    original = area.run["forest"]
    requirements = requirements_of(area, original)
    model = requirements.with_name("model.pkl")
    texts = {file: file.read_bytes() for file in (requirements, model)}
    requirements.write_bytes(texts[requirements].replace(b"scikit-learn==", b"scikit-learn==9."))
    model.write_bytes(b"a pickle that is none")
    try:
        _, again = reproduce(area.work, "--run-id", original.info.run_id, succeeds=False)
    finally:
        for file, text in texts.items():
            file.write_bytes(text)
    assert again is None
    verdict = tags_of(area, original)["reproduction_verdict"]
    assert verdict.startswith("impossible: UnpicklingError in its code or its model (libraries: ")
    assert "scikit-learn 9." in verdict


def test_code_that_fails_when_it_trains_again_gets_a_verdict_in_both_runs(area):
    original = area.run["experiment-1"]
    client = client_of(area.work)
    code = mlflow.artifacts.load_text(f"runs:/{original.info.run_id}/training.py")
    broken = code.replace('float(params["regParam"])', 'float("two")')
    assert broken != code
    client.log_text(original.info.run_id, broken, "training.py")
    _, again = reproduce(area.work, "--run-id", original.info.run_id, succeeds=False)
    client_of(area.work).log_text(original.info.run_id, code, "training.py")
    assert again.info.status == "FAILED"
    verdict = "impossible: ValueError when it was trained again (libraries: the same)"
    assert again.data.tags["reproduction_verdict"] == verdict
    assert tags_of(area, original)["reproduction_verdict"] == verdict


def test_in_another_catalog_it_gives_no_verdict(area, tmp_path):
    original = area.run["one-machine"]
    before = tags_of(area, original)
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{area.work}/mlflow.db"}
    done = run_script(SCRIPT, tmp_path, "--run-id", original.info.run_id, **store)
    assert done.returncode != 0
    catalog = (area.work / "spark-warehouse").as_uri()
    assert f"Expected: the catalog in which it was written, {catalog}." in done.stderr
    assert tags_of(area, original) == before


def test_a_missing_snapshot_is_the_verdict_and_the_error(area):
    original = area.run["forest"]
    lost = original.data.tags["iceberg_parent_id"]  # the lesson let this one expire
    client = client_of(area.work)
    run = client.create_run(original.info.experiment_id)
    for name, value in (("training_table", "spark_catalog.default.wines"), ("row_count", "1500")):
        client.set_tag(run.info.run_id, name, value)
    client.set_tag(run.info.run_id, "iceberg_snapshot_id", lost)
    client.log_text(run.info.run_id, "", "training.py")
    client.log_text(run.info.run_id, "", "model/requirements.txt")
    done, again = reproduce(area.work, "--run-id", run.info.run_id, succeeds=False)
    assert again is None
    verdict = tags_of(area, run)["reproduction_verdict"]
    assert verdict == f"impossible: snapshot {lost} of spark_catalog.default.wines is not there"
    assert f"spark_catalog.default.wines has no snapshot {lost}: " in done.stderr
    for snapshot in table_in(area.work, "wines").snapshots():
        assert str(snapshot.snapshot_id) in done.stderr


def test_a_run_without_training_code_is_told_apart(area):
    succeed("14_XGBoost_Iceberg.py", area.work, "--distributed")
    run = runs_in(area.work, "xgboost-fraud")[0]
    assert "training.py" not in files_of(area.work, run)
    done, again = reproduce(area.work, "--run-id", run.info.run_id, succeeds=False)
    assert again is None
    assert f"There is no runs:/{run.info.run_id}/training.py" in done.stderr
    assert tags_of(area, run)["reproduction_verdict"].startswith("impossible: ")


def test_a_run_that_was_stopped_before_its_model_is_told_apart(area):
    client = client_of(area.work)
    run = client.create_run(area.run["forest"].info.experiment_id)
    tags = area.run["forest"].data.tags
    for name in ("training_table", "iceberg_snapshot_id", "row_count"):
        client.set_tag(run.info.run_id, name, tags[name])
    client.log_text(run.info.run_id, "", "training.py")
    done, again = reproduce(area.work, "--run-id", run.info.run_id, succeeds=False)
    assert again is None
    assert f"There is no runs:/{run.info.run_id}/model/requirements.txt" in done.stderr
    verdict = tags_of(area, run)["reproduction_verdict"]
    assert verdict == "impossible: the run has no requirements.txt"


def test_a_run_without_a_snapshot_is_refused(work):
    succeed("02_log_model.py", work)
    (run,) = runs_in(work, "wine-quality-test")
    done, _ = reproduce(work, "--run-id", run.info.run_id, succeeds=False)
    assert f"Run {run.info.run_id} names no Iceberg snapshot" in done.stderr
    assert "Run this first:  python code/07_Keep_Snapshot.py" in done.stderr
    assert client_of(work).get_experiment_by_name(EXPERIMENT) is None
    assert "reproduction_verdict" not in client_of(work).get_run(run.info.run_id).data.tags


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "None of 0 versions of all registered models was trained on an Iceberg snapshot"),
        (("--model", "m"), "None of 0 versions of m was trained on an Iceberg snapshot"),
        (("--run-id", "0" * 32), f"There is no run {'0' * 32}"),
        (("--alias", "champion"), "Which run is that: alias champion?"),
        (("--version", "1"), "Which run is that: version 1?"),
        (("--model", "m", "--run-id", "r"), "Which run is that: run_id r, model m?"),
        (("--model", "m", "--version", "0"), "--version: 0 is not a whole number 1 or more."),
        (("--model", "m", "--version", "2"), "The registry gave no version of m: "),
        (("--model", "m", "--alias", "champion"), "The registry gave no version of m: "),
    ],
)
def test_what_cannot_be_found_is_said_before_anything_is_written(work, arguments, message):
    done, _ = reproduce(work, *arguments, succeeds=False)
    assert message in done.stderr
    assert client_of(work).get_experiment_by_name(EXPERIMENT) is None
