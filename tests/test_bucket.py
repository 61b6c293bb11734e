"""The token bucket (signald/bucket.py)."""

from hypothesis import given
from hypothesis import strategies as st

from signald.bucket import BUCKETS_MAX, Buckets, TokenBucket

EXACT = 0.125
"""A step of time, and a rate, that floats hold exactly: sums of it carry no rounding."""


def test_a_new_bucket_gives_its_burst_and_then_nothing() -> None:
    """A bucket begins full: `burst` takes succeed, the next fails and takes nothing."""
    bucket = TokenBucket(1.0, 3, 0.0)
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]
    assert bucket.tokens == 0.0


def test_it_gains_by_the_second_up_to_its_burst() -> None:
    """A refill adds `per_s` for each second, and never fills the bucket above `burst`."""
    bucket = TokenBucket(2.0, 4, 0.0)
    while bucket.take():
        pass
    bucket.refill(1.0)
    assert bucket.tokens == 2.0
    bucket.refill(100.0)
    assert bucket.tokens == 4.0


def test_it_says_how_long_to_wait() -> None:
    """After `wait_s` there is a token, and not before."""
    bucket = TokenBucket(4.0, 1, 0.0)
    assert bucket.take()
    assert bucket.wait_s == 0.25
    bucket.refill(EXACT)
    assert not bucket.take()
    bucket.refill(2 * EXACT)
    assert bucket.take()


def test_what_arrives_at_once_after_a_pause_is_no_burst() -> None:
    """Owed seconds raise what a bucket may hold, by so many seconds of its rate."""
    bucket = TokenBucket(10.0, 20, 0.0)
    bucket.refill(30.0, 30.0)
    assert bucket.tokens == 20 + 300
    bucket.refill(30.0)
    assert bucket.tokens == 20


def test_a_bucket_is_full_when_a_refill_would_fill_it() -> None:
    """`is_full` tells of a time without a refill, which is when a bucket may be forgotten."""
    bucket = TokenBucket(1.0, 2, 0.0)
    assert bucket.is_full(0.0)
    assert bucket.take()
    assert not bucket.is_full(0.5)
    assert bucket.is_full(1.0)
    assert bucket.tokens == 1.0


@given(st.lists(st.integers(0, 40), max_size=60), st.integers(1, 5))
def test_no_more_passes_than_burst_and_rate_allow(steps: list[int], burst: int) -> None:
    """In any time no more passes than the burst and what was gained since."""
    per_s, now, passed = 4.0, 0.0, 0
    bucket = TokenBucket(per_s, burst, now)
    for step in steps:
        now += step * EXACT
        bucket.refill(now)
        passed += bucket.take()
        assert passed <= burst + now * per_s
        assert 0.0 <= bucket.tokens <= burst


def test_each_holder_has_a_bucket_of_its_own() -> None:
    """A refusal says how long to wait; a rate of 0 is none; another rate holds at once, for buckets that exist."""
    buckets = Buckets()
    assert [buckets.take("a", 0.5, 1, 0.0) for _ in range(2)] == [0.0, 2.0]
    assert buckets.take("b", 0.5, 1, 0.0) == 0.0
    assert buckets.take("a", 0.5, 1, 2.0) == 0.0
    assert buckets.take("a", 4.0, 1, 2.0) == 0.25
    assert buckets.take("a", 0.0, 1, 2.0) == 0.0


def test_holders_remembered_are_bounded() -> None:
    """Beyond the bound strangers share one bucket, and holders whose bucket is full again are forgotten."""
    buckets = Buckets()
    for number in range(BUCKETS_MAX):
        assert buckets.take(f"a{number}", 1.0, 1, 0.0) == 0.0
    assert buckets.take("stranger", 1.0, 1, 0.0) == 0.0
    assert buckets.take("another", 1.0, 1, 0.5) > 0
    assert len(buckets) == BUCKETS_MAX + 1
    assert buckets.take("later", 1.0, 1, 10.0) == 0.0
    assert len(buckets) == 1
