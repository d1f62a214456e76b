"""
05 - Log a model and register it in one call

You learn  registered_model_name, model versions, aliases
Reads      data/wine-quality.csv
Writes     MLflow experiment "auto-registration": one run; registered model "Auto-Deployed Model"
Needs      nothing; about 6 seconds
Run        python code/05_Auto_Model_Registration.py, or Run All in a CML session
"""

# %%
#
# The model of 02_log_model.py
# ----------------------------
# A registered model is a name under which model versions are numbered. Change it here.
import numpy as np
import pandas as pd
from sklearn.linear_model import ElasticNet
from sklearn.metrics import mean_squared_error
from sklearn.model_selection import train_test_split

from cmlflow import errors, store, workarea

REGISTERED_MODEL = "Auto-Deployed Model"
EXPERIMENT = "auto-registration"
TARGET = "quality"
ALPHA, L1_RATIO = 0.6, 0.6

wines = pd.read_csv(workarea.root() / "data" / "wine-quality.csv").astype("float64")
np.random.seed(40)
train, test = train_test_split(wines)
X_train, y_train = train.drop(columns=TARGET), train[TARGET]
X_test, y_test = test.drop(columns=TARGET), test[TARGET]
model = ElasticNet(alpha=ALPHA, l1_ratio=L1_RATIO, random_state=42).fit(X_train, y_train)
predictions = model.predict(X_test)
rmse = mean_squared_error(y_test, predictions) ** 0.5
baseline_rmse = mean_squared_error(y_test, np.full(len(y_test), y_train.mean())) ** 0.5

# %%
#
# Log and register
# ----------------
# One more argument to `log_model`, and each run of this script adds a version. The first creates
# the name. In CML this needs the AI Registry; the import into it goes on after the call.
import mlflow
import sklearn
from mlflow.models import infer_signature

store.use_store(EXPERIMENT)  # a local MLflow store on a laptop; CML brings its own
mlflow.end_run()  # close a run that an earlier cell left open
mlflow.set_experiment(EXPERIMENT)
with mlflow.start_run(run_name="registered") as run:
    mlflow.log_params({"alpha": ALPHA, "l1_ratio": L1_RATIO})
    mlflow.log_metrics({"rmse": rmse, "baseline_rmse": baseline_rmse})
    logged = mlflow.sklearn.log_model(
        model,
        "model",
        signature=infer_signature(X_test, predictions),
        pip_requirements=[f"scikit-learn=={sklearn.__version__}"],
        serialization_format="cloudpickle",
        registered_model_name=REGISTERED_MODEL,
    )
client = mlflow.MlflowClient()
version = logged.registered_model_version
if version is None:  # a managed store may not tell: ask for the version that this run made
    versions = client.search_model_versions(f"name = '{REGISTERED_MODEL}'")
    version = max(int(found.version) for found in versions if found.run_id == run.info.run_id)
print(f"Registered model {REGISTERED_MODEL!r}, version {version}")

# %%
#
# An alias: the version that others should use
# --------------------------------------------
# Whoever loads `models:/<name>@champion` gets the version that the alias points at. It moves with
# one call. Here every new version becomes champion unasked; a real project compares first. The
# run gets the same fact as tags, because a managed registry may have no aliases. A tag does not
# move by itself: we take it off the runs that were champion before.
try:
    client.set_registered_model_alias(REGISTERED_MODEL, "champion", version)
    model_uri = f"models:/{REGISTERED_MODEL}@champion"
    where = "its versions and the alias champion"
except Exception as error:
    print(f"No alias: this registry refused it ({type(error).__name__}); see the run's tags")
    model_uri = f"models:/{REGISTERED_MODEL}/{version}"
    where = "its versions; the tag registered_alias of the run says champion"
champion = {"registered_model": REGISTERED_MODEL, "registered_alias": "champion"}
for key, value in (champion | {"registered_version": str(version)}).items():
    client.set_tag(run.info.run_id, key, value)
try:
    tagged = client.search_runs([run.info.experiment_id], "tags.registered_alias = 'champion'")
    for other in tagged:  # some stores pass over the filter, so the tags are compared again
        earlier = other.info.start_time < run.info.start_time
        if earlier and champion.items() <= other.data.tags.items():
            client.delete_tag(other.info.run_id, "registered_alias")
except Exception as error:
    print(f"Earlier runs keep the tag champion ({type(error).__name__}): the newest run counts")

# %%
#
# The proof: load it back and compare
# -----------------------------------
try:
    loaded = mlflow.pyfunc.load_model(model_uri)
except Exception as error:  # a registry may keep its files where a session cannot read them
    print(f"{model_uri} could not be loaded here ({type(error).__name__}); taking the run's copy")
    model_uri = f"runs:/{run.info.run_id}/model"
    loaded = mlflow.pyfunc.load_model(model_uri)
if not np.array_equal(loaded.predict(X_test), predictions):
    raise errors.BadInput(
        f"{model_uri} predicts otherwise than the model that was registered.",
        f"version {version}, made by run {run.info.run_id}",
        "If another session registers at the same time, run this again:  "
        "python code/05_Auto_Model_Registration.py",
    )
print(
    f"Done: {model_uri} is version {version} and predicts the same for {len(X_test)} wines\n"
    f"Look at: Model registry > {REGISTERED_MODEL}, {where}.\n"
    f"Open the UI: {store.how_to_open_ui()}"
)
