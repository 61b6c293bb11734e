"""Admission: which connections may open now. A known party never gives way; an unknown peer may.

Three checks, in this order. Is there room for one more handshake? This is before a byte is read. May this address connect
so often? This is when the request is known, because a proxy may speak for the address. Is there room for one more
connection, in all and of this address? After the handshake `SetupGate` bounds the connections that wait for their opening
message, and the parties that are being set up at the store at once. It reserves a share of the set-ups for parties that
resume: after a crash all of them come together, and new parties can wait.

A client with a credential also has a share by its principal, of connections and of set-ups. So many addresses do not make
many parties of one. A worker's principal has none: a fleet has one subject, hundreds of connections, and a credential
that its operator issued. Its addresses bound it, as any other.

Places before a party is known are `Places`: when they are full, the oldest silent peer gives way (see there). Connections and
set-ups are never taken back, so they have a share for each address instead: `admission.address_share`.

Nothing here does I/O; `now` is the caller's clock.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import attrs

from signald.addresses import parse_address, subscriber
from signald.bucket import Buckets
from signald.ids import Entropy
from signald.net.settings import NetSettings
from signald.places import MemoryBudget, Place, Places


@attrs.frozen
class Refusal:
    """Not now: an HTTP status to answer with, and when to come again (0: do not)."""

    status: int
    reason: str
    retry_after_ms: int = 0


class Admission:
    """Counts handshakes and connections of one node, and the rate of each remote address."""

    def __init__(self, settings: NetSettings, *, entropy: Entropy, budget: MemoryBudget | None = None) -> None:
        """Start empty. `entropy` spreads the retry hints, so that the refused do not come back as one.

        The bytes of handshakes count in `budget`.
        """
        self.settings = settings
        """Replaced when the configuration is reloaded."""
        self._entropy = entropy
        self._connects = Buckets()
        self.budget = budget if budget is not None else MemoryBudget()
        self.places = Places(self.budget)
        """Handshakes in progress."""
        self.connections = 0
        """Connections that are open."""
        self._by_holder: Counter[str] = Counter()
        self.refused = dict.fromkeys(("handshakes", "connections", "address"), 0)
        """How many were refused since the start, by what was full: places for handshakes, connections in all, an address's share."""

    def retry_after_ms(self) -> int:
        """Return a hint between one and two times the configured one."""
        return round(self.settings.retry_after_ms * self._entropy.uniform(1.0, 2.0))

    @property
    def handshakes(self) -> int:
        """Handshakes in progress."""
        return self.places.taken

    def begin_handshake(self, peer: str, now: float, give_up: Callable[[], None]) -> Place | None:
        """Take a place among the handshakes in progress; give it back with `end_handshake`. None: there is none.

        When a later peer needs the place more, `give_up` is called, which must end this one.
        """
        place = self.places.take(subscriber(peer), now, self.settings.handshakes_in_progress_max, give_up)
        if place is None:
            self.refused["handshakes"] += 1
        return place

    def heard(self, place: Place, held_bytes: int) -> None:
        """The peer of `place` has sent something, and `held_bytes` of it are kept."""
        self.places.heard(place, held_bytes)
        self.budget.relieve(self.settings.strangers_bytes_max)

    def end_handshake(self, place: Place) -> None:
        """Give the place back."""
        self.places.leave(place)

    def begin_connection(self, remote: str, now: float, *, shared: bool = False, owed_s: float = 0.0) -> Refusal | None:
        """Take a place among the connections; give it back with `end_connection`, unless a refusal is returned.

        A `shared` remote is a trusted proxy that named no address: it has no share and no rate of its own. Connections that came
        while the node paused for `owed_s` are no burst.
        """
        holder = "" if shared else bearer_of_share(remote)
        refusal = None
        if self.connections >= self.settings.connections_max:
            refusal = Refusal(503, "too many connections", self.retry_after_ms())
        elif holder and self._by_holder.get(holder, 0) >= share(
            self.settings.connections_max, self.settings.address_share
        ):
            refusal = Refusal(503, "too many connections from this address", self.retry_after_ms())
        elif not shared and self._connects.take(holder or remote, *self._rate, now, owed_s):
            refusal = Refusal(429, "too many connects from this address", self.retry_after_ms())
        if refusal is not None:
            full = self.connections >= self.settings.connections_max
            self.refused["connections" if full else "address"] += 1
            return refusal
        self.connections += 1
        self._by_holder[holder] += 1
        return None

    @property
    def _rate(self) -> tuple[float, int]:
        return self.settings.connects_per_s, self.settings.connects_burst

    def end_connection(self, remote: str, *, shared: bool = False) -> None:
        """Give the place back; with the same arguments as it was taken."""
        holder = "" if shared else bearer_of_share(remote)
        self.connections -= 1
        _take_off(self._by_holder, holder)


def bearer_of_share(remote: str) -> str:
    """Return what a share is counted for: the subscriber, or "" for a remote without an address, such as a Unix socket."""
    return subscriber(remote) if parse_address(remote) is not None else ""


def share(total: int, part: float) -> int:
    """Return how many of `total` one holder may have, at least one."""
    return max(1, round(total * part))


class SetupGate:
    """Bounds the parties being set up (authenticated, claimed, replayed to) at once on this node.

    New parties may fill only what is not reserved for resumes; resumes may fill everything. Of both, one address may hold
    only its share. Before that, a connection has a place among the strangers.
    """

    def __init__(self, settings: NetSettings, *, entropy: Entropy) -> None:
        """Start empty; `entropy` spreads the retry hints."""
        self.renew(settings)
        self._entropy = entropy
        self.in_progress = 0
        self._by_holder: Counter[str] = Counter()
        self.budget = MemoryBudget()
        """The bytes that the node holds for unknown peers, in their handshakes and before they are admitted."""
        self.strangers = Places(self.budget)
        """Connections that are open and not admitted yet."""

        self.party_budget = MemoryBudget()
        """The bytes that the node holds for admitted parties, of incomplete messages."""
        self.parties = Places(self.party_budget)
        """Connections that are admitted."""
        self._clients: Counter[str] = Counter()
        """Principal → its clients' connections that are admitted."""

    def admit(self, holder: str, now: float, give_up: Callable[[], None]) -> Place:
        """Note a connection that is let in; give it back with `parties.leave`."""
        place = self.parties.take(subscriber(holder), now, sys.maxsize, give_up)
        assert place is not None, "connections are bounded before"
        return place

    def heard_party(self, place: Place, held_bytes: int) -> None:
        """The party of `place` makes the node hold `held_bytes` of a message that is not complete."""
        self.parties.heard(place, held_bytes)
        self.party_budget.relieve(self._strangers_bytes_max)

    def greet(self, holder: str, now: float, give_up: Callable[[], None]) -> Place | None:
        """Take a place for a connection that has said nothing yet; give it back with `strangers.leave`. None: there is none."""
        return self.strangers.take(subscriber(holder), now, self._strangers_max, give_up)

    def heard(self, place: Place, held_bytes: int) -> None:
        """The peer of `place` has sent something, and `held_bytes` of it are kept."""
        self.strangers.heard(place, held_bytes)
        self.budget.relieve(self._strangers_bytes_max)

    def renew(self, settings: NetSettings) -> None:
        """Apply other settings from now on; a place that was taken stays."""
        self._resume_max = settings.setups_in_progress_max
        # At least one, or a share of 1.0 would lock new parties out for ever.
        self._new_max = max(1, round(settings.setups_in_progress_max * (1.0 - settings.resume_reserved_share)))
        self._retry_after_ms = settings.retry_after_ms
        self._holder_max = share(settings.setups_in_progress_max, settings.address_share)
        self._clients_max = share(settings.connections_max, settings.address_share)
        self._strangers_max = settings.handshakes_in_progress_max
        self._strangers_bytes_max = settings.strangers_bytes_max

    def enter(self, *, resume: bool, remote: str = "", principal: str = "", replaces: bool = False) -> int:
        """Take a place and return 0, to be given back with `leave`; or return in how many ms to try again.

        `principal` is that of a client, "" for one without a credential and for a worker. A client that `replaces` its own
        connection to this node adds none.
        """
        holders = _holders(remote, principal)
        full = self.in_progress >= (self._resume_max if resume else self._new_max)
        full = full or any(self._by_holder[holder] >= self._holder_max for holder in holders)
        # Parties being set up count as well, or a crowd that connects at once would pass.
        coming = self._clients[principal] + self._by_holder[_by_principal(principal)]
        if full or (principal and not replaces and coming >= self._clients_max):
            return max(1, round(self._retry_after_ms * self._entropy.uniform(1.0, 2.0)))
        self.in_progress += 1
        self._by_holder.update(holders)
        return 0

    def leave(self, remote: str = "", principal: str = "") -> None:
        """Give the place back; with the same arguments as it was taken."""
        self.in_progress -= 1
        for holder in _holders(remote, principal):
            _take_off(self._by_holder, holder)

    @contextmanager
    def client(self, principal: str) -> Iterator[None]:
        """Within the block a client of `principal` ("": it has none) has a connection that is let in."""
        self._clients[principal] += 1
        try:
            yield
        finally:
            _take_off(self._clients, principal)


def _holders(remote: str, principal: str) -> list[str]:
    found = [bearer_of_share(remote), _by_principal(principal)]
    return [holder for holder in found if holder]


def _by_principal(principal: str) -> str:
    # No address has a space.
    return f"principal {principal}" if principal else ""


def _take_off(counts: Counter[str], holder: str) -> None:
    counts[holder] -= 1
    if not counts[holder]:
        del counts[holder]
