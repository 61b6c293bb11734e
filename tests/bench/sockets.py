"""Non-blocking sockets, one epoll, and the client half of WebSocket at the least cost Python allows.

The generator shares a machine with what it measures, so there are no tasks, locks or timers here. A connection reads once per
readiness, answers everything it read, and writes once. Frames are masked with key 0: legal for a client (RFC 6455 asks
for an unpredictable key to protect proxies from browsers, and there is neither here), and the server unmasks all the same.
"""

import errno
import itertools
import select
import socket
import struct
import time
from collections.abc import Callable

from tests.bench.errors import BenchError

# Below the threshold at which malloc turns to mmap: a bigger buffer costs page faults at every read.
RECV_BYTES = 65_536

TEXT, CLOSE, PING, PONG = 0x81, 0x88, 0x89, 0x8A

Address = tuple[str, int]

LOOPBACK = "127.0.0.1"
IP_BIND_ADDRESS_NO_PORT = 24
"""From <linux/in.h>; `socket` names it from Python 3.12 on. The port is chosen when the connection is made."""
SOURCES = itertools.cycle(f"127.0.1.{number}" for number in range(1, 65))
"""Addresses of this machine to connect from, in turn: one alone may hold no more than `admission.address_share` of the connections."""


class Loop:
    """Calls the sockets that are ready, until a time or a condition."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._sockets: dict[int, Socket] = {}

    def close(self) -> None:
        """Close the epoll and every socket still registered."""
        for sock in list(self._sockets.values()):
            sock.cut()
        self._epoll.close()

    def add(self, sock: "Socket", mask: int) -> None:
        """Watch a socket."""
        self._sockets[sock.fd] = sock
        self._epoll.register(sock.fd, mask)

    def change(self, sock: "Socket", mask: int) -> None:
        """Watch for other events."""
        self._epoll.modify(sock.fd, mask)

    def remove(self, sock: "Socket") -> None:
        """Stop watching a socket, before it is closed."""
        del self._sockets[sock.fd]
        self._epoll.unregister(sock.fd)

    def turn(self, timeout_s: float) -> None:
        """Wait at most `timeout_s` for sockets to be ready and serve each of them once."""
        sockets = self._sockets
        for fd, mask in self._epoll.poll(timeout_s):
            # An earlier socket of the same batch may have cut this one.
            if (sock := sockets.get(fd)) is not None:
                sock.on_ready(mask)

    def run_for(self, seconds: float) -> float:
        """Serve for `seconds`; return how long it really was."""
        begin = time.perf_counter()
        end = begin + seconds
        while (now := time.perf_counter()) < end:
            self.turn(end - now)
        return now - begin

    def run_until(self, done: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Serve until `done()`; raise BenchError naming `what` if that takes longer than `timeout_s`."""
        end = time.perf_counter() + timeout_s
        while not done():
            if time.perf_counter() > end:
                raise BenchError(f"not within {timeout_s:g} s: {what}")
            self.turn(0.05)


class Socket:
    """One TCP connection of the generator. Subclasses say what is sent first and what a read means."""

    options: tuple[tuple[int, int, int], ...] = ()
    """Level, name and value of what is set before connecting."""

    def __init__(self, loop: Loop, address: Address) -> None:
        self.loop = loop
        self.connected = False
        self.gone = False
        self._unsent = b""
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for option in self.options:
            self._socket.setsockopt(*option)
        self.fd = self._socket.fileno()
        if address[0] == LOOPBACK:
            self._socket.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            self._socket.bind((next(SOURCES), 0))
        code = self._socket.connect_ex(address)
        if code not in (0, errno.EINPROGRESS):
            self._socket.close()
            raise BenchError(f"connect to {address}: {errno.errorcode[code]}")
        loop.add(self, select.EPOLLOUT)

    def on_connected(self) -> None:
        """Do what comes first on a new TCP connection."""

    def on_data(self, data: bytes) -> None:
        """Take what one read yielded; never empty."""
        raise NotImplementedError

    def on_gone(self) -> None:
        """Take note that the server ended the connection. A benchmark that expects it overrides this."""
        raise BenchError("the server ended a connection")

    def on_ready(self, mask: int) -> None:
        """Serve one readiness event."""
        if mask & select.EPOLLOUT:
            self._on_writable()
        if mask & ~select.EPOLLOUT and not self.gone:
            try:
                data = self._socket.recv(RECV_BYTES)
            except BlockingIOError:
                return
            except ConnectionError:
                data = b""
            if data:
                self.on_data(data)
            else:
                self.cut()
                self.on_gone()

    def send(self, data: bytes) -> None:
        """Write now; what the kernel does not take waits for the socket to be writable."""
        if self.gone:
            return
        if self._unsent or not self.connected:
            self._unsent += data
            return
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except ConnectionError:
            # The reading side reports it, with whatever the server still said before.
            return
        if sent < len(data):
            self._unsent = data[sent:]
            self.loop.change(self, select.EPOLLIN | select.EPOLLOUT)

    def cut(self) -> None:
        """Close the TCP connection without a goodbye; idempotent."""
        if not self.gone:
            self.gone = True
            self.loop.remove(self)
            self._socket.close()

    def _on_writable(self) -> None:
        if not self.connected:
            if code := self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self.cut()
                raise BenchError(f"connect: {errno.errorcode[code]}")
            self.connected = True
            self.loop.change(self, select.EPOLLIN)
            self.on_connected()
            return
        unsent, self._unsent = self._unsent, b""
        self.loop.change(self, select.EPOLLIN)
        self.send(unsent)


def header(opcode: int, length: int) -> bytes:
    """Return the head of a final client frame of `length` payload bytes, masked with key 0."""
    if length < 126:
        return struct.pack("!BBI", opcode, 0x80 | length, 0)
    if length < 65_536:
        return struct.pack("!BBHI", opcode, 0xFE, length, 0)
    return struct.pack("!BBQI", opcode, 0xFF, length, 0)


def frame(payload: bytes, opcode: int = TEXT) -> bytes:
    """Return a final client frame."""
    return header(opcode, len(payload)) + payload


def server_header(opcode: int, length: int) -> bytes:
    """Return the head a server puts before `length` payload bytes: what the generator looks for."""
    if length < 126:
        return bytes((opcode, length))
    if length < 65_536:
        return struct.pack("!BBH", opcode, 126, length)
    return struct.pack("!BBQ", opcode, 127, length)


def upgrade_request(path: str, subprotocol: str = "") -> bytes:
    """Return the opening handshake; the key is constant, since no program between could cache the answer."""
    lines = [
        f"GET {path} HTTP/1.1",
        "Host: bench",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: c2lnbmFsZC1iZW5jaC1rZQ==",
    ]
    if subprotocol:
        lines.append(f"Sec-WebSocket-Protocol: {subprotocol}")
    return "\r\n".join([*lines, "", ""]).encode()


class WebSocket(Socket):
    """A client connection that reads frame by frame; the hot paths override `on_frames` and fall back to `on_frame`."""

    path = "/"
    subprotocol = ""

    def __init__(self, loop: Loop, address: Address) -> None:
        super().__init__(loop, address)
        self.open = False
        self.close_code: int | None = None
        self._tail = b""

    def on_connected(self) -> None:
        """Ask for the upgrade."""
        self.send(upgrade_request(self.path, self.subprotocol))

    def on_open(self) -> None:
        """Do what comes first on a new WebSocket."""

    def on_frame(self, opcode: int, payload: bytes) -> None:
        """Take one frame that the hot path did not; `opcode` includes the FIN bit."""
        if opcode == PING:
            self.send(frame(payload, PONG))
        elif opcode == CLOSE:
            self.close_code = int.from_bytes(payload[:2], "big") if payload else 1005
            self.send(frame(payload[:2], CLOSE))
        elif opcode != PONG:
            raise BenchError(f"unexpected frame, first byte {opcode:#x}: {payload[:200]!r}")

    def on_data(self, data: bytes) -> None:
        """Take the answer to the upgrade, then frames."""
        if self.open:
            self.on_frames(data)
            return
        self._tail += data
        head, blank, rest = self._tail.partition(b"\r\n\r\n")
        if not blank:
            return
        if not head.startswith(b"HTTP/1.1 101 "):
            raise BenchError(f"upgrade refused: {self._tail[:400].decode(errors='replace')}")
        self._tail = b""
        self.open = True
        self.on_open()
        if rest:
            self.on_frames(rest)

    def on_frames(self, data: bytes) -> None:
        """Split what one read yielded into frames."""
        buffer = self._tail + data if self._tail else data
        position = 0
        while (span := frame_span(buffer, position)) is not None:
            start, stop = span
            self.on_frame(buffer[position], buffer[start:stop])
            position = stop
            if self.gone:
                return
        self._tail = buffer[position:]


def frame_span(buffer: bytes, position: int) -> tuple[int, int] | None:
    """Return where the payload of the server frame at `position` starts and stops, or None if it is not all there."""
    available = len(buffer) - position
    if available < 2:
        return None
    length, start = buffer[position + 1], position + 2
    if length == 126:
        if available < 4:
            return None
        length, start = int.from_bytes(buffer[start : start + 2], "big"), start + 2
    elif length == 127:
        if available < 10:
            return None
        length, start = int.from_bytes(buffer[start : start + 8], "big"), start + 8
    stop = start + length
    return (start, stop) if stop <= len(buffer) else None
