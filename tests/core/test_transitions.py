"""The two tables: every pair of state and event, the legal ones and all others."""

from itertools import product

import pytest

from signald.core.drain import DRAIN, DrainEvent, Phase
from signald.core.pairing import PAIRING, Pairing, PairingEvent
from signald.core.transitions import ImpossibleTransition, step

P, E, V = Pairing, PairingEvent, DrainEvent

TOLD = {
    E.ACCEPT: "paired",
    E.REPLACE: "replaced",
    E.DETACH: "away",
    E.ATTACH: "paired",
    E.END: "gone",
}
"""What a client is told of an event, wherever it comes; the others depend on what it was told before."""

IMPOSSIBLE = {
    (P.WAITING, E.ATTACH),
    (P.WAITING, E.RELEASE),
    (P.ASSIGNED, E.ASSIGN),
    (P.ASSIGNED, E.ATTACH),
    (P.PAIRED, E.ACCEPT),
    (P.PAIRED, E.ATTACH),
    (P.AWAY, E.ACCEPT),
    (P.AWAY, E.DETACH),
    *((P.ENDED, event) for event in E),
}

ORDER = [
    Phase.UNREADY, Phase.SUCCESSOR, Phase.WORKERS, Phase.CLIENTS, Phase.TERMINATE, Phase.FLUSH, Phase.CLOSE, Phase.DONE,
]  # fmt: skip


@pytest.mark.parametrize(("state", "event"), list(product(Pairing, PairingEvent)))
def test_every_pair_of_a_pairing_is_decided(state: Pairing, event: PairingEvent) -> None:
    """A pair is in the table, or refused with an error that changes nothing."""
    if (state, event) in IMPOSSIBLE:
        with pytest.raises(ImpossibleTransition, match="cannot happen"):
            step(PAIRING, state, event)
    else:
        after, told = step(PAIRING, state, event)
        assert after is not state or event is E.REPLACE
        if event in TOLD:
            assert told == TOLD[event]
        elif state in (P.PAIRED, P.AWAY):
            assert told == "waiting", "who has had a worker learns that it has none"
        else:
            assert told is None, "who waits already is not told so again"


def test_nothing_follows_the_end() -> None:
    """An ended pairing stays ended, and every other state can end."""
    assert not [state for state, _ in PAIRING if state is P.ENDED]
    assert {state for state, event in PAIRING if event is E.END} == set(P) - {P.ENDED}


@pytest.mark.parametrize(("phase", "event"), list(product(Phase, DrainEvent)))
def test_every_pair_of_a_drain_is_decided(phase: Phase, event: DrainEvent) -> None:
    """A phase goes on by DONE and BUDGET, and is hurried and stopped; all else is refused.

    What needs a successor ends without one: the budget of SUCCESSOR is the one wait for it.
    Before TERMINATE an operator's drain is called off, or begun anew by a signal; what
    it moves is followed by HOLD, which ends by that, or by two signals at once.
    """
    wanted: Phase | None = None
    before_flush = phase in ORDER[: ORDER.index(Phase.FLUSH)]
    operators = phase in (*ORDER[: ORDER.index(Phase.TERMINATE)], Phase.HOLD)
    if event is V.BEGIN:
        wanted = Phase.UNREADY if phase is Phase.RUNNING else None
    elif (phase, event) == (Phase.SUCCESSOR, V.BUDGET):
        wanted = Phase.TERMINATE
    elif event in (V.DONE, V.BUDGET):
        wanted = ORDER[ORDER.index(phase) + 1] if phase in ORDER[:-1] else None
    elif event is V.NO_SUCCESSOR:
        wanted = Phase.TERMINATE if phase in (Phase.SUCCESSOR, Phase.WORKERS, Phase.CLIENTS) else None
    elif event in (V.ABORT, V.EXTEND, V.SIGNAL):
        wanted = Phase.RUNNING if operators else None
    elif event is V.HELD:
        wanted = Phase.HOLD if phase in (Phase.WORKERS, Phase.CLIENTS) else None
    elif phase in (Phase.FLUSH, Phase.CLOSE):
        wanted = Phase.CLOSE
    elif before_flush or phase is Phase.HOLD:
        wanted = Phase.FLUSH if event is V.HURRY else Phase.CLOSE
    if wanted is None:
        with pytest.raises(ImpossibleTransition):
            step(DRAIN, phase, event)
    else:
        assert step(DRAIN, phase, event) is wanted


def test_a_drain_only_goes_on() -> None:
    """Bounded: every transition leads to a later phase, but for an operator's drain, and signals that come during CLOSE."""
    for (phase, event), after in DRAIN.items():
        if event in (V.BEGIN, V.ABORT, V.EXTEND, V.SIGNAL, V.HELD):
            continue
        if phase is Phase.HOLD:
            assert after in (Phase.FLUSH, Phase.CLOSE)
            continue
        stays = phase is after is Phase.CLOSE and event in (V.HURRY, V.STOP)
        assert stays or ORDER.index(after) > ORDER.index(phase)
