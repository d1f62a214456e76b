"""Children that end with their parent, however that ends; free ports; waiting for an answer."""

import socket
import subprocess
import sys

import psutil
import pytest
from conftest import finish, start_python, wait_until
from servers import alive, ask, end, family_of

from cmlflow import processes

WORKER = "import time; print('ready', flush=True); time.sleep(10_000)"
STUBBORN_WORKER = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {WORKER}"
STUBBORN = f"""
import signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.run([sys.executable, "-c", {WORKER!r}])
"""
OBEDIENT_WITH_A_STUBBORN_WORKER = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {STUBBORN_WORKER!r}])
"""
CLOSES = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
try:
    print("ready", flush=True)
    time.sleep(10_000)
finally:
    print("closed", flush=True)
"""
PARENT = """
import sys
from cmlflow import processes
child = processes.start(sys.argv[1])
child.wait()
"""


@pytest.fixture
def parent_of(tmp_path):
    """Start a parent whose child runs the given code; it has printed that it is ready."""
    started = []

    def start(code):
        program = tmp_path / "child.py"
        program.write_text(code)
        parent = start_python(PARENT, tmp_path, str(program))
        assert parent.stdout.readline() == "ready\n"
        started.extend(family_of(parent))
        return parent, list(started)

    yield start
    end(started)


class TestTheParentIsKilled:
    def test_a_child_gets_the_time_to_end_by_itself(self, parent_of):
        parent, _ = parent_of(CLOSES)
        parent.kill()
        assert finish(parent).stdout == "closed\n"

    @pytest.mark.parametrize(
        "code", [STUBBORN, OBEDIENT_WITH_A_STUBBORN_WORKER], ids=["the child", "its worker"]
    )
    def test_one_that_refuses_to_end_is_ended_with_the_others(self, parent_of, code):
        parent, members = parent_of(code)
        assert len(members) == 3  # the parent, the child and its worker: nothing in between
        parent.kill()
        finish(parent)
        wait_until(lambda: not alive(members), "the end of all")


class TestStop:
    def test_the_end_of_the_block_ends_the_child_and_frees_the_port(self, tmp_path):
        port = processes.free_port()
        with processes.running("http.server", str(port), cwd=tmp_path) as server:
            assert processes.wait_for_answer(f"http://127.0.0.1:{port}", server, 60) == 200
        assert server.poll() is not None
        assert ask(port)[0] is None

    def test_an_error_in_the_block_ends_the_child_too(self):
        with pytest.raises(ZeroDivisionError), processes.running("http.server", "0") as server:
            _ = 1 / 0
        assert server.poll() is not None

    def test_a_child_that_refuses_to_end_is_ended_with_its_worker(self, tmp_path):
        program, note = tmp_path / "child.py", tmp_path / "ready"
        program.write_text(f"open({str(note)!r}, 'w')\n{STUBBORN}")
        child = processes.start(str(program))
        wait_until(lambda: note.exists() and len(family_of(child)) == 2, "the worker")
        members = family_of(child)
        processes.stop(child)
        wait_until(lambda: not alive(members), "the end of all")

    def test_a_child_that_has_ended_already_is_no_error(self, tmp_path):
        (tmp_path / "child.py").write_text("raise SystemExit(3)")
        child = processes.start(str(tmp_path / "child.py"))
        assert child.wait() == 3
        processes.stop(child)


def test_a_program_gets_its_arguments_folder_and_variables_but_no_input(tmp_path):
    program, told = tmp_path / "child.py", tmp_path / "told.txt"
    (tmp_path / "beside.py").touch()
    program.write_text(
        "import os, sys\n"
        "import beside\n"
        "said = [*sys.argv[1:], os.getcwd(), os.environ['MINE'], sys.stdin.read(), __name__]\n"
        f"open({str(told)!r}, 'w').write('|'.join(said))\n"
    )
    child = processes.start(str(program), "a b", "-f", env={"MINE": "yes"}, cwd=tmp_path)
    assert child.wait() == 0
    assert told.read_text() == f"a b|-f|{tmp_path}|yes||__main__"
    processes.stop(child)


class TestWaitForAnswer:
    def test_it_gives_up_when_the_server_has_ended(self):
        with subprocess.Popen([sys.executable, "-c", ""]) as ended:
            url = f"http://127.0.0.1:{processes.free_port()}"
            assert processes.wait_for_answer(url, ended, limit_s=10_000) is None

    @pytest.mark.parametrize("listens", [True, False])
    def test_it_gives_up_when_the_time_is_over(self, listens):
        """A server that takes a connection and says nothing holds up no longer than one without."""
        with (
            socket.create_server(("127.0.0.1", 0)) as silent,
            subprocess.Popen([sys.executable, "-c", WORKER], stdout=subprocess.DEVNULL) as running,
        ):
            port = silent.getsockname()[1] if listens else processes.free_port()
            try:
                answer = processes.wait_for_answer(f"http://127.0.0.1:{port}/x", running, 0.3)
            finally:
                running.kill()
        assert answer is None

    def test_any_answer_counts(self, tmp_path):
        port = processes.free_port()
        with processes.running("http.server", str(port), cwd=tmp_path) as server:
            url = f"http://127.0.0.1:{port}/missing"
            assert processes.wait_for_answer(url, server, limit_s=60) == 404


def test_a_free_port_can_be_taken():
    port = processes.free_port()
    with socket.create_server(("127.0.0.1", port)):
        assert port in {
            each.laddr.port for each in psutil.Process().net_connections() if each.laddr
        }
