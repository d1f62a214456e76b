"""The MLflow UI as CML starts it: over HTTP, in a kernel, in a browser, and after its end."""

import contextlib
import functools
import html
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys

import mlflow
import psutil
import pytest
import servers
from browser import Browser
from conftest import LIMIT, ROOT, STANDINS, Kernel, clean_environment, client_of, wait_until
from servers import alive, ask, family_of, listening

from cmlflow import store
from cmlflow.processes import free_port

SCRIPT = ROOT / "cml" / "mlflow_ui.py"


def standin(name):
    """The variable that puts a stand-in in front of what Python finds otherwise."""
    found = [str(STANDINS / name), os.environ.get("PYTHONPATH")]
    return {"PYTHONPATH": os.pathsep.join(filter(None, found))}


SKINNY = standin("no_flask")  # as with mlflow-skinny
DOMAIN = "ml-1234.example.cloudera.site"
OWN_NAME = f"mlflow-ui.{DOMAIN}"
MODEL = "A Registered Model"  # a name with spaces
CHECKS_HOSTS = int(mlflow.__version__.split(".")[0]) >= 3  # MLflow 2 answers everybody
IN_CML = {
    "MLFLOW_TRACKING_URI": "cml://localhost",
    "CDSW_DOMAIN": DOMAIN,
    "CDSW_PROJECT_ID": "abcd-efgh-ijkl-mnop",
    "CDSW_PROJECT": "wine & <b>more</b>",
    "CDSW_APIV2_KEY": "a-key-that-nobody-may-see",
}


application = functools.partial(servers.application, SCRIPT)


def run_to_its_error(work, **extra):
    """Start the script where it must fail; return the lines of its message."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT)],
        cwd=work,
        env=clean_environment(work, **extra),
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode != 0
    return done.stderr.rstrip().splitlines()[-3:]


@pytest.fixture(scope="module")
def ui(tmp_path_factory):
    """The UI of a new, empty working area, on a workbench without TLS; then runs are logged.

    The variable of the allowed names is there, but empty, as a form leaves it.
    """
    work = tmp_path_factory.mktemp("ui")
    workbench = {"CDSW_DOMAIN": DOMAIN, "CDSW_API_URL": f"http://{DOMAIN}/api/v1"}
    workbench |= {"CDSW_IP_ADDRESS": "100.64.1.2", "MLFLOW_SERVER_ALLOWED_HOSTS": ""}
    with application(work, free_port(), **workbench) as started:
        client = client_of(work)
        folder = (work / "mlartifacts" / "seen").as_uri()
        started.experiment_id = client.create_experiment("seen-in-the-ui", folder)
        started.runs = {}
        for name, rmse in (("without", None), ("better", 0.822), ("worse", 0.85)):
            run = client.create_run(started.experiment_id, run_name=f"{name}-run")
            if rmse:
                client.log_metric(run.info.run_id, "rmse", rmse)
            client.log_text(run.info.run_id, f"features of {name}", "states/features.txt")
            client.set_terminated(run.info.run_id)
            started.runs[name] = client.get_run(run.info.run_id)
        client.create_registered_model(MODEL)
        source = f"{started.runs['better'].info.artifact_uri}/model"
        version = client.create_model_version(MODEL, source, run.info.run_id)
        client.set_registered_model_alias(MODEL, "champion", version.version)
        yield started


class TestOverHttp:
    def test_the_root_answers_200_as_the_platform_expects(self, ui):
        status, text = ask(ui.port)
        assert status == 200
        assert "<title>MLflow</title>" in text

    @pytest.mark.parametrize(
        "host",
        [
            *("127.0.0.1:{port}", "localhost", "localhost:{port}"),
            *(OWN_NAME, f"{OWN_NAME}:443", "100.64.1.2:{port}"),
        ],
    )
    def test_it_answers_to_its_own_names(self, ui, host):
        assert ask(ui.port, Host=host.format(port=ui.port))[0] == 200

    @pytest.mark.parametrize(
        "host",
        ["evil.example", f"{OWN_NAME}.evil.example", f"evil{DOMAIN}", "10.0.0.1.evil.example"],
    )
    def test_it_refuses_other_names(self, ui, host):
        assert ask(ui.port, Host=host)[0] == (403 if CHECKS_HOSTS else 200)

    @pytest.mark.parametrize(
        ("origin", "allowed"),
        [
            (f"https://{OWN_NAME}", True),
            (f"http://{OWN_NAME}", True),  # CDSW_API_URL says that this workbench has no TLS
            ("https://evil.example", False),
            (f"https://{OWN_NAME}.evil.example", False),
        ],
    )
    def test_pages_of_other_origins_change_nothing(self, ui, origin, allowed):
        request = '{"experiment_id": "%s", "key": "seen_by", "value": "%s"}'
        status, _ = ask(
            ui.port,
            "/api/2.0/mlflow/experiments/set-experiment-tag",
            "POST",
            request % (ui.experiment_id, origin),
            **{"Host": OWN_NAME, "Origin": origin, "Content-Type": "application/json"},
        )
        assert status == (200 if allowed or not CHECKS_HOSTS else 403)
        tags = client_of(ui.work).get_experiment(ui.experiment_id).tags
        assert (tags.get("seen_by") == origin) == (status == 200)

    def test_it_listens_on_this_machine_only(self, ui):
        assert listening(ui.process) == {("127.0.0.1", ui.port)}

    def test_artifacts_of_a_run_can_be_read(self, ui):
        run_id = ui.runs["better"].info.run_id
        path = f"/get-artifact?path=states/features.txt&run_uuid={run_id}"
        assert ask(ui.port, path) == (200, "features of better")

    def test_it_takes_no_uploads(self, ui):
        upload = "/api/2.0/mlflow-artifacts/artifacts/upload.txt"
        assert ask(ui.port, upload, "PUT", "text")[0] == 503
        assert not list(ui.work.rglob("upload.txt")) + list(ROOT.rglob("mlartifacts/upload.txt"))

    def test_an_experiment_made_in_the_ui_keeps_its_artifacts_in_the_working_area(self, ui):
        create = "/api/2.0/mlflow/experiments/create"
        body = '{"name": "made-in-the-ui"}'
        assert ask(ui.port, create, "POST", body, **{"Content-Type": "application/json"})[0] == 200
        made = client_of(ui.work).get_experiment_by_name("made-in-the-ui")
        assert made.artifact_location.startswith((ui.work / "mlartifacts").as_uri())

    def test_the_log_says_where_it_is_and_what_to_choose_there(self, ui):
        log = ui.log.read_text()
        assert f"MLflow UI: http://127.0.0.1:{ui.port} (stop with Ctrl+C)\n" in log
        assert ("choose Model training at the top left, once" in log) == CHECKS_HOSTS

    def test_it_is_light(self, ui):
        members = family_of(ui.process)
        assert len(members) <= 4
        assert sum(member.memory_info().rss for member in members) < 0.6e9


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A browser that finds the workbench on this machine, and nothing else."""
    profile = tmp_path_factory.mktemp("profile")
    with contextlib.closing(Browser.of_this_machine(profile, OWN_NAME)) as opened:
        yield opened


class TestInABrowser:
    @pytest.mark.parametrize("name", ["127.0.0.1", OWN_NAME])
    def test_it_shows_the_experiment_and_its_runs(self, ui, browser, name):
        """The runs are fetched with POST: they are missing if the own origin is refused."""
        page = f"#/experiments/{ui.experiment_id}" + "/runs" * CHECKS_HOSTS
        browser.text_of(f"http://{name}:{ui.port}/{page}", "seen-in-the-ui", "better-run")

    @pytest.mark.skipif(not CHECKS_HOSTS, reason="links are for the UI of MLflow 3")
    @pytest.mark.parametrize(
        ("page", "expected"),
        [
            (lambda ui: store.run_page(ui.runs["better"]), ["better-run", "0.822", "About this"]),
            (
                lambda ui: store.run_page(ui.runs["better"], "model-metrics"),
                ["better-run", "Add chart", "rmse"],
            ),
            (lambda ui: store.run_page(ui.runs["better"], "artifacts"), ["better-run", "states"]),
            (
                lambda ui: store.run_page(ui.runs["better"], "artifacts/states/features.txt"),
                ["better-run", "features of better"],
            ),
            (
                lambda ui: store.runs_page(ui.experiment_id),
                ["Sort: Created", "better-run", "worse-run", "without-run"],
            ),
            (
                lambda ui: store.compare_page([ui.runs["better"], ui.runs["worse"]]),
                ["Comparing 2 Runs from 1 Experiment", "better-run", "worse-run"],
            ),
            (lambda ui: store.model_page(MODEL), [MODEL, "Version 1", "champion"]),
            (lambda ui: store.model_page(MODEL, 1), [MODEL, "Version 1", "Schema", "champion"]),
        ],
        ids=[
            *("a run", "its metrics", "its artifacts", "one artifact"),
            *("the runs", "two compared", "a model", "a version"),
        ],
    )
    def test_a_link_that_lessons_print_opens_the_page_it_promises(
        self, ui, browser, page, expected
    ):
        browser.text_of(f"http://127.0.0.1:{ui.port}/{page(ui)}", *expected)

    @pytest.mark.skipif(not CHECKS_HOSTS, reason="links are for the UI of MLflow 3")
    def test_a_link_to_sorted_runs_puts_the_smallest_value_first(self, ui, browser):
        page = store.runs_page(ui.experiment_id, lowest_first="rmse")
        text = browser.text_of(
            f"http://127.0.0.1:{ui.port}/{page}", "Sort: rmse", "better-run", "without-run"
        )
        shown = re.findall(r"^(\w+)-run$", text, re.MULTILINE)
        assert shown == ["better", "worse", "without"]


class TestItEnds:
    @pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
    def test_the_page_ends_with_the_script(self, tmp_path, sign):
        self.end_with(tmp_path, sign, **SKINNY)

    def test_the_ui_ends_with_the_script_even_if_that_is_killed(self, work):
        self.end_with(work, signal.SIGKILL)

    def end_with(self, area, sign, **kind):
        with application(area, free_port(), **kind) as started:
            assert len(started.members) == 2  # the script and the server
            started.process.send_signal(sign)
            wait_until(lambda: not alive(started.members), f"the end of both after {sign.name}")
            assert ask(started.port)[0] is None

    def test_the_server_ends_if_all_that_stands_before_it_is_killed_at_once(self, tmp_path):
        with application(tmp_path, free_port(), **SKINNY) as started:
            *others, server = started.members
            assert {tuple(each.laddr) for each in server.net_connections()} == {
                ("127.0.0.1", started.port)
            }
            for other in others:
                other.kill()
            wait_until(lambda: not alive([server]), "the end of the server")

    def test_ctrl_c_is_no_error(self, tmp_path):
        with application(tmp_path, free_port(), **SKINNY) as started:
            started.process.send_signal(signal.SIGINT)
            assert started.process.wait(LIMIT) == 0
            assert started.log.read_text().splitlines()[-1] == "Stopped"

    def test_a_server_that_ends_by_itself_is_an_error(self, tmp_path):
        with application(tmp_path, free_port(), **SKINNY) as started:
            started.members[-1].kill()
            assert started.process.wait(LIMIT) != 0
            *_, problem, expected, command = started.log.read_text().splitlines()
        assert f"The server on port {started.port} ended by itself" in problem
        assert expected.startswith("Expected: ")
        assert command.endswith("run:  python cml/mlflow_ui.py")


class TestErrors:
    def test_a_port_in_use_is_named_with_another(self, tmp_path):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            problem, expected, command = run_to_its_error(tmp_path, CDSW_APP_PORT=str(port))
        assert (
            f"No server can listen on port {port} of 127.0.0.1: Address already in use." in problem
        )
        assert expected.startswith("Expected: ")
        assert command.endswith(f"run:  make ui PORT={port + 1}")
        assert list(tmp_path.iterdir()) == []  # no store was made

    @pytest.mark.parametrize("nothing", ["", "  "])
    def test_without_a_port_it_is_8090(self, tmp_path, nothing):
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):  # taken already: as good
                stack.enter_context(socket.create_server(("127.0.0.1", 8090)))
            problem, *_ = run_to_its_error(tmp_path, CDSW_APP_PORT=nothing)
            assert "on port 8090 of 127.0.0.1" in problem

    @pytest.mark.parametrize("port", ["eight", "0", "65536", "-1", "80.5", "8 0", "8" * 5000])
    def test_a_port_that_is_none(self, tmp_path, port):
        problem, expected, command = run_to_its_error(tmp_path, CDSW_APP_PORT=port)
        shown = port if len(port) < 20 else port[:20] + "..."
        assert problem == f"cmlflow.errors.BadInput: CDSW_APP_PORT is {shown!r}."
        assert expected == "Expected: a number from 1 to 65535, or no such variable."
        assert command.endswith("run:  make ui PORT=5001")

    @pytest.mark.parametrize("domain", ["*", "*.site", "a.site,*", "https://a.site", "site"])
    def test_a_domain_that_would_let_everybody_in(self, tmp_path, domain):
        problem, expected, _ = run_to_its_error(
            tmp_path, CDSW_APP_PORT=str(free_port()), CDSW_DOMAIN=domain
        )
        assert problem == f"cmlflow.errors.BadInput: CDSW_DOMAIN is {domain!r}."
        assert "such as ml-1234.example.cloudera.site" in expected

    def test_a_store_of_another_mlflow_is_named_with_the_cure(self, work):
        with contextlib.closing(sqlite3.connect(work / "mlflow.db")) as database, database:
            database.execute("UPDATE alembic_version SET version_num = '0123456789ab'")
        problem, expected, command = run_to_its_error(work, CDSW_APP_PORT=str(free_port()))
        assert f"StoreError: {work}/mlflow.db was made by another version of MLflow" in problem
        assert expected.startswith("Expected: ")
        assert command.endswith("run:  make clean")


@pytest.fixture(scope="module", params=[SKINNY, {}], ids=["mlflow-skinny", "whole mlflow"])
def page(request, tmp_path_factory):
    """What the application shows in a CML project, whichever MLflow it has."""
    work = tmp_path_factory.mktemp("page")
    with application(work, free_port(), **IN_CML, **request.param) as started:
        started.status, started.text = ask(started.port, Host=OWN_NAME)
        yield started


class TestWhereTheRunsAreElsewhere:
    """A page takes the place of the UI; the log says the same."""

    def test_it_answers_200_and_points_to_the_experiments_page(self, page):
        assert page.status == 200
        assert "Cloudera Machine Learning" in page.text
        assert "Projects &gt; wine &amp; &lt;b&gt;more&lt;/b&gt; &gt; Experiments" in page.text
        assert f'<a href="https://{DOMAIN}/">' in page.text

    def test_the_log_says_the_same(self, page):
        told = [html.unescape(text) for text in re.findall(r"<p>(.*)</p>", page.text)[:2]]
        assert len(told) == 2

        def is_told():  # once the page has answered
            return all(sentence in page.log.read_text() for sentence in told)

        wait_until(is_told, "what the page says, in the log")
        assert f"http://127.0.0.1:{page.port} " in page.log.read_text()

    def test_no_key_is_shown(self, page):
        assert IN_CML["CDSW_APIV2_KEY"] not in page.text + page.log.read_text()

    def test_it_listens_on_this_machine_only_and_makes_no_store(self, page):
        assert listening(page.process) == {("127.0.0.1", page.port)}
        assert not (page.work / "mlflow.db").exists()

    def test_a_server_of_ones_own_is_named_without_its_password(self, tmp_path):
        uri = "https://me:secret@mlflow.example:8443"
        with application(tmp_path, free_port(), MLFLOW_TRACKING_URI=uri) as started:
            text = ask(started.port)[1] + started.log.read_text()
        assert "the MLflow UI of https://mlflow.example:8443" in text
        assert "secret" not in text

    def test_a_laptop_with_mlflow_skinny_is_told_what_to_install(self, tmp_path):
        with application(tmp_path, free_port(), **SKINNY) as started:
            text = ask(started.port)[1]
        assert "pip install -r requirements-local.txt" in text
        assert "Open the workbench" not in text


class TestInAKernel:
    def test_it_serves_until_it_is_interrupted_and_again_until_the_kernel_ends(self, work):
        port = free_port()
        *before, last = SCRIPT.read_text(encoding="utf-8").split("\n# %%\n")
        with Kernel(work, CDSW_APP_PORT=str(port), CDSW_DOMAIN=DOMAIN) as kernel:
            for cell in before:
                kernel.run_cell(cell)
            me = psutil.Process(kernel.manager.provisioner.pid)

            def serve():
                waiting = kernel.client.execute(last)
                over = kernel.client.shell_channel.msg_ready
                wait_until(lambda: ask(port)[0] == 200 or over(), "an answer")
                assert not over(), kernel.client._recv_reply(waiting, timeout=LIMIT)["content"]
                return waiting, me.children(recursive=True)

            waiting, started = serve()
            refused = {"Origin": f"http://{OWN_NAME}", "Content-Type": "application/json"}
            create = "/api/2.0/mlflow/experiments/create"
            status, _ = ask(port, create, "POST", '{"name": "x"}', **refused)
            assert status == (403 if CHECKS_HOSTS else 200)  # a workbench with TLS: https only

            kernel.manager.interrupt_kernel()
            reply = kernel.client._recv_reply(waiting, timeout=LIMIT)
            assert reply["content"]["status"] == "ok"
            wait_until(lambda: not alive(started), "the end of the server")
            assert kernel.run_cell("print(1 + 1)") == "2\n"

            _, started = serve()
            assert len(started) == 1
            kernel.manager.shutdown_kernel()
            wait_until(lambda: not alive(started), "the end of the server after the kernel")
