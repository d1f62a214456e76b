"""The table of transactions, as the XGBoost lessons read it: what is wrong with it is said early.

Somebody may have altered the table since `code/00_datagen.py` wrote it. XGBoost would then stop in
the middle of a run, or would train on it and report nothing.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from cmlflow.errors import LessonError

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame, SparkSession

    from cmlflow.snapshots import Snapshot

WRITER = "code/00_datagen.py"
DRIVER_BYTES_PER_ROW = 1000
"""A million rows became a pandas table with a driver of 1 GB, ten million did not."""
LAST_SECOND = 250_000_000_000
"""In the year 9892: a year of five digits is no date for pandas and others."""
_NO_FEATURES = {"transaction_id": "bigint", "transaction_time": "timestamp", "fraud_label": "int"}
_NUMBERS = ("double", "float", "int", "bigint", "smallint", "tinyint")


def require_fits(spark: SparkSession, snapshot: Snapshot) -> None:
    """Raise LessonError if the rows of a snapshot are too many for one machine."""
    memory = spark._jvm.java.lang.Runtime.getRuntime().maxMemory()
    most = memory // DRIVER_BYTES_PER_ROW
    if snapshot.row_count > most:
        raise LessonError(
            f"{snapshot.row_count} rows do not fit into Spark's driver, which has "
            f"{memory / 1e9:.2f} GB.",
            f"at most {most} rows here, or training where the rows are",
            "To train on Spark's executors, run:  python code/15_XGBoost_Distributed.py",
        )


def require_pyarrow() -> None:
    """Raise LessonError where pyarrow is missing: Spark could not hand rows to XGBoost."""
    if importlib.util.find_spec("pyarrow") is None:
        raise LessonError(
            f"pyarrow is not installed for {sys.executable}.",
            "pyarrow, through which Spark hands rows to the workers of XGBoost",
            "To install it, run:  pip install pyarrow",
        )


def require_columns(rows: DataFrame, table: str) -> None:
    """Raise LessonError unless the rows have key, time and label, and features that are numbers."""
    kinds = dict(rows.dtypes)
    wrong = [
        f"{name} is {kinds.get(name, 'missing')}"
        for name in {**_NO_FEATURES, **kinds}
        if (name in _NO_FEATURES and kinds.get(name) != _NO_FEATURES[name])
        or (name not in _NO_FEATURES and kinds[name] not in _NUMBERS)
    ]
    if not set(kinds) - set(_NO_FEATURES):
        wrong.append("there is no feature")
    if wrong:
        raise _written_anew(
            f"{table} has columns to which no model can be trained: {', '.join(wrong)}.",
            ", ".join(f"{name} {kind}" for name, kind in _NO_FEATURES.items())
            + ", and features that are numbers",
        )


def require_finite(infinite: Iterable[str], table: str) -> None:
    """Raise LessonError if columns hold infinite numbers, which XGBoost does not take."""
    names = ", ".join(infinite)
    if names:
        raise _written_anew(
            f"{table} holds infinite numbers: {names}.", "finite numbers, or none in a row"
        )


def require_same_columns(batch: DataFrame, rows: DataFrame, table: str) -> None:
    """Raise LessonError unless a batch has the columns of the table to which it is appended."""
    ours, theirs = set(batch.dtypes), set(rows.dtypes)
    if ours != theirs:
        raise _written_anew(
            f"{table} has other columns than a new batch. "
            f"Only in the table: {_listed(theirs - ours)}; only in the batch: "
            f"{_listed(ours - theirs)}.",
            "the columns with which the lesson wrote the table",
        )


def require_room(last_id: int, last_second: int | None, table: str) -> None:
    """Raise LessonError unless ids and dates after the last ones can be counted on.

    Args:
        last_id: the largest; the ids after it must fit into 64 bits.
        last_second: of the latest transaction, since 1970; None if none has a time.
        table: its name, for the message.
    """
    if last_id > 2**62:
        raise _written_anew(
            f"The last transaction_id of {table} is {last_id}: a new batch would exceed 64 bits.",
            "ids that are counted from 0",
        )
    if last_second is None or last_second > LAST_SECOND:
        when = "no time" if last_second is None else f"{last_second} seconds after 1970"
        raise _written_anew(
            f"The latest transaction of {table} has {when}: no later day can follow.",
            "days from 2024 on, before the year 9900",
        )


def require_sound(balance: pd.DataFrame, table: str) -> None:
    """Raise LessonError unless keys are unique, labels are 0 or 1, and each part has both.

    Args:
        balance: a line for each part (the key modulo 5, as index), with the numbers of `rows`, of
            different `ids`, of `frauds` and of `honest` rows.
        table: its name, for the message.
    """
    total = balance.sum()
    doubled = total["rows"] - total["ids"]
    unlabelled = total["rows"] - total["frauds"] - total["honest"]
    part_of = {0: "test", 1: "validation", 2: "train", 3: "train", 4: "train"}
    both = balance.groupby(part_of)[["frauds", "honest"]].sum().min(axis=1)
    poor = [part for part in ("train", "validation", "test") if not both.get(part, 0)]
    if doubled:
        raise _written_anew(
            f"{doubled} rows of {table} have no transaction_id of their own.", "each key once"
        )
    if unlabelled:
        raise _written_anew(
            f"{unlabelled} rows of {table} have a fraud_label other than 0 and 1.",
            "1 for fraud, 0 for any other row",
        )
    if poor:
        raise _written_anew(
            f"{total['rows']} rows of {table} are too few: fraud or its opposite is missing in "
            f"{', '.join(poor)}.",
            "some frauds among the rows of each part, as in 10000 rows",
        )


def _written_anew(found: str, expected: str) -> LessonError:
    return LessonError(found, expected, f"To write the table anew, run:  python {WRITER}")


def _listed(columns: set[tuple[str, str]]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in sorted(columns)) or "nothing"
