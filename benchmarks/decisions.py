"""What Part 4 decides by itself: its loop, once for each kind of drift and each seed.

Run  .venv/bin/python benchmarks/decisions.py [--seeds 10] [--days 8]    about a minute each

Five days of history, then the days of the loop; the world changes on day 8. Each story is told by
the lessons themselves, in a process and a working area of its own. A letter is a decision: k for
keep, w for wait, R for retrain. The three roc_auc: the mean up to day 7, the lowest from day 8 on,
and that of the last day whose truth is known.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from cmlflow import drift, runner, store, towers
from cmlflow.serving import on_laptop
from cmlflow.spark import start_spark

TELCO = Path(__file__).resolve().parents[1] / "code" / "telco"
MONITORING = "spark_catalog.default.telco_monitoring"
SHORT = {drift.KEEP: "k", drift.WAIT: "w", drift.RETRAIN: "R"}
EACH_REQUEST = "40"
"""Messages in a request: how they are sent does not change what is answered."""


def tell(kind: str, seed: int, days: int) -> str:
    """Run one story in this process and return its line of the table."""
    with contextlib.redirect_stdout(io.StringIO()):
        store.use_store()
        try:
            runner.run(TELCO / "00_datagen.py", ["--seed", str(seed)])
            for script in ("01_train_xgboost.py", "02_api_deployment.py"):
                runner.run(TELCO / script)
            sent = {"CMLFLOW_ROWS_PER_REQUEST": EACH_REQUEST}
            runner.run(TELCO / "09_jobs.py", ["--days", str(days), "--drift", kind], sent)
        finally:
            on_laptop.stop_all()
        spark = start_spark("")
        rows = spark.table(MONITORING).toPandas().sort_values(["batch_id", "window"])
        spark.stop()
    decided = rows[rows["kind"] == "decision"].drop_duplicates("batch_id", keep="last")
    verdicts = rows[rows["kind"] == "verdict"]
    alarms = decided.loc[decided["feature"] != drift.KEEP, "batch_id"]
    promoted = verdicts.loc[verdicts["value"] == 1, "batch_id"]
    auc = rows[rows["kind"] == "roc_auc"].set_index("batch_id")["value"]
    return " | ".join(
        (
            f"| {kind} | {seed}",
            "".join(SHORT[action] for action in decided["feature"]),
            str(alarms.min()) if len(alarms) else "none",
            str(len(verdicts)),
            str(len(promoted)),
            f"{auc.loc[:7].mean():.3f}, {auc.loc[8:].min():.3f}, {auc.iloc[-1]:.3f} |",
        )
    )


def main() -> None:
    """Print the table, a line for each story as soon as it is told."""
    parser = argparse.ArgumentParser(description="Tell the story of Part 4 with many seeds.")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first", type=int, default=42, help="the first seed")
    parser.add_argument("--days", type=int, default=8)
    parser.add_argument("--drift", choices=towers.DRIFTS, nargs="+", default=towers.DRIFTS)
    parser.add_argument("--one", action="store_true", help="in this process and working area")
    args = parser.parse_args()
    if args.one:
        print(tell(args.drift[0], args.first, args.days), flush=True)
        return
    print(
        "| Drift | Seed | Decisions of days 6 on | First not keep | Judged | Promoted | roc_auc |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |", flush=True)
    for seed in range(args.first, args.first + args.seeds):
        for kind in args.drift:
            options = ["--one", "--drift", kind, "--first", str(seed), "--days", str(args.days)]
            with tempfile.TemporaryDirectory() as area:
                variables = os.environ | {"CMLFLOW_WORKAREA": area}
                subprocess.run([sys.executable, __file__, *options], env=variables, check=True)


if __name__ == "__main__":
    main()
