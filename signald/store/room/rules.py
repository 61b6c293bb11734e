"""What the operations on a room do (see store/rule.py). The Lua twins are beside it; what only reads is in reading.py."""

from typing import TypeVar

from signald.core.rooms import (
    DEPARTED_MAX,
    KEYS_MAX,
    UPDATES_MAX,
    Bounds,
    Entry,
    Fault,
    Publication,
    Record,
    fold,
    record_size,
    welcome,
)
from signald.store.base import Behind, Done, Fenced, Refused
from signald.store.room import ops
from signald.store.room.records import Head, Kept, Presence, Seat
from signald.store.rows import Rows, Wakes
from signald.store.rule import rule

Seated = TypeVar("Seated", ops.Publish, ops.SetPresence, ops.SnapshotRoom)


def standing(room: str, rows: Rows, now_ms: int) -> Head | None:
    """Return the head of a room that is there and not over."""
    head = rows.room(room)
    return None if head is None or head.is_over(now_ms) else head


def _make(op: ops.JoinRoom | ops.Post, rows: Rows) -> Head:
    """Make a room, without what is left of an earlier one of its name."""
    rows.drop_room(op.room)
    return Head(op.room, op.new_epoch)


# --- members ------------------------------------------------------------------------------------------------------


@rule(ops.JoinRoom)
def join_room(op: ops.JoinRoom, rows: Rows, wakes: Wakes) -> ops.Joined | Fenced | Refused:
    head = standing(op.room, rows, op.now_ms)
    seat = None if head is None else rows.seat(op.room, op.member)
    is_here = head is not None and rows.member_turn(op.room, op.member) > 0
    if head is not None and seat is not None:
        if seat.nonce == op.nonce:
            return _joined(op, head, seat)
        if seat.epoch > op.epoch or (seat.epoch == op.epoch and seat.node != op.node):
            return Fenced(seat.epoch)
    if not is_here and (head.members if head is not None else 0) >= op.bounds.members_max:
        return Refused("room_full")
    if head is None:
        head = _make(op, rows)
    if not is_here:
        head.members += 1
        head.empty_ms = head.until_ms = 0
    if seat is None or seat.node != op.node:
        if seat is not None:
            head.drop_member(seat.node)
        head.add_member(op.node)
    place = (seat or Seat("", 0, "")).move(op.node, op.epoch, op.nonce)
    rows.save_seat(op.room, op.member, place)
    if seat is None and is_here:
        head.nodes = rows.members_by_node(op.room)  # its seat was damaged, and nothing tells at which node it was
    if not is_here:
        head.turn += 1
        rows.save_presence(op.room, op.member, head.turn, Presence(head.turn, op.presence or b""))
        _wake(head, op.node, wakes)
    elif op.presence is not None:
        _set_presence(rows, head, op.member, op.presence, op.node, wakes)
    rows.save_room(head)
    return _joined(op, head, place)


def _joined(op: ops.JoinRoom, head: Head, seat: Seat) -> ops.Joined:
    same = head.epoch == op.known_epoch
    found = welcome(op.received, same=same, position=head.position, floor=head.floor, horizon=head.horizon)
    return ops.Joined(
        head.epoch, head.position, head.floor, head.horizon, head.snapshot, head.turn, head.members, seat.seq + 1,
        found.recovered, found.wipe, seat.refused,
    )  # fmt: skip


def _wake(head: Head, by: str, wakes: Wakes) -> None:
    for node in sorted(head.nodes):
        wakes.room(head.room, by, node)


@rule(ops.LeaveRoom)
def leave_room(op: ops.LeaveRoom, rows: Rows, wakes: Wakes) -> Done | Fenced:
    head = rows.room(op.room)
    seat = rows.seat(op.room, op.member)
    if seat is not None and (seat.epoch > op.epoch or (seat.epoch == op.epoch and seat.node != op.node)):
        return Fenced(seat.epoch)
    if head is not None:
        _drop(rows, head, (op.member,), op, wakes)
    return Done()


@rule(ops.DropMembers)
def drop_members(op: ops.DropMembers, rows: Rows, wakes: Wakes) -> Done:
    head = rows.room(op.room)
    if head is not None:
        _drop(rows, head, (op.session, f"{op.session}/worker"), op, wakes)
    return Done()


def _drop(rows: Rows, head: Head, members: tuple[str, ...], op: ops.LeaveRoom | ops.DropMembers, wakes: Wakes) -> None:
    gone = [member for member in members if rows.member_turn(head.room, member) > 0]
    if not gone:
        return
    kept = rows.room_kept(head.room)
    if kept is None:
        kept, head.turn_floor = Kept(), head.turn
    departed = list(kept.departed)
    is_unknown = False
    for member in gone:
        seat = rows.seat(head.room, member)
        if seat is None:
            is_unknown = True
        else:
            head.drop_member(seat.node)
        rows.drop_member(head.room, member)
        head.turn += 1
        head.members -= 1
        departed.append((head.turn, member))
    for turn, _ in departed[:-DEPARTED_MAX]:
        head.turn_floor = turn
    if is_unknown:
        head.nodes = rows.members_by_node(head.room)
    if head.members <= 0:
        head.members = 0
        head.stay(op.keep_ms, op.now_ms)
    rows.save_room_kept(head.room, Kept(tuple(departed[-DEPARTED_MAX:]), kept.keys))
    rows.save_room(head)
    _wake(head, op.node, wakes)


def _seated(op: Seated, rows: Rows) -> tuple[Head, Seat] | Fenced | Behind | ops.NotMember:
    """Return the room and the seat of a member, if it is that of the caller's connection."""
    head, seat = rows.room(op.room), rows.seat(op.room, op.member)
    if head is None or seat is None:
        return ops.NotMember()
    if seat.epoch < op.epoch:
        return Behind(seat.epoch)
    if seat.epoch > op.epoch or seat.node != op.node:
        return Fenced(seat.epoch)
    return head, seat


@rule(ops.SetPresence)
def set_presence(
    op: ops.SetPresence, rows: Rows, wakes: Wakes
) -> ops.PresenceSet | ops.PresenceOld | Fenced | Behind | ops.NotMember:
    found = _seated(op, rows)
    if not isinstance(found, tuple):
        return found
    head, _ = found
    known, last = rows.presence(op.room, op.member), rows.member_turn(op.room, op.member)
    if op.after and last > op.after and known is not None and known.presence != op.presence:
        return ops.PresenceOld(last)
    turn = _set_presence(rows, head, op.member, op.presence, op.node, wakes)
    rows.save_room(head)
    return ops.PresenceSet(turn)


def _set_presence(rows: Rows, head: Head, member: str, presence: bytes, by: str, wakes: Wakes) -> int:
    """Keep what others see of a member; return the turn in which it was said."""
    known = rows.presence(head.room, member)
    if known is not None and known.presence == presence:
        return rows.member_turn(head.room, member)
    head.turn += 1
    # One that was damaged is told as new, so each node takes it whole.
    rows.save_presence(head.room, member, head.turn, Presence(head.turn if known is None else known.since, presence))
    _wake(head, by, wakes)
    return head.turn


# --- publications -------------------------------------------------------------------------------------------------


@rule(ops.Publish)
def publish(op: ops.Publish, rows: Rows, wakes: Wakes) -> ops.Published | Fenced | Behind | ops.NotMember:
    found = _seated(op, rows)
    if not isinstance(found, tuple):
        return found
    head, seat = found
    before, expected = seat, 0
    for offer in op.offers:
        seq = offer.publication.seq
        if seq <= seat.seq:
            continue
        if seq > seat.seq + 1:
            expected = seat.seq + 1
            break
        fault = offer.fault or _store(rows, head, op.member, offer.publication, op.bounds, op.now_ms)
        seat = seat.refuse(seq, fault) if fault else seat.take(seq, head.position)
    if seat is not before:
        rows.save_seat(op.room, op.member, seat)
        rows.save_room(head)
    if seat.position != before.position:
        _wake(head, op.node, wakes)
    seqs = {offer.publication.seq for offer in op.offers}
    return ops.Published(seat.seq, seat.position, tuple([one for one in seat.refused if one[0] in seqs]), expected)


@rule(ops.Post)
def post(op: ops.Post, rows: Rows, wakes: Wakes) -> ops.Posted | Refused:
    head = standing(op.room, rows, op.now_ms) or _make(op, rows)
    kept = rows.room_kept(op.room)
    if kept is None:
        kept, head.turn_floor = Kept(), head.turn
    known = dict(kept.keys).get(op.key, 0) if op.key else 0
    if not known:
        fault = _store(rows, head, op.member, op.publication, op.bounds, op.now_ms)
        if fault:
            return Refused(fault)
        if not head.members:
            head.stay(op.bounds.keep_ms, op.now_ms)
        if op.key:
            rows.save_room_kept(op.room, Kept(kept.departed, (*kept.keys, (op.key, head.position))[-KEYS_MAX:]))
        rows.save_room(head)
        _wake(head, op.node, wakes)
    return ops.Posted(known or head.position)


def _store(rows: Rows, head: Head, member: str, publication: Publication, bounds: Bounds, now_ms: int) -> Fault | None:
    """Take a publication, or say why not."""
    room = head.room

    def read(name: str) -> Record | None:
        return rows.room_record(room, name)

    before = {name: read(name) for name in publication.names}
    is_damaged = any(one is None and rows.has_room_record(room, name) for name, one in before.items())
    after = fold(publication, lambda name: None if (one := before[name]) is None else one.properties)
    records, size, tombstones = head.records, head.bytes, head.tombstones
    for name, properties in after.items():
        known = before[name]
        if properties is not None:
            if record_size(name, properties) > bounds.record_bytes_max:
                return "too_big"
            records, size = records + 1, size + record_size(name, properties)
        elif known is not None:
            tombstones += 1
        if known is not None and known.properties is not None:
            records, size = records - 1, size - record_size(name, known.properties)
        elif known is not None:
            tombstones -= 1
    grown = size - head.bytes + (publication.size if publication.update else 0)
    if records > max(bounds.records_max, head.records) or (
        grown > 0 and head.bytes_all + grown > bounds.room_bytes_max
    ):
        return "room_full"
    if publication.update and head.updates >= UPDATES_MAX:
        return "room_full"
    head.position += 1
    head.records, head.bytes, head.tombstones = records, size, tombstones
    for name, properties in after.items():
        if properties is not None or before[name] is not None or rows.has_room_record(room, name):
            rows.save_room_record(room, name, Record(head.position, properties))
    if is_damaged:
        head.records, head.bytes, head.tombstones = rows.count_room_records(room)
    if publication.update:
        head.updates, head.updates_bytes = head.updates + 1, head.updates_bytes + publication.size
    head.log_bytes += publication.size
    rows.put_room_entry(room, Entry(head.position, member, now_ms, publication))
    _trim(rows, head, bounds)
    return None


def _trim(rows: Rows, head: Head, bounds: Bounds) -> None:
    """Drop the oldest of the log, but never its last entry, and the oldest removals."""
    while head.floor < head.position - 1 and (
        head.position - head.floor > bounds.history_messages_max or head.log_bytes > bounds.history_bytes_max
    ):
        head.floor += 1
        head.log_bytes = max(0, head.log_bytes - rows.room_entry_size(head.room, head.floor))
        rows.trim_room_entry(head.room, head.floor, head.snapshot)
    while head.tombstones > bounds.tombstones_max:
        name, position = rows.first_tombstone(head.room)
        rows.drop_room_record(head.room, name)
        head.tombstones, head.horizon = head.tombstones - 1, max(head.horizon, position)


@rule(ops.SnapshotRoom)
def snapshot_room(op: ops.SnapshotRoom, rows: Rows, _wakes: Wakes) -> Done | Refused | Fenced | Behind | ops.NotMember:
    found = _seated(op, rows)
    if not isinstance(found, tuple):
        return found
    head, _ = found
    if op.position > head.position:
        return Refused("bad_position")
    if op.position <= head.snapshot:
        # Its answer was lost, or another member was earlier.
        return Done() if op.position == head.snapshot else Refused("stale")
    count, size = rows.room_updates_upto(op.room, head.snapshot, op.position)
    grown = len(op.body) - head.snapshot_bytes - size
    if grown > 0 and head.bytes_all + grown > op.bounds.room_bytes_max:
        return Refused("room_full")
    head.updates, head.updates_bytes = head.updates - count, head.updates_bytes - size
    rows.save_snapshot(op.room, op.body, op.position, head.floor)
    head.snapshot, head.snapshot_bytes = op.position, len(op.body)
    rows.save_room(head)
    return Done()


@rule(ops.SweepRoom)
def sweep_room(op: ops.SweepRoom, rows: Rows, _wakes: Wakes) -> ops.RoomSwept:
    head = rows.room(op.room)
    if head is None or head.is_over(op.now_ms):
        rows.drop_room(op.room)
        return ops.RoomSwept(0)
    if head.members:
        return ops.RoomSwept(0, head.members)
    if head.is_of_the_future(op.now_ms):
        head.stay(head.until_ms - head.empty_ms, op.now_ms)
        rows.save_room(head)
    return ops.RoomSwept(head.until_ms)


def drop_rooms(rows: Rows, now_ms: int, limit: int) -> None:
    """Remove rooms that are kept no longer, for a store in which nothing goes by itself."""
    for room in rows.rooms_over(now_ms, limit):
        rows.drop_room(room)
