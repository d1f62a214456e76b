"""What the workbench knows: its tables, ids and clock, and how a call is answered from them."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import shutil
import string
import tempfile
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path

from workbench.surface import MODELS, NEVER, OPERATIONS, Refused, answer
from workbench.switches import Switches

LETTERS = string.ascii_lowercase + string.digits
USER = {"username": "learner", "name": "A Learner", "email": "learner@example.org"}
ACCOUNT = uuid.UUID("2f2a6e0e-6a3c-4f55-9a0e-4d2b8f1c7a10")
WORKSPACE = uuid.UUID("7c1d9b52-0b0f-4c3f-8f7e-5e6a1d2c3b40")
TABLES = ("projects", "models", "builds", "deployments", "jobs", "job_runs", "applications")


def new_id() -> str:
    """Return an id such as fsas-zz3o-mwmi-gg0g."""
    return "-".join("".join(secrets.choice(LETTERS) for _ in range(4)) for _ in range(4))


def steady_id(*words: object) -> str:
    """Return an id of that form which is always the same for these words."""
    number = int.from_bytes(hashlib.sha256(json.dumps(words).encode()).digest(), "big")
    letters = [LETTERS[number // 36**place % 36] for place in range(16)]
    return "-".join("".join(letters[start : start + 4]) for start in range(0, 16, 4))


def crn(kind_id: str) -> str:
    """Return the CRN whose tail is an id."""
    return f"crn:cdp:ml:us-west-1:{ACCOUNT}:workspace:{WORKSPACE}/{kind_id}"


class State:
    """The tables; hold `lock` while reading or changing them.

    A row is a dict of the fields of its model; names with `_` in front are the server's own. The
    tables keep the order in which their rows were made.
    """

    def __init__(self, area: Path, root: Path, switches: Switches, session: dict[str, str]) -> None:
        self.lock = threading.RLock()
        self.area, self.session, self.switches = area, session, switches
        self.key = secrets.token_hex(32)
        self.address = ""  # known when the port is
        self.folder = Path(tempfile.mkdtemp(prefix="workbench-"))
        self.requests: Counter[str] = Counter()
        self.rows: dict[str, dict[str, dict]] = {table: {} for table in TABLES}
        self.raced: set[str] = set()  # creates that another session has won, see `conflict`
        self.own_versions: dict[str, list[dict]] = {}  # of `separate-registry`
        self.version_facts: dict[str, dict] = {}  # by id: what MLflow's registry has no place for
        self.registered_facts: dict[str, dict] = {}
        self.experiment_project: dict[str, str] = {}
        self.deleted_values: set[tuple[str, str, str]] = set()
        self.counter, self.last = 0, NEVER
        self.own_project = session.get("CDSW_PROJECT_ID") or "abcd-efgh-ijkl-mnop"
        own = self.add_project(self.own_project, {"name": "tutorial"}, root)
        own |= {"creation_status": "success", "_plan": []}

    def forget(self) -> None:
        """Empty the tables, but for the session's own project; runs and versions are MLflow's."""
        with self.lock:
            own = self.rows["projects"][self.own_project]
            for rows in self.rows.values():
                rows.clear()
            self.rows["projects"][self.own_project] = own
            for facts in (self.requests, self.raced, self.own_versions, self.version_facts):
                facts.clear()
            self.registered_facts.clear()

    def add_project(self, project_id: str, wanted: dict, root: Path | None = None) -> dict:
        """Add a project; its files are those of `root`, or of a new folder."""
        if root is None:
            root = self.folder / "projects" / project_id
            root.mkdir(parents=True)
        return self.add(
            "projects",
            {
                "id": project_id,
                "name": wanted["name"],
                "owner": USER,
                "creator": USER,
                "description": wanted.get("description", ""),
                "visibility": wanted.get("visibility", "private"),
                "default_engine_type": wanted.get("default_project_engine_type", "ml_runtime"),
                "creation_status": "unknown",
                "permissions": dict.fromkeys(MODELS["ProjectPermissions"]["fields"], True),
                "shared_memory_limit": wanted.get("shared_memory_limit", 0),
                "environment": wanted.get("environment", {}),
                "_root": root,
                "_plan": ["creating", "success"],
            },
        )

    def now(self) -> datetime:
        """Return the time of the workbench's clock, later than each time returned before."""
        tick = timedelta(microseconds=1)
        time = self.last = max(datetime.now(timezone.utc), self.last + 2 * tick)
        time += tick * (time.microsecond % 1000 == 0)
        return time - timedelta(hours=1) * ("clock-skew" in self.switches)

    def never(self) -> datetime | None:
        """Return the time of what has not happened yet."""
        return None if "null-times" in self.switches else NEVER

    def tick(self) -> int:
        """Return a number greater than all before."""
        self.counter += 1
        return self.counter

    def add(self, table: str, row: dict) -> dict:
        """Add a row to a table, with the times of now."""
        row["created_at"] = self.now()
        if table != "job_runs":
            row["updated_at"] = row["created_at"]
        self.rows[table][row["id"]] = row
        return row

    def find(self, table: str, row_id: str, **parents: str) -> dict:
        """Return a row of a table that belongs to these.

        Raises:
            Refused: there is none.
        """
        row = self.rows[table].get(row_id)
        if row is None or any(row.get(name) != value for name, value in parents.items()):
            raise Refused(404, f"{table.rstrip('s').replace('_', ' ')} {row_id} not found")
        return row

    def of(self, table: str, **parents: str) -> list[dict]:
        """Return the rows of a table that belong to these, oldest first."""
        return [
            row
            for row in self.rows[table].values()
            if all(row.get(name) == value for name, value in parents.items())
        ]

    def move_on(self, row: dict) -> dict:
        """Give a row that was asked for the next of the states in its plan."""
        if row.get("_plan"):
            name = "creation_status" if "creation_status" in row else "status"
            row[name] = row["_plan"].pop(0)
            row["updated_at"] = self.now()
        return row

    def refuse(self, status: int, message: str) -> Refused:
        """Return a refusal whose status nobody recorded."""
        return Refused(500 if "refusals-500" in self.switches else status, message)

    def close(self) -> None:
        """Remove what was only for this server."""
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass
class Call:
    """One call of an operation: who asks for what."""

    state: State
    operation: str
    ids: dict[str, str]
    query: dict[str, str]
    body: dict = field(default_factory=dict)
    raw: bytes = b""
    content_type: str = ""

    def __getitem__(self, name: str) -> str:
        """Return an id of the path."""
        return self.ids[name]

    @property
    def project(self) -> dict:
        """The project of the path."""
        name = "project_id" if "project_id" in self.ids else "experiment_project_id"
        return self.state.find("projects", self.ids[name])

    def whole(self, name: str, otherwise: int) -> int:
        """Return a number of the query."""
        try:
            return int(self.query.get(name) or otherwise)
        except ValueError:
            raise Refused(400, f"parsing field {name!r}: invalid number") from None

    def page(
        self,
        rows: Iterable[dict],
        lookup: Callable[[dict, str], object] | None = None,
        aliases: dict[str, str] | None = None,
    ) -> dict:
        """Return the answer of a list call: filtered, sorted, and cut into pages."""
        switches, lookup = self.state.switches, lookup or dotted
        rows = list(rows)
        if "newest-first" in switches:
            rows.reverse()
        if "any-order" in switches:
            rows.sort(key=lambda row: hashlib.sha256(repr(row).encode()).digest())
        for key, wanted in self.filter().items():
            key = (aliases or {}).get(key, key)
            rows = [row for row in rows if fits(lookup(row, key), wanted, key)]
        for key in reversed([key for key in self.query.get("sort", "").split(",") if key]):
            if "strict-sort" in switches and key.startswith(" "):
                raise Refused(400, f"invalid sort {key!r}")
            down, name = key.startswith("-"), key.lstrip("+- ")
            rows.sort(key=lambda row, name=name: rank(lookup(row, name)), reverse=down)
        size = self.whole("page_size", 10)
        size = min(size, 10) if "small-pages" in switches else size
        if size < 1:
            raise Refused(400, f"invalid page_size {size}")
        start = read_token(self.query.get("page_token", ""))
        more = start + size < len(rows)
        (items,) = self.fields() - {"next_page_token", *self.page_extras()}
        return {
            items: rows[start : start + size],
            "next_page_token": write_token(start + size) if more else "",
        }

    def fields(self) -> set[str]:
        """Return the names of the fields of the answer."""
        return set(MODELS[OPERATIONS[self.operation]["response"]]["fields"])

    def page_extras(self) -> set[str]:
        """Return the fields that are not the list, of an answer that is one thing with a list."""
        if self.operation != "get_registered_model":
            return set()
        return self.fields() - {"model_versions"}

    def filter(self) -> dict:
        """Return `search_filter`, or nothing where it is ignored."""
        text = self.query.get("search_filter", "")
        if not text or "no-filter" in self.state.switches:
            return {}
        try:
            wanted = json.loads(text)
            known = OPERATIONS[self.operation].get("search_filter_keys")
            free = self.operation in ("list_experiment_runs", "list_job_runs")  # they know more
            return {key: one for key, one in wanted.items() if free or not known or key in known}
        except (ValueError, AttributeError):
            raise Refused(400, f"search_filter is not a JSON object: {text[:60]}") from None


def dotted(row: dict, key: str) -> object:
    """Return a value of a row by a name such as creator.username."""
    value: object = row
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def fits(value: object, wanted: object, key: str) -> bool:
    """Tell whether a value is what a filter asks for: a part of a text, or an equal number."""
    if isinstance(value, str) and isinstance(wanted, str):
        if key == "status":
            return wanted.lower() in value.lower()
        return wanted in value
    if value is None:
        return False
    return str(value).lower() == str(wanted).lower()


def rank(value: object) -> tuple:
    """Return what sorts values: what is absent first."""
    return (value is not None, value) if not isinstance(value, dict) else (True, str(value))


def write_token(start: int) -> str:
    """Return a page token."""
    return base64.urlsafe_b64encode(f"page:{start}:{steady_id(start)}".encode()).decode()


def read_token(token: str) -> int:
    """Return where the page of a token starts."""
    if not token:
        return 0
    try:
        _, start, check = base64.urlsafe_b64decode(token).decode().split(":")
        if check != steady_id(int(start)):
            raise ValueError(check)
        return int(start)
    except ValueError:
        raise Refused(400, "invalid page_token") from None


def as_answer(call: Call, row: object) -> object:
    """Return what a handler returned as the JSON of the operation's answer."""
    return answer(OPERATIONS[call.operation]["response"], row)
