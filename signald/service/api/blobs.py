"""Blobs for the HTTP API: see `signald.http.api.blobs`, whose protocol this implements.

Any node answers: the record is in the store, and the bytes in media that all nodes share. The right to read a blob is judged by the
session and the principal in its record, which never change.
"""

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager

from signald.blobs.media import Media
from signald.core.blobs import Blob
from signald.core.callers import Access
from signald.errors import MediaAway, MediaMissing, StoreUnavailable
from signald.http.api.blob_views import BlobOwner, BlobRefused, FoundBlob, Payer, Upload, Uploaded
from signald.ids import SessionId, shelf_of_blob
from signald.net.admission import share
from signald.service.blobs import UploadOutcome
from signald.service.parts import Parts
from signald.service.shares import NoPlace, Shares
from signald.store.base import Behind
from signald.store.session.ops import ReadSession, SessionRead
from signald.store.shelf.ops import BlobRead, NoBlob, ReadBlob, RemoveBlob

SIGNED_S = 60.0
"""How long a signed URL is good: a client follows it at once, and a copy in a log is worth nothing a minute later."""

REMOVAL_MS = 10_000
"""When a shelf is swept whose node is lost while it removes a blob: behind the removal, which takes 5 s at most."""


class HttpBlobs:
    """See the module."""

    def __init__(self, parts: Parts) -> None:
        self._context = parts.context
        self._blobs = parts.blobs

    @property
    def bytes_max(self) -> int:
        """See `blobs.bytes_max`."""
        return self._context.config.blobs.bytes_max

    def must_keep(self) -> None:
        """Raise BlobRefused when this node keeps no blobs."""
        if self._context.media is None:
            raise BlobRefused("none")

    async def owner(self, session: SessionId, access: Access) -> BlobOwner:
        """Return what a blob of this session belongs to."""
        read = await self._context.committer.call(ReadSession(session, access))
        if isinstance(read, Behind):
            raise StoreUnavailable(f"the record of {session} cannot be read now")
        if not isinstance(read, SessionRead):
            raise BlobRefused("no_session")
        return BlobOwner(session, read.head.principal)

    async def upload(self, asked: Upload, body: AsyncGenerator[bytes]) -> Uploaded:
        """Keep the bytes of `body`, or find those that came with the same key. An upload whose `body` raises leaves nothing behind."""
        desk, config = self._blobs, self._context.config.blobs
        outcome: UploadOutcome = "cut"
        try:
            with self._place(
                desk.uploading, config.uploads_in_progress_max, asked.payer, config.uploads_of_principal_max
            ):
                uploaded = await desk.uploads.keep(asked, body)
            outcome = "replayed" if uploaded.replayed else "kept"
        except (BlobRefused, StoreUnavailable) as error:
            outcome = "refused"
            desk.refused[error.because if isinstance(error, BlobRefused) else "store"] += 1
            raise
        finally:
            desk.uploads_ended[outcome] += 1
        return uploaded

    @contextmanager
    def _place(self, shares: Shares, places_max: int, payer: Payer, of_principal: int | None = None) -> Iterator[None]:
        """Hold a place for a transfer. Raises BlobRefused."""
        fair = share(places_max, self._context.config.admission.address_share)
        holders = {payer.holder: fair if of_principal is None else of_principal}
        if payer.address:
            holders[f"address {payer.address}"] = fair
        try:
            with shares.place(places_max, holders):
                yield
        except NoPlace as none:
            raise BlobRefused(none.full) from None

    async def find(self, blob: str, session: SessionId | None, access: Access) -> FoundBlob:
        """Return a blob that `access` may read; `session` is that of a party."""
        found = await self._find(blob, session, access)
        return FoundBlob(found.id, found.bytes, found.content_type, found.sha256)

    async def _find(self, blob: str, session: SessionId | None, access: Access) -> Blob:
        shelf = shelf_of_blob(blob)
        if shelf is None:
            raise BlobRefused("no_blob")
        # A worker is judged by what its session is now; a client by what its credential says, also when its session has ended.
        owner = await self.owner(session, access) if session is not None and access.worker is not None else None
        read = await self._context.committer.call(ReadBlob(shelf, blob, self._context.now_ms()))
        if not isinstance(read, BlobRead) or not may_have(read.blob, session, access, owner):
            raise BlobRefused("no_blob")
        return read.blob

    async def read(self, blob: FoundBlob, start: int, end: int, payer: Payer) -> AsyncGenerator[bytes]:
        """Go through some of its bytes, in pieces."""
        desk = self._blobs
        with self._place(desk.downloading, self._context.config.blobs.downloads_in_progress_max, payer):
            try:
                async with aclosing(self._media.read(blob.blob, start, end, size=blob.size)) as pieces:
                    async for piece in pieces:
                        desk.bytes_read += len(piece)
                        yield piece
            except MediaMissing:
                desk.missing += 1
                raise BlobRefused("no_blob") from None
            except MediaAway:
                raise BlobRefused("away") from None

    async def signed_url(self, blob: FoundBlob) -> str | None:
        """Return a URL from which the bytes can be read for a moment without a credential; None: they are read here."""
        if not self._context.config.blobs.redirect:
            return None
        try:
            return await self._media.signed_url(blob.blob, ttl_s=SIGNED_S)
        except MediaAway:
            return None

    async def remove(self, blob: str, session: SessionId | None, access: Access) -> None:
        """Remove a blob: it cannot be read from now on, and its bytes are deleted soon."""
        found = await self._find(blob, session, access)
        shelf = shelf_of_blob(found.id)
        assert shelf is not None
        # Before the removal: when this node is killed right behind it, another one finds the shelf.
        await self._blobs.shelves.enter(shelf, self._context.now_ms() + REMOVAL_MS)
        removed = await self._context.committer.call(RemoveBlob(shelf, found.id, self._context.now_ms()))
        self._blobs.shelves.poke(shelf)
        if isinstance(removed, NoBlob):
            raise BlobRefused("no_blob")

    @property
    def _media(self) -> Media:
        assert self._context.media is not None, "a node without media has refused the request"
        return self._context.media


def may_have(blob: Blob, session: str | None, access: Access, owner: BlobOwner | None) -> bool:
    """Tell whether a caller may have `blob`: a party as `session`, a worker with the `owner` that its session has.

    A blob belongs to its principal: all sessions of the principal may have it, and their workers. That of an anonymous session belongs
    to this session alone; a tenant has none of these.
    """
    if access.worker is not None:
        return owner is not None and (
            blob.session == owner.session or (bool(blob.principal) and blob.principal == owner.principal)
        )
    if access.owner == "":
        return not blob.principal and blob.session == session
    return access.allows(blob.principal)
