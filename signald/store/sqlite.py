"""The store in one SQLite file: the embedded default, for one host.

One connection, used by one thread at a time, and one transaction per batch: that is the group commit. Records are
cached between batches. A cached record is valid only while `PRAGMA data_version`, read inside the transaction, says that
no other process has committed. A wake-up for another process is a row, which that process finds by reading
`data_version` every `poll_interval_s`, or rarely while it is alone.

This file has the database file with its transactions and wake-ups (`_File`), the store in the event loop, which runs the work
of the file in one thread (`SqliteStore`), and the opening of both. The tables are in sqlite_rows.py.

What an ack promises: with `process`, WAL and synchronous=NORMAL, a commit survives the death of any process; with `disk`,
synchronous=FULL, that of the host as well.
"""

import os
import sqlite3
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TypeVar

import structlog
import trio

from signald.errors import StoreError, StoreMisused, StoreUnavailable
from signald.store.base import WAKE_ALL, Op, Result, Wake
from signald.store.damage import REPORTS, Unreadable
from signald.store.resealing import Page
from signald.store.room.rules import drop_rooms
from signald.store.rows import Wakes
from signald.store.rules import apply
from signald.store.seals import Seals
from signald.store.session.events.keeping import drop_queues
from signald.store.session.rules import drop_pasts
from signald.store.sqlite_reseal import SEALED, Row, Sealed, reseal_page
from signald.store.sqlite_rows import LATER_TABLES, SCHEMA, STRAYS, TABLES, WITH_SESSION, SqliteRows

APPLICATION_ID = 0x7369676E
WAKES_MAX = 10_000
"""How many wake-ups a node may leave unread, here or in the file. Beyond it they are dropped, and `*` stands for all."""

BUSY_TIMEOUT_S = 2.0
LISTEN_MS = 60_000
"""How long a node counts as listening without renewing it: a killed one is written to no longer than that."""

SWEPT_MAX = 1000
"""Chat histories and event queues of ended sessions that are removed each time it is renewed, in some hundredths of a second."""

ROOMS_SWEPT_MAX = 20
"""Rooms without members that are removed at the same times. A large one has tens of thousands of rows."""

IDLE_POLLS = 20
"""While no other node listens, the file is asked this many times more rarely."""

RETRY_S = 1.0
"""How long the listener waits before it asks a failing file again."""

log = structlog.get_logger(__name__)

_T = TypeVar("_T")


class _File:
    """The file as the worker thread sees it. Every method is one transaction, and none may be called twice at a time."""

    def __init__(self, connection: sqlite3.Connection, node: str, seals: Seals) -> None:
        self.node = node
        self.alone = True
        self.listens = False
        """Until it does, another process may listen under the name of this node: wake-ups for it are that one's as well."""
        self._sql = connection
        self.seals = seals
        self._rows = SqliteRows(connection, seals)
        self._version_of_rows = -1
        self._version_of_wakes = -1
        self._version_of_listeners = -1
        self._listeners: dict[str, int] = {}

    def execute(self, ops: Sequence[Op], now_ms: int) -> tuple[list[Result], list[Wake]]:
        """Carry out `ops`; return their results and the wake-ups for this very node."""
        writes = not all(op.reads for op in ops)
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
            if len(own) != len(wakes.sent) or (own and not self.listens):
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
            if op.damaged is None:
                raise
            return op.damaged

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
            is_own = node == self.node and self.listens
            if not is_own and self._listeners.get(node, 0) > now_ms:
                by_node.setdefault(node, []).append(wake)
        for node, wakes in by_node.items():
            bounds = "SELECT coalesce(min(number), 0), coalesce(max(number), -1) FROM wake WHERE node = ?"
            first, last = self._sql.execute(bounds, (node,)).fetchone()
            full = last + 1 - first + len(wakes) > WAKES_MAX
            if full:
                self._sql.execute("DELETE FROM wake WHERE node = ?", (node,))
            rows = [(node, number, wake) for number, wake in enumerate([WAKE_ALL] if full else wakes, last + 1)]
            self._sql.executemany("INSERT INTO wake VALUES (?, ?, ?)", rows)

    def reseal(self, of: Sealed, after: Row) -> tuple[Page, Row]:
        """As `reseal_page`."""
        with self._writing():
            return reseal_page(self._sql, self.seals, of, after)

    def listen(self, now_ms: int) -> list[Wake]:
        """Say that this node listens, from now on and for a while; drop the listeners that were killed."""
        self.listens = True
        with self._writing():
            self._sql.execute("REPLACE INTO listener VALUES (?, ?)", (self.node, now_ms + LISTEN_MS))
            dead = "SELECT node FROM listener WHERE until_ms <= ?"
            self._sql.execute(f"DELETE FROM wake WHERE node IN ({dead})", (now_ms,))  # noqa: S608
            self._sql.execute("DELETE FROM listener WHERE until_ms <= ?", (now_ms,))
            # Each session that ends does it as well; this is for a file in which none ends any more.
            drop_pasts(self._rows, now_ms, SWEPT_MAX)
            drop_queues(self._rows, now_ms, SWEPT_MAX)
            drop_rooms(self._rows, now_ms, ROOMS_SWEPT_MAX)
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
        self.seals = file.seals
        self._poll_interval_s = poll_interval_s
        self._thread = trio.CapacityLimiter(1)
        self._inbox: list[Wake] = []
        self._news = trio.Event()
        self._now_ms = 0
        self._listening = False

    lives = 1
    """See `Store.lives`: a file whose tail is lost has no process that goes on with it."""

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

    async def reseal(self) -> AsyncGenerator[Page, None]:
        """See `Resealable.reseal`."""
        for of in SEALED:
            after: Row = ()
            while True:
                page, after = await self._in_thread(self._file.reseal, of, after)
                yield page
                if not after:
                    break

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


def _text(kept: bytes) -> str:
    return kept.decode(errors="replace")


def _open(path: Path, node: str, seals: Seals, *, durable: bool, busy_timeout_s: float) -> _File:
    try:
        # Made here and not by SQLite, so that only the owner may read it: there are messages in it.
        opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        mode = os.fstat(opened).st_mode
        os.close(opened)
    except OSError as error:
        raise StoreMisused(f"cannot open {path} for reading and writing: {error.strerror}") from error
    if mode & 0o007:
        # The mode may be meant, for a backup; it is the operator's to change.
        log.warning("store_file_open_to_others", path=str(path), mode=oct(mode & 0o777), remedy=f"chmod o= {path}")
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
    return _File(connection, node, seals)


def _prepare(connection: sqlite3.Connection, path: Path, *, durable: bool) -> None:
    if _pragma(connection, "journal_mode = WAL") != "wal":
        raise StoreMisused(
            f"{path} lies on a file system without the shared memory that WAL needs; put it on a local disk"
        )
    connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
    connection.execute("PRAGMA wal_autocheckpoint = 4000")
    with _Writing(connection):
        if _pragma(connection, "application_id") == 0 and _pragma(connection, "schema_version") == 0:
            for statement in TABLES.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA}")
        if _pragma(connection, "application_id") == APPLICATION_ID:
            known = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'stray'").fetchone()
            for statement in (*LATER_TABLES.split(";"), *WITH_SESSION, *(() if known else STRAYS)):
                connection.execute(statement)
        if _pragma(connection, "application_id") != APPLICATION_ID:
            raise StoreMisused(f"{path} is a database of another program")
        if (found := _pragma(connection, "user_version")) != SCHEMA:
            raise StoreMisused(f"{path} has schema {found}, and this release of signald reads {SCHEMA}")


def _pragma(connection: sqlite3.Connection, text: str) -> object:
    return connection.execute(f"PRAGMA {text}").fetchone()[0]


@asynccontextmanager
async def open_sqlite(
    url: str,
    node: str,
    *,
    ack: str,
    poll_interval_s: float,
    busy_timeout_s: float = BUSY_TIMEOUT_S,
    seals: Seals | None = None,
) -> AsyncIterator[SqliteStore]:
    """Open the file of `url` (`sqlite:PATH`) for `node`, making it if there is none.

    `ack` is `process` or `disk`; `poll_interval_s` is how often the file is asked for what other processes did, and
    `busy_timeout_s` how long a batch waits for another process's. `seals` is how values are sealed; None: plain.

    Raises:
        StoreMisused: the URL, the file or what it holds is not what signald can use; or `ack` is `replica`.
        StoreUnavailable: the file is locked, or its disk is full or failing.
    """
    if ack not in {"process", "disk"}:
        raise StoreMisused(f"an SQLite store cannot promise ack={ack}: it has no replica; use process or disk")
    path = _path(url)
    durable = ack == "disk"
    file = await trio.to_thread.run_sync(
        lambda: _open(path, node, seals or Seals(), durable=durable, busy_timeout_s=busy_timeout_s)
    )
    store = SqliteStore(file, poll_interval_s)
    try:
        yield store
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 2 * busy_timeout_s):
            await store.close()
