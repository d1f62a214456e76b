"""One snapshot of an Iceberg table: its facts, and the Iceberg tag that keeps it.

As an MLflow dataset it is made by `mlflow.data.from_iceberg`; see `cmlflow.snapshots.dataset`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from cmlflow.errors import (
    LessonError,
    MissingStep,
    PinTaken,
    SnapshotNotFound,
    TableTaken,
)
from cmlflow.spark import catalog_of

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@dataclass(frozen=True)
class Snapshot:
    """An Iceberg table after one write.

    Attributes:
        table: catalog, namespace and name, for example `spark_catalog.default.training`.
        snapshot_id: up to 19 digits, as text: a browser rounds numbers above 2^53.
        parent_id: the snapshot that this one was built on, or None for the first.
        committed_at: time of the commit, UTC, to the millisecond.
        operation: what Iceberg calls the write: append, overwrite, replace or delete.
        row_count: rows of the table in this snapshot.
        catalog: what `spark_catalog` was when the table was read: the name of a CML data
            connection, or the warehouse folder of a laptop as a URI.
    """

    table: str
    snapshot_id: str
    parent_id: str | None
    committed_at: datetime
    operation: str
    row_count: int
    catalog: str

    @property
    def tags(self) -> dict[str, str]:
        """What a run says of the snapshot it was trained on, for `mlflow.set_tags`.

        `training_table`, `iceberg_snapshot_id`, `iceberg_parent_id` (`none` for the first) and
        `iceberg_snapshot_committed_at` (ISO 8601, for example 2026-11-21T06:18:50.123+00:00).
        The rows are for the lessons to count: those that were read, not those that should be.
        """
        return {
            "training_table": self.table,
            "iceberg_snapshot_id": self.snapshot_id,
            "iceberg_parent_id": self.parent_id or "none",
            "iceberg_snapshot_committed_at": self.committed_at.isoformat(timespec="milliseconds"),
        }


def current(spark: SparkSession, table: str, made_by: str) -> Snapshot:
    """Return the snapshot that the table's main branch points at now.

    Args:
        spark: a session from `cmlflow.spark.start_spark`.
        table: catalog, namespace and name.
        made_by: the lesson that writes the table, for example `code/00_datagen.py`.

    Raises:
        MissingStep: the table does not exist.
        LessonError: it is of another format.
        SnapshotNotFound: it was never written to.
    """
    _require_table(spark, table, made_by)
    main = f"JOIN {table}.refs r USING (snapshot_id) WHERE r.name = 'main'"
    snapshot = _read(spark, table, main, made_by)
    if snapshot is None:
        raise SnapshotNotFound(
            f"{table} has no snapshot: it was created, but never written to.",
            f"a table with rows, written by {made_by}",
            f"Run this first:  python {made_by}",
        )
    return snapshot


def by_id(spark: SparkSession, table: str, snapshot_id: str, made_by: str = "") -> Snapshot:
    """Return one snapshot of the table by its id; for the other arguments see `current`.

    Args:
        spark: as in `current`.
        table: as in `current`.
        snapshot_id: digits, as text.
        made_by: as in `current`; empty where nobody knows.

    Raises:
        MissingStep: the table does not exist.
        LessonError: it is of another format.
        SnapshotNotFound: it has no such snapshot, or no longer: it may have expired.
    """
    _require_table(spark, table, made_by)
    snapshot = _read(spark, table, f"WHERE snapshot_id = {int(snapshot_id)}", made_by)
    if snapshot is None:
        known = ", ".join(known_ids(spark, table)) or "there are none"
        raise SnapshotNotFound(
            f"{table} has no snapshot {snapshot_id}: it never had, or it has expired.",
            f"one of its snapshots: {known}",
            f"To see them, run in Spark:  SELECT * FROM {table}.snapshots",
        )
    return snapshot


def known_ids(spark: SparkSession, table: str) -> list[str]:
    """Return the ids of the table's snapshots as text, oldest first."""
    rows = spark.sql(f"SELECT snapshot_id FROM {table}.snapshots ORDER BY committed_at").collect()
    return [str(row.snapshot_id) for row in rows]


def require_ours(spark: SparkSession, table: str, made_by: str) -> None:
    """Let a lesson replace a table only if a lesson made it: a shared lake has tables of others.

    Nothing happens where there is no table of this name. A table that a lesson made says so in
    its property `made_by`, for example `code/00_datagen.py`.

    Args:
        spark: a session from `cmlflow.spark.start_spark`.
        table: catalog, namespace and name.
        made_by: the lesson that wants to replace the table.

    Raises:
        TableTaken: the table is not by a lesson, or no Iceberg table.
    """
    if not _exists(spark, table):
        return
    another_name = f"edit TABLE at the top of {made_by}"
    kind = _kind(spark, table)
    if kind != "iceberg":
        raise TableTaken(
            f"{table} is there already, and no Iceberg table: its format is {kind}.",
            "no table of this name, or an Iceberg table that a lesson made",
            f"To give the lesson's table another name,  {another_name}",
        )
    rows = spark.sql(f"SHOW TBLPROPERTIES {table}").collect()
    maker = {row.key: row.value for row in rows}.get("made_by", "")
    if not maker.startswith("code/"):
        raise TableTaken(
            f"{table} is there already, and no lesson made it: its property made_by is {maker!r}.",
            f"one that a lesson made, or none; for another name, {another_name}",
            "To let the lesson replace it, run in Spark:  "
            f"ALTER TABLE {table} SET TBLPROPERTIES ('made_by' = '{made_by}')",
        )


def _exists(spark: SparkSession, table: str) -> bool:
    # Without the catalog's name: with it, and in the form of two arguments, the answer is False.
    return spark.catalog.tableExists(table.removeprefix("spark_catalog."))


def _kind(spark: SparkSession, table: str) -> str:
    """Return the format of a table in lower case, for example `iceberg`, or `view`."""
    rows = spark.sql(f"DESCRIBE TABLE EXTENDED {table}").collect()
    facts = {row.col_name: row.data_type for row in rows}  # the columns first, then the facts
    return facts.get("Provider", facts.get("Type", "unknown")).lower()


def _require_table(spark: SparkSession, table: str, made_by: str) -> None:
    if _exists(spark, table):
        return
    if made_by:
        raise MissingStep(
            f"There is no table {table}.",
            f"an Iceberg table, written by {made_by}",
            f"python {made_by}",
        )
    raise SnapshotNotFound(
        f"There is no table {table} in {catalog_of(spark)}, hence no snapshot of it.",
        "the catalog in which the table was written",
        "To choose it, set the environment variable:  CONNECTION_NAME=<name> in CML, "
        "CMLFLOW_WORKAREA=<folder> on a laptop",
    )


def _read(spark: SparkSession, table: str, which: str, made_by: str) -> Snapshot | None:
    from pyspark.sql.utils import AnalysisException

    try:
        # All in one query: read one by one, the facts could come from different states.
        rows = spark.sql(
            "SELECT snapshot_id, s.parent_id, unix_millis(s.committed_at) AS committed_ms,"
            " s.operation, CAST(s.summary['total-records'] AS BIGINT) AS row_count,"
            " CAST(coalesce(s.summary['total-delete-files'], '0') AS BIGINT) AS delete_files"
            f" FROM {table}.snapshots s {which}"
        ).collect()
    except AnalysisException as error:
        kind = _kind(spark, table)
        if kind == "iceberg":
            raise
        raise LessonError(
            f"{table} has no snapshots: its format is {kind}.",
            f"an Iceberg table, written by {made_by or 'a lesson'}",
            "To write one under another name, edit TABLE at the top and run:  "
            f"python {made_by or '<the lesson>'}",
        ) from error
    if not rows:
        return None
    (row,) = rows
    row_count = row.row_count
    if row_count is None or row.delete_files:  # the summary counts rows that delete files hide
        row_count = spark.sql(f"SELECT 1 FROM {table} VERSION AS OF {row.snapshot_id}").count()
    epoch = datetime(1970, 1, 1, tzinfo=timezone.utc)
    return Snapshot(
        table=table,
        snapshot_id=str(row.snapshot_id),
        parent_id=None if row.parent_id is None else str(row.parent_id),
        committed_at=epoch + timedelta(milliseconds=row.committed_ms),
        operation=row.operation,
        row_count=row_count,
        catalog=catalog_of(spark),
    )


def pin_name(model: str, version: int | str) -> str:
    """Return the name of the Iceberg tag of a model version, for example `wine-forest-v3`.

    Letters, digits and hyphens stay, any other character becomes its number between underscores:
    two models never share a name.
    """
    legal = re.sub(r"[^A-Za-z0-9-]", lambda found: f"_{ord(found[0]):x}_", model)
    return f"{legal}-v{int(version)}"


def pin(spark: SparkSession, table: str, snapshot_id: str, model: str, version: int | str) -> str:
    """Keep a snapshot for a registered model: give it an Iceberg tag, which never expires here.

    `expire_snapshots` removes snapshots that no branch and no tag points at. To do it again is
    harmless.

    Returns:
        The name of the tag.

    Raises:
        SnapshotNotFound: the table or the snapshot is not there.
        PinTaken: the tag keeps another snapshot; it stays as it is.
    """
    snapshot = by_id(spark, table, snapshot_id)
    name = pin_name(model, version)
    found = spark.sql(f"SELECT snapshot_id FROM {table}.refs WHERE name = '{name}'").collect()
    if not found:
        spark.sql(f"ALTER TABLE {table} CREATE TAG `{name}` AS OF VERSION {snapshot.snapshot_id}")
    elif str(found[0].snapshot_id) != snapshot_id:
        raise PinTaken(
            f"The Iceberg tag {name} of {table} keeps snapshot {found[0].snapshot_id}, "
            f"not {snapshot_id}.",
            "model versions of one registry only; was its database removed?",
            f"To free the name, run in Spark:  ALTER TABLE {table} DROP TAG `{name}`",
        )
    return name


def unpin(spark: SparkSession, table: str, model: str, version: int | str) -> None:
    """Drop the Iceberg tag of a model version that was deleted; harmless if there is none."""
    spark.sql(f"ALTER TABLE {table} DROP TAG IF EXISTS `{pin_name(model, version)}`")
