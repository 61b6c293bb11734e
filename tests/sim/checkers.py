"""The invariants of the design, one class each, fed by what the applications saw and what the store holds.

Safety is checked with every event; what must be true in the end is asked by the scene when everything has settled.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from signald.store.base import Append, Appended, Claimed, ClaimWorkerSide, Op, Result, SessionOp

if TYPE_CHECKING:
    from tests.sim.nodes import SimNode
    from tests.sim.parties import ClientParty, Handling, WorkerParty
    from tests.sim.scene import Scene

Ranges = Sequence[tuple[int, int]]


def bridged(low: int, high: int, lost: Ranges) -> bool:
    """Tell whether each of `low..high` lies in one of the ranges that were said to be lost."""
    return all(any(first <= seq <= last for first, last in lost) for seq in range(low, high + 1))


class Checker:
    """One invariant."""

    name: ClassVar[str]

    def __init__(self, scene: "Scene") -> None:
        self.scene = scene

    def broken(self, text: str) -> None:
        """Report a broken promise; the run ends."""
        self.scene.violate(self.name, text)


class ExactlyOnce(Checker):
    """Every acked message reaches the application of the receiver once, in order, in both directions."""

    name = "exactly-once"

    def __init__(self, scene: "Scene") -> None:
        super().__init__(scene)
        self.stored: dict[tuple[str, str], dict[int, bytes]] = {}
        self.first_for: dict[tuple[str, str], int] = {}
        """(session, worker) → the seq a newly assigned worker is to begin with."""
        self._lives: dict[str, int] = {}

    def applied(self, op: Op, result: Result) -> None:
        if isinstance(op, Append) and isinstance(result, Appended):
            log = self.stored.setdefault((op.session, op.party), {})
            for entry in op.entries:
                if entry.seq > result.last:
                    continue
                before = log.setdefault(entry.seq, entry.body)
                if before != entry.body:
                    self.broken(f"{op.session} {op.party}: seq {entry.seq} was {before!r} and is now {entry.body!r}")
        elif isinstance(op, ClaimWorkerSide) and op.assign and isinstance(result, Claimed):
            self.first_for[op.session, op.worker] = result.head.up_acked + 1

    def client_said(self, client: "ClientParty", number: int, seq: int) -> None:
        if number != seq:
            self.broken(f"{client.name}: message {number} got seq {seq}")

    def client_heard(self, client: "ClientParty") -> None:
        seq, what = client.heard[-1]
        if len(client.heard) == 1:
            self._lives[client.name] = client.lives
            if seq != 1 and not bridged(1, seq - 1, client.lost):
                self.broken(f"{client.name} hears {seq} first")
            return
        before, what_before = client.heard[-2]
        new_life = self._lives[client.name] != client.lives
        self._lives[client.name] = client.lives
        if new_life and seq == before and what == what_before:
            client.heard.pop()  # its process died over this one
            return
        if seq != before + 1 and not (seq > before and bridged(before + 1, seq - 1, client.lost)):
            self.broken(f"{client.name} hears {seq} after {before}")
        if what["h"] == what_before["h"]:
            if what["k"] - what_before["k"] != seq - before:
                self.broken(f"{client.name} hears {what} after {what_before}")
        elif what["k"] != 1 and seq == before + 1:
            self.broken(f"{client.name} hears {what} first of another handler, after {what_before}")
        elif any(earlier["h"] == what["h"] for _, earlier in client.heard[:-1]):
            self.broken(f"{client.name} hears {what} of a handler that another has followed")

    def worker_got(self, handling: "Handling", number: int, seq: int) -> None:
        who = f"h{handling.number} of {handling.session}"
        if number != seq:
            self.broken(f"{who} gets message {number} as {seq}")
        if len(handling.got) > 1:
            before = handling.got[-2]
            if seq != before + 1 and not (seq > before and bridged(before + 1, seq - 1, handling.lost)):
                self.broken(f"{who} gets {seq} after {before}")
            return
        first = self.first_for.get((handling.session, handling.worker))
        if first is not None and seq != first and not self.scene.plan.store_may_lose:
            self.broken(f"{who} gets {seq} first, and not {first}")

    def at_end(self) -> None:
        """All that was acked was heard."""
        if self.scene.plan.store_may_lose:
            return
        for handling in self.scene.handlings:
            client = self.scene.sessions.get(handling.session)
            if client is None or client.gone is not None:
                continue
            heard = dict(client.heard)
            for seq, count in handling.said.items():
                if seq <= handling.core.accepted and heard.get(seq) != {
                    "h": handling.number,
                    "k": count,
                    "of": heard.get(seq, {}).get("of", 0),
                }:
                    self.broken(
                        f"{client.name} never heard {seq} of h{handling.number}, acked up to {handling.core.accepted}"
                    )
        for client in self.scene.clients:
            if client.gone is None and client.said:
                got = {number for one in self.scene.handlings if one.session == client.session for number in one.got}
                missing = sorted(set(range(1, client.said + 1)) - got)
                if missing:
                    self.broken(f"nobody got {missing} of {client.name}")


class SingleOwner(Checker):
    """At most one attachment per party is live at any epoch, and epochs only grow."""

    name = "single-owner"

    def __init__(self, scene: "Scene") -> None:
        super().__init__(scene)
        self._epochs: dict[str, tuple[int, int]] = {}

    def applied(self, op: Op) -> None:
        if not isinstance(op, SessionOp):
            return
        record = self.scene.world.rows.session(op.session)
        if record is None:
            self._epochs.pop(op.session, None)
            return
        now = record.client.epoch, record.worker_side.epoch
        before = self._epochs.get(op.session, (0, 0))
        self._epochs[op.session] = now
        if (now[0] < before[0] or now[1] < before[1]) and not self.scene.plan.store_may_lose:
            self.broken(f"{op.session}: epochs went from {before} to {now}")
        for party, epoch in (("client", now[0]), ("worker", now[1])):
            holders = []
            for node in self.scene.alive():
                session = node.node.hub.sessions.get(op.session) if node.node is not None else None
                if session is None:
                    continue
                side = session.client if party == "client" else session.worker
                if side.link is not None and not side.link.over and side.epoch == epoch:
                    holders.append(node.name)
            if len(holders) > 1:
                self.broken(f"{op.session}: {holders} hold the {party} under epoch {epoch}")


class WorkerFirst(Checker):
    """No client is told to go before its worker has claimed the session on a successor, or been given up."""

    name = "worker-first"

    def told_to_go(self, client: "ClientParty", node: "SimNode") -> None:
        record = self.scene.world.rows.session(client.session)
        if record is None or not record.worker:
            return
        if record.worker_side.node == node.name and not self.scene.plan.store_may_lose:
            self.broken(f"{client.name} is told to go while {record.worker} is at {node.name}, which says so")


class Bounded(Checker):
    """From SIGTERM to the exit within the configured time, whatever anybody else does."""

    name = "bounded"

    def exited(self, node: "SimNode", now: float) -> None:
        if node.signalled_at is not None:
            took = now - node.signalled_at
            if took > node.config.drain.stop_timeout_s:
                self.broken(f"{node.name} took {took:.1f} s of {node.config.drain.stop_timeout_s} s to exit")


class OneHop(Checker):
    """In one planned rollout a party reconnects at most once, and nobody is cut off."""

    name = "one-hop"

    def at_end(self) -> None:
        if not self.scene.plan.planned_only:
            return
        rollouts = len(self.scene.plan.steps)
        counts = {one.name: one.connections_now for one in self.scene.clients}
        counts |= {one.name: one.connections_now for one in self.scene.workers}
        for name, count in counts.items():
            if count > 1 + rollouts:
                self.broken(f"{name} opened {count} connections in {rollouts} rollouts")


class Sticky(Checker):
    """The same worker after a handover, unless it was given up; then the client is told."""

    name = "sticky"

    def at_end(self) -> None:
        for client in self.scene.clients:
            if client.gone is not None or not client.session:
                continue
            handlings = [one for one in self.scene.handlings if one.session == client.session]
            if self.scene.plan.planned_only and len(handlings) != 1:
                self.broken(f"{client.name} had {len(handlings)} handlers in planned rollouts")
            told = client.client.worker if client.client is not None else None
            if handlings and told != handlings[-1].worker:
                self.broken(f"{client.name} was told of worker {told}, and has {handlings[-1].worker}")


class NoGhost(Checker):
    """After a session ends or expires, nothing of it is left."""

    name = "no-ghost"

    def left(self) -> list[str]:
        """What is still there."""
        rows = self.scene.world.rows
        left = [f"session {name}" for name in rows._sessions]
        left += [f"place {name} of {place.worker!r}" for name, place in rows._places.items()]
        left += [f"life {name}" for name in rows._lives]
        left += [f"worker {name}" for name in rows._workers]
        left += [f"entries {name}" for name in rows._entries]
        left += [f"history {name}" for name in rows._history]
        for node in self.scene.alive():
            if node.node is not None:
                left += [f"session {name} in {node.name}" for name in node.node.hub.sessions]
        return left


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


class Told(Checker):
    """Nobody's session is over but by a bye, and nobody is refused."""

    name = "nobody-lost"

    def client_over(self, client: "ClientParty") -> None:
        if client.byed:
            self.scene.reached("client said bye amid troubles")
        elif self.scene.plan.store_may_lose:
            self.scene.reached("session lost with the store")
        else:
            self.broken(f"{client.name}: {client.gone}")

    def worker_gone(self, worker: "WorkerParty", why: str) -> None:
        if not self.scene.plan.store_may_lose:
            self.broken(f"{worker.name}: {why}")


class Checkers:
    """All of them."""

    def __init__(self, scene: "Scene") -> None:
        self.exactly_once = ExactlyOnce(scene)
        self.single_owner = SingleOwner(scene)
        self.worker_first = WorkerFirst(scene)
        self.bounded = Bounded(scene)
        self.one_hop = OneHop(scene)
        self.sticky = Sticky(scene)
        self.no_ghost = NoGhost(scene)
        self.no_orphan_task = NoOrphanTask(scene)
        self.told = Told(scene)
        self.client_said = self.exactly_once.client_said
        self.client_heard = self.exactly_once.client_heard
        self.worker_got = self.exactly_once.worker_got
        self.client_over = self.told.client_over
        self.worker_gone = self.told.worker_gone

    def applied(self, ops: Sequence[Op], results: Sequence[Result]) -> None:
        """The store has carried out a batch."""
        for op, result in zip(ops, results, strict=True):
            self.exactly_once.applied(op, result)
        for op in ops:
            self.single_owner.applied(op)

    def settled(self) -> None:
        """Everybody has caught up."""
        self.exactly_once.at_end()
        self.sticky.at_end()
        self.one_hop.at_end()
