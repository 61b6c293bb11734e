"""Serving: lifetimes of accepting and of connections, exhaustion, and one stream on its own."""

import errno
import socket
from functools import partial

import pytest
import structlog.testing
import trio
import trio.testing

from signald.net.connection import Connection
from signald.net.listener import open_listeners, serve_stream
from signald.testing.websocket import Client, close, request, text
from tests.net.clients import echo, listening, simulated, until
from tests.net.settings import settings_of


@pytest.mark.real
class TestLifetimes:
    """Over real sockets: how long listeners and connections live."""

    async def test_accepting_ends_and_connections_go_on(self) -> None:
        """Cancelling `serve` closes the port; connections that are open are served on, and nothing is left after that."""
        async with listening() as net:
            client = await net.connect()
            await client.echo("before")
            net.accepting.cancel(reason="a drain begins")
            await trio.testing.wait_all_tasks_blocked(0.01)
            await client.echo("after")
            with pytest.raises(OSError, match=r"."):
                await net.dial()
            await client.send(close())
            assert await client.closed_with() == (1000, "")
            await client.hung_up_after()
            await until(lambda: not net.connections.child_tasks)

    async def test_cancelling_the_connections_says_1001(self) -> None:
        """What a cancelled nursery can still say without waiting, it says."""
        async with listening() as net:
            client = await net.connect()
            await client.echo("hello")
            net.connections.cancel_scope.cancel(reason="the drain is over")
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 10):  # the block is cancelled as well
                assert await client.closed_with() == (1001, "")
                await client.hung_up_after()

    async def test_without_a_slot_the_answer_is_503_without_reading(self) -> None:
        """While all handshake slots are taken, others are told when to come again."""
        async with listening(settings=settings_of(handshakes_in_progress_max=1)) as net:
            slow = await net.dial()
            await slow.send(b"GET ")
            await until(lambda: net.admission.handshakes)
            head = await (await net.dial()).response()
            assert head.startswith(b"HTTP/1.1 503 ")
            assert b"\r\nRetry-After: " in head
            await slow.send(request()[4:])
            assert (await slow.response()).startswith(b"HTTP/1.1 101 ")


class ExhaustedSocket(socket.socket):
    """A listening socket of a process that has run out of file descriptors for a while."""

    failures = 3

    def accept(self) -> tuple[socket.socket, object]:
        """Fail a few times, in every way accept(2) may fail, then work."""
        if self.failures:
            self.failures -= 1
            raise OSError([errno.EMFILE, errno.ENOBUFS, errno.ECONNABORTED][self.failures], "as accept(2) says")
        return super().accept()


@pytest.mark.real
async def test_accepting_survives_exhaustion() -> None:
    """Without descriptors or memory accepting pauses, says so once, and goes on when there are some again."""
    exhausted = ExhaustedSocket()
    exhausted.setblocking(False)
    exhausted.bind(("127.0.0.1", 0))
    exhausted.listen()
    with structlog.testing.capture_logs() as logged:
        async with listening(listener=exhausted) as net:
            client = await net.connect()
            await client.echo("patience")
    assert [(entry["event"], entry["error"]) for entry in logged] == [("accept_paused", "ENOBUFS")]
    assert exhausted.fileno() == -1


@simulated
async def test_a_stream_is_served_until_its_connection_is_over() -> None:
    """`serve_stream` needs nothing but a stream and a handler, and returns with no task left."""
    near, far = trio.testing.memory_stream_pair()
    seen: list[Connection] = []

    async def handler(connection: Connection) -> None:
        seen.append(connection)
        await echo(connection)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(serve_stream, settings=settings_of()), near, handler)
        client = Client(far)
        await client.open((b"Authorization", b"Bearer abc"), (b"Sec-WebSocket-Protocol", b"signald.v1"))
        await client.echo("hello")
        await client.send(close())
        await client.hung_up_after()
        ended_at = trio.current_time()
    assert trio.current_time() == ended_at
    (connection,) = seen
    assert (connection.id, connection.path, connection.subprotocol) == (1, "/v1/client", "signald.v1")
    assert (connection.bearer, connection.remote) == ("abc", "memory")
    assert connection.closed is not None


@simulated
async def test_a_handler_that_just_returns_is_closed_for() -> None:
    """A handler that ends without a close has not kept its promise: 1011, and the session may be resumed."""

    async def handler(connection: Connection) -> None:
        await connection.receive()

    near, far = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(serve_stream, settings=settings_of()), near, handler)
        client = Client(far)
        await client.open()
        await client.send(text("go"))
        assert await client.closed_with() == (1011, "handler ended")
        await client.send(close(1011))
        assert await client.hung_up_after() == 0


@simulated
async def test_silent_connections_are_asked_by_the_server() -> None:
    """The server ticks its connections: a silent peer gets a Ping after 20 s and 4408 another 20 s later."""
    near, far = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(serve_stream, settings=settings_of()), near, echo)
        client = Client(far)
        await client.open()
        started = trio.current_time()
        assert await client.frame() == (9, b"")
        assert trio.current_time() - started == pytest.approx(20, abs=1.5)
        assert await client.closed_with() == (4408, "no pong")
        assert trio.current_time() - started == pytest.approx(41, abs=1.5)
        assert await client.hung_up_after() <= 1.0


class TestOpenListeners:
    """Addresses."""

    async def test_an_address_gives_sockets_that_listen(self) -> None:
        """`host:port` and `[v6]:port` are understood; the sockets do not block."""
        for address, family in (("127.0.0.1:0", socket.AF_INET), ("[::1]:0", socket.AF_INET6)):
            (listening,) = await open_listeners(address)
            with listening:
                assert listening.family == family
                assert not listening.getblocking()
                assert listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)

    @pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.1:http", ":"])
    async def test_what_is_not_one_is_refused(self, address: str) -> None:
        """A mistake in the configuration is named."""
        with pytest.raises(ValueError, match="not host:port"):
            await open_listeners(address)

    async def test_a_taken_port_leaves_nothing_open(self) -> None:
        """When the address cannot be used, the error comes out and no socket stays behind."""
        (listening,) = await open_listeners("127.0.0.1:0")
        with listening, pytest.raises(OSError, match="in use"):
            await open_listeners(f"127.0.0.1:{listening.getsockname()[1]}")
