"""How a worker is given up: its sessions go to other workers, end, or are held for it, by the policy `worker.on_loss`."""

from collections.abc import Sequence

import structlog
import trio

from signald.core.exits import Cause
from signald.errors import StoreUnavailable
from signald.service.attached import LiveSession
from signald.service.attachments import Attachments
from signald.service.context import Context
from signald.service.events import SessionEnded, WorkerGivenUp
from signald.service.line import enqueue, leave_if_away
from signald.service.retries import Retries
from signald.service.worker_like import WorkerLike
from signald.store.registry.ops import RemoveWorker, WorkerSessions
from signald.store.session.ops import Ended, Unpair
from signald.wire.close_codes import CloseCode

log = structlog.get_logger(__name__)

WORKER_LOST = "worker lost"
"""Why a session ends whose worker is given up, where the policy is to end it."""

RETRY_S = 1.0
"""How long a worker that leaves waits before its sessions are asked to be taken from it again, while the store is away."""


class GivingUp:
    """See the module."""

    def __init__(self, context: Context, attachments: Attachments, retries: Retries) -> None:
        self._context = context
        self._attachments = attachments
        self._relay = attachments.relay
        self._retries = retries

    async def take_from(self, session: LiveSession) -> None:
        """Take a session from a worker that the registry does not know, or not with it, by the policy.

        Raises StoreUnavailable.
        """
        context = self._context
        log.warning("session_without_worker", session=session.id, worker=session.worker_id)
        if context.config.worker.on_loss == "end":
            ops = self._attachments.pasts.end(session.id, session.principal, WORKER_LOST)
            ended, *_ = await context.committer.call_many(ops)
            if isinstance(ended, Ended):
                self._attachments.pasts.count(ended)
                context.events.emit(SessionEnded(session.id, "worker_lost"))
            self._attachments.gone(session, WORKER_LOST)
            return
        alive_until = context.now_ms() + context.life_ms
        await context.committer.call_many(
            [
                Unpair(session.id, context.node, session.worker_id, session.worker.epoch),
                enqueue(session, alive_until),
            ]
        )
        self._relay.look(session)
        context.inboxes.line()

    async def _unpair_all(self, worker: str, names: Sequence[str], lost_ms: int) -> None:
        context = self._context
        if lost_ms:
            await self._retries.lost(worker, names, lost_ms)
        else:
            await context.committer.call_many([Unpair(name, context.node, worker, 0) for name in names])
            await leave_if_away(context, names)
        for name in names:
            session = self._attachments.sessions.get(name)
            if session is not None:
                self._relay.look(session)

    async def _end_all(self, names: Sequence[str]) -> None:
        context, attachments = self._context, self._attachments
        endings = [attachments.pasts.end(name, self._principal(name), WORKER_LOST) for name in names]
        results = iter(await context.committer.call_many([op for ops in endings for op in ops]))
        for name, ops in zip(names, endings, strict=True):
            result, *_ = [next(results) for _ in ops]
            if isinstance(result, Ended):
                attachments.pasts.count(result)
                context.events.emit(SessionEnded(name, "worker_lost"))
        for name in names:
            session = attachments.sessions.get(name)
            if session is not None:
                attachments.gone(session, WORKER_LOST)

    def _principal(self, name: str) -> str:
        session = self._attachments.sessions.get(name)
        return session.principal if session is not None else ""

    async def give_up(
        self, worker: str, epoch: int, reason: str, *, leaving: bool = False, lost_ms: int = 0
    ) -> tuple[str, ...]:
        """Take a worker's sessions from it, by the policy `worker.on_loss`; returns them.

        `epoch` 0: whatever it is. `leaving`: it will not come back, so `hold` does not apply. `lost_ms`: it was
        lost then by itself, not by a drain or with its node, so its hand-outs have failed. Raises StoreUnavailable.
        """
        context = self._context
        policy = context.config.worker.on_loss
        if policy == "hold" and not leaving:
            held = await context.committer.call(WorkerSessions(worker))
            if held.sessions:
                return ()  # it is forgotten when the last of them has expired
        # What counts a failure decides whether its session waits again, and when: until then it has no place in line.
        requeue = policy != "end" and not lost_ms
        released = await context.committer.call(
            RemoveWorker(worker, context.node, epoch, requeue, reason, context.events_max, context.now_ms())
        )
        names = released.sessions
        context.events.emit(WorkerGivenUp(worker, tuple(names), reason, leaving))
        if policy == "end":
            await self._end_all(names)
        else:
            await self._unpair_all(worker, names, lost_ms)
        link = self._attachments.workers.get(worker)
        if link is not None:
            for name in names:
                seat = link.seats.get(name)
                if seat is not None:
                    self._attachments.release(link, Cause.GIVEN_UP, seat.session)
            if link.seats:
                # Not released: it has resumed elsewhere, unheard of here, or an answer was lost. It is not for us to end them.
                link.check()
        context.inboxes.line()
        return names

    def removed(self, link: WorkerLike) -> None:
        """The worker was given up while its connection lived: it has no sessions any more and may start afresh."""
        if self._context.draining and not link.speaks_handover:
            return  # the drain that gave it up is about to ask it to clean up, and closes it then
        self._attachments.release(link, Cause.REMOVED)

    async def worker_leaves(self, link: WorkerLike, reason: str) -> None:
        """A worker said `bye`: its sessions go to others."""
        while True:
            try:
                await self.give_up(link.worker, link.epoch, reason, leaving=True)
                break
            except StoreUnavailable:
                await trio.sleep(RETRY_S)
        if not link.over:
            link.close(CloseCode.NORMAL)
