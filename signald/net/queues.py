"""A budget for all send queues of a node: when slow peers together hold too much, the slowest are closed.

A connection is counted while a write to it waits; the queue of a connection that takes its bytes is empty after each batch.
Counting all of them for each message would cost more than the message. So growth is added up, and only then all are counted.
"""

from typing import Protocol


class Queue(Protocol):
    """The send queue of one connection, as the budget sees it."""

    @property
    def queued_bytes(self) -> int: ...
    @property
    def closing(self) -> bool: ...
    def fail_slow_consumer(self, reason: str) -> None: ...


RECOUNT_BYTES = 4_194_304
"""How much all queues may grow before they are counted: little beside the budget, and at least some hundred messages."""

RELIEF = 0.125
"""Share of the budget that is freed at once, so that not every message searches for the largest queues."""


class SendQueues:
    """See the module."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        """Replaced when the configuration is reloaded."""
        self.shed = 0
        """Connections closed to keep the budget, since the start."""
        self._blocked: dict[Queue, None] = {}
        self._grown = 0

    @property
    def bytes(self) -> int:
        """Bytes that wait for slow peers."""
        return sum([connection.queued_bytes for connection in self._blocked if not connection.closing])

    def block(self, connection: Queue) -> None:
        """A write to `connection` waits."""
        self._blocked[connection] = None
        self.grow(connection.queued_bytes)

    def unblock(self, connection: Queue) -> None:
        """Every byte is written, or the connection is over."""
        self._blocked.pop(connection, None)

    def grow(self, size: int) -> None:
        """The queue of a connection that waits has grown by `size` bytes."""
        self._grown += size
        if self._grown >= RECOUNT_BYTES:
            self._grown = 0
            held = self.bytes
            if held > self.bytes_max:
                self._relieve(held)

    def _relieve(self, held: int) -> None:
        aim = self.bytes_max * (1.0 - RELIEF)
        slow = [connection for connection in self._blocked if not connection.closing]
        for connection in sorted(slow, key=lambda one: -one.queued_bytes):
            if held <= aim:
                break
            held -= connection.queued_bytes
            connection.fail_slow_consumer("send queues of all connections are full")
            self.shed += 1
