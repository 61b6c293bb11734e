"""The keys that credentials are verified with: one key, the JWK set of a file, or the set that an issuer publishes at a URL.

A remote set is passive here: `jwks.JwksFetcher` fills it. Its answers are chosen so that a dead or lying issuer hurts no known party:
the last good set goes on, and where it cannot be told whether a token holds, the party comes again (`KeysAway`) instead of
giving up.
"""

from contextlib import suppress
from typing import Any, Protocol

import attrs
import jwt
import trio

from signald.core.jwks import KID_CHARS_MAX, BadKeySet, Key, KeySet, parse

ASKED_MAX = 1000
"""Unknown `kid`s that are remembered: as many keys as no issuer has. A flood of others pushes an honest one out, which is then asked
for again."""


class KeysAway(Exception):
    """No usable key set is here, or none that is new enough to judge this token: close 1013, HTTP 503."""

    def __init__(self) -> None:
        super().__init__("the keys that credentials are verified with are not here; come again")


class Keys(Protocol):
    """Finds the key of a token."""

    def find(self, bearer: str, now: float) -> Key | None:
        """Return the key that `bearer` must be signed with; None: the token holds in no case. `now`: seconds since 1970.

        Raises:
            KeysAway: it cannot be told now.
            jwt.PyJWTError, ValueError, TypeError, RecursionError: `bearer` is no token.
        """


@attrs.frozen
class OneKey:
    """A shared secret or a public key; a token's `kid` does not count."""

    key: Key

    def find(self, _bearer: str, _now: float) -> Key | None:
        """See `Keys`."""
        return self.key


@attrs.frozen
class FileKeys:
    """The set of a file. A reload reads it again."""

    keys: KeySet

    def find(self, bearer: str, _now: float) -> Key | None:
        """See `Keys`."""
        return self.keys.find(*named(bearer))


class RemoteKeys:
    """The set at a URL: the last good one, how long it counts, and which unknown keys were asked for.

    An unknown `kid` is asked for once: it sets `wanted`, and until a fetch that begins afterwards has succeeded the answer is
    `KeysAway`. If the key is not in that set either, its tokens hold in no case.
    """

    def __init__(self, url: str, allowed: tuple[str, ...]) -> None:
        """`allowed` are the algorithms that the operator permits, as `core.jwks.parse` takes them."""
        self.url = url
        self.allowed = allowed
        self.keys: KeySet | None = None
        self.body = b""
        """The bytes of `keys`."""
        self.fetched_at = 0.0
        """When `keys` were fetched, in seconds since 1970."""
        self.good_until = 0.0
        """When `keys` count no more because no fetch has succeeded for too long."""
        self.first = trio.Event()
        """Set with the first set."""
        self.wanted = trio.Event()
        """Set, and replaced by the fetcher, when a fetch is asked for."""
        self._begun = 0
        self._finished = 0
        self._asked: dict[str, int] = {}
        """Unknown `kid` → how many fetches had begun when it was first asked for; the oldest first."""

    def find(self, bearer: str, now: float) -> Key | None:
        """See `Keys`."""
        kid, algorithm = named(bearer)
        if self.keys is None or not self.usable(now):
            raise KeysAway
        if kid is None or self.keys.knows(kid):
            return self.keys.find(kid, algorithm)
        if len(kid) > KID_CHARS_MAX:
            return None
        asked = self._asked.get(kid)
        if asked is None:
            while len(self._asked) >= ASKED_MAX:
                del self._asked[next(iter(self._asked))]
            asked = self._asked[kid] = self._begun
        if self._finished > asked:
            return None
        self.wanted.set()
        raise KeysAway

    def usable(self, now: float) -> bool:
        """Tell whether there is a set, and it counts still."""
        return self.keys is not None and now < self.good_until

    def following(self, before: "RemoteKeys") -> "RemoteKeys":
        """Return the set to go on with after a reload: that of `before`, if it is of the same URL."""
        if self.url != before.url:
            return self
        if self.allowed == before.allowed:
            return before
        with suppress(BadKeySet):  # no key of the set goes with the algorithms that are allowed now
            keys = parse(before.body, self.allowed)
            self.adopt(self.begin(), before.body, keys, before.fetched_at, before.good_until)
        return self

    def begin(self) -> int:
        """A fetch begins; return its number."""
        self._begun += 1
        return self._begun

    def adopt(self, number: int, body: bytes, keys: KeySet, now: float, good_until: float) -> None:
        """Fetch `number` has brought `keys`."""
        self._finished = number
        self.recall(body, keys, now, good_until)

    def recall(self, body: bytes, keys: KeySet, fetched_at: float, good_until: float) -> None:
        """Go on with a set that another node has fetched. It judges no unknown `kid`: the issuer has not been asked."""
        self.body, self.keys, self.fetched_at, self.good_until = body, keys, fetched_at, good_until
        self.first.set()

    def forget_asked(self) -> None:
        """Ask for every unknown `kid` anew: an issuer may sign with a key before it publishes the key."""
        self._asked.clear()


def named(bearer: str) -> tuple[str | None, str]:
    """Return what the header of a token says of its key: `kid` and `alg`. Raises as `Keys.find` for no token."""
    header: dict[str, Any] = jwt.get_unverified_header(bearer)
    kid, algorithm = header.get("kid"), header.get("alg")
    if not isinstance(algorithm, str) or not (kid is None or isinstance(kid, str)):
        raise TypeError("not a header of a token")
    return kid, algorithm
