"""What happens to each session at this node, step by step, kept in the store so that it can be read when the node is gone.

All trails together have `limits.trails_bytes_max` in the store: where the oldest give way, the node that is told so removes them.

A step is noted where it happens and stored a moment later, many sessions in one batch: nobody waits for it, and a node
that is killed leaves out at most that moment, which the node that takes over tells from its side (`resumed ... from`).
"""

from collections import deque
from typing import TYPE_CHECKING

import structlog
import trio
from msgspec import json

from signald.store.base import Result
from signald.store.committer import ignore
from signald.store.registry.ops import CountTrails, Sessions
from signald.store.registry.records import TRAIL_BYTES
from signald.store.session.ops import Mark

if TYPE_CHECKING:
    from signald.service.hub import Hub

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

    def __init__(self, hub: "Hub") -> None:
        self._hub = hub
        self._pending: deque[tuple[str, bytes]] = deque()
        self._noted = trio.Event()
        self.left_out = 0
        self.given_way = 0
        """Trails removed to keep the budget."""

    def note(self, session: str, party: str, what: str, detail: str = "") -> None:
        """`what` has happened to `party` ("client", "worker" or "") of `session` here. `detail` holds no secret."""
        hub = self._hub
        if hub.config.session.trail_steps_max == 0:
            return
        if len(self._pending) >= PENDING_MAX:
            self._pending.popleft()
            self.left_out += 1
        step = {"at_ms": hub.store.now_ms(), "node": hub.node, "party": party, "what": what}
        step["detail"] = detail[:DETAIL_CHARS_MAX]
        self._pending.append((session, json.encode(step)))
        self._noted.set()

    async def run(self) -> None:
        """Store what is noted, until cancelled."""
        while True:
            await self._noted.wait()
            await trio.sleep(DELAY_S)
            self._noted = trio.Event()
            self.store()

    def store(self) -> None:
        """Hand what is noted to the committer, unless the store is away: then it waits here, where it is bounded."""
        hub = self._hub
        if hub.committer.down_since is not None:
            self._noted.set()
            return
        steps: dict[str, list[bytes]] = {}
        while self._pending:
            session, step = self._pending.popleft()
            steps.setdefault(session, []).append(step)
        config, now_ms = hub.config.session, hub.store.now_ms()
        for session, some in steps.items():
            mark = Mark(session, tuple(some), config.trail_steps_max, round(config.trail_keep_s * 1000), now_ms)
            hub.committer.submit(mark, ignore)
        grown = [(session, sum(map(len, some))) for session, some in steps.items()]
        until_ms = now_ms + round(config.trail_keep_s * 1000)
        of_one = TRAIL_BYTES + config.trail_steps_max * STEP_BYTES
        for start in range(0, len(grown), COUNTED_TOGETHER):
            some_grown = tuple(grown[start : start + COUNTED_TOGETHER])
            count = CountTrails(some_grown, hub.config.limits.trails_bytes_max, of_one, until_ms, now_ms)
            hub.committer.submit(count, self._give_way)

    def _give_way(self, counted: Result) -> None:
        """Remove the trails that are counted no more. Those that a node does not come to remove end with their time."""
        if not isinstance(counted, Sessions):
            return
        self.given_way += len(counted.sessions)
        for session in counted.sessions:
            self._hub.committer.submit(Mark(session, (), 1, 0, self._hub.store.now_ms()), ignore)
