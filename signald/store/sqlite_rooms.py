"""How SQLite keeps rooms: the tables, and the part of `SqliteRows` for them (sqlite_rows.py)."""

from collections.abc import Callable, Iterable
from typing import TypeVar

from msgspec import msgpack

from signald.core.rooms import Entry, Record, record_size
from signald.store.damage import REPORTS, Unreadable
from signald.store.room.records import Head, Kept, Presence, Seat
from signald.store.seals import room_owner
from signald.store.sqlite_values import Rows, pack, unpack

TABLES = """
CREATE TABLE IF NOT EXISTS room (room TEXT PRIMARY KEY, members INTEGER NOT NULL, until_ms INTEGER NOT NULL, head BLOB NOT NULL,
    kept BLOB, snapshot BLOB) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS room_by_end ON room (until_ms, room) WHERE members = 0;
CREATE TABLE IF NOT EXISTS room_member (room TEXT, member TEXT, turn INTEGER NOT NULL, node TEXT NOT NULL, seat BLOB, presence BLOB,
    PRIMARY KEY (room, member)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS room_member_by_turn ON room_member (room, turn);
CREATE TABLE IF NOT EXISTS room_entry (room TEXT, position INTEGER, bytes INTEGER NOT NULL, is_update INTEGER NOT NULL,
    record BLOB NOT NULL, PRIMARY KEY (room, position)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS room_update ON room_entry (room, position) WHERE is_update;
CREATE TABLE IF NOT EXISTS room_record (room TEXT, id TEXT, position INTEGER NOT NULL, bytes INTEGER, record BLOB NOT NULL,
    PRIMARY KEY (room, id)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS room_record_by_position ON room_record (room, position, id);
CREATE INDEX IF NOT EXISTS room_removal ON room_record (room, position, id) WHERE bytes IS NULL
"""
"""Made like those of `LATER_TABLES`. What a room is searched by and counts stands beside the records, so that a damaged one is counted and
goes at its time. The `bytes` of a removal are NULL."""

_T = TypeVar("_T")

_head = msgpack.Decoder(Head).decode
_kept = msgpack.Decoder(Kept).decode
_seat = msgpack.Decoder(Seat).decode
_presence = msgpack.Decoder(Presence).decode
_entry = msgpack.Decoder(Entry).decode
_record = msgpack.Decoder(Record).decode


class SqliteRooms(Rows):
    """See the module. What is damaged is reported, and counts as absent."""

    def _readable(self, decode: Callable[[bytes], _T], packed: object, what: str, of: str) -> _T | None:
        try:
            return None if packed is None else unpack(decode, packed, what, of)
        except Unreadable as error:
            REPORTS.tell(error.what, error.of)
            return None

    def _opened(
        self, decode: Callable[[bytes], _T], packed: object, what: str, place: tuple[bytes, str, int, str], of: str
    ) -> _T | None:
        try:
            return None if packed is None else self._unpack(decode, packed, what, of, *place)
        except Unreadable as error:
            REPORTS.tell(error.what, error.of)
            return None

    def room(self, room: str) -> Head | None:
        return self._readable(_head, self._one("SELECT head FROM room WHERE room = ?", room), "room", room)

    def save_room(self, head: Head) -> None:
        sql = (
            "INSERT INTO room VALUES (?, ?, ?, ?, NULL, NULL) ON CONFLICT (room) "
            "DO UPDATE SET members = excluded.members, until_ms = excluded.until_ms, head = excluded.head"
        )
        self._sql.execute(sql, (head.room, head.members, head.until_ms, pack(head)))

    def drop_room(self, room: str) -> None:
        for table in ("room", "room_member", "room_entry", "room_record"):
            self._sql.execute(f"DELETE FROM {table} WHERE room = ?", (room,))  # noqa: S608

    def rooms_over(self, until_ms: int, limit: int) -> list[str]:
        sql = "SELECT room FROM room WHERE members = 0 AND until_ms <= ? ORDER BY until_ms, room LIMIT ?"
        return [room for (room,) in self._sql.execute(sql, (until_ms, limit))]

    def room_kept(self, room: str) -> Kept | None:
        packed = self._one("SELECT kept FROM room WHERE room = ?", room)
        return Kept() if packed is None else self._readable(_kept, packed, "departures", room)

    def save_room_kept(self, room: str, kept: Kept) -> None:
        sql = "INSERT INTO room VALUES (?, 1, 0, x'', ?, NULL) ON CONFLICT (room) DO UPDATE SET kept = excluded.kept"
        self._sql.execute(sql, (room, pack(kept)))  # its head is saved last

    def seat(self, room: str, member: str) -> Seat | None:
        packed = self._one("SELECT seat FROM room_member WHERE room = ? AND member = ?", room, member)
        return self._readable(_seat, packed, "member", member)

    def save_seat(self, room: str, member: str, seat: Seat) -> None:
        sql = (
            "INSERT INTO room_member VALUES (?, ?, 0, ?, ?, NULL) ON CONFLICT (room, member) "
            "DO UPDATE SET node = excluded.node, seat = excluded.seat"
        )
        self._sql.execute(sql, (room, member, seat.node, pack(seat)))

    def members_by_node(self, room: str) -> dict[str, int]:
        sql = "SELECT node, count(*) FROM room_member WHERE room = ? GROUP BY node"
        return dict(self._sql.execute(sql, (room,)).fetchall())

    def member_turn(self, room: str, member: str) -> int:
        return self._one("SELECT turn FROM room_member WHERE room = ? AND member = ?", room, member) or 0

    def presence(self, room: str, member: str) -> Presence | None:
        packed = self._one("SELECT presence FROM room_member WHERE room = ? AND member = ?", room, member)
        return self._opened(_presence, packed, "presence", (b"presence", room_owner(room), 0, member), member)

    def save_presence(self, room: str, member: str, turn: int, presence: Presence) -> None:
        sql = "UPDATE room_member SET turn = ?, presence = ? WHERE room = ? AND member = ?"
        packed = self._pack(presence, b"presence", room_owner(room), 0, member)
        self._sql.execute(sql, (turn, packed, room, member))

    def members_after(self, room: str, turn: int, limit: int) -> list[str]:
        sql = "SELECT member FROM room_member WHERE room = ? AND turn > ? ORDER BY turn LIMIT ?"
        return [member for (member,) in self._sql.execute(sql, (room, turn, limit))]

    def drop_member(self, room: str, member: str) -> None:
        self._sql.execute("DELETE FROM room_member WHERE room = ? AND member = ?", (room, member))

    def put_room_entry(self, room: str, entry: Entry) -> None:
        said = entry.publication
        packed = self._pack(entry, b"publication", room_owner(room), entry.position)
        row = (room, entry.position, said.size, said.update, packed)
        self._sql.execute("REPLACE INTO room_entry VALUES (?, ?, ?, ?, ?)", row)

    def room_entries(self, room: str, after: int, upto: int) -> list[Entry]:
        sql = "SELECT position, record FROM room_entry WHERE room = ? AND position > ? AND position <= ? ORDER BY position"
        return self._entries_of(room, self._sql.execute(sql, (room, after, upto)))

    def _entries_of(self, room: str, rows: Iterable[tuple[int, object]]) -> list[Entry]:
        kind, owner = b"publication", room_owner(room)
        found = [self._opened(_entry, packed, "publication", (kind, owner, at, ""), room) for at, packed in rows]
        return [entry for entry in found if entry is not None]

    def room_entry_size(self, room: str, position: int) -> int:
        return self._one("SELECT bytes FROM room_entry WHERE room = ? AND position = ?", room, position) or 0

    def trim_room_entry(self, room: str, position: int, snapshot: int) -> None:
        sql = "DELETE FROM room_entry WHERE room = ? AND position = ? AND NOT (is_update AND position > ?)"
        self._sql.execute(sql, (room, position, snapshot))

    def room_updates(self, room: str, after: int, limit: int) -> tuple[list[Entry], int]:
        sql = "SELECT position, record FROM room_entry WHERE room = ? AND is_update AND position > ? ORDER BY position LIMIT ?"
        rows = self._sql.execute(sql, (room, after, limit)).fetchall()
        return self._entries_of(room, rows), rows[-1][0] if len(rows) == limit else 0

    def room_updates_upto(self, room: str, after: int, upto: int) -> tuple[int, int]:
        sql = (
            "SELECT count(*), coalesce(sum(bytes), 0) FROM room_entry "
            "WHERE room = ? AND is_update AND position > ? AND position <= ?"
        )
        number, size = self._sql.execute(sql, (room, after, upto)).fetchone()
        return number, size

    def snapshot(self, room: str) -> bytes:
        kept = self._one("SELECT snapshot FROM room WHERE room = ?", room)
        body = self._seals.unwrap(kept, b"snapshot", room_owner(room))
        if kept is not None and body is None:
            REPORTS.tell("snapshot", room)
        return body or b""

    def save_snapshot(self, room: str, body: bytes, upto: int, floor: int) -> None:
        self._sql.execute(
            "UPDATE room SET snapshot = ? WHERE room = ?", (self._seals.wrap(body, b"snapshot", room_owner(room)), room)
        )
        self._sql.execute(
            "DELETE FROM room_entry WHERE room = ? AND is_update AND position <= ?", (room, min(upto, floor))
        )

    def room_record(self, room: str, name: str) -> Record | None:
        packed = self._one("SELECT record FROM room_record WHERE room = ? AND id = ?", room, name)
        return self._opened(_record, packed, "room record", (b"record", room_owner(room), 0, name), room)

    def has_room_record(self, room: str, name: str) -> bool:
        return self._one("SELECT 1 FROM room_record WHERE room = ? AND id = ?", room, name) is not None

    def save_room_record(self, room: str, name: str, record: Record) -> None:
        size = None if record.properties is None else record_size(name, record.properties)
        row = (room, name, record.position, size, self._pack(record, b"record", room_owner(room), 0, name))
        self._sql.execute("REPLACE INTO room_record VALUES (?, ?, ?, ?, ?)", row)

    def drop_room_record(self, room: str, name: str) -> None:
        self._sql.execute("DELETE FROM room_record WHERE room = ? AND id = ?", (room, name))

    def first_tombstone(self, room: str) -> tuple[str, int]:
        sql = "SELECT id, position FROM room_record WHERE room = ? AND bytes IS NULL ORDER BY position, id LIMIT 1"
        name, position = self._sql.execute(sql, (room,)).fetchone()
        return name, position

    def count_room_records(self, room: str) -> tuple[int, int, int]:
        sql = "SELECT count(bytes), coalesce(sum(bytes), 0), count(*) - count(bytes) FROM room_record WHERE room = ?"
        records, size, tombstones = self._sql.execute(sql, (room,)).fetchone()
        return records, size, tombstones

    def room_changes(self, room: str, after: int, limit: int) -> tuple[list[tuple[str, Record]], int]:
        sql = (
            "SELECT position, id, record FROM room_record WHERE room = ? AND position > ? ORDER BY position, id LIMIT ?"
        )
        rows = self._sql.execute(sql, (room, after, limit)).fetchall()
        last = rows[-1][0] if len(rows) == limit else 0
        if last:
            rest = "SELECT position, id, record FROM room_record WHERE room = ? AND position = ? AND id > ? ORDER BY id"
            rows += self._sql.execute(rest, (room, last, rows[-1][1])).fetchall()
        owner = room_owner(room)
        found = [
            (name, self._opened(_record, packed, "room record", (b"record", owner, 0, name), room))
            for _, name, packed in rows
        ]
        return [(name, record) for name, record in found if record is not None], last
