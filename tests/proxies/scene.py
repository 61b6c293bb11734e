"""Two colours of signald behind a real proxy, and parties that know no address but the proxy's."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import trio
from attrs import define, field

from signald.ctl.client import AdminClient
from signald.demo.cluster import Node
from tests.proxies.proxy import Colour, Colours, Kind, Proxy, open_proxy
from tests.real.harness import Nodes, Settings, Talk, exit_of, logged, open_nodes, open_talk, term, until

TRUST: Settings = {"listen": {"trusted_proxies": ["127.0.0.1/32"]}}
"""What the recipes ask of every node's configuration."""


@define(eq=False)
class Scene:
    """One host: the proxy, the colour in service, and the nodes there are."""

    proxy: Proxy
    nodes: Nodes
    talk: Talk
    colours: Colours
    live: Colour = "blue"
    running: dict[Colour, Node] = field(factory=dict)
    started: int = 0

    @property
    def other(self) -> Colour:
        """The colour that is not in service."""
        return "green" if self.live == "blue" else "blue"

    async def start(self, colour: Colour, **settings: Any) -> Node:
        """Start a node of `colour`; the proxy sends no party there by that."""
        self.started += 1
        name = f"{colour}-{self.started}"
        settings["admin"] = {"socket": str(self.nodes.directory / f"{name}.sock")}
        self.running[colour] = node = await self.nodes.start(name, self.colours[colour], **settings)
        return node

    async def stop(self, colour: Colour) -> Node:
        """Have the node of `colour` hand everything over and end, as `systemctl stop` would."""
        node = self.running.pop(colour)
        term(node)
        assert await exit_of(node) == 0
        assert not logged(node, "client_given_up") + logged(node, "worker_given_up"), node.log_tail()
        return node

    async def deploy(self) -> None:
        """Replace the colour in service by the other one."""
        await self.start(self.other)
        await self.proxy.flip_to(self.other)
        await self.stop(self.live)
        self.live = self.other

    def admin(self, node: Node) -> AdminClient:
        """The admin API of a node, over its Unix socket."""
        return AdminClient(path=self.nodes.directory / f"{node.name}.sock")

    async def operate(self, node: Node, verb: str, **body: Any) -> dict[str, Any]:
        """Have an operator POST something."""
        return await trio.to_thread.run_sync(partial(self.admin(node).post, verb, body))

    async def populate(self, clients: int, workers: int) -> None:
        """Bring parties in, by the proxy."""
        for n in range(workers):
            await self.talk.worker(f"worker {n}", self.proxy.url, capacity=-(-2 * clients // workers))
        for n in range(clients):
            await self.talk.client(f"client {n}", self.proxy.url)

    def connections(self) -> set[int]:
        """How many connections the parties have opened, each counted once."""
        clients = {chatter.client.connections for chatter in self.talk.chatters}
        return clients | {worker.connections for worker in self.talk.workers}

    def same_workers(self) -> bool:
        """Whether no client has been answered by more than one worker."""
        return all(len(one.ledger.workers) <= 1 for one in self.talk.chatters)

    async def newcomers(self, count: int) -> dict[Colour, int]:
        """Bring in `count` clients, one after the other; which colour did each come to?"""
        before = self._started_at()
        for _ in range(count):
            await self.talk.client(f"newcomer {len(self.talk.chatters)}", self.proxy.url)
        after = self._started_at

        def all_logged() -> bool:
            return sum(after().values()) == sum(before.values()) + count

        await until(all_logged, 5, "the nodes have logged all that came")
        return {colour: now - before[colour] for colour, now in after().items()}

    def _started_at(self) -> dict[Colour, int]:
        return {colour: len(logged(node, "session_started")) for colour, node in self.running.items()}


@asynccontextmanager
async def behind(
    kind: Kind,
    directory: Path,
    settings: Settings | None = None,
    *,
    clients: int = 6,
    workers: int = 2,
    within_s: float = 60.0,
) -> AsyncIterator[Scene]:
    """A blue node in service behind the proxy, and parties that talk by the time the block begins."""
    colours = Colours()
    async with (
        open_proxy(kind, directory, colours) as proxy,
        open_nodes(directory, f"sqlite:{directory / 'store.db'}", {**TRUST, **(settings or {})}) as nodes,
        open_talk(within_s) as talk,
    ):
        scene = Scene(proxy, nodes, talk, colours)
        await scene.start("blue")
        await scene.populate(clients, workers)
        talk.begin()
        await talk.goes_on(3)
        yield scene
