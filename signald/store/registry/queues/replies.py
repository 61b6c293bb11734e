"""What Redis answers to the operations on the event queues of the registry, read as their results."""

from msgspec import MsgspecError, msgpack

from signald.core.life import DROPPED, Event
from signald.store.damage import REPORTS
from signald.store.redis_connection import Reply
from signald.store.registry.queues.ops import ReadQueue
from signald.store.session.events.ops import EventsRead

_fields = msgpack.Decoder(dict[str, str | int]).decode


def read_queue(op: ReadQueue, reply: Reply) -> EventsRead:
    """The first events; what cannot be read is left out."""
    if not reply:
        return EventsRead()
    waiting, dropped, *kept = reply
    events, upto = [], 0
    for event in kept:
        upto = event[0]
        try:
            n, kind, at_ms, packed, before = event
            fields = _fields(packed)
            events.append(Event(n, kind.decode(), at_ms, {**fields, DROPPED: before} if before else fields))
        except (MsgspecError, ValueError, TypeError, AttributeError):
            REPORTS.tell("event", op.name)
    return EventsRead(tuple(events), waiting, dropped, upto)
