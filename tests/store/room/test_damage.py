"""A part of a room that cannot be read hurts itself: it is reported once, and everything else of the room is as before."""

import sqlite3
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, closing
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from structlog.testing import capture_logs

from signald.core.rooms import Member, is_dense
from signald.store.base import Store
from signald.store.redis import open_redis
from signald.store.room.ops import (
    DropMembers,
    Joined,
    LookRoom,
    NoRoom,
    NotMember,
    Published,
    ReadRoom,
    ReadRoomState,
    ReadRoomUpdates,
    SnapshotRoom,
)
from signald.store.sqlite import open_sqlite
from tests.store.ops import BOUNDS, NOW_MS, ROOM, SESSION, join_room, publication, publish

pytestmark = pytest.mark.real

OTHER = "s_2"
FIELDS = {
    "head": ("h", "room", "head", ""),
    "kept": ("d", "room", "kept", ""),
    "snapshot": ("s", "room", "snapshot", ""),
    "seat": (f"q{SESSION}", "room_member", "seat", f" AND member = '{SESSION}'"),
    "presence": (f"m{SESSION}", "room_member", "presence", f" AND member = '{SESSION}'"),
    "entry": ("l2", "room_entry", "record", " AND position = 2"),
    "record": ("ra", "room_record", "record", " AND id = 'a'"),
}
WOUNDS: dict[str, Callable[[bytes], bytes]] = {
    "bit": lambda kept: bytes([kept[0] ^ 0x80]) + kept[1:],
    "cut": lambda kept: kept[: len(kept) // 2],
    "empty": lambda _: b"",
}


class Damaged:
    """A store of one kind, and how to damage a part of the room in it."""

    def __init__(self, url: str) -> None:
        self.url = url

    def open(self) -> AbstractAsyncContextManager[Store]:
        """Open it."""
        if self.url.startswith("redis"):
            return open_redis(self.url, "a")
        return open_sqlite(self.url, "a", ack="process", poll_interval_s=0.01)

    def hit(self, what: str, wound: Callable[[bytes], bytes]) -> None:
        """Damage what is kept of a part."""
        field, table, column, where = FIELDS[what]
        if self.url.startswith("redis"):
            with Redis.from_url(self.url) as redis:
                key = f"signald:{{room:{ROOM}}}"
                value = redis.hget(key, field)
                assert value is not None
                redis.hset(key, field, wound(value))
            return
        with closing(sqlite3.connect(self.url.removeprefix("sqlite:"), isolation_level=None)) as sql:
            ((value,),) = sql.execute(f"SELECT {column} FROM {table} WHERE room = ?{where}", (ROOM,)).fetchall()
            sql.execute(f"UPDATE {table} SET {column} = ? WHERE room = ?{where}", (wound(value), ROOM))


@pytest.fixture(params=["sqlite", "redis"])
def damaged(request: pytest.FixtureRequest, tmp_path: Path) -> Damaged:
    """An empty store of each kind that can be damaged."""
    if request.param == "sqlite":
        return Damaged(f"sqlite:{tmp_path / 'room.db'}")
    url: str = request.getfixturevalue("redis_url")
    with Redis.from_url(url) as redis:
        redis.flushall()
    return Damaged(url)


async def ask(store: Store, *ops: Any) -> list[Any]:
    """Carry out operations."""
    return await store.execute(ops)


async def begin(store: Store) -> None:
    """A room with two members, two records, an entry, a departure and a snapshot."""
    await ask(
        store,
        join_room(presence=b"1"),
        join_room(OTHER, node="b"),
        join_room("s_3"),
        publish(publication(1, put={"a": (("x", b"1"),), "b": ()}), publication(2), publication(3)),
        DropMembers(ROOM, "s_3", "a", 9, NOW_MS),
        SnapshotRoom(ROOM, SESSION, "a", 1, 2, b"S", BOUNDS),
    )


@pytest.mark.parametrize("wound", WOUNDS)
@pytest.mark.parametrize("what", FIELDS)
async def test_damage(damaged: Damaged, what: str, wound: str) -> None:
    """What is damaged counts as absent, is said in the log without its content, and the room goes on."""
    async with damaged.open() as store:
        await begin(store)
        damaged.hit(what, WOUNDS[wound])
        with capture_logs() as logged:
            looked, state, updates, published = await ask(
                store, LookRoom(ROOM, 0, 2, 9, NOW_MS), ReadRoomState(ROOM, 0, 9, NOW_MS), ReadRoomUpdates(ROOM, 0, 9, NOW_MS),
                publish(publication(4, patch={"a": (("y", b"2"),)})),
            )  # fmt: skip
        assert {entry["event"] for entry in logged} <= {"record_unreadable"}
        if what == "head":
            assert (looked, state, updates, published) == (NoRoom(), NoRoom(), NoRoom(), NotMember())
            (joined,) = await ask(store, join_room(new_epoch="e2", known_epoch="e1", received=3))
            assert joined == Joined("e2", 0, 0, 0, 0, 1, 1, 1, False, True, ())
            return
        assert is_dense(looked.entries, 0, 3) == (what != "entry")
        assert [name for name, _ in state.records] == (["b"] if what == "record" else ["a", "b"])
        assert updates.body == (b"" if what == "snapshot" else b"S")
        assert looked.whole == (what == "kept")
        assert published == (NotMember() if what == "seat" else Published(4, 4, (), 0))
        (read,) = await ask(store, ReadRoom(ROOM, 9, NOW_MS))
        assert read.members_count == 2
        assert read.members[0] == Member(SESSION, b"" if what == "presence" else b"1", True)


@pytest.mark.parametrize("wound", WOUNDS)
async def test_a_damaged_seat_is_taken_anew(damaged: Damaged, wound: str) -> None:
    """Its member joins again, is counted once, and its node is woken; or it goes with its session."""
    async with damaged.open() as store:
        await begin(store)
        damaged.hit("seat", WOUNDS[wound])
        (joined,) = await ask(store, join_room(node="c", epoch=2, nonce="again", known_epoch="e1", received=3))
        assert (joined.members, joined.next_seq, joined.recovered) == (2, 1, True)
        (read,) = await ask(store, ReadRoom(ROOM, 9, NOW_MS))
        assert read.nodes == ("b", "c")
        damaged.hit("seat", WOUNDS[wound])
        await ask(store, DropMembers(ROOM, SESSION, "a", 9, NOW_MS))
        (read,) = await ask(store, ReadRoom(ROOM, 9, NOW_MS))
        assert (read.members_count, read.nodes) == (1, ("b",))


@pytest.mark.parametrize("wound", WOUNDS)
async def test_a_damaged_record_is_made_anew(damaged: Damaged, wound: str) -> None:
    """A patch makes it, a removal removes it, and records are counted as they are."""
    async with damaged.open() as store:
        await begin(store)
        damaged.hit("record", WOUNDS[wound])
        await ask(store, publish(publication(4, patch={"a": (("y", b"2"),)})))
        (read,) = await ask(store, ReadRoom(ROOM, 9, NOW_MS))
        assert (read.records, read.bytes) == (2, len("ay2b") + len("S"))
        damaged.hit("record", WOUNDS[wound])
        state: Any
        _, read, state = await ask(
            store, publish(publication(5, remove=("a",))), ReadRoom(ROOM, 9, NOW_MS), ReadRoomState(ROOM, 4, 9, NOW_MS)
        )
        assert (read.records, read.bytes) == (1, len("b") + len("S"))
        assert [(name, record.properties) for name, record in state.records] == [("a", None)]


async def test_a_damaged_entry_is_trimmed(damaged: Damaged) -> None:
    """The log goes on, and its bytes are those of what is left."""
    async with damaged.open() as store:
        await begin(store)
        damaged.hit("entry", WOUNDS["bit"])
        await ask(store, *[publish(publication(seq)) for seq in range(4, 14)])
        (looked,) = await ask(store, LookRoom(ROOM, 0, 0, 99, NOW_MS))
        assert is_dense(looked.entries, 3, 13)
