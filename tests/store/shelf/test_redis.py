"""What of a shelf is in Redis, for how long, and what a script leaves that is cut short."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from redis import Redis

from signald.core.blobs import LATE_MS
from signald.errors import StoreMisused
from signald.store.base import Done, Op
from signald.store.redis import ACL, open_redis
from signald.store.shelf.ops import (
    UPLOAD_RETRY_MS,
    AbandonBlob,
    BlobBegun,
    BlobKept,
    BlobRead,
    ForgetBlobs,
    ReadBlob,
    RemoveBlob,
    RenewBlob,
    ShelfFull,
    ShelfSwept,
    SweepShelf,
)
from signald.store.shelf.packing import UNSWEPT_MS
from tests.store.ops import BLOB, KEEP_MS, LEASE_MS, NOW_MS, SHELF, begin_blob, finish_blob, token

pytestmark = pytest.mark.real

KEYS = f"signald:{{{SHELF}}}*"
KEY = token("key")
SECRET = "secret"
FOREVER_MS = NOW_MS + KEEP_MS


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
    """When all its blobs are forgotten, no key of a shelf is left, and none of another one is touched."""
    async with open_redis(redis_url, "a") as store:
        await store.execute([begin_blob(key=KEY), finish_blob(), begin_blob("b_2"), begin_blob(shelf="p_2")])
        await store.execute([RemoveBlob(SHELF, BLOB, NOW_MS), AbandonBlob(SHELF, "b_2", "upload", NOW_MS)])
        assert {key.decode() for key in client.scan_iter(KEYS)} == {
            f"signald:{{{SHELF}}}{end}" for end in ("", ":leases", ":times")
        }
        await store.execute([ForgetBlobs(SHELF, (BLOB, "b_2"), NOW_MS)])
        assert not [*client.scan_iter(KEYS)]
        assert len([*client.scan_iter("signald:{p_2}*")]) == 2


async def test_a_shelf_that_is_not_swept_goes_by_itself(redis_url: str, client: Redis) -> None:
    """All keys of a shelf have one time to live, which ends a week after its last blob."""
    async with open_redis(redis_url, "a") as store:

        async def lives(*ops: Op) -> set[int]:
            await store.execute(ops)
            return {(client.pttl(key) + 5000) // 10_000 * 10_000 for key in client.scan_iter(KEYS)}

        assert await lives(begin_blob()) == {UNSWEPT_MS + LEASE_MS}
        assert await lives(begin_blob("b_2"), finish_blob("b_2", until_ms=FOREVER_MS)) == {UNSWEPT_MS + KEEP_MS}
        assert await lives(finish_blob(until_ms=NOW_MS + 5000)) == {UNSWEPT_MS + KEEP_MS}
        assert await lives(RemoveBlob(SHELF, BLOB, NOW_MS)) == {UNSWEPT_MS + KEEP_MS}


@pytest.mark.parametrize("wrong", [{"n": "x"}, {"s": "x"}, {"n": "-1"}, {"s": "-5"}, {"n": ""}, {"s": None}])
async def test_a_damaged_sum_is_counted_anew(redis_url: str, client: Redis, wrong: dict[str, str | None]) -> None:
    """What the blobs of a shelf sum up to is known from the blobs themselves where the sum cannot be read."""
    async with open_redis(redis_url, "a") as store:
        await store.execute([begin_blob(), finish_blob(size=60), begin_blob("b_2", reserved=40)])
        for field, value in wrong.items():
            if value is None:
                client.hdel(f"signald:{{{SHELF}}}", field)
            else:
                client.hset(f"signald:{{{SHELF}}}", field, value)
        (full,) = await store.execute([begin_blob("b_3", reserved=901)])
        assert full == ShelfFull(100, UPLOAD_RETRY_MS)
        await store.execute([RemoveBlob(SHELF, BLOB, NOW_MS), AbandonBlob(SHELF, "b_2", "upload", NOW_MS)])
        await store.execute([ForgetBlobs(SHELF, (BLOB, "b_2"), NOW_MS)])
        assert not [*client.scan_iter(KEYS)]


STEPS: dict[str, tuple[list[Op], Op]] = {
    "begin": ([], begin_blob(key=KEY)),
    "begin another": ([begin_blob("b_2")], begin_blob(key=KEY)),
    "begin after": ([begin_blob("b_2", key=KEY)], begin_blob(nonce="upload", key=KEY, now_ms=NOW_MS + LEASE_MS)),
    "renew": ([begin_blob(key=KEY)], RenewBlob(SHELF, BLOB, "upload", LEASE_MS, NOW_MS + 5)),
    "finish": ([begin_blob(key=KEY)], finish_blob()),
    "abandon": ([begin_blob(key=KEY)], AbandonBlob(SHELF, BLOB, "upload", NOW_MS)),
    "remove": ([begin_blob(key=KEY), finish_blob()], RemoveBlob(SHELF, BLOB, NOW_MS)),
    "sweep": ([begin_blob(key=KEY), begin_blob("b_2"), finish_blob("b_2")], SweepShelf(SHELF, FOREVER_MS, 9)),
    "forget": (
        [begin_blob(key=KEY), finish_blob(), RemoveBlob(SHELF, BLOB, NOW_MS), begin_blob("b_2"), finish_blob("b_2")],
        ForgetBlobs(SHELF, (BLOB,), NOW_MS),
    ),
}


@pytest.mark.parametrize("denied", ["hset", "hdel", "zadd", "zrem", "pexpire", "del"])
@pytest.mark.parametrize("step", STEPS)
async def test_cut_short(redis_url: str, client: Redis, step: str, denied: str) -> None:
    """A script that is cut short leaves half of it done. Repeated it answers as ever, and the shelf comes to its end in time."""
    allow(client)
    before, op = STEPS[step]
    async with open_redis(redis_url.replace("//", f"//signald:{SECRET}@"), "a") as store:

        async def ask(op: Op) -> Any:
            return (await store.execute([op]))[0]

        await store.execute(before)
        allow(client, f"-{denied}")
        with suppress(StoreMisused):  # not each step has such a command
            await ask(op)
        allow(client)
        expected = {"begin": BlobBegun, "renew": Done, "finish": BlobKept, "abandon": Done, "remove": Done}
        assert isinstance(await ask(op), expected.get(step.split()[0], ShelfSwept))
        late = NOW_MS + 2 * LEASE_MS + LATE_MS
        swept = await ask(SweepShelf(SHELF, late, 9))
        # An upload that nothing finishes is found by its lease, a blob that is kept is not.
        assert (BLOB in swept.doomed) == (step not in ("finish", "forget"))
        assert isinstance(await ask(ReadBlob(SHELF, BLOB, late)), BlobRead) == (step == "finish")
        swept = await ask(SweepShelf(SHELF, FOREVER_MS, 9))
        assert swept.next_ms == 0
        assert await ask(ForgetBlobs(SHELF, swept.doomed, FOREVER_MS)) == ShelfSwept((), 0)
        assert not [*client.scan_iter(KEYS)]


async def test_a_sum_that_is_too_low_removes_nothing(redis_url: str, client: Redis) -> None:
    """A shelf is removed when it has no blob, whatever its sum says."""
    async with open_redis(redis_url, "a") as store:
        await store.execute([begin_blob(), finish_blob(), begin_blob("b_2"), finish_blob("b_2")])
        client.hset(f"signald:{{{SHELF}}}", "n", "1")
        await store.execute([RemoveBlob(SHELF, BLOB, NOW_MS), ForgetBlobs(SHELF, (BLOB,), NOW_MS)])
        (read,) = await store.execute([ReadBlob(SHELF, "b_2", NOW_MS)])
        assert isinstance(read, BlobRead)
