"""One snapshot of an Iceberg table: its facts, and the Iceberg tag that keeps it.

As an MLflow dataset it is made by `mlflow.data.from_iceberg`; see `cmlflow.dataset`.
"""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from cmlflow import workarea
from cmlflow.errors import (
    BadInput,
    LessonError,
    MissingStep,
    PinTaken,
    SnapshotNotFound,
    SparkError,
    TableTaken,
)
from cmlflow.spark import catalog_of, reason

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

        `training_table`, `iceberg_catalog`, `iceberg_snapshot_id`, `iceberg_parent_id` (`none`
        for the first) and `iceberg_snapshot_committed_at` (ISO 8601, for example
        2026-11-21T06:18:50.123+00:00). There is no row count: a lesson counts the rows it reads.
        """
        return {
            "training_table": self.table,
            "iceberg_catalog": self.catalog,
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
        BadInput: its name has no catalog or no namespace.
        LessonError: it is of another format, or cannot be read.
        SnapshotNotFound: it was never written to.
    """
    return _current(spark, table, made_by)[0]


def just_written(
    spark: SparkSession, table: str, made_by: str, parent: Snapshot | None = None
) -> Snapshot:
    """Return the current snapshot, which this session must have written a moment ago.

    In a table that others may write to, the current snapshot may be theirs, or ours with rows of
    theirs below it.

    Args:
        spark: the session that wrote.
        table: as in `current`.
        made_by: as in `current`.
        parent: for an append, the snapshot that it was meant to build on.

    Raises:
        LessonError: somebody else wrote to the table; also what `current` raises.
    """
    snapshot, writer = _current(spark, table, made_by)
    if writer != spark.sparkContext.applicationId:
        found, expected = f"{snapshot.snapshot_id} is by {writer or 'another program'}", "ours"
    elif parent is not None and snapshot.parent_id != parent.snapshot_id:
        found = f"{snapshot.snapshot_id} was built on {snapshot.parent_id}"
        expected = f"built on {parent.snapshot_id}"
    else:
        return snapshot
    raise LessonError(
        f"Somebody else wrote to {table}: its snapshot {found}.",
        f"a snapshot that is {expected}",
        f"When nobody else uses the table, run this again:  python {made_by}",
    )


def by_id(spark: SparkSession, table: str, snapshot_id: str, made_by: str = "") -> Snapshot:
    """Return one snapshot of the table by its id; for the other arguments see `current`.

    Args:
        spark: as in `current`.
        table: as in `current`.
        snapshot_id: digits, as text.
        made_by: as in `current`; empty where nobody knows.

    Raises:
        MissingStep: the table does not exist, and `made_by` is known.
        BadInput: its name has no catalog or no namespace, or the id is not a number.
        LessonError: it is of another format, or cannot be read.
        SnapshotNotFound: it has no such snapshot, or it has expired; or there is no table.
    """
    require_id(snapshot_id)
    with readable(spark, table):
        _require_table(spark, table, made_by)
        found = _read(spark, table, f"WHERE snapshot_id = {snapshot_id}", made_by)
    if found is None:
        known = ", ".join(known_ids(spark, table)) or "there are none"
        raise SnapshotNotFound(
            f"{table} has no snapshot {snapshot_id}: it never had, or it has expired.",
            f"one of its snapshots: {known}",
            f"To see them, run in Spark:  SELECT * FROM {table}.snapshots",
        )
    return found[0]


def known_ids(spark: SparkSession, table: str) -> list[str]:
    """Return the ids of the table's snapshots as text, oldest first."""
    rows = spark.sql(f"SELECT snapshot_id FROM {table}.snapshots ORDER BY committed_at").collect()
    return [str(row.snapshot_id) for row in rows]


def line(spark: SparkSession, table: str) -> set[str]:
    """Return the ids of the snapshots that led to the current one, as text.

    Those of a table that was replaced, or rolled back, are not among them.
    """
    rows = spark.sql(f"SELECT snapshot_id FROM {table}.history WHERE is_current_ancestor")
    return {str(row.snapshot_id) for row in rows.collect()}


@contextlib.contextmanager
def readable(spark: SparkSession, table: str) -> Iterator[None]:
    """Name the table that Spark cannot read in this block, and the reason.

    Raises:
        LessonError: in place of what Spark raised: usually a file is missing or damaged.
    """
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import PySparkException

    try:
        yield
    except (Py4JJavaError, PySparkException) as error:
        folder = _folder(spark, table)
        said, *_ = reason(str(error)).splitlines() or [type(error).__name__]
        raise LessonError(
            f"{table} cannot be read: {said}",
            "a table with all its files, each of them whole",
            _put_aside(folder) if folder else f"To use another table, {_ANOTHER_NAME}",
        ) from error


@contextlib.contextmanager
def writable(table: str) -> Iterator[None]:
    """Name the table to which Spark could not write in this block, and the reason.

    A write is one commit, so half of it is never there, and the lesson may be run again.

    Raises:
        LessonError: in place of what Spark raised: the disk is full, or its clock was set back.
    """
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import PySparkException

    try:
        yield
    except (Py4JJavaError, PySparkException) as error:
        said, *_ = reason(str(error)).splitlines() or [type(error).__name__]
        if "sorted snapshot log" in str(error) or "Invalid update timestamp" in str(error):
            said = "its newest snapshot is of a later time than this machine's clock shows"
        raise LessonError(
            f"{table} could not be written: {said.rstrip('.')}.",
            "room on the disk, the right to write there, and a clock that was not set back",
            "When that is so, run the same lesson again: it goes on from what is there",
        ) from error


def require_ours(spark: SparkSession, table: str, made_by: str) -> None:
    """Let a lesson replace a table only if a lesson made it: a shared lake has tables of others.

    Nothing happens where there is nothing of this name. A table that a lesson made says so in
    its property `made_by`, for example `code/00_datagen.py`.

    Args:
        spark: a session from `cmlflow.spark.start_spark`.
        table: catalog, namespace and name.
        made_by: the lesson that wants to replace the table.

    Raises:
        TableTaken: the table is not by a lesson, or no Iceberg table.
        BadInput: its name has no catalog or no namespace.
        LessonError: it cannot be read.
    """
    require_name(table)
    with readable(spark, table):
        there = _exists(spark, table)
    if not there:
        _require_no_files(spark, table)
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


def require_name(table: str) -> None:
    """Raise BadInput unless a table has catalog, namespace and name; it goes into SQL."""
    if not re.fullmatch(r"\w+(\.\w+){2,}", table):
        raise BadInput(
            f"{table!r} is not the full name of a table.",
            "catalog, namespace and name, in letters, digits and underscores",
            "Write it in full, for example:  spark_catalog.default.training",
        )


def require_id(snapshot_id: str) -> None:
    """Raise BadInput unless a snapshot id is digits, as text; it goes into SQL."""
    if not re.fullmatch(r"[0-9]{1,19}", str(snapshot_id)):
        raise BadInput(
            f"{snapshot_id!r} is not the id of a snapshot.",
            "up to 19 digits",
            "To see the ids, run in Spark:  SELECT * FROM <table>.snapshots",
        )


_ANOTHER_NAME = "edit TABLE at the top of the lesson"


def _folder(spark: SparkSession, table: str) -> Path | None:
    """Return where a table lies, or would lie, on a laptop; None in CML."""
    if not catalog_of(spark).startswith("file:"):
        return None
    return workarea.path("spark-warehouse", *table.split(".")[1:])


def _put_aside(path: Path) -> str:
    typed = shlex.quote(str(path))
    return f"To put it aside, run:  mv {typed} {typed}.old"


def _require_no_files(spark: SparkSession, table: str) -> None:
    """Raise TableTaken if files lie where a new table would: Iceberg would write between them.

    A first write that was stopped leaves Iceberg's own two folders, which do no harm.
    """
    folder = _folder(spark, table)
    if folder is None:
        return
    for place in (folder.parent, folder):
        files = [] if place.is_dir() else [place] if place.exists() else []
        if place == folder and place.is_dir():
            files = [one for one in place.iterdir() if one.name not in ("data", "metadata")]
        if files:
            raise TableTaken(
                f"{min(files)} is there already, and no table.",
                f"an empty place for {table}",
                _put_aside(place),
            )


def _exists(spark: SparkSession, table: str) -> bool:
    from pyspark.sql.utils import AnalysisException

    if spark.sparkContext._jsc is None:  # it would say False of every table
        raise SparkError(
            "This Spark session was stopped.",
            "a session that runs",
            "Run the lesson again from its first cell.",
        )
    try:
        # Without the catalog's name: with it, and in the form of two arguments, it says False.
        return spark.catalog.tableExists(table.removeprefix("spark_catalog."))
    except AnalysisException:  # no such catalog or namespace
        return False


def _kind(spark: SparkSession, table: str) -> str:
    """Return the format of a table in lower case, for example `iceberg`, or `view`."""
    rows = spark.sql(f"DESCRIBE TABLE EXTENDED {table}").collect()
    facts = {row.col_name: row.data_type for row in rows}  # the columns first, then the facts
    return facts.get("Provider", facts.get("Type", "unknown")).lower()


def _require_table(spark: SparkSession, table: str, made_by: str) -> None:
    require_name(table)
    if _exists(spark, table):
        return
    if made_by:
        raise MissingStep(
            f"There is no table {table}.",
            f"an Iceberg table, written by {made_by}",
            f"python {made_by}",
        )
    raise SnapshotNotFound(
        f"There is no table {table} in {catalog_of(spark)}.",
        "the catalog in which the table was written",
        "To choose it, set the environment variable:  CONNECTION_NAME=<name> in CML, "
        "CMLFLOW_WORKAREA=<folder> on a laptop",
    )


def _current(spark: SparkSession, table: str, made_by: str) -> tuple[Snapshot, str | None]:
    """Return what `_read` does, of the snapshot that the table's main branch points at."""
    main = f"JOIN {table}.refs r USING (snapshot_id) WHERE r.name = 'main'"
    with readable(spark, table):
        _require_table(spark, table, made_by)
        found = _read(spark, table, main, made_by)
    if found is None:
        raise SnapshotNotFound(
            f"{table} has no snapshot: it was created, but never written to.",
            f"a table with rows, written by {made_by}",
            f"Run this first:  python {made_by}",
        )
    return found


def _read(
    spark: SparkSession, table: str, which: str, made_by: str
) -> tuple[Snapshot, str | None] | None:
    """Return a snapshot, and the Spark application that wrote it if it was one; or None."""
    from pyspark.sql.utils import AnalysisException

    try:
        # All in one query: read one by one, the facts could come from different states.
        rows = spark.sql(
            "SELECT snapshot_id, s.parent_id, unix_millis(s.committed_at) AS committed_ms,"
            " s.operation, s.summary['spark.app.id'] AS writer,"
            " CAST(s.summary['total-records'] AS BIGINT) AS row_count,"
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
    snapshot = Snapshot(
        table=table,
        snapshot_id=str(row.snapshot_id),
        parent_id=None if row.parent_id is None else str(row.parent_id),
        committed_at=epoch + timedelta(milliseconds=row.committed_ms),
        operation=row.operation,
        row_count=row_count,
        catalog=catalog_of(spark),
    )
    return snapshot, row.writer


def pin_name(model: str, run_id: str) -> str:
    """Return the name of the Iceberg tag of a model and its run: `wine-forest_run_2b7e413a...`.

    Letters, digits and hyphens stay, any other character becomes its number between underscores:
    two models never share a name.
    """
    legal = [
        re.sub(r"[^A-Za-z0-9-]", lambda x: f"_{ord(x[0]):x}_", text) for text in (model, run_id)
    ]
    return "_run_".join(legal)


def pin(spark: SparkSession, table: str, snapshot_id: str, model: str, run_id: str) -> str:
    """Keep the rows of a model: give their snapshot an Iceberg tag, so that it never expires.

    `expire_snapshots` removes snapshots that no branch and no tag points at. The tag is named after
    the run, not after the version of a registered model: so it can be made before the model is
    registered, and two registries that share a table never want the same name. Calling it twice
    does no harm.

    Args:
        spark: a session from `cmlflow.spark.start_spark`.
        table: catalog, namespace and name.
        snapshot_id: digits, as text.
        model: the name under which the model is, or will be, registered.
        run_id: the run that trained it.

    Returns:
        The name of the tag.

    Raises:
        SnapshotNotFound: the table or the snapshot is not there.
        BadInput: as in `by_id`.
        PinTaken: the tag keeps another snapshot; it stays as it is.
    """
    snapshot = by_id(spark, table, snapshot_id)
    name = pin_name(model, run_id)
    found = spark.sql(f"SELECT snapshot_id FROM {table}.refs WHERE name = '{name}'").collect()
    if not found:
        spark.sql(f"ALTER TABLE {table} CREATE TAG `{name}` AS OF VERSION {snapshot.snapshot_id}")
    elif str(found[0].snapshot_id) != snapshot.snapshot_id:
        raise PinTaken(
            f"The Iceberg tag {name} of {table} keeps snapshot {found[0].snapshot_id}, "
            f"not {snapshot_id}.",
            "one snapshot for each run: the one that it was trained on",
            f"To see what each tag keeps, run in Spark:  SELECT * FROM {table}.refs",
        )
    return name


def unpin(spark: SparkSession, table: str, model: str, run_id: str) -> None:
    """Drop the Iceberg tag of a model that was deleted; harmless if there is none.

    Raises:
        SnapshotNotFound: there is no such table.
        BadInput: its name has no catalog or no namespace.
    """
    _require_table(spark, table, made_by="")
    spark.sql(f"ALTER TABLE {table} DROP TAG IF EXISTS `{pin_name(model, run_id)}`")
