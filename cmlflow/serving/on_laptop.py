"""Endpoints on a laptop: one process for each, which outlives the lesson; see `laptop_server`.

What is known of an endpoint stands in `endpoints/<name>.json` of the working area, for this user
only. What runs is asked from the processes: one is ours if its command line holds the working area
and the name of the endpoint.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import secrets
import socket
import time
from collections.abc import Callable, Collection, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmlflow import registry, workarea
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
ANSWER_LIMIT_S = 10
"""Seconds until a process that does not say what it serves counts as silent."""
LOCK_LIMIT_S = 5
"""Seconds that a deployment waits for another one of the same endpoint."""
HOURS = 8.0
"""The lifetime of an endpoint, unless CMLFLOW_ENDPOINT_HOURS says another."""
LONGEST_NAME = 200
_PROGRAM = str(Path(laptop_server.__file__))


def deploy(endpoint: str, version: Version, check: Check) -> Deployment:
    """Let an endpoint serve a version; see `cmlflow.serving.deploy`."""
    hours = _lifetime_h()
    _require_name(endpoint)
    _require_a_server()
    with _alone(endpoint):
        facts = _read(endpoint)
        serving = deployed(endpoint)
        old = [one for one in _processes(endpoint) if one.pid == facts.get("pid")]
        if old and serving is None:
            raise ServingError(
                f"The process of the endpoint {endpoint!r} ({old[0].pid}) does not answer.",
                "one that answers, and hands over to the next",
                "If it is not busy with a long request, end it:  make stop",
            )
        _end([one for one in _processes(endpoint) if one not in old])
        served_already = serving is not None and _served(serving) == _wanted(version)
        if served_already and not check.problem(send(endpoint, check.payload)):
            return serving
        still = f"; {serving} still serves" if serving else ""
        log = _file(endpoint, ".log")
        if serving is None:
            log.unlink(missing_ok=True)
        begin = log.stat().st_size if log.exists() else 0
        content = {"endpoint": endpoint, **_wanted(version)}
        token = secrets.token_hex()
        settings = {"path": _files_of(version, still), "facts": content, "token": token}
        if serving is None:
            with _listen(facts.get("port", 0)) as shared:
                port = shared.getsockname()[1]
                area = str(workarea.path())
                pid, control = laptop_server.start(shared, area, endpoint, settings, str(log))
        else:
            port = facts["port"]
            told = _order(facts, "start", {"settings": settings, "log": str(log)})
            pid, control = told["pid"], told["control"]
        new = {"endpoint": endpoint, "pid": pid, "control": control, "token": token}
        try:
            problem = _ready(pid, control, log, begin) or _answers(control, check, version)
            if problem:
                raise ServingError(
                    f"{version} cannot serve as {endpoint!r}: {problem}",
                    f"the model's own predictions{still}",
                    f"To see all that it said, open:  {log}",
                )
            known = content | new | {"port": port, "ends": time.time() + hours * 3600}
            known["before"] = _version_before(facts, serving, version)
            order = {"file": str(_file(endpoint)), "content": known}
            if serving is None:
                _order(new, "serve", order)
            else:
                _order(facts, "hand_over", order | {"control": control, "token": token})
        except BaseException:
            if _read(endpoint).get("pid") != pid:
                _end([one for one in _processes(endpoint) if one.pid == pid])
            raise
        _wait_for_the_end(old, limit_s=laptop_server.IDLE_S + 2)
        now = deployed(endpoint)
        if now is None:
            raise ServingError(
                f"The endpoint {endpoint!r} served {version} and has ended.",
                "an endpoint that goes on",
                f"To see all that it said, open:  {log}",
            )
        return now


def deployed(endpoint: str) -> Deployment | None:
    """Return what an endpoint serves now, as its process says, or None."""
    facts = _read(endpoint)
    if not facts:
        return None
    try:
        status, told = laptop_server.ask(
            facts["port"],
            "/deployment",
            limit_s=ANSWER_LIMIT_S,
            expected_mark=_mark(endpoint),
        )
    except (OSError, http.client.HTTPException):
        return None
    if status != 200:
        return None
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
    facts = _read(endpoint)
    if not facts or deployed(endpoint) is None:
        raise MissingStep(
            f"The endpoint {endpoint!r} does not answer.",
            "one that was deployed twice",
            registry.how_to_deploy(endpoint),
        )
    before = facts.get("before")
    if not before:
        raise ServingError(
            f"The endpoint {endpoint!r} has served no other version.",
            "an endpoint that was deployed twice",
            "To deploy another version, run:  python code/21_Redeploy_and_Roll_Back.py",
        )
    earlier = registry.Version(before["model"], before["version"], before["run_id"])
    return deploy(endpoint, earlier, check)


def stop(endpoint: str) -> bool:
    """End the process of an endpoint; tell whether there was one."""
    ended = _end_while_there_are(lambda: _processes(endpoint))
    _file(endpoint).unlink(missing_ok=True)
    return ended > 0


def stop_all(keep: Collection[str] = ()) -> list[str]:
    """End the endpoints of this working area; return the names of those that ran.

    Args:
        keep: names of those that go on.
    """
    ended = [name for name in running() if name not in keep]
    try:
        _end_while_there_are(
            lambda: [one for one in _processes() if one.info["cmdline"][3] not in keep]
        )
    except ImportError:
        for name in ended:
            with contextlib.suppress(ServingError):
                _order(_read(name), "end", {})
    kept = {_file(name) for name in keep}
    for file in workarea.path(FOLDER).glob("*.json"):
        if file not in kept:
            file.unlink(missing_ok=True)
    return ended


def running() -> list[str]:
    """Return the names of the endpoints of this working area that have a process."""
    try:
        return sorted({one.info["cmdline"][3] for one in _processes()})
    except ImportError:  # a Python without psutil: those that answer
        names = []
        for file in sorted(workarea.path(FOLDER).glob("*.json")):
            with contextlib.suppress(OSError, ValueError, LookupError, TypeError, ServingError):
                name = json.loads(file.read_text(encoding="utf-8"))["endpoint"]
                names += [name] if deployed(name) else []
        return names


def send(endpoint: str, payload: dict, *, limit_s: float = 60) -> Answer:
    """Send a request to an endpoint; see `cmlflow.serving.send`."""
    facts = _read(endpoint)
    if not facts:
        raise MissingStep(
            f"There is no endpoint {endpoint!r} in this working area.",
            "one that was deployed",
            registry.how_to_deploy(endpoint),
        )
    try:
        status, body = laptop_server.ask(
            facts["port"], "/invocations", payload, limit_s=limit_s, expected_mark=_mark(endpoint)
        )
    except (OSError, http.client.HTTPException) as error:
        raise ServingError(
            f"The endpoint {endpoint!r} does not answer ({type(error).__name__}): its process "
            "has ended, or is busy.",
            f"an answer of {_address(facts)} within {limit_s:.0f} s",
            f"To start it again, run:  {registry.how_to_deploy(endpoint)}",
        ) from error
    return Answer(status, body)


def _address(facts: dict) -> str:
    return f"http://127.0.0.1:{facts['port']}/invocations"


def _file(endpoint: str, ending: str = ".json") -> Path:
    """Return the file of an endpoint: a name that any file system takes, and no other has."""
    # In small letters: a file system may not tell a from A.
    readable = re.sub(r"[^a-z0-9-]+", "_", endpoint.lower())[:40]
    if readable != endpoint:
        readable += "-" + laptop_server.mark("", endpoint)
    return workarea.path(FOLDER, readable + ending)


def _read(endpoint: str) -> dict[str, Any]:
    """Return the facts of an endpoint; nothing where there are none.

    Raises:
        ServingError: the file holds something else.
    """
    file = _file(endpoint)
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        if not {"endpoint", "port", "control", "pid", "token", "ends"} <= facts.keys():
            raise ValueError
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError):
        raise ServingError(
            f"{file} holds no facts of an endpoint.",
            "what a deployment wrote there",
            "To end all endpoints and start anew, run:  make stop, then "
            + registry.how_to_deploy(endpoint),
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

    left = processes
    for limit_s, act in ((3, psutil.Process.terminate), (3, psutil.Process.kill)):
        for one in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                act(one)  # psutil refuses if the id has gone to another program
        left = _wait_for_the_end(left, limit_s)
    return len(processes)


def _end_while_there_are(find: Callable[[], list[psutil.Process]]) -> int:
    """End processes until none is found: one may start another before it ends itself."""
    ended = 0
    for _ in range(5):
        if not (found := find()):
            break
        ended += _end(found)
    return ended


def _wait_for_the_end(processes: list[psutil.Process], limit_s: float) -> list[psutil.Process]:
    """Wait until processes have ended; return those that have not."""
    end = time.monotonic() + limit_s
    while (left := [one for one in processes if _runs(one)]) and time.monotonic() < end:
        time.sleep(0.02)
    return left


def _runs(process: psutil.Process) -> bool:
    """Tell whether a process has not ended; one whose parent has not noticed yet has ended."""
    import psutil

    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _order(facts: dict, order: str, body: dict) -> Any:
    """Give an order to a process of an endpoint and return its answer.

    Raises:
        ServingError: it does not follow.
    """
    endpoint = facts["endpoint"]
    try:
        status, told = laptop_server.ask(
            facts["control"], f"/control/{order}", body, facts["token"], 60, _mark(endpoint)
        )
    except (OSError, http.client.HTTPException) as error:
        status, told = type(error).__name__, {}
    if status != 200:
        raise ServingError(
            f"A process of the endpoint {endpoint!r} did not follow the order {order} ({status}).",
            "one that goes on until another serves",
            f"To start anew, run:  make stop, then {registry.how_to_deploy(endpoint)}",
        )
    return told


def _listen(port: int) -> socket.socket:
    """Listen on the port that the endpoint had, or, where another program has it, on a free one."""
    with contextlib.suppress(OSError):
        return socket.create_server(("127.0.0.1", port))
    return socket.create_server(("127.0.0.1", 0))


def _ready(pid: int, control: int, log: Path, begin: int) -> str:
    """Wait until a process answers; return why it does not, or nothing."""
    import psutil

    end = time.monotonic() + READY_LIMIT_S
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if laptop_server.ask(control, "/ping", limit_s=1)[0] == 200:
                return ""
        if not (psutil.pid_exists(pid) and _runs(psutil.Process(pid))):
            with log.open(encoding="utf-8", errors="replace") as said:
                said.seek(begin)
                told = error_message(said.read()).partition("\n")[0]
            return told or "its process has ended without a word."
        if time.monotonic() > end:
            return f"no answer within {READY_LIMIT_S} s."
        time.sleep(0.02)


def _answers(control: int, check: Check, version: Version) -> str:
    """Return what is wrong with a process: its model is of another run, or answers wrongly."""
    try:
        _, says = laptop_server.ask(control, "/deployment")
        if says["run_id"] != version.run_id:
            return f"its model is of run {says['run_id']}."
        status, body = laptop_server.ask(control, "/invocations", check.payload, limit_s=60)
    except (OSError, http.client.HTTPException) as error:
        return f"no answer to the check ({type(error).__name__})."
    return check.problem(Answer(status, body))


def _version_before(facts: dict, serving: Deployment | None, version: Version) -> dict | None:
    """Return the version to which a roll back leads, once this one serves."""
    if serving is None or _served(serving) == _wanted(version):
        return facts.get("before")
    return _served(serving)


def _served(serving: Deployment) -> dict:
    return {"model": serving.model, "version": serving.version, "run_id": serving.run_id}


def _wanted(version: Version) -> dict:
    return {"model": version.model, "version": version.number, "run_id": version.run_id}


def _mark(endpoint: str) -> str:
    return laptop_server.mark(str(workarea.path()), endpoint)


def _require_name(endpoint: str) -> None:
    """Refuse a name that cannot stand in a list of processes."""
    if not (endpoint.strip() and endpoint.isprintable() and len(endpoint) <= LONGEST_NAME):
        raise BadInput(
            f"{endpoint[:60]!r} is no name for an endpoint.",
            f"1 to {LONGEST_NAME} characters that can be printed",
            "Give it another name, for example:  --endpoint wine-quality",
        )


def _require_a_server() -> None:
    """Refuse where MLflow has no scoring server of the kind that `laptop_server` runs.

    Raises:
        ServingError: `mlflow-skinny`, or MLflow 2; or Windows.
    """
    import importlib.util

    import mlflow

    if os.name == "nt":
        raise ServingError(
            "Windows cannot hand the port of an endpoint to another process.",
            "Linux or macOS",
            "To have a Linux on this machine, see:  wsl --install",
        )
    missing = [
        name for name in ("fastapi", "uvicorn", "psutil") if importlib.util.find_spec(name) is None
    ]
    if missing or int(mlflow.__version__.split(".")[0]) < 3:
        raise ServingError(
            f"MLflow {mlflow.__version__} has no server for endpoints here"
            + (f": {missing[0]} is not installed." if missing else "."),
            "outside CML, all of MLflow 3",
            "To install it, run:  pip install -r requirements-local.txt",
        )


def _files_of(version: Version, still: str) -> str:
    """Return the folder of a version's model; `still` says what serves meanwhile."""
    import mlflow

    try:
        return mlflow.artifacts.download_artifacts(artifact_uri=version.uri)
    except Exception as error:
        raise ServingError(
            f"The files of {version} cannot be read: {type(error).__name__}.",
            f"a version of the registry whose model is there{still}",
            f"To register a new one, run:  {registry.how_to_register(version.model)}",
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
