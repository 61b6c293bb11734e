"""An entry of a log as the scripts of the streams take it."""

from msgspec import msgpack

from signald.core.chat_history import piece_of
from signald.core.log import Entry
from signald.core.streams import Mark
from signald.store.damage import seal

_encode = msgpack.Encoder().encode


def entry_words(entry: Entry, mark: Mark | None, at_ms: int) -> tuple[bytes, bytes, bytes]:
    """Return the body of an entry with its seal, its mark, and what goes of it into the chat history."""
    if mark is None:
        return seal(entry.body), b"", b""
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
    return seal(entry.body), _encode(said), seal(piece_of(mark, entry.seq, at_ms))
