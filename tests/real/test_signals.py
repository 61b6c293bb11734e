"""The life of a node as its supervisor sees it: signals in, an exit code out, within the deadline."""

import signal
import sqlite3
from pathlib import Path

import pytest
import trio

from signald.demo.cluster import Node
from signald.sdk.events import Disconnected, HandedOver, Resumed
from signald.sdk.trio import open_client
from tests.real.harness import (
    DEADLINE_S,
    DRAIN,
    HOST,
    Address,
    cutting,
    descriptors,
    exit_of,
    logged,
    open_nodes,
    open_talk,
    probe,
    term,
    threads,
    until,
    url_of,
)
from tests.store.redis_servers import Server, servers

pytestmark = pytest.mark.real

ENDLESS = {**DRAIN, "successor_timeout_s": 40.0, "timeout_s": 60.0, "stop_timeout_s": 75.0}
"""Budgets that no test could wait for: a node that ends earlier was hurried."""


APPEND_ONLY = ("--appendonly", "yes", "--appendfsync", "always")
"""A Redis that comes back with everything it has answered for."""


def phases(node: Node) -> list[str]:
    """The phases a node has gone through."""
    return [entry["phase"] for entry in logged(node, "drain_phase")]


async def drained(node: Node, by: str = "drain_phase") -> None:
    """Wait until a node has begun to drain."""
    await until(lambda: logged(node, by), 10, "the drain begins")


async def test_one_sigterm_with_a_successor_moves_everybody(tmp_path: Path) -> None:
    """Exit 0 within the deadline; every party moves once, before its old connection is closed."""
    async with open_nodes(tmp_path, f"sqlite:{tmp_path / 'store.db'}") as nodes, open_talk() as talk:
        old, new = await nodes.start("old"), await nodes.start("new")
        urls = url_of(old), url_of(new)
        workers = [await talk.worker(f"worker {n}", *urls) for n in range(2)]
        for n in range(4):
            await talk.client(f"client {n}", *urls)
        talk.begin()
        await talk.goes_on(5)
        term(old)
        assert await exit_of(old) == 0
        await talk.goes_on(5)
        await talk.settle()
        for chatter in talk.chatters:
            assert chatter.client.connections == 2
            assert chatter.saw(HandedOver)
            assert not chatter.saw(Disconnected)
            assert len(chatter.ledger.workers) == 1
        assert [worker.connections for worker in workers] == [2, 2]
        assert phases(old) == ["unready", "successor", "workers", "clients", "terminate", "flush", "close", "done"]
        assert {entry["by"] for entry in logged(old, "drain_phase")} == {"begin", "done"}, "no phase used up its time"
        (receipt,) = logged(old, "drain_receipt")
        assert receipt["outcomes"] == {"moved": 4}
        assert logged(old)[-1]["event"] == "stopped"


async def test_one_sigterm_without_a_successor_suspends(tmp_path: Path) -> None:
    """Parties are closed with 1012 and exit 0; a node started later on the same store has them all back, nothing lost."""
    address = Address()
    async with open_nodes(tmp_path, f"sqlite:{tmp_path / 'store.db'}") as nodes, open_talk() as talk:
        old = await nodes.start("old", address)
        await talk.worker("worker", address.url)
        for n in range(3):
            await talk.client(f"client {n}", address.url)
        talk.begin()
        await talk.goes_on(5)
        term(old)
        assert await exit_of(old) == 0
        assert phases(old) == ["unready", "successor", "terminate", "flush", "close", "done"]
        await nodes.start("new", address)
        await talk.goes_on(5)
        await talk.settle()
        for chatter in talk.chatters:
            assert [one.code for one in chatter.saw(Disconnected)][:1] == [1012]
            assert len(chatter.saw(Resumed)) == 1
            assert len(chatter.ledger.workers) == 1


async def test_a_suspension_longer_than_a_worker_may_be_away(tmp_path: Path) -> None:
    """While there is no node a worker cannot come back, so its time begins when there is one: it keeps its sessions."""
    address = Address()
    settings: dict[str, dict[str, object]] = {"worker": {"resume_timeout_s": 4.0}}
    async with (
        open_nodes(tmp_path, f"sqlite:{tmp_path / 'store.db'}", settings) as nodes,
        cutting((HOST, address.websocket)) as far_away,
        open_talk() as talk,
    ):
        old = await nodes.start("old", address)
        await talk.worker("far away", far_away.url, capacity=2)
        for n in range(2):
            await talk.client(f"client {n}", address.url)
        talk.begin()
        await talk.goes_on(5)
        far_away.shut = True
        term(old)
        assert await exit_of(old) == 0
        await trio.sleep(4.2)
        # Another node is there at once, and would take the sessions.
        new = await nodes.start("new", address)
        await talk.worker("near by", address.url)
        await trio.sleep(1)
        far_away.shut = False
        await talk.goes_on(5)
        await trio.sleep(4.2)
        await talk.settle()
        assert not logged(new, "worker_given_up")
        assert [chatter.ledger.workers for chatter in talk.chatters] == [{"far away"}] * 2


async def test_a_second_sigterm_hurries(tmp_path: Path) -> None:
    """The phases that wait are left; what is queued is still written, the parties are told, and the exit is 0."""
    async with open_nodes(tmp_path, f"sqlite:{tmp_path / 'store.db'}") as nodes, open_talk() as talk:
        node = await nodes.start("node", drain=ENDLESS)
        await talk.worker("worker", url_of(node))
        chatter = await talk.client("client", url_of(node))
        talk.begin()
        await talk.goes_on(5)
        term(node)
        await until(lambda: phases(node)[-1:] == ["successor"], 10)
        term(node)
        assert await exit_of(node, 25) == 0
        assert phases(node) == ["unready", "successor", "flush", "close", "done"]
        await until(lambda: [one.code for one in chatter.saw(Disconnected)][:1] == [1012], 5, talk.account())


async def test_a_third_sigterm_ends_at_once(tmp_path: Path) -> None:
    """A store that hangs and peers that do not answer hold up nothing any more; the exit is 0."""
    redis = Server(tmp_path / "redis")
    slow: dict[str, object] = {**ENDLESS, "flush_timeout_s": 25.0, "timeout_s": 80.0, "stop_timeout_s": 95.0}
    async with (
        servers(redis),
        open_nodes(tmp_path, redis.url) as nodes,
        open_talk() as talk,
    ):
        node = await nodes.start("node", drain=slow)
        await talk.worker("worker", url_of(node))
        await talk.client("client", url_of(node))
        talk.begin()
        await talk.goes_on(5)
        redis.freeze()
        term(node)
        await until(lambda: phases(node)[-1:] == ["successor"], 10)
        term(node)
        await until(lambda: phases(node)[-1:] == ["flush"], 5)
        term(node)
        # The close of a Redis that hangs is bounded by its own timeouts; flush alone would take longer.
        assert await exit_of(node, 20) == 0
        assert phases(node)[-2:] == ["close", "done"]


async def test_many_sigterms_are_no_more_than_three(tmp_path: Path) -> None:
    """Whatever an impatient supervisor sends, up to the very end of the process, the exit is 0."""
    async with open_nodes(tmp_path, f"sqlite:{tmp_path / 'store.db'}") as nodes, open_talk() as talk:
        node = await nodes.start("node", drain=ENDLESS)
        await talk.worker("worker", url_of(node))
        await talk.client("client", url_of(node))
        sent = 0
        with trio.fail_after(DEADLINE_S):
            while node.process.poll() is None:
                node.send_signal(signal.SIGINT if sent % 2 else signal.SIGTERM)
                sent += 1
                await trio.sleep(0.002)
        assert sent > 3
        assert node.process.returncode == 0, node.log_tail()


@pytest.mark.parametrize("after_s", [0.0, 0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8])
async def test_a_sigterm_during_start_up(tmp_path: Path, after_s: float) -> None:
    """A node that is told to stop before it is ready stops: with 0, or by the signal before Python has begun to run us."""
    async with open_nodes(tmp_path, f"sqlite:{tmp_path / 'store.db'}") as nodes:
        node = await nodes.start("node", ready=False)
        await trio.sleep(after_s)
        term(node)
        code = await exit_of(node, 30)
        assert code in (0, -signal.SIGTERM), node.log_tail()
        assert "Traceback" not in node.log.read_text()
        if logged(node):
            assert code == 0


async def test_a_sigterm_while_the_store_is_down(tmp_path: Path) -> None:
    """Without its store a node can hand nothing over; it still ends within its deadline, with 0."""
    redis = Server(tmp_path / "redis", *APPEND_ONLY)
    short: dict[str, object] = {**DRAIN, "timeout_s": 6.0, "successor_timeout_s": 1.0}
    async with servers(redis), open_nodes(tmp_path, redis.url) as nodes, open_talk() as talk:
        node, successor = await nodes.start("node", drain=short), await nodes.start("successor", drain=short)
        await talk.worker("worker", url_of(node), url_of(successor))
        await talk.client("client", url_of(node), url_of(successor))
        talk.begin()
        await talk.goes_on(5)
        await redis.kill()
        await until(lambda: logged(node, "store_away"), 5)
        term(node)
        assert await exit_of(node, 6 + 1 + 8) == 0
        # The session waits for its store at the other node, and has lost nothing.
        await redis.start()
        await talk.goes_on(5, 30)
        await talk.settle()


async def test_nothing_is_left_behind(tmp_path: Path) -> None:
    """Descriptors and threads come back to where they were; at the end no process is left, and the file is sound."""
    file = tmp_path / "store.db"
    async with open_nodes(tmp_path, f"sqlite:{file}") as nodes, open_talk() as talk:
        node = await nodes.start("node")
        await talk.worker("worker", url_of(node))
        await probe(node)
        await trio.sleep(0.5)
        before = descriptors(node), threads(node)
        async with trio.open_nursery() as nursery:
            for n in range(50):
                nursery.start_soon(come_and_go, url_of(node), n % 2 == 0)
        await until(lambda: descriptors(node) <= before[0], 15, "descriptors are closed")
        assert threads(node) <= before[1]
        term(node)
        assert await exit_of(node) == 0
        assert not in_group(node.process.pid)
        assert logged(node)[-1]["event"] == "stopped"
        with sqlite3.connect(file) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        connection.close()


async def come_and_go(url: str, bye: bool) -> None:
    """A client that says hello and leaves, with or without a word."""
    async with open_client(url, meta={"name": "passer-by"}) as client:
        if bye:
            await client.bye("enough")


def in_group(group: int) -> list[int]:
    """The processes that still are in a process group."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == group and fields[0] != "Z":
                found.append(int(entry.name))
    return found
