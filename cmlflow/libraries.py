"""Names and versions of the libraries that a model was trained with.

pip's name of a library is not always that of its module, and one module may come from two packages:
`xgboost` is in the package xgboost, and in xgboost-cpu without its 700 MB of GPU libraries. Spark's
add-on in a CML session was not installed by pip at all, so pip does not know its version.
"""

from __future__ import annotations

import importlib
from importlib import metadata
from types import ModuleType

PACKAGES = {"sklearn": "scikit-learn"}
"""Module: the package that a model asks for, where the two names differ."""
MODULES = {
    "pyspark": "pyspark",
    "scikit-learn": "sklearn",
    "xgboost": "xgboost",
    "xgboost-cpu": "xgboost",
}
"""Package: the module to ask where pip does not know the package. No other module is imported."""


def pin(*modules: ModuleType) -> list[str]:
    """Return what a model asks pip for, for example `["xgboost==3.2.0", "scikit-learn==1.9.1"]`.

    A model asks for `xgboost`, also where xgboost-cpu is installed, because xgboost exists for
    every system. MLflow first looks for a package of that name and then for the module, so the
    model loads without a warning in both environments. With xgboost-cpu as its pin it would warn
    in the other one, and macOS could not install it.
    """
    return [f"{PACKAGES.get(one.__name__, one.__name__)}=={one.__version__}" for one in modules]


def version(package: str) -> str | None:
    """Return the version of a package that is installed here, or None.

    Args:
        package: pip's name, for example `scikit-learn`.
    """
    try:
        return metadata.version(package)
    except (metadata.PackageNotFoundError, ValueError):  # ValueError: there is no name
        pass
    try:
        return importlib.import_module(MODULES[package.lower().replace("_", "-")]).__version__
    except (KeyError, ImportError):
        return None
