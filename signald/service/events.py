"""What happens to a session or a worker at this node, as typed events with fields; and the subscribers of each.

A part of the node that lets something happen emits one event. Subscribers take from it what they need:

    emits                                  subscribers
    openings, attachments, endings,        Trail        the steps of a session, kept in the store
    workers, retries, drain, …             Recorder     counters, and the lines of the log
                                           tell_life    spans, where they are wanted
                                           Mover        a drain under way
                                           LostWorkers  workers that are here
                                           RoomDesk     the rooms of parties that are here

A new subscriber (a hook, a job, another wire) needs no change where an event is emitted. An event holds ids, numbers and
words, never an object of the node: it may be kept, sent or compared. It holds no secret.

`emit` is synchronous, and so is each subscriber: between what happened and its record no other task runs. A subscriber
that raises is logged and harms no other one, nor the part that has emitted.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import attrs
import structlog

from signald.core.exits import Cause
from signald.core.head import Party
from signald.core.jobs import State
from signald.service.counts import EndCause, FailureCause

log = structlog.get_logger(__name__)


@attrs.frozen
class ClientStarted:
    """A new session has its client here."""

    session: str
    opened_at: float
    """When its connection was opened (trio time)."""
    trace: str | None
    """The traceparent of the opening message."""
    dialect: str
    """The wire that the client speaks."""


@attrs.frozen
class SessionCreated:
    """A session has been begun over HTTP; its client is still to come."""

    session: str


@attrs.frozen
class ClientResumed:
    """A client has resumed its session here."""

    session: str
    epoch: int
    previous_node: str
    """Where the client was attached until now; empty when it was attached nowhere."""
    replaying: int
    """Messages that are sent to it again."""
    gap_s: float | None
    """How long it was away, in seconds; None when nothing tells since when."""
    opened_at: float
    trace: str | None
    dialect: str
    """The wire that the client speaks."""


@attrs.frozen
class WorkerRegistered:
    """A new worker is attached here."""

    worker: str
    instance: str
    capacity: int
    opened_at: float
    trace: str | None
    dialect: str
    """The wire that the worker speaks."""


@attrs.frozen
class WorkerResumed:
    """A worker has resumed here, with `sessions` of its sessions and without `lost` of them."""

    worker: str
    epoch: int
    sessions: int
    lost: int
    opened_at: float
    trace: str | None
    dialect: str
    """The wire that the worker speaks."""


@attrs.frozen
class SessionResumed:
    """A session goes on with its worker here, which has resumed."""

    session: str
    worker: str
    epoch: int
    previous_node: str
    replaying: int


@attrs.frozen
class Assigned:
    """A worker here was asked to take a session."""

    session: str
    worker: str


@attrs.frozen
class Accepted:
    """A worker here has accepted a session, and the store knows."""

    session: str
    worker: str


@attrs.frozen
class PartyReleased:
    """A party of a session is no longer attached here. See `core.exits`."""

    session: str
    party: Party
    cause: Cause
    owner: str
    """The session of a client, or the worker."""
    epoch: int
    """Of the party's side of the session, as this node knows it now."""
    told_to_go: bool
    """GOAWAY had been sent to it."""
    how_over: str
    """How its connection ended, in a few words; empty while it has not."""
    reason: str
    """What the party or the node gave as the reason; empty for none."""


@attrs.frozen
class LinkOver:
    """A party is here no more, with all of its sessions."""

    party: Party
    owner: str
    at: float
    """When its link was over (trio time)."""
    goaway_at: float | None
    """When it was told to go (trio time), if it went for that; None: this is no handover."""


@attrs.frozen
class SessionChanged:
    """The store has said something new of a session here."""

    session: str
    worker: str
    """Empty when the session has none."""
    worker_node: str
    """Where its worker is attached; empty for nowhere."""


@attrs.frozen
class ToldToGo:
    """GOAWAY is about to be sent to a party, for the sake of these sessions."""

    party: Party
    sessions: tuple[str, ...]
    reason: str


@attrs.frozen
class Suspended:
    """A drain is about to close a party of a session, which may resume elsewhere."""

    session: str
    party: Party
    reason: str


@attrs.frozen
class WorkerGivenUp:
    """A worker has lost all its sessions, by the policy."""

    worker: str
    sessions: tuple[str, ...]
    reason: str
    leaving: bool = False
    """It has left by its own word."""


@attrs.frozen
class HandoutFailed:
    """A hand-out of a session has failed, and counts."""

    session: str
    cause: FailureCause


@attrs.frozen
class RightsChanged:
    """A party has shown another credential, or the core server has said something else of it: it may have fewer rights."""

    party: Party
    sessions: tuple[str, ...]
    """Those in which it is attached here."""


@attrs.frozen
class SetAside:
    """A session has failed so often at one message that no worker is asked any more."""

    session: str
    seq: int
    failures: int


@attrs.frozen
class Retried:
    """An operator has let a session that was set aside be handed out again."""

    session: str


@attrs.frozen
class JobStored:
    """A job was stored at the request of a caller here, and was none before."""

    session: str
    job: str
    kind: str
    seconds: float
    """From the request to the store's answer."""


@attrs.frozen
class JobGiven:
    """A job was handed to a worker here."""

    session: str
    job: str
    kind: str
    attempt: int
    worker: str


@attrs.frozen
class JobOver:
    """The worker's last piece of a job was stored here."""

    session: str


@attrs.frozen
class JobTold:
    """A client here was told of a change of a job."""

    session: str
    job: str
    state: State
    attempt: int
    seconds: float
    """From its creation to its end; 0 while it has not ended."""


@attrs.frozen
class StreamCancelled:
    """A request to end a stream has come to this node, and the store has judged it."""

    session: str
    stream: str


@attrs.frozen
class StreamsInterrupted:
    """This node has ended streams, because the worker that found them open did not speak in them."""

    session: str
    streams: tuple[str, ...]


@attrs.frozen
class SessionEnded:
    """The store has ended a session, by an operation of this node. It is emitted once for each session in the cluster."""

    session: str
    cause: EndCause


@attrs.frozen
class Carried:
    """The messages of a session, and the bytes of them that were stored from this node."""

    up: int
    """Messages from the client, all told."""
    down: int
    """Messages from its workers, all told."""
    up_bytes: int
    down_bytes: int


@attrs.frozen
class SessionLeft:
    """No party of a session is at this node any more. The session goes on."""

    session: str
    carried: Carried


@attrs.frozen
class SessionGone:
    """A session is over. Each node that held it emits this, and the node that has found its time passed."""

    session: str
    reason: str
    held: bool
    """This node held it."""
    carried: Carried
    duration_ms: int
    """How long the session has lasted."""


@attrs.frozen
class ResumeRefused:
    """A party may not resume, for `reason`: one of `refusals.REFUSALS`."""

    owner: str
    """The session or the worker that its token names; empty when the token names none."""
    reason: str


LifeEvent = (
    ClientStarted
    | SessionCreated
    | ClientResumed
    | WorkerRegistered
    | WorkerResumed
    | SessionResumed
    | Assigned
    | Accepted
    | PartyReleased
    | LinkOver
    | SessionChanged
    | ToldToGo
    | Suspended
    | WorkerGivenUp
    | HandoutFailed
    | RightsChanged
    | SetAside
    | Retried
    | JobStored
    | JobGiven
    | JobOver
    | JobTold
    | StreamCancelled
    | StreamsInterrupted
    | SessionEnded
    | SessionLeft
    | SessionGone
    | ResumeRefused
)

E = TypeVar("E", bound=LifeEvent)


class Events:
    """The subscriptions of one node. See the module."""

    def __init__(self) -> None:
        self._subscribers: dict[type[Any], tuple[Callable[[Any], None], ...]] = {}

    def subscribe(self, kind: type[E], then: Callable[[E], None]) -> None:
        """Have `then` called with each event of `kind`, in the order of subscription. It must not wait."""
        self._subscribers[kind] = (*self._subscribers.get(kind, ()), then)

    def unsubscribe(self, kind: type[E], then: Callable[[E], None]) -> None:
        """End a subscription; one that does not exist is none to end."""
        self._subscribers[kind] = tuple(one for one in self._subscribers.get(kind, ()) if one != then)

    def emit(self, event: LifeEvent) -> None:
        """Tell each subscriber of `event`. Raises nothing."""
        for then in self._subscribers.get(type(event), ()):
            try:
                then(event)
            except Exception:
                log.exception("subscriber_failed", life_event=type(event).__name__)
