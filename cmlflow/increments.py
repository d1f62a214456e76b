"""The rows that were appended to an Iceberg table between two of its snapshots.

Iceberg reads them with two options: `start-snapshot-id`, which is exclusive, and `end-snapshot-id`,
which is inclusive. It returns rows of appends only, and is silent about those that came in any
other way; and it says "not a parent ancestor" for three different mistakes. This module tells
them apart, before anything is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmlflow import snapshots
from cmlflow.errors import LessonError, MissingStep, SnapshotNotFound

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from cmlflow.snapshots import Snapshot


def appended_rows(
    spark: SparkSession, end: Snapshot, start_id: str | None, grows_by: str = ""
) -> int:
    """Return how many rows were appended after one snapshot, up to and including another.

    Args:
        spark: a session from `cmlflow.spark.start_spark`.
        end: the last snapshot of the increment.
        start_id: the snapshot before it, exclusive, as text; None where `end` is the first.
        grows_by: the script that appends to the table, such as `code/telco/03_newbatch.py`.

    Raises:
        MissingStep: nothing was appended yet: `end` is the first snapshot, or is `start_id` itself.
        SnapshotNotFound: `start_id` has expired, was never there, or lies in no line with `end`,
            because the table was replaced or rolled back.
        LessonError: something other than an append lies between, which the read would leave out.
    """
    table = end.table
    known = {
        str(row.snapshot_id): row
        for row in spark.sql(
            "SELECT snapshot_id, parent_id, operation,"
            " CAST(coalesce(summary['added-records'], '0') AS BIGINT) AS added"
            f" FROM {table}.snapshots"
        ).collect()
    }
    if start_id in (None, end.snapshot_id):
        what = "is its first" if start_id is None else "is the newest, so nothing is new"
        raise MissingStep(
            f"{table} has no rows after an earlier snapshot: {end.snapshot_id} {what}.",
            "a table to which rows were appended",
            f"python {grows_by}" if grows_by else "the script that appends to this table",
        )
    if start_id not in known:
        raise SnapshotNotFound(
            f"{table} has no snapshot {start_id} any more: it has expired, or never was.",
            f"one of its snapshots: {', '.join(known)}",
            f"To see them, run in Spark:  SELECT * FROM {table}.snapshots",
        )
    here, added = end.snapshot_id, 0
    while here != start_id:
        row = known.get(here)
        if row is None:
            raise SnapshotNotFound(
                f"{table} has no snapshot {here} any more, which came after {start_id}.",
                f"all snapshots from {start_id} to {end.snapshot_id}",
                f"To see them, run in Spark:  SELECT * FROM {table}.snapshots",
            )
        if row.parent_id is None:
            raise SnapshotNotFound(
                f"{table} was replaced or rolled back after its snapshot {start_id}: it is no "
                f"ancestor of {end.snapshot_id}.",
                "two snapshots of one line",
                f"To see which follows which, run in Spark:  SELECT * FROM {table}.history",
            )
        if row.operation not in ("append", "replace"):
            raise LessonError(
                f"Snapshot {here} of {table} is no append, but {row.operation}: an incremental "
                "read leaves out what it wrote, and says nothing.",
                f"appends only between {start_id} and {end.snapshot_id}",
                f"To see them, run in Spark:  SELECT * FROM {table}.snapshots",
            )
        added += row.added if row.operation == "append" else 0
        here = str(row.parent_id)
    return added


def read(spark: SparkSession, table: str, start_id: str, end_id: str) -> DataFrame:
    """Return the rows that were appended after `start_id`, up to and including `end_id`.

    Args:
        spark: a session from `cmlflow.spark.start_spark`.
        table: catalog, namespace and name.
        start_id: exclusive; an ancestor of `end_id`, which `appended_rows` makes sure of.
        end_id: inclusive.
    """
    for one in (start_id, end_id):
        snapshots.require_id(one)
    options = {"start-snapshot-id": start_id, "end-snapshot-id": end_id}
    return spark.read.format("iceberg").options(**options).load(table)
