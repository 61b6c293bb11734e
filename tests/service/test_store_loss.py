"""The store away, unsure, or empty: no party is answered before the store is, and nothing that lives is lost."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import trio

from signald.node import Node
from signald.store.base import Op, Result, Store
from signald.store.registry.ops import Forget, UpdateWorker
from signald.store.session.ops import ClaimWorkerSide
from signald.testing.cluster import Cluster, play
from signald.testing.wire_parties import Client, Worker


class Faulty:
    """The store as one node sees it, through a connection that a test may hold up or cut between two questions."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.held_until = trio.Event()
        self.held_until.set()
        self.before: Callable[[Sequence[Op]], None] = lambda _: None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def execute(self, ops: Sequence[Op]) -> list[Result]:
        """Carry out `ops`, when the test lets it."""
        await self.held_until.wait()
        self.before(ops)
        return await self._store.execute(ops)


def faulty(node: Node) -> Faulty:
    """Put a faulty connection between `node` and its store."""
    node.committer.store = made = Faulty(node.committer.store)
    return made


class Traffic:
    """Clients that talk to an echo worker all the time, on one node or on two."""

    def __init__(self, cluster: Cluster, clients_at: str, worker_at: str, count: int = 5) -> None:
        self.worker = Worker(cluster, lambda: worker_at)
        self.clients = [Client(cluster, lambda: clients_at) for _ in range(count)]
        self.said = 0
        self.pause = False

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        """Talk until cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.worker.run)
            for client in self.clients:
                await nursery.start(client.run)
            task_status.started()
            while True:
                if not self.pause:
                    for client in self.clients:
                        await client.say(client.talk, self.said)
                    self.said += 1
                await trio.sleep(0.2)

    async def settle(self, seconds: float = 10.0) -> None:
        """Say nothing more and wait for what is under way."""
        self.pause = True
        await trio.sleep(seconds)

    def check(self) -> None:
        """exactly-once: everything arrived once and in order, both ways, and no party still waits for an ack."""
        wanted = list(range(self.said))
        for client in self.clients:
            assert self.worker.talks[client.talk.session].heard == wanted
            assert client.talk.heard == wanted
            assert (client.talk.gaps, client.talk.unacked) == ([], {})
            assert not client.lost
        assert self.worker.workers == [self.worker.worker], "the same worker all the time"


@pytest.mark.parametrize("worker_at", ["n1", "n2"])
def test_the_store_is_away_for_half_a_minute(worker_at: str) -> None:
    """Connections stay up, realtime flows, messages wait unacked at their senders, health says so; then all arrives."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1")
        await cluster.start("n2")
        client, _, worker, _, session = await cluster.pair("n1", worker_at)
        began = trio.current_time()
        cluster.world.outage = "down"
        for seq in (1, 2, 3):
            await client.send({"type": "message", "seq": seq, "data": seq})
            await worker.send({"type": "message", "session": session, "seq": seq, "data": seq})
            await trio.sleep(8)
            if worker_at == "n1":
                await client.send({"type": "realtime", "data": seq})
                assert (await worker.expect("realtime"))["data"] == seq
        assert await client.ask({"type": "ping"}, "pong") == {"type": "pong"}
        assert [frame for peer in (client, worker) for frame in await peer.quiet(1)] == []
        assert node.committer.down_since == pytest.approx(began, abs=0.5)
        await trio.sleep(began + 30 - trio.current_time())
        cluster.world.outage = ""
        came = [await client.quiet(3), await worker.quiet(3)]
        for frames in came:
            assert [frame["data"] for frame in frames if frame["type"] == "message"] == [1, 2, 3]
            assert max(frame["seq"] for frame in frames if frame["type"] == "ack") == 3
            assert {frame["type"] for frame in frames} == {"message", "ack"}
        assert node.committer.down_since is None

    play(scene)


@pytest.mark.long
@pytest.mark.parametrize("outage", ["down", "answers lost"])
@pytest.mark.parametrize("worker_at", ["n1", "n2"])
def test_traffic_goes_on_after_an_outage(outage: str, worker_at: str) -> None:
    """exactly-once: also when the store did what it was asked and its answers were lost."""

    async def scene(cluster: Cluster) -> None:
        life: dict[str, object] = {"resume_ttl_s": 10.0}
        await cluster.start("n1", session=life)
        await cluster.start("n2", session=life)
        traffic = Traffic(cluster, "n1", worker_at)
        async with trio.open_nursery() as nursery:
            await nursery.start(traffic.run)
            for seconds in (0.3, 2, 30):
                await trio.sleep(2)
                cluster.world.outage = outage  # type: ignore[assignment]
                await trio.sleep(seconds)
                cluster.world.outage = ""
            await traffic.settle(20)
            traffic.check()
            nursery.cancel_scope.cancel(reason="seen enough")

    play(scene)


@pytest.mark.parametrize("worker_at", ["n1", "n2"])
def test_the_store_comes_back_empty(worker_at: str) -> None:
    """No live session is lost: the nodes give back what they know, and every message arrives once."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        await cluster.start("n2")
        traffic = Traffic(cluster, "n1", worker_at)
        async with trio.open_nursery() as nursery:
            await nursery.start(traffic.run)
            for away_s in (0.0, 1.0, 12.0):
                await trio.sleep(3)
                cluster.world.outage = "down" if away_s else ""
                await trio.sleep(away_s)
                cluster.world.lose_everything()
                cluster.world.outage = ""
                await trio.sleep(3)
            await traffic.settle()
            traffic.check()
            assert [node.hub.counters.reseeds for node in cluster.nodes.values()] == [3, 3]
            assert all(client.dials == ["n1"] for client in traffic.clients), "nobody had to reconnect"
            # And what was given back is good for everything that follows.
            for client in traffic.clients:
                client.cut()
            traffic.worker.cut()
            traffic.pause = False
            await trio.sleep(3)
            await traffic.settle()
            traffic.check()
            nursery.cancel_scope.cancel(reason="seen enough")

    play(scene)


def test_an_empty_store_learns_who_waits() -> None:
    """A session that waited for a worker still does, and one worker's room is known again."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        worker, _ = await cluster.worker("n1", capacity=2)
        clients = [await cluster.client("n1") for _ in range(2)]
        for _ in clients:
            session = (await worker.expect("session_assigned"))["session"]
            await worker.send({"type": "session_accept", "session": session})
        _, waits = await cluster.client("n1")
        cluster.world.lose_everything()
        await trio.sleep(5)
        assert await worker.quiet() == [], "it is full"
        await clients[0][0].send({"type": "bye"})
        with trio.fail_after(5):
            assert (await worker.expect("session_assigned"))["session"] == waits["session"]

    play(scene)


def test_a_place_in_the_line_that_is_lost_is_found_missing() -> None:
    """A waiting session is put in line again now and then: the answer to an earlier question may have removed its place."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("a")
        _, started = await cluster.client("a")
        await trio.sleep(1)
        await node.committer.call(Forget(started["session"]))
        worker, _ = await cluster.worker("a")
        assert (await worker.accept(within_s=20))["session"] == started["session"]

    play(scene)


@pytest.mark.parametrize("worker_at", ["n1", "n2"])
@pytest.mark.parametrize("who", ["client", "worker"])
def test_a_party_that_was_away_when_the_store_was_lost_finds_its_session(worker_at: str, who: str) -> None:
    """The node of its peer still knows the session; a token the store does not know yet is not refused for good."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        await cluster.start("n2")
        client, started, worker, accepted, session = await cluster.pair("n1", worker_at)
        (client if who == "client" else worker).cut()
        await trio.sleep(0.5)
        cluster.world.lose_everything()
        await trio.sleep(0.01)
        for _ in range(20):
            if who == "client":
                peer, answer = await cluster.restore("n1", started["recovery_token"])
            else:
                peer, answer = await cluster.resume(worker_at, accepted["recovery_token"], {"session": session})
            if answer["type"] != "error":
                break
            code = await peer.closed()
            if who == "worker" or worker_at == "n2":
                break  # only the node it was attached to knew its token, and it was attached to none
            assert code == 1013
            await trio.sleep(answer["retry_after_ms"] / 1000)
        if who == "client" and worker_at == "n1":
            assert (answer["type"], answer["peer"]["state"]) == ("session_restored", "paired")
        if who == "worker":
            # Its registration is lost with the store. Its session is not: another worker gets it.
            other, _ = await cluster.worker("n1", "worker-b")
            with trio.fail_after(30):
                assert (await other.expect("session_assigned"))["session"] == session

    play(scene)


@pytest.mark.parametrize("policy", ["reassign", "hold"])
def test_a_worker_that_came_back_while_the_store_was_lost_is_given_its_session_again(policy: str) -> None:
    """sticky: it was told that its session is lost, the client's node gives the session back, and no node holds the pair."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1", worker={"on_loss": policy, "resume_timeout_s": 5.0})
        client, _, worker, accepted, session = await cluster.pair("n1")
        worker.cut()
        await client.expect("peer")

        def lose(ops: Sequence[Op]) -> None:
            if any(isinstance(op, ClaimWorkerSide) for op in ops):
                store.before = lambda _: None
                cluster.world.lose_everything()

        store = faulty(node)
        store.before = lose
        back, answer = await cluster.resume("n1", accepted["recovery_token"], {"session": session, "received": 0})
        assert (answer["type"], answer["lost"]) == ("reconnection_ack", [session])
        assert (await back.accept(within_s=30))["session"] == session
        while (await client.expect("peer"))["state"] != "paired":
            pass
        await client.send({"type": "message", "seq": 1, "data": "still here"})
        assert (await back.expect("message"))["data"] == "still here"

    play(scene)


def test_a_session_that_is_not_given_back_yet_is_worth_waiting_for() -> None:
    """Its only node has not noticed the loss: another one tells the client to come again, and then it is there."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1")
        await cluster.start("n2")
        client, started, worker, accepted, session = await cluster.pair("n1")
        client.cut()
        await trio.sleep(0.5)
        held = faulty(node)
        held.held_until = trio.Event()
        cluster.world.lose_everything()
        await trio.sleep(2)
        again, answer = await cluster.restore("n2", started["recovery_token"])
        assert (answer["code"], await again.closed()) == ("store_unavailable", 1013)
        held.held_until.set()
        await trio.sleep(answer["retry_after_ms"] / 1000)
        again, answer = await cluster.restore("n2", started["recovery_token"])
        assert (answer["type"], answer["peer"]["state"]) == ("session_restored", "paired")
        await again.send({"type": "message", "seq": 1, "data": 1})
        assert (await worker.expect("message"))["session"] == session
        _, answer = await cluster.resume("n2", accepted["recovery_token"], {"session": session, "received": 1})
        assert answer["lost"] == []

    play(scene)


def test_a_store_lost_between_two_questions_gives_nobody_up() -> None:
    """It is the one we know, and then it does not know our workers: that is a loss, not a worker that was given up."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1")
        client, _, worker, _, _ = await cluster.pair("n1")
        link = faulty(node)
        lost: list[bool] = []

        def lose(ops: Sequence[Op]) -> None:
            if not lost and any(isinstance(op, UpdateWorker) for op in ops):
                lost.append(True)
                cluster.world.lose_everything()

        link.before = lose
        node.hub.inboxes.doubts.check()
        await trio.sleep(3)
        assert lost
        await client.send({"type": "message", "seq": 1, "data": "still here"})
        assert (await worker.expect("message"))["data"] == "still here"
        assert worker.aside == []

    play(scene)


def test_a_store_with_an_older_tail_is_noticed_and_said() -> None:
    """exactly-once, or said: `log_lost` names the seqs, and none of them is used again."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        client, started, worker, _, session = await cluster.pair("n1")
        for seq in (1, 2, 3):
            await client.send({"type": "message", "seq": seq, "data": seq})
        await client.quiet()
        await worker.quiet()
        client.cut()
        await trio.sleep(1)
        record = cluster.world.rows.session(session)
        assert record is not None
        record.up.last = 1
        again, restored = await cluster.restore("n1", started["recovery_token"], acked=3)
        assert restored["accepted"] == 3
        lost = await again.expect("error")
        assert (lost["code"], lost["lost_from"], lost["lost_to"], lost["fatal"]) == ("log_lost", 2, 3, False)
        await again.send({"type": "message", "seq": 4, "data": 4})
        assert (await worker.expect("message"))["seq"] == 4

    play(scene)


def test_a_loss_is_told_again_until_it_is_acked() -> None:
    """exactly-once, or said: a party that was cut off before it heard of a loss hears it when it resumes."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1")
        client, started, worker, _, session = await cluster.pair("n1")
        client.cut()
        await trio.sleep(0.2)
        for seq in (1, 2, 3):
            await worker.send({"type": "message", "session": session, "seq": seq, "data": seq})
        await worker.quiet()
        cluster.world.rows.trim_entries(session, "down", 1)
        worker.cut()
        await trio.sleep(0.2)
        assert node.hub.sessions == {}, "nobody remembers the message"
        token = started["recovery_token"]
        for _ in range(2):
            again, restored = await cluster.restore("n1", token)
            token = restored["recovery_token"]
            assert [(await again.expect("message"))["data"] for _ in range(2)] == [2, 3]
            lost = await again.expect("error")
            assert (lost["code"], lost["lost_from"], lost["lost_to"]) == ("log_lost", 1, 1)
            again.cut()
            await trio.sleep(1)
        again, restored = await cluster.restore("n1", token, received=1)
        assert restored["replaying"] == 2
        assert [frame["type"] for frame in await again.quiet() if frame["type"] != "peer"] == ["message", "message"]

    play(scene)


@pytest.mark.long
def test_a_long_outage_ends_no_session() -> None:
    """However long the store was away: a node that comes back first does not take the others for dead."""

    async def scene(cluster: Cluster) -> None:
        quick: dict[str, object] = {"resume_ttl_s": 5.0}
        await cluster.start("n1", session=quick, worker={"resume_timeout_s": 1.0})
        await cluster.start("n2", session=quick, worker={"resume_timeout_s": 1.0})
        traffic = Traffic(cluster, "n1", "n2")
        async with trio.open_nursery() as nursery:
            await nursery.start(traffic.run)
            for _ in range(3):
                await trio.sleep(3)
                cluster.world.outage = "down"
                await trio.sleep(60)
                cluster.world.outage = ""
            await traffic.settle(20)
            traffic.check()
            nursery.cancel_scope.cancel(reason="seen enough")

    play(scene)


def test_a_signal_right_after_an_aborted_drain_does_not_wait_for_the_store() -> None:
    """bounded: a drain that was called off while the store is away does not hold up the one that follows."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("a")
        await cluster.start("b")
        await cluster.client("a")
        node.shutdown.begin("rollout")
        await trio.sleep(0.2)
        cluster.world.outage = "down"
        assert node.shutdown.abort()
        await trio.sleep(0.01)
        assert len(node.hub.refusing) == 0
        node.shutdown.signal()
        await trio.sleep(0.01)
        assert len(node.hub.refusing) > 0

    play(scene)


def test_how_parties_have_claimed_is_given_back() -> None:
    """token-once: after a loss of the store a claim from before the last one is late, and takes no party from its newer connection."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        _, started, _, _, session = await cluster.pair("n1")
        client, _ = await cluster.restore("n1", started["recovery_token"], attempt=4)
        worker, accepted = await cluster.worker("n1", "worker-b")
        worker.cut()
        await trio.sleep(0.2)
        worker, _ = await cluster.resume("n1", accepted["recovery_token"], attempt=7)
        before = claims(cluster, session)
        assert before[0][1] == 4
        assert {attempt for _, attempt in before[1:]} == {0, 7}
        cluster.world.lose_everything()
        await trio.sleep(5)
        assert claims(cluster, session) == before
        assert "error" not in [frame["type"] for peer in (client, worker) for frame in await peer.quiet(1)]

    play(scene)


def claims(cluster: Cluster, session: str) -> list[tuple[int, int]]:
    """Return when and how often the last claims of the client of a session, and of each worker, were asked for, as the store knows it."""
    rows = cluster.world.rows
    record = rows.session(session)
    assert record is not None
    sides = [record.client, *[worker.side for worker in rows.workers()]]
    return [(side.claims[-1].asked_ms, side.claims[-1].attempt) for side in sides]
