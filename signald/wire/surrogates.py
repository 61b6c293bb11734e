r"""Halves of a surrogate pair in JSON: the escape `\ud83d` alone.

RFC 8259 allows it, and JavaScript writes it for text that was cut inside an emoji. It stands for no character, so that neither
UTF-8 nor msgspec takes it. A raw field (`data`, `meta`, `config`) keeps it byte for byte. A text that signald reads
itself (`kind`, `trace`, `reason`, names and labels) cannot hold it and is refused.

A payload that msgspec refused is decoded a second time with each half replaced by a mark that occurs nowhere in it; the mark is
replaced back in what is raw. No payload without such an escape comes here, so the usual path costs nothing.
"""

import re
from itertools import count
from typing import Any, NamedTuple, TypeVar

import msgspec
from msgspec import Raw, Struct, structs

M = TypeVar("M")

IN_TEXT = "half of a surrogate pair in a field that is read as text"
"""The words about such a field; nothing of its content."""

# Each alternative consumes a whole escape: a backslash that is escaped itself begins none, and a whole pair is left alone.
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u([dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)
_CANDIDATE = re.compile(rb"\\u[dD][89a-fA-F]")
_TAKEN = re.compile(rb"<([0-9]{1,8})>")  # a payload below 100 MB cannot hold more marks than eight digits can number


class Marked(NamedTuple):
    """A payload without halves, and the mark that stands for the beginning of each."""

    text: bytes
    mark: bytes

    def decode(self, decoder: "msgspec.json.Decoder[M]") -> M:
        """Return the message with its raw fields as they were sent.

        Raises:
            msgspec.DecodeError: not valid, or half of a pair in a field that is read as text.
        """
        message: M = _restored(decoder.decode(self.text), self.mark, self.mark.decode())
        return message


def mark(payload: bytes) -> Marked | None:
    """Return `payload` with a mark for each half of a surrogate pair; None when there is none. Linear in its length."""
    if _CANDIDATE.search(payload) is None:
        return None
    taken = {int(number) for number in _TAKEN.findall(payload)}
    # It begins and ends with characters that stand nowhere else in it, so no new one arises where it meets its neighbours.
    sign = b"<%d>" % next(number for number in count() if number not in taken)
    text = _ESCAPE.sub(lambda found: sign + found[1] if found[1] else found[0], payload)
    return Marked(text, sign) if sign in text else None


def _restored(value: Any, sign: bytes, text: str) -> Any:
    """Return `value` with the marks in raw parts replaced back."""
    if isinstance(value, Raw):
        raw = bytes(value)
        return Raw(raw.replace(sign, rb"\u")) if sign in raw else value
    if isinstance(value, str):
        if text in value:
            raise msgspec.DecodeError(IN_TEXT)
    elif isinstance(value, Struct):
        changed = {}
        for name in value.__struct_fields__:
            was = getattr(value, name)
            now = _restored(was, sign, text)
            if now is not was:
                changed[name] = now
        return structs.replace(value, **changed) if changed else value
    elif isinstance(value, list):
        return [_restored(one, sign, text) for one in value]
    elif isinstance(value, dict):
        return {_restored(key, sign, text): _restored(one, sign, text) for key, one in value.items()}
    return value
