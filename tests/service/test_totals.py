"""fair: no address and no principal uses up what is there for all parties of a node or of the cluster."""

import json

import trio

from tests.cluster import Cluster, Peer, play


async def hoard(cluster: Cluster, number: int, size: int, remote: str) -> list[Peer]:
    """Open connections whose opening message never ends; each makes the node hold `size` bytes."""
    peers = []
    for _ in range(number):
        peer = await cluster.dial("a", "/v1/worker", remote=remote)
        # The header of a longer frame, and most of its payload.
        await peer._stream.send_all(b"\x81\xff" + (size + 100).to_bytes(8, "big") + bytes(4 + size))
        peers.append(peer)
    return peers


def test_silent_connections_give_way_to_a_newcomer() -> None:
    """When every place before the opening message is taken by silent peers, the oldest is told to come again."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("a", admission={"handshakes_in_progress_max": 3})
        silent = [await cluster.dial("a", "/v1/client", remote="192.0.2.1") for _ in range(3)]
        await trio.sleep(1.5)
        _, started = await cluster.client("a")
        assert started["type"] == "session_started"
        assert await silent[0].closed() == 1013
        assert silent[0].close_reason
        assert cluster.nodes["a"].hub.gate.strangers.evicted == 1

    play(scene)


def test_what_strangers_make_a_node_hold_has_one_budget() -> None:
    """Unfinished opening messages of one address stay below the budget; a worker of another address keeps its place."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("a", admission={"strangers_bytes_max": 1_048_576})
        (honest,) = await hoard(cluster, 1, 150_000, "192.0.2.2")
        hoarders = await hoard(cluster, 20, 150_000, "192.0.2.1")
        await trio.sleep(0.1)
        assert 0 < node.hub.gate.budget.bytes <= 1_048_576
        assert node.hub.gate.budget.evicted >= 14
        assert await hoarders[0].closed() == 1013
        assert not honest.socket.closed
        await trio.sleep(6.0)
        assert node.hub.gate.budget.bytes == 0
        _, started = await cluster.client("a", meta=json.dumps("m" * 1000))
        assert started["type"] == "session_started"
        assert node.hub.gate.strangers.taken == 0

    play(scene)
