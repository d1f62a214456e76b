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
# All runs of an experiment as one table
# --------------------------------------
# `mlflow.search_runs` returns a pandas DataFrame: a row for each run, a column for each param,
# metric and tag that any of them has. A run without it has a gap there, since the models have
# different params. Only finished runs with a score are compared.
import mlflow
import pandas as pd

from cmlflow import errors, samples, store

COMPARED = "sklearn-classification"
PARAMS = ["params.n_neighbors", "params.max_depth", "params.n_estimators"]
METRICS = ["metrics.train_accuracy", "metrics.test_accuracy"]


def pick(runs, names):
    """Return these columns, empty where no run has one, under the last part of their names."""
    return runs.reindex(columns=names).rename(columns=lambda name: name.rpartition(".")[2])


store.use_store()  # a local MLflow store on a laptop; CML brings its own
experiment = mlflow.get_experiment_by_name(COMPARED)
runs = pd.DataFrame(columns=["status"])
if experiment is not None and experiment.lifecycle_stage == "active":
    mlflow.set_experiment(COMPARED)  # CML finds a run by its id only after this
    runs = mlflow.search_runs([experiment.experiment_id], order_by=["attributes.start_time DESC"])
status = runs["status"].astype(str).str.removeprefix("EXPERIMENT_RUN_")  # as CML writes it
finished = runs[status == "FINISHED"]
table = pick(finished, ["tags.mlflow.runName", *PARAMS, *METRICS, "run_id"])
table = table.dropna(subset="test_accuracy").sort_values(
    "test_accuracy", ascending=False, kind="stable"
)
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
# brighter the better. Two runs show little. After a dozen, with other options, you see which
# values the bright lines have in common. The UI draws the same for the runs that you tick.
from matplotlib import colormaps
from matplotlib.figure import Figure


def parallel_coordinates(table):
    """Draw the rows of a table, coloured by its last column; a row skips what it has not."""
    numbers = table.apply(pd.to_numeric).dropna(axis="columns", how="all")
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


# %%
#
# Keep the comparison
# -------------------
# It is a run too, with the table as an artifact. It goes into an experiment of its own: beside
# the runs that it compares, it would turn up in the next comparison.
EXPERIMENT = "sklearn-comparison"
store.use_store(EXPERIMENT)
mlflow.end_run()  # close a run that an earlier cell left open
mlflow.set_experiment(EXPERIMENT)
with mlflow.start_run(run_name="comparison") as comparison:
    mlflow.log_param("compared_experiment", COMPARED)
    mlflow.log_metrics({"runs": len(table), "best_test_accuracy": table["test_accuracy"].max()})
    mlflow.log_table(table, "compared_runs.json")
    figure = parallel_coordinates(table.drop(columns=["runName", "run_id"]))
    mlflow.log_figure(figure, "parallel_coordinates.png")

# %%
#
# A grid search that logs itself
# ------------------------------
# `autolog` makes `fit` log by itself. A grid search becomes a **parent run** with the best params,
# `cv_results.csv` and scores on the training rows, and a **child run** for each combination. What
# it costs: `log_models=True`, the default, adds 10 seconds or more here, because for each of two
# models a second process finds out the requirements. `max_tuning_runs` is 5 by default, and the
# sixth child would be missing. `log_post_training_metrics` would log each later score once more.
# Each combination is scored by three-fold cross-validation on the training rows. The test rows
# are asked once, for the winner. MLflow 2.19 warns that it does not know this scikit-learn.
import warnings

from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

X_train, X_test, y_train, y_test = samples.train_and_test()
MAX_DEPTH, N_ESTIMATORS = "forest__max_depth", "forest__n_estimators"
steps = [("scaler", StandardScaler()), ("forest", RandomForestClassifier(random_state=123))]
search = GridSearchCV(Pipeline(steps), {MAX_DEPTH: [3, 6, 12], N_ESTIMATORS: [20, 80]}, cv=3)
mlflow.sklearn.autolog(
    log_models=False, log_datasets=False, log_post_training_metrics=False, max_tuning_runs=6
)
try:
    with mlflow.start_run(run_name="grid-search") as parent, warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # autolog calls scikit-learn the old way
        search.fit(X_train, y_train)
        test_accuracy = search.score(X_test, y_test)
        baseline_accuracy = (y_test == y_train.mode()[0]).mean()
        mlflow.log_metrics({"test_accuracy": test_accuracy, "baseline_accuracy": baseline_accuracy})
finally:
    mlflow.sklearn.autolog(disable=True)  # a session goes on living, and would log every fit

# %%
#
# The children, found by their parent
# -----------------------------------
# Autolog names them at random, but each has the tag `mlflow.parentRunId`. CML lists them flat.
children = mlflow.search_runs(
    [parent.info.experiment_id],
    filter_string=f"tags.mlflow.parentRunId = '{parent.info.run_id}'",
    order_by=["attributes.start_time DESC"],
)
grid = pick(children, [f"params.{MAX_DEPTH}", f"params.{N_ESTIMATORS}", "metrics.mean_test_score"])
print(f"\n{grid.sort_values('mean_test_score', ascending=False).to_string(index=False)}")
mlflow.MlflowClient().log_figure(
    parent.info.run_id, parallel_coordinates(grid), "parallel_coordinates.png"
)

# %%
#
# How good is that?
# -----------------
# A depth of 3 is too little: cross-validation gives it 0.895 with 20 trees and 0.915 with 80, and
# all deeper forests 0.925 or more. Whether 6 or 12 is better, six numbers cannot tell. The winner
# is right for 242 of the 250 test rows (0.968), where the constant answer gets 126. Autolog's
# `training_` scores of it are all 1.0 and say nothing. To log it as a model:
# `python code/11_train_random_forest.py --max-depth 12 --n-estimators 80`. The first table compares
# by test rows: fine for two runs, but the best of a hundred would also be the luckiest.
print(
    f"Done: {len(table)} runs compared; grid search: test accuracy {test_accuracy:.3f} with "
    f"max_depth {search.best_params_[MAX_DEPTH]} and n_estimators "
    f"{search.best_params_[N_ESTIMATORS]} (run {parent.info.run_id})\n"
    f"Look at: Experiments > {EXPERIMENT}, comparison and the children of grid-search.\n"
    f"Open the UI: {store.how_to_open_ui()}"
)
