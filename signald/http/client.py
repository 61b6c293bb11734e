"""The one HTTP client: calls that are bounded in time and bytes, whatever the server does.

httpcore is used here and in `dialing` and nowhere else, and outside of them no setting of it is known. Its time-outs do not end a
server that sends one byte at a time, so one deadline stands around each call. A redirect is not followed, content is taken as it
is (a packed body could unpack to any size), and no proxy is taken from the environment.
"""

import ssl
from collections.abc import Mapping
from functools import partial
from types import TracebackType
from typing import Literal, Protocol, Self
from urllib.parse import urlsplit

import attrs
import httpcore
import trio

from signald.http.dialing import (
    RESOLVERS_MAX,
    Backend,
    BoundedStream,
    Dial,
    HeadTooLong,
    InnerAddress,
    KeptConnectionGone,
    dial,
)

HEADERS_BYTES_MAX = 8192
"""Of the headers that an answer keeps: a caller looks at a few short ones."""

TARGETS_MAX = 64
"""Servers that connections are kept to. An operator names one or two; a server more costs the least used its connections."""

KEPT_S = 30.0
"""How long a connection rests before it is closed: shorter than the minute after which common servers and proxies close it."""

_FRAMING = 4
"""A chunked body may be so many times as long on the wire as what it holds: chunks of two bytes."""

Reason = Literal["slow", "refused", "broken", "too_long", "compressed", "inner", "bad_url"]
"""slow: the deadline came first; refused: no connection; broken: no HTTP, or cut; inner: the address is not public."""

REASONS: tuple[Reason, ...] = ("slow", "refused", "broken", "too_long", "compressed", "inner", "bad_url")


class CallFailed(Exception):
    """There is no answer; the text says why and holds no part of the URL but the host."""

    def __init__(self, reason: Reason, text: str) -> None:
        """`reason` is a word for a metric, `text` a sentence for a log."""
        super().__init__(text)
        self.reason: Reason = reason


@attrs.frozen
class Answer:
    """The answer to one call, of any status."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case; the first HEADERS_BYTES_MAX of them. Values of a repeated name are joined by commas."""
    body: bytes = attrs.field(repr=False)


class Poster(Protocol):
    """What sends a POST: `HttpClient`, or in a simulation the server itself."""

    async def post(
        self, url: str, body: bytes, headers: Mapping[str, str], *, timeout_s: float, bytes_max: int
    ) -> Answer:
        """Return the answer. Raises CallFailed."""


class _Once:
    """Gives a body in one piece. It is no generator: trio warns of a generator that a cancellation leaves half-way."""

    def __init__(self, body: bytes) -> None:
        self._pieces = [body] if body else []

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if not self._pieces:
            raise StopAsyncIteration
        return self._pieces.pop()


@attrs.frozen
class _Body:
    """The body of a request, as often as it is sent."""

    body: bytes = attrs.field(repr=False)

    def __aiter__(self) -> _Once:
        return _Once(self.body)


@attrs.define
class _Target:
    pool: httpcore.AsyncConnectionPool
    calls: int = 0


class HttpClient:
    """Calls servers, with some connections kept to each. Made once and closed by `aclose`, or as a context manager."""

    def __init__(
        self,
        *,
        allow_inner: bool = False,
        connections_max: int = 16,
        tls: ssl.SSLContext | None = None,
        connect: Dial | None = None,
    ) -> None:
        """Trust what the system trusts (SSL_CERT_FILE and SSL_CERT_DIR say otherwise), unless `tls` is given.

        `allow_inner` is for URLs that the operator has written; without it, an address that is not public is refused.
        `connections_max` counts for each server; a call beyond it waits within its deadline. `connect` replaces the network.
        """
        resolvers = trio.CapacityLimiter(RESOLVERS_MAX)
        self._backend = Backend(connect or partial(dial, allow_inner=allow_inner, resolvers=resolvers))
        self._connections_max = connections_max
        self._tls = tls
        self._targets: dict[tuple[str, str, int | None], _Target] = {}

    async def __aenter__(self) -> Self:
        """Give the client itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections; a call in progress fails."""
        targets, self._targets = list(self._targets.values()), {}
        for target in targets:
            await target.pool.aclose()

    async def get(self, url: str, headers: Mapping[str, str], *, timeout_s: float, bytes_max: int) -> Answer:
        """Make a GET; see `post`."""
        return await self._call("GET", url, b"", headers, timeout_s, bytes_max)

    async def post(
        self, url: str, body: bytes, headers: Mapping[str, str], *, timeout_s: float, bytes_max: int
    ) -> Answer:
        """Make a POST and return the answer, of any status, within `timeout_s` for the whole: name, connection, both bodies.

        The body of the answer has at most `bytes_max` bytes. A request whose kept connection turns out to be closed is sent again,
        so the server may see it twice. Raises CallFailed.
        """
        return await self._call("POST", url, body, headers, timeout_s, bytes_max)

    async def _call(
        self, method: str, url: str, body: bytes, headers: Mapping[str, str], timeout_s: float, bytes_max: int
    ) -> Answer:
        try:
            parts = urlsplit(url)
            host, origin = parts.hostname or "", (parts.scheme, parts.hostname or "", parts.port)
            request = httpcore.Request(
                method, url, headers=self._headers(method, parts.netloc, body, headers), content=_Body(body)
            )
        except (ValueError, TypeError):
            raise CallFailed("bad_url", "the URL cannot be read") from None
        try:
            with trio.fail_after(timeout_s):
                while True:
                    # Each turn removes a kept connection from the pool, and a new connection cannot fail so: it ends soon.
                    try:
                        return await self._exchange(origin, request, bytes_max)
                    except KeptConnectionGone:
                        await trio.lowlevel.checkpoint()
        except trio.TooSlowError:
            raise CallFailed("slow", f"{host} gives no whole answer within {timeout_s:g} s") from None
        except InnerAddress as error:
            raise CallFailed("inner", str(error)) from None
        except HeadTooLong as error:
            raise CallFailed("too_long", f"{host} does not answer: {error}") from None
        except (httpcore.ConnectError, ssl.SSLError) as error:
            raise CallFailed("refused", f"{host} does not answer: {_root(error)}") from None
        except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
            raise CallFailed("broken", f"{host} does not answer: {_root(error)}") from None
        except (httpcore.UnsupportedProtocol, UnicodeError):
            raise CallFailed("bad_url", "the host is no name, or the scheme is not http or https") from None

    def _headers(self, method: str, netloc: str, body: bytes, headers: Mapping[str, str]) -> list[tuple[str, str]]:
        given = {name.lower(): value for name, value in headers.items()}
        fixed = {"host": netloc.rpartition("@")[2], "accept-encoding": "identity", "user-agent": "signald"}
        if method != "GET":
            fixed["content-length"] = str(len(body))
        return [*fixed.items(), *((name, value) for name, value in given.items() if name not in fixed)]

    async def _exchange(self, origin: tuple[str, str, int | None], request: httpcore.Request, bytes_max: int) -> Answer:
        target = await self._target(origin)
        target.calls += 1
        try:
            answer = await target.pool.handle_async_request(request)
            try:
                return await self._read(answer, bytes_max)
            finally:
                await answer.aclose()
        finally:
            target.calls -= 1

    async def _read(self, answer: httpcore.Response, bytes_max: int) -> Answer:
        headers = _kept(answer.headers)
        if any(one.strip() not in ("", "identity") for one in headers.get("content-encoding", "").lower().split(",")):
            raise CallFailed("compressed", "the answer is compressed, which was not asked for")
        too_long = CallFailed("too_long", f"the answer has more than {bytes_max} bytes")
        if (length := headers.get("content-length", "")).isascii() and length.isdigit() and int(length) > bytes_max:
            raise too_long
        stream = answer.extensions["network_stream"]
        if isinstance(stream, BoundedStream):
            stream.body_begins(_FRAMING * bytes_max + HEADERS_BYTES_MAX)
        body = bytearray()
        # An exception here would leave httpcore's generators half-way, and trio warns of each; a cancellation ends them all.
        with trio.CancelScope() as enough:
            async for piece in answer.aiter_stream():
                body += piece
                if len(body) > bytes_max:
                    enough.cancel(reason="the answer is too long")
        if len(body) > bytes_max:
            raise too_long
        return Answer(answer.status, headers, bytes(body))

    async def _target(self, origin: tuple[str, str, int | None]) -> _Target:
        """Return the connections to a server, as the most recently used."""
        if self._tls is None and origin[0] == "https":
            # Reading the certificates of the system takes tens of milliseconds.
            self._tls = await trio.to_thread.run_sync(partial(ssl.create_default_context, ssl.Purpose.SERVER_AUTH))
        if (target := self._targets.pop(origin, None)) is None:
            target = _Target(
                httpcore.AsyncConnectionPool(
                    ssl_context=self._tls,
                    max_connections=self._connections_max,
                    keepalive_expiry=KEPT_S,
                    network_backend=self._backend,
                )
            )
        self._targets[origin] = target
        if len(self._targets) > TARGETS_MAX:
            idle = [name for name, one in self._targets.items() if one.calls == 0 and name != origin]
            if idle:
                await self._targets.pop(idle[0]).pool.aclose()
        return target


def _kept(raw: list[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return the first headers by their names in lower case."""
    kept: dict[str, str] = {}
    size = 0
    for name_bytes, value_bytes in raw:
        size += len(name_bytes) + len(value_bytes)
        if size > HEADERS_BYTES_MAX:
            break
        name, value = name_bytes.decode("latin-1").lower(), value_bytes.decode("latin-1")
        kept[name] = f"{kept[name]}, {value}" if name in kept else value
    return kept


def _root(error: BaseException) -> str:
    """Return the first line of the error below all others: httpcore's own say nothing of a wrong certificate."""
    while (below := error.__cause__ or error.__context__) is not None:
        error = below
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error).partition("\n")[0][:200] or type(error).__name__
