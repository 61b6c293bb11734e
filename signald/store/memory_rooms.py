"""How the store in memory keeps rooms: the part of `MemoryRows` for them (memory.py)."""

from heapq import nsmallest
from itertools import count

from msgspec.structs import replace

from signald.core.rooms import Entry, Record, record_size
from signald.store.room.records import Head, Kept, Presence, Seat


class _Room:
    """One room."""

    def __init__(self, head: Head) -> None:
        self.head = head
        self.kept = Kept()
        self.snapshot = b""
        self.seats: dict[str, Seat] = {}
        self.presences: dict[str, tuple[int, Presence]] = {}
        self.entries: dict[int, Entry] = {}
        self.records: dict[str, Record] = {}


class MemoryRooms:
    """See the module. A list that is in order is made anew each time."""

    def __init__(self) -> None:
        super().__init__()
        self._rooms: dict[str, _Room] = {}

    def room(self, room: str) -> Head | None:
        found = self._rooms.get(room)
        return None if found is None else replace(found.head, nodes=dict(found.head.nodes))

    def save_room(self, head: Head) -> None:
        self._of(head.room).head = replace(head, nodes=dict(head.nodes))

    def drop_room(self, room: str) -> None:
        self._rooms.pop(room, None)

    def rooms_over(self, until_ms: int, limit: int) -> list[str]:
        over = ((one.head.until_ms, room) for room, one in self._rooms.items() if one.head.is_over(until_ms))
        return [room for _, room in nsmallest(limit, over)]

    def _at(self, room: str) -> _Room:
        """Return a room to be read, an empty one when there is none."""
        return self._rooms.get(room) or _Room(Head(room, ""))

    def _of(self, room: str) -> _Room:
        """Return a room, or begin one: its head is saved last."""
        return self._rooms.setdefault(room, _Room(Head(room, "")))

    def room_kept(self, room: str) -> Kept | None:
        return self._at(room).kept

    def save_room_kept(self, room: str, kept: Kept) -> None:
        self._of(room).kept = kept

    def seat(self, room: str, member: str) -> Seat | None:
        return self._at(room).seats.get(member)

    def save_seat(self, room: str, member: str, seat: Seat) -> None:
        self._of(room).seats[member] = seat

    def members_by_node(self, room: str) -> dict[str, int]:
        nodes: dict[str, int] = {}
        for seat in self._at(room).seats.values():
            nodes[seat.node] = nodes.get(seat.node, 0) + 1
        return nodes

    def member_turn(self, room: str, member: str) -> int:
        found = self._at(room).presences.get(member)
        return 0 if found is None else found[0]

    def presence(self, room: str, member: str) -> Presence | None:
        found = self._at(room).presences.get(member)
        return None if found is None else found[1]

    def save_presence(self, room: str, member: str, turn: int, presence: Presence) -> None:
        presences = self._of(room).presences
        presences.pop(member, None)  # in order of turn
        presences[member] = (turn, presence)

    def members_after(self, room: str, turn: int, limit: int) -> list[str]:
        return [member for member, (last, _) in self._at(room).presences.items() if last > turn][:limit]

    def drop_member(self, room: str, member: str) -> None:
        self._of(room).seats.pop(member, None)
        self._of(room).presences.pop(member, None)

    def put_room_entry(self, room: str, entry: Entry) -> None:
        self._of(room).entries[entry.position] = entry

    def room_entries(self, room: str, after: int, upto: int) -> list[Entry]:
        entries = self._at(room).entries
        return [entries[position] for position in range(after + 1, upto + 1) if position in entries]

    def room_entry_size(self, room: str, position: int) -> int:
        return self._at(room).entries[position].publication.size

    def trim_room_entry(self, room: str, position: int, snapshot: int) -> None:
        entries = self._of(room).entries
        if not entries[position].publication.update or position <= snapshot:
            del entries[position]

    def room_updates(self, room: str, after: int, limit: int) -> tuple[list[Entry], int]:
        found = self._updates(room, after, self._at(room).head.position)[:limit]
        return found, found[-1].position if len(found) == limit else 0

    def room_updates_upto(self, room: str, after: int, upto: int) -> tuple[int, int]:
        found = self._updates(room, after, upto)
        return len(found), sum([entry.publication.size for entry in found])

    def _updates(self, room: str, after: int, upto: int) -> list[Entry]:
        entries = self._at(room).entries.values()  # by position
        return [entry for entry in entries if entry.publication.update and after < entry.position <= upto]

    def snapshot(self, room: str) -> bytes:
        return self._at(room).snapshot

    def save_snapshot(self, room: str, body: bytes, upto: int, floor: int) -> None:
        found = self._of(room)
        found.snapshot = body
        for entry in self._updates(room, 0, min(upto, floor)):
            del found.entries[entry.position]

    def room_record(self, room: str, name: str) -> Record | None:
        return self._at(room).records.get(name)

    def has_room_record(self, room: str, name: str) -> bool:
        return name in self._at(room).records

    def save_room_record(self, room: str, name: str, record: Record) -> None:
        self._of(room).records[name] = record

    def drop_room_record(self, room: str, name: str) -> None:
        del self._of(room).records[name]

    def first_tombstone(self, room: str) -> tuple[str, int]:
        removed = ((one.position, name) for name, one in self._at(room).records.items() if one.properties is None)
        position, name = min(removed)
        return name, position

    def count_room_records(self, room: str) -> tuple[int, int, int]:
        records = self._at(room).records
        sizes = [record_size(name, one.properties) for name, one in records.items() if one.properties is not None]
        return len(sizes), sum(sizes), len(records) - len(sizes)

    def room_changes(self, room: str, after: int, limit: int) -> tuple[list[tuple[str, Record]], int]:
        changed = [(one.position, name, one) for name, one in self._at(room).records.items() if one.position > after]
        changed.sort(key=lambda each: each[:2])
        if len(changed) < limit:
            return [(name, one) for _, name, one in changed], 0
        last = changed[limit - 1][0]
        end = next((place for place in count(limit) if place == len(changed) or changed[place][0] > last), limit)
        return [(name, one) for _, name, one in changed[:end]], last
