"""Pauses of this process: times in which it could not serve its peers, and must not hold them to deadlines.

A process is stopped (SIGSTOP, a debugger), a host is suspended, or a long computation blocks the event loop. Meanwhile the
bytes of peers wait in the kernel, and clocks go on. Afterwards they arrive together, and every deadline seems to have passed.

`Pauses` notices a pause before any task runs and before any deadline is judged. It is an instrument of the event loop, and
compares the planned length of a wait with its real length. Each pause moves the deadlines of the scopes made by `within`, and is
added to `total_s`, so that other clocks can subtract it.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import trio

PAUSE_S = 0.25
"""A shorter pause is the usual jitter of a busy host; no deadline and no rate is so tight."""


CATCH_UP_S = 10.0
"""How long after a pause bytes from before it may still arrive: a full node reads them in a second or two."""


class Pauses(trio.abc.Instrument):
    """Notices pauses as an instrument of the event loop (`trio.lowlevel.add_instrument`), or by calls of `note`."""

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
        """Note a pause of `seconds`."""
        now = trio.current_time()
        self._noted_s = seconds + self.owed_s(now)
        self._noted_at = now
        self.total_s += seconds
        self.number += 1
        for scope in self._scopes:
            scope.deadline += seconds

    def owed_s(self, now: float) -> float:
        """Return the seconds whose bytes may be arriving together now: rates allow for so much more."""
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
