"""The workbench stand-in against its surface, by raw HTTP, and the stand-in of its client."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote, urlencode, urlsplit

import mlflow
import numpy as np
import pandas as pd
import psutil
import pytest
from conftest import CML_STORE, STANDINS, client_of, wait_until
from mlflow.models import infer_signature
from servers import alive, family_of, listening
from servers import ask as ask_port
from sklearn.linear_model import LinearRegression
from workbench_server import PROGRAM, Workbench, workbench_server

from cmlflow import processes

sys.path.append(str(STANDINS))  # for these lines only: other tests must not find its `cml`
import cmlapi
import cmlapi.rest
import cmlapi.utils
from workbench.surface import answer
from workbench.switches import SWITCHES

sys.path.remove(str(STANDINS))

SURFACE = json.loads((PROGRAM / "surface.json").read_text(encoding="utf-8"))
OWN = "abcd-efgh-ijkl-mnop"
DASHED, UUID = "[a-z0-9]{4}(-[a-z0-9]{4}){3}", "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
INT64 = {"step", "file_size", "timeout", "engine_image_id", "num_replicas"}
INT64 |= {"cpu_millicores", "memory_mb", "nvidia_gpus"}
ZERO = "0001-01-01T00:00:00Z"
NAME = "Auto-Deployed Model"
SCRIPTS = {
    "good.py": "print('good')\n",
    "bad.py": "raise ValueError('it is bad')\n",
    "exits.py": "raise SystemExit(0)\n",
    "told.py": "import json, os, sys\n"
    "print(json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ), '__file__' in globals()]))\n",
    "asks.py": "import os, cmlapi\n"
    "print(cmlapi.default_client().get_project(os.environ['CDSW_PROJECT_ID']).name)\n",
    "waits.py": "import pathlib, subprocess, sys, time\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)'])\n"
    "pathlib.Path('child').write_text(str(child.pid))\n"
    "while not pathlib.Path('go').exists(): time.sleep(0.02)\n"
    "child.kill()\n",
    "predict.py": "import pathlib, time\n"
    "def predict(request):\n"
    "    if request.get('wait'):\n"
    "        pathlib.Path(request['wait'], 'entered').touch()\n"
    "        while not pathlib.Path(request['wait'], 'leave').exists(): time.sleep(0.01)\n"
    "    return {'double': 2 * request['x']}\n",
}
COLUMNS = ["b", "a"]
ROWS = [[1.0, 10.0], [2.0, 20.0]]  # b, a
RIGHT = [12.0, 24.0]  # 2 * b + a


@pytest.fixture(scope="module")
def area(tmp_path_factory) -> Path:
    """A working area with runs in CML's store, and a registered model: b and a give 2 b + a."""
    area = tmp_path_factory.mktemp("workbench")
    (area / CML_STORE).mkdir()
    client_of(area)
    mlflow.set_registry_uri((area / CML_STORE).as_uri())
    rows = np.random.default_rng(0).normal(size=(50, 2))
    frame = pd.DataFrame(rows, columns=COLUMNS)
    model = LinearRegression().fit(frame, 2 * frame["b"] + frame["a"])
    mlflow.set_experiment(experiment_id=mlflow.create_experiment("wines"))
    with mlflow.start_run(run_name="first"):
        mlflow.log_params({"alpha": "0.6"})
        mlflow.log_metric("rmse", 0.7)
        mlflow.sklearn.log_model(
            model,
            "model",
            signature=infer_signature(frame, model.predict(frame)),
            pip_requirements=["scikit-learn"],
            serialization_format="cloudpickle",
            registered_model_name=NAME,
        )
    mlflow.set_registry_uri(None)
    return area


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """The files of the project."""
    root = tmp_path_factory.mktemp("project")
    for name, text in SCRIPTS.items():
        (root / name).write_text(text, encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def server(area, root) -> Workbench:
    """One server for all tests that do not end it."""
    with workbench_server(area, project_root=root) as server:
        yield server


@pytest.fixture
def bench(server) -> Workbench:
    """The server, with no switch on."""
    server.switch()
    yield server
    server.switch()


@pytest.fixture
def client(bench):
    return cmlapi.default_client(bench.address, bench.key)


def check(kind: str, value: object, where: str = "answer") -> None:
    """Compare an answer with the surface: exactly its fields, with their types."""
    models = SURFACE["models"]
    if kind.startswith("list["):
        assert isinstance(value, list), where
        for number, one in enumerate(value):
            check(kind[5:-1], one, f"{where}[{number}]")
    elif kind in models and "enum" in models[kind]:
        assert value in models[kind]["enum"].values(), where
    elif kind in models:
        if value is not None:
            assert set(value) == set(models[kind]["fields"]), where
            for name, of in models[kind]["fields"].items():
                check(of, value[name], f"{where}.{name}")
    elif kind == "datetime":
        assert value is None or re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", value)
    elif where.rsplit(".", 1)[-1] in INT64:
        assert isinstance(value, str) and re.fullmatch(r"-?\d+", value), (where, value)
    else:
        types = {"str": str, "int": int, "float": (int, float), "bool": bool}
        assert isinstance(value, types[kind]), (where, value)
        assert kind == "bool" or not isinstance(value, bool), where


def call(bench: Workbench, name: str, *ids: str, body=None, status: int = 200, **query):
    """Call an operation by raw HTTP; the answer must have the fields of the surface."""
    operation, left = SURFACE["operations"][name], list(ids)
    path = re.sub(r"\{[\w.]+\}", lambda _: quote(left.pop(0), safe=""), operation["path"])
    if query:
        path += "?" + urlencode(query)
    got, said = bench.ask(operation["verb"], path, body)
    assert got == status, (name, got, said)
    if status != 200:
        check("RuntimeError", said)
    elif operation["response"]:
        check(operation["response"], said, name)
    return said


def until(get, *wanted: str, field: str = "status", limit: int = 12) -> list[str]:
    """Poll until a state is one of these; return all states that were seen."""
    seen = []
    while not seen or seen[-1] not in wanted:
        assert len(seen) < limit, seen
        seen.append(get()[field])
    return seen


def registered(bench: Workbench) -> SimpleNamespace:
    """The registered model and its first version."""
    (row,) = [row for row in call(bench, "list_registered_models")["models"] if row["name"] == NAME]
    versions = call(bench, "get_registered_model", row["model_id"])["model_versions"]
    first = min(versions, key=lambda version: version["number"])
    return SimpleNamespace(id=row["model_id"], version=first["model_version_id"], row=first)


def run_ids(bench: Workbench) -> dict[str, str]:
    """What create_registered_model takes for the run of the area."""
    found = registered(bench).row["model_version_metadata"]["mlflow_metadata"]
    ids = {name: found[name] for name in ("experiment_id", "run_id")}
    return ids | {"project_id": OWN, "model_path": "model"}


def new_model(bench: Workbench, name: str, project: str = OWN, **wanted) -> dict:
    body = {"name": name, "registered_model_id": registered(bench).id} | wanted
    return call(bench, "create_model", project, body=body)


def new_build(bench: Workbench, model: dict, project: str = OWN, **wanted) -> dict:
    body = {"runtime_identifier": "x-python3.11-standard:1"}
    body["registered_model_version_id"] = registered(bench).version
    return call(bench, "create_model_build", project, model["id"], body=body | wanted)


def built(bench: Workbench, model: dict, project: str = OWN, **wanted) -> dict:
    ids = (project, model["id"], new_build(bench, model, project, **wanted)["id"])
    until(lambda: call(bench, "get_model_build", *ids), "built", "build failed")
    return call(bench, "get_model_build", *ids)


def deployed(bench: Workbench, build: dict, project: str = OWN, **wanted) -> dict:
    ids = (project, build["model_id"], build["id"])
    made = call(bench, "create_model_deployment", *ids, body=wanted)
    until(lambda: call(bench, "get_model_deployment", *ids, made["id"]), "deployed")
    return call(bench, "get_model_deployment", *ids, made["id"])


@pytest.fixture(scope="module")
def endpoint(server) -> dict:
    """A deployed model that tests ask and leave as it is."""
    server.switch()
    model = new_model(server, "endpoint")
    deployed(server, built(server, model))
    return model


def ask(bench: Workbench, model: dict, request: object, key: str | None = None, **options):
    """Send a request to a deployed model."""
    body = {"accessKey": model["access_key"], "request": request}
    headers = {} if key is None else {"authorization": key}
    return bench.ask("POST", "/model", body, headers=headers, **options)


SPLIT = {"dataframe_split": {"columns": COLUMNS, "data": ROWS}}


def new_job(bench: Workbench, script: str, **wanted) -> dict:
    body = {"name": script, "script": script} | wanted
    return call(bench, "create_job", OWN, body=body)


def ended(bench: Workbench, job: dict, run: dict) -> dict:
    """Wait for the end of a job run."""
    last = {}

    def over() -> bool:
        last.update(call(bench, "get_job_run", OWN, job["id"], run["id"]))
        active = ("SCHEDULING", "STARTING", "RUNNING", "STOPPING")
        return last["status"].removeprefix("ENGINE_") not in active

    wait_until(over, "the end of the job", 30)
    return last


def run_job(bench: Workbench, job: dict, **wanted) -> dict:
    return ended(bench, job, call(bench, "create_job_run", OWN, job["id"], body=wanted))


def log_of(bench: Workbench, run: dict) -> str:
    (row,) = [row for row in bench.state()["job_runs"] if row["id"] == run["id"]]
    return row["_log"]


# Routes and fields


def test_every_operation_answers_with_the_fields_of_the_surface(bench, area):
    done = set()

    def do(name, *ids, **options):
        done.add(name)
        return call(bench, name, *ids, **options)

    do("validate_api_key", body={"audience": "API"})
    project = do("create_project", body={"name": "every", "environment": {"A": "b"}})["id"]
    do("update_project", project, body={"description": "d"})
    for name in ("list_projects", "list_project_names", "list_runtimes", "list_runtime_addons"):
        assert do(name)
    do("get_project", project)

    experiment = do("create_experiment", OWN, body={"name": "every"})["id"]
    do("update_experiment", OWN, experiment, body={"name": "every 2"})
    assert do("get_experiment", OWN, experiment)["name"] == "every 2"
    assert do("list_experiments", OWN)["experiments"] and do("list_all_experiments")["experiments"]
    run = do("create_experiment_run", OWN, experiment, body={"run_name": "r"})["id"]
    ids = (OWN, experiment, run)
    batch = {"metrics": [{"key": "m", "value": 1}], "tags": [{"key": "t", "value": "v"}]}
    assert do("log_experiment_run_batch", *ids, body=batch) == {}
    assert do("get_experiment_run_metrics", *ids, "m")["metrics"]
    assert do("get_experiment_run", *ids)["data"]["metrics"]
    do("update_experiment_run", *ids, body={"name": "s"})
    assert do("list_experiment_runs", OWN, experiment)["experiment_runs"]
    assert do("delete_experiment_run_batch", *ids, body={"metrics": ["m"], "tags": ["t"]}) == {}
    data = call(bench, "get_experiment_run", *ids)["data"]
    assert data["metrics"] == [] and "t" not in {tag["key"] for tag in data["tags"]}
    assert do("delete_experiment_run", *ids) == do("delete_experiment", OWN, experiment) == {}
    call(bench, "get_experiment_run", *ids, status=404)

    body = run_ids(bench) | {"model_name": "every"}
    row = do("create_registered_model", body=body)
    ids = (row["model_id"], row["model_versions"][0]["model_version_id"])
    do("list_registered_models")
    do("get_registered_model", ids[0])
    do("get_registered_model_version", *ids)
    changed = do("update_registered_model", body={"model_id": ids[0], "description": "d"})
    assert changed["description"] == "d"
    body = {"model_version_id": ids[1], "notes": "n"}
    assert do("update_registered_model_version", ids[0], body=body)["notes"] == "n"
    assert do("delete_registered_model_version", *ids) == {}
    assert do("delete_registered_model", ids[0]) == {}
    call(bench, "get_registered_model", ids[0], status=404)

    body = {"name": "m", "registered_model_id": registered(bench).id}
    model = do("create_model", project, body=body)["id"]
    do("update_model", project, model, body={"description": "d"})
    assert do("list_models", project)["models"] and do("list_all_models")["models"]
    do("get_model", project, model)
    body = {
        "registered_model_version_id": registered(bench).version,
        "runtime_identifier": "r",
    }
    ids = (project, model, do("create_model_build", project, model, body=body)["id"])
    do("get_model_build", *ids)
    assert do("list_model_builds", project, model)["model_builds"]
    deployment = do("create_model_deployment", *ids, body={})["id"]
    do("get_model_deployment", *ids, deployment)
    assert do("list_model_deployments", *ids)["model_deployments"]
    do("restart_model_deployment", *ids, deployment, body={})
    do("stop_model_deployment", *ids, deployment, body={})
    assert do("delete_model_build", *ids) == do("delete_model", project, model) == {}
    call(bench, "get_model", project, model, status=404)

    job = do("create_job", OWN, body={"name": "j", "script": "good.py"})["id"]
    do("update_job", OWN, job, body={"timeout": "90"})
    assert do("get_job", OWN, job)["timeout"] == "90"
    assert do("list_jobs", OWN)["jobs"] and do("list_all_jobs")["jobs"]
    run = do("create_job_run", OWN, job, body={})["id"]
    do("get_job_run", OWN, job, run)
    do("stop_job_run", OWN, job, run, body={})
    assert do("list_job_runs", OWN, job)["job_runs"]
    wait_until(lambda: not running_jobs(bench), "the end of the run", 20)
    assert do("delete_job", OWN, job) == {}

    body = {"name": "a", "subdomain": "every", "script": "good.py"}
    application = do("create_application", OWN, body=body)["id"]
    do("get_application", OWN, application)
    do("update_application", OWN, application, body={"description": "d"})
    do("stop_application", OWN, application, body={})
    do("restart_application", OWN, application, body={})
    assert do("list_applications", OWN)["applications"]
    assert do("delete_application", OWN, application) == {}

    send_form(bench, "POST", f"/api/v2/projects/{project}/files", "x/y.txt", b"hello")
    done.add("upload_file")
    assert do("list_project_files", project, "x")["files"][0]["file_size"] == "5"
    do("update_project_file_metadata", project, "x/y.txt", body={"path": "z.txt"})
    assert do("download_project_file", project, "z.txt", body={}) == b"hello"
    assert do("delete_project_file", project, "z.txt") == {}
    assert do("delete_project", project) == {}
    call(bench, "get_project", project, status=404)
    assert done == set(SURFACE["operations"])


def running_jobs(bench: Workbench) -> list[dict]:
    return [run for run in bench.state()["job_runs"] if not run["_ended"]]


def test_what_the_surface_does_not_know_is_not_served(bench):
    assert bench.ask("GET", "/api/v2/amps")[0] == 404
    assert bench.ask("DELETE", "/api/v2/projects")[0] == 405
    assert bench.ask("POST", f"/api/v2/projects/{OWN}/jobs/x:restart", {})[0] in (404, 405)
    assert bench.ask("GET", "/api/v1/projects")[0] == 404


def test_an_invented_field_cannot_be_answered():
    with pytest.raises(LookupError, match="replica_count"):
        answer("ModelDeployment", {"id": "1", "replica_count": 1})
    with pytest.raises(LookupError, match=r"JobRun\.status"):
        answer("JobRun", {"status": "running"})


def test_paths_are_matched_before_they_are_unquoted(bench):
    send_form(bench, "POST", f"/api/v2/projects/{OWN}/files", "data x/y z.txt", b"1")
    path = f"/api/v2/projects/{OWN}/files"
    assert bench.ask("GET", f"{path}/data%20x%2Fy%20z.txt")[1]["files"][0]["path"].endswith("z.txt")
    assert bench.ask("GET", f"{path}/data%20x/y%20z.txt")[0] == 404
    assert bench.ask("POST", f"{path}/data%20x%2Fy%20z.txt:download", {}) == (200, b"1")
    assert bench.ask("DELETE", f"{path}/data%20x")[0] == 200


# Keys and errors


def test_a_key_is_needed_and_its_header_may_be_written_in_any_case(bench):
    for name in ("authorization", "AUTHORIZATION", "Authorization"):
        connection = connect(bench)
        connection.request("GET", "/api/v2/projects", headers={name: f"Bearer {bench.key}"})
        assert connection.getresponse().status == 200
        connection.close()
    for headers in ({}, {"Authorization": "Bearer no"}, {"Authorization": f"Basic {bench.key}"}):
        connection = connect(bench)
        connection.request("GET", "/api/v2/projects", headers=headers)
        answer = connection.getresponse()
        said = json.loads(answer.read())
        assert (answer.status, said["code"]) == (401, 16)
        check("RuntimeError", said)
        assert bench.key not in str(said)
        connection.close()
    bench.switch("bad-key-403")
    assert bench.ask("GET", "/api/v2/projects", headers={"authorization": "Bearer no"})[0] == 403
    bench.switch("unauthorized")
    assert bench.ask("GET", "/api/v2/projects")[0] == 401
    bench.switch("unauthorized=get_project")
    assert bench.ask("GET", "/api/v2/projects")[0] == 200
    call(bench, "get_project", OWN, status=401)


def connect(bench: Workbench) -> http.client.HTTPConnection:
    parts = urlsplit(bench.address)
    return http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)


def test_errors_are_those_of_a_grpc_gateway_or_of_a_proxy(bench, client):
    said = call(bench, "get_project", "none-none-none-none", status=404)
    assert said["code"] == 5 and said["error"] == said["message"] and said["details"] == []
    bench.switch("odd-errors")
    assert "<html>" in bench.ask("GET", "/api/v2/projects/x")[1]
    with pytest.raises(cmlapi.rest.ApiException) as caught:
        client.get_project("x")
    assert caught.value.status == 404 and "<html>" in caught.value.body


def test_one_connection_serves_many_requests(bench):
    connection = connect(bench)
    headers = {"authorization": f"Bearer {bench.key}"}
    places = set()
    for path in ("/api/v2/projects", "/nowhere", "/api/v2/projects/x", "/api/v2/runtimes"):
        connection.request("POST" if path == "/nowhere" else "GET", path, b"{}", headers)
        connection.getresponse().read()
        places.add(connection.sock.getsockname())
    connection.close()
    assert len(places) == 1


@pytest.mark.parametrize(
    "operation, ids",
    [
        ("get_project", ("x",)),
        ("list_jobs", ("x",)),
        ("get_experiment", (OWN, "x")),
        ("get_experiment_run", (OWN, "0", "x")),
        ("get_registered_model", ("x",)),
        ("get_registered_model_version", ("x", "y")),
        ("get_model", (OWN, "x")),
        ("get_model_build", (OWN, "x", "y")),
        ("get_job", (OWN, "x")),
        ("get_application", (OWN, "x")),
        ("list_project_files", (OWN, "none.txt")),
    ],
)
def test_an_unknown_id_is_404(bench, operation, ids):
    call(bench, operation, *ids, status=404)


def test_what_belongs_to_another_project_is_404(bench, endpoint):
    project = call(bench, "create_project", body={"name": "another"})["id"]
    call(bench, "get_model", project, endpoint["id"], status=404)
    job = new_job(bench, "good.py")
    call(bench, "get_job", project, job["id"], status=404)
    call(bench, "delete_project", project)


# Bodies


def test_bodies_may_be_partial_with_unknown_keys_and_numbers_as_text(bench):
    model = new_model(bench, "bodies", replicas=3, mem="1Gi")
    build = new_build(bench, model, cpu="2", mem=4)
    ids = (OWN, model["id"], build["id"])
    made = call(bench, "create_model_deployment", *ids, body={"cpu": "2", "memory": "4"})
    assert (made["cpu"], made["memory"], made["replicas"]) == (2.0, 4.0, 1)
    assert new_job(bench, "good.py", timeout="60", cpu="0.5")["timeout"] == "60"
    bench.switch("strict-bodies")
    call(bench, "create_model_deployment", *ids, body={"cpu": "2"}, status=400)
    call(bench, "create_model_deployment", *ids, body={"mem": 2}, status=400)
    call(bench, "create_model_deployment", *ids, body={"cpu": 2.0}, status=200)


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": 3},
        {"cpu": "much"},
        {"timeout": 1.5},
        {"kill_on_timeout": "yes"},
        {"environment": '{"A": "b"}'},
        {"environment": {"A": 1}},
        {"runtime_addon_identifiers": "spark"},
    ],
    ids=str,
)
def test_a_value_of_the_wrong_type_is_400(bench, wrong):
    call(bench, "create_job", OWN, body={"name": "j", "script": "good.py"} | wrong, status=400)


def test_a_body_that_is_no_object_is_400(bench):
    for body in (b"{", b"[]", b"null"):
        assert bench.ask("POST", "/api/v2/projects", body)[0] == 400
    assert bench.ask("POST", "/api/v2/projects", b"")[0] == 400  # as {}: it has no name


def test_an_environment_is_a_dict_in_creates_and_text_in_answers_and_changes(bench):
    job = new_job(bench, "told.py", environment={"COLOUR": "red"})
    assert json.loads(job["environment"]) == {"COLOUR": "red"}
    body = {"environment": json.dumps({"COLOUR": "blue"})}
    changed = call(bench, "update_job", OWN, job["id"], body=body)
    assert json.loads(changed["environment"]) == {"COLOUR": "blue"} and changed["script"]
    call(bench, "update_job", OWN, job["id"], body={"environment": {"A": "b"}}, status=400)
    call(bench, "update_job", OWN, job["id"], body={"environment": "no"}, status=400)


# Lists


@pytest.fixture(scope="module")
def thirteen(server) -> str:
    """A project with models m-00 to m-12, of which the even ones need no key."""
    server.switch()
    project = call(server, "create_project", body={"name": "thirteen"})["id"]
    for number in range(13):
        body = {"name": f"m-{number:02}", "disable_authentication": number % 2 == 0}
        call(server, "create_model", project, body=body)
    return project


def names(bench: Workbench, project: str, **query) -> list[str]:
    return [row["name"] for row in call(bench, "list_models", project, **query)["models"]]


def test_a_page_has_ten_entries_and_a_token_to_the_next(bench, thirteen):
    first = call(bench, "list_models", thirteen)
    assert [row["name"] for row in first["models"]] == [f"m-{n:02}" for n in range(10)]
    token = first["next_page_token"]
    assert token and not token.isdigit()
    last = call(bench, "list_models", thirteen, page_token=token)
    assert [row["name"] for row in last["models"]] == ["m-10", "m-11", "m-12"]
    assert last["next_page_token"] == ""
    call(bench, "list_models", thirteen, page_token="10", status=400)
    assert len(names(bench, thirteen, page_size=13)) == 13
    call(bench, "list_models", thirteen, page_size="many", status=400)
    bench.switch("small-pages")
    assert len(names(bench, thirteen, page_size=13)) == 10
    empty = call(bench, "list_models", OWN, search_filter='{"name": "no such model"}')
    assert empty == {"models": [], "next_page_token": ""}


def test_a_filter_finds_parts_of_names(bench, thirteen):
    assert names(bench, thirteen, search_filter='{"name": "m-1"}') == ["m-10", "m-11", "m-12"]
    both = json.dumps({"name": "m-0", "auth_enabled": False})
    assert names(bench, thirteen, search_filter=both) == [f"m-0{n}" for n in (0, 2, 4, 6, 8)]
    assert names(bench, thirteen, searchFilter='{"name": "12"}', pageSize=1) == ["m-12"]
    assert names(bench, thirteen, search_filter='{"creator.username": "nobody"}') == []
    call(bench, "list_models", thirteen, search_filter="name=m", status=400)
    bench.switch("no-filter")
    assert len(names(bench, thirteen, search_filter='{"name": "12"}')) == 10


def test_sorting_by_several_keys_up_and_down(bench, thirteen):
    path = f"/api/v2/projects/{thirteen}/models?page_size=13&sort="

    def sorted_by(sort: str) -> list[str]:
        return [row["name"][2:] for row in bench.ask("GET", path + sort)[1]["models"]]

    odd, even = [f"{n:02}" for n in range(1, 13, 2)], [f"{n:02}" for n in range(0, 13, 2)]
    assert sorted_by("auth_enabled,-name") == even[::-1] + odd[::-1]
    assert sorted_by("-auth_enabled,%2Bname") == odd + even
    assert sorted_by("-auth_enabled,+name") == odd + even  # a raw + is a space
    assert sorted_by("-created_at")[0] == "12"
    bench.switch("strict-sort")
    assert bench.ask("GET", path + "+name")[0] == 400
    assert sorted_by("%2Bname")[0] == "00"


def test_the_order_of_lists_may_be_another(bench, thirteen):
    bench.switch("newest-first")
    assert names(bench, thirteen)[0] == "m-12"
    bench.switch("any-order")
    found = names(bench, thirteen, page_size=13)
    assert found != sorted(found) and found != sorted(found)[::-1] and len(set(found)) == 13


def test_many_models_hide_ours_even_behind_a_filter(bench, thirteen):
    bench.switch("many-models")
    for query in ({}, {"search_filter": '{"name": "m-03"}'}):
        assert "m-03" not in names(bench, thirteen, **query)
        assert "m-03" in names(bench, thirteen, page_size=100, **query)
    assert not any(row.get("_filler") for row in bench.state()["models"])


# Ids and times


def test_ids_have_the_formats_of_a_workbench(bench, endpoint):
    run_job(bench, new_job(bench, "good.py"))
    state = bench.state()
    for table, form in (
        ("projects", DASHED),
        ("jobs", DASHED),
        ("job_runs", "[a-z0-9]{16}"),
        ("models", UUID),
        ("builds", UUID),
        ("deployments", UUID),
    ):
        assert state[table] and all(re.fullmatch(form, row["id"]) for row in state[table]), table
    for table in ("models", "builds", "deployments"):
        for row in state[table]:
            assert row["crn"].startswith("crn:cdp:ml:us-west-1:")
            assert row["crn"].endswith(f":workspace:{row['crn'].split(':')[-1]}")
            assert row["crn"].rsplit("/", 1)[1] == row["id"]
    assert re.fullmatch("m[a-z0-9]{31}", endpoint["access_key"])
    assert re.fullmatch(DASHED, registered(bench).id)
    assert re.fullmatch(DASHED, registered(bench).version)
    bench.switch("dashed-run-ids")
    job = new_job(bench, "good.py")
    run = call(bench, "create_job_run", OWN, job["id"], body={})
    assert re.fullmatch(DASHED, run["id"])
    ended(bench, job, run)


def test_what_has_not_happened_has_the_zero_time(bench):
    model = new_model(bench, "times")
    build = new_build(bench, model)
    assert build["built_at"] == ZERO
    body = {"name": "j", "script": "good.py"}
    bench.switch("null-times")
    assert new_build(bench, model)["built_at"] is None
    call(bench, "create_job", OWN, body=body)


def test_the_clock_of_the_workbench_may_be_wrong(bench):
    def made() -> datetime:
        text = new_job(bench, "good.py")["created_at"]
        return datetime.fromisoformat(text[:26] + "+00:00")

    assert abs(datetime.now(timezone.utc) - made()) < timedelta(minutes=5)
    bench.switch("clock-skew")
    behind = datetime.now(timezone.utc) - made()
    assert timedelta(minutes=55) < behind < timedelta(minutes=65)


# Projects, files and runtimes


def test_a_project_is_made_in_steps_and_its_name_is_taken(bench):
    body = {"name": "PRD", "template": "git", "git_url": "https://example.org/x.git"}
    made = call(bench, "create_project", body=body | {"environment": {"A": "b"}})
    assert made["creation_status"] == "unknown" and json.loads(made["environment"]) == {"A": "b"}
    assert made["default_engine_type"] == "ml_runtime" and made["visibility"] == "private"
    assert set(made["permissions"].values()) == {True}
    seen = until(lambda: call(bench, "get_project", made["id"]), "success", field="creation_status")
    assert seen == ["creating", "success"]
    call(bench, "create_project", body=body, status=409)
    call(bench, "create_project", body={"name": "x", "template": "git"}, status=400)
    call(bench, "create_project", body={}, status=400)
    bench.switch("refusals-500")
    call(bench, "create_project", body=body, status=500)
    bench.switch("same-project-names")
    again = call(bench, "create_project", body=body)
    assert again["id"] != made["id"]
    for project in (made, again):
        call(bench, "delete_project", project["id"])


def send_form(bench, method: str, path: str, field: str, content: bytes, status: int = 200):
    """Send a file as a multipart form."""
    said = (
        f'--xyz\r\nContent-Disposition: form-data; name="{field}"; filename="f"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    ).encode()
    headers = {"Content-Type": "multipart/form-data; boundary=xyz"}
    got = bench.ask(method, path, said + content + b"\r\n--xyz--\r\n", headers=headers)
    assert got[0] == status, got


def test_files_are_written_under_the_name_of_their_field_or_by_put(bench, root, client):
    path = f"/api/v2/projects/{OWN}/files"
    binary = bytes(range(256)) + b"\r\n--xy\r\n"
    send_form(bench, "POST", path, "up/one.bin", binary)
    assert (root / "up/one.bin").read_bytes() == binary
    assert call(bench, "download_project_file", OWN, "up/one.bin", body={}) == binary
    send_form(bench, "PUT", f"{path}/up%2Ftwo.txt", "file", b"two")
    send_form(bench, "PUT", path, "up/three.txt", b"three")
    listed = call(bench, "list_project_files", OWN, "up")["files"]
    assert [row["path"] for row in listed] == ["up/one.bin", "up/three.txt", "up/two.txt"]
    assert bench.ask("GET", f"{path}?path=up")[1]["files"] == listed
    assert {"up", "good.py"} <= {row.path for row in client.list_project_files(OWN, "").files}
    send_form(bench, "POST", path, "../out.txt", b"no", status=400)
    call(bench, "list_project_files", OWN, "../", status=400)
    client.upload_file(OWN, file=str(root / "good.py"))
    assert (root / "file").read_text() == SCRIPTS["good.py"]  # the field of the client is `file`
    client.api_client.call_api(
        path,
        "POST",
        files={"up/four.py": str(root / "good.py")},
        response_type=None,
    )
    assert (root / "up/four.py").read_text() == SCRIPTS["good.py"]
    call(bench, "delete_project_file", OWN, "up")
    assert not (root / "up").exists()
    bench.switch("no-put")
    send_form(bench, "PUT", path, "up/three.txt", b"three", status=405)


def test_runtimes_are_found_by_a_filter(bench):
    wanted = {"kernel": "Python 3.10", "edition": "Standard", "editor": "PBJ Workbench"}
    found = call(bench, "list_runtimes", search_filter=json.dumps(wanted))["runtimes"]
    assert len(found) == 3 and len({row["full_version"] for row in found}) == 3
    image = (
        r"docker\.repository\.cloudera\.com/cloudera/cdsw/ml-runtime-pbj-workbench-"
        r"python3\.10-standard:\d{4}\.\d\d\.\d+-b\d+"
    )
    assert all(re.fullmatch(image, row["image_identifier"]) for row in found)
    assert call(bench, "list_runtimes")["next_page_token"]
    bench.switch("company-registry")
    (host,) = {
        row["image_identifier"].split("/")[0] for row in call(bench, "list_runtimes")["runtimes"]
    }
    assert host == "registry.example.org"
    bench.switch("no-python-runtime")
    assert call(bench, "list_runtimes", search_filter=json.dumps(wanted))["runtimes"] == []
    addons = [row["component"] for row in call(bench, "list_runtime_addons")["runtime_addons"]]
    assert addons == ["HadoopCLI", "Spark", "Spark"]
    bench.switch("no-spark")
    addons = [row["component"] for row in call(bench, "list_runtime_addons")["runtime_addons"]]
    assert addons == ["HadoopCLI"]


def test_add_ons_with_spark_are_told_as_they_are(bench):
    def of_spark():
        found = call(bench, "list_runtime_addons")["runtime_addons"]
        assert [one for one in found if one["component"] == "HadoopCLI"]
        return [one["display_name"][:9] for one in found if "spark" in one["identifier"]]

    assert of_spark() == ["Spark 3.3", "Spark 3.5"]
    bench.switch("spark-4")
    assert sorted(of_spark()) == ["Spark 3.3", "Spark 3.5", "Spark 3.5", "Spark 4.0"]
    bench.switch("no-spark")
    assert of_spark() == []


# Experiments


def test_a_run_shows_the_latest_value_and_the_history_all(bench):
    experiment = call(bench, "create_experiment", OWN, body={"name": "history"})["id"]
    call(bench, "create_experiment", OWN, body={"name": "history"}, status=409)
    run = call(bench, "create_experiment_run", OWN, experiment, body={"run_name": "r"})
    assert run["status"] == "EXPERIMENT_RUN_RUNNING" and run["name"] == "r"
    ids, early, late = (OWN, experiment, run["id"]), "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"
    for value, time, step in ((3, late, "1"), (2, late, 0), (9, early, "7")):
        metric = {"key": "rmse", "value": value, "timestamp": time, "step": step}
        call(bench, "log_experiment_run_batch", *ids, body={"metrics": [metric]})
    (shown,) = call(bench, "get_experiment_run", *ids)["data"]["metrics"]
    assert (shown["value"], shown["timestamp"], shown["step"]) == (3, late, "1")
    history = call(bench, "get_experiment_run_metrics", *ids, "rmse")["metrics"]
    assert sorted(one["value"] for one in history) == [2, 3, 9]
    end = {
        "status": "EXPERIMENT_RUN_FINISHED",
        "end_time": late,
        "data": {"params": [{"key": "p", "value": "1"}], "tags": [{"key": "t", "value": "2"}]},
    }
    done = call(bench, "update_experiment_run", *ids, body=end)
    assert (done["status"], done["end_time"]) == (end["status"], late)
    assert done["data"]["params"] == end["data"]["params"]
    assert end["data"]["tags"][0] in done["data"]["tags"]
    body = {"model_json": json.dumps({"run_id": run["id"], "artifact_path": "model"})}
    call(bench, "log_experiment_run_batch", *ids, body=body)
    tags = {tag["key"]: tag["value"] for tag in done["data"]["tags"]}
    assert "mlflow.log-model.history" not in tags
    tags = call(bench, "get_experiment_run", *ids)["data"]["tags"]
    tags = {tag["key"]: tag["value"] for tag in tags}
    assert json.loads(tags["mlflow.log-model.history"])[0]["run_id"] == run["id"]
    long = {"params": [{"key": "long", "value": "x" * 251}]}
    bench.switch("short-params")
    call(bench, "log_experiment_run_batch", *ids, body=long, status=400)
    bench.switch()
    call(bench, "log_experiment_run_batch", *ids, body=long)


def test_runs_are_those_of_mlflow_oldest_first_and_can_be_filtered(bench, area):
    experiment = call(bench, "create_experiment", OWN, body={"name": "order"})["id"]
    client = client_of(area)
    for number in range(3):
        made = client.create_run(experiment, 1_700_000_000_000 + number, run_name=f"r{number}")
        client.log_metric(made.info.run_id, "rmse", -number)
        client.log_param(made.info.run_id, "depth", number)
        client.set_terminated(made.info.run_id, ["FINISHED", "FAILED", "KILLED"][number])

    def found(**query) -> list[str]:
        rows = call(bench, "list_experiment_runs", OWN, experiment, **query)["experiment_runs"]
        return [row["name"] for row in rows]

    assert found() == ["r0", "r1", "r2"]
    assert found(sort="metrics.rmse") == ["r2", "r1", "r0"]
    assert found(sort="-start_time") == ["r2", "r1", "r0"]
    assert found(search_filter='{"params.depth": "1"}') == ["r1"]
    assert found(search_filter='{"status": "failed"}') == ["r1"]
    rows = call(bench, "list_experiments", OWN, search_filter='{"name": "order"}')["experiments"]
    assert [row["id"] for row in rows] == [experiment]


# The registry


def test_versions_registered_by_mlflow_and_by_api_are_in_one_registry(bench, area):
    ids = run_ids(bench)
    body = ids | {"model_name": "both", "tags": [{"key": "a", "value": "b"}], "description": "d"}
    first = call(bench, "create_registered_model", body=body)
    (version,) = first["model_versions"]
    assert (first["count"], first["updated_at"], first["permission"]) == (0, None, "")
    assert (first["visibility"], first["description"], version["notes"]) == ("PRIVATE", "d", "")
    assert (version["number"], version["status"], version["tags"]) == (1, "READY", [])
    metadata = version["model_version_metadata"]
    assert (metadata["mlops_type"], metadata["project_id"]) == ("MLFLOW", "tutorial")
    metrics = metadata["mlflow_metadata"]["metrics"]
    assert metrics == [{"key": "rmse", "value": 0.7, "timestamp": None, "step": "0"}]
    assert {"key": "alpha", "value": "0.6"} in metadata["mlflow_metadata"]["params"]
    assert metadata["mlflow_metadata"]["run_id"] == ids["run_id"]

    client = client_of(area)
    source = client.get_model_version("both", "1").source
    client.create_model_version("both", source, ids["run_id"])
    client.set_model_version_tag("both", "2", "kept", "by MLflow")
    row = call(bench, "get_registered_model", first["model_id"])
    assert [one["number"] for one in row["model_versions"]] == [2, 1] and row["count"] == 2
    assert row["model_versions"][0]["tags"] == []
    assert (
        row["model_versions"][0]["model_version_metadata"]["mlflow_metadata"]
        == (metadata["mlflow_metadata"])
    )
    third = call(bench, "create_registered_model", body=ids | {"model_name": "both"})
    assert [one["number"] for one in third["model_versions"]] == [3]
    assert third["model_id"] == first["model_id"]
    found = client.search_model_versions("name = 'both'")
    assert sorted(int(one.version) for one in found) == [1, 2, 3]
    listed = call(bench, "list_registered_models", search_filter='{"model_name": "bot"}')
    assert [(row["name"], row["count"]) for row in listed["models"]] == [("both", 3)]
    by_number = call(
        bench, "get_registered_model", first["model_id"], search_filter='{"version_number": 2}'
    )
    assert [one["number"] for one in by_number["model_versions"]] == [2]

    bench.switch("versions-oldest-first")
    row = call(bench, "get_registered_model", first["model_id"])
    assert [one["number"] for one in row["model_versions"]] == [1, 2, 3]
    bench.switch("all-versions", "version-tags-kept")
    fourth = call(bench, "create_registered_model", body=body)
    assert [one["number"] for one in fourth["model_versions"]] == [4, 3, 2, 1]
    assert fourth["model_versions"][0]["tags"] == [{"key": "a", "value": "b"}]
    bench.switch()
    ids["run_id"] = "0" * 32
    call(bench, "create_registered_model", body=ids | {"model_name": "both"}, status=404)
    ids = run_ids(bench) | {"model_path": "no such"}
    call(bench, "create_registered_model", body=ids | {"model_name": "both"}, status=400)
    call(bench, "create_registered_model", body={"model_name": "both"}, status=400)
    call(bench, "delete_registered_model", first["model_id"])


def test_a_registry_of_its_own_knows_nothing_of_mlflow(bench, area):
    body = run_ids(bench) | {"model_name": NAME}
    bench.switch("separate-registry")
    assert call(bench, "list_registered_models")["models"] == []
    made = call(bench, "create_registered_model", body=body)
    assert [one["number"] for one in made["model_versions"]] == [1]
    made = call(bench, "create_registered_model", body=body)
    assert [one["number"] for one in made["model_versions"]] == [2]
    assert len(client_of(area).search_model_versions(f"name = '{NAME}'")) == 1
    ids = (made["model_id"], made["model_versions"][0]["model_version_id"])
    changed = call(
        bench,
        "update_registered_model_version",
        ids[0],
        body={"model_version_id": ids[1], "notes": "n"},
    )
    assert changed["notes"] == "n"
    model = call(
        bench, "create_model", OWN, body={"name": "own", "registered_model_id": made["model_id"]}
    )
    build = built(bench, model, registered_model_version_id=ids[1])
    deployed(bench, build)
    assert ask(bench, model, SPLIT)[1]["response"]["prediction"] == pytest.approx(RIGHT)
    call(bench, "delete_registered_model_version", *ids)
    assert call(bench, "get_registered_model", ids[0])["count"] == 1
    call(bench, "delete_registered_model", ids[0])


@pytest.mark.parametrize(
    "switch, expected",
    [
        ("registration-takes-time", ["PENDING", "PENDING", "READY", "READY"]),
        ("registration-fails-later", ["READY", "READY", "READY", "Failed"]),
    ],
)
def test_a_registration_is_told_before_its_import_ends(bench, switch, expected):
    body = run_ids(bench) | {"model_name": switch}
    bench.switch(switch)
    made = call(bench, "create_registered_model", body=body)
    (version,) = made["model_versions"]
    ids = (made["model_id"], version["model_version_id"])
    polls = [call(bench, "get_registered_model_version", *ids)["status"] for _ in range(3)]
    assert [version["status"], *polls] == expected
    bench.switch()
    model = call(bench, "create_model", OWN, body={"name": switch, "registered_model_id": ids[0]})
    build = built(bench, model, registered_model_version_id=ids[1])
    assert build["status"] == ("build failed" if expected[-1] == "Failed" else "built")
    call(bench, "delete_registered_model", ids[0])


# Models, builds and deployments


def test_the_registered_route_of_three_steps_as_recorded(bench, client):
    model = new_model(bench, "three steps", disable_authentication=False)
    assert model["auth_enabled"] and model["visibility"] == "private" and model["run_as"] == 0
    assert set(model["default_resources"].values()) == {"0"}
    assert model["default_replication_policy"]["num_replicas"] == "0"
    open_one = new_model(bench, "open", disable_authentication=True)
    assert open_one["auth_enabled"] is False
    build = new_build(bench, model, comment="c")
    assert (build["status"], build["comment"]) == ("pending", "c")
    assert (build["file_path"], build["function_name"]) == ("predict.py", "predict")
    assert build["kernel"] == "Python 3.11" and len(build["runtime_addon_identifiers"]) == 1
    ids = (OWN, model["id"], build["id"])
    # A deployment may be asked for while the build is pending; then it waits for it.
    body = {"cpu": 2, "memory": 4, "nvidia_gpus": 1, "environment": {"A": "b"}}
    made = call(bench, "create_model_deployment", *ids, body=body)
    assert (made["status"], made["cpu"], made["memory"]) == ("pending", 2.0, 4.0)
    assert (made["nvidia_gpu"], made["replicas"], made["stopped_at"]) == (1, 1, ZERO)
    assert json.loads(made["environment"]) == {"A": "b"}
    seen = until(lambda: call(bench, "get_model_build", *ids), "built")
    assert seen == ["building", "pushing", "built"]
    assert call(bench, "get_model_build", *ids)["built_at"] > build["created_at"]
    seen = until(lambda: call(bench, "get_model_deployment", *ids, made["id"]), "deployed")
    assert seen == ["deploying", "deployed"]
    (listed,) = client.list_model_deployments(*ids).model_deployments
    assert listed.status == "deployed" and listed.created_at.tzinfo is not None


def test_a_deployment_of_a_build_that_is_never_polled_is_deployed_too(bench):
    build = new_build(bench, new_model(bench, "impatient"))
    assert deployed(bench, build)["status"] == "deployed"
    (row,) = [row for row in bench.state()["builds"] if row["id"] == build["id"]]
    assert row["status"] == "built"


def test_the_one_call_route_takes_auto_deployment_config(bench):
    wanted = {
        "auto_build_model": True,
        "auto_build_config": {
            "registered_model_version_id": registered(bench).version,
            "runtime_identifier": "r",
        },
        "auto_deploy_model": True,
        "auto_deployment_config": {"cpu": 3, "replicas": 2},
        "auto_deploy_config": {"cpu": 4},
    }
    model = new_model(bench, "one call", **wanted)
    (build,) = call(bench, "list_model_builds", OWN, model["id"])["model_builds"]
    ids = (OWN, model["id"], build["id"])
    (made,) = call(bench, "list_model_deployments", *ids)["model_deployments"]
    assert (made["cpu"], made["replicas"]) == (3.0, 2)


def test_a_model_of_a_file_answers_with_its_function(bench, tmp_path):
    model = call(bench, "create_model", OWN, body={"name": "file"})
    body = {"runtime_identifier": "r", "file_path": "predict.py", "function_name": "predict"}
    call(bench, "create_model_build", OWN, model["id"], body={}, status=400)
    call(bench, "create_model_build", OWN, model["id"], body=body | {"file_path": ""}, status=400)
    made = call(bench, "create_model_build", OWN, model["id"], body=body)
    until(lambda: call(bench, "get_model_build", OWN, model["id"], made["id"]), "built")
    deployed(bench, made)
    status, said = ask(bench, model, {"x": 4})
    assert (status, said["response"]["prediction"]) == (200, {"double": 8})
    none = call(bench, "create_model_build", OWN, model["id"], body=body | {"file_path": "no.py"})
    get = lambda: call(bench, "get_model_build", OWN, model["id"], none["id"])  # noqa: E731
    assert until(get, "build failed")[-1] == "build failed"
    call(bench, "create_model_deployment", OWN, model["id"], none["id"], body={}, status=400)

    # One request at a time for each replica
    bench.switch("impatient")
    with ThreadPoolExecutor() as pool:
        first = pool.submit(ask, bench, model, {"x": 1, "wait": str(tmp_path)})
        wait_until((tmp_path / "entered").exists, "the first request", 20)
        status, said = ask(bench, model, {"x": 2})
        assert (status, said["error"], said["success"]) == (429, "model.busy", False)
        (tmp_path / "leave").touch()
        assert first.result(20)[1]["response"]["prediction"] == {"double": 2}


def test_a_plain_model_takes_no_registered_version_and_a_name_is_taken_once(bench):
    plain = call(bench, "create_model", OWN, body={"name": "plain"})
    body = {
        "runtime_identifier": "r",
        "registered_model_version_id": registered(bench).version,
    }
    call(bench, "create_model_build", OWN, plain["id"], body=body, status=400)
    said = call(bench, "create_model", OWN, body={"name": "plain"}, status=409)
    assert "already has a model with that name" in said["message"]
    other = call(bench, "create_model", OWN, body={"name": "plain 2"})
    call(bench, "update_model", OWN, other["id"], body={"name": "plain"}, status=409)
    body = {"name": "x", "registered_model_id": "none-none-none-none"}
    call(bench, "create_model", OWN, body=body, status=404)
    bench.switch("name-taken-by-plain-model")
    body = {"name": "taken", "registered_model_id": registered(bench).id}
    call(bench, "create_model", OWN, body=body, status=409)
    rows = call(bench, "list_models", OWN, search_filter='{"name": "taken"}')["models"]
    assert [row["registered_model_id"] for row in rows] == [""]
    bench.switch("name-taken-by-plain-model=before")
    rows = call(bench, "list_models", OWN, search_filter='{"name": "before"}')["models"]
    assert [row["registered_model_id"] for row in rows] == [""]


def test_a_new_deployment_stops_that_of_the_build_before_once_it_is_deployed(bench):
    model = new_model(bench, "swap")
    first, second = built(bench, model), built(bench, model)
    one = deployed(bench, first)

    def states() -> dict[str, str]:
        rows = bench.state()["deployments"]
        return {row["id"]: row["status"] for row in rows if row["model_id"] == model["id"]}

    two = call(bench, "create_model_deployment", OWN, model["id"], second["id"], body={})
    ids = (OWN, model["id"], second["id"], two["id"])
    assert call(bench, "get_model_deployment", *ids)["status"] == "deploying"
    assert states()[one["id"]] == "deployed"
    assert ask(bench, model, SPLIT)[0] == 200
    assert call(bench, "get_model_deployment", *ids)["status"] == "deployed"
    assert states() == {one["id"]: "stopping", two["id"]: "deployed"}
    old = (OWN, model["id"], first["id"], one["id"])
    stopped = call(bench, "get_model_deployment", *old)
    assert stopped["status"] == "stopped" and stopped["stopped_at"] > stopped["created_at"]

    # Back: what was stopped starts again, and stops the other
    assert call(bench, "restart_model_deployment", *old, body={})["status"] == "pending"
    until(lambda: call(bench, "get_model_deployment", *old), "deployed")
    until(lambda: call(bench, "get_model_deployment", *ids), "stopped")
    assert call(bench, "stop_model_deployment", *old, body={})["status"] == "stopping"
    assert ask(bench, model, SPLIT)[0] == 503
    until(lambda: call(bench, "get_model_deployment", *old), "stopped")
    assert set(states().values()) == {"stopped"}


def test_of_two_deployments_at_once_the_later_one_stays(bench):
    model = new_model(bench, "two people")
    builds = [built(bench, model), built(bench, model)]
    ids = []
    for build in builds:
        made = call(bench, "create_model_deployment", OWN, model["id"], build["id"], body={})
        ids.append((OWN, model["id"], build["id"], made["id"]))
    for one in reversed(ids):
        until(lambda one=one: call(bench, "get_model_deployment", *one), "deployed", "stopped")
    states = [call(bench, "get_model_deployment", *one)["status"] for one in ids]
    assert states == ["stopped", "deployed"]


@pytest.mark.parametrize(
    "switch, builds, deployments",
    [
        ("build-fails", ["building", "build failed"], None),
        ("build-fails=timedout", ["building", "timedout"], None),
        ("build-stalls", ["building"] * 6, ["pending"] * 6),
        ("build-succeeded", ["building", "pushing", "succeeded"], ["deploying", "deployed"]),
        ("other-states", ["queued", "unknown", "built"], ["starting", "deployed"]),
        ("deployment-fails", ["building", "pushing", "built"], ["deploying", "failed"]),
        ("deployment-stalls", ["building", "pushing", "built"], ["deploying"] * 6),
    ],
)
def test_builds_and_deployments_that_go_another_way(bench, switch, builds, deployments):
    model = new_model(bench, switch)
    old = deployed(bench, built(bench, model))
    bench.switch(switch)
    ids = (OWN, model["id"], new_build(bench, model)["id"])
    seen = [call(bench, "get_model_build", *ids)["status"] for _ in builds]
    assert seen == builds
    if deployments is None:
        call(bench, "create_model_deployment", *ids, body={}, status=400)
    else:
        made = call(bench, "create_model_deployment", *ids, body={})
        get = lambda: call(bench, "get_model_deployment", *ids, made["id"])  # noqa: E731
        assert [get()["status"] for _ in deployments] == deployments
    (row,) = [row for row in bench.state()["deployments"] if row["id"] == old["id"]]
    replaced = deployments is not None and "deployed" in deployments
    assert (row["status"] != "deployed") == replaced
    assert ask(bench, model, SPLIT)[0] == 200


def test_a_deployment_may_have_to_wait_for_its_build(bench):
    model = new_model(bench, "waits")
    ids = (OWN, model["id"], new_build(bench, model)["id"])
    bench.switch("wait-for-built")
    call(bench, "create_model_deployment", *ids, body={}, status=400)
    until(lambda: call(bench, "get_model_build", *ids), "built")
    call(bench, "create_model_deployment", *ids, body={})


def test_500_after_which_the_deployment_appears(bench):
    model = new_model(bench, "500")
    ids = (OWN, model["id"], built(bench, model)["id"])
    bench.switch("deployment-500-then-appears")
    said = call(bench, "create_model_deployment", *ids, body={}, status=500)
    assert said["message"] == "context deadline exceeded"
    assert call(bench, "list_model_deployments", *ids)["model_deployments"] == []
    (made,) = call(bench, "list_model_deployments", *ids)["model_deployments"]
    until(lambda: call(bench, "get_model_deployment", *ids, made["id"]), "deployed")


# The endpoint


def test_an_endpoint_answers_with_both_forms_of_the_access_key(bench, endpoint):
    status, said = ask(bench, endpoint, SPLIT)
    assert status == 200 and said["success"] is True and said["ReplicaID"]
    assert said["response"]["prediction"] == pytest.approx(RIGHT)
    deployments = [
        row["crn"] for row in bench.state()["deployments"] if row["model_id"] == endpoint["id"]
    ]
    assert said["response"]["model_deployment_crn"] in deployments
    assert re.fullmatch(UUID, said["response"]["uuid"])
    path = f"/model?accessKey={endpoint['access_key']}"
    for request in (
        {"dataframe_records": [dict(zip(COLUMNS, row, strict=True)) for row in ROWS]},
        {"dataframe_split": {"columns": ["a", "b"], "data": [row[::-1] for row in ROWS]}},
        {"inputs": {"b": [1.0, 2.0], "a": [10.0, 20.0]}},
        {"dataframe_split": {"columns": [*COLUMNS, "c"], "data": [[*row, 1] for row in ROWS]}},
    ):
        status, said = bench.ask("POST", path, {"request": request})
        assert (status, said["response"]["prediction"]) == (200, pytest.approx(RIGHT)), request


WRONG = {
    "no wrapper": SPLIT["dataframe_split"],
    "two wrappers": SPLIT | {"inputs": ROWS},
    "a missing column": {"dataframe_split": {"columns": ["b"], "data": [[1.0]]}},
    "text in a number": {"dataframe_split": {"columns": COLUMNS, "data": [["much", 1.0]]}},
    "no names": {"inputs": ROWS},
    "a list": ROWS,
}


@pytest.mark.parametrize("request_", WRONG.values(), ids=WRONG)
def test_wrong_requests_are_refused_with_what_the_model_says(bench, endpoint, request_):
    status, said = ask(bench, endpoint, request_)
    assert (status, said["success"]) == (400, False) and said["error"]
    bench.switch("errors-as-200", "errors-list")
    again = ask(bench, endpoint, request_)
    assert again[0] == 200 and again[1]["success"] is False
    assert again[1]["errors"] == [said["error"]] and "error" not in again[1]


def test_the_message_names_the_column(bench, endpoint):
    assert "'a'" in ask(bench, endpoint, WRONG["a missing column"])[1]["error"]
    assert "dataframe_split" in ask(bench, endpoint, WRONG["no wrapper"])[1]["error"]


def test_requests_that_reach_no_model(bench, endpoint):
    assert bench.ask("POST", "/model", {"accessKey": "m" * 32, "request": SPLIT})[0] == 404
    assert bench.ask("POST", "/model", {"accessKey": endpoint["access_key"]})[0] == 400
    assert bench.ask("POST", "/model", b"{")[0] == 400
    assert bench.ask("GET", "/model")[0] == 405
    large = {"dataframe_split": {"columns": COLUMNS, "data": [[1.0, 2.0]] * 600_000}}
    assert ask(bench, endpoint, large)[0] == 413


def test_a_key_of_the_api_is_needed_where_authentication_is_on(bench, endpoint):
    for key in ("", "Bearer no", "Bearer " + endpoint["access_key"]):
        assert ask(bench, endpoint, SPLIT, key)[0] == 401
    bench.switch("key-without-models")
    assert ask(bench, endpoint, SPLIT)[0] == 401
    bench.switch()
    model = new_model(bench, "no key", disable_authentication=True)
    deployed(bench, built(bench, model))
    assert ask(bench, model, SPLIT, "")[0] == 200


def test_other_envelopes_and_the_format_of_mlflow_1(bench, endpoint):
    bench.switch("no-wrapper")
    assert ask(bench, endpoint, SPLIT)[1]["response"] == pytest.approx(RIGHT)
    bench.switch("bare-envelope")
    assert set(ask(bench, endpoint, SPLIT)[1]) == {"response"}
    bench.switch("old-scoring")
    assert ask(bench, endpoint, SPLIT)[0] == 400
    status, said = ask(bench, endpoint, SPLIT["dataframe_split"])
    assert (status, said["response"]["prediction"]) == (200, pytest.approx(RIGHT))
    bench.switch("model-busy")
    status, said = ask(bench, endpoint, SPLIT)
    assert (status, said["error"]) == (429, "model.busy")


def test_only_the_newest_build_answers_wrongly_or_not_at_all(bench):
    model = new_model(bench, "wrong")
    first, second = built(bench, model), built(bench, model)
    bench.switch("wrong-predictions")
    deployed(bench, first)
    assert ask(bench, model, SPLIT)[1]["response"]["prediction"] == pytest.approx(RIGHT)
    deployed(bench, second)
    wrong = ask(bench, model, SPLIT)[1]["response"]["prediction"]
    assert wrong == pytest.approx([number + 1 for number in RIGHT])
    bench.switch("never-answers")
    with pytest.raises(TimeoutError):
        ask(bench, model, SPLIT, limit=0.2)
    deployed(bench, first)
    assert ask(bench, model, SPLIT)[0] == 200


# Jobs and applications


def test_a_job_has_the_environment_of_a_session(bench, root):
    project = {"environment": json.dumps({"COLOUR": "red", "SIZE": "small", "SHAPE": "round"})}
    call(bench, "update_project", OWN, body=project)
    job = new_job(
        bench, "told.py", environment={"SIZE": "large", "SHAPE": "flat"}, arguments="--a 'b c'"
    )
    run = run_job(bench, job, environment={"SHAPE": "long"})
    assert run["status"] == "ENGINE_SUCCEEDED" and run["finished_at"] > run["running_at"] > ZERO
    words, folder, environment, has_file = json.loads(log_of(bench, run))
    assert (words, Path(folder).resolve(), has_file) == ([], root.resolve(), False)
    told = {
        "COLOUR": "red",
        "SIZE": "large",
        "SHAPE": "long",
        "CDSW_PROJECT_ID": OWN,
        "MLFLOW_TRACKING_URI": "cml://localhost",
    } | {key: bench.environment()[key] for key in ("CDSW_API_URL", "CDSW_APIV2_KEY")}
    assert told.items() <= environment.items()
    assert environment["CMLFLOW_MODEL_SERVICE"] == bench.address
    assert bench.key not in str(bench.process.args)
    bench.switch("job-arguments")
    assert json.loads(log_of(bench, run_job(bench, job)))[0] == ["--a", "b c"]
    assert json.loads(log_of(bench, run_job(bench, job, arguments="x")))[0] == ["x"]
    call(bench, "update_project", OWN, body={"environment": "{}"})


def test_a_job_can_ask_the_workbench(bench):
    run = run_job(bench, new_job(bench, "asks.py"))
    assert run["status"] == "ENGINE_SUCCEEDED" and log_of(bench, run) == "tutorial\n"


def test_children_run_after_success_only_and_any_system_exit_is_a_failure(bench):
    for script, expected in (
        ("good.py", "SUCCEEDED"),
        ("bad.py", "FAILED"),
        ("exits.py", "FAILED"),
    ):
        parent = new_job(bench, script)
        child = new_job(bench, "good.py", parent_job_id=parent["id"])
        grandchild = new_job(bench, "good.py", parent_id=child["id"])
        assert (parent["type"], child["type"]) == ("manual", "dependent")
        assert child["parent_id"] == parent["id"]
        assert run_job(bench, parent)["status"] == f"ENGINE_{expected}", script

        def runs(job: dict) -> list[dict]:
            return call(bench, "list_job_runs", OWN, job["id"])["job_runs"]

        if expected == "SUCCEEDED":
            wait_until(lambda: bool(runs(grandchild)), "the run of the grandchild", 30)  # noqa: B023
            assert ended(bench, grandchild, runs(grandchild)[0])["status"] == "ENGINE_SUCCEEDED"
            assert len(runs(child)) == len(runs(grandchild)) == 1
        else:
            assert runs(child) == runs(grandchild) == []


def test_what_a_job_refuses(bench):
    parent = new_job(bench, "good.py")
    body = {"name": "j", "script": "good.py"}
    refused = (
        (body | {"script": "none.py"}, 400),
        (body | {"schedule": "0 1 * * *", "parent_job_id": parent["id"]}, 400),
        (body | {"parent_job_id": "none-none-none-none"}, 404),
        ({"name": "j"}, 400),
    )
    for wrong, status in refused:
        call(bench, "create_job", OWN, body=wrong, status=status)
    call(bench, "update_job", OWN, parent["id"], body={"parent_id": parent["id"]}, status=400)
    cron = new_job(bench, "good.py", schedule="0 1 * * *")
    assert cron["type"] == "cron" and cron["timezone"] == "America/Los_Angeles"
    assert (cron["cpu"], cron["memory"], cron["timeout"]) == (1.0, 1.0, "0")
    bench.switch("refusals-500")
    for wrong, _ in refused[:2]:
        call(bench, "create_job", OWN, body=wrong, status=500)
    body = {"parent_id": parent["id"], "schedule": ""}
    assert call(bench, "update_job", OWN, cron["id"], body=body)["type"] == "dependent"


@pytest.fixture
def waiting(bench, root) -> dict:
    """A run of a job that waits and has a child process; it ends with the test."""
    job = new_job(bench, "waits.py")
    run = call(bench, "create_job_run", OWN, job["id"], body={})
    wait_until((root / "child").exists, "the job", 30)
    wait_until(lambda: (root / "child").read_text().isdigit(), "its process", 30)
    yield {"job": job, "run": run, "child": psutil.Process(int((root / "child").read_text()))}
    bench.switch()
    call(bench, "stop_job_run", OWN, job["id"], run["id"], body={})
    wait_until(lambda: not running_jobs(bench), "the end of the job", 30)
    for name in ("go", "child"):
        (root / name).unlink(missing_ok=True)


def test_states_come_one_by_one_and_a_job_runs_once_at_a_time(bench, waiting, root):
    job, run = waiting["job"]["id"], waiting["run"]
    seen = [call(bench, "get_job_run", OWN, job, run["id"])["status"] for _ in range(3)]
    assert [run["status"], *seen] == [
        "ENGINE_SCHEDULING",
        "ENGINE_STARTING",
        "ENGINE_RUNNING",
        "ENGINE_RUNNING",
    ]
    call(bench, "create_job_run", OWN, job, body={}, status=409)
    call(bench, "delete_job", OWN, job, status=409)
    bench.switch("second-run-skipped")
    assert call(bench, "create_job_run", OWN, job, body={})["status"] == "ENGINE_SKIPPED"
    rows = call(bench, "list_job_runs", OWN, job, search_filter='{"status": "running"}')
    assert [row["id"] for row in rows["job_runs"]] == [run["id"]]
    (root / "go").touch()
    assert ended(bench, waiting["job"], run)["status"] == "ENGINE_SUCCEEDED"


def test_a_run_is_stopped_with_what_it_started(bench, waiting):
    ids = (OWN, waiting["job"]["id"], waiting["run"]["id"])
    assert call(bench, "stop_job_run", *ids, body={})["status"] == "ENGINE_STOPPING"
    assert until(lambda: call(bench, "get_job_run", *ids), "ENGINE_STOPPED", limit=1000)
    wait_until(lambda: not alive([waiting["child"]]), "the end of the child", 10)


def test_a_run_ends_at_its_timeout_and_short_quota_lasts_until_then(bench, root):
    job = new_job(bench, "waits.py", timeout=1, kill_on_timeout=True)
    assert run_job(bench, job)["status"] == "ENGINE_TIMEDOUT"
    (root / "child").unlink(missing_ok=True)
    bench.switch("no-quota")
    short = new_job(bench, "good.py", timeout=1)
    run = call(bench, "create_job_run", OWN, short["id"], body={})
    seen = [call(bench, "get_job_run", OWN, short["id"], run["id"])["status"] for _ in range(4)]
    assert set(seen) == {"ENGINE_SCHEDULING"}
    assert ended(bench, short, run)["status"] == "ENGINE_TIMEDOUT"
    long = new_job(bench, "good.py")
    runs = [call(bench, "create_job_run", OWN, long["id"], body={})]
    call(bench, "stop_job_run", OWN, long["id"], runs[0]["id"], body={})
    assert ended(bench, long, runs[0])["status"] == "ENGINE_STOPPED"
    run = call(bench, "create_job_run", OWN, long["id"], body={})
    bench.switch()
    assert ended(bench, long, run)["status"] == "ENGINE_SUCCEEDED"


def test_children_of_a_deleted_job_stay(bench):
    parent = new_job(bench, "good.py")
    child = new_job(bench, "good.py", parent_job_id=parent["id"])
    call(bench, "delete_job", OWN, parent["id"])
    assert call(bench, "get_job", OWN, child["id"])["name"] == "good.py"


def test_an_application_starts_stops_and_starts_again(bench):
    body = {"name": "a", "subdomain": "app-1", "script": "good.py", "environment": {"A": "b"}}
    made = call(bench, "create_application", OWN, body=body)
    ids = (OWN, made["id"])
    assert made["status"] == "APPLICATION_STARTING" and made["running_at"] == ZERO
    get = lambda: call(bench, "get_application", *ids)  # noqa: E731
    until(get, "APPLICATION_RUNNING")
    assert call(bench, "stop_application", *ids, body={})["status"] == "APPLICATION_STOPPING"
    until(get, "APPLICATION_STOPPED")
    call(bench, "restart_application", *ids, body={})
    until(get, "APPLICATION_RUNNING")
    call(bench, "create_application", OWN, body=body, status=409)
    call(bench, "create_application", OWN, body=body | {"subdomain": "App_1"}, status=400)
    bench.switch("refusals-500")
    call(bench, "create_application", OWN, body=body, status=500)
    call(bench, "delete_application", *ids)
    call(bench, "get_application", *ids, status=404)


# Failures on request


def test_forbidden_is_the_creation_of_projects_and_other_projects(bench):
    project = call(bench, "create_project", body={"name": "forbidden"})["id"]
    bench.switch("forbidden")
    said = call(bench, "create_project", body={"name": "x"}, status=403)
    assert said["code"] == 7
    call(bench, "list_models", project, status=403)
    call(bench, "list_models", OWN)
    bench.switch("forbidden=list_models")
    call(bench, "list_models", OWN, status=403)
    bench.switch()
    call(bench, "delete_project", project)


def test_conflict_means_that_another_session_was_faster(bench):
    bench.switch("conflict")
    call(bench, "create_job", OWN, body={"name": "race", "script": "good.py"}, status=409)
    listed = call(bench, "list_jobs", OWN, search_filter='{"name": "race"}')["jobs"]
    assert len(listed) == 1
    call(bench, "create_job", OWN, body={"name": "race", "script": "good.py"})


def test_too_many_requests_three_times(bench):
    bench.switch("too-many=get_project")
    call(bench, "list_projects")
    for status in (429, 429, 429, 200, 200):
        call(bench, "get_project", OWN, status=status)


def test_an_internal_error(bench):
    bench.switch("server-error=get_project")
    call(bench, "get_project", OWN, status=500)
    call(bench, "list_projects")


def test_one_answer_breaks_off_in_the_middle(bench, client):
    bench.switch("breaks-in-mid-answer=create_job")
    call(bench, "list_projects")
    with pytest.raises(Exception, match=r"IncompleteRead|Connection broken"):
        client.create_job({"name": "broken", "script": "good.py"}, OWN)
    listed = call(bench, "list_jobs", OWN, search_filter='{"name": "broken"}')["jobs"]
    assert len(listed) == 1  # it was made
    client.create_job({"name": "broken", "script": "good.py"}, OWN)


def test_an_answer_can_be_held_back_while_all_else_goes_on(bench):
    bench.switch("holds=create_job")
    with ThreadPoolExecutor() as pool:
        held = pool.submit(new_job, bench, "good.py", name="held")

        def made() -> bool:
            return any(job["name"] == "held" for job in bench.state()["jobs"])

        wait_until(made, "the job", 20)
        assert not held.done()
        bench.switch()
        assert held.result(20)["name"] == "held"


def test_requests_are_counted_and_switches_are_told(bench):
    before = bench.state()["requests"].get("get_project", 0)
    call(bench, "get_project", OWN)
    assert bench.state()["requests"]["get_project"] == before + 1
    bench.switch("newest-first", "holds=create_job")
    assert bench.state()["switches"] == ["newest-first", "holds=create_job"]
    status, said = bench.ask("PUT", "/control", {"switches": ["no-such"]})
    assert status == 400 and "no-such" in said["message"]
    for method, path in (("PUT", "/control"), ("GET", "/control/state")):
        headers = {"authorization": "Bearer no"}
        assert bench.ask(method, path, {"switches": []}, headers=headers)[0] == 401


def test_each_switch_has_a_test():
    text = Path(__file__).read_text(encoding="utf-8")
    assert [name for name in SWITCHES if not re.search(rf'"{name}["=]', text)] == []


# The client


def test_the_client_sends_objects_without_none_and_dicts_as_they_are(bench, client):
    body = cmlapi.CreateJobRequest(name="object", script="good.py", timeout=30)
    job = client.create_job(body, OWN)
    assert isinstance(job, cmlapi.Job) and job.to_dict()["name"] == "object"
    assert job.timeout == "30" and job.cpu == 1.0 and isinstance(job.created_at, datetime)
    assert job.creator.username == "learner" and job.project.public_identifier == OWN
    with pytest.raises(TypeError):
        job["name"]
    assert client.create_job({"name": "dict", "script": "good.py", "unknown": 1}, OWN).id
    assert client.update_job(cmlapi.Job(name="renamed"), OWN, job.id).script == "good.py"
    assert client.get_job(project_id=OWN, job_id=job.id).name == "renamed"
    run = client.create_job_run({}, OWN, job.id)
    assert run.status == "ENGINE_SCHEDULING" == cmlapi.EngineStatus.SCHEDULING
    wait_until(lambda: not running_jobs(bench), "the end of the job", 30)


def test_the_client_refuses_before_it_sends(bench, client):
    before = bench.state()["requests"]
    with pytest.raises(TypeError, match="unexpected keyword argument 'replica_count'"):
        cmlapi.CreateModelDeploymentRequest(replica_count=1)
    with pytest.raises(TypeError, match="unexpected keyword argument 'searchFilter'"):
        client.list_projects(searchFilter="{}")
    with pytest.raises(TypeError, match="job_id"):
        client.get_job(OWN)
    with pytest.raises(TypeError, match="positional"):
        client.get_job(OWN, "a", "b")
    with pytest.raises(ValueError, match="`job_id`"):
        client.get_job(OWN, None)
    with pytest.raises(ValueError, match="`body`"):
        client.create_job(None, OWN)
    assert bench.state()["requests"] == before


def test_what_the_client_sends():
    send = cmlapi.ApiClient().sanitize_for_serialization
    assert send(cmlapi.CreateJobRequest(name="x")) == {"name": "x"}
    assert send({"name": None, "unknown": 1}) == {"name": None, "unknown": 1}
    recorded = []
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor() as pool:

        def record() -> None:
            for _ in range(2):
                connection, _ = listener.accept()
                with connection, connection.makefile("rb") as stream:
                    head = b"".join(iter(stream.readline, b"\r\n")).decode()
                    length = re.search(r"(?i)content-length: (\d+)", head)
                    body = stream.read(int(length[1])) if length else b""
                    recorded.append(f"\r\n{head}\r\n{body.decode()}")
                    # Else the client might send the next request on a connection that ends.
                    told = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"
                    connection.sendall(told)

        done = pool.submit(record)
        other = cmlapi.default_client(f"http://127.0.0.1:{listener.getsockname()[1]}", "secret")
        other.list_project_files("a/b", "data x/y")
        other.stop_job_run("p", "j", "r")
        done.result(20)
    get, post = recorded
    assert get.startswith("\r\nGET /api/v2/projects/a%2Fb/files/data%20x%2Fy HTTP/1.1")
    assert post.startswith("\r\nPOST /api/v2/projects/p/jobs/j/runs/r:stop HTTP/1.1")
    for text in recorded:
        assert "\r\nauthorization: Bearer secret\r\n" in text
        assert "\r\nContent-Type: application/json\r\n" in text
        assert "\r\nUser-Agent: Swagger-Codegen/" in text
    assert get.endswith("\r\n\r\n") and post.endswith("\r\n\r\n{}")


def test_the_client_walks_through_pages_and_works_in_the_background(client, thirteen):
    cursor = cmlapi.utils.Cursor(client.list_models, thirteen, page_size=5, sort="-name")
    assert [model.name for model in cursor.items()] == [f"m-{n:02}" for n in range(12, -1, -1)]
    assert client.get_project(OWN, async_req=True).get(20).id == OWN
    found, status, headers = client.get_project_with_http_info(OWN)
    assert (found.id, status, headers["Content-Type"]) == (OWN, 200, "application/json")
    raw = client.download_project_file(OWN, "good.py", _preload_content=False)
    assert raw.data.decode() == SCRIPTS["good.py"]


def test_the_client_raises_an_api_exception_or_as_with_new_urllib3(client, monkeypatch):
    with pytest.raises(cmlapi.rest.ApiException) as caught:
        client.get_project("none")
    assert (caught.value.status, caught.value.reason) == (404, "Not Found")
    assert json.loads(caught.value.body)["code"] == 5 and caught.value.headers
    monkeypatch.setenv("CMLAPI_URLLIB3_BUG", "1")
    with pytest.raises(AttributeError, match="no attribute 'getheaders'"):
        client.get_project("none")
    assert client.get_project(OWN).id == OWN


def test_the_client_reads_what_it_does_not_know_or_misses():
    text = json.dumps({"id": "1", "cpu": "2", "created_at": "2024-02-01T10:11:12.123456789Z"})
    response = SimpleNamespace(data=text[:-1] + ', "new_in_2030": 1}')
    job = cmlapi.ApiClient().deserialize(response, "Job")
    assert (job.cpu, job.name, job.creator) == (2.0, None, None)
    assert job.created_at == datetime(2024, 2, 1, 10, 11, 12, 123456, timezone.utc)
    assert not hasattr(job, "new_in_2030")


def test_where_a_client_connects_to(bench, monkeypatch):
    for name in ("CDSW_API_URL", "CDSW_APIV2_KEY"):
        monkeypatch.delenv(name, raising=False)
        with pytest.raises(ValueError, match=name):
            cmlapi.default_client(*("http://example.org",)[: name == "CDSW_APIV2_KEY"])
    monkeypatch.setenv("CDSW_API_URL", bench.environment()["CDSW_API_URL"])
    monkeypatch.setenv("CDSW_APIV2_KEY", bench.key)
    assert cmlapi.default_client().get_project(OWN).name == "tutorial"
    assert cmlapi.default_client(bench.address + "/", bench.key).get_project(OWN).id == OWN
    with pytest.raises(ValueError, match="http"):
        cmlapi.default_client("127.0.0.1", bench.key)


# The program


def test_many_threads_at_once(bench):
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda n: new_job(bench, "good.py", name=f"n{n}"), range(40)))
    assert len({job["id"] for job in made}) == 40


def test_it_listens_on_this_machine_only_and_its_end_is_that_of_its_jobs(area, root, tmp_path):
    with workbench_server(area, project_root=root, TMPDIR=str(tmp_path)) as other:
        assert {place[0] for place in listening(other.process)} == {"127.0.0.1"}
        run = call(other, "create_job_run", OWN, new_job(other, "waits.py")["id"], body={})
        assert run["status"] == "ENGINE_SCHEDULING"
        wait_until(lambda: len(family_of(other.process)) == 3, "the job and its child", 30)
        family = family_of(other.process)
        other.process.terminate()
        assert other.process.wait(20) == 0
        assert not list(tmp_path.iterdir())
        wait_until(lambda: not alive(family), "the end of all", 20)
    with workbench_server(area, project_root=root, TMPDIR=str(tmp_path)) as other:
        call(other, "create_job_run", OWN, new_job(other, "waits.py")["id"], body={})
        wait_until(lambda: len(family_of(other.process)) == 3, "the job and its child", 30)
        family = family_of(other.process)
        other.process.send_signal(signal.SIGKILL)
        wait_until(lambda: not alive(family), "the end of all", 20)
    (root / "child").unlink(missing_ok=True)


def test_without_a_store_there_is_nothing_registered(tmp_path):
    with workbench_server(tmp_path, MLFLOW_TRACKING_URI="") as other:
        assert call(other, "list_registered_models")["models"] == []
        assert call(other, "list_all_experiments")["experiments"] == []
        assert not list(tmp_path.iterdir())


def test_the_store_may_be_a_database(work):
    with workbench_server(work, MLFLOW_TRACKING_URI="") as other:
        experiment = call(other, "create_experiment", OWN, body={"name": "e"})["id"]
        body = {"metrics": [{"key": "m", "value": 1.5}]}
        run = call(other, "create_experiment_run", OWN, experiment, body={})["id"]
        call(other, "log_experiment_run_batch", OWN, experiment, run, body=body)
        assert client_of(work).get_run(run).data.metrics == {"m": 1.5}


def test_it_runs_in_a_process_that_ends_with_its_parent(area):
    with processes.running(str(PROGRAM / "__main__.py"), "--area", str(area)) as child:
        wait_until(lambda: bool(listening(child)), "the server", 60)
        ((_, port),) = listening(child)
        assert ask_port(port, "/api/v2/projects")[0] == 401
    assert ask_port(port, "/api/v2/projects")[0] is None
