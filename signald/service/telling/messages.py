"""An event as the core server gets it: the same bytes in each attempt, under the same id."""

import attrs
import msgspec

from signald.core.life import JSON_FIELDS, Event, webhook_id
from signald.http.api.times import rfc3339
from signald.ids import as_session, as_worker


@attrs.frozen
class Message:
    """See the module."""

    id: str
    """`webhook-id`: a receiver that has seen it drops the message."""
    body: bytes


def message_of(queue: str, event: Event) -> Message:
    """Return the message of an event."""
    about = {"session": queue} if as_session(queue) else {"worker": queue} if as_worker(queue) else {}
    told = {name: _json(value) if name in JSON_FIELDS else value for name, value in event.fields.items()}
    data = {**about, "n": event.n, **told}
    body = {"type": event.type, "timestamp": rfc3339(event.at_ms), "data": data}
    return Message(webhook_id(queue, event), msgspec.json.encode(body))


def _json(value: str | int) -> object:
    try:
        return msgspec.json.decode(str(value))
    except msgspec.DecodeError:
        return value
