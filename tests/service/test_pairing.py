"""Clients meet workers: waiting, labels, load, refusals, and workers that are lost."""

from collections.abc import AsyncIterator, Sequence
from itertools import pairwise

import pytest
import trio

from signald.store.base import Op, Result, Store, Wake
from signald.store.registry.ops import RegisterWorker
from signald.store.session.ops import ClaimWorkerSide
from signald.testing.cluster import Cluster, play
from signald.testing.wire_parties import Client, Worker


def test_without_a_worker_a_client_waits_and_is_told_so() -> None:
    """`waiting` in the answer; `paired`, with the worker's id, when one has come and accepted."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        client, started = await cluster.client("n1", meta={"app": 7})
        assert started["peer"] == {"state": "waiting", "id": None}
        assert await client.states() == []
        worker, accepted = await cluster.worker("n1")
        assigned = await worker.accept()
        assert assigned == {
            "type": "session_assigned",
            "session": started["session"],
            "client": {"meta": {"app": 7}},
            "next_seq": 1,
            "epoch": 1,
            "attempt": 1,
        }
        assert await client.expect("peer") == {"type": "peer", "state": "paired", "id": accepted["worker"]}

    play(scene)


def test_messages_wait_with_their_client() -> None:
    """What was said before there was a worker is acked at once, and delivered after the acceptance, not before."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        client, _ = await cluster.client("n1")
        for seq in (1, 2, 3):
            await client.send({"type": "message", "seq": seq, "data": seq})
        acks = [frame["seq"] for frame in await client.quiet() if frame["type"] == "ack"]
        assert max(acks) == 3
        worker, _ = await cluster.worker("n1")
        assigned = await worker.expect("session_assigned")
        assert await worker.quiet() == []
        await worker.send({"type": "session_accept", "session": assigned["session"]})
        assert [(await worker.expect("message"))["data"] for _ in range(3)] == [1, 2, 3]

    play(scene)


def test_those_who_wait_are_served_in_their_order() -> None:
    """First come, first served, whichever node they came to."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        await cluster.start("n2")
        waiting = []
        for turn in range(6):
            _, started = await cluster.client(f"n{turn % 2 + 1}")
            waiting.append(started["session"])
            await trio.sleep(0.01)
        worker, _ = await cluster.worker("n2", capacity=1)
        for session in waiting:
            assert (await worker.accept())["session"] == session
            await worker.send({"type": "bye", "session": session})

    play(scene)


def test_the_least_loaded_worker_is_asked() -> None:
    """By the share of its capacity in use, across nodes."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        await cluster.start("n2")
        async with trio.open_nursery() as nursery:
            big = Worker(cluster, lambda: "n1", instance_id="big", capacity=8)
            small = Worker(cluster, lambda: "n2", instance_id="small", capacity=4)
            await nursery.start(big.run)
            await nursery.start(small.run)
            for _ in range(9):
                await cluster.client("n1")
                await trio.sleep(0.1)
            assert (len(big.talks), len(small.talks)) == (6, 3)
            nursery.cancel_scope.cancel(reason="seen enough")

    play(scene)


def test_labels_decide_who_may_serve() -> None:
    """A worker must have every label that is wanted; a client that wants an absent label holds no other up."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        english, _ = await cluster.worker("n1", "en", labels={"lang": "en", "tier": "1"})
        german, _ = await cluster.worker("n1", "de", labels={"lang": "de"})
        _, french = await cluster.client("n1", want={"lang": "fr"})
        _, second = await cluster.client("n1", want={"lang": "de"})
        _, third = await cluster.client("n1", want={"lang": "en", "tier": "1"})
        assert (await german.accept())["session"] == second["session"]
        assert (await english.accept())["session"] == third["session"]
        late, _ = await cluster.worker("n1", "fr", labels={"lang": "fr"})
        assert (await late.accept())["session"] == french["session"]

    play(scene)


class SlowToAnswer:
    """A store that registers workers at once, and says so two seconds later."""

    def __init__(self, store: Store) -> None:
        self._store = store

    lives = 1

    def now_ms(self) -> int:
        """See `Store.now_ms`."""
        return self._store.now_ms()

    async def execute(self, ops: Sequence[Op]) -> list[Result]:
        """See `Store.execute`."""
        results = await self._store.execute(ops)
        if any(isinstance(op, RegisterWorker) for op in ops):
            await trio.sleep(2)
        return results

    def wakes(self) -> AsyncIterator[list[Wake]]:
        """See `Store.wakes`."""
        return self._store.wakes()

    async def check(self) -> None:
        """See `Store.check`."""
        await self._store.check()


def test_a_worker_is_asked_though_nobody_woke_its_node() -> None:
    """Wake-ups may be lost: a session that another node has paired with a worker here does not wait for ever."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("a")
        await cluster.start("b")
        worker, _ = await cluster.worker("b")
        await trio.sleep(1)
        for inbox in cluster.world._inboxes["b"]:
            inbox.put = lambda wake: None  # type: ignore[method-assign]
        _, started = await cluster.client("a")
        assert (await worker.accept(within_s=7))["session"] == started["session"]

    play(scene)


def test_a_worker_is_asked_that_was_paired_before_it_was_attached() -> None:
    """The store may give a worker a session, and wake its node, before the answer to its registration has arrived there."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("a")
        await cluster.start("b")
        _, started = await cluster.client("a")
        store = cluster.nodes["b"].committer.store
        cluster.nodes["b"].committer.store = SlowToAnswer(store)
        worker, _ = await cluster.worker("b")
        assert (await worker.accept(within_s=1))["session"] == started["session"]

    play(scene)


def test_capacity_is_kept_and_can_be_changed() -> None:
    """A full worker is asked no more; `app_state` with more room, or a session that ends, lets the next one in."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        worker, _ = await cluster.worker("n1", capacity=1)
        clients = []
        for _ in range(3):
            clients.append(await cluster.client("n1"))
            await trio.sleep(0.01)  # the waiting line is one of milliseconds
        await worker.accept()
        assert await worker.quiet(3) == []
        await worker.send({"type": "app_state", "capacity": 2, "load": 0.5})
        await worker.accept()
        assert await worker.quiet(3) == []
        await clients[0][0].send({"type": "bye"})
        assert (await worker.accept())["session"] == clients[2][1]["session"]

    play(scene)


def test_a_node_lets_a_worker_have_only_so_many_sessions() -> None:
    """bounded-memory: `limits.sessions_per_worker_max`, whatever the worker announces."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", limits={"sessions_per_worker_max": 2})
        worker, _ = await cluster.worker("n1", capacity=100)
        for _ in range(4):
            await cluster.client("n1")
        await worker.accept()
        await worker.accept()
        assert await worker.quiet(3) == []
        await worker.send({"type": "app_state", "capacity": 50})
        assert await worker.quiet(3) == []

    play(scene)


def test_a_leaving_worker_gets_no_more_sessions() -> None:
    """`leaving` keeps what it has and asks for nothing new."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        client, _, worker, _, session = await cluster.pair("n1")
        await worker.send({"type": "app_state", "capacity": 10, "leaving": True})
        await trio.sleep(0.1)
        await cluster.client("n1")
        assert await worker.quiet(3) == []
        await client.send({"type": "message", "seq": 1, "data": "still mine"})
        assert (await worker.expect("message"))["session"] == session

    play(scene)


def test_a_refused_session_goes_to_another_worker() -> None:
    """The refusing one is not asked again while another matches, and no client notices."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        await cluster.start("n2")
        shy, _ = await cluster.worker("n1", "shy")
        client, started = await cluster.client("n2")
        refused = await shy.expect("session_assigned")
        bold, accepted = await cluster.worker("n2", "bold")
        await shy.send({"type": "session_refuse", "session": refused["session"], "reason": "busy"})
        assert (await bold.accept())["session"] == started["session"]
        assert (await client.expect("peer")) == {"type": "peer", "state": "paired", "id": accepted["worker"]}
        assert await shy.quiet(3) == []

    play(scene)


def test_what_a_worker_has_finished_before_it_gives_a_session_back_is_not_done_again() -> None:
    """An ack counts, however close behind it the session is given back."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        client, _, first, _, session = await cluster.pair("n1")
        for seq in (1, 2):
            await client.send({"type": "message", "seq": seq, "data": seq})
            await first.expect("message")
        second, _ = await cluster.worker("n1", "second")
        await first.send({"type": "ack", "session": session, "seq": 1})
        await first.send({"type": "session_refuse", "session": session, "reason": "failed"})
        assert (await second.accept())["session"] == session
        assert (await second.expect("message"))["seq"] == 2

    play(scene)


def test_a_worker_that_refuses_everything_is_not_asked_in_a_loop() -> None:
    """Between two questions about one session lies a pause, also while it is asked to take others."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        worker, _ = await cluster.worker("n1")
        _, first = await cluster.client("n1")
        asked: dict[str, list[float]] = {}
        with trio.move_on_after(10):
            while True:
                session = (await worker.expect("session_assigned"))["session"]
                asked.setdefault(session, []).append(trio.current_time())
                await worker.send({"type": "session_refuse", "session": session, "reason": "no"})
                if len(asked) < 4:
                    await cluster.client("n1")
        times = asked[first["session"]]
        assert len(times) >= 3
        assert min(after - before for before, after in pairwise(times)) >= 0.5

    play(scene)


def test_a_worker_that_does_not_answer_loses_the_session() -> None:
    """After `timeouts.assign_s` another one is asked; the late answer is told that it is late."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", timeouts={"assign_s": 2.0})
        silent, _ = await cluster.worker("n1", "silent")
        client, started = await cluster.client("n1")
        await silent.expect("session_assigned")
        other, _ = await cluster.worker("n1", "other")
        assert (await other.accept(within_s=6))["session"] == started["session"]
        assert (await client.expect("peer"))["state"] == "paired"
        ended = await silent.expect("session_ended")
        assert ended["session"] == started["session"]
        await silent.send({"type": "session_accept", "session": started["session"]})
        assert (await silent.expect("error"))["code"] == "unknown_session"

    play(scene)


@pytest.mark.parametrize("answer", ["session_accept", "session_refuse"])
def test_a_late_answer_is_not_taken_for_the_answer_to_a_later_question(answer: str) -> None:
    """exactly-once: what the handler of the first assignment has said behind its answer is not the second one's."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", timeouts={"assign_s": 2.0})
        worker, _ = await cluster.worker("n1")
        client, _ = await cluster.client("n1")
        first = await worker.expect("session_assigned")
        session = first["session"]
        await worker.expect("session_ended")
        second = await worker.expect("session_assigned")
        await worker.send({"type": answer, "session": session, "epoch": first["epoch"]})
        await worker.send({"type": "message", "session": session, "seq": 1, "data": "of the first"})
        assert (await worker.expect("error"))["code"] == "not_accepted"
        await worker.send({"type": "session_accept", "session": session, "epoch": second["epoch"]})
        await worker.send({"type": "message", "session": session, "seq": 1, "data": "of the second"})
        assert (await client.expect("message"))["data"] == "of the second"

    play(scene)


def test_a_worker_that_answers_in_time_on_a_new_connection_keeps_the_session() -> None:
    """It was asked, moved, and accepted there."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", timeouts={"assign_s": 3.0})
        await cluster.start("n2", timeouts={"assign_s": 3.0})
        worker, accepted = await cluster.worker("n1")
        client, started = await cluster.client("n1")
        await worker.expect("session_assigned")
        moved, answer = await cluster.resume("n2", accepted["recovery_token"], {"session": started["session"]})
        assert [one["session"] for one in answer["sessions"]] == [started["session"]]
        await moved.send({"type": "session_accept", "session": started["session"]})
        assert (await client.expect("peer"))["state"] == "paired"
        await client.send({"type": "message", "seq": 1, "data": 1})
        assert (await moved.expect("message"))["data"] == 1
        assert await client.quiet(5) == [{"type": "ack", "seq": 1}]

    play(scene)


def test_a_node_that_is_late_to_give_a_session_back_does_not_take_it_from_the_worker() -> None:
    """sticky: the node that has asked waits for an answer while the worker has moved and accepted elsewhere, unheard of there."""

    async def scene(cluster: Cluster) -> None:
        late = await cluster.start("n1", timeouts={"assign_s": 2.0})
        await cluster.start("n2")
        worker, accepted = await cluster.worker("n1")
        client, started = await cluster.client("n2")
        session = (await worker.expect("session_assigned"))["session"]
        late.wakes.take = lambda wake: None  # type: ignore[method-assign]
        late.hub.relay.look = lambda session: None  # type: ignore[method-assign]
        moved, _ = await cluster.resume("n2", accepted["recovery_token"], {"session": started["session"]})
        await moved.send({"type": "session_accept", "session": session})
        assert (await client.expect("peer"))["state"] == "paired"
        assert (await worker.expect("session_ended"))["reason"] == "not accepted in time"
        assert await moved.quiet(4) == []
        await client.send({"type": "message", "seq": 1, "data": 1})
        assert (await moved.expect("message"))["data"] == 1
        assert await client.quiet() == [{"type": "ack", "seq": 1}]

    play(scene)


def test_a_refusal_the_store_did_not_hear_of_is_not_forgotten() -> None:
    """The store is away while a worker refuses: afterwards the session finds another worker."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        shy, _ = await cluster.worker("n1", "shy", capacity=1)
        client, started = await cluster.client("n1")
        session = (await shy.expect("session_assigned"))["session"]
        bold, _ = await cluster.worker("n1", "bold")
        cluster.world.outage = "down"
        await shy.send({"type": "session_refuse", "session": session, "reason": "busy"})
        await trio.sleep(20)
        cluster.world.outage = ""
        assert (await bold.accept(within_s=5))["session"] == started["session"]
        assert (await client.expect("peer"))["state"] == "paired"

    play(scene)


def test_nodes_that_pair_at_the_same_time_do_not_pair_twice() -> None:
    """single-owner: three nodes' matchmakers, one place for each session."""

    async def scene(cluster: Cluster) -> None:
        names = ["n1", "n2", "n3"]
        for name in names:
            await cluster.start(name)
        async with trio.open_nursery() as nursery:
            workers = [
                Worker(cluster, lambda name=name: name, instance_id=name, capacity=20)  # type: ignore[misc]
                for name in names
            ]
            for worker in workers:
                await nursery.start(worker.run)
            clients = [
                Client(cluster, lambda name=names[turn % 3]: name)  # type: ignore[misc]
                for turn in range(45)
            ]
            for client in clients:
                nursery.start_soon(client.run)
            await trio.sleep(5)
            assert [client.told for client in clients] == [["(waiting)", "paired"]] * 45
            assert [way.assigned for worker in workers for way in worker.talks.values()] == [1] * 45
            assert [len(worker.talks) for worker in workers] == [15, 15, 15]
            nursery.cancel_scope.cancel(reason="seen enough")

    play(scene)


@pytest.mark.parametrize("first", ["session_accept", "message"])
def test_a_worker_learns_from_its_first_write_that_its_session_is_anothers(first: str) -> None:
    """sticky: no wake-up has told its node; the worker is told that the session is over for it, not left with it."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1")
        worker, _ = await cluster.worker("n1")
        _, started = await cluster.client("n1")
        session = started["session"]
        if first == "message":
            await worker.accept()
        await trio.sleep(0.5)
        node.wakes.take = lambda wake: None  # type: ignore[method-assign]
        other = ClaimWorkerSide(session, "n2", "nonce", "w_another", True, 0, 0, node.hub.store.now_ms())
        await node.hub.committer.call(other)
        await worker.send({"type": first, "session": session, "seq": 1, "data": 1})
        with trio.fail_after(0.5):
            assert (await worker.expect("session_ended"))["session"] == session

    play(scene)
