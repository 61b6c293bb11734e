"""What every store must do about the event queues of workers and of the cluster (`signald/store/registry/queues`), rule by rule.

The nodes `a` and `b` look at one fresh store.
"""

from typing import Any

from msgspec import structs

from signald.core.life import EVENTS_LEFT_MS, Event
from signald.store.base import Done, Refused
from signald.store.registry.agenda.ops import AgendaRead, ReadAgenda
from signald.store.registry.ops import ClaimWorker, RegisterWorker, RemoveWorker, Sessions, WorkerClaimed
from signald.store.registry.queues.ops import CLUSTER, DropQueue, ReadQueue, TellCluster
from signald.store.registry.queues.records import ONCE_REMEMBERED
from signald.store.session.events.ops import EventsLeft, EventsRead
from tests.store.ops import NOW_MS, WORKER, claim_worker, register, reseed_worker
from tests.store.registry.test_agenda import take
from tests.store.worlds import World

REGISTERED = Event(1, "worker.registered", NOW_MS, {"worker": WORKER, "instance": "pod-1", "capacity": 2, "node": "b"})
NONE = EventsRead()


def enter(
    worker: str = WORKER, *, events_max: int = 9, now_ms: int = NOW_MS, nonce: str = "register"
) -> RegisterWorker:
    """A worker of which the backend is told."""
    return structs.replace(register(worker, nonce=nonce), events_max=events_max, now_ms=now_ms)


def remove(worker: str = WORKER, *, events_max: int = 9, now_ms: int = NOW_MS + 5) -> RemoveWorker:
    """It is given up."""
    return RemoveWorker(worker, "a", 0, True, "expired", events_max, now_ms)


def tell(once: str, *, events_max: int = 9, now_ms: int = NOW_MS) -> TellCluster:
    """A node has stopped as planned."""
    return TellCluster(once, "deploy.finished", {"node": once, "moved": 3}, events_max, now_ms)


async def read(world: World, name: str, limit: int = 99) -> EventsRead:
    """Read a queue, which looks the same from both nodes."""
    found = await world.ask(ReadQueue(name, limit), at="a")
    assert isinstance(found, EventsRead)
    assert await world.ask(ReadQueue(name, limit), at="b") == found
    return found


def numbers(read: EventsRead) -> list[int]:
    """Return the numbers of the events."""
    return [event.n for event in read.events]


class TestWorkers:
    """The life of a worker is told in its own queue."""

    async def test_registered_and_lost(self, world: World) -> None:
        """Both are told once, in order, and let the queue be due in the same step."""
        first = await world.ask(enter())
        assert await world.ask(enter()) == first
        assert await read(world, WORKER) == EventsRead((REGISTERED,), 1, 0, 1)
        assert await world.ask(ReadAgenda("e", NOW_MS)) == AgendaRead(1, 1, 0, NOW_MS)
        assert await world.do(remove(), remove()) == [Sessions(()), Sessions(())]
        lost = Event(2, "worker.lost", NOW_MS + 5, {"worker": WORKER, "reason": "expired"})
        assert await read(world, WORKER) == EventsRead((REGISTERED, lost), 2, 0, 2)
        assert await read(world, WORKER, 1) == EventsRead((REGISTERED,), 2, 0, 1)
        assert (await read(world, WORKER, 0)).events == ()

    async def test_nothing_is_told_unless_it_is_asked_for(self, world: World) -> None:
        """Without a receiver there is no queue, and nothing is due; what is refused is not told either."""
        await world.do(enter(events_max=0), enter(nonce="other"))
        assert await world.ask(enter(nonce="another")) == Refused("exists")
        await world.do(remove(events_max=0), remove())
        assert await read(world, WORKER) == NONE
        assert await world.ask(ReadAgenda("e", NOW_MS)) == AgendaRead(0, 0, 0, 0)

    async def test_numbers_go_on(self, world: World) -> None:
        """While the worker lives its empty queue is kept: the next event has the next number."""
        await world.ask(enter())
        assert await world.ask(DropQueue(WORKER, 1)) == EventsLeft(0)
        assert await read(world, WORKER) == NONE
        await world.ask(remove())
        assert numbers(await read(world, WORKER)) == [2]

    async def test_gone(self, world: World) -> None:
        """The queue goes with its last event once the worker is gone; dropping it again is fine."""
        await world.do(enter(), remove())
        assert await world.ask(DropQueue(WORKER, 1)) == EventsLeft(1)
        assert await world.do(DropQueue(WORKER, 1), DropQueue(WORKER, 2)) == [EventsLeft(1), EventsLeft(0)]
        assert await read(world, WORKER) == NONE
        assert await world.ask(DropQueue(WORKER, 2)) == EventsLeft(0)

    async def test_gone_and_not_told(self, world: World) -> None:
        """A node that tells nothing removes a worker: an empty queue goes at once, another one when it is delivered."""
        await world.do(enter(), enter("w_2"), DropQueue(WORKER, 1), remove(events_max=0), remove("w_2", events_max=0))
        assert await read(world, WORKER) == NONE
        assert numbers(await read(world, "w_2")) == [1]
        assert await world.ask(DropQueue("w_2", 1)) == EventsLeft(0)
        assert await read(world, "w_2") == NONE

    async def test_the_end_is_told_beyond_the_bound(self, world: World) -> None:
        """That a worker is lost is taken by a full queue as well."""
        await world.do(enter(events_max=1), remove(events_max=1))
        assert numbers(await read(world, WORKER)) == [1, 2]

    async def test_left_behind(self, world: World) -> None:
        """The queue of a worker that another release has removed goes by time; that of one that lives, and the cluster's, stay."""
        await world.do(enter(), enter("w_2"), tell("a"))
        await world.do(DropQueue(WORKER, 1), DropQueue("w_2", 1), DropQueue(CLUSTER, 1))
        await world.ask(RemoveWorker("w_2", "a", 0, False))
        await world.do(enter("w_2", nonce="more"), remove("w_2", events_max=0))
        later_ms = NOW_MS + EVENTS_LEFT_MS
        await world.ask(enter("w_3", now_ms=later_ms - 1))
        assert numbers(await read(world, "w_2")) == [1]
        await world.ask(enter("w_4", now_ms=later_ms))
        assert await read(world, "w_2") == NONE
        assert await read(world, WORKER) == NONE
        await world.do(remove(), tell("b"))
        assert numbers(await read(world, WORKER)) == numbers(await read(world, CLUSTER)) == [2]

    async def test_an_emptied_store(self, world: World) -> None:
        """A worker that is given back has no queue of before: the next event begins one anew."""
        await world.ask(reseed_worker())
        assert await read(world, WORKER) == NONE
        await world.ask(remove())
        assert numbers(await read(world, WORKER)) == [1]

    async def test_a_claim_is_not_told(self, world: World) -> None:
        """A worker that comes back was never lost."""
        await world.ask(enter())
        claim: ClaimWorker = claim_worker()
        assert isinstance(await world.ask(claim), WorkerClaimed)
        assert numbers(await read(world, WORKER)) == [1]


class TestCluster:
    """What no worker and no session tells."""

    async def test_once(self, world: World) -> None:
        """However often, and from wherever, one thing is told: it is told once, also when the event is delivered already."""
        assert await world.do(tell("a"), tell("a", now_ms=NOW_MS + 9)) == [Done(), Done()]
        assert await world.ask(tell("a"), at="b") == Done()
        found = await read(world, CLUSTER)
        assert found.events == (Event(1, "deploy.finished", NOW_MS, {"node": "a", "moved": 3}),)
        await world.do(DropQueue(CLUSTER, 1), tell("a"))
        assert await read(world, CLUSTER) == NONE
        await world.ask(tell("b"))
        assert numbers(await read(world, CLUSTER)) == [2]

    async def test_not_wanted(self, world: World) -> None:
        """Without a receiver nothing is told nor remembered."""
        await world.ask(tell("a", events_max=0))
        assert await read(world, CLUSTER) == NONE
        await world.ask(tell("a"))
        assert numbers(await read(world, CLUSTER)) == [1]

    async def test_full(self, world: World) -> None:
        """A full queue takes nothing; how many were dropped stands in the next event, and numbers have no gap."""
        await world.do(*[tell(name, events_max=2) for name in "abcd"])
        found = await read(world, CLUSTER)
        assert (numbers(found), found.waiting, found.dropped) == ([1, 2], 2, 2)
        await world.do(DropQueue(CLUSTER, 1), tell("c", events_max=2), tell("e", events_max=2), tell("f", events_max=3))
        found = await read(world, CLUSTER)
        assert [(event.n, event.fields.get("dropped"), event.fields["node"]) for event in found.events] == [
            (2, None, "b"), (3, 2, "e"), (4, None, "f"),
        ]  # fmt: skip
        assert found.dropped == 0

    async def test_remembered_within_bounds(self, world: World) -> None:
        """As many keys are remembered as nodes stop in the time in which a stop is told again."""
        names = [f"n{number}" for number in range(ONCE_REMEMBERED + 1)]
        await world.do(*[tell(name, events_max=1000) for name in names])
        waiting = (await read(world, CLUSTER)).waiting
        assert waiting == len(names)
        await world.do(tell(names[1], events_max=1000), tell(names[-1], events_max=1000))
        assert (await read(world, CLUSTER)).waiting == waiting
        await world.ask(tell(names[0], events_max=1000))
        assert (await read(world, CLUSTER)).waiting == waiting + 1

    async def test_odd_texts(self, world: World) -> None:
        """Texts of other alphabets, empty ones and large numbers come back as they were."""
        fields: dict[str, Any] = {"node": "Ω\x00\x1f🙂", "reason": "", "big": 2**52, "below": -3, "": "empty"}
        await world.ask(TellCluster("a", "deploy.finished", fields, 9, NOW_MS))
        assert (await read(world, CLUSTER)).events == (Event(1, "deploy.finished", NOW_MS, fields),)

    async def test_due_and_delivered(self, world: World) -> None:
        """What comes while a node delivers is due when that node is done."""
        await world.ask(tell("a"))
        due = await world.ask(take())
        assert [item.name for item in due.items] == [CLUSTER]
        await world.ask(tell("b"))
        assert (await world.ask(take("other"))).items == ()
