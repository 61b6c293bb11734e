"""Places for transfers of blobs, bounded in all and for each holder: none takes the places of all others."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

Full = Literal["share", "busy"]
"""What is full: the places of a holder, or all of them."""


class NoPlace(Exception):
    """There is no place now."""

    def __init__(self, full: Full) -> None:
        super().__init__(full)
        self.full = full


class Shares:
    """See the module. A transfer may count for several holders: a principal, and an address."""

    def __init__(self) -> None:
        self.taken = 0
        """Places held now."""
        self._held: Counter[str] = Counter()

    @contextmanager
    def place(self, places_max: int, shares: Mapping[str, int]) -> Iterator[None]:
        """Hold a place within the block. `shares` has for each holder how many it may have, this one included. Raises NoPlace.

        The share is judged first: a holder that has too many is told so, and not that the node is busy.
        """
        if any(self._held[holder] >= most for holder, most in shares.items()):
            raise NoPlace("share")
        if self.taken >= places_max:
            raise NoPlace("busy")
        self.taken += 1
        self._held.update(dict.fromkeys(shares, 1))
        try:
            yield
        finally:
            self.taken -= 1
            self._held.subtract(dict.fromkeys(shares, 1))
            for holder in shares:
                if not self._held[holder]:
                    del self._held[holder]

    def __len__(self) -> int:
        """How many holders have places."""
        return len(self._held)
