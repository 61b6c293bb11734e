"""Retries of sessions whose hand-outs fail: what is counted, how long a session pauses, and when it is set aside.

The count lies in the store (core/failures.py says what it means). The node that notes a failure puts the session in line after
its pause. Should that node die, the node of the client does it (`Matchmaker`), and a client that resumes finds its place again.
"""

from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING

import structlog
import trio

from signald.core.failures import SPREAD, Failures
from signald.core.head import Head
from signald.service.counts import FailureCause
from signald.service.line import has_client, place
from signald.store.committer import ignore
from signald.store.registry.ops import Enqueue, Forget
from signald.store.session.ops import Look, Looked, RetrySession, Unpaired, UnpairFailed

if TYPE_CHECKING:
    from signald.service.hub import Hub

log = structlog.get_logger(__name__)


class Retries:
    """See the module."""

    def __init__(self, hub: "Hub") -> None:
        self._hub = hub

    def unpair(self, session: str, worker: str, epoch: int, ended_ms: int) -> UnpairFailed:
        """Return the operation that ends and counts a failed hand-out, which ended at `ended_ms`."""
        hub = self._hub
        failures_max = hub.config.worker.failures_max
        return UnpairFailed(session, hub.node, worker, epoch, failures_max, hub.store.now_ms(), ended_ms)

    def note(self, head: Head, cause: FailureCause) -> float:
        """Count a failed hand-out of the session, which is now as `head` says; return its pause in seconds, inf for no retry."""
        hub, failures = self._hub, head.failures
        hub.counts.failed_handouts[cause] += failures.count > 0
        if not failures.set_aside:
            return failures.pause_s(refused=cause == "refused", spread=hub.entropy.uniform(1.0, SPREAD))
        hub.counts.set_aside += 1
        log.warning("session_set_aside", session=head.session, seq=failures.seq, failures=failures.count)
        hub.trail.note(head.session, "worker", "set aside", f"message {failures.seq}, {failures.count} failures")
        return inf

    async def queue_later(self, head: Head, pause_s: float) -> None:
        """Put a session in line after `pause_s`, if it still waits then; inf: never."""
        hub = self._hub
        if pause_s == inf:
            return
        await trio.sleep(pause_s)
        # It may have ended meanwhile, or have been put in line by the node of its client, and be set aside by now.
        looked = await hub.committer.call(Look(head.session, "client", 0, 0), inf)
        # One whose client is away is put in line by its client's claim.
        if not isinstance(looked, Looked) or looked.head.worker or looked.head.failures.set_aside:
            return
        if has_client(hub, looked.head):
            await hub.committer.call(self._enqueue(head), inf)
            hub.inboxes.line()

    def _enqueue(self, head: Head) -> Enqueue:
        hub = self._hub
        return place(head.session, head.want, head.principal, head.created_ms, hub.store.now_ms() + hub.life_ms)

    async def lost(self, worker: str, names: Sequence[str], ended_ms: int) -> None:
        """End and count the hand-outs `names` of a worker that was lost at `ended_ms`; sessions without a pause wait again.

        This waits however long the store is away: the sessions have no place in line any more.
        """
        hub = self._hub
        results = await hub.committer.call_many([self.unpair(name, worker, 0, ended_ms) for name in names], inf)
        at_once = []
        for result in results:
            if not isinstance(result, Unpaired) or result.head.worker:
                continue  # the session has ended, or has another worker already
            pause_s = self.note(result.head, "lost")
            if pause_s > 0:
                hub.spawn(self.queue_later, result.head, pause_s)
            elif has_client(hub, result.head):
                at_once.append(self._enqueue(result.head))
        await hub.committer.call_many(at_once, inf)

    async def dropped(self, worker: str, names: Sequence[str]) -> None:
        """Count the hand-outs among `names` that `worker` had accepted and has come back without.

        Its process has ended meanwhile, or a handler has failed. They are assigned to it again unless they are set aside.
        """
        hub = self._hub
        looked = await hub.committer.call_many([Look(name, "worker", 0, 0) for name in names])
        heads = [result.head for result in looked if isinstance(result, Looked)]
        had = [head for head in heads if head.worker == worker and head.worker_state == "paired"]
        now_ms = hub.store.now_ms()
        ops = [self.unpair(head.session, worker, head.worker_epoch, now_ms) for head in had]
        for result in await hub.committer.call_many(ops):
            if isinstance(result, Unpaired):
                self.note(result.head, "lost")

    async def retry(self, session: str) -> Failures | None:
        """Let a session that is set aside be handed out again; returns its failures until now, None when there is no session.

        A session that is not set aside is left as it is. Raises StoreUnavailable.
        """
        hub = self._hub
        looked = await hub.committer.call(Look(session, "client", 0, 0))
        if not isinstance(looked, Looked):
            return None
        failures = looked.head.failures
        if not failures.set_aside:
            return failures
        # Both at once: with the count cleared and no place in line, nobody here would know that the session is due.
        # One whose client is away is put in line by its client's claim.
        queue = [self._enqueue(looked.head)] if has_client(hub, looked.head) else []
        retried, *_ = await hub.committer.call_many([RetrySession(session, hub.node), *queue])
        if not isinstance(retried, Unpaired):
            hub.committer.submit(Forget(session), ignore)  # it has ended meanwhile
            return None
        log.info("session_retried", session=session)
        hub.trail.note(session, "", "retried", f"by an operator at {hub.node}")
        held = hub.sessions.get(session)
        if held is not None:
            hub.relay.look(held)
        hub.inboxes.line()
        return failures
