"""Workers and their sessions: assigned, accepted, refused, resumed, given up.

The registry in the store has decided who serves whom; this file carries it out on the node where the worker is.
"""

from collections.abc import Sequence
from functools import partial
from math import inf
from typing import TYPE_CHECKING

import structlog
import trio
from msgspec import UNSET, Raw

from signald.core.failures import PAUSE_REFUSED_S
from signald.core.pairing import Pairing
from signald.core.wants import subject_of, tenant_of
from signald.errors import StoreUnavailable
from signald.ids import new_nonce
from signald.service.asking import ask_holders, is_unreadable
from signald.service.line import enqueue, give_back, has_client, leave_if_away
from signald.service.relay import LiveSession
from signald.service.worker_link import WorkerLink
from signald.store.base import WAKE_SESSION, Behind, Fenced, Refused, Result
from signald.store.committer import ignore
from signald.store.registry.ops import Forget, NoWorker, Release, RemoveWorker, Sessions, UpdateWorker, WorkerSessions
from signald.store.session.ops import (
    AcceptSession,
    Claimed,
    ClaimWorkerSide,
    Detach,
    Ended,
    EndSession,
    History,
    NoSession,
    ReadHistory,
    Unpair,
    Unpaired,
)
from signald.wire.close_codes import CloseCode
from signald.wire.messages import SEQ_MAX, AssignedClient, ResumedSession, SessionAssigned, SessionPosition
from signald.wire.records import chat_history

if TYPE_CHECKING:
    from signald.service.hub import Hub

log = structlog.get_logger(__name__)

REFUSED_PAUSE_S = PAUSE_REFUSED_S
"""How long a refused session stays out of the waiting line, so that a worker that refuses all is not asked in a loop."""

REFUSALS_MAX = 4096
"""Pairs remembered as refused; the oldest are forgotten, which costs at most a repeated question."""

LOT_MAX = 100
"""Sessions a worker is asked to take in one go."""

Sides = list[tuple[str, Result]]


class Workers:
    """See the module."""

    def __init__(self, hub: "Hub") -> None:
        self._hub = hub
        self.refused_pairs: dict[tuple[str, str], None] = {}
        """(session, worker): who said no lately."""
        self.claiming: set[str] = set()
        """Sessions that a worker here is just being given: the store may have granted them already."""
        self._withdrawn: set[tuple[str, str]] = set()
        """(session, worker) that the registry still has as a pair, though the worker is not to be asked again."""

    # --- resuming ---------------------------------------------------------------------------------------------------

    async def claim_sessions(
        self, worker: str, registered: Sequence[str], listed: Sequence[SessionPosition], asked_ms: int
    ) -> Sides:
        """Claim the worker's side of every session the registry has paired with it, as it asked at `asked_ms`."""
        positions = {one.session: one for one in listed}
        await self._hub.retries.dropped(worker, [session for session in registered if session not in positions])
        ops = []
        for session in registered:
            position = positions.get(session)
            if position is None:
                continue  # the worker does not know it (any more): it is assigned to it, as a new one
            ops.append(
                ClaimWorkerSide(
                    session,
                    self._hub.node,
                    new_nonce(self._hub.entropy),
                    worker,
                    False,
                    position.received,
                    position.acked,
                    asked_ms,
                    self._hub.config.limits.claim_ahead_max,
                )
            )
        results = await self._hub.committer.call_many(ops)
        damaged = [place for place, result in enumerate(results) if is_unreadable(result)]
        if damaged:
            await ask_holders(self._hub, [WAKE_SESSION + ops[place].session.encode() for place in damaged])
            again = await self._hub.committer.call_many([ops[place] for place in damaged])
            for place, result in zip(damaged, again, strict=True):
                results[place] = result
        return [(op.session, result) for op, result in zip(ops, results, strict=True)]

    def attach_claimed(
        self, link: WorkerLink, sides: Sides, listed: Sequence[SessionPosition]
    ) -> tuple[list[ResumedSession], list[str]]:
        """Attach what was claimed: (what goes on, what is lost)."""
        positions = {one.session: one.received for one in listed}
        restored: list[ResumedSession] = []
        for name, result in sides:
            if not isinstance(result, Claimed):
                if isinstance(result, Refused) and result.reason == "ahead":
                    self._hub.losses.refuse(name, "worker", "resume")
                continue
            head = result.head
            received = min(positions[name], head.up_last)
            session = self._attach(link, result, received)
            if head.worker_state == "paired":
                link.accepted.add(name)
            else:
                # It had been asked and had not answered when it moved: its answer may still come.
                link.assigning[name] = trio.current_time() + self._hub.config.timeouts.assign_s
            restored.append(ResumedSession(name, head.down_last, head.up_last - received))
            came = f" from {result.previous_node}" if result.previous_node else ""
            detail = f"{link.worker} epoch {result.epoch}{came}, replaying {head.up_last - received}"
            self._hub.trail.note(name, "worker", "resumed", detail)
            # `adopt` has observed the head already when the client is here; one elsewhere was woken by the store.
            if self._hub.watcher is not None:
                self._hub.watcher.session_changed(session)
        going_on = {one.session for one in restored}
        return restored, [one.session for one in listed if one.session not in going_on]

    def tell_claimed(self, link: WorkerLink, sides: Sides) -> None:
        """Say what is to be said of each session that was claimed, behind the answer that names them."""
        for name, result in sides:
            session = link.sessions.get(name)
            if session is None or not isinstance(result, Claimed):
                continue
            self._hub.losses.tell_claim(link, name, result)
            if session.spent:
                self._hub.spent(session)

    def _attach(self, link: WorkerLink, claimed: Claimed, received: int) -> LiveSession:
        session = self._hub.adopt(claimed.head)
        before = session.worker.link
        if isinstance(before, WorkerLink) and before.worker != link.worker:
            # Not superseded by a newer epoch: a store that had lost its claim has granted the same one to another worker here.
            session.detach("worker")
            before.end_session(session.id, "reassigned")
        session.attach("worker", link, claimed.epoch, self._hub.node, received)
        link.sessions[session.id] = session
        return session

    def replaced_link(self, before: WorkerLink) -> None:
        """A worker has resumed here over another connection: the one before is done."""
        self._hub.links.discard(before)
        before.over = True
        before.sessions.clear()
        moved = before.told_to_go
        before.close(CloseCode.MOVED if moved else CloseCode.SUPERSEDED, "moved" if moved else "superseded")

    # --- looking at the registry ------------------------------------------------------------------------------------

    def check(self, link: WorkerLink) -> None:
        """Look at the worker again: has it been claimed elsewhere, has it new sessions?"""
        if link.refreshing:
            link.refresh_again = True
            return
        link.refreshing = True
        self._hub.spawn(self._refresh, link)

    async def _refresh(self, link: WorkerLink) -> None:
        try:
            while not link.over:
                link.refresh_again = False
                try:
                    await self._refresh_once(link)
                except StoreUnavailable:
                    await trio.sleep(1.0)
                    continue
                if not link.refresh_again:
                    return
        finally:
            link.refreshing = False

    async def _refresh_once(self, link: WorkerLink) -> None:
        hub = self._hub
        held, paired = await hub.committer.call_many(
            [UpdateWorker(link.worker, link.epoch, link.capacity, link.leaving), WorkerSessions(link.worker)]
        )
        if link.over:
            return
        if isinstance(held, Fenced) and held.epoch > link.epoch:
            self.moved(link)
            return
        if isinstance(held, Fenced | Behind):
            hub.inboxes.doubts.worker_behind(link)
        if isinstance(held, NoWorker):
            hub.inboxes.doubts.check()  # given up by somebody, or the store came back empty
            return
        assert isinstance(paired, Sessions)
        new = [
            name for name in paired.sessions if name not in link.sessions and (name, link.worker) not in self._withdrawn
        ]
        self.claiming.update(new)
        try:
            await self._assign_all(link, new)
        finally:
            self.claiming.difference_update(new)

    async def _assign_all(self, link: WorkerLink, names: list[str]) -> None:
        """Ask a worker to take `names`, as far as its send queue has room."""
        link.unasked = False
        lot = self._lot()
        for start in range(0, len(names), lot):
            if link.over or link.conn.closing:
                return  # whoever takes the worker next finds the pairings in the registry
            if not link.conn.room:
                link.unasked = True
                return
            await self._assign(link, names[start : start + lot])

    def _lot(self) -> int:
        """How many sessions fit between a send queue that has room and one that overflows, long as their history may be.

        A worker that is given more than that at once is not slow, and must not be cut off for it.
        """
        limits = self._hub.config.limits
        longest_bytes = self._hub.config.session.history_bytes_max + limits.message_bytes_max
        return max(1, min(limits.send_queue_messages_max, limits.send_queue_bytes_max // longest_bytes, LOT_MAX))

    def ask_on(self, link: WorkerLink) -> None:
        """There is room again in the send queue: go on with the sessions that had to wait for it."""
        if link.unasked:
            self.check(link)

    def moved(self, link: WorkerLink) -> None:
        """The worker has been claimed at another node."""
        hub = self._hub
        if link.over:
            return
        moved = link.told_to_go
        hub.count_handover(link)
        if hub.worker_links.get(link.worker) is link:
            del hub.worker_links[link.worker]
        link.over = True
        hub.links.discard(link)
        for session in list(link.sessions.values()):
            if session.worker.link is link:
                session.detach("worker")
                hub.trail.note(session.id, "worker", "moved" if moved else "superseded", link.worker)
                hub.relay.look(session)
            hub.forget_if_idle(session)
        link.sessions.clear()
        link.close(CloseCode.MOVED if moved else CloseCode.SUPERSEDED, "moved" if moved else "superseded")
        if hub.watcher is not None:
            hub.watcher.worker_left(link.worker)

    def removed(self, link: WorkerLink) -> None:
        """The worker was given up while its connection lived: it has no sessions any more and may start afresh."""
        if self._hub.watcher is not None and not link.speaks_handover:
            return  # the drain that gave it up is about to ask it to clean up, and closes it then
        for name, session in list(link.sessions.items()):
            if session.worker.link is link:
                session.detach("worker")
            link.end_session(name, "reassigned")
            self._hub.forget_if_idle(session)
        link.fail(CloseCode.NOTHING_TO_RESUME, "given_up", "this worker was given up; register again")

    async def is_unknown(self, link: WorkerLink) -> bool:
        """Tell whether the registry has forgotten the worker. Raises StoreUnavailable."""
        held = await self._hub.committer.call(UpdateWorker(link.worker, link.epoch, link.capacity, link.leaving))
        return isinstance(held, NoWorker) and not link.over

    async def _assign(self, link: WorkerLink, names: list[str]) -> None:
        hub = self._hub
        now = hub.store.now_ms()
        ops: list[ClaimWorkerSide | ReadHistory] = []
        for name in names:
            ops.append(ClaimWorkerSide(name, hub.node, new_nonce(hub.entropy), link.worker, True, 0, 0, now))
            ops.append(ReadHistory(name, hub.config.session.history_messages_max))
        results = await hub.committer.call_many(ops)
        for index, name in enumerate(names):
            claimed, history = results[2 * index], results[2 * index + 1]
            if not isinstance(claimed, Claimed):
                if is_unreadable(claimed):
                    # Asked for once it has been given back; if nobody can, it ends with its time.
                    hub.spawn(self._ask_again, link, name)
                    continue
                if isinstance(claimed, Refused) and claimed.reason == "set_aside":
                    # A node of a release that counts no failures has put it in line: it gives up its place.
                    hub.committer.submit(Release(name, link.worker, False), ignore)
                    continue
                # The session ended while it was being paired.
                hub.committer.submit(Forget(name), ignore)
                continue
            if link.over:
                # Whoever takes the worker next finds the pairing in the registry. But nobody is attached here.
                hub.committer.submit(Detach(name, "worker", hub.node, claimed.epoch, now), ignore)
                continue
            head = claimed.head
            if max(head.up_last, head.down_last) >= SEQ_MAX - 1:
                # No frame could carry the number it would begin with. The client is told by the end of the session.
                hub.spent(hub.adopt(head))
                continue
            if not has_client(hub, head) or tenant_of(head.principal) != tenant_of(link.principal):
                # The client is away, and its session takes no place from one that is here; or an earlier release paired it.
                self._withdrawn.add((name, link.worker))
                hub.spawn(self._return_unasked, (name, link.worker), claimed.epoch)
                continue
            session = self._attach(link, claimed, head.up_acked)
            # Where a store that has lost its tail knows less than who is here, it is told so (`Mender`): what this worker says
            # is not to pass for what another began inside of what was said.
            session.said_before = session.down.last
            link.assigning[name] = trio.current_time() + hub.config.timeouts.assign_s
            link.asked[name] = claimed.epoch
            hub.trail.note(name, "worker", "assigned", link.worker)
            entries = history.entries if isinstance(history, History) else ()
            link.send(
                SessionAssigned(
                    name,
                    AssignedClient(Raw(session.meta) if session.meta else UNSET, subject_of(head.principal) or UNSET),
                    session.down.last + 1,  # which a store that has lost its tail knows less well than who is here
                    chat_history(entries) if entries else UNSET,
                    claimed.epoch,
                )
            )
        hub.outbox.flush()

    async def _return_unasked(self, pair: tuple[str, str], epoch: int) -> None:
        # An earlier release may make the same pair again at once: the pause keeps that from being a loop.
        await trio.sleep(REFUSED_PAUSE_S)
        await give_back(self._hub, *pair, epoch)
        self._withdrawn.discard(pair)

    async def _ask_again(self, link: WorkerLink, name: str) -> None:
        await ask_holders(self._hub, [WAKE_SESSION + name.encode()])
        if not link.over:
            self.check(link)

    # --- the worker's answers ---------------------------------------------------------------------------------------

    def accepted(self, link: WorkerLink, session: LiveSession) -> None:
        """A worker takes a session: from here on it gets its messages."""
        if link.assigning.pop(session.id, None) is None:
            return
        link.accepted.add(session.id)
        self._accept(link, session)

    def accept_again(self, session: LiveSession) -> None:
        """Say again what the store did not take because it had lost the claim before it: the worker has said yes long since."""
        link = session.worker.link
        if isinstance(link, WorkerLink) and session.id in link.accepted and session.pairing is Pairing.ASSIGNED:
            self._accept(link, session)

    def _accept(self, link: WorkerLink, session: LiveSession) -> None:
        op = AcceptSession(session.id, self._hub.node, session.worker.epoch)
        self._hub.committer.submit(op, partial(self._accepted, link, session))

    def _accepted(self, link: WorkerLink, session: LiveSession, result: Result) -> None:
        hub = self._hub
        if isinstance(result, Fenced | Behind):
            if result.epoch > session.worker.epoch:
                hub.relay.look(session)  # who has the session now decides what this worker is told
            else:
                hub.behind(session)  # the store has lost our claim: it is given back
            return
        if link.over or session.worker.link is not link:
            return
        hub.trail.note(session.id, "worker", "accepted", link.worker)
        hub.relay.deliver(session, "worker")
        hub.relay.look(session)  # the client here is told; one elsewhere was woken by the store

    def refused(self, link: WorkerLink, session: LiveSession, reason: str, *, failed: bool = False) -> None:
        """A worker does not take a session, does not answer, or gives it back: it waits for another one.

        `failed`: it had accepted it, so the hand-out counts. At once, and not in a task of its own: what the worker says next
        must find that the session is gone from it.
        """
        hub = self._hub
        if session.worker.link is not link:
            return
        hub.trail.note(session.id, "worker", "refused", f"{link.worker}: {reason}"[:200])
        log.info("session_refused", session=session.id, worker=link.worker, reason=reason)
        pair = (session.id, link.worker)
        while len(self.refused_pairs) >= REFUSALS_MAX:
            del self.refused_pairs[next(iter(self.refused_pairs))]
        self.refused_pairs[pair] = None
        hub.relay.store_acks()  # what it has finished with is not for the next one
        unpair = Unpair(session.id, hub.node, link.worker, session.worker.epoch)
        if failed:
            unpair = hub.retries.unpair(session.id, link.worker, session.worker.epoch, hub.store.now_ms())
        session.detach("worker")
        link.drop(session.id)
        hub.forget_if_idle(session)
        self._withdrawn.add(pair)
        hub.spawn(self._withdraw, session, pair, unpair)

    async def _withdraw(self, session: LiveSession, pair: tuple[str, str], unpair: Unpair) -> None:
        hub = self._hub
        # However long the store is away: until it has answered, nobody knows whose the session is.
        unpaired = await hub.committer.call(unpair, inf)
        while isinstance(unpaired, NoSession) and await self._may_come_back():
            # Whoever gives it back to a store that has come back empty may not have heard of the refusal.
            await trio.sleep(REFUSED_PAUSE_S)
            unpaired = await hub.committer.call(unpair, inf)
        hub.relay.look(session)
        if isinstance(unpaired, Fenced):
            # The worker has come back elsewhere and claimed the session before this was heard: it has it there, and it is
            # asked there.
            self._withdrawn.discard(pair)
            return
        pause_s = hub.retries.note(unpaired.head, "refused") if isinstance(unpaired, Unpaired) else REFUSED_PAUSE_S
        await trio.sleep(REFUSED_PAUSE_S)
        # A longer pause is not spent at the place of this worker, which may have room for others.
        at_once = pause_s <= REFUSED_PAUSE_S
        hub.committer.submit(Release(*pair, at_once), partial(self._released, pair))
        if isinstance(unpaired, Unpaired) and not at_once:
            await hub.retries.queue_later(unpaired.head, pause_s - REFUSED_PAUSE_S)

    async def _may_come_back(self) -> bool:
        try:
            return await self._hub.incarnation.may_come_back()
        except StoreUnavailable:
            return True

    def overtaken(self, session: LiveSession, said: tuple[int, int], *, by_claim: bool) -> None:
        """The worker here has begun too early in a log whose tail was lost: its messages are taken for others.

        `by_claim`: the client says so, and nothing else shows it.
        It is told so, and the session is assigned anew: whoever gets it begins behind all that was ever said.
        """
        link = session.worker.link
        if not isinstance(link, WorkerLink) or session.id not in link.sessions:
            return
        if said[0] <= said[1]:
            self._hub.losses.tell(link, session.id, "sent", said, shown=not by_claim)
        link.end_session(session.id, "log lost")
        self.refused(link, session, "log lost")

    def usurped(self, session: LiveSession, said: tuple[int, int]) -> None:
        """The store had forgotten the claim of the worker here, if one is, and has given its session to another."""
        log.warning("session_usurped", session=session.id, worker=session.worker_id)
        link = session.worker.link
        if not isinstance(link, WorkerLink):
            return
        if said[0] <= said[1]:
            self._hub.losses.tell(link, session.id, "sent", said, shown=True)
        session.detach("worker")
        link.end_session(session.id, "log lost")
        self._hub.trail.note(session.id, "worker", "gave way", link.worker)
        self._hub.forget_if_idle(session)

    def _released(self, pair: tuple[str, str], _: Result) -> None:
        self._withdrawn.discard(pair)
        self._hub.spawn(leave_if_away, self._hub, pair[:1])
        self._hub.inboxes.line()

    def tick(self, now: float) -> None:
        """Sessions whose worker did not answer in time go to another one."""
        for link in list(self._hub.worker_links.values()):
            late = [name for name, due in link.assigning.items() if due <= now]
            for name in late:
                session = link.sessions[name]
                link.end_session(name, "not accepted in time")
                self.refused(link, session, "no answer")
        self._hub.outbox.flush()

    def update(self, link: WorkerLink, capacity: int, leaving: bool) -> None:
        """A worker's room has changed."""
        link.capacity = min(capacity, self._hub.config.limits.sessions_per_worker_max)
        link.leaving = leaving
        if link.updating:
            link.update_again = True
        else:
            self._update(link)

    def _update(self, link: WorkerLink) -> None:
        # One at a time for each worker: however often it says something, the queue of the committer stays bounded.
        link.updating, link.update_again = True, False
        op = UpdateWorker(link.worker, link.epoch, link.capacity, link.leaving)
        self._hub.committer.submit(op, partial(self._updated, link))

    def _updated(self, link: WorkerLink, result: Result) -> None:
        link.updating = False
        if isinstance(result, Behind) and not link.over:
            self._hub.inboxes.doubts.worker_behind(link)
        self._hub.inboxes.line()
        if link.update_again and not link.over:
            self._update(link)

    # --- giving up --------------------------------------------------------------------------------------------------

    async def take_from(self, session: LiveSession) -> None:
        """Take a session from a worker that the registry does not know, or not with it, by the policy.

        Raises StoreUnavailable.
        """
        hub = self._hub
        log.warning("session_without_worker", session=session.id, worker=session.worker_id)
        if hub.config.worker.on_loss == "end":
            ended, _ = await hub.committer.call_many([EndSession(session.id, hub.node), Forget(session.id)])
            hub.counts.ended["worker_lost"] += isinstance(ended, Ended)
            hub.endings.gone(session, "worker lost")
            return
        alive_until = hub.store.now_ms() + hub.life_ms
        await hub.committer.call_many(
            [
                Unpair(session.id, hub.node, session.worker_id, session.worker.epoch),
                enqueue(session, alive_until),
            ]
        )
        hub.relay.look(session)
        hub.inboxes.line()

    async def _unpair_all(self, worker: str, names: Sequence[str], lost_ms: int) -> None:
        hub = self._hub
        if lost_ms:
            await hub.retries.lost(worker, names, lost_ms)
        else:
            await hub.committer.call_many([Unpair(name, hub.node, worker, 0) for name in names])
            await leave_if_away(hub, names)
        for name in names:
            session = hub.sessions.get(name)
            if session is not None:
                hub.relay.look(session)

    async def give_up(
        self, worker: str, epoch: int, reason: str, *, leaving: bool = False, lost_ms: int = 0
    ) -> tuple[str, ...]:
        """Take a worker's sessions from it, by the policy `worker.on_loss`; returns them.

        `epoch` 0: whatever it is. `leaving`: it will not come back, so there is nobody to hold them for. `lost_ms`: it was
        lost then by itself, not by a drain or with its node, so its hand-outs have failed. Raises StoreUnavailable.
        """
        hub = self._hub
        policy = hub.config.worker.on_loss
        if policy == "hold" and not leaving:
            held = await hub.committer.call(WorkerSessions(worker))
            if not isinstance(held, Sessions) or held.sessions:
                return ()  # it is forgotten when the last of them has expired
        # What counts a failure decides whether its session waits again, and when: until then it has no place in line.
        requeue = policy != "end" and not lost_ms
        released = await hub.committer.call(RemoveWorker(worker, hub.node, epoch, requeue))
        assert isinstance(released, Sessions)
        names = released.sessions
        log.warning("worker_given_up", worker=worker, sessions=len(names), reason=reason)
        for name in names:
            hub.trail.note(name, "worker", "given up", f"{worker}: {reason}"[:200])
        if policy == "end":
            ops = [op for name in names for op in (EndSession(name, hub.node), Forget(name))]
            results = await hub.committer.call_many(ops)
            hub.counts.ended["worker_lost"] += sum(isinstance(result, Ended) for result in results)
            for name in names:
                session = hub.sessions.get(name)
                if session is not None:
                    hub.endings.gone(session, "worker lost")
        else:
            await self._unpair_all(worker, names, lost_ms)
        link = hub.worker_links.get(worker)
        if link is not None:
            for name in names:
                taken = link.sessions.get(name)
                if taken is not None:
                    if taken.worker.link is link:
                        taken.detach("worker")
                    link.end_session(name, "reassigned")
                    hub.forget_if_idle(taken)
            if link.sessions:
                # Not released: it has resumed elsewhere, unheard of here, or an answer was lost. It is not for us to end them.
                self.check(link)
        hub.inboxes.line()
        return names
