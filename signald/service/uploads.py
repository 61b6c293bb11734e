"""Uploads: the bytes of a body become a blob, or leave nothing.

    begin ─▸ bytes ─▸ media.finish ─▸ FinishBlob ─▸ 201
      │        │           │              └ the outcome is not known: see `_give_up`
      │        │           └ failed: the upload is doomed, and its bytes deleted when no late write can bring them back
      │        └ cut, too slow, another digest: the upload is forgotten at once
      └ the key is known: the body is read and compared with what was kept then

The record is made first and finished last. So there is no moment at which a blob can be read and has not all its bytes, or at which bytes
lie in the media without a record. The lease of the upload is renewed while it goes on. When its node is killed, the lease lapses, and the
shelf is swept.
"""

import hashlib
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager, suppress

import attrs
import trio

from signald.core.blobs import LATE_MS, Blob
from signald.errors import MediaAway, StoreUnavailable
from signald.http.api.blob_views import BlobRefused, ShownBlob, Upload, Uploaded
from signald.http.api.times import rfc3339
from signald.ids import new_blob_id, new_nonce, shelf_of_owner
from signald.service.context import Context
from signald.service.shelves import Shelves
from signald.store.base import Done
from signald.store.shelf.ops import (
    AbandonBlob,
    BeginBlob,
    BlobBegun,
    BlobInProgress,
    BlobKept,
    FinishBlob,
    ForgetBlobs,
    RemoveBlob,
    RenewBlob,
    ShelfFull,
)

LEASE_S = 20.0
"""How long an upload is believed to go on without a word of its node; so long the key of one that was killed is answered 409."""

RENEW_S = 5.0
"""Between two renewals of the lease: a store that is away for the time of a failover costs no upload."""

PATIENCE_S, BYTES_PER_S = 60.0, 4096
"""How long a body may take: a minute, and a second for each 4 KiB that have come, which is 32 kbit/s: as fast as a voice is spoken. A
sender that is slower keeps its place from others."""


RETRY_MAX_S = 3600
"""The longest pause that a refused upload is told: a shelf that is full may have room long before its next blob goes by its time."""


@attrs.define
class _Way:
    """One upload on its way."""

    asked: Upload
    shelf: str
    blob: str
    nonce: str
    written: bool = False
    """The media were asked to keep the bytes: from then on these may be there, after any answer."""
    finish: FinishBlob | None = None
    """The end of the record was asked for."""


class Uploads:
    """See the module."""

    def __init__(self, context: Context, shelves: Shelves) -> None:
        self._context = context
        self._shelves = shelves
        self.bytes = 0
        """Bytes of bodies that have come."""

    async def keep(self, asked: Upload, body: AsyncGenerator[bytes]) -> Uploaded:
        """Keep the bytes of `body`. Raises BlobRefused, StoreUnavailable, and what `body` raises."""
        context = self._context
        shelf = shelf_of_owner(asked.owner.principal, asked.owner.session)
        way = _Way(asked, shelf, new_blob_id(shelf, context.entropy), new_nonce(context.entropy))
        # Before the upload begins: a node that is killed right behind that leaves nothing that no sweep will find.
        await self._shelves.enter(shelf, context.now_ms() + round(LEASE_S * 1000) + LATE_MS)
        try:
            begun = await self._begin(way)
        except trio.Cancelled:
            self._give_up(way)
            raise
        if isinstance(begun, BlobKept):
            return await self._replay(asked, begun.blob, body)
        try:
            blob = await self._carry(way, body)
        except BaseException:
            self._give_up(way)
            raise
        return Uploaded(shown(blob), replayed=False)

    async def _begin(self, way: _Way) -> BlobBegun | BlobKept:
        """Make the record. Raises BlobRefused, StoreUnavailable."""
        context, config, asked = self._context, self._context.config.blobs, way.asked
        begin = BeginBlob(
            way.shelf,
            way.blob,
            asked.owner.session,
            asked.owner.principal,
            way.nonce,
            asked.key,
            asked.content_type,
            config.bytes_max if asked.length is None else asked.length,
            config.principal_bytes_max,
            round(LEASE_S * 1000),
            context.now_ms(),
        )
        abandon = AbandonBlob(way.shelf, way.blob, way.nonce, context.now_ms())
        (begun,) = await context.committer.call_many([begin], undo=[abandon])
        match begun:
            case BlobBegun() | BlobKept():
                return begun
            case BlobInProgress(retry_ms=retry_ms):
                raise BlobRefused("key_in_use", _seconds(retry_ms))
            case ShelfFull(retry_ms=retry_ms):
                raise BlobRefused("shelf_full", _seconds(retry_ms))
        raise StoreUnavailable("the upload was given up before it began")

    async def _replay(self, asked: Upload, blob: Blob, body: AsyncGenerator[bytes]) -> Uploaded:
        """Compare a body with the blob that came under the same key, and keep nothing of it."""
        digest = hashlib.sha256()
        with _patience() as heard:
            async for piece in body:
                digest.update(piece)
                heard(len(piece))
        _judge_digest(asked, digest.digest())
        if (digest.digest(), asked.content_type) != (blob.sha256, blob.content_type):
            raise BlobRefused("key_taken")
        return Uploaded(shown(blob), replayed=True)

    async def _carry(self, way: _Way, body: AsyncGenerator[bytes]) -> Blob:
        """Carry the bytes into the media and finish the record, while the lease is renewed beside."""
        found: Blob | Exception = StoreUnavailable("the upload has lost its lease")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._hold, way, nursery.cancel_scope)
            try:
                found = await self._finish(way, *await self._write(way, body))
            except Exception as error:  # noqa: BLE001 - raised outside of the nursery, which would wrap it
                found = error
            nursery.cancel_scope.cancel(reason="the upload is over")
        if isinstance(found, Exception):
            raise found
        return found

    async def _hold(self, way: _Way, scope: trio.CancelScope) -> None:
        """Renew the lease until cancelled. Cancels `scope` when it has lapsed."""
        until = trio.current_time() + LEASE_S
        while True:
            await trio.sleep(RENEW_S)
            asked_at, now_ms = trio.current_time(), self._context.now_ms()
            renew = RenewBlob(way.shelf, way.blob, way.nonce, round(LEASE_S * 1000), now_ms)
            try:
                held = isinstance(await self._context.committer.call(renew), Done)
            except StoreUnavailable:
                if trio.current_time() < until:
                    continue
                held = False
            if not held:
                scope.cancel(reason="the lease of the upload has lapsed")
                return
            until = asked_at + LEASE_S

    async def _write(self, way: _Way, body: AsyncGenerator[bytes]) -> tuple[int, bytes]:
        """Carry the bytes into the media; return how many they are, and their digest."""
        media = self._context.media
        assert media is not None, "a node without media takes no upload"
        digest, size = hashlib.sha256(), 0
        try:
            async with media.write(way.blob, content_type=way.asked.content_type) as writing:
                with _patience() as heard:
                    async for piece in body:
                        digest.update(piece)
                        size += len(piece)
                        self.bytes += len(piece)
                        await writing.send(piece)
                        heard(len(piece))
                _judge_digest(way.asked, digest.digest())
                way.written = True
                await writing.finish()
        except MediaAway as error:
            raise BlobRefused("away") from error
        return size, digest.digest()

    async def _finish(self, way: _Way, size: int, sha256: bytes) -> Blob:
        """Finish the record of bytes that lie in the media."""
        context = self._context
        now_ms = context.now_ms()
        until_ms = now_ms + round(context.config.blobs.keep_s * 1000)
        way.finish = FinishBlob(way.shelf, way.blob, way.nonce, size, sha256, until_ms, now_ms)
        finished = await context.committer.call(way.finish)
        if isinstance(finished, BlobKept):
            return finished.blob
        if context.media is not None:
            # The process has stood still: a sweep may have come before the bytes did.
            with suppress(MediaAway):
                await context.media.delete(way.blob)
        raise StoreUnavailable("the upload has lost its lease")

    def _give_up(self, way: _Way) -> None:
        """Leave nothing of an upload that has failed, wherever it was. Does not wait: the caller may be cancelled.

        All of it changes nothing when the lease has lapsed, and a sweep has come before.
        """
        submit, now_ms = self._context.submit, self._context.now_ms()
        abandon = AbandonBlob(way.shelf, way.blob, way.nonce, now_ms)
        if way.finish is not None and way.asked.key:
            # Its end may be stored. The sender comes again with the key, and is answered with this blob: so let it be kept.
            submit(way.finish)
            return
        submit(abandon)  # of one that was finished it changes nothing
        if not way.written:
            submit(ForgetBlobs(way.shelf, (way.blob,), now_ms))
        elif way.finish is not None:
            # It may be whole, and its name was told to no program.
            submit(RemoveBlob(way.shelf, way.blob, now_ms))
            self._shelves.poke(way.shelf)
        # Of bytes that the media may still make an object of, the sweep comes late enough to find it.


def shown(blob: Blob) -> ShownBlob:
    """Return a blob as it is shown: the same bytes each time."""
    return ShownBlob(blob.id, blob.bytes, blob.content_type, blob.sha256.hex(), rfc3339(blob.until_ms))


def _judge_digest(asked: Upload, sha256: bytes) -> None:
    """Raise BlobRefused when the bytes have another digest than the request says."""
    if asked.sha256 is not None and asked.sha256 != sha256:
        raise BlobRefused("wrong_digest")


def _seconds(ms: int) -> int:
    """Return when a request is worth repeating, as `Retry-After` says it."""
    return max(1, min(RETRY_MAX_S, -(-ms // 1000)))


@contextmanager
def _patience() -> Iterator[Callable[[int], None]]:
    """Within the block a body must come as fast as `BYTES_PER_S`; tell the yielded function of each piece. Raises BlobRefused."""
    began, size = trio.current_time(), 0
    scope = trio.CancelScope(deadline=began + PATIENCE_S)

    def heard(count: int) -> None:
        nonlocal size
        size += count
        scope.deadline = began + PATIENCE_S + size / BYTES_PER_S

    with scope:
        yield heard
    if scope.cancelled_caught:
        raise BlobRefused("slow")
