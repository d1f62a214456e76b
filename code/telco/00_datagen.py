"""
Telco 00 - Messages of cell towers, and what became of them

You learn  the data of a model in production: history with its truth, and room for what comes later
Reads      nothing
Writes     Iceberg tables spark_catalog.default.telco_cell_towers (7,200 messages of five days, with
           their truth) and, still empty, telco_messages, telco_predictions, telco_monitoring
Needs      Spark (in CML: a session with the Spark add-on); about 10 seconds
Run        python code/telco/00_datagen.py [--seed 42] [--rows-per-day 1440] [--days 5]

40 towers report 36 times a day. Will a tower fail within the next 24 hours? What a message cannot
know yet is its **truth**: it is known on the next day. The data are made up, learnable and without
leakage; every number is a hash of seed, column and message_id.
"""

# %%
#
# One message
# -----------
# Four signals, a score that the tower computes from three of them (and loses in a fifth of the
# messages), and how severe the event is that it reports. No message has a label.
from cmlflow import options, snapshots, towers
from cmlflow.spark import start_spark

CONNECTION_NAME = "go01-aw-dl"
NAMESPACE = "spark_catalog.default"
LESSON = "code/telco/00_datagen.py"

parser = options.parser()
seed = options.whole_number(0, 10**9)
help_seed = "0 to 10**9; the same gives the same rows"
parser.add_argument("--seed", type=seed, default=42, help=help_seed)
help_rows = "messages a day, 40 to 10**7"
rows_per_day = options.whole_number(40, 10**7)
parser.add_argument("--rows-per-day", type=rows_per_day, default=1440, help=help_rows)
days = options.whole_number(1, 1000)
parser.add_argument("--days", type=days, default=5, help="days of history, 1 to 1000")
args = parser.parse_args()

story = towers.Story(args.seed, args.rows_per_day)
print(towers.messages(story, [1]).loc[0].to_string())

# %%
#
# What can be learned, at best
# ----------------------------
# A model that knew the true probability would reach the **ceiling**: a score clearly above it means
# a leak. No column alone comes near it. In money: a truck sent in time saves 100, a quiet
# day earns 10, a truck for nothing costs 50, and a failure that was missed costs 100.
import numpy as np

from cmlflow import scores

some = towers.of_ids(story, np.arange(min(args.rows_per_day * args.days, 10**5)))
truth = towers.failures(story, some)
ceiling = scores.of(truth, towers.probability(story, some))
print(f"{ceiling['failure_share']:.1%} of {len(some)} messages announce a failure")
print(f"ceiling: roc_auc {ceiling['roc_auc']:.3f}, log loss {ceiling['log_loss']:.3f}, ", end="")
print(f"net revenue {ceiling['net_per_message']:.2f} per message")
print(f"no truck ever: {ceiling['net_never']:.2f}; one to each: {ceiling['net_always']:.2f}")
for name in towers.FEATURES:
    alone = scores.roc_auc(truth, some[name])
    print(f"  {name:14} alone: roc_auc {max(alone, 1 - alone):.3f}")

# %%
#
# Four tables
# -----------
# `telco_messages` feeds the endpoint and holds no label. `telco_cell_towers` holds the same
# messages once their truth is known. `telco_predictions` keeps what the endpoint answered, and
# `telco_monitoring` what we measured of it. Later scripts only ever **append**: an incremental read
# of Iceberg is silent about rows that came in any other way.
spark = start_spark(CONNECTION_NAME)
towers_table = f"{NAMESPACE}.telco_cell_towers"
features = ", ".join(f"{name} double" for name in towers.FEATURES)
empty = {
    f"{NAMESPACE}.telco_monitoring": "batch_id bigint, window bigint, kind string, feature string, "
    "value double, rows bigint, run_id string",
    f"{NAMESPACE}.telco_predictions": f"message_id bigint, batch_id bigint, {features}, "
    "probability double, version bigint, run_id string, requested_at timestamp, "
    "latency_ms double, prediction_uuid string",
    f"{NAMESPACE}.telco_messages": towers.in_spark(spark, story, [1]).schema,
}
for table in (*empty, towers_table):
    snapshots.require_ours(spark, table, made_by=LESSON)
print(f"To write: {towers_table}; empty: {', '.join(empty)}")

# %%
#
# Write them
# ----------
# What depends on other tables is emptied first. A crash half-way then never leaves old predictions
# beside new messages. Seed and rows a day go into the properties of the table: 03_newbatch.py
# carries the story on.
for table, schema in empty.items():
    nothing = spark.createDataFrame([], schema).writeTo(table).using("iceberg")
    with snapshots.writable(table):
        nothing.tableProperty("made_by", LESSON).createOrReplace()
history = towers.in_spark(spark, story, range(1, args.days + 1), labelled=True)
writer = history.writeTo(towers_table).using("iceberg").tableProperty("made_by", LESSON)
writer = writer.tableProperty(towers.SEED, str(args.seed))
writer = writer.tableProperty(towers.ROWS, str(args.rows_per_day))
with snapshots.writable(towers_table):
    writer.option("snapshot-property.telco-batch", str(args.days)).createOrReplace()

# %%
#
# What is in it
# -------------
found = spark.sql(
    f"SELECT batch_id AS day, count(*) AS messages, sum({towers.LABEL}) AS failures, "
    f"count(DISTINCT device_id) AS towers FROM {towers_table} GROUP BY 1 ORDER BY 1"
).toPandas()
spark.stop()
print(found.head(10).to_string(index=False))
print(
    f"Done: {found['messages'].sum()} messages of {len(found)} days in {towers_table}, "
    f"{found['failures'].sum() / found['messages'].sum():.1%} announce a failure\n"
    "Next: python code/telco/01_train_xgboost.py"
)
