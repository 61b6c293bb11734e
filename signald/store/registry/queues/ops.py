"""The operations on the event queues of workers and of the cluster.

Other operations fill them, in the same step as what they tell: `RegisterWorker` and `ClaimNamed` (`worker.registered`), and
`RemoveWorker` (`worker.lost`). What a worker says of its own life is told by `TellWorker`. A queue with something new is due in the
agenda from the same step on, as an item of kind `e` with its name.

A full queue is as `core.life` says; `worker.lost` always fits, being the last. The queue of a worker goes when it is empty and the worker
is gone; that of the cluster stays.
"""

from signald.store.base import Done, RegistryOp, traits
from signald.store.session.events.ops import EventsLeft, EventsRead

CLUSTER = "cluster"
"""The name of the queue of the cluster; no worker has such an id."""


class TellCluster(RegistryOp[Done], frozen=True):
    """Put an event into the queue of the cluster, of `events_max` events at most; 0: do not.

    With the same `once` a repetition does nothing, at any node: `ONCE_REMEMBERED` such words without blanks are remembered.
    """

    once: str
    type: str
    fields: dict[str, str | int]
    events_max: int
    now_ms: int


class TellWorker(RegistryOp[Done], frozen=True):
    """Put an event into the queue of a worker, of `events_max` events at most; 0: do not. A worker that is not known tells nothing.

    An event with the same `fields` as one that waits is its repetition, and is dropped: the caller makes them differ.
    """

    worker: str
    type: str
    fields: dict[str, str | int]
    events_max: int
    now_ms: int


@traits(reads=True, damaged=EventsRead())
class ReadQueue(RegistryOp[EventsRead], frozen=True):
    """Read the first `limit` events of a queue, a worker's or `CLUSTER`."""

    name: str
    limit: int


@traits(damaged=EventsLeft())
class DropQueue(RegistryOp[EventsLeft], frozen=True):
    """Remove the events of a queue up to number `upto`: they are delivered."""

    name: str
    upto: int
