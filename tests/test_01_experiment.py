import re
import runpy
import sys
from math import isclose, sqrt

import numpy as np
import pytest
from conftest import CODE, ROOT, client_of, files_of, run_script, runs_in, succeed
from sklearn.linear_model import ElasticNet

from cmlflow import errors

SCRIPT = "01_Experiment.py"
EXPERIMENT = "wine-quality-test"
# Printed by MLflow's tutorial "Train, Serve, and Score a Linear Regression Model".
PUBLISHED = {"rmse": 0.82224284976, "mae": 0.627876141016, "r2": 0.126787219728}


@pytest.fixture(scope="module")
def printed(module_work):
    return succeed(SCRIPT, module_work)


@pytest.fixture(scope="module")
def run(printed, module_work):
    (run,) = runs_in(module_work, EXPERIMENT)
    return run


def test_it_ends_with_its_score_and_the_page_of_its_chart(printed, run):
    *_, done, look, link = printed.splitlines()
    assert done == f"Done: rmse 0.822; baseline 0.880 (run {run.info.run_id})"
    assert "rmse_by_train_rows" in look
    page = f"#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}/model-metrics"
    assert link == f"Open the UI: make ui, then http://127.0.0.1:5000/{page}"


@pytest.mark.parametrize("metric", PUBLISHED)
def test_metrics_equal_the_numbers_that_mlflow_publishes(run, metric):
    assert isclose(run.data.metrics[metric], PUBLISHED[metric], rel_tol=0, abs_tol=1e-9)


def test_params_are_what_was_chosen(run, wines):
    train_rows = len(wines) - int(np.ceil(len(wines) / 4))  # train_test_split's default
    assert run.data.params == {"alpha": "0.5", "l1_ratio": "0.5", "train_rows": str(train_rows)}


def test_baseline_is_the_error_of_the_training_mean_on_the_test_wines(run, split):
    train, test = split
    error = test["quality"] - train["quality"].mean()
    assert isclose(run.data.metrics["baseline_rmse"], sqrt((error**2).mean()))
    assert run.data.metrics["rmse"] < run.data.metrics["baseline_rmse"]


def test_the_curve_ends_at_the_model_trained_on_all_rows(run, module_work, split):
    curve = client_of(module_work).get_metric_history(run.info.run_id, "rmse_by_train_rows")
    assert [point.step for point in curve] == [50, 200, 800, len(split[0])]
    assert curve[-1].value == run.data.metrics["rmse"]
    assert curve[0].value > curve[-1].value  # fifty wines are not enough


def test_it_logs_no_model(run, module_work):
    assert files_of(module_work, run) == []
    assert files_of(module_work, run, "model") == []


def test_options_reach_the_model_and_the_store(warm, work, split):
    warm.succeed(SCRIPT, work, "--alpha", "0.01", "--l1-ratio", "0.1")
    (run,) = runs_in(work, EXPERIMENT)
    assert (run.data.params["alpha"], run.data.params["l1_ratio"]) == ("0.01", "0.1")
    (X_train, y_train), (X_test, y_test) = (
        (part.drop(columns="quality").astype("float64"), part["quality"]) for part in split
    )
    fitted = ElasticNet(alpha=0.01, l1_ratio=0.1, random_state=42).fit(X_train, y_train)
    error = fitted.predict(X_test) - y_test
    assert isclose(run.data.metrics["rmse"], sqrt((error**2).mean()), rel_tol=1e-9)


@pytest.mark.parametrize(
    ("arguments", "met"),
    [
        (["--alpha", "-1"], "--alpha: -1 is not a number from 0 to 1,000."),
        (["--l1-ratio", "1.5"], "--l1-ratio: 1.5 is not a number from 0 to 1."),
        (["--alpha", "nan"], "--alpha: nan is not a number from 0 to 1,000."),
        (["--alpha", "inf"], "--alpha: inf is not a number from 0 to 1,000."),
        (["--alpha", "strong"], "--alpha: strong is not a number from 0 to 1,000."),
        (["--alpha", "1e30"], "--alpha: 1e30 is not a number from 0 to 1,000."),
        (["--alhpa", "0.3"], "Unknown option --alhpa. Did you mean --alpha?"),
        (["-alpha", "0.3"], "Unknown option -alpha."),
        (["-a", "0.3"], "Unknown option -a."),
    ],
)
def test_a_bad_option_is_refused_before_any_run_exists(tmp_path, monkeypatch, arguments, met):
    """In this process: a kernel would pass over a word that it does not know."""
    monkeypatch.setattr(sys, "argv", [SCRIPT, *arguments])
    monkeypatch.setenv("CMLFLOW_WORKAREA", str(tmp_path))
    with pytest.raises(errors.BadInput, match=re.escape(met)):
        runpy.run_path(str(CODE / SCRIPT), run_name="__main__")
    assert list(tmp_path.iterdir()) == []


def test_a_misspelt_option_stops_the_learners_own_command(tmp_path):
    done = run_script(SCRIPT, tmp_path, "--alhpa", "0.3")
    assert done.returncode != 0
    assert "BadInput: Unknown option --alhpa. Did you mean --alpha?\n" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_twins_that_the_text_speaks_of_are_in_the_data(wines, split):
    train, test = split
    twins = len(test.merge(train.drop_duplicates()))
    repeated = wines.duplicated().sum()
    for path in (CODE / SCRIPT, ROOT / "data" / "README.md"):
        text = re.sub(r"\s+(?:# )?", " ", path.read_text(encoding="utf-8"))
        assert re.search(rf"\b{repeated} rows (?:of the file )?repeat an earlier one", text)
        assert f"{twins} of the {len(test):,} test wines have an exact twin" in text
