"""The operations on a shelf: the blobs of one principal, or of one anonymous session. See core/blobs.py for the life of a blob.

The right to read or remove a blob is judged by the caller, from the session and the principal of a `Blob`: neither ever changes. No
operation wakes a node.

A shelf that has lost everything, as a store without persistence does, is empty: its blobs are unknown, and their bytes stay in the media.
"""

from signald.core.blobs import Blob, Digest32
from signald.store.base import Done, Result, ShelfOp, traits

RETRY_MIN_MS = 1000
"""The shortest time after which a full shelf is worth another try: a sweep has to delete bytes before there is room."""

UPLOAD_RETRY_MS = 5000
"""The longest time after which a shelf that an upload under way fills is worth another try: an upload may be cut, or end with fewer bytes
than were reserved for it, at any moment. The end of its lease says nothing of that."""

SWEPT_MAX = 128
"""How many blobs one sweep tells, whatever its caller asks for: a script holds up all of Redis, by some milliseconds for so many."""

# --- results ------------------------------------------------------------------------------------------------------


class BlobBegun(Result, frozen=True):
    """The upload has its place and its lease."""


class BlobKept(Result, frozen=True):
    """The blob is whole and kept. From `BeginBlob`: it was uploaded under the same key before."""

    blob: Blob


class BlobInProgress(Result, frozen=True):
    """Another upload has the key, and its lease is over in `retry_ms` unless it is renewed."""

    retry_ms: int


class ShelfFull(Result, frozen=True):
    """The owner has as many blobs as it may, or too many bytes: `bytes` of them are taken or reserved.

    `retry_ms`: when the next of them is to be removed, or `UPLOAD_RETRY_MS` while an upload is under way; 0: there is none to be removed,
    and the bytes asked for are too many for any shelf.
    """

    bytes: int
    retry_ms: int


class BlobRead(Result, frozen=True):
    """The blob can be read."""

    blob: Blob


class NoBlob(Result, frozen=True):
    """The shelf has no such blob: it never was whole, or it is forgotten."""


class BlobGone(Result, frozen=True):
    """The blob is doomed, or its time is over."""


class ShelfSwept(Result, frozen=True):
    """The bytes of each blob of `doomed` are to be deleted, and then `ForgetBlobs` told.

    `next_ms`: when the shelf is to be swept next, for what is not in `doomed`; 0: never, because there is nothing else.
    """

    doomed: tuple[str, ...]
    next_ms: int


def retry_ms(next_ms: int, now_ms: int) -> int:
    """Return in how many milliseconds a shelf that is to be swept at `next_ms` has more room; 0: never."""
    return max(RETRY_MIN_MS, next_ms - now_ms) if next_ms else 0


# --- operations ---------------------------------------------------------------------------------------------------


@traits(damaged=ShelfFull(0, 0))
class BeginBlob(ShelfOp[BlobBegun | BlobKept | BlobInProgress | BlobGone | ShelfFull], frozen=True):
    """Make a place for an upload of at most `reserved` bytes, unless its idempotency key is known.

    The key is judged before all bounds. `key` is empty when there is none. The key of an upload whose lease has lapsed is free, and so is
    that of a blob that is kept no longer. `ShelfFull` from `BLOBS_MAX` blobs on, or when all bytes would be more than `total_max`.
    An operation that is repeated gets the same answer, or `BlobKept` for a blob that it has finished. `BlobGone`: this very upload
    was abandoned, or its lease had lapsed.
    """

    blob: str
    """A new id (`ids.new_blob_id`)."""
    session: str
    principal: str
    nonce: str
    key: Digest32
    content_type: str
    reserved: int
    total_max: int
    lease_ms: int
    now_ms: int


@traits(damaged=NoBlob())
class RenewBlob(ShelfOp[Done | NoBlob], frozen=True):
    """Renew the lease of an upload; `NoBlob` when it is doomed. Nothing changes when it is whole."""

    blob: str
    nonce: str
    lease_ms: int
    now_ms: int


@traits(damaged=NoBlob())
class FinishBlob(ShelfOp[BlobKept | NoBlob], frozen=True):
    """Keep a blob, all of whose bytes lie in the media, until `until_ms`; `NoBlob` when its upload is doomed.

    A repeated one gets the same answer, also one that says another `until_ms`.
    """

    blob: str
    nonce: str
    bytes: int
    sha256: Digest32
    until_ms: int
    now_ms: int


@traits(damaged=Done())
class AbandonBlob(ShelfOp[Done | BlobKept], frozen=True):
    """Doom an upload; its key is free at once. `Done`: its bytes may be deleted, and `ForgetBlobs` told.

    A blob that is whole is never doomed by this: an end whose answer was lost may cross it. Its answer is `BlobKept`.
    """

    blob: str
    nonce: str
    now_ms: int


@traits(reads=True, damaged=NoBlob())
class ReadBlob(ShelfOp[BlobRead | NoBlob | BlobGone], frozen=True):
    """Read a blob that is whole."""

    blob: str
    now_ms: int


@traits(damaged=NoBlob())
class RemoveBlob(ShelfOp[Done | NoBlob], frozen=True):
    """Doom a blob that is whole. A doomed blob is `Done` as well, until it is forgotten."""

    blob: str
    now_ms: int


@traits(damaged=ShelfSwept((), 0))
class SweepShelf(ShelfOp[ShelfSwept], frozen=True):
    """Doom what is kept no longer, and uploads whose lease has lapsed `LATE_MS` ago. Tell up to `limit` doomed blobs, in order of id,
    and no more than `SWEPT_MAX`.

    A lease that was taken before the clock was set back has lapsed. A blob whose record cannot be read is doomed at its time.
    """

    now_ms: int
    limit: int


@traits(damaged=ShelfSwept((), 0))
class ForgetBlobs(ShelfOp[ShelfSwept], frozen=True):
    """Drop the records of doomed blobs whose bytes are deleted. A blob that is not doomed stays."""

    blobs: tuple[str, ...]
    now_ms: int
