"""What a node does when the store has lost something: give it back.

Two cases look alike at first, "the store does not know this session": it has ended, or the store came back without its data.
The store's incarnation tells them apart. In the second case every node gives back what its live sessions and workers know
(ids, epochs, token hashes, seqs, and the messages it still has), and the higher value wins where two nodes know the same:
no live session is lost. What no node can give back is reported to both parties (`error` `log_lost`), and no seq is used twice.

A damaged record counts as lost: the node that holds the party gives it back (`behind`, `asking.ask_holders`).
"""

from typing import TYPE_CHECKING

import structlog
import trio

from signald.core.head import Head, Party
from signald.core.pairing import Pairing
from signald.core.wants import within_tenant
from signald.errors import StoreUnavailable
from signald.service.attached import LiveSession
from signald.service.cluster.sight import Sight
from signald.service.line import enqueue
from signald.service.worker_like import WorkerLike
from signald.store.base import Op
from signald.store.registry.ops import KeepAlive, ReseedWorker
from signald.store.session.ops import Look, Looked, NoSession, Reseed

if TYPE_CHECKING:
    from signald.service.hub import Hub

log = structlog.get_logger(__name__)

RETRY_S = 0.5
BATCH = 256
"""Sessions given back in one call: each may carry a whole backlog."""


class Mender:
    """See the module."""

    def __init__(self, hub: "Hub", sight: Sight) -> None:
        self._hub = hub
        self._sight = sight
        self._incarnation = hub.incarnation
        self._doubts = hub.inboxes.doubts

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
        hub, doubts = self._hub, self._doubts
        # What is found missing while the store is asked may be so because it has been emptied since it answered.
        missing, doubts.missing = doubts.missing, {}
        try:
            name = await self._incarnation.ask()
        except StoreUnavailable:
            doubts.missing = missing | doubts.missing
            raise
        if name != self._incarnation.name:
            log.error("store_came_back_empty", sessions=len(hub.sessions), workers=len(hub.worker_links))
            self._incarnation.emptied()
            hub.losses.store_went_back("it has come back without its data")
            self._sight.doubt()
            await self._reseed_workers(list(hub.worker_links.values()))
            await self._reseed(list(hub.sessions.values()), everything=True)
            # Only now: had this failed half-way, all of it is to be done again.
            self._incarnation.name = name
            doubts.clear()
            hub.counters.reseeds += 1
            hub.inboxes.nodes()
            hub.inboxes.line()
            return
        for session in missing.values():
            hub.attachments.gone(session, "ended")
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
        hub = self._hub
        for start in range(0, len(sessions), BATCH):
            part = [session for session in sessions[start : start + BATCH] if session.local and not session.ending]
            if not part:
                continue
            if not everything:
                await self._look_first(part)
                part = [session for session in part if session.local and not session.ending]
            now = hub.store.now_ms()
            # First, as with a new session: a record that is never to end must not be all that comes of this.
            ops: list[Op] = [KeepAlive(tuple(one.id for one in part), now + hub.life_ms)] if everything else []
            ops += [
                Reseed(
                    session.id,
                    hub.node,
                    session.head(),
                    session.client_tokens,
                    tuple(session.up.tail),
                    tuple(session.down.tail),
                    now,
                    create=everything,
                )
                for session in part
            ]
            results = await hub.committer.call_many(ops)
            if everything:
                await self._queue(part)
            for session, head in zip(part, results[-len(part) :], strict=True):
                if isinstance(head, Head):
                    self._given_back(session, head)
                else:
                    assert isinstance(head, NoSession)
                    self._doubts.session_missing(session)
        hub.outbox.flush()

    async def _look_first(self, sessions: list[LiveSession]) -> None:
        """Find out which worker has got a session since the store forgot its pairing: what is given back hides it."""
        hub = self._hub
        looked = await hub.committer.call_many([Look(session.id, "client", 0, 0) for session in sessions])
        for session, result in zip(sessions, looked, strict=True):
            if isinstance(result, Looked) and hub.sessions.get(session.id) is session:
                hub.attachments.changed(session, session.observe(result.head))

    def _given_back(self, session: LiveSession, head: Head) -> None:
        hub = self._hub
        news = session.observe(head)
        hub.attachments.changed(session, news)
        holders: tuple[tuple[Party, str], ...] = (("client", head.client_node), ("worker", head.worker_node))
        for party, node in holders:
            if news.loss.claim and session.side(party).link is not None and node != hub.node:
                # Under the same epoch the store has the party elsewhere: it lost one claim and has granted another since.
                hub.attachments.superseded(session, party)
        for party, _ in holders:
            # Acks are given back with the head; appends that met the loss are tried again.
            side = session.side(party)
            side.ack_stored = min(side.ack_stored, side.ack_due)
            session.log_from(party).retry()
            hub.relay.settle(session, party)
        hub.assignments.accept_again(session)
        hub.relay.look(session)
        log.info("session_given_back", session=session.id)

    async def _queue(self, sessions: list[LiveSession]) -> None:
        hub = self._hub
        alive_until = hub.store.now_ms() + hub.life_ms
        await hub.committer.call_many(
            [
                enqueue(session, alive_until)
                for session in sessions
                if session.client.link is not None
                and session.pairing is Pairing.WAITING
                and session.failures.may_queue(hub.store.now_ms())
            ]
        )

    async def _reseed_workers(self, links: list[WorkerLike]) -> None:
        hub = self._hub
        now = hub.store.now_ms()
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
                    hub.node,
                    link.epoch,
                    link.principal,
                    link.instance,
                    link.labels,
                    link.capacity,
                    tokens,
                    sessions,
                    now,
                )
            )
        await hub.committer.call_many(ops)

    async def _check_workers(self) -> None:
        """A worker the registry does not know, in a store that lost nothing, was given up while it was silent."""
        hub = self._hub
        unknown = [link for link in list(hub.worker_links.values()) if await hub.assignments.is_unknown(link)]
        if not unknown:
            return
        if await self._incarnation.ask() != self._incarnation.name:
            self._doubts.check()  # it has lost everything just now, between two questions
            return
        for link in unknown:
            if not link.over:
                hub.giving_up.removed(link)
