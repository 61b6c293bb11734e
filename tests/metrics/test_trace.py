"""A message's `trace` (a W3C traceparent) comes through every hop as its sender wrote it."""

from typing import Any

import pytest
import trio

from signald.testing.cluster import Cluster, play
from signald.testing.wire import Json, Peer

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
BACK = "00-4bf92f3577b34da6a3ce929d0e0e4736-b9c7c989f97918e1-00"


async def say(peer: Peer, seq: int, **fields: Any) -> None:
    """Send a message with a trace."""
    await peer.send({"type": "message", "seq": seq, "data": seq, "trace": TRACE, **fields})


@pytest.mark.parametrize("worker_at", ["n1", "n2"])
def test_live_messages_carry_it_both_ways(worker_at: str) -> None:
    """On one node and across two; text and binary; stored messages and realtime."""

    async def scene(cluster: Cluster) -> None:
        for node in {"n1", worker_at}:
            await cluster.start(node)
        client, _, worker, _, session = await cluster.pair("n1", worker_at)
        await say(client, 1)
        assert (await worker.expect("message"))["trace"] == TRACE
        await client.send_binary(b"\0\1", {"type": "message", "seq": 2, "trace": TRACE})
        came = await worker.expect("message")
        assert (came["trace"], came["binary"]) == (TRACE, b"\0\1")
        await worker.send({"type": "message", "session": session, "seq": 1, "data": 1, "trace": BACK})
        assert (await client.expect("message"))["trace"] == BACK
        await client.send({"type": "realtime", "data": 1, "trace": TRACE})
        assert (await worker.expect("realtime"))["trace"] == TRACE
        await worker.send_binary(b"\2", {"type": "realtime", "session": session, "trace": BACK})
        assert (await client.expect("realtime"))["trace"] == BACK

    play(scene)


def test_a_message_without_one_gets_none() -> None:
    """signald invents no trace."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        client, _, worker, _, _ = await cluster.pair("n1")
        await client.send({"type": "message", "seq": 1, "data": 1})
        assert "trace" not in await worker.expect("message")

    play(scene)


def test_replayed_messages_carry_it() -> None:
    """What a client or a worker missed comes with the trace it was sent with, at whatever node it resumes."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        await cluster.start("n2")
        client, started, worker, accepted, session = await cluster.pair("n1")
        client.cut()
        await trio.sleep(0.1)
        await worker.send({"type": "message", "session": session, "seq": 1, "data": 1, "trace": BACK})
        await worker.expect("ack")
        client, _ = await cluster.restore("n2", started["recovery_token"])
        assert (await client.expect("message"))["trace"] == BACK
        worker.cut()
        await trio.sleep(0.1)
        await say(client, 1)
        await client.expect("ack")
        worker, _ = await cluster.resume(
            "n2", accepted["recovery_token"], {"session": session, "received": 0, "acked": 1}
        )
        assert (await worker.expect("message"))["trace"] == TRACE

    play(scene)


def test_the_next_worker_gets_it_with_what_the_last_one_did_not_finish() -> None:
    """Messages a worker has not acked go to the next one as they were, and the chat history has theirs too."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", worker={"on_loss": "reassign"})
        client, _, worker, _, _ = await cluster.pair("n1")
        await say(client, 1)
        await worker.expect("message")
        other, _ = await cluster.worker("n1", "worker-b")
        await worker.send({"type": "bye"})
        assigned: Json = await other.accept()
        assert [one["trace"] for one in assigned["chat_history"]] == [TRACE]
        assert (await other.expect("message"))["trace"] == TRACE

    play(scene)


def test_the_history_of_a_resume_carries_it() -> None:
    """A client that asks for the chat history sees each message's trace."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        client, started, worker, _, _ = await cluster.pair("n1")
        await say(client, 1)
        await worker.expect("message")
        client.cut()
        _, answer = await cluster.restore("n1", started["recovery_token"], history=10)
        assert [one["trace"] for one in answer["chat_history"]] == [TRACE]

    play(scene)


def test_a_store_that_lost_everything_gets_it_back() -> None:
    """What a node gives back to an empty store is delivered with the trace it had."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        client, _, worker, accepted, session = await cluster.pair("n1")
        worker.cut()
        await trio.sleep(0.1)
        await say(client, 1)
        await client.expect("ack")
        cluster.world.lose_everything()
        await trio.sleep(5)
        worker, answer = await cluster.resume(
            "n1", accepted["recovery_token"], {"session": session, "received": 0, "acked": 0}
        )
        if answer["type"] == "error":  # no node could give back a worker that was away: it starts afresh
            worker, _ = await cluster.worker("n1", "worker-b")
            await worker.accept(within_s=120)
        assert (await worker.expect("message"))["trace"] == TRACE

    play(scene)
