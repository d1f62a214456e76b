import os
import subprocess
from datetime import datetime, timezone
from types import SimpleNamespace

import pytest
from conftest import table_in

from cmlflow import errors, snapshots
from cmlflow.errors import MissingStep
from cmlflow.spark import start_spark

pytestmark = [pytest.mark.spark]
MADE_BY = "code/lesson.py"


@pytest.fixture(scope="module")
def area(tmp_path_factory):
    return tmp_path_factory.mktemp("snapshots")


@pytest.fixture(scope="module")
def spark(area):
    before = os.environ.get("CMLFLOW_WORKAREA")
    os.environ["CMLFLOW_WORKAREA"] = str(area)
    session = start_spark("any")
    yield session
    session.stop()
    if before is None:
        del os.environ["CMLFLOW_WORKAREA"]
    else:
        os.environ["CMLFLOW_WORKAREA"] = before


def write(spark, name, rows=(3, 2)):
    """Create a table and append to it: `rows` rows with each write."""
    table = f"spark_catalog.default.{name}"
    for number, count in enumerate(rows):
        writer = spark.range(count).coalesce(1).writeTo(table)
        writer.append() if number else writer.using("iceberg").createOrReplace()
    return table


def test_the_facts_are_those_in_the_tables_own_metadata(spark, area):
    table = write(spark, "facts")
    first, second = table_in(area, "facts").snapshots()
    assert snapshots.current(spark, table, MADE_BY) == snapshots.Snapshot(
        table=table,
        snapshot_id=str(second.snapshot_id),
        parent_id=str(first.snapshot_id),
        committed_at=datetime.fromtimestamp(second.timestamp_ms / 1000, timezone.utc),
        operation="append",
        row_count=5,
        catalog=(area / "spark-warehouse").as_uri(),
    )
    old = snapshots.by_id(spark, table, str(first.snapshot_id), MADE_BY)
    assert (old.row_count, old.parent_id) == (3, None)
    assert snapshots.known_ids(spark, table) == [str(first.snapshot_id), str(second.snapshot_id)]


def test_the_time_is_utc_whatever_the_zone_of_the_session(spark, area):
    table = write(spark, "zones", rows=(1,))
    (snapshot,) = table_in(area, "zones").snapshots()
    spark.conf.set("spark.sql.session.timeZone", "America/Los_Angeles")
    try:
        text = snapshots.current(spark, table, MADE_BY).tags["iceberg_snapshot_committed_at"]
    finally:
        spark.conf.set("spark.sql.session.timeZone", "UTC")
    committed = datetime.fromtimestamp(snapshot.timestamp_ms / 1000, timezone.utc)
    assert text == committed.isoformat(timespec="milliseconds")
    assert text.endswith("+00:00")


def test_current_is_what_the_table_points_at_and_not_the_last_in_time(spark, area):
    table = write(spark, "rolled_back")
    first, _ = table_in(area, "rolled_back").snapshots()
    spark.sql(
        "CALL spark_catalog.system.rollback_to_snapshot("
        f"table => 'default.rolled_back', snapshot_id => {first.snapshot_id})"
    )
    now = snapshots.current(spark, table, MADE_BY)
    assert (now.snapshot_id, now.row_count) == (str(first.snapshot_id), 3)


def test_rows_that_a_delete_hides_are_not_counted(spark):
    table = write(spark, "deleted", rows=(6,))
    spark.sql(
        f"ALTER TABLE {table} SET TBLPROPERTIES"
        " ('format-version' = '2', 'write.delete.mode' = 'merge-on-read')"
    )
    spark.sql(f"DELETE FROM {table} WHERE id = 1")
    now = snapshots.current(spark, table, MADE_BY)
    assert now.row_count == spark.table(table).count() == 5


def test_a_table_that_is_not_there_names_the_lesson_that_writes_it(spark):
    with pytest.raises(MissingStep) as caught:
        snapshots.current(spark, "spark_catalog.default.absent", MADE_BY)
    assert "There is no table spark_catalog.default.absent." in str(caught.value)
    assert "Run this first:  python code/lesson.py" in str(caught.value)


def test_a_table_that_was_never_written_to_says_so(spark):
    table = "spark_catalog.default.unwritten"
    spark.sql(f"CREATE TABLE {table} (id BIGINT) USING iceberg")
    with pytest.raises(errors.SnapshotNotFound) as caught:
        snapshots.current(spark, table, MADE_BY)
    assert str(caught.value).splitlines() == [
        f"{table} has no snapshot: it was created, but never written to.",
        "Expected: a table with rows, written by code/lesson.py.",
        "Run this first:  python code/lesson.py",
    ]
    with pytest.raises(errors.SnapshotNotFound, match="one of its snapshots: there are none"):
        snapshots.by_id(spark, table, "42", MADE_BY)


def test_an_unknown_id_lists_those_that_exist(spark, area):
    table = write(spark, "listed")
    with pytest.raises(errors.SnapshotNotFound) as caught:
        snapshots.by_id(spark, table, "42", MADE_BY)
    assert f"{table} has no snapshot 42: it never had, or it has expired." in str(caught.value)
    for snapshot in table_in(area, "listed").snapshots():
        assert str(snapshot.snapshot_id) in str(caught.value)


def test_a_catalog_or_a_namespace_that_is_not_there_has_no_table_of_this_name(spark):
    for table in ("nowhere.default.t", "spark_catalog.nowhere.t"):
        with pytest.raises(errors.SnapshotNotFound, match=f"There is no table {table} in file:"):
            snapshots.by_id(spark, table, "42")
        with pytest.raises(MissingStep, match=f"There is no table {table}"):
            snapshots.current(spark, table, MADE_BY)


def test_unpinning_in_a_table_that_is_not_there_says_so(spark):
    with pytest.raises(errors.SnapshotNotFound, match="There is no table"):
        snapshots.unpin(spark, "spark_catalog.default.absent", "model", "run")


@pytest.mark.parametrize(
    "call",
    [
        lambda spark: snapshots.by_id(spark, "training", "42"),
        lambda spark: snapshots.current(spark, "default.training", MADE_BY),
        lambda spark: snapshots.require_ours(spark, "a; DROP TABLE b", MADE_BY),
        lambda spark: snapshots.unpin(spark, "training", "model", "run"),
        lambda spark: snapshots.by_id(spark, "spark_catalog.default.t", "newest"),
        lambda spark: snapshots.pin(spark, "spark_catalog.default.t", "1 OR 1", "model", "run"),
    ],
)
def test_what_is_no_full_name_or_no_number_is_refused_in_three_lines(spark, call):
    with pytest.raises(errors.BadInput) as caught:
        call(spark)
    assert len(str(caught.value).splitlines()) == 3


class TestJustWritten:
    def test_what_this_session_wrote_is_returned(self, spark):
        table = write(spark, "mine", rows=(3,))
        first = snapshots.just_written(spark, table, MADE_BY)
        assert first == snapshots.current(spark, table, MADE_BY)
        spark.range(2).writeTo(table).append()
        second = snapshots.just_written(spark, table, MADE_BY, parent=first)
        assert (second.row_count, second.parent_id) == (5, first.snapshot_id)

    def test_a_write_of_another_program_is_noticed(self, spark):
        table = write(spark, "shared", rows=(3,))
        iceberg = spark._jvm.org.apache.iceberg
        theirs = iceberg.spark.Spark3Util.loadIcebergTable(spark._jsparkSession, table)
        theirs.newDelete().deleteFromRowFilter(
            iceberg.expressions.Expressions.alwaysTrue()
        ).commit()
        newest = snapshots.current(spark, table, MADE_BY).snapshot_id
        with pytest.raises(errors.LessonError) as caught:
            snapshots.just_written(spark, table, MADE_BY)
        assert str(caught.value).splitlines() == [
            f"Somebody else wrote to {table}: its snapshot {newest} is by another program.",
            "Expected: a snapshot that is ours.",
            f"When nobody else uses the table, run this again:  python {MADE_BY}",
        ]

    def test_rows_of_others_below_ours_are_noticed(self, spark):
        table = write(spark, "between", rows=(3,))
        first = snapshots.just_written(spark, table, MADE_BY)
        spark.range(1).writeTo(table).append()
        spark.range(2).writeTo(table).append()
        with pytest.raises(errors.LessonError, match="was built on") as caught:
            snapshots.just_written(spark, table, MADE_BY, parent=first)
        assert f"Expected: a snapshot that is built on {first.snapshot_id}." in str(caught.value)


@pytest.fixture(scope="module")
def parquet(spark):
    """A table of another format."""
    spark.range(3).write.format("parquet").saveAsTable("default.plain")
    return "spark_catalog.default.plain"


@pytest.mark.parametrize("read", [snapshots.current, snapshots.by_id])
def test_a_table_of_another_format_has_no_snapshots(spark, parquet, read):
    which = [parquet] if read is snapshots.current else [parquet, "42"]
    with pytest.raises(errors.LessonError) as caught:
        read(spark, *which, MADE_BY)
    what, expected, cure = str(caught.value).splitlines()
    assert what == f"{parquet} has no snapshots: its format is parquet."
    assert expected == "Expected: an Iceberg table, written by code/lesson.py."
    assert cure.endswith("python code/lesson.py")


@pytest.mark.parametrize("call", [snapshots.current, snapshots.require_ours])
@pytest.mark.parametrize("damage", ["cut off", "missing"])
def test_a_damaged_table_is_named_and_the_command_makes_room_for_another(spark, area, call, damage):
    name = f"{call.__name__}_{damage.replace(' ', '_')}"
    table = write(spark.newSession(), name)  # this one has never read it
    folder = area / "spark-warehouse" / "default" / name
    for file in folder.rglob(".*.crc"):  # as after a copy by another program
        file.unlink()
    if damage == "cut off":
        file = folder / "metadata" / "v2.metadata.json"
        file.write_bytes(file.read_bytes()[:300])
    else:
        (folder / "metadata" / "version-hint.text").write_text("999")
        for file in folder.glob("metadata/v*.metadata.json"):
            file.unlink()
    with pytest.raises(errors.LessonError) as caught:
        call(spark, table, MADE_BY)
    what, expected, cure = str(caught.value).splitlines()
    assert what.startswith(f"{table} cannot be read: ") and len(what) < 500
    assert expected.startswith("Expected: a table with all its files")
    subprocess.run(cure.partition("run:  ")[2], shell=True, check=True)
    snapshots.require_ours(spark, table, MADE_BY)


def test_a_session_that_was_stopped_is_not_called_an_empty_catalog():
    stopped = SimpleNamespace(sparkContext=SimpleNamespace(_jsc=None))
    with pytest.raises(errors.SparkError, match="This Spark session was stopped"):
        snapshots.current(stopped, "spark_catalog.default.any", MADE_BY)


class TestRequireOurs:
    def replace(self, spark, table):
        """What a lesson does with its table."""
        snapshots.require_ours(spark, table, MADE_BY)
        writer = spark.range(1).writeTo(table).using("iceberg")
        writer.tableProperty("made_by", MADE_BY).createOrReplace()

    def test_a_lesson_makes_its_table_and_replaces_it(self, spark):
        table = "spark_catalog.default.ours"
        for _ in range(2):
            self.replace(spark, table)
        assert spark.table(table).count() == 1

    def test_another_lessons_table_may_be_replaced_too(self, spark):
        table = write(spark, "of_another_lesson")
        spark.sql(f"ALTER TABLE {table} SET TBLPROPERTIES ('made_by' = 'code/another.py')")
        self.replace(spark, table)
        assert spark.table(table).count() == 1

    @pytest.mark.parametrize("maker", ["", "somebody/code/etl.py"])
    def test_a_table_of_somebody_else_stays_until_its_owner_agrees(self, spark, maker):
        table = write(spark, "theirs")
        if maker:
            spark.sql(f"ALTER TABLE {table} SET TBLPROPERTIES ('made_by' = '{maker}')")
        with pytest.raises(errors.TableTaken) as caught:
            self.replace(spark, table)
        assert spark.table(table).count() == 5
        what, expected, cure = str(caught.value).splitlines()
        assert what == (
            f"{table} is there already, and no lesson made it: its property made_by is {maker!r}."
        )
        assert "edit TABLE at the top of code/lesson.py" in expected
        spark.sql(cure.partition("run in Spark:  ")[2])
        self.replace(spark, table)
        assert spark.table(table).count() == 1

    @pytest.mark.parametrize("what", ["a file", "a folder with files"])
    def test_files_in_the_place_of_the_table_are_not_written_over(self, spark, area, what):
        place = area / "spark-warehouse" / "default" / what.replace(" ", "_")
        table = f"spark_catalog.default.{place.name}"
        if what == "a file":
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text("mine")
        else:
            place.mkdir(parents=True)
            (place / "mine.parquet").write_text("mine")
        with pytest.raises(errors.TableTaken) as caught:
            self.replace(spark, table)
        found, _, cure = str(caught.value).splitlines()
        assert str(place) in found and found.endswith(" is there already, and no table.")
        subprocess.run(cure.partition("run:  ")[2], shell=True, check=True)
        self.replace(spark, table)
        assert spark.table(table).count() == 1

    def test_what_a_stopped_first_write_left_is_no_obstacle(self, spark, area):
        folder = area / "spark-warehouse" / "default" / "unfinished" / "data"
        folder.mkdir(parents=True)
        (folder / "00000-0.parquet").write_text("half")
        self.replace(spark, "spark_catalog.default.unfinished")

    def test_a_table_of_another_format_stays(self, spark, parquet):
        with pytest.raises(errors.TableTaken) as caught:
            self.replace(spark, parquet)
        what, _, cure = str(caught.value).splitlines()
        assert what == f"{parquet} is there already, and no Iceberg table: its format is parquet."
        assert cure.endswith("edit TABLE at the top of code/lesson.py")
        assert spark.table(parquet).count() == 3
