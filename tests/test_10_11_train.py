"""10_train_kneighbors.py and 11_train_random_forest.py: two kinds of model, one experiment."""

from math import isclose

import mlflow
import numpy as np
import pandas as pd
import pytest
from conftest import Kernel, client_of, files_of, runs_in, succeed
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split

EXPERIMENT = "sklearn-classification"
RUN_NAMES = {"10_train_kneighbors.py": "kneighbors", "11_train_random_forest.py": "random-forest"}
FEATURES = [f"feature_{number:02d}" for number in range(20)]


@pytest.fixture(scope="module")
def arrays():
    """X_train, X_test, y_train, y_test, made as the AMP makes them."""
    X, y = make_classification(n_samples=1000, n_features=20, n_informative=5, random_state=123)
    return train_test_split(X, y, stratify=y, random_state=123)


def scaled(X_train, X):
    return (X - X_train.mean(axis=0)) / X_train.std(axis=0)


def answers_of_neighbours(arrays, X, count):
    """What most of the nearest training rows say, counted without scikit-learn."""
    X_train, _, y_train, _ = arrays
    gaps = scaled(X_train, X)[:, None, :] - scaled(X_train, X_train)[None, :, :]
    nearest = np.argsort((gaps**2).sum(axis=2), axis=1)[:, :count]
    return (y_train[nearest].mean(axis=1) > 0.5).astype(int)  # an odd count: no draws


def accuracies(arrays, script, **params):
    """Training and test accuracy, computed without the lesson."""
    X_train, X_test, y_train, y_test = arrays
    if script == "10_train_kneighbors.py":
        train, test = (
            answers_of_neighbours(arrays, X, params["n_neighbors"]) for X in (X_train, X_test)
        )
    else:
        forest = RandomForestClassifier(**params, random_state=123)
        forest.fit(scaled(X_train, X_train), y_train)
        train, test = (forest.predict(scaled(X_train, X)) for X in (X_train, X_test))
    return (train == y_train).mean(), (test == y_test).mean()


def by_name(runs):
    return {run.data.tags["mlflow.runName"]: run for run in runs}


@pytest.fixture(scope="module")
def runs(module_work, tmp_path_factory):
    """Both scripts, started from a folder that has nothing to do with the project."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for script in RUN_NAMES:
        succeed(script, module_work, cwd=elsewhere)
    assert [path for path in elsewhere.rglob("*") if path.is_file()] == []
    return runs_in(module_work, EXPERIMENT)


@pytest.fixture(params=RUN_NAMES)
def script(request):
    return request.param


@pytest.fixture
def run(runs, script):
    return by_name(runs)[RUN_NAMES[script]]


@pytest.fixture
def model(run, module_work):
    client_of(module_work)
    return mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/model")


def test_both_log_one_finished_run_to_the_same_experiment(runs):
    assert sorted(by_name(runs)) == sorted(RUN_NAMES.values())
    assert [run.info.status for run in runs] == ["FINISHED"] * 2


def test_both_log_the_same_metrics_so_that_they_can_be_compared(runs):
    expected = {"train_accuracy", "test_accuracy", "baseline_accuracy"}
    assert [set(run.data.metrics) for run in runs] == [expected] * 2


def test_params_are_what_was_chosen(runs):
    found = by_name(runs)
    assert found["kneighbors"].data.params == {"n_neighbors": "5", "train_rows": "750"}
    assert found["random-forest"].data.params == {
        "max_depth": "3",
        "n_estimators": "20",
        "seed": "123",
        "train_rows": "750",
    }


def test_accuracies_are_those_of_an_independent_computation(run, script, arrays):
    names = {"10_train_kneighbors.py": ["n_neighbors"]}.get(script, ["max_depth", "n_estimators"])
    chosen = {name: int(run.data.params[name]) for name in names}
    train, test = accuracies(arrays, script, **chosen)
    assert isclose(run.data.metrics["train_accuracy"], train, abs_tol=1e-12)
    assert isclose(run.data.metrics["test_accuracy"], test, abs_tol=1e-12)


def test_numbers_in_the_prose_of_the_lessons_are_true(runs, arrays):
    rows = len(arrays[3])
    found = {name: run.data.metrics for name, run in by_name(runs).items()}
    assert round(found["kneighbors"]["train_accuracy"], 2) == 0.93
    assert found["kneighbors"]["test_accuracy"] == 233 / rows
    assert found["random-forest"]["test_accuracy"] == 230 / rows
    single = accuracies(arrays, "10_train_kneighbors.py", n_neighbors=1)
    assert (single[0], round(single[1], 2)) == (1.0, 0.87)
    deep = accuracies(arrays, "11_train_random_forest.py", max_depth=12, n_estimators=80)
    assert deep[1] == 242 / rows


def test_baseline_is_the_larger_class_of_the_training_rows(run, arrays):
    *_, y_train, y_test = arrays
    constant = int(y_train.sum() * 2 > len(y_train))
    assert run.data.metrics["baseline_accuracy"] == (y_test == constant).mean()
    assert run.data.metrics["test_accuracy"] > run.data.metrics["baseline_accuracy"] + 0.3


def test_the_logged_model_predicts_with_the_logged_accuracy(run, model, arrays):
    _, X_test, _, y_test = arrays
    answers = model.predict(pd.DataFrame(X_test, columns=FEATURES))
    assert isclose((answers == y_test).mean(), run.data.metrics["test_accuracy"], abs_tol=1e-12)


def test_the_scaler_is_part_of_the_model(run, module_work, arrays):
    client_of(module_work)
    steps = mlflow.sklearn.load_model(f"runs:/{run.info.run_id}/model").steps
    name, scaler = steps[0]
    assert name == "standardscaler"
    np.testing.assert_allclose(scaler.mean_, arrays[0].mean(axis=0))


def test_the_signature_names_twenty_numbers_and_the_label(model):
    inputs = model.metadata.get_input_schema()
    assert inputs.input_names() == FEATURES
    assert {str(kind) for kind in inputs.input_types()} == {"DataType.double"}
    assert "int64" in str(model.metadata.get_output_schema())


def test_the_model_lies_at_model_with_example_and_pinned_requirements(run, module_work, arrays):
    import sklearn

    files = files_of(module_work, run, "model")
    assert {"model/MLmodel", "model/model.pkl", "model/requirements.txt"} <= set(files)
    uri = f"runs:/{run.info.run_id}/model"
    example = pd.DataFrame(**mlflow.artifacts.load_dict(f"{uri}/input_example.json"))
    np.testing.assert_array_equal(example.to_numpy(), arrays[1][:3])
    lines = mlflow.artifacts.load_text(f"{uri}/requirements.txt").split()
    others = [line for line in lines if not line.startswith("mlflow==")]
    assert others == [f"scikit-learn=={sklearn.__version__}"]  # guessing would add more


def test_in_a_kernel_they_log_the_same_numbers_twice(runs, work):
    with Kernel(work) as kernel:
        for script in [*RUN_NAMES] * 2:
            assert "Done: test accuracy 0.9" in kernel.run_lesson(script)
    found = runs_in(work, EXPERIMENT)
    assert [run.info.status for run in found] == ["FINISHED"] * 4
    for name, first in by_name(runs).items():
        same = [run for run in found if run.data.tags["mlflow.runName"] == name]
        assert [run.data.metrics for run in same] == [first.data.metrics] * 2
        assert [run.data.params for run in same] == [first.data.params] * 2


def test_options_and_variables_reach_the_model_and_the_command_line_wins(warm, work, arrays):
    warm.succeed("10_train_kneighbors.py", work, CMLFLOW_N_NEIGHBORS="9")
    warm.succeed(
        *("11_train_random_forest.py", work, "--max-depth", "12"),
        CMLFLOW_MAX_DEPTH="2",
        CMLFLOW_N_ESTIMATORS="40",
    )
    found = by_name(runs_in(work, EXPERIMENT))
    assert found["kneighbors"].data.params["n_neighbors"] == "9"
    forest = found["random-forest"]
    assert (forest.data.params["max_depth"], forest.data.params["n_estimators"]) == ("12", "40")
    for name, script, chosen in (
        ("kneighbors", "10_train_kneighbors.py", {"n_neighbors": 9}),
        ("random-forest", "11_train_random_forest.py", {"max_depth": 12, "n_estimators": 40}),
    ):
        _, test = accuracies(arrays, script, **chosen)
        assert isclose(found[name].data.metrics["test_accuracy"], test, abs_tol=1e-12)
        fitted = mlflow.sklearn.load_model(f"runs:/{found[name].info.run_id}/model")[-1]
        assert {key: fitted.get_params()[key] for key in chosen} == chosen


@pytest.mark.parametrize(
    ("script", "option", "value"),
    [
        ("10_train_kneighbors.py", "--n-neighbors", "0"),
        ("10_train_kneighbors.py", "--n-neighbors", "751"),  # there are 750 training rows
        ("10_train_kneighbors.py", "--n-neighbors", "five"),
        ("11_train_random_forest.py", "--max-depth", "0"),
        ("11_train_random_forest.py", "--max-depth", "-3"),
        ("11_train_random_forest.py", "--max-depth", "101"),
        ("11_train_random_forest.py", "--max-depth", "1" + "0" * 30),
        ("11_train_random_forest.py", "--n-estimators", "0"),
        ("11_train_random_forest.py", "--n-estimators", "1001"),
        ("11_train_random_forest.py", "--n-estimators", "2.5"),
    ],
)
@pytest.mark.parametrize("by_variable", [False, True])
def test_a_bad_value_is_refused_in_three_lines_before_anything_exists(
    warm, tmp_path, script, option, value, by_variable
):
    variable = "CMLFLOW_" + option[2:].upper().replace("-", "_")
    if by_variable:
        done = warm.run_script(script, tmp_path, **{variable: value})
        named, cure = variable, f"run:  unset {variable}"
    else:
        done = warm.run_script(script, tmp_path, option, value)
        named, cure = option, f"code/{script} --help"
    assert done.returncode == 1
    problem, expected, mend = done.stderr.splitlines()[-4:-1]
    assert named in problem and f" {value} is not a whole number" in problem
    assert expected.startswith("Expected: ") and "1 " in expected
    assert mend.endswith(cure)
    assert list(tmp_path.iterdir()) == []  # no store, hence no experiment and no run


def test_as_many_neighbours_as_training_rows_give_the_baseline(warm, work):
    warm.succeed("10_train_kneighbors.py", work, "--n-neighbors", "750")
    (run,) = runs_in(work, EXPERIMENT)
    assert run.data.metrics["test_accuracy"] == run.data.metrics["baseline_accuracy"]


def test_one_neighbour_is_no_plural(warm, work):
    assert "\n1 neighbour: " in warm.succeed("10_train_kneighbors.py", work, "--n-neighbors", "1")
