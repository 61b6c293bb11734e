"""JWK sets: which keys of one are usable, for which algorithms, and which of them is the key of a token."""

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa

from signald.core.jwks import KEYS_MAX, SET_BYTES_MAX, BadKeySet, parse
from tests.jwks import EC_KEY, ED_KEY, RSA_KEY, b64, jwk, key_set

GOOD = jwk(ED_KEY, "good")


def left_out(member: Any, allowed: tuple[str, ...] = ()) -> str:
    """Return why a key is left out of a set whose other key is good; "" when it is taken."""
    found = parse(key_set(GOOD, member), (*allowed, "EdDSA") if allowed else ())
    assert found.keys[0].kid == "good"
    return found.left_out[0] if found.left_out else ""


@pytest.mark.parametrize(
    ("private", "members", "algorithms"),
    [
        (RSA_KEY, {}, ("RS256",)),
        (RSA_KEY, {"alg": "PS384"}, ("PS384",)),
        (EC_KEY, {}, ("ES256",)),
        (ec.generate_private_key(ec.SECP384R1()), {"use": "sig"}, ("ES384",)),
        (ec.generate_private_key(ec.SECP521R1()), {"key_ops": ["verify"]}, ("ES512",)),
        (ED_KEY, {"alg": "EdDSA", "x5t": "ignored"}, ("EdDSA",)),
    ],
)
def test_a_key_is_read_as_what_it_is(private: Any, members: dict[str, Any], algorithms: tuple[str, ...]) -> None:
    """Each supported kind gives the same public key as its PEM, with the algorithm that it names or that fits it."""
    (key,) = parse(key_set(jwk(private, "k", **members))).keys
    assert (key.kid, key.algorithms) == ("k", algorithms)
    assert key.material == private.public_key()


def test_the_operator_decides_between_algorithms() -> None:
    """`allowed` widens what a key without `alg` may do, and never what one with `alg` may."""
    body = key_set(jwk(RSA_KEY, "any"), jwk(RSA_KEY, "one", alg="RS256"))
    assert [key.algorithms for key in parse(body, ("RS256", "PS256")).keys] == [("RS256", "PS256"), ("RS256",)]


@pytest.mark.parametrize(
    ("member", "why"),
    [
        ({"kty": "oct", "k": b64(b"x" * 64), "kid": "s"}, "shared secret"),
        (jwk(RSA_KEY, d="AQAB"), "private part"),
        (jwk(EC_KEY, d=""), "private part"),
        (jwk(RSA_KEY, use="enc"), "use"),
        (jwk(RSA_KEY, key_ops=["sign"]), "key_ops"),
        (jwk(RSA_KEY, key_ops=[]), "key_ops"),
        (jwk(RSA_KEY, alg="ES256"), "algorithm"),
        (jwk(RSA_KEY, alg="HS256"), "algorithm"),
        (jwk(RSA_KEY, alg="none"), "algorithm"),
        (jwk(EC_KEY, alg="ES384"), "algorithm"),
        (jwk(RSA_KEY, kid="k" * 257), "kid"),
        (jwk(RSA_KEY) | {"kid": 5}, "not a JWK"),
        (jwk(RSA_KEY, kty=None), "not a JWK"),
        (jwk(rsa.generate_private_key(65537, 1024)), "2048 bits"),
        (jwk(RSA_KEY, n=b64(b"\xff" * 1025)), "8192 bits"),
        (jwk(RSA_KEY, e=b64(b"\x01" + b"\x00" * 7 + b"\x01")), "exponent"),
        (jwk(RSA_KEY, e=b64(b"\x01" + b"\x00" * 4 + b"\x01")), "exponent"),
        (jwk(RSA_KEY, e=b64(b"\x02")), "no public key"),
        (jwk(RSA_KEY, n=""), "no public key"),
        (jwk(RSA_KEY, n=jwk(RSA_KEY)["n"] + "="), "no public key"),
        (jwk(RSA_KEY, n="+/" * 200), "no public key"),
        (jwk(EC_KEY, crv="secp256k1"), "curve"),
        (jwk(EC_KEY, x=b64(b"\x01" * 31)), "length"),
        (jwk(EC_KEY, x=b64(b"\x01" * 32)), "no public key"),
        (jwk(ED_KEY, crv="Ed448"), "curve"),
        (jwk(ED_KEY, crv=None), "curve"),
        (jwk(ED_KEY, x=b64(b"\x01" * 31)), "no public key"),
        (
            {"kty": "OKP", "crv": "Ed448", "x": b64(ed448.Ed448PrivateKey.generate().public_key().public_bytes_raw())},
            "curve",
        ),
        ({"kty": "PQC", "kid": "new"}, "kind"),
        ("text", "not a JWK"),
        (None, "not a JWK"),
    ],
)
def test_a_key_that_cannot_be_used_is_left_out(member: Any, why: str) -> None:
    """The others count, and the reason is said without anything of the key."""
    said = left_out(member)
    assert why in said
    assert not isinstance(member, dict) or not member.get("n") or member["n"] not in said


def test_an_algorithm_that_is_not_allowed_leaves_the_key_out() -> None:
    """With ES256 alone allowed, no RSA key of the issuer is trusted."""
    assert "not allowed" in left_out(jwk(RSA_KEY), ("ES256",))
    assert left_out(jwk(EC_KEY), ("ES256",)) == ""


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "not a JWK set"),
        (b"<html>", "not a JWK set"),
        (b"[]", "not a JWK set"),
        (b'{"keys":{}}', "not a JWK set"),
        (b'{"keys":' + b"[" * 100_000, "not a JWK set"),
        (b'{"keys":[' + b"[" * 5000 + b"]" * 5000 + b"]}", "not a JWK set"),
        (b"\xff\xfe", "not a JWK set"),
        (key_set(), "no key"),
        (key_set({"kty": "oct", "k": "aaaa"}), "shared secret"),
        (key_set(*[GOOD] * (KEYS_MAX + 1)), "at most 100"),
        (b" " * (SET_BYTES_MAX + 1), "bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # the same in each worker of xdist, whatever the keys
)
def test_what_is_no_set_of_usable_keys_is_refused(body: bytes, why: str) -> None:
    """A page, noise, too much of anything, and a set that no token can be verified with."""
    with pytest.raises(BadKeySet, match=why):
        parse(body)


def test_a_token_names_its_key() -> None:
    """With a kid exactly that key counts; without one the choice must be clear."""
    found = parse(key_set(jwk(RSA_KEY, "a"), jwk(EC_KEY, "b"), jwk(ED_KEY)))
    assert found.find("a", "RS256") is found.keys[0]
    assert found.find("a", "ES256") is None  # the key's algorithm, not the token's word
    assert found.find("c", "RS256") is None
    assert found.find(None, "ES256") is found.keys[1]
    assert found.find(None, "EdDSA") is found.keys[2]
    assert found.find("", "EdDSA") is None  # a key without a kid is no key of a token with one
    assert (found.knows("b"), found.knows("c")) == (True, False)
    two = parse(key_set(jwk(RSA_KEY, "a"), jwk(RSA_KEY, "b")))
    assert two.find(None, "RS256") is None


def test_one_kid_for_two_kinds_of_keys() -> None:
    """RFC 7517 4.5 allows it: the algorithm tells them apart."""
    found = parse(key_set(jwk(RSA_KEY, "k"), jwk(EC_KEY, "k")))
    assert found.find("k", "ES256") is found.keys[1]


def test_a_key_does_not_show_its_numbers() -> None:
    """A set can be logged."""
    assert "material" not in repr(parse(key_set(GOOD)))
    assert json.loads(key_set(GOOD))["keys"][0]["kid"] == "good"
