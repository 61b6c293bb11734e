"""The move of the parties to the successors: the middle of a drain, after new parties are refused and before the goodbyes.

`core.handover.DrainPlan` decides which party goes next. Here the plan is carried out: at the cluster's pace, with a GOAWAY for
each party, and with another look at the parties that are waited for. Life events tell which parties came, moved and left.
"""

from collections.abc import Callable
from typing import Any

import structlog
import trio

from signald.config.moves import PACE_MARGIN
from signald.core.drain import DrainEvent, WhyLeft
from signald.core.handover import (
    AskPace,
    AwaitedClient,
    AwaitedWorker,
    DrainPlan,
    Finished,
    GiveUpClient,
    GiveUpWorker,
    TellClient,
    TellWorker,
    Wait,
    WorkersDone,
    pace_now,
)
from signald.core.head import Party
from signald.errors import StoreUnavailable
from signald.ids import SessionId, WorkerId, is_named
from signald.service import events
from signald.service.attached import LiveSession, PartyLink
from signald.service.cluster.lease import Lease
from signald.service.drain.ledger import Ledger
from signald.service.drain.rounds import RECHECK_S, Round
from signald.service.drain.status import plan_line
from signald.service.drain.successors import Successors
from signald.service.parts import Parts
from signald.store.registry.ops import Paced, TakePace

log = structlog.get_logger(__name__)

LOT_S = 0.05
"""The time for which clients get their places in one request: on a busy node each request takes as long as several places last.
The store saves up as much, so a request that is late for it loses nothing."""

LAST_MOVE_S = 2.0
"""Kept free before the end for those told last: a client needs time to move, and before that its worker."""

RECHECK_EVERY_S = 0.05

PAIR_SETTLE_S = 0.05
"""How long after its worker's claim a client is told to go. The claim is known here as soon as the store has it; this is
time for its answer to reach the worker, so that a client that moves meets a worker that knows."""


class Mover:
    """See the module. One for each drain."""

    def __init__(
        self,
        parts: Parts,
        lease: Lease,
        ledger: Ledger,
        *,
        reason: str,
        parties: frozenset[Party],
        final: bool,
        deadline: float,
        moves_by: float,
        asked_ms: int,
    ) -> None:
        """`deadline` is that of the whole drain, `moves_by` when all parties have to be through (trio time).

        `asked_ms` is when the other nodes were told of the drain (`Successors`).

        `final`: the process ends with it, so a party that misses its budget is given up. Otherwise it stays where it is.
        """
        self._context = parts.context
        self._attachments = parts.attachments
        self._assignments = parts.assignments
        self._giving_up = parts.giving_up
        self._lease = lease
        self._ledger = ledger
        self._config = self._context.config.drain
        """As the drain began; the pace is that of the configuration now."""
        self._reason = reason
        self._deadline = deadline
        self._parties = parties
        self._final = final
        self.moves_by = moves_by
        self.rate_per_s = 0.0
        """The pace asked for last: that of workers is the same while both kinds move."""
        self._stayed: set[AwaitedWorker | AwaitedClient] = set()
        """Parties that missed the budget of a drain that is not final."""
        self._plan: DrainPlan | None = None
        self._news = trio.Event()
        self.successors = Successors(parts.context, lease, asked_ms)
        self._looked_at = self._poked_at = -float("inf")
        self._rounds = (Round(DrainPlan.told), Round(DrainPlan.unready))
        """Parties to look at again. Thousands may be unready, and those that were told have a time that is short."""

        self._subscriptions: tuple[tuple[type[Any], Callable[[Any], None]], ...] = (
            (events.ClientStarted, self._client_came),
            (events.ClientResumed, self._client_came),
            (events.WorkerRegistered, self._worker_came),
            (events.WorkerResumed, self._worker_came),
            (events.SessionChanged, self._changed),
            (events.SessionGone, self._gone),
            (events.LinkOver, self._over),
        )

    def statistics(self) -> dict[str, int]:
        """How many parties are in each stage; empty before there is a plan."""
        if self._plan is None:
            return {}
        return self._plan.statistics() | ({"stayed": len(self._stayed)} if not self._final else {})

    # --- what the node reports --------------------------------------------------------------------------------------

    def follow(self, of: events.Events) -> None:
        """Hear of parties that come, change and go."""
        for kind, then in self._subscriptions:
            of.subscribe(kind, then)

    def unfollow(self, of: events.Events) -> None:
        """Hear of nothing more."""
        for kind, then in self._subscriptions:
            of.unsubscribe(kind, then)

    def _client_came(self, event: events.ClientStarted | events.ClientResumed) -> None:
        session = self._attachments.sessions.get(event.session)
        if session is not None:
            self.client_came(session)

    def _worker_came(self, event: events.WorkerRegistered | events.WorkerResumed) -> None:
        self.worker_came(WorkerId(event.worker))

    def _changed(self, event: events.SessionChanged) -> None:
        self.session_changed(SessionId(event.session), event.worker, event.worker_node)

    def _gone(self, event: events.SessionGone) -> None:
        if event.held:
            self.client_left(SessionId(event.session))

    def _over(self, event: events.LinkOver) -> None:
        if event.party == "client":
            self.client_left(SessionId(event.owner))
        else:
            self.worker_left(WorkerId(event.owner))

    def worker_came(self, worker: WorkerId) -> None:
        """`worker` was let in before the drain and is attached only now."""
        link = self._attachments.workers.get(worker)
        if self._plan is not None and link is not None and link.speaks_handover and "worker" in self._parties:
            self._plan.worker_came(worker, len(link.seats))
            self._news.set()

    def client_came(self, session: LiveSession) -> None:
        """The client of `session` was let in before the drain and is attached only now."""
        ready, link = self._is_pair_ready(session), session.client.link
        if self._plan is not None and "client" in self._parties and (ready or "worker" in self._parties):
            self._ledger.begin(
                {session.id: ready},
                {session.id: session.worker_id},
                {session.id: link.dialect if link is not None else ""},
                self._context.config.pace.sessions_per_s,
            )
            self._plan.client_came(session.id, ready=ready, now=trio.current_time())
            self._news.set()

    def worker_left(self, worker: WorkerId) -> None:
        """The link of `worker` is over."""
        if self._plan is not None:
            self._plan.worker_moved(worker)
            self._news.set()

    def client_left(self, session: SessionId) -> None:
        """The link of the client of `session` is over."""
        self._ledger.moved(
            session, trio.current_time()
        )  # also of a drain that has moved no party, for want of a successor
        if self._plan is not None:
            self._plan.client_moved(session)
            self._news.set()

    def session_changed(self, session: SessionId, worker: str, worker_node: str) -> None:
        """The session's worker has moved, come or gone: it is `worker` now, attached at `worker_node`."""
        if self._plan is not None and self._is_settled(session, worker, worker_node):
            now = trio.current_time()
            self._ledger.pair_ready(session, now)
            self._plan.session_ready(session, now + PAIR_SETTLE_S)
            self._news.set()

    def _is_pair_ready(self, session: LiveSession) -> bool:
        """Its worker is on a successor, or it has none to wait for."""
        return self._is_settled(session.id, session.worker_id, session.worker.node)

    def _is_settled(self, session: str, worker: str, worker_node: str) -> bool:
        if session in self._assignments.claiming or self._attachments.is_resuming(worker):
            return False
        return not worker or self._context.cluster.is_successor(worker_node)

    # --- successors -------------------------------------------------------------------------------------------------

    async def find_successor(self) -> None:
        """Wait for a node that takes over, for as long as the caller's scope allows."""
        self._waited(await self.successors.find())

    def _waited(self, seconds: float) -> None:
        """An operator's drain has time: a wait for a successor does not count."""
        if not self._final:
            self._deadline += seconds
            self.moves_by += seconds

    # --- carrying out the plan --------------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Make the plan for the parties that are here now. Life events report those that come later."""
        context, attachments = self._context, self._attachments
        clients: dict[SessionId, bool] = {}
        workers: dict[WorkerId, int] = {}
        if "worker" in self._parties:
            workers = {link.worker: len(link.seats) for link in attachments.workers.values() if link.speaks_handover}
        if "client" in self._parties:
            clients = {
                session.id: self._is_pair_ready(session)
                for session in attachments.sessions.values()
                if session.client.link is not None
            }
        if not workers and "worker" not in self._parties:
            # The workers here are not asked to move, so the clients that would have to wait for them stay as well.
            self._stayed |= {AwaitedClient(name) for name, ready in clients.items() if not ready}
            clients = {name: ready for name, ready in clients.items() if ready}
        self._plan = DrainPlan(
            workers,
            clients,
            worker_timeout_s=self._config.worker_timeout_s,
            client_timeout_s=self._config.client_timeout_s,
            entropy=context.entropy,
            now=trio.current_time(),
        )
        self._ledger.begin(
            clients,
            {one.id: one.worker_id for one in attachments.sessions.values()},
            {one.id: one.client.link.dialect for one in attachments.sessions.values() if one.client.link is not None},
            context.config.pace.sessions_per_s,
        )
        left_s = self._deadline - trio.current_time()
        pace_per_s = context.config.pace.sessions_per_s
        log.info(
            "drain_plan",
            plan=plan_line(len(clients), len(workers), left_s, pace_per_s),
            workers=len(workers),
            clients=len(clients),
            pace_per_s=pace_per_s,
            seconds_left=round(left_s, 1),
        )
        ended_last = [link for link in attachments.legacy_workers() if link.cleans_up_s is None]
        for link in ended_last if self._final else ():
            # It cannot move, so its sessions need not wait for it: they go by the policy at once, and it is asked to clean
            # up when all others have gone.
            await self._give_up(link.worker)

    async def move(self, *, until_workers_done: bool) -> DrainEvent:
        """Carry out the plan, until workers are through or until all are."""
        plan = self._plan
        assert plan is not None
        while True:
            now = trio.current_time()
            if now - self._looked_at > RECHECK_EVERY_S:
                self._looked_at = now
                self._recheck(plan, now)
            if self._attachments.links and not self.successors.any_now() and not await self.successors.any_still():
                # It has died. Parties that were told to go to it are not late, and the others have no node to go to.
                log.warning("successor_lost", **plan.statistics())
                patience = trio.current_time() + self._config.successor_timeout_s if self._final else float("inf")
                waited_s = await self.successors.find_another(patience)
                if waited_s is None:
                    return DrainEvent.NO_SUCCESSOR
                self._waited(waited_s)
                plan.begin_again(trio.current_time())
            for overdue in plan.overdue(now):
                if not plan.is_overdue(overdue, now):
                    continue  # another one's worker was given up, and with it all sessions of the same worker
                if self._final:
                    await self._give_up_silent(overdue)
                else:
                    self._client_stays(plan, overdue)
            decided = plan.next(now)
            if isinstance(decided, WorkersDone):
                if until_workers_done:
                    return DrainEvent.DONE
            elif isinstance(decided, Finished):
                return DrainEvent.DONE
            elif isinstance(decided, Wait):
                with trio.move_on_at(min(decided.until, now + RECHECK_EVERY_S)):
                    await self._news.wait()
                self._news = trio.Event()
            else:
                await self._carry_out(plan, decided)

    async def _carry_out(
        self, plan: DrainPlan, decided: AskPace | TellWorker | TellClient | GiveUpWorker | GiveUpClient
    ) -> None:
        if isinstance(decided, AskPace):
            await self._ask_pace(plan, decided)
        elif isinstance(decided, TellWorker):
            self._tell_worker(plan, decided.worker)
        elif isinstance(decided, TellClient):
            self._tell_client(plan, decided.session)
        elif isinstance(decided, GiveUpWorker):
            if self._final:
                await self._give_up(decided.worker)
            else:
                self._worker_stays(decided.worker)
        elif not self._final:
            self._client_stays(plan, decided.session)
        else:
            self._ledger.because(decided.session, WhyLeft.NOT_IN_TIME.value)
            log.warning("client_given_up", session=decided.session)

    async def _ask_pace(self, plan: DrainPlan, asked: AskPace) -> None:
        """Ask the cluster's budget, and report when its places may be taken."""
        context = self._context
        party, places = asked.party, asked.places
        rate = self._rate(plan.remaining(party), party, places)
        if party == "client":
            places = max(1, min(places, int(rate * LOT_S)))
        self.rate_per_s = rate
        try:
            paced = await context.committer.call(TakePace(places, rate, context.now_ms(), party), timeout_s=1.0)
            wait_s = paced.wait_ms / 1000 if isinstance(paced, Paced) else 0.0
        except StoreUnavailable:
            wait_s = places / rate
        now = trio.current_time()
        if party == "worker":
            plan.granted(party, places, now + wait_s, 0.0)
        else:
            # After `wait_s` all of them are paid for, and so is the first of them that much sooner.
            plan.granted(party, places, now + max(0.0, wait_s - (places - 1) / rate), 1 / rate)

    def _rate(self, remaining: int, party: Party, places: int) -> float:
        """The sessions per second to ask for: fewer for successors that fall behind, never more than configured.

        But not so few that the drain would miss its deadline for it, or that one move takes longer than `pace.gap_max_s`.
        """
        pace = self._context.config.pace
        configured = pace.sessions_per_s * PACE_MARGIN
        slowed = pace_now(configured, max((info.lag_ms for info in self._context.cluster.successors()), default=0.0))
        kept_s = LAST_MOVE_S * (2 if party == "worker" else 1)
        left_s = max(1.0, self.moves_by - kept_s - trio.current_time())
        at_once = places if party == "worker" else 1
        return min(configured, max(slowed, remaining / left_s, at_once / pace.gap_max_s))

    def _tell_worker(self, plan: DrainPlan, worker: WorkerId) -> None:
        link = self._attachments.workers.get(worker)
        if link is None:
            plan.worker_moved(worker)
            return
        self._context.events.emit(events.ToldToGo("worker", tuple(link.seats), self._reason))
        self._go_away(link, worker)

    def _tell_client(self, plan: DrainPlan, name: SessionId) -> None:
        session = self._attachments.sessions.get(name)
        link = session.client.link if session is not None else None
        if session is None or link is None:
            plan.client_moved(name)
            return
        if not self._is_pair_ready(session):
            # A worker that is here took it while it waited for its turn: first the worker, then the client.
            plan.session_unready(name, trio.current_time() + self._config.worker_timeout_s)
            return
        self._context.events.emit(events.ToldToGo("client", (name,), self._reason))
        self._ledger.told(name, trio.current_time())
        self._go_away(link, name)

    def _go_away(self, link: PartyLink, owner: str) -> None:
        if link.told_to_go:
            return  # by an operator's drain, which a signal has made final: it is on its way
        link.told_to_go = True
        link.told_at = trio.current_time()
        self._context.counts.goaways[link.party] += 1
        left_s = max(0.0, self._deadline - trio.current_time())
        ticket = self._context.cluster.ticket(owner, left_s + 5.0)
        link.go_away(self._reason or "draining", round(left_s * 1000), ticket)
        self._context.writes.flush()

    def _recheck(self, plan: DrainPlan, now: float) -> None:
        """Look again at some of those we wait for, should a wake-up have been lost; all have their turn, none all at once.

        Wake-ups are seldom lost, and thousands may be waited for: looking at them in one go would hold up the messages of
        all parties for longer than a handover does.
        """
        attachments = self._attachments
        if now - self._poked_at > RECHECK_S:
            self._poked_at = now
            self._lease.poke()  # the successor may have gone
        for awaited in [awaited for round_ in self._rounds for awaited in round_.lot(plan, now)]:
            if isinstance(awaited, AwaitedWorker):
                link = attachments.workers.get(awaited.worker)
                if link is not None:
                    link.check()
                else:
                    plan.worker_moved(awaited.worker)
                continue
            session = attachments.sessions.get(awaited.session)
            if session is None or session.client.link is None:
                plan.client_moved(awaited.session)
            elif not plan.waits(WorkerId(session.worker_id)):
                self.session_changed(session.id, session.worker_id, session.worker.node)
                attachments.relay.look(session)

    def _client_stays(self, plan: DrainPlan, session: SessionId) -> None:
        """A client has missed its budget; this node goes on serving it."""
        plan.client_moved(session)
        self._ledger.stayed(session)
        held = self._attachments.sessions.get(session)
        self._note_stays(AwaitedClient(session), session, held.client.link if held is not None else None)

    def _worker_stays(self, worker: WorkerId) -> None:
        """A worker has missed its budget; this node goes on serving it."""
        self._note_stays(AwaitedWorker(worker), worker, self._attachments.workers.get(worker))

    def _note_stays(self, party: AwaitedWorker | AwaitedClient, name: str, link: PartyLink | None) -> None:
        log.warning("party_stays", party=name)
        self._stayed.add(party)
        if link is not None:
            link.told_to_go = False  # a later drain tells it again

    async def _give_up(self, worker: WorkerId) -> None:
        """A worker was told and did not come: its sessions go by the policy, and their clients with them."""
        context, attachments, giving_up = self._context, self._attachments, self._giving_up
        link = attachments.workers.get(worker)
        try:
            released = await giving_up.give_up(worker, link.epoch if link is not None else 0, "missed its budget")
        except StoreUnavailable:
            return
        if self._plan is not None:
            for name in map(SessionId, released):
                if context.config.worker.on_loss == "end":
                    self._ledger.lost(name, "worker given up")
                else:
                    self._ledger.because(name, "worker given up")
                self._plan.session_ready(name)

    async def _give_up_silent(self, name: SessionId) -> None:
        """The worker of a session is at no successor, and it was not ours to tell: the same policy."""
        context, attachments = self._context, self._attachments
        plan, session = self._plan, attachments.sessions.get(name)
        assert plan is not None
        plan.extend([name], trio.current_time() + self._config.worker_timeout_s)
        if session is None or self._is_pair_ready(session):
            plan.session_ready(name)
        elif session.worker.node not in ("", context.node) and session.worker.node in context.cluster.nodes:
            # It is at a node that drains as well and moves it in its own time: ours to wait for, not to give up.
            log.info("session_waits_for_another_drain", session=name, node=session.worker.node)
        elif is_named(session.worker_id):
            # It cleans up, or comes back in its own time, which is longer than a drain's budget for a worker that knows GOAWAY.
            log.debug("session_waits_for_its_app", session=name, worker=session.worker_id)
        elif context.config.worker.on_loss == "hold":
            # Its client waits with it: a client that cannot be paired again is not sent anywhere.
            plan.client_moved(name)
            self._ledger.because(name, "held for its worker")
        else:
            await self._give_up(session.worker_id)
