"""Kept values of SQLite: packed, and sealed (seals.py), or with a CRC-32 alone where they are the registry's (damage.py)."""

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from msgspec import DecodeError, msgpack

from signald.store.damage import Unreadable, seal, unseal
from signald.store.seals import Seals

_T = TypeVar("_T")

_encode = msgpack.Encoder().encode


def pack(value: object) -> bytes:
    """Return `value` as it is kept."""
    return seal(_encode(value))


def unpack(decode: Callable[[bytes], _T], kept: object, what: str, of: str) -> _T:
    """Return what was kept by `pack`. Raises Unreadable, with `what` of the session, worker or node `of`, when it is damaged."""
    return decoded(decode, unseal(kept), what, of)


def decoded(decode: Callable[[bytes], _T], data: bytes | None, what: str, of: str) -> _T:
    """Return the value of opened data. Raises Unreadable as `unpack`."""
    if data is not None:
        with suppress(DecodeError):
            return decode(data)
    raise Unreadable(what, of)


class Rows:
    """The part of `SqliteRows` that its parts build on."""

    def __init__(self, connection: sqlite3.Connection, seals: Seals) -> None:
        self._sql = connection
        self._seals = seals

    def _pack(self, value: object, kind: bytes, owner: str, number: int = 0, name: str = "") -> bytes:
        """Return `value` as it is kept in its place."""
        return self._seals.wrap(_encode(value), kind, owner, number, name.encode())

    def _unpack(
        self,
        decode: Callable[[bytes], _T],
        kept: object,
        what: str,
        of: str,
        kind: bytes,
        owner: str,
        number: int = 0,
        name: str = "",
    ) -> _T:
        """Return what was kept by `_pack` in this place. Raises Unreadable as `unpack`."""
        return decoded(decode, self._seals.unwrap(kept, kind, owner, number, name.encode()), what, of)

    def _one(self, sql: str, *arguments: object) -> Any:
        row = self._sql.execute(sql, arguments).fetchone()
        return None if row is None else row[0]
