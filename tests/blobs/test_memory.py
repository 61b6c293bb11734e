"""Media in memory: the bound of all bytes, and no wait but a checkpoint."""

import pytest

from signald.blobs.memory import MemoryMedia
from signald.errors import MediaFull
from tests.blobs.test_contract import get, noise, put


async def test_all_bytes_are_bounded() -> None:
    """Unfinished objects count; what is removed or given up makes room again."""
    media = MemoryMedia(bytes_max=1000)
    await put(media, "a", noise(600))
    with pytest.raises(MediaFull):
        await put(media, "b", noise(401), step=100)
    assert (media.bytes, media.counts.failed) == (600, 1)
    await put(media, "b", noise(400))
    await media.delete("a")
    await put(media, "c", noise(600))
    assert media.bytes == 1000


async def test_a_replaced_object_is_counted_once() -> None:
    """The bytes of the one before are given back."""
    media = MemoryMedia(bytes_max=1000)
    for seed in range(5):
        await put(media, "a", noise(400, seed))
    assert media.bytes == 400
    assert b"".join(await get(media, "a", 0, 400)) == noise(400, 4)
