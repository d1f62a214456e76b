"""Ask servers on this machine, see where they listen, and end them."""

from __future__ import annotations

import contextlib
import http.client
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
from conftest import LIMIT, clean_environment, wait_until


def ask(
    port: int, path: str = "/", method: str = "GET", body: str | None = None, **headers: str
) -> tuple[int | None, str]:
    """The status and the text of an answer, or (None, "") where nobody listens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    except (ConnectionError, http.client.BadStatusLine):
        return None, ""
    finally:
        connection.close()


def family_of(process: subprocess.Popen) -> list[psutil.Process]:
    """The process and all that it started, as long as they can be seen."""
    return [parent := psutil.Process(process.pid), *parent.children(recursive=True)]


def listening(process: subprocess.Popen) -> set[tuple[str, int]]:
    """The addresses at which a process, or one that it started, listens."""
    return {
        tuple(connection.laddr)
        for member in family_of(process)
        for connection in member.net_connections()
        if connection.status == psutil.CONN_LISTEN
    }


def alive(members: list[psutil.Process]) -> list[psutil.Process]:
    """Those that still run; a zombie only waits for init."""
    found = []
    for member in members:
        with contextlib.suppress(psutil.NoSuchProcess):
            if member.is_running() and member.status() != psutil.STATUS_ZOMBIE:
                found.append(member)
    return found


def end(members: list[psutil.Process]) -> None:
    """Kill those that still run."""
    for member in alive(members):
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()


@contextlib.contextmanager
def application(script: Path, work: Path, port: int, **extra: str) -> Iterator[SimpleNamespace]:
    """Start a script that serves as a terminal does, and wait until it answers."""
    log = work / "application.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, str(script)],
            cwd=work,
            env=clean_environment(work, CDSW_APP_PORT=str(port), TMPDIR=str(work), **extra),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    members = [psutil.Process(process.pid)]

    def answers():
        assert process.poll() is None, f"it ended: {log.read_text()[-3000:]}"
        members[:] = family_of(process)
        return ask(port)[0] is not None

    try:
        wait_until(answers, "an answer of the application")
        yield SimpleNamespace(process=process, port=port, members=members, log=log, work=work)
    finally:
        end(members)
        process.wait()
