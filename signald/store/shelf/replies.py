"""What Redis answers to the operations on a shelf, read as their results."""

from typing import Any

from signald.core.blobs import Blob
from signald.store.base import Op, Result
from signald.store.damage import REPORTS
from signald.store.redis_connection import Reply
from signald.store.redis_replies import DONE, read_name, read_names
from signald.store.shelf.ops import (
    BeginBlob,
    BlobBegun,
    BlobGone,
    BlobInProgress,
    BlobKept,
    BlobRead,
    NoBlob,
    ShelfFull,
    ShelfSwept,
    retry_ms,
)

_PLAIN: dict[bytes, Result] = {
    b"begun": BlobBegun(),
    b"done": DONE,
    b"gone": BlobGone(),
    b"no_blob": NoBlob(),
}


def _blob(fields: list[Any]) -> Blob:
    blob, session, principal, size, content_type, sha256, made_ms, until_ms = fields
    names = blob.decode(), session.decode(), principal.decode()
    return Blob(*names, size, content_type.decode(), sha256, made_ms, until_ms)


def _tell_damage(blobs: list[bytes]) -> None:
    for blob in blobs:
        REPORTS.tell("blob", read_name(blob))


def read_shelf(op: Op, reply: Reply) -> Result:
    """What shelf.lua answers: a list that begins with its kind."""
    match reply:
        case [kind] if kind in _PLAIN:
            return _PLAIN[kind]
        case [b"kept", *fields]:
            return BlobKept(_blob(fields))
        case [b"read", *fields]:
            return BlobRead(_blob(fields))
        case [b"in_progress", left_ms]:
            return BlobInProgress(left_ms)
        case [b"full", size, next_ms] if isinstance(op, BeginBlob):
            return ShelfFull(size, retry_ms(next_ms, op.now_ms))
        case [b"damaged", blob]:
            _tell_damage([blob])
            return NoBlob()
        case [b"swept", doomed, next_ms, damaged]:
            _tell_damage(damaged)
            return ShelfSwept(read_names(doomed), next_ms)
        case _:
            raise ValueError("a script answered with a kind that is not known here")
