"""The life of sessions: renewed while a client is attached here, and ended by any node when it is over.

renew     the life of the sessions with a client here     every third of the resume time
sweep     sessions whose life is over                     every second or so (`sweeps`)
overdue   a session that the store says is here           when another node has found it overdue
"""

import structlog
import trio

from signald.core.holders import principal_holder
from signald.errors import StoreUnavailable
from signald.service.asking import ask_holders
from signald.service.attachments import Attachments
from signald.service.context import Context
from signald.service.endings import gone_unheld
from signald.service.events import SessionEnded
from signald.store.base import WAKE_OVERDUE, WAKE_SESSION, Behind, Op
from signald.store.committer import ignore
from signald.store.registry.ops import KeepAlive, ListOverdue, Signal
from signald.store.sagas import end_session, forget_session
from signald.store.session.ops import Detach, Ended, ExpireSession, Look, Looked

log = structlog.get_logger(__name__)

OVERDUE_LIMIT = 200
"""Sessions swept at once: what one sweep may ask of the store."""


class Lives:
    """See the module."""

    def __init__(self, context: Context, attachments: Attachments) -> None:
        self._context = context
        self._attachments = attachments

    async def run_renewals(self) -> None:
        """Renew the life of the sessions whose client is here, until cancelled."""
        context, attachments = self._context, self._attachments
        while True:
            # A shorter life that is set by a reload holds for new sessions at once: they must not wait for the old turn.
            with trio.move_on_after(context.config.session.resume_ttl_s / 3):
                await context.config_changed.wait()
            here = [session for session in attachments.sessions.values() if session.client.link is not None]
            until = context.now_ms() + context.life_ms
            if context.untold.doubted:
                context.untold.doubted = False
                for session in here:
                    context.untold.note(session.id)
            for start in range(0, len(here), 500):
                part = here[start : start + 500]
                holders = tuple([principal_holder(session.principal) for session in part])
                context.committer.submit(KeepAlive(tuple([one.id for one in part]), until, holders), ignore)

    async def sweep(self) -> None:
        context, attachments = self._context, self._attachments
        now = context.now_ms()
        overdue = await context.committer.call(ListOverdue(now, OVERDUE_LIMIT))
        if not overdue.sessions:
            return
        nodes = tuple(context.cluster.nodes)
        ops: list[Op] = [
            ExpireSession(name, context.node, nodes, now, context.ttl_ms, attachments.pasts.keep_ms(name), "expired")
            for name in overdue.sessions
        ]
        results = await context.committer.call_many(ops)
        if damaged := [place for place, result in enumerate(results) if isinstance(result, Behind)]:
            await ask_holders(
                context, attachments, [WAKE_SESSION + overdue.sessions[place].encode() for place in damaged]
            )
            again = await context.committer.call_many([ops[place] for place in damaged])
            for place, result in zip(damaged, again, strict=True):
                results[place] = result
        after: list[Op] = []
        for name, result in zip(overdue.sessions, results, strict=True):
            session = attachments.sessions.get(name)
            if isinstance(result, Ended):
                log.info("session_expired", session=name)
                attachments.pasts.count(result)
                context.events.emit(SessionEnded(name, "expired"))
                if session is None:
                    context.events.emit(gone_unheld(result.head, "expired", now))
                if session is not None:
                    attachments.gone(session, "expired")
                after += self._forget(name, now)
            elif session is not None and session.client.link is not None:
                after.append(KeepAlive((name,), now + context.life_ms))
            elif isinstance(result, Behind):
                # It cannot be read, its time is over, and no node has given it back.
                log.error("session_unreadable", session=name)
                after += end_session(
                    name, context.node, context.now_ms(), reason="unreadable", told=context.events_max > 0
                )
                if session is not None:
                    attachments.gone(session, "expired")
            else:
                # It lives elsewhere, or there is none: ask again in a while, and forget it if no node renews it.
                after += await self._unclaimed(name, now)
        await context.committer.call_many(after)

    async def _unclaimed(self, name: str, now: int) -> list[Op]:
        looked = await self._context.committer.call(Look(name, "client", 0, 0))
        if not isinstance(looked, Looked):
            return self._forget(name, now)
        head = looked.head
        ops: list[Op] = [KeepAlive((name,), now + self._context.ttl_ms)]
        if head.client_node == self._context.node:
            # A claim was granted here and its connection was gone before the answer: no detach was sent.
            ops.append(Detach(name, "client", self._context.node, head.client_epoch, now))
        elif head.client_node:
            # Only that node can tell, and the first node to sweep has just put it off: it would be put off for ever.
            ops.append(Signal(head.client_node, WAKE_OVERDUE + name.encode()))
        return ops

    def _forget(self, name: str, now: int) -> list[Op]:
        """A session is over. The node that has ended it may have been killed before the agenda knew of its last events."""
        return [*forget_session(name, now, told=self._context.events_max > 0)]

    def overdue(self, name: str) -> None:
        """Another node has found that the life of a session has passed whose client is said to be here."""
        self._context.spawn(self._answer_for, name)

    async def _answer_for(self, name: str) -> None:
        context, attachments = self._context, self._attachments
        now = context.now_ms()
        session = attachments.sessions.get(name)
        try:
            if session is not None and session.client.link is not None:
                await context.committer.call(KeepAlive((name,), now + context.life_ms))
            elif (ops := await self._unclaimed(name, now))[1:]:
                await context.committer.call_many(ops)
        except StoreUnavailable:
            pass  # the next node that sweeps asks again
