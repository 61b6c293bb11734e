"""Once and all of it: what falls between a join and being live, between a look and a publication, between a publication and a leave."""

import msgspec
import pytest
import trio
import trio.testing

from signald.core.exits import Cause
from signald.core.rooms import Publication
from signald.service.rooms.bounds import bounds_of
from signald.store.base import Op
from signald.store.room.ops import JoinRoom, Post
from signald.testing.cluster import Cluster, play
from signald.wire.records import publication_body
from signald.wire.rooms import Publish
from tests.service.rooms.opening import come, join, publish, published


def elsewhere(cluster: Cluster, *ops: Op) -> None:
    """Have another node execute `ops`, without a word to the nodes that are here."""
    inboxes, cluster.world._inboxes = cluster.world._inboxes, {}
    cluster.world.execute(ops)
    cluster.world._inboxes = inboxes


def post(cluster: Cluster, said: str) -> Op:
    """A service publishes."""
    context = cluster.nodes["a"].hub.context
    one = Publication(0, publication_body(None, b'"%s"' % said.encode(), None))
    return Post("r:1", "elsewhere", b"", "e", one, bounds_of(context.config.rooms), context.now_ms())


def seat(cluster: Cluster, member: str, epoch: int = 1) -> Op:
    """A member takes its seat at another node."""
    context = cluster.nodes["a"].hub.context
    bounds, now_ms = bounds_of(context.config.rooms), context.now_ms()
    return JoinRoom("r:1", member, "elsewhere", epoch, f"{member} {epoch}", "e", "", 0, b'"there"', bounds, now_ms)


def test_a_member_is_told_who_came_while_it_joined() -> None:
    """It knows of no member twice, and misses none: the node had not heard of this one when it told who is here."""

    async def scene(cluster: Cluster) -> None:
        (ada, _), (bob, _) = await come(cluster, "aa")
        await join(ada)
        elsewhere(cluster, seat(cluster, "s_eve"))
        await bob.send({"type": "join", "room": "r:1"})
        frames = await bob.quiet()
        told = [one["member"] for frame in frames for one in (*frame.get("members", []), *frame.get("joined", []))]
        assert told.count("s_eve") == 1
        assert len(set(told)) == 3

    play(scene)


def test_who_came_while_the_answer_was_on_its_way() -> None:
    """The answer is long and its member slow, so the node hears of another one before the member is live."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("a", limits={"send_queue_messages_max": 20})
        ada, _ = await cluster.client("a", pair=False)
        await join(ada)
        for seq in range(1, 41):
            await publish(ada, seq, put={str(seq): {"text": "x" * 50_000}})
            await trio.sleep(0.1)
        await published(ada, 40)
        bob = await cluster.dial("a", "/v1/client", streams=trio.testing.lockstep_stream_pair)
        await bob.ask({"type": "connect", "pair": False}, "session_started")
        await bob.send({"type": "join", "room": "r:1", "state": True})
        await trio.sleep(1)
        eve, started = await cluster.client("a", pair=False)
        await join(eve, presence="eve")
        await trio.sleep(1)
        frames = await bob.quiet()
        assert len([one for one in frames if one["type"] == "joined"]) > 20
        came = [one for frame in frames for one in (*frame.get("members", []), *frame.get("joined", []))]
        assert [one["presence"] for one in came if one["member"] == started["session"]] == ["eve"]

    play(scene)


@pytest.mark.parametrize("state", [True, False])
def test_what_a_join_has_brought_is_not_told_again(state: bool) -> None:
    """The node had not heard of the last publications: its look tells them to the other members alone."""

    async def scene(cluster: Cluster) -> None:
        (ada, _), (bob, _) = await come(cluster, "aa")
        await join(ada)
        elsewhere(cluster, post(cluster, "one"), post(cluster, "two"))
        hall = cluster.nodes["a"].hub.rooms.hall
        assert hall.rooms["r:1"].looks.begin(), "a look is under way, and was asked before"
        assert (await join(bob, state=state))["position"] == 2
        await trio.sleep(1)
        hall.rooms["r:1"].looks.end()
        hall.look("r:1")
        assert [one["data"] for one in await ada.quiet() if one["type"] == "room_message"] == ["one", "two"]
        assert [one for one in await bob.quiet() if one["type"] == "room_message"] == []

    play(scene)


def test_records_that_a_member_has_are_not_told_again() -> None:
    """One that comes back gets those that have changed meanwhile, and no others."""

    async def scene(cluster: Cluster) -> None:
        (ada, _), (bob, started) = await come(cluster, "aa")
        await join(ada)
        epoch = (await join(bob, state=True))["epoch"]
        await publish(ada, 1, put={"same": {"x": 1}, "other": {"x": 1}})
        await bob.expect("room_message")
        bob.cut()
        await publish(ada, 2, patch={"other": {"x": 2}})
        await published(ada, 2)
        position = {"room": "r:1", "received": 1, "epoch": epoch, "state": True}
        bob, _ = await cluster.restore("a", started["recovery_token"], rooms=[position])
        joined = await bob.expect("joined")
        assert (joined["wipe"], joined["records"], joined["removed"]) == (False, {"other": {"x": 2}}, [])

    play(scene)


def test_a_leave_that_the_store_refuses_is_not_told() -> None:
    """The member has its seat at a later connection, and is still in the room there."""

    async def scene(cluster: Cluster) -> None:
        ((ada, started),) = await come(cluster, "a")
        await join(ada)
        elsewhere(cluster, seat(cluster, started["session"], epoch=9))
        await ada.send({"type": "leave", "room": "r:1"})
        assert [one for one in await ada.quiet() if one["type"] == "left"] == []
        assert cluster.world.rows.seat("r:1", started["session"]) is not None

    play(scene)


@pytest.mark.parametrize("end", ["leave", "leave in the same read", "cut"])
def test_what_was_published_in_front_of_the_end_is_told(end: str) -> None:
    """It is stored, and the others hear of it, though its author is not here any more when the store answers."""

    async def scene(cluster: Cluster) -> None:
        (ada, started), (bob, _) = await come(cluster, "aa")
        await join(ada)
        await join(bob)
        await ada.quiet()
        hub = cluster.nodes["a"].hub
        guest = hub.rooms.hall.rooms["r:1"].guests[started["session"]]
        if end == "leave in the same read":
            hub.rooms.publish(guest.session, "client", Publish("r:1", 1, msgspec.Raw(b'"last"')), None)
            hub.rooms.leave(guest.session, "client", "r:1")
            hub.rooms.settle()
        else:
            await publish(ada, 1, data="last")
        if end == "leave":
            await ada.send({"type": "leave", "room": "r:1"})
        elif end == "cut":
            while not guest.in_flight:
                await trio.lowlevel.checkpoint()
            hub.attachments.release(guest.link, Cause.CLIENT_GONE)
            assert guest.gone
            assert guest.in_flight
        assert [one["data"] for one in await bob.quiet() if one["type"] == "room_message"] == ["last"]

    play(scene)
