"""The methods of the client, one for each operation of the surface."""

import re

from cmlapi.api_client import ApiClient
from cmlapi.surface import OPERATIONS

OPTIONS = ("async_req", "_return_http_data_only", "_preload_content", "_request_timeout")


class CMLServiceApi:
    def __init__(self, api_client=None):
        self.api_client = api_client or ApiClient()


def _call(client, name, operation, values):
    """Check the values of a call as the generated code does, and send it."""
    positional = operation["positional"]
    for required in positional:
        if values.get(required) is None:
            message = f"Missing the required parameter `{required}` when calling `{name}`"
            raise ValueError(message)
    there = operation.get("path_placeholder_names", {})
    ids = [one for one in positional if one not in ("body", "metadata", "tarball")]
    fields = operation.get("multipart_fields", [])
    files = {field: values[field] for field in fields if values.get(field) is not None}
    options = {option: values[option] for option in OPTIONS if option in values}
    return client.api_client.call_api(
        operation["path"],
        operation["verb"],
        {there.get(one, one): values[one] for one in ids},
        [(one, values[one]) for one in operation["query"] if one in values],
        {},
        body=values.get("body"),
        files=files,
        response_type=operation["response"],
        **options,
    )


def _method(name, operation, whole):
    positional = operation["positional"]
    known = {*operation["query"], *operation.get("multipart_fields", []), *OPTIONS}

    def method(self, *args, **kwargs):
        if len(args) > len(positional):
            expected = f"takes {len(positional) + 1} positional arguments"
            raise TypeError(f"{name}() {expected} but {len(args) + 1} were given")
        values = dict(zip(positional, args, strict=False))
        for key, value in kwargs.items():
            if key in values:
                raise TypeError(f"{name}() got multiple values for argument '{key}'")
            if key not in known and key not in positional:
                raise TypeError(f"Got an unexpected keyword argument '{key}' to method {name}")
            values[key] = value
        missing = [one for one in positional if one not in values]
        if missing:
            raise TypeError(f"{name}() missing required positional argument: {missing[0]!r}")
        if not whole:
            values["_return_http_data_only"] = True
        return _call(self, name, operation, values)

    method.__name__ = name + ("_with_http_info" if whole else "")
    method.__doc__ = f"{operation['verb']} {re.sub('^/api/v2', '', operation['path'])}"
    return method


for _name, _operation in OPERATIONS.items():
    setattr(CMLServiceApi, _name, _method(_name, _operation, False))
    setattr(CMLServiceApi, f"{_name}_with_http_info", _method(_name, _operation, True))
