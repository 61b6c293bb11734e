"""A served stack to turn a WebSocket client on, in memory or on a port of this host."""

import functools
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
import trio.testing

from signald.ids import SeededEntropy
from signald.net.admission import Admission
from signald.net.connection import Connection
from signald.net.listener import Gate, Handler, Server, open_listeners, serve
from signald.net.settings import NetSettings
from signald.testing.websocket import Client, close, frame, text
from tests.net.settings import settings_of


def simulated(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test in virtual time: whenever every task waits, the clock jumps to the next deadline."""

    @functools.wraps(test)
    def run(*args: object, **kwargs: object) -> None:
        trio.run(functools.partial(test, *args, **kwargs), clock=trio.testing.MockClock(autojump_threshold=0))

    return run


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
    settings = settings if settings is not None else settings_of()
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
    settings = settings if settings is not None else settings_of()
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
