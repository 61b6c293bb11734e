"""An event queue as memory and SQLite keep it, and the bounds of the queues of the registry for all stores."""

from msgspec import Struct

from signald.core.life import Event

QUEUES_CHECKED = 4
"""Old queues that are looked at with each new event: more than come with it, so that what was left behind goes."""

ONCE_REMEMBERED = 256
"""Keys of `TellCluster` that are remembered: a stop is told again within minutes, in which fewer nodes stop. As many bytes as a queue's."""


class EventQueue(Struct, array_like=True, frozen=True):
    """One queue with its events: a worker has two or three in its life, and the cluster some for each deploy."""

    name: str
    until_ms: int
    """Until when it is kept if its worker is gone: `EVENTS_LEFT_MS` behind its last event. Only events that no node delivers get so old,
    and what a release that tells nothing has left behind."""
    last: int = 0
    """The number given last."""
    dropped: int = 0
    """Events that did not fit since then."""
    events: tuple[Event, ...] = ()
    """Those that wait."""
