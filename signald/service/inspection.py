"""What a token says, whether a node would take it, and why not: for operators. Parties are never told this much."""

import datetime as dt
from typing import Any

import attrs
import jwt

from signald.service.auth import (
    BEARER_BYTES_MAX,
    ROLES,
    SCOPES,
    Authenticator,
    Forbidden,
    Unauthenticated,
    is_name,
    is_time,
)
from signald.service.key_sets import KeysAway, OneKey, RemoteKeys, named

_UNCHECKED: Any = {
    "verify_signature": False,
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_aud": False,
    "verify_iss": False,
    "verify_sub": False,
    "verify_jti": False,
}
_NO_TOKEN = (jwt.PyJWTError, ValueError, TypeError, RecursionError)
"""What PyJWT and the parsers it stands on raise for what is no token."""


@attrs.frozen
class Inspection:
    """What was found. Neither the token nor its signature is part of it."""

    header: dict[str, Any] | None
    """None: it cannot be read."""
    claims: dict[str, Any] | None
    problems: tuple[str, ...]
    """Why a node refuses it; none: a node takes it."""
    verified: bool
    """False: there was no key to verify it with."""


def inspect(auth: Authenticator, bearer: str, now: float) -> Inspection:
    """Read a token and judge it as a node with `auth` would at `now`, in seconds since 1970. Nodes may know that it is revoked."""
    if len(bearer) > BEARER_BYTES_MAX:
        return Inspection(
            None, None, (f"has {len(bearer)} characters, and {BEARER_BYTES_MAX} are taken",), verified=False
        )
    try:
        whole = jwt.decode_complete(bearer, options=_UNCHECKED)
    except _NO_TOKEN:
        return Inspection(
            None, None, ("is no JWT: three parts of base64url between dots, each a JSON object",), verified=False
        )
    header, claims = dict(whole["header"]), dict(whole["payload"])
    problems = [*_of_key(auth, bearer, now), *_of_claims(auth, claims, now)]
    if auth.keys is not None and not problems and not _is_taken(auth, bearer, now):
        problems.append("is refused")  # by a rule that has no words here
    return Inspection(header, claims, tuple(problems), verified=auth.keys is not None)


def _is_taken(auth: Authenticator, bearer: str, now: float) -> bool:
    try:
        auth.verify(bearer, ROLES, now)
    except (Unauthenticated, Forbidden, KeysAway):
        return False
    return True


def _of_key(auth: Authenticator, bearer: str, now: float) -> list[str]:
    """Say what is wrong with the signature, or with the key that it names."""
    if auth.keys is None:
        return []
    try:
        kid, algorithm = named(bearer)
        key = auth.keys.find(bearer, now)
        if key is None:
            which = (
                "names no key (kid), and more than one, or none, goes with" if kid is None else f"no key {kid!r} for"
            )
            return [f"{which} {algorithm}"]
        if algorithm not in key.algorithms:
            return [f"is signed with {algorithm}, and {', '.join(key.algorithms)} is taken"]
        jwt.decode(
            bearer, key.material, algorithms=list(key.algorithms), options=_UNCHECKED | {"verify_signature": True}
        )
    except KeysAway:
        kid, _ = named(bearer)
        fetched = isinstance(auth.keys, RemoteKeys) and auth.keys.keys is not None
        return [f"the issuer publishes no key {kid!r}" if fetched else "the keys of the issuer are not here"]
    except jwt.InvalidSignatureError:
        kind = "the shared secret or public key" if isinstance(auth.keys, OneKey) else "the key that it names"
        return [f"its signature was not made with {kind}"]
    except _NO_TOKEN:
        return ["its signature cannot be verified"]
    return []


def _of_claims(auth: Authenticator, claims: dict[str, Any], now: float) -> list[str]:
    """Say which claims are missing or wrong."""
    found: list[str] = []
    subject, tenant, role, scope = (claims.get(name) for name in ("sub", "tenant", "role", "scope"))
    if not is_name(subject) or not subject:
        found.append("sub is missing, or no subject: a text without control character 0x1f")
    if tenant is not None and not is_name(tenant):
        found.append("tenant is no text without control character 0x1f")
    if role not in ROLES:
        found.append(f"role is missing or wrong: one of {', '.join(ROLES)}")
    words = scope.split() if isinstance(scope, str) else scope
    if role == "service" and scope is not None:
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            found.append("scope is no list of texts")
        elif not SCOPES.intersection(words):
            found.append(f"scope grants nothing: use {', '.join(sorted(SCOPES))}")
    return [*found, *_of_times(auth, claims, now), *_of_parties(auth, claims)]


def _of_times(auth: Authenticator, claims: dict[str, Any], now: float) -> list[str]:
    expires, begins = claims.get("exp"), claims.get("nbf", now)
    if not is_time(expires):
        return ["exp is missing or no time"]
    if now >= expires + auth.leeway_s:
        return [f"has expired at {moment(expires)}"]
    if not is_time(begins):
        return ["nbf is no time"]
    return [f"is not valid before {moment(begins)}"] if begins - auth.leeway_s > now else []


def _of_parties(auth: Authenticator, claims: dict[str, Any]) -> list[str]:
    found: list[str] = []
    if auth.issuer and claims.get("iss") != auth.issuer:
        found.append(f"iss is not {auth.issuer!r}")
    audience = claims.get("aud")
    if auth.audience and auth.audience not in (audience if isinstance(audience, list) else [audience]):
        found.append(f"aud is not {auth.audience!r}")
    return found


def moment(seconds: float) -> str:
    """Return a time for a reader, in UTC."""
    try:
        return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    except (OverflowError, OSError, ValueError):
        return f"{seconds:g} s after 1970"
