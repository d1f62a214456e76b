"""The program of one endpoint on a laptop: MLflow's own scoring server, in a process of its own.

    python laptop_server.py <working area> <endpoint>       its settings come as JSON on stdin

The port of the endpoint is a socket that this process inherits. Its successor, which serves another
version, inherits the same socket, so the port stays and no connection that waits in it is lost:

    1. The one that serves starts the successor, which loads its model and answers on a port of its
       own, where it is checked. Until then nothing has changed.
    2. The one that serves hands over: the successor accepts on the socket, this one no longer does.
    3. Whoever still sends over a connection to the old one is answered by the new one through it,
       and the connection is closed. When none is left, the old one ends.

The control port takes orders only with the token of the facts, a file that nobody else can read.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import http.client
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

DRAIN_S = 10
"""Seconds after which the last idle connections to an old process are closed."""
UNUSED_S = 300
"""Seconds after which a process ends that was never told to serve."""
LIMIT_S = 60
"""Seconds that a forwarded request may take."""


def start(
    shared: socket.socket, area: str, endpoint: str, settings: dict, log: str
) -> tuple[int, int]:
    """Start the process of an endpoint; return its id and its control port.

    Args:
        shared: the listening socket of the endpoint.
        area: the working area; it and the name stand in the list of processes.
        endpoint: its name.
        settings: `path` of the model, `facts` (what `/deployment` answers), `token`, `ends` (time).
        log: file for what it prints.
    """
    with socket.create_server(("127.0.0.1", 0)) as control:
        fds = (shared.fileno(), control.fileno())
        with open(log, "ab", opener=lambda file, flags: os.open(file, flags, 0o600)) as out:
            child = subprocess.Popen(
                [sys.executable, __file__, area, endpoint],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
                cwd=area,
                pass_fds=fds,
                start_new_session=True,  # it outlives the terminal
            )
        child.stdin.write(json.dumps(settings | {"fds": fds}).encode())
        child.stdin.close()
        return child.pid, control.getsockname()[1]


def mark(token: str) -> str:
    """Return what shows that somebody knows a token, without telling it."""
    return hashlib.sha256(token.encode()).hexdigest()


def ask(port: int, path: str, body: dict | None = None, token: str = "", limit_s: float = 10):
    """Ask a process of an endpoint; return the status and the parsed answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=limit_s)
    try:
        method = "GET" if body is None else "POST"
        headers = {"Content-Type": "application/json", "X-Token": token}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        text = answer.read().decode(errors="replace")
        with contextlib.suppress(ValueError):
            return answer.status, json.loads(text)
        return answer.status, text
    finally:
        connection.close()


def write_whole(file: Path, content: dict) -> None:
    """Write a file that only this user can read, whole or not at all."""
    part = file.with_suffix(f".{os.getpid()}.part")
    with open(part, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as out:
        json.dump(content, out)
    os.replace(part, file)


class Endpoint:
    """The ASGI application of one process: MLflow's, and the orders of the control port."""

    def __init__(self, app, settings: dict, shared: socket.socket, control_port: int) -> None:
        import uvicorn

        self.app, self.settings, self.shared, self.control_port = (
            app,
            settings,
            shared,
            control_port,
        )
        self.successor: int | None = None
        options = {"lifespan": "off", "log_level": "warning", "access_log": False}
        self.servers = [uvicorn.Server(uvicorn.Config(self, **options)) for _ in range(2)]
        self.public, self.control = self.servers
        self.serving: asyncio.Task | None = None

    async def __call__(self, scope: dict, receive, send) -> None:
        """Answer one request."""
        path = scope.get("path", "")
        if path.startswith("/control/"):
            await self.obey(scope, receive, send, path.removeprefix("/control/"))
        elif path == "/deployment" and self.successor is None:
            told = self.settings["facts"] | {"mark": mark(self.settings["token"])}
            await answer(send, 200, json.dumps(told).encode())
        elif self.successor is not None and scope["server"][1] != self.control_port:
            await self.forward(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def obey(self, scope: dict, receive, send, order: str) -> None:
        """Follow an order, if it comes with the token and to the control port."""
        headers = dict(scope["headers"])
        given = headers.get(b"x-token", b"").decode(errors="replace")
        allowed = hmac.compare_digest(given.encode(), self.settings["token"].encode())
        if not allowed or scope["server"][1] != self.control_port:
            await answer(send, 403, b"{}")
            return
        body = json.loads(await whole_body(receive) or b"{}")
        told: dict = {}
        if order == "start":  # a successor, which does not serve yet
            area, endpoint = sys.argv[1:3]
            told["pid"], told["control"] = start(
                self.shared, area, endpoint, body["settings"], body["log"]
            )
        elif order == "serve":
            write_whole(Path(body["file"]), body["content"])
            self.serving = asyncio.create_task(self.public.serve(sockets=[self.shared]))
            while not self.public.started:
                await asyncio.sleep(0.005)
        elif order == "hand_over":
            successor, token = body["control"], body["token"]
            order_s = {"file": body["file"], "content": body["content"]}
            status, _ = await asyncio.to_thread(ask, successor, "/control/serve", order_s, token)
            if status != 200:
                await answer(send, 502, b"{}")
                return
            self.successor = successor
            for server in self.public.servers:
                server.close()
            self.draining = asyncio.create_task(self.drain())
        await answer(send, 200, json.dumps(told).encode())

    async def drain(self) -> None:
        """End when no connection is left, or after DRAIN_S."""
        end = time.monotonic() + DRAIN_S
        while self.public.server_state.connections and time.monotonic() < end:
            await asyncio.sleep(0.05)
        self.public.should_exit = self.control.should_exit = True

    async def forward(self, scope: dict, receive, send) -> None:
        """Let the successor answer a request that came over a connection to this process."""
        body = await whole_body(receive)
        query = scope["query_string"].decode()
        target = scope["path"] + (f"?{query}" if query else "")
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}

        def pass_on() -> tuple[int, bytes, str]:
            connection = http.client.HTTPConnection("127.0.0.1", self.successor, timeout=LIMIT_S)
            try:
                connection.request(scope["method"], target, body, headers)
                told = connection.getresponse()
                return told.status, told.read(), told.getheader("Content-Type", "text/plain")
            finally:
                connection.close()

        await answer(send, *await asyncio.to_thread(pass_on), close=True)

    async def run(self, control: socket.socket) -> None:
        """Serve until the lifetime is over, or the end is asked for."""
        controlling = asyncio.create_task(self.control.serve(sockets=[control]))
        unused_until = time.time() + UNUSED_S
        while not any(server.should_exit for server in self.servers):
            if time.time() > self.settings["ends"]:
                break
            if self.serving is None and time.time() > unused_until:
                break
            await asyncio.sleep(0.1)
        for server in self.servers:
            server.should_exit = True
        for task in (controlling, self.serving):
            if task is not None:
                await task


async def whole_body(receive) -> bytes:
    """Return the body of a request."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


async def answer(
    send, status: int, body: bytes, kind: str = "application/json", close: bool = False
) -> None:
    """Send a whole answer; `close` ends the connection after it."""
    headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
    headers += [(b"connection", b"close")] if close else []
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def main() -> None:
    """Load the model and serve it."""
    del sys.path[0]  # the folder of this file is no place to import from
    settings = json.load(sys.stdin)
    shared, control = (socket.socket(fileno=fd) for fd in settings["fds"])
    from mlflow import pyfunc
    from mlflow.pyfunc import scoring_server

    app = scoring_server.init(pyfunc.load_model(settings["path"]))
    endpoint = Endpoint(app, settings, shared, control.getsockname()[1])
    asyncio.run(endpoint.run(control))


if __name__ == "__main__":
    main()
