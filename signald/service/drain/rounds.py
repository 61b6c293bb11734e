"""The parties of a plan, some at a time: for another look at those that are waited for, should a wake-up have been lost."""

from collections.abc import Callable, Iterator
from itertools import islice

from signald.core.handover import Awaited, DrainPlan

RECHECK_S = 1.0
"""How often a round of looking again may begin."""
RECHECK_LOT = 10
"""How many of a round are looked at in one go: two hundred a second."""


class Round:
    """Looks at some parties of a plan at a time, until all have had their turn."""

    def __init__(self, of: Callable[[DrainPlan], list[Awaited]]) -> None:
        self._of = of
        self._rest: Iterator[Awaited] = iter(())
        self._began_at = -float("inf")

    def lot(self, plan: DrainPlan, now: float) -> list[Awaited]:
        """Return the next ones; a new round begins when the last is through, and not within `RECHECK_S`."""
        lot = list(islice(self._rest, RECHECK_LOT))
        if len(lot) < RECHECK_LOT and now - self._began_at > RECHECK_S:
            self._began_at = now
            self._rest = iter(self._of(plan))
        return lot
