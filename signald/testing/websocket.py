"""A WebSocket client whose bytes a test chooses, right or wrong; written without the code of the node.

`wire.Peer` speaks through a library and cannot break a rule of WebSocket. This client can: a test sends frames that it
has built itself, and sees every byte of the answer.
"""

import json
import struct
from contextlib import suppress
from typing import Any

import trio

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""The pair RFC 6455 gives as its example."""


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = b"\x0b\xad\xca\xfe",
    length: int | None = None,
    width: int | None = None,
) -> bytes:
    """Return one client frame; `length` and `width` (0, 2 or 8 bytes) may lie, `mask` None leaves it unmasked."""
    said = len(payload) if length is None else length
    if width is None:
        width = 0 if said < 126 else 2 if said < 65536 else 8
    first = (0x80 if fin else 0) | (rsv << 4) | opcode
    second = (0x80 if mask is not None else 0) | {0: said & 0x7F, 2: 126, 8: 127}[width]
    head = bytes((first, second)) + {0: b"", 2: struct.pack("!H", said & 0xFFFF), 8: struct.pack("!Q", said)}[width]
    if mask is None:
        return head + payload
    masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    return head + mask + masked


def text(said: str | bytes) -> bytes:
    """Return a whole text message."""
    return frame(1, said.encode() if isinstance(said, str) else said)


def close(code: int | None = 1000, reason: bytes = b"") -> bytes:
    """Return a Close frame."""
    return frame(8, b"" if code is None else struct.pack("!H", code) + reason)


def request(
    target: str = "/v1/client",
    *headers: tuple[bytes, bytes],
    method: bytes = b"GET",
    without: tuple[bytes, ...] = (),
) -> bytes:
    """Return a request to open a WebSocket, with `headers` added and those named in `without` left out."""
    usual = [
        (b"Host", b"signald.example"),
        (b"Upgrade", b"websocket"),
        (b"Connection", b"Upgrade"),
        (b"Sec-WebSocket-Key", KEY),
        (b"Sec-WebSocket-Version", b"13"),
    ]
    lines = [b"%s %s HTTP/1.1" % (method, target.encode())]
    lines += [b"%s: %s" % pair for pair in [*(pair for pair in usual if pair[0] not in without), *headers]]
    return b"\r\n".join(lines) + b"\r\n\r\n"


class HungUp(Exception):
    """The server closed the TCP."""


class Client:
    """The far end of one connection."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        """Talk over `stream`, on which nothing was said yet."""
        self.stream = stream
        self.received = bytearray()

    async def open(self, *headers: tuple[bytes, bytes], path: str = "/v1/client") -> bytes:
        """Do the opening handshake; return the head of the 101."""
        await self.stream.send_all(request(path, *headers))
        head = await self.response()
        assert head.startswith(b"HTTP/1.1 101 "), head
        return head

    async def response(self) -> bytes:
        """Return the head of the HTTP response."""
        while b"\r\n\r\n" not in self.received:
            await self._more()
        end = self.received.index(b"\r\n\r\n") + 4
        head = bytes(self.received[:end])
        del self.received[:end]
        return head

    async def send(self, data: bytes) -> None:
        """Write bytes."""
        await self.stream.send_all(data)

    async def frame(self) -> tuple[int, bytes]:
        """Return opcode and payload of the next frame; raises HungUp when there is none."""
        while (found := self._frame()) is None:
            await self._more()
        return found

    async def echo(self, said: str) -> None:
        """Say something to an echoing handler and hear it back."""
        await self.send(text(said))
        assert await self.frame() == (1, said.encode())

    async def closed_with(self) -> tuple[int | None, str]:
        """Read up to the Close; return its code and reason."""
        while True:
            opcode, payload = await self.frame()
            if opcode == 8:
                return (struct.unpack("!H", payload[:2])[0], payload[2:].decode()) if payload else (None, "")

    async def hung_up_after(self) -> float:
        """Keep what comes in `received` until the TCP is closed; return after how many seconds that was."""
        started = trio.current_time()
        with suppress(HungUp):
            while True:
                await self._more()
        return trio.current_time() - started

    async def silent_for(self, seconds: float) -> bool:
        """Tell whether nothing comes, not even an end, for so long."""
        with trio.move_on_after(seconds) as waiting, suppress(HungUp):
            await self._more()
        return waiting.cancelled_caught

    def _frame(self) -> tuple[int, bytes] | None:
        data = self.received
        if len(data) < 2:
            return None
        assert data[0] & 0xF0 == 0x80, "the server sends whole frames without reserved bits"
        assert not data[1] & 0x80, "the server does not mask"
        length, start = data[1], 2
        if length == 126:
            length, start = int.from_bytes(data[2:4], "big"), 4
        elif length == 127:
            length, start = int.from_bytes(data[2:10], "big"), 10
        if len(data) < start or len(data) < start + length:
            return None
        found = (data[0] & 0x0F, bytes(data[start : start + length]))
        del data[: start + length]
        return found

    async def _more(self) -> None:
        try:
            data = await self.stream.receive_some(65536)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            data = b""
        if not data:
            raise HungUp
        self.received += data


class Speaker(Client):
    """A client or a worker that speaks signald.v1 frame by frame, and answers pings while it listens."""

    async def say(self, message: dict[str, Any]) -> None:
        """Send one message."""
        await self.send(text(json.dumps(message)))

    async def hear(self, *kinds: str) -> dict[str, Any]:
        """Read until a message of one of these types comes.

        Raises:
            HungUp: the node has closed the connection, with the payload of its Close if there was one.
        """
        while True:
            opcode, payload = await self.frame()
            if opcode == 9:
                await self.send(frame(10, payload))
            elif opcode == 8:
                raise HungUp(payload)
            elif opcode == 1:
                message: dict[str, Any] = json.loads(payload)
                if message["type"] in kinds:
                    return message
                self.passes_over(message)

    def passes_over(self, message: dict[str, Any]) -> None:
        """Take a message of another type; the base ignores it."""
