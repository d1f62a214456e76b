"""Generated messages of cell towers, and the failures that they announce.

40 towers report 36 times a day, and one day is one batch. A message has no label: whether its tower
fails within the next 24 hours is known a day later, so messages and failures are two functions.

Every number is a hash of seed, column and message_id. The same seed therefore gives the same rows,
whichever days are asked for, in whichever order, and on however many machines.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cmlflow.errors import BadInput

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from pyspark.sql import DataFrame, SparkSession

FEATURES = [
    "iot_signal_1",
    "iot_signal_2",
    "iot_signal_3",
    "iot_signal_4",
    "signal_score",
    "event_severity",
]
"""What a model may look at, in the order of its signature; all float64."""
LABEL = "cell_tower_failure"
KEY = "message_id"

TOWERS, ROWS_PER_DAY = 40, 1440
FIRST_DAY = "2024-01-01"
"""The date of day 1, in UTC."""
MAKERS = ("New World Corp", "AI Inc.", "Hot Data Ltd")
EVENTS = ("battery 10%", "battery 5%", "device error", "system malfunction")
"""By severity, 0 to 3."""
IN_DRIVER = 100_000
"""Up to so many rows are generated in one process."""
SEED, ROWS = "telco.seed", "telco.rows-per-day"
"""The properties of the table with the truth, from which 03 goes on."""
_SHARES_OF_EVENTS = (0.4, 0.3, 0.2, 0.1)
_SPARK_TYPES = {"message_id": "bigint", "batch_id": "bigint", "reported_at": "timestamp"}


@dataclass(frozen=True)
class Drift:
    """What changes on the first drifted day, all at once."""

    heat: float = 0.0
    """Standard deviations, about, by which fan load and temperature rise and the voltage falls."""
    noise: float = 0.0
    """What is added to iot_signal_4, the uplink noise."""
    turn: float = 0.0
    """What the slope of iot_signal_4 loses: its meaning turns round when this is above 0.9."""


DRIFTS = {
    "none": Drift(),
    "heat": Drift(heat=1.0),  # inputs move, their meaning does not
    "firmware": Drift(noise=1.5, turn=2.0),  # one signal moves, and means something else
    "silent": Drift(turn=2.0),  # no input moves; only the truth shows it
}


@dataclass(frozen=True)
class Story:
    """What decides every row.

    Raises:
        BadInput: there is no such kind of drift, or a number is too small.
    """

    seed: int = 42
    rows_per_day: int = ROWS_PER_DAY
    drift: str = "none"
    """A name in DRIFTS."""
    drift_from: int = 8
    """The first drifted day."""

    def __post_init__(self) -> None:
        """Refuse what would give no rows or wrong ones."""
        if self.drift not in DRIFTS:
            raise _bad(f"There is no drift called {self.drift!r}.", f"one of {', '.join(DRIFTS)}")
        if self.rows_per_day < 1 or self.drift_from < 1:
            raise _bad(
                f"{self.rows_per_day} rows a day, drift from day {self.drift_from}.", "1 or more"
            )


def ids(story: Story, day: int) -> range:
    """Return the message_ids of a day, in the order of time; day 1 begins at 0.

    Raises:
        BadInput: the day is before day 1.
    """
    if day < 1:
        raise _bad(f"There is no day {day}.", "1 or more")
    return range((day - 1) * story.rows_per_day, day * story.rows_per_day)


def messages(story: Story, days: Iterable[int]) -> pd.DataFrame:
    """Return the messages of these days, without their labels, as `of_ids` does.

    A thousand days fit into memory; for more, take one day after the other.
    """
    import numpy as np

    wanted = [np.arange(one.start, one.stop) for one in (ids(story, day) for day in days)]
    return of_ids(story, np.concatenate(wanted) if wanted else np.empty(0, "int64"))


def of_ids(story: Story, message_ids: np.ndarray) -> pd.DataFrame:
    """Return the messages with these ids, in this order.

    Returns:
        message_id, batch_id (the day; int64), reported_at (datetime64, UTC), device_id,
        manufacturer, event_type (text), longitude, latitude (float64, degrees) and FEATURES:
        iot_signal_1 (fan load, 1 to 10), iot_signal_2 (class of the cabinet's temperature, 1 to
        12), iot_signal_3 (supply voltage, 50 to 55), iot_signal_4 (uplink noise, dBm below zero,
        100 to 107), signal_score (0 to 100, from the three signals; lost in a fifth of the
        messages and replaced by a random one) and event_severity (0 to 3, of event_type).
    """
    import numpy as np
    import pandas as pd

    number = np.asarray(message_ids, dtype="int64")
    day, place = number // story.rows_per_day + 1, number % story.rows_per_day
    turn, towers_per_turn = place // TOWERS, min(TOWERS, story.rows_per_day)
    # The towers change places every turn. Were it not so, the rows with message_id % 5 == 0, on
    # which models are tested, would be those of eight towers only.
    tower = (place + turn) % towers_per_turn
    turns = -(-story.rows_per_day // TOWERS)
    second = (day - 1) * 86_400 + turn * 86_400 // turns

    drift = DRIFTS[story.drift]
    heat = np.where(day >= story.drift_from, drift.heat, 0.0)
    noise = np.where(day >= story.drift_from, drift.noise, 0.0)

    def uniform(column: str) -> np.ndarray:
        return _uniform(story.seed, column, number)

    def normal(column: str) -> np.ndarray:  # two uniform numbers make one (Box and Muller, 1958)
        radius = np.sqrt(-2 * np.log(uniform(column + " radius")))
        return radius * np.cos(2 * np.pi * uniform(column + " angle"))

    signal_1 = np.clip(np.rint(5.5 + 2.2 * normal("iot_signal_1") + 1.6 * heat), 1, 10)
    signal_2 = signal_1 + np.floor(3 * uniform("iot_signal_2"))
    signal_3 = 50 + np.clip(np.rint(2.5 + 1.3 * normal("iot_signal_3") - 0.9 * heat), 0, 5)
    signal_4 = 100 + np.clip(np.rint(3.5 + 1.7 * normal("iot_signal_4") + noise), 0, 7)
    score = 50 * (signal_1 - 1) / 9 + 30 * (55 - signal_3) / 5 + 20 * (signal_4 - 100) / 7
    lost = uniform("score lost") < 0.2
    severity = np.searchsorted(np.cumsum(_SHARES_OF_EVENTS[:-1]), uniform("event"), side="right")

    every = np.arange(TOWERS)  # what belongs to a tower stays the same in all its messages
    names = [f"0x{bits >> 12:013x}" for bits in _hash(story.seed, "device_id", every).tolist()]
    corner = _uniform(story.seed, "longitude", every) * _uniform(story.seed, "east", every)
    height = _uniform(story.seed, "latitude", every) * _uniform(story.seed, "north", every)
    return pd.DataFrame(
        {
            "message_id": number,
            "batch_id": day,
            "reported_at": pd.Timestamp(FIRST_DAY, tz="UTC") + pd.to_timedelta(second, unit="s"),
            "device_id": np.array(names, dtype=object)[tower],
            "manufacturer": np.array(MAKERS, dtype=object)[tower % len(MAKERS)],
            "event_type": np.array(EVENTS, dtype=object)[severity],
            "longitude": (corner + 10 - 93.6295)[tower],
            "latitude": (height + 10 + 41.5949)[tower],
            "iot_signal_1": signal_1,
            "iot_signal_2": signal_2,
            "iot_signal_3": signal_3,
            "iot_signal_4": signal_4,
            "signal_score": np.where(lost, 100 * uniform("score"), score),
            "event_severity": severity.astype("float64"),
        }
    )


def probability(story: Story, rows: pd.DataFrame) -> np.ndarray:
    """Return how probable a failure is, for each message: what no model can know better.

    Args:
        story: the one that the messages belong to.
        rows: messages, at least with batch_id and FEATURES; the order is free.
    """
    import numpy as np

    drifted = rows["batch_id"].to_numpy() >= story.drift_from
    s1, s2, s3, s4 = (rows[name].to_numpy(dtype="float64") for name in FEATURES[:4])
    slope = 0.9 - DRIFTS[story.drift].turn * drifted
    log_odds = (
        -2.5
        + (s1 - 5.5) / 2.2
        + 0.5 * (s2 - s1 - 1)
        + 0.9 * (52.5 - s3) / 1.3
        + slope * (s4 - 103.5) / 1.7
        + 0.5 * rows["event_severity"].to_numpy(dtype="float64")
        + 0.8 * ((s1 >= 8) & (s3 <= 51))
    )
    return 1 / (1 + np.exp(-log_odds))


def failures(story: Story, rows: pd.DataFrame) -> np.ndarray:
    """Return the truth: 1 if the tower failed within 24 hours of the message, else 0 (int64).

    Args:
        story: the one that the messages belong to.
        rows: messages, at least with message_id, batch_id and FEATURES; the order is free.
    """
    drawn = _uniform(story.seed, LABEL, rows[KEY].to_numpy(dtype="int64"))
    return (drawn < probability(story, rows)).astype("int64")


def with_failures(story: Story, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the same messages with their truth as the last column, LABEL."""
    return rows.assign(**{LABEL: failures(story, rows)})


def in_spark(
    spark: SparkSession, story: Story, days: Iterable[int], labelled: bool = False
) -> DataFrame:
    """Return the same rows as a Spark DataFrame.

    More than IN_DRIVER rows are generated by the executors part by part, whatever their number.
    Fewer are generated here, which takes less time than to start the executors' Python.

    Args:
        spark: a session.
        story: what decides every row.
        days: without a gap, such as range(1, 6).
        labelled: whether each message has its LABEL.
    """
    days = sorted(days)
    first, last = ids(story, days[0]), ids(story, days[-1])
    if len(days) != days[-1] - days[0] + 1:
        raise _bad(f"There are gaps in the days {days}.", "days that follow one another")

    def generate(parts: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        for part in parts:
            rows = of_ids(story, part["id"].to_numpy())
            yield with_failures(story, rows) if labelled else rows

    example = of_ids(story, first[:1])
    example = with_failures(story, example) if labelled else example
    texts = example.select_dtypes(object).columns
    types = {name: "string" if name in texts else "double" for name in example.columns}
    types |= _SPARK_TYPES | ({LABEL: "bigint"} if labelled else {})
    schema = ", ".join(f"{name} {kind}" for name, kind in types.items())
    if last.stop - first.start <= IN_DRIVER:
        rows = messages(story, days)
        return frame(spark, with_failures(story, rows) if labelled else rows, schema)
    return spark.range(first.start, last.stop).mapInPandas(generate, schema)


def frame(spark: SparkSession, rows: pd.DataFrame, schema: str) -> DataFrame:
    """Return a pandas DataFrame as one of Spark, in one partition, so that it becomes one file."""
    key = "spark.sql.execution.arrow.pyspark.enabled"
    before = spark.conf.get(key)
    spark.conf.set(key, "true")  # without Arrow, each value would be sent by itself
    try:
        return spark.createDataFrame(rows, schema).coalesce(1)
    finally:
        spark.conf.set(key, before)


def story_of(spark: SparkSession, table: str, drift: str = "none", drift_from: int = 8) -> Story:
    """Return the story of the day that 00 wrote into the properties of its table.

    Args:
        spark: a session.
        table: the one with the truth, telco_cell_towers.
        drift: as in Story.
        drift_from: as in Story.

    Raises:
        BadInput: the table has no such properties.
    """
    told = {row.key: row.value for row in spark.sql(f"SHOW TBLPROPERTIES {table}").collect()}
    try:
        seed, rows_per_day = (int(told[name]) for name in (SEED, ROWS))
    except (LookupError, ValueError):
        raise BadInput(
            f"{table} does not say from which seed its rows are.",
            f"the properties {SEED} and {ROWS}",
            "To write the tables anew, run:  python code/telco/00_datagen.py",
        ) from None
    return Story(seed, rows_per_day, drift, drift_from)


def ceiling(story: Story, rows: pd.DataFrame) -> dict[str, float]:
    """Return the scores of a model that knows the probability, as `scores.of` names them."""
    from cmlflow import scores

    return scores.of(failures(story, rows), probability(story, rows))


def _hash(seed: int, column: str, number: np.ndarray) -> np.ndarray:
    """Return 64 random bits for each number: SplitMix64 (Steele, Lea and Flood, 2014)."""
    import numpy as np

    key = hashlib.blake2b(f"{seed} {column}".encode(), digest_size=8).digest()
    bits = (number.astype("uint64") + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    bits += np.uint64(int.from_bytes(key, "little"))
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def _uniform(seed: int, column: str, number: np.ndarray) -> np.ndarray:
    """Return random numbers in the open interval (0, 1)."""
    return ((_hash(seed, column, number) >> 11) + 0.5) / 2**53


def _bad(found: str, expected: str) -> BadInput:
    cure = "To see the options, run:  python code/telco/00_datagen.py --help"
    return BadInput(found, expected, cure)
