"""paced: how many sessions move per second, in the whole cluster."""

from itertools import pairwise

import pytest
import trio

from signald.store.registry.ops import TakePace
from signald.testing.cluster import Cluster, play
from tests.service.deploys import Load, traffic


def most(*kinds: list[tuple[float, int]]) -> int:
    """The most sessions in any one second of one kind of party: clients and workers move side by side."""
    return max(sum(count for at, count in of if start <= at < start + 1.0) for of in kinds for start, _ in of)


def peak(*loads: Load, since: float) -> int:
    """The most sessions that were claimed in any one second since `since`; a worker's claim is that of all its sessions."""
    clients = [(at, 1) for load in loads for client in load.clients for at in client.answered_at if at >= since]
    workers = [
        (at, len(worker.talks)) for load in loads for worker in load.workers for at in worker.answered_at if at >= since
    ]
    return most(clients, workers)


def told_per_second(*loads: Load, since: float) -> int:
    """The most GOAWAYs in any one second, counted in sessions."""
    clients = [(at, 1) for load in loads for client in load.clients for at, _ in client.goaways if at >= since]
    workers = [
        (at, len(worker.talks)) for load in loads for worker in load.workers for at, _ in worker.goaways if at >= since
    ]
    return most(clients, workers)


@pytest.mark.long
def test_a_drain_keeps_the_pace() -> None:
    """200 sessions at 50 a second: never a tenth above it in any second, and not much slower than it allows."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", pace={"sessions_per_s": 50.0})
        async with traffic(cluster, workers=20, clients=200, every_s=5) as load:
            began = trio.current_time()
            seconds = await load.deploy("n1", "n2")
            assert peak(load, since=began) <= 55
            assert told_per_second(load, since=began) <= 55
            assert 200 / 55 <= seconds <= 200 / 50 * 1.7
            await load.settle()
            load.check()
            load.check_same_workers()

    play(scene)


@pytest.mark.long
def test_two_drains_share_one_pace() -> None:
    """The budget is the cluster's: two nodes that drain together take as long as one with all the sessions."""

    async def scene(cluster: Cluster) -> None:
        pace: dict[str, object] = {"sessions_per_s": 40.0}
        await cluster.start("n1", pace=pace)
        await cluster.start("n2", pace=pace)
        async with traffic(cluster, workers=10, clients=80, cross=True, every_s=5) as load:
            await cluster.start("n3")
            load.clients_at = load.workers_at = "n3"
            began = trio.current_time()
            for name in ("n1", "n2"):
                cluster.nodes[name].shutdown.signal()
            for name in ("n1", "n2"):
                await cluster.wait_exit(name)
            assert peak(load, since=began) <= 44
            await load.settle()
            load.check()
            load.check_same_workers()

    play(scene)


@pytest.mark.long
def test_three_drains_share_one_pace_by_an_operator_and_by_signals() -> None:
    """However many nodes drain, by signal or operator: one budget for all of them, which is used."""

    async def scene(cluster: Cluster) -> None:
        pace: dict[str, object] = {"sessions_per_s": 40.0}
        for name in ("n1", "n2", "n3"):
            await cluster.start(name, pace=pace)
        async with (
            traffic(cluster, workers=6, clients=60, cross=True, every_s=5) as apart,
            traffic(cluster, workers=6, clients=60, every_s=5, at="n3") as together,
        ):
            await cluster.start("n4", pace=pace)
            for load in (apart, together):
                load.clients_at = load.workers_at = "n4"
            began = trio.current_time()
            cluster.nodes["n1"].shutdown.signal()
            cluster.nodes["n2"].shutdown.signal()
            cluster.nodes["n3"].shutdown.begin("rollout")
            await cluster.wait_exit("n1")
            await cluster.wait_exit("n2")
            while cluster.nodes["n3"].hub.links:  # noqa: ASYNC110 - in virtual time a poll costs nothing
                await trio.sleep(0.1)
            seconds = trio.current_time() - began
            assert peak(apart, together, since=began) <= 44
            assert told_per_second(apart, together, since=began) <= 44
            assert 120 / 44 <= seconds <= 120 / 40 * 1.7
            for load in (apart, together):
                await load.settle()
                load.check()
                load.check_same_workers()

    play(scene)


def test_a_worker_larger_than_the_pace_waits_its_share() -> None:
    """One worker with two seconds' worth of sessions is followed by a pause, not by the next one."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", pace={"sessions_per_s": 10.0})
        async with traffic(cluster, workers=3, clients=60, every_s=5) as load:
            began = trio.current_time()
            seconds = await load.deploy("n1", "n2")
            assert seconds >= 60 / 11
            told = sorted(at for worker in load.workers for at, _ in worker.goaways if at >= began)
            assert all(later - sooner >= 20 / 11 for sooner, later in pairwise(told))
            await load.settle()
            load.check()
            load.check_same_workers()

    play(scene)


@pytest.mark.long
@pytest.mark.parametrize("lag_ms", [0.0, 500.0])
def test_a_successor_that_lags_is_gone_easy_on(lag_ms: float) -> None:
    """The published lag slows the drain down, but never so much that it would miss its deadline."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", pace={"sessions_per_s": 50.0}, drain={"timeout_s": 40.0})
        async with traffic(cluster, workers=10, clients=100, every_s=5) as load:
            new = await cluster.start("n2")
            load.clients_at = load.workers_at = "n2"

            async def lag() -> None:
                while True:
                    new.lease.lag.ms = lag_ms
                    new.lease.poke()
                    await trio.sleep(0.01)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(lag)
                await trio.sleep(1)
                began = trio.current_time()
                cluster.nodes["n1"].shutdown.signal()
                await cluster.wait_exit("n1")
                seconds = trio.current_time() - began
                nursery.cancel_scope.cancel(reason="seen enough")
            assert (seconds > 8) is (lag_ms > 0)
            assert seconds <= 38
            await load.settle()
            load.check()
            load.check_same_workers()

    play(scene)


def test_a_worker_that_the_pace_holds_back_is_not_given_up() -> None:
    """sticky: the drain's time is over before its worker's turn has come; it was not told, so it keeps its sessions."""

    async def scene(cluster: Cluster) -> None:
        drain: dict[str, object] = {
            "timeout_s": 12.0,
            "stop_timeout_s": 30.0,
            "worker_timeout_s": 2.0,
            "client_timeout_s": 2.0,
            "successor_timeout_s": 2.0,
            "terminate_timeout_s": 2.0,
        }
        pace: dict[str, object] = {"sessions_per_s": 0.1, "gap_max_s": 60.0}
        old = await cluster.start("old", drain=drain, pace=pace)
        _, _, worker, accepted, session = await cluster.pair("old")
        await cluster.start("new")
        await old.committer.call(TakePace(1, 0.1, old.hub.store.now_ms(), "worker"))
        old.shutdown.signal()
        assert await worker.closed() == 1001
        assert not [frame for frame in worker.aside if frame["type"] == "goaway"]
        _, resumed = await cluster.resume("new", accepted["recovery_token"], {"session": session, "received": 0})
        assert [one["session"] for one in resumed["sessions"]] == [session]

    play(scene)
