"""The parties attached at this node: how one is attached, how it is released, and what the store's news do to it.

    opening ─▸ adopt, attach, open ─▸ LIVE ─▸ release(link, cause) ─▸ what `core.exits.EXITS` says for the cause

A *link* is a party's connection (`attached.PartyLink`); no wire is known here. A session is held while a party of it is
attached here. The relay belongs to the attachments: what it finds out from the store comes back here as `RelayEvents`.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Literal

import structlog
import trio

from signald.config import Config
from signald.core.exits import CLAIMED, EXITS, GIVEN, Cause, Exit, Handover, Holding, StoreStep, of_claim
from signald.core.head import Head, Party
from signald.core.session import News, Session
from signald.core.tokens import Slots
from signald.errors import StoreUnavailable
from signald.service.attached import LiveSession, PartyLink
from signald.service.context import Context
from signald.service.counts import EndCause
from signald.service.departed import Departed
from signald.service.events import (
    Carried,
    JobOver,
    LinkOver,
    PartyReleased,
    SessionChanged,
    SessionEnded,
    SessionGone,
    SessionLeft,
)
from signald.service.holdings import Holdings
from signald.service.line import leave_if_away
from signald.service.losses import Losses
from signald.service.pasts import Pasts
from signald.service.realtime import RealtimeCarrier
from signald.service.relay import Relay
from signald.service.relay_needs import RelaySettings
from signald.service.retries import Retries
from signald.service.streams import StreamCare
from signald.service.withdrawals import Withdrawals
from signald.service.worker_like import WorkerLike
from signald.store.registry.ops import ConfirmWorkerToken, DetachWorker, KeepAlive, UpdateWorker
from signald.store.session.ops import ConfirmToken, Detach, Ended
from signald.wire.close_codes import CloseCode

log = structlog.get_logger(__name__)


class Attachments:
    """See the module."""

    def __init__(self, context: Context, holdings: Holdings, losses: Losses, retries: Retries) -> None:
        self._context = context
        self._writes = writes = context.writes
        self._holdings = holdings
        self.pasts = Pasts(context, holdings)
        self._losses = losses
        self.sessions: dict[str, LiveSession] = {}
        """The sessions with a party attached here."""
        self.workers: dict[str, WorkerLike] = {}
        """The workers attached here."""
        self.links: set[PartyLink] = set()
        """Links with a party attached."""
        self.relay = Relay(
            relay_settings(context.config), context.committer, writes, self, context.now_ms, context.spans
        )
        self.realtime = RealtimeCarrier(context.committer)
        self.streams = StreamCare(context, self.relay, self.sessions)
        self.withdrawals = Withdrawals(context, self.relay, retries)
        self._departed = Departed()
        self._resuming: Counter[str] = Counter()

    def renew(self, config: Config) -> None:
        """Go on by another configuration; parties that are here stay as they are."""
        self.relay.settings = relay_settings(config)
        for session in self.sessions.values():
            session.set_backlog(config.limits.backlog_messages_max, config.limits.backlog_bytes_max)

    # --- in ---------------------------------------------------------------------------------------------------------

    def adopt(self, head: Head) -> LiveSession:
        """Return the session of `head` as held here, up to date with it. A party of it is to be attached at once."""
        session = self.sessions.get(head.session)
        if session is None:
            limits = self._context.config.limits
            session = Session(head, limits.backlog_messages_max, limits.backlog_bytes_max)
            self.sessions[head.session] = session
            if head.events:
                # They may be told already. But a node that was killed may have left them before the agenda knew.
                self._context.untold.note(session.id)
            if session.recall(*self._departed.recall(session.id)):
                self.behind(session)
        else:
            news = session.observe(head)
            if news.loss:
                # This head may be older than one that was observed while its task waited to run, so it proves no loss.
                # A look, whose answers are taken in the order of the store's, tells whether the store has lost anything.
                self.relay.look(session)
            self.changed(session, news)
            # That may have ended an attachment here, and let go of a session that is about to get a new one.
            self.sessions[head.session] = session
            # With both parties here no other node looks at the store for them: news of this head are to be sent from here.
            self.relay.deliver(session, "client")
            self.relay.deliver(session, "worker")
        return session

    def open(self, link: PartyLink) -> None:
        """A link has its party: enter it in the tables. What it is attached to follows."""
        self.links.add(link)
        link.conn.bearer = None
        link.conn.on_room = partial(self._room, link)

    def attach(self, link: PartyLink, session: LiveSession, epoch: int, received: int, address: str = "") -> None:
        """The party of `link` is served in `session` from now on, under `epoch`, and has everything up to `received`.

        A client's session counts for `address`; empty for none.
        """
        before = session.side(link.party).link
        if before is not None and before.owner != link.owner:
            # Not superseded by a newer epoch: a store that had lost its claim has granted the same one to another worker here.
            self.release(before, Cause.REGRANTED, session)
        session.attach(link.party, link, epoch, self._context.node, received)
        link.take(session)
        if link.party == "client":
            self._holdings.attach(address, session)

    def _room(self, link: PartyLink) -> None:
        """The send queue of `link` has room again."""
        self.relay.unblock(link)
        link.has_room()
        self._writes.flush()

    def confirm_client_token(self, session: LiveSession) -> None:
        """The client has shown that it holds its newest token."""
        if len(session.client_tokens) > 1:
            session.client_tokens = session.client_tokens[:1]
            self._context.submit(ConfirmToken(session.id, session.client.epoch))

    def confirm_worker_token(self, link: WorkerLike) -> None:
        """The worker has shown that it holds its newest token."""
        if link.tokens.previous:
            link.tokens = Slots(link.tokens.current)
            self._context.submit(ConfirmWorkerToken(link.worker, link.epoch))

    @contextmanager
    def resuming(self, worker: str) -> Iterator[None]:
        """Within the block, `worker` is about to be attached here: the store has granted its claim."""
        self._resuming[worker] += 1
        try:
            yield
        finally:
            self._resuming[worker] -= 1
            if not self._resuming[worker]:
                del self._resuming[worker]

    def legacy_workers(self) -> list[WorkerLike]:
        """Return the workers here that know no GOAWAY."""
        return [link for link in self.workers.values() if not link.speaks_handover]

    def is_resuming(self, worker: str) -> bool:
        """Tell whether `worker` is being let in again: the store may have granted its claims already."""
        return worker in self._resuming

    def holds(self, worker: str) -> bool:
        """Tell whether `worker` is attached here, or about to be."""
        return worker in self.workers or worker in self._resuming

    # --- out --------------------------------------------------------------------------------------------------------

    def release(self, link: PartyLink, cause: Cause, session: LiveSession | None = None, reason: str = "") -> None:
        """The party of `link` stops being attached here, in `session` or, without one, in all its sessions.

        The one way out: `EXITS[cause]` says which steps are done. `reason` goes where the table says so. Nothing happens to a
        link that is over.
        """
        row = EXITS[cause]
        if row.ends_link and link.over:
            return
        goaway_at = _goaway_at(link, row.handover)
        worker = self.workers.get(link.owner)
        holds_worker = worker is not None and worker is link
        if row.ends_link:
            link.over = True
            self.links.discard(link)
            if holds_worker:
                del self.workers[link.owner]
        if row.settles and session is not None:
            self.relay.settle(session, link.party)
        leaving = list(link.attached) if session is None else [session]
        if row.stores_acks and (link.party == "worker" or leaving[0].client.link is link):
            # A client that its session has left has no ack to store. Those of the other sessions wait for their own turn.
            self.relay.store_acks()
        now = self._context.now_ms()
        for one in leaving:
            self._release_one(link, one, cause, reason, now)
        if row.ends_link:
            link.clear()
        if worker is not None and holds_worker and row.store is StoreStep.DETACH:
            if worker.left_in_order:
                # What ends by a drain is no failure of a session, should the worker not come back.
                self._context.submit(UpdateWorker(worker.worker, worker.epoch, worker.capacity, True))
            self._context.submit(DetachWorker(worker.worker, worker.epoch, now))
        self._close(link, row, reason)
        if row.tells_drain:
            self._context.events.emit(LinkOver(link.party, link.owner, trio.current_time(), goaway_at))

    def _close(self, link: PartyLink, row: Exit, reason: str) -> None:
        if row.close == CLAIMED:
            link.close(*of_claim(told_to_go=link.told_to_go))
        elif isinstance(row.close, CloseCode):
            if row.error is not None:
                link.fail(row.close, *row.error)
            else:
                link.close(row.close, reason[:100])

    def _release_one(self, link: PartyLink, session: LiveSession, cause: Cause, reason: str, now: int) -> None:
        row, party = EXITS[cause], link.party
        side = session.side(party)
        if side.link is link:
            if row.holding is Holding.AWAY:
                self._holdings.detach(session)
            elif row.holding is Holding.FORGOTTEN:
                self._holdings.forget(session.id)
            if row.detaches:
                session.detach(party)
                self._context.events.emit(
                    PartyReleased(
                        session.id, party, cause, link.owner, side.epoch, link.told_to_go, link.how_over, reason
                    )
                )
            self._store_step(link, session, cause, side.epoch, now)
            self._forget(link, session, row, reason)
            if row.looks:
                # The peer here learns of it now; one elsewhere is woken by the store.
                self.relay.look(session)
        else:
            self._forget(link, session, row, reason)
        if row.if_idle:
            self.forget_if_idle(session)

    def _store_step(self, link: PartyLink, session: LiveSession, cause: Cause, epoch: int, now: int) -> None:
        context, row = self._context, EXITS[cause]
        if row.store is StoreStep.DETACH:
            if link.party == "worker":
                context.submit(Detach(session.id, "worker", context.node, epoch, now))
            elif not link.ending:  # behind its end, this would be all that is left of the session
                context.submit(Detach(session.id, "client", context.node, epoch, now))
                context.untold.note(session.id)
                context.submit(KeepAlive((session.id,), now + context.ttl_ms))
                if session.pair and not session.worker_id:
                    context.spawn(leave_if_away, context, [session.id])
        elif row.store in (StoreStep.UNPAIR, StoreStep.UNPAIR_FAILED):
            failed = row.store is StoreStep.UNPAIR_FAILED
            # A worker whose frames for it are wrong has lost the session; one that gives it back hands it on.
            lost, at_once = cause is Cause.SPOILED, cause is Cause.HANDED_ON
            self.withdrawals.begin(session, link.owner, epoch, failed=failed, lost=lost, at_once=at_once)

    def _forget(self, link: PartyLink, session: LiveSession, row: Exit, reason: str) -> None:
        """Have the link forget `session`, and say so where the table says it."""
        if row.says:
            link.end_session(session.id, reason if row.says == GIVEN else row.says)
        elif not row.ends_link:
            link.drop(session.id)
        if row.checks:
            link.check()

    def forget_if_idle(self, session: LiveSession) -> None:
        """Let go of a session with no party here."""
        if not session.local and self.sessions.get(session.id) is session:
            self._let_go(session)
            if session.up.bytes_stored or session.down.bytes_stored:
                self._context.events.emit(SessionLeft(session.id, carried(session)))

    def _let_go(self, session: LiveSession) -> None:
        """Hold `session` no more, and remember how far it had come: a store that fails over may bring it back as it was before."""
        del self.sessions[session.id]
        self._departed.note(session)

    # --- the end of a session ---------------------------------------------------------------------------------------

    async def end(self, session: LiveSession, reason: str, cause: EndCause) -> None:
        """End `session` in the store, or as soon as the store is back, and here."""
        context = self._context
        session.ending = True
        ops = self.pasts.end(session.id, session.principal, reason)
        try:
            ended, *_ = await context.committer.call_many(ops)
            if isinstance(ended, Ended):  # the other party may have said it too
                self.pasts.count(ended)
                self.streams.tell(session, ended.streams)
                context.events.emit(SessionEnded(session.id, cause))
        except StoreUnavailable:
            # The parties are through with it; the store hears of it when it is back.
            for op in ops:
                context.submit(op)
            context.events.emit(SessionEnded(session.id, cause))
        self.gone(session, reason, say_to_client=False)

    def gone(self, session: LiveSession, reason: str, *, say_to_client: bool = True) -> None:
        """The session is over in the store: tell the parties here and let go of it.

        A client that has said `bye` itself is told by the caller where `say_to_client` is False.
        """
        if self.sessions.get(session.id) is not session:
            return
        self._holdings.forget(session.id)
        session.end()
        client, worker = session.client.link, session.worker.link
        if worker is not None:
            self.release(worker, Cause.WORKER_ENDED, session, reason)
            self._context.inboxes.line()
        if client is not None:
            said = say_to_client or not client.ending
            self.release(client, Cause.CLIENT_ENDED if said else Cause.CLIENT_BYE, session, reason)
        self._let_go(session)
        self._writes.flush()
        lasted_ms = max(0, self._context.now_ms() - session.created_ms)
        self._context.events.emit(SessionGone(session.id, reason, True, carried(session), lasted_ms))

    # --- what the relay finds out (RelayEvents) ---------------------------------------------------------------------

    def superseded(self, session: LiveSession, party: Party) -> None:
        """A newer claim holds `party`: its link here is done with this session."""
        link = session.side(party).link
        if link is not None:
            self.release(link, Cause.CLIENT_CLAIMED if party == "client" else Cause.SESSION_CLAIMED, session)

    def news(self, session: LiveSession, news: News) -> None:
        """A look has found `news`: act on it, and let the mender give back what the store has lost."""
        self.changed(session, news)
        if news.loss.messages:
            self._losses.store_went_back("it knows fewer messages of a session than this node")
        if news.loss:
            self.behind(session)

    def changed(self, session: LiveSession, news: News) -> None:
        """Act on `news` for the parties attached here and for a drain; what the store has lost is left to the caller."""
        if news.client_superseded:
            self.superseded(session, "client")
        worker = session.worker.link
        if news.worker_superseded and worker is not None:
            reassigned = session.worker_id != worker.owner
            self.release(worker, Cause.SESSION_REASSIGNED if reassigned else Cause.SESSION_CLAIMED, session)
        if news.overtaken is not None:
            self._overtaken(session, news.overtaken.said, by_claim=news.overtaken.by_claim)
        if news.usurped is not None:
            self._usurped(session, news.usurped)
        client = session.client.link
        if client is not None:
            if news.tell is not None:
                client.peer_changed(news.tell, session.worker_id)
            if news.set_aside:
                self.tell_set_aside(session)
            if news.up_acked and session.receipts:
                self.relay.receipt(session)
        if news.streams:
            self.streams.look(session)
        if news.events:
            self._context.untold.note(session.id)
        self._context.events.emit(SessionChanged(session.id, session.worker_id, session.worker.node))

    def _overtaken(self, session: LiveSession, said: tuple[int, int], *, by_claim: bool) -> None:
        """The worker here has begun too early in a log whose tail was lost: its messages are taken for others.

        `by_claim`: the client says so, and nothing else shows it.
        The worker is told, and the session is assigned anew: the next worker begins behind all that was ever said.
        """
        link = session.worker.link
        if link is None or not link.serves(session.id):
            return
        if said[0] <= said[1]:
            self._losses.tell(link, session.id, "sent", said, shown=not by_claim)
        self.release(link, Cause.OVERTAKEN, session, "log lost")

    def _usurped(self, session: LiveSession, said: tuple[int, int]) -> None:
        """The store had forgotten the claim of the worker here, if there is one, and has given its session to another."""
        log.warning("session_usurped", session=session.id, worker=session.worker_id)
        link = session.worker.link
        if link is None:
            return
        if said[0] <= said[1]:
            self._losses.tell(link, session.id, "sent", said, shown=True)
        self.release(link, Cause.USURPED, session)

    def tell_set_aside(self, session: LiveSession) -> None:
        """Tell the client here that its session is set aside; nothing when it is not."""
        link, seq = session.client.link, session.set_aside_at
        if link is not None and seq:
            link.error("undeliverable", "each worker that was given this message failed", seq=seq)

    def missing(self, session: LiveSession) -> None:
        """The store does not know `session`."""
        self._context.inboxes.doubts.session_missing(session)

    def behind(self, session: LiveSession) -> None:
        """The store knows less of `session` than this node."""
        self._context.inboxes.doubts.session_behind(session)

    def logs_bytes(self) -> int:
        """Return the bytes that the logs of all sessions hold here."""
        return sum([session.up.bytes_held + session.down.bytes_held for session in self.sessions.values()])

    def history_bytes_max(self, session: LiveSession) -> int:
        """Return how much of its chat history is kept: less where its address holds too much."""
        return self._holdings.history_bytes_max(session.id)

    def last_words(self, session: LiveSession) -> None:
        """The store has what a party had said here before it went."""
        self._departed.note_again(session)

    def job_over(self, session: LiveSession) -> None:
        """The last piece of a job has been stored, and the job has ended in the same step."""
        self._context.untold.note(session.id)
        self._context.events.emit(JobOver(session.id))

    def lost(
        self,
        link: PartyLink,
        session: str,
        direction: Literal["sent", "received"],
        lost: tuple[int, int],
        *,
        shown: bool,
    ) -> None:
        """Messages are lost that the party of `link` has sent, or was to receive."""
        self._losses.tell(link, session, direction, lost, shown=shown)

    def spent(self, session: LiveSession) -> None:
        """The numbers of `session` have run out: it ends."""
        if not session.ending:
            session.ending = True
            self._context.spawn(self._end_spent, session)

    async def _end_spent(self, session: LiveSession) -> None:
        log.info("numbers_spent", session=session.id, up=session.up.last, down=session.down.last)
        await self.end(session, "numbers spent", "spent")


def carried(session: LiveSession) -> Carried:
    """Return what has been said in `session`, as far as this node knows."""
    up, down = session.up, session.down
    return Carried(up.last, down.last, up.bytes_stored, down.bytes_stored)


def _goaway_at(link: PartyLink, handover: Handover) -> float | None:
    """Return when the party was told to go, if this exit of it is its handover."""
    if not link.told_to_go or handover is Handover.NEVER:
        return None
    closed = link.conn.closed
    if handover is Handover.BY_PEER and (closed is None or closed.initiator == "local"):
        return None
    return link.told_at


def relay_settings(config: Config) -> RelaySettings:
    """Return what the relay must know of `config`."""
    return RelaySettings(
        node=config.node.id,
        backlog_messages_max=config.limits.backlog_messages_max,
        backlog_bytes_max=config.limits.backlog_bytes_max,
        history_messages_max=config.session.history_messages_max,
        claim_ahead_max=config.limits.claim_ahead_max,
        logs_bytes_max=config.limits.logs_bytes_max,
    )
