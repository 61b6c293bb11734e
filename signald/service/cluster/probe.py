"""How far behind the backplane is: a wake-up this node sends to itself every few seconds, the whole way round.

It goes through the committer and the store like any other, so it measures what a message that crosses nodes waits for. A node that is
alone sends none: it needs no backplane, and a store that is polled is polled rarely then.
"""

import trio

from signald.service.context import Context
from signald.store.base import WAKE_PROBE, Wake
from signald.store.registry.ops import Signal

EVERY_S = 5.0


class Probe:
    """See the module."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.number = 0
        """How many were sent."""
        self._sent_at = 0.0
        self._unheard_since: float | None = None
        self._lag_s = 0.0

    @property
    def lag_s(self) -> float:
        """What the last one took, or for how long none was heard."""
        if self._unheard_since is None:
            return self._lag_s
        return max(self._lag_s, trio.current_time() - self._unheard_since)

    async def run(self) -> None:
        """Send one after the other until cancelled."""
        context = self._context
        while True:
            await trio.sleep(EVERY_S)
            if context.cluster.alone:
                self._unheard_since, self._lag_s = None, 0.0
            elif context.committer.down_since is None:
                self.number += 1
                self._sent_at = trio.current_time()
                if self._unheard_since is None:
                    self._unheard_since = self._sent_at
                context.submit(Signal(context.node, WAKE_PROBE + b"%d" % self.number))

    def heard(self, wake: Wake) -> None:
        """A probe has come; one that was overtaken tells nothing."""
        if wake[1:] == b"%d" % self.number:
            self._lag_s = trio.current_time() - self._sent_at
            self._unheard_since = None
