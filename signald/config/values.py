"""From TOML and environment values to typed ones, strictly: nothing is coerced but an integer to a number."""

import json
import math
import tomllib
from collections.abc import Callable
from typing import Any, get_origin

import attrs
import cattrs

from signald.config.keys import choices, key_info, type_text
from signald.config.problems import suggestion

INTEGER_BITS = 63
"""The bits of an integer besides its sign (TOML 1.0)."""


def _strictly(wanted: type) -> Callable[[object, type], object]:
    def hook(value: object, _: type) -> object:
        # `type() is`, because True is an int to isinstance.
        if type(value) is wanted:
            return value
        if wanted is float and type(value) is int:
            return float(value)
        raise TypeError

    return hook


converter = cattrs.Converter(detailed_validation=False, forbid_extra_keys=True)
for _type in (str, int, float, bool):
    converter.register_structure_hook(_type, _strictly(_type))

_toml_names = {
    str: "text",
    int: "an integer",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "a table",
}


def structure(field: "attrs.Attribute[Any]", value: object) -> Any:
    """Return `value` as the type of `field`.

    Raises ValueError, with a message that says what was expected, for a wrong type, an unknown word or a number
    out of range. The message never shows the value of a secret.
    """
    words = choices(field)
    if words and value not in words:
        near = suggestion(value, words) if isinstance(value, str) else ""
        raise ValueError(f"expected {type_text(field)}, got {_shown(field, value)}{near}")
    if key_info(field).one_or_more and isinstance(value, str):
        value = [value]
    # cattrs takes any iterable for a tuple, a text included.
    if get_origin(field.type) is tuple and not isinstance(value, list):
        raise ValueError(f"expected a {type_text(field)}, got {_shown(field, value)}")
    try:
        typed = converter.structure(value, field.type)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"expected {_article(type_text(field))}, got {_shown(field, value)}") from None
    if isinstance(typed, (int, float)) and not isinstance(typed, bool):
        info = key_info(field)
        if isinstance(typed, int) and typed.bit_length() > INTEGER_BITS:
            raise ValueError(f"is too large: an integer has {INTEGER_BITS + 1} bits")
        if not math.isfinite(typed) or not info.allows(typed):
            raise ValueError(f"must be {info.range_text or 'finite'}, got {value!r}")
    texts = (typed,) if isinstance(typed, str) else typed if isinstance(typed, tuple) else ()
    if any(not char.isprintable() for text in texts for char in text):
        raise ValueError("contains a control character")
    if key_info(field).one_or_more and not typed:
        raise ValueError("must name at least one")
    return typed


def from_text(field: "attrs.Attribute[Any]", text: str) -> Any:
    """Return the value of an environment variable as the type of `field`; lists are separated by commas.

    Raises ValueError like `structure`.
    """
    if field.type is str or choices(field):
        return structure(field, text)
    if get_origin(field.type) is tuple:
        return structure(field, [part.strip() for part in text.split(",") if part.strip()])
    try:
        parsed = tomllib.loads(f"value = {text.strip()}")
    except (ValueError, RecursionError):
        parsed = {}
    # A line break in the variable would smuggle in further keys.
    return structure(field, parsed["value"] if len(parsed) == 1 else text)


def _article(text: str) -> str:
    return {"integer": "an integer", "number": "a number", "list of texts": "a list of texts"}.get(text, text)


def _shown(field: "attrs.Attribute[Any]", value: object) -> str:
    kind = _toml_names.get(type(value), "a date or time")
    if key_info(field).secret or isinstance(value, (list, dict)):
        return kind
    # As TOML would write it, with control characters escaped.
    shown = json.dumps(value, ensure_ascii=False) if isinstance(value, (str, bool)) else repr(value)
    return f"{kind} ({shown if len(shown) <= 60 else shown[:57] + '...'})"
