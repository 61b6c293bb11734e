"""API tokens: what is signed comes back, and nothing else is taken for one."""

import base64
import json
from typing import Any, Literal

import jwt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from signald.core import api_tokens
from signald.core.api_keys import kid_of, signing_key
from signald.core.api_tokens import TOKEN_CHARS_MAX, TYPE, Statement, kid_in, read
from signald.core.callers import Caller
from signald.core.wants import SEPARATOR
from tests.examples import examples

NOW_MS = 1_700_000_000_250
SECRET = b"the secret of this test, 32 byte"
KID, KEY = kid_of(SECRET), signing_key(SECRET)
HEADER = {"alg": "HS256", "kid": KID, "typ": TYPE}
CLAIMS = {"kind": "client", "owner": "s_1", "principal": "ann", "iat": NOW_MS // 1000, "exp": NOW_MS // 1000 + 60}


def mint(kind: Literal["client", "worker"] = "client", principal: str = "ann", life_ms: int = 60_000) -> str:
    """Make a token of this test."""
    said = Statement(kind, "s_1" if kind == "client" else "w_1", principal, auth_time=NOW_MS / 1000)
    return api_tokens.mint(said, KID, KEY, NOW_MS, life_ms)


def part(value: object) -> str:
    """Write a part of a token."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def signed(claims: object, header: dict[str, Any] | None = None, key: bytes = KEY) -> str:
    """Sign anything, with the right key unless another one is given."""
    text = f"{part(HEADER if header is None else header)}.{part(claims)}"
    signature = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(text.encode(), key)
    return f"{text}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def test_the_helpers_of_this_test_sign_as_signald_does() -> None:
    """Otherwise the refusals below would show nothing."""
    assert read(signed(CLAIMS), KEY, NOW_MS) == Statement("client", "s_1", "ann", NOW_MS // 1000, NOW_MS // 1000 + 60)


@pytest.mark.parametrize(
    ("kind", "principal", "caller"),
    [
        ("client", "", Caller("client", "", "", session="s_1")),
        ("client", "ann", Caller("client", "ann", "ann", session="s_1")),
        ("worker", f"acme{SEPARATOR}wes", Caller("worker", f"acme{SEPARATOR}wes", "wes", "acme", worker="w_1")),
        ("worker", f"{SEPARATOR}wes", Caller("worker", f"{SEPARATOR}wes", "wes", "", worker="w_1")),
    ],
)
def test_a_token_names_its_caller(kind: Literal["client", "worker"], principal: str, caller: Caller) -> None:
    """A client has its session, a worker its id, and both the subject and tenant of their principal."""
    said = read(mint(kind, principal), KEY, NOW_MS)
    assert said is not None
    assert said.caller == caller


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=200), st.integers(1, 10**8))
@settings(max_examples=examples(60))
def test_each_principal_comes_back_as_it_was(principal: str, life_ms: int) -> None:
    """Whatever a JWT may call its subject; and the token names its key before it is verified."""
    token = mint("client", principal, life_ms)
    assert kid_in(token) == KID
    assert token.isascii()
    said = read(token, KEY, NOW_MS + life_ms - 1)
    assert said is not None
    assert said.principal == principal


def test_a_token_says_when_its_holder_was_vouched_for() -> None:
    """To the millisecond, or not at all: a revocation voids what was issued before it."""
    said = read(mint(), KEY, NOW_MS)
    assert said is not None
    assert (said.auth_time, said.iat) == (NOW_MS / 1000, NOW_MS // 1000)
    unknown = read(signed(CLAIMS), KEY, NOW_MS)
    assert unknown is not None
    assert unknown.auth_time is None


def test_a_token_runs_out() -> None:
    """It is good for as long as its holder was told, and for less than a second more."""
    token = mint(life_ms=60_000)
    assert read(token, KEY, NOW_MS + 60_000) is not None
    assert read(token, KEY, NOW_MS + 61_000) is None


@pytest.mark.parametrize(
    "token",
    [
        signed(CLAIMS, key=signing_key(b"x" * 32)),
        signed(CLAIMS, key=SECRET),
        signed(CLAIMS | {"kind": "service"}),
        signed(CLAIMS | {"kind": "person"}),
        signed(CLAIMS | {"owner": ""}),
        signed(CLAIMS | {"owner": "s" * 200}),
        signed(CLAIMS | {"owner": 5}),
        signed(CLAIMS | {"principal": None}),
        signed(CLAIMS | {"exp": "1900000000"}),
        signed(CLAIMS | {"exp": 1.9e9}),
        signed(CLAIMS | {"exp": 2**60}),
        signed(CLAIMS | {"exp": -1}),
        signed(CLAIMS | {"exp": True}),
        signed({name: value for name, value in CLAIMS.items() if name != "exp"}),
        signed(CLAIMS | {"role": "service"}),
        signed([CLAIMS]),
        signed("text"),
        signed(CLAIMS, HEADER | {"typ": "JWT"}),
        signed(CLAIMS, HEADER | {"alg": "HS512"}),
        signed(CLAIMS, HEADER | {"alg": "none"}),
        signed(CLAIMS, HEADER | {"crit": ["exp"]}),
        signed(CLAIMS, HEADER | {"b64": False}),
        signed(CLAIMS, HEADER | {"jwk": {"kty": "oct"}}),
        signed(CLAIMS, {"alg": "HS256", "kid": KID}),
        f"{part(HEADER | {'alg': 'none'})}.{part(CLAIMS)}.",
        mint() + ".",
        mint() + "A",
        mint()[:-3],
        " " + mint(),
        mint() + "\n",
        mint().replace(".", ".."),
        "s_abc.c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2U",
        "",
    ],
)
def test_a_token_with_any_other_form_is_none(token: str) -> None:
    """Another key, algorithm, type, kind, bound or field: no caller."""
    assert read(token, KEY, NOW_MS) is None


def test_a_token_of_the_operator_is_no_api_token_and_the_other_way_round() -> None:
    """Although one text were the secret of both, neither can be shown in the place of the other."""
    claims = {"sub": "ann", "role": "client", "exp": NOW_MS // 1000 + 60}
    for header in (None, {"kid": KID}, {"kid": KID, "typ": TYPE}):
        assert read(jwt.encode(claims, SECRET, "HS256", headers=header), KEY, NOW_MS) is None
    options: Any = {"verify_exp": False}
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(mint(), SECRET, algorithms=["HS256"], options=options)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from(["kind", "owner", "principal", "iat", "exp", "x"]), _JSON, max_size=6),
    st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "b64", "zip"]), _JSON, max_size=4),
)
@settings(max_examples=examples(150))
def test_what_is_signed_and_odd_raises_nothing(claims: dict[str, Any], header: dict[str, Any]) -> None:
    """A statement that a broken or stolen key has signed is refused, or has the bounds of a statement."""
    for token in (signed(CLAIMS | claims), signed(CLAIMS, HEADER | header)):
        said = read(token, KEY, NOW_MS)
        assert said is None or (said.kind in ("client", "worker") and 0 < len(said.owner) <= 128)


@given(
    st.text(max_size=200)
    | st.lists(st.text(st.sampled_from('eyJ.-_=A0 {"\x00é\ud800'), max_size=60), max_size=4).map(".".join)
)
@example("." * 10_000)
@example("=" * 100 + "..")
@example(part([[[[]]]] * 3) + ".e30.")
@example("eyJ" + "a" * (TOKEN_CHARS_MAX + 1))
@example(base64.urlsafe_b64encode(b"[" * 5000).decode() + "..")
@settings(max_examples=examples(300))
def test_any_text_is_no_token_and_raises_nothing(text: str) -> None:
    """What comes in a header can be any text."""
    assert read(text, KEY, NOW_MS) is None


@given(st.data())
@settings(max_examples=examples(100))
def test_no_change_of_a_token_is_taken(data: st.DataObject) -> None:
    """A token whose header or statement was changed by a character is none, or says the same."""
    token = mint("client", "ann")
    place = data.draw(st.integers(0, token.rindex(".") - 1))
    other = data.draw(st.sampled_from("ABCDEFabcdef0123456789-_."))
    changed = token[:place] + other + token[place + 1 :]
    assert changed == token or read(changed, KEY, NOW_MS) is None
