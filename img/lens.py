"""The names of a store and its ids, and the lens through which a picture is taken.

No two stores have the same run ids, snapshot ids and times. The lens sits between browser and
server. In answers it puts ids that follow from names in place of those of this store, the same
second in place of all times, and one user and one folder in place of yours; in requests it puts the
ids of this store back. The store itself is only read.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote, urlencode, urlsplit

from cmlflow.errors import LessonError

FOLDER = "/home/you/lessons"
"""Where code/README.md says that the working area is."""
MOMENT_MS = 1_767_268_740_000
"""2026-01-01 11:59 UTC, a minute before the time that the browser's clock shows."""
SPREAD_MS = 900
"""All times lie within so many milliseconds, so that they keep their order."""
SNAPSHOT = re.compile(r"\d{15,19}")
EPOCH_MS = re.compile(r"(?<![\w.])1[5-9]\d{11}(?![\w.])")
NAMES = re.compile(r"\{([^{}/#@]+)(?:/([^{}#@]+))?(?:#(\d+))?(?:@([^{}:]+)(?::(\d+))?)?\}")
ISO_TIME = re.compile(r"\b20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+")


class NotInStore(LessonError, LookupError):
    """The store lacks an experiment or a run that a record names."""


class Store:
    """What the server at an address holds: experiments, runs and models by name.

    Args:
        address: of an MLflow server, without a slash at the end.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        with urllib.request.urlopen(f"{address}/version") as answer:
            self.version = answer.read().decode()
        found = self._ask("experiments/search", max_results=1000)["experiments"]
        self.experiments: dict[str, str] = {one["name"]: one["experiment_id"] for one in found}
        self.runs: dict[tuple[str, str, int], dict[str, Any]] = {}
        names = {number: name for name, number in self.experiments.items()}
        asked = list(names)
        runs = self._ask("runs/search", experiment_ids=asked, max_results=1000).get("runs", [])
        counts: Counter[tuple[str, str]] = Counter()
        for run in sorted(runs, key=lambda run: int(run["info"]["start_time"])):
            key = (names[run["info"]["experiment_id"]], run["info"]["run_name"])
            counts[key] += 1
            self.runs[(*key, counts[key])] = run
        models = self._ask("logged-models/search", experiment_ids=asked, max_results=50)
        self.models = [one["info"] for one in models.get("models", [])]
        while token := models.get("next_page_token"):
            models = self._ask(
                "logged-models/search", experiment_ids=asked, max_results=50, page_token=token
            )
            self.models += [one["info"] for one in models.get("models", [])]
        location = next(
            one["artifact_location"] for one in found if "/mlartifacts/" in one["artifact_location"]
        )
        self.folder = unquote(urlsplit(location).path.partition("/mlartifacts/")[0])

    def _ask(self, operation: str, **body: Any) -> dict[str, Any]:
        """Return the answer to one operation of MLflow's REST API; without a body it is read."""
        request = urllib.request.Request(
            f"{self.address}/api/2.0/mlflow/{operation}",
            data=json.dumps(body).encode() if body else None,
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    def filled_in(self, text: str, shown: Callable[[str], str] = str) -> str:
        """Return a text with the ids and values that its names in braces stand for.

        `{experiment}` and `{experiment/run}` are ids, of the first run of this name,
        `{experiment/run#2}` that of the second; `{experiment/run@tag}` is the value of a tag, and
        `{experiment/run@model}` the id of the model that the run logged. With `:4` before the
        bracket, only the first four characters are meant.

        Args:
            text: with names in braces.
            shown: what the browser sees in place of an id or a value.

        Raises:
            NotInStore: there is no experiment, run, tag or model of this name.
        """

        def value(match: re.Match[str]) -> str:
            experiment, name, ordinal, tag, length = match.groups()
            try:
                if name is None:
                    found = self.experiments[experiment]
                else:
                    run = self.runs[experiment, name, int(ordinal or 1)]
                    if tag is None:
                        found = run["info"]["run_id"]
                    elif tag == "model":
                        found = run["outputs"]["model_outputs"][0]["model_id"]
                    else:
                        found = _value(run["data"]["tags"], tag)
            except LookupError:
                raise _absent(match[0]) from None
            return shown(found)[: int(length) if length else None]

        return NAMES.sub(value, text)

    def run(self, name: str) -> dict[str, Any]:
        """Return the first run that is named as `experiment/run`.

        Raises:
            NotInStore: there is none.
        """
        experiment, _, run = name.partition("/")
        if (experiment, run, 1) not in self.runs:
            raise _absent(f"run {name}")
        return self.runs[experiment, run, 1]

    def metric(self, run: str, name: str) -> float:
        """Return the last value of a metric of a run that is named as `experiment/run`.

        Raises:
            NotInStore: there is no such run, or no such metric of it.
        """
        try:
            return float(_value(self.run(run)["data"]["metrics"], name))
        except LookupError:
            raise _absent(f"metric {name} of {run}") from None

    def param(self, run: str, name: str) -> str:
        """Return a param of a run that is named as `experiment/run`.

        Raises:
            NotInStore: there is no such run, or no such param of it.
        """
        try:
            return _value(self.run(run)["data"]["params"], name)
        except LookupError:
            raise _absent(f"param {name} of {run}") from None

    def curve(self, run: str, metric: str) -> dict[int, float]:
        """Return all values of a metric by step, of a run that is named as `experiment/run`.

        Raises:
            NotInStore: there is no such run, or no such metric of it.
        """
        asked = {"run_id": self.run(run)["info"]["run_id"], "metric_key": metric}
        operation = f"metrics/get-history?{urlencode(asked)}"
        found = self._ask(operation).get("metrics", [])
        if not found:
            raise _absent(f"metric {metric} of {run}")
        return {int(one["step"]): one["value"] for one in found}

    def snapshots(self) -> list[str]:
        """Return the ids of Iceberg snapshots in tags and datasets, in the order of the runs."""
        found: dict[str, None] = {}
        for run in self.runs.values():
            tags = sorted(run["data"].get("tags", []), key=lambda tag: tag["key"])
            inputs = run.get("inputs", {}).get("dataset_inputs", [])
            values = [tag["value"] for tag in tags]
            values += [one["dataset"]["digest"] for one in inputs]
            found |= dict.fromkeys(value for value in values if SNAPSHOT.fullmatch(value))
        return list(found)


class Lens:
    """Ids that follow from names, in place of those of a store."""

    def __init__(self, store: Store) -> None:
        self.shown: dict[str, str] = {}
        for (experiment, name, ordinal), run in store.runs.items():
            number = _digest(f"run {experiment}, {name}, {ordinal}")
            self.shown[run["info"]["run_id"]] = number[:32]
        counts: Counter[str] = Counter()
        for model in sorted(store.models, key=lambda model: int(model["creation_timestamp_ms"])):
            source = self.shown.get(model.get("source_run_id", ""), "")
            counts[source] += 1
            number = _digest(f"model of {source}, {counts[source]}")
            self.shown[model["model_id"]] = f"m-{number[:32]}"
        for position, snapshot in enumerate(store.snapshots()):
            number = int(_digest(f"snapshot {position}"), 16) % 9 * 10**18
            self.shown[snapshot] = str(number + int(_digest(f"rest {position}"), 16) % 10**18)
        self.real = {shown: real for real, shown in self.shown.items()}
        self.folder = store.folder
        users = {run["info"].get("user_id") for run in store.runs.values()}
        self.users = [json.dumps(user) for user in users if user]
        self.begin_ms = min(int(run["info"]["start_time"]) for run in store.runs.values())
        self.end_ms = time.time_ns() // 1_000_000

    def answer(self, text: str) -> str:
        """Return what the browser gets in place of an answer of the server."""
        text = _replaced(text, self.shown).replace(self.folder, FOLDER)
        for user in self.users:
            text = text.replace(user, '"you"')
        return ISO_TIME.sub("2026-01-01T11:59:00.000", EPOCH_MS.sub(self._moment, text))

    def _moment(self, time_ms: re.Match[str]) -> str:
        """Return the time that is shown for another: later ones stay later, all in one second."""
        share = (int(time_ms[0]) - self.begin_ms) / (self.end_ms - self.begin_ms)
        return str(MOMENT_MS + int(SPREAD_MS * min(max(share, 0), 1)))

    def request(self, text: str) -> str:
        """Return what the server gets in place of a request of the browser."""
        return _replaced(text, self.real)


def _value(pairs: list[dict[str, Any]], key: str) -> Any:
    """Return the value of a tag, a param or a metric of a run; LookupError if absent."""
    return {one["key"]: one["value"] for one in pairs}[key]


def _absent(what: str) -> NotInStore:
    return NotInStore(
        f"This store has no {what}.",
        "what all lessons leave",
        "To run all of them, run:  make tutorial telco",
    )


def _digest(text: str) -> str:
    """Return the hash of a text, in hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def _replaced(text: str, others: dict[str, str]) -> str:
    """Return a text in which each key of a table is replaced by its value."""
    pattern = re.compile("|".join(map(re.escape, others)))
    return pattern.sub(lambda match: others[match[0]], text)
