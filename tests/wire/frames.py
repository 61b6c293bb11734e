"""Frames as parties write them, for the tests of the wire."""

import json
import struct
from typing import Any

DEPTH_MAX = 32


def text(**fields: object) -> bytes:
    """Return the payload of a text frame."""
    return json.dumps(fields).encode()


def binary(data: bytes, /, **fields: object) -> bytes:
    """Return the payload of a binary frame that carries `data`."""
    header = json.dumps(fields).encode()
    return struct.pack(">H", len(header)) + header + data


def read(payload: bytes, *, is_text: bool) -> dict[str, Any]:
    """Return a frame as its receiver reads it; `data` of a binary frame is bytes."""
    if is_text:
        message: dict[str, Any] = json.loads(payload)
        return message
    (length,) = struct.unpack_from(">H", payload)
    return {**json.loads(payload[2 : 2 + length]), "data": payload[2 + length :]}
