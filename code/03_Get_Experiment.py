"""
03 - Find an experiment, its runs and their artifacts

You learn  MlflowClient: get_experiment_by_name, search_runs, list_artifacts
Reads      MLflow experiment "wine-quality-test"
Writes     nothing
Needs      02_log_model.py; about 5 seconds
Run        python code/03_Get_Experiment.py [--experiment wine-quality-test]
"""

# %%
#
# An experiment by its name
# -------------------------
# Ids differ on every machine, names do not, so a script asks by name.
from datetime import datetime, timezone

import mlflow

from cmlflow import errors, options, store

WINES = "wine-quality-test"
parser = options.parser()
parser.add_argument("--experiment", default=WINES, help="name of an experiment")
args = parser.parse_args()

store.use_store()  # a local MLflow store on a laptop; CML brings its own
client = mlflow.MlflowClient()
experiment = store.not_deleted(client.get_experiment_by_name(args.experiment))
print(f"{args.experiment}: {experiment.lifecycle_stage if experiment else 'not there'}")

# %%
#
# What it says about itself
# -------------------------
# Some stores do not list their experiments, and some do not keep dates. The lesson goes on without
# either. Before we go on, `set_experiment` makes this experiment the active one: CML
# finds a run by its id only after that.


def nothing_found(found, expected):
    """Return the error that stops this lesson: only a missing lesson can be run first."""
    if args.experiment == WINES:
        return errors.MissingStep(found, expected, "python code/02_log_model.py")
    mine = "To see the runs of the lessons, run:  python code/03_Get_Experiment.py"
    return errors.BadInput(found, expected, mine)


if experiment is None:
    try:
        names = ", ".join(found.name for found in client.search_experiments()) or "none"
    except Exception as error:
        names = f"unknown, this store does not list them ({type(error).__name__})"
    raise nothing_found(f"There is no experiment {args.experiment!r}.", f"one that exists: {names}")
mlflow.set_experiment(args.experiment)
created = "not told by this store"
if experiment.creation_time:
    created = f"{datetime.fromtimestamp(experiment.creation_time / 1000, timezone.utc):%F %T} UTC"
print(f"name       {experiment.name}\nid         {experiment.experiment_id}")
print(f"artifacts  {experiment.artifact_location}\ncreated    {created}")

# %%
#
# Its runs, filtered and in an order
# ----------------------------------
# The filter leaves out runs without the metric, such as the one of 02_Log_Artifacts_Tags.py.
# Always give an order: without one, MLflow lists the newest run first and CML the oldest.
# Filtering and sorting happen on the server, so only the runs you want are sent, best first. Some
# managed stores silently ignore the filter or the order, and the "best" run could be any. So we
# filter and sort again in Python, which costs nothing.
found = client.search_runs(
    [experiment.experiment_id],
    filter_string="metrics.rmse >= 0",
    order_by=["metrics.rmse ASC", "attributes.start_time DESC"],
)
scored = [run for run in found if run.data.metrics.get("rmse", -1) >= 0]
runs = sorted(store.newest_first(scored), key=lambda run: run.data.metrics["rmse"])
if not runs:
    raise nothing_found(
        f"No run of {args.experiment!r} has the metric rmse.", "at least one run with a score"
    )
print(f"{'rmse':>8} {'alpha':>6} {'files':>6}  {'status':<9} run")
for run in runs:
    files = client.list_artifacts(run.info.run_id, "model")
    rmse, alpha = run.data.metrics["rmse"], run.data.params.get("alpha", "-")
    print(f"{rmse:8.4f} {alpha:>6} {len(files):>6}  {store.status(run):<9} {run.info.run_id}")

# %%
#
# Where models live
# -----------------
# In CML, `ls .experiments` in the session's terminal shows a folder for each experiment, and in it
# one for each run. MLflow 3 keeps models apart from runs, in `models/` beside them. You need to
# remember neither path: `runs:/<run id>/model` finds the model in both.
with_model = (
    run for run in store.newest_first(runs) if client.list_artifacts(run.info.run_id, "model")
)
newest = next(with_model, None)
if newest is None:
    print("No run has a model yet: python code/02_log_model.py logs one")
else:
    print(f"Files of runs:/{newest.info.run_id}/model")
    for file in client.list_artifacts(newest.info.run_id, "model"):
        print(f"  {file.path}  {file.file_size or 0} bytes")

# %%
#
# The best run
# ------------
# The best run has the lowest rmse, and is the newest among equals. "Best" holds for these test
# wines only: the more runs you compare on them, the more the winner owes to luck.
best = runs[0]
page = store.runs_page(experiment.experiment_id, lowest_first="rmse")
print(
    f"Done: best of {len(runs)} runs has rmse {best.data.metrics['rmse']:.3f} "
    f"(run {best.info.run_id})\n"
    f"Look at: Experiments > {args.experiment}; sort the runs by rmse, ascending.\n"
    f"Open the UI: {store.how_to_open_ui(page)}"
)
