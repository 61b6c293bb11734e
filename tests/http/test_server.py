"""The HTTP server, over real sockets: what a peer sends must never hurt another peer or a shutdown."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

import pytest
import trio
import trio.lowlevel
from starlette.types import ASGIApp, Receive, Scope, Send

import signald.http.connection as connection
import signald.http.server as server
from signald.http.health import HealthStatus, http_app
from signald.http.listening import open_tcp
from signald.http.server import serve_http

pytestmark = pytest.mark.real

GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer 200 with the path, without reading the request's body."""
    body = scope["path"].encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer 200 with the number of bytes in the request's body."""
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(size).encode()})


@asynccontextmanager
async def serving(app: ASGIApp = hello, grace_s: float = 0.2) -> AsyncIterator[tuple[int, trio.Event]]:
    """Run the server; on leaving, shut it down and require that it ends within its grace."""
    shutdown = trio.Event()
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            listeners = await open_tcp("127.0.0.1:0")
            port = listeners[0].socket.getsockname()[1]
            await nursery.start(partial(serve_http, app, listeners, shutdown=shutdown, grace_s=grace_s))
            yield port, shutdown
            shutdown.set()
            nursery.cancel_scope.deadline = trio.current_time() + grace_s + 2
    assert not nursery.cancel_scope.cancelled_caught, "the server outlived its grace"


async def talk(port: int, request: bytes) -> bytes:
    """Send `request` on a new connection, and return all that comes back until the server closes."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(request)
        return b"".join([chunk async for chunk in stream])


async def ask(port: int) -> bytes:
    """Return the answer to a plain request that asks for the connection to be closed."""
    return await talk(port, b"GET /up HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")


async def exchange(stream: trio.SocketStream) -> None:
    """Send one request on an open connection and require its answer."""
    await stream.send_all(GET)
    answer = b""
    while not answer.endswith(b"\r\n\r\n/"):
        answer += await stream.receive_some()
    assert answer.startswith(b"HTTP/1.1 200")


async def test_a_request_is_answered_on_the_bound_port_without_a_server_header() -> None:
    """Port 0 binds a free port, which is reported; nothing says what serves."""
    async with serving() as (port, _):
        answer = await ask(port)
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"/up")
    assert b"\r\nserver:" not in answer.lower()


async def test_requests_follow_each_other_on_one_connection() -> None:
    """Keep-alive works, pipelined requests included."""
    async with serving() as (port, _):
        last = b"GET /3 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
        answer = await talk(port, GET.replace(b"/ ", b"/1 ") + GET.replace(b"/ ", b"/2 ") + last)
    assert answer.count(b"HTTP/1.1 200") == 3


WEBSOCKET = (
    b"GET /ws HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade, close\r\nsec-websocket-version: 13\r\n"
    b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


@pytest.mark.parametrize(
    "request_bytes",
    [
        WEBSOCKET + b"\r\n",
        WEBSOCKET + b"sec-websocket-extensions: permessage-deflate; client_max_window_bits=abc\r\n\r\n",
        b"GET /ws HTTP/1.1\r\nhost: a\r\nUpgrade: h2c\r\nconnection: upgrade, close\r\nhttp2-settings: AAMAAABk\r\n\r\n",
    ],
)
async def test_no_upgrade_is_followed(request_bytes: bytes) -> None:
    """A request to upgrade is answered as the plain request it also is."""
    async with serving() as (port, _):
        answer = await talk(port, request_bytes)
        assert answer.startswith(b"HTTP/1.1 200")
        assert answer.endswith(b"/ws")
        assert (await ask(port)).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nhost: a\r\n\r\n",
        b"GET /%ff%00 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\n" + b"x: " + b"y" * 20_000,
        b"GET / HTTP/1.1\r\nhost: a\r\nx: \x00\r\n\r\n",
    ],
)
async def test_what_is_not_http_ends_its_own_connection_only(request_bytes: bytes) -> None:
    """Malformed input is refused or dropped; the next peer is served as before."""
    async with serving() as (port, _):
        await talk(port, request_bytes)
        assert (await ask(port)).startswith(b"HTTP/1.1 200")


async def test_an_application_that_fails_answers_500_and_the_server_goes_on() -> None:
    """An exception in a handler is that request's failure."""

    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != "/up":
            raise ValueError("boom")
        await hello(scope, receive, send)

    async with serving(failing) as (port, _):
        answer = await talk(port, GET.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
        assert answer.startswith(b"HTTP/1.1 500")
        assert b"boom" not in answer
        assert (await ask(port)).startswith(b"HTTP/1.1 200")


async def test_an_exception_of_the_connection_code_is_contained(monkeypatch: pytest.MonkeyPatch) -> None:
    """The barrier: even a fault of the server's own code ends one connection."""
    served = connection.PlainHttp.handle

    async def fails_once(self: connection.PlainHttp, event: object) -> None:
        monkeypatch.setattr(connection.PlainHttp, "handle", served)
        raise RuntimeError("boom")

    async with serving() as (port, _):
        monkeypatch.setattr(connection.PlainHttp, "handle", fails_once)
        assert await talk(port, GET) == b""
        assert (await ask(port)).startswith(b"HTTP/1.1 200")


async def test_a_body_is_passed_on_whole() -> None:
    """A body larger than every buffer reaches the application, chunked or with a length."""
    body = bytes(3_000_000)
    head = b"POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n"
    async with serving(echo) as (port, _):
        answer = await talk(port, head + b"content-length: %d\r\n\r\n" % len(body) + body)
        assert answer.endswith(b"3000000\r\n0\r\n\r\n")
        answer = await talk(
            port, head + b"transfer-encoding: chunked\r\n\r\n%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n"
        )
        assert answer.endswith(b"3000000\r\n0\r\n\r\n")


async def slow_hello(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer after a while, during which an unread body fills the queue to the application."""
    await trio.sleep(0.1)
    await hello(scope, receive, send)


async def test_a_body_nobody_reads_does_not_hang_the_connection() -> None:
    """The answer arrives and the connection closes, though the application never looks at the body."""
    async with serving(slow_hello) as (port, _):
        request = b"POST /unread HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 3000000\r\n\r\n"
        answer = await talk(port, request + bytes(3_000_000))
    assert answer.endswith(b"/unread")


async def test_a_body_without_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that keeps an unread body open loses its connection."""
    monkeypatch.setattr(connection, "UNREAD_BODY_TIMEOUT_S", 0.1)
    async with serving(slow_hello) as (port, _):
        answer = await talk(port, b"POST /e HTTP/1.1\r\nhost: a\r\ncontent-length: 3000000\r\n\r\n" + bytes(1_000_000))
    assert answer.endswith(b"/e")


async def test_a_head_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that sends its head slowly, or nothing, is closed after the head timeout."""
    monkeypatch.setattr(connection, "HEAD_TIMEOUT_S", 0.1)
    async with serving() as (port, _):
        assert await talk(port, b"GET / HTTP/1.1\r\nhost: ") == b""
        assert await talk(port, b"") == b""


async def test_slow_requests_do_not_keep_a_probe_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """While slow heads and slow bodies hold every place, a probe is answered; the peer that dawdles longest gives way."""
    monkeypatch.setattr(server, "CONNECTIONS_MAX", 4)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await (echo if scope["method"] == "POST" else hello)(scope, receive, send)

    async with serving(app=app) as (port, _), trio.open_nursery() as nursery:
        gone: list[int] = []

        async def dawdle(number: int, begin: bytes) -> None:
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(begin)
                begun[number].set()
                with suppress(trio.BrokenResourceError):
                    await stream.receive_some()
                gone.append(number)
                await trio.sleep_forever()

        body = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nx"
        begun = [trio.Event() for _ in range(4)]
        for number, begin in enumerate((body, b"GET / HTTP/1.1\r\nhost: ", body, b"")):
            nursery.start_soon(dawdle, number, begin)
            await begun[number].wait()
        await trio.sleep(0.2)
        for _ in range(4):
            assert (await ask(port)).startswith(b"HTTP/1.1 200")
        assert gone == [1]
        async with await trio.open_tcp_stream("127.0.0.1", port) as probe:
            await exchange(probe)
            assert (await ask(port)).startswith(b"HTTP/1.1 200")
            await exchange(probe)
        nursery.cancel_scope.cancel(reason="seen")


async def test_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound each newcomer ends another connection, so that no flood takes the descriptors of the parties."""
    monkeypatch.setattr(server, "CONNECTIONS_MAX", 2)
    async with serving() as (port, _):
        streams = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(6)]
        for stream in streams[:4]:
            with suppress(trio.BrokenResourceError):
                assert await stream.receive_some() == b""
        for stream in streams[4:]:
            await exchange(stream)
        for stream in streams:
            await trio.aclose_forcefully(stream)


async def test_shutdown_lets_an_answer_under_way_finish() -> None:
    """Within the grace the request is answered; a new connection is not accepted any more."""
    entered, leave = trio.Event(), trio.Event()

    async def waiting(scope: Scope, receive: Receive, send: Send) -> None:
        entered.set()
        await leave.wait()
        await hello(scope, receive, send)

    async with serving(waiting, grace_s=5) as (port, shutdown), await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(GET)
        await entered.wait()
        shutdown.set()
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(OSError, match="connect"):
            await trio.open_tcp_stream("127.0.0.1", port)
        leave.set()
        assert b"".join([chunk async for chunk in stream]).startswith(b"HTTP/1.1 200")


async def test_shutdown_is_bounded_whatever_peers_do() -> None:
    """bounded: neither an idle peer, nor one that does not read, nor a handler that never ends holds the server."""

    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/sleep":
            await trio.sleep_forever()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": bytes(1_000_000), "more_body": True})

    async with trio.open_nursery() as peers:
        async with serving(endless) as (port, _):
            for request in (b"", GET, GET.replace(b"/ ", b"/sleep "), GET[:10]):
                stream = await trio.open_tcp_stream("127.0.0.1", port)
                await stream.send_all(request)
                peers.start_soon(_hold, stream)
            await trio.testing.wait_all_tasks_blocked(0.05)
        peers.cancel_scope.cancel(reason="the server has ended")


async def _hold(stream: trio.SocketStream) -> None:
    """Keep a connection open and read nothing."""
    async with stream:
        await trio.sleep_forever()


async def test_a_late_write_cuts_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that stops reading is cut after the write timeout, without a shutdown."""
    monkeypatch.setattr(connection, "WRITE_TIMEOUT_S", 0.1)
    ended = trio.Event()

    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send({"type": "http.response.body", "body": bytes(1_000_000), "more_body": True})
        finally:
            ended.set()

    async with serving(endless) as (port, _), await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(GET)
        await ended.wait()


async def test_an_address_in_use_is_named() -> None:
    """The error of a failed start says which address it was."""
    async with serving() as (port, _):
        with pytest.raises(OSError, match=f"127.0.0.1:{port}"):
            await open_tcp(f"127.0.0.1:{port}")


async def test_an_answer_that_meets_the_end_of_its_connection_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """What comes behind a request may end the connection while the request is being answered: nothing is logged for it."""
    app = http_app(lambda: HealthStatus(node="n", release="r", listening=True, store=True))
    async with serving(app) as (port, _):
        for _ in range(40):
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(b"GET /nobody HTTP/1.0\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
                await stream.send_eof()
                with suppress(trio.BrokenResourceError):
                    assert b"".join([chunk async for chunk in stream])[:8] in (b"", b"HTTP/1.1")
    assert not caplog.records
