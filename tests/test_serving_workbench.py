"""Endpoints in CML, by API v2: what the workbench holds afterwards, and what it does to us."""

import contextlib
import http.server
import json
import ssl
import sys
import threading
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from types import SimpleNamespace

import mlflow
import pandas as pd
import pytest
from conftest import CML_STORE, STANDINS, client_of, finish, in_cml, start_python, wait_until
from mlflow.models import infer_signature
from sklearn.dummy import DummyRegressor
from workbench_server import workbench_server

from cmlflow import serving, workbench
from cmlflow.errors import MissingStep, ServingError, WorkbenchError
from cmlflow.registry import Version
from cmlflow.serving import Check, on_workbench

NAME, ENDPOINT = "constant", "tests"
ROWS = pd.DataFrame({"a": [1.0, 2.0]})
POLL = {"CMLFLOW_POLL_SECONDS": "0.01"}
LIMITS = ("BUILD_LIMIT_S", "DEPLOYMENT_LIMIT_S", "REGISTRATION_LIMIT_S", "CHECK_LIMIT_S")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A store of the platform with three versions: each predicts its number."""
    area = tmp_path_factory.mktemp("workbench")
    (area / CML_STORE).mkdir()
    client_of(area)
    mlflow.set_experiment("endpoints")
    ids = []
    for number in (1.0, 2.0, 3.0):
        model = DummyRegressor(strategy="constant", constant=number).fit(ROWS, [0, 0])
        with mlflow.start_run() as run:
            mlflow.sklearn.log_model(
                model,
                "model",
                signature=infer_signature(ROWS, model.predict(ROWS)),
                pip_requirements=["scikit-learn"],
                serialization_format="cloudpickle",
                registered_model_name=NAME,
            )
        ids.append(run.info.run_id)
    return SimpleNamespace(area=area, ids=ids)


@pytest.fixture(scope="module")
def workbench_of_the_file(runs):
    with workbench_server(runs.area, **POLL) as server:
        server.runs = runs
        yield server


@pytest.fixture
def server(workbench_of_the_file, monkeypatch):
    """A workbench that holds nothing but the session's project; this process is that session."""
    server = workbench_of_the_file
    for name, value in (server.environment() | POLL).items():
        if name != "PYTHONPATH":
            monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(STANDINS)
    server.begin()
    return server


def version(server, number):
    return Version(NAME, number, server.runs.ids[number - 1])


def check(number):
    return Check(ROWS, pd.Series([number, number], dtype=float).to_numpy())


def deploy(server, number):
    return serving.deploy(ENDPOINT, version(server, number), check(number))


def answered():
    return set(serving.call(ENDPOINT, ROWS))


def statuses(server):
    """Of all deployments that have not ended, by the number of their version."""
    state = server.state()
    numbers = {one["model_version_id"]: one["number"] for one in state["versions"]}
    builds = {one["id"]: numbers[one["registered_model_version_id"]] for one in state["builds"]}
    return {
        builds[one["build_id"]]: one["status"]
        for one in state["deployments"]
        if one["status"] not in ("stopped", "stopping", "failed")
    }


def one_of_each(server, versions):
    """One project for production, one model, one build per version, one deployment that runs."""
    state = server.state()
    assert sorted(one["name"] for one in state["projects"]) == ["PRD", "tutorial"]
    assert [one["name"] for one in state["models"]] == [ENDPOINT]
    builds = [one["registered_model_version_id"] for one in state["builds"]]
    assert len(builds) == len(set(builds)) == versions
    assert len(statuses(server)) == 1


class TestAsItShouldBe:
    def test_the_tables_hold_one_project_model_build_and_deployment(self, server):
        deployment = deploy(server, 1)
        one_of_each(server, 1)
        state = server.state()
        (project,) = (one for one in state["projects"] if one["name"] == "PRD")
        (model,), (build,) = state["models"], state["builds"]
        (registered,) = {one["model_id"] for one in state["versions"]}
        assert model["registered_model_id"] == registered
        assert (model["project"] or {}).get("public_identifier", project["id"]) == project["id"]
        assert f"python3.{sys.version_info[1]}-standard" in build["runtime_identifier"]
        assert statuses(server) == {1: "deployed"}
        (running,) = state["deployments"]
        assert (running["cpu"], running["memory"], running["replicas"]) == (1.0, 2.0, 1)
        assert (deployment.version, deployment.run_id) == (1, server.runs.ids[0])
        assert deployment.address == f"{server.address}/model"
        assert answered() == {1.0}

    def test_again_it_creates_nothing(self, server):
        first = deploy(server, 1)
        before = server.state()
        assert deploy(server, 1) == first
        after = server.state()
        creations = [name for name in after["requests"] if name.startswith("create_")]
        assert {name: after["requests"][name] for name in creations} == {
            name: before["requests"][name] for name in creations
        }

    def test_another_version_takes_the_name_with_its_key_and_the_rehearsal_is_gone(self, server):
        deploy(server, 1)
        key = server.state()["models"][0]["access_key"]
        deployment = deploy(server, 2)
        one_of_each(server, 2)
        assert server.state()["models"][0]["access_key"] == key
        assert (deployment.version, deployment.before) == (2, 1)
        assert answered() == {2.0}

    def test_rolling_back_needs_no_new_build(self, server):
        deploy(server, 1)
        deploy(server, 2)
        before = server.state()["requests"]["create_model_build"]
        assert serving.roll_back(ENDPOINT, check(1)).version == 1
        assert answered() == {1.0}
        assert server.state()["requests"]["create_model_build"] == before
        assert serving.roll_back(ENDPOINT, check(2)).version == 2
        one_of_each(server, 2)

    @pytest.mark.parametrize("switch", ["", "newest-first", "any-order"])
    def test_rolling_back_leads_to_the_version_before_and_not_to_the_oldest(self, server, switch):
        server.switch(*switch.split())
        for number in (1, 2, 3):
            deploy(server, number)
        assert serving.deployed(ENDPOINT).before == 2
        assert serving.roll_back(ENDPOINT, check(2)).version == 2
        assert answered() == {2.0}

    def test_stop_ends_what_serves(self, server):
        deploy(server, 1)
        assert serving.stop(ENDPOINT)
        assert serving.deployed(ENDPOINT) is None
        assert not serving.stop(ENDPOINT)
        assert serving.send(ENDPOINT, check(1).payload).status != 200
        assert deploy(server, 1).version == 1

    def test_nothing_is_served_where_nothing_was_deployed(self, server):
        assert serving.deployed(ENDPOINT) is None
        with pytest.raises(ServingError, match="has served no other version"):
            serving.roll_back(ENDPOINT, check(1))
        with pytest.raises(MissingStep, match="There is no endpoint"):
            serving.send(ENDPOINT, {})
        assert [one["name"] for one in server.state()["projects"]] == ["tutorial"]

    def test_an_endpoint_that_was_made_anew_is_called_with_its_new_key(self, server):
        deploy(server, 1)
        assert answered() == {1.0}
        (model,) = server.state()["models"]
        (project,) = (one for one in server.state()["projects"] if one["name"] == "PRD")
        path = f"/api/v2/projects/{project['id']}/models/{model['id']}"
        assert server.ask("DELETE", path)[0] == 200
        deploy(server, 2)
        assert answered() == {2.0}

    def test_another_project_can_be_named(self, server, monkeypatch, capsys):
        monkeypatch.setenv("CMLFLOW_PROJECT", "my production")
        deploy(server, 1)
        assert capsys.readouterr().out.startswith("Project 'my production' created\n")
        names = {one["name"] for one in server.state()["projects"]}
        assert names == {"my production", "tutorial"}
        monkeypatch.delenv("CMLFLOW_PROJECT")
        deploy(server, 2)
        assert answered() == {2.0}
        monkeypatch.setenv("CMLFLOW_PROJECT", "my production")
        assert answered() == {1.0}


KNOWN_BOTH_WAYS = [
    "newest-first", "any-order", "no-filter", "small-pages", "null-times", "other-states",
    "build-succeeded", "company-registry", "no-wrapper", "bare-envelope", "errors-as-200",
    "errors-list", "versions-oldest-first", "all-versions", "version-tags-kept", "many-models",
    "conflict", "too-many", "breaks-in-mid-answer", "deployment-500-then-appears",
    "registration-takes-time", "clock-skew", "strict-bodies", "wait-for-built", "bad-key-403",
    "odd-errors", "refusals-500", "impatient", "strict-sort", "many-models small-pages any-order",
]  # fmt: skip


@pytest.mark.parametrize("switches", KNOWN_BOTH_WAYS)
def test_whatever_is_not_known_for_certain_it_works_both_ways(server, switches):
    server.switch(*switches.split())
    assert deploy(server, 1).version == 1
    assert deploy(server, 2).before == 1
    assert serving.roll_back(ENDPOINT, check(1)).version == 1
    assert answered() == {1.0}
    state = server.state()
    assert [one["name"] for one in state["models"]].count(ENDPOINT) == 1
    assert len({one["registered_model_version_id"] for one in state["builds"]}) == 2
    assert statuses(server) == {1: "deployed"}


CREATIONS = ("create_project", "create_model", "create_model_build", "create_model_deployment")


@pytest.mark.parametrize("operation", CREATIONS)
@pytest.mark.parametrize("switch", ["breaks-in-mid-answer", "conflict"])
def test_a_creation_that_failed_but_happened_is_found(server, switch, operation):
    server.switch(f"{switch}={operation}")
    deploy(server, 1)
    one_of_each(server, 1)


FAILURES = {
    "build-fails": "Build of version 2 for tests-check-2 ended as 'build failed'.",
    "build-fails=timedout": "Build of version 2 for tests-check-2 ended as 'timedout'.",
    "build-stalls": "Build of version 2 for tests-check-2 is still 'building'",
    "deployment-fails": "Deployment of version 2 as tests-check-2 ended as 'failed'.",
    "deployment-stalls": "Deployment of version 2 as tests-check-2 is still 'deploying'",
    "never-answers": "Version 2 was tried as 'tests-check-2'",
    "wrong-predictions": "was tried as 'tests-check-2': Row 1 of the check: 3.0 instead of 2.0.",
    "no-python-runtime": "This workbench offers no runtime with Python 3.",
    "server-error=create_model_build": "The workbench refused create_model_build with 500",
    "forbidden": "with 403",
}


@pytest.mark.parametrize("switch", FAILURES)
def test_a_version_that_does_not_get_there_leaves_the_old_one_serving(server, monkeypatch, switch):
    deploy(server, 1)
    for name in LIMITS:
        monkeypatch.setattr(on_workbench, name, 0.3)
    monkeypatch.setattr(workbench, "APPEARS_LIMIT_S", 0.3)
    server.switch(switch)
    with pytest.raises((ServingError, WorkbenchError)) as caught:
        deploy(server, 2)
    server.switch()
    assert FAILURES[switch] in str(caught.value)
    assert server.key not in str(caught.value)
    assert statuses(server) == {1: "deployed"}
    assert answered() == {1.0}
    for name in LIMITS:
        monkeypatch.setattr(on_workbench, name, 60)
    assert deploy(server, 2).version == 2  # nothing of it is in the way
    assert [one["name"] for one in server.state()["models"]] == [ENDPOINT]


def test_a_version_that_turns_wrong_under_the_name_gives_it_back(server, monkeypatch):
    """The rehearsal was right, and then it is not."""
    deploy(server, 1)
    after_the_rehearsal(monkeypatch, lambda: server.switch("wrong-predictions"))
    with pytest.raises(ServingError) as caught:
        deploy(server, 2)
    assert f"version 1 of '{NAME}' (run {server.runs.ids[0]}) serves again" in caught.value.expected
    server.switch()
    assert answered() == {1.0}
    assert statuses(server) == {1: "deployed"}


def after_the_rehearsal(monkeypatch, act):
    """Do something as soon as a rehearsal was right."""
    rehearse = on_workbench._Place.rehearse

    def then(self, *arguments):
        rehearse(self, *arguments)
        act()

    monkeypatch.setattr(on_workbench._Place, "rehearse", then)


def test_a_version_that_fails_under_the_name_was_never_served(server, monkeypatch):
    deploy(server, 1)
    deploy(server, 2)
    after_the_rehearsal(monkeypatch, lambda: server.switch("deployment-fails"))
    with pytest.raises(WorkbenchError, match="Deployment of version 3 as tests ended as 'failed'"):
        deploy(server, 3)
    server.switch()
    assert answered() == {2.0}
    assert serving.deployed(ENDPOINT).before == 1
    assert serving.roll_back(ENDPOINT, check(1)).version == 1


def test_what_somebody_else_deploys_meanwhile_is_told_and_stays(server, monkeypatch):
    deploy(server, 1)
    serve = on_workbench._Place.serve

    def then_another(self, registered):
        serve(self, registered)
        if self.model.name == ENDPOINT:
            monkeypatch.setattr(on_workbench._Place, "serve", serve)
            deploy(server, 3)

    monkeypatch.setattr(on_workbench._Place, "serve", then_another)
    with pytest.raises(ServingError, match="somebody else deployed or stopped it while"):
        deploy(server, 2)
    assert statuses(server) == {3: "deployed"}


@pytest.mark.parametrize("switch", ["build-fails", "deployment-fails"])
def test_what_failed_at_first_is_made_anew(server, switch):
    server.switch(switch)
    with pytest.raises(WorkbenchError, match="ended as"):
        deploy(server, 1)
    server.switch()
    assert deploy(server, 1).version == 1
    assert answered() == {1.0}


def test_a_deployment_whose_first_answer_is_wrong_is_asked_again(server):
    class Patient(Check):
        def problem(self, answer):
            told = super().problem(answer)
            server.switch()
            return told

    server.switch("wrong-predictions")
    right = check(1)
    assert serving.deploy(ENDPOINT, version(server, 1), Patient(right.rows, right.expected))


@pytest.mark.parametrize(
    ("switch", "told", "cure"),
    [
        ("unauthorized", "with 401", "API Keys"),
        ("forbidden=create_project", "refused create_project with 403", "API Keys"),
        ("registration-fails-later", "Registration of version 1 ended as 'failed'", "05_Auto"),
        (f"name-taken-by-plain-model={ENDPOINT}", "belongs to no registered model", "CMLFLOW_ENDP"),
        ("separate-registry", "has no registered model 'constant'", "05_Auto_Model"),
    ],
)
def test_what_cannot_be_deployed_creates_no_build(server, monkeypatch, switch, told, cure):
    server.switch(switch)
    if switch == "registration-fails-later":
        monkeypatch.setattr(on_workbench, "REGISTRATION_LIMIT_S", 5)
    with pytest.raises((ServingError, WorkbenchError, MissingStep)) as caught:
        for _ in range(4):
            deploy(server, 1)
            serving.stop(ENDPOINT)
    assert told in caught.value.found
    assert cure in caught.value.cure
    server.switch()
    if switch != "registration-fails-later":
        assert server.state()["builds"] == []


def test_a_version_whose_run_is_another_is_refused(server):
    with pytest.raises(WorkbenchError, match="The workbench does not list version 1"):
        serving.deploy(ENDPOINT, Version(NAME, 1, server.runs.ids[1]), check(1))
    assert server.state()["builds"] == []


def test_a_busy_model_is_asked_again_up_to_a_limit(server):
    deploy(server, 1)
    server.switch("model-busy")
    answer = serving.send(ENDPOINT, check(1).payload, limit_s=0.3)
    assert (answer.status, answer.message) == (429, "model.busy")
    timer = threading.Timer(0.3, server.switch)
    timer.start()
    assert answered() == {1.0}
    timer.join()


class TestTwoAtOnce:
    @pytest.mark.parametrize("numbers", [(1, 1), (1, 2)], ids=["the same", "different versions"])
    def test_there_is_one_of_each_and_one_version_serves(self, server, numbers):
        ended = []

        def run(number):
            try:
                ended.append(deploy(server, number).version)
            except (ServingError, WorkbenchError) as error:
                ended.append(error)

        both = [threading.Thread(target=run, args=(number,)) for number in numbers]
        for one in both:
            one.start()
        for one in both:
            one.join()
        state = server.state()
        assert [one["name"] for one in state["projects"]].count("PRD") == 1
        assert [one["name"] for one in state["models"]].count(ENDPOINT) == 1
        served = [one for one in ended if isinstance(one, int)]
        assert served, ended
        (now,) = statuses(server)
        assert answered() == {float(now)}


DEPLOY = """if True:
    import pandas as pd
    from cmlflow import serving
    from cmlflow.registry import Version
    rows = pd.DataFrame({"a": [1.0, 2.0]})
    for number, run in NUMBERS:
        check = serving.Check(rows, pd.Series([number, number], dtype=float).to_numpy())
        serving.deploy("tests", Version("constant", number, run), check)
"""
STAGES = [
    "create_project", "create_model", "create_model_build", "get_model_build",
    "create_model_deployment", "get_model_deployment", "stop_model_deployment", "delete_model",
]  # fmt: skip


@pytest.mark.parametrize("operation", STAGES)
def test_after_a_kill_at_any_stage_the_next_goes_on_from_what_is_there(server, operation):
    """The workbench has done what it was asked for, and the client does not live to see it."""
    first_has_it = operation not in ("stop_model_deployment", "delete_model")
    numbers = [(1, server.runs.ids[0])]
    if not first_has_it:
        deploy(server, 1)
        numbers = [(2, server.runs.ids[1])]
    before = server.state()["requests"].get(operation, 0)
    server.switch(f"holds={operation}")
    environment = in_cml(server.runs.area) | server.environment() | POLL
    code = DEPLOY.replace("NUMBERS", repr(numbers))
    process = start_python(code, server.runs.area, **environment)
    wait_until(
        lambda: server.state()["requests"].get(operation, 0) > before or process.poll(), operation
    )
    assert process.poll() is None, process.stderr.read()
    process.kill()
    finish(process)
    server.switch()
    number = numbers[0][0]
    assert deploy(server, number).version == number
    one_of_each(server, number)
    assert answered() == {float(number)}


@contextlib.contextmanager
def other_service(monkeypatch, redirects_to="", certificate=None):
    """A model service that answers with the request, or sends its client elsewhere."""
    requests = []

    class Repeats(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            requests.append((str(self.headers), body))
            self.send_response(307 if redirects_to else 400)
            if redirects_to:
                self.send_header("Location", redirects_to)
            said = json.dumps({"error": f"no {body} for {self.headers['Authorization']}"}).encode()
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Repeats) as listening:
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            listening.socket = context.wrap_socket(listening.socket, server_side=True)
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        service = f"http{'s' if certificate else ''}://127.0.0.1:{listening.server_port}"
        monkeypatch.setenv("CMLFLOW_MODEL_SERVICE", service)
        try:
            yield requests
        finally:
            listening.shutdown()


def certificate_of_nobody(folder):
    """A file with a key and a certificate that no authority has signed."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(timezone.utc)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(alternative, critical=False)
        .sign(key, hashes.SHA256())
    )
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    pem = serialization.Encoding.PEM
    file = folder / "nobody.pem"
    file.write_bytes(key.private_bytes(pem, *form) + signed.public_bytes(pem))
    return file


class TestKeys:
    def test_they_are_in_no_output_and_no_file(self, server):
        environment = in_cml(server.runs.area) | server.environment() | POLL
        numbers = [(one, server.runs.ids[one - 1]) for one in (1, 2)]
        process = start_python(
            DEPLOY.replace("NUMBERS", repr(numbers)), server.runs.area, **environment
        )
        done = finish(process)
        assert done.returncode == 0, done.stderr
        access_key = server.state()["models"][0]["access_key"]
        files = [path for path in server.runs.area.rglob("*") if path.is_file()]
        texts = [done.stdout, done.stderr, *(path.read_bytes().decode("latin-1") for path in files)]
        for key in (access_key, server.key):
            assert all(key not in text for text in texts)

    @pytest.mark.parametrize(
        "text", ["Bearer {}", "accessKey={}", '"accessKey": "{}"', "at {} now"]
    )
    def test_they_are_taken_out_of_texts(self, monkeypatch, text):
        key = "m" + "a1b2c3d4" * 3 + "e5f6g7h"
        assert len(key) == 32
        assert key not in workbench.without_key(text.format(key))
        monkeypatch.setenv("CDSW_APIV2_KEY", "secret.of.this.user")
        assert "secret" not in workbench.without_key(text.format("secret.of.this.user"))

    @pytest.mark.parametrize("text", ["Bearer {}", "accessKey={}", "{{'accessKey': '{}'}}"])
    def test_one_of_somebody_else_is_taken_out_too(self, text):
        assert "other" not in workbench.without_key(text.format("of.some-other.user"))

    def test_without_one_it_says_where_to_make_it(self, server, monkeypatch):
        monkeypatch.setenv("CDSW_APIV2_KEY", " ")
        with pytest.raises(WorkbenchError, match="CDSW_APIV2_KEY is not set") as caught:
            deploy(server, 1)
        assert "User Settings > API Keys" in caught.value.cure

    @pytest.mark.parametrize("odd", ["\n", "\r", "\u2026"])
    def test_one_that_cannot_be_sent_is_not_shown(self, server, monkeypatch, odd):
        monkeypatch.setenv("CDSW_APIV2_KEY", f"secret.of{odd}this.user")
        with pytest.raises(WorkbenchError, match="CDSW_APIV2_KEY holds a line break") as caught:
            deploy(server, 1)
        assert "secret" not in str(caught.value)
        assert caught.value.__cause__ is None

    def test_a_service_that_repeats_the_request_shows_none(self, server, monkeypatch):
        deploy(server, 1)
        (model,) = server.state()["models"]
        with other_service(monkeypatch) as requests:
            answer = serving.send(ENDPOINT, {"a": 1})
        ((headers, body),) = requests
        assert model["access_key"] in body and server.key in headers
        assert answer.status == 400
        assert "accessKey" in answer.message
        assert not [key for key in (model["access_key"], server.key) if key in str(answer)]

    def test_they_are_not_sent_where_the_service_redirects_to(self, server, monkeypatch):
        deploy(server, 1)
        with other_service(monkeypatch) as elsewhere:
            address = on_workbench.address()
            with other_service(monkeypatch, redirects_to=address) as asked:
                assert serving.send(ENDPOINT, {}).status == 307
        assert (len(asked), elsewhere) == (1, [])

    def test_they_are_not_sent_to_a_server_that_cannot_be_trusted(
        self, server, monkeypatch, tmp_path
    ):
        deploy(server, 1)
        file = certificate_of_nobody(tmp_path)
        with (
            other_service(monkeypatch, certificate=file) as requests,
            pytest.raises(ServingError, match="did not answer: SSLError"),
        ):
            serving.send(ENDPOINT, {})
        assert requests == []

    def test_a_refusal_that_this_client_cannot_read_says_so(self, server, monkeypatch):
        """cmlapi 25.04.17 with urllib3 2.6."""
        monkeypatch.setenv("CMLAPI_URLLIB3_BUG", "1")
        monkeypatch.setattr(workbench, "APPEARS_LIMIT_S", 0.3)
        server.switch("server-error=create_project")
        with pytest.raises(WorkbenchError, match="this cmlapi cannot read why") as caught:
            deploy(server, 1)
        assert "urllib3<2.6" in caught.value.cure


def test_the_address_of_the_model_service_is_that_of_the_workbench(monkeypatch):
    monkeypatch.delenv("CMLFLOW_MODEL_SERVICE", raising=False)
    monkeypatch.setenv("CDSW_API_URL", "http://ml-1.example.org/api/v1")
    assert on_workbench.address() == "http://modelservice.ml-1.example.org/model"
    monkeypatch.setenv("CMLFLOW_MODEL_SERVICE", "https://models.example.org/")
    assert on_workbench.address() == "https://models.example.org/model"


@pytest.mark.parametrize("text", ["0", "nan", "1000", "often"])
def test_a_pause_that_cannot_be_is_named(monkeypatch, text):
    monkeypatch.setenv("CMLFLOW_POLL_SECONDS", text)
    with pytest.raises(Exception, match="CMLFLOW_POLL_SECONDS is") as caught:
        workbench.poll_seconds()
    assert "unset" in caught.value.cure


@pytest.mark.parametrize(
    ("model", "lesson"),
    [(NAME, "05_Auto_Model_Registration.py"), ("CellTwrFail-CLF", "telco/02_api_deployment.py")],
)
def test_what_is_not_registered_names_the_lesson_that_registers_it(server, model, lesson):
    server.switch("separate-registry")
    with pytest.raises(MissingStep, match=f"Run this first:  python code/{lesson}"):
        serving.deploy(ENDPOINT, Version(model, 1, server.runs.ids[0]), check(1.0))


def test_a_new_key_that_another_thread_has_found_is_used_by_all(server, monkeypatch):
    """The request is refused, and when it looks, the old key is known no more."""
    deploy(server, 1)
    answered()
    named = on_workbench._named(ENDPOINT)
    new = on_workbench._KEYS[named]
    asked = on_workbench._access_key

    def access_key(endpoint):  # the first time it is the old one, and then somebody was faster
        monkeypatch.setattr(on_workbench, "_access_key", asked)
        on_workbench._KEYS[named] = new
        return "m" * 32

    monkeypatch.setattr(on_workbench, "_access_key", access_key)
    assert serving.send(ENDPOINT, check(1.0).payload).status == 200
