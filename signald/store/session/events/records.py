"""What is kept of a queue of events beside the events themselves (`core.life.Event`)."""

from msgspec import Struct

from signald.core.life import EVENTS_LEFT_MS
from signald.core.wants import SEPARATOR
from signald.store.claims import CLAIMS_REMEMBERED
from signald.store.lua import Raw, Value

NONCES_REMEMBERED = CLAIMS_REMEMBERED
"""How many events that have no step of their own are remembered by nonce. Like a claim they are repeated within seconds, or never."""


class Queue(Struct, array_like=True):
    """The queue of a session. It is there from its first event on, as long as the session, and beyond while an event waits."""

    name: str
    """The id of the session."""
    last: int = 0
    """The number of the last event. `Head.events` is at least as high, and goes on where a queue was lost."""
    events_max: int = 0
    """As in the record: what is known of it when that cannot be read, or was saved by an earlier release."""
    waiting: int = 0
    """How many events wait, whether they can be read or not."""
    dropped: int = 0
    """Since the last event that has fitted."""
    worker: str = ""
    """The last worker that was told as paired."""
    away: int = 0
    """1 when the client was told as away, and not as resumed since."""
    seen_ms: int = 0
    """The time of the last event, dropped or not."""
    until_ms: int = 0
    """When the session has ended: until when the queue is kept; 0: it has not. Redis keeps it by the time to live of the key."""
    nonces: tuple[str, ...] = ()
    """Of `TellEvent`, the last ones."""


_FIELDS = [field for field in Queue.__struct_fields__ if field not in ("name", "until_ms")]

CONSTANTS: dict[str, Value] = {
    "QUEUE_KINDS": "".join({"worker": "s", "nonces": "t"}.get(field, "n") for field in _FIELDS),
    "EVENTS_LEFT_MS": EVENTS_LEFT_MS,
    "TENANT_AND_SUBJECT": Raw(f"'^(.*)\\{ord(SEPARATOR)}(.-)$'"),
    **{f"QUEUE.{field}": place for place, field in enumerate(_FIELDS, 1)},
}
"""The record in Lua: where each field stands, and whether it is a number (`n`), a text (`s`) or a list (`t`)."""
