"""What nodes and parties owe each other on the way, however well it ends: slips that the protocol makes good again.

A write under an old epoch that says what the store has, a message sent twice that the SDK tells apart, a wake-up that never
comes and a look a second later: the applications notice none of it. These checkers do.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import trio

from signald.core.drain import WhyLeft
from signald.core.pairing import wants
from signald.dialects.v1.client import ClientLink
from signald.dialects.v1.worker import WorkerLink
from signald.ids import is_named
from signald.sdk.trio import Client
from signald.store.base import Done, Op, Result
from signald.store.registry.ops import (
    ClaimNamed,
    ClaimWorker,
    DetachWorker,
    Enqueue,
    Enqueued,
    Forget,
    PutReceipt,
    RegisterWorker,
    Release,
    RemoveWorker,
    Reserve,
    Reserved,
    Sessions,
    UpdateWorker,
    WorkerClaimed,
)
from signald.store.session.ops import (
    Ack,
    Append,
    Appended,
    ClaimClient,
    Claimed,
    ClaimWorkerSide,
    CreateSession,
    Detach,
    Look,
    Unpair,
)
from tests.sim.checkers import Checker
from tests.sim.habits import parsed
from tests.sim.worker_checkers import Finished, Kept

if TYPE_CHECKING:
    from tests.sim.nodes import SimNode
    from tests.sim.scene import Scene

PROMPT_S = 0.5
"""Above what a wake-up takes when nothing is wrong, below the second after which a node looks of its own accord."""

DOOR_S = 0.1
"""After so long a drain has closed the door."""

ANSWERS = frozenset({"session_started", "session_restored", "app_accepted", "reconnection_ack"})


class Fenced(Checker):
    """Older epochs cannot write: nothing is appended, acked or detached under one."""

    name = "single-owner"

    def __init__(self, scene: "Scene") -> None:
        super().__init__(scene)
        self._epochs: dict[tuple[str, str], int] = {}
        """(session or worker, party) → the newest epoch that was granted."""
        self._paired: dict[str, tuple[str, int]] = {}
        """Session → its worker, and the epoch of the worker's claim."""
        self._at: dict[tuple[str, str], str] = {}

    def applied(self, ops: Sequence[Op], results: Sequence[Result]) -> None:
        if self.scene.plan.store_may_lose:
            return
        honest: set[tuple[str, str]] = set()
        late: list[Detach] = []
        for op, result in zip(ops, results, strict=True):
            match op, result:
                case (ClaimClient(), Claimed()):
                    self._granted(op.session, "client", result.epoch)
                case (ClaimWorkerSide(), Claimed()):
                    self._granted(op.session, "worker", result.epoch)
                    self._paired[op.session] = result.head.worker, result.epoch
                case (Unpair(), Done()):
                    self._unpaired(op)
                    honest.add((op.session, "worker"))
                case (ClaimWorker(), WorkerClaimed()):
                    self._granted(op.worker, "worker", result.epoch)
                case (Append(), Appended()):
                    self._wrote(op.session, op.party, op.epoch, "Append")
                case (Ack(), Done()):
                    self._wrote(op.session, op.party, op.epoch, "Ack")
                case (UpdateWorker(), Done()):
                    self._wrote(op.worker, "worker", op.epoch, "UpdateWorker")
                case (Detach() as detach, Done()) if self._is_late(detach):
                    late.append(detach)
                case _:
                    honest.add((getattr(op, "session", ""), getattr(op, "party", "worker")))
        for op in late:
            self._detached(op, honest)
        for op in ops:
            self._remember(op)

    def _granted(self, owner: str, party: str, epoch: int) -> None:
        self._epochs[owner, party] = max(epoch, self._epochs.get((owner, party), 0))

    def _unpaired(self, op: Unpair) -> None:
        worker, epoch = self._paired.get(op.session, ("", 0))
        if worker and worker == op.worker:  # one that says it of a session that has no worker changes nothing
            # The worker that had the session writes no more, and no other has it yet.
            if 0 < op.epoch < epoch:
                self.broken(
                    f"{op.session}: its worker was taken off it under epoch {op.epoch}, and {epoch} was granted"
                )
            del self._paired[op.session]
            self._granted(op.session, "worker", epoch + 1)

    def _is_late(self, op: Detach) -> bool:
        return op.epoch < self._epochs.get((op.session, op.party), 0)

    def _wrote(self, owner: str, party: str, epoch: int, what: str) -> None:
        newest = self._epochs.get((owner, party), 0)
        if epoch < newest:
            self.broken(f"{owner}: {what} of the {party} was done under epoch {epoch}, and {newest} was granted")

    def _node_of(self, session: str, party: str) -> str:
        record = self.scene.world.rows.session(session)
        if record is None:
            return ""
        return (record.client if party == "client" else record.worker_side).node

    def _detached(self, op: Detach, honest: set[tuple[str, str]]) -> None:
        side = op.session, op.party
        if side not in honest and self._at.get(side) and not self._node_of(*side):
            record = self.scene.world.rows.session(op.session)
            if record is not None and (op.party == "client" or record.worker):
                self.broken(f"{op.session}: the {op.party} was detached under epoch {op.epoch}")

    def _remember(self, op: Op) -> None:
        session = getattr(op, "session", "")
        if session:
            for party in ("client", "worker"):
                self._at[session, party] = self._node_of(session, party)


class Woken(Checker):
    """What is appended for a party at another node is read there at once, when nothing is wrong."""

    name = "prompt"

    def __init__(self, scene: "Scene") -> None:
        super().__init__(scene)
        self._due: dict[tuple[str, str], float] = {}

    def applied(self, node: str, ops: Sequence[Op], results: Sequence[Result]) -> None:
        if not self.scene.plan.store_is_well:
            return
        now = trio.current_time()
        for op, result in zip(ops, results, strict=True):
            if isinstance(op, Look):
                self._due.pop((node, op.session), None)
            elif isinstance(result, Appended) and isinstance(op, Append) and result.receiver_node not in ("", op.node):
                self._due.setdefault((result.receiver_node, op.session), now)
        for (name, session), since in list(self._due.items()):
            if now - since > PROMPT_S:
                del self._due[name, session]
                if self._waits(name, session):
                    self.broken(f"{name} has not looked at {session} for {now - since:.2f} s")

    def _waits(self, name: str, session: str) -> bool:
        node = next((one for one in self.scene.alive() if one.name == name), None)
        held = node.node.hub.sessions.get(session) if node is not None and node.node is not None else None
        record = self.scene.world.rows.session(session)
        if held is None or record is None:
            return False
        return any(
            side.link is not None and at == name
            for side, at in ((held.client, record.client.node), (held.worker, record.worker_side.node))
        )


class Capacity(Checker):
    """No worker is given more than it has room for, and no log more than its bound."""

    name = "bounded-memory"

    def applied(self, ops: Sequence[Op], results: Sequence[Result]) -> None:
        if self.scene.plan.store_may_lose:
            return
        rows = self.scene.world.rows
        most = max(node.config.limits.backlog_messages_max for node in self.scene.nodes)
        for op, result in zip(ops, results, strict=True):
            if isinstance(op, Append) and isinstance(result, Appended) and result.last - result.acked > most:
                self.broken(f"{op.session}: {result.last - result.acked} messages wait for {op.party}'s peer")
            elif isinstance(op, Reserve) and isinstance(result, Reserved):
                for name in {worker for _, worker in op.pairs}:
                    worker = rows.worker(name)
                    if worker is not None and len(rows.sessions_of(name)) > worker.capacity:
                        self.broken(f"{name} has {len(rows.sessions_of(name))} sessions and room for {worker.capacity}")


class Suits(Checker):
    """A session is given to a worker whose labels include what it wants, and to no other."""

    name = "fair"

    def applied(self, ops: Sequence[Op], results: Sequence[Result]) -> None:
        rows = self.scene.world.rows
        for op, result in zip(ops, results, strict=True):
            if not isinstance(op, Reserve) or not isinstance(result, Reserved):
                continue
            for (session, name), held in zip(op.pairs, result.held, strict=True):
                place, worker = rows.place(session), rows.worker(name)
                if held and place is not None and worker is not None and not wants(place.want, worker.labels):
                    self.broken(f"{session} wants {place.want}, and was given to {name} with {worker.labels}")


class OnePair(Checker):
    """A session that has a worker is given to no other before it was taken from the first."""

    name = "sticky"

    def __init__(self, scene: "Scene") -> None:
        super().__init__(scene)
        self._worker_of: dict[str, str] = {}

    def applied(self, ops: Sequence[Op], results: Sequence[Result]) -> None:
        if self.scene.plan.store_may_lose:
            return
        for op, result in zip(ops, results, strict=True):
            match op, result:
                case (Reserve(), Reserved()):
                    for (session, worker), held in zip(op.pairs, result.held, strict=True):
                        if held:
                            self._reserved(session, worker)
                case (Release() | Forget(), _):
                    self._worker_of.pop(op.session, None)
                case (Enqueue(), Enqueued()) if not result.worker:
                    self._worker_of.pop(op.session, None)
                case (RemoveWorker(), Sessions()):
                    for session in result.sessions:
                        self._worker_of.pop(session, None)

    def _reserved(self, session: str, worker: str) -> None:
        before = self._worker_of.setdefault(session, worker)
        if before != worker:
            self.broken(f"{session} was given to {worker}, and had {before}")


class Patience(Checker):
    """A worker is given up when its time is over, and none that was not told to go for not having gone."""

    name = "sticky"

    def __init__(self, scene: "Scene") -> None:
        super().__init__(scene)
        self._away: dict[str, int] = {}
        """Worker → since when it is away (ms of the store)."""
        self._leaving: set[str] = set()

    def applied(self, ops: Sequence[Op], results: Sequence[Result]) -> None:
        for op, result in zip(ops, results, strict=True):
            match op, result:
                case (DetachWorker(), _):
                    worker = self.scene.world.rows.worker(op.worker)
                    if worker is not None and not worker.side.node:
                        self._away.setdefault(op.worker, op.now_ms)
                case (ClaimWorker() | ClaimNamed(), WorkerClaimed()):
                    self._away.pop(op.worker, None)
                case (UpdateWorker(), Done()) if op.leaving:
                    self._leaving.add(op.worker)
                case (RemoveWorker(), Sessions()) if result.sessions and op.worker not in (
                    self._leaving | self.scene.said_bye  # whose last words may come with its resume
                ):
                    self._removed(op)

    def _removed(self, op: RemoveWorker) -> None:
        node = next((one for one in self.scene.alive() if one.name == op.node), None)
        if node is None or node.node is None or self.scene.plan.store_may_lose or self.scene.plan.clock_steps:
            return
        config = node.config
        since = self._away.get(op.worker)
        if since is not None:
            if node.draining:
                return  # it counts from when it was told to go
            if any(step.what == "pause" for step in self.scene.plan.steps):
                return  # a node that stood still says late that a worker is away: others know since when it is silent
            least = (config.deepstream if is_named(op.worker) else config.worker).resume_timeout_s
            away_s = (self.scene.world.now_ms() - since) / 1000
            if away_s < least - 0.1:
                self.broken(f"{op.worker} was given up {away_s:.2f} s after it had gone away, and not {least}")
            return
        link = node.node.hub.worker_links.get(op.worker)
        # One that is attached here is given up because it was told to go and did not, or because it leaves.
        if (
            link is not None
            and link.speaks_handover
            and not is_named(op.worker)
            and not (link.over or link.told_to_go or link.ending)
        ):
            if link.conn.closing:
                return
            self.broken(f"{op.worker} was given up at {op.node}, and had not been told to go")


class Everybody(Checker):
    """A drain that ends before its time has told all parties to go that were there."""

    name = "one-hop"

    def __init__(self, scene: "Scene") -> None:
        super().__init__(scene)
        self._came: dict[tuple[str, str], float] = {}
        """(node, session or worker) → when it was let in there."""

    def applied(self, node: str, ops: Sequence[Op], results: Sequence[Result]) -> None:
        now = trio.current_time()
        for op in ops:
            if isinstance(op, CreateSession | ClaimClient):
                self._came[node, op.session] = now
            elif isinstance(op, RegisterWorker | ClaimWorker):
                self._came[node, op.worker] = now
            elif isinstance(op, PutReceipt):
                self._judge(node)

    def _judge(self, name: str) -> None:
        node = next((one for one in self.scene.alive() if one.name == name), None)
        if node is None or node.node is None or not self.scene.plan.store_is_well:
            return
        shutdown, drain = node.node.shutdown, node.config.drain
        through_ms = dict(shutdown.ledger._phases).get("terminate")
        lasts_s = drain.timeout_s - drain.flush_timeout_s - drain.close_timeout_s - drain.terminate_timeout_s
        if through_ms is None or through_ms / 1000 > lasts_s - 0.2 or shutdown.why_left is WhyLeft.ALONE:
            return
        through_at = shutdown.status.began_at + through_ms / 1000
        for link in node.node.hub.links:
            if link.told_to_go or link.over or link.conn.closing:
                continue
            if isinstance(link, WorkerLink):
                who = link.worker if link.speaks_handover else ""
            else:
                who = link.session.id if isinstance(link, ClientLink) else ""
            if who and self._came.get((name, who), -1.0) < through_at - DOOR_S:
                self.broken(f"{name} was through after {through_ms / 1000:.1f} s, and had not told {who} to go")


class Doors(Checker):
    """A node that has been draining for a while lets no party in, and says nothing twice on one line."""

    name = "one-hop"

    def __init__(self, scene: "Scene") -> None:
        super().__init__(scene)
        self._shut: dict[str, tuple[str, float]] = {}
        """Wire → the node that was draining when it was dialled, and since when."""
        self._said: dict[tuple[str, str], int] = {}

    def dialled(self, wire: str, node: "SimNode") -> None:
        now = trio.current_time()
        if not node.draining or node.node is None:
            return
        began_at = node.node.shutdown.status.began_at
        if now - began_at > DOOR_S:
            self._shut[wire] = node.name, began_at

    def told(self, wire: str, kind: str, frame: str | bytes) -> None:
        if kind in ANSWERS:
            name, began_at = self._shut.get(wire, ("", 0.0))
            node = next((one for one in self.scene.nodes if one.name == name), None)
            # A drain that was called off meanwhile has opened the door, though another one has begun since.
            if node is not None and node.node is not None and node.node.shutdown.status.began_at == began_at:
                self.broken(f"{wire}: {kind} of {name}, which was draining when it was asked")
        elif kind == "session_assigned":
            self._said.pop((wire, parsed(frame)["session"]), None)
        elif kind == "message":
            message = parsed(frame)
            session, seq = message.get("session", ""), message["seq"]
            if seq <= self._said.get((wire, session), 0):
                self.scene.violate("exactly-once", f"{wire}: message {seq} was sent twice on one connection")
            self._said[wire, session] = seq


class Context(Checker):
    """A worker that takes a session over is told what was said before."""

    name = "sticky"

    def begins(self, session: str, worker: str, history: Sequence[object]) -> None:
        first = self.scene.check.exactly_once.first_for.get((session, worker))
        if first is not None and first > 1 and not history and not self.scene.plan.store_may_lose:
            self.broken(f"{worker} takes {session} over at message {first}, and is told of nothing before")


class CutOff(Checker):
    """In planned rollouts no party is without a connection for a moment.

    Their plans leave the pace, which is a ceiling, time for all parties (`plan._enough`).
    """

    name = "one-hop"

    def disconnected(self, party: str, why: object) -> None:
        if self.scene.plan.planned_only and self.scene.chaos:
            self.broken(f"{party} in planned rollouts: {why}")


class InStep(Checker):
    """Parties whose node has died do not come back at one moment.

    A party that was told to go comes when it reads that: the node decides at what pace it is told. What a network has
    held back it hands over in one moment, the end of the connection behind it.

    The spread is the SDK's, which goes on in a process that lives. One that ends takes it along: when another is begun in
    its place is its supervisor's choice, here the same wait for all, and the first connection of a process waits for nothing.
    """

    name = "paced"

    def __init__(self, scene: "Scene") -> None:
        super().__init__(scene)
        self._broken_off: set[str] = set()
        self._on_the_move: set[str] = set()
        """The parties that were told to go, and have not been let in elsewhere since."""
        self._now = -1.0
        self._together: set[str] = set()

    def told(self, wire: str, kind: str) -> None:
        party = wire.partition("#")[0]
        if kind == "goaway" and party not in self.scene.old_clients:
            self._on_the_move.add(party)
        elif kind in ANSWERS:
            self._on_the_move.discard(party)

    def disconnected(self, party: str, code: int | None) -> None:
        if code is None and party not in self._on_the_move:
            self._broken_off.add(party)

    def process_ended(self, party: str) -> None:
        self._broken_off.discard(party)

    def dialled(self, party: str) -> None:
        now = trio.current_time()
        if now != self._now:
            self._now, self._together = now, set()
        if party in self._broken_off:
            self._broken_off.discard(party)
            self._together.add(party)
            if len(self._together) > 2:
                self.broken(f"{sorted(self._together)} come back at the very same moment")


class Believed(Checker):
    """A client believes of its worker what the node says that serves it, and not the one that it has left."""

    name = "sticky"

    def __init__(self, scene: "Scene") -> None:
        super().__init__(scene)
        self._serves: dict[str, str] = {}
        """Party → its connection that was answered last."""
        self._before: dict[str, tuple[Client, object]] = {}
        """A connection that was left and has spoken of the worker → the node that got it, and what that node knew of its worker."""

    def told(self, wire: str, kind: str) -> None:
        party = wire.partition("#")[0]
        if kind in ANSWERS:
            self._serves[party] = wire
        elif kind == "peer" and self._serves.get(party, wire) != wire:
            front = next((one.client for one in self.scene.clients if one.name == party), None)
            if front is not None:
                self.scene.reached("left node spoke of the worker")
                self._before[wire] = front, (front.peer_state, front.worker)

    def taken(self, wire: str) -> None:
        if wire in self._before:
            front, before = self._before.pop(wire)
            if (front.peer_state, front.worker) != before:
                self.broken(
                    f"{wire}: {before} became {(front.peer_state, front.worker)} by what a node said that was left"
                )


class Hurried(Checker):
    """A second signal leaves nothing but what is queued to be written."""

    name = "bounded"

    def __init__(self, scene: "Scene") -> None:
        super().__init__(scene)
        self._signals: dict[str, list[float]] = {}

    def signalled(self, node: "SimNode") -> None:
        self._signals.setdefault(node.name, []).append(trio.current_time())

    def exited(self, node: "SimNode", now: float) -> None:
        signals = self._signals.get(node.name, [])
        if len(signals) > 1 and not self.scene.network.gate(node.name).stood_s:
            drain = node.config.drain
            most = drain.flush_timeout_s + drain.close_timeout_s + 3.0
            if now - signals[1] > most:
                self.broken(f"{node.name} took {now - signals[1]:.1f} s after the second signal")


class Conduct:
    """All of them, and the events that each of them gets."""

    def __init__(self, scene: "Scene") -> None:
        self._scene = scene
        self._fenced = Fenced(scene)
        self._woken = Woken(scene)
        self._capacity = Capacity(scene)
        self._suits = Suits(scene)
        self._one_pair = OnePair(scene)
        self._patience = Patience(scene)
        self._everybody = Everybody(scene)
        self._doors = Doors(scene)
        self._cut_off = CutOff(scene)
        self._in_step = InStep(scene)
        self._believed = Believed(scene)
        self._hurried = Hurried(scene)
        self._kept = Kept(scene)
        self._finished = Finished(scene)
        self.process_ended = self._in_step.process_ended
        self.taken = self._believed.taken
        self.begins = Context(scene).begins
        self.signalled = self._hurried.signalled
        self.exited = self._hurried.exited
        self.said = self._finished.said
        self.refused = self._finished.refused

    def applied(self, node: str, ops: Sequence[Op], results: Sequence[Result]) -> None:
        """The store has carried out a batch of `node`."""
        self._fenced.applied(ops, results)
        self._woken.applied(node, ops, results)
        self._capacity.applied(ops, results)
        self._suits.applied(ops, results)
        self._one_pair.applied(ops, results)
        self._patience.applied(ops, results)
        self._everybody.applied(node, ops, results)
        self._kept.applied(ops, results)
        self._finished.applied(ops, results)

    def told(self, wire: str, kind: str, frame: str | bytes) -> None:
        """A party takes a frame from a connection."""
        self._doors.told(wire, kind, frame)
        self._in_step.told(wire, kind)
        self._believed.told(wire, kind)
        self._kept.told(wire, kind, frame)

    def dialled(self, party: str, wire: str, node: "SimNode") -> None:
        """A party opens a connection."""
        self._doors.dialled(wire, node)
        self._in_step.dialled(party)

    def disconnected(self, party: str, code: int | None, reason: str) -> None:
        """An application hears that its party has no connection."""
        self._cut_off.disconnected(party, f"{code} {reason}")
        self._in_step.disconnected(party, code)

    def lingering(self) -> list[str]:
        """What must not last: sessions held by a worker that lost them, and doors that stay closed at nodes that serve."""
        scene = self._scene
        texts = [
            f"{node.name} serves and refuses" for node in scene.up() if node.node is not None and node.node.hub.refusing
        ]
        for handling in scene.handlings:
            record = scene.world.rows.session(handling.session)
            worker = record.worker if record is not None else None
            if not handling.over and handling.session not in scene.stolen and worker != handling.worker:
                texts.append(f"h{handling.number} has {handling.session} at {handling.worker}, the store at {worker!r}")
        return texts
