"""The operations on a shelf as RESP commands, and the scripts they call. See session/packing.py."""

from signald.core.blobs import BLOBS_MAX, LATE_MS, Blob
from signald.store import lua
from signald.store.base import ShelfOp
from signald.store.redis_codec import call, codec
from signald.store.redis_connection import Word
from signald.store.redis_keys import PACKING
from signald.store.shelf.ops import (
    SWEPT_MAX,
    UPLOAD_RETRY_MS,
    AbandonBlob,
    BeginBlob,
    FinishBlob,
    ForgetBlobs,
    ReadBlob,
    RemoveBlob,
    RenewBlob,
    SweepShelf,
)
from signald.store.shelf.records import Item
from signald.store.shelf.replies import read_shelf

SEAL_LETTERS = 8
"""As many bits as the seals of other values have. The scripts have no CRC-32, and the digest that they have costs a microsecond."""

UNSWEPT_MS = 7 * 86_400_000
"""How long a shelf outlives its last blob in Redis when no sweep comes: a week, longer than the media or all nodes are away."""

_SHOWN = Blob.__struct_fields__[1:]
_FIELDS = (*_SHOWN, *Item.__struct_fields__[1:])
"""What is kept of a blob, in this order: the id is in the name of the field."""

SHELF = lua.cold(
    "shelf/shelf.lua",
    constants={
        # The names of constants have no digits.
        **{f"ITEM.{field.replace('sha256', 'digest')}": place for place, field in enumerate(_FIELDS, 1)},
        "ITEM_COUNT": len(_FIELDS),
        "SHOWN_COUNT": len(_SHOWN),
        "BLOBS_MAX": BLOBS_MAX,
        "LATE_MS": LATE_MS,
        "SEAL_LETTERS": SEAL_LETTERS,
        "UNSWEPT_MS": UNSWEPT_MS,
        "UPLOAD_RETRY_MS": UPLOAD_RETRY_MS,
    },
)


def pack_shelf(op: ShelfOp, operation: str, *words: Word) -> bytes:
    """Call the function of shelf.lua named `operation` with `words`. No operation wakes a node, so none names its caller."""
    space = PACKING.get()
    return call(space.script(SHELF[operation]), space.shelf_keys(op.shelf), operation, "", *words)


codec(
    BeginBlob,
    lambda op: pack_shelf(
        op, "begin_blob", op.blob, op.nonce, op.key, op.reserved, op.total_max, op.lease_ms, op.now_ms,
        op.session, op.principal, op.content_type,
    ),
    read_shelf,
)  # fmt: skip
codec(RenewBlob, lambda op: pack_shelf(op, "renew_blob", op.blob, op.nonce, op.lease_ms, op.now_ms), read_shelf)
codec(
    FinishBlob,
    lambda op: pack_shelf(op, "finish_blob", op.blob, op.nonce, op.bytes, op.sha256, op.until_ms, op.now_ms),
    read_shelf,
)
codec(AbandonBlob, lambda op: pack_shelf(op, "abandon_blob", op.blob, op.nonce, op.now_ms), read_shelf)
codec(ReadBlob, lambda op: pack_shelf(op, "read_blob", op.blob, op.now_ms), read_shelf)
codec(RemoveBlob, lambda op: pack_shelf(op, "remove_blob", op.blob, op.now_ms), read_shelf)
codec(SweepShelf, lambda op: pack_shelf(op, "sweep_shelf", op.now_ms, min(op.limit, SWEPT_MAX)), read_shelf)
codec(ForgetBlobs, lambda op: pack_shelf(op, "forget_blobs", op.now_ms, *op.blobs), read_shelf)
