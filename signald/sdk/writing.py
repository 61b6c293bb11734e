"""The frames that a core gives its driver to write, and the size of a payload. No I/O."""

from signald.wire.messages import Message, Realtime

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
