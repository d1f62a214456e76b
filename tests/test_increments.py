"""Rows between two snapshots: how many, which, and why there are none."""

import json

import pytest
from conftest import table_in

pytestmark = pytest.mark.spark
TABLE = "spark_catalog.default.days"
STEPS = """
import json, sys
from cmlflow import errors, increments, snapshots
from cmlflow.spark import start_spark

TABLE = "spark_catalog.default.days"
spark = start_spark("any")
calls, said = "CALL spark_catalog.system.", {}


def new(first, last, how="append"):
    writer = spark.range(first, last).coalesce(1).writeTo(TABLE)
    getattr(writer.using("iceberg") if how != "append" else writer, how)()
    return newest()


def newest():
    return snapshots.current(spark, TABLE, "code/x.py").snapshot_id


def ask(name, start, end, grows_by="code/grow.py"):
    try:
        found = increments.appended_rows(
            spark, snapshots.by_id(spark, TABLE, end), start, grows_by)
        rows = increments.read(spark, TABLE, start, end).collect() if start else []
        said[name] = [found, sorted(row.id for row in rows)]
    except errors.LessonError as error:
        said[name] = [type(error).__name__, *str(error).splitlines()]


a = new(0, 3, "create")
ask("the first", None, a)
ask("itself", a, a, "")
b, c = new(3, 5), new(5, 9)
ask("all", a, c)
ask("one", a, b)
ask("the newest", b, c)
ask("backwards", c, a)
ask("of no one", "42", c)
spark.sql(calls + "rewrite_data_files(table => 'default.days', "
          "options => map('min-input-files', '2'))")
d = newest()
ask("over a compaction", b, d)
spark.sql(f"INSERT OVERWRITE {TABLE} SELECT * FROM {TABLE} WHERE id > 0")
e = newest()
ask("over an overwrite", c, e)
f = new(20, 22)
ask("from an overwrite on", e, f)
spark.sql(f"DELETE FROM {TABLE} WHERE id = 21")
ask("over a delete", e, newest())
spark.sql(calls + f"rollback_to_snapshot('default.days', {c})")
g = new(30, 31)
ask("after a roll-back", c, g)
ask("from what was rolled back", f, g)
h = new(40, 42, "createOrReplace")
ask("from before the table was replaced", g, h)
i = new(50, 53)
ask("from the replacement on", h, i)
spark.sql(f"ALTER TABLE {TABLE} CREATE TAG kept AS OF VERSION {h}")
j, k = new(60, 61), new(70, 72)
spark.sql(calls + "expire_snapshots(table => 'default.days', "
          "older_than => TIMESTAMP '2100-01-01 00:00:00', retain_last => 1)")
ask("over what has expired", h, k)
ask("from what has expired", j, k)
for one in ("1 OR 1", ""):
    try:
        increments.read(spark, TABLE, one, k)
    except errors.BadInput as error:
        said[f"id {one!r}"] = str(error)
print("SAID", json.dumps({"said": said, "ids": dict(a=a, b=b, c=c, d=d, e=e, f=f, g=g, h=h, i=i,
      j=j, k=k)}))
"""


@pytest.fixture(scope="module")
def asked(warm, tmp_path_factory):
    """One table that grows, is compacted, written over, rolled back, replaced and expired."""
    area = tmp_path_factory.mktemp("increments")
    printed = warm.python(STEPS, area)
    return json.loads(printed.partition("SAID ")[2]) | {"area": area}


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("one", [3, 4]),
        ("the newest", [5, 6, 7, 8]),
        ("all", [3, 4, 5, 6, 7, 8]),
        ("over a compaction", [5, 6, 7, 8]),
        ("from an overwrite on", [20, 21]),
        ("after a roll-back", [30]),
        ("from the replacement on", [50, 51, 52]),
    ],
)
def test_the_rows_after_the_start_up_to_and_including_the_end(asked, name, rows):
    assert asked["said"][name] == [len(rows), rows]


def test_the_first_snapshot_and_itself_have_nothing_new(asked):
    kind, found, expected, cure = asked["said"]["the first"]
    first = asked["ids"]["a"]
    assert kind == "MissingStep"
    assert found == f"{TABLE} has no rows after an earlier snapshot: {first} is its first."
    assert expected == "Expected: a table to which rows were appended."
    assert cure == "Run this first:  python code/grow.py"
    kind, found, _, cure = asked["said"]["itself"]
    assert (kind, found.partition(f": {first} ")[2]) == (
        "MissingStep",
        "is the newest, so nothing is new.",
    )
    assert cure == "Run this first:  the script that appends to this table"


def test_a_start_that_has_expired_or_never_was_is_told_with_those_that_are_there(asked):
    ids = asked["ids"]
    kind, found, expected, _ = asked["said"]["of no one"]
    assert (kind, found) == (
        "SnapshotNotFound",
        f"{TABLE} has no snapshot 42 any more: it has expired, or never was.",
    )
    assert set(expected.removeprefix("Expected: one of its snapshots: ").rstrip(".").split(", ")) \
        == {ids["a"], ids["b"], ids["c"]}  # fmt: skip
    kind, found, expected, _ = asked["said"]["from what has expired"]
    assert (kind, found.split(" any more")[0]) == (
        "SnapshotNotFound",
        f"{TABLE} has no snapshot {ids['j']}",
    )
    kept = {str(one.snapshot_id) for one in table_in(asked["area"], "days").snapshots()}
    assert kept == {ids["h"], ids["k"]} and all(one in expected for one in kept)


def test_a_gap_between_the_two_is_told(asked):
    ids = asked["ids"]
    assert asked["said"]["over what has expired"][:2] == [
        "SnapshotNotFound",
        f"{TABLE} has no snapshot {ids['j']} any more, which came after {ids['h']}.",
    ]


@pytest.mark.parametrize(
    ("name", "start", "end"),
    [
        ("backwards", "c", "a"),
        ("from what was rolled back", "f", "g"),
        ("from before the table was replaced", "g", "h"),
    ],
)
def test_two_snapshots_that_are_in_no_line_are_told(asked, name, start, end):
    kind, found, _, cure = asked["said"][name]
    ids = asked["ids"]
    assert (kind, found) == (
        "SnapshotNotFound",
        f"{TABLE} was replaced or rolled back after its snapshot {ids[start]}: it is no ancestor "
        f"of {ids[end]}.",
    )
    assert cure.endswith(f"SELECT * FROM {TABLE}.history")


@pytest.mark.parametrize(
    ("name", "operation"), [("over an overwrite", "overwrite"), ("over a delete", "overwrite")]
)
def test_what_is_no_append_is_refused_since_the_read_would_leave_it_out(asked, name, operation):
    kind, found, expected, _ = asked["said"][name]
    assert kind == "LessonError"
    assert f" of {TABLE} is no append, but {operation}: " in found
    assert expected.startswith("Expected: appends only between ")


def test_ids_that_are_no_ids_never_reach_spark(asked):
    for one in ("'1 OR 1'", "''"):
        assert f"{one} is not the id of a snapshot." in asked["said"][f"id {one}"]
