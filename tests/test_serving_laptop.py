"""Endpoints on a laptop: what serves, what happens during a swap, and what is left behind.

Most tests look at one endpoint that serves version 1: a process takes seconds to start.
"""

import contextlib
import http.client
import json
import multiprocessing
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
from urllib.parse import urlsplit

import cloudpickle
import mlflow
import numpy as np
import pandas as pd
import psutil
import pytest
from conftest import ROOT, clean_environment, finish, start_command, wait_until
from mlflow.models import infer_signature
from servers import alive

from cmlflow import serving, store
from cmlflow.errors import BadInput, MissingStep, ServingError
from cmlflow.registry import Version
from cmlflow.serving import Check, on_laptop

MODEL, ENDPOINT = "times", "tests"
ROWS = pd.DataFrame({"a": [1.0, 2.0, 1 / 3], "b": [0.0, 1.0, 2.0]})
HANGS = -1.0
"""In the column `a`, a value for which no prediction ever comes."""
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # a server cannot import this file


class Times(mlflow.pyfunc.PythonModel):
    """Predicts its factor times the column `a`; or does something else, for the bad ones."""

    def __init__(self, factor=1.0, when_loaded="", when_asked=""):
        self.factor, self.when_loaded, self.when_asked = factor, when_loaded, when_asked

    def load_context(self, context):
        exec(self.when_loaded)

    def predict(self, context, model_input, params=None):
        exec(self.when_asked)
        if (model_input["a"] == HANGS).any():
            threading.Event().wait()
        return model_input["a"].to_numpy() * self.factor + model_input["b"].to_numpy()


VERSIONS = {
    1: Times(1.0),
    2: Times(2.0),
    3: Times(when_loaded="import os; os._exit(7)"),
    4: Times(when_loaded="raise ValueError('no such file of weights')"),
    5: Times(when_loaded="import threading; threading.Event().wait()"),
    6: Times(when_asked="import os; os._exit(7)"),
    7: Times(8.0),  # a good one, but not what the test says that it is
    8: Times(2.0),  # its files will be damaged
}
runs: dict[int, str] = {}


@pytest.fixture(scope="module")
def area(module_work):
    """A working area whose registry has the versions; it is that of this process meanwhile."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(clean_environment(module_work))
    store.use_store("serving")
    mlflow.set_experiment("serving")
    for number, model in VERSIONS.items():
        with mlflow.start_run() as run:
            logged = mlflow.pyfunc.log_model(
                "model",
                python_model=model,
                signature=infer_signature(ROWS, ROWS["a"]),
                pip_requirements=["mlflow"],
            )
        registered = mlflow.register_model(logged.model_uri, MODEL)
        assert int(registered.version) == number
        runs[number] = run.info.run_id
    yield module_work
    on_laptop.stop_all()
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def serves_1(area):
    """The endpoint that serves version 1 before the test and after it, and no other process."""
    yield deploy(ENDPOINT, 1)
    deploy(ENDPOINT, 1)
    on_laptop.stop_all(keep=[ENDPOINT])
    assert len(processes()) == 1


@pytest.fixture
def another(area):
    """The name of an endpoint that does not exist before and after the test."""
    yield "Another/../ä one"
    on_laptop.stop("Another/../ä one")


def version(number):
    return Version(MODEL, number, runs[number])


def check(factor):
    return Check(ROWS, ROWS["a"].to_numpy() * factor + ROWS["b"].to_numpy())


def deploy(endpoint, number):
    return serving.deploy(endpoint, version(number), check(number))


def port_of(deployment):
    found = urlsplit(deployment.address)
    assert (found.hostname, found.path) == ("127.0.0.1", "/invocations")
    return found.port


def facts_of(endpoint):
    return json.loads(on_laptop._file(endpoint).read_text(encoding="utf-8"))


def processes(endpoint=None):
    """The servers of this working area that run, as the process table shows them."""
    found, area = [], os.environ["CMLFLOW_WORKAREA"]
    for one in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = one.cmdline()
            if area in words and endpoint in (None, words[-1]):
                found.append(one)
    return alive(found)


def listening_ports(process):
    found = process.net_connections(kind="inet")
    return {one.laddr.port for one in found if one.status == psutil.CONN_LISTEN}


def post(port, payload, path="/invocations", **headers):
    """Send JSON as any program does; return the status and the parsed answer."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as client:
        body = json.dumps(payload)
        client.request("POST", path, body, {"Content-Type": "application/json"} | headers)
        answer = client.getresponse()
        return answer.status, json.loads(answer.read())


class TestAnswers:
    def test_they_are_those_of_the_model_whose_version_and_run_it_names(self, serves_1):
        model = mlflow.pyfunc.load_model(version(1).uri)
        difference = serving.call(ENDPOINT, ROWS) - model.predict(ROWS)
        assert np.abs(difference).max() <= 1e-9
        assert (serves_1.model, serves_1.version, serves_1.run_id) == (MODEL, 1, runs[1])
        assert serving.deployed(ENDPOINT).run_id == runs[1]

    def test_a_version_whose_files_are_of_another_run_does_not_take_the_name(self, serves_1):
        wrong = Version(MODEL, 2, runs[7])
        with pytest.raises(ServingError, match=f"its model is of run {runs[2]}"):
            serving.deploy(ENDPOINT, wrong, check(2))
        assert serving.deployed(ENDPOINT).run_id == runs[1]

    @pytest.mark.parametrize(
        ("payload", "status", "told"),
        [
            (check(1).payload["dataframe_split"], 400, "exactly one of the input fields"),
            ({"dataframe_split": {"columns": ["a"], "data": [[1.0]]}}, 400, r"missing inputs.*b"),
            ({"dataframe_records": [{"a": "much", "b": 1.0}]}, 400, "much"),
            ({"dataframe_split": {"columns": ["b", "a"], "data": [[1.0, 5.0]]}}, 200, None),
        ],
        ids=["no wrapper", "a missing column", "text in a number", "another order"],
    )
    def test_a_wrong_request_is_refused_by_what_is_wrong_with_it(
        self, serves_1, payload, status, told
    ):
        answer = serving.send(ENDPOINT, payload)
        assert answer.status == status
        if told is None:
            assert answer.predictions().tolist() == [6.0]
        else:
            assert re.search(told, answer.message)
        assert post(port_of(serves_1), payload) == (status, answer.body)

    def test_a_missing_value_reaches_the_model(self, serves_1):
        rows = pd.DataFrame({"a": [float("nan")], "b": [1.0]})
        payload = {"dataframe_split": rows.to_dict(orient="split", index=False)}
        assert serving.send(ENDPOINT, payload).status == 200

    def test_no_proxy_is_asked(self, serves_1, monkeypatch):
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        assert serving.call(ENDPOINT, ROWS)[0] == 1.0

    @pytest.mark.parametrize(
        ("endpoint", "lesson"),
        [("nothing", "20_Deploy_Model.py"), ("CellTwrFail-CLF", "telco/02_api_deployment.py")],
    )
    def test_without_an_endpoint_the_lesson_to_run_first_is_named(self, area, endpoint, lesson):
        assert serving.deployed(endpoint) is None
        assert not serving.stop(endpoint)
        with pytest.raises(MissingStep) as caught:
            serving.send(endpoint, {})
        assert str(caught.value).endswith(f"python code/{lesson}")


class TestReplace:
    def test_the_same_version_again_changes_nothing(self, serves_1):
        (before,) = processes(ENDPOINT)
        facts = facts_of(ENDPOINT)
        assert deploy(ENDPOINT, 1) == serving.deployed(ENDPOINT)
        assert processes(ENDPOINT) == [before] and facts_of(ENDPOINT) == facts

    def test_the_same_number_of_another_model_is_another_version(self, serves_1):
        other = Version("another model", 1, runs[1])
        with pytest.raises(ServingError, match="cannot be read") as caught:
            serving.deploy(ENDPOINT, other, check(1))
        assert f"version 1 of '{MODEL}' (run {runs[1]}) still serves" in caught.value.expected

    def test_a_new_version_takes_the_port_and_rolling_back_is_the_one_before(self, serves_1):
        """Clients that have connected already are answered, by the version that serves."""
        silent = http.client.HTTPConnection("127.0.0.1", port_of(serves_1), timeout=60)
        silent.connect()  # and says nothing until two other versions have served
        kept = http.client.HTTPConnection("127.0.0.1", port_of(serves_1), timeout=60)
        body, kind = json.dumps(check(1).payload), {"Content-Type": "application/json"}
        answers = []

        def ask(client):
            client.request("POST", "/invocations", body, kind)
            answers.append(json.loads(client.getresponse().read())["predictions"][0])

        ask(kept)
        (old,) = processes(ENDPOINT)
        second = deploy(ENDPOINT, 2)
        assert (second.version, second.before, second.address) == (2, 1, serves_1.address)
        assert not old.is_running() or old.status() == psutil.STATUS_ZOMBIE
        ask(kept)
        back = serving.roll_back(ENDPOINT, check(1))
        assert (back.version, back.before, back.address) == (1, 2, serves_1.address)
        ask(kept)
        assert answers == [1.0, 2.0, 1.0]
        silent.close()

    def test_without_a_version_before_there_is_no_way_back(self, serves_1, another):
        with pytest.raises(MissingStep, match="does not answer"):
            serving.roll_back(another, check(1))
        deploy(another, 1)
        with pytest.raises(ServingError, match="has served no other version"):
            serving.roll_back(another, check(1))
        assert serving.deployed(another).version == 1

    @pytest.mark.parametrize(
        ("number", "told"),
        [
            (3, "its process has ended without a word"),
            (4, "ValueError: no such file of weights"),
            (5, "no answer within 8 s"),
            (6, "no answer to the check"),
            (7, r"Row 1 of the check: 8\.0 instead of 7\.0"),
            (8, "cannot be read|No such file|FileNotFoundError|Exception"),
        ],
        ids=["dies", "cannot be loaded", "hangs", "dies when asked", "is wrong", "is damaged"],
    )
    def test_a_version_that_is_not_right_never_takes_the_name(
        self, serves_1, monkeypatch, number, told
    ):
        if number == 5:
            monkeypatch.setattr(on_laptop, "READY_LIMIT_S", 8)
        if number == 8:
            files = mlflow.artifacts.download_artifacts(artifact_uri=version(8).uri)
            os.remove(os.path.join(files, "python_model.pkl"))
        before, facts = processes(ENDPOINT), facts_of(ENDPOINT)
        with pytest.raises(ServingError) as caught:
            serving.deploy(ENDPOINT, version(number), check(7.0))
        assert len(str(caught.value).splitlines()) == 3
        assert re.search(told, caught.value.found)
        assert f"version 1 of '{MODEL}' (run {runs[1]}) still serves" in caught.value.expected
        assert facts["token"] not in str(caught.value)
        assert serving.call(ENDPOINT, ROWS)[0] == 1.0
        assert processes(ENDPOINT) == before and facts_of(ENDPOINT) == facts

    def test_a_first_version_that_is_not_right_leaves_nothing(self, another):
        with pytest.raises(ServingError, match="ValueError: no such file of weights") as caught:
            deploy(another, 4)
        assert "still serves" not in str(caught.value)
        assert serving.deployed(another) is None
        assert processes(another) == []

    def test_no_request_is_lost_and_none_is_stale_during_five_swaps(self, serves_1):
        """Eight clients without any retry: four keep their connection, four open new ones."""
        body, stop = json.dumps(check(1).payload), threading.Event()
        phase, wrong, counts = (0, {1.0}), [], [0] * 8

        def send(client):
            connection = http.client.HTTPConnection("127.0.0.1", port_of(serves_1), timeout=60)
            while not stop.wait(0.01):
                begun = phase
                try:
                    connection.request(
                        "POST", "/invocations", body, {"Content-Type": "application/json"}
                    )
                    answer = connection.getresponse()
                    (first, *_) = json.loads(answer.read())["predictions"]
                    if answer.status != 200 or (phase is begun and first not in begun[1]):
                        wrong.append(f"{first} in phase {begun}")
                    counts[client] += 1
                except Exception as error:
                    wrong.append(repr(error))
                if client < 4:
                    connection.close()

        clients = [threading.Thread(target=send, args=(client,)) for client in range(8)]
        for client in clients:
            client.start()
        try:
            for swap, number in enumerate((2, 1, 2, 1, 2)):
                phase = (2 * swap + 1, {1.0, 2.0})
                deploy(ENDPOINT, number)
                phase = (2 * swap + 2, {float(number)})
                goal = [count + 5 for count in counts]
                wait_until(
                    lambda goal=goal: all(np.array(counts) > goal), "five answers for each client"
                )
        finally:
            stop.set()
            for client in clients:
                client.join()
        assert wrong == []

    def test_a_long_prediction_survives_the_swap(self, another, monkeypatch):
        """MLflow ends this one after a second; the old process waits for that, then it ends."""
        monkeypatch.setenv("MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT", "6")
        port = port_of(deploy(another, 1))
        (old,) = processes(another)
        answers = []

        def ask():
            payload = {"dataframe_records": [{"a": HANGS, "b": 0.0}]}
            with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port)) as client:
                headers = {"Content-Type": "application/json"}
                client.request("POST", "/invocations", json.dumps(payload), headers)
                answers.append(client.getresponse().status)

        asking = threading.Thread(target=ask)
        asking.start()
        deploy(another, 2)
        asking.join()
        assert answers == [504]
        wait_until(lambda: alive([old]) == [], "the end of the old process", limit=30)

    def test_a_process_that_is_silent_is_named_and_goes_on(self, serves_1, monkeypatch):
        monkeypatch.setattr(on_laptop, "ANSWER_LIMIT_S", 0.5)
        (process,) = processes(ENDPOINT)
        process.suspend()
        try:
            with pytest.raises(ServingError, match=rf"\({process.pid}\) does not answer") as caught:
                deploy(ENDPOINT, 2)
            with pytest.raises(ServingError, match="has ended, or is busy"):
                serving.send(ENDPOINT, check(1).payload, limit_s=0.2)
        finally:
            process.resume()
        assert caught.value.cure.endswith("make stop")
        assert serving.call(ENDPOINT, ROWS)[0] == 1.0
        assert processes(ENDPOINT) == [process]

    def test_two_who_deploy_at_once_do_it_one_after_the_other_or_say_so(
        self, serves_1, another, monkeypatch
    ):
        monkeypatch.setattr(on_laptop, "LOCK_LIMIT_S", 0)
        results = []

        def run(number):
            try:
                results.append(str(deploy(another, number).version))
            except ServingError as error:
                results.append(error.found)

        both = [threading.Thread(target=run, args=(number,)) for number in (1, 2)]
        for one in both:
            one.start()
        for one in both:
            one.join()
        refused = f"Somebody else deploys the endpoint {another!r} at this moment."
        (served,) = [one for one in results if one != refused]
        assert refused in results
        assert str(serving.deployed(another).version) == served
        assert len(processes(another)) == 1


class TestSecrets:
    def test_only_this_user_can_read_facts_and_log(self, serves_1):
        for ending in (".json", ".log"):
            assert stat.S_IMODE(on_laptop._file(ENDPOINT, ending).stat().st_mode) == 0o600

    def test_the_token_is_in_no_command_line_answer_or_other_file(self, serves_1, area):
        facts = facts_of(ENDPOINT)
        (process,) = processes(ENDPOINT)
        assert len(facts["token"]) == 64
        shown = [*process.cmdline(), *process.environ().values(), str(serves_1)]
        shown += [
            file.read_text(errors="replace")
            for file in (area / "endpoints").iterdir()
            if file != on_laptop._file(ENDPOINT)
        ]
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", facts["port"])) as client:
            client.request("GET", "/deployment")
            answer = client.getresponse()
            shown += [str(answer.headers), answer.read().decode()]
        assert not any(facts["token"] in text for text in shown)

    def test_it_listens_on_this_machine_only(self, serves_1):
        (process,) = processes(ENDPOINT)
        listening = [one for one in process.net_connections() if one.status == psutil.CONN_LISTEN]
        assert {one.laddr.ip for one in listening} == {"127.0.0.1"}
        assert {one.laddr.port for one in listening} == {
            facts_of(ENDPOINT)[name] for name in ("port", "control")
        }

    @pytest.mark.parametrize("order", ["start", "serve", "hand_over", "end", "else"])
    def test_without_the_token_or_at_the_public_port_no_order_is_followed(self, serves_1, order):
        facts, before = facts_of(ENDPOINT), processes()
        for port, token in (
            (facts["control"], ""),
            (facts["control"], "x" * 64),
            (facts["control"], facts["token"][:-1]),
            (facts["port"], facts["token"]),
        ):
            assert post(port, {}, f"/control/{order}", **{"X-Token": token})[0] == 403
        assert processes() == before
        assert serving.call(ENDPOINT, ROWS)[0] == 1.0


class TestNames:
    def test_any_name_is_a_file_of_its_own_in_the_folder(self, area):
        names = ["../x", "a/b", "", "x" * 300, "x" * 301, "Ä ö", "a_b", "a b", "A", "a", "\ud800"]
        files = [on_laptop._file(name) for name in names]
        assert {file.parent for file in files} == {area / "endpoints"}
        assert len({file.name.lower() for file in files}) == len(names)
        assert all(len(file.name) < 100 for file in files)

    @pytest.mark.parametrize("name", ["", " ", "x" * 201, "a\0b", "a\nb", "\ud800"])
    def test_a_name_that_cannot_be_is_refused_before_anything_starts(self, area, name):
        before = processes()
        with pytest.raises(BadInput, match="is no name for an endpoint"):
            deploy(name, 1)
        assert processes() == before


class TestFacts:
    @pytest.mark.parametrize("text", ["", "{", "[]", '{"port": 1}', "\0"])
    def test_a_damaged_file_is_named_with_the_cure(self, serves_1, text):
        file = on_laptop._file(ENDPOINT)
        whole = file.read_text()
        file.write_text(text)
        try:
            for act in (serving.deployed, lambda name: deploy(name, 2)):
                with pytest.raises(ServingError, match="holds no facts") as caught:
                    act(ENDPOINT)
                assert str(file) in caught.value.found and "make stop" in caught.value.cure
        finally:
            file.write_text(whole)

    def test_what_a_damaged_file_is_about_is_ended_all_the_same(self, serves_1, another):
        deploy(another, 1)
        on_laptop._file(another).write_text("{")
        assert on_laptop.stop_all(keep=[ENDPOINT]) == [another]
        assert processes(another) == [] and serving.deployed(another) is None
        assert serving.deployed(ENDPOINT).version == 1

    def test_a_process_id_that_went_to_another_program_is_left_alone(self, serves_1, another):
        """Of the next start, after a power cut: its facts name a process and ports of others."""
        with (
            subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other,
            socket.create_server(("127.0.0.1", 0)) as closed,
        ):
            port = closed.getsockname()[1]
            closed.close()
            facts = facts_of(ENDPOINT) | {"endpoint": another, "pid": other.pid}
            file = on_laptop._file(another)
            file.write_text(json.dumps(facts | {"port": port, "control": port}))
            assert serving.deployed(another) is None
            assert not serving.stop(another)
            file.write_text(json.dumps(facts | {"port": port, "control": port}))
            assert on_laptop.stop_all(keep=[ENDPOINT]) == []
            assert not file.exists()
            assert other.poll() is None
            other.communicate(b"\n")

    def test_a_program_that_got_the_port_is_not_taken_for_the_endpoint(self, serves_1, another):
        facts = facts_of(ENDPOINT)  # the other program: an endpoint with another name, say
        on_laptop._file(another).write_text(json.dumps(facts | {"endpoint": another}))
        assert serving.deployed(another) is None
        with pytest.raises(ServingError, match="does not answer"):
            serving.send(another, check(1).payload)
        assert not serving.stop(another)
        assert serving.deployed(ENDPOINT).version == 1

    def test_another_working_area_sees_nothing_of_it(self, serves_1, tmp_path, monkeypatch):
        (tmp_path / "endpoints").mkdir()
        monkeypatch.setenv("CMLFLOW_WORKAREA", str(tmp_path))
        assert serving.deployed(ENDPOINT) is None
        assert on_laptop.running() == on_laptop.stop_all() == []
        assert not serving.stop(ENDPOINT)
        shutil.copy(area_file(serves_1), on_laptop._file(ENDPOINT))  # not even by its facts
        assert serving.deployed(ENDPOINT) is None
        assert on_laptop.stop_all() == []
        assert post(port_of(serves_1), check(1).payload)[0] == 200


def area_file(deployment):
    """The facts of the endpoint in the working area of the module, whatever the present one is."""
    (process,) = [
        one
        for one in psutil.process_iter()
        if port_of(deployment) in listening_ports_or_none(one) and one.cmdline()[-1] == ENDPOINT
    ]
    return os.path.join(process.cmdline()[-2], "endpoints", f"{ENDPOINT}.json")


def listening_ports_or_none(process):
    with contextlib.suppress(psutil.Error):
        return listening_ports(process)
    return set()


class TestKill:
    """kill -9 of the process that deploys; then the next one, or `stop`, clears up."""

    @staticmethod
    def has_begun():
        return len(processes(ENDPOINT)) == 2

    @staticmethod
    def is_ready():
        """The new process answers at its own port."""
        known = facts_of(ENDPOINT)["pid"]
        for process in processes(ENDPOINT):
            for port in listening_ports_or_none(process) - {facts_of(ENDPOINT)["port"]}:
                with contextlib.suppress(OSError, http.client.HTTPException):
                    asked = on_laptop.laptop_server.ask(port, "/ping", limit_s=0.2)
                    if process.pid != known and asked[0] == 200:
                        return True
        return False

    @staticmethod
    def has_handed_over():
        return facts_of(ENDPOINT)["version"] == 2

    @pytest.mark.parametrize("stage", ["has_begun", "is_ready", "has_handed_over"])
    def test_one_version_serves_and_the_next_goes_on(self, serves_1, stage):
        first = os.getpid()
        deployer = multiprocessing.get_context("fork").Process(target=deploy, args=(ENDPOINT, 2))
        deployer.start()
        assert deployer.pid != first
        wait_until(getattr(self, stage), stage)
        deployer.kill()
        deployer.join()
        wait_until(lambda: serving.deployed(ENDPOINT) is not None, "an answer")
        now = serving.deployed(ENDPOINT)
        assert now.address == serves_1.address
        if stage == "has_handed_over":
            assert now.version == 2
        else:
            assert now.version == 1 or stage == "is_ready"
        assert serving.call(ENDPOINT, ROWS)[0] == now.version
        if stage == "has_begun":
            assert serving.stop(ENDPOINT)
            assert processes(ENDPOINT) == []
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port_of(now))).close()
            return
        assert deploy(ENDPOINT, 2).version == 2
        wait_until(lambda: len(processes(ENDPOINT)) == 1, "the end of what was left over")

    def test_after_the_end_of_its_process_the_next_takes_the_same_port(self, serves_1):
        for one in processes(ENDPOINT):
            one.kill()
        wait_until(lambda: processes(ENDPOINT) == [], "its end")
        assert serving.deployed(ENDPOINT) is None
        with pytest.raises(ServingError, match="does not answer"):
            serving.send(ENDPOINT, check(1).payload)
        assert deploy(ENDPOINT, 1).address == serves_1.address

    def test_a_first_one_that_was_never_finished_is_ended_by_stop(self, another):
        deployer = multiprocessing.get_context("fork").Process(target=deploy, args=(another, 5))
        deployer.start()
        wait_until(lambda: len(processes(another)) == 1, "the new process")
        deployer.kill()
        deployer.join()
        assert serving.deployed(another) is None
        assert serving.stop(another)
        assert processes(another) == []


class TestTheEnd:
    def test_it_belongs_to_no_terminal(self, serves_1):
        (process,) = processes(ENDPOINT)
        assert os.getsid(process.pid) == process.pid
        assert process.terminal() is None

    def test_it_ends_by_itself_after_its_lifetime_whatever_it_does(self, another, monkeypatch):
        monkeypatch.setenv("MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT", "1")
        monkeypatch.setenv("CMLFLOW_ENDPOINT_HOURS", str(3 / 3600))
        deployment = deploy(another, 1)
        assert 0 < deployment.ends.timestamp() - time.time() < 3
        payload = {"dataframe_records": [{"a": HANGS, "b": 0.0}]}
        assert serving.send(another, payload).status == 504  # its thread never ends
        wait_until(lambda: processes(another) == [], "the end of the lifetime", limit=60)
        assert time.time() >= deployment.ends.timestamp()
        assert serving.deployed(another) is None

    @pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "1e9", "a day"])
    def test_a_lifetime_that_cannot_be_is_refused_before_anything_starts(
        self, area, another, monkeypatch, text
    ):
        monkeypatch.setenv("CMLFLOW_ENDPOINT_HOURS", text)
        with pytest.raises(BadInput, match="CMLFLOW_ENDPOINT_HOURS is"):
            deploy(another, 1)
        assert processes(another) == []

    def test_the_tutorial_ends_what_its_lessons_started_and_nothing_else(
        self, serves_1, area, tmp_path
    ):
        (tmp_path / "code").mkdir()
        lesson = (
            '"""01 - A lesson of the test"""\n'
            "import pandas as pd\n"
            "from cmlflow import serving\nfrom cmlflow.registry import Version\n"
            "rows = pd.DataFrame({'a': [1.0], 'b': [0.0]})\n"
            f"version = Version({MODEL!r}, 1, {runs[1]!r})\n"
            "serving.deploy('by a lesson', version, serving.Check(rows, [1.0]))\n"
            "raise RuntimeError('then it failed')\n"
        )
        (tmp_path / "code" / "01_lesson.py").write_text(lesson)
        script = shutil.copy(ROOT / "tutorial.py", tmp_path)
        uri = mlflow.get_tracking_uri()
        done = finish(
            start_command(sys.executable, str(script), work=area, MLFLOW_TRACKING_URI=uri)
        )
        assert "then it failed" in done.stdout
        assert done.stdout.count("The endpoint by a lesson is stopped") == 1
        assert ENDPOINT not in re.findall(r"The endpoint (.*) is stopped", done.stdout)
        assert processes("by a lesson") == []
        assert serving.deployed(ENDPOINT).version == 1

    def test_a_python_without_packages_asks_it_to_end(self, area, another):
        deploy(another, 1)
        facts = facts_of(another)
        command = [sys._base_executable, "-m", "cmlflow.serving", "--stop"]
        done = subprocess.run(
            command, env=clean_environment(area), cwd=ROOT, capture_output=True, text=True
        )
        assert f"Stopped {another}\n" in done.stdout, done.stderr
        wait_until(lambda: processes(another) == [], "the end of its process")
        assert not on_laptop._file(another).exists()
        assert facts["token"] not in done.stdout + done.stderr


def test_make_stop_and_clean_end_all_of_the_area_and_say_so(area):
    deploy(ENDPOINT, 1)
    environment = clean_environment(area, PYTHONWARNINGS="ignore")
    stop = ["make", "--no-print-directory", "stop"]
    for told in (f"Stopped {ENDPOINT}\n", "Nothing to stop\n"):
        done = subprocess.run(stop, env=environment, cwd=ROOT, capture_output=True, text=True)
        assert done.stdout == told, done.stderr
        assert processes() == []
    deploy(ENDPOINT, 2)
    clean = [sys.executable, str(ROOT / "tutorial.py"), "--clean"]
    done = subprocess.run(clean, env=environment, capture_output=True, text=True)
    assert done.stdout.splitlines()[0].startswith(f"The endpoint {ENDPOINT} is stopped")
    assert f"Removed {area}/endpoints\n" in done.stdout
    assert processes() == [] and not (area / "endpoints").exists()
