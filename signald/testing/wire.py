"""The wire party: one connection that speaks signald.v1 frame by frame, for tests of a node.

It is built on trio-websocket and on the JSON of docs/protocol.md, and shares no code with the node it talks to.
"""

import json
from collections.abc import Sequence
from typing import Any

import trio
import trio_websocket
from wsproto.connection import Connection, ConnectionType
from wsproto.events import TextMessage

Json = dict[str, Any]


class Peer:
    """One connection that speaks the wire by hand."""

    def __init__(self, socket: trio_websocket.WebSocketConnection, stream: trio.abc.Stream) -> None:
        self.socket = socket
        self.aside: list[Json] = []
        self.close_reason = ""
        self._stream = stream

    async def send(self, message: Json) -> None:
        """Send one text frame."""
        await self.socket.send_message(json.dumps(message))

    async def send_together(self, messages: Sequence[Json]) -> None:
        """Send text frames that the node gets in one read, as far as a read goes."""
        frames = Connection(ConnectionType.CLIENT)  # the socket writes each frame for itself
        await self._stream.send_all(b"".join([frames.send(TextMessage(json.dumps(message))) for message in messages]))

    async def send_binary(self, data: bytes, header: Json) -> None:
        """Send one binary frame."""
        front = json.dumps(header).encode()
        await self.socket.send_message(len(front).to_bytes(2, "big") + front + data)

    async def receive(self) -> Json:
        """Receive the next frame, whatever it is."""
        frame = await self.socket.get_message()
        if isinstance(frame, bytes):
            length = int.from_bytes(frame[:2], "big")
            return {**json.loads(frame[2 : 2 + length]), "binary": frame[2 + length :]}
        message: Json = json.loads(frame)
        return message

    async def expect(self, kind: str) -> Json:
        """Receive until a frame of type `kind` comes; the others are put aside."""
        for index, message in enumerate(self.aside):
            if message["type"] == kind:
                return self.aside.pop(index)
        while True:
            message = await self.receive()
            if message["type"] == kind:
                return message
            self.aside.append(message)

    async def ask(self, message: Json, kind: str) -> Json:
        """Send, and receive the answer of type `kind`."""
        await self.send(message)
        return await self.expect(kind)

    async def closed(self) -> int:
        """Read until the connection is closed; returns the code."""
        while True:
            try:
                self.aside.append(await self.receive())
            except trio_websocket.ConnectionClosed as closed:
                if closed.reason is None:
                    return 1006
                self.close_reason = closed.reason.reason or ""
                return int(closed.reason.code)

    async def quiet(self, seconds: float = 1.0) -> list[Json]:
        """Return what comes until nothing has for `seconds`, and what was put aside before."""
        while True:
            with trio.move_on_after(seconds):
                self.aside.append(await self.receive())
                continue
            came, self.aside = self.aside, []
            return came

    async def accept(self, *, within_s: float = 3.0) -> Json:
        """Take the next session this worker is asked to take; returns the question."""
        with trio.fail_after(within_s):
            assigned = await self.expect("session_assigned")
        await self.send({"type": "session_accept", "session": assigned["session"]})
        return assigned

    async def states(self) -> list[str]:
        """What this client is told of its worker, until it is told nothing more."""
        return [frame["state"] for frame in await self.quiet(2.0) if frame["type"] == "peer"]

    async def refused(self) -> tuple[str, int]:
        """Read a refusal: the code of its error, and that of the close."""
        error = await self.expect("error")
        assert error["fatal"] is True
        return error["code"], await self.closed()

    def cut(self) -> None:
        """Lose the connection without a word, as a cable does."""
        assert isinstance(self._stream, trio.StapledStream)
        self._stream.send_stream.close()
        self._stream.receive_stream.close()
