"""How SQLite keeps the agenda and the event queues of the registry: the tables, and the part of `SqliteRows` for them (sqlite_rows.py)."""

from collections.abc import Iterable

from msgspec import msgpack

from signald.store.damage import REPORTS, Unreadable
from signald.store.registry.agenda.records import Item
from signald.store.registry.queues.records import EventQueue
from signald.store.sqlite_values import Rows, pack, unpack

TABLES = """
CREATE TABLE IF NOT EXISTS agenda (kind TEXT, name TEXT, taken INTEGER NOT NULL, at_ms INTEGER NOT NULL, nonce TEXT NOT NULL,
    since_ms INTEGER NOT NULL, record BLOB NOT NULL, PRIMARY KEY (kind, name)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS agenda_by_time ON agenda (kind, taken, at_ms, name);
CREATE INDEX IF NOT EXISTS agenda_of_nonce ON agenda (nonce);
CREATE INDEX IF NOT EXISTS agenda_failing ON agenda (kind, since_ms) WHERE since_ms > 0;
CREATE TABLE IF NOT EXISTS room_owner (room TEXT PRIMARY KEY, owner TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS room_of_owner ON room_owner (owner, room);
CREATE TABLE IF NOT EXISTS event_queue (name TEXT PRIMARY KEY, until_ms INTEGER NOT NULL, record BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS event_queue_by_end ON event_queue (until_ms, name)
"""
"""They are made like those of `LATER_TABLES`."""

_FOREVER_MS = 1 << 62

_item = msgpack.Decoder(Item).decode
_queue = msgpack.Decoder(EventQueue).decode


class SqliteAgenda(Rows):
    """See the module. A damaged item is due at once; a damaged queue counts as absent."""

    def item(self, kind: str, name: str) -> Item | None:
        return next(iter(self._items("kind = ? AND name = ?", kind, name)), None)

    def _items(self, where: str, *arguments: object) -> list[Item]:
        rows = self._sql.execute(f"SELECT kind, name, record FROM agenda WHERE {where}", arguments)  # noqa: S608
        return list(self._read(rows))

    def _read(self, rows: Iterable[tuple[str, str, object]]) -> Iterable[Item]:
        for kind, name, packed in rows:
            try:
                item = unpack(_item, packed, "agenda item", str(name))
            except Unreadable as error:
                REPORTS.tell(error.what, error.of)
                item = Item(kind, name, 0)
            yield item

    def save_item(self, item: Item) -> None:
        row = (item.kind, item.name, int(item.ticket > 0), item.at_ms, item.nonce, item.since_ms, pack(item))
        self._sql.execute("REPLACE INTO agenda VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    def drop_item(self, kind: str, name: str) -> None:
        self._sql.execute("DELETE FROM agenda WHERE kind = ? AND name = ?", (kind, name))

    def room_owner(self, room: str) -> str:
        return self._one("SELECT owner FROM room_owner WHERE room = ?", room) or ""

    def save_room_owner(self, room: str, owner: str) -> None:
        if owner:
            self._sql.execute("REPLACE INTO room_owner VALUES (?, ?)", (room, owner))
        else:
            self._sql.execute("DELETE FROM room_owner WHERE room = ?", (room,))

    def rooms_owned(self, owner: str) -> int:
        return int(self._one("SELECT count(*) FROM room_owner WHERE owner = ?", owner))

    def items(self, kind: str) -> int:
        return int(self._one("SELECT count(*) FROM agenda WHERE kind = ?", kind))

    def items_at(self, kind: str, first_ms: int | None, last_ms: int | None, limit: int, *, taken: bool) -> list[Item]:
        # A time that is damaged is no number, and compares as larger than all: it lies too far ahead.
        bounds: tuple[object, ...] = (-_FOREVER_MS if first_ms is None else first_ms,)
        where = "kind = ? AND taken = ? AND at_ms >= ?"
        if last_ms is not None:
            where, bounds = where + " AND at_ms <= ?", (*bounds, last_ms)
        return self._items(f"{where} ORDER BY at_ms, name LIMIT ?", kind, int(taken), *bounds, limit)

    def items_taken(self, kind: str, nonce: str) -> list[Item]:
        found = self._items(
            "nonce = ? AND +kind = ?", nonce, kind
        )  # the plus keeps the search from the index of all of a kind
        return sorted((item for item in found if item.ticket), key=lambda item: item.ticket)

    def items_after(self, kind: str, after: str, limit: int) -> list[Item]:
        return self._items("kind = ? AND name > ? ORDER BY name LIMIT ?", kind, after, limit)

    def agenda(self, kind: str, now_ms: int) -> tuple[int, int, int, int]:
        at, due = "kind = ? AND taken IN (0, 1) AND at_ms <= ?", (kind, now_ms)
        first_ms = self._one(f"SELECT min(at_ms) FROM agenda WHERE {at}", *due)  # noqa: S608
        since_ms = self._one("SELECT min(since_ms) FROM agenda WHERE kind = ? AND since_ms > 0", kind)
        past = int(self._one(f"SELECT count(*) FROM agenda WHERE {at}", *due))  # noqa: S608
        failing = int(self._one("SELECT count(*) FROM agenda WHERE kind = ? AND since_ms > 0", kind))
        times = [each for each in (first_ms, since_ms) if type(each) is int and each]
        return self.items(kind), past, failing, min(times, default=0)

    def event_queue(self, name: str) -> EventQueue | None:
        packed = self._one("SELECT record FROM event_queue WHERE name = ?", name)
        try:
            return None if packed is None else unpack(_queue, packed, "event queue", name)
        except Unreadable as error:
            REPORTS.tell(error.what, error.of)
            return None

    def save_event_queue(self, queue: EventQueue) -> None:
        self._sql.execute("REPLACE INTO event_queue VALUES (?, ?, ?)", (queue.name, queue.until_ms, pack(queue)))

    def drop_event_queue(self, name: str) -> None:
        self._sql.execute("DELETE FROM event_queue WHERE name = ?", (name,))

    def event_queues_over(self, until_ms: int, limit: int) -> list[str]:
        sql = "SELECT name FROM event_queue WHERE until_ms <= ? ORDER BY until_ms, name LIMIT ?"
        return [name for (name,) in self._sql.execute(sql, (until_ms, limit))]
