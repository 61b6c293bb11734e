"""Servers on loopback that speak as a test says: dead, slow, endless, lying."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import trio

HEAD = b"HTTP/1.1 200 OK\r\n"
Speak = Callable[[trio.abc.Stream], Awaitable[None]]


@asynccontextmanager
async def server(speak: Speak, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Run a server that speaks after a request; gives its URL."""

    async def serve(plain: trio.SocketStream) -> None:
        stream = plain if tls is None else trio.SSLStream(plain, tls, server_side=True, https_compatible=True)
        try:
            async with stream:
                await stream.receive_some(4096)
                await speak(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        scheme = "http" if tls is None else "https"
        yield f"{scheme}://127.0.0.1:{listener.socket.getsockname()[1]}/jwks?secret=hunter2"
        nursery.cancel_scope.cancel()


def says(*pieces: bytes, every_s: float = 0.0, stays: bool = False) -> Speak:
    """Say some pieces, and close unless it stays."""

    async def speak(stream: trio.abc.Stream) -> None:
        for piece in pieces:
            await stream.send_all(piece)
            await trio.sleep(every_s)
        if stays:
            await trio.sleep_forever()

    return speak
