"""Messages between a client and a worker."""

import pytest
import trio

from signald.store.registry.ops import Release
from signald.store.session.ops import Unpair
from signald.testing.cluster import Cluster, play
from signald.testing.wire_parties import Client, Worker


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


@pytest.mark.parametrize("worker_at", ["n1", "n2"])
def test_binary_frames_pass_unread(worker_at: str) -> None:
    """The data arrives byte for byte behind a header that names the session to workers only."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        await cluster.start("n2")
        client, _, worker, _, session = await cluster.pair("n1", worker_at)
        data = bytes(range(256))
        await client.send_binary(data, {"type": "message", "seq": 1, "kind": "audio"})
        assert await worker.expect("message") == {
            "type": "message", "session": session, "seq": 1, "kind": "audio", "binary": data,
        }  # fmt: skip
        await worker.send_binary(b"", {"type": "message", "session": session, "seq": 1})
        assert await client.expect("message") == {"type": "message", "seq": 1, "binary": b""}
        await client.send_binary(data, {"type": "realtime"})
        assert await worker.expect("realtime") == {"type": "realtime", "session": session, "binary": data}

    play(scene)


def test_what_a_sender_says_of_a_message_travels_with_it() -> None:
    """`kind`, `history` and `trace` arrive as they were sent, also after a replay."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        client, _, worker, accepted, session = await cluster.pair("n1")
        said = {"seq": 1, "data": [1, {"a": None}], "kind": "card", "history": True, "trace": "00-a-b-01"}
        await client.send({"type": "message", **said})
        assert await worker.expect("message") == {"type": "message", "session": session, **said}
        again, _ = await cluster.resume("n1", accepted["recovery_token"], {"session": session})
        assert await again.expect("message") == {"type": "message", "session": session, **said}

    play(scene)


@pytest.mark.parametrize("worker_at", ["n1", "n2"])
def test_realtime_is_carried_now_or_never(worker_at: str) -> None:
    """It has no seq and no ack; for a peer that is away it is dropped, and it is not replayed."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        await cluster.start("n2")
        client, _, worker, accepted, session = await cluster.pair("n1", worker_at)
        await client.send({"type": "realtime", "data": {"typing": True}, "trace": "t"})
        got = await worker.expect("realtime")
        assert got == {"type": "realtime", "session": session, "data": {"typing": True}, "trace": "t"}
        await worker.send({"type": "realtime", "session": session, "data": 2})
        assert await client.expect("realtime") == {"type": "realtime", "data": 2}
        worker.cut()
        await trio.sleep(0.5)
        await client.send({"type": "realtime", "data": "unheard"})
        await trio.sleep(0.5)
        again, _ = await cluster.resume(worker_at, accepted["recovery_token"], {"session": session})
        await client.send({"type": "realtime", "data": "heard"})
        assert [frame["data"] for frame in await again.quiet()] == ["heard"]

    play(scene)


@pytest.mark.parametrize("worker_at", ["n1", "n2"])
def test_receipts_tell_what_the_worker_has(worker_at: str) -> None:
    """A client that asked for them learns how far its worker's acks go; one that did not hears nothing."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        await cluster.start("n2")
        worker, _ = await cluster.worker(worker_at)
        client, _ = await cluster.client("n1", receipts=True)
        session = (await worker.expect("session_assigned"))["session"]
        await worker.send({"type": "session_accept", "session": session})
        plain, _ = await cluster.client("n1")
        other = (await worker.expect("session_assigned"))["session"]
        await worker.send({"type": "session_accept", "session": other})
        for seq in (1, 2, 3):
            await client.send({"type": "message", "seq": seq, "data": seq})
            await plain.send({"type": "message", "seq": seq, "data": seq})
        await worker.quiet()
        for name in (session, other):
            await worker.send({"type": "ack", "session": name, "seq": 2})
        assert await client.expect("receipt") == {"type": "receipt", "seq": 2}
        assert [frame for frame in await plain.quiet() if frame["type"] == "receipt"] == []

    play(scene)


def test_duplicates_are_acked_again_and_not_delivered_again() -> None:
    """exactly-once: the first ack may have been lost, so it is repeated; the receiver hears nothing of it."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        client, _, worker, _, session = await cluster.pair("n1")
        for seq in (1, 2):
            await client.send({"type": "message", "seq": seq, "data": seq})
        await client.quiet()
        await worker.quiet()
        await client.send({"type": "message", "seq": 1, "data": "changed"})
        assert await client.quiet() == [{"type": "ack", "seq": 2}]
        await worker.send({"type": "message", "session": session, "seq": 1, "data": "x"})
        await worker.send({"type": "message", "session": session, "seq": 1, "data": "x"})
        assert [frame["seq"] for frame in await client.quiet()] == [1]
        assert {"type": "ack", "session": session, "seq": 1} in await worker.quiet()

    play(scene)


def test_an_ack_of_what_was_never_sent_counts_for_what_was() -> None:
    """A party cannot ack ahead: later messages reach it all the same."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        client, _, worker, accepted, session = await cluster.pair("n1")
        await client.send({"type": "message", "seq": 1, "data": 1})
        await worker.expect("message")
        await worker.send({"type": "ack", "session": session, "seq": 99})
        await trio.sleep(0.5)
        await client.send({"type": "message", "seq": 2, "data": 2})
        assert (await worker.expect("message"))["data"] == 2
        again, answer = await cluster.resume("n1", accepted["recovery_token"], {"session": session, "received": 1})
        assert answer["sessions"][0]["replaying"] == 1
        assert (await again.expect("message"))["data"] == 2

    play(scene)


@pytest.mark.parametrize("back_at", ["n1", "n2", "n3"])
def test_what_was_not_acked_is_replayed_wherever_the_party_comes_back(back_at: str) -> None:
    """Everything above what it says to have, once and in order; below it nothing, though it was never acked."""

    async def scene(cluster: Cluster) -> None:
        for name in ("n1", "n2", "n3"):
            await cluster.start(name)
        client, started, worker, _, session = await cluster.pair("n1", "n2")
        for seq in range(1, 11):
            await worker.send({"type": "message", "session": session, "seq": seq, "data": seq})
        await client.quiet()
        await client.send({"type": "ack", "seq": 3})
        client.cut()
        await trio.sleep(0.2)
        for seq in (11, 12):
            await worker.send({"type": "message", "session": session, "seq": seq, "data": seq})
        again, restored = await cluster.restore(back_at, started["recovery_token"], received=6)
        assert restored["peer"]["state"] == "paired"
        assert [frame["seq"] for frame in await again.quiet() if frame["type"] == "message"] == [7, 8, 9, 10, 11, 12]

    play(scene)


def test_the_chat_history_is_given_to_a_client_that_asks() -> None:
    """The last `history` entries of both parties, oldest first: context, never a replay."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", session={"history_messages_max": 4})
        client, started, worker, _, session = await cluster.pair("n1")
        for seq in (1, 2, 3):
            await client.send({"type": "message", "seq": seq, "data": f"c{seq}"})
            await worker.expect("message")
            await worker.send({"type": "message", "session": session, "seq": seq, "data": f"w{seq}"})
            await client.expect("message")
        await client.send({"type": "message", "seq": 4, "data": "secret", "history": False})
        await client.quiet()
        _, restored = await cluster.restore("n1", started["recovery_token"], received=3, history=3)
        assert [(entry["from"], entry["data"]) for entry in restored["chat_history"]] == [
            ("worker", "w2"), ("client", "c3"), ("worker", "w3"),
        ]  # fmt: skip
        assert "chat_history" not in (await cluster.restore("n1", restored["recovery_token"], received=3))[1]
        assert restored["replaying"] == 0

    play(scene)


def test_a_worker_must_accept_before_it_speaks() -> None:
    """Messages in a session it was only asked to take are not taken, and said to be so."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        worker, _ = await cluster.worker("n1")
        client, started = await cluster.client("n1")
        await worker.expect("session_assigned")
        await worker.send({"type": "message", "session": started["session"], "seq": 1, "data": 1})
        assert (await worker.expect("error"))["code"] == "not_accepted"
        await worker.send({"type": "message", "session": "s_odd", "seq": 1, "data": 1})
        assert (await worker.expect("error"))["code"] == "unknown_session"
        assert [frame for frame in await client.quiet() if frame["type"] == "message"] == []
        await worker.send({"type": "message", "seq": 1, "data": 1})
        assert await worker.refused() == ("bad_message", 4400)

    play(scene)


def test_an_ack_from_before_a_session_was_assigned_anew_does_not_count() -> None:
    """exactly-once: the same worker gets the session again while its ack is under way; its new handler begins with the first."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1")
        client, _, worker, accepted, session = await cluster.pair("n1")
        for seq in (1, 2):
            await client.send({"type": "message", "seq": seq, "data": seq})
            await worker.expect("message")
        name = accepted["worker"]
        await node.hub.committer.call_many([Unpair(session, "n2", name, 0), Release(session, name, True)])
        node.hub.inboxes.line()
        assert (await worker.expect("session_assigned"))["session"] == session
        await worker.send({"type": "ack", "session": session, "seq": 2})
        assert (await worker.expect("error"))["code"] == "not_accepted"
        await worker.send({"type": "session_accept", "session": session})
        assert [(await worker.expect("message"))["seq"] for _ in range(2)] == [1, 2]

    play(scene)


def test_a_bad_message_ends_the_connection_and_not_the_session() -> None:
    """4400, and the session can be resumed; what came before it was taken."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        client, started, worker, _, _ = await cluster.pair("n1")
        await client.send({"type": "message", "seq": 1, "data": 1})
        await client.send({"type": "message", "seq": "2", "data": 2})
        await client.send({"type": "message", "seq": 2, "data": "too late"})
        assert await client.refused() == ("bad_message", 4400)
        again, restored = await cluster.restore("n1", started["recovery_token"])
        assert restored["accepted"] == 1
        await again.send({"type": "message", "seq": 2, "data": 2})
        assert [frame["data"] for frame in await worker.quiet() if frame["type"] == "message"] == [1, 2]

    play(scene)


def test_many_sessions_share_one_worker_and_do_not_mix() -> None:
    """Each session has its own seqs and its own order, whatever the others do."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        await cluster.start("n2")
        async with trio.open_nursery() as nursery:
            worker = Worker(cluster, lambda: "n1")
            await nursery.start(worker.run)
            clients = [Client(cluster, lambda name=f"n{turn % 2 + 1}": name) for turn in range(20)]  # type: ignore[misc]
            for client in clients:
                nursery.start_soon(client.run)
            for step in range(30):
                for index, client in enumerate(clients):
                    await client.say(client.talk, [index, step])
                await trio.sleep(0.1)
            await trio.sleep(2)
            for index, client in enumerate(clients):
                wanted = [[index, step] for step in range(30)]
                assert (worker.talks[client.talk.session].heard, client.talk.heard) == (wanted, wanted)
                assert client.talk.unacked == {}
            nursery.cancel_scope.cancel(reason="seen enough")

    play(scene)


def test_a_wake_up_that_cannot_be_read_wakes_nobody() -> None:
    """What the backplane brings may be damaged: the node lives on, and the session it may have been about as well."""

    async def scene(cluster: Cluster) -> None:
        client, _, worker, _, session = await cluster.pair("n1")
        wakes = cluster.nodes["n1"].wakes
        name = session.encode()
        for wake in (
            b"",
            b"s\xff",
            b"w\xff",
            b"rc",
            b"rc\xff\0tx",
            b"rc" + name + b"\0b",
            b"rw" + name + b"\0b\xff\xffx",
            b"?",
        ):
            wakes.take(wake)
        await client.send({"type": "message", "seq": 1, "data": "still here"})
        assert (await worker.expect("message"))["data"] == "still here"

    async def main(cluster: Cluster) -> None:
        await cluster.start("n1")
        await scene(cluster)

    play(main)
