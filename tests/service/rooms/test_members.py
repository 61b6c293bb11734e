"""Membership: by right, by number, and in the room that each user has."""

from signald.core.rooms import Publication
from signald.ids import new_nonce
from signald.service.rooms.bounds import bounds_of
from signald.store.room.ops import Post
from signald.testing.cluster import Cluster, play
from signald.wire.records import publication_body
from signald.wire.rooms import ROOMS_MAX
from tests.service.rooms.opening import come, join, publish
from tests.service.test_credentials import AUTH, token


async def post(cluster: Cluster, node: str, room: str, data: bytes) -> None:
    """Publish as a service does."""
    context = cluster.nodes[node].hub.context
    epoch, bounds = new_nonce(context.entropy), bounds_of(context.config.rooms)
    said = Publication(0, publication_body(None, data, None))
    await context.committer.call(Post(room, context.node, b"", epoch, said, bounds, context.now_ms()))
    cluster.nodes[node].hub.rooms.look(room)


def test_rights_are_those_of_the_claim() -> None:
    """A room without the right to join is not entered; in another one the party does what it may."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("a", auth=AUTH)
        claim = {"talk": ["join", "publish"], "view:*": ["join"]}
        ada, _ = await cluster.client("a", pair=False, auth=token(3600, rooms=claim))
        await ada.send({"type": "join", "room": "secret"})
        assert await ada.expect("left") == {"type": "left", "room": "secret", "reason": "forbidden"}
        await join(ada, "talk")
        await join(ada, "view:1")
        for room, fields, code in (
            ("talk", {"put": {"a": {}}}, "forbidden"),
            ("view:1", {"data": 1}, "forbidden"),
            ("secret", {"data": 1}, "forbidden"),
        ):
            await publish(ada, 1, room, **fields)
            error = await ada.expect("room_error")
            assert (error["room"], error["code"]) == (room, code)
        await publish(ada, 2, "talk", data=1)
        assert (await ada.expect("published"))["position"] == 1

    play(scene)


def test_each_user_has_a_room_of_its_own() -> None:
    """Its sessions are members unasked, at any node and after a resume; only services publish there."""

    async def scene(cluster: Cluster) -> None:
        for name in ("a", "b"):
            await cluster.start(name, auth=AUTH)
        ada, started = await cluster.client("a", pair=False, auth=token(3600, sub="ada"), api=True)
        assert (await ada.expect("joined"))["room"] == "user:ada"
        other, _ = await cluster.client("b", pair=False, auth=token(3600, sub="ada"), api=True)
        joined = await other.expect("joined")
        assert (joined["room"], joined["members_count"]) == ("user:ada", 2)
        silent, _ = await cluster.client("b", pair=False, auth=token(3600, sub="ada"))
        assert await silent.quiet() == []
        await post(cluster, "b", "user:ada", b'"news"')
        for peer in (ada, other):
            seen = await peer.expect("room_message")
            assert (seen["data"], seen["member"], seen["position"]) == ("news", "", 1)
        await publish(ada, 1, "user:ada", data=1)
        assert (await ada.expect("room_error"))["code"] == "forbidden"
        eve, _ = await cluster.client("a", pair=False, auth=token(3600, sub="eve"))
        await eve.send({"type": "join", "room": "user:ada"})
        assert (await eve.expect("left"))["reason"] == "forbidden"
        ada.cut()
        await post(cluster, "b", "user:ada", b'"missed"')
        position = {"room": "user:ada", "received": 1, "epoch": joined["epoch"]}
        ada, _ = await cluster.restore(
            "b", started["recovery_token"], auth=token(3600, sub="ada"), api=True, rooms=[position]
        )
        frames = await ada.quiet()
        # The refusal of the life before is told again, because it may not have arrived.
        assert [one["type"] for one in frames] == ["room_error", "joined", "room_message"]
        assert (frames[1]["replaying"], frames[2]["data"]) == (1, "missed")

    play(scene)


def test_a_room_and_a_session_have_bounds() -> None:
    """A party that comes beyond one of them is told why, and keeps the rest."""

    async def scene(cluster: Cluster) -> None:
        (ada, _), (bob, _) = await come(cluster, "aa", rooms={"members_max": 1})
        await join(ada)
        await bob.send({"type": "join", "room": "r:1"})
        assert (await bob.expect("left"))["reason"] == "room_full"
        for number in range(ROOMS_MAX - 1):
            await join(ada, f"more:{number}")
        await ada.send({"type": "join", "room": "one:more"})
        assert (await ada.expect("left"))["reason"] == "too_many"
        await ada.send({"type": "leave", "room": "more:1"})
        await ada.expect("left")
        await join(ada, "one:more")
        assert len(cluster.nodes["a"].hub.rooms.rooms_of((await join(ada))["members"][0]["member"])) == ROOMS_MAX

    play(scene)


def test_a_member_that_joins_again_is_told_again() -> None:
    """With what it says it has; the others see one member."""

    async def scene(cluster: Cluster) -> None:
        (ada, _), (bob, _) = await come(cluster, "aa")
        await join(bob)
        epoch = (await join(ada))["epoch"]
        for seq in (1, 2, 3):
            await publish(bob, seq, data=seq)
        for _ in range(3):
            await ada.expect("room_message")
        await bob.quiet()
        again = await join(ada, received=1, epoch=epoch)
        assert (again["recovered"], again["replaying"], again["members_count"]) == (True, 2, 2)
        assert [(await ada.expect("room_message"))["data"] for _ in range(2)] == [2, 3]
        assert await bob.quiet() == []

    play(scene)
