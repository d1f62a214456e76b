"""What a CML session installs."""

import json
import re
import subprocess
import sys
from importlib import metadata

import pytest
from conftest import ROOT
from packaging.requirements import Requirement

pytestmark = pytest.mark.once


@pytest.mark.network
def test_a_session_installs_neither_mlflow_nor_spark(tmp_path):
    report = tmp_path / "report.json"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed"),
            *("--quiet", "--report", str(report), "-r", "requirements.txt"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(report.read_text())["install"]
    names = {item["metadata"]["name"].lower() for item in found}
    assert {"cmlflow", "pandas", "scikit-learn", "numpy", "matplotlib"} <= names
    assert not {name for name in names if name.startswith(("mlflow", "pyspark", "py4j"))}


def pins(file):
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith(("#", "-"))]


@pytest.mark.parametrize(
    "file", ["requirements.txt", "requirements-local.txt", "requirements-parity.txt"]
)
def test_every_requirement_is_pinned(file):
    ceilings = {"sqlalchemy<2.1", "setuptools<81"}  # what MLflow 2.19 and pyspark 3.5 need
    found = [line.partition(";")[0] for line in pins(file)]
    assert [pin for pin in found if "==" not in pin and pin not in ceilings] == []


def requirements(file):
    """What a file asks for, with what the files that it includes ask for."""
    included = re.findall(r"^-r (\S+)$", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
    lines = pins(file) + [line for other in included for line in requirements(other)]
    return [Requirement(str(line)) for line in lines]


@pytest.mark.network
@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12"])
@pytest.mark.parametrize("file", ["requirements-local.txt", "requirements-parity.txt"])
def test_every_supported_python_finds_a_release_of_every_pin(tmp_path, file, python):
    """Both files include requirements.txt, which therefore resolves by itself too."""
    wanted = requirements(file) + [Requirement(line) for line in metadata.requires("cmlflow")]
    copy = tmp_path / "requirements.txt"
    with copy.open("w") as lines:
        for requirement in wanted:
            # pip would evaluate the marker for the Python that runs it, not for this one.
            if requirement.marker and not requirement.marker.evaluate({"python_version": python}):
                continue
            requirement.marker = None
            # pyspark is published as source only, which pip does not look at for another Python.
            if requirement.name != "pyspark":
                print(requirement, file=lines)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"),
            *("--python-version", python, "--only-binary=:all:"),
            *("--target", str(tmp_path / "none"), "-r", str(copy)),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_python_3_12_gets_the_distutils_that_pyspark_imports():
    (setuptools,) = [one for one in requirements("requirements.txt") if one.name == "setuptools"]
    asked = [
        v for v in ("3.10", "3.11", "3.12") if setuptools.marker.evaluate({"python_version": v})
    ]
    assert asked == ["3.12"]


def test_both_generations_are_tested_with_the_same_tools():
    def others(file):
        apart = ("mlflow", "sqlalchemy", "setuptools", "ruff")
        return [line for line in pins(file) if not line.startswith(apart)]

    assert others("requirements-local.txt") == others("requirements-parity.txt")
