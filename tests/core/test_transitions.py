"""The table of a pairing: every pair of state and event, the legal ones and all others."""

from itertools import product

import pytest

from signald.core.pairing import PAIRING, Pairing, PairingEvent
from signald.core.transitions import ImpossibleTransition, step

P, E = Pairing, PairingEvent

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
    *((P.NONE, event) for event in E if event is not E.END),
}


@pytest.mark.parametrize(("state", "event"), list(product(Pairing, PairingEvent)))
def test_every_pair_of_a_pairing_is_decided(state: Pairing, event: PairingEvent) -> None:
    """A pair is in the table, or refused with an error that changes nothing."""
    if (state, event) in IMPOSSIBLE:
        with pytest.raises(ImpossibleTransition, match="cannot happen"):
            step(PAIRING, state, event)
    else:
        after, told = step(PAIRING, state, event)
        assert after is not state or event is E.REPLACE
        if state is P.NONE:
            assert told is None, "a client that asked for no worker is told of none"
        elif event in TOLD:
            assert told == TOLD[event]
        elif state in (P.PAIRED, P.AWAY):
            assert told == "waiting", "who has had a worker learns that it has none"
        else:
            assert told is None, "who waits already is not told so again"


def test_nothing_follows_the_end() -> None:
    """An ended pairing stays ended, and every other state can end."""
    assert not [state for state, _ in PAIRING if state is P.ENDED]
    assert {state for state, event in PAIRING if event is E.END} == set(P) - {P.ENDED}
