"""The sealed columns of the SQLite file, and their exchange for values under the key that seals (resealing.py)."""

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from signald.store.resealing import PAGE, Page
from signald.store.seals import Seals, room_owner

Row = Sequence[Any]


class Sealed(NamedTuple):
    """A column of sealed values."""

    table: str
    column: str
    keys: tuple[str, ...]
    """The primary key, by which the rows are gone through."""
    renew: Callable[[Seals, bytes, Row], bytes | None]
    """Seals a value again, by the keys and `more` of its row; None when it does not open."""
    more: tuple[str, ...] = ()
    """Columns beside the keys that its place is called by."""


def _numbered(kind: bytes) -> Callable[[Seals, bytes, Row], bytes | None]:
    return lambda seals, kept, row: seals.rewrap(kept, kind, row[0], row[1])


def _alone(kind: bytes) -> Callable[[Seals, bytes, Row], bytes | None]:
    return lambda seals, kept, row: seals.rewrap(kept, kind, row[0])


def _of_room(
    kind: bytes, *, numbered: bool = False, named: bool = False
) -> Callable[[Seals, bytes, Row], bytes | None]:
    def renew(seals: Seals, kept: bytes, row: Row) -> bytes | None:
        number, name = row[1] if numbered else 0, row[1].encode() if named else b""
        return seals.rewrap(kept, kind, room_owner(row[0]), number, name)

    return renew


SEALED = (
    Sealed("session", "record", ("session",), _alone(b"session")),
    Sealed("past", "record", ("session",), _alone(b"past")),
    Sealed("jobs", "record", ("session",), _alone(b"jobs")),
    Sealed("queue", "record", ("name",), _alone(b"queue")),
    Sealed("job", "record", ("session", "n"), _numbered(b"job")),
    Sealed("event", "event", ("name", "n"), _numbered(b"event")),
    Sealed(
        "entry",
        "body",
        ("session", "way", "seq"),
        lambda seals, kept, row: seals.rewrap(kept, row[1].encode(), row[0], row[2], crc=row[2]),
    ),
    Sealed(
        "history",
        "body",
        ("session", "number"),
        lambda seals, kept, row: seals.rewrap(kept, b"history", row[0], row[1], row[2].encode(), crc=row[1]),
        ("party",),
    ),
    Sealed(
        "job_input",
        "data",
        ("session", "n"),
        lambda seals, kept, row: seals.rewrap(kept, b"input", row[0], row[1], crc=row[1]),
    ),
    Sealed(
        "piece",
        "body",
        ("session", "n", "number"),
        lambda seals, kept, row: seals.rewrap(kept, b"piece", row[0], row[3], b"%d.%d" % (row[1], row[2]), crc=row[3]),
        ("seq",),
    ),
    Sealed(
        "stream",
        "record",
        ("session", "way", "name"),
        lambda seals, kept, row: seals.rewrap(kept, b"stream", row[0], 0, (row[1] + row[2]).encode()),
    ),
    Sealed("step", "step", ("number",), lambda seals, kept, row: seals.recover(kept, b"step", row[1]), ("session",)),
    Sealed("room", "snapshot", ("room",), _of_room(b"snapshot")),
    Sealed("room_member", "presence", ("room", "member"), _of_room(b"presence", named=True)),
    Sealed("room_entry", "record", ("room", "position"), _of_room(b"publication", numbered=True)),
    Sealed("room_record", "record", ("room", "id"), _of_room(b"record", named=True)),
)
"""Each column that a key may seal; a test compares them with what is kept."""


def reseal_page(connection: sqlite3.Connection, seals: Seals, of: Sealed, after: Row) -> tuple[Page, Row]:
    """Reseal the next rows of a column, behind the keys `after`, within the transaction of the caller.

    Returns what became of them, and the keys of the last one; none: they were the last.
    """
    keys = ", ".join(of.keys)
    behind = f"WHERE ({keys}) > ({', '.join('?' * len(of.keys))}) " if after else ""
    columns = ", ".join((*of.keys, *of.more, of.column))
    sql = f"SELECT {columns} FROM {of.table} {behind}ORDER BY {keys} LIMIT {PAGE}"  # noqa: S608
    page, changes = Page(), []
    rows = connection.execute(sql, tuple(after)).fetchall()
    for *row, kept in rows:
        if kept is None or kept == b"":
            continue
        page.read += 1
        new = _renewed(seals, of, kept, row)
        if new is None:
            page.unreadable += 1
        elif new == kept:
            page.current += 1
        else:
            page.exchanged += 1
            changes.append((new, *row[: len(of.keys)]))
    where = " AND ".join(f"{key} = ?" for key in of.keys)
    connection.executemany(f"UPDATE {of.table} SET {of.column} = ? WHERE {where}", changes)  # noqa: S608
    return page, rows[-1][: len(of.keys)] if len(rows) == PAGE else ()


def _renewed(seals: Seals, of: Sealed, kept: object, row: Row) -> bytes | None:
    try:
        return of.renew(seals, kept, row) if type(kept) is bytes else None
    except (AttributeError, TypeError, ValueError):
        return None  # a key that is damaged: its row is lost already
