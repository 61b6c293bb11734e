"""What a client wants of its worker stays with its session: through a loss of the store, a refusal, and a long line."""

from collections.abc import Sequence

import trio

from signald.store.base import Op
from signald.store.registry.ops import Reserve
from signald.testing.cluster import Cluster, play
from signald.testing.wire import Peer
from tests.service.test_store_loss import faulty

EN, FR = {"lang": "en"}, {"lang": "fr"}
MANY = 30


async def assigned(worker: Peer) -> list[str]:
    """Return the sessions that a worker is asked to take while nothing else happens."""
    return [frame["session"] for frame in await worker.quiet() if frame["type"] == "session_assigned"]


def test_a_session_that_was_given_back_with_its_worker_wants_what_it_wanted() -> None:
    """The store is lost, the worker gives its session back, and then leaves: only a worker of the same label gets it."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        worker, _ = await cluster.worker("n1", "en", labels=EN)
        _, started = await cluster.client("n1", want=EN)
        await worker.accept()
        cluster.world.lose_everything()
        await trio.sleep(10.0)
        assert cluster.world.rows.sessions_of(cluster.world.rows.workers()[0].id) == (started["session"],)
        other, _ = await cluster.worker("n1", "fr", labels=FR)
        await worker.send({"type": "bye"})
        assert await assigned(other) == []
        same, _ = await cluster.worker("n1", "en-2", labels=EN)
        assert (await same.accept())["session"] == started["session"]

    play(scene)


def test_a_session_that_waits_wants_what_it_wanted_after_a_loss() -> None:
    """The store is lost while a session waits: it waits again, for the same."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        _, started = await cluster.client("n1", want=EN)
        cluster.world.lose_everything()
        await trio.sleep(10.0)
        other, _ = await cluster.worker("n1", "fr", labels=FR)
        assert await assigned(other) == []
        same, _ = await cluster.worker("n1", "en", labels=EN)
        assert (await same.accept())["session"] == started["session"]

    play(scene)


def test_a_session_that_is_refused_wants_what_it_wanted() -> None:
    """A session that its worker refuses waits again for the same: that worker is asked again, and none of another label is."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        other, _ = await cluster.worker("n1", "fr", labels=FR)
        worker, _ = await cluster.worker("n1", "en", labels=EN)
        _, started = await cluster.client("n1", want=EN)
        await worker.expect("session_assigned")
        await worker.send({"type": "session_refuse", "session": started["session"], "reason": "full"})
        assert (await worker.accept(within_s=60))["session"] == started["session"]
        assert await assigned(other) == []

    play(scene)


def test_one_pass_pairs_as_many_as_there_is_room_for() -> None:
    """Of a long line a worker with room for all is given all in one reservation, in their order."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1")
        waiting = []
        for _ in range(MANY):
            _, started = await cluster.client("n1")
            waiting.append(started["session"])
            await trio.sleep(0.01)
        reserved: list[list[str]] = []

        def count(ops: Sequence[Op]) -> None:
            reserved.extend([session for session, _ in op.pairs] for op in ops if isinstance(op, Reserve))

        store = faulty(node)
        store.before = count
        worker, _ = await cluster.worker("n1", capacity=MANY)
        assert sorted(await assigned(worker)) == sorted(waiting)
        assert reserved == [waiting]

    play(scene)
