"""The Iceberg runtime for Spark: one jar, downloaded once into the user's cache folder."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import urllib.request
import zipfile
from pathlib import Path

from cmlflow import libraries
from cmlflow.errors import JarUnavailable

JAR_NAME = "iceberg-spark-runtime-3.5_2.12-1.10.1.jar"
JAR_URL = (
    "https://repo1.maven.org/maven2/org/apache/iceberg/iceberg-spark-runtime-3.5_2.12/1.10.1/"
    + JAR_NAME
)
JAR_SIZE = 47_140_434  # bytes
# Published beside the jar on Maven Central, as JAR_URL + ".sha512".
JAR_SHA512 = (
    "2ff0b9637b671a5a28224c57e8393a1e6a65796ca1fe859b32359f9fe7669325"
    "34c69d35e4ebcc166b4498242402d9669cea0d6508593c992691c5598089f709"
)


def iceberg_jar() -> Path:
    """Return the Iceberg runtime jar, downloaded once into the user's cache folder.

    The environment variable CMLFLOW_ICEBERG_JAR names a file to use instead.

    Raises:
        JarUnavailable: no network, a file that is missing or is not Iceberg for Spark, a runtime
            for another release of Spark, a folder that Java cannot read, or a download that is
            not the jar whose SHA-512 is pinned here; an incomplete file is never left in the cache.
    """
    from platformdirs import user_cache_path

    chosen = os.environ.get("CMLFLOW_ICEBERG_JAR", "").strip()
    _require_same_spark(Path(chosen).expanduser().resolve().name if chosen else JAR_NAME)
    if chosen:
        jar = Path(chosen).expanduser().resolve()
        if not _holds_iceberg(jar):
            what = "no Iceberg runtime for Spark" if jar.is_file() else "not a file"
            raise JarUnavailable(
                f"CMLFLOW_ICEBERG_JAR names {jar}, which is {what}.",
                f"the path of {JAR_NAME}",
                "To go back to the download, run:  unset CMLFLOW_ICEBERG_JAR",
            )
    else:
        jar = user_cache_path("cmlflow", appauthor=False) / JAR_NAME
        if not jar.is_file() or jar.stat().st_size != JAR_SIZE:
            download(jar, JAR_URL, JAR_SHA512)
    if os.pathsep in str(jar):
        raise JarUnavailable(
            f"The Iceberg runtime lies in a folder with {os.pathsep!r} in its path: {jar}",
            f"a path without {os.pathsep!r}, which separates the paths that Java looks into",
            f"Copy it to another folder and set:  CMLFLOW_ICEBERG_JAR=<folder>/{JAR_NAME}",
        )
    return jar


def _require_same_spark(name: str) -> None:
    """Refuse a runtime whose name says that it is for another Spark than the one installed.

    Java would start with it, and fail at the first table with the name of a missing class.

    Raises:
        JarUnavailable: as said.
    """
    made_for = re.match(r"iceberg-spark-runtime-(\d+\.\d+)_", name)
    installed = libraries.version("pyspark")
    if made_for is None or installed is None or installed.startswith(f"{made_for[1]}."):
        return
    ours = installed.startswith("3.5.")
    raise JarUnavailable(
        f"pyspark is {installed}, and the Iceberg runtime is for Spark {made_for[1]}: {name}",
        "pyspark 3.5 with the runtime of this project; pyspark 4 needs another runtime, named by "
        "CMLFLOW_ICEBERG_JAR, and a whole Java 17 in JAVA_HOME",
        "To use this project's runtime, run:  unset CMLFLOW_ICEBERG_JAR"
        if ours
        else "To install this project's Spark, run:  pip install -r requirements-local.txt",
    )


def _holds_iceberg(jar: Path) -> bool:
    """Tell whether a file is a whole jar with Iceberg's catalog for Spark in it."""
    try:
        with zipfile.ZipFile(jar) as files:
            return "org/apache/iceberg/spark/SparkSessionCatalog.class" in files.NameToInfo
    except (OSError, zipfile.BadZipFile):
        return False


def download(jar: Path, url: str, sha512: str) -> None:
    """Download an Iceberg runtime, check it, and move it whole to `jar`.

    Raises:
        JarUnavailable: it cannot be had, or it is another file than the one whose SHA-512 is given.
    """
    jar.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha512()
    try:
        with (
            urllib.request.urlopen(url, timeout=60) as answer,
            tempfile.NamedTemporaryFile(dir=jar.parent, suffix=".part", delete=False) as part,
        ):
            try:
                while block := answer.read(1 << 20):
                    digest.update(block)
                    part.write(block)
                part.close()
                if digest.hexdigest() != sha512:
                    raise OSError(
                        f"its SHA-512 is {digest.hexdigest()[:16]}..., not the pinned one"
                    )
                os.replace(part.name, jar)
            finally:
                part.close()
                Path(part.name).unlink(missing_ok=True)
    except OSError as error:  # urllib's errors are OSErrors too
        raise JarUnavailable(
            f"The Iceberg runtime could not be downloaded: {error}",
            url,
            "Without a network, fetch that file elsewhere and set the environment variable:  "
            f"CMLFLOW_ICEBERG_JAR=<folder>/{jar.name}",
        ) from error
