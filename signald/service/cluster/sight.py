"""Whether this node sees the cluster clearly enough to judge other nodes, and workers that are away.

Leases, and the times at which workers were lost, are times of the store's clock. They prove nothing for a while after the
store was away, has lost its nodes, or has had its clock set: living nodes get one lease to renew theirs.
"""

from collections.abc import Callable

import structlog
import trio

log = structlog.get_logger(__name__)

FRESH_SHARE = 2 / 3
"""Share of a lease within which the nodes must have been read: a node reads them every third, so it may miss one turn."""

CLOCK_SHARE = 1 / 3
"""Share of a lease by which the store's clock must move against ours to count as set. Less of a step ends no lease."""


class Sight:
    """See the module. Times are trio times."""

    def __init__(self, now_ms: Callable[[], int], lease_s: Callable[[], float]) -> None:
        """`now_ms` is the time of the store, `lease_s` how long a lease is now."""
        self._now_ms = now_ms
        self._lease_s = lease_s
        self._began_at = self._read_at = self._blind_until = trio.current_time()
        self._clock_s = now_ms() / 1000 - self._began_at
        """The store's time minus ours. It changes only when the clock of the store's machine is set."""
        self.clock_sets = 0
        """How often the store's clock was set."""

    def doubt(self) -> None:
        """The store has lost track of the nodes: the living ones get a lease to renew theirs before others count as dead."""
        self._blind_until = trio.current_time() + self._lease_s()

    def read(self) -> bool:
        """The nodes were read; True while those that were known before count as live, read again or not."""
        now = trio.current_time()
        if now - self._read_at > self._lease_s() * FRESH_SHARE:
            self.doubt()  # the store was away, and the leases of all nodes have ended, not only of dead ones
        self._read_at = now
        return now < self._blind_until

    def clock_was_set(self) -> bool:
        """Tell whether the store's clock was set since the last call. If so, all leases but those renewed since may seem over."""
        clock_s = self._now_ms() / 1000 - trio.current_time()
        step_s, self._clock_s = clock_s - self._clock_s, clock_s
        if abs(step_s) <= self._lease_s() * CLOCK_SHARE:
            return False
        log.warning("clock_was_set", by_s=round(step_s, 3))
        self.clock_sets += 1
        self.doubt()
        return True

    @property
    def clear(self) -> bool:
        """True while what the store says of the nodes is fit to judge by."""
        now = trio.current_time()
        return now >= self._blind_until and now - self._read_at <= self._lease_s() * FRESH_SHARE

    @property
    def long_enough(self) -> bool:
        """True once the nodes have been read for a whole lease since this node began."""
        return self._read_at >= self._began_at + self._lease_s()
