"""The operations and models of API v2, read from `surface.json`, and what follows from them.

Answers are built by `answer` and bodies read by `accepted`: what the file does not know can neither
be answered nor be acted upon.
"""

from __future__ import annotations

import json
import math
import re
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import unquote

_READ = json.loads(Path(__file__).with_name("surface.json").read_text(encoding="utf-8"))
OPERATIONS: dict[str, dict] = _READ["operations"]
MODELS: dict[str, dict] = _READ["models"]
INT64 = {
    "Metric.step",
    "FileInfo.file_size",
    "Job.timeout",
    "Job.engine_image_id",
    "DefaultResources.cpu_millicores",
    "DefaultResources.memory_mb",
    "DefaultResources.nvidia_gpus",
    "DefaultReplicationPolicy.num_replicas",
}
"""Whole numbers that travel as text."""
GRPC = {400: 3, 401: 16, 403: 7, 404: 5, 405: 12, 409: 6, 413: 3, 429: 8, 500: 2, 503: 14}
"""What `code` says for a status."""
NEVER = datetime(1, 1, 1, tzinfo=timezone.utc)


class Refused(Exception):
    """What the server answers instead of what was asked for."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


def _pattern(operation: dict) -> str:
    names = {there: name for name, there in operation.get("path_placeholder_names", {}).items()}

    def group(match: re.Match) -> str:
        name = names.get(match[1], match[1])
        return f"(?P<{name}>[^/]{'*' if name == 'path' else '+'})"

    pieces = re.split(r"(\{[\w.]+\})", operation["path"])
    return "".join(
        re.sub(r"\{([\w.]+)\}", group, piece) if piece.startswith("{") else re.escape(piece)
        for piece in pieces
    )


# The longest fixed part first: `{run_id}:stop` before `{run_id}`, a name before a placeholder.
ROUTES = sorted(
    (
        (-len(re.sub(r"\{[\w.]+\}", "", operation["path"])), operation["verb"], name)
        for name, operation in OPERATIONS.items()
    )
)
_COMPILED = [(verb, name, re.compile(_pattern(OPERATIONS[name]))) for _, verb, name in ROUTES]


def route(verb: str, raw_path: str) -> tuple[str, dict[str, str]]:
    """Return the operation and its ids for a path as it came, not unquoted.

    Raises:
        Refused: there is no such path, or not with this verb.
    """
    found = [
        (wanted, name, match)
        for wanted, name, pattern in _COMPILED
        if (match := pattern.fullmatch(raw_path))
    ]
    for wanted, name, match in found:
        if wanted == verb:
            return name, {key: unquote(value) for key, value in match.groupdict().items()}
    raise Refused(405, "Method Not Allowed") if found else Refused(404, "Not Found")


def time_text(time: datetime) -> str:
    """Write a time as RFC 3339 in UTC, with no, 3 or 9 digits of a second."""
    digits = f"{time.microsecond:06d}001" if time.microsecond % 1000 else ""
    digits = digits or (f"{time.microsecond // 1000:03d}" if time.microsecond else "")
    return time.replace(microsecond=0, tzinfo=None).isoformat() + (digits and f".{digits}") + "Z"


def time_of(text: str) -> datetime:
    """Read such a time, with any offset."""
    match = re.fullmatch(r"(.{10})[T ](.{8})(?:\.(\d+))?(Z|[+-]\d\d:\d\d)?", text)
    if not match:
        raise ValueError(text)
    day, hour, digits, offset = match.groups()
    offset = "+00:00" if offset in (None, "Z") else offset
    return datetime.fromisoformat(
        f"{day}T{hour}.{(digits or '')[:6]:0<6}{offset}",
    ).astimezone(timezone.utc)


def answer(kind: str, value: object, where: str = "") -> object:
    """Return a row as JSON of exactly the fields of a model; keys with `_` are the server's own.

    Raises:
        LookupError: the row has a field, or a value of a list of names, that the model has not.
    """
    if kind.startswith("list["):
        return [answer(kind[5:-1], one, where) for one in value or []]
    if kind in MODELS and "enum" in MODELS[kind]:
        if value not in MODELS[kind]["enum"].values():
            raise LookupError(f"{where} is {value!r}")
        return value
    if kind in MODELS:
        if value is None:
            return None
        fields = MODELS[kind]["fields"]
        invented = [name for name in value if name not in fields and not name.startswith("_")]
        if invented:
            raise LookupError(f"{kind} has no {invented}")
        return {name: answer(of, value.get(name), f"{kind}.{name}") for name, of in fields.items()}
    if kind == "datetime":
        return None if value is None else time_text(value)
    if where in INT64:
        return str(int(value or 0))
    if kind == "float" and not math.isfinite(value or 0):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if kind == "str" and isinstance(value, dict):
        return json.dumps(value)  # an environment
    if value is None:
        return {"str": "", "int": 0, "float": 0.0, "bool": False}[kind]
    return {"str": str, "int": int, "float": float, "bool": bool}[kind](value)


def accepted(kind: str, body: object, strict: bool = False) -> dict:
    """Return what the server understands of a body: the fields of a model, with their types.

    Raises:
        Refused: a value is not of the type of its field.
    """
    if not isinstance(body, dict):
        raise Refused(400, f"json: cannot unmarshal {type(body).__name__} into {kind}")
    fields = MODELS[kind]["fields"]
    unknown = [name for name in body if name not in fields]
    if strict and unknown:
        raise Refused(400, f'unknown field "{unknown[0]}" in {kind}')
    return {
        name: _read(fields[name], value, f"{kind}.{name}", strict)
        for name, value in body.items()
        if name in fields and value is not None
    }


def _read(kind: str, value: object, where: str, strict: bool) -> object:
    wrong = Refused(400, f"json: cannot unmarshal {json.dumps(value)[:60]} into {where}: {kind}")
    if kind.startswith("list["):
        if not isinstance(value, list):
            raise wrong
        return [_read(kind[5:-1], one, where, strict) for one in value]
    if kind.startswith("dict("):
        if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
            raise wrong
        return dict(value)
    if kind in MODELS and "enum" in MODELS[kind]:
        if value not in MODELS[kind]["enum"].values():
            raise wrong
        return value
    if kind in MODELS:
        return accepted(kind, value, strict)
    if kind == "str" and where not in INT64:
        if not isinstance(value, str):
            raise wrong
        return value
    if kind == "bool":
        if not isinstance(value, bool):
            raise wrong
        return value
    try:
        if kind == "datetime":
            return time_of(value)
        if isinstance(value, bool) or (strict and isinstance(value, str) and where not in INT64):
            raise wrong
        number = float(value)
        if kind != "float" and number != int(number):
            raise wrong
        return number if kind == "float" else int(number)
    except (TypeError, ValueError, OverflowError):
        raise wrong from None
