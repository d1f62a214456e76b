"""
11 - Train a random forest

You learn  how a second kind of model becomes comparable with the first
Reads      nothing: the data are generated, always the same
Writes     MLflow experiment "sklearn-classification": one run with a model
Needs      nothing; about 5 seconds
Run        python code/11_train_random_forest.py [--max-depth 3] [--n-estimators 20]
"""

# %%
#
# The same rows as in 10_train_kneighbors.py
# ------------------------------------------
# A comparison is fair only if both models learn from the same rows and are tested on the same
# rows. In a CML job, set CMLFLOW_MAX_DEPTH and CMLFLOW_N_ESTIMATORS.
from cmlflow import options, samples, store

MOST_DEPTH, MOST_TREES = 100, 1000
parser = options.parser()
parser.add_argument(
    "--max-depth",
    type=options.whole_number(1, MOST_DEPTH),
    default=3,
    help=f"questions per tree, 1 to {MOST_DEPTH}",
)
parser.add_argument(
    "--n-estimators",
    type=options.whole_number(1, MOST_TREES),
    default=20,
    help=f"trees, 1 to {MOST_TREES}",
)
args = parser.parse_args()
X_train, X_test, y_train, y_test = samples.train_and_test()
print(f"{len(X_train)} training rows, {len(X_test)} test rows, {X_train.shape[1]} features")

# %%
#
# Fit and score
# -------------
# Each tree asks up to `max_depth` questions about a row, and the trees vote. Growing a tree takes
# random numbers, so we set a seed to get the same forest again. A forest does not need the
# scaler. We keep it, so that both lessons take the same steps.
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

SEED = 123
forest = RandomForestClassifier(
    max_depth=args.max_depth, n_estimators=args.n_estimators, random_state=SEED
)
model = make_pipeline(StandardScaler(), forest).fit(X_train, y_train)
train_accuracy = model.score(X_train, y_train)
test_accuracy = model.score(X_test, y_test)
baseline_accuracy = (y_test == y_train.mode()[0]).mean()
print(f"{args.n_estimators} trees: {test_accuracy:.3f}, baseline {baseline_accuracy:.3f}")

# %%
#
# One run
# -------
# The run goes to the same experiment, and its metrics have the same names.
import mlflow
import sklearn
from mlflow.models import infer_signature

EXPERIMENT = "sklearn-classification"
store.use_store(EXPERIMENT)  # a local MLflow store on a laptop; CML brings its own
mlflow.end_run()  # close a run that an earlier cell left open
mlflow.set_experiment(EXPERIMENT)
with mlflow.start_run(run_name="random-forest") as run:
    mlflow.log_params({"max_depth": args.max_depth, "n_estimators": args.n_estimators})
    mlflow.log_params({"seed": SEED, "train_rows": len(X_train)})
    mlflow.log_metrics({"train_accuracy": train_accuracy, "test_accuracy": test_accuracy})
    mlflow.log_metric("baseline_accuracy", baseline_accuracy)
    mlflow.sklearn.log_model(
        model,
        "model",  # by position: this argument's name differs between MLflow 2 and 3
        signature=infer_signature(X_test, model.predict(X_test)),
        input_example=X_test.head(3),
        pip_requirements=[f"scikit-learn=={sklearn.__version__}"],
        serialization_format="cloudpickle",
    )
print(f"Logged run {run.info.run_id}")

# %%
#
# How good is that?
# -----------------
# 230 of 250 test rows are right (92 of 100), where the baseline gets 50 of 100. Five nearest
# neighbours get 233: with so few rows, a difference of 3 is within chance. A larger difference is
# not: `--max-depth 12 --n-estimators 80` gets 242. 12_Compare_Runs.py finds such values without
# looking at the test rows. It also shows all runs of this experiment side by side, as you can in
# the UI: tick two runs, click Compare, and scroll down to Metrics.
print(
    f"Done: test accuracy {test_accuracy:.3f}, training {train_accuracy:.3f}, "
    f"baseline {baseline_accuracy:.3f} (run {run.info.run_id})\n"
    f"Look at: Experiments > {EXPERIMENT} > random-forest, Model metrics.\n"
    f"Open the UI: {store.how_to_open_ui(store.run_page(run, 'model-metrics'))}"
)
