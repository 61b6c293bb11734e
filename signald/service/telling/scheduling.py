"""The task that enters the queues of this node's events in the agenda of the cluster: many names in one operation."""

from functools import partial

import structlog
import trio

from signald.service.context import Context
from signald.service.inboxes import Poke
from signald.store.registry.agenda.ops import Schedule, Scheduled

log = structlog.get_logger(__name__)

DELAY_S = 0.05
"""How long names gather: the queues that one batch of the store has filled go in one operation. An event is told that much later."""

NAMES_AT_ONCE = 500
"""Names in one operation, so that none keeps the store for long."""

FULL_PAUSE_S = 10.0
"""How long names wait that the agenda has no room for: its bound is far above what a receiver that answers leaves in it."""


class Scheduling:
    """See the module."""

    def __init__(self, context: Context, due: Poke) -> None:
        """`due` is poked when the agenda has something new."""
        self._context = context
        self._due = due
        self.refused = 0
        """Names that the agenda had no room for; a name counts each time."""

    async def run(self) -> None:
        """Schedule what is noted, until cancelled."""
        context = self._context
        while True:
            await context.untold.wait()
            await trio.sleep(DELAY_S)
            if context.committer.down_since is None:
                self.schedule()
            else:
                await trio.sleep(DELAY_S)  # they wait here, where they are bounded

    def schedule(self) -> None:
        """Hand all names to the committer."""
        context = self._context
        while names := context.untold.take(NAMES_AT_ONCE):
            now_ms = context.now_ms()
            context.committer.submit(Schedule("e", names, now_ms, now_ms), partial(self._scheduled, names))

    def _scheduled(self, names: tuple[str, ...], result: Scheduled) -> None:
        self._due()
        if result.refused:
            self.refused += result.refused
            log.warning("core_events_agenda_full", refused=result.refused)
            # Which ones were refused is not said, but they are new and stand behind those that were entered. So they go first the
            # next time: else those before them, told meanwhile and entered once more, would take the room again.
            entered = len(names) - result.refused
            self._context.spawn(self._later, names[entered:] + names[:entered])

    async def _later(self, names: tuple[str, ...]) -> None:
        await trio.sleep(FULL_PAUSE_S)
        self._context.untold.put_back(names)
