"""How SQLite keeps queues of events: the tables, and the part of `SqliteRows` for them (sqlite_rows.py)."""

from msgspec import msgpack

from signald.core.life import EVENTS_LEFT_MS, Event
from signald.store.damage import REPORTS, Unreadable
from signald.store.session.events.records import Queue
from signald.store.sqlite_values import Rows

TABLES = """
CREATE TABLE IF NOT EXISTS queue (name TEXT PRIMARY KEY, until_ms INTEGER NOT NULL, record BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS queue_by_end ON queue (until_ms, name) WHERE until_ms > 0;
CREATE TABLE IF NOT EXISTS event (name TEXT, n INTEGER, event BLOB NOT NULL, PRIMARY KEY (name, n)) WITHOUT ROWID
"""
"""They are made like those of `LATER_TABLES`."""

TRIGGER = f"""CREATE TRIGGER IF NOT EXISTS events_are_left AFTER DELETE ON session
    BEGIN UPDATE queue SET until_ms = 1000 * CAST(strftime('%s', 'now') AS INTEGER) + {EVENTS_LEFT_MS}
    WHERE name = OLD.session AND until_ms = 0; END"""  # noqa: S608
"""The file's own, so an earlier release that ends a session lets its queue go without knowing it. This one says itself until when."""

_queue = msgpack.Decoder(Queue).decode
_event = msgpack.Decoder(Event).decode


class SqliteEvents(Rows):
    """See the module. What is damaged is reported, and counts as absent."""

    def queue(self, name: str) -> Queue | None:
        packed = self._one("SELECT record FROM queue WHERE name = ?", name)
        try:
            return None if packed is None else self._unpack(_queue, packed, "event queue", name, b"queue", name)
        except Unreadable as error:
            REPORTS.tell(error.what, error.of)
            return None

    def save_queue(self, queue: Queue) -> None:
        self._sql.execute(
            "REPLACE INTO queue VALUES (?, ?, ?)", (queue.name, queue.until_ms, self._pack(queue, b"queue", queue.name))
        )

    def drop_queue(self, name: str) -> None:
        for table in ("queue", "event"):
            self._sql.execute(f"DELETE FROM {table} WHERE name = ?", (name,))  # noqa: S608

    def queues_over(self, now_ms: int, limit: int) -> list[str]:
        # A session that was given back after it was removed as damaged lives: the trigger took its queue for left.
        sql = (
            "SELECT name FROM queue WHERE until_ms > 0 AND until_ms <= ? "
            "AND NOT EXISTS (SELECT 1 FROM session WHERE session.session = queue.name) ORDER BY until_ms, name LIMIT ?"
        )
        return [name for (name,) in self._sql.execute(sql, (now_ms, limit))]

    def put_event(self, name: str, event: Event) -> None:
        self._sql.execute(
            "REPLACE INTO event VALUES (?, ?, ?)", (name, event.n, self._pack(event, b"event", name, event.n))
        )

    def events(self, name: str, limit: int) -> tuple[list[Event], int]:
        found, upto = [], 0
        for n, packed in self._sql.execute(
            "SELECT n, event FROM event WHERE name = ? ORDER BY n LIMIT ?", (name, limit)
        ):
            try:
                event = self._unpack(_event, packed, "event", name, b"event", name, n)
            except Unreadable as error:
                REPORTS.tell(error.what, error.of)
            else:
                found.append(event)
            upto = n
        return found, upto

    def drop_events(self, name: str, upto: int) -> int:
        self._sql.execute("DELETE FROM event WHERE name = ? AND n <= ?", (name, upto))
        return int(self._one("SELECT count(*) FROM event WHERE name = ?", name))
