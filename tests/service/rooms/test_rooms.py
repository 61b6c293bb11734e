"""Rooms over the wire: two clients join, publish, see each other, and leave."""

from typing import Any

import trio

from signald.testing.cluster import Cluster, play
from signald.testing.wire import Json, Peer


async def join(peer: Peer, room: str = "r:1", **fields: object) -> Json:
    """Join a room, and return the answer."""
    await peer.send({"type": "join", "room": room, **fields})
    return await peer.expect("joined")


async def publish(peer: Peer, seq: int, room: str = "r:1", **fields: object) -> None:
    """Publish in a room."""
    await peer.send({"type": "publish", "room": room, "seq": seq, **fields})


def test_a_publication_goes_to_the_others() -> None:
    """The publisher is told its position, and the other what was published."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("a")
        (ada, started), (bob, _) = await cluster.client("a", pair=False), await cluster.client("a", pair=False)
        first = await join(ada, presence={"name": "Ada"})
        assert first["recovered"] is False
        assert first["wipe"] is True
        assert (first["position"], first["next_seq"], first["replaying"]) == (0, 1, 0)
        assert first["members"] == [{"member": started["session"], "presence": {"name": "Ada"}}]
        second = await join(bob)
        assert second["members_count"] == 2
        came = await ada.expect("room_presence")
        assert [one["presence"] for one in came["joined"]] == [None]
        await publish(ada, 1, data={"text": "hello"}, kind="chat")
        assert await ada.expect("published") == {"type": "published", "room": "r:1", "seq": 1, "position": 1}
        seen = await bob.expect("room_message")
        assert seen.pop("at_ms") > 0
        assert seen == {
            "type": "room_message", "room": "r:1", "position": 1, "member": started["session"],
            "kind": "chat", "data": {"text": "hello"},
        }  # fmt: skip
        await bob.send({"type": "leave", "room": "r:1"})
        assert (await bob.expect("left"))["reason"] == "left"
        assert (await ada.expect("room_presence"))["left"] == [second["members"][-1]["member"]]
        assert await bob.quiet() == []

    play(scene)


def test_rooms_go_along_to_another_node() -> None:
    """Who resumes elsewhere names the rooms, is told `joined` behind the answer and what was missed, and goes on under the same seqs."""

    async def scene(cluster: Cluster) -> None:
        for name in ("a", "b"):
            await cluster.start(name)
        (ada, started), (bob, _) = await cluster.client("a", pair=False), await cluster.client("b", pair=False)
        epoch = (await join(ada))["epoch"]
        await join(bob)
        for seq in (1, 2):
            await publish(ada, seq, data=seq)
        await publish(bob, 1, data="bob")
        while (await ada.expect("published"))["seq"] < 2:
            pass
        await ada.expect("room_message")
        assert [(await bob.expect("room_message"))["data"] for _ in range(2)] == [1, 2]
        await bob.expect("published")
        await bob.quiet()
        ada.cut()
        await publish(bob, 2, data="missed")
        await bob.expect("published")
        position = {"room": "r:1", "received": 3, "epoch": epoch}
        ada, answer = await cluster.restore("b", started["recovery_token"], rooms=[position])
        assert answer["type"] == "session_restored"
        joined = await ada.expect("joined")
        assert (joined["epoch"], joined["recovered"], joined["wipe"]) == (epoch, True, False)
        assert (joined["position"], joined["replaying"], joined["next_seq"]) == (4, 1, 3)
        assert (await ada.expect("room_message"))["data"] == "missed"
        await publish(ada, 3, data="again")
        assert (await ada.expect("published"))["position"] == 5
        assert (await bob.expect("room_message"))["data"] == "again"
        assert await bob.quiet() == [], "nobody is told that a member has moved"

    play(scene)


def test_members_of_two_nodes_are_told_in_one_order() -> None:
    """Each gets what the others publish and hears of its own, in order of position, however they mix."""

    async def scene(cluster: Cluster) -> None:
        for name in ("a", "b"):
            await cluster.start(name)
        peers = [(await cluster.client(name, pair=False))[0] for name in ("a", "b", "a")]
        for peer in peers:
            await join(peer)
        count = 20

        async def talk(peer: Peer) -> list[Json]:
            for seq in range(1, count + 1):
                await publish(peer, seq, data=seq)
                if seq % 5 == 0:
                    await trio.sleep(0.01)
            return [one for one in await peer.quiet(2.0) if one["type"] in ("published", "room_message")]

        told: list[list[Json]] = []

        async def keep(peer: Peer) -> None:
            told.append(await talk(peer))

        async with trio.open_nursery() as nursery:
            for peer in peers:
                nursery.start_soon(keep, peer)
        logs: list[list[Any]] = []
        for frames in told:
            positions = [one["position"] for one in frames]
            assert positions == sorted(set(positions))
            others = [one for one in frames if one["type"] == "room_message"]
            assert len(others) == 2 * count
            published = [one["seq"] for one in frames if one["type"] == "published"]
            assert published[-1] == count
            logs.append([(one["position"], one["member"], one["data"]) for one in others])
        both = set(logs[0]) | set(logs[1]) | set(logs[2])
        assert sorted(position for position, _, _ in both) == list(range(1, 3 * count + 1))

    play(scene)
