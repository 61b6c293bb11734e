"""How Redis keeps what members say in a room where a key seals (seals.py). The scripts look into none of it.

The store gives a publication its position in the step that keeps it. So a node that seals one knows its member and seq, and not that
position. A property of a record is sealed by itself, because a script applies patches. It is text, as the scripts take no other bytes:
0x01, with which no JSON begins, and base64 without its padding, of which a script can tell how long the content is.
"""

import base64
import binascii

from signald.core.rooms import NULL
from signald.store.redis_keys import PACKING
from signald.store.seals import NOT_SAID, Seals, number_of, room_owner

TEXT_MARK = 1
"""The first byte of a sealed text."""

_MARK = chr(TEXT_MARK)


def close_publication(room: str, member: str, seq: int, packed: bytes) -> bytes:
    """Return a publication as it is kept."""
    return PACKING.get().seals.cover(packed, b"publication", room_owner(room), seq, member.encode())


def open_publication(room: str, member: bytes, kept: bytes) -> tuple[bytes | None, int]:
    """Return a publication that was kept, None when it does not open, and the seq that its seal says; 0: it says none."""
    packed = PACKING.get().seals.uncover(kept, b"publication", room_owner(room), NOT_SAID, member)
    return packed, number_of(kept)


def close_presence(room: str, member: str, presence: bytes) -> bytes:
    """Return a presence as it is kept: the same one alike each time, because a script compares it with the last one."""
    return PACKING.get().seals.cover(presence, b"presence", room_owner(room), name=member.encode(), stable=True)


def open_presence(room: str, member: bytes, kept: bytes) -> bytes | None:
    """Return a presence that was kept; None when it does not open."""
    return PACKING.get().seals.uncover(kept, b"presence", room_owner(room), name=member)


def close_snapshot(room: str, body: bytes) -> bytes:
    """Return a snapshot as it is kept."""
    return PACKING.get().seals.cover(body, b"snapshot", room_owner(room))


def open_snapshot(room: str, kept: bytes) -> bytes | None:
    """Return a snapshot that was kept; None when it does not open."""
    return PACKING.get().seals.uncover(kept, b"snapshot", room_owner(room))


def close_value(room: str, record: str, name: str, value: bytes) -> str:
    """Return the value of a property as it is kept. `null` removes a property in a patch, which the script must see."""
    seals = PACKING.get().seals
    if not seals.sealing or value == NULL:
        return value.decode(errors="replace")
    kept = seals.cover(value, b"property", room_owner(room), name=_place(record, name))
    return _MARK + base64.b64encode(kept).rstrip(b"=").decode()


def _bytes_in(kept: str) -> bytes:
    """Return what a sealed text holds; empty when it is none."""
    try:
        return base64.b64decode(kept[1:] + "=" * (-(len(kept) - 1) % 4), validate=True)
    except binascii.Error:
        return b""


def renew_value(seals: Seals, room: str, record: str, name: str, kept: str) -> str:
    """Return the value of a property as it is to be kept from now on, as `close_value` does. Raises ValueError when it does not open."""
    sealed = _bytes_in(kept) if kept[:1] == _MARK else kept.encode()
    if kept[:1] != _MARK and (not seals.sealing or sealed == NULL):
        return kept
    new = seals.recover(sealed, b"property", room_owner(room), name=_place(record, name))
    if not sealed or new is None:
        raise ValueError("a sealed property does not open")
    return kept if new == sealed else _MARK + base64.b64encode(new).rstrip(b"=").decode()


def open_value(room: str, record: str, name: str, kept: str) -> bytes:
    """Return the value of a property that was kept. Raises ValueError when it does not open."""
    if kept[:1] != _MARK:
        return kept.encode()
    sealed = _bytes_in(kept)
    value = PACKING.get().seals.uncover(sealed, b"property", room_owner(room), name=_place(record, name))
    if not sealed or value is None:
        raise ValueError("a sealed property does not open")
    return value


def _place(record: str, name: str) -> bytes:
    return b"%d %b%b" % (len(record), record.encode(), name.encode(errors="surrogatepass"))
