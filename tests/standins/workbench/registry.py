"""The registry: that of the MLflow store, so lessons that register by MLflow are seen too."""

from __future__ import annotations

from datetime import datetime, timezone

from workbench import experiments
from workbench.surface import Refused
from workbench.tables import USER, Call, State, steady_id

ALIASES = {"model_name": "name", "creator_id": "owner.username", "versions": "number"}


def time_of(milliseconds: int | None) -> datetime | None:
    """Return a time of MLflow."""
    if not milliseconds:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, timezone.utc)


def models_of(state: State) -> list[dict]:
    """Return the registered models with their versions, the first registered first."""
    if "separate-registry" in state.switches:
        named = {name: versions for name, versions in state.own_versions.items() if versions}
        return [
            registered(state, name, versions[0]["created_at"], "", versions)
            for name, versions in named.items()
        ]
    client = experiments.open_store(state)
    if client is None:
        return []
    by_name: dict[str, list] = {}
    for version in client.search_model_versions(""):
        by_name.setdefault(version.name, []).append(version)
    found = sorted(client.search_registered_models(), key=lambda one: one.creation_timestamp)
    return [
        registered(
            state,
            one.name,
            time_of(one.creation_timestamp),
            one.description or "",
            [
                {
                    "number": int(version.version),
                    "notes": version.description or "",
                    "created_at": time_of(version.creation_timestamp),
                    "updated_at": time_of(version.last_updated_timestamp),
                    "tags": version.tags,
                    "run_id": version.run_id,
                    "uri": f"models:/{version.name}/{version.version}",
                }
                for version in by_name.get(one.name, [])
            ],
        )
        for one in found
    ]


def registered(
    state: State, name: str, made: datetime, description: str, versions: list[dict]
) -> dict:
    """Return a row of a registered model; `_versions` are those of its versions, oldest first."""
    model_id = steady_id("registered model", name)
    facts = state.registered_facts.get(model_id, {})
    rows = [version_row(state, name, one) for one in sorted(versions, key=lambda v: v["number"])]
    return {
        "model_id": model_id,
        "name": name,
        "description": facts.get("description", description),
        "owner": USER,
        "permission": "",
        "visibility": facts.get("visibility", "PRIVATE"),
        "created_at": made,
        "updated_at": facts.get("updated_at"),
        "count": len(rows),
        "_versions": rows,
    }


def version_row(state: State, name: str, version: dict) -> dict:
    model_id = steady_id("registered model", name)
    # A number is given again after its version was deleted, a time is not.
    version_id = steady_id("version", name, version["number"], str(version["created_at"]))
    if version_id not in state.version_facts:  # seen for the first time
        plan = ["READY", "READY", "Failed"] if "registration-fails-later" in state.switches else []
        plan = ["PENDING", "READY"] if "registration-takes-time" in state.switches else plan
        status = "PENDING" if plan[:1] == ["PENDING"] else "READY"
        state.version_facts[version_id] = {"status": status, "_plan": plan}
    facts = state.version_facts[version_id]
    tags = version["tags"] if "version-tags-kept" in state.switches else {}
    return {
        "model_id": model_id,
        "model_version_id": version_id,
        "version_name": "",
        "number": version["number"],
        "notes": version["notes"],
        "user": USER,
        "created_at": version["created_at"],
        "updated_at": version["updated_at"],
        "status": facts["status"],
        "tags": [{"key": key, "value": value} for key, value in tags.items()],
        "_facts": facts,
        "_name": name,
        "_run_id": version["run_id"],
        "_uri": version["uri"],
    }


def described(state: State, version: dict) -> dict:
    """Return a version with the metadata of its run, once more asked for."""
    facts = state.move_on(version["_facts"])
    row = version | {"status": facts["status"]}
    run = experiments.run_or_none(state, version["_run_id"])
    if run is not None:
        project_id = state.experiment_project.get(run.info.experiment_id, state.own_project)
        project = state.rows["projects"].get(project_id, {"name": ""})
        metrics = [{"key": key, "value": value} for key, value in run.data.metrics.items()]
        row["model_version_metadata"] = {
            "mlops_type": "MLFLOW",
            "workspace_url": state.address,
            "project_id": project["name"],  # a name, as recorded
            "owner": USER,
            "mlflow_metadata": {
                "experiment_id": run.info.experiment_id,
                "run_id": run.info.run_id,
                "metrics": metrics,
                "params": experiments.pairs(run.data.params),
                "tags": experiments.pairs(run.data.tags),
            },
        }
    return row


def find(state: State, model_id: str) -> dict:
    for row in models_of(state):
        if row["model_id"] == model_id:
            return row
    raise Refused(404, f"registered model {model_id} not found")


def find_version(state: State, version_id: str, model_id: str | None = None) -> dict:
    for row in models_of(state) if model_id is None else [find(state, model_id)]:
        for version in row["_versions"]:
            if version["model_version_id"] == version_id:
                return version
    raise Refused(404, f"version {version_id} not found")


def list_registered_models(call: Call) -> dict:
    return call.page(models_of(call.state), aliases=ALIASES)


def get_registered_model(call: Call) -> dict:
    state, row = call.state, find(call.state, call["model_id"])
    versions = [described(state, version) for version in row["_versions"]]
    if "versions-oldest-first" not in state.switches:
        versions.reverse()
    aliases = {"version_number": "number", "creator_id": "user.username", "versions": "number"}
    return row | call.page(versions, aliases=aliases)


def get_registered_model_version(call: Call) -> dict:
    return described(call.state, find_version(call.state, call["version_id"], call["model_id"]))


def create_registered_model(call: Call) -> dict:
    """Register the model of a run: a new name, or one more version of a name."""
    wanted, state = call.body, call.state
    for name in ("project_id", "experiment_id", "run_id", "model_path", "model_name"):
        if not wanted.get(name):
            raise Refused(400, f"{name} is required")
    name = wanted["model_name"]
    state.find("projects", wanted["project_id"])
    run = experiments.find_run(
        state, wanted["project_id"], wanted["experiment_id"], wanted["run_id"]
    )
    require_model(run, wanted["model_path"])
    tags = {tag.get("key", ""): tag.get("value", "") for tag in wanted.get("tags", [])}
    register = register_apart if "separate-registry" in state.switches else register_by_mlflow
    number = register(state, name, run, wanted["model_path"], wanted.get("notes", ""), tags)
    facts = state.registered_facts.setdefault(steady_id("registered model", name), {})
    facts |= {key: wanted[key] for key in ("description", "visibility") if key in wanted}
    row = find(state, steady_id("registered model", name))
    made = next(one for one in row["_versions"] if one["number"] == number)
    made["_facts"] = {"status": made["status"]}  # being told of it now is no poll
    newest = row["_versions"][::-1] if "all-versions" in state.switches else [made]
    # As recorded: neither the number of versions nor the time of the last change.
    return row | {
        "count": 0,
        "updated_at": None,
        "model_versions": [described(state, version) for version in newest],
    }


def require_model(run, model_path: str) -> None:
    import mlflow

    try:
        mlflow.models.get_model_info(f"runs:/{run.info.run_id}/{model_path}")
    except (mlflow.MlflowException, OSError):
        raise Refused(400, f"run {run.info.run_id} has no model {model_path}") from None


def register_by_mlflow(
    state: State, name: str, run, model_path: str, notes: str, tags: dict
) -> int:
    import mlflow

    uri = f"runs:/{run.info.run_id}/{model_path}"
    made = mlflow.register_model(uri, name, await_registration_for=0)
    client = experiments.open_store(state)
    if notes:
        client.update_model_version(name, made.version, notes)
    if "version-tags-kept" in state.switches:
        for key, value in tags.items():
            client.set_model_version_tag(name, made.version, key, value)
    return int(made.version)


def register_apart(state: State, name: str, run, model_path: str, notes: str, tags: dict) -> int:
    versions = state.own_versions.setdefault(name, [])
    numbers = [version["number"] for version in versions]
    versions.append(
        {
            "number": max(numbers, default=0) + 1,
            "notes": notes,
            "created_at": state.now(),
            "updated_at": state.now(),
            "tags": tags,
            "run_id": run.info.run_id,
            "uri": f"runs:/{run.info.run_id}/{model_path}",
        }
    )
    return versions[-1]["number"]


def update_registered_model(call: Call) -> dict:
    """Change a model; its id is in the body."""
    row = find(call.state, call.body.get("model_id", ""))
    facts = call.state.registered_facts.setdefault(row["model_id"], {})
    facts |= {key: call.body[key] for key in ("description", "visibility") if key in call.body}
    facts["updated_at"] = call.state.now()
    if "description" in call.body and "separate-registry" not in call.state.switches:
        client = experiments.open_store(call.state)
        client.update_registered_model(row["name"], call.body["description"])
    return find(call.state, row["model_id"])


def update_registered_model_version(call: Call) -> dict:
    """Change a version; its id is in the body."""
    state, notes = call.state, call.body.get("notes")
    version = find_version(state, call.body.get("model_version_id", ""), call["model_id"])
    tags = {tag.get("key", ""): tag.get("value", "") for tag in call.body.get("tags", [])}
    if "separate-registry" in state.switches:
        (row,) = (
            one
            for one in state.own_versions[version["_name"]]
            if one["number"] == version["number"]
        )
        row |= {"updated_at": state.now()} | ({} if notes is None else {"notes": notes})
        row["tags"] = row["tags"] | tags
    else:
        client, number = experiments.open_store(state), str(version["number"])
        if notes is not None:
            client.update_model_version(version["_name"], number, notes)
        for key, value in tags.items() if "version-tags-kept" in state.switches else ():
            client.set_model_version_tag(version["_name"], number, key, value)
    return described(state, find_version(state, version["model_version_id"]))


def delete_registered_model(call: Call) -> dict:
    row = find(call.state, call["model_id"])
    if "separate-registry" in call.state.switches:
        del call.state.own_versions[row["name"]]
    else:
        experiments.open_store(call.state).delete_registered_model(row["name"])
    call.state.registered_facts.pop(row["model_id"], None)
    return {}


def delete_registered_model_version(call: Call) -> dict:
    version = find_version(call.state, call["version_id"], call["model_id"])
    name, number = version["_name"], version["number"]
    if "separate-registry" in call.state.switches:
        kept = [one for one in call.state.own_versions[name] if one["number"] != number]
        call.state.own_versions[name] = kept
    else:
        experiments.open_store(call.state).delete_model_version(name, str(number))
    return {}
