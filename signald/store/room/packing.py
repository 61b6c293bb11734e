"""The operations on a room as RESP commands, and the scripts they call. See session/packing.py."""

from collections.abc import Sequence

from msgspec import msgpack

from signald.core.rooms import (
    DEPARTED_MAX,
    KEYS_MAX,
    REFUSALS_MAX,
    UPDATES_MAX,
    Bounds,
    Properties,
    Publication,
)
from signald.store import lua
from signald.store.base import WAKE_ROOM, RoomOp
from signald.store.redis_codec import call, codec
from signald.store.redis_connection import Word
from signald.store.redis_keys import PACKING, ROOM_TAG
from signald.store.room.ops import (
    CHANGED_MAX,
    LOOKED_MAX,
    DropMembers,
    JoinRoom,
    LeaveRoom,
    LookRoom,
    Post,
    Publish,
    ReadRoom,
    ReadRoomHistory,
    ReadRoomState,
    ReadRoomUpdates,
    SetPresence,
    SnapshotRoom,
    SweepRoom,
)
from signald.store.room.records import Head, Seat
from signald.store.room.replies import read_room
from signald.store.room.seals import TEXT_MARK, close_presence, close_publication, close_snapshot, close_value
from signald.store.seals import MARK, SEALED_BYTES

SEAL_LETTERS = 8
"""As many bits as the seals of other values have."""

WORDS_MAX = 4000
"""How many words a script hands to one command: Lua has room for about 8,000."""

FOREVER_MS = 100 * 365 * 86_400_000
"""How long a room with members lives in Redis: until its members leave. A user of Redis that may PEXPIRE may not PERSIST."""

_HEAD = Head.__struct_fields__[1:]
_PLACES = {
    "ROOM": _HEAD,
    "SEAT": Seat.__struct_fields__,
    "BOUND": Bounds.__struct_fields__,
    "SAID": Publication.__struct_fields__,
}

ROOM = lua.cold(
    "room/head.lua",
    "room/members.lua",
    "room/records.lua",
    "room/publications.lua",
    "room/updates.lua",
    "room/room.lua",
    constants={
        **{f"{name}.{field}": place for name, fields in _PLACES.items() for place, field in enumerate(fields, 1)},
        "ROOM_COUNT": len(_HEAD),
        "TAG_LENGTH": len(ROOM_TAG),
        "WAKE_ROOM": WAKE_ROOM.decode(),
        "SEAL_LETTERS": SEAL_LETTERS,
        "SEALED_BYTES": SEALED_BYTES,
        "SEAL_MARK": MARK,
        "TEXT_MARK": TEXT_MARK,
        "WORDS_MAX": WORDS_MAX,
        "FOREVER_MS": FOREVER_MS,
        "DEPARTED_MAX": DEPARTED_MAX,
        "REFUSALS_MAX": REFUSALS_MAX,
        "KEYS_MAX": KEYS_MAX,
        "UPDATES_MAX": UPDATES_MAX,
    },
)


def pack_room(op: RoomOp, operation: str, node: str, *words: Word) -> bytes:
    """Call the function named `operation` of the scripts with `words`, on behalf of `node`, which it does not wake."""
    space = PACKING.get()
    return call(space.script(ROOM[operation]), space.room_keys(op.room), operation, node, *words)


def _pack_join(op: JoinRoom) -> bytes:
    is_said = op.presence is not None
    presence = close_presence(op.room, op.member, op.presence or b"")
    return pack_room(
        op, "join_room", op.node, op.member, op.epoch, op.nonce, op.new_epoch, op.known_epoch, op.received, int(is_said),
        presence, op.bounds.members_max, op.now_ms, int(op.makes), op.told,
    )  # fmt: skip


def _words(room: str, member: str, said: Publication) -> tuple[Word, ...]:
    """Return a publication as a script takes it: its size, what it does to records, and itself as it is kept.

    The scripts cannot read the binary type of msgpack, and look into no body. Values of properties are JSON, which is text.
    """
    puts, patches = said.puts and _changes(room, said.puts), said.patches and _changes(room, said.patches)
    packed = close_publication(room, member, said.seq, msgpack.encode(said))
    return said.size, msgpack.encode((said.seq, "", puts, patches, said.removes, said.update)), packed


def _said(room: str, member: str, said: Publication) -> tuple[Word, ...]:
    """Return one of many publications of a member. That of one for the log alone is short: a script takes a third of the time for it."""
    if said.puts or said.patches or said.removes or said.update:
        return _words(room, member, said)
    return said.size, said.seq, close_publication(room, member, said.seq, msgpack.encode(said))


def _changes(room: str, records: Sequence[tuple[str, Properties]]) -> list[tuple[str, list[tuple[str, str]]]]:
    return [(name, [(key, close_value(room, name, key, value)) for key, value in some]) for name, some in records]


def _pack_publish(op: Publish) -> bytes:
    said: list[Word] = []
    for offer in op.offers:
        said += [offer.fault, *_said(op.room, op.member, offer.publication)]
    return pack_room(op, "publish", op.node, op.member, op.epoch, msgpack.encode(op.bounds), op.now_ms, *said)


def _pack_post(op: Post) -> bytes:
    words = (
        op.member,
        op.key,
        op.new_epoch,
        msgpack.encode(op.bounds),
        op.now_ms,
        *_words(op.room, op.member, op.publication),
    )
    return pack_room(op, "post", op.node, *words, op.content, int(op.makes))


def _pack_snapshot(op: SnapshotRoom) -> bytes:
    bounds = msgpack.encode(op.bounds)
    return pack_room(
        op, "snapshot_room", op.node, op.member, op.epoch, op.position, close_snapshot(op.room, op.body), bounds
    )


codec(JoinRoom, _pack_join, read_room)
codec(
    LeaveRoom,
    lambda op: pack_room(op, "leave_room", op.node, op.member, op.epoch, op.keep_ms, op.now_ms),
    read_room,
)
codec(DropMembers, lambda op: pack_room(op, "drop_members", op.node, op.session, op.keep_ms, op.now_ms), read_room)
codec(Publish, _pack_publish, read_room)
codec(Post, _pack_post, read_room)
codec(
    SetPresence,
    lambda op: pack_room(
        op, "set_presence", op.node, op.member, op.epoch, close_presence(op.room, op.member, op.presence), op.after
    ),
    read_room,
)
codec(SnapshotRoom, _pack_snapshot, read_room)
codec(
    LookRoom,
    lambda op: pack_room(op, "look_room", "", op.after, op.turn, min(op.limit, LOOKED_MAX), op.now_ms),
    read_room,
)
codec(ReadRoom, lambda op: pack_room(op, "read_room", "", op.limit, op.now_ms), read_room)
codec(
    ReadRoomHistory,
    lambda op: pack_room(op, "read_room_history", "", op.before, min(op.limit, LOOKED_MAX), op.now_ms),
    read_room,
)
codec(
    ReadRoomState,
    lambda op: pack_room(op, "read_room_state", "", op.after, min(op.limit, CHANGED_MAX), op.now_ms),
    read_room,
)
codec(
    ReadRoomUpdates,
    lambda op: pack_room(op, "read_room_updates", "", op.after, min(op.limit, LOOKED_MAX), op.now_ms),
    read_room,
)
codec(SweepRoom, lambda op: pack_room(op, "sweep_room", "", op.now_ms), read_room)
