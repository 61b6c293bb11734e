"""A WebSocket connection, and a plain one, on asyncio: what `trio_carrier` is on Trio. On the asyncio client of `websockets`.

uvloop needs nothing of its own: only what every event loop of asyncio has is asked for.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from ssl import SSLContext, create_default_context
from typing import Any
from urllib.parse import urlsplit

import anyio
import anyio.lowlevel
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.frames import Frame as WebSocketFrame
from websockets.frames import Opcode
from websockets.protocol import Event
from websockets.typing import Subprotocol

from signald.sdk.backoff import without_login
from signald.sdk.bounds import FRAME_BYTES_MAX
from signald.sdk.dialing import DialFailed, other_protocol, refused_handshake
from signald.sdk.network import Broken, CarrierClosed
from signald.sdk.party_records import Timing
from signald.sdk.writing import Frame
from signald.wire.messages import SUBPROTOCOL

BROKEN: Broken = (EOFError,)
"""What a stream of asyncio raises beside OSError."""

_QUEUE_MESSAGES = 16
_PONGS_BYTES_MAX = 1024 * 1024
"""What may wait for a peer that sends pings: eight thousand answers. More means that it asks and does not read."""

_NOTHING_SAID = (1005, 1006)

# websockets writes whole frames to its log at DEBUG, and there are tokens in them.
_log = logging.getLogger("signald.sdk.websockets")
_log.setLevel(logging.INFO)


class _Connection(ClientConnection):
    """A connection that is cut when the peer sends pings and reads no pong."""

    def process_event(self, event: Event) -> None:
        super().process_event(event)
        if isinstance(event, WebSocketFrame) and event.opcode is Opcode.PING:
            transport = self.transport
            if transport.get_write_buffer_size() > _PONGS_BYTES_MAX:
                transport.abort()


class _Connect(connect):
    """A handshake that is answered with a redirect fails: the URL is not that of signald."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class WebSocketCarrier:
    """A `Carrier` over websockets."""

    def __init__(self, connection: ClientConnection, write_s: float) -> None:
        self._connection = connection
        self._write_s = write_s

    async def receive(self) -> str | bytes:
        """Return the next message.

        Raises:
            CarrierClosed: the connection is over.
        """
        try:
            return await self._connection.recv()
        except ConnectionClosed as closed:
            raise _closed(closed) from None

    async def send(self, frames: Sequence[Frame]) -> None:
        """Write `frames`; return when at most a few KiB of them wait for the peer to read.

        Raises:
            CarrierClosed: the connection is over, or the peer does not read them in time.
        """
        with anyio.move_on_after(self._write_s) as scope:
            try:
                for text, payload in frames:
                    await self._connection.send(payload, text=text)
            except ConnectionClosed as closed:
                raise _closed(closed) from None
        if scope.cancelled_caught:
            self.abort()
            raise CarrierClosed(None, f"not written within {self._write_s} s")

    async def aclose(self, code: int, reason: str) -> None:
        """Close with a handshake; the caller bounds it."""
        await self._connection.close(code, reason[:100])

    def abort(self) -> None:
        """Cut the connection now."""
        self._connection.transport.abort()


def _closed(closed: ConnectionClosed) -> CarrierClosed:
    said = closed.rcvd
    if said is None or said.code in _NOTHING_SAID:
        return CarrierClosed(None, "the connection broke")
    return CarrierClosed(int(said.code), said.reason)


@asynccontextmanager
async def dial(url: str, ssl_context: SSLContext | None, timing: Timing) -> AsyncIterator[WebSocketCarrier]:
    """Connect to `url` and shake hands, within `timing.connect_s`.

    Raises:
        DialFailed: refused, unreachable, not in time, or not signald.
    """
    connection: ClientConnection | None = None
    try:
        try:
            with anyio.move_on_after(timing.connect_s):
                connection = await _Connect(
                    without_login(url),
                    subprotocols=[Subprotocol(SUBPROTOCOL)],
                    compression=None,
                    create_connection=_Connection,
                    logger=_log,
                    max_queue=_QUEUE_MESSAGES,
                    max_size=FRAME_BYTES_MAX,
                    open_timeout=None,
                    ping_interval=None,  # the heartbeat is the core's
                    proxy=None,
                    **_tls(url, ssl_context),
                )
        except InvalidStatus as refused:
            answer = refused.response
            raise refused_handshake(answer.status_code, answer.headers.get("Retry-After", "").encode()) from None
        except (
            InvalidHandshake,
            ConnectionClosed,
        ) as error:  # ConnectionClosed: it broke before the request was written
            raise DialFailed(None, f"the handshake broke: {type(error).__name__}") from None
        except (OSError, InvalidURI, ValueError) as error:
            # ValueError: a host that is no name, from a `target` perhaps.
            raise DialFailed(None, f"not reachable: {error}") from None
        if connection is None:
            raise DialFailed(None, "not reachable in time, or the handshake took too long")
        if connection.subprotocol != SUBPROTOCOL:
            raise other_protocol()
        yield WebSocketCarrier(connection, timing.write_s)
    finally:
        if connection is not None:
            connection.transport.abort()


def _tls(url: str, ssl_context: SSLContext | None) -> dict[str, Any]:
    return {} if urlsplit(url).scheme == "ws" else {"ssl": ssl_context or create_default_context()}


class _Stream:
    """A `Stream` over those of asyncio."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send_all(self, data: bytes, /) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def receive_some(self, max_bytes: int, /) -> bytes:
        return await self._reader.read(max_bytes)

    async def aclose(self) -> None:
        self._writer.transport.abort()
        await anyio.lowlevel.checkpoint()


async def open_stream(url: str, ssl_context: SSLContext | None) -> _Stream:
    """Connect to the host of `url` (`ws:`, `wss:`).

    Raises:
        OSError: it cannot be reached.
        ValueError: its host is no name.
    """
    parts = urlsplit(url)
    port = parts.port or (80 if parts.scheme == "ws" else 443)
    return _Stream(*await asyncio.open_connection(parts.hostname, port, **_tls(url, ssl_context)))
