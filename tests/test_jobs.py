"""A chain of steps: processes on a laptop, jobs in CML."""

import json
import os
import sys
import threading

import psutil
import pytest
from conftest import STANDINS, finish, start_python, wait_until
from workbench_server import workbench_server

from cmlflow import jobs, workbench
from cmlflow.errors import BadInput, WorkbenchError


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
        step("first", "print('before')\nprint('Done: one')", V="1"),
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


SCRIPTS = {
    "ok.py": "print('Done: fine')",
    "waits.py": "import time; time.sleep(10_000)",
    "fails.py": "raise ValueError('no wine')",
    "exits.py": "raise SystemExit(0)",
    "variable.py": "import os; assert os.environ['V'] == '2'",
}


def stop_the_first_run(server):
    """Stop the first run of a job as soon as there is one, as somebody on the page Jobs."""
    wait_until(lambda: server.state()["job_runs"], "a run")
    (run,) = server.state()["job_runs"]
    path = f"/api/v2/projects/{run['project_id']}/jobs/{run['job_id']}/runs/{run['id']}:stop"
    assert server.ask("POST", path, {})[0] == 200


@pytest.fixture(scope="module")
def workbench_of_the_file(tmp_path_factory):
    area = tmp_path_factory.mktemp("jobs")
    root = tmp_path_factory.mktemp("project")
    for name, lines in SCRIPTS.items():
        (root / name).write_text(lines)
    with workbench_server(area, project_root=root, CMLFLOW_POLL_SECONDS="0.02") as server:
        yield server


class TestInCml:
    @pytest.fixture
    def server(self, workbench_of_the_file, monkeypatch):
        server = workbench_of_the_file
        for name, value in (server.environment() | {"CMLFLOW_POLL_SECONDS": "0.02"}).items():
            if name != "PYTHONPATH":
                monkeypatch.setenv(name, value)
        monkeypatch.syspath_prepend(STANDINS)
        server.begin()
        return server

    def test_children_run_after_their_parent_and_all_states_are_told(self, server, capsys):
        steps = [jobs.Step("a", "ok.py"), jobs.Step("b", "variable.py", {"V": "2"})]
        outcomes = jobs.run_chain([*steps, jobs.Step("c", "ok.py")])
        assert [one.state for one in outcomes] == [jobs.SUCCEEDED] * 3
        told = capsys.readouterr().out.splitlines()
        assert told[:3] == [f"Job '{name}' created" for name in "abc"]
        for name in "abc":
            assert f"{name}: succeeded" in told
        assert server.state()["requests"]["create_job_run"] == 1

    @pytest.mark.parametrize("script", ["fails.py", "exits.py"])
    def test_after_a_failure_the_rest_does_not_run(self, server, script):
        steps = [jobs.Step("a", "ok.py"), jobs.Step("b", script), jobs.Step("c", "ok.py")]
        outcomes = jobs.run_chain(steps)
        assert [one.state for one in outcomes] == [jobs.SUCCEEDED, jobs.FAILED, jobs.NOT_RUN]
        assert "Jobs > b > History" in outcomes[1].told
        state = server.state()
        names = {job["id"]: job["name"] for job in state["jobs"]}
        assert sorted(names[run["job_id"]] for run in state["job_runs"]) == ["a", "b"]

    def test_a_job_that_is_there_is_changed_only_where_it_differs(self, server, capsys):
        jobs.run_chain([jobs.Step("a", "ok.py"), jobs.Step("b", "variable.py", {"V": "2"})])
        first = {job["name"]: job["id"] for job in server.state()["jobs"]}
        capsys.readouterr()
        jobs.run_chain([jobs.Step("b", "ok.py", {"V": "3"}), jobs.Step("a", "ok.py")])
        told = capsys.readouterr().out
        assert "Job 'b': changed environment, parent_id, script\n" in told
        assert "Job 'a': changed parent_id\n" in told
        after = {job["name"]: job for job in server.state()["jobs"]}
        assert {name: job["id"] for name, job in after.items()} == first
        assert (after["b"]["script"], after["b"]["parent_id"]) == ("ok.py", "")
        variables = after["b"]["environment"]
        variables = json.loads(variables) if isinstance(variables, str) else variables
        assert variables == {"V": "3"}
        assert after["a"]["parent_id"] == first["b"]

    def test_a_job_of_another_runtime_gets_that_of_this_session(self, server, capsys, monkeypatch):
        for version in ("2025.01.3-b8", "2025.09.1-b5"):
            monkeypatch.setenv("ML_RUNTIME_FULL_VERSION", version)
            jobs.run_chain([jobs.Step("a", "ok.py")])
            (job,) = server.state()["jobs"]
            assert job["runtime_identifier"].endswith(version)
        assert "Job 'a': changed runtime_identifier\n" in capsys.readouterr().out

    def test_an_old_run_is_not_taken_for_the_new_one(self, server, monkeypatch):
        """Somebody paused the child, so it does not start."""
        steps = [jobs.Step("a", "ok.py"), jobs.Step("b", "ok.py")]
        assert [one.state for one in jobs.run_chain(steps)] == [jobs.SUCCEEDED] * 2
        (child,) = (job for job in server.state()["jobs"] if job["name"] == "b")
        path = f"/api/v2/projects/{os.environ['CDSW_PROJECT_ID']}/jobs/{child['id']}"
        assert server.ask("PATCH", path, {"paused": True})[0] == 200
        monkeypatch.setattr(jobs, "STEP_LIMIT_S", 5)
        assert [one.state for one in jobs.run_chain(steps)] == [jobs.SUCCEEDED, "still waiting"]

    def test_each_state_in_which_a_run_ends_is_known(self):
        surface = json.loads((STANDINS / "workbench" / "surface.json").read_text())
        states = {
            workbench.status(one) for one in surface["models"]["EngineStatus"]["enum"].values()
        }
        assert states - set(jobs.ENDED) == {
            "scheduling", "starting", "running", "stopping", "unknown",
        }  # fmt: skip

    def test_a_step_that_is_stopped_ends_the_chain(self, server):
        stopped = threading.Thread(target=stop_the_first_run, args=(server,))
        stopped.start()
        outcomes = jobs.run_chain([jobs.Step("a", "waits.py"), jobs.Step("b", "ok.py")])
        stopped.join()
        assert [one.state for one in outcomes] == ["stopped", jobs.NOT_RUN]

    def test_a_script_that_is_not_in_the_project_is_refused_and_nothing_runs(self, server):
        with pytest.raises(WorkbenchError, match="refused create_job"):
            jobs.run_chain([jobs.Step("a", "no_such_file.py")])
        assert server.state()["job_runs"] == []

    @pytest.mark.parametrize(
        ("limit_of_the_job", "limit_here", "state", "told"),
        [(3600, 1, "still scheduling", "is the quota used up?"), (1, 60, "timedout", "Jobs > a")],
    )
    def test_without_quota_it_ends_after_its_limit_and_says_so(
        self, server, monkeypatch, limit_of_the_job, limit_here, state, told
    ):
        steps = [jobs.Step("a", "ok.py"), jobs.Step("b", "ok.py")]
        monkeypatch.setattr(jobs, "STEP_LIMIT_S", limit_of_the_job)
        api = workbench.client()
        image = workbench.runtime(api).image_identifier
        jobs._job(api, os.environ["CDSW_PROJECT_ID"], steps[0], image, None)
        monkeypatch.setattr(jobs, "STEP_LIMIT_S", limit_here)
        server.switch("no-quota")
        outcomes = jobs.run_chain(steps)
        server.switch()
        assert [one.state for one in outcomes] == [state, jobs.NOT_RUN]
        assert told in outcomes[0].told

    def test_a_job_has_the_resources_and_the_time_of_a_step(self, server):
        jobs.run_chain([jobs.Step("a", "ok.py")])
        (job,) = server.state()["jobs"]
        assert (job["cpu"], job["memory"]) == (1.0, 2.0)
        assert (int(job["timeout"]), job["kill_on_timeout"]) == (jobs.STEP_LIMIT_S, True)
        assert f"python3.{sys.version_info[1]}-standard" in job["runtime_identifier"]

    @pytest.mark.parametrize("busy", ["a", "b"])
    def test_a_chain_of_which_a_job_runs_is_not_started_again(self, server, monkeypatch, busy):
        steps = [jobs.Step(name, "waits.py" if name == busy else "ok.py") for name in "ab"]
        step = next(one for one in steps if one.name == busy)
        api = jobs.workbench.client()
        project, image = os.environ["CDSW_PROJECT_ID"], jobs.workbench.runtime(api).image_identifier
        job = jobs._job(api, project, step, image, None)
        jobs.workbench.call(api.create_job_run, {}, project, job.id)
        monkeypatch.setattr(jobs, "STEP_LIMIT_S", 10)
        with pytest.raises(WorkbenchError, match=f"The job '{busy}' is running already"):
            jobs.run_chain(steps)
        assert len(server.state()["job_runs"]) == 1

    @pytest.mark.parametrize(
        "switch",
        ["newest-first", "any-order", "small-pages", "null-times", "conflict", "too-many",
         "breaks-in-mid-answer", "dashed-run-ids", "odd-errors", "other-states", "clock-skew"],
    )  # fmt: skip
    def test_whatever_is_not_known_for_certain_it_works_both_ways(self, server, switch):
        server.switch(switch)
        steps = [jobs.Step("a", "ok.py"), jobs.Step("b", "ok.py")]
        for _ in range(2):
            assert [one.state for one in jobs.run_chain(steps)] == [jobs.SUCCEEDED] * 2
        assert len(server.state()["jobs"]) == 2
        assert len(server.state()["job_runs"]) == 4
