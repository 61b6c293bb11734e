"""When a node seals anew: not without a key, one request at a time, and done with a clean pass that no other node can spoil."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from attrs import evolve

from signald.config import Config
from signald.errors import OperationRefused
from signald.ids import SystemEntropy
from signald.node import Node, node_on
from signald.store.registry.ops import UseSealKey
from signald.store.seals import Seals
from signald.store.sqlite import open_sqlite
from signald.testing.cluster import Cluster, play
from tests.store.test_sealed import fill
from tests.store.test_seals import NEW, OLD

LEASE_S = 1.0

OLD_ID, NEW_ID = Seals((OLD, NEW)).ids


@asynccontextmanager
async def node_with(path: Path, seals: Seals) -> AsyncIterator[Node]:
    """A node on a file in which a session has begun under the old key."""
    async with open_sqlite(
        f"sqlite:{path}", "n1", ack="process", poll_interval_s=0.05, seals=Seals((OLD,), sealing=True)
    ) as store:
        await store.execute([UseSealKey(OLD_ID), *fill()])
    config = Config()
    config = evolve(config, node=evolve(config.node, id="n1", lease_ttl_s=LEASE_S))
    async with (
        open_sqlite(f"sqlite:{path}", "n1", ack="process", poll_interval_s=0.05, seals=seals) as store,
        node_on(store, config, SystemEntropy()) as node,
    ):
        yield node


async def _end_of(node: Node) -> dict[str, object]:
    with trio.fail_after(30):
        while (answer := node.operations.resealing())["state"] == "running":  # noqa: ASYNC110 - as `ctl reseal --wait` asks
            await trio.sleep(0.05)
    return answer


def test_memory_has_nothing_to_reseal() -> None:
    """It keeps nothing beyond its process."""

    async def scene(cluster: Cluster) -> None:
        node = await cluster.start("n1")
        with pytest.raises(OperationRefused, match="no key seals"):
            node.operations.reseal()
        assert node.operations.resealing()["state"] == "none"

    play(scene)


@pytest.mark.real
async def test_a_node_without_a_key_refuses(tmp_path: Path) -> None:
    """Values would stay as they are."""
    async with (
        open_sqlite(f"sqlite:{tmp_path / 's.db'}", "n1", ack="process", poll_interval_s=0.05) as store,
        node_on(store, Config(), SystemEntropy()) as node,
    ):
        with pytest.raises(OperationRefused, match="no key seals"):
            node.operations.reseal()


@pytest.mark.real
async def test_done_behind_one_lease(tmp_path: Path) -> None:
    """The pass that counts begins when each node seals under the key: a neighbour may have sealed under the old one until then."""
    async with node_with(tmp_path / "s.db", Seals((OLD, NEW))) as node:
        begun_at = trio.current_time()
        assert node.operations.reseal()["state"] == "running"
        with pytest.raises(OperationRefused, match="already"):
            node.operations.reseal()
        answer = await _end_of(node)
        assert trio.current_time() - begun_at >= LEASE_S
    assert answer["key"] == {"id": NEW_ID, "name": NEW.name}
    assert answer["retirable"] == [{"id": OLD_ID, "name": OLD.name}]
    assert (answer["state"], answer["unreadable"]) == ("done", 0)
    passes = answer["passes"]
    assert isinstance(passes, int)
    assert passes >= 3, "one that found something, one that was clean too early, and the one that counts"


@pytest.mark.real
async def test_again_when_it_is_over(tmp_path: Path) -> None:
    """A second request is a run of its own, and finds nothing."""
    async with node_with(tmp_path / "s.db", Seals((OLD, NEW))) as node:
        node.operations.reseal()
        first = await _end_of(node)
        node.operations.reseal()
        second = await _end_of(node)
    assert first["exchanged"] != 0
    assert (second["state"], second["exchanged"]) == ("done", 0)
