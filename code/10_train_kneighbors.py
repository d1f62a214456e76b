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
# Options that reach a job
# ------------------------
# The AMP (`.project-metadata.yaml`) runs this script as a CML job. A job may ignore arguments, so
# each option can also be set as an environment variable of the job: CMLFLOW_N_NEIGHBORS here.
from cmlflow import options, samples, store

parser = options.parser()
parser.add_argument(
    "--n-neighbors",
    type=options.whole_number(1, samples.TRAIN_ROWS),
    default=5,
    help=f"training rows that vote, 1 to {samples.TRAIN_ROWS}",
)
args = parser.parse_args()

# %%
#
# Fit and score
# -------------
# A row gets the class that most of its nearest training rows have. "Near" depends on units, so
# the scaler first gives all 20 features the same spread; it belongs to the model and is logged
# with it. The baseline is the best constant answer: the class that most training rows have.
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

X_train, X_test, y_train, y_test = samples.train_and_test()
model = make_pipeline(StandardScaler(), KNeighborsClassifier(n_neighbors=args.n_neighbors))
model.fit(X_train, y_train)
train_accuracy = model.score(X_train, y_train)
test_accuracy = model.score(X_test, y_test)
baseline_accuracy = (y_test == y_train.mode()[0]).mean()

# %%
#
# One run
# -------
# 11_train_random_forest.py logs to the same experiment with the same names of metrics: that is what
# makes runs comparable, here and in 12_Compare_Runs.py.
import mlflow
import sklearn
from mlflow.models import infer_signature

EXPERIMENT = "sklearn-classification"
store.use_store(EXPERIMENT)  # a local MLflow store on a laptop; CML brings its own
mlflow.end_run()  # close a run that an earlier cell left open
mlflow.set_experiment(EXPERIMENT)
with mlflow.start_run(run_name="kneighbors") as run:
    mlflow.log_params({"n_neighbors": args.n_neighbors, "train_rows": len(X_train)})
    mlflow.log_metrics(
        {
            "train_accuracy": train_accuracy,
            "test_accuracy": test_accuracy,
            "baseline_accuracy": baseline_accuracy,
        }
    )
    mlflow.sklearn.log_model(
        model,
        "model",  # by position: this argument's name differs between MLflow 2 and 3
        signature=infer_signature(X_test, model.predict(X_test)),
        input_example=X_test.head(3),
        pip_requirements=[f"scikit-learn=={sklearn.__version__}"],
        serialization_format="cloudpickle",
    )

# %%
#
# How good is that?
# -----------------
# With 5 neighbours 93 of 100 rows are right, in training and in test, where the constant answer
# gets 50. One neighbour alone scores 100 in training, since each training row is its own nearest,
# and 87 in test: never judge a model by the rows that it has seen.
print(
    f"Done: test accuracy {test_accuracy:.3f}, training {train_accuracy:.3f}; "
    f"always the same class: {baseline_accuracy:.3f} (run {run.info.run_id})\n"
    f"Look at: Experiments > {EXPERIMENT} > kneighbors, its metrics.\n"
    f"Open the UI: {store.how_to_open_ui()}"
)
