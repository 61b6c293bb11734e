"""Rooms on the Trio driver, against a node that does as it is told."""

from typing import Any

import pytest
import trio
import trio.testing

from signald.ids import SeededEntropy
from signald.sdk.room_events import RoomPublication, RoomReset
from signald.sdk.room_outgoing import WAITING_MAX
from signald.sdk.trio import Client, Room, RoomGone, SessionGone, WorkerSession, open_worker
from tests.sdk.client_play import play
from tests.sdk.peer import Accepted, ScriptedPeer


async def let_in(connection: Accepted, room: str = "r", **changes: Any) -> dict[str, Any]:
    """Answer the next `join`, or tell a room that the opening message has named; return the join."""
    join = {} if changes.get("recovered") else await connection.until("join")
    await connection.send(
        **{
            "type": "joined",
            "room": room,
            "epoch": "e",
            "position": 0,
            "next_seq": 1,
            "replaying": 0,
            "recovered": False,
            "wipe": True,
            "members": [],
            "members_count": 1,
            **changes,
        }
    )
    return join


async def say(connection: Accepted, position: int, data: Any, **more: Any) -> None:
    """Another member publishes."""
    await connection.send(
        **{"type": "room_message", "room": "r", "position": position, "member": "s_9", "at_ms": 1, "data": data, **more}
    )


async def data_of(room: Room) -> Any:
    """Return what the next event brings."""
    event = await anext(room)
    assert isinstance(event, RoomPublication)
    return event.data


def test_a_resume_names_the_room_and_goes_on() -> None:
    """What is not confirmed is sent again from the seq that the answer names; what was missed comes once, in order."""

    async def script(peer: ScriptedPeer) -> None:
        first = await peer.accept()
        await first.start_session()
        assert await let_in(first) == {"type": "join", "room": "r"}
        await say(first, 1, "one")
        for seq in (1, 2, 3):
            assert (await first.until("publish"))["seq"] == seq
        await first.send(type="published", room="r", seq=1, position=2)
        await first.cut()
        second = await peer.accept()
        opening = await second.restore_session(accepted=0)
        assert opening["rooms"] == [{"room": "r", "received": 2, "epoch": "e"}]
        await second.send(type="room_message", room="r", position=3, member="s_9", at_ms=1, data="not yet in")
        await let_in(second, position=5, next_seq=3, recovered=True, replaying=3)
        await say(second, 3, "three")
        await say(second, 4, "b", member="s_1", seq=2)
        await say(second, 5, "five")
        assert (await second.until("publish"))["seq"] == 3
        await second.send(type="published", room="r", seq=3, position=6)

    async def application(client: Client) -> None:
        async with client.room("r") as room:
            assert await data_of(room) == "one"
            for data in "abc":
                await room.publish(data)
            assert [await data_of(room), await data_of(room)] == ["three", "five"]
            await room.flush()
            assert (room.position, room.unconfirmed, client.connections) == (6, 0, 2)

    play(script, application)


def test_a_move_listens_to_the_connection_that_serves() -> None:
    """The old connection tells of the room until the new one is answered; a room joined in between is joined behind the answer."""

    async def script(peer: ScriptedPeer) -> None:
        old = await peer.accept()
        await old.start_session()
        await let_in(old)
        await old.send(type="goaway", reason="drain", not_before_ms=0, deadline_ms=5000)
        new = await peer.accept()
        opening = await new.receive()
        assert [each["room"] for each in opening["rooms"]] == ["r"]
        await say(old, 1, "on the old one")
        await old.send(type="realtime", data="come")
        assert (await let_in(old, "late", position=7))["room"] == "late"
        await old.send(type="realtime", data="come")
        await trio.sleep(1)
        await new.send(
            type="session_restored", session="s_1", recovery_token="s_1.x", token_ttl_ms=1, accepted=0, replaying=0,
            peer={"state": "paired", "id": "w_1"}, heartbeat_ms=20_000,
        )  # fmt: skip
        await let_in(new, position=1, recovered=True, replaying=1)
        await say(new, 1, "on the old one")
        await say(new, 2, "on the new one")
        await say(old, 2, "a lie")
        join = await new.until("join")
        assert (join["room"], join["received"], join["epoch"]) == ("late", 7, "e")

    async def application(client: Client) -> None:
        async with client.room("r") as room:
            assert await data_of(room) == "on the old one"
            async with client.room("late"):
                assert await data_of(room) == "on the new one"

    play(script, application)


def test_a_room_that_is_left_during_a_move_is_left_on_both_connections() -> None:
    """The opening message has named the room, so the answer gives the seat again that the old connection has given back."""

    async def script(peer: ScriptedPeer) -> None:
        old = await peer.accept()
        await old.start_session()
        await let_in(old)
        await old.send(type="goaway", reason="drain", not_before_ms=0, deadline_ms=5000)
        new = await peer.accept()
        opening = await new.receive()
        assert [each["room"] for each in opening["rooms"]] == ["r"]
        await say(old, 1, "the last one")
        await old.until("leave")
        await old.send(type="left", room="r", reason="left")
        await trio.sleep(1)
        await new.send(
            type="session_restored", session="s_1", recovery_token="s_1.x", token_ttl_ms=1, accepted=0, replaying=0,
            peer={"state": "paired", "id": "w_1"}, heartbeat_ms=20_000,
        )  # fmt: skip
        assert await new.until("leave") == {"type": "leave", "room": "r"}

    async def application(client: Client) -> None:
        async with client.room("r") as room:
            assert await data_of(room) == "the last one"
        assert room.ended is None
        await trio.sleep(2)
        assert room.ended == "left"

    play(script, application)


def test_a_worker_says_the_rooms_of_each_session() -> None:
    """Each frame names the session, and so does the resume; a session that is taken away ends its rooms."""
    ends: list[str | None] = []

    async def handler(session: WorkerSession) -> None:
        async with session.room("r", state=True) as room:
            await room.publish("x")
            try:
                async for _ in room:
                    pass
            finally:
                ends.append(room.ended)

    async def script(peer: ScriptedPeer) -> None:
        first = await peer.accept()
        await first.accept_app()
        for name in ("s_1", "s_2"):
            await first.assign(name)
            assert await let_in(first, session=name, position=4) == {
                "type": "join", "session": name, "room": "r", "state": True,
            }  # fmt: skip
            publish = await first.until("publish")
            assert (publish["session"], publish["seq"]) == (name, 1)
        await first.cut()
        second = await peer.accept()
        opening = await second.reaccept_app(kept={"s_1": 0}, lost=["s_2"])
        assert [each["rooms"] for each in opening["sessions"]] == [
            [{"room": "r", "received": 4, "epoch": "e", "state": True}]
        ] * 2
        await let_in(second, session="s_1", position=4, recovered=True, next_seq=1)
        assert (await second.until("publish"))["session"] == "s_1"
        await second.send(type="session_ended", session="s_1", reason="bye")
        await trio.sleep(1)

    async def main() -> None:
        peer = ScriptedPeer()
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(script, peer)
                async with open_worker(
                    "ws://w", handler, instance_id="a", capacity=2, dial=peer.dial, entropy=SeededEntropy(1)
                ):
                    while len(ends) < 2:  # noqa: ASYNC110 - in virtual time a poll costs nothing
                        await trio.sleep(0.1)
                nursery.cancel_scope.cancel(reason="both sessions are over")
        assert ends == ["lost", "bye"]

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_a_block_that_is_left_says_so_when_all_is_confirmed() -> None:
    """Also over a move; a program that enters again meanwhile waits for the answer."""

    async def script(peer: ScriptedPeer) -> None:
        first = await peer.accept()
        await first.start_session()
        await let_in(first)
        await first.until("publish")
        await first.cut()
        second = await peer.accept()
        await second.restore_session(accepted=0)
        await let_in(second, recovered=True)
        await second.until("publish")
        with trio.move_on_after(1) as silent:
            await second.until("leave")
        assert silent.cancelled_caught
        await second.send(type="published", room="r", seq=1, position=1)
        assert await second.until("leave") == {"type": "leave", "room": "r"}
        await second.send(type="left", room="r", reason="left")
        await let_in(second, position=1)

    async def application(client: Client) -> None:
        async with client.room("r") as room:
            await room.publish("last")
        with pytest.raises(ValueError, match="name of a room"):
            async with client.room("no room"):
                pass
        async with client.room("r") as again:
            assert (again.position, room.ended) == (1, "left")
            assert [event async for event in room] == []

    play(script, application)


def test_a_writer_waits_while_too_much_is_unconfirmed() -> None:
    """And goes on as soon as there is room, and no sooner when others publish; the end of the session wakes it."""

    async def script(peer: ScriptedPeer) -> None:
        connection = await peer.accept()
        await connection.start_session()
        await let_in(connection)
        await trio.sleep(4)
        await say(connection, 1, "another member")
        await trio.sleep(1)
        await connection.send(type="published", room="r", seq=1, position=2)
        await trio.sleep(5)
        await connection.send(type="session_ended", reason="bye")

    async def application(client: Client) -> None:
        async with client.room("r") as room:
            for number in range(WAITING_MAX):
                await room.publish(number)
            assert trio.current_time() < 4
            await room.publish("waits")
            assert trio.current_time() >= 5
            with pytest.raises(SessionGone):
                await room.publish("too late")
            with pytest.raises(SessionGone):
                await room.flush()
            assert [event.data async for event in room if isinstance(event, RoomPublication)] == ["another member"]
            with pytest.raises(SessionGone):
                async with client.room("other"):
                    pass

    play(script, application)


def test_a_flush_waits_for_the_last_of_them() -> None:
    """One that is confirmed by itself does not end it."""

    async def script(peer: ScriptedPeer) -> None:
        connection = await peer.accept()
        await connection.start_session()
        await let_in(connection)
        for seq in (1, 2):
            await trio.sleep(5)
            await connection.send(type="published", room="r", seq=seq, position=seq)
        await connection.until("leave")
        await connection.send(type="left", room="r", reason="left")

    async def application(client: Client) -> None:
        async with client.room("r") as room:
            for number in range(2):
                await room.publish(number)
            await room.flush()
            assert (room.unconfirmed, room.position) == (0, 2)
            assert trio.current_time() >= 10

    play(script, application)


def test_put_out_and_lost() -> None:
    """The reader gets what was told before, then the reason; a room that the store has lost begins anew by itself."""

    async def script(peer: ScriptedPeer) -> None:
        connection = await peer.accept()
        await connection.start_session()
        await let_in(connection, records={"a": {"x": 1}})
        await say(connection, 1, "one")
        await connection.send(
            type="joined", room="r", epoch="f", position=3, next_seq=1, replaying=0, recovered=False, wipe=True,
            members=[], members_count=1, records={"b": {"x": 2}}, removed=[],
        )  # fmt: skip
        await say(connection, 4, "four")
        await connection.send(type="left", room="r", reason="forbidden")

    async def application(client: Client) -> None:
        async with client.room("r", state=True) as room:
            assert await data_of(room) == "one"
            assert await anext(room) == RoomReset(3, lost=True)
            assert await data_of(room) == "four"
            assert {name: dict(record) for name, record in room.records.items()} == {"b": {"x": 2}}
            with pytest.raises(RoomGone, match="forbidden"):
                await anext(room)
            with pytest.raises(RoomGone, match="forbidden"):
                await room.publish(1)
            with pytest.raises(RoomGone, match="forbidden"):
                await room.flush()
        await client.send("the session goes on")

    play(script, application)
