"""What the backend is told of a session, a worker or the cluster: one event of a queue.

A queue belongs to one session, one worker or the cluster. Its events have the numbers 1, 2, 3..., given in the same atomic step as what
they tell. So the number of an event, with the name of its queue, names it for good, and whoever delivers it twice delivers the same.
"""

from msgspec import Struct

Value = str | int


class Event(Struct, frozen=True, array_like=True, gc=False):
    """One event as it is stored."""

    n: int
    """Its number in its queue, dense from 1."""
    type: str
    """As `session.started`."""
    at_ms: int
    """When it happened, in milliseconds since 1970 by the store's clock."""
    fields: dict[str, Value]
    """What it tells beside that; `dropped` is how many events before it did not fit into the queue."""
