"""What answers for deployed models: the address /model of the model service."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable

from workbench import experiments
from workbench.surface import Refused
from workbench.tables import State

FORMATS = ("dataframe_split", "dataframe_records", "instances", "inputs")
LIMIT_BYTES = 5 * 1024 * 1024
BUSY_S = 30
OTHER_FORMAT = (
    "The input must be a JSON dictionary with exactly one of the input fields "
    "{'dataframe_split', 'dataframe_records', 'instances', 'inputs'}"
)


class Predictors:
    """The loaded models, by what was built, and who uses a deployment now."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.loaded: dict[tuple, Callable] = {}
        self.replicas: dict[str, threading.Semaphore] = {}

    def of(self, state: State, build: dict) -> Callable[[dict], object]:
        """Return what answers a request, loaded at the first one."""
        key = (build["_registered"], build["_run_id"]) if build["_uri"] else (build["id"],)
        with self.lock:
            if key not in self.loaded:
                if build["_uri"]:
                    with state.lock:  # it chooses the store, for all of this process
                        self.loaded[key] = registered_model(state, build["_uri"])
                else:
                    names: dict[str, object] = {"__name__": "predict"}
                    exec(compile(build["_source"], build["file_path"], "exec"), names)
                    self.loaded[key] = names[build["function_name"]]
            return self.loaded[key]

    def replica(self, deployment: dict) -> threading.Semaphore:
        with self.lock:
            return self.replicas.setdefault(
                deployment["id"], threading.Semaphore(deployment["replicas"])
            )


def registered_model(state: State, uri: str) -> Callable[[dict], object]:
    """Return what answers scoring JSON with the predictions of a model."""
    import mlflow
    from mlflow.utils import proto_json_utils

    experiments.open_store(state)
    model = mlflow.pyfunc.load_model(uri)
    schema = model.metadata.get_input_schema()

    def predict(request: dict) -> object:
        if "old-scoring" in state.switches:
            if set(request) != {"columns", "data"}:
                raise Refused(400, f"expected columns and data, got {list(request)}")
            request = {"dataframe_split": request}
        used = [name for name in FORMATS if name in request]
        if len(used) != 1:
            raise Refused(400, f"{OTHER_FORMAT}. Received fields: {list(request)}")
        value = request[used[0]]
        try:
            if used[0].startswith("dataframe_"):
                orient = used[0].removeprefix("dataframe_")
                data = proto_json_utils.dataframe_from_parsed_json(value, orient, schema)
            else:
                data = proto_json_utils.parse_tf_serving_input({used[0]: value}, schema)
            predicted = model.predict(data)
        except Exception as error:  # whatever the model says is the answer
            raise Refused(400, str(error)) from None
        return proto_json_utils._get_jsonable_obj(predicted, "records")

    return predict


def plus_one(value: object) -> object:
    """Return the same with wrong numbers."""
    if isinstance(value, dict):
        return {key: plus_one(one) for key, one in value.items()}
    if isinstance(value, list):
        return [plus_one(one) for one in value]
    return value + 1 if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def is_newest(state: State, build: dict) -> bool:
    others = state.of("builds", model_id=build["model_id"])
    return build["_number"] == max(other["_number"] for other in others)


def respond(
    state: State, predictors: Predictors, query: dict, raw: bytes, bearer: str
) -> tuple[int, dict]:
    """Return the status and the JSON that answer one request."""
    envelope = {"ReplicaID": f"model-{uuid.uuid4().hex[:8]}"}
    try:
        response = predicted(state, predictors, query, raw, bearer)
    except Refused as refused:
        status = refused.status
        status = 200 if status == 400 and "errors-as-200" in state.switches else status
        error = {"error": refused.message}
        if "errors-list" in state.switches:
            error = {"errors": [refused.message]}
        return status, {"success": False} | error | envelope
    if "bare-envelope" in state.switches:
        return 200, {"response": response}
    return 200, {"success": True, "response": response} | envelope


def predicted(state: State, predictors: Predictors, query: dict, raw: bytes, bearer: str) -> object:
    if len(raw) > LIMIT_BYTES:
        raise Refused(413, "request too large")
    try:
        body = json.loads(raw)
        request = body["request"]
        key = query.get("accessKey") or body.get("accessKey")
    except (ValueError, TypeError, KeyError):
        raise Refused(400, "a JSON object with `request` is expected") from None
    with state.lock:
        models = [row for row in state.of("models") if row["access_key"] == key]
        if not models:
            raise Refused(404, "no model has this access key")
        if models[0]["auth_enabled"] and (
            bearer != state.key or "key-without-models" in state.switches
        ):
            raise Refused(401, "this model needs an API key")
        deployed = state.of("deployments", model_id=models[0]["id"], status="deployed")
        if not deployed:
            raise Refused(503, "this model is not deployed")
        deployment = max(deployed, key=lambda row: row["_started"])
        build = state.rows["builds"][deployment["build_id"]]
        newest = is_newest(state, build)
        deployment["_requests"] = deployment.get("_requests", 0) + 1
    if newest and "never-answers" in state.switches:
        state.switches.wait_while("never-answers")
    if "model-busy" in state.switches:
        raise Refused(429, "model.busy")
    if not isinstance(request, dict):
        raise Refused(400, "request is not a JSON object")
    replica = predictors.replica(deployment)
    if not replica.acquire(timeout=0 if "impatient" in state.switches else BUSY_S):
        raise Refused(429, "model.busy")
    try:
        prediction = predictors.of(state, build)(request)
    except Refused:
        raise
    except Exception as error:
        raise Refused(400, f"{type(error).__name__}: {error}") from None
    finally:
        replica.release()
    if newest and "wrong-predictions" in state.switches:
        prediction = plus_one(prediction)
    if "no-wrapper" in state.switches:
        return prediction
    return {
        "model_deployment_crn": deployment["crn"],
        "prediction": prediction,
        "uuid": str(uuid.uuid4()),
    }
