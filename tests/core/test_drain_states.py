"""The table of a drain: every pair of state and event."""

from itertools import pairwise, product

import pytest

from signald.core.drain import (
    DRAIN,
    FINAL,
    LEAVING,
    OPERATORS,
    REFUSED,
    DrainEvent,
    DrainState,
    Phase,
    WhyLeft,
    why_left,
)
from signald.core.transitions import ImpossibleTransition, step

S, V = DrainState, DrainEvent

ORDER = [S.ASKED, S.UNREADY, S.SUCCESSOR, S.WORKERS, S.CLIENTS, S.TERMINATE, S.FLUSH, S.CLOSE, S.DONE]
"""A final drain that nothing hurries."""

OPERATORS_ORDER = [
    S.OPERATOR_ASKED, S.OPERATOR_UNREADY, S.OPERATOR_SUCCESSOR, S.OPERATOR_WORKERS, S.OPERATOR_CLIENTS, S.RECEIPT, S.HOLD,
]  # fmt: skip


@pytest.mark.parametrize(("state", "event"), list(product(DrainState, DrainEvent)))
def test_every_pair_is_a_transition_or_a_refusal(state: DrainState, event: DrainEvent) -> None:
    """Each event in each state leads somewhere, or is refused for a reason and changes nothing; never both."""
    if (state, event) in DRAIN:
        assert (state, event) not in REFUSED
        assert isinstance(step(DRAIN, state, event), DrainState)
    else:
        assert REFUSED[state, event]
        with pytest.raises(ImpossibleTransition, match="cannot happen"):
            step(DRAIN, state, event)


def test_every_state_is_of_one_kind_and_can_be_reached() -> None:
    """A state is that of an operator's drain, of a final one, or of none; each is the target of a transition."""
    assert OPERATORS | FINAL | {S.SERVING} == set(DrainState)
    assert not OPERATORS & FINAL
    assert set(DRAIN.values()) == set(DrainState)
    assert {state.phase for state in DrainState} - {None} == set(Phase)
    assert {state for state in DrainState if state.phase is None} == {*LEAVING, S.RECEIPT}


def test_a_final_drain_goes_on_by_what_it_waits_for_and_by_its_budgets() -> None:
    """Each phase leads to the next, in time or not; without a successor there is nothing to move."""
    assert step(DRAIN, S.SERVING, V.SIGNAL) is S.ASKED
    assert step(DRAIN, S.ASKED, V.BEGIN) is S.UNREADY
    for before, after in pairwise(ORDER[1:]):
        assert step(DRAIN, before, V.DONE) is after
        assert step(DRAIN, before, V.BUDGET) is (S.TERMINATE if before is S.SUCCESSOR else after)
    for state in (S.SUCCESSOR, S.WORKERS, S.CLIENTS):
        assert step(DRAIN, state, V.NO_SUCCESSOR) is S.TERMINATE


def test_an_operators_drain_ends_in_hold() -> None:
    """It goes the same way as far as its parties; its receipt is stored before HOLD is shown."""
    assert step(DRAIN, S.SERVING, V.ASK) is S.OPERATOR_ASKED
    assert step(DRAIN, S.OPERATOR_ASKED, V.BEGIN) is S.OPERATOR_UNREADY
    for before, after in pairwise(OPERATORS_ORDER[1:]):
        assert step(DRAIN, before, V.DONE) is after
    assert step(DRAIN, S.OPERATOR_WORKERS, V.HELD) is S.RECEIPT


@pytest.mark.parametrize("state", OPERATORS_ORDER, ids=lambda state: state.name)
def test_an_operators_drain_is_called_off_or_made_final(state: DrainState) -> None:
    """It can be called off at any moment, and a signal makes it final at any moment, also one that was called off."""
    recalled = step(DRAIN, state, V.ABORT)
    assert LEAVING[recalled] is S.SERVING
    assert step(DRAIN, recalled, V.SIGNAL) is S.RENEWED
    final = step(DRAIN, state, V.SIGNAL)
    assert final.final
    assert LEAVING.get(final, final) is S.ASKED
    assert (final, V.ABORT) in REFUSED


@pytest.mark.parametrize("state", ORDER[:-1], ids=lambda state: state.name)
def test_further_signals_hurry_a_final_drain(state: DrainState) -> None:
    """The second skips to FLUSH, the third to CLOSE; there only the fourth counts, which ends the closing handshakes."""
    second = step(DRAIN, state, V.SIGNAL)
    if state is S.CLOSE:
        assert second is S.CLOSE
        assert LEAVING[step(DRAIN, state, V.CUT)] is S.DONE
        return
    assert LEAVING[second] is (S.CLOSE if state is S.FLUSH else S.FLUSH)
    assert LEAVING[step(DRAIN, second, V.SIGNAL)] is S.CLOSE


def test_whatever_ends_a_phase_that_is_left_leads_on() -> None:
    """A phase that a signal or an operator ends may end by itself in the same moment: that changes nothing."""
    for state, target in LEAVING.items():
        for event in (V.BEGIN, V.DONE, V.BUDGET, V.NO_SUCCESSOR, V.HELD):
            assert step(DRAIN, state, event) is target


def test_nothing_follows_the_end() -> None:
    """A drain that is over stays over."""
    assert {after for (state, _), after in DRAIN.items() if state is S.DONE} == {S.DONE}


def test_why_parties_are_left() -> None:
    """No successor counts most, then a signal that ended the drain early, then that there was no time."""
    left = WhyLeft.NOT_IN_TIME
    assert why_left(left, S.CLIENTS, V.BUDGET) is left
    assert why_left(left, S.HURRIED, V.BUDGET) is WhyLeft.SIGNALLED
    alone = why_left(left, S.SUCCESSOR, V.BUDGET)
    assert alone is why_left(left, S.WORKERS, V.NO_SUCCESSOR) is WhyLeft.ALONE
    assert why_left(alone, S.STOPPED, V.BUDGET) is WhyLeft.ALONE
