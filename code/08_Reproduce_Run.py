"""
08 - Train a run again, to the last bit

You learn  what a run must keep so that anybody can repeat it: rows, code, params, versions
Reads      a run of code/06_Spark_Iceberg.py, 14_XGBoost_Iceberg.py or 07_Keep_Snapshot.py, and
           the Iceberg snapshot that it names
Writes     MLflow experiment "reproductions": one run; the verdict, as a tag of both runs
Needs      Spark (in CML: a session with the Spark add-on); 07_Keep_Snapshot.py; about 20 seconds
Run        python code/08_Reproduce_Run.py [--run-id ID] [--model NAME --version N | --alias A]
           [--trust]

The lesson runs code that was logged with a run. If your user made that run, in this working area
or this CML project, it starts at once. For any other run it asks for --trust: read the code first,
because it can do whatever you can.
"""

# %%
#
# Which run?
# ----------
# Give a run id, or a registered model with a version or an alias. By default we take the newest
# model version whose run names an Iceberg snapshot, or else the newest such run of our lessons.
import mlflow.data

from cmlflow import errors, options, reproduction, snapshots, store, workarea
from cmlflow.dataset import IcebergSource, training_dataset

EXPERIMENT = "reproductions"
LESSONS = ("keep-snapshot", "xgboost-fraud", "sparkml-experiment")

parser = options.parser()
number = options.whole_number(1)
parser.add_argument("--run-id", help="the run to repeat")
parser.add_argument("--model", help="or: the registered model to repeat")
parser.add_argument("--version", type=number, help="its version, 1 or more; by default the newest")
parser.add_argument("--alias", help="or one of its aliases, for example champion")
parser.add_argument("--trust", action="store_true", help="run the code of a run that is not yours")
args = vars(parser.parse_args())
trust = args.pop("trust")
chosen = {name: value for name, value in args.items() if value is not None}
reproduction.require_one_run(chosen, trust)
print("The run to repeat:", ", ".join(map(str, chosen.values())) or "the newest on a snapshot")

# %%
#
# Find it
# -------
# A run of 15_XGBoost_Distributed.py logs no code, so we do not take one unasked.
store.use_store()  # a local MLflow store on a laptop; CML brings its own
found = store.choose_run(
    **chosen,
    wanted=lambda run: (
        "num_workers" not in run.data.params
        and (training_dataset(run) or "iceberg_snapshot_id" in run.data.tags)
    ),
    experiments=LESSONS,
)
if found is None:
    raise reproduction.nothing_to_repeat(args["model"])
original, model_uri = found
run_id, tags = original.info.run_id, original.data.tags
print(f"{model_uri}: run {run_id} ({store.name(original)}) by {store.author(original)}")

# %%
#
# Its code
# --------
# The code is the text that the run logged, with the contract of 06_Spark_Iceberg.py. A verdict is
# worth something only if the libraries are those of the run: the model's requirements name them.
client = mlflow.MlflowClient()


def write_verdict(verdict, again=None):
    """Write the verdict down where the next reader looks: in the tags of both runs."""
    print(f"Verdict: {verdict}")
    with store.may_refuse("a verdict at the first run", instead="the line above"):
        client.set_tag(run_id, "reproduction_verdict", verdict)
        if again is not None:
            client.set_tag(run_id, "reproduction_run", again.info.run_id)
    if again is not None:
        client.set_tag(again.info.run_id, "reproduction_verdict", verdict)


reproduction.require_snapshot(original)
logged = {}
for uri in (f"runs:/{run_id}/training.py", f"{model_uri}/requirements.txt"):
    with reproduction.impossible_without(uri, write_verdict):
        logged[uri.rpartition("/")[2]] = mlflow.artifacts.load_text(uri)
training_code = logged["training.py"]
libraries = reproduction.compare_libraries(logged["requirements.txt"])
print(f"training.py, {len(training_code.splitlines())} lines:")
print("\n".join(f"  | {line}" for line in training_code.splitlines()[:6]))
print(f"Libraries then and now: {libraries}")
if not trust and not store.is_mine(original):
    raise reproduction.not_trusted(original, model_uri)

# %%
#
# Its rows and its scores
# -----------------------
# The dataset of the run leads to the rows. Where the store keeps no datasets, the tags do.
used = training_dataset(original)
source = mlflow.data.get_source(used) if used else IcebergSource.from_tags(tags)
try:
    rows = source.load().cache()
except errors.SnapshotNotFound:
    write_verdict(f"impossible: snapshot {source.snapshot_id} of {source.table} is not there")
    raise
with snapshots.readable(rows.sparkSession, source.table):
    row_count = rows.count()
print(f"{row_count} rows in snapshot {source.snapshot_id} of {source.table}")


def history(run):
    """Return all steps and values of a run's metrics, by name."""
    return {
        name: [(one.step, one.value) for one in client.get_metric_history(run.info.run_id, name)]
        for name in run.data.metrics
    }


first_metrics = history(original)

# %%
#
# Its model
# ---------
# Here the logged code starts to run. We load the model that the run has made and keep what it
# predicts for every row.
with reproduction.impossible_if_it_fails("in its code or its model", libraries, write_verdict):
    code = {}
    exec(compile(training_code, "training.py", "exec"), code)
    flavors = mlflow.models.get_model_info(model_uri).flavors
    if "spark" in flavors:
        spark_tmp = str(workarea.path("spark-tmp"))
        first_model = mlflow.spark.load_model(model_uri, dfs_tmpdir=spark_tmp)
    elif "xgboost" in flavors:
        first_model = mlflow.xgboost.load_model(model_uri)
    else:
        first_model = mlflow.sklearn.load_model(model_uri)
    first_predictions = code["predict"](first_model, rows)
first = reproduction.Training(reproduction.counted(original), first_metrics, first_predictions)
print(f"{len(first_predictions)} predictions of the first model")

# %%
#
# Train again
# -----------
# The run's own code, with the run's own params, on the run's own rows.
store.use_store(EXPERIMENT)
mlflow.end_run()  # close a run that an earlier cell left open
mlflow.set_experiment(EXPERIMENT)
with mlflow.start_run(run_name=f"again: {store.name(original)}") as again:
    snapshot = snapshots.by_id(rows.sparkSession, source.table, source.snapshot_id)
    increment = {"start_snapshot_id": source.start_snapshot_id, "row_count": row_count}
    mlflow.set_tags(snapshot.tags | {"row_count": row_count, "reproduction_of": run_id})
    if source.start_snapshot_id:
        mlflow.set_tag("iceberg_start_snapshot_id", source.start_snapshot_id)
    with store.may_refuse("a dataset", instead="the tags"):
        mlflow.log_input(mlflow.data.from_iceberg(rows, snapshot, **increment), context="training")
    mlflow.log_params(original.data.params)
    with reproduction.impossible_if_it_fails(
        "when it was trained again", libraries, lambda verdict: write_verdict(verdict, again)
    ):
        model, metrics = code["fit_and_score"](rows, original.data.params)
        predictions = code["predict"](model, rows)
    for name, value in metrics.items():
        for step, one in enumerate(value, start=1) if isinstance(value, list) else [(0, value)]:
            mlflow.log_metric(name, one, step=step)

# %%
#
# Compare, to the last bit
# ------------------------
# Everything must be equal, not nearly equal: the number of rows, each metric at each step as the
# store keeps it, and what the two models predict for every row of the snapshot.
second_metrics = history(mlflow.get_run(again.info.run_id))
second = reproduction.Training(row_count, second_metrics, predictions)
comparison = reproduction.compare(first, second)
print(comparison.to_string(index=False))
with store.may_refuse("a file of a finished run", instead="the table above"):
    mlflow.log_table(comparison.astype(str), "comparison.json", run_id=again.info.run_id)

# %%
#
# The verdict
# -----------
# The verdict is "identical" only if nothing differs, libraries included. It goes into the tags of
# both runs, so that it outlives this page.
verdict = reproduction.verdict_of(comparison, libraries)
write_verdict(verdict, again)
rows.sparkSession.stop()
table_page = store.how_to_open_ui(store.run_page(again, "artifacts/comparison.json"))
if verdict.startswith("different"):
    raise reproduction.not_repeated(verdict, libraries, f"To see what differs, open:  {table_page}")
print(
    f"Done: {verdict}: {row_count} rows, {len(comparison) - 2} metrics, "
    f"{len(predictions)} predictions (run {again.info.run_id})\n"
    f"Look at: Experiments > {EXPERIMENT}, comparison.json and the tag reproduction_verdict.\n"
    f"Open the UI: {table_page}"
)
