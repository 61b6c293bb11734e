"""The bounds of a canvas, and what its sockets are told at them."""

from collections.abc import Iterator
from typing import Any

import pytest
import trio
import trio.testing

from signald.dialects.canvas import link, outbox
from signald.testing.cluster import Cluster, play
from tests.dialects.canvas.sockets import ON, OPENING, Socket, text

AT = "192.0.2.1"
"""An address, of which rooms are counted."""


def test_a_large_canvas_is_told_in_one_message_of_many_frames() -> None:
    """A state beyond the send queue comes as one text message; heartbeats between its frames are answered behind it."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("one", **ON, limits={"send_queue_bytes_max": 200_000, "messages_per_s": 1000.0})
        anna = await Socket.open(cluster, "one")
        state = {f"shape-{n}": "x" * 50_000 for n in range(20)}
        for name, value in state.items():
            await anna.say("canvas_update", patch={name: value})
        await anna.say("chat_message", message="done")
        await anna.hear("chat_message")
        ben = await Socket.open(cluster, "one", streams=trio.testing.lockstep_stream_pair)
        await ben.say("restore_session", session_id="board-1")
        await trio.sleep(1)
        found = await ben.hear("session_restored")
        assert found["canvas_state"] == state
        await anna.say("canvas_update", patch={"a": 1})
        assert (await ben.hear("canvas_update"))["patch"] == {"a": 1}
        assert len(node.hub.links) == 2

    play(scene)


def test_heartbeats_wait_behind_a_long_answer() -> None:
    """No other message stands between the frames of one (RFC 6455 5.4); a second request meanwhile is answered by it."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("one", **ON, limits={"send_queue_bytes_max": 100_000})
        anna = await Socket.open(cluster, "one")
        for n in range(8):
            await anna.say("canvas_update", patch={f"shape-{n}": "x" * 50_000})
        await anna.say("chat_message", message="done")
        await anna.hear("chat_message")
        ours, theirs = trio.testing.lockstep_stream_pair()
        node.hub.spawn(node.server.serve_stream, theirs, "memory")
        await ours.send_all(OPENING)
        assert (await ours.receive_some()).startswith(b"HTTP/1.1 101 ")
        await ours.send_all(text({"type": "restore_session"}))
        await trio.sleep(1)
        await ours.send_all(text({"type": "ping"}) + text({"type": "restore_session"}))
        await trio.sleep(1)
        heard = b""
        with trio.move_on_after(5):
            while True:
                heard += await ours.receive_some()
        heads = [head for head, payload in frames(heard) if head != 0x89]
        assert heads == [0x01, *[0x00] * (len(heads) - 3), 0x80, 0x81]
        assert len(heads) > 6

    play(scene)


def frames(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the first byte and the payload of each frame of a server."""
    while data:
        length, start = data[1], 2
        if length > 125:
            start = 4 if length == 126 else 10
            length = int.from_bytes(data[2:start], "big")
        yield data[0], data[start : start + length]
        data = data[start + length :]


def test_a_socket_that_is_too_slow_is_told_everything_anew() -> None:
    """It has no word for joining again, so it gets the whole session as soon as it reads."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("one", **ON, limits={"send_queue_messages_max": 20})
        anna = await Socket.open(cluster, "one")
        ben = await Socket.open(cluster, "one", streams=trio.testing.lockstep_stream_pair)
        await ben.restore()
        for n in range(100):
            await anna.say("canvas_update", patch={"a": n})
            await trio.sleep(0.1)
        frames = await ben.peer.quiet()
        assert [one["type"] for one in frames].count("session_restored") >= 1
        state: dict[str, Any] = {}
        for one in frames:
            state = one["canvas_state"] if one["type"] == "session_restored" else {**state, **one["patch"]}
        assert state == {"a": 99}

    play(scene)


def test_over_the_rate_each_message_is_refused_and_a_flood_is_closed() -> None:
    """A refused message is named by its id, and offered again it is taken; a socket that goes on without end gets 1013."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("one", **ON, limits={"messages_per_s": 1.0, "messages_burst": 5})
        anna, ben = await Socket.open(cluster, "one"), await Socket.open(cluster, "one")
        await ben.restore()
        for n in range(6):
            await anna.say("chat_message", message=n, id=f"m-{n}")
        refused = await anna.hear("error")
        assert (refused["code"], refused["id"]) == ("rate", "m-5")
        await trio.sleep(refused["retry_after_ms"] / 1000)
        await anna.say("chat_message", message=5, id="m-5")
        assert [(await ben.hear("chat_message"))["message"] for _ in range(6)] == list(range(6))
        for n in range(20):
            await anna.say("cursor", x=n)
        assert await anna.peer.closed() == 1013
        await ben.say("ping")
        await ben.hear("pong")

    play(scene)


def test_what_waits_for_a_store_that_is_away_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound a message is refused as busy; what waits is stored in its order when the store is back."""
    monkeypatch.setattr(outbox, "WAITING_MAX", 5)

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("one", **ON)
        anna = await Socket.open(cluster, "one")
        await anna.restore()
        back = trio.Event()
        execute = node.committer.store.execute

        async def away(ops: Any) -> Any:
            await back.wait()
            return await execute(ops)

        monkeypatch.setattr(node.committer.store, "execute", away)
        for n in range(6):
            await anna.say("chat_message", message=n, id=f"m-{n}")
        refused = await anna.hear("error")
        assert (refused["code"], refused["id"]) == ("busy", "m-5")
        back.set()
        assert [(await anna.hear("chat_message"))["message"] for _ in range(5)] == list(range(5))
        await anna.say("chat_message", message=5, id="m-5")
        assert (await anna.hear("chat_message"))["message"] == 5

    play(scene)


def test_a_room_that_the_store_has_lost_is_told_anew() -> None:
    """Sockets that have restored the session are told what there is now; what is said then is stored in the new room."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("one", **ON)
        anna, ben = await Socket.open(cluster, "one"), await Socket.open(cluster, "one")
        await anna.restore()
        await ben.restore()
        await anna.say("chat_message", message="kept")
        await ben.hear("chat_message")
        await anna.hear("chat_message")
        await trio.sleep(1)
        cluster.world.rows.drop_room("canvas:board-1")
        await anna.say("canvas_update", patch={"a": 1})
        for one in (anna, ben):
            found = await one.hear("session_restored")
            assert [said["message"] for said in found["chat_history"]] == ["kept"]
        await ben.say("chat_message", message="new")
        await anna.hear("chat_message")
        late = await Socket.open(cluster, "one")
        found = await late.restore()
        assert found["canvas_state"] == {"a": 1}
        assert [said["message"] for said in found["chat_history"]] == ["kept", "new"]

    play(scene)


def test_too_many_members_and_too_many_canvases() -> None:
    """A socket that does not come in is told why, and goes on; what it has said is refused by its id."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("one", **ON, rooms={"members_max": 1, "owned_max": 1})
        anna, ben = await Socket.open(cluster, "one", remote=AT), await Socket.open(cluster, "one", remote=AT)
        await anna.restore()
        await ben.say("chat_message", message="hi", id="m-1")
        told = [await ben.hear("error") for _ in range(2)]
        assert [(one["code"], one.get("id")) for one in told] == [("room_full", None), ("room_full", "m-1")]
        other = await Socket.open(cluster, "one", "board-2", remote=AT)
        await other.say("canvas_update", patch={"a": 1}, id="e-1")
        told = [one["code"] for one in await other.peer.quiet()]
        assert told == ["too_many_made", "too_many_made"]
        await other.say("ping")
        await other.hear("pong")

    play(scene)


def test_an_operator_ends_a_socket() -> None:
    """A session that is ended by order closes its socket with a code that it knows, and ends once."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("one", **ON)
        anna = await Socket.open(cluster, "one")
        member = (await anna.restore())["member"]
        assert await node.hub.endings.by_order(member, "by an operator", "operator")
        assert (await anna.hear("error"))["code"] == "session_ended"
        assert await anna.peer.closed() == 1008
        await trio.sleep(1)
        assert node.hub.counts.ended["operator"] == 1
        assert node.hub.counts.ended["client"] == 0

    play(scene)


def test_what_is_held_back_is_bounded() -> None:
    """The bound is above what the rate of heartbeats allows in the time that an answer may take."""
    assert link.HELD_MAX >= link.OTHERS_BURST
