"""What a node writes to a party: the frames in its bytes, and what of a frame a transcript shows."""

import json
from typing import Any

SWITCHED = b"HTTP/1.1 101 "
HEAD_END = b"\r\n\r\n"
TEXT, BINARY = 1, 2
"""Opcodes (RFC 6455, section 5.2)."""
SHOWN = (
    "session", "worker", "seq", "state", "kind", "data", "stream", "attempt", "outcome", "job", "room", "code", "message", "reason",
    "accepted", "replaying", "lost", "capacity", "leaving",
)  # fmt: skip
"""The fields of a frame that a transcript shows, in this order. No field of this list holds a credential or a token."""

VALUE_CHARACTERS_MAX = 60
"""The characters of one field in a transcript: enough to tell messages apart, and a line stays a line."""


class FrameReader:
    """The frames in what a node writes on one connection, which comes in slices. Raises nothing: an HTTP answer has no frames."""

    def __init__(self) -> None:
        self._rest = b""
        self._begun = False
        self.answer = ""
        """The first line of an HTTP answer, where the connection is no WebSocket."""

    def feed(self, data: bytes) -> list[tuple[bool, bytes]]:
        """Return the text and binary messages that are complete now: whether it is text, and its payload."""
        if not self._begun:
            self._begun = True
            if not data.startswith(SWITCHED):
                self.answer = data.partition(b"\r\n")[0].decode("ascii", "replace")
            data = data.partition(HEAD_END)[2]
        if self.answer:
            return []
        self._rest += data
        frames = []
        while (frame := self._next()) is not None:
            opcode, payload = frame
            if opcode in (TEXT, BINARY):
                frames.append((opcode == TEXT, payload))
        return frames

    def _next(self) -> tuple[int, bytes] | None:
        """Take one frame: a node masks nothing and fragments nothing (RFC 6455, section 5.2)."""
        rest = self._rest
        if len(rest) < 2:
            return None
        length, at = rest[1] & 127, 2
        if length > 125:
            at = 4 if length == 126 else 10
            if len(rest) < at:
                return None
            length = int.from_bytes(rest[2:at], "big")
        if len(rest) < at + length:
            return None
        self._rest = rest[at + length :]
        return rest[0] & 15, rest[at : at + length]


def fields_of(text: bool, payload: bytes) -> dict[str, Any]:
    """Return the fields of a frame of signald.v1; `bytes` is the length of the data behind the header of a binary frame."""
    if text:
        header, more = payload, {}
    else:
        length = int.from_bytes(payload[:2], "big")
        header, more = payload[2 : 2 + length], {"bytes": len(payload) - 2 - length}
    try:
        fields = json.loads(header)
    except ValueError:
        return {"type": "unreadable"}
    return {**fields, **more} if isinstance(fields, dict) else {"type": "unreadable"}


def words(fields: dict[str, Any]) -> str:
    """Return one line about a frame, without its secrets."""
    shown = [f"{name}={_short(fields[name])}" for name in (*SHOWN, "bytes") if name in fields]
    return " ".join([str(fields.get("type", "")), *shown])


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    text = text.replace("\n", "\\n")
    return text if len(text) <= VALUE_CHARACTERS_MAX else f"{text[:VALUE_CHARACTERS_MAX]}…"
