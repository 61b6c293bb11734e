"""Places that peers hold before they are known: when all are taken, the oldest silent peer gives way to a newcomer.

A place costs its peer nothing but a connection, so a peer with many connections could take all of them. Three rules
keep places free for others, in this order:

1. A peer that has sent nothing for `SILENT_AFTER_S` gives way; first that of the holder with the most silent places.
2. Otherwise the holder with the most places gives way, if it has more than the newcomer's holder will have.
3. Otherwise a silent peer gives way, however new it is. When none is silent, the newcomer is refused.

A holder is an address or an IPv6 /64. Peers behind a trusted proxy share one holder until the request names the address.

The memory of all holders together has a budget as well. Beyond it the largest place of the largest holder gives way.

Nothing here does I/O; `now` is the caller's clock.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heapreplace

import attrs

SILENT_AFTER_S = 1.0
"""A peer that has a request sends it with its first round trip, or after two more with TLS: below a second on any network.
A flood of 4,000 connects per second is needed to replace all default places within it."""

BUDGET_RELIEF = 0.125
"""Part of the memory budget that is freed at once, so that looking for the largest costs little per byte received."""


@attrs.define(eq=False)
class Place:
    """One peer's place. Equal only to itself."""

    holder: str
    since: float
    give_up: Callable[[], None] = attrs.field(repr=False)
    """Ends the peer's connection. Called at most once, and never by the peer's own task."""
    talking: bool = False
    """True once the peer has sent a byte."""
    bytes: int = 0
    """Memory that the peer makes the node hold: bytes that it has sent and that cannot be used yet."""
    held: bool = True


class Ranking:
    """Holders by their number of places; finding the largest and each change cost the same for any number."""

    def __init__(self) -> None:
        self.places: dict[str, dict[Place, None]] = {}
        self._by_count: list[dict[str, None]] = [{}]

    def add(self, place: Place) -> None:
        """Add `place` as the newest of its holder."""
        places = self.places.setdefault(place.holder, {})
        self._move(place.holder, len(places), len(places) + 1)
        places[place] = None

    def remove(self, place: Place) -> None:
        """Remove `place`, which is there."""
        places = self.places[place.holder]
        del places[place]
        self._move(place.holder, len(places) + 1, len(places))
        if not places:
            del self.places[place.holder]

    def refresh(self, place: Place) -> None:
        """Make `place` the newest of its holder."""
        places = self.places[place.holder]
        del places[place]
        places[place] = None

    def count(self, holder: str) -> int:
        """Return how many places `holder` has."""
        return len(self.places.get(holder, ()))

    def largest(self) -> str | None:
        """Return the holder with the most places; of several, the one that has had as many for the longest time."""
        return next(iter(self._by_count[-1]), None)

    def _move(self, holder: str, before: int, after: int) -> None:
        self._by_count[before].pop(holder, None)
        if after:
            if after == len(self._by_count):
                self._by_count.append({})
            self._by_count[after][holder] = None
        while len(self._by_count) > 1 and not self._by_count[-1]:
            self._by_count.pop()


class MemoryBudget:
    """The bytes that unknown peers make the node hold, over all stages."""

    def __init__(self) -> None:
        self.bytes = 0
        """Held now."""
        self.evicted = 0
        """Peers that gave way to keep the budget, since the start."""
        self.stages: list[Places] = []

    def relieve(self, bytes_max: int) -> None:
        """When the budget is spent, end the largest places of the largest holder, and so on, until an eighth is free."""
        if self.bytes <= bytes_max:
            return
        sums: Counter[str] = Counter()
        held: dict[str, list[tuple[Places, Place]]] = {}
        for stage in self.stages:
            for place in stage:
                if place.bytes:
                    sums[place.holder] += place.bytes
                    held.setdefault(place.holder, []).append((stage, place))
        for places in held.values():
            places.reverse()
            places.sort(key=lambda one: one[1].bytes)  # the largest last, and of equal ones the oldest
        ranked = [(-size, holder) for holder, size in sums.items()]
        heapify(ranked)
        aim = bytes_max * (1.0 - BUDGET_RELIEF)
        while self.bytes > aim and ranked:
            size, holder = ranked[0]
            stage, place = held[holder].pop()
            size += place.bytes
            self.evicted += 1
            stage.end(place)
            if held[holder]:
                heapreplace(ranked, (size, holder))
            else:
                heappop(ranked)


class Places:
    """The places of one stage. Each taken place is given back with `leave`, also after it gave way."""

    def __init__(self, budget: MemoryBudget | None = None, *, always: bool = False) -> None:
        """Start empty; the bytes of these places count in `budget`.

        With `always` a newcomer is never refused: when every peer may keep its place, the largest holder's peer that is
        longest without progress gives way. This suits peers that need one short answer.
        """
        self._always = always
        self._all = Ranking()
        self._silent = Ranking()
        self._budget = budget if budget is not None else MemoryBudget()
        self._budget.stages.append(self)
        self.taken = 0
        """Places held now."""
        self.evicted = 0
        """Peers that gave way to a newcomer, since the start."""

    def __iter__(self) -> Iterator[Place]:
        """Go through all places."""
        for places in self._all.places.values():
            yield from places

    def take(self, holder: str, now: float, limit: int, give_up: Callable[[], None]) -> Place | None:
        """Return a place for a newcomer, or None when every place of `limit` is held by a peer that may keep it."""
        while self.taken >= limit:
            victim = self._victim(holder, now)
            if victim is None:
                return None
            self.evicted += 1
            self.end(victim)
        place = Place(holder, now, give_up)
        self.taken += 1
        self._all.add(place)
        self._silent.add(place)
        return place

    def heard(self, place: Place, held_bytes: int) -> None:
        """Note that the peer has sent bytes, and makes the node hold `held_bytes` now."""
        if not place.held:
            return
        if not place.talking:
            place.talking = True
            self._silent.remove(place)
        self._all.refresh(place)
        self._budget.bytes += held_bytes - place.bytes
        place.bytes = held_bytes

    def quiet(self, place: Place, now: float) -> None:
        """Note that the peer has had its answer: it is silent again from `now` on."""
        if place.held and place.talking:
            place.talking, place.since = False, now
            self._silent.add(place)

    def rename(self, place: Place, holder: str) -> None:
        """Count the place for another `holder` from now on: a proxy sends the requests of several clients on one connection."""
        if not place.held or place.holder == holder:
            return
        rankings = (self._all,) if place.talking else (self._all, self._silent)
        for ranking in rankings:
            ranking.remove(place)
        place.holder = holder
        for ranking in rankings:
            ranking.add(place)

    def leave(self, place: Place) -> None:
        """Give the place back, if the peer still holds it."""
        if not place.held:
            return
        place.held = False
        self.taken -= 1
        self._all.remove(place)
        if not place.talking:
            self._silent.remove(place)
        self._budget.bytes -= place.bytes
        place.bytes = 0

    def end(self, place: Place) -> None:
        """Let the peer give way."""
        self.leave(place)
        place.give_up()

    def _victim(self, holder: str, now: float) -> Place | None:
        silent = self._oldest(self._silent, self._silent.largest())
        if silent is not None and now - silent.since >= SILENT_AFTER_S:
            return silent
        largest = self._all.largest()
        if largest is not None and self._all.count(largest) > self._all.count(holder) + 1:
            own = self._oldest(self._silent, largest)
            return own if own is not None else self._oldest(self._all, largest)
        return self._oldest(self._all, largest) if silent is None and self._always else silent

    @staticmethod
    def _oldest(ranking: Ranking, holder: str | None) -> Place | None:
        return next(iter(ranking.places.get(holder, ())), None) if holder is not None else None
