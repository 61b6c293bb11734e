"""The receipt of a drain: what happened to each session, and when.

Times are milliseconds since the drain began. The ledger is written by `ShutdownScope` as it goes and kept in the store,
so that it can be read after the node is gone.
"""

import attrs
from msgspec import json


@attrs.define
class Line:
    """One session."""

    worker: str = ""
    pair_ready_ms: float | None = None
    goaway_ms: float | None = None
    moved_ms: float | None = None
    outcome: str = "pending"


class Ledger:
    """See the module."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._began_at: float | None = None
        self._phases: list[tuple[str, float]] = []
        self._lines: dict[str, Line] = {}
        self._seconds = 0.0

    def _ms(self, now: float) -> float:
        return round((now - (self._began_at if self._began_at is not None else now)) * 1000, 1)

    def phase(self, name: str, now: float) -> None:
        """A phase begins."""
        if self._began_at is None:
            self._began_at = now
        self._phases.append((name, self._ms(now)))

    def begin(self, clients: dict[str, bool], workers: dict[str, str]) -> None:
        """These sessions have their client here (session → pair-ready already), and these workers."""
        for name, ready in clients.items():
            # A drain that a signal makes final goes on with the lines it has.
            self._lines.setdefault(name, Line(workers.get(name, ""), 0.0 if ready else None))

    def pair_ready(self, session: str, now: float) -> None:
        """The session's worker is on a successor."""
        line = self._lines.get(session)
        if line is not None and line.pair_ready_ms is None:
            line.pair_ready_ms = self._ms(now)

    def told(self, session: str, now: float) -> None:
        """GOAWAY went to the session's client."""
        line = self._lines.get(session)
        if line is not None:
            line.goaway_ms = self._ms(now)

    def moved(self, session: str, now: float) -> None:
        """The session's client is no longer here: it resumed elsewhere, if it was told to, or left."""
        line = self._lines.get(session)
        if line is not None and line.moved_ms is None:
            line.moved_ms = self._ms(now)
            line.outcome = "moved" if line.goaway_ms is not None else "left"

    def outcome(self, session: str, outcome: str) -> None:
        """Something else became of the session."""
        line = self._lines.get(session)
        if line is not None:
            line.outcome = outcome

    def totals(self) -> dict[str, object]:
        """The receipt in one line."""
        outcomes: dict[str, int] = {}
        for line in self._lines.values():
            outcomes[line.outcome] = outcomes.get(line.outcome, 0) + 1
        moves = sorted(
            line.moved_ms - line.goaway_ms
            for line in self._lines.values()
            if line.moved_ms is not None and line.goaway_ms is not None
        )
        early = sum(
            line.goaway_ms is not None and (line.pair_ready_ms is None or line.pair_ready_ms > line.goaway_ms)
            for line in self._lines.values()
            if line.worker and line.outcome != "worker given up"
        )
        return {
            "node": self._node,
            "sessions": len(self._lines),
            "outcomes": outcomes,
            "goaway_before_pair_ready": early,
            "move_ms_p50": _percentile(moves, 0.50),
            "move_ms_p99": _percentile(moves, 0.99),
            "move_ms_max": moves[-1] if moves else None,
            "seconds": round(self._seconds, 3),
        }

    def finish(self, now: float) -> bytes:
        """Close the ledger; returns it as JSON."""
        self._seconds = self._ms(now) / 1000
        return json.encode(
            {
                "totals": self.totals(),
                "phases": self._phases,
                "sessions": {name: attrs.asdict(line) for name, line in self._lines.items()},
            }
        )


def _percentile(ordered: list[float], share: float) -> float | None:
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1) if ordered else None
