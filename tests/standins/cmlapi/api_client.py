"""Turns objects into JSON and answers into objects."""

import json
import re
from datetime import datetime, timezone
from multiprocessing.pool import ThreadPool
from pathlib import Path
from urllib.parse import quote

from cmlapi import models
from cmlapi.configuration import Configuration
from cmlapi.rest import ApiException, RESTClientObject

PRIMITIVES = {"str": str, "int": int, "float": float, "bool": bool}


class ApiClient:
    def __init__(self, configuration=None):
        self.configuration = configuration or Configuration()
        self.rest_client = RESTClientObject(self.configuration)
        self.default_headers = {"User-Agent": "Swagger-Codegen/25.04.17/python"}
        self._pool = None

    @property
    def pool(self):
        if self._pool is None:
            self._pool = ThreadPool()
        return self._pool

    def set_default_header(self, name, value):
        self.default_headers[name] = value

    def sanitize_for_serialization(self, value):
        if isinstance(value, models.Base):
            values = {name: getattr(value, name) for name in value.swagger_types}
            value = {name: one for name, one in values.items() if one is not None}
        if isinstance(value, dict):
            return {key: self.sanitize_for_serialization(one) for key, one in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.sanitize_for_serialization(one) for one in value]
        return value.isoformat() if isinstance(value, datetime) else value

    def call_api(self, *args, async_req=None, **kwargs):
        if async_req:
            return self.pool.apply_async(self._call, args, kwargs)
        return self._call(*args, **kwargs)

    def _call(
        self,
        resource_path,
        method,
        path_params=None,
        query_params=None,
        header_params=None,
        body=None,
        post_params=None,
        files=None,
        response_type=None,
        auth_settings=None,
        _return_http_data_only=None,
        collection_formats=None,
        _preload_content=True,
        _request_timeout=None,
    ):
        for name, value in (path_params or {}).items():
            resource_path = resource_path.replace(f"{{{name}}}", quote(str(value), safe=""))
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        headers |= self.default_headers | (header_params or {})
        form = list(post_params or [])
        for field, path in (files or {}).items():
            form.append((field, (Path(path).name, Path(path).read_bytes())))
        response = self.rest_client.request(
            method,
            self.configuration.host + resource_path,
            query_params,
            headers,
            self.sanitize_for_serialization(body),
            form,
            _preload_content,
            _request_timeout,
        )
        result = response
        if _preload_content:
            result = self.deserialize(response, response_type) if response_type else None
        if _return_http_data_only:
            return result
        return result, response.status, response.getheaders()

    def deserialize(self, response, response_type):
        try:
            value = json.loads(response.data)
        except ValueError:
            value = response.data
        return self._read(value, response_type)

    def _read(self, value, kind):
        if value is None:
            return None
        if kind.startswith("list["):
            return [self._read(one, kind[5:-1]) for one in value]
        if kind.startswith("dict("):
            inner = kind[5:-1].split(", ")[1]
            return {key: self._read(one, inner) for key, one in value.items()}
        if kind in PRIMITIVES:
            try:
                return PRIMITIVES[kind](value)
            except TypeError:
                return value
        if kind == "datetime":
            return read_time(value)
        of = getattr(models, kind)
        if not issubclass(of, models.Base):
            return value  # one of a list of names
        if not isinstance(value, dict):
            return of()
        known = {name: value.get(name) for name in of.swagger_types}
        types = of.swagger_types
        return of(**{name: self._read(one, types[name]) for name, one in known.items()})


def read_time(text):
    """Read a time of RFC 3339; nanoseconds are cut."""
    match = re.fullmatch(r"(.{10})[T ](.{8})(?:\.(\d+))?(Z|[+-]\d\d:\d\d)?", str(text))
    if not match:
        raise ApiException(status=0, reason=f"Failed to parse `{text}` as datetime object")
    day, hour, digits, offset = match.groups()
    read = datetime.fromisoformat(f"{day}T{hour}.{(digits or '')[:6]:0<6}")
    if offset in (None, "Z"):
        return read.replace(tzinfo=timezone.utc)
    return datetime.fromisoformat(read.isoformat() + offset)
