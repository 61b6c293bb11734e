"""What `/readyz` proves to a balancer: Redis takes the writes of this node, though no party is there to make any."""

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
import trio

from signald.config import StoreConfig
from signald.demo.cluster import Node
from tests.real.harness import open_nodes, probe, until
from tests.store.redis_servers import Server, servers

pytestmark = pytest.mark.real

LEASE_S = 2.0
SEEN_S = LEASE_S / 3 + StoreConfig().connect_timeout_s + StoreConfig().command_timeout_s
"""As docs/blue-green.md says: a renewal of the lease, and an attempt that fails."""
BACK_S = 10.0


async def says(node: Node, status: int, word: str) -> bool:
    """Whether a node answers so now."""
    return await probe(node) == (status, word)


async def test_readiness_without_parties_shows_each_trouble_of_redis(tmp_path: Path) -> None:
    """A Redis that hangs, is gone, is full, or has become a replica is noticed, and so is its return; `/livez` stays 200."""
    redis, other = Server(tmp_path / "redis"), Server(tmp_path / "other")

    def tell(*words: object) -> Callable[[], Awaitable[object]]:
        return partial(trio.to_thread.run_sync, partial(redis.ask, *words))

    async def freeze() -> None:
        redis.freeze()

    async def thaw() -> None:
        redis.thaw()

    troubles: dict[str, tuple[Callable[[], Awaitable[object]], Callable[[], Awaitable[object]]]] = {
        "hangs": (freeze, thaw),
        "is full": (tell("CONFIG", "SET", "maxmemory", "1"), tell("CONFIG", "SET", "maxmemory", "0")),
        "is a replica": (tell("REPLICAOF", "127.0.0.1", other.port), tell("REPLICAOF", "NO", "ONE")),
        "is gone": (redis.kill, redis.start),
    }
    async with servers(redis, other), open_nodes(tmp_path, redis.url) as nodes:
        node = await nodes.start("node", node={"lease_ttl_s": LEASE_S})
        for trouble, (begin, end) in troubles.items():
            await begin()
            await until(partial(says, node, 503, "degraded"), SEEN_S, f"the node has noticed that Redis {trouble}")
            assert (await probe(node, "/livez"))[0] == 200
            await end()
            await until(partial(says, node, 200, "ready"), BACK_S, f"the node has noticed the end: Redis {trouble}")
