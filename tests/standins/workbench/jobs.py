"""Jobs and their runs: each run is a process of its own."""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path

from workbench.projects import change
from workbench.surface import Refused
from workbench.tables import LETTERS, USER, Call, State, new_id

RUNNER = Path(__file__).with_name("job_runner.py")
ACTIVE = ("ENGINE_SCHEDULING", "ENGINE_STARTING", "ENGINE_RUNNING", "ENGINE_STOPPING")
FIELDS = (
    "name",
    "script",
    "cpu",
    "memory",
    "nvidia_gpu",
    "environment",
    "arguments",
    "timeout",
    "schedule",
    "kernel",
    "runtime_identifier",
    "runtime_addon_identifiers",
    "kill_on_timeout",
    "timezone",
    "paused",
    "run_as",
    "accelerator_label_id",
)


# Jobs


def require_runnable(call: Call, job: dict) -> None:
    state = call.state
    if not job.get("name") or not job.get("script"):
        raise Refused(400, "name and script are required")
    if job.get("schedule") and job.get("parent_id"):
        raise state.refuse(400, "a job has a schedule or a parent, not both")
    if not (call.project["_root"] / job["script"]).is_file():
        raise state.refuse(400, f"script {job['script']} is not in the project")
    if job.get("parent_id"):
        parent = state.find("jobs", job["parent_id"], _project_id=call.project["id"])
        while parent is not None:
            if parent["id"] == job.get("id"):
                raise Refused(400, "a job cannot come after itself")
            parent = state.rows["jobs"].get(parent["parent_id"])


def kind_of(job: dict) -> str:
    return "cron" if job.get("schedule") else "dependent" if job.get("parent_id") else "manual"


def list_jobs(call: Call) -> dict:
    return call.page(call.state.of("jobs", _project_id=call.project["id"]))


def list_all_jobs(call: Call) -> dict:
    return call.page(call.state.of("jobs"))


def create_job(call: Call) -> dict:
    project, wanted = call.project, dict(call.body)
    wanted["parent_id"] = wanted.pop("parent_job_id", "") or wanted.get("parent_id", "")
    require_runnable(call, wanted)
    row = {
        "cpu": 1.0,
        "memory": 1.0,
        "timezone": "America/Los_Angeles",
        "kernel": "python3",
        "environment": {},
        "arguments": "",
    }
    row |= {name: wanted[name] for name in (*FIELDS, "parent_id") if name in wanted}
    return call.state.add(
        "jobs",
        row
        | {
            "id": new_id(),
            "creator": USER,
            "owner": USER,
            "type": kind_of(row),
            "english_schedule": row.get("schedule", ""),
            "project": {"public_identifier": project["id"], "name": project["name"]},
            "_project_id": project["id"],
        },
    )


def job_of(call: Call) -> dict:
    return call.state.find("jobs", call["job_id"], _project_id=call.project["id"])


def get_job(call: Call) -> dict:
    return job_of(call)


def update_job(call: Call) -> dict:
    row = job_of(call)
    changed = {name: call.body[name] for name in (*FIELDS, "parent_id") if name in call.body}
    require_runnable(call, row | changed)
    change(call, row, (*FIELDS, "parent_id"))
    return row | {"type": row.update(type=kind_of(row)) or row["type"]}


def delete_job(call: Call) -> dict:
    """Delete a job; those after it stay."""
    row = job_of(call)
    if active_run(call.state, row):
        raise Refused(409, "this job is running")
    for run in call.state.of("job_runs", job_id=row["id"]):
        del call.state.rows["job_runs"][run["id"]]
    for child in call.state.of("jobs", parent_id=row["id"]):
        child |= {"parent_id": "", "type": "manual"}
    del call.state.rows["jobs"][row["id"]]
    return {}


# Runs


def active_run(state: State, job: dict) -> dict | None:
    for run in state.of("job_runs", job_id=job["id"]):
        if not run.get("_ended"):
            return run
    return None


def add_run(state: State, job: dict, environment: dict, arguments: str) -> dict:
    letters = "".join(secrets.choice(LETTERS) for _ in range(16))
    row = state.add(
        "job_runs",
        {
            "id": new_id() if "dashed-run-ids" in state.switches else letters,
            "project_id": job["_project_id"],
            "job_id": job["id"],
            "status": "ENGINE_SCHEDULING",
            "scheduling_at": state.now(),
            "starting_at": state.never(),
            "running_at": state.never(),
            "finished_at": state.never(),
            "kernel": job["kernel"],
            "cpu": job["cpu"],
            "memory": job["memory"],
            "nvidia_gpu": job.get("nvidia_gpu", 0),
            "arguments": arguments or job["arguments"],
            "environment": job["environment"] | environment,
            "creator": USER,
            "runtime_identifier": job.get("runtime_identifier", ""),
            "_project_id": job["_project_id"],
            "_ended": "",  # the last state, as soon as it is reached
            "_log": None,
            "_process": None,
            "_wakes": threading.Event(),  # set when it is to be stopped
        },
    )
    if active_other(state, job, row):
        row |= {"status": "ENGINE_SKIPPED", "_ended": "ENGINE_SKIPPED", "finished_at": state.now()}
    else:
        threading.Thread(target=run_job, args=(state, job, row), daemon=True).start()
    return row


def active_other(state: State, job: dict, row: dict) -> bool:
    return any(
        not run["_ended"] for run in state.of("job_runs", job_id=job["id"]) if run is not row
    )


def run_job(state: State, job: dict, row: dict) -> None:
    """Run the script of a job to its end, then start the jobs that come after it."""
    limit = job.get("timeout") or None
    ended = ""
    if "no-quota" in state.switches:
        waiting = threading.Thread(
            target=state.switches.wait_while, args=("no-quota",), daemon=True
        )
        waiting.start()
        waiting.join(limit)
        ended = "ENGINE_TIMEDOUT" if waiting.is_alive() else ""
    if row["_wakes"].is_set():
        ended = "ENGINE_STOPPED"
    if not ended:
        ended = run_script(state, job, row, limit if job.get("kill_on_timeout") else None)
    with state.lock:
        row["_ended"] = ended
        if ended != "ENGINE_SUCCEEDED" or job["id"] not in state.rows["jobs"]:
            return
        for child in state.of("jobs", parent_id=job["id"]):
            if not child.get("paused") and active_run(state, child) is None:
                add_run(state, child, {}, "")


def run_script(state: State, job: dict, row: dict, limit: float | None) -> str:
    project = state.rows["projects"][job["_project_id"]]
    log = state.folder / f"{row['id']}.log"
    words = shlex.split(row["arguments"]) if "job-arguments" in state.switches else []
    paths = (state.session.get("PYTHONPATH", ""), str(RUNNER.parents[1]))
    environment = (
        state.session
        | project["environment"]
        | row["environment"]
        | {
            "CDSW_PROJECT_ID": project["id"],
            "CDSW_PROJECT": project["name"],
            "CDSW_API_URL": f"{state.address}/api/v1",
            "CDSW_APIV2_KEY": state.key,
            "CMLFLOW_MODEL_SERVICE": state.address,
            "PYTHONPATH": os.pathsep.join(path for path in paths if path),
            "PYTHONUNBUFFERED": "1",
        }
    )
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, str(RUNNER), job["script"], *words],
            cwd=project["_root"],
            env=environment,
            stdin=subprocess.PIPE,  # its end is this server's: the runner watches it
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    row["_log"], row["_process"] = log, process
    if row["_wakes"].is_set():
        kill(process)
    ended = ""
    try:
        process.wait(limit)
    except subprocess.TimeoutExpired:
        ended = "ENGINE_TIMEDOUT"
    code = process.poll()
    kill(process)
    if row["_wakes"].is_set():
        return "ENGINE_STOPPED"
    return ended or ("ENGINE_SUCCEEDED" if code == 0 else "ENGINE_FAILED")


def kill(process: subprocess.Popen) -> None:
    """End a job with all that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdin.close()


def end_all(state: State) -> None:
    """End all jobs, at the end of the server."""
    for row in list(state.rows["job_runs"].values()):
        row["_wakes"].set()
        if row["_process"]:
            kill(row["_process"])


def next_run(state: State, row: dict) -> dict:
    """Tell the next state of a run that was asked for; the end only after all before it."""
    started = row["_process"] is not None  # else it waits for its quota
    if row["status"] == "ENGINE_SCHEDULING" and started:
        row |= {"status": "ENGINE_STARTING", "starting_at": state.now()}
    elif row["status"] == "ENGINE_STARTING":
        row |= {"status": "ENGINE_RUNNING", "running_at": state.now()}
    elif row["_ended"] and row["status"] != row["_ended"]:
        row |= {"status": row["_ended"], "finished_at": state.now()}
    return row


def list_job_runs(call: Call) -> dict:
    job = job_of(call)
    rows = [next_run(call.state, row) for row in call.state.of("job_runs", job_id=job["id"])]

    def lookup(row: dict, key: str) -> object:
        from workbench.tables import dotted

        if key in ("name", "description", "paused", "script", "type"):
            return job.get(key)
        return dotted(row, key)

    return call.page(rows, lookup)


def create_job_run(call: Call) -> dict:
    job, state = job_of(call), call.state
    if active_run(state, job) and "second-run-skipped" not in state.switches:
        raise state.refuse(409, "this job is running")
    return add_run(state, job, call.body.get("environment", {}), call.body.get("arguments", ""))


def run_of(call: Call) -> dict:
    return call.state.find("job_runs", call["run_id"], job_id=job_of(call)["id"])


def get_job_run(call: Call) -> dict:
    return next_run(call.state, run_of(call))


def stop_job_run(call: Call) -> dict:
    row = run_of(call)
    if not row["_ended"]:
        row["_wakes"].set()
        row["status"] = "ENGINE_STOPPING"
        if row["_process"]:
            kill(row["_process"])
        elif "no-quota" in call.state.switches:
            row["_ended"] = "ENGINE_STOPPED"
    return row
