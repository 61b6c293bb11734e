"""Identity of nodes: of all processes on a store one live process holds a node id, and no process disturbs the holder."""

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from signald.service.cluster.identity import (
    FORGET_FILE_S,
    NAMES_MAX,
    POLL_S,
    Claimant,
    HostFile,
    NodeIdTaken,
    StartCalledOff,
)
from signald.store.base import Done, Op, Result, Store
from signald.store.memory import open_memory
from signald.store.registry.ops import DropNode, ListNodes, NodeInfo, Nodes, NodeTaken, PutNode
from signald.testing.cluster import Cluster, SameHost, play

LEASE_S = 10.0


async def refused(cluster: Cluster, name: str) -> bool:
    """Start a node; tell whether its id was refused."""
    taken = False
    try:
        await cluster.start(name)
    except* NodeIdTaken:
        taken = True
    return taken


async def entry(cluster: Cluster, name: str) -> NodeInfo | None:
    """Read the entry of a node."""
    async with open_memory("memory:", "reader", world=cluster.world) as store:
        [listed] = await store.execute([ListNodes(store.now_ms())])
    assert isinstance(listed, Nodes)
    return next((info for info in listed.nodes if info.id == name), None)


def test_a_second_live_node_is_refused() -> None:
    """While the first holder lives the second is refused at once, and the first serves on."""

    async def scene(cluster: Cluster) -> None:
        first = await cluster.start("n1")
        client, _, worker, _, session = await cluster.pair("n1")
        await trio.sleep(1)
        cluster.hosts.clear()  # the lock of a live process cannot be had: on no host is anything known to be dead
        before = trio.current_time()
        assert await refused(cluster, "n1")
        assert trio.current_time() - before <= 2 * POLL_S
        await trio.sleep(3 * LEASE_S)
        assert not first.lease.taken
        await client.send({"type": "message", "seq": 1, "data": "still"})
        assert (await worker.expect("message"))["session"] == session

    play(scene)


def test_a_dead_node_on_another_host_is_waited_for() -> None:
    """Without a proof of its death a killed holder is replaced when its lease has ended, not before, and soon after."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        cluster.kill("n1")
        cluster.hosts.clear()
        before = trio.current_time()
        await cluster.start("n1")
        assert LEASE_S / 2 < trio.current_time() - before <= LEASE_S + 2 * POLL_S

    play(scene)


def test_a_dead_node_on_this_host_is_replaced_at_once() -> None:
    """Killed and started again on one host, many times in a row: no start waits."""

    async def scene(cluster: Cluster) -> None:
        for _ in range(5):
            await cluster.start("n1")
            cluster.kill("n1")
            before = trio.current_time()
            await trio.sleep(0.001)
            await cluster.start("n1")
            assert trio.current_time() - before < POLL_S
            cluster.kill("n1")
            await trio.sleep(0.001)

    play(scene)


def test_an_orderly_restart_does_not_wait() -> None:
    """A node that has drained gives its id back: the next process takes it at once, on any host."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        cluster.nodes["n1"].shutdown.signal()
        await cluster.wait_exit("n1")
        cluster.hosts.clear()
        before = trio.current_time()
        await cluster.start("n1")
        assert trio.current_time() - before < POLL_S

    play(scene)


def test_of_two_that_start_at_once_one_wins() -> None:
    """Two processes wait for the id of a dead one: one gets it, the other is refused."""

    async def scene(cluster: Cluster) -> None:
        await cluster.start("n1")
        cluster.kill("n1")
        lost: list[bool] = []

        async def start() -> None:
            cluster.hosts["n1"] = SameHost()
            lost.append(await refused(cluster, "n1"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(start)
            nursery.start_soon(start)
        assert sorted(lost) == [False, True]

    play(scene)


class FrozenStore:
    """A store whose node stands still from time to time."""

    lives = 1

    def __init__(self, store: Store) -> None:
        self._store = store
        self.thawed = trio.Event()
        self.thawed.set()
        self.now_ms, self.wakes, self.check = store.now_ms, store.wakes, store.check

    async def execute(self, ops: Sequence[Op]) -> list[Result]:
        """See `Store.execute`."""
        await self.thawed.wait()
        return await self._store.execute(ops)


def test_a_node_that_lost_its_id_stops() -> None:
    """A node that stood still for longer than its lease finds its id taken: it closes its connections, ends, and disturbs
    neither the entry nor the parties of the node that holds it."""

    async def scene(cluster: Cluster) -> None:
        stores: list[FrozenStore] = []

        @asynccontextmanager
        async def open_frozen(name: str) -> AsyncIterator[Store]:
            async with open_memory("memory:", name, world=cluster.world) as store:
                stores.append(FrozenStore(store))
                yield stores[-1]

        cluster.open_store = open_frozen
        first = await cluster.start("n1")
        client, started, _, _, session = await cluster.pair("n1")
        stores[0].thawed = trio.Event()
        await trio.sleep(LEASE_S + 1)
        cluster.hosts.clear()
        second = await cluster.start("n1")
        stores[0].thawed.set()
        assert await client.closed() in (1001, 1012)
        await trio.sleep(2)
        assert first.lease.taken
        assert cluster.exits == ["n1"]
        cluster.nodes["n1"] = second
        held = await entry(cluster, "n1")
        assert held is not None
        assert held.incarnation == second.lease.info.incarnation
        _, restored = await cluster.restore("n1", str(started["recovery_token"]))
        assert (restored["type"], restored["session"]) == ("session_restored", session)
        await trio.sleep(LEASE_S)
        assert not second.lease.taken

    play(scene)


def test_a_store_that_lost_its_tail_ends_no_node() -> None:
    """An entry from before this node held the id comes back with an older copy of the store: the node takes its id again."""

    async def scene(cluster: Cluster) -> None:
        async with open_memory("memory:", "old", world=cluster.world) as store:
            now = store.now_ms()
            old = NodeInfo("n1", "1", "ready", now, now + 60_000, renewed_ms=now, incarnation="predecessor")
            await trio.sleep(1)
            node = await cluster.start("n1")
            await trio.sleep(1)
            await store.execute([DropNode("n1"), PutNode(old)])
            await trio.sleep(LEASE_S)
        assert not node.lease.taken
        held = await entry(cluster, "n1")
        assert held is not None
        assert held.incarnation == node.lease.info.incarnation

    play(scene)


def test_an_entry_of_release_0_1_0_is_waited_for() -> None:
    """An entry without an incarnation counts as alive while its lease runs."""

    async def scene(cluster: Cluster) -> None:
        async with open_memory("memory:", "old", world=cluster.world) as store:
            now = store.now_ms()
            await store.execute([PutNode(NodeInfo("n1", "0.1.0", "ready", now, now + 7_000, renewed_ms=now))])
        before = trio.current_time()
        await cluster.start("n1")
        assert 6.5 < trio.current_time() - before <= 7 + 2 * POLL_S

    play(scene)


# The judgement of one claimant, against answers of a store that are given.


async def no_poke() -> None:
    """Wake a holder that is dead."""
    await trio.lowlevel.checkpoint()


async def test_a_lease_that_the_clock_prolonged_is_not_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    """When the store's clock was set back, an entry's lease seems to run for hours: one lease by the own clock is enough."""
    del autojump_clock
    asked: list[tuple[str, int]] = []

    async def put(over: str, over_ms: int) -> Result:
        asked.append((over, over_ms))
        return Done() if over_ms else NodeTaken("other", 5_000_000, 5_010_000)

    before = trio.current_time()
    with trio.fail_after(100):
        await Claimant().take("n1", "mine", b"secret", put, no_poke)
    assert 10 <= trio.current_time() - before <= 10 + 2 * POLL_S
    assert asked[-1] == ("other", 5_000_000)


async def test_a_signal_ends_the_wait(autojump_clock: trio.testing.MockClock) -> None:
    """SIGTERM while a process waits for its id ends it at once; what it waits for was told, and is told again."""
    del autojump_clock
    told: list[str] = []
    stop = trio.Event()

    async def put(_over: str, _over_ms: int) -> Result:
        return NodeTaken("other", 0, 60_000)

    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def stopping() -> None:
            await trio.sleep(12)
            stop.set()

        with pytest.raises(StartCalledOff):
            await Claimant(None, told.append, stop).take("n1", "mine", b"secret", put, no_poke)
    assert trio.current_time() == pytest.approx(12)
    assert len(told) == 3
    assert told[0] == 'waiting up to 60 s: another process may still hold node.id "n1"'


# The file by which a host knows the dead.


def die(file: HostFile) -> None:
    """End as a killed process does: the kernel closes the descriptor, and the file stays."""
    os.close(file._descriptor)


def test_the_host_file_names_the_dead_only(tmp_path: Path) -> None:
    """While a process lives its successor learns nothing; when it was killed, its name and those before it."""
    first, second, third = (HostFile(tmp_path / "run", "n1") for _ in range(3))
    assert first.dead("one", b"secret") == frozenset()
    assert second.dead("two", b"secret") == frozenset()
    die(first)
    assert second.dead("two", b"secret") == {"one"}
    assert second.dead("two", b"secret") == {"one"}
    assert third.dead("three", b"secret") == frozenset()
    die(second)
    assert third.dead("three", b"secret") == {"one", "two"}
    third.close()


def test_ids_and_clusters_have_files_of_their_own(tmp_path: Path) -> None:
    """Nodes of another id, and of another cluster with the same id, prove nothing about this one."""
    mine = HostFile(tmp_path, "n1")
    mine.dead("one", b"secret")
    other_id, other_cluster = HostFile(tmp_path, "n2"), HostFile(tmp_path, "n1")
    other_id.dead("two", b"secret")
    other_cluster.dead("three", b"another")
    for file in (mine, other_id, other_cluster):
        die(file)
    again = HostFile(tmp_path, "n1")
    assert again.dead("four", b"secret") == {"one"}
    assert len(list(tmp_path.iterdir())) == 3
    die(again)


def test_a_host_file_is_bounded_and_goes(tmp_path: Path) -> None:
    """A crash loop adds no more than a fixed number of names; an orderly end removes the file; one left for a day goes."""
    for number in range(NAMES_MAX + 5):
        file = HostFile(tmp_path, "n1")
        dead = file.dead(f"name{number}", b"secret")
        die(file)
    assert len(dead) == NAMES_MAX
    [path] = tmp_path.iterdir()
    old = path.stat().st_mtime - FORGET_FILE_S - 60
    os.utime(path, (old, old))
    other = HostFile(tmp_path, "n2")
    other.dead("one", b"secret")
    assert path not in tmp_path.iterdir()
    other.close()
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_used_proves_nothing(tmp_path: Path) -> None:
    """A path that is no directory, and a link in place of the file, prove nothing and raise nothing."""
    (tmp_path / "file").write_text("")
    assert HostFile(tmp_path / "file", "n1").dead("one", b"secret") == frozenset()
    named = HostFile(tmp_path, "n1")
    named.dead("one", b"secret")
    die(named)
    [path] = tmp_path.glob("*.lock")
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert HostFile(tmp_path, "n1").dead("two", b"secret") == frozenset()
