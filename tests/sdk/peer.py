"""A signald that does as it is told: the server's end of every connection a party opens, over memory streams."""

import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.testing
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_server_stream

from signald.sdk.dialing import DialFailed
from signald.sdk.network import Carrier
from signald.sdk.trio_carrier import over_stream


class Accepted:
    """One connection, seen from the server."""

    def __init__(self, url: str, websocket: WebSocketConnection, stream: trio.abc.Stream) -> None:
        self.url = url
        self._websocket = websocket
        self._stream = stream

    async def receive(self) -> dict[str, Any]:
        """Return the next message of the party; a binary one has its data under `data`."""
        data = await self._websocket.get_message()
        if isinstance(data, str):
            return dict(json.loads(data))
        end = 2 + int.from_bytes(data[:2], "big")
        return {**json.loads(data[2:end]), "data": data[end:]}

    async def until(self, kind: str) -> dict[str, Any]:
        """Return the next message of type `kind`, passing over others."""
        while (message := await self.receive())["type"] != kind:
            pass
        return message

    async def close_code(self) -> int:
        """Wait until the party has closed; return its code."""
        try:
            while True:
                await self._websocket.get_message()
        except ConnectionClosed as closed:
            return int(closed.reason.code) if closed.reason is not None else 1006

    async def send(self, **message: Any) -> None:
        """Send one message as a text frame."""
        await self._websocket.send_message(json.dumps(message))

    async def send_binary(self, data: bytes, **header: Any) -> None:
        """Send one message as a binary frame."""
        head = json.dumps(header).encode()
        await self._websocket.send_message(len(head).to_bytes(2, "big") + head + data)

    async def close(self, code: int, reason: str = "") -> None:
        """Close with a handshake."""
        with trio.move_on_after(1):
            await self._websocket.aclose(code, reason or None)

    async def cut(self) -> None:
        """Let the TCP break, without a word."""
        await trio.aclose_forcefully(self._stream)

    async def start_session(self, *, worker: str | None = "w_1", **changes: Any) -> dict[str, Any]:
        """Answer `connect`; return it."""
        opening = await self.receive()
        assert opening["type"] == "connect"
        peer = {"state": "paired" if worker else "waiting", "id": worker}
        limits = {"message_bytes": 65536, "messages_per_s": 20.0, "messages_burst": 100, "backlog_messages": 1000}
        answer: dict[str, Any] = {
            "type": "session_started",
            "session": "s_1",
            "recovery_token": "s_1.first",
            "token_ttl_ms": 300_000,
            "peer": peer,
            "next_seq": 1,
            "limits": limits,
            "heartbeat_ms": 20_000,
        }
        await self.send(**{**answer, **changes})
        return opening

    async def restore_session(
        self, *, accepted: int, token: str = "s_1.next", worker: str | None = "w_1"
    ) -> dict[str, Any]:
        """Answer `restore_session`; return it."""
        opening = await self.receive()
        assert opening["type"] == "restore_session"
        await self.send(
            type="session_restored",
            session="s_1",
            recovery_token=token,
            token_ttl_ms=300_000,
            accepted=accepted,
            replaying=0,
            peer={"state": "paired", "id": worker},
            heartbeat_ms=20_000,
        )
        return opening

    async def accept_app(self) -> dict[str, Any]:
        """Answer a first `app_ready`; return it."""
        opening = await self.receive()
        assert opening["type"] == "app_ready"
        assert opening["reconnection"] is False
        await self.send(
            type="app_accepted",
            status="OK",
            worker="w_1",
            recovery_token="w_1.first",
            token_ttl_ms=300_000,
            heartbeat_ms=20_000,
        )
        return opening

    async def reaccept_app(self, *, kept: dict[str, int], lost: list[str], token: str = "w_1.next") -> dict[str, Any]:
        """Answer an `app_ready` that resumes; `kept`: what is accepted by session. Return it."""
        opening = await self.receive()
        assert opening["type"] == "app_ready"
        assert opening["reconnection"] is True
        await self.send(
            type="reconnection_ack",
            status="OK",
            worker="w_1",
            recovery_token=token,
            token_ttl_ms=300_000,
            session_restored=True,
            server_status="ready",
            sessions=[{"session": name, "accepted": accepted, "replaying": 0} for name, accepted in kept.items()],
            lost=lost,
            heartbeat_ms=20_000,
        )
        return opening

    async def assign(self, session: str, next_seq: int = 1, **changes: Any) -> dict[str, Any]:
        """Give a session; return the worker's answer."""
        await self.send(
            **{"type": "session_assigned", "session": session, "client": {}, "next_seq": next_seq, **changes}
        )
        while (answer := await self.receive())["type"] not in ("session_accept", "session_refuse"):
            pass
        return answer


class ScriptedPeer:
    """Hands every connection that a party opens to the test."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[Accepted](math.inf)
        self.down = 0
        """How many of the next dials are to fail."""
        self.first: Accepted
        """The first connection, where a test wants it at hand."""
        self.dials: list[tuple[float, str]] = []

    async def accept(self) -> Accepted:
        """Return the next connection."""
        return await self._receive.receive()

    @asynccontextmanager
    async def dial(self, url: str) -> AsyncIterator[Carrier]:
        """Stand in for the network."""
        self.dials.append((trio.current_time(), url))
        if self.down:
            self.down -= 1
            raise DialFailed(None, "nobody there")
        ours, theirs = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._serve, nursery, url, ours)
            async with over_stream(theirs, url) as carrier:
                yield carrier
            nursery.cancel_scope.cancel(reason="the party's end is closed")

    async def _serve(self, nursery: trio.Nursery, url: str, stream: trio.abc.Stream) -> None:
        request = await wrap_server_stream(nursery, stream, message_queue_size=1000)
        await self._send.send(Accepted(url, await request.accept(subprotocol="signald.v1"), stream))
