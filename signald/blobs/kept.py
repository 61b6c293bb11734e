"""What a directory and S3 have in common: calls that block, each in a thread, and uploads that wait in a spool file."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

import attrs
import trio

from signald.blobs.media import HELD_BYTES, PIECE_BYTES, MediaCounts, check_key, pieces
from signald.blobs.spool import SpoolFile
from signald.blobs.threads import Threads
from signald.errors import MediaAway, MediaError, MediaMissing

T = TypeVar("T")

LOCAL_S = 30.0
"""For one call on a local disk. A disk answers in milliseconds; one that hangs this long, such as a lost network volume, is away."""


@attrs.frozen
class MediaSettings:
    """What media take from the configuration, resolved."""

    threads: int
    timeout_s: float
    """For one request to S3, its body included."""
    spool: Path
    """Where uploads wait; for a directory, a folder in it."""


class KeptMedia(ABC):
    """Objects that calls reach which block. A subclass says how: `publish`, `piece` and `remove`."""

    named_spool = False
    """Whether a spool file has a name: it becomes the object itself."""

    def __init__(self, settings: MediaSettings, *, call_s: float) -> None:
        """`call_s` is how long one call may take, retries included."""
        self.counts = MediaCounts()
        self.settings = settings
        self.call_s = call_s
        self.threads = Threads(settings.threads, wait_s=call_s, counts=self.counts)

    @asynccontextmanager
    async def write(
        self, key: str, *, content_type: str = "application/octet-stream"
    ) -> AsyncIterator["SpooledWriting"]:
        """As `Media.write`."""
        check_key(key)
        writing = SpooledWriting(self, key, content_type)
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
        """As `Media.read`. Each piece is a request of its own, so that a slow reader runs into no time-out."""
        check_key(key)
        # Made here and filled by threads: an allocator keeps what each thread has asked for, which was 10 MiB for sixteen of them.
        # No call that was left behind meets another in it, for the reader has ended then.
        buffer = memoryview(bytearray(min(PIECE_BYTES, max(0, end - start))))
        for first, after in pieces(start, end):
            piece = buffer[: after - first]
            await self.run(partial(self._piece, key, first, piece), self.call_s)
            yield bytes(piece)

    async def delete(self, key: str) -> None:
        """As `Media.delete`."""
        check_key(key)
        await self.run(partial(self.remove, key), self.call_s)

    async def signed_url(self, key: str, *, ttl_s: float) -> str | None:  # noqa: ARG002 - the contract
        """As `Media.signed_url`."""
        check_key(key)
        await trio.lowlevel.checkpoint()
        return None

    async def sweep(self) -> int:
        """As `Media.sweep`."""
        await trio.lowlevel.checkpoint()
        return 0

    async def finish(self, file: SpoolFile, key: str, content_type: str) -> None:
        """Make a spool file an object. Without a caller that hears of it, the object is removed again."""
        publish, remove = partial(self._publish, file, key, content_type), partial(self.remove, key)
        await self.run(publish, self.publish_s(file.size), undo=remove, threads=self.threads_for(file.size))

    def publish_s(self, size: int) -> float:  # noqa: ARG002 - S3 differs by it
        """How long it may take to make an object of `size` bytes."""
        return self.call_s

    def threads_for(self, size: int) -> Threads:  # noqa: ARG002 - likewise
        """Which threads make an object of `size` bytes."""
        return self.threads

    @abstractmethod
    def publish(self, file: SpoolFile, key: str, content_type: str) -> None:
        """Make a spool file an object, in the thread."""

    @abstractmethod
    def piece(self, key: str, first: int, buffer: memoryview) -> int:
        """Fill `buffer` with the bytes of an object from `first` on, in the thread; return how many there are, less at its end.

        Raises MediaMissing, MediaAway.
        """

    @abstractmethod
    def remove(self, key: str) -> None:
        """Remove an object, if there is one, in the thread. Raises MediaAway."""

    def _publish(self, file: SpoolFile, key: str, content_type: str) -> None:
        try:
            self.publish(file, key, content_type)
        except MediaError:
            # The object may be there although its answer was lost: its writer will never name it.
            with suppress(MediaError):
                self.remove(key)
            raise

    def _piece(self, key: str, first: int, buffer: memoryview) -> None:
        if self.piece(key, first, buffer) != len(buffer):
            raise MediaMissing(f"{key} ends before byte {first + len(buffer)}")

    async def run(
        self,
        function: Callable[[], T],
        deadline_s: float,
        *,
        undo: Callable[[], object] | None = None,
        threads: Threads | None = None,
    ) -> T:
        """Return what `function` returns in a thread. Raises MediaError; failures are counted."""
        try:
            return await (threads or self.threads).run(function, deadline_s, undo=undo)
        except MediaAway:
            self.counts.failed += 1
            raise


class SpooledWriting:
    """An upload whose bytes wait in a spool file until it is finished."""

    def __init__(self, media: KeptMedia, key: str, content_type: str) -> None:
        self._media = media
        self._key = key
        self._content_type = content_type
        self._held = bytearray()
        self._spool: SpoolFile | None = None
        self._given_up = False

    async def send(self, data: bytes) -> None:
        """As `Writing.send`."""
        for at in range(0, len(data), HELD_BYTES):  # the sender decides how much comes at once, not how much is held
            self._held += data[at : at + HELD_BYTES]
            if len(self._held) >= HELD_BYTES:
                await self._spill()
        if not data:
            await trio.lowlevel.checkpoint()

    async def finish(self) -> None:
        """As `Writing.finish`."""
        await self._spill()
        assert self._spool is not None
        await self._media.finish(self._spool, self._key, self._content_type)

    def discard(self) -> None:
        """Remove the spool file, if it was not kept, in a thread of its own that is not waited for.

        A write under way goes before it, so there is at most one such thread for each upload, and it ends with that write.
        """
        self._given_up = True
        if self._spool is not None:
            trio.lowlevel.start_thread_soon(self._spool.discard, _ignore)

    async def _spill(self) -> None:
        held, self._held = self._held, bytearray()
        if self._spool is None or held:
            await self._media.run(partial(self._write, held), LOCAL_S)

    def _write(self, data: bytearray) -> None:
        if self._spool is None:
            spool = SpoolFile(self._media.settings.spool, named=self._media.named_spool)
            self._spool = spool
            if self._given_up:  # while the file was made
                spool.discard()
        self._spool.write(data)


def _ignore(_: object) -> None: ...
