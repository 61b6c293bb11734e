"""Sealed values in SQLite and Redis: a dump shows nothing that was said, and a value in another place hurts its own session only."""

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from redis import Redis

from signald.core.callers import ALL
from signald.core.log import Entry
from signald.store.base import Op, Store
from signald.store.redis import open_redis
from signald.store.seals import Seals, is_sealed
from signald.store.session.jobs.ops import JobProgress, ReadJob, ReadPieces, TakeJobs
from signald.store.session.ops import (
    ClaimWorkerSide,
    HandOn,
    KeepAnswer,
    Look,
    Mark,
    ReadHistory,
    ReadTrail,
    Unpair,
)
from signald.store.sqlite import open_sqlite
from tests.store.ops import NOW_MS, SESSION, append, claim_side, create, create_job, piece, reseed
from tests.store.session.jobs.test_contract import said
from tests.store.test_seals import NEW, OLD

pytestmark = pytest.mark.real

OTHER = "s_2"
SECRET = b"hush-7f3a"
"""What stands in all that the parties say here."""


class Kept:
    """A store whose values are sealed, and a way to move them about behind its back."""

    def __init__(self, kind: str, url: str) -> None:
        self.kind = kind
        self.url = url

    @asynccontextmanager
    async def open(self, seals: Seals | None = None) -> AsyncIterator[Store]:
        """Open it for node `a`."""
        seals = Seals((OLD,), sealing=True) if seals is None else seals
        if self.kind == "redis":
            async with open_redis(self.url, "a", seals=seals) as redis:
                yield redis
        else:
            async with open_sqlite(self.url, "a", ack="process", poll_interval_s=0.01, seals=seals) as sqlite:
                yield sqlite

    def dump(self) -> bytes:
        """Return all bytes that are kept."""
        if self.kind == "sqlite":
            path = Path(self.url.removeprefix("sqlite:"))
            return b"".join(each.read_bytes() for each in path.parent.iterdir())
        with Redis.from_url(self.url) as redis:
            redis.config_set("rdbcompression", "no")
            return b"".join(key + b"\0" + (content(redis, key)) for key in redis.keys("*"))

    def change(self, what: str, session: str, change: Callable[[list[bytes]], list[bytes]]) -> list[bytes]:
        """Replace the values of `what` of a session; return those that there were."""
        return (self._change_redis if self.kind == "redis" else self._change_sqlite)(what, session, change)

    def _change_sqlite(self, what: str, session: str, change: Callable[[list[bytes]], list[bytes]]) -> list[bytes]:
        table, column, order = {
            "message": ("entry", "body", "seq"),
            "history": ("history", "body", "number"),
            "record": ("session", "record", "session"),
            "input": ("job_input", "data", "n"),
            "job": ("job", "record", "n"),
            "piece": ("piece", "body", "n, number"),
            "step": ("step", "step", "number"),
            "stream": ("stream", "record", "name"),
            "event": ("event", "event", "n"),
        }[what]
        of, only = "name" if table == "event" else "session", " AND way = 'up'" if table == "entry" else ""
        with closing(sqlite3.connect(self.url.removeprefix("sqlite:"), isolation_level=None)) as sql:
            keys = {"entry": "way, seq", "history": "number", "session": "session", "job_input": "n", "job": "n", "piece": "n, number",
                    "step": "number", "stream": "way, name", "event": "n"}[table]  # fmt: skip
            rows = sql.execute(
                f"SELECT {column}, {keys} FROM {table} WHERE {of} = ?{only} ORDER BY {order}", (session,)
            ).fetchall()
            where = " AND ".join(f"{key} = ?" for key in keys.split(", "))
            before = [row[0] for row in rows]
            for row, value in zip(rows, change(before), strict=True):
                sql.execute(f"UPDATE {table} SET {column} = ? WHERE {of} = ? AND {where}", (value, session, *row[1:]))
        return before

    def _change_redis(self, what: str, session: str, change: Callable[[list[bytes]], list[bytes]]) -> list[bytes]:
        key = f"signald:{{{session}}}"
        with Redis.from_url(self.url) as redis:
            if what == "message":
                kept: Any = redis.xrange(key + ":up")
                before = [next(iter(fields.values())) for _, fields in kept]
                redis.delete(key + ":up")
                for (name, fields), value in zip(kept, change(before), strict=True):
                    redis.xadd(key + ":up", {next(iter(fields)): value}, name)
                return before
            if what in ("history", "step"):
                place = key + (":history" if what == "history" else ":trail")
                kept = redis.lrange(place, 0, -1)
                # An item is a letter for its party, and for a piece its index, before what the node has sealed.
                cut = [each.index(b"\xc1") for each in kept]
                before = [each[at:] for each, at in zip(kept, cut, strict=True)]
                for at, value in enumerate(change(before)):
                    redis.lset(place, at, kept[at][: cut[at]] + value)
                return before
            hashed = {"record": key, "input": key + ":jobs", "piece": key + ":pieces"}[what]
            fields = {"record": [b"meta", b"settings"], "input": [b"i1", b"i2"], "piece": [b"1.1", b"1.2", b"2.1"]}[
                what
            ]
            found: list[bytes] = [redis.hget(hashed, field) or b"" for field in fields]
            cut = [each.index(b"\xc1") for each in found]
            before = [each[at:] for each, at in zip(found, cut, strict=True)]
            for at, value in enumerate(change(before)):
                redis.hset(hashed, fields[at], found[at][: cut[at]] + value)
            return before


def content(redis: Any, key: bytes) -> bytes:
    """Return the content of a key of any type."""
    match redis.type(key):
        case b"hash":
            return b"\0".join(part for pair in redis.hgetall(key).items() for part in pair)
        case b"list":
            return b"\0".join(redis.lrange(key, 0, -1))
        case b"stream":
            return b"\0".join(part for _, fields in redis.xrange(key) for pair in fields.items() for part in pair)
        case b"zset":
            return b"\0".join(redis.zrange(key, 0, -1))
        case _:
            return redis.get(key) or b""


@pytest.fixture(params=["sqlite", "redis"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Kept:
    """An empty store of each kind that keeps something."""
    if request.param == "sqlite":
        home = tmp_path / "store"
        home.mkdir()
        return Kept("sqlite", f"sqlite:{home / 'sealed.db'}")
    url: str = request.getfixturevalue("redis_url")
    with Redis.from_url(url) as redis:
        redis.flushall()
    return Kept("redis", url)


async def ask(store: Store, *ops: Op) -> list[Any]:
    """Execute a batch."""
    return list(await store.execute(ops))


def _messages(first: int, last: int) -> tuple[Entry, ...]:
    return tuple(Entry(seq, b't{"seq":%d,"data":"%b"}' % (seq, SECRET), True) for seq in range(first, last + 1))


def fill(session: str = SESSION, *, settings: bytes = b'{"s":"%b"}' % SECRET) -> list[Op]:
    """Let a session have a value of each kind, all of which hold the secret."""
    told = b'{"m":"%b"}' % SECRET
    made = structs.replace(
        create(session, settings=settings, rooms=settings, asked_until_ms=1, events_max=9), meta=told
    )
    text = SECRET.decode()
    of_jobs = [said(1, 1, text=text), said(2, 1, text=text), said(3, 2, text=text)]
    renamed = [
        structs.replace(one, mark=one.mark and structs.replace(one.mark, stream=f"j_{session[2:]}_{one.mark.job}"))
        for one in of_jobs
    ]
    return [
        made,
        claim_side(session=session, node="a", events_max=9),
        append(_messages(1, 3), session=session),
        append((piece(4, text), piece(5, text)), session=session),
        create_job(session, data=told, key=b"k1"),
        create_job(session, data=told, key=b"k2", nonce="2"),
        TakeJobs(session, "a", 1, ("*",), (), 9, NOW_MS),
        JobProgress(session, 1, "a", 1, told, NOW_MS),
        append(tuple(renamed), session=session, party="worker", node="a"),
        KeepAnswer(session, settings, settings, 2),
        HandOn(session, "a", 1, told),
        Mark(session, (told, told + b" "), 9, 60_000, NOW_MS),
    ]


def seen(session: str = SESSION) -> list[Op]:
    """Ask for all of it."""
    return [
        Look(session, "worker", 0, 9),
        Look(session, "client", 0, 9),
        ReadHistory(session, 9),
        ReadJob(session, 1, ALL, "a", NOW_MS),
        ReadPieces(session, 1, ALL, 0, 9, NOW_MS),
        ReadTrail(session),
        TakeJobs(session, "a", 1, ("*",), (), 9, NOW_MS),
    ]


async def test_nothing_that_was_said_is_found(kept: Kept) -> None:
    """The parties get all of it back, and neither the file nor Redis has a byte of it; plain, each kind is found there."""
    async with kept.open() as store:
        await ask(store, *fill())
        sealed = await ask(store, *seen())
        handed = await ask(
            store, Unpair(SESSION, "a", "w_1", 0), ClaimWorkerSide(SESSION, "a", "again", "w_2", True, 0, 0, NOW_MS)
        )
        assert SECRET not in kept.dump()
    assert SECRET not in kept.dump()
    looked, answers, history, job, pieces, trail, taken = sealed
    assert [SECRET in entry.body for entry in looked.entries] == [True] * 5
    assert [entry.seq for entry in answers.entries] == [1, 2, 3]
    assert all(SECRET in text for text in (looked.head.meta, looked.head.settings, looked.head.rooms, *trail.steps))
    assert [SECRET in entry.body + entry.data for entry in history.entries] == [True] * 4
    assert SECRET in job.job.progress
    assert [SECRET in entry.body for entry in pieces.pieces] == [True, True]
    assert [SECRET in (data or b"") for _, data in taken.given] == [True, True]
    assert SECRET in handed[1].state
    async with kept.open(Seals()) as store:
        await ask(store, *fill(OTHER))
        plain = await ask(store, *seen(OTHER))
    assert kept.dump().count(SECRET) >= 15
    assert [entry.body for entry in plain[0].entries] == [entry.body for entry in looked.entries]


async def test_sealed_and_plain_values_are_counted_alike(kept: Kept) -> None:
    """What bounds a history and a job's result counts content, not seals."""
    sizes = []
    for session, seals in ((SESSION, None), (OTHER, Seals())):
        async with kept.open(seals) as store:
            await ask(store, *fill(session))
            big = append(_messages(6, 9), session=session, history_max=3, history_bytes_max=70)
            await ask(store, big)
            history, job = await ask(store, ReadHistory(session, 9), ReadJob(session, 1, ALL, "a", NOW_MS))
            sizes.append(([entry.body for entry in history.entries], job.job.size))
    assert sizes[0] == sizes[1]


ATTACKS: dict[str, Callable[[list[bytes], list[bytes]], list[bytes]]] = {
    "swapped": lambda own, _: [own[1], own[0], *own[2:]],
    "cut": lambda own, _: [own[0][:-1], *own[1:]],
    "replayed": lambda own, _: [own[0], own[0], *own[2:]],
    "moved": lambda own, other: [other[0], *own[1:]],
    "one bit": lambda own, _: [own[0][:-20] + bytes([own[0][-20] ^ 1]) + own[0][-19:], *own[1:]],
}

KINDS = ["message", "history", "record", "input", "piece", "step"]


def _shown(results: list[Any]) -> dict[str, Any]:
    looked, _, history, _, pieces, trail, taken = results
    return {
        "message": [entry.seq for entry in getattr(looked, "entries", ())],
        "history": [entry.body + entry.data for entry in getattr(history, "entries", ())],
        "record": (looked.head.meta, looked.head.settings) if hasattr(looked, "head") else None,
        "input": [data for _, data in getattr(taken, "given", ())],
        "piece": [entry.seq for entry in getattr(pieces, "pieces", ())],
        "step": list(trail.steps),
    }


CASES = [
    (what, attack)
    for what in KINDS
    for attack in ATTACKS
    if (what, attack) not in {("step", "swapped"), ("step", "replayed")}
]
"""The steps of one trail have no numbers, so that one in the place of another is not noticed: docs/security.md."""


@pytest.mark.parametrize(("what", "attack"), CASES)
async def test_a_value_elsewhere_is_damage(kept: Kept, what: str, attack: str) -> None:
    """Less is shown of that kind, never something else; the other kinds and the other session are whole."""
    async with kept.open() as store:
        await ask(store, *fill(), *fill(OTHER, settings=b'{"s":"other"}'))
        before, other = await ask(store, *seen()), await ask(store, *seen(OTHER))
        foreign = kept.change(what, OTHER, lambda own: own)
        assert all(map(is_sealed, foreign))
        if kept.kind == "sqlite" and what == "record" and attack in ("swapped", "replayed"):
            assert len(foreign) == 1, "a session has one record in SQLite, which no other one can stand for"
            return
        own = kept.change(what, SESSION, lambda own: ATTACKS[attack](own, foreign))
        assert len(own) >= (1 if kept.kind == "sqlite" and what == "record" else 2)
    async with kept.open() as store:
        after, still = await ask(store, *seen()), await ask(store, *seen(OTHER))
    assert still == other
    shown, whole = _shown(after), _shown(before)
    assert shown[what] != whole[what]
    if what in ("message", "history", "piece", "step") and shown[what] is not None:
        assert [each for each in whole[what] if each in shown[what]] == list(shown[what]), (
            "what is left keeps its order"
        )
    if what != "record":
        assert {kind: shown[kind] for kind in KINDS if kind != what} == {
            kind: whole[kind] for kind in KINDS if kind != what
        }


async def test_keys_rotate_in_a_store(kept: Kept) -> None:
    """Plain, old and new values are read side by side; what the old key has sealed is closed to the new one alone."""
    async with kept.open(Seals()) as store:
        await ask(store, create(), append(_messages(1, 1)))
    async with kept.open(Seals((OLD,), sealing=True)) as store:
        await ask(store, append(_messages(2, 2)))
    async with kept.open(Seals((OLD, NEW), sealing=True)) as store:
        await ask(store, append(_messages(3, 3)))
        (looked,) = await ask(store, Look(SESSION, "worker", 0, 9))
        assert [entry.seq for entry in looked.entries] == [1, 2, 3]
        (history,) = await ask(store, ReadHistory(SESSION, 9))
        assert [entry.body for entry in history.entries] == [entry.body for entry in _messages(1, 3)]
    if kept.kind == "redis":  # in SQLite the record is under the newest key as well
        async with kept.open(Seals((OLD,), sealing=True)) as store:
            (looked,) = await ask(store, Look(SESSION, "worker", 0, 9))
            assert [entry.seq for entry in looked.entries] == [1, 2]


async def test_a_record_is_given_back_sealed(kept: Kept) -> None:
    """What a node gives back to a store that has lost it is sealed as what was there."""
    async with kept.open() as store:
        (made,) = await ask(store, structs.replace(create(), meta=b'{"m":"%b"}' % SECRET))
        known = structs.replace(made, up_last=2)
        kept.change(
            "record", SESSION, lambda own: [b"\xc1" + b"x" * len(each) for each in own]
        ) if kept.kind == "sqlite" else None
    async with kept.open() as store:
        (given,) = await ask(store, reseed(known, up_tail=_messages(1, 2)))
        assert given.meta == known.meta
        (looked,) = await ask(store, Look(SESSION, "worker", 0, 9))
        assert [entry.seq for entry in looked.entries] == [1, 2]
    assert SECRET not in kept.dump()
