"""Seals of kept values: AES-256-GCM under a key ring, or a CRC-32 where no key seals (decision 34).

A sealed value is opaque: its bytes tell the id of its key, a nonce and a number, and nothing of its content. It opens in its place alone.
The place is the aggregate that owns it (a session, a room, a shelf), its kind, its number (the seq of a message) and its name, all of which
are associated data. A value that was moved, swapped, cut or put back elsewhere is damaged, and damage hurts its own session (damage.py).

    mark 0xC1   format 1   key id (4)   nonce (12)   number (8)   ciphertext   tag (16)

No text in UTF-8 and no value of msgpack begins with the mark, so plain values and sealed ones lie side by side. The id of a key is
derived from its secret: a wrong secret under a known name is another key, and is missed before anything is read.
"""

import hmac
import os
from collections.abc import Iterable
from struct import Struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from signald.config.seal_keys import SealKey
from signald.store.damage import REPORTS, seal, unseal

MARK = 0xC1
FORMAT = 1
_MARK = bytes([MARK])
_HEAD = Struct(">BB4s12sQ")
_pack = _HEAD.pack
_TAG_BYTES = 16

SEALED_BYTES = _HEAD.size + _TAG_BYTES
"""How much longer a sealed value is than its content."""

CIPHERS_MAX = 8192
"""Derived keys that are remembered, one for each aggregate: as many sessions as the packing of commands remembers, about 1 KiB each."""

_NONCE_BYTES = 12
_POOL_BYTES = _NONCE_BYTES * 256
"""Random bytes are fetched for many nonces at once: a system call for each would cost as much as the cipher."""

NOT_SAID = -1
"""The number of a value whose reader does not know it: any is good, and `number_of` tells which it is."""


class _Key:
    """One key, and what was derived of it. Each aggregate has a key of its own, so the bound of random nonces holds for each alone."""

    def __init__(self, key: SealKey) -> None:
        self.name = key.name
        self.id = hmac.digest(key.secret, b"signald key id 1", "sha256")[:4]
        self._secret = key.secret
        self._ciphers: dict[str, AESGCM] = {}
        self.bounds: dict[tuple[bytes, str], tuple[AESGCM, bytes]] = {}

    def __repr__(self) -> str:
        return f"<key {self.name} {self.id.hex()}>"

    def cipher(self, owner: str) -> AESGCM:
        """Return the cipher of one aggregate."""
        cipher = self._ciphers.get(owner)
        if cipher is None:
            while len(self._ciphers) >= CIPHERS_MAX:
                del self._ciphers[next(iter(self._ciphers))]
            secret = hmac.digest(self._secret, b"signald seal 1 " + _text(owner), "sha256")
            cipher = self._ciphers[owner] = AESGCM(secret)
        return cipher

    def bound(self, kind: bytes, owner: str, name: bytes) -> tuple[AESGCM, bytes]:
        """Return the cipher of an aggregate and what names a place in it. Those without a name are remembered: each message has one."""
        found = None if name else self.bounds.get((kind, owner))
        if found is None:
            found = self.cipher(owner), _place(kind, owner, name)
            if not name:
                while len(self.bounds) >= CIPHERS_MAX:
                    del self.bounds[next(iter(self.bounds))]
                self.bounds[kind, owner] = found
        return found

    def derive(self, label: bytes) -> bytes:
        """Return a secret for one purpose."""
        return hmac.digest(self._secret, b"signald derived 1 " + label, "sha256")

    def nonce_of(self, place: bytes, data: bytes) -> bytes:
        """Return the nonce of a value that is the same each time it is sealed."""
        return hmac.digest(self._secret, b"signald nonce 1 %d %b%b" % (len(place), place, data), "sha256")[
            :_NONCE_BYTES
        ]


def _text(owner: str) -> bytes:
    return owner.encode(errors="surrogatepass")


def _place(kind: bytes, owner: str, name: bytes) -> bytes:
    """Return what names a place without its number. A kind has no blank, so that no two places are one."""
    of = _text(owner)
    return b"%b %d %b%b" % (kind, len(of), of, name)


def room_owner(room: str) -> str:
    """Return what a room is called as the owner of values: it is named by its users, and no session or shelf has a colon in its id."""
    return f"room:{room}"


def is_sealed(kept: object) -> bool:
    """Tell whether a kept value has the mark of the sealed ones."""
    return type(kept) is bytes and kept[:1] == _MARK


def number_of(kept: bytes) -> int:
    """Return the number that a sealed value says it has; 0 for a plain one. It is true once the value has been opened."""
    return int.from_bytes(kept[18:26], "big") if is_sealed(kept) and len(kept) >= SEALED_BYTES else 0


def _said(kept: bytes, number: int) -> int:
    """Return the number under which a value is sealed again, of which it may be the only one that knows it."""
    return number_of(kept) if number == NOT_SAID else number


class Seals:
    """The key ring of one store. All keys open; one of them seals, or none, and then values are kept plain.

    One thread uses it at a time, as one batch of a store does.
    """

    def __init__(
        self, keys: Iterable[SealKey] = (), *, sealing: bool = False, retired: frozenset[str] = frozenset()
    ) -> None:
        """`sealing`: the newest key seals from the start. Otherwise `use` says which, once every node is known to open it."""
        self._ring: dict[bytes, _Key] = {}
        self._sealing: _Key | None = None
        self.used: frozenset[str] = frozenset()
        """Ids of the keys under which the store holds values, as far as they are known."""
        self._nonces: list[bytes] = []
        self.retired = retired
        """Ids of keys under which no value is any more, as the operator says."""
        self.renew(keys, retired)
        if sealing:
            self.use(self.ids[-1])

    def __repr__(self) -> str:
        return f"<Seals {', '.join(self.ids)}; {self.sealing or 'none'} seals>"

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids of all keys, the newest last."""
        return tuple([key.id.hex() for key in self._ring.values()])

    @property
    def sealing(self) -> str:
        """The id of the key that seals; empty: none does."""
        return "" if self._sealing is None else self._sealing.id.hex()

    def name_of(self, key_id: str) -> str:
        """Return the name of a key, for people; empty when it is not in the ring."""
        found = self._ring.get(bytes.fromhex(key_id))
        return "" if found is None else found.name

    def use(self, key_id: str) -> None:
        """Seal under this key from now on; empty: under none."""
        self._sealing = self._ring[bytes.fromhex(key_id)] if key_id else None

    def renew(self, keys: Iterable[SealKey], retired: frozenset[str] = frozenset()) -> tuple[str, ...]:
        """Replace the ring, the newest key last.

        A key that is left out and not retired stays while values are sealed under it; the ids of such keys are returned.
        """
        ring, self.retired = {key.id: key for key in map(_Key, keys)}, retired
        used = self.used - retired
        missed = {key_id: key for key_id, key in self._ring.items() if key_id.hex() in used and key_id not in ring}
        self._ring = {**missed, **{key_id: self._ring.get(key_id, key) for key_id, key in ring.items()}}
        if self._sealing is not None and self._sealing.id not in self._ring:
            self._sealing = None
        return tuple([key_id.hex() for key_id in missed])

    # --- values with a seal -----------------------------------------------------------------------------------------

    def wrap(self, data: bytes, kind: bytes, owner: str, number: int = 0, name: bytes = b"", *, crc: int = 0) -> bytes:
        """Return `data` as it is kept; `crc` is the place that its CRC-32 is bound to where no key seals."""
        key = self._sealing
        if key is None:
            return seal(data, crc)
        if name:
            return self._close(key, data, kind, owner, number, name)
        # As `_close`, without its calls: each message comes here.
        cipher, place = key.bounds.get((kind, owner)) or key.bound(kind, owner, name)
        nonce = self._nonce()
        head = _pack(MARK, FORMAT, key.id, nonce, number)
        return head + cipher.encrypt(nonce, data, head + place)

    def unwrap(
        self, kept: object, kind: bytes, owner: str, number: int = 0, name: bytes = b"", *, crc: int = 0
    ) -> bytes | None:
        """Return the data that `wrap` was given for this place; None when it is damaged. Plain values are read as well."""
        if type(kept) is not bytes:
            return None
        if kept[:1] == _MARK:
            data = self._open(kept, kind, owner, number, name)
            if data is not None:
                return data
        return unseal(kept, crc)

    # --- values that have no seal of their own where they are plain --------------------------------------------------

    def cover(
        self, data: bytes, kind: bytes, owner: str, number: int = 0, name: bytes = b"", *, stable: bool = False
    ) -> bytes:
        """Return `data` as it is kept: sealed, or as it is. Empty data stay empty, because scripts ask for that.

        `stable`: the same data give the same bytes, for a value that a script compares. That they are the same can be seen then.
        """
        key = self._sealing
        if key is None or not data:
            return data
        return self._close(key, data, kind, owner, number, name, stable=stable)

    def uncover(self, kept: bytes, kind: bytes, owner: str, number: int = 0, name: bytes = b"") -> bytes | None:
        """Return the data that `cover` was given; None when a sealed value does not open here."""
        return self._open(kept, kind, owner, number, name) if kept[:1] == _MARK else kept

    # --- values under another key -----------------------------------------------------------------------------------

    def is_current(self, kept: bytes) -> bool:
        """Tell whether a value says that it is under the key that seals."""
        return self._sealing is not None and kept[:1] == _MARK and kept[2:6] == self._sealing.id

    def rewrap(
        self, kept: object, kind: bytes, owner: str, number: int = 0, name: bytes = b"", *, crc: int = 0
    ) -> bytes | None:
        """Return a value of `wrap` as it is to be kept from now on; None when it does not open. One under the key that seals stays."""
        if type(kept) is bytes and self.is_current(kept):
            return kept
        data = self.unwrap(kept, kind, owner, number, name, crc=crc)
        if data is None or type(kept) is not bytes:
            return None
        return self.wrap(data, kind, owner, _said(kept, number), name, crc=crc)

    def recover(
        self, kept: bytes, kind: bytes, owner: str, number: int = 0, name: bytes = b"", *, stable: bool = False
    ) -> bytes | None:
        """As `rewrap`, of a value of `cover`."""
        if self.is_current(kept):
            return kept
        data = self.uncover(kept, kind, owner, number, name)
        return None if data is None else self.cover(data, kind, owner, _said(kept, number), name, stable=stable)

    def derive(self, key_id: bytes, label: bytes) -> tuple[bytes, bytes] | None:
        """Return the id of a key and a secret that is derived from it; an empty id: of the key that seals. None: there is none."""
        key = self._ring.get(key_id) if key_id else self._sealing
        return None if key is None else (key.id, key.derive(label))

    # --- the cipher -------------------------------------------------------------------------------------------------

    def _close(
        self, key: _Key, data: bytes, kind: bytes, owner: str, number: int, name: bytes, *, stable: bool = False
    ) -> bytes:
        cipher, place = key.bound(kind, owner, name)
        nonce = key.nonce_of(b"%d %b" % (number, place), data) if stable else self._nonce()
        head = _pack(MARK, FORMAT, key.id, nonce, number)
        return head + cipher.encrypt(nonce, data, head + place)

    def _open(self, kept: bytes, kind: bytes, owner: str, number: int, name: bytes) -> bytes | None:
        if len(kept) < SEALED_BYTES:
            return None
        head = kept[: _HEAD.size]
        _, form, key_id, nonce, said = _HEAD.unpack(head)
        if form != FORMAT or (said != number and number != NOT_SAID):
            return None
        key = self._ring.get(key_id)
        if key is None:
            REPORTS.tell("value under a key that is not known", key_id.hex())
            return None
        try:
            cipher, place = key.bound(kind, owner, name)
            return cipher.decrypt(nonce, kept[_HEAD.size :], head + place)
        except InvalidTag:
            return None

    def _nonce(self) -> bytes:
        if not self._nonces:
            pool = os.urandom(_POOL_BYTES)
            self._nonces = [pool[at : at + _NONCE_BYTES] for at in range(0, _POOL_BYTES, _NONCE_BYTES)]
        return self._nonces.pop()


PLAIN = Seals()
"""Seals under no key: for a store whose values are kept plain."""
