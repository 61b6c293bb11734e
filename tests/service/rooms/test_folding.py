"""Rooms of Yjs: a node merges the updates into a snapshot, and nothing that a member writes is lost by it."""

import pytest
from structlog.testing import capture_logs

from signald.core import updates
from signald.core.updates import merge
from signald.service.rooms import folding
from signald.service.rooms.folding import FOLDED_MAX
from signald.testing.cluster import Cluster, play
from signald.testing.wire import Json, Peer
from tests.core.test_updates import shown, written
from tests.service.rooms.opening import come, join, publish, published
from tests.service.rooms.test_updates import document, update

BURST: Json = {"messages_burst": 2000}


async def write(peer: Peer, said: list[bytes], first: int = 1) -> None:
    """Publish updates from the seq `first` on, and wait until they are stored."""
    for seq, one in enumerate(said, first):
        await update(peer, seq, one, "yjs")
    await published(peer, first + len(said) - 1)


def test_updates_are_folded_where_they_are_published() -> None:
    """Two members at two nodes: a new member gets a snapshot and at most as many updates as wait for the next one."""
    said = written(1, 2 * FOLDED_MAX + 90)

    async def scene(cluster: Cluster) -> None:
        (ada, _), (bob, _) = await come(cluster, "ab", limits=BURST)
        await join(ada)
        await join(bob)
        seqs = {id(ada): 1, id(bob): 1}
        for start in range(0, len(said), 70):
            author = (ada, bob)[start // 70 % 2]
            await write(author, said[start : start + 70], seqs[id(author)])
            seqs[id(author)] += 70
        eve, _ = await cluster.client("a", pair=False)
        joined, snapshot, behind = await document(eve)
        assert joined["position"] == len(said)
        assert snapshot
        assert len(behind) < FOLDED_MAX
        assert shown([snapshot, *behind]) == shown(said)

    play(scene)


def test_a_snapshot_says_whose_it_is() -> None:
    """Its kind is `yjs`; the position is that of the last update in it."""
    said = written(2, FOLDED_MAX)

    async def scene(cluster: Cluster) -> None:
        (ada, _), (bob, _) = await come(cluster, "aa", limits=BURST)
        await join(ada)
        await publish(ada, 1, data="between")
        await write(ada, said, 2)
        await ada.quiet()
        await join(bob)
        frame = await bob.expect("snapshot")
        assert (frame["kind"], frame["position"], "update" in frame) == ("yjs", FOLDED_MAX + 1, False)
        assert await bob.quiet() == []

    play(scene)


def test_an_update_whose_predecessor_is_missing_is_folded_too() -> None:
    """It was refused to its author, who sends it again later."""
    said = written(3, FOLDED_MAX + 10)

    async def scene(cluster: Cluster) -> None:
        await cluster.start("a", limits=BURST)
        ada, _ = await cluster.client("a", pair=False)
        await join(ada)
        await write(ada, said[1:])
        await ada.quiet()
        await write(ada, said[:1], len(said))
        bob, _ = await cluster.client("a", pair=False)
        _, snapshot, behind = await document(bob)
        assert snapshot
        assert shown([snapshot, *behind]) == shown(said)

    play(scene)


def test_bytes_that_are_no_update_cost_their_sender_that_publication() -> None:
    """Neither the room nor the node; the next one is stored, and folded."""
    said = written(4, FOLDED_MAX)

    async def scene(cluster: Cluster) -> None:
        (ada, _), (bob, _) = await come(cluster, "aa", limits=BURST)
        await join(ada)
        for seq, wrong in enumerate((b"", b"garbage", b"\xff" * 500), 1):
            await update(ada, seq, wrong, "yjs")
            error = await ada.expect("room_error")
            assert (error["code"], error["seq"]) == ("bad_record", seq)
        await publish(ada, 4, data=[1], kind="yjs")
        assert (await ada.expect("room_error"))["code"] == "bad_record"
        await write(ada, said, 5)
        joined, snapshot, behind = await document(bob)
        assert (joined["position"], behind) == (FOLDED_MAX, [])
        assert shown([snapshot]) == shown(said)

    play(scene)


def test_no_snapshot_of_a_party_is_taken() -> None:
    """Neither before nor behind the first one of signald."""
    said = written(5, FOLDED_MAX + 20)

    async def scene(cluster: Cluster) -> None:
        (ada, _), (bob, _) = await come(cluster, "aa", limits=BURST)
        await join(ada)
        for start, end in ((0, 20), (20, len(said))):
            await write(ada, said[start:end], start + 1)
            await ada.quiet()
            await ada.send_binary(b"\0\0", {"type": "snapshot", "room": "r:1", "position": end})
            await ada.quiet()
        _, snapshot, behind = await document(bob)
        assert shown([snapshot, *behind]) == shown(said)

    play(scene)


@pytest.mark.parametrize(("kind", "why"), [("update", "other_kind"), ("yjs", "too_large")])
def test_what_cannot_be_folded_stays_as_it_is(kind: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A room with an update of another kind, and one that is too large: each update is given to a new member."""
    said = written(6, 2 * FOLDED_MAX)
    if why == "too_large":
        monkeypatch.setattr(folding, "DOCUMENT_BYTES_MAX", len(merge(said[:FOLDED_MAX])))

    async def scene(cluster: Cluster) -> None:
        (ada, _), (bob, _) = await come(cluster, "aa", limits=BURST)
        await join(ada)
        await update(ada, 1, said[0], kind)
        await write(ada, said[1:], 2)
        _, snapshot, behind = await document(bob)
        assert (snapshot, behind) == (b"", said)

    with capture_logs() as logs:
        play(scene)
    assert [one["why"] for one in logs if one["event"] == "room_not_folded"] == [why]


def test_without_the_extra_nothing_of_yjs_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused by a code of its own; opaque updates go on."""
    monkeypatch.setattr(updates, "can_merge", lambda: False)

    async def scene(cluster: Cluster) -> None:
        await cluster.start("a")
        ada, _ = await cluster.client("a", pair=False)
        await join(ada)
        await update(ada, 1, written(1, 1)[0], "yjs")
        error = await ada.expect("room_error")
        assert (error["code"], error["seq"]) == ("unsupported", 1)
        await update(ada, 2, b"opaque")
        await published(ada, 2)

    play(scene)
