"""The record of a stream, as every store keeps it."""

from collections.abc import Callable

from msgspec import Struct, msgpack

from signald.core.log import Entry
from signald.core.streams import Mark, StreamView, mark_of_body
from signald.store.lua import Value

OPEN_MAX = 64
"""How many streams of one direction may be open, those of jobs not counted: when one more begins, the oldest is interrupted. A
worker speaks in one or two at once; a worker that ends none must not make the record grow."""

KNOWN_MAX = 256
"""How many streams of a session are known. When one more begins, the oldest that is over is forgotten: a late piece of it would
begin it anew. At 100 bytes each they are a tenth of what a history may hold."""


class Stream(Struct, array_like=True, gc=False):
    """See `StreamView` for the fields that are shown. Numbers stand for flags, because a script writes them as well."""

    way: str
    name: str
    number: int
    """The order in which the streams of the session began."""
    attempt: int
    outcome: str = ""
    kind: str = ""
    folds: int = 0
    """1: its pieces are kept in the chat history."""
    pieces: int = 0
    """The index of the next piece of this attempt. More than there are pieces when some are lost."""
    cancel: int = 0
    reason: str = ""
    last: int = 0
    born_ms: int = 0
    job: int = 0
    found: int = 0
    """The epoch of the assigned worker that found it open and has not spoken in it; 0: none."""
    by_signald: int = 0

    def view(self) -> StreamView:
        """Return what is shown of it."""
        return StreamView(
            self.way, self.name, self.attempt, self.outcome, self.kind, self.cancel == 1, self.reason, self.last,
            self.found > 0, self.by_signald == 1, self.job,
        )  # fmt: skip


decode_stream: Callable[[bytes], Stream] = msgpack.Decoder(Stream).decode
"""Reads a record. Raises msgspec.DecodeError."""


def mark_in(entry: Entry) -> Mark | None:
    """Return the mark of an entry that may have been read from a store, which keeps it in the body only."""
    return entry.mark or mark_of_body(entry.body)


CONSTANTS: dict[str, Value] = {
    "OPEN_MAX": OPEN_MAX,
    "KNOWN_MAX": KNOWN_MAX,
    "STREAM_KINDS": "".join(
        "t" if field in ("way", "name", "outcome", "kind", "reason") else "n" for field in Stream.__struct_fields__
    ),
    **{f"STREAM.{field}": place for place, field in enumerate(Stream.__struct_fields__, 1)},
}
"""The record in Lua: where each field stands, and whether it is a text (`t`) or a number (`n`)."""
