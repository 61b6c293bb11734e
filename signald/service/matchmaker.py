"""Pairs waiting sessions with workers. One pass at a time, and only when something may have changed.

Every node runs one. A pass reads the waiting line and the workers from the registry, decides (`core.pairing`), and
reserves; the store grants each pair at most once, so passes of several nodes cannot collide, only waste a little.
"""

from typing import TYPE_CHECKING

import structlog
import trio

from signald.core.pairing import Candidate, match, with_room
from signald.errors import StoreUnavailable
from signald.service.relay import LiveSession
from signald.store.base import Enqueue, ListWaiting, ListWorkers, Reserve, Reserved, Waiting, WorkerInfo, Workers
from signald.store.committer import RETRY_MAX_S

if TYPE_CHECKING:
    from signald.service.hub import Hub

log = structlog.get_logger(__name__)

WAITING_LIMIT = 500
"""Sessions looked at in one pass: what one reservation may hold up the registry for."""

RETRY_S = 1.0
"""A pass is made at least this often while sessions wait here, should a wake-up have been lost."""

GIVE_BACK_S = 2 * RETRY_MAX_S
"""How long the sessions in a store that was away are left to those who may give it back what it has lost (`mender`): one that
has a worker looks like one that waits, when a replica took over that never heard of its pairing. By then every node that
tries at all has reached the store, and has looked."""

QUEUE_AGAIN_S = 15.0
"""How often who waits here is put in line again, places or not: an operation that was asked for when the store knew nothing
of a session, such as to forget it, may be carried out when the session has been given back."""


class Matchmaker:
    """See the module."""

    def __init__(self, hub: "Hub") -> None:
        self._hub = hub
        self._poked = trio.Event()
        self._back_at = float("-inf")
        """When the store had come back of which the sessions here were put in line again."""
        self._queued_at = float("-inf")
        self.pairs = 0

    def poke(self) -> None:
        """Something may have changed: a session waits, a worker has room."""
        self._poked.set()

    async def run(self) -> None:
        """Make passes until cancelled."""
        while True:
            with trio.move_on_after(RETRY_S):
                await self._poked.wait()
            if not self._poked.is_set() and not self._concerned():
                continue
            self._poked = trio.Event()
            try:
                await self._queue_again()
                while await self._pass():
                    await trio.lowlevel.checkpoint()
            except StoreUnavailable:
                await trio.sleep(RETRY_S)
                self.poke()

    def _concerned(self) -> bool:
        return any(_waits_here(session) for session in self._hub.sessions.values())

    async def _queue_again(self) -> None:
        """Put who waits here in line again after the store was away, and now and then: a session may have lost its place."""
        hub = self._hub
        back_at, now = hub.committer.back_at, trio.current_time()
        if back_at == self._back_at and now - self._queued_at < QUEUE_AGAIN_S:
            return
        waiting = [session for session in hub.sessions.values() if _waits_here(session)]
        alive_until = hub.store.now_ms() + hub.life_ms
        for start in range(0, len(waiting), WAITING_LIMIT):
            part = [one for one in waiting[start : start + WAITING_LIMIT] if _waits_here(one)]
            await hub.committer.call_many([Enqueue(one.id, one.want, one.created_ms, alive_until) for one in part])
        self._back_at, self._queued_at = back_at, now

    async def _pass(self) -> bool:
        """Pair once; True when there may be more to do at once."""
        hub = self._hub
        waiting = await hub.committer.call(ListWaiting(WAITING_LIMIT))
        assert isinstance(waiting, Waiting)
        if not waiting.sessions:
            return False
        listed = await hub.committer.call(ListWorkers())
        assert isinstance(listed, Workers)
        free = with_room([_candidate(info) for info in listed.workers if self._may_serve(info)])
        if not free:
            return False
        back_s = trio.current_time() - hub.committer.back_at
        # Whoever waits here and is left out is thought of again in RETRY_S.
        newer_ms = hub.store.now_ms() - back_s * 1000 if back_s < GIVE_BACK_S else 0
        line = [(one.session, one.want) for one in waiting.sessions if one.order_ms >= newer_ms]
        pairs = match(line, free, hub.workers.refused_pairs)
        if not pairs:
            return False
        reserved = await hub.committer.call(Reserve(hub.node, tuple(pairs)))
        assert isinstance(reserved, Reserved)
        held = [pair for pair, ok in zip(pairs, reserved.held, strict=True) if ok]
        self.pairs += len(held)
        for worker in dict.fromkeys(worker for _, worker in held):
            link = hub.worker_links.get(worker)
            if link is not None:
                hub.workers.check(link)
        return bool(held) and len(waiting.sessions) == WAITING_LIMIT

    def _may_serve(self, info: WorkerInfo) -> bool:
        """A worker on a node that drains is about to move: its new sessions would move at once."""
        if info.leaving or not info.node:
            return False
        node = self._hub.cluster.nodes.get(info.node)
        return node is None or node.state == "ready"


def _waits_here(session: LiveSession) -> bool:
    return session.client.link is not None and not session.worker_id and not session.ending


def _candidate(info: WorkerInfo) -> Candidate:
    return Candidate(info.id, info.labels, info.capacity, info.assigned)
