"""
04 - Score a batch with the newest logged model

You learn  pyfunc.load_model, the signature as a check, predictions that name their model
Reads      MLflow experiment "wine-quality-test", a CSV file with wines
Writes     data/predictions.csv
Needs      02_log_model.py; about 5 seconds
Run        python code/04_Predict_Batch.py [--batch FILE.csv] [--output FILE.csv]
"""

# %%
#
# Which model?
# ------------
# We take the newest finished run that has a model. We ask the store for it, so no id is pasted
# in here.
import mlflow

from cmlflow import batches, errors, options, store, workarea

parser = options.parser()
parser.add_argument("--batch", help="CSV file to score; default: the test wines of 02_log_model")
result = workarea.path("data", "predictions.csv")
parser.add_argument("--output", default=result, help="CSV file; default: data/predictions.csv")
args = parser.parse_args()

EXPERIMENT = "wine-quality-test"
store.use_store()  # a local MLflow store on a laptop; CML brings its own
client = mlflow.MlflowClient()
experiment = store.not_deleted(client.get_experiment_by_name(EXPERIMENT))
runs = []
if experiment is not None:
    mlflow.set_experiment(EXPERIMENT)  # CML finds a run by its id only after this
    runs = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time DESC"])
for run in store.newest_first(runs):
    if store.status(run) == "FINISHED" and client.list_artifacts(run.info.run_id, "model"):
        break
else:
    raise errors.MissingStep(
        f"No finished run of the experiment {EXPERIMENT!r} has a model ({len(runs)} runs).",
        "one run that logged a model",
        "python code/02_log_model.py",
    )
model_uri = f"runs:/{run.info.run_id}/model"
print(f"Model {model_uri} of run {store.name(run)}")

# %%
#
# What does the model take?
# -------------------------
# Its **signature** says so. The model refuses a batch that lacks one of these columns, or that
# has a text in one of them. It ignores columns that it does not know. `pyfunc` loads any model,
# whichever library made it.
with batches.loading(model_uri):
    model = mlflow.pyfunc.load_model(model_uri)
schema = batches.schema_of(model)
inputs = schema.input_names()
print(f"It takes {len(inputs)} columns: {', '.join(inputs)}")

# %%
#
# Which wines?
# ------------
# By default we score the 1,225 wines that 02_log_model.py kept for testing: the same seed gives
# the same split. Their grades are known, so we can check the predictions. In your own file the
# grades are optional. `batches.read` says which column of a file does not fit, and in which row.
import numpy as np
import pandas as pd
from mlflow.types import ColSpec, Schema
from sklearn.model_selection import train_test_split

source = workarea.root() / "data" / "wine-quality.csv"
output = batches.place_for(args.output, args.batch, source)
if args.batch is None:
    wines = pd.read_csv(source)
    np.random.seed(40)
    batch = train_test_split(wines)[1].reset_index(drop=True)
else:
    grade = ColSpec("double", "quality", required=False)
    batch = batches.read(args.batch, Schema([*schema.inputs, grade]))
print(f"{len(batch)} wines, the first ones:\n{batch.head(3).T.to_string()}")

# %%
#
# Score, and let each prediction name its model
# ---------------------------------------------
# Every row carries the run id and the model URI, so months later you can still tell which model
# made a prediction. Columns that the model does not know are carried over unchanged.
ours = ("prediction", "run_id", "model_uri")
unused = [name for name in batch if name not in (*inputs, *ours)]
if unused:
    print(f"Not used by the model: {', '.join(unused)}")
if replaced := [name for name in batch if name in ours]:
    print(f"Replaced by what this model says: {', '.join(replaced)}")
predictions = model.predict(batch[inputs].astype("float64"))
scored = batch.assign(prediction=predictions, run_id=run.info.run_id, model_uri=model_uri)
batches.write(scored, output)

# %%
#
# How good is that?
# -----------------
# Where grades are known, the rmse says how far the predictions are from them. For the test wines
# it must be the rmse that the run logged: it is the same model and the same rows.
checked = ""
if "quality" in batch and batch["quality"].notna().any():
    misses = batch["quality"] - predictions  # NaN where a grade is missing
    checked = f", rmse {(misses**2).mean() ** 0.5:.3f}"
    if args.batch is None and "rmse" in run.data.metrics:
        checked += f" (the run says {run.data.metrics['rmse']:.3f})"
print(
    f"Done: {len(scored)} predictions in {output}{checked}\n"
    "Look at: the last three columns of that file."
)
