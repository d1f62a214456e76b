"""
Telco 05 - Champion or challenger? Only a winner takes the endpoint

You learn  a gate in the field's scores and in money, and a redeployment that proves which model
           answers before the old one stops
Reads      MLflow experiment "xgb-telco", the endpoint "CellTwrFail-CLF", Iceberg tables
           spark_catalog.default.telco_cell_towers and telco_monitoring; code/telco/thresholds.yaml
Writes     but for --gate dry-run: the verdict, as tags of both runs, gate.json and a row of
           telco_monitoring; for a winner a version of "CellTwrFail-CLF", which then serves
Needs      Spark (in CML: a session with the Spark add-on); telco/02_api_deployment.py and
           telco/04_train_xgboost.py; about 12 seconds, in CML 20 to 40 minutes
Run        python code/telco/05_api_redeployment.py [--gate on | dry-run | off]
"""

# %%
#
# Who serves?
# -----------
# The champion is what the endpoint itself says that it serves. Three modes: `on` acts on the
# verdict, `dry-run` changes nothing at all, `off` deploys without a verdict.
import mlflow

from cmlflow import drift, errors, gate, options, registry, serving, snapshots, store, workarea
from cmlflow.spark import start_spark

CONNECTION_NAME = "go01-aw-dl"
NAMESPACE = "spark_catalog.default"
TABLE, MONITORING = f"{NAMESPACE}.telco_cell_towers", f"{NAMESPACE}.telco_monitoring"
MADE_BY = "code/telco/00_datagen.py"
EXPERIMENT, MODEL, ENDPOINT = "xgb-telco", "CellTwrFail-CLF", "CellTwrFail-CLF"

parser = options.parser()
help_gate = "on acts on the verdict, dry-run changes nothing, off deploys without one"
parser.add_argument("--gate", choices=gate.MODES, default="on", help=help_gate)
args = parser.parse_args()

thresholds = drift.read_thresholds(workarea.root() / "code" / "telco" / "thresholds.yaml")
store.use_store()  # a local MLflow store on a laptop; CML brings its own
mlflow.end_run()  # close a run that an earlier cell left open
serves = serving.deployed(ENDPOINT)
if serves is None:
    raise errors.MissingStep(
        f"Nothing serves as {ENDPOINT!r}.",
        "an endpoint that serves the champion",
        "python code/telco/02_api_deployment.py",
    )
print(f"Gate: {args.gate}\nChampion: {serves}")

# %%
#
# Who challenges?
# ---------------
# The newest run of 04 that has no verdict yet: each verdict is a row of the monitoring table. Two
# kinds of run do not count. One was trained on a table that has been replaced since. The other
# knows only older days than the champion, or than a challenger that has been judged: it would be
# judged on a world that is gone.
mlflow.set_experiment(EXPERIMENT)  # CML finds a run by its id only after this
spark = start_spark(CONNECTION_NAME)
for table in (TABLE, MONITORING):
    snapshots.current(spark, table, made_by=MADE_BY)  # if it is missing, this says so
verdicts = spark.sql(f"SELECT run_id, batch_id FROM {MONITORING} WHERE kind = 'verdict'")
judged = {row.run_id: row.batch_id for row in verdicts.collect()}
in_line, known_days = snapshots.line(spark, TABLE), [0, *judged.values()]
of_champion = mlflow.get_run(serves.run_id).data.tags
if of_champion.get("iceberg_snapshot_id") in in_line:  # else its table was replaced since
    known_days.append(int(of_champion["batch_id"]))
waiting = [
    run
    for run in store.newest_first(store.runs_of([EXPERIMENT]))
    if store.status(run) == "FINISHED"
    and run.data.tags.get("trained_by") == "code/telco/04_train_xgboost.py"
    and run.data.tags.get("iceberg_snapshot_id") in in_line
    and run.info.run_id not in judged
    and int(run.data.tags["batch_id"]) >= max(known_days)
]
waiting.sort(key=lambda run: int(run.data.tags["batch_id"]), reverse=True)
challenger = waiting[0] if waiting else None
run_id = challenger.info.run_id if challenger else None
tags = dict(challenger.data.tags) if challenger else {}
if "gate.decision" not in tags or serves.run_id not in (run_id, tags["gate.against_run"]):
    # An earlier run of this script was stopped while it wrote, or was about another champion.
    tags = {name: value for name, value in tags.items() if not name.startswith("gate.")}
print(f"Challenger: run {run_id or 'none without a verdict'}")

# %%
#
# The same messages for both
# --------------------------
# Every fifth message is kept from training, so neither model has seen it. We read those of the rows
# that the challenger's run names.
import numpy as np

from cmlflow import towers
from cmlflow.dataset import IcebergSource

LABEL, FEATURES = towers.LABEL, towers.FEATURES
champion_run = tags.get("gate.against_run", serves.run_id)  # after a run that was killed half-way
if challenger is not None:
    rows = IcebergSource.from_tags(tags).load()
    test = rows.where("message_id % 5 = 0").orderBy("message_id").toPandas()
    answers, references = {}, {}
    for name, one in (("champion", champion_run), ("challenger", run_id)):
        model = mlflow.pyfunc.load_model(f"runs:/{one}/model")
        answers[name] = np.asarray(model.predict(test[FEATURES]), dtype="float64")
        references[name] = mlflow.artifacts.load_dict(f"runs:/{one}/reference.json")
    print(f"{len(test)} test messages up to day {tags['batch_id']}, {test[LABEL].sum()} failures")

# %%
#
# The verdict
# -----------
# Four conditions, all to be met: a higher roc_auc, by more than chance (a paired bootstrap of the
# messages); a log loss below that of the baseline; no less money, each model with its own
# threshold; and no manufacturer for whom it is clearly worse. The thresholds stand in
# thresholds.yaml. A tie keeps the champion.
from cmlflow import promotion

verdict = None
if challenger is not None:
    verdict = promotion.judge(
        test[LABEL].to_numpy(),
        answers["champion"],
        answers["challenger"],
        test["manufacturer"].to_numpy(),
        references["challenger"]["failure_share"],
        (references["champion"]["threshold"], references["challenger"]["threshold"]),
        thresholds,
    )
    if args.gate == "off":
        verdict = gate.unjudged(verdict)
    if "gate.decision" in tags:  # written down before this script was stopped
        verdict = gate.Verdict(tags["gate.decision"], tags["gate.reason"], verdict.numbers)
    for name, value in verdict.numbers.items():
        print(f"  {name:28} {value:8.4f}")
    print(f"Verdict: {verdict.decision}, {verdict.reason}")
acts = challenger is not None and args.gate != "dry-run"
promotes = acts and verdict.decision == gate.PROMOTE

# %%
#
# At every threshold
# ------------------
# Other prices ask for other thresholds. So we keep what each of the two would have done at each of
# them: the dashboard draws it.
from cmlflow import dashboard, scores

comparison = {}
if challenger is not None:
    comparison["messages"] = len(test)
    for name, one in (("champion", champion_run), ("challenger", run_id)):
        comparison[name] = {
            "run_id": one,
            "threshold": references[name]["threshold"],
            "roc_auc": verdict.numbers.get(f"{name}_roc_auc"),
            "counts": dashboard.counted(test[LABEL].to_numpy(), answers[name]),
        }
    for threshold in (0.1, 0.23, 0.5):
        net = [
            scores.net_revenue(**scores.counts_at(test[LABEL], one, threshold))
            for one in answers.values()
        ]
        print(f"a truck from {threshold:4} on: {net[0]:7.0f} and {net[1]:7.0f}")

# %%
#
# Write it down, before anything changes
# --------------------------------------
# The tags of both runs say who met whom, and how it ended. If this script is stopped after this
# cell, its next run goes on from the tags.
client = mlflow.MlflowClient()
mode = tags.get("gate.mode", args.gate)
if acts and "gate.decision" not in tags:
    with store.may_refuse("a file of a finished run", instead="the tags"):
        client.log_dict(run_id, comparison, "gate.json")
    written = {
        "gate.mode": args.gate,
        "gate.reason": verdict.reason,
        "gate.against_run": serves.run_id,
        "gate.against_version": str(serves.version),
        **{f"gate.{name}": repr(value) for name, value in verdict.numbers.items()},
        "gate.decision": verdict.decision,  # the last one: with it, the others are there
    }
    for key, value in written.items():
        client.set_tag(run_id, key, value)
    client.set_tag(serves.run_id, "challenged_by", run_id)
    client.set_tag(serves.run_id, "challenge", f"{verdict.decision}: {verdict.reason}")
print("The verdict stands in the tags" if acts else "Nothing is written")

# %%
#
# The right model, proven four ways
# ---------------------------------
# 1 The registry says that the version is of this run. 2 We print how far the answers of the two
# models lie apart: if they were equal, the third proof would prove nothing. 3 The new version
# answers a hundred messages as the run's own model does, before it takes the name. 4 What serves
# says whose it is. The old version stops last: a crash at any point leaves one that answers.
if promotes:
    version = registry.register_once(run_id, MODEL)
    print(f"Proof 1: the registry says {version}")
    probe, ask = test[FEATURES].head(100), slice(0, 100)
    apart = np.abs(answers["challenger"][ask] - answers["champion"][ask]).max()
    print(f"Proof 2: on {len(probe)} messages it differs from the champion by up to {apart:.3f}")
    check = serving.Check(probe, answers["challenger"][ask], tolerance=1e-12)
    serving.deploy(ENDPOINT, version, check)
    furthest = np.abs(serving.call(ENDPOINT, probe) - check.expected).max()
    print(f"Proof 3: {len(probe)} answers, furthest from the model's own: {furthest:.1e}")
    serves = serving.deployed(ENDPOINT)
    if serves is None or serves.run_id != run_id or furthest > check.tolerance:
        raise errors.ServingError(
            f"The endpoint {ENDPOINT!r} says that it serves {serves}.",
            f"{version}",
            "If nobody else deploys at this moment, run:  python code/telco/05_api_redeployment.py",
        )
    print(f"Proof 4: the endpoint says {serves}")

# %%
#
# The last step
# -------------
# The alias follows what serves. The row in the monitoring table comes last: with it, 07 and 04 know
# that this challenger was judged, and do not ask for another one.
if promotes:
    with store.may_refuse("an alias", instead="the tags of the runs"):
        client.set_registered_model_alias(MODEL, registry.CHAMPION, str(version.number))
    with store.may_refuse("a description of the version", instead="the tags of its run"):
        client.update_model_version(MODEL, str(version.number), verdict.reason)
    registry.tag_champion(version, EXPERIMENT)
if acts:
    row = drift.verdict_rows(int(tags["batch_id"]), mode, promotes, len(test), run_id)
    new = towers.frame(spark, row, spark.table(MONITORING).schema).writeTo(MONITORING)
    with snapshots.writable(MONITORING):
        new.option("snapshot-property.telco-verdict", run_id).append()
spark.stop()
outcome = f"{verdict.decision}, {verdict.reason}" if verdict else "nothing to judge"
if args.gate == "dry-run" and verdict:
    outcome += " (dry-run: nothing was changed)"
print(f"Done: {outcome}\nChampion: {serves}")
if acts:
    print(
        f"Look at: Experiments > {EXPERIMENT}, the newest challenger: its tags gate.decision and "
        "gate.reason."
    )
print("Next: python code/telco/06_model_simulation.py")
