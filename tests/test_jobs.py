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
from cmlflow.errors import BadInput, LessonError, WorkbenchError


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


class TestInThisProcess:
    def run(self, *steps):
        return jobs.run_chain(steps, in_this_process=True)

    def test_steps_run_here_in_order_with_their_variables(self, step, tmp_path, capsys):
        lines = f"assert os.getpid() == {os.getpid()}\n"
        steps = [
            step("first", f"{lines}left_over = 1\nprint('Done: one\\nmore')", V="1"),
            step("second", f"{lines}assert 'left_over' not in globals()\nprint('no result')"),
        ]
        outcomes = self.run(*steps)
        assert [(one.step, one.state, one.told) for one in outcomes] == [
            (steps[0], jobs.SUCCEEDED, "one"),
            (steps[1], jobs.SUCCEEDED, ""),
        ]
        assert (tmp_path / "first").read_text() == "1"
        assert (tmp_path / "second").read_text() == "-"
        assert "V" not in os.environ and capsys.readouterr().out == ""

    @pytest.mark.parametrize(
        ("lines", "told"),
        [
            (FAILS, "No wine.\nExpected: wine.\nTo buy, run:  x"),
            ("raise SystemExit(3)", "SystemExit: 3"),
            ("1 / 0", "ZeroDivisionError: division by zero"),
        ],
        ids=["our error", "an exit", "an error"],
    )
    def test_after_a_failure_the_rest_does_not_run_and_the_reason_is_told(
        self, step, tmp_path, lines, told
    ):
        outcomes = self.run(step("first", lines), step("second", ""))
        assert [one.state for one in outcomes] == [jobs.FAILED, jobs.NOT_RUN]
        assert outcomes[0].told == told
        assert not (tmp_path / "second").exists()
        with pytest.raises(LessonError) as caught:
            jobs.require_success(outcomes)
        assert f"The step first ended as failed: {told}" in str(caught.value)
        assert str(caught.value).endswith(f"run:  python {tmp_path / 'first.py'}")

    def test_an_exit_that_means_success_is_one(self, step, tmp_path):
        outcomes = self.run(step("first", "raise SystemExit(0)"), step("second", ""))
        assert [one.state for one in outcomes] == [jobs.SUCCEEDED] * 2
        jobs.require_success(outcomes)

    def test_ctrl_c_ends_the_chain_and_not_only_the_step(self, step, tmp_path):
        with pytest.raises(KeyboardInterrupt):
            self.run(step("first", "raise KeyboardInterrupt"), step("second", ""))
        assert not (tmp_path / "second").exists()


HADOOP, OLDER, NEWEST = "hadoop-cli-7.3.1.709-1", "spark332-7190-1202-b75", "spark351-1241-hf1"
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

    def test_a_step_with_spark_gets_the_add_on_and_memory_for_it(self, server):
        jobs.run_chain([jobs.Step("a", "ok.py", needs_spark=True), jobs.Step("b", "ok.py")])
        with_spark, without = server.state()["jobs"]
        assert with_spark["runtime_addon_identifiers"] == [NEWEST]
        assert with_spark["memory"] == 4.0
        assert not without.get("runtime_addon_identifiers") and without["memory"] == 2.0

    @pytest.mark.parametrize(
        ("addons", "memory", "told"),
        [
            ([OLDER], 8.0, ["Job 'a': changed runtime_addon_identifiers"]),
            ([], 2.0, ["Job 'a': changed memory, runtime_addon_identifiers"]),
            ([HADOOP, NEWEST], 8.0, []),
        ],
        ids=["another Spark", "no Spark", "more than asked for"],
    )
    def test_a_job_gets_what_it_lacks_for_spark_and_keeps_what_it_has_more(
        self, server, capsys, addons, memory, told
    ):
        step = jobs.Step("a", "ok.py", needs_spark=True)
        jobs.run_chain([step])
        (job,) = server.state()["jobs"]
        path = f"/api/v2/projects/{os.environ['CDSW_PROJECT_ID']}/jobs/{job['id']}"
        server.ask("PATCH", path, {"runtime_addon_identifiers": addons, "memory": memory})
        capsys.readouterr()
        jobs.run_chain([step])
        printed = capsys.readouterr().out.splitlines()
        assert [line for line in printed if "changed" in line] == told
        (after,) = server.state()["jobs"]
        assert after["id"] == job["id"]
        assert NEWEST in after["runtime_addon_identifiers"]
        assert OLDER not in after["runtime_addon_identifiers"]
        assert (HADOOP in after["runtime_addon_identifiers"]) == (HADOOP in addons)
        assert after["memory"] == max(memory, 4.0)

    def test_without_a_spark_add_on_it_says_so_before_a_job_is_made(self, server):
        server.switch("no-spark")
        steps = [jobs.Step("a", "ok.py"), jobs.Step("b", "ok.py", needs_spark=True)]
        with pytest.raises(WorkbenchError, match="This workbench offers no Spark add-on"):
            jobs.run_chain(steps)
        assert server.state()["jobs"] == []
        assert jobs.run_chain(steps[:1])[0].state == jobs.SUCCEEDED

    @pytest.mark.parametrize("switches", [(), ("spark-4",), ("any-order", "spark-4")])
    def test_the_newest_spark_3_is_chosen_and_never_spark_4(self, server, monkeypatch, switches):
        monkeypatch.delenv("SPARK_HOME", raising=False)
        server.switch(*switches)
        chosen = jobs.workbench.spark_addon(jobs.workbench.client())
        assert chosen == ("spark354-1245" if switches else NEWEST)

    @pytest.mark.parametrize("linked", [False, True], ids=["folder", "link"])
    @pytest.mark.parametrize("home", [OLDER, "spark400-1260"])
    def test_the_add_on_of_the_session_goes_before_the_newest_unless_it_is_spark_4(
        self, server, monkeypatch, tmp_path, home, linked
    ):
        server.switch("spark-4")
        folder = tmp_path / "runtime-addons" / f"{home}-x1y2" / "opt" / "spark"
        folder.mkdir(parents=True)
        (tmp_path / "spark").symlink_to(folder)
        monkeypatch.setenv("SPARK_HOME", str(tmp_path / "spark" if linked else folder))
        chosen = jobs.workbench.spark_addon(jobs.workbench.client())
        assert chosen == (OLDER if home == OLDER else "spark354-1245")

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
        given = {"runtime_identifier": image, "memory": jobs.MEMORY_GB}
        jobs._job(api, os.environ["CDSW_PROJECT_ID"], steps[0], given, None)
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
        given = {"runtime_identifier": image, "memory": jobs.MEMORY_GB}
        job = jobs._job(api, project, step, given, None)
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
