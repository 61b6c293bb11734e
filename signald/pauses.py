"""Pauses of this process: times in which it could not attend to its peers, and which it must not charge them for.

A process is stopped (SIGSTOP, a debugger), a host is suspended, the event loop is busy with something long. Meanwhile what peers
send waits in the kernel, and clocks go on. Afterwards it all comes at once, and every deadline seems to have passed.

`Pauses` notices it before any task runs and before any deadline is judged: it is an instrument of the event loop, which
compares how long a wait was to take with how long it took. Each pause moves the deadlines of the scopes made by `within`, and is
added to `total_s`, by which other clocks take it out of account.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import trio

PAUSE_S = 0.25
"""Shorter ones are the usual jitter of a busy host, and no deadline and no rate is that tight."""


CATCH_UP_S = 10.0
"""How long after a pause what has waited in the kernel may still be read: a full node reads it in a second or two."""


class Pauses(trio.abc.Instrument):
    """Notices pauses once it is added to the event loop (`trio.lowlevel.add_instrument`); or is told of them (`note`)."""

    def __init__(self) -> None:
        self.total_s = 0.0
        """Seconds of all pauses since the start."""
        self.number = 0
        """Pauses since the start."""
        self._noted_at = -float("inf")
        self._noted_s = 0.0
        self._scopes: set[trio.CancelScope] = set()
        self._attended_at = time.perf_counter()
        self._until = float("inf")

    def before_io_wait(self, timeout: float) -> None:
        """The loop is about to wait for `timeout` seconds at most."""
        now = time.perf_counter()
        self._until = now + timeout
        self._judge(now - self._attended_at)

    def after_io_wait(self, timeout: float) -> None:  # noqa: ARG002 - the instrument's signature
        """The loop has waited."""
        self._attended_at = time.perf_counter()
        self._judge(self._attended_at - self._until)

    def _judge(self, late_s: float) -> None:
        if late_s >= PAUSE_S:
            self.note(late_s)

    def note(self, seconds: float) -> None:
        """This process has not attended to its peers for `seconds`."""
        now = trio.current_time()
        self._noted_s = seconds + self.owed_s(now)
        self._noted_at = now
        self.total_s += seconds
        self.number += 1
        for scope in self._scopes:
            scope.deadline += seconds

    def owed_s(self, now: float) -> float:
        """Return for how many seconds what peers sent may just be coming in all at once: rates allow for so much more."""
        return self._noted_s if now - self._noted_at < CATCH_UP_S else 0.0

    @contextmanager
    def within(self, seconds: float) -> Iterator[trio.CancelScope]:
        """Cancel the block after `seconds`, as `trio.move_on_after` does, pauses not counted."""
        with trio.move_on_after(seconds) as scope:
            self._scopes.add(scope)
            try:
                yield scope
            finally:
                self._scopes.discard(scope)
