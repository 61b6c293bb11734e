"""Retries of sessions whose hand-outs fail: what is counted, how long a session pauses, and when it is set aside.

The count lies in the store (core/failures.py says what it means). The node that notes a failure puts the session in line after
its pause. Should that node die, the node of the client does it (`Matchmaker`), and a client that resumes finds its place again.
"""

from collections.abc import Sequence
from math import inf

import structlog
import trio

from signald.core.failures import SPREAD, Failures
from signald.core.head import Head
from signald.service.context import Context
from signald.service.counts import FailureCause
from signald.service.events import HandoutFailed, Retried, SetAside
from signald.service.line import place, wants_worker
from signald.store.registry.ops import Enqueue
from signald.store.sagas import forget_session
from signald.store.session.ops import Look, Looked, RetrySession, Unpaired, UnpairFailed

log = structlog.get_logger(__name__)


class Retries:
    """See the module."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def unpair(self, session: str, worker: str, epoch: int, ended_ms: int, *, lost: bool) -> UnpairFailed:
        """Return the operation that ends and counts a failed hand-out, which ended at `ended_ms`; `lost`: its worker was lost."""
        context = self._context
        failures_max, of_jobs = context.config.worker.failures_max, context.config.jobs.failures_max if lost else 0
        return UnpairFailed(session, context.node, worker, epoch, failures_max, context.now_ms(), ended_ms, of_jobs)

    def note(self, head: Head, cause: FailureCause) -> float:
        """Count a failed hand-out of the session, which is now as `head` says; return its pause in seconds, inf for no retry."""
        context, failures = self._context, head.failures
        if head.events:
            context.untold.note(head.session)  # it may have ended jobs of the lost worker
        if failures.count > 0:
            context.events.emit(HandoutFailed(head.session, cause))
        if not failures.set_aside:
            return failures.pause_s(refused=cause == "refused", spread=context.entropy.uniform(1.0, SPREAD))
        context.events.emit(SetAside(head.session, failures.seq, failures.count))
        return inf

    async def queue_later(self, head: Head, pause_s: float) -> None:
        """Put a session in line after `pause_s`, if it still waits then; inf: never."""
        context = self._context
        if pause_s == inf:
            return
        await trio.sleep(pause_s)
        # It may have ended meanwhile, or have been put in line by the node of its client, and be set aside by now.
        looked = await context.committer.call(Look(head.session, "client", 0, 0), inf)
        # One whose client is away is put in line by its client's claim.
        if not isinstance(looked, Looked) or looked.head.worker or looked.head.failures.set_aside:
            return
        if wants_worker(context, looked.head):
            await context.committer.call(self._enqueue(head), inf)
            context.inboxes.line()

    def _enqueue(self, head: Head) -> Enqueue:
        context = self._context
        return place(head.session, head.want, head.principal, head.created_ms, context.now_ms() + context.life_ms)

    async def lost(self, worker: str, names: Sequence[str], ended_ms: int) -> None:
        """End and count the hand-outs `names` of a worker that was lost at `ended_ms`; sessions without a pause wait again.

        This waits however long the store is away: the sessions have no place in line any more.
        """
        context = self._context
        ops = [self.unpair(name, worker, 0, ended_ms, lost=True) for name in names]
        results = await context.committer.call_many(ops, inf)
        at_once = []
        for result in results:
            if not isinstance(result, Unpaired) or result.head.worker:
                continue  # the session has ended, or has another worker already
            pause_s = self.note(result.head, "lost")
            if pause_s > 0:
                context.spawn(self.queue_later, result.head, pause_s)
            elif wants_worker(context, result.head):
                at_once.append(self._enqueue(result.head))
        await context.committer.call_many(at_once, inf)

    async def dropped(self, worker: str, names: Sequence[str]) -> None:
        """Count the hand-outs among `names` that `worker` had accepted and has come back without.

        Its process has ended meanwhile, or a handler has failed. They are assigned to it again unless they are set aside.
        """
        context = self._context
        looked = await context.committer.call_many([Look(name, "worker", 0, 0) for name in names])
        heads = [result.head for result in looked if isinstance(result, Looked)]
        had = [head for head in heads if head.worker == worker and head.worker_state == "paired"]
        now_ms = context.now_ms()
        ops = [self.unpair(head.session, worker, head.worker_epoch, now_ms, lost=True) for head in had]
        for result in await context.committer.call_many(ops):
            if isinstance(result, Unpaired):
                self.note(result.head, "lost")

    async def retry(self, session: str) -> Failures | None:
        """Let a session that is set aside be handed out again; returns its failures until now, None when there is no session.

        A session that is not set aside is left as it is. If it is held here, the caller has it read again. Raises
        StoreUnavailable.
        """
        context = self._context
        looked = await context.committer.call(Look(session, "client", 0, 0))
        if not isinstance(looked, Looked):
            return None
        failures = looked.head.failures
        if not failures.set_aside:
            return failures
        # Both at once: with the count cleared and no place in line, this node would not know that the session is due.
        # One whose client is away is put in line by its client's claim.
        queue = [self._enqueue(looked.head)] if wants_worker(context, looked.head) else []
        retried, *_ = await context.committer.call_many([RetrySession(session, context.node), *queue])
        if not isinstance(retried, Unpaired):
            for op in forget_session(session, context.now_ms(), told=context.events_max > 0):
                context.submit(op)  # it has ended meanwhile
            return None
        context.events.emit(Retried(session))
        context.inboxes.line()
        return failures
