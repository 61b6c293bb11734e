"""What the service needs of a worker's connection beyond that of any party (`attached.PartyLink`), whatever wire it speaks."""

from typing import Protocol

import trio

from signald.core.once_more import OnceMore
from signald.core.tokens import Slots
from signald.ids import WorkerId
from signald.service.attached import PartyLink
from signald.service.seats import Seat


class WorkerLike(PartyLink, Protocol):
    """A worker on a connection of this node, with all its sessions."""

    worker: WorkerId
    epoch: int
    instance: str
    labels: dict[str, str]
    capacity: int
    leaving: bool
    """It takes no more sessions, and is about to go."""
    tokens: Slots
    seats: dict[str, Seat]
    """Every session attached here, accepted or not, in the order of attachment."""
    unasked: bool
    """It has sessions that it was not asked to take, because its send queue was full."""
    checks: OnceMore
    """Looks at the registry for it."""
    updates: OnceMore
    """Updates of its record in the registry."""
    terminated: trio.Event
    """`app_terminated` has come."""

    @property
    def speaks_handover(self) -> bool:
        """False for a program of a time before GOAWAY: it is ended with `terminate_app`."""

    @property
    def left_in_order(self) -> bool:
        """True when the connection ended because the worker leaves, or because this node sent it away."""
