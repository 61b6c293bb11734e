"""Every transition of a pairing and of a drain, each as one table.

Theory of operation. A *pairing* is what a client is told about its worker. Nodes do not send each other events: a
node reads the session's head and works out which event must have happened (`core.session`), so several events may be
seen as one, and the table has a row for each such short cut. A *drain* is one pass from SIGTERM, or an operator's call,
to exit; every phase ends by `DONE` or by its budget (`BUDGET`), so that no phase can hold the next one up.

A pair (state, event) that is not in the table is refused with `ImpossibleTransition` and changes nothing.
"""

from collections.abc import Mapping
from enum import Enum
from itertools import pairwise
from typing import TypeVar

from signald.errors import SignaldError
from signald.wire.messages import PeerState


class ImpossibleTransition(SignaldError):
    """An event that cannot happen in this state: an error of ours."""


class Pairing(Enum):
    """How far a session is paired."""

    WAITING = "waiting"
    ASSIGNED = "assigned"
    PAIRED = "paired"
    AWAY = "away"
    ENDED = "ended"


class PairingEvent(Enum):
    """What happened to a pairing."""

    ASSIGN = "assign"
    """A worker has been chosen and asked."""
    ACCEPT = "accept"
    """The first worker of this session accepted."""
    REPLACE = "replace"
    """A worker accepted that is not the one the client knew."""
    DETACH = "detach"
    """The worker's connection is gone; it may resume."""
    ATTACH = "attach"
    """The worker resumed."""
    RELEASE = "release"
    """The session has no worker any more."""
    END = "end"


_P, _E = Pairing, PairingEvent

PAIRING: Mapping[tuple[Pairing, PairingEvent], tuple[Pairing, PeerState | None]] = {
    (_P.WAITING, _E.ASSIGN): (_P.ASSIGNED, None),
    (_P.WAITING, _E.ACCEPT): (_P.PAIRED, "paired"),
    (_P.WAITING, _E.REPLACE): (_P.PAIRED, "replaced"),
    (_P.WAITING, _E.DETACH): (_P.AWAY, "away"),
    (_P.WAITING, _E.END): (_P.ENDED, "gone"),
    (_P.ASSIGNED, _E.ACCEPT): (_P.PAIRED, "paired"),
    (_P.ASSIGNED, _E.REPLACE): (_P.PAIRED, "replaced"),
    (_P.ASSIGNED, _E.DETACH): (_P.AWAY, "away"),
    (_P.ASSIGNED, _E.RELEASE): (_P.WAITING, None),
    (_P.ASSIGNED, _E.END): (_P.ENDED, "gone"),
    (_P.PAIRED, _E.REPLACE): (_P.PAIRED, "replaced"),
    (_P.PAIRED, _E.DETACH): (_P.AWAY, "away"),
    (_P.PAIRED, _E.ASSIGN): (_P.ASSIGNED, "waiting"),
    (_P.PAIRED, _E.RELEASE): (_P.WAITING, "waiting"),
    (_P.PAIRED, _E.END): (_P.ENDED, "gone"),
    (_P.AWAY, _E.ATTACH): (_P.PAIRED, "paired"),
    (_P.AWAY, _E.REPLACE): (_P.PAIRED, "replaced"),
    (_P.AWAY, _E.ASSIGN): (_P.ASSIGNED, "waiting"),
    (_P.AWAY, _E.RELEASE): (_P.WAITING, "waiting"),
    (_P.AWAY, _E.END): (_P.ENDED, "gone"),
}
"""(state, event) → (next state, what the client is told)."""


class Phase(Enum):
    """The phases of a drain, in order."""

    RUNNING = "running"
    UNREADY = "unready"
    SUCCESSOR = "successor"
    WORKERS = "workers"
    CLIENTS = "clients"
    HOLD = "hold"
    """An operator's drain is through. The process stays: what did not move is still served, and a signal ends it."""
    TERMINATE = "terminate"
    FLUSH = "flush"
    CLOSE = "close"
    DONE = "done"


class DrainEvent(Enum):
    """What moves a drain on."""

    BEGIN = "begin"
    DONE = "done"
    """What the phase waits for has come."""
    BUDGET = "budget"
    """The phase's own time is over."""
    NO_SUCCESSOR = "no_successor"
    """The successor is lost, or none can come, and no other is ready: suspend; sessions resume when a node starts."""
    HURRY = "hurry"
    """A second signal."""
    STOP = "stop"
    """A third signal, or the deadline."""
    HELD = "held"
    """An operator's drain has moved whom it was to move, or its time is over: nobody is cut off for it."""
    ABORT = "abort"
    """An operator calls a drain off that no signal has begun."""
    EXTEND = "extend"
    """An operator's drain is to move others as well: it begins anew."""
    SIGNAL = "signal"
    """A signal makes an operator's drain final: it begins anew, for everybody, with the time that the supervisor grants."""


_D, _V = Phase, DrainEvent
_ORDER = (_D.UNREADY, _D.SUCCESSOR, _D.WORKERS, _D.CLIENTS, _D.TERMINATE, _D.FLUSH, _D.CLOSE, _D.DONE)

DRAIN: Mapping[tuple[Phase, DrainEvent], Phase] = (
    {
        (_D.RUNNING, _V.BEGIN): _D.UNREADY,
        (_D.WORKERS, _V.HELD): _D.HOLD,
        (_D.CLIENTS, _V.HELD): _D.HOLD,
        # A successor died before all parties had moved, and no other came in its place.
        (_D.WORKERS, _V.NO_SUCCESSOR): _D.TERMINATE,
        (_D.CLIENTS, _V.NO_SUCCESSOR): _D.TERMINATE,
        # A second signal ends all waiting for others: what is queued is still written.
        (_D.FLUSH, _V.HURRY): _D.CLOSE,
        (_D.CLOSE, _V.HURRY): _D.CLOSE,
        (_D.CLOSE, _V.STOP): _D.CLOSE,
        (_D.FLUSH, _V.STOP): _D.CLOSE,
    }
    | {
        pair: target
        for phase, after in pairwise(_ORDER)
        for pair, target in (((phase, _V.DONE), after), ((phase, _V.BUDGET), after))
    }
    # The budget of this phase is the only wait for a successor. Without one there is nothing to move, nor to wait for again;
    # where none can come there is not even this wait.
    | {(_D.SUCCESSOR, _V.BUDGET): _D.TERMINATE, (_D.SUCCESSOR, _V.NO_SUCCESSOR): _D.TERMINATE}
    | {
        pair: target
        # HOLD too: the second of two signals may come before the first has been heeded.
        for phase in (_D.UNREADY, _D.SUCCESSOR, _D.WORKERS, _D.CLIENTS, _D.HOLD, _D.TERMINATE)
        for pair, target in (
            ((phase, _V.HURRY), _D.FLUSH),
            ((phase, _V.STOP), _D.CLOSE),
        )
    }
    | {
        (phase, event): _D.RUNNING
        for phase in (_D.UNREADY, _D.SUCCESSOR, _D.WORKERS, _D.CLIENTS, _D.HOLD)
        for event in (_V.ABORT, _V.EXTEND, _V.SIGNAL)
    }
)
"""(phase, event) → next phase."""

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
