"""Workers that go away: which workers get their sessions, with what history, and what the client is told."""

import copy
from collections.abc import Sequence

import pytest
import structlog
import trio

from signald.core import tokens
from signald.service.cluster.lost_workers import LostWorkers
from signald.store.base import Op, Result, Store
from signald.store.committer import Committer
from signald.store.registry.ops import (
    ClaimWorker,
    DetachWorker,
    ListWorkers,
    RegisterWorker,
    WorkerClaimed,
    Workers,
)
from signald.store.session.ops import ClaimWorkerSide
from signald.testing.cluster import Cluster, play


class LateToAssign:
    """A node's store that does its work at once, and is late to say so when a worker is given a session."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.assigned = trio.Event()

    async def execute(self, ops: Sequence[Op]) -> list[Result]:
        """See `Store.execute`."""
        results = await self._store.execute(ops)
        if any(isinstance(op, ClaimWorkerSide) for op in ops):
            self.assigned.set()
            await trio.sleep(1.0)
        return results


class SweptInBetween:
    """A node's store: a sweep comes between the grant of a worker's claim and its answer, and a detach takes a second."""

    def __init__(self, store: Store, sweeping: LostWorkers) -> None:
        self._store = store
        self._sweeping = sweeping

    async def execute(self, ops: Sequence[Op]) -> list[Result]:
        """See `Store.execute`."""
        if any(isinstance(op, DetachWorker) for op in ops):
            await trio.sleep(1.0)
        results = await self._store.execute(ops)
        if any(isinstance(op, RegisterWorker | ClaimWorker) for op in ops):
            await self._sweeping.sweep()
        return results


@pytest.mark.parametrize("apart", [False, True])
def test_a_worker_that_never_comes_back_is_replaced(apart: bool) -> None:
    """sticky, exactly-once: another worker gets the history, what no worker has acked, and nothing twice or lost."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", worker={"resume_timeout_s": 5.0})
        await cluster.start("n2", worker={"resume_timeout_s": 5.0})
        client, _, worker, _, session = await cluster.pair("n1", worker_at="n2" if apart else "n1")
        for seq in (1, 2, 3):
            await client.send({"type": "message", "seq": seq, "data": f"ask {seq}"})
            await worker.expect("message")
        await worker.send({"type": "message", "session": session, "seq": 1, "data": "answer 1"})
        await worker.send({"type": "ack", "session": session, "seq": 1})
        await client.quiet()
        began = trio.current_time()
        worker.cut()
        assert (await client.expect("peer"))["state"] == "away"
        await client.send({"type": "message", "seq": 4, "data": "ask 4"})
        assert (await client.expect("peer"))["state"] == "waiting"
        assert 5 <= trio.current_time() - began <= 8
        other, accepted = await cluster.worker("n1", "worker-b")
        assigned = await other.accept()
        assert assigned["next_seq"] == 2, "the new worker goes on where the old one ended"
        history = [(entry["from"], entry["data"]) for entry in assigned["chat_history"]]
        assert history == [
            ("client", "ask 1"), ("client", "ask 2"), ("client", "ask 3"), ("worker", "answer 1"), ("client", "ask 4"),
        ]  # fmt: skip
        assert await client.expect("peer") == {"type": "peer", "state": "replaced", "id": accepted["worker"]}
        assert [(await other.expect("message"))["seq"] for _ in range(3)] == [2, 3, 4]
        await other.send({"type": "message", "session": session, "seq": 2, "data": "answer 2"})
        assert (await client.expect("message"))["seq"] == 2

    play(scene)


def test_a_worker_that_comes_back_too_late_begins_afresh() -> None:
    """Its token is worth nothing any more (4404); its sessions are others'."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", worker={"resume_timeout_s": 5.0})
        _, _, worker, accepted, session = await cluster.pair("n1")
        worker.cut()
        await trio.sleep(10)
        late, answer = await cluster.resume("n1", accepted["recovery_token"], {"session": session})
        assert (answer["code"], await late.closed()) == ("nothing_to_resume", 4404)
        assert cluster.world.rows.workers() == []

    play(scene)


def test_a_held_session_waits_for_its_own_worker() -> None:
    """`worker.on_loss` = hold: no other worker gets it, and the same worker finds it again."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", worker={"resume_timeout_s": 2.0, "on_loss": "hold"})
        client, _, worker, accepted, session = await cluster.pair("n1")
        other, _ = await cluster.worker("n1", "worker-b")
        worker.cut()
        await client.send({"type": "message", "seq": 1, "data": "hold on"})
        assert await client.states() == ["away"]
        assert await other.quiet(20) == []
        again, answer = await cluster.resume("n1", accepted["recovery_token"], {"session": session})
        assert answer["sessions"] == [{"session": session, "accepted": 0, "replaying": 1}]
        assert (await again.expect("message"))["data"] == "hold on"
        assert await client.states() == ["paired"]

    play(scene)


def test_a_held_worker_without_sessions_is_forgotten() -> None:
    """bounded-memory: a worker that never comes back leaves nothing behind once its last session is gone."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", worker={"resume_timeout_s": 2.0, "on_loss": "hold"})
        client, _, worker, _, _ = await cluster.pair("n1")
        worker.cut()
        await trio.sleep(10)
        assert len(cluster.world.rows.workers()) == 1
        await client.send({"type": "bye"})
        assert await client.closed() == 1000
        await trio.sleep(10)
        assert cluster.world.rows.workers() == []

    play(scene)


@pytest.mark.parametrize("apart", [False, True])
def test_with_the_policy_end_a_lost_worker_ends_its_sessions(apart: bool) -> None:
    """`worker.on_loss` = end: the client is told, and nothing of the session is left."""

    async def scene(cluster: Cluster) -> None:
        policy: dict[str, object] = {"resume_timeout_s": 2.0, "on_loss": "end"}
        await cluster.start("n1", worker=policy)
        await cluster.start("n2", worker=policy)
        client, _, worker, _, session = await cluster.pair("n1", worker_at="n2" if apart else "n1")
        worker.cut()
        assert (await client.expect("session_ended"))["reason"]
        assert await client.closed() == 4410
        await trio.sleep(1)
        assert cluster.world.rows.is_empty_of(session)
        assert cluster.world.rows.workers() == []

    play(scene)


@pytest.mark.parametrize("policy", ["reassign", "hold", "end"])
@pytest.mark.parametrize("reason", ["bye", "restarting"])
def test_a_worker_that_says_bye_gives_its_sessions_to_others(policy: str, reason: str) -> None:
    """It leaves for good: under `hold` there is no worker left to hold for. Its connection is closed with 1000."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", worker={"on_loss": policy})
        client, _, worker, _, session = await cluster.pair("n1")
        other, _ = await cluster.worker("n1", "worker-b")
        await worker.send({"type": "bye", "reason": reason})
        assert await worker.closed() == 1000
        if policy == "end":
            assert await client.closed() == 4410
            assert cluster.world.rows.is_empty_of(session)
        else:
            assert (await other.accept())["session"] == session
            assert (await client.states())[-1] == "replaced"
        assert len(cluster.world.rows.workers()) == 1

    play(scene)


def test_a_worker_that_says_bye_while_the_store_is_away_takes_nobody_along() -> None:
    """One party's bad moment is no other's: the node lives on, and the sessions find another worker afterwards."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", worker={"resume_timeout_s": 3.0})
        client, _, worker, _, session = await cluster.pair("n1")
        other, _ = await cluster.worker("n1", "worker-b")
        cluster.world.outage = "down"
        await worker.send({"type": "bye"})
        await trio.sleep(10)
        assert await client.ask({"type": "ping"}, "pong") == {"type": "pong"}
        cluster.world.outage = ""
        assert await worker.closed() == 1000
        assert (await other.accept())["session"] == session
        assert (await client.states())[-1] == "replaced"

    play(scene)


def test_a_worker_that_is_being_resumed_is_not_lost() -> None:
    """sticky: the registry names the node while the worker's sessions are still being claimed, however slow the store is."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1", worker={"resume_timeout_s": 3.0})
        peer, accepted = await cluster.worker("n1")
        parsed = tokens.parse(accepted["recovery_token"])
        assert parsed is not None
        worker, presented = parsed
        peer.cut()
        await trio.sleep(0.5)

        async def registered() -> list[str]:
            listed = await node.committer.call(ListWorkers())
            assert isinstance(listed, Workers)
            return [info.id for info in listed.workers]

        with node.hub.attachments.resuming(worker):
            now = node.hub.store.now_ms()
            claim = ClaimWorker(worker, "n1", "nonce", "", presented, bytes(32), {}, 10, now)
            assert isinstance(await node.committer.call(claim), WorkerClaimed)
            await trio.sleep(30)
            assert await registered() == [worker]
        await trio.sleep(30)
        assert await registered() == []

    play(scene)


@pytest.mark.parametrize("resumes", [False, True])
def test_a_worker_that_was_here_between_two_sweeps_is_not_lost_since_the_first(resumes: bool) -> None:
    """sticky: a slow store keeps two sweeps apart, and each of them finds the worker named for a node that does not have it."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1", worker={"resume_timeout_s": 2.0})
        async with trio.open_nursery() as nursery:
            beside = copy.copy(node.hub.context)
            beside.committer = Committer(node.committer.store)  # the node's own waits for the answer
            nursery.start_soon(beside.committer.run)
            sweeping = LostWorkers(beside, node.hub.attachments, node.hub.giving_up, node.lease.sight)
            slow = SweptInBetween(node.committer.store, sweeping)
            if not resumes:
                node.committer.store = slow  # type: ignore[assignment]
            worker, accepted = await cluster.worker("n1")
            if resumes:
                worker.cut()
                await trio.sleep(0.5)
                node.committer.store = slow  # type: ignore[assignment]
                worker, accepted = await cluster.resume("n1", accepted["recovery_token"])
            await trio.sleep(2.5)
            worker.cut()
            await trio.sleep(0.5)
            await sweeping.sweep()
            _, answer = await cluster.resume("n1", accepted["recovery_token"])
            assert answer["type"] == "reconnection_ack"
            nursery.cancel_scope.cancel()

    play(scene)


def test_a_worker_that_goes_while_it_is_given_a_session_is_not_left_attached() -> None:
    """single-owner: the session does not count as served by a node that has no worker to serve it."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1", worker={"resume_timeout_s": 20.0})
        worker, accepted = await cluster.worker("n1")
        store = LateToAssign(node.committer.store)
        node.committer.store = store  # type: ignore[assignment]
        _, started = await cluster.client("n1")
        await store.assigned.wait()
        worker.cut()
        await trio.sleep(5)
        record = cluster.world.rows.session(started["session"])
        assert record is not None
        assert (record.worker, record.worker_side.node) == (accepted["worker"], "")

    play(scene)


def test_a_worker_that_leaves_leaves_nothing_behind() -> None:
    """no-ghost: its node lets go of sessions whose client is at another node."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1")
        await cluster.start("n2")
        _, _, worker, _, session = await cluster.pair("n2", worker_at="n1")
        assert session in node.hub.sessions
        await worker.send({"type": "bye", "reason": "redeployed"})
        await worker.closed()
        await trio.sleep(3)
        assert not node.hub.sessions

    play(scene)


def test_only_a_worker_that_is_lost_is_a_warning() -> None:
    """A worker that says `bye` has done as it should: information, with the number of its sessions."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", worker={"resume_timeout_s": 5.0})
        _, _, worker, _, session = await cluster.pair("n1")
        with structlog.testing.capture_logs() as logged:
            await worker.send({"type": "bye", "reason": "deploy"})
            assert await worker.closed() == 1000
            other, _ = await cluster.worker("n1", "worker-b")
            assert (await other.expect("session_assigned"))["session"] == session
            await other.send({"type": "session_accept", "session": session})
            await other.quiet()
            other.cut()
            await trio.sleep(10)
        ends = [line for line in logged if line["event"] in ("worker_left", "worker_given_up")]
        assert [(line["event"], line["log_level"], line["sessions"], line["reason"]) for line in ends] == [
            ("worker_left", "info", 1, "deploy"),
            ("worker_given_up", "warning", 1, "did not come back"),
        ]

    play(scene)
