"""How much memory reads and writes hold at once, counted in bytes and buffers: no clock, and no other process, has a say in it."""

import threading
import tracemalloc
from contextlib import AsyncExitStack, aclosing
from pathlib import Path

import pytest
import trio

from signald.blobs.directory import DirectoryMedia, open_directory
from signald.blobs.media import HELD_BYTES, PIECE_BYTES

AT_ONCE = 20
SIZE = 40 * PIECE_BYTES
COPIES = 3
"""Of one piece on its way: the buffer, the piece of the reader, and the one that the next step makes of it."""
SLACK = 1 << 20
"""For all else that Python makes meanwhile: tasks, threads, descriptors."""


async def write(media: DirectoryMedia, key: str) -> None:
    """Write an object."""
    async with media.write(key) as writing:
        for _ in range(SIZE // 16_384):
            await writing.send(bytes(16_384))
        await writing.finish()


async def read(media: DirectoryMedia, key: str) -> None:
    """Read an object."""
    async with aclosing(media.read(key, 0, SIZE)) as pieces:
        assert sum([len(piece) async for piece in pieces]) == SIZE


async def test_many_at_once_hold_a_few_pieces_each(tmp_path: Path) -> None:
    """Twenty uploads and then twenty downloads hold a few pieces each, whatever the objects have."""
    async with open_directory(tmp_path / "media", threads=16) as media:
        await write(media, "first")  # what is imported and made once
        for one, piece in ((write, HELD_BYTES), (read, PIECE_BYTES)):
            tracemalloc.start()
            try:
                async with trio.open_nursery() as nursery:
                    for number in range(AT_ONCE):
                        nursery.start_soon(one, media, f"k{number}")
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert peak < AT_ONCE * COPIES * piece + SLACK
            assert peak < AT_ONCE * SIZE / 4  # the bound is one


async def test_readers_that_stand_still_hold_one_piece_each(tmp_path: Path) -> None:
    """A reader that takes its time makes the media read nothing ahead."""
    async with open_directory(tmp_path / "media", threads=16) as media:
        await write(media, "k")
        tracemalloc.start()
        try:
            async with AsyncExitStack() as stack:
                for _ in range(AT_ONCE):
                    pieces = await stack.enter_async_context(aclosing(media.read("k", 0, SIZE)))
                    await anext(pieces)
                await trio.sleep(0.05)
                held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert held < AT_ONCE * 2 * PIECE_BYTES + SLACK


async def test_a_read_has_one_buffer_that_no_thread_has_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a thread asks the allocator for stays with that thread: sixteen threads would keep ten MiB of nothing."""
    filled: list[tuple[int, int]] = []
    original = DirectoryMedia.piece

    def piece(self: DirectoryMedia, key: str, first: int, buffer: memoryview) -> int:
        filled.append((id(buffer.obj), threading.get_ident()))
        assert len(buffer) <= PIECE_BYTES
        return original(self, key, first, buffer)

    monkeypatch.setattr(DirectoryMedia, "piece", piece)
    async with open_directory(tmp_path / "media", threads=16) as media:
        await write(media, "k")
        await read(media, "k")
    assert len({buffer for buffer, _ in filled}) == 1
    assert threading.get_ident() not in {thread for _, thread in filled}
