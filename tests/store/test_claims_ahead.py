"""Claims beyond the store, and the principal judged before the token: the same at all three stores."""

from typing import Any

import pytest
from msgspec import structs

from signald.core.head import Head
from signald.store.base import Refused
from signald.store.registry.ops import ConfirmWorkerToken, WorkerClaimed
from signald.store.session.ops import ConfirmToken, Detach, Gap, Unpair
from signald.wire.fields import SEQ_MAX
from tests.store.ops import (
    NOW_MS,
    SESSION,
    WORKER,
    append,
    claim_client,
    claim_side,
    claim_worker,
    create,
    entries,
    register,
    reseed,
)
from tests.store.scenes import claimed, look, pair
from tests.store.worlds import World


def said(word: str, seq: int) -> dict[str, Any]:
    """One of the two positions that a claim carries."""
    return {word: seq}


async def head_of(world: World) -> object:
    """Read the head of the session."""
    return (await look(world)).head


class TestTooFarAhead:
    """A claim is believed up to `ahead_max` beyond what is stored, and refused above."""

    @pytest.mark.parametrize("word", ["received", "acked"])
    async def test_client_at_the_bound(self, world: World, word: str) -> None:
        """A client is believed at the bound, for its own session."""
        await pair(world)
        await world.do(append(entries(1, 2)), append(entries(1, 2), party="worker"))
        result = claimed(await world.ask(claim_client(**said(word, 12), ahead_max=10)))
        lost = (result.lost_up, result.lost_down)
        assert lost == ((3, 12), None) if word == "acked" else (None, (3, 12))

    @pytest.mark.parametrize("claimed_seq", [13, 10**6, 2**53 - 2, SEQ_MAX])
    @pytest.mark.parametrize("word", ["received", "acked"])
    async def test_client_above(self, world: World, word: str, claimed_seq: int) -> None:
        """A client that claims more is refused: nothing changes, no node is woken, and its token stays good."""
        await pair(world)
        await world.do(append(entries(1, 2)), append(entries(1, 2), party="worker"))
        await world.woken()
        before = await head_of(world)
        lie = claim_client(**said(word, claimed_seq), ahead_max=10)
        assert await world.do(lie, lie) == [Refused("ahead")] * 2
        assert await head_of(world) == before
        assert await world.woken() == {"a": [], "b": []}
        assert claimed(await world.ask(claim_client(nonce="honest", received=2, acked=2))).epoch == 2

    @pytest.mark.parametrize("word", ["received", "acked"])
    async def test_worker_at_the_bound(self, world: World, word: str) -> None:
        """A worker is believed at the bound, for that session."""
        await pair(world)
        await world.do(append(entries(1, 2)), append(entries(1, 2), party="worker"))
        result = claimed(await world.ask(claim_side(nonce="n2", assign=False, **said(word, 12), ahead_max=10)))
        lost = (result.lost_up, result.lost_down)
        assert lost == ((3, 12), None) if word == "received" else (None, (3, 12))
        lasts = (result.head.up_last, result.head.down_last)
        assert lasts == ((2, 2) if word == "received" else (2, 12))

    @pytest.mark.parametrize("claimed_seq", [13, 2**53 - 2, SEQ_MAX])
    @pytest.mark.parametrize("word", ["received", "acked"])
    async def test_worker_above(self, world: World, word: str, claimed_seq: int) -> None:
        """A worker that claims more is refused for that session, and nothing changes."""
        await pair(world)
        await world.do(append(entries(1, 2)), append(entries(1, 2), party="worker"))
        before = await head_of(world)
        lie = claim_side(nonce="n2", assign=False, **said(word, claimed_seq), ahead_max=10)
        assert await world.ask(lie) == Refused("ahead")
        assert await head_of(world) == before

    async def test_no_number_is_used_up(self, world: World) -> None:
        """However much is believed, a seq is left that a frame can carry; what is stored already is no claim."""
        await pair(world)
        assert await world.ask(claim_client(received=SEQ_MAX, ahead_max=SEQ_MAX)) == Refused("ahead")
        result = claimed(await world.ask(claim_client(received=SEQ_MAX - 1, acked=SEQ_MAX - 1, ahead_max=SEQ_MAX)))
        assert (result.head.up_last, result.head.down_last) == (SEQ_MAX - 1, SEQ_MAX - 1)
        assert result.lost_up == (1, SEQ_MAX - 1)
        again = claim_client("t2", "t3", nonce="again", received=SEQ_MAX - 1, acked=SEQ_MAX - 1, ahead_max=0)
        assert claimed(await world.ask(again)).head.up_last == SEQ_MAX - 1
        assert await world.ask(append(entries(5, 6), party="worker")) != Gap(4)

    async def test_judged_behind_the_token(self, world: World) -> None:
        """A claim that is too far ahead tells nothing to a holder of no token, and excuses no reuse."""
        await world.do(create(), claim_client("t1", "t2", nonce="n2"), ConfirmToken(SESSION, 2))
        assert await world.ask(claim_client("t9", nonce="n3", received=10**6)) == Refused("unknown")
        assert await world.ask(claim_client("t1", nonce="n4", received=10**6)) == Refused("token_reuse")


class TestWordOfAWorker:
    """What a worker says of its client's messages gives up no number of the client's."""

    async def test_next_messages_are_none_of_the_past(self, world: World) -> None:
        """nobody-hurts: the client's next messages are stored, and the next worker gets them."""
        await pair(world)
        await world.do(append(entries(1, 2)))
        lied = claimed(await world.ask(claim_side(nonce="n2", assign=False, received=1000)))
        assert (lied.head.up_last, lied.head.up_acked, lied.head.up_claimed) == (2, 2, (0, 0))
        await world.do(append(entries(3, 4)))
        looked = await look(world, party="worker")
        assert (looked.head.up_last, [entry.seq for entry in looked.entries]) == (4, [3, 4])

    async def test_borne_out_by_its_client(self, world: World) -> None:
        """After a restore both parties know of messages that the store has lost, the worker first: that is an agreement."""
        await pair(world)
        await world.do(append(entries(1, 2)), Detach(SESSION, "client", "a", 1, NOW_MS))
        assert not claimed(await world.ask(claim_side(nonce="n2", assign=False, received=5))).agreed
        borne_out = claimed(await world.ask(claim_client(acked=5)))
        assert (borne_out.agreed, borne_out.lost_up, borne_out.head.up_last) == (True, (3, 5), 5)
        assert borne_out.head.up_acked == 5

    @pytest.mark.parametrize(("heard", "acked"), [(4, 4), (9, 5)])
    async def test_acked_as_far_as_it_is_borne_out(self, world: World, heard: int, acked: int) -> None:
        """What the worker has said that it has is acked once the client's word or a node has raised the log, and no more."""
        await pair(world)
        await world.do(append(entries(1, 2)), claim_side(nonce="n2", assign=False, received=heard))
        assert claimed(await world.ask(claim_client(acked=5))).head.up_acked == acked
        await world.do(append(entries(6, 6), epoch=2))
        assert (await look(world)).head.up_acked == acked

    async def test_not_for_the_next_worker(self, world: World) -> None:
        """What a worker has said that it has, the next one has not."""
        await pair(world)
        await world.do(append(entries(1, 2)), claim_side(nonce="n2", assign=False, received=9))
        await world.do(Unpair(SESSION, "b", WORKER, 0), claim_side("w_2", nonce="n3"))
        assert claimed(await world.ask(claim_client(acked=5))).head.up_acked == 2

    async def test_given_back_by_a_node(self, world: World) -> None:
        """A node that knows what the store has lost gives it back: as much as the worker has counts as acked."""
        await pair(world)
        await world.do(append(entries(1, 2)), claim_side(nonce="n2", assign=False, received=4))
        known = structs.replace((await look(world)).head, up_last=5)
        given = await world.ask(reseed(known, up_tail=entries(4, 5)))
        assert isinstance(given, Head)
        assert (given.up_last, given.up_acked) == (5, 4)

    async def test_not_borne_out(self, world: World) -> None:
        """A client that was acked no more than is stored offers the rest again under the same numbers."""
        await pair(world)
        await world.do(append(entries(1, 2)), Detach(SESSION, "client", "a", 1, NOW_MS))
        await world.do(claim_side(nonce="n2", assign=False, received=5))
        honest = claimed(await world.ask(claim_client(acked=2)))
        assert (honest.agreed, honest.lost_up, honest.head.up_last) == (False, None, 2)
        later = claimed(await world.ask(claim_client("t2", "t3", nonce="n4", acked=6)))
        assert (later.agreed, later.lost_up) == (False, (3, 6))


class TestClaimed:
    """Numbers that only a party's claim has used are remembered as such."""

    async def test_head_tells(self, world: World) -> None:
        """The head names the seqs that no message has, until others follow that the receiver has not got past."""
        await pair(world)
        await world.do(append(entries(1, 2)))
        first = claimed(await world.ask(claim_client(node="a", acked=5))).head
        assert (first.up_claimed, first.down_claimed) == ((3, 5), (0, 0))
        await world.do(append(entries(6, 6), epoch=2))
        again = claimed(await world.ask(claim_client("t2", "t3", node="a", nonce="n2", acked=9))).head
        assert again.up_claimed == (3, 9)
        assert (await look(world)).head.up_claimed == (3, 9)
        await world.do(claim_side(nonce="n3", assign=False, received=9))
        later = claimed(await world.ask(claim_client("t3", "t4", node="a", nonce="n4", acked=11))).head
        assert later.up_claimed == (10, 11)

    async def test_again(self, world: World) -> None:
        """A claim that is repeated gives the same answer."""
        await pair(world)
        first, second = await world.do(claim_client(acked=5), claim_client(acked=5))
        assert first == second

    async def test_agreed(self, world: World) -> None:
        """A party that was away when the other made its claim, and claims the same, bears it out; once."""
        await pair(world)
        await world.do(append(entries(1, 2)), Detach(SESSION, "worker", "b", 1, NOW_MS))
        assert not claimed(await world.ask(claim_client(acked=5))).agreed
        side = claim_side(nonce="n2", assign=False, received=4)
        borne_out = claimed(await world.ask(side))
        assert (borne_out.agreed, borne_out.lost_up) == (True, None)
        assert claimed(await world.ask(side)) == borne_out
        assert not claimed(await world.ask(claim_side(nonce="n3", assign=False, received=5))).agreed

    async def test_not_agreed_by_hearsay(self, world: World) -> None:
        """A party that was there when the claim was made may have been told of it: it bears nothing out."""
        await pair(world)
        await world.do(claim_client(acked=5), Detach(SESSION, "worker", "b", 1, NOW_MS))
        assert not claimed(await world.ask(claim_side(nonce="n2", assign=False, received=5))).agreed

    async def test_not_agreed_by_what_it_heard_before(self, world: World) -> None:
        """Of a second claim made while the other was away, only what is new is borne out."""
        await pair(world)
        await world.do(claim_client(acked=5), Detach(SESSION, "worker", "b", 1, NOW_MS))
        await world.do(claim_client("t2", "t3", nonce="n2", acked=8))
        assert not claimed(await world.ask(claim_side(nonce="n3", assign=False, received=5))).agreed

    async def test_not_agreed_with_itself(self, world: World) -> None:
        """A party that says the same twice bears nothing out."""
        await pair(world)
        await world.do(Detach(SESSION, "worker", "b", 1, NOW_MS), claim_client(acked=5))
        assert not claimed(await world.ask(claim_client("t2", "t3", nonce="n2", acked=6))).agreed

    async def test_honest_worker_bears_out_nothing(self, world: World) -> None:
        """A worker that knows no more than what was stored makes no lie of its client true."""
        await pair(world)
        await world.do(append(entries(1, 2)), Detach(SESSION, "worker", "b", 1, NOW_MS), claim_client(acked=5))
        assert not claimed(await world.ask(claim_side(nonce="n2", assign=False, received=2))).agreed


class TestPrincipalFirst:
    """The principal is judged before the token, and the answer to another principal is the same for every token."""

    @pytest.mark.parametrize("shown", ["t1", "t2", "t9"], ids=["retired", "current", "never issued"])
    async def test_client(self, world: World, shown: str) -> None:
        """A stranger with a token of another's session is refused, and changes nothing."""
        await world.do(create(), claim_client("t1", "t2", nonce="n2"), ConfirmToken(SESSION, 2))
        before = await head_of(world)
        eve = claim_client(shown, "t3", nonce="eve", principal="eve", received=10**6, attempt=1)
        assert await world.do(eve, eve) == [Refused("principal")] * 2
        assert await head_of(world) == before
        assert claimed(await world.ask(claim_client("t2", "t4", nonce="hers"), at="b")).epoch == 3

    async def test_client_late_expired_revoked(self, world: World) -> None:
        """Nor does a stranger learn that a session has expired, was revoked, or has just been claimed."""
        await world.do(create(ttl_ms=1000), Detach(SESSION, "client", "a", 1, NOW_MS))
        assert await world.ask(claim_client(principal="eve", now_ms=NOW_MS + 1000)) == Refused("principal")
        await world.do(claim_client("t1", "t2", nonce="n2", now_ms=NOW_MS + 10), ConfirmToken(SESSION, 2))
        assert await world.ask(claim_client(principal="eve", now_ms=NOW_MS + 9)) == Refused("principal")
        assert await world.ask(claim_client("t1", nonce="n3", now_ms=NOW_MS + 10)) == Refused("token_reuse")
        assert await world.ask(claim_client("t9", principal="eve", now_ms=NOW_MS + 10)) == Refused("principal")

    @pytest.mark.parametrize("shown", ["w1", "w2", "w9"], ids=["retired", "current", "never issued"])
    async def test_worker(self, world: World, shown: str) -> None:
        """As for clients."""
        await world.do(register(), claim_worker("w1", "w2"), ConfirmWorkerToken(WORKER, 2))
        eve = claim_worker(shown, "w3", nonce="eve", principal="eve", attempt=1, now_ms=NOW_MS - 1)
        assert await world.do(eve, eve) == [Refused("principal")] * 2
        assert await world.ask(claim_worker("w2", "w4", nonce="its"), at="b") == WorkerClaimed(3, (), "a")
