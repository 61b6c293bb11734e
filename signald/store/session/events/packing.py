"""The operations on the event queue of a session as RESP commands. Their scripts are part of those of session/packing.py."""

from msgspec import msgpack

from signald.store.redis_codec import codec
from signald.store.session.events.ops import DropEvents, ReadEvents, TellEvent
from signald.store.session.events.replies import read_events
from signald.store.session.packing import pack_session

codec(ReadEvents, lambda op: pack_session(op, "read_events", op.limit), read_events)
codec(DropEvents, lambda op: pack_session(op, "drop_events", op.upto), read_events)


def pack_tell_event(op: TellEvent) -> bytes:
    """Call `tell_event`; the fields are packed as they are kept."""
    fields = msgpack.encode(op.fields)
    return pack_session(op, "tell_event", op.nonce, op.type, fields, op.events_max, op.now_ms)


codec(TellEvent, pack_tell_event, read_events)
