"""What Redis answers to the operations on a room, read as their results."""

from collections.abc import Iterator
from typing import Any

from msgspec import MsgspecError, msgpack

from signald.core.rooms import Entry, Member, Publication, Record
from signald.store.base import Op, Result, RoomOp
from signald.store.damage import REPORTS
from signald.store.redis_connection import Reply
from signald.store.redis_replies import DONE, read_name, read_names, read_refusal
from signald.store.room.ops import (
    Joined,
    NoRoom,
    NotMember,
    Posted,
    PresenceOld,
    PresenceSet,
    Published,
    RoomHistory,
    RoomLooked,
    RoomOver,
    RoomRead,
    RoomState,
    RoomSwept,
    RoomUpdates,
)
from signald.store.room.seals import open_presence, open_publication, open_snapshot, open_value

_PLAIN: dict[bytes, Result] = {b"done": DONE, b"over": RoomOver(), b"no_room": NoRoom(), b"not_member": NotMember()}

_KINDS = {
    "h": "room",
    "d": "departures",
    "s": "snapshot",
    "q": "member",
    "m": "presence",
    "l": "publication",
    "r": "room record",
}
"""What is kept in a field, by its first letter."""

_publication = msgpack.Decoder(Publication).decode
_record = msgpack.Decoder(list[int | str]).decode


def _tell(field: str, room: str) -> None:
    kind = _KINDS.get(field[:1], "room")
    REPORTS.tell(kind, field[1:] if kind in ("member", "presence") else room)


def _fields(reply: list[Any], width: int) -> Iterator[list[Any]]:
    return (reply[place : place + width] for place in range(0, len(reply), width))


def _refused(reply: list[Any]) -> tuple[tuple[int, Any], ...]:
    return tuple([(seq, fault.decode()) for seq, fault in _fields(reply, 2)])


def _entries(reply: list[Any], room: str) -> tuple[Entry, ...]:
    entries = []
    for position, member, at_ms, packed in _fields(reply, 4):
        opened, seq = open_publication(room, member, packed)
        try:
            said = _publication(opened or b"")
        except MsgspecError:
            _tell("l", room)
            continue
        if seq in (0, said.seq):
            entries.append(Entry(position, read_name(member), at_ms, said))
        else:
            _tell("l", room)
    return tuple(entries)


def _members(reply: list[Any], room: str) -> tuple[Member, ...]:
    members = []
    for name, kept, is_new in _fields(reply, 3):
        presence = open_presence(room, name, kept)
        if presence is None:
            _tell("m" + read_name(name), room)
        members.append(Member(read_name(name), presence or b"", bool(is_new)))
    return tuple(members)


def _snapshot(kept: bytes, room: str) -> bytes:
    body = open_snapshot(room, kept)
    if body is None:
        _tell("s", room)
    return body or b""


def _records(reply: list[Any], room: str) -> tuple[tuple[str, Record], ...]:
    records = []
    for name, packed in _fields(reply, 2):
        try:
            position, is_live, _, *words = _record(packed)
            pairs, record = zip(words[::2], words[1::2], strict=True), read_name(name)
            some = [(str(key), open_value(room, record, str(key), str(value))) for key, value in pairs]
        except (MsgspecError, ValueError):
            _tell("r", room)
            continue
        properties = tuple(some) if is_live else None
        records.append((read_name(name), Record(int(position), properties)))
    return tuple(records)


def _answer(reply: Any, room: str) -> Result:
    match reply:
        case [kind] if kind in _PLAIN:
            return _PLAIN[kind]
        case [b"joined", epoch, position, floor, horizon, snapshot, turn, members, next_seq, recovered, wipe, refused]:
            places = position, floor, horizon, snapshot
            return Joined(
                epoch.decode(), *places, turn, members, next_seq, bool(recovered), bool(wipe), _refused(refused)
            )  # fmt: skip
        case [b"published", seq, position, refused, expected]:
            return Published(seq, position, _refused(refused), expected)
        case [b"posted", position, replayed]:
            return Posted(position, replayed == 1)
        case [b"presence", turn]:
            return PresenceSet(turn)
        case [b"presence_old", turn]:
            return PresenceOld(turn)
        case [b"swept", next_ms, members]:
            return RoomSwept(next_ms, members)
        case _:
            return _read(reply, room)


def _read(reply: Any, room: str) -> Result:
    match reply:
        case [b"looked", epoch, position, floor, entries, upto, turn, whole, members, departed, count]:
            return RoomLooked(
                epoch.decode(), position, floor, _entries(entries, room), upto, turn, bool(whole), _members(members, room),
                read_names(departed), count,
            )  # fmt: skip
        case [b"read", epoch, position, floor, horizon, snapshot, records, size, count, members, nodes]:
            places = position, floor, horizon, snapshot
            return RoomRead(epoch.decode(), *places, records, size, count, _members(members, room), read_names(nodes))
        case [b"history", entries, before]:
            return RoomHistory(_entries(entries, room), before)
        case [b"state", epoch, position, upto, horizon, records]:
            return RoomState(epoch.decode(), position, upto, horizon, _records(records, room))
        case [b"updates", epoch, position, snapshot, body, updates, upto]:
            return RoomUpdates(epoch.decode(), position, snapshot, _snapshot(body, room), _entries(updates, room), upto)
        case _:
            return read_refusal(reply)


def read_room(op: Op, reply: Reply) -> Result:
    """What the scripts of a room answer: a list that begins with its kind, and the fields that cannot be read."""
    assert isinstance(op, RoomOp)
    answer, damaged = reply
    for field in damaged:
        _tell(read_name(field), op.room)
    return _answer(answer, op.room)
