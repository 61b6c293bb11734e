"""Notices: what a worker's core tells its driver to do. No I/O."""

from typing import Any

from attrs import frozen

from signald.sdk.core import SessionCore
from signald.sdk.events import Gone, LifecycleEvent, LogLost, RealtimeReceived, ReceiptUpTo
from signald.sdk.jobs_core import JobCancelled, JobGiven
from signald.sdk.streams_core import CancelRequested, FoundStream, StreamRefused


@frozen
class Assigned:
    """A session was assigned to this worker and accepted."""

    core: SessionCore
    meta: Any
    """As `values.read` gives it: `readable` tells whether it is one."""
    chat_history: list[Any]
    subject: str | None = None
    open_streams: tuple[FoundStream, ...] = ()
    state: Any = None
    """What the worker before has left, as `values.read` gives it."""
    attempt: int = 1
    """How often the session has been handed out since a worker last acked something."""


@frozen
class Taken:
    """A session is not this worker's any more, though it may live on: stop working on it."""

    session: str
    reason: str


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


Notice = Assigned | Taken | SessionEvent | Terminate | LifecycleEvent
