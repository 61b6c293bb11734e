"""What the service needs of a worker's connection beyond that of any party (`attached.PartyLink`), whatever wire it speaks."""

from collections.abc import Sequence
from typing import Protocol

import attrs
import trio

from signald.core.chat_history import HistoryEntry
from signald.core.once_more import OnceMore
from signald.core.streams import StreamView
from signald.core.tokens import Slots
from signald.ids import WorkerId
from signald.service.attached import ApiToken, PartyLink
from signald.service.seats import Seat
from signald.wire.messages import CancelReason, ResumedSession, SessionPosition


@attrs.frozen
class Offer:
    """What a worker says of itself at its opening; each field as in `app_ready` of `signald.v1`."""

    instance: str
    labels: dict[str, str]
    capacity: int
    sessions: Sequence[SessionPosition] = ()
    """Those that it has, and how far."""
    trace: str | None = None
    api: bool = False
    """It asks for API tokens."""
    kinds: tuple[str, ...] = ()
    """The kinds of jobs that it takes; `*` is every kind."""
    granted: dict[str, str] = attrs.field(factory=dict)
    """Labels that the core server has given it, which it does not say itself; `labels` has them too."""
    rooms: bytes = b""
    """What the core server lets it do in rooms, as JSON; empty: it has said nothing of them."""


@attrs.frozen
class GivenJob:
    """A job that is handed to a worker."""

    session: str
    job: str
    kind: str
    data: bytes = attrs.field(repr=False)
    """JSON, or with a `content_type` any bytes."""
    content_type: str
    attempt: int
    deadline_ms: int | None
    """How much time is left; None: no deadline."""
    trace: str


@attrs.frozen
class Assignment:
    """A session that a worker is asked to take."""

    session: str
    meta: bytes
    """What its client has said of it, as JSON; empty for nothing."""
    subject: str
    """What the client's credential says of it; empty when it showed none."""
    next_seq: int
    """The number of the worker's first message in it."""
    history: Sequence[HistoryEntry]
    """The chat as stored, oldest first."""
    epoch: int
    """Tells an answer to this assignment from a late one to an earlier assignment."""
    hand_outs: int = 0
    """How often the session has been handed out since a worker last acked something, this time included."""
    state: bytes = b""
    """What the worker before has left for this one, as JSON; empty for nothing."""
    streams: Sequence[StreamView] = ()
    """The streams of its direction that it finds open."""
    settings: bytes = b""
    """What the core server says for the session, as JSON; empty for nothing."""


@attrs.frozen
class Registered:
    """The answer to a worker at its opening."""

    token: str = attrs.field(repr=False)
    """The recovery token, in the clear: for this worker alone."""
    ttl_ms: int
    """How long the worker, and with it the token, outlives the connection."""
    resumed: bool
    """The worker goes on with what it had."""
    restored: Sequence[ResumedSession] = ()
    """The sessions with which it goes on."""
    lost: Sequence[str] = ()
    """Sessions that it named and has no more."""
    api: ApiToken | None = None
    """None: the worker has not asked for one."""


class WorkerLike(PartyLink, Protocol):
    """A worker on a connection of this node, with all its sessions."""

    worker: WorkerId
    epoch: int
    instance: str
    labels: dict[str, str]
    capacity: int
    kinds: tuple[str, ...]
    """As in its offer."""
    granted: dict[str, str]
    """Labels that the core server has given it; `labels` has them too."""
    leaving: bool
    """It takes no more sessions, and is about to go."""
    asks_successor: bool
    """It leaves, and wants to know when other workers have room for its sessions."""
    told_successor: set[str] | None
    """Those of which it has been told that; None: it has not been told anything since it asked."""
    tokens: Slots
    asked: tuple[int, int]
    """How the claim that issued them was asked for: when (ms), and the worker's own count; 0: not known."""
    seats: dict[str, Seat]
    """Every session attached here, accepted or not, in the order of attachment."""
    unasked: bool
    """It has sessions that it was not asked to take, because its send queue was full."""
    checks: OnceMore
    """Looks at the registry for it."""
    updates: OnceMore
    """Updates of its record in the registry."""
    terminated: trio.Event
    """The worker has cleaned up, as it was asked to by `terminate`."""

    @property
    def speaks_handover(self) -> bool:
        """False for a program that cannot be asked to come to another node: a drain ends it with `terminate`."""

    @property
    def cleans_up_s(self) -> float | None:
        """How long a program is given to clean up that a final drain asks as soon as it has begun, before any other party moves.

        None: it speaks handover, or is asked when all others have gone.
        """

    @property
    def left_in_order(self) -> bool:
        """True when the connection ended because the worker leaves, or because this node sent it away."""

    def registered(self, answer: Registered) -> None:
        """Answer the opening of the worker: the first that it is told."""

    def assign(self, assignment: Assignment) -> None:
        """Ask the worker to take a session."""

    def successor(self, sessions: Sequence[str]) -> None:
        """Tell a worker that leaves for which of its sessions other workers have room now; for none: that it will be told."""

    def give_job(self, job: GivenJob) -> None:
        """Hand a job to the worker, which has accepted its session."""

    def cancel_job(self, session: str, job: str, reason: CancelReason) -> None:
        """Tell the worker that it works on a job without need."""

    def terminate(self, request: str, reason: str, deadline_ms: int) -> None:
        """Ask a worker that does not speak handover to clean up within `deadline_ms`; it answers `request`."""
