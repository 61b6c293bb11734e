"""What every store must do, one rule of `signald/store/base.py` after the other.

Two nodes look at one fresh store: `a`, where the client usually is, and `b`, where the worker usually is.
"""

import pytest
from msgspec import structs

from signald.core.failures import Failures
from signald.core.head import Head, Party
from signald.store.base import Behind, Done, Fenced, Op, Refused, Result
from signald.store.formats import FORMAT_UNSAID
from signald.store.registry.ops import (
    ClaimWorker,
    ClusterSecret,
    ConfirmWorkerToken,
    CountTrails,
    DetachWorker,
    DropNode,
    Enqueued,
    Forget,
    Format,
    GetReceipt,
    Hold,
    Incarnation,
    KeepAlive,
    ListNodes,
    ListOverdue,
    ListReceipts,
    ListWaiting,
    ListWorkers,
    Named,
    Nodes,
    NodeTaken,
    NoWorker,
    Paced,
    PutReceipt,
    RaiseFormat,
    Receipts,
    Release,
    RemoveWorker,
    Reserve,
    Reserved,
    Secret,
    Sessions,
    Signal,
    TakePace,
    Text,
    UpdateWorker,
    Waiting,
    WaitingSession,
    WorkerClaimed,
    WorkerInfo,
    Workers,
    WorkerSessions,
)
from signald.store.session.ops import (
    IDLE_FAILURE_MS,
    AcceptSession,
    Appended,
    ClaimClient,
    Claimed,
    ConfirmToken,
    Detach,
    Ended,
    EndSession,
    Exists,
    ExpireSession,
    Full,
    Gap,
    History,
    Look,
    Looked,
    Mark,
    NoSession,
    ReadHistory,
    ReadTrail,
    RetrySession,
    Trail,
    Unpair,
    Unpaired,
    UnpairFailed,
)
from tests.store.ops import (
    NOW_MS,
    SESSION,
    TTL_MS,
    WORKER,
    ack,
    append,
    claim_client,
    claim_side,
    claim_worker,
    create,
    enqueue,
    entries,
    head,
    hold_node,
    node_info,
    put_node,
    register,
    reseed,
    reseed_worker,
    token,
)
from tests.store.worlds import World

NO_WAKES: dict[str, list[bytes]] = {"a": [], "b": []}
ACCEPT = AcceptSession(SESSION, "b", 1)


async def pair(world: World, *, receipts: bool = False) -> None:
    """A session with its client at `a` and its worker, paired, at `b`, both under epoch 1; no wake-up left over."""
    await world.do(create(receipts=receipts), claim_side(), ACCEPT)
    await world.woken()


async def look(world: World, party: Party = "client", *, after: int = 0, limit: int = 100) -> Looked:
    """Read the session, which is there, and looks the same from both nodes."""
    found = await world.ask(Look(SESSION, party, after, limit), at="a")
    assert isinstance(found, Looked)
    assert await world.ask(Look(SESSION, party, after, limit), at="b") == found
    return found


async def seqs(world: World, party: Party, *, after: int = 0, limit: int = 100) -> list[int]:
    """Return the seqs that wait for `party`."""
    return [entry.seq for entry in (await look(world, party, after=after, limit=limit)).entries]


async def history(world: World, limit: int = 100) -> list[tuple[str, bytes]]:
    """Return the chat history."""
    found = await world.ask(ReadHistory(SESSION, limit), at="a")
    assert isinstance(found, History)
    assert await world.ask(ReadHistory(SESSION, limit), at="b") == found
    return list(found.entries)


def failed(worker: str = WORKER, *, epoch: int = 0, failures_max: int = 3, ended_ms: int = 0) -> UnpairFailed:
    """A hand-out to `worker` has failed, as node `b` says."""
    return UnpairFailed(SESSION, "b", worker, epoch, failures_max, NOW_MS + 5, ended_ms)


async def fail(world: World, times: int, *, failures_max: int = 3, first: int = 1) -> Failures:
    """Let `times` hand-outs fail, each to another worker; returns the failures that the session has then."""
    found = Failures()
    for number in range(first, first + times):
        claimed(await world.ask(claim_side(f"w_{number}", nonce=f"hand-out {number}")))
        result = await world.ask(failed(f"w_{number}", failures_max=failures_max))
        assert isinstance(result, Unpaired)
        found = result.head.failures
    return found


def claimed(result: Result) -> Claimed:
    """Demand that a claim was granted."""
    assert isinstance(result, Claimed), result
    return result


class TestStore:
    """What concerns all operations."""

    async def test_empty_batch(self, world: World) -> None:
        """A batch of nothing is answered with nothing."""
        assert await world.do() == []

    async def test_order(self, world: World) -> None:
        """Operations take effect in the order of their batch, and each gets its answer at its own place."""
        results = await world.do(
            ReadHistory("s_2", 5),
            create(),
            append(entries(1, 2)),
            Look(SESSION, "worker", 0, 9),
            EndSession(SESSION, "a"),
        )
        assert [type(result) for result in results] == [History, Head, Appended, Looked, Ended]

    async def test_shared(self, world: World) -> None:
        """What one node wrote, every other node reads at once."""
        await world.do(create(), append(entries(1, 1)), at="a")
        await world.do(append(entries(2, 2)), at="b")
        assert await seqs(world, "worker") == [1, 2]

    async def test_no_session(self, world: World) -> None:
        """On a session that does not exist every operation says so, and none brings it into being."""
        ops: list[tuple[Op, Result]] = [
            (claim_client(), Refused("unknown")),
            (claim_side(), Refused("unknown")),
            (ACCEPT, NoSession()),
            (Unpair(SESSION, "a", WORKER, 0), NoSession()),
            (failed(), NoSession()),
            (RetrySession(SESSION, "a"), NoSession()),
            (append(entries(1, 1)), NoSession()),
            (ack(1), NoSession()),
            (Look(SESSION, "client", 0, 5), NoSession()),
            (ReadHistory(SESSION, 5), History(())),
            (Detach(SESSION, "client", "a", 1, NOW_MS), Done()),
            (ConfirmToken(SESSION, 1), Done()),
            (EndSession(SESSION, "a"), NoSession()),
            (ExpireSession(SESSION, "a", (), NOW_MS, TTL_MS), Done()),
        ]
        for _ in range(2):
            assert await world.do(*(op for op, _ in ops)) == [result for _, result in ops]

    async def test_signal(self, world: World) -> None:
        """A signal reaches the node it names, in order, however often the same is sent, and no other."""
        await world.do(Signal("b", b"rone"), Signal("b", b"rtwo"), Signal("b", b"rone"), Signal("nobody", b"rx"))
        assert await world.woken() == {"a": [], "b": [b"rone", b"rtwo", b"rone"]}

    async def test_signal_to_itself(self, world: World) -> None:
        """A node may signal itself."""
        await world.do(Signal("a", b"rme"))
        assert await world.woken() == {"a": [b"rme"], "b": []}

    async def test_check(self, world: World) -> None:
        """A store that answers passes its check."""
        await world.stores["a"].check()

    async def test_clock(self, world: World) -> None:
        """The store's clock is one of milliseconds since 1970, and does not run backwards."""
        first = world.stores["a"].now_ms()
        assert first > 1_500_000_000_000
        assert world.stores["a"].now_ms() >= first


class TestCreateSession:
    """A session begins."""

    async def test_head(self, world: World) -> None:
        """A new session has its client attached under epoch 1, no worker and nothing in its logs."""
        assert await world.ask(create(receipts=True)) == head(receipts=True)
        assert (await look(world)).head == head(receipts=True)
        assert await world.woken() == NO_WAKES

    async def test_again(self, world: World) -> None:
        """The same nonce again gives the same head."""
        assert await world.do(create(), create()) == [head(), head()]

    async def test_taken(self, world: World) -> None:
        """Another nonce for the same id is refused, and changes nothing."""
        assert await world.do(create(), create(nonce="other", principal="eve")) == [head(), Exists()]
        assert (await look(world)).head == head()


class TestClaimClient:
    """A client resumes."""

    async def test_claim(self, world: World) -> None:
        """A resume raises the epoch, attaches the client at the new node and wakes the old one."""
        await world.do(create())
        assert await world.ask(claim_client(), at="b") == Claimed(2, head(client_epoch=2, client_node="b"), "a")
        assert await world.woken(at="b") == {"a": [b"s" + SESSION.encode()], "b": []}

    async def test_says_how_long_the_client_was_away(self, world: World) -> None:
        """A resume after a detachment tells how long that was, the same when it is asked again; any other tells 0."""
        await world.do(create())
        assert claimed(await world.ask(claim_client(node="b", nonce="one"))).away_ms == 0
        await world.do(Detach(SESSION, "client", "b", 2, NOW_MS + 1000))
        again = claim_client("t2", "t3", nonce="two", now_ms=NOW_MS + 4500)
        assert [claimed(await world.ask(again)).away_ms for _ in range(2)] == [3500, 3500]

    async def test_wakes_worker(self, world: World) -> None:
        """A resume wakes the worker's node too."""
        await pair(world)
        await world.do(claim_client(node="c"))
        assert await world.woken() == {"a": [b"ss_1"], "b": [b"ss_1"]}

    async def test_same_node(self, world: World) -> None:
        """A node is not woken by what it did itself."""
        await world.do(create())
        assert claimed(await world.ask(claim_client(node="a"))).previous_node == "a"
        assert await world.woken() == NO_WAKES

    async def test_after_detach(self, world: World) -> None:
        """A client that was detached has no previous node."""
        await world.do(create(), Detach(SESSION, "client", "a", 1, NOW_MS))
        assert claimed(await world.ask(claim_client())).previous_node == ""

    async def test_again(self, world: World) -> None:
        """The same nonce again gives the same answer and takes no further epoch."""
        await world.do(create())
        first, second = await world.do(claim_client(received=3, acked=2), claim_client(received=3, acked=2))
        assert first == second
        assert claimed(first).epoch == 2

    async def test_again_when_superseded(self, world: World) -> None:
        """A claim repeated after a newer one answers with its own epoch and takes nothing from the newer one."""
        await world.do(create(), claim_client(node="b", nonce="old"))
        await world.do(claim_client(issued="t3", node="a", nonce="new"))
        again = claimed(await world.ask(claim_client(node="b", nonce="old")))
        assert (again.epoch, again.head.client_epoch, again.head.client_node) == (2, 3, "a")
        assert claimed(await world.ask(claim_client("t3", "t4", nonce="newest"))).epoch == 4

    async def test_acks(self, world: World) -> None:
        """What the client says it has received is acknowledged and trimmed."""
        await pair(world)
        await world.do(append(entries(1, 5), party="worker"))
        result = claimed(await world.ask(claim_client(received=3)))
        assert (result.head.down_last, result.head.down_acked) == (5, 3)
        assert await seqs(world, "client") == [4, 5]

    async def test_never_takes_back(self, world: World) -> None:
        """A client that has received less than it acked before changes nothing by it."""
        await pair(world)
        await world.do(append(entries(1, 5), party="worker"), ack(4, party="client"))
        assert claimed(await world.ask(claim_client(received=2))).head.down_acked == 4

    async def test_lost_up(self, world: World) -> None:
        """A client whose acked messages are not stored shows that the store lost them; their seqs stay used."""
        await pair(world)
        await world.do(append(entries(1, 2)))
        result = claimed(await world.ask(claim_client(node="a", acked=5)))
        assert (result.lost_up, result.lost_down) == ((3, 5), None)
        assert (result.head.up_last, result.head.up_acked) == (5, 0)
        assert await world.ask(append(entries(5, 6), epoch=2)) == Appended(6, 0, "b")

    async def test_lost_down(self, world: World) -> None:
        """A client that has received more than is stored shows that the store lost it; the worker must not use it again."""
        await pair(world)
        await world.do(append(entries(1, 2), party="worker"))
        result = claimed(await world.ask(claim_client(received=4)))
        assert (result.lost_up, result.lost_down) == (None, (3, 4))
        assert (result.head.down_last, result.head.down_acked) == (4, 4)
        assert await world.ask(append(entries(6, 6), party="worker")) == Gap(4)

    async def test_unknown(self, world: World) -> None:
        """A token the session never had is unknown."""
        await world.do(create())
        assert await world.ask(claim_client("t9")) == Refused("unknown")
        assert (await look(world)).head == head()

    async def test_principal(self, world: World) -> None:
        """A token in another principal's hands resumes nothing, and stays good in its holder's."""
        await world.do(create())
        assert await world.ask(claim_client(principal="eve")) == Refused("principal")
        assert claimed(await world.ask(claim_client(nonce="hers"))).epoch == 2

    async def test_expired(self, world: World) -> None:
        """A token is good until its holder has been away for the ttl it was issued with."""
        await world.do(create(ttl_ms=1000), Detach(SESSION, "client", "a", 1, NOW_MS))
        assert await world.ask(claim_client(now_ms=NOW_MS + 1000)) == Refused("expired")
        assert claimed(await world.ask(claim_client(now_ms=NOW_MS + 999, ttl_ms=9))).epoch == 2

    async def test_ttl_follows_the_claim(self, world: World) -> None:
        """A claim brings the ttl of the token that it issues."""
        await world.do(create(ttl_ms=10**9), claim_client(ttl_ms=1000), Detach(SESSION, "client", "b", 2, NOW_MS))
        assert await world.ask(claim_client("t2", "t3", nonce="n3", now_ms=NOW_MS + 1000)) == Refused("expired")

    async def test_not_expired_while_attached(self, world: World) -> None:
        """A client that was never seen to leave has not been away."""
        await world.do(create(ttl_ms=1000))
        assert claimed(await world.ask(claim_client(now_ms=NOW_MS + 10**9))).epoch == 2

    async def test_lost_answer(self, world: World) -> None:
        """While the new token has not been shown, the old one resumes as well: an answer may have been lost."""
        await world.do(create(), claim_client("t1", "t2", nonce="n2"))
        assert claimed(await world.ask(claim_client("t1", "t3", nonce="n3"))).epoch == 3
        assert claimed(await world.ask(claim_client("t3", "t4", nonce="n4"))).epoch == 4

    async def test_reuse(self, world: World) -> None:
        """A token shown again after its successor was shown is theft or a bug: the session's tokens are revoked."""
        await world.do(create(), claim_client("t1", "t2", nonce="n2"), ConfirmToken(SESSION, 2))
        for _ in range(2):
            assert await world.ask(claim_client("t1", "t3", nonce="n3")) == Refused("token_reuse")
        assert await world.ask(claim_client("t2", "t4", nonce="n4"), at="b") == Refused("token_reuse")
        assert await world.ask(claim_client("t9", "t5", nonce="n5"), at="b") == Refused("revoked")
        assert (await look(world)).head.client_epoch == 2

    async def test_late(self, world: World) -> None:
        """A claim asked for before the one that holds comes late: it takes nothing, and is no theft, whatever it shows."""
        await world.do(create(), claim_client("t1", "t2", nonce="n2", now_ms=NOW_MS + 10), ConfirmToken(SESSION, 2))
        for shown in ("t1", "t2"):
            late = claim_client(shown, "t3", nonce="n3", now_ms=NOW_MS + 9)
            assert await world.ask(late, at="b") == Refused("late")
        assert claimed(await world.ask(claim_client("t2", "t4", nonce="n4", now_ms=NOW_MS + 11))).epoch == 3

    async def test_outdone(self, world: World) -> None:
        """A claim that its party gave up for a later one with the same token takes nothing and wakes no node."""
        await world.do(create(), claim_client("t1", "t2", nonce="n2", attempt=2))
        await world.woken()
        late = claim_client("t1", "t3", nonce="n1", node="a", attempt=1, now_ms=NOW_MS + 20)
        assert await world.do(late, late) == [Refused("late")] * 2
        assert await world.woken() == {"a": [], "b": []}
        head = (await look(world)).head
        assert (head.client_epoch, head.client_node) == (2, "b")
        assert claimed(await world.ask(claim_client("t2", "t4", nonce="n3", attempt=3), at="b")).epoch == 3

    async def test_outdone_repeated(self, world: World) -> None:
        """A claim that was granted gets its answer again by its nonce, though a later one of its party holds by now."""
        first = claim_client("t1", "t2", nonce="n1", attempt=1)
        await world.do(create(), first, claim_client("t1", "t3", nonce="n2", attempt=2))
        assert claimed(await world.ask(first)).epoch == 2

    @pytest.mark.parametrize(
        "again",
        [
            claim_client("t1", "t3", nonce="n3", attempt=7),
            claim_client("t1", "t3", nonce="n3"),
            claim_client("t2", "t3", nonce="n3", attempt=1),
            claim_client("t1", "t3", nonce="n3", attempt=1, now_ms=NOW_MS + 60_001),
        ],
        ids=["the same attempt", "does not count", "has the new token", "much later"],
    )
    async def test_not_outdone(self, world: World, again: ClaimClient) -> None:
        """An attempt is not refused when the party has seen the last answer, does not count, or restarts its count after a while."""
        await world.do(create(), claim_client("t1", "t2", nonce="n2", attempt=7))
        assert claimed(await world.ask(again, at="b")).epoch == 3

    async def test_outdone_in_the_same_moment(self, world: World) -> None:
        """Of two claims that were asked for in one moment, the earlier attempt is late even when its token is retired by then."""
        await world.do(create(), claim_client("t1", "t2", nonce="n2", attempt=7), ConfirmToken(SESSION, 2))
        assert await world.ask(claim_client("t1", "t3", nonce="n3", attempt=6), at="b") == Refused("late")
        assert claimed(await world.ask(claim_client("t2", "t4", nonce="n4", attempt=8), at="b")).epoch == 3

    async def test_outdone_is_no_excuse(self, world: World) -> None:
        """A count excuses neither a token that is retired nor another principal."""
        await world.do(create(), claim_client("t1", "t2", nonce="n2", attempt=7))
        eve = claim_client("t1", "t3", nonce="n3", attempt=1, principal="eve")
        assert await world.ask(eve) == Refused("principal")
        await world.do(ConfirmToken(SESSION, 2))
        late = claim_client("t1", "t3", nonce="n4", attempt=1, now_ms=NOW_MS + 11)
        assert await world.ask(late, at="b") == Refused("token_reuse")

    async def test_outdone_is_forgotten(self, world: World) -> None:
        """A store that was given a session back does not know the attempts, and refuses no claim for them."""
        known = head(client_epoch=2, client_node="b")
        await world.do(reseed(known, node="b", tokens=(token("t2"), token("t1"))))
        assert claimed(await world.ask(claim_client("t1", "t3", nonce="n3", attempt=1))).epoch == 3

    async def test_clock_set_back(self, world: World) -> None:
        """A claim is not late because the store's clock was set back since the last one."""
        await world.do(create(), claim_client("t1", "t2", nonce="n2", now_ms=NOW_MS + 3_600_000))
        assert claimed(await world.ask(claim_client("t2", "t3", nonce="n3", now_ms=NOW_MS))).epoch == 3

    async def test_reuse_by_presenting(self, world: World) -> None:
        """To present the new token retires the one before it, too."""
        await world.do(create(), claim_client("t1", "t2", nonce="n2"), claim_client("t2", "t3", nonce="n3"))
        assert await world.ask(claim_client("t1", "t4", nonce="n4")) == Refused("token_reuse")

    async def test_unseen_token(self, world: World) -> None:
        """A token whose answer was lost is retired when the holder resumes with the one before it."""
        await world.do(create(), claim_client("t1", "t2", nonce="n2"), claim_client("t1", "t3", nonce="n3"))
        assert await world.ask(claim_client("t2", "t4", nonce="n4")) == Refused("token_reuse")

    async def test_reuse_by_another(self, world: World) -> None:
        """A retired token in the hands of another principal revokes nothing: the principal is judged first."""
        await world.do(create(), claim_client("t1", "t2", nonce="n2"), ConfirmToken(SESSION, 2))
        assert await world.ask(claim_client("t1", "t3", nonce="n3", principal="eve"), at="b") == Refused("principal")
        assert claimed(await world.ask(claim_client("t2", "t4", nonce="n4"), at="b")).epoch == 3

    async def test_confirm_of_older_epoch(self, world: World) -> None:
        """A confirmation under an older epoch retires nothing."""
        await world.do(create(), claim_client("t1", "t2", nonce="n2"))
        assert await world.ask(ConfirmToken(SESSION, 1)) == Done()
        assert claimed(await world.ask(claim_client("t1", "t3", nonce="n3"))).epoch == 3

    async def test_confirmed_everywhere(self, world: World) -> None:
        """What is confirmed at one node is retired at every other."""
        await world.do(create(), claim_client("t1", "t2", nonce="n2"))
        await world.do(ConfirmToken(SESSION, 2))
        assert await world.ask(claim_client("t1", "t3", nonce="n3"), at="b") == Refused("token_reuse")

    async def test_confirm_again(self, world: World) -> None:
        """A confirmation may be repeated; the current token stays good."""
        await world.do(create(), claim_client(), ConfirmToken(SESSION, 2))
        assert await world.ask(ConfirmToken(SESSION, 2)) == Done()
        assert claimed(await world.ask(claim_client("t2", "t3", nonce="n3"))).epoch == 3


class TestClaimWorkerSide:
    """A worker takes its side."""

    async def test_assign(self, world: World) -> None:
        """An assigned worker gets epoch 1 and is not paired yet; the client's node is woken."""
        await world.do(create())
        expected = head(worker=WORKER, worker_state="assigned", worker_epoch=1, worker_node="b", workers=1)
        assert await world.ask(claim_side(), at="b") == Claimed(1, expected)
        assert await world.woken(at="b") == {"a": [b"ss_1"], "b": []}

    async def test_again(self, world: World) -> None:
        """The same nonce again gives the same answer and takes no further epoch."""
        await world.do(create(), claim_side(nonce="first", node="a"))
        results = await world.do(claim_side(), claim_side())
        assert results[0] == results[1]
        assert (claimed(results[0]).epoch, claimed(results[0]).previous_node) == (2, "a")

    async def test_resume(self, world: World) -> None:
        """A resuming worker keeps the state of its pairing and raises the epoch; its old node is woken, and the client's."""
        await pair(world)
        result = claimed(await world.ask(claim_side(node="c", nonce="resume", assign=False)))
        assert (result.epoch, result.previous_node, result.head.worker_state) == (2, "b", "paired")
        assert await world.woken() == {"a": [b"ss_1"], "b": [b"ss_1"]}

    async def test_not_yours(self, world: World) -> None:
        """A worker that resumes a session of another is refused, and so is one that resumes a session without a worker."""
        await world.do(create())
        assert await world.ask(claim_side(assign=False)) == Refused("not_yours")
        await world.do(claim_side())
        assert await world.ask(claim_side("w_2", nonce="n2", assign=False)) == Refused("not_yours")
        assert (await look(world)).head.worker_epoch == 1

    async def test_reassign(self, world: World) -> None:
        """Another worker takes the session over, and is counted; what no worker acked waits for it."""
        await pair(world)
        await world.do(append(entries(1, 3)), ack(1))
        result = claimed(await world.ask(claim_side("w_2", nonce="n2", node="a")))
        assert (result.epoch, result.head.worker, result.head.worker_state) == (2, "w_2", "assigned")
        assert (result.head.workers, result.previous_node) == (2, "b")
        assert await seqs(world, "worker") == [2, 3]

    async def test_begins_behind(self, world: World) -> None:
        """The head tells how much had been said when the session was last assigned, by whomever: a resume changes nothing."""
        await pair(world)
        await world.do(append(entries(1, 3), party="worker"))
        assert (await look(world)).head.said_before == 0
        resumed = claimed(await world.ask(claim_side(nonce="n2", assign=False, acked=4)))
        assert (resumed.head.said_before, resumed.head.down_last) == (0, 4)
        again = claimed(await world.ask(claim_side("w_2", nonce="n3")))
        assert (again.head.said_before, again.head.down_last) == (4, 4)
        known = claimed(await world.ask(claim_side(nonce="n4", acked=6)))
        assert (known.head.said_before, known.head.down_last) == (6, 6)

    async def test_same_worker_counts_once(self, world: World) -> None:
        """A worker that comes back, even after another, is not counted again."""
        await world.do(create(), claim_side(nonce="n1"), claim_side("w_2", nonce="n2"), claim_side(nonce="n3"))
        await world.do(Unpair(SESSION, "a", WORKER, 0))
        assert claimed(await world.ask(claim_side(nonce="n4"))).head.workers == 2

    async def test_received(self, world: World) -> None:
        """What the worker received of the client's is acknowledged as far as it is stored; what was acked of its own is lost."""
        await pair(world)
        await world.do(append(entries(1, 4)), append(entries(1, 2), party="worker"))
        result = claimed(await world.ask(claim_side(nonce="n2", assign=False, received=6, acked=3)))
        assert (result.lost_up, result.lost_down) == ((5, 6), (3, 3))
        assert (result.head.up_last, result.head.up_acked, result.head.down_last) == (4, 4, 3)

    async def test_accept(self, world: World) -> None:
        """The worker's acceptance makes the pairing whole and wakes the client's node."""
        await world.do(create(), claim_side())
        await world.woken()
        assert await world.ask(ACCEPT, at="b") == Done()
        assert (await look(world)).head.worker_state == "paired"
        assert await world.woken(at="b") == {"a": [b"ss_1"], "b": []}
        assert await world.ask(ACCEPT, at="b") == Done()

    async def test_accept_fenced(self, world: World) -> None:
        """Only the holder of the current epoch accepts."""
        await world.do(create(), claim_side(nonce="n1"), claim_side("w_2", nonce="n2"))
        assert await world.ask(ACCEPT) == Fenced(2)
        assert await world.ask(AcceptSession(SESSION, "a", 2)) == Fenced(2)
        assert (await look(world)).head.worker_state == "assigned"

    async def test_unpair(self, world: World) -> None:
        """A worker taken off the session is fenced, and both nodes are woken."""
        await pair(world)
        assert await world.ask(Unpair(SESSION, "c", WORKER, 0)) == Done()
        assert await world.woken() == {"a": [b"ss_1"], "b": [b"ss_1"]}
        assert (await look(world)).head == head(worker_epoch=2, workers=1)
        assert await world.ask(append(entries(1, 1), party="worker")) == Fenced(2)

    async def test_unpair_again(self, world: World) -> None:
        """A worker that is not, or no longer, the session's is not taken off it."""
        await pair(world)
        await world.do(Unpair(SESSION, "a", "w_2", 0))
        assert (await look(world)).head.worker == WORKER
        assert await world.do(Unpair(SESSION, "a", WORKER, 0), Unpair(SESSION, "a", WORKER, 0)) == [Done(), Done()]
        assert (await look(world)).head.worker_epoch == 2

    async def test_unpair_fenced(self, world: World) -> None:
        """An `Unpair` that comes after the same worker has claimed its side again changes nothing and wakes no node."""
        await pair(world)
        await world.do(claim_side(node="c", nonce="n2", assign=False))
        await world.woken()
        before = (await look(world)).head
        assert await world.ask(Unpair(SESSION, "b", WORKER, 1)) == Fenced(2)
        assert (await look(world)).head == before
        assert await world.woken() == {"a": [], "b": []}
        assert await world.ask(Unpair(SESSION, "b", WORKER, 2)) == Done()
        assert (await look(world)).head.worker_epoch == 3

    async def test_unpair_behind(self, world: World) -> None:
        """A store that has lost a claim gives no epoch twice for it."""
        await pair(world)
        assert await world.ask(Unpair(SESSION, "b", WORKER, 4)) == Done()
        assert (await look(world)).head.worker_epoch == 5


class TestFailures:
    """Hand-outs that fail are counted at the first message that no worker has acked."""

    async def test_counted(self, world: World) -> None:
        """A failed hand-out takes the worker off as `Unpair` does, wakes both nodes, and counts in the same step."""
        await pair(world)
        await world.do(append(entries(1, 2)))
        await world.woken()
        result = await world.ask(failed(), at="b")
        assert await world.woken(at="b") == {"a": [b"ss_1"], "b": []}
        assert isinstance(result, Unpaired)
        assert (result.head.worker, result.head.worker_epoch) == ("", 2)
        assert result.head.failed == Failures(1, 1, NOW_MS + 5, False)
        assert (await look(world)).head == result.head

    async def test_counted_once(self, world: World) -> None:
        """The same again, or of a worker that has not got the session, changes nothing."""
        await pair(world)
        await world.do(append(entries(1, 1)))
        first, again, other = await world.do(failed(), failed(), failed("w_2"))
        assert first == again == other

    async def test_fenced(self, world: World) -> None:
        """A worker that has claimed its side again since has not failed."""
        await pair(world)
        await world.do(append(entries(1, 1)), claim_side(node="c", nonce="n2", assign=False))
        assert await world.ask(failed(epoch=1)) == Fenced(2)
        assert (await look(world)).head.failed == Failures()

    async def test_set_aside(self, world: World) -> None:
        """At `failures_max` no worker is given the session, whichever node asks; the client goes on."""
        await world.do(create(), append(entries(1, 2)))
        assert await fail(world, 2) == Failures(1, 2, NOW_MS + 5, False)
        assert await fail(world, 1, first=3) == Failures(1, 3, NOW_MS + 5, True)
        assert await world.ask(claim_side("w_9", nonce="n9")) == Refused("set_aside")
        assert (await look(world)).head.worker == ""
        assert await world.ask(append(entries(3, 3))) == Appended(3, 0, "")
        resumed = claimed(await world.ask(claim_client()))
        assert resumed.head.failures.set_aside

    async def test_an_ack_resets(self, world: World) -> None:
        """When a worker has acked the message, the next one is judged afresh."""
        await world.do(create(), append(entries(1, 2)))
        await fail(world, 2)
        await world.do(claim_side("w_8", nonce="n8"), ack(1, epoch=5))
        assert (await look(world)).head.failures == Failures()
        assert isinstance(await world.ask(failed("w_8")), Unpaired)
        assert (await look(world)).head.failures == Failures(2, 1, NOW_MS + 5, False)

    async def test_in_good_order(self, world: World) -> None:
        """A worker that is taken off, or that claims its side elsewhere, counts nothing and resets nothing."""
        await world.do(create(), append(entries(1, 1)))
        before = await fail(world, 2)
        await world.do(claim_side("w_8", nonce="n8"), claim_side("w_8", nonce="n9", assign=False, node="a"))
        await world.do(Unpair(SESSION, "a", "w_8", 0))
        assert (await look(world)).head.failures == before

    @pytest.mark.parametrize(
        "ended_ms", [0, NOW_MS - 1, NOW_MS, NOW_MS + IDLE_FAILURE_MS, NOW_MS + IDLE_FAILURE_MS + 1]
    )
    async def test_idle(self, world: World, ended_ms: int) -> None:
        """With no message to handle, a hand-out counts if it ends soon after it began, and else clears the count."""
        await pair(world)
        await world.do(failed(ended_ms=NOW_MS), claim_side("w_2", nonce="n2"), failed("w_2", ended_ms=ended_ms))
        counts = NOW_MS <= ended_ms <= NOW_MS + IDLE_FAILURE_MS
        assert (await look(world)).head.failures.count == (2 if counts else 0)

    async def test_retry(self, world: World) -> None:
        """A session that is set aside begins to count anew, and is woken at its client's node; no other one changes."""
        await world.do(create(), append(entries(1, 1)))
        await fail(world, 2)
        before = (await look(world)).head
        assert await world.ask(RetrySession(SESSION, "b")) == Unpaired(before)
        await fail(world, 1, first=3)
        await world.woken()
        first, again = await world.do(RetrySession(SESSION, "b"), RetrySession(SESSION, "b"), at="b")
        assert first == again
        assert (first.head.failed, first.head.worker_epoch) == (Failures(), 7)
        assert await world.woken(at="b") == {"a": [b"ss_1"], "b": []}
        assert isinstance(await world.ask(claim_side("w_9", nonce="n9")), Claimed)

    async def test_given_back(self, world: World) -> None:
        """A store that is filled again knows the failures; of two under one epoch the greater, of two epochs the later."""
        known = structs.replace(head(worker_epoch=4, up_last=1), failed=Failures(1, 3, NOW_MS, True))
        for given, kept in (
            (known, known.failed),
            (structs.replace(known, failed=Failures()), known.failed),
            (structs.replace(known, failed=Failures(1, 4, NOW_MS, True)), Failures(1, 4, NOW_MS, True)),
            (
                structs.replace(known, worker_epoch=3, failed=Failures(2, 1, NOW_MS, False)),
                Failures(1, 4, NOW_MS, True),
            ),
            (structs.replace(known, worker_epoch=5, failed=Failures()), Failures()),
        ):
            result = await world.ask(reseed(given))
            assert isinstance(result, Head)
            assert result.failed == kept
        assert isinstance(await world.ask(claim_side("w_9", nonce="n9")), Claimed)


class TestAppend:
    """Messages enter a log."""

    async def test_append(self, world: World) -> None:
        """Dense entries are stored in order and wait for the receiver, whose node is woken."""
        await pair(world)
        assert await world.ask(append(entries(1, 3))) == Appended(3, 0, "b")
        assert (await look(world, "worker")).entries == entries(1, 3)
        assert await seqs(world, "client") == []
        assert await world.woken() == {"a": [], "b": [b"ss_1"]}

    async def test_down(self, world: World) -> None:
        """The worker's messages go the other way, with seqs of their own."""
        await pair(world)
        assert await world.ask(append(entries(1, 2), party="worker"), at="b") == Appended(2, 0, "a")
        assert (await look(world)).entries == entries(1, 2)
        assert (await look(world)).head.up_last == 0
        assert await world.woken(at="b") == {"a": [b"ss_1"], "b": []}

    async def test_receiver_away(self, world: World) -> None:
        """For a receiver that is not there messages are stored all the same."""
        await world.do(create())
        assert await world.ask(append(entries(1, 1))) == Appended(1, 0, "")
        assert await world.woken() == NO_WAKES

    async def test_same_node(self, world: World) -> None:
        """The node that appends is not woken when the receiver is its own."""
        await world.do(create(), claim_side(node="a"))
        assert await world.ask(append(entries(1, 1))) == Appended(1, 0, "a")
        assert await world.woken() == NO_WAKES

    async def test_duplicates(self, world: World) -> None:
        """What is stored already counts as success, is not stored twice, and is not news."""
        await pair(world)
        await world.do(append(entries(1, 3, history=True)))
        await world.woken()
        changed = entries(2, 3, history=True, text="other")
        assert await world.ask(append(changed)) == Appended(3, 0, "b")
        assert await world.woken() == NO_WAKES
        assert await world.ask(append(changed + entries(4, 4))) == Appended(4, 0, "b")
        assert (await look(world, "worker")).entries == entries(1, 3, history=True) + entries(4, 4)
        assert len(await history(world)) == 3

    async def test_duplicates_below_ack(self, world: World) -> None:
        """A message that was acked and trimmed does not come back when it is sent again."""
        await pair(world)
        await world.do(append(entries(1, 3)), ack(3))
        assert await world.ask(append(entries(2, 4))) == Appended(4, 3, "b")
        assert await seqs(world, "worker") == [4]

    async def test_gap(self, world: World) -> None:
        """Entries that do not follow the last one are refused as a whole."""
        await pair(world)
        await world.do(append(entries(1, 2)))
        assert await world.ask(append(entries(4, 5))) == Gap(2)
        assert await seqs(world, "worker") == [1, 2]

    async def test_full(self, world: World) -> None:
        """Beyond the backlog bound nothing is stored; up to it everything is."""
        await pair(world)
        await world.do(append(entries(1, 3), backlog_max=3), ack(1))
        assert await world.ask(append(entries(4, 5), backlog_max=3)) == Full(3, 1)
        assert await seqs(world, "worker") == [2, 3]
        assert await world.ask(append(entries(4, 4), backlog_max=3)) == Appended(4, 1, "b")

    async def test_duplicates_are_not_full(self, world: World) -> None:
        """Duplicates are a success even when the log is full."""
        await pair(world)
        await world.do(append(entries(1, 3)))
        assert await world.ask(append(entries(1, 3), backlog_max=1)) == Appended(3, 0, "b")

    async def test_ack_rides_along(self, world: World) -> None:
        """An append may acknowledge the other direction in the same step."""
        await pair(world)
        await world.do(append(entries(1, 4), party="worker"))
        assert await world.ask(append(entries(1, 1), ack=3)) == Appended(1, 0, "b")
        assert (await look(world)).head.down_acked == 3
        assert await seqs(world, "client") == [4]

    @pytest.mark.parametrize("backlog_max", [0, 100])
    async def test_ack_of_refused_append(self, world: World, backlog_max: int) -> None:
        """The acknowledgement counts though the entries are refused: two full directions must not block each other."""
        await pair(world)
        await world.do(append(entries(1, 4), party="worker"))
        refused = await world.ask(append(entries(2 if backlog_max else 1, 5), ack=4, backlog_max=backlog_max))
        assert refused == (Gap(0) if backlog_max else Full(0, 0))
        assert (await look(world)).head.down_acked == 4

    async def test_only_an_ack(self, world: World) -> None:
        """An append of nothing is a way to say an ack."""
        await pair(world)
        await world.do(append(entries(1, 2), party="worker"))
        assert await world.ask(append((), ack=2)) == Appended(0, 0, "b")
        assert (await look(world)).head.down_acked == 2

    async def test_ack_riding_along_wakes_for_receipts(self, world: World) -> None:
        """In a session with receipts the ack of an append that stores nothing wakes the peer's node."""
        await pair(world, receipts=True)
        await world.do(append(entries(1, 2), party="worker"), at="b")
        await world.woken(at="b")
        await world.do(append((), ack=2))
        assert await world.woken() == {"a": [], "b": [b"ss_1"]}

    async def test_ack_riding_along_is_silent(self, world: World) -> None:
        """Without receipts it wakes no node, and with them only if it says something new."""
        await pair(world)
        await world.do(append(entries(1, 2), party="worker"), at="b")
        await world.woken(at="b")
        await world.do(append((), ack=2))
        assert await world.woken() == NO_WAKES

    async def test_nothing_riding_along_is_silent(self, world: World) -> None:
        """With receipts, too, an append of nothing new that acks nothing new wakes no node."""
        await pair(world, receipts=True)
        await world.do(append(entries(1, 2)))
        await world.woken()
        await world.do(append(entries(1, 2)))
        assert await world.woken() == NO_WAKES

    async def test_fenced(self, world: World) -> None:
        """An older epoch stores nothing and acknowledges nothing."""
        await pair(world)
        await world.do(append(entries(1, 2), party="worker"), claim_client())
        await world.woken()
        assert await world.ask(append(entries(1, 1), ack=2)) == Fenced(2)
        assert (await look(world)).head.down_acked == 0
        assert await seqs(world, "worker") == []
        assert await world.woken() == NO_WAKES

    async def test_fenced_by_node(self, world: World) -> None:
        """The right epoch from another node is fenced: a store that lost its tail may have given it twice."""
        await world.do(create())
        assert await world.ask(append(entries(1, 1), node="b")) == Fenced(1)

    async def test_fenced_after_detach(self, world: World) -> None:
        """A party that has detached writes no more."""
        await world.do(create(), Detach(SESSION, "client", "a", 1, NOW_MS))
        assert await world.ask(append(entries(1, 1))) == Fenced(1)

    async def test_behind(self, world: World) -> None:
        """A store that knows only an older epoch has lost its tail, and says so."""
        await world.do(create())
        assert await world.ask(append(entries(1, 1), epoch=2)) == Behind(1)
        assert await world.ask(ack(1, party="client", epoch=2)) == Behind(1)
        assert await seqs(world, "worker") == []

    async def test_binary(self, world: World) -> None:
        """Bodies are bytes, any bytes."""
        await pair(world)
        (entry,) = entries(1, 1)
        body = bytes(range(256)) * 4
        await world.do(append((type(entry)(1, body, False),)))
        assert (await look(world, "worker")).entries[0].body == body


class TestAck:
    """Messages leave a log."""

    async def test_trim(self, world: World) -> None:
        """An ack trims the log up to it, and no further."""
        await pair(world)
        await world.do(append(entries(1, 5)))
        assert await world.ask(ack(3), at="b") == Done()
        assert await seqs(world, "worker") == [4, 5]
        assert ((await look(world)).head.up_last, (await look(world)).head.up_acked) == (5, 3)

    async def test_older(self, world: World) -> None:
        """An older ack takes nothing back."""
        await pair(world)
        await world.do(append(entries(1, 5)), ack(3))
        assert await world.do(ack(2), ack(3)) == [Done(), Done()]
        assert (await look(world)).head.up_acked == 3

    async def test_beyond(self, world: World) -> None:
        """An ack beyond the last message counts as one of the last."""
        await pair(world)
        await world.do(append(entries(1, 2)), ack(9))
        assert (await look(world)).head.up_acked == 2
        assert await world.ask(append(entries(3, 3))) == Appended(3, 2, "b")

    async def test_fenced(self, world: World) -> None:
        """An older epoch acknowledges nothing."""
        await pair(world)
        await world.do(append(entries(1, 2)), claim_side(nonce="n2"))
        assert await world.do(ack(2), ack(2, node="a", epoch=2)) == [Fenced(2), Fenced(2)]
        assert (await look(world)).head.up_acked == 0

    async def test_silent(self, world: World) -> None:
        """Without receipts an ack wakes no node."""
        await pair(world)
        await world.do(append(entries(1, 2)))
        await world.woken()
        await world.do(ack(2), at="b")
        assert await world.woken(at="b") == NO_WAKES

    async def test_receipts(self, world: World) -> None:
        """With receipts an ack that says something new wakes the sender's node."""
        await pair(world, receipts=True)
        await world.do(append(entries(1, 2)))
        await world.woken()
        await world.do(ack(2), at="b")
        assert await world.woken(at="b") == {"a": [b"ss_1"], "b": []}
        await world.do(ack(2), ack(1), at="b")
        assert await world.woken(at="b") == NO_WAKES


class TestLook:
    """A log is read."""

    async def test_window(self, world: World) -> None:
        """A look returns what follows `after`, at most `limit` entries."""
        await pair(world)
        await world.do(append(entries(1, 9)))
        assert await seqs(world, "worker", after=3, limit=4) == [4, 5, 6, 7]
        assert await seqs(world, "worker", after=9) == []
        assert await seqs(world, "worker", limit=0) == []

    async def test_from_first_kept(self, world: World) -> None:
        """A look from before the first entry kept begins with that one."""
        await pair(world)
        await world.do(append(entries(1, 5)), ack(2))
        assert await seqs(world, "worker") == [3, 4, 5]

    async def test_hole(self, world: World) -> None:
        """Where the store lost messages, a look stops before the hole, and the next one begins behind it."""
        await pair(world)
        await world.do(append(entries(1, 2)), claim_client(node="a", acked=4), append(entries(5, 6), epoch=2))
        assert await seqs(world, "worker") == [1, 2]
        assert await seqs(world, "worker", after=2) == [5, 6]


class TestHistory:
    """The chat history is kept for context."""

    async def test_both_parties(self, world: World) -> None:
        """The history holds what was marked for it, of both parties, in the order it came."""
        await pair(world)
        await world.do(append(entries(1, 1, history=True, text="hi")), append(entries(2, 2)))
        await world.do(append(entries(1, 1, history=True, text="ho"), party="worker"))
        await world.do(append(entries(3, 3, history=True, text="hey")))
        assert await history(world) == [("client", b"thi1"), ("worker", b"tho1"), ("client", b"they3")]
        assert await history(world, 2) == [("worker", b"tho1"), ("client", b"they3")]
        assert await history(world, 0) == []

    async def test_outlives_acks(self, world: World) -> None:
        """The history stays when the log is trimmed."""
        await pair(world)
        await world.do(append(entries(1, 3, history=True)), ack(3))
        assert [body for _, body in await history(world)] == [b"tm1", b"tm2", b"tm3"]
        assert await seqs(world, "worker") == []

    async def test_count(self, world: World) -> None:
        """The history is bounded in messages: the oldest go, and stay in the log until they are acked."""
        await pair(world)
        await world.do(append(entries(1, 5, history=True), history_max=3))
        assert [body for _, body in await history(world)] == [b"tm3", b"tm4", b"tm5"]
        assert await seqs(world, "worker") == [1, 2, 3, 4, 5]

    async def test_bytes(self, world: World) -> None:
        """The history is bounded in bytes of bodies as well."""
        await pair(world)
        await world.do(append(entries(1, 3, history=True), history_bytes_max=6))
        assert [body for _, body in await history(world)] == [b"tm2", b"tm3"]
        await world.do(append(entries(4, 4, history=True, text="long text"), history_bytes_max=6))
        assert await history(world) == []

    async def test_bounds_follow_config(self, world: World) -> None:
        """A bound that became lower takes effect with the next message of the history."""
        await pair(world)
        await world.do(append(entries(1, 5, history=True)))
        await world.do(append(entries(6, 6, history=True), history_max=2))
        assert [body for _, body in await history(world)] == [b"tm5", b"tm6"]


class TestDetach:
    """A connection is gone."""

    async def test_client(self, world: World) -> None:
        """A detached client leaves the session without a node, and the worker's node is woken."""
        await pair(world)
        assert await world.ask(Detach(SESSION, "client", "a", 1, NOW_MS)) == Done()
        assert (await look(world)).head.client_node == ""
        assert await world.woken() == {"a": [], "b": [b"ss_1"]}
        await world.do(Detach(SESSION, "client", "a", 1, NOW_MS))
        assert await world.woken() == NO_WAKES

    async def test_worker(self, world: World) -> None:
        """A detached worker stays the session's worker."""
        await pair(world)
        assert await world.ask(Detach(SESSION, "worker", "b", 1, NOW_MS), at="b") == Done()
        found = (await look(world)).head
        assert (found.worker, found.worker_state, found.worker_node) == (WORKER, "paired", "")
        assert await world.woken(at="b") == {"a": [b"ss_1"], "b": []}

    @pytest.mark.parametrize(("node", "epoch"), [("a", 1), ("b", 3), ("c", 2)])
    async def test_fenced(self, world: World, node: str, epoch: int) -> None:
        """A node that does not hold the party cannot detach it."""
        await world.do(create(), claim_client(node="b"))
        await world.woken()
        assert await world.ask(Detach(SESSION, "client", node, epoch, NOW_MS)) == Done()
        assert (await look(world)).head.client_node == "b"
        assert await world.woken() == NO_WAKES


class TestEnd:
    """A session ends."""

    async def test_end(self, world: World) -> None:
        """The end of a session says what it was, wakes both nodes but one's own, and leaves nothing."""
        await pair(world)
        await world.do(append(entries(1, 3, history=True)), append(entries(1, 1, history=True), party="worker"))
        before = (await look(world)).head
        await world.woken()
        assert await world.ask(EndSession(SESSION, "c")) == Ended(before)
        assert await world.woken() == {"a": [b"ss_1"], "b": [b"ss_1"]}
        assert await world.do(Look(SESSION, "client", 0, 9), ReadHistory(SESSION, 9)) == [NoSession(), History(())]
        assert await world.ask(claim_client()) == Refused("unknown")

    async def test_no_ghost(self, world: World) -> None:
        """A new session under an old id finds nothing of the old one."""
        await pair(world)
        await world.do(append(entries(1, 3, history=True)), EndSession(SESSION, "a"))
        assert await world.ask(create(nonce="anew")) == head()
        assert (await history(world), await seqs(world, "worker")) == ([], [])

    async def test_end_own(self, world: World) -> None:
        """The node that ends the session is not woken."""
        await pair(world)
        await world.do(EndSession(SESSION, "a"))
        assert await world.woken() == {"a": [], "b": [b"ss_1"]}

    async def test_expire_detached(self, world: World) -> None:
        """A session whose client has been away for the ttl expires, and not a millisecond earlier."""
        await world.do(create(), Detach(SESSION, "client", "a", 1, NOW_MS))
        assert await world.ask(ExpireSession(SESSION, "a", ("a",), NOW_MS + TTL_MS - 1, TTL_MS)) == Done()
        ended = await world.ask(ExpireSession(SESSION, "a", ("a",), NOW_MS + TTL_MS, TTL_MS))
        assert ended == Ended(head(client_node=""))
        assert await world.ask(Look(SESSION, "client", 0, 1)) == NoSession()

    async def test_expire_attached(self, world: World) -> None:
        """A session whose client is attached to a live node never expires; at a dead node it does."""
        await pair(world)
        assert await world.ask(ExpireSession(SESSION, "b", ("a", "b"), NOW_MS + 10**9, TTL_MS)) == Done()
        assert isinstance(await world.ask(ExpireSession(SESSION, "c", ("b", "c"), NOW_MS, TTL_MS)), Ended)
        assert (await world.woken())["b"] == [b"ss_1"]

    async def test_resume_stops_expiry(self, world: World) -> None:
        """A client that came back and left again has been away since it left last."""
        await world.do(create(), Detach(SESSION, "client", "a", 1, NOW_MS), claim_client(now_ms=NOW_MS + 9))
        await world.do(Detach(SESSION, "client", "b", 2, NOW_MS + 10))
        assert await world.ask(ExpireSession(SESSION, "a", (), NOW_MS + TTL_MS, TTL_MS)) == Done()


class TestReseed:
    """Nodes give back what a store has lost."""

    async def test_what_never_changes(self, world: World) -> None:
        """The time of creation, the want and the like are taken from the node that gives the session back."""
        known = structs.replace(head(receipts=True), created_ms=NOW_MS - 5, want={"lang": "fr"}, meta=b"{}")
        _, given = await world.do(create(), reseed(known))
        assert given == known

    async def test_empty_store(self, world: World) -> None:
        """Two nodes that each know their party restore the whole session: heads, tails and tokens."""
        known = head(
            client_epoch=3,
            worker=WORKER,
            worker_state="paired",
            worker_epoch=2,
            worker_node="b",
            workers=1,
            up_last=7,
            up_acked=4,
            down_last=5,
            down_acked=5,
        )
        await world.do(reseed(known, tokens=(token("t5"), token("t4")), up_tail=entries(5, 7)))
        assert await world.ask(reseed(known, node="b"), at="b") == known
        assert await seqs(world, "worker") == [5, 6, 7]
        assert await world.ask(append(entries(8, 8), epoch=3)) == Appended(8, 4, "b")
        assert await world.ask(ack(8, epoch=2), at="b") == Done()
        assert claimed(await world.ask(claim_client("t4", "t6"))).epoch == 4

    async def test_again(self, world: World) -> None:
        """What was given back once may be given back again."""
        op = reseed(head(up_last=2), tokens=(token("t1"), b""), up_tail=entries(1, 2, history=True))
        results = await world.do(op, op)
        assert results == [head(up_last=2), head(up_last=2)]
        assert len(await history(world)) == 2
        assert await seqs(world, "worker") == [1, 2]

    async def test_ended_stays_ended(self, world: World) -> None:
        """A store that is only behind is not given back a session that has ended meanwhile: nothing of it is made anew."""
        await pair(world)
        known = head(worker=WORKER, worker_state="paired", worker_epoch=1, worker_node="b", workers=1, up_last=2)
        given = reseed(known, node="b", up_tail=entries(1, 2, history=True), create=False)
        assert await world.ask(given, at="b") == known
        await world.do(EndSession(SESSION, "a"))
        assert await world.ask(given, at="b") == NoSession()
        assert await world.ask(Look(SESSION, "worker", 0, 10), at="b") == NoSession()
        assert await history(world) == []

    async def test_speaks_for_itself(self, world: World) -> None:
        """A node knows only of its own parties that they are attached; the other party is away until its node says so."""
        known = head(client_epoch=3, worker=WORKER, worker_state="paired", worker_epoch=2, worker_node="b", workers=1)
        result = await world.ask(reseed(known, node="b"), at="b")
        assert isinstance(result, Head)
        assert (result.client_node, result.worker_node, result.client_epoch) == ("", "b", 3)
        assert await world.ask(ExpireSession(SESSION, "b", ("a", "b"), NOW_MS + TTL_MS - 1, TTL_MS)) == Done()
        result = await world.ask(reseed(known, node="a", tokens=(token("t1"), b"")), at="a")
        assert result == known

    async def test_wakes(self, world: World) -> None:
        """The other party's node is woken when one is given back."""
        known = head(worker=WORKER, worker_state="paired", worker_epoch=1, worker_node="b", workers=1)
        await world.do(reseed(known, node="b"), at="b")
        await world.woken(at="b")
        await world.do(reseed(known))
        assert await world.woken() == {"a": [], "b": [b"ss_1"]}

    async def test_higher_wins(self, world: World) -> None:
        """Where store and node both know a value, the higher seq wins in both directions of knowledge."""
        await pair(world)
        await world.do(append(entries(1, 3)), ack(1), append(entries(1, 2), party="worker"))
        stale = head(up_last=2, up_acked=2, down_last=4)
        result = await world.ask(reseed(stale, up_tail=entries(1, 2), down_tail=entries(3, 4)))
        assert isinstance(result, Head)
        assert (result.up_last, result.up_acked, result.down_last, result.down_acked) == (3, 2, 4, 0)
        assert (await seqs(world, "worker"), await seqs(world, "client")) == ([3], [1, 2, 3, 4])

    async def test_begins_behind(self, world: World) -> None:
        """How much had been said when a worker was given the session belongs to its claim: the newer one brings it along.

        Of the same claim the higher one is true: a store that has lost its tail has taken down too little.
        """
        await pair(world)
        known = head(worker="w_2", worker_state="paired", worker_epoch=1, workers=1, down_last=3, said_before=2)
        result = await world.ask(reseed(known))
        assert isinstance(result, Head)
        assert (result.worker, result.worker_epoch, result.said_before) == (WORKER, 1, 0)
        result = await world.ask(reseed(structs.replace(known, worker_epoch=2)))
        assert isinstance(result, Head)
        assert (result.worker, result.worker_epoch, result.said_before) == ("w_2", 2, 2)
        for said_before, kept in ((3, 3), (1, 3)):
            result = await world.ask(reseed(structs.replace(known, worker_epoch=2, said_before=said_before)))
            assert isinstance(result, Head)
            assert result.said_before == kept

    async def test_hole(self, world: World) -> None:
        """A tail that does not reach down to what is stored leaves a hole; no seq in it is given again."""
        await pair(world)
        await world.do(append(entries(1, 2)))
        await world.do(reseed(head(up_last=6), up_tail=entries(5, 6)))
        assert await seqs(world, "worker") == [1, 2]
        assert await seqs(world, "worker", after=2) == [5, 6]
        assert await world.ask(append(entries(4, 4))) == Appended(6, 0, "b")

    async def test_no_tail(self, world: World) -> None:
        """Without its tail a log goes on behind what the node knows."""
        await pair(world)
        await world.do(reseed(head(up_last=6, up_acked=3)))
        assert await world.ask(append(entries(7, 7))) == Appended(7, 3, "b")

    async def test_acked_tail(self, world: World) -> None:
        """What the receiver has acked is not stored again."""
        await world.do(reseed(head(up_last=4, up_acked=2), up_tail=entries(1, 4)))
        assert await seqs(world, "worker") == [3, 4]

    async def test_older_epoch(self, world: World) -> None:
        """A node that was superseded gives back nothing of the party it lost."""
        await world.do(create(), claim_client())
        result = await world.ask(reseed(head(client_epoch=1, client_node="a"), tokens=(token("t1"), b"")))
        assert result == head(client_epoch=2, client_node="b")
        assert claimed(await world.ask(claim_client("t2", "t3", nonce="n3"))).epoch == 3

    async def test_newer_epoch(self, world: World) -> None:
        """A store that lost a claim learns it again, with its tokens."""
        await world.do(create())
        known = head(client_epoch=2, client_node="b")
        assert await world.ask(reseed(known, node="b", tokens=(token("t2"), token("t1"))), at="b") == known
        assert await world.ask(append(entries(1, 1))) == Fenced(2)
        assert claimed(await world.ask(claim_client("t2", "t3"))).epoch == 3

    async def test_tokens_behind_their_epoch(self, world: World) -> None:
        """The worker's node gives back the epoch of a claim that was lost, and then the client's the tokens that came with it."""
        await world.do(create(), reseed(head(client_epoch=2, client_node="b"), node="a"))
        await world.do(reseed(head(client_epoch=2, client_node="b"), node="b", tokens=(token("t2"), token("t1"))))
        assert claimed(await world.ask(claim_client("t2", "t3"))).epoch == 3

    async def test_newer_worker(self, world: World) -> None:
        """A store that lost a pairing learns it again."""
        await world.do(create(), claim_side("w_0"))
        known = head(worker=WORKER, worker_state="paired", worker_epoch=3, worker_node="b", workers=3)
        assert await world.ask(reseed(known, node="b"), at="b") == known

    async def test_accepted(self, world: World) -> None:
        """A store that lost only the acceptance of the pairing learns it again."""
        await world.do(create(), claim_side())
        known = head(worker=WORKER, worker_state="paired", worker_epoch=1, worker_node="b", workers=1)
        assert await world.ask(reseed(known, node="b"), at="b") == known

    async def test_acceptance_of_another_pairing(self, world: World) -> None:
        """That an earlier worker had accepted says nothing of the present one."""
        await world.do(create(), claim_side("w_0"), claim_side(nonce="n2"))
        known = head(worker="w_0", worker_state="paired", worker_epoch=1, worker_node="b", workers=1)
        result = await world.ask(reseed(known, node="b"), at="b")
        assert isinstance(result, Head)
        assert (result.worker, result.worker_state, result.worker_epoch) == (WORKER, "assigned", 2)

    async def test_counted_worker(self, world: World) -> None:
        """A worker that was given back is one the session has had."""
        await world.do(reseed(head(worker=WORKER, worker_state="paired", worker_epoch=1, worker_node="b", workers=1)))
        assert claimed(await world.ask(claim_side())).head.workers == 1

    async def test_away_since_then(self, world: World) -> None:
        """A client that turns out to be attached elsewhere, by a claim that was lost, is away from that moment on."""
        await world.do(create(), reseed(head(client_epoch=2, client_node="a"), node="b", now_ms=NOW_MS + 10))
        assert await world.ask(ExpireSession(SESSION, "b", ("a", "b"), NOW_MS + TTL_MS + 9, TTL_MS)) == Done()
        assert isinstance(await world.ask(ExpireSession(SESSION, "b", ("a", "b"), NOW_MS + TTL_MS + 10, TTL_MS)), Ended)

    async def test_no_longer_life(self, world: World) -> None:
        """What another node gives back does not make a client that is away stay longer."""
        await world.do(
            create(), Detach(SESSION, "client", "a", 1, NOW_MS), reseed(head(), node="b", now_ms=NOW_MS + 10)
        )
        assert isinstance(await world.ask(ExpireSession(SESSION, "b", ("a", "b"), NOW_MS + TTL_MS, TTL_MS)), Ended)

    async def test_revoked_stays_revoked(self, world: World) -> None:
        """A node that missed the revocation of the tokens does not make them good again."""
        await world.do(create(), claim_client("t1", "t2", nonce="n2"), ConfirmToken(SESSION, 2))
        assert await world.ask(claim_client("t1", "t3", nonce="n3")) == Refused("token_reuse")
        await world.do(reseed(head(client_epoch=2, client_node="b"), node="b", tokens=(token("t2"), b"")))
        assert await world.ask(claim_client("t2", "t4", nonce="n4")) == Refused("token_reuse")

    async def test_revoked_stays_revoked_behind_its_epoch(self, world: World) -> None:
        """Nor does one whose client the store takes for detached."""
        await world.do(create(), claim_client("t1", "t2", nonce="n2"), ConfirmToken(SESSION, 2))
        assert await world.ask(claim_client("t1", "t3", nonce="n3")) == Refused("token_reuse")
        await world.do(Detach(SESSION, "client", "b", 2, NOW_MS))
        await world.do(reseed(head(client_epoch=2, client_node="b"), node="b", tokens=(token("t4"), b"")))
        assert await world.ask(claim_client("t4", "t5", nonce="n4")) == Refused("revoked")

    async def test_retired_stays_retired(self, world: World) -> None:
        """Under the same epoch the store's tokens hold, and not those that a node remembers."""
        await world.do(create(), claim_client("t1", "t2", nonce="n2"), ConfirmToken(SESSION, 2))
        await world.do(reseed(head(client_epoch=2, client_node="b"), node="b", tokens=(token("t2"), token("t1"))))
        assert await world.ask(claim_client("t1", "t3", nonce="n3")) == Refused("token_reuse")

    async def test_detached_stays_detached(self, world: World) -> None:
        """A party another node believes attached stays detached under the same epoch."""
        await world.do(create(), claim_side(), Detach(SESSION, "client", "a", 1, NOW_MS))
        result = await world.ask(reseed(head(worker=WORKER, worker_epoch=1, worker_node="b"), node="b"))
        assert isinstance(result, Head)
        assert result.client_node == ""

    async def test_no_tokens_yet(self, world: World) -> None:
        """Until the client's node has given its tokens back, its token is unknown."""
        await world.do(reseed(head(worker=WORKER, worker_epoch=1, worker_node="b"), node="b"))
        assert await world.ask(claim_client()) == Refused("unknown")
        await world.do(reseed(head(client_epoch=1), tokens=(token("t1"), b"")))
        assert claimed(await world.ask(claim_client())).epoch == 2


class TestNodes:
    """Nodes know of each other."""

    async def test_list(self, world: World) -> None:
        """The live nodes are listed with all they said."""
        await world.do(put_node("a", "starting"), put_node("a"), put_node("b", "draining"))
        found = await world.ask(ListNodes(NOW_MS))
        assert isinstance(found, Nodes)
        assert sorted(found.nodes, key=lambda node: node.id) == [node_info("a"), node_info("b", "draining")]

    async def test_lease(self, world: World) -> None:
        """A node is live until its lease ends; it comes back by renewing it."""
        await world.do(put_node("a", lease_until_ms=NOW_MS + 10))
        assert await world.ask(ListNodes(NOW_MS + 9)) == Nodes((node_info("a", lease_until_ms=NOW_MS + 10),))
        assert await world.ask(ListNodes(NOW_MS + 10)) == Nodes(())
        assert await world.ask(ListNodes(NOW_MS + 61_000)) == Nodes(())
        assert await world.ask(ListNodes(NOW_MS)) == Nodes(())
        await world.do(put_node("a", lease_until_ms=NOW_MS + 99_000))
        assert await world.ask(ListNodes(NOW_MS + 61_000)) == Nodes((node_info("a", lease_until_ms=NOW_MS + 99_000),))

    async def test_wakes(self, world: World) -> None:
        """A node that appears or changes its state wakes the others; a renewed lease wakes none."""
        await world.do(put_node("a"), at="a")
        assert await world.woken() == NO_WAKES
        await world.do(put_node("b", "starting"), at="b")
        assert await world.woken(at="b") == {"a": [b"n"], "b": []}
        await world.do(put_node("b", "starting", lease_until_ms=NOW_MS + 20_000), at="b")
        assert await world.woken(at="b") == NO_WAKES
        await world.do(put_node("b", "ready"), at="b")
        assert await world.woken(at="b") == {"a": [b"n"], "b": []}

    async def test_drop(self, world: World) -> None:
        """A dropped node is gone at once, and the others are woken."""
        await world.do(put_node("a"), put_node("b"))
        await world.woken()
        assert await world.ask(DropNode("b"), at="b") == Done()
        assert await world.ask(ListNodes(NOW_MS)) == Nodes((node_info("a"),))
        assert await world.woken(at="b") == {"a": [b"n"], "b": []}
        assert await world.ask(DropNode("b"), at="b") == Done()
        assert await world.woken(at="b") == NO_WAKES

    async def test_one_process_holds_an_id(self, world: World) -> None:
        """While the lease of one process runs, another is refused and changes nothing; asking again changes nothing."""
        first, second = hold_node("a", "one"), hold_node("a", "two", now_ms=NOW_MS + 1)
        assert await world.ask(first, at="a") == Done()
        taken = NodeTaken("one", NOW_MS, NOW_MS + 10_000)
        assert [await world.ask(second, at="a") for _ in range(2)] == [taken, taken]
        assert await world.ask(first, at="a") == Done()
        assert await world.ask(ListNodes(NOW_MS)) == Nodes((first.info,))

    async def test_a_dead_process_s_id_is_free(self, world: World) -> None:
        """An id is free when the lease has ended, and the first holder is refused then: it finds out that it has lost it."""
        await world.do(hold_node("a", "one"), at="a")
        late = NOW_MS + 10_000
        assert await world.ask(hold_node("a", "two", now_ms=late - 1), at="a") == NodeTaken("one", NOW_MS, late)
        assert await world.ask(hold_node("a", "two", now_ms=late), at="a") == Done()
        assert await world.ask(hold_node("a", "one", now_ms=late + 1), at="a") == NodeTaken("two", late, late + 10_000)

    async def test_a_process_known_to_be_dead_is_replaced_at_once(self, world: World) -> None:
        """The entry that is named, and no later one of the same process, may be replaced though its lease runs."""
        await world.do(hold_node("a", "one"), at="a")
        at = NOW_MS + 5
        wrong = [("one", 0), ("one", NOW_MS - 1), ("three", NOW_MS), ("", NOW_MS)]
        for over in wrong:
            answer = await world.ask(hold_node("a", "two", now_ms=at, over=over), at="a")
            assert answer == NodeTaken("one", NOW_MS, NOW_MS + 10_000), over
        over_first = hold_node("a", "two", now_ms=at, over=("one", NOW_MS))
        assert [await world.ask(over_first, at="a") for _ in range(2)] == [Done(), Done()]
        assert await world.ask(ListNodes(at)) == Nodes((over_first.info,))

    async def test_an_entry_without_incarnation_is_alive_while_its_lease_runs(self, world: World) -> None:
        """Release 0.1.0 names no incarnation: its lease counts, and it may be named as dead by the time of its renewal."""
        await world.do(hold_node("a", ""), at="a")
        at = NOW_MS + 1
        assert await world.ask(hold_node("a", "two", now_ms=at), at="a") == NodeTaken("", NOW_MS, NOW_MS + 10_000)
        assert await world.ask(hold_node("a", "two", now_ms=at, over=("", NOW_MS)), at="a") == Done()

    async def test_release_0_1_0_is_not_fenced(self, world: World) -> None:
        """A node of release 0.1.0 writes over any entry; the other process finds out when it renews its lease."""
        await world.do(hold_node("a", "one"), at="a")
        old = hold_node("a", "", now_ms=NOW_MS + 1)
        assert await world.ask(old, at="a") == Done()
        assert await world.ask(hold_node("a", "one", now_ms=NOW_MS + 2), at="a") == NodeTaken(
            "", NOW_MS + 1, NOW_MS + 10_001
        )

    async def test_other_ids_are_not_concerned(self, world: World) -> None:
        """An id is held for itself alone."""
        await world.do(hold_node("a", "one"), at="a")
        assert await world.ask(hold_node("b", "two"), at="b") == Done()

    async def test_drop_of_an_id_that_was_lost(self, world: World) -> None:
        """A process that has lost its id does not remove the entry of the process that holds it."""
        held = hold_node("a", "two")
        await world.do(held, at="a")
        assert await world.ask(DropNode("a", "one"), at="a") == Done()
        assert await world.ask(ListNodes(NOW_MS)) == Nodes((held.info,))
        assert await world.ask(DropNode("a", "two"), at="a") == Done()
        assert await world.ask(ListNodes(NOW_MS)) == Nodes(())

    async def test_incarnation(self, world: World) -> None:
        """The first name given to this life of the store stays."""
        assert await world.ask(Incarnation("one"), at="a") == Named("one")
        assert await world.ask(Incarnation("two"), at="b") == Named("one")

    async def test_cluster_secret(self, world: World) -> None:
        """The first secret stays."""
        assert await world.ask(ClusterSecret(b"\x00one"), at="a") == Secret(b"\x00one")
        assert await world.ask(ClusterSecret(b"two"), at="b") == Secret(b"\x00one")

    async def test_format(self, world: World) -> None:
        """A store without a number has that of release 0.1.0; a number only grows."""
        assert await world.ask(RaiseFormat(0)) == Format(FORMAT_UNSAID)
        assert await world.ask(RaiseFormat(2), at="a") == Format(2)
        assert await world.ask(RaiseFormat(1), at="b") == Format(2)
        assert await world.ask(RaiseFormat(0)) == Format(2)
        assert await world.ask(RaiseFormat(11)) == Format(11)
        assert await world.ask(RaiseFormat(3)) == Format(11)


async def workers(world: World) -> dict[str, WorkerInfo]:
    """Read every worker by its id."""
    found = await world.ask(ListWorkers())
    assert isinstance(found, Workers)
    return {worker.id: worker for worker in found.workers}


async def waiting(world: World, limit: int = 100) -> list[str]:
    """Read the waiting line."""
    found = await world.ask(ListWaiting(limit))
    assert isinstance(found, Waiting)
    return [place.session for place in found.sessions]


async def paired(world: World, worker: str = WORKER) -> list[str]:
    """Read the sessions of a worker."""
    found = await world.ask(WorkerSessions(worker))
    assert isinstance(found, Sessions)
    return sorted(found.sessions)


class TestWorkers:
    """Workers in the registry."""

    async def test_register(self, world: World) -> None:
        """A new worker is attached under epoch 1 and has no sessions."""
        assert await world.ask(register(), at="b") == WorkerClaimed(1, ())
        assert await workers(world) == {
            WORKER: WorkerInfo(
                WORKER, "b", 1, {"lang": "en"}, 2, 0, leaving=False, away_since_ms=0, instance="pod-1", principal="wes"
            )
        }

    async def test_register_again(self, world: World) -> None:
        """The same nonce again gives the same."""
        assert await world.do(register(), register()) == [WorkerClaimed(1, ()), WorkerClaimed(1, ())]

    async def test_claim(self, world: World) -> None:
        """A resuming worker raises its epoch, brings new labels and capacity, and learns its sessions."""
        await world.do(register(), enqueue(), Reserve("b", ((SESSION, WORKER),)))
        await world.woken()
        assert await world.ask(claim_worker(capacity=5)) == WorkerClaimed(2, (SESSION,), "b")
        found = (await workers(world))[WORKER]
        assert (found.node, found.epoch, found.capacity, found.assigned) == ("a", 2, 5, 1)
        assert await world.woken() == {"a": [], "b": [b"ww_1"]}

    async def test_late(self, world: World) -> None:
        """As for clients: a claim asked for before the one that holds takes nothing and is no theft."""
        await world.do(register(), claim_worker(now_ms=NOW_MS + 10), ConfirmWorkerToken(WORKER, 2))
        assert await world.ask(claim_worker(issued="w3", nonce="late", now_ms=NOW_MS + 9)) == Refused("late")
        assert isinstance(
            await world.ask(claim_worker("w2", "w4", nonce="newer", now_ms=NOW_MS + 11), at="b"), WorkerClaimed
        )

    async def test_outdone(self, world: World) -> None:
        """As for clients: a claim that was given up for a later one with the same token takes nothing and wakes no node."""
        await world.do(register(), claim_worker(attempt=7))
        await world.woken()
        late = claim_worker(issued="w3", nonce="late", node="b", attempt=6, now_ms=NOW_MS + 20)
        assert await world.do(late, late) == [Refused("late")] * 2
        assert await world.woken() == {"a": [], "b": []}
        found = (await workers(world))[WORKER]
        assert (found.node, found.epoch) == ("a", 2)
        eve = claim_worker(issued="w3", nonce="eve", attempt=6, principal="eve")
        assert await world.ask(eve) == Refused("principal")
        assert await world.ask(claim_worker("w2", "w4", nonce="newer", attempt=8), at="b") == WorkerClaimed(3, (), "a")

    @pytest.mark.parametrize(
        "again",
        [
            claim_worker("w1", "w3", nonce="again", attempt=7),
            claim_worker("w1", "w3", nonce="again"),
            claim_worker("w2", "w3", nonce="again", attempt=1),
            claim_worker("w1", "w3", nonce="again", attempt=1, now_ms=NOW_MS + 60_001),
        ],
        ids=["the same attempt", "does not count", "has the new token", "much later"],
    )
    async def test_not_outdone(self, world: World, again: ClaimWorker) -> None:
        """As for clients: a worker that has seen the last answer, does not count, or restarts its count after a while is not refused."""
        await world.do(register(), claim_worker(attempt=7))
        assert await world.ask(again, at="b") == WorkerClaimed(3, (), "a")

    async def test_outdone_in_the_same_moment(self, world: World) -> None:
        """As for clients: asked for in one moment, the earlier attempt is late even when its token is retired."""
        await world.do(register(), claim_worker(attempt=7), ConfirmWorkerToken(WORKER, 2))
        assert await world.ask(claim_worker(issued="w3", nonce="late", attempt=6)) == Refused("late")
        assert await world.ask(claim_worker("w2", "w4", nonce="newer", attempt=8), at="b") == WorkerClaimed(3, (), "a")

    async def test_outdone_is_no_excuse(self, world: World) -> None:
        """As for clients: a count does not excuse a token that is retired."""
        await world.do(register(), claim_worker(attempt=7), ConfirmWorkerToken(WORKER, 2))
        late = claim_worker(issued="w3", nonce="late", attempt=1, now_ms=NOW_MS + 11)
        assert await world.ask(late) == Refused("token_reuse")

    async def test_clock_set_back(self, world: World) -> None:
        """As for clients: no claim is late because the store's clock was set back."""
        await world.do(register(), claim_worker(now_ms=NOW_MS + 3_600_000))
        assert isinstance(
            await world.ask(claim_worker("w2", "w4", nonce="after", now_ms=NOW_MS), at="b"), WorkerClaimed
        )

    async def test_claim_again(self, world: World) -> None:
        """The same nonce again gives the same answer; a claim that a newer one superseded changes nothing."""
        await world.do(register())
        first, second = await world.do(claim_worker(), claim_worker())
        assert first == second == WorkerClaimed(2, (), "b")
        await world.do(claim_worker(issued="w3", node="b", nonce="newer"))
        assert await world.ask(claim_worker()) == WorkerClaimed(2, (), "b")
        assert (await workers(world))[WORKER].epoch == 3

    async def test_claim_makes_ready(self, world: World) -> None:
        """A worker that was leaving, or away, is back when it resumes."""
        await world.do(register(), UpdateWorker(WORKER, 1, 2, True), DetachWorker(WORKER, 1, NOW_MS), claim_worker())
        found = (await workers(world))[WORKER]
        assert (found.leaving, found.away_since_ms, found.node) == (False, 0, "a")

    async def test_claim_refused(self, world: World) -> None:
        """A worker's token obeys the same rules as a client's."""
        assert await world.ask(claim_worker()) == Refused("unknown")
        await world.do(register())
        assert await world.ask(claim_worker("w9")) == Refused("unknown")
        assert await world.ask(claim_worker(principal="eve")) == Refused("principal")
        await world.do(claim_worker("w1", "w2"), ConfirmWorkerToken(WORKER, 1))
        assert await world.ask(claim_worker("w1", "w3", nonce="n3")) == WorkerClaimed(3, (), "a")
        await world.do(ConfirmWorkerToken(WORKER, 3))
        assert await world.ask(claim_worker("w1", "w4", nonce="n4")) == Refused("token_reuse")
        assert await world.ask(claim_worker("w9", "w5", nonce="n5")) == Refused("revoked")

    async def test_update(self, world: World) -> None:
        """The holder of the epoch changes capacity and says that it leaves; an older epoch does not."""
        await world.do(register())
        assert await world.ask(UpdateWorker(WORKER, 1, 7, True)) == Done()
        found = (await workers(world))[WORKER]
        assert (found.capacity, found.leaving) == (7, True)
        await world.do(claim_worker())
        assert await world.ask(UpdateWorker(WORKER, 1, 9, True)) == Fenced(2)
        assert (await workers(world))[WORKER].capacity == 2
        assert await world.ask(UpdateWorker("w_9", 1, 9, True)) == NoWorker()

    async def test_detach(self, world: World) -> None:
        """A detached worker is away since the first time it was said so, under its epoch only."""
        await world.do(register())
        assert await world.ask(DetachWorker(WORKER, 1, NOW_MS + 5)) == Done()
        assert await world.ask(DetachWorker(WORKER, 1, NOW_MS + 6)) == Done()
        found = (await workers(world))[WORKER]
        assert (found.node, found.away_since_ms) == ("", NOW_MS + 5)
        await world.do(claim_worker(), DetachWorker(WORKER, 1, NOW_MS + 7), DetachWorker("w_9", 1, NOW_MS))
        assert (await workers(world))[WORKER].node == "a"

    async def test_remove(self, world: World) -> None:
        """A worker given up is forgotten; its sessions are named and unpaired, and its node is woken."""
        await world.do(register(), enqueue("s_1"), enqueue("s_2"), Reserve("b", (("s_1", WORKER), ("s_2", WORKER))))
        await world.woken()
        released = await world.ask(RemoveWorker(WORKER, "a", 0, requeue=False))
        assert isinstance(released, Sessions)
        assert sorted(released.sessions) == ["s_1", "s_2"]
        assert (await workers(world), await waiting(world), await paired(world)) == ({}, [], [])
        assert await world.woken() == {"a": [], "b": [b"ww_1"]}
        assert await world.ask(claim_worker()) == Refused("unknown")
        assert await world.ask(RemoveWorker(WORKER, "a", 0, requeue=False)) == Sessions(())

    async def test_requeue(self, world: World) -> None:
        """The sessions of a worker given up wait again at their old places, before those that came later."""
        await world.do(
            register(),
            enqueue("s_2", order_ms=NOW_MS + 2),
            enqueue("s_1", order_ms=NOW_MS + 1),
            Reserve("b", (("s_1", WORKER), ("s_2", WORKER))),
            enqueue("s_3", order_ms=NOW_MS + 3),
            enqueue("s_0", order_ms=NOW_MS),
        )
        await world.do(RemoveWorker(WORKER, "b", 1, requeue=True), at="b")
        assert await waiting(world) == ["s_0", "s_1", "s_2", "s_3"]
        assert await world.woken() == NO_WAKES

    async def test_remove_under_epoch(self, world: World) -> None:
        """A worker that was claimed since is not given up."""
        await world.do(register(), enqueue(), Reserve("b", ((SESSION, WORKER),)), claim_worker())
        assert await world.ask(RemoveWorker(WORKER, "a", 1, requeue=True)) == Sessions(())
        assert await paired(world) == [SESSION]

    async def test_reseed(self, world: World) -> None:
        """A worker is given back with its epoch, its tokens and those of its sessions that no other worker has."""
        await world.do(register("w_2"), enqueue("s_1"), enqueue("s_2"), Reserve("b", (("s_2", "w_2"),)))
        op = reseed_worker(epoch=4, tokens=(token("w5"), token("w4")), sessions=("s_1", "s_2", "s_3"))
        assert await world.do(op, op) == [Done(), Done()]
        assert (await paired(world), await paired(world, "w_2")) == (["s_1", "s_3"], ["s_2"])
        assert await waiting(world) == []
        assert await world.ask(claim_worker("w4", "w6", node="b")) == WorkerClaimed(5, ("s_1", "s_3"), "b")

    async def test_reseed_present(self, world: World) -> None:
        """A worker that is there under a newer epoch is left as it is."""
        await world.do(register(), claim_worker())
        await world.do(reseed_worker(epoch=1, tokens=(token("w1"), b""), capacity=9))
        found = (await workers(world))[WORKER]
        assert (found.epoch, found.node, found.capacity) == (2, "a", 2)

    async def test_reseed_same(self, world: World) -> None:
        """A worker that is there under the same epoch is left as it is."""
        await world.do(register(), DetachWorker(WORKER, 1, NOW_MS), reseed_worker(epoch=1, capacity=9))
        found = (await workers(world))[WORKER]
        assert (found.epoch, found.node, found.capacity) == (1, "", 2)

    async def test_reseed_newer(self, world: World) -> None:
        """A store that lost the last claim of a worker learns it again."""
        await world.do(register())
        await world.do(reseed_worker(epoch=2, node="a", tokens=(token("w2"), token("w1")), capacity=9))
        found = (await workers(world))[WORKER]
        assert (found.epoch, found.node, found.capacity) == (2, "a", 9)
        assert await world.ask(claim_worker("w2", "w3", node="b")) == WorkerClaimed(3, (), "a")

    async def test_reseeded_sessions_are_in_the_index(self, world: World) -> None:
        """A reseeded pairing is in the index of the living, due at once, so that no session can be forgotten for ever."""
        await world.do(KeepAlive(("s_1",), NOW_MS + 50), reseed_worker(sessions=("s_1", "s_2")))
        assert await world.ask(ListOverdue(NOW_MS, 9)) == Sessions(("s_2",))


class TestWaiting:
    """Sessions wait for workers."""

    async def test_fifo(self, world: World) -> None:
        """The line is in order of `order_ms`, then of session id, with what each wants."""
        await world.do(enqueue("s_3"), enqueue("s_2", order_ms=NOW_MS + 1), enqueue("s_1"))
        assert await waiting(world) == ["s_1", "s_3", "s_2"]
        assert await world.ask(ListWaiting(1)) == Waiting((WaitingSession("s_1", {"lang": "en"}, NOW_MS),))

    async def test_enqueue_again(self, world: World) -> None:
        """A session waits once, at the place last asked for."""
        assert await world.do(enqueue(), enqueue()) == [Enqueued(""), Enqueued("")]
        await world.do(enqueue("s_2", order_ms=NOW_MS + 1), enqueue(order_ms=NOW_MS + 2))
        assert await waiting(world) == ["s_2", SESSION]

    async def test_enqueue_paired(self, world: World) -> None:
        """A session that is paired stays so and does not wait; once its worker is gone it waits."""
        await world.do(register(), enqueue(), Reserve("a", ((SESSION, WORKER),)))
        assert await world.ask(enqueue()) == Enqueued(WORKER)
        assert await waiting(world) == []
        await world.do(RemoveWorker(WORKER, "a", 0, requeue=False))
        assert await world.ask(enqueue()) == Enqueued("")
        assert await waiting(world) == [SESSION]

    async def test_reserve(self, world: World) -> None:
        """A reserved session leaves the line, counts for its worker, and the worker's node is woken."""
        await world.do(register(), enqueue())
        assert await world.ask(Reserve("a", ((SESSION, WORKER),))) == Reserved((True,))
        assert (await waiting(world), await paired(world)) == ([], [SESSION])
        assert (await workers(world))[WORKER].assigned == 1
        assert await world.woken() == {"a": [], "b": [b"ww_1"]}

    async def test_reserve_own(self, world: World) -> None:
        """The worker's own node is not woken."""
        await world.do(register(), enqueue(), Reserve("b", ((SESSION, WORKER),)), at="b")
        assert await world.woken(at="b") == NO_WAKES

    async def test_reserve_again(self, world: World) -> None:
        """A pair that holds already still holds."""
        op = Reserve("a", ((SESSION, WORKER),))
        await world.do(register(capacity=1), enqueue())
        assert await world.do(op, op) == [Reserved((True,)), Reserved((True,))]
        assert await paired(world) == [SESSION]

    async def test_room(self, world: World) -> None:
        """A worker gets no more sessions than it has room for, counted within one operation too."""
        await world.do(register(capacity=2), *(enqueue(f"s_{n}") for n in range(4)))
        pairs = tuple((f"s_{n}", WORKER) for n in range(4))
        assert await world.ask(Reserve("a", pairs)) == Reserved((True, True, False, False))
        assert await waiting(world) == ["s_2", "s_3"]

    @pytest.mark.parametrize(
        "change",
        [
            UpdateWorker(WORKER, 1, 2, True),
            UpdateWorker(WORKER, 1, 0, False),
            DetachWorker(WORKER, 1, NOW_MS),
            RemoveWorker(WORKER, "b", 0, False),
            Forget(SESSION),
        ],
        ids=["leaving", "no room", "away", "gone", "not waiting"],
    )
    async def test_reserve_refused(self, world: World, change: Op) -> None:
        """A pair does not hold if the worker is leaving, full, away or gone, or the session does not wait."""
        await world.do(register(), enqueue(), change)
        await world.woken()
        assert await world.ask(Reserve("a", ((SESSION, WORKER),))) == Reserved((False,))
        assert await world.woken() == NO_WAKES

    async def test_one_worker_each(self, world: World) -> None:
        """Of two workers reserved for one session the first one has it."""
        await world.do(register("w_1"), register("w_2"), enqueue())
        assert await world.ask(Reserve("a", ((SESSION, "w_1"), (SESSION, "w_2")))) == Reserved((True, False))
        assert (await paired(world, "w_1"), await paired(world, "w_2")) == ([SESSION], [])

    async def test_release(self, world: World) -> None:
        """A released session waits at its old place if asked, else it is just unpaired; the worker has room again."""
        await world.do(register(), enqueue("s_1"), enqueue("s_2", order_ms=NOW_MS + 5))
        await world.do(Reserve("a", (("s_1", WORKER), ("s_2", WORKER))), enqueue("s_3", order_ms=NOW_MS + 1))
        release = Release("s_1", WORKER, requeue=True)
        assert await world.do(release, release) == [Done(), Done()]
        assert await waiting(world) == ["s_1", "s_3"]
        assert await world.ask(Release("s_2", WORKER, requeue=False)) == Done()
        assert (await waiting(world), (await workers(world))[WORKER].assigned) == (["s_1", "s_3"], 0)

    async def test_release_of_another(self, world: World) -> None:
        """A pairing with another worker is not undone."""
        await world.do(register("w_1"), register("w_2"), enqueue(), Reserve("a", ((SESSION, "w_2"),)))
        assert await world.ask(Release(SESSION, "w_1", requeue=True)) == Done()
        assert (await paired(world, "w_2"), await waiting(world)) == ([SESSION], [])

    async def test_forget(self, world: World) -> None:
        """A forgotten session is in no list: not waiting, not paired, not among the living."""
        await world.do(register(), enqueue("s_1"), enqueue("s_2"), Reserve("a", (("s_2", WORKER),)))
        assert await world.do(Forget("s_1"), Forget("s_2"), Forget("s_9")) == [Done(), Done(), Done()]
        assert (await waiting(world), await paired(world)) == ([], [])
        assert (await workers(world))[WORKER].assigned == 0
        assert await world.ask(ListOverdue(NOW_MS + 10**9, 9)) == Sessions(())


class TestLife:
    """The index of the living."""

    async def test_overdue(self, world: World) -> None:
        """Sessions are overdue from the moment their life ends, the longest overdue first; to read them changes nothing."""
        await world.do(enqueue("s_2", alive_until_ms=NOW_MS + 2), KeepAlive(("s_3", "s_1"), NOW_MS + 3))
        assert await world.ask(ListOverdue(NOW_MS + 1, 9)) == Sessions(())
        assert await world.ask(ListOverdue(NOW_MS + 2, 9)) == Sessions(("s_2",))
        for _ in range(2):
            assert await world.ask(ListOverdue(NOW_MS + 3, 9)) == Sessions(("s_2", "s_1", "s_3"))
        assert await world.ask(ListOverdue(NOW_MS + 3, 2)) == Sessions(("s_2", "s_1"))

    async def test_renew(self, world: World) -> None:
        """A life is renewed and never shortened."""
        await world.do(
            KeepAlive(("s_1", "s_2"), NOW_MS + 5), KeepAlive(("s_1",), NOW_MS + 9), KeepAlive(("s_1",), NOW_MS)
        )
        await world.do(enqueue("s_1", alive_until_ms=NOW_MS + 3))
        assert await world.ask(ListOverdue(NOW_MS + 5, 9)) == Sessions(("s_2",))


def hold(
    session: str, *holders: str, sessions_max: int = 9, holder_max: int = 2, until_ms: int = 0, at: int = 0
) -> Hold:
    return Hold(session, holders, sessions_max, holder_max, NOW_MS + (until_ms or 1000), NOW_MS + at)


class TestHold:
    """How many sessions live, in all and for each holder."""

    async def test_a_holder_has_its_share(self, world: World) -> None:
        """At its bound a holder gets no further session; another holder does, and the same session again is granted."""
        ops = [hold("s_1", "x", "p"), hold("s_2", "x"), hold("s_3", "x"), hold("s_3", "y", "p"), hold("s_2", "x")]
        assert await world.do(*ops) == [Done(), Done(), Refused("holder"), Done(), Done()]
        assert await world.ask(hold("s_4", "z", "p")) == Refused("holder")

    async def test_all_sessions_are_counted(self, world: World) -> None:
        """Sessions that another release has let live count in all, and are counted for no holder."""
        await world.do(KeepAlive(("s_1", "s_2"), NOW_MS + 1000))
        assert await world.ask(hold("s_3", "x", sessions_max=3)) == Done()
        assert await world.ask(hold("s_4", "x", sessions_max=3)) == Refused("sessions")
        assert await world.ask(hold("s_1", "x", sessions_max=3)) == Done()

    async def test_it_lets_the_session_live(self, world: World) -> None:
        """A session that is held is among the living, so that what comes of it is swept like any other."""
        await world.do(hold("s_1", until_ms=7))
        assert await world.ask(ListOverdue(NOW_MS + 7, 9)) == Sessions(("s_1",))

    async def test_a_forgotten_session_gives_its_place_back(self, world: World) -> None:
        """After `Forget` the holder may have another session."""
        await world.do(hold("s_1", "x", holder_max=1), Forget("s_1"))
        assert await world.ask(hold("s_2", "x", holder_max=1)) == Done()


async def pace(world: World, op: TakePace, at: str = "a") -> float:
    """Ask for pace and return how long to wait, in milliseconds."""
    found = await world.ask(op, at)
    assert isinstance(found, Paced)
    return found.wait_ms


class TestPace:
    """One budget for the whole cluster."""

    async def test_little_at_once_then_debt(self, world: World) -> None:
        """A twentieth of a second's worth is there at once; what goes beyond waits for its turn."""
        assert await pace(world, TakePace(5, 100.0, NOW_MS), at="a") == pytest.approx(0.0)
        assert await pace(world, TakePace(50, 100.0, NOW_MS), at="b") == pytest.approx(500.0)
        assert await pace(world, TakePace(10, 100.0, NOW_MS + 500), at="a") == pytest.approx(100.0)

    async def test_refill(self, world: World) -> None:
        """The bucket fills at the rate, up to a twentieth of a second's worth."""
        await world.do(TakePace(5, 100.0, NOW_MS))
        assert await pace(world, TakePace(7, 100.0, NOW_MS + 20)) == pytest.approx(50.0)
        assert await pace(world, TakePace(12, 100.0, NOW_MS + 60_000)) == pytest.approx(70.0)

    async def test_clock_backwards(self, world: World) -> None:
        """A clock that is behind another node's takes nothing out of the bucket and puts nothing in."""
        await world.do(TakePace(5, 100.0, NOW_MS))
        assert await pace(world, TakePace(10, 100.0, NOW_MS - 5000)) == pytest.approx(100.0)
        assert await pace(world, TakePace(10, 100.0, NOW_MS)) == pytest.approx(200.0)

    async def test_clock_set_back(self, world: World) -> None:
        """A clock that was set back by far does not stop the bucket from filling."""
        await world.do(TakePace(5, 100.0, NOW_MS + 3_600_000))
        assert await pace(world, TakePace(10, 100.0, NOW_MS)) == pytest.approx(100.0)
        assert await pace(world, TakePace(10, 100.0, NOW_MS + 100)) == pytest.approx(100.0)

    async def test_debt_is_bounded(self, world: World) -> None:
        """No node is told to wait longer than ten minutes, however much was asked before."""
        assert await pace(world, TakePace(10**6, 10.0, NOW_MS)) == pytest.approx(600_000.0)
        assert await pace(world, TakePace(1, 10.0, NOW_MS)) == pytest.approx(600_000.0)


class TestReceipts:
    """Ledgers of drains."""

    async def test_receipt(self, world: World) -> None:
        """The last ledger of a node is kept."""
        assert await world.ask(GetReceipt("a")) == Text(b"")
        await world.do(
            PutReceipt("a", b"{1}", NOW_MS), PutReceipt("b", b"{2}", NOW_MS), PutReceipt("a", b"{3}", NOW_MS + 1)
        )
        assert await world.do(GetReceipt("a"), GetReceipt("b")) == [Text(b"{3}"), Text(b"{2}")]

    async def test_list(self, world: World) -> None:
        """The nodes that have left one, the latest first, and by name where two left theirs at once."""
        assert await world.ask(ListReceipts()) == Receipts(())
        for node, after_ms in (("b", 0), ("a", 0), ("c", 1), ("b", 2)):
            await world.do(PutReceipt(node, b"{}", NOW_MS + after_ms))
        assert await world.ask(ListReceipts()) == Receipts((("b", NOW_MS + 2), ("c", NOW_MS + 1), ("a", NOW_MS)))

    async def test_bound(self, world: World) -> None:
        """The ledgers of the last hundred nodes are kept."""
        await world.do(*(PutReceipt(f"n{number}", b"%d" % number, NOW_MS + number) for number in range(101)))
        assert await world.do(GetReceipt("n0"), GetReceipt("n1"), GetReceipt("n100")) == [
            Text(b""),
            Text(b"1"),
            Text(b"100"),
        ]


class TestTrail:
    """What is known of a session's life."""

    @staticmethod
    def mark(*steps: bytes, session: str = SESSION, now_ms: int = NOW_MS) -> Mark:
        """At most three steps are kept, for a minute."""
        return Mark(session, steps, 3, 60_000, now_ms)

    async def test_steps_in_order(self, world: World) -> None:
        """Steps are kept in the order in which they came, whether there is such a session or not."""
        assert await world.ask(ReadTrail(SESSION)) == Trail(())
        await world.do(self.mark(b"1"), self.mark(b"of another", session="s_2"))
        await world.do(self.mark(b"2", b"3"))
        assert await world.ask(ReadTrail(SESSION)) == Trail((b"1", b"2", b"3"))
        assert await world.ask(ReadTrail("s_2")) == Trail((b"of another",))

    async def test_bound(self, world: World) -> None:
        """The last steps are kept."""
        await world.do(self.mark(b"1", b"2"))
        await world.do(self.mark(b"3", b"4"))
        assert await world.ask(ReadTrail(SESSION)) == Trail((b"2", b"3", b"4"))

    async def test_it_outlives_the_session(self, world: World) -> None:
        """Ending a session leaves its trail."""
        await world.do(create(), self.mark(b"1"))
        await world.do(EndSession(SESSION, "a"), Forget(SESSION))
        assert await world.ask(ReadTrail(SESSION)) == Trail((b"1",))

    async def test_it_is_removed(self, world: World) -> None:
        """A mark that keeps nothing for no time removes the trail."""
        await world.do(self.mark(b"1"), self.mark(b"2", session="s_2"), Mark(SESSION, (), 1, 0, NOW_MS))
        assert await world.do(ReadTrail(SESSION), ReadTrail("s_2")) == [Trail(()), Trail((b"2",))]


def count(*grown: tuple[str, int], bytes_max: int = 1000, until_ms: int = 60_000, at: int = 0) -> CountTrails:
    """With the 256 bytes that each trail counts for beside its steps."""
    return CountTrails(grown, bytes_max, 700, NOW_MS + until_ms, NOW_MS + at)


class TestCountTrails:
    """One budget for all trails."""

    async def test_the_oldest_give_way(self, world: World) -> None:
        """Beyond the budget the trails that end first are named, and count no more: what is named is named once."""
        assert await world.ask(count(("s_1", 144), until_ms=1)) == Sessions(())
        assert await world.ask(count(("s_2", 144), ("s_3", 144), until_ms=3)) == Sessions(("s_1",))
        assert await world.ask(count(("s_4", 144), until_ms=2)) == Sessions(("s_4",))
        assert await world.ask(count(("s_5", 144), until_ms=5)) == Sessions(("s_2",))

    async def test_a_trail_grows(self, world: World) -> None:
        """A further step makes a trail the newest, and it counts for no more than it can keep."""
        await world.do(count(("s_1", 44), until_ms=1), count(("s_2", 44), until_ms=2))
        assert await world.ask(count(("s_1", 10_000), until_ms=3, bytes_max=1000)) == Sessions(())
        assert await world.ask(count(("s_3", 0), until_ms=4)) == Sessions(("s_2",))

    async def test_what_is_over_counts_no_more(self, world: World) -> None:
        """A trail whose time is over is forgotten by the store itself, and is not named."""
        await world.do(count(("s_1", 444), until_ms=10))
        assert await world.ask(count(("s_2", 444), until_ms=30, at=10)) == Sessions(())

    async def test_a_budget_that_was_lowered(self, world: World) -> None:
        """A thousand give way in one call, and the next call goes on."""
        names = [f"s_{number:04}" for number in range(1500)]
        await world.do(count(*[(name, 0) for name in names], bytes_max=10**6))
        assert await world.do(count(bytes_max=0), count(bytes_max=0)) == [
            Sessions(tuple(names[:1000])), Sessions(tuple(names[1000:])),
        ]  # fmt: skip
