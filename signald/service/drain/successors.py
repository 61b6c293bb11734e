"""The nodes that may take over: the wait for one, and the check that it is still there."""

from collections.abc import Callable
from contextlib import suppress
from math import inf

import structlog
import trio

from signald.errors import StoreUnavailable
from signald.service.cluster.lease import Lease
from signald.service.context import Context

log = structlog.get_logger(__name__)

SUCCESSOR_POLL_S = 0.05

SUCCESSOR_LEASE_SHARE = 0.5
"""Share of its lease that a successor may have used up. A node that lives renews after a third; a node that is past the half has
missed that, and a party that was sent to it would find no node."""

LOOK_AGAIN_S = 0.5
"""How long the store may take to say that a successor is still there."""

CLOCKS_DIFFER_MS = 100
"""How much nodes may differ about the store's time."""


class Successors:
    """See the module. One for each drain."""

    def __init__(self, context: Context, lease: Lease, asked_ms: int) -> None:
        """`asked_ms` is when the other nodes were told of the drain: a node that has renewed its lease since is certainly there."""
        self._context = context
        self._lease = lease
        self._asked_ms = asked_ms - CLOCKS_DIFFER_MS

    async def find(self) -> float:
        """Wait for a node that takes over, for as long as the caller's scope allows; returns the seconds it took.

        The other nodes have just been woken by ours, and renew their leases: one that was killed a moment ago does not.
        """
        waited_s = await self._wait(
            lambda: any(info.renewed_ms >= self._asked_ms for info in self._context.cluster.successors()), inf
        )
        assert waited_s is not None
        return waited_s

    async def find_another(self, deadline: float) -> float | None:
        """Wait for a node to go to until `deadline` (trio time); returns the seconds it took, None when there is none then."""
        return await self._wait(self.any_now, deadline)

    async def _wait(self, found: Callable[[], bool], deadline: float) -> float | None:
        began = trio.current_time()
        while not found():
            left_s = deadline - trio.current_time()
            if left_s <= 0:
                log.warning("no_successor")
                return None
            self._lease.poke()
            # Never beyond the deadline: the earlier of two budgets decides, and not the grain of the polling.
            await trio.sleep(min(SUCCESSOR_POLL_S, left_s))
        log.info("successor", nodes=sorted(info.id for info in self._context.cluster.successors()))
        return trio.current_time() - began

    def any_now(self) -> bool:
        """Tell whether a node is there to go to now."""
        now_ms = self._context.now_ms()
        return any(
            now_ms - info.renewed_ms < SUCCESSOR_LEASE_SHARE * (info.lease_until_ms - info.renewed_ms)
            for info in self._context.cluster.successors()
        )

    async def any_still(self) -> bool:
        """Look again: what is known may be a third of a lease old, and a successor renewed since that was read."""
        with trio.move_on_after(LOOK_AGAIN_S), suppress(StoreUnavailable):
            await self._lease.look()
        return self.any_now()
