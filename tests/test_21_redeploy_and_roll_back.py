import re

import pytest
import requests
from conftest import client_of, runs_in, succeed
from test_20_deploy_model import NAME, REGISTER, address_in

SCRIPT = "21_Redeploy_and_Roll_Back.py"
DEPLOY = "20_Deploy_Model.py"
ENDPOINT = "wine-quality"


@pytest.fixture(scope="module")
def passes(module_work, warm):
    """What 20 printed, then two passes."""
    warm.succeed(REGISTER, module_work)
    deployed = warm.succeed(DEPLOY, module_work)
    return deployed, succeed(SCRIPT, module_work), warm.succeed(SCRIPT, module_work)


def served(passes):
    address = address_in(passes[0]).replace("invocations", "deployment")
    return requests.get(address, timeout=60).json()


def test_three_proofs_name_the_versions_before_after_and_after_rolling_back(passes, module_work):
    by_number = {
        int(one.version): one.run_id for one in client_of(module_work).search_model_versions()
    }
    for printed in passes[1:]:
        proofs = re.findall(
            r"^Proof: 50 answers of version (\d) of '.*' \(run (\w+)\), largest difference (\S+)$",
            printed,
            re.MULTILINE,
        )
        assert [(int(number), run) for number, run, _ in proofs] == [
            (number, by_number[number]) for number in (1, 2, 1)
        ]
        assert all(float(largest) <= 1e-9 for *_, largest in proofs)


def test_the_two_versions_differ_on_every_wine(passes):
    least = re.search(r"differ by (\S+) to", passes[1])[1]
    assert float(least) > 0.001  # else the proof could not tell them apart


def test_at_the_end_the_first_version_serves_at_the_same_address(passes):
    assert served(passes)["version"] == 1
    for printed in passes[1:]:
        assert f"\nLook at: {address_in(passes[0])}\n" in printed
        assert f"\nDone: {ENDPOINT} served version 1, then 2, then 1 again\n" in printed


def test_the_second_pass_takes_the_version_that_is_there(passes, module_work):
    assert len(client_of(module_work).search_model_versions()) == 2
    assert len(runs_in(module_work, "auto-registration")) == 2


def test_the_new_version_is_the_challenger_and_the_champion_stays(passes, module_work):
    aliases = client_of(module_work).get_registered_model(NAME).aliases
    assert {name: int(number) for name, number in aliases.items()} == {
        "champion": 1, "challenger": 2,
    }  # fmt: skip
    newest, oldest = runs_in(module_work, "auto-registration")
    assert newest.data.tags["registered_alias"] == "challenger"
    assert oldest.data.tags["registered_alias"] == "champion"
    assert float(newest.data.params["alpha"]) == pytest.approx(0.06)


def test_two_versions_that_predict_the_same_are_said_to(passes, warm, work):
    warm.succeed(REGISTER, work)
    warm.succeed(DEPLOY, work)
    warm.succeed(REGISTER, work, "--alias", "challenger")
    told = "They predict the same, so the answers cannot tell which of them serves\n"
    assert told in warm.succeed(SCRIPT, work)
    assert all(told not in printed for printed in passes)


def test_without_an_endpoint_it_names_the_lesson_to_run_first(warm, work):
    warm.succeed(REGISTER, work)
    done = warm.run_script(SCRIPT, work)
    assert f"No endpoint '{ENDPOINT}' serves '{NAME}'.\n" in done.stderr
    assert f"Run this first:  python code/{DEPLOY} --endpoint {ENDPOINT}\n" in done.stderr
    assert len(client_of(work).search_model_versions()) == 1
