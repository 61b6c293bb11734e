"""A session's seat on a link: what the link remembers of one session that is attached to it.

A client has one seat. A worker has one for each of its sessions, and a seat is given up as a whole (`Link.drop`), so nothing
of a session stays behind on a link that serves it no more.

    ASKED ──the worker accepts──▸ ACCEPTED
"""

from enum import Enum
from math import inf

from signald.service.attached import LiveSession


class SeatState(Enum):
    """How far a session is handed to the party of the link."""

    ASKED = "asked"
    """A worker has been asked to take it, here or at the node it was at before, and has not answered. It gets no messages."""
    ACCEPTED = "accepted"
    """The party gets its messages. A client accepts by its opening message."""


class Seat:
    """See the module."""

    __slots__ = (
        "ack", "adopts_until", "asked_epoch", "blocked", "due", "ending", "found", "front", "jobs_first", "session", "state",
    )  # fmt: skip

    def __init__(self, session: LiveSession, front: bytes) -> None:
        self.session = session
        self.front = front
        """The beginning of the session's `message` frames: needed for each, so it is made once."""
        self.state = SeatState.ASKED
        self.due = inf
        """Until when the worker may accept (trio time); means nothing once it has."""
        self.asked_epoch: int | None = None
        """The epoch it was asked with on this connection; None: it was asked on an earlier one."""
        self.found: tuple[str, ...] = ()
        """Streams that the worker found open, and in which it had not spoken then."""
        self.adopts_until = inf
        """Until when it may speak in them (trio time)."""
        self.ending = False
        """The worker has said `bye` to it. Beside the state, because a worker may end what it has not accepted."""
        self.ack = 0
        """The seq to ack with the next write; 0: none."""
        self.jobs_first = False
        """Its messages wait until the jobs of the session have been handed out."""
        self.blocked = False
        """It has more to deliver than the send queue had room for."""
