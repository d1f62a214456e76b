import shutil

import numpy as np
import pytest
from conftest import client_of, runs_in, succeed
from sklearn.metrics import mean_squared_error

SCRIPT = "22_Promote_Model.py"
REGISTER = "05_Auto_Model_Registration.py"
EXPERIMENT, PROMOTIONS = "auto-registration", "promotions"
NAME = "Auto-Deployed Model"
BETTER = ("--alpha", "0.01", "--alias", "challenger")
WORSE = ("--alpha", "0.9", "--alias", "challenger")


def runs_of(work):
    """The runs that made the versions, by the number of the version."""
    versions = client_of(work).search_model_versions(f"name = '{NAME}'")
    return {int(one.version): client_of(work).get_run(one.run_id) for one in versions}


def champion_of(work):
    """What the alias says, and what the tags say: they must agree."""
    by_alias = client_of(work).get_model_version_by_alias(NAME, "champion")
    tagged = [
        number
        for number, run in runs_of(work).items()
        if run.data.tags.get("registered_alias") == "champion"
    ]
    assert tagged == [int(by_alias.version)]
    return tagged[0]


def everything(work):
    """What a lesson could change: tags, aliases, descriptions and runs."""
    client = client_of(work)
    return (
        {number: run.data.tags for number, run in runs_of(work).items()},
        dict(client.get_registered_model(NAME).aliases),
        {one.version: one.description for one in client.search_model_versions()},
        [run.info.run_id for run in runs_in(work, PROMOTIONS)],
    )


@pytest.fixture(scope="module")
def two_versions(module_work, warm):
    """Version 1 is the champion; version 2 is better."""
    warm.succeed(REGISTER, module_work)
    warm.succeed(REGISTER, module_work, *BETTER)
    return module_work


@pytest.fixture(scope="module")
def passes(two_versions, warm):
    """What each mode printed and left, in the order in which a reader tries them."""
    states = [everything(two_versions)]
    printed = [succeed(SCRIPT, two_versions)]
    states.append(everything(two_versions))
    for mode in ("on", "on"):
        printed.append(warm.succeed(SCRIPT, two_versions, "--mode", mode))
        states.append(everything(two_versions))
    return printed, states


def test_a_dry_run_says_what_on_would_do_and_changes_nothing(passes):
    printed, states = passes
    assert "Mode dry-run\n" in printed[0]
    assert "\nVerdict: promote, " in printed[0]
    assert "\nA dry-run writes nothing down\n" in printed[0]
    assert "(dry-run: nothing was changed)\n" in printed[0]
    assert "\nChampion: version 1 of" in printed[0].partition("Done: ")[2]
    assert states[1] == states[0]


def test_on_moves_the_alias_and_the_tag_to_the_better_version(passes, two_versions):
    assert champion_of(two_versions) == 2
    assert client_of(two_versions).get_registered_model(NAME).aliases.keys() == {"champion"}


def test_the_numbers_are_those_of_both_models_on_the_test_wines(passes, two_versions, split):
    (run,) = runs_in(two_versions, PROMOTIONS)
    train, test = split
    first, second = (runs_of(two_versions)[number].data.metrics["rmse"] for number in (1, 2))
    by_hand = {"champion_rmse": first, "challenger_rmse": second}
    guess = np.full(len(test), train["quality"].mean())
    by_hand["baseline_rmse"] = mean_squared_error(test["quality"], guess) ** 0.5
    assert {name: run.data.metrics[name] for name in by_hand} == pytest.approx(by_hand, rel=1e-12)
    gain = run.data.metrics["gain_over_champion"]
    assert gain == pytest.approx(first - second, rel=1e-12)
    low, high = (run.data.metrics[f"gain_over_champion_{end}"] for end in ("low", "high"))
    assert 0 < low < gain < high


def test_the_verdict_stands_in_the_tags_and_in_the_description(passes, two_versions):
    (run,) = runs_in(two_versions, PROMOTIONS)
    challenger = runs_of(two_versions)[2]
    tags = challenger.data.tags
    assert tags["gate.decision"] == "promote"
    assert tags["gate.mode"] == "on"
    assert tags["gate.run"] == run.info.run_id
    assert (
        tags["gate.against"]
        == f"version 1 of '{NAME}' (run {runs_of(two_versions)[1].info.run_id})"
    )
    for name, value in run.data.metrics.items():
        assert float(tags[f"gate.{name}"]) == value
    assert run.data.tags["challenger_run"] == challenger.info.run_id
    description = client_of(two_versions).get_model_version(NAME, "2").description
    assert description == f"promote: {tags['gate.reason']} (run {run.info.run_id})"
    assert run.data.params["seed"] == "7"


def test_with_nothing_new_nothing_changes(passes):
    printed, states = passes
    assert states[3] == states[2] != states[1]
    assert "\nDone: no version to judge; for one, run:  python code/21_Redeploy" in printed[2]


@pytest.fixture(scope="module")
def worse(tmp_path_factory, empty_store, warm):
    """Version 1 is the champion; version 2 is worse."""
    folder = tmp_path_factory.mktemp("worse")
    shutil.copy(empty_store, folder / "mlflow.db")
    warm.succeed(REGISTER, folder)
    warm.succeed(REGISTER, folder, *WORSE)
    return folder


class TestOneThatIsNotBetter:
    def test_it_stays_challenger_and_the_verdict_is_written_once(self, warm, worse):
        for _ in range(2):
            printed = warm.succeed(SCRIPT, worse, "--mode", "on")
            assert "\nDone: keep, " in printed
        assert "\nNothing new to write down\n" in printed
        assert champion_of(worse) == 1
        (run,) = runs_in(worse, PROMOTIONS)
        tags = runs_of(worse)[2].data.tags
        assert (tags["gate.decision"], tags["gate.run"]) == ("keep", run.info.run_id)
        assert tags["registered_alias"] == "challenger"

    def test_with_the_gate_off_it_is_promoted_and_the_verdict_says_so(self, warm, worse):
        warm.succeed(SCRIPT, worse, "--mode", "off")
        assert champion_of(worse) == 2
        tags = runs_of(worse)[2].data.tags
        assert tags["gate.mode"] == "off"
        assert tags["gate.reason"].startswith("not judged, the gate is off; it would say keep:")

    def test_an_older_version_can_be_named_and_wins_the_name_back(self, warm, worse):
        """After the one before: version 2, the worse, is champion."""
        warm.succeed(SCRIPT, worse, "--mode", "on", "--version", "1")
        assert champion_of(worse) == 1

    @pytest.mark.parametrize(("number", "told"), [("1", "is the champion"), ("9", "is not there")])
    def test_a_version_that_cannot_be_judged_is_named(self, warm, worse, number, told):
        """After the one before: version 1 is champion again."""
        before = everything(worse)
        done = warm.run_script(SCRIPT, worse, "--mode", "on", "--version", number)
        assert f"Version {number} of '{NAME}' {told}.\nExpected: one of [2].\n" in done.stderr
        assert everything(worse) == before


def test_a_stop_before_the_alias_moves_is_made_up_for(warm, work):
    """The verdict is written down, and the alias still points to the old champion."""
    warm.succeed(REGISTER, work)
    warm.succeed(REGISTER, work, *BETTER)
    warm.succeed(SCRIPT, work, "--mode", "on")
    client = client_of(work)
    client.set_registered_model_alias(NAME, "champion", "1")
    first, second = (runs_of(work)[number].info.run_id for number in (1, 2))
    client.set_tag(first, "registered_alias", "champion")
    client.set_tag(second, "registered_alias", "challenger")
    printed = warm.succeed(SCRIPT, work, "--mode", "on")
    assert "\nNothing new to write down\n" in printed
    assert champion_of(work) == 2
    assert len(runs_in(work, PROMOTIONS)) == 1


def test_without_a_champion_the_baseline_decides(warm, work):
    warm.succeed(REGISTER, work, *BETTER)
    printed = warm.succeed(SCRIPT, work, "--mode", "on")
    assert "Champion: none yet\n" in printed
    assert "and there is no champion yet\n" in printed
    assert champion_of(work) == 1
    (run,) = runs_in(work, PROMOTIONS)
    assert "champion_rmse" not in run.data.metrics


def test_without_a_version_it_names_the_lesson_to_run_first(warm, work):
    done = warm.run_script(SCRIPT, work)
    assert done.returncode == 1
    assert f"Run this first:  python code/{REGISTER}" in done.stderr
    assert runs_in(work, PROMOTIONS) == []
