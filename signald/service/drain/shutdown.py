"""The way of a SIGTERM: one drain, from its beginning to the exit.

    UNREADY ▸ SUCCESSOR ▸ WORKERS ▸ CLIENTS ▸ TERMINATE ▸ FLUSH ▸ CLOSE

`core.drain` is the machine: its states, and the transitions in one table. Here its phases are carried out and waited for.
Telling workers and clients to go, and waiting until they have, is `moving`; the receipt is `ledger` and `receipts`.
An operator's drain may be for workers only or clients only, cuts off no party, and ends in HOLD: the process stays until a
signal ends it or the drain is called off.

A signal or an operator changes the state at once and cancels the scope of the phase; the task of the drain follows. Each
phase runs in a cancel scope of its own, whose deadline is its budget. Everything before CLOSE is said with frames;
cancellation of connections comes only after this file is through.
"""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from math import inf
from typing import Protocol

import attrs
import structlog
import trio

from signald.core.drain import DRAIN, LEAVING, REFUSED, DrainEvent, DrainState, Phase, WhyLeft, why_left
from signald.core.head import PARTIES, Party
from signald.core.transitions import step
from signald.errors import StoreUnavailable
from signald.net.connection import Connection
from signald.service.cluster.lease import Lease
from signald.service.drain.ledger import Ledger
from signald.service.drain.moving import Mover
from signald.service.drain.receipts import Receipts
from signald.service.drain.status import DrainStatus
from signald.service.parts import Parts
from signald.service.trail import Trail
from signald.service.worker_like import WorkerLike
from signald.store.registry.queues.ops import TellCluster
from signald.wire.close_codes import CloseCode

log = structlog.get_logger(__name__)

CUTTING_SIGNAL = 4
"""The first drains, the second skips to FLUSH, the third to CLOSE, and this one ends the closing handshakes."""

LAST_ANSWERS_S = 1.0
"""What HTTP requests under way are given at least, where the drain has used all of its time or was hurried. Part of `drain.margin_s`."""

PROGRESS_S = 1.0
"""How often a drain says how far it is."""

TALK_S = 2.0
"""How long the store may take to hear that this node drains; the drain goes on without."""

TOLD_TOTALS = ("moved", "left", "suspended", "lost")
"""What the core server is told of a receipt: how many sessions had which outcome."""

RECALL_S, RECALL_POLL_S = 1.0, 0.25
"""How long a node that holds must have been the only one left until it serves again: well below `successor_timeout_s`, for
which another node that drains looks for a successor."""


@attrs.frozen
class _Work:
    """How a state is carried out."""

    run: Callable[[], Awaitable[DrainEvent]]
    """Does the work of the phase; returns what ended it."""
    until: Callable[[float], float]
    """The end of its budget (trio time), from the time at which it begins."""
    over: DrainEvent = DrainEvent.BUDGET
    """What ends the phase when its work was cancelled, by the budget or by a change of the state."""
    whole: bool = False
    """The work is not cancelled for a change of the state."""


class Door(Protocol):
    """Where connections come in (`hub.Hub`)."""

    refusing: dict[Party, CloseCode]
    """Party → the code that its new connections are closed with."""
    connections: dict[int, Connection]
    """Every connection that is not over."""

    def close(self, conn: Connection, code: CloseCode, reason: str) -> None:
        """Close a connection because this node goes, in the words of its wire."""


class ShutdownScope:
    """See the module. `begin`, `signal` and `abort` are called from anywhere; `run` does the work."""

    def __init__(self, parts: Parts, trail: Trail, door: Door, lease: Lease) -> None:
        self._parts = parts
        self._context = parts.context
        self._attachments = parts.attachments
        self._door = door
        self._lease = lease
        self._config = self._context.config.drain
        """The budgets of this drain: those that hold when it begins."""
        self._begun = trio.Event()
        self._scope: trio.CancelScope | None = None
        self._signals = 0
        self._asked_ms = 0
        """When this drain, or the one it goes on with, has begun (time of the store)."""
        self._mover: Mover | None = None
        self._why_left = WhyLeft.NOT_IN_TIME
        self._receipt_stored = False
        """The receipt of a drain that ends the process is in the store."""
        self._status = DrainStatus()
        self.ledger = Ledger(self._context.node)
        self._receipts = Receipts(parts.context, parts.attachments, trail)
        self.socket_outlives = False
        """A supervisor holds the listening socket open for the next process."""
        self.stop_accepting: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint
        """Where the listening sockets outlive this process: leave connections from now on to the next process."""
        self.on_stop: Callable[[], None] = lambda: None
        """Called when it is certain that the process ends by this drain, perhaps more than once."""
        self._deadline = -inf
        self._handover_deadline = -inf
        """Until when parties may move or clean up (trio time)."""

    @property
    def status(self) -> DrainStatus:
        """How far the drain is."""
        mover = self._mover
        if mover is None:
            return self._status
        return attrs.evolve(
            self._status, plan=mover.statistics(), rate_per_s=round(mover.rate_per_s, 1), deadline=mover.moves_by
        )

    @property
    def why_left(self) -> WhyLeft:
        """Why parties will be left, as far as is known."""
        return self._why_left

    @property
    def answers_until(self) -> float:
        """Until when HTTP requests under way may go on behind the drain (trio time): its deadline, unless it was hurried."""
        soon = trio.current_time() + LAST_ANSWERS_S
        return soon if self._signals > 1 or self._lease.taken else max(soon, self._deadline)

    # --- called from outside ----------------------------------------------------------------------------------------

    def begin(self, reason: str, *, parties: frozenset[Party] = PARTIES) -> bool:
        """Begin an operator's drain; False if a drain is under way already."""
        return self._ask(DrainEvent.ASK, reason, parties)

    def extend(self, parties: frozenset[Party]) -> bool:
        """Let an operator's drain move `parties` as well; False if there is none, or it moves them already."""
        return not parties <= self._status.parties and self._ask(DrainEvent.EXTEND, "", self._status.parties | parties)

    def signal(self) -> None:
        """SIGTERM or SIGINT: the first drains, the second hurries, the third ends it, the fourth cuts the goodbyes short."""
        self._signals += 1
        self._ask(DrainEvent.SIGNAL if self._signals < CUTTING_SIGNAL else DrainEvent.CUT, "draining", PARTIES)

    def usurp(self) -> None:
        """Another process has taken this node's id: close all connections at once, so that parties resume where they are found.

        Nothing is handed over and no receipt is stored: under this name both would be the other process's.
        """
        self._ask(DrainEvent.USURP, "another process has this node's id", PARTIES)

    def abort(self) -> bool:
        """Call off a drain that an operator began; False when it cannot be called off any more."""
        return self._ask(DrainEvent.ABORT, "", self._status.parties)

    def _ask(self, event: DrainEvent, reason: str, parties: frozenset[Party]) -> bool:
        """Take an event from outside, for `parties`; `reason` is that of a new drain. False when it is refused."""
        status = self._status
        if (status.state, event) in REFUSED:
            return False
        state = step(DRAIN, status.state, event)
        self._status = attrs.evolve(status, state=state, parties=parties)
        if not status.draining:
            self._status = attrs.evolve(self._status, reason=reason, began_at=trio.current_time())
            self._asked_ms = self._context.now_ms()
            self._begun.set()
        elif state is not status.state and self._scope is not None:
            self._scope.cancel(reason=f"drain phase {status.phase.value}: {event.value}")
        if self._status.by_signal:
            self.on_stop()
        return True

    # --- the drain --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Wait for a drain to begin, carry it out, and return when the process may end. An aborted drain starts over."""
        while True:
            await self._begun.wait()
            await self._drain()
            if self._status.state is DrainState.DONE:
                self._tell_finished()
                return
            if self._status.state is DrainState.SERVING:
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
        """Carry out one drain, until it is over, called off, or begins again."""
        works = self._prepare()
        self._enter(Phase.UNREADY, DrainEvent.BEGIN.value)
        self._go_on(DrainEvent.BEGIN)
        while (work := works.get(self._status.state)) is not None:
            event = work.over
            with trio.CancelScope(deadline=work.until(trio.current_time())) as scope:
                self._scope = None if work.whole else scope
                event = await work.run()
            self._scope = None
            self._go_on(event)

    def _go_on(self, event: DrainEvent) -> None:
        """The work of a phase has ended by `event`: go on to the next state, and enter its phase."""
        before = self._status.state
        state = step(DRAIN, before, event)
        if (before, event) == (DrainState.SUCCESSOR, DrainEvent.BUDGET):
            log.warning("no_successor")
        self._why_left = why_left(self._why_left, before, event)
        self._status = attrs.evolve(self._status, state=state)
        if state.phase is not None and state.phase is not self._status.phase:
            self._enter(state.phase, before.value if before in LEAVING else event.value)

    def _prepare(self) -> Mapping[DrainState, _Work]:
        """Set up a drain that begins now; returns how each of its states is carried out."""
        config = self._config = self._context.config.drain
        deadline = trio.current_time() + config.timeout_s
        self._deadline = deadline
        handover_deadline = deadline - config.flush_timeout_s - config.close_timeout_s
        self._handover_deadline = handover_deadline
        # Room for apps that must be terminated is kept only if there are any. Those that end first need none of it.
        terminate_s = config.terminate_timeout_s if self._ended_last() else 0.0
        moves_by = handover_deadline - terminate_s
        status = self._status
        mover = Mover(
            self._parts,
            self._lease,
            self.ledger,
            reason=status.reason or "draining",
            parties=status.parties,
            final=status.by_signal,
            deadline=deadline,
            moves_by=moves_by,
            asked_ms=self._asked_ms,
        )
        self._unfollow()
        self._mover = mover
        mover.follow(self._context.events)
        self._context.draining = True
        self._receipt_stored, self._why_left = False, WhyLeft.NOT_IN_TIME
        unready = _Work(self._unready, lambda now: now + config.unready_s + TALK_S)
        successor = partial(self._successor, mover)
        workers = partial(self._workers, mover)
        clients = _Work(partial(mover.move, until_workers_done=False), lambda _: mover.moves_by)
        # An operator's drain that moves no clients is through with its workers.
        last = DrainEvent.HELD if "client" not in status.parties else None
        return {
            DrainState.OPERATOR_UNREADY: unready,
            DrainState.OPERATOR_SUCCESSOR: _Work(successor, lambda _: inf),
            DrainState.OPERATOR_WORKERS: _Work(
                partial(_ending, workers, last), lambda _: mover.moves_by, last or DrainEvent.BUDGET
            ),
            DrainState.OPERATOR_CLIENTS: clients,
            DrainState.RECEIPT: _Work(self._store_held, lambda _: inf, whole=True),
            DrainState.HOLD: _Work(self._hold, lambda _: inf),
            DrainState.UNREADY: unready,
            DrainState.SUCCESSOR: _Work(successor, lambda now: min(moves_by, now + config.successor_timeout_s)),
            DrainState.WORKERS: _Work(workers, lambda _: mover.moves_by),
            DrainState.CLIENTS: clients,
            DrainState.TERMINATE: _Work(
                self._terminate,
                lambda now: (
                    handover_deadline
                    if self._parts.terminations.count
                    else min(handover_deadline, now + config.terminate_timeout_s)
                ),
            ),
            DrainState.FLUSH: _Work(self._flush, lambda now: now + config.flush_timeout_s),
            DrainState.CLOSE: _Work(partial(self._close, mover), lambda now: now + config.close_timeout_s),
        }

    def _enter(self, phase: Phase, by: str) -> None:
        log.info(
            "drain_phase",
            phase=phase.value,
            by=by,
            reason=self.status.reason,
            after_s=round(trio.current_time() - self.status.began_at, 3),
            **self.status.plan,
        )
        self.ledger.phase(phase.value, trio.current_time(), self._context.now_ms())
        self._status = attrs.evolve(self._status, phase=phase)

    def _reopen(self) -> None:
        """An operator's drain was called off: this node serves again."""
        context, attachments, door = self._context, self._attachments, self._door
        self._unfollow()
        self._mover = None
        self._why_left = WhyLeft.NOT_IN_TIME
        context.draining = False
        door.refusing = {}
        for link in attachments.links:
            link.told_to_go = False
        self._begun = trio.Event()
        self._status = DrainStatus()
        ledger, self.ledger = self.ledger, Ledger(context.node)
        # Neither is waited for: the store may be away, and a signal that comes now is to be heeded now.
        self._lease.say("ready")
        ledger.called_off()
        context.spawn(self._store_called_off, ledger)

    # --- the phases -------------------------------------------------------------------------------------------------

    async def _unready(self) -> DrainEvent:
        door = self._door
        was_ready = "client" not in door.refusing
        self._refuse()
        try:
            with trio.move_on_after(TALK_S):
                await self._lease.set_state("draining")
        except StoreUnavailable:
            log.warning("drain_not_stored")
        if was_ready and self._status.refuses_clients:
            await trio.sleep(self._config.unready_s)
        if self._status.by_signal:
            self._begin_terminations()
        return DrainEvent.DONE

    def _begin_terminations(self) -> None:
        """Ask the programs to clean up that end first. Their ends go on beside the phases, and TERMINATE waits for the last."""
        now = trio.current_time()
        limit_s = max(0.0, self._handover_deadline - now)
        terminations = self._parts.terminations
        for link in sorted(self._attachments.legacy_workers(), key=lambda link: link.owner):
            if (timeout_s := link.cleans_up_s) is not None and not terminations.has(link):
                for session in link.attached:
                    client = session.client.link
                    self.ledger.closing(
                        session.id, link.owner, ["worker"], client.dialect if client is not None else ""
                    )
                terminations.begin(link, self._status.reason or "draining", timeout_s, limit_s)

    async def _successor(self, mover: Mover) -> DrainEvent:
        if self._attachments.links and self._next_start_succeeds():
            log.info(
                "next_start_succeeds", reason="no other node is live, and the listening socket outlives this process"
            )
            return DrainEvent.NO_SUCCESSOR
        if self._attachments.links:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._until_terminated, nursery.cancel_scope)
                await mover.find_successor()  # the phase's own budget ends it, or that no party is left
                nursery.cancel_scope.cancel(reason="a successor is there")
        return DrainEvent.DONE

    async def _until_terminated(self, waiting: trio.CancelScope) -> None:
        """End the wait for a successor when the programs that were asked to clean up were the only parties here, and are through."""
        if self._parts.terminations.count:
            await self._parts.terminations.wait_idle()
            if not self._attachments.links:
                waiting.cancel(reason="no party is left to move")

    def _next_start_succeeds(self) -> bool:
        """Tell whether waiting is in vain: the supervisor starts the next process only after this one, and no other node is live.

        The nodes were read a moment ago, when this one was registered as draining.
        """
        return self.socket_outlives and self._status.by_signal and not self._context.cluster.prospects()

    async def _workers(self, mover: Mover) -> DrainEvent:
        await mover.begin()
        return await mover.move(until_workers_done=True)

    async def _store_held(self) -> DrainEvent:
        """Store the receipt of an operator's drain, so that it can be read as soon as HOLD is shown."""
        await self._store_receipt()
        self._enter(Phase.HOLD, DrainState.RECEIPT.value)
        return DrainEvent.DONE

    async def _hold(self) -> DrainEvent:
        """Nothing more to do: say what came of it, and wait for a signal or for being called off.

        When no other node is ready any more, the drain is called off: the parties that moved are about to come back, and find
        this node. A node that never had another beside it was told to admit no party, and does not.
        """
        log.info("drained", **self.status.plan)
        together_at = float("inf")
        while trio.current_time() - together_at < RECALL_S:
            if self._context.cluster.successors():
                together_at = trio.current_time()
            await trio.sleep(RECALL_POLL_S)
        log.warning("recalled", reason="no other node is ready")
        self.abort()
        return DrainEvent.DONE

    # --- the end ----------------------------------------------------------------------------------------------------

    async def _terminate(self) -> DrainEvent:
        """Programs that know no GOAWAY are asked to clean up, and closed as soon as they have."""
        self._receipts.note_parties(self.ledger)  # parties that are asked to clean up here are gone before FLUSH
        self._begin_terminations()  # of those that were let in meanwhile
        links = self._ended_last()
        left_s = trio.current_effective_deadline() - trio.current_time()
        within_s = max(0.0, min(left_s, self._config.terminate_timeout_s))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._parts.terminations.wait_idle)
            for link in links:
                request = f"{self._context.node}-{link.conn.id}"
                link.terminate(request, self.status.reason or "draining", round(within_s * 1000))
                nursery.start_soon(_terminated, link, within_s)
            self._context.writes.flush()
        return DrainEvent.DONE

    def _ended_last(self) -> list[WorkerLike]:
        """Return the programs that are asked to clean up when all others have gone."""
        return [link for link in self._attachments.legacy_workers() if link.cleans_up_s is None]

    def _refuse(self) -> None:
        self._door.refusing = dict.fromkeys(self._status.parties, CloseCode.REFUSED)

    async def _flush(self) -> DrainEvent:
        context, attachments, door = self._context, self._attachments, self._door
        self._refuse()  # two signals at once skip what comes before
        attachments.relay.store_acks()
        context.writes.flush_acks()
        self._receipts.note_cut(self.ledger, self._status.reason, self._why_left)
        await self._store_receipt()
        with suppress(StoreUnavailable):
            await context.committer.wait_idle()
        context.writes.flush_acks()
        while any(conn.queued_bytes for conn in door.connections.values()):  # noqa: ASYNC110
            await trio.sleep(0.01)  # once in a drain; an event for each connection would be paid for by every write
        log.info("drain_receipt", **self.ledger.totals())
        return DrainEvent.DONE

    async def _store_receipt(self) -> None:
        flush_s = self._config.flush_timeout_s
        if await self._receipts.store(self.ledger, flush_s, partial(self._finish, self.ledger)):
            self._receipt_stored = self._status.by_signal

    def _finish(self, ledger: Ledger) -> bytes:
        return ledger.finish(trio.current_time(), final=self._status.by_signal, why=self._why_left.value)

    def _tell_finished(self) -> None:
        """Tell the core server of this planned stop: once, however often its drain began. A node that lost its id was not stopped."""
        context, totals = self._context, self.ledger.totals()
        if self._lease.taken or not context.events_max:
            return
        fields: dict[str, str | int] = {
            "node": context.node,
            "release": context.config.node.release,
            "reason": self._status.reason,
            "duration_ms": max(0, context.now_ms() - self._asked_ms),
            **{name: count for name in TOLD_TOTALS if isinstance(count := totals[name], int)},
        }
        once = f"{context.node}:{self._lease.info.incarnation}"
        context.submit(TellCluster(once, "deploy.finished", fields, context.events_max, context.now_ms()))

    def _unfollow(self) -> None:
        """The mover of an earlier drain hears no more of the parties."""
        if self._mover is not None:
            self._mover.unfollow(self._context.events)

    async def _store_called_off(self, ledger: Ledger) -> None:
        """Keep what a drain did that was called off, unless it did nothing, or another one has begun since."""
        totals = ledger.totals()
        if totals["sessions"]:
            log.info("drain_receipt", **totals)
            await self._receipts.store(
                ledger,
                self._config.flush_timeout_s,
                lambda: None if self._status.draining else self._finish(ledger),
            )

    def _note_at_last(self) -> None:
        """After a drain that was stopped before the end of FLUSH: its receipt and trails go to the store, and are not waited for."""
        self._receipts.note_cut(self.ledger, self._status.reason, self._why_left)
        if not self._lease.taken:  # under a lost id it would replace the receipt of another process
            self._receipts.submit(self.ledger, partial(self._finish, self.ledger))

    async def _close(self, mover: Mover) -> DrainEvent:
        attachments, door = self._attachments, self._door
        if not self._receipt_stored:
            self._note_at_last()
        code, reason = CloseCode.GOING_AWAY, "going away"
        if self._why_left is WhyLeft.ALONE or not mover.successors.any_now():
            code, reason = CloseCode.RESTARTING, "restarting"
        door.refusing = dict.fromkeys(PARTIES, code)
        # A set's own order is that of addresses in memory: a seed would not be the same run twice.
        for link in sorted(attachments.links, key=lambda link: link.owner):
            link.close(code, reason)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.stop_accepting)
            for conn in door.connections.values():
                door.close(conn, code, reason)  # the first close counts: those that moved have theirs
                nursery.start_soon(conn.wait_closed)
        async with trio.open_nursery() as nursery:
            for conn in (
                door.connections.values()
            ):  # those that came meanwhile are refused, and may hear so; others come for ever
                nursery.start_soon(conn.wait_closed)
        return DrainEvent.DONE


async def _ending(work: Callable[[], Awaitable[DrainEvent]], event: DrainEvent | None) -> DrainEvent:
    """Do `work`; it has ended by `event`, if one is given."""
    ended = await work()
    return event or ended


async def _terminated(link: WorkerLike, within_s: float) -> None:
    with trio.move_on_after(within_s):
        await link.terminated.wait()
        link.close(CloseCode.NORMAL, "terminated")
