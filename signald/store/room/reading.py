"""What is only read of a room: part of the rules (rules.py)."""

from signald.core.rooms import Member
from signald.store.room import ops
from signald.store.room.records import Head
from signald.store.room.rules import standing
from signald.store.rows import Rows, Wakes
from signald.store.rule import rule


@rule(ops.LookRoom)
def look_room(op: ops.LookRoom, rows: Rows, _wakes: Wakes) -> ops.RoomLooked | ops.NoRoom:
    head = standing(op.room, rows, op.now_ms)
    if head is None:
        return ops.NoRoom()
    after = max(op.after, head.floor)
    upto = min(head.position, after + min(op.limit, ops.LOOKED_MAX))
    entries = rows.room_entries(op.room, after, upto)
    kept = rows.room_kept(op.room)
    whole = kept is None or op.turn == 0 or not head.turn_floor <= op.turn <= head.turn
    since = 0 if whole else op.turn
    departed = () if kept is None or whole else tuple([member for turn, member in kept.departed if turn > op.turn])
    # One that has left and come back is a member.
    gone = tuple([member for member in dict.fromkeys(departed) if not rows.member_turn(op.room, member)])
    return ops.RoomLooked(
        head.epoch, head.position, head.floor, tuple(entries), upto, head.turn, whole,
        _members(rows, head, since, head.members), gone, head.members,
    )  # fmt: skip


def _members(rows: Rows, head: Head, since: int, limit: int) -> tuple[Member, ...]:
    found = []
    for member in rows.members_after(head.room, since, limit):
        known = rows.presence(head.room, member)
        is_new = known is None or known.since > since
        found.append(Member(member, b"" if known is None else known.presence, is_new))
    return tuple(found)


@rule(ops.ReadRoom)
def read_room(op: ops.ReadRoom, rows: Rows, _wakes: Wakes) -> ops.RoomRead | ops.NoRoom:
    head = standing(op.room, rows, op.now_ms)
    if head is None:
        return ops.NoRoom()
    return ops.RoomRead(
        head.epoch, head.position, head.floor, head.horizon, head.snapshot, head.records, head.bytes_all, head.members,
        _members(rows, head, 0, min(op.limit, head.members)), tuple(sorted(head.nodes)),
    )  # fmt: skip


@rule(ops.ReadRoomHistory)
def read_room_history(op: ops.ReadRoomHistory, rows: Rows, _wakes: Wakes) -> ops.RoomHistory | ops.NoRoom:
    head = standing(op.room, rows, op.now_ms)
    if head is None:
        return ops.NoRoom()
    last = min(op.before - 1, head.position) if op.before else head.position
    first = max(head.floor, last - min(op.limit, ops.LOOKED_MAX))
    entries = rows.room_entries(op.room, first, last)
    return ops.RoomHistory(tuple(entries), first + 1 if first > head.floor else 0)


@rule(ops.ReadRoomState)
def read_room_state(op: ops.ReadRoomState, rows: Rows, _wakes: Wakes) -> ops.RoomState | ops.NoRoom:
    head = standing(op.room, rows, op.now_ms)
    if head is None:
        return ops.NoRoom()
    found, upto = rows.room_changes(op.room, op.after, min(op.limit, ops.CHANGED_MAX))
    upto = upto or head.position
    return ops.RoomState(head.epoch, head.position, upto, head.horizon, tuple(found))


@rule(ops.ReadRoomUpdates)
def read_room_updates(op: ops.ReadRoomUpdates, rows: Rows, _wakes: Wakes) -> ops.RoomUpdates | ops.NoRoom:
    head = standing(op.room, rows, op.now_ms)
    if head is None:
        return ops.NoRoom()
    body = rows.snapshot(op.room) if op.after < head.snapshot else b""
    updates, upto = rows.room_updates(op.room, max(op.after, head.snapshot), min(op.limit, ops.LOOKED_MAX))
    return ops.RoomUpdates(head.epoch, head.position, head.snapshot, body, tuple(updates), upto or head.position)
