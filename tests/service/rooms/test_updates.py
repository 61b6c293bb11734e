"""Updates of a document: stored before they are acked, kept until a snapshot stands for them, refused rather than dropped."""

import pytest
import trio

from signald.service.rooms.joining import PIECE_BYTES
from signald.store.room.ops import LOOKED_MAX
from signald.testing.cluster import Cluster, play
from signald.testing.wire import Json, Peer
from tests.service.rooms.opening import come, join, published


async def update(peer: Peer, seq: int, data: bytes, kind: str = "update") -> None:
    """Publish an update."""
    await peer.send_binary(data, {"type": "publish", "room": "r:1", "seq": seq, "kind": kind})


async def document(peer: Peer) -> tuple[Json, bytes, list[bytes]]:
    """Join as a new member; return `joined`, the snapshot and the updates behind it."""
    joined = await join(peer)
    snapshot, updates = b"", []
    for one in await peer.quiet():
        if one["type"] == "snapshot" and one.get("update"):
            updates.append(one["binary"])
        elif one["type"] == "snapshot":
            snapshot += one["binary"]
    return joined, snapshot, updates


def test_updates_outlive_the_log_and_its_pages() -> None:
    """More than one page of them, all dropped from the log: a new member gets each, in order."""
    count = LOOKED_MAX + 88

    async def scene(cluster: Cluster) -> None:
        limits: Json = {"messages_burst": 2 * count}
        await cluster.start("a", rooms={"history_messages_max": 5}, limits=limits)
        ada, _ = await cluster.client("a", pair=False)
        await join(ada)
        for seq in range(1, count + 1):
            await update(ada, seq, b"u%d" % seq)
        await published(ada, count)
        bob, _ = await cluster.client("a", pair=False)
        joined, snapshot, updates = await document(bob)
        assert (joined["position"], joined["replaying"], snapshot) == (count, 0, b"")
        assert updates == [b"u%d" % seq for seq in range(1, count + 1)]

    play(scene)


def test_a_full_room_refuses_and_drops_nothing() -> None:
    """The update that has no place costs its sender `room_full`; a snapshot makes place for the next one."""

    async def scene(cluster: Cluster) -> None:
        (ada, _), (bob, _) = await come(cluster, "aa", rooms={"room_bytes_max": 5000})
        await join(ada)
        stored: list[bytes] = []
        for seq in range(1, 9):
            data = bytes([seq]) * 1000
            await update(ada, seq, data)
            while (answer := await ada.receive())["type"] not in ("published", "room_error"):
                pass
            if answer["type"] == "published":
                stored.append(data)
            else:
                assert (answer["code"], answer["seq"]) == ("room_full", seq)
        assert stored == [bytes([seq]) * 1000 for seq in range(1, 5)]
        _, _, updates = await document(bob)
        assert updates == stored
        await ada.send_binary(b"folded", {"type": "snapshot", "room": "r:1", "position": 4})
        await ada.quiet()
        await update(ada, 9, b"next" * 250)
        await published(ada, 9)
        eve, _ = await cluster.client("a", pair=False)
        assert (await document(eve))[1:] == (b"folded", [b"next" * 250])

    play(scene)


def test_a_killed_node_loses_no_update_that_was_published() -> None:
    """What is `published` is told to the others by another node; what is not is sent again, and stored once."""

    async def scene(cluster: Cluster) -> None:
        (ada, started), (bob, _) = await come(cluster, "ab")
        epoch = (await join(ada))["epoch"]
        await join(bob)
        for seq in (1, 2, 3):
            await update(ada, seq, b"u%d" % seq)
        await published(ada, 3)
        await update(ada, 4, b"u4")  # the node may have stored it or not
        await trio.lowlevel.checkpoint()
        cluster.kill("a")
        position = {"room": "r:1", "received": 3, "epoch": epoch}
        answer: Json = {}
        while answer.get("type") != "session_restored":
            ada, answer = await cluster.restore("b", started["recovery_token"], rooms=[position])
            await trio.sleep(0.2)
        joined = await ada.expect("joined")
        assert joined["next_seq"] in (4, 5)
        for seq in (4, 5):
            await update(ada, seq, b"u%d" % seq)
        await published(ada, 5)
        seen = [one["binary"] for one in await bob.quiet() if one["type"] == "room_message"]
        assert seen == [b"u%d" % seq for seq in range(1, 6)]
        eve, _ = await cluster.client("b", pair=False)
        assert (await document(eve))[2] == seen

    play(scene)


@pytest.mark.parametrize("size", [0, 1, 60_000, 150_001])
def test_a_large_snapshot_comes_in_pieces(size: int) -> None:
    """No frame of it is longer than 64 KiB, however long the send queue may become before its connection is closed."""

    async def scene(cluster: Cluster) -> None:
        limits: Json = {"message_bytes_max": 1 << 20, "send_queue_bytes_max": 1 << 16}
        (ada, _), (bob, _) = await come(cluster, "aa", limits=limits)
        await join(ada)
        await update(ada, 1, b"u1")
        await published(ada, 1)
        data = bytes(range(256)) * (size // 256) + bytes(size % 256)
        await ada.send_binary(data, {"type": "snapshot", "room": "r:1", "position": 1})
        await ada.quiet()
        await join(bob)
        frames = [await bob.expect("snapshot")]
        while frames[-1].get("more"):
            frames.append(await bob.expect("snapshot"))
        assert b"".join([one["binary"] for one in frames]) == data
        assert {one["position"] for one in frames} == {1}
        assert len(frames) == max(1, -(-size // PIECE_BYTES))
        assert all(len(one["binary"]) < 1 << 16 for one in frames)

    play(scene)
