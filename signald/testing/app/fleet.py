"""The nodes of a test, all in one Trio run: deploys, kills, losses of the store, and the way of a party to one of them.

The nodes are the production ones (`signald.testing.cluster`). A new connection goes to a node that is ready and has not been told
to stop, as behind a load balancer that notices at once.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Literal

import trio

from signald.net.listener import Server
from signald.node import Node
from signald.store.memory import MemoryWorld
from signald.testing.app.account import Account, as_node, in_trio_run, logs_in
from signald.testing.app.faults import PartyNetwork
from signald.testing.app.frames import words
from signald.testing.app.steps import Moves, Script, Step, StepKind, of_a_worker, of_signald
from signald.testing.cluster import Cluster
from signald.testing.network import Wire
from signald.testing.pipes import End
from signald.testing.seeded import Chance

Sections = Mapping[str, Mapping[str, object]]
"""Section of the configuration → its keys that differ from the defaults."""

RESEED_S = 2.0
"""The time that nodes need to give an empty store what their live sessions know: their watch on the store, and their writes."""

POLL_S = 0.01
"""How often the end of a node is looked for: nothing beside a drain, and few turns of a real clock."""


class Fleet:
    """The nodes of one cluster, on one store in memory."""

    def __init__(
        self,
        nursery: trio.Nursery,
        seed: int,
        nodes: int,
        config: Sections,
        account: Account,
        *,
        world: MemoryWorld | None = None,
    ) -> None:
        self.chance = Chance(seed)
        self.account = account
        self.network = PartyNetwork(self.chance.random("network"), self._sees, account)
        self.workers: set[str] = set()
        """The names of the parties that are workers."""
        self._cluster = Cluster(nursery, seed)
        if world is not None:
            self._cluster.world = world
        self._nursery = nursery
        self._routes = self.chance.random("routes")
        self._size = nodes
        self._config = config
        self._started = 0
        self._release = 1
        self._told: set[str] = set()
        """Nodes that were told to stop, or killed."""
        self._script: Script | None = None

    async def begin(self) -> None:
        """Start the first nodes."""
        for _ in range(self._size):
            await self._start()

    # --- nodes ------------------------------------------------------------------------------------------------------

    @property
    def ready(self) -> list[str]:
        """The nodes that new connections go to, the oldest first."""
        return [name for name in self._cluster.nodes if name not in self._told]

    @property
    def running(self) -> list[str]:
        """The nodes whose process runs, those that drain included; the oldest first."""
        return list(self._cluster.nodes)

    def node(self, name: str) -> Node:
        """Return a node that runs. Raises ValueError."""
        if name not in self._cluster.nodes:
            raise ValueError(f"no node {name!r} runs; there are {', '.join(self.running) or 'none'}")
        return self._cluster.nodes[name]

    def connect(self, party: str, name: str, serve: Callable[[Server, End], Awaitable[None]]) -> Wire:
        """Connect a party to a node that runs, which serves the connection by `serve`."""
        wire, node = self.network.open(party, name), self.node(name)
        with as_node(name):
            node.hub.spawn(serve, node.server, wire.node_end)
        return wire

    def route(self, party: str) -> str | None:
        """Return the node that a new connection of `party` goes to; None: refused."""
        ready = self.ready
        if not ready or self.network.weather(party).dead:
            self.account(party, "is refused: no node is ready" if not ready else "is refused: its process is gone")
            return None
        return self._routes.choice(ready)

    async def _start(self) -> str:
        self._started += 1
        name, release = f"node-{self._started}", f"r{self._release}"
        sections = {section: dict(keys) for section, keys in self._config.items()}
        sections["node"] = {**sections.get("node", {}), "release": release}
        with as_node(name):
            await self._cluster.start(name, **sections)
        self.account(name, f"is ready, release {release}")
        return name

    async def _gone(self, name: str) -> None:
        while name in self._cluster.nodes:  # noqa: ASYNC110 - a node ends once, and tells no event
            await trio.sleep(POLL_S)
        self.account(name, "has exited")

    # --- deploys ----------------------------------------------------------------------------------------------------

    async def deploy(self) -> None:
        """Replace each node by one of the next release; return when the old ones have exited."""
        await self.end_steps(await self._begin(held=False))

    async def rollback(self) -> None:
        """Replace all nodes by ones of the release before, in the middle of a deploy as well. Raises ValueError: there is none."""
        if self._release == 1:
            raise ValueError("there is no release before the first one")
        self._release -= 1
        self.account("test", f"rolls back to release r{self._release}")
        script = self._script
        if script is not None:
            script.close()
        old = self.ready
        for _ in range(self._size):
            await self._start()
        for name in old:
            if name in self.ready:
                self._signal(name)
        for name in self.running:
            if name in self._told:
                await self._gone(name)
        if script is not None:
            await self.end_steps(script)

    @property
    def held_step(self) -> Step | None:
        """The step that a test has been shown last, if it has not gone on yet."""
        return self._script.step if self._script is not None else None

    async def begin_steps(self) -> Script:
        """Begin a deploy whose moves are held; return its steps."""
        return await self._begin(held=True)

    async def begin_worker_steps(self, worker: str) -> Script:
        """Return the steps of the deploy of a worker, which the caller goes through. Raises RuntimeError: as `deploy`."""
        script = self._new_script(of_a_worker)
        self.account("test", f"deploys {worker}")
        return script

    async def finish_steps(self, script: Script) -> None:
        """Note that a deploy is over."""
        if self._script is script:
            self._script = None
        script.finish()

    def _new_script(self, moves: Moves) -> Script:
        if self._script is not None:
            raise RuntimeError(
                "a deploy is under way: go through all its steps, or leave its `async with` block, first"
            )
        self._script = Script(self.account, moves)
        return self._script

    async def _begin(self, *, held: bool) -> Script:
        script = self._new_script(of_signald)
        self._release += 1
        self.account("test", f"deploys release r{self._release}")
        script.is_open = held
        self._nursery.start_soon(self._deploy, script)
        return script

    async def _deploy(self, script: Script) -> None:
        release = self._release
        for old in self.ready:
            if release != self._release:
                break  # rolled back
            await script.show(StepKind.NODE_READY, await self._start())
            if release != self._release:
                break
            if old in self.ready:
                self._signal(old)
            await script.show(StepKind.DRAIN_BEGUN, old)
            await self._gone(old)
            await script.show(StepKind.NODE_EXITED, old)
        await self.finish_steps(script)

    def _signal(self, name: str) -> None:
        self._told.add(name)
        self.account(name, "gets SIGTERM")
        self._cluster.nodes[name].shutdown.signal()

    async def next_step(self, script: Script) -> Step | None:
        """As `Script.next`."""
        return await script.next()

    async def end_steps(self, script: Script) -> None:
        """Let a deploy go on by itself, and return when it is over."""
        script.close()
        while not script.over:  # noqa: ASYNC110 - as for the end of a node
            await trio.sleep(POLL_S)

    # --- losses -----------------------------------------------------------------------------------------------------

    async def kill(self, name: str | None = None, *, replaced_after_s: float | None = 0.5) -> None:
        """Let a node die without a goodbye, the oldest one that is ready unless it is named. Raises ValueError: it does not run.

        Another one of the same release is ready `replaced_after_s` later; with None there is none.
        """
        chosen = name if name is not None else next(iter(self.ready), "")
        self.node(chosen)
        self.account(chosen, "is killed")
        self._told.add(chosen)
        for wire in self.network.of(chosen):
            wire.kill()
        self._cluster.kill(chosen)
        await self._gone(chosen)
        if replaced_after_s is not None:
            await trio.sleep(replaced_after_s)
            await self._start()

    async def lose_store(self, *, settle_s: float = RESEED_S) -> None:
        """Let the store come back empty, as one without persistence does after a restart; return `settle_s` later."""
        self.account("store", "comes back empty")
        self._cluster.world.lose_everything()
        await trio.sleep(settle_s)

    async def set_store(self, outage: Literal["", "down", "answers lost"]) -> None:
        """Take the store away (`down`), let it lose its answers, or bring it back ("")."""
        self.account("store", outage or "is back")
        self._cluster.world.outage = outage
        await trio.lowlevel.checkpoint()

    # --- what nodes write -------------------------------------------------------------------------------------------

    def _sees(self, wire: Wire, fields: dict[str, object]) -> None:
        self.account(wire.party, f"◂ {wire.node} {words(fields)}")
        script = self._script
        if script is None or not script.is_open:
            return
        kind = script.moves(fields, wire.party in self.workers)
        if kind is None:
            return
        wire.down.stalled_from, wire.down.stalled_until = trio.current_time(), float("inf")
        script.hold(kind, wire.node, wire.party, wire.down.go_on)


@asynccontextmanager
async def open_fleet(
    seed: int, nodes: int, config: Sections, *, world: MemoryWorld | None = None
) -> AsyncIterator[Fleet]:
    """Run a fleet around the body; everything that still runs then is cancelled. An exception of the body comes out as it is."""
    failure: Exception | None = None
    account, token = Account(), trio.lowlevel.current_trio_token()
    with logs_in(account, lambda: in_trio_run(token)):
        async with trio.open_nursery() as nursery:
            fleet = Fleet(nursery, seed, nodes, config, account, world=world)
            try:
                await fleet.begin()
                yield fleet
            except Exception as error:  # noqa: BLE001 - it is raised again below, outside the nursery that would wrap it
                failure = error
            nursery.cancel_scope.cancel(reason="the test is over")
    if failure is not None:
        raise failure
