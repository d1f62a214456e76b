"""The lessons on a store that behaves as CML's is known to behave, or suspected to.

The stand-in is in `standins/cml_store`; what the lessons left is read without it.
"""

import re
import shutil
from types import SimpleNamespace

import mlflow
import numpy as np
import pandas as pd
import pytest
from conftest import (
    client_of,
    files_of,
    in_cml,
    python,
    run_script,
    runs_in,
    succeed,
)
from standins.cml_store.cml_store import SWITCHES

WINES = "wine-quality-test"
NAME = "Auto-Deployed Model"
LESSONS = (
    ("01_Active_Experiment.py",),
    ("01_Experiment.py",),
    ("02_log_model.py",),
    ("02_log_model.py", "--alpha", "0.9"),  # worse, and newer
    ("02_Log_Artifacts_Tags.py",),
    ("03_Get_Experiment.py",),
    ("04_Predict_Batch.py",),
    ("05_Auto_Model_Registration.py",),
    ("05_Auto_Model_Registration.py",),
)


@pytest.fixture(scope="module", params=[(), SWITCHES], ids=["as-known", "as-suspected"])
def cml(request, tmp_path_factory, empty_store):
    """All lessons, each in a process of its own as in a CML job: what the last pass printed."""
    work = tmp_path_factory.mktemp("cml")
    shutil.copy(empty_store, work / "mlflow.db")
    extra = in_cml(work, *request.param)
    printed = {script: succeed(script, work, *options, **extra) for script, *options in LESSONS}
    return SimpleNamespace(work=work, switches=request.param, printed=printed)


def test_the_stand_in_does_what_it_stands_for(work):
    """In one process, so that the last two lines differ by `set_experiment` alone."""
    code = """if True:
        import mlflow
        client = mlflow.MlflowClient()
        experiment_id = client.create_experiment("e")
        ids = [client.create_run(experiment_id).info.run_id for _ in range(2)]
        client.log_metric(ids[0], "rmse", 2)
        client.log_metric(ids[1], "rmse", 1)
        found = client.search_runs([experiment_id])
        print([run.info.run_id for run in found] == ids, found[0].info.status)
        found = client.search_runs([experiment_id], "metrics.rmse < 2", order_by=["metrics.rmse"])
        print(len(found), found[0].info.run_id == ids[1], found[0].info.run_name)
        for _ in range(2):
            try:
                print(client.get_run(ids[0]).info.run_id == ids[0])
            except Exception as error:
                print(error)
            mlflow.set_experiment("e")
    """

    def answers(*switches):
        printed = python(code, work, **in_cml(work, *switches))
        client = client_of(work)
        for run in runs_in(work, "e"):
            client.delete_run(run.info.run_id)
        client.rename_experiment(client.get_experiment_by_name("e").experiment_id, str(switches))
        return printed.splitlines()

    first, second, *others = answers()
    assert first == "True EXPERIMENT_RUN_RUNNING"
    assert re.fullmatch(r"1 True [a-z]+-[a-z]+-\d+", second)
    assert others == ["True", "True"]
    assert answers(*SWITCHES)[1:] == ["2 False None", "missing experiment_id", "True"]


class TestAllLessons:
    def test_each_reaches_its_last_line_and_shows_no_prefix_and_no_missing_name(self, cml):
        for lesson, printed in cml.printed.items():
            assert "Done: " in printed, lesson
            assert "EXPERIMENT_RUN_" not in printed, lesson
            assert not re.search(r"\bNone\b(?!\n)", printed), lesson

    def test_runs_and_files_are_in_the_platforms_store_and_nowhere_else(self, cml):
        for experiment, count in (("example-experiment", 2), (WINES, 4), ("auto-registration", 2)):
            runs = runs_in(cml.work, experiment)
            assert [run.info.status for run in runs] == ["FINISHED"] * count
            for run in runs:
                assert run.info.artifact_uri.startswith(str(cml.work / ".experiments"))
        assert not (cml.work / "mlartifacts").exists()

    def test_01_tells_the_state_of_its_runs_as_mlflow_does(self, cml):
        printed = cml.printed["01_Active_Experiment.py"]
        with_block, by_hand = runs_in(cml.work, "example-experiment")
        assert f"Active run {by_hand.info.run_id}, status RUNNING" in printed
        for run in (by_hand, with_block):
            name = run.info.run_id if "no-names" in cml.switches else run.info.run_name
            assert f"\n{name}: FINISHED, {{'rows': '4898'}}" in printed

    def test_01_and_02_log_params_metrics_models_and_files(self, cml):
        files, newer, older, plain = runs_in(cml.work, WINES)
        assert plain.data.metrics["rmse"] == pytest.approx(0.82224284976, abs=1e-9)
        assert (older.data.params["alpha"], newer.data.params["alpha"]) == ("0.6", "0.9")
        assert "model/MLmodel" in files_of(cml.work, older, "model")
        assert "states/json.json" in files_of(cml.work, files)

    def test_03_lists_the_scored_runs_best_first(self, cml):
        _, newer, older, plain = runs_in(cml.work, WINES)
        printed = cml.printed["03_Get_Experiment.py"]
        listed = re.findall(r"^ +0\.\d{4} .* (\S+) +([0-9a-f]{32})$", printed, re.MULTILINE)
        assert listed == [("FINISHED", run.info.run_id) for run in (plain, older, newer)]
        assert f"best of 3 runs has rmse 0.822 (run {plain.info.run_id})" in printed
        assert f"Files of runs:/{newer.info.run_id}/model" in printed

    def test_04_scores_with_the_newest_model(self, cml):
        newer = runs_in(cml.work, WINES)[1]
        scored = pd.read_csv(cml.work / "data" / "predictions.csv")
        assert set(scored["run_id"]) == {newer.info.run_id}
        rmse = np.sqrt(((scored["quality"] - scored["prediction"]) ** 2).mean())
        assert rmse == pytest.approx(newer.data.metrics["rmse"], rel=1e-9)
        name = newer.info.run_id if "no-names" in cml.switches else newer.info.run_name
        assert f"of run {name}\n" in cml.printed["04_Predict_Batch.py"]

    def test_05_names_the_champion_by_alias_or_by_tag(self, cml):
        newest, first = runs_in(cml.work, "auto-registration")
        printed = cml.printed["05_Auto_Model_Registration.py"]
        tags = [run.data.tags.get("registered_alias") for run in (newest, first)]
        client = client_of(cml.work)
        aliases = client.get_registered_model(NAME).aliases
        if "no-aliases" in cml.switches:  # and "no-delete"
            assert aliases == {}
            assert "Earlier runs keep the tag champion (NotImplementedError)" in printed
            assert "its versions; the tag registered_alias of the run says champion.\n" in printed
            assert "alias champion" not in printed
        else:
            assert {name: int(number) for name, number in aliases.items()} == {"champion": 2}
            assert tags == ["champion", None]
            assert "its versions and the alias champion.\n" in printed
        assert tags[0] == "champion" and newest.data.tags["registered_version"] == "2"
        mlflow.set_registry_uri(None)
        loaded = mlflow.pyfunc.load_model(f"models:/{NAME}/2")
        assert loaded.metadata.run_id == newest.info.run_id


@pytest.mark.parametrize(
    "switches", [(), ("no-filter",), ("no-order",), ("no-filter", "no-order")], ids=" ".join
)
def test_03_finds_the_best_run_whatever_the_server_does_with_filter_and_order(work, switches):
    client = client_of(work)
    experiment_id = client.create_experiment(WINES)
    runs = []
    for start, rmse in enumerate((0.9, 0.7, None, 0.7, 0.8)):
        runs.append(client.create_run(experiment_id, start_time=start + 1).info.run_id)
        if rmse is not None:
            client.log_metric(runs[-1], "rmse", rmse)
        client.set_terminated(runs[-1])
    printed = succeed("03_Get_Experiment.py", work, **in_cml(work, *switches))
    listed = re.findall(r"^ +0\.\d{4} .*?([0-9a-f]{32})$", printed, re.MULTILINE)
    assert listed == [runs[number] for number in (3, 1, 4, 0)]  # the newest among equals
    assert f"best of 4 runs has rmse 0.700 (run {runs[3]})" in printed


def test_03_says_so_where_the_store_does_not_list_experiments(work):
    done = run_script("03_Get_Experiment.py", work, **in_cml(work, "no-list"))
    assert done.returncode != 0
    assert "unknown, this store does not list them (NotImplementedError)" in done.stderr


@pytest.mark.parametrize("switches", [(), ("experiment-first",)], ids=["known", "experiment-first"])
def test_08_finds_a_run_of_another_experiment(work, switches):
    """Without Spark: it goes as far as to say that this run names no snapshot."""
    client = client_of(work)
    client.create_experiment("another")
    run = client.create_run(client.create_experiment(WINES), run_name="x")
    run_id = run.info.run_id
    done = run_script("08_Reproduce_Run.py", work, "--run-id", run_id, **in_cml(work, *switches))
    assert done.returncode != 0
    assert f"Run {run_id} names no Iceberg snapshot" in done.stderr


def test_05_without_aliases_leaves_the_tag_champion_on_the_newest_run_alone(work):
    client = client_of(work)
    experiment_id = client.create_experiment("auto-registration")
    others = {"registered_model": "Another Model", "registered_alias": "champion"}
    other = client.create_run(experiment_id, start_time=1, tags=others).info.run_id
    plain = client.create_run(experiment_id, start_time=2, tags={"registered_model": NAME})
    extra = in_cml(work, "no-aliases", "no-filter")
    for _ in range(2):
        printed = succeed("05_Auto_Model_Registration.py", work, **extra)
    assert "Earlier runs keep" not in printed
    newest, first, *_ = runs_in(work, "auto-registration")
    assert newest.data.tags["registered_alias"] == "champion"
    assert first.data.tags["registered_version"] == "1"
    assert "registered_alias" not in first.data.tags
    assert client_of(work).get_run(other).data.tags["registered_alias"] == "champion"
    assert client_of(work).get_run(plain.info.run_id).data.tags["registered_model"] == NAME
