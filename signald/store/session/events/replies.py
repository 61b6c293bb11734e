"""What Redis answers to the operations on the event queue of a session, read as their results."""

from msgspec import DecodeError, msgpack

from signald.core.life import Event
from signald.store.base import Result, SessionOp
from signald.store.damage import REPORTS
from signald.store.redis_connection import Reply
from signald.store.redis_replies import DONE, read_refusal
from signald.store.session.events.ops import EventsLeft, EventsRead

_event = msgpack.Decoder(Event).decode


def read_events(op: SessionOp, reply: Reply) -> Result:
    """What operations.lua answers: a list that begins with its kind."""
    match reply:
        case [b"done"]:
            return DONE
        case [b"left", waiting]:
            return EventsLeft(waiting)
        case [b"events", kept, waiting, dropped, upto]:
            return EventsRead(_events(op, kept), waiting, dropped, upto)
        case _:
            return read_refusal(reply)


def _events(op: SessionOp, kept: list[bytes]) -> tuple[Event, ...]:
    found = []
    for packed in kept:
        try:
            found.append(_event(packed))
        except DecodeError:
            REPORTS.tell("event", op.session)
    return tuple(found)
