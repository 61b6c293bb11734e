"""What an earlier release leaves out of a record in a file, and what comes back."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import msgspec
import pytest

from signald.core.callers import ALL
from signald.core.life import EVENTS_LEFT_MS
from signald.store.damage import seal, unseal
from signald.store.session.events.ops import DropEvents, EventsRead, ReadEvents
from signald.store.session.jobs.ops import CancelJob
from signald.store.session.ops import Detach, EndSession, Look, Looked
from signald.store.session.records import Record
from signald.store.session.streams.ops import CancelStream
from signald.store.sqlite import SqliteStore, open_sqlite
from signald.store.sqlite_later import TABLE, Later
from tests.store.ops import NOW_MS, SESSION, append, claim_side, create, create_job, entries, piece

pytestmark = pytest.mark.real

FIELDS_OF_0_1_0 = 21
"""`Record` ends there with `said_before`."""


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[SqliteStore]:
    """A node on the file."""
    async with open_sqlite(f"sqlite:{path}", "a", ack="process", poll_interval_s=0.01) as store:
        yield store


def rows(path: Path, sql: str) -> list[tuple[object, ...]]:
    """Ask the file."""
    with closing(sqlite3.connect(path)) as file:
        return file.execute(sql).fetchall()


def save_as_0_1_0(path: Path) -> None:
    """Save every record as release 0.1.0 does."""
    with closing(sqlite3.connect(path)) as file, file:
        for session, kept in file.execute("SELECT session, record FROM session").fetchall():
            data = unseal(kept)
            assert data is not None
            cut = msgspec.msgpack.encode(msgspec.msgpack.decode(data)[:FIELDS_OF_0_1_0])
            file.execute("REPLACE INTO session VALUES (?, ?)", (session, seal(cut)))


async def head_fields(store: SqliteStore) -> tuple[bool, int, int]:
    """Return `pair`, `jobs` and `streams` of the head."""
    (looked,) = await store.execute([Look(SESSION, "client", 0, 0)])
    assert isinstance(looked, Looked)
    return looked.head.pair, looked.head.jobs, looked.head.streams


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where there is no file yet."""
    return tmp_path / "signald.db"


async def test_a_job_and_a_stream_come_back(path: Path) -> None:
    """The numbers by which nodes hear of jobs and streams go on from where they were, and changes are told."""
    async with opened(path) as store:
        await store.execute([create(), claim_side(), create_job(), append((piece(1, "x"),), party="worker")])
        before = await head_fields(store)
        assert before == (True, 1, 1)
        save_as_0_1_0(path)
        assert await head_fields(store) == before
        await store.execute(
            [CancelStream(SESSION, "down", "a", "", ALL, "a"), CancelJob(SESSION, 1, ALL, "a", 0, NOW_MS)]
        )
        pair, jobs, streams = await head_fields(store)
        assert (pair, jobs > 1, streams > 1) == (True, True, True)
        save_as_0_1_0(path)
        assert await head_fields(store) == (pair, jobs, streams)


async def test_a_session_that_wants_no_worker_wants_none_again(path: Path) -> None:
    """`pair` is as it was, also for a node that has just started."""
    async with opened(path) as store:
        await store.execute([create(pair=False)])
    save_as_0_1_0(path)
    async with opened(path) as store:
        assert await head_fields(store) == (False, 0, 0)


async def test_parts_of_the_history_are_counted(path: Path) -> None:
    """The pieces of a text are one entry still: no message gives way for them."""
    async with opened(path) as store:
        said = [
            append(entries(1, 2, history=True)),
            append(tuple(piece(seq, "x") for seq in range(1, 8)), party="worker"),
        ]
        await store.execute([create(), claim_side(), *said])
        save_as_0_1_0(path)
        await store.execute([append(entries(3, 3, history=True), history_max=4)])
        assert rows(path, "SELECT count(*) FROM history") == [(10,)]


async def test_a_plain_session_has_no_row(path: Path) -> None:
    """A session without any of it costs no row, and the row of one with it goes with the session."""
    async with opened(path) as store:
        await store.execute([create(), append(entries(1, 2, history=True)), create("s_2", pair=False)])
        assert rows(path, "SELECT session FROM later") == [("s_2",)]
        await store.execute([EndSession("s_2", "a", NOW_MS)])
        assert rows(path, "SELECT session FROM later") == []


def test_a_row_is_written_when_it_changes() -> None:
    """A record that is saved again for a message writes no row beside it, also after another process has written."""
    record = Record(SESSION, NOW_MS, "", {}, b"", False, 1000, jobs=1)
    with closing(sqlite3.connect(":memory:")) as file:
        file.execute(TABLE)
        later = Later(file)
        for jobs, changes in ((1, 1), (1, 1), (2, 2)):
            record.jobs = jobs
            later.note([record])
            later.note([record])
            later.forget()
            assert file.total_changes == changes


async def test_what_is_told_comes_back(path: Path) -> None:
    """Whether the session is told, and the number of its last event, are as they were, also after the queue was emptied."""
    async with opened(path) as store:
        await store.execute([create(events_max=7), DropEvents(SESSION, 1, NOW_MS)])
        save_as_0_1_0(path)
        await store.execute([Detach(SESSION, "client", "a", 1, NOW_MS)])
        save_as_0_1_0(path)
        looked, read = await store.execute([Look(SESSION, "client", 0, 0), ReadEvents(SESSION, 9)])
        assert isinstance(looked, Looked)
        assert isinstance(read, EventsRead)
        assert (looked.head.events, looked.head.events_max) == (2, 7)
        assert [event.n for event in read.events] == [2]


async def test_a_session_that_is_not_told_has_no_queue(path: Path) -> None:
    """An earlier release costs it nothing, and its records are read as before."""
    async with opened(path) as store:
        await store.execute([create(), claim_side()])
        save_as_0_1_0(path)
        (looked,) = await store.execute([Look(SESSION, "client", 0, 0)])
        assert isinstance(looked, Looked)
        assert (looked.head.events, looked.head.events_max) == (0, 0)
        assert rows(path, "SELECT name FROM queue") == []


async def test_an_earlier_release_ends_a_session(path: Path) -> None:
    """What it had to tell waits for its time, and goes once that is over."""
    async with opened(path) as store:
        await store.execute([create(events_max=7), create("s_2", events_max=7)])
        before_ms = store.now_ms()
        with closing(sqlite3.connect(path)) as file, file:
            file.execute("DELETE FROM session WHERE session = ?", (SESSION,))
        ((until_ms, other_ms),) = rows(
            path,
            "SELECT one.until_ms, two.until_ms FROM queue one, queue two WHERE one.name = 's_1' AND two.name = 's_2'",
        )
        assert isinstance(until_ms, int)
        assert other_ms == 0
        assert before_ms - 1000 <= until_ms - EVENTS_LEFT_MS <= store.now_ms()
        (read,) = await store.execute([ReadEvents(SESSION, 9)])
        assert isinstance(read, EventsRead)
        assert [event.type for event in read.events] == ["session.started"]
        assert rows(path, f"SELECT 1 FROM queue WHERE until_ms <= {until_ms - 1} AND until_ms > 0") == []
        await store.execute([EndSession("s_2", "a", until_ms)])
        assert rows(path, "SELECT name FROM queue") == [("s_2",)]
        assert rows(path, "SELECT DISTINCT name FROM event") == [("s_2",)]
