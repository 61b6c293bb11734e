"""A token bucket: the one limiter of rates, of addresses, of a party's frames, and of what the SDK sends.

A bucket holds up to `burst` tokens and gains `per_s` tokens each second. Each thing that is limited takes one token.
The caller gives the time, by any clock that never runs backwards, and refills the bucket before it takes.

`Buckets` are those of many holders, in a bounded number.
"""

BUCKETS_MAX = 65536
"""Holders remembered at once. Beyond it, holders not yet known share one bucket until full buckets are forgotten."""

FORGET_INTERVAL_S = 1.0
"""Going through all buckets takes milliseconds, so strangers must not be able to cause it at will."""


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


class Buckets:
    """One bucket for each holder, all of one rate."""

    def __init__(self) -> None:
        self._buckets: dict[str, TokenBucket] = {}
        self._forgot_at = float("-inf")

    def __len__(self) -> int:
        """Return how many holders are remembered."""
        return len(self._buckets)

    def take(self, holder: str, per_s: float, burst: float, now: float, owed_s: float = 0.0) -> float:
        """Take one token of `holder`: return 0.0, or the seconds until there is one.

        `per_s` and `burst` hold from now on, also for buckets of an earlier rate; a `per_s` of 0 is no limit.
        """
        if per_s <= 0:
            return 0.0
        bucket = self._buckets.get(holder)
        if bucket is None:
            if len(self._buckets) >= BUCKETS_MAX and now - self._forgot_at >= FORGET_INTERVAL_S:
                self._forgot_at = now
                self._forget_full_ones(per_s, burst, now)
            if len(self._buckets) >= BUCKETS_MAX:
                holder = ""  # the one that all strangers share
                bucket = self._buckets.get(holder)
        if bucket is None:
            bucket = self._buckets[holder] = TokenBucket(per_s, burst, now)
        bucket.per_s, bucket.burst = per_s, burst
        bucket.refill(now, owed_s)
        return 0.0 if bucket.take() else max(bucket.wait_s, 0.001)

    def _forget_full_ones(self, per_s: float, burst: float, now: float) -> None:
        for bucket in self._buckets.values():
            bucket.per_s, bucket.burst = per_s, burst
        self._buckets = {key: bucket for key, bucket in self._buckets.items() if not bucket.is_full(now)}
