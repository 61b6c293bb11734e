"""How a session ends: by the `bye` of a party, by order, by its time, or because no party can ever have heard of it.

It is over when the store has let go of it; the parties here are told then, and nothing of it is left
(`Attachments.end`, `Attachments.gone`).
"""

import trio

from signald.core.head import Head
from signald.service.attached import LiveSession, PartyLink
from signald.service.attachments import Attachments, carried
from signald.service.context import Context
from signald.service.counts import EndCause
from signald.service.events import Carried, SessionEnded, SessionGone
from signald.service.pasts import UNHEARD, take_back
from signald.store.sagas import end_session
from signald.store.session.ops import Ended
from signald.wire.close_codes import CloseCode

BYE_LINGER_S = 2.0
"""How long a session that a party ends waits for its peer to take what was already accepted for it."""

CONNECTION_OVER = "connection over"
"""Why a session ends whose client has no word for resuming."""

LOOK_EVERY_S = 0.02
"""How often the wait looks whether the peer has it: a fraction of a round trip, so that the end is not late for it."""


def gone_unheld(head: Head, reason: str, now_ms: int) -> SessionGone:
    """Return the event for a session that this node has ended and did not hold."""
    carried = Carried(head.up_last, head.down_last, 0, 0)
    return SessionGone(head.session, reason, False, carried, max(0, now_ms - head.created_ms))


class Endings:
    """See the module."""

    def __init__(self, context: Context, attachments: Attachments) -> None:
        self._context = context
        self._attachments = attachments

    async def by_client(self, session: LiveSession, link: PartyLink, reason: str) -> None:
        """A client said `bye`: the worker takes what was accepted for it, then everything of the session goes."""
        await self._linger(session)
        await self._attachments.end(session, reason, "client")
        if not link.over:
            link.goodbye(reason)
            link.close(CloseCode.NORMAL)

    async def by_worker(self, session: LiveSession, reason: str) -> None:
        """A worker said `bye` for one session."""
        await self._linger(session)
        await self._attachments.end(session, reason, "worker")

    async def by_order(self, session: str, reason: str, cause: EndCause) -> bool:
        """End a session at once, wherever its parties are; False when there is none.

        An operator or a program has ordered it: what was accepted for the parties, and not delivered, is lost. Raises StoreUnavailable.
        """
        return await self._at_once(session, reason, cause)

    async def forbidden(self, session: str, reason: str) -> bool:
        """End a session as `by_order` does, because its client may not stay: here the client is closed with 4403 and told why."""
        return await self._at_once(session, "forbidden", "forbidden", why=reason)

    async def _at_once(self, session: str, reason: str, cause: EndCause, why: str | None = None) -> bool:
        context = self._context
        held = self._attachments.sessions.get(session)
        ops = self._attachments.pasts.end(session, held.principal if held is not None else "", reason)
        ended, *_ = await context.committer.call_many(ops)
        if not isinstance(ended, Ended):
            return False
        self._attachments.pasts.count(ended)
        context.events.emit(SessionEnded(session, cause))
        held = self._attachments.sessions.get(session)
        if held is not None:
            if why is not None and held.client.link is not None:
                # The first close that is begun counts: the one of an ended session comes behind.
                held.client.link.fail(CloseCode.FORBIDDEN, "forbidden", why)
            self._attachments.gone(held, reason)
        else:
            context.events.emit(gone_unheld(ended.head, reason, context.now_ms()))
        return True

    def unheard(self, session: LiveSession, link: PartyLink) -> None:
        """The client was gone before its new session could be told to it: no party has its token, so none can ever resume it."""
        link.ending = True
        for op in take_back(self._context, session.id):
            self._context.submit(op)
        self._context.events.emit(SessionEnded(session.id, "unheard"))
        self._attachments.gone(session, UNHEARD, say_to_client=False)

    def with_connection(self, session: LiveSession) -> None:
        """The connection of a client that has no word for resuming is over: its session, which is not held here any more, ends with it.

        Nothing is waited for, because no party is left to be told.
        """
        context, reason = self._context, CONNECTION_OVER
        ops = end_session(session.id, context.node, context.now_ms(), reason=reason, told=context.events_max > 0)
        for op in ops:
            context.submit(op)
        context.events.emit(SessionEnded(session.id, "client"))
        lasted_ms = max(0, context.now_ms() - session.created_ms)
        context.events.emit(SessionGone(session.id, reason, True, carried(session), lasted_ms))

    async def _linger(self, session: LiveSession) -> None:
        with trio.move_on_after(BYE_LINGER_S):
            while (
                session.up.pending
                or session.down.pending
                or (session.worker.node and session.up.acked < session.up.last)
                or (session.client.node and session.down.acked < session.down.last)
            ):
                await trio.sleep(LOOK_EVERY_S)
                self._attachments.relay.look(session)
