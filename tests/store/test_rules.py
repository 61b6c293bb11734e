"""What the rules say beyond the contract: how much they remember."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import defstruct, msgpack, structs

from signald.core.head import Head
from signald.core.life import EVENTS_LEFT_MS
from signald.core.log import Entry
from signald.store.base import Op, Refused, Result
from signald.store.claims import CLAIMS_REMEMBERED, Claim
from signald.store.memory import MemoryRows
from signald.store.registry.ops import Enqueue, Forget, Paced, TakePace, WorkerClaimed
from signald.store.registry.records import PACE_BURST_S, PACE_DEBT_MAX_S
from signald.store.rows import Wakes
from signald.store.rules import apply
from signald.store.session import ops
from signald.store.session.events.ops import EventsRead, ReadEvents, TellEvent
from signald.store.session.events.records import NONCES_REMEMBERED
from signald.store.session.ops import Claimed, Look, Looked, ReadHistory
from signald.store.session.records import Record
from tests.store.ops import NOW_MS, SESSION, append, claim_client, claim_side, create, entries, head, register, reseed
from tests.store.scenes import said


class Table:
    """Rows, and the nodes they woke."""

    def __init__(self) -> None:
        self.rows = MemoryRows()
        self.wakes = Wakes()

    def do(self, *ops: Op) -> Result:
        """Carry out `ops` and return the last result."""
        results = [apply(op, self.rows, self.wakes) for op in ops]
        return results[-1]


@pytest.fixture
def table() -> Table:
    """An empty table."""
    return Table()


def test_claims_remembered(table: Table) -> None:
    """The last claims are remembered by their nonces; one that came before them is judged by its token alone."""
    table.do(create())
    claims = [claim_client(f"t{n}", f"t{n + 1}", nonce=f"n{n}") for n in range(1, CLAIMS_REMEMBERED + 2)]
    table.do(*claims)
    for place, claim in enumerate(claims[1:], 3):
        again = table.do(claim)
        assert isinstance(again, Claimed)
        assert again.epoch == place
    assert table.do(claims[0]) == Refused("token_reuse")


def test_create_after_claim(table: Table) -> None:
    """A creation repeated after the session went on is still the same creation."""
    table.do(create(), claim_client())
    again = table.do(create())
    assert isinstance(again, Head)
    assert (again.client_epoch, again.client_node) == (2, "b")


def test_claims_of_other_releases() -> None:
    """A claim that was kept by a release that knew no attempts is one that was not counted, and such a release can read ours."""
    before: list[object] = ["nonce", 2, "a", None, None, NOW_MS]
    assert msgpack.decode(msgpack.encode(before), type=Claim) == Claim("nonce", 2, "a", asked_ms=NOW_MS)
    ours = msgpack.encode(Claim("nonce", 2, "a", asked_ms=NOW_MS, attempt=3))
    without = defstruct("Claim", [(name, object) for name in Claim.__struct_fields__[: len(before)]], array_like=True)
    assert list(structs.astuple(msgpack.decode(ours, type=without))) == before


def test_records_of_other_releases() -> None:
    """A record of a release that knew no claims ahead has none, and such a release can read ours."""
    ours = Record(SESSION, NOW_MS, "ann", {}, b"", receipts=False, ttl_ms=1)
    before = list(structs.astuple(ours))[:-2]
    assert msgpack.decode(msgpack.encode(before), type=Record) == ours
    without = defstruct("Record", [(name, object) for name in Record.__struct_fields__[:-2]], array_like=True)
    ours.hear_claim("up", "client", 7)
    read = msgpack.decode(msgpack.encode(ours), type=without)
    assert (read.session, read.up) == (SESSION, [7, 0])  # type: ignore[attr-defined]


def test_worker_id_taken(table: Table) -> None:
    """A worker under an id that is taken is refused."""
    assert table.do(register()) == WorkerClaimed(1, ())
    assert table.do(register(nonce="other")) == Refused("exists")


def test_wakes_are_said_once() -> None:
    """Within one batch a node is told once to look at one thing, and every realtime message."""
    wakes = Wakes()
    for wake in (b"ss_1", b"r1", b"ss_1", b"r1", b"ss_2", b"ws_1"):
        wakes.tell("a", wake)
    wakes.tell("b", b"ss_1")
    assert wakes.sent == [("a", b"ss_1"), ("a", b"r1"), ("a", b"r1"), ("a", b"ss_2"), ("a", b"ws_1"), ("b", b"ss_1")]


@pytest.mark.parametrize("rate_per_s", [0.0, -1.0])
def test_no_pace(table: Table, rate_per_s: float) -> None:
    """Without a rate no node waits."""
    assert table.do(TakePace(5, rate_per_s, NOW_MS)) == Paced(0.0)


@given(
    st.lists(st.tuples(st.integers(1, 50), st.integers(0, 3000)), min_size=1, max_size=30),
    st.sampled_from([0.5, 10.0, 200.0]),
)
def test_paced(asked: list[tuple[int, int]], rate_per_s: float) -> None:
    """However it is asked, in no stretch of time are more moves granted than the rate and the burst allow."""
    table = Table()
    now_ms = NOW_MS
    moves: list[tuple[float, int]] = []
    for tokens, pause_ms in asked:
        now_ms += pause_ms
        result = table.do(TakePace(tokens, rate_per_s, now_ms))
        assert isinstance(result, Paced)
        if result.wait_ms >= PACE_DEBT_MAX_S * 1000:
            return  # a node that asks for ten minutes' worth ahead is no longer held to the rate
        moves.append((now_ms + result.wait_ms, tokens))
    for first in range(len(moves)):
        for last in range(first, len(moves)):
            stretch_s = (moves[last][0] - moves[first][0]) / 1000
            granted = sum(tokens for _, tokens in moves[first + 1 : last + 1])
            assert granted <= rate_per_s * (stretch_s + PACE_BURST_S) + 1e-6


@given(st.lists(st.tuples(st.integers(0, 12), st.booleans()), max_size=40), st.integers(0, 5), st.integers(0, 30))
def test_history_is_bounded(messages: list[tuple[int, bool]], count_max: int, bytes_max: int) -> None:
    """The history is exactly the longest tail of what was marked for it that fits both bounds."""
    table = Table()
    table.do(create())
    marked: list[tuple[str, bytes]] = []
    for seq, (size, history) in enumerate(messages, 1):
        table.do(append((Entry(seq, b"x" * size, history),), history_max=count_max, history_bytes_max=bytes_max))
        if history:
            marked.append(("client", b"x" * size))
            while len(marked) > count_max or sum(len(body) for _, body in marked) > bytes_max:
                del marked[0]
    found = table.do(ReadHistory(SESSION, 1000))
    assert isinstance(found, ops.History)
    assert said(found) == marked


@given(st.data())
def test_messages_flow(data: st.DataObject) -> None:
    """Whatever is resent, acked and read in pieces, the receiver gets every stored message once and in order."""
    table = Table()
    table.do(create(), claim_side())
    got: list[int] = []
    sent = 0
    for _ in range(data.draw(st.integers(1, 15))):
        first = data.draw(st.integers(max(1, sent - 2), sent + 1))
        last = first + data.draw(st.integers(0, 4))
        result = table.do(append(entries(first, last), backlog_max=8))
        if isinstance(result, ops.Appended):
            sent = max(sent, last)
            assert result.last == sent
        looked = table.do(Look(SESSION, "worker", len(got), data.draw(st.integers(0, 6))))
        assert isinstance(looked, Looked)
        got += [entry.seq for entry in looked.entries]
        table.do(ops.Ack(SESSION, "worker", "b", 1, data.draw(st.integers(0, len(got)))))
    looked = table.do(Look(SESSION, "worker", len(got), 100))
    assert isinstance(looked, Looked)
    assert got + [entry.seq for entry in looked.entries] == list(range(1, sent + 1))


def test_trimmed_for_good(table: Table) -> None:
    """What was acked is not kept, and not merely not shown."""
    table.do(create(), claim_side(), append(entries(1, 5)), ops.Ack(SESSION, "worker", "b", 1, 3))
    assert [entry.seq for entry in table.rows.read_entries(SESSION, "up", 0, 99)] == [4, 5]
    table.do(reseed(head(down_last=4, down_acked=2), down_tail=entries(1, 4)))
    assert [entry.seq for entry in table.rows.read_entries(SESSION, "down", 0, 99)] == [3, 4]


def test_no_ghost(table: Table) -> None:
    """After its end and its forgetting nothing at all is left of a session."""
    table.do(create(), claim_side(), append(entries(1, 3, history=True)), Enqueue(SESSION, {}, 1, 1))
    assert not table.rows.is_empty_of(SESSION)
    table.do(ops.EndSession(SESSION, "a"), Forget(SESSION))
    assert table.rows.is_empty_of(SESSION)
    assert isinstance(table.do(append(entries(4, 4))), ops.NoSession)


def test_queues_of_ended_sessions_are_removed(table: Table) -> None:
    """What is told to no receiver goes when its time is over, with the next session that ends; what others have to tell stays."""
    for session in ("s_1", "s_2", "s_3", "s_4"):
        table.do(create(session, events_max=9))
    table.do(ops.EndSession("s_1", "a", NOW_MS), ops.EndSession("s_2", "a", NOW_MS + 1))
    table.do(ops.EndSession("s_3", "a", NOW_MS + EVENTS_LEFT_MS - 1))
    assert table.do(ReadEvents("s_1", 0)) == EventsRead((), 2, 0, 0)
    table.do(ops.EndSession("s_4", "a", NOW_MS + EVENTS_LEFT_MS))
    assert [table.do(ReadEvents(session, 0)) for session in ("s_1", "s_2", "s_3", "s_4")] == [
        EventsRead(), *[EventsRead((), 2, 0, 0)] * 3
    ]  # fmt: skip


def test_nonces_of_events_are_bounded(table: Table) -> None:
    """The last events without a step of their own are remembered by nonce; of those before them one is told again."""
    table.do(create(events_max=99))
    tells = [
        TellEvent(SESSION, f"n{number}", "app.message", {"n": number}, 99, NOW_MS)
        for number in range(NONCES_REMEMBERED + 1)
    ]
    table.do(*tells, *tells[1:], tells[0])
    read = table.do(ReadEvents(SESSION, 99))
    assert isinstance(read, EventsRead)
    assert [event.fields["n"] for event in read.events[1:]] == [*range(NONCES_REMEMBERED + 1), 0]
