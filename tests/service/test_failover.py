"""Nodes that are killed: no goodbye, no last write. Parties resume elsewhere by token, and nothing acked is lost."""

import pytest
import trio

from signald.testing.cluster import Cluster, play
from tests.service.deploys import traffic


@pytest.mark.long
@pytest.mark.parametrize("victim", ["n1", "n2"])
@pytest.mark.parametrize("cross", [False, True])
def test_a_killed_node_takes_nothing_along(victim: str, cross: bool) -> None:
    """exactly-once, sticky: under traffic, with the other node ready; each party comes back once, to the same peer."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        await cluster.start("n2")
        async with traffic(cluster, workers=3, clients=12, cross=cross, every_s=0.1) as load:
            await trio.sleep(3)
            load.clients_at = load.workers_at = "n2" if victim == "n1" else "n1"
            cluster.kill(victim)
            await trio.sleep(10)
            await load.settle()
            load.check()
            load.check_same_workers()
            for party in [*load.clients, *load.workers]:
                assert len(party.dials) <= 2
                assert party.codes in ([], [1006])

    play(scene)


@pytest.mark.long
@pytest.mark.parametrize("after_s", [0.0, 0.02, 0.06, 0.3, 1.2])
@pytest.mark.parametrize("victim", ["n1", "n2"])
def test_a_kill_in_the_middle_of_a_handover_loses_nothing(victim: str, after_s: float) -> None:
    """exactly-once: the draining node, or the one it hands over to, dies at any moment of the drain."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", pace={"sessions_per_s": 20.0})
        async with traffic(cluster, workers=4, clients=16, every_s=0.2) as load:
            await cluster.start("n2")
            load.clients_at = load.workers_at = "n2"
            cluster.nodes["n1"].shutdown.signal()
            await trio.sleep(after_s)
            cluster.kill(victim)
            if victim == "n2":
                load.clients_at = load.workers_at = "n3"
                await cluster.start("n3")
            await trio.sleep(30)
            await load.settle(10)
            load.check()
            for client in load.clients:
                assert "replaced" not in client.told or victim == "n2"

    play(scene)


def test_all_nodes_are_killed() -> None:
    """Power comes back: a new node finds every session in the store, and their workers are not given up meanwhile."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        await cluster.start("n2")
        async with traffic(cluster, workers=3, clients=9, cross=True) as load:
            await trio.sleep(3)
            load.clients_at = load.workers_at = "n3"
            cluster.kill("n1")
            cluster.kill("n2")
            await trio.sleep(20)
            await cluster.start("n3")
            await trio.sleep(10)
            await load.settle()
            load.check()
            load.check_same_workers()

    play(scene)


def test_workers_that_died_with_their_node_are_given_up() -> None:
    """A node and a worker on one machine: after the lease and the worker's time its sessions go to another."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", worker={"resume_timeout_s": 5.0})
        await cluster.start("n2", worker={"resume_timeout_s": 5.0})
        client, _, _, _, session = await cluster.pair("n1", "n2")
        await client.send({"type": "message", "seq": 1, "data": "anybody?"})
        await client.quiet()
        cluster.kill("n2")
        began = trio.current_time()
        other, _ = await cluster.worker("n1", "worker-b")
        with trio.fail_after(30):
            assert (await other.expect("session_assigned"))["session"] == session
        assert trio.current_time() - began > 5
        await other.send({"type": "session_accept", "session": session})
        assert (await other.expect("message"))["data"] == "anybody?"
        with trio.fail_after(5):
            while (await client.expect("peer"))["state"] != "replaced":
                pass

    play(scene)


def test_sessions_of_clients_that_died_with_their_node_expire() -> None:
    """no-ghost: they were never detached, and yet they end after their time, and their worker has room again."""

    async def scene(cluster: Cluster) -> None:
        life: dict[str, object] = {"resume_ttl_s": 15.0}
        await cluster.start("n1", session=life)
        await cluster.start("n2", session=life)
        _, _, worker, _, session = await cluster.pair("n1", "n2")
        await trio.sleep(30)
        cluster.kill("n1")
        await trio.sleep(14)
        assert not cluster.world.rows.is_empty_of(session)
        with trio.fail_after(20):
            assert (await worker.expect("session_ended"))["session"] == session
        await trio.sleep(2)
        assert cluster.world.rows.is_empty_of(session)

    play(scene)


def test_a_client_finds_its_session_at_once_though_its_node_is_not_known_to_be_dead() -> None:
    """The claim takes the session from the dead node: no party waits for a lease."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        await cluster.start("n2")
        _, started, worker, _, _ = await cluster.pair("n1", "n2")
        cluster.kill("n1")
        client, restored = await cluster.restore("n2", started["recovery_token"])
        assert restored["peer"]["state"] == "paired"
        await client.send({"type": "message", "seq": 1, "data": 1})
        with trio.fail_after(0.5):
            assert (await worker.expect("message"))["data"] == 1

    play(scene)
