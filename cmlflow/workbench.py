"""API v2 of the workbench, through `cmlapi`, the client that every CML session has.

    api = workbench.client()
    project = workbench.named(api.list_projects, "PRD", search_filter='{"name": "PRD"}')
    build = workbench.wait(lambda: workbench.call(api.get_model_build, *ids), "Build", ...)

No policy: the caller decides what is created, deployed or run. Elsewhere than in CML the
client is absent, and nothing here is needed.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from cmlflow.errors import BadInput, WorkbenchError

if TYPE_CHECKING:
    from datetime import datetime

    from cmlapi import CMLServiceApi

ATTEMPTS = 4
"""Times that a question is asked when the workbench is busy or the connection breaks."""
ANSWER_LIMIT_S = 60
"""Seconds after which an operation counts as unanswered."""
APPEARS_LIMIT_S = 60
"""Seconds in which something may appear whose creation was answered with an error."""
_BUSY = (429, 500, 502, 503, 504)
_FORBIDDEN = (401, 403)
_KEY_PAGE = "To make a key, open:  User Settings > API Keys; then set it as CDSW_APIV2_KEY"


def client() -> CMLServiceApi:
    """Return a client of this workbench.

    Raises:
        WorkbenchError: this is no CML session, or it has no address or no key.
    """
    try:
        import cmlapi
    except ImportError as error:
        raise WorkbenchError(
            f"The package cmlapi cannot be imported: {error}.",
            "a session, a job or an application of CML, which bring it",
            "Elsewhere it comes from the workbench:  pip install https://<domain>/api/v2/python.tar.gz",
        ) from error
    key = os.environ.get("CDSW_APIV2_KEY", "")
    if not key.strip():
        raise WorkbenchError("CDSW_APIV2_KEY is not set.", "an API key of this user", _KEY_PAGE)
    if not (key.isascii() and key.isprintable()):  # the refusal of such a header would show it
        raise WorkbenchError(
            "CDSW_APIV2_KEY holds a line break or another character that no key has.",
            "an API key of this user, in one line",
            _KEY_PAGE,
        )
    try:
        return cmlapi.default_client()
    except ValueError as error:
        raise WorkbenchError(
            f"No client of the workbench could be made: {without_key(str(error))}",
            "CDSW_API_URL, as every session has it",
            "To see what is set, run:  env | grep CDSW_API_URL",
        ) from None


def call(method: Callable, *arguments: Any, **query: Any) -> Any:
    """Call one operation.

    A question (`list_...`, `get_...`) is asked again when the workbench is busy or the connection
    breaks. What changes something is sent once: look whether it happened, see `find_or_create`.

    Raises:
        WorkbenchError: it was refused, or there was no answer. Its text holds no key.
    """
    is_question = method.__name__.startswith(("list_", "get_"))
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return method(*arguments, _request_timeout=ANSWER_LIMIT_S, **query)
        except (TypeError, ValueError):
            raise  # nothing was sent
        except Exception as error:
            may_pass = getattr(error, "status", None) in (None, 0, *_BUSY)
            if not (is_question and may_pass and attempt < ATTEMPTS):
                refusal = _refusal(method.__name__, error)
                refusal.status = getattr(error, "status", None) or None
                raise refusal from None  # the cause shows the headers
        time.sleep(poll_seconds() * attempt / ATTEMPTS)


def all_of(method: Callable, *ids: str, items: str = "", **query: Any) -> list:
    """Return the items of all pages of a list.

    Args:
        method: the operation, with its ids.
        items: the field that holds them, where the answer has others too.
        query: a filter or an order.
    """
    found, query = [], {"page_size": 100} | query
    while True:
        page = call(method, *ids, **query)
        fields = page.to_dict()
        found += (
            getattr(page, items or next(one for one in fields if one != "next_page_token")) or []
        )
        token = fields.get("next_page_token")
        if not token or token == query.get("page_token"):
            return found
        query["page_token"] = token


def named(method: Callable, name: str, *ids: str, field: str = "name", **query: Any) -> Any:
    """Return the one item of a list that has exactly this name, or None.

    The workbench's own filter finds parts of names too, so all names are compared here.

    Raises:
        WorkbenchError: more than one has it.
    """
    found = [one for one in all_of(method, *ids, **query) if getattr(one, field) == name]
    if len(found) > 1:
        raise WorkbenchError(
            f"{method.__name__} gives {len(found)} items with the name {name!r}.",
            "one",
            f"On the workbench's pages, rename or delete all {name!r} but one",
        )
    return found[0] if found else None


def find_or_create(find: Callable[[], Any], create: Callable[[], Any]) -> tuple[Any, bool]:
    """Return what `find` finds; else create it. The second value tells whether it was created.

    When the creation fails we look once more: another session may have been quicker. Where the
    workbench had a trouble of its own, it may still get there, so we go on looking for a while.
    """
    found = find()
    if found is not None:
        return found, False
    try:
        return create(), True
    except WorkbenchError as error:
        was_refused = error.status is not None and error.status < 500
        end = time.monotonic() + (0 if was_refused else APPEARS_LIMIT_S)
        while (found := find()) is None:
            if time.monotonic() >= end:
                raise
            time.sleep(poll_seconds())
        return found, False


def newest(items: Iterable) -> Any:
    """Return the item that was created last, or None. The order of a list tells nothing."""
    return max(items, key=_created, default=None)


def status(item: Any) -> str:
    """Return the status of a build, a deployment, a run ...: `built`, `failed`, `succeeded`."""
    text = str(item if isinstance(item, str) else item.status or "unknown").strip().lower()
    return re.sub(r"^(engine|application|experiment_run)_", "", text)


def wait(
    ask: Callable[[], Any],
    what: str,
    done: tuple[str, ...],
    failed: tuple[str, ...],
    limit_s: float,
    where: str,
) -> Any:
    """Ask until the status is one that is waited for, and print each status that is new.

    Args:
        ask: returns the item, asked anew.
        what: its name in the lines that are printed, such as `Build`.
        done: what is waited for; the first is its usual name.
        failed: what will never become that.
        limit_s: seconds after which we give up.
        where: where the reader sees why it failed.

    Raises:
        WorkbenchError: it failed, or the time is over; with the last status.
    """
    end, shown = time.monotonic() + limit_s, ""
    while True:
        item = ask()
        now = status(item)
        if now != shown and not (now in done and not shown):  # nothing to wait for: no line
            print(f"{what}: {now}", flush=True)
            shown = now
        if now in done:
            return item
        if now in failed:
            raise WorkbenchError(
                f"{what} ended as {now!r}.", done[0], f"To see why, open:  {where}"
            )
        if time.monotonic() > end:
            raise WorkbenchError(
                f"{what} is still {now!r} after {limit_s / 60:.0f} minutes.",
                f"{done[0]}; nothing is undone, and the workbench may still get there",
                f"Look at {where}, then run this lesson again: it goes on from what is there",
            )
        time.sleep(poll_seconds())


def runtime(api: CMLServiceApi) -> Any:
    """Return the runtime of this session, or the newest standard one for its Python.

    Raises:
        WorkbenchError: the workbench offers none.
    """
    import sys

    kernel = os.environ.get("ML_RUNTIME_KERNEL") or "Python {}.{}".format(*sys.version_info)
    edition = os.environ.get("ML_RUNTIME_EDITION") or "Standard"
    editor = os.environ.get("ML_RUNTIME_EDITOR") or "PBJ Workbench"
    version = os.environ.get("ML_RUNTIME_FULL_VERSION", "")
    offered = [one for one in all_of(api.list_runtimes) if status(one) in ("enabled", "unknown")]
    fitting = [one for one in offered if one.kernel == kernel and "GPU" not in (one.edition or "")]
    if not fitting:
        raise WorkbenchError(
            f"This workbench offers no runtime with {kernel} ({len(offered)} others).",
            f"one with {kernel}, {edition}, {editor}",
            "To add one, ask an administrator to open:  Runtime Catalog",
        )

    def likeness(one: Any) -> tuple:
        return (
            one.edition == edition,
            one.editor == editor,
            one.full_version == version,
            [int(number) for number in re.findall(r"\d+", one.full_version or "")],
        )

    return max(fitting, key=likeness)


def spark_addon(api: CMLServiceApi) -> str:
    """Return the identifier of the Spark add-on of this session, or of the newest Spark 3.

    A session with the add-on has it below /runtime-addons, in a folder whose name begins so.

    Raises:
        WorkbenchError: the workbench offers none.
    """
    offered = []
    for one in all_of(api.list_runtime_addons):
        names = (one.display_name, one.identifier, one.component)
        found = re.search(r"spark\D*(\d)", " ".join(filter(None, names)), re.IGNORECASE)
        usable = one.identifier and status(one) in ("available", "enabled", "unknown")
        if usable and found and found[1] == "3":  # the tables need Iceberg for Spark 3
            offered.append(one)
    if not offered:
        raise WorkbenchError(
            "This workbench offers no Spark add-on.",
            "one with Spark 3",
            "To add one, ask an administrator to open:  Runtime Catalog > Spark",
        )
    home = os.environ.get("SPARK_HOME", "").strip()
    here = f"{home} {os.path.realpath(home)}" if home else ""  # it may be a link such as /opt/spark

    def likeness(one: Any) -> tuple:
        numbers = [int(number) for number in re.findall(r"\d+", one.display_name or "")]
        return len(one.identifier) if f"/{one.identifier}" in here else 0, numbers

    return max(offered, key=likeness).identifier


def poll_seconds() -> float:
    """Return the seconds between two questions, 10 or what CMLFLOW_POLL_SECONDS says.

    Raises:
        BadInput: the variable holds no number from 0.01 to 600.
    """
    text = os.environ.get("CMLFLOW_POLL_SECONDS", "").strip() or "10"
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0.01 <= seconds <= 600:
        raise BadInput(
            f"CMLFLOW_POLL_SECONDS is {text[:20]!r}.",
            "the seconds between two questions, from 0.01 to 600",
            "To go back to 10, run:  unset CMLFLOW_POLL_SECONDS",
        )
    return seconds


def without_key(text: str) -> str:
    """Return a text without this user's keys and without what looks like an access key."""
    for name in ("CDSW_APIV2_KEY", "CDSW_API_KEY"):
        if len(key := os.environ.get(name, "").strip()) > 3:
            text = text.replace(key, "***")
    text = re.sub(r"(?i)(bearer\s+|accesskey['\"]?\s*[=:]\s*['\"]?)[^\s'\"&,}]+", r"\1***", text)
    return re.sub(r"\bm[a-z0-9]{31}\b", "***", text)


def _created(item: Any) -> datetime:
    from datetime import datetime, timezone

    made = item.created_at or datetime.min
    return made if made.tzinfo else made.replace(tzinfo=timezone.utc)


def _refusal(operation: str, error: Exception) -> WorkbenchError:
    """Return what a failed call says, in three lines."""
    status_code = getattr(error, "status", None)
    if isinstance(error, AttributeError) and "getheaders" in str(error):
        # cmlapi up to 25.04.17 cannot read a refusal with urllib3 2.6 or newer.
        return WorkbenchError(
            f"The workbench refused {operation}; this cmlapi cannot read why.",
            "urllib3 older than 2.6, with which this cmlapi shows the reason",
            "To see the reason, run:  pip install 'urllib3<2.6'  and run this lesson again",
        )
    if not status_code:
        reason = str(getattr(error, "reason", None) or error).strip() or type(error).__name__
        first = without_key(reason.splitlines()[0])[:300]
        return WorkbenchError(
            f"The workbench did not answer {operation}: {first}",
            f"an answer within {ANSWER_LIMIT_S} s",
            "Run this lesson again: it goes on from what is there",
        )
    told = without_key(_message(getattr(error, "body", "")) or str(error.reason))
    if status_code in _FORBIDDEN:
        return WorkbenchError(
            f"The workbench refused {operation} with {status_code}: {told}",
            "an API key that is valid, of a user with the right to do this",
            _KEY_PAGE,
        )
    return WorkbenchError(
        f"The workbench refused {operation} with {status_code}: {told}",
        "what API v2 accepts",
        "To see what is there, open the workbench's page of it, then run this lesson again",
    )


def _message(body: Any) -> str:
    """Return the message of an error body, in one line."""
    import json

    text = body.decode(errors="replace") if isinstance(body, bytes) else str(body or "")
    try:
        fields = json.loads(text)
        text = str(fields.get("message") or fields.get("error") or text)
    except (ValueError, AttributeError):
        pass
    lines = text.strip().splitlines()
    return lines[0][:300] if lines else ""
