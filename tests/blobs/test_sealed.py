"""Sealed media: any range comes back, and an object that was changed, moved or cut is missing."""

from contextlib import aclosing
from pathlib import Path

import pytest
import trio

from signald.blobs.directory import open_directory
from signald.blobs.media import PIECE_BYTES, Media
from signald.blobs.memory import MemoryMedia
from signald.blobs.sealed import CHUNK_BYTES, HEADER_BYTES, SealedMedia
from signald.errors import MediaMissing
from signald.store.seals import Seals
from tests.blobs.test_contract import KEY, noise, put
from tests.store.test_seals import NEW, OLD

OTHER_KEY = "b_zyxwvutsrqponmlkjihgfe"
RING = Seals((OLD,), sealing=True)


async def read(media: Media, key: str, start: int, end: int, size: int) -> bytes:
    """Read a range of an object whose content has `size` bytes."""
    async with aclosing(media.read(key, start, end, size=size)) as found:
        pieces = [piece async for piece in found]
    assert all(0 < len(piece) <= PIECE_BYTES for piece in pieces)
    return b"".join(pieces)


@pytest.mark.parametrize(
    "size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES, 5 * CHUNK_BYTES + 7]
)
@pytest.mark.parametrize("step", [777, CHUNK_BYTES, 1_000_000])
async def test_ranges(size: int, step: int) -> None:
    """Each range is that of the content, at the edges of chunks too; what is kept shows none of it."""
    inner, content = MemoryMedia(), noise(size)
    media = SealedMedia(inner, RING)
    await put(media, KEY, content, step)
    edges = sorted(
        {0, 1, size // 2, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES, size - 1, size}
        & set(range(size + 1))
    )
    for start in edges:
        for end in edges:
            if start < end:
                assert await read(media, KEY, start, end, size) == content[start:end]
    kept = inner.objects[KEY]
    assert len(kept) == HEADER_BYTES + size + 16 * -(-size // CHUNK_BYTES)
    assert not any(content[at : at + 16] in kept for at in range(0, size - 16, 999))


async def test_plain_objects_are_read_as_they_are() -> None:
    """Those of before, and short ones; without a key that seals, an object is written plain."""
    inner = MemoryMedia()
    media = SealedMedia(inner, RING)
    for content in (b"", b"short", noise(3 * PIECE_BYTES), b"signald" * 99):
        await put(inner, KEY, content)
        assert await read(media, KEY, 0, len(content), len(content)) == content
    await put(SealedMedia(inner, Seals((OLD,))), KEY, b"plain")
    assert inner.objects[KEY] == b"plain"


async def test_keys_rotate() -> None:
    """Each object opens by the key that has sealed it."""
    inner = MemoryMedia()
    await put(SealedMedia(inner, RING), KEY, b"old")
    await put(SealedMedia(inner, Seals((OLD, NEW), sealing=True)), OTHER_KEY, b"new")
    both = SealedMedia(inner, Seals((OLD, NEW)))
    assert (await read(both, KEY, 0, 3, 3), await read(both, OTHER_KEY, 0, 3, 3)) == (b"old", b"new")
    with pytest.raises(MediaMissing):
        await read(SealedMedia(inner, RING), OTHER_KEY, 0, 3, 3)


@pytest.mark.parametrize("attack", ["moved", "swapped", "cut", "one bit", "chunk of another", "longer"])
async def test_a_changed_object_is_missing(attack: str) -> None:
    """Nothing but the content is ever read; the chunks before the fault come."""
    inner, content, size = MemoryMedia(), noise(3 * CHUNK_BYTES, 1), 3 * CHUNK_BYTES
    media = SealedMedia(inner, RING)
    await put(media, KEY, content)
    await put(media, OTHER_KEY, noise(size, 2))
    kept, other = inner.objects[KEY], inner.objects[OTHER_KEY]
    chunk = [slice(HEADER_BYTES + at * PIECE_BYTES, HEADER_BYTES + (at + 1) * PIECE_BYTES) for at in range(3)]
    inner.objects[KEY] = {
        "moved": other,
        "swapped": kept[: chunk[1].start] + kept[chunk[2]] + kept[chunk[1]],
        "cut": kept[:-PIECE_BYTES],
        "one bit": kept[:-1] + bytes([kept[-1] ^ 1]),
        "chunk of another": kept[: chunk[2].start] + other[chunk[2]],
        "longer": kept + b"x",
    }[attack]
    if attack == "longer":
        assert await read(media, KEY, 0, size, size) == content
        return
    got = bytearray()

    async def go() -> None:
        async with aclosing(media.read(KEY, 0, size, size=size)) as pieces:
            async for piece in pieces:
                got.extend(piece)

    with pytest.raises(MediaMissing):
        await go()
    assert content.startswith(got)
    assert len(got) < size


async def test_in_a_directory(tmp_path: Path) -> None:
    """The file has none of the content, an upload that ends early leaves nothing, and no URL reads what is sealed."""
    async with open_directory(tmp_path / "blobs", threads=2) as inner:
        media = SealedMedia(inner, RING)
        content = b"hush " * 40_000
        await put(media, KEY, content)
        assert await read(media, KEY, 100_000, 100_010, len(content)) == content[100_000:100_010]
        assert b"hush" not in (tmp_path / "blobs" / KEY).read_bytes()
        with trio.CancelScope() as scope:
            async with media.write(OTHER_KEY) as writing:
                await writing.send(content)
                scope.cancel()
                await trio.lowlevel.checkpoint()
        assert await media.signed_url(KEY, ttl_s=60) is None
        await media.delete(KEY)
        with pytest.raises(MediaMissing):
            await read(media, KEY, 0, 1, 1)
