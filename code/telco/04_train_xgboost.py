"""
Telco 04 - Train a challenger, if there is a reason to

You learn  an incremental read between two Iceberg snapshots, and what it does not tell
Reads      Iceberg tables spark_catalog.default.telco_cell_towers and, with --when drift,
           telco_monitoring; code/telco/training.py, code/telco/thresholds.yaml
Writes     MLflow experiment "xgb-telco": a run with a model, training.py and reference.json
Needs      Spark (in CML: a session with the Spark add-on); telco/03_newbatch.py, twice; about 10
           seconds
Run        python code/telco/04_train_xgboost.py [--when always | drift] [--rows increment | all]
           [--max-depth 3] [--max-leaves 0] [--num-workers 0]
"""

# %%
#
# What shall it learn from?
# -------------------------
# By default from the newest day whose truth is known; with `--rows all` from all of them.
import mlflow

from cmlflow import drift, errors, increments, options, snapshots, store, workarea
from cmlflow.spark import start_spark

CONNECTION_NAME = "go01-aw-dl"
NAMESPACE = "spark_catalog.default"
TABLE, MONITORING = f"{NAMESPACE}.telco_cell_towers", f"{NAMESPACE}.telco_monitoring"
EXPERIMENT = "xgb-telco"
LESSON = "code/telco/04_train_xgboost.py"

parser = options.parser()
help_when = "drift: only if 07_model_monitoring.py has found a reason"
parser.add_argument("--when", choices=("always", "drift"), default="always", help=help_when)
help_rows = "the newest labelled day, or all there are"
parser.add_argument("--rows", choices=("increment", "all"), default="increment", help=help_rows)
depth, leaves = options.whole_number(1, 20), options.whole_number(0, 1000)
parser.add_argument("--max-depth", type=depth, default=3, help="of each tree, 1 to 20")
help_leaves = "of each tree at most; 0 for no limit"
parser.add_argument("--max-leaves", type=leaves, default=0, help=help_leaves)
help_workers = "train on so many of Spark's executors; 0 trains here"
workers = options.whole_number(0, 100)
parser.add_argument("--num-workers", type=workers, default=0, help=help_workers)
args = parser.parse_args()
print(f"When: {args.when}; rows: {args.rows}")

# %%
#
# Is there a reason?
# ------------------
# `--when always` trains. `--when drift` asks the monitoring table first, as a job of the loop does
# (09_jobs.py): a model that answers well needs no successor. To have nothing to do is a success.
spark = start_spark(CONNECTION_NAME)
snapshot = snapshots.current(spark, TABLE, made_by="code/telco/00_datagen.py")
reason = "You asked for it."
if args.when == "drift":
    snapshots.current(spark, MONITORING, made_by="code/telco/00_datagen.py")
    thresholds = drift.read_thresholds(workarea.root() / "code" / "telco" / "thresholds.yaml")
    decision = drift.decide(spark.table(MONITORING).toPandas(), thresholds)
    reason = f"{decision.action}: {decision.reason}"
train = args.when == "always" or decision.action == drift.RETRAIN
print(f"{'Train' if train else 'Nothing to train'}. {reason}")

# %%
#
# What came since the snapshot before
# -----------------------------------
# Iceberg reads what was appended between two snapshots. The first is **exclusive**, the last
# **inclusive**. It reads appends only, and leaves out anything else without a word. So we ask the
# snapshots how many rows were appended, and count those that we get.
#
# Why only the newest day? Once the world has changed, older days teach the old world.
start_id = snapshot.parent_id if args.rows == "increment" else None
if train and args.rows == "increment":
    appended = increments.appended_rows(spark, snapshot, start_id, "code/telco/03_newbatch.py")
    rows = (
        spark.read.format("iceberg")
        .option("start-snapshot-id", start_id)
        .option("end-snapshot-id", snapshot.snapshot_id)
        .load(TABLE)
    )
elif train:
    appended = snapshot.row_count
    rows = spark.sql(f"SELECT * FROM {TABLE} VERSION AS OF {snapshot.snapshot_id}")
if train:
    with snapshots.readable(spark, TABLE):
        row_count, newest_day = rows.selectExpr("count(*)", "max(batch_id)").first()
    print(
        f"{row_count} messages up to day {newest_day}: after {start_id or 'the beginning'}, ",
        end="",
    )
    print(f"up to {snapshot.snapshot_id}")
    if row_count != appended:
        raise errors.LessonError(
            f"{row_count} rows were read, and {appended} were appended to {TABLE}.",
            "as many rows as were appended",
            f"To see what each snapshot did, run in Spark:  SELECT * FROM {TABLE}.snapshots",
        )

# %%
#
# Train, with the code of the first model
# ---------------------------------------
# The same code and params. What differs is the rows, so a difference of the scores is theirs.
PARAMS = {
    "n_estimators": 60,
    "max_depth": args.max_depth,
    "max_leaves": args.max_leaves,
    "learning_rate": 0.15,
    "tree_method": "hist",
    "n_jobs": 1,
    "random_state": 42,
}
if args.num_workers:
    PARAMS["num_workers"] = args.num_workers
training_code = (workarea.root() / "code" / "telco" / "training.py").read_text(encoding="utf-8")
code = {}
exec(compile(training_code, "training.py", "exec"), code)
if train:
    model, metrics = code["fit_and_score"](rows, PARAMS)
    table = code["sample"](rows)
    reference = drift.reference(
        table[table[code["KEY"]] % code["FOLDS"] != 0],
        code["FEATURES"],
        metrics["train_failure_share"],
        metrics["out_of_fold_roc_auc"],
        metrics["threshold"],
    )
    for name in ("roc_auc", "average_precision", "log_loss", "accuracy"):
        print(f"{name:>17}: {metrics[name]:.3f}; baseline: {metrics['baseline_' + name]:.3f}")

# %%
#
# Is there such a run already?
# ----------------------------
# Both ends of the increment stand in the tags and in the dataset: 08_Reproduce_Run.py reads exactly
# these rows again. A run on the same rows, with the same params and code, is enough.
import hashlib

store.use_store(EXPERIMENT)  # a local MLflow store on a laptop; CML brings its own
mlflow.end_run()  # close a run that an earlier cell left open
mlflow.set_experiment(EXPERIMENT)
told, run = f"nothing to train, {reason}", None
if train:
    tags = snapshot.tags | {
        "row_count": str(row_count),
        "batch_id": str(newest_day),
        "trained_by": LESSON,
        "training_code": hashlib.sha256(training_code.encode()).hexdigest()[:16],
    }
    if start_id:
        tags["iceberg_start_snapshot_id"] = start_id
    run = store.finished_like(EXPERIMENT, tags, PARAMS)
    told = f"run {run.info.run_id} is there already" if run else ""
print(told or "No run on these rows with these params and this code")

# %%
#
# One run
# -------
# Nothing of it serves yet: that is for 05_api_redeployment.py to decide.
import numpy as np
import xgboost
from mlflow.models import infer_signature

if train and run is None:
    with mlflow.start_run(run_name=f"challenger of day {newest_day}, {row_count} messages") as run:
        mlflow.set_tags(tags | {"reason": reason})
        with store.may_refuse("a dataset", instead="the tags"):
            increment = {"start_snapshot_id": start_id, "row_count": row_count}
            dataset = mlflow.data.from_iceberg(rows, snapshot, **increment)
            mlflow.log_input(dataset, context="training")
        mlflow.log_params(PARAMS)
        mlflow.log_metrics(metrics)
        mlflow.log_text(training_code, "training.py")
        mlflow.log_dict(reference, "reference.json")
        inputs = table[code["FEATURES"]].head(100)
        mlflow.xgboost.log_model(
            model,
            "model",  # by position: this argument's name differs between MLflow 2 and 3
            signature=infer_signature(inputs, code["probability"](model, inputs)),
            input_example=inputs.head(3),
            pip_requirements=[f"xgboost=={xgboost.__version__}", f"numpy=={np.__version__}"],
        )
    told = f"roc_auc {metrics['roc_auc']:.3f}; baseline 0.5 (run {run.info.run_id} is new)"
spark.stop()
print(f"Done: {told}\nNext: python code/telco/05_api_redeployment.py")
