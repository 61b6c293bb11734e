"""The clock of a vector, and its randomness: both are inputs."""

import math
from typing import Any


class Clock:
    """Milliseconds since the beginning. A timer that is due between two of them goes off at the later one."""

    def __init__(self) -> None:
        self.ms = 0

    @property
    def now(self) -> float:
        """In seconds, as the cores take it."""
        return self.ms / 1000

    def next(self, timers: list[float]) -> int | None:
        """Return when the first of `timers` (seconds) goes off, behind the current millisecond; None: never."""
        first = min(timers, default=math.inf)
        if first == math.inf:
            return None
        return max(self.ms + 1, math.ceil(first * 1000 - 1e-6))


class Constant:
    """Randomness that is none: each draw gives the same share of its range."""

    def __init__(self, share: float) -> None:
        self._share = share

    def token_bytes(self, count: int, /) -> bytes:
        """Return so many zeros."""
        return bytes(count)

    def uniform(self, low: float, high: float, /) -> float:
        """Return the share of the range."""
        return low + (high - low) * self._share

    def shuffle(self, items: list[Any], /) -> None:
        """Leave them in their order."""
