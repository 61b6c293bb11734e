"""The nodes of a simulation: the production ones, on a store with faults, as a supervisor runs them."""

import random
import traceback
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import attrs
import trio

from signald.config import Config
from signald.core.drain import Phase
from signald.errors import StoreUnavailable
from signald.ids import Entropy
from signald.node import Node, node_on
from signald.service.cluster.identity import Claimant
from signald.service.drain.shutdown import CUTTING_SIGNAL
from signald.store.memory import open_memory
from signald.testing.cluster import SameHost
from tests.sim.stores import FaultyStore

if TYPE_CHECKING:
    from tests.sim.scene import Scene


ROUNDED_S = 0.0001
"""How exactly a node notes when a phase of its drain began."""


@attrs.define(eq=False)
class SimNode:
    """One node and what is known of it from outside."""

    name: str
    config: Config
    node: Node | None = None
    host: SameHost = attrs.field(factory=SameHost)
    store: FaultyStore | None = None
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    ready: trio.Event = attrs.field(factory=trio.Event)
    gone: trio.Event = attrs.field(factory=trio.Event)
    began_at: float = attrs.field(factory=trio.current_time)
    signalled_at: float | None = None
    signals: int = 0
    """How many its process has had."""
    cut_at: float = float("inf")
    """When it had the one that cuts the closing handshakes short."""
    killed: bool = False
    stuck: bool = False
    """It never gets ready."""
    stood_s: float = 0.0
    """How long it had stood still when it was told to stop."""
    writes_left: int = -1
    """After how many more writes `at_write` is called; below 0: never."""
    at_write: Callable[[], None] = attrs.field(default=lambda: None)
    stopping: bool = False
    """Its drain is done: it accepts no connection any more."""

    @property
    def up(self) -> bool:
        """It is there and has not been told to stop."""
        return self.ready.is_set() and not self.gone.is_set() and self.signalled_at is None and not self.draining

    @property
    def draining(self) -> bool:
        """It has been told to go, by a signal or by an operator."""
        return self.node is not None and bool(self.node.shutdown.status.reason)

    @property
    def closed_by(self) -> float:
        """When the time for the closing handshakes of its last drain was over."""
        if self.node is None:
            return float("inf")
        ledger = self.node.shutdown.ledger
        began_s = [ms / 1000 for name, ms in ledger._phases if name == Phase.CLOSE.value]
        if ledger._began_at is None or not began_s:
            return float("inf")
        return ledger._began_at + began_s[0] + self.config.drain.close_timeout_s - ROUNDED_S

    def signal(self) -> None:
        """Its process gets a SIGTERM."""
        assert self.node is not None
        self.signals += 1
        if self.signals == CUTTING_SIGNAL:
            self.cut_at = trio.current_time()
        self.node.shutdown.signal()


async def run_node(scene: "Scene", node: SimNode) -> None:
    """Run a node until it has drained, or is killed; like its supervisor, start it again while its store is away."""
    name = node.name
    # One stream for all attempts: one that draws the same again fails the same way, for ever.
    luck, entropy = scene.chance.random(f"store {name}"), scene.chance.entropy(name)
    with node.scope:
        while not node.gone.is_set():
            try:
                await _serve(scene, node, luck, entropy)
            except Exception as error:
                if node.ready.is_set() or not only(StoreUnavailable, error):
                    scene.violate("no-crash", f"{name}: {''.join(traceback.format_exception(error))}")
                    return
                scene.reached("node could not start without its store")
                scene.trace(name, "cannot start")
                await trio.sleep(1.0)
    node.gone.set()


async def _serve(scene: "Scene", node: SimNode, luck: random.Random, entropy: Entropy) -> None:
    name = node.name
    media = scene.uploading.media(node) if scene.uploading is not None else None
    async with open_memory("memory:", name, world=scene.world) as store:
        gate = scene.network.gate(name)
        node.store = FaultyStore(store, name, scene.trouble, gate, luck, scene.applied, scene.late, scene.reached)
        node.store.dead = node.killed
        if scene.calling is not None:
            node.store.answered = partial(scene.check.recalls.answered, node)
        async with node_on(
            node.store,
            node.config,
            entropy,
            claimant=Claimant(node.host),
            core=scene.core,
            media=media,
        ) as inner:
            if not node.stuck:
                await inner.lease.set_state("ready")
            if scene.core is not None:
                # Instead of the client that speaks HTTP: the answers are the same, and no byte of them is.
                inner.hub.authoriser._client = scene.core  # type: ignore[assignment]
            node.node = inner
            if node.signalled_at is not None:
                node.signal()
            if node.stuck:
                scene.reached("successor never ready")
                scene.trace(name, "is there, and does not get ready")
            else:
                node.ready.set()
                scene.trace(name, "ready")
                if node.signalled_at is None:
                    scene.learn(node, up=True)
            await inner.shutdown.run()
            node.stopping = True
    now = trio.current_time()
    scene.trace(name, "exits")
    node.gone.set()
    scene.check.exited(node, now)
    scene.conduct.exited(node, now)


def only(kind: type[Exception], error: object) -> bool:
    """Tell whether there is nothing but errors of `kind` in `error`, which may be a group."""
    if isinstance(error, BaseExceptionGroup):
        return all(only(kind, one) for one in error.exceptions)
    return isinstance(error, kind)
