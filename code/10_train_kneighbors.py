"""
10 - Train a nearest-neighbours classifier

You learn  how a job logs a run, with options that a CML job can set
Reads      nothing: the data are generated, always the same
Writes     MLflow experiment "sklearn-classification": one run with a model
Needs      nothing; about 5 seconds
Run        python code/10_train_kneighbors.py [--n-neighbors 5]
"""

# %%
#
# Data with two classes
# ---------------------
# We generate 1,000 rows with 20 features, and keep 250 of them for testing. You can set the option
# in two ways: on the command line, or as the environment variable CMLFLOW_N_NEIGHBORS. In a CML
# job use the variable, because a job may ignore its arguments.
from cmlflow import options, samples, store

parser = options.parser()
parser.add_argument(
    "--n-neighbors",
    type=options.whole_number(1, samples.TRAIN_ROWS),
    default=5,
    help=f"training rows that vote, 1 to {samples.TRAIN_ROWS}",
)
args = parser.parse_args()
X_train, X_test, y_train, y_test = samples.train_and_test()
print(f"{len(X_train)} training rows, {len(X_test)} test rows, {X_train.shape[1]} features")

# %%
#
# Fit and score
# -------------
# A row gets the class that most of its nearest training rows have. What is near depends on units,
# so a scaler first gives all features the same spread. It is part of the model and is logged with
# it. The **baseline** predicts the most frequent class of the training rows for every row.
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

model = make_pipeline(StandardScaler(), KNeighborsClassifier(n_neighbors=args.n_neighbors))
model.fit(X_train, y_train)
train_accuracy = model.score(X_train, y_train)
test_accuracy = model.score(X_test, y_test)
baseline_accuracy = (y_test == y_train.mode()[0]).mean()
noun = "neighbour" if args.n_neighbors == 1 else "neighbours"
print(f"{args.n_neighbors} {noun}: {test_accuracy:.3f}, baseline {baseline_accuracy:.3f}")

# %%
#
# One run
# -------
# 11_train_random_forest.py logs to the same experiment, and its metrics have the same names. This
# makes the runs comparable, in the UI and in 12_Compare_Runs.py.
import mlflow
import sklearn
from mlflow.models import infer_signature

EXPERIMENT = "sklearn-classification"
store.use_store(EXPERIMENT)  # a local MLflow store on a laptop; CML brings its own
mlflow.end_run()  # close a run that an earlier cell left open
mlflow.set_experiment(EXPERIMENT)
with mlflow.start_run(run_name="kneighbors") as run:
    mlflow.log_params({"n_neighbors": args.n_neighbors, "train_rows": len(X_train)})
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
# With 5 neighbours, 93 of 100 rows are right, among the training rows and among the test rows. The
# baseline gets 50. With `--n-neighbors 1` all training rows are right, because each of them is
# its own nearest neighbour, but only 87 of 100 test rows: never judge a model by rows it has seen.
print(
    f"Done: test accuracy {test_accuracy:.3f}, training {train_accuracy:.3f}, "
    f"baseline {baseline_accuracy:.3f} (run {run.info.run_id})\n"
    f"Look at: Experiments > {EXPERIMENT} > kneighbors, Model metrics.\n"
    f"Open the UI: {store.how_to_open_ui(store.run_page(run, 'model-metrics'))}"
)
