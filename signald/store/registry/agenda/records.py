"""An item of the agenda as memory and SQLite keep it, and the bounds of the agenda for all stores."""

from typing import Literal

from msgspec import Struct

Kind = Literal["e", "b", "r"]
"""`e`: an event queue, named by its session, worker, or `cluster`; `b`: the blobs of one principal, named by their shelf; `r`: a room, by
its name, which is over at a time or has members whose sessions may have ended without it."""

AHEAD_MAX_MS: dict[Kind, int] = {"e": 3_600_000, "b": 86_400_000, "r": 86_400_000}
"""How far ahead an item may be due; a later time is cut to it. An hour is the longest time for which a queue waits after a
failure. A day lets each shelf and room be looked at now and then, after any loss, at the cost of one read. An item that is due still later
was entered before the clock was set back, and is due at once."""

ITEMS_MAX: dict[Kind, int] = {"e": 200_000, "b": 0, "r": 0}
"""How many items `Schedule` fills a kind to; 0: no bound. Of queues, four for each session of `limits.sessions_max`: those that live, and
those that ended while the receiver is away; half a kilobyte each in Redis. A shelf is never refused, because what lies on it would never
go: there are as many as principals with blobs. No more is a room, in which a seat of a session that has ended would stay: there are as many
as rooms that are kept, and each of them takes far more than its item."""

ROOMS: Kind = "r"
"""The kind of rooms, whose items have owners."""

LEASE_MAX_MS = 600_000
"""The longest lease: so long an item stays with a node that has died. A lease that ends later was taken before the clock was set back."""


class Item(Struct, array_like=True, frozen=True, gc=False):
    """One item."""

    kind: str
    name: str
    at_ms: int
    """When it is due; while a node has it, when the lease ends."""
    ticket: int = 0
    """Which lease it is under; 0: none."""
    failures: int = 0
    since_ms: int = 0
    """When the first of these failures was; 0: none."""
    again_ms: int = 0
    """When it is due again, as it was asked for under this lease; 0: not asked."""
    nonce: str = ""
    """Of the operation that took it."""
