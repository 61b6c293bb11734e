"""What `Reseed` does: a node gives a session back to a store that has lost it, or the newest of it (see rules)."""

from signald.core.head import Head
from signald.core.log import Entry
from signald.core.tokens import Slots
from signald.store.claims import Claim, Side
from signald.store.damage import Unreadable
from signald.store.rows import Rows, Wakes
from signald.store.rule import rule
from signald.store.session import ops
from signald.store.session.events.keeping import begin_events, learn_events
from signald.store.session.jobs.keeping import learn_jobs
from signald.store.session.records import NO_TTL_MS, Record, Way
from signald.store.session.rules import count_worker, take_ack
from signald.store.session.streams import rules as streams
from signald.store.session.streams.keeping import SENDERS, put_item
from signald.store.session.streams.records import mark_in


@rule(ops.Reseed)
def reseed(op: ops.Reseed, rows: Rows, wakes: Wakes) -> Head | ops.NoSession:
    known = op.head
    record, damaged = None, False
    try:
        record = rows.session(op.session)
    except Unreadable:
        damaged = True
        rows.drop_session(op.session)  # what its logs held above what is given back now is said to be lost
    if record is None and not (op.create or damaged):
        return ops.NoSession()
    if record is None:
        rows.drop_past(op.session)
        record = Record(
            session=op.session,
            created_ms=known.created_ms,
            principal=known.principal,
            want=known.want,
            meta=known.meta,
            receipts=known.receipts,
            # Until the next claim no token of this session expires by it; the session itself does, by ExpireSession.
            ttl_ms=NO_TTL_MS,
            client_away_ms=op.now_ms,
        )
        begin_events(record, rows)
    # These never change, so each node that knows the session knows them; what is kept of them may be damaged.
    record.created_ms, record.principal, record.want = known.created_ms, known.principal, known.want
    record.meta, record.receipts, record.pair = known.meta, known.receipts, known.pair
    if known.asked_until_ms >= record.asked_until_ms:  # a later answer counts for longer
        record.settings, record.rooms = known.settings, known.rooms
        record.asked_until_ms = known.asked_until_ms
    learn_jobs(record, known.jobs, rows)
    _reseed_client(record, op)
    _reseed_worker(record, op)
    learn_events(record, known, rows)
    up_acked = max(known.up_acked, record.up_heard)
    _reseed_log(record, "up", known.up_last, up_acked, op.up_tail, op.now_ms, rows)
    _reseed_log(record, "down", known.down_last, known.down_acked, op.down_tail, op.now_ms, rows)
    record.streams = max(record.streams, known.streams)
    wakes.session(record, op.node, record.client.node, record.worker_side.node)
    rows.save_session(record)
    return record.head()


def _reseed_side(side: Side, epoch: int, node: str, by: str) -> bool:
    """Merge what `by` knows of a party; tell whether it is newer. A node speaks for the parties it holds itself only.

    Of the others it may have missed that they left; their own nodes speak for them, or they count as away.
    """
    newer = epoch > side.epoch
    if newer:
        side.epoch, side.node = epoch, ""
    if epoch == side.epoch and not side.node and node == by:
        side.node = by
    return newer


def _reseed_client(record: Record, op: ops.Reseed) -> None:
    side, slots = record.client, record.slots
    was_attached = bool(side.node)
    newer = _reseed_side(side, op.head.client_epoch, op.head.client_node, op.node)
    if was_attached and not side.node:
        record.client_away_ms = op.now_ms
    unknown = not (slots.current or slots.retired)
    # The worker's node may have been first: it knows the epoch, and not the tokens that came with it.
    back = not was_attached and bool(side.node) and bool(slots.current)
    if op.client_tokens and (newer or back or (unknown and op.head.client_epoch == side.epoch)):
        current, previous = (*op.client_tokens, b"")[:2]
        record.slots = Slots(current, previous, slots.retired)
        side.give_back(Claim("", op.head.client_epoch, asked_ms=op.asked_ms, attempt=op.attempt))


def _reseed_worker(record: Record, op: ops.Reseed) -> None:
    known = op.head
    newer = _reseed_side(record.worker_side, known.worker_epoch, known.worker_node, op.node)
    if newer:
        record.failed = known.failed
    elif known.worker_epoch == record.worker_side.epoch:
        record.failed = max(record.failed, known.failed)
    if newer:
        record.worker, record.worker_state = known.worker, known.worker_state
        record.said_before = known.said_before
    elif known.worker_epoch == record.worker_side.epoch and known.worker == record.worker and record.worker_state:
        if known.worker_state == "paired":  # from `assigned` on a pairing only goes forward
            record.worker_state = "paired"
        record.said_before = max(record.said_before, known.said_before)
    if record.worker:
        count_worker(record)
    record.workers = max(record.workers, known.workers)


def _reseed_log(
    record: Record, way: Way, last: int, acked: int, tail: tuple[Entry, ...], now_ms: int, rows: Rows
) -> None:
    log = record.log(way)
    new = [entry for entry in tail if entry.seq > log.last]
    if (new[0].seq if new else last + 1) > log.last + 1:
        streams.lose(record, way, rows)
    log.last = max(log.last, last)
    take_ack(record, way, acked, rows)
    rows.put_entries(record.session, way, [entry for entry in new if entry.seq > log.acked])
    for entry in new:
        if mark := mark_in(entry):
            streams.take_piece(record, way, entry, mark, now_ms, rows, given_back=True)
        elif entry.history:
            put_item(record, SENDERS[way], entry.body, rows)
