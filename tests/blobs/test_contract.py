"""What all media promise: whole objects or none, ranges, keys of ids only, and a cancel that leaves nothing."""

import contextlib
import secrets
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from random import Random

import attrs
import pytest
import trio

from signald.blobs.directory import open_directory
from signald.blobs.media import HELD_BYTES, PIECE_BYTES, Media
from signald.blobs.memory import MemoryMedia
from signald.blobs.s3 import S3Media, open_s3
from signald.errors import MediaMissing
from tests.blobs.conftest import BUCKET

KINDS = ("memory", "directory", pytest.param("s3", marks=pytest.mark.real))

KEY = "b_0123456789abcdefghijkl"


async def put(media: Media, key: str, content: bytes, step: int = 10_000) -> None:
    """Write an object in pieces of `step` bytes."""
    async with media.write(key) as writing:
        for at in range(0, len(content), step):
            await writing.send(content[at : at + step])
        await writing.finish()


async def get(media: Media, key: str, start: int, end: int) -> list[bytes]:
    """Read the pieces of an object."""
    async with aclosing(media.read(key, start, end)) as found:
        return [piece async for piece in found]


def noise(count: int, seed: int = 1) -> bytes:
    """Return bytes in which no part resembles another."""
    return Random(seed).randbytes(count)


@pytest.fixture(params=KINDS)
async def media(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Media]:
    """Each kind of media, empty: tests share a bucket, and each has a prefix of its own."""
    if request.param == "memory":
        yield MemoryMedia()
    elif request.param == "directory":
        async with open_directory(tmp_path / "blobs", threads=4) as directory:
            yield directory
    else:
        blobs = attrs.evolve(request.getfixturevalue("s3"), url=f"s3://{BUCKET}/{secrets.token_hex(8)}")
        async with open_s3(blobs, spool=tmp_path) as bucket:
            yield bucket


@pytest.mark.parametrize(
    "size", [0, 1, HELD_BYTES - 1, HELD_BYTES, HELD_BYTES + 1, PIECE_BYTES, 3 * PIECE_BYTES + 5, 11_000_000]
)
async def test_what_is_written_is_read(media: Media, size: int) -> None:
    """An object has the bytes that were sent, whatever the sizes of the parts."""
    content = noise(size)
    await put(media, KEY, content, step=7_001)
    found = await get(media, KEY, 0, size)
    assert b"".join(found) == content
    assert all(len(piece) == PIECE_BYTES for piece in found[:-1])


async def test_a_large_part_is_as_good_as_small_ones(media: Media) -> None:
    """The sender decides the size of its parts."""
    content = noise(5 * HELD_BYTES + 3)
    await put(media, KEY, content, step=len(content))
    assert b"".join(await get(media, KEY, 0, len(content))) == content


async def test_ranges(media: Media) -> None:
    """A range begins and ends at any byte."""
    content = noise(2 * PIECE_BYTES)
    await put(media, KEY, content)
    for start, end in (
        (0, 2),  # s3rver answers the first byte alone with the whole object, which no other server does
        (5, 5),
        (PIECE_BYTES - 1, PIECE_BYTES + 1),
        (3, 2 * PIECE_BYTES),
        (len(content) - 1, len(content)),
    ):
        assert b"".join(await get(media, KEY, start, end)) == content[start:end]


async def test_beyond_the_end_is_missing(media: Media) -> None:
    """An object that is shorter than its record is said to be, and never read as if it were whole."""
    await put(media, KEY, noise(100))
    with pytest.raises(MediaMissing):
        await get(media, KEY, 50, 101)
    with pytest.raises(MediaMissing):
        await get(media, KEY, 200, 201)


async def test_an_absent_object_is_missing_and_deleted_already(media: Media) -> None:
    """A read says so, a delete has nothing to do."""
    with pytest.raises(MediaMissing):
        await get(media, KEY, 0, 1)
    await media.delete(KEY)
    await put(media, KEY, b"x")
    await media.delete(KEY)
    with pytest.raises(MediaMissing):
        await get(media, KEY, 0, 1)
    assert media.counts.failed == 0


async def test_nothing_is_visible_before_the_end(media: Media) -> None:
    """A reader meets the whole object or none."""
    async with media.write(KEY) as writing:
        await writing.send(noise(3 * HELD_BYTES))
        with pytest.raises(MediaMissing):
            await get(media, KEY, 0, 2)
        await writing.finish()
        assert await get(media, KEY, 0, 2)


@pytest.mark.parametrize("sent", [0, 10, HELD_BYTES, 3 * HELD_BYTES])
async def test_a_writer_that_leaves_early_leaves_nothing(media: Media, sent: int) -> None:
    """By an error, by its own decision, or by a cancel."""
    with contextlib.suppress(ZeroDivisionError):
        async with media.write(KEY) as writing:
            await writing.send(noise(sent))
            raise ZeroDivisionError
    async with media.write(KEY) as writing:
        await writing.send(noise(sent))
    with trio.CancelScope() as scope:
        async with media.write(KEY) as writing:
            await writing.send(noise(sent))
            scope.cancel()
            await writing.finish()
    with pytest.raises(MediaMissing):
        await get(media, KEY, 0, 1)
    if isinstance(media, MemoryMedia):
        assert media.bytes == 0
    assert media.counts.failed == 0


async def test_a_key_is_an_id(media: Media) -> None:
    """What a path or a URL gives a meaning to is no key, in any operation."""
    for key in ("", ".", "..", "a/b", "/a", "../a", "a\0", "a b", "ä", "a%2e", "a#1", "x" * 129, "-a", "_a", "a\n"):
        with pytest.raises(ValueError, match="no key of media"):
            async with media.write(key):
                pass
        with pytest.raises(ValueError, match="no key of media"):
            await get(media, key, 0, 1)
        with pytest.raises(ValueError, match="no key of media"):
            await media.delete(key)
        with pytest.raises(ValueError, match="no key of media"):
            await media.signed_url(key, ttl_s=1)


async def test_only_s3_has_signed_urls(media: Media) -> None:
    """Without them the node gives out the bytes itself."""
    await put(media, KEY, b"x")
    found = await media.signed_url(KEY, ttl_s=60)
    assert (found is not None) is isinstance(media, S3Media)


async def test_many_at_once(media: Media) -> None:
    """Objects that are written side by side do not mix."""
    contents = {f"k{number}": noise(2 * HELD_BYTES + number, seed=number) for number in range(20)}
    async with trio.open_nursery() as nursery:
        for key, content in contents.items():
            nursery.start_soon(put, media, key, content)
    for key, content in contents.items():
        assert b"".join(await get(media, key, 0, len(content))) == content
