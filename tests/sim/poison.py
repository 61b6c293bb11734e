"""A message at which every worker fails: what it does, and what a session and its neighbours are owed then."""

import random
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import attrs
import trio

from signald.errors import OperationRefused, StoreUnavailable
from signald.store.base import Op, Result
from signald.store.session.ops import Claimed, ClaimWorkerSide, RetrySession, Unpaired, UnpairFailed
from tests.sim.checkers import Checker

if TYPE_CHECKING:
    from tests.sim.scene import Scene

SHARE = 0.1
"""How many plans have one."""

FAILURES_MAX = 3
"""Fewer than by default: within a run the pauses are long."""

RESUME_TIMEOUT_S = 2.0
"""So that three workers are lost one after the other before the faults end."""

RETRY_EVERY_S = 1.0

UNCOUNTED = frozenset(
    {
        "deploy", "deploy_and_wait", "stop_first", "deploy_two", "deploy_stuck", "roll_back", "orchestrate", "kill",
        "kill_at_store", "stop_at_store", "kill_at_write", "stop_at_write", "vanish", "pause", "drain_and_abort", "signal_again",
        "outage", "answers_lost", "store_full", "partition", "isolate", "empty_store", "fail_over", "clock_step", "leave_worker",
        "deploy_worker",
    }
)  # fmt: skip
"""What may end a hand-out without its being a failure, or keep it from being counted."""


@attrs.frozen
class Poison:
    """The message `number` of `client`: a worker that is given it crashes, or its handler raises."""

    client: str
    number: int
    fate: Literal["crash", "raise"]


def draw_poison(r: random.Random, clients: int) -> Poison | None:
    """Return a poison or, mostly, none."""
    if r.random() >= SHARE:
        return None
    return Poison(f"c{r.randrange(clients)}", r.randint(1, 3), "crash" if r.random() < 0.5 else "raise")


class Poisoned(Checker):
    """A session is handed out `worker.failures_max` times at most at one message, and no other one is set aside for it."""

    name = "nobody-hurts"

    def __init__(self, scene: "Scene") -> None:
        super().__init__(scene)
        self._met: Counter[str] = Counter()
        """Session → how often a handler was given the poison since it was last retried."""
        steps = scene.plan.steps
        self._is_counted = not scene.plan.store_may_lose and not any(step.what in UNCOUNTED for step in steps)
        """Nothing happens but what counts."""
        harmless = not any(one.fails_share for one in scene.plan.workers)
        raises = scene.plan.poison is not None and scene.plan.poison.fate == "raise"
        self._is_alone = harmless and raises and not any(step.what == "crash_worker" for step in steps)
        """No other handler fails, and no worker is lost with what others have said."""

    def meets(self, session: str, number: int) -> Poison | None:
        """A handler was given a message; returns what is to happen to it."""
        poison, client = self.scene.plan.poison, self.scene.sessions.get(session)
        if (
            poison is None
            or client is None
            or not self.scene.chaos
            or (client.name, number) != (poison.client, poison.number)
        ):
            return None
        self.scene.reached(f"poison: {poison.fate}")
        self._met[session] += 1
        if self._is_counted and self._met[session] > FAILURES_MAX:
            self.broken(f"{session} was handed out {self._met[session]} times at message {number}")
        return poison

    def applied(self, ops: Sequence[Op], results: Sequence[Result]) -> None:
        """Judge what the store was asked."""
        for op, result in zip(ops, results, strict=True):
            match op, result:
                case (ClaimWorkerSide(assign=True), Claimed()) if result.head.failures.set_aside:
                    self.broken(f"{op.session} is set aside, and was given to {op.worker}")
                case (UnpairFailed(), Unpaired()):
                    self._failed(op.session, result.head.up_acked)
                    if result.head.failures.set_aside:
                        self._set_aside(op.session)
                case (RetrySession(), Unpaired()):
                    self._met[op.session] = 0

    def _failed(self, session: str, acked: int) -> None:
        """A hand-out has failed, at the message behind `acked`: before the poison if the ack of what comes before was lost on its way."""
        poison = self.scene.plan.poison
        if poison is not None and acked + 1 < poison.number:
            self._met[session] = 0

    def _set_aside(self, session: str) -> None:
        self.scene.reached("session set aside")
        client, poison = self.scene.sessions.get(session), self.scene.plan.poison
        if self._is_alone and client is not None and poison is not None and client.name != poison.client:
            self.broken(f"{session} of {client.name} is set aside, and nothing was wrong with it")

    async def retry_all(self) -> None:
        """The workers are mended: the operator has everything handed out again that is set aside, until cancelled."""
        while True:
            await trio.sleep(RETRY_EVERY_S)
            for session in list(self.scene.sessions):
                record = self.scene.world.rows.session(session)
                up = [node.node for node in self.scene.up() if node.node is not None]
                if up and record is not None and record.failed.current(record.up.acked).set_aside:
                    try:
                        await up[0].operations.retry(session)
                    except (OperationRefused, StoreUnavailable):
                        continue  # it has ended, or has been retried already
