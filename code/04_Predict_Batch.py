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
from pathlib import Path

import mlflow

from cmlflow import errors, options, store, workarea

parser = options.parser()
parser.add_argument("--batch", type=Path, help="CSV file; default: the test wines of 02_log_model")
parser.add_argument("--output", type=Path, help="default: data/predictions.csv")
args = parser.parse_args()

EXPERIMENT = "wine-quality-test"
store.use_store()  # a local MLflow store on a laptop; CML brings its own
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
    raise errors.MissingStep(
        f"No finished run of the experiment {EXPERIMENT!r} has a model ({len(runs)} runs).",
        "one run that logged a model",
        "python code/02_log_model.py",
    )
model_uri = f"runs:/{run.info.run_id}/model"
model = mlflow.pyfunc.load_model(model_uri)
print(f"Model {model_uri} of run {run.info.run_name or run.info.run_id}")

# %%
#
# Which wines?
# ------------
# By default the 1,225 wines that 02_log_model.py set aside to test on: the same seed gives the
# same split. Their grades are known, so the score can be checked. Your own file needs no grades.
import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

if args.batch is None:
    wines = pd.read_csv(workarea.root() / "data" / "wine-quality.csv")
    np.random.seed(40)
    batch = train_test_split(wines)[1].reset_index(drop=True)
elif not args.batch.is_file():
    raise errors.BadInput(
        f"There is no file {args.batch}.",
        "a CSV file with the wines to score",
        "To score the test wines, run:  python code/04_Predict_Batch.py",
    )
else:
    try:
        batch = pd.read_csv(args.batch)
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise errors.BadInput(
            f"{args.batch} cannot be read: {str(error).strip()}.",
            "a CSV file with a header line and wines to score",
            "To see a batch that fits, run:  python code/04_Predict_Batch.py",
        ) from error

# %%
#
# Does the batch fit the model?
# -----------------------------
# The signature tells which columns the model was trained with. We look before we score, so that
# a wrong file gives one clear message. Grades are checked too if there are any; they may be
# missing. Columns that the model does not know are left out.
expected = model.metadata.get_input_schema().input_names()
problems = []
for name in [*expected, "quality"] if "quality" in batch else expected:
    if name not in batch:
        near = [other for other in batch if other.strip().lower() == name.lower()]
        problems.append(f"{name!r} is missing" + (f" (renamed to {near[0]!r}?)" if near else ""))
        continue
    wrong = ~np.isfinite(pd.to_numeric(batch[name], errors="coerce").astype("float64"))
    if name == "quality":
        wrong &= batch[name].notna()
    if wrong.any():
        row = int(wrong.to_numpy().argmax())
        value = batch[name].iloc[row]
        held = "nothing" if pd.isna(value) else f"'{value}'"
        problems.append(f"{name!r} holds {held} in row {row + 1}, not a number")
if batch.empty:
    problems.append("the file has no rows")
if problems:
    raise errors.BadInput(
        f"{args.batch} does not fit the model: {'; '.join(problems)}.",
        f"the signature's columns, all numbers: {', '.join(expected)}",
        "To see a batch that fits, run:  python code/04_Predict_Batch.py",
    )
OURS = ("prediction", "run_id", "model_uri")
extra = [name for name in batch if name not in (*expected, *OURS)]
if extra:
    print(f"Not used by the model: {', '.join(extra)}")
replaced = [name for name in batch if name in OURS]
if replaced:
    print(f"Replaced by what this model says: {', '.join(replaced)}")
predictions = model.predict(batch[expected].astype("float64"))

# %%
#
# Predictions that name their model
# ---------------------------------
# Run id and model URI stand in every row: months later, somebody can ask which model said this.
# The file is written under a name of its own beside its place and then moved there. So nobody
# ever reads half of it, and two runs at the same time do not write into one file.
import uuid

output = args.output or workarea.path("data", "predictions.csv")
output.parent.mkdir(parents=True, exist_ok=True)
scored = batch.assign(prediction=predictions, run_id=run.info.run_id, model_uri=model_uri)
unfinished = output.with_name(f".predictions-{uuid.uuid4().hex}.unfinished")
try:
    scored.to_csv(unfinished, index=False)
    unfinished.replace(output)
finally:
    unfinished.unlink(missing_ok=True)

checked = ""
if "quality" in batch and batch["quality"].notna().any():
    errors = batch["quality"].astype("float64") - predictions  # none where a grade is missing
    checked = f", rmse {(errors**2).mean() ** 0.5:.3f}"
    if args.batch is None and "rmse" in run.data.metrics:
        checked += f" (the run says {run.data.metrics['rmse']:.3f})"
print(
    f"Done: {len(scored)} predictions in {output}{checked}\n"
    "Look at: the last three columns of that file."
)
