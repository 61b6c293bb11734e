"""What a worker is owed, and the one after it, when a session leaves its hands.

Our SDK makes good what these find: it heeds nothing that a node says which it has left, and tells apart what it is given twice.
A program written by hand does neither.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs

from signald.store.base import Done, Op, Result
from signald.store.registry.ops import RemoveWorker, Sessions
from signald.store.session.ops import Claimed, ClaimWorkerSide, Unpair
from tests.sim.checkers import Checker
from tests.sim.habits import parsed

if TYPE_CHECKING:
    from tests.sim.scene import Scene

WELCOMES = frozenset({"app_accepted", "reconnection_ack"})


class Kept(Checker):
    """A worker is told that a session is over for it only when it has lost it."""

    name = "sticky"

    def __init__(self, scene: "Scene") -> None:
        super().__init__(scene)
        self._worker_on: dict[str, str] = {}
        """Connection → the worker it was opened for."""
        self._had: dict[str, str] = {}
        """Session → the worker it was given to last."""
        self._taken: set[tuple[str, str]] = set()
        """(session, worker) that were parted at some time: a word about that may come late, when they are together again."""
        self._removed: set[str] = set()

    def applied(self, ops: Sequence[Op], results: Sequence[Result]) -> None:
        for op, result in zip(ops, results, strict=True):
            match op, result:
                case (ClaimWorkerSide(), _):
                    before = self._had.setdefault(op.session, op.worker)
                    if before != op.worker:
                        self._taken.add((op.session, before))
                        self._had[op.session] = op.worker
                case (Unpair(), Done()):
                    self._taken.add((op.session, op.worker))
                case (RemoveWorker(), Sessions()):
                    self._removed.add(op.worker)
                    if result.sessions and self._is_elsewhere(op):
                        self.scene.reached("worker given up that another node has")

    def _is_elsewhere(self, op: RemoveWorker) -> bool:
        return any(
            one.name != op.node and one.node is not None and op.worker in one.node.hub.worker_links
            for one in self.scene.alive()
        )

    def told(self, wire: str, kind: str, frame: str | bytes) -> None:
        if kind in WELCOMES:
            self._worker_on[wire] = parsed(frame)["worker"]
        elif kind == "session_ended" and wire in self._worker_on:
            session = parsed(frame).get("session", "")
            if session and not self.scene.plan.store_may_lose:
                self._over(wire, session, self._worker_on[wire])

    def _over(self, wire: str, session: str, worker: str) -> None:
        record = self.scene.world.rows.session(session)
        client = self.scene.sessions.get(session)
        # Without the store a node believes the party that says bye, and the store hears of it later.
        if record is None or client is None or client.is_over() or session in self.scene.stolen:
            return
        if (session, worker) in self._taken or worker in self._removed:
            return
        if record.worker == worker and record.worker_state == "paired":
            self.broken(f"{wire}: {worker} is told that {session} is over for it, and has it")


@attrs.define
class Words:
    """What a worker has said of a session on one connection."""

    acked: int = 0
    """Up to where, since it took the session there."""
    refused: str | None = None
    """Why it gave the session back, if it did."""


class Finished(Checker):
    """What a worker was through with when it gave a session back is not for the next one."""

    name = "exactly-once"

    def __init__(self, scene: "Scene") -> None:
        super().__init__(scene)
        self._said: dict[str, dict[str, Words]] = {}
        """Session → connection → what was said there."""
        self._worker_of: dict[str, str] = {}
        self._due: dict[tuple[str, str], tuple[str, int]] = {}
        """(session, node) → the worker that gave it back there, and up to where it had acked before, where it said so."""

    def said(self, wire: str, kind: str, frame: str | bytes) -> None:
        if kind not in ("ack", "session_accept", "session_refuse"):
            return
        message = parsed(frame)
        words = self._said.setdefault(message["session"], {}).setdefault(wire, Words())
        if kind == "ack":
            if words.refused is None:
                words.acked = max(words.acked, message["seq"])
        elif kind == "session_refuse":
            words.refused = words.refused if words.refused is not None else message["reason"]
        else:
            # What was acked before belongs to an assignment that is over.
            words.acked, words.refused = 0, None

    def refused(self, session: str, worker: str, reason: str) -> None:
        """A node has taken note that a session was given back: it has read what the worker had said before."""
        acked: dict[str, int] = {}
        for wire, words in self._said.get(session, {}).items():
            if words.refused == reason:  # otherwise the node has taken it back of its own accord
                node = self.scene.network.by_name[wire].node
                acked[node] = min(words.acked, acked.get(node, words.acked))
        for node, seq in acked.items():
            self._due[session, node] = worker, seq

    def applied(self, ops: Sequence[Op], results: Sequence[Result]) -> None:
        if self.scene.plan.store_may_lose:
            return
        for op, result in zip(ops, results, strict=True):
            match op, result:
                case (ClaimWorkerSide(), Claimed()):
                    self._worker_of[op.session] = result.head.worker
                case (Unpair(), Done()) if self._worker_of.get(op.session) == op.worker:
                    del self._worker_of[op.session]
                    self._said.pop(op.session, None)
                    self._judge(op)

    def _judge(self, op: Unpair) -> None:
        worker, seq = self._due.pop((op.session, op.node), ("", 0))
        record = self.scene.world.rows.session(op.session)
        if worker == op.worker and op.epoch and record is not None and record.up.acked < min(seq, record.up.last):
            self.broken(f"{op.session}: {worker} gave it back with {seq} acked, and {record.up.acked} is known")
