"""Seeded minutes of a cluster whose nodes die and are replaced, whose clients come and go, and whose core server misbehaves.

At the end each session that was ever begun has been told from its first event to its last, in order and without a gap.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import Random
from typing import Any

import pytest
import trio

from signald.http.client import Answer
from signald.testing.cluster import Cluster, play
from signald.testing.wire import Peer
from tests.service.telling.core import Attempt, Core, always, answer, away, silent, slow, telling
from tests.service.telling.test_events import names

MINUTE_S = 60.0


def flaky(random: Random) -> Callable[[Attempt], Awaitable[Answer]]:
    """Answer any of the answers there are, but 410."""

    async def behave(_: Attempt) -> Answer:
        await trio.sleep(random.random())
        return answer(random.choice([200, 200, 204, 301, 400, 404, 429, 500, 503]))

    return behave


class Scene:
    """The nodes and the clients of one seed."""

    def __init__(self, cluster: Cluster, core: Core, random: Random) -> None:
        self.cluster, self.core, self.random = cluster, core, random
        self.clients: dict[str, tuple[Peer | None, str]] = {}
        """By session: its connection, and its token."""
        self.number = 0
        self.stopped: list[str] = []

    async def node(self) -> None:
        """Start a node."""
        self.number += 1
        sections: dict[str, Any] = {"session": {"resume_ttl_s": 30.0}, "drain": {"unready_s": 0.0}}
        await self.cluster.start(f"n{self.number}", **telling(events_timeout_s=3.0), **sections)

    @property
    def live(self) -> list[str]:
        """The nodes that admit."""
        return [name for name in sorted(self.cluster.nodes) if name not in self.stopped]

    async def act(self) -> None:
        """Do something."""
        random, live = self.random, self.live
        act = random.choice(["begin", "begin", "cut", "resume", "resume", "bye", "kill", "stop", "core", "core"])
        known = sorted(self.clients)
        at = random.choice(live)
        with trio.move_on_after(5):
            if act == "begin":
                peer, begun = await self.cluster.client(at)
                self.clients[begun["session"]] = (peer, begun["recovery_token"])
            elif act in ("kill", "stop") and len(live) > 1:
                self.stopped.append(at)
                if act == "kill":
                    self.cluster.kill(at)
                else:
                    self.cluster.nodes[at].shutdown.signal()
                await self.node()
            elif act == "core":
                behave = [always(200), always(503, retry_after="7"), away, silent, slow(2.5), flaky(random)]
                self.core.behave = random.choice(behave)
            elif known:
                await self._client(act, random.choice(known), at)

    async def _client(self, act: str, session: str, at: str) -> None:
        peer, token = self.clients[session]
        if act == "cut" and peer is not None:
            peer.cut()
        elif act == "resume":
            found, answered = await self.cluster.restore(at, token)
            if answered["type"] == "session_restored":
                self.clients[session] = (found, answered["recovery_token"])
        elif act == "bye" and peer is not None:
            await peer.send({"type": "bye", "reason": "done"})


@pytest.mark.parametrize("seed", range(4))
def test_every_event_is_told(seed: int) -> None:
    """See the module."""

    async def scene(cluster: Cluster) -> None:
        core = Core(cluster)
        cluster.core = core
        stage = Scene(cluster, core, Random(seed))
        for _ in range(2):
            await stage.node()
        ends_at, done = trio.current_time() + 4 * MINUTE_S, 0
        while trio.current_time() < ends_at:
            with suppress(Exception):  # a connection may be cut in the middle of an act
                await stage.act()
                done += 1
            await trio.sleep(stage.random.expovariate(0.5))
        core.behave = always(200)
        for peer, _ in stage.clients.values():
            if peer is not None:
                peer.cut()
        await trio.sleep(20 * MINUTE_S)
        core.check()
        for session in stage.clients:
            told = core.types(session)
            assert told[0] == "session.started", told
            assert told[-1] == "session.ended", told
            assert told.count("session.ended") == 1
            assert told.count("session.away") - told.count("session.resumed") in (0, 1)
        assert len(stage.clients) > 5
        assert done > 60
        finished = [one.data["node"] for one in core.once() if one.type == "deploy.finished"]
        assert len(finished) == len(set(finished))
        assert not names(cluster)

    play(scene, seed, within_s=10_000)
