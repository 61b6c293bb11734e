"""What memory and SQLite keep of a room. Redis keeps the same in a hash and four sorted sets (head.lua)."""

from msgspec import Struct
from msgspec.structs import replace

from signald.core.rooms import REFUSALS_MAX, Fault
from signald.store.base import CLOCK_SET_MS


class Head(Struct, array_like=True):
    """The room without its log, records and members.

    A field that is added stands last, with the meaning of its absence as its default.
    """

    room: str
    epoch: str
    position: int = 0
    floor: int = 0
    log_bytes: int = 0
    records: int = 0
    bytes: int = 0
    """Of the records."""
    tombstones: int = 0
    horizon: int = 0
    snapshot: int = 0
    snapshot_bytes: int = 0
    updates: int = 0
    """Behind the snapshot."""
    updates_bytes: int = 0
    turn: int = 0
    turn_floor: int = 0
    """Departures up to this turn may be forgotten."""
    members: int = 0
    nodes: dict[str, int] = {}
    """Node → how many members it has."""
    empty_ms: int = 0
    """Since when there is no member; 0: there are some."""
    until_ms: int = 0

    @property
    def bytes_all(self) -> int:
        """What counts for `room_bytes_max`."""
        return self.bytes + self.snapshot_bytes + self.updates_bytes

    def is_over(self, now_ms: int) -> bool:
        """Tell whether it is kept no longer."""
        return not self.members and self.until_ms <= now_ms

    def stay(self, keep_ms: int, now_ms: int) -> None:
        """Begin the time for which it is kept without members: none when nothing was ever published in it."""
        keep_ms = keep_ms if self.position else 0
        self.empty_ms, self.until_ms = now_ms, now_ms + keep_ms

    def is_of_the_future(self, now_ms: int) -> bool:
        """Tell whether its time began before the clock was set back."""
        return not self.members and self.empty_ms - now_ms > CLOCK_SET_MS

    def add_member(self, node: str) -> None:
        """Count a member at `node`."""
        self.nodes[node] = self.nodes.get(node, 0) + 1

    def drop_member(self, node: str) -> None:
        """Count a member at `node` no more."""
        if self.nodes.get(node, 0) > 1:
            self.nodes[node] -= 1
        else:
            self.nodes.pop(node, None)


class Seat(Struct, array_like=True, frozen=True, gc=False):
    """Where a member is, and how far its publications have come."""

    node: str
    epoch: int
    nonce: str
    seq: int = 0
    position: int = 0
    refused: tuple[tuple[int, Fault], ...] = ()

    def move(self, node: str, epoch: int, nonce: str) -> "Seat":
        """Return it as it is for a new connection of the member."""
        return replace(self, node=node, epoch=epoch, nonce=nonce)

    def take(self, seq: int, position: int) -> "Seat":
        """Return it after a publication that is stored."""
        return replace(self, seq=seq, position=position)

    def refuse(self, seq: int, fault: Fault) -> "Seat":
        """Return it after a publication that is refused."""
        return replace(self, seq=seq, refused=(*self.refused, (seq, fault))[-REFUSALS_MAX:])


class Presence(Struct, array_like=True, frozen=True, gc=False):
    """What others see of a member."""

    since: int
    """The turn in which it has joined."""
    presence: bytes


class Kept(Struct, array_like=True, frozen=True, gc=False):
    """What a room remembers for a while."""

    departed: tuple[tuple[int, str], ...] = ()
    """Turn and member, oldest first."""
    keys: tuple[tuple[bytes, int, bytes], ...] = ()
    """Idempotency key, position, and digest of the content, oldest first."""
