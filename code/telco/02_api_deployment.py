"""
Telco 02 - An endpoint, and the proof that the right model answers

You learn  to register this run and no other, to deploy its version, and to ask what is served
Reads      MLflow experiment "xgb-telco"
Writes     a version of the registered model "CellTwrFail-CLF"; the endpoint of the same name: in
           CML a model deployment, on a laptop a process that answers until  make stop
Needs      telco/01_train_xgboost.py; about 10 seconds, in CML 10 to 20 minutes
Run        python code/telco/02_api_deployment.py
"""

# %%
#
# Which run?
# ----------
# The newest that may serve: one of 01_train_xgboost.py, or one that 05_api_redeployment.py has
# promoted. A run of 04 that nobody has judged may not. We find it by its tags, never by its place
# in a list.
import mlflow

from cmlflow import errors, options, registry, serving, store

EXPERIMENT, MODEL, ENDPOINT = "xgb-telco", "CellTwrFail-CLF", "CellTwrFail-CLF"

options.parser().parse_args()
store.use_store()  # a local MLflow store on a laptop; CML brings its own
found = [
    run
    for run in store.newest_first(store.runs_of([EXPERIMENT]))
    if store.status(run) == "FINISHED"
    and (
        run.data.tags.get("trained_by") == "code/telco/01_train_xgboost.py"
        or run.data.tags.get("gate.decision") == "promote"
    )
]
if not found:
    raise errors.MissingStep(
        f"The experiment {EXPERIMENT!r} has no run that may serve.",
        "a finished run of the first model",
        "python code/telco/01_train_xgboost.py",
    )
run_id = found[0].info.run_id
mlflow.end_run()  # close a run that an earlier cell left open
mlflow.set_experiment(EXPERIMENT)  # CML finds a run by its id only after this
print(f"To deploy: run {run_id} ({store.name(found[0])})")

# %%
#
# Register it, once
# -----------------
# A version belongs to one run. If this run has one already, we take that. The first proof: the
# registry itself says that the version is of this run.
version = registry.register_once(run_id, MODEL)
print(f"Proof 1: the registry says {version}")

# %%
#
# What must it answer?
# --------------------
# We ask with a hundred messages; any will do. The model itself says what the endpoint must answer:
# a probability for each, equal to the last digit.
from cmlflow import towers

probe = towers.messages(towers.Story(seed=7), [1]).head(100)[towers.FEATURES]
expected = mlflow.pyfunc.load_model(version.uri).predict(probe)
check = serving.Check(probe, expected, tolerance=1e-12)
print(f"{len(probe)} answers, from {expected.min():.3f} to {expected.max():.3f}")

# %%
#
# Deploy
# ------
# The new version starts beside what serves under this name, and takes the name only after it has
# answered all hundred messages correctly. If it serves already, nothing changes.
before = serving.deployed(ENDPOINT)
deployment = serving.deploy(ENDPOINT, version, check)
told = "served already" if before and before.run_id == run_id else "serves now"
print(f"{ENDPOINT} {told}: {deployment}")
if deployment.ends:
    print(f"It ends by itself at {deployment.ends.astimezone():%H:%M}, or with:  make stop")

# %%
#
# Is it the right one?
# --------------------
# Two more proofs: what serves says whose it is, and it answers as that run's model does.
import json

import numpy as np

serves = serving.deployed(ENDPOINT)
if serves is None or serves.run_id != run_id:
    raise errors.ServingError(
        f"The endpoint {ENDPOINT!r} says that it serves {serves}.",
        f"run {run_id}",
        "If nobody else deploys at this moment, run:  python code/telco/02_api_deployment.py",
    )
print(f"Proof 2: the endpoint says {serves}")
furthest = np.abs(serving.call(ENDPOINT, probe) - expected).max()
print(f"Proof 3: {len(probe)} answers, furthest from the model's own: {furthest:.1e}")

# %%
#
# The champion
# ------------
# The version that serves gets the alias, and its run the tag that says the same.
with store.may_refuse("an alias", instead="the tags of the runs"):
    client = mlflow.MlflowClient()
    client.set_registered_model_alias(MODEL, registry.CHAMPION, str(version.number))
registry.tag_champion(version, EXPERIMENT)
one = {"columns": towers.FEATURES, "data": probe.head(1).to_numpy().tolist()}
print(f"A request that it understands: {json.dumps({'dataframe_split': one})}")
print(
    f"Done: {ENDPOINT} {told} {serves}; its answers are the model's own\n"
    f"Look at: {serves.address}\n"
    "Next: python code/telco/03_newbatch.py"
)
