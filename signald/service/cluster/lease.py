"""A node's place in the cluster: its lease, its view of the others, and the sweeping that any node may do.

keep      renew the lease, read the other nodes            every third of the lease
renew     the life of the sessions whose client is here    every third of the resume time
sweep     sessions nobody came back for, workers lost      every second or so
"""

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import structlog
import trio

from signald.errors import StoreUnavailable
from signald.service.cluster.asking import ask_holders
from signald.service.cluster.identity import Claimant
from signald.service.relay import LiveSession
from signald.store.base import (
    CLOCK_SET_MS,
    WAKE_NODES,
    WAKE_OVERDUE,
    WAKE_SESSION,
    Behind,
    ClusterSecret,
    Detach,
    DropNode,
    Ended,
    EndSession,
    ExpireSession,
    Forget,
    Format,
    KeepAlive,
    ListNodes,
    ListOverdue,
    ListWorkers,
    Look,
    Looked,
    NodeInfo,
    Nodes,
    NodeTaken,
    Op,
    PutNode,
    RaiseFormat,
    Released,
    Result,
    Secret,
    Signal,
    WorkerInfo,
    Workers,
    WorkerSessions,
)
from signald.store.committer import ignore
from signald.store.formats import FORMAT, READS, check_formats, is_ahead

if TYPE_CHECKING:
    from signald.service.hub import Hub

log = structlog.get_logger(__name__)

SWEEP_S = 1.0
OVERDUE_LIMIT = 200
"""Sessions swept at once: what one sweep may ask of the store."""

LAG_EVERY_S = 0.1

YOUNG_S = 2 * SWEEP_S
"""How long a node judges nobody that has just started: it cannot know whether the clock was set a moment ago. The others
find that out with their next sweep, and renew their leases at once. One that stands still just then, for less than its
lease, does not: so sessions, which nobody can give back, are not judged before a lease has gone by."""

LOOK_EVERY_S = 1.0
LOOK_LOT, LOOK_LOT_S = 10, 0.05
"""Sessions looked at in one go, and how long after each lot: two hundred a second, a per cent of what a store can do.
That is the price of not trusting the backplane, paid in amounts no message waits for."""

WORKERS_EVERY_S = 5.0
"""The same for workers: how long a session may wait for its worker to be asked when the wake-up that said so was lost."""

NodeState = Literal["starting", "ready", "draining"]


class Lease:
    """See the module."""

    def __init__(
        self, hub: "Hub", release: str, on_nodes: Callable[[], None], claimant: Claimant | None = None
    ) -> None:
        """`on_nodes` is called whenever the view of the nodes was read again; `claimant` takes the id of this node."""
        self._hub = hub
        self._on_nodes = on_nodes
        self._claimant = claimant or Claimant()
        self.outdated = False
        """A release whose records this one cannot read writes to the store: this node must end."""
        self.taken = False
        """Another process has taken this node's id: this one has been dead for the others, and must end."""
        self._held_ms = 0
        """When this node last renewed its lease and the store confirmed it (time of the store)."""
        self.on_taken: Callable[[], None] = lambda: None
        self._poked = trio.Event()
        self._lost: dict[tuple[str, int], float] = {}
        """Workers found on a node that is not live, with the epoch of their claim → since when (trio time). A worker that has
        claimed since was there meanwhile, however far apart two sweeps are."""
        self._no_way_back = False
        """Since the last sweep there was a time without any node, or without the store: nobody could come back then."""
        self._counts_from_ms = 0
        """When a way back was found again. What a worker may be away does not count from before."""
        now = hub.store.now_ms()
        self.info = NodeInfo(hub.node, release, "starting", now, now)
        self.lag_ms = 0.0
        self._kept_at = trio.current_time()
        self._paused_s = hub.pauses.total_s
        self._blind_until = self._kept_at
        self._began_at = self._kept_at
        self._clock_s = now / 1000 - self._kept_at
        """The store's time minus ours, which changes only when somebody sets the clock of its machine."""
        self._orphans: dict[tuple[str, bool], float] = {}
        """Sessions here whose worker is not attached, and whether the registry knows it → since when (trio time)."""

    def poke(self) -> None:
        """Read the nodes again now."""
        self._poked.set()

    async def look(self) -> None:
        """Read the nodes, and renew the lease on the way. Raises StoreUnavailable."""
        await self._keep()

    async def set_state(self, state: NodeState) -> None:
        """Say what this node is; the others are woken. Raises StoreUnavailable."""
        self.info = _with(self.info, state=state)
        await self._keep()

    def say(self, state: NodeState) -> None:
        """As `set_state`, as soon as the store is there to hear it."""
        self.info = _with(self.info, state=state)
        self.poke()

    async def begin(self) -> None:
        """Learn the cluster's secret, take the id and its lease. Raises StoreUnavailable, StoreMisused, NodeIdTaken, StartCalledOff."""
        drawn = self._hub.entropy.token_bytes(32)
        secret = await self._hub.committer.call(ClusterSecret(drawn))
        assert isinstance(secret, Secret)
        self._hub.cluster.secret = secret.value
        # One draw serves for both: a hash of a secret that may be used gives nothing of it away.
        incarnation = hashlib.sha256(b"incarnation" + drawn).hexdigest()[:32]
        self.info = _with(self.info, incarnation=incarnation, format=FORMAT)
        now = self._hub.store.now_ms()
        kept, nodes = await self._hub.committer.call_many([RaiseFormat(0), ListNodes(now)])
        assert isinstance(kept, Format)
        assert isinstance(nodes, Nodes)
        check_formats(kept.number, nodes.nodes)
        await self._claimant.take(self._hub.node, incarnation, secret.value, self._put, self._poke_holder)
        self._no_way_back = self._hub.cluster.alone

    async def _poke_holder(self) -> None:
        """Wake the process that holds this node's id, if it is alive. Raises StoreUnavailable."""
        await self._hub.committer.call(Signal(self._hub.node, WAKE_NODES))

    async def end(self) -> None:
        """Give the lease back. Raises StoreUnavailable."""
        await self._hub.committer.call(DropNode(self._hub.node, self.info.incarnation))

    async def run(self) -> None:
        """Keep the lease until cancelled."""
        every_s = self._hub.config.node.lease_ttl_s / 3
        while True:
            with trio.move_on_after(every_s):
                await self._poked.wait()
            self._poked = trio.Event()
            try:
                await self._keep()
            except StoreUnavailable:
                continue
            # A node that gets its lease back late may have met an empty store.
            self._hub.check_store()

    async def _keep(self) -> None:
        if self.taken:
            await trio.lowlevel.checkpoint()
            return
        put = await self._put("", 0)
        if isinstance(put, NodeTaken) and put.renewed_ms < self._held_ms:
            # The entry is older than this node's own last one, so the store has lost its tail: it is a predecessor's.
            self._hub.losses.store_went_back("the entry of this node is older than the one that was confirmed")
            put = await self._put(put.incarnation, put.renewed_ms)
        if isinstance(put, NodeTaken) and not self.taken:
            self.taken = True
            log.error(
                "node_id_lost",
                node=self._hub.node,
                why="another process took this node's id while this one did not renew its lease; this node stops",
            )
            self.on_taken()

    async def _put(self, over: str, over_ms: int) -> Result:
        """Renew the lease, and read the nodes if this process holds the id of this one. Raises StoreUnavailable."""
        hub = self._hub
        now = hub.store.now_ms()
        self.info = _with(
            self.info,
            lease_until_ms=now + round(hub.config.node.lease_ttl_s * 1000),
            renewed_ms=now,
            connections=len(hub.links),
            lag_ms=round(self.lag_ms, 3),
        )
        # With each renewal, because a store that was emptied has lost its number as well.
        put, nodes, kept = await hub.committer.call_many(
            [PutNode(self.info, over, over_ms), ListNodes(now), RaiseFormat(FORMAT)]
        )
        assert isinstance(nodes, Nodes)
        assert isinstance(kept, Format)
        if is_ahead(kept.number):
            self._outdated(kept.number)
        if not isinstance(put, NodeTaken):
            self._held_ms = now
            self._see(nodes, now)
            hub.losses.check_store()
        return put

    def _outdated(self, kept: int) -> None:
        """A release two formats ahead writes to the store: it started while this node stood still."""
        if self.outdated:
            return
        self.outdated = self.taken = True
        why = f"the store has format {kept} now, and this release reads formats up to {READS}; this node stops"
        log.error("store_format_ahead", node=self._hub.node, why=why)
        self.on_taken()

    def _see(self, nodes: Nodes, now: int) -> None:
        hub = self._hub
        at = trio.current_time()
        self._note_clock()
        if at - self._kept_at > hub.config.node.lease_ttl_s * 2 / 3:
            self.doubt_nodes()  # the store was away, and the leases of all nodes have ended, not only of dead ones
        self._kept_at = at
        known = hub.cluster.nodes if at < self._blind_until else {}
        # A lease from before the clock was set back would seem to go on for as long as it was set.
        live = [info for info in nodes.nodes if info.renewed_ms - now <= CLOCK_SET_MS]
        hub.cluster.nodes = {**known, **{info.id: info for info in live}}
        self._on_nodes()

    def doubt_nodes(self) -> None:
        """The store has lost track of the nodes: give the living ones time to say so before others count as dead."""
        self._blind_until = trio.current_time() + self._hub.config.node.lease_ttl_s

    def _note_clock(self) -> None:
        """Find out whether the store's clock was set: what is measured by it begins anew then."""
        clock_s = self._hub.store.now_ms() / 1000 - trio.current_time()
        if abs(clock_s - self._clock_s) > self._hub.config.node.lease_ttl_s / 3:
            log.warning("clock_was_set", by_s=round(clock_s - self._clock_s, 3))
            self._no_way_back = True
            self.doubt_nodes()  # set forward, all leases but those renewed since seem to have ended
            self.poke()
        self._clock_s = clock_s

    @property
    def _seeing(self) -> bool:
        """True while what the store says of the nodes is fit to judge by."""
        now = trio.current_time()
        return now >= self._blind_until and now - self._kept_at <= self._hub.config.node.lease_ttl_s * 2 / 3

    async def run_lag(self) -> None:
        """Measure how late this loop runs: what successors publish so that drains go easy on them."""
        while True:
            due = trio.current_time() + LAG_EVERY_S
            await trio.sleep_until(due)
            late_ms = (trio.current_time() - due) * 1000
            # Rises at once, falls by halves: a burst of claims is felt before it is over.
            self.lag_ms = max(late_ms, self.lag_ms * 0.5)

    async def run_looks(self) -> None:
        """Look again at what other nodes may have changed, should a wake-up have been lost. Until cancelled.

        That is the sessions whose peer is at another node, and, less often, the workers here: they may have new sessions.
        """
        hub = self._hub
        workers_at = trio.current_time() + WORKERS_EVERY_S
        while True:
            await trio.sleep(LOOK_EVERY_S)
            if trio.current_time() >= workers_at:
                if not hub.cluster.alone:
                    await self._look_at_workers()
                workers_at = trio.current_time() + WORKERS_EVERY_S
            apart = [name for name, session in hub.sessions.items() if _is_apart(session)]
            for start in range(0, len(apart), LOOK_LOT):
                for name in apart[start : start + LOOK_LOT]:
                    if name in hub.sessions:
                        hub.relay.look(hub.sessions[name])
                await trio.sleep(LOOK_LOT_S)

    async def _look_at_workers(self) -> None:
        hub = self._hub
        names = list(hub.worker_links)
        for start in range(0, len(names), LOOK_LOT):
            for name in names[start : start + LOOK_LOT]:
                if name in hub.worker_links:
                    hub.workers.check(hub.worker_links[name])
            await trio.sleep(LOOK_LOT_S)

    # --- renewing and sweeping --------------------------------------------------------------------------------------

    async def run_renewals(self) -> None:
        """Renew the life of the sessions whose client is here, until cancelled."""
        hub = self._hub
        while True:
            # A shorter life that is set by a reload holds for new sessions at once: they must not wait for the old turn.
            with trio.move_on_after(hub.config.session.resume_ttl_s / 3):
                await hub.config_changed.wait()
            names = [session.id for session in hub.sessions.values() if session.client.link is not None]
            until = hub.store.now_ms() + hub.life_ms
            for start in range(0, len(names), 500):
                hub.committer.submit(KeepAlive(tuple(names[start : start + 500]), until), ignore)

    def _forgive_pauses(self) -> None:
        """Give workers that are asked to take a session the time in which this node could not have heard their answer."""
        paused_s = self._hub.pauses.total_s - self._paused_s
        if paused_s:
            self._paused_s += paused_s
            log.warning("paused", node=self._hub.node, seconds=round(paused_s, 3))
            for link in self._hub.worker_links.values():
                for session in link.assigning:
                    link.assigning[session] += paused_s

    async def run_sweeps(self) -> None:
        """Sweep until cancelled."""
        await trio.sleep(YOUNG_S)
        while True:
            # Nodes that started together do not sweep together.
            await trio.sleep(SWEEP_S * self._hub.entropy.uniform(0.75, 1.25))
            self._forgive_pauses()
            self._hub.workers.tick(trio.current_time())
            self._note_clock()
            if not self._seeing:
                self._no_way_back = True
                continue
            try:
                await self._sweep_workers()
                await self._sweep_sessions()
            except StoreUnavailable:
                self._no_way_back = True

    async def _sweep_sessions(self) -> None:
        hub = self._hub
        self._note_clock()
        if not self._seeing or self._kept_at < self._began_at + hub.config.node.lease_ttl_s:
            return
        now = hub.store.now_ms()
        overdue = await hub.committer.call(ListOverdue(now, OVERDUE_LIMIT))
        assert isinstance(overdue, Released)
        if not overdue.sessions:
            return
        nodes = tuple(hub.cluster.nodes)
        ops: list[Op] = [ExpireSession(name, hub.node, nodes, now, hub.ttl_ms) for name in overdue.sessions]
        results = await hub.committer.call_many(ops)
        if damaged := [place for place, result in enumerate(results) if isinstance(result, Behind)]:
            await ask_holders(hub, [WAKE_SESSION + overdue.sessions[place].encode() for place in damaged])
            again = await hub.committer.call_many([ops[place] for place in damaged])
            for place, result in zip(damaged, again, strict=True):
                results[place] = result
        after: list[Op] = []
        for name, result in zip(overdue.sessions, results, strict=True):
            session = hub.sessions.get(name)
            if isinstance(result, Ended):
                log.info("session_expired", session=name)
                hub.counts.ended["expired"] += 1
                if session is None:
                    hub.trail.note(name, "", "ended", "expired")
                if session is not None:
                    hub.endings.gone(session, "expired")
                after.append(Forget(name))
            elif session is not None and session.client.link is not None:
                after.append(KeepAlive((name,), now + hub.life_ms))
            elif isinstance(result, Behind):
                # It cannot be read, its time is over, and nobody can give it back.
                log.error("session_unreadable", session=name)
                after += [EndSession(name, hub.node), Forget(name)]
                if session is not None:
                    hub.endings.gone(session, "expired")
            else:
                # It lives elsewhere, or there is none: ask again in a while, and forget it if nobody renews it.
                after += await self._unclaimed(name, now)
        await hub.committer.call_many(after)

    async def _unclaimed(self, name: str, now: int) -> list[Op]:
        looked = await self._hub.committer.call(Look(name, "client", 0, 0))
        if not isinstance(looked, Looked):
            return [Forget(name)]
        head = looked.head
        ops: list[Op] = [KeepAlive((name,), now + self._hub.ttl_ms)]
        if head.client_node == self._hub.node:
            # A claim was granted here and its connection was gone before the answer: nobody has detached it.
            ops.append(Detach(name, "client", self._hub.node, head.client_epoch, now))
        elif head.client_node:
            # Only that node can tell, and whoever sweeps first has just put it off: it would be put off for ever.
            ops.append(Signal(head.client_node, WAKE_OVERDUE + name.encode()))
        return ops

    def overdue(self, name: str) -> None:
        """Another node has found that the life of a session has passed whose client is said to be here."""
        self._hub.spawn(self._answer_for, name)

    async def _answer_for(self, name: str) -> None:
        hub = self._hub
        now = hub.store.now_ms()
        session = hub.sessions.get(name)
        try:
            if session is not None and session.client.link is not None:
                await hub.committer.call(KeepAlive((name,), now + hub.life_ms))
            elif (ops := await self._unclaimed(name, now))[1:]:
                await hub.committer.call_many(ops)
        except StoreUnavailable:
            pass  # whoever sweeps next asks again

    async def _sweep_workers(self) -> None:
        hub = self._hub
        listed = await hub.committer.call(ListWorkers())
        assert isinstance(listed, Workers)
        now_ms, now = hub.store.now_ms(), trio.current_time()
        if self._no_way_back:
            self._no_way_back, self._counts_from_ms, self._lost = False, now_ms, {}
        timeout_s = hub.config.worker.resume_timeout_s
        lost = [
            (info.id, info.epoch)
            for info in listed.workers
            if not self._is_timed(info, now_ms) and not self._is_held(info)
        ]
        self._lost = {claim: self._lost.get(claim, now) for claim in lost}
        for info in listed.workers:
            if self._is_overdue(info, now_ms, now, timeout_s):
                lost_ms = info.away_since_ms if self._is_timed(info, now_ms) and not info.leaving else 0
                await hub.workers.give_up(info.id, info.epoch, "did not come back", lost_ms=lost_ms)
        known = {info.id for info in listed.workers}
        for link in [link for name, link in hub.worker_links.items() if name not in known]:
            hub.workers.check(link)  # its record is damaged, or it was given up
        await self._sweep_orphans(known, now)

    async def _sweep_orphans(self, workers: set[str], now: float) -> None:
        """Sessions whose worker will not ask for them: it was away when the store was lost, so no node could give it back.

        Nobody knows the worker any more, or it came back just then, was told that the session is lost, and the registry,
        which was filled again without the pair, will not tell it otherwise.
        """
        hub = self._hub
        orphans = {
            (session.id, session.worker_id in workers): session
            for session in hub.sessions.values()
            if session.client.link is not None
            and session.worker_id
            and (session.worker_id not in workers or session.worker.node not in hub.cluster.nodes)
        }
        self._orphans = {key: self._orphans.get(key, now) for key in orphans}
        pairs: dict[str, tuple[str, ...]] = {}
        for key, since in list(self._orphans.items()):
            session, (_, registered) = orphans[key], key
            if now - since <= hub.config.worker.resume_timeout_s or not session.worker_id:
                continue  # or it was taken from its worker while others were looked after
            if registered:
                worker = session.worker_id
                if worker not in pairs:
                    pairs[worker] = await self._sessions_of(worker)
                if session.id in pairs[worker]:
                    self._orphans[key] = now  # its worker is awaited; ask again in as long
                    continue
                if session.worker_id != worker or session.worker.node in hub.cluster.nodes:
                    continue
            elif hub.config.worker.on_loss == "hold":
                continue
            await hub.workers.take_from(session)

    async def _sessions_of(self, worker: str) -> tuple[str, ...]:
        paired = await self._hub.committer.call(WorkerSessions(worker))
        assert isinstance(paired, Released)
        return paired.sessions

    @staticmethod
    def _is_timed(info: WorkerInfo, now_ms: int) -> bool:
        """Tell whether a worker's node has said when it was lost, by a clock that has not been set back since."""
        return not info.node and info.away_since_ms - now_ms <= CLOCK_SET_MS

    def _is_held(self, info: WorkerInfo) -> bool:
        """Tell whether the node the registry names for a worker lives and, if it is this one, has or awaits the worker."""
        if info.node == self._hub.node:
            return self._hub.holds(info.id)
        return info.node in self._hub.cluster.nodes

    def _is_overdue(self, info: WorkerInfo, now_ms: int, now: float, timeout_s: float) -> bool:
        if self._is_timed(info, now_ms):
            away_since_ms = max(info.away_since_ms, self._counts_from_ms)
            return bool(info.away_since_ms) and now_ms - away_since_ms > timeout_s * 1000
        # Its node died with it, or granted its claim to a connection that was gone: nobody has said when it was lost, so
        # its time begins when it is noticed.
        claim = info.id, info.epoch
        return claim in self._lost and now - self._lost[claim] > timeout_s


def _is_apart(session: LiveSession) -> bool:
    """Tell whether one party is here and the other at another node."""
    client, worker = session.client, session.worker
    return (client.link is None) != (worker.link is None) and bool(client.node and worker.node)


def _with(info: NodeInfo, **changes: object) -> NodeInfo:
    fields = {name: getattr(info, name) for name in info.__struct_fields__}
    return NodeInfo(**{**fields, **changes})
