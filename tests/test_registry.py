"""The versions of a registered model, and its champion by alias or by the tags of the runs."""

import mlflow
import pytest
from conftest import client_of

from cmlflow import registry

NAME, EXPERIMENT = "wines", "registry-tests"


@pytest.fixture
def versions(work):
    """Eleven versions of a model and one of a model whose name begins in the same way."""
    client = client_of(work)
    client.create_experiment(EXPERIMENT, (work / "artifacts").as_uri())
    mlflow.set_experiment(EXPERIMENT)
    for name in (NAME, f"{NAME}-old"):
        client.create_registered_model(name)
    for name in [NAME] * 11 + [f"{NAME}-old"]:
        with mlflow.start_run() as run:
            mlflow.log_text("a model", "model/MLmodel")
        client.create_model_version(name, f"{run.info.artifact_uri}/model", run.info.run_id)
    return registry.versions(NAME)


def test_they_are_the_model_s_own_with_the_newest_first(versions):
    assert [one.number for one in versions] == list(range(11, 0, -1))
    assert {one.model for one in versions} == {NAME}
    for one in versions:
        found = mlflow.MlflowClient().get_model_version(NAME, str(one.number))
        assert found.run_id == one.run_id


def test_without_an_alias_the_tags_say_which_is_the_champion(versions):
    assert registry.champion(NAME, EXPERIMENT) is None
    for number in (3, 9, 5):
        registry.tag_champion(versions[-number], EXPERIMENT)
        assert registry.champion(NAME, EXPERIMENT) == versions[-number]
        (run,) = registry.tagged(NAME, EXPERIMENT)
        assert run.info.run_id == versions[-number].run_id
        assert run.data.tags["registered_version"] == str(number)


def test_of_two_that_are_tagged_the_newer_run_counts(versions):
    """A stop between the two steps of `tag_champion` leaves two."""
    for one in versions[2], versions[7]:
        for key, value in (("registered_model", NAME), ("registered_alias", "champion")):
            mlflow.MlflowClient().set_tag(one.run_id, key, value)
    assert registry.champion(NAME, EXPERIMENT) == versions[2]


def test_a_challenger_is_no_champion_and_the_alias_comes_first(versions):
    client = mlflow.MlflowClient()
    for key, value in (("registered_model", NAME), ("registered_alias", "challenger")):
        client.set_tag(versions[0].run_id, key, value)
    assert registry.champion(NAME, EXPERIMENT) is None
    registry.tag_champion(versions[1], EXPERIMENT)
    client.set_registered_model_alias(NAME, "champion", str(versions[2].number))
    assert registry.champion(NAME, EXPERIMENT) == versions[2]


def test_a_model_that_is_not_there_has_none(versions):
    assert registry.versions("no such model") == []
