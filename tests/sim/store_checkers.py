"""The invariants that the store's operations and their results show, one class each: checked with every batch."""

from typing import TYPE_CHECKING

import attrs
import trio

from signald.core.head import Head
from signald.store.base import Fenced, Op, Refused, Result, SessionOp
from signald.store.registry.ops import ClaimWorker, ConfirmWorkerToken, NodeInfo, PutNode, RegisterWorker, WorkerClaimed
from signald.store.session.ops import (
    Append,
    ClaimClient,
    Claimed,
    ClaimWorkerSide,
    ConfirmToken,
    CreateSession,
    Ended,
    EndSession,
    ExpireSession,
    Full,
    Look,
    Looked,
    Reseed,
)
from tests.sim.checkers import Checker
from tests.sim.stores import SlowStore

if TYPE_CHECKING:
    from tests.sim.scene import Scene

TWICE_S = 10.0
"""How long a party may be at two nodes under one epoch once a store has lost a claim and granted it again: by then the node
that has lost the party has looked, and has been told."""


class SingleOwner(Checker):
    """At most one attachment per party is live at any epoch, and epochs only grow."""

    name = "single-owner"

    def __init__(self, scene: "Scene") -> None:
        super().__init__(scene)
        self._epochs: dict[str, tuple[int, int]] = {}
        self._twice: dict[tuple[str, str, int], float] = {}
        """(session, party, epoch) → since when two nodes hold it, by a store that had lost the first claim."""

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
            if len(holders) < 2:
                self._twice.pop((op.session, party, epoch), None)
                continue
            since = self._twice.setdefault((op.session, party, epoch), trio.current_time())
            if not self.scene.plan.store_may_lose or trio.current_time() - since > TWICE_S:
                self.broken(f"{op.session}: {holders} hold the {party} under epoch {epoch}")
            self.scene.reached("party at two nodes by a store that had lost a claim")


class EpochsOnce(Checker):
    """No two claims of a party are ever granted the same epoch."""

    name = "single-owner"

    def __init__(self, scene: "Scene") -> None:
        super().__init__(scene)
        self._granted: dict[tuple[str, str, int], str] = {}

    def applied(self, op: Op, result: Result) -> None:
        if isinstance(op, ClaimClient | ClaimWorkerSide) and isinstance(result, Claimed):
            self._granted_to(op.session, "client" if isinstance(op, ClaimClient) else "worker", result.epoch, op.nonce)
        elif isinstance(op, ClaimWorker) and isinstance(result, WorkerClaimed):
            self._granted_to(op.worker, "worker", result.epoch, op.nonce)

    def _granted_to(self, owner: str, party: str, epoch: int, nonce: str) -> None:
        before = self._granted.setdefault((owner, party, epoch), nonce)
        if before != nonce:
            self._granted[owner, party, epoch] = nonce
            if not self.scene.plan.store_may_lose:
                self.broken(f"{owner}: epoch {epoch} of the {party} was granted twice")
            self.scene.reached("epoch granted again by a store that had lost it")


class Positions(Checker):
    """What is stored and what is acked never goes back, and nothing is acked that was not stored."""

    name = "exactly-once"

    def __init__(self, scene: "Scene") -> None:
        super().__init__(scene)
        self._before: dict[str, tuple[int, int, int, int]] = {}
        self._claims: set[str] = set()

    def claimed(self, op: Op, result: Result) -> None:
        """A worker's word raises nothing of what its client has said."""
        if isinstance(op, ClaimWorkerSide) and isinstance(result, Claimed) and result.lost_up is not None:
            if op.nonce not in self._claims and result.head.up_last >= result.lost_up[0]:
                self.scene.violate("nobody-hurts", f"{op.session}: a worker's word of {op.received} has swallowed seqs")
            self._claims.add(op.nonce)

    def applied(self, op: Op) -> None:
        if not isinstance(op, SessionOp):
            return
        record = self.scene.world.rows.session(op.session)
        if record is None:
            self._before.pop(op.session, None)
            return
        now = record.up.last, record.up.acked, record.down.last, record.down.acked
        before = self._before.get(op.session)
        if now == before:
            return
        self._before[op.session] = now
        if now[1] > now[0] or now[3] > now[2]:
            self.broken(f"{op.session}: more is acked than stored: {now}")
        if before is not None and any(new < old for new, old in zip(now, before, strict=True)):
            if self.scene.plan.store_may_lose:
                self.scene.reached("log went back with the store")
            else:
                self.broken(f"{op.session}: stored and acked went from {before} to {now}")


class TokenOnce(Checker):
    """A token that was superseded and left behind, or revoked, resumes nothing."""

    name = "token-once"

    def __init__(self, scene: "Scene") -> None:
        super().__init__(scene)
        self._valid: dict[str, set[bytes]] = {}
        """Session or worker → the tokens that may resume it: the newest, and the one before until the newest was shown."""
        self._newest: dict[str, tuple[int, bytes]] = {}
        self._nonces: set[str] = set()
        self._attempts: dict[str, int] = {}
        """Session or worker → the party's count of its last claim that was granted."""
        self._given_back: dict[str, tuple[bytes, ...]] = {}
        """Session → the tokens of its client that the node that holds it has given back, until the next claim or loss."""

    def store_lost(self) -> None:
        """The store comes back with less than it had."""
        self._given_back.clear()

    def applied(self, op: Op, result: Result) -> None:
        match op, result:
            case (CreateSession(), Head()):
                self._issued(op.session, op.nonce, 1, op.token)
            case (RegisterWorker(), WorkerClaimed()):
                self._issued(op.worker, op.nonce, 1, op.token)
            case (ClaimClient(), Claimed()):
                self._claimed(op.session, op, result.epoch)
            case (ClaimWorker(), WorkerClaimed()):
                self._claimed(op.worker, op, result.epoch)
            case (ClaimClient() | ClaimWorker(), Refused(reason="token_reuse")):
                owner = op.session if isinstance(op, ClaimClient) else op.worker
                self._valid[owner] = set()
                if isinstance(op, ClaimClient) and 0 < op.attempt < self._attempts.get(owner, 0):
                    # It came behind the confirmation of the one after it: taken for theft, by docs/decisions/0019.
                    self.scene.stolen.add(owner)
                    self.scene.reached("claim behind the confirmation of the next one")
                self.scene.reached("token reuse detected")
            case (Reseed(), Head()) if op.client_tokens and result.client_node == op.node:
                self._given_back[op.session] = op.client_tokens
            case (EndSession() | ExpireSession(), Ended()):
                self._given_back.pop(op.session, None)
            case (ClaimClient(), Refused(reason="unknown")):
                if op.presented in self._given_back.get(op.session, ()):
                    self.broken(f"{op.session}: the store does not know a token that was given back to it")
            case (ConfirmToken(), _):
                self._confirmed(op.session, op.epoch)
            case (ConfirmWorkerToken(), _):
                self._confirmed(op.worker, op.epoch)

    def _issued(self, owner: str, nonce: str, epoch: int, token: bytes) -> None:
        if nonce not in self._nonces:
            self._nonces.add(nonce)
            self._valid[owner] = {token}
            self._newest[owner] = epoch, token

    def _claimed(self, owner: str, op: ClaimClient | ClaimWorker, epoch: int) -> None:
        self._given_back.pop(owner, None)
        if op.nonce in self._nonces:
            return
        valid = self._valid.get(owner, set())
        if op.presented not in valid and not self.scene.plan.store_may_lose:
            self.broken(f"{owner} was resumed with a token that had been left behind")
        self._nonces.add(op.nonce)
        self._attempts[owner] = op.attempt
        self._valid[owner] = {op.presented, op.issued}
        self._newest[owner] = epoch, op.issued

    def _confirmed(self, owner: str, epoch: int) -> None:
        newest = self._newest.get(owner)
        if newest is not None and newest[0] == epoch and self._valid.get(owner):
            self._valid[owner] = {newest[1]}


@attrs.frozen
class Renewal:
    """A node's lease was renewed."""

    renewed_ms: int
    """By the store's clock, as the node read it when it asked."""
    asked_at: float
    applied_at: float


class Expiry(Checker):
    """No session expires while its client is attached to a node that lives.

    A node that has stood still, or was cut off from the store, for so long that its lease has ended counts as dead until it
    has renewed it, and its sessions as left alone: they have their time to live from then on. That time ends at once when
    the store's clock is set forward by more. So it is where the store is so slow that it carries out a renewal when the
    lease has ended: a lease lasts from when its renewal was asked for.
    """

    name = "nobody-lost"

    def __init__(self, scene: "Scene") -> None:
        super().__init__(scene)
        self._renewals: dict[str, tuple[Renewal, Renewal]] = {}
        """Node → the last one, and the one before that."""

    def applied(self, op: Op, result: Result) -> None:
        if isinstance(op, PutNode):
            self._renewed(op.info)
        if not isinstance(op, ExpireSession) or not isinstance(result, Ended) or self.scene.plan.store_may_lose:
            return
        at = result.head.client_node
        for node in self.scene.alive():
            if node.name == at and node.node is not None:
                session = node.node.hub.sessions.get(op.session)
                if session is None or session.client.link is None:
                    continue
                if at not in op.nodes and self._counts_as_dead(at, node.config.node.lease_ttl_s):
                    self.scene.reached("session of a node whose lease had ended over by a clock that jumped")
                else:
                    self.broken(f"{op.session} has expired with its client at {at}")

    def _renewed(self, info: NodeInfo) -> None:
        """Note when, by the time of the run, a renewal was asked for that the store has carried out now."""
        now = trio.current_time()
        for node in self.scene.alive():
            if node.name == info.id and node.node is not None:
                at = now - (node.node.hub.store.now_ms() - info.renewed_ms) / 1000
                # When the clock was set meanwhile, it does not tell when that was.
                asked_at = at if self.scene.trouble.clock_set_at <= at <= now else now
                new = Renewal(info.renewed_ms, asked_at, now)
                last, _ = self._renewals.get(info.id, (new, new))
                if last is new or new.renewed_ms != last.renewed_ms:  # one that is asked again renews nothing
                    self._renewals[info.id] = new, last

    def _counts_as_dead(self, node: str, lease_ttl_s: float) -> bool:
        trouble = self.scene.trouble
        slow = any(isinstance(one, SlowStore) for one in trouble.faults)
        hindered = slow or self.scene.network.gate(node).stood_s or node in trouble.ever_cut_off
        if not hindered or not self.scene.plan.clock_steps or node not in self._renewals:
            return False
        now = trio.current_time()
        last, before = self._renewals[node]
        # The others see that it is back when they read the nodes again.
        back = last.applied_at - before.asked_at >= lease_ttl_s and now - last.applied_at < lease_ttl_s / 3
        return now - last.asked_at >= lease_ttl_s or back


class NoGhost(Checker):
    """After a session ends or expires, nothing of it is left."""

    name = "no-ghost"

    def left(self) -> list[str]:
        """What is still there."""
        rows = self.scene.world.rows
        left = [f"session {name}" for name in rows._sessions]
        left += [f"place {name} of {place.worker!r}" for name, place in rows._places.items()]
        left += [f"line {name}" for name in (*rows._lines, *rows._wanted)]
        left += [f"life {name}" for name in rows._lives]
        left += [f"worker {name}" for name in rows._workers]
        left += [f"entries {name}" for name in rows._entries]
        left += [f"history {name}" for name in rows._history if name not in rows._pasts]  # kept for its time
        left += self.scene.world.left()
        for node in self.scene.alive():
            if node.node is not None:
                left += [f"session {name} in {node.name}" for name in node.node.hub.sessions]
        return left


class Rare(Checker):
    """Not a promise: which seldom things the store was asked."""

    name = "rare"

    def applied(self, op: Op, result: Result) -> None:
        if isinstance(result, Fenced) and isinstance(op, Append):
            self.scene.reached("fenced write rejected")
        elif isinstance(result, Full):
            self.scene.reached("backlog full")
        elif isinstance(op, Look) and isinstance(result, Looked) and len(result.entries) >= op.limit > 0:
            self.scene.reached("replay longer than one batch")
