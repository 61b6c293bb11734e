"""The invariants of what nodes do: how long, how fast, how much, and in whose ears."""

import re
from collections import deque
from typing import TYPE_CHECKING, Any

import trio

from signald.core.head import Party
from signald.testing.network import Wire
from tests.sim.checkers import Checker
from tests.sim.net import SmallWindow
from tests.sim.parties import CANARY

if TYPE_CHECKING:
    from tests.sim.nodes import SimNode
    from tests.sim.scene import Scene

TOKEN = re.compile(r"[sw]_\w+\.[A-Za-z0-9_-]{43}")
"""What a recovery token looks like."""

PACE_WINDOW_S = 3.0


class Bounded(Checker):
    """From SIGTERM to the exit within the configured time, whatever any party does."""

    name = "bounded"

    def exited(self, node: "SimNode", now: float) -> None:
        if node.signalled_at is not None:
            stood_s = self.scene.network.gate(node.name).stood_s - node.stood_s
            took = now - node.signalled_at - stood_s
            if took > node.config.drain.stop_timeout_s:
                self.broken(f"{node.name} took {took:.1f} s of {node.config.drain.stop_timeout_s} s to exit")


class NoOrphanTask(Checker):
    """When a node returns, nothing of it runs on."""

    name = "no-orphan-task"

    def exited(self, node: "SimNode") -> None:
        if node.node is None:
            return
        hub = node.node.hub
        left = [repr(one) for one in (*hub.links, *hub.connections.values(), *hub.worker_links.values())]
        if left:
            self.broken(f"{node.name} returned with {left}")


class BoundedMemory(Checker):
    """No queue and no tail of a log grows beyond what is configured."""

    name = "bounded-memory"

    QUEUE_OPS_MAX = 2000
    """A few for each of at most fifty sessions, far below what an unbounded queue would come to."""

    def poll(self) -> None:
        """Look at all nodes."""
        for node in self.scene.alive():
            if node.node is not None:
                self._look_at(node, node.node.hub)

    def _look_at(self, node: "SimNode", hub: Any) -> None:
        limits = node.config.limits
        for conn in hub.connections.values():
            most = 2 * limits.send_queue_bytes_max + limits.message_bytes_max
            if conn.queued_bytes > most or conn.queued_messages > 2 * limits.send_queue_messages_max + 1:
                self.broken(
                    f"{node.name}: {conn!r} has {conn.queued_bytes} bytes, {conn.queued_messages} messages to write"
                )
        for session in hub.sessions.values():
            for log in (session.up, session.down):
                if len(log.pending) > limits.backlog_messages_max or log.bytes_held > 2 * limits.backlog_bytes_max:
                    self.broken(f"{node.name}: {session.id} holds {len(log.pending)} pending, {log.bytes_held} bytes")
        waiting = hub.committer.waiting
        if waiting > self.QUEUE_OPS_MAX:
            self.broken(f"{node.name}: {waiting} operations wait for the store")


class Paced(Checker):
    """The parties of a cluster are not told to go faster than its configured pace: clients and workers, each kind by itself."""

    name = "paced"

    def __init__(self, scene: "Scene") -> None:
        super().__init__(scene)
        self._told: dict[Party, deque[tuple[float, int]]] = {"client": deque(), "worker": deque()}
        self._off = not scene.plan.store_is_well or any(isinstance(one, SmallWindow) for one in scene.plan.net)
        """Without the store each node keeps a pace of its own; behind a full socket what was told waits for its turn."""

    def told_to_go(self, node: "SimNode", party: Party, cost: int) -> None:
        now = trio.current_time()
        told = self._told[party]
        told.append((now, cost))
        while told[0][0] < now - PACE_WINDOW_S:
            told.popleft()
        most = node.config.pace.sessions_per_s * PACE_WINDOW_S + max(one for _, one in told) + 1
        if sum(one for _, one in told) > most and not self._off:
            self.broken(
                f"{node.name}: in {PACE_WINDOW_S} s {party}s of {sum(one for _, one in told)} sessions were told to go"
            )


class Goodbye(Checker):
    """A node that was told to stop closes every connection with a code.

    Except for a party that had yet to read earlier frames when the time for the closing handshakes was over, or
    a fourth signal came, which cuts them short (docs/operations.md): what stands behind a full socket cannot be said.
    """

    name = "bounded"

    def closed(self, wire: Wire, code: int | None) -> None:
        if code is not None or wire.hurt or self.scene.transport == "messages":
            return  # without bytes, a writer to a connection that has just been closed gets its error first
        node = next(one for one in self.scene.nodes if one.name == wire.node)
        if node.signalled_at is None or node.killed or self.scene.network.gate(node.name).stood_s:
            return
        if min(node.cut_at, node.closed_by) <= wire.node_end.cut_at < float("inf"):
            return
        self.broken(f"{wire.name}: {node.name} was told to stop, and ended it without a close")


class NoSecret(Checker):
    """No secret stands where it is kept or shown: in a log, in the text of an error, in the store."""

    name = "no-secret"

    def text(self, where: str, text: str) -> None:
        if CANARY in text or TOKEN.search(text):
            self.broken(f"a secret in {where}: {text[:400]}")

    def at_end(self) -> None:
        rows = self.scene.world.rows
        for name, held in vars(rows).items():
            self.text(f"the store, {name}", repr(held))
