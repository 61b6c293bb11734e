"""Signals that arrive before the event loop handles them: kept, not lost.

A process without a handler dies of SIGTERM; as PID 1 of a container it ignores the signal, and is killed when its grace is
over. So the handlers are installed before anything slow, such as the imports. This module imports nothing slow itself.
"""

import signal
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_kept: list[int] = []


def keep() -> list[int]:
    """Keep every signal from now on; returns the growing list of them. Later calls return the same list."""
    if signal.getsignal(SIGNALS[0]) is not _keep:
        _kept.clear()
        for number in SIGNALS:
            signal.signal(number, _keep)
    return _kept


def ignore() -> None:
    """Ignore all signals: at its end Python restores their defaults, and a late signal would replace the exit code."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _keep(number: int, _: FrameType | None) -> None:
    _kept.append(number)
