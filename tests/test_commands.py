"""The commands of the README: the Makefile and the runner behind `make tutorial`."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys

import psutil
import pytest
from browser import needs
from conftest import (
    LIMIT,
    ROOT,
    STANDINS,
    clean_environment,
    client_of,
    finish,
    runs_in,
    start_command,
    table_in,
    wait_until,
)
from filelock import FileLock
from servers import alive, ask, end, family_of, listening

import tutorial
from cmlflow.processes import free_port
from cmlflow.spark import iceberg_jar


def make(*words, work, **options):
    return finish(start_command("make", "--no-print-directory", *words, work=work, **options))


def run_tutorial(work, *arguments, prefix=(), **options):
    command = (*prefix, sys.executable, str(ROOT / "tutorial.py"), *arguments)
    return finish(start_command(*command, work=work, cwd=work, **options), limit=5 * LIMIT)


@pytest.fixture
def project(tmp_path):
    """Makes a project of small lessons: of `tutorial.py` and the texts that are given."""

    def make_project(**lessons):
        (tmp_path / "code").mkdir()
        for name, code in lessons.items():
            text = f'"""{name} - A lesson of the test"""\n{code}\n'
            (tmp_path / "code" / f"{name.removeprefix('lesson_')}.py").write_text(text)
        return shutil.copy(ROOT / "tutorial.py", tmp_path)

    return make_project


class TestTheSession:
    """What the runner tells of lessons, and what it keeps from one to the next: nothing."""

    @pytest.fixture
    def run(self, project, tmp_path):
        def run_project(*options, **lessons):
            command = (sys.executable, str(project(**lessons)), *options)
            return finish(start_command(*command, work=tmp_path, cwd=tmp_path))

        return run_project

    def test_all_lessons_share_one_process_and_each_line_is_its_own(self, run):
        done = run(
            lesson_01_one="import os; print('Done: first in', os.getpid())",
            lesson_02_two="import os; print('says more'); print('Done: second in', os.getpid())",
            lesson_03_three="pass",
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        first, second = re.findall(r"^     (?:first|second) in (\d+)$", done.stdout, re.MULTILINE)
        assert first == second
        assert len(re.findall(r"^lesson_.* \d+\.\d s$", done.stdout, re.MULTILINE)) == 3
        assert "says more" not in done.stdout

    def test_a_lesson_that_did_nothing_is_not_called_done(self, run):
        done = run(lesson_01_one="print('Skipped: no pyspark')")
        assert "\n     Skipped: no pyspark\n" in done.stdout

    def test_a_second_lesson_finds_what_it_would_find_in_a_process_of_its_own(self, run, work):
        look = (
            "import os, signal, sys, mlflow, warnings\n"
            "from cmlflow import store\n"
            "names = {one for one in globals() if not one.startswith('_')}\n"
            "variables = {one for one in os.environ if not one.startswith('_MLFLOW')}\n"
            "found = (sorted(names), sorted(variables), __name__, sys.argv, sys.path[0],\n"
            " os.getcwd(), [signal.getsignal(one) for one in (2, 15)], sys.excepthook,\n"
            " mlflow.active_run(), mlflow.get_tracking_uri(),\n"
            " mlflow.tracking.fluent._active_experiment_id)\n"
            "warnings.warn('seen')\n"
            "print('Done:', repr(found).replace(sys.argv[0], 'script'))\n"
        )
        leave = (
            "store.use_store('mine'); mlflow.set_experiment('mine'); mlflow.start_run()\n"
            "mlflow.start_run(nested=True); left = 1; os.environ['LEFT'] = '1'\n"
            "os.chdir('/'); signal.signal(15, signal.SIG_IGN); warnings.simplefilter('ignore')\n"
            "sys.excepthook = print; raise SystemExit(0)\n"
        )
        done = run("--verbose", lesson_01_one=look + leave, lesson_02_two=look)
        assert done.returncode == 0, done.stderr
        first, second = re.findall(r"^Done: (.*)$", done.stdout, re.MULTILINE)
        assert first == second
        assert done.stderr.count("UserWarning: seen") == 2
        runs = runs_in(work, "mine")
        assert [run.info.status for run in runs] == ["FINISHED", "FINISHED"]

    def test_a_failure_is_the_last_message_and_the_command_of_this_lesson(self, run):
        done = run(
            lesson_01_one="import sys; print('a warning of another lesson', file=sys.stderr)",
            lesson_02_two="try:\n    {}['first']\nfinally:\n    raise RuntimeError('a\\nb')",
            lesson_03_three="print('Done: too late')",
        )
        assert done.returncode == 1
        assert done.stderr == ""
        end = f"\n\nTo see all that this lesson says, run:  {sys.executable} code/02_two.py\n"
        assert done.stdout.endswith(f"s  failed\n\nRuntimeError: a\nb{end}")
        assert "lesson_03" not in done.stdout

    def test_of_an_error_of_java_the_telling_line_is_shown(self, run):
        done = run(
            lesson_01_one="class Py4JJavaError(Exception): pass\n"
            "Py4JJavaError.__module__ = 'py4j.protocol'\n"
            "raise Py4JJavaError('An error occurred while calling o1.save.\\n'\n"
            "': java.io.IOException: disk full\\n\\tat a.b(C.java:1)\\n\\tat d.e(F.java:2)')"
        )
        assert "\n\nIOException: disk full\n\nTo see all" in done.stdout

    @pytest.mark.parametrize(
        ("end", "told"),
        [
            ("os.kill(os.getpid(), signal.SIGKILL)", "The process was killed by SIGKILL."),
            ("os._exit(7)", "The process ended with code 7."),
            ("os._exit(0)", "The process ended with code 0."),
            ("sys.exit('no more')", "no more\nThe process ended with code 1."),
        ],
    )
    def test_the_end_of_the_whole_process_is_told(self, run, end, told):
        done = run(
            lesson_00_before="import sys; print('of another lesson', file=sys.stderr)",
            lesson_01_one=f"import os, signal, sys; {end}",
            lesson_02_two="pass",
        )
        assert done.returncode == 1
        assert f"s  failed\n\n{told}\n\nTo see all that this lesson says, run: " in done.stdout
        assert "lesson_02" not in done.stdout

    def test_verbose_shows_all_that_the_lessons_print_once(self, run):
        done = run(
            "--verbose",
            lesson_01_one="import sys; print('to stdout'); print('to stderr', file=sys.stderr)",
            lesson_02_two="raise RuntimeError('the reason')",
        )
        assert done.returncode == 1
        assert done.stdout.count("to stdout") == 1
        assert done.stderr.count("to stderr") == 1
        assert done.stderr.count("RuntimeError: the reason") == 1
        assert "the reason" not in done.stdout
        assert '02_two.py", line 2' in done.stderr

    @pytest.mark.parametrize("options", [(), ("--verbose",)], ids=["quiet", "verbose"])
    def test_ctrl_c_names_the_lesson_and_lets_it_end_by_itself(self, project, tmp_path, options):
        os.mkfifo(tmp_path / "go")
        slow = (
            "import os, signal\nfrom pathlib import Path\n"
            "try:\n"
            "    Path('started').touch()\n    signal.pause()\n"
            "finally:\n"
            "    signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
            "    Path('go').read_text()  # waits until somebody writes\n"
            "    Path('ended').touch()\n"
            "    print('the lesson has ended', flush=True)\n"
        )
        script = project(lesson_01_slow=slow, lesson_02_next="pass")
        process = subprocess.Popen(
            [sys.executable, script, *options],
            cwd=tmp_path,
            env=clean_environment(tmp_path),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        try:
            wait_until((tmp_path / "started").exists, "the start of the first lesson")
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does
            said = ""
            while "Interrupted" not in said:
                line = process.stdout.readline()
                assert line, f"it ended with {process.wait()}: {said}"
                said += line
            assert said.endswith("Interrupted: waiting until 01_slow.py has ended\n")
            os.killpg(process.pid, signal.SIGINT)  # an impatient reader changes nothing
            (tmp_path / "go").write_text("")
            said += process.stdout.read()
            assert process.wait() == 130
        finally:
            process.kill()
            process.wait()
        assert (tmp_path / "ended").exists()
        assert "Traceback" not in said
        assert "lesson_02" not in said
        assert ("the lesson has ended\n\nStopped." in said) == bool(options)  # in this order
        assert said.endswith(f"again:  {sys.executable} tutorial.py\n")


class TestTutorial:
    """Without Spark, to be quick: lesson 00 is skipped then, and 06 is where it stops."""

    no_pyspark = str(STANDINS / "no_pyspark")

    def test_a_failure_stops_with_the_message_of_the_lesson_and_a_rerun_goes_on(self, work):
        client = client_of(work)
        experiment_id = client.create_experiment("example-experiment")
        client.delete_experiment(experiment_id)
        done = run_tutorial(work, PYTHONPATH=self.no_pyspark)
        assert done.returncode == 1
        assert "Traceback" not in done.stdout + done.stderr
        assert "01 - Start a run, look at it, end it" in done.stdout
        assert "The experiment 'example-experiment' was deleted." in done.stdout
        command = f"{sys.executable} {ROOT}/code/01_Active_Experiment.py"
        assert done.stdout.endswith(f"To see all that this lesson says, run:  {command}\n")
        assert "01 - Log the params" not in done.stdout  # the next lesson has not begun

        client_of(work).restore_experiment(experiment_id)
        done = run_tutorial(work, PYTHONPATH=self.no_pyspark)
        assert "SparkMissing: pyspark is not installed" in done.stdout
        for lesson in tutorial.LESSONS[: tutorial.LESSONS.index("06_Spark_Iceberg.py")]:
            title = re.escape(tutorial.title(lesson))
            assert re.search(rf"^{title} +\d+\.\d s\n     \S", done.stdout, re.MULTILINE), lesson
        assert len(runs_in(work, "wine-quality-test")) == 3

    def test_without_the_jar_it_says_so_before_the_first_lesson(self, work):
        done = run_tutorial(work, CMLFLOW_ICEBERG_JAR="/nowhere/iceberg.jar")
        assert done.returncode == 1
        assert "CMLFLOW_ICEBERG_JAR names /nowhere/iceberg.jar" in done.stdout
        assert "00 - " not in done.stdout
        assert "Traceback" not in done.stderr

    @pytest.mark.spark
    def test_a_session_that_uses_spark_here_is_told(self, work):
        with FileLock(work / "spark-warehouse.lock"):
            done = run_tutorial(work)
        assert done.returncode == 1
        assert f"SparkBusy: Another lesson uses Spark here: {work}" in done.stdout
        assert f"run:  {sys.executable} {ROOT}/code/00_datagen.py\n" in done.stdout

    def test_commands_are_given_as_one_types_them_in_the_current_folder(self, monkeypatch):
        monkeypatch.setattr(sys, "executable", str(ROOT / ".venv" / "bin" / "python"))
        monkeypatch.chdir(ROOT)
        lesson = ROOT / "code" / "01_Experiment.py"
        assert tutorial.command(lesson) == ".venv/bin/python code/01_Experiment.py"
        monkeypatch.chdir(ROOT / "code")
        assert tutorial.command(lesson) == f"{ROOT}/.venv/bin/python 01_Experiment.py"
        monkeypatch.setattr(sys, "executable", "/my environments/python")
        assert tutorial.command(lesson) == '"/my environments/python" 01_Experiment.py'

    def test_the_message_is_what_follows_the_last_stack(self):
        stderr = (
            "WARNING something\n"
            "Traceback (most recent call last):\n"
            '  File "a.py", line 1, in <module>\n'
            "    go()\n"
            "KeyError: 'first'\n\n"
            "During handling of the above exception, another exception occurred:\n\n"
            "Traceback (most recent call last):\n"
            '  File "b.py", line 2, in <module>\n'
            "    raise MissingStep()\n"
            "cmlflow.errors.MissingStep: There is no table t.\n"
            "Expected: a table\n"
            "Run this first:  python code/00_datagen.py\n"
        )
        assert tutorial.error_message(stderr).splitlines() == [
            "cmlflow.errors.MissingStep: There is no table t.",
            "Expected: a table",
            "Run this first:  python code/00_datagen.py",
        ]


# Runs a command where there is no network but this machine itself.
OFFLINE = ("unshare", "--user", "--map-root-user", "--net", "sh", "-c")
OFFLINE += ('ip link set lo up && exec "$@"', "sh")


@pytest.fixture(scope="module")
def offline():
    """The prefix of a command without network."""
    try:
        tried = subprocess.run([*OFFLINE, "true"], capture_output=True, text=True)
        permitted, reason = tried.returncode == 0, tried.stderr.strip()
    except FileNotFoundError as error:
        permitted, reason = False, str(error)
    needs(permitted, f"a process cannot be cut off from the network ({reason})")
    return OFFLINE


@pytest.fixture(scope="module")
def all_lessons_offline(offline, module_work):
    """All lessons, in the environment and with the jar that an earlier pass has fetched."""
    iceberg_jar()
    extra = {"MLFLOW_DISABLE_TELEMETRY": "false", "CMLFLOW_ROWS_PER_REQUEST": "36"}
    return run_tutorial(module_work, prefix=offline, **extra)


@pytest.mark.spark
@pytest.mark.timeout(6 * LIMIT)
class TestWithoutNetwork:
    def test_there_is_none(self, offline):
        code = "import socket; socket.create_connection(('192.0.2.1', 443))"
        tried = subprocess.run(
            [*offline, sys.executable, "-c", code], capture_output=True, text=True
        )
        assert "Network is unreachable" in tried.stderr

    def test_all_lessons_run_and_leave_what_they_make(self, all_lessons_offline, module_work):
        done = all_lessons_offline
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        assert len(runs_in(module_work, "wine-quality-test")) == 4  # one more as a job of 23
        assert len(runs_in(module_work, "sparkml-experiment")) == 3
        assert len(runs_in(module_work, "xgboost-fraud")) == 5  # two before the append, three after
        assert len(table_in(module_work, "transactions").scan().to_arrow()) == 20_000
        (again,) = runs_in(module_work, "reproductions")
        assert again.data.tags["reproduction_verdict"] == "identical"
        assert len(runs_in(module_work, "xgb-telco")) == 2  # the first model, and a challenger
        (monitored,) = runs_in(module_work, "telco-monitoring")
        assert monitored.data.tags["day"] == "7"
        predictions = table_in(module_work, "telco_predictions").scan().to_arrow()
        assert len(predictions) == len(set(predictions["message_id"].to_pylist())) == 2 * 1440

    def test_no_endpoint_outlives_the_tutorial(self, all_lessons_offline, module_work):
        lines = all_lessons_offline.stdout.splitlines()
        for name, lesson in (
            ("wine-quality", "20_Deploy_Model.py"),
            ("CellTwrFail-CLF", "telco/02_api_deployment.py"),
        ):
            stopped = f"The endpoint {name} is stopped; to start it again:  python code/{lesson}"
            assert stopped in lines
        assert list((module_work / "endpoints").glob("*.json")) == []

    def test_the_last_lines_say_where_to_look_and_how_to_run_one_lesson(self, all_lessons_offline):
        assert all_lessons_offline.stdout.splitlines()[-2:] == [
            "All lessons ran. Look at what they logged:  make ui, then http://127.0.0.1:5000",
            f"To run one lesson by itself:  {sys.executable} {ROOT}/code/01_Experiment.py",
        ]


def test_help_lists_every_command():
    done = make("help", work=ROOT)
    makefile = (
        (ROOT / "Makefile").read_text().replace("\\\n", "")
    )  # a line that goes on in the next
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1]
    assert sorted(re.findall(r"^make ([a-z-]+) +\S", done.stdout, re.MULTILINE)) == sorted(
        phony.split()
    )


def test_a_complete_environment_is_not_installed_again(work):
    needs((ROOT / ".venv" / "complete").exists(), "no environment that make has made")
    done = make("--dry-run", "tutorial", work=work)
    assert "pip" not in done.stdout
    assert "tutorial.py" in done.stdout


@pytest.mark.parametrize("python", ["/nowhere/python3", "/bin/false"])
def test_a_python_that_does_not_fit_is_refused_and_nothing_is_installed(tmp_path, python):
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("requirements.txt", "requirements-local.txt", "pyproject.toml"):
        (tmp_path / name).touch()
    done = subprocess.run(
        ["make", "tutorial", f"PYTHON={python}"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert f"{python} is no Python 3.10, 3.11 or 3.12" in done.stdout
    assert not (tmp_path / ".venv").exists()


def test_without_a_suitable_python_it_says_so_and_installs_nothing(tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("requirements.txt", "requirements-local.txt", "pyproject.toml"):
        (tmp_path / name).touch()
    done = subprocess.run(
        ["make", "tutorial", "PYTHON="], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "No Python 3.10, 3.11 or 3.12 found" in done.stdout
    assert not (tmp_path / ".venv").exists()


def test_clean_removes_what_lessons_made_and_says_what(work):
    mine = work / "data" / "mine.csv"
    mine.parent.mkdir()
    mine.touch()
    done = make("clean", work=work)
    assert done.stdout.splitlines() == [f"Removed {work}/mlflow.db"]
    assert mine.exists() and not (work / "mlflow.db").exists()
    assert make("clean", work=work).stdout == "Nothing to remove\n"


@pytest.fixture
def fresh_copy(tmp_path_factory):
    """The project where no environment has been made yet."""
    copy = tmp_path_factory.mktemp("fresh copy")
    for name in ("Makefile", "tutorial.py", "pyproject.toml"):
        shutil.copy(ROOT / name, copy)
    for name in ("requirements.txt", "requirements-local.txt"):
        (copy / name).touch()
    shutil.copytree(ROOT / "cmlflow", copy / "cmlflow")
    return copy


def test_clean_installs_no_environment(work, fresh_copy):
    def clean(python):
        return make("clean", f"PYTHON={python}", work=work, cwd=fresh_copy)

    # The Python that this environment was made with has none of its packages.
    assert clean(sys._base_executable).stdout == f"Removed {work}/mlflow.db\n"
    assert clean(sys._base_executable).stdout == "Nothing to remove\n"
    done = clean("")
    assert done.returncode != 0
    assert "No Python 3.10, 3.11 or 3.12 found" in done.stdout
    assert "make clean PYTHON=" in done.stdout
    assert not (fresh_copy / ".venv").exists()


@contextlib.contextmanager
def make_ui(work, port):
    """Start `make ui` as in a terminal, where Ctrl+C reaches make and all that it started."""
    process = start_command("make", "--no-print-directory", "ui", f"PORT={port}", work=work)
    try:
        yield process
    finally:
        if process.poll() is None:
            end(family_of(process))
            process.communicate()


def runs_python(process):
    """Tell whether the shell of make has started Python."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return any(each.name().startswith("python") for each in family_of(process))


def press_ctrl_c(process):
    """Press Ctrl+C; when all have ended, return what was printed from then on."""
    members = family_of(process)
    os.killpg(process.pid, signal.SIGINT)
    done = finish(process)
    wait_until(lambda: not alive(members), "the end of all that make started")
    assert "Traceback" not in done.stderr
    return done.stdout


class TestUi:
    def test_it_serves_the_local_store_on_this_machine_only_until_ctrl_c(self, work):
        client_of(work).create_experiment("seen-in-the-ui")
        port = free_port()
        with make_ui(work, port) as process:
            while not (line := process.stdout.readline()).startswith("MLflow UI:"):
                assert line, process.stderr.read()
            assert f"http://127.0.0.1:{port}" in line
            search = "/api/2.0/mlflow/experiments/search?max_results=10"
            assert "seen-in-the-ui" in ask(port, search)[1]  # the address was told when it answers
            for name in ("10.evil.com", "192.168.evil.com"):
                assert ask(port, search, Host=name)[0] == 403
            assert listening(process) == {("127.0.0.1", port)}
            assert "choose Model training at the top left, once" in process.stdout.readline()
            assert press_ctrl_c(process) == "Stopped\n"
        assert ask(port)[0] is None

    @pytest.mark.parametrize("moment", ["when Python starts", "when the server starts"])
    def test_ctrl_c_before_it_answers_prints_no_traceback(self, work, moment):
        with make_ui(work, free_port()) as process:
            if moment == "when Python starts":
                wait_until(lambda: runs_python(process), "the start of the script")
            else:
                assert process.stdout.readline() == "Starting the MLflow UI ...\n"
            assert press_ctrl_c(process) == "Stopped\n"

    def test_with_a_server_of_your_own_it_does_not_open_the_local_store(self, work):
        done = make("ui", work=work, MLFLOW_TRACKING_URI="http://user:secret@127.0.0.1:9")
        assert done.returncode != 0
        assert "unset MLFLOW_TRACKING_URI" in done.stdout
        assert "secret" not in done.stdout + done.stderr

    def test_before_anything_was_logged_it_says_what_to_run(self, tmp_path, fresh_copy):
        done = make("ui", work=tmp_path, cwd=fresh_copy)
        assert done.returncode != 0
        assert "Run this first:  make tutorial" in done.stdout
        assert not (tmp_path / "mlflow.db").exists()
        assert not (fresh_copy / ".venv").exists()  # nothing is installed only to say so

    def test_a_taken_port_is_told_as_in_the_readme(self, work):
        readme = (ROOT / "docs" / "TROUBLESHOOTING.md").read_text(encoding="utf-8")
        (heading,) = re.findall(r"^### `(No server can listen on port .*)`$", readme, re.MULTILINE)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            done = make("ui", f"PORT={port}", work=work)
        assert done.returncode != 0
        assert heading.replace("…", str(port)) in done.stderr
        assert f"run:  make ui PORT={port + 1}" in done.stderr
