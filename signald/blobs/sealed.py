"""Media whose objects are sealed: AES-256-GCM in chunks, so that any range is read with the memory of one chunk (decision 34).

    magic "signald" 0xC1   format 1   key id (4)   salt (19)   tag of the header (16)   chunk   chunk   ...

A chunk is `CHUNK_BYTES` of content and its tag; the last one is shorter. The key is the object's own: derived from a key of the ring, the
id of the blob and the salt. So a nonce is the number of its chunk, and neither a chunk nor an object opens elsewhere. The size in the
blob's record tells how long the last chunk is; an object that was cut lacks bytes. An object without the magic is plain.
"""

import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Protocol

import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from signald.blobs.media import PIECE_BYTES, Media, MediaCounts, Writing
from signald.errors import MediaMissing

log = structlog.get_logger(__name__)

_MAGIC = b"signald\xc1"
_FORMAT = b"\x01"
_SALT_BYTES = 19
_ID_BYTES = 4
_SAID_BYTES = len(_MAGIC) + len(_FORMAT) + _ID_BYTES + _SALT_BYTES
_TAG_BYTES = 16
HEADER_BYTES = _SAID_BYTES + _TAG_BYTES

CHUNK_BYTES = PIECE_BYTES - _TAG_BYTES
"""Sealed it is one piece of a read, and so one request to S3."""

_OF_HEADER = b"\xff" * 12
"""The nonce of the header: no number of a chunk is as high."""


class Ring(Protocol):
    """The keys of the store, as far as media need them (`store.seals.Seals`)."""

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids of all keys; empty: there are none."""

    def derive(self, key_id: bytes, label: bytes) -> tuple[bytes, bytes] | None:
        """Return the id of a key and a secret that is derived from it; an empty id: of the key that seals. None: there is none."""


class SealedMedia:
    """Media in front of others. What is written is sealed while a key of the ring seals; plain objects are read as they are."""

    def __init__(self, media: Media, ring: Ring) -> None:
        self._media = media
        self._ring = ring

    @property
    def counts(self) -> MediaCounts:
        """As `Media.counts`."""
        return self._media.counts

    @asynccontextmanager
    async def write(self, key: str, *, content_type: str = "application/octet-stream") -> AsyncIterator[Writing]:
        """As `Media.write`."""
        salt = os.urandom(_SALT_BYTES)
        found = self._ring.derive(b"", _label(key, salt))
        if found is None:
            async with self._media.write(key, content_type=content_type) as writing:
                yield writing
            return
        key_id, secret = found
        said = _MAGIC + _FORMAT + key_id + salt
        # Its type stands in the record; the service that keeps it need not know what it is.
        async with self._media.write(key, content_type="application/octet-stream") as writing:
            yield SealedWriting(writing, AESGCM(secret), said)

    async def read(self, key: str, start: int, end: int, *, size: int = 0) -> AsyncGenerator[bytes, None]:
        """As `Media.read`. `size` is that of the whole content."""
        cipher = await self._opened(key)
        if cipher is None:
            async with aclosing(self._media.read(key, start, end, size=size)) as plain:
                async for piece in plain:
                    yield piece
            return
        for number in range(start // CHUNK_BYTES, -(-end // CHUNK_BYTES)):
            first = number * CHUNK_BYTES
            at, count = HEADER_BYTES + number * PIECE_BYTES, min(CHUNK_BYTES, size - first) + _TAG_BYTES
            sealed = await self._piece(key, at, at + count)
            content = _decrypt(cipher, number.to_bytes(12, "big"), sealed)
            if content is None:
                log.error("blob_unreadable", blob=key, chunk=number)
                raise MediaMissing(f"{key} has a chunk that does not open")
            yield content[max(0, start - first) : end - first]

    async def delete(self, key: str) -> None:
        """As `Media.delete`."""
        await self._media.delete(key)

    async def signed_url(self, key: str, *, ttl_s: float) -> str | None:
        """As `Media.signed_url`: none where there are keys, because behind a URL an object is as it is kept."""
        return None if self._ring.ids else await self._media.signed_url(key, ttl_s=ttl_s)

    async def sweep(self) -> int:
        """As `Media.sweep`."""
        return await self._media.sweep()

    async def _opened(self, key: str) -> AESGCM | None:
        """Return the cipher of a sealed object; None: it is plain."""
        if not self._ring.ids:
            return None
        try:
            header = await self._piece(key, 0, HEADER_BYTES)
        except MediaMissing:
            return None  # shorter than a header, or not there, which its reader finds
        said, tag = header[:_SAID_BYTES], header[_SAID_BYTES:]
        if not said.startswith(_MAGIC + _FORMAT):
            return None
        rest = said[len(_MAGIC) + len(_FORMAT) :]
        found = self._ring.derive(rest[:_ID_BYTES], _label(key, rest[_ID_BYTES:]))
        cipher = None if found is None else AESGCM(found[1])
        if cipher is None or _decrypt(cipher, _OF_HEADER, tag, said) is None:
            log.error("blob_unreadable", blob=key)
            raise MediaMissing(f"{key} does not open")  # its bytes as they are would be garbage to its reader
        return cipher

    async def _piece(self, key: str, start: int, end: int) -> bytes:
        async with aclosing(self._media.read(key, start, end, size=end)) as pieces:
            return b"".join([piece async for piece in pieces])


class SealedWriting:
    """An object that is sealed while it is written. It holds one chunk beside what its media hold."""

    def __init__(self, writing: Writing, cipher: AESGCM, said: bytes) -> None:
        self._writing = writing
        self._cipher = cipher
        self._header = said + cipher.encrypt(_OF_HEADER, b"", said)
        self._held = bytearray()
        self._number = 0

    async def send(self, data: bytes) -> None:
        """As `Writing.send`."""
        await self._begin()
        view = memoryview(data)
        while len(view):
            room = CHUNK_BYTES - len(self._held)
            self._held += view[:room]
            view = view[room:]
            if len(self._held) == CHUNK_BYTES:
                await self._close()

    async def finish(self) -> None:
        """As `Writing.finish`."""
        await self._begin()
        if self._held:
            await self._close()
        await self._writing.finish()

    async def _begin(self) -> None:
        header, self._header = self._header, b""
        if header:
            await self._writing.send(header)

    async def _close(self) -> None:
        held, self._held = bytes(self._held), bytearray()
        sealed = self._cipher.encrypt(self._number.to_bytes(12, "big"), held, None)
        self._number += 1
        await self._writing.send(sealed)


def _decrypt(cipher: AESGCM, nonce: bytes, sealed: bytes, said: bytes | None = None) -> bytes | None:
    try:
        return cipher.decrypt(nonce, sealed, said)
    except InvalidTag:
        return None


def _label(key: str, salt: bytes) -> bytes:
    return b"blob %d %b%b" % (len(key), key.encode(), salt)
