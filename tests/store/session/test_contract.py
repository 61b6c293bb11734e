"""What every store must do about a session, one rule of `signald/store/session/ops.py` after the other.

Two nodes look at one fresh store: `a`, where the client usually is, and `b`, where the worker usually is.
"""

import pytest
from msgspec import structs

from signald.core.callers import ALL, Access
from signald.core.failures import Failures
from signald.core.head import Head
from signald.store.base import Behind, Done, Fenced, Refused
from signald.store.registry.ops import (
    Forget,
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
    KeepAnswer,
    Look,
    Mark,
    NoSession,
    ReadHistory,
    ReadSession,
    ReadTrail,
    RetrySession,
    SessionRead,
    Trail,
    Unpair,
    Unpaired,
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
    create,
    entries,
    head,
    reseed,
    token,
)
from tests.store.scenes import ACCEPT, NO_WAKES, claimed, failed, history, look, pair, seqs
from tests.store.worlds import World


async def fail(world: World, times: int, *, failures_max: int = 3, first: int = 1) -> Failures:
    """Let `times` hand-outs fail, each to another worker; returns the failures that the session has then."""
    found = Failures()
    for number in range(first, first + times):
        claimed(await world.ask(claim_side(f"w_{number}", nonce=f"hand-out {number}")))
        result = await world.ask(failed(f"w_{number}", failures_max=failures_max))
        assert isinstance(result, Unpaired)
        found = result.head.failures
    return found


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

    async def test_without_a_worker(self, world: World) -> None:
        """A session that wants no worker stays so, over claims and when a node gives it back."""
        alone = structs.replace(head(), pair=False)
        assert await world.ask(create(pair=False)) == alone
        assert claimed(await world.ask(claim_client(node="a"))).head.pair is False
        assert await world.ask(reseed(structs.replace(head("s_2"), pair=False))) == structs.replace(
            head("s_2"), pair=False
        )
        assert (await look(world)).head.pair is False

    async def test_without_a_client(self, world: World) -> None:
        """Without a node no client is attached: the first claim has epoch 1, and the session expires when none comes in time."""
        await world.do(create(node=""), create("s_2", node=""))
        assert (await look(world)).head == head(client_epoch=0, client_node="")
        assert await world.ask(create(node="")) == head(client_epoch=0, client_node="")
        expire = [ExpireSession("s_2", "b", ("a", "b"), NOW_MS + after_ms, TTL_MS) for after_ms in (TTL_MS - 1, TTL_MS)]
        early, ended = await world.do(*expire)
        assert (early, type(ended)) == (Done(), Ended)
        assert await world.ask(claim_client(now_ms=NOW_MS + 9)) == Claimed(1, head(client_node="b"), away_ms=9)

    async def test_without_a_client_in_time(self, world: World) -> None:
        """The token of a session without a client is good for the time to live of the session."""
        await world.do(create(node=""))
        assert await world.ask(claim_client(now_ms=NOW_MS + TTL_MS)) == Refused("expired")


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
        assert await world.ask(claim_side(), at="b") == Claimed(1, expected, hand_outs=1)
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


class TestReadSession:
    """A session is read for a caller of the HTTP API."""

    async def test_when_its_client_was_there(self, world: World) -> None:
        """It tells when the client has attached last, 0 for never, and since when it is detached."""
        await world.do(create(node=""))
        assert await world.ask(ReadSession(SESSION, ALL)) == SessionRead(
            head(client_epoch=0, client_node=""), 0, NOW_MS
        )
        await world.do(claim_client(now_ms=NOW_MS + 5))
        await world.do(Detach(SESSION, "client", "b", 1, NOW_MS + 8))
        assert await world.ask(ReadSession(SESSION, ALL)) == SessionRead(head(client_node=""), NOW_MS + 5, NOW_MS + 8)

    async def test_given_back(self, world: World) -> None:
        """Of a record that a node gave back no claim is known: its client is there since the session began."""
        await world.do(reseed(head()))
        found = await world.ask(ReadSession(SESSION, ALL))
        assert isinstance(found, SessionRead)
        assert (found.head, found.connected_ms) == (head(), NOW_MS)

    @pytest.mark.parametrize("access", [ALL, Access(owner="t\x1fann"), Access(tenant="t"), Access(worker=WORKER)])
    async def test_access(self, world: World, access: Access) -> None:
        """All, its principal, its tenant and its worker have access."""
        await world.do(create(principal="t\x1fann"), claim_side())
        assert isinstance(await world.ask(ReadSession(SESSION, access)), SessionRead)

    @pytest.mark.parametrize(
        "access",
        [
            Access(owner="ann"),
            Access(owner=""),
            Access(tenant="t\x1fa"),
            Access(tenant=""),
            Access(worker=""),
            Access(worker="w_2"),
        ],
    )
    async def test_no_access(self, world: World, access: Access) -> None:
        """Another principal, tenant or worker is refused; so is a worker without a name, where the session has none."""
        await world.do(create(principal="t\x1fann"))
        assert await world.ask(ReadSession(SESSION, access)) == Refused("access")
        await world.do(claim_side())
        assert await world.ask(ReadSession(SESSION, access)) == Refused("access")


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
        assert await world.do(Look(SESSION, "client", 0, 9), ReadHistory(SESSION, 9)) == [NoSession(), NoSession()]
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


class TestAnswers:
    """What the core server has answered for a session."""

    async def test_it_is_kept_with_the_session(self, world: World) -> None:
        """The head shows it, to the worker's node as well."""
        answer = {"settings": b'{"tier":"gold"}', "rooms": b'{"r":["join"]}', "asked_until_ms": NOW_MS + 9}
        begun, claimed = await world.do(create(**answer), claim_side())  # type: ignore[arg-type]
        assert isinstance(begun, Head)
        assert isinstance(claimed, Claimed)
        for of in (begun, claimed.head):
            assert (of.settings, of.rooms, of.asked_until_ms) == tuple(answer.values())

    async def test_a_later_answer(self, world: World) -> None:
        """It takes the place of the one before, with less as well; a session that is over gets none."""
        await world.do(create(settings=b"1", rooms=b"{}", asked_until_ms=NOW_MS))
        for settings, rooms, until in ((b"2", b"", NOW_MS + 5), (b"", b'{"r":[]}', NOW_MS), (b"", b"", 0)):
            assert await world.ask(KeepAnswer(SESSION, settings, rooms, until)) == Done()
            read = await world.ask(ReadSession(SESSION, ALL))
            assert isinstance(read, SessionRead)
            assert (read.head.settings, read.head.rooms, read.head.asked_until_ms) == (settings, rooms, until)
        assert await world.ask(KeepAnswer("s_9", b"1", b"", NOW_MS)) == NoSession()

    @pytest.mark.parametrize("known_until", [NOW_MS + 5, NOW_MS + 10, NOW_MS + 15])
    async def test_it_is_given_back(self, world: World, known_until: int) -> None:
        """Of two answers the one that counts longer stays; a store that has lost the session takes the node's."""
        known = structs.replace(head(), settings=b"2", rooms=b"[2]", asked_until_ms=known_until)
        _, given = await world.do(create(settings=b"1", rooms=b"[1]", asked_until_ms=NOW_MS + 10), reseed(known))
        assert isinstance(given, Head)
        later = known_until >= NOW_MS + 10
        assert (given.settings, given.rooms) == ((b"2", b"[2]") if later else (b"1", b"[1]"))
        assert given.asked_until_ms == max(known_until, NOW_MS + 10)
        (again,) = await world.do(reseed(structs.replace(known, session="s_2")))
        assert isinstance(again, Head)
        assert (again.settings, again.rooms, again.asked_until_ms) == (b"2", b"[2]", known_until)


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
        assert await world.ask(ReadHistory(SESSION, 9)) == NoSession()

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
