"""What a model asks pip for, and which versions are here."""

import logging
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import mlflow
import pandas as pd
import pyspark
import pytest
import sklearn
import xgboost
from conftest import ROOT, clean_environment, python, run_script
from mlflow.utils.requirements_utils import warn_dependency_requirement_mismatches

from cmlflow import libraries
from cmlflow.errors import Unsupported


def test_a_pin_has_the_name_that_pip_knows_and_the_version_of_the_module():
    assert libraries.pin(xgboost, sklearn, pd) == [
        f"xgboost=={xgboost.__version__}",
        f"scikit-learn=={sklearn.__version__}",
        f"pandas=={pd.__version__}",
    ]


def test_mlflow_is_content_with_the_pins_where_they_were_made(caplog):
    caplog.set_level(logging.WARNING)
    logging.getLogger("mlflow").propagate = True
    warn_dependency_requirement_mismatches(libraries.pin(xgboost, sklearn, pd, pyspark))
    assert caplog.text == ""
    warn_dependency_requirement_mismatches(["xgboost==0.1"])
    assert "required: xgboost==0.1" in caplog.text


@pytest.mark.parametrize("package", ["xgboost", "xgboost-cpu", "xgboost_cpu", "XGBoost"])
def test_both_packages_of_xgboost_have_the_version_of_the_module(package):
    assert libraries.version(package) == xgboost.__version__


def test_a_package_that_pip_knows_has_the_version_that_pip_knows():
    assert libraries.version("filelock") == metadata.version("filelock")


def test_a_spark_that_pip_does_not_know_has_a_version(tmp_path):
    """A CML session's add-on: pyspark is on PYTHONPATH and has no metadata."""
    (tmp_path / "pyspark").symlink_to(Path(pyspark.__file__).parent)
    code = (
        "import importlib.metadata as m; from cmlflow import libraries\n"
        "find = m.MetadataPathFinder.find_distributions\n"
        "m.MetadataPathFinder.find_distributions = classmethod(\n"
        "    lambda cls, context=m.DistributionFinder.Context(): (\n"
        "        one for one in find(context) if one.name != 'pyspark'))\n"
        "try: m.version('pyspark'); raise AssertionError\n"
        "except m.PackageNotFoundError: print(libraries.version('pyspark'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=clean_environment(tmp_path, PYTHONPATH=str(tmp_path)),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == pyspark.__version__


@pytest.mark.parametrize("package", ["no-such-package", "this", "", "@@ ;; "])
def test_what_is_not_installed_has_no_version_and_no_other_module_is_imported(package):
    """`this` is a module of Python that prints when it is imported, as a lesson would run."""
    assert libraries.version(package) is None
    assert package not in sys.modules


class TestSupported:
    """What a lesson says in an environment with releases that it does not run with."""

    @pytest.fixture
    def installed(self, tmp_path):
        """Let pip say that another release of a package is here; return what leads to it."""

        def describe(name, version):
            folder = tmp_path / f"{name}-{version}.dist-info"
            folder.mkdir()
            (folder / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n")
            return {"PYTHONPATH": str(tmp_path)}

        return describe

    @pytest.mark.parametrize(
        ("package", "version", "expected"),
        [
            ("mlflow", "2.18.0", "mlflow 2.19 or later."),
            ("mlflow", "1.30.1", "mlflow 2.19 or later."),
            ("pandas", "3.1.1", "pandas 2.2 or later, before 3."),
            ("pandas", "2.1.4", "pandas 2.2 or later, before 3."),
        ],
    )
    def test_a_lesson_names_the_release_before_it_logs_anything(
        self, installed, work, package, version, expected
    ):
        before = (work / "mlflow.db").read_bytes()
        done = run_script("01_Experiment.py", work, **installed(package, version))
        assert done.returncode != 0
        assert done.stderr.splitlines()[-3:] == [
            f"cmlflow.errors.Unsupported: {package} {version} is installed.",
            f"Expected: {expected}",
            "To install what the lessons were tried with, run:  "
            "pip install -r requirements-local.txt",
        ]
        assert (work / "mlflow.db").read_bytes() == before

    def test_a_lesson_with_spark_says_so_before_java_starts(self, installed, work):
        extra = installed("mlflow", "2.18.0") | {"JAVA_HOME": "/no/such/java"}
        done = run_script("00_datagen.py", work, **extra)
        assert "cmlflow.errors.Unsupported: mlflow 2.18.0 is installed.\n" in done.stderr
        assert not (work / "spark-warehouse.lock").exists()

    @pytest.mark.parametrize("version", ["2.19.0", "2.22.5", "3.17.2", "3.18.0rc1", "10.0"])
    def test_a_later_release_is_not_refused(self, installed, work, version):
        code = "from cmlflow import libraries; libraries.require_supported(); print('fits')"
        assert python(code, work, **installed("mlflow", version)) == "fits\n"

    def test_in_cml_nothing_advises_to_install_mlflow_over_the_platforms(self, monkeypatch):
        monkeypatch.setenv("CDSW_PROJECT_ID", "abcd")
        monkeypatch.setitem(libraries.SUPPORTED, "mlflow", ((99, 0), None))
        with pytest.raises(Unsupported) as caught:
            libraries.require_supported()
        assert caught.value.found == f"mlflow {mlflow.__version__} is installed."
        assert caught.value.cure == "Start a new session, with a runtime of 2025 or later"

    def test_what_it_refuses_is_what_pip_refuses(self):
        project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        first, end = libraries.SUPPORTED["pandas"]
        assert f'"pandas>={first[0]}.{first[1]},<{end[0]}",' in project
