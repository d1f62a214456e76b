"""
07 - Keep the rows of a registered model

You learn  Iceberg tags: registered models survive the maintenance of their tables
Reads      data/wine-quality.csv
Writes     Iceberg table spark_catalog.default.wines; MLflow experiment "keep-snapshot": one run;
           registered model "wine-forest", one version more, and an Iceberg tag for it
Needs      Spark (in CML: a session with the Spark add-on); about 25 seconds
Run        python code/07_Keep_Snapshot.py, or Run All in a CML session
"""

# %%
#
# A table with a past
# -------------------
# Each write makes a snapshot, and each snapshot keeps files. So somebody, sooner or later, expires
# the old ones, and with them the rows that models were trained on. We make a table of the white
# wines that grows twice: three snapshots. The model will be trained on the second.
import pandas as pd

from cmlflow import errors, snapshots, store, workarea
from cmlflow.spark import start_spark

CONNECTION_NAME = "go01-aw-dl"
TABLE = "spark_catalog.default.wines"
EXPERIMENT = "keep-snapshot"
REGISTERED_MODEL = "wine-forest"
LESSON = "code/07_Keep_Snapshot.py"

wines = pd.read_csv(workarea.root() / "data" / "wine-quality.csv").astype("float64")
wines.columns = [name.replace(" ", "_") for name in wines.columns]
wines.insert(0, "wine_id", range(len(wines)))
spark = start_spark(CONNECTION_NAME)
snapshots.require_ours(spark, TABLE, made_by=LESSON)
rows = spark.createDataFrame(wines[:1500])
rows.writeTo(TABLE).using("iceberg").tableProperty("made_by", LESSON).createOrReplace()
first = snapshots.current(spark, TABLE, made_by=LESSON)
spark.createDataFrame(wines[1500:3000]).writeTo(TABLE).append()
second = snapshots.current(spark, TABLE, made_by=LESSON)
for snapshot in (first, second):
    print(f"snapshot {snapshot.snapshot_id}: {snapshot.row_count} wines")

# %%
#
# A scikit-learn model of one snapshot
# ------------------------------------
# The training code stands alone, imports and all, and is logged with the run, as in the other
# lessons on Iceberg. Every fourth wine is kept to test on.
import inspect


def fit_and_score(rows, params):
    """Train on the rows of a snapshot; return the model and its metrics."""
    import numpy as np
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.metrics import mean_absolute_error, mean_squared_error

    table = rows.orderBy("wine_id").toPandas()
    test = table.pop("wine_id") % 4 == 0
    grade = table.pop("quality")
    model = RandomForestRegressor(
        n_estimators=int(params["n_estimators"]),
        min_samples_leaf=int(params["min_samples_leaf"]),
        random_state=int(params["random_state"]),
    )
    model.fit(table[~test], grade[~test])
    answers = model.predict(table[test])
    constant = np.full(test.sum(), grade[~test].mean())
    return model, {
        "rmse": mean_squared_error(grade[test], answers) ** 0.5,
        "mae": mean_absolute_error(grade[test], answers),
        "baseline_rmse": mean_squared_error(grade[test], constant) ** 0.5,
    }


def predict(model, rows):
    """Return the grade of each wine, in the order of the key."""
    table = rows.orderBy("wine_id").toPandas()
    return model.predict(table.drop(columns=["wine_id", "quality"]))


PARAMS = {"n_estimators": 50, "min_samples_leaf": 3, "random_state": 42}
TRAINING_CODE = "\n\n".join(inspect.getsource(function) for function in (fit_and_score, predict))

# %%
#
# Register the model, keep its rows
# ---------------------------------
# The registered model gets a number, its version. `snapshots.pin` gives the snapshot an **Iceberg
# tag** of that name: `ALTER TABLE ... CREATE TAG ... AS OF VERSION ...`. An MLflow tag is a remark
# on a run; an Iceberg tag is a name in the table, and what has a name does not expire. To do it
# again is harmless. Whoever deletes the model version may drop it: `snapshots.unpin`.
import mlflow
import numpy as np
import sklearn
from mlflow.models import infer_signature

store.use_store(EXPERIMENT)  # a local MLflow store on a laptop; CML brings its own
mlflow.end_run()  # close a run that an earlier cell left open
mlflow.set_experiment(EXPERIMENT)
rows = spark.sql(f"SELECT * FROM {TABLE} VERSION AS OF {second.snapshot_id}")
features = wines[:3].drop(columns=["wine_id", "quality"])
with mlflow.start_run(run_name="forest") as run:
    mlflow.set_tags(second.tags | {"row_count": rows.count()})
    dataset = mlflow.data.from_iceberg(rows, second)
    try:
        mlflow.log_input(dataset, context="training")
    except Exception as error:
        print(f"No dataset: this store refused it ({type(error).__name__}); see the tags")
    mlflow.log_params(PARAMS)
    mlflow.log_text(TRAINING_CODE, "training.py")
    model, metrics = fit_and_score(rows, PARAMS)
    mlflow.log_metrics(metrics)
    logged = mlflow.sklearn.log_model(
        model,
        "model",
        signature=infer_signature(features, model.predict(features)),
        pip_requirements=[
            f"{library.__name__.replace('sklearn', 'scikit-learn')}=={library.__version__}"
            for library in (sklearn, pd, np)
        ],
        serialization_format="cloudpickle",
        registered_model_name=REGISTERED_MODEL,
    )
    version = logged.registered_model_version
    if version is None:  # a managed store may not tell: ask for the version that this run made
        versions = mlflow.MlflowClient().search_model_versions(f"name = '{REGISTERED_MODEL}'")
        version = max(int(one.version) for one in versions if one.run_id == run.info.run_id)
    iceberg_tag = snapshots.pin(spark, TABLE, second.snapshot_id, REGISTERED_MODEL, version)
    mlflow.set_tags({"iceberg_tag": iceberg_tag, "registered_model": REGISTERED_MODEL})
    mlflow.set_tag("registered_version", str(version))
print(f"rmse {metrics['rmse']:.3f}; always guessing the mean: {metrics['baseline_rmse']:.3f}")
print(f"{REGISTERED_MODEL} version {version} keeps snapshot {second.snapshot_id}: {iceberg_tag}")

# %%
#
# Maintenance: everything older than now
# --------------------------------------
# The table grows once more, and all old snapshots expire. A real project would keep the last week.
# Left are the current snapshot, because the table needs it, and those with an Iceberg tag.
from datetime import datetime, timezone

spark.createDataFrame(wines[3000:]).writeTo(TABLE).append()
now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S.%f+00:00")
spark.sql(
    "CALL spark_catalog.system.expire_snapshots("
    f"table => 'default.wines', older_than => TIMESTAMP '{now}', retain_last => 1)"
)
for snapshot in (first, second):
    try:
        source = snapshots.by_id(spark, TABLE, snapshot.snapshot_id)
        kept = spark.sql(f"SELECT * FROM {TABLE} VERSION AS OF {source.snapshot_id}").count()
        print(f"snapshot {snapshot.snapshot_id} is kept: {kept} wines")
    except errors.SnapshotNotFound:
        print(f"snapshot {snapshot.snapshot_id} is gone")

# %%
#
# What that means
# ---------------
# The table has 4,898 wines now, the model knew 3,000, and these can still be read, row for row:
# to find out why it said what it said, or to train it again. 08_Reproduce_Run.py does that.
spark.stop()
print(
    f"Done: {REGISTERED_MODEL} version {version} and its {second.row_count} rows are kept "
    f"(run {run.info.run_id})\n"
    f"Look at: Model registry > {REGISTERED_MODEL}, and the tag iceberg_tag of the run.\n"
    f"Open the UI: {store.how_to_open_ui()}"
)
