"""Which move of the nodes comes next, and when. It reads no clock and starts nothing: times are arguments, in seconds."""

from enum import StrEnum
from typing import Any

from attrs import define, field

EVERY_MIN_S = 3.0
"""A node takes about a second to start, and some tenths to leave: below this the strip shows one long move."""
SOON_S = 2.0
"""Before a move by itself after the visitor has started them again: he has to see that they are on."""


class Kind(StrEnum):
    """What happens to the node."""

    DEPLOY = "deploy"
    """A new release in its place, by SIGTERM."""
    ROLLBACK = "rollback"
    """The release before in its place, by SIGTERM."""
    KILL = "kill"
    """SIGKILL, and a node of the same release takes over."""


ROTA = (Kind.DEPLOY, Kind.ROLLBACK, Kind.DEPLOY, Kind.KILL)


@define(eq=False)
class Rota:
    """The moves in their order, and those that a visitor asked for in between.

    One wish waits at most: a visitor that asks again before it was granted means the last one.
    """

    every_s: float
    due: float
    """When the next move begins by itself."""
    by_itself: bool = True
    """False while a visitor has stopped the moves of the rota; wishes are still granted."""
    _next: int = 0
    _wish: Kind | None = None

    def hear(self, said: Any, now: float) -> bool:
        """Take what a page has said; return whether it means something. A page may say anything."""
        wish = said.get("do") if isinstance(said, dict) else None
        if wish in ("stop", "go"):
            if wish == "go" and not self.by_itself:
                self.due = now + SOON_S
            self.by_itself = wish == "go"
            return True
        if not isinstance(wish, str) or wish not in set(Kind):
            return False
        self._wish = Kind(wish)
        return True

    def take(self, now: float) -> Kind | None:
        """Return the move that begins now, or None."""
        if self._wish is not None:
            wish, self._wish = self._wish, None
            return wish
        if not self.by_itself or now < self.due:
            return None
        kind = ROTA[self._next % len(ROTA)]
        self._next += 1
        return kind

    def done(self, now: float) -> None:
        """A move is over: the next one comes a whole pause later."""
        self.due = now + self.every_s


@define(eq=False)
class Releases:
    """The releases that the nodes are started with: `r1` first, and which one is in service."""

    _newest: int = 1
    _served: list[int] = field(factory=lambda: [1])
    """The one in service is the last; those before it can be rolled back to."""

    @property
    def current(self) -> str:
        """The release in service."""
        return f"r{self._served[-1]}"

    def possible(self, kind: Kind) -> Kind:
        """Return `kind`, or a deploy where there is nothing to roll back to."""
        return Kind.DEPLOY if kind is Kind.ROLLBACK and len(self._served) < 2 else kind

    def move(self, kind: Kind) -> str:
        """Return the release that is in service after a move of `kind`.

        Only two are kept to roll back to, so an hour of deploys takes no more memory than the first.
        """
        if kind is Kind.DEPLOY:
            self._newest += 1
            self._served = [*self._served[-2:], self._newest]
        elif kind is Kind.ROLLBACK:
            self._served.pop()
        return self.current
