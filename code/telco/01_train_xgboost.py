"""
Telco 01 - The first model, and its reference for later messages

You learn  a booster that answers a probability; a baseline in the field's scores and in money;
           a reference, which is logged with the run that it belongs to
Reads      Iceberg table spark_catalog.default.telco_cell_towers; code/telco/training.py
Writes     MLflow experiment "xgb-telco": a run with a model, training.py and reference.json
Needs      Spark (in CML: a session with the Spark add-on); telco/00_datagen.py; about 10 seconds
Run        python code/telco/01_train_xgboost.py [--max-depth 3] [--max-leaves 0]
"""

# %%
#
# The messages whose truth is known
# ---------------------------------
# We train on the table as it is now, in its current **snapshot**, and log which one that was.
import mlflow

from cmlflow import options, snapshots, store, workarea
from cmlflow.spark import start_spark

CONNECTION_NAME = "go01-aw-dl"
TABLE = "spark_catalog.default.telco_cell_towers"
EXPERIMENT = "xgb-telco"
LESSON = "code/telco/01_train_xgboost.py"

parser = options.parser()
depth = options.whole_number(1, 20)
parser.add_argument("--max-depth", type=depth, default=3, help="of each tree, 1 to 20")
leaves = options.whole_number(0, 1000)
help_leaves = "of each tree at most; 0 for no limit"
parser.add_argument("--max-leaves", type=leaves, default=0, help=help_leaves)
args = parser.parse_args()
spark = start_spark(CONNECTION_NAME)
snapshot = snapshots.current(spark, TABLE, made_by="code/telco/00_datagen.py")
rows = spark.sql(f"SELECT * FROM {TABLE} VERSION AS OF {snapshot.snapshot_id}")
with snapshots.readable(spark, TABLE):
    row_count, newest_day = rows.selectExpr("count(*)", "max(batch_id)").first()
print(f"{row_count} messages up to day {newest_day}, in snapshot {snapshot.snapshot_id}")

# %%
#
# The training code
# -----------------
# It stands in a file of its own, training.py: 04_train_xgboost.py trains with it again, and every
# run logs its text. We load it as 08_Reproduce_Run.py will: by executing that text.
training_code = (workarea.root() / "code" / "telco" / "training.py").read_text(encoding="utf-8")
code = {}
exec(compile(training_code, "training.py", "exec"), code)
PARAMS = {
    "n_estimators": 60,
    "max_depth": args.max_depth,
    "max_leaves": args.max_leaves,
    "learning_rate": 0.15,
    "tree_method": "hist",
    "n_jobs": 1,
    "random_state": 42,
}
print(f"{len(training_code.splitlines())} lines; inputs: {', '.join(code['FEATURES'])}")

# %%
#
# Train
# -----
# Every fifth message is kept for the test. Beside each score stands the **baseline**: the share of
# failures as the answer to every message; in money, the better of never and always sending a truck.
# The threshold from which we send one is chosen on training messages.
model, metrics = code["fit_and_score"](rows, PARAMS)
table = code["sample"](rows)  # all of them, unless there are more than 200,000
for name in ("roc_auc", "average_precision", "log_loss", "accuracy"):
    print(f"{name:>17}: {metrics[name]:.3f}; baseline: {metrics['baseline_' + name]:.3f}")
never, always = metrics["net_never"], metrics["net_always"]
print(f"{'net per message':>17}: {metrics['net_per_message']:.2f} with a truck from ", end="")
print(f"{metrics['threshold']:.2f} on; never {never:.2f}, always {always:.2f}")

# %%
#
# What later messages will be compared with
# -----------------------------------------
# The counts of each input's values in the training messages: with them in the run, nobody has to
# read those messages again. Its roc_auc is **out-of-fold**: each message is answered by a model
# that was trained without it, so the number rests on all messages and not on a fifth.
from cmlflow import drift

reference = drift.reference(
    table[table[code["KEY"]] % code["FOLDS"] != 0],
    code["FEATURES"],
    metrics["train_failure_share"],
    metrics["out_of_fold_roc_auc"],
    metrics["threshold"],
)
seen = reference["features"]["iot_signal_4"]
print(f"roc_auc out of fold: {reference['roc_auc']:.3f}")
print("iot_signal_4:", dict(zip(map(int, seen["values"]), seen["counts"], strict=False)))

# %%
#
# Is there such a run already?
# ----------------------------
# A run on the same snapshot with the same params and code would give the same model: if there is
# one, it is enough.
import hashlib

tags = snapshot.tags | {
    "row_count": str(row_count),
    "batch_id": str(newest_day),
    "trained_by": LESSON,
    "training_code": hashlib.sha256(training_code.encode()).hexdigest()[:16],
}
store.use_store(EXPERIMENT)  # a local MLflow store on a laptop; CML brings its own
mlflow.end_run()  # close a run that an earlier cell left open
mlflow.set_experiment(EXPERIMENT)
run = store.finished_like(EXPERIMENT, tags, PARAMS)
told = f"run {run.info.run_id} is there already" if run else ""
print(told or "No run on these rows with these params and this code")

# %%
#
# One run: what went in, what came out
# ------------------------------------
# The model is logged as a booster. The endpoint then answers a probability; a classifier would
# answer 0 or 1, which leaves no threshold to choose.
import numpy as np
import xgboost
from mlflow.models import infer_signature

if run is None:
    with mlflow.start_run(run_name=f"first model, {row_count} messages") as run:
        mlflow.set_tags(tags)
        with store.may_refuse("a dataset", instead="the tags"):
            mlflow.log_input(mlflow.data.from_iceberg(rows, snapshot), context="training")
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
    told = f"run {run.info.run_id} is new"
spark.stop()
print(
    f"Done: roc_auc {metrics['roc_auc']:.3f}; baseline 0.5 ({told})\n"
    f"Look at: Experiments > {EXPERIMENT}, reference.json and training.py under Artifacts.\n"
    f"Open the UI: {store.how_to_open_ui(store.run_page(run, 'artifacts/reference.json'))}"
)
