"""The way of a SIGTERM: one drain, from its beginning to the exit.

    UNREADY ▸ SUCCESSOR ▸ WORKERS ▸ CLIENTS ▸ TERMINATE ▸ FLUSH ▸ CLOSE

`core.transitions.DRAIN` holds the order, `core.drain.DrainPlan` the decisions; here they are carried out and waited for.
Each phase runs in a cancel scope of its own, whose deadline is its budget, and ends by what it waits for, by its budget,
or because a signal hurries it. Everything before CLOSE is said with frames; cancellation comes only after this file is
through.
"""

from collections.abc import Awaitable, Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

import attrs
import structlog
import trio
from msgspec import UNSET

from signald.core.drain import (
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
from signald.core.transitions import DRAIN, DrainEvent, Phase, step
from signald.errors import StoreUnavailable
from signald.service.client_link import ClientLink
from signald.service.ledger import Ledger
from signald.service.relay import LiveSession
from signald.store.base import Paced, PutReceipt, TakePace
from signald.wire.close_codes import CloseCode
from signald.wire.messages import GoAway, TerminateApp

if TYPE_CHECKING:
    from signald.service.hub import Hub
    from signald.service.lease import Lease
    from signald.service.worker_link import WorkerLink

log = structlog.get_logger(__name__)

PACE_MARGIN = 0.85
"""Share of the configured pace that is used. A worker's sessions are claimed as one, so the claims of any one second may
be those of a little more than a second's worth of GOAWAYs."""

RECHECK_S = 1.0
"""How often a round of looking again at those we wait for may begin."""
RECHECK_EVERY_S = 0.05
RECHECK_LOT = 10
"""How many of a round are looked at in one go: two hundred a second."""

SUCCESSOR_POLL_S = 0.05

SUCCESSOR_LEASE_SHARE = 0.5
"""Of its lease a successor may have used up. A node that lives renews after a third; one that is past the half has missed
that, and whoever was sent to it would find nobody."""

CLOCKS_DIFFER_MS = 100
"""How much nodes may differ about the store's time."""

PAIR_SETTLE_S = 0.05
"""How long after its worker's claim a client is told to go. The claim is known here as soon as the store has it; this is
time for its answer to reach the worker, so that a client that moves meets a worker that knows."""

TALK_S = 2.0
"""How long the store may take to hear that this node drains; the drain goes on without."""


@attrs.frozen
class DrainStatus:
    """What health, logs and operators are shown."""

    phase: Phase = Phase.RUNNING
    reason: str = ""
    by_signal: bool = False
    began_at: float = 0.0
    plan: dict[str, int] = attrs.field(factory=dict)


class ShutdownScope:
    """See the module. `begin`, `hurry` and `abort` are called from anywhere; `run` does the work."""

    def __init__(self, hub: "Hub", lease: "Lease") -> None:
        self._hub = hub
        self._lease = lease
        self._config = hub.config.drain
        self._begun = trio.Event()
        self._news = trio.Event()
        self._scope: trio.CancelScope | None = None
        self._pending: DrainEvent | None = None
        self._plan: DrainPlan | None = None
        self._deadline = float("inf")
        self._moves_by = float("inf")
        self._asked_ms = 0
        """When the other nodes were told of the drain: who has renewed its lease since is certainly there."""
        self._alone = False
        """Nobody takes over: the parties left are told to come back here."""
        self._looked_at = self._poked_at = self._round_at = -float("inf")
        self._round: Iterator[str] = iter(())
        """Whom to look at again, as far as this round has come."""
        self.status = DrainStatus()
        self.ledger = Ledger(hub.node)

    # --- called from outside ----------------------------------------------------------------------------------------

    def begin(self, reason: str, *, by_signal: bool) -> None:
        """Begin to drain; a signal makes an operator's drain final."""
        if self.status.phase is Phase.RUNNING:
            self.status = DrainStatus(Phase.RUNNING, reason, by_signal, trio.current_time())
            self._begun.set()
        elif by_signal and not self.status.by_signal:
            self.status = attrs.evolve(self.status, by_signal=True)

    def signal(self) -> None:
        """SIGTERM or SIGINT: the first drains, the second hurries, the third ends it."""
        if not self.status.by_signal:
            self.begin("draining", by_signal=True)
        elif self._pending is DrainEvent.HURRY or self.status.phase is Phase.FLUSH:
            self._interrupt(DrainEvent.STOP)
        else:
            self._interrupt(DrainEvent.HURRY)

    def abort(self) -> bool:
        """Call off a drain that an operator began; False when it cannot be called off any more."""
        if self.status.by_signal or (self.status.phase, DrainEvent.ABORT) not in DRAIN:
            return False
        self._interrupt(DrainEvent.ABORT)
        return True

    def _interrupt(self, event: DrainEvent) -> None:
        self._pending = event
        if self._scope is not None:
            self._scope.cancel(reason=f"drain phase {self.status.phase.value}: {event.value}")

    # --- what the hub reports (Watcher) -----------------------------------------------------------------------------

    def worker_came(self, worker: str) -> None:
        """`worker` was let in before the drain and is attached only now."""
        link = self._hub.worker_links.get(worker)
        if self._plan is not None and link is not None and link.speaks_handover:
            self._plan.worker_came(worker, len(link.sessions))
            self._news.set()

    def client_came(self, session: LiveSession) -> None:
        """The client of `session` was let in before the drain and is attached only now."""
        if self._plan is not None:
            ready = self._is_pair_ready(session)
            self.ledger.begin({session.id: ready}, {session.id: session.worker_id})
            self._plan.client_came(session.id, ready=ready, now=trio.current_time())
            self._news.set()

    def worker_left(self, worker: str) -> None:
        """The link of `worker` is over."""
        if self._plan is not None:
            self._plan.worker_moved(worker)
            self._news.set()

    def client_left(self, session: str) -> None:
        """The link of the client of `session` is over."""
        if self._plan is not None:
            self.ledger.moved(session, trio.current_time())
            self._plan.client_moved(session)
            self._news.set()

    def session_changed(self, session: LiveSession) -> None:
        """The session's worker has moved, come or gone."""
        if self._plan is not None and self._is_pair_ready(session):
            now = trio.current_time()
            self.ledger.pair_ready(session.id, now)
            self._plan.session_ready(session.id, now + PAIR_SETTLE_S)
            self._news.set()

    def _is_pair_ready(self, session: LiveSession) -> bool:
        """Its worker is on a successor, or it has none to wait for."""
        return not session.worker_id or self._hub.is_successor(session.worker.node)

    # --- the drain --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Wait for a drain to begin, carry it out, and return when the process may end. An aborted drain starts over."""
        while True:
            await self._begun.wait()
            await self._drain()
            if self.status.phase is Phase.DONE:
                return
            await self._reopen()

    async def _drain(self) -> None:
        config = self._config
        self._deadline = trio.current_time() + config.timeout_s
        handover_deadline = self._deadline - config.flush_timeout_s - config.close_timeout_s
        # Room for apps that must be terminated is kept only if there are any.
        terminate_s = config.terminate_timeout_s if self._legacy_workers() else 0.0
        self._moves_by = moves = handover_deadline - terminate_s
        phases: dict[Phase, tuple[Callable[[], Awaitable[DrainEvent]], Callable[[float], float]]] = {
            Phase.UNREADY: (self._unready, lambda now: now + config.unready_s + TALK_S),
            Phase.SUCCESSOR: (self._successor, lambda now: min(moves, now + config.successor_timeout_s)),
            Phase.WORKERS: (self._workers, lambda _: moves),
            Phase.CLIENTS: (self._clients, lambda _: moves),
            Phase.TERMINATE: (self._terminate, lambda now: min(handover_deadline, now + config.terminate_timeout_s)),
            Phase.FLUSH: (self._flush, lambda now: now + config.flush_timeout_s),
            Phase.CLOSE: (self._close, lambda now: now + config.close_timeout_s),
        }
        self._enter(step(DRAIN, Phase.RUNNING, DrainEvent.BEGIN))
        while self.status.phase in phases:
            work, deadline = phases[self.status.phase]
            event = DrainEvent.BUDGET
            if self._interrupted() is None or self.status.phase is Phase.CLOSE:
                with trio.CancelScope(deadline=deadline(trio.current_time())) as self._scope:
                    event = await work()
                self._scope = None
            interrupted = self._interrupted()
            if interrupted is not None and self.status.phase is not Phase.CLOSE:
                event, self._pending = interrupted, None
            self._enter(step(DRAIN, self.status.phase, event), event)

    def _interrupted(self) -> DrainEvent | None:
        """What a signal or an operator has asked for since the phase began."""
        return self._pending

    def _enter(self, phase: Phase, event: DrainEvent = DrainEvent.BEGIN) -> None:
        plan = self._plan.statistics() if self._plan is not None else {}
        log.info(
            "drain_phase",
            phase=phase.value,
            by=event.value,
            reason=self.status.reason,
            after_s=round(trio.current_time() - self.status.began_at, 3),
            **plan,
        )
        self.ledger.phase(phase.value, trio.current_time())
        self.status = attrs.evolve(self.status, phase=phase, plan=plan)

    async def _reopen(self) -> None:
        """An operator's drain was called off: this node serves again."""
        hub = self._hub
        self._plan = None
        self._pending = None
        self._alone = False
        hub.watcher = None
        hub.refusing = None
        for link in hub.links:
            link.told_to_go = False
        self._begun = trio.Event()
        self.status = DrainStatus()
        self.ledger = Ledger(hub.node)
        try:
            await self._lease.set_state("ready")
        except StoreUnavailable:
            log.warning("drain_abort_not_stored")  # the lease keeper says it again

    # --- the phases -------------------------------------------------------------------------------------------------

    async def _unready(self) -> DrainEvent:
        hub = self._hub
        hub.refusing = CloseCode.REFUSED
        hub.watcher = self
        self._asked_ms = hub.store.now_ms() - CLOCKS_DIFFER_MS
        try:
            with trio.move_on_after(TALK_S):
                await self._lease.set_state("draining")
        except StoreUnavailable:
            log.warning("drain_not_stored")
        await trio.sleep(self._config.unready_s)
        return DrainEvent.DONE

    async def _successor(self) -> DrainEvent:
        if not self._hub.links:
            return DrainEvent.DONE
        # Other nodes have just been woken by ours, and renew their leases: one that was killed a moment ago does not.
        return await self._until_successor(
            lambda: any(info.renewed_ms >= self._asked_ms for info in self._hub.successors())
        )

    async def _until_successor(self, found: Callable[[], bool]) -> DrainEvent:
        """Wait for a successor, a little shorter than the phase may last, so that "none" is an answer and not a cut."""
        hub = self._hub
        deadline = min(
            trio.current_effective_deadline() - SUCCESSOR_POLL_S,
            trio.current_time() + self._config.successor_timeout_s,
        )
        while not found():
            if trio.current_time() >= deadline:
                log.warning("no_successor")
                self._alone = True
                return DrainEvent.NO_SUCCESSOR
            self._lease.poke()
            await trio.sleep(SUCCESSOR_POLL_S)
        log.info("successor", nodes=sorted(info.id for info in hub.successors()))
        return DrainEvent.DONE

    def _has_successor(self) -> bool:
        now_ms = self._hub.store.now_ms()
        return any(
            now_ms - info.renewed_ms < SUCCESSOR_LEASE_SHARE * (info.lease_until_ms - info.renewed_ms)
            for info in self._hub.successors()
        )

    async def _workers(self) -> DrainEvent:
        hub = self._hub
        clients = {
            session.id: self._is_pair_ready(session)
            for session in hub.sessions.values()
            if session.client.link is not None
        }
        workers = {name: len(link.sessions) for name, link in hub.worker_links.items() if link.speaks_handover}
        self._plan = DrainPlan(
            workers,
            clients,
            worker_timeout_s=self._config.worker_timeout_s,
            client_timeout_s=self._config.client_timeout_s,
            entropy=hub.entropy,
            now=trio.current_time(),
        )
        self.ledger.begin(clients, {one.id: one.worker_id for one in hub.sessions.values()})
        log.info(
            "drain_plan",
            workers=len(workers),
            clients=len(clients),
            pace_per_s=hub.config.pace.sessions_per_s,
            seconds_left=round(self._deadline - trio.current_time(), 1),
        )
        for link in self._legacy_workers():
            # It will be terminated here, and its sessions cannot wait for it: they go by the policy at once.
            await self._give_up(link.worker)
        for legacy in self._legacy_workers():
            # It cannot move, so its sessions need not wait for it; it is asked to clean up when all others have gone.
            if legacy.sessions:
                await self._give_up(legacy.worker)
        return await self._move(until_workers_done=True)

    async def _clients(self) -> DrainEvent:
        return await self._move(until_workers_done=False)

    async def _move(self, *, until_workers_done: bool) -> DrainEvent:
        """Carry out the plan, until workers are through or until all are."""
        plan = self._plan
        assert plan is not None
        while True:
            now = trio.current_time()
            if now - self._looked_at > RECHECK_EVERY_S:
                self._looked_at = now
                self._recheck(plan, now)
            if self._hub.links and not self._has_successor():
                # It has died. Those who were told to go to it are not late, and whom they leave has nobody else to go to.
                log.warning("successor_lost", **plan.statistics())
                if await self._until_successor(self._has_successor) is DrainEvent.NO_SUCCESSOR:
                    return DrainEvent.NO_SUCCESSOR
                plan.begin_again(trio.current_time())
            while overdue := plan.overdue(now):
                await self._give_up_silent(overdue[0])  # and with it all sessions of the same worker
            decided = plan.next(now)
            if isinstance(decided, TellWorker):
                await self._tell_worker(plan, decided)
            elif isinstance(decided, TellClient):
                await self._tell_client(plan, decided.session)
            elif isinstance(decided, GiveUpWorker):
                await self._give_up(decided.worker)
            elif isinstance(decided, GiveUpClient):
                self.ledger.outcome(decided.session, "not moved in time")
                log.warning("client_given_up", session=decided.session)
            elif isinstance(decided, WorkersDone):
                if until_workers_done:
                    return DrainEvent.DONE
            elif isinstance(decided, Finished):
                return DrainEvent.DONE
            elif isinstance(decided, Wait):
                with trio.move_on_at(min(decided.until, now + RECHECK_EVERY_S)):
                    await self._news.wait()
                self._news = trio.Event()
            self.status = attrs.evolve(self.status, plan=plan.statistics())

    async def _pace(self, plan: DrainPlan, cost: int) -> None:
        """Wait for the cluster's budget to allow `cost` more claims."""
        hub = self._hub
        rate = self._rate(plan.remaining + cost, cost)
        try:
            paced = await hub.committer.call(TakePace(cost, rate, hub.store.now_ms()), timeout_s=1.0)
            wait_s = paced.wait_ms / 1000 if isinstance(paced, Paced) else 0.0
        except StoreUnavailable:
            wait_s = cost / rate
        if wait_s > 0:
            await trio.sleep(wait_s)

    def _rate(self, remaining: int, cost: int) -> float:
        """The claims per second to ask for: fewer for successors that fall behind, never more than configured.

        But not so few that the drain would miss its deadline for it, or that one move takes longer than `pace.gap_max_s`.
        """
        pace = self._hub.config.pace
        configured = pace.sessions_per_s * PACE_MARGIN
        slowed = pace_now(configured, max((info.lag_ms for info in self._hub.successors()), default=0.0))
        left_s = max(1.0, self._moves_by - trio.current_time())
        return min(configured, max(slowed, remaining / left_s, cost / pace.gap_max_s))

    async def _tell_worker(self, plan: DrainPlan, decided: TellWorker) -> None:
        hub = self._hub
        await self._pace(plan, decided.cost)
        link = hub.worker_links.get(decided.worker)
        if link is None:
            plan.worker_moved(decided.worker)
            return
        plan.told_worker_at(decided.worker, trio.current_time())
        self._go_away(link, decided.worker)

    async def _tell_client(self, plan: DrainPlan, name: str) -> None:
        hub = self._hub
        await self._pace(plan, 1)
        session = hub.sessions.get(name)
        link = session.client.link if session is not None else None
        if session is None or not isinstance(link, ClientLink):
            plan.client_moved(name)
            return
        if not self._is_pair_ready(session):
            # A worker that is here took it while it waited for its turn: first the worker, then the client.
            plan.session_unready(name, trio.current_time() + self._config.worker_timeout_s)
            return
        now = trio.current_time()
        plan.told_client_at(name, now)
        self.ledger.told(name, now)
        self._go_away(link, name)

    def _go_away(self, link: "ClientLink | WorkerLink", owner: str) -> None:
        link.told_to_go = True
        left_s = max(0.0, self._deadline - trio.current_time())
        ticket = self._hub.ticket(owner, left_s + 5.0)
        link.send(GoAway(self.status.reason or "draining", 0, round(left_s * 1000), UNSET, ticket or UNSET))
        self._hub.outbox.flush()

    def _recheck(self, plan: DrainPlan, now: float) -> None:
        """Look again at some of those we wait for, should a wake-up have been lost; all have their turn, none all at once.

        Wake-ups are seldom lost, and thousands may be waited for: looking at them in one go would hold up the messages of
        everybody for longer than a handover does.
        """
        hub = self._hub
        if now - self._poked_at > RECHECK_S:
            self._poked_at = now
            self._lease.poke()  # the successor may have gone
        names = list(islice(self._round, RECHECK_LOT))
        if len(names) < RECHECK_LOT and now - self._round_at > RECHECK_S:
            self._round_at = now
            self._round = iter([*plan.told_workers(), *plan.told_clients(), *plan.unready()])
        for name in names:
            link = hub.worker_links.get(name)
            session = hub.sessions.get(name)
            if link is not None:
                hub.workers.check(link)
            elif name.startswith("w_"):
                plan.worker_moved(name)
            elif session is None or session.client.link is None:
                plan.client_moved(name)
            else:
                self.session_changed(session)
                hub.relay.look(session)

    async def _give_up(self, worker: str) -> None:
        """A worker was told and did not come: its sessions go by the policy, and their clients with them."""
        hub = self._hub
        link = hub.worker_links.get(worker)
        try:
            released = await hub.workers.give_up(worker, link.epoch if link is not None else 0, "missed its budget")
        except StoreUnavailable:
            return
        if self._plan is not None:
            for name in released:
                self.ledger.outcome(name, "worker given up")
                self._plan.session_ready(name)

    async def _give_up_silent(self, name: str) -> None:
        """The worker of a session is at no successor, and it was not ours to tell: the same policy."""
        hub = self._hub
        plan, session = self._plan, hub.sessions.get(name)
        assert plan is not None
        plan.extend([name], trio.current_time() + self._config.worker_timeout_s)
        if session is None or self._is_pair_ready(session):
            plan.session_ready(name)
        elif session.worker.node not in ("", hub.node) and session.worker.node in hub.nodes:
            # It is at a node that drains as well and moves it in its own time: ours to wait for, not to give up.
            log.info("session_waits_for_another_drain", session=name, node=session.worker.node)
        elif hub.config.worker.on_loss == "hold":
            # Its client waits with it: whoever cannot be re-paired is not sent anywhere.
            plan.client_moved(name)
            self.ledger.outcome(name, "held for its worker")
        else:
            await self._give_up(session.worker_id)

    # --- the end ----------------------------------------------------------------------------------------------------

    def _legacy_workers(self) -> "list[WorkerLink]":
        return [link for link in self._hub.worker_links.values() if not link.speaks_handover]

    async def _terminate(self) -> DrainEvent:
        """Programs that know no GOAWAY are asked to clean up, and closed as soon as they have."""
        links = self._legacy_workers()
        if not links:
            return DrainEvent.DONE
        deadline_ms = round(max(0.0, trio.current_effective_deadline() - trio.current_time()) * 1000)
        async with trio.open_nursery() as nursery:
            for link in links:
                link.send(
                    TerminateApp(f"{self._hub.node}-{link.conn.id}", self.status.reason or "draining", deadline_ms)
                )
                nursery.start_soon(_terminated, link)
            self._hub.outbox.flush()
        return DrainEvent.DONE

    async def _flush(self) -> DrainEvent:
        hub = self._hub
        hub.relay.store_acks()
        hub.outbox.flush_acks()
        try:
            receipt = self.ledger.finish(trio.current_time())
            await hub.committer.call(PutReceipt(hub.node, receipt, hub.store.now_ms()), self._config.flush_timeout_s)
            await hub.committer.wait_idle()
        except StoreUnavailable:
            log.warning("receipt_not_stored")
        hub.outbox.flush_acks()
        while any(conn.queued_bytes for conn in hub.connections.values()):  # noqa: ASYNC110
            await trio.sleep(0.01)  # once in a drain; an event for each connection would be paid for by every write
        log.info("drain_receipt", **self.ledger.totals())
        return DrainEvent.DONE

    async def _close(self) -> DrainEvent:
        hub = self._hub
        code, reason = CloseCode.GOING_AWAY, "going away"
        if self._alone or not self._has_successor():
            code, reason = CloseCode.RESTARTING, "restarting"
        hub.refusing = code
        for link in list(hub.links):
            link.close(code, reason)
        async with trio.open_nursery() as nursery:
            for conn in hub.connections.values():
                conn.close(code, reason)  # the first close counts: those that moved have theirs
                nursery.start_soon(conn.wait_closed)
        return DrainEvent.DONE


async def _terminated(link: "WorkerLink") -> None:
    await link.terminated.wait()
    link.close(CloseCode.NORMAL, "terminated")
