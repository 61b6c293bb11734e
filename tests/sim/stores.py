"""The store of a simulation: the memory twin, slow, unreachable, forgetful, or with answers that are lost."""

import copy
import random
from collections.abc import AsyncIterator, Callable, Sequence

import attrs
import trio

from signald.errors import StoreUnavailable
from signald.store.base import WAKE_ALL, Op, Result, Wake
from signald.store.memory import MemoryRows, MemoryStore, MemoryWorld
from signald.store.registry.ops import (
    ClaimWorker,
    ListNodes,
    ListOverdue,
    ListReceipts,
    ListSuited,
    ListWaiting,
    ListWorkers,
    WorkerSessions,
)
from signald.store.session.ops import Append, ClaimClient, Look, ReadHistory, ReadTrail
from signald.store.session.streams.ops import OpenStreams
from signald.testing.pipes import Gate


@attrs.frozen
class SlowStore:
    """A `share` of the batches takes up to `up_to_s`, before or after it is applied."""

    share: float
    up_to_s: float


@attrs.frozen
class LostReplyAfterApply:
    """A `share` of the batches is applied and answered, and the answer is lost."""

    share: float


@attrs.frozen
class LostRequest:
    """A `share` of the batches never reaches the store."""

    share: float


@attrs.frozen
class HalfBatch:
    """Of a `share` of the batches only the first operations are applied, and no node is told."""

    share: float


@attrs.frozen
class LateApply:
    """A `share` of the batches is given up by the node, and applied by the store up to `up_to_s` later all the same."""

    share: float
    up_to_s: float


@attrs.frozen
class LostWake:
    """A `share` of the wake-ups is lost."""

    share: float


@attrs.frozen
class RepeatedBatch:
    """A `share` of the batches is applied and answered, and up to `up_to_s` later applied once more."""

    share: float
    up_to_s: float


READS = (
    Look, ReadHistory, ReadTrail, ListNodes, ListOverdue, ListReceipts, ListWaiting, ListSuited, ListWorkers,
    WorkerSessions, OpenStreams,
)  # fmt: skip
"""What a store without room still answers."""

StoreFault = SlowStore | LostReplyAfterApply | LostRequest | HalfBatch | LateApply | LostWake | RepeatedBatch


@attrs.define
class Countdown:
    """Something that befalls a node with its `left`-th batch of operations, `after` it was carried out or before."""

    left: int
    after: bool
    appends_only: bool
    """Only batches that append a message count."""
    deed: Callable[[], None]

    def hits(self, ops: Sequence[Op]) -> bool:
        """Count one more; True when it is time."""
        if self.appends_only and not _appends(ops):
            return False
        self.left -= 1
        return self.left == 0


@attrs.define
class AtClaim:
    """Something that happens while a node asks for the client's side of `session`, which takes a moment then."""

    session: str
    deed: Callable[[], None]
    after: bool = False

    def hits(self, ops: Sequence[Op]) -> bool:
        """Tell whether it is time."""
        return any(isinstance(op, ClaimClient) and op.session == self.session for op in ops)


CLAIM_TAKES_S = 0.01


def _appends(ops: Sequence[Op]) -> bool:
    return any(isinstance(op, Append) for op in ops)


class Copy:
    """What a store holds at one moment: the rows, and what else stands for them."""

    def __init__(self, rows: MemoryRows, rest: object = None) -> None:
        self.rows = rows
        self.rest = rest


class SimWorld(MemoryWorld):
    """The store of all nodes, in memory; `RedisWorld` is the same on a server."""

    def copied(self) -> Copy:
        """Return what a replica holds that has caught up now."""
        return Copy(copy.deepcopy(self.rows))

    def go_back(self, to: Copy) -> None:
        """Hold what a copy held."""
        self.rows = to.rows

    def left(self) -> list[str]:
        """Return what is kept beside the rows of sessions, workers and lines that have gone."""
        return []

    def put(self, ops: Sequence[Op]) -> None:
        """Carry out `ops`, whatever ails the store: they are of no node."""
        outage, self.outage = self.outage, ""
        try:
            self.execute(ops)
        finally:
            self.outage = outage


def fail_over(world: SimWorld, trouble: "StoreTrouble", replica: Copy) -> None:
    """Another server takes over with what it holds: what came after it is gone. All nodes have to connect again."""
    world.go_back(replica)
    trouble.servers += 1
    for inboxes in world._inboxes.values():
        for inbox in inboxes:
            inbox.put(WAKE_ALL)


class StoreTrouble:
    """What ails the store of all nodes."""

    def __init__(self, faults: tuple[StoreFault, ...]) -> None:
        self.faults = faults
        self.faulty = True
        self.cut_off: set[str] = set()
        """Nodes that do not reach the store now."""
        self.ever_cut_off: set[str] = set()
        self.servers = 1
        """How many servers the store has had: a connection leads to one of them, and is broken when the next takes over."""
        self.clock_ms = 0
        """How far the store's wall clock has been stepped."""
        self.clock_set_at = -float("inf")
        self.full = False
        """There is no room: the store answers questions, and takes nothing."""

    def of(self, kind: type[StoreFault]) -> StoreFault | None:
        """The fault of this kind, if it is in the plan and on."""
        if not self.faulty:
            return None
        return next((fault for fault in self.faults if isinstance(fault, kind)), None)


class FaultyStore:
    """A `MemoryStore` as the node called `node` reaches it. `applied` hears of every batch that was carried out."""

    def __init__(
        self,
        store: MemoryStore,
        node: str,
        trouble: StoreTrouble,
        gate: Gate,
        chance: random.Random,
        applied: Callable[[str, Sequence[Op], Sequence[Result]], None],
        late: Callable[[float, Callable[[], None]], None],
        hit: Callable[[str], None],
    ) -> None:
        self._store = store
        self._node = node
        self._trouble = trouble
        self._gate_of_node = gate
        self._chance = chance
        self._applied = applied
        self._late = late
        self._hit = hit
        self._server = trouble.servers
        self.dead = False
        """The node's process is gone: what it had begun never ends."""
        self.countdowns: list[Countdown | AtClaim] = []
        self.persisted = 0
        """Batches with a message in them that the store has carried out and the node has not heard of."""
        self.answered: Callable[[Sequence[Op], Sequence[Result]], None] = lambda _ops, _results: None
        """Hears of each batch whose answer has reached the node."""

    @property
    def lives(self) -> int:
        """See `Store.lives`."""
        return self._trouble.servers

    def now_ms(self) -> int:
        """See `Store.now_ms`."""
        return self._store.now_ms() + self._trouble.clock_ms

    def _drawn(self, kind: type[StoreFault]) -> StoreFault | None:
        fault = self._trouble.of(kind)
        return fault if fault is not None and self._chance.random() < fault.share else None

    async def execute(self, ops: Sequence[Op]) -> list[Result]:
        """See `Store.execute`."""
        await self._gate()
        due = [one for one in self.countdowns if one.hits(ops)]
        if self._befall(due, after=False):
            if any(isinstance(one, AtClaim) for one in due):
                await trio.sleep(CLAIM_TAKES_S)
            await self._gate()
        slow = self._drawn(SlowStore)
        if isinstance(slow, SlowStore):
            await trio.sleep(self._chance.uniform(0.0, slow.up_to_s))
            await self._gate()
        if self._drawn(LostRequest):
            self._hit("store: lost request")
            raise StoreUnavailable("the request was lost")
        late = self._drawn(LateApply)
        if isinstance(late, LateApply):
            self._hit("store: applied after it was given up")
            self._late(self._chance.uniform(0.0, late.up_to_s), lambda: self._apply_late(list(ops)))
            raise StoreUnavailable("no answer in time")
        if len(ops) > 1 and self._drawn(HalfBatch):
            self._hit("store: half a batch applied")
            self._apply(ops[: self._chance.randint(1, len(ops) - 1)])
            raise StoreUnavailable("the connection broke in the middle")
        results = self._apply(ops)
        self.persisted += _appends(ops)
        try:
            results = await self._answer(ops, results, due, slow)
        finally:
            self.persisted -= _appends(ops)
        self.answered(ops, results)
        return results

    async def _answer(
        self, ops: Sequence[Op], results: list[Result], due: Sequence[Countdown | AtClaim], slow: StoreFault | None
    ) -> list[Result]:
        if self._befall(due, after=True):
            await self._gate()
        repeated = self._drawn(RepeatedBatch)
        if isinstance(repeated, RepeatedBatch):
            self._hit("store: a batch applied twice")
            self._late(self._chance.uniform(0.0, repeated.up_to_s), lambda: self._apply_late(list(ops)))
        if self._drawn(LostReplyAfterApply):
            self._hit("store: lost reply after apply")
            if any(isinstance(op, ClaimClient | ClaimWorker) for op in ops):
                self._hit("timeout after apply during token rotation")
            raise StoreUnavailable("the answer was lost")
        if isinstance(slow, SlowStore):
            await trio.sleep(self._chance.uniform(0.0, slow.up_to_s))
            await self._gate()
        return results

    def _befall(self, due: Sequence[Countdown | AtClaim], *, after: bool) -> bool:
        # What waits for the same moment may befall another batch meanwhile: a slow one is overtaken by what others are told.
        struck = [one for one in due if one.after == after and one in self.countdowns]
        for one in struck:
            self.countdowns.remove(one)
            one.deed()
        return bool(struck)

    async def _gate(self) -> None:
        await trio.lowlevel.checkpoint()
        await self._gate_of_node.wait()
        if self.dead:
            await trio.sleep_forever()
        if self._node in self._trouble.cut_off:
            raise StoreUnavailable("the store is not reachable from here")
        if self._server != self._trouble.servers:
            self._server = self._trouble.servers
            raise StoreUnavailable("the connection is gone: another server has taken over")

    def _apply(self, ops: Sequence[Op]) -> list[Result]:
        if self._trouble.full and not all(isinstance(op, READS) for op in ops):
            self._hit("store full")
            raise StoreUnavailable("there is no room")
        world = self._store.world
        outage, world.outage = world.outage, "" if world.outage == "answers lost" else world.outage
        try:
            results = world.execute(ops)
        finally:
            world.outage = outage
        self._applied(self._node, ops, results)
        if outage == "answers lost":
            raise StoreUnavailable("the answer was lost")
        return results

    def _apply_late(self, ops: Sequence[Op]) -> None:
        if not self._store.world.outage and not self._trouble.full:
            self._apply(ops)

    async def wakes(self) -> AsyncIterator[list[Wake]]:
        """See `Store.wakes`."""
        async for wakes in self._store.wakes():
            lost = self._trouble.of(LostWake)
            if lost is not None or self._node in self._trouble.cut_off:
                share = 1.0 if lost is None else lost.share
                kept = [wake for wake in wakes if wake == WAKE_ALL or self._chance.random() >= share]
                if len(kept) < len(wakes):
                    self._hit("store: wake-up lost")
                wakes = kept
            await self._gate_of_node.wait()
            if wakes and not self.dead:
                yield wakes

    async def check(self) -> None:
        """See `Store.check`."""
        await self.execute(())
