"""The numbers of a session in its trail: what it has carried, how long it lasted, and its gaps."""

from typing import Any

import trio

from signald.service.trail import summary
from signald.testing.cluster import Cluster, play
from signald.testing.wire import Peer

BODY_BYTES = 64


async def trail(cluster: Cluster, session: str, at: str = "n1") -> dict[str, Any]:
    """Read the trail of a session."""
    await trio.sleep(1)
    return await cluster.nodes[at].operations.trail(session)


def words(told: dict[str, Any], *names: str) -> list[tuple[object, ...]]:
    """Return the steps, each with those of its numbers that are named."""
    return [(one["what"], *[one[name] for name in names if name in one]) for one in told["steps"]]


async def say(sender: Peer, seq: int, **fields: str) -> None:
    """Send a message, and see it stored."""
    await sender.send({"type": "message", "seq": seq, "data": "hello", **fields})
    await sender.expect("ack")


def test_the_last_step_of_a_session_has_its_numbers() -> None:
    """`ended` tells the messages of both directions, the bytes that its node has stored, and how long the session lasted."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        client, _, worker, _, session = await cluster.pair("n1")
        for seq in (1, 2, 3):
            await say(client, seq)
        await say(worker, 1, session=session)
        await trio.sleep(20)
        live = (await trail(cluster, session))["summary"]
        assert (live["up"], live["down"], live["duration_ms"] // 1000) == (3, 1, 21)
        await worker.send({"type": "ack", "session": session, "seq": 3})
        await client.send({"type": "ack", "seq": 1})
        await client.send({"type": "bye"})
        await client.closed()
        told = await trail(cluster, session)
        ended = told["steps"][-1]
        assert (ended["what"], ended["up"], ended["down"], ended["duration_ms"] // 1000) == ("ended", 3, 1, 21)
        assert 0 < ended["down_bytes"] * 3 == ended["up_bytes"] < 3 * BODY_BYTES
        assert told["summary"] == {
            "up": 3, "down": 1, "up_bytes": ended["up_bytes"], "down_bytes": ended["down_bytes"],
            "gaps": 0, "gap_ms": 0, "gap_max_ms": 0, "duration_ms": ended["duration_ms"],
        }  # fmt: skip

    play(scene)


def test_each_node_tells_what_it_has_carried() -> None:
    """A node that a session leaves notes the bytes that were stored from there; a node that has carried nothing notes nothing."""

    async def scene(cluster: Cluster) -> None:
        for name in ("n1", "n2", "n3"):
            await cluster.start(name)
        client, started, worker, _, session = await cluster.pair("n1", "n2")
        await say(client, 1)
        for name in ("n3", "n1"):
            await trio.sleep(0.1)
            client, started = await cluster.restore(name, started["recovery_token"])
        await say(client, 2)
        await worker.send({"type": "ack", "session": session, "seq": 2})
        await client.send({"type": "bye"})
        await client.closed()
        told = await trail(cluster, session)
        assert [step for step in words(told, "up") if len(step) > 1] == [("left", 1), ("ended", 2), ("ended", 2)]
        left, here, there = [step for step in told["steps"] if "up" in step]
        assert {left["node"], here["node"], there["node"]} == {"n1", "n2"}
        assert told["summary"]["up_bytes"] == 2 * left["up_bytes"] > 0

    play(scene)


def test_gaps_are_counted() -> None:
    """A resume of a client that was away has the length of its gap; one that came from node to node has none."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        client, started = await cluster.client("n1")
        for seconds in (5, 2):
            client.cut()
            await trio.sleep(seconds)
            client, started = await cluster.restore("n1", started["recovery_token"])
        told = await trail(cluster, started["session"])
        lengths = [step["gap_ms"] // 1000 for step in told["steps"] if "gap_ms" in step]
        found = told["summary"]
        assert (lengths, found["gaps"], found["gap_ms"] // 1000, found["gap_max_ms"] // 1000) == ([5, 2], 2, 7, 5)

    play(scene)


def test_steps_of_an_earlier_release_count_for_nothing() -> None:
    """A step without numbers, or with damaged ones, adds nothing; without any step there is nothing to tell."""
    nothing = {"up": 0, "down": 0, "up_bytes": 0, "down_bytes": 0, "gaps": 0, "gap_ms": 0, "gap_max_ms": 0}
    assert summary([]) == summary([{"what": "ended"}, {"up": "3", "gap_ms": None}, {"gap_ms": 0}]) == nothing
