"""The principal of a party: bearer tokens (JWT) verified once per connection, and the answer to an unknown one.

The messages of the two errors are constant: what exactly was wrong with a token helps an attacker more than a client.
"""

import math
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeGuard, cast, get_args

import attrs
import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from signald.config import AuthConfig, ConfigError, Problem
from signald.core.jwks import SET_BYTES_MAX, BadKeySet, Key, KeySet, UnusableKey, algorithms_of, parse
from signald.core.rooms import RIGHTS, is_room, read_patterns
from signald.core.wants import SEPARATOR
from signald.service.key_sets import FileKeys, Keys, OneKey, RemoteKeys
from signald.service.revoked import Revocations

Role = Literal["client", "worker", "service"]
"""A service is a backend that speaks over HTTP alone: no WebSocket is opened with its token."""

SCOPES = frozenset({"jobs", "sessions", "rooms", "blobs", "users"})
"""What the token of a service may name in its `scope`."""

# Far above any sensible token; parsing costs the server, so the bound stands before it.
BEARER_BYTES_MAX = 8192
TIME_MAX = 2**53
"""Seconds since 1970 beyond which a time is none."""


ROLES: tuple[Role, ...] = get_args(Role)


class Unauthenticated(Exception):
    """No valid credential: close 4401."""

    def __init__(self) -> None:
        super().__init__("no valid credential")


class Forbidden(Exception):
    """A valid credential, but not for this: close 4403."""

    def __init__(self) -> None:
        super().__init__("not allowed")


@attrs.frozen
class Principal:
    """The identity a party acts for. A session is bound to the principal that started it."""

    subject: str
    """"" for all parties, where no auth is configured."""
    role: Role
    tenant: str | None = None
    scopes: frozenset[str] | None = None
    """Of a service: which of `SCOPES` it may use; None: all."""

    @property
    def name(self) -> str:
        """What a session is bound to: the same subject in two tenants is two principals."""
        return self.subject if self.tenant is None else f"{self.tenant}{SEPARATOR}{self.subject}"


@attrs.frozen
class Verified:
    """A token that holds: its principal, and its times in seconds since 1970."""

    principal: Principal
    expires_at: float
    """Infinite for an anonymous party."""
    issued_at: float | None = None
    """None: the token does not say it."""
    claims: Mapping[str, Any] = attrs.field(factory=dict, repr=False, eq=False)
    """All that the token says, for the core server. A connected party's are forgotten."""
    rooms: Mapping[str, Sequence[str]] | None = attrs.field(default=None, eq=False)
    """Its claim `rooms`: pattern → rights. None: it has none."""


@attrs.frozen
class Authenticator:
    """Turns a bearer token into a Principal. Built once; holds the keys, which its repr does not show."""

    keys: Keys | None = attrs.field(repr=False)
    """None: all parties are anonymous."""
    issuer: str
    audience: str
    leeway_s: float
    revocations: Revocations = attrs.field(factory=Revocations, repr=False)
    """Those of the node, once it has taken this authenticator in (`following`)."""

    @classmethod
    def from_config(cls, auth: AuthConfig) -> "Authenticator":
        """Build it from a loaded configuration.

        Raises ConfigError when the public keys cannot be used with the algorithms.
        """
        keys: Keys | None = None
        if auth.jwks_url:
            keys = RemoteKeys(auth.jwks_url, auth.jwt_algorithms)
        elif auth.jwks_file:
            keys = FileKeys(_key_set(auth))
        elif auth.jwt_public_key_file:
            keys = OneKey(_public_key(auth))
        elif auth.jwt_secret:
            keys = OneKey(Key(None, auth.jwt_algorithms or ("HS256",), auth.jwt_secret.encode()))
        return cls(keys, auth.jwt_issuer, auth.jwt_audience, auth.leeway_s)

    @property
    def remote(self) -> RemoteKeys | None:
        """The key set that is fetched from a URL, if there is one."""
        return self.keys if isinstance(self.keys, RemoteKeys) else None

    def following(self, before: "Authenticator") -> "Authenticator":
        """Return this authenticator as the one after `before`: revocations and a set that was fetched from the same URL go on."""
        keys = self.keys
        if self.remote is not None and before.remote is not None:
            keys = self.remote.following(before.remote)
        return attrs.evolve(self, keys=keys, revocations=before.revocations)

    def is_away(self, now: float) -> bool:
        """Tell whether no token can be judged now, because the keys of the issuer are not here."""
        return self.remote is not None and not self.remote.usable(now)

    def identify(self, bearer: str | None, role: Role, now: float) -> Verified:
        """Return the principal of `bearer` at the endpoint of `role` as `authenticate`, with the times of its token."""
        if self.keys is None:
            return Verified(Principal("", role), math.inf)
        return self.verify(bearer, (role,), now)

    def authenticate(self, bearer: str | None, role: Role, now: float) -> Principal:
        """Return the principal of `bearer` at the endpoint of `role`; `now` is the time in seconds since the epoch.

        Raises Unauthenticated for no, a broken, an expired or a revoked token, Forbidden for a valid one of another role, KeysAway when the
        keys that it must be judged by are not here.
        """
        return self.identify(bearer, role, now).principal

    def verify(self, bearer: str | None, roles: Container[Role], now: float) -> Verified:
        """Return what `bearer` says, a token of one of `roles`. Without a key no token holds.

        A token must carry `sub`, `role` and `exp`; `nbf`, `iss` and `aud` count when present or configured. Raises as `authenticate`.
        """
        if self.keys is None or bearer is None or len(bearer) > BEARER_BYTES_MAX:
            raise Unauthenticated
        claims = self._claims(self.keys, bearer, now)
        if not self._current(claims, now):
            raise Unauthenticated
        subject, tenant, issued = claims.get("sub"), claims.get("tenant"), claims.get("iat")
        if not is_name(subject) or not subject or not (tenant is None or is_name(tenant)):
            raise Unauthenticated
        role = claims.get("role")
        if role not in ROLES or role not in roles:
            raise Forbidden
        scopes = _scopes(claims.get("scope")) if role == "service" else None
        principal, issued_at = Principal(subject, role, tenant, scopes), issued if is_time(issued) else None
        if self.revocations.refuses(principal.name, issued_at):
            raise Unauthenticated
        rooms = read_patterns(claims["rooms"]) if "rooms" in claims else None
        return Verified(principal, claims["exp"], issued_at, claims, rooms)

    def _claims(self, keys: Keys, bearer: str, now: float) -> Mapping[str, Any]:
        # Times are checked by `_current`, because PyJWT asks the wall clock.
        options = {"verify_exp": False, "verify_nbf": False, "verify_iat": False, "verify_aud": bool(self.audience)}
        try:
            key = keys.find(bearer, now)
            if key is None:
                raise Unauthenticated
            return cast(
                "Mapping[str, Any]",
                jwt.decode(
                    bearer,
                    key.material,
                    algorithms=list(key.algorithms),
                    issuer=self.issuer or None,
                    audience=self.audience or None,
                    options=cast("Any", options),
                ),
            )
        # Beside its own errors PyJWT lets some of the parsers it stands on through, on hostile input.
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            raise Unauthenticated from None

    def _current(self, claims: Mapping[str, Any], now: float) -> bool:
        expires, begins = claims.get("exp"), claims.get("nbf", now)
        if not is_time(expires) or not is_time(begins):
            return False
        return begins - self.leeway_s <= now < expires + self.leeway_s


def mint(
    auth: AuthConfig,
    *,
    subject: str,
    role: Role,
    ttl_s: float,
    now: float,
    tenant: str | None = None,
    scope: Sequence[str] | None = None,
    rooms: Mapping[str, Sequence[str]] | None = None,
) -> str:
    """Return a token signed with the shared secret of `auth`, valid from `now` for `ttl_s` seconds.

    Raises ValueError when there is no shared secret, or the subject, tenant, scope, rooms or time cannot be in a token.
    """
    if not auth.jwt_secret:
        raise ValueError("there is no shared secret to sign with")
    if not subject:
        raise ValueError("the subject is empty")
    if not is_name(subject) or not (tenant is None or is_name(tenant)):
        raise ValueError("the subject or the tenant holds a character that no name may have")
    if not 0 < ttl_s < math.inf:
        raise ValueError("the time to live must be greater than 0")
    claims: dict[str, Any] = {"sub": subject, "role": role, "iat": int(now), "exp": math.ceil(now + ttl_s)}
    if tenant is not None:
        claims["tenant"] = tenant
    if scope is not None:
        if role != "service" or not SCOPES.issuperset(scope):
            raise ValueError(f"a scope is for the role service, and is one of {', '.join(sorted(SCOPES))}")
        claims["scope"] = list(scope)
    if rooms is not None:
        _check_rooms(role, rooms)
        claims["rooms"] = {pattern: list(words) for pattern, words in rooms.items()}
    if auth.jwt_issuer:
        claims["iss"] = auth.jwt_issuer
    if auth.jwt_audience:
        claims["aud"] = auth.jwt_audience
    return jwt.encode(claims, auth.jwt_secret, algorithm=(auth.jwt_algorithms or ("HS256",))[0])


def _check_rooms(role: Role, rooms: Mapping[str, Sequence[str]]) -> None:
    """Raise ValueError for what a node would pass over: a mistake gives no right, and its author is to hear of it."""
    if role == "service":
        raise ValueError("rooms are for clients and workers: a service with the scope rooms may everything")
    for pattern, words in rooms.items():
        if pattern != "*" and not is_room(pattern.removesuffix("*")):
            raise ValueError("a pattern of rooms is the name of a room, or the beginning of one with * behind it")
        if not words or not RIGHTS.issuperset(words):
            raise ValueError(f"rights in rooms are {', '.join(sorted(RIGHTS))}: one or several for each pattern")


def _scopes(claim: object) -> frozenset[str] | None:
    """Return the scopes of a service. A list, or the words of a text as OAuth writes them; an unknown word grants nothing."""
    if claim is None:
        return None
    words = claim.split() if isinstance(claim, str) else claim
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise Unauthenticated
    return SCOPES.intersection(words)


def is_name(value: object) -> TypeGuard[str]:
    """Tell whether a claim can be part of a principal's name: one that holds the separator could be another's."""
    return isinstance(value, str) and SEPARATOR not in value and _is_utf8(value)


def _is_utf8(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # JSON can spell half a character, and no store can keep one
        return False
    return True


def is_time(value: object) -> TypeGuard[float]:
    # An integer may have thousands of digits: it can be compared, and not made a float.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -TIME_MAX < value < TIME_MAX


def _key_set(auth: AuthConfig) -> KeySet:
    try:
        with Path(auth.jwks_file).open("rb") as file:
            return parse(file.read(SET_BYTES_MAX + 1), auth.jwt_algorithms)
    except OSError as error:
        raise _unusable("jwks_file", f"{auth.jwks_file} cannot be read: {error.strerror}") from None
    except BadKeySet as error:
        raise _unusable("jwks_file", f"{auth.jwks_file} {error}") from None


def _public_key(auth: AuthConfig) -> Key:
    name = "jwt_public_key_file"
    try:
        material = load_pem_public_key(Path(auth.jwt_public_key_file).read_bytes())
        possible = algorithms_of(material)
    except OSError as error:
        raise _unusable(name, f"{auth.jwt_public_key_file} cannot be read: {error.strerror}") from None
    except UnusableKey as error:
        raise _unusable(name, str(error)) from None
    except (ValueError, UnsupportedAlgorithm):
        raise _unusable(name, f"{auth.jwt_public_key_file} is not a PEM public key") from None
    wrong = [algorithm for algorithm in auth.jwt_algorithms if algorithm not in possible]
    if wrong:
        message = f"{', '.join(wrong)} does not go with this key: use {', '.join(possible)}"
        raise _unusable("jwt_algorithms", message)
    return Key(None, auth.jwt_algorithms or possible[:1], material)


def _unusable(name: str, message: str) -> ConfigError:
    return ConfigError([Problem("", f"auth.{name}", message)])
