"""The operations on the event queue of a session (`core.life`), for its delivery. The queue is filled by the operations of session/ops.py.

A session whose record says `events_max` 0 is not told. An operation that sets it (`CreateSession`, both claims) changes what is told
from then on; events that wait already are kept. A queue that cannot be read is dropped, and never keeps a session from going on.
"""

from signald.core.life import Event
from signald.store.base import Done, Result, SessionOp, traits


class EventsRead(Result, frozen=True):
    """The first events that wait, in their order."""

    events: tuple[Event, ...] = ()
    waiting: int = 0
    """How many wait in all, those that cannot be read included."""
    dropped: int = 0
    """How many were dropped since the last event: the next one will say it."""
    upto: int = 0
    """The number of the last event that was looked at: it may be higher than that of the last one of `events`, which leaves out what
    cannot be read. What is read and told is dropped up to it."""


@traits(reads=True, damaged=EventsRead())
class ReadEvents(SessionOp[EventsRead], frozen=True):
    """Read up to `limit` events, 0 to count them; also after the session's end. Without a queue nothing waits."""

    limit: int


class EventsLeft(Result, frozen=True):
    """How many events still wait."""

    waiting: int = 0


@traits(damaged=EventsLeft())
class DropEvents(SessionOp[EventsLeft], frozen=True):
    """Remove the events up to number `upto`: they are told, or given up. An empty queue goes if its session has gone."""

    upto: int
    now_ms: int


@traits(damaged=Done())
class TellEvent(SessionOp[Done], frozen=True):
    """Add an event that no other step of the session tells. The caller bounds its `fields`.

    It is added once for each `nonce` (of the last `NONCES_REMEMBERED`), and not at all without a session. `events_max` is as in
    `CreateSession`.
    """

    nonce: str
    type: str
    fields: dict[str, str | int]
    events_max: int
    now_ms: int
