"""A node in memory that gives sessions to one worker, asks, and counts the answers. It stores nothing, and no connection ends by itself."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from math import ceil
from typing import Any

import anyio
from attrs import define, field

from signald.sdk.network import Carrier, CarrierClosed
from signald.sdk.writing import Frame
from signald.wire.close_codes import CloseCode

WORKER = "w_simulated"


def session_name(number: int) -> str:
    """The id of the session with this number, in the form that ids have."""
    return f"s_{number:026d}"


@define
class Told:
    """One session, as its client would see it."""

    name: str
    accepted: bool = False
    said: int = 0
    """Messages that were sent to the handler."""
    acked: int = 0
    """Those that it has finished with."""
    answers: int = 0
    """Messages of the handler, the pieces of streams included."""
    open_streams: set[str] = field(factory=set)
    asked_at: float = 0.0
    waits_s: list[float] = field(factory=list)
    """From a question to the first answer behind it."""
    over: str | None = None
    """How it ended: `done`, `ended` by the handler, or `given back`, as by a handler that failed."""


class SimulatedNode:
    """See the module."""

    def __init__(self, sessions: int, messages: int, say: Any) -> None:
        self.told = {session_name(number): Told(session_name(number)) for number in range(sessions)}
        self._messages = messages
        self._say = say
        self._changed = anyio.Event()

    @asynccontextmanager
    async def dial(self, _url: str) -> AsyncIterator[Carrier]:
        """Stand in for the network."""
        send, receive = anyio.create_memory_object_stream[str](len(self.told) * (self._messages + 2) + 100)
        with send, receive:
            yield _Carrier(self, send, receive)

    async def wait(self) -> None:
        """Wait until each session is over."""
        while any(one.over is None for one in self.told.values()):
            await self._changed.wait()

    def heard(self, said: dict[str, Any], now: float) -> list[dict[str, Any]]:
        """Take one message of the worker; return what the node says to it."""
        kind = said.get("type")
        if kind == "app_ready":
            accepted = {"type": "app_accepted", "status": "ok", "worker": WORKER, "recovery_token": f"{WORKER}.none"}
            assigned = [
                {"type": "session_assigned", "session": name, "client": {"meta": {"simulated": name}}, "next_seq": 1}
                for name in self.told
            ]
            return [{**accepted, "token_ttl_ms": 10_000, "heartbeat_ms": 3_600_000}, *assigned]
        one = self.told.get(str(said.get("session")))
        if one is None or one.over is not None:
            return []
        return self._of(one, str(kind), said, now)

    def _of(self, one: Told, kind: str, said: dict[str, Any], now: float) -> list[dict[str, Any]]:
        if kind == "session_accept":
            one.accepted = True
        elif kind == "session_refuse":
            self._end(one, "given back")
        elif kind == "bye":
            self._end(one, "ended")
            return [{"type": "session_ended", "session": one.name, "reason": "bye"}]
        elif kind == "ack":
            one.acked = max(one.acked, int(said["seq"]))
        elif kind == "message":
            one.answers += 1
            if len(one.waits_s) < one.said:
                one.waits_s.append(now - one.asked_at)
            if stream := said.get("stream"):
                (one.open_streams.discard if said.get("end") else one.open_streams.add)(stream)
            return [{"type": "ack", "session": one.name, "seq": said["seq"]}]
        return []

    def next(self, now: float) -> list[dict[str, Any]]:
        """Say the next message of each session whose last one is finished with; after the last of all its client leaves."""
        said: list[dict[str, Any]] = []
        for one in self.told.values():
            if one.over is not None or not one.accepted or one.acked < one.said:
                continue
            if one.said == self._messages:
                self._end(one, "done")
                said.append({"type": "session_ended", "session": one.name, "reason": "bye"})
            else:
                one.said, one.asked_at = one.said + 1, now
                said.append({"type": "message", "session": one.name, "seq": one.said, "data": self._say})
        return said

    def _end(self, one: Told, how: str) -> None:
        one.over = how
        self._changed.set()
        self._changed = anyio.Event()

    def summary(self) -> dict[str, Any]:
        """What happened, for people and for scripts."""
        every = list(self.told.values())
        waits = sorted(wait for one in every for wait in one.waits_s)
        return {
            "sessions": len(every),
            "given_back": sum(one.over == "given back" for one in every),
            "not_over": sum(one.over is None for one in every),
            "messages": sum(one.said for one in every),
            "answers": sum(one.answers for one in every),
            "open_streams": sum(len(one.open_streams) for one in every),
            "first_answer_p50_s": _quantile(waits, 0.5),
            "first_answer_p99_s": _quantile(waits, 0.99),
        }


def _quantile(values: Sequence[float], share: float) -> float | None:
    return round(values[max(0, ceil(share * len(values)) - 1)], 4) if values else None


class _Carrier:
    """The worker's end of the connection."""

    def __init__(self, node: SimulatedNode, send: Any, receive: Any) -> None:
        self._node = node
        self._send = send
        self._receive = receive

    async def receive(self) -> str | bytes:
        """Return what the node says next."""
        try:
            return str(await self._receive.receive())
        except anyio.EndOfStream:
            raise CarrierClosed(CloseCode.NORMAL, "bye") from None

    async def send(self, frames: Sequence[Frame]) -> None:
        """Have the node hear all `frames`."""
        answers = []
        for text, payload in frames:
            # Of a binary frame only the head concerns a node.
            head = payload if text else payload[2 : 2 + int.from_bytes(payload[:2], "big")]
            said = json.loads(head)
            if said.get("type") == "bye" and "session" not in said:
                self._send.close()
                return
            answers += self._node.heard(said, anyio.current_time())
        # An ack comes in front of what was said before it: the next question, or the end, waits for the rest of the write.
        for answer in answers + self._node.next(anyio.current_time()):
            await self._send.send(json.dumps(answer))

    async def aclose(self, code: int, reason: str) -> None:
        """Nothing is to be shaken hands about."""

    def abort(self) -> None:
        """Nothing is to be cut."""
