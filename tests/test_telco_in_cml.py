"""Part 4 as CML runs it: a session of one kernel, five jobs, and a workbench with API v2.

The platform is a stand-in: its store, its data connection, its model metrics and its workbench (see
README.md). With `make test-parity` the environment is a session's too.
"""

import json
import re
import shutil
import signal
from types import SimpleNamespace

import pytest
from conftest import (
    CODE,
    ROOT,
    Kernel,
    client_of,
    in_cml,
    runs_in,
    start_script,
    stop_in_the_middle,
    wait_until,
)
from test_in_cml import SUSPECTED, with_spark
from workbench_server import workbench_server

pytestmark = [pytest.mark.spark, pytest.mark.timeout(1800)]  # the first test waits for the pass

EXPERIMENT, ENDPOINT, MODEL = "xgb-telco", "CellTwrFail-CLF", "CellTwrFail-CLF"
FIRST, LATER = "code/telco/01_train_xgboost.py", "code/telco/04_train_xgboost.py"
ADDON = "spark351-1241-hf1"
ROWS, DRIFT_FROM = 1000, 7  # a fifth of such a drifted day has 20 failures: fewer are not judged
POLL = {"CMLFLOW_POLL_SECONDS": "0.05"}
STORY = {"CMLFLOW_ROWS_PER_DAY": str(ROWS), "CMLFLOW_DRIFT_FROM": str(DRIFT_FROM)}
SEVERAL = {"CMLFLOW_ROWS_PER_REQUEST": "40"}
JOBS = {
    "New Batch": ("03_newbatch.py", {"CMLFLOW_DRIFT": "firmware", "CMLFLOW_DRIFT_FROM": "7"}),
    "Model Simulation": ("06_model_simulation.py", {}),
    "Model Monitoring": ("07_model_monitoring.py", {}),
    "Retrain XGBoost": ("04_train_xgboost.py", {"CMLFLOW_WHEN": "drift"}),
    "API Redeployment": ("05_api_redeployment.py", {"CMLFLOW_GATE": "on"}),
}
TABLES = ("telco_messages", "telco_cell_towers", "telco_predictions", "telco_monitoring")
READ_TABLES = """if True:
    import pathlib
    from cmlflow.spark import start_spark
    spark = start_spark("")
    for name in {names}:
        rows = spark.table(f"spark_catalog.default.{{name}}").toPandas()
        pathlib.Path({folder!r}, name + ".json").write_text(rows.to_json(orient="records"))
    spark.stop()
"""


def project_in(folder):
    """A project of its own, so that a test may change its scripts: jobs run those."""
    shutil.copytree(CODE, folder / "code", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("cmlflow", "data"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def run_lessons(kernel, server, lessons):
    passes = []
    for lesson in lessons:
        before = server.state()["requests"]
        printed = kernel.run_lesson(f"telco/{lesson}")
        one = SimpleNamespace(lesson=lesson, printed=printed, state=server.state(), before=before)
        passes.append(one)
    return passes


def tables_of(kernel, work):
    kernel.run_cell(READ_TABLES.format(names=TABLES, folder=str(work)))
    return {name: json.loads((work / f"{name}.json").read_text()) for name in TABLES}


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """Two days by hand, one by five jobs, two more by jobs that do nothing, and one by hand again.

    The second day is the first drifted one, so the jobs have its truth and a reason to retrain.
    """
    work, project = tmp_path_factory.mktemp("telco"), tmp_path_factory.mktemp("project")
    settings = POLL | with_spark(work)
    options = {"project_root": project_in(project), **settings, **SEVERAL}
    with workbench_server(work, "many-models", "any-order", **options) as server:
        extra = in_cml(work) | server.environment() | settings | STORY
        with Kernel(work, **extra) as kernel:
            kernel.limit = 800  # five jobs, each with a Java of its own
            passes = run_lessons(
                kernel,
                server,
                [
                    "00_datagen.py",
                    "01_train_xgboost.py",
                    "02_api_deployment.py",
                    "03_newbatch.py",
                    "06_model_simulation.py",
                    "03_newbatch.py",
                    "04_train_xgboost.py --max-depth 2",
                    "04_train_xgboost.py",
                ],
            )
            (newest, *_) = runs_in(work, EXPERIMENT)  # as if 05 had been stopped while it wrote
            for key, value in {"gate.mode": "off", "gate.against_run": "nobody"}.items():
                client_of(work).set_tag(newest.info.run_id, key, value)
            passes += run_lessons(
                kernel,
                server,
                [
                    "05_api_redeployment.py",
                    "06_model_simulation.py --rows-per-request 40",
                ],
            )
            kernel.run_cell("import os; os.environ['MODEL_METRICS_TAKEN'] = '0'")  # not enabled yet
            passes += run_lessons(kernel, server, ["07_model_monitoring.py"])
            kernel.run_cell("del os.environ['MODEL_METRICS_TAKEN']")
            passes += run_lessons(kernel, server, ["09_jobs.py --days 1"])
            for script, _ in JOBS.values():
                (project / "code" / "telco" / script).write_text("print('Done: nothing')")
            passes += run_lessons(
                kernel,
                server,
                [
                    "09_jobs.py --days 2",
                    "02_api_deployment.py",
                    "03_newbatch.py",
                    "06_model_simulation.py --batch",
                    "07_model_monitoring.py",
                    "04_train_xgboost.py --when drift",
                    "05_api_redeployment.py",
                ],
            )
            later = tables_of(kernel, work)
            runs = runs_in(work, EXPERIMENT)
            champion = client_of(work).get_model_version_by_alias(MODEL, "champion")
            passes[-1].versions = client_of(work).search_model_versions(f"name = '{MODEL}'")
            # One more challenger, for the test that kills what lets it serve
            kernel.run_lesson("telco/04_train_xgboost.py --max-depth 2")
            yield SimpleNamespace(
                work=work,
                server=server,
                kernel=kernel,
                extra=extra,
                passes=passes,
                tables=later,
                runs=runs,
                champion=champion,
            )


def after(session, lesson):
    return [one for one in session.passes if one.lesson.startswith(lesson)]


def creations(one):
    return {name: count for name, count in one.items() if name.startswith("create_")}


def served(state):
    """Model, version number and run id of what serves, by the workbench's own tables."""
    (model,) = (one for one in state["models"] if one["name"] == ENDPOINT)
    (running,) = (one for one in state["deployments"] if one["status"] == "deployed")
    builds = {one["id"]: one for one in state["builds"]}
    assert running["model_id"] == model["id"]
    wanted = builds[running["build_id"]]["registered_model_version_id"]
    (version,) = (one for one in state["versions"] if one["model_version_id"] == wanted)
    return model, version["number"], version["_run_id"]


def runs_of(runs, trained_by):
    found = [run for run in runs if run.data.tags["trained_by"] == trained_by]
    return sorted(found, key=lambda run: (int(run.data.tags["batch_id"]), run.info.start_time))


def test_each_reaches_its_last_line(session):
    for one in session.passes:
        assert re.search("^Done: ", one.printed, re.MULTILINE), one.printed


def test_02_makes_project_model_build_and_deployment_of_the_first_run(session):
    (first, *_) = after(session, "02")
    (run,) = runs_of(session.runs, FIRST)
    model, number, run_id = served(first.state)
    assert (number, run_id) == (1, run.info.run_id)
    (project,) = (one for one in first.state["projects"] if one["name"] == "PRD")
    (build,), (deployment,) = first.state["builds"], first.state["deployments"]
    assert build["model_id"] == deployment["model_id"] == model["id"]
    assert deployment["project_id"] == project["id"]
    assert "Proof 3: 100 answers, furthest from the model's own: 0.0e+00\n" in first.printed


def test_02_again_deploys_what_the_gate_has_promoted_and_makes_nothing(session):
    (_, second) = after(session, "02")
    assert creations(second.before) == creations(second.state["requests"])
    assert f"{ENDPOINT} served already: version 2 of " in second.printed


def test_05_keeps_the_champion_of_a_day_without_drift(session):
    (keeps, nothing) = after(session, "05")
    (first,), (_, challenger, _) = runs_of(session.runs, FIRST), runs_of(session.runs, LATER)
    assert challenger.data.tags["batch_id"] == "6"
    assert challenger.data.tags["gate.decision"] == "keep"
    assert challenger.data.tags["gate.against_run"] == first.info.run_id
    assert challenger.data.tags["gate.mode"] == "on"  # not what a stopped 05 had begun to write
    assert keeps.state["requests"]["create_model_build"] == 1
    assert creations(nothing.before) == creations(nothing.state["requests"])


def test_05_passes_over_a_challenger_of_an_earlier_day_than_the_last_verdict(session):
    (_, nothing) = after(session, "05")
    (passed_over, *_) = runs_of(session.runs, LATER)
    assert passed_over.data.tags["batch_id"] == "6"
    assert "Done: nothing to judge\n" in nothing.printed
    assert "gate.decision" not in passed_over.data.tags


def test_09_makes_five_jobs_each_the_child_of_the_one_before(session):
    (first, _) = after(session, "09")
    jobs = {job["name"]: job for job in first.state["jobs"]}
    assert sorted(jobs) == sorted(JOBS)
    order = list(JOBS)
    assert [jobs[name]["parent_id"] for name in order] == ["", *(jobs[n]["id"] for n in order[:-1])]
    for name, (script, environment) in JOBS.items():
        job = jobs[name]
        variables = job["environment"]
        variables = json.loads(variables) if isinstance(variables, str) else variables
        assert (job["script"], variables) == (f"code/telco/{script}", environment)
        assert job["runtime_addon_identifiers"] == [ADDON]
        assert (job["cpu"], job["memory"]) == (1.0, 4.0)
        assert re.search(r"python3\.\d+-standard", job["runtime_identifier"])
        assert job["timeout"] == 3600 and job["kill_on_timeout"] is True


def test_09_starts_the_first_and_each_other_follows_when_it_has_succeeded(session):
    (first, _) = after(session, "09")
    names = {job["id"]: job["name"] for job in first.state["jobs"]}
    runs = {names[run["job_id"]]: run for run in first.state["job_runs"]}
    assert len(first.state["job_runs"]) == 5
    assert {run["status"] for run in runs.values()} == {"ENGINE_SUCCEEDED"}, runs
    assert first.state["requests"]["create_job_run"] == 1
    begun = [runs[name]["scheduling_at"] for name in JOBS]
    assert begun == sorted(begun)
    assert re.findall(r"^  (\w+ ?\w+) +succeeded", first.printed, re.MULTILINE) == list(JOBS)


def test_09_again_makes_nothing_and_starts_each_chain_once(session):
    (first, second) = after(session, "09")
    ids = [job["id"] for job in first.state["jobs"]]
    assert sorted(job["id"] for job in second.state["jobs"]) == sorted(ids)
    made, made_again = creations(first.state["requests"]), creations(second.state["requests"])
    assert made_again.pop("create_job_run") == made.pop("create_job_run") + 2
    assert made_again == made
    runs = [run["job_id"] for run in second.state["job_runs"]]
    assert {job_id: runs.count(job_id) for job_id in runs} == dict.fromkeys(ids, 3)
    assert "update_job" not in second.state["requests"]


def test_the_jobs_retrain_on_the_drifted_day_and_the_winner_serves(session):
    (first, _) = after(session, "09")
    model, number, run_id = served(first.state)
    (*_, winner) = runs_of(session.runs, LATER)
    assert (number, run_id) == (2, winner.info.run_id)
    assert winner.data.tags["batch_id"] == str(DRIFT_FROM)
    assert winner.data.tags["gate.decision"] == "promote"
    builds = [one for one in first.state["builds"] if one["model_id"] == model["id"]]
    versions = [one["registered_model_version_id"] for one in builds]
    assert len(versions) == len(set(versions)) == 2
    names = [one["name"] for one in first.state["models"]]
    assert names.count(ENDPOINT) == 1
    assert not [name for name in names if name.startswith(f"{ENDPOINT}-check")]
    (before,) = (m for m in after(session, "02")[0].state["models"] if m["name"] == ENDPOINT)
    assert model["access_key"] == before["access_key"]
    assert re.search(r"^Done: 1 days \(retrain\); version 2 serves", first.printed, re.MULTILINE)


def test_the_store_names_the_winner_by_alias_and_by_tags(session):
    (first,), (_, loser, winner) = runs_of(session.runs, FIRST), runs_of(session.runs, LATER)
    champion = session.champion
    assert (int(champion.version), champion.run_id) == (2, winner.info.run_id)
    tagged = [
        run.info.run_id
        for run in session.runs
        if run.data.tags.get("registered_alias") == "champion"
    ]
    assert tagged == [winner.info.run_id]
    assert winner.data.tags["registered_version"] == "2"
    assert first.data.tags["challenged_by"] == winner.info.run_id
    assert "registered_version" not in loser.data.tags
    assert len(session.passes[-1].versions) == 2


def test_each_prediction_carries_run_version_and_the_id_that_the_platform_gave_it(session):
    (first,), (*_, winner) = runs_of(session.runs, FIRST), runs_of(session.runs, LATER)
    rows = session.tables["telco_predictions"]
    by_day = {}
    for row in rows:
        by_day.setdefault(row["batch_id"], set()).add((row["run_id"], row["version"]))
    old, new = {(first.info.run_id, 1)}, {(winner.info.run_id, 2)}
    assert by_day == {6: old, 7: old, 8: old, 9: new}
    assert len(rows) == len({row["message_id"] for row in rows}) == 4 * ROWS
    requests = {day: {r["prediction_uuid"] for r in rows if r["batch_id"] == day} for day in by_day}
    assert requests.pop(9) == {""}  # scored by --batch: no request, so no id
    assert {day: len(ids) for day, ids in requests.items()} == {
        6: ROWS,
        7: ROWS // 40,
        8: ROWS // 40,
    }
    assert all(re.fullmatch(r"[0-9a-f-]{36}", one) for ids in requests.values() for one in ids)


def test_the_monitoring_table_has_one_verdict_for_each_challenger(session):
    verdicts = [row for row in session.tables["telco_monitoring"] if row["kind"] == "verdict"]
    (_, loser, winner) = runs_of(session.runs, LATER)
    found = [(row["batch_id"], row["run_id"], row["feature"]) for row in verdicts]
    assert sorted(found) == [(6, loser.info.run_id, "on"), (7, winner.info.run_id, "on")]
    kept = [row for row in session.tables["telco_monitoring"] if row["kind"] == "decision"]
    days = {row["batch_id"]: row["feature"] for row in kept}
    assert days == {7: "wait", 8: "retrain", 9: "keep"}


def test_each_day_is_in_each_table_once(session):
    for name, days in (
        ("telco_messages", range(6, 10)),
        ("telco_cell_towers", range(1, 9)),
        ("telco_predictions", range(6, 10)),
    ):
        rows = [row["batch_id"] for row in session.tables[name]]
        assert {day: rows.count(day) for day in rows} == dict.fromkeys(days, ROWS), name


def test_06_sends_a_day_over_two_connections_that_are_kept(session):
    (first, *_) = after(session, "06")
    asked, connections = (
        first.state["requests"][name] - first.before.get(name, 0)
        for name in ("model", "connections to models")
    )
    assert asked == ROWS
    assert connections == 2


def test_the_truth_of_a_day_reaches_the_model_metrics_once_and_by_the_right_id(session):
    """The first time they are not enabled, so the truth is sent the next time, and not again."""
    lines = (session.work / "model-metrics.jsonl").read_text().splitlines()
    sent = [json.loads(line) for line in lines]
    truth = {r["message_id"]: r["cell_tower_failure"] for r in session.tables["telco_cell_towers"]}
    answered = [r for r in session.tables["telco_predictions"] if r["batch_id"] == 6]
    wanted = {row["prediction_uuid"]: truth[row["message_id"]] for row in answered}
    assert len(sent) == ROWS
    assert {one["uuid"]: one["metrics"]["final_label"] for one in sent} == wanted
    (first, later) = after(session, "07")
    assert f"Model metrics took 0 of {ROWS}: " in first.printed
    assert "Model metrics: the truth of 0 predictions\n" in later.printed


def test_the_keys_are_in_no_output_no_log_no_tag_no_table_and_no_file(session):
    (model,) = (m for m in session.passes[-1].state["models"] if m["name"] == ENDPOINT)
    keys = (session.server.key, model["access_key"])
    texts = [one.printed for one in session.passes]
    texts += [run["_log"] for run in session.passes[-1].state["job_runs"]]
    texts += [json.dumps(rows) for rows in session.tables.values()]
    texts += [f.read_bytes().decode("latin-1") for f in session.work.rglob("*") if f.is_file()]
    assert not [text[:300] for key in keys for text in texts if key in text]


def deployed_version(state):
    """The number of the version that serves; None while another takes its place."""
    running = [one["build_id"] for one in state["deployments"] if one["status"] == "deployed"]
    wanted = {one["id"]: one["registered_model_version_id"] for one in state["builds"]}
    numbers = {one["model_version_id"]: one["number"] for one in state["versions"]}
    (model,) = (one for one in state["models"] if one["name"] == ENDPOINT)
    here = {one["id"] for one in state["builds"] if one["model_id"] == model["id"]}
    found = [numbers[wanted[build_id]] for build_id in running if build_id in here]
    return found[0] if len(found) == 1 else None


def test_05_goes_on_after_a_kill_while_it_tries_a_version_and_after_it_deployed_it(session):
    server, work = session.server, session.work
    extra = session.extra | {"CMLFLOW_GATE": "off"}
    model, number, _ = served(server.state())
    assert number == 2
    made = server.state()["requests"]["create_model_build"]
    server.switch("holds=create_model_build")
    killed = start_script("telco/05_api_redeployment.py", work, **extra)
    wait_until(
        lambda: (
            killed.poll() is not None or server.state()["requests"]["create_model_build"] > made
        ),
        "a build of the new version",
    )
    stop_in_the_middle(killed, signal.SIGKILL)
    server.switch("many-models", "any-order")
    assert deployed_version(server.state()) == 2

    killed = start_script("telco/05_api_redeployment.py", work, **extra)
    wait_until(
        lambda: killed.poll() is not None or deployed_version(server.state()) == 3,
        "the deployment of version 3",
    )
    stop_in_the_middle(killed, signal.SIGKILL)

    session.kernel.run_lesson("telco/05_api_redeployment.py --gate off")
    (challenger, *_) = runs_in(work, EXPERIMENT)
    state = server.state()
    now, number, run_id = served(state)
    assert (number, run_id) == (3, challenger.info.run_id)
    assert (now["id"], now["access_key"]) == (model["id"], model["access_key"])
    names = [one["name"] for one in state["models"]]
    assert names.count(ENDPOINT) == 1
    assert not [name for name in names if name.startswith(f"{ENDPOINT}-check")]
    builds = [one for one in state["builds"] if one["model_id"] == model["id"]]
    assert len({one["registered_model_version_id"] for one in builds}) == len(builds) == 3
    client = client_of(work)
    assert len(client.search_model_versions(f"name = '{MODEL}'")) == 3
    assert int(client.get_model_version_by_alias(MODEL, "champion").version) == 3
    rows = tables_of(session.kernel, work)["telco_monitoring"]
    verdicts = [row for row in rows if row["kind"] == "verdict"]
    assert [row["run_id"] for row in verdicts].count(challenger.info.run_id) == 1
    assert len(verdicts) == 3


@pytest.fixture(scope="module")
def suspected(tmp_path_factory):
    """The shortest way to a promotion, where the platform does all that it is suspected of."""
    work, project = tmp_path_factory.mktemp("telco"), tmp_path_factory.mktemp("project")
    project_in(project)
    for script, _ in JOBS.values():
        (project / "code" / "telco" / script).write_text("print('Done: nothing')")
    settings = POLL | with_spark(work)
    switches = ("small-pages", "null-times", "other-states", "registration-takes-time")
    switches += ("no-wrapper", "impatient", "newest-first", "dashed-run-ids", "spark-4")
    with workbench_server(work, *switches, project_root=project, **settings) as server:
        extra = in_cml(work, *SUSPECTED) | server.environment() | settings
        extra |= STORY | {"CMLFLOW_DRIFT_FROM": "6"}
        with Kernel(work, **extra) as kernel:
            passes = run_lessons(
                kernel,
                server,
                [
                    "00_datagen.py",
                    "01_train_xgboost.py",
                    "02_api_deployment.py",
                    "03_newbatch.py",
                    "03_newbatch.py",
                    "04_train_xgboost.py",
                    "05_api_redeployment.py",
                    "06_model_simulation.py --rows-per-request 40",
                ],
            )
            kernel.run_cell("import os; os.environ['MODEL_METRICS_TAKEN'] = '0'")  # not enabled yet
            passes += run_lessons(kernel, server, ["07_model_monitoring.py"])
            kernel.run_cell("del os.environ['MODEL_METRICS_TAKEN']")
            passes += run_lessons(kernel, server, ["09_jobs.py --days 1"])
            tables = tables_of(kernel, work)
        yield SimpleNamespace(work=work, passes=passes, tables=tables, server=server)


def test_under_all_suspicions_each_reaches_its_last_line(suspected):
    for one in suspected.passes:
        assert re.search("^Done: ", one.printed, re.MULTILINE), one.printed
        assert "Traceback" not in one.printed


def test_under_all_suspicions_the_winner_serves_and_the_tags_say_so(suspected):
    (promoted,) = after(suspected, "05")
    (challenger,) = runs_of(runs_in(suspected.work, EXPERIMENT), LATER)
    _, number, run_id = served(promoted.state)
    assert (number, run_id) == (2, challenger.info.run_id)
    assert challenger.data.tags["gate.decision"] == "promote"
    assert challenger.data.tags["registered_alias"] == "champion"
    assert challenger.data.tags["registered_version"] == "2"
    for what in ("alias", "file of a finished run"):
        assert f"No {what}: this store refused it (NotImplementedError); see " in promoted.printed
    verdicts = [row for row in suspected.tables["telco_monitoring"] if row["kind"] == "verdict"]
    assert [row["run_id"] for row in verdicts] == [challenger.info.run_id]


def test_under_all_suspicions_the_answers_are_those_of_the_winner(suspected):
    (challenger,) = runs_of(runs_in(suspected.work, EXPERIMENT), LATER)
    rows = suspected.tables["telco_predictions"]
    assert len(rows) == 2 * ROWS
    assert {(row["run_id"], row["version"]) for row in rows} == {(challenger.info.run_id, 2)}
    assert {row["prediction_uuid"] for row in rows} == {""}  # no model metrics, so no id
    assert not (suspected.work / "model-metrics.jsonl").exists()


def test_under_all_suspicions_the_jobs_are_made_with_a_spark_3(suspected):
    (one,) = after(suspected, "09")
    assert [job["name"] for job in one.state["jobs"]] == list(JOBS)
    assert {tuple(job["runtime_addon_identifiers"]) for job in one.state["jobs"]} == {
        ("spark354-1245",)
    }
    assert {run["status"] for run in one.state["job_runs"]} == {"ENGINE_SUCCEEDED"}
