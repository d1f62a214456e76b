import sqlite3
from contextlib import closing
from math import isclose, sqrt

import mlflow
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, client_of, runs_in, succeed

SCRIPT = "04_Predict_Batch.py"
EXPERIMENT = "wine-quality-test"


@pytest.fixture(scope="module")
def store(module_work, warm):
    """Two runs with a model, the second another one; then newer runs that must not be taken."""
    warm.succeed("02_log_model.py", module_work)
    warm.succeed("02_log_model.py", module_work, "--alpha", "0.01")
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


def test_the_last_three_columns_are_what_the_lesson_added(scored, split):
    assert [*scored] == [*split[1], "prediction", "run_id", "model_uri"]


def test_the_default_batch_is_the_wines_that_were_set_aside_to_test_on(scored, split, store):
    columns = list(split[1].columns)
    pd.testing.assert_frame_equal(scored[columns], split[1].reset_index(drop=True))
    rmse = sqrt(((scored["quality"] - scored["prediction"]) ** 2).mean())
    assert isclose(rmse, store.data.metrics["rmse"], rel_tol=1e-9)


@pytest.fixture(scope="module")
def batch(split):
    return split[1].drop(columns="quality").head(5).astype("float64").reset_index(drop=True)


def score(warm, work, folder, rows):
    """Score a file of one's own: what was printed, and what was written."""
    rows.to_csv(folder / "mine.csv", index=False)
    arguments = ("--batch", str(folder / "mine.csv"), "--output", str(folder / "out.csv"))
    return warm.succeed(SCRIPT, work, *arguments), pd.read_csv(folder / "out.csv", dtype=str)


@pytest.fixture(scope="module")
def mine(warm, store, module_work, batch, tmp_path_factory):
    """In another order of columns, with others, and with two that have names of the lesson's."""
    rows = batch.iloc[:, ::-1].assign(
        id=["007", "9007199254740993", "", "NA", "1.10"],
        quality=[6, np.nan, 7, 5, np.nan],
        prediction=0.5,
        run_id="mine",
    )
    return score(warm, module_work, tmp_path_factory.mktemp("mine"), rows)


def test_predictions_of_a_file_of_ones_own_are_those_of_the_model(mine, model, batch, store):
    _, out = mine
    np.testing.assert_allclose(
        out["prediction"].astype("float64"), model.predict(batch), rtol=1e-12
    )
    assert set(out["run_id"]) == {store.info.run_id}


def test_other_columns_are_named_and_carried_over_unchanged(mine):
    printed, out = mine
    assert "Not used by the model: id, quality\n" in printed
    assert out["id"].fillna("").tolist()[:3] == ["007", "9007199254740993", ""]
    assert out["id"].tolist()[4] == "1.10"


def test_columns_with_names_of_the_lessons_own_are_replaced_and_named(mine):
    assert "Replaced by what this model says: prediction, run_id\n" in mine[0]


def test_the_error_is_that_of_the_wines_with_a_grade(mine, model, batch):
    error = np.array([6, 7, 5]) - model.predict(batch)[[0, 2, 3]]
    assert f"out.csv, rmse {sqrt((error**2).mean()):.3f}\n" in mine[0]


def test_without_any_grade_there_is_no_error(warm, store, module_work, batch, tmp_path):
    assert "rmse" not in score(warm, module_work, tmp_path, batch.assign(quality=""))[0]


def test_a_batch_that_does_not_fit_is_named_and_nothing_is_written(
    warm, store, module_work, batch, tmp_path
):
    spoilt = batch.drop(columns="alcohol").rename(columns={"pH": "ph "}).astype({"density": object})
    spoilt.loc[1, "density"] = "dense"
    spoilt.loc[2, "chlorides"] = np.nan
    spoilt.loc[3, "sulphates"] = np.inf
    spoilt["quality"] = [6, np.nan, 7, 5, "good"]  # a missing grade is no fault
    spoilt.to_csv(tmp_path / "bad.csv", index=False)
    output = tmp_path / "out.csv"
    output.write_text("predictions of yesterday")
    arguments = ("--batch", str(tmp_path / "bad.csv"), "--output", str(output))
    done = warm.run_script(SCRIPT, module_work, *arguments)
    assert done.returncode != 0
    for problem in (
        "'alcohol' is missing",
        "'pH' is missing (renamed to 'ph '?)",
        "'density' holds 'dense' in row 2, not a number",
        "'chlorides' holds nothing in row 3, not a number",
        "'sulphates' holds 'inf' in row 4, not a number",
        "'quality' holds 'good' in row 5, not a number",
        "Expected: the columns of the signature, with a number in each row: fixed acidity,",
    ):
        assert problem in done.stderr
    assert output.read_text() == "predictions of yesterday"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.csv", "out.csv"]


def test_rows_one_field_longer_than_the_header_are_not_scored_with_shifted_columns(
    warm, store, module_work, batch, tmp_path
):
    lines = batch.assign(grade=6).to_csv(index=False).replace(",grade", "")
    (tmp_path / "long.csv").write_text(lines)
    arguments = ("--batch", str(tmp_path / "long.csv"), "--output", str(tmp_path / "out.csv"))
    done = warm.run_script(SCRIPT, module_work, *arguments)
    assert "its rows are longer than its header line" in done.stderr
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--batch", "none.csv"), "There is no file none.csv."),
        (("--batch", ""), "--batch cannot be read: the path is empty."),
        (("--output", ""), "cannot be written: the path is empty."),
        (("--output", "data"), "data cannot be written: it is a folder."),
        (("--batch", "mine.csv", "--output", "mine.csv"), "it holds the rows to score."),
    ],
)
def test_a_path_of_no_use_is_refused_before_anything_is_written(
    warm, store, module_work, batch, tmp_path, arguments, said
):
    (tmp_path / "data").mkdir()
    batch.to_csv(tmp_path / "mine.csv", index=False)
    done = warm.run_script(SCRIPT, module_work, *arguments, cwd=tmp_path)
    assert done.returncode != 0
    assert said in done.stderr
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "mine.csv"), batch)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["data", "mine.csv"]


@pytest.mark.parametrize("of_ones_own", [True, False])
def test_the_wines_of_the_lessons_are_never_written_over(
    warm, store, module_work, batch, tmp_path, of_ones_own
):
    batch.to_csv(tmp_path / "mine.csv", index=False)
    wines = ROOT / "data" / "wine-quality.csv"
    before = wines.read_bytes()
    arguments = ("--batch", str(tmp_path / "mine.csv")) if of_ones_own else ()
    done = warm.run_script(SCRIPT, module_work, *arguments, "--output", str(wines))
    after = wines.read_bytes()
    wines.write_bytes(before)
    assert after == before
    assert "wine-quality.csv cannot be written: it holds the rows to score." in done.stderr


def test_a_run_that_logged_no_rmse_is_used_all_the_same(warm, work):
    warm.succeed("02_log_model.py", work)
    with closing(sqlite3.connect(work / "mlflow.db")) as database, database:
        database.execute("DELETE FROM latest_metrics WHERE key = 'rmse'")
    printed = warm.succeed(SCRIPT, work)
    assert "predictions.csv, rmse 0.850\n" in printed and "the run says" not in printed


def test_a_damaged_model_is_named(warm, work):
    client = client_of(work)
    folder = (work / "mlartifacts" / EXPERIMENT).as_uri()
    run = client.create_run(client.create_experiment(EXPERIMENT, artifact_location=folder))
    client.log_text(run.info.run_id, "", "model/MLmodel")
    client.set_terminated(run.info.run_id)
    done = warm.run_script(SCRIPT, work)
    assert f"The model runs:/{run.info.run_id}/model cannot be loaded: " in done.stderr
    assert "To log a new model, run:  python code/02_log_model.py" in done.stderr


def test_without_a_model_it_names_the_lesson_to_run_first(warm, work):
    warm.succeed("01_Experiment.py", work)  # a run, but without a model
    done = warm.run_script(SCRIPT, work)
    assert done.returncode != 0
    assert "has a model (1 runs)" in done.stderr
    assert "Run this first:  python code/02_log_model.py" in done.stderr
    assert not (work / "data").exists()


def test_on_an_empty_store_it_creates_no_experiment(warm, work):
    done = warm.run_script(SCRIPT, work)
    assert "Run this first:  python code/02_log_model.py" in done.stderr
    assert client_of(work).get_experiment_by_name(EXPERIMENT) is None


def test_a_deleted_experiment_is_named_with_the_command_that_brings_it_back(warm, work):
    client = client_of(work)
    client.delete_experiment(client.create_experiment(EXPERIMENT))
    done = warm.run_script(SCRIPT, work)
    assert f"The experiment '{EXPERIMENT}' was deleted." in done.stderr
    assert "To bring it back, run:  " in done.stderr
