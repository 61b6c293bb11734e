"""A WebSocket client, polite or not, and a served stack to turn it on; written without the code under test."""

import functools
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import trio
import trio.testing

from signald.ids import SeededEntropy
from signald.net.admission import Admission
from signald.net.connection import Connection
from signald.net.listener import Gate, Handler, Server, open_listeners, serve
from signald.net.settings import NetSettings

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""The pair RFC 6455 gives as its example."""


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = b"\x0b\xad\xca\xfe",
    length: int | None = None,
    width: int | None = None,
) -> bytes:
    """Return one client frame; `length` and `width` (0, 2 or 8 bytes) may lie, `mask` None leaves it unmasked."""
    said = len(payload) if length is None else length
    if width is None:
        width = 0 if said < 126 else 2 if said < 65536 else 8
    first = (0x80 if fin else 0) | (rsv << 4) | opcode
    second = (0x80 if mask is not None else 0) | {0: said & 0x7F, 2: 126, 8: 127}[width]
    head = bytes((first, second)) + {0: b"", 2: struct.pack("!H", said & 0xFFFF), 8: struct.pack("!Q", said)}[width]
    if mask is None:
        return head + payload
    masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    return head + mask + masked


def text(said: str | bytes) -> bytes:
    """Return a whole text message."""
    return frame(1, said.encode() if isinstance(said, str) else said)


def close(code: int | None = 1000, reason: bytes = b"") -> bytes:
    """Return a Close frame."""
    return frame(8, b"" if code is None else struct.pack("!H", code) + reason)


def request(
    target: str = "/v1/client",
    *headers: tuple[bytes, bytes],
    method: bytes = b"GET",
    without: tuple[bytes, ...] = (),
) -> bytes:
    """Return a request to open a WebSocket, with `headers` added and those named in `without` left out."""
    usual = [
        (b"Host", b"signald.example"),
        (b"Upgrade", b"websocket"),
        (b"Connection", b"Upgrade"),
        (b"Sec-WebSocket-Key", KEY),
        (b"Sec-WebSocket-Version", b"13"),
    ]
    lines = [b"%s %s HTTP/1.1" % (method, target.encode())]
    lines += [b"%s: %s" % pair for pair in [*(pair for pair in usual if pair[0] not in without), *headers]]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def simulated(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test in virtual time: whenever every task waits, the clock jumps to the next deadline."""

    @functools.wraps(test)
    def run(*args: object, **kwargs: object) -> None:
        trio.run(functools.partial(test, *args, **kwargs), clock=trio.testing.MockClock(autojump_threshold=0))

    return run


class HungUp(Exception):
    """The server closed the TCP."""


class Client:
    """The far end of one connection."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        """Talk over `stream`, on which nothing was said yet."""
        self.stream = stream
        self.received = bytearray()

    async def open(self, *headers: tuple[bytes, bytes], path: str = "/v1/client") -> bytes:
        """Do the opening handshake; return the head of the 101."""
        await self.stream.send_all(request(path, *headers))
        head = await self.response()
        assert head.startswith(b"HTTP/1.1 101 "), head
        return head

    async def response(self) -> bytes:
        """Return the head of the HTTP response."""
        while b"\r\n\r\n" not in self.received:
            await self._more()
        end = self.received.index(b"\r\n\r\n") + 4
        head = bytes(self.received[:end])
        del self.received[:end]
        return head

    async def send(self, data: bytes) -> None:
        """Write bytes."""
        await self.stream.send_all(data)

    async def frame(self) -> tuple[int, bytes]:
        """Return opcode and payload of the next frame; raises HungUp when there is none."""
        while (found := self._frame()) is None:
            await self._more()
        return found

    async def echo(self, said: str) -> None:
        """Say something to an echoing handler and hear it back."""
        await self.send(text(said))
        assert await self.frame() == (1, said.encode())

    async def closed_with(self) -> tuple[int | None, str]:
        """Read up to the Close; return its code and reason."""
        while True:
            opcode, payload = await self.frame()
            if opcode == 8:
                return (struct.unpack("!H", payload[:2])[0], payload[2:].decode()) if payload else (None, "")

    async def hung_up_after(self) -> float:
        """Keep whatever comes in `received` until the TCP is closed; return after how many seconds that was."""
        started = trio.current_time()
        with suppress(HungUp):
            while True:
                await self._more()
        return trio.current_time() - started

    async def silent_for(self, seconds: float) -> bool:
        """Tell whether nothing comes, not even an end, for so long."""
        with trio.move_on_after(seconds) as waiting, suppress(HungUp):
            await self._more()
        return waiting.cancelled_caught

    def _frame(self) -> tuple[int, bytes] | None:
        data = self.received
        if len(data) < 2:
            return None
        assert data[0] & 0xF0 == 0x80, "the server sends whole frames without reserved bits"
        assert not data[1] & 0x80, "the server does not mask"
        length, start = data[1], 2
        if length == 126:
            length, start = int.from_bytes(data[2:4], "big"), 4
        elif length == 127:
            length, start = int.from_bytes(data[2:10], "big"), 10
        if len(data) < start or len(data) < start + length:
            return None
        found = (data[0] & 0x0F, bytes(data[start : start + length]))
        del data[: start + length]
        return found

    async def _more(self) -> None:
        try:
            data = await self.stream.receive_some(65536)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            data = b""
        if not data:
            raise HungUp
        self.received += data


async def echo(connection: Connection) -> None:
    """A handler that says what it hears; `close <code>` and `raise` do what they say."""
    while True:
        for message in await connection.receive():
            if message.payload.startswith(b"close "):
                connection.close(int(message.payload[6:]), "as you wish")
            elif message.payload == b"raise":
                raise RuntimeError("asked to")
            elif message.text:
                connection.send_text(message.payload)
            else:
                connection.send_binary(message.payload)
        connection.flush()


class Net:
    """A server over memory streams and the means to connect to it."""

    def __init__(self, server: Server, admission: Admission, nursery: trio.Nursery) -> None:
        """Connect in `nursery`, which is also where the connections of `server` live."""
        self.server = server
        self.admission = admission
        self.nursery = nursery

    def dial(
        self,
        pair: Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]] = trio.testing.memory_stream_pair,
        *,
        remote: str = "192.0.2.1",
    ) -> Client:
        """Return the far end of a new connection, before its handshake."""
        near, far = pair()
        self.nursery.start_soon(self.server.serve_stream, near, remote)
        return Client(far)

    async def connect(self, *headers: tuple[bytes, bytes]) -> Client:
        """Return the far end of a new connection, after its handshake."""
        client = self.dial()
        await client.open(*headers)
        return client

    def the_connection(self) -> Connection:
        """Return the only connection there is."""
        (connection,) = self.server.connections.values()
        return connection


@asynccontextmanager
async def served(
    handler: Handler = echo, settings: NetSettings | None = None, *, gate: Gate | None = None
) -> AsyncIterator[Net]:
    """Serve in memory; at the end see that nothing is left: no task, no connection, no place taken."""
    settings = settings if settings is not None else NetSettings()
    admission = Admission(settings, entropy=SeededEntropy(0))
    async with trio.open_nursery() as nursery:
        net = Net(
            Server(handler, settings=settings, admission=admission, nursery=nursery, gate=gate), admission, nursery
        )
        yield net
        await trio.sleep(settings.close_s + settings.handshake_s + 2)  # every deadline there is
        left = [task.name for task in nursery.child_tasks]
        nursery.cancel_scope.cancel(reason="the test is over")
    assert left == []
    assert net.server.connections == {}
    assert (admission.handshakes, admission.connections) == (0, 0)


async def _answer_pings(peer: Client) -> None:
    while True:
        opcode, payload = await peer.frame()
        if opcode == 9:
            await peer.send(frame(10, payload))


@asynccontextmanager
async def served_with_a_bystander(handler: Handler = echo, settings: NetSettings | None = None) -> AsyncIterator[Net]:
    """As `served`, with a second client that must be served as ever after whatever the test does."""
    async with served(handler, settings) as net:
        bystander = await net.connect()
        await bystander.echo("before")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_answer_pings, bystander)  # an attack may take as long as it likes
            yield net
            nursery.cancel_scope.cancel(reason="the attack is over")
        await bystander.send(text("after"))
        while (heard := await bystander.frame())[0] != 1:
            pass
        assert heard == (1, b"after")
        await bystander.send(close())
        assert await bystander.closed_with() == (1000, "")


class Port:
    """A server on a real port of this host, and the means to connect to it."""

    def __init__(self, server: Server, admission: Admission, number: int, nursery: trio.Nursery) -> None:
        """Look at `server`, which listens on port `number` and whose connections live in `nursery`."""
        self.server = server
        self.admission = admission
        self.number = number
        self.connections = nursery
        self.accepting = trio.CancelScope()
        self.clients: list[Client] = []

    async def dial(self) -> Client:
        """Return a client that has said nothing yet; it is closed at the end of the test."""
        client = Client(await trio.open_tcp_stream("127.0.0.1", self.number))
        self.clients.append(client)
        return client

    async def connect(self) -> Client:
        """Return a client that has opened a WebSocket."""
        client = await self.dial()
        await client.open()
        return client


def open_files() -> set[str]:
    """Return the descriptors this process has open."""
    return {entry.name for entry in Path("/proc/self/fd").iterdir()}


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that nothing announces; fail after 20 s."""
    with trio.fail_after(20):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.01)


@asynccontextmanager
async def listening(
    handler: Handler = echo,
    settings: NetSettings | None = None,
    *,
    listener: socket.socket | None = None,
    tls: ssl.SSLContext | None = None,
    within_s: float = 60,
) -> AsyncIterator[Port]:
    """Serve on a free port; at the end every task must have ended by itself and every descriptor be closed."""
    settings = settings if settings is not None else NetSettings()
    admission = Admission(settings, entropy=SeededEntropy(0))
    before = open_files()
    listeners = [listener] if listener is not None else await open_listeners("127.0.0.1:0")
    number = listeners[0].getsockname()[1]
    with trio.fail_after(within_s):
        async with trio.open_nursery() as accepts, trio.open_nursery() as connections:
            accepting = trio.CancelScope()

            async def accept(task_status: trio.TaskStatus[Server]) -> None:
                with accepting:
                    await serve(
                        listeners,
                        handler,
                        settings=settings,
                        admission=admission,
                        connection_nursery=connections,
                        tls=tls,
                        task_status=task_status,
                    )

            port = Port(await accepts.start(accept), admission, number, connections)
            port.accepting = accepting
            yield port
            accepting.cancel(reason="the test is over")
            for client in port.clients:
                await trio.aclose_forcefully(client.stream)
            await until(lambda: not connections.child_tasks)
    assert (port.server.connections, admission.connections, admission.handshakes) == ({}, 0, 0)
    assert open_files() <= before
