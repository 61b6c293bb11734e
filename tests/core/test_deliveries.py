"""What becomes of an event after an attempt, when the next one is, and how a receiver that is away is probed."""

import pytest

from signald.core.deliveries import (
    AWAY_FAILURES,
    FAILURES_MAX,
    PAUSE_FIRST_S,
    PAUSE_MAX_S,
    PAUSE_MIN_S,
    PROBE_MAX_S,
    RETRY_AFTER_MAX_S,
    Outcome,
    Reachability,
    judge,
    pause_s,
    retry_after_s,
)

NOW_S = 1_700_000_000.0


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, Outcome.DELIVERED),
        (204, Outcome.DELIVERED),
        (299, Outcome.DELIVERED),
        (301, Outcome.REFUSED),
        (400, Outcome.REFUSED),
        (404, Outcome.REFUSED),
        (408, Outcome.AWAY),
        (410, Outcome.GONE),
        (429, Outcome.AWAY),
        (500, Outcome.AWAY),
        (503, Outcome.AWAY),
        (999, Outcome.AWAY),
        (0, Outcome.REFUSED),
    ],
)
def test_outcomes(status: int, outcome: Outcome) -> None:
    """Only 2xx is a success, and only 410 ends the telling."""
    assert judge(status) is outcome


def test_pauses() -> None:
    """The bound doubles from the first to the last; the jitter is full, and never nothing."""
    bounds = [pause_s(failures, 1.0) for failures in range(1, 15)]
    assert bounds[:3] == [PAUSE_FIRST_S, 2 * PAUSE_FIRST_S, 4 * PAUSE_FIRST_S]
    assert bounds == sorted(bounds)
    assert bounds[-1] == pause_s(FAILURES_MAX, 1.0) == PAUSE_MAX_S
    assert pause_s(12, 0.0) == PAUSE_MIN_S
    assert pause_s(5, 0.5) == bounds[4] / 2


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120.0),
        (" 7 ", 7.0),
        ("0", 0.0),
        ("999999", RETRY_AFTER_MAX_S),
        ("9" * 5000, RETRY_AFTER_MAX_S),
        ("", 0.0),
        ("-5", 0.0),
        ("soon", 0.0),
        ("²", 0.0),
        ("Tue, 14 Nov 2023 22:14:20 GMT", 60.0),
        ("Tue, 14 Nov 2023 22:12:20 GMT", 0.0),
        ("Tue, 14 Nov 2090 22:12:20 GMT", RETRY_AFTER_MAX_S),
        ("Tue, 99 Nov 2023 22:14:20 GMT", 0.0),
    ],
)
def test_retry_after(text: str, seconds: float) -> None:
    """Seconds and dates are read, bounded by an hour; anything else asks for nothing."""
    assert retry_after_s(text, NOW_S) == seconds


def test_a_receiver_that_is_away_is_probed_by_one_at_a_time() -> None:
    """After some failures in a row no queue is taken until a probe is due, and then one."""
    reachability = Reachability()
    for _ in range(AWAY_FAILURES - 1):
        assert not reachability.note(Outcome.AWAY, 0.0, 1.0)
        assert reachability.room(16, 0.0) == 16
    assert reachability.note(Outcome.AWAY, 0.0, 1.0)
    assert reachability.room(16, 0.9) == 0
    assert reachability.room(16, 1.0) == 1
    assert reachability.room(0, 1.0) == 0
    reachability.probing = True
    assert reachability.room(16, 1.0) == 0


def test_failures_from_before_say_nothing_new() -> None:
    """Attempts that were under way when the receiver was found away do not put its next probe off."""
    reachability = Reachability(AWAY_FAILURES - 1)
    for _ in range(16):
        reachability.note(Outcome.AWAY, 10.0, 1.0)
    assert reachability.failures == AWAY_FAILURES
    assert reachability.room(16, 11.0) == 1


def test_probes_come_more_rarely_and_never_stop() -> None:
    """The pause between two probes doubles up to its bound."""
    reachability, now, pauses = Reachability(AWAY_FAILURES - 1), 0.0, []
    for _ in range(10):
        reachability.note(Outcome.AWAY, now, 1.0)
        pauses.append(reachability.probe_at - now)
        now = reachability.probe_at
    assert pauses[:3] == [1.0, 2.0, 4.0]
    assert pauses[-1] == PROBE_MAX_S


@pytest.mark.parametrize("outcome", [Outcome.DELIVERED, Outcome.REFUSED, Outcome.GONE])
def test_any_answer_shows_that_it_is_back(outcome: Outcome) -> None:
    """Then all queues are taken again."""
    reachability = Reachability(AWAY_FAILURES - 1)
    reachability.note(Outcome.AWAY, 0.0, 1.0)
    assert reachability.note(outcome, 2.0, 1.0)
    assert reachability.room(16, 2.0) == 16
    assert not reachability.note(outcome, 2.0, 1.0)


def test_a_receiver_that_asks_for_time_gets_it() -> None:
    """With `Retry-After` all queues wait, at the first answer."""
    reachability = Reachability()
    assert reachability.note(Outcome.AWAY, 0.0, 1.0, 60.0)
    assert reachability.room(16, 59.0) == 0
    assert reachability.room(16, 60.0) == 1
