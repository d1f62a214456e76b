"""The API v2 server of `standins/workbench`, started for a test, and what a test asks of it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from conftest import ADDON, ROOT, STANDINS, clean_environment, in_cml

PROGRAM = STANDINS / "workbench"


@dataclass
class Workbench:
    """A server that runs; its state outlives the lessons that talk to it."""

    address: str
    key: str = field(repr=False)
    process: subprocess.Popen = field(repr=False)

    def environment(self) -> dict[str, str]:
        """Return what a session of this workbench adds to `conftest.in_cml`."""
        return {
            "CDSW_API_URL": f"{self.address}/api/v1",
            "CDSW_APIV2_KEY": self.key,
            "CMLFLOW_MODEL_SERVICE": self.address,
            "CDSW_PROJECT_ID": "abcd-efgh-ijkl-mnop",
            "PYTHONPATH": os.pathsep.join(map(str, (STANDINS / "cml_store", STANDINS, ADDON))),
        }

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        headers: dict[str, str] | None = None,
        limit: float = 60,
    ) -> tuple[int, object]:
        """Return the status and the JSON (or text, or bytes) of one answer, as curl would."""
        sent = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        parts = urlsplit(self.address)
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=limit)
        all_headers = {"authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        try:
            connection.request(method, path, sent, all_headers | (headers or {}))
            answer = connection.getresponse()
            said = answer.read()
        finally:
            connection.close()
        if answer.headers.get_content_type() == "application/octet-stream":
            return answer.status, said
        try:
            return answer.status, json.loads(said)
        except ValueError:
            return answer.status, said.decode()

    def switch(self, *names: str) -> None:
        """Turn these switches on and all others off; they are explained in switches.py."""
        status, said = self.ask("PUT", "/control", {"switches": names})
        assert status == 200, said

    def begin(self, *names: str) -> None:
        """Empty the tables and turn these switches on: as if it had just been started."""
        assert self.ask("DELETE", "/control")[0] == 200
        self.switch(*names)

    def state(self) -> dict:
        """Return the server's tables, the registered versions, and the requests it has had."""
        status, said = self.ask("GET", "/control/state")
        assert status == 200, said
        return said


@contextlib.contextmanager
def workbench_server(
    area: Path, *switches: str, project_root: Path = ROOT, **extra: str
) -> Iterator[Workbench]:
    """Start a workbench whose runs and registered models are those of a working area.

    Its jobs get the environment of a session in CML, see `conftest.in_cml`, and `extra`.
    """
    command = [sys.executable, str(PROGRAM), "--port", "0", "--area", str(area)]
    command += ["--project-root", str(project_root), "--switches", " ".join(switches)]
    process = subprocess.Popen(
        command,
        env=clean_environment(area, **in_cml(area) | extra),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        address, key = process.stdout.readline().split()
        yield Workbench(address, key, process)
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()
