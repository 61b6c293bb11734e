"""A frame of a worker that is wrong costs the session it names, and nothing else."""

import json
from contextlib import suppress
from typing import Any

import pytest
import trio_websocket

from signald.dialects.v1.worker import OTHERS_BURST, WRONG_BURST
from signald.testing.cluster import Cluster, play
from signald.testing.wire import Json, Peer
from signald.wire.fields import SEQ_MAX

WRONG: dict[str, Any] = {
    "ill-typed seq": {"type": "message", "seq": "1", "data": 1},
    "no data": {"type": "message", "seq": 1},
    "long kind": {"type": "message", "seq": 1, "data": 1, "kind": "k" * 65},
    "long trace": {"type": "realtime", "data": 1, "trace": "t" * 257},
    "half a pair in kind": {"type": "message", "seq": 1, "data": 1, "kind": "\ud83d"},
    "negative ack": {"type": "ack", "seq": -1},
    "deep": {"type": "message", "seq": 1, "data": json.loads("[" * 40 + "]" * 40)},
    "long reason": {"type": "bye", "reason": "r" * 513},
    "ill-typed epoch": {"type": "session_accept", "epoch": "x"},
    "NaN": '{"type":"message","session":"%s","seq":1,"data":NaN}',
    "cut": '{"type":"message","session":"%s","seq":1,"data":[1,',
    "a tab": '{"type":"message","session":"%s","seq":1,"data":"\t"}',
    "ten thousand brackets": '{"type":"message","session":"%s","seq":1,"data":' + "[" * 10_000 + "]" * 10_000 + "}",
    "a binary ack": b'{"type":"ack","session":"%s","seq":1}',
    "data twice": b'{"type":"message","session":"%s","seq":1,"data":1}',
    "over the limit": {"type": "message", "seq": 1, "data": "x" * 65536},
}


async def say(worker: Peer, wrong: Any, session: str) -> None:
    """Send one of the wrong frames, which names `session`."""
    if isinstance(wrong, dict):
        await worker.socket.send_message(json.dumps({**wrong, "session": session}))
    elif isinstance(wrong, str):
        await worker.socket.send_message(wrong.replace("%s", session))
    else:
        head = wrong.replace(b"%s", session.encode())
        await worker.socket.send_message(len(head).to_bytes(2, "big") + head + b"raw")


async def two_sessions(cluster: Cluster) -> tuple[Peer, Peer, str, Peer, str]:
    """One worker with two sessions: (worker, first client, its session, second client, its session)."""
    worker, _ = await cluster.worker("n1", capacity=2)
    first, started = await cluster.client("n1")
    await worker.accept()
    second, other = await cluster.client("n1")
    await worker.accept()
    return worker, first, started["session"], second, other["session"]


@pytest.mark.parametrize("name", list(WRONG))
def test_a_wrong_frame_costs_the_session_it_names(name: str) -> None:
    """The worker is told, loses that session to another worker and keeps its connection and the other session."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        worker, first, session, second, other = await two_sessions(cluster)
        await first.send({"type": "message", "seq": 1, "data": "unfinished"})
        assert (await worker.expect("message"))["session"] == session
        spare, _ = await cluster.worker("n1", capacity=2)
        await say(worker, WRONG[name], session)
        error = await worker.expect("error")
        code = "too_big" if name == "over the limit" else "bad_message"
        assert (error["code"], error["session"], error["fatal"]) == (code, session, False)
        ended = await worker.expect("session_ended")
        assert (ended["session"], ended["reason"]) == (session, "bad message")
        assert (await spare.accept())["session"] == session
        message = await spare.expect("message")
        assert (message["seq"], message["data"]) == (1, "unfinished")
        await worker.send({"type": "message", "session": other, "seq": 1, "data": "still here"})
        assert (await second.expect("message"))["data"] == "still here"
        assert (await first.quiet()) is not None

    play(scene)


def test_wrong_frames_under_way_behind_the_first_cost_nothing_more() -> None:
    """The worker could not know yet that the session was gone: it is told so, as for a right frame."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        worker, _, session, second, other = await two_sessions(cluster)
        for _ in range(5):
            await say(worker, WRONG["ill-typed seq"], session)
        told = [(frame["type"], frame.get("code")) for frame in await worker.quiet(0.2)]
        assert [one for one in told if one[0] in ("error", "session_ended")] == [
            ("error", "bad_message"),
            ("session_ended", None),
            *[("error", "unknown_session")] * 4,
        ]
        await worker.send({"type": "message", "session": other, "seq": 1, "data": "still here"})
        assert (await second.expect("message"))["data"] == "still here"

    play(scene)


@pytest.mark.parametrize(
    "wrong",
    [
        {"type": "message", "seq": "1", "data": 1},
        {"type": "message", "seq": "1", "data": 1, "session": 7},
        {"type": "message", "seq": "1", "data": 1, "session": "s_of_another"},
        {"type": "app_state", "capacity": -1},
    ],
)
def test_a_wrong_frame_that_names_no_session_of_this_worker_ends_its_connection(wrong: Json) -> None:
    """4400: the frame does not tell what it was about."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        worker, *_ = await two_sessions(cluster)
        await worker.send(wrong)
        assert await worker.refused() == ("bad_message", 4400)

    play(scene)


def test_a_flood_of_wrong_frames_ends_the_connection() -> None:
    """Each is answered, so they have a bound: 4429."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        worker, _, session, _, _ = await two_sessions(cluster)
        for _ in range(WRONG_BURST + 50):
            await say(worker, WRONG["negative ack"], session)
        assert await worker.closed() == 4429

    play(scene)


@pytest.mark.long
@pytest.mark.parametrize("flood", [{"type": "ping"}, {"type": "of_tomorrow"}, {"type": "app_terminated"}])
def test_a_flood_of_frames_that_are_no_messages_ends_the_connection(flood: Json) -> None:
    """fair: a worker's pings and frames of unknown type have a rate as a client's have; beyond it 4429."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        worker, *_ = await two_sessions(cluster)
        with suppress(trio_websocket.ConnectionClosed):
            for _ in range(OTHERS_BURST + 5000):
                await worker.send(flood)
        assert await worker.closed() == 4429

    play(scene)


def test_a_worker_of_many_sessions_is_within_the_rate() -> None:
    """A thousand frames of unknown type at once, one for each of its sessions, and a ping: each is answered."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        worker, *_ = await two_sessions(cluster)
        for _ in range(1000):
            await worker.send({"type": "of_tomorrow"})
        await worker.send({"type": "ping"})
        told = await worker.quiet()
        assert sum(frame.get("code") == "unknown_type" for frame in told) == 1000
        assert "pong" in [frame["type"] for frame in told]

    play(scene)


def test_a_flood_of_acks_never_handed_out_ends_the_connection() -> None:
    """Each is answered and noted in the log, so they have a bound: 4429."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        worker, _, session, _, _ = await two_sessions(cluster)
        for _ in range(WRONG_BURST + 50):
            await worker.send({"type": "ack", "session": session, "seq": SEQ_MAX})
        assert await worker.closed() == 4429

    play(scene)
