"""A WebSocket connection for the Trio driver, on trio-websocket.

trio-websocket writes to its stream from several tasks, and a write that is cancelled half-way corrupts the stream while the
connection looks healthy. So it never gets the TCP stream itself but a `OneWriter` in front of it, which only collects;
one task writes, with a deadline, and a write that is late or cut means that the connection is aborted. As a side effect
all frames of one `send` leave in one write.
"""

import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from ssl import SSLContext, create_default_context
from urllib.parse import urlsplit

import h11
import trio
from trio_websocket import ConnectionClosed, ConnectionRejected, HandshakeError, WebSocketConnection, wrap_client_stream
from wsproto.connection import ConnectionState
from wsproto.utilities import ProtocolError

from signald.sdk.bounds import FRAME_BYTES_MAX
from signald.sdk.dialing import DialFailed, other_protocol, refused_handshake
from signald.sdk.network import CarrierClosed
from signald.sdk.party_records import DEFAULT_TIMING, Timing
from signald.sdk.writing import Frame
from signald.wire.messages import SUBPROTOCOL

_QUEUE_MESSAGES = 16
# The bytes that wait for the writer: an opening message with a hundred thousand sessions, a batch, and pongs. More means that the
# other side asks and does not read.
_PENDING_MAX = 32 * 1024 * 1024
# The answer to a handshake; a refusal may have a page of HTML behind it.
_ANSWER_MAX = 1024 * 1024
_RECEIVE_BYTES = 65536

_NOTHING_SAID = (1005, 1006)

BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError)
"""What a stream of Trio raises beside OSError."""

# h11's is let out by wsproto where it refuses an answer that it cannot read.
_BROKEN = (
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    OSError,
    ProtocolError,
    h11.ProtocolError,
    ConnectionClosed,
)


class OneWriter(trio.abc.Stream):
    """A stream with a `send_all` that never blocks: it collects for the one task that runs `write`."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._pending = bytearray()
        self._work = trio.lowlevel.ParkingLot()
        self._idle = trio.lowlevel.ParkingLot()
        self._writing = False
        self._broken = False
        self.corked = False
        self.stood = False
        """The handshake is over."""
        self._answered = 0
        self.on_end: Callable[[], None] = lambda: None
        """Called when the peer has finished sending."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Collect `data`. Bounded by the one caller of `Carrier.send` at a time, and by the peer's pings."""
        if self._broken:
            raise trio.BrokenResourceError("the connection cannot be written any more")
        if len(self._pending) > _PENDING_MAX:
            self.on_end()
            raise trio.BrokenResourceError("the other side reads nothing")
        self._pending += data
        if not self.corked:
            self._work.unpark_all()

    def uncork(self) -> None:
        """Let what was collected go."""
        self.corked = False
        self._work.unpark_all()

    async def write(self, timeout_s: float) -> None:
        """Write what is collected, for ever.

        Raises:
            trio.BrokenResourceError: it cannot be written, or not in time.
        """
        try:
            while True:
                while not self._pending or self.corked:
                    self._writing = False
                    self._idle.unpark_all()
                    await self._work.park()
                self._writing = True
                data, self._pending = self._pending, bytearray()
                with trio.move_on_after(timeout_s) as scope:
                    await self._stream.send_all(data)
                if scope.cancelled_caught:
                    raise trio.BrokenResourceError(f"not written within {timeout_s} s")
        finally:
            self._broken = True
            self._idle.unpark_all()

    async def flushed(self) -> None:
        """Wait until everything collected is written.

        Raises:
            trio.BrokenResourceError: it never will be.
        """
        while (self._pending or self._writing) and not self._broken:
            await self._idle.park()
        if self._broken:
            raise trio.BrokenResourceError("the connection cannot be written any more")

    async def wait_send_all_might_not_block(self) -> None:
        """Return at once: `send_all` never blocks."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Read from the stream itself."""
        try:
            data = await self._stream.receive_some(max_bytes)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.on_end()
            raise
        if not data:
            self.on_end()
        elif not self.stood:
            self._answered += len(data)
            if self._answered > _ANSWER_MAX:
                self.on_end()
                raise trio.BrokenResourceError("the answer to the handshake has no end")
        return data

    async def aclose(self) -> None:
        """Close the stream itself."""
        self._broken = True
        self._idle.unpark_all()
        await self._stream.aclose()


class WebSocketCarrier:
    """A `Carrier` over trio-websocket."""

    def __init__(self, websocket: WebSocketConnection, stream: OneWriter, scope: trio.CancelScope) -> None:
        self._websocket = websocket
        self._stream = stream
        self._scope = scope

    async def receive(self) -> str | bytes:
        """Return the next message.

        Raises:
            CarrierClosed: the connection is over.
        """
        try:
            message: str | bytes = await self._websocket.get_message()
        except ConnectionClosed as closed:
            raise self._closed(closed) from None
        return message

    async def send(self, frames: Sequence[Frame]) -> None:
        """Write `frames` in one go.

        Raises:
            CarrierClosed: the connection is over.
        """
        self._stream.corked = True
        try:
            for text, payload in frames:
                await self._websocket.send_message(payload.decode() if text else payload)
        except ConnectionClosed as closed:
            raise self._closed(closed) from None
        except ProtocolError:
            raise CarrierClosed(None, "closing") from None
        finally:
            self._stream.uncork()
        try:
            await self._stream.flushed()
        except trio.BrokenResourceError as broken:
            raise CarrierClosed(None, str(broken)) from None

    async def aclose(self, code: int, reason: str) -> None:
        """Close with a handshake; the caller bounds it."""
        try:
            await self._websocket.aclose(code, reason[:100] or None)
        except _BROKEN:
            self.abort()

    def abort(self) -> None:
        """Cut the connection now."""
        self._scope.cancel(reason="the connection is cut")

    def _closed(self, closed: ConnectionClosed) -> CarrierClosed:
        reason = closed.reason  # may be None: trio-websocket does not always know
        # Where the peer's bytes are no frames, or too many, trio-websocket reports the code with which it closes (1002, 1007, 1009). The
        # peer has said none, and a code of signald ends a session where a break does not.
        is_own = self._websocket._wsproto.state in (ConnectionState.OPEN, ConnectionState.LOCAL_CLOSING)
        if reason is None or is_own or reason.code in _NOTHING_SAID:
            return CarrierClosed(None, "the connection broke")
        return CarrierClosed(int(reason.code), reason.reason or "")


def _rejected(rejected: ConnectionRejected) -> DialFailed:
    headers = {name.lower(): value for name, value in rejected.headers or ()}
    return refused_handshake(rejected.status_code, headers.get(b"retry-after", b""))


async def open_stream(url: str, ssl_context: SSLContext | None) -> trio.abc.Stream:
    """Connect to the host of `url` (`ws:`, `wss:`). Raises OSError, or ValueError for a host that is no name."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme == "ws":
        return await trio.open_tcp_stream(host, parts.port or 80)
    context = ssl_context or create_default_context()
    return await trio.open_ssl_over_tcp_stream(host, parts.port or 443, ssl_context=context, https_compatible=True)


@asynccontextmanager
async def over_stream(
    stream: trio.abc.Stream, url: str, timing: Timing = DEFAULT_TIMING
) -> AsyncIterator[WebSocketCarrier]:
    """Speak WebSocket over any Trio stream, as the client; the stream is closed at the end.

    Raises:
        DialFailed: the handshake failed. The caller bounds its time.
    """
    writer = OneWriter(stream)
    parts = urlsplit(url)
    failure = DialFailed(None, "the handshake broke, or took too long")
    stood = False
    try:
        async with trio.open_nursery() as nursery:
            scope = nursery.cancel_scope
            scope.deadline = trio.current_time() + timing.connect_s
            # trio-websocket waits for ever for the answer of a server that has hung up.
            writer.on_end = lambda: None if stood else scope.cancel(reason="the server hung up during the handshake")
            nursery.start_soon(writer.write, timing.write_s)
            websocket = await wrap_client_stream(
                nursery,
                writer,  # type: ignore[arg-type]  # any Trio stream will do
                parts.netloc.rpartition("@")[2],
                parts.path,
                subprotocols=[SUBPROTOCOL],
                message_queue_size=_QUEUE_MESSAGES,
                max_message_size=FRAME_BYTES_MAX,
                receive_buffer_size=_RECEIVE_BYTES,
            )
            scope.deadline = math.inf
            if websocket.closed is not None:
                failure = DialFailed(None, "the connection was closed in the moment in which it stood")
            elif websocket.subprotocol != SUBPROTOCOL:
                failure = other_protocol()
            else:
                stood = writer.stood = True
                yield WebSocketCarrier(websocket, writer, scope)
            scope.cancel(reason="the connection is left")
    except* ConnectionRejected as group:
        failure = _rejected(next(error for error in _flat(group) if isinstance(error, ConnectionRejected)))
    except* (HandshakeError, *_BROKEN):
        pass  # while it stood, `receive` and `send` have said it; before, `failure` does
    finally:
        await trio.aclose_forcefully(stream)
    if not stood:
        raise failure


def _flat(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    flat: list[BaseException] = []
    for error in group.exceptions:
        flat += _flat(error) if isinstance(error, BaseExceptionGroup) else [error]
    return flat


@asynccontextmanager
async def dial(url: str, ssl_context: SSLContext | None, timing: Timing) -> AsyncIterator[WebSocketCarrier]:
    """Connect to `url` and shake hands.

    Raises:
        DialFailed: refused, unreachable, not in time, or not signald.
    """
    stream: trio.abc.Stream | None = None
    try:
        with trio.move_on_after(timing.connect_s):
            stream = await open_stream(url, ssl_context)
    except (OSError, ValueError) as error:  # ValueError: a host that is no name, from a `target` perhaps
        raise DialFailed(None, f"not reachable: {error}") from None
    if stream is None:
        raise DialFailed(None, "not reachable in time")
    async with over_stream(stream, url, timing) as carrier:
        yield carrier
