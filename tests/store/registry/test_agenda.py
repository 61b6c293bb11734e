"""What every store must do about the agenda, one rule of `signald/store/registry/agenda/ops.py` after the other.

The nodes `a` and `b` look at one fresh store.
"""

import pytest
from redis import Redis

from signald.store.base import CLOCK_SET_MS, Done, Refused
from signald.store.memory import MemoryRows
from signald.store.registry.agenda import records
from signald.store.registry.agenda.ops import (
    AgendaItem,
    AgendaPage,
    AgendaRead,
    Due,
    DueItem,
    ListAgenda,
    Own,
    ReadAgenda,
    Schedule,
    Scheduled,
    Settle,
    TakeDue,
)
from signald.store.registry.agenda.records import AHEAD_MAX_MS, LEASE_MAX_MS, Kind
from signald.store.rows import Wakes
from signald.store.rules import apply
from tests.store.ops import NOW_MS
from tests.store.worlds import World

LEASE_MS = 30_000


def schedule(
    *names: str, due_ms: int = NOW_MS, now_ms: int = NOW_MS, kind: Kind = "e", hurry: bool = False
) -> Schedule:
    """Queues have something new."""
    return Schedule(kind, names, due_ms, now_ms, hurry)


def take(
    nonce: str = "n", *, now_ms: int = NOW_MS, limit: int = 10, kind: Kind = "e", lease_ms: int = LEASE_MS
) -> TakeDue:
    """Node `a` takes what is due."""
    return TakeDue(kind, "a", nonce, now_ms, lease_ms, limit)


async def taken(world: World, op: TakeDue) -> list[str]:
    """Return the names that an operation takes."""
    due = await world.ask(op)
    assert isinstance(due, Due)
    return [item.name for item in due.items]


async def ticket(world: World, op: TakeDue) -> int:
    """Take the one item that is due, and return the ticket of its lease."""
    due = await world.ask(op)
    (item,) = due.items
    assert isinstance(item, DueItem)
    return item.ticket


async def listed(world: World, kind: Kind = "e") -> dict[str, tuple[int, int]]:
    """Return when each item is due, and how often it has failed."""
    page = await world.ask(ListAgenda(kind, "", 100))
    assert isinstance(page, AgendaPage)
    return {item.name: (item.due_ms, item.failures) for item in page.items}


class TestSchedule:
    """An item is entered once, with the earliest time that was asked for."""

    async def test_earliest(self, world: World) -> None:
        """A later time changes nothing, an earlier one moves the item forward; each kind is a world of its own."""
        assert await world.ask(schedule("s_1", "s_2", due_ms=NOW_MS + 50)) == Scheduled(0)
        await world.do(
            schedule("s_1", due_ms=NOW_MS + 90), schedule("s_2", due_ms=NOW_MS + 10), schedule("s_1", kind="b")
        )
        assert await listed(world) == {"s_1": (NOW_MS + 50, 0), "s_2": (NOW_MS + 10, 0)}
        assert await listed(world, "b") == {"s_1": (NOW_MS, 0)}

    async def test_failing(self, world: World) -> None:
        """What comes new does not cut the pause after a failure short; an operator does."""
        await world.ask(schedule("s_1"))
        held = await ticket(world, take())
        await world.ask(Settle("e", "s_1", held, NOW_MS + 5000, 3, NOW_MS - 7, NOW_MS))
        await world.ask(schedule("s_1", due_ms=NOW_MS + 1))
        assert await listed(world) == {"s_1": (NOW_MS + 5000, 3)}
        await world.ask(schedule("s_1", due_ms=NOW_MS + 1, hurry=True))
        assert await listed(world) == {"s_1": (NOW_MS + 1, 3)}

    async def test_room(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """A kind has a bound for new items, which are counted and left out; what is entered already still moves."""
        monkeypatch.setitem(records.ITEMS_MAX, "e", 2)
        assert await world.ask(schedule("s_1", "s_2", "s_3", "s_4", due_ms=NOW_MS + 9)) == Scheduled(2)
        assert await world.ask(schedule("s_2", "s_3")) == Scheduled(1)
        assert await listed(world) == {"s_1": (NOW_MS + 9, 0), "s_2": (NOW_MS, 0)}
        assert await world.ask(schedule("p_1", "p_2", "p_3", kind="b")) == Scheduled(0)
        assert await world.ask(schedule("canvas:1", "canvas:2", "canvas:3", kind="r")) == Scheduled(0)

    async def test_far_ahead(self, world: World) -> None:
        """No item is put off for longer than its kind allows."""
        await world.do(schedule("s_1", due_ms=NOW_MS + 10**9), schedule("p_1", due_ms=NOW_MS + 10**12, kind="b"))
        assert await listed(world) == {"s_1": (NOW_MS + AHEAD_MAX_MS["e"], 0)}
        assert await listed(world, "b") == {"p_1": (NOW_MS + AHEAD_MAX_MS["b"], 0)}


def own(
    room: str,
    owner: str = "x",
    *,
    owned_max: int = 2,
    rooms_max: int = 9,
    due_ms: int = NOW_MS + 50,
    now_ms: int = NOW_MS,
) -> Own:
    """A room is about to be made."""
    return Own(room, owner, owned_max, rooms_max, due_ms, now_ms)


async def end(world: World, now_ms: int = NOW_MS + 50) -> None:
    """A node takes the rooms that are due, and finds that they are over."""
    due = await world.ask(take(f"end {now_ms}", kind="r", now_ms=now_ms))
    await world.do(*[Settle("r", item.name, item.ticket, 0, 0, 0, now_ms) for item in due.items])


class TestOwn:
    """A room counts for its owner from before it is made until it has left the agenda."""

    async def test_bound_of_an_owner(self, world: World) -> None:
        """An owner at its bound is refused another room, and none that it has; other owners are not concerned."""
        full = Refused("owner")
        assert await world.do(own("1"), own("2"), own("3"), own("1"), own("3", "y")) == [
            Done(),
            Done(),
            full,
            Done(),
            Done(),
        ]
        assert await listed(world, "r") == dict.fromkeys("123", (NOW_MS + 50, 0))
        assert await world.do(own("4"), own("4", owned_max=3), own("5", "")) == [full, Done(), Done()]

    async def test_bound_of_all(self, world: World) -> None:
        """Rooms without an owner count as well; one that stands in the agenda is not refused."""
        await world.do(schedule("1", kind="r"), own("2"))
        full = Refused("rooms")
        assert await world.do(own("3", "", rooms_max=2), own("3", rooms_max=2)) == [full, full]
        assert await world.do(own("1", rooms_max=2), own("2", rooms_max=1), own("3", "y", rooms_max=3)) == [
            Done(), Done(), Done(),
        ]  # fmt: skip

    async def test_ends(self, world: World) -> None:
        """A room that has left the agenda counts no more; one that is due again does."""
        await world.do(own("1"), own("2", due_ms=NOW_MS + 90))
        assert await world.ask(own("3")) == Refused("owner")
        await end(world)
        assert await world.do(own("3"), own("4")) == [Done(), Refused("owner")]
        held = (await world.ask(take("n", kind="r", now_ms=NOW_MS + 50))).items[0].ticket
        await world.ask(Settle("r", "3", held, NOW_MS + 70, 0, 0, NOW_MS + 50))
        assert await world.ask(own("4")) == Refused("owner")

    async def test_last_owner(self, world: World) -> None:
        """The last owner that was about to make a room has it, or none has it."""
        await world.do(own("1"), own("2"), own("1", "y"))
        assert await world.do(own("3"), own("4")) == [Done(), Refused("owner")]
        await world.ask(own("2", ""))
        assert await world.do(own("4"), own("5"), own("1", "y", owned_max=1)) == [Done(), Refused("owner"), Done()]

    async def test_item_of_the_room_before(self, world: World) -> None:
        """No sweep of a room that is over ends the item of the one that is about to be made."""
        await world.do(own("1", due_ms=NOW_MS), own("2", due_ms=NOW_MS))
        due = await world.ask(take("n1", kind="r", limit=1))
        await world.do(own("1"), own("2"), Settle("r", "1", due.items[0].ticket, 0, 0, 0, NOW_MS))
        assert await listed(world, "r") == {"1": (NOW_MS + 50, 0), "2": (NOW_MS + 50, 0)}
        assert await world.do(own("3"), own("1")) == [Refused("owner"), Done()]

    async def test_far_ahead(self, world: World) -> None:
        """No room is put off for longer than a day."""
        await world.ask(own("1", due_ms=NOW_MS + 10**12))
        assert await listed(world, "r") == {"1": (NOW_MS + AHEAD_MAX_MS["r"], 0)}


class TestTakeDue:
    """One node at a time has an item."""

    async def test_oldest_first(self, world: World) -> None:
        """What has waited the longest comes first, as many as are asked for; what is not due stays."""
        for name, due_ms in (("s_1", NOW_MS - 10), ("s_2", NOW_MS - 30), ("s_3", NOW_MS), ("s_4", NOW_MS + 1)):
            await world.ask(schedule(name, due_ms=due_ms))
        first = await world.ask(take("one", limit=2))
        assert [item.name for item in first.items] == ["s_2", "s_1"]
        assert first.next_ms == NOW_MS
        second = await world.ask(take("two"))
        assert [item.name for item in second.items] == ["s_3"]
        assert second.next_ms == NOW_MS + 1
        assert await world.ask(take("three", limit=0)) == Due((), NOW_MS + 1)
        assert await world.ask(take(kind="b")) == Due((), 0)
        tickets = [item.ticket for item in (*first.items, *second.items)]
        assert tickets == sorted(set(tickets))

    async def test_again(self, world: World) -> None:
        """A repetition gives the same, and takes nothing more."""
        await world.ask(schedule("s_1", "s_2", "s_3", "s_4"))
        first = await world.ask(take(limit=2))
        assert await world.ask(take(limit=2, now_ms=NOW_MS + 5)) == first
        assert await taken(world, take("other")) == ["s_3", "s_4"]

    async def test_lease(self, world: World) -> None:
        """A lease that has ended makes the item due again, and the holder of before is not heard any more."""
        await world.ask(schedule("s_1"))
        first = await ticket(world, take("one"))
        assert await world.ask(take("two", now_ms=NOW_MS + LEASE_MS - 1)) == Due((), NOW_MS + LEASE_MS)
        second = await ticket(world, take("two", now_ms=NOW_MS + LEASE_MS))
        assert second > first
        assert await world.ask(take("one", now_ms=NOW_MS + LEASE_MS)) == Due((), NOW_MS + 2 * LEASE_MS)
        await world.ask(Settle("e", "s_1", first, 0, 0, 0, NOW_MS + LEASE_MS))
        assert await listed(world) == {"s_1": (NOW_MS + 2 * LEASE_MS, 0)}
        await world.ask(Settle("e", "s_1", second, 0, 0, 0, NOW_MS + LEASE_MS))
        assert await listed(world) == {}

    async def test_late_but_alone(self, world: World) -> None:
        """A holder whose lease has ended may still settle while no other node has taken the item."""
        await world.ask(schedule("s_1"))
        held = await ticket(world, take())
        await world.ask(Settle("e", "s_1", held, 0, 0, 0, NOW_MS + 2 * LEASE_MS))
        assert await listed(world) == {}

    async def test_no_long_lease(self, world: World) -> None:
        """No node keeps an item for longer than the bound of a lease."""
        await world.ask(schedule("s_1"))
        due = await world.ask(take(lease_ms=10**12))
        assert due.next_ms == NOW_MS + LEASE_MAX_MS

    async def test_clock_set_back(self, world: World) -> None:
        """Times of before the clock was set back freeze nothing: such an item is due behind those of the past."""
        later_ms = NOW_MS + 30 * 86_400_000
        await world.ask(schedule("s_1", now_ms=later_ms, due_ms=later_ms))
        await ticket(world, take("one", now_ms=later_ms))
        await world.do(schedule("s_2", now_ms=later_ms, due_ms=later_ms), schedule("s_3"))
        assert await taken(world, take("two")) == ["s_3", "s_2", "s_1"]
        assert await taken(world, take("three", now_ms=NOW_MS + 1)) == []

    async def test_clock_set_back_a_little(self, world: World) -> None:
        """A lease and a time that may be right are waited for."""
        lead_ms = NOW_MS + CLOCK_SET_MS
        await world.do(
            schedule("s_1", now_ms=lead_ms), schedule("s_2", now_ms=lead_ms, due_ms=lead_ms + AHEAD_MAX_MS["e"])
        )
        await ticket(world, take("one", now_ms=lead_ms, lease_ms=LEASE_MAX_MS))
        assert await taken(world, take("two")) == []
        assert await taken(world, take("three", now_ms=NOW_MS - 1)) == ["s_1", "s_2"]

    async def test_failures_stay(self, world: World) -> None:
        """A node that takes an item is told how often the item has failed, and since when, also behind a holder that died."""
        await world.ask(schedule("s_1"))
        held = await ticket(world, take("one"))
        await world.ask(Settle("e", "s_1", held, NOW_MS + 10, 2, NOW_MS - 99, NOW_MS))
        await ticket(world, take("two", now_ms=NOW_MS + 10))
        due = await world.ask(take("three", now_ms=NOW_MS + 10 + LEASE_MS))
        (item,) = due.items
        assert (item.failures, item.since_ms) == (2, NOW_MS - 99)


class TestSettle:
    """An item that is done goes, unless it was asked for again meanwhile."""

    async def test_asked_again(self, world: World) -> None:
        """An item that was asked for under a lease is due as it was asked for, and no other node gets it before."""
        await world.ask(schedule("s_1"))
        held = await ticket(world, take())
        await world.do(
            schedule("s_1", due_ms=NOW_MS + 8), schedule("s_1", due_ms=NOW_MS + 5), schedule("s_1", due_ms=NOW_MS + 9)
        )
        assert await taken(world, take("other", now_ms=NOW_MS + 5)) == []
        await world.ask(Settle("e", "s_1", held, 0, 0, 0, NOW_MS + 6))
        assert await listed(world) == {"s_1": (NOW_MS + 5, 0)}

    async def test_put_off(self, world: World) -> None:
        """What is put off without a failure is due as it was asked for again; with one, behind its pause."""
        await world.ask(schedule("s_1", "s_2"))
        due = await world.ask(take())
        await world.ask(schedule("s_1", "s_2", due_ms=NOW_MS + 1))
        await world.do(
            *[Settle("e", one.name, one.ticket, NOW_MS + 100, int(one.name == "s_2"), 0, NOW_MS) for one in due.items]
        )
        assert await listed(world) == {"s_1": (NOW_MS + 1, 0), "s_2": (NOW_MS + 100, 1)}

    async def test_taken_by_another_covers_what_was_asked(self, world: World) -> None:
        """A node that takes an item does all that was asked for before: nothing is left of it."""
        await world.ask(schedule("s_1"))
        await ticket(world, take("one"))
        await world.ask(schedule("s_1"))
        second = await ticket(world, take("two", now_ms=NOW_MS + LEASE_MS))
        await world.ask(Settle("e", "s_1", second, 0, 0, 0, NOW_MS + LEASE_MS))
        assert await listed(world) == {}

    async def test_once(self, world: World) -> None:
        """A repetition, and a settling of an item that no node has, change nothing."""
        await world.ask(schedule("s_1"))
        held = await ticket(world, take())
        await world.ask(schedule("s_1", due_ms=NOW_MS + 5))
        settle = Settle("e", "s_1", held, 0, 0, 0, NOW_MS)
        assert await world.do(settle, settle, Settle("e", "s_1", 0, 0, 0, 0, NOW_MS)) == [Done(), Done(), Done()]
        assert await listed(world) == {"s_1": (NOW_MS + 5, 0)}
        assert await world.ask(Settle("e", "s_9", 1, 0, 0, 0, NOW_MS)) == Done()

    async def test_bound(self, world: World) -> None:
        """No node puts an item off for longer than its kind allows, and the first failure has a time."""
        await world.ask(schedule("s_1"))
        held = await ticket(world, take())
        await world.ask(Settle("e", "s_1", held, NOW_MS + 10**9, 1, 0, NOW_MS))
        assert await world.ask(ReadAgenda("e", NOW_MS)) == AgendaRead(1, 0, 1, NOW_MS)
        assert await listed(world) == {"s_1": (NOW_MS + AHEAD_MAX_MS["e"], 1)}

    async def test_success_after_failures(self, world: World) -> None:
        """An item that comes through has no failures any more."""
        await world.ask(schedule("s_1"))
        held = await ticket(world, take("one"))
        await world.ask(Settle("e", "s_1", held, NOW_MS + 5, 4, NOW_MS, NOW_MS))
        held = await ticket(world, take("two", now_ms=NOW_MS + 5))
        await world.ask(schedule("s_1", due_ms=NOW_MS + 9))
        await world.ask(Settle("e", "s_1", held, 0, 4, NOW_MS, NOW_MS + 6))
        assert await world.ask(ReadAgenda("e", NOW_MS)) == AgendaRead(1, 0, 0, 0)


class TestReading:
    """What the operator sees."""

    async def test_sums(self, world: World) -> None:
        """How many there are, are due and fail, and since when the oldest one waits."""
        assert await world.ask(ReadAgenda("e", NOW_MS)) == AgendaRead(0, 0, 0, 0)
        await world.do(
            schedule("s_1", due_ms=NOW_MS - 40), schedule("s_2", due_ms=NOW_MS - 50), schedule("s_3", due_ms=NOW_MS + 9)
        )
        assert await world.ask(ReadAgenda("e", NOW_MS)) == AgendaRead(3, 2, 0, NOW_MS - 50)
        held = await ticket(world, take(limit=1))
        assert await world.ask(ReadAgenda("e", NOW_MS)) == AgendaRead(3, 1, 0, NOW_MS - 40)
        assert await world.ask(ReadAgenda("e", NOW_MS + LEASE_MS)) == AgendaRead(3, 3, 0, NOW_MS - 40)
        await world.ask(Settle("e", "s_2", held, NOW_MS + 99, 1, NOW_MS - 77, NOW_MS))
        assert await world.ask(ReadAgenda("e", NOW_MS)) == AgendaRead(3, 1, 1, NOW_MS - 77)

    async def test_pages(self, world: World) -> None:
        """In order of name, behind a name; what a node has shows until when."""
        await world.do(schedule("s_2", "s_3", due_ms=NOW_MS + 3), schedule("s_1"))
        await ticket(world, take())
        assert await world.ask(ListAgenda("e", "", 2)) == AgendaPage(
            (AgendaItem("s_1", NOW_MS + LEASE_MS, 0, 0, True), AgendaItem("s_2", NOW_MS + 3, 0, 0, False))
        )
        assert await world.ask(ListAgenda("e", "s_2", 2)) == AgendaPage((AgendaItem("s_3", NOW_MS + 3, 0, 0, False),))
        assert await world.ask(ListAgenda("e", "s_3", 2)) == AgendaPage(())
        assert await world.ask(ListAgenda("e", "", 0)) == AgendaPage(())

    async def test_nothing_is_left(self, world: World, request: pytest.FixtureRequest) -> None:
        """Items come and go without a trace in any sum or order."""
        for turn in range(5):
            now_ms = NOW_MS + 1000 * turn
            await world.ask(schedule("s_1", "s_2", due_ms=now_ms, now_ms=now_ms))
            due = await world.ask(take(f"one{turn}", now_ms=now_ms))
            await world.do(*[Settle("e", one.name, one.ticket, now_ms + 1, 1, 0, now_ms) for one in due.items])
            due = await world.ask(take(f"two{turn}", now_ms=now_ms + 1))
            assert len(due.items) == 2
            await world.do(*[Settle("e", one.name, one.ticket, 0, 0, 0, now_ms + 1) for one in due.items])
            assert await world.ask(ReadAgenda("e", now_ms + 10**9)) == AgendaRead(0, 0, 0, 0)
            assert await world.ask(take("three", now_ms=now_ms + 10**9)) == Due((), 0)
        if request.node.callspec.params["fresh"] == "redis":
            with Redis.from_url(request.getfixturevalue("redis_url")) as client:
                assert [client.exists("signald:{signald}:" + name) for name in ("agenda", "agenda_order")] == [0, 0]


def test_an_emptied_store() -> None:
    """A store that came back empty has nothing to do: what is entered again is none of what a node had before."""
    before, after = MemoryRows(), MemoryRows()
    for rows, now_ms in ((before, NOW_MS), (after, NOW_MS + 1)):
        apply(schedule("s_1", now_ms=now_ms), rows, Wakes())
    held = apply(take(), before, Wakes())
    again = apply(take("other", now_ms=NOW_MS + 1), after, Wakes())
    assert isinstance(held, Due)
    assert isinstance(again, Due)
    assert held.items[0].ticket < again.items[0].ticket
    apply(Settle("e", "s_1", held.items[0].ticket, 0, 0, 0, NOW_MS + 2), after, Wakes())
    assert after.item("e", "s_1") is not None
