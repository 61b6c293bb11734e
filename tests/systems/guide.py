"""The server of the DeepStream guide, from a script: it answers each request for health, and plays one connection after the other.

It is no node: it shows that an app keeps the guide's own rules, also those that signald never makes it use.
"""

import base64
import hashlib
import json
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any

import trio

from tests.systems.recorder import CLOSE, HOST, TEXT, Address

MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""RFC 6455, 1.3."""


class Call:
    """One connection of an app, from the side of the server."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._rest = b""

    async def _read(self, count: int) -> bytes:
        while len(self._rest) < count:
            data = await self._stream.receive_some()
            if not data:
                raise EOFError
            self._rest += data
        taken, self._rest = self._rest[:count], self._rest[count:]
        return taken

    async def frame(self) -> tuple[int, bytes]:
        """Read the next frame: its opcode and its payload."""
        first, length = await self._read(2)
        length &= 0x7F
        if length > 125:
            length = int.from_bytes(await self._read(2 if length == 126 else 8), "big")
        mask = await self._read(4)
        payload = await self._read(length)
        return first & 0x0F, bytes(byte ^ mask[n % 4] for n, byte in enumerate(payload))

    async def listen(self) -> None:
        """Answer pings until the app's Close; messages are passed over."""
        opcode = 0
        while opcode != CLOSE:
            opcode, payload = await self.frame()
            if opcode == PING:
                await self.send(PONG, payload)

    async def hear(self, kind: str) -> dict[str, Any]:
        """Read until a message of one type."""
        while True:
            opcode, payload = await self.frame()
            if opcode == TEXT:
                said: dict[str, Any] = json.loads(payload)
                if said["type"] == kind:
                    return said

    async def send(self, opcode: int, payload: bytes) -> None:
        """Write a short frame."""
        assert len(payload) < 126
        await self._stream.send_all(bytes([0x80 | opcode, len(payload)]) + payload)

    async def say(self, **fields: object) -> None:
        """Write a message."""
        await self.send(TEXT, json.dumps(fields).encode())

    async def close(self, code: int) -> None:
        """Write a Close, and read until the app's."""
        await self.send(CLOSE, code.to_bytes(2, "big"))
        while (await self.frame())[0] != CLOSE:
            pass


PING, PONG = 0x9, 0xA

Part = Callable[[Call], Awaitable[None]]


class Guide:
    """A server with a script; what is asked when the script is over finds nothing."""

    def __init__(self, health: Iterable[int], parts: Iterable[Part]) -> None:
        """`health` are the statuses of one request after the other, 0 breaks it off; `parts` play the connections."""
        self._health: Iterator[int] = iter(health)
        self._parts = iter(parts)
        self.address: Address = (HOST, 0)

    async def serve(self, nursery: trio.Nursery) -> None:
        """Begin to listen; `address` is known when this returns."""

        async def run(task_status: trio.TaskStatus[list[trio.SocketListener]]) -> None:
            await trio.serve_tcp(self._answer, 0, host=HOST, task_status=task_status)

        listeners = await nursery.start(run)
        self.address = listeners[0].socket.getsockname()[:2]

    async def _answer(self, stream: trio.SocketStream) -> None:
        try:
            head = b""
            while b"\r\n\r\n" not in head:
                data = await stream.receive_some()
                if not data:
                    return
                head += data
            if head.startswith(b"GET /deepstream/health "):
                await self._tell_health(stream)
            else:
                await self._play(stream, head)
        except (EOFError, trio.BrokenResourceError):
            pass
        finally:
            await trio.aclose_forcefully(stream)

    async def _tell_health(self, stream: trio.SocketStream) -> None:
        if status := next(self._health, 0):
            body = json.dumps({"status": "ok" if status == 200 else "shutting_down"}).encode()
            head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            await stream.send_all(head.encode() + body)

    async def _play(self, stream: trio.SocketStream, head: bytes) -> None:
        part = next(self._parts, None)
        if part is None:
            return
        names = {name.strip().lower(): value.strip() for name, _, value in map(split, head.split(b"\r\n")[1:])}
        accept = base64.b64encode(hashlib.sha1(names[b"sec-websocket-key"] + MAGIC).digest())
        await stream.send_all(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        await part(Call(stream))


def split(line: bytes) -> tuple[bytes, bytes, bytes]:
    """Return a header's name, a colon, and its value."""
    return line.partition(b":")
