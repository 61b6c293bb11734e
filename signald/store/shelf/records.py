"""What memory and SQLite keep of a blob. Redis keeps the same fields in a list (packing.py)."""

from msgspec import Struct
from msgspec.structs import replace

from signald.core.blobs import Blob
from signald.store.base import CLOCK_SET_MS


class Item(Struct, array_like=True, frozen=True, gc=False):
    """A blob on its shelf.

    A field that is added stands last, with the meaning of its absence as its default.
    """

    blob: Blob
    nonce: str
    """Of the upload: its node alone may renew, finish and abandon it."""
    key: bytes
    """Digest of its idempotency key; empty: it has none, or none any more."""
    leased_ms: int
    """When the lease was taken or renewed last."""
    lease_until_ms: int
    """0: the upload is over, and nothing writes in the media any more."""
    doomed: int = 0

    def lapsed(self, now_ms: int) -> bool:
        """Tell whether the lease of its upload is over. A lease from before the clock was set back is over."""
        return self.lease_until_ms <= now_ms or self.leased_ms - now_ms > CLOCK_SET_MS

    def over(self, now_ms: int) -> bool:
        """Tell whether a sweep is to doom it: it is kept no longer, or its lease has lapsed."""
        if self.doomed:
            return True
        return self.blob.until_ms <= now_ms if self.blob.whole else self.lapsed(now_ms)

    @property
    def due_ms(self) -> int:
        """When it is to be looked at: the end of its lease, else of its time; 0: it is doomed."""
        return self.lease_until_ms or (0 if self.doomed else self.blob.until_ms)

    def lease(self, lease_ms: int, now_ms: int) -> "Item":
        """Return it with a lease of `lease_ms` from now on."""
        return replace(self, leased_ms=now_ms, lease_until_ms=now_ms + lease_ms)

    def finish(self, size: int, sha256: bytes, until_ms: int) -> "Item":
        """Return it as it is once all its bytes have come."""
        blob = replace(self.blob, bytes=size, sha256=sha256, until_ms=until_ms)
        return replace(self, blob=blob, lease_until_ms=0)

    def doom(self, *, late: bool = False) -> "Item":
        """Return it doomed, its key free. `late`: nothing writes in the media any more, because its lease is over for long."""
        return replace(self, key=b"", doomed=1, lease_until_ms=0 if late else self.lease_until_ms)
