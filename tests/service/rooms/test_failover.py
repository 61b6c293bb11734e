"""A store that loses its last steps, as in a failover: no member takes other content for publications that are gone."""

import copy
from typing import Any

import pytest
import trio

from signald.core.rooms import Publication
from signald.service.rooms.bounds import bounds_of
from signald.store.base import WAKE_ALL
from signald.store.memory import MemoryRows
from signald.store.room.ops import Post
from signald.testing.cluster import Cluster, play
from signald.testing.wire import Json, Peer
from signald.wire.records import publication_body
from tests.service.rooms.opening import come, join, publish, published


def taken_back(cluster: Cluster, copied: MemoryRows, *, woken: bool = True) -> None:
    """Another server takes over with what it holds; `woken`: the nodes have connected to it, and look at everything."""
    cluster.world.rows = copied
    cluster.world.lives += 1
    for inboxes in cluster.world._inboxes.values() if woken else ():
        for inbox in inboxes:
            inbox.put(WAKE_ALL)


def posted(cluster: Cluster, *said: str, woken: bool = True) -> None:
    """Have a service at a node that has no member publish; `woken`: the others hear of it."""
    inboxes = cluster.world._inboxes
    cluster.world._inboxes = inboxes if woken else {}
    context = cluster.nodes["a"].hub.context
    bounds, now_ms = bounds_of(context.config.rooms), context.now_ms()
    entries = [Publication(0, publication_body(None, b'"%s"' % one.encode(), None)) for one in said]
    cluster.world.execute([Post("r:1", "elsewhere", b"", "e", one, bounds, now_ms) for one in entries])
    cluster.world._inboxes = inboxes


async def told(peer: Peer, kind: str) -> list[Json]:
    """What a party is told of this kind, until it is told nothing more."""
    return [one for one in await peer.quiet() if one["type"] == kind]


async def with_a_lost_tail(cluster: Cluster, ada: Peer, *others: Peer) -> MemoryRows:
    """Members have all of what ada publishes, of which the copy has the first half."""
    for peer in (ada, *others):
        await join(peer)
    await publish(ada, 1, data="kept")
    await published(ada, 1)
    await trio.sleep(1)
    copied = copy.deepcopy(cluster.world.rows)
    await publish(ada, 2, data="lost")
    await publish(ada, 3, data="lost too")
    await published(ada, 3)
    for other in others:
        assert [one["data"] for one in await told(other, "room_message")] == ["kept", "lost", "lost too"]
    await ada.quiet()
    return copied


def reset(frames: list[Json], epoch: str) -> Json:
    """The answer by which a member hears that the room has lost something."""
    (joined,) = frames
    assert joined["epoch"] != epoch
    assert (joined["recovered"], joined["wipe"], joined["replaying"]) == (False, True, 0)
    return joined


@pytest.mark.parametrize("passed", ["", "a", "ab", "abc"])
def test_members_that_are_here(passed: str) -> None:
    """Each is told that the room is another one, however far others have published meanwhile: less, as much, or more than is lost."""

    async def scene(cluster: Cluster) -> None:
        (ada, _), (bob, _) = await come(cluster, "ab")
        copied = await with_a_lost_tail(cluster, ada, bob)
        epoch = copied.room("r:1").epoch  # type: ignore[union-attr]
        taken_back(cluster, copied, woken=False)
        posted(cluster, *passed)
        taken_back(cluster, cluster.world.rows)
        answers = [reset(await told(peer, "joined"), epoch) for peer in (ada, bob)]
        assert {one["position"] for one in answers} == {1 + len(passed)}
        assert answers[0]["epoch"] == answers[1]["epoch"]
        assert answers[0]["next_seq"] == 2
        await publish(ada, 2, data="goes on")
        assert [one["data"] for one in await told(bob, "room_message")] == ["goes on"]

    play(scene)


@pytest.mark.parametrize("others", [1, 2, 3])
def test_a_publication_that_is_the_first_to_meet_the_other_server(others: int) -> None:
    """Its node tells nothing by what it has sent itself: the log may have others in front of it, in the place of those that are gone."""

    async def scene(cluster: Cluster) -> None:
        (ada, _), (bob, _) = await come(cluster, "aa")
        copied = await with_a_lost_tail(cluster, ada, bob)
        epoch = copied.room("r:1").epoch  # type: ignore[union-attr]
        taken_back(cluster, copied, woken=False)
        posted(cluster, *"abc"[:others], woken=False)
        await publish(bob, 1, data="bob")
        frames = await ada.quiet()
        assert [one for one in frames if one["type"] == "room_message"] == []
        reset(frames, epoch)
        reset(await told(bob, "joined"), epoch)

    play(scene)


def test_a_look_that_was_asked_for_before() -> None:
    """Its answer is of the other server, and nothing of it is told: it was not asked for what members have."""

    async def scene(cluster: Cluster) -> None:
        (ada, _), (bob, _) = await come(cluster, "aa")
        copied = await with_a_lost_tail(cluster, ada, bob)
        epoch = copied.room("r:1").epoch  # type: ignore[union-attr]
        cluster.nodes["a"].hub.rooms.look("r:1")
        taken_back(cluster, copied, woken=False)
        posted(cluster, *"abc", woken=False)
        for peer in (ada, bob):
            reset(await peer.quiet(), epoch)

    play(scene)


def test_a_member_that_has_joined_behind_what_is_lost() -> None:
    """Its node has told nothing of the log, and knows from its join what stood there."""

    async def scene(cluster: Cluster) -> None:
        (ada, _), (bob, _) = await come(cluster, "ab")
        copied = await with_a_lost_tail(cluster, ada)
        ada.cut()
        epoch = (await join(bob))["epoch"]
        await bob.quiet()
        cluster.world.rows = copied
        posted(cluster, *"abc", woken=False)
        taken_back(cluster, copied)
        reset(await bob.quiet(), epoch)

    play(scene)


def test_a_failover_that_loses_nothing_is_not_told() -> None:
    """The publications that members have are there: they stay in the room, and miss none."""

    async def scene(cluster: Cluster) -> None:
        (ada, started), (bob, _) = await come(cluster, "ab")
        epoch = (await join(ada))["epoch"]
        await join(bob)
        await ada.quiet()
        for seq in (1, 2, 3):
            await publish(ada, seq, data=seq)
        await published(ada, 3)
        await bob.quiet()
        taken_back(cluster, cluster.world.rows)
        posted(cluster, "service")
        await publish(ada, 4, data="ada")
        assert [one["type"] for one in await bob.quiet()] == ["room_message"] * 2
        assert [one["type"] for one in await ada.quiet()] == ["room_message", "published"]
        hall = cluster.nodes["a"].hub.rooms.hall
        assert not hall.doubts(hall.rooms["r:1"]), "each look would read more than is new"
        ada.cut()
        position = {"room": "r:1", "received": 4, "epoch": epoch}
        ada, _ = await cluster.restore("b", started["recovery_token"], rooms=[position])
        joined = await ada.expect("joined")
        assert (joined["epoch"], joined["recovered"], joined["replaying"]) == (epoch, True, 1)

    play(scene)


def test_a_member_that_was_away_is_told_too() -> None:
    """Members that were here have shown the loss, so it is none of the old room, whatever was published meanwhile."""

    async def scene(cluster: Cluster) -> None:
        (ada, _), (bob, started), (eve, _) = await come(cluster, "aba")
        copied = await with_a_lost_tail(cluster, ada, bob, eve)
        epoch = copied.room("r:1").epoch  # type: ignore[union-attr]
        bob.cut()
        await trio.sleep(1)
        taken_back(cluster, copied)
        await eve.quiet()
        for seq in range(1, 4):
            await publish(eve, seq, data=f"other {seq}")
        await published(eve, 3)
        bob, _ = await cluster.restore("b", started["recovery_token"], rooms=[of(epoch)])
        reset([await bob.expect("joined")], epoch)

    play(scene)


def of(epoch: str, received: int = 3) -> dict[str, Any]:
    """What a member has of the room that was lost."""
    return {"room": "r:1", "received": received, "epoch": epoch}


def test_all_members_were_away() -> None:
    """No node knows what is lost. The first member that comes back claims it, and is believed: the store was shown to be another one."""

    async def scene(cluster: Cluster) -> None:
        (ada, first), (bob, second) = await come(cluster, "ab")
        copied = await with_a_lost_tail(cluster, ada, bob)
        epoch = copied.room("r:1").epoch  # type: ignore[union-attr]
        ada.cut()
        bob.cut()
        await trio.sleep(1)
        taken_back(cluster, copied)
        ada, _ = await cluster.restore("a", first["recovery_token"], rooms=[of(epoch)])
        joined = reset([await ada.expect("joined")], epoch)
        for seq in range(2, 5):
            await publish(ada, seq, data=f"other {seq}")
        await published(ada, 4)
        bob, _ = await cluster.restore("b", second["recovery_token"], rooms=[of(epoch)])
        assert reset([await bob.expect("joined")], epoch)["epoch"] == joined["epoch"]

    play(scene)


def test_a_lie_resets_a_room_once_at_most() -> None:
    """Without a failover never. After one a claim is believed once for each room; its epoch is then younger than the loss."""

    async def scene(cluster: Cluster) -> None:
        (ada, _), (eve, _) = await come(cluster, "ab")
        epoch = (await join(ada))["epoch"]

        async def lies(known: str) -> str:
            joined = await join(eve, received=1000, epoch=known)
            assert joined["recovered"] is False
            return str(joined["epoch"])

        assert await lies(epoch) == epoch
        taken_back(cluster, cluster.world.rows)
        await trio.sleep(1)
        other = await lies(epoch)
        assert other != epoch
        assert await lies(other) == other
        assert [one["epoch"] for one in await told(ada, "joined")] == [other]

    play(scene)
