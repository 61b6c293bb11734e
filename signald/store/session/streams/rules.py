"""What is done with the streams of a session: piece by piece in an append, and by the operations on them (see rules)."""

from signald.core.chat_history import piece_item, piece_of
from signald.core.log import Entry
from signald.core.streams import INTERRUPTED, REFUSALS, Mark, StreamView, Verdict, judge
from signald.store import base
from signald.store.rows import Rows, Wakes
from signald.store.rule import rule
from signald.store.session.jobs.keeping import job_piece, judge_piece
from signald.store.session.ops import NoSession
from signald.store.session.records import Record, Way
from signald.store.session.streams import ops
from signald.store.session.streams.keeping import SENDERS, close, put_item
from signald.store.session.streams.records import KNOWN_MAX, OPEN_MAX, Stream

# --- pieces -------------------------------------------------------------------------------------------------------


def take_piece(
    record: Record, way: Way, entry: Entry, mark: Mark, now_ms: int, rows: Rows, *, given_back: bool = False
) -> str | None:
    """Note one piece, if the rule of its stream allows it; return the code of a refusal, or None.

    `given_back`: a node gives it back to a store that has lost it; what came before it may be lost as well.
    """
    stream = rows.stream(record.session, way, mark.stream)
    highest, outcome = (0, "") if stream is None else (stream.attempt, stream.outcome)
    verdict = judge(mark.attempt, highest=highest, outcome=outcome)
    if refused := REFUSALS.get(verdict) or job_refusal(record, way, mark, now_ms, rows, given_back=given_back):
        return refused
    if stream is None:
        number = _make_room(record, way, now_ms, rows)
        stream = Stream(way, mark.stream, number, mark.attempt, pieces=int(given_back), born_ms=now_ms, job=mark.job)
    elif verdict is Verdict.BEGINS_ANEW:
        stream.attempt, stream.pieces = mark.attempt, 0
    record.streams = record.streams or 1  # also where an earlier release has saved the record without it
    stream.kind = mark.kind or stream.kind
    stream.last, stream.found, stream.outcome = entry.seq, 0, mark.end
    if mark.fold is not None and entry.history:
        stream.folds = 1
    if stream.folds:
        put_item(record, SENDERS[way], piece_item(stream.pieces, piece_of(mark, entry.seq, now_ms)), rows)
        stream.pieces += 1
    of_job = mark.job and way == "down"
    if of_job and mark.end:
        rows.drop_stream(
            record.session, stream
        )  # that it is over, its job knows: a session may have a thousand jobs an hour
    else:
        rows.save_stream(record.session, stream)
    if of_job:
        job_piece(record, entry, mark, now_ms, rows)
    return None


def job_refusal(record: Record, way: Way, mark: Mark, now_ms: int, rows: Rows, *, given_back: bool) -> str | None:
    """Return the code with which a piece of a job's stream is refused because of its job, or None."""
    if not mark.job or way == "up" or given_back:
        return None
    return REFUSALS.get(judge_piece(record, mark, now_ms, rows))


def _make_room(record: Record, way: Way, now_ms: int, rows: Rows) -> int:
    """Return the number of a stream that begins; interrupt or forget an older one where there are too many."""
    known = rows.streams(record.session)
    is_open = [each for each in known if each.way == way and not each.outcome and not each.job]
    over = [each for each in known if each.outcome]
    if len(is_open) >= OPEN_MAX:
        close(record, is_open[0], INTERRUPTED, now_ms, rows)
    if len(known) >= KNOWN_MAX and over:
        rows.drop_stream(record.session, over[0])
    return known[-1].number + 1 if known else 1


# --- what no message tells ----------------------------------------------------------------------------------------


def close_all(record: Record, now_ms: int, rows: Rows) -> tuple[StreamView, ...]:
    """Interrupt every stream of a session that ends; return those."""
    is_open = [each for each in rows.streams(record.session) if not each.outcome] if record.streams else []
    for stream in is_open:
        close(record, stream, INTERRUPTED, now_ms, rows)
    return tuple([stream.view() for stream in is_open])


def find(record: Record, epoch: int, rows: Rows) -> None:
    """Note that the worker that is assigned under `epoch` finds the streams of its direction open. A job sees to its own."""
    for stream in rows.streams(record.session) if record.streams else ():
        if stream.way == "down" and not stream.outcome and not stream.job:
            stream.found = epoch
            rows.save_stream(record.session, stream)


def lose(record: Record, way: Way, rows: Rows) -> None:
    """Note that messages of one direction are lost: the text of each open stream has a gap."""
    for stream in rows.streams(record.session) if record.streams else ():
        if stream.way == way and not stream.outcome:
            stream.pieces += 1
            rows.save_stream(record.session, stream)


def views(record: Record, rows: Rows) -> tuple[StreamView, ...]:
    """Return the streams that are open, and those that signald has ended."""
    found = rows.streams(record.session) if record.streams else ()
    return tuple([stream.view() for stream in found if not stream.outcome or stream.by_signald])


# --- operations ---------------------------------------------------------------------------------------------------


@rule(ops.OpenStreams)
def open_streams(op: ops.OpenStreams, rows: Rows, _wakes: Wakes) -> ops.Streams:
    record = rows.session(op.session)
    return ops.Streams(() if record is None else views(record, rows))


@rule(ops.CancelStream)
def cancel_stream(
    op: ops.CancelStream, rows: Rows, wakes: Wakes
) -> base.Done | ops.NoStream | base.Refused | NoSession:
    record = rows.session(op.session)
    if record is None:
        return NoSession()
    if not op.access.allows(record.principal, record.worker):
        return base.Refused("access")
    stream = rows.stream(op.session, "up" if op.way == "up" else "down", op.stream)
    if stream is None:
        return ops.NoStream()
    if not stream.outcome and not stream.cancel:
        stream.cancel, stream.reason = 1, op.reason
        rows.save_stream(op.session, stream)
        record.streams += 1
        wakes.session(record, op.node, record.client.node, record.worker_side.node)
        rows.save_session(record)
    return base.Done()


@rule(ops.CloseStreams)
def close_streams(
    op: ops.CloseStreams, rows: Rows, wakes: Wakes
) -> ops.Streams | base.Fenced | base.Behind | NoSession:
    record = rows.session(op.session)
    if record is None:
        return NoSession()
    side = record.worker_side
    if op.epoch > side.epoch:
        return base.Behind(side.epoch)
    if op.epoch < side.epoch or op.node != side.node:
        return base.Fenced(side.epoch)
    closed = False
    for name in op.streams:
        stream = rows.stream(op.session, "down", name)
        if stream is not None and stream.found and not stream.outcome:
            close(record, stream, op.outcome, op.now_ms, rows)
            closed = True
    if closed:
        wakes.session(record, op.node, record.client.node)
        rows.save_session(record)
    return ops.Streams(views(record, rows))
