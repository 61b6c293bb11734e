"""Messages between a client and a worker."""

from tests.cluster import Cluster, play


def test_a_message_is_acked_and_delivered_both_ways() -> None:
    """Each direction has its own dense seqs; the ack goes to the sender, the message to the peer."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        client, _, worker, _, session = await cluster.pair("n1")
        await client.send({"type": "message", "seq": 1, "data": {"text": "hi"}})
        assert await worker.expect("message") == {
            "type": "message",
            "session": session,
            "seq": 1,
            "data": {"text": "hi"},
        }
        assert (await client.expect("ack"))["seq"] == 1
        await worker.send({"type": "message", "session": session, "seq": 1, "data": "hello"})
        assert await client.expect("message") == {"type": "message", "seq": 1, "data": "hello"}
        assert await worker.expect("ack") == {"type": "ack", "session": session, "seq": 1}

    play(scene)


def test_a_message_crosses_nodes() -> None:
    """A client on one node and a worker on another are a normal state."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        await cluster.start("n2")
        worker, _ = await cluster.worker("n2")
        client, started = await cluster.client("n1")
        session = (await worker.expect("session_assigned"))["session"]
        assert session == started["session"]
        await worker.send({"type": "session_accept", "session": session})
        assert (await client.expect("peer"))["state"] == "paired"
        for seq in range(1, 50):
            await client.send({"type": "message", "seq": seq, "data": seq})
            await worker.send({"type": "message", "session": session, "seq": seq, "data": seq})
        for seq in range(1, 50):
            assert (await client.expect("message"))["seq"] == seq
            assert (await worker.expect("message"))["seq"] == seq

    play(scene)


def test_a_gap_is_answered_with_what_is_expected() -> None:
    """A seq beyond the next is refused once, and the right one is still welcome."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        client, _, worker, _, _ = await cluster.pair("n1")
        await client.send({"type": "message", "seq": 3, "data": 0})
        error = await client.expect("error")
        assert (error["code"], error["expected"]) == ("gap", 1)
        await client.send({"type": "message", "seq": 1, "data": 1})
        assert (await worker.expect("message"))["data"] == 1

    play(scene)


def test_an_unknown_type_is_said_and_nothing_else_happens() -> None:
    """Unknown types get `error` `unknown_type`; the connection goes on."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        client, _, _, _, _ = await cluster.pair("n1")
        assert (await client.ask({"type": "hologram"}, "error"))["code"] == "unknown_type"
        assert (await client.ask({"type": "ping"}, "pong")) == {"type": "pong"}

    play(scene)
