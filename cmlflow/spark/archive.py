"""A class-data archive: Java maps Spark's classes from a file instead of loading each of them anew.

Make it once, after the installation:  python -m cmlflow.spark.archive

It fits one Java, one pyspark and one Iceberg runtime, where they are now; Java ignores an archive
that does not fit. It needs about 240 MB in the user's cache folder.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pyspark
from platformdirs import user_cache_path

from cmlflow.errors import SparkError
from cmlflow.spark import local
from cmlflow.spark.jar import iceberg_jar
from cmlflow.spark.java import java_home, java_version

KEPT = 3
"""The newest archives are kept: each environment has one of its own."""


def java_options(jar: Path) -> str:
    """Return the options with which Java uses the archive that fits; none where there is none."""
    folder = _folder(jar)
    return f"{_use(folder)} -Xshare:auto -Xlog:disable" if folder.is_dir() else ""


def make_archive() -> Path:
    """Make the archive that fits, unless it is there, in a process that has not started Spark.

    Returns:
        Its folder, which is written whole or not at all.

    Raises:
        SparkError: this Java cannot make one, or Spark does not start.
        OSError: the cache folder cannot be written.
    """
    jar, java = iceberg_jar(), java_home()
    folder = _folder(jar)
    if folder.is_dir():
        return folder
    if java_version(java) != 17:
        raise SparkError(
            f"{java} is Java {java_version(java)}, whose archives hold no classes of Spark.",
            "Java 17",
            "To use the one of this project, run:  unset JAVA_HOME",
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="unfinished-") as unfinished:
        made = Path(unfinished, "archive")
        made.mkdir()
        dump = ("-XX:+UseSerialGC", "-Xshare:dump", f"-XX:SharedArchiveFile={made / 'java.jsa'}")
        subprocess.run([java / "bin" / "java", *dump], capture_output=True, check=True)
        os.environ["CMLFLOW_WORKAREA"] = unfinished
        spark = local.start(
            jar,
            f'"-XX:SharedArchiveFile={made / "java.jsa"}" '
            f'"-XX:ArchiveClassesAtExit={made / "spark.jsa"}" -Xlog:disable',
        )
        _use_what_lessons_use(spark, Path(unfinished))
        spark.stop()
        gateway = pyspark.SparkContext._gateway
        gateway.shutdown()
        gateway.proc.stdin.close()  # which ends Java, and then it writes the archive
        gateway.proc.wait()
        os.replace(made, folder)
    older = sorted(folder.parent.glob("archive-*"), key=lambda one: one.stat().st_mtime)[:-KEPT]
    for one in older:
        shutil.rmtree(one, ignore_errors=True)
    return folder


def _folder(jar: Path) -> Path:
    """Return where the archive for this environment lies, or would lie."""
    java = java_home()
    fits = (
        java,
        java_version(java),
        pyspark.__version__,
        pyspark.__file__,
        jar,
        jar.stat().st_size,
    )
    key = hashlib.sha256(repr(fits).encode()).hexdigest()[:16]
    return user_cache_path("cmlflow", appauthor=False) / f"archive-{key}"


def _use(folder: Path) -> str:
    files = os.pathsep.join(str(folder / name) for name in ("java.jsa", "spark.jsa"))
    return f'"-XX:SharedArchiveFile={files}"'


def _use_what_lessons_use(spark, folder: Path) -> None:
    """Write and read an Iceberg table, train and store a model: what loads Spark's classes."""
    from pyspark.ml import Pipeline, PipelineModel
    from pyspark.ml.classification import LogisticRegression
    from pyspark.ml.feature import HashingTF, Tokenizer
    from pyspark.ml.functions import vector_to_array
    from pyspark.sql import functions as F

    table = "spark_catalog.default.words"
    rows = spark.createDataFrame(
        [(0, "a spark", 1.0), (1, "b", 0.0)], "id LONG, text STRING, y DOUBLE"
    )
    rows.writeTo(table).using("iceberg").tableProperty("made_by", "archive").createOrReplace()
    rows.withColumn("id", F.col("id") + F.rand(seed=1).cast("long") + 2).writeTo(table).append()
    spark.catalog.tableExists("default.words")
    ids = [row.snapshot_id for row in spark.sql(f"SELECT * FROM {table}.snapshots").collect()]
    read = spark.sql(f"SELECT * FROM {table} VERSION AS OF {ids[0]}").cache()
    stages = [
        Tokenizer(inputCol="text", outputCol="words"),
        HashingTF(inputCol="words", outputCol="features"),
        LogisticRegression(labelCol="y", maxIter=2),
    ]
    model = Pipeline(stages=stages).fit(read.coalesce(1).sortWithinPartitions("id"))
    model.write().overwrite().save(str(folder / "model"))
    scored = PipelineModel.load(str(folder / "model")).transform(read)
    scored.select(vector_to_array("probability")[1]).toPandas()
    spark.table(table).groupBy("y").agg(F.count("*"), F.min("id")).orderBy("y").toPandas()
    spark.sql("CALL spark_catalog.system.expire_snapshots(table => 'default.words')").collect()
    rows.repartition(2).mapInPandas(lambda parts: parts, rows.schema).collect()


if __name__ == "__main__":
    try:
        print(f"Class-data archive of Spark: {make_archive()}")
    except (SparkError, OSError, subprocess.CalledProcessError) as error:
        print(f"No class-data archive, so lessons with Spark take longer: {error}", file=sys.stderr)
