"""What a node does when the store has lost something: give it back.

Two cases look alike at first, "the store does not know this session": it has ended, or the store came back without its data.
The store's incarnation tells them apart. In the second case every node gives back what its live sessions and workers know
(ids, epochs, token hashes, seqs, and the messages it still has), and the higher value wins where two nodes know the same:
no live session is lost. What no node can give back is reported to both parties (`error` `log_lost`), and no seq is used twice.

A damaged record counts as lost: the node that holds the party gives it back (`behind`, `asking.ask_holders`).
"""

import structlog
import trio

from signald.core.head import Head, Party
from signald.core.holders import principal_holder
from signald.core.pairing import Pairing
from signald.core.wants import within_tenant
from signald.errors import StoreUnavailable
from signald.service.assigning import Assignments
from signald.service.attached import LiveSession
from signald.service.attachments import Attachments
from signald.service.cluster.sight import Sight
from signald.service.context import Context
from signald.service.giving_up import GivingUp
from signald.service.line import enqueue
from signald.service.losses import Losses
from signald.service.worker_like import WorkerLike
from signald.store.base import Op
from signald.store.registry.ops import KeepAlive, ReseedWorker
from signald.store.session.ops import Look, Looked, NoSession, Reseed

log = structlog.get_logger(__name__)

RETRY_S = 0.5
BATCH = 256
"""Sessions given back in one call: each may carry a whole backlog."""


class Mender:
    """See the module."""

    def __init__(
        self,
        context: Context,
        attachments: Attachments,
        assignments: Assignments,
        giving_up: GivingUp,
        losses: Losses,
        sight: Sight,
    ) -> None:
        self._context = context
        self._attachments = attachments
        self._assignments = assignments
        self._giving_up = giving_up
        self._losses = losses
        self._sight = sight
        self._incarnation = self._context.incarnation
        self._doubts = self._context.inboxes.doubts

    async def begin(self) -> None:
        """Learn the store's incarnation. Raises StoreUnavailable."""
        self._incarnation.name = await self._incarnation.ask()

    async def run(self) -> None:
        """Mend until cancelled."""
        while True:
            await self._doubts.check.wait()
            self._doubts.check.clear()
            try:
                await self._mend()
            except StoreUnavailable:
                self._doubts.check()
                await trio.sleep(RETRY_S)

    async def _mend(self) -> None:
        context, attachments, losses, doubts = self._context, self._attachments, self._losses, self._doubts
        # What is found missing while the store is asked may be so because it has been emptied since it answered.
        missing, doubts.missing = doubts.missing, {}
        try:
            name = await self._incarnation.ask()
        except StoreUnavailable:
            doubts.missing = missing | doubts.missing
            raise
        if name != self._incarnation.name:
            log.error("store_came_back_empty", sessions=len(attachments.sessions), workers=len(attachments.workers))
            self._incarnation.emptied()
            losses.store_went_back("it has come back without its data")
            self._sight.doubt()
            await self._reseed_workers(list(attachments.workers.values()))
            await self._reseed(list(attachments.sessions.values()), everything=True)
            # Only now: had this failed half-way, all of it is to be done again.
            self._incarnation.name = name
            doubts.clear()
            context.counters.reseeds += 1
            context.inboxes.nodes()
            context.inboxes.line()
            return
        for session in missing.values():
            attachments.gone(session, "ended")
        workers = list(doubts.workers_behind.values())
        await self._reseed_workers([link for link in workers if not link.over])
        for link in workers:
            doubts.workers_behind.pop(link.worker, None)
        behind = list(doubts.behind.values())
        await self._reseed(behind)
        for session in behind:
            doubts.behind.pop(session.id, None)
        await self._check_workers()

    async def _reseed(self, sessions: list[LiveSession], *, everything: bool = False) -> None:
        context = self._context
        for start in range(0, len(sessions), BATCH):
            part = [session for session in sessions[start : start + BATCH] if session.local and not session.ending]
            if not part:
                continue
            if not everything:
                await self._look_first(part)
                part = [session for session in part if session.local and not session.ending]
            now = context.now_ms()
            # First, as with a new session: a record that is never to end must not be all that comes of this.
            ops: list[Op] = [self._lives(part, now + context.life_ms)] if everything else []
            ops += [
                Reseed(
                    session.id,
                    context.node,
                    session.head(),
                    session.client_tokens,
                    tuple(session.up.tail),
                    tuple(session.down.tail),
                    now,
                    everything,
                    *session.client_asked,
                )
                for session in part
            ]
            results = await context.committer.call_many(ops)
            if everything:
                await self._queue(part)
            for session, head in zip(part, results[-len(part) :], strict=True):
                if isinstance(head, Head):
                    self._given_back(session, head)
                else:
                    assert isinstance(head, NoSession)
                    self._doubts.session_missing(session)
        context.writes.flush()

    @staticmethod
    def _lives(sessions: list[LiveSession], until_ms: int) -> KeepAlive:
        holders = tuple([principal_holder(session.principal) for session in sessions])
        return KeepAlive(tuple([session.id for session in sessions]), until_ms, holders)

    async def _look_first(self, sessions: list[LiveSession]) -> None:
        """Find out which worker has got a session since the store forgot its pairing: what is given back hides it."""
        context, attachments = self._context, self._attachments
        looked = await context.committer.call_many([Look(session.id, "client", 0, 0) for session in sessions])
        for session, result in zip(sessions, looked, strict=True):
            if isinstance(result, Looked) and attachments.sessions.get(session.id) is session:
                attachments.changed(session, session.observe(result.head))

    def _given_back(self, session: LiveSession, head: Head) -> None:
        context, attachments, assignments = self._context, self._attachments, self._assignments
        news = session.observe(head)
        attachments.changed(session, news)
        holders: tuple[tuple[Party, str], ...] = (("client", head.client_node), ("worker", head.worker_node))
        for party, node in holders:
            if news.loss.claim and session.side(party).link is not None and node != context.node:
                # Under the same epoch the store has the party elsewhere: it lost one claim and has granted another since.
                attachments.superseded(session, party)
        for party, _ in holders:
            # Acks are given back with the head; appends that met the loss are tried again.
            side = session.side(party)
            side.ack_stored = min(side.ack_stored, side.ack_due)
            session.log_from(party).retry()
            attachments.relay.settle(session, party)
        assignments.accept_again(session)
        attachments.relay.look(session)
        log.info("session_given_back", session=session.id)

    async def _queue(self, sessions: list[LiveSession]) -> None:
        context = self._context
        alive_until = context.now_ms() + context.life_ms
        await context.committer.call_many(
            [
                enqueue(session, alive_until)
                for session in sessions
                if session.client.link is not None
                and session.pairing is Pairing.WAITING
                and session.failures.may_queue(context.now_ms())
            ]
        )

    async def _reseed_workers(self, links: list[WorkerLike]) -> None:
        context = self._context
        now = context.now_ms()
        ops: list[Op] = []
        for link in links:
            sessions = tuple(
                (session.id, within_tenant(session.want, session.principal), session.created_ms)
                for session in link.attached
            )
            tokens = tuple(token for token in (link.tokens.current, link.tokens.previous) if token)
            ops.append(
                ReseedWorker(
                    link.worker,
                    context.node,
                    link.epoch,
                    link.principal,
                    link.instance,
                    link.labels,
                    link.capacity,
                    tokens,
                    sessions,
                    now,
                    *link.asked,
                    link.granted,
                    link.rooms,
                )
            )
        await context.committer.call_many(ops)

    async def _check_workers(self) -> None:
        """A worker the registry does not know, in a store that lost nothing, was given up while it was silent."""
        attachments, assignments, giving_up = self._attachments, self._assignments, self._giving_up
        unknown = [link for link in list(attachments.workers.values()) if await assignments.is_unknown(link)]
        if not unknown:
            return
        if await self._incarnation.ask() != self._incarnation.name:
            self._doubts.check()  # it has lost everything just now, between two questions
            return
        for link in unknown:
            if not link.over:
                giving_up.removed(link)
