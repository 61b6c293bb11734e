"""The removal of blobs: bytes whose time is over, that were removed by request, or that an upload has left, by any node.

The shelves that have something to remove stand in the agenda of the registry, each with the time at which it is due next. A node takes
a shelf with a lease, asks it for its doomed blobs, deletes the bytes, and then has the shelf forget the records. When a node is killed
between the two, the bytes are deleted once more, and an absent object counts as deleted.

A shelf is entered before the first upload to it begins (`enter`). Therefore no blob lies on a shelf that nothing will look at, however a
node ends. A shelf leaves the agenda when it is empty.

Media that do not answer are asked again after a pause, which doubles. The records stay meanwhile, and their bytes count for their owner.
"""

from collections.abc import Sequence

import structlog
import trio

from signald.errors import MediaAway, StoreUnavailable
from signald.ids import new_nonce
from signald.service.context import Context
from signald.store.registry.agenda.ops import Due, DueItem, Schedule, Settle, TakeDue
from signald.store.registry.agenda.records import Kind
from signald.store.shelf.ops import ForgetBlobs, ShelfSwept, SweepShelf

log = structlog.get_logger(__name__)

KIND: Kind = "b"

POLL_S = 30.0
"""The longest pause between two looks at the agenda: an item that another node has entered meanwhile waits so long at most. A blob that is
removed can be read no more from then on, so nothing but room waits for this."""

POLL_LEAST_S = 1.0
"""The shortest pause, so that an agenda that cannot be emptied costs a question a second."""

SHELVES_MAX = 8
"""Shelves that are taken at once. They are swept one after the other, so all of them are done within the lease."""

BLOBS_MAX = 100
"""Blobs of one shelf that are removed before the next shelf has its turn: two seconds of a service that answers in 20 ms."""

LEASE_S = 300.0
"""How long a shelf is this node's: the blobs of `SHELVES_MAX` shelves, with room for slow media."""

RESERVE_S = 60.0
"""What is left of the lease when the last deletion begins: longer than the time-outs of one call."""

AGAIN_FIRST_S, AGAIN_MAX_S = 5.0, 3600.0
"""The pause after media did not answer doubles from a short outage to one that an operator has to end."""


class Shelves:
    """See the module."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._news = trio.Event()
        self.removed = 0
        """Blobs whose bytes this node has deleted."""
        self.failed = 0
        """Sweeps that ended because the media did not answer."""

    async def enter(self, shelf: str, due_ms: int) -> None:
        """Have a shelf swept at `due_ms` or earlier. Raises StoreUnavailable, also when the agenda has no room."""
        context = self._context
        scheduled = await context.committer.call(Schedule(KIND, (shelf,), due_ms, context.now_ms()))
        if scheduled.refused:
            raise StoreUnavailable("the agenda is full")

    def poke(self, shelf: str) -> None:
        """Have a shelf swept now: something on it is doomed."""
        now_ms = self._context.now_ms()
        self._context.committer.submit(Schedule(KIND, (shelf,), now_ms, now_ms), lambda _: self._news.set())

    async def run(self) -> None:
        """Sweep until cancelled; a node without media sweeps nothing."""
        if self._context.media is None:
            return
        while True:
            pause_s = await self._round()
            # What comes while the round runs is taken in the next one, at once.
            with trio.move_on_after(pause_s):
                await self._news.wait()
            self._news = trio.Event()

    async def _round(self) -> float:
        """Sweep the shelves that are due; return how long there is nothing to do."""
        context = self._context
        nonce, now_ms = new_nonce(context.entropy), context.now_ms()
        take = TakeDue(KIND, context.node, nonce, now_ms, round(LEASE_S * 1000), SHELVES_MAX)
        until = trio.current_time() + LEASE_S - RESERVE_S
        try:
            due: Due = await context.committer.call(take)
            dues_ms = [due.next_ms, *[await self._sweep(item, until) for item in due.items]]
        except StoreUnavailable:
            return POLL_S  # what was taken is due again when the lease ends
        if len(due.items) == SHELVES_MAX:
            return 0.0
        next_s = min([(due_ms - context.now_ms()) / 1000 for due_ms in dues_ms if due_ms], default=POLL_S)
        # Nodes that wait for the same shelf do not come together.
        return max(POLL_LEAST_S, min(next_s, POLL_S)) * context.entropy.uniform(1.0, 1.25)

    async def _sweep(self, item: DueItem, until: float) -> int:
        """Sweep a shelf, and settle when it is due next; return that time, 0: never. Raises StoreUnavailable."""
        context, shelf = self._context, item.name
        swept = await context.committer.call(SweepShelf(shelf, context.now_ms(), BLOBS_MAX))
        deleted, error = await self._delete(swept.doomed, until)
        next_ms = context.now_ms() if len(deleted) < len(swept.doomed) else swept.next_ms
        if deleted:
            forgot: ShelfSwept = await context.committer.call(ForgetBlobs(shelf, tuple(deleted), context.now_ms()))
            next_ms = forgot.next_ms
        if error is None:
            return await self._settle(item, next_ms, 0)
        self.failed += 1
        log.warning("blobs_not_removed", shelf=shelf, waiting=len(swept.doomed) - len(deleted), why=str(error))
        pause_s = min(AGAIN_FIRST_S * 2.0 ** min(item.failures, 20), AGAIN_MAX_S) * context.entropy.uniform(0.5, 1.0)
        return await self._settle(item, context.now_ms() + round(pause_s * 1000), item.failures + 1)

    async def _delete(self, blobs: Sequence[str], until: float) -> tuple[list[str], MediaAway | None]:
        """Delete the bytes of `blobs` until the time `until`; return those that are deleted, and what went wrong with the next one."""
        media = self._context.media
        assert media is not None, "only a node with media sweeps"
        deleted: list[str] = []
        for blob in blobs:
            if trio.current_time() >= until:
                break
            try:
                await media.delete(blob)
            except MediaAway as error:
                return deleted, error
            deleted.append(blob)
            self.removed += 1
        return deleted, None

    async def _settle(self, item: DueItem, due_ms: int, failures: int) -> int:
        now_ms = self._context.now_ms()
        since_ms = (item.since_ms or now_ms) if failures else 0
        await self._context.committer.call(Settle(KIND, item.name, item.ticket, due_ms, failures, since_ms, now_ms))
        return due_ms
