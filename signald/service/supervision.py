"""Telling the supervisor how this node is, from the same loop that serves: a loop that is stuck says nothing.

    READY        when parties are accepted, and again when a reload is over
    WATCHDOG     at half of what the supervisor waits
    EXTEND       while a signal's drain runs, every few seconds, with how far it is
    STOPPING     only behind the handover: a drain that can be called off must not say it

Runs only where a supervisor listens (`NOTIFY_SOCKET`).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import trio

from signald.core.drain import Phase
from signald.service.attachments import Attachments
from signald.service.context import Context
from signald.service.drain.shutdown import ShutdownScope
from signald.systemd import Notifier

TICK_S = 1.0
"""How often the state is looked at. The first EXTEND must be sent before the supervisor's own limit is over."""

SAY_S = 5.0
"""How often a drain asks for more time, and how often a status that changes is told."""

EXTEND_S = 15.0
"""How much is asked for: two of these messages may be lost."""

FINAL = frozenset({Phase.FLUSH, Phase.CLOSE, Phase.DONE})


class Supervision:
    """See the module."""

    def __init__(self, notifier: Notifier, context: Context, attachments: Attachments, shutdown: ShutdownScope) -> None:
        self._notifier = notifier
        self._context = context
        self._attachments = attachments
        self._shutdown = shutdown
        self._ready = False
        """READY has been taken."""
        self._reloading = False
        self._stopping = False
        self._said = ""
        self._said_at = self._extended_at = self._alive_at = -float("inf")
        watchdog_s = notifier.watchdog_s
        self._tick_s = TICK_S if watchdog_s is None else min(TICK_S, watchdog_s / 2)

    @property
    def line(self) -> str:
        """This node in one line."""
        status, links = self._shutdown.status, self._attachments.links
        line = status.line(trio.current_time())
        if status.draining:
            return line
        workers = len(self._attachments.workers)
        away = "" if self._context.committer.down_since is None else ", the store does not answer"
        return f"{line} {len(links) - workers} clients, {workers} workers{away}"

    async def run(self) -> None:
        """Tell until cancelled."""
        while True:
            self._tell(trio.current_time())
            await trio.sleep(self._tick_s)

    def _tell(self, now: float) -> None:
        notifier, status, line = self._notifier, self._shutdown.status, self.line
        # Half of it, less a tick: the next one would be late.
        if notifier.watchdog_s is not None and now - self._alive_at >= notifier.watchdog_s / 2 - self._tick_s:
            notifier.alive()
            self._alive_at = now
        if not self._ready:
            self._ready = not self._reloading and notifier.ready(line)
        elif status.by_signal and status.phase in FINAL:
            self.end()
        elif status.by_signal and now - self._extended_at >= SAY_S and now < self._limit(status.began_at):
            if notifier.extend(EXTEND_S, line):
                self._said, self._said_at, self._extended_at = line, now, now
        elif now - self._said_at >= SAY_S and line != self._said and notifier.status(line):
            self._said, self._said_at = line, now

    def _limit(self, began_at: float) -> float:
        """When more time is not asked for: what has not ended by then is stuck, and the supervisor's limit shall count."""
        return began_at + self._context.config.drain.stop_timeout_s

    def end(self) -> None:
        """The point of no return."""
        if not self._stopping:
            self._stopping = self._notifier.stopping(self.line)

    @contextmanager
    def reloading(self) -> Iterator[None]:
        """Within the block the configuration is read. A node that stops has nothing to say about that."""
        if self._shutdown.status.by_signal or not self._ready:
            yield
            return
        self._ready, self._reloading = not self._notifier.reloading(), True
        try:
            yield
        finally:
            self._reloading = False
            self._ready = self._notifier.ready(self.line)
