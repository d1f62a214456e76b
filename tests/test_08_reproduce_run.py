import getpass
import sqlite3
from types import SimpleNamespace

import mlflow
import numpy as np
import pytest
from conftest import client_of, files_of, run_script, runs_in, table_in

SCRIPT = "08_Reproduce_Run.py"
EXPERIMENT = "reproductions"
pytestmark = pytest.mark.spark


@pytest.fixture(scope="module")
def area(module_work, warm):
    """One model of each kind, each on a snapshot that is no longer the table's current one."""
    warm.succeed("06_Spark_Iceberg.py", module_work)
    warm.succeed("00_datagen.py", module_work, "--rows", "3000")
    warm.succeed("14_XGBoost_Iceberg.py", module_work)
    warm.succeed("00_datagen.py", module_work, "--rows", "3000", "--append")
    warm.succeed("07_Keep_Snapshot.py", module_work)  # it expires all it can of its own table
    run = {
        run.info.run_name: run
        for name in ("sparkml-experiment", "keep-snapshot")
        for run in runs_in(module_work, name)
    }
    (run["fraud"],) = [
        run
        for run in runs_in(module_work, "xgboost-fraud")
        if "training.py" in files_of(module_work, run)
    ]
    return SimpleNamespace(work=module_work, run=run, warm=warm)


def reproduce(area, *arguments, succeeds=True, work=None, prefix=None, **environment):
    """Run the lesson; return its process and the run that it made, or None."""
    before = {run.info.run_id for run in runs_in(area.work, EXPERIMENT)}
    work = work or area.work
    if prefix is None:
        done = area.warm.run_script(SCRIPT, work, *arguments, **environment)
    else:  # the learner's own command
        done = run_script(SCRIPT, work, *arguments, prefix=prefix)
    assert (done.returncode == 0) == succeeds, done.stdout[-2000:] + done.stderr[-2000:]
    made = [run for run in runs_in(area.work, EXPERIMENT) if run.info.run_id not in before]
    return done, (made[0] if made else None)


def tags_of(area, run):
    return client_of(area.work).get_run(run.info.run_id).data.tags


def values_of(area, run, name):
    history = client_of(area.work).get_metric_history(run.info.run_id, name)
    return [metric.value for metric in sorted(history, key=lambda metric: metric.step)]


SNAPSHOT_TAGS = ("training_table", "iceberg_snapshot_id", "iceberg_catalog", "row_count")


def new_run(area, like, author=None, without=(), **tags):
    """A run by `author` on the snapshot of another run, without dataset, code and model."""
    original = area.run[like]
    run = client_of(area.work).create_run(
        original.info.experiment_id,
        tags={name: original.data.tags[name] for name in SNAPSHOT_TAGS if name not in without}
        | {"mlflow.user": author or getpass.getuser()}
        | tags,
    )
    client_of(area.work).set_terminated(run.info.run_id)
    return run


def log_texts(area, run, **texts):
    """Log `training` as training.py, `requirements` as those of the model."""
    files = {"training": "training.py", "requirements": "model/requirements.txt"}
    for name, text in texts.items():
        client_of(area.work).log_text(run.info.run_id, text, files[name])


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("experiment-1", ("taskset", "--cpu-list", "0")),  # on one core, whatever there is
        ("experiment-2", None),
        ("fraud", ("taskset", "--cpu-list", "0")),
        ("forest", None),
    ],
)
def test_each_kind_of_model_is_repeated_to_the_last_bit(area, name, prefix):
    original = area.run[name]
    done, again = reproduce(area, "--run-id", original.info.run_id, prefix=prefix)
    assert again.info.status == "FINISHED"
    assert again.data.metrics == original.data.metrics
    assert again.data.params == original.data.params
    for metric in original.data.metrics:
        assert values_of(area, again, metric) == values_of(area, original, metric)
    tags = tags_of(area, original)
    assert again.data.tags["reproduction_of"] == original.info.run_id
    assert tags["reproduction_run"] == again.info.run_id
    assert tags["reproduction_verdict"] == again.data.tags["reproduction_verdict"] == "identical"
    for tag in SNAPSHOT_TAGS:
        assert again.data.tags[tag] == original.data.tags[tag]
    (used,) = again.inputs.dataset_inputs
    assert used.dataset.digest == original.data.tags["iceberg_snapshot_id"]
    comparison = mlflow.artifacts.load_dict(f"runs:/{again.info.run_id}/comparison.json")
    rows = {row[0]: row[1:] for row in comparison["data"]}
    assert set(rows) == {"rows", "predictions", *original.data.metrics}
    assert {row[-1] for row in rows.values()} == {"True"}
    assert rows["predictions"][0] == original.data.tags["row_count"]
    assert "Done: identical" in done.stdout
    assert "  | def fit_and_score(rows, params):\n" in done.stdout
    assert f"by {getpass.getuser()}\n" in done.stdout


def test_by_default_it_takes_the_newest_model_that_was_trained_on_a_snapshot(area):
    """Of three: the forest is older, and what 05 registers is newer, but knows no snapshot."""
    client_of(area.work)
    run_id = area.run["experiment-1"].info.run_id
    mlflow.register_model(f"runs:/{run_id}/model", "words")
    area.warm.succeed("05_Auto_Model_Registration.py", area.work)
    done, again = reproduce(area)
    assert again.data.tags["reproduction_of"] == run_id
    assert f"models:/words/1: run {run_id}" in done.stdout


@pytest.mark.parametrize("chosen", [("--alias", "champion"), ("--version", "1")])
def test_a_registered_model_is_found_by_name_with_version_or_alias(area, chosen):
    client = client_of(area.work)
    name = "sparkml" + "".join(chosen).replace("-", "_")
    run_id = area.run["experiment-3"].info.run_id
    mlflow.register_model(f"runs:/{run_id}/model", name)
    client.set_registered_model_alias(name, "champion", "1")
    newer = area.run["experiment-2"].info.run_id
    mlflow.register_model(f"runs:/{newer}/model", name)
    _, again = reproduce(area, "--model", name, *chosen)
    assert again.data.tags["reproduction_of"] == run_id


def test_without_a_registry_it_takes_the_newest_run_of_the_lessons(area):
    """As on a workbench without AI Registry: here its tables are put aside."""
    with sqlite3.connect(area.work / "mlflow.db") as store:
        store.execute("ALTER TABLE model_versions RENAME TO put_aside")
    try:
        _, again = reproduce(area)
    finally:
        with sqlite3.connect(area.work / "mlflow.db") as store:
            store.execute("ALTER TABLE put_aside RENAME TO model_versions")
        store.close()
    assert again.data.tags["reproduction_of"] == area.run["forest"].info.run_id
    assert again.data.tags["reproduction_verdict"] == "identical"


def test_without_datasets_the_tags_lead_to_the_rows(area):
    original = area.run["experiment-3"]
    with sqlite3.connect(area.work / "mlflow.db") as store:
        store.execute("DELETE FROM inputs WHERE destination_id = ?", (original.info.run_id,))
    store.close()
    assert client_of(area.work).get_run(original.info.run_id).inputs.dataset_inputs == []
    _, again = reproduce(area, "--run-id", original.info.run_id)
    assert again.data.tags["reproduction_verdict"] == "identical"


def test_the_code_of_somebody_else_runs_only_with_trust(area):
    """By default the newest version of any registered model is taken, and this is theirs."""
    ours = area.run["forest"]
    run = new_run(area, "forest", author="eve")
    for name, value in ours.data.params.items():
        client_of(area.work).log_param(run.info.run_id, name, value)
    for name, value in ours.data.metrics.items():
        client_of(area.work).log_metric(run.info.run_id, name, value)
    code = mlflow.artifacts.load_text(f"runs:/{ours.info.run_id}/training.py")
    proof = area.work / "eve_was_here"
    log_texts(area, run, training=f"open({str(proof)!r}, 'w').close()\n{code}")
    with mlflow.start_run(run.info.run_id):
        model = mlflow.sklearn.load_model(f"runs:/{ours.info.run_id}/model")
        mlflow.sklearn.log_model(
            model,
            "model",
            registered_model_name="theirs",
            pip_requirements=[f"numpy=={np.__version__}"],
            serialization_format="cloudpickle",
        )
    client_of(area.work).set_tag(run.info.run_id, "mlflow.user", "eve")
    chosen = ("--model", "theirs", "--version", "1")
    for arguments in ((), chosen, ("--run-id", run.info.run_id)):
        done, again = reproduce(area, *arguments, succeeds=False)
        assert again is None and not proof.exists()
        assert "reproduction_verdict" not in tags_of(area, run)
        assert f"run {run.info.run_id} ({run.info.run_name}) by eve\n" in done.stdout
        assert f"  | open({str(proof)!r}, 'w').close()\n" in done.stdout
        assert f"Run {run.info.run_id} is by eve, " in done.stderr
        which = ("--run-id", run.info.run_id) if "--run-id" in arguments else chosen
        command = f"run:  python code/08_Reproduce_Run.py {' '.join(which)} --trust"
        assert command in done.stderr
    _, again = reproduce(area, *chosen, "--trust")
    assert proof.exists()
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
        done, again = reproduce(area, "--run-id", original.info.run_id)
    finally:
        file.write_text(text)
    verdict = again.data.tags["reproduction_verdict"]
    assert verdict.startswith("equal numbers, but other libraries: pyspark 9.")
    assert "no-such-library 1.0 then, not installed now; numpy unknown then, " in verdict
    assert tags_of(area, original)["reproduction_verdict"] == verdict
    assert "identical" not in done.stdout.replace("Verdict: " + verdict, "")


def test_a_model_that_names_no_library_is_never_called_identical(area):
    original = area.run["forest"]
    file = requirements_of(area, original)
    text = file.read_text()
    file.write_text("")
    try:
        done, again = reproduce(area, "--run-id", original.info.run_id)
    finally:
        file.write_text(text)
    verdict = "equal numbers, but the model names no libraries"
    assert again.data.tags["reproduction_verdict"] == verdict
    assert "identical" not in done.stdout


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
    done, again = reproduce(area, "--run-id", run_id, succeeds=False)
    verdict = again.data.tags["reproduction_verdict"]
    names = "baseline_accuracy, train_accuracy, train_loss"
    assert verdict == f"different: {names} (libraries: the same)"
    assert tags_of(area, original)["reproduction_verdict"] == verdict
    assert f"The run could not be repeated: {verdict}" in done.stderr
    assert "pip install" not in done.stderr  # no library differs
    assert "comparison.json" in done.stderr
    assert "Done" not in done.stdout


def test_another_model_of_a_run_is_not_taken_for_its_own(area):
    """A run as the forest's; its second model was registered, and its rows were miscounted."""
    forest = area.run["forest"]
    run = new_run(area, "forest", row_count="2999")
    code = mlflow.artifacts.load_text(f"runs:/{forest.info.run_id}/training.py")
    log_texts(area, run, training=code)
    model = mlflow.sklearn.load_model(f"runs:/{forest.info.run_id}/model")
    options = {"pip_requirements": [], "serialization_format": "cloudpickle"}
    with mlflow.start_run(run.info.run_id):
        mlflow.log_params(forest.data.params)
        mlflow.log_metrics(forest.data.metrics)
        mlflow.sklearn.log_model(model, "model", **options)
        model.estimators_ = model.estimators_[:-1]  # one tree less
        mlflow.sklearn.log_model(model, "small", registered_model_name="small", **options)
    _, again = reproduce(area, "--model", "small", succeeds=False)
    assert again.data.tags["reproduction_of"] == run.info.run_id
    verdict = again.data.tags["reproduction_verdict"]
    assert verdict == "different: rows, predictions (libraries: the model names none)"


def test_a_model_that_the_libraries_cannot_load_gets_a_verdict_that_names_them(area):
    original = area.run["forest"]
    requirements = requirements_of(area, original)
    model = requirements.with_name("model.pkl")
    texts = {file: file.read_bytes() for file in (requirements, model)}
    requirements.write_bytes(texts[requirements].replace(b"scikit-learn==", b"scikit-learn==9."))
    model.write_bytes(b"a pickle that is none")
    try:
        done, again = reproduce(area, "--run-id", original.info.run_id, succeeds=False)
    finally:
        for file, text in texts.items():
            file.write_bytes(text)
    assert again is None
    verdict = tags_of(area, original)["reproduction_verdict"]
    assert verdict.startswith("impossible: UnpicklingError in its code or its model (libraries: ")
    assert "scikit-learn 9." in verdict
    assert "run:  pip install 'scikit-learn==9." in done.stderr


def test_code_that_fails_when_it_trains_again_gets_a_verdict_in_both_runs(area):
    original = area.run["experiment-1"]
    code = mlflow.artifacts.load_text(f"runs:/{original.info.run_id}/training.py")
    broken = code.replace('float(params["regParam"])', 'float("two")')
    assert broken != code
    log_texts(area, original, training=broken)
    _, again = reproduce(area, "--run-id", original.info.run_id, succeeds=False)
    log_texts(area, original, training=code)
    assert again.info.status == "FAILED"
    verdict = "impossible: ValueError when it was trained again (libraries: the same)"
    assert again.data.tags["reproduction_verdict"] == verdict
    assert tags_of(area, original)["reproduction_verdict"] == verdict


def test_code_that_ends_the_process_gets_a_verdict(area):
    run = new_run(area, "forest")
    log_texts(area, run, training="raise SystemExit(0)", requirements="")
    done, again = reproduce(area, "--run-id", run.info.run_id, succeeds=False)
    assert again is None
    verdict = "impossible: SystemExit in its code or its model (libraries: the model names none)"
    assert tags_of(area, run)["reproduction_verdict"] == verdict
    assert f"The run could not be repeated: {verdict}." in done.stderr


@pytest.mark.parametrize("kept", ["the dataset", "only the tags"])
def test_in_another_catalog_it_gives_no_verdict(area, tmp_path, kept):
    original = area.run["fraud"]
    if kept == "only the tags":
        original = new_run(area, "fraud")
        log_texts(area, original, training="", requirements="")
    before = tags_of(area, original)
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{area.work}/mlflow.db"}
    chosen = ("--run-id", original.info.run_id, "--trust")
    done, again = reproduce(area, *chosen, work=tmp_path, succeeds=False, **store)
    catalog = (area.work / "spark-warehouse").as_uri()
    assert f"Expected: the catalog in which it was written, {catalog}." in done.stderr
    assert again is None
    assert tags_of(area, original) == before


def test_the_store_of_another_area_is_not_trusted(area, tmp_path):
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{area.work}/mlflow.db"}
    chosen = ("--run-id", area.run["forest"].info.run_id)
    done, again = reproduce(area, *chosen, work=tmp_path, succeeds=False, **store)
    assert again is None
    assert f"{' '.join(chosen)} --trust" in done.stderr


def test_a_missing_snapshot_is_the_verdict_and_the_error(area):
    lost = area.run["forest"].data.tags["iceberg_parent_id"]  # the lesson let this one expire
    run = new_run(area, "forest", iceberg_snapshot_id=lost)
    log_texts(area, run, training="", requirements="")
    done, again = reproduce(area, "--run-id", run.info.run_id, succeeds=False)
    assert again is None
    verdict = tags_of(area, run)["reproduction_verdict"]
    assert verdict == f"impossible: snapshot {lost} of spark_catalog.default.wines is not there"
    assert f"spark_catalog.default.wines has no snapshot {lost}: " in done.stderr
    for snapshot in table_in(area.work, "wines").snapshots():
        assert str(snapshot.snapshot_id) in done.stderr


@pytest.mark.parametrize("table", ["spark_catalog.nowhere.wines", "nowhere.default.wines"])
def test_a_namespace_that_is_not_there_is_the_verdict_too(area, table):
    run = new_run(area, "forest", training_table=table)
    log_texts(area, run, training="", requirements="")
    done, _ = reproduce(area, "--run-id", run.info.run_id, succeeds=False)
    assert tags_of(area, run)["reproduction_verdict"].endswith(f" of {table} is not there")
    assert f"There is no table {table} in file:" in done.stderr


@pytest.mark.parametrize(
    ("texts", "uri"),
    [
        ({"requirements": ""}, "runs:/{}/training.py"),
        ({"training": ""}, "runs:/{}/model/requirements.txt"),  # stopped before its model
    ],
)
def test_a_run_without_its_code_or_its_model_gets_the_verdict_impossible(area, texts, uri):
    run = new_run(area, "forest")
    log_texts(area, run, **texts)
    done, again = reproduce(area, "--run-id", run.info.run_id, succeeds=False)
    assert again is None
    uri = uri.format(run.info.run_id)
    assert f"There is no {uri}, so nobody can repeat the run" in done.stderr
    verdict = tags_of(area, run)["reproduction_verdict"]
    assert verdict == f"impossible: the run has no {uri.rpartition('/')[2]}"


@pytest.mark.parametrize("tag", ["training_table", "iceberg_catalog"])
def test_a_run_whose_tags_say_only_half_is_refused(area, tag):
    run = new_run(area, "forest", without=[tag])
    log_texts(area, run, training="", requirements="")
    done, _ = reproduce(area, "--run-id", run.info.run_id, succeeds=False)
    assert "BadInput: " in done.stderr and "does not describe an Iceberg snapshot" in done.stderr
    assert "reproduction_verdict" not in tags_of(area, run)


def test_a_run_without_a_snapshot_is_refused(work, warm):
    warm.succeed("02_log_model.py", work)
    (run,) = runs_in(work, "wine-quality-test")
    empty = SimpleNamespace(work=work, warm=warm)
    done, _ = reproduce(empty, "--run-id", run.info.run_id, succeeds=False)
    assert f"Run {run.info.run_id} names no Iceberg snapshot" in done.stderr
    assert "Run this first:  python code/07_Keep_Snapshot.py" in done.stderr
    assert client_of(work).get_experiment_by_name(EXPERIMENT) is None
    assert "reproduction_verdict" not in tags_of(empty, run)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "No run of any registered model or lesson names an Iceberg snapshot"),
        (("--model", "m"), "No run of m names an Iceberg snapshot"),
        (("--run-id", "0" * 32), f"There is no run {'0' * 32}"),
        (("--alias", "champion"), "These options do not name one run: --alias champion."),
        (("--trust",), "These options do not name one run: --trust."),
        (("--model", "m", "--version", "0"), "--version: 0 is not a whole number 1 or more."),
        (("--model", "m", "--version", "2"), "The registered model 'm' has no version 2: "),
        (("--model", "m", "--alias", "champion"), "The registered model 'm' has no alias "),
    ],
)
def test_a_missing_run_is_reported_before_anything_is_written(work, warm, arguments, message):
    done, _ = reproduce(SimpleNamespace(work=work, warm=warm), *arguments, succeeds=False)
    assert message in done.stderr
    assert client_of(work).get_experiment_by_name(EXPERIMENT) is None
