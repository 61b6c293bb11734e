"""One store as two nodes see it, for every kind of store.

A `World` opens the nodes `a` and `b` on one fresh store and gathers the wake-ups of both. Wake-ups travel on their own,
so a test that wants to know which ones came sends a mark behind them and reads up to it: no waiting, no guessing.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import trio

from signald.store.base import WAKE_REALTIME, Op, Store, Wake
from signald.store.registry.ops import Signal

NODES = ("a", "b")
PATIENCE_S = 10.0

Opener = Callable[[str], AbstractAsyncContextManager[Store]]
"""Opens one fresh store for the node it is given; every call sees the same store."""

Fresh = Callable[[], Opener]
"""Makes an `Opener` on a store that holds nothing."""


class World:
    """The nodes `a` and `b` on one store."""

    def __init__(self, stores: dict[str, Store]) -> None:
        self.stores = stores
        self._arrived: dict[str, list[Wake]] = {node: [] for node in NODES}
        self._news = trio.Event()
        self._marks = 0

    async def listen(self, node: str, task_status: trio.TaskStatus[None]) -> None:
        """Gather the wake-ups of `node` for ever."""
        async for batch in self.stores[node].wakes():
            self._arrived[node].extend(batch)
            self._news.set()
            self._news = trio.Event()
            task_status.started()
            task_status = trio.TASK_STATUS_IGNORED

    async def do(self, *ops: Op, at: str = "a") -> list[Any]:
        """Let node `at` execute `ops` in one batch and return their results: the operation tells their types."""
        with trio.fail_after(PATIENCE_S):
            return list(await self.stores[at].execute(ops))

    async def ask(self, op: Op, at: str = "a") -> Any:
        """Let node `at` execute `op` and return its one result."""
        (result,) = await self.do(op, at=at)
        return result

    async def woken(self, at: str = "a") -> dict[str, list[Wake]]:
        """Return every node's wake-ups since the last call: what node `at` caused is surely among them.

        The first wake-up of all, `*`, is left out; so are repetitions of one that says `look`, because a store may
        say it once for several reasons.
        """
        self._marks += 1
        mark = WAKE_REALTIME + b"mark %d" % self._marks
        await self.do(*(Signal(node, mark) for node in NODES), at=at)
        found: dict[str, list[Wake]] = {}
        with trio.fail_after(PATIENCE_S):
            for node in NODES:
                while mark not in self._arrived[node]:
                    await self._news.wait()
                end = self._arrived[node].index(mark)
                before = self._arrived[node][:end]
                del self._arrived[node][: end + 1]
                realtime = [wake for wake in before if wake[:1] == WAKE_REALTIME]
                looks = sorted({wake for wake in before if wake[:1] != WAKE_REALTIME} - {b"*"})
                found[node] = looks + realtime
        return found


@asynccontextmanager
async def open_world(fresh: Fresh) -> AsyncIterator[World]:
    """Open the nodes `a` and `b` on a fresh store."""
    opener = fresh()
    async with opener("a") as store_a, opener("b") as store_b, trio.open_nursery() as nursery:
        world = World({"a": store_a, "b": store_b})
        for node in NODES:
            with trio.fail_after(PATIENCE_S):
                await nursery.start(world.listen, node)
        yield world
        nursery.cancel_scope.cancel(reason="the test is over")
