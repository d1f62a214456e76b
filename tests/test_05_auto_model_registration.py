import sqlite3

import mlflow
import numpy as np
import pytest
from conftest import client_of, runs_in, succeed

SCRIPT = "05_Auto_Model_Registration.py"
EXPERIMENT = "auto-registration"
NAME = "Auto-Deployed Model"


@pytest.fixture(scope="module")
def passes(module_work, warm):
    return [run(SCRIPT, module_work) for run in (succeed, warm.succeed)]


def test_each_run_adds_one_version_and_prints_it(passes, module_work):
    versions = client_of(module_work).search_model_versions(f"name = '{NAME}'")
    newest, first = runs_in(module_work, EXPERIMENT)
    assert {version.version: version.run_id for version in versions} in (
        {1: first.info.run_id, 2: newest.info.run_id},
        {"1": first.info.run_id, "2": newest.info.run_id},
    )
    assert f"Registered model '{NAME}', version 1" in passes[0]
    assert f"Registered model '{NAME}', version 2" in passes[1]


def test_the_champion_is_the_newest_version(passes, module_work):
    champion = client_of(module_work).get_model_version_by_alias(NAME, "champion")
    assert int(champion.version) == 2


def test_a_version_has_the_tag_of_its_run_that_names_the_data(passes, module_work):
    run = runs_in(module_work, EXPERIMENT)[0]
    version = client_of(module_work).get_model_version(NAME, "2")
    assert run.data.tags["training_data"] == "data/wine-quality.csv"
    assert version.tags["training_data"] == run.data.tags["training_data"]


def test_the_run_tells_the_same_as_tags(passes, module_work):
    tags = runs_in(module_work, EXPERIMENT)[0].data.tags
    assert tags["registered_model"] == NAME
    assert tags["registered_version"] == "2"
    assert tags["registered_alias"] == "champion"


def test_only_the_newest_run_has_the_tag_champion(passes, module_work):
    newest, first = runs_in(module_work, EXPERIMENT)
    assert newest.data.tags["registered_alias"] == "champion"
    assert first.data.tags["registered_version"] == "1"
    assert "registered_alias" not in first.data.tags


def test_the_last_lines_name_the_alias(passes):
    where = f"Model registry > {NAME} > Version 2, its alias champion and its schema."
    assert f"\nLook at: {where}\n" in passes[1]


def test_the_registered_model_predicts_as_the_run_says(passes, module_work, split):
    client_of(module_work)
    model = mlflow.pyfunc.load_model(f"models:/{NAME}@champion")
    test = split[1].astype("float64")
    error = model.predict(test.drop(columns="quality")) - test["quality"]
    run = runs_in(module_work, EXPERIMENT)[0]
    assert run.data.metrics["rmse"] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-12)
    assert run.data.metrics["rmse"] < run.data.metrics["baseline_rmse"]


def refuse(work, table):
    """Let the database refuse to add to a table, as a managed registry may."""
    with sqlite3.connect(work / "mlflow.db") as database:
        database.execute(
            f"CREATE TRIGGER refused BEFORE INSERT ON {table} "
            "BEGIN SELECT RAISE(ABORT, 'this registry does not keep them'); END"
        )
    database.close()


def test_a_registry_without_aliases_is_told_in_one_line_and_the_tags_carry_the_fact(warm, work):
    refuse(work, "registered_model_aliases")
    printed = warm.succeed(SCRIPT, work)
    (line,) = (line for line in printed.splitlines() if "No alias" in line)
    assert "see the run's tags" in line
    assert "; the tag registered_alias of the run says champion.\n" in printed
    assert "alias champion" not in printed
    assert f"Done: models:/{NAME}/1 is version 1 and predicts the same" in printed
    assert client_of(work).get_registered_model(NAME).aliases == {}
    (run,) = runs_in(work, EXPERIMENT)
    assert run.data.tags["registered_version"] == "1"
    assert run.data.tags["registered_alias"] == "champion"


def test_a_registry_without_tags_is_told_in_one_line(warm, work):
    refuse(work, "model_version_tags")
    printed = warm.succeed(SCRIPT, work)
    assert "No tag of the version: this store refused it (" in printed
    assert f"Done: models:/{NAME}@champion is version 1" in printed


def test_without_a_registry_the_model_is_logged_and_the_run_says_that_it_is_the_champion(
    warm, work, split
):
    refuse(work, "registered_models")
    for _ in range(2):
        printed = warm.succeed(SCRIPT, work)
    newest, first = runs_in(work, EXPERIMENT)
    (line,) = (line for line in printed.splitlines() if "AI Registry" in line)
    assert line.startswith("No model version: this store refused it (")
    uri = f"runs:/{newest.info.run_id}/model"
    assert f"Done: {uri} is not registered and predicts the same for 1225 wines\n" in printed
    assert f"\nLook at: Experiments > {EXPERIMENT} > registered; the tag" in printed
    assert [run.info.status for run in (newest, first)] == ["FINISHED"] * 2
    assert newest.data.tags["registered_alias"] == "champion"
    assert newest.data.tags["registered_version"] == "none"
    assert "registered_alias" not in first.data.tags
    client_of(work)
    assert (
        len(mlflow.pyfunc.load_model(uri).predict(split[1].drop(columns="quality") * 1.0)) == 1225
    )
