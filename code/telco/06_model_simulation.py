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
# Send, and take the time
# -----------------------
# Two connections at a time, each message as it is: an empty value stays empty. What comes back must
# be a probability. The time is what the sender waits, in milliseconds. On a laptop a new connection
# for each request costs a tenth of a millisecond; in CML the connection is kept.
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone

import pandas as pd

CONNECTIONS = 2


def ask(rows, stop):
    """Send one request; return a row for each message, or the error and the message it met."""
    if stop.is_set():
        return []
    split = rows[towers.FEATURES].astype(object).where(rows[towers.FEATURES].notna(), None)
    request = {"dataframe_split": split.to_dict(orient="split", index=False)}
    at, begin = datetime.now(timezone.utc), time.perf_counter()
    try:
        answer = serving.send(ENDPOINT, request)
        latency_ms = 1000 * (time.perf_counter() - begin)
        probabilities = answer.predictions()
        if (
            len(probabilities) != len(rows)
            or not ((probabilities >= 0) & (probabilities <= 1)).all()
        ):
            raise errors.ServingError(f"The answer is {probabilities}.", "probabilities", DEPLOY)
    except errors.LessonError as error:
        stop.set()
        return [(int(rows["message_id"].iloc[0]), error)]
    return [
        (message_id, probability, at, latency_ms, answer.uuid)
        for message_id, probability in zip(rows["message_id"], probabilities, strict=True)
    ]


def score(rows, day):
    """Send all messages of a day; return what was answered, and the first failure or None."""
    stop, told = threading.Event(), 0
    size = args.rows_per_request
    parts = [rows.iloc[begin : begin + size] for begin in range(0, len(rows), size)]
    found, failures = [], []
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        for answers in pool.map(lambda part: ask(part, stop), parts):
            for one in answers:
                (failures if len(one) == 2 else found).append(one)
            if 4 * len(found) >= len(rows) * (told + 1):
                told = 4 * len(found) // len(rows)
                print(f"day {day}: {len(found)} of {len(rows)} answered", flush=True)
    columns = ["message_id", "probability", "requested_at", "latency_ms", "prediction_uuid"]
    return pd.DataFrame(found, columns=columns), failures[0] if failures else None


print(f"To send: {args.rows_per_request} in each request, {CONNECTIONS} connections")

# %%
#
# A day is a commit
# -----------------
# Every row says which run answered. If another version took the endpoint meanwhile, nobody knows
# which of the two it was: then the day is sent again. If the endpoint fails, what was answered is
# written first, and then the script says which message failed.
schema = spark.table(PREDICTIONS).schema
latencies, sent = [], 0
for day in [] if args.batch else waiting["batch_id"]:
    rows = unscored.where(f"batch_id = {day}").toPandas().sort_values("message_id")
    once = rows.drop_duplicates("message_id")
    if len(once) < len(rows):
        print(f"day {day}: {len(rows) - len(once)} messages are there twice; each is sent once")
    while True:
        before = serving.deployed(ENDPOINT)
        if before is None:
            raise errors.MissingStep(f"Nothing serves as {ENDPOINT!r} now.", "a champion", DEPLOY)
        answered, failure = score(once, day)
        now = serving.deployed(ENDPOINT)
        if now is None or now.run_id == before.run_id:
            break
        print(f"day {day}: {now} took over meanwhile, so the day is sent again")
    if len(answered):
        new = once.merge(answered, on="message_id")
        new = new.assign(version=before.version, run_id=before.run_id)[schema.names]
        writer = towers.frame(spark, new, schema).writeTo(PREDICTIONS)
        with snapshots.writable(PREDICTIONS):
            writer.option("snapshot-property.telco-batch", str(day)).append()
        latencies.append(answered["latency_ms"])
        sent += len(answered)
    if failure is not None:
        message_id, error = failure
        raise errors.ServingError(
            f"Message {message_id} of day {day} got no answer: {error.found} "
            f"{len(answered)} of {len(once)} were answered, and are kept.",
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
    sent = int(waiting["count"].sum())

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
print(f"Done: {sent} messages answered{took}\nNext: python code/telco/07_model_monitoring.py")
