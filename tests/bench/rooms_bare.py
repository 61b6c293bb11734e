"""The bare loop that rooms are measured beside: `python -m tests.bench.rooms_bare PORT`.

What a publisher says is decoded, made into a frame once, and written to each socket. There is no store, no member, no position that
outlives the process, and no bound: what a socket does not take at once is waited for, and all others wait with it.
"""

import base64
import hashlib
import socket
import struct
import sys
import time

import msgspec
import trio

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
RECV_BYTES = 65_536
PUBLISHER = b"/publisher"


class Said(msgspec.Struct):
    """What a publisher says, as far as it matters here."""

    room: str
    data: msgspec.Raw


class Told(msgspec.Struct, tag="room_message"):
    """What each member is told: the frame of signald, byte for byte as long."""

    room: str
    position: int
    member: str
    at_ms: int
    data: msgspec.Raw


def payloads(buffer: bytearray) -> list[bytes]:
    """Take the payloads of the masked frames that are whole; the generator masks with key 0."""
    taken: list[bytes] = []
    at = 0
    while len(buffer) - at >= 2:
        length, start = buffer[at + 1] & 0x7F, at + 6
        if length == 126:
            length, start = int.from_bytes(buffer[at + 2 : at + 4], "big"), at + 8
        if start + length > len(buffer):
            break
        taken.append(bytes(buffer[start : start + length]))
        at = start + length
    del buffer[:at]
    return taken


def framed(payload: bytes) -> bytes:
    """Return a text frame of a server."""
    length = len(payload)
    return (struct.pack("!BB", 0x81, length) if length < 126 else struct.pack("!BBH", 0x81, 126, length)) + payload


class Bare:
    """The sockets of the members, and the loop over them."""

    def __init__(self) -> None:
        self._members: dict[trio.SocketStream, socket.socket] = {}
        self._position = 0
        self._decode = msgspec.json.Decoder(Said).decode
        self._encode = msgspec.json.Encoder().encode

    async def serve(self, stream: trio.SocketStream) -> None:
        """Serve one connection: of a member, or of the publisher."""
        head = b""
        while b"\r\n\r\n" not in head:
            head += await stream.receive_some(RECV_BYTES)
        key = head.partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0]
        accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
        await stream.send_all(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        if head.split(b" ", 2)[1] == PUBLISHER:
            await self._publish(stream)
        else:
            await self._stay(stream)

    async def _stay(self, stream: trio.SocketStream) -> None:
        # A duplicate of Python's own: Trio's socket has no write that does not wait.
        with socket.socket(fileno=socket.dup(stream.socket.fileno())) as plain:
            plain.setblocking(False)
            self._members[stream] = plain
            try:
                while await stream.receive_some(RECV_BYTES):
                    pass
            finally:
                del self._members[stream]

    async def _publish(self, stream: trio.SocketStream) -> None:
        buffer = bytearray()
        while data := await stream.receive_some(RECV_BYTES):
            buffer += data
            for payload in payloads(buffer):
                said = self._decode(payload)
                self._position += 1
                told = Told(
                    said.room, self._position, "s_0123456789abcdefghijkl", time.time_ns() // 1_000_000, said.data
                )
                await self._tell(framed(self._encode(told)))

    async def _tell(self, frame: bytes) -> None:
        for stream, plain in self._members.items():
            try:
                sent = plain.send(frame)
            except BlockingIOError:
                sent = 0
            if sent < len(frame):
                await stream.send_all(frame[sent:])


async def serve(port: int) -> None:
    """Serve on a loopback port."""
    listener = (await trio.open_tcp_listeners(port, host="127.0.0.1", backlog=4096))[0]
    print("serving", flush=True)
    await trio.serve_listeners(Bare().serve, [listener])


if __name__ == "__main__":
    trio.run(serve, int(sys.argv[1]))
