"""Comparisons, verdicts and refusals of 08 without Spark and without a store."""

from types import SimpleNamespace

import numpy as np
import pytest

from cmlflow import errors, reproduction
from cmlflow.reproduction import Libraries, Training

SAME = Libraries(known=True)
LOSS = {"loss": [(1, 0.5), (2, 0.25)]}
PREDICTIONS = np.array([0.5, 0.25, 1.0])


def training(rows="3", metrics=LOSS, predictions=PREDICTIONS):
    return Training(rows, metrics, np.array(predictions))


def different(first, again):
    comparison = reproduction.compare(first, again)
    return list(comparison.loc[~comparison["equal"], "what"])


def test_equal_trainings_differ_in_nothing():
    comparison = reproduction.compare(training(), training())
    assert list(comparison["what"]) == ["rows", "loss", "predictions"]
    assert list(comparison["first"]) == ["3", "0.25", "3"]  # of a metric the last step
    assert list(comparison["again"]) == ["3", "0.25", "3 equal"]
    assert comparison["equal"].all()
    assert reproduction.verdict_of(comparison, SAME) == "identical"


@pytest.mark.parametrize(
    ("what", "again"),
    [
        ("rows", training(rows="4")),
        ("loss", training(metrics={"loss": [(1, 0.5), (2, np.nextafter(0.25, 1))]})),
        ("loss", training(metrics={"loss": [(1, 0.5), (3, 0.25)]})),
        ("loss", training(metrics={"loss": [(2, 0.25)]})),
        ("loss", training(metrics={})),
        ("auc", training(metrics=LOSS | {"auc": [(0, 1.0)]})),
        ("predictions", training(predictions=[0.5, np.nextafter(0.25, 1), 1.0])),
        ("predictions", training(predictions=[0.5, 0.25])),
        ("predictions", training(predictions=[0.25, 0.5, 1.0])),
        ("predictions", training(predictions=np.float32([0.5, 0.25, 1.0]))),
        ("predictions", training(predictions=[0.5, 0.25, np.nan])),
    ],
)
def test_a_difference_in_one_bit_one_step_or_one_row_is_named(what, again):
    assert different(training(), again) == different(again, training()) == [what]


def test_the_order_in_which_a_store_lists_the_steps_does_not_matter():
    assert different(training(), training(metrics={"loss": [(2, 0.25), (1, 0.5)]})) == []


def test_what_is_not_a_number_equals_itself():
    strange = training(metrics={"loss": [(0, np.nan)]}, predictions=[np.nan, 1.0, 2.0])
    assert different(strange, strange) == []


@pytest.mark.parametrize(
    ("libraries", "verdict"),
    [
        (SAME, "identical"),
        (Libraries(known=False), "equal numbers, but the model names no libraries"),
        (
            Libraries(True, ["numpy 1 then, 2 now"], ["numpy==1"]),
            "equal numbers, but other libraries: numpy 1 then, 2 now",
        ),
    ],
)
def test_identical_is_said_only_of_the_same_libraries(libraries, verdict):
    comparison = reproduction.compare(training(), training())
    assert reproduction.verdict_of(comparison, libraries) == verdict


def test_what_differs_comes_before_the_libraries():
    comparison = reproduction.compare(training(), training(rows="4", metrics={}))
    verdict = reproduction.verdict_of(comparison, Libraries(True, ["a 1 then, 2 now"], ["a==1"]))
    assert verdict == "different: rows, loss (libraries: a 1 then, 2 now)"


def test_other_unpinned_and_absent_libraries_are_told_apart():
    found = reproduction.compare_libraries(
        f"mlflow==0.1\nnumpy=={np.__version__}\npandas==0.1\n# a remark\n\nabsent==1.0\nscipy\n"
    )
    assert found.known
    assert found.pins == ["pandas==0.1", "absent==1.0", "scipy"]
    then_and_now = str(found).split("; ")
    assert then_and_now[0].startswith("pandas 0.1 then, ")
    assert then_and_now[1] == "absent 1.0 then, not installed now"
    assert then_and_now[2].startswith("scipy unknown then, ")


@pytest.mark.parametrize("requirements", ["", "mlflow==3.0\n", "# none\n"])
def test_a_model_that_names_no_library_is_not_called_the_same(requirements):
    found = reproduction.compare_libraries(requirements)
    assert not found.known
    assert str(found) == "the model names none"


@pytest.mark.parametrize(
    ("chosen", "trust"),
    [
        ({}, False),
        ({"run_id": "r"}, True),
        ({"model": "m"}, True),
        ({"model": "m", "version": 1}, False),
        ({"model": "m", "alias": "champion"}, True),
    ],
)
def test_options_that_name_one_run_or_none_are_accepted(chosen, trust):
    reproduction.require_one_run(chosen, trust)


@pytest.mark.parametrize(
    ("chosen", "trust", "given"),
    [
        ({"alias": "champion"}, False, "--alias champion"),
        ({"version": 1}, False, "--version 1"),
        ({"run_id": "r", "model": "m"}, False, "--run-id r, --model m"),
        ({"model": "m", "version": 1, "alias": "a"}, False, "--model m, --version 1, --alias a"),
        ({}, True, "--trust"),  # in whom?
    ],
)
def test_options_that_name_no_run_are_refused(chosen, trust, given):
    with pytest.raises(errors.BadInput) as caught:
        reproduction.require_one_run(chosen, trust)
    assert str(caught.value).startswith(f"These options do not name one run: {given}.\n")


def run_of(author="eve", tags=(), datasets=()):
    tags = {"mlflow.user": author} | dict(tags)
    return SimpleNamespace(
        info=SimpleNamespace(run_id="abc", experiment_id="7", user_id=author, run_name="theirs"),
        data=SimpleNamespace(tags=tags),
        inputs=SimpleNamespace(dataset_inputs=list(datasets)),
    )


def dataset(context, rows=5, kind="iceberg"):
    tags = [SimpleNamespace(key="mlflow.data.context", value=context)] if context else []
    used = SimpleNamespace(source_type=kind, profile=f'{{"num_rows": {rows}}}')
    return SimpleNamespace(dataset=used, tags=tags)


@pytest.mark.parametrize(
    ("model_uri", "which"),
    [
        ("runs:/abc/model", "--run-id abc"),
        ("models:/their model/3", "--model 'their model' --version 3"),
    ],
)
def test_the_code_of_others_comes_with_the_command_that_trusts_this_run_alone(model_uri, which):
    what, expected, cure = str(reproduction.not_trusted(run_of(), model_uri)).splitlines()
    assert what.startswith("Run abc is by eve, ")
    assert "a run that you made" in expected
    assert cure.endswith(f"run:  python code/08_Reproduce_Run.py {which} --trust")


@pytest.mark.parametrize(
    ("run", "count"),
    [
        (run_of(tags={"row_count": "4"}, datasets=[dataset("training")]), "4"),
        (run_of(datasets=[dataset("validation", 3), dataset("training", 5)]), "5"),
        (run_of(datasets=[dataset("training", 3, "local"), dataset(None, 6)]), "6"),
        (run_of(datasets=[dataset("validation")]), "unknown"),
        (run_of(), "unknown"),
    ],
)
def test_rows_are_counted_by_the_run_or_by_its_training_dataset(run, count):
    assert reproduction.counted(run) == count


@pytest.mark.parametrize("failure", [ValueError("no such column"), SystemExit(0)])
def test_code_that_fails_or_leaves_gets_a_verdict_and_an_error(failure):
    written = []
    with (
        pytest.raises(errors.LessonError) as caught,
        reproduction.impossible_if_it_fails("in its code", SAME, written.append),
    ):
        raise failure
    verdict = f"impossible: {type(failure).__name__} in its code (libraries: the same)"
    assert written == [verdict]
    assert str(caught.value).startswith(f"The run could not be repeated: {verdict}.\n")
    assert caught.value.__cause__ is failure


def test_other_libraries_are_the_first_thing_to_mend():
    others = Libraries(True, ["a 1 then, 2 now"], ["a==1", "b"])
    assert str(reproduction.not_repeated("different: rows", others, "look")).endswith(
        "run:  pip install 'a==1' 'b'"
    )
    assert str(reproduction.not_repeated("different: rows", SAME, "look")).endswith("\nlook")


def test_a_file_that_could_not_be_asked_for_gets_no_verdict():
    verdicts = []
    uri = "runs:/1/training.py"
    with (
        pytest.raises(errors.StoreError, match="could not be read: TimeoutError") as caught,
        reproduction.impossible_without(uri, verdicts.append),
    ):
        raise TimeoutError("http://me:secret@mlflow.example did not answer")
    assert verdicts == [] and "secret" not in str(caught.value)
    with (
        pytest.raises(errors.MissingStep, match=uri),
        reproduction.impossible_without(uri, verdicts.append),
    ):
        raise OSError("No such file or directory: training.py")
    assert verdicts == ["impossible: the run has no training.py"]
