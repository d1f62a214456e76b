"""Whether pip finds a release of every pin for every supported Python. It asks the index.

Run  .venv/bin/python tests/resolution.py   after a change of the requirements, and commit
tests/resolved.txt, which it writes. That takes minutes, so the tests only compare the two.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
RESOLVED = ROOT / "tests" / "resolved.txt"
# The first two include requirements.txt.
FILES = ("requirements-local.txt", "requirements-parity.txt", "requirements-pictures.txt")
PYTHONS = ("3.10", "3.11", "3.12")


def pins(file: str) -> list[str]:
    """Return the lines of a file that name a package."""
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith(("#", "-"))]


def requirements(file: str) -> list[Requirement]:
    """Return what a file asks for, with what the files that it includes ask for."""
    included = re.findall(r"^-r (\S+)$", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
    return [
        *(Requirement(line) for line in pins(file)),
        *(one for other in included for one in requirements(other)),
    ]


def wanted(file: str, python: str) -> list[str]:
    """Return what pip is asked for on Linux, cmlflow's own requirements included."""
    asked = requirements(file) + [Requirement(line) for line in metadata.requires("cmlflow")]
    here = {"python_version": python, "sys_platform": "linux"}
    # pip would evaluate a marker for the Python that runs it, not for this one. pyspark is
    # published as source only, which pip does not look at for another Python.
    return sorted(
        f"{one.name}{one.specifier}"
        for one in asked
        if one.name != "pyspark" and (one.marker is None or one.marker.evaluate(here))
    )


def line_for(file: str, python: str) -> str:
    """Return the line of tests/resolved.txt that says that this was resolved."""
    digest = hashlib.sha256("\n".join(wanted(file, python)).encode()).hexdigest()
    return f"{file} {python} {digest}"


def resolve(file: str, python: str) -> None:
    """Let pip resolve what is wanted, and install nothing.

    Raises:
        subprocess.CalledProcessError: there is no such set of releases; pip said why.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed"]
        command += ["--quiet", "--disable-pip-version-check", "--only-binary=:all:"]
        command += ["--python-version", python, "--target", folder]
        subprocess.run(command + wanted(file, python), check=True)


def main() -> None:
    """Resolve what has changed since it was last resolved, and write that down."""
    before = RESOLVED.read_text(encoding="utf-8").splitlines() if RESOLVED.exists() else []
    lines = [line_for(file, python) for file in FILES for python in PYTHONS]
    for line in lines:
        file, python, _ = line.split()
        if line not in before:
            resolve(file, python)
            before.append(line)
            print(line, flush=True)
            done = [one for one in lines if one in before]
            RESOLVED.write_text("\n".join(done) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
