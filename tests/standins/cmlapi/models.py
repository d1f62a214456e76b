"""The classes of the surface: constructor keywords, attributes, to_dict."""

import pprint
from typing import ClassVar

from cmlapi.surface import MODELS


class Base:
    swagger_types: ClassVar[dict] = {}
    attribute_map: ClassVar[dict] = {}

    def __init__(self, *args, **kwargs):
        names = list(self.swagger_types)
        if len(args) > len(names):
            raise TypeError(f"{type(self).__name__} takes at most {len(names)} arguments")
        given = dict(zip(names, args, strict=False))
        for name in kwargs:
            if name not in names or name in given:
                raise TypeError(f"__init__() got an unexpected keyword argument '{name}'")
        given |= kwargs
        for name in names:
            setattr(self, name, given.get(name))

    def to_dict(self):
        return {name: _plain(getattr(self, name)) for name in self.swagger_types}

    def to_str(self):
        return pprint.pformat(self.to_dict())

    __repr__ = to_str

    def __eq__(self, other):
        return type(other) is type(self) and self.__dict__ == other.__dict__

    __hash__ = None


def _plain(value):
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return value.to_dict() if isinstance(value, Base) else value


def _class(name, described):
    if "enum" in described:
        return type(name, (), dict(described["enum"]))
    fields = described["fields"]
    names = {"swagger_types": dict(fields), "attribute_map": {one: one for one in fields}}
    return type(name, (Base,), names | {"__module__": __name__})


globals().update({name: _class(name, described) for name, described in MODELS.items()})
__all__ = list(MODELS)
