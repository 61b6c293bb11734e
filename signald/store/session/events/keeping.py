"""The event queue of a session during one step of the store. The Lua twin is queue.lua.

A session that is not told costs such a step nothing. The caller saves the record.
"""

from msgspec import DecodeError, Struct, json

from signald.core.head import Head
from signald.core.jobs import Job
from signald.core.life import DROPPED, EVENTS_LEFT_MS, Event
from signald.core.wants import subject_of, tenant_of
from signald.ids import job_id
from signald.store.rows import Rows
from signald.store.session.events.records import NONCES_REMEMBERED, Queue
from signald.store.session.records import Record

Fields = dict[str, str | int]

DUE_MAX = 32
"""How many queues that are kept no longer one end removes: more than it can add, so that they never gather."""


def add(queue: Queue, kind: str, at_ms: int, fields: Fields, rows: Rows, *, always: bool = False) -> None:
    """Add an event to a queue and save both. In a full queue it is dropped and counted, unless it is added `always`.

    `at_ms` 0: the time is not known, and that of the last event stands for it.
    """
    queue.seen_ms = at_ms = at_ms or queue.seen_ms
    if not always and queue.waiting >= queue.events_max:
        queue.dropped += 1
    else:
        queue.last += 1
        queue.waiting += 1
        if queue.dropped:
            fields = {**fields, DROPPED: queue.dropped}
            queue.dropped = 0
        rows.put_event(queue.name, Event(queue.last, kind, at_ms, fields))
    rows.save_queue(queue)


def tell(record: Record, kind: str, at_ms: int, fields: Fields, rows: Rows) -> None:
    """Tell one event of a session."""
    if record.events_max:
        _add(record, _opened(record, rows), kind, at_ms, fields, rows)


def _opened(record: Record, rows: Rows) -> Queue:
    queue = rows.queue(record.session)
    if queue is None:
        rows.drop_queue(record.session)  # what is left of a damaged one would be told as if it were of this one
        paired = record.worker if record.worker_state == "paired" else ""
        queue = Queue(record.session, worker=paired, seen_ms=record.created_ms)
    # The numbers that a lost queue has given are not given again: each had raised `Head.events`.
    queue.last = max(queue.last, record.events)
    queue.events_max = record.events_max
    queue.until_ms = 0
    return queue


def _add(record: Record, queue: Queue, kind: str, at_ms: int, fields: Fields, rows: Rows) -> None:
    add(queue, kind, at_ms, fields, rows)
    record.events = queue.last


# --- the steps that are told ----------------------------------------------------------------------------------------


def begin_events(record: Record, rows: Rows) -> None:
    """A session begins or is given back: waiting events of an earlier session with its id are still told, and the numbers go on."""
    queue = rows.queue(record.session)
    if queue is not None:
        record.events = max(record.events, queue.last)
        queue.until_ms = 0
        rows.save_queue(queue)


def learn_events(record: Record, known: Head, rows: Rows) -> None:
    """A node knows the session as `known`, which is part of the record by now: numbers that may have been given are not given again."""
    record.events = max(record.events, known.events)
    record.events_max = record.events_max or known.events_max
    if record.events_max:
        queue = _opened(record, rows)
        if record.worker_state == "paired":
            queue.worker = record.worker  # its pairing was told before the loss
        rows.save_queue(queue)


def set_events_max(record: Record, events_max: int, rows: Rows) -> None:
    """Tell the session from now on, or no longer (0)."""
    if record.events_max != events_max:
        record.events_max = events_max
        rows.save_queue(_opened(record, rows))


def note_nonce(record: Record, nonce: str, rows: Rows) -> bool:
    """Note that an event is told under `nonce`; False when it was before, or the session is not told."""
    if not record.events_max:
        return False
    queue = _opened(record, rows)
    if nonce in queue.nonces:
        return False
    queue.nonces = (*queue.nonces, nonce)[-NONCES_REMEMBERED:]
    rows.save_queue(queue)
    return True


def tell_started(record: Record, node: str, rows: Rows) -> None:
    """The session is created."""
    fields: Fields = {"node": node}
    tenant = tenant_of(record.principal)
    if tenant is not None:
        fields["tenant"] = tenant
    if record.principal:
        fields["subject"] = subject_of(record.principal)
    if record.want:
        fields["want"] = json.encode(record.want).decode()
    tell(record, "session.started", record.created_ms, fields, rows)


def tell_paired(record: Record, at_ms: int, rows: Rows) -> None:
    """The worker has accepted the session."""
    if not record.events_max:
        return
    queue = _opened(record, rows)
    previous, queue.worker = queue.worker, record.worker
    if previous in ("", record.worker):
        _add(record, queue, "session.paired", at_ms, {"worker": record.worker}, rows)
    else:
        fields: Fields = {"worker": record.worker, "previous": previous}
        _add(record, queue, "session.reassigned", at_ms, fields, rows)


def tell_away(record: Record, node: str, at_ms: int, rows: Rows) -> None:
    """The client's connection at `node` is over, and no other has taken its place."""
    if record.events_max:
        queue = _opened(record, rows)
        queue.away = 1
        _add(record, queue, "session.away", at_ms, {"node": node}, rows)


def tell_resumed(record: Record, node: str, away_ms: int, at_ms: int, rows: Rows) -> None:
    """The client has claimed its side. That is told only when it was told as away: a handover without a gap tells nothing."""
    if not record.events_max:
        return
    queue = _opened(record, rows)
    if queue.away:
        queue.away = 0
        _add(record, queue, "session.resumed", at_ms, {"node": node, "away_ms": away_ms}, rows)


class _Error(Struct):
    code: str = ""


def tell_job(record: Record, job: Job, at_ms: int, rows: Rows) -> None:
    """A job of the session has ended."""
    if not record.events_max:
        return
    fields: Fields = {
        "job": job_id(record.session, job.n), "kind": job.kind, "state": job.state, "attempt": job.attempt
    }  # fmt: skip
    if code := _code_of(job.error):
        fields["error"] = code
    tell(record, "job.ended", at_ms, fields, rows)


def _code_of(error: bytes) -> str:
    try:
        return json.decode(error, type=_Error).code if error else ""
    except DecodeError:
        return ""


def end_events(session: str, record: Record | None, reason: str, now_ms: int, rows: Rows) -> int:
    """The session has ended: tell it, and let its queue go once it is empty, or its time is over. Returns how many events wait.

    Without a `record`, which cannot be read, the queue tells whether the session is told.
    """
    queue = rows.queue(session) if record is None or not record.events_max else _opened(record, rows)
    if queue is None:
        return 0
    at_ms = now_ms or queue.seen_ms
    fields: Fields = {"reason": reason}
    if record is not None:
        fields |= {
            "duration_ms": max(0, at_ms - record.created_ms), "up": record.up.last, "down": record.down.last
        }  # fmt: skip
    if queue.events_max if record is None else record.events_max:
        add(queue, "session.ended", at_ms, fields, rows, always=True)
        if record is not None:
            record.events = queue.last
    if queue.waiting:
        queue.until_ms = at_ms + EVENTS_LEFT_MS
        rows.save_queue(queue)
    else:
        rows.drop_queue(session)
    drop_queues(rows, now_ms)
    return queue.waiting


def drop_queues(rows: Rows, now_ms: int, limit: int = DUE_MAX) -> None:
    """Remove up to `limit` queues of ended sessions that are kept no longer. Redis does it by itself."""
    for name in rows.queues_over(now_ms, limit):
        rows.drop_queue(name)
