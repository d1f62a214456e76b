"""The program of one endpoint on a laptop: MLflow's own scoring server, in a process of its own.

    python laptop_server.py <working area> <endpoint>       its settings come as JSON on stdin

The port of the endpoint is a socket that this process inherits. Its successor, which serves another
version, inherits the same socket, so the port stays and no connection that waits in it is lost:

    1. The one that serves starts the successor, which loads its model and answers on a port of its
       own, where it is checked. Until then nothing has changed.
    2. The one that serves hands over: the successor accepts on the socket, this one no longer does.
    3. The old one answers those who are connected already. When none is left, it ends.

Each connection is closed after one answer. If connections were kept, a client could go on with the
old version, or send at the moment at which the old process closes an idle one: that request would
be lost. Within one machine a new connection costs about a tenth of a millisecond.

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
from typing import Any

IDLE_S = 3
"""Seconds that an old process waits for the request of a client that has connected already."""
UNUSED_S = 300
"""Seconds after which a process ends that was never told to serve."""
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
"""For the model's own threads. With several, each request wakes them for one row, and where other
programs keep the cores busy they wait for each other: a row took ten times as long."""
MARK = "X-Endpoint"
"""The header of all answers that shows which endpoint of which working area gave them."""


def start(
    shared: socket.socket, area: str, endpoint: str, settings: dict, log: str
) -> tuple[int, int]:
    """Start the process of an endpoint; return its id and its control port.

    Args:
        shared: the listening socket of the endpoint.
        area: the working area; it and the name stand in the list of processes.
        endpoint: its name.
        settings: `path` of the model, `facts` (what `/deployment` answers), and the `token`.
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
                env=ONE_THREAD | os.environ,
                pass_fds=fds,
                start_new_session=True,  # it outlives the terminal
            )
        with contextlib.suppress(BrokenPipeError):  # it has ended; its log says why
            child.stdin.write(json.dumps(settings | {"fds": fds}).encode())
            child.stdin.close()
        return child.pid, control.getsockname()[1]


def mark(area: str, endpoint: str) -> str:
    """Return the value of the header MARK."""
    return hashlib.sha256(f"{area}\0{endpoint}".encode(errors="surrogatepass")).hexdigest()[:16]


def ask(
    port: int,
    path: str,
    body: dict | None = None,
    token: str = "",
    limit_s: float = 10,
    expected_mark: str | None = None,
) -> tuple[int, Any]:
    """Ask a process of an endpoint; return the status and the parsed answer.

    Raises:
        ConnectionError: nobody listens, or another program, which has no such mark.
        TimeoutError: no answer in time.
        OSError, http.client.HTTPException: the connection broke.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=limit_s)
    try:
        method = "GET" if body is None else "POST"
        headers = {"Content-Type": "application/json", "X-Token": token}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        if expected_mark not in (None, answer.getheader(MARK)):
            raise ConnectionError("another program has the port now")
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

        self.app, self.settings, self.shared = app, settings, shared
        self.control_port = control_port
        area, endpoint = sys.argv[1:3]
        self.headers = [(b"connection", b"close"), (MARK.encode(), mark(area, endpoint).encode())]
        options = {"lifespan": "off", "log_level": "warning", "access_log": False}
        self.public, self.control = (uvicorn.Server(uvicorn.Config(self, **options)) for _ in "12")
        self.serving: asyncio.Task | None = None
        self.ends = time.time() + UNUSED_S
        self.leaving = False
        self.unanswered: set[object] = set()

    async def __call__(self, scope: dict, receive, send) -> None:
        """Answer one request."""

        request = object()

        async def send_marked(message: dict) -> None:
            if message["type"] == "http.response.start":
                message = message | {"headers": [*message.get("headers", []), *self.headers]}
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                self.unanswered.discard(request)  # MLflow's code may go on for ever after a 504

        path = scope.get("path", "")
        if scope["server"][1] != self.control_port:
            self.unanswered.add(request)
        try:
            if path.startswith("/control/"):
                order = path.removeprefix("/control/")
                await answer(send_marked, *await self.obey(scope, receive, order))
            elif path == "/deployment":
                await answer(send_marked, 200, self.settings["facts"])
            else:
                await self.app(scope, receive, send_marked)
        finally:
            self.unanswered.discard(request)

    async def obey(self, scope: dict, receive, order: str) -> tuple[int, dict]:
        """Follow an order, if it comes with the token and to the control port."""
        given = dict(scope["headers"]).get(b"x-token", b"")
        allowed = hmac.compare_digest(given, self.settings["token"].encode())
        if not allowed or scope["server"][1] != self.control_port:
            return 403, {}
        body = json.loads(await whole_body(receive) or b"{}")
        if order == "start":  # a successor, which does not serve yet
            area, endpoint = sys.argv[1:3]
            pid, control = start(self.shared, area, endpoint, body["settings"], body["log"])
            return 200, {"pid": pid, "control": control}
        if order == "serve":
            write_whole(Path(body["file"]), body["content"])
            self.ends = body["content"]["ends"]
            self.serving = asyncio.create_task(self.public.serve(sockets=[self.shared]))
            while not self.public.started:
                await asyncio.sleep(0.005)
        elif order == "hand_over":
            what = {"file": body["file"], "content": body["content"]}
            successor = (body["control"], "/control/serve", what, body["token"])
            try:
                status, _ = await asyncio.to_thread(ask, *successor)
            except (OSError, http.client.HTTPException):
                status = 502
            if status != 200:
                return status, {}
            self.leave()
        elif order == "end":
            self.leave()
        else:
            return 404, {}
        return 200, {}

    def leave(self) -> None:
        """Accept no connection any more; `run` then ends the process."""
        # Closing the socket instead would drop a connection that was accepted a moment ago.
        asyncio.get_running_loop().remove_reader(self.shared)
        self.leaving = True

    async def run(self, control: socket.socket) -> None:
        """Serve until the lifetime is over, or the end is asked for; then end the process."""
        controlling = asyncio.create_task(self.control.serve(sockets=[control]))
        while not (self.leaving or self.public.should_exit or controlling.done()):
            if time.time() > self.ends:
                self.leave()
            await asyncio.sleep(0.05)
        if self.serving:
            await self.drain()
        sys.stdout.flush()
        os._exit(0)  # a prediction that never ends would hold up any other way to end

    async def drain(self) -> None:
        """Wait until all who are connected have been answered."""
        idle_until = time.monotonic() + IDLE_S
        await asyncio.sleep(0.05)  # the last ones accepted are not in the list yet
        while self.public.server_state.connections and time.monotonic() < idle_until:
            if self.unanswered:  # MLflow itself ends a request that takes too long
                idle_until = time.monotonic() + IDLE_S
            await asyncio.sleep(0.02)


async def whole_body(receive) -> bytes:
    """Return the body of a request."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


async def answer(send, status: int, told: dict) -> None:
    """Send a whole answer."""
    body = json.dumps(told).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def main() -> None:
    """Load the model and serve it."""
    del sys.path[0]  # the folder of this file is no place to import from
    settings = json.load(sys.stdin)
    shared, control = (socket.socket(fileno=fd) for fd in settings["fds"])
    from mlflow import pyfunc
    from mlflow.pyfunc import scoring_server

    model = pyfunc.load_model(settings["path"])
    # Not the run that was asked for, but the one that the files of the model name.
    settings["facts"]["run_id"] = model.metadata.run_id or settings["facts"]["run_id"]
    app = scoring_server.init(model)
    endpoint = Endpoint(app, settings, shared, control.getsockname()[1])
    asyncio.run(endpoint.run(control))


if __name__ == "__main__":
    main()
