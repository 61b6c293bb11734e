"""A node that is gone from one moment to the next: SIGKILL under load."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from signald.sdk.events import Disconnected, Resumed
from tests.real.harness import Address, exit_of, kill, open_nodes, open_talk, term, url_of
from tests.store.redis_servers import Server, servers

pytestmark = pytest.mark.real


@asynccontextmanager
async def store_of(kind: str, directory: Path) -> AsyncIterator[str]:
    """The URL of a store of `kind`."""
    if kind == "sqlite":
        yield f"sqlite:{directory / 'store.db'}"
    else:
        redis = Server(directory / "redis")
        async with servers(redis):
            yield redis.url


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
async def test_a_node_is_killed_under_load(tmp_path: Path, kind: str) -> None:
    """All sessions go on at the other node: nothing acked is lost, nothing comes twice, the order is kept.

    Clients and workers stand on both nodes, so there are sessions with both parties, either or none on the killed one.
    """
    async with store_of(kind, tmp_path) as store, open_nodes(tmp_path, store) as nodes, open_talk() as talk:
        doomed, other = await nodes.start("doomed"), await nodes.start("other")
        here, there = (url_of(doomed), url_of(other)), (url_of(other), url_of(doomed))
        await talk.worker("worker here", *here, capacity=4)
        await talk.worker("worker there", *there, capacity=4)
        for n in range(8):
            await talk.client(f"client {n}", *(here if n % 2 else there))
        talk.begin(0.06)
        await talk.goes_on(10)
        await kill(doomed)
        # The survivor is the only node left; after a second death none would be, so what follows is a plain restart.
        await talk.goes_on(10)
        again = await nodes.start("again")
        assert url_of(again) not in here
        await talk.settle()
        for n, chatter in enumerate(talk.chatters):
            assert len(chatter.ledger.workers) == 1, talk.account()
            assert chatter.client.connections == (2 if n % 2 else 1)
            assert len(chatter.saw(Resumed)) == len(chatter.saw(Disconnected)) == n % 2
        assert {name for one in talk.chatters for name in one.ledger.workers} == {"worker here", "worker there"}


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
async def test_the_only_node_is_killed_and_started_again(tmp_path: Path, kind: str) -> None:
    """The store got no goodbye, and no node took over: the node that starts next serves all of them on."""
    address = Address()
    async with store_of(kind, tmp_path) as store, open_nodes(tmp_path, store) as nodes, open_talk() as talk:
        first = await nodes.start("first", address)
        await talk.worker("worker", address.url)
        for n in range(4):
            await talk.client(f"client {n}", address.url)
        talk.begin(0.06)
        await talk.goes_on(10)
        await kill(first)
        second = await nodes.start("second", address)
        await talk.goes_on(10)
        await talk.settle()
        term(second)
        assert await exit_of(second) == 0
