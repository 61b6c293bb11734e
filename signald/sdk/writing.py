"""The frames that a core gives its driver to write, and the bounds of their sizes. No I/O."""

import msgspec
from msgspec import Raw

from signald.sdk.bounds import Bounds
from signald.sdk.values import write
from signald.wire.messages import Message, Realtime
from signald.wire.records import frame, head, realtime_body

Frame = tuple[bool, bytes]
"""A frame: (is text, payload)."""


class Batch:
    """The frames of one write. The budget keeps a long resend from delaying other sessions and acks."""

    __slots__ = ("frames", "left")

    def __init__(self, budget_bytes: int = 65536) -> None:
        self.frames: list[Frame] = []
        self.left = budget_bytes

    def text(self, payload: bytes) -> None:
        """Add a text frame."""
        self.add((True, payload))

    def add(self, one: Frame) -> None:
        """Add any frame."""
        self.frames.append(one)
        self.left -= len(one[1])


def payload_size(message: Message | Realtime, binary: bytes | None) -> int:
    """Return the size of a message's data in bytes."""
    return len(binary) if binary is not None else len(memoryview(message.data))


def realtime_frame(data: object, session: str | None, bounds: Bounds) -> Frame:
    """Return the frame of realtime data. `data`: a JSON value, or bytes for a binary frame.

    Raises:
        ValueError: larger or deeper than the service takes, or not JSON.
    """
    binary = bytes(data) if isinstance(data, bytes | bytearray | memoryview) else None
    raw = Raw() if binary is not None else Raw(write(data, bounds.json_depth_max - 1))
    one = frame(head(b"realtime", session), realtime_body(Realtime(raw), binary))
    if len(one[1]) > bounds.message_bytes_max:
        raise ValueError(f"realtime data may have at most {bounds.message_bytes_max} bytes on the wire")
    return one


def check_opening(said: dict[str, object], bounds: Bounds) -> None:
    """Check the size of an opening message with the options of the application.

    Raises:
        ValueError: larger than the service takes.
    """
    size = len(msgspec.json.encode(said))
    if size > bounds.message_bytes_max:
        raise ValueError(
            f"the opening message has {size} bytes with its options, at most {bounds.message_bytes_max} are taken"
        )
