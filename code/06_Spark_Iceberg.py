"""
06 - Train on a table that changes: Spark ML and Iceberg snapshots

You learn  how a run names the rows it was trained on, and how to read them again
Reads      nothing but what it writes
Writes     Iceberg table spark_catalog.default.training; MLflow experiment "sparkml-experiment":
           three runs, each with a model and the tags of its snapshot
Needs      Spark (in CML: a session with the Spark add-on, and before Spark starts
           python cml/patch_spark_executor.py); about 25 seconds
Run        python code/06_Spark_Iceberg.py, or Run All in a CML session

The table is replaced if a lesson made it. In a data lake that you share, give it a name of your
own (`TABLE` below): two people who run this at the same time would write to one table.
"""

# %%
#
# Spark, MLflow and four rows
# ---------------------------
# Label 1 means that the text mentions Spark. In CML, `CONNECTION_NAME` names the data connection
# of your workbench (Project Settings > Data Connections). Set it as an environment variable, or
# change the default here.
CONNECTION_NAME = "go01-aw-dl"
TABLE = "spark_catalog.default.training"
EXPERIMENT = "sparkml-experiment"
LESSON = "code/06_Spark_Iceberg.py"
COLUMNS = "id LONG, text STRING, label DOUBLE"
FIRST_ROWS = [
    (0, "a b c d e spark", 1.0),
    (1, "b d", 0.0),
    (2, "spark f g h", 1.0),
    (3, "hadoop mapreduce", 0.0),
]
from cmlflow import libraries, options, snapshots, store, workarea
from cmlflow.spark import start_spark

options.parser().parse_args()  # this lesson has no options, but answers to --help
for row_id, text, label in FIRST_ROWS:
    print(f"row {row_id}: {text!r}, label {label:.0f}")

import mlflow

spark = start_spark(CONNECTION_NAME)
store.use_store(EXPERIMENT)  # a local MLflow store on a laptop; CML brings its own
mlflow.end_run()  # close a run that an earlier cell left open
mlflow.set_experiment(EXPERIMENT)

# %%
#
# A new table and its first snapshot
# ----------------------------------
# Each write to an Iceberg table makes a **snapshot**. The table changes with the next write, the
# snapshot does not. `createOrReplace` starts the table anew, also when you run this lesson again.
# After a rerun the table has several snapshots without a parent, so we identify this one by its
# id. `just_written` checks that it is ours, because others may write to a shared table.
snapshots.require_ours(spark, TABLE, made_by=LESSON)
rows = spark.createDataFrame(FIRST_ROWS, COLUMNS)
rows.writeTo(TABLE).using("iceberg").tableProperty("made_by", LESSON).createOrReplace()
first_snapshot = snapshots.just_written(spark, TABLE, made_by=LESSON)
print(f"snapshot {first_snapshot.snapshot_id}: {first_snapshot.row_count} rows")

# %%
#
# The training code
# -----------------
# We log the text of two functions with each run, and 08_Reproduce_Run.py runs it again. So both
# import what they need, and keep this contract:
#
# - `fit_and_score(rows, params)` takes the rows of a snapshot, a Spark DataFrame in no particular
#   order, and the params. It returns the model and its metrics by name: a number, or a list with
#   one number for each step, from step 1.
# - `predict(model, rows)` returns a numpy array: one prediction for each row, in the order of the
#   key.
#
# MLflow keeps params as text. So the code converts them: `int("8")` and `int(8)` are the same.
#
# Rounding depends on the order in which numbers are added up, as the two sums below show. We sort
# the rows by key in one partition, so every run gives the same result.


def fit_and_score(rows, params):
    """Train on the rows of a snapshot; return the model and its metrics."""
    from pyspark.ml import Pipeline
    from pyspark.ml.classification import LogisticRegression
    from pyspark.ml.feature import HashingTF, Tokenizer

    ordered = rows.coalesce(1).sortWithinPartitions("id")
    tokenizer = Tokenizer(inputCol="text", outputCol="words")
    hashing = HashingTF(inputCol="words", outputCol="features", numFeatures=1024)
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


print(f"0.1 + 0.2 + 0.3 is {0.1 + 0.2 + 0.3}, but 0.3 + 0.2 + 0.1 is {0.3 + 0.2 + 0.1}")

# %%
#
# Predictions, and one run
# ------------------------
# We never train on "the table", because it may change while we train: we read a snapshot with
# `VERSION AS OF`. We record it on the run twice: as tags (table, snapshot, parent, time of the
# commit), which every store keeps, and as a **dataset**, which the UI shows in the list of runs.
# Ids are text, because a browser rounds numbers of 19 digits.
import inspect

import pyspark


def predict(model, rows):
    """Return the probability of label 1 for each row, in the order of the key."""
    from pyspark.ml.functions import vector_to_array

    probability = vector_to_array("probability")[1].alias("probability")
    ordered = rows.coalesce(1).sortWithinPartitions("id")
    return model.transform(ordered).select(probability).toPandas()["probability"].to_numpy()


TRAINING_CODE = "\n\n".join(inspect.getsource(function) for function in (fit_and_score, predict))
# In CML the executors see this folder too, read-only unless cml/patch_spark_executor.py has run.
SPARK_TMP = str(workarea.path("spark-tmp"))


def train(name, snapshot, params):
    """Train on one snapshot in a run of its own; return the run."""
    rows = spark.sql(f"SELECT * FROM {TABLE} VERSION AS OF {snapshot.snapshot_id}").cache()
    with mlflow.start_run(run_name=name) as run:
        mlflow.set_tags(snapshot.tags | {"row_count": rows.count()})
        with store.may_refuse("a dataset", instead="the tags"):
            mlflow.log_input(mlflow.data.from_iceberg(rows, snapshot), context="training")
        mlflow.log_params(params)
        mlflow.log_text(TRAINING_CODE, "training.py")
        model, metrics = fit_and_score(rows, params)
        mlflow.log_metrics(metrics)
        pins = libraries.pin(pyspark)
        mlflow.spark.log_model(model, "model", dfs_tmpdir=SPARK_TMP, pip_requirements=pins)
    rows.unpersist()
    print(f"{name}: trained on snapshot {snapshot.snapshot_id}, run {run.info.run_id}")
    return run


# %%
#
# Experiments 1 and 2: the table grows
# ------------------------------------
# Four new rows make a new snapshot. Its parent is the snapshot of experiment 1. If it is not,
# someone else wrote to the table in between, and the rest of this lesson would be wrong:
# `just_written` stops then.
new_rows = [
    (4, "spark i j k", 1.0),
    (5, "l m n", 0.0),
    (6, "apache spark o", 1.0),
    (7, "p hadoop q", 0.0),
]
run_1 = train("experiment-1", first_snapshot, {"maxIter": 8, "regParam": 0.01})
spark.createDataFrame(new_rows, COLUMNS).writeTo(TABLE).append()
second_snapshot = snapshots.just_written(spark, TABLE, made_by=LESSON, parent=first_snapshot)
run_2 = train("experiment-2", second_snapshot, {"maxIter": 10, "regParam": 0.002})

# %%
#
# Experiment 3: back to the rows of experiment 1
# ----------------------------------------------
# We need nothing but the run: its tag says which snapshot to read. This is **time travel**.
tags = mlflow.get_run(run_1.info.run_id).data.tags
snapshot_id = tags["iceberg_snapshot_id"]
old_snapshot = snapshots.by_id(spark, TABLE, snapshot_id, made_by=LESSON)
run_3 = train("experiment-3", old_snapshot, {"maxIter": 7, "regParam": 0.005})

print(f"\nThe history of {TABLE}, newest first, times in UTC:")
utc = "to_utc_timestamp(committed_at, current_timezone())"
spark.sql(
    f"SELECT date_format({utc}, 'yyyy-MM-dd HH:mm:ss') AS committed_utc, snapshot_id,"
    " parent_id, operation, summary['total-records'] AS total_records"
    f" FROM {TABLE}.snapshots ORDER BY committed_at DESC"
).show(10, truncate=False)

# %%
#
# Which models were trained on this snapshot?
# -------------------------------------------
# The way back, from data to models. Where the store keeps datasets, `dataset.digest` finds the
# same runs as the tag, because the digest of our dataset is the snapshot id. We check the result
# ourselves, because a managed store may ignore the filter.
found = []
with store.may_refuse("a search in all experiments", instead="the tags of each run"):
    found = mlflow.search_runs(
        search_all_experiments=True,
        filter_string=f"tags.iceberg_snapshot_id = '{snapshot_id}'",
        order_by=["attributes.start_time ASC"],
        output_format="list",
    )
for run in found:
    if run.data.tags.get("iceberg_snapshot_id") == snapshot_id:
        print(f"trained on snapshot {snapshot_id}: {store.name(run)}, run {run.info.run_id}")

# %%
#
# A model from its run
# --------------------
# Four texts that experiment 3 has not seen. The model adds the weights of the words to its
# intercept, and predicts 1 if the sum is above 0. Unknown words have weight 0, so only "spark"
# counts in the first text. Its weight, 2.8, does not outweigh the intercept, -3.2. Twice "spark"
# does, even beside "hadoop".
#
# The accuracy of 1.0 in the runs, where the baseline has 0.5, is measured on the rows that trained
# the model. Such a score is worth nothing: it shows that numbers are logged, not what a model can.
loaded = mlflow.spark.load_model(f"runs:/{run_3.info.run_id}/model", dfs_tmpdir=SPARK_TMP)
_, hashing, classifier = loaded.stages
weights = {
    word: f"{classifier.coefficients[hashing.indexOf(word)]:.1f}" for word in ("spark", "hadoop")
}
print(f"intercept {classifier.intercept:.1f}, weights {weights}")
texts = [(8, "spark i j k"), (9, "l m n"), (10, "spark hadoop spark"), (11, "apache hadoop")]
test = spark.createDataFrame(texts, "id LONG, text STRING")
for row in loaded.transform(test).orderBy("id").collect():
    print(f"{row.text!r}: {row.prediction:.0f}")
spark.stop()
print(
    f"Done: experiments 1 and 3 share snapshot {snapshot_id}\n"
    f"Look at: Experiments > {EXPERIMENT}, column Dataset: the same id for experiments 1 and 3.\n"
    f"Open the UI: {store.how_to_open_ui(store.runs_page(run_1.info.experiment_id))}"
)
