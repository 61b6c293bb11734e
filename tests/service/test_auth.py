"""Bearer tokens: which are taken, which are not, and that nothing else can be learned from the answer."""

import base64
import json
from pathlib import Path
from typing import Any

import attrs
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from signald.config import AuthConfig, ConfigError
from signald.service.auth import Authenticator, Forbidden, Principal, Unauthenticated, mint
from tests.jwks import EC_KEY, ED_KEY, RSA_KEY, jwk, key_set

SECRET = "correct horse battery staple, " * 3
NOW = 1_000_000.0
AUTH = AuthConfig(jwt_secret=SECRET)
CLAIMS: dict[str, Any] = {"sub": "alice", "role": "client", "exp": NOW + 60}


def signed(claims: dict[str, Any], key: Any = SECRET, algorithm: str = "HS256") -> str:
    return jwt.encode(claims, key, algorithm=algorithm)


def outcome(auth: AuthConfig, bearer: str | None, now: float = NOW) -> Principal | type[Exception]:
    """Authenticate a client; return the principal or the class of the refusal."""
    try:
        return Authenticator.from_config(auth).authenticate(bearer, "client", now)
    except (Unauthenticated, Forbidden) as error:
        return type(error)


def public_key_file(folder: Path, private: Any) -> str:
    path = folder / "public.pem"
    path.write_bytes(private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return str(path)


def test_without_a_key_everybody_is_anonymous() -> None:
    """Loopback and insecure mode: whatever token is shown, the subject is empty and the role the endpoint's."""
    for auth in (AuthConfig(), AuthConfig(insecure=True)):
        for bearer in (None, "anything", signed(CLAIMS)):
            assert outcome(auth, bearer) == Principal("", "client", None)


def test_a_valid_token_gives_subject_role_and_tenant() -> None:
    """The principal is what the token says."""
    assert outcome(AUTH, signed(CLAIMS)) == Principal("alice", "client")
    assert outcome(AUTH, signed(CLAIMS | {"tenant": "acme"})) == Principal("alice", "client", "acme")


def test_a_minted_token_is_accepted_until_it_expires() -> None:
    """mint and authenticate agree on claims, issuer, audience and time."""
    auth = AuthConfig(jwt_secret=SECRET, jwt_issuer="core", jwt_audience="signald", leeway_s=0)
    token = mint(auth, subject="alice", role="client", ttl_s=60, now=NOW)
    assert outcome(auth, token, NOW + 59) == Principal("alice", "client")
    assert outcome(auth, token, NOW + 60) is Unauthenticated


@pytest.mark.parametrize(
    ("auth", "subject", "ttl_s"),
    [(AuthConfig(), "alice", 1), (AUTH, "", 1), (AUTH, "alice", 0), (AUTH, "a", float("inf"))],
)
def test_a_token_that_could_not_be_used_is_not_minted(auth: AuthConfig, subject: str, ttl_s: float) -> None:
    """No secret, no subject and no time to live are errors of the caller."""
    with pytest.raises(ValueError, match=r"secret|subject|time"):
        mint(auth, subject=subject, role="client", ttl_s=ttl_s, now=NOW)


@pytest.mark.parametrize("role", ["worker", "service", "admin", "", None, 5, ["client"], {"client": 1}])
def test_a_valid_token_of_another_role_is_forbidden(role: Any) -> None:
    """A worker's token does not open a client's endpoint, nor does an unknown or missing role."""
    assert outcome(AUTH, signed(CLAIMS | {"role": role})) is Forbidden
    assert outcome(AUTH, signed({"sub": "alice", "exp": NOW + 60})) is Forbidden


@pytest.mark.parametrize(
    ("claim", "scopes"),
    [
        (None, None),
        ([], set()),
        (["jobs", "users"], {"jobs", "users"}),
        ("jobs rooms openid", {"jobs", "rooms"}),
        (["everything"], set()),
    ],
)
def test_a_service_may_do_what_its_scope_names(claim: Any, scopes: set[str] | None) -> None:
    """Without a scope all is allowed, an unknown word grants nothing, and a list and a text mean the same."""
    claims = CLAIMS | {"role": "service", "tenant": "acme"} | ({} if claim is None else {"scope": claim})
    verified = Authenticator.from_config(AUTH).verify(signed(claims), ("client", "service"), NOW)
    assert verified.principal == Principal("alice", "service", "acme", None if scopes is None else frozenset(scopes))


@pytest.mark.parametrize("scope", [5, {"jobs": True}, [["jobs"]], [1], False])
def test_a_scope_of_another_kind_is_no_credential(scope: Any) -> None:
    """A scope that cannot be read must not become the scope of all."""
    with pytest.raises(Unauthenticated):
        Authenticator.from_config(AUTH).verify(signed(CLAIMS | {"role": "service", "scope": scope}), ("service",), NOW)


def test_the_scope_of_a_party_does_not_count() -> None:
    """An issuer that puts a scope into every token does not shut clients out."""
    assert outcome(AUTH, signed(CLAIMS | {"scope": {"odd": 1}})) == Principal("alice", "client")


def test_a_verified_token_says_its_times() -> None:
    """The expiry, and when the token was issued; an iat that is no time counts as none."""
    authenticator = Authenticator.from_config(AUTH)
    for issued, said in ((NOW - 5, NOW - 5), ("now", None), (None, None)):
        claims = CLAIMS | ({} if issued is None else {"iat": issued})
        verified = authenticator.verify(_raw(claims), ("client",), NOW)
        assert (verified.expires_at, verified.issued_at) == (NOW + 60, said)


def test_without_a_key_no_token_is_verified() -> None:
    """Anonymous parties are admitted by `authenticate` alone."""
    with pytest.raises(Unauthenticated):
        Authenticator.from_config(AuthConfig()).verify(signed(CLAIMS), ("client",), NOW)


def test_a_service_token_is_minted() -> None:
    """Tenant and scope go into the token of a service; a scope for another role, or an unknown one, is an error."""
    token = mint(AUTH, subject="backend", role="service", ttl_s=60, now=NOW, tenant="acme", scope=["jobs"])
    verified = Authenticator.from_config(AUTH).verify(token, ("service",), NOW)
    assert verified.principal == Principal("backend", "service", "acme", frozenset({"jobs"}))
    for role, scope in (("client", ["jobs"]), ("service", ["everything"])):
        with pytest.raises(ValueError, match="scope"):
            mint(AUTH, subject="backend", role=role, ttl_s=60, now=NOW, scope=scope)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="character"):
        mint(AUTH, subject="backend", role="client", ttl_s=60, now=NOW, tenant="a\x1fb")


@pytest.mark.parametrize(
    "change",
    [
        {"sub": ""},
        {"sub": None},
        {"tenant": 5},
        {"sub": "acme\x1falice"},
        {"sub": "\ud800"},
        {"tenant": "acme\x1fa"},
        {"tenant": "\udfff"},
        {"exp": NOW - 6},
        {"exp": None},
        {"exp": "soon"},
        {"exp": True},
        {"exp": float("inf")},
        {"exp": 10**400},
        {"exp": float("nan")},
        {"nbf": NOW + 6},
        {"nbf": "now"},
        {"nbf": float("nan")},
        {"iss": "another"},
        {"iss": None},
        {"aud": "another"},
        {"aud": None},
    ],
)
def test_a_token_with_a_wrong_claim_is_no_credential(change: dict[str, Any]) -> None:
    """Subject, times, issuer and audience must be there and right."""
    auth = attrs.evolve(AUTH, jwt_issuer="core", jwt_audience="signald")
    right = CLAIMS | {"iss": "core", "aud": "signald", "nbf": NOW}
    assert outcome(auth, signed(right)) == Principal("alice", "client")
    wrong = {name: value for name, value in (right | change).items() if value is not None}
    assert outcome(auth, _raw(wrong)) is Unauthenticated


def _raw(claims: dict[str, Any]) -> str:
    """Sign claims PyJWT would refuse to encode."""
    return jwt.api_jws.encode(json.dumps(claims).encode(), SECRET, algorithm="HS256")


def test_clocks_may_differ_by_the_leeway() -> None:
    """exp and nbf are tolerated by leeway_s, and not by more."""
    assert outcome(AUTH, signed(CLAIMS | {"exp": NOW - 4.9})) == Principal("alice", "client")
    assert outcome(AUTH, signed(CLAIMS | {"nbf": NOW + 5})) == Principal("alice", "client")


def test_audience_and_issuer_do_not_count_when_not_configured() -> None:
    """A token made for several services is taken as it is."""
    assert outcome(AUTH, signed(CLAIMS | {"aud": ["x", "y"], "iss": "z"})) == Principal("alice", "client")


def _unsigned(algorithm: str) -> str:
    parts = [json.dumps({"alg": algorithm, "typ": "JWT"}).encode(), json.dumps(CLAIMS).encode(), b""]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


@pytest.mark.parametrize(
    "bearer",
    [
        None,
        "",
        ".",
        "..",
        "not a token",
        signed(CLAIMS, SECRET[::-1]),
        signed(CLAIMS, algorithm="HS512"),
        signed(CLAIMS)[:-4],
        _unsigned("none"),
        _unsigned("None"),
        _unsigned("HS256"),
        _unsigned(""),
        "é" * 10,
        "\ud800.x.y",
        signed(CLAIMS | {"pad": "x" * 9000}),
    ],
)
def test_anything_but_a_token_signed_with_the_key_is_no_credential(bearer: str | None) -> None:
    """Wrong key, wrong algorithm, no signature, `none` and noise are refused alike."""
    assert outcome(AUTH, bearer) is Unauthenticated


@given(bearer=st.one_of(st.text(), st.lists(st.text(), min_size=3, max_size=3).map(".".join)))
def test_no_input_raises_anything_else(bearer: str) -> None:
    """Noise is refused and never an exception of a library."""
    assert outcome(AUTH, bearer) is Unauthenticated


@pytest.mark.parametrize("depth", [1000, 3000])
def test_deeply_nested_claims_are_refused(depth: int) -> None:
    """An unsigned token cannot overflow the parser, in header or claims."""
    nested = base64.urlsafe_b64encode(b"[" * depth + b"]" * depth).rstrip(b"=").decode()
    head = base64.urlsafe_b64encode(b'{"alg":"HS256"}').rstrip(b"=").decode()
    assert outcome(AUTH, f"{nested}.{nested}.x") is Unauthenticated
    assert outcome(AUTH, f"{head}.{nested}.x") is Unauthenticated


def test_refusals_say_the_same_whatever_was_wrong() -> None:
    """The text of a refusal is constant."""
    messages = set()
    for bearer in (None, "x", signed(CLAIMS | {"exp": 0}), signed(CLAIMS, "another secret, thirty-two bytes long")):
        with pytest.raises(Unauthenticated) as caught:
            Authenticator.from_config(AUTH).authenticate(bearer, "client", NOW)
        messages.add(str(caught.value))
    assert messages == {"no valid credential"}


PRIVATE_KEYS: list[tuple[Any, str]] = [
    (rsa.generate_private_key(65537, 2048), "RS256"),
    (ec.generate_private_key(ec.SECP256R1()), "ES256"),
    (ec.generate_private_key(ec.SECP384R1()), "ES384"),
    (ed25519.Ed25519PrivateKey.generate(), "EdDSA"),
]


@pytest.mark.parametrize(("private", "algorithm"), PRIVATE_KEYS, ids=[name for _, name in PRIVATE_KEYS])
def test_a_public_key_verifies_tokens_of_its_algorithm(tmp_path: Path, private: Any, algorithm: str) -> None:
    """RSA, EC and Ed25519 keys work, with the algorithm given or left to the key."""
    file = public_key_file(tmp_path, private)
    for algorithms in ((), (algorithm,)):
        auth = AuthConfig(jwt_public_key_file=file, jwt_algorithms=algorithms)
        assert outcome(auth, signed(CLAIMS, private, algorithm)) == Principal("alice", "client")
        assert outcome(auth, signed(CLAIMS)) is Unauthenticated


def test_a_public_key_is_never_a_shared_secret(tmp_path: Path) -> None:
    """A token signed by HMAC with the bytes of the public key is refused: these bytes are public."""
    file = public_key_file(tmp_path, PRIVATE_KEYS[0][0])
    head, claims = (
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in ({"alg": "HS256"}, CLAIMS)
    )
    signer = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    signature = signer.sign(head + b"." + claims, Path(file).read_bytes())
    forged = b".".join((head, claims, base64.urlsafe_b64encode(signature).rstrip(b"=")))
    assert outcome(AuthConfig(jwt_public_key_file=file), forged.decode()) is Unauthenticated


def test_a_public_key_that_cannot_be_used_is_a_configuration_error(tmp_path: Path) -> None:
    """A missing, broken, weak or unsupported key, and an algorithm of another kind, are said before serving."""
    broken = tmp_path / "broken.pem"
    broken.write_text("-----BEGIN PUBLIC KEY-----\nabc\n-----END PUBLIC KEY-----\n")
    cases: list[tuple[AuthConfig, str]] = [
        (AuthConfig(jwt_public_key_file=str(tmp_path / "none.pem")), "cannot be read"),
        (AuthConfig(jwt_public_key_file=str(broken)), "not a PEM public key"),
    ]
    for number, (private, algorithms, message) in enumerate(
        [
            (rsa.generate_private_key(65537, 1024), (), "2048 bits"),
            (ed448.Ed448PrivateKey.generate(), (), "not supported"),
            (PRIVATE_KEYS[1][0], ("RS256",), "does not go with this key: use ES256"),
        ]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        auth = AuthConfig(jwt_public_key_file=public_key_file(folder, private), jwt_algorithms=algorithms)
        cases.append((auth, message))
    for auth, message in cases:
        with pytest.raises(ConfigError, match=message):
            Authenticator.from_config(auth)


def test_all_keys_of_a_file_count_at_once(tmp_path: Path) -> None:
    """A token is verified with the key that its kid names, and with no other key of the set."""
    file = tmp_path / "jwks.json"
    file.write_bytes(key_set(jwk(RSA_KEY, "old"), jwk(EC_KEY, "new")))
    auth = AuthConfig(jwks_file=str(file))
    for private, algorithm, kid in ((RSA_KEY, "RS256", "old"), (EC_KEY, "ES256", "new")):
        assert outcome(auth, signed_by(private, algorithm, kid)) == Principal("alice", "client")
        assert outcome(auth, signed_by(private, algorithm, None)) == Principal("alice", "client")
        assert outcome(auth, signed_by(private, algorithm, "another")) is Unauthenticated
    assert outcome(auth, signed_by(ED_KEY, "EdDSA", "new")) is Unauthenticated
    assert outcome(auth, signed_by(EC_KEY, "ES256", "old")) is Unauthenticated
    other = ec.generate_private_key(ec.SECP256R1())
    assert outcome(auth, signed_by(other, "ES256", "new")) is Unauthenticated
    assert outcome(auth, signed(CLAIMS)) is Unauthenticated
    assert outcome(auth, jwt.encode(CLAIMS, SECRET, "HS256", headers={"kid": "new"})) is Unauthenticated
    for bearer in (None, "", "..", "not a token", "é" * 10, "\ud800.x.y"):
        assert outcome(auth, bearer) is Unauthenticated


def signed_by(private: Any, algorithm: str, kid: str | None) -> str:
    return jwt.encode(CLAIMS, private, algorithm, headers=None if kid is None else {"kid": kid})


def test_a_file_that_is_no_key_set_is_a_configuration_error(tmp_path: Path) -> None:
    """A missing or broken file, one without a usable key, and an endless one are said before serving."""
    page = tmp_path / "page"
    page.write_text("<html>")
    secret = tmp_path / "secret"
    secret.write_bytes(key_set({"kty": "oct", "k": "c2VjcmV0"}))
    cases = [(str(tmp_path / "none"), "cannot be read"), (str(page), "not a JWK set"), (str(secret), "shared secret")]
    for name, message in [*cases, ("/dev/zero", "bytes")]:
        with pytest.raises(ConfigError, match=message) as caught:
            Authenticator.from_config(AuthConfig(jwks_file=name))
        assert caught.value.problems[0].key == "auth.jwks_file"
        assert "c2VjcmV0" not in str(caught.value)


def test_the_key_is_not_shown() -> None:
    """An authenticator can be logged."""
    assert SECRET not in repr(Authenticator.from_config(AUTH))
