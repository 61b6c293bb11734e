"""A pass through a store brings every value under the key that seals, and takes nothing from those who write meanwhile."""

import hmac
from typing import Any

import pytest
from redis import Redis

from signald.core.log import Entry
from signald.errors import StoreMisused
from signald.store.base import Op
from signald.store.redis import ACL, ACL_RESEAL, open_redis
from signald.store.redis_reseal import Exchange, ExchangeRoom, ReadSealed, ReadSealedRoom
from signald.store.resealing import PAGE, Page, resealable
from signald.store.seals import Seals
from signald.store.session.ops import Look, ReadHistory
from tests.store import test_sealed
from tests.store.ops import ROOM, SESSION, append, create
from tests.store.room import test_sealed as test_sealed_rooms
from tests.store.test_sealed import SECRET, Kept, ask, fill, kept, seen
from tests.store.test_seals import NEW, OLD

__all__ = ["kept"]

pytestmark = pytest.mark.real

OTHERS: list[tuple[str, str]] = [("s_2", "canvas:2"), (SESSION, ROOM)]


def _filled(session: str, room: str) -> list[Op]:
    return [*fill(session), *test_sealed_rooms.fill(room)]


def _asked(session: str, room: str) -> list[Op]:
    return [*seen(session), *test_sealed_rooms.seen(room)]


async def _pass(store: Any) -> Page:
    found = resealable(store)
    assert found is not None
    whole = Page()
    async for page in found.reseal():
        whole.add(page)
    return whole


def _id(key: Any) -> bytes:
    return hmac.digest(key.secret, b"signald key id 1", "sha256")[:4]


@pytest.mark.parametrize("before", [Seals(), Seals((OLD,), sealing=True)], ids=["plain", "old"])
async def test_all_comes_under_the_newest_key(kept: Kept, before: Seals) -> None:
    """Each kind of value: what was plain or under an old key opens by the new one alone, and reads as before."""
    async with kept.open(before) as store:
        for session, room in OTHERS:
            await ask(store, *_filled(session, room))
        shown = [await ask(store, *_asked(*each)) for each in OTHERS]
    async with kept.open(Seals((OLD, NEW), sealing=True)) as store:
        first = await _pass(store)
        second = await _pass(store)
    assert first.exchanged == first.read > 60
    assert first.unreadable == first.missed == 0
    assert second.clean
    assert second.current == second.read == first.read
    assert SECRET not in kept.dump()
    assert b"\xc1\x01" + _id(OLD) not in kept.dump()
    async with kept.open(Seals((NEW,), sealing=True)) as store:
        assert [await ask(store, *_asked(*each)) for each in OTHERS] == shown


async def test_a_pass_leaves_what_does_not_open(kept: Kept) -> None:
    """A value that is damaged, or under a key that nobody has, stays as it is, and the others are resealed."""
    async with kept.open() as store:
        await ask(store, create(), append(test_sealed._messages(1, 3)))
    damaged = kept.change("message", SESSION, lambda own: [own[0][:-1] + b"?", *own[1:]])
    async with kept.open(Seals((OLD, NEW), sealing=True)) as store:
        whole = await _pass(store)
        assert whole.unreadable == 1
        assert whole.exchanged == whole.read - 1
        (looked,) = await ask(store, Look(SESSION, "worker", 0, 9))
        assert [entry.seq for entry in looked.entries] == [2, 3]
    assert damaged[0][:-1] + b"?" in kept.dump()


async def test_many_pages(kept: Kept) -> None:
    """More values than a page has: none is passed over, and none is met twice."""
    count = 2 * PAGE + 3
    async with kept.open() as store:
        await ask(store, create(), *[append(_one(seq), backlog_max=1000) for seq in range(1, count + 1)])
    async with kept.open(Seals((OLD, NEW), sealing=True)) as store:
        whole = await _pass(store)
        assert whole.exchanged == whole.read >= count
        (looked,) = await ask(store, Look(SESSION, "worker", 0, count + 1))
        assert [entry.seq for entry in looked.entries] == list(range(1, count + 1))
        (history,) = await ask(store, ReadHistory(SESSION, count))
        assert history.entries[-1].body == _one(count)[0].body


def _one(seq: int) -> tuple[Entry, ...]:
    return test_sealed._messages(seq, seq)


async def test_a_resealed_log_goes_on(kept: Kept) -> None:
    """Messages are stored and trimmed behind a pass as they would have been without it, also where the log was emptied by acks."""
    async with kept.open() as store:
        await ask(store, create(), append(test_sealed._messages(1, 3)))
    async with kept.open(Seals((OLD, NEW), sealing=True)) as store:
        await _pass(store)
        await ask(store, append(_one(4)))
        (looked,) = await ask(store, Look(SESSION, "worker", 0, 9))
        assert [entry.seq for entry in looked.entries] == [1, 2, 3, 4]


@pytest.mark.parametrize("part", ["head", "up", "history", "trail", "inputs", "progress", "pieces"])
async def test_redis_keeps_what_was_written_meanwhile(redis_url: str, part: str) -> None:
    """An exchange for what is not there any more does nothing, whatever the kind of the key; lifetimes stay."""
    with Redis.from_url(redis_url) as redis:
        redis.flushall()
        async with open_redis(redis_url, "a", seals=Seals((OLD,), sealing=True)) as store:
            await ask(store, *fill())
            key = {"head": "", "up": ":up", "history": ":history", "trail": ":trail", "pieces": ":pieces"}
            place = f"signald:{{{SESSION}}}{key.get(part, ':jobs')}"
            redis.pexpire(place, 5_000_000)
            start = {"up": b"-", "head": b""}.get(part, b"0")
            (found,) = await ask(store, ReadSealed(SESSION, part, start))
            where, value, _ = found.values[0]
            stale, right = (where, value + b"?", b"new"), (where, value, b"new")
            assert [each.count for each in await ask(store, Exchange(SESSION, part, (stale,)))] == [0]
            assert [each.count for each in await ask(store, Exchange(SESSION, part, (right,)))] == [1]
            assert [each.count for each in await ask(store, Exchange(SESSION, part, (right,)))] == [0]
            (again,) = await ask(store, ReadSealed(SESSION, part, start))
            assert [each[1] for each in again.values].count(b"new") == 1
            assert len(again.values) == len(found.values)
            assert redis.pttl(place) > 4_000_000


async def test_a_list_that_was_trimmed(redis_url: str) -> None:
    """An item is found where it is now, when the first ones of its list have gone since it was read."""
    with Redis.from_url(redis_url) as redis:
        redis.flushall()
        async with open_redis(redis_url, "a", seals=Seals((OLD,), sealing=True)) as store:
            await ask(store, create(), append(test_sealed._messages(1, 3)))
            (found,) = await ask(store, ReadSealed(SESSION, "history", b"0"))
            redis.lpop(f"signald:{{{SESSION}}}:history")
            where, value, _ = found.values[2]
            assert [
                each.count for each in await ask(store, Exchange(SESSION, "history", ((where, value, b"new"),)))
            ] == [1]
            assert redis.lrange(f"signald:{{{SESSION}}}:history", 0, -1)[-1] == b"new"


@pytest.mark.parametrize("kind", [b"s", b"m", b"l", b"r"])
async def test_redis_keeps_what_was_said_in_a_room_meanwhile(redis_url: str, kind: bytes) -> None:
    """As of sessions."""
    with Redis.from_url(redis_url) as redis:
        redis.flushall()
    async with open_redis(redis_url, "a", seals=Seals((OLD,), sealing=True)) as store:
        await ask(store, *test_sealed_rooms.fill())
        (found,) = await ask(store, ReadSealedRoom(ROOM, b"0"))
        where, value, _ = next(each for each in found.values if each[0][:1] == kind)
        stale, right = (where, value + b"?", b"new"), (where, value, b"new")
        counts = [await ask(store, ExchangeRoom(ROOM, (change,))) for change in (stale, right, right)]
        assert [each.count for (each,) in counts] == [0, 1, 0]


async def test_a_login_that_may_not_scan(redis_url: str) -> None:
    """The rights of every day name the keys of no store: the pass says so, and the node goes on. With more it is made."""
    daily = " ".join(rule for rule in ACL.split() if rule != "+waitaof")
    with Redis.from_url(redis_url) as redis:
        redis.flushall()
        redis.execute_command("ACL", "SETUSER", "daily", "on", ">secret", *daily.split())
        try:
            url = redis_url.replace("redis://", "redis://daily:secret@")
            async with open_redis(url, "a", seals=Seals((OLD,), sealing=True)) as store:
                await ask(store, create())
                with pytest.raises(StoreMisused, match="permissions"):
                    await _pass(store)
                await ask(store, append(_one(1)))
                redis.execute_command("ACL", "SETUSER", "daily", *ACL_RESEAL.split())
                assert (await _pass(store)).clean
        finally:
            redis.execute_command("ACL", "DELUSER", "daily")
