"""The same life and deploy, told over each real store in real time: SQLite in a file, and a Redis of the test's own."""

from pathlib import Path

import pytest
import trio

from signald.config import StoreConfig
from signald.store.open import open_store
from signald.testing.cluster import open_cluster
from tests.service.telling.core import Attempt, Core, answer, telling
from tests.service.telling.test_events import started
from tests.store.conftest import redis_url

__all__ = ["redis_url"]

pytestmark = pytest.mark.real


async def until_told(core: Core, queue: str, count: int) -> None:
    """Wait until so many events of a queue are told."""
    while len(core.once(queue)) < count:  # noqa: ASYNC110 - in a test of real time
        await trio.sleep(0.02)


async def test_sqlite(tmp_path: Path) -> None:
    """Two nodes on one file."""
    await play(f"sqlite:{tmp_path / 's.db'}")


async def test_redis(redis_url: str) -> None:
    """Two nodes on one Redis."""
    await play(redis_url)


async def play(url: str) -> None:
    """Steps at two nodes, a receiver that fails at first, a node that ends: all is told in order, and nothing is left."""
    failures = 2

    async def fails_first(_: Attempt) -> object:
        nonlocal failures
        await trio.sleep(0.01)
        failures -= 1
        return answer(503 if failures >= 0 else 200)

    with trio.fail_after(60):
        async with open_cluster(1) as cluster:
            cluster.open_store = lambda node: open_store(url, node, StoreConfig(url=url))
            core = started(cluster)
            core.now_s = lambda: cluster.nodes["n2"].hub.context.now_ms() / 1000
            core.behave = fails_first  # type: ignore[assignment]
            for name in ("n1", "n2"):
                await cluster.start(name, **telling(), store={"url": url}, drain={"unready_s": 0.0})
            client, begun, worker, _, session = await cluster.pair("n1", "n2")
            client.cut()
            await until_told(core, session, 3)
            client, _ = await cluster.restore("n2", begun["recovery_token"])
            await until_told(core, session, 4)
            cluster.nodes["n1"].shutdown.signal()
            await cluster.wait_exit("n1")
            await client.send({"type": "bye", "reason": "done"})
            await client.closed()
            await until_told(core, session, 5)
            while "deploy.finished" not in core.types():  # noqa: ASYNC110 - in a test of real time
                await trio.sleep(0.02)
            assert core.types(session) == [
                "session.started",
                "session.paired",
                "session.away",
                "session.resumed",
                "session.ended",
            ]
            core.check()
            while (await cluster.nodes["n2"].operations.events(10))["waiting"]["queues"]:  # noqa: ASYNC110 - likewise
                await trio.sleep(0.05)
            del worker
