"""The tables of SQLite, and `SqliteRows`, which gives the rules (rules.py) their records out of them.

What belongs to a session is sealed (seals.py); the records of the registry have a CRC-32 alone (damage.py). A damaged session or worker
raises `Unreadable` when it is read by itself; among several it is reported and left out. sqlite.py decides on transactions, and when to
`forget` cached records.
"""

import sqlite3
from collections.abc import Iterable
from contextlib import suppress

from msgspec import msgpack

from signald.core.head import Party
from signald.core.log import Entry
from signald.core.wants import ROOT, path
from signald.store.damage import REPORTS, SEAL_BYTES, Unreadable
from signald.store.registry.ops import NodeInfo
from signald.store.registry.records import Place, TrailCount, Worker
from signald.store.seals import SEALED_BYTES, Seals, is_sealed
from signald.store.session.records import Past, Record, Way
from signald.store.session.streams.records import Stream, decode_stream
from signald.store.sqlite_agenda import TABLES as AGENDA_TABLES
from signald.store.sqlite_agenda import SqliteAgenda
from signald.store.sqlite_events import TABLES as EVENT_TABLES
from signald.store.sqlite_events import TRIGGER as EVENT_TRIGGER
from signald.store.sqlite_events import SqliteEvents
from signald.store.sqlite_jobs import TABLES as JOB_TABLES
from signald.store.sqlite_jobs import SqliteJobs
from signald.store.sqlite_later import TABLE as LATER_TABLE
from signald.store.sqlite_later import TRIGGERS, Later, is_cut
from signald.store.sqlite_revoked import SqliteRevoked
from signald.store.sqlite_rooms import TABLES as ROOM_TABLES
from signald.store.sqlite_rooms import SqliteRooms
from signald.store.sqlite_shelves import TABLE as SHELF_TABLE
from signald.store.sqlite_shelves import SqliteShelves
from signald.store.sqlite_values import decoded, pack, unpack

SCHEMA = 2
RECORDS_MAX = 10_000
"""How many records are kept between batches; about 2 KiB each."""

TABLES = """
CREATE TABLE session (session TEXT PRIMARY KEY, record BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE entry (session TEXT, way TEXT, seq INTEGER, history INTEGER NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (session, way, seq)) WITHOUT ROWID;
CREATE TABLE history (session TEXT, number INTEGER, party TEXT NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (session, number)) WITHOUT ROWID;
CREATE TABLE node (id TEXT PRIMARY KEY, info BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE worker (id TEXT PRIMARY KEY, record BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE place (session TEXT PRIMARY KEY, worker TEXT NOT NULL, order_ms INTEGER NOT NULL, want BLOB NOT NULL)
    WITHOUT ROWID;
CREATE INDEX place_in_line ON place (worker, order_ms, session);
CREATE TABLE life (session TEXT PRIMARY KEY, until_ms INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX life_by_end ON life (until_ms, session);
CREATE TABLE fact (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE receipt (node TEXT PRIMARY KEY, at_ms INTEGER NOT NULL, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE listener (node TEXT PRIMARY KEY, until_ms INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE wake (node TEXT, number INTEGER, wake BLOB NOT NULL, PRIMARY KEY (node, number)) WITHOUT ROWID;
"""

LATER_TABLES = (
    """
CREATE TABLE IF NOT EXISTS step (number INTEGER PRIMARY KEY, session TEXT NOT NULL, until_ms INTEGER NOT NULL,
    step BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS step_of_session ON step (session, number);
CREATE INDEX IF NOT EXISTS step_by_end ON step (until_ms);
CREATE TABLE IF NOT EXISTS line (node TEXT, order_ms INTEGER, session TEXT, PRIMARY KEY (node, order_ms, session))
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS spot (session TEXT PRIMARY KEY, order_ms INTEGER NOT NULL, nodes TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS wanted (node TEXT PRIMARY KEY, sessions INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS hold (session TEXT, holder TEXT, due_ms INTEGER NOT NULL, PRIMARY KEY (session, holder))
    WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS hold_of_holder ON hold (holder);
CREATE INDEX IF NOT EXISTS hold_by_due ON hold (due_ms, session);
CREATE TABLE IF NOT EXISTS trail (session TEXT PRIMARY KEY, until_ms INTEGER NOT NULL, bytes INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS trail_by_end ON trail (until_ms, session);
CREATE TABLE IF NOT EXISTS stream (session TEXT, way TEXT, name TEXT, record BLOB NOT NULL, PRIMARY KEY (session, way, name))
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS revoked (principal TEXT PRIMARY KEY, number INTEGER NOT NULL, at_ms INTEGER NOT NULL,
    until_ms INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS revoked_by_number ON revoked (number);
CREATE INDEX IF NOT EXISTS revoked_by_end ON revoked (until_ms, principal);
CREATE TABLE IF NOT EXISTS past (session TEXT PRIMARY KEY, until_ms INTEGER NOT NULL, record BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS past_by_end ON past (until_ms, session);
"""
    + JOB_TABLES
    + ";"
    + EVENT_TABLES
    + ";"
    + AGENDA_TABLES
    + ";"
    + SHELF_TABLE
    + ";"
    + ROOM_TABLES
    + ";"
    + LATER_TABLE
)
"""What earlier releases of the same schema do not know and do not touch: a file of theirs gets it when it is opened."""

STRAYS = (
    "CREATE TABLE stray (session TEXT PRIMARY KEY) WITHOUT ROWID",
    "INSERT INTO stray SELECT session FROM place",
    "CREATE TRIGGER place_is_new AFTER INSERT ON place BEGIN INSERT OR IGNORE INTO stray VALUES (NEW.session); END",
    "CREATE TRIGGER place_is_gone AFTER DELETE ON place BEGIN INSERT OR IGNORE INTO stray VALUES (OLD.session); END",
)
"""Made once for a file, with its places of before. The lines by want (`line`, `spot`, `wanted`) are this release's. An earlier one
writes `place` alone, and these triggers, which are the file's own, note which: it carries them out without knowing them."""

WITH_SESSION = (
    """CREATE TRIGGER IF NOT EXISTS session_is_gone AFTER DELETE ON session
    BEGIN DELETE FROM stream WHERE session = OLD.session; END""",
    *TRIGGERS,
    EVENT_TRIGGER,
)
"""The streams of a session go with it, also when an earlier release, which does not know them, removes it."""

_PIECE = "*"
_OF_STREAMS = (b"p", b"e")
_PARTIES: dict[object, Party] = {
    "client": "client", "worker": "worker", "client" + _PIECE: "client", "worker" + _PIECE: "worker",
}  # fmt: skip
"""The kind of an item of the chat history, beside its party. Items of streams have a mark that earlier releases take for damage: these
pass over what they could not show."""

_record = msgpack.Decoder(Record).decode
_past = msgpack.Decoder(Past).decode
_worker = msgpack.Decoder(Worker).decode
_node = msgpack.Decoder(NodeInfo).decode
_want = msgpack.Decoder(dict[str, str]).decode


class SqliteRows(SqliteJobs, SqliteEvents, SqliteRevoked, SqliteAgenda, SqliteShelves, SqliteRooms):
    """How things are kept here. Changes of the hot tables gather until something reads them or the batch ends."""

    def __init__(self, connection: sqlite3.Connection, seals: Seals) -> None:
        super().__init__(connection, seals)
        self._records: dict[str, Record] = {}
        self._changed: dict[str, Record] = {}
        self._entries: list[tuple[str, Way, int, bool, bytes]] = []
        self._trims: list[tuple[str, Way, int]] = []
        self._history: dict[tuple[str, int], tuple[Party, bytes]] = {}
        self._later = Later(connection)
        self._trails_bytes: int | None = None
        """Sum over `trail`, which is long; None when it is not known."""

    def forget(self) -> None:
        """Believe nothing that was read or is half done: the file has changed, or the batch was rolled back."""
        self._records.clear()
        self._changed.clear()
        self._entries.clear()
        self._trims.clear()
        self._history.clear()
        self._later.forget()
        self._trails_bytes = None

    def flush(self) -> None:
        """Write everything that is gathered."""
        if self._changed:
            rows = [(session, self._pack(record, b"session", session)) for session, record in self._changed.items()]
            self._sql.executemany("REPLACE INTO session VALUES (?, ?)", rows)
            self._later.note(self._changed.values())
            self._changed.clear()
        self._flush_entries()
        self._flush_history()
        while len(self._records) > RECORDS_MAX:
            del self._records[next(iter(self._records))]

    def _flush_entries(self) -> None:
        # Trims go last: a seq once trimmed is never stored again, so the order among them is free.
        if self._entries:
            # What a damaged row may have left in the place of a new one is overwritten.
            self._sql.executemany("REPLACE INTO entry VALUES (?, ?, ?, ?, ?)", self._entries)
            self._entries.clear()
        if self._trims:
            self._sql.executemany("DELETE FROM entry WHERE session = ? AND way = ? AND seq <= ?", self._trims)
            self._trims.clear()

    def _flush_history(self) -> None:
        if self._history:
            rows = []
            for (session, number), (party, body) in self._history.items():
                kind = party + _PIECE if body[:1] in _OF_STREAMS else party
                kept = self._seals.wrap(body, b"history", session, number, kind.encode(), crc=number)
                rows.append((session, number, kind, kept))
            self._sql.executemany("REPLACE INTO history VALUES (?, ?, ?, ?)", rows)
            self._history.clear()

    def session(self, session: str) -> Record | None:
        record = self._records.get(session)
        if record is None:
            packed = self._one("SELECT record FROM session WHERE session = ?", session)
            if packed is not None:
                data = self._seals.unwrap(packed, b"session", session)
                record = self._records[session] = decoded(_record, data, "record", session)
                if data and is_cut(data):
                    self._later.mend(record)
                    self._mend_events(record)
        return record

    def _mend_events(self, record: Record) -> None:
        """Give back to a record what an earlier release has not saved with it: its queue knows that as well."""
        queue = self.queue(record.session)
        if queue is not None:
            record.events, record.events_max = queue.last, queue.events_max

    def save_session(self, record: Record) -> None:
        self._records[record.session] = self._changed[record.session] = record

    def drop_session(self, session: str, past: Past | None = None) -> None:
        self._records.pop(session, None)
        self._changed.pop(session, None)
        self._flush_entries()
        self._flush_history()
        self._sql.execute("DELETE FROM session WHERE session = ?", (session,))
        self._sql.execute("DELETE FROM entry WHERE session = ?", (session,))
        self._sql.execute("DELETE FROM stream WHERE session = ?", (session,))
        if past is None:
            self._sql.execute("DELETE FROM history WHERE session = ?", (session,))
        else:
            self._sql.execute(
                "REPLACE INTO past VALUES (?, ?, ?)", (session, past.until_ms, self._pack(past, b"past", session))
            )

    def past(self, session: str) -> Past | None:
        packed = self._one("SELECT record FROM past WHERE session = ?", session)
        try:
            return None if packed is None else self._unpack(_past, packed, "past", session, b"past", session)
        except Unreadable as error:
            REPORTS.tell(error.what, error.of)
            return None

    def drop_past(self, session: str) -> None:
        if self._sql.execute("DELETE FROM past WHERE session = ?", (session,)).rowcount:
            self._sql.execute("DELETE FROM history WHERE session = ?", (session,))

    def pasts_over(self, until_ms: int, limit: int) -> list[str]:
        sql = "SELECT session FROM past WHERE until_ms <= ? ORDER BY until_ms, session LIMIT ?"
        return [session for (session,) in self._sql.execute(sql, (until_ms, limit))]

    def put_entries(self, session: str, way: Way, entries: Iterable[Entry]) -> None:
        wrap, kind = self._seals.wrap, way.encode()
        self._entries += [
            (session, way, entry.seq, entry.history, wrap(entry.body, kind, session, entry.seq, crc=entry.seq))
            for entry in entries
        ]

    def trim_entries(self, session: str, way: Way, last: int) -> None:
        self._trims.append((session, way, last))

    def read_entries(self, session: str, way: Way, after: int, limit: int) -> list[Entry]:
        self._flush_entries()
        sql = "SELECT seq, body, history FROM entry WHERE session = ? AND way = ? AND seq > ? ORDER BY seq LIMIT ?"
        found: list[Entry] = []
        unwrap, kind = self._seals.unwrap, way.encode()
        while not found:
            rows = self._sql.execute(sql, (session, way, after, limit)).fetchall()
            for seq, kept, history in rows:
                body = unwrap(kept, kind, session, seq, crc=seq) if type(seq) is int else None
                if body is None:
                    REPORTS.tell("message", session)
                else:
                    found.append(Entry(seq, body, bool(history)))
            if len(rows) < limit or type(rows[-1][0]) is not int:
                break
            after = rows[-1][0]  # should all of them be damaged, there may be others behind
        return found

    def put_history(self, session: str, number: int, party: Party, body: bytes) -> None:
        self._history[session, number] = (party, body)

    def drop_history(self, session: str, number: int) -> bytes:
        gathered = self._history.pop((session, number), None)
        if gathered is not None:
            return gathered[1]
        sql = "DELETE FROM history WHERE session = ? AND number = ? RETURNING body, party"
        kept, kind = self._sql.execute(sql, (session, number)).fetchone() or (None, "")
        if type(kept) is not bytes:
            return b""
        if is_sealed(kept):
            body = self._seals.unwrap(kept, b"history", session, number, str(kind).encode(), crc=number)
            return (
                bytes(max(0, len(kept) - SEALED_BYTES)) if body is None else body
            )  # a damaged one counts by its length
        return kept[:-SEAL_BYTES]

    def history(self, session: str) -> list[tuple[Party, bytes]]:
        self._flush_history()
        sql = "SELECT party, body, number FROM history WHERE session = ? ORDER BY number"
        found: list[tuple[Party, bytes]] = []
        for kind, kept, number in self._sql.execute(sql, (session,)):
            party = _PARTIES.get(kind)
            body = None
            if type(number) is int and party is not None:
                body = self._seals.unwrap(kept, b"history", session, number, kind.encode(), crc=number)
            if body is None or party is None:
                REPORTS.tell("chat history", session)
            else:
                found.append((party, body))
        return found

    def stream(self, session: str, way: Way, name: str) -> Stream | None:
        sql = "SELECT record FROM stream WHERE session = ? AND way = ? AND name = ?"
        packed = self._one(sql, session, way, name)
        return None if packed is None else self._stream(session, packed, way + name)

    def _stream(self, session: str, packed: object, name: str) -> Stream | None:
        try:
            return self._unpack(decode_stream, packed, "stream", session, b"stream", session, name=name)
        except Unreadable as error:
            REPORTS.tell(error.what, error.of)
            return None

    def streams(self, session: str) -> list[Stream]:
        rows = self._sql.execute("SELECT record, way || name FROM stream WHERE session = ?", (session,)).fetchall()
        found = [stream for packed, name in rows if (stream := self._stream(session, packed, str(name))) is not None]
        return sorted(found, key=lambda one: one.number)

    def save_stream(self, session: str, stream: Stream) -> None:
        packed = self._pack(stream, b"stream", session, name=stream.way + stream.name)
        self._sql.execute("REPLACE INTO stream VALUES (?, ?, ?, ?)", (session, stream.way, stream.name, packed))

    def drop_stream(self, session: str, stream: Stream) -> None:
        sql = "DELETE FROM stream WHERE session = ? AND way = ? AND name = ?"
        self._sql.execute(sql, (session, stream.way, stream.name))

    def nodes(self) -> list[NodeInfo]:
        found = []
        for name, info in self._sql.execute("SELECT id, info FROM node ORDER BY id"):
            try:
                found.append(unpack(_node, info, "node", str(name)))
            except Unreadable as error:
                REPORTS.tell(error.what, error.of)
        return found

    def save_node(self, node: NodeInfo) -> None:
        self._sql.execute("REPLACE INTO node VALUES (?, ?)", (node.id, pack(node)))

    def drop_node(self, node: str) -> None:
        self._sql.execute("DELETE FROM node WHERE id = ?", (node,))

    def worker(self, worker: str) -> Worker | None:
        packed = self._one("SELECT record FROM worker WHERE id = ?", worker)
        return None if packed is None else unpack(_worker, packed, "worker", worker)

    def workers(self) -> list[Worker]:
        found = []
        for name, packed in self._sql.execute("SELECT id, record FROM worker ORDER BY id"):
            try:
                found.append(unpack(_worker, packed, "worker", str(name)))
            except Unreadable as error:
                REPORTS.tell(error.what, error.of)
        return found

    def save_worker(self, worker: Worker) -> None:
        self._sql.execute("REPLACE INTO worker VALUES (?, ?)", (worker.id, pack(worker)))

    def drop_worker(self, worker: str) -> None:
        self._sql.execute("DELETE FROM worker WHERE id = ?", (worker,))

    def _places(self, where: str, *arguments: object) -> list[Place]:
        rows = self._sql.execute(f"SELECT session, want, order_ms, worker FROM place {where}", arguments)  # noqa: S608
        found = []
        for session, want, order_ms, worker in rows:
            with suppress(Unreadable):
                if type(order_ms) is int and type(worker) is str:
                    found.append(Place(session, unpack(_want, want, "place", str(session)), order_ms, worker))
                    continue
            REPORTS.tell("place", str(session))
        return found

    def place(self, session: str) -> Place | None:
        return next(iter(self._places("WHERE session = ?", session)), None)

    def save_place(self, place: Place) -> None:
        row = (place.session, place.worker, place.order_ms, pack(place.want))
        self._sql.execute("REPLACE INTO place VALUES (?, ?, ?, ?)", row)
        self._stand(place.session, None if place.worker else place)

    def drop_place(self, session: str) -> None:
        self._sql.execute("DELETE FROM place WHERE session = ?", (session,))
        self._stand(session, None)

    def _stand(self, session: str, place: Place | None) -> None:
        """Let the lines by want have `session` at `place`, or not at all; it is no stray then."""
        sql = self._sql
        was = sql.execute("DELETE FROM spot WHERE session = ? RETURNING order_ms, nodes", (session,)).fetchone()
        if was is not None:
            nodes = str(was[1]).split() or [ROOT]
            sql.execute(
                "DELETE FROM line WHERE node = ? AND order_ms = ? AND session = ?", (nodes[-1], was[0], session)
            )
            sql.executemany("UPDATE wanted SET sessions = sessions - 1 WHERE node = ?", [(node,) for node in nodes])
            sql.executemany("DELETE FROM wanted WHERE node = ? AND sessions <= 0", [(node,) for node in nodes])
        if place is not None:
            nodes = list(path(place.want))
            sql.execute("INSERT INTO spot VALUES (?, ?, ?)", (session, place.order_ms, " ".join(nodes)))
            sql.execute("REPLACE INTO line VALUES (?, ?, ?)", (nodes[-1], place.order_ms, session))
            more = "INSERT INTO wanted VALUES (?, 1) ON CONFLICT DO UPDATE SET sessions = sessions + 1"
            sql.executemany(more, [(node,) for node in nodes])
        sql.execute("DELETE FROM stray WHERE session = ?", (session,))

    def waiting(self, limit: int) -> list[Place]:
        return self._places("WHERE worker = '' ORDER BY order_ms, session LIMIT ?", limit)

    def is_wanted(self, node: str) -> bool:
        return self._one("SELECT 1 FROM wanted WHERE node = ?", node) is not None

    def line(self, node: str, limit: int) -> list[Place]:
        # A place that an earlier release has paired or removed is left out until `enter` has been told.
        sql = "SELECT session FROM line WHERE node = ? ORDER BY order_ms, session"
        found: list[Place] = []
        for (session,) in self._sql.execute(sql, (node,)):
            if len(found) >= limit:
                break
            found += [place for place in self._places("WHERE session = ?", session) if not place.worker]
        return found

    def strays(self, limit: int) -> list[str]:
        return [session for (session,) in self._sql.execute("SELECT session FROM stray LIMIT ?", (limit,))]

    def enter(self, session: str) -> None:
        place = self.place(session)
        self._stand(session, None if place is None or place.worker else place)

    def sessions_of(self, worker: str) -> tuple[str, ...]:
        sql = "SELECT session FROM place WHERE worker = ? ORDER BY session"
        return tuple(session for (session,) in self._sql.execute(sql, (worker,))) if worker else ()

    def assigned(self, worker: str) -> int:
        return int(self._one("SELECT count(*) FROM place WHERE worker = ?", worker))

    def renew(self, session: str, until_ms: int) -> None:
        sql = "INSERT INTO life VALUES (?, ?) ON CONFLICT DO UPDATE SET until_ms = max(until_ms, excluded.until_ms)"
        self._sql.execute(sql, (session, until_ms))

    def life(self, session: str) -> int | None:
        until_ms = self._one("SELECT until_ms FROM life WHERE session = ?", session)
        return until_ms if type(until_ms) is int else None

    def lives(self) -> int:
        return int(self._one("SELECT count(*) FROM life"))

    def hold(self, session: str, holder: str, due_ms: int) -> None:
        self._sql.execute("REPLACE INTO hold VALUES (?, ?, ?)", (session, holder, due_ms))

    def postpone_hold(self, session: str, due_ms: int) -> None:
        self._sql.execute("UPDATE hold SET due_ms = ? WHERE session = ?", (due_ms, session))

    def drop_hold(self, session: str) -> None:
        self._sql.execute("DELETE FROM hold WHERE session = ?", (session,))

    def is_held(self, session: str) -> bool:
        return self._one("SELECT 1 FROM hold WHERE session = ?", session) is not None

    def held_by(self, holder: str) -> int:
        return int(self._one("SELECT count(*) FROM hold WHERE holder = ?", holder))

    def sessions_held(self, holder: str, after: str, limit: int) -> list[str]:
        sql = "SELECT session FROM hold WHERE holder = ? AND session > ? ORDER BY session LIMIT ?"
        return [session for (session,) in self._sql.execute(sql, (holder, after, limit))]

    def holds_due(self, now_ms: int, limit: int) -> list[str]:
        sql = "SELECT DISTINCT session FROM hold WHERE due_ms <= ? ORDER BY due_ms, session LIMIT ?"
        return [session for (session,) in self._sql.execute(sql, (now_ms, limit))]

    def drop_life(self, session: str) -> None:
        self._sql.execute("DELETE FROM life WHERE session = ?", (session,))

    def overdue(self, now_ms: int, limit: int) -> list[str]:
        sql = "SELECT session FROM life WHERE until_ms <= ? ORDER BY until_ms, session LIMIT ?"
        return [session for (session,) in self._sql.execute(sql, (now_ms, limit))]

    def fact(self, name: str) -> bytes | None:
        value = self._one("SELECT value FROM fact WHERE name = ?", name)
        return value if type(value) is bytes else None

    def save_fact(self, name: str, value: bytes) -> None:
        self._sql.execute("REPLACE INTO fact VALUES (?, ?)", (name, value))

    def receipt(self, node: str) -> bytes | None:
        body = self._one("SELECT body FROM receipt WHERE node = ?", node)
        return body if type(body) is bytes else None

    def save_receipt(self, node: str, body: bytes, now_ms: int, keep: int) -> None:
        self._sql.execute("REPLACE INTO receipt VALUES (?, ?, ?)", (node, now_ms, body))
        latest = "SELECT node FROM receipt ORDER BY at_ms DESC, node DESC LIMIT ?"
        self._sql.execute(f"DELETE FROM receipt WHERE node NOT IN ({latest})", (keep,))  # noqa: S608

    def receipts(self) -> list[tuple[str, int]]:
        rows = self._sql.execute("SELECT node, at_ms FROM receipt ORDER BY at_ms DESC, node")
        return [(node, at_ms) for node, at_ms in rows if type(at_ms) is int]

    def add_steps(self, session: str, steps: Iterable[bytes], keep: int, now_ms: int, until_ms: int) -> None:
        self._sql.execute("DELETE FROM step WHERE until_ms <= ?", (now_ms,))
        insert = "INSERT INTO step (session, until_ms, step) VALUES (?, ?, ?)"
        cover = self._seals.cover
        self._sql.executemany(insert, [(session, until_ms, cover(step, b"step", session)) for step in steps])
        self._sql.execute(
            "UPDATE step SET until_ms = ? WHERE session = ? AND until_ms < ?", (until_ms, session, until_ms)
        )
        surplus = "SELECT number FROM step WHERE session = ? ORDER BY number DESC LIMIT -1 OFFSET ?"
        self._sql.execute(f"DELETE FROM step WHERE number IN ({surplus})", (session, keep))  # noqa: S608

    def drop_steps(self, session: str) -> None:
        self._sql.execute("DELETE FROM step WHERE session = ?", (session,))

    def steps(self, session: str) -> list[bytes]:
        sql = "SELECT step FROM step WHERE session = ? ORDER BY number"
        kept = [step for (step,) in self._sql.execute(sql, (session,)) if type(step) is bytes]
        found = [self._seals.uncover(step, b"step", session) for step in kept]
        if None in found:
            REPORTS.tell("trail", session)
        return [step for step in found if step is not None]

    def trail(self, session: str) -> TrailCount | None:
        found = self._sql.execute("SELECT session, until_ms, bytes FROM trail WHERE session = ?", (session,))
        return next((TrailCount(*row) for row in found), None)

    def save_trail(self, trail: TrailCount) -> None:
        self.drop_trail(trail.session)
        self._sql.execute("INSERT INTO trail VALUES (?, ?, ?)", (trail.session, trail.until_ms, trail.bytes))
        if self._trails_bytes is not None:
            self._trails_bytes += trail.bytes

    def drop_trail(self, session: str) -> None:
        dropped = self._sql.execute("DELETE FROM trail WHERE session = ? RETURNING bytes", (session,)).fetchall()
        if self._trails_bytes is not None:
            self._trails_bytes -= sum(size for (size,) in dropped)

    def oldest_trails(self, limit: int) -> list[TrailCount]:
        sql = "SELECT session, until_ms, bytes FROM trail ORDER BY until_ms, session LIMIT ?"
        return [TrailCount(*row) for row in self._sql.execute(sql, (limit,))]

    def trails_bytes(self) -> int:
        if self._trails_bytes is None:
            self._trails_bytes = int(self._one("SELECT coalesce(sum(bytes), 0) FROM trail"))
        return self._trails_bytes
