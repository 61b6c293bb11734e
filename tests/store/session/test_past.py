"""The chat history of a session that has ended."""

from msgspec.structs import replace

from signald.core.callers import ALL, Access
from signald.core.head import Head
from signald.store.base import Done, Op, Refused
from signald.store.session.ops import (
    CreateSession,
    Detach,
    Ended,
    EndSession,
    ExpireSession,
    History,
    Look,
    NoSession,
    ReadHistory,
    ReadSession,
)
from tests.store.ops import NOW_MS, SESSION, TTL_MS, append, claim_client, create, entries, piece, reseed
from tests.store.scenes import look, pair, said
from tests.store.worlds import World

KEEP_MS = 60_000
END = EndSession(SESSION, "a", NOW_MS, KEEP_MS)
CHAT = [("client", b"tm1"), ("client", b"tm2"), ("worker", b"tm1")]


def read(access: Access = ALL, *, after_ms: int = 0, limit: int = 9, before: int = 0) -> ReadHistory:
    """Ask for the chat history, so long after the end of the session."""
    return ReadHistory(SESSION, limit, before, access, NOW_MS + after_ms)


async def talk(world: World) -> None:
    """A client and a worker have said something."""
    await pair(world)
    await world.do(append(entries(1, 2, history=True)), append(entries(1, 1, history=True), party="worker", node="b"))


async def found(world: World, op: ReadHistory) -> list[tuple[str, bytes]]:
    """Return the plain messages that are read."""
    result = await world.ask(op)
    assert isinstance(result, History)
    return said(result)


async def test_kept_for_its_time(world: World) -> None:
    """The history can be read until its time is over, and not a millisecond longer; nothing else of the session is left."""
    await talk(world)
    ended = await world.ask(END)
    assert isinstance(ended, Ended)
    assert ended.history_bytes == sum(len(body) for _, body in CHAT)
    for after_ms in (0, KEEP_MS - 1):
        assert await found(world, read(after_ms=after_ms)) == CHAT
    assert await world.ask(read(after_ms=KEEP_MS)) == NoSession()
    gone: list[Op] = [Look(SESSION, "client", 0, 9), ReadSession(SESSION, ALL), claim_client(), END]
    assert await world.do(*gone) == [NoSession(), NoSession(), Refused("unknown"), NoSession()]
    assert await found(world, read()) == CHAT


async def test_in_pages(world: World) -> None:
    """Pages go back as those of a session that lives."""
    await talk(world)
    alive = [await world.ask(read(limit=2)), await world.ask(read(before=3))]
    await world.do(END)
    assert [await world.ask(read(limit=2)), await world.ask(read(before=3))] == alive


async def test_by_whom(world: World) -> None:
    """Its own principal and the worker that had it last may read it, as while it lived; all others are refused."""
    await talk(world)
    principal = (await look(world)).head.principal
    asked = [
        read(access)
        for access in (
            Access(owner=principal), Access(worker="w_1"), Access(owner="eve"), Access(worker="w_2"), Access(tenant="t")
        )
    ]  # fmt: skip
    alive = [await world.ask(one) for one in asked]
    await world.do(END)
    assert [await world.ask(one) for one in asked] == alive
    assert [isinstance(one, History) for one in alive] == [True, True, False, False, False]
    assert alive[2] == Refused("access")


async def test_expired(world: World) -> None:
    """A session that expires leaves its history as well."""
    await talk(world)
    end = ExpireSession(SESSION, "b", ("a", "b"), NOW_MS + TTL_MS, TTL_MS, KEEP_MS)
    assert await world.ask(end) == Done()
    await world.do(Detach(SESSION, "client", "a", 1, NOW_MS))
    assert isinstance(await world.ask(end), Ended)
    assert await found(world, read(after_ms=TTL_MS + KEEP_MS - 1)) == CHAT
    assert await world.ask(read(after_ms=TTL_MS + KEEP_MS)) == NoSession()


async def test_without_a_message(world: World) -> None:
    """A session that had no chat has an empty history, until the time is over."""
    await world.do(create(), END)
    assert await world.ask(read()) == History(())
    assert await world.ask(read(after_ms=KEEP_MS)) == NoSession()


async def test_unless_asked_for(world: World) -> None:
    """Without a time to keep it the history goes with the session."""
    await talk(world)
    await world.do(EndSession(SESSION, "a", NOW_MS))
    assert await world.ask(read()) == NoSession()


async def test_an_open_text(world: World) -> None:
    """A text that was growing is shown as interrupted."""
    await pair(world)
    await world.do(append((piece(1, "so far"),), party="worker", node="b"), END)
    shown = await world.ask(read())
    assert isinstance(shown, History)
    (entry,) = shown.entries
    assert (entry.data, entry.outcome) == (b"so far", "interrupted")


async def test_begins_anew(world: World) -> None:
    """A session that begins, or is given back, has nothing of what had its id before."""
    await talk(world)
    known = (await look(world)).head
    await world.do(END)
    assert isinstance(await world.ask(create(nonce="again")), Head)
    assert await found(world, read()) == []
    await world.do(append(entries(1, 1, history=True)), END, reseed(replace(known, up_last=0, down_last=0)))
    assert await found(world, read()) == []
    await world.do(EndSession(SESSION, "a", NOW_MS))
    assert await world.ask(read()) == NoSession()


async def test_many(world: World) -> None:
    """Histories whose time is over are no burden for those that are kept."""
    names = [f"s_{number:03}" for number in range(40)]
    for place, name in enumerate(names):
        begin = create()
        assert isinstance(begin, CreateSession)
        await world.do(replace(begin, session=name), EndSession(name, "a", NOW_MS + place * KEEP_MS, KEEP_MS))
    now = NOW_MS + 39 * KEEP_MS
    kept = [name for name in names if await world.ask(ReadHistory(name, 9, 0, ALL, now)) == History(())]
    assert kept == names[-1:]
