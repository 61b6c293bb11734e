"""A canvas: what its sockets share, as the guide of its programs says it."""

import trio

from signald.testing.cluster import Cluster, play
from tests.dialects.canvas.sockets import ON, Socket


def test_edits_and_chat_reach_the_others_and_the_next() -> None:
    """An edit goes to all others, a chat to all; a socket that restores the session has both."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("one", **ON)
        anna, ben = await Socket.open(cluster, "one"), await Socket.open(cluster, "one")
        empty = await anna.restore()
        assert (empty["canvas_state"], empty["chat_history"]) == ({}, [])
        await ben.restore()
        await anna.say("canvas_update", patch={"a": {"x": 1}, "b": [1, "zwei"], "c": 0})
        seen = await ben.hear("canvas_update")
        assert seen["patch"] == {"a": {"x": 1}, "b": [1, "zwei"], "c": 0}
        assert (seen["from"], seen["version"]) == (empty["member"], 1)
        await ben.say("canvas_update", patch={"b": None, "a": "whole"})
        assert (await anna.hear("canvas_update"))["patch"] == {"a": "whole", "b": None}
        await anna.say("chat_message", message={"text": "hello"})
        told = [await one.hear("chat_message") for one in (anna, ben)]
        assert told[0] == told[1]
        assert told[0]["message"] == {"text": "hello"}
        assert told[0]["at"].startswith("2023-11-14T")
        late = await Socket.open(cluster, "one")
        found = await late.restore()
        assert found["canvas_state"] == {"a": "whole", "c": 0}
        assert found["chat_history"] == [{key: told[0][key] for key in ("message", "from", "at")}]
        assert await anna.peer.quiet() == []  # of its own edit it is told nothing

    play(scene)


def test_a_socket_outside_the_session_is_told_pongs_only() -> None:
    """Before it has restored, edited or said something, nothing but `pong` is sent to a socket."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("one", **ON)
        watcher, anna = await Socket.open(cluster, "one"), await Socket.open(cluster, "one")
        await anna.say("chat_message", message="first")
        await anna.hear("chat_message")
        await watcher.say("ping")
        assert await watcher.hear("pong") == {"type": "pong"}
        await anna.say("canvas_update", patch={"a": 1})
        await anna.say("cursor", x=1)
        assert await watcher.peer.quiet() == []
        await watcher.say("canvas_update", patch={"b": 2})  # comes in by it
        assert (await anna.hear("canvas_update"))["patch"] == {"b": 2}
        await anna.say("canvas_update", patch={"c": 3})
        assert (await watcher.hear("canvas_update"))["patch"] == {"c": 3}

    play(scene)


def test_other_objects_are_passed_on_and_not_kept() -> None:
    """Any other object with a type goes to all others as it is, and no later socket is told of it."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("one", **ON)
        anna, ben = await Socket.open(cluster, "one"), await Socket.open(cluster, "one")
        await anna.restore()
        await ben.restore()
        await anna.say("cursor", x=1, by={"name": "Anna"})
        assert await ben.hear("cursor") == {"type": "cursor", "x": 1, "by": {"name": "Anna"}}
        await anna.say("cursor", x=2, id="c-1")
        await anna.say("cursor", x=2, id="c-1")
        assert await ben.hear("cursor") == {"type": "cursor", "x": 2, "id": "c-1"}
        assert await ben.peer.quiet() == await anna.peer.quiet() == []
        late = await Socket.open(cluster, "one")
        found = await late.restore()
        assert (found["canvas_state"], found["chat_history"]) == ({}, [])
        assert await late.peer.quiet() == []

    play(scene)


def test_the_words_of_the_server_are_not_passed_on() -> None:
    """A socket cannot speak for the server, and a credential is no object for others."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("one", **ON)
        liar, ben = await Socket.open(cluster, "one"), await Socket.open(cluster, "one")
        await ben.restore()
        for kind in ("session_restored", "pong", "error"):
            await liar.say(kind, canvas_state={}, chat_history=[], id="x")
            assert (await liar.hear("error"))["id"] == "x"
        await liar.say("auth", auth="a secret")
        assert await ben.peer.quiet() == []

    play(scene)


WRONG: list[tuple[str | bytes, str]] = [
    ("", ""),
    ("nonsense", ""),
    ("[]", ""),
    ('"ping"', ""),
    ("{}", ""),
    ('{"type":1}', ""),
    ('{"type":""}', ""),
    ('{"type":"' + "x" * 65 + '"}', ""),
    (b'{"type":"ping"}', ""),
    ('{"type":"canvas_update","id":"m"}', "m"),
    ('{"type":"canvas_update","patch":[],"id":"m"}', "m"),
    ('{"type":"canvas_update","patch":{"":1},"id":"m"}', "m"),
    ('{"type":"canvas_update","patch":{"' + "k" * 129 + '":1},"id":"m"}', "m"),
    ('{"type":"chat_message","id":"m"}', "m"),
    ('{"type":"chat_message","message":"hi","id":""}', ""),
    ('{"type":"chat_message","message":"hi","id":"' + "x" * 65 + '"}', ""),
    ('{"type":"chat_message","message":"hi","id":7}', ""),
    ('{"type":"cursor","x":}', ""),
    ('{"type":"cursor","x":' + "[" * 200 + "]" * 200 + ',"id":"m"}', "m"),
    ('{"type":"restore_session","session_id":"board-2"}', ""),
    ('{"type":"chat_message","message":"\\ud800"}', ""),
]
"""Frames that are wrong, and the id that their error has."""


def test_a_wrong_frame_costs_an_error_and_nothing_else() -> None:
    """Each wrong frame is answered for its sender, which goes on; others hear nothing."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("one", **ON)
        clumsy, ben = await Socket.open(cluster, "one"), await Socket.open(cluster, "one")
        await ben.restore()
        for frame, named in WRONG:
            await clumsy.peer.socket.send_message(frame)
            told = await clumsy.hear("error")
            assert told["message"], frame
            assert "\\ud800" not in told["message"]
            assert told.get("id", "") == named, frame
        assert await ben.peer.quiet() == []
        await clumsy.say("canvas_update", patch={"a": 1})
        assert (await ben.hear("canvas_update"))["patch"] == {"a": 1}
        big = {"a" + str(n): "x" * 1000 for n in range(60)}
        await clumsy.say("canvas_update", patch=big)  # a patch of many is no single large record
        assert len((await ben.hear("canvas_update"))["patch"]) == 60

    play(scene)


def test_a_value_beyond_its_bound_is_refused_by_id() -> None:
    """The store refuses what a record may not hold; the sender knows which message it was, and nothing of it is kept."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("one", **ON, rooms={"record_bytes_max": 300, "records_max": 3})
        anna = await Socket.open(cluster, "one")
        await anna.say("canvas_update", patch={"a": "x" * 400, "b": 1}, id="large")
        refused = await anna.hear("error")
        assert (refused["code"], refused["id"]) == ("too_big", "large")
        await anna.say("canvas_update", patch={str(n): n for n in range(4)}, id="many")
        refused = await anna.hear("error")
        assert (refused["code"], refused["id"]) == ("room_full", "many")
        assert (await anna.restore())["canvas_state"] == {}

    play(scene)


def test_a_message_is_taken_once_by_its_id() -> None:
    """A repeated id is taken once, whichever socket and node it comes to, without a second echo."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("one", **ON)
        await cluster.start("two", **ON)
        anna, ben = await Socket.open(cluster, "one"), await Socket.open(cluster, "two")
        await anna.restore()
        await ben.restore()
        await anna.say("chat_message", message="hi", id="m-1")
        assert (await ben.hear("chat_message"))["message"] == "hi"
        await anna.say("canvas_update", patch={"a": 1}, id="e-1")
        assert (await ben.hear("canvas_update"))["patch"] == {"a": 1}
        await anna.hear("chat_message")
        await ben.say("chat_message", message="hi", id="m-1")
        await ben.say("canvas_update", patch={"a": 1}, id="e-1")
        again = await Socket.open(cluster, "two")
        await again.say("chat_message", message="hi", id="m-1")
        assert await anna.peer.quiet() == await ben.peer.quiet() == await again.peer.quiet() == []
        assert [one["message"] for one in (await again.restore())["chat_history"]] == ["hi"]

    play(scene)


def test_a_chat_outlives_the_log_of_its_room() -> None:
    """However much is drawn, what was said is told to the next; also what a member of signald.v1 has said."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("one", **ON, rooms={"history_messages_max": 5}, limits={"messages_per_s": 1000.0})
        anna = await Socket.open(cluster, "one")
        for word in ("one", "two"):
            await anna.say("chat_message", message=word)
            await anna.hear("chat_message")
        member, _ = await cluster.client("one", pair=False)
        await member.ask({"type": "join", "room": "canvas:board-1"}, "joined")
        await member.ask(
            {"type": "publish", "room": "canvas:board-1", "seq": 1, "kind": "chat", "data": "three"}, "published"
        )
        await anna.hear("chat_message")
        for n in range(30):
            await anna.say("canvas_update", patch={"a": n})
        late = await Socket.open(cluster, "one")
        await trio.sleep(1)
        found = await late.restore()
        assert [one["message"] for one in found["chat_history"]] == ["one", "two", "three"]
        assert found["canvas_state"] == {"a": 29}

    play(scene)


def test_a_member_of_signald_v1_shares_the_canvas() -> None:
    """Edits are records with the property `value`, and a chat is a publication of kind `chat`, in both directions."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("one", **ON)
        anna = await Socket.open(cluster, "one", "b%C3%BChne")
        await anna.restore("b\u00fchne")
        member, started = await cluster.client("one", pair=False)
        room = "canvas:b~c3~bchne"
        joined = await member.ask({"type": "join", "room": room, "state": True}, "joined")
        assert joined["members_count"] == 2
        await anna.say("canvas_update", patch={"a": {"x": 1}, "b": None})
        seen = await member.expect("room_message")
        assert (seen["put"], seen["remove"]) == ({"a": {"value": {"x": 1}}}, ["b"])
        await anna.say("chat_message", message="hi")
        seen = await member.expect("room_message")
        assert (seen["kind"], seen["data"]) == ("chat", "hi")
        assert (await anna.hear("chat_message"))["message"] == "hi"
        await member.send(
            {"type": "publish", "room": room, "seq": 1, "put": {"c": {"value": 1, "z": 2}, "d": {"z": 1}}}
        )
        told = await anna.hear("canvas_update")
        assert (told["patch"], told["from"]) == ({"c": 1, "d": None}, started["session"])
        await member.send({"type": "publish", "room": room, "seq": 2, "patch": {"c": {"z": 3}}})
        await member.send(
            {"type": "publish", "room": room, "seq": 3, "patch": {"c": {"value": [2]}, "a": {"value": None}}}
        )
        assert (await anna.hear("canvas_update"))["patch"] == {"c": [2], "a": None}
        await member.send({"type": "publish", "room": room, "seq": 4, "kind": "chat", "data": {"text": "ho"}})
        assert (await anna.hear("chat_message"))["message"] == {"text": "ho"}
        await member.send({"type": "publish", "room": room, "seq": 5, "kind": "other", "data": "not for a canvas"})
        await member.expect("published")
        assert (await anna.restore("b\u00fchne"))["canvas_state"] == {"c": [2]}
        await anna.peer.socket.aclose()
        left: list[str] = []
        while not left:
            left = (await member.expect("room_presence")).get("left", [])
        assert len(left) == 1

    play(scene)
