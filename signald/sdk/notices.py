"""Notices: what a worker's core tells its driver to do. No I/O."""

from typing import Any, Self

from attrs import frozen
from msgspec import UNSET, Raw, UnsetType

from signald.sdk.core import SessionCore
from signald.sdk.events import Gone, LifecycleEvent, LogLost, RealtimeReceived, ReceiptUpTo
from signald.sdk.jobs_core import JobCancelled, JobGiven
from signald.sdk.rooms_core import Rooms
from signald.sdk.streams_core import CancelRequested, FoundStream, StreamRefused
from signald.sdk.values import read, read_history
from signald.wire.messages import OpenStream, SessionAssigned


@frozen
class Assigned:
    """A session was assigned to this worker and accepted."""

    core: SessionCore
    rooms: Rooms
    meta: Any
    """As `values.read` gives it: `readable` tells whether it is one."""
    chat_history: list[Any]
    subject: str | None = None
    open_streams: tuple[FoundStream, ...] = ()
    state: Any = None
    """What the worker before has left, as `values.read` gives it."""
    attempt: int = 1
    """How often the session has been handed out since a worker last acked something."""
    settings: Any = None
    """What the core server says for the session, as `values.read` gives it."""

    @classmethod
    def by(cls, message: SessionAssigned, core: SessionCore, rooms: Rooms) -> Self:
        """Return the notice of an assignment."""
        history = message.chat_history if message.chat_history is not UNSET else []
        meta = message.client.meta
        return cls(
            core,
            rooms,
            read(meta) if isinstance(meta, Raw) and bytes(meta) else None,
            read_history(history),
            message.client.subject if message.client.subject is not UNSET else None,
            _found(message.open_streams),
            read(message.state) if isinstance(message.state, Raw) else None,
            max(message.attempt, 1),
            read(message.client.settings) if isinstance(message.client.settings, Raw) else None,
        )


@frozen
class Taken:
    """A session is not this worker's any more, though it may live on: stop working on it."""

    session: str
    reason: str


@frozen
class RoomElsewhere:
    """Other workers have room for these sessions of this worker, which leaves; none: it will be told."""

    sessions: tuple[str, ...]


@frozen
class SessionEvent:
    """Something about one session for its application."""

    session: str
    event: LogLost | ReceiptUpTo | RealtimeReceived | Gone | StreamRefused | CancelRequested | JobGiven | JobCancelled


@frozen
class Terminate:
    """Clean up within `deadline_ms`, then answer with `WorkerCore.terminated`."""

    request_id: str
    reason: str
    deadline_ms: int


Notice = Assigned | Taken | RoomElsewhere | SessionEvent | Terminate | LifecycleEvent


def _found(streams: list[OpenStream] | UnsetType) -> tuple[FoundStream, ...]:
    """Return the streams that a worker finds open, for its application."""
    found = []
    for each in streams if streams is not UNSET else ():
        text = read(each.data) if isinstance(each.data, Raw) else None
        kept = text if isinstance(text, str) else None
        found.append(
            FoundStream(each.stream, each.attempt, each.kind or None, kept, each.truncated, each.cancel, each.reason)
        )
    return tuple(found)
