"""All lessons in one kernel, one after the other, as in a session; Parts 1 to 3 twice.

What they print there is what the READMEs show.
"""

import re

import printed
import pytest
from conftest import CODE, CellFailed, Kernel, runs_in, table_in

import tutorial

TELCO = [one for one in tutorial.LESSONS if one.startswith("telco/")] + [tutorial.LOOP]
SPARK_LESSONS = [
    lesson
    for lesson in tutorial.LESSONS
    if lesson not in TELCO
    and "\nNeeds      Spark" in (CODE / lesson.split()[0]).read_text(encoding="utf-8")
]
LESSONS = [lesson for lesson in tutorial.LESSONS if lesson not in SPARK_LESSONS + TELCO]


@pytest.fixture(scope="module")
def kernel(module_work):
    with Kernel(module_work) as kernel:
        yield kernel


def run(kernel, lessons):
    """Run the lessons in order; return each with what it printed to stdout."""
    passes = []
    for lesson in lessons:
        kernel.run_lesson(lesson)
        passes.append((lesson, "".join(kernel.stdout)))
    return passes


def reaches_its_last_line_in_each_pass(passes, lesson):
    texts = [text for one, text in passes if one == lesson]
    return len(texts) >= 2 and all(re.search("^Done: ", text, re.MULTILINE) for text in texts)


@pytest.fixture(scope="module")
def session(kernel):
    """What two passes through the lessons without Spark printed."""
    return run(kernel, 2 * LESSONS)


@pytest.fixture(scope="module")
def spark_session(kernel, session):
    """The Spark lessons in the same kernel: each stops its Spark, and the next starts another."""
    return run(kernel, 2 * SPARK_LESSONS)


@pytest.fixture(scope="module")
def telco_session(kernel, spark_session):
    """Part 4, and four days of its loop, which do not print how the messages were sent."""
    by_hand = run(kernel, TELCO[:-1])
    kernel.run_cell("import os; os.environ['CMLFLOW_ROWS_PER_REQUEST'] = '36'")
    return by_hand + run(kernel, TELCO[-1:])


@pytest.mark.parametrize("lesson", LESSONS)
def test_each_lesson_reaches_its_last_line_twice(session, lesson):
    assert reaches_its_last_line_in_each_pass(session, lesson)


def test_the_store_holds_the_runs_of_both_passes(session, module_work):
    for experiment, count in (
        ("example-experiment", 4),
        ("wine-quality-test", 8),  # 23 runs 01_Experiment.py once more
        ("auto-registration", 6),  # 05, 21 and 23 register one version each
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
    (experiment, *more) = rmse[:4]  # 01_Experiment.py, in both passes also as a job of 23
    assert more == [experiment] * 3 and experiment == pytest.approx(0.82224284976, abs=1e-9)
    assert rmse[4] == rmse[5] > experiment  # 02_log_model.py


def test_a_kernel_has_neither_file_nor_own_arguments(kernel):
    assert kernel.run_cell("print('__file__' in globals())").strip() == "False"
    assert "-f" in kernel.run_cell("import sys; print(sys.argv)")


@pytest.mark.parametrize("code", ["import sys; sys.exit(0)", "raise SystemExit", "1 / 0"])
def test_these_tests_would_see_a_system_exit_or_an_error(kernel, code):
    with pytest.raises(CellFailed):
        kernel.run_cell(code)


@pytest.mark.spark
@pytest.mark.parametrize("lesson", dict.fromkeys(SPARK_LESSONS))
def test_each_spark_lesson_reaches_its_last_line_twice(spark_session, lesson):
    assert reaches_its_last_line_in_each_pass(spark_session, lesson)


@pytest.mark.spark
@pytest.mark.parametrize("number", range(len(TELCO)), ids=TELCO)
def test_each_script_of_part_4_reaches_its_last_line(telco_session, number):
    lesson, text = telco_session[number]
    assert lesson == TELCO[number] and re.search("^Done: ", text, re.MULTILINE)


@pytest.mark.spark
def test_the_loop_waits_retrains_and_replaces(telco_session):
    table = telco_session[-1][1].partition("roc_auc decision\n")[2]
    found = re.findall(r"^ +(\d+) +(\d) +(\S+|not yet known) +(\w*)$", table, re.MULTILINE)
    assert [(day, version, decision) for day, version, _, decision in found] == [
        ("6", "1", ""),
        ("7", "1", "keep"),
        ("8", "1", "wait"),
        ("9", "1", "retrain"),
        ("10", "2", "keep"),
        ("11", "2", "keep"),
    ]
    scores = [float(score) for _, _, score, _ in found[:-1]]
    assert min(scores[:2]) > 0.82 > 0.7 > max(scores[2:4]) and scores[4] > 0.82


@pytest.mark.spark
@pytest.mark.parametrize("readme", printed.READMES, ids=["README", "code/README"])
def test_the_readmes_show_what_the_lessons_print(
    readme, session, spark_session, telco_session, module_work
):
    again = [*session, *spark_session, *telco_session]
    found = printed.shown(readme)
    assert found
    for lesson, text in found:
        at = next(place for place, (one, _) in enumerate(again) if one == lesson)
        _, out = again.pop(at)  # a lesson that is shown twice has run twice
        assert printed.masked(text) == printed.masked(printed.moved(out, module_work)), lesson


def test_the_walkthrough_shows_every_lesson_in_order():
    lessons = [lesson for lesson, _ in printed.shown(printed.READMES[1])]
    assert lessons == [*tutorial.LESSONS, tutorial.LOOP]


def test_ids_times_and_paths_are_all_that_may_differ():
    one = "run 0123456789abcdef0123456789abcdef at 2026-01-01 10:00:00: rmse 0.822  \n"
    two = "run fedcba9876543210fedcba9876543210 at 2026-12-31 23:59:59: rmse 0.822\n"
    assert printed.masked(one) == printed.masked(two)
    assert printed.masked(one) != printed.masked(one.replace("0.822", "0.823"))


@pytest.mark.spark
def test_tables_and_runs_of_spark_lessons_are_there(spark_session, module_work):
    assert len(table_in(module_work, "transactions").scan().to_arrow()) > 10_000
    runs = runs_in(module_work, "sparkml-experiment")
    assert [run.info.status for run in runs] == ["FINISHED"] * 6
    for name in ("experiment-1", "experiment-2", "experiment-3"):
        first, second = (run for run in runs if run.info.run_name == name)
        assert first.data.metrics == second.data.metrics


@pytest.mark.spark
def test_a_session_logs_its_training_code_and_repeats_the_run(spark_session, module_work):
    """A kernel has no file of the lesson: the text of the cell is what counts."""
    newest, oldest = runs_in(module_work, "reproductions")
    originals = runs_in(module_work, "keep-snapshot")
    assert [run.data.tags["reproduction_of"] for run in (newest, oldest)] == [
        run.info.run_id for run in originals
    ]
    for again in (newest, oldest):
        assert again.data.tags["reproduction_verdict"] == "identical"


def test_a_lesson_starts_in_a_session_that_was_opened_in_the_code_folder(work):
    with Kernel(work, cwd=CODE) as kernel:
        assert "Done: rmse 0.822" in kernel.run_lesson("01_Experiment.py")
