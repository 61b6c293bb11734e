"""A connection as the listener of the parties hands it over, and its bytes as Hypercorn's connection code takes them."""

from typing import Protocol

import trio

from signald.addresses import ProxyTrust

READ_BYTES = 16384
"""Bytes of one read. Three of them may wait in a connection whose application reads slowly."""


class ByteTransport(Protocol):
    """The bytes of a connection, as the net half carries them."""

    def send_nowait(self, data: bytes, /) -> int:
        """Write what goes out at once; return how many bytes did."""

    async def send(self, data: memoryview, /) -> int:
        """Wait until something of `data` could be written; return how many bytes were."""

    async def receive(self, most: int = ..., /) -> bytes:
        """Wait for bytes, `most` at most; empty when the peer has finished writing."""

    def finish_writing(self) -> None:
        """Tell the peer that nothing more will come."""

    def close(self) -> None:
        """Let go of it."""


class Plain(Protocol):
    """A connection as the listener hands it over."""

    @property
    def transport(self) -> ByteTransport:
        """Its bytes."""

    @property
    def received(self) -> bytes:
        """The bytes that were read already."""

    @property
    def peer(self) -> str:
        """The address of the TCP peer."""

    @property
    def trust(self) -> ProxyTrust:
        """Which peers are proxies."""

    @property
    def secure(self) -> bool:
        """TLS ends here."""


class PlainStream:
    """A transport of the net half, as Hypercorn's connection code takes streams."""

    def __init__(self, plain: Plain, write_s: float) -> None:
        self._transport = plain.transport
        self._received = plain.received
        self._peer = plain.peer
        self._write_s = write_s
        self.socket = self

    def getpeername(self) -> tuple[str, int]:
        """Return the peer's address; its port is not known."""
        return self._peer, 0

    def getsockname(self) -> tuple[str, int]:
        """Return an address of this end, which nothing uses."""
        return "", 0

    def close(self) -> None:
        """Let go of the connection."""
        self._transport.close()

    async def receive_some(self, max_bytes: int = READ_BYTES) -> bytes:
        """Return what was received already, then what comes."""
        if not self._received:
            return await self._transport.receive(max_bytes)
        piece, self._received = self._received[:max_bytes], self._received[max_bytes:]
        return piece

    async def send_all(self, data: bytes) -> None:
        """Write all of `data`. Raises TooSlowError when the peer takes nothing of it for `write_s`."""
        rest = memoryview(data)[self._transport.send_nowait(data) :]
        while rest:
            with trio.fail_after(self._write_s):
                rest = rest[await self._transport.send(rest) :]

    async def send_eof(self) -> None:
        """Tell the peer that nothing more will come."""
        self._transport.finish_writing()

    async def aclose(self) -> None:
        """Do nothing: the peer has a moment to read the last answer, and then the connection's own end closes."""

    async def linger(self) -> None:
        """Wait until the peer has read the last answer and hung up."""
        self._transport.finish_writing()
        while await self._transport.receive():
            pass
