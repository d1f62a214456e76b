"""
02 - Log the model too

You learn  log_model with signature, input example and pinned requirements
Reads      data/wine-quality.csv
Writes     MLflow experiment "wine-quality-test": one run with a model
Needs      nothing; about 5 seconds
Run        python code/02_log_model.py [--alpha 0.6] [--l1-ratio 0.6]
"""

# %%
#
# The same model as in 01_Experiment.py, with a little more penalty
# -----------------------------------------------------------------
# Data, split and scores are as before; the curve by training rows is left out. New are the last
# two cells: one logs the model, the other loads it back.
import pandas as pd

from cmlflow import options, store, workarea

parser = options.parser()
strength, share = options.number(0, 1000), options.number(0, 1)
parser.add_argument(
    "--alpha", type=strength, default=0.6, help="strength of the penalty, 0 to 1000"
)
parser.add_argument("--l1-ratio", type=share, default=0.6, help="share of the L1 penalty, 0 to 1")
args = parser.parse_args()

TARGET = "quality"
wines = pd.read_csv(workarea.root() / "data" / "wine-quality.csv").astype("float64")
print(f"{len(wines)} wines, graded {wines[TARGET].min():.0f} to {wines[TARGET].max():.0f}")

# %%
#
# The split, as before
# --------------------
import numpy as np
from sklearn.model_selection import train_test_split

np.random.seed(40)
train, test = train_test_split(wines)
X_train, y_train = train.drop(columns=TARGET), train[TARGET]
X_test, y_test = test.drop(columns=TARGET), test[TARGET]
print(f"{len(train)} wines train the model, {len(test)} test it")

# %%
#
# Fit and score, as before
# ------------------------
from sklearn.linear_model import ElasticNet
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

model = ElasticNet(alpha=args.alpha, l1_ratio=args.l1_ratio, random_state=42)
model.fit(X_train, y_train)
predictions = model.predict(X_test)
rmse = mean_squared_error(y_test, predictions) ** 0.5
baseline_rmse = mean_squared_error(y_test, np.full(len(y_test), y_train.mean())) ** 0.5
print(f"rmse {rmse:.3f}, baseline {baseline_rmse:.3f}")

# %%
#
# New: a model that others can load
# ---------------------------------
# - The **signature** names the input columns with their types. Anyone who scores with wrong columns
#   gets a message, not a wrong number.
# - The **input example** shows what a call looks like.
# - `pip_requirements` says what a server must install. Without it MLflow starts a second process
#   to find out, which takes seconds and may guess wrong.
#
# We pass `"model"` by position, because MLflow 2 and 3 name this argument differently, and MLflow 3
# warns that the old name is deprecated. It also warns of cloudpickle files: loading such a file
# runs code that is in it, so load only models that you or your registry made.
import mlflow
import sklearn
from mlflow.models import infer_signature

EXPERIMENT = "wine-quality-test"
store.use_store(EXPERIMENT)  # a local MLflow store on a laptop; CML brings its own
mlflow.end_run()  # close a run that an earlier cell left open
mlflow.set_experiment(EXPERIMENT)
with mlflow.start_run(run_name="elasticnet-with-model") as run:
    mlflow.log_params({"alpha": args.alpha, "l1_ratio": args.l1_ratio, "train_rows": len(train)})
    mlflow.log_metrics({"rmse": rmse, "baseline_rmse": baseline_rmse})
    mlflow.log_metric("mae", mean_absolute_error(y_test, predictions))
    mlflow.log_metric("r2", r2_score(y_test, predictions))
    mlflow.sklearn.log_model(
        model,
        "model",
        signature=infer_signature(X_test, predictions),
        input_example=X_test.head(3),
        pip_requirements=[f"scikit-learn=={sklearn.__version__}"],
        serialization_format="cloudpickle",
    )

# %%
#
# Load it back
# ------------
# `runs:/<run id>/model` finds the model from any process that uses the same store. The signature
# comes with it.
model_uri = f"runs:/{run.info.run_id}/model"
loaded = mlflow.pyfunc.load_model(model_uri)
difference = np.abs(loaded.predict(X_test) - predictions).max()
print(f"Largest difference to the fitted model's predictions: {difference}")
columns = loaded.metadata.get_input_schema().input_names()
print(f"It asks for {len(columns)} columns: {', '.join(columns)}")
print(
    f"Done: rmse {rmse:.3f}; baseline {baseline_rmse:.3f} (model {model_uri})\n"
    f"Look at: Experiments > {EXPERIMENT} > elasticnet-with-model > Artifacts: "
    "the files of the model.\n"
    f"Open the UI: {store.how_to_open_ui(store.run_page(run, 'artifacts/model'))}"
)
