"""Models, their builds and deployments; what a deployment answers is in endpoint.py."""

from __future__ import annotations

import re
import secrets
import uuid

from workbench import registry
from workbench.projects import change
from workbench.surface import Refused
from workbench.tables import LETTERS, USER, Call, State, crn

RESOURCES = {"cpu_millicores": 0, "memory_mb": 0, "nvidia_gpus": 0}
DONE = ("stopped", "failed")
NOT_BUILT = ("build failed", "timedout")
OTHER = {  # the switch other-states
    "pending": "queued",
    "building": "queued",
    "pushing": "unknown",
    "deploying": "starting",
    "stopping": "terminating",
}


def on_the_way(state: State, *statuses: str) -> list[str]:
    """Return the names of these states."""
    return [OTHER[one] for one in statuses] if "other-states" in state.switches else list(statuses)


# Models


def models_of(call: Call, **parents: str) -> list[dict]:
    """Return the models of a project, or of all; with a switch, behind 25 others."""
    state, looked_for = call.state, str(call.filter().get("name", "wine"))
    if "many-models" in state.switches:
        for project_id in [parents["_project_id"]] if parents else list(state.rows["projects"]):
            for number in range(1, 26):
                name, fixed = f"{looked_for}-{number:02}", (project_id, looked_for, number)
                row_id = str(uuid.uuid5(uuid.NAMESPACE_URL, repr(fixed)))
                if row_id not in state.rows["models"]:
                    made = add_model(state, project_id, {"name": name}, row_id)
                    made |= {"created_at": state.of("projects")[0]["created_at"], "_filler": True}
    taken = state.switches.value("name-taken-by-plain-model")
    if taken and parents and not any(row["name"] == taken for row in state.of("models", **parents)):
        add_model(state, parents["_project_id"], {"name": taken})
    shown = "many-models" in state.switches
    rows = [row for row in state.of("models", **parents) if shown or not row.get("_filler")]
    return sorted(rows, key=lambda row: not row.get("_filler"))


def add_model(state: State, project_id: str, wanted: dict, row_id: str = "") -> dict:
    project, row_id = state.find("projects", project_id), row_id or str(uuid.uuid4())
    return state.add(
        "models",
        {
            "id": row_id,
            "name": wanted["name"],
            "description": wanted.get("description", ""),
            "creator": USER,
            "access_key": "m" + "".join(secrets.choice(LETTERS) for _ in range(31)),
            "deletion_status": "",
            "crn": crn(row_id),
            "auth_enabled": not wanted.get("disable_authentication", False),
            "project": {
                "public_identifier": project_id,
                "name": project["name"],
                "default_project_engine": project["default_engine_type"],
                "slug": f"{USER['username']}/{re.sub('[^a-z0-9]+', '-', project['name'].lower())}",
            },
            "registered_model_id": wanted.get("registered_model_id", ""),
            "visibility": wanted.get("visibility") or "private",
            "default_resources": dict(RESOURCES),
            "default_replication_policy": {"num_replicas": 0, "type": ""},
            "run_as": wanted.get("run_as", 0),
            "accelerator_label_id": wanted.get("accelerator_label_id", 0),
            "_project_id": project_id,
        },
    )


def list_models(call: Call) -> dict:
    return call.page(map(without_key, models_of(call, _project_id=call.project["id"])))


def list_all_models(call: Call) -> dict:
    return call.page(map(without_key, models_of(call)))


def without_key(row: dict) -> dict:
    """Return a model as lists show it: the access key comes with one model only."""
    return row | {"access_key": ""}


def create_model(call: Call) -> dict:
    """Create a model; with auto_build_model and auto_deploy_model a build and a deployment too."""
    wanted, state, project_id = call.body, call.state, call.project["id"]
    name = wanted.get("name", "").strip()
    if not name:
        raise Refused(400, "model name is required")
    if "name-taken-by-plain-model" in state.switches and not state.switches.value(
        "name-taken-by-plain-model"
    ):
        here = state.of("models", _project_id=project_id, name=name)
        here or add_model(state, project_id, {"name": name})
    if state.of("models", _project_id=project_id, name=name):
        raise state.refuse(409, f"{call.project['name']} already has a model with that name")
    if wanted.get("registered_model_id"):
        registry.find(state, wanted["registered_model_id"])
    build = wanted.get("auto_build_config", {}) if wanted.get("auto_build_model") else None
    probe = {"registered_model_id": wanted.get("registered_model_id", "")}
    if build is not None:
        require_buildable(state, probe, build)
    made = add_model(state, project_id, wanted | {"name": name})
    if build is not None:
        built = add_build(state, made, build)
        if wanted.get("auto_deploy_model"):
            add_deployment(state, built, wanted.get("auto_deployment_config", {}))
    return made


def model_of(call: Call) -> dict:
    return call.state.find("models", call["model_id"], _project_id=call.project["id"])


def get_model(call: Call) -> dict:
    return model_of(call)


def update_model(call: Call) -> dict:
    row, name = model_of(call), call.body.get("name")
    others = call.state.of("models", _project_id=row["_project_id"], name=name)
    if name and any(other is not row for other in others):
        raise call.state.refuse(409, "this project already has a model with that name")
    for part in ("default_resources", "default_replication_policy"):
        row[part] = row[part] | call.body.pop(part, {})
    return change(call, row, ("name", "description", "visibility", "run_as"))


def delete_model(call: Call) -> dict:
    row = model_of(call)
    for table in ("builds", "deployments"):
        for gone in call.state.of(table, model_id=row["id"]):
            del call.state.rows[table][gone["id"]]
    del call.state.rows["models"][row["id"]]
    return {}


# Builds


def require_buildable(state: State, model: dict, wanted: dict) -> None:
    version_id = wanted.get("registered_model_version_id")
    if not wanted.get("runtime_identifier") and not wanted.get("kernel"):
        raise Refused(400, "runtime_identifier is required")
    if version_id:
        if not model["registered_model_id"]:
            raise Refused(400, "this model was not created from a registered model")
        registry.find_version(state, version_id, model["registered_model_id"])
    elif not (wanted.get("file_path") and wanted.get("function_name")):
        raise Refused(400, "file_path and function_name are required")


def add_build(state: State, model: dict, wanted: dict) -> dict:
    row_id, version = str(uuid.uuid4()), None
    end = "built" if "build-succeeded" not in state.switches else "succeeded"
    source = ""
    if wanted.get("registered_model_version_id"):
        version = registry.find_version(state, wanted["registered_model_version_id"])
        end = "build failed" if version["status"] == "Failed" else end
    else:  # what is built is the file as it is now
        project = state.find("projects", model["_project_id"])
        file = project["_root"] / wanted.get("model_root_dir", "") / wanted["file_path"]
        source = file.read_text(encoding="utf-8") if file.is_file() else ""
        end = end if source else "build failed"
    plan = [*on_the_way(state, "building", "pushing"), end]
    if "build-fails" in state.switches:
        end = state.switches.value("build-fails") or "build failed"
        plan = [*on_the_way(state, "building"), end]
    if "build-stalls" in state.switches:
        plan = on_the_way(state, "building")
    kernel = re.search(r"python(3\.\d+)", wanted.get("runtime_identifier", ""))
    return state.add(
        "builds",
        {
            "id": row_id,
            "model_id": model["id"],
            "creator": USER,
            "comment": wanted.get("comment", ""),
            "file_path": wanted.get("file_path") or "predict.py",
            "function_name": wanted.get("function_name") or "predict",
            "engine_image": "",
            "kernel": wanted.get("kernel") or (f"Python {kernel[1]}" if kernel else "python3"),
            "status": on_the_way(state, "pending")[0],
            "deletion_status": "",
            "crn": crn(row_id),
            "built_at": state.never(),
            "runtime_identifier": wanted.get("runtime_identifier", ""),
            "runtime_addon_identifiers": wanted.get("runtime_addon_identifiers")
            or ["hadoop-cli-7.3.1.709-1"],
            "registered_model_version_id": wanted.get("registered_model_version_id", ""),
            "model_root_dir": wanted.get("model_root_dir", ""),
            "build_script_path": wanted.get("build_script_path", ""),
            "_project_id": model["_project_id"],
            "_plan": plan,
            "_source": source,
            "_uri": version and version["_uri"],
            "_registered": version and f"{version['_name']}/{version['number']}",
            "_run_id": version and version["_run_id"],
            "_number": state.tick(),
        },
    )


def is_built(build: dict) -> bool:
    return build["status"] in ("built", "succeeded")


def next_build(state: State, build: dict) -> dict:
    """Move a build on; when it is built, that has a time."""
    before = is_built(build)
    state.move_on(build)
    if is_built(build) and not before:
        build["built_at"] = state.now()
    return build


def list_model_builds(call: Call) -> dict:
    rows = call.state.of("builds", model_id=model_of(call)["id"])
    return call.page([next_build(call.state, row) for row in rows])


def create_model_build(call: Call) -> dict:
    model, state = model_of(call), call.state
    require_buildable(state, model, call.body)
    built = add_build(state, model, call.body)
    if call.body.get("auto_deploy_model"):
        add_deployment(state, built, call.body.get("auto_deployment_config", {}))
    return built


def build_of(call: Call) -> dict:
    return call.state.find("builds", call["build_id"], model_id=model_of(call)["id"])


def get_model_build(call: Call) -> dict:
    return next_build(call.state, build_of(call))


def delete_model_build(call: Call) -> dict:
    row = build_of(call)
    for gone in call.state.of("deployments", build_id=row["id"]):
        del call.state.rows["deployments"][gone["id"]]
    del call.state.rows["builds"][row["id"]]
    return {}


# Deployments


def add_deployment(state: State, build: dict, wanted: dict) -> dict:
    row_id = str(uuid.uuid4())
    return state.add(
        "deployments",
        {
            "id": row_id,
            "project_id": build["_project_id"],
            "model_id": build["model_id"],
            "build_id": build["id"],
            "cpu": wanted.get("cpu", 1.0),
            "memory": wanted.get("memory", 2.0),
            "nvidia_gpu": wanted.get("nvidia_gpus", 0),  # two names for it, as recorded
            "environment": wanted.get("environment", {}),
            "stopped_at": state.never(),
            "crn": crn(row_id),
            "deployer": USER,
            "replicas": wanted.get("replicas") or 1,
            "_project_id": build["_project_id"],
        }
        | start(state),
    )


def start(state: State) -> dict:
    """Return the fields of a deployment that starts."""
    end = "failed" if "deployment-fails" in state.switches else "deployed"
    plan = [*on_the_way(state, "deploying"), end]
    if "deployment-stalls" in state.switches:
        plan = plan[:-1]
    return {"status": on_the_way(state, "pending")[0], "_plan": plan, "_started": state.tick()}


def stop(state: State, row: dict) -> dict:
    if row["status"] not in DONE and row.get("_plan") != ["stopped"]:
        row |= {"status": on_the_way(state, "stopping")[0], "_plan": ["stopped"]}
        row |= {"stopped_at": state.now(), "updated_at": state.now()}
    return row


def next_deployment(state: State, row: dict) -> dict:
    """Move a deployment on, its build first; when it is deployed, those before it stop."""
    build = state.rows["builds"][row["build_id"]]
    if build["status"] in NOT_BUILT:
        row |= {"status": "failed", "_plan": []}
    elif not is_built(build) and row["_plan"] != ["stopped"]:
        next_build(state, build)
        return row
    before = row["status"]
    state.move_on(row)
    if row["status"] == "deployed" != before:
        for other in state.of("deployments", model_id=row["model_id"]):
            if other["_started"] < row["_started"]:
                stop(state, other)
    return row


def deployment_of(call: Call) -> dict:
    return call.state.find("deployments", call["deployment_id"], build_id=build_of(call)["id"])


def list_model_deployments(call: Call) -> dict:
    rows = call.state.of("deployments", build_id=build_of(call)["id"])
    shown = [next_deployment(call.state, row) for row in rows if not row.pop("_hidden", False)]
    return call.page(shown)


def create_model_deployment(call: Call) -> dict:
    state, build = call.state, build_of(call)
    if build["status"] in NOT_BUILT:
        raise Refused(400, "this build has failed")
    if "wait-for-built" in state.switches and not is_built(build):
        raise Refused(400, f"this build is {build['status']}")
    made = add_deployment(state, build, call.body)
    if "deployment-500-then-appears" in state.switches:
        made["_hidden"] = True
        raise Refused(500, "context deadline exceeded")
    return made


def get_model_deployment(call: Call) -> dict:
    return next_deployment(call.state, deployment_of(call))


def stop_model_deployment(call: Call) -> dict:
    return stop(call.state, deployment_of(call))


def restart_model_deployment(call: Call) -> dict:
    row = deployment_of(call)
    row |= start(call.state) | {"stopped_at": call.state.never()}
    return row
