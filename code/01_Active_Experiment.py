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
# You create an experiment once and find it by its name from then on. `set_experiment` makes it the
# active one of this process; if it does not exist, `set_experiment` creates it. We call
# `create_experiment` first, because only that call can say where the artifacts go. On a laptop
# they go into the project. In CML the platform decides, and the location is None.
import mlflow

from cmlflow import options, store, workarea

options.parser().parse_args()  # this lesson has no options, but answers to --help
EXPERIMENT = "example-experiment"
store.use_store()  # a local MLflow store on a laptop; CML brings its own

location = store.artifact_location(EXPERIMENT)
try:
    mlflow.create_experiment(EXPERIMENT, artifact_location=location)
    print(f"Experiment {EXPERIMENT} created")
except Exception:  # the name is taken, usually by an earlier pass: then we use that experiment
    if store.not_deleted(mlflow.get_experiment_by_name(EXPERIMENT)) is None:
        raise
    print(f"Experiment {EXPERIMENT} found")
experiment = mlflow.set_experiment(EXPERIMENT)

# %%
#
# A run: everything between start and end
# ---------------------------------------
# `start_run` opens a run, and every `log_...` call after it goes to that run. `active_run` returns
# the open run, or None. A run stays open until you call `end_run` or the process ends, and MLflow
# then marks it as finished, even after an error. The `except` below marks it as failed. That also
# works when the process is stopped from outside, by the end of a job or a closed terminal, because
# `store.use_store` turns such a signal into an error (see `store.end_run_when_stopped`).
import pandas as pd

wines = pd.read_csv(workarea.root() / "data" / "wine-quality.csv")

mlflow.end_run()  # close a run that an earlier cell left open
run = mlflow.start_run(run_name="by-hand")
try:
    mlflow.log_param("rows", len(wines))
    mlflow.log_metric("mean_quality", wines["quality"].mean())
    active = mlflow.active_run()
    print(f"Active run {active.info.run_id}, status {store.status(active)}")
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
# You must end a run before you start the next one. `with` does that for you: at the end of the
# block it marks the run as FINISHED, or as FAILED if an error left the block. All other lessons
# use `with`.
with mlflow.start_run(run_name="with-block") as second_run:
    mlflow.log_param("rows", len(wines))
    mlflow.log_metric("mean_quality", wines["quality"].mean())
print(f"After the block the active run is {mlflow.active_run()}")

# %%
#
# What the store keeps
# --------------------
# The object that `start_run` returned shows the run as it was at its start. Everything logged since
# is in the store. `get_run` fetches it from there, and both runs are finished.
for run_id in (run.info.run_id, second_run.info.run_id):
    stored = mlflow.get_run(run_id)
    print(f"{store.name(stored)}: {store.status(stored)}, {stored.data.params}, ", end="")
    print(stored.data.metrics)
print(
    f"Done: runs {run.info.run_id} and {second_run.info.run_id} in {EXPERIMENT}\n"
    f"Look at: Experiments > {EXPERIMENT}, two runs; the chart icon above the list shows that "
    "mean_quality is 5.88 in both.\n"
    f"Open the UI: {store.how_to_open_ui(store.runs_page(experiment.experiment_id))}"
)
