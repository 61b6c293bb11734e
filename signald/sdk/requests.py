"""One HTTP request of a party to a node, over a connection of its own. On h11 and anyio.

A request ends in time, whatever the other side does: it has a bound for the silence of both directions, and of `ask` one deadline around
the whole. The answer is read beside the writing, because a node refuses a body that is too long before it has read it all.
"""

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from ssl import SSLContext
from typing import Protocol
from urllib.parse import urlsplit

import anyio
import h11

from signald.sdk.api_core import Answer, NoAnswer
from signald.sdk.errors import PartyError
from signald.sdk.network import Broken, OpenStream, Stream, network

ANSWER_BYTES_MAX = 20 * 1024 * 1024
"""The longest answer of `ask`: a result of 16 MiB (the highest `jobs.result_bytes_max`), and the job around it."""

INTERIM_MAX = 16
"""Answers of 1xx before the real one: a proxy says one or two."""

FRAMING_BYTES_MAX = 2 * 1024 * 1024
"""What an answer may have beside its body, and as much again as the body: chunks are far larger than their heads."""

PIECE_BYTES = 16384
"""Written at once. It takes a connection of 1 KiB/s less than the time in which silence counts as a break."""

_RECEIVE_BYTES = 65536


Pieces = Callable[[], Awaitable[bytes]]
"""Returns the next bytes of a body, at most PIECE_BYTES; none at its end. May raise OSError or an error of the SDK."""


class Body(Protocol):
    """The body of a request; it is read from its start for each try."""

    @property
    def length(self) -> int:
        """How many bytes it has."""

    def pieces(self) -> AbstractAsyncContextManager[Pieces]:
        """Yield its bytes from the start, for the time of a block. Raises as `Pieces`."""


class Bytes:
    """A body that is in memory."""

    def __init__(self, data: bytes = b"") -> None:
        self._data = data

    @property
    def length(self) -> int:
        """How many bytes it has."""
        return len(self._data)

    @asynccontextmanager
    async def pieces(self) -> AsyncIterator[Pieces]:
        """Yield all of it, in pieces that are soon written."""
        starts = iter(range(0, len(self._data), PIECE_BYTES))

        async def piece() -> bytes:
            at = next(starts, len(self._data))
            return self._data[at : at + PIECE_BYTES]

        yield piece


class Reply:
    """An answer as it comes; made by `asked`."""

    def __init__(self, stream: Stream, silence_s: float, broken: Broken) -> None:
        """`broken`: what `stream` raises when it is, and h11 for what cannot be read."""
        self._stream = stream
        self._broken = broken
        self._silence_s = silence_s
        self._connection = h11.Connection(h11.CLIENT)
        self._received = self._content = self._interim = 0
        self._scope: anyio.CancelScope | None = None
        self._written = False
        self._early: bytes | None = None
        """The body of an answer that came before the request was written."""
        self._of_source: Exception | None = None
        self.status = 0
        self.headers: dict[str, str] = {}
        """By names in small letters."""

    async def begin(self, request: h11.Request, body: Body) -> None:
        """Write the request until its end or the answer's head; return with the head.

        Raises:
            NoAnswer: there is none.
            OSError, PartyError: the body cannot be read.
        """
        failure: NoAnswer | None = None
        async with anyio.create_task_group() as nursery:
            self._scope = nursery.cancel_scope
            self._moved()
            nursery.start_soon(self._write, request, body)
            try:
                await self._head()
                if not self._written:
                    self._early = await self._refusal()
            except NoAnswer as error:
                failure = error
            nursery.cancel_scope.cancel(reason="the answer is here, or will never be")
        self._scope = None
        if self._of_source is not None:
            raise self._of_source
        if failure is not None:
            raise failure
        if not self.status:
            raise NoAnswer(f"nothing came and nothing went for {self._silence_s:g} s")

    async def _write(self, request: h11.Request, body: Body) -> None:
        connection = self._connection
        data = connection.send(request) or b""
        try:
            async with body.pieces() as pieces:
                while piece := await pieces():
                    data += connection.send(h11.Data(data=piece)) or b""
                    if not await self._sent(data):
                        return
                    data = b""
            self._written = await self._sent(data + (connection.send(h11.EndOfMessage()) or b""))
        except h11.ProtocolError:
            pass  # the answer is there already, and ends the connection
        except (OSError, PartyError) as error:
            # The nursery would wrap it.
            self._of_source = error
            assert self._scope is not None, "the request is being written"
            self._scope.cancel(reason="the body cannot be read")

    async def _sent(self, data: bytes) -> bool:
        """Write; False when the connection is broken. The answer may be there all the same."""
        try:
            if data:
                await self._stream.send_all(data)
        except self._broken:
            return False
        self._moved()
        return True

    def _moved(self) -> None:
        if self._scope is not None:
            self._scope.deadline = anyio.current_time() + self._silence_s

    async def _head(self) -> None:
        event = await self._event()
        if not isinstance(event, h11.Response):
            raise NoAnswer("no answer: the connection was closed")
        self.headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in event.headers}
        self.status = event.status_code

    async def _refusal(self) -> bytes:
        """Return the body of an answer to a request that is not written yet: a write that is cut breaks TLS, and reading with it."""
        try:
            return await self.read(FRAMING_BYTES_MAX)
        except NoAnswer:
            if self.status < 400:
                raise
            return b""  # its status says enough

    async def _event(self) -> object:
        """Return the next event that is no interim answer. Raises NoAnswer."""
        try:
            while True:
                event = self._connection.next_event()
                if event is h11.NEED_DATA:
                    data = await self._stream.receive_some(_RECEIVE_BYTES)
                    self._received += len(data)
                    if self._received > 2 * self._content + FRAMING_BYTES_MAX:
                        raise NoAnswer("the answer has no end")
                    self._connection.receive_data(bytes(data))
                    self._moved()
                elif isinstance(event, h11.InformationalResponse):
                    self._interim += 1
                    if self._interim > INTERIM_MAX:
                        raise NoAnswer("no answer, but many before it")
                else:
                    return event
        except self._broken as error:
            raise NoAnswer(f"no answer: {type(error).__name__}") from None

    async def piece(self) -> bytes:
        """Return the next bytes of the body; none at its end.

        Raises:
            NoAnswer: it breaks off.
        """
        if self._early is not None:
            early, self._early = self._early, b""
            return early
        event: object = None
        with anyio.move_on_after(self._silence_s):
            event = await self._event()
        if isinstance(event, h11.Data):
            self._content += len(event.data)
            return bytes(event.data)
        if isinstance(event, h11.EndOfMessage):
            return b""
        raise NoAnswer("the answer breaks off")

    async def read(self, bytes_max: int) -> bytes:
        """Return the whole body.

        Raises:
            NoAnswer: it breaks off, or has more than `bytes_max` bytes.
        """
        content = bytearray()
        while piece := await self.piece():
            content += piece
            if len(content) > bytes_max:
                raise NoAnswer(f"the answer has more than {bytes_max} bytes")
        return bytes(content)


@asynccontextmanager
async def asked(
    opened: OpenStream,
    url: str,
    method: str,
    target: str,
    *,
    headers: Mapping[str, str],
    body: Body | None = None,
    ssl_context: SSLContext | None = None,
    silence_s: float,
) -> AsyncIterator[Reply]:
    """Send a request to the host of `url` and yield its answer, of which the head is there.

    Raises:
        NoAnswer: there is none, or nothing comes and goes for `silence_s`.
        OSError, PartyError: the body cannot be read.
    """
    content = body or Bytes()
    broken: Broken = (OSError, ValueError, h11.ProtocolError, *network().BROKEN)
    stream: Stream | None = None
    try:
        try:
            with anyio.move_on_after(silence_s):
                stream = await opened(url, ssl_context)
            said = {"host": urlsplit(url).netloc.rpartition("@")[2], "connection": "close", **headers}
            request = h11.Request(
                method=method, target=target, headers=[*said.items(), ("content-length", str(content.length))]
            )
        except broken as error:
            raise NoAnswer(f"no answer: {type(error).__name__}") from None
        if stream is None:
            raise NoAnswer(f"no connection within {silence_s:g} s")
        reply = Reply(stream, silence_s, broken)
        await reply.begin(request, content)
        yield reply
    finally:
        if stream is not None:
            with anyio.CancelScope() as scope:
                scope.cancel(reason="closed by force")
                await stream.aclose()


async def ask(
    opened: OpenStream,
    url: str,
    method: str,
    target: str,
    *,
    headers: Mapping[str, str],
    body: Body | None = None,
    ssl_context: SSLContext | None = None,
    timeout_s: float = math.inf,
    silence_s: float | None = None,
) -> Answer:
    """Send a request to the host of `url` and return its answer.

    Raises:
        NoAnswer: there is no whole one within `timeout_s`, or nothing comes and goes for `silence_s`.
        OSError, PartyError: the body cannot be read.
    """
    with anyio.move_on_after(timeout_s):
        async with asked(
            opened, url, method, target,
            headers=headers, body=body, ssl_context=ssl_context, silence_s=silence_s or timeout_s,
        ) as reply:  # fmt: skip
            return Answer(reply.status, reply.headers, await reply.read(ANSWER_BYTES_MAX))
    raise NoAnswer(f"no whole answer within {timeout_s:g} s")
