"""Counting without locks: a part counts an event at its place, and a reader takes the numbers when it needs them.

A node runs in one thread, so a counter is an integer and a histogram a list of integers. Nothing here knows how it is
shown; `service.meters` turns it into metrics.
"""

from bisect import bisect_left


class Histogram:
    """How often a value fell between two bounds. `bounds` are upper ones, inclusive and rising; one more is infinity."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0
        """The sum of all values."""

    def observe(self, value: float, times: int = 1) -> None:
        """Count `value`, which was met `times` times."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times


class Traffic:
    """Bytes on the wire, of connections that are over as well."""

    __slots__ = ("deflatable_bytes", "deflated_bytes", "received_bytes", "sent_bytes")

    def __init__(self) -> None:
        self.received_bytes = 0
        self.sent_bytes = 0
        self.deflatable_bytes = 0
        """Of messages before they were deflated. Those that went to many count once, as do the bytes that came out."""
        self.deflated_bytes = 0
