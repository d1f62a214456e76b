"""
05 - Log a model and register it in one call

You learn  registered_model_name, model versions, aliases
Reads      data/wine-quality.csv
Writes     MLflow experiment "auto-registration": one run; registered model "Auto-Deployed Model"
Needs      in CML the AI Registry, or the model is logged only; about 6 seconds
Run        python code/05_Auto_Model_Registration.py [--alpha 0.6] [--l1-ratio 0.6]
           [--alias champion]
"""

# %%
#
# The model of 02_log_model.py
# ----------------------------
# We train it again: the same wines, the same split, the same rmse. The baseline predicts the mean
# grade of the training wines for every test wine.
import numpy as np
import pandas as pd
from sklearn.linear_model import ElasticNet
from sklearn.metrics import mean_squared_error
from sklearn.model_selection import train_test_split

from cmlflow import errors, options, registry, store, workarea

parser = options.parser()
help_alpha = "strength of the penalty, 0 or more"
parser.add_argument("--alpha", type=options.number(0), default=0.6, help=help_alpha)
help_l1 = "share of L1 in the penalty, from 0 to 1"
parser.add_argument("--l1-ratio", type=options.number(0, 1), default=0.6, help=help_l1)
help_alias = "the new version becomes champion, or challenger: it is only proposed"
aliases = ("champion", "challenger")
parser.add_argument("--alias", choices=aliases, default="champion", help=help_alias)
args = parser.parse_args()
DATA, TARGET = "data/wine-quality.csv", "quality"

wines = pd.read_csv(workarea.root() / DATA).astype("float64")
np.random.seed(40)
train, test = train_test_split(wines)
X_train, y_train = train.drop(columns=TARGET), train[TARGET]
X_test, y_test = test.drop(columns=TARGET), test[TARGET]
model = ElasticNet(alpha=args.alpha, l1_ratio=args.l1_ratio, random_state=42).fit(X_train, y_train)
predictions = model.predict(X_test)
rmse = mean_squared_error(y_test, predictions) ** 0.5
baseline_rmse = mean_squared_error(y_test, np.full(len(y_test), y_train.mean())) ** 0.5
print(f"{len(test)} test wines: rmse {rmse:.3f}, baseline {baseline_rmse:.3f}")

# %%
#
# Log and register
# ----------------
# A **registered model** is a name under which **model versions** are numbered. One more argument
# to `log_model`, and each run of this lesson adds a version; the first run creates the name. In
# CML an administrator must have enabled the AI Registry. Without it the model is only logged.
import mlflow
import sklearn
from mlflow.models import infer_signature

EXPERIMENT = "auto-registration"
REGISTERED_MODEL = "Auto-Deployed Model"
store.use_store(EXPERIMENT)  # a local MLflow store on a laptop; CML brings its own
mlflow.end_run()  # close a run that an earlier cell left open
mlflow.set_experiment(EXPERIMENT)
version = None
with mlflow.start_run(run_name="registered") as run:
    mlflow.log_params({"alpha": args.alpha, "l1_ratio": args.l1_ratio})
    mlflow.log_metrics({"rmse": rmse, "baseline_rmse": baseline_rmse})
    mlflow.set_tag("training_data", DATA)
    with store.may_refuse("a model version", instead="the run; the AI Registry must be enabled"):
        logged = mlflow.sklearn.log_model(
            model,
            "model",  # by position: this argument's name differs between MLflow 2 and 3
            signature=infer_signature(X_test, predictions),
            pip_requirements=[f"scikit-learn=={sklearn.__version__}"],
            serialization_format="cloudpickle",
            registered_model_name=REGISTERED_MODEL,
        )
        version = store.version_of(logged, run, REGISTERED_MODEL)
    if version is None:  # an error here means that the model was not even logged
        mlflow.models.get_model_info(f"runs:/{run.info.run_id}/model")
print(f"Registered model {REGISTERED_MODEL!r}, version {version}" if version else "Logged only")

# %%
#
# An alias: the version that others should use
# --------------------------------------------
# An **alias** is a name that points at one version. `models:/<name>@champion` loads the version
# that it points at now, and one call moves it. Here every new version becomes champion
# automatically; a real project compares first, as 22_Promote_Model.py does. The version also gets
# the tag that names the data.
client = mlflow.MlflowClient()
model_uri, where = f"runs:/{run.info.run_id}/model", f"Experiments > {EXPERIMENT} > registered"
page, shown = store.run_page(run), f"; the tag registered_alias of the run says {args.alias}"
if version:
    model_uri = f"models:/{REGISTERED_MODEL}/{version}"
    where = f"Model registry > {REGISTERED_MODEL} > Version {version}"
    page = store.model_page(REGISTERED_MODEL, version)
    with store.may_refuse("a tag of the version", instead="the run's tags"):
        client.set_model_version_tag(REGISTERED_MODEL, str(version), "training_data", DATA)
    with store.may_refuse("an alias", instead="the run's tags"):
        client.set_registered_model_alias(REGISTERED_MODEL, args.alias, str(version))
        model_uri = f"models:/{REGISTERED_MODEL}@{args.alias}"
        shown = f", its alias {args.alias} and its schema"
print(f"The {args.alias} is {model_uri}")

# %%
#
# The same as tags of the run
# ---------------------------
# A managed registry may have no aliases, so the run says it too. Tags do not move, so we remove
# the tag from earlier runs.
tags = {"registered_model": REGISTERED_MODEL, "registered_version": str(version or "none")}
for key, value in (tags | {"registered_alias": args.alias}).items():
    client.set_tag(run.info.run_id, key, value)
with store.may_refuse("removal of the tag from earlier runs", instead="the newest run"):
    for other in registry.tagged(REGISTERED_MODEL, EXPERIMENT, args.alias):
        if other.info.start_time < run.info.start_time:
            client.delete_tag(other.info.run_id, "registered_alias")
            print(f"Run {other.info.run_id} is no longer the {args.alias}")

# %%
#
# The proof: load it back and compare
# -----------------------------------
# A registry may keep its files where a session cannot read them: then we load the run's copy.
loaded = None
with store.may_refuse(f"files of {model_uri}", instead="the run's copy of the model"):
    loaded = mlflow.pyfunc.load_model(model_uri)
if loaded is None:
    model_uri = f"runs:/{run.info.run_id}/model"
    loaded = mlflow.pyfunc.load_model(model_uri)
if not np.array_equal(loaded.predict(X_test), predictions):
    raise errors.LessonError(
        f"{model_uri} does not predict what the model of run {run.info.run_id} predicts.",
        "the same predictions, unless another session registered a model at the same time",
        "To try again, run:  python code/05_Auto_Model_Registration.py",
    )
what = f"version {version}" if version else "not registered"
print(
    f"Done: {model_uri} is {what} and predicts the same for {len(X_test)} wines\n"
    f"Look at: {where}{shown}.\n"
    f"Open the UI: {store.how_to_open_ui(page)}"
)
