"""The way of a SIGTERM: one drain, from its beginning to the exit.

    UNREADY ▸ SUCCESSOR ▸ WORKERS ▸ CLIENTS ▸ TERMINATE ▸ FLUSH ▸ CLOSE

`core.transitions.DRAIN` holds the order; here the phases are carried out and waited for. Telling workers and clients to go,
and waiting until they have, is `service.moving`.
Each phase runs in a cancel scope of its own, whose deadline is its budget, and ends by what it waits for, by its budget,
or because a signal hurries it. Everything before CLOSE is said with frames; cancellation comes only after this file is
through.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

import attrs
import structlog
import trio

from signald.core.transitions import DRAIN, DrainEvent, Phase, step
from signald.errors import StoreUnavailable
from signald.service.ledger import Ledger
from signald.service.moving import Mover
from signald.store.base import PutReceipt
from signald.wire.close_codes import CloseCode
from signald.wire.messages import TerminateApp

if TYPE_CHECKING:
    from signald.service.hub import Hub
    from signald.service.lease import Lease
    from signald.service.worker_link import WorkerLink

log = structlog.get_logger(__name__)

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
        self._scope: trio.CancelScope | None = None
        self._pending: DrainEvent | None = None
        self._mover: Mover | None = None
        self._alone = False
        """Nobody takes over: the parties left are told to come back here."""
        self._status = DrainStatus()
        self.ledger = Ledger(hub.node)

    @property
    def status(self) -> DrainStatus:
        """How far the drain is."""
        return attrs.evolve(self._status, plan=self._mover.statistics()) if self._mover is not None else self._status

    # --- called from outside ----------------------------------------------------------------------------------------

    def begin(self, reason: str, *, by_signal: bool) -> None:
        """Begin to drain; a signal makes an operator's drain final."""
        if self.status.phase is Phase.RUNNING:
            self._status = DrainStatus(Phase.RUNNING, reason, by_signal, trio.current_time())
            self._begun.set()
        elif by_signal and not self.status.by_signal:
            self._status = attrs.evolve(self._status, by_signal=True)

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
        deadline = trio.current_time() + config.timeout_s
        handover_deadline = deadline - config.flush_timeout_s - config.close_timeout_s
        # Room for apps that must be terminated is kept only if there are any.
        terminate_s = config.terminate_timeout_s if self._hub.legacy_workers() else 0.0
        moves = handover_deadline - terminate_s
        mover = Mover(
            self._hub,
            self._lease,
            self.ledger,
            reason=self._status.reason or "draining",
            deadline=deadline,
            moves_by=moves,
        )
        self._mover = self._hub.watcher = mover
        phases: dict[Phase, tuple[Callable[[], Awaitable[DrainEvent]], Callable[[float], float]]] = {
            Phase.UNREADY: (self._unready, lambda now: now + config.unready_s + TALK_S),
            Phase.SUCCESSOR: (
                partial(self._successor, mover),
                lambda now: min(moves, now + config.successor_timeout_s),
            ),
            Phase.WORKERS: (partial(self._workers, mover), lambda _: moves),
            Phase.CLIENTS: (partial(self._move, mover), lambda _: moves),
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
            self._enter(step(DRAIN, self.status.phase, event), event)

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
        self.ledger.phase(phase.value, trio.current_time())
        self._status = attrs.evolve(self._status, phase=phase)

    async def _reopen(self) -> None:
        """An operator's drain was called off: this node serves again."""
        hub = self._hub
        self._mover = None
        self._pending = None
        self._alone = False
        hub.watcher = None
        hub.refusing = None
        for link in hub.links:
            link.told_to_go = False
        self._begun = trio.Event()
        self._status = DrainStatus()
        self.ledger = Ledger(hub.node)
        try:
            await self._lease.set_state("ready")
        except StoreUnavailable:
            log.warning("drain_abort_not_stored")  # the lease keeper says it again

    # --- the phases -------------------------------------------------------------------------------------------------

    async def _unready(self) -> DrainEvent:
        hub = self._hub
        hub.refusing = CloseCode.REFUSED
        try:
            with trio.move_on_after(TALK_S):
                await self._lease.set_state("draining")
        except StoreUnavailable:
            log.warning("drain_not_stored")
        await trio.sleep(self._config.unready_s)
        return DrainEvent.DONE

    async def _successor(self, mover: Mover) -> DrainEvent:
        if not self._hub.links or await mover.find_successor():
            return DrainEvent.DONE
        self._alone = True
        return DrainEvent.NO_SUCCESSOR

    async def _workers(self, mover: Mover) -> DrainEvent:
        await mover.begin()
        return await self._move(mover, until_workers_done=True)

    async def _move(self, mover: Mover, *, until_workers_done: bool = False) -> DrainEvent:
        event = await mover.move(until_workers_done=until_workers_done)
        self._alone = event is DrainEvent.NO_SUCCESSOR
        return event

    # --- the end ----------------------------------------------------------------------------------------------------

    async def _terminate(self) -> DrainEvent:
        """Programs that know no GOAWAY are asked to clean up, and closed as soon as they have."""
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

    async def _close(self, mover: Mover) -> DrainEvent:
        hub = self._hub
        code, reason = CloseCode.GOING_AWAY, "going away"
        if self._alone or not mover.has_successor():
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
