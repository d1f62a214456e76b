"""Many requests to one endpoint, some at a time, up to the first that fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from cmlflow.errors import LessonError, ServingError
from cmlflow.serving.answers import Answer

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ["message_id", "probability", "requested_at", "latency_ms", "prediction_uuid"]


@dataclass(frozen=True)
class Sent:
    """What came of many requests."""

    answered: pd.DataFrame
    """A row for each message that was answered, with COLUMNS."""
    failed: int | None
    """The first message of the request that failed; None if none has."""
    reason: str
    """What is wrong with it; empty if nothing."""


def send_all(
    send: Callable[[dict], Answer],
    rows: pd.DataFrame,
    features: list[str],
    rows_per_request: int = 1,
    connections: int = 2,
    progress: Callable[[int], None] = lambda answered: None,
) -> Sent:
    """Send all rows to an endpoint; after the first failure, no further request begins.

    Args:
        send: sends one payload.
        rows: message_id and the features; an empty value is sent as null.
        features: the inputs of the model, which must answer a probability for each row.
        rows_per_request: rows in one request.
        connections: requests at a time.
        progress: told, now and then, how many rows have been answered.
    """
    import pandas as pd

    stop, found, failures = threading.Event(), [], []

    def ask(part: pd.DataFrame) -> list[tuple]:
        if stop.is_set():
            return []
        values = part[features].astype(object).where(part[features].notna(), None)
        payload = {"dataframe_split": values.to_dict(orient="split", index=False)}
        at, begin = datetime.now(timezone.utc), time.perf_counter()
        try:
            answer = send(payload)
            latency_ms = 1000 * (time.perf_counter() - begin)
            probabilities = answer.predictions()
            good = ((probabilities >= 0) & (probabilities <= 1)).all()
            if len(probabilities) != len(part) or not good:
                raise ServingError(
                    f"The answer is {probabilities.tolist()[:5]}.",
                    "a probability for each message",
                    "To see what is served, run:  python code/telco/02_api_deployment.py",
                )
        except LessonError as error:
            stop.set()
            failures.append((int(part["message_id"].iloc[0]), error.found))
            return []
        answered = zip(part["message_id"], probabilities, strict=True)
        return [(int(key), float(one), at, latency_ms, answer.uuid) for key, one in answered]

    parts = [
        rows.iloc[one : one + rows_per_request] for one in range(0, len(rows), rows_per_request)
    ]
    with ThreadPoolExecutor(connections) as pool:
        for answers in pool.map(ask, parts):
            found += answers
            if answers:
                progress(len(found))
    failed, reason = min(failures, default=(None, ""))
    return Sent(pd.DataFrame(found, columns=COLUMNS), failed, reason)
