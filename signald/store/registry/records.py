"""What the stores that think in Python keep of the registry, and how much of it."""

from msgspec import Struct

from signald.core.tokens import Slots
from signald.store.claims import Side

HOLDS_CHECKED = 16
"""Counts looked at with each new session: many times as many as come, so that counts left behind go within minutes."""

HOLD_CHECK_MS = 60_000
"""How long a count is believed again when its session lives."""

TRAIL_BYTES = 256
"""What a trail takes beside its steps: two keys and a count."""

TRAILS_EXPIRED = 64
"""Counts of trails whose time is over that are dropped in a call, beside two for each that is counted in it: more go than come."""

TRAILS_DROPPED = 1000
"""Trails that give way in one call: far more than come in a batch, and a batch's worth of operations to remove them."""

FORGET_NODE_AFTER_MS = 60_000

RECEIPTS_MAX = 100

PACE_BURST_S = 0.05
"""What an idle budget has saved up: enough to begin at once, too little to show in the claims of a second."""

PACE_DEBT_MAX_S = 600.0
"""Longer than any drain. A debt beyond it is an error of the asker, and the next ones must not wait hours for it."""


class Worker(Struct, array_like=True):
    """One worker of the registry. Which sessions it has is told by their places."""

    id: str
    principal: str
    instance: str
    labels: dict[str, str]
    capacity: int
    slots: Slots
    side: Side
    leaving: bool = False
    away_since_ms: int = 0


class Place(Struct, array_like=True, frozen=True, gc=False):
    """Where a session stands in the registry: in the waiting line (no `worker`), or paired, keeping its place in it."""

    session: str
    want: dict[str, str]
    order_ms: int
    worker: str = ""


class TrailCount(Struct, array_like=True, frozen=True, gc=False):
    """What a trail counts for, and until when."""

    session: str
    until_ms: int
    bytes: int
