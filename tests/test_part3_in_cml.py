"""Part 3 as a session of CML runs it: one kernel, and a workbench that answers by API v2."""

import json
import re
from types import SimpleNamespace

import pytest
from conftest import Kernel, client_of, in_cml, python
from workbench_server import workbench_server

NAME, ENDPOINT = "Auto-Deployed Model", "wine-quality"
STEPS = ["tutorial-train", "tutorial-promote", "tutorial-redeploy"]
POLL = {"CMLFLOW_POLL_SECONDS": "0.02"}
LESSONS = [
    "05_Auto_Model_Registration.py",
    "20_Deploy_Model.py",
    "20_Deploy_Model.py",
    "21_Redeploy_and_Roll_Back.py",
    "22_Promote_Model.py",
    "23_Chain_of_Jobs.py",
    "23_Chain_of_Jobs.py",
]


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """What each lesson printed, and what the workbench held after it."""
    work = tmp_path_factory.mktemp("part3")
    with workbench_server(work, "many-models", "any-order", **POLL) as server:
        extra = in_cml(work) | server.environment() | POLL
        passes = []
        with Kernel(work, **extra) as kernel:
            for lesson in LESSONS:
                printed = kernel.run_lesson(lesson)
                passes.append(SimpleNamespace(lesson=lesson, printed=printed, state=server.state()))
        yield SimpleNamespace(work=work, passes=passes, server=server, extra=extra)


def after(session, lesson):
    return [one for one in session.passes if one.lesson.startswith(lesson)]


def test_each_reaches_its_last_line(session):
    for one in session.passes:
        assert re.search("^Done: ", one.printed, re.MULTILINE), one.printed


def test_20_makes_project_model_build_and_deployment_and_again_nothing(session):
    first, second = after(session, "20")
    (project,) = (one for one in first.state["projects"] if one["name"] == "PRD")
    (model,) = (one for one in first.state["models"] if one["name"] == ENDPOINT)
    (build,), (deployment,) = first.state["builds"], first.state["deployments"]
    (version,) = first.state["versions"]
    assert model["registered_model_id"] == version["model_id"]
    assert build["registered_model_version_id"] == version["model_version_id"]
    assert build["model_id"] == deployment["model_id"] == model["id"]
    assert deployment["project_id"] == project["id"]
    assert deployment["status"] == "deployed"
    creations = [name for name in first.state["requests"] if name.startswith("create_")]
    assert {name: first.state["requests"][name] for name in creations} == {
        name: second.state["requests"][name] for name in creations
    }


def test_20_shows_the_answer_of_the_model_itself_and_what_wrong_requests_are_told(session):
    (first, _) = after(session, "20")
    assert "Answer: 200, prediction 6.197205692823\n" in first.printed
    for what, told in {
        "no wrapper": "400 .*exactly one of the input fields",
        "a missing column": r"400 .*Model is missing inputs \['alcohol'\]",
        "text in a number": "400 .*'dry'",
        "another order": "200 prediction 6.197205692823",
    }.items():
        assert re.search(rf"^{what}: +{told}", first.printed, re.MULTILINE), what


def test_21_proves_each_version_and_leaves_one_model_of_that_name(session):
    (one,) = after(session, "21")
    found = client_of(session.work).search_model_versions(f"name = '{NAME}'")
    versions = {int(entry.version): entry.run_id for entry in found}
    proof = r"^Proof: 50 answers of version (\d) of .* \(run (\w+)\)"
    proofs = re.findall(proof, one.printed, re.MULTILINE)
    assert [(int(number), run) for number, run in proofs] == [
        (number, versions[number]) for number in (1, 2, 1)
    ]
    names = [model["name"] for model in one.state["models"]]
    assert names.count(ENDPOINT) == 1
    assert not [name for name in names if name.startswith(f"{ENDPOINT}-check")]
    (model,) = (model for model in one.state["models"] if model["name"] == ENDPOINT)
    (before,) = (m for m in after(session, "20")[0].state["models"] if m["name"] == ENDPOINT)
    assert model["access_key"] == before["access_key"]
    builds = [build for build in one.state["builds"] if build["model_id"] == model["id"]]
    assert len({build["registered_model_version_id"] for build in builds}) == len(builds) == 2


def test_23_creates_each_job_once_and_starts_each_chain_once(session):
    first, second = after(session, "23")
    by_name = {job["name"]: job for job in first.state["jobs"]}
    assert sorted(by_name) == sorted(["tutorial-experiment", *STEPS])
    assert [job["id"] for job in second.state["jobs"]] == [job["id"] for job in by_name.values()]
    parents = [by_name[name]["parent_id"] for name in STEPS]
    assert parents == ["", *(by_name[name]["id"] for name in STEPS[:2])]
    variables = by_name["tutorial-train"]["environment"]
    variables = json.loads(variables) if isinstance(variables, str) else variables
    assert variables == {"CMLFLOW_ALPHA": "0.005", "CMLFLOW_ALIAS": "challenger"}
    for state, times in ((first.state, 1), (second.state, 2)):
        names = {job["id"]: job["name"] for job in state["jobs"]}
        runs = [names[run["job_id"]] for run in state["job_runs"]]
        assert {name: runs.count(name) for name in runs} == dict.fromkeys(by_name, times)
        assert {run["status"] for run in state["job_runs"]} == {"ENGINE_SUCCEEDED"}
        assert state["requests"]["create_job_run"] == 2 * times


def test_23_shows_every_state_of_every_job_as_a_table(session):
    for one in after(session, "23"):
        assert re.findall(r"^(tutorial-\S+) +(\S+) +\d+\.\d s$", one.printed, re.M) == [
            (name, "succeeded") for name in ["tutorial-experiment", *STEPS]
        ]


def test_23_serves_the_model_that_won_and_then_keeps_it(session):
    first, second = after(session, "23")
    for one in (first, second):
        (model,) = (m for m in one.state["models"] if m["name"] == ENDPOINT)
        builds = {build["id"]: build for build in one.state["builds"]}
        (running,) = (d for d in one.state["deployments"] if d["status"] == "deployed")
        numbers = {v["model_version_id"]: v["number"] for v in one.state["versions"]}
        assert running["model_id"] == model["id"]
        assert numbers[builds[running["build_id"]]["registered_model_version_id"]] == 3
    assert max(entry["number"] for entry in second.state["versions"]) == 4
    champion = client_of(session.work).get_model_version_by_alias(NAME, "champion")
    assert int(champion.version) == 3


def test_the_keys_are_printed_nowhere_and_logged_nowhere(session):
    (model,) = (m for m in session.passes[-1].state["models"] if m["name"] == ENDPOINT)
    keys = (session.server.key, model["access_key"])
    texts = [one.printed for one in session.passes]
    texts += [f.read_bytes().decode("latin-1") for f in session.work.rglob("*") if f.is_file()]
    assert not [key for key in keys for text in texts if key in text]


def test_a_registry_that_lists_no_versions_is_asked_by_api(session):
    code = (
        "import mlflow; from cmlflow import registry;"
        "mlflow.set_experiment('auto-registration');"
        f"print([one.number for one in registry.versions('{NAME}')],"
        f" registry.champion('{NAME}', 'auto-registration').number)"
    )
    switches = in_cml(session.work, "no-version-search", "no-aliases")
    printed = python(
        code, session.work, **(session.extra | switches | session.server.environment())
    )
    assert printed == "[4, 3, 2, 1] 3\n"
