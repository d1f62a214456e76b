import importlib.util
import os
import re
from math import isclose

import mlflow
import numpy as np
import pandas as pd
import pytest
from conftest import CODE, ROOT, Kernel, client_of, files_of, runs_in, succeed
from sklearn.datasets import make_classification
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

SCRIPT = "13_Tune_Nested_Runs.py"
EXPERIMENT = "sklearn-tuning"
TRIALS = 3
FEATURES = [f"feature_{number:02d}" for number in range(20)]

needs_optuna = pytest.mark.skipif(
    importlib.util.find_spec("optuna") is None, reason="optuna is not installed"
)


@pytest.fixture(scope="module")
def arrays():
    """X_train, X_test, y_train, y_test, made as the AMP makes them."""
    X, y = make_classification(n_samples=1000, n_features=20, n_informative=5, random_state=123)
    return train_test_split(X, y, stratify=y, random_state=123)


def params_of(run, prefix=""):
    """The params of a trial, as types that scikit-learn takes."""
    params = run.data.params
    return {
        "n_neighbors": int(params[f"{prefix}n_neighbors"]),
        "weights": params[f"{prefix}weights"],
        "p": int(params[f"{prefix}p"]),
    }


def accuracy(X_train, y_train, X_test, y_test, params):
    scaler = StandardScaler().fit(X_train)
    fitted = KNeighborsClassifier(**params).fit(scaler.transform(X_train), y_train)
    return (fitted.predict(scaler.transform(X_test)) == y_test).mean()


def cross_validated(arrays, params):
    """Accuracy in five folds of the training rows, fold by fold."""
    X, _, y, _ = arrays
    folds = StratifiedKFold(5).split(X, y)
    return np.mean([accuracy(X[a], y[a], X[b], y[b], params) for a, b in folds])


def parents_in(work):
    """The parent runs, newest first."""
    runs = runs_in(work, EXPERIMENT)
    return [run for run in runs if "mlflow.parentRunId" not in run.data.tags]


def children_of(work, parent):
    """The child runs in the order of the trials."""
    mine = [
        run
        for run in runs_in(work, EXPERIMENT)
        if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id
    ]
    return sorted(mine, key=lambda run: run.data.tags["mlflow.runName"])


@pytest.fixture(scope="module")
def passes(module_work, warm, tmp_path_factory):
    """(parent, children) of two passes, newest first; the second ran in another folder."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    succeed(SCRIPT, module_work, "--trials", str(TRIALS))
    warm.succeed(SCRIPT, module_work, CMLFLOW_TRIALS=str(TRIALS), cwd=elsewhere)
    assert [path for path in elsewhere.rglob("*") if path.is_file()] == []
    return [(parent, children_of(module_work, parent)) for parent in parents_in(module_work)]


@pytest.fixture(scope="module")
def parent(passes):
    return passes[0][0]


@pytest.fixture(scope="module")
def children(passes):
    return passes[0][1]


@needs_optuna
def test_each_pass_leaves_a_finished_parent_with_a_finished_child_per_trial(passes, module_work):
    assert len(passes) == 2
    for parent, children in passes:
        assert parent.data.tags["mlflow.runName"] == "tuning"
        names = [run.data.tags["mlflow.runName"] for run in children]
        assert names == [f"trial-{number:02d}" for number in range(TRIALS)]
        assert {run.info.status for run in (parent, *children)} == {"FINISHED"}
    assert len(runs_in(module_work, EXPERIMENT)) == 2 * (1 + TRIALS)


@needs_optuna
def test_a_second_pass_gives_the_same_numbers(passes):
    (newest, its_children), (first, first_children) = passes
    assert newest.data.metrics == first.data.metrics
    assert newest.data.params == first.data.params
    for one, other in zip(its_children, first_children, strict=True):
        assert one.data.params == other.data.params
        assert one.data.metrics == other.data.metrics


@needs_optuna
def test_a_trial_is_scored_by_cross_validation_on_the_training_rows_only(children, arrays):
    for run in children:
        assert set(run.data.metrics) == {"cv_accuracy"}  # nothing that saw the test rows
        expected = cross_validated(arrays, params_of(run))
        assert isclose(run.data.metrics["cv_accuracy"], expected, abs_tol=1e-12)


@needs_optuna
def test_the_first_trial_is_the_untuned_model(children, parent):
    assert params_of(children[0]) == {"n_neighbors": 5, "weights": "uniform", "p": 2}
    assert parent.data.metrics["untuned_cv_accuracy"] == children[0].data.metrics["cv_accuracy"]


@needs_optuna
def test_the_parent_has_the_params_and_the_score_of_its_best_child(parent, children):
    best = max(children, key=lambda run: run.data.metrics["cv_accuracy"])
    assert params_of(parent, "best_") == params_of(best)
    assert parent.data.metrics["best_cv_accuracy"] == best.data.metrics["cv_accuracy"]
    chosen = {name: parent.data.params[name] for name in ("trials", "seed", "max_neighbors")}
    assert chosen == {"trials": str(TRIALS), "seed": "1", "max_neighbors": "50"}


@needs_optuna
def test_the_curve_of_the_parent_is_the_best_score_so_far(parent, children, module_work):
    curve = client_of(module_work).get_metric_history(parent.info.run_id, "best_cv_accuracy")
    scores = [run.data.metrics["cv_accuracy"] for run in children]
    so_far = [(number, max(scores[: number + 1])) for number in range(TRIALS)]
    assert sorted((point.step, point.value) for point in curve) == so_far


@needs_optuna
def test_the_best_model_is_logged_with_its_accuracy_on_the_test_rows(
    parent, children, arrays, module_work
):
    X_train, X_test, y_train, y_test = arrays
    logged = parent.data.metrics["test_accuracy"]
    expected = accuracy(X_train, y_train, X_test, y_test, params_of(parent, "best_"))
    assert isclose(logged, expected, abs_tol=1e-12)
    client_of(module_work)
    model = mlflow.pyfunc.load_model(f"runs:/{parent.info.run_id}/model")
    assert model.metadata.get_input_schema().input_names() == FEATURES
    answers = model.predict(pd.DataFrame(X_test, columns=FEATURES))
    assert isclose((answers == y_test).mean(), logged, abs_tol=1e-12)
    constant = int(y_train.mean() > 0.5)
    assert parent.data.metrics["baseline_accuracy"] == (y_test == constant).mean()
    assert "model/MLmodel" in files_of(module_work, parent, "model")
    assert [files_of(module_work, run) for run in children] == [[]] * TRIALS


@needs_optuna
def test_a_trial_that_fails_leaves_a_failed_child_and_tuning_goes_on(warm, work, arrays):
    """Up to 750 rows may vote, but only 600 train in each fold."""
    printed = warm.succeed(SCRIPT, work, "--trials", "6", "--max-neighbors", "750")
    (parent,) = parents_in(work)
    children = children_of(work, parent)
    assert parent.info.status == "FINISHED"
    failed = []
    for number, run in enumerate(children):
        try:
            expected = cross_validated(arrays, params_of(run))
        except ValueError as error:
            failed.append(number)
            assert (run.info.status, run.data.metrics) == ("FAILED", {})
            assert f"trial {number:>2}: " in printed and f"failed: {error}" in printed
        else:
            assert run.info.status == "FINISHED"
            assert isclose(run.data.metrics["cv_accuracy"], expected, abs_tol=1e-12)
    assert 0 < len(failed) < len(children) == 6
    curve = client_of(work).get_metric_history(parent.info.run_id, "best_cv_accuracy")
    assert sorted(point.step for point in curve) == sorted(set(range(6)) - set(failed))


@needs_optuna
def test_in_a_kernel_it_logs_the_numbers_that_a_terminal_logs_twice(passes, work):
    with Kernel(work, CMLFLOW_TRIALS=str(TRIALS)) as kernel:
        for _ in range(2):
            assert "\nDone: cross-validated accuracy 0." in kernel.run_lesson(SCRIPT)
        kernel.run_cell("import sys; sys.modules['optuna'] = None")  # as if it were not installed
        assert kernel.run_lesson(SCRIPT).startswith("Skipped: ")
    parents = parents_in(work)
    assert [run.info.status for run in parents] == ["FINISHED"] * 2
    assert [run.data.metrics for run in parents] == [passes[0][0].data.metrics] * 2
    for parent in parents:
        scores = [run.data.metrics for run in children_of(work, parent)]
        assert scores == [run.data.metrics for run in passes[0][1]]


@needs_optuna
def test_with_its_default_options_the_numbers_in_the_prose_are_true(warm, work, arrays):
    warm.succeed(SCRIPT, work)
    (parent,) = parents_in(work)
    assert len(children_of(work, parent)) == 12
    assert params_of(parent, "best_") == {"n_neighbors": 34, "weights": "distance", "p": 1}
    metrics = parent.data.metrics
    assert f"{metrics['best_cv_accuracy']:.3f}" == "0.925"
    assert f"{metrics['untuned_cv_accuracy']:.3f}" == "0.892"
    X_train, X_test, y_train, y_test = arrays
    untuned = accuracy(X_train, y_train, X_test, y_test, {"n_neighbors": 5})
    assert metrics["test_accuracy"] == untuned == 233 / 250


@pytest.fixture
def without_optuna(tmp_path_factory):
    """A PYTHONPATH on which Python answers as where Optuna is not installed."""
    folder = tmp_path_factory.mktemp("no_optuna")
    (folder / "sitecustomize.py").write_text("import sys; sys.modules['optuna'] = None\n")
    return os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])


def test_without_optuna_it_says_in_one_line_what_to_install_and_creates_nothing(
    tmp_path, without_optuna
):
    printed = succeed(SCRIPT, tmp_path, PYTHONPATH=without_optuna)
    assert printed == "Skipped: this lesson needs Optuna:  pip install optuna==5.0.0\n"
    assert list(tmp_path.iterdir()) == []


def test_the_version_it_names_is_the_one_that_is_pinned():
    pins = (ROOT / "requirements-local.txt").read_text(encoding="utf-8").splitlines()
    (pin,) = [line for line in pins if line.startswith("optuna==")]
    named = re.findall(r"pip install (optuna==[\d.]+)", (CODE / SCRIPT).read_text(encoding="utf-8"))
    assert named and set(named) == {pin}


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--trials", "0"),
        ("--trials", "1001"),
        ("--trials", "few"),
        ("--max-neighbors", "751"),
        ("--max-neighbors", "4"),
    ],
)
def test_a_bad_value_is_refused_before_anything_exists(warm, tmp_path, option, value):
    done = warm.run_script(SCRIPT, tmp_path, option, value)
    assert done.returncode == 1
    problem, expected, _ = done.stderr.splitlines()[-4:-1]
    assert f"{option}: {value} is not a whole number" in problem
    assert expected.startswith("Expected: ")
    assert list(tmp_path.iterdir()) == []
