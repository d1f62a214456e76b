"""
15 - XGBoost on Spark's executors: more rows than one machine can hold

You learn  how xgboost.spark trains where the rows are, and what is the same as on one machine
Reads      Iceberg table spark_catalog.default.transactions, and the runs of 14_XGBoost_Iceberg.py
Writes     MLflow experiment "xgboost-fraud": a run with a model
Needs      Spark (in CML: a session with the Spark add-on); pyarrow; 00_datagen.py; about 20 seconds
Run        python code/15_XGBoost_Distributed.py
"""

# %%
#
# Count without fetching
# ----------------------
# 14_XGBoost_Iceberg.py brings all rows to one machine. Here they stay with Spark's executors, and
# Spark counts them. Spark hands rows to the workers of XGBoost through pyarrow, so we look for it
# before anything else.
from cmlflow import options, snapshots, store, transactions
from cmlflow.spark import start_spark

CONNECTION_NAME = "go01-aw-dl"
TABLE = "spark_catalog.default.transactions"
EXPERIMENT = "xgboost-fraud"

options.parser().parse_args()
transactions.require_pyarrow()
spark = start_spark(CONNECTION_NAME)
snapshot = snapshots.current(spark, TABLE, made_by="code/00_datagen.py")
rows = spark.sql(f"SELECT * FROM {TABLE} VERSION AS OF {snapshot.snapshot_id}")
transactions.require_columns(rows, TABLE)
counts = spark.sql(
    "SELECT pmod(transaction_id, 5) AS part, count(*) AS rows,"
    " count(DISTINCT transaction_id) AS ids,"
    " count_if(fraud_label = 1) AS frauds, count_if(fraud_label = 0) AS honest"
    f" FROM {TABLE} VERSION AS OF {snapshot.snapshot_id} GROUP BY part"
)
with snapshots.readable(spark, TABLE):
    balance = counts.toPandas().set_index("part").sort_index()
transactions.require_sound(balance, TABLE)
print(f"{snapshot.row_count} rows in snapshot {snapshot.snapshot_id} of {TABLE}")
print(balance)

# %%
#
# Share the rows out
# ------------------
# The parts are those of lesson 14: 0 is the test, 1 the validation, 2 to 4 train. `num_workers` is
# the number of Spark tasks that train together, each on its share of the rows.
from pyspark.sql import functions as F

PARAMS = {
    "n_estimators": 100,
    "max_depth": 2,
    "learning_rate": 0.1,
    "tree_method": "hist",
    "random_state": 42,
    "num_workers": min(2, spark.sparkContext.defaultParallelism),
}
parts = rows.withColumn("part", F.pmod("transaction_id", F.lit(5)))
parts = parts.withColumn("validation", F.col("part") == 1)
no_features = ("transaction_id", "transaction_time", "fraud_label")
features = [name for name in rows.columns if name not in no_features]
largest = rows.select(*(F.max(F.abs(F.col(name).cast("double"))) for name in features)).first()
infinite = [name for name, value in zip(features, largest, strict=True) if value == float("inf")]
transactions.require_finite(infinite, TABLE)
train = balance.loc[2:].sum()
train_share = train["frauds"] / train["rows"]
print(
    f"{PARAMS['num_workers']} workers share {train['rows']} training rows, {len(features)} features"
)

# %%
#
# Train where the rows are
# ------------------------
# What comes back are the trees, and the probabilities of the test rows. The trees make an ordinary
# `XGBClassifier`, which needs no Spark to answer.
import logging

from pyspark.ml.functions import vector_to_array
from sklearn.metrics import average_precision_score
from xgboost import XGBClassifier
from xgboost.spark import SparkXGBClassifier

logging.getLogger("XGBoost-PySpark").setLevel(logging.WARNING)
fitted = SparkXGBClassifier(
    features_col=features,
    label_col="fraud_label",
    validation_indicator_col="validation",
    eval_metric="logloss",
    verbose=False,
    **PARAMS,
).fit(parts.where("part > 0"))
probability = vector_to_array("probability")[1].alias("probability")
answers = fitted.transform(parts.where("part = 0")).select("fraud_label", probability).toPandas()
y, p = answers["fraud_label"], answers["probability"]
model = XGBClassifier()
model.load_model(bytearray(fitted.get_booster().save_raw("ubj")))
print(f"average precision: {average_precision_score(y, p):.3f}; baseline: {y.mean():.3f}")


# %%
#
# The same scores
# ---------------
# The scores are those of lesson 14, and so are their names: MLflow can then compare the runs.
def score(label, probability, train_share):
    """Return metrics of a model and, as `baseline_`, those of the share of fraud in training."""
    import numpy as np
    from sklearn import metrics

    found = {}
    baseline = np.full(len(label), train_share)
    for prefix, answer in (("", probability), ("baseline_", baseline)):
        yes = answer >= 0.5
        found[prefix + "accuracy"] = metrics.accuracy_score(label, yes)
        found[prefix + "precision"] = metrics.precision_score(label, yes, zero_division=0)
        found[prefix + "recall"] = metrics.recall_score(label, yes, zero_division=0)
        found[prefix + "roc_auc"] = metrics.roc_auc_score(label, answer)
        found[prefix + "average_precision"] = metrics.average_precision_score(label, answer)
        found[prefix + "log_loss"] = metrics.log_loss(label, answer, labels=[0, 1])
    return found


metrics = score(y, p, train_share)
for name in ("accuracy", "average_precision", "roc_auc", "log_loss", "recall"):
    print(f"{name:>17}: {metrics[name]:.3f}; baseline: {metrics['baseline_' + name]:.3f}")

# %%
#
# What the model looks at
# -----------------------
# To draw, and as an example for the model's signature, at most 10,000 test rows come here.
import pandas as pd
from matplotlib.figure import Figure
from sklearn.metrics import ConfusionMatrixDisplay

sample = parts.where("part = 0").orderBy("transaction_id").limit(10_000)
sample = sample.select("fraud_label", *features).toPandas()
X_test = sample[features].astype("float64")
importances = pd.DataFrame({"feature": features, "gain": model.feature_importances_})
importances = importances.sort_values("gain", ascending=False, ignore_index=True)
figure = Figure(figsize=(8, 4), layout="constrained")
axes = figure.subplots(1, 2, width_ratios=(3, 2))
axes[0].barh(importances["feature"][::-1], importances["gain"][::-1])
axes[0].set_title("share of the gain")
yes = model.predict(X_test)
ConfusionMatrixDisplay.from_predictions(sample["fraud_label"], yes, ax=axes[1], colorbar=False)
axes[1].set_title("test rows")
print(importances.head(3).to_string(index=False))

# %%
#
# What the run will keep
# ----------------------
# No training code: nobody could repeat it to the last bit, because workers that split the rows in
# another way round the sums differently. The learning curve is a metric with a step per tree.
import time

import mlflow
import numpy as np
import sklearn
import xgboost

now, losses = int(time.time() * 1000), fitted.training_summary.validation_objective_history
curve = [
    mlflow.entities.Metric("validation_log_loss", value, now, tree)
    for tree, value in enumerate(losses["logloss"], start=1)
]
requirements = [
    f"xgboost=={xgboost.__version__}",
    f"scikit-learn=={sklearn.__version__}",
    f"pandas=={pd.__version__}",
    f"numpy=={np.__version__}",
]
print(f"{len(curve)} steps; {', '.join(requirements)}")

# %%
#
# The run
# -------
# It has the experiment and the metrics of lesson 14, and a name that tells the two apart.
from mlflow.models import infer_signature

store.use_store(EXPERIMENT)  # a local MLflow store on a laptop; CML brings its own
mlflow.end_run()  # close a run that an earlier cell left open
mlflow.set_experiment(EXPERIMENT)
row_count = int(balance["rows"].sum())
with mlflow.start_run(run_name=f"distributed, {row_count} rows") as run:
    mlflow.set_tags(snapshot.tags | {"row_count": row_count})
    with store.may_refuse("a dataset", instead="the tags"):
        mlflow.log_input(mlflow.data.from_iceberg(rows, snapshot), context="training")
    mlflow.log_params(PARAMS)
    mlflow.log_metrics(metrics)
    mlflow.MlflowClient().log_batch(run.info.run_id, metrics=curve)
    mlflow.log_table(importances.astype({"gain": float}), "feature_importances.json")
    mlflow.log_figure(figure, "importances_and_confusion.png")
    mlflow.xgboost.log_model(
        model,
        "model",
        signature=infer_signature(X_test, yes),
        input_example=X_test[:3],
        pip_requirements=requirements,
    )
spark.stop()
print(f"Run {run.info.run_id}: {len(PARAMS)} params, {len(metrics) + 1} metrics, a model")

# %%
#
# Beside one machine
# ------------------
# The workers split the rows, so sums are rounded differently. Scores are close to those of one
# machine, but not identical. As long as the rows fit into memory, one machine is faster.
found = mlflow.search_runs(
    experiment_names=[EXPERIMENT],
    filter_string=f"tags.iceberg_snapshot_id = '{snapshot.snapshot_id}'",
    order_by=["attributes.start_time DESC"],
    output_format="list",
)
beside = [  # we check the result ourselves, because a managed store may ignore the filter
    one
    for one in store.newest_first(found)
    if one.data.tags.get("iceberg_snapshot_id") == snapshot.snapshot_id
    and store.status(one) == "FINISHED"
    and "n_jobs" in one.data.params
]
if not beside:
    print("No run of one machine on this snapshot. To see both, run this and then lesson 15 again:")
    print("python code/14_XGBoost_Iceberg.py")
for name in ("average_precision", "roc_auc", "log_loss"):
    one = f"; one machine: {beside[0].data.metrics[name]:.3f}" if beside else ""
    print(f"{name:>17}: {metrics[name]:.3f}{one}")

# %%
#
# Where to look
# -------------
# The page that compares both runs begins with a figure; scroll to Metrics.
page, place = store.run_page(run, "model-metrics"), "this run, Model metrics"
if beside:
    page = store.compare_page([run, beside[0]])
    place = "this run beside that of one machine: Metrics"
print(
    f"Done: average precision {metrics['average_precision']:.3f}; baseline: "
    f"{metrics['baseline_average_precision']:.3f} (run {run.info.run_id})\n"
    f"Look at: Experiments > {EXPERIMENT}, {place}.\n"
    f"Open the UI: {store.how_to_open_ui(page)}"
)
