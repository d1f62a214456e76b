"""What a CML session installs."""

import json
import subprocess
import sys

import pytest
from conftest import ROOT

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
    ceilings = {"sqlalchemy<2.1", "setuptools<81"}  # of MLflow 2.19's time; no more is known
    assert [line for line in pins(file) if "==" not in line and line not in ceilings] == []


def test_both_generations_are_tested_with_the_same_tools():
    def others(file):
        apart = ("mlflow", "sqlalchemy", "setuptools", "ruff")
        return [line for line in pins(file) if not line.startswith(apart)]

    assert others("requirements-local.txt") == others("requirements-parity.txt")
