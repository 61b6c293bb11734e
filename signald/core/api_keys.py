"""The keys that sign API tokens: made by the first node, kept in the store, replaced in turn.

Theory of operation. The cluster has one key, and two while it rotates. A new key is *announced*: it signs from `LEAD_MS` later on.
Every node reads the keys several times within that time (`READ_EVERY_S`), so each knows a key before any node signs with it. The key
before stays until each token that it can have signed has run out. Therefore a rotation refuses no token.

Each node says which keys it knows when it reads. A store that has lost them has them back with the first node that asks.
"""

import base64
import hashlib
import hmac
from collections.abc import Iterable
from typing import Annotated

from msgspec import Meta, Struct

SECRET_BYTES = 32

LEAD_MS = 60_000
"""From the announcement of a key to its first signature. Within it a node that reads every `READ_EVERY_S` reads three times."""

READ_EVERY_S = 20.0
"""Between two readings of the keys by one node: a third of `LEAD_MS`, so that one lost reading, and a late one, cost nothing."""

AHEAD_MAX_MS = 2 * LEAD_MS
"""A key that would sign later than this was announced before the store's clock was set back."""

KEYS_MAX = 4
"""Keys that are kept. A rotation has two; more come together only when a store that had lost its keys is given back others."""

_TIME_MAX = 2**53


class ApiKey(Struct, frozen=True, array_like=True, gc=False):
    """A secret, and from when on it signs. Its text forms show no secret."""

    signs_from_ms: Annotated[int, Meta(ge=0, lt=_TIME_MAX)]
    """Since 1970, by the clock of the store."""
    life_ms: Annotated[int, Meta(ge=0, lt=_TIME_MAX)]
    """The longest life of a token that it may have signed."""
    secret: Annotated[bytes, Meta(min_length=SECRET_BYTES, max_length=SECRET_BYTES)]

    def __repr__(self) -> str:
        return f"ApiKey({kid_of(self.secret)}, signs_from_ms={self.signs_from_ms}, life_ms={self.life_ms})"


def kid_of(secret: bytes) -> str:
    """Return the id of a key: a digest, from which nothing of the key can be learnt."""
    digest = hmac.digest(secret, b"signald api token: id", hashlib.sha256)
    return base64.urlsafe_b64encode(digest[:9]).decode()


def signing_key(secret: bytes) -> bytes:
    """Return what tokens are signed with: a text that is a secret elsewhere too signs nothing that could pass there."""
    return hmac.digest(secret, b"signald api token: signature", hashlib.sha256)


def renewed(
    kept: Iterable[ApiKey], known: Iterable[ApiKey], candidate: bytes, now_ms: int, rotate_ms: int, life_ms: int
) -> tuple[ApiKey, ...]:
    """Return the keys after one reading by a node, in order of their first signature. Repeating it changes nothing more.

    `kept` are those of the store and `known` those of the node, which lets its tokens live for `life_ms`. `candidate` is what it has
    drawn for a new key (empty: it makes none). It becomes a key when there is none, or when the only one has signed for `rotate_ms`.
    """
    by_secret = {key.secret: key for key in (*known, *kept)}
    if not by_secret:
        return (ApiKey(now_ms, life_ms, candidate),) if candidate else ()
    order = {key.secret: key for key in (*kept, *known)}
    keys = [_after_set_back(by_secret[secret], now_ms) for secret in order]
    keys.sort(key=lambda key: key.signs_from_ms)  # stable: those of the store first, among equals
    newest = keys[-1]
    keys[-1] = ApiKey(newest.signs_from_ms, max(newest.life_ms, life_ms), newest.secret)
    for place in range(len(keys) - 2, -1, -1):
        if keys[place + 1].signs_from_ms + keys[place].life_ms + LEAD_MS <= now_ms:
            del keys[place]
    if candidate and len(keys) == 1 and now_ms - keys[0].signs_from_ms >= rotate_ms:
        keys.append(ApiKey(now_ms + LEAD_MS, life_ms, candidate))
    return tuple(keys[-KEYS_MAX:])


def _after_set_back(key: ApiKey, now_ms: int) -> ApiKey:
    if key.signs_from_ms <= now_ms + AHEAD_MAX_MS:
        return key
    return ApiKey(now_ms + LEAD_MS, key.life_ms, key.secret)


def signer(keys: Iterable[ApiKey], now_ms: int) -> ApiKey | None:
    """Return the key that signs at `now_ms`: the latest that has begun to; None without any.

    When none has begun, because the clock was set back, it is the first.
    """
    found: ApiKey | None = None
    for key in keys:
        if found is None or key.signs_from_ms <= now_ms:
            found = key
    return found
