"""The invariants of the design that applications can see, one class each.

Safety is checked with every event; what must be true in the end is asked by the scene when everything has settled. What
the store shows is judged in `store_checkers`, what nodes do in `node_checkers`; `checks` feeds them all.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from signald.dialects.v1.client import ClientLink
from signald.store.base import Op, Result
from signald.store.session.ops import (
    Append,
    Appended,
    Claimed,
    ClaimWorkerSide,
    Ended,
    EndSession,
    ExpireSession,
    StreamRefused,
    Unpair,
)

if TYPE_CHECKING:
    from tests.sim.nodes import SimNode
    from tests.sim.parties import ClientParty, Handling, WorkerParty
    from tests.sim.scene import Scene

Ranges = Sequence[tuple[int, int]]

_ARRIVED = re.compile(rb'\A(t"seq":[0-9]+),"at_ms":[0-9]{13}')
"""The time in a stored message is when a node took it. A message that is sent again was taken at another time by another node; the
store keeps the first."""


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
        self._unwitnessed: dict[str, set[int]] = {}
        """Session → seqs of its worker that were given again after a failover, while no node had the client of the session."""
        self._refused: set[tuple[str, str, int, bytes]] = set()
        """Pieces that were refused: their seqs are said again with other bodies, and a late copy of such an append changes nothing."""

    def applied(self, op: Op, result: Result) -> None:
        if isinstance(op, Append) and isinstance(result, Appended | StreamRefused):
            log = self.stored.setdefault((op.session, op.party), {})
            for entry in op.entries:
                body = _ARRIVED.sub(rb"\1", entry.body)
                if entry.seq > result.last:
                    if isinstance(result, StreamRefused) and entry.seq == result.last + 1:
                        self._refused.add((op.session, op.party, entry.seq, body))
                    continue
                before = log.setdefault(entry.seq, body)
                if before == body or (op.session, op.party, entry.seq, body) in self._refused:
                    continue
                if self.scene.plan.store_may_lose:
                    # A worker that did not know better. It has to be told: what it says is not heard under these numbers.
                    self.scene.reached("seq given again after a failover")
                    if op.party == "worker" and not self._attached(op.session):
                        self._unwitnessed.setdefault(op.session, set()).add(entry.seq)
                    log[entry.seq] = body
                else:
                    self.broken(f"{op.session} {op.party}: seq {entry.seq} was {before!r} and is now {body!r}")
        elif isinstance(op, ClaimWorkerSide) and op.assign and isinstance(result, Claimed):
            self.first_for[op.session, op.worker] = result.head.up_acked + 1

    def _attached(self, session: str) -> bool:
        held = (node.node.hub.sessions.get(session) for node in self.scene.nodes if node.node is not None)
        return any(one is not None and one.client.is_here for one in held)

    def client_said(self, client: "ClientParty", number: int, seq: int) -> None:
        if number != seq:
            self.broken(f"{client.name}: message {number} got seq {seq}")

    def client_heard(self, client: "ClientParty") -> None:
        if client.session in self.scene.stolen:
            return  # what a thief has acked, it does not hear
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
        elif what["k"] != 1 and bridged(before, before, client.lost):
            # The client was told that the store had lost what it heard under this number: the next worker began before that was known.
            self.scene.reached("first message under a number that was told to be lost")
        elif what["k"] != 1 and seq == before + 1 and before not in self._unwitnessed.get(client.session or "", ()):
            # (The client's claim says a number, and no node is left that knows whose message that was: decision 20.)
            if client.session not in self.scene.brought_back:
                self.broken(f"{client.name} hears {what} first of another handler, after {what_before}")
            # Parties that knew how far it had come were told that it was over, and may have discarded it.
            self.scene.reached("session that was over brought back by a failover")
        elif any(earlier["h"] == what["h"] for _, earlier in client.heard[:-1]):
            self.broken(f"{client.name} hears {what} of a handler that another has followed")

    def worker_got(self, handling: "Handling", number: int, seq: int) -> None:
        if handling.session in self.scene.stolen:
            return
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
            if client is None or client.gone is not None or client.session in self.scene.stolen:
                continue
            heard = dict(client.heard)
            for seq, count in handling.said.items():
                what = heard.get(seq, {})
                if seq <= handling.core.accepted and (what.get("h"), what.get("k")) != (handling.number, count):
                    self.broken(
                        f"{client.name} never heard {seq} of h{handling.number}, acked up to {handling.core.accepted}"
                    )
        for client in self.scene.clients:
            if client.gone is None and client.said and client.session not in self.scene.stolen:
                got = {number for one in self.scene.handlings if one.session == client.session for number in one.got}
                missing = sorted(set(range(1, client.said + 1)) - got)
                if missing:
                    self.broken(f"nobody got {missing} of {client.name}")


class WorkerFirst(Checker):
    """No client is told to go before its worker has claimed the session on a successor, or been given up."""

    name = "worker-first"

    def __init__(self, scene: "Scene") -> None:
        super().__init__(scene)
        self._here: dict[str, tuple[str, str, float]] = {}
        """Session → its worker, where that is, and when, before the worker came, the client there had been told to go; 0: had not."""

    def applied(self, op: Op, result: Result) -> None:
        if isinstance(op, ClaimWorkerSide) and isinstance(result, Claimed):
            worker, node, _ = self._here.get(op.session, ("", "", 0.0))
            if (worker, node) != (op.worker, op.node):
                at = next(one for one in self.scene.nodes if one.name == op.node)
                # Asked now, not told by the times: all of it may be in one moment of virtual time.
                self._here[op.session] = op.worker, op.node, self._told_at(op.session, at)
        elif isinstance(op, Unpair):
            record = self.scene.world.rows.session(op.session)
            if record is None or not record.worker:
                self._here.pop(op.session, None)

    def told_to_go(self, client: "ClientParty", node: "SimNode") -> None:
        record = self.scene.world.rows.session(client.session)
        if record is None or record.worker_side.node != node.name or self.scene.plan.store_may_lose:
            return
        if record.worker and not self._was_said_before(client.session, node):
            self.broken(f"{client.name} is told to go while {record.worker} is at {node.name}, which says so")

    def _was_said_before(self, session: str, node: "SimNode") -> bool:
        """Tell whether the goaway was said before the worker came, and has waited behind other messages to be written.

        What is said cannot be taken back. A client that goes though a worker came meanwhile finds that worker across nodes.
        """
        told_at = self._told_at(session, node)
        return told_at != 0.0 and self._here.get(session, ("", "", 0.0))[2] == told_at

    @staticmethod
    def _told_at(session: str, node: "SimNode") -> float:
        held = node.node.hub.sessions.get(session) if node.node is not None else None
        link = held.client.link if held is not None else None
        return link.told_at if isinstance(link, ClientLink) else 0.0


class OneHop(Checker):
    """In one planned rollout a party reconnects at most once, and no connection is cut."""

    name = "one-hop"

    def at_end(self) -> None:
        if not self.scene.plan.planned_only:
            return
        rollouts = len(self.scene.plan.steps)
        counts = {one.name: one.connections_now - one.turned_away for one in self.scene.clients}
        counts |= {one.name: one.connections_now for one in self.scene.workers}
        for name, count in counts.items():
            if count > 1 + rollouts:
                self.broken(f"{name} opened {count} connections in {rollouts} rollouts")


class Sticky(Checker):
    """The same worker after a handover, unless it was given up; then the client is told."""

    name = "sticky"

    def at_end(self) -> None:
        for client in self.scene.clients:
            if client.gone is not None or not client.session or client.session in self.scene.stolen:
                continue
            handlings = [one for one in self.scene.handlings if one.session == client.session]
            if self.scene.plan.planned_only and len(handlings) != 1:
                self.broken(f"{client.name} had {len(handlings)} handlers in planned rollouts")
            told = client.client.worker if client.client is not None else None
            living = [one for one in handlings if not one.over]  # an assignment read late begins and ends at once
            if living and told != living[-1].worker:
                self.broken(f"{client.name} was told of worker {told}, and has {living[-1].worker}")


class Told(Checker):
    """No session is over without a bye, and no party is refused."""

    name = "nobody-lost"

    def __init__(self, scene: "Scene") -> None:
        super().__init__(scene)
        self._ended: set[str] = set()
        """Sessions that were ended in the store."""

    def applied(self, op: Op, result: Result) -> None:
        if isinstance(op, EndSession | ExpireSession) and isinstance(result, Ended):
            self._ended.add(op.session)

    def found_over(self, session: str) -> None:
        """A node that holds a party of `session` takes it for a session that was ended.

        What a store has lost with everything is given back instead. But what a replica has never heard of looks as if it had
        been ended there.
        """
        if session not in self._ended | self.scene.never_copied:
            self.broken(f"{session} counts as ended, and nobody has ended it")

    def client_over(self, client: "ClientParty") -> None:
        if client.byed:
            self.scene.reached("client said bye amid troubles")
        elif client.session in self.scene.stolen:
            self.scene.reached("session over after a theft")
        elif self.scene.plan.clock_steps:
            self.scene.reached("session over by a clock that jumped")
        elif self.scene.plan.store_may_lose:
            self.scene.reached("session lost with the store")
        else:
            self.broken(f"{client.name}: {client.gone}")

    def worker_gone(self, worker: "WorkerParty", why: str) -> None:
        if not self.scene.plan.store_may_lose and not self.scene.plan.clock_steps:
            self.broken(f"{worker.name}: {why}")


class Liveness(Checker):
    """When the faults are over, all parties catch up within a bound, and without reconnecting for ever."""

    name = "liveness"

    RECONNECTS_MAX = 10

    def __init__(self, scene: "Scene") -> None:
        super().__init__(scene)
        self._before: dict[str, int] = {}

    def healed(self) -> None:
        """The faults are over: count from here."""
        self._before = dict(self.scene.network.opened)

    def at_end(self) -> None:
        for name, count in self.scene.network.opened.items():
            more = count - self._before.get(name, 0)
            if more > self.RECONNECTS_MAX and name not in self.scene.over_http:
                self.broken(f"{name} has connected {more} times since the faults were over")
