"""The operator of a simulation, and what befalls the cluster: each method is a `Step` of a plan."""

from typing import TYPE_CHECKING

import trio

from signald.store.base import WAKE_ALL
from tests.sim.nodes import SimNode
from tests.sim.plan import Step

if TYPE_CHECKING:
    from tests.sim.scene import Scene


class Operator:
    """What is done to the cluster; each method is a `Step`."""

    def __init__(self, scene: "Scene") -> None:
        self.scene = scene
        self._random = scene.chance.random("operator")

    def stop(self, node: SimNode) -> None:
        """SIGTERM."""
        now = trio.current_time()
        if node.signalled_at is None:
            node.signalled_at = now
        self.scene.trace(node.name, "SIGTERM")
        if node.node is not None:
            node.node.shutdown.signal()
        self.scene.learn(node, up=False)

    def _oldest(self) -> SimNode | None:
        return next(iter(self.scene.up()), None)

    async def deploy(self, step: Step) -> None:
        """A new node; when it is ready, and a little later, an old one is told to stop."""
        old = self.scene.up()
        if any(node.draining and not node.gone.is_set() for node in self.scene.nodes):
            self.scene.reached("deploy during a deploy")
        new = self.scene.start_node()
        await new.ready.wait()
        await trio.sleep(step.seconds)
        for node in old[:1]:
            if not node.gone.is_set() and not node.killed:
                self.stop(node)

    async def deploy_and_wait(self, _: Step) -> None:
        """As it should be: a successor, the balancer turned, a drain, its end."""
        old = self.scene.up()
        new = self.scene.start_node()
        await new.ready.wait()
        for node in old:
            self.stop(node)
            await node.gone.wait()

    async def stop_first(self, step: Step) -> None:
        """The old one is stopped before there is a new one."""
        old = self._oldest()
        if old is not None:
            self.stop(old)
        await trio.sleep(step.seconds)
        self.scene.start_node()

    async def kill(self, step: Step) -> None:
        """SIGKILL of any node, draining or not; its supervisor starts another one."""
        await self._lose(step, "killed")

    async def vanish(self, step: Step) -> None:
        """A machine is gone with the node on it: not even a reset comes from it."""
        await self._lose(step, "vanished")

    async def _lose(self, step: Step, how: str) -> None:
        alive = self.scene.alive()
        if alive:
            node = self._random.choice(alive)
            self.scene.reached(f"node {how} while draining" if node.draining else f"node {how}")
            self.scene.trace(node.name, how)
            node.killed = True
            for wire in self.scene.network.of(node.name):
                if how == "killed":
                    wire.kill()
                else:
                    wire.vanish()
            if node.store is not None:
                node.store.dead = True
            node.scope.cancel(reason=how)
            self.scene.learn(node, up=False)
        await trio.sleep(step.seconds)
        if not self.scene.up():
            self.scene.start_node()

    async def drain_and_abort(self, step: Step) -> None:
        """An operator's drain, called off again."""
        node = self._oldest()
        if node is None or node.node is None:
            return
        if len(self.scene.up()) == 1 and self._random.random() < 0.7:
            await self.scene.start_node().ready.wait()
        node.node.shutdown.begin("rollout", by_signal=False)
        self.scene.learn(node, up=False)
        await trio.sleep(step.seconds)
        if not node.gone.is_set() and not node.killed:
            if node.node.shutdown.abort():
                self.scene.reached("drain called off")
                self.scene.learn(node, up=True)
            else:
                self.stop(node)

    async def signal_again(self, _: Step) -> None:
        """One more SIGTERM to somebody who drains."""
        for node in self.scene.alive():
            if node.signalled_at is not None and node.node is not None:
                self.scene.reached("signalled again")
                self.stop(node)
                return

    async def outage(self, step: Step) -> None:
        """The store is away."""
        self.scene.world.outage = "down"
        self.scene.reached("store outage")
        await trio.sleep(step.seconds)
        self.scene.world.outage = ""
        for node in self.scene.nodes:
            self.reconnect(node)

    async def answers_lost(self, step: Step) -> None:
        """The store does its work and nobody hears of it."""
        self.scene.world.outage = "answers lost"
        await trio.sleep(step.seconds)
        self.scene.world.outage = ""

    async def partition(self, step: Step) -> None:
        """One node does not reach the store."""
        alive = self.scene.alive()
        if alive:
            node = self._random.choice(alive)
            self.scene.trouble.cut_off.add(node.name)
            self.scene.trace(node.name, "is cut off from the store")
            self.scene.reached("node cut off from the store")
            await trio.sleep(step.seconds)
            self.reconnect(node)

    def reconnect(self, node: SimNode) -> None:
        """The node reaches the store again, and subscribes anew."""
        self.scene.trouble.cut_off.discard(node.name)
        for inbox in self.scene.world._inboxes.get(node.name, ()):
            inbox.put(WAKE_ALL)

    async def empty_store(self, _: Step) -> None:
        """The store restarts without its data."""
        self.scene.reached("store came back empty")
        self.scene.world.lose_everything()

    async def restart_client(self, step: Step) -> None:
        """A client's process dies and another goes on."""
        client = self.scene.clients[step.number % len(self.scene.clients)]
        if client.client is not None and not client.byed:
            client.restart(step.seconds)

    async def crash_worker(self, step: Step) -> None:
        """A worker's process dies; another one starts."""
        self.scene.workers[step.number % len(self.scene.workers)].crash(step.seconds)

    async def leave_worker(self, step: Step) -> None:
        """A worker is redeployed."""
        self.scene.workers[step.number % len(self.scene.workers)].crash(step.seconds, leaves=True)
