import re

import pytest
import requests
from conftest import client_of, succeed
from test_20_deploy_model import NAME, REGISTER

SCRIPT = "23_Chain_of_Jobs.py"
STEPS = ["tutorial-train", "tutorial-promote", "tutorial-redeploy"]


@pytest.fixture(scope="module")
def passes(module_work, warm):
    """The champion of 05, then two passes of the chain on a laptop."""
    warm.succeed(REGISTER, module_work)
    return [run(SCRIPT, module_work) for run in (succeed, warm.succeed)]


def test_the_steps_run_in_order_and_their_states_are_a_table(passes):
    for printed in passes:
        assert re.findall(r"^(\S+) +(\S+) +\d+\.\d s$", printed, re.MULTILINE) == [
            (name, "succeeded") for name in ["tutorial-experiment", *STEPS]
        ]


def test_the_better_model_is_trained_promoted_and_served(passes, module_work):
    client = client_of(module_work)
    champion = client.get_model_version_by_alias(NAME, "champion")
    assert int(champion.version) == 2
    assert client.get_run(champion.run_id).data.params["alpha"] == "0.005"
    assert f"tutorial-redeploy: wine-quality serves version 2 of '{NAME}'" in passes[0]


def test_a_second_chain_trains_but_keeps_champion_and_endpoint(passes, module_work):
    assert re.search(
        r"^tutorial-promote: keep, .* and the champion stays$", passes[1], re.MULTILINE
    )
    assert f"tutorial-redeploy: wine-quality serves version 2 of '{NAME}'" in passes[1]
    assert len(client_of(module_work).search_model_versions()) == 3


def test_a_step_that_fails_stops_the_chain_with_its_reason(work, warm):
    """A file is in the place of the artifacts, so the first script cannot log its figure."""
    (work / "mlartifacts").write_text("in the place of the folder")
    done = warm.run_script(SCRIPT, work)
    assert done.returncode == 1
    assert "The step tutorial-experiment ended as failed: cmlflow.errors." in done.stderr
    assert "To see what it says by itself, run:  python code/01_Experiment.py" in done.stderr
    assert not (work / "endpoints").exists()


def test_a_failure_in_the_chain_leaves_the_rest_unrun(work, warm):
    """The registry refuses every new version, so there is none to judge."""
    import sqlite3

    with sqlite3.connect(work / "mlflow.db") as database:
        database.execute(
            "CREATE TRIGGER refused BEFORE INSERT ON registered_models "
            "BEGIN SELECT RAISE(ABORT, 'no registry'); END"
        )
    database.close()
    done = warm.run_script(SCRIPT, work)
    table = re.findall(r"^(\S+) +(succeeded|failed|not run) +\d+\.\d s$", done.stdout, re.M)
    assert table[1:] == list(zip(STEPS, ("succeeded", "failed", "not run"), strict=True))
    assert "The step tutorial-promote ended as failed: cmlflow.errors.MissingStep:" in done.stderr
    assert f"Run this first:  python code/{REGISTER}" in done.stderr
    assert "by itself, run:  CMLFLOW_MODE=on python code/22_Promote_Model.py" in done.stderr
    assert not (work / "endpoints").exists()


def test_the_endpoint_of_the_chain_answers(passes, module_work):
    facts = (module_work / "endpoints" / "wine-quality.json").read_text()
    port = re.search(r'"port": (\d+)', facts)[1]
    told = requests.get(f"http://127.0.0.1:{port}/deployment", timeout=60).json()
    assert told["version"] == 2
