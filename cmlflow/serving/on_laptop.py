"""Endpoints on a laptop: one process for each, which outlives the lesson; see `laptop_server`.

What is known of an endpoint stands in `endpoints/<name>.json` of the working area, for this user
only. What runs is asked from the processes: one is ours if its command line holds the working area
and the name of the endpoint.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmlflow import workarea
from cmlflow.errors import BadInput, MissingStep, ServingError
from cmlflow.processes import error_message
from cmlflow.serving import laptop_server
from cmlflow.serving.answers import Answer, Check, Deployment

if TYPE_CHECKING:
    import psutil

    from cmlflow.registry import Version

FOLDER = "endpoints"
READY_LIMIT_S = 120
"""Seconds that a version may take until it answers."""
LOCK_LIMIT_S = 5
"""Seconds that a deployment waits for another one of the same endpoint."""
HOURS = 8.0
"""The lifetime of an endpoint, unless CMLFLOW_ENDPOINT_HOURS says another."""
_DEPLOY = "python code/20_Deploy_Model.py"
_PROGRAM = str(Path(laptop_server.__file__))
_here = threading.local()


def deploy(endpoint: str, version: Version, check: Check) -> Deployment:
    """Let an endpoint serve a version; see `cmlflow.serving.deploy`."""
    hours = _lifetime_h()
    _require_a_server()
    with _alone(endpoint):
        facts = _read(endpoint)
        serving = deployed(endpoint)
        keeps = facts["pid"] if serving else None
        _end([one for one in _processes(endpoint) if one.pid != keeps])
        serves_it = serving is not None and serving.version == version.number
        if serves_it and not check.problem(send(endpoint, check.payload)):
            return serving
        log = _file(endpoint, ".log")
        if serving is None:
            log.unlink(missing_ok=True)
        begin = log.stat().st_size if log.exists() else 0
        content = {
            "endpoint": endpoint,
            "model": version.model,
            "version": version.number,
            "run_id": version.run_id,
        }
        settings = {
            "path": _files_of(version),
            "facts": content,
            "token": secrets.token_hex(),
            "ends": time.time() + hours * 3600,
        }
        token = settings["token"]
        if serving is None:
            shared = socket.create_server(("127.0.0.1", 0), backlog=128)
            port = shared.getsockname()[1]
            with shared:
                area = str(workarea.path())
                pid, control = laptop_server.start(shared, area, endpoint, settings, str(log))
        else:
            port = facts["port"]
            _, told = _order(facts, "start", {"settings": settings, "log": str(log)})
            pid, control = told["pid"], told["control"]
        try:
            problem = _ready(pid, control, log, begin) or _answers(control, check)
            if problem:
                raise ServingError(
                    f"{version} cannot serve as {endpoint!r}: {problem}",
                    "the model's own predictions"
                    + (f"; {serving} still serves" if serving else ""),
                    f"To see all that it said, open:  {log}",
                )
            known = {"port": port, "control": control, "pid": pid, "token": token}
            before = _version_before(facts, serving, version)
            known |= content | {"ends": settings["ends"], "before": before}
            order = {"file": str(_file(endpoint)), "content": known}
            if serving is None:
                status, _ = laptop_server.ask(control, "/control/serve", order, token)
            else:
                order |= {"control": control, "token": token}
                status, _ = _order(facts, "hand_over", order)
            if status != 200:
                raise ServingError(
                    f"{version} could not take the name {endpoint!r} (status {status}).",
                    "an endpoint that hands over" + (f"; {serving} serves" if serving else ""),
                    f"To start anew, run:  make stop, then {_DEPLOY}",
                )
        except BaseException:
            if _read(endpoint).get("pid") != pid:
                _end([one for one in _processes(endpoint) if one.pid == pid])
            raise
        return deployed(endpoint)


def deployed(endpoint: str) -> Deployment | None:
    """Return what an endpoint serves now, as its process says, or None."""
    facts = _read(endpoint)
    if not facts:
        return None
    try:
        status, told = laptop_server.ask(facts["port"], "/deployment")
    except (OSError, http.client.HTTPException):
        return None
    if status != 200 or told.get("mark") != laptop_server.mark(facts["token"]):
        return None  # another program has the port now
    return Deployment(
        endpoint,
        told["model"],
        told["version"],
        told["run_id"],
        _address(facts),
        (facts.get("before") or {}).get("version"),
        datetime.fromtimestamp(facts["ends"], timezone.utc),
    )


def roll_back(endpoint: str, check: Check) -> Deployment:
    """Let an endpoint serve the version that it served before; see `cmlflow.serving.roll_back`."""
    from cmlflow.registry import Version

    before = _read(endpoint).get("before")
    if not before or deployed(endpoint) is None:
        raise ServingError(
            f"The endpoint {endpoint!r} has served no other version.",
            "an endpoint that was deployed twice",
            "To deploy another version, run:  python code/21_Redeploy_and_Roll_Back.py",
        )
    return deploy(endpoint, Version(before["model"], before["version"], before["run_id"]), check)


def stop(endpoint: str) -> bool:
    """End the process of an endpoint; tell whether there was one."""
    ended = _end(_processes(endpoint))
    _file(endpoint).unlink(missing_ok=True)
    return ended > 0


def stop_all() -> list[str]:
    """End all endpoints of this working area; return the names of those that ran."""
    running = _processes()
    names = sorted({one.info["cmdline"][3] for one in running})
    _end(running)
    for file in workarea.path(FOLDER).glob("*.json"):
        file.unlink(missing_ok=True)
    return names


def send(endpoint: str, payload: dict, *, limit_s: float = 60) -> Answer:
    """Send a request to an endpoint; see `cmlflow.serving.send`."""
    import requests

    facts = _read(endpoint)
    if not facts:
        raise MissingStep(
            f"There is no endpoint {endpoint!r} in this working area.",
            "one that was deployed",
            _DEPLOY,
        )
    if not hasattr(_here, "session"):
        _here.session = requests.Session()
        _here.session.trust_env = False  # no proxy stands between this machine and itself
        _here.known = set()
    try:
        if facts["token"] not in _here.known:
            if deployed(endpoint) is None:
                raise requests.ConnectionError
            _here.known.add(facts["token"])
        answer = _here.session.post(_address(facts), json=payload, timeout=limit_s)
    except requests.RequestException as error:
        _here.known.discard(facts["token"])
        raise ServingError(
            f"The endpoint {endpoint!r} does not answer ({type(error).__name__}): its process "
            "has ended, or is busy.",
            f"an answer of {_address(facts)} within {limit_s:.0f} s",
            f"To start it again, run:  {_DEPLOY}",
        ) from None
    try:
        body = answer.json()
    except ValueError:
        body = answer.text
    return Answer(answer.status_code, body)


def _address(facts: dict) -> str:
    return f"http://127.0.0.1:{facts['port']}/invocations"


def _file(endpoint: str, ending: str = ".json") -> Path:
    """Return the file of an endpoint: a name that any file system takes, and no other has."""
    readable = re.sub(r"[^A-Za-z0-9-]+", "_", endpoint)[:40]
    if readable != endpoint:
        readable += "-" + hashlib.sha256(endpoint.encode()).hexdigest()[:8]
    return workarea.path(FOLDER, readable + ending)


def _read(endpoint: str) -> dict[str, Any]:
    """Return the facts of an endpoint; nothing where there are none.

    Raises:
        ServingError: the file holds something else.
    """
    file = _file(endpoint)
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        if not {"port", "control", "pid", "token", "ends"} <= facts.keys():
            raise ValueError
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError):
        raise ServingError(
            f"{file} holds no facts of an endpoint.",
            "what a deployment wrote there",
            f"To end all endpoints and start anew, run:  make stop, then {_DEPLOY}",
        ) from None
    return facts


@contextlib.contextmanager
def _alone(endpoint: str) -> Iterator[None]:
    """Keep others of this working area from deploying the same endpoint meanwhile."""
    from filelock import FileLock, Timeout

    workarea.make_folder(FOLDER)
    try:
        with FileLock(_file(endpoint, ".lock"), timeout=LOCK_LIMIT_S):
            yield
    except Timeout:
        raise ServingError(
            f"Somebody else deploys the endpoint {endpoint!r} at this moment.",
            "one deployment at a time",
            "Wait until it has ended, then run this lesson again",
        ) from None


def _processes(endpoint: str | None = None) -> list[psutil.Process]:
    """Return the processes of this working area's endpoints, or of one of them."""
    import psutil

    area, found = str(workarea.path()), []
    for one in psutil.process_iter(["cmdline", "pid"]):
        words = one.info["cmdline"] or []
        if words[1:3] == [_PROGRAM, area] and endpoint in (None, words[3]):
            found.append(one)
    return found


def _end(processes: list[psutil.Process]) -> int:
    """End processes, by request and then by force; return how many there were."""
    import psutil

    for one in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.terminate()  # psutil refuses if the id has gone to another program
    _, left = psutil.wait_procs(processes, timeout=3)
    for one in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    psutil.wait_procs(left, timeout=3)
    return len(processes)


def _order(facts: dict, order: str, body: dict) -> tuple[int, Any]:
    """Give an order to the process that serves."""
    return laptop_server.ask(facts["control"], f"/control/{order}", body, facts["token"], 60)


def _ready(pid: int, control: int, log: Path, begin: int) -> str:
    """Wait until a process answers; return why it does not, or nothing."""
    import psutil

    end = time.monotonic() + READY_LIMIT_S
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if laptop_server.ask(control, "/ping", limit_s=1)[0] == 200:
                return ""
        try:
            ended = psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            ended = True
        if ended:
            with log.open(encoding="utf-8", errors="replace") as said:
                said.seek(begin)
                told = error_message(said.read()).partition("\n")[0]
            return told or "its process has ended without a word."
        if time.monotonic() > end:
            return f"no answer within {READY_LIMIT_S} s."
        time.sleep(0.02)


def _answers(control: int, check: Check) -> str:
    """Return what is wrong with the answer of a process to a check, or nothing."""
    try:
        status, body = laptop_server.ask(control, "/invocations", check.payload, limit_s=60)
    except (OSError, http.client.HTTPException) as error:
        return f"no answer to the check ({type(error).__name__})."
    return check.problem(Answer(status, body))


def _version_before(facts: dict, serving: Deployment | None, version: Version) -> dict | None:
    """Return the version to which a roll back leads, once this one serves."""
    if serving is None or serving.version == version.number:
        return facts.get("before")
    return {"model": serving.model, "version": serving.version, "run_id": serving.run_id}


def _require_a_server() -> None:
    """Refuse where MLflow has no scoring server of the kind that `laptop_server` runs.

    Raises:
        ServingError: `mlflow-skinny`, or MLflow 2.
    """
    import importlib.util

    import mlflow

    missing = [name for name in ("fastapi", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing or int(mlflow.__version__.split(".")[0]) < 3:
        raise ServingError(
            f"MLflow {mlflow.__version__} has no server for endpoints here"
            + (f": {missing[0]} is not installed." if missing else "."),
            "outside CML, all of MLflow 3",
            "To install it, run:  pip install -r requirements-local.txt",
        )


def _files_of(version: Version) -> str:
    """Return the folder of a version's model."""
    import mlflow

    try:
        return mlflow.artifacts.download_artifacts(artifact_uri=version.uri)
    except Exception as error:
        raise ServingError(
            f"The files of {version} cannot be read: {type(error).__name__}.",
            "a version of the registry whose model is there",
            "To register a new one, run:  python code/05_Auto_Model_Registration.py",
        ) from error


def _lifetime_h() -> float:
    text = os.environ.get("CMLFLOW_ENDPOINT_HOURS", "").strip() or str(HOURS)
    try:
        hours = float(text)
    except ValueError:
        hours = 0.0
    if not 0.0001 <= hours <= 1000:
        raise BadInput(
            f"CMLFLOW_ENDPOINT_HOURS is {text[:20]!r}.",
            "hours until an endpoint ends by itself, from 0.0001 to 1000",
            f"To go back to {HOURS:.0f}, run:  unset CMLFLOW_ENDPOINT_HOURS",
        )
    return hours
