"""What an application uploads: bytes, a file, or an iterator. Each becomes a body that can be read again for another try.

An iterator yields its bytes once, and an upload may need them twice: after a node that was killed, and after one that was busy. So they
are kept until the upload is over, in memory up to MEMORY_BYTES_MAX, and beyond that in a file without a name.
"""

import hashlib
import os
import tempfile
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import BinaryIO, Final

import anyio

from signald.sdk.errors import BlobFailed
from signald.sdk.requests import PIECE_BYTES, Body, Bytes, Pieces

Source = str | os.PathLike[str] | bytes | bytearray | memoryview | AsyncIterable[bytes]
"""A path, bytes, or pieces of bytes as they come."""

SPOOL_BYTES_MAX: Final = 64 * 1024 * 1024
"""What an iterator may yield unless the caller says otherwise: six times a node's own bound for a blob (`blobs.bytes_max`)."""

MEMORY_BYTES_MAX: Final = 1024 * 1024
"""Kept in memory of one iterator: four minutes of speech. Also hashed at once, in about a millisecond."""

_BLOCK_BYTES = 16 * PIECE_BYTES
"""Read from a file at once: a hop to a thread costs a tenth of a millisecond."""


class Counted:
    """A body, and the digest that it had when it was counted."""

    def __init__(self, body: Body, sha256: bytes) -> None:
        self.body = body
        self.sha256 = sha256


class _File:
    """A body that is a file; read by one try at a time."""

    def __init__(self, file: BinaryIO, length: int) -> None:
        self._file = file
        self._length = length

    @property
    def length(self) -> int:
        """How many bytes it had when it was opened."""
        return self._length

    @asynccontextmanager
    async def pieces(self) -> AsyncIterator[Pieces]:
        """Yield them. Raises OSError; BlobFailed when there are fewer."""
        at, block = 0, memoryview(b"")

        async def piece() -> bytes:
            nonlocal at, block
            if not block and at < self._length:
                block = memoryview(await self._block(at))
                if not block:
                    raise BlobFailed("changed", f"the file ends at byte {at} of {self._length}")
                at += len(block)
            one, block = block[:PIECE_BYTES], block[PIECE_BYTES:]
            return bytes(one)

        yield piece

    async def _block(self, at: int) -> bytes:
        most = min(_BLOCK_BYTES, self._length - at)

        def read() -> bytes:
            self._file.seek(at)
            return self._file.read(most)

        return await anyio.to_thread.run_sync(read)


@asynccontextmanager
async def counted(source: Source, bytes_max: int) -> AsyncIterator[Counted]:
    """Yield `source` as a body, for the time of a block. `bytes_max` bounds what an iterator yields.

    Raises:
        BlobFailed: an iterator yields more.
        OSError: a file cannot be read.
        ValueError: a path of no regular file, or an iterator of something else than bytes.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        yield await _of_bytes(bytes(source))
    elif isinstance(source, str | os.PathLike):
        file = await anyio.to_thread.run_sync(_opened, Path(source))
        try:
            yield await _of_file(file)
        finally:
            file.close()
    elif isinstance(source, AsyncIterable):
        async with _spooled(source, bytes_max) as body:
            yield body
    else:
        raise ValueError(f"an upload is a path, bytes or an async iterator, not {type(source).__name__}")  # noqa: TRY004


async def _of_bytes(data: bytes) -> Counted:
    def digest() -> bytes:
        return hashlib.sha256(data).digest()

    small = len(data) <= MEMORY_BYTES_MAX
    return Counted(Bytes(data), digest() if small else await anyio.to_thread.run_sync(digest))


def _opened(path: Path) -> BinaryIO:
    # A pipe without a writer would hold the thread for ever.
    if path.exists() and not path.is_file():
        raise ValueError("the path names no regular file: give an async iterator")
    return path.open("rb")


async def _of_file(file: BinaryIO) -> Counted:
    body = _File(file, await anyio.to_thread.run_sync(lambda: os.fstat(file.fileno()).st_size))
    digest = hashlib.sha256()
    async with body.pieces() as pieces:
        while piece := await pieces():
            digest.update(piece)
    return Counted(body, digest.digest())


@asynccontextmanager
async def _spooled(source: AsyncIterable[bytes], bytes_max: int) -> AsyncIterator[Counted]:
    kept = bytearray()
    file: BinaryIO | None = None
    digest, length = hashlib.sha256(), 0
    try:
        async with _closing(source) as pieces:
            async for piece in pieces:
                if not isinstance(piece, bytes | bytearray | memoryview):
                    raise ValueError(f"the iterator yields {type(piece).__name__}, not bytes")  # noqa: TRY004
                digest.update(piece)
                kept += piece
                length += memoryview(piece).nbytes
                if length > bytes_max:
                    raise BlobFailed("too_long", f"the iterator yields more than {bytes_max} bytes")
                if len(kept) > MEMORY_BYTES_MAX:
                    if file is None:
                        file = await anyio.to_thread.run_sync(tempfile.TemporaryFile)
                    await anyio.to_thread.run_sync(_write(file, kept))
                    kept = bytearray()
        if file is None:
            yield Counted(Bytes(bytes(kept)), digest.digest())
        else:
            await anyio.to_thread.run_sync(_write(file, kept))
            yield Counted(_File(file, length), digest.digest())
    finally:
        if file is not None:
            file.close()


@asynccontextmanager
async def _closing(source: AsyncIterable[bytes]) -> AsyncIterator[AsyncIterable[bytes]]:
    """Close a generator at the end of the block, also one that is not read to its end."""
    if isinstance(source, AsyncGenerator):
        async with aclosing(source):
            yield source
    else:
        yield source


def _write(file: BinaryIO, data: bytearray) -> Callable[[], object]:
    def write() -> None:
        file.write(data)
        file.flush()

    return write
