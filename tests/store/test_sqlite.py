"""What is SQLite's own: the file, other processes, failures, and what is kept between batches."""

import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, closing
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs

from signald.errors import StoreMisused, StoreUnavailable
from signald.store import sqlite, sqlite_rows
from signald.store.base import Done, Op, Wake
from signald.store.registry.ops import GetReceipt, PutReceipt, Signal
from signald.store.session.ops import OVER_MS, Appended, EndSession, Look, Looked, NoSession
from signald.store.sqlite import SqliteStore, open_sqlite
from tests.store.ops import NOW_MS, SESSION, append, create, create_job, entries, head

pytestmark = pytest.mark.real


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where there is no file yet."""
    return tmp_path / "signald.db"


def opened(
    path: Path, node: str = "a", *, ack: str = "process", busy_timeout_s: float = 0.1
) -> AbstractAsyncContextManager[SqliteStore]:
    """Open the file at `path`."""
    return open_sqlite(f"sqlite:{path}", node, ack=ack, poll_interval_s=0.002, busy_timeout_s=busy_timeout_s)


def with_mode(path: Path, mode: int) -> None:
    """Make the file with `mode`, whatever the mask of this process."""
    path.touch()
    path.chmod(mode)


async def refusal(path: Path, *, ack: str = "process") -> str:
    """Return the words in which a file is refused."""
    with pytest.raises(StoreMisused) as refused:
        async with opened(path, ack=ack):
            pass
    return str(refused.value)


def rows(path: Path, sql: str) -> list[tuple[object, ...]]:
    """Ask the file itself."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


async def first(wakes: AsyncIterator[list[Wake]]) -> list[Wake]:
    """Wait for the next wake-ups."""
    with trio.fail_after(10):
        return await anext(wakes)


class TestFile:
    """The file."""

    async def test_lasts(self, path: Path) -> None:
        """What was stored is there when the file is opened again."""
        async with opened(path) as store:
            await store.execute([create(), append(entries(1, 3, history=True))])
        async with opened(path, "b") as store:
            (found,) = await store.execute([Look(SESSION, "worker", 0, 9)])
        assert found == Looked(head(up_last=3), entries(1, 3, history=True))

    async def test_private(self, path: Path) -> None:
        """Only its owner may read the file and what SQLite puts beside it."""
        async with opened(path) as store:
            await store.execute([create()])
            files = list(path.parent.iterdir())
            assert len(files) == 3
            assert {file.stat().st_mode & 0o777 for file in files} == {0o600}

    async def test_durability(self, path: Path) -> None:
        """`disk` waits for the disk at every commit, `process` does not, `replica` cannot be promised."""
        synchronous = {}
        for ack in ("process", "disk"):
            async with opened(path, ack=ack) as store:
                connection = store._file._sql
                synchronous[ack] = connection.execute("PRAGMA synchronous").fetchone()[0]
        assert synchronous == {"process": 1, "disk": 2}
        assert "no replica" in await refusal(path, ack="replica")

    async def test_opened_at_once(self, path: Path) -> None:
        """Several nodes may make and open one file at the same moment."""
        done = []

        async def one(node: str) -> None:
            async with opened(path, node, busy_timeout_s=5) as store:
                done.extend(await store.execute([Signal("x", b"n")]))

        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(one, f"n{number}")
        assert done == [Done()] * 8

    async def test_missing_directory(self, tmp_path: Path) -> None:
        """A file that cannot be made is refused, and the reason is given."""
        assert "No such file or directory" in await refusal(tmp_path / "nowhere" / "signald.db")
        assert "Is a directory" in await refusal(tmp_path)

    async def test_not_a_database(self, path: Path) -> None:
        """A file of something else is refused and left as it is."""
        file = trio.Path(path)
        await file.write_bytes(b"these are my notes " * 100)
        assert "not a database" in await refusal(path)
        assert await file.read_bytes() == b"these are my notes " * 100

    async def test_of_another_program(self, path: Path) -> None:
        """A database of another program is refused."""
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE mine (x)")
        assert "another program" in await refusal(path)
        assert rows(path, "SELECT name FROM sqlite_master") == [("mine",)]

    async def test_other_schema(self, path: Path) -> None:
        """A file of another schema is refused."""
        async with opened(path):
            pass
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA user_version = 99")
        assert "schema 99" in await refusal(path)


class TestFailures:
    """What fails is not answered, changes nothing, and may be sent again."""

    async def test_locked(self, path: Path) -> None:
        """While another process holds the file for too long it is unavailable; afterwards all is well."""
        async with opened(path) as store:
            await store.execute([create()])
            with closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                with pytest.raises(StoreUnavailable):
                    await store.execute([append(entries(1, 1))])
                with pytest.raises(StoreUnavailable):
                    await store.check()
                assert await store.execute([Look(SESSION, "worker", 0, 9)]) == [Looked(head(), ())]
                other.execute("ROLLBACK")
            assert await store.execute([append(entries(1, 1))]) == [Appended(1, 0, "")]
            await store.check()

    async def test_rolled_back(self, path: Path) -> None:
        """A batch that breaks in its middle has not happened, neither in the file nor in what is kept of it."""

        class Unheard(Op, frozen=True):
            pass

        async with opened(path) as store:
            await store.execute([create()])
            with pytest.raises(KeyError):
                await store.execute([append(entries(1, 1)), create("s_2"), Unheard()])
            found = await store.execute([Look(SESSION, "worker", 0, 9), Look("s_2", "worker", 0, 9)])
            assert found == [Looked(head(), ()), NoSession()]
            assert await store.execute([append(entries(1, 1))]) == [Appended(1, 0, "")]

    async def test_full(self, path: Path) -> None:
        """A full disk makes the file unavailable; with room again the same batch comes through."""
        async with opened(path) as store:
            connection = store._file._sql
            await store.execute([create()])
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
            connection.execute(f"PRAGMA max_page_count = {pages + 1}")
            big = append(entries(1, 4, text="x" * 20_000, history=True))
            with pytest.raises(StoreUnavailable, match="full"):
                await store.execute([big])
            assert await store.execute([Look(SESSION, "worker", 0, 9)]) == [Looked(head(), ())]
            connection.execute("PRAGMA max_page_count = 100000")
            assert await store.execute([big]) == [Appended(4, 0, "")]

    async def test_killed(self, path: Path) -> None:
        """A node killed in the middle of its work leaves a sound file with everything in it that was answered."""
        script = (
            "import sys, trio\n"
            "from tests.store.ops import append, create, entries\n"
            "from signald.store.sqlite import open_sqlite\n"
            "async def main():\n"
            "    async with open_sqlite(sys.argv[1], 'a', ack='process', poll_interval_s=1) as store:\n"
            "        await store.execute([create()])\n"
            "        for seq in range(1, 100_000):\n"
            "            batch = append(entries(seq, seq, history=True), backlog_max=10**6)\n"
            "            print((await store.execute([batch]))[0].last, flush=True)\n"
            "trio.run(main)\n"
        )
        command = [sys.executable, "-c", script, f"sqlite:{path}"]
        process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        told = b""
        with trio.fail_after(30):
            try:
                while told.count(b"\n") < 100:
                    told += await process.stdout.receive_some()
            finally:
                process.kill()
            async for rest in process.stdout:
                told += rest
            assert await process.wait() == -signal.SIGKILL
        answered = int(told[: told.rindex(b"\n")].split()[-1])
        async with opened(path, "b", busy_timeout_s=5) as store:
            (found,) = await store.execute([Look(SESSION, "worker", 0, 10**6)])
            assert isinstance(found, Looked)
            assert found.entries == entries(1, found.head.up_last, history=True)
            assert found.head.up_last in (answered, answered + 1)
        assert rows(path, "PRAGMA integrity_check") == [("ok",)]


class TestCache:
    """What is kept between batches."""

    async def test_other_process(self, path: Path) -> None:
        """What is kept is never believed against the file: nodes that write in turn see each other's every step."""
        async with opened(path) as one, opened(path, "b") as other:
            await one.execute([create()])
            for seq in range(1, 20):
                store = one if seq % 2 else other
                (result,) = await store.execute([append(entries(seq, seq))])
                assert result == Appended(seq, 0, "")

    async def test_bounded(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Only so many records are kept; the others are read again."""
        monkeypatch.setattr(sqlite_rows, "RECORDS_MAX", 3)
        names = [f"s_{number}" for number in range(10)]
        async with opened(path) as store:
            for seq in range(3):
                if not seq:
                    await store.execute([create(name) for name in names])
                else:
                    results = await store.execute([append(entries(seq, seq), session=name) for name in names])
                    assert results == [Appended(seq, 0, "")] * 10
                assert len(store._file._rows._records) == 3

    async def test_reads_take_no_lock(self, path: Path) -> None:
        """A batch that only reads goes on while another process writes."""
        async with opened(path) as store:
            await store.execute([create()])
            with closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                assert await store.execute([Look(SESSION, "client", 0, 9)]) == [Looked(head(), ())]


class TestWakes:
    """Wake-ups between processes."""

    async def test_taken_once(self, path: Path) -> None:
        """A wake-up that was read is gone from the file."""
        async with opened(path) as one, opened(path, "b") as other:
            wakes = other.wakes()
            assert await first(wakes) == [b"*"]
            await one.execute([Signal("b", b"r1"), Signal("b", b"r2")])
            assert await first(wakes) == [b"r1", b"r2"]
            assert rows(path, "SELECT * FROM wake") == []

    async def test_nobody_listens(self, path: Path) -> None:
        """For a node that is not there nothing is put into the file, and a node that closes leaves nothing."""
        async with opened(path) as one:
            async with opened(path, "b") as other:
                await first(other.wakes())
                await one.execute([Signal("b", b"r1"), Signal("c", b"r1")])
                assert rows(path, "SELECT node FROM wake") == [("b",)]
            assert rows(path, "SELECT * FROM wake") == []
            await one.execute([Signal("b", b"r2")])
            assert rows(path, "SELECT * FROM wake") == []
            assert rows(path, "SELECT * FROM listener") == []

    async def test_bounded(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Beyond the bound a node that does not read is told once to look at everything."""
        monkeypatch.setattr(sqlite, "WAKES_MAX", 5)
        async with opened(path) as one, opened(path, "b") as other:
            wakes = other.wakes()
            await first(wakes)
            for number in range(6):
                await one.execute([Signal("b", b"r%d" % number), Signal("a", b"r%d" % number)])
            assert await first(wakes) == [b"*"]
            mine = one.wakes()
            assert await first(mine) == [b"*"]
            assert await first(mine) == [b"*"]

    async def test_a_process_that_does_not_listen_wakes_its_namesake(self, path: Path) -> None:
        """A process that asks for the id of a live node wakes that node, and takes none of its wake-ups."""
        async with opened(path) as holder, opened(path) as asking:
            wakes = holder.wakes()
            await first(wakes)
            await asking.execute([Signal("a", b"n")])
            assert await first(wakes) == [b"n"]
        assert rows(path, "SELECT * FROM wake") == []

    async def test_long_asleep(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A node that did not renew its listening is told nothing; when it wakes up it looks at everything."""
        listen_ms = sqlite.LISTEN_MS
        monkeypatch.setattr(sqlite, "LISTEN_MS", 50)
        async with opened(path) as one, opened(path, "b") as other:
            wakes = other.wakes()
            await first(wakes)
            await trio.sleep(0.06)
            await one.execute([Signal("b", b"r1")])
            assert rows(path, "SELECT * FROM wake") == []
            # From here on the node listens for as long as usual, however busy this machine is.
            monkeypatch.setattr(sqlite, "LISTEN_MS", listen_ms)
            assert await first(wakes) == [b"*"]
            await one.execute([Signal("b", b"r2")])
            assert await first(wakes) == [b"r2"]

    async def test_killed_listener_is_dropped(self, path: Path) -> None:
        """What was meant for a killed node goes when its listening has ended."""
        async with opened(path) as one:
            with closing(sqlite3.connect(path)) as other:
                other.execute("INSERT INTO listener VALUES ('dead', 5)")
                other.execute("INSERT INTO wake VALUES ('dead', 0, x'2a')")
                other.commit()
            await first(one.wakes())
            assert rows(path, "SELECT * FROM wake") == []
            assert rows(path, "SELECT node FROM listener") == [("a",)]

    async def test_stays_on_while_locked(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The listener outlives a file that is locked for long, and then looks at everything."""
        monkeypatch.setattr(sqlite, "RETRY_S", 0.01)
        async with opened(path, busy_timeout_s=0.01) as one, trio.open_nursery() as nursery:
            with closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                heard: list[list[Wake]] = []

                async def listen() -> None:
                    heard.append(await first(one.wakes()))

                nursery.start_soon(listen)
                await trio.sleep(0.05)
                assert heard == []
                other.execute("ROLLBACK")
        assert heard == [[b"*"]]


async def test_jobs_of_ended_sessions_are_removed(path: Path) -> None:
    """What is kept of the jobs of ended sessions is removed once its time is over, while other sessions make jobs or end."""
    tables = ("jobs", "job", "job_input")

    def rows() -> list[int]:
        with closing(sqlite3.connect(path)) as sql:
            return [sql.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables]

    async with opened(path) as store:
        for number in range(3):
            await store.execute([create(f"s_{number}"), create_job(f"s_{number}", keep_ms=1000)])
        assert rows() == [3, 3, 3]
        await store.execute([EndSession("s_0", "a", NOW_MS), EndSession("s_1", "a", NOW_MS)])
        assert rows() == [3, 3, 1]
        over_ms = NOW_MS + 1000 + OVER_MS
        await store.execute([create_job("s_2", key=b"early", now_ms=over_ms - 1)])
        assert rows() == [3, 4, 2]
        await store.execute([create_job("s_2", key=b"due", now_ms=over_ms)])
        assert rows() == [1, 3, 3]


async def test_chat_histories_of_ended_sessions_are_removed(path: Path) -> None:
    """Once its time is over a history is removed by the next session that ends, or by a node that says it listens."""

    def left() -> list[int]:
        with closing(sqlite3.connect(path)) as sql:
            return [
                sql.execute(f"SELECT count(DISTINCT session) FROM {table}").fetchone()[0]
                for table in ("past", "history")
            ]

    async with opened(path) as store:
        for number in range(3):
            await store.execute([create(f"s_{number}"), append(entries(1, 2, history=True), session=f"s_{number}")])
        await store.execute([EndSession("s_0", "a", NOW_MS, 1000)])
        over_ms = NOW_MS + 1000 + OVER_MS
        await store.execute([EndSession("s_1", "a", over_ms - 1, 1000)])
        assert left() == [2, 3]
        await store.execute([EndSession("s_2", "a", over_ms, 1000)])
        assert left() == [2, 2]
    with closing(sqlite3.connect(path)) as sql, sql:
        sql.execute("UPDATE past SET until_ms = ? WHERE session = 's_2'", (1 << 52,))
    async with opened(path) as store:
        await anext(store.wakes())
        assert left() == [1, 1]


async def test_many_receipts(path: Path) -> None:
    """The ledgers that are dropped are those of the longest ago, whatever their nodes are called."""
    async with opened(path) as store:
        await store.execute([PutReceipt(f"n{number % 150}", b"%d" % number, NOW_MS + number) for number in range(300)])
        assert rows(path, "SELECT count(*) FROM receipt") == [(100,)]
        found = await store.execute([GetReceipt("n149"), GetReceipt("n49")])
        assert [getattr(text, "body", None) for text in found] == [b"299", b""]


async def test_a_file_that_others_may_read_is_said(path: Path) -> None:
    """Messages and token hashes lie in the file: one that was made readable for others is named with what to do."""
    with_mode(path, 0o644)
    with capture_logs() as logs:
        async with opened(path):
            pass
    (said,) = [line for line in logs if line["event"] == "store_file_open_to_others"]
    assert (said["path"], said["mode"], said["remedy"]) == (str(path), "0o644", f"chmod o= {path}")
    with_mode(path, 0o640)
    with capture_logs() as logs:
        async with opened(path):
            pass
    assert not logs
