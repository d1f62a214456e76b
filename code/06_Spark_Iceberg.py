"""
06 - Train on a table that changes: Spark ML and Iceberg snapshots

You learn  how a run names the rows it was trained on, and how to read them again
Reads      nothing but what it writes
Writes     Iceberg table spark_catalog.default.training; MLflow experiment "sparkml-experiment":
           three runs, each with a model and the tags of its snapshot
Needs      Spark (in CML: a session with the Spark add-on, and before Spark starts
           python cml/patch_spark_executor.py); about 25 seconds
Run        python code/06_Spark_Iceberg.py, or Run All in a CML session

The table is replaced, if a lesson made it. In a data lake that you share, give it a name of your
own (`TABLE` below): two people who run this at the same time would write to one table.
"""

# %%
#
# Spark, MLflow and four rows
# ---------------------------
# In CML, `CONNECTION_NAME` names the data connection of your workbench (Project Settings > Data
# Connections). Set it as an environment variable, or change the default here.
from cmlflow import errors, snapshots, store, workarea
from cmlflow.spark import start_spark

CONNECTION_NAME = "go01-aw-dl"
TABLE = "spark_catalog.default.training"
EXPERIMENT = "sparkml-experiment"
LESSON = "code/06_Spark_Iceberg.py"
COLUMNS = "id LONG, text STRING, label DOUBLE"

spark = start_spark(CONNECTION_NAME)

import mlflow

store.use_store(EXPERIMENT)  # a local MLflow store on a laptop; CML brings its own
mlflow.end_run()  # close a run that an earlier cell left open
mlflow.set_experiment(EXPERIMENT)

# %%
#
# The training code
# -----------------
# Tokenizer, HashingTF and LogisticRegression: words, counts of words, label. Spark sums in the
# order of the rows. So they are sorted by their key in one partition: then the result is the same
# every time. These two functions stand alone, imports and all, because their text is logged with
# each run: 08_Reproduce_Run.py runs it again.
import inspect


def fit_and_score(rows, params):
    """Train on the rows of a snapshot; return the model and its metrics."""
    from pyspark.ml import Pipeline
    from pyspark.ml.classification import LogisticRegression
    from pyspark.ml.feature import HashingTF, Tokenizer

    ordered = rows.coalesce(1).sortWithinPartitions("id")
    tokenizer = Tokenizer(inputCol="text", outputCol="words")
    hashing = HashingTF(inputCol="words", outputCol="features")
    classifier = LogisticRegression(
        maxIter=int(params["maxIter"]), regParam=float(params["regParam"])
    )
    model = Pipeline(stages=[tokenizer, hashing, classifier]).fit(ordered)
    answers = model.transform(ordered).select("label", "prediction").toPandas()
    ones = answers["label"].mean()
    return model, {
        "train_accuracy": (answers["label"] == answers["prediction"]).mean(),
        "baseline_accuracy": max(ones, 1 - ones),
        "train_loss": model.stages[-1].summary.objectiveHistory[-1],
    }


def predict(model, rows):
    """Return the probability of label 1 for each row, in the order of the key."""
    from pyspark.ml.functions import vector_to_array

    probability = vector_to_array("probability")[1].alias("probability")
    ordered = rows.coalesce(1).sortWithinPartitions("id")
    return model.transform(ordered).select(probability).toPandas()["probability"].to_numpy()


TRAINING_CODE = "\n\n".join(inspect.getsource(function) for function in (fit_and_score, predict))

# %%
#
# One experiment: rows of one snapshot, one run
# ---------------------------------------------
# The table may change while we train, a **snapshot** cannot. So we never train on "the table": we
# take a snapshot and read it with `VERSION AS OF`. The run gets to know it twice: as tags (table,
# snapshot, parent, time of the commit), which every store keeps, and as a **dataset**, whose
# digest MLflow can search by. Ids are text, because a browser rounds numbers of 19 digits.
import pyspark

# In CML the executors see this folder too, read-only unless cml/patch_spark_executor.py has run.
SPARK_TMP = workarea.path("spark-tmp")


def train(name, snapshot, params):
    """Train on one snapshot in a run of its own; return the run."""
    rows = spark.sql(f"SELECT * FROM {TABLE} VERSION AS OF {snapshot.snapshot_id}").cache()
    with mlflow.start_run(run_name=name) as run:
        mlflow.set_tags(snapshot.tags | {"row_count": rows.count()})
        dataset = mlflow.data.from_iceberg(rows, snapshot)
        try:
            mlflow.log_input(dataset, context="training")
        except Exception as error:
            print(f"No dataset: this store refused it ({type(error).__name__}); see the tags")
        mlflow.log_params(params)
        mlflow.log_text(TRAINING_CODE, "training.py")
        model, metrics = fit_and_score(rows, params)
        mlflow.log_metrics(metrics)
        mlflow.spark.log_model(
            model,
            "model",
            dfs_tmpdir=str(SPARK_TMP),
            pip_requirements=[f"pyspark=={pyspark.__version__}"],
        )
    rows.unpersist()
    print(f"{name}: trained on snapshot {snapshot.snapshot_id}, run {run.info.run_id}")
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
snapshots.require_ours(spark, TABLE, made_by=LESSON)
rows = spark.createDataFrame(first_rows, COLUMNS)
rows.writeTo(TABLE).using("iceberg").tableProperty("made_by", LESSON).createOrReplace()
first_snapshot = snapshots.current(spark, TABLE, made_by=LESSON)
run_1 = train("experiment-1", first_snapshot, {"maxIter": 8, "regParam": 0.01})

# %%
#
# Experiment 2: the table has grown
# ---------------------------------
# Four new rows make a new snapshot. Its parent is the snapshot of experiment 1. Were it another,
# somebody else would have written to the table in between, and nothing below would be true.
new_rows = [
    (4, "spark i j k", 1.0),
    (5, "l m n", 0.0),
    (6, "apache spark o", 1.0),
    (7, "p hadoop q", 0.0),
]
spark.createDataFrame(new_rows, COLUMNS).writeTo(TABLE).append()
second_snapshot = snapshots.current(spark, TABLE, made_by=LESSON)
if second_snapshot.parent_id != first_snapshot.snapshot_id:
    raise errors.LessonError(
        f"Somebody else wrote to {TABLE}: the parent of our snapshot is "
        f"{second_snapshot.parent_id}.",
        f"{first_snapshot.snapshot_id}, the snapshot of experiment 1",
        f"When nobody else uses the table, run this again:  python {LESSON}",
    )
run_2 = train("experiment-2", second_snapshot, {"maxIter": 10, "regParam": 0.002})

# %%
#
# Experiment 3: back to the rows of experiment 1
# ----------------------------------------------
# Nothing but the run is needed: its tag says which snapshot to read. This is **time travel**.
tags = mlflow.get_run(run_1.info.run_id).data.tags
old_snapshot = snapshots.by_id(spark, TABLE, tags["iceberg_snapshot_id"], made_by=LESSON)
run_3 = train("experiment-3", old_snapshot, {"maxIter": 7, "regParam": 0.005})

print(f"\nThe history of {TABLE}, newest first:")
spark.sql(
    "SELECT date_format(committed_at, 'yyyy-MM-dd HH:mm:ss') AS committed_at, snapshot_id,"
    " parent_id, operation, summary['total-records'] AS total_records"
    f" FROM {TABLE}.snapshots ORDER BY {TABLE}.snapshots.committed_at DESC"
).show(10, truncate=False)

# %%
#
# Which models were trained on this snapshot?
# -------------------------------------------
# The way back, from data to models: the digest of the dataset is the snapshot id. A store without
# datasets finds the same runs by their tag. Whether the answer fits is looked at again, because a
# managed store may not know every filter.
snapshot_id = tags["iceberg_snapshot_id"]
trained_on_it = []
for field in ("dataset.digest", "tags.iceberg_snapshot_id"):
    try:
        answers = mlflow.search_runs(
            search_all_experiments=True,
            filter_string=f"{field} = '{snapshot_id}'",
            order_by=["attributes.start_time ASC"],
            output_format="list",
        )
    except Exception as error:
        print(f"This store cannot search for {field} ({type(error).__name__})")
        continue
    trained_on_it = [
        run for run in answers if run.data.tags.get("iceberg_snapshot_id") == snapshot_id
    ]
    if trained_on_it:
        break
for run in trained_on_it:
    print(f"trained on snapshot {snapshot_id}: {run.info.run_name}, run {run.info.run_id}")

# %%
#
# A model from its run
# --------------------
# Four texts that experiment 3 has not seen. A word it never met weighs nothing, so the first text
# counts as "spark" alone: that weighs 2.8, too little against the -3.2 from which the model starts.
# Twice "spark" is enough. And the accuracy of 1.0 in the runs, where guessing gives 0.5, is that
# of the rows the model was trained on. Such a score is worth nothing: it shows that numbers are
# logged, not what a model can.
model_uri = f"runs:/{run_3.info.run_id}/model"
loaded = mlflow.spark.load_model(model_uri, dfs_tmpdir=str(SPARK_TMP))
texts = [(8, "spark i j k"), (9, "l m n"), (10, "spark hadoop spark"), (11, "apache hadoop")]
test = spark.createDataFrame(texts, "id LONG, text STRING")
for row in loaded.transform(test).orderBy("id").collect():
    print(f"{row.text!r}: {row.prediction:.0f}")
spark.stop()
print(
    f"Done: experiments 1 and 3 share snapshot {snapshot_id}\n"
    f"Look at: Experiments > {EXPERIMENT}, the tags of the three runs.\n"
    f"Open the UI: {store.how_to_open_ui()}"
)
