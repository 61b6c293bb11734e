"""How a session ends: by the `bye` of a party, by its time, or because nobody has heard of it.

It is over when the store has let go of it; the parties here are told then, and nothing of it is left.
"""

from typing import TYPE_CHECKING

import structlog
import trio

from signald.errors import StoreUnavailable
from signald.service.client_link import ClientLink
from signald.service.counts import EndCause
from signald.service.relay import LiveSession
from signald.service.worker_link import WorkerLink
from signald.store.base import Op
from signald.store.committer import ignore
from signald.store.registry.ops import Forget
from signald.store.session.ops import Ended, EndSession
from signald.wire.close_codes import CloseCode
from signald.wire.messages import PeerChanged, SessionEnded

if TYPE_CHECKING:
    from signald.service.hub import Hub

log = structlog.get_logger(__name__)

BYE_LINGER_S = 2.0
"""How long a session that a party ends waits for its peer to take what was already accepted for it."""


class Endings:
    """See the module."""

    def __init__(self, hub: "Hub") -> None:
        self._hub = hub

    async def by_client(self, session: LiveSession, link: ClientLink, reason: str) -> None:
        """A client said `bye`: the worker takes what was accepted for it, then everything of the session goes."""
        await self._linger(session)
        await self._end(session, reason, "client")
        if not link.over:
            link.send(SessionEnded(reason))
            link.close(CloseCode.NORMAL)

    async def by_worker(self, session: LiveSession, reason: str) -> None:
        """A worker said `bye` for one session."""
        await self._linger(session)
        await self._end(session, reason, "worker")

    def unheard(self, link: ClientLink) -> None:
        """The client was gone before its new session could be told to it: nobody has its token, so nobody can ever resume it."""
        session = link.session
        link.ending = True
        for op in self._ops(session):
            self._hub.committer.submit(op, ignore)
        self._hub.counts.ended["unheard"] += 1
        self.gone(session, "nobody has heard of it", say_to_client=False)

    async def spent(self, session: LiveSession) -> None:
        """A session ends in which no further message could be given a number."""
        log.info("numbers_spent", session=session.id, up=session.up.last, down=session.down.last)
        await self._end(session, "numbers spent", "spent")

    async def _linger(self, session: LiveSession) -> None:
        with trio.move_on_after(BYE_LINGER_S):
            while (
                session.up.pending
                or session.down.pending
                or (session.worker.node and session.up.acked < session.up.last)
                or (session.client.node and session.down.acked < session.down.last)
            ):
                await trio.sleep(0.02)
                self._hub.relay.look(session)

    async def _end(self, session: LiveSession, reason: str, cause: EndCause) -> None:
        hub = self._hub
        session.ending = True
        ops = self._ops(session)
        try:
            ended, _ = await hub.committer.call_many(ops)
            hub.counts.ended[cause] += isinstance(ended, Ended)  # the other party may have said it too
        except StoreUnavailable:
            # The parties are through with it; the store hears of it when it is back.
            for op in ops:
                hub.committer.submit(op, ignore)
            hub.counts.ended[cause] += 1
        self.gone(session, reason, say_to_client=False)

    def _ops(self, session: LiveSession) -> list[Op]:
        return [EndSession(session.id, self._hub.node), Forget(session.id)]

    def gone(self, session: LiveSession, reason: str, *, say_to_client: bool = True) -> None:
        """The session is over in the store: tell the parties here and let go of it."""
        hub = self._hub
        if hub.sessions.get(session.id) is not session:
            return
        hub.counters.sessions_ended += 1
        hub.holdings.forget(session.id)
        session.end()
        client, worker = session.client.link, session.worker.link
        session.detach("client")
        session.detach("worker")
        hub.let_go(session)  # a store that fails over may bring it back as it was before
        if isinstance(worker, WorkerLink):
            worker.end_session(session.id, reason)
            hub.inboxes.line()
        if isinstance(client, ClientLink) and (say_to_client or not client.ending):
            client.send(PeerChanged("gone"))
            client.send(SessionEnded(reason))
            client.close(CloseCode.SESSION_ENDED, reason[:100])
        if hub.watcher is not None:
            hub.watcher.client_left(session.id)
        hub.outbox.flush()
        hub.trail.note(session.id, "", "ended", reason)
        log.info("session_ended", session=session.id, reason=reason)
