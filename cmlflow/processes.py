"""Child processes that end with their parent, free ports, and waiting for an answer.

    port = processes.free_port()
    with processes.running("http.server", str(port)) as server:
        processes.wait_for_answer(f"http://127.0.0.1:{port}", server, limit_s=30)
        ...  # the end of the block ends the server

The child is Python, and watches its parent itself: its standard input is a pipe that only the
parent holds, and to which nothing is written. When the parent is gone, the system closes the pipe:
after Ctrl+C, after the end of a kernel, and after `kill -9`, when the parent runs no code of its
own any more. Nothing stands between the two that could be killed instead. (Linux and macOS.)
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

GRACE_S = 3
"""Seconds from the request to end until the end by force."""


def start(
    program: str,
    *arguments: str,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdout: IO | None = None,
    stderr: IO | None = None,
) -> subprocess.Popen:
    """Start a Python program that ends when this process ends, however that ends.

    Its group of processes, the workers that it starts included, ends with it: first by request
    (SIGTERM), and after GRACE_S by force. Ctrl+C in the terminal reaches this process only.

    Args:
        program: a module, as after `python -m`, or the path of a file that ends in `.py`.
        arguments: the program's own.
        env: its environment, by default that of this process.
        cwd: the folder in which it starts, by default that of this process.
        stdout: a file for what it prints, by default where this process prints.
        stderr: a file for its errors, likewise.

    Returns:
        The child; `stop` ends it. Its standard input is not for use.
    """
    return subprocess.Popen(
        [sys.executable, __file__, program, *arguments],
        env=env,
        cwd=cwd,
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
    )


def stop(child: subprocess.Popen) -> None:
    """End what `start` started, with its workers, and wait until it is gone."""
    child.stdin.close()  # this is what it waits for
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(GRACE_S + 1)
    with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody is left
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


@contextlib.contextmanager
def running(
    program: str, *arguments: str, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Iterator[subprocess.Popen]:
    """Do what `start` does; the end of the block ends the child."""
    child = start(program, *arguments, env=env, cwd=cwd)
    try:
        yield child
    finally:
        stop(child)


def error_message(stderr: str) -> str:
    """Return the message of the last traceback in what a program printed, without any stack."""
    from cmlflow.spark import reason

    if "Traceback (most recent call last):\n" not in stderr:
        return ""
    last = stderr.rpartition("Traceback (most recent call last):\n")[2]
    return reason(re.sub(r"\A(?:[ \t].*\n)*", "", last).strip())


def free_port() -> int:
    """Return a port of 127.0.0.1 on which nobody listened a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_answer(url: str, process: subprocess.Popen, limit_s: float) -> int | None:
    """Wait until a server answers a GET, whatever it answers.

    Args:
        url: an address of this machine, such as http://127.0.0.1:8090/health.
        process: the server; its end ends the waiting.
        limit_s: seconds after which we give up.

    Returns:
        The status of the answer, such as 200; None if the server ended or the time is over.
    """
    parts = urlsplit(url)
    end = time.monotonic() + limit_s
    while process.poll() is None and (left := end - time.monotonic()) > 0:
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=left)
        try:
            connection.request("GET", parts.path or "/")
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            time.sleep(min(0.05, left))
        finally:
            connection.close()
    return None


def _end_with_parent() -> None:
    """Let this process, and all of its group, end when its standard input does."""
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)
    pipe = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    # A shell does it: it is still there when this process has ended and a worker has not.
    end = f"trap '' TERM; kill -TERM 0; sleep {GRACE_S}; kill -KILL 0"

    def watch() -> None:
        # A signal must reach the main thread: another one notes it, but wakes nobody who sleeps.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        os.read(pipe, 1)
        subprocess.Popen(["/bin/sh", "-c", end], stdout=nothing, stderr=nothing)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    _end_with_parent()
    del sys.argv[0]
    if sys.argv[0].endswith(".py"):
        sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))
        runpy.run_path(sys.argv[0], run_name="__main__")
    else:
        sys.path[0] = os.getcwd()
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
