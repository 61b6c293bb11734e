"""The cluster of a test: real nodes on one store in memory, and the parties that a test opens.

The same class serves a test on Trio, in memory and in virtual time (`signald.testing`), and one on asyncio, over loopback and in real
time (`signald.testing.asyncio`). Which of both it is, the bridge knows.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal
from weakref import WeakKeyDictionary

from anyio.abc import TaskGroup

from signald.sdk.front.client import Client, open_client
from signald.sdk.front.worker_session import Handler
from signald.testing.app.bridge import Bridge
from signald.testing.app.fleet import RESEED_S
from signald.testing.app.parties import WorkerProcess
from signald.testing.app.steps import Deploying, Script, Step

Party = Client | WorkerProcess | str
"""A client or a worker of the test, or its name."""


class SignaldCluster:
    """Nodes, and the parties of a test; made by `open_cluster`, by the fixture `signald_cluster`, or by `signald_test`."""

    def __init__(self, bridge: Bridge, tasks: TaskGroup) -> None:
        self._bridge = bridge
        self._fleet = bridge.fleet
        self._tasks = tasks
        self._clients: WeakKeyDictionary[Client, str] = WeakKeyDictionary()
        self._opened = {"client": 0, "worker": 0}

    # --- deploys and losses -----------------------------------------------------------------------------------------

    async def deploy(self) -> None:
        """Replace each node by one of the next release; return when the nodes before have exited.

        Connected parties move to the new nodes. A handler goes on running: its session does not end, its messages keep their order,
        and it may find `session.moving` true for a while.

        Raises:
            RuntimeError: a deploy is under way.
        """
        await self._bridge.run(self._fleet.deploy)

    def deploying(self) -> Deploying:
        """Return a deploy that goes on step by step: `async for step in cluster.deploying()`.

        A test that leaves the loop early writes `async with cluster.deploying() as steps`, and reads `steps` in the block: behind it
        the rest of the deploy has taken place.
        """
        return Deploying(self)

    async def rollback(self) -> None:
        """Replace all nodes by ones of the release before; return when the others have exited.

        It may come in the middle of `deploying`: the held moves then take place, and parties move once more.

        Raises:
            ValueError: there is no release before the first.
        """
        await self._bridge.run(self._fleet.rollback)

    async def kill(self, node: str | None = None, *, replaced_after_s: float | None = 0.5) -> None:
        """Let a node die as by SIGKILL: the oldest one that does not drain, or `node`. Return when another one is ready.

        Connections break without a close, and parties resume within about a second. Acked messages reach their receiver once, and those
        not acked are sent again. With `replaced_after_s` None no other node starts; this call then returns at once.

        Raises:
            ValueError: that node does not run.
        """
        await self._bridge.run(self._fleet.kill, node, replaced_after_s=replaced_after_s)

    async def lose_store(self, *, settle_s: float = RESEED_S) -> None:
        """Let the store come back empty, as Redis without persistence does after a restart; return `settle_s` seconds later.

        Sessions whose parties are connected go on, with their positions: the nodes give them back. The chat history is lost, and so
        are sessions without a connected party, jobs, rooms' pasts and blobs' records.
        """
        await self._bridge.run(self._fleet.lose_store, settle_s=settle_s)

    @asynccontextmanager
    async def store_away(self, outage: Literal["down", "answers lost"] = "down") -> AsyncIterator[None]:
        """Take the store away for the time of the block: nothing is acked, and messages wait with their senders.

        With `answers lost` the store carries everything out, and no answer arrives.
        """
        await self._bridge.run(self._fleet.set_store, outage)
        try:
            yield
        finally:
            await self._bridge.run(self._fleet.set_store, "")

    # --- parties ----------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def client(self, *, name: str | None = None, **options: Any) -> AsyncIterator[Client]:
        """Open a client of the SDK, called `name` in the transcript. `options` are those of `open_client`: `want`, `jobs`, `meta`, ...

        Raises:
            Refused, SessionGone, ValueError: as `open_client`.
        """
        name = self._name("client", name)
        way = await self._bridge.way(name)
        made = {
            "entropy": self._bridge.entropy(name),
            "dial": way.dial,
            "open_stream": way.open_stream,
            **options,
        }
        async with open_client(way.url, **made) as client:
            self._clients[client] = name
            yield client

    @asynccontextmanager
    async def worker(
        self,
        handler: Handler,
        *,
        name: str | None = None,
        capacity: int = 10,
        may_raise: bool = False,
        **options: Any,
    ) -> AsyncIterator[WorkerProcess]:
        """Run a worker of the SDK for the time of the block. `options` are those of `open_worker`: `labels`, `on_job`, `config`, ...

        The block begins when the worker is registered. What a handler raises gives its session back, as in production. It also
        comes out at the end of the block, unless `may_raise`: `process.errors` has it.

        Raises:
            Refused, ValueError: as `open_worker`.
        """
        name = self._name("worker", name)
        self._fleet.workers.add(name)
        way = await self._bridge.way(name)
        process = WorkerProcess(name, handler, self._bridge, way, {"capacity": capacity, **options}, self._tasks)
        await process.begin()
        try:
            yield process
        finally:
            await process.stop()
        if process.errors and not may_raise:
            raise process.errors[0]

    async def url(self, party: str) -> str:
        """Return the address under which a program of the test reaches the cluster as `party`. On Trio no system's network leads there."""
        return (await self._bridge.way(party)).url

    def _name(self, kind: str, name: str | None) -> str:
        if name is None:
            self._opened[kind] += 1
            name = f"{kind}-{self._opened[kind]}"
        if "#" in name:
            raise ValueError("a name holds no #, which separates it from the number of a connection")
        return name

    # --- faults -----------------------------------------------------------------------------------------------------

    async def cut(self, party: Party) -> None:
        """Break the connections of a party without a close; what is in flight is lost.

        The SDK resumes within a quarter of a second, and sends again what was not acked. A handler notices nothing.
        """
        await self._act(self._fleet.network.cut, self._party(party))

    async def stall(self, party: Party, seconds: float) -> None:
        """Let nothing arrive on the open connections of a party for `seconds`, in either direction, as in a tunnel.

        When it lasts longer than a heartbeat and its answer, both sides give the connection up, and the SDK opens another.
        """
        await self._act(self._fleet.network.stall, self._party(party), seconds)

    async def delay(self, party: Party, up_to_s: float) -> None:
        """Let each write from and to a party arrive up to `up_to_s` seconds later, in order, from now on; 0 ends it."""
        await self._act(self._fleet.network.delay, self._party(party), up_to_s)

    async def slow(self, party: Party, bytes_per_s: float) -> None:
        """Let a party read no faster than `bytes_per_s` from now on; 0 ends it.

        What waits for it is bounded: signald then stops acking its peer, whose `send` waits. So a handler is slowed down, and does
        not fail.
        """
        await self._act(self._fleet.network.slow, self._party(party), bytes_per_s)

    async def lose_answer(self, party: Party) -> None:
        """Lose the next answer of a node to a party, with the connection: an ack, an opening answer, or one over HTTP.

        The store has what was sent. The SDK does not know, sends it again, and signald recognizes it: the peer gets it once.
        """
        await self._act(self._fleet.network.lose_answer, self._party(party))

    async def _act(self, fault: Callable[..., None], party: str, *arguments: float) -> None:
        async def act() -> None:
            self._fleet.account("test", " ".join([f"fault {fault.__name__}", party, *map(str, arguments)]))
            fault(party, *arguments)

        await self._bridge.run(act)

    def _party(self, party: Party) -> str:
        if isinstance(party, str):
            return party
        return party.name if isinstance(party, WorkerProcess) else self._clients[party]

    # --- what there is ----------------------------------------------------------------------------------------------

    @property
    def nodes(self) -> list[str]:
        """The names of the nodes that run, those that drain included; the oldest first."""
        return self._fleet.running

    def transcript(self, lines_max: int = 20_000) -> str:
        """Return what has happened so far: a line for each action, frame, fault and logged event, with its time in seconds.

        In memory it follows from the seed and the test alone. It shows `data` of messages, shortened, and no credential or token.
        """
        return self._fleet.account.text(lines_max)

    def note(self, text: str) -> None:
        """Add a line of the test to the transcript. Only in memory."""
        self._fleet.account("test", text)

    # --- for `Deploying` --------------------------------------------------------------------------------------------

    async def begin_steps(self) -> Script:
        """See `Stepping`."""
        return await self._bridge.run(self._fleet.begin_steps)

    async def next_step(self, script: Script) -> Step | None:
        """See `Stepping`."""
        return await self._bridge.run(self._fleet.next_step, script)

    async def end_steps(self, script: Script) -> None:
        """See `Stepping`."""
        await self._bridge.run(self._fleet.end_steps, script)
