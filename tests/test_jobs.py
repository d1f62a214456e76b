"""A chain of steps on a laptop; in CML see test_23_chain_of_jobs.py."""

import os

import psutil
import pytest
from conftest import finish, start_python, wait_until

from cmlflow import jobs
from cmlflow.errors import BadInput


@pytest.fixture
def step(tmp_path):
    """Make a step of a few lines; it also notes that it ran, with what it found."""

    def make(name, lines, **environment):
        script = tmp_path / f"{name}.py"
        note = f"import os; open({str(tmp_path / name)!r}, 'w').write(os.environ.get('V', '-'))\n"
        script.write_text(note + lines)
        return jobs.Step(name, str(script), environment)

    return make


def test_steps_run_in_order_with_their_variables_and_tell_their_last_line(step, tmp_path, capsys):
    steps = [
        step("first", "print('Done: one')", V="1"),
        step("second", f"assert os.path.exists({str(tmp_path / 'first')!r})\nprint('no result')"),
    ]
    outcomes = jobs.run_chain(steps)
    assert [(one.step, one.state, one.told) for one in outcomes] == [
        (steps[0], jobs.SUCCEEDED, "one"),
        (steps[1], jobs.SUCCEEDED, ""),
    ]
    assert (tmp_path / "first").read_text() == "1"
    assert (tmp_path / "second").read_text() == "-"
    assert "V" not in os.environ
    assert capsys.readouterr().out.splitlines() == [
        "first: running", "first: succeeded", "second: running", "second: succeeded",
    ]  # fmt: skip


FAILS = "from cmlflow.errors import BadInput\nraise BadInput('No wine.', 'wine', 'To buy, run:  x')"


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (FAILS, f"{BadInput.__module__}.BadInput: No wine.\nExpected: wine.\nTo buy, run:  x"),
        ("raise SystemExit(3)", "its process ended with code 3"),
        ("os.kill(os.getpid(), 9)", "its process ended with code -9"),
    ],
    ids=["an error", "an exit", "a kill"],
)
def test_after_a_failure_the_rest_does_not_run_and_the_reason_is_told(step, tmp_path, lines, told):
    steps = [step("first", lines), step("second", ""), step("third", "")]
    outcomes = jobs.run_chain(steps)
    assert [one.state for one in outcomes] == [jobs.FAILED, jobs.NOT_RUN, jobs.NOT_RUN]
    assert outcomes[0].told == told
    assert not (tmp_path / "second").exists()


def test_a_step_that_takes_too_long_is_ended_and_said_so(step, monkeypatch, tmp_path):
    monkeypatch.setattr(jobs, "STEP_LIMIT_S", 3)
    slow = step("slow", f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\nwhile 1: 0")
    (outcome,) = jobs.run_chain([slow])
    assert (outcome.state, outcome.told) == (jobs.FAILED, "it had not ended after 0 minutes")
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))


def test_a_step_ends_with_the_one_who_started_the_chain(step, tmp_path):
    slow = step("slow", f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\nwhile 1: 0")
    code = f"from cmlflow import jobs; jobs.run_chain([jobs.Step('slow', {slow.script!r})])"
    chain = start_python(code, tmp_path)
    wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), "the step")
    running = psutil.Process(int((tmp_path / "pid").read_text()))
    chain.kill()
    finish(chain)
    wait_until(lambda: not running.is_running(), "the end of the step")
