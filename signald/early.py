"""Signals that come before the loop takes them over: kept, not lost.

A process without a handler dies of SIGTERM; as PID 1 of a container it does not even notice, and is killed when the grace is
over. So the handlers are installed before anything slow, such as the imports, is begun. Imports nothing slow itself.
"""

import signal
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_kept: list[int] = []


def keep() -> list[int]:
    """Keep every signal from now on; returns the list of those that have come, which grows. Later calls return the same list."""
    if signal.getsignal(SIGNALS[0]) is not _keep:
        _kept.clear()
        for number in SIGNALS:
            signal.signal(number, _keep)
    return _kept


def ignore() -> None:
    """Heed no signal any more: Python gives handled ones their default back while it ends, and that would take the status away."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _keep(number: int, _: FrameType | None) -> None:
    _kept.append(number)
