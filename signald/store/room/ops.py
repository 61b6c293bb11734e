"""The operations on a room. See core/rooms.py for what it is.

*Members.* A member is `<session id>` or `<session id>/worker`. It has a seat, at a node and under the epoch of its connection, which fences
what is done for it. The seat moves with the member to another node, and the other members are not told.

*Turns.* Each change of who is here and of a presence has a number of its own, the turn, dense from 1. Departures are remembered by turn,
the last `DEPARTED_MAX` of them.

*Waking.* Each change that members see wakes each node that has members, once for each operation, and never its caller.

A room that cannot be read, or was lost, is unknown to all but `JoinRoom` and `Post`, which make a new one with another epoch. A room in
which nothing was published is over when its last member leaves; one with content is kept for a while.
"""

from signald.core.rooms import Bounds, Entry, Fault, Member, Offer, Publication, Record
from signald.store.base import Behind, Done, Fenced, Refused, Result, RoomOp, traits

LOOKED_MAX = 512
"""How many entries one look tells, whatever its caller asks for: a script holds up all of Redis, by some milliseconds for so many."""

CHANGED_MAX = 32
"""How many records one page has, beside the rest of those that were changed at the position of the last one: one publication.

A script reads them in a millisecond, for which it holds up all of Redis. With 256 of them it took 12 ms, and others felt each join; with 64
the p99 of their messages was up to 1.7 times that without a join, and it is 1.4 with 32."""

# --- results ------------------------------------------------------------------------------------------------------


class Joined(Result, frozen=True):
    """The member has its seat."""

    epoch: str
    position: int
    """The last one of the room."""
    floor: int
    """The log has what is behind it."""
    horizon: int
    """Removals up to it may be forgotten."""
    snapshot: int
    """The position up to which a snapshot stands for the updates; 0: there is none."""
    turn: int
    members: int
    next_seq: int
    recovered: bool
    wipe: bool
    refused: tuple[tuple[int, Fault], ...]
    """The last publications of the member that were refused: it may not have been told."""


class NoRoom(Result, frozen=True):
    """There is no such room, or it cannot be read."""


class RoomOver(Result, frozen=True):
    """The member has no seat, and the room is over: it is worth a sweep."""


class NotMember(Result, frozen=True):
    """The member has no seat: it has left, or the store has lost it. It is to join again."""


class Published(Result, frozen=True):
    """All publications up to `seq` are stored or refused."""

    seq: int
    position: int
    """Of the last one of the member that is stored; 0: none."""
    refused: tuple[tuple[int, Fault], ...]
    """Those of this operation that are refused, by seq."""
    expected: int
    """0: there is no gap; else the seq that is wanted before all that are behind it."""


class Posted(Result, frozen=True):
    """The publication is stored at `position`, now or when its key was used first."""

    position: int
    replayed: bool = False
    """Its key is known: an earlier operation has stored it."""


class PresenceSet(Result, frozen=True):
    """The presence is as it was asked."""

    turn: int


class PresenceOld(Result, frozen=True):
    """Something that the member has said later is kept, and stays."""

    turn: int
    """In which that was said."""


class RoomLooked(Result, frozen=True):
    """What a node learns of a room."""

    epoch: str
    position: int
    floor: int
    entries: tuple[Entry, ...]
    """Those that can be read behind the position that was asked about, or behind `floor`, up to `upto`."""
    upto: int
    turn: int
    whole: bool
    """`members` are all members; else those that have joined or changed, and `departed` tells the rest."""
    members: tuple[Member, ...]
    """In order of their last turn."""
    departed: tuple[str, ...]
    members_count: int


class RoomRead(Result, frozen=True):
    """What a room has, for its page and for an operator."""

    epoch: str
    position: int
    floor: int
    horizon: int
    snapshot: int
    records: int
    bytes: int
    """Of the records, the snapshot and the updates behind it."""
    members_count: int
    members: tuple[Member, ...]
    """The first of them, in order of their last turn."""
    nodes: tuple[str, ...]
    """Those that have members, in order of id."""


class RoomHistory(Result, frozen=True):
    """Entries, oldest first; `next` is the `before` of the page of older ones, 0 when there is none."""

    entries: tuple[Entry, ...]
    next: int


class RoomState(Result, frozen=True):
    """Records and removals in the order of their last change, all that have changed from the position that was asked about up to `upto`.

    What changes while pages are read moves to a later page. So they are one consistent picture of `position` as soon as `upto` is that, as
    far as `rooms.is_picture` says so: else a removal may be missing, and the reader begins anew at 0.
    """

    epoch: str
    position: int
    upto: int
    horizon: int
    records: tuple[tuple[str, Record], ...]


class RoomUpdates(Result, frozen=True):
    """The snapshot, if it is not known yet, and updates behind it up to `upto`."""

    epoch: str
    position: int
    snapshot: int
    body: bytes
    """Empty: there is none, or it is known."""
    updates: tuple[Entry, ...]
    upto: int


class RoomSwept(Result, frozen=True):
    """What is left of the room; 0 and 0: nothing."""

    next_ms: int
    """When it is to be swept next, by the store's clock; 0: it is gone, or has members."""
    members: int = 0
    """A room with members has no end of its own; whether their sessions live, the caller asks."""


# --- operations ---------------------------------------------------------------------------------------------------


@traits(damaged=Refused("damaged"))
class JoinRoom(RoomOp[Joined | Fenced | Refused | NoRoom], frozen=True):
    """Give a member its seat, and make the room when there is none, if `makes` says so; else the answer is `NoRoom`.

    The same nonce gets the same seat, and changes nothing. A member that has a seat already moves with it, as it does in a handover.
    Refused `room_full`: the room has as many members as it may. `Fenced`: it has a seat of a later connection, or under the same one at
    another node.
    """

    member: str
    node: str
    epoch: int
    """Of the connection."""
    nonce: str
    new_epoch: str
    """That of the room, when it is made or has lost something; random."""
    known_epoch: str
    """The epoch that the member knows; empty: none."""
    received: int
    """The last position that it has."""
    presence: bytes | None
    """None: as it is."""
    bounds: Bounds
    now_ms: int
    makes: bool = True
    """False: a room has to have its place in the agenda first (`Own`)."""
    told: int = 0
    """A position of which members of `known_epoch` were told, by the word of the node. A room that has not come so far has lost its last
    publications: it gets `new_epoch`, so that no member takes other content for those."""


@traits(damaged=Done())
class LeaveRoom(RoomOp[Done | RoomOver | Fenced], frozen=True):
    """Take the seat of a member. `Done` as well when it has none."""

    member: str
    node: str
    epoch: int
    keep_ms: int
    now_ms: int


@traits(damaged=Done())
class DropMembers(RoomOp[Done | RoomOver], frozen=True):
    """Take the seats of both parties of a session, which has ended, wherever they are."""

    session: str
    node: str
    keep_ms: int
    now_ms: int


@traits(later=True, damaged=NotMember())
class Publish(RoomOp[Published | Fenced | Behind | NotMember], frozen=True):
    """Store what a member publishes, in order of seq, which is dense.

    What it has published already is passed over, and behind a gap nothing is taken. A publication that is refused uses up its seq, and
    takes no position.
    """

    member: str
    node: str
    epoch: int
    offers: tuple[Offer, ...]
    bounds: Bounds
    now_ms: int


@traits(later=True, damaged=Refused("damaged"))
class Post(RoomOp[Posted | Refused | NoRoom], frozen=True):
    """Store what is published over HTTP, without a seq, and make the room when there is none, as `JoinRoom` does.

    A key that is known gets the position of its first use. Refused `key_taken`: its first use had other content.
    """

    node: str
    """The caller."""
    key: bytes
    """Digest of the idempotency key; empty: there is none."""
    new_epoch: str
    publication: Publication
    bounds: Bounds
    now_ms: int
    member: str = ""
    """The author, a party that asks over HTTP and need have no seat; empty: a service."""
    content: bytes = b""
    """Digest of what the key was used for."""
    makes: bool = True


@traits(later=True, damaged=NotMember())
class SetPresence(RoomOp[PresenceSet | PresenceOld | Fenced | Behind | NotMember], frozen=True):
    """Say what others see of a member. The same as before changes nothing.

    `PresenceOld`: the member has spoken behind the turn `after`, so this comes late, or twice.
    """

    member: str
    node: str
    epoch: int
    presence: bytes
    after: int = 0
    """A turn that is not before the member's last one, as its node knows it; 0: this counts in any case."""


@traits(later=True, damaged=NotMember())
class SnapshotRoom(RoomOp[Done | Refused | Fenced | Behind | NotMember], frozen=True):
    """Let a body stand for all updates up to `position`, which are dropped as soon as the log does not need them.

    Refused `stale`: a snapshot of a later position is there. `bad_position`: the room has not come so far. `room_full`: it is too large for
    the room. When there is one of the same position, that one stays.
    """

    member: str
    node: str
    epoch: int
    position: int
    body: bytes
    bounds: Bounds


@traits(reads=True, later=True, damaged=NoRoom())
class LookRoom(RoomOp[RoomLooked | NoRoom], frozen=True):
    """Read what is new for a node: entries behind `after`, and who is here since `turn`. 0: all."""

    after: int
    turn: int
    limit: int
    now_ms: int


@traits(reads=True, damaged=NoRoom())
class ReadRoom(RoomOp[RoomRead | NoRoom], frozen=True):
    """Read what a room has, with up to `limit` members."""

    limit: int
    now_ms: int


@traits(reads=True, damaged=NoRoom())
class ReadRoomHistory(RoomOp[RoomHistory | NoRoom], frozen=True):
    """Read entries in front of the position `before`; 0: the last ones."""

    before: int
    limit: int
    now_ms: int


@traits(reads=True, damaged=NoRoom())
class ReadRoomState(RoomOp[RoomState | NoRoom], frozen=True):
    """Read the records and removals whose last change is behind `after`."""

    after: int
    limit: int
    now_ms: int


@traits(reads=True, damaged=NoRoom())
class ReadRoomUpdates(RoomOp[RoomUpdates | NoRoom], frozen=True):
    """Read the snapshot, unless `after` is its position or behind it, and the updates behind both."""

    after: int
    limit: int
    now_ms: int


@traits(damaged=RoomSwept(0))
class SweepRoom(RoomOp[RoomSwept], frozen=True):
    """Remove a room that has been without members for as long as it is kept. The agenda names it under `r` (registry/agenda/records.py)."""

    now_ms: int
