"""Redis interrupted under load, in every way but death: all is answered late, nothing is lost, and nothing is done twice."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.real.harness import Settings, logged, until
from tests.real.redis_scene import Scene, talking
from tests.store.redis_servers import HOST, Server, proxy, servers

pytestmark = pytest.mark.real


@asynccontextmanager
async def scene(
    directory: Path, *options: str, settings: Settings | None = None
) -> AsyncIterator[tuple[Server, Scene]]:
    """Two nodes on one Redis; all parties talk."""
    redis = Server(directory / "redis", *options)
    async with servers(redis), talking(directory, redis.url, settings) as talk:
        yield redis, talk


async def test_replies_are_lost(tmp_path: Path) -> None:
    """What was applied and not answered is asked again, and is not done again: twenty times, with appends among it."""
    redis = Server(tmp_path / "redis")
    async with servers(redis), proxy(redis) as lossy, talking(tmp_path, lossy.url) as scene:
        for _ in range(20):
            lossy.lost = trio.Event()
            lossy.lose_replies = True
            with trio.fail_after(30):
                await lossy.lost.wait()
            lossy.lose_replies = False
            await scene.talk.goes_on(1)
        await scene.ends_well()
        # Whose replies were lost is a matter of chance, and on a busy machine they may all have been those of one node.
        assert any(logged(node, "store_away") for node in scene.pair)


async def test_scripts_are_lost(tmp_path: Path) -> None:
    """`SCRIPT FLUSH`, again and again between the batches: signald brings its scripts along each time."""
    async with scene(tmp_path) as (redis, talk):
        for _ in range(40):
            redis.ask("SCRIPT", "FLUSH")
            await trio.sleep(0.03)
        await talk.ends_well()


async def test_everything_is_flushed(tmp_path: Path) -> None:
    """`FLUSHALL` by mistake: no connection breaks, and yet it is found; the nodes give back what they know, each time."""
    async with scene(tmp_path) as (redis, talk):
        for _ in range(4):
            redis.ask("FLUSHALL")
            await talk.talk.goes_on(3)
        await talk.ends_well()
        for node in talk.pair:
            assert logged(node, "store_came_back_empty")


async def test_connections_are_killed(tmp_path: Path) -> None:
    """`CLIENT KILL` of what signald asks on and of what it listens on: both come back, and what was missed is looked for."""
    async with scene(tmp_path) as (redis, talk):
        for kind in ("normal", "pubsub") * 15:
            redis.ask("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
            await trio.sleep(0.05)
        await talk.ends_well()


@pytest.mark.parametrize("seconds", [0.7, 6.0])
async def test_the_server_sleeps(tmp_path: Path, seconds: float) -> None:
    """`DEBUG SLEEP`: shorter than signald's patience it is a pause; longer, the late answer is discarded."""
    settings: Settings = {"store": {"command_timeout_s": 4.0}}
    async with scene(tmp_path, "--enable-debug-command", "yes", settings=settings) as (redis, talk):
        for _ in range(2):
            with trio.fail_after(30):
                await trio.to_thread.run_sync(sleep, redis, seconds)
            await talk.talk.goes_on(3)
        await talk.ends_well()
        for node in talk.pair:
            assert bool(logged(node, "store_away")) == (seconds > 4)


def sleep(redis: Server, seconds: float) -> None:
    """Have the server do nothing for a while."""
    with redis.client() as client:
        client.connection_pool.connection_kwargs["socket_timeout"] = 15
        client.execute_command("DEBUG", "SLEEP", seconds)


async def test_the_server_is_loading(tmp_path: Path) -> None:
    """A server that answers LOADING for seconds after its restart is away until it has its data, and then has all of it."""
    slow = ("--key-load-delay", "300", "--loading-process-events-interval-bytes", "1024")
    lasting = ("--appendonly", "yes", "--appendfsync", "always", "--enable-debug-command", "yes")
    async with scene(tmp_path, *lasting, *slow) as (redis, talk):
        redis.ask("DEBUG", "POPULATE", 8000)
        redis.ask("BGREWRITEAOF")
        await until(lambda: b"aof_rewrite_in_progress:0" in redis.ask("INFO", "persistence"), 15)
        await redis.kill()
        await redis.start()
        await talk.ends_well()
        reasons = {entry["why"] for node in talk.pair for entry in logged(node, "store_away")}
        assert reasons
        assert not any(logged(node, "store_came_back_empty") for node in talk.pair)


async def test_the_server_is_demoted_for_a_while(tmp_path: Path) -> None:
    """READONLY: a primary that became a replica takes nothing; as a primary again it is used again."""
    async with scene(tmp_path) as (redis, talk):
        redis.ask("REPLICAOF", HOST, 1)
        await talk.degraded()
        await trio.sleep(1)  # what was stored before is handed on still
        answered = talk.talk.answered
        await trio.sleep(1.0)
        assert talk.talk.answered == answered
        redis.ask("REPLICAOF", "NO", "ONE")
        await talk.ends_well()
        for node in talk.pair:
            why = " ".join(entry["why"] for entry in logged(node, "store_away"))
            assert "READONLY" in why or "replica" in why
