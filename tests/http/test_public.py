"""HTTP on the port of the WebSockets, in memory: the hand-over, keep-alive, what is refused, and the places of both halves."""

from collections.abc import AsyncGenerator
from contextlib import suppress

import pytest
import structlog.testing
import trio
import trio.testing
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from signald.http import public as public_half
from signald.http.api.app import ApiSettings
from signald.http.public import PublicHttp, PublicProtocol
from signald.testing.websocket import close, request
from tests.http.publicly import GET, ROUTES, Stream, public
from tests.net.clients import served, simulated


def get(path: bytes = b"/hello", *headers: bytes) -> bytes:
    """Return a GET."""
    return b"GET " + path + b" HTTP/1.1\r\nhost: a\r\n" + b"".join(line + b"\r\n" for line in headers) + b"\r\n"


class TestOnePort:
    """Both halves behind one listener."""

    @simulated
    async def test_pipelined_requests_in_one_segment_are_answered_in_order(self) -> None:
        """The bytes that the handshake has read are handed over whole, whatever is behind the first request."""
        async with public() as port:
            peer = port.dial()
            await peer.send(get(b"/hello/1") + get(b"/hello/2") + get(b"/hello/3"))
            assert [(await peer.answer()).json()["hello"] for _ in range(3)] == ["/hello/1", "/hello/2", "/hello/3"]
            assert (await peer.ask(get(b"/hello/4"))).json()["hello"] == "/hello/4"
            await peer.send(get(b"/nowhere"))
            assert await peer.line() == b"HTTP/1.1 404 Not Found"

    @simulated
    async def test_a_head_that_comes_byte_by_byte_is_served(self) -> None:
        """No boundary of a segment matters."""
        async with public() as port:
            peer = port.dial()
            for byte in get():
                await peer.send(bytes([byte]))
            assert (await peer.answer()).status == 200

    @simulated
    async def test_bodies_with_a_length_and_in_chunks_are_read(self) -> None:
        """Both kinds of body reach the handler whole, one after the other on one connection."""
        async with public() as port:
            peer = port.dial()
            body = b"x" * 40_000
            head = b"POST /size HTTP/1.1\r\nhost: a\r\n"
            answer = await peer.ask(head + b"content-length: 40000\r\n\r\n" + body)
            assert answer.json() == {"size": 40_000}
            chunked = b"transfer-encoding: chunked\r\n\r\n9c40\r\n" + body + b"\r\n3\r\nabc\r\n0\r\n\r\n"
            assert (await peer.ask(head + chunked)).json() == {"size": 40_003}

    @simulated
    async def test_a_websocket_opens_beside_it(self) -> None:
        """An endpoint is a WebSocket as ever, with the answers it always had."""
        async with public() as port:
            peer, socket = port.dial(), await port.websocket()
            assert (await peer.ask(GET)).status == 200
            await socket.echo("both")
            refused = await port.dial().ask(get(b"/v1/client"))
            assert (refused.status, refused.headers["content-type"]) == (426, "text/plain; charset=utf-8")
            await socket.send(close())
            assert await socket.closed_with() == (1000, "")

    @simulated
    async def test_the_place_among_the_handshakes_is_given_back_first(self) -> None:
        """A connection that is served over HTTP holds neither a handshake nor a WebSocket."""
        async with public() as port:
            peer = port.dial()
            assert (await peer.ask(GET)).status == 200
            assert (port.admission.handshakes, port.admission.connections, len(port.http.connections)) == (0, 0, 1)
            await trio.sleep(30)  # far beyond the deadline of a handshake
            assert (await peer.ask(GET)).status == 200


class TestAddresses:
    """The address that a request comes from."""

    @simulated
    async def test_without_a_trusted_proxy_the_peer_counts(self) -> None:
        """X-Forwarded-For of a peer that is no proxy is not believed."""
        async with public() as port:
            answer = await port.dial("198.51.100.7").ask(get(b"/hello", b"x-forwarded-for: 203.0.113.9"))
            assert answer.json() == {"hello": "/hello", "from": "198.51.100.7", "scheme": "http"}

    @simulated
    async def test_a_proxy_names_the_client_of_each_request(self) -> None:
        """Requests of several clients on one connection have their own addresses; what a client claims stands left of it."""
        async with public(net={"trusted_proxies": ("10.0.0.0/8",)}) as port:
            peer = port.dial("10.1.2.3")
            for client in (b"203.0.113.9", b"203.0.113.10"):
                answer = await peer.ask(get(b"/hello", b"x-forwarded-for: 192.0.2.66, " + client))
                assert answer.json()["from"] == client.decode()
            assert (await peer.ask(GET)).json()["from"] == "10.1.2.3"

    @simulated
    async def test_the_rate_is_that_of_the_client_behind_the_proxy(self) -> None:
        """One client behind a proxy spends its own requests only, and a proxy that names none has no rate."""
        settings = ApiSettings(requests_per_s=1, requests_burst=2)
        async with public(api=settings, net={"trusted_proxies": ("10.0.0.0/8",)}) as port:
            peer = port.dial("10.1.2.3")
            greedy, other = (get(b"/hello", b"x-forwarded-for: " + one) for one in (b"203.0.113.9", b"203.0.113.10"))
            assert [(await peer.ask(greedy)).status for _ in range(4)] == [200, 200, 429, 429]
            assert (await peer.ask(other)).status == 200
            assert {(await peer.ask(GET)).status for _ in range(10)} == {200}


class TestPlaces:
    """Neither half takes what the other needs, and no address takes what others need."""

    @simulated
    async def test_a_flood_of_http_takes_no_websocket(self) -> None:
        """With all HTTP connections taken and more coming, WebSockets open and go on."""
        async with public(http={"connections_max": 4}, net={"connections_max": 2}) as port:
            socket = await port.websocket()
            flood = [port.dial(f"192.0.2.{number}") for number in range(20)]
            for peer in flood:
                await peer.send(GET)
            await trio.testing.wait_all_tasks_blocked()
            assert len(port.http.connections) == 4
            another = await port.websocket("192.0.2.99")
            await another.echo("in")
            await socket.echo("still in")
            for one in (socket, another):
                await one.send(close())
                await one.closed_with()

    @simulated
    async def test_full_websockets_take_no_http(self) -> None:
        """With all WebSockets taken HTTP is served."""
        async with public(net={"connections_max": 1}) as port:
            socket = await port.websocket()
            refused = port.dial()
            await refused.send(request())
            assert (await refused.answer()).status == 503
            assert (await port.dial().ask(GET)).status == 200
            await socket.send(close())
            await socket.closed_with()

    @simulated
    async def test_heads_that_do_not_come_take_no_place_of_http(self) -> None:
        """A head that is not complete is a handshake's: it has a place there, and its deadline."""
        async with public(http={"connections_max": 1}) as port:
            slow = port.dial()
            await slow.send(b"GET /hello HTTP/1.1\r\n")
            assert (await port.dial().ask(GET)).status == 200
            assert len(port.http.connections) == 1
            began = trio.current_time()
            assert await slow.ended() == b""
            assert trio.current_time() - began == pytest.approx(5.0)

    @simulated
    async def test_an_idle_connection_gives_way(self) -> None:
        """The connection that is idle for the longest time is closed for a newcomer; no request that is served is cut."""
        leave = trio.Event()

        async def wait(_: Request) -> Response:
            await leave.wait()
            return Response("done")

        async with public([*ROUTES, Route("/wait", wait)], http={"connections_max": 2}) as port:
            busy, idle = port.dial("192.0.2.1"), port.dial("192.0.2.2")
            await busy.send(get(b"/wait"))
            assert (await idle.ask(GET)).status == 200
            await trio.sleep(2)
            assert (await port.dial("192.0.2.3").ask(GET)).status == 200
            assert await idle.ended() == b""
            leave.set()
            assert (await busy.answer()).body == b"done"

    @simulated
    async def test_an_address_with_few_connections_keeps_them(self) -> None:
        """The address with the most gives way to others; its own newcomers are refused, with a time to come again."""

        async def wait(_: Request) -> Response:
            await trio.sleep_forever()
            raise AssertionError

        async with public([*ROUTES, Route("/wait", wait)], http={"connections_max": 4}) as port:
            honest = port.dial("198.51.100.1")
            await honest.send(get(b"/wait"))
            greedy = [port.dial("192.0.2.1") for _ in range(3)]
            for peer in greedy:
                await peer.send(get(b"/wait"))
            await trio.sleep(2)
            refused = await port.dial("192.0.2.1").ask(GET)
            assert (refused.status, refused.json()["type"]) == (503, "urn:signald:problem:busy")
            assert int(refused.headers["retry-after"]) >= 1
            assert (await port.dial("198.51.100.2").ask(GET)).status == 200
            assert await greedy[0].ended() == b""
            assert port.http.refused == {"connections": 1, "address": 0}
            assert "198.51.100.1" in {one.place.holder for one in port.http.connections}
            port.nursery.cancel_scope.cancel(reason="seen")

    @simulated
    async def test_refused_connections_are_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The first ones are told why; beyond the bound they are closed at once, so that a flood holds no descriptors."""
        monkeypatch.setattr(public_half, "REFUSALS_MAX", 3)

        async def wait(_: Request) -> Response:
            await trio.sleep_forever()
            raise AssertionError

        async with public([Route("/hello", wait)], http={"connections_max": 1}) as port:
            await port.dial().send(GET)
            await trio.sleep(2)
            flood = [port.dial() for _ in range(6)]
            for peer in flood:
                await peer.send(GET)
            answers = [await peer.ended() for peer in flood]
            assert [answer[:12] for answer in answers] == [b"HTTP/1.1 503"] * 3 + [b""] * 3
            port.nursery.cancel_scope.cancel(reason="seen")

    @simulated
    async def test_connects_have_a_rate_of_their_own(self) -> None:
        """`connects_per_s` holds for both halves, each for itself."""
        rate = {"connects_per_s": 1.0, "connects_burst": 2}
        async with public(http=rate, net=rate) as port:
            statuses = [(await port.dial().ask(get(b"/hello", b"connection: close"))).status for _ in range(3)]
            assert statuses == [200, 200, 429]
            socket = await port.websocket()
            await socket.send(close())
            await socket.closed_with()
            assert port.http.refused == {"connections": 0, "address": 1}


class TestPatience:
    """Every wait for a peer ends."""

    @simulated
    async def test_a_later_head_has_the_time_of_a_first_one(self) -> None:
        """From its first byte to its last, however it trickles."""
        async with public() as port:
            peer = port.dial()
            assert (await peer.ask(GET)).status == 200
            await trio.sleep(60)
            began = trio.current_time()
            with suppress(trio.BrokenResourceError):
                for byte in get():
                    await peer.send(bytes([byte]))
                    await trio.sleep(0.5)
            assert await peer.ended() == b""
            assert trio.current_time() - began < 7

    @simulated
    async def test_an_idle_connection_ends(self) -> None:
        """Silence between two requests is borne for `idle_s`, counted from the end of the answer."""
        async with public(http={"idle_s": 75.0}) as port:
            peer = port.dial()
            for _ in range(2):
                assert (await peer.ask(GET)).status == 200
                await trio.sleep(70)
            began = trio.current_time()
            assert await peer.ended() == b""
            assert trio.current_time() - began == pytest.approx(5.0)

    @simulated
    async def test_a_body_that_stands_still_ends_the_connection(self) -> None:
        """The handler is told that its client has gone; that is no failure of signald's."""
        async with public() as port:
            peer = port.dial()
            await peer.send(b"POST /size HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nabc")
            began = trio.current_time()
            assert await peer.ended() == b""
            assert 10 <= trio.current_time() - began < 11
            assert port.api.counts.answered == {("POST", "/size", "cut"): 1}

    @simulated
    async def test_a_body_that_comes_slowly_is_taken(self) -> None:
        """Each piece begins the time anew: a slow link may upload for minutes."""
        async with public() as port:
            peer = port.dial()
            await peer.send(b"POST /size HTTP/1.1\r\nhost: a\r\ncontent-length: 30\r\n\r\n")
            for _ in range(30):
                await trio.sleep(5)
                await peer.send(b"x")
            assert (await peer.answer()).json() == {"size": 30}

    @simulated
    async def test_an_answer_may_take_its_time(self) -> None:
        """A stream of events lasts for hours, though its client says nothing."""

        async def events() -> AsyncGenerator[bytes]:
            for number in range(5):
                await trio.sleep(1000)
                yield b"event: %d\n\n" % number

        async def stream(_: Request) -> Response:
            return Stream(events())

        async with public([Route("/events", stream)]) as port:
            answer = await port.dial().ask(get(b"/events"))
            assert answer.body.endswith(b"event: 4\n\n")

    @simulated
    async def test_a_peer_that_takes_nothing_is_cut(self) -> None:
        """A write of which nothing goes out for `write_s` ends the connection, and the handler with it."""
        ended = trio.Event()

        async def flood(_: Request) -> Response:
            async def pieces() -> AsyncGenerator[bytes]:
                try:
                    while True:
                        yield bytes(65536)
                finally:
                    ended.set()

            return Stream(pieces())

        async with public([*ROUTES, Route("/flood", flood)]) as port:
            near, far = trio.testing.lockstep_stream_pair()
            port.nursery.start_soon(port.server.serve_stream, near, "192.0.2.1")
            await far.send_all(get(b"/flood"))
            with trio.fail_after(20):
                await ended.wait()
            assert (await port.dial().ask(GET)).status == 200


class TestBodies:
    """What is not read, and what is too much."""

    @simulated
    async def test_an_answer_is_not_held_back_by_a_body_that_is_not_read(self) -> None:
        """A 404 comes at once, whole; then the rest of the body is discarded, so that the peer can read the answer."""
        async with public() as port:
            peer = port.dial()
            began = trio.current_time()
            await peer.send(b"POST /nowhere HTTP/1.1\r\nhost: a\r\ncontent-length: 60000\r\n\r\n" + b"x" * 30_000)
            assert (await peer.answer()).status == 404
            assert trio.current_time() == began
            await peer.send(b"x" * 30_000)
            assert (await peer.ask(GET)).status == 200

    @simulated
    async def test_a_body_that_is_too_long_is_refused_before_it_is_sent(self) -> None:
        """With Expect the peer hears 413 instead of 100, sends nothing, and the connection ends."""
        async with public(api=ApiSettings(requests_per_s=0, body_bytes_max=10)) as port:
            expecting = b"POST /size HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: %d\r\n\r\n"
            peer = port.dial()
            answer = await peer.ask(expecting % 11)
            assert (answer.status, answer.headers["connection"]) == (413, "close")
            assert await peer.ended() == b""
            peer = port.dial()
            assert (await peer.ask(expecting % 10)).status == 100
            assert (await peer.ask(b"x" * 10)).json() == {"size": 10}
            assert (await peer.ask(GET)).status == 200


class TestBarrier:
    """A failure costs one request or one connection."""

    @simulated
    async def test_a_handler_that_raises_costs_its_request(self) -> None:
        """500 as a problem document that says nothing of the cause; it is logged once, and the connection goes on."""
        async with public() as port:
            peer = port.dial()
            with structlog.testing.capture_logs() as logs:
                answer = await peer.ask(get(b"/fail"))
            assert (answer.status, answer.json()["type"]) == (500, "urn:signald:problem:internal")
            assert b"boom" not in answer.body
            assert [(line["event"], line["route"]) for line in logs] == [("request_failed", "/fail")]
            assert (await peer.ask(GET)).status == 200

    @simulated
    async def test_a_handler_that_raises_in_its_answer_costs_its_connection(self) -> None:
        """An answer that has begun cannot become a 500: it is cut, so that no client takes it for whole."""

        async def pieces() -> AsyncGenerator[bytes]:
            yield b"begun"
            raise RuntimeError("boom")

        async def stream(_: Request) -> Response:
            return Stream(pieces())

        async with public([*ROUTES, Route("/stream", stream)]) as port:
            peer = port.dial()
            with structlog.testing.capture_logs() as logs:
                await peer.send(get(b"/stream"))
                with pytest.raises(EOFError):
                    await peer.answer()
            assert [line["event"] for line in logs] == ["request_failed"]
            assert port.api.counts.answered == {("GET", "/stream", "cut"): 1}
            assert (await port.dial().ask(GET)).status == 200

    @simulated
    async def test_what_escapes_a_connection_ends_that_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Even a fault of the connection's own code reaches no other connection, and is logged."""
        async with public() as port:
            socket, peer = await port.websocket(), port.dial()
            assert (await peer.ask(GET)).status == 200
            with structlog.testing.capture_logs() as logs:
                monkeypatch.setattr(PublicProtocol, "handle", _fails)
                assert await port.dial().ask_and_end(GET) == b""
                monkeypatch.undo()
                monkeypatch.setattr(PublicHttp, "_admit", _fails)
                assert await port.dial().ask_and_end(GET) == b""
                monkeypatch.undo()
            assert [line["event"] for line in logs] == ["http_connection_failed", "http_failed"]
            await socket.echo("still in")
            assert (await peer.ask(GET)).status == 200
            await socket.send(close())
            await socket.closed_with()

    @simulated
    async def test_a_client_that_goes_ends_its_stream(self) -> None:
        """A stream of events ends when its client hangs up, and no failure is logged."""
        ended = trio.Event()

        async def events() -> AsyncGenerator[bytes]:
            try:
                while True:
                    await trio.sleep(1)
                    yield b"event\n\n"
            finally:
                ended.set()

        async def stream(_: Request) -> Response:
            return Stream(events())

        async with public([Route("/events", stream)]) as port:
            peer = port.dial()
            with structlog.testing.capture_logs() as logs:
                await peer.send(get(b"/events"))
                await trio.sleep(3)
                await peer.stream.aclose()
                with trio.fail_after(5):
                    await ended.wait()
                await trio.sleep(1)
            assert logs == []


def _fails(*_: object) -> None:
    raise RuntimeError("boom")


@simulated
async def test_without_an_application_other_paths_are_404() -> None:
    """The net half alone answers as it did: a text, and the end of the connection."""
    async with served() as net:
        client = net.dial()
        await client.send(request("/elsewhere"))
        assert (await client.response()).startswith(b"HTTP/1.1 404 ")
