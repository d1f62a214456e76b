"""How a laptop's Spark is set up: its environment, its settings, one process at a time."""

from __future__ import annotations

import os
import sys
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from cmlflow import workarea
from cmlflow.errors import SparkBusy
from cmlflow.spark.java import java_home

if TYPE_CHECKING:
    from filelock import BaseFileLock

LONGEST_WAIT_S = 5
"""Java outlives a killed lesson by about half a second; nobody waits longer without a reason."""
_locks: dict[Path, BaseFileLock] = {}  # one for each working area that this process has used


def set_environment() -> None:
    """Set what Java and Spark's Python workers read when they start.

    Raises:
        SparkError: there is no Java that Spark 3.5 runs on.
    """
    os.environ["JAVA_HOME"] = str(java_home())
    os.environ.pop("SPARK_HOME", None)  # another Spark: this one comes with pyspark
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    if os.environ.get("LC_ALL") in ("C", "POSIX"):  # Java would read a path's ä as a ?
        os.environ["LC_ALL"] = "C.UTF-8"


def settings(jar: Path) -> dict[str, str]:
    """Return Spark's settings: `spark_catalog` is an Iceberg catalog in the working area."""
    catalog, warehouse = "spark.sql.catalog.spark_catalog", workarea.path("spark-warehouse")
    log4j = Path(__file__).with_name("log4j2.properties").as_uri()
    return {
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
        f"{catalog}.warehouse": hadoop_uri(warehouse),
        "spark.sql.warehouse.dir": hadoop_uri(warehouse),
        "spark.sql.shuffle.partitions": str(os.cpu_count() or 2),
        "spark.sql.session.timeZone": "UTC",
    }


def hadoop_uri(path: PurePath) -> str:
    """Return a path as Hadoop reads it: unlike `as_uri`, with spaces and letters as they are."""
    return "file:///" + path.as_posix().removeprefix("/")


def lock_tables() -> BaseFileLock:
    """Take the lock on the tables of the working area; free for the process that has it.

    The catalog is a folder, where two commits at the same moment can lose each other.

    Raises:
        SparkBusy: another process has it.
    """
    from filelock import FileLock, Timeout

    file = workarea.path("spark-warehouse.lock")
    lock = _locks.setdefault(file, FileLock(file, thread_local=False))
    if lock.is_locked:  # an earlier lesson in this kernel ended without `spark.stop()`
        return lock
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire(timeout=LONGEST_WAIT_S)
    except Timeout as error:
        raise SparkBusy(
            f"Another lesson uses Spark here: {file.parent}",
            "one at a time, each of which ends with spark.stop()",
            "Stop it or restart its kernel, or use another folder:  CMLFLOW_WORKAREA=<folder>",
        ) from error
    return lock
