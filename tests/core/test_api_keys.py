"""The keys of API tokens: no rotation refuses a token, however the readings of the nodes fall."""

from hypothesis import given, settings
from hypothesis import strategies as st

from signald.core.api_keys import KEYS_MAX, LEAD_MS, READ_EVERY_S, ApiKey, kid_of, renewed, signer, signing_key
from tests.examples import examples

ROTATE_MS, LIFE_MS = 600_000, 120_000
READ_EVERY_MS = round(READ_EVERY_S * 1000)


def test_a_key_shows_no_secret() -> None:
    """Neither its text nor its id, nor what it signs with, is the secret."""
    secret = b"0123456789abcdef" * 2
    assert "0123456789" not in repr(ApiKey(1, 2, secret))
    assert kid_of(secret) in repr(ApiKey(1, 2, secret))
    assert secret not in (kid_of(secret).encode(), signing_key(secret))
    assert kid_of(secret) != kid_of(bytes(32))


def test_the_signer_is_the_latest_that_has_begun() -> None:
    """An announced key does not sign yet, unless the clock was set back behind all of them."""
    one, two = ApiKey(10, 5, bytes(32)), ApiKey(20, 5, bytes([1]) * 32)
    assert [signer((one, two), now) for now in (5, 10, 19, 20, 99)] == [one, one, one, two, two]
    assert signer((), 5) is None


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(READ_EVERY_MS // 2, READ_EVERY_MS), st.booleans()),
        min_size=80,
        max_size=200,
    ),
    st.sampled_from([LIFE_MS, 7 * LIFE_MS]),
)
@settings(max_examples=examples(30))
def test_no_rotation_refuses_a_token(readings: list[tuple[int, int, bool]], life_of_b_ms: int) -> None:
    """Every node knows each key before it signs, and keeps it until its last token has run out.

    Three nodes read when it pleases them, one in three times in vain, and never more than half of a lead apart; one of them lets its tokens
    live longer. At each step each node signs, and all live tokens are verified at all nodes.
    """
    lives = {0: LIFE_MS, 1: life_of_b_ms, 2: LIFE_MS}
    kept: tuple[ApiKey, ...] = ()
    known: dict[int, tuple[ApiKey, ...]] = {0: (), 1: (), 2: ()}
    read_ms = {0: 0, 1: 0, 2: 0}
    live: dict[bytes, int] = {}
    signed: set[bytes] = set()
    now_ms = 1_000_000
    number = 0

    def read(node: int) -> None:
        nonlocal kept, number
        number += 1
        kept = renewed(kept, known[node], number.to_bytes(32, "big"), now_ms, ROTATE_MS, lives[node])
        known[node] = kept
        read_ms[node] = now_ms

    for node in known:
        read(node)
    for chosen, step_ms, in_vain in readings:
        now_ms += step_ms
        for node in known:
            if (node == chosen and not in_vain) or now_ms - read_ms[node] > LEAD_MS // 2:
                read(node)
        assert 1 <= len(kept) <= 2
        for node, keys in known.items():
            key = signer(keys, now_ms)
            assert key is not None
            live[key.secret] = max(live.get(key.secret, 0), now_ms + lives[node])
            signed.add(key.secret)
        wanted = {secret for secret, until_ms in live.items() if until_ms > now_ms}
        for keys in known.values():
            assert wanted <= {key.secret for key in keys}
    assert len(signed) > 1 or now_ms < 1_000_000 + ROTATE_MS + 2 * LEAD_MS


_keys = st.lists(
    st.builds(ApiKey, st.integers(0, 2 * 10**6), st.integers(0, 10**6), st.binary(min_size=32, max_size=32)),
    max_size=KEYS_MAX,
    unique_by=lambda key: key.signs_from_ms,
)


@given(_keys, _keys, st.integers(2 * 10**6, 10**7))
@settings(max_examples=examples(100))
def test_reading_twice_is_reading_once(kept: list[ApiKey], known: list[ApiKey], now_ms: int) -> None:
    """A reading whose outcome was lost is sent again; keys are bounded and in order of their first signature."""
    known = [key for key in known if key.signs_from_ms not in {one.signs_from_ms for one in kept}]
    once = renewed(kept, known, b"c" * 32, now_ms, ROTATE_MS, LIFE_MS)
    assert renewed(once, known, b"c" * 32, now_ms, ROTATE_MS, LIFE_MS) == once
    assert 1 <= len(once) <= KEYS_MAX
    assert list(once) == sorted(once, key=lambda key: key.signs_from_ms)
