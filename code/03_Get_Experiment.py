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
# Ids differ on every machine. Names do not, so a script asks by name.
from datetime import datetime, timezone

import mlflow

from cmlflow import errors, options, store

parser = options.parser()
parser.add_argument("--experiment", default="wine-quality-test", help="name of an experiment")
args = parser.parse_args()

store.use_store()  # a local MLflow store on a laptop; CML brings its own
client = mlflow.MlflowClient()
experiment = client.get_experiment_by_name(args.experiment)
if experiment is None:
    try:
        names = ", ".join(found.name for found in client.search_experiments()) or "none"
    except Exception as error:  # a managed store may not be able to list them
        names = f"unknown, this store does not list them ({type(error).__name__})"
    raise errors.MissingStep(
        f"There is no experiment {args.experiment!r}.",
        f"one that exists: {names}",
        "python code/02_log_model.py",
    )
mlflow.set_experiment(args.experiment)  # CML finds a run by its id only after this

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
# Always give an order: without one, MLflow lists the newest run first and CML the oldest. The
# server filters and sorts so that only the wanted runs travel, the best of them first. Some
# managed stores pass over a filter or an order without a word, and then the "best" run would be
# any run. So we filter and sort what came once more in Python, where it costs nothing. CML writes
# `EXPERIMENT_RUN_FINISHED` where MLflow writes `FINISHED`; we take the prefix off.
found = client.search_runs(
    [experiment.experiment_id],
    filter_string="metrics.rmse > 0",
    order_by=["metrics.rmse ASC", "attributes.start_time DESC"],
)
runs = sorted(
    (run for run in found if run.data.metrics.get("rmse", 0) > 0),
    key=lambda run: (run.data.metrics["rmse"], -run.info.start_time),
)
if not runs:
    raise errors.MissingStep(
        f"No run of {args.experiment!r} has the metric rmse.",
        "at least one run with a score",
        "python code/02_log_model.py",
    )
print(f"\n{'rmse':>8} {'alpha':>6} {'files':>6}  {'status':<9} run")
for run in runs:
    files = client.list_artifacts(run.info.run_id, "model")
    status = run.info.status.removeprefix("EXPERIMENT_RUN_")
    rmse, alpha = run.data.metrics["rmse"], run.data.params.get("alpha", "-")
    print(f"{rmse:8.4f} {alpha:>6} {len(files):>6}  {status:<9} {run.info.run_id}")
best = runs[0]

# %%
#
# Where models live
# -----------------
# In CML, `ls .experiments` in the session's terminal shows a folder for each experiment, and in it
# one for each run. MLflow 3 keeps models apart from runs, in `models/` beside them. Neither path
# is worth remembering: `runs:/<run id>/model` finds the model in both.
newest_with_model = max(
    (run for run in runs if client.list_artifacts(run.info.run_id, "model")),
    key=lambda run: run.info.start_time,
    default=None,
)
if newest_with_model is None:
    print("\nNo run has a model yet: python code/02_log_model.py logs one")
else:
    model_run_id = newest_with_model.info.run_id
    print(f"\nFiles of runs:/{model_run_id}/model")
    for file in client.list_artifacts(model_run_id, "model"):
        print(f"  {file.path}  {file.file_size or 0} bytes")

# %%
#
# The best run
# ------------
# Lowest rmse, and the newest among equals. "Best" holds for these test wines only: the more runs
# you compare on them, the more the winner owes to luck.
print(
    f"Done: best of {len(runs)} runs has rmse {best.data.metrics['rmse']:.3f} "
    f"(run {best.info.run_id})\n"
    f"Look at: Experiments > {args.experiment}, sorted by rmse.\n"
    f"Open the UI: {store.how_to_open_ui()}"
)
