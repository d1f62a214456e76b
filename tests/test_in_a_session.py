"""All lessons in one kernel, one after the other, as in a CML session, and all of them twice."""

import re

import pytest
from conftest import ROOT, CellFailed, Kernel, runs_in, table_in

import tutorial

SPARK_LESSONS = (
    "00_datagen.py",
    "06_Spark_Iceberg.py",
    "14_XGBoost_Iceberg.py",
    "07_Keep_Snapshot.py",
    "08_Reproduce_Run.py",
)
LESSONS = [line for line in tutorial.LESSONS if line.split()[0] not in SPARK_LESSONS]


@pytest.fixture(scope="module")
def session(module_work):
    """What two passes through the lessons without Spark printed, in one kernel."""
    with Kernel(module_work) as kernel:
        return [{lesson: kernel.run_lesson(lesson) for lesson in LESSONS} for _ in range(2)]


@pytest.mark.parametrize("lesson", LESSONS)
def test_each_lesson_reaches_its_last_line_twice(session, lesson):
    for printed in session:
        assert re.search("^Done: ", printed[lesson], re.MULTILINE)


def test_the_store_holds_the_runs_of_both_passes(session, module_work):
    for experiment, count in (
        ("example-experiment", 4),
        ("wine-quality-test", 6),
        ("auto-registration", 2),
    ):
        runs = runs_in(module_work, experiment)
        assert len(runs) == count, experiment
        assert {run.info.status for run in runs} == {"FINISHED"}


def test_a_session_logs_the_numbers_that_a_terminal_logs(session, module_work):
    rmse = sorted(
        run.data.metrics["rmse"]
        for run in runs_in(module_work, "wine-quality-test")
        if "rmse" in run.data.metrics
    )
    assert rmse[0] == rmse[1] == pytest.approx(0.82224284976, abs=1e-9)  # 01_Experiment.py
    assert rmse[2] == rmse[3] > rmse[0]  # 02_log_model.py


def test_a_kernel_has_neither_file_nor_own_arguments(tmp_path):
    with Kernel(tmp_path) as kernel:
        assert kernel.run_cell("print('__file__' in globals())").strip() == "False"
        assert "-f" in kernel.run_cell("import sys; print(sys.argv)")


def test_a_lesson_starts_in_a_session_that_was_opened_in_the_code_folder(work):
    with Kernel(work, cwd=ROOT / "code") as kernel:
        assert "Done: rmse 0.822" in kernel.run_lesson("01_Experiment.py")


@pytest.mark.parametrize("code", ["import sys; sys.exit(0)", "raise SystemExit", "1 / 0"])
def test_these_tests_would_see_a_system_exit_or_an_error(tmp_path, code):
    with Kernel(tmp_path) as kernel, pytest.raises(CellFailed):
        kernel.run_cell(code)


@pytest.fixture(scope="module")
def spark_session(tmp_path_factory):
    """The Spark lessons in one kernel: each stops its Spark, and the next starts another."""
    work = tmp_path_factory.mktemp("session")
    order = (
        "06_Spark_Iceberg.py",
        "00_datagen.py",
        "14_XGBoost_Iceberg.py",
        "14_XGBoost_Iceberg.py",
        "07_Keep_Snapshot.py",
        "08_Reproduce_Run.py",
        "06_Spark_Iceberg.py",
    )
    with Kernel(work) as kernel:
        return work, [kernel.run_lesson(lesson) for lesson in order]


@pytest.mark.spark
def test_each_spark_lesson_reaches_its_last_line(spark_session):
    assert all("Done: " in printed for printed in spark_session[1])


@pytest.mark.spark
def test_tables_and_runs_of_spark_lessons_are_there(spark_session):
    work, _ = spark_session
    assert len(table_in(work, "transactions").scan().to_arrow()) == 10_000
    runs = runs_in(work, "sparkml-experiment")
    assert [run.info.status for run in runs] == ["FINISHED"] * 6
    for name in ("experiment-1", "experiment-2", "experiment-3"):
        first, second = (run for run in runs if run.info.run_name == name)
        assert first.data.metrics == second.data.metrics
    twice = [run for run in runs_in(work, "xgboost-fraud") if run.info.run_name == "one-machine"]
    assert len(twice) == 2
    assert twice[0].data.metrics == twice[1].data.metrics


@pytest.mark.spark
def test_a_session_logs_its_training_code_and_repeats_the_run(spark_session):
    """A kernel has no file of the lesson: the text of the cell is what counts."""
    work, _ = spark_session
    (again,) = runs_in(work, "reproductions")
    (original,) = runs_in(work, "keep-snapshot")
    assert again.data.tags["reproduction_of"] == original.info.run_id
    assert again.data.tags["reproduction_verdict"] == "identical"
