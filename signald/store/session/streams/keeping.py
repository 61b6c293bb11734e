"""Items of the chat history, and ends of streams that no message tells: what the rules of streams and of jobs have in common."""

from signald.core.chat_history import end_item, is_part
from signald.core.head import Party
from signald.core.streams import INTERRUPTED
from signald.store.rows import Rows
from signald.store.session.records import Record
from signald.store.session.streams.records import Stream

SENDERS: dict[str, Party] = {"up": "client", "down": "worker"}


def put_item(record: Record, party: Party, item: bytes, rows: Rows) -> None:
    """Add an item to the chat history; the caller bounds it."""
    rows.put_history(record.session, record.history_next, party, item)
    record.history_next += 1
    record.history_bytes += len(item)
    record.history_parts += is_part(item)


def close(record: Record, stream: Stream, outcome: str, now_ms: int, rows: Rows) -> None:
    """End a stream by the word of signald."""
    stream.outcome, stream.by_signald = outcome, 1
    if stream.folds:
        item = end_item(stream.name, stream.attempt, stream.last, now_ms, outcome)
        put_item(record, SENDERS[stream.way], item, rows)
    rows.save_stream(record.session, stream)
    record.streams += 1


def close_of_job(record: Record, n: int, now_ms: int, rows: Rows) -> None:
    """A job of the session has ended: its stream, if it is open, is interrupted."""
    for stream in rows.streams(record.session) if record.streams else ():
        if stream.way == "down" and stream.job == n and not stream.outcome:
            close(record, stream, INTERRUPTED, now_ms, rows)
