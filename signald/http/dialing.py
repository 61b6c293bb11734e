"""Connections of the HTTP client: each name is resolved once, its addresses are judged, and the connection goes to a judged address.

A server that changes its name's address between the judgement and the connection (DNS rebinding) therefore gains nothing. Host and
SNI keep the name. Bytes before the body are bounded here, because httpcore reads interim answers without end.
"""

import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from functools import partial
from ssl import SSLContext
from typing import Any

import httpcore
import trio

ADDRESSES_MAX = 4
"""Addresses of one name that are tried. A name has one or two of each family; more are load balancing, and any of them will do."""

STAGGER_S = 0.25
"""Pause before the next address is tried beside the one before (RFC 8305 5 recommends 250 ms)."""

RESOLVERS_MAX = 4
"""Threads that resolve names at once. A resolver that hangs holds them until it gives up, and takes none from the store."""

READ_BYTES = 4096
"""One read. h11 parses one read without a pause: 4 KiB hold 160 interim answers or 700 chunks of a byte, which take some 10 ms."""

HEAD_BYTES_MAX = 16_384
"""Bytes before the body begins, interim answers (1xx) included. Servers and proxies commonly refuse a head above 8 KiB."""

Dial = Callable[[str, int], Awaitable[trio.abc.Stream]]
"""Connects to a host and port. Raises OSError, or InnerAddress."""

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
"""RFC 6052: the last four bytes are an IPv4 address, which the gateway connects to."""


class InnerAddress(Exception):
    """The name leads to an address that is not public."""


class HeadTooLong(httpcore.ReadError):
    """The answer does not begin within HEAD_BYTES_MAX, or its body is wrapped in too much else."""


class KeptConnectionGone(httpcore.ReadError):
    """The server closed a kept connection before it said anything about this request."""


def is_public(text: str) -> bool:
    """Tell whether an address is one that the whole Internet reaches, with an IPv4 address that it carries judged as well."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        carried = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
        if address in _NAT64:
            carried.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if any(inner is not None and not is_public(str(inner)) for inner in carried):
            return False
        if address.ipv4_mapped is not None:
            return True
    return address.is_global and not address.is_multicast


async def dial(host: str, port: int, *, allow_inner: bool, resolvers: trio.CapacityLimiter) -> trio.abc.Stream:
    """Connect to one of the addresses of `host`. Raises InnerAddress when one of them is not public, and OSError."""
    resolve = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    found = await trio.to_thread.run_sync(resolve, abandon_on_cancel=True, limiter=resolvers)
    if not allow_inner and not all(is_public(str(address[0])) for *_, address in found):
        raise InnerAddress(f"{host} has an inner address")
    return await _first_of(found[:ADDRESSES_MAX])


async def _first_of(found: Iterable[tuple[int, int, int, str, Any]]) -> trio.SocketStream:
    """Connect to the first address that answers, each a little later than the one before. Raises OSError."""
    won: list[trio.SocketStream] = []
    failures: list[OSError] = []

    async def attempt(family: int, kind: int, proto: int, address: Any, over: trio.Event) -> None:
        sock = trio.socket.socket(family, kind, proto)
        try:
            await sock.connect(address)
        except OSError as error:
            failures.append(error)
            over.set()
        else:
            if not won:
                won.append(trio.SocketStream(sock))
                nursery.cancel_scope.cancel(reason="another address has answered")
        finally:
            if not any(stream.socket is sock for stream in won):
                sock.close()

    try:
        async with trio.open_nursery() as nursery:
            for family, kind, proto, _, address in found:
                over = trio.Event()
                nursery.start_soon(attempt, family, kind, proto, address, over)
                with trio.move_on_after(STAGGER_S):
                    await over.wait()
    except BaseException:
        for stream in won:
            stream.socket.close()
        raise
    if not won:
        raise failures[0] if failures else OSError("the name has no address")
    return won[0]


class Backend(httpcore.AsyncNetworkBackend):
    """Gives httpcore connections made by a `Dial`."""

    def __init__(self, connect: Dial) -> None:
        """`connect` may stand for the network in a test."""
        self._connect = connect

    async def connect_tcp(self, host: str, port: int, *_: Any, **__: Any) -> httpcore.AsyncNetworkStream:
        """Connect. Time-outs stay unused here and below: one deadline stands around the whole call."""
        try:
            return BoundedStream(await self._connect(host, port))
        except OSError as error:
            raise httpcore.ConnectError(error.strerror or str(error)) from error


class BoundedStream(httpcore.AsyncNetworkStream):
    """A connection as httpcore reads and writes it, with a bound on what it reads for one answer."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        """`stream` is connected."""
        self._stream = stream
        self._left = HEAD_BYTES_MAX
        self._asked = False
        self._silent = True
        self._answers = 0

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002
        """Read a piece. Raises HeadTooLong, KeptConnectionGone and httpcore.ReadError."""
        self._asked = False
        if self._left <= 0:
            raise HeadTooLong("the answer is wrapped in too many bytes")
        try:
            data = await self._stream.receive_some(min(max_bytes, READ_BYTES))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            if self._answers > 0 and self._silent:
                raise KeptConnectionGone("the kept connection was closed") from error
            raise httpcore.ReadError(str(error)) from error
        if not data and self._answers > 0 and self._silent:
            raise KeptConnectionGone("the kept connection was closed")
        self._silent = False
        self._left -= len(data)
        return bytes(data)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002
        """Write all. The first write after a read begins the next request."""
        if not self._asked:
            self._asked, self._silent, self._left = True, True, HEAD_BYTES_MAX
        try:
            await self._stream.send_all(buffer)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise httpcore.WriteError(str(error)) from error

    def body_begins(self, bytes_max: int) -> None:
        """Let `bytes_max` more be read: the head is over."""
        self._answers += 1
        self._left = bytes_max

    async def aclose(self) -> None:
        """Close the connection, without a goodbye that a peer could delay."""
        with suppress(trio.BrokenResourceError):
            await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002
    ) -> httpcore.AsyncNetworkStream:
        """Verify the server's certificate for its name. Raises httpcore.ConnectError."""
        secured: trio.SSLStream[trio.abc.Stream] = trio.SSLStream(
            self._stream, ssl_context, server_hostname=server_hostname, https_compatible=True
        )
        try:
            await secured.do_handshake()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            await trio.aclose_forcefully(secured)
            raise httpcore.ConnectError(str(error)) from error
        except BaseException:
            await trio.aclose_forcefully(secured)
            raise
        return BoundedStream(secured)

    def get_extra_info(self, info: str) -> Any:
        """Tell whether something waits to be read, which on a connection at rest means that the server has closed it."""
        if info != "is_readable":
            return None
        stream: object = self._stream
        while isinstance(stream, trio.SSLStream):
            stream = stream.transport_stream
        return isinstance(stream, trio.SocketStream) and stream.socket.is_readable()
