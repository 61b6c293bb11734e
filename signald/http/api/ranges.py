"""What a reader says of bytes that it may have a part of: `If-Match`, `If-None-Match`, `Range` and `If-Range` of RFC 9110.

    judge(Conditions(...), etag, size)
      ├─ FAILED          412: the bytes are not those that `If-Match` names
      ├─ UNCHANGED       304: the reader has them
      ├─ UNSATISFIABLE   416: no byte of the range is there
      ├─ Span            206: a part
      └─ WHOLE           200

The bytes have one strong entity tag and no date of change, so a date in `If-Range` names none, and conditions by date are ignored
(section 13.1.5). A range in another unit, a malformed one and a set of several ranges are ignored, as section 14.2 allows: the reader
gets all bytes.
"""

import re
from enum import Enum
from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

_ETAG = r'"[\x21\x23-\x7e\x80-\xff]*"'
_ETAGS = re.compile(rf"[ \t]*(?:(W/)?({_ETAG}))?[ \t]*(?:,|$)")
_STRONG = re.compile(_ETAG)
_RANGE = re.compile(r"bytes=[ \t,]*(?:([0-9]+)-([0-9]*)|-([0-9]+))[ \t,]*", re.IGNORECASE)

_DIGITS_MAX = 18
"""A position with more digits lies behind the end of anything: it is not worth reading, and `int` refuses thousands of digits."""


class Outcome(Enum):
    """An answer that is no part of the bytes; its value is the status."""

    WHOLE = 200
    UNCHANGED = 304
    FAILED = 412
    UNSATISFIABLE = 416


class Span(Struct, frozen=True):
    """A part of some bytes: from `start` on, and without that at `end`."""

    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start


class Conditions(Struct, frozen=True, rename="kebab"):
    """What a reader says of the bytes that it has, and of the part that it wants."""

    range: (
        Annotated[str, Meta(description="One range, as `bytes=0-499`. Several are answered with all bytes.")]
        | UnsetType
    ) = UNSET
    if_range: str | UnsetType = UNSET
    if_match: str | UnsetType = UNSET
    if_none_match: str | UnsetType = UNSET


def judge(asked: Conditions, etag: str, size: int) -> Span | Outcome:
    """Return what a GET gets of `size` bytes with the strong entity tag `etag`, in the order of RFC 9110, section 13.2.2."""
    if asked.if_match is not UNSET and not names(asked.if_match, etag, strong=True):
        return Outcome.FAILED
    if asked.if_none_match is not UNSET and names(asked.if_none_match, etag):
        return Outcome.UNCHANGED
    if asked.range is UNSET or (asked.if_range is not UNSET and not is_same(asked.if_range, etag)):
        return Outcome.WHOLE
    found = span_of(asked.range, size)
    if found == "ignored":
        return Outcome.WHOLE
    return Outcome.UNSATISFIABLE if found is None else found


def names(field: str, etag: str, *, strong: bool = False) -> bool:
    """Tell whether a list of entity tags has `etag`, or is `*`. A malformed list has none.

    By the strong comparison a tag with the mark `W/` is no tag of these bytes; by the weak one the mark does not count.
    """
    if field.strip(" \t") == "*":
        return True
    place, found = 0, False
    while place < len(field):
        one = _ETAGS.match(field, place)
        if one is None:
            return False
        found = found or (one[2] == etag and not (strong and one[1]))
        place = one.end()
    return found


def is_same(field: str, etag: str) -> bool:
    """Tell whether `If-Range` names these bytes: by the strong comparison. A date never does."""
    text = field.strip(" \t")
    return _STRONG.fullmatch(text) is not None and text == etag


def span_of(field: str, size: int) -> Span | Literal["ignored"] | None:
    """Return the part of `size` bytes that `Range` asks for; None when no byte of it is there, `ignored` when the field counts for nothing.

    The last bytes of nothing are nothing: such a range is satisfied by all of it, which no `Content-Range` can say. It is ignored.
    """
    found = _RANGE.fullmatch(field.strip(" \t"))
    if found is None:
        return "ignored"
    first, last, suffix = found.groups()
    if suffix is not None:
        length = min(_number(suffix), size)
        if _number(suffix) == 0:
            return None
        return Span(size - length, size) if length else "ignored"
    start = _number(first)
    if last and _number(last) < start:
        return "ignored"
    if start >= size:
        return None
    return Span(start, min(_number(last) + 1, size) if last else size)


def _number(digits: str) -> int:
    text = digits.lstrip("0")
    return int(text or "0") if len(text) <= _DIGITS_MAX else int("9" * (_DIGITS_MAX + 1))
