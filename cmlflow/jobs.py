"""A chain of scripts, each a step that runs when the one before has succeeded.

In CML the steps are jobs, found by name or created, the later ones as children of the one before.
On a laptop they run one after the other: each in a process of its own, or all in this one.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cmlflow import processes, runner, workarea, workbench
from cmlflow.errors import LessonError, WorkbenchError

if TYPE_CHECKING:
    from cmlapi import CMLServiceApi

SUCCEEDED, FAILED, NOT_RUN = "succeeded", "failed", "not run"
ENDED = (SUCCEEDED, FAILED, "timedout", "stopped", "skipped")
STEP_LIMIT_S = 60 * 60
"""Seconds that one step may take, waiting for its place included."""
CPU, MEMORY_GB, SPARK_MEMORY_GB = 1.0, 2.0, 4.0


@dataclass(frozen=True)
class Step:
    """One script of a chain."""

    name: str
    """Of the job in CML; one word or two."""
    script: str
    """Its path in the project, such as `code/01_Experiment.py`."""
    environment: dict[str, str] = field(default_factory=dict)
    """Its options, as variables: a CML job may ignore arguments."""
    needs_spark: bool = False
    """Whether its job in CML gets the Spark add-on, and memory for it."""


@dataclass(frozen=True)
class Outcome:
    """How a step ended."""

    step: Step
    state: str
    """SUCCEEDED, FAILED, NOT_RUN, or what else the workbench says."""
    seconds: float
    told: str
    """What a success says in its line `Done:`, or why the step failed."""


def run_chain(steps: Iterable[Step], in_this_process: bool = False) -> list[Outcome]:
    """Run steps in order up to the first that fails, and say how each ended.

    Args:
        steps: what shall run.
        in_this_process: on a laptop, run them here instead of each in a process of its own: Java
            starts once. In CML each is a job anyway.

    Raises:
        WorkbenchError: in CML, a job cannot be found, made or started.
    """
    steps = list(steps)
    run = _run_in_this_process if in_this_process else _run_here
    outcomes = (_run_in_cml if workarea.in_cml() else run)(steps)
    return outcomes + [Outcome(step, NOT_RUN, 0, "") for step in steps[len(outcomes) :]]


def require_success(outcomes: Iterable[Outcome]) -> None:
    """Raise unless every step has succeeded.

    Raises:
        LessonError: what failed, and why.
    """
    for one in outcomes:
        if one.state not in (SUCCEEDED, NOT_RUN):
            variables = "".join(f"{key}={value} " for key, value in one.step.environment.items())
            raise LessonError(
                f"The step {one.step.name} ended as {one.state}: {one.told}",
                "every step succeeded; those after it have not run",
                f"To see what it says by itself, run:  {variables}python {one.step.script}",
            )


def _run_here(steps: list[Step]) -> list[Outcome]:
    """Run each step in a process of its own."""
    outcomes = []
    for step in steps:
        print(f"{step.name}: running", flush=True)
        begin = time.monotonic()
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            child = processes.start(
                str(workarea.root() / step.script),
                env=os.environ | step.environment,
                stdout=out,
                stderr=err,
            )
            try:
                code = child.wait(STEP_LIMIT_S)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                processes.stop(child)
            out.seek(0), err.seek(0)
            printed, said = (one.read().decode(errors="replace") for one in (out, err))
        seconds = time.monotonic() - begin
        if code == 0:
            outcomes.append(Outcome(step, SUCCEEDED, seconds, _done(printed)))
            print(f"{step.name}: {SUCCEEDED}", flush=True)
            continue
        told = processes.error_message(said) or f"its process ended with code {code}"
        if code is None:
            told = f"it had not ended after {STEP_LIMIT_S / 60:.0f} minutes"
        print(f"{step.name}: {FAILED}", flush=True)
        return [*outcomes, Outcome(step, FAILED, seconds, told)]
    return outcomes


def _run_in_this_process(steps: list[Step]) -> list[Outcome]:
    """Run one step after the other, each in a namespace of its own."""
    outcomes = []
    for step in steps:
        begin, printed = time.monotonic(), io.StringIO()
        try:
            with contextlib.redirect_stdout(printed):
                runner.run(workarea.root() / step.script, variables=step.environment)
        except (Exception, SystemExit) as error:
            told = (
                str(error) if isinstance(error, LessonError) else f"{type(error).__name__}: {error}"
            )
            outcomes.append(Outcome(step, FAILED, time.monotonic() - begin, told))
            break
        seconds = time.monotonic() - begin
        outcomes.append(Outcome(step, SUCCEEDED, seconds, _done(printed.getvalue())))
    return outcomes


def _done(printed: str) -> str:
    """Return what a script says in its line `Done:`; an empty text if there is none."""
    done = re.search(r"^Done: (.*)", printed, re.MULTILINE)
    return done[1] if done else ""


def _run_in_cml(steps: list[Step]) -> list[Outcome]:
    """Start the first job; the workbench starts each child when its parent has succeeded."""
    api, project_id = workbench.client(), os.environ["CDSW_PROJECT_ID"]
    image, parent, jobs = workbench.runtime(api).image_identifier, None, []
    addons = [workbench.spark_addon(api)] if any(step.needs_spark for step in steps) else []
    for step in steps:
        given = {"runtime_identifier": image, "memory": MEMORY_GB}
        if step.needs_spark:
            given |= {"runtime_addon_identifiers": addons, "memory": SPARK_MEMORY_GB}
        jobs.append(parent := _job(api, project_id, step, given, parent))
    known = [{run.id for run in _runs(api, project_id, job)} for job in jobs]
    busy = [
        step.name
        for step, job in zip(steps, jobs, strict=True)
        for run in _runs(api, project_id, job)
        if workbench.status(run) not in ENDED
    ]
    if busy:
        raise WorkbenchError(
            f"The job {busy[0]!r} is running already.",
            "no run of this chain that has not ended",
            "To see it, or to stop it, open:  Jobs",
        )
    body = {"project_id": project_id, "job_id": jobs[0].id}
    workbench.call(api.create_job_run, body, project_id, jobs[0].id)
    outcomes = []
    for step, job, before in zip(steps, jobs, known, strict=True):
        outcomes.append(_outcome(api, project_id, step, job, before))
        if outcomes[-1].state != SUCCEEDED:
            break
    return outcomes


def _job(api: CMLServiceApi, project_id: str, step: Step, given: dict, parent: Any) -> Any:
    """Return the job of a step: found by name, made, or brought up to date."""
    wanted = {
        "name": step.name,
        "script": step.script,
        "environment": step.environment,
        **given,
        "cpu": CPU,
        "timeout": STEP_LIMIT_S,
        "kill_on_timeout": True,
    }
    placed = {"project_id": project_id} | ({"parent_job_id": parent.id} if parent else {})
    job, created = workbench.find_or_create(
        lambda: workbench.named(api.list_jobs, step.name, project_id),
        lambda: workbench.call(api.create_job, placed | wanted, project_id),
    )
    if created:
        print(f"Job {step.name!r} created", flush=True)
        return job
    changed = {
        key: wanted[key]
        for key in ("script", "runtime_identifier")
        if getattr(job, key) != wanted[key]
    }
    # What the workbench or a user added stays: another add-on beside ours, or more memory.
    addons = set(given.get("runtime_addon_identifiers", ()))
    if not addons <= set(job.runtime_addon_identifiers or ()):
        changed["runtime_addon_identifiers"] = wanted["runtime_addon_identifiers"]
    if (job.memory or 0) < wanted["memory"]:
        changed["memory"] = wanted["memory"]
    if _variables(job.environment) != step.environment:
        changed["environment"] = _json_text(step.environment)
    if (job.parent_id or "") != (parent.id if parent else ""):
        changed["parent_id"] = parent.id if parent else ""
    if changed:
        job = workbench.call(api.update_job, changed, project_id, job.id)
        print(f"Job {step.name!r}: changed {', '.join(sorted(changed))}", flush=True)
    return job


def _json_text(variables: dict[str, str]) -> str:
    """Return variables as API v2 takes them in a change: one JSON text."""
    import json

    return json.dumps(variables)


def _variables(environment: Any) -> dict[str, str]:
    """Return the variables of a job: API v2 answers with one JSON text."""
    import json

    if not environment:
        return {}
    return environment if isinstance(environment, dict) else json.loads(environment)


def _runs(api: CMLServiceApi, project_id: str, job: Any) -> list:
    return workbench.all_of(api.list_job_runs, project_id, job.id)


def _outcome(api: CMLServiceApi, project_id: str, step: Step, job: Any, before: set) -> Outcome:
    """Wait until the new run of a job has ended."""
    begin, shown = time.monotonic(), ""
    while True:
        new = [run for run in _runs(api, project_id, job) if run.id not in before]
        run = workbench.newest(new)
        state = workbench.status(run) if run else "waiting"
        if state != shown:
            print(f"{step.name}: {state}", flush=True)
            shown = state
        seconds = time.monotonic() - begin
        where = f"its log stands under:  Jobs > {step.name} > History"
        if state in ENDED:
            return Outcome(step, state, seconds, "" if state == SUCCEEDED else where)
        if seconds > STEP_LIMIT_S:
            where = f"after {STEP_LIMIT_S / 60:.0f} minutes; is the quota used up? {where}"
            return Outcome(step, f"still {state}", seconds, where)
        time.sleep(workbench.poll_seconds())
