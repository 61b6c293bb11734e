"""What release 0.1.0 does to a session in an SQLite file, and how that is mended.

It reads a record without the fields that came after it, and saves it without them. What must outlive that has a row in a table that it
does not touch, written only when one of these values is another than at first, and changes. A record that has too few fields was
saved by an earlier release: then these values are taken from there, and counted anew where the file tells.

What else is lost is harmless. `failed` counts anew. `up_ahead`, `down_ahead` and `up_heard` speak of a store that has lost messages,
and are no longer true once another release has gone on. `hand_outs` is for information. `state` is lost to the next worker, as it is
when 0.1.0 hands the session on.
"""

import sqlite3
from collections.abc import Iterable

from signald.store.session.records import Record

TABLE = """
CREATE TABLE IF NOT EXISTS later (session TEXT PRIMARY KEY, pair INTEGER NOT NULL, jobs INTEGER NOT NULL, streams INTEGER NOT NULL)
    WITHOUT ROWID
"""
"""Made like those of `LATER_TABLES`."""

JOBS_LEFT_MS = 604_800_000
"""For how long the jobs of a session that 0.1.0 has ended are kept if nothing asks for them: the longest `jobs.keep_s`."""

TRIGGERS = (
    """CREATE TRIGGER IF NOT EXISTS record_is_gone AFTER DELETE ON session
    BEGIN DELETE FROM later WHERE session = OLD.session; END""",
    f"""CREATE TRIGGER IF NOT EXISTS jobs_are_left AFTER DELETE ON session
    BEGIN UPDATE jobs SET until_ms = 1000 * CAST(strftime('%s', 'now') AS INTEGER) + {JOBS_LEFT_MS}
    WHERE session = OLD.session AND until_ms = 0; END""",  # noqa: S608
)
"""The file's own, so an earlier release carries them out without knowing them. This one has said before it removes a session until when
its jobs are kept."""

KNOWN_MAX = 10_000
"""How many rows are remembered, so that one is written only when it changes."""

_ARRAY = 0xDC
_FIELDS = len(Record.__struct_fields__)
_BEGINS_NO_ENTRY = "party IN ('client*', 'worker*') AND substr(body, 1, 3) <> CAST('p0 ' AS BLOB)"
"""As `core.chat_history.is_part`."""


_NOTE = """INSERT INTO later VALUES (?, ?, ?, ?) ON CONFLICT (session)
    DO UPDATE SET pair = excluded.pair, jobs = excluded.jobs, streams = excluded.streams
    WHERE (pair, jobs, streams) <> (excluded.pair, excluded.jobs, excluded.streams)"""


def is_cut(packed: bytes) -> bool:
    """Tell whether a record that can be read was saved by an earlier release."""
    return packed[0] == _ARRAY and int.from_bytes(packed[1:3], "big") < _FIELDS


class Later:
    """See the module."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._sql = connection
        self._known: dict[str, tuple[bool, int, int]] = {}

    def forget(self) -> None:
        """Believe nothing that was written: the file has changed, or the batch was rolled back."""
        self._known.clear()

    def note(self, records: Iterable[Record]) -> None:
        """Write what is worth a row of records that are saved."""
        for record in records:
            if record.jobs or record.streams or not record.pair:
                values = record.pair, record.jobs, record.streams
                if self._known.get(record.session) != values:
                    self._sql.execute(_NOTE, (record.session, *values))
                    self._known[record.session] = values
        if len(self._known) > KNOWN_MAX:
            self._known.clear()

    def mend(self, record: Record) -> None:
        """Give back to a record what an earlier release has not saved with it."""
        session = record.session
        found = self._sql.execute("SELECT pair, jobs, streams FROM later WHERE session = ?", (session,)).fetchone()
        if found is not None:
            record.pair, record.jobs, record.streams = bool(found[0]), found[1], found[2]
        # It drops items of the history without counting them.
        parts = f"SELECT count(*) FROM history WHERE session = ? AND {_BEGINS_NO_ENTRY}"  # noqa: S608
        record.history_parts = self._sql.execute(parts, (session,)).fetchone()[0]
