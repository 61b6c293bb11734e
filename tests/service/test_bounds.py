"""bounded, no-orphan-task: a drain ends by its deadline, whatever parties, peers and the store do, and by signals sooner."""

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from signald.core.drain import Phase
from signald.testing.cluster import Cluster, play
from tests.service.deploys import receipt, traffic

DRAIN: dict[str, object] = {
    "timeout_s": 30.0,
    "successor_timeout_s": 5.0,
    "worker_timeout_s": 6.0,
    "client_timeout_s": 6.0,
    "terminate_timeout_s": 5.0,
    "flush_timeout_s": 2.0,
    "close_timeout_s": 2.0,
}


async def parties_that_do_nothing(cluster: Cluster, name: str) -> None:
    """Workers and clients that are told to go and stay; some do not even read."""
    for _ in range(3):
        await cluster.pair(name)
    for path, opening in (
        ("/v1/client", {"type": "connect"}),
        ("/v1/worker", {"type": "app_ready", "instance_id": "deaf", "capacity": 0}),
    ):
        deaf = await cluster.dial(name, path, streams=trio.testing.lockstep_stream_pair)
        await deaf.send(opening)
        await deaf.receive()
        for _ in range(3):
            await deaf.send({"type": "ping"})
    await cluster.dial(name, "/v1/client")  # and one that never says what it wants
    legacy = await cluster.dial(name, "/v1/worker", subprotocol=None)
    await legacy.ask({"type": "app_ready", "instance_id": "legacy", "capacity": 0}, "app_accepted")


async def nothing(cluster: Cluster) -> None:
    """All is well but for the parties."""


async def store_down(cluster: Cluster) -> None:
    """The store is away from the beginning to the end."""
    cluster.world.outage = "down"


async def store_down_later(cluster: Cluster) -> None:
    """The store goes away in the middle."""
    await trio.sleep(3)
    cluster.world.outage = "down"


async def answers_lost(cluster: Cluster) -> None:
    """The store does everything and says nothing."""
    await trio.sleep(1)
    cluster.world.outage = "answers lost"


async def store_emptied(cluster: Cluster) -> None:
    """The store loses everything in the middle."""
    await trio.sleep(2)
    cluster.world.lose_everything()


async def successor_dies(cluster: Cluster) -> None:
    """The only other node is killed while parties are on their way."""
    await trio.sleep(2)
    if "new" in cluster.nodes:
        cluster.kill("new")


@pytest.mark.long
@pytest.mark.parametrize("successor", [True, False])
@pytest.mark.parametrize(
    "trouble", [nothing, store_down, store_down_later, answers_lost, store_emptied, successor_dies]
)
def test_a_drain_ends_by_its_deadline(trouble: Callable[[Cluster], Awaitable[None]], successor: bool) -> None:
    """bounded: parties that do nothing, and a store and a successor that fail in every way."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("old", drain=DRAIN)
        await parties_that_do_nothing(cluster, "old")
        if successor:
            await cluster.start("new")
        began = trio.current_time()
        node.shutdown.signal()
        await trouble(cluster)
        await cluster.wait_exit("old")
        assert trio.current_time() - began <= 30 + 1.1  # a second for the store to hear that the node is gone
        assert node.hub.connections == {}
        assert node.server.connections == {}

    play(scene)


@pytest.mark.parametrize("trouble", [nothing, store_down])
def test_a_second_signal_hurries(trouble: Callable[[Cluster], Awaitable[None]]) -> None:
    """bounded: whatever it waits for, a drain goes straight to FLUSH and CLOSE; sessions resume by their tokens."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("old", drain=DRAIN)
        client, started, _, _, _ = await cluster.pair("old")
        await cluster.start("new")
        node.shutdown.signal()
        await trio.sleep(2)
        await trouble(cluster)
        began = trio.current_time()
        node.shutdown.signal()
        assert await client.closed() == 1001
        await cluster.wait_exit("old")
        assert trio.current_time() - began <= 2 + 2 + 1.1
        cluster.world.outage = ""
        await trio.sleep(2)
        assert (await cluster.restore("new", started["recovery_token"]))[1]["type"] == "session_restored"

    play(scene)


def test_a_third_signal_ends_at_once() -> None:
    """bounded: nothing is waited for any more but the goodbyes, and with a fourth not even those."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("old", drain=DRAIN)
        await parties_that_do_nothing(cluster, "old")
        await cluster.start("new")
        node.shutdown.signal()
        await trio.sleep(2)
        cluster.world.outage = "down"  # FLUSH would wait for it
        began = trio.current_time()
        for _ in range(3):
            node.shutdown.signal()
            await trio.sleep(0.1)
        await cluster.wait_exit("old")
        assert trio.current_time() - began <= 0.5 + 1.1

    play(scene)


def test_a_signal_that_asks_for_what_has_begun_cuts_no_goodbye_short() -> None:
    """bounded: a third signal finds the node in CLOSE already, and slow peers keep their time; a fourth takes it."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("old", drain=DRAIN)
        await parties_that_do_nothing(cluster, "old")
        await cluster.start("new")
        node.shutdown.signal()
        await trio.sleep(2)
        node.shutdown.signal()
        await trio.sleep(2.5)  # FLUSH has ended by its budget
        for reached in (Phase.CLOSE, Phase.DONE):
            assert node.shutdown.status.phase is Phase.CLOSE
            node.shutdown.signal()
            await trio.sleep(0.1)
            assert node.shutdown.status.phase is reached
        await cluster.wait_exit("old")

    play(scene)


@pytest.mark.parametrize(("signals", "seconds"), [(2, 6), (3, 3.2)])
def test_signals_that_come_together_are_counted(signals: int, seconds: float) -> None:
    """A second signal before the drain has even begun is not lost."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("old", drain=DRAIN)
        await parties_that_do_nothing(cluster, "old")
        await cluster.start("new")
        began = trio.current_time()
        for _ in range(signals):
            node.shutdown.signal()
        await cluster.wait_exit("old")
        assert trio.current_time() - began <= seconds

    play(scene)


def test_a_node_that_was_hurried_before_it_had_begun_admits_nobody() -> None:
    """one-hop: two signals at once skip what comes before FLUSH, but not that newcomers are refused."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("old", drain=DRAIN)
        await cluster.pair("old")
        await cluster.start("new")
        cluster.world.outage = "down"  # FLUSH waits for it
        node.shutdown.signal()
        node.shutdown.signal()
        await trio.sleep(0.1)
        newcomer = await cluster.dial("old", "/v1/client")
        assert await newcomer.closed() == 1013
        cluster.world.outage = ""

    play(scene)


def test_an_idle_node_stops_at_once() -> None:
    """No party has to move, so no successor is needed."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("old")
        began = trio.current_time()
        node.shutdown.signal()
        await cluster.wait_exit("old")
        assert trio.current_time() - began < 0.5
        assert "flush" in [name for name, _ in receipt(cluster, "old")["phases"]]
        assert cluster.world.rows.nodes() == []

    play(scene)


def test_what_is_queued_is_still_written() -> None:
    """FLUSH: messages accepted a moment before the end are stored and delivered."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("old", drain=DRAIN)
        client, _, worker, _, _ = await cluster.pair("old")
        await cluster.start("new")
        for seq in range(1, 51):
            await client.send({"type": "message", "seq": seq, "data": seq})
        node.shutdown.signal()
        node.shutdown.signal()
        assert await worker.closed() == 1001
        assert await client.closed() == 1001
        acked = max(frame["seq"] for frame in client.aside if frame["type"] == "ack")
        delivered = [frame["seq"] for frame in worker.aside if frame["type"] == "message"]
        assert delivered == list(range(1, acked + 1))

    play(scene)


@pytest.mark.parametrize("after_s", [0.0, 0.05, 0.3, 1.0])
def test_a_drain_hurried_at_any_moment_loses_nothing(after_s: float) -> None:
    """exactly-once: hurried while parties are under way, each party finds its session at the other node."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", pace={"sessions_per_s": 20.0})
        async with traffic(cluster, workers=4, clients=20) as load:
            await cluster.start("n2")
            load.clients_at = load.workers_at = "n2"
            node = cluster.nodes["n1"]
            node.shutdown.signal()
            await trio.sleep(after_s)
            node.shutdown.signal()
            await cluster.wait_exit("n1")
            await load.settle()
            load.check()
            load.check_same_workers()

    play(scene)
