"""Failed hand-outs: what is counted where, how long a session pauses, and when it is set aside."""

import pytest

from signald.core.failures import CLOCK_SET_MS, NO_FAILURES, PAUSE_REFUSED_S, PAUSES_S, SPREAD, Failures

NOW_MS = 1_700_000_000_000


def test_counted_at_one_message() -> None:
    """Failures add up at the same message only, and stand no longer than it is the first that is not acked."""
    two = NO_FAILURES.add(3, NOW_MS, 3).add(3, NOW_MS + 1, 3)
    assert two == Failures(3, 2, NOW_MS + 1, False)
    assert two.current(2) == two
    assert two.current(3) == NO_FAILURES
    assert two.add(4, NOW_MS, 3) == Failures(4, 1, NOW_MS, False)
    assert two.add(3, NOW_MS + 2, 3) == Failures(3, 3, NOW_MS + 2, True)
    assert NO_FAILURES.add(1, NOW_MS, 1).set_aside


def test_pauses() -> None:
    """The first retry after a loss is immediate; pauses grow, are bounded, and three hand-outs at most fall into 5 s."""
    lost = [Failures(1, count).pause_s(refused=False, spread=1.0) for count in range(1, 8)]
    refused = [Failures(1, count).pause_s(refused=True, spread=1.0) for count in range(1, 8)]
    assert lost[0] == 0.0
    assert refused[0] == PAUSE_REFUSED_S
    assert lost[1:] == refused[1:] == sorted(refused[1:])
    assert max(lost) == PAUSES_S[-1]
    assert all(sum(lost[place : place + 3]) > 5 for place in range(4))
    assert sum(Failures(1, count).pause_s(refused=True, spread=SPREAD) for count in range(1, 5)) <= 61


@pytest.mark.parametrize("count", [1, 2, 5])
def test_may_queue(count: int) -> None:
    """A session waits in line again when the longest pause it may have is over; a clock that was set back does not hold it."""
    failures = Failures(1, count, NOW_MS)
    pause_ms = int(failures.pause_s(refused=True, spread=SPREAD) * 1000)
    assert not failures.may_queue(NOW_MS + pause_ms - 1)
    assert failures.may_queue(NOW_MS + pause_ms)
    assert not failures.may_queue(NOW_MS - CLOCK_SET_MS)
    assert failures.may_queue(NOW_MS - CLOCK_SET_MS - 1)


def test_set_aside_never_waits() -> None:
    """However long ago it was; and a session that has not failed always may."""
    assert not Failures(1, 5, NOW_MS, True).may_queue(NOW_MS + 10**9)
    assert NO_FAILURES.may_queue(0)
