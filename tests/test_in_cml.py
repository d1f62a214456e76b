"""All lessons as a CML session and a CML job run them, as far as that can be had without CML.

The platform is a stand-in: its store in `standins/cml_store`, its data connection in
`standins/cml`. With `make test-parity` the environment is a session's too: mlflow-skinny 2.19.0,
Spark outside pip, Iceberg 1.5.2. What the lessons left is read without the stand-in.
"""

import hashlib
import os
import re
import threading
import urllib.request
from contextlib import contextmanager
from types import SimpleNamespace

import mlflow
import numpy as np
import pandas as pd
import psutil
import pytest
from conftest import (
    ADDON,
    CML_STORE,
    Kernel,
    client_of,
    files_of,
    finish,
    in_cml,
    python,
    run_script,
    runs_in,
    start_script,
    succeed,
)
from platformdirs import user_cache_path
from standins.cml_store.cml_store import SWITCHES

import tutorial

PARITY = ADDON.is_dir()
WINES = "wine-quality-test"
NAME = "Auto-Deployed Model"
LESSONS = [lesson for lesson in tutorial.LESSONS if lesson < "2"]  # Part 3: test_part3_in_cml.py
LESSONS.insert(LESSONS.index("02_log_model.py") + 1, "02_log_model.py --alpha 0.9")  # is worse
LESSONS.insert(LESSONS.index("05_Auto_Model_Registration.py"), "05_Auto_Model_Registration.py")
MOST_BYTES = 3 * 2**30  # a session has 4 GiB, also for the kernel and the editor
SUSPECTED = tuple(switch for switch in SWITCHES if switch != "no-registry")
# The passes below look at files that 08 and 12 add to finished runs; test_telco_in_cml.py does not.
LATE = {"no-late-files"}
WAYS = {
    "kernel as known": (),
    "kernel as suspected": tuple(one for one in SUSPECTED if one not in LATE),
    "processes as known": (),
    "processes as suspected": tuple(one for one in SWITCHES if one not in LATE),
}
EXPERIMENTS = {  # and the runs that one pass through the lessons leaves there
    "example-experiment": 2,
    WINES: 4,
    "auto-registration": 2,
    "sparkml-experiment": 3,
    "keep-snapshot": 1,
    "reproductions": 1,
}
SCORES = {  # experiment: its metric
    "sklearn-classification": "test_accuracy",
    "sklearn-comparison": "best_test_accuracy",
    "sklearn-tuning": "test_accuracy",
}
KEPT = "No removal of the tag from earlier runs"
NO_REGISTRY = "MlflowException: this workbench has no model registry"
FIRST = "MlflowException: missing experiment_id"
JAR_OF_CML = "iceberg-spark-runtime-3.5_2.12-1.5.2.jar"
JAR_URL = (
    "https://repo1.maven.org/maven2/org/apache/iceberg/iceberg-spark-runtime-3.5_2.12/1.5.2/"
    + JAR_OF_CML
)
JAR_SHA512 = (
    "e67ea2ae1a72bba299dd3a3e08146058c352f31db49ce53e6c38e2f4885376d1"
    "d53770015518ca610ede5d2db89703c1ffb288f1b7b716ac5b41951e576ab580"
)


def jar_of_the_data_connection():
    """The Iceberg that CML's Spark has."""
    jar = user_cache_path("cmlflow", appauthor=False) / JAR_OF_CML
    if not jar.is_file():
        jar.parent.mkdir(parents=True, exist_ok=True)
        part = jar.with_suffix(f".{os.getpid()}.part")
        urllib.request.urlretrieve(JAR_URL, part)
        assert hashlib.sha512(part.read_bytes()).hexdigest() == JAR_SHA512
        part.replace(jar)
    return jar


def with_spark(work):
    """What leads a lesson to the data connection, whose tables lie in the working area."""
    return {
        "CONNECTION_NAME": "test-lake",
        "ICEBERG_JAR": str(jar_of_the_data_connection()),
        "LAKE": str(work / "lake"),
    }


@contextmanager
def peak_memory(pid):
    """Measure the most memory that a process and its children, Java too, had at one moment."""
    found, ended = SimpleNamespace(bytes=0), threading.Event()
    parent = psutil.Process(pid)

    def measure():
        while True:
            used = 0
            try:
                for process in (parent, *parent.children(recursive=True)):
                    used += process.memory_info().rss
                found.bytes = max(found.bytes, used)
            except psutil.NoSuchProcess:  # a child that has just ended
                pass
            if ended.wait(0.2):
                return

    thread = threading.Thread(target=measure)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()


def all_in_one_kernel(lessons, work, extra):
    """Run All of one lesson after the other; options as variables, as a session gives them."""
    printed, peaks = {}, {}
    with Kernel(work, **extra) as kernel:
        for lesson in lessons:
            with peak_memory(kernel.manager.provisioner.pid) as peak:
                printed[lesson] = kernel.run_lesson(lesson)
            peaks[lesson] = peak.bytes
    return printed, peaks


def each_in_its_own_process(lessons, work, extra):
    """As a job runs a lesson: `None` is the argument of a job that was given none."""
    printed, peaks = {}, {}
    for lesson in lessons:
        script, *options = lesson.split()
        process = start_script(script, work, *options, "None", **extra)
        with peak_memory(process.pid) as peak:
            done = finish(process)
        assert done.returncode == 0, f"{lesson}: {done.stdout[-1000:]}\n{done.stderr[-3000:]}"
        printed[lesson], peaks[lesson] = done.stdout, peak.bytes
    return printed, peaks


@pytest.fixture(
    scope="module",
    params=[pytest.param(way, id=way.replace(" ", "-")) for way in WAYS],
)
def cml(request, tmp_path_factory):
    """All lessons: what each printed when it ran for the last time, and the memory it took."""
    work, way = tmp_path_factory.mktemp("cml"), request.param
    run = all_in_one_kernel if "kernel" in way else each_in_its_own_process
    extra = in_cml(work, *WAYS[way]) | with_spark(work)
    printed, peaks = run(LESSONS, work, extra)
    return SimpleNamespace(work=work, switches=WAYS[way], printed=printed, peaks=peaks, way=way)


@pytest.fixture
def work(tmp_path):
    """A working area with a fresh store of the platform."""
    mlflow.MlflowClient((tmp_path / CML_STORE).as_uri()).search_experiments()
    return tmp_path


TRY_ALL = """if True:
    import mlflow
    from mlflow.entities import DatasetInput, Dataset
    client = mlflow.MlflowClient()
    e, other = (client.get_experiment_by_name(name).experiment_id for name in ("e", "other"))
    def attempt(what, call):
        try:
            print(what, call())
        except Exception as error:
            print(what, f"{type(error).__name__}: {error}")
    def search(*words, **options):
        found = client.search_runs([e], *words, **options)
        return *(run.data.metrics["rmse"] for run in found), found[0].info.status
    first = mlflow.MlflowClient(FILES).search_runs([e], order_by=["attributes.start_time"])[0]
    first = first.info.run_id
    dataset = DatasetInput(Dataset("rows", "1", "local", "{}"))
    attempt("unset", lambda: client.get_run(first).info.run_id == first)
    mlflow.set_experiment("e")
    attempt("set", lambda: client.get_run(first).info.run_id == first)
    attempt("name", lambda: client.get_run(first).info.run_name)
    attempt("plain", lambda: search())
    attempt("filter", lambda: search("metrics.rmse < 2"))
    attempt("order", lambda: search(order_by=["metrics.rmse"]))
    attempt("other", lambda: len(client.search_runs([other])))
    attempt("list", lambda: len(client.search_experiments(filter_string="name != 'Default'")))
    attempt("delete", lambda: client.delete_tag(first, "colour"))
    attempt("dataset", lambda: client.log_inputs(first, datasets=[dataset]))
    attempt("file", lambda: client.log_text(first, "text", "late.txt"))
    client.set_terminated(first)
    attempt("late", lambda: client.log_text(first, "text", "late.txt"))
    attempt("version", lambda: client.create_model_version("m", "file:///none").version)
    attempt("versions", lambda: len(client.search_model_versions("name = 'm'")))
    attempt("alias", lambda: client.set_registered_model_alias("m", "champion", 1))
"""
NOT = "NotImplementedError: this store was started with"


@pytest.mark.parametrize(
    ("switches", "different"),
    [
        ((), {}),
        (("experiment-first",), {"unset": FIRST}),
        (("no-registry",), dict.fromkeys(("version", "versions", "alias"), NO_REGISTRY)),
        (
            SUSPECTED,
            {
                "unset": FIRST,
                "name": "None",
                "filter": "(2.0, 1.0, 'EXPERIMENT_RUN_RUNNING')",
                "order": "(2.0, 1.0, 'EXPERIMENT_RUN_RUNNING')",
                "other": FIRST,
                "list": f"{NOT} no-list",
                "delete": f"{NOT} no-delete",
                "dataset": f"{NOT} no-datasets",
                "late": f"{NOT} no-late-files",
                "versions": f"{NOT} no-version-search",
                "alias": f"{NOT} no-aliases",
            },
        ),
        (("only-set-experiment",), {"unset": FIRST, "other": FIRST, "list": "1"}),
    ],
    ids=["as known", "experiment-first", "no-registry", "as suspected", "only-set-experiment"],
)
def test_the_stand_in_does_what_it_stands_for(work, switches, different):
    client = client_of(work)
    for start, (experiment, rmse) in enumerate((("e", 2), ("e", 1), ("other", 3))):
        found = client.get_experiment_by_name(experiment)
        run = client.create_run(
            found.experiment_id if found else client.create_experiment(experiment),
            start_time=start + 1,
            tags={"colour": "red"},
            run_name="grape",
        )
        client.log_metric(run.info.run_id, "rmse", rmse)
    client.create_registered_model("m")
    code = f"FILES = {(work / CML_STORE).as_uri()!r}\n{TRY_ALL}"
    printed = python(code, work, **in_cml(work, *switches))
    answers = dict(line.split(" ", 1) for line in printed.splitlines())
    assert (
        answers
        == {
            "unset": "True",
            "set": "True",
            "name": "grape",
            "plain": "(2.0, 1.0, 'EXPERIMENT_RUN_RUNNING')",
            "filter": "(1.0, 'EXPERIMENT_RUN_RUNNING')",
            "order": "(1.0, 2.0, 'EXPERIMENT_RUN_RUNNING')",
            "other": "1",
            "list": "2",
            "delete": "None",
            "dataset": "None",
            "file": "None",
            "late": "None",
            "version": "1",
            "versions": "1",
            "alias": "None",
        }
        | different
    )


@pytest.mark.skipif(not PARITY, reason="make test-parity: this environment is a laptop's")
def test_the_environment_is_that_of_a_session(work):
    printed = python(
        "import importlib.util, pyspark\n"
        "from importlib import metadata\n"
        "names = {(one.metadata['Name'] or '').lower() for one in metadata.distributions()}\n"
        "print(metadata.version('mlflow-skinny'), pyspark.__version__)\n"
        "print(names & {'mlflow', 'pyspark', 'py4j', 'sqlalchemy', 'alembic'})\n"
        "print(importlib.util.find_spec('sqlalchemy'))\n",
        work,
        **in_cml(work),
    )
    assert re.fullmatch(r"2\.19\.0 3\.5\.\d+\nset\(\)\nNone\n", printed)


@pytest.mark.skipif(not PARITY, reason="make test-parity: this environment is a laptop's")
@pytest.mark.spark
class TestAllLessons:
    def test_each_reaches_its_last_line_and_shows_no_prefix_and_no_missing_name(self, cml):
        for lesson, printed in cml.printed.items():
            assert "Done: " in printed, lesson
            assert "EXPERIMENT_RUN_" not in printed, lesson
            assert "Traceback" not in printed, lesson
            assert not re.search(r"\bNone\b(?!\n)", printed), lesson

    def test_each_fits_into_a_session_of_4_gib(self, cml, record_property):
        for lesson, peak in cml.peaks.items():
            record_property(f"peak memory, {cml.way}", f"{peak / 2**20:5.0f} MiB  {lesson}")
        assert all(0 < peak < MOST_BYTES for peak in cml.peaks.values()), cml.peaks

    def test_runs_and_files_are_in_the_platforms_store_and_nowhere_else(self, cml):
        for experiment, count in EXPERIMENTS.items():
            runs = runs_in(cml.work, experiment)
            assert [run.info.status for run in runs] == ["FINISHED"] * count, experiment
            for run in runs:
                assert run.info.artifact_uri.startswith((cml.work / "cml-artifacts").as_uri())
        known = {CML_STORE, "cml-artifacts", "lake", "data", "spark-tmp"}
        assert {path.name for path in cml.work.iterdir()} - known == set()

    def test_01_tells_the_state_of_its_runs_as_mlflow_does(self, cml):
        printed = cml.printed["01_Active_Experiment.py"]
        with_block, by_hand = runs_in(cml.work, "example-experiment")
        assert f"Active run {by_hand.info.run_id}, status RUNNING" in printed
        for run in (by_hand, with_block):
            name = run.info.run_id if "no-names" in cml.switches else run.info.run_name
            assert f"\n{name}: FINISHED, {{'rows': '4898'}}" in printed

    def test_01_and_02_log_params_metrics_models_and_files(self, cml):
        by_name = {}
        for run in runs_in(cml.work, WINES):
            by_name.setdefault(run.info.run_name, []).append(run)
        (plain,), (files,) = by_name["elasticnet"], by_name["files-and-tags"]
        newer, older = by_name["elasticnet-with-model"]
        assert plain.data.metrics["rmse"] == pytest.approx(0.82224284976, abs=1e-9)
        assert (older.data.params["alpha"], newer.data.params["alpha"]) == ("0.6", "0.9")
        for run in (newer, older):
            mlflow.set_registry_uri(None)
            model = mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/model")
            assert model.metadata.signature is not None
        assert "states/json.json" in files_of(cml.work, files)

    def test_03_lists_the_scored_runs_best_first(self, cml):
        scored = [run for run in runs_in(cml.work, WINES) if "rmse" in run.data.metrics]
        scored.sort(key=lambda run: run.data.metrics["rmse"])
        printed = cml.printed["03_Get_Experiment.py"]
        listed = re.findall(r"^ +0\.\d{4} .* (\S+) +([0-9a-f]{32})$", printed, re.MULTILINE)
        assert listed == [("FINISHED", run.info.run_id) for run in scored]
        assert f"best of 3 runs has rmse 0.822 (run {scored[0].info.run_id})" in printed

    def test_04_scores_with_the_newest_model(self, cml):
        newer = next(run for run in runs_in(cml.work, WINES) if run.data.params["alpha"] == "0.9")
        scored = pd.read_csv(cml.work / "data" / "predictions.csv")
        assert set(scored["run_id"]) == {newer.info.run_id}
        rmse = np.sqrt(((scored["quality"] - scored["prediction"]) ** 2).mean())
        assert rmse == pytest.approx(newer.data.metrics["rmse"], rel=1e-9)
        name = newer.info.run_id if "no-names" in cml.switches else newer.info.run_name
        assert f"of run {name}\n" in cml.printed["04_Predict_Batch.py"]

    def test_05_names_the_champion_by_alias_or_by_tag_or_says_that_there_is_no_registry(self, cml):
        newest, first = runs_in(cml.work, "auto-registration")
        printed = cml.printed["05_Auto_Model_Registration.py"]
        tags = [run.data.tags.get("registered_alias") for run in (newest, first)]
        if "no-registry" in cml.switches:
            assert "No model version: this store refused it (MlflowException)" in printed
            assert tags[0] == "champion"
            assert client_of(cml.work).search_registered_models() == []
            return
        aliases = client_of(cml.work).get_registered_model(NAME).aliases
        if "no-aliases" in cml.switches:  # and "no-delete"
            assert aliases == {}
            assert f"{KEPT}: this store refused it (NotImplementedError)" in printed
            assert "; the tag registered_alias of the run says champion.\n" in printed
            assert "alias champion" not in printed
        else:
            assert {name: int(number) for name, number in aliases.items()} == {"champion": 2}
            assert tags == ["champion", None]
            assert ", its alias champion and its schema.\n" in printed
        assert tags[0] == "champion" and newest.data.tags["registered_version"] == "2"
        mlflow.set_registry_uri(None)
        loaded = mlflow.pyfunc.load_model(f"models:/{NAME}/2")
        assert loaded.metadata.run_id == newest.info.run_id

    def test_06_trains_twice_on_the_same_snapshot_the_second_time_for_longer(self, cml):
        third, second, first = runs_in(cml.work, "sparkml-experiment")
        snapshots = [run.data.tags["iceberg_snapshot_id"] for run in (first, second, third)]
        assert snapshots[0] == snapshots[2] != snapshots[1]
        assert first.data.metrics["train_loss"] > third.data.metrics["train_loss"] > 0
        for run in (first, second, third):
            assert len(run.inputs.dataset_inputs) == ("no-datasets" not in cml.switches)

    def test_08_repeats_the_run_of_07_to_the_last_bit(self, cml):
        (original,) = runs_in(cml.work, "keep-snapshot")
        (again,) = runs_in(cml.work, "reproductions")
        assert again.data.tags["reproduction_of"] == original.info.run_id
        assert again.data.tags["reproduction_verdict"] == "identical"

    def test_10_to_13_score_above_their_baseline(self, cml):
        for experiment, metric in SCORES.items():
            scores = [run.data.metrics.get(metric, 0) for run in runs_in(cml.work, experiment)]
            assert max(scores) > 0.6, experiment

    def test_14_and_15_find_frauds_and_14_has_more_rows_the_second_time(self, cml):
        found = runs_in(cml.work, "xgboost-fraud")
        runs = [run for run in found if "baseline_average_precision" in run.data.metrics]
        distributed, second, first = runs
        counts = [run.data.tags["row_count"] for run in (first, second, distributed)]
        assert counts == ["10000", "20000", "20000"]
        for run in runs:
            score = run.data.metrics["average_precision"]
            assert score > 5 * run.data.metrics["baseline_average_precision"]


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
    assert KEPT not in printed
    newest, first, *_ = runs_in(work, "auto-registration")
    assert newest.data.tags["registered_alias"] == "champion"
    assert first.data.tags["registered_version"] == "1"
    assert "registered_alias" not in first.data.tags
    assert client_of(work).get_run(other).data.tags["registered_alias"] == "champion"
    assert client_of(work).get_run(plain.info.run_id).data.tags["registered_model"] == NAME
