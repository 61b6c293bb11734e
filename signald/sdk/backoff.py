"""When and where to connect next: full jitter, server hints, and an ordered list of URLs.

A delay is `rand(0, min(cap, base * 2^n))`, from the first try on, because thousands of parties may lose a node together. They
must not come back together. `n` returns to zero only when a connection was *usable*: its opening message was answered.
Otherwise a node that accepts TCP and then fails would be hammered. A hint of the service (`retry_after_ms`) replaces the
schedule, with a little jitter on top.
"""

import json
import re
from collections.abc import Sequence
from urllib.parse import urlsplit, urlunsplit

from attrs import frozen

from signald.ids import Entropy
from signald.wire.close_codes import CloseCode


@frozen
class Health:
    """A node's health page, asked for before each reconnection, but for a move by a goaway: then a successor is ready."""

    path: str = "/deepstream/health"
    """At the host of the URL that is to be dialled."""
    interval_s: float = 30.0
    """Between two questions while the answer is none, or one that says that the node shuts down: a failed try each."""
    timeout_s: float = 5.0


@frozen
class Backoff:
    """The waits between connections. The defaults bring a party back at once after a plain break of its connection."""

    base_s: float = 0.25
    cap_s: float = 20.0
    going_away_s: float = 5.0
    """After close 1001 that no goaway announced."""
    refused_s: float = 10.0
    """After close 1013 that carries no `retry_after_ms`."""
    hint_jitter: float = 0.25
    """A hint of N ms is waited for N to N * (1 + hint_jitter), at most a second more."""
    tries_max: int | None = None
    """Failed tries in a row after which the party gives up; None: it never gives up by itself."""
    health: Health | None = None
    """None: the handshake itself tells whether the node takes parties."""

    @classmethod
    def patient(cls) -> "Backoff":
        """Exponential from 1 s to 30 s and ten tries: for parties without a waiting user."""
        return cls(base_s=1.0, cap_s=30.0, tries_max=10)

    @classmethod
    def device(cls, health: Health | None = None) -> "Backoff":
        """As `patient`, up to 60 s: for fleets of devices."""
        return cls(base_s=1.0, cap_s=60.0, tries_max=10, health=health)

    def delay_s(self, tries: int, entropy: Entropy) -> float:
        """Return the wait before try number `tries` (from 0), in seconds."""
        # 2**63 is far above any cap; an unbounded exponent would overflow a float after a week of trying.
        return entropy.uniform(0.0, min(self.cap_s, self.base_s * 2.0 ** min(tries, 63)))

    def hinted_s(self, hint_s: float, entropy: Entropy) -> float:
        """Return the wait that obeys a server's hint of `hint_s` seconds."""
        return hint_s + entropy.uniform(0.0, min(1.0, hint_s * self.hint_jitter))


_VISIBLE = re.compile("[!-~]+")

DEFAULT_BACKOFF = Backoff()

HINT_MAX_S = 3600.0
"""The longest hint that is obeyed. A longer one, by a wrong number, would as good as lose the party; it asks again after an hour."""

STEADY_S, QUICK_MAX = 5.0, 3
"""A connection that is usable for less than so many seconds is a quick one. An honest party may be cut, told to go and cut again.
Further quick ones in a row wait like failures, or a service that answers and then breaks every connection would keep it busy."""


def hint_ms(reason: str) -> int | None:
    """Return `retry_after_ms` of a close reason such as `{"retry_after_ms":500}`, or None."""
    if not reason.startswith("{"):
        return None
    try:
        hint = json.loads(reason).get("retry_after_ms")
    except (ValueError, RecursionError):
        return None
    if not isinstance(hint, int) or isinstance(hint, bool) or hint < 0:
        return None
    return hint


def endpoint(url: str, path: str) -> str:
    """Return `url` with `path` when it names no path of its own.

    Raises:
        ValueError: not a ws: or wss: URL with a host, or one that carries a query (a token would end up in logs).
    """
    parts = urlsplit(url)
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise ValueError(f"not a ws:// or wss:// URL: {url!r}")
    if parts.query or parts.fragment:
        raise ValueError("a URL of signald has no query and no fragment")
    if not _VISIBLE.fullmatch(parts.netloc + parts.path) or parts.port == 0:  # `port` raises ValueError by itself
        raise ValueError("a URL of signald is visible ASCII, and its port is from 1 to 65535")
    try:
        # wsproto writes the Host header like this; a name it cannot write would come out of the dial as another error.
        parts.netloc.rpartition("@")[2].encode("idna")
    except UnicodeError:
        raise ValueError(f"the host in {url!r} is no name: a label is empty or longer than 63 characters") from None
    return urlunsplit((parts.scheme, parts.netloc, parts.path if parts.path.strip("/") else path, "", ""))


def without_login(url: str) -> str:
    """Return `url` as it may be shown: a user's name and password before its host are left out."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


MOVE_REST_S, MOVES_MAX = 1.0, 120
"""The wait before a goaway is followed, when the connections before were quick ones. A second is far below the time that a node grants
for a move, and the old connection serves meanwhile. So a hundred deploys in quick succession cost nothing. After so many quick moves
in a row the waits grow like those after failures: a service that says goaway without end is no deploy."""


class Schedule:
    """The next attempt: its time and its URL."""

    def __init__(self, urls: Sequence[str], path: str, backoff: Backoff, entropy: Entropy) -> None:
        if not urls:
            raise ValueError("no URL to connect to")
        self._path = path
        self._urls = [endpoint(url, path) for url in urls]
        self._backoff = backoff
        self._entropy = entropy
        self._index = 0
        self._target: str | None = None
        self._target_until = 0.0
        self.tries = 0
        """Failed tries since the last usable session."""
        self.at = float("-inf")
        """The next attempt is not made before this time."""
        self._usable_at = float("-inf")
        self._quick = 0
        """Connections in a row that were of use for less than `STEADY_S` and ended unannounced."""
        self._quick_moves = 0
        """Connections in a row that were of use for less than `STEADY_S` until their goaway."""
        self._rest_until = float("-inf")
        """A move that a goaway asked for is not begun before this time."""

    @property
    def urls(self) -> frozenset[str]:
        """The URLs that the owner of the party has given."""
        return frozenset(self._urls)

    def url(self, now: float) -> str:
        """Return where the next attempt goes."""
        if self._target is not None and now < self._target_until:
            return self._target
        return self._urls[self._index]

    @property
    def health(self) -> Health | None:
        """The page that is asked for first."""
        return self._backoff.health

    @property
    def exhausted(self) -> bool:
        """The party has tried as often as its owner allows."""
        return self._backoff.tries_max is not None and self.tries >= self._backoff.tries_max

    def moving(self, now: float, not_before_s: float, deadline_s: float, target: str | None) -> None:
        """Follow a goaway: connect again, at the target first, at the earliest after `not_before_s`."""
        self._quick_moves = self._quick_moves + 1 if now - self._usable_at < STEADY_S else 0
        self._rest_until = now + self._move_rest_s()
        self.at = max(now + not_before_s, self._rest_until)
        self.tries = 0
        self._target = self._resolve(target) if target else None
        self._target_until = now + deadline_s
        # Without a target the node that goes away is the one URL that is certainly wrong, if there is another.
        self._index = (self._index + 1) % len(self._urls) if target is None else 0

    def _resolve(self, target: str) -> str | None:
        current = urlsplit(self._urls[self._index])
        try:
            return endpoint(target if "://" in target else f"{current.scheme}://{target}", self._path)
        except ValueError:
            return None  # a hint that cannot be followed is no hint

    def broken(self, now: float, code: int | None, reason: str, *, announced: bool) -> None:
        """A usable connection ended; `announced`: after a goaway, so nothing has to be waited for."""
        hint = hint_ms(reason)
        if hint is not None:
            self.at = now + self._hinted_s(hint)
        elif announced:
            self.at = max(now, self.at) if self.tries else now
        else:
            self.at = now + self._wait_s(code)
        self.at = max(self.at, self._rest_until if announced else now + self._rest_s(now))
        if not announced:
            self._index = 0

    def anew(self, now: float) -> None:
        """Begin again at once, because there is nothing to resume."""
        before = self._quick
        self.at = now + self._rest_s(now)
        self._quick = max(self._quick, before)  # that a resume is refused shows no steady connection

    def _rest_s(self, now: float) -> float:
        """Return how long to wait because the connection that is to be replaced was a quick one, like those before it."""
        self._quick = self._quick + 1 if now - self._usable_at < STEADY_S else 0
        return self._backoff.delay_s(self._quick - QUICK_MAX, self._entropy) if self._quick >= QUICK_MAX else 0.0

    def _move_rest_s(self) -> float:
        if self._quick_moves < QUICK_MAX:
            return 0.0
        if self._quick_moves < MOVES_MAX:
            return MOVE_REST_S
        return self._backoff.delay_s(self._quick_moves - MOVES_MAX, self._entropy)

    def _hinted_s(self, hint: int) -> float:
        hint_s = min(max(hint, 0) / 1000, HINT_MAX_S)
        wait_s = self._backoff.hinted_s(hint_s, self._entropy)
        # A hint to come at once is none: failures in a row keep their growing waits.
        return (
            wait_s if hint_s >= self._backoff.base_s else max(wait_s, self._backoff.delay_s(self.tries, self._entropy))
        )

    def failed(self, now: float, code: int | None, hint: int | None) -> None:
        """An attempt brought no usable session; `hint` is in milliseconds."""
        if self._target is not None:
            # After a failure the hinted target is forgotten: back to the configured URLs, in order, at once.
            self._target = None
            self._index = 0
            self.tries += 1
            self.at = now + self._entropy.uniform(0.0, min(0.05, self._backoff.base_s))
            return
        self.at = now + (self._hinted_s(hint) if hint is not None else self._wait_s(code))
        self.tries += 1
        self._index = (self._index + 1) % len(self._urls)

    def _wait_s(self, code: int | None) -> float:
        if code == CloseCode.GOING_AWAY:
            return self._backoff.hinted_s(self._backoff.going_away_s, self._entropy)
        if code == CloseCode.REFUSED:
            return self._backoff.hinted_s(self._backoff.refused_s, self._entropy)
        # The exponent grows once per round through the list: the second URL is not punished for the first.
        return self._backoff.delay_s(self.tries // len(self._urls), self._entropy)

    def usable(self, now: float = float("-inf")) -> None:
        """Reset the count, because an opening message was answered. Without `now` the connection counts as no quick one."""
        self._usable_at = now
        self.tries = 0
        self._target = None
