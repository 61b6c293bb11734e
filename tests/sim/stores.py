"""The store of a simulation: the memory twin, slow, unreachable, forgetful, or answering what nobody hears."""

import random
from collections.abc import AsyncIterator, Callable, Sequence

import attrs
import trio

from signald.errors import StoreUnavailable
from signald.store.base import WAKE_ALL, Op, Result, Wake
from signald.store.memory import MemoryStore


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
    """Of a `share` of the batches only the first operations are applied, and nobody hears of it."""

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


StoreFault = SlowStore | LostReplyAfterApply | LostRequest | HalfBatch | LateApply | LostWake


class StoreTrouble:
    """What ails the store of all nodes."""

    def __init__(self, faults: tuple[StoreFault, ...]) -> None:
        self.faults = faults
        self.faulty = True
        self.cut_off: set[str] = set()
        """Nodes that do not reach the store now."""

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
        chance: random.Random,
        applied: Callable[[str, Sequence[Op], Sequence[Result]], None],
        late: Callable[[float, Callable[[], None]], None],
        hit: Callable[[str], None],
    ) -> None:
        self._store = store
        self._node = node
        self._trouble = trouble
        self._chance = chance
        self._applied = applied
        self._late = late
        self._hit = hit
        self.dead = False
        """The node's process is gone: what it had begun never ends."""

    def now_ms(self) -> int:
        """See `Store.now_ms`."""
        return self._store.now_ms()

    def _drawn(self, kind: type[StoreFault]) -> StoreFault | None:
        fault = self._trouble.of(kind)
        return fault if fault is not None and self._chance.random() < fault.share else None

    async def execute(self, ops: Sequence[Op]) -> list[Result]:
        """See `Store.execute`."""
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
        if self._drawn(LostReplyAfterApply):
            self._hit("store: lost reply after apply")
            raise StoreUnavailable("the answer was lost")
        if isinstance(slow, SlowStore):
            await trio.sleep(self._chance.uniform(0.0, slow.up_to_s))
            await self._gate()
        return results

    async def _gate(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.dead:
            await trio.sleep_forever()
        if self._node in self._trouble.cut_off:
            raise StoreUnavailable("the store is not reachable from here")

    def _apply(self, ops: Sequence[Op]) -> list[Result]:
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
        if not self._store.world.outage:
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
            if wakes and not self.dead:
                yield wakes

    async def check(self) -> None:
        """See `Store.check`."""
        await self.execute(())
