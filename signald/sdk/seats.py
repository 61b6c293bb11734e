"""A seat: a session of a worker, as the worker's core keeps it. No I/O.

::

    session_assigned ──▶ ACCEPTED ── a message or an ack of the session ──▶ CONFIRMED
                            ▲                                                   │
                            └── `not_accepted`, or the assignment said again ───┘

A seat ends with a release, with `session_ended`, when the session is out of step, and when a resume does not name the session.
"""

from collections.abc import Callable
from enum import Enum

from attrs import define, field

from signald.sdk.bounds import DEFAULT_BOUNDS, Bounds
from signald.sdk.core import SessionCore
from signald.sdk.jobs_core import HeldJobs
from signald.sdk.link import Link
from signald.sdk.rooms_core import Rooms


class SeatState(Enum):
    """How far the acceptance of a session is."""

    ACCEPTED = "accepted"
    """Said, and nothing has shown that signald knows it: said again after a resume."""
    CONFIRMED = "confirmed"
    """signald has acted on it."""


@define
class Seat:
    """See the module."""

    core: SessionCore
    epoch: int | None
    """The epoch of the assignment, which goes back with every answer; None: the node named none."""
    left: tuple[Link, ...] = ()
    """Connections that were being left at the assignment: a frame of the session that comes there is of an earlier assignment."""
    state: SeatState = SeatState.ACCEPTED
    jobs: HeldJobs = field(factory=HeldJobs)
    bounds: Callable[[], Bounds] = lambda: DEFAULT_BOUNDS
    """What signald takes at the moment."""
    rooms: Rooms = field(init=False)
    """The rooms that the worker is in with the session."""

    @rooms.default
    def _rooms(self) -> Rooms:
        return Rooms(self.core, self.bounds)

    @property
    def name(self) -> str:
        """The session's id."""
        return self.core.name or ""

    def continues_at(self, next_seq: int) -> bool:
        """Tell whether an assignment at `next_seq` is this one, said again: nothing of it has been stored by another worker."""
        return self.core.accepted < next_seq <= self.core.next_seq and self.core.bye is None

    def wake_at(self, now: float) -> float:
        """Return when a pause ends that keeps something from being written, or NEVER."""
        return min(self.core.wake_at(now), self.rooms.wake_at(now))

    def position(self, link: Link) -> dict[str, object]:
        """Return what a resume over `link` says of the session."""
        position: dict[str, object] = {
            "session": self.name,
            "received": self.core.finished,
            "acked": self.core.accepted,
        }
        if jobs := self.jobs.listed(self.core):
            position["jobs"] = jobs
        if rooms := self.rooms.positions():
            position["rooms"] = rooms
            link.rooms[self.name] = frozenset([str(each["room"]) for each in rooms])
        return position
