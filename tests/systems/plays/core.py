"""A9: a core server decides who comes in, and is told every event: in order for each session, signed, and over all moves.

It answers some events wrongly or not at all, and is away itself while a node is lost.
"""

import base64
import re
import secrets
from collections import defaultdict
from typing import ClassVar

from signald.demo.cluster import free_port, let_go
from tests.real.harness import until
from tests.systems.play import Play
from tests.systems.program import Line, Program
from tests.systems.service import credential

MORE = 5
"""Answers after each move that show that the page goes on."""
SETTINGS = {"voice": "alto"}
"""What the core server says for a session."""
TOLD_S = 60.0
"""Until all that happened is told: the core server that was away is tried every 30 s."""
LIFE = re.compile(r"started( paired)?(( paired)|( reassigned)|( away)( (paired|reassigned))*( resumed))* ended")
"""The events of a session without a gap for its client in each `away` … `resumed`."""


class Core(Play):
    """A page over all moves, a short session in each, and users that may not come in."""

    name = "core"
    alone = True
    shown: Program

    def __init__(self, on_failure: str = "closed") -> None:
        super().__init__()
        self._on_failure = on_failure
        self._port = free_port()
        self._secret = f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"
        url = f"http://127.0.0.1:{self._port}"
        self.settings = {
            "core": {
                "authorize_url": f"{url}/authorize",
                "events_url": f"{url}/events",
                "events_timeout_s": 1.0,
                "on_failure": on_failure,
                "breaker_pause_s": 1.0,
                "secret": self._secret,
            }
        }
        self.servers: list[Program] = []
        self.short: list[Program] = []
        self._moves = 0

    async def before(self) -> None:
        """Start the core server, without which no worker comes in."""
        await self._start_server()

    async def _start_server(self) -> None:
        server = await self.cast.start("core_server.mjs", str(self._port), SECRET=self._secret)
        await server.has_seen("listening", within_s=30)
        self.servers.append(server)

    async def start(self) -> None:
        """Start the page, and one of a user that may not come in."""
        self.shown = await self.page("core.mjs")
        await self.shown.has_seen("settings", within_s=30)
        shown = credential("client", "banned")
        self.banned = await self.cast.start("core.mjs", self.service.url, credential=shown)
        await self.banned.end(within_s=30)

    async def during_move(self) -> None:
        """Start a short session; when the node is lost, lose the core server as well."""
        self._moves += 1
        if self._moves == 3:
            await self.servers[-1].kill()
        else:
            self.short.append(await self.page("core.mjs", "3"))

    async def goes_on(self) -> None:
        """Wait for more answers; when the core server is away, have a newcomer, and then the core server back."""
        await self.shown.has_seen("answered", len(self.shown.saw("answered")) + MORE, within_s=30)
        for page in self.short:
            await page.end(within_s=30)
        if self._moves < 3 or len(self.servers) > 1:
            return
        newcomer = await self.page("core.mjs", "3")
        self.short.append(newcomer)
        await newcomer.has_seen("error" if self._on_failure == "closed" else "settings", within_s=30)
        await self._start_server()
        await newcomer.end(within_s=30)

    async def finish(self) -> None:
        """End the page, and wait until the core server knows of all ends."""
        await self.shown.tell()
        await self.shown.end()
        sessions = {page.saw("opened")[0]["session"] for page in (self.shown, *self.short)}
        await until(
            lambda: sessions <= {line["queue"] for line in self._taken() if line["type"] == "session.ended"},
            TOLD_S,
            self.servers[-1].account(),
        )
        let_go(self._port)

    def _taken(self) -> list[Line]:
        return [line for server in self.servers for line in server.saw("taken")]

    def judge(self) -> None:
        """Each policy held, no session noticed anything, and all events were told."""
        self._judge_policy()
        for page in (self.shown, *self.short):
            assert not page.saw("hole") + page.saw("gone"), page.account()
            assert [line["to"] for line in page.saw("answered")] == list(range(1, page.saw("end")[0]["said"] + 1))
        for server in self.servers:
            assert not server.saw("unsigned") + server.saw("lost"), server.account()
            assert all(line["complete"] for line in server.saw("asked")), server.account()
        # A session is asked for once: no resume waits for the core server.
        asked = [line["subject"] for server in self.servers for line in server.saw("asked") if line["role"] == "client"]
        assert asked.count("core") <= 1 + len(self.short) + 1, asked
        self._judge_events()

    def _judge_policy(self) -> None:
        assert [line["code"] for line in self.banned.saw("error")] == ["forbidden"], self.banned.account()
        assert [line["code"] for line in self.banned.saw("gone")] == [4403], self.banned.account()
        *others, newcomer = self.short
        for page in (self.shown, *others):
            # A short session may come while a node drains, which admits none.
            assert page.saw("settings")[0]["settings"] == SETTINGS, page.account()
        if self._on_failure == "closed":
            assert {line["code"] for line in newcomer.saw("error")} == {"core_unavailable"}, newcomer.account()
            assert newcomer.saw("settings")[0]["settings"] == SETTINGS, newcomer.account()
        else:
            assert not newcomer.saw("error"), newcomer.account()
            assert newcomer.saw("settings")[0].get("settings") is None, newcomer.account()

    def _judge_events(self) -> None:
        """Dense and in order for each queue; a repetition has the same id and bytes; a life begins and ends as lives do."""
        told = [line for server in self.servers for line in server.saw("told")]
        bodies: dict[str, set[str]] = defaultdict(set)
        queues: dict[str, list[Line]] = defaultdict(list)
        for line in told:
            if line["id"] not in bodies:
                queues[line["queue"]].append(line)
            bodies[line["id"]].add(line["body"])
        assert all(len(one) == 1 for one in bodies.values()), "an event was told in other words"
        for queue, lines in queues.items():
            assert [line["n"] for line in lines] == list(range(1, len(lines) + 1)), queue
        for page in (self.shown, *self.short):
            lines = queues[page.saw("opened")[0]["session"]]
            life = " ".join(line["type"].removeprefix("session.") for line in lines if line["type"] != "job.ended")
            assert LIFE.fullmatch(life), life
            ended = [(line["data"]["job"], line["data"]["state"]) for line in lines if line["type"] == "job.ended"]
            assert sorted(ended) == sorted((line["job"], "succeeded") for line in page.saw("submitted")), page.account()
            assert lines[0]["data"]["subject"] == self.name
            assert lines[-1]["data"]["up"] == page.saw("end")[0]["said"]
        deploys = [line["data"]["node"] for line in queues["cluster"] if line["type"] == "deploy.finished"]
        assert len(deploys) == len(set(deploys)) >= self.planned_stops, deploys
        assert any(line["type"] == "worker.registered" for lines in queues.values() for line in lines)

    planned_stops: ClassVar[int] = 3
    """Nodes that a deploy and a rollback stop."""
