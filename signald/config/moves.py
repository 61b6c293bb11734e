"""How many sessions a drain moves within its budget, and whether the configuration promises more.

A session that moves counts once in the pace, and clients and workers move side by side (`core.handover`). So the time that a drain
has for moves, at the pace that it asks for, is the number of sessions. Each connection may be that of a session's client:
`admission.connections_max` is what the configuration promises.
"""

from math import ceil

import attrs

from signald.config.problems import Problem
from signald.config.sections import Config, DrainConfig

PACE_MARGIN = 0.85
"""Share of the configured pace that is asked for. A worker's sessions are claimed as one, and parties connect sooner or later, so
the claims of any one second may be those of a little more than a second's worth of GOAWAYs."""

KEY = "admission.connections_max"

_not_for_moves = (
    "unready_s",
    "successor_timeout_s",
    "terminate_timeout_s",
    "flush_timeout_s",
    "close_timeout_s",
)
"""The budgets of phases in which no party is told to go."""


@attrs.frozen
class Moves:
    """What one drain can do."""

    seconds: float
    """The time for moves, when every other phase takes all of its budget."""
    per_s: float
    """Sessions told to go in a second."""

    @property
    def sessions(self) -> int:
        """How many sessions move."""
        return int(self.seconds * self.per_s)

    def __str__(self) -> str:
        return f"{self.sessions} sessions ({self.per_s:g}/s for {self.seconds:g} s)"


def drain_moves(config: Config) -> Moves:
    """Return what a drain of `config` moves, if no other node drains at the same time."""
    seconds = max(0.0, config.drain.timeout_s - _others_s(config.drain))
    return Moves(seconds, round(config.pace.sessions_per_s * PACE_MARGIN, 3))


def check_moves(config: Config, where: str) -> list[Problem]:
    """Return the problem of a node that admits more connections than a drain moves sessions; `where` is its configuration.

    A store in memory ends with its process: there is nothing to move.
    """
    moves, promised = drain_moves(config), config.admission.connections_max
    if promised <= moves.sessions or config.store.url.startswith("memory:"):
        return []
    longer_s = ceil(promised / moves.per_s + _others_s(config.drain))
    remedies = [f"lower it to {moves.sessions}"] if moves.sessions else []
    remedies.append(f"raise drain.timeout_s to {longer_s} (and stop_timeout_s, and what the supervisor grants)")
    if moves.seconds:
        remedies.append(f"raise pace.sessions_per_s to {ceil(promised / moves.seconds / PACE_MARGIN)}")
    message = f"admits {promised}, and a drain moves {moves} within its budget: {', or '.join(remedies)}"
    return [Problem(where, KEY, message)]


def _others_s(drain: DrainConfig) -> float:
    return float(sum(getattr(drain, name) for name in _not_for_moves))
