"""The circuit breaker."""

from hypothesis import given
from hypothesis import strategies as st

from signald.core.breaker import Breaker


def test_its_way_round() -> None:
    """Closed until enough failures in a row, open for the pause, then one trial, whose end decides."""
    breaker = Breaker(3, 5.0)
    assert [breaker.failed(now) for now in (0.0, 1.0)] == [False, False]
    assert breaker.succeeded() is False
    assert [breaker.failed(now) for now in (2.0, 3.0, 4.0)] == [False, False, True]
    assert breaker.state(8.9) == "open"
    assert not breaker.admits(8.9)
    assert breaker.state(9.0) == "trying"
    assert [breaker.admits(now) for now in (9.0, 9.0, 13.9)] == [True, False, False]
    assert breaker.failed(10.0) is False
    assert [breaker.admits(now) for now in (14.9, 15.0)] == [False, True]
    assert breaker.succeeded() is True
    assert breaker.state(15.0) == "closed"
    assert [breaker.admits(15.0) for _ in range(3)] == [True] * 3


def test_a_trial_that_never_ends() -> None:
    """A trial whose caller was cancelled lets the next one through after another pause."""
    breaker = Breaker(1, 5.0)
    breaker.failed(0.0)
    assert [breaker.admits(now) for now in (5.0, 9.9, 10.0)] == [True, False, True]


@given(st.lists(st.tuples(st.floats(0, 3), st.sampled_from(["ask", "yes", "no"]))), st.integers(1, 4))
def test_a_server_that_is_away_is_left_alone(steps: list[tuple[float, str]], failures_max: int) -> None:
    """While it is open, at most one call is let through in each pause."""
    breaker, now, let = Breaker(failures_max, 5.0), 0.0, -10.0
    for passed, step in steps:
        now += passed
        if step == "yes":
            breaker.succeeded()
        elif step == "no":
            breaker.failed(now)
        else:
            is_closed = breaker.state(now) == "closed"
            if breaker.admits(now) and not is_closed:
                assert now - let >= 5.0
                let = now
