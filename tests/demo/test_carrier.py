"""The parties' lean WebSocket client, against a server we did not write."""

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial

import pytest
import trio
from trio_websocket import CloseReason, ConnectionClosed, WebSocketConnection, WebSocketRequest, serve_websocket

from signald.demo.carrier import LeanCarrier, lean_dial
from signald.sdk.party_records import DEFAULT_TIMING
from signald.sdk.trio import CarrierClosed, DialFailed, Timing
from signald.wire.messages import SUBPROTOCOL

Serve = Callable[[WebSocketConnection], Awaitable[None]]

DEADLINE_S = 20


def silent(_: str) -> None:
    """There is no listener."""


@asynccontextmanager
async def server(serve: Serve) -> AsyncIterator[str]:
    """A WebSocket server of trio-websocket's; yields its URL."""

    async def accept(request: WebSocketRequest) -> None:
        connection = await request.accept(subprotocol=SUBPROTOCOL)
        with suppress(ConnectionClosed):
            await serve(connection)

    with trio.fail_after(DEADLINE_S):
        async with trio.open_nursery() as nursery:
            started = await nursery.start(
                partial(serve_websocket, accept, "127.0.0.1", 0, ssl_context=None, max_message_size=2**22)
            )
            yield f"ws://127.0.0.1:{started.port}/v1/client"
            nursery.cancel_scope.cancel(reason="the test is over")


@asynccontextmanager
async def tcp_server(answer: bytes) -> AsyncIterator[str]:
    """A server that answers the first bytes it gets with `answer` and hangs up."""

    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(answer)

    with trio.fail_after(DEADLINE_S):
        async with trio.open_nursery() as nursery:
            (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
            yield f"ws://127.0.0.1:{listener.socket.getsockname()[1]}/v1/client"
            nursery.cancel_scope.cancel(reason="the test is over")


async def echo(connection: WebSocketConnection) -> None:
    """Send back whatever comes."""
    while True:
        await connection.send_message(await connection.get_message())


async def closing_of(carrier: LeanCarrier) -> CarrierClosed:
    """Return how the connection ends."""
    while True:
        try:
            await carrier.receive()
        except CarrierClosed as closed:
            return closed


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536, 1_000_000])
async def test_messages_of_every_length_class_pass_both_ways(size: int) -> None:
    """Text and binary come back as they were sent, at both sides of every boundary of the length field."""
    async with server(echo) as url, lean_dial(url, DEFAULT_TIMING, silent) as carrier:
        binary = bytes(range(256)) * (size // 256) + bytes(size % 256)
        await carrier.send([(False, binary), (True, b"t" * size)])
        assert await carrier.receive() == binary
        assert await carrier.receive() == "t" * size


async def test_a_batch_arrives_in_order_and_every_text_is_heard_first() -> None:
    """All frames of one `send` arrive in order; texts are told to the listener as they are read."""
    heard: list[str] = []
    async with server(echo) as url, lean_dial(url, DEFAULT_TIMING, heard.append) as carrier:
        await carrier.send([(True, b"%d" % number) for number in range(200)])
        assert [await carrier.receive() for _ in range(200)] == [str(number) for number in range(200)]
        assert heard == [str(number) for number in range(200)]


async def test_pings_are_answered_while_reading() -> None:
    """A server's ping gets its pong without the SDK being asked."""

    async def ping(connection: WebSocketConnection) -> None:
        await connection.ping(b"there?")  # returns when the pong is here
        await connection.send_message("alive")

    async with server(ping) as url, lean_dial(url, DEFAULT_TIMING, silent) as carrier:
        assert await carrier.receive() == "alive"


async def test_a_close_is_answered_and_comes_after_the_messages_before_it() -> None:
    """The code and reason of the server's close reach the SDK, after every message sent before, and the server gets its answer."""
    closed = trio.Event()

    async def goodbye(connection: WebSocketConnection) -> None:
        await connection.send_message("last words")
        await connection.aclose(4001, "moved")
        closed.set()

    async with server(goodbye) as url, lean_dial(url, DEFAULT_TIMING, silent) as carrier:
        assert await carrier.receive() == "last words"
        ending = await closing_of(carrier)
        assert (ending.code, ending.reason) == (4001, "moved")
        await closed.wait()
        with pytest.raises(CarrierClosed):
            await carrier.send([(True, b"too late")])


async def test_its_own_close_is_a_handshake() -> None:
    """`aclose` says the code, and returns when the server has answered."""
    heard: list[object] = []
    over = trio.Event()

    async def listen(connection: WebSocketConnection) -> None:
        with suppress(ConnectionClosed):
            await connection.get_message()
        heard.append(connection.closed)
        over.set()

    async with server(listen) as url, lean_dial(url, DEFAULT_TIMING, silent) as carrier:
        await carrier.aclose(1000, "done")
        await over.wait()
        assert [(one.code, one.reason) for one in heard if isinstance(one, CloseReason)] == [(1000, "done")]


async def test_a_cut_wakes_the_reader() -> None:
    """`abort` while a task reads ends the reading, as a connection that broke."""
    async with server(echo) as url, lean_dial(url, DEFAULT_TIMING, silent) as carrier, trio.open_nursery() as nursery:
        nursery.start_soon(closing_of, carrier)
        await trio.testing.wait_all_tasks_blocked()
        carrier.abort()
        carrier.abort()


async def test_a_broken_connection_has_no_code() -> None:
    """A server that hangs up without a word leaves no close code."""

    async def hang_up(connection: WebSocketConnection) -> None:
        await trio.aclose_forcefully(connection._stream)

    async with server(hang_up) as url, lean_dial(url, DEFAULT_TIMING, silent) as carrier:
        assert (await closing_of(carrier)).code is None


async def test_a_server_that_does_not_read_is_given_up() -> None:
    """A write that takes too long ends the connection instead of waiting for ever."""
    patience = Timing(write_s=0.2)

    async def deaf(_: WebSocketConnection) -> None:
        await trio.sleep_forever()

    async with server(deaf) as url, lean_dial(url, patience, silent) as carrier:
        with pytest.raises(CarrierClosed, match="not written"):
            await carrier.send([(False, bytes(64_000_000))])


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: nonsense\r\n\r\n",
        b"HTTP/1.1 101 Switch",
        b"\x00" * 20_000,
        b"",
    ],
)
async def test_a_failed_handshake_is_no_connection(answer: bytes) -> None:
    """A refusal, a wrong answer, half an answer and an endless one are all `DialFailed`."""
    async with tcp_server(answer) as url:
        with pytest.raises(DialFailed):
            async with lean_dial(url, DEFAULT_TIMING, silent):
                raise AssertionError("it was taken for a connection")


async def test_nobody_there_is_no_connection() -> None:
    """A refused TCP connection is `DialFailed`."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(DialFailed, match="not reachable"):
            async with lean_dial(f"ws://127.0.0.1:{unused.getsockname()[1]}", DEFAULT_TIMING, silent):
                raise AssertionError("it was taken for a connection")
