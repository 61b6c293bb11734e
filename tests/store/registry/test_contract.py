"""What every store must do about nodes, workers and the waiting line, one rule of `signald/store/registry/ops.py` after the other.

The nodes `a` and `b` look at one fresh store.
"""

import pytest

from signald.core.api_keys import KEYS_MAX, LEAD_MS, ApiKey
from signald.store.base import Done, Fenced, Op, Refused
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
    GetKeySet,
    GetReceipt,
    Hold,
    Incarnation,
    KeepAlive,
    KeepKeySet,
    KeptKeySet,
    Keys,
    ListNodes,
    ListOverdue,
    ListReceipts,
    ListRevoked,
    ListSessionsOf,
    ListWaiting,
    ListWorkers,
    Named,
    Nodes,
    NodeTaken,
    NoWorker,
    Paced,
    PutReceipt,
    RaiseFormat,
    ReadApiKeys,
    Receipts,
    Release,
    RemoveWorker,
    Reserve,
    Reserved,
    Revocation,
    Revoke,
    Revoked,
    RevokedPage,
    SealKeys,
    Secret,
    Sessions,
    TakePace,
    Text,
    UpdateWorker,
    UseSealKey,
    Waiting,
    WaitingSession,
    WorkerClaimed,
    WorkerInfo,
    Workers,
    WorkerSessions,
)
from tests.store.ops import (
    NOW_MS,
    SESSION,
    WORKER,
    claim_worker,
    enqueue,
    hold_node,
    node_info,
    put_node,
    register,
    reseed_worker,
    token,
)
from tests.store.scenes import NO_WAKES
from tests.store.worlds import World


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

    async def test_seal_keys(self, world: World) -> None:
        """A key is noted once and stays until it is retired; the one that seals stays all the same."""
        one, two = "00000001", "00000002"
        assert await world.ask(UseSealKey("")) == SealKeys(())
        assert await world.ask(UseSealKey(one), at="a") == SealKeys((one,))
        assert await world.ask(UseSealKey(two), at="b") == SealKeys((one, two))
        assert await world.ask(UseSealKey(one)) == SealKeys((one, two))
        assert await world.ask(UseSealKey(two, (one, two))) == SealKeys((two,))
        assert await world.ask(UseSealKey(one)) == SealKeys((two, one))
        assert await world.ask(UseSealKey("", (one, "00000003"))) == SealKeys((two,))
        assert await world.ask(UseSealKey("")) == SealKeys((two,))

    async def test_format(self, world: World) -> None:
        """A store without a number has that of release 0.1.0; a number only grows."""
        assert await world.ask(RaiseFormat(0)) == Format(FORMAT_UNSAID)
        assert await world.ask(RaiseFormat(2), at="a") == Format(2)
        assert await world.ask(RaiseFormat(1), at="b") == Format(2)
        assert await world.ask(RaiseFormat(0)) == Format(2)
        assert await world.ask(RaiseFormat(11)) == Format(11)
        assert await world.ask(RaiseFormat(3)) == Format(11)


ONE, TWO, THREE = bytes([1]) * 32, bytes([2]) * 32, b"\x00\xff" * 16
ROTATE_MS, LIFE_MS = 3_600_000, 900_000


async def api_keys(
    world: World,
    candidate: bytes = b"",
    after_ms: int = 0,
    known: tuple[ApiKey, ...] = (),
    life_ms: int = LIFE_MS,
    at: str = "a",
) -> tuple[ApiKey, ...]:
    """Read the keys of API tokens, `after_ms` after the first."""
    found = await world.ask(ReadApiKeys(known, candidate, ROTATE_MS, life_ms, NOW_MS + after_ms), at=at)
    assert isinstance(found, Keys)
    return found.keys


class TestApiKeys:
    """The keys that sign API tokens."""

    async def test_the_first_key_stays(self, world: World) -> None:
        """The first node makes the key, which signs at once; a node that draws none makes none."""
        assert await api_keys(world) == ()
        first = ApiKey(NOW_MS, LIFE_MS, ONE)
        assert await api_keys(world, ONE) == (first,)
        assert await api_keys(world, TWO, 5, at="b") == (first,)
        assert await api_keys(world, b"", 5) == (first,)

    async def test_rotation(self, world: World) -> None:
        """A key is announced before it signs; the one before goes when its last token has run out; then the next may come."""
        await api_keys(world, ONE)
        first, second = ApiKey(NOW_MS, LIFE_MS, ONE), ApiKey(NOW_MS + ROTATE_MS + LEAD_MS, LIFE_MS, TWO)
        assert await api_keys(world, TWO, ROTATE_MS - 1) == (first,)
        assert await api_keys(world, b"", ROTATE_MS) == (first,)
        assert await api_keys(world, TWO, ROTATE_MS) == (first, second)
        assert await api_keys(world, TWO, ROTATE_MS) == (first, second)
        assert await api_keys(world, THREE, 2 * ROTATE_MS - 1, at="b") == (second,)
        over_ms = ROTATE_MS + 2 * LEAD_MS + LIFE_MS
        assert await api_keys(world, b"", over_ms - 1, (first,)) == (first, second)
        assert await api_keys(world, b"", over_ms, (first,)) == (second,)
        third = ApiKey(NOW_MS + 2 * ROTATE_MS + 2 * LEAD_MS, LIFE_MS, THREE)
        assert await api_keys(world, THREE, 2 * ROTATE_MS + LEAD_MS) == (second, third)

    async def test_the_longest_life_counts(self, world: World) -> None:
        """A node that lets its tokens live longer keeps the key for them, although another node lets them live for less."""
        await api_keys(world, ONE, life_ms=1000)
        (first,) = await api_keys(world, b"", 1, life_ms=2 * LIFE_MS)
        assert first == ApiKey(NOW_MS, 2 * LIFE_MS, ONE)
        await api_keys(world, TWO, ROTATE_MS, life_ms=1000)
        over_ms = ROTATE_MS + 2 * LEAD_MS + 2 * LIFE_MS
        assert len(await api_keys(world, b"", over_ms - 1, life_ms=1000)) == 2
        assert len(await api_keys(world, b"", over_ms, life_ms=1000)) == 1

    async def test_lost_keys_come_back(self, world: World) -> None:
        """A store that has lost its keys has them again with the first node that knows them, beside one made meanwhile."""
        mine, other = ApiKey(NOW_MS - 10, LIFE_MS, ONE), ApiKey(NOW_MS - 5, LIFE_MS, THREE)
        assert await api_keys(world, TWO, 0, (mine,)) == (mine,)
        assert await api_keys(world, TWO, 0, (other,), at="b") == (mine, other)
        assert await api_keys(world) == (mine, other)

    async def test_a_store_knows_better(self, world: World) -> None:
        """What the store keeps of a key holds, whatever a node remembers of it."""
        await api_keys(world, ONE)
        assert await api_keys(world, b"", 0, (ApiKey(NOW_MS + 7, 1, ONE),)) == (ApiKey(NOW_MS, LIFE_MS, ONE),)

    async def test_keys_are_bounded(self, world: World) -> None:
        """Of more keys than are kept the latest stay."""
        many = tuple([ApiKey(NOW_MS + number, LIFE_MS, bytes([number]) * 32) for number in range(KEYS_MAX + 2)])
        assert await api_keys(world, b"", 0, many) == many[2:]

    async def test_a_clock_that_was_set_back(self, world: World) -> None:
        """A key that was announced by a clock far ahead signs as one that is announced now."""
        far = ApiKey(NOW_MS + 10**9, LIFE_MS, ONE)
        near = ApiKey(NOW_MS + 2 * LEAD_MS, LIFE_MS, TWO)
        assert await api_keys(world, THREE, 0, (far, near)) == (ApiKey(NOW_MS + LEAD_MS, LIFE_MS, ONE), near)


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

    async def test_reseed_says_how_it_was_asked_for(self, world: World) -> None:
        """A claim from before the one that a node gave back is late, by its time or by its count, as before the loss."""
        tokens = token("w2"), token("w1")
        await world.do(reseed_worker(epoch=2, tokens=tokens, asked_ms=NOW_MS + 10, attempt=3))
        early = claim_worker(nonce="early", now_ms=NOW_MS + 9)
        given_up = claim_worker(nonce="given up", now_ms=NOW_MS + 20, attempt=2)
        assert await world.do(early, given_up) == [Refused("late")] * 2
        assert await world.ask(claim_worker(nonce="next", now_ms=NOW_MS + 20, attempt=4)) == WorkerClaimed(3, (), "b")

    async def test_reseed_does_not_know_how_it_was_asked_for(self, world: World) -> None:
        """A node of an earlier release does not say it: then a claim is judged by its token alone."""
        await world.do(reseed_worker(epoch=2, tokens=(token("w2"), token("w1")), attempt=3))
        assert await world.ask(claim_worker(now_ms=1, attempt=2)) == WorkerClaimed(3, (), "b")

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


async def sessions_of(world: World, holder: str, after: str = "", limit: int = 9) -> tuple[str, ...]:
    """Ask which sessions are counted for `holder`."""
    found = await world.ask(ListSessionsOf(holder, after, limit))
    assert isinstance(found, Sessions)
    return found.sessions


class TestListSessionsOf:
    """Which sessions a holder has."""

    async def test_in_order_and_in_pages(self, world: World) -> None:
        """The sessions of one holder come in order of their ids, `limit` at a time, behind `after`."""
        names = [f"s_{number}" for number in (3, 1, 2, 5)]
        await world.do(*(hold(name, "x", "p", holder_max=9) for name in names), hold("s_4", "y", "pp"))
        assert await sessions_of(world, "p") == ("s_1", "s_2", "s_3", "s_5")
        assert await sessions_of(world, "p", limit=3) == ("s_1", "s_2", "s_3")
        assert await sessions_of(world, "p", "s_3", 3) == ("s_5",)
        assert await sessions_of(world, "y") == await sessions_of(world, "pp") == ("s_4",)
        assert await sessions_of(world, "q") == await sessions_of(world, "p", limit=0) == ()

    async def test_a_forgotten_session_is_in_no_list(self, world: World) -> None:
        """After `Forget` no holder has the session."""
        await world.do(hold("s_1", "x", "p"), hold("s_2", "p"), Forget("s_1"))
        assert (await sessions_of(world, "x"), await sessions_of(world, "p")) == ((), ("s_2",))

    async def test_a_session_of_another_release_enters_when_it_is_kept_alive(self, world: World) -> None:
        """A session that is counted for no holder is counted for the one it is kept alive with; any other stays as it was."""
        await world.do(hold("s_1", "x", "p"), KeepAlive(("s_0", "s_1", "s_2", "s_3"), NOW_MS + 9, ("p", "q", "", "p")))
        assert await sessions_of(world, "p") == ("s_0", "s_1", "s_3")
        assert await sessions_of(world, "q") == ()
        assert await world.ask(hold("s_9", "p", holder_max=3)) == Refused("holder")
        await world.do(KeepAlive(("s_2",), NOW_MS + 9))
        assert await sessions_of(world, "p") == ("s_0", "s_1", "s_3")


async def pace(world: World, op: TakePace, at: str = "a") -> float:
    """Ask for pace and return how long to wait, in milliseconds."""
    found = await world.ask(op, at)
    assert isinstance(found, Paced)
    return found.wait_ms


class TestPace:
    """One budget of each kind of party for the whole cluster."""

    async def test_workers_and_clients_take_nothing_from_each_other(self, world: World) -> None:
        """A session that moves takes a place of both budgets, and so counts once in each."""
        assert await pace(world, TakePace(55, 100.0, NOW_MS, "worker"), at="a") == pytest.approx(500.0)
        assert await pace(world, TakePace(5, 100.0, NOW_MS, "client"), at="a") == pytest.approx(0.0)
        assert await pace(world, TakePace(10, 100.0, NOW_MS, "client"), at="b") == pytest.approx(100.0)
        assert await pace(world, TakePace(10, 100.0, NOW_MS, "worker"), at="b") == pytest.approx(600.0)

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


class TestKeySet:
    """The key set of an issuer, for nodes that start while it is away."""

    async def test_the_newest_is_kept(self, world: World) -> None:
        """Byte for byte; what was fetched earlier comes too late."""
        assert await world.ask(GetKeySet("x")) == KeptKeySet(b"")
        body = b'{"keys": []}\n \x00\xff'
        await world.do(KeepKeySet("x", body, NOW_MS), KeepKeySet("x", b"old", NOW_MS - 1))
        assert await world.ask(GetKeySet("x"), at="b") == KeptKeySet(body, NOW_MS)
        await world.do(KeepKeySet("x", b"", NOW_MS + 1))
        assert await world.ask(GetKeySet("x")) == KeptKeySet(b"", NOW_MS + 1)

    async def test_one_issuer_at_a_time(self, world: World) -> None:
        """Another issuer's takes its place, and is never given out as the first one's."""
        await world.do(KeepKeySet("x", b"1", NOW_MS), KeepKeySet("y", b"2", NOW_MS - 9))
        assert await world.do(GetKeySet("x"), GetKeySet("y")) == [KeptKeySet(b""), KeptKeySet(b"2", NOW_MS - 9)]


def revoke(principal: str, at: int = 0, *, until: int = 1000, now: int = 0, most: int = 100, node: str = "a") -> Revoke:
    """Times are relative to NOW_MS."""
    return Revoke(principal, NOW_MS + at, NOW_MS + until, NOW_MS + now, most, node)


def kept(principal: str, number: int, at: int = 0, until: int = 1000) -> Revocation:
    """As `revoke`."""
    return Revocation(principal, NOW_MS + number, NOW_MS + at, NOW_MS + until)


class TestRevocations:
    """Principals whose tokens are void."""

    async def test_list(self, world: World) -> None:
        """They are listed in the order in which they came, and a reader that has some is given the others."""
        assert await world.ask(ListRevoked(0, 10, NOW_MS)) == RevokedPage((), 0, 0)
        numbers = await world.do(revoke("bob"), revoke("acme\x1fann", now=5), revoke("ann", now=5))
        assert numbers == [Revoked(NOW_MS), Revoked(NOW_MS + 5), Revoked(NOW_MS + 6)]
        all_three = (kept("bob", 0), kept("acme\x1fann", 5), kept("ann", 6))
        assert await world.ask(ListRevoked(0, 10, NOW_MS)) == RevokedPage(all_three, NOW_MS + 6, NOW_MS + 6)
        assert await world.ask(ListRevoked(NOW_MS, 1, NOW_MS)) == RevokedPage(all_three[1:2], NOW_MS + 5, NOW_MS + 6)
        assert await world.ask(ListRevoked(NOW_MS + 6, 1, NOW_MS)) == RevokedPage((), NOW_MS + 6, NOW_MS + 6)

    async def test_wakes(self, world: World) -> None:
        """A revocation wakes the other live nodes; one that is known already wakes none."""
        await world.do(put_node("a"), put_node("b"))
        await world.woken()
        await world.do(revoke("ann"))
        assert await world.woken() == {"a": [], "b": [b"v"]}
        await world.do(revoke("ann"), revoke("ann", -5))
        assert await world.woken() == NO_WAKES

    async def test_again(self, world: World) -> None:
        """Repeated it is the same one; a later moment or end makes it a new one, and neither is ever taken back."""
        assert await world.do(revoke("ann"), revoke("ann", now=3), revoke("ann", -9, until=5, now=3)) == [
            Revoked(NOW_MS), Revoked(NOW_MS), Revoked(NOW_MS),
        ]  # fmt: skip
        assert await world.ask(revoke("ann", 7, until=50, now=7)) == Revoked(NOW_MS + 7)
        assert (await world.ask(ListRevoked(0, 9, NOW_MS))).revocations == (kept("ann", 7, 7, 1000),)
        assert await world.ask(revoke("ann", 1, until=2000, now=8)) == Revoked(NOW_MS + 8)
        assert (await world.ask(ListRevoked(0, 9, NOW_MS))).revocations == (kept("ann", 8, 7, 2000),)

    async def test_bound(self, world: World) -> None:
        """A store that is full refuses a further principal, and still takes a later moment of one it has."""
        await world.do(revoke("ann", most=2), revoke("bob", most=2))
        assert await world.ask(revoke("eve", most=2)) == Refused("full")
        assert await world.ask(revoke("ann", 5, now=5, most=2)) == Revoked(NOW_MS + 5)

    async def test_what_is_over(self, world: World) -> None:
        """A revocation whose time is over is not listed, makes room for another, and its number is never used again."""
        await world.do(revoke("ann", until=10), revoke("bob", until=10), revoke("eve", until=30))
        assert (await world.ask(ListRevoked(0, 9, NOW_MS + 9))).revocations[0].principal == "ann"
        page = await world.ask(ListRevoked(0, 2, NOW_MS + 10))
        assert page == RevokedPage((), NOW_MS + 1, NOW_MS + 2)
        assert await world.ask(revoke("new", until=40, now=10, most=2)) == Revoked(NOW_MS + 10)
        assert (await world.ask(ListRevoked(0, 9, NOW_MS))).revocations == (
            kept("eve", 2, until=30), kept("new", 10, until=40),
        )  # fmt: skip
        assert await world.ask(revoke("last", until=90, now=60)) == Revoked(NOW_MS + 60)

    async def test_a_clock_that_was_set_back(self, world: World) -> None:
        """Numbers go up, whatever time it is: a node would not look for a lower one."""
        assert await world.ask(revoke("ann", now=100_000)) == Revoked(NOW_MS + 100_000)
        assert await world.ask(revoke("bob", now=0)) == Revoked(NOW_MS + 100_001)


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


class TestGranted:
    """Labels that the core server gives a worker."""

    async def test_they_win_at_each_claim(self, world: World) -> None:
        """Over the worker's own, at its registration and whenever it resumes; the claim says them."""
        granted = {"lang": "de", "tier": "g/1"}
        registered, claimed = await world.do(register(granted=granted), claim_worker())
        for of in (registered, claimed):
            assert isinstance(of, WorkerClaimed)
            assert of.granted == granted
            workers = await world.ask(ListWorkers())
            assert [info.labels for info in workers.workers] == [granted]

    async def test_they_are_given_back(self, world: World) -> None:
        """With the worker, to a store that has lost it."""
        tokens = (token("w1"), b"")
        _, claimed = await world.do(reseed_worker(tokens=tokens, granted={"tier": "gold"}), claim_worker())
        assert isinstance(claimed, WorkerClaimed)
        assert claimed.granted == {"tier": "gold"}
        workers = await world.ask(ListWorkers())
        assert [info.labels for info in workers.workers] == [{"lang": "en", "tier": "gold"}]

    async def test_rooms_are_said_at_each_claim(self, world: World) -> None:
        """What the core server lets the worker do in rooms is kept with it, and given back to a store that has lost it."""
        other = reseed_worker("w_other", tokens=(token("w1"), b""), rooms=b'{"r:2":[]}', sessions=("s_given",))
        asked = (register(rooms=b'{"r:1":["join"]}'), claim_worker(), other, claim_worker(worker="w_other"))
        registered, claimed, _, back = await world.do(*asked)
        assert isinstance(registered, WorkerClaimed)
        assert isinstance(claimed, WorkerClaimed)
        assert isinstance(back, WorkerClaimed)
        assert (registered.rooms, claimed.rooms, back.rooms) == (
            b'{"r:1":["join"]}',
            b'{"r:1":["join"]}',
            b'{"r:2":[]}',
        )
        assert back.sessions == ("s_given",)
