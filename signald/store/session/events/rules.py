"""What the operations on the event queue of a session do (see store/rule.py). The Lua twin is operations.lua."""

from signald.store import base
from signald.store.damage import Unreadable
from signald.store.rows import Rows, Wakes
from signald.store.rule import rule
from signald.store.session.events import ops
from signald.store.session.events.keeping import note_nonce, set_events_max, tell


@rule(ops.ReadEvents)
def read_events(op: ops.ReadEvents, rows: Rows, _wakes: Wakes) -> ops.EventsRead:
    queue = rows.queue(op.session)
    if queue is None:
        return ops.EventsRead()
    events, upto = rows.events(op.session, op.limit) if op.limit > 0 else ([], 0)
    return ops.EventsRead(tuple(events), queue.waiting, queue.dropped, upto)


@rule(ops.DropEvents)
def drop_events(op: ops.DropEvents, rows: Rows, _wakes: Wakes) -> ops.EventsLeft:
    queue = rows.queue(op.session)
    if queue is None:
        rows.drop_queue(op.session)
        return ops.EventsLeft()
    queue.waiting = rows.drop_events(op.session, op.upto)
    if not queue.waiting and _is_gone(op.session, rows):
        rows.drop_queue(op.session)
    else:
        rows.save_queue(queue)
    return ops.EventsLeft(queue.waiting)


def _is_gone(session: str, rows: Rows) -> bool:
    try:
        return rows.session(session) is None
    except Unreadable:
        return False  # it is still to end


@rule(ops.TellEvent)
def tell_event(op: ops.TellEvent, rows: Rows, _wakes: Wakes) -> base.Done:
    record = rows.session(op.session)
    if record is not None:
        set_events_max(record, op.events_max, rows)
        if note_nonce(record, op.nonce, rows):
            tell(record, op.type, op.now_ms, op.fields, rows)
        rows.save_session(record)
    return base.Done()
