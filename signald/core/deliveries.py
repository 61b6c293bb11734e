"""What becomes of an event after an attempt to deliver it, and when the next attempt is: the rules of Standard Webhooks.

An attempt has one outcome:

    DELIVERED   2xx: the event is told
    GONE        410: the receiver wants no events, and is told none until an operator says so
    AWAY        no answer, or one that says nothing about this event: 408, 429, 5xx. The receiver may be away for all events
    REFUSED     any other answer: this event is retried, and its queue waits for it

A queue whose attempt has failed waits longer after each failure. While the receiver as a whole is away, one attempt at a time
shows whether it is back (`Reachability`).
"""

from email.utils import parsedate_to_datetime
from enum import Enum

import attrs


class Outcome(Enum):
    """See the module."""

    DELIVERED = "delivered"
    GONE = "gone"
    AWAY = "away"
    REFUSED = "refused"


GONE_STATUS = 410
AWAY_STATUSES = frozenset({408, 429})
"""Answers below 500 that are about the receiver or its load."""

PAUSE_FIRST_S = 5.0
"""The bound of the first pause, as the specification proposes: a receiver that restarts is back in a few seconds."""

PAUSE_MAX_S = 3600.0
"""The bound of all pauses. An event that is kept for a day has two dozen attempts at this distance, and costs next to nothing."""

PAUSE_MIN_S = 0.5
"""No pause is shorter, whatever the jitter draws: a failure is no reason to try again at once."""

RETRY_AFTER_MAX_S = 3600.0
"""How long a receiver may put an event off with `Retry-After`: a wrong date must not put it off until it is too old."""

FAILURES_MAX = 1000
"""Failures that are counted of one queue: the pause has its bound long before, and the number stays small."""

AWAY_FAILURES = 3
"""Attempts that fail in a row, of any queues, until the receiver counts as away: one lost connection is no outage."""

PROBE_FIRST_S, PROBE_MAX_S = 1.0, 30.0
"""The bounds of the pauses between two probes of a receiver that is away. One request in half a minute from each node costs
the receiver nothing, and a receiver that is back is found soon."""


def judge(status: int) -> Outcome:
    """Return the outcome of an attempt that was answered with `status`."""
    if 200 <= status < 300:
        return Outcome.DELIVERED
    if status == GONE_STATUS:
        return Outcome.GONE
    if status in AWAY_STATUSES or status >= 500:
        return Outcome.AWAY
    return Outcome.REFUSED


def pause_s(failures: int, share: float) -> float:
    """Return how long a queue waits after its last `failures` in a row, with full jitter: `share`, 0 to 1, of a bound that doubles.

    Queues that failed together are tried again apart.
    """
    return max(PAUSE_MIN_S, share * _doubled(PAUSE_FIRST_S, failures, PAUSE_MAX_S))


def retry_after_s(text: str, now_s: float) -> float:
    """Return what `Retry-After` asks for, `RETRY_AFTER_MAX_S` at most; 0 for nothing that can be read (RFC 9110 §10.2.3).

    `now_s` is the time in seconds since 1970, for a date.
    """
    text = text.strip()
    if text.isascii() and text.isdecimal():
        return min(float(text[:12]), RETRY_AFTER_MAX_S)
    try:
        at_s = parsedate_to_datetime(text[:64]).timestamp()
    except (ValueError, OverflowError, TypeError):
        return 0.0
    return min(max(0.0, at_s - now_s), RETRY_AFTER_MAX_S)


def _doubled(first_s: float, times: int, most_s: float) -> float:
    return min(most_s, first_s * 2.0 ** min(max(times, 1) - 1, 30))


@attrs.define
class Reachability:
    """Whether the receiver is there, as far as this node knows. Times are trio times.

    Unlike `core.breaker` it bounds how many attempts may begin, waits longer after each probe, and heeds `Retry-After`.
    """

    failures: int = 0
    """Attempts in a row that found the receiver away."""
    probe_at: float = float("-inf")
    """When the next probe is due; of no meaning while the receiver is there."""
    probing: bool = False
    """A probe is under way."""

    @property
    def away(self) -> bool:
        """The receiver counts as away."""
        return self.failures >= AWAY_FAILURES

    def room(self, free: int, now: float) -> int:
        """Return how many queues may be taken now, with `free` places: all, or one as a probe, or none."""
        if not self.away:
            return free
        return 1 if free and not self.probing and now >= self.probe_at else 0

    def note(self, outcome: Outcome, now: float, share: float, retry_after_s: float = 0.0) -> bool:
        """Note the outcome of an attempt; True when the receiver is found away, or back, by it.

        Any answer about an event shows that the receiver is there. A receiver that is busy and asks with `retry_after_s` for time gets
        it from all queues. `share`, 0 to 1, is the jitter.
        """
        was_away = self.away
        if outcome is not Outcome.AWAY:
            self.failures = 0
            return was_away
        if was_away and now < self.probe_at:
            return False  # an attempt from before: it is no probe, and says nothing new
        self.failures += 1
        if retry_after_s:
            self.failures = max(self.failures, AWAY_FAILURES)
        if self.away:
            bound = _doubled(PROBE_FIRST_S, self.failures - AWAY_FAILURES + 1, PROBE_MAX_S)
            self.probe_at = now + max(retry_after_s, bound * (0.5 + share / 2))
        return self.away is not was_away
