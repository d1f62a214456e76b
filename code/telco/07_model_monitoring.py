"""
Telco 07 - Have the data changed? Was the model right?

You learn  drift per input and window, truth that comes a day later, and a decision that is a
           function of one table
Reads      Iceberg tables spark_catalog.default.telco_predictions, telco_cell_towers and
           telco_monitoring; reference.json of the run that answered; code/telco/thresholds.yaml
Writes     rows of telco_monitoring: one commit; MLflow experiment "telco-monitoring": a run with
           metrics by day, four figures and dashboard.json
Needs      Spark (in CML: a session with the Spark add-on); telco/06_model_simulation.py; about 10
           seconds
Run        python code/telco/07_model_monitoring.py
"""

# %%
#
# Four tables, and the rules
# --------------------------
# What is an alarm stands in thresholds.yaml, with a meaning beside each number.
import mlflow

from cmlflow import drift, errors, options, snapshots, store, towers, workarea
from cmlflow.spark import start_spark

CONNECTION_NAME = "go01-aw-dl"
NAMESPACE = "spark_catalog.default"
MESSAGES, PREDICTIONS, TOWERS, MONITORING = (
    f"{NAMESPACE}.telco_{name}" for name in ("messages", "predictions", "cell_towers", "monitoring")
)
EXPERIMENT, MODEL, ENDPOINT = "telco-monitoring", "CellTwrFail-CLF", "CellTwrFail-CLF"

options.parser().parse_args()
thresholds = drift.read_thresholds(workarea.root() / "code" / "telco" / "thresholds.yaml")
spark = start_spark(CONNECTION_NAME)
for table in (MESSAGES, PREDICTIONS, TOWERS, MONITORING):
    snapshots.current(spark, table, made_by="code/telco/00_datagen.py")  # says what is missing
print(f"Alarm above PSI {thresholds.psi_alarm} in {thresholds.alarm_windows} of ", end="")
print(f"{thresholds.of_windows} windows, or with roc_auc {thresholds.max_roc_auc_drop} lower")

# %%
#
# What was answered, and what became of it
# ----------------------------------------
# A day counts when every message of it has an answer. The truth is joined by the key of the
# message: it belongs to the message that was sent, whenever it comes.
complete = spark.sql(
    f"SELECT m.batch_id FROM {MESSAGES} m LEFT JOIN {PREDICTIONS} p ON m.message_id = p.message_id "
    "GROUP BY 1 HAVING count(DISTINCT m.message_id) = count(DISTINCT p.message_id)"
)
answered = spark.sql(
    f"SELECT p.*, t.{towers.LABEL} FROM {PREDICTIONS} p LEFT JOIN {TOWERS} t "
    "ON p.message_id = t.message_id"
)
answered = answered.join(complete, "batch_id").toPandas()
# Two sessions may have sent a message: the first answer counts.
answered = answered.sort_values(["message_id", "requested_at"])
answered = answered.drop_duplicates("message_id", ignore_index=True)
if answered.empty:
    raise errors.MissingStep(
        f"{PREDICTIONS} has no day of which every message has an answer.",
        "one at least",
        "python code/telco/06_model_simulation.py",
    )
known = answered.dropna(subset=towers.LABEL)
print(f"{len(answered)} answers of {answered['batch_id'].nunique()} days; ", end="")
print(f"the truth is known for {known['batch_id'].nunique()} of them")

# %%
#
# Have the inputs changed?
# ------------------------
# A day has three windows of eight hours. PSI compares the shares of an input's values in a window
# with those in training: 0 for equal shares, from 0.1 on worth a look, an alarm above 0.25. With
# few rows chance alone moves it, so a window that is too small is refused. KS, the largest distance
# of the two cumulative shares, is worth a look above 0.1; no rule uses it. Each day is compared
# with the reference of the run that answered it, not with that of the newest run.
import pandas as pd

store.use_store()  # a local MLflow store on a laptop; CML brings its own
mlflow.end_run()  # close a run that an earlier cell left open
mlflow.set_experiment("xgb-telco")  # CML finds a run by its id only after this
references = {
    run_id: mlflow.artifacts.load_dict(f"runs:/{run_id}/reference.json")
    for run_id in answered["run_id"].unique()
}
before = spark.table(MONITORING).toPandas()


def there(kind):
    """Return the pairs of day and run that have a row of this kind."""
    rows = before[before["kind"] == kind]
    return set(zip(rows["batch_id"], rows["run_id"], strict=True))


with_windows, with_truth = there("predicted_share"), there("failure_share")
found = []
for (day, run_id), _ in answered.groupby(["batch_id", "run_id"]):
    if (day, run_id) in with_windows:
        continue
    windows = drift.in_windows(answered[answered["batch_id"] == day])
    found.append(
        drift.measure(references[run_id], windows[windows["run_id"] == run_id], thresholds)
    )
    psi = found[-1][found[-1]["kind"] == "psi"]
    table = psi.pivot(index="feature", columns="window", values="value").round(2)
    print(f"PSI of day {day} by window:\n{table.to_string() if len(psi) else 'too few messages'}")
    ks = found[-1][found[-1]["kind"] == "ks"].sort_values("value")
    for _, most in ks.tail(1).iterrows():
        print(f"Highest KS of day {day}: {most['value']:.2f} in {most['feature']}")

# %%
#
# Was the model right?
# --------------------
# Damage shows in the truth only: inputs may change and mean the same, or stay and mean something
# else. Until the truth is known, there is an estimate of the accuracy, which assumes that the
# model's probabilities are right. It is an estimate, and decides nothing.
for (day, run_id), rows in known.groupby(["batch_id", "run_id"]):
    if (day, run_id) not in with_truth:
        found.append(drift.performance(references[run_id], rows, towers.LABEL))
now = pd.concat([before, *found], ignore_index=True)
rows = now[now["kind"].isin(("accuracy_estimate", "accuracy", "roc_auc", "net_per_message"))]
by_day = rows.pivot_table(index="batch_id", columns="kind", values="value").round(3)
print(by_day.rename_axis("day").rename_axis(None, axis=1).fillna("not yet known").to_string())

# %%
#
# What follows?
# -------------
# `keep`, `wait` or `retrain`: a function of this table and of thresholds.yaml, nothing else. Two of
# the last three windows above 0.25 in the same input, the newest among them, are an alarm. But a
# model can learn the new world only from days whose truth is known: until then the answer is
# `wait`. A roc_auc that is lower by more than 0.05 asks for a retraining by itself.
decision = drift.decide(now, thresholds)
print(f"Decision: {decision.action}. {decision.reason}")
if found:
    rows = pd.concat([*found, drift.decision_rows(decision)], ignore_index=True)
    now = pd.concat([before, rows], ignore_index=True)
    new = towers.frame(spark, rows, spark.table(MONITORING).schema).writeTo(MONITORING)
    with snapshots.writable(MONITORING):
        new.option("snapshot-property.telco-batch", str(decision.batch_id)).append()
spark.stop()
print(f"{sum(map(len, found))} new numbers in {MONITORING}")

# %%
#
# The same as pictures
# --------------------
# Many days of numbers are hard to read; four figures are not. A dotted line shows the day on which
# another version took over.
from cmlflow import monitoring, registry, serving

serves = serving.deployed(ENDPOINT)
versions = {one.run_id: one.number for one in registry.versions(MODEL)}
challenge = monitoring.last_challenge(now, versions)
last = answered["run_id"].iloc[-1]
if serves and serves.run_id not in references:
    uri = f"runs:/{serves.run_id}/reference.json"
    references[serves.run_id] = mlflow.artifacts.load_dict(uri)
reference = references[serves.run_id if serves else last]
page = monitoring.page(MODEL, now, answered, towers.LABEL, reference, thresholds, serves, challenge)
figures = monitoring.figures(page)
print(f"Figures: {', '.join(figures)}")

# %%
#
# Is anything new?
# ----------------
# dashboard.json holds what 08_model_roi_dashboard.py shows. If it would be the same as that of the
# newest run, that run is enough.
import hashlib
import json

digest = hashlib.sha256(json.dumps(page, sort_keys=True).encode()).hexdigest()[:16]
store.use_store(EXPERIMENT)
mlflow.set_experiment(EXPERIMENT)
runs = store.newest_first(store.runs_of([EXPERIMENT]))
newest = next((one for one in runs if store.status(one) == "FINISHED"), None)
is_new = newest is None or newest.data.tags.get("dashboard_digest") != digest
print("There is something new" if is_new else f"Run {newest.info.run_id} says it all already")

# %%
#
# One run for all days so far
# ---------------------------
# Each number by day is a metric whose step is the day, so that MLflow draws it too.
import time

run = newest
if is_new:
    at = int(time.time() * 1000)
    steps = [
        mlflow.entities.Metric(name, value, at, day)
        for name, day, value in monitoring.metrics(page)
    ]
    with mlflow.start_run(run_name=f"day {page['day']}: {decision.action}") as run:
        mlflow.set_tags({"day": page["day"], "decision": decision.action})
        mlflow.set_tags({"reason": decision.reason, "dashboard_digest": digest})
        mlflow.set_tag("served_run", page["served"]["run_id"])
        mlflow.log_params(vars(thresholds))
        for begin in range(0, len(steps), 1000):  # as many as a store takes in one call
            some = steps[begin : begin + 1000]
            mlflow.MlflowClient().log_batch(run.info.run_id, metrics=some)
        for name, figure in figures.items():
            mlflow.log_figure(figure, name)
        mlflow.log_dict(page, "dashboard.json")
print(f"Run {run.info.run_id}: {len(page['days'])} days")

# %%
#
# The platform's own record
# -------------------------
# A CML model deployment can keep the truth of each of its predictions too, by the id that it gave
# the prediction. A request with several messages has one id for all of them, and so no one truth:
# those stay in our tables. A tag says which days it has been told, so no truth is sent twice, and
# what it refused, or what a stop kept back, is sent the next time.
from cmlflow import model_metrics

if workarea.in_cml():
    told = {day for one in runs for day in json.loads(one.data.tags.get("truth_sent", "[]"))}
    new = known[~known["batch_id"].isin(told)]
    alone = new[~new["prediction_uuid"].duplicated(keep=False) & (new["prediction_uuid"] != "")]
    truth = dict(zip(alone["prediction_uuid"], alone[towers.LABEL].astype(float), strict=True))
    sent = model_metrics.send_truth("final_label", truth)
    print(f"Model metrics: the truth of {sent} predictions")
    if sent == len(truth):
        days = json.dumps(sorted({*told, *map(int, new["batch_id"])}))
        mlflow.MlflowClient().set_tag(run.info.run_id, "truth_sent", days)
print(
    f"Done: day {page['day']}: {decision.action}. {decision.reason}\n"
    f"Look at: Experiments > {EXPERIMENT}, psi.png and scores.png under Artifacts.\n"
    f"Open the UI: {store.how_to_open_ui(store.run_page(run, 'artifacts/psi.png'))}\n"
    "Next: python code/telco/08_model_roi_dashboard.py"
)
