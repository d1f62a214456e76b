"""One Spark session with Iceberg: CML's data connection, or a local Spark on a laptop."""

from cmlflow.spark.jar import iceberg_jar
from cmlflow.spark.java import reason
from cmlflow.spark.session import catalog_of, start_spark

__all__ = ["catalog_of", "iceberg_jar", "reason", "start_spark"]
