"""The records of the registry in memory and SQLite, and the bounds of the registry for all stores."""

from msgspec import Struct

from signald.core.tokens import Slots
from signald.store.claims import Side

HOLDS_CHECKED = 16
"""Counts checked with each new session: many times as many as are added, so that orphaned counts go within minutes."""

HOLD_CHECK_MS = 60_000
"""For how long a count is not checked again when its session lives: a minute bounds the checks of a long session."""

TRAIL_BYTES = 256
"""The bytes of a trail beside its steps: two keys and a count."""

TRAILS_EXPIRED = 64
"""Counts of expired trails that are dropped in one call, beside two for each trail that grows in it: more go than come."""

TRAILS_DROPPED = 1000
"""Trails that give way in one call: far more than come in a batch, and a batch's worth of operations to remove them."""

FORGET_NODE_AFTER_MS = 60_000
"""How long the entry of a node stays after its lease: until every other node has seen that the lease ended."""

RECEIPTS_MAX = 100
"""Receipts of drains that are kept: those of several rollouts of a large cluster."""

REVOKED_DROPPED = 64
"""Revocations whose time is over that are dropped with each new one: many times as many as are added."""

PACE_BURST_S = 0.05
"""The savings of an idle budget: enough to begin at once, too little to show in the claims of a second."""

PACE_DEBT_MAX_S = 600.0
"""Longer than any drain. A larger debt is an error of one caller, for which others must not wait hours."""


class Worker(Struct, array_like=True):
    """One worker of the registry. Its sessions are those whose places name it."""

    id: str
    principal: str
    instance: str
    labels: dict[str, str]
    capacity: int
    slots: Slots
    side: Side
    leaving: bool = False
    away_since_ms: int = 0
    granted: dict[str, str] = {}
    """Labels that the core server has given it, over its own."""
    rooms: bytes = b""
    """What the core server lets it do in rooms, as JSON; empty, or in a record without it: it has said nothing of them."""


class Place(Struct, array_like=True, frozen=True, gc=False):
    """Where a session stands in the registry: in the waiting line (no `worker`), or paired, keeping its place in it."""

    session: str
    want: dict[str, str]
    order_ms: int
    worker: str = ""


class TrailCount(Struct, array_like=True, frozen=True, gc=False):
    """The bytes for which a trail counts, and until when."""

    session: str
    until_ms: int
    bytes: int
