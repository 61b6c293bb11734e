"""The way of a SIGTERM: one drain, from its beginning to the exit.

    UNREADY ▸ SUCCESSOR ▸ WORKERS ▸ CLIENTS ▸ TERMINATE ▸ FLUSH ▸ CLOSE

`core.drain.DRAIN` holds the order; here the phases are carried out and waited for. Telling workers and clients to go,
and waiting until they have, is `service.drain.moving`.
An operator's drain (`begin` without a signal) may be for workers only or clients only, cuts off nobody, and ends in HOLD: the
process stays until a signal ends it or the drain is called off.

Each phase runs in a cancel scope of its own, whose deadline is its budget, and ends by what it waits for, by its budget,
or because a signal hurries it. Everything before CLOSE is said with frames; cancellation comes only after this file is
through.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import attrs
import structlog
import trio

from signald.core.drain import DRAIN, DrainEvent, Phase
from signald.core.transitions import step
from signald.errors import StoreUnavailable
from signald.service.drain.ledger import NOT_IN_TIME, Ledger
from signald.service.drain.moving import EVERYBODY, Kind, Mover, plan_line
from signald.service.trail import DELAY_S as TRAIL_DELAY_S
from signald.store.base import Party, PutReceipt, ReadTrail, Trail
from signald.store.committer import ignore
from signald.wire.close_codes import CloseCode
from signald.wire.messages import TerminateApp

if TYPE_CHECKING:
    from signald.service.cluster.lease import Lease
    from signald.service.hub import Hub
    from signald.service.worker_link import WorkerLink

log = structlog.get_logger(__name__)

FOLLOW_SHARE = 0.5
"""Of FLUSH's time, what reading the trails of those who moved may take."""
FOLLOW_LOT = 200
"""Trails read in one go: other batches get in between."""

CUTTING_SIGNAL = 4
"""The first drains, the second skips to FLUSH, the third to CLOSE, and this one ends the closing handshakes."""

PROGRESS_S = 1.0
"""How often a drain says how far it is."""

TALK_S = 2.0
"""How long the store may take to hear that this node drains; the drain goes on without."""

RECALL_S, RECALL_POLL_S = 1.0, 0.25
"""How long a node that holds must have been the only one left until it serves again: well below `successor_timeout_s`, for
which another that drains looks for somebody to go to."""


@attrs.frozen
class DrainStatus:
    """What health, metrics, logs, `ctl` and the supervisor are shown."""

    phase: Phase = Phase.RUNNING
    reason: str = ""
    by_signal: bool = False
    parties: frozenset[Kind] = EVERYBODY
    """Whom it moves."""
    began_at: float = 0.0
    """Trio time."""
    deadline: float = 0.0
    """When everybody has to be through (trio time)."""
    plan: dict[str, int] = attrs.field(factory=dict)
    rate_per_s: float = 0.0
    """The pace asked for now."""

    @property
    def draining(self) -> bool:
        """Told to drain, by anybody, for any party."""
        return self.phase is not Phase.RUNNING or bool(self.reason)

    @property
    def refuses_clients(self) -> bool:
        """New clients are turned away: this node is not ready for them."""
        return self.draining and "clients" in self.parties

    @property
    def clients_left(self) -> int:
        """Clients still to move."""
        return sum(self.plan.get(stage, 0) for stage in ("clients_unready", "clients_ready", "clients_told"))

    @property
    def workers_left(self) -> int:
        """Workers still to move."""
        return sum(self.plan.get(stage, 0) for stage in ("workers_waiting", "workers_told"))

    def line(self, now: float) -> str:
        """The drain in one line, for people."""
        if not self.draining:
            return "serving"
        if self.phase is Phase.HOLD:
            stayed = f", {self.plan['stayed']} stayed" if self.plan.get("stayed") else ""
            return f"drained ({', '.join(sorted(self.parties))}){stayed}: waiting to be stopped or recalled"
        if not self.plan:
            return f"draining ({self.phase.value})"
        left_s = max(0.0, self.deadline - now)
        return (
            f"draining ({self.phase.value}): {plan_line(self.clients_left, self.workers_left, left_s, self.rate_per_s)}"
        )


class ShutdownScope:
    """See the module. `begin`, `signal` and `abort` are called from anywhere; `run` does the work."""

    def __init__(self, hub: "Hub", lease: "Lease") -> None:
        self._hub = hub
        self._lease = lease
        self._config = hub.config.drain
        """The budgets of this drain: those that hold when it begins."""
        self._begun = trio.Event()
        self._scope: trio.CancelScope | None = None
        self._pending: DrainEvent | None = None
        self._signals = 0
        self._called_off = False
        self._asked_ms = 0
        """When this drain, or the one it goes on with, has begun (time of the store)."""
        self._mover: Mover | None = None
        self._alone = False
        """Nobody takes over: the parties left are told to come back here."""
        self._why_left = NOT_IN_TIME
        """Why parties are closed that have not moved."""
        self._receipt_stored = False
        """The receipt of a drain that ends the process is in the store."""
        self._status = DrainStatus()
        self.ledger = Ledger(hub.node)
        self.socket_outlives = False
        """A supervisor holds the listening socket open for the next process."""
        self.stop_accepting: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint
        """Where the listening sockets outlive this process: leave those who come from now on to the next one."""

    @property
    def status(self) -> DrainStatus:
        """How far the drain is."""
        mover = self._mover
        if mover is None:
            return self._status
        return attrs.evolve(
            self._status, plan=mover.statistics(), rate_per_s=round(mover.rate_per_s, 1), deadline=mover.moves_by
        )

    # --- called from outside ----------------------------------------------------------------------------------------

    def begin(self, reason: str, *, by_signal: bool, parties: frozenset[Kind] = EVERYBODY) -> bool:
        """Begin to drain; False if a drain is under way already. A signal makes an operator's drain final."""
        status = self._status
        if not status.draining:
            self._status = DrainStatus(Phase.RUNNING, reason, by_signal, parties, trio.current_time())
            self._asked_ms = self._hub.store.now_ms()
            self._begun.set()
            return True
        if by_signal and not status.by_signal:
            self._status = attrs.evolve(status, by_signal=True, parties=EVERYBODY)
            self._called_off = False  # of two that come at once, the signal counts
            if status.phase is not Phase.RUNNING:
                self._interrupt(DrainEvent.SIGNAL)
            return True
        return False

    def extend(self, parties: frozenset[Kind]) -> bool:
        """Let an operator's drain move `parties` as well; False if there is none, or it moves them already."""
        status = self._status
        if not status.draining or status.by_signal or parties <= status.parties:
            return False
        self._status = attrs.evolve(status, parties=status.parties | parties)
        if status.phase is not Phase.RUNNING:
            self._interrupt(DrainEvent.EXTEND)
        return True

    def signal(self) -> None:
        """SIGTERM or SIGINT: the first drains, the second hurries, the third ends it, the fourth cuts the goodbyes short."""
        self._signals += 1
        if not self.status.by_signal:
            self.begin("draining", by_signal=True)
        elif self.status.phase is Phase.CLOSE and self._signals < CUTTING_SIGNAL:
            return  # the phase that it asks for is here already; whoever sends two at once means no harm to those told goodbye
        elif self._pending is DrainEvent.HURRY or self.status.phase is Phase.FLUSH:
            self._interrupt(DrainEvent.STOP)
        else:
            self._interrupt(DrainEvent.HURRY)

    def usurp(self) -> None:
        """Another process has taken this node's id: close all connections at once, so that parties resume where they are found.

        Nothing is handed over and no receipt is stored: under this name both would be the other process's.
        """
        if self.status.phase in (Phase.CLOSE, Phase.DONE):
            return
        self.begin("another process has this node's id", by_signal=True)
        self._interrupt(DrainEvent.STOP)

    def abort(self) -> bool:
        """Call off a drain that an operator began; False when it cannot be called off any more."""
        status = self._status
        just_begun = status.phase is Phase.RUNNING and status.draining
        if status.by_signal or not (just_begun or (status.phase, DrainEvent.ABORT) in DRAIN):
            return False
        self._called_off = True
        self._interrupt(DrainEvent.ABORT)
        return True

    def _interrupt(self, event: DrainEvent) -> None:
        self._pending = event
        if self._scope is not None:
            self._scope.cancel(reason=f"drain phase {self.status.phase.value}: {event.value}")

    # --- the drain --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Wait for a drain to begin, carry it out, and return when the process may end. An aborted drain starts over."""
        while True:
            await self._begun.wait()
            await self._drain()
            if self._status.phase is Phase.DONE:
                return
            if self._called_off:
                self._reopen()

    async def run_progress(self) -> None:
        """Log how far a drain is, once a second, until cancelled."""
        while True:
            await self._begun.wait()
            await trio.sleep(PROGRESS_S)
            status = self.status
            if status.phase in (Phase.WORKERS, Phase.CLIENTS, Phase.TERMINATE):
                log.info(
                    "drain_progress",
                    line=status.line(trio.current_time()),
                    clients_left=status.clients_left,
                    workers_left=status.workers_left,
                    rate_per_s=status.rate_per_s,
                )

    async def _drain(self) -> None:
        config = self._config = self._hub.config.drain
        deadline = trio.current_time() + config.timeout_s
        handover_deadline = deadline - config.flush_timeout_s - config.close_timeout_s
        # Room for apps that must be terminated is kept only if there are any.
        terminate_s = config.terminate_timeout_s if self._hub.legacy_workers() else 0.0
        moves = handover_deadline - terminate_s
        status = self._status
        mover = Mover(
            self._hub,
            self._lease,
            self.ledger,
            reason=status.reason or "draining",
            parties=status.parties,
            final=status.by_signal,
            deadline=deadline,
            moves_by=moves,
            asked_ms=self._asked_ms,
        )
        self._mover = self._hub.watcher = mover
        self._receipt_stored, self._why_left = False, NOT_IN_TIME
        last = Phase.CLIENTS if "clients" in status.parties else Phase.WORKERS
        phases: dict[Phase, tuple[Callable[[], Awaitable[DrainEvent]], Callable[[float], float]]] = {
            Phase.UNREADY: (self._unready, lambda now: now + config.unready_s + TALK_S),
            Phase.SUCCESSOR: (partial(self._successor, mover), partial(self._until_successor, moves)),
            Phase.WORKERS: (partial(self._workers, mover), lambda _: mover.moves_by),
            Phase.CLIENTS: (partial(self._move, mover), lambda _: mover.moves_by),
            Phase.HOLD: (self._hold, lambda _: float("inf")),
            Phase.TERMINATE: (self._terminate, lambda now: min(handover_deadline, now + config.terminate_timeout_s)),
            Phase.FLUSH: (self._flush, lambda now: now + config.flush_timeout_s),
            Phase.CLOSE: (partial(self._close, mover), lambda now: now + config.close_timeout_s),
        }
        self._enter(step(DRAIN, Phase.RUNNING, DrainEvent.BEGIN))
        while self.status.phase in phases:
            work, until = phases[self.status.phase]
            event = DrainEvent.BUDGET
            if self._interrupted() is None or self.status.phase is Phase.CLOSE:
                with trio.CancelScope(deadline=until(trio.current_time())) as self._scope:
                    event = await work()
                self._scope = None
            interrupted = self._interrupted()
            if interrupted is not None and self.status.phase is not Phase.CLOSE:
                event, self._pending = interrupted, None
            elif self.status.phase is last and not status.by_signal:
                event = DrainEvent.HELD
                await self._store_receipt(self.ledger)  # whoever waits for HOLD may read it then
            self._note_why(event)
            self._enter(step(DRAIN, self.status.phase, event), event)

    def _note_why(self, event: DrainEvent) -> None:
        """Note why parties will be left, as far as the end of a phase by `event` tells."""
        if self.status.phase is Phase.SUCCESSOR and event in (DrainEvent.BUDGET, DrainEvent.NO_SUCCESSOR):
            if event is DrainEvent.BUDGET:
                log.warning("no_successor")
            self._alone = True
        if self._alone:
            self._why_left = "no other node was ready"
        elif event in (DrainEvent.HURRY, DrainEvent.STOP):
            self._why_left = "a signal ended the drain early"

    def _interrupted(self) -> DrainEvent | None:
        """What a signal or an operator has asked for since the phase began."""
        return self._pending

    def _enter(self, phase: Phase, event: DrainEvent = DrainEvent.BEGIN) -> None:
        log.info(
            "drain_phase",
            phase=phase.value,
            by=event.value,
            reason=self.status.reason,
            after_s=round(trio.current_time() - self.status.began_at, 3),
            **self.status.plan,
        )
        self.ledger.phase(phase.value, trio.current_time(), self._hub.store.now_ms())
        self._status = attrs.evolve(self._status, phase=phase)

    def _reopen(self) -> None:
        """An operator's drain was called off: this node serves again."""
        hub = self._hub
        self._mover = None
        self._pending = None
        self._alone = self._called_off = False
        hub.watcher = None
        hub.refusing = {}
        for link in hub.links:
            link.told_to_go = False
        self._begun = trio.Event()
        self._status = DrainStatus()
        ledger, self.ledger = self.ledger, Ledger(hub.node)
        # Neither is waited for: the store may be away, and a signal that comes now is to be heeded now.
        self._lease.say("ready")
        ledger.called_off()
        hub.spawn(self._store_called_off, ledger)

    # --- the phases -------------------------------------------------------------------------------------------------

    async def _unready(self) -> DrainEvent:
        hub = self._hub
        was_ready = "/v1/client" not in hub.refusing
        self._refuse()
        try:
            with trio.move_on_after(TALK_S):
                await self._lease.set_state("draining")
        except StoreUnavailable:
            log.warning("drain_not_stored")
        if was_ready and self._status.refuses_clients:
            await trio.sleep(self._config.unready_s)
        return DrainEvent.DONE

    def _until_successor(self, moves_by: float, now: float) -> float:
        # An operator's drain has time: it cuts off nobody, so it waits for somebody to go to.
        return min(moves_by, now + self._config.successor_timeout_s) if self._status.by_signal else float("inf")

    async def _successor(self, mover: Mover) -> DrainEvent:
        if self._hub.links and self._next_start_succeeds():
            log.info(
                "next_start_succeeds", reason="no other node is live, and the listening socket outlives this process"
            )
            return DrainEvent.NO_SUCCESSOR
        if self._hub.links:
            await mover.find_successor()  # the phase's own budget ends it, and nothing else does
        return DrainEvent.DONE

    def _next_start_succeeds(self) -> bool:
        """Tell whether waiting is in vain: the supervisor starts the next process only after this one, and no other node is live.

        The nodes were read a moment ago, when this one was registered as draining.
        """
        return self.socket_outlives and self._status.by_signal and not self._hub.cluster.prospects()

    async def _workers(self, mover: Mover) -> DrainEvent:
        await mover.begin()
        return await self._move(mover, until_workers_done=True)

    async def _move(self, mover: Mover, *, until_workers_done: bool = False) -> DrainEvent:
        event = await mover.move(until_workers_done=until_workers_done)
        self._alone = event is DrainEvent.NO_SUCCESSOR
        return event

    async def _hold(self) -> DrainEvent:
        """Nothing more to do: say what came of it, and wait for a signal or for being called off.

        When no other node is ready any more, it is called off: those who moved are about to come back, and find somebody.
        A node that never had another beside it was told to admit nobody, and does not.
        """
        log.info("drained", **self.status.plan)
        together_at = float("inf")
        while trio.current_time() - together_at < RECALL_S:
            if self._hub.cluster.successors():
                together_at = trio.current_time()
            await trio.sleep(RECALL_POLL_S)
        log.warning("recalled", reason="no other node is ready")
        self.abort()
        return DrainEvent.ABORT

    # --- the end ----------------------------------------------------------------------------------------------------

    async def _terminate(self) -> DrainEvent:
        """Programs that know no GOAWAY are asked to clean up, and closed as soon as they have."""
        self._note_parties()  # those that are asked to clean up here are gone before FLUSH
        links = self._hub.legacy_workers()
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

    def _refuse(self) -> None:
        self._hub.refusing = {f"/v1/{kind.removesuffix('s')}": CloseCode.REFUSED for kind in self._status.parties}

    async def _flush(self) -> DrainEvent:
        hub = self._hub
        self._refuse()  # two signals at once skip what comes before
        hub.relay.store_acks()
        hub.outbox.flush_acks()
        self._note_cut()
        await self._store_receipt(self.ledger)
        with suppress(StoreUnavailable):
            await hub.committer.wait_idle()
        hub.outbox.flush_acks()
        while any(conn.queued_bytes for conn in hub.connections.values()):  # noqa: ASYNC110
            await trio.sleep(0.01)  # once in a drain; an event for each connection would be paid for by every write
        log.info("drain_receipt", **self.ledger.totals())
        return DrainEvent.DONE

    def _note_parties(self) -> list[tuple[str, Party]]:
        """Note in the receipt the parties that are here, which this drain is about to close; returns (session, party)."""
        here: list[tuple[str, Party]] = []
        for session in self._hub.sessions.values():
            sides: tuple[tuple[Party, object], ...] = (("client", session.client.link), ("worker", session.worker.link))
            parties = [party for party, link in sides if link is not None]
            if parties:
                self.ledger.closing(session.id, session.worker_id, parties)
                here += [(session.id, party) for party in parties]
        return here

    def _note_cut(self) -> None:
        """Note in the receipt and in the sessions' trails that this drain closes the parties that are here, and why."""
        hub = self._hub
        detail = f"by the drain of {hub.node} ({self.status.reason}): {self._why_left}"[:200]
        for session, party in self._note_parties():
            hub.trail.note(session, party, "suspended", detail)
        hub.trail.store()

    async def _store_called_off(self, ledger: Ledger) -> None:
        """Keep what a drain did that was called off, unless it did nothing, or another one has begun since."""
        totals = ledger.totals()
        if totals["sessions"]:
            log.info("drain_receipt", **totals)
            await self._store_receipt(ledger, lambda: not self._status.draining)

    async def _follow(self, ledger: Ledger) -> None:
        """Learn from the trails where those who moved went on. Raises StoreUnavailable."""
        committer = self._hub.committer
        with trio.move_on_after(self._config.flush_timeout_s * FOLLOW_SHARE):
            # The last of them have been live for a moment only, and trails are stored a moment later.
            for wait_s in (0.0, TRAIL_DELAY_S):
                names = ledger.followed()
                if not names:
                    return
                await trio.sleep(wait_s)
                for start in range(0, len(names), FOLLOW_LOT):
                    lot = names[start : start + FOLLOW_LOT]
                    trails = await committer.call_many([ReadTrail(name) for name in lot])
                    for name, trail in zip(lot, trails, strict=True):
                        if isinstance(trail, Trail):
                            ledger.follow(name, trail.steps)

    async def _store_receipt(self, ledger: Ledger, wanted: Callable[[], bool] = lambda: True) -> None:
        hub = self._hub
        try:
            await self._follow(ledger)
            if not wanted():
                return
            receipt = self._finish(ledger)
            await hub.committer.call(PutReceipt(hub.node, receipt, hub.store.now_ms()), self._config.flush_timeout_s)
            self._receipt_stored = self._status.by_signal
        except StoreUnavailable:
            log.warning("receipt_not_stored")

    def _finish(self, ledger: Ledger) -> bytes:
        return ledger.finish(trio.current_time(), final=self._status.by_signal, why=self._why_left)

    def _note_at_last(self) -> None:
        """After a drain that was stopped before the end of FLUSH: its receipt and trails go to the store, and are not waited for."""
        hub = self._hub
        self._note_cut()
        if not self._lease.taken:  # under a lost id it would replace the receipt of another process
            receipt = self._finish(self.ledger)
            log.info("drain_receipt", **self.ledger.totals())
            hub.committer.submit(PutReceipt(hub.node, receipt, hub.store.now_ms()), ignore)

    async def _close(self, mover: Mover) -> DrainEvent:
        hub = self._hub
        if not self._receipt_stored:
            self._note_at_last()
        code, reason = CloseCode.GOING_AWAY, "going away"
        if self._alone or not mover.has_successor():
            code, reason = CloseCode.RESTARTING, "restarting"
        hub.refusing = {"/v1/client": code, "/v1/worker": code}
        # A set's own order is that of addresses in memory: a seed would not be the same run twice.
        for link in sorted(hub.links, key=lambda link: link.owner):
            link.close(code, reason)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.stop_accepting)
            for conn in hub.connections.values():
                conn.close(code, reason)  # the first close counts: those that moved have theirs
                nursery.start_soon(conn.wait_closed)
        async with trio.open_nursery() as nursery:
            for conn in (
                hub.connections.values()
            ):  # those that came meanwhile are refused, and may hear so; others come for ever
                nursery.start_soon(conn.wait_closed)
        return DrainEvent.DONE


async def _terminated(link: "WorkerLink") -> None:
    await link.terminated.wait()
    link.close(CloseCode.NORMAL, "terminated")
