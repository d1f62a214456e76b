"""
07 - Keep the rows of a registered model

You learn  Iceberg tags: the rows of registered models survive the maintenance of their tables
Reads      data/wine-quality.csv
Writes     Iceberg table spark_catalog.default.wines; MLflow experiment "keep-snapshot": one run;
           registered model "wine-forest", one version more, and an Iceberg tag for its run
Needs      Spark (in CML: a session with the Spark add-on); about 25 seconds
Run        python code/07_Keep_Snapshot.py, or Run All in a CML session
"""

# %%
#
# The wines
# ---------
# We make a table of white wines that grows twice, and train the model on the second of its three
# snapshots. Some wines have a twin: another row with the same measurements.
import pandas as pd

from cmlflow import errors, libraries, options, snapshots, store, workarea
from cmlflow.spark import start_spark

CONNECTION_NAME = "go01-aw-dl"
TABLE = "spark_catalog.default.wines"
EXPERIMENT = "keep-snapshot"
REGISTERED_MODEL = "wine-forest"
LESSON = "code/07_Keep_Snapshot.py"

options.parser().parse_args()  # this lesson has no options, but answers to --help
wines = pd.read_csv(workarea.root() / "data" / "wine-quality.csv").astype("float64")
wines.columns = [name.replace(" ", "_") for name in wines.columns]
wines.insert(0, "wine_id", range(len(wines)))
measurements = wines.columns.drop(["wine_id", "quality"])
twins = wines[:3000].duplicated(measurements).sum()
print(f"{len(wines)} wines; {twins} of the first 3000 are twins of an earlier one")

# %%
#
# A table with a past
# -------------------
# Each write makes a snapshot, and each snapshot keeps files. So sooner or later someone expires
# the old ones, and with them the rows that models were trained on.
import mlflow

spark = start_spark(CONNECTION_NAME)
store.use_store(EXPERIMENT)  # a local MLflow store on a laptop; CML brings its own
mlflow.end_run()  # close a run that an earlier cell left open
mlflow.set_experiment(EXPERIMENT)
snapshots.require_ours(spark, TABLE, made_by=LESSON)
rows = spark.createDataFrame(wines[:1500])
rows.writeTo(TABLE).using("iceberg").tableProperty("made_by", LESSON).createOrReplace()
first = snapshots.just_written(spark, TABLE, made_by=LESSON)
spark.createDataFrame(wines[1500:3000]).writeTo(TABLE).append()
second = snapshots.just_written(spark, TABLE, made_by=LESSON, parent=first)
for snapshot in (first, second):
    print(f"snapshot {snapshot.snapshot_id}: {snapshot.row_count} wines")

# %%
#
# A scikit-learn model of one snapshot
# ------------------------------------
# The training code keeps the contract of 06_Spark_Iceberg.py and is logged with the run. Every
# fourth wine is a test wine, and twins count as one wine. If one twin trained the forest and the
# other tested it, the score would be too good, because a forest memorises.
# `verify_integrity` stops if two rows have the same key: their order would be arbitrary.
import inspect


def fit_and_score(rows, params):
    """Train on the rows of a snapshot; return the model and its metrics."""
    import numpy as np
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.metrics import mean_absolute_error, mean_squared_error

    table = rows.orderBy("wine_id").toPandas().set_index("wine_id", verify_integrity=True)
    grade = table.pop("quality")
    test = table.groupby(list(table.columns), sort=False).ngroup() % 4 == 0
    params = {name: int(value) for name, value in params.items()}  # MLflow keeps them as text
    model = RandomForestRegressor(**params).fit(table[~test], grade[~test])
    predictions = model.predict(table[test])
    mean = np.full(test.sum(), grade[~test].mean())
    return model, {
        "rmse": mean_squared_error(grade[test], predictions) ** 0.5,
        "mae": mean_absolute_error(grade[test], predictions),
        "baseline_rmse": mean_squared_error(grade[test], mean) ** 0.5,
    }


def predict(model, rows):
    """Return the grade of each wine, in the order of the key."""
    table = rows.orderBy("wine_id").toPandas()
    return model.predict(table.drop(columns=["wine_id", "quality"]))


PARAMS = {"n_estimators": 50, "min_samples_leaf": 3, "random_state": 42}
TRAINING_CODE = "\n\n".join(inspect.getsource(function) for function in (fit_and_score, predict))
print(f"{len(TRAINING_CODE.splitlines())} lines of training code, params {PARAMS}")

# %%
#
# One run on the second snapshot
# ------------------------------
# The baseline predicts the mean grade of the training wines.
import numpy as np
import sklearn
from mlflow.models import infer_signature

rows = spark.sql(f"SELECT * FROM {TABLE} VERSION AS OF {second.snapshot_id}")
with mlflow.start_run(run_name="forest") as run:
    mlflow.set_tags(second.tags | {"row_count": rows.count()})
    with store.may_refuse("a dataset", instead="the tags"):
        mlflow.log_input(mlflow.data.from_iceberg(rows, second), context="training")
    mlflow.log_params(PARAMS)
    mlflow.log_text(TRAINING_CODE, "training.py")
    model, metrics = fit_and_score(rows, PARAMS)
    mlflow.log_metrics(metrics)
    features = wines.loc[:2, measurements]
    logged = mlflow.sklearn.log_model(
        model,
        "model",
        signature=infer_signature(features, model.predict(features)),
        pip_requirements=libraries.pin(sklearn, pd, np),
        serialization_format="cloudpickle",
    )
run_id = run.info.run_id
print(f"rmse {metrics['rmse']:.3f}; baseline: {metrics['baseline_rmse']:.3f}")

# %%
#
# Keep its rows, then register the model
# --------------------------------------
# `snapshots.pin` gives the snapshot an **Iceberg tag**: `ALTER TABLE ... CREATE TAG ... AS OF
# VERSION ...`. An MLflow tag is a remark on a run. An Iceberg tag is a name in the table, and a
# snapshot that has a name does not expire. We pin before we register, so no registered model is
# ever without its rows. The name holds the model and the run. Calling it twice does no harm. When
# you delete the model version, drop the tag too: `snapshots.unpin`.
#
# The new version gets the tags of its run, for readers who start at the registry.
client = mlflow.MlflowClient()
iceberg_tag = snapshots.pin(spark, TABLE, second.snapshot_id, REGISTERED_MODEL, run_id)
client.set_tag(run_id, "iceberg_tag", iceberg_tag)
print(f"snapshot {second.snapshot_id} is kept by the Iceberg tag {iceberg_tag}")

kept_for = f"run {run_id}"
with store.may_refuse("a registered model", instead="the run, which has the model"):
    version = mlflow.register_model(logged.model_uri, REGISTERED_MODEL).version
    kept_for = f"{REGISTERED_MODEL} version {version}"
    client.set_tag(run_id, "registered_model", REGISTERED_MODEL)
    client.set_tag(run_id, "registered_version", str(version))
    with store.may_refuse("tags of the model version", instead="the tags of its run"):
        for name, value in (second.tags | {"iceberg_tag": iceberg_tag}).items():
            client.set_model_version_tag(REGISTERED_MODEL, version, name, value)

# %%
#
# Maintenance: everything older than now
# --------------------------------------
# The table grows once more, and all old snapshots expire. A real project would keep the last week.
# Two kinds are left: the current snapshot, because the table needs it, and those with a tag.
from datetime import datetime, timezone

spark.createDataFrame(wines[3000:]).writeTo(TABLE).append()
now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S.%f+00:00")
catalog, _, table = TABLE.partition(".")
spark.sql(
    f"CALL {catalog}.system.expire_snapshots("
    f"table => '{table}', older_than => TIMESTAMP '{now}', retain_last => 1)"
)
for snapshot in (first, second):
    try:
        source = snapshots.by_id(spark, TABLE, snapshot.snapshot_id)
        kept = spark.sql(f"SELECT * FROM {TABLE} VERSION AS OF {source.snapshot_id}").count()
        print(f"snapshot {snapshot.snapshot_id} is kept: {kept} wines")
    except errors.SnapshotNotFound:
        if snapshot is second:
            raise
        print(f"snapshot {snapshot.snapshot_id} is gone")

# %%
#
# What that means
# ---------------
# The table has 4,898 wines now. The model was trained on 3,000 of them, and you can still read
# exactly those, to explain a prediction or to train it again. 08_Reproduce_Run.py does that.
spark.stop()
print(
    f"Done: the {second.row_count} rows of {kept_for} are kept\n"
    f"Look at: Experiments > {EXPERIMENT} > forest: the dataset and the tag iceberg_tag.\n"
    f"Open the UI: {store.how_to_open_ui(store.run_page(run))}"
)
