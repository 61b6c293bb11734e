"""What happens to each session at this node, step by step, kept in the store so that it can be read when the node is gone.

All trails together have `limits.trails_bytes_max` in the store: where the oldest give way, the node that is told so removes them.

A step follows from a life event (`service.events`) and is stored a moment later, many sessions in one batch: no party waits
for it, and a node that is killed leaves out at most that moment, which the node that takes over tells from its side
(`resumed ... from`).
"""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
import trio
from msgspec import json

from signald.core.exits import EXITS, Detail
from signald.core.jobs import ENDS
from signald.service import events
from signald.service.context import Context
from signald.store.base import Result
from signald.store.committer import ignore
from signald.store.registry.ops import CountTrails, Sessions
from signald.store.registry.records import TRAIL_BYTES
from signald.store.session.ops import Mark

log = structlog.get_logger(__name__)

DELAY_S = 0.2
"""How long steps gather. What is not stored when the process is killed is lost."""

PENDING_MAX = 20_000
"""Steps that wait for the store: ten for each of two thousand sessions. Beyond it the oldest are left out, and counted."""

DETAIL_CHARS_MAX = 200
"""Of a step's text: names of two nodes or a close reason. A party has a say in some of it."""

STEP_BYTES = 512
"""What a step takes at most in sum: the trail of a session that goes on for long keeps its last steps and counts for no more."""

COUNTED_TOGETHER = 500
"""Trails counted in one operation, so that none keeps the store for long."""


class Trail:
    """See the module."""

    def __init__(self, context: Context) -> None:
        """Subscribe to the events of `context` that are steps of a session."""
        self._context = context
        self._pending: deque[tuple[str, bytes]] = deque()
        self._noted = trio.Event()
        self.left_out = 0
        self.given_way = 0
        """Trails removed to keep the budget."""
        subscribe = context.events.subscribe
        subscribe(events.ClientStarted, lambda event: self.note(event.session, "client", "started"))
        subscribe(events.SessionCreated, lambda event: self.note(event.session, "", "created", "over HTTP"))
        subscribe(events.ClientResumed, self._client_resumed)
        subscribe(events.SessionResumed, self._session_resumed)
        subscribe(events.Assigned, lambda event: self.note(event.session, "worker", "assigned", event.worker))
        subscribe(events.Accepted, lambda event: self.note(event.session, "worker", "accepted", event.worker))
        subscribe(events.PartyReleased, self._party_released)
        subscribe(events.ToldToGo, self._told_to_go)
        subscribe(events.Suspended, lambda event: self.note(event.session, event.party, "suspended", event.reason))
        subscribe(events.WorkerGivenUp, self._worker_given_up)
        subscribe(events.SetAside, self._set_aside)
        subscribe(events.Retried, self._retried)
        subscribe(events.JobStored, lambda event: self.note(event.session, "", "job stored", _job(event, event.kind)))
        subscribe(events.JobGiven, self._job_given)
        subscribe(events.JobTold, self._job_told)
        subscribe(
            events.StreamCancelled, lambda event: self.note(event.session, "client", "stream cancelled", event.stream)
        )
        subscribe(events.StreamsInterrupted, self._streams_interrupted)
        subscribe(events.SessionLeft, lambda event: self.note(event.session, "", "left", "", **_numbers(event.carried)))
        subscribe(events.SessionGone, self._session_gone)
        subscribe(events.ResumeRefused, self._resume_refused)

    def note(self, session: str, party: str, what: str, detail: str = "", **numbers: int) -> None:
        """`what` has happened to `party` ("client", "worker" or "") of `session` here. `detail` holds no secret.

        `detail` is for a person. A number that a program reads has a field: `replaying`, the messages sent again at a resume;
        `gap_ms`, how long a client was away; and those of `summary`.
        """
        context = self._context
        if context.config.session.trail_steps_max == 0:
            return
        if len(self._pending) >= PENDING_MAX:
            self._pending.popleft()
            self.left_out += 1
        step: dict[str, str | int] = {"at_ms": context.now_ms(), "node": context.node, "party": party, "what": what}
        step["detail"] = detail[:DETAIL_CHARS_MAX]
        step |= numbers
        self._pending.append((session, json.encode(step)))
        self._noted.set()

    def _client_resumed(self, event: events.ClientResumed) -> None:
        came = _from(event.previous_node)
        detail = f"epoch {event.epoch}{came}, replaying {event.replaying}"
        gap = {} if event.gap_s is None else {"gap_ms": round(event.gap_s * 1000)}
        self.note(event.session, "client", "resumed", detail, replaying=event.replaying, **gap)

    def _session_gone(self, event: events.SessionGone) -> None:
        self.note(event.session, "", "ended", event.reason, duration_ms=event.duration_ms, **_numbers(event.carried))

    def _session_resumed(self, event: events.SessionResumed) -> None:
        came = _from(event.previous_node)
        detail = f"{event.worker} epoch {event.epoch}{came}, replaying {event.replaying}"
        self.note(event.session, "worker", "resumed", detail, replaying=event.replaying)

    def _party_released(self, event: events.PartyReleased) -> None:
        row = EXITS[event.cause]
        if not row.trail:
            return
        details = {
            Detail.NONE: "",
            Detail.HOW_OVER: event.how_over,
            Detail.EPOCH: f"epoch {event.epoch}",
            Detail.WORKER: event.owner,
            Detail.REASON: f"{event.owner}: {event.reason}",
        }
        self.note(event.session, event.party, row.words(told_to_go=event.told_to_go), details[row.detail])

    def _told_to_go(self, event: events.ToldToGo) -> None:
        for session in event.sessions:
            self.note(session, event.party, "told to go", event.reason)

    def _worker_given_up(self, event: events.WorkerGivenUp) -> None:
        for session in event.sessions:
            self.note(session, "worker", "given up", f"{event.worker}: {event.reason}")

    def _set_aside(self, event: events.SetAside) -> None:
        self.note(event.session, "worker", "set aside", f"message {event.seq}, {event.failures} failures")

    def _retried(self, event: events.Retried) -> None:
        self.note(event.session, "", "retried", f"by an operator at {self._context.node}")

    def _job_given(self, event: events.JobGiven) -> None:
        self.note(
            event.session, "worker", "job given", _job(event, f"{event.kind} attempt {event.attempt} {event.worker}")
        )

    def _job_told(self, event: events.JobTold) -> None:
        if event.state in ENDS:
            self.note(event.session, "client", "job ended", _job(event, f"{event.state} attempt {event.attempt}"))

    def _streams_interrupted(self, event: events.StreamsInterrupted) -> None:
        self.note(event.session, "worker", "streams interrupted", ", ".join(event.streams))

    def _resume_refused(self, event: events.ResumeRefused) -> None:
        if event.reason == "token_reuse":
            self.note(event.owner, "", "token reused", "all its tokens are revoked")

    async def run(self) -> None:
        """Store what is noted, until cancelled."""
        while True:
            await self._noted.wait()
            await trio.sleep(DELAY_S)
            self._noted = trio.Event()
            self.store()

    def store(self) -> None:
        """Hand what is noted to the committer, unless the store is away: then it waits here, where it is bounded."""
        context = self._context
        if context.committer.down_since is not None:
            self._noted.set()
            return
        steps: dict[str, list[bytes]] = {}
        while self._pending:
            session, step = self._pending.popleft()
            steps.setdefault(session, []).append(step)
        config, now_ms = context.config.session, context.now_ms()
        for session, some in steps.items():
            mark = Mark(session, tuple(some), config.trail_steps_max, round(config.trail_keep_s * 1000), now_ms)
            context.committer.submit(mark, ignore)
        grown = [(session, sum(map(len, some))) for session, some in steps.items()]
        until_ms = now_ms + round(config.trail_keep_s * 1000)
        of_one = TRAIL_BYTES + config.trail_steps_max * STEP_BYTES
        for start in range(0, len(grown), COUNTED_TOGETHER):
            some_grown = tuple(grown[start : start + COUNTED_TOGETHER])
            count = CountTrails(some_grown, context.config.limits.trails_bytes_max, of_one, until_ms, now_ms)
            context.committer.submit(count, self._give_way)

    def _give_way(self, counted: Result) -> None:
        """Remove the trails that are counted no more. Those that a node does not come to remove end with their time."""
        if not isinstance(counted, Sessions):
            return
        self.given_way += len(counted.sessions)
        for session in counted.sessions:
            self._context.committer.submit(Mark(session, (), 1, 0, self._context.now_ms()), ignore)


def _numbers(carried: events.Carried) -> dict[str, int]:
    return {
        "up": carried.up,
        "down": carried.down,
        "up_bytes": carried.up_bytes,
        "down_bytes": carried.down_bytes,
    }


def summary(steps: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return what a session has carried by its `steps`: `left` of each node that it has left, and `ended`.

    `up` and `down` are messages in all. `up_bytes` and `down_bytes` are what the steps that are kept tell of. `gaps` are the resumes of
    a client that was away, `gap_ms` the sum and `gap_max_ms` the longest of these times. `duration_ms` is there when the session is over.
    """

    def numbers(name: str) -> list[int]:
        return [step[name] for step in steps if type(step.get(name)) is int]

    gaps = [gap for gap in numbers("gap_ms") if gap > 0]
    found = {name: max(numbers(name), default=0) for name in ("up", "down")}
    found |= {name: sum(numbers(name)) for name in ("up_bytes", "down_bytes")}
    found |= {"gaps": len(gaps), "gap_ms": sum(gaps), "gap_max_ms": max(gaps, default=0)}
    return found | ({"duration_ms": max(lasted)} if (lasted := numbers("duration_ms")) else {})


def _job(event: events.JobStored | events.JobGiven | events.JobTold, what: str) -> str:
    return f"{event.job}: {what}"


def _from(node: str) -> str:
    return f" from {node}" if node else ""
