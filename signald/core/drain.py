"""The machine of a drain: its phases, what moves it on, and every transition in one table.

A drain is one pass from SIGTERM, or an operator's call, to exit. Every phase ends by `DONE` or by its budget (`BUDGET`), so
that no phase can hold the next one up. `service.drain.shutdown` carries the phases out.
"""

from collections.abc import Mapping
from enum import Enum
from itertools import pairwise


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
