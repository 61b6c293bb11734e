"""The chat history: what is kept of it, item by item, and the entries that a party is shown.

An item is a plain message, in the form of the log (`wire.records`), or a piece of a stream:

    p3 ...      the piece with index 3 of its attempt, and behind the blank a `Piece`
    e...        signald itself has ended a stream

A stream is one entry, standing where its first piece stands. The pieces are kept one by one, so that each is stored once, and a long
text is cut in front piece by piece. The index of a piece shows what is missing before it: a text is shown from behind the last gap
on, as `truncated`. A lower attempt is skipped. An item tells all of itself, so what an entry shows depends on nothing else.
"""

from collections.abc import Iterable

import msgspec
from msgspec import Raw, Struct

from signald.core.head import Party
from signald.core.streams import Mark
from signald.wire import records
from signald.wire.fields import SEQ_MAX


class Piece(Struct, array_like=True, frozen=True, gc=False):
    """A message of a stream with a text."""

    stream: str
    attempt: int
    seq: int
    at_ms: int
    kind: str
    end: str
    text: bytes


_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(Piece).decode


def piece_of(mark: Mark, seq: int, at_ms: int) -> bytes:
    """Return the part of an item that the sender's node knows: all but its index."""
    return _pack(Piece(mark.stream, mark.attempt, seq, at_ms, mark.kind, mark.end, mark.fold or b""))


def piece_item(index: int, piece: bytes) -> bytes:
    """Return the item of a piece, of which `piece_of` has made the part behind the index."""
    return b"p%d " % index + piece


def end_item(stream: str, attempt: int, seq: int, at_ms: int, outcome: str) -> bytes:
    """Return the item by which signald ends a stream behind the message `seq`. It is plain text, because a script makes it as well."""
    return b"e%d %d %d %b %b" % (attempt, seq, at_ms, outcome.encode(), stream.encode())


def is_part(item: bytes) -> bool:
    """Tell whether an item begins no entry: it is a further piece of a stream, or its end. Entries are what is counted."""
    return item[:1] == b"e" or (item[:1] == b"p" and item[:3] != b"p0 ")


class HistoryEntry(Struct, frozen=True, gc=False):
    """An entry as it is shown: a plain message, or all of a stream."""

    number: int
    """Tells the entry from the others of this session, and orders nothing."""
    party: Party
    seq: int
    """Of a stream: its last piece that is known here."""
    at_ms: int = 0
    """When it arrived, of a stream its first piece that is kept (milliseconds since 1970); 0: not known."""
    body: bytes = b""
    """A plain message, as the log keeps it. Empty for a stream."""
    stream: str = ""
    attempt: int = 0
    kind: str = ""
    """Of a stream; a plain message has it in its body."""
    data: bytes = b""
    """The text of a stream: the inside of a JSON string, with its escapes and without the quotes."""
    outcome: str = ""
    """"": the stream goes on."""
    truncated: bool = False
    """Something is missing in front of `data`."""

    @property
    def open(self) -> bool:
        """True for a stream that goes on."""
        return bool(self.stream) and not self.outcome

    def shown(self) -> bytes:
        """Return the entry as an object of `chat_history`."""
        if not self.stream:
            return records.history_entry(self.party, self.body)
        return records.stream_entry(
            self.party, self.seq, self.stream, self.attempt, self.kind, self.data, self.outcome,
            truncated=self.truncated,
        )  # fmt: skip


def shown(entries: Iterable[HistoryEntry]) -> list[Raw]:
    """Return entries, oldest first, as they are sent."""
    return [Raw(entry.shown()) for entry in entries]


def number_of(party: Party, seq: int) -> int:
    """Return the number of the entry that begins with the message `seq` of `party`."""
    return 2 * seq + (party == "worker")


class _Growing:
    """A stream while its pieces are put together."""

    def __init__(self, party: Party, first: Piece) -> None:
        self.party = party
        self.stream = first.stream
        self.number = number_of(party, first.seq)
        self.at_ms = first.at_ms
        self.attempt = self.seq = self.next = 0
        self.kind = self.outcome = ""
        self.texts: list[bytes] = []
        self.truncated = False

    def add(self, index: int, piece: Piece) -> None:
        if piece.attempt < self.attempt:
            return
        if piece.attempt > self.attempt:
            self.attempt, self.next, self.texts, self.truncated, self.outcome = piece.attempt, 0, [], False, ""
        if index != self.next:
            self.texts, self.truncated = [], True
        self.next = index + 1
        self.texts.append(piece.text)
        self.seq = piece.seq
        self.kind = piece.kind or self.kind
        self.outcome = piece.end

    def entry(self) -> HistoryEntry:
        return HistoryEntry(
            self.number, self.party, self.seq, self.at_ms, b"", self.stream, self.attempt, self.kind, b"".join(self.texts),
            self.outcome, self.truncated,
        )  # fmt: skip


def unfold(items: Iterable[tuple[Party, bytes]], limit: int, before: int = 0) -> tuple[tuple[HistoryEntry, ...], bool]:
    """Return the last `limit` entries before the entry with the number `before` (0: of all), and whether there are older ones.

    Nothing stands before an entry that is kept no more.
    """
    found: list[HistoryEntry | _Growing] = []
    streams: dict[tuple[Party, str], _Growing] = {}
    for party, item in items:
        if item[:1] == b"p":
            _add_piece(found, streams, party, item)
        elif item[:1] == b"e":
            _add_end(streams, party, item)
        else:
            seq, at_ms = records.seq_and_time(item)
            found.append(HistoryEntry(number_of(party, seq), party, seq, at_ms, item))
    end = len(found)
    if before:
        end = next((place for place, entry in enumerate(found) if entry.number == before), 0)
    start = max(0, end - max(0, limit))
    entries = [entry.entry() if isinstance(entry, _Growing) else entry for entry in found[start:end]]
    return tuple(entries), start > 0


def _add_piece(
    found: list[HistoryEntry | _Growing], streams: dict[tuple[Party, str], _Growing], party: Party, item: bytes
) -> None:
    index, _, rest = item[1:].partition(b" ")
    try:
        place, piece = int(index), _unpack(rest)
    except (ValueError, msgspec.DecodeError):
        return  # damaged: the index of the next piece shows that it is missing
    if not 0 < piece.seq <= SEQ_MAX:
        return
    growing = streams.get((party, piece.stream))
    if growing is None:
        growing = streams[party, piece.stream] = _Growing(party, piece)
        found.append(growing)
    growing.add(place, piece)


def _add_end(streams: dict[tuple[Party, str], _Growing], party: Party, item: bytes) -> None:
    try:
        attempt, seq, _, outcome, name = item[1:].split(b" ", 4)
        growing = streams.get((party, name.decode()))
        if growing is not None and int(attempt) >= growing.attempt:
            growing.outcome, growing.seq = outcome.decode(), max(growing.seq, int(seq))
    except ValueError:
        return
