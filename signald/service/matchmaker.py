"""Pairs waiting sessions with workers. One pass at a time, and only when something may have changed.

Every node runs one. A pass reads the workers from the registry, then the waiting sessions that those with room suit
(`core.wants`), decides (`core.pairing`), and reserves; the store grants each pair at most once, so passes of several nodes cannot
collide, only waste a little. What a pass costs depends on the workers and on the pairs it makes: sessions that no worker with
room suits are not read, however many wait.
"""

import structlog
import trio

from signald.core.pairing import Candidate, match, with_room
from signald.core.wants import offer, within_tenant
from signald.errors import StoreUnavailable
from signald.service.attached import LiveSession
from signald.service.attachments import Attachments
from signald.service.context import Context
from signald.service.line import enqueue
from signald.service.successors import asking, tell
from signald.store.committer import RETRY_MAX_S
from signald.store.registry.ops import (
    ListSuited,
    ListWorkers,
    MendLine,
    Reserve,
    Waiting,
    WorkerInfo,
)

log = structlog.get_logger(__name__)

WAITING_LIMIT = 500
"""Sessions looked at in one pass: what one reservation may hold up the registry for."""

OFFERS_MAX = 500
"""Different offers of workers searched for in one pass. With more, each pass goes on where the last one ended."""

EDGES_MAX = 8192
"""Questions about the tree of wants in one pass, divided among its offers: about 10 ms of Redis. A worker with five labels takes
32 at most, so only clients that know a dozen labels of one worker can make a search end early; it begins with the short wants."""

MEND_LIMIT = 250
"""Places entered in the lines by want in one step, after an earlier release has written them: 1 ms of Redis."""

RETRY_S = 1.0
"""A pass is made at least this often while sessions wait here, should a wake-up have been lost."""

GIVE_BACK_S = 2 * RETRY_MAX_S
"""How long the sessions in a store that was away are left to the nodes that may give back what it has lost (`mender`): a session
that has a worker looks like one that waits, when a replica took over that never heard of its pairing. By then every node that
tries at all has reached the store, and has looked."""

QUEUE_AGAIN_S = 15.0
"""How often sessions that wait here are put in line again, places or not: an operation that was asked for when the store knew nothing
of a session, such as to forget it, may be carried out when the session has been given back."""


class Matchmaker:
    """See the module."""

    def __init__(self, context: Context, attachments: Attachments) -> None:
        self._context = context
        self._attachments = attachments
        self._poked = self._context.inboxes.line
        self._back_at = float("-inf")
        """When the store had come back of which the sessions here were put in line again."""
        self._queued_at = float("-inf")
        self._cursor = 0
        """Where the next `MendLine` goes on."""
        self._turn = 0
        """With which offer the next pass begins."""
        self.pairs = 0

    async def run(self) -> None:
        """Make passes until cancelled."""
        while True:
            with trio.move_on_after(RETRY_S):
                await self._poked.wait()
            if not self._poked.is_set and not self._concerned():
                continue
            self._poked.clear()
            try:
                await self._queue_again()
                while await self.once():
                    await trio.lowlevel.checkpoint()
                await self._tell_leaving()
            except StoreUnavailable:
                await trio.sleep(RETRY_S)
                self._poked()

    def _concerned(self) -> bool:
        attachments = self._attachments
        return any(map(_waits_here, attachments.sessions.values())) or bool(asking(attachments.workers.values()))

    async def _tell_leaving(self) -> None:
        """Tell workers here that leave for which of their sessions others have room, behind those that wait already."""
        if not asking(self._attachments.workers.values()):
            return
        free = await self._free()
        tell(asking(self._attachments.workers.values()), free)
        self._context.writes.flush()

    async def _queue_again(self) -> None:
        """Put the sessions that wait here in line again after the store was away, and now and then: a session may have lost its place."""
        context, attachments = self._context, self._attachments
        back_at, now = context.committer.back_at, trio.current_time()
        if back_at == self._back_at and now - self._queued_at < QUEUE_AGAIN_S:
            return
        now_ms = context.now_ms()
        waiting = [one for one in attachments.sessions.values() if _waits_here(one) and one.failures.may_queue(now_ms)]
        alive_until = context.now_ms() + context.life_ms
        for start in range(0, len(waiting), WAITING_LIMIT):
            part = [one for one in waiting[start : start + WAITING_LIMIT] if _waits_here(one)]
            await context.committer.call_many([enqueue(one, alive_until) for one in part])
        self._back_at, self._queued_at = back_at, now

    async def once(self) -> bool:
        """Pair once; True when there may be more to do at once."""
        context, attachments = self._context, self._attachments
        free = await self._free()
        if not free:
            return False
        waiting = await self._suited(free)
        back_s = trio.current_time() - context.committer.back_at
        # A session that waits here and is left out is matched again in RETRY_S.
        newer_ms = context.now_ms() - back_s * 1000 if back_s < GIVE_BACK_S else 0
        line = [(one.session, one.want) for one in waiting.sessions if one.order_ms >= newer_ms]
        pairs = match(line, free, attachments.withdrawals.refused)
        held = await self._reserve(pairs) if pairs else []
        behind = (waiting.behind or self._has_company()) and await self._mend_line()
        # Each line gives an equal share of what is read: there may be more in one of them.
        return bool(held) or behind

    async def _free(self) -> list[Candidate]:
        """Read the workers that may be given sessions now."""
        listed = await self._context.committer.call(ListWorkers())
        return with_room([_candidate(info) for info in listed.workers if self._may_serve(info)])

    async def _reserve(self, pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
        context, attachments = self._context, self._attachments
        reserved = await context.committer.call(Reserve(context.node, tuple(pairs)))
        held = [pair for pair, ok in zip(pairs, reserved.held, strict=True) if ok]
        self.pairs += len(held)
        for worker in dict.fromkeys(worker for _, worker in held):
            link = attachments.workers.get(worker)
            if link is not None:
                link.check()
        return held

    async def _suited(self, free: list[Candidate]) -> Waiting:
        """Read what the workers in `free` suit: as many sessions as one pass may pair."""
        offers = list(dict.fromkeys([offer(worker.labels) for worker in free]))
        if len(offers) > OFFERS_MAX:
            self._turn = (self._turn + OFFERS_MAX) % len(offers)
            offers = (offers[self._turn :] + offers[: self._turn])[:OFFERS_MAX]
        edges_max = EDGES_MAX // len(offers)
        return await self._context.committer.call(ListSuited(tuple(offers), WAITING_LIMIT, edges_max))

    async def _mend_line(self) -> bool:
        """Take over some of what an earlier release has written; True while there is more of it."""
        mended = await self._context.committer.call(MendLine(self._cursor, MEND_LIMIT))
        self._cursor = mended.cursor
        return self._cursor > 0

    def _has_company(self) -> bool:
        """Tell whether nodes of another release share the store: as many places gone as come leave no trace in the counts."""
        return len({node.release for node in self._context.cluster.nodes.values()}) > 1

    def _may_serve(self, info: WorkerInfo) -> bool:
        """A worker on a node that drains is about to move: its new sessions would move at once."""
        if info.leaving or not info.node:
            return False
        node = self._context.cluster.nodes.get(info.node)
        return node is None or node.state == "ready"


def _waits_here(session: LiveSession) -> bool:
    at_all = session.pair and session.client.link is not None and not session.worker_id and not session.ending
    return at_all and not session.set_aside_at


def _candidate(info: WorkerInfo) -> Candidate:
    return Candidate(info.id, within_tenant(info.labels, info.principal), info.capacity, info.assigned)
