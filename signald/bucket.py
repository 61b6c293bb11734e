"""A token bucket: the one limiter of rates, of addresses, of a party's frames, and of what the SDK sends.

A bucket holds up to `burst` tokens and gains `per_s` tokens each second. Each thing that is limited takes one token.
The caller gives the time, by any clock that never runs backwards, and refills the bucket before it takes.
"""


class TokenBucket:
    """See the module. A new bucket is full."""

    __slots__ = ("at", "burst", "per_s", "tokens")

    def __init__(self, per_s: float, burst: float, now: float) -> None:
        """`per_s` is above 0, in tokens each second, and `burst` at least 1, in tokens; `now` is in seconds."""
        self.per_s = per_s
        """May be changed between a refill and the next; the next one reckons with it."""
        self.burst = burst
        """May be changed as `per_s`."""
        self.tokens = float(burst)
        self.at = now
        """When the bucket was last refilled (seconds)."""

    def refill(self, now: float, owed_s: float = 0.0) -> None:
        """Add what was gained since the last refill.

        When the process itself has paused for `owed_s` seconds, the bucket may hold so much more than `burst`. The holder has
        sent evenly meanwhile, and all of it arrives at once.
        """
        self.tokens = min(self.burst + owed_s * self.per_s, self.tokens + (now - self.at) * self.per_s)
        self.at = now

    def take(self) -> bool:
        """Take one token; False when there is none, and nothing is taken."""
        if self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True

    @property
    def wait_s(self) -> float:
        """Seconds from the last refill until there is a token to take; not above 0 when there is one now."""
        return (1.0 - self.tokens) / self.per_s

    def is_full(self, now: float) -> bool:
        """Tell whether a refill at `now` would fill the bucket: a full one carries no memory and may be forgotten."""
        return self.tokens + (now - self.at) * self.per_s >= self.burst
