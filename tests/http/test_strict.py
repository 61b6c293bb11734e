"""Requests that two parsers may read otherwise, and those that are too large: refused with a problem document, and the connection ends."""

import pytest

from tests.http.publicly import GET, public
from tests.net.clients import simulated

POST = b"POST /size HTTP/1.1\r\nhost: a\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n"

REFUSED = [
    pytest.param(POST + CHUNKED + b"content-length: 5\r\n\r\n0\r\n\r\n", 400, id="length-and-chunks"),
    pytest.param(POST + b"content-length: 5\r\n" + CHUNKED + b"\r\n0\r\n\r\n", 400, id="chunks-and-length"),
    pytest.param(POST + b"content-length: 0\r\n" + CHUNKED + b"\r\n0\r\n\r\n", 400, id="no-length-and-chunks"),
    pytest.param(POST.replace(b"1.1", b"1.0") + CHUNKED + b"\r\n0\r\n\r\n", 400, id="chunks-in-1.0"),
    pytest.param(POST + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501, id="another-coding"),
    pytest.param(POST + b"transfer-encoding: identity\r\n\r\n", 501, id="identity"),
    pytest.param(POST + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n", 501, id="no-coding"),
    pytest.param(POST + CHUNKED + CHUNKED + b"\r\n0\r\n\r\n", 501, id="chunks-twice"),
    pytest.param(POST + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello", 400, id="two-lengths"),
    pytest.param(POST + b"content-length: 5, 6\r\n\r\nhello", 400, id="a-list-of-lengths"),
    pytest.param(POST + b"content-length: +5\r\n\r\nhello", 400, id="a-sign"),
    pytest.param(POST + b"content-length: 0x5\r\n\r\nhello", 400, id="hexadecimal"),
    pytest.param(POST + b"content-length: -5\r\n\r\nhello", 400, id="negative"),
    pytest.param(POST + b"content-length : 5\r\n\r\nhello", 400, id="a-blank-before-the-colon"),
    pytest.param(b"GET /hello HTTP/1.1\nhost: a\n\n", 400, id="bare-lf"),
    pytest.param(b"GET /hello HTTP/1.1\r\nhost: a\nx: y\r\n\r\n", 400, id="one-bare-lf"),
    pytest.param(b"GET /hello HTTP/1.1\r\nhost: a\r\nx: y\rz\r\n\r\n", 400, id="bare-cr"),
    pytest.param(b"GET /hello HTTP/1.1\r\nhost: a\r\nx: y\r\n z\r\n\r\n", 400, id="a-fold"),
    pytest.param(b"GET /hello HTTP/1.1\r\n host: a\r\n\r\n", 400, id="a-fold-first"),
    pytest.param(b"GET /hello HTTP/1.1\r\nhost: a\r\nx: \x00\r\n\r\n", 400, id="nul"),
    pytest.param(b"GET /hello HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400, id="two-hosts"),
    pytest.param(b"GET /hello HTTP/1.1\r\n\r\n", 400, id="no-host"),
    pytest.param(b"GET /hello\r\n\r\n", 400, id="no-version"),
    pytest.param(b"GET  /hello HTTP/1.1\r\nhost: a\r\n\r\n", 400, id="two-blanks"),
    pytest.param(b"GET /hello HTTP/2.0\r\nhost: a\r\n\r\n", 505, id="another-version"),
    pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, id="http-2"),
    pytest.param(b"GET /\xff HTTP/1.1\r\nhost: a\r\n\r\n", 400, id="no-ascii"),
    pytest.param(b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nhost: a\r\n\r\n", 414, id="a-long-target"),
    pytest.param(b"GET /?" + b"x" * 9000, 414, id="a-target-without-end"),
    pytest.param(b"GET /hello HTTP/1.1\r\nhost: a\r\nx: " + b"y" * 17_000, 431, id="a-head-without-end"),
    pytest.param(b"GET /hello HTTP/1.1\r\nhost: a\r\n" + b"x: y\r\n" * 101 + b"\r\n", 431, id="many-headers"),
]


@pytest.mark.parametrize(("request_bytes", "status"), REFUSED)
@simulated
async def test_the_first_request_is_refused(request_bytes: bytes, status: int) -> None:
    """The answer is a problem document that repeats nothing of the request, and the connection ends behind it."""
    async with public() as port:
        peer = port.dial()
        answer = await peer.ask(request_bytes)
        assert answer.status == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["connection"] == "close"
        assert answer.json()["status"] == status
        assert await peer.ended() == b""
        assert (await port.dial().ask(GET)).status == 200


@pytest.mark.parametrize(("request_bytes", "status"), REFUSED)
@simulated
async def test_a_later_request_is_refused_alike(request_bytes: bytes, status: int) -> None:
    """A kept connection judges each request as the first; what came before is answered."""
    async with public() as port:
        peer = port.dial()
        await peer.send(GET + request_bytes)
        assert (await peer.answer()).status == 200
        assert (await peer.answer()).status == status
        assert await peer.ended() == b""


@simulated
async def test_a_body_that_breaks_its_framing_ends_the_connection() -> None:
    """Behind a chunk that is none, no request is read: the end of the body is not known."""
    async with public() as port:
        peer = port.dial()
        await peer.send(POST + CHUNKED + b"\r\nzz\r\n" + GET)
        assert (await peer.answer()).status == 400
        assert await peer.ended() == b""


@pytest.mark.parametrize(
    "last", [b"GET /hello/1 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", b"GET /hello/1 HTTP/1.0\r\n\r\n"]
)
@pytest.mark.parametrize("cut", [0, 1, 30])
@simulated
async def test_what_comes_behind_the_last_request_is_ignored(last: bytes, cut: int) -> None:
    """A blank line or a further request behind it neither replaces the answer nor is answered, in one segment or in two."""
    async with public() as port:
        for behind in (b"\r\n", GET, b"\x00garbage", GET * 100):
            peer = port.dial()
            await peer.send(GET + last + behind[:cut])
            if behind[cut:]:
                await peer.send(behind[cut:])
            assert (await peer.answer()).json()["hello"] == "/hello"
            assert (await peer.answer()).json()["hello"] == "/hello/1"
            assert await peer.ended() == b""


@simulated
async def test_an_answer_to_a_head_has_no_body() -> None:
    """HEAD has the head of the answer to GET; a body would be read as the next answer."""
    async with public() as port:
        peer = port.dial()
        await peer.send(b"HEAD /hello HTTP/1.1\r\nhost: a\r\n\r\n" + b"HEAD /nowhere HTTP/1.1\r\nhost: a\r\n\r\n" + GET)
        first, second = await peer.answer(head=True), await peer.answer(head=True)
        assert (first.status, second.status) == (200, 404)
        assert int(first.headers["content-length"]) > 0
        assert (await peer.answer()).json()["hello"] == "/hello"


@simulated
async def test_a_refused_head_request_has_no_body() -> None:
    """A refusal that the application does not give keeps to the same rule."""
    async with public() as port:
        peer = port.dial()
        await peer.send(b"HEAD /v1/size HTTP/1.1\r\nhost: a\r\n" + CHUNKED + b"content-length: 5\r\n\r\n")
        assert (await peer.answer(head=True)).status == 400
        assert await peer.ended() == b""
        peer = port.dial()
        await peer.send(GET + b"HEAD /v1/client HTTP/1.1\r\nhost: a\r\n\r\n")
        assert (await peer.answer()).status == 200
        assert (await peer.answer(head=True)).status == 426
        assert await peer.ended() == b""


@pytest.mark.parametrize("path", [b"/v1/client", b"/v1/worker", b"/v1/client?a=b"])
@simulated
async def test_a_websocket_is_not_opened_by_a_later_request(path: bytes) -> None:
    """426 and the end: the peer opens another connection for it."""
    upgrade = (
        b"upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n"
        b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    )
    async with public() as port:
        peer = port.dial()
        assert (await peer.ask(GET)).status == 200
        answer = await peer.ask(b"GET " + path + b" HTTP/1.1\r\nhost: a\r\n" + upgrade + b"\r\n")
        assert (answer.status, answer.headers["upgrade"], answer.headers["connection"]) == (426, "websocket", "close")
        assert await peer.ended() == b""


@pytest.mark.parametrize("protocol", [b"websocket", b"h2c"])
@simulated
async def test_no_upgrade_is_followed_elsewhere(protocol: bytes) -> None:
    """At a path of the API an upgrade is ignored, as a server may."""
    more = (
        b"upgrade: "
        + protocol
        + b"\r\nconnection: upgrade\r\nhttp2-settings: AAMAAABk\r\nsec-websocket-version: 13\r\n\r\n"
    )
    async with public() as port:
        peer = port.dial()
        assert (await peer.ask(GET[:-2] + more)).status == 200
        assert (await peer.ask(GET)).status == 200


@simulated
async def test_a_path_of_the_api_is_no_path_of_a_websocket() -> None:
    """Forms of a path that resemble an endpoint are HTTP, and 404 there: no proxy's rule for WebSockets is passed by them."""
    async with public() as port:
        for path in (
            b"/v1/client/",
            b"//v1/client",
            b"/v1%2Fclient",
            b"/V1/client",
            b"http://a/v1/client",
            b"*",
            b"/v1/x/../client",
        ):
            answer = await port.dial().ask(b"GET " + path + b" HTTP/1.1\r\nhost: a\r\n\r\n")
            assert (path, answer.status, answer.headers["content-type"]) == (path, 404, "application/problem+json")
