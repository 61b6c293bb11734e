"""Rooms whose values are sealed: a dump shows nothing that members say, and a value in another place is damaged there."""

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from signald.core.rooms import Bounds
from signald.store.base import Op
from signald.store.room.ops import (
    LookRoom,
    ReadRoom,
    ReadRoomHistory,
    ReadRoomState,
    ReadRoomUpdates,
    SetPresence,
    SnapshotRoom,
)
from signald.store.seals import SEALED_BYTES, Seals
from tests.store.ops import NOW_MS, ROOM, join_room, post, publication, publish
from tests.store.test_sealed import SECRET, Kept, ask, kept

__all__ = ["kept"]

pytestmark = pytest.mark.real

BOUNDS = Bounds(100, 10_000, 50, 1000, 10_000, 30, 40, 60_000)
ONE, TWO = "s_1", "s_2"
WIDE = b'"%b-wide"' % SECRET


def fill(room: str = ROOM) -> list[Op]:
    """Let two members and a service say a value of each kind, all of which hold the secret."""
    shape = (("name", b'"%b"' % SECRET), ("gone", b'"%b"' % SECRET), ("size", b"1"))
    return [
        join_room(ONE, room=room, presence=b'{"p":"%b-1"}' % SECRET, bounds=BOUNDS),
        join_room(TWO, room=room, presence=b'{"p":"%b-2"}' % SECRET, bounds=BOUNDS, nonce="two"),
        publish(publication(1, b"say %b 1" % SECRET), publication(2, b"say %b 2" % SECRET), room=room, bounds=BOUNDS),
        publish(publication(1, b"say %b 3" % SECRET), member=TWO, room=room, bounds=BOUNDS),
        publish(publication(3, put={"a": shape, "b": shape}), room=room, bounds=BOUNDS),
        publish(publication(4, patch={"a": (("gone", b"null"), ("name", WIDE))}), room=room, bounds=BOUNDS),
        publish(*[publication(seq, b"up %b" % SECRET, update=True) for seq in (5, 6)], room=room, bounds=BOUNDS),
        post(publication(0, b"post %b" % SECRET), room=room, bounds=BOUNDS),
        SnapshotRoom(room, ONE, "a", 1, 6, b"shot %b" % SECRET, BOUNDS),
        SetPresence(room, ONE, "a", 1, b'{"p":"%b-1"}' % SECRET, 0),
    ]  # fmt: skip


def seen(room: str = ROOM) -> list[Op]:
    """Ask for all of it."""
    return [
        LookRoom(room, 0, 0, 99, NOW_MS),
        ReadRoomHistory(room, 0, 99, NOW_MS),
        ReadRoomState(room, 0, 99, NOW_MS),
        ReadRoomUpdates(room, 0, 99, NOW_MS),
        ReadRoom(room, 9, NOW_MS),
    ]


async def test_nothing_that_was_said_is_found(kept: Kept) -> None:
    """Members get what a plain store gives them, the counts of bytes too; neither the file nor Redis has a byte of it."""
    async with kept.open(Seals()) as store:
        await ask(store, *fill("plain:1"))
        plain = await ask(store, *seen("plain:1"))
        assert SECRET in kept.dump()
    if kept.kind == "sqlite":
        kept.url = kept.url.replace("sealed.db", "other/sealed.db")
        Path(kept.url.removeprefix("sqlite:")).parent.mkdir()
    else:
        with Redis.from_url(kept.url) as redis:
            redis.flushall()
    async with kept.open() as store:
        done = await ask(store, *fill("plain:1"))
        sealed = await ask(store, *seen("plain:1"))
        assert SECRET not in kept.dump()
    assert sealed == plain
    assert SECRET in sealed[3].body
    assert dict(sealed[2].records)["a"].properties == (("name", WIDE), ("size", b"1"))
    assert done[-1].turn == 1, "the same presence is no change"


def _swap(kept: Kept, table: str, columns: tuple[str, ...], one: Any, two: Any, field: str, kind: str) -> None:
    """Swap the sealed part of two values of a room."""
    if kept.kind == "sqlite":
        with closing(sqlite3.connect(kept.url.removeprefix("sqlite:"), isolation_level=None)) as sql:
            name, value = columns
            found = [
                sql.execute(f"SELECT {value} FROM {table} WHERE room = ? AND {name} = ?", (ROOM, at)).fetchone()[0]
                for at in (one, two)
            ]
            for at, each in ((one, found[1]), (two, found[0])):
                sql.execute(f"UPDATE {table} SET {value} = ? WHERE room = ? AND {name} = ?", (each, ROOM, at))
        return
    data = f"signald:{{room:{ROOM}}}"
    with Redis.from_url(kept.url) as redis:
        fields = [f"{field}{at}".encode() for at in (one, two)]
        values = [(redis.hget(data, each) or b"")[8:] for each in fields]
        if kind == "text":
            cut = [value[value.rindex(b"\x01") :] for value in values]  # the last property, equally long in both
        else:
            starts = [value.index(b"\xc1\x01") for value in values]
            cut = [value[start : start + SEALED_BYTES + 8] for value, start in zip(values, starts, strict=True)]
        swapped = [values[0].replace(cut[0], cut[1]), values[1].replace(cut[1], cut[0])]
        for place, packed in zip(fields, swapped, strict=True):
            redis.hset(
                data, place, hashlib.sha1(place + packed, usedforsecurity=False).hexdigest()[:8].encode() + packed
            )


@pytest.mark.parametrize("what", ["entry", "entry of another", "record", "presence"])
async def test_a_value_elsewhere_is_damage(kept: Kept, what: str) -> None:
    """Two publications, two records or two presences change their places: both are gone, and another room is whole."""
    async with kept.open() as store:
        await ask(store, *fill(), *fill("other:1"))
        before, other = await ask(store, *seen()), await ask(store, *seen("other:1"))
    place, member = ("position", "record"), ("member", "presence")
    match what:
        case "entry":
            _swap(kept, "room_entry", place, 1, 2, "l", "")
        case "entry of another":
            _swap(kept, "room_entry", place, 1, 3, "l", "")
        case "record":
            _swap(kept, "room_record", ("id", "record"), "a", "b", "r", "text")
        case _:
            _swap(kept, "room_member", member, ONE, TWO, "m", "")
    async with kept.open() as store:
        after = await ask(store, *seen())
        assert await ask(store, *seen("other:1")) == other
    if what == "presence":
        assert [one.presence for one in after[4].members] == [b"", b""]
        assert after[1:4] == before[1:4]
    elif what == "record":
        assert dict(after[2].records) == {}
        assert after[1] == before[1]
    else:
        gone = {1, 2} if what == "entry" else {1, 3}
        assert [one.position for one in after[1].entries] == [
            one.position for one in before[1].entries if one.position not in gone
        ]
        assert after[2] == before[2]
