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
# The newest finished run that has a model. It is found by asking, not by an id pasted in here.
import argparse
from pathlib import Path

import mlflow

from cmlflow import options, workarea

parser = argparse.ArgumentParser(allow_abbrev=False, exit_on_error=False)
parser.add_argument("--batch", type=Path, help="CSV file; default: the test wines of 02_log_model")
parser.add_argument("--output", type=Path, help="default: data/predictions.csv")
args = options.parse(parser)

EXPERIMENT = "wine-quality-test"
workarea.use_store()  # a local MLflow store on a laptop; CML brings its own
client = mlflow.MlflowClient()
experiment = client.get_experiment_by_name(EXPERIMENT)
runs = []
if experiment is not None:
    mlflow.set_experiment(EXPERIMENT)  # CML finds a run by its id only after this
    runs = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time DESC"])
run = next(
    (
        run
        for run in sorted(runs, key=lambda run: run.info.start_time, reverse=True)
        if run.info.status.removeprefix("EXPERIMENT_RUN_") == "FINISHED"
        and client.list_artifacts(run.info.run_id, "model")
    ),
    None,
)
if run is None:
    raise workarea.MissingStep(
        f"No finished run of the experiment {EXPERIMENT!r} has a model ({len(runs)} runs).",
        "one run that logged a model",
        "python code/02_log_model.py",
    )
model_uri = f"runs:/{run.info.run_id}/model"
model = mlflow.pyfunc.load_model(model_uri)
print(f"Model {model_uri} of run {run.info.run_name}")

# %%
#
# Which wines?
# ------------
# By default the 1,225 wines that the model was not trained on: the same seed gives the same
# split. Their grades are known, so the score can be checked. Your own file needs no grades.
import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

if args.batch is None:
    wines = pd.read_csv(workarea.root() / "data" / "wine-quality.csv")
    np.random.seed(40)
    batch = train_test_split(wines)[1].reset_index(drop=True)
elif not args.batch.is_file():
    raise FileNotFoundError(
        f"There is no file {args.batch}.\nExpected: a CSV file with the wines to score.\n"
        "To score the test wines, run:  python code/04_Predict_Batch.py"
    )
else:
    batch = pd.read_csv(args.batch)

# %%
#
# Does the batch fit the model?
# -----------------------------
# The signature tells which columns the model was trained with. We look before we score, so that
# a wrong file gives one clear message. Columns that the model does not know are left out.
expected = model.metadata.get_input_schema().input_names()
problems = []
for name in expected:
    if name not in batch:
        near = [other for other in batch if other.strip().lower() == name.lower()]
        problems.append(f"{name!r} is missing" + (f" (renamed to {near[0]!r}?)" if near else ""))
        continue
    numbers = pd.to_numeric(batch[name], errors="coerce")
    if numbers.isna().any():
        row = int(numbers.isna().to_numpy().argmax())
        value = batch[name].iloc[row]
        held = "nothing" if pd.isna(value) else f"'{value}'"
        problems.append(f"{name!r} holds {held} in row {row + 1}, not a number")
if batch.empty:
    problems.append("the file has no rows")
if problems:
    raise ValueError(
        f"{args.batch} does not fit the model: {'; '.join(problems)}.\n"
        f"Expected: the signature's columns, all numbers: {', '.join(expected)}.\n"
        "To see a batch that fits, run:  python code/04_Predict_Batch.py"
    )
extra = [name for name in batch if name not in expected]
if extra:
    print(f"Not used by the model: {', '.join(extra)}")
predictions = model.predict(batch[expected].astype("float64"))

# %%
#
# Predictions that name their model
# ---------------------------------
# Run id and model URI stand in every row: months later, somebody can ask which model said this.
# The file is written beside its place and then moved there, so that nobody ever reads half of it.
output = args.output or workarea.path("data", "predictions.csv")
output.parent.mkdir(parents=True, exist_ok=True)
unfinished = output.with_name(output.name + ".unfinished")
scored = batch.assign(prediction=predictions, run_id=run.info.run_id, model_uri=model_uri)
scored.to_csv(unfinished, index=False)
unfinished.replace(output)

checked = ""
if "quality" in batch:
    rmse = np.sqrt(np.mean((batch["quality"] - predictions) ** 2))
    checked = f", rmse {rmse:.3f}"
    if args.batch is None:
        checked += f" (the run says {run.data.metrics['rmse']:.3f})"
print(
    f"Done: {len(scored)} predictions in {output}{checked}\n"
    "Look at: the last three columns of that file."
)
