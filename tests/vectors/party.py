"""A client or a worker through a vector: a driver of the cores without sockets and without tasks, in the time of the vector."""

from collections import deque
from typing import Any

from signald.sdk.client_core import ClientCore
from signald.sdk.errors import LinkBroken
from signald.sdk.link import Link
from signald.sdk.party_core import PartyCore
from signald.sdk.worker_core import WorkerCore
from signald.wire.close_codes import CloseCode
from tests.vectors.application import Application, ClientApplication, WorkerApplication
from tests.vectors.clock import Clock, Constant
from tests.vectors.options import client_of, worker_of
from tests.vectors.values import Reasons, frame_of, written

Step = dict[str, Any]

ROUNDS_MAX = 1000
"""Rounds until nothing changes any more. More of them are a driver that turns in a circle."""


class Connection:
    """A connection of a vector, from its dial on."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.link: Link | None = None
        """None while it is being dialled."""
        self.waiting: deque[str | bytes] = deque()
        """Frames that came while the party did not read."""


class PartyPlayer:
    """Plays the inputs of a vector against a core, and tells what came of them."""

    def __init__(self, vector: dict[str, Any]) -> None:
        self.clock = Clock()
        entropy = Constant(vector["random"])
        self.core: PartyCore
        self.application: Application
        if vector["party"] == "client":
            client: ClientCore = client_of(vector["options"], entropy)
            self.core, self.application = client, ClientApplication(client, self.clock)
        else:
            worker: WorkerCore = worker_of(vector["options"], entropy)
            self.core, self.application = worker, WorkerApplication(worker, self.clock)
        self.connections: dict[int, Connection] = {}
        self._dialled = 0
        self._dialling = False
        self._told_over = False
        self._reasons = Reasons(vector["steps"])
        self.out: list[Step] = []

    def play(self, step: Step) -> list[Step]:
        """Do one step at the current time; return what came of it."""
        self._input(step)
        self._settle()
        told, self.out = self.out, []
        return [self._reasons.masked(one) for one in told]

    def timer(self) -> int | None:
        """Return when something is due by itself, in milliseconds; None: nothing is."""
        if self.core.over is not None:
            return None
        now, timers = self.clock.now, []
        attempt = None if self._dialling else self.core.plan(now)
        if attempt is not None:
            timers.append(attempt.at)
        for one in self._standing():
            timers.append(self._due(one, now))
            timers.append(self.core.wake_at(one, now))
        return self.clock.next(timers)

    # --- inputs ----------------------------------------------------------------------------------------------------

    def _input(self, step: Step) -> None:
        now = self.clock.now
        if "open" in step:
            connection = self.connections[step["open"]]
            self._dialling = False
            connection.link = self.core.opened(connection.url, now)
        elif "fail" in step:
            self._dialling = False
            connection = self.connections.pop(step["fail"])
            self.core.unreachable(
                now, step.get("code"), step.get("reason", ""), step.get("retry_after_ms"),
                url=connection.url, wrong_url=step.get("wrong_url", False),
            )  # fmt: skip
        elif "closed" in step:
            link = self.connections.pop(step["on"]).link
            assert link is not None
            self.core.lost(link, step["closed"], step.get("reason", ""), now)
        elif "on" in step:
            self.connections[step["on"]].waiting.append(frame_of(step))
        elif "call" in step:
            self.out += self.application.call(step)

    def _standing(self) -> list[Link]:
        return [one.link for one in self.connections.values() if one.link is not None]

    def _number(self, link: Link) -> int:
        return next(number for number, one in self.connections.items() if one.link is link)

    # --- what a driver does ----------------------------------------------------------------------------------------

    def _settle(self) -> None:
        for _ in range(ROUNDS_MAX):
            said = len(self.out)
            read = self._read()
            self.out += self.application.news()
            if self.core.over is not None:
                self._over()
                return
            for link in self._standing():
                self._due(link, self.clock.now)
            self._write()
            self._dial()
            if not read and len(self.out) == said:
                return
        raise AssertionError("the party does not come to rest")

    def _read(self) -> bool:
        """Take one frame of each connection."""
        read = False
        for connection in list(self.connections.values()):
            link = connection.link
            if link is None or self.core.over is not None or self.core.blocked() or not connection.waiting:
                continue
            read = True
            try:
                self.core.receive(link, connection.waiting.popleft(), self.clock.now)
            except LinkBroken as broken:
                self._cut(link, broken)
        return read

    def _write(self) -> None:
        for number, connection in list(self.connections.items()):
            if connection.link is not None:
                for text, payload in self.core.write(connection.link, self.clock.now):
                    self.out.append({"on": number, **written(text, payload)})

    def _due(self, link: Link, now: float) -> float:
        try:
            return self.core.due(link, now)
        except LinkBroken as broken:
            self._cut(link, broken)
            return now

    def _cut(self, link: Link, broken: LinkBroken) -> None:
        number = self._number(link)
        was_left = link.state == "retiring"
        del self.connections[number]
        self.out.append({"on": number, "close": int(CloseCode.NORMAL)} if was_left else {"on": number, "cut": True})
        self.core.lost(link, None, str(broken), self.clock.now)

    def _dial(self) -> None:
        attempt = None if self._dialling else self.core.plan(self.clock.now)
        if attempt is not None and attempt.at <= self.clock.now + 1e-9:
            self._dialling = True
            self._dialled += 1
            self.connections[self._dialled] = Connection(attempt.url)
            self.out.append({"dial": self._dialled, "url": attempt.url})

    def _over(self) -> None:
        if self._told_over:
            return
        self._told_over = True
        for number, connection in self.connections.items():
            if connection.link is not None:
                self.out.append({"on": number, "close": int(CloseCode.NORMAL)})
        over, failure = self.core.over, self.core.failure()
        assert over is not None
        error = type(failure).__name__ if failure is not None else None
        self.out.append({"over": error, "code": over.code, "reason": over.reason})
        self.connections.clear()
