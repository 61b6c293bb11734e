"""WebSocket bytes of a server that may break every rule: a handshake, and frames as they are told to be (RFC 6455)."""

import asyncio
import base64
import hashlib
import struct
from http import HTTPStatus

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


class Cut(Exception):
    """The connection is over, by the script or by the party."""


def frame(opcode: int, payload: bytes) -> bytes:
    """Return a whole frame, not masked."""
    if len(payload) < 126:
        return bytes([0x80 | opcode, len(payload)]) + payload
    if len(payload) < 65536:
        return struct.pack(">BBH", 0x80 | opcode, 126, len(payload)) + payload
    return struct.pack(">BBQ", 0x80 | opcode, 127, len(payload)) + payload


class Bytes:
    """The node's end of a TCP connection, with a count of the bytes that may still leave."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.left: int | None = None
        """Bytes until the connection is cut; None: it is not."""

    async def send(self, data: bytes) -> None:
        """Write, as far as the script allows.

        Raises:
            Cut: the connection is over.
        """
        if self.left is not None:
            data, self.left = data[: self.left], self.left - len(data[: self.left])
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError:
            raise Cut from None
        if self.left == 0:
            self.abort()
            raise Cut

    def abort(self) -> None:
        """Cut it, behind what was written."""
        self._writer.close()

    async def request(self) -> dict[str, str]:
        """Read the request of a handshake; return its headers in small letters."""
        try:
            head = await self._reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, OSError):
            raise Cut from None
        lines = [line.partition(": ") for line in head.decode("latin-1").split("\r\n")[1:]]
        return {name.lower(): value for name, _, value in lines}

    async def accept(self, headers: dict[str, str]) -> None:
        """Answer a handshake as it should be."""
        key = hashlib.sha1(headers.get("sec-websocket-key", "").encode() + _GUID).digest()
        await self.send(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Protocol: signald.v1\r\nSec-WebSocket-Accept: " + base64.b64encode(key) + b"\r\n\r\n"
        )

    async def refuse(self, status: int, headers: dict[str, str]) -> None:
        """Answer a handshake with a status."""
        said = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        await self.send(f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{said}Content-Length: 0\r\n\r\n".encode())

    async def receive(self) -> tuple[int, bytes]:
        """Return the opcode and the payload of the next frame; the SDK sends none in pieces.

        Raises:
            Cut: the connection is over.
        """
        try:
            first, second = await self._reader.readexactly(2)
            size = second & 0x7F
            if size > 125:
                wide = await self._reader.readexactly(2 if size == 126 else 8)
                size = int.from_bytes(wide, "big")
            mask = await self._reader.readexactly(4)
            masked = await self._reader.readexactly(size)
        except (asyncio.IncompleteReadError, OSError):
            raise Cut from None
        return first & 0x0F, bytes(byte ^ mask[place % 4] for place, byte in enumerate(masked))
