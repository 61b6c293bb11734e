"""What of a room is in Redis, for how long, and what a script leaves that is cut short."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from msgspec.structs import replace
from redis import Redis

from signald.core.rooms import Record
from signald.errors import StoreMisused
from signald.store.base import CLOCK_SET_MS, Done, Op
from signald.store.redis import ACL, open_redis
from signald.store.room.ops import (
    DropMembers,
    Joined,
    LeaveRoom,
    LookRoom,
    NoRoom,
    Posted,
    PresenceSet,
    Published,
    ReadRoom,
    ReadRoomState,
    ReadRoomUpdates,
    RoomLooked,
    RoomRead,
    RoomSwept,
    SetPresence,
    SnapshotRoom,
    SweepRoom,
)
from tests.store.ops import BOUNDS, NOW_MS, ROOM, SESSION, create, join_room, post, publication, publish

pytestmark = pytest.mark.real

KEY = f"signald:{{room:{ROOM}}}"
KEEP_MS = BOUNDS.keep_ms
SECRET = "secret"
LEAVE = LeaveRoom(ROOM, SESSION, "a", 1, KEEP_MS, NOW_MS)
RED = (("x", b"1"),)
TIGHT = replace(BOUNDS, history_messages_max=1, tombstones_max=0)
FULL = publish(publication(1, put={"r": RED, "s": RED}), publication(2, remove=("s",)), publication(3, update=True))


@pytest.fixture
def client(redis_url: str) -> Iterator[Redis]:
    """A client of its own of a server that is empty."""
    with Redis.from_url(redis_url) as made:
        made.flushall()
        yield made


def allow(client: Redis, *rules: str) -> None:
    """Let the user of signald do what is documented, but for `rules`."""
    documented = [rule for rule in ACL.split() if rule != "+waitaof"]  # older servers do not know it
    client.execute_command("ACL", "SETUSER", "signald", "reset", "on", f">{SECRET}", *documented, *rules)  # type: ignore[no-untyped-call]


async def test_nothing_is_left(redis_url: str, client: Redis) -> None:
    """No key of a room is left when it is swept, none of another one is touched, and a room is no session of its name."""
    async with open_redis(redis_url, "a") as store:
        await store.execute([create(), join_room(), FULL, post(key=b"k"), join_room(room=SESSION)])
        assert {key.decode() for key in client.scan_iter(KEY + "*")} == {
            KEY + end for end in ("", ":changes", ":removed", ":members", ":updates")
        }
        await store.execute([LEAVE, SweepRoom(ROOM, NOW_MS + KEEP_MS)])
        assert not [*client.scan_iter(KEY + "*")]
        assert client.exists(f"signald:{{{SESSION}}}", f"signald:{{room:{SESSION}}}") == 2


async def test_a_room_goes_by_itself(redis_url: str, client: Redis) -> None:
    """All keys of a room without members have one time to live; with members they have a century."""
    async with open_redis(redis_url, "a") as store:

        async def lives(*ops: Op) -> set[int]:
            await store.execute(ops)
            return {min((client.pttl(key) + 2000) // 5000 * 5000, 10**12) for key in client.scan_iter(KEY + "*")}

        left = KEEP_MS + CLOCK_SET_MS
        assert await lives(post(publication(0, put={"r": RED}))) == {left}
        assert await lives(post(publication(0, b"u", update=True), bounds=replace(BOUNDS, keep_ms=90_000))) == {
            left + 30_000
        }
        # What begins while there are members has no end of its own, which is as good.
        assert await lives(join_room()) <= {10**12, 0}
        assert await lives(FULL) <= {10**12, 0}
        assert await lives(LEAVE) == {left}


STEPS: dict[str, tuple[list[Op], Op, type]] = {
    "join": ([], join_room(presence=b"1"), Joined),
    "join another": ([join_room("s_2")], join_room(presence=b"1"), Joined),
    "join again": ([post(), join_room("s_2"), replace(LEAVE, member="s_2")], join_room(presence=b"1"), Joined),
    "move": ([join_room()], join_room(node="b", epoch=2, nonce="move", presence=b"1"), Joined),
    "leave": ([join_room(), join_room("s_2"), FULL], LEAVE, Done),
    "leave last": ([join_room(), FULL], LEAVE, Done),
    "drop": (
        [join_room(), join_room(SESSION + "/worker"), join_room("s_2")],
        DropMembers(ROOM, SESSION, "a", 9, NOW_MS),
        Done,
    ),
    "publish": ([join_room()], FULL, Published),
    "publish more": (
        [join_room(), FULL],
        publish(publication(4, put={"r": RED}, remove=("s",)), bounds=TIGHT),
        Published,
    ),
    "publish less": (
        [join_room(), FULL],
        publish(publication(4, put={"s": RED}), publication(5), bounds=TIGHT),
        Published,
    ),
    "publish much": (
        [join_room(), FULL],
        publish(
            *[publication(seq) for seq in range(4, 9)],
            publication(9, put={"s": RED}),
            publication(10),
            faults={6: "rate"},
            bounds=TIGHT,
        ),
        Published,
    ),
    "refuse": ([join_room(), FULL], publish(publication(4), faults={4: "rate"}), Published),
    "post": ([], post(key=b"k"), Posted),
    "presence": ([join_room()], SetPresence(ROOM, SESSION, "a", 1, b"1"), PresenceSet),
    "snapshot": ([join_room(), FULL], SnapshotRoom(ROOM, SESSION, "a", 1, 3, b"S", BOUNDS), Done),
    "sweep": ([post()], SweepRoom(ROOM, NOW_MS + KEEP_MS), RoomSwept),
}


@pytest.mark.parametrize("denied", ["hset", "hdel", "zadd", "zrem", "pexpire", "del", "publish"])
@pytest.mark.parametrize("step", STEPS)
async def test_cut_short(redis_url: str, client: Redis, step: str, denied: str) -> None:
    """A script that is cut short leaves half of it done. Repeated it answers as ever, and the room is as if nothing had been."""
    allow(client)
    before, op, kind = STEPS[step]
    async with open_redis(redis_url.replace("//", f"//signald:{SECRET}@"), "a") as store:

        async def ask(*ops: Op) -> list[Any]:
            return await store.execute(ops)

        async def picture() -> list[Any]:
            found = await ask(
                LookRoom(ROOM, 0, 0, 99, NOW_MS), ReadRoom(ROOM, 99, NOW_MS), ReadRoomState(ROOM, 0, 99, NOW_MS),
                ReadRoomUpdates(ROOM, 0, 99, NOW_MS),
            )  # fmt: skip
            if isinstance(found[0], RoomLooked):
                # A removal that was forgotten half may still be told, and a member be told once more.
                found[0] = replace(found[0], turn=0)
                found[2] = tuple([one for one in found[2].records if one[1].properties is not None])
            return found

        await ask(*before, op)
        expected = await picture()
        client.flushdb()
        await ask(*before)
        allow(client, f"-{denied}")
        with suppress(StoreMisused):  # not each step has such a command
            await ask(op)
        allow(client)
        (answer,) = await ask(op)
        assert isinstance(answer, kind)
        assert await picture() == expected
        for member, epoch in ((SESSION, 2), ("s_2", 1), (SESSION + "/worker", 1)):
            for node in ("a", "b"):
                await ask(LeaveRoom(ROOM, member, node, epoch, 0, NOW_MS))
        assert await ask(ReadRoom(ROOM, 9, NOW_MS + KEEP_MS), SweepRoom(ROOM, NOW_MS + KEEP_MS)) == [
            NoRoom(),
            RoomSwept(0),
        ]
        assert not [*client.scan_iter(KEY + "*")]


async def test_many_records_at_once(redis_url: str, client: Redis) -> None:
    """As many records as one publication may change are put, removed and forgotten in one step each."""
    names = [f"r{number:04}" for number in range(2000)]
    wide = replace(BOUNDS, records_max=2000, room_bytes_max=10**6, history_bytes_max=10**6, tombstones_max=2000)
    async with open_redis(redis_url, "a") as store:
        put = publish(publication(1, put=dict.fromkeys(names, RED)), bounds=wide)
        _, published, page = await store.execute([join_room(), put, ReadRoomState(ROOM, 0, 5, NOW_MS)])
        assert published == Published(1, 1, (), 0)
        assert page.records == tuple([(name, Record(1, RED)) for name in names])  # type: ignore[attr-defined]
        remove = publish(publication(2, remove=tuple(names)), bounds=wide)
        read: Any
        _, _, read = await store.execute([remove, publish(publication(3), bounds=TIGHT), ReadRoom(ROOM, 9, NOW_MS)])
        assert isinstance(read, RoomRead)
        assert (read.records, read.bytes, read.horizon) == (0, 0, 2)
        assert client.zcard(KEY + ":changes") == client.zcard(KEY + ":removed") == 0


async def test_a_type_of_its_own(redis_url: str, client: Redis) -> None:
    """A key that is of another type hurts its room alone, until a join makes it anew."""
    client.set(KEY, "x")
    async with open_redis(redis_url, "a") as store:
        found = await store.execute([ReadRoom(ROOM, 9, NOW_MS), join_room(room="canvas:2"), publish(publication())])
        assert isinstance(found[1], Joined)
        assert found[0] == NoRoom()
