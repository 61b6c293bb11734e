"""One run at a time, and one more for all that was asked for meanwhile (signald/core/once_more.py)."""

from hypothesis import given
from hypothesis import strategies as st

from signald.core.once_more import OnceMore


def test_the_first_request_begins_a_run() -> None:
    """Without a run under way the caller begins one; nothing is asked for again."""
    runs = OnceMore()
    assert runs.begin()
    assert not runs.end()


def test_requests_during_a_run_are_one_more_run() -> None:
    """However many requests come during a run, the end of it tells of one more."""
    runs = OnceMore()
    assert runs.begin()
    assert [runs.begin() for _ in range(3)] == [False, False, False]
    assert runs.end()
    assert runs.begin()
    assert not runs.end()


@given(st.lists(st.booleans(), max_size=40))
def test_no_request_is_left_without_a_run_that_began_after_it(steps: list[bool]) -> None:
    """Each request is followed by the beginning of a run, at once or when the run under way has ended."""
    runs, waiting = OnceMore(), False
    for request in steps:
        if request:
            waiting = not runs.begin()
        elif runs.running and runs.end():
            assert waiting
            assert runs.begin()
            waiting = False
    if waiting:
        assert runs.running
        assert runs.end()
