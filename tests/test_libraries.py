"""What a model asks pip for, and which versions are here."""

import logging
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pandas as pd
import pyspark
import pytest
import sklearn
import xgboost
from conftest import clean_environment
from mlflow.utils.requirements_utils import warn_dependency_requirement_mismatches

from cmlflow import libraries


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
