"""
21 - A new version behind the same endpoint, and back again

You learn  to replace what an endpoint serves, to prove which version answers, and to roll back
Reads      registered model "Auto-Deployed Model", data/wine-quality.csv
Writes     one more version of the model, the challenger, if there is none after the one that
           serves; the endpoint "wine-quality", which at the end serves what it served before
Needs      20_Deploy_Model.py; about 15 seconds, in CML 20 to 40 minutes
Run        python code/21_Redeploy_and_Roll_Back.py [--endpoint wine-quality]
"""

# %%
#
# What serves now?
# ----------------
# We ask the endpoint itself.
import shlex

import mlflow

from cmlflow import errors, options, registry, serving, store, workarea

parser = options.parser()
parser.add_argument("--endpoint", default="wine-quality", help="name of the endpoint")
args = parser.parse_args()

EXPERIMENT, REGISTERED_MODEL = "auto-registration", "Auto-Deployed Model"
store.use_store(EXPERIMENT)  # a local MLflow store on a laptop; CML brings its own
found = registry.require_versions(REGISTERED_MODEL)
mlflow.end_run()  # close a run that an earlier cell left open
mlflow.set_experiment(EXPERIMENT)
first = serving.deployed(args.endpoint)
if first is None or first.model != REGISTERED_MODEL:
    raise errors.MissingStep(
        f"No endpoint {args.endpoint!r} serves {REGISTERED_MODEL!r}.",
        "one that serves the champion",
        f"python code/20_Deploy_Model.py --endpoint {shlex.quote(args.endpoint)}",
    )
print(f"{args.endpoint} serves {first}")

# %%
#
# The rows of the proof
# ---------------------
# Fifty test wines. A version is served if the endpoint answers what that version itself predicts
# for all of them. Two versions with a different param differ on each of these wines.
import numpy as np
import pandas as pd
from sklearn.linear_model import ElasticNet
from sklearn.metrics import mean_squared_error
from sklearn.model_selection import train_test_split

DATA, TARGET = "data/wine-quality.csv", "quality"
wines = pd.read_csv(workarea.root() / DATA).astype("float64")
np.random.seed(40)  # the split of 05_Auto_Model_Registration.py
train, test = train_test_split(wines)
X_test, y_test = test.drop(columns=TARGET), test[TARGET]
fifty = X_test.head(50).reset_index(drop=True)
print(f"{len(fifty)} wines for the proof:\n{fifty.head(3).T.to_string()}")

# %%
#
# A new version
# -------------
# With a tenth of the penalty the model may use more columns. It becomes the **challenger**:
# proposed, not chosen. If a version that is newer than the one that serves is there already, we
# take it.
import sklearn
from mlflow.models import infer_signature

alpha, l1_ratio = float(mlflow.get_run(first.run_id).data.params["alpha"]) / 10, 0.6
second = found[0] if found[0].number > first.version else None
if second is None:
    X_train, y_train = train.drop(columns=TARGET), train[TARGET]
    model = ElasticNet(alpha=alpha, l1_ratio=l1_ratio, random_state=42).fit(X_train, y_train)
    predictions = model.predict(X_test)
    with mlflow.start_run(run_name="challenger") as run:
        mlflow.log_params({"alpha": alpha, "l1_ratio": l1_ratio})
        mlflow.log_metric("rmse", mean_squared_error(y_test, predictions) ** 0.5)
        mlflow.set_tags({"training_data": DATA, "registered_model": REGISTERED_MODEL})
        logged = mlflow.sklearn.log_model(
            model,
            "model",  # by position: this argument's name differs between MLflow 2 and 3
            signature=infer_signature(X_test, predictions),
            pip_requirements=[f"scikit-learn=={sklearn.__version__}"],
            serialization_format="cloudpickle",
            registered_model_name=REGISTERED_MODEL,
        )
    number = store.version_of(logged, run, REGISTERED_MODEL)
    second = registry.Version(REGISTERED_MODEL, number, run.info.run_id)
    with store.may_refuse("an alias", instead="the run's tags"):
        mlflow.MlflowClient().set_registered_model_alias(
            REGISTERED_MODEL, "challenger", str(second.number)
        )
    mlflow.MlflowClient().set_tag(second.run_id, "registered_alias", "challenger")
print(f"The new version: {second}")

# %%
#
# What each of them must answer
# -----------------------------
serving_now = registry.Version(REGISTERED_MODEL, first.version, first.run_id)
checks = {
    version.number: serving.Check(fifty, mlflow.pyfunc.load_model(version.uri).predict(fifty))
    for version in (serving_now, second)
}
apart = np.abs(checks[first.version].expected - checks[second.number].expected)
print(f"The two versions differ by {apart.min():.6f} to {apart.max():.6f} grades on these wines")
if apart.max() <= checks[second.number].tolerance:
    print("They predict the same, so the answers cannot tell which of them serves")


def prove(deployment):
    """Compare the endpoint's answers with those of the version that it says it serves."""
    predictions = serving.call(args.endpoint, fifty)
    largest = np.abs(predictions - checks[deployment.version].expected).max()
    if largest > checks[deployment.version].tolerance:
        raise errors.ServingError(
            f"{args.endpoint} says it serves {deployment}, but its answers differ by {largest}.",
            "the answers of that version",
            "To deploy the champion again, run:  python code/20_Deploy_Model.py",
        )
    print(f"Proof: {len(fifty)} answers of {deployment}, largest difference {largest:.1e}")


# %%
#
# Before
# ------
prove(first)

# %%
#
# Redeploy
# --------
# The name, the address and in CML the access key stay the same. The new version starts beside the
# old one, which is stopped only after the new one has answered these fifty wines correctly. If it
# never does, the old one still serves.
deployment = serving.deploy(args.endpoint, second, checks[second.number])
prove(deployment)

# %%
#
# Roll back
# ---------
# The endpoint remembers what it served before. Rolling back needs no new build.
back = serving.roll_back(args.endpoint, checks[first.version])
prove(back)
if back.run_id != first.run_id:
    raise errors.ServingError(
        f"{args.endpoint} went back to {back}.",
        f"what it served at the start: {first}",
        "To deploy the champion again, run:  python code/20_Deploy_Model.py",
    )
print(
    f"Done: {args.endpoint} served version {first.version}, then {deployment.version}, "
    f"then {back.version} again\n"
    f"Look at: {back.address}\n"
    "Next: python code/22_Promote_Model.py"
)
