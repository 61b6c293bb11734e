"""Who may come in now. It refuses and says when to ask again; it never throws anybody out.

Three questions, asked in this order: is there room for one more handshake (before a byte is read), may this address
connect so often (when the request is known, because a proxy may speak for the address), and is there room for one more
connection. After the handshake `SetupGate` bounds how many parties are being set up against the store at once, and
keeps a share of that for parties that resume: after a crash they come all together, and new ones can wait.

Nothing here does I/O; `now` is the caller's clock.
"""

import ipaddress

import attrs

from signald.ids import Entropy
from signald.net.settings import NetSettings

BUCKETS_MAX = 65536
"""Addresses remembered at once. Beyond it, addresses not yet known share one bucket until full buckets are forgotten."""

FORGET_INTERVAL_S = 1.0
"""Going through all buckets takes milliseconds, so strangers must not be able to cause it at will."""


@attrs.frozen
class Refusal:
    """Not now: an HTTP status to answer with, and when to come again (0: do not)."""

    status: int
    reason: str
    retry_after_ms: int = 0


@attrs.define
class _Bucket:
    tokens: float
    at: float


class Admission:
    """Counts handshakes and connections of one node, and the rate of each remote address."""

    def __init__(self, settings: NetSettings, *, entropy: Entropy) -> None:
        """Start empty. `entropy` spreads the retry hints, so that the refused do not come back as one."""
        self.settings = settings
        """Replaced when the configuration is reloaded."""
        self._entropy = entropy
        self._buckets: dict[str, _Bucket] = {}
        self._forgot_at = float("-inf")
        self.handshakes = 0
        """Handshakes in progress."""
        self.connections = 0
        """Connections that are open."""
        self.refused = 0
        """How many were refused since the start."""

    def retry_after_ms(self) -> int:
        """Return a hint between one and two times the configured one."""
        return round(self.settings.retry_after_ms * self._entropy.uniform(1.0, 2.0))

    def begin_handshake(self) -> bool:
        """Take a place among the handshakes in progress; give it back with `end_handshake`. False: there is none."""
        if self.handshakes >= self.settings.handshakes_in_progress_max:
            self.refused += 1
            return False
        self.handshakes += 1
        return True

    def end_handshake(self) -> None:
        """Give the place back."""
        self.handshakes -= 1

    def begin_connection(self, remote: str, now: float) -> Refusal | None:
        """Take a place among the connections; give it back with `end_connection`, unless a refusal is returned."""
        if self.connections >= self.settings.connections_max:
            self.refused += 1
            return Refusal(503, "too many connections", self.retry_after_ms())
        if not self._allowed(remote, now):
            self.refused += 1
            return Refusal(429, "too many connects from this address", self.retry_after_ms())
        self.connections += 1
        return None

    def end_connection(self) -> None:
        """Give the place back."""
        self.connections -= 1

    def _allowed(self, remote: str, now: float) -> bool:
        rate, burst = self.settings.connects_per_s, self.settings.connects_burst
        if rate <= 0:
            return True
        key = _network(remote)
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= BUCKETS_MAX and now - self._forgot_at >= FORGET_INTERVAL_S:
                self._forgot_at = now
                self._forget_full_buckets(now)
            if len(self._buckets) >= BUCKETS_MAX:
                key = ""  # the one that all strangers share
                bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = _Bucket(float(burst), now)
        bucket.tokens = min(burst, bucket.tokens + (now - bucket.at) * rate)
        bucket.at = now
        if bucket.tokens < 1.0:
            return False
        bucket.tokens -= 1.0
        return True

    def _forget_full_buckets(self, now: float) -> None:
        rate, burst = self.settings.connects_per_s, self.settings.connects_burst
        self._buckets = {
            key: bucket for key, bucket in self._buckets.items() if bucket.tokens + (now - bucket.at) * rate < burst
        }


def _network(remote: str) -> str:
    """Return what one subscriber holds: an IPv4 address, or an IPv6 /64."""
    if ":" not in remote:
        return remote
    try:
        return str(ipaddress.IPv6Network((remote.partition("%")[0], 64), strict=False))
    except ValueError:
        return remote


class SetupGate:
    """Bounds the parties being set up (authenticated, claimed, replayed to) at once on this node.

    New parties may fill only what is not reserved for resumes; resumes may fill everything.
    """

    def __init__(self, settings: NetSettings, *, entropy: Entropy) -> None:
        """Start empty; `entropy` spreads the retry hints."""
        self.renew(settings)
        self._entropy = entropy
        self.in_progress = 0

    def renew(self, settings: NetSettings) -> None:
        """Judge by other settings from now on; who has a place keeps it."""
        self._resume_max = settings.setups_in_progress_max
        # At least one, or a share of 1.0 would lock new parties out for ever.
        self._new_max = max(1, round(settings.setups_in_progress_max * (1.0 - settings.resume_reserved_share)))
        self._retry_after_ms = settings.retry_after_ms

    def enter(self, *, resume: bool) -> int:
        """Take a place and return 0, to be given back with `leave`; or return in how many ms to try again."""
        if self.in_progress >= (self._resume_max if resume else self._new_max):
            return max(1, round(self._retry_after_ms * self._entropy.uniform(1.0, 2.0)))
        self.in_progress += 1
        return 0

    def leave(self) -> None:
        """Give the place back."""
        self.in_progress -= 1
