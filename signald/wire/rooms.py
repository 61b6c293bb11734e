"""The messages of rooms (see core/rooms.py). On a worker's connection each carries `session`.

What a party publishes stays raw. signald judges it when it stores it, so that bad content costs its sender that publication alone.
"""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from signald.wire.fields import HISTORY_MAX, KIND_MAX, NO_DATA, Inbound, Name, Outbound, Position, Seq

ROOMS_MAX = 64
"""Rooms of one session and party: a user with a few documents open, their chats, and his own room. Each costs a step in the store at every
move to another node."""

ROOM_TEXT_MAX = 1024
"""Characters of what a party may call a room. A name has at most 128, and a longer one costs its sender that room only."""

EPOCH_MAX = 64
"""Characters of the epoch of a room: twice what a node makes."""

PRESENCE_BYTES_MAX = 4096
"""Bytes of a presence."""

RoomText = Annotated[str, Meta(max_length=ROOM_TEXT_MAX)]
RoomEpoch = Annotated[str, Meta(max_length=EPOCH_MAX)]
RoomErrorCode = Literal["forbidden", "bad_record", "too_big", "room_full", "gap", "rate", "unsupported"]


class RoomPosition(Struct, frozen=True, gc=False):
    """What a resuming party has of a room that it is in; the fields as in `Join`."""

    room: RoomText
    received: Position = 0
    epoch: RoomEpoch = ""
    state: bool = False


RoomPositions = Annotated[list[RoomPosition], Meta(max_length=ROOMS_MAX)]


# --- from a party -------------------------------------------------------------------------------------------------


class Join(Inbound, tag="join", frozen=True):
    """The party is a member of a room from now on.

    `received` is the last position that it has of the room's `epoch`. `presence` is what others see of it. With `state` it gets the
    records too, and up to `history` of the last publications.
    """

    room: RoomText
    received: Position = 0
    epoch: RoomEpoch = ""
    presence: Raw = NO_DATA
    state: bool = False
    history: Annotated[int, Meta(ge=0, le=HISTORY_MAX)] = 0
    session: Name | None = None


class Publish(Inbound, tag="publish", frozen=True):
    """The party publishes `data`, or a change of records: `put`, `patch` and `remove`."""

    room: RoomText
    seq: Seq
    data: Raw = NO_DATA
    kind: Annotated[str, Meta(max_length=KIND_MAX)] | None = None
    put: Raw = NO_DATA
    patch: Raw = NO_DATA
    remove: Raw = NO_DATA
    session: Name | None = None


class Snapshot(Inbound, tag="snapshot", frozen=True):
    """The rest of this binary frame stands for all updates of the room up to `position`."""

    room: RoomText
    position: Seq
    session: Name | None = None


class Presence(Inbound, tag="presence", frozen=True):
    """What others see of the party from now on: any JSON."""

    room: RoomText
    presence: Raw
    session: Name | None = None


class Leave(Inbound, tag="leave", frozen=True):
    """The party is no member of the room any more."""

    room: RoomText
    session: Name | None = None


# --- to a party ---------------------------------------------------------------------------------------------------


class RoomMember(Struct, frozen=True, gc=False):
    """A member as others see it; `presence` is null while it has said nothing."""

    member: str
    presence: Raw


class Joined(Outbound, tag="joined", frozen=True):
    """The party is a member. Long answers come in several frames, `more` on all but the last; their lists and `records` are joined."""

    room: str
    epoch: str
    position: Position
    """The last one of the room: `records` and `removed` stand there."""
    next_seq: Seq
    """Of what the member publishes."""
    replaying: Position
    """How many `room_message`s follow at once, up to `position`."""
    recovered: bool
    """Those are all that the party has missed."""
    wipe: bool
    """What the party has of the records is void."""
    members: list[RoomMember]
    members_count: Position
    history: list[Raw] | UnsetType = UNSET
    """Publications up to `position`, oldest first, each as a `room_message`."""
    records: dict[str, Raw] | UnsetType = UNSET
    removed: list[str] | UnsetType = UNSET
    more: bool = False
    session: str | UnsetType = UNSET


class Published(Outbound, tag="published", frozen=True):
    """All publications of the member up to `seq` are stored or refused; the last that is stored stands at `position`."""

    room: str
    seq: Seq
    position: Position
    session: str | UnsetType = UNSET


class RoomMessage(Outbound, tag="room_message", frozen=True):
    """A publication. signald splices it (see records), so this class tells its form alone; `data` may be the rest of a binary frame."""

    room: str
    position: Seq
    member: str
    """Empty: a service."""
    at_ms: Position
    """When it was stored, in milliseconds since 1970."""
    seq: Seq | UnsetType = UNSET
    """Of the receiver's own, in a replay."""
    kind: str | UnsetType = UNSET
    data: Raw = NO_DATA
    put: dict[str, dict[str, Raw]] | UnsetType = UNSET
    patch: dict[str, dict[str, Raw]] | UnsetType = UNSET
    remove: list[str] | UnsetType = UNSET
    session: str | UnsetType = UNSET


class RoomSnapshot(Outbound, tag="snapshot", frozen=True):
    """The rest of this binary frame stands for all updates up to `position`, or with `update` is the one of this position."""

    room: str
    position: Seq
    kind: str | UnsetType = UNSET
    """Of an update; of a snapshot `yjs`, when signald has made it."""
    update: bool = False
    more: bool = False
    """The next frame goes on with the bytes of this snapshot."""
    session: str | UnsetType = UNSET


class RoomError(Outbound, tag="room_error", frozen=True):
    """One publication is refused. It takes no position, and has used its seq, except behind a gap."""

    room: str
    seq: Seq
    code: RoomErrorCode
    expected: Seq | UnsetType = UNSET
    """Of `gap`: the seq that is wanted."""
    session: str | UnsetType = UNSET


class RoomPresence(Outbound, tag="room_presence", frozen=True):
    """Who has come, has changed what others see of him, and has left, in this order."""

    room: str
    joined: list[RoomMember] | UnsetType = UNSET
    changed: list[RoomMember] | UnsetType = UNSET
    left: list[str] | UnsetType = UNSET
    session: str | UnsetType = UNSET


class Left(Outbound, tag="left", frozen=True):
    """The party is no member of the room any more, or has not become one."""

    room: str
    reason: str
    session: str | UnsetType = UNSET
