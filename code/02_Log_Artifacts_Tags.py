"""
02 - Log files, figures and tags

You learn  set_tag(s), log_artifact(s), log_figure, log_dict, get_artifact_uri
Reads      data/wine-quality.csv, data/README.md
Writes     MLflow experiment "wine-quality-test": one run; data/states/<run id>/: two files
Needs      nothing; about 5 seconds
Run        python code/02_Log_Artifacts_Tags.py, or Run All in a CML session
"""

# %%
#
# Which experiment?
# -----------------
# `set_experiment` holds for one process. In a CML session, scripts that run one after the other
# share a process, so a script that sets no experiment logs into the one that was set last. In a job
# or a terminal the same script would log into "Default". That is why each lesson sets its own.
import mlflow

from cmlflow import options, store, workarea

options.parser().parse_args()  # this lesson has no options, but answers to --help
EXPERIMENT = "wine-quality-test"
store.use_store(EXPERIMENT)  # a local MLflow store on a laptop; CML brings its own
mlflow.end_run()  # close a run that an earlier cell left open
mlflow.set_experiment(EXPERIMENT)
print(f"Runs go to the experiment {EXPERIMENT}")

# %%
#
# What we want to keep
# --------------------
# We keep a few facts about the wine data, and a picture of the grades. We make the figure without
# `pyplot`, because `pyplot` keeps every figure in memory for the screen.
import pandas as pd
from matplotlib.figure import Figure

wines = pd.read_csv(workarea.root() / "data" / "wine-quality.csv")
facts = {"rows": len(wines), "mean": wines.mean().round(4).to_dict()}
features = [name for name in wines.columns if name != "quality"]

figure = Figure(figsize=(6, 3.5), layout="constrained")
axes = figure.subplots()
grades = wines["quality"].value_counts().sort_index()
axes.bar(grades.index, grades.to_numpy())
axes.set(title="Grades of 4,898 white wines", xlabel="grade", ylabel="wines")
print(f"{len(wines)} wines, {len(features)} features; most often graded {grades.idxmax()}")

# %%
#
# One run: tags and artifacts
# ---------------------------
# **Tags** are short texts to search by. **Artifacts** are files. `log_artifacts` logs everything in
# a folder, so we make a folder for this run alone: `data/` holds other files too. `log_figure` and
# `log_dict` need no file of yours.
import json

with mlflow.start_run(run_name="files-and-tags") as run:
    mlflow.set_tags({"data.name": "wine-quality", "data.license": "CC BY 4.0"})
    mlflow.set_tag("purpose", "what a run can keep")

    folder = workarea.make_folder("data", "states", run.info.run_id)
    (folder / "json.json").write_text(json.dumps(facts, indent=2), encoding="utf-8")
    (folder / "features.txt").write_text("\n".join(features), encoding="utf-8")
    mlflow.log_artifacts(str(folder), "states")

    mlflow.log_artifact(str(workarea.root() / "data" / "README.md"), "data_source")
    mlflow.log_figure(figure, "figures/grades.png")
    mlflow.log_dict(facts, "facts.json")
    states_uri = mlflow.get_artifact_uri("states")
print(f"Logged into run {run.info.run_id}: states, data_source, figures, facts.json")

# %%
#
# Read one back
# -------------
# `get_artifact_uri` says where the folder went: in CML below `/home/cdsw/.experiments`. The place
# may be on another machine, so do not open it as a path: let MLflow fetch the file.
fetched = mlflow.artifacts.load_dict(f"{states_uri}/json.json")
print(f"states are at {states_uri}; json.json says {fetched['rows']} rows")
print(
    f"Done: 2 files under states, 1 README, 1 figure, 1 dict and 3 tags (run {run.info.run_id})\n"
    f"Look at: Experiments > {EXPERIMENT} > files-and-tags > Artifacts > figures > grades.png.\n"
    f"Open the UI: {store.how_to_open_ui(store.run_page(run, 'artifacts/figures/grades.png'))}"
)
