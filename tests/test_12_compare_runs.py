import shutil
from math import isclose
from types import SimpleNamespace

import mlflow
import numpy as np
import pytest
from conftest import CODE, CellFailed, Kernel, client_of, files_of, runs_in, succeed
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.preprocessing import StandardScaler

SCRIPT = "12_Compare_Runs.py"
COMPARED = "sklearn-classification"
EXPERIMENT = "sklearn-comparison"
GRID = [(depth, trees) for depth in (3, 6, 12) for trees in (20, 80)]


def log_run(client, experiment_id, name, params, test_accuracy=None, status="FINISHED"):
    """A run as the training scripts log it, without the time that training takes."""
    run_id = client.create_run(experiment_id, run_name=name).info.run_id
    for key, value in params.items():
        client.log_param(run_id, key, value)
    if test_accuracy is not None:
        client.log_metric(run_id, "train_accuracy", 0.93)
        client.log_metric(run_id, "test_accuracy", test_accuracy)
    if status != "RUNNING":
        client.set_terminated(run_id, status)
    return run_id


def log_runs(work):
    """Three finished runs with a score, and three that must not be compared."""
    client = client_of(work)
    experiment_id = client.create_experiment(
        COMPARED, artifact_location=(work / "mlartifacts" / COMPARED).as_uri()
    )
    forest = {"max_depth": 3, "n_estimators": 20}
    compared = [
        log_run(client, experiment_id, "random-forest", forest, 0.92),
        log_run(client, experiment_id, "kneighbors", {"n_neighbors": 5}, 0.932),
        log_run(client, experiment_id, "kneighbors", {"n_neighbors": 900}, 0.5),
    ]
    log_run(client, experiment_id, "kneighbors", {"n_neighbors": 6}, 0.97, "RUNNING")
    log_run(client, experiment_id, "kneighbors", {"n_neighbors": 7}, 0.98, "FAILED")
    log_run(client, experiment_id, "no-score", {"n_neighbors": 8})
    return [compared[1], compared[0], compared[2]]  # best first


@pytest.fixture(scope="module")
def best_first(module_work):
    return log_runs(module_work)


@pytest.fixture(scope="module")
def passes(best_first, module_work, warm, tmp_path_factory):
    """What the lesson printed in each of two passes, the second from another folder."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    printed = [succeed(SCRIPT, module_work), warm.succeed(SCRIPT, module_work, cwd=elsewhere)]
    assert [path for path in elsewhere.rglob("*") if path.is_file()] == []
    return printed


@pytest.fixture(scope="module")
def runs(passes, module_work):
    return runs_in(module_work, EXPERIMENT)


def named(runs, name):
    return [run for run in runs if run.data.tags["mlflow.runName"] == name]


def children_of(parent, runs):
    """The child runs by (max_depth, n_estimators)."""
    mine = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    return {
        tuple(int(run.data.params[f"forest__{name}"]) for name in ("max_depth", "n_estimators")): (
            run
        )
        for run in mine
    }


@pytest.fixture(scope="module")
def arrays():
    """X_train, X_test, y_train, y_test, made as the AMP makes them."""
    X, y = make_classification(n_samples=1000, n_features=20, n_informative=5, random_state=123)
    return train_test_split(X, y, stratify=y, random_state=123)


def accuracy(X_train, y_train, X_test, y_test, depth, trees):
    scaler = StandardScaler().fit(X_train)
    forest = RandomForestClassifier(max_depth=depth, n_estimators=trees, random_state=123)
    forest.fit(scaler.transform(X_train), y_train)
    return (forest.predict(scaler.transform(X_test)) == y_test).mean()


@pytest.fixture(scope="module")
def expected(arrays):
    """Cross-validated accuracy of each combination, fold by fold, without a grid search."""
    X, _, y, _ = arrays
    folds = list(StratifiedKFold(3).split(X, y))
    return {
        combination: np.mean([accuracy(X[a], y[a], X[b], y[b], *combination) for a, b in folds])
        for combination in GRID
    }


def table_of(run, module_work):
    client_of(module_work)
    logged = mlflow.artifacts.load_dict(f"{run.info.artifact_uri}/compared_runs.json")
    return [dict(zip(logged["columns"], row, strict=True)) for row in logged["data"]]


def test_the_table_holds_the_finished_runs_with_a_score_best_first(runs, module_work, best_first):
    table = table_of(named(runs, "comparison")[0], module_work)
    assert [row["run_id"] for row in table] == best_first
    assert [row["test_accuracy"] for row in table] == [0.932, 0.92, 0.5]
    assert [row["n_neighbors"] for row in table] == ["5", None, "900"]
    assert [row["max_depth"] for row in table] == [None, "3", None]
    assert [row["runName"] for row in table] == ["kneighbors", "random-forest", "kneighbors"]


def test_the_printed_table_is_the_logged_one(passes, best_first):
    lines = passes[0].partition("run_id\n")[2].splitlines()
    assert [line.split()[-1] for line in lines[:3]] == best_first
    assert lines[0].split()[:-1] == ["kneighbors", "5", "-", "-", "0.93", "0.932"]


def test_a_second_pass_compares_the_same_runs_and_not_its_own(runs, module_work, best_first):
    second, first = named(runs, "comparison")
    assert table_of(second, module_work) == table_of(first, module_work)
    assert (first.data.metrics, first.data.params) == (second.data.metrics, second.data.params)
    assert first.data.metrics == {"runs": 3, "best_test_accuracy": 0.932}
    assert len(runs_in(module_work, COMPARED)) == 6  # as many as before


def test_comparison_and_grid_search_each_have_a_figure(runs, module_work):
    for run in (*named(runs, "comparison"), *named(runs, "grid-search")):
        assert "parallel_coordinates.png" in files_of(module_work, run)
        path = mlflow.artifacts.download_artifacts(
            f"{run.info.artifact_uri}/parallel_coordinates.png"
        )
        with open(path, "rb") as file:
            assert file.read(8) == b"\x89PNG\r\n\x1a\n"


def test_each_pass_leaves_one_parent_and_a_finished_child_per_combination(runs):
    parents = named(runs, "grid-search")
    assert len(parents) == 2
    for parent in parents:
        children = children_of(parent, runs)
        assert sorted(children) == GRID
        assert {run.info.status for run in (parent, *children.values())} == {"FINISHED"}
    assert len(runs) == 2 * (1 + 1 + len(GRID))  # nothing else is there


def test_each_child_is_named_by_its_params(runs):
    for parent in named(runs, "grid-search"):
        for (depth, trees), run in children_of(parent, runs).items():
            assert run.info.run_name == f"depth {depth}, {trees} trees"
            assert run.data.tags["mlflow.runName"] == run.info.run_name


def test_children_have_the_score_of_an_independent_cross_validation(runs, expected):
    for parent in named(runs, "grid-search"):
        for combination, run in children_of(parent, runs).items():
            score = run.data.metrics["mean_test_score"]
            assert isclose(score, expected[combination], abs_tol=1e-12), combination


def test_the_parent_knows_the_best_combination_and_its_score_on_the_test_rows(
    runs, expected, arrays
):
    X_train, X_test, y_train, y_test = arrays
    best = max(expected, key=expected.get)
    for parent in named(runs, "grid-search"):
        chosen = [
            parent.data.params[f"best_forest__{name}"] for name in ("max_depth", "n_estimators")
        ]
        assert [int(value) for value in chosen] == list(best)
        metrics = parent.data.metrics
        assert isclose(metrics["best_cv_score"], expected[best], abs_tol=1e-12)
        test_accuracy = accuracy(X_train, y_train, X_test, y_test, *best)
        assert isclose(metrics["test_accuracy"], test_accuracy, abs_tol=1e-12)
        constant = int(y_train.mean() > 0.5)
        assert metrics["baseline_accuracy"] == (y_test == constant).mean()


def test_numbers_in_the_prose_are_true(runs, expected):
    assert f"{expected[3, 20]:.3f} {expected[3, 80]:.3f}" == "0.895 0.915"
    assert min(expected[combination] for combination in GRID[2:]) >= 0.925
    metrics = named(runs, "grid-search")[0].data.metrics
    assert round(metrics["test_accuracy"] * 250) == 242
    assert round(metrics["baseline_accuracy"] * 250) == 126
    training = [value for name, value in metrics.items() if name.startswith("training_")]
    assert len(training) > 3
    assert all(
        value == 1
        for name, value in metrics.items()
        if name.startswith("training_") and "loss" not in name
    )


def test_autolog_saves_the_search_and_no_model(runs, module_work):
    parent = named(runs, "grid-search")[0]
    assert "cv_results.csv" in files_of(module_work, parent)
    for run in runs:
        assert not [path for path in files_of(module_work, run) if "model" in path.lower()]
        assert files_of(module_work, run, "model") == []
    assert not [name for name in parent.data.metrics if "X_test" in name]  # scored once, by name


def test_no_param_is_longer_than_cml_takes(runs):
    values = [value for run in runs for value in run.data.params.values()]
    assert max(len(value) for value in values) <= 250


@pytest.mark.parametrize("there", ["nothing", "no runs", "unfinished"])
def test_without_a_finished_run_it_names_the_script_to_run_and_writes_nothing(warm, work, there):
    client = client_of(work)
    if there != "nothing":
        experiment_id = client.create_experiment(COMPARED)
        if there == "unfinished":
            log_run(client, experiment_id, "kneighbors", {}, 0.9, "RUNNING")
    done = warm.run_script(SCRIPT, work)
    assert done.returncode != 0
    assert f"No finished run of the experiment '{COMPARED}' has the metric" in done.stderr
    assert "Run this first:  python code/10_train_kneighbors.py" in done.stderr
    assert client_of(work).get_experiment_by_name(EXPERIMENT) is None


def test_a_deleted_experiment_is_named_and_nothing_is_written(warm, work):
    client = client_of(work)
    experiment_id = client.create_experiment(COMPARED)
    log_run(client, experiment_id, "kneighbors", {}, 0.9)
    client.delete_experiment(experiment_id)
    done = warm.run_script(SCRIPT, work)
    assert done.returncode != 0
    assert f"The experiment '{COMPARED}' was deleted." in done.stderr
    assert client_of(work).get_experiment_by_name(EXPERIMENT) is None


def test_a_foreign_run_with_a_text_as_param_is_compared_too(warm, work):
    log_runs(work)
    client = client_of(work)
    experiment_id = client.get_experiment_by_name(COMPARED).experiment_id
    foreign = {"n_neighbors": "as many as there are", "max_depth": "None"}
    run_id = log_run(client, experiment_id, "foreign", foreign, 0.99)
    assert "Done: 4 runs compared" in warm.succeed(SCRIPT, work)
    (comparison,) = named(runs_in(work, EXPERIMENT), "comparison")
    first = table_of(comparison, work)[0]
    assert (first["run_id"], first["n_neighbors"]) == (run_id, "as many as there are")


def test_help_runs_no_lesson(warm, tmp_path):
    done = warm.run_script(SCRIPT, tmp_path, "--help")
    assert done.stdout.startswith(f"usage: {SCRIPT}")
    assert list(tmp_path.iterdir()) == []


def count_runs(work):
    client = client_of(work)
    ids = [found.experiment_id for found in client.search_experiments()]
    return len(client.search_runs(ids))


FIT = "from sklearn.linear_model import LogisticRegression as L; L().fit(X_train, y_train)"


@pytest.fixture(scope="module")
def session(tmp_path_factory, empty_store):
    """A kernel in which the training scripts have run."""
    work = tmp_path_factory.mktemp("session")
    shutil.copy(empty_store, work)
    with Kernel(work) as kernel:
        for script in ("10_train_kneighbors.py", "11_train_random_forest.py"):
            kernel.run_lesson(script)
        yield SimpleNamespace(kernel=kernel, work=work)


def test_after_an_error_in_the_grid_search_later_fits_log_nothing(session):
    """A run that is still open makes `start_run` fail, with autolog already on."""
    cells = (CODE / SCRIPT).read_text(encoding="utf-8").split("\n# %%\n")
    (at,) = [number for number, cell in enumerate(cells) if "autolog(" in cell]
    for cell in cells[:at]:
        session.kernel.run_cell(cell)
    session.kernel.run_cell("opened = mlflow.start_run(run_name='left-open')")
    with pytest.raises(CellFailed, match="already active"):
        session.kernel.run_cell(cells[at])
    session.kernel.run_cell("mlflow.end_run()")
    before = count_runs(session.work)
    session.kernel.run_cell(FIT)
    assert count_runs(session.work) == before


def test_in_a_kernel_it_compares_the_runs_of_the_training_scripts_and_later_fits_log_nothing(
    session,
):
    printed = session.kernel.run_lesson(SCRIPT)
    before = count_runs(session.work)
    session.kernel.run_cell(FIT)
    assert "Done: 2 runs compared; grid search: test accuracy 0.968" in printed
    comparison = named(runs_in(session.work, EXPERIMENT), "comparison")[0]
    compared = [row["runName"] for row in table_of(comparison, session.work)]
    assert compared == ["kneighbors", "random-forest"]
    assert count_runs(session.work) == before
