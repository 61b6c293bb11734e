"""One direction of a session: what is taken, stored, acked and delivered, and that the numbers always agree."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from signald.core.log import Entry, Log, Offer


def entry(seq: int, size: int = 1) -> Entry:
    """A message of `size` bytes."""
    return Entry(seq, b"x" * size)


def log_with(count: int, *, stored: int = 0, backlog_max: int = 10, bytes_max: int = 100) -> Log:
    """A log that was offered `count` messages, of which `stored` are stored."""
    log = Log(0, 0, backlog_max, bytes_max)
    for seq in range(1, stored + 1):
        log.offer(entry(seq))
    log.take()
    log.stored(stored, 0)
    for seq in range(stored + 1, count + 1):
        assert log.offer(entry(seq)) is Offer.ACCEPTED
    return log


def seqs(entries: list[Entry] | tuple[Entry, ...] | None) -> list[int] | None:
    """The seqs of `entries`."""
    return None if entries is None else [one.seq for one in entries]


@pytest.mark.parametrize(
    ("seq", "wanted"),
    [(1, Offer.DUPLICATE), (2, Offer.DUPLICATE), (3, Offer.DUPLICATE), (4, Offer.ACCEPTED), (5, Offer.GAP)],
)
def test_only_the_next_seq_is_taken(seq: int, wanted: Offer) -> None:
    """Stored and pending seqs are duplicates, the next one is taken, what lies beyond is a gap."""
    log = log_with(3, stored=2)
    assert log.expected == 4
    assert log.offer(entry(seq)) is wanted
    assert log.expected == (5 if wanted is Offer.ACCEPTED else 4)


def test_a_full_log_refuses_and_forgets_nothing() -> None:
    """At the bound of messages, or of bytes, the sender keeps the message; the log is unchanged."""
    log = log_with(3, backlog_max=3)
    assert log.offer(entry(4)) is Offer.FULL
    assert (log.expected, seqs(log.take())) == (4, [1, 2, 3])
    log = log_with(3, stored=3, bytes_max=10)
    assert log.offer(entry(4, 8)) is Offer.FULL
    assert log.offer(entry(4, 7)) is Offer.ACCEPTED


def test_a_refusal_is_told_once_for_a_window_and_again_for_a_new_try() -> None:
    """One answer for each seq, until half of the time to wait is over; a message that is taken begins anew."""
    log = log_with(3, backlog_max=3)
    assert log.tell_refusal(1000, 200)
    assert not log.tell_refusal(1000, 200)
    assert not log.tell_refusal(1099, 200)
    assert log.tell_refusal(1100, 200)
    log.take()
    log.stored(3, 3)
    assert log.offer(entry(4)) is Offer.ACCEPTED
    assert log.tell_refusal(1101, 200)


def test_a_gap_told_keeps_no_refusal_quiet() -> None:
    """A sender that is told of a gap offers again at once. When that is refused, it must be told, or it would wait for ever."""
    log = log_with(3)
    assert log.tell_gap(1000, 125)
    assert not log.tell_gap(1124, 125)
    assert log.tell_refusal(1010, 50)
    assert not log.tell_gap(1034, 125)
    assert not log.tell_refusal(1034, 50)
    assert log.tell_gap(1035, 125)
    assert log.tell_refusal(1036, 50)


def test_a_gap_is_told_again_for_another_message() -> None:
    """What was told of one message says nothing of the next."""
    log = log_with(3)
    assert log.tell_gap(1000, 125)
    assert log.tell_refusal(1001, 50)
    assert log.offer(entry(4)) is Offer.ACCEPTED
    assert log.tell_gap(1002, 125)
    assert log.tell_gap(1127, 125)


def test_room_comes_back_with_the_acks() -> None:
    """Bytes count until the receiver has them."""
    log = log_with(3, stored=3, bytes_max=10)
    assert log.offer(entry(4, 8)) is Offer.FULL
    assert log.ack(1)
    assert log.offer(entry(4, 8)) is Offer.ACCEPTED


def test_one_append_at_a_time() -> None:
    """While the store is asked for some, nothing more is taken; what came meanwhile goes with the next append."""
    log = log_with(2)
    assert seqs(log.take()) == [1, 2]
    log.offer(entry(3))
    assert log.take() == ()
    assert seqs(log.stored(2, 0)) == [1, 2]
    assert seqs(log.take()) == [3]


def test_an_append_that_was_not_done_is_taken_again() -> None:
    """`retry` keeps everything in order; `forget_pending` leaves it to the sender."""
    log = log_with(2)
    log.take()
    log.retry()
    assert seqs(log.take()) == [1, 2]
    log.forget_pending()
    assert (log.take(), log.expected, log.bytes_held) == ((), 1, 0)


def test_the_store_may_have_stored_less_or_more() -> None:
    """The store's word counts: what it does not have is not in the tail, and a tail others have outrun is let go."""
    log = log_with(3)
    log.take()
    assert seqs(log.stored(2, 0)) == [1, 2]
    assert (log.last, seqs(log.after(0))) == (2, [1, 2])
    log = log_with(3)
    log.take()
    log.stored(5, 0)
    assert (log.last, log.after(0), log.bytes_held) == (5, None, 0)


def test_acks_are_cumulative_and_never_ahead() -> None:
    """An ack frees everything up to it, is news once, and counts as `last` when it is beyond."""
    log = log_with(4, stored=4)
    assert log.ack(2)
    assert not log.ack(2)
    assert not log.ack(1)
    assert (log.acked, seqs(log.after(2)), log.bytes_held) == (2, [3, 4], 2)
    assert log.ack(99)
    assert (log.acked, log.bytes_held) == (4, 0)


def test_what_follows_a_seq_comes_from_the_tail_or_must_be_read() -> None:
    """Nothing after the last, None before the tail, and at most as many as asked for."""
    log = log_with(4, stored=4)
    log.ack(2)
    assert log.after(4) == []
    assert seqs(log.after(2, limit=1)) == [3]
    assert log.after(0) is None
    assert Log(7, 3, 10, 100).after(3) is None


def test_absorbing_joins_what_was_read() -> None:
    """Entries that continue the tail extend it; those that leave a hole are not kept."""
    log = log_with(2, stored=2)
    log.absorb(4, 1, [entry(3), entry(4)])
    assert (log.last, log.acked, seqs(log.after(1))) == (4, 1, [2, 3, 4])
    log.absorb(8, 1, [entry(7), entry(8)])
    assert (log.last, log.after(4)) == (8, None)
    log.absorb(8, 1, [entry(5), entry(6), entry(7), entry(8)])
    assert seqs(log.after(4)) == [5, 6, 7, 8]


def test_a_stale_look_moves_nothing_back() -> None:
    """The store is read while we go on: what is older than what we know is ignored, and no acked entry comes back."""
    log = log_with(3, stored=3)
    log.ack(3)
    log.absorb(3, 2, [entry(3)])
    assert (log.last, log.acked, log.bytes_held) == (3, 3, 0)
    assert not log.tail


def test_what_the_store_has_already_is_no_longer_pending() -> None:
    """An append whose answer was lost may show in a later look: it is not offered to the store as something new."""
    log = log_with(3)
    log.take()
    log.retry()
    log.absorb(2, 0, [entry(1), entry(2)])
    assert (seqs(log.take()), log.expected) == ([3], 4)


class AgainstAModel(RuleBasedStateMachine):
    """A log, the store's side of it as a plain list, and a sender that offers seqs in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.log = Log(0, 0, backlog_max=6, bytes_max=20)
        self.store: list[Entry] = []
        self.acked = 0
        self.acked_before = 0
        self.asked: tuple[Entry, ...] = ()
        self.away = False
        self.sizes: dict[int, int] = {}
        """A sender that offers a seq again offers the same message."""

    @precondition(lambda self: not self.away)
    @rule(ahead=st.integers(-3, 2), size=st.integers(0, 8))
    def offer(self, ahead: int, size: int) -> None:
        """A sender offers the next seq, an old one, or one too far."""
        seq = max(1, self.log.expected + ahead)
        size = self.sizes.setdefault(seq, size)
        held, expected = self.log.bytes_held, self.log.expected
        verdict = self.log.offer(entry(seq, size))
        if seq < expected:
            assert verdict is Offer.DUPLICATE
        elif seq > expected:
            assert verdict is Offer.GAP
        elif held + size > 20 or len(self.log.pending) > 6:
            assert verdict is Offer.FULL
        if verdict is not Offer.ACCEPTED:
            assert (self.log.expected, self.log.bytes_held) == (expected, held)

    @precondition(lambda self: not self.asked)
    @rule()
    def take(self) -> None:
        """An append begins."""
        self.asked = self.log.take()
        seqs = [one.seq for one in self.asked]
        assert seqs == list(range(self.log.last + 1, self.log.last + 1 + len(seqs)))

    @precondition(lambda self: self.asked)
    @rule(done=st.booleans(), told=st.booleans())
    def answer(self, done: bool, told: bool) -> None:
        """The store did it or not, and its answer came or was lost."""
        asked, self.asked = self.asked, ()
        if done:
            self.store.extend(one for one in asked if one.seq > len(self.store))
        if done and told:
            assert self.log.stored(len(self.store), self.acked) == list(asked)
        else:
            self.log.retry()

    @precondition(lambda self: not self.asked)
    @rule()
    def leave(self) -> None:
        """The sender goes: it keeps what was not stored."""
        self.log.forget_pending()

    @precondition(lambda self: not self.asked)
    @rule(count=st.integers(0, 3))
    def others_write(self, count: int) -> None:
        """The sender goes on at another node; what was not stored here it offers there."""
        self.log.forget_pending()
        self.away = True
        self.store += [entry(len(self.store) + 1 + more) for more in range(count)]

    @precondition(lambda self: self.away)
    @rule()
    def come_back(self) -> None:
        """The sender resumes here: its claim tells how far the store is."""
        self.away = False
        self.log.absorb(len(self.store), self.acked)

    @rule(up_to=st.integers(0, 40))
    def ack(self, up_to: int) -> None:
        """The receiver acks what it has been sent."""
        up_to = min(up_to, self.log.last)
        assert self.log.ack(up_to) is (up_to > self.acked_before)
        self.acked = max(self.acked, up_to)

    @precondition(lambda self: not self.asked)
    @rule(limit=st.integers(0, 5), stale=st.integers(0, 3))
    def look(self, limit: int, stale: int) -> None:
        """The store is read; what was read may be a little old."""
        last = max(0, len(self.store) - stale)
        acked = min(self.acked, last)
        after = max(acked, self.log.tail[-1].seq if self.log.tail else acked)
        self.log.absorb(last, acked, self.store[after:last][:limit])

    @invariant()
    def nothing_is_acked_backwards(self) -> None:
        assert self.log.acked >= self.acked_before
        self.acked_before = self.log.acked

    @invariant()
    def never_ahead_of_the_store(self) -> None:
        assert 0 <= self.log.acked <= self.log.last <= len(self.store)

    @invariant()
    def the_tail_is_dense_and_ends_at_last(self) -> None:
        tail = [one.seq for one in self.log.tail]
        assert not tail or tail == list(range(tail[0], self.log.last + 1))
        assert list(self.log.tail) == self.store[self.log.last - len(tail) : self.log.last]

    @invariant()
    def bytes_are_counted_exactly(self) -> None:
        assert self.log.bytes_held == sum(len(one.body) for one in [*self.log.tail, *self.log.pending])

    @invariant()
    def a_receiver_is_given_what_the_store_has(self) -> None:
        for seq in range(self.log.acked, self.log.last + 1):
            found = self.log.after(seq)
            assert found is None or found == self.store[seq : self.log.last]


TestAgainstAModel = AgainstAModel.TestCase
