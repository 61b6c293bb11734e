"""The operator of a simulation, and what befalls the cluster: each method is a `Step` of a plan."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import trio

from signald.store.base import WAKE_ALL
from signald.store.registry.ops import Enqueue
from signald.testing.pipes import Gate
from tests.sim.liar import lie
from tests.sim.lying_worker import lie_as_worker
from tests.sim.nodes import SimNode
from tests.sim.parties import ClientParty, WorkerParty
from tests.sim.plan import Step
from tests.sim.recalls import recall
from tests.sim.stores import AtClaim, Countdown, fail_over
from tests.sim.thief import show, steal

if TYPE_CHECKING:
    from tests.sim.scene import Scene


STRIKES_WITHIN_S = 20.0
"""How long a step that waits for its moment waits, and not longer than all the trouble lasts."""


LATE_S = 3.0
"""What a client has said over a network that it has left is on its way for so long at most."""

DIALS_LATE_S = 0.3
"""How long the way to a successor takes at times: enough for the old node to hear of a worker that broke off."""


class Operator:
    """What is done to the cluster; each method is a `Step`."""

    def __init__(self, scene: "Scene") -> None:
        self.scene = scene
        self._random = scene.chance.random("operator")

    def stop(self, node: SimNode) -> None:
        """SIGTERM. A process that stands still hears of it when it goes on."""
        scene = self.scene
        now = trio.current_time()
        gate = scene.network.gate(node.name)
        if node.signalled_at is None:
            node.signalled_at = now
            node.stood_s = gate.stood_s - max(0.0, gate.until - now)
            held = node.node.hub if node.node is not None else None
            if held is not None and held.links and not held.worker_links:
                scene.reached("handover with 0 workers")
        scene.trace(node.name, "SIGTERM")
        scene.conduct.signalled(node)
        if node.node is not None:
            if gate.until > now:
                scene.later(0.0, _signal_later, gate, node)
            else:
                node.signal()
        scene.learn(node, up=False)

    def lose(self, node: SimNode, how: str) -> None:
        """SIGKILL (`killed`), or the machine is gone (`vanished`): not even a reset comes from it."""
        scene = self.scene
        if node.killed or node.gone.is_set():
            return
        scene.reached(f"node {how} while draining" if node.draining else f"node {how}")
        if node.store is not None and node.store.persisted:
            scene.reached("kill between persist and ack")
        scene.trace(node.name, how)
        node.killed = True
        for wire in scene.network.of(node.name):
            if how == "killed":
                wire.kill()
            else:
                wire.vanish()
        if node.store is not None:
            node.store.dead = True
        node.scope.cancel(reason=how)
        scene.learn(node, up=False)

    async def _replace(self, seconds: float) -> None:
        """What a supervisor does when no node serves any more."""
        await trio.sleep(seconds)
        if not self.scene.up():
            self.scene.start_node()

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
            self.lose(self._random.choice(alive), how)
        await self._replace(step.seconds)

    async def drain_and_abort(self, step: Step) -> None:
        """An operator's drain, called off again."""
        node = self._oldest()
        if node is None or node.node is None:
            return
        if len(self.scene.up()) == 1 and self._random.random() < 0.7:
            await self.scene.start_node().ready.wait()
        node.node.shutdown.begin("rollout")
        self.scene.learn(node, up=False)
        await trio.sleep(step.seconds)
        if not node.gone.is_set() and not node.killed:
            if node.node.shutdown.abort():
                self.scene.reached("drain called off")
                self.scene.learn(node, up=True)
            else:
                self.stop(node)

    async def deploy_two(self, step: Step) -> None:
        """Two successors at once, where one was to come: an orchestrator has lost count."""
        old = self.scene.up()
        self.scene.reached("two successors")
        new = [self.scene.start_node() for _ in range(2)]
        await new[0].ready.wait()
        await trio.sleep(step.seconds)
        for node in old[:1]:
            if not node.gone.is_set() and not node.killed:
                self.stop(node)

    async def deploy_stuck(self, step: Step) -> None:
        """The successor never gets ready, and the old node is stopped all the same; another one comes later."""
        old = self._oldest()
        new = self.scene.start_node(stuck=True)
        await trio.sleep(0.5)
        if old is not None:
            self.stop(old)
        await trio.sleep(step.seconds)
        self.stop(new)
        self.scene.start_node()

    async def roll_back(self, step: Step) -> None:
        """The old node has begun to drain when the new one turns out bad: the other way round."""
        old = self._oldest()
        new = self.scene.start_node()
        await new.ready.wait()
        if old is None or old.node is None or old.gone.is_set() or old.killed:
            return
        old.node.shutdown.begin("rollout")
        self.scene.learn(old, up=False)
        await trio.sleep(step.seconds)
        if old.gone.is_set() or old.killed or not old.node.shutdown.abort():
            return
        self.scene.reached("rollback while draining")
        self.scene.learn(old, up=True)
        await trio.sleep(0.2)
        if not new.gone.is_set() and not new.killed:
            self.stop(new)

    async def orchestrate(self, step: Step) -> None:
        """SIGTERM, perhaps more than once, and SIGKILL when the grace is over."""
        old = self._oldest()
        if old is None:
            return
        await self.scene.start_node().ready.wait()
        for _ in range(1 + step.number):
            if not old.gone.is_set() and not old.killed:
                if old.signalled_at is not None:
                    self.scene.reached("double SIGTERM")
                self.stop(old)
                await trio.sleep(min(0.7, step.seconds / 4))
        await trio.sleep(step.seconds)
        if not old.gone.is_set():
            self.lose(old, "killed")

    def _some(self) -> SimNode | None:
        alive = [node for node in self.scene.alive() if node.store is not None]
        return self._random.choice(alive) if alive else None

    async def kill_at_store(self, step: Step) -> None:
        """SIGKILL right before or after a batch of operations is carried out: the how-manieth, the plan says.

        `persisted`: after the how-manieth that appends a message, before any party is told of it.
        """
        await self._at_store(step, lambda node: self.lose(node, "killed"))

    async def stop_at_store(self, step: Step) -> None:
        """SIGTERM there."""
        await self._at_store(step, self.stop)

    async def _at_store(self, step: Step, deed: Callable[[SimNode], None]) -> None:
        node = self._some()
        if node is None or node.store is None:
            return
        struck = trio.Event()

        def strike() -> None:
            struck.set()
            if node in self.scene.alive():
                deed(node)

        countdown = Countdown(step.number + 1, step.how != "before", step.how == "persisted", strike)
        node.store.countdowns.append(countdown)
        with trio.move_on_after(min(STRIKES_WITHIN_S, self.scene.plan.lasts_s)):
            await struck.wait()
        await self._replace(step.seconds)

    async def kill_at_write(self, step: Step) -> None:
        """SIGKILL instead of a write to a party: the how-manieth, the plan says."""
        await self._at_write(step, lambda node: self.lose(node, "killed"))

    async def stop_at_write(self, step: Step) -> None:
        """SIGTERM there."""
        await self._at_write(step, self.stop)

    async def _at_write(self, step: Step, deed: Callable[[SimNode], None]) -> None:
        node = self._some()
        if node is None:
            return
        struck = trio.Event()

        def strike() -> None:
            struck.set()
            if node in self.scene.alive():
                deed(node)

        node.writes_left, node.at_write = step.number, strike
        with trio.move_on_after(min(STRIKES_WITHIN_S, self.scene.plan.lasts_s)):
            await struck.wait()
        await self._replace(step.seconds)

    async def pause(self, step: Step) -> None:
        """A node stands still: a collection, a machine that is moved."""
        node = self._some()
        if node is not None:
            self.scene.reached("node paused while draining" if node.draining else "node paused")
            self.scene.trace(node.name, "stands still")
            self.scene.network.gate(node.name).pause(step.seconds)

    async def isolate(self, step: Step) -> None:
        """No party reaches a node for a while; the store does."""
        node = self._some()
        if node is not None:
            self.scene.reached("node cut off from the parties")
            self.scene.trace(node.name, f"is cut off from the parties, {step.how}")
            self.scene.network.isolate(node.name, step.seconds, refused=step.how == "refused")

    async def fail_over(self, step: Step) -> None:
        """The store's replica takes over: it lacks what was written in the last `seconds`."""
        replica = self.scene.world.copied()
        await trio.sleep(step.seconds)
        self.scene.reached("store failed over")
        self.scene.trace("store", "fails over")
        known, before = replica.rows._sessions.keys(), self.scene.world.rows._sessions.keys()
        self.scene.brought_back |= known - before
        self.scene.never_copied |= before - known
        self.scene.check.token_once.store_lost()
        fail_over(self.scene.world, self.scene.trouble, replica)

    async def clock_step(self, step: Step) -> None:
        """An operator sets the clock of the store's machine."""
        self.scene.reached("clock set back" if step.seconds < 0 else "clock set forward")
        self.scene.trouble.clock_ms += round(step.seconds * 1000)
        self.scene.trouble.clock_set_at = trio.current_time()

    async def stop_reading(self, step: Step) -> None:
        """A client reads nothing for a while: a telephone in a tunnel, a page in the background."""
        client = self.scene.clients[step.number % len(self.scene.clients)]
        client.reads_from = trio.current_time() + step.seconds
        self.scene.trace(client.name, "reads nothing for a while")

    async def change_network(self, step: Step) -> None:
        """A client's telephone changes its network: what it says meanwhile arrives when it asks for its session anew.

        Also what it asked for: a claim may come behind the next one of its party.
        """
        talkers = [one for one in self.scene.clients if one.client is not None and one.said < one.plan.messages]
        if not talkers:
            return
        client = talkers[step.number % len(talkers)]
        wires = [one for one in self.scene.network.wires if one.party == client.name and not one.over]
        if not wires or wires[-1].node_end.dead:
            return
        wire = wires[-1]
        now = trio.current_time()
        wire.hurt = True
        wire.up.stalled_from, wire.up.stalled_until = now, now + step.seconds + LATE_S
        wire.up.change()
        await trio.sleep(step.seconds)
        self.scene.trace(client.name, "has another network")
        self.scene.reached("client changed its network")
        wire.down.break_()
        for node in self.scene.alive():
            if node.store is not None:
                node.store.countdowns.append(AtClaim(client.session, wire.up.go_on))

    async def break_in_move(self, step: Step) -> None:
        """A worker's connection breaks in the moment in which its client is told to go; what is said of that there comes late."""
        told = trio.Event()

        def strike(client: ClientParty, name: str) -> None:
            mine = client.client.worker if client.client is not None else None
            worker = next(
                (one for one in self.scene.workers if one.worker is not None and one.worker.worker == mine), None
            )
            if worker is None or told.is_set():
                return
            told.set()
            wire = self.scene.network.by_name[name]
            wire.hurt = True
            wire.down.delay_s = step.seconds
            self.scene.dials_late[client.name] = DIALS_LATE_S
            self.scene.reached("worker broke off while its client moved")
            for one in self.scene.network.wires:
                if one.party == worker.name:
                    one.reset()

        for client in self.scene.clients:
            if client.plan.heeds_goaway:
                self.scene.at_goaway[client.name] = partial(strike, client)
        with trio.move_on_after(self.scene.plan.lasts_s):
            await told.wait()
        self.scene.at_goaway.clear()

    async def steal_token(self, step: Step) -> None:
        """A copy of a client's token is used while the client lives."""
        await steal(self.scene, self.scene.clients[step.number % len(self.scene.clients)], step.seconds)

    async def show_token(self, step: Step) -> None:
        """A stranger with a credential of its own shows a token of another party."""
        parties: list[ClientParty | WorkerParty] = [*self.scene.clients, *self.scene.workers]
        await show(self.scene, parties[step.number % len(parties)], step.seconds)

    async def recall(self, step: Step) -> None:
        """An operator voids what a caller of the HTTP API was given."""
        await recall(self.scene, step)

    async def lie_as_worker(self, step: Step) -> None:
        """A worker beside the plan's claims positions that were never given out."""
        await lie_as_worker(self.scene, step)

    async def lie(self, step: Step) -> None:
        """A client beside the plan's claims positions that were never given out."""
        await lie(self.scene, step)

    async def signal_again(self, _: Step) -> None:
        """One more SIGTERM to a node that drains."""
        for node in self.scene.alive():
            if node.signalled_at is not None and node.node is not None:
                self.scene.reached("double SIGTERM")
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

    async def store_full(self, step: Step) -> None:
        """The store has no room: it answers questions, and takes nothing."""
        self.scene.trouble.full = True
        self.scene.trace("store", "is full")
        await trio.sleep(step.seconds)
        self.scene.trouble.full = False

    async def answers_lost(self, step: Step) -> None:
        """The store carries out operations, and its answers are lost."""
        self.scene.world.outage = "answers lost"
        await trio.sleep(step.seconds)
        self.scene.world.outage = ""

    async def partition(self, step: Step) -> None:
        """One node does not reach the store."""
        alive = self.scene.alive()
        if alive:
            node = self._random.choice(alive)
            self.scene.trouble.cut_off.add(node.name)
            self.scene.trouble.ever_cut_off.add(node.name)
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
        self.scene.check.token_once.store_lost()
        self.scene.world.lose_everything()

    async def crowd(self, step: Step) -> None:
        """So many sessions wait for what no worker offers, before all others; some of them want a thing of their own."""
        world = self.scene.world
        until = world.now_ms() + int(step.seconds * 1000)
        self.scene.reached("crowd in the waiting line")
        wants = [
            {"lang": "none"} if number % 2 else {"lang": "none", "of": str(number)} for number in range(step.number)
        ]
        world.put([Enqueue(f"s_crowd{number}", want, number, until) for number, want in enumerate(wants)])

    async def restart_client(self, step: Step) -> None:
        """A client's process dies and another goes on."""
        client = self.scene.clients[step.number % len(self.scene.clients)]
        if client.client is not None and not client.byed:
            client.restart(step.seconds)

    async def crash_worker(self, step: Step) -> None:
        """A worker's process dies; another one starts."""
        self.scene.workers[step.number % len(self.scene.workers)].crash(step.seconds)

    async def leave_worker(self, step: Step) -> None:
        """A worker is redeployed, and waits for its sessions to end."""
        self.scene.workers[step.number % len(self.scene.workers)].crash(step.seconds, leaves=True)

    async def deploy_worker(self, step: Step) -> None:
        """A worker is redeployed, and hands its sessions to others."""
        self.scene.workers[step.number % len(self.scene.workers)].crash(step.seconds, leaves=True, hands_over=True)


async def _signal_later(gate: Gate, node: SimNode) -> None:
    await gate.wait()
    node.signal()
