"""What is memory's own: worlds, the clock, bounded inboxes, and the faults that a simulation asks for."""

import pytest
import trio
from trio.testing import MockClock

from signald.core.head import Head
from signald.errors import StoreMisused, StoreUnavailable
from signald.store.base import Done, Op, Refused, Result
from signald.store.memory import WAKES_MAX, MemoryWorld, open_memory
from signald.store.registry.ops import Hold, KeepAlive, ListSessionsOf, Sessions, Signal
from signald.store.session.ops import Appended, Look, NoSession
from tests.store.ops import NOW_MS, SESSION, append, create, entries, head

LOOK = Look(SESSION, "client", 0, 9)


async def said(*, world: MemoryWorld | None = None) -> Result:
    """Look for the session in a store."""
    async with open_memory("memory:", "other", world=world) as store:
        (result,) = await store.execute([LOOK])
        return result


async def test_private_world() -> None:
    """`memory:` is a world of its own each time it is opened."""
    async with open_memory("memory:", "a") as store:
        await store.execute([create()])
        assert await said() == NoSession()


@pytest.mark.parametrize("url", ["memory:lab", "memory", "sqlite:"])
async def test_a_world_has_no_name(url: str) -> None:
    """`memory:` takes nothing after the colon, in the store as in the configuration."""
    with pytest.raises(StoreMisused, match="nothing after the colon"):
        async with open_memory(url, "a"):
            pass


async def test_given_world() -> None:
    """A world may be made first and outlives its stores."""
    world = MemoryWorld()
    async with open_memory("memory:", "a", world=world) as store:
        await store.execute([create()])
    assert await said(world=world) != NoSession()


def test_clock() -> None:
    """Time is the Trio clock's, from the start that was given."""

    async def main() -> list[int]:
        async with open_memory("memory:", "a", world=MemoryWorld(started_ms=NOW_MS)) as store:
            times = [store.now_ms()]
            await trio.sleep(3600.25)
            return [*times, store.now_ms()]

    assert trio.run(main, clock=MockClock(autojump_threshold=0)) == [NOW_MS, NOW_MS + 3_600_250]


async def test_wall_clock() -> None:
    """Without a given start the clock starts at the time of day."""
    async with open_memory("memory:", "a") as store:
        assert store.now_ms() > NOW_MS


async def test_cancelled_batch() -> None:
    """A batch that is cancelled before it was carried out has not happened."""
    async with open_memory("memory:", "a") as store:
        with trio.CancelScope() as scope:
            scope.cancel(reason="the test wants it so")
            await store.execute([create()])
        assert await store.execute([LOOK]) == [NoSession()]


async def test_overflow() -> None:
    """A node that does not read its wake-ups loses the newest, and is told to look at everything."""
    async with open_memory("memory:", "a") as store:
        wakes = store.wakes()
        assert await anext(wakes) == [b"*"]
        await store.execute([Signal("a", b"r%d" % number) for number in range(WAKES_MAX + 5)])
        batch = await anext(wakes)
        assert (batch[0], len(batch), batch[-1]) == (b"*", WAKES_MAX + 1, b"r%d" % (WAKES_MAX - 1))
        await store.execute([Signal("a", b"rlast")])
        assert await anext(wakes) == [b"rlast"]


async def test_wakes_end() -> None:
    """The wake-ups end when the store is closed, and none is kept for a node that is not there."""
    world = MemoryWorld()
    async with open_memory("memory:", "a", world=world) as store:
        wakes = store.wakes()
        await anext(wakes)
    with pytest.raises(StopAsyncIteration):
        await anext(wakes)
    world.execute([Signal("a", b"r")])
    async with open_memory("memory:", "a", world=world) as store:
        assert await anext(store.wakes()) == [b"*"]


async def test_down() -> None:
    """A world that is down carries nothing out."""
    world = MemoryWorld()
    async with open_memory("memory:", "a", world=world) as store:
        world.outage = "down"
        with pytest.raises(StoreUnavailable):
            await store.execute([create()])
        with pytest.raises(StoreUnavailable):
            await store.check()
        world.outage = ""
        assert await store.execute([LOOK]) == [NoSession()]


async def test_answers_lost() -> None:
    """A world whose answers are lost has carried out what it was asked; asked again it says the same."""
    world = MemoryWorld()
    batch: list[Op] = [create(), append(entries(1, 2))]
    async with open_memory("memory:", "a", world=world) as store:
        world.outage = "answers lost"
        with pytest.raises(StoreUnavailable):
            await store.execute(batch)
        world.outage = ""
        assert await store.execute(batch[1:]) == [Appended(2, 0, "")]
        (again,) = await store.execute(batch[:1])
        assert isinstance(again, Head)
        assert again == head(up_last=2)


async def test_lose_everything() -> None:
    """A world that lost everything tells all nodes to look at everything."""
    world = MemoryWorld()
    async with open_memory("memory:", "a", world=world) as store:
        wakes = store.wakes()
        await anext(wakes)
        await store.execute([create()])
        world.lose_everything()
        assert await anext(wakes) == [b"*"]
        assert await store.execute([LOOK]) == [NoSession()]


def test_a_count_left_behind_goes_when_its_time_is_over() -> None:
    """A count whose session an older release has forgotten goes; that of a session that lives stays."""
    world = MemoryWorld(started_ms=NOW_MS)

    def hold(session: str, until_ms: int, at_ms: int) -> Result:
        (result,) = world.execute([Hold(session, ("x",), 9, 2, NOW_MS + until_ms, NOW_MS + at_ms)])
        return result

    hold("s_1", 5, 0)
    hold("s_2", 5, 0)
    world.execute([KeepAlive(("s_2",), NOW_MS + 10**6)])
    world.rows.drop_life("s_1")
    assert [hold("s_3", 10**6, at_ms) for at_ms in (4, 5)] == [Refused("holder"), Done()]
    assert hold("s_4", 10**6, 6) == Refused("holder")
    assert world.execute([ListSessionsOf("x", "", 9)]) == [Sessions(("s_2", "s_3"))]
