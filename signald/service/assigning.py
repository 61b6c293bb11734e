"""Workers and their sessions: claimed, assigned, accepted, late.

The registry in the store has decided which worker serves a session; this file carries it out on the node where the worker is.
"""

from collections.abc import Sequence
from functools import partial

import trio

from signald.core.exits import Cause
from signald.core.pairing import Pairing
from signald.core.wants import subject_of, tenant_of
from signald.errors import StoreUnavailable
from signald.ids import new_nonce
from signald.service.asking import ask_holders, is_unreadable
from signald.service.attached import LiveSession
from signald.service.attachments import Attachments
from signald.service.context import Context
from signald.service.events import Accepted, Assigned, SessionChanged, SessionResumed
from signald.service.jobs import JobDesk
from signald.service.line import give_back, wants_worker
from signald.service.losses import Losses
from signald.service.retries import Retries
from signald.service.seats import Seat, SeatState
from signald.service.withdrawals import REFUSED_PAUSE_S
from signald.service.worker_like import Assignment, WorkerLike
from signald.store.base import WAKE_SESSION, Behind, Fenced, Refused, Result
from signald.store.committer import ignore
from signald.store.registry.ops import NoWorker, Release, UpdateWorker, WorkerSessions
from signald.store.sagas import forget_session
from signald.store.session.ops import AcceptSession, Claimed, ClaimWorkerSide, Detach
from signald.wire.fields import SEQ_MAX
from signald.wire.messages import SETTINGS_BYTES_MAX, STATE_BYTES_MAX, ResumedSession, SessionPosition

LOT_MAX = 100
"""Sessions a worker is asked to take in one go."""

Sides = list[tuple[str, Result]]


class Assignments:
    """See the module."""

    def __init__(
        self, context: Context, attachments: Attachments, losses: Losses, retries: Retries, jobs: JobDesk
    ) -> None:
        self._context = context
        self._attachments = attachments
        self._relay = attachments.relay
        self._withdrawals = attachments.withdrawals
        self._streams = attachments.streams
        self._losses = losses
        self._retries = retries
        self._jobs = jobs
        self.claiming: set[str] = set()
        """Sessions that a worker here is just being given: the store may have granted them already."""

    # --- resuming ---------------------------------------------------------------------------------------------------

    async def claim_sessions(
        self, worker: str, registered: Sequence[str], listed: Sequence[SessionPosition], asked_ms: int
    ) -> Sides:
        """Claim the worker's side of every session the registry has paired with it, as it asked at `asked_ms`."""
        positions = {one.session: one for one in listed}
        await self._retries.dropped(worker, [session for session in registered if session not in positions])
        ops = []
        for session in registered:
            position = positions.get(session)
            if position is None:
                continue  # the worker does not know it (any more): it is assigned to it, as a new one
            ops.append(
                ClaimWorkerSide(
                    session,
                    self._context.node,
                    new_nonce(self._context.entropy),
                    worker,
                    False,
                    position.received,
                    position.acked,
                    asked_ms,
                    self._context.config.limits.claim_ahead_max,
                    events_max=self._context.events_max,
                )
            )
        results = await self._context.committer.call_many(ops)
        damaged = [place for place, result in enumerate(results) if is_unreadable(result)]
        if damaged:
            await ask_holders(
                self._context, self._attachments, [WAKE_SESSION + ops[place].session.encode() for place in damaged]
            )
            again = await self._context.committer.call_many([ops[place] for place in damaged])
            for place, result in zip(damaged, again, strict=True):
                results[place] = result
        return [(op.session, result) for op, result in zip(ops, results, strict=True)]

    def attach_claimed(
        self, link: WorkerLike, sides: Sides, listed: Sequence[SessionPosition]
    ) -> tuple[list[ResumedSession], list[str]]:
        """Attach what was claimed: (what goes on, what is lost)."""
        positions = {one.session: one for one in listed}
        restored: list[ResumedSession] = []
        for name, result in sides:
            if not isinstance(result, Claimed):
                if isinstance(result, Refused) and result.reason == "ahead":
                    self._losses.refuse(name, "worker", "resume")
                continue
            head = result.head
            received = min(positions[name].received, head.up_last)
            seat = self._attach(link, result, received)
            self._jobs.returned(link, seat.session, positions[name].jobs)
            self._streams.found(seat, result.streams)
            if head.worker_state == "paired":
                seat.state = SeatState.ACCEPTED
                self._streams.begin(seat, trio.current_time())
            else:
                # It had been asked and had not answered when it moved: its answer may still come.
                seat.due = trio.current_time() + self._context.config.timeouts.assign_s
            restored.append(ResumedSession(name, head.down_last, head.up_last - received))
            replaying = head.up_last - received
            events = self._context.events
            events.emit(SessionResumed(name, link.worker, result.epoch, result.previous_node, replaying))
            # `adopt` has observed the head already when the client is here; one elsewhere was woken by the store.
            session = seat.session
            events.emit(SessionChanged(name, session.worker_id, session.worker.node))
        going_on = {one.session for one in restored}
        return restored, [one.session for one in listed if one.session not in going_on]

    def tell_claimed(self, link: WorkerLike, sides: Sides) -> None:
        """Say what is to be said of each session that was claimed, behind the answer that names them."""
        for name, result in sides:
            seat = link.seats.get(name)
            if seat is None or not isinstance(result, Claimed):
                continue
            self._losses.tell_claim(link, name, result)
            if seat.state is SeatState.ACCEPTED:
                self._jobs.accepted(seat)
            self._streams.tell(seat.session, result.streams)
            if seat.session.spent:
                self._attachments.spent(seat.session)

    def _attach(self, link: WorkerLike, claimed: Claimed, received: int) -> Seat:
        session = self._attachments.adopt(claimed.head)
        self._attachments.attach(link, session, claimed.epoch, received)
        return link.seats[session.id]

    # --- looking at the registry ------------------------------------------------------------------------------------

    def check(self, link: WorkerLike) -> None:
        """Look at the worker again: has it been claimed elsewhere, has it new sessions?"""
        if link.checks.begin():
            self._context.spawn(self._refresh, link)

    async def _refresh(self, link: WorkerLike) -> None:
        try:
            while not link.over:
                link.checks.again = False
                try:
                    await self._refresh_once(link)
                except StoreUnavailable:
                    await trio.sleep(1.0)
                    continue
                if not link.checks.again:
                    return
        finally:
            link.checks.end()

    async def _refresh_once(self, link: WorkerLike) -> None:
        context = self._context
        held, paired = await context.committer.call_each(
            UpdateWorker(link.worker, link.epoch, link.capacity, link.leaving), WorkerSessions(link.worker)
        )
        if link.over:
            return
        if isinstance(held, Fenced) and held.epoch > link.epoch:
            self._attachments.release(link, Cause.WORKER_CLAIMED)
            return
        if isinstance(held, Fenced | Behind):
            context.inboxes.doubts.worker_behind(link)
        if isinstance(held, NoWorker):
            context.inboxes.doubts.check()  # given up by a node, or the store came back empty
            return
        new = [
            name
            for name in paired.sessions
            if name not in link.seats and (name, link.worker) not in self._withdrawals.pairs
        ]
        self.claiming.update(new)
        try:
            await self._assign_all(link, new)
        finally:
            self.claiming.difference_update(new)

    async def _assign_all(self, link: WorkerLike, names: list[str]) -> None:
        """Ask a worker to take `names`, as far as its send queue has room."""
        link.unasked = False
        lot = self._lot()
        for start in range(0, len(names), lot):
            if link.over or link.conn.closing:
                return  # the node that takes the worker next finds the pairings in the registry
            if not link.conn.room:
                link.unasked = True
                return
            await self._assign(link, names[start : start + lot])

    def _lot(self) -> int:
        """How many sessions fit between a send queue that has room and one that overflows, long as their history may be.

        A worker that is given more than that at once is not slow, and must not be cut off for it.
        """
        limits = self._context.config.limits
        # The texts of open streams are in it twice: as entries, and for the worker that is to go on with them.
        history_bytes = self._context.config.session.history_bytes_max
        longest_bytes = 2 * history_bytes + STATE_BYTES_MAX + SETTINGS_BYTES_MAX + limits.message_bytes_max
        return max(1, min(limits.send_queue_messages_max, limits.send_queue_bytes_max // longest_bytes, LOT_MAX))

    async def is_unknown(self, link: WorkerLike) -> bool:
        """Tell whether the registry has forgotten the worker. Raises StoreUnavailable."""
        held = await self._context.committer.call(UpdateWorker(link.worker, link.epoch, link.capacity, link.leaving))
        return isinstance(held, NoWorker) and not link.over

    async def _assign(self, link: WorkerLike, names: list[str]) -> None:
        context = self._context
        now = context.now_ms()
        history = context.config.session.history_messages_max
        results = await context.committer.call_many(
            [
                ClaimWorkerSide(
                    name,
                    context.node,
                    new_nonce(context.entropy),
                    link.worker,
                    True,
                    0,
                    0,
                    now,
                    history=history,
                    events_max=context.events_max,
                )
                for name in names
            ]
        )
        for name, claimed in zip(names, results, strict=True):
            if not isinstance(claimed, Claimed):
                if is_unreadable(claimed):
                    # Asked for once it has been given back; if no node can, it ends with its time.
                    context.spawn(self._ask_again, link, name)
                    continue
                if isinstance(claimed, Refused) and claimed.reason == "set_aside":
                    # A node of a release that counts no failures has put it in line: it gives up its place.
                    context.committer.submit(Release(name, link.worker, False), ignore)
                    continue
                # The session ended while it was being paired.
                for op in forget_session(name, now, told=context.events_max > 0):
                    context.submit(op)
                continue
            if link.over:
                # The node that takes the worker next finds the pairing in the registry. But no worker is attached here.
                context.committer.submit(Detach(name, "worker", context.node, claimed.epoch, now), ignore)
                continue
            head = claimed.head
            if max(head.up_last, head.down_last) >= SEQ_MAX - 1:
                # No frame could carry the number it would begin with. The client is told by the end of the session.
                self._attachments.spent(self._attachments.adopt(head))
                continue
            if not wants_worker(context, head) or tenant_of(head.principal) != tenant_of(link.principal):
                # The client is away, and its session takes no place from one that is here; or an earlier release paired it.
                self._withdrawals.pairs.add((name, link.worker))
                context.spawn(self._return_unasked, (name, link.worker), claimed.epoch)
                continue
            self._ask(link, claimed)
        context.writes.flush()

    def _ask(self, link: WorkerLike, claimed: Claimed) -> None:
        """Ask a worker whether it takes a session that is claimed for it."""
        head = claimed.head
        seat = self._attach(link, claimed, head.up_acked)
        session = seat.session
        # Where a store that has lost its tail knows less than this node, it is told so (`Mender`): what this worker says
        # is not to pass for what another began inside of what was said.
        session.said_before = session.down.last
        seat.due = trio.current_time() + self._context.config.timeouts.assign_s
        seat.asked_epoch = claimed.epoch
        self._context.events.emit(Assigned(session.id, link.worker))
        self._streams.found(seat, claimed.streams)
        link.assign(
            Assignment(
                session.id,
                session.meta,
                subject_of(head.principal),
                session.down.last + 1,  # which a store that has lost its tail knows less well than this node
                claimed.history,
                claimed.epoch,
                claimed.hand_outs,
                claimed.state,
                [view for view in claimed.streams if view.found and not view.outcome],
                session.settings,
            )
        )

    async def _return_unasked(self, pair: tuple[str, str], epoch: int) -> None:
        # An earlier release may make the same pair again at once: the pause keeps that from being a loop.
        await trio.sleep(REFUSED_PAUSE_S)
        await give_back(self._context, *pair, epoch)
        self._withdrawals.pairs.discard(pair)

    async def _ask_again(self, link: WorkerLike, name: str) -> None:
        await ask_holders(self._context, self._attachments, [WAKE_SESSION + name.encode()])
        if not link.over:
            self.check(link)

    # --- the worker's answers ---------------------------------------------------------------------------------------

    def accepted(self, link: WorkerLike, seat: Seat) -> None:
        """A worker takes a session: from here on it gets its messages."""
        if seat.state is SeatState.ASKED:
            seat.state = SeatState.ACCEPTED
            self._jobs.accepted(seat)
            self._streams.begin(seat, trio.current_time())
            self._accept(link, seat.session)

    def accept_again(self, session: LiveSession) -> None:
        """Say again what the store did not take because it had lost the claim before it: the worker has said yes long since."""
        link = session.worker.link
        worker = self._attachments.workers.get(link.owner) if link is not None else None
        if worker is None or worker is not link or session.pairing is not Pairing.ASSIGNED:
            return
        seat = worker.seats.get(session.id)
        if seat is not None and seat.state is SeatState.ACCEPTED:
            self._accept(worker, session)

    def _accept(self, link: WorkerLike, session: LiveSession) -> None:
        op = AcceptSession(session.id, self._context.node, session.worker.epoch, self._context.now_ms())
        self._context.committer.submit(op, partial(self._accepted, link, session))

    def _accepted(self, link: WorkerLike, session: LiveSession, result: Result) -> None:
        context = self._context
        if isinstance(result, Fenced | Behind):
            if result.epoch > session.worker.epoch:
                self._relay.look(session)  # the present owner of the session decides what this worker is told
            else:
                self._attachments.behind(session)  # the store has lost our claim: it is given back
            return
        if link.over or session.worker.link is not link:
            return
        context.events.emit(Accepted(session.id, link.worker))
        context.untold.note(session.id)
        self._relay.deliver(session, "worker")
        if session.streams:
            self._streams.look(session)  # a request to end one may have come since it was assigned
        self._relay.look(session)  # the client here is told; one elsewhere was woken by the store

    def tick(self, now: float) -> None:
        """Sessions whose worker did not answer in time go to another one; streams that no worker goes on with end."""
        for link in list(self._attachments.workers.values()):
            late = [seat.session for seat in link.seats.values() if seat.state is SeatState.ASKED and seat.due <= now]
            for session in late:
                self._attachments.release(link, Cause.LATE, session, "no answer")
        seats = [seat for link in self._attachments.workers.values() for seat in link.seats.values() if seat.found]
        self._streams.tick(seats, now)
        self._context.writes.flush()

    def forgive(self, paused_s: float) -> None:
        """Give workers so much more time to answer: this node could not have heard them."""
        for link in self._attachments.workers.values():
            for seat in link.seats.values():
                seat.due += paused_s
                seat.adopts_until += paused_s

    def update(self, link: WorkerLike, capacity: int, leaving: bool) -> None:
        """A worker's room has changed."""
        link.capacity = min(capacity, self._context.config.limits.sessions_per_worker_max)
        link.leaving = leaving
        if link.updates.begin():
            self._update(link)

    def _update(self, link: WorkerLike) -> None:
        # One at a time for each worker: however often it says something, the queue of the committer stays bounded.
        op = UpdateWorker(link.worker, link.epoch, link.capacity, link.leaving)
        self._context.committer.submit(op, partial(self._updated, link))

    def _updated(self, link: WorkerLike, result: Result) -> None:
        again = link.updates.end()
        if isinstance(result, Behind) and not link.over:
            self._context.inboxes.doubts.worker_behind(link)
        self._context.inboxes.line()
        if again and not link.over and link.updates.begin():
            self._update(link)
