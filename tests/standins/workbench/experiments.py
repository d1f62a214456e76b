"""Experiments and runs: those of the MLflow store in the working area."""

from __future__ import annotations

import json
from datetime import datetime

from workbench.surface import Refused
from workbench.tables import USER, Call, State, dotted, steady_id

PREFIX = "EXPERIMENT_RUN_"


def open_store(state: State, make: bool = False):
    """Open the store, as lessons have it now; None where there is none yet, unless made."""
    files, database = state.area / "cml-store", state.area / "mlflow.db"
    in_files = files.exists() or (
        not database.exists() and state.session.get("MLFLOW_TRACKING_URI", "").startswith("cml:")
    )
    if not make and not (files if in_files else database).exists():
        return None
    import logging

    import mlflow

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    uri = files.as_uri() if in_files else f"sqlite:///{database}"
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    return mlflow.MlflowClient()


def milliseconds(time: datetime | None) -> int | None:
    """Return a time as MLflow has it."""
    return None if time is None else round(time.timestamp() * 1000)


def pairs(values: dict) -> list[dict]:
    return [{"key": key, "value": value} for key, value in values.items()]


def tags_of(rows: list[dict] | None) -> dict[str, str]:
    return {row["key"]: row.get("value", "") for row in rows or [] if row.get("key")}


# Experiments


def experiments_of(state: State) -> list:
    client = open_store(state)
    found = client.search_experiments() if client else []
    return sorted(found, key=lambda one: (one.creation_time or 0, one.experiment_id))


def project_of(state: State, experiment) -> str:
    return state.experiment_project.get(experiment.experiment_id, state.own_project)


def experiment_row(state: State, experiment) -> dict:
    from workbench.registry import time_of

    return {
        "id": experiment.experiment_id,
        "project_id": project_of(state, experiment),
        "name": experiment.name,
        "artifact_location": experiment.artifact_location,
        "created_at": time_of(experiment.creation_time),
        "updated_at": time_of(experiment.last_update_time),
        "tags": pairs(experiment.tags),
        "lifecycle_stage": experiment.lifecycle_stage,
        "user": USER,
    }


def find_experiment(state: State, project_id: str, experiment_id: str):
    state.find("projects", project_id)
    for experiment in experiments_of(state):
        here = project_of(state, experiment) == project_id
        if here and experiment.experiment_id == experiment_id:
            return experiment
    raise Refused(404, f"experiment {experiment_id} not found")


def list_experiments(call: Call) -> dict:
    here = call.project["id"]
    rows = [experiment_row(call.state, one) for one in experiments_of(call.state)]
    return call.page(row for row in rows if row["project_id"] == here)


def list_all_experiments(call: Call) -> dict:
    return call.page(experiment_row(call.state, one) for one in experiments_of(call.state))


def get_experiment(call: Call) -> dict:
    found = find_experiment(call.state, call["project_id"], call["experiment_id"])
    return experiment_row(call.state, found)


def create_experiment(call: Call) -> dict:
    import mlflow

    state, name, project = call.state, call.body.get("name", ""), call.project
    if not name:
        raise Refused(400, "experiment name is required")
    client = open_store(state, make=True)
    place = call.body.get("artifact_location")
    if not place:
        folder = "cml-artifacts" if (state.area / "cml-store").exists() else "mlartifacts"
        place = (state.area / folder / steady_id("experiment", name)).as_uri()
    try:
        made = client.create_experiment(name, place, tags_of(call.body.get("tags")))
    except mlflow.MlflowException:
        raise Refused(409, f"an experiment with the name {name} already exists") from None
    state.experiment_project[made] = project["id"]
    return experiment_row(state, client.get_experiment(made))


def update_experiment(call: Call) -> dict:
    found = find_experiment(call.state, call["experiment_project_id"], call["experiment_id"])
    client = open_store(call.state)
    if call.body.get("name"):
        client.rename_experiment(found.experiment_id, call.body["name"])
    for key, value in tags_of(call.body.get("tags")).items():
        client.set_experiment_tag(found.experiment_id, key, value)
    return experiment_row(call.state, client.get_experiment(found.experiment_id))


def delete_experiment(call: Call) -> dict:
    found = find_experiment(call.state, call["project_id"], call["experiment_id"])
    open_store(call.state).delete_experiment(found.experiment_id)
    return {}


# Runs


def run_or_none(state: State, run_id: str | None):
    import mlflow

    client = open_store(state)
    try:
        return client.get_run(run_id) if client and run_id else None
    except mlflow.MlflowException:
        return None


def find_run(state: State, project_id: str, experiment_id: str, run_id: str):
    find_experiment(state, project_id, experiment_id)
    run = run_or_none(state, run_id)
    if run is None or run.info.experiment_id != experiment_id:
        raise Refused(404, f"run {run_id} not found")
    if run.info.lifecycle_stage == "deleted":
        raise Refused(404, f"run {run_id} was deleted")
    return run


def run_of(call: Call):
    return find_run(call.state, call["project_id"], call["experiment_id"], call["run_id"])


def history(state: State, run_id: str, key: str) -> list[dict]:
    from workbench.registry import time_of

    if (run_id, "metrics", key) in state.deleted_values:
        return []
    return [
        {"key": key, "value": one.value, "timestamp": time_of(one.timestamp), "step": one.step}
        for one in open_store(state).get_metric_history(run_id, key)
    ]


def latest(values: list[dict]) -> dict:
    """Return what a run shows of a metric: the latest value, the largest of several."""
    return max(values, key=lambda one: (one["timestamp"], one["value"]))


def files_of(client, run_id: str, path: str | None = None) -> list[dict]:
    found = []
    for entry in client.list_artifacts(run_id, path):
        found.append(
            {"path": entry.path, "is_dir": entry.is_dir, "file_size": entry.file_size or 0}
        )
        if entry.is_dir:
            found += files_of(client, run_id, entry.path)
    return found


def run_row(state: State, run, files: bool = True) -> dict:
    from workbench import registry

    client, run_id = open_store(state), run.info.run_id
    metrics = [values for key in run.data.metrics if (values := history(state, run_id, key))]
    versions = [
        version | {"created": model["created_at"]}
        for model in registry.models_of(state)
        for version in model["_versions"]
        if version["_run_id"] == run_id
    ]
    return {
        "id": run_id,
        "name": run.info.run_name,
        "experiment_id": run.info.experiment_id,
        "user": USER,
        "status": PREFIX + run.info.status.removeprefix(PREFIX),
        "start_time": registry.time_of(run.info.start_time),
        "end_time": registry.time_of(run.info.end_time) or state.never(),
        "artifact_uri": run.info.artifact_uri.removeprefix("file://"),
        "data": {
            "metrics": [latest(values) for values in metrics],
            "params": [
                pair
                for pair in pairs(run.data.params)
                if (run_id, "params", pair["key"]) not in state.deleted_values
            ],
            "tags": pairs(run.data.tags),
            "files": files_of(client, run_id) if files else [],
            "registered_model_metadata": [
                {
                    "model_path": "model",
                    "model_name": version["_name"],
                    "model_id": version["model_id"],
                    "model_version_id": version["model_version_id"],
                    "version_number": version["number"],
                    "run_id": run_id,
                    "created_at": version["created_at"],
                }
                for version in versions
            ],
        },
        "inputs": {"dataset_inputs": [dataset_row(one) for one in run.inputs.dataset_inputs]},
        "_created_at": run.info.start_time,
    }


def dataset_row(used) -> dict:
    names = ("name", "digest", "source_type", "source", "schema", "profile")
    return {
        "tags": [{"key": tag.key, "value": tag.value} for tag in used.tags],
        "dataset": {name: getattr(used.dataset, name) for name in names},
    }


def list_experiment_runs(call: Call) -> dict:
    found = find_experiment(call.state, call["project_id"], call["experiment_id"])
    order = ["attributes.start_time ASC"]
    runs = open_store(call.state).search_runs([found.experiment_id], order_by=order)

    def lookup(row: dict, key: str) -> object:
        kind, _, name = key.partition(".")
        if kind in ("metrics", "params", "tags") and name:
            for pair in row["data"][kind]:
                if pair["key"] == name:
                    return pair["value"]
            return None
        key = {"created_at": "start_time"}.get(key, key).replace("creator.", "user.")
        return dotted(row, key)

    return call.page([run_row(call.state, run) for run in runs], lookup)


def get_experiment_run(call: Call) -> dict:
    return run_row(call.state, run_of(call))


def create_experiment_run(call: Call) -> dict:
    found = find_experiment(call.state, call["project_id"], call["experiment_id"])
    wanted, client = call.body, open_store(call.state)
    start = milliseconds(wanted.get("start_time") or call.state.now())
    name = wanted.get("run_name") or None
    made = client.create_run(found.experiment_id, start, tags_of(wanted.get("tags")), name)
    return run_row(call.state, made)


def update_experiment_run(call: Call) -> dict:
    """Log what the body holds, and end the run if it says so."""
    run, wanted = run_of(call), call.body
    log(call, run, wanted.get("data", {}))
    client, run_id = open_store(call.state), run.info.run_id
    status = wanted.get("status", "").removeprefix(PREFIX)
    if wanted.get("name"):
        client.update_run(run_id, name=wanted["name"])
    if "end_time" in wanted and status in ("FINISHED", "FAILED", "KILLED"):
        client.set_terminated(run_id, status, milliseconds(wanted["end_time"]))
    elif status:
        client.update_run(run_id, status)
    return run_row(call.state, run_of(call))


def log(call: Call, run, values: dict) -> None:
    import mlflow
    from mlflow.entities import Metric, Param, RunTag

    state, run_id, now = call.state, run.info.run_id, milliseconds(call.state.now())
    params = tags_of(values.get("params"))
    if "short-params" in state.switches:
        for key, value in params.items():
            if len(value) > 250:
                raise Refused(400, f"param {key} is longer than 250 characters")
    metrics = [
        Metric(
            one["key"],
            one.get("value", 0.0),
            milliseconds(one.get("timestamp")) or now,
            one.get("step", 0),
        )
        for one in values.get("metrics", [])
    ]
    tags = tags_of(values.get("tags"))
    if values.get("model_json"):
        name = "mlflow.log-model.history"
        try:
            known = json.loads(run.data.tags.get(name, "[]"))
            tags[name] = json.dumps([*known, json.loads(values["model_json"])])
        except ValueError:
            raise Refused(400, "model_json is not JSON") from None
    for kind, keys in (("metrics", [one.key for one in metrics]), ("params", params)):
        state.deleted_values -= {(run_id, kind, key) for key in keys}
    try:
        open_store(state).log_batch(
            run_id,
            metrics,
            [Param(key, value) for key, value in params.items()],
            [RunTag(key, value) for key, value in tags.items()],
        )
    except mlflow.MlflowException as error:
        raise Refused(400, str(error)) from None


def log_experiment_run_batch(call: Call) -> dict:
    log(call, run_of(call), call.body)
    return {}


def delete_experiment_run_batch(call: Call) -> dict:
    run = run_of(call)
    for key in call.body.get("tags", []):
        if key in run.data.tags:
            open_store(call.state).delete_tag(run.info.run_id, key)
    for kind in ("metrics", "params"):  # MLflow deletes neither
        for key in call.body.get(kind, []):
            call.state.deleted_values.add((run.info.run_id, kind, key))
    return {}


def delete_experiment_run(call: Call) -> dict:
    open_store(call.state).delete_run(run_of(call).info.run_id)
    return {}


def get_experiment_run_metrics(call: Call) -> dict:
    return {"metrics": history(call.state, run_of(call).info.run_id, call["metric_key"])}
