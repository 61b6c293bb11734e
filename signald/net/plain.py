"""A connection that opens no WebSocket, as the listener hands it to the HTTP half."""

from collections.abc import Awaitable, Callable

import attrs

from signald.addresses import ProxyTrust
from signald.net.transport import Transport


@attrs.frozen
class PlainRequest:
    """A connection that opens no WebSocket, for the HTTP half. The HTTP half may read and write, and the listener closes."""

    transport: Transport
    received: bytes = attrs.field(repr=False)
    """All that was read so far: the first request, or its beginning, and perhaps more."""
    peer: str
    """The address of the TCP peer, which may be a proxy."""
    trust: ProxyTrust
    """Tells the address of a client behind a trusted proxy, request by request: a proxy sends several clients' on one connection."""
    secure: bool
    """TLS ends here."""


PlainHandler = Callable[[PlainRequest], Awaitable[None]]
"""Serves a connection over HTTP until it is over."""
