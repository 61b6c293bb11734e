"""Values under an older key, or none, are sealed anew: what a store tells of it while it goes through what it keeps.

A store reads its values page by page, opens them, seals them under the key that seals, and exchanges each where it still is what was
read. So parties write as they like meanwhile, and a pass that was cut is begun anew: it finds less to do.
"""

from collections.abc import AsyncGenerator
from typing import Protocol

from msgspec import Struct

from signald.store.base import Store
from signald.store.seals import Seals

PAGE = 64
"""Values that are read at once, and exchanged in one step: 4 MiB of the largest messages, some milliseconds of the store."""


class Page(Struct):
    """What became of some values."""

    read: int = 0
    current: int = 0
    """Under the key that seals already."""
    exchanged: int = 0
    missed: int = 0
    """Changed by others since they were read; the next pass meets them where they are still there."""
    unreadable: int = 0
    """They do not open, or are damaged. They stay as they are."""

    def add(self, other: "Page") -> None:
        """Count those of `other` as well."""
        self.read += other.read
        self.current += other.current
        self.exchanged += other.exchanged
        self.missed += other.missed
        self.unreadable += other.unreadable

    @property
    def clean(self) -> bool:
        """True when no value was left under another key, but for those that do not open."""
        return not self.exchanged and not self.missed


class Resealable(Protocol):
    """A store whose values may be sealed."""

    seals: Seals

    def reseal(self) -> AsyncGenerator[Page, None]:
        """Go once through all that is kept, page by page. The keys of one aggregate do not come together.

        Raises StoreUnavailable: the pass is void, and has to be begun anew.
        """


def resealable(store: Store) -> Resealable | None:
    """Return `store` where it can reseal; None of one that keeps nothing beyond its process."""
    found: Resealable | None = store if hasattr(store, "reseal") else None  # type: ignore[assignment]
    return found
