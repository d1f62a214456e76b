"""
08 - Train a run again, to the last bit

You learn  what a run must keep so that anybody can repeat it: rows, code, params, versions
Reads      a run of code/06_Spark_Iceberg.py, 07_XGBoost_Iceberg.py or 07_Keep_Snapshot.py, and
           the Iceberg snapshot that it names
Writes     MLflow experiment "reproductions": one run; the verdict, as a tag of both runs
Needs      Spark (in CML: a session with the Spark add-on); one of those lessons; about 20 seconds
Run        python code/08_Reproduce_Run.py [--run-id ID] [--model NAME --version N | --alias A]
"""

# %%
#
# Which run?
# ----------
# Give a run id, or a registered model with a version or an alias. By default it is the newest
# model version whose run names an Iceberg snapshot.
import argparse

import mlflow

from cmlflow import options, workarea

CONNECTION_NAME = "go01-aw-dl"
EXPERIMENT = "reproductions"

parser = argparse.ArgumentParser(allow_abbrev=False, exit_on_error=False)
parser.add_argument("--run-id", help="the run to repeat")
parser.add_argument("--model", help="or: the registered model to repeat")
number = options.whole_number(1)
parser.add_argument("--version", type=number, help="its version, 1 or more; by default the newest")
parser.add_argument("--alias", help="or one of its aliases, for example champion")
args = options.parse(parser)
if (args.version or args.alias) and not args.model:
    raise ValueError(
        f"--version is {args.version} and --alias is {args.alias}, but of which model?\n"
        "Expected: --model with the name of a registered model.\n"
        "For the newest that was trained on a snapshot, run:  python code/08_Reproduce_Run.py"
    )

workarea.use_store()  # a local MLflow store on a laptop; CML brings its own
if workarea.in_cml():
    mlflow.set_experiment(EXPERIMENT)  # in a new process, CML finds no run before this call
client = mlflow.MlflowClient()
run_id = args.run_id
if run_id is None and (args.version or args.alias):
    try:
        if args.alias:
            run_id = client.get_model_version_by_alias(args.model, args.alias).run_id
        else:
            run_id = client.get_model_version(args.model, str(args.version)).run_id
    except Exception as error:
        raise workarea.MissingStep(
            f"The model {args.model!r} has no {(args.alias or args.version)!r}: {error}",
            "a version or an alias that it has; by default, the newest version is taken",
            f"python code/08_Reproduce_Run.py --model {args.model!r}",
        ) from error
elif run_id is None:
    try:
        versions = client.search_model_versions(f"name = '{args.model}'" if args.model else "")
    except Exception as error:
        raise workarea.MissingStep(
            f"This registry cannot be searched ({type(error).__name__}).",
            "the id of a run, as the Experiments page shows it",
            "python code/08_Reproduce_Run.py --run-id <run id>",
        ) from error
    for version in sorted(versions, key=lambda one: one.creation_timestamp or 0, reverse=True):
        if version.run_id and "iceberg_snapshot_id" in mlflow.get_run(version.run_id).data.tags:
            run_id = version.run_id
            print(f"Version {version.version} of the registered model {version.name}")
            break
if run_id is None:
    raise workarea.MissingStep(
        f"None of {len(versions)} registered model versions was trained on an Iceberg snapshot.",
        "one that was, or a run of your choice (--run-id)",
        "python code/07_Keep_Snapshot.py",
    )
try:
    original = mlflow.get_run(run_id)
except Exception as error:
    raise workarea.MissingStep(
        f"There is no run {run_id} in this store ({workarea.how_to_open_ui()}).",
        "the id of a run that logged a model",
        "python code/03_Get_Experiment.py",
    ) from error
print(f"Run {run_id} ({original.info.run_name})")

# %%
#
# Its rows, its code, its libraries
# ---------------------------------
# The dataset of the run leads to the rows. Where the store keeps no datasets, the tags say the
# same. The code is the text that the run logged. Code and model are executed here: repeat only
# runs of people whom you trust. A verdict is worth something only if the libraries are those of
# the run; the model's requirements name them.
from importlib import metadata

import mlflow.data

from cmlflow import snapshots


def verdict_is(verdict, reproduction_id=None):
    """Write the verdict down where the next reader looks: in the tags of the run."""
    client.set_tag(run_id, "reproduction_verdict", verdict)
    if reproduction_id is not None:
        client.set_tag(run_id, "reproduction_run", reproduction_id)
        client.set_tag(reproduction_id, "reproduction_verdict", verdict)
    print(f"Verdict: {verdict}")


tags = original.data.tags
datasets = getattr(original.inputs, "dataset_inputs", [])  # an old store has no inputs
datasets = [one for one in datasets if one.dataset.source_type == "iceberg"]
if datasets:
    source = mlflow.data.get_source(datasets[0])
elif "iceberg_snapshot_id" in tags:
    from cmlflow.snapshots.dataset import IcebergSource

    source = IcebergSource(tags["training_table"], tags["iceberg_snapshot_id"], CONNECTION_NAME)
else:
    raise workarea.MissingStep(
        f"Run {run_id} names no Iceberg snapshot, neither as a dataset nor in its tags.",
        "a run of 06_Spark_Iceberg.py, 07_XGBoost_Iceberg.py or 07_Keep_Snapshot.py",
        "python code/07_Keep_Snapshot.py",
    )
logged = {}
for name in ("training.py", "model/requirements.txt"):
    try:
        logged[name] = mlflow.artifacts.load_text(f"runs:/{run_id}/{name}")
    except Exception as error:
        verdict_is(f"impossible: the run logged no {name}")
        raise workarea.MissingStep(
            f"Run {run_id} logged no {name}, so nobody can repeat it.",
            "a finished run with its training code and its model; --distributed logs no code",
            "python code/07_XGBoost_Iceberg.py",
        ) from error
other_versions = []
required = logged["model/requirements.txt"].splitlines()
for library, _, then in (line.strip().partition("==") for line in required):
    if not then or library.startswith("mlflow"):  # mlflow stores the model, it does not train it
        continue
    try:
        now = metadata.version(library)
    except metadata.PackageNotFoundError:
        now = "not installed"
    if now != then:
        other_versions.append(f"{library} {then} then, {now} now")
try:
    rows = source.load().cache()
    row_count = rows.count()
except snapshots.SnapshotNotFound:
    verdict_is(f"impossible: snapshot {source.snapshot_id} of {source.table} is not there")
    raise
print(f"{row_count} rows in snapshot {source.snapshot_id} of {source.table}")

# %%
#
# Train again, compare
# --------------------
# The run's own code, with the run's own params, on the run's own rows. Everything must be equal,
# not nearly equal: the number of rows, each metric at each step as the store keeps it, and what
# the two models answer for every row of the snapshot.
import math

import numpy as np
import pandas as pd

workarea.use_store(EXPERIMENT)
mlflow.end_run()  # close a run that an earlier cell left open
mlflow.set_experiment(EXPERIMENT)
code = {}
exec(compile(logged["training.py"], "training.py", "exec"), code)
model_uri = f"runs:/{run_id}/model"
flavors = mlflow.models.get_model_info(model_uri).flavors
if "spark" in flavors:
    first_model = mlflow.spark.load_model(model_uri, dfs_tmpdir=str(workarea.path("spark-tmp")))
else:
    flavor = mlflow.xgboost if "xgboost" in flavors else mlflow.sklearn
    first_model = flavor.load_model(model_uri)


def history(run, metric):
    """Return all values of a metric, in the order of its steps."""
    return [m.value for m in sorted(client.get_metric_history(run, metric), key=lambda m: m.step)]


with mlflow.start_run(run_name=f"again: {original.info.run_name}") as again:
    snapshot = snapshots.by_id(rows.sparkSession, source.table, source.snapshot_id)
    mlflow.set_tags(snapshot.tags | {"row_count": row_count, "reproduction_of": run_id})
    try:
        mlflow.log_input(mlflow.data.from_iceberg(rows, snapshot), context="training")
    except Exception as error:
        print(f"No dataset: this store refused it ({type(error).__name__}); see the tags")
    mlflow.log_params(original.data.params)
    model, metrics = code["fit_and_score"](rows, original.data.params)
    for name, value in metrics.items():
        for step, one in enumerate(value, start=1) if isinstance(value, list) else [(0, value)]:
            mlflow.log_metric(name, one, step=step)
    table = [("rows", tags["row_count"], str(row_count), tags["row_count"] == str(row_count))]
    for name in sorted({*original.data.metrics, *metrics}):
        first, second = history(run_id, name), history(again.info.run_id, name)
        equal = len(first) == len(second) > 0 and all(
            a == b or (math.isnan(a) and math.isnan(b)) for a, b in zip(first, second, strict=True)
        )
        table.append((name, str(first[-1:])[1:-1], str(second[-1:])[1:-1], equal))
    first, second = code["predict"](first_model, rows), code["predict"](model, rows)
    same = int(np.sum(first == second))
    table.append(("predictions", str(len(first)), f"{same} equal", np.array_equal(first, second)))
    comparison = pd.DataFrame(table, columns=["what", "first", "again", "equal"])
    mlflow.log_table(comparison.astype({"equal": str}), "comparison.json")
print(comparison.to_string(index=False))

# %%
#
# The verdict
# -----------
# "Identical" is said only when nothing differs, libraries included. It goes into the tags of both
# runs, so that it outlives this page.
different = ", ".join(comparison.loc[~comparison["equal"].astype(bool), "what"])
libraries = "; ".join(other_versions)
if different:
    verdict = f"different: {different} (libraries: {libraries or 'the same'})"
elif libraries:
    verdict = f"equal numbers, but other libraries: {libraries}"
else:
    verdict = "identical"
verdict_is(verdict, again.info.run_id)
rows.sparkSession.stop()
if different:
    raise RuntimeError(
        f"Run {run_id} could not be repeated: {verdict}.\n"
        "Expected: equal rows, metrics and predictions.\n"
        "To install the model's libraries, run:  "
        f'python -c "import mlflow; print(mlflow.pyfunc.get_model_dependencies({model_uri!r}))"'
    )
print(
    f"Done: {verdict}: {row_count} rows, {len(comparison) - 2} metrics, {len(first)} predictions "
    f"(run {again.info.run_id})\n"
    f"Look at: Experiments > {EXPERIMENT}, the tag reproduction_verdict and comparison.json.\n"
    f"Open the UI: {workarea.how_to_open_ui()}"
)
