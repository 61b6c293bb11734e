"""The receipt of a drain: what happened to each session, and when.

Times are milliseconds since the drain began. The ledger is written by the drain as it goes, completed with what the
successors have noted in the sessions' trails, and kept in the store, so that it can be read after the node is gone.

    pair-ready ─▸ goaway ─▸ claimed (here it is served no more) ─▸ live at the successor, n messages replayed
"""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

import attrs
from msgspec import json

from signald.core.drain import WhyLeft
from signald.core.head import Party
from signald.ids import SessionId, WorkerId


@attrs.define
class Line:
    """One session."""

    worker: str = ""
    pair_ready_ms: float | None = None
    """Its worker had claimed it on a successor, or was given up."""
    goaway_ms: float | None = None
    """Its client was told to go."""
    moved_ms: float | None = None
    """The claim of its client was seen here: from then on this node does not serve it."""
    live_ms: float | None = None
    """Its client was served by the successor."""
    node: str = ""
    """The successor."""
    replayed: int | None = None
    """Messages the successor sent again."""
    outcome: str = "pending"
    """moved, left (it went without being told), stayed (an operator's drain was over), suspended (closed; it may resume),
    or lost (the drain ended it)."""
    reason: str = ""
    """Why it is not simply `moved`."""
    parties: list[str] = attrs.field(factory=list)
    """Those that were still at this node when it closed all connections."""
    dialect: str = ""
    """The wire that its client speaks; empty: no client of it was here."""

    @property
    def gap_ms(self) -> float | None:
        """Milliseconds in which no node served the client: from the claim to the first frame of the successor."""
        if self.moved_ms is None or self.live_ms is None:
            return None
        return round(max(0.0, self.live_ms - self.moved_ms), 1)


class Ledger:
    """See the module."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._began_at: float | None = None
        self._began_ms = 0
        self._phases: list[tuple[str, float]] = []
        self._lines: dict[str, Line] = {}
        self._claims: dict[Party, list[float]] = {"worker": [], "client": []}
        """When parties of each kind moved, one entry for each session."""
        self._pace_per_s = 0.0
        self._seconds = 0.0

    def _ms(self, now: float) -> float:
        return round((now - (self._began_at if self._began_at is not None else now)) * 1000, 1)

    def phase(self, name: str, now: float, store_ms: int) -> None:
        """A phase begins; `store_ms` is the time of the store, which the successors write their notes by."""
        if self._began_at is None:
            self._began_at, self._began_ms = now, store_ms
        self._phases.append((name, self._ms(now)))

    def begin(
        self,
        clients: Mapping[SessionId, bool],
        workers: Mapping[SessionId, WorkerId],
        dialects: Mapping[SessionId, str],
        pace_per_s: float,
    ) -> None:
        """These sessions have their client here (session → pair-ready already), which speaks this dialect, and these workers."""
        self._pace_per_s = pace_per_s
        for name, ready in clients.items():
            # A drain that a signal makes final goes on with the lines it has.
            line = self._lines.setdefault(name, Line(workers.get(name, ""), 0.0 if ready else None))
            line.dialect = dialects.get(name, "") or line.dialect
            if line.outcome == "stayed":
                line.outcome, line.reason = "pending", ""

    def pair_ready(self, session: str, now: float) -> None:
        """The session's worker is on a successor."""
        line = self._lines.get(session)
        if line is not None and line.pair_ready_ms is None:
            line.pair_ready_ms = self._ms(now)
            self._claims["worker"].append(line.pair_ready_ms)

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
            if line.goaway_ms is not None:
                line.outcome = "moved"
                self._claims["client"].append(line.moved_ms)
            elif line.outcome == "pending":
                line.outcome = "left"

    def lost(self, session: str, reason: str) -> None:
        """The drain has ended the session."""
        self._outcome(session, "lost", reason)

    def stayed(self, session: str) -> None:
        """An operator's drain has left the session's client where it is."""
        self._outcome(session, "stayed", WhyLeft.NOT_IN_TIME.value)

    def closing(self, session: str, worker: str, parties: Iterable[str], dialect: str) -> None:
        """These parties of the session are still here, and the drain is about to close them. They may resume.

        `dialect`: that of its client, if it is one of them.
        """
        line = self._lines.setdefault(session, Line(worker))
        line.dialect = line.dialect or dialect
        line.parties = sorted({*line.parties, *parties})

    def called_off(self) -> None:
        """The operator has called the drain off; parties that were not told to go stay."""
        for line in self._lines.values():
            if line.outcome == "pending":
                told = line.goaway_ms is not None
                line.outcome, line.reason = "stayed", "called off when it had been told" if told else "called off"

    def because(self, session: str, reason: str) -> None:
        """Something has happened to the session that does not decide what becomes of it."""
        line = self._lines.get(session)
        if line is not None:
            line.reason = reason

    def _outcome(self, session: str, outcome: str, reason: str) -> None:
        line = self._lines.get(session)
        if line is not None:
            line.outcome, line.reason = outcome, reason

    # --- what the successors know -----------------------------------------------------------------------------------

    def followed(self) -> list[str]:
        """Sessions that have moved and of which nothing is known since."""
        return [name for name, line in self._lines.items() if line.outcome == "moved" and line.live_ms is None]

    def follow(self, session: str, trail: Iterable[bytes]) -> None:
        """Take from a session's trail where its client went on."""
        line = self._lines[session]
        for text in trail:
            step: dict[str, Any] = json.decode(text)
            if (step["what"], step["party"]) == ("resumed", "client") and step["node"] != self._node:
                live_ms = step["at_ms"] - self._began_ms
                if line.goaway_ms is None or live_ms >= line.goaway_ms - 1:
                    line.live_ms, line.node = float(live_ms), step["node"]
                    line.replayed = _replayed(step)
                    return

    # --- the sum ----------------------------------------------------------------------------------------------------

    def line(self, session: str) -> Line | None:
        """What is known of one session."""
        return self._lines.get(session)

    def totals(self) -> dict[str, object]:
        """The receipt in one line."""
        outcomes: dict[str, int] = {}
        for line in self._lines.values():
            outcomes[line.outcome] = outcomes.get(line.outcome, 0) + 1
        moves = [
            line.moved_ms - line.goaway_ms
            for line in self._lines.values()
            if line.moved_ms is not None and line.goaway_ms is not None
        ]
        early = sum(
            line.goaway_ms is not None and (line.pair_ready_ms is None or line.pair_ready_ms > line.goaway_ms)
            for line in self._lines.values()
            if line.worker and line.reason != "worker given up"
        )
        return {
            "node": self._node,
            "sessions": len(self._lines),
            "outcomes": outcomes,
            "dialects": self._by_dialect(),
            **{outcome: outcomes.get(outcome, 0) for outcome in ("moved", "left", "stayed", "suspended", "lost")},
            "workers_given_up": sum(line.reason == "worker given up" for line in self._lines.values()),
            "goaway_before_pair_ready": early,
            "replayed": sum(line.replayed or 0 for line in self._lines.values()),
            **_percentiles("move_ms", moves),
            **_percentiles("gap_ms", [line.gap_ms for line in self._lines.values() if line.gap_ms is not None]),
            "pace_per_s": self._pace_per_s,
            "pace_peak_per_s": max(map(_peak, self._claims.values())),
            "seconds": round(self._seconds, 3),
        }

    def _by_dialect(self) -> dict[str, dict[str, int]]:
        """Return how many sessions had which outcome, for each wire of their clients."""
        found: dict[str, dict[str, int]] = {}
        for line in self._lines.values():
            if line.dialect:
                outcomes = found.setdefault(line.dialect, {})
                outcomes[line.outcome] = outcomes.get(line.outcome, 0) + 1
        return found

    def finish(self, now: float, *, final: bool, why: str) -> bytes:
        """Close the ledger; returns it as JSON. A `final` drain has closed the parties that are still here, for the reason `why`."""
        self._seconds = self._ms(now) / 1000
        for line in self._lines.values():
            if final and line.outcome in ("pending", "stayed"):
                line.outcome, line.reason = "suspended", line.reason or why
        return json.encode(
            {
                "totals": self.totals(),
                "phases": self._phases,
                "sessions": {name: {**attrs.asdict(line), "gap_ms": line.gap_ms} for name, line in self._lines.items()},
            }
        )


def _replayed(step: dict[str, Any]) -> int | None:
    """Return how many messages a successor sent again, as its step `resumed` says; None when it does not say.

    Release 0.1.0 has no field for it: the number is the last word of the detail. This goes with the release after next.
    """
    replaying = step.get("replaying")
    if type(replaying) is int:
        return replaying
    last = str(step.get("detail", "")).rpartition(" ")[2]
    return int(last) if last.isascii() and last.isdigit() else None


def _percentiles(name: str, values: list[float]) -> dict[str, float | None]:
    ordered = sorted(values)

    def at(share: float) -> float | None:
        return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1) if ordered else None

    return {f"{name}_p50": at(0.50), f"{name}_p99": at(0.99), f"{name}_max": at(1.0)}


def _peak(claims: list[float]) -> int:
    """The most claims of any one second."""
    most, window = 0, deque[float]()
    for at_ms in sorted(claims):
        window.append(at_ms)
        while window[0] <= at_ms - 1000:
            window.popleft()
        most = max(most, len(window))
    return most
