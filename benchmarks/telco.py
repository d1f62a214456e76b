"""Time Part 4: its scripts by hand, the days of its loop, and each step of the scale path.

Run  .venv/bin/python benchmarks/telco.py [--days 4]           00 to 07, then the loop
     .venv/bin/python benchmarks/telco.py --scale 1440 100000  the scale path, by messages a day

In one process, as `make telco` does: a new Java for each script would cost six seconds each time.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from cmlflow import drift, increments, runner, snapshots, store, towers
from cmlflow.serving import on_laptop
from cmlflow.spark import start_spark

TELCO = Path(__file__).resolve().parents[1] / "code" / "telco"
BY_HAND = (
    "00_datagen.py",
    "01_train_xgboost.py",
    "02_api_deployment.py",
    "03_newbatch.py",
    "03_newbatch.py",
    "04_train_xgboost.py",
    "05_api_redeployment.py",
    "06_model_simulation.py",
    "07_model_monitoring.py",
)


@contextlib.contextmanager
def timed(what: str) -> Iterator[None]:
    """Print how many seconds a block takes, and nothing of what it prints itself."""
    begin = time.monotonic()
    with contextlib.redirect_stdout(io.StringIO()):
        yield
    print(f"| {what} | {time.monotonic() - begin:.1f} |", flush=True)


def by_hand(days: int) -> None:
    """Time the scripts of Part 4 in order, then the days of the loop."""
    begin = time.monotonic()
    for script in BY_HAND:
        with timed(script):
            runner.run(TELCO / script)
    print(f"| 00 to 07 together | {time.monotonic() - begin:.1f} |", flush=True)
    for day in range(days):
        with timed(f"day {day + 1} of the loop"):
            runner.run(TELCO / "09_jobs.py", ["--days", "1"])


def scale(rows_per_day: int) -> None:
    """Time what grows with the messages of a day: here and in Spark."""
    options = ["--rows-per-day", str(rows_per_day), "--days", "1"]
    with timed(f"{rows_per_day:,} messages: generate a day"):
        runner.run(TELCO / "00_datagen.py", options)
    with timed("train on it, here"):
        runner.run(TELCO / "01_train_xgboost.py")
    with timed("deploy"):
        runner.run(TELCO / "02_api_deployment.py")
    for _ in range(2):
        runner.run(TELCO / "03_newbatch.py", ["--drift", "none"])
    with timed("train on the next day, on two executors"):
        runner.run(TELCO / "04_train_xgboost.py", ["--num-workers", "2"])
    with timed("score two days in Spark"):
        runner.run(TELCO / "06_model_simulation.py", ["--batch"])
    spark, table = start_spark(""), "spark_catalog.default.telco_cell_towers"
    end = snapshots.current(spark, table, "code/telco/00_datagen.py")
    increments.appended_rows(spark, end, end.parent_id)
    rows = increments.read(spark, table, end.parent_id, end.snapshot_id).select(*towers.FEATURES)
    some = rows.limit(7200).toPandas()
    reference = drift.reference(some, towers.FEATURES, 0.2, 0.85, 0.23)
    with timed("count the bins of a day, in Spark"):
        drift.bin_counts_in_spark(reference, rows)
    with timed("count the bins of a day, here"):
        drift.bin_counts(reference, rows.toPandas())
    spark.stop()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"| highest memory of the Python process so far, MiB | {peak:.0f} |")


def main() -> None:
    """Time it in a temporary working area and print the lines of a table."""
    parser = argparse.ArgumentParser(description="Time Part 4.")
    parser.add_argument("--days", type=int, default=4)
    parser.add_argument("--scale", type=int, nargs="+", metavar="MESSAGES")
    parser.add_argument("--area", help="a folder that keeps what is made; else a temporary one")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as area:
        os.environ["CMLFLOW_WORKAREA"] = args.area or area
        store.use_store()  # a new store takes seconds, once
        try:
            for rows_per_day in args.scale or ():
                scale(rows_per_day)
            if not args.scale:
                by_hand(args.days)
        finally:
            on_laptop.stop_all()


if __name__ == "__main__":
    main()
