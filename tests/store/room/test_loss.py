"""A room that has lost everything, as in a store without persistence that was restarted."""

from collections.abc import AsyncIterator, Callable

import pytest
from msgspec.structs import replace
from redis import Redis

from signald.store.base import Done, Op, Store
from signald.store.memory import MemoryWorld, open_memory
from signald.store.redis import open_redis
from signald.store.room.ops import Joined, LeaveRoom, LookRoom, NoRoom, NotMember, Published, RoomLooked, SetPresence
from tests.store.ops import NOW_MS, ROOM, SESSION, join_room, publication, publish

Emptied = tuple[Store, Callable[[], None]]


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.real)])
def url(request: pytest.FixtureRequest) -> str:
    """The address of a store that can lose everything."""
    return "memory:" if request.param == "memory" else request.getfixturevalue("redis_url")


@pytest.fixture
async def emptied(url: str) -> AsyncIterator[Emptied]:
    """A store, and how it loses everything."""
    if url == "memory:":
        world = MemoryWorld(started_ms=NOW_MS)
        async with open_memory(url, "a", world=world) as memory:
            yield memory, world.lose_everything
        return
    with Redis.from_url(url) as client:
        client.flushall()
        async with open_redis(url, "a") as redis:
            yield redis, client.flushall


async def test_another_epoch(emptied: Emptied) -> None:
    """A member of a lost room is told so, joins again, and finds another room, in which it has recovered nothing and counts anew."""
    store, lose = emptied
    await store.execute([join_room(), publish(publication(1, put={"r": ()}), publication(2))])
    lose()
    ops: list[Op] = [
        publish(publication(3)),
        SetPresence(ROOM, SESSION, "a", 1, b"1"),
        LookRoom(ROOM, 2, 1, 9, NOW_MS),
        LeaveRoom(ROOM, SESSION, "a", 1, 9, NOW_MS),
    ]
    assert await store.execute(ops) == [NotMember(), NotMember(), NoRoom(), Done()]
    again = join_room(new_epoch="e2", known_epoch="e1", received=2)
    assert await store.execute([again, again]) == [Joined("e2", 0, 0, 0, 0, 1, 1, 1, False, True, ())] * 2
    looked, published = await store.execute([LookRoom(ROOM, 2, 1, 9, NOW_MS), publish(publication(1))])
    assert isinstance(looked, RoomLooked)
    assert (looked.epoch, looked.position, looked.entries) == ("e2", 0, ())
    assert published == Published(1, 1, (), 0)


async def test_the_first_one_back_makes_it(emptied: Emptied) -> None:
    """Of members that come back together the first brings the epoch, and all have it."""
    store, lose = emptied
    await store.execute([join_room(), join_room("s_2")])
    lose()
    one, other = await store.execute([join_room(new_epoch="e2"), join_room("s_2", new_epoch="e3", known_epoch="e1")])
    assert isinstance(one, Joined)
    assert other == replace(one, turn=2, members=2)
