"""
Telco 09 - The loop: a day passes, and five jobs do the rest

You learn  a model that is watched, retrained when there is a reason, and replaced when it loses
Reads      the scripts of the steps: 03_newbatch.py, 06_model_simulation.py,
           07_model_monitoring.py, 04_train_xgboost.py and 05_api_redeployment.py
Writes     what those scripts write; in CML five jobs, found by name or created
Needs      Spark (in CML: a session with the Spark add-on); telco/02_api_deployment.py; about 15
           seconds a day, in CML 10 minutes a day
Run        python code/telco/09_jobs.py [--days 4] [--drift firmware] [--drift-from 8] [--gate on]
"""

# %%
#
# Five steps, each a script
# -------------------------
# Each of them ends well when it has nothing to do, and does nothing twice. So the chain may run
# every day, may be killed, and may be started again. Retrain and redeploy are two decisions: drift
# asks for a challenger, and only the gate lets it serve.
from cmlflow import drift, gate, jobs, options, snapshots, store, towers, workarea
from cmlflow.spark import start_spark

CONNECTION_NAME = "go01-aw-dl"
NAMESPACE = "spark_catalog.default"
MESSAGES, MONITORING = f"{NAMESPACE}.telco_messages", f"{NAMESPACE}.telco_monitoring"

parser = options.parser()
number = options.whole_number(1, 1000)
parser.add_argument("--days", type=number, default=4, help="how many days pass, 1 to 1000")
help_drift = "what changes, from the day --drift-from on"
parser.add_argument("--drift", choices=towers.DRIFTS, default="firmware", help=help_drift)
parser.add_argument("--drift-from", type=number, default=8, help="the first drifted day")
parser.add_argument("--gate", choices=gate.MODES, default="on", help="see 05_api_redeployment.py")
args = parser.parse_args()

drifts = {"CMLFLOW_DRIFT": args.drift, "CMLFLOW_DRIFT_FROM": str(args.drift_from)}
chain = [
    jobs.Step(name, f"code/telco/{script}", variables, needs_spark=True)
    for name, script, variables in (
        ("New Batch", "03_newbatch.py", drifts),
        ("Model Simulation", "06_model_simulation.py", {}),
        ("Model Monitoring", "07_model_monitoring.py", {}),
        ("Retrain XGBoost", "04_train_xgboost.py", {"CMLFLOW_WHEN": "drift"}),
        ("API Redeployment", "05_api_redeployment.py", {"CMLFLOW_GATE": args.gate}),
    )
]
for step in chain:
    print(f"{step.name:16} {step.script:36} {step.environment or ''}")

# %%
#
# A day that has begun
# --------------------
# If this script was stopped in the middle of a day, the messages of that day are there, but steps
# that follow have not run. Before another day begins, we run them. In CML we need not: the jobs go
# on without this script.
rounds = [(f"Day {passed + 1} of {args.days}", chain) for passed in range(args.days)]
if not workarea.in_cml():
    thresholds = drift.read_thresholds(workarea.root() / "code" / "telco" / "thresholds.yaml")
    spark = start_spark(CONNECTION_NAME)
    for table in (MESSAGES, MONITORING):
        snapshots.current(spark, table, made_by="code/telco/00_datagen.py")  # says what is missing
    (begun,) = spark.sql(f"SELECT max(batch_id) FROM {MESSAGES}").first()
    rows = spark.table(MONITORING).toPandas()
    spark.stop()
    decided = rows.loc[rows["kind"] == "decision", "batch_id"].max()
    if begun and (begun != decided or drift.decide(rows, thresholds).action == drift.RETRAIN):
        rounds.insert(0, (f"Day {begun} had begun", chain[1:]))
print(f"To come: {', '.join(name for name, _ in rounds[:3])}{' ...' if rounds[3:] else ''}")

# %%
#
# Let the days pass
# -----------------
# In CML each step is a job and the child of the one before; only the first is started here. You
# could give it a schedule instead. On a laptop the steps run one after the other in this process,
# so Java starts once.
for name, steps in rounds:
    outcomes = jobs.run_chain(steps, in_this_process=True)
    seconds = sum(one.seconds for one in outcomes)
    print(f"{name}, {seconds:.1f} s", flush=True)
    for one in outcomes:
        print(f"  {one.step.name:16} {one.state:9} {one.told.splitlines()[0] if one.told else ''}")
    jobs.require_success(outcomes)

# %%
#
# What has happened?
# ------------------
# The newest run of 07 has all days: which version answered, what the truth said, what was decided.
# A version that took over on one day shows in the truth a day later. What serves now, the endpoint
# itself says: the last step may have changed it after 07.
import mlflow
import pandas as pd

from cmlflow import dashboard, serving

store.use_store()  # a local MLflow store on a laptop; CML brings its own
mlflow.set_experiment("telco-monitoring")  # CML finds a run by its id only after this
newest = dashboard.newest_run()
page = dashboard.load(newest.info.run_id)
days = pd.DataFrame(page["days"])
days["roc_auc"] = [f"{one['roc_auc']:.3f}" if one else "not yet known" for one in days["truth"]]
days["decision"] = days["decision"].fillna("")  # of several days at once, only the last has one
print(days[["day", "version", "roc_auc", "decision"]].to_string(index=False))
serves = serving.deployed("CellTwrFail-CLF")
now = f"version {serves.version} serves (run {serves.run_id})" if serves else "nothing serves"
print(
    f"Done: {args.days} days ({', '.join(days['decision'].tail(args.days))}); {now}\n"
    "Look at: Experiments > telco-monitoring, scores.png of the newest run.\n"
    f"Open the UI: {store.how_to_open_ui(store.run_page(newest, 'artifacts/scores.png'))}"
)
