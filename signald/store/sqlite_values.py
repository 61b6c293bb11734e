"""Kept values of SQLite: packed, and sealed (damage.py)."""

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from msgspec import DecodeError, msgpack

from signald.store.damage import Unreadable, seal, unseal

_T = TypeVar("_T")

_encode = msgpack.Encoder().encode


def pack(value: object) -> bytes:
    """Return `value` as it is kept."""
    return seal(_encode(value))


def unpack(decode: Callable[[bytes], _T], kept: object, what: str, of: str) -> _T:
    """Return what was kept by `pack`. Raises Unreadable, with `what` of the session, worker or node `of`, when it is damaged."""
    data = unseal(kept)
    if data is not None:
        with suppress(DecodeError):
            return decode(data)
    raise Unreadable(what, of)


class Rows:
    """The part of `SqliteRows` that its parts build on."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._sql = connection

    def _one(self, sql: str, *arguments: object) -> Any:
        row = self._sql.execute(sql, arguments).fetchone()
        return None if row is None else row[0]
