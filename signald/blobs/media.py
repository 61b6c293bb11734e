"""The contract of media: objects that are written once, read in pieces, and deleted.

An object becomes visible whole or not at all. Its key is made of ids only, so no text of a party reaches a path or a URL.

The caller bounds how many objects are written and read at once (`blobs.uploads_in_progress_max`, `downloads_in_progress_max`). What
one of them holds in memory is bounded here: `HELD_BYTES` while it is written, one piece while it is read.
"""

import re
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import attrs

PIECE_BYTES = 64 * 1024
"""One piece of a read, and one request to S3. Twenty downloads at once hold 6 MiB with it, and 16 MiB with four times as much: each
piece is copied twice on its way. A hop to a thread takes 0.2 ms, and a service that answers in 20 ms gives one reader 3 MiB/s."""

HELD_BYTES = 32 * 1024
"""How much of an upload is gathered before a thread writes it: one piece of a body. Sixty uploads hold 2 MiB, and 10 MiB take 320 hops."""

KEY_CHARS_MAX = 128

_key = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_-]{{0,{KEY_CHARS_MAX - 1}}}")


@attrs.define
class MediaCounts:
    """What has happened at the media of this process."""

    abandoned: int = 0
    """Threads that still carry out a call whose caller has gone; each ends by the time-outs of its call."""
    abandoned_total: int = 0
    failed: int = 0
    """Operations that ended with MediaAway."""
    swept: int = 0
    """Unfinished files of killed processes that were removed."""


class Writing(Protocol):
    """An object that is being written. One task uses it."""

    async def send(self, data: bytes) -> None:
        """Add bytes. Raises MediaAway, MediaFull."""

    async def finish(self) -> None:
        """Make the object visible, whole: it survives the death of this process. Raises MediaAway, MediaFull.

        When it raises or is cancelled, the object is removed: at once where that is known to be safe, else when the call that was
        left behind has ended.
        """


class Media(Protocol):
    """Where the bytes of blobs lie. Each method raises ValueError for a key that is no id, and can be cancelled at any moment."""

    @property
    def counts(self) -> MediaCounts: ...

    def write(self, key: str, *, content_type: str = ...) -> AbstractAsyncContextManager[Writing]:
        """Begin an object, which replaces one of the same key. A body that ends without `finish` leaves nothing.

        `content_type` is what a signed URL answers with; media that have none forget it.
        """

    def read(self, key: str, start: int, end: int, *, size: int = ...) -> AsyncGenerator[bytes, None]:
        """Yield the bytes from `start` to before `end`, in pieces of at most `PIECE_BYTES`. Use it within `aclosing`.

        `size` is that of the whole content, which sealed media ask for (sealed.py).

        Raises MediaMissing and MediaAway, also between two pieces.
        """

    async def delete(self, key: str) -> None:
        """Remove an object; an absent object counts as removed. Raises MediaAway."""

    async def signed_url(self, key: str, *, ttl_s: float) -> str | None:
        """Return a URL that reads the object for `ttl_s` without a further credential; None where media have no such URLs.

        The URL is a secret while it lasts: it belongs in no log line. Raises MediaAway.
        """

    async def sweep(self) -> int:
        """Remove what killed processes have left of unfinished uploads. Returns how many files. Raises MediaAway."""


def check_key(key: str) -> str:
    """Return `key` if it can name an object: letters, digits, "_" and "-" only.

    Raises ValueError for any other key: no character with a meaning in a path or a URL reaches the media.
    """
    if not _key.fullmatch(key):
        raise ValueError(f"no key of media: {key[:40]!a}")
    return key


def pieces(start: int, end: int) -> list[tuple[int, int]]:
    """Return the ranges of the pieces between `start` and `end`."""
    return [(at, min(at + PIECE_BYTES, end)) for at in range(start, end, PIECE_BYTES)]
