"""A JSON Schema of the configuration file, for editors: names, types, ranges and what each key is for.

Put `#:schema ./signald.schema.json` into the first line of the TOML file; taplo, tombi and Even Better TOML read that.
"""

import math
from typing import Any, get_origin

import attrs

from signald.config.keys import choices, key_info
from signald.config.sections import SECTIONS

Json = dict[str, Any]


def schema() -> Json:
    """Return the schema (JSON Schema 2020-12). It is as strict as the loader about names; rules between keys are not in it."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "signald.toml",
        "type": "object",
        "additionalProperties": False,
        "properties": {name: _section(cls) for name, cls in SECTIONS.items()},
    }


def _section(cls: type) -> Json:
    return {
        "type": "object",
        "description": (cls.__doc__ or "").strip(),
        "additionalProperties": False,
        "properties": {field.name: _key(field) for field in attrs.fields(cls)},
    }


def _key(field: "attrs.Attribute[Any]") -> Json:
    info = key_info(field)
    unit = f" Unit: {info.unit}." if info.unit else ""
    restart = "" if info.reload else " A change needs a restart."
    found: Json = {"description": f"{info.doc}{unit}{restart}", **_type(field)}
    if not info.secret:
        found["default"] = list(field.default) if isinstance(field.default, tuple) else field.default
    if info.above is not None:
        found["exclusiveMinimum"] = info.above
    if info.at_least is not None:
        found["minimum"] = info.at_least
    if info.at_most != math.inf:
        found["maximum"] = info.at_most
    return found


def _type(field: "attrs.Attribute[Any]") -> Json:
    words = choices(field)
    if words:
        return {"enum": list(words)}
    if get_origin(field.type) is tuple:
        several: Json = {"type": "array", "items": {"type": "string"}}
        return {"anyOf": [{"type": "string"}, {**several, "minItems": 1}]} if key_info(field).one_or_more else several
    return {"type": {str: "string", int: "integer", float: "number", bool: "boolean"}[field.type]}  # type: ignore[index]
