"""The end of workers that know no GOAWAY, one by one: each is asked to clean up, answers, and is closed.

    begin ─▸ terminate_app ─▸ app_terminated ─▸ given up, close 1000        the worker is through: it is forgotten
                  │  ▲
                  │  └ app_busy: more time, up to the limit
                  ▼
              no answer in time ─▸ close 1001                               it may come back, and finds what it had

A drain ends so all workers with `cleans_up_s`, and an operator ends one. Each end has a task of its own among the connections,
which the deadline bounds.
"""

from typing import Literal

import attrs
import structlog
import trio

from signald.errors import StoreUnavailable
from signald.ids import is_named
from signald.service.assigning import Assignments
from signald.service.attachments import Attachments
from signald.service.context import Context
from signald.service.giving_up import GivingUp
from signald.service.worker_like import WorkerLike
from signald.wire.close_codes import CloseCode

log = structlog.get_logger(__name__)

Ended = Literal["ok", "failed", "late", "gone"]
"""How the end of a worker came: it has cleaned up, has said that it could not, has not answered in time, or has gone without a word."""

GIVE_UP_S = 1.0
"""How long the store may take to forget a worker that has cleaned up, before its close: it has nothing to wait for. A worker
that is not forgotten by then goes as one that is away."""


@attrs.define(eq=False)
class _Ending:
    """One worker that was asked to clean up. Times are trio times."""

    link: WorkerLike
    request: str
    reason: str
    deadline: float
    limit: float
    """No word of the worker moves the deadline beyond it."""
    status: str | None = None
    """By the worker's word, once it has answered."""
    news: trio.Event = attrs.field(factory=trio.Event)


class Terminations:
    """See the module."""

    def __init__(
        self, context: Context, attachments: Attachments, assignments: Assignments, giving_up: GivingUp
    ) -> None:
        self._context = context
        self._attachments = attachments
        self._assignments = assignments
        self._giving_up = giving_up
        self._under_way: dict[WorkerLike, _Ending] = {}
        self._number = 0
        self._ended = trio.Event()
        """Set, and replaced, with each end."""

    @property
    def count(self) -> int:
        """How many workers have been asked and have not come to their end."""
        return len(self._under_way)

    def has(self, link: WorkerLike) -> bool:
        """Tell whether a worker has been asked."""
        return link in self._under_way

    async def wait_idle(self) -> None:
        """Wait until every worker that was asked has come to its end."""
        while self._under_way:
            await self._ended.wait()

    def begin(self, link: WorkerLike, reason: str, timeout_s: float, limit_s: float) -> str:
        """Ask a worker to clean up within `timeout_s`, or within `limit_s` where it says that it is busy.

        Returns the id of the request; that of the one under way, if there is one.
        """
        if (asked := self._under_way.get(link)) is not None:
            return asked.request
        ending = self._enter(link, reason, timeout_s, limit_s)
        # Its client stays with it until it is through; no other is paired with it.
        self._assignments.update(link, link.capacity, True)
        link.terminate(ending.request, reason, round(1000 * (ending.deadline - trio.current_time())))
        self._context.writes.flush()
        return ending.request

    def order(self, worker: str) -> None:
        """An operator ends a worker. Nothing happens to one that is not here, nor to one that speaks a wire without such an end."""
        link = self._attachments.workers.get(worker)
        if link is not None and is_named(worker):
            config = self._context.config
            self.begin(link, "operator", config.deepstream.terminate_timeout_s, config.drain.timeout_s)

    def _enter(self, link: WorkerLike, reason: str, timeout_s: float, limit_s: float) -> _Ending:
        now = trio.current_time()
        self._number += 1
        request = f"{self._context.node}-{link.conn.id}-{self._number}"
        limit = now + limit_s
        ending = _Ending(link, request, reason, min(limit, now + timeout_s), limit)
        self._under_way[link] = ending
        self._context.spawn(self._see_it_end, ending)
        return ending

    # --- what the worker says ---------------------------------------------------------------------------------------

    def answered(self, link: WorkerLike, request: str, status: str) -> None:
        """A worker has cleaned up, or says that it could not. One that was not asked leaves by itself."""
        ending = self._under_way.get(link)
        if ending is None:
            ending = self._enter(link, "left by itself", GIVE_UP_S, GIVE_UP_S)
        elif request != ending.request:
            log.info("app_answers_another_request", worker=link.worker, request=ending.request)
        if ending.status is None:
            ending.status = status
            ending.news.set()

    def busy(self, link: WorkerLike, until: float) -> None:
        """A worker needs until `until` (trio time), as far as the limit allows. Nothing is shortened by it."""
        ending = self._under_way.get(link)
        if ending is not None:
            ending.deadline = max(ending.deadline, min(until, ending.limit))
            ending.news.set()

    def over(self, link: WorkerLike) -> None:
        """The link of a worker is over."""
        ending = self._under_way.get(link)
        if ending is not None:
            ending.news.set()

    # --- the end ----------------------------------------------------------------------------------------------------

    async def _see_it_end(self, ending: _Ending) -> None:
        link = ending.link
        try:
            while ending.status is None and not link.over and trio.current_time() < ending.deadline:
                with trio.move_on_at(ending.deadline):
                    await ending.news.wait()
                ending.news = trio.Event()
            how = self._how(ending)
            self._context.counts.apps_ended[how] += 1
            if how == "ok":
                log.info("app_ended", worker=link.worker, instance=link.instance, reason=ending.reason)
            else:
                log.warning(
                    "app_ended_badly", worker=link.worker, instance=link.instance, how=how, reason=ending.reason
                )
            if how == "late":
                link.close(CloseCode.GOING_AWAY, "not terminated in time")
            elif how != "gone":
                await self._forget(link)
                link.close(CloseCode.NORMAL, "terminated")
            await link.conn.wait_closed()
        finally:
            del self._under_way[link]
            self._ended.set()
            self._ended = trio.Event()

    @staticmethod
    def _how(ending: _Ending) -> Ended:
        if ending.status is not None:
            return "ok" if ending.status.upper() == "OK" else "failed"
        return "gone" if ending.link.over else "late"

    async def _forget(self, link: WorkerLike) -> None:
        """Take the worker's sessions from it, and its record from the registry: it is not coming back."""
        try:
            with trio.move_on_after(GIVE_UP_S):
                await self._giving_up.give_up(link.worker, link.epoch, "terminated", leaving=True)
        except StoreUnavailable:
            log.warning("app_not_forgotten", worker=link.worker)
