"""A line for each want: what workers suit is found whatever else waits, and what an earlier release writes is found too."""

import sqlite3
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from signald.core.wants import ROOT, TENANT, offer, path, suited
from signald.store.damage import seal
from signald.store.memory import MemoryRows
from signald.store.registry.ops import (
    Forget,
    Leave,
    ListSuited,
    ListWaiting,
    Mended,
    MendLine,
    Release,
    Reserve,
    Waiting,
)
from signald.store.registry.records import Place
from signald.store.seals import Seals
from signald.store.sqlite_rows import LATER_TABLES, STRAYS, TABLES, SqliteRows
from tests.examples import examples
from tests.store.conftest import redis_fresh, sqlite_fresh
from tests.store.ops import NOW_MS, WORKER, enqueue, register
from tests.store.worlds import World, open_world

EN, FR = {"lang": "en"}, {"lang": "fr"}
BIG = {"lang": "en", "size": "big"}
KEY = "signald:{signald}:"
EDGES = 10_000


async def found(world: World, *labels: Mapping[str, str], limit: int = 100, edges_max: int = EDGES) -> list[str]:
    """Read the sessions that workers with `labels` suit."""
    waiting = await world.ask(ListSuited(tuple(offer(each) for each in labels), limit, edges_max))
    assert isinstance(waiting, Waiting)
    return [one.session for one in waiting.sessions]


class TestSuited:
    """What is found of the waiting line."""

    async def test_only_what_an_offer_suits(self, world: World) -> None:
        """A session is found by each worker whose labels include its want, in order of age, and by no other."""
        wants = {"s_en": EN, "s_fr": FR, "s_big": BIG, "s_any": dict[str, str]()}
        await world.do(*(enqueue(name, want=want, order_ms=NOW_MS + i) for i, (name, want) in enumerate(wants.items())))
        assert await found(world, EN) == ["s_en", "s_any"]
        assert await found(world, BIG) == ["s_en", "s_big", "s_any"]
        assert await found(world, {}) == ["s_any"]
        assert await found(world, FR, BIG) == list(wants)
        assert await found(world, {"size": "big"}, {"lang": "de"}) == ["s_any"]
        assert await found(world) == []

    async def test_a_crowd_with_another_want_is_not_in_the_way(self, world: World) -> None:
        """One session is found behind a thousand older ones of another want, and of wants that are all different."""
        crowd = [enqueue(f"s_{i}", want={**EN, "of": str(i % 500)}, order_ms=NOW_MS) for i in range(600)]
        crowd += [enqueue(f"s_{i}", want=FR, order_ms=NOW_MS) for i in range(600, 1200)]
        await world.do(*crowd, enqueue("s_mine", order_ms=NOW_MS + 1))
        assert await found(world, EN, limit=1, edges_max=1) == ["s_mine"]

    async def test_the_oldest_heads_go_first(self, world: World) -> None:
        """With more lines than places to read, those with the oldest heads are read; with fewer, each gives as many."""
        wants = [{"a": "1"}, {"b": "1"}, {"c": "1"}]
        labels = {"a": "1", "b": "1", "c": "1"}
        ops = [enqueue(f"s_{i}", want=wants[i % 3], order_ms=NOW_MS + i) for i in range(9)]
        await world.do(*ops)
        assert await found(world, labels, limit=2) == ["s_0", "s_1"]
        assert await found(world, labels, limit=7) == ["s_0", "s_1", "s_2", "s_3", "s_4", "s_5"]
        await world.do(Forget("s_0"), Forget("s_3"))
        assert await found(world, labels, limit=2) == ["s_1", "s_2"]

    async def test_tenants_are_apart(self, world: World) -> None:
        """A tenant's session is found by the same tenant's worker alone, the others' by workers without a tenant alone."""
        wants = {"s_acme": {**EN, TENANT: "acme"}, "s_": {**EN, TENANT: ""}, "s_none": EN, "s_all": {TENANT: "acme"}}
        await world.do(*(enqueue(name, want=want) for name, want in wants.items()))
        assert await found(world, {**BIG, TENANT: "acme"}) == ["s_acme", "s_all"]
        assert await found(world, {**BIG, TENANT: "evil"}) == []
        assert await found(world, {**BIG, TENANT: ""}) == ["s_"]
        assert await found(world, BIG) == ["s_none"]

    async def test_a_search_ends(self, world: World) -> None:
        """With more wants than it may ask for, a search finds the short ones, and ends."""
        labels = {f"l{i:02}": "x" for i in range(12)}
        names = list(labels)
        wants = [{name: "x" for i, name in enumerate(names) if bits >> i & 1} for bits in range(1, 1 << 10)]
        await world.do(*(enqueue(f"s_{i}", want=want, order_ms=NOW_MS) for i, want in enumerate(wants)))
        assert len(await found(world, labels, limit=5000)) == len(wants)
        some = await found(world, labels, limit=5000, edges_max=12)
        assert {f"s_{(1 << i) - 1}" for i in range(10)} <= set(some)
        assert len(some) < 100

    async def test_leave(self, world: World) -> None:
        """A session that leaves waits no more; one that is paired stays paired; it comes back to its old place."""
        await world.do(register(), enqueue("s_1"), enqueue("s_2", order_ms=NOW_MS + 1), Leave("s_1"), Leave("s_gone"))
        assert await found(world, EN) == ["s_2"]
        await world.do(Reserve("a", (("s_2", WORKER),)), Leave("s_2"), enqueue("s_1"))
        assert await found(world, EN) == ["s_1"]
        await world.do(Release("s_2", WORKER, True))
        assert await found(world, EN) == ["s_1", "s_2"]

    async def test_nothing_is_left(self, world: World) -> None:
        """After the last session of a want has gone, in each way, nothing of its line is left."""
        await world.do(register(), *(enqueue(f"s_{i}", want=BIG) for i in range(4)), enqueue("s_1", want=EN))
        await world.do(Forget("s_0"), Leave("s_1"), Reserve("a", (("s_2", WORKER),)), Forget("s_3"), Forget("s_2"))
        assert await found(world, BIG, EN, {}) == []
        assert await world.ask(MendLine(0, 100)) == Mended(0)


# --- the paths ----------------------------------------------------------------------------------------------------

LABELS = st.dictionaries(st.sampled_from(["a", "b", "c", "é\n"]), st.sampled_from(["1", "2", "\x00"]), max_size=4)


@given(st.lists(LABELS, max_size=12), LABELS)
def test_a_search_finds_exactly_what_is_included(wants: list[dict[str, str]], labels: dict[str, str]) -> None:
    """The nodes that a search comes to and that are lines are those of the wants that the labels include."""
    wanted = Counter(node for want in wants for node in path(want))
    lines = {path(want)[-1] for want in wants}
    reached = list(suited(offer(labels), wanted.__contains__, EDGES))
    assert len(reached) == len(set(reached))
    included = {path(want)[-1] for want in wants if want.items() <= labels.items()}
    assert lines & set(reached) == included


@pytest.mark.real
@given(LABELS, st.booleans())
@settings(max_examples=examples(20), suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_the_script_knows_the_same_paths(redis_url: str, want: dict[str, str], of_tenant: bool) -> None:
    """The nodes that the script computes for a want are those that a search asks for."""
    want = {**want, TENANT: "acme"} if of_tenant else want

    async def spot() -> list[str]:
        async with open_world(redis_fresh(redis_url)) as world:
            await world.do(enqueue("s_1", want=want))
        with Redis.from_url(redis_url) as client:
            kept = client.hget(KEY + "spots", "s_1")
            assert isinstance(kept, bytes)
            return kept.decode().split()[1:]

    assert tuple(trio.run(spot)) == path(want)


# --- beside an earlier release ------------------------------------------------------------------------------------


class EarlierOnRedis:
    """Writes what release 0.1.0 writes, which knows `waiting`, `line`, `pairs` and `paired`, and nothing of the lines by want."""

    def __init__(self, url: str) -> None:
        self._client = Redis.from_url(url)

    def enqueue(self, session: str, want: Mapping[str, str], order_ms: int) -> None:
        """As its `operation.enqueue`."""
        self._client.hset(KEY + "line", session, b"%d %b" % (order_ms, msgspec.json.encode(want)))
        self._client.zadd(KEY + "waiting", {session: order_ms})

    def pair(self, session: str, worker: str) -> None:
        """As its `pair`."""
        self._client.hset(KEY + "pairs", session, worker)
        self._client.zadd(KEY + "paired", {f"{worker}\0{session}": 0})
        self._client.zrem(KEY + "waiting", session)

    def forget(self, session: str) -> None:
        """As its `operation.forget`."""
        self._client.zrem(KEY + "waiting", session)
        self._client.hdel(KEY + "line", session)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


class EarlierOnSqlite:
    """Writes what release 0.1.0 writes: the table `place`, with the four columns it has."""

    def __init__(self, home: Path) -> None:
        self._sql = sqlite3.connect(home / "0.db", isolation_level=None, timeout=5)

    def enqueue(self, session: str, want: Mapping[str, str], order_ms: int, worker: str = "") -> None:
        """As its `SqliteRows.save_place`."""
        row = (session, worker, order_ms, seal(msgspec.msgpack.encode(want)))
        self._sql.execute("REPLACE INTO place VALUES (?, ?, ?, ?)", row)

    def pair(self, session: str, worker: str) -> None:
        """The same, with a worker."""
        self.enqueue(session, EN, NOW_MS, worker)

    def forget(self, session: str) -> None:
        """As its `SqliteRows.drop_place`."""
        self._sql.execute("DELETE FROM place WHERE session = ?", (session,))

    def close(self) -> None:
        """Close the file."""
        self._sql.close()


async def mend(world: World, limit: int = 250) -> None:
    """Take over all that an earlier release has written."""
    cursor = 1
    while cursor:
        mended = await world.ask(MendLine(cursor if cursor > 1 else 0, limit))
        assert isinstance(mended, Mended)
        cursor = mended.cursor


async def is_behind(world: World) -> bool:
    """Tell whether a pass would take over what an earlier release has written."""
    waiting = await world.ask(ListSuited((offer(EN),), 10, EDGES))
    assert isinstance(waiting, Waiting)
    return waiting.behind


@pytest.mark.real
@pytest.mark.parametrize("kind", ["sqlite", "redis"])
class TestBesideAnEarlierRelease:
    """Release 0.1.0 shares the store, and writes the waiting line alone."""

    async def test_what_it_puts_in_line_is_found(self, kind: str, tmp_path: Path, redis_url: str) -> None:
        """A session that it puts in line makes the lines by want be behind, and is found once they have been mended."""
        async with open_world(redis_fresh(redis_url) if kind == "redis" else sqlite_fresh(tmp_path)) as world:
            with closing(EarlierOnRedis(redis_url) if kind == "redis" else EarlierOnSqlite(tmp_path)) as earlier:
                await world.do(enqueue("s_1"))
                assert not await is_behind(world)
                earlier.enqueue("s_2", EN, NOW_MS - 1)
                assert await is_behind(world)
                await mend(world)
                assert not await is_behind(world)
                assert await found(world, EN) == ["s_2", "s_1"]

    async def test_what_it_takes_out_is_not_found(self, kind: str, tmp_path: Path, redis_url: str) -> None:
        """A session that it pairs or forgets is not found any more, mended or not, and leaves nothing behind."""
        async with open_world(redis_fresh(redis_url) if kind == "redis" else sqlite_fresh(tmp_path)) as world:
            with closing(EarlierOnRedis(redis_url) if kind == "redis" else EarlierOnSqlite(tmp_path)) as earlier:
                await world.do(register(), *(enqueue(f"s_{i}") for i in range(4)))
                earlier.pair("s_0", WORKER)
                earlier.forget("s_1")
                assert await found(world, EN) == ["s_2", "s_3"]
                await mend(world)
                assert await found(world, EN) == ["s_2", "s_3"]
                await world.do(Release("s_0", WORKER, True), Forget("s_2"), Forget("s_3"))
                assert await found(world, EN) == ["s_0"]
                await world.do(Forget("s_0"))
                assert not await is_behind(world)

    async def test_as_many_gone_as_come(self, kind: str, tmp_path: Path, redis_url: str) -> None:
        """What it has changed is found although the counts are the same, and a want that it has changed is the one that holds."""
        async with open_world(redis_fresh(redis_url) if kind == "redis" else sqlite_fresh(tmp_path)) as world:
            with closing(EarlierOnRedis(redis_url) if kind == "redis" else EarlierOnSqlite(tmp_path)) as earlier:
                await world.do(*(enqueue(f"s_{i}", want=FR, order_ms=NOW_MS + i) for i in range(40)))
                earlier.forget("s_7")
                earlier.enqueue("s_new", EN, NOW_MS + 50)
                earlier.enqueue("s_9", EN, NOW_MS + 9)
                assert await is_behind(world)
                if kind == "redis":
                    assert "s_9" not in await found(world, FR)
                await mend(world, 10)
                assert await found(world, EN) == ["s_9", "s_new"]
                assert "s_9" not in await found(world, FR)

    async def test_a_line_of_before(self, kind: str, tmp_path: Path, redis_url: str) -> None:
        """A whole line that it had written before this release came is taken over in bounded steps, and is the same for both."""
        async with open_world(redis_fresh(redis_url) if kind == "redis" else sqlite_fresh(tmp_path)) as world:
            with closing(EarlierOnRedis(redis_url) if kind == "redis" else EarlierOnSqlite(tmp_path)) as earlier:
                for i in range(300):
                    earlier.enqueue(f"s_{i}", EN if i % 2 else FR, NOW_MS + i)
                await mend(world, 50)
                assert len(await found(world, EN, limit=500)) == 150
                assert len(await found(world, EN, FR, limit=500)) == 300
                waiting = await world.ask(ListWaiting(500))
                assert isinstance(waiting, Waiting)
                assert len(waiting.sessions) == 300


def test_the_file_of_an_earlier_release_is_taken_over() -> None:
    """Places that are there when the lines are made are strays; an unreadable place stops no session."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as sql:
        for statement in TABLES.split(";"):
            sql.execute(statement)
        for session, want in (("s_1", seal(msgspec.msgpack.encode(EN))), ("s_2", b"damaged")):
            sql.execute("REPLACE INTO place VALUES (?, ?, ?, ?)", (session, "", NOW_MS, want))
        for statement in (*LATER_TABLES.split(";"), *STRAYS):
            sql.execute(statement)
        rows = SqliteRows(sql, Seals())
        assert sorted(rows.strays(9)) == ["s_1", "s_2"]
        for session in rows.strays(9):
            rows.enter(session)
        assert rows.strays(9) == []
        assert rows.line(path(EN)[-1], 9) == [Place("s_1", EN, NOW_MS)]


def test_no_node_is_left_in_memory() -> None:
    """What leaves the line leaves the tree of wants."""
    rows = MemoryRows()
    rows.save_place(Place("s_1", BIG, NOW_MS))
    rows.save_place(Place("s_2", {}, NOW_MS))
    assert rows.is_wanted(path(BIG)[0])
    assert rows.is_wanted(ROOT)
    for session in ("s_1", "s_2"):
        rows.drop_place(session)
    assert not rows._wanted
    assert not rows._lines
