"""The commands of the README: the Makefile and the runner behind `make tutorial`."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import psutil
import pytest
from conftest import LIMIT, ROOT, STANDINS, clean_environment, client_of, runs_in, wait_until

import tutorial

pytestmark = pytest.mark.once


def make(*words, work, **extra):
    return subprocess.run(
        ["make", "--no-print-directory", *words],
        cwd=ROOT,
        env=clean_environment(work, **extra),
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )


def run_tutorial(work, *arguments, **extra):
    return subprocess.run(
        [sys.executable, str(ROOT / "tutorial.py"), *arguments],
        cwd=work,
        env=clean_environment(work, **extra),
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )


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
        assert "Cannot set a deleted experiment" in done.stdout
        assert "run:  python code/01_Active_Experiment.py" in done.stdout
        assert "01 - Log the params" not in done.stdout  # the next lesson has not begun

        client_of(work).restore_experiment(experiment_id)
        done = run_tutorial(work, PYTHONPATH=self.no_pyspark)
        assert "SparkMissing: pyspark is not installed" in done.stdout
        for lesson in tutorial.LESSONS[:-1]:
            title = re.escape(tutorial.title(lesson))
            assert re.search(rf"^{title} +\d+\.\d s\n     \S", done.stdout, re.MULTILINE), lesson
        assert len(runs_in(work, "wine-quality-test")) == 3

    def test_without_the_jar_it_says_so_before_the_first_lesson(self, work):
        done = run_tutorial(work, CMLFLOW_ICEBERG_JAR="/nowhere/iceberg.jar")
        assert done.returncode == 1
        assert "CMLFLOW_ICEBERG_JAR names /nowhere/iceberg.jar" in done.stdout
        assert "00 - " not in done.stdout
        assert "Traceback" not in done.stderr

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
            "cmlflow.workarea.MissingStep: There is no table t.\n"
            "Expected: a table\n"
            "Run this first:  python code/00_datagen.py\n"
        )
        assert tutorial.error_message(stderr).splitlines() == [
            "cmlflow.workarea.MissingStep: There is no table t.",
            "Expected: a table",
            "Run this first:  python code/00_datagen.py",
        ]


def test_help_lists_every_command():
    done = make("help", work=ROOT)
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    assert sorted(re.findall(r"^make ([a-z-]+) +\S", done.stdout, re.MULTILINE)) == sorted(
        phony.split()
    )


def test_a_complete_environment_is_not_installed_again(work):
    if not (ROOT / ".venv" / "complete").exists():
        pytest.skip("the tests run in an environment that make did not make")
    done = make("--dry-run", "tutorial", work=work)
    assert "pip" not in done.stdout
    assert "tutorial.py" in done.stdout


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


class TestUi:
    def test_it_serves_the_local_store_on_this_machine_only(self, work):
        client_of(work).create_experiment("seen-in-the-ui")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        process = subprocess.Popen(
            ["make", "--no-print-directory", "ui", f"PORT={port}"],
            cwd=ROOT,
            env=clean_environment(work),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        try:
            assert f"http://127.0.0.1:{port}" in process.stdout.readline()
            search = f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/search?max_results=10"

            def answer():
                try:
                    with urllib.request.urlopen(search, timeout=10) as response:
                        return response.read().decode()
                except (urllib.error.URLError, ConnectionError):
                    assert process.poll() is None, "the UI ended"
                    return ""

            wait_until(lambda: "seen-in-the-ui" in answer(), "the experiment in the UI's answer")
            family = [psutil.Process(process.pid)]
            family += family[0].children(recursive=True)
            listening = {
                connection.laddr
                for member in family
                for connection in member.net_connections()
                if connection.status == psutil.CONN_LISTEN
            }
            assert listening == {("127.0.0.1", port)}
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()

    def test_before_anything_was_logged_it_says_what_to_run(self, tmp_path):
        done = make("ui", work=tmp_path)
        assert done.returncode != 0
        assert "Run this first:  make tutorial" in done.stdout
        assert not (tmp_path / "mlflow.db").exists()
