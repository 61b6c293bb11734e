"""`python -m tests.blobs.held`: how much memory uploads and downloads at once hold above the steady state, in a process of their own.

Standard input is a JSON object: `media` (the fields of BlobsConfig), `spool` or `directory`, `at_once`, `bytes`. It prints the
greatest resident size above that after a first round of a few, in bytes: {"up": n, "down": n}.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import trio

from signald.blobs.directory import open_directory
from signald.blobs.media import Media
from signald.blobs.s3 import open_s3
from signald.config import BlobsConfig

PIECE = bytes(16_384)
"""As the HTTP half gives them: its pieces of a body."""

PAGE = os.sysconf("SC_PAGE_SIZE")


def resident() -> int:
    """Return the memory of this process, in bytes, files that it maps left out."""
    fields = Path("/proc/self/statm").read_text(encoding="ascii").split()
    return (int(fields[1]) - int(fields[2])) * PAGE


async def peak(what: Callable[[], Awaitable[None]]) -> int:
    """Return the greatest memory during `what` above that before it."""
    before, over = resident(), threading.Event()
    most = [before]

    def watch() -> None:
        while not over.is_set():
            most[0] = max(most[0], resident())
            time.sleep(0.002)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        await what()
    finally:
        over.set()
        watching.join()
    return most[0] - before


async def upload(media: Media, key: str, count: int) -> None:
    """Write one object."""
    async with media.write(key) as writing:
        for _ in range(0, count, len(PIECE)):
            await writing.send(PIECE)
        await writing.finish()


async def download(media: Media, key: str, count: int) -> None:
    """Read one object."""
    async with aclosing(media.read(key, 0, count)) as pieces:
        assert sum([len(piece) async for piece in pieces]) == count


async def all_at_once(
    media: Media, one: Callable[[Media, str, int], Awaitable[None]], at_once: int, count: int
) -> None:
    """Have `at_once` objects written or read side by side."""
    async with trio.open_nursery() as nursery:
        for number in range(at_once):
            nursery.start_soon(one, media, f"k{number}", count)


async def measure(media: Media, at_once: int, count: int) -> dict[str, int]:
    """Return the peaks of uploads and of downloads."""
    for one in (upload, download):
        await all_at_once(media, one, 20, 65_536)  # threads, buffers and connections of the steady state
    up = await peak(lambda: all_at_once(media, upload, at_once, count))
    return {"up": up, "down": await peak(lambda: all_at_once(media, download, at_once, count))}


async def main(asked: dict[str, Any]) -> None:
    """Measure what is asked for."""
    if "directory" in asked:
        opened: Any = open_directory(Path(asked["directory"]), threads=16)
    else:
        opened = open_s3(BlobsConfig(**asked["media"]), spool=Path(asked["spool"]))
    async with opened as media:
        print(json.dumps(await measure(media, asked["at_once"], asked["bytes"])))


if __name__ == "__main__":
    trio.run(main, json.load(sys.stdin))
