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
# Options that reach a job
# ------------------------
# As in 10_train_kneighbors.py: in a CML job, set CMLFLOW_MAX_DEPTH and CMLFLOW_N_ESTIMATORS.
from cmlflow import options, samples, store

parser = options.parser()
positive = options.whole_number(1)
parser.add_argument("--max-depth", type=positive, default=3, help="questions per tree, 1 or more")
parser.add_argument("--n-estimators", type=positive, default=20, help="trees, 1 or more")
args = parser.parse_args()

# %%
#
# Fit and score
# -------------
# Each tree asks up to `max_depth` questions about a row; the trees vote. Trees are grown with
# random numbers, so a seed is needed to get the same forest again. They need no scaler either;
# it stays, so that both models of the AMP take the same steps.
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

SEED = 123
X_train, X_test, y_train, y_test = samples.train_and_test()
forest = RandomForestClassifier(
    max_depth=args.max_depth, n_estimators=args.n_estimators, random_state=SEED
)
model = make_pipeline(StandardScaler(), forest).fit(X_train, y_train)
train_accuracy = model.score(X_train, y_train)
test_accuracy = model.score(X_test, y_test)
baseline_accuracy = (y_test == y_train.mode()[0]).mean()

# %%
#
# One run
# -------
# The same experiment, the same names of metrics, the same test rows as 10_train_kneighbors.py. A
# fair comparison needs all three.
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
# 92 of 100 test rows are right, where the constant answer gets 50: 230 of 250 rows, and 3 fewer
# than five nearest neighbours. On so few rows that is chance. What is not: with `--max-depth 12
# --n-estimators 80` it is 242. 12_Compare_Runs.py finds such values, without the test rows.
print(
    f"Done: test accuracy {test_accuracy:.3f}, training {train_accuracy:.3f}; "
    f"always the same class: {baseline_accuracy:.3f} (run {run.info.run_id})\n"
    f"Look at: Experiments > {EXPERIMENT} > random-forest, its metrics.\n"
    f"Open the UI: {store.how_to_open_ui()}"
)
