"""An entry of a log as the scripts of the streams take it."""

from msgspec import msgpack

from signald.core.chat_history import piece_of
from signald.core.log import Entry
from signald.core.streams import Mark
from signald.store.redis_keys import PACKING
from signald.store.session.records import Way

_encode = msgpack.Encoder().encode

PIECE_OF: dict[Way, bytes] = {"up": b"piece-up", "down": b"piece-down"}
"""The kind of what goes of a message into the chat history, by the direction of the message."""


def entry_words(session: str, way: Way, entry: Entry, mark: Mark | None, at_ms: int) -> tuple[bytes, bytes, bytes]:
    """Return the body of an entry with its seal, its mark, and what goes of it into the chat history."""
    wrap = PACKING.get().seals.wrap
    body = wrap(entry.body, way.encode(), session, entry.seq)
    if mark is None:
        return body, b"", b""
    in_history = int(mark.fold is not None and entry.history)
    # As text: the scripts know no other kind of bytes.
    said = (
        mark.stream,
        mark.attempt,
        in_history,
        mark.end,
        mark.kind,
        mark.job,
        mark.error.decode(),
        int(mark.fold is not None),
    )
    return body, _encode(said), wrap(piece_of(mark, entry.seq, at_ms), PIECE_OF[way], session, entry.seq)
