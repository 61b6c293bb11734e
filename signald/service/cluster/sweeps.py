"""What any node may find and end, once a second or so: answers that are late, workers and sessions that are lost."""

import structlog
import trio

from signald.errors import StoreUnavailable
from signald.service.assigning import Assignments
from signald.service.cluster.lease import Lease
from signald.service.cluster.lives import Lives
from signald.service.cluster.lost_workers import LostWorkers
from signald.service.context import Context

log = structlog.get_logger(__name__)

SWEEP_S = 1.0

YOUNG_S = 2 * SWEEP_S
"""How long a node that has just started judges no other: it cannot know whether the clock was set a moment ago. The others
find that out with their next sweep, and renew their leases at once. A node that stands still just then, for less than its
lease, does not. An expired session cannot be given back, so sessions are not judged before a lease has gone by."""


class Sweeps:
    """See the module."""

    def __init__(
        self, context: Context, assignments: Assignments, lease: Lease, lives: Lives, workers: LostWorkers
    ) -> None:
        self._context = context
        self._assignments = assignments
        self._lease = lease
        self._lives = lives
        self._workers = workers
        self._paused_s = self._context.pauses.total_s

    async def run(self) -> None:
        """Sweep until cancelled."""
        if self._context.cluster.alone:
            self._workers.no_way_back()
        await trio.sleep(YOUNG_S)
        while True:
            # Nodes that started together do not sweep together.
            await trio.sleep(SWEEP_S * self._context.entropy.uniform(0.75, 1.25))
            self._forgive_pauses()
            self._assignments.tick(trio.current_time())
            sight = self._lease.sight
            self._lease.note_clock()
            if not sight.clear:
                self._workers.no_way_back()
                continue
            try:
                await self._workers.sweep()
                self._lease.note_clock()
                if sight.clear and sight.long_enough:
                    await self._lives.sweep()
            except StoreUnavailable:
                self._workers.no_way_back()

    def _forgive_pauses(self) -> None:
        """Give workers that are asked to take a session the time in which this node could not have heard their answer."""
        paused_s = self._context.pauses.total_s - self._paused_s
        if paused_s:
            self._paused_s += paused_s
            log.warning("paused", node=self._context.node, seconds=round(paused_s, 3))
            self._assignments.forgive(paused_s)
