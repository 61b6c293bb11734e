"""What every store must do about a shelf, one rule of `signald/store/shelf/ops.py` after the other."""

from typing import Any

import pytest
from msgspec.structs import replace

from signald.core.blobs import BLOBS_MAX, LATE_MS, Blob
from signald.store.base import CLOCK_SET_MS, Done
from signald.store.shelf.ops import (
    RETRY_MIN_MS,
    SWEPT_MAX,
    UPLOAD_RETRY_MS,
    AbandonBlob,
    BlobBegun,
    BlobGone,
    BlobInProgress,
    BlobKept,
    BlobRead,
    ForgetBlobs,
    NoBlob,
    ReadBlob,
    RemoveBlob,
    RenewBlob,
    ShelfFull,
    ShelfSwept,
    SweepShelf,
)
from tests.store.ops import BLOB, KEEP_MS, LEASE_MS, NOW_MS, SESSION, SHELF, begin_blob, finish_blob, token
from tests.store.scenes import NO_WAKES
from tests.store.worlds import World

KEY = token("key")
UNTIL_MS = NOW_MS + KEEP_MS
LAPSED_MS = NOW_MS + LEASE_MS
LATE = LAPSED_MS + LATE_MS
KEPT = Blob(BLOB, SESSION, "ann", 60, "audio/ogg", token(BLOB), NOW_MS, UNTIL_MS)


async def keep(world: World, blob: str = BLOB, *, key: bytes = b"", **said: Any) -> None:
    """Upload a blob."""
    assert await world.do(begin_blob(blob, key=key), finish_blob(blob, **said)) == [
        BlobBegun(),
        BlobKept(replace(KEPT, id=blob, sha256=token(blob), **({"bytes": said["size"]} if "size" in said else {}))),
    ]


async def read(world: World, blob: str = BLOB, *, now_ms: int = NOW_MS) -> Any:
    """Return the answer to a reader, which is the same at both nodes."""
    found = await world.ask(ReadBlob(SHELF, blob, now_ms), at="a")
    assert await world.ask(ReadBlob(SHELF, blob, now_ms), at="b") == found
    return found


async def sweep(world: World, now_ms: int, limit: int = 100) -> Any:
    """Sweep the shelf; a sweep that is repeated says the same."""
    first, again = await world.do(SweepShelf(SHELF, now_ms, limit), SweepShelf(SHELF, now_ms, limit))
    assert first == again
    return first


class TestUpload:
    """A blob is begun and finished."""

    async def test_kept(self, world: World) -> None:
        """A blob can be read from its end on, as it was said; no node is woken by any of it."""
        assert await world.ask(begin_blob()) == BlobBegun()
        assert await read(world) == NoBlob()
        assert await world.ask(finish_blob(), at="b") == BlobKept(KEPT)
        assert await read(world) == BlobRead(KEPT)
        assert await read(world, "b_2") == NoBlob()
        assert await world.ask(ReadBlob("p_2", BLOB, NOW_MS)) == NoBlob()
        assert await world.woken() == NO_WAKES

    async def test_repeated(self, world: World) -> None:
        """Each step that is repeated has the same answer, and nothing counts twice."""
        assert await world.do(begin_blob(), begin_blob()) == [BlobBegun()] * 2
        assert await world.do(finish_blob(), finish_blob(until_ms=UNTIL_MS + 9, size=70)) == [BlobKept(KEPT)] * 2
        assert await world.ask(begin_blob()) == BlobKept(KEPT)
        full = await world.ask(begin_blob("b_2", reserved=1000))
        assert full.bytes == 60

    async def test_another_nonce(self, world: World) -> None:
        """An upload is renewed, finished and abandoned by its own node only."""
        await world.ask(begin_blob())
        assert await world.do(
            begin_blob(nonce="other"),
            RenewBlob(SHELF, BLOB, "other", LEASE_MS, NOW_MS),
            finish_blob(nonce="other"),
            AbandonBlob(SHELF, BLOB, "other", NOW_MS),
            finish_blob(),
        ) == [BlobGone(), NoBlob(), NoBlob(), Done(), BlobKept(KEPT)]
        assert await world.ask(finish_blob(nonce="other")) == NoBlob()

    async def test_unknown(self, world: World) -> None:
        """A blob that was never begun cannot be renewed, finished, read or removed, and nothing begins by it."""
        for _ in range(2):
            assert await world.do(
                RenewBlob(SHELF, BLOB, "upload", LEASE_MS, NOW_MS),
                finish_blob(),
                AbandonBlob(SHELF, BLOB, "upload", NOW_MS),
                RemoveBlob(SHELF, BLOB, NOW_MS),
                ForgetBlobs(SHELF, (BLOB,), NOW_MS),
                SweepShelf(SHELF, LATE, 10),
            ) == [NoBlob(), NoBlob(), Done(), NoBlob(), ShelfSwept((), 0), ShelfSwept((), 0)]

    async def test_renewed(self, world: World) -> None:
        """A lease goes on from its renewal; a renewal that comes behind the end changes nothing."""
        await world.ask(begin_blob())
        assert await world.ask(RenewBlob(SHELF, BLOB, "upload", LEASE_MS, NOW_MS + 5000)) == Done()
        assert await sweep(world, LATE) == ShelfSwept((), LATE + 5000)
        await world.ask(finish_blob())
        assert await world.ask(RenewBlob(SHELF, BLOB, "upload", LEASE_MS, NOW_MS)) == Done()
        assert await sweep(world, LATE + 5000) == ShelfSwept((), UNTIL_MS)
        assert await read(world) == BlobRead(KEPT)

    async def test_late_but_in_time(self, world: World) -> None:
        """A lease that has lapsed harms nothing while no other step has looked at it."""
        await world.ask(begin_blob(key=KEY))
        assert await world.ask(RenewBlob(SHELF, BLOB, "upload", LEASE_MS, LAPSED_MS + 5)) == Done()
        assert await world.ask(finish_blob(now_ms=LATE + LEASE_MS)) == BlobKept(KEPT)


class TestKey:
    """An idempotency key."""

    async def test_known(self, world: World) -> None:
        """The key of a blob that is kept leads to that blob, whatever else is asked, before all bounds."""
        await keep(world, key=KEY)
        assert await world.ask(begin_blob("b_2", nonce="other", key=KEY, reserved=5000)) == BlobKept(KEPT)
        assert await read(world, "b_2") == NoBlob()
        assert await world.ask(begin_blob("b_2", nonce="other", key=token("other"))) == BlobBegun()

    async def test_none(self, world: World) -> None:
        """Uploads without a key have nothing in common."""
        await keep(world)
        assert await world.do(begin_blob("b_2"), begin_blob("b_3")) == [BlobBegun()] * 2

    async def test_in_progress(self, world: World) -> None:
        """The key of an upload under way is taken until its lease lapses, in the shelf of its owner only."""
        await world.ask(begin_blob(key=KEY))
        asked = begin_blob("b_2", nonce="other", key=KEY, now_ms=NOW_MS + 5000)
        assert await world.ask(asked) == BlobInProgress(LEASE_MS - 5000)
        assert await world.ask(replace(asked, now_ms=LAPSED_MS - 1)) == BlobInProgress(1)
        assert await world.ask(replace(asked, shelf="p_2")) == BlobBegun()

    async def test_lapsed(self, world: World) -> None:
        """The key of a lapsed upload is free; the upload itself is doomed, and cannot be finished or begun again."""
        await world.ask(begin_blob(key=KEY))
        assert await world.ask(begin_blob("b_2", nonce="other", key=KEY, now_ms=LAPSED_MS)) == BlobBegun()
        assert await world.do(
            RenewBlob(SHELF, BLOB, "upload", LEASE_MS, LAPSED_MS),
            finish_blob(),
            begin_blob(key=KEY),
            AbandonBlob(SHELF, BLOB, "upload", LAPSED_MS),
        ) == [NoBlob(), NoBlob(), BlobGone(), Done()]
        assert await world.ask(finish_blob("b_2", nonce="other")) == BlobKept(
            replace(KEPT, id="b_2", sha256=token("b_2"), made_ms=LAPSED_MS)
        )
        again = await world.ask(begin_blob("b_3", nonce="third", key=KEY, now_ms=LAPSED_MS + 5))
        assert again.blob.id == "b_2"

    @pytest.mark.parametrize("back_ms", [CLOCK_SET_MS + 1, 10**9])
    async def test_clock_set_back(self, world: World, back_ms: int) -> None:
        """A lease that was taken before the clock was set back is none: the key is free at once."""
        await world.ask(begin_blob(key=KEY))
        asked = begin_blob("b_2", nonce="other", key=KEY, now_ms=NOW_MS - back_ms)
        assert await world.ask(replace(asked, now_ms=NOW_MS - CLOCK_SET_MS)) == BlobInProgress(LEASE_MS + CLOCK_SET_MS)
        assert await world.ask(asked) == BlobBegun()
        assert await world.ask(finish_blob()) == NoBlob()

    async def test_clock_set_back_under_an_upload(self, world: World) -> None:
        """An upload that is renewed after the clock was set back goes on."""
        await world.ask(begin_blob(key=KEY))
        now_ms = NOW_MS - 10**9
        assert await world.ask(RenewBlob(SHELF, BLOB, "upload", LEASE_MS, now_ms)) == Done()
        assert await world.ask(begin_blob("b_2", nonce="o", key=KEY, now_ms=now_ms)) == BlobInProgress(LEASE_MS)

    async def test_over(self, world: World) -> None:
        """The key of a blob that is kept no longer, or was removed, is free."""
        await keep(world, key=KEY)
        assert await world.ask(begin_blob("b_2", nonce="other", key=KEY, now_ms=UNTIL_MS)) == BlobBegun()
        assert await world.ask(finish_blob("b_2", nonce="other", until_ms=UNTIL_MS + KEEP_MS)) != NoBlob()
        assert await world.ask(RemoveBlob(SHELF, "b_2", UNTIL_MS)) == Done()
        assert await world.ask(begin_blob("b_3", nonce="third", key=KEY, now_ms=UNTIL_MS)) == BlobBegun()
        assert (await sweep(world, UNTIL_MS)).doomed == (BLOB, "b_2")


class TestBounds:
    """What one owner may have."""

    async def test_bytes(self, world: World) -> None:
        """Bytes count from the beginning on as they are reserved, then as they are, and until the blob is forgotten."""
        await world.do(begin_blob(reserved=600), begin_blob("b_2", reserved=400))
        assert await world.ask(begin_blob("b_3", reserved=1)) == ShelfFull(1000, UPLOAD_RETRY_MS)
        assert await world.ask(begin_blob("b_1", shelf="p_2", reserved=600)) == BlobBegun()
        await world.do(finish_blob(size=500), RemoveBlob(SHELF, BLOB, NOW_MS))
        assert await world.ask(begin_blob("b_3", reserved=101)) == ShelfFull(900, RETRY_MIN_MS)
        await world.ask(ForgetBlobs(SHELF, (BLOB,), NOW_MS))
        assert await world.do(begin_blob("b_3", reserved=601), begin_blob("b_3", reserved=600)) == [
            ShelfFull(400, UPLOAD_RETRY_MS),
            BlobBegun(),
        ]

    async def test_more_than_a_shelf(self, world: World) -> None:
        """What no shelf has room for is refused for ever."""
        assert await world.ask(begin_blob(reserved=1001)) == ShelfFull(0, 0)

    async def test_refused(self, world: World) -> None:
        """A refused upload has changed nothing: what it would have replaced is still there."""
        await world.ask(begin_blob(key=KEY))
        refused = await world.ask(begin_blob("b_2", nonce="other", key=KEY, reserved=950, now_ms=LAPSED_MS))
        assert refused == ShelfFull(100, LATE_MS)
        assert await world.ask(finish_blob()) == BlobKept(KEPT)

    async def test_number(self, world: World) -> None:
        """A shelf has at most `BLOBS_MAX` blobs, however small."""
        for first in range(0, BLOBS_MAX, 512):
            await world.do(*[begin_blob(f"b_{n}", reserved=0) for n in range(first, first + 512)])
        assert await world.ask(begin_blob("b_more", reserved=0)) == ShelfFull(0, UPLOAD_RETRY_MS)
        await world.do(AbandonBlob(SHELF, "b_7", "upload", NOW_MS), ForgetBlobs(SHELF, ("b_7",), NOW_MS))
        assert await world.ask(begin_blob("b_more", reserved=0)) == BlobBegun()


class TestAbandonBlob:
    """An upload is given up."""

    async def test_doomed(self, world: World) -> None:
        """Its key is free at once, and it cannot be finished. It counts until it is forgotten."""
        await world.ask(begin_blob(key=KEY, reserved=1000))
        assert await world.do(*[AbandonBlob(SHELF, BLOB, "upload", NOW_MS)] * 2) == [Done()] * 2
        assert await world.do(finish_blob(), begin_blob(key=KEY)) == [NoBlob(), BlobGone()]
        assert await read(world) == NoBlob()
        assert isinstance(await world.ask(begin_blob("b_2", key=KEY, reserved=1)), ShelfFull)
        assert await world.ask(ForgetBlobs(SHELF, (BLOB,), NOW_MS)) == ShelfSwept((), 0)
        assert await world.ask(begin_blob("b_2", key=KEY)) == BlobBegun()

    async def test_never_what_is_whole(self, world: World) -> None:
        """An end whose answer was lost, and the upload given up for it: the blob stays, and so does what a repetition is answered with."""
        await keep(world, key=KEY)
        assert await world.ask(AbandonBlob(SHELF, BLOB, "upload", NOW_MS)) == BlobKept(KEPT)
        assert await world.ask(ForgetBlobs(SHELF, (BLOB,), NOW_MS)) == ShelfSwept((), UNTIL_MS)
        assert await world.ask(begin_blob("b_2", nonce="other", key=KEY)) == BlobKept(KEPT)
        assert await sweep(world, LATE) == ShelfSwept((), UNTIL_MS)
        assert await read(world) == BlobRead(KEPT)

    async def test_swept_late(self, world: World) -> None:
        """A sweep tells it only when nothing can come through in the media any more."""
        await world.do(begin_blob(), AbandonBlob(SHELF, BLOB, "upload", NOW_MS))
        assert await sweep(world, LATE - 1) == ShelfSwept((), LATE)
        assert await sweep(world, LATE) == ShelfSwept((BLOB,), 0)


class TestRemoveBlob:
    """A blob is removed."""

    async def test_removed(self, world: World) -> None:
        """It is gone at once, told to the next sweep, and unknown once it is forgotten."""
        await keep(world)
        assert await world.do(*[RemoveBlob(SHELF, BLOB, NOW_MS)] * 2) == [Done()] * 2
        assert await read(world) == BlobGone()
        assert await sweep(world, NOW_MS) == ShelfSwept((BLOB,), 0)
        assert await world.ask(ForgetBlobs(SHELF, (BLOB,), NOW_MS)) == ShelfSwept((), 0)
        assert await read(world) == NoBlob()
        assert await world.ask(RemoveBlob(SHELF, BLOB, NOW_MS)) == NoBlob()

    async def test_not_an_upload(self, world: World) -> None:
        """What is still uploading is no blob to any other."""
        await world.ask(begin_blob())
        assert await world.ask(RemoveBlob(SHELF, BLOB, NOW_MS)) == NoBlob()
        assert await world.ask(finish_blob()) == BlobKept(KEPT)


class TestSweepShelf:
    """What is over goes."""

    async def test_over(self, world: World) -> None:
        """A blob is gone when its time is over, whether or not a sweep has come; then a sweep dooms it."""
        await keep(world)
        assert await read(world, now_ms=UNTIL_MS - 1) == BlobRead(KEPT)
        assert await read(world, now_ms=UNTIL_MS) == BlobGone()
        assert await sweep(world, UNTIL_MS - 1) == ShelfSwept((), UNTIL_MS)
        assert await sweep(world, UNTIL_MS) == ShelfSwept((BLOB,), 0)
        assert await read(world) == BlobGone()

    async def test_lapsed(self, world: World) -> None:
        """An upload whose node died is doomed some time after its lease."""
        await world.ask(begin_blob())
        assert await sweep(world, LATE - 1) == ShelfSwept((), LATE)
        assert await sweep(world, LATE) == ShelfSwept((BLOB,), 0)
        assert await world.do(finish_blob(), begin_blob()) == [NoBlob(), BlobGone()]
        assert await read(world) == NoBlob()

    async def test_clock_set_back(self, world: World) -> None:
        """A lease from before the clock was set back has lapsed for a sweep as well; a lease from after it has not."""
        await world.do(begin_blob("b_old", nonce="old"), begin_blob("b_new", nonce="new"))
        now_ms = NOW_MS - 10**9
        await world.ask(RenewBlob(SHELF, "b_new", "new", LEASE_MS, now_ms))
        assert await sweep(world, now_ms) == ShelfSwept(("b_old",), now_ms + LEASE_MS + LATE_MS)

    async def test_long_lease(self, world: World) -> None:
        """A lease that is longer than clocks differ is no sign of a clock that was set back."""
        await world.ask(begin_blob(lease_ms=10**7))
        assert await sweep(world, NOW_MS) == ShelfSwept((), NOW_MS + 10**7 + LATE_MS)

    async def test_limit(self, world: World) -> None:
        """A sweep tells so many of the doomed, in order of id, and comes again at once for the others."""
        for blob in ("b_4", "b_1", "b_3"):
            await keep(world, blob, until_ms=UNTIL_MS)
        await world.do(begin_blob("b_2"), begin_blob("b_5"))
        assert await sweep(world, UNTIL_MS, 2) == ShelfSwept(("b_1", "b_2"), UNTIL_MS)
        assert await world.ask(ForgetBlobs(SHELF, ("b_1", "b_3"), UNTIL_MS)) == ShelfSwept((), UNTIL_MS)
        assert await sweep(world, UNTIL_MS, 10) == ShelfSwept(("b_2", "b_4", "b_5"), 0)

    async def test_a_step_is_bounded(self, world: World) -> None:
        """Whatever a sweep is asked for, it tells so many; the others have the next turns."""
        names = [f"b_{n:04}" for n in range(2 * SWEPT_MAX + 1)]
        await world.do(*[op for name in names for op in (begin_blob(name, reserved=1), finish_blob(name, size=1))])
        for first in (0, SWEPT_MAX):
            told = tuple(names[first : first + SWEPT_MAX])
            assert await sweep(world, UNTIL_MS, 10**6) == ShelfSwept(told, UNTIL_MS)
            assert await world.ask(ForgetBlobs(SHELF, told, UNTIL_MS)) == ShelfSwept((), UNTIL_MS)
        assert await sweep(world, UNTIL_MS, 10**6) == ShelfSwept((names[-1],), 0)

    async def test_next(self, world: World) -> None:
        """The next sweep is due with the first lease or the first blob that is over."""
        await keep(world, until_ms=UNTIL_MS)
        assert (await sweep(world, NOW_MS)).next_ms == UNTIL_MS
        await world.ask(begin_blob("b_2"))
        assert (await sweep(world, NOW_MS)).next_ms == LATE
        await world.ask(begin_blob("b_3", now_ms=NOW_MS - 10))
        assert (await world.ask(ForgetBlobs(SHELF, (), NOW_MS))).next_ms == LATE - 10


class TestForgetBlobs:
    """Bytes are deleted."""

    async def test_nothing_is_left(self, world: World) -> None:
        """A shelf whose blobs are forgotten is as one that never was."""
        await keep(world, key=KEY)
        await world.do(begin_blob("b_2", key=token("two")), RemoveBlob(SHELF, BLOB, NOW_MS))
        await sweep(world, LATE)
        assert await world.ask(ForgetBlobs(SHELF, (BLOB, "b_2", "b_3"), LATE)) == ShelfSwept((), 0)
        assert await world.do(begin_blob(key=KEY, nonce="new", reserved=1000), finish_blob(nonce="new")) == [
            BlobBegun(),
            BlobKept(KEPT),
        ]

    async def test_not_what_is_used(self, world: World) -> None:
        """What is kept or uploading stays, whatever a sweep of before thinks of it."""
        await keep(world)
        await world.ask(begin_blob("b_2"))
        assert await world.ask(ForgetBlobs(SHELF, (BLOB, "b_2"), NOW_MS)) == ShelfSwept((), LATE)
        assert await read(world) == BlobRead(KEPT)
        assert isinstance(await world.ask(finish_blob("b_2")), BlobKept)
