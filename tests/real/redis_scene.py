"""What the tests of Redis in trouble have in common: two nodes on it, and parties that talk all the time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio
from attrs import frozen

from signald.demo.cluster import Node
from signald.sdk.events import Disconnected, LogLost, Replaced
from tests.real.harness import Nodes, Settings, Talk, open_nodes, open_talk, probe, until, url_of

GOES_ON_S = 30.0
"""Long enough for every back-off of signald's, and for Redis to come to terms with itself."""


@frozen
class Scene:
    """Clients stand on the first node and workers on the second: whatever is said crosses."""

    first: Node
    second: Node
    talk: Talk
    nodes: Nodes

    @property
    def pair(self) -> tuple[Node, Node]:
        """Both nodes."""
        return self.first, self.second

    async def ready(self) -> None:
        """Return when both nodes say that they are."""
        for node in self.pair:
            await until(lambda node=node: _is(node, (200, "ready")), GOES_ON_S, f"{node.name} is ready")

    async def degraded(self) -> None:
        """Return when both nodes say that they have no store."""
        for node in self.pair:
            await until(lambda node=node: _is(node, (503, "degraded")), 10, f"{node.name} is degraded")

    async def newcomer_is_served(self, name: str) -> None:
        """A client that comes now gets a worker, and an answer."""
        newcomer = await self.talk.client(name, url_of(self.first))
        await newcomer.ask()
        await until(lambda: newcomer.answered == 1, GOES_ON_S, self.talk.account())

    async def ends_well(self) -> None:
        """All goes on, everything arrives once and in order, and no party noticed more than a pause."""
        await self.talk.goes_on(5, GOES_ON_S)
        await self.ready()
        await self.newcomer_is_served("newcomer")
        await self.talk.settle(GOES_ON_S)
        check_undisturbed(self.talk)


async def _is(node: Node, said: tuple[int, str]) -> bool:
    return await probe(node) == said


@asynccontextmanager
async def talking(
    directory: Path, url: str, settings: Settings | None = None, *, clients: int = 6, within_s: float = 120.0
) -> AsyncIterator[Scene]:
    """Two nodes on the store at `url`; all parties talk by the time the block begins."""
    made: dict[str, Node] = {}

    async def start(name: str) -> None:
        made[name] = await nodes.start(name)

    async with open_nodes(directory, url, settings) as nodes, open_talk(within_s) as talk:
        async with trio.open_nursery() as nursery:
            for name in ("first", "second"):
                nursery.start_soon(start, name)
        scene = Scene(made["first"], made["second"], talk, nodes)
        for n in range(2):
            await talk.worker(f"worker {n}", url_of(scene.second))
        for n in range(clients):
            await talk.client(f"client {n}", url_of(scene.first))
        talk.begin(0.06)
        await talk.goes_on(5, GOES_ON_S)
        yield scene


def check_undisturbed(talk: Talk) -> None:
    """No party was disconnected, reassigned or told of a loss."""
    for chatter in talk.chatters:
        assert not chatter.saw(Disconnected), talk.account()
        assert not chatter.saw(LogLost), talk.account()
        assert not chatter.saw(Replaced), talk.account()
        assert len(chatter.ledger.workers) == 1, talk.account()
        assert chatter.client.connections == 1, talk.account()
    assert [worker.connections for worker in talk.workers] == [1] * len(talk.workers), talk.account()
