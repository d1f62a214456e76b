import re

import pytest
from conftest import client_of, runs_in, succeed

SCRIPT = "03_Get_Experiment.py"
EXPERIMENT = "wine-quality-test"


def log_run(client, experiment_id, rmse=None, alpha="0.5"):
    """A run as the lessons log it, without the time that training takes."""
    run_id = client.create_run(experiment_id).info.run_id
    if rmse is not None:
        client.log_metric(run_id, "rmse", rmse)
    client.log_param(run_id, "alpha", alpha)
    client.set_terminated(run_id)
    return run_id


@pytest.fixture(scope="module")
def lesson(warm, module_work):
    """Three scored runs, best in the middle; one without score; one with a model."""
    warm.succeed("02_log_model.py", module_work)
    client = client_of(module_work)
    experiment_id = client.get_experiment_by_name(EXPERIMENT).experiment_id
    log_run(client, experiment_id, 0.9)
    best = log_run(client, experiment_id, 0.7, alpha="0.1")
    log_run(client, experiment_id, 0.8)
    unscored = log_run(client, experiment_id)
    before = [run.info.run_id for run in runs_in(module_work, EXPERIMENT)]
    return succeed(SCRIPT, module_work), best, unscored, before


def test_the_best_run_is_the_one_with_the_lowest_rmse(lesson):
    printed, best, *_ = lesson
    assert f"best of 4 runs has rmse 0.700 (run {best})" in printed


def test_runs_are_listed_best_first_and_without_the_unscored_one(lesson):
    printed, _, unscored, _ = lesson
    listed = [float(text) for text in re.findall(r"^ +(0\.\d{4}) ", printed, re.MULTILINE)]
    assert listed == sorted(listed) and len(listed) == 4
    assert unscored not in printed


def test_it_lists_the_files_of_the_model(lesson, module_work):
    printed, *_ = lesson
    (with_model,) = [
        run
        for run in runs_in(module_work, EXPERIMENT)
        if client_of(module_work).list_artifacts(run.info.run_id, "model")
    ]
    assert f"Files of runs:/{with_model.info.run_id}/model" in printed
    assert "model/MLmodel" in printed


def test_it_prints_the_experiment_that_the_store_has(lesson, module_work):
    printed, *_ = lesson
    experiment = client_of(module_work).get_experiment_by_name(EXPERIMENT)
    assert re.search(rf"^id +{experiment.experiment_id}$", printed, re.MULTILINE)
    assert re.search(rf"^artifacts +{experiment.artifact_location}$", printed, re.MULTILINE)


def test_it_writes_nothing(lesson, module_work):
    *_, before = lesson
    assert [run.info.run_id for run in runs_in(module_work, EXPERIMENT)] == before


def test_it_ends_with_the_page_that_lists_the_best_run_first(lesson, module_work):
    printed, *_ = lesson
    experiment = client_of(module_work).get_experiment_by_name(EXPERIMENT)
    page = f"#/experiments/{experiment.experiment_id}/runs?workflowType=machine_learning"
    assert printed.endswith(f"{page}&orderByKey=metrics.%60rmse%60&orderByAsc=true\n")


def test_an_unknown_experiment_lists_those_that_exist(warm, work):
    client_of(work).create_experiment("some-other-name")
    done = warm.run_script(SCRIPT, work, "--experiment", "wine-qualty")
    assert done.returncode != 0
    assert "BadInput: There is no experiment 'wine-qualty'." in done.stderr
    assert "some-other-name" in done.stderr
    assert "To see the runs of the lessons, run:  python code/03_Get_Experiment.py" in done.stderr
    names = {found.name for found in client_of(work).search_experiments()}
    assert names == {"Default", "some-other-name"}  # looking for it did not create it


def test_without_the_experiment_of_the_lessons_it_names_the_one_to_run_first(warm, work):
    done = warm.run_script(SCRIPT, work)
    assert "MissingStep: There is no experiment 'wine-quality-test'." in done.stderr
    assert "Run this first:  python code/02_log_model.py" in done.stderr


@pytest.mark.parametrize(
    ("experiment", "command"),
    [
        (EXPERIMENT, "Run this first:  python code/02_log_model.py"),
        ("another", "To see the runs of the lessons, run:  python code/03_Get_Experiment.py"),
    ],
)
def test_an_experiment_without_scores_names_a_command_that_mends_it(
    warm, work, experiment, command
):
    client = client_of(work)
    log_run(client, client.create_experiment(experiment))
    done = warm.run_script(SCRIPT, work, "--experiment", experiment)
    assert done.returncode != 0
    assert f"No run of {experiment!r} has the metric rmse" in done.stderr
    assert command in done.stderr


def test_a_run_without_error_is_the_best_and_one_that_is_no_number_is_left_out(warm, work):
    client = client_of(work)
    experiment_id = client.create_experiment(EXPERIMENT)
    for rmse in (0.5, float("nan"), -1.0):
        log_run(client, experiment_id, rmse)
    perfect = log_run(client, experiment_id, 0.0)
    assert f"best of 2 runs has rmse 0.000 (run {perfect})" in warm.succeed(SCRIPT, work)
