"""What a node counts of rooms; `service.meters` shows it."""

from collections import Counter
from collections.abc import Sequence
from typing import get_args

import attrs

from signald.core.rooms import Entry, Fault
from signald.store.room.ops import Published
from signald.tally import Histogram

STORED, GAP = "stored", "gap"

RESULTS: tuple[str, ...] = (STORED, GAP, *get_args(Fault))
"""What becomes of a publication: it is stored, it comes behind a gap, or the fault for which it is refused."""

NOT_MADE: tuple[str, ...] = ("too_many_made", "rooms_full")
"""Why a room is not made: its owner has as many as it may, or there are as many in all."""

FANOUT_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""From a room with all members at one node to one whose node was away for a moment."""


@attrs.define
class RoomCounts:
    """See the module."""

    publications: Counter[str] = attrs.field(factory=lambda: Counter(dict.fromkeys(RESULTS, 0)))
    """By `RESULTS`, over both ways: a connection, and HTTP. At the node that has asked the store."""
    deliveries: int = 0
    """Publications that were told to a member, each member counted."""
    fanouts: Histogram = attrs.field(factory=lambda: Histogram(FANOUT_SECONDS))
    """From the time at which a publication was stored until the members here were told."""
    refused: Counter[str] = attrs.field(factory=lambda: Counter(dict.fromkeys(NOT_MADE, 0)))
    """Rooms that were not made, by `NOT_MADE`."""
    slow: int = 0
    """Members that did not take what was published as fast as it came."""

    def not_made(self, reason: str) -> None:
        """Count a room that is not made."""
        self.refused[reason] += 1

    def published(self, result: Published, new: int) -> None:
        """Count a step of a member that has stored `new` publications."""
        self.publications[STORED] += new
        self.publications.update([fault for _, fault in result.refused])

    def told(self, entries: Sequence[Entry], now_ms: int) -> None:
        """Count publications that the members here are told of now."""
        for entry in entries:
            self.fanouts.observe(max(0, now_ms - entry.at_ms) / 1000)
