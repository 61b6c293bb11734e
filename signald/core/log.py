"""One direction of a session as a node knows it: messages stored, messages pending, messages that the receiver has.

    seq:   1 ........ acked ........ last ........ expected - 1
           receiver has it │ tail: stored, in memory │ pending: not stored yet

The store is the truth. `last` here never runs ahead of it. `acked` runs ahead only by the acks that are on their way to it;
`disown_acks` takes back those that never arrive. Both may lag behind the store when other nodes write. From `tail` this
node can deliver without a read, and give messages back to a store that has lost them.

Two bounds hold for what a sender offers: `pending` keeps at most `backlog_max` messages, and `pending` and `tail` together
at most `bytes_max`. At either bound the sender is refused (`Offer.FULL`) and keeps its message; nothing is dropped. The reader
bounds what is read from the store for a receiver (`absorb`).
"""

from collections import deque
from collections.abc import Iterable, Sequence
from enum import Enum
from itertools import islice

from msgspec import Struct

from signald.core.streams import Mark
from signald.wire.fields import SEQ_MAX


class Entry(Struct, frozen=True, gc=False):
    """A message of a log. `history` tells whether it belongs to the chat history as well.

    `mark` tells what it is of a stream, while the entry is on its way to the store. What is read from a store has none
    (`streams.mark_of_body` finds it in the body).
    """

    seq: int
    body: bytes
    history: bool = False
    mark: Mark | None = None


class Offer(Enum):
    """The answer to a sender that offers a message."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    GAP = "gap"
    FULL = "full"
    SPENT = "spent"
    """No seq is left after this one that a frame can carry."""


class Log:
    """The bookkeeping of one direction. Invariant: `acked <= last`, and `tail` is dense and ends at `last`."""

    __slots__ = (
        "acked",
        "asked",
        "backlog_max",
        "bytes_held",
        "bytes_max",
        "bytes_stored",
        "gap_until_ms",
        "in_flight",
        "last",
        "pending",
        "refused_seq",
        "refused_until_ms",
        "tail",
    )

    def __init__(self, last: int, acked: int, backlog_max: int, bytes_max: int) -> None:
        self.last = last
        self.acked = acked
        self.backlog_max = backlog_max
        self.bytes_max = bytes_max
        self.tail: deque[Entry] = deque()
        self.pending: list[Entry] = []
        self.in_flight = 0
        """How many of `pending`, from its start, the store is being asked to append."""
        self.asked = 0
        """The highest seq that the store was asked to append for the sender attached here. Even an append that was refused may be
        done later: a copy of the request, given up for lost, may only now arrive."""
        self.bytes_held = 0
        self.bytes_stored = 0
        """Of all bodies that were stored from here: what this node has carried in this direction."""
        self.refused_seq = 0
        """The seq that the sender was last told to offer again. So a whole window of refusals is told once."""
        self.refused_until_ms = 0
        self.gap_until_ms = 0
        """Until this time a gap before that seq is not told again."""

    def __repr__(self) -> str:
        return f"<Log acked={self.acked} last={self.last} pending={len(self.pending)}>"

    @property
    def expected(self) -> int:
        """The only seq `offer` accepts next."""
        return self.last + len(self.pending) + 1

    @property
    def spent(self) -> bool:
        """True when no message can be added any more: the seq after `last` must fit into a frame."""
        return self.last >= SEQ_MAX - 1

    def offer(self, entry: Entry) -> Offer:
        """Take a message from its sender, if it is the next one and there is room."""
        expected = self.last + len(self.pending) + 1
        if expected >= SEQ_MAX:
            return Offer.SPENT
        if entry.seq != expected:
            return Offer.DUPLICATE if entry.seq < expected else Offer.GAP
        size = len(entry.body)
        if len(self.pending) >= self.backlog_max or self.bytes_held + size > self.bytes_max:
            return Offer.FULL
        self.pending.append(entry)
        self.bytes_held += size
        self.refused_seq = 0
        return Offer.ACCEPTED

    def tell_refusal(self, now_ms: int, retry_after_ms: int) -> bool:
        """Tell whether to answer a refused sender: once for each seq, until it may have tried again.

        A sender that offers again after half the time or later gets an answer again, because it would wait for ever without
        it. A sender that was told of a gap offers at once, so a gap that was told silences no refusal.
        """
        if self.refused_seq == self.expected and now_ms < self.refused_until_ms:
            return False
        self.refused_seq = self.expected
        self.refused_until_ms = now_ms + retry_after_ms // 2
        self.gap_until_ms = 0
        return True

    def tell_gap(self, now_ms: int, quiet_ms: int) -> bool:
        """Tell whether to tell a sender of a missing message: not just after it was told so, or was refused."""
        if self.refused_seq != self.expected:
            self.refused_seq = self.expected
            self.refused_until_ms = 0
        elif now_ms < max(self.refused_until_ms, self.gap_until_ms):
            return False
        self.gap_until_ms = now_ms + quiet_ms
        return True

    def take(self) -> tuple[Entry, ...]:
        """Return everything pending for one append, or nothing while one is under way."""
        if self.in_flight or not self.pending:
            return ()
        self.in_flight = len(self.pending)
        self.asked = max(self.asked, self.pending[-1].seq)
        return tuple(self.pending)

    def stored(self, last: int, acked: int) -> list[Entry]:
        """The append under way succeeded up to `last`; returns the entries now in the tail for the first time."""
        new = self.pending[: self.in_flight]
        del self.pending[: self.in_flight]
        self.in_flight = 0
        if new and new[-1].seq != last:
            # Another node wrote this direction as well (a claim crossed our append): the log here ends where the store says.
            kept = [entry for entry in new if entry.seq <= last]
            self._release(entry for entry in new if entry.seq > last)
            new = kept
        self.tail.extend(new)
        self.bytes_stored += sum([len(entry.body) for entry in new])
        self.last = max(self.last, last)
        self._dense()
        if acked > self.acked:
            self.ack(acked)
        return new

    def retry(self) -> None:
        """Note that the append under way was not done: everything pending may be taken again."""
        self.in_flight = 0

    def forget_pending(self) -> None:
        """Drop what is pending: the sender keeps it and offers it again, here or at another node."""
        self._release(self.pending)
        self.pending = []
        self.in_flight = 0

    def ack(self, seq: int) -> bool:
        """The receiver has everything up to `seq` (capped at `last`); True when that is news."""
        seq = min(seq, self.last)
        if seq <= self.acked:
            return False
        self.acked = seq
        tail = self.tail
        while tail and tail[0].seq <= seq:
            self.bytes_held -= len(tail.popleft().body)
        return True

    def disown_acks(self, acked: int) -> None:
        """Take back the acks of an older claim of the receiver that the store does not know: the receiver acks again."""
        self.acked = min(self.acked, acked)

    def pass_over(self, seq: int) -> None:
        """Use no seq up to `seq` any more. Nothing may be pending, and the store must be told."""
        self.last = max(self.last, seq)
        self._dense()

    def absorb(self, last: int, acked: int, entries: Sequence[Entry] = ()) -> None:
        """Take over what the store knows: positions, and entries that were read from it. No append is under way."""
        if last > self.last:
            self.last = last
            # Messages up to `last` are stored already, so they are not pending any more.
            self._release(entry for entry in self.pending if entry.seq <= last)
            self.pending = [entry for entry in self.pending if entry.seq > last]
        acked = max(acked, self.acked)
        for entry in entries:
            if (self.tail and entry.seq == self.tail[-1].seq + 1) or (not self.tail and entry.seq > acked):
                self.tail.append(entry)
                self.bytes_held += len(entry.body)
        self._dense()
        if acked > self.acked:
            self.ack(acked)

    def after(self, seq: int, limit: int = 256) -> list[Entry] | None:
        """Return up to `limit` entries following `seq`; None when they must be read from the store."""
        tail = self.tail
        if seq >= self.last:
            return []
        if not tail or tail[0].seq > seq + 1:
            return None
        start = seq + 1 - tail[0].seq
        return list(islice(tail, start, start + limit))

    def _dense(self) -> None:
        # A tail that no longer ends at `last` (other nodes have written since) cannot be delivered: drop it.
        if self.tail and self.tail[-1].seq != self.last:
            self._release(self.tail)
            self.tail.clear()

    def _release(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            self.bytes_held -= len(entry.body)
