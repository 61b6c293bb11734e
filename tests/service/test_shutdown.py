"""Handovers: the order in which parties move, what they do not notice, and what becomes of those that do not move."""

import pytest
import trio

from signald.node import Node
from signald.testing.cluster import Cluster, play
from tests.service.deploys import receipt, traffic


def test_a_worker_moves_first_and_its_client_follows() -> None:
    """worker-first: GOAWAY goes to the worker; only when it has claimed the session elsewhere does its client get one."""

    async def scene(cluster: Cluster) -> None:
        old = await cluster.start("old")
        client, started, worker, accepted, session = await cluster.pair("old")
        await client.send({"type": "message", "seq": 1, "data": "one"})
        assert (await worker.expect("message"))["seq"] == 1
        await cluster.start("new")
        old.shutdown.signal()
        assert (await worker.expect("goaway"))["deadline_ms"] > 0
        assert await client.quiet(3) == [{"type": "ack", "seq": 1}], "its worker has not moved yet"
        again, ack = await cluster.resume("new", accepted["recovery_token"], {"session": session, "received": 1})
        assert ack["sessions"] == [{"session": session, "accepted": 0, "replaying": 0}]
        assert ack["session_restored"] is True
        assert await worker.closed() == 4001
        goaway = await client.expect("goaway")
        assert set(goaway) == {"type", "reason", "not_before_ms", "deadline_ms", "ticket"}
        # Make before break: the old connection still serves.
        await client.send({"type": "message", "seq": 2, "data": "two"})
        assert (await again.expect("message"))["data"] == "two"
        moved, restored = await cluster.restore("new", started["recovery_token"], received=0)
        assert (restored["accepted"], restored["replaying"]) == (2, 0)
        assert restored["peer"]["state"] == "paired"
        assert await client.closed() == 4001
        await moved.send({"type": "message", "seq": 3, "data": "three"})
        assert (await again.expect("message"))["data"] == "three"
        await cluster.wait_exit("old")
        assert [frame for frame in client.aside if frame["type"] == "peer"] == [], (
            "it was never told that anything happened"
        )

    play(scene)


@pytest.mark.long
@pytest.mark.parametrize("cross", [False, True])
def test_nobody_notices_five_deploys(cross: bool) -> None:
    """exactly-once, sticky, one-hop, worker-first: under traffic, with both parties on one node and on two."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        if cross:
            await cluster.start("n2")
        async with traffic(cluster, workers=4, clients=20, cross=cross) as load:
            names = ["n1", "n2"] if cross else ["n1"]
            for turn in range(5):
                await trio.sleep(3)
                await load.deploy(names.pop(0), f"next{turn}")
                names.append(f"next{turn}")
                told = receipt(cluster, cluster.exits[-1])["totals"]
                assert told["goaway_before_pair_ready"] == 0
                assert set(told["outcomes"]) <= {"moved"}
            await load.settle()
            load.check()
            load.check_same_workers()
            for party in [*load.clients, *load.workers]:
                assert len(party.dials) == len(party.goaways) + 1, "one connection for each time it was asked to move"
                assert len(party.dials) == len(set(party.dials)), "no node twice"
                assert party.codes == [4001] * len(party.goaways)
                assert party.refusals == []

    play(scene)


def test_each_party_moves_once_in_a_rolling_restart() -> None:
    """one-hop: three nodes are replaced one after the other; no party is ever sent to one that is about to go."""

    async def scene(cluster: Cluster) -> None:
        for name in ("n1", "n2", "n3"):
            await cluster.start(name)
        async with traffic(cluster, workers=3, clients=12, cross=True) as load:
            load.clients_at = load.workers_at = "new"
            await cluster.start("new")
            for name in ("n1", "n2", "n3"):
                cluster.nodes[name].shutdown.signal()
            for name in ("n1", "n2", "n3"):
                await cluster.wait_exit(name)
            await load.settle()
            load.check()
            load.check_same_workers()
            assert [party.dials[1:] for party in [*load.clients, *load.workers]] == [["new"]] * 15

    play(scene)


def test_without_a_successor_sessions_are_suspended() -> None:
    """1012 for all parties within the budget; a node that starts later finds every session, and nothing is lost."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", drain={"successor_timeout_s": 5.0})
        async with traffic(cluster, workers=2, clients=6) as load:
            await trio.sleep(2)
            began = trio.current_time()
            cluster.nodes["n1"].shutdown.signal()
            await cluster.wait_exit("n1")
            assert 4.5 <= trio.current_time() - began <= 7
            await trio.sleep(20)
            for party in [*load.clients, *load.workers]:
                assert party.codes == [1012]
            load.clients_at = load.workers_at = "later"
            await cluster.start("later")
            await trio.sleep(5)
            await load.settle()
            load.check()
            load.check_same_workers()

    play(scene)


def test_where_the_next_start_takes_over_no_successor_is_waited_for() -> None:
    """The socket outlives the process and no other node is live: parties are suspended at once, and find the next process."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1", drain={"successor_timeout_s": 30.0, "timeout_s": 60.0, "stop_timeout_s": 75.0})
        node.shutdown.socket_outlives = True
        async with traffic(cluster, workers=2, clients=6) as load:
            await trio.sleep(2)
            began = trio.current_time()
            node.shutdown.signal()
            await cluster.wait_exit("n1")
            assert trio.current_time() - began < 3
            load.clients_at = load.workers_at = "n2"
            await cluster.start("n2")
            await trio.sleep(5)
            await load.settle()
            load.check()
            load.check_same_workers()
            assert {tuple(party.codes) for party in [*load.clients, *load.workers]} == {(1012,)}

    play(scene)


def test_a_node_that_starts_is_waited_for_also_where_the_socket_outlives() -> None:
    """Green is still starting when blue is told to stop: its parties are handed over, and no connection is closed by 1012."""

    async def scene(cluster: Cluster) -> None:
        old = await cluster.start("n1", drain={"successor_timeout_s": 8.0})
        old.shutdown.socket_outlives = True
        async with traffic(cluster, workers=2, clients=6) as load:
            new = await cluster.start("n2")
            await new.lease.set_state("starting")
            load.clients_at = load.workers_at = "n2"
            old.shutdown.signal()
            await trio.sleep(4)
            await new.lease.set_state("ready")
            await cluster.wait_exit("n1")
            await load.settle()
            load.check()
            assert {tuple(party.codes) for party in [*load.clients, *load.workers]} == {(4001,)}

    play(scene)


def test_a_successor_that_comes_late_is_waited_for() -> None:
    """The drain goes on as soon as there is a ready node."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1", drain={"successor_timeout_s": 8.0})
        async with traffic(cluster, workers=2, clients=6) as load:
            node.shutdown.signal()
            await trio.sleep(4)
            load.clients_at = load.workers_at = "n2"
            await cluster.start("n2")
            await cluster.wait_exit("n1")
            await load.settle()
            load.check()
            load.check_same_workers()
            assert {tuple(party.codes) for party in [*load.clients, *load.workers]} == {(4001,)}

    play(scene)


def test_a_session_that_waits_moves_as_it_is() -> None:
    """A client without a worker waits for no worker to go first."""

    async def scene(cluster: Cluster) -> None:
        old = await cluster.start("old")
        client, started = await cluster.client("old")
        await client.send({"type": "message", "seq": 1, "data": "anybody?"})
        await client.expect("ack")
        await cluster.start("new")
        old.shutdown.signal()
        await client.expect("goaway")
        _, restored = await cluster.restore("new", started["recovery_token"])
        assert restored["peer"]["state"] == "waiting"
        await cluster.wait_exit("old")
        worker, _ = await cluster.worker("new")
        session = (await worker.expect("session_assigned"))["session"]
        await worker.send({"type": "session_accept", "session": session})
        assert (await worker.expect("message"))["data"] == "anybody?"

    play(scene)


def state(node: Node, other: str) -> str:
    """What `node` takes another one to be."""
    return node.hub.cluster.nodes[other].state


def test_a_drain_can_be_called_off() -> None:
    """A party that has been told may stay or go; the node is ready again, admits, and can be drained later."""

    async def scene(cluster: Cluster) -> None:
        old = await cluster.start("old")
        new = await cluster.start("new")
        client, _, worker, _, _ = await cluster.pair("old")
        old.shutdown.begin("operator")
        assert (await worker.expect("goaway"))["reason"] == "operator"
        assert state(new, "old") == "draining"
        assert old.shutdown.abort()
        await trio.sleep(1)
        assert state(new, "old") == "ready"
        assert not old.shutdown.abort()
        _, started = await cluster.client("old")
        assert started["type"] == "session_started"
        await client.send({"type": "message", "seq": 1, "data": "on we go"})
        assert (await worker.expect("message"))["data"] == "on we go"
        await client.socket.aclose()
        old.shutdown.signal()
        await trio.sleep(1)
        assert not old.shutdown.abort(), "a signal is final"
        await worker.expect("goaway")
        await cluster.wait_exit("old")

    play(scene)


def test_a_signal_makes_an_operators_drain_final() -> None:
    """SIGTERM during an operator's drain restarts it with the time it grants; it cannot be called off, no party is told twice."""

    async def scene(cluster: Cluster) -> None:
        old = await cluster.start("old", drain={"worker_timeout_s": 5.0})
        await cluster.start("new")
        _, _, worker, _, _ = await cluster.pair("old")
        old.shutdown.begin("operator")
        await trio.sleep(2)
        old.shutdown.signal()
        began = trio.current_time()
        assert not old.shutdown.abort()
        assert await worker.closed() == 4404
        assert [frame["type"] for frame in worker.aside].count("goaway") == 1
        await cluster.wait_exit("old")
        assert trio.current_time() - began < 20
        phases = [name for name, _ in receipt(cluster, "old")["phases"]]
        assert phases == ["unready", "successor", "workers", "running", *phases[4:]]
        assert phases[4:] == ["unready", "successor", "workers", "clients", "terminate", "flush"]

    play(scene)


def test_a_drain_of_many_sessions_keeps_every_worker() -> None:
    """sticky: telling them all takes longer than one worker may take; no worker is given up for that."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", pace={"sessions_per_s": 10.0}, drain={"worker_timeout_s": 2.0})
        async with traffic(cluster, workers=15, clients=60, every_s=5) as load:
            seconds = await load.deploy("n1", "n2")
            assert seconds > 5
            await load.settle()
            load.check()
            load.check_same_workers()

    play(scene)
