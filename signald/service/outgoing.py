"""Which links have something to write. Each is written to once, at the end of a batch, however much the batch produced for it.

Nothing writes in between: a part queues on the connection and marks its link, and the end of the batch calls `flush`.
"""

from typing import Protocol


class Writer(Protocol):
    """A link, as far as writing goes."""

    marked: bool
    """It is flushed at the end of this batch."""
    acking: bool
    """It has acks that go with its next write, or soon."""

    @property
    def has_acks(self) -> bool:
        """True when an ack waits for a write."""

    def write(self) -> None:
        """Write everything queued. Acks ride along."""


class PendingWrites:
    """See the module."""

    def __init__(self) -> None:
        self._marked: list[Writer] = []
        self._acking: list[Writer] = []

    def mark(self, link: Writer) -> None:
        """Have `link` flushed at the end of this batch."""
        if not link.marked:
            link.marked = True
            self._marked.append(link)

    def mark_acking(self, link: Writer) -> None:
        """Have the acks of `link` written with its next write, or by `flush_acks`."""
        if not link.acking:
            link.acking = True
            self._acking.append(link)

    def flush(self) -> None:
        """One write for each marked connection."""
        marked, self._marked = self._marked, []
        for link in marked:
            link.marked = False
            link.write()

    def flush_acks(self) -> None:
        """Write the acks that found nothing to ride with."""
        acking, self._acking = self._acking, []
        for link in acking:
            link.acking = False
            if link.has_acks:
                self.mark(link)
        self.flush()

    @property
    def has_acks(self) -> bool:
        """True when `flush_acks` has something to do."""
        return bool(self._acking)
