"""Which key seals: all live nodes open by it, the store has noted it, and a node without a noted key does not start."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from signald.errors import StoreMisused
from signald.store.base import Store
from signald.store.memory import open_memory
from signald.store.registry.ops import NodeInfo, PutNode, UseSealKey
from signald.store.seals import Seals
from signald.testing.cluster import Cluster, play
from tests.store.test_seals import NEW, OLD

LEASE_S = 10.0


def ring_of(cluster: Cluster, **rings: Seals) -> None:
    """Give the node of each name its ring. Memory keeps nothing, so the ring alone is looked at."""

    @asynccontextmanager
    async def opened(name: str) -> AsyncIterator[Store]:
        async with open_memory("memory:", name, world=cluster.world) as store:
            setattr(store, "seals", rings[name])  # noqa: B010 - a store in memory has none
            yield store

    cluster.open_store = opened


async def used(cluster: Cluster) -> tuple[str, ...]:
    """Return the keys that the store has noted."""
    async with open_memory("memory:", "reader", world=cluster.world) as store:
        (kept,) = await store.execute([UseSealKey("")])
    ids: tuple[str, ...] = kept.ids  # type: ignore[attr-defined]
    return ids


OLD_ID, NEW_ID = Seals((OLD, NEW)).ids


def test_the_first_node_seals_at_once() -> None:
    """It is alone, so every live node has the newest key before a party comes."""

    async def scene(cluster: Cluster) -> None:
        ring = Seals((OLD, NEW))
        ring_of(cluster, n1=ring)
        await cluster.start("n1")
        assert (ring.sealing, ring.used) == (NEW_ID, frozenset({NEW_ID}))
        assert await used(cluster) == (NEW_ID,)
        cluster.world.lose_everything()
        await trio.sleep(LEASE_S)
        assert await used(cluster) == (NEW_ID,)

    play(scene)


def test_a_key_seals_once_every_node_has_it() -> None:
    """A file that reaches the nodes one by one: the old key goes on until the last one has the new one."""

    async def scene(cluster: Cluster) -> None:
        one, two = Seals((OLD,)), Seals((OLD,))
        ring_of(cluster, n1=one, n2=two)
        await cluster.start("n1")
        await cluster.start("n2")
        one.renew((OLD, NEW))
        await trio.sleep(2 * LEASE_S)
        assert (one.sealing, two.sealing) == (OLD_ID, OLD_ID)
        two.renew((OLD, NEW))
        await trio.sleep(2 * LEASE_S)
        assert (one.sealing, two.sealing) == (NEW_ID, NEW_ID)
        assert await used(cluster) == (OLD_ID, NEW_ID)

    play(scene)


def test_beside_a_node_that_opens_nothing_values_stay_plain() -> None:
    """A node of an earlier release, or without a key file. What has been sealed once is not written plain again."""

    async def scene(cluster: Cluster) -> None:
        one, none = Seals((OLD,)), Seals()
        ring_of(cluster, n1=one, n2=none)
        await cluster.start("n2")
        await cluster.start("n1")
        await trio.sleep(2 * LEASE_S)
        assert (one.sealing, await used(cluster)) == ("", ())
        cluster.nodes["n2"].shutdown.signal()
        await cluster.wait_exit("n2")
        await trio.sleep(2 * LEASE_S)
        assert one.sealing == OLD_ID
        async with open_memory("memory:", "earlier", world=cluster.world) as store:
            now = store.now_ms()
            await store.execute([PutNode(NodeInfo("n0", "0.1.0", "ready", now, now + 60_000, renewed_ms=now))])
        await trio.sleep(LEASE_S)
        assert one.sealing == OLD_ID

    play(scene)


def test_a_node_without_a_noted_key_is_refused() -> None:
    """No key, or another secret under the same name: it would take for lost what it cannot open."""

    async def scene(cluster: Cluster) -> None:
        wrong = Seals((type(OLD)(OLD.name, bytes(32)),))
        ring_of(cluster, n1=Seals((OLD,)), n2=Seals(), n3=wrong)
        await cluster.start("n1")
        for name in ("n2", "n3"):
            refused = ""
            try:
                await cluster.start(name)
            except* StoreMisused as group:
                refused = str(group.exceptions)
            assert OLD_ID in refused
            assert "put the lines of these keys back" in refused
        assert set(cluster.nodes) == {"n1"}

    play(scene)


def test_a_retired_key_is_forgotten() -> None:
    """The operator says that no value is under it any more: its line may go, and a node without it starts."""

    async def scene(cluster: Cluster) -> None:
        one = Seals((OLD,))
        ring_of(cluster, n1=one, n2=Seals((NEW,), retired=frozenset({OLD_ID})))
        await cluster.start("n1")
        one.renew((OLD, NEW))
        await trio.sleep(2 * LEASE_S)
        assert await used(cluster) == (OLD_ID, NEW_ID)
        assert one.renew((NEW,), frozenset({OLD_ID})) == ()
        await cluster.start("n2")
        await trio.sleep(2 * LEASE_S)
        assert await used(cluster) == (NEW_ID,)

    play(scene)
