"""A pass of the matchmaker, and how soon a suitable pair is made, by how many sessions wait that no worker with room suits.

The matchmaker is the node's own, on a store of its own, without a network in front: what it costs is what it asks of the store and
what it decides. Every worker but some is full; each of these has an offer that no waiting session wants. Then a session is put
in line that one of them suits. The crowds: a few labels, the many labels of a large fleet, and wants that are all different, as
a client may invent them, of which each includes a label that a free worker offers.
"""

import shutil
import socket
import statistics
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from time import perf_counter, sleep
from types import SimpleNamespace
from typing import Any, cast

import trio

from signald.demo.cluster import free_port
from signald.service.attachments import Attachments
from signald.service.context import Context
from signald.service.inboxes import Inboxes
from signald.service.matchmaker import Matchmaker
from signald.store.base import Op, Result, Store
from signald.store.memory import open_memory
from signald.store.redis import open_redis
from signald.store.registry.ops import Enqueue, Forget, RegisterWorker, Reserve
from signald.store.sqlite import open_sqlite
from tests.bench.errors import BenchError
from tests.bench.report import Row, median, percentile

STORES = ("memory", "sqlite", "redis")
LOT = 500
FREE = 10
"""Workers with room. The others are full."""


class _Committer:
    """One batch for each call: nothing else waits for the store."""

    back_at = float("-inf")

    def __init__(self, store: Store) -> None:
        self._store = store

    async def call(self, op: Op) -> Result:
        """As `Committer.call`."""
        return (await self._store.execute([op]))[0]

    async def call_many(self, ops: Sequence[Op]) -> list[Result]:
        """As `Committer.call_many`."""
        return await self._store.execute(ops)


def _matchmaker(store: Store) -> Matchmaker:
    context = SimpleNamespace(
        node="bench",
        now_ms=store.now_ms,
        committer=_Committer(store),
        cluster=SimpleNamespace(nodes={}),
        inboxes=Inboxes(),
    )
    attachments = SimpleNamespace(withdrawals=SimpleNamespace(refused={}), workers={}, sessions={})
    return Matchmaker(cast("Context", context), cast("Attachments", attachments))


@asynccontextmanager
async def _opened(kind: str) -> AsyncIterator[Store]:
    with tempfile.TemporaryDirectory(prefix="signald-bench-") as home:
        match kind:
            case "memory":
                async with open_memory("memory:", "bench") as memory:
                    yield memory
            case "sqlite":
                url = f"sqlite:{Path(home) / 'bench.db'}"
                async with open_sqlite(url, "bench", ack="process", poll_interval_s=1.0) as sqlite:
                    yield sqlite
            case "redis":
                with _redis_server(home) as url:
                    async with open_redis(url, "bench", command_timeout_s=10) as redis:
                        yield redis
            case _:
                raise BenchError(f"{kind}: not one of {', '.join(STORES)}")


@contextmanager
def _redis_server(home: str) -> Iterator[str]:
    program = shutil.which("redis-server")
    if program is None:
        raise BenchError("redis-server is not installed")
    port = free_port()
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", home, "--save", "", "--appendonly", "no"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            _wait_for(port)
            yield f"redis://127.0.0.1:{port}"
        finally:
            server.kill()


def _wait_for(port: int) -> None:
    end = perf_counter() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if perf_counter() > end:
                raise BenchError("redis-server did not start") from None
            sleep(0.05)
        else:
            return


async def _fill(store: Store, workers: int, wants: Sequence[dict[str, str]]) -> None:
    """Register the workers, all full but some, and let one session with each of `wants` wait."""
    now = store.now_ms()
    ops: list[Op] = []
    for i in range(workers):
        name, labels = f"w_{i}", {"label": f"l{i}", "kind": "gpu", "zone": f"z{i % 3}"}
        if i < FREE:
            labels["label"] = f"free{i}"
        ops.append(RegisterWorker(name, "bench", "nonce", "", "i", labels, 1 + (i < FREE), bytes(32), now))
        ops += [Enqueue(f"s_of{i}", {}, now, now), Reserve("bench", ((f"s_of{i}", name),))]
    ops += [Enqueue(f"s_{i}", want, now + i, now + 3_600_000) for i, want in enumerate(wants)]
    for start in range(0, len(ops), LOT):
        await store.execute(ops[start : start + LOT])


async def _measure(store: Store, matchmaker: Matchmaker, rounds: int) -> tuple[list[float], list[float]]:
    passes: list[float] = []
    pairs: list[float] = []
    for i in range(rounds + 5):
        began = perf_counter()
        await matchmaker.once()
        passes.append((perf_counter() - began) * 1000)
        want, before, began = {"label": f"free{i % FREE}"}, matchmaker.pairs, perf_counter()
        await store.execute([Enqueue("s_mine", want, store.now_ms() + 10**9, store.now_ms() + 3_600_000)])
        await matchmaker.once()
        pairs.append((perf_counter() - began) * 1000)
        if matchmaker.pairs != before + 1:
            raise BenchError("the suitable pair was not made")
        await store.execute([Forget("s_mine")])
    return passes[5:], pairs[5:]


def _crowds(labels: int, waiting: int) -> list[tuple[str, list[dict[str, str]]]]:
    return [
        ("as many as one pass read before", [{"label": f"l{i % 100}"} for i in range(500)]),
        ("of many labels", [{"label": f"l{i % labels}"} for i in range(waiting)]),
        ("all different", [{"kind": "gpu", "label": f"free{i % FREE}", "x": str(i)} for i in range(waiting)]),
    ]


async def _run(kind: str, labels: int, waiting: int, workers: int, rounds: int) -> list[Row]:
    rows: list[Row] = []
    base = 0.0
    for name, wants in _crowds(labels, waiting):
        async with _opened(kind) as store:
            await _fill(store, workers, wants)
            passes, pairs = await _measure(store, _matchmaker(store), rounds)
        base = base or statistics.median(passes)
        row: dict[str, Any] = {
            "store": kind,
            "crowd": name,
            "waiting": len(wants),
            "wants": len({tuple(sorted(want.items())) for want in wants}),
            "pass ms": median(passes),
            "p99 ms": percentile(passes, 99),
            "of baseline": median(passes) / base,
            "pair ms": median(pairs),
            "pair p99 ms": percentile(pairs, 99),
        }
        rows.append(row)
    return rows


def scenario(kind: str, labels: int, waiting: int, workers: int, rounds: int) -> list[Row]:
    """Measure one store; the first row is the baseline."""
    return trio.run(_run, kind, labels, waiting, workers, rounds)
