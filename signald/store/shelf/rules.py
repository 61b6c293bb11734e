"""What the operations on a shelf do (see store/rule.py). The Lua twin is shelf.lua."""

from signald.core.blobs import BLOBS_MAX, LATE_MS, Blob
from signald.store.base import CLOCK_SET_MS, Done
from signald.store.rows import Rows, Wakes
from signald.store.rule import rule
from signald.store.shelf import ops
from signald.store.shelf.records import Item


@rule(ops.BeginBlob)
def begin_blob(
    op: ops.BeginBlob, rows: Rows, _wakes: Wakes
) -> ops.BlobBegun | ops.BlobKept | ops.BlobInProgress | ops.BlobGone | ops.ShelfFull:
    known = rows.blob_item(op.shelf, op.blob)
    if known is not None:
        if known.doomed or known.nonce != op.nonce:
            return ops.BlobGone()
        return ops.BlobKept(known.blob) if known.blob.whole else ops.BlobBegun()
    other = _with_key(op, rows)
    if other is not None and other.blob.whole and other.blob.until_ms > op.now_ms:
        return ops.BlobKept(other.blob)
    if other is not None and not other.blob.whole and not other.lapsed(op.now_ms):
        return ops.BlobInProgress(other.lease_until_ms - op.now_ms)
    count, size = rows.shelf_size(op.shelf)
    if count >= BLOBS_MAX or size + op.reserved > op.total_max:
        return ops.ShelfFull(size, ops.retry_ms(_room_ms(op.shelf, rows, op.now_ms), op.now_ms))
    if other is not None:
        rows.save_blob_item(op.shelf, other.doom())
    blob = Blob(op.blob, op.session, op.principal, op.reserved, op.content_type, b"", op.now_ms, 0)
    rows.save_blob_item(op.shelf, Item(blob, op.nonce, op.key, op.now_ms, op.now_ms + op.lease_ms))
    return ops.BlobBegun()


def _with_key(op: ops.BeginBlob, rows: Rows) -> Item | None:
    blob = rows.item_of_key(op.shelf, op.key) if op.key else ""
    return rows.blob_item(op.shelf, blob) if blob else None


def _uploading(op: ops.RenewBlob | ops.FinishBlob | ops.AbandonBlob, rows: Rows) -> Item | None:
    """Return the blob of an upload; None when it is doomed or another's."""
    item = rows.blob_item(op.shelf, op.blob)
    return None if item is None or item.doomed or item.nonce != op.nonce else item


@rule(ops.RenewBlob)
def renew_blob(op: ops.RenewBlob, rows: Rows, _wakes: Wakes) -> Done | ops.NoBlob:
    item = _uploading(op, rows)
    if item is None:
        return ops.NoBlob()
    if not item.blob.whole:
        rows.save_blob_item(op.shelf, item.lease(op.lease_ms, op.now_ms))
    return Done()


@rule(ops.FinishBlob)
def finish_blob(op: ops.FinishBlob, rows: Rows, _wakes: Wakes) -> ops.BlobKept | ops.NoBlob:
    item = _uploading(op, rows)
    if item is None:
        return ops.NoBlob()
    if not item.blob.whole:
        item = item.finish(op.bytes, op.sha256, op.until_ms)
        rows.save_blob_item(op.shelf, item)
    return ops.BlobKept(item.blob)


@rule(ops.AbandonBlob)
def abandon_blob(op: ops.AbandonBlob, rows: Rows, _wakes: Wakes) -> Done | ops.BlobKept:
    item = _uploading(op, rows)
    if item is None:
        return Done()
    if item.blob.whole:
        return ops.BlobKept(item.blob)
    rows.save_blob_item(op.shelf, item.doom())
    return Done()


@rule(ops.ReadBlob)
def read_blob(op: ops.ReadBlob, rows: Rows, _wakes: Wakes) -> ops.BlobRead | ops.NoBlob | ops.BlobGone:
    item = rows.blob_item(op.shelf, op.blob)
    if item is None or not item.blob.whole:
        return ops.NoBlob()
    if item.doomed or item.blob.until_ms <= op.now_ms:
        return ops.BlobGone()
    return ops.BlobRead(item.blob)


@rule(ops.RemoveBlob)
def remove_blob(op: ops.RemoveBlob, rows: Rows, _wakes: Wakes) -> Done | ops.NoBlob:
    item = rows.blob_item(op.shelf, op.blob)
    if item is None or not item.blob.whole:
        return ops.NoBlob()
    if not item.doomed:
        rows.save_blob_item(op.shelf, item.doom())
    return Done()


@rule(ops.SweepShelf)
def sweep_shelf(op: ops.SweepShelf, rows: Rows, _wakes: Wakes) -> ops.ShelfSwept:
    limit = min(op.limit, ops.SWEPT_MAX)
    over = [
        *rows.uploads_over(op.shelf, op.now_ms - LATE_MS, op.now_ms + CLOCK_SET_MS, limit),
        *rows.blobs_over(op.shelf, op.now_ms, limit),
    ]
    for blob in over:
        item = rows.blob_item(op.shelf, blob)
        if item is None:
            # Nothing is known of it but its id, by which its bytes are found.
            item = Item(Blob(blob, "", "", 0, "", b"", 0, 0), "", b"", 0, 0)
        elif not item.over(op.now_ms):
            continue
        rows.save_blob_item(op.shelf, item.doom(late=True))
    doomed = rows.blobs_doomed(op.shelf, limit)
    return ops.ShelfSwept(tuple(doomed), _next(op.shelf, rows, len(doomed), op.now_ms))


@rule(ops.ForgetBlobs)
def forget_blobs(op: ops.ForgetBlobs, rows: Rows, _wakes: Wakes) -> ops.ShelfSwept:
    for blob in op.blobs:
        item = rows.blob_item(op.shelf, blob)
        if item.doomed if item is not None else rows.is_doomed(op.shelf, blob):
            rows.drop_blob_item(op.shelf, blob)
    return ops.ShelfSwept((), _next(op.shelf, rows, 0, op.now_ms))


def _next(shelf: str, rows: Rows, told: int, now_ms: int) -> int:
    """Return when a shelf is to be swept, beside `told` doomed blobs; 0: never."""
    if len(rows.blobs_doomed(shelf, told + 1)) > told:
        return now_ms
    upload_ms, blob_ms = rows.shelf_due(shelf)
    dues = [due for due in (upload_ms and upload_ms + LATE_MS, blob_ms) if due]
    return min(dues, default=0)


def _room_ms(shelf: str, rows: Rows, now_ms: int) -> int:
    """Return when a full shelf is worth another try; 0: never."""
    next_ms, (lease_until_ms, _) = _next(shelf, rows, 0, now_ms), rows.shelf_due(shelf)
    return min(next_ms, now_ms + ops.UPLOAD_RETRY_MS) if lease_until_ms > now_ms else next_ms
