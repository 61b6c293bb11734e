"""No API token, no credential and no connection is good at a node that knows of their recall, and each node knows in time."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import trio

from signald.store.base import Op, Result
from signald.store.registry.ops import ListRevoked, Revoke, Revoked, RevokedPage
from tests.sim.checkers import Checker
from tests.sim.stores import LostWake

if TYPE_CHECKING:
    from tests.sim.nodes import SimNode
    from tests.sim.recalls import Caller, Held
    from tests.sim.scene import Scene

IN_FORCE_S = 2.0
"""Within this time all nodes know (docs/operations.md), if the store answers them."""
AFTER_FAULTS_S = 3.5
"""The same when faults have just ended: a committer that was without its store asks again within a second."""
EXPIRY_MARGIN_MS = 3000.0
"""How near to its end a token is good and yet may be refused."""

GIVES_UP_S = 4.9
"""A call of the committer gives up after five seconds, and its answer, which may come nevertheless, is for nobody."""

AILS = ("outage", "answers_lost", "store_full", "partition", "pause")


class NoTokenAfterRecall(Checker):
    """See the module.

    A node knows of a recall when it was asked for it and has said that it is done, when the store has told it, and when it was
    started after the recall was stored. Where nothing ails the store, it knows after `IN_FORCE_S`. A store that loses what it
    has been told binds only the nodes that have heard of it: the others may hear of it when one of these gives it back.
    """

    name = "no-token-after-recall"

    def __init__(self, scene: "Scene") -> None:
        super().__init__(scene)
        self._recalls: dict[str, list[tuple[int, float]]] = {}
        """Subject → the moments of its recalls (ms), and when the store had each of them."""
        self._known: dict[tuple[str, str], tuple[int, float]] = {}
        """(node, subject) → the latest moment that the node knows of, and since when."""
        self._hung_up: dict[str, list[tuple[int, int]]] = {}
        """Node → from when to when (ms) an operator waited for it to recall something, and then no more."""
        self._healed_at = float("inf")
        self._prompt = all(isinstance(one, LostWake) for one in scene.plan.store) and not any(
            step.what in AILS for step in scene.plan.steps
        )

    # --- what happens ---------------------------------------------------------------------------------------------------

    def applied(self, op: Op, result: Result) -> None:
        """The store has carried out an operation."""
        if isinstance(op, Revoke) and isinstance(result, Revoked):
            recalls = self._recalls.setdefault(op.principal, [])
            if all(op.at_ms > at_ms for at_ms, _ in recalls):
                recalls.append((op.at_ms, trio.current_time()))

    def answered(self, node: "SimNode", ops: Sequence[Op], results: Sequence[Result]) -> None:
        """A node has the answers of the store."""
        for op, result in zip(ops, results, strict=True):
            if isinstance(op, ListRevoked) and isinstance(result, RevokedPage) and self._is_heard(node, op):
                for one in result.revocations:
                    self.told(node, one.principal, one.at_ms)

    def _is_heard(self, node: "SimNode", op: ListRevoked) -> bool:
        """Tell whether the answer to a question comes while the node still waits for it."""
        trouble = self.scene.trouble
        if node.store is None or trio.current_time() - trouble.clock_set_at < 2 * GIVES_UP_S:
            return False  # the clock does not tell when that was asked
        if any(first <= op.now_ms <= last for first, last in self._hung_up.get(node.name, ())):
            return False  # it was perhaps asked for the operator, and went with that call
        return node.store.now_ms() - op.now_ms < GIVES_UP_S * 1000

    def hung_up(self, node: "SimNode", asked_ms: int) -> None:
        """An operator waits no more for a node that it asked at `asked_ms` to recall something: what the node had asked for it is lost."""
        if node.store is not None:
            self._hung_up.setdefault(node.name, []).append((asked_ms, node.store.now_ms()))

    def told(self, node: "SimNode", subject: str, at_ms: int) -> None:
        """A node knows of a recall from now on."""
        before, _ = self._known.get((node.name, subject), (-1, 0.0))
        if at_ms > before:
            self._known[node.name, subject] = at_ms, trio.current_time()

    def healed(self) -> None:
        """All faults are over."""
        self._healed_at = trio.current_time()

    def given(self, held: "Held") -> None:
        """A caller was given a token."""
        if self._is_recalled(held):
            self.scene.reached("token made after its recall")

    def let_in(self, caller: "Caller", credential: "Held") -> None:
        """A caller has a connection."""
        if caller.name in self._recalls and not self._is_recalled(credential):
            self.scene.reached("caller came again after a recall")

    # --- what is judged -------------------------------------------------------------------------------------------------

    def _voids(self, at_ms: int, issued_ms: int | None) -> bool:
        return issued_ms is None or issued_ms < at_ms

    def _is_recalled(self, held: "Held") -> bool:
        return any(self._voids(at_ms, held.issued_ms) for at_ms, _ in self._recalls.get(held.subject, ()))

    def _must_know(self, node: "SimNode", subject: str, issued_ms: int | None, at: float) -> str:
        """Return why a node knows at the time `at` that what was issued then is recalled; empty if it need not."""
        known_ms, since = self._known.get((node.name, subject), (-1, 0.0))
        if self._voids(known_ms, issued_ms) and known_ms >= 0 and since < at:
            return f"it knows since {since:.3f}"
        if self.scene.plan.store_may_lose:
            return ""
        for at_ms, stored_at in self._recalls.get(subject, ()):
            if not self._voids(at_ms, issued_ms):
                continue
            if node.began_at > stored_at:
                return f"it began at {node.began_at:.3f}, after {stored_at:.3f}"
            if self._prompt and at > stored_at + IN_FORCE_S:
                return f"it was stored at {stored_at:.3f}"
            if at > max(stored_at, self._healed_at) + AFTER_FAULTS_S:
                return f"it was stored at {stored_at:.3f}, and the faults were over at {self._healed_at:.3f}"
        return ""

    def shown(self, node: "SimNode", held: "Held", asked_at: float, *, taken: bool) -> None:
        """A node was shown something at the time `asked_at`, and has taken it, or refused it."""
        why = self._must_know(node, held.subject, held.issued_ms, asked_at)
        if taken and why:
            self.broken(f"{node.name} takes {held} of {held.subject}: {why}")
        elif why:
            self.scene.reached("recalled token refused")
            if node.began_at > min(at for _, at in self._recalls[held.subject]):
                self.scene.reached("recalled token refused by a later node")
        elif not taken and not self._is_recalled(held) and self._is_good(held):
            self.broken(f"{node.name} refuses {held} of {held.subject}, which is good")

    def _is_good(self, held: "Held") -> bool:
        plan = self.scene.plan
        left_ms = held.until_ms - self.scene.world.now_ms()
        return left_ms > EXPIRY_MARGIN_MS and not plan.clock_steps and not plan.store_may_lose

    def look(self, node: "SimNode", callers: Sequence["Caller"]) -> None:
        """No connection stands at a node that was opened by what it knows to be recalled."""
        if node.node is None:
            return
        now, subjects = trio.current_time(), {caller.name for caller in callers}
        for link in node.node.hub.links:
            if link.principal not in subjects or link.credential is None or link.over or link.conn.closing:
                continue
            issued = link.credential.issued_at
            why = self._must_know(node, link.principal, None if issued is None else round(issued * 1000), now)
            if why and not link.ending:
                self.broken(f"{node.name} serves {link.owner} of {link.principal} by what is recalled: {why}")
