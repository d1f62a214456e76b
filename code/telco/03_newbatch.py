"""
Telco 03 - A day passes: messages, and the truth of yesterday

You learn  to append a batch once and only once, marked in the snapshot that it becomes
Reads      Iceberg tables spark_catalog.default.telco_cell_towers and telco_messages
Writes     the messages of the next day to telco_messages; to telco_cell_towers those of the day
           before, now that their truth is known
Needs      Spark (in CML: a session with the Spark add-on); telco/00_datagen.py; about 8 seconds
Run        python code/telco/03_newbatch.py [--day N] [--drift firmware] [--drift-from 8]

Every run is one day. The drift begins on day 8: `firmware` moves one signal and turns its meaning
round, `heat` moves three and changes no meaning, `silent` moves nothing and changes one meaning.
"""

# %%
#
# Which day?
# ----------
# The day after the newest that is there, or the one that you name. A day that is there already is
# left alone, and no day can be skipped: its truth would be missing for ever.
from cmlflow import errors, options, snapshots, towers
from cmlflow.spark import start_spark

CONNECTION_NAME = "go01-aw-dl"
NAMESPACE = "spark_catalog.default"
MESSAGES, TOWERS = f"{NAMESPACE}.telco_messages", f"{NAMESPACE}.telco_cell_towers"
MADE_BY = "code/telco/00_datagen.py"

parser = options.parser()
day = options.whole_number(1)
parser.add_argument("--day", type=day, help="by default the day after the newest")
help_drift = "what changes, from the day --drift-from on"
parser.add_argument("--drift", choices=towers.DRIFTS, default="firmware", help=help_drift)
parser.add_argument("--drift-from", type=day, default=8, help="the first drifted day")
args = parser.parse_args()

spark = start_spark(CONNECTION_NAME)
for table in (MESSAGES, TOWERS):
    snapshots.current(spark, table, made_by=MADE_BY)  # if it is missing, this says so
newest = spark.sql(
    f"SELECT max(batch_id) FROM (SELECT batch_id FROM {TOWERS} UNION ALL "
    f"SELECT batch_id FROM {MESSAGES})"
).first()[0]
day = newest + 1 if args.day is None else args.day
if day > newest + 1:
    raise errors.BadInput(
        f"Day {day} cannot come after day {newest}.",
        f"day {newest + 1}, the next one",
        "To take the next one, leave out:  --day",
    )
print(f"The newest day is {newest}; this run is about day {day}")

# %%
#
# The truth of the day before
# ---------------------------
# Whether a tower has failed within 24 hours is known a day later. Which drift there was on that day
# stands in the snapshot of its messages: a run of yesterday may have had other options.
has = {
    table: {row.batch_id for row in spark.sql(f"SELECT DISTINCT batch_id FROM {table}").collect()}
    for table in (MESSAGES, TOWERS)
}
yesterday, told = day - 1, []
if yesterday in has[MESSAGES] and yesterday not in has[TOWERS]:
    (kind, first) = spark.sql(
        "SELECT summary['telco-drift'], summary['telco-drift-from'] "
        f"FROM {MESSAGES}.snapshots WHERE summary['telco-batch'] = '{yesterday}'"
    ).first() or (args.drift, args.drift_from)
    then = towers.story_of(spark, TOWERS, kind, int(first))
    known = towers.in_spark(spark, then, [yesterday], labelled=True)
    with snapshots.writable(TOWERS):
        known.writeTo(TOWERS).option("snapshot-property.telco-batch", str(yesterday)).append()
    told.append(f"the truth of day {yesterday}")
print(f"Days whose truth is known: up to {max(has[TOWERS] | ({yesterday} if told else set()))}")

# %%
#
# The messages of the day
# -----------------------
# One day is one commit of Iceberg, so either all of it is there or nothing. The mark in the
# snapshot says which day it is; it is written in the same commit as the rows.
if day not in has[MESSAGES] | has[TOWERS]:
    story = towers.story_of(spark, TOWERS, args.drift, args.drift_from)
    new = towers.in_spark(spark, story, [day]).writeTo(MESSAGES)
    new = new.option("snapshot-property.telco-batch", str(day))
    new = new.option("snapshot-property.telco-drift", args.drift)
    with snapshots.writable(MESSAGES):
        new.option("snapshot-property.telco-drift-from", str(args.drift_from)).append()
    told.append(f"the messages of day {day}")
print("New:", " and ".join(told) or "nothing, this day is there already")

# %%
#
# Once and only once
# ------------------
# Iceberg enforces no unique keys. Two sessions that begin at the same moment could both append the
# same day, so we count what is there now.
for table, one in ((MESSAGES, day), (TOWERS, yesterday)):
    rows, keys = spark.sql(
        f"SELECT count(*), count(DISTINCT message_id) FROM {table} WHERE batch_id = {one}"
    ).first()
    if rows != keys:
        before = snapshots.current(spark, table, made_by=MADE_BY).parent_id
        raise errors.LessonError(
            f"{rows} rows of {table} have the {keys} keys of day {one}: another session appended "
            "the same day at the same time.",
            "every key once",
            "To undo the last append, run in Spark:  CALL spark_catalog.system."
            f"rollback_to_snapshot('{table.removeprefix('spark_catalog.')}', {before})",
        )
marks = spark.sql(
    "SELECT date_format(committed_at, 'HH:mm:ss') AS committed, operation, "
    f"summary['telco-batch'] AS day, summary['added-records'] AS messages FROM {TOWERS}.snapshots "
    "ORDER BY committed_at"
).toPandas()
spark.stop()
print(f"The snapshots of {TOWERS}:\n{marks.tail(5).to_string(index=False)}")
print(f"Done: {' and '.join(told) or f'day {day} is there already'}")
later = "python code/telco/04_train_xgboost.py, or 06_model_simulation.py"
print(f"Next: {later if len(marks) > 1 else 'this script once more'}")
