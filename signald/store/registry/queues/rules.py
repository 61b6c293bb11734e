"""What the operations on the event queues of workers and of the cluster do (see rules)."""

from contextlib import suppress

from msgspec.structs import replace

from signald.core.life import Event, Value
from signald.store import base
from signald.store.damage import Unreadable
from signald.store.registry.agenda.rules import enter
from signald.store.registry.queues import ops
from signald.store.registry.queues.ops import CLUSTER
from signald.store.registry.queues.records import ONCE_REMEMBERED, QUEUE_KEPT_MS, QUEUES_CHECKED, Queue
from signald.store.rows import Rows, Wakes
from signald.store.rule import rule


def tell(
    name: str, kind: str, fields: dict[str, Value], events_max: int, now_ms: int, rows: Rows, *, last: bool = False
) -> None:
    """Put an event into a queue of `events_max` (0: tell nothing), and let it be due. The `last` one of a queue is always taken."""
    if events_max <= 0:
        return
    _check_old(now_ms, rows)
    queue = rows.queue(name) or Queue(name, now_ms, 0)
    if len(queue.events) >= events_max and not last:
        queue = replace(queue, dropped=queue.dropped + 1)
    else:
        said = {**fields, "dropped": queue.dropped} if queue.dropped else fields
        event = Event(queue.last + 1, kind, now_ms, said)
        queue = replace(queue, last=event.n, dropped=0, events=(*queue.events, event))
    rows.save_queue(replace(queue, until_ms=now_ms + QUEUE_KEPT_MS))
    enter("e", name, now_ms, rows)


def leave(name: str, rows: Rows) -> None:
    """The worker of a queue is gone: an empty queue goes as well."""
    queue = rows.queue(name)
    if queue is not None and not queue.events:
        rows.drop_queue(name)


def _check_old(now_ms: int, rows: Rows) -> None:
    for name in rows.queues_over(now_ms, QUEUES_CHECKED):
        queue = rows.queue(name)
        if queue is not None and _stays(name, rows):
            rows.save_queue(replace(queue, until_ms=now_ms + QUEUE_KEPT_MS))
        else:
            rows.drop_queue(name)


def _stays(name: str, rows: Rows) -> bool:
    with suppress(Unreadable):
        return name == CLUSTER or rows.worker(name) is not None
    return True


@rule(ops.TellCluster)
def tell_cluster(op: ops.TellCluster, rows: Rows, _wakes: Wakes) -> base.Done:
    told = (rows.fact("cluster_told") or b"").split()
    once = op.once.encode()
    if op.events_max > 0 and once not in told:
        rows.save_fact("cluster_told", b" ".join([*told, once][-ONCE_REMEMBERED:]))
        tell(CLUSTER, op.type, op.fields, op.events_max, op.now_ms, rows)
    return base.Done()


@rule(ops.ReadQueue)
def read_queue(op: ops.ReadQueue, rows: Rows, _wakes: Wakes) -> base.EventsRead:
    queue = rows.queue(op.name)
    if queue is None:
        return base.EventsRead((), 0, 0)
    return base.EventsRead(queue.events[: max(0, op.limit)], len(queue.events), queue.dropped, queue.begun_ms)


@rule(ops.DropQueue)
def drop_queue(op: ops.DropQueue, rows: Rows, _wakes: Wakes) -> base.EventsLeft:
    queue = rows.queue(op.name)
    if queue is None:
        return base.EventsLeft(0)
    kept = tuple([event for event in queue.events if event.n > op.upto])
    if not kept and not _stays(op.name, rows):
        rows.drop_queue(op.name)
    elif len(kept) < len(queue.events):
        rows.save_queue(replace(queue, events=kept))
    return base.EventsLeft(len(kept))
