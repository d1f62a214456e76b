"""Names and versions of the libraries that a model was trained with.

pip's name of a library is not always that of its module, and one module may come from two packages:
`xgboost` is in the package xgboost, and in xgboost-cpu without its 700 MB of GPU libraries. Spark's
add-on in a CML session was not installed by pip at all, so pip does not know its version.
"""

from __future__ import annotations

import importlib
import re
from importlib import metadata
from types import ModuleType

from cmlflow import workarea
from cmlflow.errors import Unsupported

PACKAGES = {"sklearn": "scikit-learn"}
"""Module: the package that a model asks for, where the two names differ."""
MODULES = {
    "pyspark": "pyspark",
    "scikit-learn": "sklearn",
    "xgboost": "xgboost",
    "xgboost-cpu": "xgboost",
}
"""Package: the module to ask where pip does not know the package. No other module is imported."""
SUPPORTED = {"mlflow": ((2, 19), None), "pandas": ((2, 2), (3,))}
"""Package: the first release that the lessons run with, and the first with which they no longer do;
see docs/MATRIX.md. pip refuses another Python, because `cmlflow` says which it takes."""


def require_supported() -> None:
    """Refuse releases with which a lesson would stop halfway, with an error of another library.

    Raises:
        Unsupported: a package of SUPPORTED is installed in another release.
    """
    for package, (first, end) in SUPPORTED.items():
        # CML's sessions have mlflow-skinny alone.
        found = version(package) or version(f"{package}-skinny")
        numbers = tuple(map(int, re.findall(r"\d+", found or "")[:2]))
        if not numbers or (numbers >= first and (end is None or numbers < end)):
            continue
        wanted = f"{package} {'.'.join(map(str, first))} or later"
        raise Unsupported(
            f"{package} {found} is installed.",
            f"{wanted}, before {end[0]}" if end else wanted,
            "Start a new session, with a runtime of 2025 or later"
            if package == "mlflow" and workarea.in_cml()
            else "To install what the lessons were tried with, run:  pip install -r "
            + ("requirements.txt" if workarea.in_cml() else "requirements-local.txt"),
        )


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
