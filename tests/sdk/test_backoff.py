"""Tests of when and where a party connects next."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signald.ids import SeededEntropy
from signald.sdk.backoff import DEFAULT_BACKOFF, MOVE_REST_S, Backoff, Schedule, endpoint, hint_ms


class High:
    """Entropy that always draws the upper bound."""

    def token_bytes(self, count: int, /) -> bytes:
        """Return zeros."""
        return bytes(count)

    def uniform(self, low: float, high: float, /) -> float:
        """Return `high`."""
        return high

    def shuffle(self, items: list[str], /) -> None:
        """Leave the order."""


def schedule(*urls: str, backoff: Backoff = DEFAULT_BACKOFF) -> Schedule:
    """A schedule whose jitter is at its upper bound."""
    return Schedule(urls or ("ws://a",), "/v1/client", backoff, High())


def test_delays_double_up_to_the_cap() -> None:
    """The upper bound is min(cap, base * 2^n), from the first try on."""
    plan = schedule()
    delays = []
    for _ in range(9):
        plan.failed(100.0, None, None)
        delays.append(plan.at - 100.0)
    assert delays == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 20.0, 20.0]


@given(st.integers(0, 10_000), st.integers(0, 2**32))
def test_jitter_is_full(tries: int, seed: int) -> None:
    """Any delay from zero to the bound may be drawn, however long the party has been trying."""
    assert 0.0 <= Backoff().delay_s(tries, SeededEntropy(seed)) <= 20.0


def test_a_plain_break_is_followed_by_a_quick_try() -> None:
    """Nothing said, or the node failed: at most a quarter of a second."""
    for code in (None, 1011, 1012, 4408, 4508, 4999):
        plan = schedule()
        plan.broken(100.0, code, "", announced=False)
        assert plan.at <= 100.25


def test_only_a_usable_session_resets_the_delays() -> None:
    """Connections that are accepted and then fail go on counting; an answer to the opening message starts anew."""
    plan = schedule()
    for _ in range(4):
        plan.failed(0.0, None, None)
    plan.broken(0.0, None, "", announced=False)
    assert plan.at == 4.0
    plan.usable()
    plan.broken(0.0, None, "", announced=False)
    assert plan.at == 0.25


def test_a_hint_replaces_the_schedule() -> None:
    """`retry_after_ms` is waited for, plus a quarter of it at most, plus a second at most."""
    plan = schedule()
    plan.failed(0.0, 1013, 400)
    assert plan.at == pytest.approx(0.5)
    plan.failed(0.0, 1013, 60_000)
    assert plan.at == pytest.approx(61.0)
    plan.broken(0.0, 4429, '{"retry_after_ms":2000}', announced=False)
    assert plan.at == pytest.approx(2.5)


def test_going_away_and_refused_without_a_hint_have_their_own_waits() -> None:
    """1001 that no goaway announced waits 5 s, 1013 without a hint 10 s; both are options; announced, nothing is waited."""
    plan = schedule(backoff=Backoff(hint_jitter=0.0))
    plan.broken(0.0, 1001, "", announced=False)
    assert plan.at == 5.0
    plan.failed(0.0, 1013, None)
    assert plan.at == 10.0
    plan = schedule(backoff=Backoff(going_away_s=1.0, hint_jitter=0.0))
    plan.broken(0.0, 1001, "", announced=False)
    assert plan.at == 1.0
    plan.broken(7.0, 1001, "", announced=True)
    assert plan.at == 7.0


@pytest.mark.parametrize(
    ("reason", "hint"),
    [
        ('{"retry_after_ms":250}', 250),
        ('{"retry_after_ms":0}', 0),
        ('{"retry_after_ms":-1}', None),
        ('{"retry_after_ms":true}', None),
        ('{"retry_after_ms":"1"}', None),
        ("{", None),
        ("{" * 100_000, None),
        ("{}", None),
        ("busy", None),
        ("", None),
    ],
)
def test_hints_are_read_from_close_reasons(reason: str, hint: int | None) -> None:
    """Only a non-negative integer is a hint; whatever else a reason says, nothing breaks."""
    assert hint_ms(reason) == hint


def test_urls_are_tried_in_order_and_a_round_counts_once() -> None:
    """The second URL is not punished for the first; after a break the order begins anew."""
    plan = schedule("ws://a", "ws://b", "ws://c")
    seen = []
    for _ in range(4):
        seen.append((plan.url(0.0), plan.at))
        plan.failed(0.0, None, None)
    assert [url[5] for url, _ in seen] == ["a", "b", "c", "a"]
    assert [at for _, at in seen[1:]] == [0.25, 0.25, 0.25]
    assert plan.at == 0.5
    plan.usable()
    plan.broken(0.0, None, "", announced=False)
    assert plan.url(0.0) == "ws://a/v1/client"


def test_a_goaway_target_is_tried_first_once_and_until_its_deadline() -> None:
    """One failure at the target, or its deadline, and the configured URLs are tried in order."""
    plan = schedule("ws://a", "ws://b")
    plan.moving(10.0, not_before_s=2.0, deadline_s=5.0, target="wss://c:1")
    assert (plan.at, plan.url(12.0)) == (12.0, "wss://c:1/v1/client")
    assert plan.url(15.0) == "ws://a/v1/client"
    plan.failed(12.0, None, None)
    assert plan.at <= 12.05
    assert plan.url(12.0) == "ws://a/v1/client"


def test_a_goaway_without_a_target_avoids_the_node_that_leaves() -> None:
    """With more than one URL the next one is tried first; with one (a balancer) it is that one."""
    plan = schedule("ws://a", "ws://b")
    plan.moving(0.0, not_before_s=0.0, deadline_s=5.0, target=None)
    assert plan.url(0.0) == "ws://b/v1/client"
    plan = schedule("ws://lb")
    plan.moving(0.0, not_before_s=0.0, deadline_s=5.0, target=None)
    assert plan.url(0.0) == "ws://lb/v1/client"


def test_a_target_that_makes_no_sense_is_no_hint() -> None:
    """A target that is no URL of signald is passed over."""
    plan = schedule("wss://a")
    plan.moving(0.0, not_before_s=0.0, deadline_s=5.0, target="http://a/?x")
    assert plan.url(0.0) == "wss://a/v1/client"
    plan.moving(0.0, not_before_s=0.0, deadline_s=5.0, target="b:99")
    assert plan.url(0.0) == "wss://b:99/v1/client"


def test_tries_end_when_their_owner_says_so() -> None:
    """`tries_max` failures in a row exhaust a schedule; by default nothing does."""
    plan = schedule(backoff=Backoff.patient())
    for _ in range(10):
        assert not plan.exhausted
        plan.failed(0.0, None, None)
    assert plan.exhausted


def test_a_device_waits_longer_than_a_patient_party_and_gives_up_as_early() -> None:
    """The waits of a device grow from 1 s to 60 s, those of a patient party to 30 s; both give up after ten tries."""
    device, patient, highest = Backoff.device(), Backoff.patient(), High()
    assert [round(device.delay_s(tries, highest)) for tries in (0, 1, 5, 6, 60)] == [1, 2, 32, 60, 60]
    assert [round(patient.delay_s(tries, highest)) for tries in (5, 60)] == [30, 30]
    assert device.tries_max == patient.tries_max == 10


@pytest.mark.parametrize("url", ["http://a", "ws://", "a:80", "ws://a?token=x", "ws://a/#x", ""])
def test_what_is_not_a_url_of_signald_is_refused(url: str) -> None:
    """Wrong scheme, no host, or a place where a secret would end up in logs."""
    with pytest.raises(ValueError, match=r"URL"):
        endpoint(url, "/v1/client")


def test_a_url_with_a_path_keeps_it() -> None:
    """Behind a proxy signald may live under a path of its own."""
    assert endpoint("wss://a:8443/x/client", "/v1/client") == "wss://a:8443/x/client"
    assert endpoint("ws://a/", "/v1/client") == "ws://a/v1/client"


def test_deploys_in_quick_succession_are_followed_in_time() -> None:
    """A hundred goaways, each soon after the last: no move waits longer than a second, so no node gives the party up."""
    plan = schedule()
    now = 100.0
    for _ in range(100):
        plan.usable(now)
        now += 3.0
        plan.moving(now, 0.0, 60.0, None)
        assert plan.at <= now + MOVE_REST_S
        now = plan.at
