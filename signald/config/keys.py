"""One configuration key: a typed attrs field that carries its own documentation and range."""

import math
from typing import Any, Literal, get_args, get_origin

import attrs


@attrs.frozen
class KeyInfo:
    """The facts of one key beside its type and default."""

    doc: str
    """The effect of the key, and the argument for its default."""
    unit: str
    secret: bool
    """The value is never shown: not in `repr`, not in an error, not in a log line."""
    above: float | None
    """The value must be greater than this (None: no such bound)."""
    at_least: float | None
    at_most: float
    reload: bool = False
    """A reload applies it; else it needs a restart."""
    one_or_more: bool = False
    """A list that may be written as one text, without brackets, when it has one entry."""

    @property
    def range_text(self) -> str:
        """Say the allowed range in words, "" when there is none."""
        parts = []
        if self.above is not None:
            parts.append(f"greater than {self.above:g}")
        if self.at_least is not None:
            parts.append(f"at least {self.at_least:g}")
        if self.at_most != math.inf:
            parts.append(f"at most {self.at_most:g}")
        return " and ".join(parts)

    def allows(self, value: float) -> bool:
        """Tell whether a number lies inside the range."""
        if self.above is not None and value <= self.above:
            return False
        return (self.at_least is None or value >= self.at_least) and value <= self.at_most


def key(
    default: Any,
    doc: str,
    *,
    unit: str = "",
    secret: bool = False,
    above: float | None = None,
    at_least: float | None = None,
    at_most: float = math.inf,
    reload: bool = False,
    one_or_more: bool = False,
) -> Any:
    """Declare one key of a section. A number without a lower bound of its own must be greater than zero."""
    number = isinstance(default, (int, float)) and not isinstance(default, bool)
    if number and above is None and at_least is None:
        above = 0
    info = KeyInfo(doc, unit, secret, above, at_least, at_most, reload, one_or_more)
    converter = _listed if one_or_more else None
    return attrs.field(default=default, repr=not secret, metadata={"key": info}, converter=converter)


def _listed(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value


def key_info(field: "attrs.Attribute[Any]") -> KeyInfo:
    """Return what `key` recorded about a field of a section class."""
    info = field.metadata["key"]
    assert isinstance(info, KeyInfo)
    return info


def choices(field: "attrs.Attribute[Any]") -> tuple[str, ...]:
    """Return the words a key may take, or () when it is not a choice between words."""
    return get_args(field.type) if get_origin(field.type) is Literal else ()


def type_text(field: "attrs.Attribute[Any]") -> str:
    """Say the type of a key in the words of the documentation."""
    words = choices(field)
    if words:
        return "one of " + ", ".join(f'"{word}"' for word in words)
    if get_origin(field.type) is tuple:
        return "text or list of texts" if key_info(field).one_or_more else "list of texts"
    return {str: "text", int: "integer", float: "number", bool: "true or false"}[field.type]  # type: ignore[index]
