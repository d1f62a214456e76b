import os
import shutil
import signal
import sqlite3
import stat
from contextlib import closing
from math import isclose, sqrt

import mlflow
import numpy as np
import pandas as pd
import pytest
from conftest import (
    client_of,
    finish,
    run_script,
    runs_in,
    start_script,
    stop_in_the_middle,
    succeed,
    wait_until,
)

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


def test_the_default_batch_is_the_wines_that_were_set_aside_to_test_on(scored, split, store):
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
    spoilt.loc[spoilt.index[3], "sulphates"] = np.inf
    spoilt["quality"] = [6, np.nan, 7, 5, "good"]  # a missing grade is no fault
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
        "'sulphates' holds 'inf' in row 4, not a number",
        "'quality' holds 'good' in row 5, not a number",
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


def test_columns_named_as_the_lesson_names_its_own_are_replaced_and_said_to_be(
    store, module_work, model, batch, tmp_path
):
    batch.assign(prediction=0.5, run_id="mine", vineyard="north").to_csv(
        tmp_path / "scored.csv", index=False
    )
    arguments = ("--batch", str(tmp_path / "scored.csv"), "--output", str(tmp_path / "out.csv"))
    printed = succeed(SCRIPT, module_work, *arguments)
    assert "Not used by the model: vineyard\n" in printed
    assert "Replaced by what this model says: prediction, run_id\n" in printed
    out = pd.read_csv(tmp_path / "out.csv")
    np.testing.assert_allclose(out["prediction"], model.predict(batch), rtol=1e-12)
    assert set(out["run_id"]) == {store.info.run_id}


def test_the_error_is_that_of_the_wines_with_a_grade(store, module_work, model, batch, tmp_path):
    graded = batch.assign(quality=[6, np.nan, 7, 5, np.nan])
    graded.to_csv(tmp_path / "some.csv", index=False)
    arguments = ("--batch", str(tmp_path / "some.csv"), "--output", str(tmp_path / "out.csv"))
    error = (graded["quality"] - model.predict(batch)).dropna()
    assert len(error) == 3
    assert f"out.csv, rmse {sqrt((error**2).mean()):.3f}\n" in succeed(
        SCRIPT, module_work, *arguments
    )
    graded.assign(quality="").to_csv(tmp_path / "some.csv", index=False)
    assert "rmse" not in succeed(SCRIPT, module_work, *arguments)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "No columns to parse from file"),
        (b"alcohol,pH\n1,2\n1,2,3\n", "Expected 2 fields in line 3, saw 3"),
        (b"PK\x03\x04\xff\xfe\x80", "can't decode byte 0xff"),
    ],
    ids=["empty", "ragged", "a spreadsheet"],
)
def test_a_file_that_is_no_table_is_refused_in_three_lines(
    store, module_work, tmp_path, content, said
):
    (tmp_path / "bad.csv").write_bytes(content)
    arguments = ("--batch", str(tmp_path / "bad.csv"), "--output", str(tmp_path / "out.csv"))
    done = run_script(SCRIPT, module_work, *arguments)
    assert done.returncode != 0
    problem, expected, mend = done.stderr.splitlines()[-3:]
    assert problem.startswith(f"ValueError: {tmp_path}/bad.csv cannot be read: ")
    assert said in problem
    assert expected == "Expected: a CSV file with a header line and wines to score."
    assert mend.endswith(f"run:  python code/{SCRIPT}")
    assert not (tmp_path / "out.csv").exists()


def test_a_run_that_logged_no_rmse_is_used_all_the_same(store, module_work, work):
    shutil.copy(module_work / "mlflow.db", work)
    with closing(sqlite3.connect(work / "mlflow.db")) as database, database:
        database.execute("DELETE FROM latest_metrics WHERE key = 'rmse'")
    printed = succeed(SCRIPT, work)
    assert f"predictions.csv, rmse {store.data.metrics['rmse']:.3f}\n" in printed
    assert set(pd.read_csv(work / "data" / "predictions.csv")["run_id"]) == {store.info.run_id}


def unfinished(folder):
    return [path for path in folder.iterdir() if "unfinished" in path.name]


@pytest.fixture
def writing(store, module_work, batch, tmp_path):
    """A large batch, whose predictions are being written."""
    large = pd.concat([batch] * 60_000)
    large.to_csv(tmp_path / "large.csv", index=False)
    arguments = ("--batch", str(tmp_path / "large.csv"), "--output", str(tmp_path / "out.csv"))
    process = start_script(SCRIPT, module_work, *arguments)
    wait_until(lambda: unfinished(tmp_path) or process.poll() is not None, "the unfinished file")
    return process


def test_an_interrupt_while_writing_leaves_no_part_of_a_file(writing, tmp_path):
    assert stop_in_the_middle(writing, signal.SIGINT).returncode != 0
    assert [path.name for path in tmp_path.iterdir()] == ["large.csv"]


def test_two_runs_at_once_do_not_write_into_one_file(
    writing, store, module_work, model, batch, tmp_path
):
    writing.send_signal(signal.SIGSTOP)
    assert not (tmp_path / "out.csv").exists()  # it is stopped in the middle
    batch.to_csv(tmp_path / "small.csv", index=False)
    arguments = ("--batch", str(tmp_path / "small.csv"), "--output", str(tmp_path / "out.csv"))
    succeed(SCRIPT, module_work, *arguments)
    assert len(pd.read_csv(tmp_path / "out.csv")) == len(batch)
    writing.send_signal(signal.SIGCONT)
    assert finish(writing).returncode == 0
    predictions = pd.read_csv(tmp_path / "out.csv")["prediction"].to_numpy()
    np.testing.assert_allclose(
        predictions.reshape(-1, len(batch)), [model.predict(batch)] * 60_000, rtol=1e-12
    )
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["large.csv", "out.csv", "small.csv"]


def test_colleagues_may_read_the_file_as_far_as_the_umask_says(store, module_work, tmp_path):
    before = os.umask(0o027)
    try:
        succeed(SCRIPT, module_work, "--output", str(tmp_path / "out.csv"))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out.csv").stat().st_mode) == 0o640


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
