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
from collections.abc import Callable
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


def seconds_of(call: Callable[[], object]) -> float:
    """Return the seconds that a call takes, which prints nothing meanwhile."""
    begin = time.monotonic()
    with contextlib.redirect_stdout(io.StringIO()):
        call()
    return time.monotonic() - begin


def seconds(script: str, *options: str) -> float:
    """Run a script of Part 4 and return its seconds."""
    return seconds_of(lambda: runner.run(TELCO / script, options))


def by_hand(days: int) -> None:
    """Time the scripts of Part 4 in order, then the days of the loop."""
    took = []
    for script in BY_HAND:
        took.append(seconds(script))
        print(f"| {script} | {took[-1]:.1f} |", flush=True)
    print(f"| 00 to 07 together | {sum(took):.1f} |")
    for day in range(days):
        one = seconds("09_jobs.py", "--days", "1")
        print(f"| day {day + 1} of the loop | {one:.1f} |", flush=True)


def scale(rows_per_day: int) -> None:
    """Print one line: what grows with the messages of a day, here and in Spark."""
    took = [
        seconds("00_datagen.py", "--rows-per-day", str(rows_per_day), "--days", "1"),
        seconds("01_train_xgboost.py"),
    ]
    for script, *options in (
        ("02_api_deployment.py",),
        *2 * [("03_newbatch.py", "--drift", "none")],
    ):
        seconds(script, *options)
    took.append(seconds("04_train_xgboost.py", "--num-workers", "2"))
    seconds("06_model_simulation.py", "--batch")
    seconds("03_newbatch.py", "--drift", "none")
    took.append(seconds("06_model_simulation.py", "--rows-per-request", "40"))
    seconds("03_newbatch.py", "--drift", "none")
    took.append(seconds("06_model_simulation.py", "--batch"))
    spark, table = start_spark(""), "spark_catalog.default.telco_cell_towers"
    end = snapshots.current(spark, table, "code/telco/00_datagen.py")
    increments.appended_rows(spark, end, end.parent_id)
    rows = increments.read(spark, table, end.parent_id, end.snapshot_id).select(*towers.FEATURES)
    reference = drift.reference(rows.limit(7200).toPandas(), towers.FEATURES, 0.2, 0.85, 0.23)
    took.append(seconds_of(lambda: drift.bin_counts(reference, rows.toPandas())))
    took.append(seconds_of(lambda: drift.bin_counts_in_spark(reference, rows)))
    spark.stop()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    cells = " | ".join(f"{one:.1f}" for one in took)
    print(f"| {rows_per_day:,} | {cells} | {peak:.0f} |", flush=True)


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
