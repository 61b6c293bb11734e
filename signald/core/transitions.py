"""Looks up a transition in the table of a machine. The tables are `core.pairing.PAIRING` and `core.drain.DRAIN`.

A pair (state, event) that is not in a table is refused with `ImpossibleTransition` and changes nothing.
"""

from collections.abc import Mapping
from typing import TypeVar

from signald.errors import SignaldError


class ImpossibleTransition(SignaldError):
    """An event that cannot happen in this state: an error of ours."""


S = TypeVar("S")
E = TypeVar("E")
T = TypeVar("T")


def step(table: Mapping[tuple[S, E], T], state: S, event: E) -> T:
    """Look up one transition.

    Raises:
        ImpossibleTransition: the table has no such pair.
    """
    try:
        return table[state, event]
    except KeyError:
        raise ImpossibleTransition(f"{event} cannot happen in {state}") from None
