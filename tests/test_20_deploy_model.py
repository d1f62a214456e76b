import re
from urllib.parse import urlsplit

import mlflow
import numpy as np
import pandas as pd
import pytest
import requests
from conftest import client_of, python, succeed

SCRIPT = "20_Deploy_Model.py"
REGISTER = "05_Auto_Model_Registration.py"
NAME = "Auto-Deployed Model"
BETTER = ("--alpha", "0.01", "--alias", "challenger")
# The request of the original tutorial, and what the model of 05 answers.
WINE = {
    "alcohol": 12.8, "chlorides": 0.029, "citric acid": 0.48, "density": 0.98,
    "fixed acidity": 6.2, "free sulfur dioxide": 29, "pH": 3.33, "residual sugar": 1.2,
    "sulphates": 0.39, "total sulfur dioxide": 75, "volatile acidity": 0.66,
}  # fmt: skip
ANSWER = 6.197205692823


@pytest.fixture(scope="module")
def served(module_work, warm):
    """Version 1 is the champion and deployed, then the lesson ran again; version 2 is newer."""
    warm.succeed(REGISTER, module_work)
    warm.succeed(REGISTER, module_work, *BETTER)
    printed = [run(SCRIPT, module_work) for run in (succeed, warm.succeed)]
    return printed


def stop(work):
    """What `make stop` runs."""
    return python("from cmlflow.serving import __main__; __main__.main()", work, "--stop")


def address_in(printed):
    return re.search(r"^It answers at (\S+)$", printed, re.MULTILINE)[1]


def ask(printed, **payload):
    return requests.post(address_in(printed), json=payload, timeout=60)


def split(wine):
    return {"columns": list(wine), "data": [list(wine.values())]}


def test_the_endpoint_answers_what_the_champion_itself_predicts(served, module_work):
    answer = ask(served[0], dataframe_split=split(WINE))
    (prediction,) = answer.json()["predictions"]
    client_of(module_work)
    model = mlflow.pyfunc.load_model(f"models:/{NAME}@champion")
    assert prediction == model.predict(pd.DataFrame([WINE]) * 1.0)[0]
    assert prediction == pytest.approx(ANSWER, abs=1e-9)
    assert f"prediction {ANSWER:.12f}\n" in served[0]


def test_the_true_grade_is_that_of_the_wine_in_the_file(served, wines):
    """Its density was cut from 0.9892 to 0.98 in the original."""
    same = [name for name in WINE if name != "density"]
    found = wines[np.isclose(wines[same], [WINE[name] for name in same]).all(axis=1)]
    assert set(found["density"]) == {0.9892}
    (grade,) = set(found["quality"])
    assert f"; the true grade is {grade}\n" in served[0]


def test_what_serves_says_that_it_is_the_champion(served, module_work):
    told = requests.get(address_in(served[0]).replace("invocations", "deployment"), timeout=60)
    champion = client_of(module_work).get_model_version_by_alias(NAME, "champion")
    assert told.json()["run_id"] == champion.run_id
    assert f"Done: wine-quality serves version 1 of '{NAME}' (run {champion.run_id})" in served[0]


def test_a_second_pass_deploys_nothing_new(served):
    assert address_in(served[0]) == address_in(served[1])


@pytest.mark.parametrize(
    ("what", "payload", "status", "told"),
    [
        ("no wrapper", split(WINE), 400, "exactly one of the input fields"),
        (
            "a missing column",
            {"dataframe_split": split({k: v for k, v in WINE.items() if k != "alcohol"})},
            400,
            r"Model is missing inputs \['alcohol'\]",
        ),
        (
            "text in a number",
            {"dataframe_split": split(WINE | {"alcohol": "dry"})},
            400,
            "could not convert string to float: 'dry'",
        ),
        (
            "another order",
            {"dataframe_split": split(dict(reversed(WINE.items())))},
            200,
            f"prediction {ANSWER:.12f}",
        ),
    ],
)
def test_the_four_other_requests_are_answered_as_the_lesson_shows(
    served, what, payload, status, told
):
    assert requests.post(address_in(served[0]), json=payload, timeout=60).status_code == status
    assert re.search(rf"^{what}: +{status} .*{told}", served[0], re.MULTILINE)


def test_it_listens_on_this_machine_only(served):
    assert urlsplit(address_in(served[0])).hostname == "127.0.0.1"


def test_after_stop_nobody_answers_and_the_lesson_starts_it_again(served, module_work, warm):
    assert stop(module_work) == "Stopped wine-quality\n"
    with pytest.raises(requests.ConnectionError):
        ask(served[0], dataframe_split=split(WINE))
    assert stop(module_work) == "Nothing to stop\n"
    again = warm.succeed(SCRIPT, module_work)
    (prediction,) = ask(again, dataframe_split=split(WINE)).json()["predictions"]
    assert prediction == pytest.approx(ANSWER, abs=1e-9)


class TestNothingToDeploy:
    def test_without_a_version_it_names_the_lesson_to_run_first(self, warm, work):
        done = warm.run_script(SCRIPT, work)
        assert done.returncode == 1
        assert f"Run this first:  python code/{REGISTER}" in done.stderr
        assert not (work / "endpoints").exists()

    def test_without_a_champion_it_says_so(self, warm, work):
        warm.succeed(REGISTER, work, *BETTER)
        done = warm.run_script(SCRIPT, work)
        assert f"The registered model '{NAME}' has no champion.\n" in done.stderr
        assert f"Run this first:  python code/{REGISTER}" in done.stderr
        assert not (work / "endpoints").exists()


def test_a_champion_without_alias_is_found_by_the_tag_of_its_run(warm, work):
    """As in a registry that keeps no aliases."""
    warm.succeed(REGISTER, work)
    warm.succeed(REGISTER, work, *BETTER)
    client_of(work).delete_registered_model_alias(NAME, "champion")
    assert f"To deploy: version 1 of '{NAME}'" in warm.succeed(SCRIPT, work)
