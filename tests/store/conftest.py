"""Every store, made the same way for every test of the contract."""

import itertools
import os
import shutil
import subprocess
import zlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio
from redis import Redis

from signald.config.seal_keys import SealKey
from signald.demo.cluster import free_port
from signald.store.memory import MemoryWorld, open_memory
from signald.store.redis import open_redis
from signald.store.seals import Seals
from signald.store.sqlite import open_sqlite
from tests.store.worlds import Fresh, Opener, World, open_world

STORES = (
    "memory",
    pytest.param("sqlite", marks=pytest.mark.real),
    pytest.param("redis", marks=pytest.mark.real),
)
"""The stores that the contract is held against."""


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real redis-server on a free port, without persistence."""
    program = shutil.which("redis-server")
    assert program is not None, "install redis-server: the contract is held against the real one"
    port = free_port()
    home = tmp_path_factory.mktemp("redis")
    command = [
        program,
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--dir",
        str(home),
        "--save",
        "",
        "--appendonly",
        "no",
    ]
    with (home / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as server:
        try:
            trio.run(_answers, port)
            yield f"redis://127.0.0.1:{port}"
        finally:
            server.kill()


async def _answers(port: int) -> None:
    with trio.fail_after(10):
        while True:
            try:
                stream = await trio.open_tcp_stream("127.0.0.1", port)
            except OSError:
                await trio.sleep(0.02)
                continue
            async with stream:
                await stream.send_all(b"PING\r\n")
                if await stream.receive_some() == b"+PONG\r\n":
                    return


def memory_fresh() -> Fresh:
    """Each world is its own."""

    def fresh() -> Opener:
        world = MemoryWorld()
        return lambda node: open_memory("memory:", node, world=world)

    return fresh


KEY = SealKey("test", bytes(range(32)))


def seals(*, sealed: bool) -> Seals:
    """Return the seals of one node: all nodes of a store have the same key, or none."""
    return Seals((KEY,), sealing=True) if sealed else Seals()


def is_sealed(request: pytest.FixtureRequest) -> bool:
    """Tell whether a test's store seals. Each test of the contract is held sealed on one of the two stores, and plain on the other.

    `SIGNALD_TESTS_SEAL` (`all`, `none`) says it for every test.
    """
    said = os.environ.get("SIGNALD_TESTS_SEAL", "")
    name = request.node.name.partition("[")[0]
    return said == "all" if said else (zlib.crc32(name.encode()) + (request.param == "redis")) % 2 == 1


def redis_fresh(url: str, *, sealed: bool = False) -> Fresh:
    """Each world is the same server, emptied."""

    def fresh() -> Opener:
        with Redis.from_url(url) as client:
            client.flushall()
        return lambda node: open_redis(url, node, seals=seals(sealed=sealed))

    return fresh


def sqlite_fresh(home: Path, *, sealed: bool = False) -> Fresh:
    """Each world is a new file."""
    numbers = itertools.count()

    def fresh() -> Opener:
        url = f"sqlite:{home / f'{next(numbers)}.db'}"
        return lambda node: open_sqlite(url, node, ack="process", poll_interval_s=0.002, seals=seals(sealed=sealed))

    return fresh


@pytest.fixture(params=STORES)
def fresh(request: pytest.FixtureRequest, tmp_path: Path) -> Fresh:
    """A maker of empty stores of each kind."""
    match request.param:
        case "memory":
            return memory_fresh()
        case "redis":
            return redis_fresh(request.getfixturevalue("redis_url"), sealed=is_sealed(request))
        case "sqlite":
            return sqlite_fresh(tmp_path, sealed=is_sealed(request))
        case other:
            raise AssertionError(other)


@pytest.fixture
async def world(fresh: Fresh) -> AsyncIterator[World]:
    """The nodes `a` and `b` on a fresh store."""
    async with open_world(fresh) as opened:
        yield opened
