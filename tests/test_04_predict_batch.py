from math import isclose, sqrt

import mlflow
import numpy as np
import pandas as pd
import pytest
from conftest import client_of, run_script, runs_in, succeed

SCRIPT = "04_Predict_Batch.py"
EXPERIMENT = "wine-quality-test"


@pytest.fixture(scope="module")
def store(module_work):
    """Two runs with a model, the second another one; then newer runs that must not be taken."""
    succeed("02_log_model.py", module_work)
    succeed("02_log_model.py", module_work, "--alpha", "0.01")
    client = client_of(module_work)
    newest, _ = runs_in(module_work, EXPERIMENT)
    experiment_id = newest.info.experiment_id
    without_model = client.create_run(experiment_id).info.run_id
    client.set_terminated(without_model)
    failed = client.create_run(experiment_id).info.run_id
    client.log_text(failed, "half a model", "model/MLmodel")
    client.set_terminated(failed, "FAILED")
    return newest


@pytest.fixture(scope="module")
def scored(store, module_work):
    succeed(SCRIPT, module_work)
    return pd.read_csv(module_work / "data" / "predictions.csv")


@pytest.fixture(scope="module")
def model(store, module_work):
    client_of(module_work)
    return mlflow.pyfunc.load_model(f"runs:/{store.info.run_id}/model")


def test_predictions_are_those_of_the_newest_finished_run_with_a_model(scored, store, model):
    assert set(scored["run_id"]) == {store.info.run_id}
    assert set(scored["model_uri"]) == {f"runs:/{store.info.run_id}/model"}
    inputs = scored[model.metadata.get_input_schema().input_names()].astype("float64")
    np.testing.assert_allclose(scored["prediction"], model.predict(inputs), rtol=1e-12)


def test_the_default_batch_is_the_wines_the_model_was_not_trained_on(scored, split, store):
    columns = list(split[1].columns)
    pd.testing.assert_frame_equal(scored[columns], split[1].reset_index(drop=True))
    rmse = sqrt(((scored["quality"] - scored["prediction"]) ** 2).mean())
    assert isclose(rmse, store.data.metrics["rmse"], rel_tol=1e-9)


@pytest.fixture
def batch(split):
    return split[1].drop(columns="quality").head(5).astype("float64")


def test_a_file_of_ones_own_is_scored_whatever_its_order_of_columns(
    store, module_work, model, batch, tmp_path
):
    batch.iloc[:, ::-1].to_csv(tmp_path / "mine.csv", index=False)
    arguments = ("--batch", str(tmp_path / "mine.csv"), "--output", str(tmp_path / "out.csv"))
    succeed(SCRIPT, module_work, *arguments)
    predictions = pd.read_csv(tmp_path / "out.csv")["prediction"]
    np.testing.assert_allclose(predictions, model.predict(batch), rtol=1e-12)


def test_a_batch_that_does_not_fit_is_named_and_nothing_is_written(
    store, module_work, batch, tmp_path
):
    spoilt = batch.drop(columns="alcohol").rename(columns={"pH": "ph "})
    spoilt = spoilt.astype({"density": object})
    spoilt.loc[spoilt.index[1], "density"] = "dense"
    spoilt.loc[spoilt.index[2], "chlorides"] = np.nan
    spoilt.to_csv(tmp_path / "bad.csv", index=False)
    output = tmp_path / "out.csv"
    output.write_text("predictions of yesterday")
    arguments = ("--batch", str(tmp_path / "bad.csv"), "--output", str(output))
    done = run_script(SCRIPT, module_work, *arguments)
    assert done.returncode != 0
    for problem in (
        "'alcohol' is missing",
        "'pH' is missing (renamed to 'ph '?)",
        "'density' holds 'dense' in row 2, not a number",
        "'chlorides' holds nothing in row 3, not a number",
        "Expected: the signature's columns, all numbers: fixed acidity,",
    ):
        assert problem in done.stderr
    assert output.read_text() == "predictions of yesterday"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.csv", "out.csv"]


def test_a_batch_without_rows_is_refused(store, module_work, batch, tmp_path):
    batch.head(0).to_csv(tmp_path / "empty.csv", index=False)
    arguments = ("--batch", str(tmp_path / "empty.csv"), "--output", str(tmp_path / "out.csv"))
    done = run_script(SCRIPT, module_work, *arguments)
    assert done.returncode != 0
    assert "does not fit the model: the file has no rows" in done.stderr
    assert not (tmp_path / "out.csv").exists()


def test_extra_columns_are_named_and_ignored(store, module_work, model, batch, tmp_path):
    batch.assign(vineyard="north", year=2009).to_csv(tmp_path / "more.csv", index=False)
    arguments = ("--batch", str(tmp_path / "more.csv"), "--output", str(tmp_path / "out.csv"))
    assert "Not used by the model: vineyard, year" in succeed(SCRIPT, module_work, *arguments)
    predictions = pd.read_csv(tmp_path / "out.csv")["prediction"]
    np.testing.assert_allclose(predictions, model.predict(batch), rtol=1e-12)


def test_a_batch_file_that_is_not_there_is_named(store, module_work, tmp_path):
    done = run_script(SCRIPT, module_work, "--batch", str(tmp_path / "none.csv"))
    assert done.returncode != 0
    assert f"There is no file {tmp_path}/none.csv" in done.stderr


def test_without_a_model_it_names_the_lesson_to_run_first(work):
    succeed("01_Experiment.py", work)  # a run, but without a model
    done = run_script(SCRIPT, work)
    assert done.returncode != 0
    assert "has a model (1 runs)" in done.stderr
    assert "Run this first:  python code/02_log_model.py" in done.stderr
    assert not (work / "data").exists()


def test_on_an_empty_store_it_creates_no_experiment(work):
    done = run_script(SCRIPT, work)
    assert "Run this first:  python code/02_log_model.py" in done.stderr
    assert client_of(work).get_experiment_by_name(EXPERIMENT) is None
