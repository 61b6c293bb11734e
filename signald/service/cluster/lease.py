"""The lease by which a node holds its id, and the reading of the other nodes: every third of the lease, both at once."""

import hashlib
from collections.abc import Callable
from typing import Literal

import structlog
import trio

from signald.errors import StoreUnavailable
from signald.service.cluster.identity import Claimant
from signald.service.cluster.lag import LoopLag
from signald.service.cluster.sealing import Sealing
from signald.service.cluster.sight import Sight
from signald.service.context import Context
from signald.service.losses import Losses
from signald.store.base import CLOCK_SET_MS, WAKE_NODES, Result
from signald.store.formats import FORMAT, READS, check_formats, is_ahead
from signald.store.registry.ops import (
    ClusterSecret,
    DropNode,
    ListNodes,
    NodeInfo,
    Nodes,
    NodeTaken,
    PutNode,
    RaiseFormat,
    Signal,
)

log = structlog.get_logger(__name__)

NodeState = Literal["starting", "ready", "draining"]


class Lease:
    """See the module."""

    def __init__(
        self,
        context: Context,
        losses: Losses,
        connections: Callable[[], int],
        on_taken: Callable[[], None],
        claimant: Claimant | None = None,
    ) -> None:
        """`connections` counts those of this node, which it publishes; `claimant` takes the id.

        `on_taken` is called once this process must not act under its id any more.
        """
        self._context = context
        self._losses = losses
        self._connections = connections
        self.sight = Sight(context.now_ms, lambda: context.config.node.lease_ttl_s)
        self.lag = LoopLag()
        self._sealing = Sealing(context)
        self._on_taken = on_taken
        self._claimant = claimant or Claimant()
        self.outdated = False
        """A release whose records this one cannot read writes to the store: this node must end."""
        self.taken = False
        """Another process has taken this node's id: this one has been dead for the others, and must end."""
        self._held_ms = 0
        """When this node last renewed its lease and the store confirmed it (time of the store)."""
        self.poke = context.inboxes.nodes
        """Read the nodes again now."""
        now = context.now_ms()
        self.info = NodeInfo(context.node, context.config.node.release, "starting", now, now)

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
        drawn = self._context.entropy.token_bytes(32)
        secret = await self._context.committer.call(ClusterSecret(drawn))
        self._context.cluster.secret = secret.value
        # One draw serves for both: a hash of a secret that may be used gives nothing of it away.
        incarnation = hashlib.sha256(b"incarnation" + drawn).hexdigest()[:32]
        self.info = _with(self.info, incarnation=incarnation, format=FORMAT)
        now = self._context.now_ms()
        kept, nodes = await self._context.committer.call_each(RaiseFormat(0), ListNodes(now))
        check_formats(kept.number, nodes.nodes)
        await self._sealing.begin()
        await self._claimant.take(self._context.node, incarnation, secret.value, self._put, self._poke_holder)

    async def _poke_holder(self) -> None:
        """Wake the process that holds this node's id, if it is alive. Raises StoreUnavailable."""
        await self._context.committer.call(Signal(self._context.node, WAKE_NODES))

    async def end(self) -> None:
        """Give the lease back. Raises StoreUnavailable."""
        await self._context.committer.call(DropNode(self._context.node, self.info.incarnation))

    async def run(self) -> None:
        """Keep the lease until cancelled."""
        every_s = self._context.config.node.lease_ttl_s / 3
        while True:
            with trio.move_on_after(every_s):
                await self.poke.wait()
            self.poke.clear()
            try:
                await self._keep()
            except StoreUnavailable:
                continue
            # A node that gets its lease back late may have met an empty store.
            self._context.inboxes.doubts.check()

    async def _keep(self) -> None:
        if self.taken:
            await trio.lowlevel.checkpoint()
            return
        put = await self._put("", 0)
        if isinstance(put, NodeTaken) and put.renewed_ms < self._held_ms:
            # The entry is older than this node's own last one, so the store has lost its tail: it is a predecessor's.
            self._losses.store_went_back("the entry of this node is older than the one that was confirmed")
            put = await self._put(put.incarnation, put.renewed_ms)
        if isinstance(put, NodeTaken) and not self.taken:
            self.taken = True
            log.error(
                "node_id_lost",
                node=self._context.node,
                why="another process took this node's id while this one did not renew its lease; this node stops",
            )
            self._on_taken()

    async def _put(self, over: str, over_ms: int) -> Result:
        """Renew the lease, and read the nodes if this process holds the id of this one. Raises StoreUnavailable."""
        context = self._context
        now = context.now_ms()
        self.info = _with(
            self.info,
            lease_until_ms=now + round(context.config.node.lease_ttl_s * 1000),
            renewed_ms=now,
            connections=self._connections(),
            lag_ms=round(self.lag.ms, 3),
            seal_keys=self._sealing.known,
        )
        # With each renewal, because a store that was emptied has lost its number as well.
        put, nodes, kept = await context.committer.call_each(
            PutNode(self.info, over, over_ms), ListNodes(now), RaiseFormat(FORMAT)
        )
        if is_ahead(kept.number):
            self._outdated(kept.number)
        if not isinstance(put, NodeTaken):
            self._held_ms = now
            await self._sealing.agree(nodes.nodes)
            self._see(nodes, now)
            self._losses.check_store()
        return put

    def _outdated(self, kept: int) -> None:
        """A release two formats ahead writes to the store: it started while this node stood still."""
        if self.outdated:
            return
        self.outdated = self.taken = True
        why = f"the store has format {kept} now, and this release reads formats up to {READS}; this node stops"
        log.error("store_format_ahead", node=self._context.node, why=why)
        self._on_taken()

    def _see(self, nodes: Nodes, now: int) -> None:
        context = self._context
        self.note_clock()
        known = context.cluster.nodes if self.sight.read() else {}
        # A lease from before the clock was set back would seem to go on for as long as it was set.
        live = [info for info in nodes.nodes if info.renewed_ms - now <= CLOCK_SET_MS]
        context.cluster.nodes = {**known, **{info.id: info for info in live}}
        context.inboxes.line()

    def note_clock(self) -> None:
        """Find out whether the store's clock was set. If so, the other nodes renew their leases at once, as this one does."""
        if self.sight.clock_was_set():
            self.poke()


def _with(info: NodeInfo, **changes: object) -> NodeInfo:
    fields = {name: getattr(info, name) for name in info.__struct_fields__}
    return NodeInfo(**{**fields, **changes})
