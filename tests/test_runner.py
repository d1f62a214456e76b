"""A script run in this process leaves the process as it was."""

import json
import os
import signal
import sys
import warnings

import mlflow
import pytest
from conftest import client_of
from filelock import FileLock

from cmlflow import runner
from cmlflow.errors import BadInput


@pytest.fixture
def script(tmp_path):
    """Write a script that notes what it found; its lines may use `note`."""

    def make(lines="", name="script.py"):
        file = tmp_path / name
        begin = [
            '"""A title."""',
            "import json, os, signal, sys",
            f"def note(**found): open({str(tmp_path / 'note')!r}, 'w').write(json.dumps(found))",
        ]
        file.write_text("\n".join([*begin, lines]), encoding="utf-8")
        return file

    return make


@pytest.fixture
def noted(tmp_path):
    return lambda: json.loads((tmp_path / "note").read_text())


@pytest.fixture
def unchanged(monkeypatch):
    """Compare what a script could leave behind, before and after a test."""
    monkeypatch.setattr(sys, "argv", ["pytest", "--before"])
    monkeypatch.setenv("THERE", "before")

    def found():
        return (
            list(sys.argv),
            os.getcwd(),
            {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"},
            {one: signal.getsignal(one) for one in signal.valid_signals()},
            sys.excepthook,
            list(warnings.filters),
            mlflow.active_run(),
        )

    before = found()
    yield
    assert found() == before


CHANGES = """
os.environ["NEW"] = "1"
del os.environ["THERE"]
os.chdir("/")
sys.argv.append("more")
sys.excepthook = print
signal.signal(signal.SIGTERM, signal.SIG_IGN)
import warnings
warnings.simplefilter("error")
"""


def test_it_sees_its_options_its_variables_and_itself_as_main(script, noted, unchanged):
    file = script(
        "note(argv=sys.argv, mine=os.environ['MINE'], there=os.environ['THERE'], name=__name__,"
        " doc=sys.modules['__main__'].__doc__)"
    )
    runner.run(file, ["--days", "2"], {"MINE": "1"})
    assert noted() == {
        "argv": [str(file), "--days", "2"],
        "mine": "1",
        "there": "before",
        "name": "__main__",
        "doc": "A title.",
    }


@pytest.mark.parametrize(
    "end",
    ["", "raise SystemExit", "raise SystemExit(0)"],
    ids=["the last line", "an exit", "an exit with 0"],
)
def test_what_a_script_changes_is_undone(script, unchanged, end):
    runner.run(script(CHANGES + end))


@pytest.mark.parametrize(
    ("end", "kind"),
    [
        ("raise SystemExit(3)", SystemExit),
        ("raise SystemExit('no data')", SystemExit),
        ("raise KeyboardInterrupt", KeyboardInterrupt),
        ("from cmlflow.errors import BadInput\nraise BadInput('a', 'b', 'c')", BadInput),
        ("1 / 0", ZeroDivisionError),
        ("a line that is no Python", SyntaxError),
    ],
    ids=["code 3", "a text", "Ctrl+C", "our error", "an error", "no Python"],
)
def test_a_failure_is_told_and_undone_too(script, unchanged, end, kind):
    changes = "" if kind is SyntaxError else CHANGES
    with pytest.raises(kind):
        runner.run(script(changes + end))


def test_a_second_script_knows_no_names_of_the_first(script, noted):
    runner.run(script("left_over = 1"))
    runner.run(script("note(knows='left_over' in globals())", "second.py"))
    assert noted() == {"knows": False}


def test_a_warning_is_shown_by_each_script(script):
    warns = script("import warnings\nwarnings.warn('too few rows')")
    for _ in range(2):
        with pytest.warns(UserWarning, match="too few rows"):
            runner.run(warns)


CHOOSES = """
import mlflow
mlflow.set_tracking_uri("sqlite:///{work}/mlflow.db")
mlflow.set_registry_uri("sqlite:///{work}/mlflow.db")
mlflow.set_experiment("chosen")
mlflow.start_run(run_name="outer")
mlflow.start_run(run_name="inner", nested=True)
"""


def test_runs_are_closed_and_what_was_chosen_in_mlflow_is_forgotten(script, work):
    mlflow.set_tracking_uri(None)
    before = (mlflow.get_tracking_uri(), mlflow.get_registry_uri())
    with pytest.raises(ValueError, match="after the start"):
        runner.run(script(CHOOSES.format(work=work) + "raise ValueError('after the start')"))
    assert (mlflow.get_tracking_uri(), mlflow.get_registry_uri()) == before
    assert mlflow.tracking.fluent._active_experiment_id is None
    client = client_of(work)
    chosen = client.get_experiment_by_name("chosen").experiment_id
    assert [run.info.status for run in client.search_runs([chosen])] == ["FINISHED"] * 2


@pytest.mark.spark
def test_spark_is_stopped_so_that_another_process_can_have_the_tables(warm, work):
    warm.python("from cmlflow.spark import start_spark\nstart_spark('any')", work)
    with FileLock(work / "spark-warehouse.lock", timeout=0):
        pass
