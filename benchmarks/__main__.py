"""Time what the lessons cost, and write the tables and the figure of benchmarks/README.md.

make benchmark, or:  .venv/bin/python -m benchmarks                  everything, about ten minutes
                     .venv/bin/python -m benchmarks --only rows      one part of it
                     .venv/bin/python -m benchmarks --large          with more rows, too

Everything happens in temporary working areas. Each part is written when it is measured, with the
machine, the date and the load; the figure is drawn from the tables.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from datetime import date
from pathlib import Path

import psutil

import tutorial

HERE = Path(__file__).resolve().parent
README, FIGURE = HERE / "README.md", HERE / "costs.png"
ROWS = (10**4, 10**5, 10**6)
LARGE = 10**7
SCALE, LARGE_SCALE = (1440, 10**5), 10**6
GROWING = ("00_datagen.py", "14_XGBoost_Iceberg.py", "15_XGBoost_Distributed.py")
SHOWN = (
    f"![Seconds and memory of each lesson, and seconds against rows.]({FIGURE.name})",
    "*Left: each lesson by itself. Right: a line as steep as the dotted one grows like its rows.*",
)
SAMPLES_PER_SECOND = 10


def measure(lesson: str, area: str, **extra: str) -> tuple[float, float]:
    """Run a lesson with the learner's own command.

    Args:
        lesson: its name below `code/`, with its options.
        area: the working area.
        extra: environment variables.

    Returns:
        Seconds, and the most memory in MiB that its processes, Java and endpoints too, had at
        one moment: the sum of what each has in memory, so what they share counts twice.

    Raises:
        SystemExit: the lesson failed; what it said is on the screen.
    """
    script, *options = lesson.split()
    command = [sys.executable, str(tutorial.CODE / script), *options]
    with tempfile.TemporaryFile("w+") as said:
        begin, peak = time.monotonic(), 0
        environment = os.environ | {"CMLFLOW_WORKAREA": area} | extra
        process = psutil.Popen(command, env=environment, stdout=said, stderr=said)
        while process.poll() is None:
            peak = max(peak, memory_of(process))
            time.sleep(1 / SAMPLES_PER_SECOND)
        seconds = time.monotonic() - begin
        if process.returncode != 0:
            said.seek(0)
            raise SystemExit(f"{said.read()}\n{lesson} ended with code {process.returncode}")
    return seconds, peak / 2**20


def memory_of(process: psutil.Process) -> int:
    """Return the bytes that a process and all below it have in memory at this moment."""
    used = 0
    try:
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for member in family:
        try:
            used += member.memory_info().rss
        except psutil.NoSuchProcess:  # it has ended since
            continue
    return used


def slope(sizes: Iterable[float], costs: Iterable[float]) -> float:
    """Return the exponent with which costs grow from the first size to the second.

    1 means: ten times the size, ten times the cost. Above 1 they grow faster than the size.
    """
    (small, large), (less, more) = sizes, costs
    return math.log(more / less) / math.log(large / small)


def lessons() -> list[str]:
    """Time each lesson once, in the order of running."""
    lines = ["| Lesson | Seconds | Most memory, MiB |", "| --- | --- | --- |"]
    with tempfile.TemporaryDirectory(prefix="benchmark-") as area:
        try:
            for lesson in (*tutorial.LESSONS, f"{tutorial.LOOP} --days 1"):
                seconds, memory = measure(lesson, area)
                lines.append(f"| `{lesson}` | {seconds:.1f} | {memory:.0f} |")
                print(lines[-1], flush=True)
        finally:
            stop = [sys.executable, "-m", "cmlflow.serving", "--stop"]
            environment = os.environ | {"CMLFLOW_WORKAREA": area}
            subprocess.run(stop, env=environment, stdout=subprocess.DEVNULL, check=True)
    return lines


def rows(sizes: tuple[int, ...] = ROWS) -> list[str]:
    """Time the lessons whose table may have any size, each size in a working area of its own."""
    names = [name[:2] for name in GROWING]
    columns = [f"{name}: seconds | MiB" for name in names]
    lines = [f"| Rows | {' | '.join(columns)} |", "| --- |" + " --- | --- |" * len(names)]
    took: dict[int, list[float]] = {}
    for size in sizes:
        memory_gb = max(4, 12 * size // LARGE)  # 14 reads the table through Spark's driver
        options = f"--driver-memory {memory_gb}g --conf spark.driver.maxResultSize=0 pyspark-shell"
        with tempfile.TemporaryDirectory(prefix="benchmark-") as area:
            found = [
                measure(
                    f"{name} --rows {size}" if name == GROWING[0] else name,
                    area,
                    PYSPARK_SUBMIT_ARGS=options,
                )
                for name in GROWING
            ]
        took[size] = [seconds for seconds, _ in found]
        cells = [f"{seconds:.1f} | {memory:.0f}" for seconds, memory in found]
        lines.append(f"| {size:,} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    lines += exponents(took)
    print("\n".join(lines[-2:]), flush=True)
    return lines


def exponents(took: dict[int, list[float]]) -> list[str]:
    """Return two lines of the table: how the seconds of each lesson grow with the rows.

    A lesson needs seconds before it reads its first row, so its exponent is below 1 however the
    rest grows. In the second line what the smallest table takes is left out.

    Args:
        took: for each number of rows, in rising order, the seconds of each lesson.
    """
    least, *_, small, large = took
    lines = []
    for what, always in (
        ("exponent", [0.0] * len(took[least])),
        (f"exponent of what exceeds {least:,} rows", took[least]),
    ):
        cells = []
        for less, more, start in zip(took[small], took[large], always, strict=True):
            grows = start < less and start < more
            told = f"{slope((small, large), (less - start, more - start)):.2f}" if grows else "none"
            cells.append(f"{told} |")
        lines.append(f"| {what}, {small:,} to {large:,} | {' | '.join(cells)} |")
    return lines


def printed_by(script: str, *options: str, area: str = "") -> list[str]:
    """Run a script of this folder and return the lines of a table that it printed."""
    command = [sys.executable, str(HERE / script), *options]
    environment = os.environ | ({"CMLFLOW_WORKAREA": area} if area else {})
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    print(done.stdout, end="", flush=True)
    return [line for line in done.stdout.splitlines() if line.startswith("| ")]


def models() -> list[str]:
    """Time `log_model` against its floor."""
    head = ["| A forest of 100 trees, written | Median | Ratio |", "| --- | --- | --- |"]
    return [*head, *printed_by("log_model.py")]


def endpoint() -> list[str]:
    """Time an endpoint against `mlflow models serve` and against the bare model."""
    head = ["| What | Against what | Measured | Ratio |", "| --- | --- | --- | --- |"]
    return [*head, *printed_by("endpoint.py")]


def pipeline() -> list[str]:
    """Time Part 4, its loop and the start of its dashboard, in one process each."""
    head = ["| What | Seconds |", "| --- | --- |"]
    with tempfile.TemporaryDirectory(prefix="benchmark-") as area:
        steps = printed_by("telco.py", "--days", "2", "--area", area)
        page = printed_by("roi_dashboard.py", area=area)
    return [*head, *steps, *(line.replace("| ", "| dashboard: ", 1) for line in page)]


def scale(sizes: tuple[int, ...] = SCALE) -> list[str]:
    """Time what Part 4 does with more messages a day: in its process, and in Spark."""
    columns = ("Messages a day", "00 makes a day", "01 trains here", "04 trains in Spark")
    columns += ("06 asks the endpoint, 40 a request", "06 scores in Spark")
    columns += ("bins here", "bins in Spark", "Most memory of Python, MiB")
    head = [f"| {' | '.join(columns)} |", "| --- |" + " --- |" * (len(columns) - 1)]
    return [*head, *printed_by("telco.py", "--scale", *map(str, sizes))]


PARTS = {
    "lessons": lessons,
    "rows": rows,
    "models": models,
    "endpoint": endpoint,
    "pipeline": pipeline,
    "scale": scale,
}
LARGER = {"rows": (*ROWS, LARGE), "scale": (*SCALE, LARGE_SCALE)}


def conditions(load: float) -> str:
    """Return on what a part was measured, given the load of the machine before it."""
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"{date.today()}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}, Python "
        f"{platform.python_version()}; load {load:.1f} before, {os.getloadavg()[0]:.1f} at the end"
    )


def markers(part: str) -> tuple[str, str]:
    """Return the lines of the README between which a part stands."""
    return f"<!-- {part}: make benchmark writes from here -->", f"<!-- {part}: to here -->"


def written(text: str, part: str, *paragraphs: str) -> str:
    """Return the README with these paragraphs as a part of it."""
    begin, end = markers(part)
    before, rest = text.split(begin)
    _, after = rest.split(end)
    return "\n\n".join((before + begin, *paragraphs, end + after))


def table(text: str, part: str) -> list[list[str]]:
    """Return the cells of a part's table in the README, without its heading."""
    begin, end = markers(part)
    lines = re.findall(r"^\| (.*) \|$", text.partition(begin)[2].partition(end)[0], re.MULTILINE)
    return [[cell.strip() for cell in line.split("|")] for line in lines[2:]]


def draw(text: str) -> None:
    """Draw the figure from the tables of the README."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 7), layout="constrained")
    left, right = figure.subplots(1, 2)
    found = table(text, "lessons")[::-1]
    names = [name.strip("`").replace(".py", "") for name, *_ in found]
    places = range(len(found))
    left.barh(places, [float(seconds) for _, seconds, _ in found], color="tab:blue")
    left.set_yticks(places, names, fontsize=7)
    left.set_xlabel("seconds")
    left.margins(y=0.01)
    memory = left.twiny()
    memory.plot([float(mib) for *_, mib in found], places, "o", color="tab:orange", markersize=4)
    memory.set_xlim(left=0)
    memory.set_xlabel("most memory, MiB (dots)", color="tab:orange")
    sized = [cells for cells in table(text, "rows") if not cells[0].startswith("exponent")]
    sizes = [int(cells[0].replace(",", "")) for cells in sized]
    for index, name in enumerate(GROWING):
        costs = [float(cells[1 + 2 * index]) for cells in sized]
        right.loglog(sizes, costs, "o-", label=name)
    linear = [costs[0] * size / sizes[0] for size in sizes]
    right.loglog(sizes, linear, ":", color="grey", label="ten times the rows, ten times the cost")
    right.set_ylim(1, 2 * max(costs + [float(cells[1]) for cells in sized]))
    right.set_xlabel("rows")
    right.set_ylabel("seconds, Java's start included")
    right.legend(fontsize=8)
    figure.savefig(FIGURE, dpi=90, metadata={"Software": None})


def main() -> None:
    """Measure the parts that the command line names, and write each into the README."""
    parser = argparse.ArgumentParser(prog="benchmarks", description="Time what the lessons cost.")
    parser.add_argument("--only", choices=PARTS, nargs="+", default=list(PARTS), metavar="PART")
    help_large = f"{LARGE:,} rows (needs 24 GiB) and {LARGE_SCALE:,} messages a day, too"
    parser.add_argument("--large", action="store_true", help=help_large)
    args = parser.parse_args()
    for part in args.only:
        print(f"\n{part}", flush=True)
        load = os.getloadavg()[0]
        sizes = (LARGER[part],) if args.large and part in LARGER else ()
        lines = PARTS[part](*sizes)
        text = README.read_text(encoding="utf-8")
        text = written(text, part, "\n".join(lines), f"*Measured {conditions(load)}.*")
        README.write_text(text, encoding="utf-8")
    text = README.read_text(encoding="utf-8")
    if table(text, "lessons") and table(text, "rows"):
        draw(text)
        README.write_text(written(text, "figure", *SHOWN), encoding="utf-8")
    print(f"\nWritten to {README.relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
