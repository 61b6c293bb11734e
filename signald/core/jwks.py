"""JWK sets (RFC 7517): the public keys of an issuer, read from JSON, and the one key that a token may be verified with.

A key that cannot be used is left out and the others count (RFC 7517 5): an issuer may publish keys for other purposes. A set
without any usable key is refused as a whole, because it is more likely a wrong URL than an issuer that trusts no key.
"""

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    SECP384R1,
    SECP521R1,
    EllipticCurve,
    EllipticCurvePublicKey,
    EllipticCurvePublicNumbers,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers

SET_BYTES_MAX = 262_144
"""A set of the largest public issuers has 10 keys with their certificate chains, about 40 KiB."""

KEYS_MAX = 100
"""An issuer has two or three keys for each algorithm; beyond it a set is no set of keys of one issuer."""

KID_CHARS_MAX = 256
"""A thumbprint has 43 characters."""

RSA_BITS_MIN = 2048
"""RSA below this is not refused by the standards' letter any more, but by their spirit."""

RSA_BITS_MAX = 8192
"""A verification costs the square of this, for each opening: 0.3 ms at the bound."""

EXPONENT_MAX = 2**32
"""A larger exponent adds no strength, and each of its bits costs a multiplication."""

RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES: dict[str, tuple[type[EllipticCurve], str, int]] = {
    "P-256": (SECP256R1, "ES256", 32),
    "P-384": (SECP384R1, "ES384", 48),
    "P-521": (SECP521R1, "ES512", 66),
}
"""Name of a curve → its class, the algorithm that goes with it, the bytes of a coordinate."""

PRIVATE = ("d", "p", "q", "k")
"""Members that only a private key or a shared secret has."""


class UnusableKey(ValueError):
    """A key that tokens cannot be verified with; the text says why."""


class BadKeySet(ValueError):
    """Not a JWK set, or one without a usable key; the text says why and holds nothing of the keys."""


@attrs.frozen
class Key:
    """A public key, and the algorithms that it may be used with."""

    kid: str | None
    algorithms: tuple[str, ...]
    material: Any = attrs.field(repr=False)


@attrs.frozen
class KeySet:
    """The usable keys of a set, in its order."""

    keys: tuple[Key, ...]
    left_out: tuple[str, ...] = ()
    """Why each other key of the set cannot be used."""

    def find(self, kid: str | None, algorithm: str) -> Key | None:
        """Return the key for a token whose header has `kid` and `algorithm`.

        Without a `kid` the choice must be clear: one key of the set goes with the algorithm. A key without a `kid` is never that
        of a token with one.
        """
        fitting = [key for key in self.keys if algorithm in key.algorithms]
        if kid is not None:
            return next((key for key in fitting if key.kid == kid), None)
        return fitting[0] if len(fitting) == 1 else None

    def knows(self, kid: str) -> bool:
        """Tell whether a key of the set has this `kid`."""
        return any(key.kid == kid for key in self.keys)


class _Set(msgspec.Struct):
    keys: list[msgspec.Raw]


_ABSENT = msgspec.Raw()


class _Jwk(msgspec.Struct):
    kty: str
    kid: str | None = None
    use: str | None = None
    key_ops: list[str] | None = None
    alg: str | None = None
    crv: str | None = None
    n: str = ""
    e: str = ""
    x: str = ""
    y: str = ""
    d: msgspec.Raw = _ABSENT
    p: msgspec.Raw = _ABSENT
    q: msgspec.Raw = _ABSENT
    k: msgspec.Raw = _ABSENT


_set_decoder = msgspec.json.Decoder(_Set)
_key_decoder = msgspec.json.Decoder(_Jwk)
_MALFORMED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def parse(body: bytes, allowed: Sequence[str] = ()) -> KeySet:
    """Read a JWK set. `allowed` are the algorithms that the operator permits; empty: the one that a key names, or that fits it.

    Raises BadKeySet.
    """
    if len(body) > SET_BYTES_MAX:
        raise BadKeySet(f"has more than {SET_BYTES_MAX} bytes")
    try:
        members = _set_decoder.decode(body).keys
    except _MALFORMED:
        raise BadKeySet('is not a JWK set: expected JSON, an object with a list "keys"') from None
    if len(members) > KEYS_MAX:
        raise BadKeySet(f"has {len(members)} keys, and at most {KEYS_MAX} are taken")
    keys: list[Key] = []
    left_out: list[str] = []
    for number, member in enumerate(members, 1):
        try:
            keys.append(_key(member, allowed))
        except UnusableKey as error:
            left_out.append(f"key {number}: {error}")
    if not keys:
        raise BadKeySet("; ".join(["has no key that tokens can be verified with", *left_out[:5]]))
    return KeySet(tuple(keys), tuple(left_out))


def algorithms_of(material: object) -> tuple[str, ...]:
    """Return the algorithms that go with a public key, the usual one first.

    Raises UnusableKey when the key is of another kind, or too small or too large.
    """
    if isinstance(material, RSAPublicKey):
        if material.key_size < RSA_BITS_MIN:
            raise UnusableKey(f"an RSA key needs at least {RSA_BITS_MIN} bits, this one has {material.key_size}")
        if material.key_size > RSA_BITS_MAX or material.public_numbers().e > EXPONENT_MAX:
            raise UnusableKey(
                f"an RSA key of more than {RSA_BITS_MAX} bits, or with an exponent above 2**32, costs too much"
            )
        return RSA
    if isinstance(material, EllipticCurvePublicKey):
        found = tuple(name for curve, name, _ in _CURVES.values() if isinstance(material.curve, curve))
        if found:
            return found
    elif isinstance(material, Ed25519PublicKey):
        return ("EdDSA",)
    raise UnusableKey("a key of this kind is not supported: use RSA, P-256, P-384, P-521 or Ed25519")


def permitted(possible: Sequence[str], named: str | None, allowed: Sequence[str]) -> tuple[str, ...]:
    """Return which of the `possible` algorithms a key may be used with: the one it names, if any, and only what is allowed."""
    if named is not None:
        possible = [name for name in possible if name == named]
    if allowed:
        return tuple(name for name in possible if name in allowed)
    return tuple(possible[:1])


def _key(member: msgspec.Raw, allowed: Sequence[str]) -> Key:
    try:
        jwk = _key_decoder.decode(member)
    except _MALFORMED:
        raise UnusableKey("is not a JWK") from None
    if jwk.kty == "oct":
        raise UnusableKey("a shared secret (oct) has no place in a set of public keys")
    if any(getattr(jwk, name) is not _ABSENT for name in PRIVATE):
        raise UnusableKey("holds its private part: every reader of the set knows it")
    if jwk.use not in (None, "sig"):
        raise UnusableKey("is not for signatures (use)")
    if jwk.key_ops is not None and "verify" not in jwk.key_ops:
        raise UnusableKey("is not for verifying (key_ops)")
    if jwk.kid is not None and len(jwk.kid) > KID_CHARS_MAX:
        raise UnusableKey(f"its kid has more than {KID_CHARS_MAX} characters")
    load = _LOAD.get(jwk.kty)
    if load is None:
        raise UnusableKey("a key of this kind is not supported: use RSA, EC or OKP")
    try:
        material = load(jwk)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise error if isinstance(error, UnusableKey) else UnusableKey("its numbers are no public key") from None
    algorithms = permitted(algorithms_of(material), jwk.alg, allowed)
    if not algorithms:
        raise UnusableKey("its algorithm does not go with it, or is not allowed")
    return Key(jwk.kid, algorithms, material)


def _rsa(jwk: _Jwk) -> RSAPublicKey:
    modulus, exponent = _bytes(jwk.n), _bytes(jwk.e)
    if len(modulus) > RSA_BITS_MAX // 8 or len(exponent) > 8:
        raise UnusableKey(
            f"an RSA key of more than {RSA_BITS_MAX} bits, or with an exponent above 2**32, costs too much"
        )
    return RSAPublicNumbers(int.from_bytes(exponent), int.from_bytes(modulus)).public_key()


def _ec(jwk: _Jwk) -> EllipticCurvePublicKey:
    if jwk.crv not in _CURVES:
        raise UnusableKey("a curve that is not supported: use P-256, P-384 or P-521")
    curve, _, size = _CURVES[jwk.crv]
    x, y = _bytes(jwk.x), _bytes(jwk.y)
    if len(x) != size or len(y) != size:  # RFC 7518 6.2.1.2: all bytes of a coordinate
        raise UnusableKey("its coordinates have a wrong length")
    return EllipticCurvePublicNumbers(int.from_bytes(x), int.from_bytes(y), curve()).public_key()


def _okp(jwk: _Jwk) -> Ed25519PublicKey:
    if jwk.crv != "Ed25519":
        raise UnusableKey("a curve that is not supported: use Ed25519")
    return Ed25519PublicKey.from_public_bytes(_bytes(jwk.x))


_LOAD: dict[str, Callable[[_Jwk], Any]] = {"RSA": _rsa, "EC": _ec, "OKP": _okp}


def _bytes(text: str) -> bytes:
    """Decode base64url without padding; nothing else is skipped or repaired."""
    if "+" in text or "/" in text or "=" in text:
        raise ValueError("not base64url")
    try:
        return base64.b64decode(text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        raise ValueError("not base64url") from None
