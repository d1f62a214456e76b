"""
01 - Start a run, look at it, end it

You learn  create_experiment, set_experiment, start_run, active_run, end_run
Reads      data/wine-quality.csv
Writes     MLflow experiment "example-experiment": two runs
Needs      nothing; about 5 seconds
Run        python code/01_Active_Experiment.py, or Run All in a CML session
"""

# %%
#
# An experiment is a named set of runs
# ------------------------------------
# It is created once and found by its name from then on. `set_experiment` makes it the active one
# of this process, and creates it too if it is absent. Here `create_experiment` stands before it,
# since only that call can say where the artifacts go: on a laptop into the project, while in CML
# the platform decides (the location is then None).
import mlflow

from cmlflow import store, workarea

EXPERIMENT = "example-experiment"
store.use_store()  # a local MLflow store on a laptop; CML brings its own

location = store.artifact_location(EXPERIMENT)
try:
    mlflow.create_experiment(EXPERIMENT, artifact_location=location)
    print(f"Experiment {EXPERIMENT} created")
except Exception:  # the name is taken, from an earlier pass: use that experiment
    if mlflow.get_experiment_by_name(EXPERIMENT) is None:
        raise
    print(f"Experiment {EXPERIMENT} found")
experiment = mlflow.set_experiment(EXPERIMENT)

# %%
#
# A run: everything between start and end
# ---------------------------------------
# `start_run` opens a run, and every `log_...` call after it goes there. `active_run` tells which
# run that is, or None. Nothing closes it but `end_run`, or the end of the process, which would
# call the run finished even after an error. Hence the `except`: a run that failed says so.
import pandas as pd

wines = pd.read_csv(workarea.root() / "data" / "wine-quality.csv")

mlflow.end_run()  # close a run that an earlier cell left open
run = mlflow.start_run(run_name="by-hand")
try:
    mlflow.log_param("rows", len(wines))
    mlflow.log_metric("mean_quality", wines["quality"].mean())
    active = mlflow.active_run()
    status = active.info.status.removeprefix("EXPERIMENT_RUN_")  # CML puts this before it
    print(f"Active run {active.info.run_id}, status {status}")
    try:
        mlflow.start_run()
    except Exception as error:
        print(f"A second run now? {str(error).splitlines()[0]}")
except BaseException:
    mlflow.end_run("FAILED")
    raise
mlflow.end_run()
print(f"After end_run the active run is {mlflow.active_run()}")

# %%
#
# The same with `with`
# --------------------
# A run must end before the next one starts. `with` sees to it: it ends the run at the end of the
# block, as FINISHED, or as FAILED if an error left the block. All other lessons do it this way.
with mlflow.start_run(run_name="with-block") as second_run:
    mlflow.log_param("rows", len(wines))
    mlflow.log_metric("mean_quality", wines["quality"].mean())

# %%
#
# What has been stored
# --------------------
# The object that `start_run` returned is a picture of the run at its start. What has been logged
# since is in the store. `get_run` fetches it, and there both runs are over.
for run_id in (run.info.run_id, second_run.info.run_id):
    stored = mlflow.get_run(run_id)
    status = stored.info.status.removeprefix("EXPERIMENT_RUN_")
    name = stored.info.run_name or run_id  # not every platform keeps the name
    print(f"{name}: {status}, {stored.data.params}, {stored.data.metrics}")
print(
    f"Done: runs {run.info.run_id} and {second_run.info.run_id} in {EXPERIMENT}\n"
    f"Look at: Experiments > {EXPERIMENT}: two runs with the same numbers.\n"
    f"Open the UI: {store.how_to_open_ui()}"
)
