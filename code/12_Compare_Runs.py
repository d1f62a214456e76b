"""
12 - Compare runs: a table, a figure, a grid search

You learn  mlflow.search_runs, log_table, parallel coordinates, sklearn.autolog, child runs
Reads      MLflow experiment "sklearn-classification"
Writes     MLflow experiment "sklearn-comparison": a run with table and figure, and a grid search
           of one parent and six child runs
Needs      10_train_kneighbors.py, better also 11_train_random_forest.py; about 10 seconds
Run        python code/12_Compare_Runs.py, or Run All in a CML session
"""

# %%
#
# All runs of an experiment
# -------------------------
# `mlflow.search_runs` returns a pandas DataFrame: a row for each run, a column for each param,
# metric and tag that any of the runs has.
import mlflow
import pandas as pd

from cmlflow import errors, options, samples, store

options.parser().parse_args()  # this lesson has no options: with --help it ends here
COMPARED = "sklearn-classification"
store.use_store()  # a local MLflow store on a laptop; CML brings its own
experiment = store.not_deleted(mlflow.get_experiment_by_name(COMPARED))
runs = pd.DataFrame(columns=["status"])
if experiment is not None:
    mlflow.set_experiment(COMPARED)  # CML finds a run by its id only after this
    runs = mlflow.search_runs([experiment.experiment_id], order_by=["attributes.start_time DESC"])
status = runs["status"].astype(str).str.removeprefix("EXPERIMENT_RUN_")  # as CML writes it
print(f"{len(runs)} runs in {COMPARED}, {(status == 'FINISHED').sum()} of them finished")

# %%
#
# The finished ones as one table, best first
# ------------------------------------------
# The models have different params, so a run has NaN where it lacks one. We print a dash there.
PARAMS = ["params.n_neighbors", "params.max_depth", "params.n_estimators"]
METRICS = ["metrics.train_accuracy", "metrics.test_accuracy"]


def pick(runs, names):
    """Return these columns, empty where no run has one, under the last part of their names."""
    return runs.reindex(columns=names).rename(columns=lambda name: name.rpartition(".")[2])


table = pick(runs[status == "FINISHED"], ["tags.mlflow.runName", *PARAMS, *METRICS, "run_id"])
table = table.dropna(subset="test_accuracy")
table = table.sort_values("test_accuracy", ascending=False, kind="stable")
if table.empty:
    raise errors.MissingStep(
        f"No finished run of the experiment {COMPARED!r} has the metric test_accuracy.",
        "at least one run; two kinds of model make a comparison",
        "python code/10_train_kneighbors.py",
    )
print(table.round(3).fillna("-").to_string(index=False))

# %%
#
# The same as a figure
# --------------------
# **Parallel coordinates**: an upright axis for each param and metric, a line for each run, the
# brighter the better. Two runs show little. After a dozen runs with other options you see which
# values the bright lines have in common. A param that is not a number leaves a gap in its line.
from matplotlib import colormaps
from matplotlib.figure import Figure


def parallel_coordinates(table):
    """Draw the rows of a table, coloured by its last column; a line skips what is no number."""
    numbers = table.apply(pd.to_numeric, errors="coerce").dropna(axis="columns", how="all")
    lowest, highest = numbers.min(), numbers.max()
    heights = (numbers - lowest) / (highest - lowest).replace(0, 1)
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    for _, row in heights.iterrows():
        known = row.notna().to_numpy().nonzero()[0]
        axes.plot(known, row.iloc[known], marker="o", color=colormaps["viridis"](row.iloc[-1]))
    labels = [f"{name}\n{lowest[name]:.4g} to {highest[name]:.4g}" for name in numbers]
    axes.set_xticks(range(len(labels)), labels)
    axes.set_yticks([0, 1], ["lowest", "highest"])
    axes.grid(axis="x")
    return figure


figure = parallel_coordinates(table.drop(columns=["runName", "run_id"]))
print(f"A figure with {len(table)} lines")

# %%
#
# Keep the comparison
# -------------------
# The comparison is a run too, with the table as an artifact. It goes to an experiment of its own,
# or it would turn up in the next comparison.
EXPERIMENT = "sklearn-comparison"
store.use_store(EXPERIMENT)
mlflow.end_run()  # close a run that an earlier cell left open
mlflow.set_experiment(EXPERIMENT)
with mlflow.start_run(run_name="comparison") as comparison:
    mlflow.log_param("compared_experiment", COMPARED)
    mlflow.log_metrics({"runs": len(table), "best_test_accuracy": table["test_accuracy"].max()})
    mlflow.log_table(table, "compared_runs.json")
    mlflow.log_figure(figure, "parallel_coordinates.png")
print(f"Logged run {comparison.info.run_id}")

# %%
#
# A grid search: every combination of some values
# -----------------------------------------------
# Six forests: three depths, each with 20 and with 80 trees. Each is scored by three-fold
# cross-validation on the training rows. The test rows are used only once, to score the winner.
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

MAX_DEPTH, TREES = "forest__max_depth", "forest__n_estimators"
X_train, X_test, y_train, y_test = samples.train_and_test()
baseline_accuracy = (y_test == y_train.mode()[0]).mean()
steps = [("scaler", StandardScaler()), ("forest", RandomForestClassifier(random_state=123))]
search = GridSearchCV(Pipeline(steps), {MAX_DEPTH: [3, 6, 12], TREES: [20, 80]}, cv=3)
print(f"\nGrid search on {len(X_train)} training rows: {search.param_grid}")

# %%
#
# It logs itself
# --------------
# With `autolog`, `fit` logs by itself. A grid search becomes a **parent run** with the best params
# and the scores on the training rows, and a **child run** for each combination. Four defaults do
# not suit us. `log_models=True` adds 10 seconds or more, because MLflow starts a second process
# to work out the requirements of each model. `max_tuning_runs` is 5, so the sixth child would be
# missing. `log_post_training_metrics` would log each later score a second time, and
# `log_datasets` would log a dataset for it. MLflow 2.19 warns that it does not know this version
# of scikit-learn.
import warnings

mlflow.sklearn.autolog(
    log_models=False, log_datasets=False, log_post_training_metrics=False, max_tuning_runs=6
)
try:
    with mlflow.start_run(run_name="grid-search") as parent, warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # autolog calls scikit-learn the old way
        search.fit(X_train, y_train)
        test_accuracy = search.score(X_test, y_test)
        mlflow.log_metrics({"test_accuracy": test_accuracy, "baseline_accuracy": baseline_accuracy})
finally:
    mlflow.sklearn.autolog(disable=True)  # or it would log every later fit of a session
best = search.best_params_
print(f"Best in cross-validation: depth {best[MAX_DEPTH]}, {best[TREES]} trees")

# %%
#
# The children get names
# ----------------------
# Each child has the id of its parent as the tag `mlflow.parentRunId`. Autolog gives them random
# names. The name of a run is a tag too, so we can set a better one afterwards.
client = mlflow.MlflowClient()
found = client.search_runs(
    [parent.info.experiment_id],
    filter_string=f"tags.mlflow.parentRunId = '{parent.info.run_id}'",
    order_by=["attributes.start_time DESC"],
)
children = [
    run for run in found if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id
]  # some stores ignore the filter
with store.may_refuse("names of child runs", instead="their params"):
    for run in children:
        depth, trees = run.data.params[MAX_DEPTH], run.data.params[TREES]
        client.set_tag(run.info.run_id, "mlflow.runName", f"depth {depth}, {trees} trees")
grid = pd.DataFrame(
    {
        "max_depth": [run.data.params[MAX_DEPTH] for run in children],
        "n_estimators": [run.data.params[TREES] for run in children],
        "mean_test_score": [run.data.metrics["mean_test_score"] for run in children],
    }
)
print(grid.sort_values("mean_test_score", ascending=False).to_string(index=False))
with store.may_refuse("a figure of a finished run", instead="the table above"):
    client.log_figure(parent.info.run_id, parallel_coordinates(grid), "parallel_coordinates.png")

# %%
#
# How good is that?
# -----------------
# A depth of 3 is too little: in cross-validation it gets 0.895 with 20 trees and 0.915 with 80,
# and all deeper forests get 0.925 or more. Six numbers cannot tell whether 6 or 12 is better. The
# winner is right for 242 of the 250 test rows (0.968), the baseline for 126. Autolog's
# `training_` scores are all 1.0, which says nothing about new rows. To log the winner as a model,
# run `python code/11_train_random_forest.py --max-depth 12 --n-estimators 80`. The first table
# sorts by the test rows. That is fine for two runs, but the best of a hundred would also be the
# luckiest. In the UI, [+] beside grid-search shows its children; CML lists them flat.
print(
    f"Done: {len(table)} runs compared; grid search: test accuracy {test_accuracy:.3f} with "
    f"max_depth {best[MAX_DEPTH]} and n_estimators {best[TREES]}, baseline "
    f"{baseline_accuracy:.3f} (run {parent.info.run_id})\n"
    f"Look at: Experiments > {EXPERIMENT}, [+] beside grid-search: its children.\n"
    f"Open the UI: {store.how_to_open_ui(store.runs_page(parent.info.experiment_id))}"
)
