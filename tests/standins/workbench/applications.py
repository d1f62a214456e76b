"""Applications: their rows and states; nothing is started."""

from __future__ import annotations

import re

from workbench.projects import change
from workbench.surface import Refused
from workbench.tables import USER, Call, State, new_id

PREFIX = "APPLICATION_"
FIELDS = (
    "name",
    "description",
    "subdomain",
    "script",
    "kernel",
    "cpu",
    "memory",
    "nvidia_gpu",
    "bypass_authentication",
    "environment",
    "runtime_identifier",
    "runtime_addon_identifiers",
    "run_as",
    "cdv_app",
    "accelerator_label_id",
)


def start(state: State, row: dict) -> dict:
    row |= {"status": PREFIX + "STARTING", "_plan": [PREFIX + "STARTING", PREFIX + "RUNNING"]}
    row |= {"starting_at": state.now(), "running_at": state.never(), "stopped_at": state.never()}
    return row


def move_on(state: State, row: dict) -> dict:
    before = row["status"]
    state.move_on(row)
    if row["status"] == PREFIX + "RUNNING" != before:
        row["running_at"] = state.now()
    return row


def require_possible(call: Call, row: dict, taken: bool = True) -> None:
    if not re.fullmatch("[a-z0-9-]+", row.get("subdomain", "")):
        raise Refused(400, "subdomain: lower-case letters, digits and hyphens")
    others = call.state.of("applications", subdomain=row["subdomain"])
    if any(other["id"] != row.get("id") for other in others):
        raise call.state.refuse(409, f"subdomain {row['subdomain']} is in use")


def list_applications(call: Call) -> dict:
    rows = call.state.of("applications", _project_id=call.project["id"])
    return call.page([move_on(call.state, row) for row in rows])


def create_application(call: Call) -> dict:
    project = call.project
    if not call.body.get("name") or not call.body.get("script"):
        raise Refused(400, "name and script are required")
    require_possible(call, call.body)
    row = {"cpu": 1.0, "memory": 1.0, "kernel": "python3", "environment": {}}
    row |= {name: call.body[name] for name in FIELDS if name in call.body}
    row |= {"id": new_id(), "creator": USER, "_project_id": project["id"]}
    return call.state.add("applications", start(call.state, row))


def application_of(call: Call) -> dict:
    return call.state.find("applications", call["application_id"], _project_id=call.project["id"])


def get_application(call: Call) -> dict:
    return move_on(call.state, application_of(call))


def update_application(call: Call) -> dict:
    row = application_of(call)
    require_possible(call, row | {key: call.body[key] for key in FIELDS if key in call.body})
    return change(call, row, FIELDS)


def delete_application(call: Call) -> dict:
    del call.state.rows["applications"][application_of(call)["id"]]
    return {}


def restart_application(call: Call) -> dict:
    return start(call.state, application_of(call))


def stop_application(call: Call) -> dict:
    row = application_of(call)
    if row["status"] != PREFIX + "STOPPED":
        row |= {"status": PREFIX + "STOPPING", "_plan": [PREFIX + "STOPPED"]}
        row["stopped_at"] = call.state.now()
    return row
