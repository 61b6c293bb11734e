"""What the fronts of the SDK need of the network, and which module has it for the event loop that runs.

`signald.sdk.trio_carrier` has it for Trio, `signald.sdk.asyncio_carrier` for asyncio; a program on the one imports nothing of the other.
"""

import importlib
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from ssl import SSLContext
from typing import Protocol, cast

import sniffio

from signald.sdk.errors import PartyError
from signald.sdk.party_records import Timing
from signald.sdk.writing import Frame

Broken = tuple[type[Exception], ...]
"""The errors of a stream that is of no use any more."""


class CarrierClosed(PartyError):
    """The connection is over; `code` is None when it just broke."""

    def __init__(self, code: int | None, reason: str) -> None:
        super().__init__(f"closed ({code}): {reason}")
        self.code = code
        self.reason = reason


class Carrier(Protocol):
    """A connection, as a front needs it. A simulation brings its own."""

    async def receive(self) -> str | bytes:
        """Return the next text or binary message; raise `CarrierClosed`."""

    async def send(self, frames: Sequence[Frame]) -> None:
        """Write all `frames`; return when they are written. Raise `CarrierClosed`."""

    async def aclose(self, code: int, reason: str) -> None:
        """Close with a handshake; the caller bounds it."""

    def abort(self) -> None:
        """Cut the connection now."""


Dial = Callable[[str], AbstractAsyncContextManager[Carrier]]
"""Opens a connection to a URL for the time of a block; raises `DialFailed`. For simulations and unusual transports."""


class Stream(Protocol):
    """The bytes of a connection; a stream of Trio is one."""

    async def send_all(self, data: bytes, /) -> None:
        """Write all of it."""

    async def receive_some(self, max_bytes: int, /) -> bytes | bytearray:
        """Return what has come; nothing at the end."""

    async def aclose(self) -> None:
        """Close it; a cancelled call closes it by force."""


OpenStream = Callable[[str, SSLContext | None], Awaitable[Stream]]
"""Opens a stream to the host of a URL (`ws:`, `wss:`), TLS included; raises OSError or ValueError."""


class Network(Protocol):
    """The network of one event loop."""

    BROKEN: Broken

    def dial(self, url: str, ssl_context: SSLContext | None, timing: Timing) -> AbstractAsyncContextManager[Carrier]:
        """Connect to `url` and shake hands; raise `DialFailed`."""

    async def open_stream(self, url: str, ssl_context: SSLContext | None) -> Stream:
        """As `OpenStream`."""


_MODULES = {"trio": "signald.sdk.trio_carrier", "asyncio": "signald.sdk.asyncio_carrier"}


def network() -> Network:
    """Return the network of the event loop that runs.

    Raises:
        RuntimeError: none runs, or one that is neither Trio nor asyncio.
    """
    found = sniffio.current_async_library()
    if found not in _MODULES:
        raise RuntimeError(f"the SDK of signald runs on Trio and asyncio, not on {found}")
    return cast("Network", importlib.import_module(_MODULES[found]))
