"""Group commit: tasks hand over operations, and one task sends all that have gathered as one batch while the next gathers.

No delay is added: an idle store gets an operation at once, a busy store gets many together. Awaited operations go ahead
of messages of other sessions (see `lines`). There are two ways in:

* `submit(op, then)` for the hot path: synchronous, `then(result)` is called in the committer's task;
* `await call(op, ...)` for everything else.

Every operation is safe to repeat. So a batch whose outcome is failed or unknown is sent again until it succeeds, and none of its
operations is answered before. Meanwhile the committer is `down`, which readiness shows. A `call` may stop waiting
(`StoreUnavailable`); a submitted operation never does. It is bounded: a session has at most one append and one ack in flight for each
party.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar, overload

import structlog
import trio

from signald.errors import StoreError, StoreMisused, StoreUnavailable
from signald.store.base import Op, Store
from signald.store.lines import Call, Item, Lines
from signald.tally import Histogram

R = TypeVar("R")
R1 = TypeVar("R1")
R2 = TypeVar("R2")
R3 = TypeVar("R3")

log = structlog.get_logger(__name__)

RETRY_FIRST_S = 0.05
RETRY_MAX_S = 1.0

SECONDS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Bounds for one round trip to the store: from memory to its command timeout and a retry."""
OPERATIONS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)


def ignore(_: object) -> None:
    """Ignore a result: the `then` of an operation that is only to be carried out."""


class Committer:
    """See the module. `run` must be running for anything to happen."""

    def __init__(
        self, store: Store, *, batch_ops_max: int = 512, after_batch: Callable[[], None] = lambda: None
    ) -> None:
        """`after_batch` is called after the results of a batch were handed out (to flush connections), at the latest when the task that
        sends batches waits for the store or for operations."""
        self.store = store
        self.after_batch = after_batch
        self.down_since: float | None = None
        """Trio time since when the store has not answered; None while it does."""
        self.back_at = float("-inf")
        """Trio time at which the store answered again after it had not; minus infinity while that has not happened."""
        self.refused: Callable[[], None] = lambda: None
        """Called whenever the store has refused us."""
        self._refused = False
        """It was said that the store refuses us."""
        self._batch_ops_max = batch_ops_max
        self._lines = Lines()
        self._gathered = trio.Event()
        self._busy = False
        self._waiting_for_idle = trio.lowlevel.ParkingLot()
        self._answered = trio.Event()
        """A batch was answered, and its end has not been made."""
        self.batches = 0
        self.ops = 0
        self.kinds: Counter[type[Op]] = Counter()
        """Operations that were answered, by class."""
        self.outages = 0
        """How often the store has ceased to answer."""
        self.seconds = Histogram(SECONDS)
        """How long batches took, those that were sent again without the attempts before."""
        self.sizes = Histogram(OPERATIONS)
        self.answered_at = 0.0
        """When the batch whose results are being handed out was answered (trio time)."""

    def submit(self, op: Op[R], then: Callable[[R], None]) -> None:
        """Have `op` done and `then` called with its result; of one session, in the order of submission (see `lines`)."""
        self._lines.put((op, then, None))
        self._gathered.set()

    async def call(self, op: Op[R], timeout_s: float = 5.0) -> R:
        """Have `op` done.

        Raises:
            StoreUnavailable: the store did not answer within `timeout_s`; `op` may or may not have happened.
        """
        return (await self.call_many([op], timeout_s))[0]

    @overload
    async def call_each(self, first: Op[R1], second: Op[R2], /) -> tuple[R1, R2]: ...

    @overload
    async def call_each(self, first: Op[R1], second: Op[R2], third: Op[R3], /) -> tuple[R1, R2, R3]: ...

    async def call_each(self, *ops: Op) -> Any:
        """Have two or three operations done, in order; as `call`."""
        return tuple(await self.call_many(ops))

    async def call_many(
        self,
        ops: Sequence[Op[R]],
        timeout_s: float = 5.0,
        *,
        worth: Callable[[], bool] = lambda: True,
        undo: Sequence[Op] = (),
    ) -> list[R]:
        """Have all of `ops` done, in order; as `call`.

        Args:
            undo: submitted when the call times out after some of `ops` were sent: these may have happened, and their results are lost.
            worth: asked when the turn of `ops` has come, which may be late. If it says no, they are discarded, and the call
                raises StoreUnavailable. Operations that were sent once are not withdrawn, because their outcome is unknown.
        """
        if not ops:
            return []
        call = Call(len(ops), worth)
        for index, op in enumerate(ops):
            self._lines.put((op, lambda result, index=index: call.put(index, result), call))  # type: ignore[misc]
        self._gathered.set()
        with trio.move_on_after(timeout_s):
            await call.done.wait()
        if len(call.results) < len(ops):
            if call.begun and not call.given_up:
                for op in undo:
                    self.submit(op, ignore)
            call.given_up = True
            raise StoreUnavailable("the store does not answer")
        return [call.results[index] for index in range(len(ops))]

    async def run(self) -> None:
        """Send batches until cancelled. Raises StoreMisused when the store refuses the first one: nothing is lost by that at start."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._end_batches)
            try:
                await self._send_batches()
            except StoreMisused as error:
                refusal = error
                nursery.cancel_scope.cancel(reason="the store refuses the node")
        raise refusal

    async def _send_batches(self) -> NoReturn:
        while True:
            if not self._lines:
                self._end_batch()
                self._busy = False
                self._waiting_for_idle.unpark_all()
                self._gathered = trio.Event()
                await self._gathered.wait()
            self._busy = True
            batch = self._lines.take(self._batch_ops_max)
            if batch:
                await self._commit(batch)

    async def _end_batches(self) -> None:
        """End each batch while the store is at the next one: what members and parties are told costs more than the store itself."""
        while True:
            await self._answered.wait()
            self._end_batch()

    def _end_batch(self) -> None:
        if self._answered.is_set():
            self._answered = trio.Event()
            self.after_batch()

    @property
    def waiting(self) -> int:
        """How many operations have been handed over and not been sent yet."""
        return len(self._lines)

    async def wait_idle(self) -> None:
        """Return once everything handed over so far has been answered."""
        while self._lines or self._busy:
            await self._waiting_for_idle.park()

    async def _commit(self, batch: list[Item]) -> None:
        wait_s = RETRY_FIRST_S
        while True:
            sent_at = trio.current_time()
            try:
                results = await self.store.execute([item[0] for item in batch])
            except StoreError as error:
                if isinstance(error, StoreMisused) and not self.batches:
                    raise  # found at start: nothing is lost by refusing
                # Later, with sessions alive, a store that refuses us (a password was changed) is a store that is away.
                self._note(error)
                await trio.sleep(wait_s)
                wait_s = min(wait_s * 2, RETRY_MAX_S)
                batch = [item for item in batch if item[2] is None or not item[2].given_up]
                if not batch:
                    return
                continue
            break
        self.answered_at = answered_at = trio.current_time()
        if self.down_since is not None:
            log.warning("store_back", after_s=round(answered_at - self.down_since, 3))
            self.down_since, self._refused = None, False
            self.back_at = answered_at
        self.batches += 1
        self.ops += len(batch)
        self.kinds.update([type(item[0]) for item in batch])
        self.seconds.observe(answered_at - sent_at)
        self.sizes.observe(len(batch))
        for item, result in zip(batch, results, strict=True):
            item[1](result)
        self._answered.set()

    def _note(self, error: StoreError) -> None:
        """Log once that the store is away, and once that it refuses us, which an operator must mend."""
        refused = isinstance(error, StoreMisused)
        if refused:
            self.refused()
        if self.down_since is None or (refused and not self._refused):
            log.warning("store_away", why=str(error))
        if self.down_since is None:
            self.down_since = trio.current_time()
            self.outages += 1
        self._refused = self._refused or refused
