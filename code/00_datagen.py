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
guessing gets 0.50 and 0.07 (on a million rows). If you measure clearly more, look for a mistake.
"""

# %%
#
# What to generate, and where
# ---------------------------
# In CML, `CONNECTION_NAME` names the data connection of your workbench (Project Settings > Data
# Connections). Set it as an environment variable, or change the default here. On a laptop it is
# not used: there, Spark runs locally and writes below `spark-warehouse/`.
from cmlflow import errors, options, snapshots, transactions
from cmlflow.spark import start_spark

CONNECTION_NAME = "go01-aw-dl"
TABLE = "spark_catalog.default.transactions"
LESSON = "code/00_datagen.py"
FIRST_DAY = 1704067200  # 2024-01-01 00:00 UTC, in seconds since 1970
DAYS_PER_BATCH = 30

parser = options.parser()
rows = options.whole_number(1, 10**9)
parser.add_argument("--rows", type=rows, default=10_000, help="rows to generate, up to 10**9")
seed = options.whole_number(0, 10**9)
parser.add_argument(
    "--seed", type=seed, default=42, help="0 to 10**9; the same gives the same rows"
)
parser.add_argument("--append", action="store_true", help="add a new batch of later transactions")
args = parser.parse_args()
try:
    spark = start_spark(CONNECTION_NAME)
    spark.conf.set("spark.sql.session.timeZone", "UTC")  # the zone of the dates printed below
    from pyspark.sql import functions as F

    print(f"{args.rows} rows to generate for {TABLE}")
except errors.SparkMissing as error:
    spark = None
    print(f"Skipped: {TABLE}, which 14_XGBoost_Iceberg.py reads. {str(error).splitlines()[0]}")

# %%
#
# Random numbers that belong to their rows
# ----------------------------------------
# Spark's own `rand(seed)` depends on how the rows are split among the cores. Here each number is a
# hash of seed, column and `transaction_id`. Spark can then generate the rows in parallel, without
# holding them in memory, and the same seed always gives the same table.
import math


def uniform(name, seed):
    """Return a column of numbers in the open interval (0, 1)."""
    bits = F.xxhash64(F.lit(seed), F.lit(name), F.col("transaction_id"))
    return (F.pmod(bits, F.lit(2**53)) + 0.5) / 2**53


def normal(name, seed):
    """Return standard normal numbers: two uniform ones make one (Box and Muller, 1958)."""
    radius = F.sqrt(-2 * F.log(uniform(name + " radius", seed)))
    return radius * F.cos(2 * math.pi * uniform(name + " angle", seed))


def features(first_id, first_second, rows, seed):
    """Return `rows` transactions as a Spark DataFrame, with ids from `first_id` upwards."""
    second = F.floor(uniform("second", seed) * DAYS_PER_BATCH * 86_400)
    columns = {
        "transaction_time": F.timestamp_seconds(second + first_second),
        "hour_of_day": F.floor((second % 86_400) / 36) / 100,
        "amount_usd": F.round(F.exp(3.5 + 1.1 * normal("amount", seed)), 2),
        "account_balance_usd": F.round(F.exp(7.5 + normal("balance", seed)), 2),
        "account_age_days": F.ceil(3650 * uniform("age", seed)).cast("double"),
        "transactions_last_day": F.floor(-2 * F.log(uniform("count", seed))).cast("double"),
        "home_latitude": F.round(30 + 18 * uniform("latitude", seed), 4),
        "home_longitude": F.round(-120 + 45 * uniform("longitude", seed), 4),
        "distance_from_home_km": F.round(F.exp(1.5 + 1.2 * normal("distance", seed)), 3),
        "card_present": (uniform("card", seed) < 0.7).cast("double"),
    }
    ids = spark.range(first_id, first_id + rows).withColumnRenamed("id", "transaction_id")
    return ids.withColumns(columns)


if spark is not None:
    print("Features:", ", ".join(features(0, FIRST_DAY, 1, args.seed).columns[2:]))

# %%
#
# The label
# ---------
# Six of the columns add up to the log-odds of fraud; the other three say nothing about it. Then a
# random number decides: even the riskiest transaction may be honest.
NIGHT, NEW_ACCOUNT, CARD_PRESENT = 1.5, 1.2, -1.0


def with_label(drawn, seed):
    """Return the transactions with a column `fraud_label`: 1 for fraud, else 0."""
    night = (F.col("hour_of_day") < 5).cast("double")
    new_account = (F.col("account_age_days") < 365).cast("double")
    risk = (  # the log-odds of fraud
        -4.0
        + 1.0 * (F.log("amount_usd") - 3.5)
        + 0.8 * (F.log("distance_from_home_km") - 1.5)
        + NIGHT * night
        + NEW_ACCOUNT * new_account
        + 0.3 * F.col("transactions_last_day")
        + CARD_PRESENT * F.col("card_present")
    )
    label = uniform("label", seed) < 1 / (1 + F.exp(-risk))
    return drawn.withColumn("fraud_label", label.cast("int"))


if spark is not None:
    print(
        f"The odds of fraud: at night times {math.exp(NIGHT):.1f}, for a new account times "
        f"{math.exp(NEW_ACCOUNT):.1f}, with the card present times {math.exp(CARD_PRESENT):.1f}"
    )

# %%
#
# Where the rows begin
# --------------------
# A data lake is shared, and others may have a table of this name too. Our table says who made it,
# in its property `made_by`; we leave any other table alone. `--append` adds rows that were not
# there before: later dates, the next ids, and another seed.
if spark is not None:
    snapshots.require_ours(spark, TABLE, made_by=LESSON)
    name = TABLE.removeprefix("spark_catalog.")
    first_id, first_second, seed = 0, FIRST_DAY, args.seed
    if args.append:
        if not spark.catalog.tableExists(name):
            raise errors.MissingStep(
                f"--append found no table {TABLE}.",
                "a table with a first batch",
                f"python {LESSON}",
            )
        one = with_label(features(0, FIRST_DAY, 1, args.seed), args.seed)
        transactions.require_same_columns(one, spark.table(TABLE), TABLE)
        last = F.max("transaction_id"), F.max(F.unix_timestamp("transaction_time"))
        with snapshots.readable(spark, TABLE):
            last_id, last_second = spark.table(TABLE).select(*last).first()
        if last_id is not None:  # None: the table has no rows, so this is its first batch
            transactions.require_room(last_id, last_second, TABLE)
            first_id, first_second = last_id + 1, (last_second // 86_400 + 1) * 86_400
            seed = args.seed + first_id
    print(f"The new ids begin at {first_id}")

# %%
#
# Write the table
# ---------------
# `createOrReplace` puts a new table in the place of the old one in a single commit: until then
# readers see the old rows, and a crash half-way leaves them untouched. `append` is one commit too.
# Every commit is a **snapshot**, and the table can be rolled back to the one before.
if spark is not None:
    batch = with_label(features(first_id, first_second, args.rows, seed), seed)
    if args.append:
        batch.writeTo(TABLE).append()
    else:
        batch.writeTo(TABLE).using("iceberg").tableProperty("made_by", LESSON).createOrReplace()
    print(f"{args.rows} rows with ids from {first_id}, seed {seed}")

# %%
#
# What is in it
# -------------
# Iceberg does not enforce unique keys: two sessions may start from the same last id, and both
# batches are kept. So we count the rows with our ids.
#
# About one transaction in fifteen is fraud. A model that always answers "no fraud" is therefore
# right for more than nine of ten rows and finds nothing: for such data, look at average precision.
if spark is not None:
    ours = F.col("transaction_id").between(first_id, first_id + args.rows - 1)
    rows, frauds, first, last, found = (
        spark.table(TABLE)
        .select(
            F.count("*"),
            F.sum("fraud_label"),
            F.date_format(F.min("transaction_time"), "yyyy-MM-dd"),
            F.date_format(F.max("transaction_time"), "yyyy-MM-dd"),
            F.sum(ours.cast("int")),
        )
        .first()
    )
    if found > args.rows:
        before = snapshots.current(spark, TABLE, made_by=LESSON).parent_id
        raise errors.LessonError(
            f"{found} rows of {TABLE} have the {args.rows} ids from {first_id}: another session "
            "appended at the same time.",
            "every id once",
            "To undo the last append, run in Spark:  CALL spark_catalog.system."
            f"rollback_to_snapshot('{name}', {before})",
        )
    spark.stop()
    print(f"Done: {rows} rows in {TABLE}, {frauds / rows:.1%} fraud, {first} to {last}")
