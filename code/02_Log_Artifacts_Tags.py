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
# share a process, and a script that sets no experiment logs into the one that was set last. In a
# job, or in a terminal, the same script would log into "Default". So each lesson sets its own.
import mlflow

from cmlflow import store, workarea

EXPERIMENT = "wine-quality-test"
store.use_store(EXPERIMENT)  # a local MLflow store on a laptop; CML brings its own
mlflow.end_run()  # close a run that an earlier cell left open
mlflow.set_experiment(EXPERIMENT)

# %%
#
# What we want to keep
# --------------------
# A few facts about the wine data, and a picture of its grades. The figure is made without
# `pyplot`, which keeps every figure in memory for the screen.
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

# %%
#
# One run: tags and artifacts
# ---------------------------
# **Tags** are short texts to search by. **Artifacts** are files. `log_artifacts` logs a whole
# folder with all that lies in it: hence a folder that belongs to this run alone, and not `data/`
# itself, which holds other files too. Under `states` the run then has these two files, no more.
# `log_figure` and `log_dict` need no file of yours.
import json

with mlflow.start_run(run_name="files-and-tags") as run:
    mlflow.set_tags({"data.name": "wine-quality", "data.license": "CC BY 4.0"})
    mlflow.set_tag("purpose", "what a run can keep")

    folder = workarea.path("data", "states", run.info.run_id)
    folder.mkdir(parents=True)
    (folder / "json.json").write_text(json.dumps(facts, indent=2), encoding="utf-8")
    (folder / "features.txt").write_text("\n".join(features), encoding="utf-8")
    mlflow.log_artifacts(str(folder), "states")

    mlflow.log_artifact(str(workarea.root() / "data" / "README.md"), "data_source")
    mlflow.log_figure(figure, "figures/grades.png")
    mlflow.log_dict(facts, "facts.json")
    states_uri = mlflow.get_artifact_uri("states")

# %%
#
# Read one back
# -------------
# `get_artifact_uri` told where the folder went: in CML below `/home/cdsw/.experiments`. The path
# may be on another machine, so do not open it: MLflow fetches the file.
fetched = mlflow.artifacts.load_dict(f"{states_uri}/json.json")
print(f"states are at {states_uri}; json.json says {fetched['rows']} rows")
print(
    f"Done: 2 files under states, 1 README, 1 figure, 1 dict and 3 tags (run {run.info.run_id})\n"
    f"Look at: Experiments > {EXPERIMENT} > files-and-tags, the Artifacts of the run.\n"
    f"Open the UI: {store.how_to_open_ui()}"
)
