"""Parties that speak the wire by hand and keep their promises: what the tests of handover and loss are judged by.

They follow the protocol and nothing of signald's own code: numbered messages, cumulative acks, resuming by token, make before
break, and a count of what reached the application.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import attrs
import trio
import trio_websocket

from signald.testing.cluster import Cluster
from signald.testing.wire import Json, Peer

RETRY_S = 0.1
DIAL_S = 1.0
ANSWER_S = 10.0


class TurnedAway(Exception):
    """The opening message was not answered with what was asked for."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@attrs.define
class Way:
    """One session as one party sees it: what it sends and what it has received."""

    session: str = ""
    next_seq: int = 1
    unacked: dict[int, Any] = attrs.field(factory=dict)
    acked: int = 0
    received: int = 0
    heard: list[Any] = attrs.field(factory=list)
    """The data that reached the application, in order."""
    gaps: list[tuple[int, int]] = attrs.field(factory=list)
    """(expected, came): the server must never do this."""
    history: list[Json] | None = None
    assigned: int = 0
    """How often a worker was asked to take it."""

    def take(self, frame: Json) -> bool:
        """Receive a message; True when it is new."""
        if frame["seq"] <= self.received:
            return False
        if frame["seq"] != self.received + 1:
            self.gaps.append((self.received + 1, frame["seq"]))
        self.received = frame["seq"]
        self.heard.append(frame["data"])
        return True

    def ack_to(self, seq: int) -> None:
        """The server has stored everything up to `seq`."""
        self.acked = max(self.acked, seq)
        for old in [one for one in self.unacked if one <= seq]:
            del self.unacked[old]


class Party(ABC):
    """A client or a worker that comes back by itself. `entry` names the node that new connections reach."""

    path = ""

    def __init__(self, cluster: Cluster, entry: Callable[[], str], **opening: object) -> None:
        self.cluster = cluster
        self.entry = entry
        self.opening: dict[str, Any] = opening
        self.token = ""
        self.peer: Peer | None = None
        self.node = ""
        self.dials: list[str] = []
        """The nodes it was answered by, in order."""
        self.answered_at: list[float] = []
        self.refusals: list[int] = []
        self.codes: list[int] = []
        """How its connections ended, in order."""
        self.goaways: list[tuple[float, str]] = []
        self.errors: list[Json] = []
        self.over = False
        self.ready = trio.Event()
        self._poke = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._ticket: str | None = None

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Stay connected until `over`."""
        async with trio.open_nursery() as self._nursery:
            while not self.over:
                self._poke = trio.Event()
                try:
                    await self._connect()
                except (TurnedAway, KeyError, OSError, trio.BrokenResourceError, trio_websocket.HandshakeError):
                    await trio.sleep(RETRY_S)
                    continue
                if not self.ready.is_set():
                    self.ready.set()
                    task_status.started()
                if self.peer is not None:
                    await self._poke.wait()
            self._nursery.cancel_scope.cancel(reason="the party is through")

    async def _connect(self) -> None:
        node = self.entry()
        try:
            with trio.fail_after(DIAL_S):  # a node that is gone leaves no process to hang up
                peer = await self.cluster.dial(node, self.path)
            await peer.send(self.hello())
            with trio.fail_after(ANSWER_S):
                answer = await peer.receive()
        except trio.TooSlowError:
            raise TurnedAway(1006) from None
        except trio_websocket.ConnectionClosed as closed:
            code = closed.reason.code if closed.reason else 1006
            self.refusals.append(code)
            self.turned_away(code)
            raise TurnedAway(code) from None
        if answer["type"] == "error":
            code = await peer.closed()
            self.refusals.append(code)
            self.turned_away(code)
            raise TurnedAway(code)
        self.token = answer["recovery_token"]
        self.peer, self.node = peer, node
        self.dials.append(node)
        self.answered_at.append(trio.current_time())
        assert self._nursery is not None
        self._nursery.start_soon(self._read, peer)
        await self.answered(answer)

    async def _read(self, peer: Peer) -> None:
        while True:
            try:
                frame = await peer.receive()
            except trio_websocket.ConnectionClosed as closed:
                self.codes.append(closed.reason.code if closed.reason else 1006)
                if peer is self.peer:
                    self.peer = None
                    self._poke.set()
                return
            if frame["type"] == "goaway":
                self.goaways.append((trio.current_time(), self.node))
                self._ticket = frame.get("ticket")
                self._poke.set()
            elif frame["type"] == "error":
                self.errors.append(frame)
                if "expected" in frame:
                    assert self._nursery is not None
                    self._nursery.start_soon(self._offer_again, frame)
            else:
                await self.frame(frame)

    async def _offer_again(self, error: Json) -> None:
        await trio.sleep(error.get("retry_after_ms", 0) / 1000)
        await self.offer(self.way(error), error["expected"])

    async def offer(self, way: Way, first: int) -> None:
        """Send what is not acked, from `first` on."""
        for seq, data in sorted(way.unacked.items()):
            if seq >= first:
                await self.write({"type": "message", "seq": seq, "data": data, **self.named(way)})

    async def say(self, way: Way, data: object) -> None:
        """Send a message, now or when there is a connection."""
        seq, way.next_seq = way.next_seq, way.next_seq + 1
        way.unacked[seq] = data
        await self.write({"type": "message", "seq": seq, "data": data, **self.named(way)})

    async def write(self, frame: Json) -> None:
        """Send one frame, if there is a connection."""
        if self.peer is not None:
            try:
                await self.peer.send(frame)
            except (trio_websocket.ConnectionClosed, trio.BrokenResourceError):
                return  # the reader finds out

    def cut(self) -> None:
        """Lose the connection without a word."""
        assert self.peer is not None
        self.peer.cut()

    def vanish(self) -> None:
        """Lose the connection and never come back."""
        self.over = True
        if self.peer is not None:
            self.peer.cut()
        self._poke.set()

    @abstractmethod
    def hello(self) -> Json:
        """The opening message."""

    @abstractmethod
    async def answered(self, answer: Json) -> None:
        """The opening message was answered."""

    def turned_away(self, code: int) -> None:  # noqa: B027 - not every party cares
        """The opening message was refused."""

    @abstractmethod
    async def frame(self, frame: Json) -> None:
        """Anything else came."""

    @abstractmethod
    def way(self, frame: Json) -> Way:
        """The session that `frame` is about."""

    @abstractmethod
    def named(self, way: Way) -> Json:
        """How frames of a session name it."""


class Client(Party):
    """A client with one session."""

    path = "/v1/client"

    def __init__(self, cluster: Cluster, entry: Callable[[], str], **opening: object) -> None:
        super().__init__(cluster, entry, **opening)
        self.talk = Way()
        self.told: list[str] = []
        """Every `peer` state, in order; those of answers in brackets."""
        self.worker = ""
        self.lost = False
        """Told that there is nothing to resume."""
        self.receipts: list[int] = []

    def hello(self) -> Json:
        if not self.token:
            return {"type": "connect", **self.opening}
        ticket = {"ticket": self._ticket} if self._ticket else {}
        return {
            "type": "restore_session",
            "recovery_token": self.token,
            "received": self.talk.received,
            "acked": self.talk.acked,
            **ticket,
        }

    async def answered(self, answer: Json) -> None:
        self.told.append(f"({answer['peer']['state']})")
        self.worker = answer["peer"]["id"] or self.worker
        if answer["type"] == "session_started":
            self.talk.session = answer["session"]
            assert answer["next_seq"] == 1
            await self.offer(self.talk, 1)
            return
        assert answer["session"] == self.talk.session
        self.talk.ack_to(answer["accepted"])
        await self.offer(self.talk, answer["accepted"] + 1)

    def turned_away(self, code: int) -> None:
        if code == 4404:
            self.lost = self.over = True

    async def frame(self, frame: Json) -> None:
        kind = frame["type"]
        if kind == "message":
            self.talk.take(frame)
            await self.write({"type": "ack", "seq": self.talk.received})
        elif kind == "ack":
            self.talk.ack_to(frame["seq"])
        elif kind == "peer":
            self.told.append(frame["state"])
            self.worker = frame.get("id", self.worker)
        elif kind == "receipt":
            self.receipts.append(frame["seq"])
        elif kind == "session_ended":
            self.over = True
            self._poke.set()

    def way(self, frame: Json) -> Way:
        del frame
        return self.talk

    def named(self, way: Way) -> Json:
        del way
        return {}


class Worker(Party):
    """A worker that answers each message with the same data."""

    path = "/v1/worker"

    def __init__(self, cluster: Cluster, entry: Callable[[], str], *, echo: bool = True, **opening: object) -> None:
        super().__init__(cluster, entry, **{"instance_id": "worker-a", "capacity": 1000, **opening})
        self.echo = echo
        self.worker = ""
        self.workers: list[str] = []
        """The ids it was given, in order."""
        self.talks: dict[str, Way] = {}
        self.past: list[Way] = []
        """Every session it was ever given."""
        self.ended: list[tuple[str, str]] = []

    def hello(self) -> Json:
        if not self.token:
            return {"type": "app_ready", **self.opening}
        ticket = {"ticket": self._ticket} if self._ticket else {}
        return {
            "type": "app_ready",
            **self.opening,
            "reconnection": True,
            "recovery_token": self.token,
            "sessions": [
                {"session": name, "received": way.received, "acked": way.acked} for name, way in self.talks.items()
            ],
            **ticket,
        }

    async def answered(self, answer: Json) -> None:
        self.worker = answer["worker"]
        if self.worker not in self.workers:
            self.workers.append(self.worker)
        for one in answer.get("sessions", ()):
            way = self.talks[one["session"]]
            way.ack_to(one["accepted"])
            await self.offer(way, one["accepted"] + 1)
        for name in answer.get("lost", ()):
            self.talks.pop(name, None)

    def turned_away(self, code: int) -> None:
        if code in (4403, 4404):
            self.token = ""
            self.talks.clear()

    async def frame(self, frame: Json) -> None:
        kind = frame["type"]
        if kind == "session_assigned":
            way = self.talks.get(frame["session"])
            if way is None:
                way = self.talks[frame["session"]] = Way(frame["session"])
                self.past.append(way)
            way.next_seq = frame["next_seq"]
            way.history = frame.get("chat_history")
            way.assigned += 1
            await self.write({"type": "session_accept", "session": way.session})
        elif kind == "session_ended":
            self.talks.pop(frame["session"], None)
            self.ended.append((frame["session"], frame["reason"]))
        elif kind in ("message", "ack") and frame["session"] in self.talks:
            way = self.talks[frame["session"]]
            if kind == "ack":
                way.ack_to(frame["seq"])
                return
            if not way.heard:
                way.received = frame["seq"] - 1  # a session taken over begins where the worker before it ended
            new = way.take(frame)
            if new and self.echo:
                await self.say(way, frame["data"])
            await self.write({"type": "ack", "session": way.session, "seq": way.received})

    def way(self, frame: Json) -> Way:
        return self.talks.get(frame.get("session", ""), Way())

    def named(self, way: Way) -> Json:
        return {"session": way.session}
