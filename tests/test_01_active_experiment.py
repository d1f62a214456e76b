import pytest
from conftest import client_of, runs_in, succeed

SCRIPT = "01_Active_Experiment.py"


@pytest.fixture(scope="module")
def printed(module_work):
    return succeed(SCRIPT, module_work)


def test_both_runs_are_finished_and_hold_the_mean_grade(printed, module_work, wines):
    runs = runs_in(module_work, "example-experiment")
    assert sorted(run.info.run_name for run in runs) == ["by-hand", "with-block"]
    for run in runs:
        assert run.info.status == "FINISHED"
        assert run.data.params == {"rows": str(len(wines))}
        assert run.data.metrics == {"mean_quality": pytest.approx(wines["quality"].mean())}


def test_the_run_it_prints_as_active_is_the_run_that_was_logged(printed, module_work):
    (by_hand,) = [
        run for run in runs_in(module_work, "example-experiment") if run.info.run_name == "by-hand"
    ]
    assert f"Active run {by_hand.info.run_id}, status RUNNING" in printed
    assert f"Run with UUID {by_hand.info.run_id} is already active" in printed
    assert "After end_run the active run is None" in printed
    assert "After the block the active run is None" in printed


def test_it_ends_with_the_page_on_which_both_runs_are_compared(printed, module_work, wines):
    experiment = client_of(module_work).get_experiment_by_name("example-experiment")
    assert printed.endswith(
        f"#/experiments/{experiment.experiment_id}/runs?workflowType=machine_learning\n"
    )
    assert f"mean_quality is {wines['quality'].mean():.2f} in both" in printed


def test_artifacts_would_land_in_the_working_area(printed, module_work):
    experiment = client_of(module_work).get_experiment_by_name("example-experiment")
    expected = (module_work / "mlartifacts" / "example-experiment").as_uri()
    assert experiment.artifact_location == expected


def test_a_second_pass_uses_the_same_experiment(printed, warm, module_work):
    before = {run.info.run_id for run in runs_in(module_work, "example-experiment")}
    assert "Experiment example-experiment found" in warm.succeed(SCRIPT, module_work)
    after = {run.info.run_id for run in runs_in(module_work, "example-experiment")}
    assert before < after and len(after) == len(before) + 2
