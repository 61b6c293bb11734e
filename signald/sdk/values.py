"""The values of an application as JSON: a value that a node would refuse is refused here, and an unreadable one harms one session.

A message of another program may hold a value that this one cannot: `1e999`, a number of five thousand digits. The node carries it.
The application gets the message, and its `data` raises `Unreadable` on access, so only the handler of that session fails.
"""

import json
from collections.abc import Mapping
from math import isfinite
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw

from signald.sdk.errors import Unreadable
from signald.wire.codec import too_deep
from signald.wire.messages import LABEL_NAME_MAX, LABEL_VALUE_MAX, LABELS_MAX
from signald.wire.surrogates import mark

_PLAIN = frozenset({str, int, bool, type(None)})
_DEEP = "nested deeper than the service takes"
_DIGITS_MAX = 4300
"""Digits of an integer. Reading takes time with their square; this is Python's own bound, which a program may have lifted."""


class Broken(NamedTuple):
    """Stands for a value that cannot be read."""

    reason: str


def readable(value: Any) -> Any:
    """Return `value` itself.

    Raises:
        Unreadable: it stands for what could not be read.
    """
    if type(value) is Broken:
        raise Unreadable(value.reason)
    return value


def read(raw: Raw | bytes) -> Any:
    """Return the value of a JSON text, or `Broken`. Never raises."""
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return _read_slowly(bytes(raw), error)


def _read_slowly(raw: bytes, error: Exception) -> Any:
    """Read what msgspec does not take, if halves of surrogate pairs are all that is wrong: a `str` can hold those."""
    reason = "nested too deep" if isinstance(error, RecursionError) else str(error)
    if mark(raw) is None:
        return Broken(f"not readable: {reason}")
    try:
        return json.loads(raw.decode(), parse_int=_integer, parse_float=_number, parse_constant=_constant)
    except (ValueError, RecursionError) as again:
        return Broken(f"not readable: {'nested too deep' if isinstance(again, RecursionError) else str(again)[:200]}")


def _integer(digits: str) -> int:
    if len(digits) > _DIGITS_MAX:
        raise ValueError("Integer value out of range")
    return int(digits)


def _number(digits: str) -> float:
    number = float(digits)
    if not isfinite(number):
        raise ValueError("Number out of range")
    return number


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


class HistoryEntry(dict[str, Any]):
    """An entry of a chat history with unreadable `data`; the rest of it can be read."""

    def __init__(self, known: Mapping[str, Any], reason: str) -> None:
        super().__init__(known)
        self.reason = reason

    def __missing__(self, key: str) -> Any:
        if key == "data":
            raise Unreadable(self.reason)
        raise KeyError(key)

    def get(self, key: str, default: Any = None) -> Any:
        """As a dict's, but reading `data` raises `Unreadable`."""
        return self[key] if key in self or key == "data" else default


def read_history(entries: list[Raw]) -> list[Any]:
    """Return the entries of a chat history. An unreadable entry is a `HistoryEntry` and spoils no other."""
    return [_entry(raw) for raw in entries]


def _entry(raw: Raw) -> Any:
    whole = read(raw)
    if type(whole) is not Broken:
        return whole
    try:
        parts = msgspec.json.decode(raw, type=dict[str, Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return HistoryEntry({}, whole.reason)
    values = {name: read(part) for name, part in parts.items() if name != "data"}
    return HistoryEntry({name: one for name, one in values.items() if type(one) is not Broken}, whole.reason)


# --- what is said ----------------------------------------------------------------------------------------------------


def write(data: object, depth_max: int) -> bytes:
    """Return `data` as JSON; it may be `depth_max` levels deep.

    Raises:
        ValueError: not JSON (NaN, a set, a key that is no text, ...), or too deep.
    """
    if isinstance(data, Raw):
        return _written(data, depth_max)
    try:
        if type(data) not in _PLAIN:
            _check(data, depth_max)
        try:
            return msgspec.json.encode(data)
        except UnicodeEncodeError:
            return json.dumps(data, allow_nan=False, separators=(",", ":"), default=msgspec.to_builtins).encode()
    except TypeError as error:
        raise ValueError(f"not JSON: {error}") from None
    except RecursionError:
        raise ValueError("not JSON: nested too deep") from None


def _written(raw: Raw, depth_max: int) -> bytes:
    """Check what the application has encoded itself."""
    text = bytes(raw)
    value = Broken(f"nested deeper than {depth_max}") if too_deep(text, depth_max) else read(text)
    if type(value) is Broken:
        raise ValueError(f"not JSON: {value.reason}")
    return text


def _check(value: Any, left: int) -> None:
    """Refuse what msgspec would write as something else, or the node would not take; `left` levels may follow.

    The usual types come first, by identity: this is the way of every message.
    """
    kind = type(value)
    if kind is dict:
        if left <= 0:
            raise ValueError(_DEEP)
        for key, one in value.items():
            if type(key) is not str and not isinstance(key, str):
                raise ValueError(f"not JSON: a key is a text, not {type(key).__name__}")
            if type(one) not in _PLAIN:
                _check(one, left - 1)
    elif kind is list or kind is tuple:
        if left <= 0:
            raise ValueError(_DEEP)
        for one in value:
            if type(one) not in _PLAIN:
                _check(one, left - 1)
    elif isinstance(value, float):
        if not isfinite(value):
            raise ValueError(f"not JSON: {value} is no number")
    elif not isinstance(value, str | int):
        _check(_plain(value), left)


def _plain(value: Any) -> Any:
    """Return a value of a rare type as the plain one that msgspec makes of it."""
    if isinstance(value, set | frozenset | bytes | bytearray | memoryview):
        raise ValueError(f"not JSON: {type(value).__name__} within a value")  # noqa: TRY004 - one kind for all of these
    if isinstance(value, dict):
        return dict(value)
    if isinstance(value, list | tuple):
        return list(value)
    plain = msgspec.to_builtins(value)  # a dataclass, a date and what else msgspec knows
    if type(plain) not in _PLAIN and type(plain) not in (dict, list, tuple, float):
        raise ValueError(f"not JSON: {type(value).__name__}")
    return plain


def check_text(name: str, value: str | None, most: int, least: int = 0) -> None:
    """Check a text that signald reads itself.

    Raises:
        ValueError: no text, too long, or half of a surrogate pair in it.
    """
    if value is None:
        return
    if not isinstance(value, str):
        raise ValueError(f"`{name}` is a text, not {type(value).__name__}")  # noqa: TRY004
    if not least <= len(value) <= most:
        raise ValueError(f"`{name}` has {least} to {most} characters, not {len(value)}")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError(f"`{name}` holds half of a surrogate pair") from None


def check_number(name: str, value: object, most: int) -> None:
    """Check a whole number from 0 to `most`.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise ValueError(f"`{name}` is a whole number from 0 to {most}")


def check_labels(name: str, labels: Mapping[str, str]) -> None:
    """Check `want` or `labels`.

    Raises:
        ValueError: too many, too long, or no texts.
    """
    if len(labels) > LABELS_MAX:
        raise ValueError(f"`{name}` has at most {LABELS_MAX} labels, not {len(labels)}")
    for label, value in labels.items():
        if label is None or value is None:
            raise ValueError(f"`{name}` is a table of texts")
        check_text(f"{name}: a name", label, LABEL_NAME_MAX)
        check_text(f"{name}: a value", value, LABEL_VALUE_MAX)
