"""Media in memory: for tests, simulation, and the memory store. No thread, no wait: deterministic under a mock clock."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import trio

from signald.blobs.media import MediaCounts, check_key, pieces
from signald.errors import MediaFull, MediaMissing

MEMORY_BYTES_MAX = 256 * 1024 * 1024
"""All objects of one process, unfinished ones included: room for the largest allowed uploads of a demonstration. More belongs on a disk."""


class MemoryMedia:
    """Objects in a dict. Nodes of one process that share a store share one of these."""

    def __init__(self, bytes_max: int = MEMORY_BYTES_MAX) -> None:
        self.counts = MediaCounts()
        self.objects: dict[str, bytes] = {}
        self.bytes = 0
        """The sum of all objects and of what is being written."""
        self._bytes_max = bytes_max

    @asynccontextmanager
    async def write(
        self,
        key: str,
        *,
        content_type: str = "",  # noqa: ARG002 - the contract
    ) -> AsyncIterator["MemoryWriting"]:
        """As `Media.write`."""
        writing = MemoryWriting(self, check_key(key))
        try:
            yield writing
        finally:
            writing.discard()

    async def read(
        self,
        key: str,
        start: int,
        end: int,
        *,
        size: int = 0,  # noqa: ARG002 - the contract
    ) -> AsyncGenerator[bytes, None]:
        """As `Media.read`."""
        check_key(key)
        for first, after in pieces(start, end):
            await trio.lowlevel.checkpoint()
            piece = self.objects.get(key, b"")[first:after]
            if len(piece) != after - first:
                raise MediaMissing(f"{key} has no bytes from {first} to {after}")
            yield piece

    async def delete(self, key: str) -> None:
        """As `Media.delete`."""
        await trio.lowlevel.checkpoint()
        self.bytes -= len(self.objects.pop(check_key(key), b""))

    async def signed_url(self, key: str, *, ttl_s: float) -> str | None:  # noqa: ARG002 - the contract
        """As `Media.signed_url`."""
        await trio.lowlevel.checkpoint()
        check_key(key)
        return None

    async def sweep(self) -> int:
        """As `Media.sweep`: nothing outlives its process."""
        await trio.lowlevel.checkpoint()
        return 0

    def take(self, count: int) -> None:
        """Count further bytes. Raises MediaFull."""
        if self.bytes + count > self._bytes_max:
            self.counts.failed += 1
            raise MediaFull(f"the media in memory hold {self._bytes_max} bytes at most")
        self.bytes += count

    def keep(self, key: str, content: bytes) -> None:
        """Make an object visible whose bytes are counted already."""
        self.bytes -= len(self.objects.get(key, b""))
        self.objects[key] = content


class MemoryWriting:
    """An object that is being written into memory."""

    def __init__(self, media: MemoryMedia, key: str) -> None:
        self._media = media
        self._key = key
        self._parts = bytearray()

    async def send(self, data: bytes) -> None:
        """As `Writing.send`."""
        await trio.lowlevel.checkpoint()
        self._media.take(len(data))
        self._parts += data

    async def finish(self) -> None:
        """As `Writing.finish`."""
        await trio.lowlevel.checkpoint()
        self._media.keep(self._key, bytes(self._parts))
        self._parts = bytearray()

    def discard(self) -> None:
        """Give back the bytes of an object that was not finished."""
        self._media.bytes -= len(self._parts)
        self._parts = bytearray()
