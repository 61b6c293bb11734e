"""A canvas through deploys: the order of a drain, what arrives in it, two nodes, and nodes that are killed."""

import trio

from signald.testing.cluster import Cluster, play
from signald.wire.close_codes import CloseCode
from tests.dialects.canvas.sockets import ON, OPENING, Socket, text


async def ghosts(cluster: Cluster, node: str, room: str = "canvas:board-1") -> int:
    """Return how many members a room has beside the one that looks."""
    member, _ = await cluster.client(node, pair=False)
    joined = await member.ask({"type": "join", "room": room}, "joined")
    await member.send({"type": "bye"})
    await member.closed()
    return int(joined["members_count"]) - 1


def test_a_deploy_closes_with_1001_and_loses_nothing() -> None:
    """The sockets are closed once the next node is ready; arrivals get 1013; edits, chat and ids are there on the next node."""

    async def scene(cluster: Cluster) -> None:
        old = await cluster.start("old", **ON)
        anna, ben = await Socket.open(cluster, "old"), await Socket.open(cluster, "old")
        await anna.restore()
        await ben.restore()
        await anna.say("canvas_update", patch={"a": 1, "b": 2}, id="e-1")
        await ben.hear("canvas_update")
        await ben.say("chat_message", message="before", id="m-1")
        await anna.hear("chat_message")
        old.shutdown.signal()
        await trio.sleep(1)
        late = await Socket.open(cluster, "old")
        assert await late.peer.closed() == 1013
        assert late.peer.close_reason.startswith("come again in ")
        await anna.say("ping")
        await anna.hear("pong")  # there is no next node yet, so it is served
        await cluster.start("new", **ON)
        assert await anna.peer.closed() == 1001
        assert await ben.peer.closed() == 1001
        await cluster.wait_exit("old")
        anna, ben = await Socket.open(cluster, "new"), await Socket.open(cluster, "new")
        found = await anna.restore()
        assert found["canvas_state"] == {"a": 1, "b": 2}
        assert [one["message"] for one in found["chat_history"]] == ["before"]
        await ben.restore()
        await ben.say("chat_message", message="before", id="m-1")
        await ben.say("chat_message", message="after")
        assert (await anna.hear("chat_message"))["message"] == "after"
        assert await ghosts(cluster, "new") == 2

    play(scene)


def test_an_arrival_at_a_node_that_restarts() -> None:
    """An arrival behind the goodbyes is told 1001, in the words of that wire, where `signald.v1` says 1012."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("a", **ON)
        node.hub.refusing = {"client": CloseCode.RESTARTING}
        assert await (await Socket.open(cluster, "a")).peer.closed() == 1001

    play(scene)


def test_what_arrives_before_the_close_of_the_client_is_taken() -> None:
    """A program that reads its 1001 late has sent more meanwhile; all of it is stored."""

    async def scene(cluster: Cluster) -> None:
        old = await cluster.start("old", **ON)
        await cluster.start("new", **ON)
        ben = await Socket.open(cluster, "new")
        await ben.restore()
        raw = cluster.plain("old")
        await raw.send_all(OPENING)
        assert (await raw.receive_some()).startswith(b"HTTP/1.1 101 ")
        await raw.send_all(text({"type": "canvas_update", "patch": {"early": 1}}))
        assert (await ben.hear("canvas_update"))["patch"] == {"early": 1}
        old.shutdown.signal()
        heard = b""
        while b"\x03\xe9" not in heard:  # 1001
            heard += await raw.receive_some()
        await raw.send_all(text({"type": "canvas_update", "patch": {"late": 1}}))
        await raw.send_all(text({"type": "chat_message", "message": "late"}) + b"\x88\x82\0\0\0\0\x03\xe9")
        assert (await ben.hear("canvas_update"))["patch"] == {"late": 1}
        assert (await ben.hear("chat_message"))["message"] == "late"
        await cluster.wait_exit("old")

    play(scene)


def test_sockets_of_two_nodes_share_a_canvas() -> None:
    """Edits and chat in one order, and what is passed on, across nodes."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("one", **ON)
        await cluster.start("two", **ON)
        anna, ben = await Socket.open(cluster, "one"), await Socket.open(cluster, "two")
        await anna.restore()
        await ben.restore()
        for n in range(20):
            await (anna if n % 2 else ben).say("chat_message", message=n)
        told = [[(await one.hear("chat_message"))["message"] for _ in range(20)] for one in (anna, ben)]
        assert told[0] == told[1]
        assert sorted(told[0]) == list(range(20))
        await anna.say("cursor", x=1)
        assert (await ben.hear("cursor"))["x"] == 1
        assert [one["message"] for one in (await anna.restore())["chat_history"]] == told[0]

    play(scene)


def test_a_killed_node_loses_nothing_that_was_told() -> None:
    """A node dies; what others were told of is in the canvas, and a chat has its place in the history."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("one", **ON)
        await cluster.start("two", **ON)
        anna, ben = await Socket.open(cluster, "one"), await Socket.open(cluster, "two")
        await ben.restore()
        await anna.say("canvas_update", patch={"a": 1})
        await anna.say("chat_message", message="last words")
        await ben.hear("canvas_update")
        await ben.hear("chat_message")
        cluster.kill("one")
        again = await Socket.open(cluster, "two")
        found = await again.restore()
        assert found["canvas_state"] == {"a": 1}
        assert [one["message"] for one in found["chat_history"]] == ["last words"]

    play(scene)


def test_a_session_ends_with_its_connection() -> None:
    """A socket that is gone leaves no session and no seat: there is nothing that it could resume."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("one", **ON)
        anna = await Socket.open(cluster, "one")
        await anna.restore()
        assert await ghosts(cluster, "one") == 1
        anna.peer.cut()
        await trio.sleep(1)
        assert await ghosts(cluster, "one") == 0
        assert not node.hub.sessions
        # One that says something and closes at once is heard: its edit needs no answer.
        quick = await Socket.open(cluster, "one")
        await quick.say("canvas_update", patch={"quick": 1})
        await quick.peer.socket.aclose()
        await trio.sleep(1)
        assert (await (await Socket.open(cluster, "one")).restore())["canvas_state"] == {"quick": 1}

    play(scene)


def test_the_receipt_names_the_dialect() -> None:
    """The receipt and the metrics of a drain tell sockets of a canvas from clients of signald.v1."""

    async def scene(cluster: Cluster) -> None:
        old = await cluster.start("old", **ON)
        anna = await Socket.open(cluster, "old")
        await anna.restore()
        await cluster.start("new", **ON)
        old.shutdown.signal()
        assert await anna.peer.closed() == 1001
        late = await Socket.open(cluster, "old")
        assert await late.peer.closed() == 1013
        assert old.hub.counts.openings_refused == {"canvas": 1}
        await cluster.wait_exit("old")
        assert old.shutdown.ledger.totals()["dialects"] == {"canvas": {"moved": 1}}

    play(scene)
