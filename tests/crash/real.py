"""The same with real processes: one deploy after the other, each with a SIGKILL in it, and parties that live through all.

On Redis the victim dies at an operation of its own, counted by a proxy that forwards it or not. SQLite has no place for
a proxy, so there the victim dies at a moment.
"""

import random
import secrets
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from signald.demo.cluster import Node
from signald.sdk.events import LogLost, Replaced
from tests.crash.trap import MOMENTS, Moment, Trap
from tests.real.harness import Address, Nodes, Settings, Talk, exit_of, kill, open_nodes, open_talk, term
from tests.store.redis_servers import Server, servers

SETTINGS: Settings = {
    "drain": {"timeout_s": 20.0, "successor_timeout_s": 5.0, "stop_timeout_s": 45.0},
    "worker": {"resume_timeout_s": 30.0},
    "node": {"lease_ttl_s": 2.0},
}
"""Budgets that outlast the start of another node: no worker is to be given up, as all of them live."""


@attrs.frozen
class Death:
    """The process that dies in a deploy, and the moment."""

    victims: str
    """old, new or both."""
    moment: Moment = "before"
    operation: int = 0
    """Counted from SIGTERM on; or 0, and it is time that counts."""
    after_s: float = 0.0


def on_redis(operations: Sequence[int]) -> list[Death]:
    """Each victim at each of the operations, before, unheard and after."""
    return [
        Death(victims, moment, operation)
        for operation in operations
        for victims in ("old", "new", "both")
        for moment in MOMENTS
    ]


def at_random(count: int, seed: int) -> list[Death]:
    """As many deaths at moments of a drain, which takes some 0.2 s here."""
    rng = random.Random(seed)
    return [Death(rng.choice(("old", "new", "both")), after_s=rng.uniform(0.0, 0.2)) for _ in range(count)]


@attrs.define(eq=False)
class Place:
    """An address, and the node that is there."""

    name: str
    address: Address = attrs.field(factory=Address)
    node: Node | None = None
    trap: Trap | None = None


class Deploys:
    """A node after the other, at two places by turns."""

    def __init__(self, nodes: Nodes, redis: Server | None, nursery: trio.Nursery, talk: Talk) -> None:
        self.died = 0
        self._nodes = nodes
        self._redis = redis
        self._nursery = nursery
        self._talk = talk
        self._run = secrets.token_hex(4)
        """In the ids of the nodes: their admin sockets are named after these, and others run nodes on this machine too."""
        self._count = 0
        self._places = [Place("left"), Place("right")]

    @property
    def urls(self) -> list[str]:
        """Where parties may find a node."""
        return [place.address.url for place in self._places]

    async def start(self, place: Place) -> None:
        """Start a node at a place, behind a trap if there can be one."""
        self._count += 1
        store = {}
        if self._redis is not None:
            place.trap = Trap(self._redis.port)
            await self._nursery.start(place.trap.run)
            store = {"url": place.trap.url}
        place.node = await self._nodes.start(f"{place.name}-{self._run}-{self._count}", place.address, store=store)

    async def begin(self) -> None:
        """Start the first."""
        await self.start(self._places[0])

    async def deploy(self, death: Death) -> bool:
        """Put a new node in the place of the old one, while a process dies; whether the death came in time."""
        old, new = self._places
        await self.start(new)
        assert old.node is not None
        assert new.node is not None
        victims = {"old": [old], "new": [new], "both": [old, new]}[death.victims]
        struck = trio.Event()

        def strike() -> None:
            for place in victims:
                assert place.node is not None
                place.node.process.kill()
            struck.set()

        async with trio.open_nursery() as nursery:
            if death.operation:
                for place in victims:
                    assert place.trap is not None
                    place.trap.arm(death.moment, death.operation, strike)
            else:
                nursery.start_soon(_later, death.after_s, strike)
            term(old.node)
            nursery.start_soon(self._until_gone, old.node, nursery.cancel_scope)
            await struck.wait()
            nursery.cancel_scope.cancel(reason="the death has come")
        if struck.is_set() and new in victims:
            await new.node.process.wait()
            await self.start(new)
        code = await exit_of(old.node, 45.0)
        died = code == -signal.SIGKILL or (struck.is_set() and new in victims)
        assert code == 0 or (struck.is_set() and old in victims), (death, code, old.node.log_tail())
        self.died += died
        for place in (old, new):
            assert place.node is not None
            assert "Traceback" not in place.node.log.read_text(errors="replace"), place.node.log_tail()
        self._places.reverse()
        await self._talk.goes_on(2, 30.0)
        return died

    async def _until_gone(self, node: Node, scope: trio.CancelScope) -> None:
        await node.process.wait()
        await trio.sleep(0.1)
        scope.cancel(reason="the deploy was over first")


async def _later(seconds: float, deed: Callable[[], None]) -> None:
    await trio.sleep(seconds)
    deed()


@asynccontextmanager
async def _store(kind: str, directory: Path) -> AsyncIterator[tuple[str, Server | None]]:
    if kind == "sqlite":
        yield f"sqlite:{directory / 'store.db'}", None
    else:
        redis = Server(directory / "redis")
        async with servers(redis):
            yield redis.url, redis


async def play(
    kind: str, deaths: Sequence[Death], directory: Path, tell: Callable[[Death, bool], None] = lambda *_: None
) -> int:
    """Have all these deaths on a store of `kind`, under load; returns how many came in time. Raises what was broken."""
    async with (
        _store(kind, directory) as (url, redis),
        open_nodes(directory, url, SETTINGS) as nodes,
        open_talk(60.0 + 60.0 * len(deaths)) as talk,
        trio.open_nursery() as nursery,
    ):
        deploys = Deploys(nodes, redis, nursery, talk)
        await deploys.begin()
        for n in range(2):
            await talk.worker(f"worker {n}", *deploys.urls, capacity=4)
        for n in range(4):
            await talk.client(f"client {n}", *deploys.urls)
        talk.begin(0.06)
        await talk.goes_on(3)
        for death in deaths:
            tell(death, await deploys.deploy(death))
        await talk.settle(30.0)
        for chatter in talk.chatters:
            assert not chatter.saw(LogLost), talk.account()
            assert not chatter.saw(Replaced), talk.account()
            assert len(chatter.ledger.workers) == 1, talk.account()
        for place in deploys._places[:1]:
            assert place.node is not None
            await kill(place.node)
        nursery.cancel_scope.cancel(reason="nobody is to die any more")
        return deploys.died
