"""One budget for all send queues of a node: when slow peers together hold too much, the slowest give way.

A connection is counted while a write to it waits; the queue of one that takes what it is sent is empty after each batch. Counting all
of them for each message would cost more than the message, so what has grown is added up, and only now and then all are looked at.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from signald.net.connection import Connection

RECOUNT_BYTES = 4_194_304
"""How much all queues may grow until they are counted again: little beside the budget, and some hundred messages at least."""

RELIEF = 0.125
"""Part of the budget that is freed at once, so that the largest are not looked for with each message."""


class SendQueues:
    """See the module."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        """Replaced when the configuration is reloaded."""
        self.shed = 0
        """Connections closed to keep the budget, since the start."""
        self._blocked: dict[Connection, None] = {}
        self._grown = 0

    @property
    def bytes(self) -> int:
        """Bytes that wait for slow peers."""
        return sum([connection.queued_bytes for connection in self._blocked if not connection.closing])

    def block(self, connection: "Connection") -> None:
        """A write to `connection` waits."""
        self._blocked[connection] = None
        self.grow(connection.queued_bytes)

    def unblock(self, connection: "Connection") -> None:
        """All was written, or the connection is over."""
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
