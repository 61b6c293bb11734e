"""Workers that do not come back, and sessions whose worker will not ask for them: their sessions go by `worker.on_loss`."""

import trio

from signald.ids import SessionId, is_named
from signald.service.attachments import Attachments
from signald.service.cluster.sight import Sight
from signald.service.context import Context
from signald.service.events import WorkerRegistered, WorkerResumed
from signald.service.giving_up import GivingUp
from signald.store.base import CLOCK_SET_MS
from signald.store.registry.ops import ListWorkers, WorkerInfo, WorkerSessions


class LostWorkers:
    """See the module."""

    def __init__(self, context: Context, attachments: Attachments, giving_up: GivingUp, sight: Sight) -> None:
        self._context = context
        self._attachments = attachments
        self._giving_up = giving_up
        self._sight = sight
        self._clock_sets = sight.clock_sets
        self._lost: dict[tuple[str, int], float] = {}
        """Workers found on a node that is not live or does not have them, with the epoch of their claim → since when (trio
        time). A worker that has claimed since was there meanwhile, and so was one that was let in here (`_let_in`), however far
        apart two sweeps are."""
        self._no_way_back = False
        """Since the last sweep there was a time without any node, or without the store: no worker could come back then."""
        self._counts_from_ms = 0
        """When a way back was found again. What a worker may be away does not count from before."""
        self._orphans: dict[tuple[SessionId, bool], float] = {}
        """Sessions here whose worker is not attached, and whether the registry knows it → since when (trio time)."""
        context.events.subscribe(WorkerRegistered, lambda event: self._let_in(event.worker))
        context.events.subscribe(WorkerResumed, lambda event: self._let_in(event.worker))

    def _let_in(self, worker: str) -> None:
        """A worker is attached here. Where a sweep came between the grant of its claim and this, it was taken for lost."""
        self._lost = {claim: since for claim, since in self._lost.items() if claim[0] != worker}

    def no_way_back(self) -> None:
        """No worker can come back now: the time until one can counts for none of them."""
        self._no_way_back = True

    async def sweep(self) -> None:
        context, attachments, giving_up = self._context, self._attachments, self._giving_up
        listed = await context.committer.call(ListWorkers())
        now_ms, now = context.now_ms(), trio.current_time()
        if self._no_way_back or self._sight.clock_sets != self._clock_sets:
            self._no_way_back, self._counts_from_ms, self._lost = False, now_ms, {}
            self._clock_sets = self._sight.clock_sets
        config = context.config
        lost = [
            (info.id, info.epoch)
            for info in listed.workers
            if not self._is_timed(info, now_ms) and not self._is_held(info)
        ]
        self._lost = {claim: self._lost.get(claim, now) for claim in lost}
        for info in listed.workers:
            timeout_s = config.deepstream.resume_timeout_s if is_named(info.id) else config.worker.resume_timeout_s
            if self._is_overdue(info, now_ms, now, timeout_s):
                lost_ms = info.away_since_ms if self._is_timed(info, now_ms) and not info.leaving else 0
                await giving_up.give_up(info.id, info.epoch, "did not come back", lost_ms=lost_ms)
        known = {info.id for info in listed.workers}
        for link in [link for name, link in attachments.workers.items() if name not in known]:
            link.check()  # its record is damaged, or it was given up
        await self._sweep_orphans(known, now)

    async def _sweep_orphans(self, workers: set[str], now: float) -> None:
        """Sessions whose worker will not ask for them: it was away when the store was lost, so no node could give it back.

        No node knows the worker any more, or it came back just then, was told that the session is lost, and the registry,
        which was filled again without the pair, will not tell it otherwise.
        """
        context, attachments, giving_up = self._context, self._attachments, self._giving_up
        orphans = {
            (session.id, session.worker_id in workers): session
            for session in attachments.sessions.values()
            if session.client.link is not None
            and session.worker_id
            and (session.worker_id not in workers or session.worker.node not in context.cluster.nodes)
        }
        self._orphans = {key: self._orphans.get(key, now) for key in orphans}
        pairs: dict[str, tuple[str, ...]] = {}
        for key, since in list(self._orphans.items()):
            session, (_, registered) = orphans[key], key
            if now - since <= context.config.worker.resume_timeout_s or not session.worker_id:
                continue  # or it was taken from its worker while others were looked after
            if registered:
                worker = session.worker_id
                if worker not in pairs:
                    pairs[worker] = await self._sessions_of(worker)
                if session.id in pairs[worker]:
                    self._orphans[key] = now  # its worker is awaited; ask again in as long
                    continue
                if session.worker_id != worker or session.worker.node in context.cluster.nodes:
                    continue
            elif context.config.worker.on_loss == "hold":
                continue
            await giving_up.take_from(session)

    async def _sessions_of(self, worker: str) -> tuple[str, ...]:
        paired = await self._context.committer.call(WorkerSessions(worker))
        return paired.sessions

    @staticmethod
    def _is_timed(info: WorkerInfo, now_ms: int) -> bool:
        """Tell whether a worker's node has said when it was lost, by a clock that has not been set back since."""
        return not info.node and info.away_since_ms - now_ms <= CLOCK_SET_MS

    def _is_held(self, info: WorkerInfo) -> bool:
        """Tell whether the node the registry names for a worker lives and, if it is this one, has or awaits the worker."""
        if info.node == self._context.node:
            return self._attachments.holds(info.id)
        return info.node in self._context.cluster.nodes

    def _is_overdue(self, info: WorkerInfo, now_ms: int, now: float, timeout_s: float) -> bool:
        if self._is_timed(info, now_ms):
            away_since_ms = max(info.away_since_ms, self._counts_from_ms)
            return bool(info.away_since_ms) and now_ms - away_since_ms > timeout_s * 1000
        # Its node died with it, or granted its claim to a connection that was gone. No node has said when it was lost, so
        # its time begins when it is noticed.
        claim = info.id, info.epoch
        return claim in self._lost and now - self._lost[claim] > timeout_s
