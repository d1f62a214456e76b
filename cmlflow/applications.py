"""Applications on 127.0.0.1: which port, under which names, and until when.

CML starts an application, waits until GET / answers on 127.0.0.1 and the port in CDSW_APP_PORT, and
shows that under a name of its own.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping

from cmlflow import processes, workarea
from cmlflow.errors import BadInput, LessonError

HIGHEST = 65535
LIMIT_S = 300
"""Seconds until a server must answer; a busy machine may need a minute."""


def port(again: str) -> int:
    """Return the port on which CML expects an application: CDSW_APP_PORT, or 8090 without it.

    Args:
        again: the command that starts the application on another port, which stands for `{port}`.

    Raises:
        BadInput: the variable holds no port, or another program listens there.
    """
    text = os.environ.get("CDSW_APP_PORT", "").strip() or "8090"
    if not (text.isdecimal() and len(text) <= 5 and 0 < int(text) <= HIGHEST):
        raise BadInput(
            f"CDSW_APP_PORT is {text if len(text) <= 20 else text[:20] + '...'!r}.",
            f"a number from 1 to {HIGHEST}, or no such variable",
            f"To use another port, run:  {again.format(port=5001)}",
        )
    number = int(text)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server itself will
        try:
            probe.bind(("127.0.0.1", number))
        except OSError as error:
            raise BadInput(
                f"No server can listen on port {number} of 127.0.0.1: {error.strerror}.",
                "a port that no other program listens on; an earlier application may still run",
                f"To use another port, run:  {again.format(port=number % HIGHEST + 1)}",
            ) from error
    return number


def own_names() -> list[str]:
    """Return the names of this machine under which an application is asked, without ports."""
    names = ["127.0.0.1", "localhost"]
    address = os.environ.get("CDSW_IP_ADDRESS", "")
    if re.fullmatch(r"\d+(\.\d+){3}", address):
        names.append(address)  # what a proxy may ask for that keeps no name
    return names


def domain() -> str:
    """Return the name of the workbench, of which each application is a subdomain; empty elsewhere.

    Raises:
        BadInput: CDSW_DOMAIN holds no such name, and might let everybody in.
    """
    name = os.environ.get("CDSW_DOMAIN", "").strip().lower()
    if name and not re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+(:\d+)?", name):
        raise BadInput(
            f"CDSW_DOMAIN is {name!r}.",
            "the name of the workbench, such as ml-1234.example.cloudera.site",
            "On a laptop there is none; run:  unset CDSW_DOMAIN",
        )
    return name


def serve(
    *program: str, number: int, told: str, again: str, env: Mapping[str, str] | None = None
) -> None:
    """Start a server as a child, say where it is, and wait for it until Ctrl+C.

    The server replaces neither a kernel nor its event loop, and it ends when this process ends,
    even if that is killed.

    Args:
        program: a module or a file of Python, and its arguments.
        number: the port on which it will answer.
        told: what to print as soon as it answers.
        again: the command that starts it again.
        env: its environment, by default that of this process.

    Raises:
        LessonError: it did not answer in time, or ended by itself.
    """
    address = f"http://127.0.0.1:{number}"
    try:
        with processes.running(*program, env=env, cwd=workarea.root()) as server:
            answered = processes.wait_for_answer(address, server, LIMIT_S)
            if answered:
                print(told, flush=True)
                server.wait()
            ended = server.poll() is not None
    except KeyboardInterrupt:
        print("Stopped")
        return
    raise LessonError(
        f"The server on port {number} "
        + ("ended by itself" if ended else f"did not answer within {LIMIT_S} s")
        + "; see its last output above.",
        "a server that runs until the application is stopped",
        f"To start it again, run:  {again}",
    )
