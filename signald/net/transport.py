"""The carrier of a connection's bytes: a socket, TLS over one, or any stream of Trio's."""

import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import trio

from signald.net.poller import Poller, Spawn

RECEIVE_BYTES_MAX = 65536
"""Bytes of one read: enough for some hundred messages, and no more than one connection may hold up the others for."""

SLICE_BYTES = 16384
"""Bytes of one write to a stream, which says nothing before all of it is out: one TLS record. A peer that takes one of these
in `write_s` makes progress, however slowly."""

GONE = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)
"""The errors of a transport that can be neither written nor read any more."""


class Transport(Protocol):
    """A byte stream that can also be written without waiting. Methods raise one of `GONE` when it has ended."""

    def send_nowait(self, data: bytes, /) -> int:
        """Write what goes out at once; return how many bytes did, 0 when none."""

    async def send(self, data: memoryview, /) -> int:
        """Wait until something of `data` could be written; return how many bytes were."""

    async def receive(self, most: int = RECEIVE_BYTES_MAX, /) -> bytes:
        """Wait for bytes, `most` at most; empty when the peer has finished writing."""

    def finish_writing(self) -> None:
        """Tell the peer that nothing more will come, where the stream can say so."""

    def close(self) -> None:
        """Let go of it; what was written is still delivered. Idempotent."""

    def abort(self) -> None:
        """Let go of it and of what was written. Idempotent."""


class SocketTransport:
    """A non-blocking TCP socket, used directly: what Trio's stream adds to it costs as much as the relay itself."""

    __slots__ = ("_closed", "_poller", "_socket", "_watched")

    def __init__(self, sock: socket.socket, poller: Poller | None = None) -> None:
        """Take over `sock`, which must be non-blocking; `poller` is who watches it."""
        self._socket = sock
        self._closed = False
        self._poller = poller
        self._watched = False

    @property
    def can_be_watched(self) -> bool:
        """False: it has no poller, and can only be waited for."""
        return self._poller is not None

    def watch(self, call: Callable[[], None], /) -> None:
        """Have `call` made, which must not raise, whenever `receive_nowait` has something, until `unwatch` or `close`."""
        if self._closed:
            raise trio.ClosedResourceError
        assert self._poller is not None
        self._poller.add(self._socket.fileno(), call)
        self._watched = True

    def unwatch(self) -> None:
        """Take `watch` back; nothing happens where it is over."""
        if self._watched and self._poller is not None:
            self._watched = False
            self._poller.remove(self._socket.fileno())

    def receive_nowait(self, most: int = RECEIVE_BYTES_MAX, /) -> bytes | None:
        """Return what is here, as `receive` would; None: nothing is."""
        if self._closed:
            raise trio.ClosedResourceError
        try:
            return self._socket.recv(most)
        except BlockingIOError:
            return None

    def send_nowait(self, data: bytes, /) -> int:
        if self._closed:
            raise trio.ClosedResourceError
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0

    async def send(self, data: memoryview, /) -> int:
        while True:
            if self._closed:
                raise trio.ClosedResourceError
            await trio.lowlevel.wait_writable(self._socket)
            with suppress(BlockingIOError):
                return self._socket.send(data)

    async def receive(self, most: int = RECEIVE_BYTES_MAX, /) -> bytes:
        while True:
            if self._closed:
                raise trio.ClosedResourceError
            # Waiting first makes every read a checkpoint, and lets bytes gather while other connections have their turn.
            await trio.lowlevel.wait_readable(self._socket)
            with suppress(BlockingIOError):
                return self._socket.recv(most)

    def finish_writing(self) -> None:
        if not self._closed:
            _half_close(self._socket)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self.unwatch()
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()

    def abort(self) -> None:
        if not self._closed:
            _reset_when_closed(self._socket)
            self.close()


def _half_close(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_WR)


def _reset_when_closed(sock: socket.socket) -> None:
    """Have the kernel discard unread bytes, instead of trying to deliver them."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")


class StreamTransport:
    """Any `trio.abc.Stream`, such as the in-memory streams of a simulation. Every write takes the writer task."""

    __slots__ = ("_closed", "_spawn", "_stream")

    def __init__(self, stream: trio.abc.Stream, spawn: Spawn) -> None:
        """Take over `stream`; `spawn` starts the task that closes it."""
        self._stream = stream
        self._spawn = spawn
        self._closed = False

    def send_nowait(self, _data: bytes, /) -> int:
        if self._closed:
            raise trio.ClosedResourceError
        return 0

    async def send(self, data: memoryview, /) -> int:
        if self._closed:
            raise trio.ClosedResourceError
        piece = data[:SLICE_BYTES]
        await self._stream.send_all(piece)
        return len(piece)

    async def receive(self, most: int = RECEIVE_BYTES_MAX, /) -> bytes:
        if self._closed:
            raise trio.ClosedResourceError
        return bytes(await self._stream.receive_some(most))

    def finish_writing(self) -> None:
        """Do nothing: a stream need not know half-closing."""

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._spawn(self._close)

    async def _close(self) -> None:
        with suppress(*GONE):
            await trio.aclose_forcefully(self._stream)

    def abort(self) -> None:
        self.close()


class TlsTransport(StreamTransport):
    """TLS over a socket. It ends with the socket: the Close frame shows that nothing was cut off."""

    __slots__ = ("_socket",)

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, spawn: Spawn) -> None:
        """Take over `sock`, which must be non-blocking and on which nothing was said yet."""
        below = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        super().__init__(trio.SSLStream(below, context, server_side=True, https_compatible=True), spawn)
        self._socket = sock

    def finish_writing(self) -> None:
        if not self._closed:
            _half_close(self._socket)

    def abort(self) -> None:
        if not self._closed:
            _reset_when_closed(self._socket)
            self.close()
