"""A shelf that has lost everything, as in a store without persistence that was restarted."""

from collections.abc import AsyncIterator, Callable

import pytest
from redis import Redis

from signald.core.blobs import Blob
from signald.store.base import Done, Op, Store
from signald.store.memory import MemoryWorld, open_memory
from signald.store.redis import open_redis
from signald.store.shelf.ops import (
    AbandonBlob,
    BlobBegun,
    BlobKept,
    ForgetBlobs,
    NoBlob,
    ReadBlob,
    RemoveBlob,
    RenewBlob,
    ShelfSwept,
    SweepShelf,
)
from tests.store.ops import BLOB, LEASE_MS, NOW_MS, SHELF, begin_blob, finish_blob, token

Emptied = tuple[Store, Callable[[], None]]


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.real)])
async def emptied(request: pytest.FixtureRequest) -> AsyncIterator[Emptied]:
    """A store, and how it loses everything."""
    if request.param == "memory":
        world = MemoryWorld(started_ms=NOW_MS)
        async with open_memory("memory:", "a", world=world) as memory:
            yield memory, world.lose_everything
        return
    url: str = request.getfixturevalue("redis_url")
    with Redis.from_url(url) as client:
        client.flushall()
        async with open_redis(url, "a") as redis:
            yield redis, client.flushall


async def test_an_upload_is_lost_with_its_record(emptied: Emptied) -> None:
    """An upload whose record is lost ends: it is neither renewed nor kept, and it keeps no key. Its shelf begins anew with the next one."""
    store, lose = emptied
    key = token("key")
    await store.execute([begin_blob(key=key), begin_blob("b_2"), finish_blob("b_2")])
    lose()
    ops: list[Op] = [
        RenewBlob(SHELF, BLOB, "upload", LEASE_MS, NOW_MS),
        finish_blob(),
        AbandonBlob(SHELF, BLOB, "upload", NOW_MS),
        ForgetBlobs(SHELF, (BLOB,), NOW_MS),
        ReadBlob(SHELF, "b_2", NOW_MS),
        RemoveBlob(SHELF, "b_2", NOW_MS),
        SweepShelf(SHELF, NOW_MS, 9),
    ]
    assert await store.execute(ops) == [
        NoBlob(), NoBlob(), Done(), ShelfSwept((), 0), NoBlob(), NoBlob(), ShelfSwept((), 0),
    ]  # fmt: skip
    begun, kept = await store.execute([begin_blob("b_3", key=key, reserved=1000), finish_blob("b_3")])
    assert begun == BlobBegun()
    assert isinstance(kept, BlobKept)
    assert isinstance(kept.blob, Blob)
