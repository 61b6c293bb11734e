"""What blobs are over HTTP: as they are shown, as they are uploaded, and why a request for one is refused."""

from typing import Annotated, Literal

import attrs
from msgspec import Meta, Struct

from signald.ids import SessionId


class ShownBlob(Struct, frozen=True, rename={"size": "bytes"}):
    """A blob. Times are RFC 3339 texts in UTC."""

    blob: str
    size: int
    content_type: str
    sha256: Annotated[
        str, Meta(pattern="^[0-9a-f]{64}$", description="In hexadecimal; between quotes it is the `ETag`.")
    ]
    expires_at: Annotated[str, Meta(description="When it is removed.")]


@attrs.frozen
class BlobOwner:
    """What a blob belongs to."""

    session: SessionId
    principal: str
    """That of the session; empty for an anonymous one, whose blobs are the session's alone."""


@attrs.frozen
class Payer:
    """The share that a transfer takes."""

    holder: str
    """The principal, session or worker that asks."""
    address: str
    """Where the request comes from; empty for many behind one proxy, which have no share in common."""


@attrs.frozen
class Upload:
    """A request to keep bytes."""

    owner: BlobOwner
    payer: Payer
    key: bytes
    """Digest of the idempotency key; empty without one."""
    content_type: str
    sha256: bytes | None
    """What the bytes must have, by the request."""
    length: int | None
    """What the request says of its length; None: it comes in chunks."""


@attrs.frozen
class Uploaded:
    """A blob that is kept."""

    shown: ShownBlob
    replayed: bool
    """An earlier request with the same key has brought it."""


@attrs.frozen
class FoundBlob:
    """A blob that its reader may have."""

    blob: str
    size: int
    content_type: str
    sha256: bytes

    @property
    def etag(self) -> str:
        """Its strong entity tag: bytes with the same digest are the same."""
        return f'"{self.sha256.hex()}"'


BlobRefusal = Literal[
    "none", "no_session", "no_blob", "wrong_digest", "key_taken", "key_in_use", "shelf_full", "share", "busy", "slow", "away"
]  # fmt: skip


class BlobRefused(Exception):
    """An operation on blobs is not carried out. `retry_s`: when it is worth repeating."""

    def __init__(self, because: BlobRefusal, retry_s: int = 1) -> None:
        super().__init__(because)
        self.because = because
        self.retry_s = retry_s
