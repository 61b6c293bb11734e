"""The public listener in memory: WebSockets and HTTP on one port, and a client that speaks HTTP/1.1 by hand."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import attrs
import trio
import trio.testing
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from signald.http.api.app import Api, ApiSettings
from signald.http.api.bodies import read_body
from signald.http.public import PublicHttp, PublicSettings
from signald.ids import SeededEntropy
from signald.net.admission import Admission
from signald.net.listener import Server
from signald.testing.websocket import Client
from tests.net.clients import echo
from tests.net.settings import ENDPOINTS, settings_of

GET = b"GET /hello HTTP/1.1\r\nhost: a\r\n\r\n"


@attrs.frozen
class Answer:
    """One answer over HTTP."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, read."""
        import msgspec

        return msgspec.json.decode(self.body)


class HttpPeer:
    """One end of a connection to the public listener."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._buffer = bytearray()

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        await self.stream.send_all(data)

    async def _more(self) -> bool:
        data = await self.stream.receive_some(65536)
        self._buffer += data
        return bool(data)

    async def _until(self, mark: bytes) -> bytes:
        while mark not in self._buffer:
            if not await self._more():
                raise EOFError(bytes(self._buffer))
        found, _, rest = bytes(self._buffer).partition(mark)
        self._buffer = bytearray(rest)
        return found

    async def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            if not await self._more():
                raise EOFError(bytes(self._buffer))
        found, self._buffer = bytes(self._buffer[:size]), self._buffer[size:]
        return found

    async def line(self) -> bytes:
        """Return the next line that comes."""
        return await self._until(b"\r\n")

    async def answer(self, *, head: bool = False) -> Answer:
        """Return the next answer, whole; an answer to a HEAD has no body. Raises EOFError."""
        lines = (await self._until(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = int(lines[0].split(" ")[1])
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        body = b""
        if head or status == 100 or status == 204:
            pass
        elif headers.get("transfer-encoding") == "chunked":
            while (size := int(await self._until(b"\r\n"), 16)) > 0:
                body += await self._exactly(size)
                await self._until(b"\r\n")
            await self._until(b"\r\n")
        else:
            body = await self._exactly(int(headers.get("content-length", "0")))
        return Answer(status, headers, body)

    async def ask(self, request: bytes, *, head: bool = False) -> Answer:
        """Send a request and return its answer."""
        await self.send(request)
        return await self.answer(head=head)

    async def ask_and_end(self, request: bytes) -> bytes:
        """Send a request, and return all that comes until the node ends the connection."""
        await self.send(request)
        return await self.ended()

    async def ended(self) -> bytes:
        """Return all that comes until the node ends the connection."""
        while await self._more():
            pass
        return bytes(self._buffer)


async def hello(request: Request) -> Response:
    """Say the path and the address that it came from."""
    client = request.client
    return JSONResponse(
        {"hello": request.url.path, "from": client.host if client else "", "scheme": request.url.scheme}
    )


async def size(request: Request) -> Response:
    """Say how long the body was."""
    return JSONResponse({"size": len(await read_body(request))})


async def fail(request: Request) -> Response:
    """Fail."""
    raise RuntimeError("boom secret")


class Stream(Response):
    """An answer in pieces, which ends when its client goes."""

    def __init__(self, pieces: AsyncGenerator[bytes]) -> None:
        super().__init__()
        self._pieces = pieces
        self.raw_headers = [(b"content-type", b"text/event-stream")]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async with aclosing(self._pieces), trio.open_nursery() as nursery:
            nursery.start_soon(self._until_gone, receive, nursery.cancel_scope)
            async for piece in self._pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            nursery.cancel_scope.cancel(reason="the answer is whole")
        await send({"type": "http.response.body", "body": b""})

    @staticmethod
    async def _until_gone(receive: Receive, scope: trio.CancelScope) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        scope.cancel(reason="the client has gone")


ROUTES: Sequence[BaseRoute] = (
    Route("/hello", hello),
    Route("/hello/{name}", hello),
    Route("/size", size, methods=["POST"]),
    Route("/fail", fail),
)


class Public:
    """A public listener in memory."""

    def __init__(self, server: Server, admission: Admission, http: PublicHttp, api: Api, nursery: trio.Nursery) -> None:
        self.server = server
        self.admission = admission
        self.http = http
        self.api = api
        self.nursery = nursery

    def _pair(self, remote: str) -> trio.abc.Stream:
        near, far = trio.testing.memory_stream_pair()
        self.nursery.start_soon(self.server.serve_stream, near, remote)
        return far

    def dial(self, remote: str = "192.0.2.1") -> HttpPeer:
        """Open a connection that speaks HTTP."""
        return HttpPeer(self._pair(remote))

    async def websocket(self, remote: str = "192.0.2.1") -> Client:
        """Open a WebSocket, which echoes."""
        client = Client(self._pair(remote))
        await client.open()
        return client


@asynccontextmanager
async def public(
    routes: Sequence[BaseRoute] | Callable[[trio.Event], Sequence[BaseRoute]] = ROUTES,
    *,
    api: ApiSettings | None = None,
    http: dict[str, Any] | None = None,
    net: dict[str, Any] | None = None,
) -> AsyncIterator[Public]:
    """Serve in memory; at the end nothing may be left."""
    settings = settings_of(**(net or {}))
    admission = Admission(settings, entropy=SeededEntropy(0))
    stopping = trio.Event()
    made = routes(stopping) if callable(routes) else routes
    app = Api(made, draining=stopping, settings=api if api is not None else ApiSettings(requests_per_s=0))
    paths = frozenset(ENDPOINTS)
    served = PublicHttp(app, PublicSettings(websocket_paths=paths, **(http or {})), stopping=stopping)
    async with trio.open_nursery() as nursery:
        server = Server(echo, settings=settings, admission=admission, nursery=nursery, http=served.serve)
        yield Public(server, admission, served, app, nursery)
        await served.finish(trio.current_time() + 5)
        nursery.cancel_scope.cancel(reason="the test is over")
    assert served.connections == set()
    assert (served.places.taken, admission.handshakes, admission.connections) == (0, 0, 0)
    assert app.counts.in_flight == 0
