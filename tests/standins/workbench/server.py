"""The HTTP server: API v2 under /api/v2, deployed models at /model, and /control for tests."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from workbench import (
    applications,
    endpoint,
    experiments,
    jobs,
    models,
    projects,
    registry,
    surface,
)
from workbench.surface import MODELS, OPERATIONS, Refused, accepted, answer
from workbench.switches import Switches
from workbench.tables import Call, State, as_answer

ROOMS = (projects, experiments, registry, models, jobs, applications)
HANDLERS = {
    name: next(getattr(room, name) for room in ROOMS if hasattr(room, name)) for name in OPERATIONS
}
CREATES = ("create_project", "create_model", "create_model_build", "create_job")
PUT = re.compile(r"/api/v2/projects/(?P<project_id>[^/]+)/files(?:/(?P<path>[^/]*))?")
HTML = "<html><head><title>{0}</title></head><body><h1>{0}</h1><hr>nginx</body></html>"


class Server(ThreadingHTTPServer):
    """Answers each connection in a thread of its own."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, state: State) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.state, self.predictors = state, endpoint.Predictors()
        state.address = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address) -> None:
        """Say nothing of a client that went away."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """One connection, on which requests follow each other."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    asked_model = False  # on this connection
    server: Server

    def log_message(self, *_) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        """Answer any request."""
        state, url = self.server.state, urlsplit(self.path)
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        query = {
            re.sub("[A-Z]", lambda letter: "_" + letter[0].lower(), name): value
            for name, value in parse_qsl(url.query, keep_blank_values=True)
        }
        name = ""
        try:
            if url.path == "/model":
                if self.command != "POST":
                    raise Refused(405, "Method Not Allowed")
                self.count("model")
                if not self.asked_model:
                    self.asked_model = True
                    self.count("connections to models")
                query = dict(parse_qsl(url.query))
                status, said = endpoint.respond(
                    state, self.server.predictors, query, raw, self.bearer()
                )
                return self.send(status, json.dumps(said).encode())
            if url.path.startswith("/control"):
                return self.control(url.path, raw)
            name, ids = self.find(url.path)
            self.count(name)
            if self.bearer() != state.key or state.switches.on("unauthorized", name):
                raise Refused(403 if "bad-key-403" in state.switches else 401, "invalid API key")
            self.refuse_if_told(name, ids)
            said = self.answer(Call(state, name, ids, query), raw)
            state.switches.wait_while("holds", name)
            return self.send(200, said, name=name)
        except Refused as refused:
            return self.refuse(refused)
        except (ConnectionError, BrokenPipeError):
            raise
        except Exception as error:  # a mistake of this server
            import traceback

            traceback.print_exc()
            return self.refuse(Refused(500, f"{name}: {type(error).__name__}: {error}"))

    do_POST = do_PATCH = do_DELETE = do_PUT = do_GET

    def find(self, path: str) -> tuple[str, dict[str, str]]:
        """Return the operation of a path; a PUT of a file is not in the surface."""
        match = PUT.fullmatch(path)
        if self.command == "PUT" and match and "no-put" not in self.server.state.switches:
            ids = {key: unquote(value) for key, value in match.groupdict().items() if value}
            return "upload_file", ids
        try:
            return surface.route(self.command, path)
        except Refused:
            if self.command == "GET" and match:  # the folder is in the query, or it is the root
                return "list_project_files", {"project_id": unquote(match["project_id"])}
            raise

    def bearer(self) -> str:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ").strip()

    def count(self, name: str) -> None:
        with self.server.state.lock:
            self.server.state.requests[name] += 1

    def refuse_if_told(self, name: str, ids: dict[str, str]) -> None:
        state, switches = self.server.state, self.server.state.switches
        if switches.use("too-many", name):
            raise Refused(429, "too many requests")
        if switches.on("server-error", name):
            raise Refused(500, "internal error")
        other = ids.get("project_id", state.own_project) != state.own_project
        told = switches.value("forbidden") or other or name == "create_project"
        if switches.on("forbidden", name) and told:
            raise Refused(403, "permission denied")

    def answer(self, call: Call, raw: bytes) -> bytes:
        """Do what is asked for, and return the answer."""
        state, operation = call.state, OPERATIONS[call.operation]
        with state.lock:
            if call.operation == "upload_file":
                call.raw, call.content_type = raw, self.headers.get("Content-Type", "")
            elif operation["body"]:
                try:
                    body = json.loads(raw or b"{}")
                except ValueError:
                    raise Refused(400, "invalid JSON in the body") from None
                call.body = accepted(operation["body"], body, "strict-bodies" in state.switches)
            row = HANDLERS[call.operation](call)
            lost = state.switches.on("conflict", call.operation) and call.operation in CREATES
            if lost and call.operation not in state.raced:
                state.raced.add(call.operation)
                raise Refused(409, "another session has just created it")
            if operation["response"] is None:
                return row or b""
            return json.dumps(as_answer(call, row)).encode()

    def send(
        self, status: int, said: bytes, kind: str = "application/json", name: str = ""
    ) -> None:
        """Send an answer, as a whole or, if so told, the half of it."""
        if name == "download_project_file":
            kind = "application/octet-stream"
        broken = name and self.server.state.switches.use("breaks-in-mid-answer", name)
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers_with(said[: len(said) // 2] if broken else said)
        self.close_connection = self.close_connection or bool(broken)

    def end_headers_with(self, said: bytes) -> None:
        """Send headers and body in one piece: two would wait for each other."""
        self._headers_buffer.append(b"\r\n" + said)
        self.flush_headers()

    def refuse(self, refused: Refused) -> None:
        """Send an error as a gRPC gateway writes it."""
        if "odd-errors" in self.server.state.switches:
            said = HTML.format(f"{refused.status} {refused.message}")
            return self.send(refused.status, said.encode(), "text/html")
        row = {"error": refused.message, "message": refused.message}
        row["code"] = surface.GRPC.get(refused.status, 2)
        return self.send(refused.status, json.dumps(answer("RuntimeError", row)).encode())

    def control(self, path: str, raw: bytes) -> None:
        """Change the switches, or tell the tables."""
        state = self.server.state
        if self.bearer() != state.key:
            raise Refused(401, "invalid API key")
        if path == "/control" and self.command in ("PUT", "POST"):
            try:
                state.switches.set(json.loads(raw)["switches"])
            except (ValueError, KeyError, TypeError) as error:
                raise Refused(400, str(error)) from None
            with state.lock:
                state.raced.clear()
            return self.send(200, b"{}")
        if path == "/control" and self.command == "DELETE":
            state.switches.set([])
            state.forget()
            return self.send(200, b"{}")
        if path == "/control/state":
            with state.lock:
                return self.send(200, json.dumps(told(state), default=plain).encode())
        raise Refused(404, "Not Found")


def plain(value: object) -> object:
    """Return what JSON has no form for."""
    return surface.time_text(value) if isinstance(value, datetime) else str(value)


def told(state: State) -> dict:
    """Return all tables as lists of rows; the log of each job run is in its row as `_log`."""
    tables = {
        table: [
            {key: value for key, value in row.items() if key not in ("_wakes", "_process")}
            for row in rows.values()
            if not row.get("_filler")
        ]
        for table, rows in state.rows.items()
    }
    for run in tables["job_runs"]:
        if run.get("_log"):
            run["_log"] = Path(run["_log"]).read_text(encoding="utf-8", errors="replace")
    versions = [
        {key: value for key, value in version.items() if key != "_facts"}
        for model in registry.models_of(state)
        for version in model["_versions"]
    ]
    return tables | {
        "versions": versions,
        "requests": dict(state.requests),
        "switches": state.switches.words,
    }


def serve(port: int, area: Path, root: Path, words: list[str], session: dict[str, str]) -> None:
    """Serve until this process is ended."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    state = State(area, root, Switches(words), session)
    threading.Thread(target=__import__, args=("mlflow.pyfunc",), daemon=True).start()  # 2 seconds
    try:
        server = Server(port, state)
        print(state.address, state.key, flush=True)
        server.serve_forever(poll_interval=0.05)
    except KeyboardInterrupt:
        pass
    finally:
        jobs.end_all(state)
        state.close()
        os._exit(0)  # no waiting for threads, one of which may still import


assert all("fields" in MODELS[one["response"]] for one in OPERATIONS.values() if one["response"])
