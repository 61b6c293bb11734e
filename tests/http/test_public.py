"""HTTP on the port of the WebSockets, in memory: the hand-over, keep-alive, what is refused, and the places of both halves."""

import trio

from signald.testing.websocket import close
from tests.http.publicly import GET, public
from tests.net.clients import simulated


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
