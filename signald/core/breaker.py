"""A circuit breaker: a server that fails again and again is left alone for a while, and then tried by one call.

    CLOSED ── failures_max failures in a row ─▸ OPEN ── pause_s ─▸ TRYING ── a success ─▸ CLOSED
                                                 ▴                     │
                                                 └────── a failure ────┘

Without it each caller would wait for the time-out of a server that is away, and a server that comes back would be met by all of them.
"""

from typing import Literal

BreakerState = Literal["closed", "open", "trying"]


class Breaker:
    """See the module. Times are in seconds of one clock that never goes back."""

    __slots__ = ("_failures", "_failures_max", "_pause_s", "_tried_at")

    def __init__(self, failures_max: int, pause_s: float) -> None:
        """Open after `failures_max` failures in a row, for `pause_s`."""
        self._failures_max = failures_max
        self._pause_s = pause_s
        self._failures = 0
        self._tried_at = 0.0
        """When the last failure came, or the trial began."""

    def state(self, now: float) -> BreakerState:
        """Return the state: `trying` when the next call is let through."""
        if self._failures < self._failures_max:
            return "closed"
        return "open" if now < self._tried_at + self._pause_s else "trying"

    def admits(self, now: float) -> bool:
        """Tell whether a call may be made now. The caller makes it at once, and says how it ended.

        In the state `trying` one call is let through in each pause: a trial whose caller was cancelled blocks no other for longer.
        """
        state = self.state(now)
        if state == "trying":
            self._tried_at = now
        return state != "open"

    def succeeded(self) -> bool:
        """A call had an answer: the server is there. Tell whether that closes the breaker."""
        was_open = self._failures >= self._failures_max
        self._failures = 0
        return was_open

    def failed(self, now: float) -> bool:
        """A call had no answer. Tell whether this is the failure that opens the breaker."""
        self._failures += 1
        self._tried_at = now
        return self._failures == self._failures_max
