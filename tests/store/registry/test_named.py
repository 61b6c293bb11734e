"""What every store must do about workers that have a name and no token: `ClaimNamed`, and what they tell by `TellWorker`."""

from msgspec import structs

from signald.core.life import Event
from signald.store.base import Done, Fenced, Refused
from signald.store.registry.ops import DetachWorker, RemoveWorker, Reserve, UpdateWorker, WorkerClaimed, WorkerInfo
from signald.store.registry.queues.ops import DropQueue, ReadQueue, TellWorker
from signald.store.session.events.ops import EventsRead
from tests.store.ops import NOW_MS, SESSION, WORKER, claim_named, claim_worker, enqueue, register
from tests.store.registry.test_contract import workers
from tests.store.worlds import World

ENTERED = Event(1, "worker.registered", NOW_MS, {"worker": WORKER, "instance": "pod-1", "capacity": 1, "node": "a"})


def tell(text: str, events_max: int = 9) -> TellWorker:
    """The worker says something of its life."""
    return TellWorker(WORKER, "app.message", {"id": text}, events_max, NOW_MS + 1)


class TestClaim:
    """A worker is found by its name."""

    async def test_entered(self, world: World) -> None:
        """The first claim enters the worker under epoch 1, tells it, and is repeated without harm."""
        asked = claim_named(events_max=9)
        assert await world.do(asked, asked) == [WorkerClaimed(1, ())] * 2
        assert await workers(world) == {
            WORKER: WorkerInfo(
                WORKER, "a", 1, {"lang": "en"}, 1, 0, leaving=False, away_since_ms=0, instance="pod-1", principal="wes"
            )
        }
        assert await world.ask(ReadQueue(WORKER, 9)) == EventsRead((ENTERED,), 1, 0, 1)

    async def test_not_entered(self, world: World) -> None:
        """A claim of what is there already enters nothing."""
        assert await world.ask(claim_named(create=False)) == Refused("unknown")
        assert await workers(world) == {}

    async def test_superseded(self, world: World) -> None:
        """A newer claim takes the worker with its sessions, labels and room, and wakes the node before."""
        await world.do(claim_named(), enqueue(), Reserve("a", ((SESSION, WORKER),)))
        await world.woken()
        newer = claim_named(node="b", nonce="newer", capacity=3, create=False, now_ms=NOW_MS + 5)
        assert await world.ask(newer, at="b") == WorkerClaimed(2, (SESSION,), "a")
        found = (await workers(world))[WORKER]
        assert (found.node, found.epoch, found.capacity) == ("b", 2, 3)
        assert await world.woken("b") == {"a": [b"ww_1"], "b": []}
        assert await world.ask(UpdateWorker(WORKER, 1, 1, False)) == Fenced(2)

    async def test_back(self, world: World) -> None:
        """A worker that was away, or was leaving, is ready again."""
        await world.do(claim_named(), UpdateWorker(WORKER, 1, 1, True), DetachWorker(WORKER, 1, NOW_MS))
        assert await world.ask(claim_named(nonce="back", create=False)) == WorkerClaimed(2, (), "")
        found = (await workers(world))[WORKER]
        assert (found.leaving, found.away_since_ms, found.node) == (False, 0, "a")

    async def test_another_principal(self, world: World) -> None:
        """The name belongs to the principal that has come first, also while that is away."""
        await world.do(claim_named())
        assert await world.ask(claim_named(nonce="eve", principal="eve")) == Refused("principal")
        await world.do(DetachWorker(WORKER, 1, NOW_MS))
        assert await world.ask(claim_named(nonce="eve", principal="eve")) == Refused("principal")
        assert (await workers(world))[WORKER].epoch == 1

    async def test_late(self, world: World) -> None:
        """A claim that was asked for before the one that holds takes nothing."""
        await world.do(claim_named(now_ms=NOW_MS + 10))
        assert await world.ask(claim_named(nonce="late", now_ms=NOW_MS + 9)) == Refused("late")

    async def test_granted(self, world: World) -> None:
        """What the core server has granted a worker that is entered stays with it, over the labels that it brings."""
        await world.do(claim_named(granted={"lang": "de"}))
        await world.do(claim_named(nonce="again", granted={"lang": "fr"}))
        assert (await workers(world))[WORKER].labels == {"lang": "de"}

    async def test_no_token(self, world: World) -> None:
        """No token claims a worker that has none; neither is a worker with a token entered in its place."""
        await world.do(claim_named())
        assert await world.ask(claim_worker()) == Refused("unknown")
        assert await world.ask(register()) == Refused("exists")


class TestTelling:
    """A worker tells of its own life."""

    async def test_told(self, world: World) -> None:
        """Each is told once, in order; what waits already is not told again."""
        await world.do(claim_named(), tell("one"), tell("two"), tell("one"))
        read = await world.ask(ReadQueue(WORKER, 9))
        assert [(event.n, event.fields["id"]) for event in read.events] == [(1, "one"), (2, "two")]
        await world.do(DropQueue(WORKER, 1), tell("one"))
        assert [event.fields["id"] for event in (await world.ask(ReadQueue(WORKER, 9))).events] == ["two", "one"]

    async def test_full(self, world: World) -> None:
        """Beyond its bound a queue takes nothing, and says how much; with what was dropped before it an event is still known."""
        await world.do(
            claim_named(), tell("one", 1), tell("two", 1), DropQueue(WORKER, 1), tell("three", 1), tell("three", 1)
        )
        read = await world.ask(ReadQueue(WORKER, 9))
        assert [event.fields for event in read.events] == [{"id": "three", "dropped": 1}]
        assert read.dropped == 0

    async def test_untold(self, world: World) -> None:
        """Nothing is told of a worker that is not known, nor without a receiver."""
        assert await world.do(tell("one"), claim_named(), tell("two", 0)) == [Done(), WorkerClaimed(1, ()), Done()]
        assert (await world.ask(ReadQueue(WORKER, 9))).events == ()

    async def test_the_last_word(self, world: World) -> None:
        """A worker that is gone tells nothing any more: its loss is its last event."""
        gone = RemoveWorker(WORKER, "a", 0, True, "terminated", 9, NOW_MS + 2)
        await world.do(claim_named(), tell("one"), gone, tell("late"))
        read = await world.ask(ReadQueue(WORKER, 9))
        assert [event.type for event in read.events] == ["app.message", "worker.lost"]
        assert structs.asdict(read.events[0])["fields"] == {"id": "one"}
