"""
08 - Train a run again, to the last bit

You learn  what a run must keep so that anybody can repeat it: rows, code, params, versions
Reads      a run of code/06_Spark_Iceberg.py, 14_XGBoost_Iceberg.py or 07_Keep_Snapshot.py, and
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
import mlflow

from cmlflow import errors, options, snapshots, store, workarea

CONNECTION_NAME = "go01-aw-dl"
EXPERIMENT = "reproductions"

parser = options.parser()
number = options.whole_number(1)
parser.add_argument("--run-id", help="the run to repeat")
parser.add_argument("--model", help="or: the registered model to repeat")
parser.add_argument("--version", type=number, help="its version, 1 or more; by default the newest")
parser.add_argument("--alias", help="or one of its aliases, for example champion")
args = parser.parse_args()
chosen = {name: value for name, value in vars(args).items() if value is not None}
if set(chosen) not in (set(), {"run_id"}, {"model"}, {"model", "version"}, {"model", "alias"}):
    raise errors.BadInput(
        f"Which run is that: {', '.join(f'{name} {value}' for name, value in chosen.items())}?",
        "a run id; or a model, alone or with one of version and alias; or nothing",
        "For the newest that was trained on a snapshot, run:  python code/08_Reproduce_Run.py",
    )

store.use_store()  # a local MLflow store on a laptop; CML brings its own
client = mlflow.MlflowClient()


def iceberg_datasets(run):
    """Return the Iceberg snapshots that a run names as its inputs."""
    used = getattr(run.inputs, "dataset_inputs", [])  # an old store has no inputs
    return [one for one in used if one.dataset.source_type == "iceberg"]


if args.run_id:
    original, model_uri = store.find_run(args.run_id), f"runs:/{args.run_id}/model"
    if original is None:
        raise errors.MissingStep(
            f"There is no run {args.run_id} in this store ({store.how_to_open_ui()}).",
            "the id of a run that logged a model",
            "python code/03_Get_Experiment.py",
        )
else:
    try:
        if args.alias:
            versions = [client.get_model_version_by_alias(args.model, args.alias)]
        elif args.version:
            versions = [client.get_model_version(args.model, str(args.version))]
        else:
            versions = client.search_model_versions(f"name = '{args.model}'" if args.model else "")
    except Exception as error:
        raise errors.MissingStep(
            f"The registry gave no version of {args.model or 'any model'}: {error}",
            "a version or an alias that is there, or the id of a run",
            "python code/08_Reproduce_Run.py --run-id <run id>",
        ) from error
    original = None
    for version in sorted(versions, key=lambda one: one.creation_timestamp or 0, reverse=True):
        run = store.find_run(version.run_id)
        if run and ("iceberg_snapshot_id" in run.data.tags or iceberg_datasets(run)):
            original, model_uri = run, f"models:/{version.name}/{version.version}"
            print(f"Version {version.version} of the registered model {version.name}")
            break
    if original is None:
        raise errors.MissingStep(
            f"None of {len(versions)} versions of {args.model or 'all registered models'} was "
            "trained on an Iceberg snapshot.",
            "one that was, or a run of your choice (--run-id)",
            "python code/07_Keep_Snapshot.py",
        )
run_id = original.info.run_id
print(f"Run {run_id} ({original.info.run_name})")

# %%
#
# Its rows, its code, its model, its libraries
# --------------------------------------------
# The dataset of the run leads to the rows. Where the store keeps no datasets, the tags say the
# same. The code is the text that the run logged. Code and model are executed here: repeat only
# runs of people whom you trust. A verdict is worth something only if the libraries are those of
# the run; the model's requirements name them.
from importlib import metadata

import mlflow.data

from cmlflow.snapshots.dataset import IcebergSource
from cmlflow.spark import start_spark


def verdict_is(verdict, reproduction_id=None):
    """Write the verdict down where the next reader looks: in the tags of the run."""
    client.set_tag(run_id, "reproduction_verdict", verdict)
    if reproduction_id is not None:
        client.set_tag(run_id, "reproduction_run", reproduction_id)
        client.set_tag(reproduction_id, "reproduction_verdict", verdict)
    print(f"Verdict: {verdict}")


tags = original.data.tags
datasets = iceberg_datasets(original)
if not datasets and "iceberg_snapshot_id" not in tags:
    raise errors.MissingStep(
        f"Run {run_id} names no Iceberg snapshot, neither as a dataset nor in its tags.",
        "a run of 06_Spark_Iceberg.py, 14_XGBoost_Iceberg.py or 07_Keep_Snapshot.py",
        "python code/07_Keep_Snapshot.py",
    )
logged = {}
for uri in (f"runs:/{run_id}/training.py", f"{model_uri}/requirements.txt"):
    name = uri.rpartition("/")[2]
    try:
        logged[name] = mlflow.artifacts.load_text(uri)
    except Exception as error:
        verdict_is(f"impossible: the run has no {name}")
        raise errors.MissingStep(
            f"There is no {uri}, so nobody can repeat the run.",
            "a finished run with its training code and its model; --distributed logs no code",
            "python code/14_XGBoost_Iceberg.py",
        ) from error
other_versions, pins = [], []
for line in logged["requirements.txt"].splitlines():
    library, _, then = line.strip().partition("==")
    if not library or library.startswith("mlflow"):  # it stores the model, it does not train it
        continue
    try:
        now = metadata.version(library)
    except metadata.PackageNotFoundError:
        now = "not installed"
    if now != then:
        other_versions.append(f"{library} {then or 'unknown'} then, {now} now")
        pins.append(f"'{line.strip()}'")
libraries = "; ".join(other_versions)
if datasets:
    source = mlflow.data.get_source(datasets[0])
else:  # the tags do not say in which catalog the table is: in that of this session, then
    catalog = start_spark(CONNECTION_NAME).conf.get("spark.cmlflow.catalog")
    source = IcebergSource(tags["training_table"], tags["iceberg_snapshot_id"], catalog)
try:
    rows = source.load().cache()
except errors.WrongCatalog:
    raise  # that says nothing about the run
except errors.SnapshotNotFound:
    verdict_is(f"impossible: snapshot {source.snapshot_id} of {source.table} is not there")
    raise
row_count = rows.count()
print(f"{row_count} rows in snapshot {source.snapshot_id} of {source.table}")
try:
    code = {}
    exec(compile(logged["training.py"], "training.py", "exec"), code)
    flavors = mlflow.models.get_model_info(model_uri).flavors
    if "spark" in flavors:
        tmp = str(workarea.path("spark-tmp"))
        first_model = mlflow.spark.load_model(model_uri, dfs_tmpdir=tmp)
    else:
        flavor = mlflow.xgboost if "xgboost" in flavors else mlflow.sklearn
        first_model = flavor.load_model(model_uri)
    first_answers = code["predict"](first_model, rows)
except Exception as error:
    verdict_is(
        f"impossible: {type(error).__name__} in its code or its model "
        f"(libraries: {libraries or 'the same'})"
    )
    raise

# %%
#
# Train again, compare
# --------------------
# The run's own code, with the run's own params, on the run's own rows. Everything must be equal,
# not nearly equal: the number of rows, each metric at each step as the store keeps it, and what
# the two models answer for every row of the snapshot.
import json

import numpy as np
import pandas as pd

store.use_store(EXPERIMENT)
mlflow.end_run()  # close a run that an earlier cell left open
mlflow.set_experiment(EXPERIMENT)


def history(run, metric):
    """Return step and value of a metric, in order; as text, in which a NaN equals a NaN."""
    return sorted(repr((one.step, one.value)) for one in client.get_metric_history(run, metric))


with mlflow.start_run(run_name=f"again: {original.info.run_name}") as again:
    snapshot = snapshots.by_id(rows.sparkSession, source.table, source.snapshot_id)
    mlflow.set_tags(snapshot.tags | {"row_count": row_count, "reproduction_of": run_id})
    dataset = mlflow.data.from_iceberg(rows, snapshot)
    try:
        mlflow.log_input(dataset, context="training")
    except Exception as error:
        print(f"No dataset: this store refused it ({type(error).__name__}); see the tags")
    mlflow.log_params(original.data.params)
    try:
        model, metrics = code["fit_and_score"](rows, original.data.params)
        answers = code["predict"](model, rows)
    except Exception as error:
        reason = f"{type(error).__name__} when it was trained again"
        verdict_is(
            f"impossible: {reason} (libraries: {libraries or 'the same'})", again.info.run_id
        )
        raise
    for name, value in metrics.items():
        for step, one in enumerate(value, start=1) if isinstance(value, list) else [(0, value)]:
            mlflow.log_metric(name, one, step=step)
    counted = tags.get("row_count")
    if counted is None and datasets:
        counted = str(json.loads(datasets[0].dataset.profile)["num_rows"])
    table = [("rows", str(counted), str(row_count), counted == str(row_count))]
    now = mlflow.get_run(again.info.run_id).data.metrics
    for name in sorted({*original.data.metrics, *now}):
        equal = history(run_id, name) == history(again.info.run_id, name)
        table.append((name, str(original.data.metrics.get(name)), str(now.get(name)), equal))
    same, asked = int(np.sum(first_answers == answers)), str(len(first_answers))
    equal = np.array_equal(first_answers, answers)
    table.append(("predictions", asked, f"{same} equal", equal))
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
if different:
    verdict = f"different: {different} (libraries: {libraries or 'the same'})"
elif libraries:
    verdict = f"equal numbers, but other libraries: {libraries}"
else:
    verdict = "identical"
verdict_is(verdict, again.info.run_id)
rows.sparkSession.stop()
if different:
    raise errors.LessonError(
        f"Run {run_id} could not be repeated: {verdict}.",
        "equal rows, metrics and predictions",
        +(
            f"To install the model's libraries, run:  pip install {' '.join(pins)}"
            if pins
            else f"To see what differs, open comparison.json: {store.how_to_open_ui()}"
        ),
    )
print(
    f"Done: {verdict}: {row_count} rows, {len(comparison) - 2} metrics, {asked} predictions "
    f"(run {again.info.run_id})\n"
    f"Look at: Experiments > {EXPERIMENT}, the tag reproduction_verdict and comparison.json.\n"
    f"Open the UI: {store.how_to_open_ui()}"
)
