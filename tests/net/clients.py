"""What a WebSocket client puts on the wire, correct or not, written without the code under test."""

import struct


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, mask: bytes | None = b"\x0b\xad\xca\xfe",
    length: int | None = None, width: int | None = None,
) -> bytes:
    """Return one client frame; `length` and `width` (0, 2 or 8 bytes) may lie, `mask` None leaves it unmasked."""
    said = len(payload) if length is None else length
    if width is None:
        width = 0 if said < 126 else 2 if said < 65536 else 8
    first = (0x80 if fin else 0) | (rsv << 4) | opcode
    second = (0x80 if mask is not None else 0) | {0: said & 0x7F, 2: 126, 8: 127}[width]
    head = bytes((first, second)) + {0: b"", 2: struct.pack("!H", said & 0xFFFF), 8: struct.pack("!Q", said)}[width]
    if mask is None:
        return head + payload
    masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    return head + mask + masked


def text(said: str | bytes) -> bytes:
    """Return a whole text message."""
    return frame(1, said.encode() if isinstance(said, str) else said)


def close(code: int | None = 1000, reason: bytes = b"") -> bytes:
    """Return a Close frame."""
    return frame(8, b"" if code is None else struct.pack("!H", code) + reason)
