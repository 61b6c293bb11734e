"""Media in a directory: a local disk, or a volume that all nodes share."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import trio

from signald.blobs import spool
from signald.blobs.kept import LOCAL_S, KeptMedia, MediaSettings
from signald.errors import MediaMissing

UNFINISHED = "unfinished"
"""The folder of uploads under way. No key has this name: keys of media are ids."""

CALLS_MAX = 2
"""Calls at once, whatever `blobs.threads` says. Each thread that is done wants the interpreter from the event loop: 20 downloads in 16
threads made the loop's p99 up to three times as late as without them, in four twice, and in two 1.4 times, at the same 150 MiB/s.
A disk answers most calls from memory, and one that hangs stops all of them with any number."""


class DirectoryMedia(KeptMedia):
    """Objects as files of one directory, which only this user can open."""

    named_spool = True

    def __init__(self, directory: Path, settings: MediaSettings) -> None:
        super().__init__(attrs.evolve(settings, threads=min(CALLS_MAX, settings.threads)), call_s=LOCAL_S)
        self._directory = directory

    def publish(self, file: spool.SpoolFile, key: str, content_type: str) -> None:  # noqa: ARG002 - files have no type
        """Rename the spool file: both lie in one file system."""
        file.keep(self._directory / key)

    def piece(self, key: str, first: int, buffer: memoryview) -> int:
        """As `KeptMedia.piece`. A link is no object, wherever it leads."""
        with spool.media_errors():
            try:
                fd = os.open(self._directory / key, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except FileNotFoundError:
                # A volume that is not mounted loses no object: its folder of uploads is absent too.
                if not self.settings.spool.is_dir():
                    raise
                raise MediaMissing(f"there is no {key}") from None
            try:
                return os.preadv(fd, [buffer], first)
            finally:
                os.close(fd)

    def remove(self, key: str) -> None:
        """As `KeptMedia.remove`."""
        with spool.media_errors():
            (self._directory / key).unlink(missing_ok=True)

    async def sweep(self) -> int:
        """As `Media.sweep`. Uploads of other nodes on this directory hold a lock, and stay."""
        swept = await self.run(partial(spool.sweep, self.settings.spool), LOCAL_S)
        self.counts.swept += swept
        return swept


@asynccontextmanager
async def open_directory(path: Path, *, threads: int) -> AsyncIterator[DirectoryMedia]:
    """Open the media in `path`, which is made if it is absent. Raises ResourceRefused."""
    directory = await trio.to_thread.run_sync(path.absolute)
    settings = MediaSettings(threads, LOCAL_S, directory / UNFINISHED)

    def make() -> None:
        spool.own_directory("blobs.url", directory)
        spool.own_directory("blobs.url", settings.spool)

    await trio.to_thread.run_sync(make)
    media = DirectoryMedia(directory, settings)
    await media.sweep()
    yield media
