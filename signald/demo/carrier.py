"""The parties' WebSocket connections: the smallest client that is correct against signald on loopback.

The SDK comes with trio-websocket, which costs more CPU per message than a node does. A thousand parties in one process would
then be what the demo measures. The SDK takes any `Carrier`, so the parties are given this one; everything above it, from the
opening message to the resume, is the SDK's own.
"""

import base64
import errno
import hashlib
import os
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import trio

from signald.sdk.trio import CarrierClosed, DialFailed, Timing
from signald.sdk.writing import Frame
from signald.wire.messages import SUBPROTOCOL

RECEIVE_BYTES = 65536
ANSWER_BYTES_MAX = 16384

_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0, 1, 2, 8, 9, 10
_FIN, _MASKED = 0x80, 0x80
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_U16, _U64 = struct.Struct(">H"), struct.Struct(">Q")

# A mask keeps scripts in browsers from writing what a proxy takes for HTTP. Here are neither; zeros are a valid mask.
_NO_MASK = b"\0\0\0\0"


class LeanCarrier:
    """One connection, open until `abort`.

    A reading task parses everything one read brought; a writing task hands it to the kernel in one call. Pongs and the
    answer to a close go through the same buffer as messages, so nothing can come between the halves of a frame.
    """

    def __init__(self, sock: socket.socket, rest: bytes, write_s: float, heard: Callable[[str], None]) -> None:
        self._sock = sock
        self._incoming = bytearray(rest)
        self._outgoing = bytearray()
        self._write_s = write_s
        self._heard = heard
        """Told every text message when it is read, which may be before the SDK asks for it."""
        self._messages: deque[str | bytes] = deque()
        """Bounded by one read: there is no other while it is not empty."""
        self._over: CarrierClosed | None = None
        self._parse()

    async def receive(self) -> str | bytes:
        """Return the next message.

        Raises:
            CarrierClosed: the connection is over.
        """
        while not self._messages:
            if self._over is not None:
                raise self._over
            await self._read()
        return self._messages.popleft()

    async def send(self, frames: Sequence[Frame]) -> None:
        """Write `frames`, usually in one system call.

        Raises:
            CarrierClosed: the connection is over.
        """
        for text, payload in frames:
            self._put(_TEXT if text else _BINARY, payload)
        await self._flush()

    async def aclose(self, code: int, reason: str) -> None:
        """Close with a handshake; the caller bounds it."""
        if self._over is None:
            self._put(_CLOSE, _U16.pack(code) + reason.encode()[:100])
            try:
                await self._flush()
                while self._over is None:
                    await self._read()
            except CarrierClosed:
                pass  # closed is what it was to become
        self.abort()

    def abort(self) -> None:
        """Cut the connection now."""
        if self._over is None:
            self._over = CarrierClosed(None, "aborted")
        if self._sock.fileno() != -1:
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()

    # --- writing -------------------------------------------------------------------------------------------------

    def _put(self, opcode: int, payload: bytes) -> None:
        length = len(payload)
        if length < 126:
            head = bytes((_FIN | opcode, _MASKED | length))
        elif length < 65536:
            head = bytes((_FIN | opcode, _MASKED | 126)) + _U16.pack(length)
        else:
            head = bytes((_FIN | opcode, _MASKED | 127)) + _U64.pack(length)
        self._outgoing += head + _NO_MASK + payload

    def _flush_now(self) -> None:
        try:
            while self._outgoing:
                del self._outgoing[: self._sock.send(self._outgoing)]
        except BlockingIOError:
            pass
        except OSError as error:
            raise self._broken(str(error)) from None

    async def _flush(self) -> None:
        if self._over is not None:
            raise self._over
        self._flush_now()
        if not self._outgoing:
            return
        with trio.move_on_after(self._write_s):
            while self._outgoing:
                await trio.lowlevel.wait_writable(self._sock)
                self._flush_now()
            return
        raise self._broken(f"not written within {self._write_s} s")

    def _broken(self, why: str) -> CarrierClosed:
        if self._over is None:
            self._over = CarrierClosed(None, why)
        return self._over

    # --- reading -------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        try:
            await trio.lowlevel.wait_readable(self._sock)
            data = self._sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except (OSError, trio.ClosedResourceError) as error:
            raise self._broken(str(error)) from None
        if not data:
            raise self._broken("the connection broke")
        self._incoming += data
        self._parse()

    def _parse(self) -> None:
        buffer = self._incoming
        at = 0
        while len(buffer) - at >= 2 and self._over is None:
            first, length = buffer[at], buffer[at + 1]
            start = at + 2
            if length == 126:
                if len(buffer) - start < 2:
                    break
                length, start = _U16.unpack_from(buffer, start)[0], start + 2
            elif length == 127:
                if len(buffer) - start < 8:
                    break
                length, start = _U64.unpack_from(buffer, start)[0], start + 8
            if len(buffer) - start < length:
                break
            at = start + length
            self._frame(first, bytes(buffer[start:at]))
        del buffer[:at]

    def _frame(self, first: int, payload: bytes) -> None:
        if first == _FIN | _TEXT:
            text = payload.decode()
            self._heard(text)
            self._messages.append(text)
        elif first == _FIN | _BINARY:
            self._messages.append(payload)
        elif first == _FIN | _PING:
            self._put(_PONG, payload)
            self._flush_now()
        elif first == _FIN | _CLOSE:
            code = _U16.unpack_from(payload)[0] if len(payload) >= 2 else None
            self._put(_CLOSE, payload[:2])
            self._flush_now()
            self._over = CarrierClosed(code, payload[2:].decode(errors="replace"))
        elif first != _FIN | _PONG:
            self._over = CarrierClosed(None, f"a frame that signald does not send: {first:#x}")


@asynccontextmanager
async def lean_dial(url: str, timing: Timing, heard: Callable[[str], None]) -> AsyncIterator[LeanCarrier]:
    """Connect to `url`, an IPv4 address and a port, and shake hands.

    Raises:
        DialFailed: refused, unreachable, not in time, or not signald.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            with trio.fail_after(timing.connect_s):
                rest = await _shake_hands(sock, url)
        except (OSError, trio.TooSlowError) as error:
            raise DialFailed(None, f"not reachable: {error}") from None
        carrier = LeanCarrier(sock, rest, timing.write_s, heard)
        try:
            yield carrier
        finally:
            carrier.abort()
    finally:
        sock.close()


async def _shake_hands(sock: socket.socket, url: str) -> bytes:
    parts = urlsplit(url)
    refused = sock.connect_ex((str(parts.hostname), int(parts.port or 80)))
    if refused == errno.EINPROGRESS:
        await trio.lowlevel.wait_writable(sock)
        refused = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if refused:
        raise OSError(refused, os.strerror(refused))
    key = base64.b64encode(os.urandom(16))
    request = (
        f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key.decode()}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\r\n"
    )
    sock.sendall(request.encode())  # a few hundred bytes into an empty buffer: never partial
    answer = b""
    while b"\r\n\r\n" not in answer:
        await trio.lowlevel.wait_readable(sock)
        data = sock.recv(RECEIVE_BYTES)
        if not data:
            raise DialFailed(None, "the server hung up during the handshake")
        answer += data
        if len(answer) > ANSWER_BYTES_MAX:
            raise DialFailed(None, "the answer to the handshake does not end")
    head, _, rest = answer.partition(b"\r\n\r\n")
    status, *lines = head.split(b"\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
    if status.split(b" ")[1:2] != [b"101"]:
        raise DialFailed(None, f"the handshake was answered with {status.decode(errors='replace')}")
    accept = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
    if headers.get(b"sec-websocket-accept") != accept or headers.get(b"sec-websocket-protocol") != SUBPROTOCOL.encode():
        raise DialFailed(None, f"the other side does not speak {SUBPROTOCOL}")
    return rest
