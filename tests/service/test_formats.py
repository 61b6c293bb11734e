"""Format numbers: a release starts beside the one before and the one after, and not beside a more distant one."""

import pytest
import trio

from signald.errors import StoreMisused
from signald.store.formats import FORMAT, FORMAT_UNSAID, READS, check_formats
from signald.store.memory import open_memory
from signald.store.registry.ops import Format, NodeInfo, PutNode, RaiseFormat
from signald.testing.cluster import Cluster, play

LEASE_S = 10.0


def node(number: int) -> NodeInfo:
    """A live node that writes a format."""
    return NodeInfo("other", "9.9", "ready", 0, 1_000, format=number)


@pytest.mark.parametrize("kept", [FORMAT_UNSAID, FORMAT, READS])
def test_a_store_of_a_neighbour_is_taken(kept: int) -> None:
    """A store without a number, one of this release and one of the next can be read."""
    check_formats(kept, [node(max(1, FORMAT - 1)), node(FORMAT), node(READS)])


@pytest.mark.parametrize(
    ("kept", "nodes", "said"),
    [
        (READS + 1, [], "start a newer release"),
        (FORMAT, [node(READS + 1)], "roll back one release at a time"),
        (FORMAT, [node(FORMAT - 2)], "deploy each release between"),
    ],
)
def test_a_distant_release_is_refused_with_what_to_do(kept: int, nodes: list[NodeInfo], said: str) -> None:
    """Two formats away, in the store or at a live node, in either direction."""
    with pytest.raises(StoreMisused, match=said):
        check_formats(kept, nodes)


def test_a_node_raises_the_number_and_an_emptied_store_gets_it_again() -> None:
    """The number is written when a node starts, and with each renewal of its lease."""

    async def number(cluster: Cluster) -> object:
        async with open_memory("memory:", "reader", world=cluster.world) as store:
            [kept] = await store.execute([RaiseFormat(0)])
        return kept

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        assert await number(cluster) == Format(FORMAT)
        cluster.world.lose_everything()
        await trio.sleep(LEASE_S)
        assert await number(cluster) == Format(FORMAT)

    play(scene)


def test_a_refused_start_leaves_the_number_and_no_entry() -> None:
    """A node that may not start writes nothing: the store stays as the others need it."""

    async def scene(cluster: Cluster) -> None:
        async with open_memory("memory:", "reader", world=cluster.world) as store:
            await store.execute([RaiseFormat(READS + 1)])
        refused = ""
        try:
            await cluster.start("n1")
        except* StoreMisused as group:
            refused = str(group.exceptions)
        assert "start a newer release" in refused
        async with open_memory("memory:", "reader", world=cluster.world) as store:
            assert await store.execute([RaiseFormat(0)]) == [Format(READS + 1)]

    play(scene)


def test_a_node_that_stood_still_ends_when_the_store_has_gone_ahead() -> None:
    """A store that this release can no longer read ends the node; its parties are told to resume elsewhere."""

    async def scene(cluster: Cluster) -> None:
        first = await cluster.start("n1")
        client, _ = await cluster.client("n1")
        async with open_memory("memory:", "later", world=cluster.world) as store:
            now = store.now_ms()
            later = NodeInfo("n2", "9.9", "ready", now, now + 60_000, renewed_ms=now, format=READS + 1)
            await store.execute([RaiseFormat(READS + 1), PutNode(later)])
        assert await client.closed() in (1001, 1012)
        assert first.lease.outdated

    play(scene)
