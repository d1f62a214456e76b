import re
import signal
from types import SimpleNamespace

import numpy as np
import pandas as pd
import psutil
import pytest
from conftest import (
    CODE,
    STANDINS,
    CellFailed,
    Kernel,
    run_script,
    run_sql,
    start_script,
    stop_in_the_middle,
    succeed,
    table_in,
    wait_until,
)
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cmlflow.spark import iceberg_jar

SCRIPT = "00_datagen.py"
TABLE = "transactions"
ROWS = 10_000


def rows_of(work, snapshot_id=None, name=TABLE):
    scan = table_in(work, name).scan(snapshot_id=snapshot_id)
    return scan.to_pandas().sort_values("transaction_id", ignore_index=True)


@pytest.fixture(scope="module")
def area(module_work, warm):
    """Written on all cores, written again on one core, then a batch appended."""
    warm.succeed(SCRIPT, module_work)
    succeed(SCRIPT, module_work, prefix=("taskset", "-c", "0"))  # the learner's own command
    warm.succeed(SCRIPT, module_work, "--append", "--rows", "1000")
    return module_work


@pytest.fixture(scope="module")
def snapshot_ids(area):
    return [snapshot.snapshot_id for snapshot in table_in(area, TABLE).snapshots()]


@pytest.fixture(scope="module")
def first(area, snapshot_ids):
    return rows_of(area, snapshot_ids[0])


@pytest.fixture(scope="module")
def features(first):
    return first.drop(columns=["transaction_id", "transaction_time", "fraud_label"])


@pytest.mark.spark
class TestTable:
    def test_the_same_seed_gives_the_same_rows_on_one_core_as_on_all(
        self, area, first, snapshot_ids
    ):
        pd.testing.assert_frame_equal(rows_of(area, snapshot_ids[1]), first)

    def test_a_rerun_replaces_the_table(self, area, snapshot_ids):
        again = table_in(area, TABLE).snapshot_by_id(snapshot_ids[1])
        assert again.summary["total-records"] == str(ROWS)
        assert table_in(area, TABLE).properties["made_by"] == f"code/{SCRIPT}"
        assert again.parent_snapshot_id is None

    def test_the_key_is_unique_and_counts_from_zero(self, first):
        assert first["transaction_id"].tolist() == list(range(ROWS))

    def test_an_appended_batch_is_new_and_later(self, area, first, snapshot_ids):
        now = rows_of(area)
        assert len(now) == ROWS + 1000
        pd.testing.assert_frame_equal(now.head(ROWS), first)
        new = now.tail(1000)
        assert new["transaction_id"].tolist() == list(range(ROWS, ROWS + 1000))
        assert new["transaction_time"].min() > first["transaction_time"].max()
        assert new["transaction_time"].min().floor("D") > first["transaction_time"].max()
        drawn = ["amount_usd", "account_balance_usd", "distance_from_home_km", "home_latitude"]
        assert not new[drawn].merge(first[drawn]).size

    def test_features_are_doubles_in_their_ranges(self, first, features):
        assert set(features.dtypes.astype(str)) == {"float64"}
        assert not features.isna().any().any()
        for name, low, high in (
            ("hour_of_day", 0, 23.99),
            ("amount_usd", 0.01, 100_000),
            ("account_balance_usd", 0.01, 10_000_000),
            ("account_age_days", 1, 3650),
            ("home_latitude", 30, 48),
            ("home_longitude", -120, -75),
            ("distance_from_home_km", 0.001, 20_000),
            ("card_present", 0, 1),
        ):
            assert first[name].between(low, high).all(), name
        times = first["transaction_time"].dt.tz_convert("UTC")
        hours = times.dt.hour + times.dt.minute / 60 + times.dt.second / 3600
        assert (hours - first["hour_of_day"]).between(-1e-9, 0.011).all()

    def test_five_to_ten_percent_are_fraud(self, first):
        assert set(first["fraud_label"]) == {0, 1}
        assert 0.05 < first["fraud_label"].mean() < 0.10

    def test_the_label_is_learnable_from_the_columns(self, first, features):
        """How well, at best, is tested on a hundred thousand rows beside lesson 14."""
        half = ROWS // 2
        inputs = features.assign(
            log_amount=np.log(features["amount_usd"]),
            log_distance=np.log(features["distance_from_home_km"]),
            night=features["hour_of_day"] < 5,
            new_account=features["account_age_days"] < 365,
        ).astype("float64")
        label = first["fraud_label"]
        model = make_pipeline(StandardScaler(), LogisticRegression())
        model.fit(inputs[:half], label[:half])
        score = model.predict_proba(inputs[half:])[:, 1]
        assert roc_auc_score(label[half:], score) == pytest.approx(0.88, abs=0.03)

    def test_no_column_leaks_the_label(self, first, features):
        for name in features:
            alone = roc_auc_score(first["fraud_label"], features[name])
            assert 0.2 < alone < 0.8, name  # all together reach 0.88

    def test_it_prints_what_the_table_holds(self, area, warm):
        printed = warm.succeed(SCRIPT, area, "--append", "--rows", "1")
        now = rows_of(area)
        assert f"Done: {len(now)} rows in spark_catalog.default.transactions" in printed
        assert f"{now['fraud_label'].mean():.1%} fraud" in printed


@pytest.mark.spark
def test_an_interrupt_or_a_kill_in_the_middle_leaves_the_table_as_it_was(tmp_path, warm):
    warm.succeed(SCRIPT, tmp_path, "--rows", "100")
    stored = rows_of(tmp_path)
    for sign in (signal.SIGINT, signal.SIGKILL):
        # Twenty million rows take Java minutes; what it needs to plan the write, about a second.
        process = start_script(SCRIPT, tmp_path, "--rows", "20000000", PYTHONUNBUFFERED="1")
        while not process.stdout.readline().startswith("The new ids begin"):
            assert process.poll() is None
        (java,) = (
            child
            for child in psutil.Process(process.pid).children(recursive=True)
            if child.name() == "java"
        )
        planned = java.cpu_times().user + 4
        wait_until(lambda: java.cpu_times().user > planned, "the writing of rows")  # noqa: B023
        assert stop_in_the_middle(process, sign).returncode != 0
        pd.testing.assert_frame_equal(rows_of(tmp_path), stored)
    warm.succeed(SCRIPT, tmp_path, "--rows", "200")
    assert len(rows_of(tmp_path)) == 200


def in_a_lake(work):
    """The environment of a CML session whose data connection leads to tables below `work`."""
    return {
        "CDSW_PROJECT_ID": "abcd-efgh-ijkl-mnop",
        "CONNECTION_NAME": "test-lake",
        "PYTHONPATH": str(STANDINS),
        "ICEBERG_JAR": str(iceberg_jar()),
        "LAKE": str(work / "spark-warehouse"),
    }


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    """A table of another name, altered while the lesson runs: emptied, appended to, taken over."""
    work = tmp_path_factory.mktemp("lake")
    text = (CODE / SCRIPT).read_text(encoding="utf-8")
    cells = text.replace("default.transactions", "default.anna").split("\n# %%\n")
    look, write, count = (
        next(number for number, cell in enumerate(cells) if text in cell)
        for text in ("last_id, last_second", ".append()", "found > args.rows")
    )
    seen = SimpleNamespace(work=work)
    with Kernel(work, **in_a_lake(work)) as kernel:
        kernel.run_cell("import sys; argv = sys.argv; sys.argv = [*argv, '--rows', '20']")
        for cell in cells[:count]:
            kernel.run_cell(cell)
        kernel.run_cell("sys.argv = [*argv, '--append', '--rows', '10']")
        for cell in cells[:look]:
            kernel.run_cell(cell)
        kernel.run_cell("spark.sql(f'DELETE FROM {TABLE}')")
        seen.first_batch = kernel.run_cell(cells[look]) + kernel.run_cell(cells[write])
        seen.after_first_batch = rows_of(work, name="anna")
        seen.plan = kernel.run_cell("batch.explain(True)")

        kernel.run_cell(cells[look])  # the last id is 9, and another session finds the same
        kernel.run_cell("with_label(features(10, FIRST_DAY, 7, 1), 1).writeTo(TABLE).append()")
        kernel.run_cell(cells[write])
        with pytest.raises(CellFailed) as failed:
            kernel.run_cell(cells[count])
        seen.error = re.search(r"LessonError\S*: ((?:.+\n){2}.+)", str(failed.value))[1]
        seen.doubled = rows_of(work, name="anna")
        seen.snapshots = [snapshot.snapshot_id for snapshot in table_in(work, "anna").snapshots()]
        kernel.run_cell(f"spark.sql({seen.error.rpartition('run in Spark:  ')[2]!r})")
        seen.undone = rows_of(work, name="anna")

        kernel.run_cell("spark.sql(f\"ALTER TABLE {TABLE} SET TBLPROPERTIES ('made_by' = 'me')\")")
        seen.refused = []
        for arguments in ("[*argv, '--append']", "argv"):
            kernel.run_cell(f"sys.argv = {arguments}")
            kernel.run_cell(cells[1])
            with pytest.raises(CellFailed) as failed:
                kernel.run_cell(cells[look])
            seen.refused.append(str(failed.value))
    return seen


@pytest.mark.spark
class TestInALakeWithOthers:
    def test_a_batch_for_an_empty_table_is_its_first(self, lake):
        assert "10 rows with ids from 0, seed 42" in lake.first_batch
        assert lake.after_first_batch["transaction_id"].tolist() == list(range(10))
        assert str(lake.after_first_batch["transaction_time"].min()).startswith("2024-01-")

    def test_two_sessions_that_append_at_once_are_told_apart_by_their_ids(self, lake):
        assert len(lake.doubled) == 27 and lake.doubled["transaction_id"].nunique() == 20
        assert lake.error.splitlines() == [
            "17 rows of spark_catalog.default.anna have the 10 ids from 10: "
            "another session appended at the same time.",
            "Expected: every id once.",
            "To undo the last append, run in Spark:  CALL spark_catalog.system."
            f"rollback_to_snapshot('default.anna', {lake.snapshots[-2]})",
        ]

    def test_the_command_it_names_undoes_its_append_and_no_other(self, lake):
        assert lake.undone["transaction_id"].tolist() == list(range(17))

    def test_a_table_that_no_lesson_made_is_left_alone(self, lake):
        assert len(lake.refused) == 2
        for error in lake.refused:
            assert "TableTaken" in error
            assert "spark_catalog.default.anna is there already" in error
        pd.testing.assert_frame_equal(rows_of(lake.work, name="anna"), lake.undone)

    def test_an_edited_table_leaves_that_of_the_lesson_alone(self, lake):
        assert [path.name for path in (lake.work / "spark-warehouse/default").iterdir()] == ["anna"]

    def test_rows_are_generated_where_they_are_written_and_never_gathered(self, lake):
        """What would hold or move all rows is an exchange, a sort, or a table of the driver's."""
        physical = lake.plan.partition("== Physical Plan ==")[2]
        assert "Range (0, 10" in physical
        for gathered in ("Exchange", "Sort", "LocalTableScan", "Window", "ExistingRDD"):
            assert gathered not in physical


def test_without_spark_it_says_so_in_one_line_and_ends_well(tmp_path):
    printed = succeed(SCRIPT, tmp_path, PYTHONPATH=str(STANDINS / "no_pyspark"))
    (line,) = printed.splitlines()
    assert line.startswith("Skipped: spark_catalog.default.transactions")
    assert "pyspark is not installed" in line


@pytest.mark.parametrize(
    "option, value, wanted",
    [
        ("--rows", "0", "1 or more"),
        ("--rows", "-5", "1 or more"),
        ("--rows", "many", "1 or more"),
        ("--rows", "1" + 25 * "0", "up to 1,000,000,000"),
        ("--seed", "1" + 30 * "0", "up to 1,000,000,000"),
        ("--seed", "1.5", "0 or more"),
    ],
)
def test_a_number_out_of_range_is_refused(tmp_path, warm, option, value, wanted):
    done = warm.run_script(SCRIPT, tmp_path, option, value)
    assert done.returncode != 0
    assert f"{option}: {value} is not a whole number {wanted}." in done.stderr
    assert not (tmp_path / "spark-warehouse").exists()


@pytest.mark.spark
def test_append_without_a_table_names_what_to_run_first(tmp_path, warm):
    done = warm.run_script(SCRIPT, tmp_path, "--append")
    assert done.returncode != 0
    assert "Run this first:  python code/00_datagen.py" in done.stderr
    assert not (tmp_path / "spark-warehouse" / "default").exists()


@pytest.mark.spark
@pytest.mark.parametrize(
    "statement, found",
    [
        (
            "ALTER TABLE {table} DROP COLUMN amount_usd",
            "Only in the table: nothing; only in the batch: amount_usd double.",
        ),
        (
            "ALTER TABLE {table} ADD COLUMN merchant string",
            "Only in the table: merchant string; only in the batch: nothing.",
        ),
        (
            "UPDATE {table} SET transaction_id = 9223372036854775800 WHERE transaction_id = 3",
            "is 9223372036854775800: a new batch would exceed 64 bits.",
        ),
        (
            "UPDATE {table} SET transaction_time = NULL",
            "has no time: no later day can follow.",
        ),
        (
            "UPDATE {table} SET transaction_time = timestamp_seconds(253402300000)",
            "has 253402300000 seconds after 1970: no later day can follow.",
        ),
    ],
    ids=["dropped", "added", "last id", "no time", "year 9999"],
)
def test_a_batch_that_does_not_fit_the_table_is_refused(tmp_path, warm, statement, found):
    warm.succeed(SCRIPT, tmp_path, "--rows", "10")
    run_sql(warm, tmp_path, statement.format(table=f"spark_catalog.default.{TABLE}"))
    before = rows_of(tmp_path)
    done = warm.run_script(SCRIPT, tmp_path, "--append")
    assert done.returncode != 0
    assert found in done.stderr
    assert "To write the table anew, run:  python code/00_datagen.py" in done.stderr
    pd.testing.assert_frame_equal(rows_of(tmp_path), before)


@pytest.mark.spark
class TestInCml:
    """With the package `cml` there, Spark comes from the data connection."""

    def run(self, work, lake, **extra):
        return run_script(
            SCRIPT,
            work,
            "--rows",
            "1000",
            CDSW_PROJECT_ID="abcd-efgh-ijkl-mnop",
            PYTHONPATH=str(STANDINS),
            LAKE=str(lake),
            **({"ICEBERG_JAR": str(iceberg_jar())} | extra),
        )

    def test_rows_go_where_the_named_connection_leads(self, tmp_path):
        lake = tmp_path / "spark-warehouse"
        done = self.run(tmp_path, lake, CONNECTION_NAME="test-lake", TZ="America/Los_Angeles")
        assert done.returncode == 0, done.stderr[-2000:]
        rows = rows_of(tmp_path)
        assert len(rows) == 1000
        # In UTC, as stored, and not in the time zone of the session, eight hours behind.
        first, last = (f"{time:%Y-%m-%d}" for time in rows["transaction_time"].agg(["min", "max"]))
        assert done.stdout.endswith(f"{first} to {last}\n")

    def test_an_unknown_connection_is_named_beside_those_that_exist(self, tmp_path):
        done = self.run(tmp_path, tmp_path / "lake", CONNECTIONS_CAN_BE_LISTED="yes")
        assert done.returncode != 0
        assert "The data connection 'go01-aw-dl' gave no Spark session" in done.stderr
        assert "Expected: one of ['test-lake']" in done.stderr
        assert "CONNECTION_NAME=<name>" in done.stderr
        assert not (tmp_path / "lake").exists()

    def test_where_connections_cannot_be_listed_it_says_where_to_look(self, tmp_path):
        done = self.run(tmp_path, tmp_path / "lake", CONNECTION_NAME="typo")
        assert "The data connection 'typo' gave no Spark session" in done.stderr
        assert "Project Settings > Data Connections" in done.stderr

    def test_a_connection_without_iceberg_is_refused(self, tmp_path):
        done = self.run(tmp_path, tmp_path / "lake", CONNECTION_NAME="test-lake", ICEBERG_JAR="")
        assert done.returncode != 0
        assert "without Iceberg: the Spark session 'stand-in'" in done.stderr
        assert not (tmp_path / "lake").exists()
