"""What the operations on the event queues of workers and of the cluster do (see rules)."""

from contextlib import suppress

from msgspec.structs import replace

from signald.core.life import DROPPED, EVENTS_LEFT_MS, Event
from signald.store import base
from signald.store.damage import Unreadable
from signald.store.registry.agenda.rules import enter
from signald.store.registry.queues import ops
from signald.store.registry.queues.ops import CLUSTER
from signald.store.registry.queues.records import ONCE_REMEMBERED, QUEUES_CHECKED, EventQueue
from signald.store.rows import Rows, Wakes
from signald.store.rule import rule
from signald.store.session.events.ops import EventsLeft, EventsRead


def tell(
    name: str, kind: str, fields: dict[str, str | int], events_max: int, now_ms: int, rows: Rows, *, last: bool = False
) -> None:
    """Put an event into a queue of `events_max` (0: tell nothing), and let it be due. The `last` one of a queue is always taken."""
    if events_max <= 0:
        return
    _check_old(now_ms, rows)
    queue = rows.event_queue(name) or EventQueue(name, 0)
    if len(queue.events) >= events_max and not last:
        queue = replace(queue, dropped=queue.dropped + 1)
    else:
        said = {**fields, DROPPED: queue.dropped} if queue.dropped else fields
        event = Event(queue.last + 1, kind, now_ms, said)
        queue = replace(queue, last=event.n, dropped=0, events=(*queue.events, event))
    rows.save_event_queue(replace(queue, until_ms=now_ms + EVENTS_LEFT_MS))
    enter("e", name, now_ms, rows)


def leave(name: str, rows: Rows) -> None:
    """The worker of a queue is gone: an empty queue goes as well."""
    queue = rows.event_queue(name)
    if queue is not None and not queue.events:
        rows.drop_event_queue(name)


def _check_old(now_ms: int, rows: Rows) -> None:
    for name in rows.event_queues_over(now_ms, QUEUES_CHECKED):
        queue = rows.event_queue(name)
        if queue is not None and _stays(name, rows):
            rows.save_event_queue(replace(queue, until_ms=now_ms + EVENTS_LEFT_MS))
        else:
            rows.drop_event_queue(name)


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


@rule(ops.TellWorker)
def tell_worker(op: ops.TellWorker, rows: Rows, _wakes: Wakes) -> base.Done:
    queue = rows.event_queue(op.worker)
    waits = queue is not None and any(_said(event) == op.fields for event in queue.events)
    if not waits and _stays(op.worker, rows):
        tell(op.worker, op.type, op.fields, op.events_max, op.now_ms, rows)
    return base.Done()


def _said(event: Event) -> dict[str, str | int]:
    """Return the fields with which an event was told."""
    return {name: value for name, value in event.fields.items() if name != DROPPED}


@rule(ops.ReadQueue)
def read_queue(op: ops.ReadQueue, rows: Rows, _wakes: Wakes) -> EventsRead:
    queue = rows.event_queue(op.name)
    if queue is None:
        return EventsRead()
    events = queue.events[: max(0, op.limit)]
    return EventsRead(events, len(queue.events), queue.dropped, events[-1].n if events else 0)


@rule(ops.DropQueue)
def drop_queue(op: ops.DropQueue, rows: Rows, _wakes: Wakes) -> EventsLeft:
    queue = rows.event_queue(op.name)
    if queue is None:
        return EventsLeft(0)
    kept = tuple([event for event in queue.events if event.n > op.upto])
    if not kept and not _stays(op.name, rows):
        rows.drop_event_queue(op.name)
    elif len(kept) < len(queue.events):
        rows.save_event_queue(replace(queue, events=kept))
    return EventsLeft(len(kept))
