"""The sealed values of Redis, and their exchange for values under the key that seals (resealing.py).

    SCAN ▸ a key ▸ its parts ▸ a page of values (reseal.lua) ▸ opened and sealed here ▸ exchanged where they still are what was read

A key that was written since its page was read keeps what was written. SCAN names each key that is there from the beginning to the end of a
pass at least once; a session that begins meanwhile is sealed by the key that seals.
"""

import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from signald.store import lua
from signald.store.base import Op, Result, RoomOp, SessionOp, traits
from signald.store.redis_codec import call, codec
from signald.store.redis_connection import Reply
from signald.store.redis_keys import PACKING, REGISTRY_TAG, ROOM_TAG, Keyspace
from signald.store.redis_lane import Lane
from signald.store.redis_members import Members
from signald.store.redis_router import Router
from signald.store.resealing import PAGE, Page
from signald.store.room.packing import ROOM
from signald.store.room.seals import renew_value
from signald.store.seals import NOT_SAID, Seals, room_owner
from signald.store.session.jobs import packing as jobs
from signald.store.session.streams.packing import PIECE_OF

SCAN_COUNT = 256
"""Keys that the server looks at in one step: a tenth of a millisecond."""

_OF_ALL = {**ROOM["publish"].source.constants, **jobs.JOBS["read_job"].source.constants, "RESEAL_PAGE": PAGE}


def _script(*files: str) -> Mapping[str, lua.Lua]:
    """Make scripts of files that have their constants from the other scripts of their aggregates, but need fewer of them."""
    used = set(re.findall(r"\b[A-Z][A-Z0-9_]*(?:\.[a-z_]+)?\b", lua.Source(("common.lua", *files), {}).raw().decode()))
    return lua.cold(*files, constants={name: value for name, value in _OF_ALL.items() if name in used})


_SESSION = _script(*jobs.FILES, "session/reseal.lua")
_ROOM = _script("room/head.lua", "room/reseal.lua")

PARTS = {
    "": ("head",),
    ":up": ("up",),
    ":down": ("down",),
    ":history": ("history",),
    ":jobs": ("inputs", "progress"),
    ":pieces": ("pieces",),
    ":trail": ("trail",),
}
"""What of a session is sealed, by the end of the key that holds it."""

_FIRST = {"head": "", "up": "-", "down": "(0"}
"""Where the first page of a part begins, where that is not 0."""

Value = tuple[bytes, bytes, bytes]
"""Where a value stands, itself, and what else its place is called by."""
Change = tuple[bytes, bytes, bytes]
"""Where a value stands, as it was read, and as it is to be kept."""


class SealedValues(Result, frozen=True):
    """Some values of an aggregate."""

    next: bytes
    """Where the next ones begin; empty: these were the last."""
    values: tuple[Value, ...]


class Exchanged(Result, frozen=True):
    """How many values were exchanged."""

    count: int


NOTHING = SealedValues(b"", ())


@traits(reads=True, damaged=NOTHING)
class ReadSealed(SessionOp[SealedValues], frozen=True):
    """Read a page of the sealed values of a part of a session."""

    part: str
    start: bytes


@traits(damaged=Exchanged(0))
class Exchange(SessionOp[Exchanged], frozen=True):
    """Exchange values of a part of a session, where they are still what was read."""

    part: str
    changes: tuple[Change, ...]


@traits(reads=True, damaged=NOTHING)
class ReadSealedRoom(RoomOp[SealedValues], frozen=True):
    """As `ReadSealed`, of a room."""

    start: bytes


@traits(damaged=Exchanged(0))
class ExchangeRoom(RoomOp[Exchanged], frozen=True):
    """As `Exchange`, of a room."""

    changes: tuple[Change, ...]


OPERATIONS: frozenset[type[Op]] = frozenset((ReadSealed, Exchange, ReadSealedRoom, ExchangeRoom))
"""Of this store alone: another one reaches its values without the rules."""


def _session_keys(space: Keyspace, session: str) -> tuple[str, ...]:
    return (*space.session_keys(session), space.key(session) + ":trail")


def _call_session(op: SessionOp, operation: str, *words: bytes | str) -> bytes:
    space = PACKING.get()
    return call(space.script(_SESSION[operation]), _session_keys(space, op.session), operation, "", *words)


def _call_room(op: RoomOp, operation: str, *words: bytes | str) -> bytes:
    space = PACKING.get()
    return call(space.script(_ROOM[operation]), space.room_keys(op.room), operation, "", *words)


def _flat(changes: Iterable[Change]) -> list[bytes]:
    return [word for change in changes for word in change]


def _read_values(_: Op, reply: Reply) -> SealedValues:
    following, *words = reply
    return SealedValues(following, tuple(zip(words[::3], words[1::3], words[2::3], strict=True)))


def _read_exchanged(_: Op, reply: Reply) -> Exchanged:
    return Exchanged(int(reply))


codec(ReadSealed, lambda op: _call_session(op, "sealed_values", op.part, op.start), _read_values)
codec(Exchange, lambda op: _call_session(op, "reseal_values", op.part, *_flat(op.changes)), _read_exchanged)
codec(ReadSealedRoom, lambda op: _call_room(op, "sealed_room_values", op.start), _read_values)
codec(ExchangeRoom, lambda op: _call_room(op, "reseal_room_values", *_flat(op.changes)), _read_exchanged)


# --- what a value is under the key that seals ---------------------------------------------------------------------


def _renew_in_session(seals: Seals, session: str, part: str, value: Value) -> bytes | None:
    """Return a value of a session as it is to be kept; None when it does not open."""
    where, kept, name = value
    match part:
        case "head":
            return seals.recover(kept, where, session)
        case "up" | "down":
            return seals.rewrap(kept, part.encode(), session, int(where.partition(b"-")[0]))
        case "history":
            return _renew_item(seals, session, kept)
        case "trail":
            return seals.recover(kept, b"step", session)
        case "inputs":
            return seals.rewrap(kept, b"input", session, name=name)
        case "progress":
            return seals.recover(kept, b"progress", session, int(where[1:]), stable=True)
        case _:
            seq, blank, body = kept.partition(b" ")
            new = seals.rewrap(body, b"down", session, int(seq))
            return None if new is None else seq + blank + new


def _renew_item(seals: Seals, session: str, item: bytes) -> bytes | None:
    """As `_renew_in_session`, of an item of the chat history: a letter for its party, and the index of a piece, before what is sealed."""
    if item[1:2] == b"e" and item[:1].isupper():
        return item  # by a script, which knows no seals
    cut = item.index(b" ") + 1 if item[1:2] == b"p" and item[:1].isupper() else 1
    way = {b"c": "up", b"w": "down"}[item[:1].lower()]
    kind = PIECE_OF[way] if cut > 1 else way.encode()  # type: ignore[index]
    new = seals.rewrap(item[cut:], kind, session, NOT_SAID)
    return None if new is None else item[:cut] + new


def _renew_in_room(seals: Seals, room: str, value: Value) -> bytes | None:
    """Return a value of a room as it is to be kept; None when it does not open."""
    field, kept, name = value
    owner = room_owner(room)
    match field[:1]:
        case b"s":
            return seals.recover(kept, b"snapshot", owner)
        case b"m":
            return seals.recover(kept, b"presence", owner, name=field[1:], stable=True)
        case b"l":
            return seals.recover(kept, b"publication", owner, NOT_SAID, name)
        case _:
            return renew_value(seals, room, field[1:].decode(), name.decode(), kept.decode()).encode()


def _judge(values: Sequence[Value], renew: Callable[[Value], bytes | None]) -> tuple[Page, tuple[Change, ...]]:
    """Return what there is to exchange, and the rest counted."""
    page, changes = Page(read=len(values)), []
    for value in values:
        try:
            new = renew(value)
        except (ValueError, LookupError):
            new = None
        if new is None:
            page.unreadable += 1
        elif new == value[1]:
            page.current += 1
        else:
            changes.append((value[0], value[1], new))
    return page, tuple(changes)


# --- the way through the keys -------------------------------------------------------------------------------------


class Keys:
    """Names the keys of one store, server after server. It has connections of its own, so messages do not wait for it."""

    def __init__(self, members: Members, space: Keyspace, connect_timeout_s: float, command_timeout_s: float) -> None:
        self._router = Router(members, connect_timeout_s, command_timeout_s)
        self._lane = Lane("signald-reseal")
        self._within_s = connect_timeout_s + command_timeout_s
        self._space = space
        self._begin = space.key("").removesuffix("}").encode()

    async def some(self, server: int, cursor: bytes) -> tuple[bytes, list[tuple[str, str]], bool]:
        """Return where the next keys of a server begin (b"0": nowhere), tag and rest of some keys, and whether another server follows.

        Raises StoreUnavailable, StoreMisused: this one where the login may not SCAN.
        """
        pattern = b"".join([b"\\" + bytes([one]) if one in b"*?[]\\" else bytes([one]) for one in self._begin]) + b"*"

        def ask() -> tuple[Reply, int]:
            links = self._router.links()
            return links[server].ask("SCAN", cursor, "MATCH", pattern, "COUNT", SCAN_COUNT), len(links)

        (following, keys), servers = await self._lane.run(ask)
        return following, [self._parts(key) for key in keys], server + 1 < servers

    def _parts(self, key: bytes) -> tuple[str, str]:
        tag, _, rest = key[len(self._begin) :].decode(errors="replace").rpartition("}")
        return tag, rest

    async def close(self) -> None:
        """End the connections and the thread."""
        self._router.cut()
        await self._lane.close(self._within_s)


class Resealing:
    """One pass."""

    def __init__(self, space: Keyspace, keys: Keys, execute: Callable[[Sequence[Op]], Awaitable[list[Any]]]) -> None:
        self._space = space
        self._keys = keys
        self._execute = execute

    async def pages(self) -> AsyncGenerator[Page, None]:
        """Go through all keys."""
        server, is_more = 0, True
        while is_more:
            cursor = b"0"
            while True:
                cursor, keys, is_more = await self._keys.some(server, cursor)
                for tag, rest in keys:
                    async for page in self._of_key(tag, rest):
                        yield page
                if cursor == b"0":
                    break
            server += 1

    async def _of_key(self, tag: str, rest: str) -> AsyncGenerator[Page, None]:
        if tag.startswith(ROOM_TAG):
            if not rest:
                async for page in self._room(tag.removeprefix(ROOM_TAG)):
                    yield page
        elif tag != REGISTRY_TAG:
            for part in PARTS.get(rest, ()):
                async for page in self._part(tag, part):
                    yield page

    async def _part(self, session: str, part: str) -> AsyncGenerator[Page, None]:
        start = _FIRST.get(part, "0").encode()
        while True:
            (found,) = await self._execute([ReadSealed(session, part, start)])
            page, changes = _judge(found.values, partial(_renew_in_session, self._space.seals, session, part))
            if changes:
                self._count(page, changes, await self._execute([Exchange(session, part, changes)]))
            yield page
            start = found.next
            if not start:
                break

    async def _room(self, room: str) -> AsyncGenerator[Page, None]:
        start = b"0"
        while True:
            (found,) = await self._execute([ReadSealedRoom(room, start)])
            page, changes = _judge(found.values, partial(_renew_in_room, self._space.seals, room))
            if changes:
                self._count(page, changes, await self._execute([ExchangeRoom(room, changes)]))
            yield page
            start = found.next
            if not start:
                break

    def _count(self, page: Page, changes: Sequence[Change], answer: list[Any]) -> None:
        page.exchanged += answer[0].count
        page.missed += len(changes) - answer[0].count
