"""Part 4 where something goes wrong: each time a clear message, nothing lost, nothing twice.

One story of 400 messages a day, on which most tests look. Its windows are too small for a decision.
"""

import json
import os
import re
import signal
import subprocess

import mlflow
import numpy as np
import pandas as pd
import psutil
import pytest
from conftest import CODE, ROOT, client_of, finish, run_sql, runs_in, start_python, table_in
from filelock import FileLock
from test_telco import (
    EXPERIMENT,
    FEATURES,
    LABEL,
    MODEL,
    NAMESPACE,
    TABLES,
    THRESHOLDS,
    count_of,
    equal,
    in_order,
    rows_of,
    served,
)

from cmlflow import drift, serving, towers
from cmlflow.registry import Version

pytestmark = pytest.mark.spark
MESSAGES, PREDICTIONS = f"{NAMESPACE}.telco_messages", f"{NAMESPACE}.telco_predictions"
SMALL = ("--rows-per-day", "400")
NO_SIGNAL, LATE = 10**9, 10**9 + 1
"""The keys of two messages that the story does not have."""


class Area:
    """A working area in which lessons run; what they print, and what there is afterwards."""

    def __init__(self, work, warm):
        self.work, self.warm = work, warm
        self.said, self.counts = {}, {}

    def step(self, name, script, *options, refused=False, **extra):
        extra = {"CMLFLOW_ROWS_PER_REQUEST": "40"} | extra
        done = self.warm.run_script(f"telco/{script}", self.work, *options, **extra)
        assert done.returncode == int(refused), f"{name}: {done.stdout}\n{done.stderr[-3000:]}"
        self.said[name] = done.stderr if refused else done.stdout

    def sql(self, *statements):
        run_sql(self.warm, self.work, *statements)

    def rows(self, table, *days):
        rows = rows_of(self.work, f"telco_{table}")
        return rows[rows["batch_id"].isin(days)] if days else rows

    def model(self, run_id):
        client_of(self.work)
        return mlflow.pyfunc.load_model(f"runs:/{run_id}/model")

    def runs(self):
        return runs_in(self.work, EXPERIMENT)

    def java(self):
        """The Java of the warm kernel."""
        kernel = psutil.Process(self.warm.manager.provisioner.pid)
        (found,) = (one for one in kernel.children(recursive=True) if one.name() == "java")
        return found


@pytest.fixture(scope="module")
def begun(module_work, warm):
    """Lessons that come too early; then history, a model, and two days with other options."""
    area = Area(module_work, warm)
    area.step("03 without tables", "03_newbatch.py", refused=True)
    area.step("02 without a run", "02_api_deployment.py", refused=True)
    area.step("05 without an endpoint", "05_api_redeployment.py", refused=True)
    area.step("06 without an endpoint", "06_model_simulation.py", refused=True)
    area.step("00", "00_datagen.py", *SMALL, "--seed", "5")
    area.step("04 on the first snapshot", "04_train_xgboost.py", refused=True)
    area.step("07 without answers", "07_model_monitoring.py", refused=True)
    area.early = count_of(module_work)
    area.step("01", "01_train_xgboost.py")
    area.step("02", "02_api_deployment.py")
    area.first = served(module_work)
    area.step("03, silent", "03_newbatch.py", "--drift", "silent", "--drift-from", "6")
    area.step("03, none", "03_newbatch.py", "--drift", "none")
    return area


@pytest.mark.parametrize(
    ("name", "found", "first"),
    [
        ("03 without tables", f"There is no table {MESSAGES}.", "00_datagen"),
        ("02 without a run", f"The experiment '{EXPERIMENT}' has no run that may", "01_train_xgb"),
        ("05 without an endpoint", f"Nothing serves as '{MODEL}'.", "02_api_deployment"),
        ("06 without an endpoint", f"Nothing serves as '{MODEL}'.", "02_api_deployment"),
        ("04 on the first snapshot", " has no rows after an earlier snapshot: ", "03_newbatch"),
        ("07 without answers", " has no day of which every message has an ", "06_model_simulation"),
    ],
)
def test_a_lesson_that_comes_too_early_names_the_one_before(begun, name, found, first):
    assert found in begun.said[name]
    assert f"Run this first:  python code/telco/{first}" in begun.said[name]
    assert set(begun.early.runs.values()) == {0} and begun.early.versions == 0
    assert begun.early.snapshots == dict.fromkeys(TABLES, 1)


def test_the_same_seed_gives_the_same_rows(begun):
    story = towers.Story(5, 400)
    expected = towers.with_failures(story, towers.messages(story, range(1, 6)))
    rows = begun.rows("cell_towers", *range(1, 6))
    equal(rows.sort_values("message_id", ignore_index=True), expected)


def test_the_truth_is_of_the_world_in_which_the_messages_were_made(begun):
    """On the next day the options are others: what was drifted stays so, and nothing else is."""
    silent = towers.Story(5, 400, "silent", 6)
    rows = begun.rows("cell_towers", 6).sort_values("message_id", ignore_index=True)
    equal(rows, towers.with_failures(silent, towers.messages(silent, [6])))
    assert (rows[LABEL] != towers.failures(towers.Story(5, 400), rows)).mean() > 0.05
    marks = [
        (one.summary["telco-batch"], one.summary["telco-drift"], one.summary["telco-drift-from"])
        for one in table_in(begun.work, "telco_messages").snapshots()[1:3]
    ]
    assert marks == [("6", "silent", "6"), ("7", "none", "8")]


@pytest.fixture(scope="module")
def answered(begun):
    """The endpoint is killed in the middle of day 6; then all is answered, also odd messages."""
    area, work = begun, begun.work

    def kill_at_a_quarter(text):
        if re.search(r"^day 6: \d+ of 400 answered", text, re.MULTILINE):
            os.kill(area.first["pid"], signal.SIGKILL)

    area.step(
        "06, killed",
        "06_model_simulation.py",
        refused=True,
        seen=kill_at_a_quarter,
        CMLFLOW_ROWS_PER_REQUEST="1",
    )
    area.kept = area.rows("predictions")
    area.step("07 on half a day", "07_model_monitoring.py", refused=True)
    area.step("02 again", "02_api_deployment.py")
    area.step("06 again", "06_model_simulation.py")
    area.two_days = area.rows("predictions")

    area.step("03, odd", "03_newbatch.py")
    columns = ", ".join(f"{name}" for name in towers.messages(towers.Story(), [1]).columns)
    odd = columns.replace("message_id", f"{NO_SIGNAL}").replace(
        "iot_signal_1", "CAST(NULL AS double)"
    )
    late = columns.replace("message_id", f"{LATE}")
    of_day_8 = f"FROM {MESSAGES} WHERE message_id IN (2800, 2801, 2802)"
    area.sql(
        f"INSERT INTO {MESSAGES} SELECT {columns} {of_day_8}",
        f"INSERT INTO {MESSAGES} SELECT {odd} FROM {MESSAGES} WHERE message_id = 2803",
    )
    area.step("06, odd", "06_model_simulation.py", "--rows-per-request", "7")
    area.odd = area.rows("predictions", 8)
    area.sql(f"INSERT INTO {MESSAGES} SELECT {late} FROM {MESSAGES} WHERE message_id = 2804")
    area.step("07, day 8 incomplete", "07_model_monitoring.py")
    area.incomplete = area.rows("monitoring")

    area.step("03, batch", "03_newbatch.py")
    area.step("06 --batch", "06_model_simulation.py", "--batch")
    area.sql(
        f"INSERT OVERWRITE {PREDICTIONS} SELECT /*+ COALESCE(1) */ * FROM {PREDICTIONS} "
        "ORDER BY rand(7)"
    )
    area.step("07, all", "07_model_monitoring.py")
    assert served(work)["run_id"] == area.first["run_id"]
    return area


def test_what_was_answered_before_the_endpoint_died_is_kept_and_the_first_other_is_named(answered):
    message, day, kept, count = map(
        int,
        re.search(
            r"Message (\d+) of day (\d+) got no answer: .* (\d+) of (\d+) were answered, and are",
            answered.said["06, killed"],
        ).groups(),
    )
    assert (day, count) == (6, 400)
    assert 100 <= kept < 400 and len(answered.kept) == kept
    ids = set(range(2000, 2400))
    assert set(answered.kept["message_id"]) < ids
    assert message in ids - set(answered.kept["message_id"])
    assert (
        "run:  python code/telco/02_api_deployment.py, then this script again"
        in (answered.said["06, killed"])
    )
    assert " has no day of which every message has an answer" in answered.said["07 on half a day"]


def test_after_that_the_rest_is_sent_and_nothing_twice(answered):
    rows = answered.two_days
    assert sorted(rows["message_id"]) == list(range(2000, 2800))
    again = answered.kept.merge(rows, on="message_id", suffixes=("", "_later"))
    assert (again["requested_at"] == again["requested_at_later"]).all()
    own = answered.model(answered.first["run_id"]).predict(rows[FEATURES])
    assert np.array_equal(rows["probability"].astype("float32"), own)


def test_a_message_that_is_there_twice_is_sent_once(answered):
    assert "day 8: 3 messages are there twice; each is sent once\n" in answered.said["06, odd"]
    assert answered.odd["message_id"].is_unique
    assert sorted(answered.odd["message_id"]) == [*range(2800, 3200), NO_SIGNAL]


def test_a_missing_value_is_sent_as_missing(answered):
    (row,) = answered.odd[answered.odd["message_id"] == NO_SIGNAL].to_dict("records")
    assert np.isnan(row["iot_signal_1"])
    model = answered.model(answered.first["run_id"])
    own = model.predict(pd.DataFrame([row])[FEATURES])
    assert np.float32(row["probability"]) == own[0]
    zero = model.predict(pd.DataFrame([row | {"iot_signal_1": 0.0}])[FEATURES])
    assert own[0] != zero[0]


def test_a_day_that_is_not_complete_is_not_measured(answered):
    assert set(answered.incomplete["batch_id"]) == {6, 7}


def test_in_spark_the_same_model_gives_the_same_answers(answered):
    rows = answered.rows("predictions")
    rows = rows[rows["latency_ms"].isna()]
    assert sorted(rows["message_id"]) == [*range(3200, 3600), LATE]
    assert set(rows["run_id"]) == {answered.first["run_id"]} and set(rows["version"]) == {1}
    own = answered.model(answered.first["run_id"]).predict(rows[FEATURES])
    assert np.array_equal(rows["probability"].astype("float32"), own)


def test_the_truth_is_joined_by_the_key_in_whatever_order_the_rows_are(answered):
    predictions = answered.rows("predictions")
    assert not predictions["message_id"].is_monotonic_increasing
    truth = answered.rows("cell_towers")[["message_id", LABEL]]
    known = predictions.merge(truth, on="message_id")
    client_of(answered.work)
    reference = mlflow.artifacts.load_dict(f"runs:/{answered.first['run_id']}/reference.json")
    expected = [drift.performance(reference, rows, LABEL) for _, rows in known.groupby("batch_id")]
    found = answered.rows("monitoring")
    found = found[(found["window"] == 0) & (found["kind"] != "decision")]
    assert set(found["batch_id"]) == {6, 7, 8}
    pd.testing.assert_frame_equal(in_order(found), in_order(pd.concat(expected)), rtol=1e-12)


def test_a_window_that_is_too_small_is_refused_and_decides_nothing(answered):
    rows = answered.rows("monitoring")
    assert not set(rows["kind"]) & {"psi", "ks"}
    assert (rows.loc[rows["kind"] == "too_few", "rows"] < THRESHOLDS.min_truth_rows / 3).all()
    assert re.search(
        r"\nDone: day 9: keep\. Too few rows in a window of day 9: 133, at least \d+\.\n",
        answered.said["07, all"],
    )
    assert "PSI of day 9 by window:\ntoo few messages\n" in answered.said["07, all"]


KILL = """
import json, os, signal, sys
from pathlib import Path
import mlflow, mlflow.xgboost, pandas, pyspark.sql, sklearn.metrics
from pyspark.sql.readwriter import DataFrameWriterV2
from cmlflow import drift, gate, promotion, registry, runner, serving, store, towers
from cmlflow.serving import on_laptop

PLACES = {
    "register": (mlflow, "register_model"),
    "prove": (on_laptop, "_ready"),
    "verdict": (drift, "verdict_rows"),
    "create": (DataFrameWriterV2, "createOrReplace"),
}


def die_at(where, time):
    owner, name = PLACES[where]
    real, times = getattr(owner, name), []

    def call(*given, **named):
        times.append(1)
        if len(times) == time:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*given, **named)

    setattr(owner, name, call)


print("ready", flush=True)
for line in sys.stdin:
    where, time, script, *options = json.loads(line)
    child = os.fork()
    if not child:
        die_at(where, time)
        runner.run(Path(script), options)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""Runs a lesson in a process of its own up to a call, at which `kill -9` ends it."""


@pytest.fixture(scope="module")
def kill_at(begun):
    """A process that has imported what lessons import, and whose children are killed."""
    process = start_python(KILL, begun.work, cwd=ROOT, stdin=subprocess.PIPE)
    assert process.stdout.readline() == "ready\n"

    def kill(where, time, script, *options):
        words = (where, time, str(CODE / "telco" / script), *options)
        process.stdin.write(json.dumps(words) + "\n")
        process.stdin.flush()
        for line in process.stdout:
            if re.fullmatch(r"-?\d+\n", line):
                assert line == f"{-signal.SIGKILL}\n"
                return
        raise AssertionError(finish(process).stderr)

    yield kill
    process.kill()
    finish(process)


def verdicts(area):
    rows = area.rows("monitoring")
    rows = rows[rows["kind"] == "verdict"]
    return sorted(
        rows[["batch_id", "feature", "value", "run_id"]].itertuples(index=False, name=None)
    )


def versions(area):
    found = client_of(area.work).search_model_versions()
    return {one.run_id: int(one.version) for one in found}


def processes(area):
    """The processes of the endpoints of an area."""
    return [
        one.pid
        for one in psutil.process_iter(["cmdline"])
        if str(area.work) in (one.info["cmdline"] or [])[2:3]
    ]


@pytest.fixture(scope="module")
def redeployed(answered, kill_at):
    """05 is killed at three places, with other challengers in between; then it ends."""
    area, gate_off = answered, ("05_api_redeployment.py", "--gate", "off")
    area.step("04", "04_train_xgboost.py")
    area.a = area.runs()[0].info.run_id
    kill_at("register", 1, *gate_off)
    area.after_register = (served(area.work), versions(area), verdicts(area))
    area.step("04, another", "04_train_xgboost.py", "--max-depth", "2")
    area.c = area.runs()[0].info.run_id
    kill_at("prove", 1, *gate_off)
    area.after_prove = (served(area.work), versions(area), verdicts(area))
    kill_at("verdict", 1, *gate_off)
    area.after_verdict = (served(area.work), versions(area), verdicts(area))
    area.step("05, the end", *gate_off)
    area.at_the_end = (served(area.work), versions(area), verdicts(area))
    area.running = processes(area)
    area.step("05, the other", "05_api_redeployment.py")
    area.step("04, a third", "04_train_xgboost.py", "--max-leaves", "3")
    area.step("03, redeployed", "03_newbatch.py")
    area.step("04, next day", "04_train_xgboost.py")
    area.b = area.runs()[0].info.run_id
    area.step("05, next day", *gate_off)
    area.step("05, too late", *gate_off)
    area.late = (served(area.work), versions(area), verdicts(area))
    area.tags = {run.info.run_id: run.data.tags for run in area.runs()}
    return area


def test_killed_before_the_registration_the_old_one_serves_and_nothing_is_there(redeployed):
    serves, found, rows = redeployed.after_register
    assert serves == served_before(redeployed, serves)
    assert found == {redeployed.first["run_id"]: 1} and rows == []


def served_before(area, serves):
    """What served after 02 had started the endpoint again; its process is another."""
    return area.first | {name: serves[name] for name in ("pid", "port", "ends")}


def test_killed_before_the_proof_the_old_one_serves(redeployed):
    serves, found, rows = redeployed.after_prove
    assert serves == served_before(redeployed, redeployed.after_register[0])
    assert found == {redeployed.first["run_id"]: 1, redeployed.c: 2} and rows == []


def test_killed_before_the_verdicts_row_the_new_one_serves_and_is_not_yet_judged(redeployed):
    serves, found, rows = redeployed.after_verdict
    assert (serves["run_id"], serves["version"]) == (redeployed.c, 2)
    assert found == redeployed.after_prove[1] and rows == []


def test_the_next_run_comes_to_the_end_that_an_undisturbed_one_has(redeployed):
    serves, found, rows = redeployed.at_the_end
    assert serves == redeployed.after_verdict[0]
    assert found == redeployed.after_prove[1]
    assert rows == [(8, "off", 1.0, redeployed.c)]
    assert redeployed.running == [serves["pid"]]
    champion = client_of(redeployed.work).get_model_version_by_alias(MODEL, "champion")
    assert champion.run_id == redeployed.b  # by now
    tags = redeployed.tags[redeployed.c]
    assert tags["gate.decision"] == "promote" and tags["gate.mode"] == "off"


def test_with_the_gate_off_the_verdict_says_that_nobody_judged(redeployed):
    for run_id in (redeployed.c, redeployed.b):
        assert redeployed.tags[run_id]["gate.reason"].startswith(
            "not judged, the gate is off; it would say keep: "
        )
    assert "Verdict: promote, not judged, the gate is off" in redeployed.said["05, next day"]


def test_a_verdict_against_a_champion_that_is_gone_does_not_count(redeployed):
    """The first challenger was to be promoted when 05 was killed; then another took the place."""
    assert f"Challenger: run {redeployed.a}\n" in redeployed.said["05, the other"]
    tags = redeployed.tags[redeployed.a]
    assert (tags["gate.decision"], tags["gate.mode"]) == ("keep", "on")
    assert tags["gate.against_run"] == redeployed.c
    assert "too few of one kind to judge" in tags["gate.reason"]


def test_a_challenger_of_an_older_day_than_the_newest_verdict_comes_too_late(redeployed):
    serves, found, rows = redeployed.late
    assert (serves["run_id"], serves["version"]) == (redeployed.b, 3)
    assert "Done: nothing to judge\n" in redeployed.said["05, too late"]
    assert [run_id for *_, run_id in rows][-1] == redeployed.b and len(rows) == 3
    assert len(found) == 3


@pytest.fixture(scope="module")
def looped(redeployed):
    """A day that has begun, and the loop; then the loop while another lesson has the tables."""
    area = redeployed
    area.step("09", "09_jobs.py", "--days", "1", "--drift", "none")
    area.before = count_of(area.work)
    area.loop = {name: area.rows(name) for name in ("messages", "predictions", "monitoring")}
    with FileLock(area.work / "spark-warehouse.lock"):
        area.step("03, busy", "03_newbatch.py", refused=True)
    (facts,) = (area.work / "endpoints").glob("*.json")
    facts.rename(facts.with_suffix(".aside"))
    area.step("09, nothing serves", "09_jobs.py", "--days", "1", refused=True)
    area.after_failure = count_of(area.work)
    facts.with_suffix(".aside").rename(facts)
    kernel, served_by = psutil.Process(area.warm.manager.provisioner.pid), []

    def take_over_at_a_quarter(text):
        if not served_by and re.search(r"^day 12: \d+ of 400 answered", text, re.MULTILINE):
            kernel.suspend()
            served_by.append(deploy_the_first(area))
            kernel.resume()

    area.step(
        "06, taken over",
        "06_model_simulation.py",
        seen=take_over_at_a_quarter,
        CMLFLOW_ROWS_PER_REQUEST="1",
    )
    return area


def deploy_the_first(area):
    """Let the endpoint serve version 1 again, as somebody else might do at that moment."""
    model = area.model(area.first["run_id"])
    probe = towers.messages(towers.Story(), [1]).head(10)[FEATURES]
    before = os.environ.get("CMLFLOW_WORKAREA")
    os.environ["CMLFLOW_WORKAREA"] = str(area.work)
    try:
        version = Version(MODEL, 1, area.first["run_id"])
        return serving.deploy(MODEL, version, serving.Check(probe, model.predict(probe)))
    finally:
        del os.environ["CMLFLOW_WORKAREA"]
        os.environ |= {} if before is None else {"CMLFLOW_WORKAREA": before}


def test_if_another_version_takes_over_the_whole_day_is_answered_by_it(looped):
    first = looped.first["run_id"]
    assert (
        f"day 12: version 1 of '{MODEL}' (run {first}) took over meanwhile"
        in (looped.said["06, taken over"])
    )
    rows = looped.rows("predictions", 12)
    assert sorted(rows["message_id"]) == list(range(4400, 4800))
    assert set(rows["run_id"]) == {first} and set(rows["version"]) == {1}
    own = looped.model(first).predict(rows[FEATURES])
    assert np.array_equal(rows["probability"].astype("float32"), own)


@pytest.fixture(scope="module")
def full(looped):
    """A disk without room for a file, and then a clock that was set back by an hour."""
    area = looped
    before = area.java().rlimit(psutil.RLIMIT_FSIZE)
    area.before_full = count_of(area.work)
    area.java().rlimit(psutil.RLIMIT_FSIZE, (2000, before[1]))
    try:
        area.step("03, disk full", "03_newbatch.py", refused=True)
    finally:
        area.java().rlimit(psutil.RLIMIT_FSIZE, before)
    area.after_full = count_of(area.work)

    folder = area.work / "spark-warehouse" / "default" / "telco_messages" / "metadata"
    file = folder / f"v{(folder / 'version-hint.text').read_text().strip()}.metadata.json"
    for sum_of_hadoop in folder.glob(".*.crc"):
        sum_of_hadoop.unlink()
    written = file.read_text()
    later = json.loads(written)
    later["last-updated-ms"] += 3_600_000
    for entry in (*later["snapshots"], *later["snapshot-log"], *later["metadata-log"]):
        entry["timestamp-ms"] += 3_600_000
    file.write_text(json.dumps(later))
    area.step("03, clock", "03_newbatch.py", refused=True)
    area.after_clock = count_of(area.work)
    file.write_text(written)
    area.step("03, all is well", "03_newbatch.py")

    # Day 12 was answered by version 1, day 13 is by version 3; both are measured at once.
    area.step("02, the newest", "02_api_deployment.py")
    area.step("06, day 13", "06_model_simulation.py")
    area.step("07, two versions", "07_model_monitoring.py")
    return area


def test_each_day_is_compared_with_the_reference_of_the_run_that_answered_it(full):
    client_of(full.work)
    truth = full.rows("cell_towers")[["message_id", LABEL]]
    for day, run_id in ((12, full.first["run_id"]), (13, full.b)):
        rows = full.rows("predictions", day)
        assert set(rows["run_id"]) == {run_id}
        reference = mlflow.artifacts.load_dict(f"runs:/{run_id}/reference.json")
        expected = [drift.measure(reference, drift.in_windows(rows), THRESHOLDS)]
        if day == 12:
            known = rows.merge(truth, on="message_id")
            expected.append(drift.performance(reference, known, LABEL))
        found = full.rows("monitoring", day)
        found = found[found["kind"] != "decision"]
        pd.testing.assert_frame_equal(in_order(found), in_order(pd.concat(expected)), rtol=1e-12)


def test_a_full_disk_is_named_and_leaves_the_tables_as_they_were(full):
    error = full.said["03, disk full"].partition("LessonError: ")[2]
    assert error.startswith(f"{NAMESPACE}.telco_cell_towers could not be written: ")
    assert "File too large" in error.splitlines()[0]
    assert "run the same lesson again" in error.splitlines()[2]
    assert full.after_full == full.before_full


def test_a_clock_that_was_set_back_is_named(full):
    error = full.said["03, clock"].partition("LessonError: ")[2]
    assert error.splitlines()[0] == (
        f"{MESSAGES} could not be written: its newest snapshot is of a later time than this "
        "machine's clock shows."
    )
    assert full.after_clock.snapshots["telco_messages"] == full.before_full.snapshots[
        "telco_messages"
    ]  # fmt: skip


def test_after_that_the_same_lesson_goes_on_from_what_is_there(full):
    """The truth of the day before had been written, and is not written twice."""
    assert full.said["03, all is well"].count("Done: the messages of day 13\n") == 1
    for table, days in (("messages", range(6, 14)), ("cell_towers", range(1, 13))):
        rows = full.rows(table)
        rows = rows[rows["message_id"] < NO_SIGNAL].drop_duplicates("message_id")
        assert sorted(rows["message_id"]) == list(range((days[0] - 1) * 400, days[-1] * 400))
    assert full.rows("cell_towers")["message_id"].is_unique


def test_a_day_that_has_begun_is_ended_before_another_begins(looped):
    """Were it not so, a loop that was stopped would go on without what it had not yet done."""
    rows = looped.loop["monitoring"]
    decisions = rows[rows["kind"] == "decision"]["batch_id"].tolist()
    assert sorted(decisions) == [7, 9, 10, 11]
    assert "\nTo come: Day 10 had begun, Day 1 of 1\n" in looped.said["09"]
    messages, answered = (looped.loop[name]["message_id"] for name in ("messages", "predictions"))
    assert set(answered) == set(messages)


def test_two_chains_at_once_are_one_too_many_and_the_second_says_so(looped):
    assert f"SparkBusy: Another lesson uses Spark here: {looped.work}\n" in looped.said["03, busy"]


def test_a_step_that_fails_stops_the_loop_with_its_reason(looped):
    told = looped.said["09, nothing serves"]
    assert f"The step Model Simulation ended as failed: Nothing serves as '{MODEL}'.\n" in told
    assert "Run this first:  python code/telco/02_api_deployment.py\n" in told
    assert "run:  python code/telco/06_model_simulation.py" in told
    after = looped.after_failure
    assert after.runs == looped.before.runs
    grown = {name for name in TABLES if after.snapshots[name] > looped.before.snapshots[name]}
    assert grown == {"telco_messages", "telco_cell_towers"}  # the first step had succeeded


def test_a_killed_generator_leaves_no_old_rows_and_then_a_new_story_begins(full, kill_at):
    """The tables that depend on others are emptied first, and the last one is the story's own."""
    kill_at("create", 4, "00_datagen.py", *SMALL, "--seed", "6")
    told = table_in(full.work, "telco_cell_towers").properties
    left = [name for name in TABLES[1:] if len(rows_of(full.work, name))]
    assert told["telco.seed"] == "5" and left == []
    full.step("00, again", "00_datagen.py", *SMALL, "--seed", "6")
    told = table_in(full.work, "telco_cell_towers").properties
    assert told["telco.seed"] == "6"
    assert [len(rows_of(full.work, name)) for name in TABLES] == [2000, 0, 0, 0]

    # What serves is of the old story, and knows a later day than any challenger of the new one.
    full.step("03, day 6", "03_newbatch.py")
    full.step("03, day 7", "03_newbatch.py")
    full.step("04, new story", "04_train_xgboost.py")
    full.step("05, new story", "05_api_redeployment.py", "--gate", "dry-run")
    assert served(full.work)["run_id"] == full.b
    assert f"Challenger: run {full.runs()[0].info.run_id}\n" in full.said["05, new story"]


def test_a_table_of_somebody_else_is_left_alone_and_so_are_the_others(warm, work):
    run_sql(warm, work, f"CREATE TABLE {PREDICTIONS} USING iceberg AS SELECT 1 AS mine")
    done = warm.run_script("telco/00_datagen.py", work, *SMALL)
    assert done.returncode == 1
    assert f"TableTaken: {PREDICTIONS} is there already, and no lesson made it" in done.stderr
    assert rows_of(work, "telco_predictions")["mine"].tolist() == [1]
    assert [path.name for path in (work / "spark-warehouse" / "default").iterdir()] == [
        "telco_predictions"
    ]
