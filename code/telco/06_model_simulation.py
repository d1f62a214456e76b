"""
Telco 06 - The messages reach the endpoint, one by one

You learn  to send every message once, to keep what was answered and by whom, and to stop well
Reads      Iceberg table spark_catalog.default.telco_messages, the endpoint "CellTwrFail-CLF"
Writes     Iceberg table spark_catalog.default.telco_predictions: one commit for each day
Needs      Spark (in CML: a session with the Spark add-on); telco/02_api_deployment.py and
           telco/03_newbatch.py; about 15 seconds for a day of 1,440 messages
Run        python code/telco/06_model_simulation.py [--rows-per-request 1] [--batch]
"""

# %%
#
# What has no answer yet?
# -----------------------
# Messages whose key is not among the predictions: so a run that was stopped goes on where it was,
# and no message is scored twice.
import mlflow

from cmlflow import errors, options, serving, snapshots, store, towers
from cmlflow.spark import start_spark

CONNECTION_NAME = "go01-aw-dl"
NAMESPACE = "spark_catalog.default"
MESSAGES, PREDICTIONS = f"{NAMESPACE}.telco_messages", f"{NAMESPACE}.telco_predictions"
MADE_BY = "code/telco/00_datagen.py"
MODEL, ENDPOINT = "CellTwrFail-CLF", "CellTwrFail-CLF"
DEPLOY = "python code/telco/02_api_deployment.py"

parser = options.parser()
help_rows = "messages in each request, 1 to 1000"
number = options.whole_number(1, 1000)
parser.add_argument("--rows-per-request", type=number, default=1, help=help_rows)
help_batch = "score in Spark instead, without the endpoint: for days that are too large for it"
parser.add_argument("--batch", action="store_true", help=help_batch)
args = parser.parse_args()

store.use_store()  # a local MLflow store on a laptop; CML brings its own
if serving.deployed(ENDPOINT) is None:
    raise errors.MissingStep(f"Nothing serves as {ENDPOINT!r}.", "a champion", DEPLOY)
spark = start_spark(CONNECTION_NAME)
for table in (MESSAGES, PREDICTIONS):
    snapshots.current(spark, table, made_by=MADE_BY)  # if it is missing, this says so
unscored = spark.sql(
    f"SELECT m.* FROM {MESSAGES} m LEFT ANTI JOIN {PREDICTIONS} p ON m.message_id = p.message_id"
)
waiting = unscored.groupBy("batch_id").count().orderBy("batch_id").toPandas()
for day, count in zip(waiting["batch_id"], waiting["count"], strict=True):
    print(f"day {day}: {count} messages wait")

# %%
#
# Send the messages of a day
# --------------------------
# Two connections at a time, each message as it is: an empty value stays empty. What comes back must
# be a probability. The time is what the sender waits, in milliseconds. If another version took the
# endpoint meanwhile, nobody knows which of the two has answered: then the day is sent again.
from cmlflow.serving import many


def score(rows, day):
    """Return who answered, and what came of the requests."""

    def progress(answered):
        if answered % max(len(rows) // 4, 1) == 0:
            print(f"day {day}: {answered} of {len(rows)} answered", flush=True)

    while True:
        before = serving.deployed(ENDPOINT)
        if before is None:
            raise errors.MissingStep(f"Nothing serves as {ENDPOINT!r} now.", "a champion", DEPLOY)
        sent = many.send_all(
            lambda payload: serving.send(ENDPOINT, payload),
            rows,
            towers.FEATURES,
            args.rows_per_request,
            progress=progress,
        )
        now = serving.deployed(ENDPOINT)
        if now is None or now.run_id == before.run_id:
            return before, sent
        print(f"day {day}: {now} took over meanwhile, so the day is sent again")


several = "s" * (args.rows_per_request > 1)
print(f"{args.rows_per_request} message{several} in a request, two requests at a time")

# %%
#
# A day is a commit
# -----------------
# Every row says which run answered. If the endpoint fails, what was answered is written first, and
# then the script says which message failed: its next run goes on from there.
import pandas as pd

schema = spark.table(PREDICTIONS).schema
latencies, total = [], 0
for day in [] if args.batch else waiting["batch_id"]:
    rows = unscored.where(f"batch_id = {day}").toPandas().sort_values("message_id")
    once = rows.drop_duplicates("message_id")
    if len(once) < len(rows):
        print(f"day {day}: {len(rows) - len(once)} messages are there twice; each is sent once")
    serves, sent = score(once, day)
    if len(sent.answered):
        new = once.merge(sent.answered, on="message_id")
        new = new.assign(version=serves.version, run_id=serves.run_id)[schema.names]
        writer = towers.frame(spark, new, schema).writeTo(PREDICTIONS)
        with snapshots.writable(PREDICTIONS):
            writer.option("snapshot-property.telco-batch", str(day)).append()
        latencies.append(sent.answered["latency_ms"])
        total += len(new)
    if sent.failed is not None:
        raise errors.ServingError(
            f"Message {sent.failed} of day {day} got no answer: {sent.reason} "
            f"{len(sent.answered)} of {len(once)} were answered, and are kept.",
            "a probability for each message",
            f"To go on, run:  {DEPLOY}, then this script again",
        )

# %%
#
# Or all in Spark
# ---------------
# `spark_udf` gives the model to Spark's executors. The answers are the endpoint's; there is no
# request whose time could be taken. It needs no memory here, however large the day is.
if args.batch:
    from pyspark.sql import functions as F

    serves = serving.deployed(ENDPOINT)
    mlflow.set_experiment("xgb-telco")  # CML finds a run by its id only after this
    uri = f"runs:/{serves.run_id}/model"
    udf = mlflow.pyfunc.spark_udf(spark, uri, result_type="double", env_manager="local")
    scored = unscored.dropDuplicates(["message_id"]).withColumns(
        {
            "probability": udf(F.struct(*towers.FEATURES)),
            "version": F.lit(serves.version).cast("bigint"),
            "run_id": F.lit(serves.run_id),
            "requested_at": F.current_timestamp(),
            "latency_ms": F.lit(None).cast("double"),
            "prediction_uuid": F.lit(""),
        }
    )
    for day in waiting["batch_id"]:
        writer = scored.where(f"batch_id = {day}").select(*schema.names).writeTo(PREDICTIONS)
        with snapshots.writable(PREDICTIONS):
            writer.option("snapshot-property.telco-batch", str(day)).append()
    total = int(waiting["count"].sum())

# %%
#
# What was answered
# -----------------
table = spark.sql(
    "SELECT batch_id AS day, version, count(*) AS answers, round(avg(probability), 3) AS mean, "
    f"round(percentile(latency_ms, 0.5), 1) AS median_ms FROM {PREDICTIONS} GROUP BY 1, 2 "
    "ORDER BY 1, 2"
).toPandas()
spark.stop()
print(table.tail(8).to_string(index=False))
took = ""
if latencies:
    every = pd.concat(latencies)
    took = (
        f", half of them within {every.median():.1f} ms, 99 % within {every.quantile(0.99):.1f} ms"
    )
print(f"Done: {total} messages answered{took}\nNext: python code/telco/07_model_monitoring.py")
