"""Time lessons, each in a process of its own: seconds, and the ratio to the first.

Run  .venv/bin/python benchmarks/time_lessons.py 06_Spark_Iceberg.py 00_datagen.py [--repeat 3]

They take turns in one temporary working area, so that a busy moment of the machine meets all of
them, and each ran once before, so that no first time is counted.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CODE = Path(__file__).resolve().parents[1] / "code"


def seconds(lesson: str, work: str) -> float:
    """Run a lesson, with its options if the text has some, and return how long it took.

    Raises:
        subprocess.CalledProcessError: the lesson failed; what it said is on the screen.
    """
    script, *options = lesson.split()
    begin = time.monotonic()
    subprocess.run(
        [sys.executable, str(CODE / script), *options],
        env=os.environ | {"CMLFLOW_WORKAREA": work},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return time.monotonic() - begin


def main() -> None:
    """Time the lessons of the command line and print a line for each."""
    parser = argparse.ArgumentParser(description="Time lessons, in turns.")
    parser.add_argument("lesson", nargs="+", help='for example "00_datagen.py --rows 1000000"')
    parser.add_argument("--repeat", type=int, default=3, help="how often each is timed")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lessons-") as work:
        turns = [[seconds(one, work) for one in args.lesson] for _ in range(args.repeat + 1)]
    timed = list(zip(*turns[1:], strict=True))
    first = statistics.median(timed[0])
    for lesson, times in zip(args.lesson, timed, strict=True):
        median = statistics.median(times)
        spread = f"{min(times):.1f} to {max(times):.1f}"
        print(f"{lesson:<40} {median:6.1f} s  ({spread})  {median / first:5.2f}")


if __name__ == "__main__":
    main()
