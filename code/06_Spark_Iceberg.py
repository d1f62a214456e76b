"""
06 - Train on a table that changes: Spark ML and Iceberg snapshots

You learn  how a run names the rows it was trained on, and how to read them again
Reads      nothing but what it writes
Writes     Iceberg table spark_catalog.default.training; MLflow experiment "sparkml-experiment":
           three runs, each with a model and the tags of its snapshot
Needs      Spark (in CML: a session with the Spark add-on); about 25 seconds
Run        python code/06_Spark_Iceberg.py, or Run All in a CML session
"""

# %%
#
# Spark, MLflow and four rows
# ---------------------------
# In CML, `CONNECTION_NAME` names the data connection of your workbench (Project Settings > Data
# Connections). Set it as an environment variable, or change the default here.
from cmlflow import snapshots, workarea
from cmlflow.spark import start_spark

CONNECTION_NAME = "go01-aw-dl"
TABLE = "spark_catalog.default.training"
EXPERIMENT = "sparkml-experiment"
LESSON = "code/06_Spark_Iceberg.py"
COLUMNS = "id LONG, text STRING, label DOUBLE"

spark = start_spark(CONNECTION_NAME)

import mlflow

workarea.use_store(EXPERIMENT)  # a local MLflow store on a laptop; CML brings its own
mlflow.end_run()  # close a run that an earlier cell left open
mlflow.set_experiment(EXPERIMENT)

# %%
#
# One experiment: rows of one snapshot, one run
# ---------------------------------------------
# The table may change while we train, a **snapshot** cannot. So we never train on "the table": we
# take a snapshot and read it with `VERSION AS OF`. The rows are sorted by their key in one
# partition, since Spark ML sums in the order of the rows: now the result is the same every time.
# The snapshot id goes into a tag as text, because a browser rounds numbers of 19 digits.
import pyspark
from pyspark.ml import Pipeline
from pyspark.ml.classification import LogisticRegression
from pyspark.ml.feature import HashingTF, Tokenizer

SPARK_TMP = workarea.path("spark-tmp")  # in CML a folder that the executors see too


def train(name, snapshot, max_iter, reg_param):
    """Train on one snapshot in a run of its own; return the run."""
    rows = spark.sql(f"SELECT * FROM {TABLE} VERSION AS OF {snapshot.snapshot_id}")
    rows = rows.coalesce(1).sortWithinPartitions("id").cache()
    with mlflow.start_run(run_name=name) as run:
        mlflow.set_tags(
            {
                "training_table": TABLE,
                "iceberg_snapshot_id": snapshot.snapshot_id,
                "iceberg_parent_id": snapshot.parent_id or "none",
                "iceberg_snapshot_committed_at": snapshot.committed_at_iso,
                "row_count": rows.count(),
            }
        )
        mlflow.log_params({"maxIter": max_iter, "regParam": reg_param})
        tokenizer = Tokenizer(inputCol="text", outputCol="words")
        hashing = HashingTF(inputCol="words", outputCol="features")
        classifier = LogisticRegression(maxIter=max_iter, regParam=reg_param)
        model = Pipeline(stages=[tokenizer, hashing, classifier]).fit(rows)
        answers = model.transform(rows).select("label", "prediction").toPandas()
        ones = answers["label"].mean()
        mlflow.log_metrics(
            {
                "train_accuracy": (answers["label"] == answers["prediction"]).mean(),
                "baseline_accuracy": max(ones, 1 - ones),
                "train_loss": model.stages[-1].summary.objectiveHistory[-1],
            }
        )
        mlflow.spark.log_model(
            model,
            "model",
            dfs_tmpdir=str(SPARK_TMP),
            pip_requirements=[f"pyspark=={pyspark.__version__}"],
        )
    rows.unpersist()
    print(f"{name}: {len(answers)} rows of snapshot {snapshot.snapshot_id}, run {run.info.run_id}")
    return run


# %%
#
# Experiment 1: a new table
# -------------------------
# `createOrReplace` starts the table anew, also when this lesson runs again. The new snapshot has
# no parent, but older ones stay in the table's metadata: "the one without a parent" would not be
# a name for it. Its id in this run's tags is.
first_rows = [
    (0, "a b c d e spark", 1.0),
    (1, "b d", 0.0),
    (2, "spark f g h", 1.0),
    (3, "hadoop mapreduce", 0.0),
]
spark.createDataFrame(first_rows, COLUMNS).writeTo(TABLE).using("iceberg").createOrReplace()
first_snapshot = snapshots.current(spark, TABLE, made_by=LESSON)
run_1 = train("experiment-1", first_snapshot, max_iter=8, reg_param=0.01)

# %%
#
# Experiment 2: the table has grown
# ---------------------------------
# Four new rows make a new snapshot. Its parent is the snapshot of experiment 1.
new_rows = [
    (4, "spark i j k", 1.0),
    (5, "l m n", 0.0),
    (6, "apache spark o", 1.0),
    (7, "p hadoop q", 0.0),
]
spark.createDataFrame(new_rows, COLUMNS).writeTo(TABLE).append()
second_snapshot = snapshots.current(spark, TABLE, made_by=LESSON)
run_2 = train("experiment-2", second_snapshot, max_iter=10, reg_param=0.002)

# %%
#
# Experiment 3: back to the rows of experiment 1
# ----------------------------------------------
# Nothing but the run is needed: its tag says which snapshot to read. This is **time travel**.
tags = mlflow.get_run(run_1.info.run_id).data.tags
old_snapshot = snapshots.by_id(spark, TABLE, tags["iceberg_snapshot_id"], made_by=LESSON)
run_3 = train("experiment-3", old_snapshot, max_iter=7, reg_param=0.005)

print(f"\nThe history of {TABLE}, oldest first:")
spark.sql(
    "SELECT date_format(committed_at, 'yyyy-MM-dd HH:mm:ss') AS committed_at, snapshot_id,"
    " parent_id, operation, summary['total-records'] AS total_records"
    f" FROM {TABLE}.snapshots ORDER BY {TABLE}.snapshots.committed_at"
).show(truncate=False)

# %%
#
# A model from its run
# --------------------
# Four texts that experiment 3 has not seen. The first is about Spark, as were the training texts
# with label 1, and still gets a 0: the unknown words beside it weigh more. And yet the accuracy in
# the runs is 1.0, where guessing gives 0.5, since it is measured on the rows that the model was
# trained on. Such a score is worth nothing. It shows that numbers are logged, not what a model can.
model_uri = f"runs:/{run_3.info.run_id}/model"
loaded = mlflow.spark.load_model(model_uri, dfs_tmpdir=str(SPARK_TMP))
texts = [(8, "spark i j k"), (9, "l m n"), (10, "spark hadoop spark"), (11, "apache hadoop")]
test = spark.createDataFrame(texts, "id LONG, text STRING")
for row in loaded.transform(test).orderBy("id").collect():
    print(f"{row.text!r}: {row.prediction:.0f}")
spark.stop()
print(
    f"Done: experiments 1 and 3 share snapshot {tags['iceberg_snapshot_id']}\n"
    f"Look at: Experiments > {EXPERIMENT}, the tags of the three runs.\n"
    f"Open the UI: {workarea.how_to_open_ui()}"
)
