"""A blob: bytes that a party has uploaded, such as a voice message, and what is kept about them.

Theory of operation. The bytes lie in the *media*, the record lies in the store, and no step spans both. So the record is made before
the first byte is written, and is dropped after the bytes are deleted. A blob that can be read has all its bytes:

    begin ─▸ uploading ─▸ kept ─▸ doomed ─▸ forgotten
                 │                  ▲
                 └──────────────────┘  abandoned, or its lease has lapsed

*Uploading.* An upload has a lease, which its node renews while bytes flow. When the node dies, the lease lapses. The idempotency key
of the upload is free from then on. Its bytes are deleted `LATE_MS` later, because a write that its node has given up may still come
through in the media.

*Doomed.* A doomed blob cannot be read, and its bytes are to be deleted. It counts for its owner until they are: so long they lie in the
media.
"""

from msgspec import Struct

Digest32 = bytes

BLOBS_MAX = 4096
"""How many blobs an owner may have, with those that are uploading or doomed: 136 voice messages on each of 30 days (`blobs.keep_s`).
Their records take some 2 MiB of the store."""

LATE_MS = 60_000
"""How long after its lease the bytes of an upload are deleted: a write in the media takes no longer."""


class Blob(Struct, array_like=True, frozen=True, gc=False):
    """A blob as it is kept. Times are milliseconds since 1970.

    A field that is added stands last, with the meaning of its absence as its default.
    """

    id: str
    session: str
    """The session that has uploaded it."""
    principal: str
    """That of the session; empty for an anonymous one, whose blobs belong to the session alone."""
    bytes: int
    """While it is uploading: the bytes that are reserved for it."""
    content_type: str
    sha256: Digest32
    """Digest of its bytes; empty while it is uploading."""
    made_ms: int
    """When its upload has begun."""
    until_ms: int
    """Until when it is kept; 0 while it is uploading."""

    @property
    def whole(self) -> bool:
        """True when all its bytes have come."""
        return bool(self.sha256)
