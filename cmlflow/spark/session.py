"""A Spark session with Iceberg, from wherever this process can get one."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cmlflow import libraries, workarea
from cmlflow.errors import SparkError, SparkMissing
from cmlflow.spark.jar import JAR_NAME, iceberg_jar
from cmlflow.spark.java import how_to_get_spark, reason

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_CATALOG = "spark.cmlflow.catalog"
_START_OVER = "To start over, restart the kernel, or run the lesson with:  python code/<lesson>.py"


def start_spark(connection: str) -> SparkSession:
    """Return a Spark session in which `spark_catalog` is an Iceberg catalog.

    In CML it comes from the data connection named by the environment variable CONNECTION_NAME,
    else by `connection`. On a laptop it is a local Spark whose tables lie in `spark-warehouse` of
    the working area; a session with Iceberg that already runs is used again. There, one process
    at a time has Spark.

    Raises:
        SparkMissing: pyspark is not installed, or the CML session has no Spark add-on.
        SparkError: the data connection gave no session, no Java fits, or a Spark without Iceberg
            already runs in this process.
        Unsupported: MLflow or pandas is of a release that the lessons do not run with.
        LessonError: the working area was copied or moved.
        JarUnavailable, SparkBusy: see the classes.
    """
    if importlib.util.find_spec("pyspark") is None:
        raise SparkMissing(
            f"pyspark is not installed for {sys.executable}.",
            "in CML a session with the Spark add-on, elsewhere pyspark 3.5",
            how_to_get_spark(),
        )
    libraries.require_supported()
    try:
        from cml import data_v1
    except ImportError as error:
        if not workarea.in_cml():
            return _start_local_spark()
        raise SparkError(
            "The package cml, which opens data connections, cannot be imported: " + _reason(error),
            "a session of a runtime by Cloudera, which brings this package",
            how_to_get_spark(),
        ) from error
    return _connect(data_v1, os.environ.get("CONNECTION_NAME") or connection)


def catalog_of(spark: SparkSession) -> str:
    """Return what `spark_catalog` is: the name of a data connection, or the URI of a folder."""
    return spark.conf.get(_CATALOG, "unknown")


def _reason(error: Exception) -> str:
    """Return what an error says in one line."""
    lines = reason(str(error)).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _connect(data_v1, name: str) -> SparkSession:
    try:
        with _interrupts_as_before():
            spark = data_v1.get_connection(name).get_spark_session()
            if _is_stopped(spark):  # the lesson before had it: make everybody forget it
                spark.stop()
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
        raise SparkError(
            f"The data connection {name!r} gave no Spark session: {_reason(error)}",
            f"one of {known}Project Settings > Data Connections, in a session with Spark and "
            "within your quota",
            "To choose another connection, set the environment variable:  CONNECTION_NAME=<name>",
        ) from error
    if _is_stopped(spark):
        raise SparkError(
            f"The data connection {name!r} gave the Spark session that an earlier lesson stopped.",
            "a session that runs",
            _START_OVER,
        )
    _require_iceberg(spark)
    # Java dies of Iceberg 1.5.2's other reader: it overwrites memory when it reads 00's table.
    spark.conf.set("spark.sql.iceberg.vectorization.enabled", "false")
    spark.conf.set(_CATALOG, name)
    return spark


def _start_local_spark() -> SparkSession:
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

    from cmlflow.spark import archive, local

    if SparkContext._active_spark_context is not None:
        running = SparkSession.builder.getOrCreate()
        _require_iceberg(running)
        return running
    workarea.require_same_place()
    jar = iceberg_jar()
    if SparkContext._gateway is not None:  # a Java process that an earlier session started
        class_path = SparkContext._gateway.jvm.java.lang.System.getProperty("java.class.path")
        if str(jar) not in class_path:
            raise _iceberg_missing("the Java process of an earlier Spark session")
    with _interrupts_as_before():
        spark = local.start(jar, archive.java_options(jar))
    spark.sparkContext.setLogLevel("ERROR")
    if jar.name != JAR_NAME:  # it may be Iceberg 1.5.2, see _connect
        spark.conf.set("spark.sql.iceberg.vectorization.enabled", "false")
    spark.conf.set(_CATALOG, workarea.path("spark-warehouse").as_uri())
    return spark


def _is_stopped(spark: SparkSession) -> bool:
    context = spark.sparkContext._jsc  # None: Python has stopped it; Java may have, too
    return context is None or context.sc().isStopped()


@contextlib.contextmanager
def _interrupts_as_before() -> Iterator[None]:
    """Keep the handler of Ctrl+C, which PySpark replaces when it starts.

    PySpark's fails with a Py4JError if Java is being called at that moment. Code that
    catches Exception goes on as if nothing had happened; a KeyboardInterrupt ends the lesson.
    """
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread() and before is not None:
            signal.signal(signal.SIGINT, before)


def _require_iceberg(spark: SparkSession) -> None:
    catalog = spark.conf.get("spark.sql.catalog.spark_catalog", "")
    if not catalog.startswith("org.apache.iceberg."):
        raise _iceberg_missing(f"the Spark session {spark.sparkContext.appName!r}")


def _iceberg_missing(what: str) -> SparkError:
    return SparkError(
        f"Already running in this process, without Iceberg: {what}.",
        "no Spark yet, since a jar that is added to a running Java is ignored",
        _START_OVER,
    )
