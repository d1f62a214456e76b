"""
00 - Generate bank transactions with a fraud label

You learn  how data reach an Iceberg table through a CML data connection
Reads      nothing
Writes     Iceberg table spark_catalog.default.transactions: 10,000 rows, 12 columns;
           a table of this name is replaced only if a lesson made it
Needs      Spark (in CML: a session with the Spark add-on); about 15 seconds
Run        python code/00_datagen.py [--rows 10000] [--seed 42] [--append]

The data are made up: seeded, learnable and without leakage. The label is drawn at random with a
probability that follows from six columns, so nobody can predict it without error. A model that
knew this probability would reach a ROC AUC of 0.88 and an average precision of 0.44, where
guessing gets 0.50 and 0.07 (on a million rows). Whoever reports clearly more has made a mistake.
"""

# %%
#
# What to generate, and where
# ---------------------------
# In CML, `CONNECTION_NAME` names the data connection of your workbench (Project Settings > Data
# Connections). Set it as an environment variable, or change the default here. On a laptop it is
# not used: there, Spark runs locally and writes below `spark-warehouse/`.
from cmlflow import errors, options, snapshots
from cmlflow.errors import SparkMissing
from cmlflow.spark import start_spark

CONNECTION_NAME = "go01-aw-dl"
TABLE = "spark_catalog.default.transactions"
LESSON = "code/00_datagen.py"
FIRST_DAY = 1704067200  # 2024-01-01 00:00 UTC, in seconds since 1970
DAYS_PER_BATCH = 30

parser = options.parser()
number = options.whole_number(1)
parser.add_argument("--rows", type=number, default=10_000, help="rows to generate, 1 or more")
parser.add_argument("--seed", type=int, default=42, help="the same seed gives the same rows")
parser.add_argument("--append", action="store_true", help="add a new batch of later transactions")
args = parser.parse_args()
try:
    spark = start_spark(CONNECTION_NAME)
except SparkMissing as error:
    spark = None
    print(f"Done: skipped {TABLE}, which 07 needs. {str(error).splitlines()[0]}")

# %%
#
# A random number that belongs to its row
# ---------------------------------------
# Spark's own `rand(seed)` gives other numbers when the rows are split among other cores. Here each
# number is a hash of seed, column and `transaction_id`. So Spark generates in parallel, without
# holding the rows in memory, and one seed still means one table.
import math

if spark is not None:
    from pyspark.sql import functions as F


def transactions(first_id, first_second, rows, seed):
    """Return `rows` transactions as a Spark DataFrame, with ids from `first_id` upwards."""

    def uniform(name):  # in the open interval (0, 1)
        bits = F.xxhash64(F.lit(seed), F.lit(name), F.col("transaction_id"))
        return (F.pmod(bits, F.lit(2**53)) + 0.5) / 2**53

    def normal(name):  # Box and Muller (1958): two uniform numbers make one standard normal one
        radius = F.sqrt(-2 * F.log(uniform(name + " radius")))
        return radius * F.cos(2 * math.pi * uniform(name + " angle"))

    second = F.floor(uniform("second") * DAYS_PER_BATCH * 86_400)
    drawn = (
        spark.range(first_id, first_id + rows)
        .withColumnRenamed("id", "transaction_id")
        .withColumn("transaction_time", F.timestamp_seconds(second + first_second))
        .withColumn("hour_of_day", F.floor((second % 86_400) / 36) / 100)
        .withColumn("amount_usd", F.round(F.exp(3.5 + 1.1 * normal("amount")), 2))
        .withColumn("account_balance_usd", F.round(F.exp(7.5 + normal("balance")), 2))
        .withColumn("account_age_days", F.ceil(3650 * uniform("age")).cast("double"))
        .withColumn("transactions_last_day", F.floor(-2 * F.log(uniform("count"))).cast("double"))
        .withColumn("home_latitude", F.round(30 + 18 * uniform("latitude"), 4))
        .withColumn("home_longitude", F.round(-120 + 45 * uniform("longitude"), 4))
        .withColumn("distance_from_home_km", F.round(F.exp(1.5 + 1.2 * normal("distance")), 3))
        .withColumn("card_present", (uniform("card") < 0.7).cast("double"))
    )
    night = (F.col("hour_of_day") < 5).cast("double")
    new_account = (F.col("account_age_days") < 365).cast("double")
    risk = (  # the log-odds of fraud
        -4.0
        + 1.0 * (F.log("amount_usd") - 3.5)
        + 0.8 * (F.log("distance_from_home_km") - 1.5)
        + 1.5 * night
        + 1.2 * new_account
        + 0.3 * F.col("transactions_last_day")
        - 1.0 * F.col("card_present")
    )
    label = uniform("label") < 1 / (1 + F.exp(-risk))
    return drawn.withColumn("fraud_label", label.cast("int"))


# %%
#
# Where the rows begin
# --------------------
# A data lake is shared, and others may have a table of this name too. Ours says who made it, in
# its property `made_by`; any other is left alone. `--append` adds rows that were not there
# before: later dates, the next ids, and another seed.
if spark is not None:
    snapshots.require_ours(spark, TABLE, made_by=LESSON)
    first_id, first_second, seed = 0, FIRST_DAY, args.seed
    if args.append:
        if not spark.catalog.tableExists("default.transactions"):
            raise errors.MissingStep(
                f"--append found no table {TABLE}.",
                "a table with a first batch",
                f"python {LESSON}",
            )
        last_id, last_second = (
            spark.table(TABLE)
            .select(F.max("transaction_id"), F.max(F.unix_timestamp("transaction_time")))
            .first()
        )
        if last_id is not None:  # None: the table has no rows, so this is its first batch
            first_id, first_second = last_id + 1, (last_second // 86_400 + 1) * 86_400
            seed = args.seed + first_id

# %%
#
# Write the table
# ---------------
# `createOrReplace` puts a new table in the place of the old one in a single commit: until then
# readers see the old rows, and a crash half-way leaves them untouched. `append` is one commit too.
# But Iceberg knows no keys: two sessions that append to a shared lake at the same time may both
# find the same last id, and both batches stay. So we count our ids afterwards. Every commit is a
# snapshot, and the table can be rolled back to the one before.
if spark is not None:
    batch = transactions(first_id, first_second, args.rows, seed)
    if args.append:
        batch.writeTo(TABLE).append()
    else:
        batch.writeTo(TABLE).using("iceberg").tableProperty("made_by", LESSON).createOrReplace()
    ours = F.col("transaction_id").between(first_id, first_id + args.rows - 1)
    found = spark.table(TABLE).where(ours).count()
    if found > args.rows:
        before = snapshots.current(spark, TABLE, made_by=LESSON).parent_id
        raise errors.LessonError(
            f"{found} rows of {TABLE} have the {args.rows} ids from {first_id}: another session "
            "appended at the same time.",
            "every id once",
            "To undo the last append, run in Spark:  CALL spark_catalog.system."
            f"rollback_to_snapshot('default.transactions', {before})",
        )
    print(f"{args.rows} rows with ids from {first_id}, seed {seed}")

# %%
#
# What is in it
# -------------
# About one transaction in fifteen is fraud. A model that always answers "no fraud" is therefore
# right for more than nine of ten rows and finds nothing: for such data, look at average precision.
if spark is not None:
    rows, frauds, first, last = (
        spark.table(TABLE)
        .select(
            F.count("*"),
            F.sum("fraud_label"),
            F.date_format(F.min("transaction_time"), "yyyy-MM-dd"),
            F.date_format(F.max("transaction_time"), "yyyy-MM-dd"),
        )
        .first()
    )
    spark.stop()
    print(f"Done: {rows} rows in {TABLE}, {frauds / rows:.1%} fraud, {first} to {last}")
