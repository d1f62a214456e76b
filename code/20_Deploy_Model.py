"""
20 - Deploy the champion: a model that answers over HTTP

You learn  an endpoint, the request that it takes, what it answers to a wrong one, and the proof
           that the right version answers
Reads      registered model "Auto-Deployed Model", data/wine-quality.csv
Writes     the endpoint "wine-quality": in CML a model deployment in the project PRD, on a laptop a
           process that answers on 127.0.0.1 until  make stop
Needs      05_Auto_Model_Registration.py; about 10 seconds, in CML 10 to 20 minutes
Run        python code/20_Deploy_Model.py [--endpoint wine-quality]
"""

# %%
#
# Which version?
# --------------
# An endpoint serves one version of a registered model. We take the champion: the version to which
# the alias points, or, in a registry without aliases, the one whose run has the tag.
import mlflow

from cmlflow import errors, options, registry, serving, store

parser = options.parser()
parser.add_argument("--endpoint", default="wine-quality", help="name of the endpoint")
args = parser.parse_args()

EXPERIMENT, REGISTERED_MODEL = "auto-registration", "Auto-Deployed Model"
store.use_store()  # a local MLflow store on a laptop; CML brings its own
registry.require_versions(REGISTERED_MODEL)
mlflow.set_experiment(EXPERIMENT)  # CML finds a run by its id only after this
champion = registry.champion(REGISTERED_MODEL, EXPERIMENT)
if champion is None:
    raise errors.MissingStep(
        f"The registered model {REGISTERED_MODEL!r} has no champion.",
        "a version with the alias champion, or a run with the tag registered_alias",
        registry.REGISTER,
    )
print(f"To deploy: {champion}")

# %%
#
# What must it answer?
# --------------------
# We send one wine, its columns in alphabetical order. The model itself says what the endpoint must
# answer: we load it and let it predict. The true grade of this wine is 8. The model guesses nearer
# to the mean: it knows that the wine is better than most, not how much.
import pandas as pd

wine = {
    "alcohol": 12.8,
    "chlorides": 0.029,
    "citric acid": 0.48,
    "density": 0.98,
    "fixed acidity": 6.2,
    "free sulfur dioxide": 29.0,
    "pH": 3.33,
    "residual sugar": 1.2,
    "sulphates": 0.39,
    "total sulfur dioxide": 75.0,
    "volatile acidity": 0.66,
}
rows, TRUE_GRADE = pd.DataFrame([wine]), 8
model = mlflow.pyfunc.load_model(champion.uri)
expected = model.predict(rows)
print(f"The model itself predicts {expected[0]:.12f}; the true grade is {TRUE_GRADE}")

# %%
#
# Deploy
# ------
# In CML this takes the steps that you would click: find or create the project PRD, a model for the
# registered model, a build of this version, a deployment of that build; then wait for each. On a
# laptop MLflow's own scoring server starts in a process of its own. If another version serves
# under this name, it keeps serving until the new one has answered this wine correctly.
check = serving.Check(rows, expected)
deployment = serving.deploy(args.endpoint, champion, check)
print(f"The endpoint {args.endpoint!r} serves {deployment}")
print(f"It answers at {deployment.address}")
if deployment.ends:
    print(f"It ends by itself at {deployment.ends.astimezone():%H:%M}, or with:  make stop")

# %%
#
# Call it
# -------
# The request is MLflow's scoring JSON. In CML it is sent to the model service, inside
# `{"accessKey": ..., "request": ...}`. All digits of the prediction must be the model's own.
import json

payload = {"dataframe_split": {"columns": list(wine), "data": [list(wine.values())]}}
answer = serving.send(args.endpoint, payload)
(prediction,) = answer.predictions()
print(f"Request: {json.dumps(payload)}")
print(f"Answer: {answer.status}, prediction {prediction:.12f}")
if abs(prediction - expected[0]) > check.tolerance:
    raise errors.ServingError(
        f"The endpoint {args.endpoint!r} predicts {prediction!r}.",
        f"what {champion} predicts: {float(expected[0])!r}",
        "To see what it serves, run this lesson again",
    )

# %%
#
# Four other requests
# -------------------
# The signature, logged with the model, is checked for every request. Without the wrapper the server
# cannot tell what it got. A missing column and a text are refused by name. Another order of
# the columns is no error: the signature puts them in order, so the prediction is the same.
columns, values = list(wine), list(wine.values())
reverse = {"columns": columns[::-1], "data": [values[::-1]]}
requests = {
    "no wrapper": {"columns": columns, "data": [values]},
    "a missing column": {"dataframe_split": {"columns": columns[1:], "data": [values[1:]]}},
    "text in a number": {"dataframe_split": {"columns": columns, "data": [["dry", *values[1:]]]}},
    "another order": {"dataframe_split": reverse},
}
for what, request in requests.items():
    answer = serving.send(args.endpoint, request)
    try:
        told = f"prediction {answer.predictions()[0]:.12f}"
    except errors.ServingError:
        told = answer.message
    print(f"{what + ':':18} {answer.status} {told}")

# %%
#
# What serves now?
# ----------------
# Not what we meant to deploy, but what the endpoint itself says.
serves = serving.deployed(args.endpoint)
print(
    f"Done: {args.endpoint} serves {serves}: {prediction:.6f}, as the model itself predicts\n"
    f"Look at: {serves.address}\n"
    "Next: python code/21_Redeploy_and_Roll_Back.py"
)
