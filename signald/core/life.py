"""An event: one step in the life of a session, a worker or the cluster, of which the operator's core is told.

Theory of operation. An event is stored in the step that it tells, in the queue of its session (worker, cluster), and numbered there from
1 without a gap. So no step is told that did not happen, and none is forgotten because a node died behind it. The delivery
makes its request from the stored event alone: each attempt says the same under the same id, by which the receiver recognizes a repetition.

*A full queue.* An event that finds no room is dropped: it gets no number, and the next event that fits says how many were dropped
before it (`dropped`). So the numbers of what is told stay dense, and the receiver learns of each loss. The end of a session always fits.
"""

from typing import Literal

from msgspec import Struct

EventType = Literal[
    "session.started", "session.paired", "session.reassigned", "session.away", "session.resumed", "session.ended", "job.ended"
]  # fmt: skip
"""The events of a session that signald tells by itself."""

EVENTS_MAX = 1000
"""How many events of one queue wait when no other number is asked for. A session has a dozen in its life, and two for each outage of a
client's network: a day of these at a receiver that is away for the day. At about 200 bytes each a queue has 200 KB."""

EVENTS_KEEP_MAX_MS = 86_400_000
"""For how long the delivery of an event may be tried at most: a day, as the wire says."""

EVENTS_LEFT_MS = EVENTS_KEEP_MAX_MS + 3_600_000
"""For how long the store keeps the queue of a session that has ended, from its last event on, when nothing takes that away. The hour is
for the last attempt, and for clocks: so the delivery gives an event up, and counts it, before the store removes it."""

DROPPED = "dropped"
"""The field of an event that says how many were dropped between the event before it and this one; absent: none."""

JSON_FIELDS = frozenset({"want", "data"})
"""The fields whose text is JSON, to be told as it is and not as a text."""


class Event(Struct, frozen=True, array_like=True, gc=False):
    """An event as it is stored. A field that is added stands last, with the meaning of its absence as its default."""

    n: int
    """Its number in its queue, from 1."""
    type: str
    at_ms: int
    """Milliseconds since 1970 by the clock of the node that made the step."""
    fields: dict[str, str | int]
    """What is told of the step, by the names of wire.md; see `JSON_FIELDS`."""


def webhook_id(queue: str, event: Event) -> str:
    """Return the id of an event of a queue for its receiver: the same for each attempt.

    A store that has lost its last steps gives their numbers to other events. So the time of the event is part of the id: by
    the number alone a receiver would take the other event for a repetition, and drop it.
    """
    return f"msg_{queue}_{event.n}_{event.at_ms}"
