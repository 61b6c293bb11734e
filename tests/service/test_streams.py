"""Streams between a client and a worker, over nodes, moves and losses."""

from typing import Any

import pytest
import trio
import trio.testing

from signald.core.callers import Access
from signald.testing.cluster import Cluster, play
from signald.testing.wire import Json, Peer


async def say(worker: Peer, session: str, seq: int, text: str, **fields: object) -> None:
    """The worker says a piece of a text."""
    piece = {"type": "message", "session": session, "seq": seq, "stream": "a", "fold": "text", "data": text}
    await worker.send({**piece, **fields})


async def next_worker(cluster: Cluster, name: str = "n1", instance: str = "worker-b") -> tuple[Peer, Json]:
    """Another worker is asked to take the session of one that is gone, and accepts."""
    worker, _ = await cluster.worker(name, instance)
    with trio.fail_after(60):
        assigned = await worker.expect("session_assigned")
    await worker.send({"type": "session_accept", "session": assigned["session"], "epoch": assigned["epoch"]})
    return worker, assigned


def test_pieces_are_messages() -> None:
    """Each piece is delivered with all it says, acked, and in order with plain messages."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        client, _, worker, _, session = await cluster.pair("n1")
        await say(worker, session, 1, "He", kind="tokens")
        await worker.send({"type": "message", "session": session, "seq": 2, "data": 5})
        await say(worker, session, 3, "llo", end=True, outcome="failed", error={"code": "c", "message": "m"})
        assert await client.expect("message") == {
            "type": "message", "seq": 1, "stream": "a", "fold": "text", "kind": "tokens", "data": "He",
        }  # fmt: skip
        assert await client.expect("message") == {"type": "message", "seq": 2, "data": 5}
        assert await client.expect("message") == {
            "type": "message", "seq": 3, "stream": "a", "fold": "text", "data": "llo", "end": True, "outcome": "failed",
            "error": {"code": "c", "message": "m"},
        }  # fmt: skip
        assert (await worker.expect("ack"))["seq"] == 3

    play(scene)


@pytest.mark.parametrize("worker_at", ["n1", "n2"])
def test_a_reload_sees_the_text_so_far_and_then_the_rest(worker_at: str) -> None:
    """A client that does not know what it has is told where the replay begins; entry and replay join, each piece once."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        await cluster.start("n2")
        client, started, worker, _, session = await cluster.pair("n1", worker_at)
        for seq in range(1, 6):
            await say(worker, session, seq, f"<{seq}>")
        for _ in range(5):
            await client.expect("message")
        await client.send({"type": "ack", "seq": 2})
        await trio.sleep(1)
        again, restored = await cluster.restore("n2", started["recovery_token"], history=10)
        assert (restored["next_received"], restored["replaying"]) == (3, 3)
        (entry,) = restored["chat_history"]
        assert entry == {
            "from": "worker", "seq": 5, "stream": "a", "attempt": 1, "open": True, "data": "<1><2><3><4><5>",
        }  # fmt: skip
        assert [(await again.expect("message"))["seq"] for _ in range(3)] == [3, 4, 5]
        await say(worker, session, 6, "!", end=True)
        assert (await again.expect("message"))["data"] == "!"
        _, restored = await cluster.restore("n1", restored["recovery_token"], history=10, received=6)
        assert "next_received" not in restored
        (entry,) = restored["chat_history"]
        assert (entry["outcome"], entry["data"], "open" in entry) == ("complete", "<1><2><3><4><5>!", False)

    play(scene)


def test_a_history_with_a_text_keeps_as_many_entries_as_any_other() -> None:
    """`session.history_messages_max` counts a text of many pieces once, and does not grow with it."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", session={"history_messages_max": 3})
        client, started, worker, _, session = await cluster.pair("n1")
        for seq in range(1, 9):
            await say(worker, session, seq, f"<{seq}>", end=seq == 8)
        for _ in range(8):
            await client.expect("message")

        async def shown() -> list[Json]:
            nonlocal client, started
            await trio.sleep(0.1)
            client, started = await cluster.restore("n1", started["recovery_token"], history=50, received=8)
            return list(started["chat_history"])

        await client.send({"type": "message", "seq": 1, "data": 1})
        assert [entry["data"] for entry in await shown()] == ["<1><2><3><4><5><6><7><8>", 1]
        for seq in range(2, 7):
            await client.send({"type": "message", "seq": seq, "data": seq})
        assert [entry["data"] for entry in await shown()][-3:] == [4, 5, 6]
        assert len(await shown()) <= 4  # what is left of a text that has lost its beginning is no entry more

    play(scene)


def test_a_stream_that_is_over_takes_no_more() -> None:
    """The refused piece is not stored, and what was sent behind it is numbered anew: nothing else is lost."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        client, _, worker, _, session = await cluster.pair("n1")
        await say(worker, session, 1, "x", end=True)
        assert (await worker.expect("ack"))["seq"] == 1
        await say(worker, session, 2, "late")
        for seq in (3, 4):
            await worker.send({"type": "message", "session": session, "seq": seq, "data": seq})
        error = await worker.expect("error")
        error.pop("message")
        assert error == {
            "type": "error", "code": "stream_over", "fatal": False, "session": session, "expected": 2, "stream": "a",
        }  # fmt: skip
        for seq in (2, 3):
            await worker.send({"type": "message", "session": session, "seq": seq, "data": seq + 1})
        assert [(await client.expect("message"))["data"] for _ in range(3)] == ["x", 3, 4]

    play(scene)


def test_a_lower_attempt_is_superseded() -> None:
    """Once a higher attempt has begun, a lower one is refused."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        client, started, worker, _, session = await cluster.pair("n1")
        await say(worker, session, 1, "old")
        await say(worker, session, 2, "new", attempt=2)
        await say(worker, session, 3, "old", attempt=1)
        error = await worker.expect("error")
        assert (error["code"], error["expected"], error["stream"]) == ("stream_superseded", 3, "a")
        await say(worker, session, 3, "er", attempt=2)
        assert [(await client.expect("message")).get("attempt", 1) for _ in range(3)] == [1, 2, 2]
        _, restored = await cluster.restore("n1", started["recovery_token"], history=9)
        assert [(entry["data"], entry["attempt"]) for entry in restored["chat_history"]] == [("newer", 2)]

    play(scene)


@pytest.mark.parametrize(
    "fields",
    [
        {"end": True},
        {"stream": "a", "attempt": 0},
        {"stream": "a", "fold": "text", "data": 5},
        {"stream": "", "data": 1},
    ],
    ids=str,
)
@pytest.mark.parametrize("party", ["client", "worker"])
def test_fields_that_do_not_go_together_cost_one_message(party: str, fields: dict[str, Any]) -> None:
    """The sender is told what is wrong and what is expected; its connection, session and other messages go on."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        client, _, worker, _, session = await cluster.pair("n1")
        sender, receiver = (client, worker) if party == "client" else (worker, client)
        message = {"type": "message", "data": "x"} | ({} if party == "client" else {"session": session})
        await sender.send({**message, "seq": 1})
        await sender.send({**message, "seq": 2, **fields})
        await sender.send({**message, "seq": 3})
        error = await sender.expect("error")
        assert (error["code"], error["expected"], error["fatal"]) == ("bad_message", 2, False)
        await sender.send({**message, "seq": 2, "data": "y"})
        assert [(await receiver.expect("message"))["data"] for _ in range(2)] == ["x", "y"]

    play(scene)


@pytest.mark.parametrize("worker_at", ["n1", "n2"])
def test_a_cancel_reaches_the_worker_wherever_it_is(worker_at: str) -> None:
    """A request is told once, told again on a resume, kept for the next worker, and repeated without harm."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        await cluster.start("n2")
        client, _, worker, accepted, session = await cluster.pair("n1", worker_at)
        await say(worker, session, 1, "x")
        await client.expect("message")
        for _ in range(2):
            await client.send({"type": "stream_cancel", "stream": "a", "reason": "enough"})
        told = {"type": "stream_cancel", "session": session, "stream": "a", "reason": "enough"}
        assert await worker.expect("stream_cancel") == told
        await client.send({"type": "stream_cancel", "stream": "never was"})
        again, ack = await cluster.resume(
            "n2", accepted["recovery_token"], {"session": session, "received": 0, "acked": 1}
        )
        assert ack["type"] == "reconnection_ack"
        assert await again.expect("stream_cancel") == told
        await again.send({"type": "session_refuse", "session": session})
        _, assigned = await next_worker(cluster, "n1")
        (stream,) = assigned["open_streams"]
        assert stream == {"stream": "a", "attempt": 1, "data": "x", "cancel": True, "reason": "enough"}

    play(scene)


def test_a_cancel_by_http_reaches_the_worker() -> None:
    """The operation for a caller of the API wakes the worker's node, and tells the worker here."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        await cluster.start("n2")
        client, _, worker, _, session = await cluster.pair("n1", "n2")
        await say(worker, session, 1, "x")
        await say(worker, session, 2, "y", stream="b")
        for _ in range(2):
            await client.expect("message")
        for node, stream in (("n1", "a"), ("n2", "b")):
            streams = cluster.nodes[node].hub.attachments.streams
            await streams.cancel_for(session, stream, "", Access(owner=""))
            assert await worker.expect("stream_cancel") == {
                "type": "stream_cancel",
                "session": session,
                "stream": stream,
            }

    play(scene)


async def lose_worker(cluster: Cluster, client: Peer, worker: Peer) -> None:
    """The worker's connection ends, and it is given up."""
    worker.cut()
    while (await client.expect("peer"))["state"] != "waiting":
        pass


def test_a_stream_that_no_worker_goes_on_with_is_interrupted() -> None:
    """The next worker finds the stream; when it does not speak in it, its client is told of the end, also again."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        client, started, worker, _, session = await cluster.pair("n1")
        await say(worker, session, 1, "Once", kind="tokens")
        await client.expect("message")
        await lose_worker(cluster, client, worker)
        await trio.sleep(60)  # time without a worker ends none
        second, assigned = await next_worker(cluster)
        accepted_at = trio.current_time()
        assert assigned["open_streams"] == [{"stream": "a", "attempt": 1, "kind": "tokens", "data": "Once"}]
        assert assigned["attempt"] == 2
        state = {"type": "stream_state", "stream": "a", "attempt": 1, "outcome": "interrupted"}
        assert await client.expect("stream_state") == state
        assert 10 <= trio.current_time() - accepted_at < 15
        await say(second, session, 2, " upon", attempt=2)
        assert (await second.expect("error"))["code"] == "stream_over"
        again, restored = await cluster.restore("n1", started["recovery_token"], history=9, received=1)
        assert restored["chat_history"][0]["outcome"] == "interrupted"
        assert await again.expect("stream_state") == state

    play(scene)


def test_a_client_that_is_behind_is_told_of_the_end_behind_the_text() -> None:
    """`stream_state` never overtakes a piece, however late its client reads."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start(
            "n1", limits={"send_queue_messages_max": 4}, timeouts={"write_s": 300.0, "ping_interval_s": 300.0}
        )
        client = await cluster.dial("n1", "/v1/client", streams=trio.testing.lockstep_stream_pair)
        await client.ask({"type": "connect"}, "session_started")
        worker, assigned = await next_worker(cluster, instance="worker-a")
        for seq in range(1, 31):
            await say(worker, assigned["session"], seq, f"<{seq}>")
        await trio.sleep(1)
        worker.cut()
        await trio.sleep(30)
        await next_worker(cluster)
        await trio.sleep(20)  # it does not speak in the stream, which is interrupted
        frames = [frame for frame in await client.quiet(5) if frame["type"] in ("message", "stream_state")]
        assert [frame.get("seq") for frame in frames] == [*range(1, 31), None]
        assert frames[-1]["outcome"] == "interrupted"

    play(scene)


def test_a_stream_in_which_the_worker_speaks_goes_on() -> None:
    """The next worker says all anew under a higher attempt, and may then pause for as long as it likes."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        client, _, worker, _, session = await cluster.pair("n1")
        await say(worker, session, 1, "Once")
        await client.expect("message")
        await lose_worker(cluster, client, worker)
        second, _ = await next_worker(cluster)
        await trio.sleep(9)
        await say(second, session, 2, "Twice", attempt=2)
        assert (await client.expect("message"))["data"] == "Twice"
        assert [frame["type"] for frame in await client.quiet(19) if frame["type"] != "peer"] == []
        await say(second, session, 3, "!", attempt=2, end=True)
        assert (await client.expect("message"))["data"] == "!"

    play(scene)


def test_a_move_of_the_worker_stops_no_clock() -> None:
    """A worker that resumes at another node in between has no longer than the time from there; then the stream is interrupted."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        await cluster.start("n2")
        client, _, worker, _, session = await cluster.pair("n1")
        await say(worker, session, 1, "Once")
        await client.expect("message")
        await lose_worker(cluster, client, worker)
        second, accepted = await cluster.worker("n1", "worker-b")
        assigned = await second.expect("session_assigned")
        await second.send({"type": "session_accept", "session": session, "epoch": assigned["epoch"]})
        await trio.sleep(5)
        position = {"session": session, "received": 0, "acked": 1}
        await cluster.resume("n2", accepted["recovery_token"], position, instance_id="worker-b")
        moved_at = trio.current_time()
        assert (await client.expect("stream_state"))["outcome"] == "interrupted"
        assert trio.current_time() - moved_at < 15

    play(scene)


def test_the_end_of_a_session_interrupts_its_streams() -> None:
    """The client is told of each stream that is open, and then of the end of the session."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        client, _, worker, _, session = await cluster.pair("n1")
        await say(worker, session, 1, "x")
        await client.expect("message")
        await client.send({"type": "ack", "seq": 1})
        await worker.send({"type": "bye", "session": session})
        assert (await client.expect("stream_state"))["stream"] == "a"
        assert (await client.expect("session_ended"))["type"] == "session_ended"

    play(scene)


def test_a_worker_leaves_a_state_for_the_next_one() -> None:
    """What a refusal brings is in the next assignment, with the count of hand-outs; too much of it is left out, and said."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        worker, _ = await cluster.worker("n1")
        _, started = await cluster.client("n1", meta={"a": 1})
        session = started["session"]
        first = await worker.expect("session_assigned")
        assert (first["attempt"], "state" in first, "open_streams" in first) == (1, False, False)
        await worker.send({"type": "session_refuse", "session": session, "epoch": first["epoch"], "state": {"step": 3}})
        second = await worker.expect("session_assigned")
        assert (second["attempt"], second["state"]) == (2, {"step": 3})
        await worker.send(
            {"type": "session_refuse", "session": session, "epoch": second["epoch"], "state": "x" * 32_767}
        )
        assert (await worker.expect("error"))["code"] == "too_big"
        third = await worker.expect("session_assigned")
        assert (third["attempt"], third["state"]) == (3, {"step": 3})

    play(scene)


def test_pieces_of_a_client_reach_the_worker() -> None:
    """A stream of the client is judged and shown as one of the worker is."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        client, started, worker, _, _ = await cluster.pair("n1")
        await client.send({"type": "message", "seq": 1, "stream": "a", "fold": "text", "data": "He", "end": True})
        assert (await worker.expect("message"))["stream"] == "a"
        await client.send({"type": "message", "seq": 2, "stream": "a", "fold": "text", "data": "llo"})
        assert (await client.expect("error"))["code"] == "stream_over"
        _, restored = await cluster.restore("n1", started["recovery_token"], history=9)
        assert [entry["from"] for entry in restored["chat_history"]] == ["client"]

    play(scene)


def test_history_counts_a_stream_as_one_entry() -> None:
    """A client that asks for two entries gets the last two, however many pieces they are of."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1", session={"history_messages_max": 2})
        client, started, worker, _, session = await cluster.pair("n1")
        await client.send({"type": "message", "seq": 1, "data": "one"})
        await client.send({"type": "message", "seq": 2, "data": "two"})
        await trio.sleep(1)
        for seq in range(1, 11):
            await say(worker, session, seq, str(seq))
            await client.expect("message")
        _, restored = await cluster.restore("n1", started["recovery_token"], history=2)
        assert [entry["data"] for entry in restored["chat_history"]] == ["two", "12345678910"]

    play(scene)
