"""The store in one SQLite file: the embedded default, for one host.

One connection, used by one thread at a time, and one transaction per batch: that is the group commit. Records read or
written are kept between batches, and believed only while `PRAGMA data_version`, asked inside the transaction, says that
no other process has committed anything. Wake-ups for another process are rows, which that process finds by asking for
`data_version` every `poll_interval_s`, or rarely while it is alone.

What an ack promises: with `process`, WAL and synchronous=NORMAL, a commit survives the death of any process; with `disk`,
synchronous=FULL, that of the host as well.
"""

import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import trio
from msgspec import DecodeError, msgpack

from signald.errors import StoreError, StoreMisused, StoreUnavailable
from signald.store.base import (
    WAKE_ALL,
    Entry,
    ListOverdue,
    ListReceipts,
    ListWaiting,
    ListWorkers,
    Look,
    NodeInfo,
    Op,
    Party,
    ReadHistory,
    ReadTrail,
    Result,
    Wake,
    WorkerSessions,
)
from signald.store.damage import REPORTS, SEAL_BYTES, Unreadable, answer, seal, unseal
from signald.store.records import Place, Record, Wakes, Way, Worker
from signald.store.rules import apply

APPLICATION_ID = 0x7369676E
SCHEMA = 2
RECORDS_MAX = 10_000
"""How many records are kept between batches; about 2 KiB each."""

WAKES_MAX = 10_000
"""How many wake-ups a node may leave unread, here or in the file. Beyond it they are dropped, and `*` stands for all."""

BUSY_TIMEOUT_S = 2.0
LISTEN_MS = 60_000
"""How long a node counts as listening without renewing it: a killed one is written to no longer than that."""

IDLE_POLLS = 20
"""While no other node listens, the file is asked this many times more rarely."""

RETRY_S = 1.0
"""How long the listener waits before it asks a failing file again."""

_T = TypeVar("_T")

_TABLES = """
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

_READS = (Look, ReadHistory, ReadTrail, ListReceipts, ListWorkers, WorkerSessions, ListWaiting, ListOverdue)
"""Operations that never change anything: a batch of them alone does not ask for the one write lock."""

_encode = msgpack.Encoder().encode
_record = msgpack.Decoder(Record).decode
_worker = msgpack.Decoder(Worker).decode
_node = msgpack.Decoder(NodeInfo).decode
_want = msgpack.Decoder(dict[str, str]).decode


def _pack(value: object) -> bytes:
    return seal(_encode(value))


def _unpack(decode: Callable[[bytes], _T], kept: object, what: str, of: str) -> _T:
    data = unseal(kept)
    if data is not None:
        with suppress(DecodeError):
            return decode(data)
    raise Unreadable(what, of)


def _text(kept: bytes) -> str:
    return kept.decode(errors="replace")


_LATER_TABLES = """
CREATE TABLE IF NOT EXISTS step (number INTEGER PRIMARY KEY, session TEXT NOT NULL, until_ms INTEGER NOT NULL,
    step BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS step_of_session ON step (session, number);
CREATE INDEX IF NOT EXISTS step_by_end ON step (until_ms)
"""
"""What earlier releases of the same schema do not know and do not touch: a file of theirs gets it when it is opened."""


class SqliteRows:
    """How things are kept here. Changes of the hot tables gather until something reads them or the batch ends."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._sql = connection
        self._records: dict[str, Record] = {}
        self._changed: dict[str, Record] = {}
        self._entries: list[tuple[str, Way, int, bool, bytes]] = []
        self._trims: list[tuple[str, Way, int]] = []
        self._history: dict[tuple[str, int], tuple[Party, bytes]] = {}

    def forget(self) -> None:
        """Believe nothing that was read or is half done: the file has changed, or the batch was rolled back."""
        self._records.clear()
        self._changed.clear()
        self._entries.clear()
        self._trims.clear()
        self._history.clear()

    def flush(self) -> None:
        """Write everything that is gathered."""
        if self._changed:
            rows = [(session, _pack(record)) for session, record in self._changed.items()]
            self._sql.executemany("REPLACE INTO session VALUES (?, ?)", rows)
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
            rows = [(*key, party, seal(body, key[1])) for key, (party, body) in self._history.items()]
            self._sql.executemany("REPLACE INTO history VALUES (?, ?, ?, ?)", rows)
            self._history.clear()

    def _one(self, sql: str, *arguments: object) -> Any:
        row = self._sql.execute(sql, arguments).fetchone()
        return None if row is None else row[0]

    def session(self, session: str) -> Record | None:
        record = self._records.get(session)
        if record is None:
            packed = self._one("SELECT record FROM session WHERE session = ?", session)
            if packed is not None:
                record = self._records[session] = _unpack(_record, packed, "record", session)
        return record

    def save_session(self, record: Record) -> None:
        self._records[record.session] = self._changed[record.session] = record

    def drop_session(self, session: str) -> None:
        self._records.pop(session, None)
        self._changed.pop(session, None)
        self._flush_entries()
        self._flush_history()
        self._sql.execute("DELETE FROM session WHERE session = ?", (session,))
        self._sql.execute("DELETE FROM entry WHERE session = ?", (session,))
        self._sql.execute("DELETE FROM history WHERE session = ?", (session,))

    def put_entries(self, session: str, way: Way, entries: Iterable[Entry]) -> None:
        self._entries += [(session, way, entry.seq, entry.history, seal(entry.body, entry.seq)) for entry in entries]

    def trim_entries(self, session: str, way: Way, last: int) -> None:
        self._trims.append((session, way, last))

    def read_entries(self, session: str, way: Way, after: int, limit: int) -> list[Entry]:
        self._flush_entries()
        sql = "SELECT seq, body, history FROM entry WHERE session = ? AND way = ? AND seq > ? ORDER BY seq LIMIT ?"
        found: list[Entry] = []
        while not found:
            rows = self._sql.execute(sql, (session, way, after, limit)).fetchall()
            for seq, kept, history in rows:
                body = unseal(kept, seq) if type(seq) is int else None
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

    def drop_history(self, session: str, number: int) -> int:
        gathered = self._history.pop((session, number), None)
        if gathered is not None:
            return len(gathered[1])
        sql = "DELETE FROM history WHERE session = ? AND number = ? RETURNING length(body)"
        return max(0, (self._one(sql, session, number) or 0) - SEAL_BYTES)

    def read_history(self, session: str, limit: int) -> list[tuple[str, bytes]]:
        self._flush_history()
        sql = "SELECT party, body, number FROM history WHERE session = ? ORDER BY number DESC LIMIT ?"
        found: list[tuple[str, bytes]] = []
        for party, kept, number in self._sql.execute(sql, (session, limit)):
            body = unseal(kept, number) if type(number) is int and party in ("client", "worker") else None
            if body is None:
                REPORTS.tell("chat history", session)
            else:
                found.append((party, body))
        return found[::-1]

    def nodes(self) -> list[NodeInfo]:
        found = []
        for name, info in self._sql.execute("SELECT id, info FROM node ORDER BY id"):
            try:
                found.append(_unpack(_node, info, "node", str(name)))
            except Unreadable as error:
                REPORTS.tell(error.what, error.of)
        return found

    def save_node(self, node: NodeInfo) -> None:
        self._sql.execute("REPLACE INTO node VALUES (?, ?)", (node.id, _pack(node)))

    def drop_node(self, node: str) -> None:
        self._sql.execute("DELETE FROM node WHERE id = ?", (node,))

    def worker(self, worker: str) -> Worker | None:
        packed = self._one("SELECT record FROM worker WHERE id = ?", worker)
        return None if packed is None else _unpack(_worker, packed, "worker", worker)

    def workers(self) -> list[Worker]:
        found = []
        for name, packed in self._sql.execute("SELECT id, record FROM worker ORDER BY id"):
            try:
                found.append(_unpack(_worker, packed, "worker", str(name)))
            except Unreadable as error:
                REPORTS.tell(error.what, error.of)
        return found

    def save_worker(self, worker: Worker) -> None:
        self._sql.execute("REPLACE INTO worker VALUES (?, ?)", (worker.id, _pack(worker)))

    def drop_worker(self, worker: str) -> None:
        self._sql.execute("DELETE FROM worker WHERE id = ?", (worker,))

    def _places(self, where: str, *arguments: object) -> list[Place]:
        rows = self._sql.execute(f"SELECT session, want, order_ms, worker FROM place {where}", arguments)  # noqa: S608
        found = []
        for session, want, order_ms, worker in rows:
            with suppress(Unreadable):
                if type(order_ms) is int and type(worker) is str:
                    found.append(Place(session, _unpack(_want, want, "place", str(session)), order_ms, worker))
                    continue
            REPORTS.tell("place", str(session))
        return found

    def place(self, session: str) -> Place | None:
        return next(iter(self._places("WHERE session = ?", session)), None)

    def save_place(self, place: Place) -> None:
        row = (place.session, place.worker, place.order_ms, _pack(place.want))
        self._sql.execute("REPLACE INTO place VALUES (?, ?, ?, ?)", row)

    def drop_place(self, session: str) -> None:
        self._sql.execute("DELETE FROM place WHERE session = ?", (session,))

    def waiting(self, limit: int) -> list[Place]:
        return self._places("WHERE worker = '' ORDER BY order_ms, session LIMIT ?", limit)

    def sessions_of(self, worker: str) -> tuple[str, ...]:
        sql = "SELECT session FROM place WHERE worker = ? ORDER BY session"
        return tuple(session for (session,) in self._sql.execute(sql, (worker,))) if worker else ()

    def assigned(self, worker: str) -> int:
        return int(self._one("SELECT count(*) FROM place WHERE worker = ?", worker))

    def renew(self, session: str, until_ms: int) -> None:
        sql = "INSERT INTO life VALUES (?, ?) ON CONFLICT DO UPDATE SET until_ms = max(until_ms, excluded.until_ms)"
        self._sql.execute(sql, (session, until_ms))

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
        self._sql.executemany(insert, [(session, until_ms, step) for step in steps])
        self._sql.execute(
            "UPDATE step SET until_ms = ? WHERE session = ? AND until_ms < ?", (until_ms, session, until_ms)
        )
        surplus = "SELECT number FROM step WHERE session = ? ORDER BY number DESC LIMIT -1 OFFSET ?"
        self._sql.execute(f"DELETE FROM step WHERE number IN ({surplus})", (session, keep))  # noqa: S608

    def steps(self, session: str) -> list[bytes]:
        sql = "SELECT step FROM step WHERE session = ? ORDER BY number"
        return [step for (step,) in self._sql.execute(sql, (session,)) if type(step) is bytes]


class _File:
    """The file as the worker thread sees it. Every method is one transaction, and none may be called twice at a time."""

    def __init__(self, connection: sqlite3.Connection, node: str) -> None:
        self.node = node
        self.alone = True
        self._sql = connection
        self._rows = SqliteRows(connection)
        self._version_of_rows = -1
        self._version_of_wakes = -1
        self._version_of_listeners = -1
        self._listeners: dict[str, int] = {}

    def execute(self, ops: Sequence[Op], now_ms: int) -> tuple[list[Result], list[Wake]]:
        """Carry out `ops`; return their results and the wake-ups for this very node."""
        writes = not all(isinstance(op, _READS) for op in ops)
        wakes = Wakes()
        self._sql.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
        try:
            version = self._version()
            if version != self._version_of_rows:
                self._rows.forget()
                self._version_of_rows = version
            results = [self._apply(op, wakes) for op in ops]
            self._rows.flush()
            own = [wake for node, wake in wakes.sent if node == self.node]
            if len(own) != len(wakes.sent):
                self._refresh_listeners(version, now_ms)
                self._send(wakes.sent, now_ms)
            self._sql.execute("COMMIT")
        except BaseException:
            self._rows.forget()
            self._roll_back()
            raise
        return results, own

    def _apply(self, op: Op, wakes: Wakes) -> Result:
        try:
            return apply(op, self._rows, wakes)
        except Unreadable as error:
            REPORTS.tell(error.what, error.of)
            result = answer(op)
            if result is None:
                raise
            return result

    def _roll_back(self) -> None:
        if self._sql.in_transaction:
            self._sql.execute("ROLLBACK")

    def _version(self) -> int:
        return int(self._sql.execute("PRAGMA data_version").fetchone()[0])

    def _refresh_listeners(self, version: int, now_ms: int) -> None:
        if version != self._version_of_listeners:
            self._listeners = dict(self._sql.execute("SELECT node, until_ms FROM listener"))
            self._version_of_listeners = version
        self.alone = not any(node != self.node and until_ms > now_ms for node, until_ms in self._listeners.items())

    def _send(self, sent: list[tuple[str, Wake]], now_ms: int) -> None:
        by_node: dict[str, list[Wake]] = {}
        for node, wake in sent:
            if node != self.node and self._listeners.get(node, 0) > now_ms:
                by_node.setdefault(node, []).append(wake)
        for node, wakes in by_node.items():
            bounds = "SELECT coalesce(min(number), 0), coalesce(max(number), -1) FROM wake WHERE node = ?"
            first, last = self._sql.execute(bounds, (node,)).fetchone()
            full = last + 1 - first + len(wakes) > WAKES_MAX
            if full:
                self._sql.execute("DELETE FROM wake WHERE node = ?", (node,))
            rows = [(node, number, wake) for number, wake in enumerate([WAKE_ALL] if full else wakes, last + 1)]
            self._sql.executemany("INSERT INTO wake VALUES (?, ?, ?)", rows)

    def listen(self, now_ms: int) -> list[Wake]:
        """Say that this node listens, from now on and for a while; drop the listeners that were killed."""
        with self._writing():
            self._sql.execute("REPLACE INTO listener VALUES (?, ?)", (self.node, now_ms + LISTEN_MS))
            dead = "SELECT node FROM listener WHERE until_ms <= ?"
            self._sql.execute(f"DELETE FROM wake WHERE node IN ({dead})", (now_ms,))  # noqa: S608
            self._sql.execute("DELETE FROM listener WHERE until_ms <= ?", (now_ms,))
            self._version_of_listeners = -1
        return [WAKE_ALL]

    def poll(self, now_ms: int) -> list[Wake]:
        """Take the wake-ups that other processes left for this node."""
        version = self._version()
        own_until_ms = self._listeners.get(self.node, 0)
        if version == self._version_of_wakes and own_until_ms - now_ms > LISTEN_MS // 2:
            return []
        self._refresh_listeners(version, now_ms)
        if self._listeners.get(self.node, 0) <= now_ms:
            # This node was asleep for so long that others took it for dead and told it nothing.
            return self.listen(now_ms)
        if self._listeners[self.node] - now_ms <= LISTEN_MS // 2:
            self.listen(now_ms)
        found: list[tuple[int, Wake]] = []
        if self._sql.execute("SELECT 1 FROM wake WHERE node = ? LIMIT 1", (self.node,)).fetchone() is not None:
            with self._writing():
                found = self._sql.execute(
                    "DELETE FROM wake WHERE node = ? RETURNING number, wake", (self.node,)
                ).fetchall()
        self._version_of_wakes = version
        return [wake for _, wake in sorted(found)]

    def check(self, now_ms: int) -> None:
        """Write something."""
        with self._writing():
            self._rows.save_fact("checked_ms", b"%d" % now_ms)

    def _writing(self) -> "_Writing":
        return _Writing(self._sql)

    def close(self, *, listening: bool) -> None:
        """Close the file, leaving nothing of this node's listening behind."""
        try:
            if listening:
                with self._writing():
                    self._sql.execute("DELETE FROM listener WHERE node = ?", (self.node,))
                    self._sql.execute("DELETE FROM wake WHERE node = ?", (self.node,))
        finally:
            self._sql.close()


class _Writing:
    """One write transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._sql = connection

    def __enter__(self) -> None:
        self._sql.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._sql.execute("COMMIT")
        finally:
            if self._sql.in_transaction:
                self._sql.execute("ROLLBACK")


class SqliteStore:
    """A SQLite file as one node sees it."""

    def __init__(self, file: _File, poll_interval_s: float) -> None:
        self._file = file
        self._poll_interval_s = poll_interval_s
        self._thread = trio.CapacityLimiter(1)
        self._inbox: list[Wake] = []
        self._news = trio.Event()
        self._now_ms = 0
        self._listening = False

    def now_ms(self) -> int:
        """See `Store.now_ms`. It never runs backwards within a process."""
        self._now_ms = max(self._now_ms, time.time_ns() // 1_000_000)
        return self._now_ms

    async def execute(self, ops: Sequence[Op]) -> list[Result]:
        """See `Store.execute`. Once begun a batch is not cancelled: its outcome is known."""
        if not ops:
            await trio.lowlevel.checkpoint()
            return []
        results, own = await self._in_thread(self._file.execute, ops, self.now_ms())
        if own:
            self._inbox = [WAKE_ALL] if len(self._inbox) + len(own) > WAKES_MAX else self._inbox + own
            self._news.set()
        return results

    def wakes(self) -> AsyncIterator[list[Wake]]:
        """See `Store.wakes`."""
        return _Wakes(self)

    async def next_wakes(self, *, first: bool) -> list[Wake]:
        """Wait for wake-ups: those that this process made, and those that it finds in the file."""
        if first:
            self._listening = True
            return await self._in_thread(self._file.listen, self.now_ms())
        while True:
            with trio.move_on_after(self._poll_interval_s * (IDLE_POLLS if self._file.alone else 1)):
                await self._news.wait()
            found = await self._in_thread(self._file.poll, self.now_ms())
            own, self._inbox, self._news = self._inbox, [], trio.Event()
            if own or found:
                return own + found

    async def check(self) -> None:
        """See `Store.check`. Proves that the file can be written, too."""
        await self._in_thread(self._file.check, self.now_ms())

    async def close(self) -> None:
        """Close the file."""
        # A file that fails now is left as after a kill: the row that says this node listens ends by itself.
        with suppress(StoreError):
            await self._in_thread(lambda: self._file.close(listening=self._listening))

    async def _in_thread(self, work: Callable[..., _T], *arguments: object) -> _T:
        try:
            return await trio.to_thread.run_sync(work, *arguments, limiter=self._thread)
        except sqlite3.Error as error:
            raise _translate(error) from error


class _Wakes:
    """The wake-ups of one node, as an iterator that needs no closing."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self._first = True

    def __aiter__(self) -> AsyncIterator[list[Wake]]:
        return self

    async def __anext__(self) -> list[Wake]:
        while True:
            try:
                wakes = await self._store.next_wakes(first=self._first)
            except StoreUnavailable:
                # The listener outlives the outage, and begins anew with `*` after it.
                self._first = True
                await trio.sleep(RETRY_S)
            else:
                self._first = False
                return wakes


_HOPELESS = {
    sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_MISMATCH,
    sqlite3.SQLITE_AUTH,
    sqlite3.SQLITE_NOTADB,
}


def _translate(error: sqlite3.Error, where: str = "") -> StoreError:
    """Tell whether it is worth to ask again. The message names the file, `where`, if that may be what is wrong."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code in _HOPELESS:
        return StoreMisused(f"SQLite cannot serve: {where}{error}")
    return StoreUnavailable(f"SQLite: {where}{error}")


def _path(url: str) -> Path:
    scheme, _, path = url.partition(":")
    if scheme != "sqlite" or not path or path.startswith(":") or (path.startswith("//") and not path.startswith("///")):
        raise StoreMisused(
            "an SQLite store is written sqlite:PATH; for one that is lost with the process there is memory:"
        )
    return Path(path)


def _open(path: Path, node: str, *, durable: bool, busy_timeout_s: float) -> _File:
    try:
        # Made here and not by SQLite, so that only the owner may read it: there are messages in it.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StoreMisused(f"cannot open {path} for reading and writing: {error.strerror}") from error
    connection = sqlite3.connect(path, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False)
    connection.text_factory = _text  # a damaged name is no name we know; it must not fail the batch
    try:
        _prepare(connection, path, durable=durable)
    except sqlite3.Error as error:
        connection.close()
        raise _translate(error, f"{path}: ") from error
    except BaseException:
        connection.close()
        raise
    return _File(connection, node)


def _prepare(connection: sqlite3.Connection, path: Path, *, durable: bool) -> None:
    if _pragma(connection, "journal_mode = WAL") != "wal":
        raise StoreMisused(
            f"{path} lies on a file system without the shared memory that WAL needs; put it on a local disk"
        )
    connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
    connection.execute("PRAGMA wal_autocheckpoint = 4000")
    with _Writing(connection):
        if _pragma(connection, "application_id") == 0 and _pragma(connection, "schema_version") == 0:
            for statement in _TABLES.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA}")
        if _pragma(connection, "application_id") == APPLICATION_ID:
            for statement in _LATER_TABLES.split(";"):
                connection.execute(statement)
        if _pragma(connection, "application_id") != APPLICATION_ID:
            raise StoreMisused(f"{path} is a database of another program")
        if (found := _pragma(connection, "user_version")) != SCHEMA:
            raise StoreMisused(f"{path} has schema {found}, and this release of signald reads {SCHEMA}")


def _pragma(connection: sqlite3.Connection, text: str) -> object:
    return connection.execute(f"PRAGMA {text}").fetchone()[0]


@asynccontextmanager
async def open_sqlite(
    url: str, node: str, *, ack: str, poll_interval_s: float, busy_timeout_s: float = BUSY_TIMEOUT_S
) -> AsyncIterator[SqliteStore]:
    """Open the file of `url` (`sqlite:PATH`) for `node`, making it if there is none.

    `ack` is `process` or `disk`; `poll_interval_s` is how often the file is asked for what other processes did, and
    `busy_timeout_s` how long a batch waits for another process's.

    Raises:
        StoreMisused: the URL, the file or what it holds is not what signald can use; or `ack` is `replica`.
        StoreUnavailable: the file is locked, or its disk is full or failing.
    """
    if ack not in {"process", "disk"}:
        raise StoreMisused(f"an SQLite store cannot promise ack={ack}: it has no replica; use process or disk")
    path = _path(url)
    durable = ack == "disk"
    file = await trio.to_thread.run_sync(lambda: _open(path, node, durable=durable, busy_timeout_s=busy_timeout_s))
    store = SqliteStore(file, poll_interval_s)
    try:
        yield store
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 2 * busy_timeout_s):
            await store.close()
