"""
14 - XGBoost on an Iceberg table: find the fraud

You learn  the flavour mlflow.xgboost: learning curve, importances, autolog; how a score becomes
           a decision; whether a better score is more than chance
Reads      Iceberg table spark_catalog.default.transactions
Writes     MLflow experiment "xgboost-fraud": a run with a model, and a run by autolog
Needs      Spark (in CML: a session with the Spark add-on); 00_datagen.py; about 15 seconds
Run        python code/14_XGBoost_Iceberg.py
"""

# %%
#
# The question: which transactions are fraud?
# -------------------------------------------
# We train on the table as it is now, in its current **snapshot**, and log which one that was.
from cmlflow import options, snapshots, store, transactions
from cmlflow.spark import start_spark

CONNECTION_NAME = "go01-aw-dl"
TABLE = "spark_catalog.default.transactions"
EXPERIMENT = "xgboost-fraud"

options.parser().parse_args()
spark = start_spark(CONNECTION_NAME)
snapshot = snapshots.current(spark, TABLE, made_by="code/00_datagen.py")
transactions.require_fits(spark, snapshot)
rows = spark.sql(f"SELECT * FROM {TABLE} VERSION AS OF {snapshot.snapshot_id}")
transactions.require_columns(rows, TABLE)
print(f"{snapshot.row_count} rows in snapshot {snapshot.snapshot_id} of {TABLE}")

# %%
#
# How rare is fraud?
# ------------------
# Look at the classes before anything else: one transaction in fifteen is fraud. The key of a row
# says what the row is for: three fifths train, one fifth draws the learning curve (validation) and
# one fifth is kept for the score (test). So a row keeps its part when the table grows.
import pandas as pd


def split(rows):
    """Return features, label and part (0 test, 1 validation, 2 to 4 train), ordered by the key."""
    table = rows.drop("transaction_time").toPandas()
    table = table.set_index("transaction_id").sort_index()  # trees depend on the order of the rows
    label = table.pop("fraud_label")
    return table.astype("float64"), label, label.index % 5


with snapshots.readable(spark, TABLE):
    X, y, part = split(rows)
counted = pd.DataFrame({"part": part, "id": y.index, "fraud": y == 1, "honest": y == 0})
balance = counted.groupby("part", dropna=False).agg(
    rows=("id", "size"), ids=("id", "nunique"), frauds=("fraud", "sum"), honest=("honest", "sum")
)
print(balance)
transactions.require_sound(balance, TABLE)
transactions.require_finite(X.columns[(X.abs() == float("inf")).any()], TABLE)

# %%
#
# A first model, one score
# ------------------------
# One small tree, and one number. **Average precision** is the mean precision over all thresholds:
# 1 if every fraud is ranked above every honest row. The **baseline** gives every row the same
# probability, the share of fraud in training; its average precision is the share of fraud.
from sklearn.metrics import average_precision_score

PARAMS = {
    "n_estimators": 100,
    "max_depth": 2,
    "learning_rate": 0.1,
    "tree_method": "hist",
    "n_jobs": 1,
    "random_state": 42,
}


def fit(X, y, part, params):
    """Train on the parts from 2 up; return the model, which keeps the learning curve of part 1."""
    from xgboost import XGBClassifier

    kinds = {"learning_rate": float, "tree_method": str}  # 08_Reproduce_Run.py brings text
    params = {name: kinds.get(name, int)(value) for name, value in params.items()}
    model = XGBClassifier(**params, eval_metric="logloss")
    validation = [(X[part == 1], y[part == 1])]
    return model.fit(X[part >= 2], y[part >= 2], eval_set=validation, verbose=False)


X_test, y_test = X[part == 0], y[part == 0]
first_model = fit(X, y, part, PARAMS | {"n_estimators": 1})
first_score = average_precision_score(y_test, first_model.predict_proba(X_test)[:, 1])
print(f"average precision of one tree: {first_score:.3f}; baseline: {y_test.mean():.3f}")


# %%
#
# Six scores
# ----------
# Accuracy says little where the classes are so uneven: the baseline is right for 93 rows of 100.
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


one_tree = score(y_test, first_model.predict_proba(X_test)[:, 1], y[part >= 2].mean())
print(f"accuracy of one tree: {one_tree['accuracy']:.3f}", end="; ")
print(f"baseline: {one_tree['baseline_accuracy']:.3f}")


# %%
#
# A hundred trees
# ---------------
# These functions stand alone, imports and all: we log their text with the run, and
# 08_Reproduce_Run.py calls `fit_and_score(rows, params)` and `predict(model, rows)` to repeat it.
def fit_and_score(rows, params):
    """Train on the rows of a snapshot; return the model and its metrics (a list: one per tree)."""
    X, y, part = split(rows)
    model = fit(X, y, part, params)
    test = part == 0
    metrics = score(y[test], model.predict_proba(X[test])[:, 1], y[part >= 2].mean())
    metrics["validation_log_loss"] = model.evals_result()["validation_0"]["logloss"]
    return model, metrics


def predict(model, rows):
    """Return the probability of fraud for each row, in the order of the key."""
    return model.predict_proba(split(rows)[0])[:, 1]


model, metrics = fit_and_score(rows, PARAMS)
losses = metrics.pop("validation_log_loss")
for name in ("accuracy", "average_precision", "roc_auc", "log_loss", "recall"):
    print(f"{name:>17}: {metrics[name]:.3f}; baseline: {metrics['baseline_' + name]:.3f}")

# %%
#
# What the model looks at
# -----------------------
# The **gain** of a column is how much its splits improve the fit, as a share of all. The confusion
# matrix counts the test rows by truth and answer, at the usual threshold of one half.
from matplotlib.figure import Figure
from sklearn.metrics import ConfusionMatrixDisplay

importances = pd.DataFrame({"feature": X.columns, "gain": model.feature_importances_})
importances = importances.sort_values("gain", ascending=False, ignore_index=True)
figure = Figure(figsize=(8, 4), layout="constrained")
axes = figure.subplots(1, 2, width_ratios=(3, 2))
axes[0].barh(importances["feature"][::-1], importances["gain"][::-1])
axes[0].set_title("share of the gain")
answers = model.predict(X_test)
ConfusionMatrixDisplay.from_predictions(y_test, answers, ax=axes[1], colorbar=False)
axes[1].set_title("test rows")
print(importances.head(3).to_string(index=False))

# %%
#
# What the run will keep
# ----------------------
# The training code as text, the libraries with their versions, and the learning curve: a metric
# with a step per tree.
import inspect
import time

import mlflow
import numpy as np
import sklearn
import xgboost

functions = (split, fit, score, fit_and_score, predict)
training_code = "\n\n".join(map(inspect.getsource, functions))
requirements = [
    f"xgboost=={xgboost.__version__}",
    f"scikit-learn=={sklearn.__version__}",
    f"pandas=={pd.__version__}",
    f"numpy=={np.__version__}",
]
now = int(time.time() * 1000)
curve = [
    mlflow.entities.Metric("validation_log_loss", value, now, tree)
    for tree, value in enumerate(losses, start=1)
]
print(f"{len(functions)} functions; {len(curve)} steps; {', '.join(requirements)}")

# %%
#
# One run: what went in, what came out
# ------------------------------------
# Params, metrics, the rows (as tags and as a dataset), the training code, the model. `log_batch`
# sends all steps of the learning curve in one call.
from mlflow.models import infer_signature

store.use_store(EXPERIMENT)  # a local MLflow store on a laptop; CML brings its own
mlflow.end_run()  # close a run that an earlier cell left open
mlflow.set_experiment(EXPERIMENT)
row_count = len(X)
with mlflow.start_run(run_name=f"one-machine, {row_count} rows") as run:
    mlflow.set_tags(snapshot.tags | {"row_count": row_count})
    with store.may_refuse("a dataset", instead="the tags"):
        mlflow.log_input(mlflow.data.from_iceberg(rows, snapshot), context="training")
    mlflow.log_text(training_code, "training.py")
    mlflow.log_params(PARAMS)
    mlflow.log_metrics(metrics)
    mlflow.MlflowClient().log_batch(run.info.run_id, metrics=curve)
    mlflow.log_table(importances.astype({"gain": float}), "feature_importances.json")
    mlflow.log_figure(figure, "importances_and_confusion.png")
    mlflow.xgboost.log_model(
        model,
        "model",
        signature=infer_signature(X_test, answers),
        input_example=X_test[:3],
        pip_requirements=requirements,
    )
print(f"Run {run.info.run_id}: {len(PARAMS)} params, {len(metrics) + 1} metrics, a model")

# %%
#
# From a score to a decision
# --------------------------
# At the threshold of one half this model finds only one fraud in seven. A bank asks something
# else. With time to look at 100 transactions: which ones? The most suspicious, so we sort. With
# as much time as it pays: suppose that a missed fraud costs as much as ten checks. Then a check
# pays from a probability of 0.1 on, and the sum of both costs is lowest near that threshold.
probability = model.predict_proba(X_test)[:, 1]
most_suspicious = np.argsort(-probability)[:100]
frauds, caught = int(y_test.sum()), int(y_test.iloc[most_suspicious].sum())
print(f"The 100 most suspicious of {len(y_test)} test rows hold {caught} of {frauds} frauds;")
print(f"100 rows at random would hold about {100 * y_test.mean():.0f}")
for threshold in (0.5, 0.2, 0.1, 0.05):
    checked = probability >= threshold
    missed = frauds - int(y_test[checked].sum())
    cost = checked.sum() + 10 * missed
    print(f"threshold {threshold:4}: {checked.sum():4} checks, {missed:3} missed, cost {cost:4}")

# %%
#
# More rows: a better model?
# --------------------------
# Run `python code/00_datagen.py --append`, then this lesson again: the model of the snapshot before
# and this one then answer for the same test rows, those of today. Neither has seen them.
found = mlflow.search_runs(
    experiment_names=[EXPERIMENT],
    filter_string=f"tags.iceberg_snapshot_id = '{snapshot.parent_id}'",
    order_by=["attributes.start_time DESC"],
    output_format="list",
)
earlier = [  # we check the result ourselves, because a managed store may ignore the filter
    one
    for one in store.newest_first(found)
    if snapshot.parent_id is not None
    and one.data.tags.get("iceberg_snapshot_id") == snapshot.parent_id
    and store.status(one) == "FINISHED"
    and "n_jobs" in one.data.params  # not a run of 15_XGBoost_Distributed.py
]
older = mlflow.xgboost.load_model(f"runs:/{earlier[0].info.run_id}/model") if earlier else None
if older is None or set(older.feature_names_in_) != set(X):
    earlier = []
    print("No run on the snapshot before this one. Grow the table, then run this lesson again:")
    print("python code/00_datagen.py --append")
else:
    old_answers = older.predict_proba(X_test[older.feature_names_in_])[:, 1]
    old_metrics = score(y_test, old_answers, y_test.mean())
    print(f"On the same {len(y_test)} test rows: the older model; this one, trained on more rows")
    for name in ("average_precision", "roc_auc", "log_loss"):
        print(f"{name:>17}: {old_metrics[name]:.3f}; {metrics[name]:.3f}")


# %%
#
# Or is it chance?
# ----------------
# Another sample of test rows would give other scores. Both models answer for the same rows, so the
# question is how far chance moves their **difference**. We draw the test rows again with
# replacement, a thousand times, and take the difference each time (a paired bootstrap).
def average_precision(truth, times):
    """Return it for rows sorted from the most suspicious down, each of them drawn `times` times."""
    hits = times * truth
    return (hits * hits.cumsum() / np.maximum(times.cumsum(), 1)).sum() / hits.sum()


if earlier:
    truth, random, drawn = y_test.to_numpy(), np.random.default_rng(42), []
    orders = np.argsort(-old_answers), np.argsort(-probability)
    for _ in range(1000):
        times = np.bincount(random.integers(len(truth), size=len(truth)), minlength=len(truth))
        drawn.append([average_precision(truth[order], times[order]) for order in orders])
    drawn = np.array(drawn)
    gain = metrics["average_precision"] - old_metrics["average_precision"]
    spread = np.std(drawn[:, 1] - drawn[:, 0])
    print(f"Average precision: {gain:+.3f}; chance moves this difference by {spread:.3f}")
    print(f"and either score alone by {np.std(drawn[:, 1]):.3f}: the wrong yardstick here")
    print("More than chance" if abs(gain) > 2 * spread else "No more than chance would do")

# %%
#
# What more rows can bring
# ------------------------
# Twice the rows (`--append`): on the 4,000 test rows of the grown table the average precision rises
# from 0.379 to 0.385. Chance moves that difference by 0.010, so it proves nothing. That the run of
# the smaller table said 0.387 is no contradiction: it was another test set.
#
# Ten times the rows do help. After `python code/00_datagen.py --append --rows 80000` this lesson
# compares 12,000 training rows with 60,000 on 20,000 test rows: 0.415 and 0.435, where chance
# moves the difference by 0.004. A model that knew the true probability would reach 0.444 there: the
# table of 20,000 rows had not taught all that can be learned.
#
# By hand or by autolog?
# ----------------------
# `mlflow.xgboost.autolog()` logs a run without a line of ours: every param, also those we never
# set, the learning curve under the name `validation_0-logloss`, and importances by another rule.
# It knows nothing of test rows, baseline and snapshot. Called inside a run by hand it would log
# the curve, the importances and the model a second time. We turn model logging off here: it starts
# a second process to work out the requirements, which takes seconds.
mlflow.xgboost.autolog(log_models=False, log_datasets=False, silent=True)
try:
    with mlflow.start_run(run_name=f"autolog, {row_count} rows") as auto_run:
        fit(X, y, part, PARAMS)
finally:
    mlflow.xgboost.autolog(disable=True)
spark.stop()
saved = mlflow.get_run(auto_run.info.run_id).data
print(f"autolog: {len(saved.params)} params, metrics {', '.join(saved.metrics)}")
print(
    f"Done: average precision {metrics['average_precision']:.3f}; baseline: "
    f"{metrics['baseline_average_precision']:.3f} (run {run.info.run_id})\n"
    "Look at: the run's Model metrics, type validation in the search field; Datasets on its\n"
    "Overview, a click shows the columns; importances_and_confusion.png under Artifacts.\n"
    f"Open the UI: {store.how_to_open_ui(store.run_page(run, 'model-metrics'))}"
)
