"""How SQLite keeps jobs: the tables, and the part of `SqliteRows` for them (sqlite_rows.py)."""

from msgspec import msgpack

from signald.core.jobs import Job
from signald.core.log import Entry
from signald.store.damage import REPORTS, Unreadable
from signald.store.session.jobs.records import Jobs
from signald.store.sqlite_values import Rows

TABLES = """
CREATE TABLE IF NOT EXISTS jobs (session TEXT PRIMARY KEY, until_ms INTEGER NOT NULL, record BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS jobs_by_end ON jobs (until_ms) WHERE until_ms > 0;
CREATE TABLE IF NOT EXISTS job (session TEXT, n INTEGER, place INTEGER NOT NULL, job_key BLOB NOT NULL, record BLOB NOT NULL,
    PRIMARY KEY (session, n)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS job_of_key ON job (session, job_key);
CREATE INDEX IF NOT EXISTS job_by_place ON job (session, place) WHERE place > 0;
CREATE TABLE IF NOT EXISTS job_input (session TEXT, n INTEGER, data BLOB NOT NULL, PRIMARY KEY (session, n));
CREATE TABLE IF NOT EXISTS piece (session TEXT, n INTEGER, number INTEGER, seq INTEGER NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (session, n, number)) WITHOUT ROWID
"""
"""They are made like those of `LATER_TABLES`."""

_jobs = msgpack.Decoder(Jobs).decode
_job = msgpack.Decoder(Job).decode


class SqliteJobs(Rows):
    """See the module. What is damaged is reported, and counts as absent."""

    def jobs(self, session: str) -> Jobs | None:
        packed = self._one("SELECT record FROM jobs WHERE session = ?", session)
        try:
            return None if packed is None else self._unpack(_jobs, packed, "jobs", session, b"jobs", session)
        except Unreadable as error:
            REPORTS.tell(error.what, error.of)
            return None

    def save_jobs(self, jobs: Jobs) -> None:
        until_ms = jobs.until_ms if jobs.over else 0
        self._sql.execute(
            "REPLACE INTO jobs VALUES (?, ?, ?)", (jobs.session, until_ms, self._pack(jobs, b"jobs", jobs.session))
        )

    def drop_jobs(self, session: str) -> None:
        for table in ("jobs", "job", "job_input", "piece"):
            self._sql.execute(f"DELETE FROM {table} WHERE session = ?", (session,))  # noqa: S608

    def jobs_over(self, until_ms: int, limit: int) -> list[str]:
        # One that a node has given back after it was removed as damaged has jobs that a trigger took for left (sqlite_later.py).
        sql = (
            "SELECT session FROM jobs WHERE until_ms > 0 AND until_ms <= ? "
            "AND NOT EXISTS (SELECT 1 FROM session WHERE session.session = jobs.session) LIMIT ?"
        )
        return [session for (session,) in self._sql.execute(sql, (until_ms, limit))]

    def job(self, session: str, n: int) -> Job | None:
        packed = self._one("SELECT record FROM job WHERE session = ? AND n = ?", session, n)
        try:
            return None if packed is None else self._unpack(_job, packed, "job", session, b"job", session, n)
        except Unreadable as error:
            REPORTS.tell(error.what, error.of)
            return None

    def save_job(self, session: str, job: Job) -> None:
        row = (session, job.n, job.place, job.key, self._pack(job, b"job", session, job.n))
        self._sql.execute("REPLACE INTO job VALUES (?, ?, ?, ?, ?)", row)

    def drop_job(self, session: str, n: int) -> None:
        for table in ("job", "job_input", "piece"):
            self._sql.execute(f"DELETE FROM {table} WHERE session = ? AND n = ?", (session, n))  # noqa: S608

    def job_of_key(self, session: str, key: bytes) -> int:
        return self._one("SELECT n FROM job WHERE session = ? AND job_key = ?", session, key) or 0

    def job_at(self, session: str, place: int) -> int:
        return self._one("SELECT n FROM job WHERE session = ? AND place = ? AND place > 0", session, place) or 0

    def put_input(self, session: str, n: int, data: bytes) -> None:
        self._sql.execute(
            "REPLACE INTO job_input VALUES (?, ?, ?)", (session, n, self._seals.wrap(data, b"input", session, n, crc=n))
        )

    def input(self, session: str, n: int) -> bytes | None:
        kept = self._one("SELECT data FROM job_input WHERE session = ? AND n = ?", session, n)
        data = self._seals.unwrap(kept, b"input", session, n, crc=n)
        if data is None:
            REPORTS.tell("input of a job", session)
        return data

    def drop_input(self, session: str, n: int) -> None:
        self._sql.execute("DELETE FROM job_input WHERE session = ? AND n = ?", (session, n))

    def put_piece(self, session: str, n: int, number: int, piece: Entry) -> None:
        kept = self._seals.wrap(piece.body, b"piece", session, piece.seq, b"%d.%d" % (n, number), crc=piece.seq)
        row = (session, n, number, piece.seq, kept)
        self._sql.execute("REPLACE INTO piece VALUES (?, ?, ?, ?, ?)", row)

    def drop_pieces(self, session: str, n: int, last: int) -> None:
        self._sql.execute("DELETE FROM piece WHERE session = ? AND n = ? AND number <= ?", (session, n, last))

    def pieces(self, session: str, n: int, first: int, last: int) -> list[Entry]:
        return self._pieces("number BETWEEN ? AND ? ORDER BY number", session, n, first, last)

    def pieces_after(self, session: str, job: Job, seq: int, limit: int) -> list[Entry]:
        return self._pieces("seq > ? ORDER BY number LIMIT ?", session, job.n, seq, limit)

    def _pieces(self, where: str, session: str, n: int, *arguments: int) -> list[Entry]:
        found: list[Entry] = []
        sql = f"SELECT seq, body, number FROM piece WHERE session = ? AND n = ? AND {where}"  # noqa: S608
        for seq, kept, number in self._sql.execute(sql, (session, n, *arguments)):
            body = None
            if type(seq) is int and seq >= 0:
                body = self._seals.unwrap(kept, b"piece", session, seq, b"%d.%d" % (n, number), crc=seq)
            if body is None:
                REPORTS.tell("piece of a job", session)
            else:
                found.append(Entry(seq, body))
        return found
