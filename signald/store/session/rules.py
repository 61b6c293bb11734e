"""What the operations on one session do (see rules)."""

from signald.core.chat_history import is_part, unfold
from signald.core.failures import NO_FAILURES
from signald.core.head import Head, Party
from signald.core.log import Entry
from signald.core.tokens import Slots, Verdict, confirm, is_previous, present
from signald.store import base
from signald.store.claims import Claim, Side, refusal
from signald.store.damage import Unreadable
from signald.store.rows import Rows, Wakes
from signald.store.rule import rule
from signald.store.session import ops
from signald.store.session.events import keeping as events
from signald.store.session.jobs.keeping import begin_jobs, finish_jobs, lose_worker, move_jobs
from signald.store.session.records import WORKERS_REMEMBERED, Past, Record, Way
from signald.store.session.streams import rules as streams
from signald.store.session.streams.keeping import SENDERS, put_item
from signald.wire.fields import SEQ_MAX

WAYS: tuple[Way, Way] = ("up", "down")


@rule(ops.CreateSession)
def create_session(op: ops.CreateSession, rows: Rows, _wakes: Wakes) -> Head | ops.Exists:
    record = rows.session(op.session)
    if record is not None:
        return record.head() if record.client.claimed(op.nonce) else ops.Exists()
    record = Record(
        session=op.session,
        created_ms=op.now_ms,
        principal=op.principal,
        want=op.want,
        meta=op.meta,
        receipts=op.receipts,
        ttl_ms=op.ttl_ms,
        slots=Slots(current=op.token),
        client_away_ms=op.now_ms,
        pair=op.pair,
        settings=op.settings,
        rooms=op.rooms,
        asked_until_ms=op.asked_until_ms,
    )
    record.client.claim(Claim(op.nonce, 1 if op.node else 0, asked_ms=op.now_ms), op.node)
    begin_jobs(op.session, rows)
    events.begin_events(record, rows)
    events.set_events_max(record, op.events_max, rows)
    events.tell_started(record, op.node, rows)
    rows.drop_past(op.session)
    rows.save_session(record)
    return record.head()


@rule(ops.KeepAnswer)
def keep_answer(op: ops.KeepAnswer, rows: Rows, _wakes: Wakes) -> base.Done | ops.NoSession:
    record = rows.session(op.session)
    if record is None:
        return ops.NoSession()
    record.settings, record.rooms, record.asked_until_ms = op.settings, op.rooms, op.asked_until_ms
    rows.save_session(record)
    return base.Done()


@rule(ops.ClaimClient)
def claim_client(op: ops.ClaimClient, rows: Rows, wakes: Wakes) -> ops.Claimed | base.Refused:
    record = rows.session(op.session)
    if record is None:
        return base.Refused("unknown")
    if claim := record.client.claimed(op.nonce):
        return _claimed(claim, record, op, rows, _away_ms(claim, record, op.now_ms))
    # Before the token is looked at: another subject with a found token, retired or not, learns and changes nothing.
    if op.principal != record.principal:
        return base.Refused("principal")
    if record.client.is_late(op.now_ms):
        return base.Refused("late")
    slots, verdict = present(record.slots, op.presented, op.issued)
    if verdict is Verdict.REUSED and record.client.is_tied(op.attempt, op.now_ms):
        return base.Refused("late")
    if verdict is Verdict.REUSED:
        record.slots = slots
        rows.save_session(record)
    if verdict is not Verdict.GRANTED:
        return base.Refused(refusal(verdict, slots))
    if not record.client.node and op.now_ms - record.client_away_ms >= record.ttl_ms:
        return base.Refused("expired")
    if is_previous(record.slots, op.presented) and record.client.is_outdone(op.attempt, op.now_ms):
        return base.Refused("late")
    if _is_ahead(record, op.acked, op.received, op.ahead_max):
        return base.Refused("ahead")
    record.slots = slots
    record.ttl_ms = op.ttl_ms
    events.set_events_max(record, op.events_max, rows)
    events.tell_resumed(record, op.node, _absence_ms(record.client.node, record, op.now_ms), op.now_ms, rows)
    return _claim(record, "client", op, op.acked, op.received, rows, wakes)


@rule(ops.ClaimWorkerSide)
def claim_worker_side(op: ops.ClaimWorkerSide, rows: Rows, wakes: Wakes) -> ops.Claimed | base.Refused:
    record = rows.session(op.session)
    if record is None:
        return base.Refused("unknown")
    if claim := record.worker_side.claimed(op.nonce):
        return _claimed(claim, record, op, rows)
    if not op.assign and record.worker != op.worker:
        return base.Refused("not_yours")
    if not op.assign and record.worker_side.is_late(op.now_ms):
        return base.Refused("late")
    if _is_ahead(record, op.received, op.acked, op.ahead_max):
        return base.Refused("ahead")
    if op.assign and record.failed.current(record.up.acked).set_aside:
        return base.Refused("set_aside")
    events.set_events_max(record, op.events_max, rows)
    if op.assign:
        record.worker = op.worker
        record.worker_state = "assigned"
        record.said_before = max(record.down.last, op.acked)
        count_worker(record)
        move_jobs(record, rows, op.now_ms)
        record.hand_outs = record.hand_outs + 1 if record.hand_outs_at == record.up.acked else 1
        record.hand_outs_at = record.up.acked
        streams.find(record, record.worker_side.epoch + 1, rows)
    return _claim(record, "worker", op, op.received, op.acked, rows, wakes)


def _is_ahead(record: Record, up: int, down: int, ahead_max: int) -> bool:
    """Tell whether a party claims too much: further beyond the store than it is believed, or so that no seq would be left."""
    return any(
        known > log.last and known > min(log.last + ahead_max, SEQ_MAX - 1)
        for log, known in ((record.up, up), (record.down, down))
    )


def _claim(
    record: Record,
    party: Party,
    op: ops.ClaimClient | ops.ClaimWorkerSide,
    up: int,
    down: int,
    rows: Rows,
    wakes: Wakes,
) -> ops.Claimed:
    """Attach `party` at `op.node`; by what it knows, at least `up` and `down` messages have been in the logs."""
    side = record.side(party)
    before = record.up.last, record.down.last
    lost_up, up_agreed = record.hear_claim("up", party, up)
    lost_down, down_agreed = record.hear_claim("down", party, down)
    for way, last in zip(WAYS, before, strict=True):
        if record.log(way).last > last:
            streams.lose(record, way, rows)
    if party == "client":
        take_ack(record, "down", down, rows)
        if lost_up:
            take_ack(record, "up", record.up_heard, rows)
    else:
        take_ack(record, "up", up, rows)
        record.up_heard = up if lost_up else 0
    attempt = op.attempt if isinstance(op, ops.ClaimClient) else 0
    agreed = up_agreed or down_agreed
    claim = Claim(op.nonce, side.epoch + 1, side.node, lost_up, lost_down, op.now_ms, attempt, agreed)
    wakes.session(record, op.node, record.client.node, record.worker_side.node)
    side.claim(claim, op.node)
    rows.save_session(record)
    return _claimed(claim, record, op, rows, _away_ms(claim, record, op.now_ms) if party == "client" else 0)


def _claimed(
    claim: Claim, record: Record, op: ops.ClaimClient | ops.ClaimWorkerSide, rows: Rows, away_ms: int = 0
) -> ops.Claimed:
    assigned = isinstance(op, ops.ClaimWorkerSide) and op.assign
    return ops.Claimed(
        claim.epoch,
        record.head(),
        claim.previous_node,
        claim.lost_up,
        claim.lost_down,
        away_ms,
        claim.agreed,
        unfold(rows.history(record.session), op.history)[0] if op.history > 0 else (),
        streams.views(record, rows),
        record.hand_outs if assigned else 0,
        record.state if assigned else b"",
    )


def _away_ms(claim: Claim, record: Record, now_ms: int) -> int:
    """How long the client had been detached when it made `claim`, by the time of its first asking."""
    return _absence_ms(claim.previous_node, record, now_ms)


def _absence_ms(node: str, record: Record, now_ms: int) -> int:
    """How long the client has been detached; `node` is where it is attached."""
    return 0 if node else max(0, now_ms - record.client_away_ms)


def take_ack(record: Record, way: Way, seq: int, rows: Rows) -> bool:
    """Trim one log up to `seq`; tell whether that was news."""
    log = record.log(way)
    seq = min(seq, log.last)
    if seq <= log.acked:
        return False
    log.acked = seq
    rows.trim_entries(record.session, way, seq)
    return True


def count_worker(record: Record) -> None:
    if record.worker not in record.workers_had:
        record.workers_had = (*record.workers_had, record.worker)[-WORKERS_REMEMBERED:]
        record.workers += 1


@rule(ops.AcceptSession)
def accept_session(
    op: ops.AcceptSession, rows: Rows, wakes: Wakes
) -> base.Done | base.Fenced | base.Behind | ops.NoSession:
    record = rows.session(op.session)
    if record is None:
        return ops.NoSession()
    if record.worker_side.epoch != op.epoch or record.worker_side.node != op.node:
        return base.Fenced(record.worker_side.epoch)
    if record.worker_state != "paired":
        record.worker_state = "paired"
        record.state = b""
        events.tell_paired(record, op.now_ms, rows)
        wakes.session(record, op.node, record.client.node)
        rows.save_session(record)
    return base.Done()


@rule(ops.HandOn)
def hand_on(op: ops.HandOn, rows: Rows, _wakes: Wakes) -> base.Done | base.Fenced | base.Behind | ops.NoSession:
    record = rows.session(op.session)
    if record is None:
        return ops.NoSession()
    if refused := not_holder(record.worker_side, op.epoch, op.node):
        return refused
    record.state = op.state
    rows.save_session(record)
    return base.Done()


@rule(ops.Unpair)
def unpair(op: ops.Unpair, rows: Rows, wakes: Wakes) -> base.Done | base.Fenced | ops.NoSession:
    record = rows.session(op.session)
    if record is None:
        return ops.NoSession()
    if record.worker and record.worker == op.worker:
        if 0 < op.epoch < record.worker_side.epoch:
            return base.Fenced(record.worker_side.epoch)
        if isinstance(op, ops.UnpairFailed):
            _count_failure(record, op)
            if op.jobs_failures_max:
                lose_worker(record, op.jobs_failures_max, rows, op.now_ms)
        wakes.session(record, op.node, record.client.node, record.worker_side.node)
        record.worker = record.worker_state = ""
        record.worker_side.node = ""
        record.worker_side.epoch = max(record.worker_side.epoch, op.epoch) + 1
        rows.save_session(record)
    return base.Done()


@rule(ops.UnpairFailed)
def unpair_failed(op: ops.UnpairFailed, rows: Rows, wakes: Wakes) -> base.Done | base.Fenced | ops.NoSession:
    result = unpair(op, rows, wakes)
    record = rows.session(op.session)
    return ops.Unpaired(record.head()) if isinstance(result, base.Done) and record is not None else result


def _count_failure(record: Record, op: ops.UnpairFailed) -> None:
    claims = record.worker_side.claims
    waits = record.up.last > record.up.acked
    if waits or (claims and 0 <= op.ended_ms - claims[-1].asked_ms <= ops.IDLE_FAILURE_MS):
        record.failed = record.failed.add(record.up.acked + 1, op.now_ms, op.failures_max)
    else:
        record.failed = NO_FAILURES


@rule(ops.RetrySession)
def retry_session(op: ops.RetrySession, rows: Rows, wakes: Wakes) -> ops.Unpaired | ops.NoSession:
    record = rows.session(op.session)
    if record is None:
        return ops.NoSession()
    if record.failed.current(record.up.acked).set_aside:
        wakes.session(record, op.node, record.client.node, record.worker_side.node)
        record.failed = NO_FAILURES
        record.worker_side.epoch += 1
        rows.save_session(record)
    return ops.Unpaired(record.head())


def not_holder(side: Side, epoch: int, node: str) -> base.Fenced | base.Behind | None:
    """Return the answer for a node that writes for a party without holding it."""
    if epoch > side.epoch:
        return base.Behind(side.epoch)
    if epoch < side.epoch or node != side.node:
        return base.Fenced(side.epoch)
    return None


@rule(ops.Append)
def append(
    op: ops.Append, rows: Rows, wakes: Wakes
) -> ops.Appended | ops.Gap | ops.Full | ops.StreamRefused | base.Fenced | base.Behind | ops.NoSession:
    record = rows.session(op.session)
    if record is None:
        return ops.NoSession()
    if op.party == "client":
        side, peer, log = record.client, record.worker_side, record.up
        way: Way = "up"
        back: Way = "down"
    else:
        side, peer, log = record.worker_side, record.client, record.down
        way, back = "down", "up"
    if refused := not_holder(side, op.epoch, op.node):
        return refused
    # The ack counts even if the entries are refused: with both directions full, each side's acks may ride on messages
    # that cannot be stored before the other side's have been.
    acked = op.ack and take_ack(record, back, op.ack, rows)
    new = op.entries
    if new and new[0].seq <= log.last:
        new = tuple(entry for entry in new if entry.seq > log.last)
    result: ops.Appended | ops.Gap | ops.Full | ops.StreamRefused
    if new and new[0].seq != log.last + 1:
        result, new = ops.Gap(log.last), ()
    elif new and new[-1].seq - log.acked > op.backlog_max:
        result, new = ops.Full(log.last, log.acked), ()
    else:
        refusal = None
        if new:
            items = record.history_next
            new, refusal = _keep(record, way, new, op.now_ms, rows)
            if record.history_next > items:
                _bound_history(record, op.history_max, op.history_bytes_max, rows)
        if new:
            log.last = new[-1].seq
            rows.put_entries(record.session, way, new)
        result = ops.Appended(log.last, log.acked, peer.node)
        if refusal:
            result = ops.StreamRefused(*refusal, log.last, log.acked, peer.node)
    if new or (acked and record.receipts):
        wakes.session(record, op.node, peer.node)
    if new or acked:
        rows.save_session(record)
    return result


def _keep(
    record: Record, way: Way, entries: tuple[Entry, ...], now_ms: int, rows: Rows
) -> tuple[tuple[Entry, ...], tuple[str, str] | None]:
    """Put what is new into the chat history and the streams.

    Returns the entries that may be stored, and (code, stream) of the refusal that stopped it, or None.
    """
    for place, entry in enumerate(entries):
        mark = entry.mark
        if mark is not None:
            code = streams.take_piece(record, way, entry, mark, now_ms, rows)
            if code is not None:
                return entries[:place], (code, mark.stream)
        elif entry.history:
            put_item(record, SENDERS[way], entry.body, rows)
    return entries, None


def _bound_history(record: Record, count_max: int, bytes_max: int, rows: Rows) -> None:
    while record.history_first < record.history_next and (
        record.history_next - record.history_first - record.history_parts > count_max
        or record.history_bytes > bytes_max
    ):
        item = rows.drop_history(record.session, record.history_first)
        record.history_first += 1
        record.history_bytes -= len(item)
        record.history_parts -= is_part(item)


@rule(ops.Ack)
def acknowledge(op: ops.Ack, rows: Rows, wakes: Wakes) -> base.Done | base.Fenced | base.Behind | ops.NoSession:
    record = rows.session(op.session)
    if record is None:
        return ops.NoSession()
    if refused := not_holder(record.side(op.party), op.epoch, op.node):
        return refused
    if take_ack(record, "down" if op.party == "client" else "up", op.seq, rows):
        if record.receipts:
            wakes.session(record, op.node, record.side("worker" if op.party == "client" else "client").node)
        rows.save_session(record)
    return base.Done()


@rule(ops.Detach)
def detach(op: ops.Detach, rows: Rows, wakes: Wakes) -> base.Done:
    record = rows.session(op.session)
    if record is None:
        return base.Done()
    side = record.side(op.party)
    if not op.node or not_holder(side, op.epoch, op.node):
        return base.Done()
    side.node = ""
    if op.party == "client":
        record.client_away_ms = op.now_ms
        events.tell_away(record, op.node, op.now_ms, rows)
    wakes.session(record, op.node, record.client.node, record.worker_side.node)
    rows.save_session(record)
    return base.Done()


@rule(ops.ConfirmToken)
def confirm_token(op: ops.ConfirmToken, rows: Rows, _wakes: Wakes) -> base.Done:
    record = rows.session(op.session)
    if record is not None and record.client.epoch == op.epoch and record.slots.previous:
        record.slots = confirm(record.slots)
        rows.save_session(record)
    return base.Done()


@rule(ops.EndSession)
def end_session(op: ops.EndSession, rows: Rows, wakes: Wakes) -> ops.Ended | ops.NoSession:
    try:
        record = rows.session(op.session)
    except Unreadable:
        rows.drop_session(op.session)
        rows.drop_jobs(op.session)
        events.end_events(op.session, None, op.reason, op.now_ms, rows)
        raise
    return ops.NoSession() if record is None else _end(record, op, rows, wakes)


@rule(ops.ExpireSession)
def expire_session(op: ops.ExpireSession, rows: Rows, wakes: Wakes) -> ops.Ended | base.Done | base.Behind:
    record = rows.session(op.session)
    if record is None:
        return base.Done()
    away_ms = op.now_ms - record.client_away_ms
    dead = record.client.node not in op.nodes if record.client.node else away_ms >= op.ttl_ms
    return _end(record, op, rows, wakes) if dead else base.Done()


def _end(record: Record, op: ops.EndSession | ops.ExpireSession, rows: Rows, wakes: Wakes) -> ops.Ended:
    wakes.session(record, op.node, record.client.node, record.worker_side.node)
    finish_jobs(record, rows, op.now_ms)
    interrupted = streams.close_all(record, op.now_ms, rows)
    waiting = events.end_events(record.session, record, op.reason, op.now_ms, rows)
    if not op.keep_ms:
        rows.drop_session(record.session)
        return ops.Ended(record.head(), interrupted, events=waiting)
    drop_pasts(rows, op.now_ms)
    past = Past(record.session, record.principal, record.worker, op.now_ms + op.keep_ms)
    rows.drop_session(record.session, past)
    return ops.Ended(record.head(), interrupted, record.history_bytes, waiting)


def drop_pasts(rows: Rows, now_ms: int, limit: int = ops.PASTS_MAX) -> None:
    """Remove up to `limit` chat histories that are kept no longer. Redis does it by itself."""
    for session in rows.pasts_over(now_ms - ops.OVER_MS, limit):
        rows.drop_past(session)


@rule(ops.Mark)
def mark(op: ops.Mark, rows: Rows, _wakes: Wakes) -> base.Done:
    if op.keep_ms:
        rows.add_steps(op.session, op.steps, op.keep_max, op.now_ms, op.now_ms + op.keep_ms)
    else:
        rows.drop_steps(op.session)
    return base.Done()
