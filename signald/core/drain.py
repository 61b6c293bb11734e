"""The machine of a drain: its states, the events that move it on, and every transition in one table.

A drain is one pass from a signal, or from an operator's request, to the exit. Two kinds have most phases in common:

* A *final* drain begins with a signal and ends the process. Each of its phases ends by what it waits for or by its budget.
* An *operator's* drain moves parties and cuts none off. It ends in HOLD: the process stays and serves the parties that stayed.
  An operator can call it off (RECALLED) or widen it (EXTENDED), and a signal makes it final (RENEWED).

One task carries the phases out (`service.drain.shutdown`). Signals and operators come at any moment, so they change the state
at once, to one that says where the task goes next: EXTENDED, RECALLED, RENEWED, HURRIED, STOPPED, CUT. The task is still
leaving its phase then; whatever ends the work of that phase leads to the same state.

Each pair of state and event is a transition in `DRAIN` or a refusal in `REFUSED`, with its reason.
"""

from collections.abc import Iterable, Mapping
from enum import Enum
from itertools import product


class Phase(Enum):
    """What the task of a drain does, in order. Logs, receipts and status pages show the values."""

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


class DrainState(Enum):
    """How far a drain is, and of which kind it is."""

    SERVING = "serving"
    """There is no drain."""

    OPERATOR_ASKED = "operator_asked"
    """An operator has asked for a drain, and its task has not begun."""
    OPERATOR_UNREADY = "operator_unready"
    OPERATOR_SUCCESSOR = "operator_successor"
    OPERATOR_WORKERS = "operator_workers"
    OPERATOR_CLIENTS = "operator_clients"
    RECEIPT = "held"
    """All that moves has moved, or the time is over: the receipt is stored before HOLD is shown, so that it can be read then."""
    HOLD = "hold"
    EXTENDED = "extend"
    """The operator's drain is to move other parties as well: it begins again."""
    RECALLED = "abort"
    """The operator's drain is called off."""
    RENEWED = "signal"
    """A signal has made the operator's drain final: it begins again, with the time that the supervisor grants."""

    ASKED = "asked"
    """A signal has come, and the task of the drain has not begun."""
    UNREADY = "unready"
    SUCCESSOR = "successor"
    WORKERS = "workers"
    CLIENTS = "clients"
    TERMINATE = "terminate"
    FLUSH = "flush"
    CLOSE = "close"
    HURRIED = "hurry"
    """A second signal ends all waiting for others: what is queued is still written."""
    STOPPED = "stop"
    """A third signal: the goodbyes are said at once."""
    CUT = "cut"
    """A fourth signal: the closing handshakes are not waited for."""
    DONE = "done"

    @property
    def phase(self) -> Phase | None:
        """What the task does in this state; None while it leaves the phase before."""
        return _PHASES.get(self)

    @property
    def final(self) -> bool:
        """True when the process ends by this drain."""
        return self in FINAL


class DrainEvent(Enum):
    """What moves a drain on."""

    ASK = "ask"
    """An operator asks for a drain."""
    EXTEND = "extend"
    """An operator asks to move other parties as well."""
    ABORT = "abort"
    """An operator calls the drain off."""
    SIGNAL = "signal"
    """One of the first three signals."""
    CUT = "cut"
    """A signal after those."""
    USURP = "usurp"
    """Another process has taken the id of this node."""

    BEGIN = "begin"
    """The task of the drain begins."""
    DONE = "done"
    """What the phase waits for has come."""
    BUDGET = "budget"
    """The time of the phase is over, or its work was interrupted."""
    NO_SUCCESSOR = "no_successor"
    """The successor is lost, or none can come, and no other is ready: suspend; sessions resume when a node starts."""
    HELD = "held"
    """The workers are through, or their time is over, in an operator's drain that moves no clients."""


_S, _E = DrainState, DrainEvent
_Pair = tuple[DrainState, DrainEvent]

_PHASES: Mapping[DrainState, Phase] = {
    _S.SERVING: Phase.RUNNING,
    _S.OPERATOR_ASKED: Phase.RUNNING,
    _S.OPERATOR_UNREADY: Phase.UNREADY,
    _S.OPERATOR_SUCCESSOR: Phase.SUCCESSOR,
    _S.OPERATOR_WORKERS: Phase.WORKERS,
    _S.OPERATOR_CLIENTS: Phase.CLIENTS,
    _S.HOLD: Phase.HOLD,
    _S.ASKED: Phase.RUNNING,
    _S.UNREADY: Phase.UNREADY,
    _S.SUCCESSOR: Phase.SUCCESSOR,
    _S.WORKERS: Phase.WORKERS,
    _S.CLIENTS: Phase.CLIENTS,
    _S.TERMINATE: Phase.TERMINATE,
    _S.FLUSH: Phase.FLUSH,
    _S.CLOSE: Phase.CLOSE,
    _S.DONE: Phase.DONE,
}

LEAVING: Mapping[DrainState, DrainState] = {
    _S.EXTENDED: _S.OPERATOR_ASKED,
    _S.RECALLED: _S.SERVING,
    _S.RENEWED: _S.ASKED,
    _S.HURRIED: _S.FLUSH,
    _S.STOPPED: _S.CLOSE,
    _S.CUT: _S.DONE,
}
"""States in which the task leaves a phase → the state that follows, whatever ends the work of that phase."""

OPERATORS = frozenset(
    {
        _S.OPERATOR_ASKED,
        _S.OPERATOR_UNREADY,
        _S.OPERATOR_SUCCESSOR,
        _S.OPERATOR_WORKERS,
        _S.OPERATOR_CLIENTS,
        _S.RECEIPT,
        _S.HOLD,
        _S.EXTENDED,
        _S.RECALLED,
    }
)
"""The states of an operator's drain."""

FINAL = frozenset(DrainState) - OPERATORS - {_S.SERVING}
"""The states of a drain that ends the process."""

_BEGUN = OPERATORS - {_S.OPERATOR_ASKED, _S.RECALLED}
"""An operator's drain with a phase that can be left for another beginning."""

_HURRIED_BY_A_SIGNAL = FINAL - {_S.FLUSH, _S.HURRIED, _S.STOPPED, _S.CLOSE, _S.CUT, _S.DONE}
"""A final drain that waits for others."""

_TASK = (_E.BEGIN, _E.DONE, _E.BUDGET, _E.NO_SUCCESSOR, _E.HELD)
"""Events of the task of a drain; the others come from outside."""


def _all(states: Iterable[DrainState], events: Iterable[DrainEvent], target: DrainState) -> dict[_Pair, DrainState]:
    return dict.fromkeys(product(states, events), target)


_ENDS = (_E.DONE, _E.BUDGET)
_SIGNALS = (_E.SIGNAL, _E.CUT)

DRAIN: Mapping[_Pair, DrainState] = {
    # An operator's drain.
    (_S.SERVING, _E.ASK): _S.OPERATOR_ASKED,
    (_S.OPERATOR_ASKED, _E.BEGIN): _S.OPERATOR_UNREADY,
    **_all([_S.OPERATOR_UNREADY], _ENDS, _S.OPERATOR_SUCCESSOR),
    # It cuts off no party, so it has time: SUCCESSOR has no budget, and parties whose successor is lost wait for another.
    (_S.OPERATOR_SUCCESSOR, _E.DONE): _S.OPERATOR_WORKERS,
    **_all([_S.OPERATOR_WORKERS], _ENDS, _S.OPERATOR_CLIENTS),
    (_S.OPERATOR_WORKERS, _E.HELD): _S.RECEIPT,
    **_all([_S.OPERATOR_CLIENTS], _ENDS, _S.RECEIPT),
    (_S.RECEIPT, _E.DONE): _S.HOLD,
    (_S.OPERATOR_ASKED, _E.EXTEND): _S.OPERATOR_ASKED,
    **_all(_BEGUN, [_E.EXTEND], _S.EXTENDED),
    **_all(OPERATORS, [_E.ABORT], _S.RECALLED),
    # A signal makes it final. One that has entered no phase has nothing to begin again.
    (_S.OPERATOR_ASKED, _E.SIGNAL): _S.ASKED,
    (_S.OPERATOR_ASKED, _E.CUT): _S.ASKED,
    **_all(OPERATORS - {_S.OPERATOR_ASKED}, _SIGNALS, _S.RENEWED),
    # A final drain.
    **_all([_S.SERVING], _SIGNALS, _S.ASKED),
    (_S.ASKED, _E.BEGIN): _S.UNREADY,
    **_all([_S.UNREADY], _ENDS, _S.SUCCESSOR),
    (_S.SUCCESSOR, _E.DONE): _S.WORKERS,
    # The budget of SUCCESSOR is the only wait for a successor. Without one there is nothing to move, nor to wait for again;
    # where none can come there is not even this wait.
    **_all([_S.SUCCESSOR], (_E.BUDGET, _E.NO_SUCCESSOR), _S.TERMINATE),
    **_all([_S.WORKERS], _ENDS, _S.CLIENTS),
    **_all([_S.CLIENTS], _ENDS, _S.TERMINATE),
    # A successor died before all parties had moved, and no other came in its place.
    **_all([_S.WORKERS, _S.CLIENTS], [_E.NO_SUCCESSOR], _S.TERMINATE),
    **_all([_S.TERMINATE], _ENDS, _S.FLUSH),
    **_all([_S.FLUSH], _ENDS, _S.CLOSE),
    **_all([_S.CLOSE], _ENDS, _S.DONE),
    # Further signals. Two in quick succession must not cut the closing handshakes.
    **_all(_HURRIED_BY_A_SIGNAL, _SIGNALS, _S.HURRIED),
    **_all([_S.HURRIED, _S.FLUSH, _S.STOPPED], _SIGNALS, _S.STOPPED),
    (_S.CLOSE, _E.SIGNAL): _S.CLOSE,
    (_S.CLOSE, _E.CUT): _S.CUT,
    **_all([_S.CUT], _SIGNALS, _S.CUT),
    **_all([_S.DONE], _SIGNALS, _S.DONE),
    **_all(set(DrainState) - {_S.CLOSE, _S.CUT, _S.DONE}, [_E.USURP], _S.STOPPED),
    # Whatever ends the work of the phase that is being left.
    **{pair: target for state, target in LEAVING.items() for pair in product([state], _TASK)},
}
"""(state, event) → next state."""

REFUSED: Mapping[_Pair, str] = {
    **{(state, _E.ASK): "a drain is under way" for state in set(DrainState) - {_S.SERVING}},
    **{(_S.SERVING, event): "there is no drain" for event in (_E.EXTEND, _E.ABORT, *_TASK)},
    **{(state, event): "a signal is final" for state in FINAL for event in (_E.EXTEND, _E.ABORT)},
    (_S.RECALLED, _E.EXTEND): "the drain is called off",
    **{(state, _E.USURP): "all connections are being closed" for state in (_S.CLOSE, _S.CUT, _S.DONE)},
    **{
        (state, _E.BEGIN): "the drain has begun"
        for state in set(DrainState) - {_S.SERVING, _S.OPERATOR_ASKED, _S.ASKED} - LEAVING.keys()
    },
    **{
        (state, event): "no phase has been entered"
        for state in (_S.OPERATOR_ASKED, _S.ASKED)
        for event in _TASK
        if event is not _E.BEGIN
    },
    **{(_S.DONE, event): "the drain is over" for event in (_E.DONE, _E.BUDGET)},
    **{
        (state, event): "an operator's drain waits for a successor as long as it takes"
        for state in (_S.OPERATOR_UNREADY, _S.OPERATOR_SUCCESSOR, _S.OPERATOR_WORKERS, _S.OPERATOR_CLIENTS)
        for event in (_E.NO_SUCCESSOR, _E.BUDGET)
        if event is _E.NO_SUCCESSOR or state is _S.OPERATOR_SUCCESSOR
    },
    (_S.RECEIPT, _E.BUDGET): "storing the receipt has a deadline of its own, and is not interrupted",
    **{(_S.HOLD, event): "only an operator or a signal ends HOLD" for event in _ENDS},
    **{
        (state, _E.NO_SUCCESSOR): "this phase needs no successor"
        for state in (_S.RECEIPT, _S.HOLD, _S.UNREADY, _S.TERMINATE, _S.FLUSH, _S.CLOSE, _S.DONE)
    },
    **{
        (state, _E.HELD): "only an operator's drain of workers alone ends so"
        for state in set(DrainState) - {_S.SERVING, _S.OPERATOR_ASKED, _S.ASKED, _S.OPERATOR_WORKERS} - LEAVING.keys()
    },
}
"""(state, event) → why it changes nothing. From outside such an event is answered with a refusal; from the task it is our error."""


def drawing() -> str:
    """Return the machine as text, for docs/architecture.md: for each state its events, in the order of the enums.

    Events with the same target stand together. Transitions of several states at once are named first.
    """
    shared = (
        ("any state but CLOSE, CUT, DONE", set(DrainState) - {_S.CLOSE, _S.CUT, _S.DONE}, _E.USURP),
        ("any state of an operator's drain", OPERATORS, _E.ABORT),
    )
    lines = [f"{words:34} {event.value} ▸ {DRAIN[next(iter(states)), event].name}" for words, states, event in shared]
    drawn = {(state, event) for _, states, event in shared for state in states}
    for state in DrainState:
        if state in LEAVING:
            arrows = [f"[phase left] ▸ {LEAVING[state].name}"]
            events = [event for event in DrainEvent if event not in _TASK]
        else:
            arrows, events = [], list(DrainEvent)
        targets: dict[DrainState, list[str]] = {}
        for event in events:
            if (state, event) in DRAIN and (state, event) not in drawn:
                targets.setdefault(DRAIN[state, event], []).append(event.value)
        arrows += [f"{', '.join(names)} ▸ {target.name}" for target, names in targets.items()]
        lines.append(f"{state.name:20} {'   '.join(arrows)}".rstrip())
    return "\n".join(lines)


class WhyLeft(Enum):
    """Why parties are still here at the end of a drain. Receipts and trails show the values."""

    NOT_IN_TIME = "not moved in time"
    ALONE = "no other node was ready"
    """No node takes over: the parties left are told to come back here."""
    SIGNALLED = "a signal ended the drain early"


def why_left(before: WhyLeft, state: DrainState, event: DrainEvent) -> WhyLeft:
    """Return why parties will be left, once `event` has ended the phase of `state`; `before`: as far as known until then."""
    if before is WhyLeft.ALONE or event is DrainEvent.NO_SUCCESSOR:
        return WhyLeft.ALONE
    if state is DrainState.SUCCESSOR and event is DrainEvent.BUDGET:
        return WhyLeft.ALONE
    return WhyLeft.SIGNALLED if state in (DrainState.HURRIED, DrainState.STOPPED) else before
