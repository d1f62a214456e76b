import re
from math import isclose, sqrt

import mlflow
import numpy as np
import pandas as pd
import pytest
from conftest import CODE, ROOT, STANDINS, client_of, files_of, run_script, runs_in, succeed

SCRIPT = "02_log_model.py"
EXPERIMENT = "wine-quality-test"


@pytest.fixture(scope="module")
def run(module_work):
    succeed(SCRIPT, module_work)
    (run,) = runs_in(module_work, EXPERIMENT)
    return run


@pytest.fixture(scope="module")
def model(run, module_work):
    client_of(module_work)
    return mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/model")


def test_the_logged_model_predicts_with_the_logged_error(run, model, split):
    test = split[1].astype("float64")
    error = model.predict(test.drop(columns="quality")) - test["quality"]
    assert isclose(run.data.metrics["rmse"], sqrt((error**2).mean()))
    assert isclose(run.data.metrics["mae"], error.abs().mean())
    assert run.data.metrics["rmse"] < run.data.metrics["baseline_rmse"]


def test_the_model_has_the_params_of_the_run(run, model):
    fitted = mlflow.sklearn.load_model(f"runs:/{run.info.run_id}/model")
    assert (fitted.alpha, fitted.l1_ratio) == (0.6, 0.6)
    assert (run.data.params["alpha"], run.data.params["l1_ratio"]) == ("0.6", "0.6")


def test_the_signature_names_the_eleven_measurements(model, wines):
    inputs = model.metadata.get_input_schema()
    assert inputs.input_names() == [name for name in wines.columns if name != "quality"]
    assert {str(kind) for kind in inputs.input_types()} == {"DataType.double"}


def test_the_input_example_is_three_test_wines(run, model, split):
    path = f"runs:/{run.info.run_id}/model/input_example.json"
    example = pd.DataFrame(**mlflow.artifacts.load_dict(path))
    expected = split[1].drop(columns="quality").head(3).astype("float64")
    np.testing.assert_array_equal(example.to_numpy(), expected.to_numpy())


def test_requirements_are_pinned_and_free_of_test_tools(run, module_work):
    import sklearn

    client_of(module_work)
    path = mlflow.artifacts.download_artifacts(f"runs:/{run.info.run_id}/model/requirements.txt")
    with open(path, encoding="utf-8") as file:
        lines = file.read().split()
    assert f"scikit-learn=={sklearn.__version__}" in lines
    assert not [line for line in lines if line.startswith("pytest")]


def test_the_model_lies_at_model(run, module_work):
    assert "model/MLmodel" in files_of(module_work, run, "model")
    assert "model/model.pkl" in files_of(module_work, run, "model")


def test_a_missing_column_is_refused_by_name(model, split):
    with pytest.raises(Exception, match="alcohol"):
        model.predict(split[1].drop(columns=["quality", "alcohol"]))


def test_the_last_two_cells_tell_it_apart_from_01_experiment_as_it_says():
    """Data, split and scores are the same, and the curve is left out."""

    def statements(script):
        cells = (CODE / script).read_text(encoding="utf-8").split("\n# %%\n")[1:]
        code = (
            "\n".join(line for line in cell.splitlines() if line and not line.startswith("#"))
            for cell in cells
        )
        return [cell for cell in code if cell]

    first, second = statements("01_Experiment.py"), statements(SCRIPT)
    assert second[0] == first[0].replace("default=0.5", "default=0.6")
    assert second[1:3] == first[1:3]
    for call in ("log_model(", "load_model("):
        assert not any(call in cell for cell in first)
    assert [("log_model(" in cell) for cell in second] == [False, False, False, True, False]
    assert [("load_model(" in cell) for cell in second] == [False, False, False, False, True]
    assert any("rmse_by_train_rows" in cell for cell in first)
    assert not any("rmse_by_train_rows" in cell for cell in second)
    said = re.sub(r"\n# ", " ", (CODE / SCRIPT).read_text(encoding="utf-8"))
    assert "the curve by training rows is left out. New are the last two cells:" in said


def test_a_bad_option_is_refused_before_any_run_exists(warm, tmp_path):
    done = warm.run_script(SCRIPT, tmp_path, "--l1-ratio", "-0.1")
    assert done.returncode != 0
    assert "--l1-ratio: -0.1 is not a number from 0 to 1." in done.stderr
    assert not (tmp_path / "mlflow.db").exists()


def test_without_flask_it_logs_the_model_and_mlflow_2_warns_as_the_readme_says(work):
    done = run_script(SCRIPT, work, PYTHONPATH=str(STANDINS / "no_flask"))
    assert done.returncode == 0, done.stderr[-2000:]
    (run,) = runs_in(work, EXPERIMENT)
    assert "model/input_example.json" in files_of(work, run, "model")
    readme = (ROOT / "docs" / "TROUBLESHOOTING.md").read_text(encoding="utf-8")
    (heading,) = re.findall(r"^### `(.*flask.*)` in CML$", readme, re.MULTILINE)
    if mlflow.__version__.startswith("2."):
        begin, end = heading.split(" … ")
        assert re.search(f"{re.escape(begin)}.*{re.escape(end)}", done.stderr, re.DOTALL)
