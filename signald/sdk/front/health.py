"""The health port of a worker: three paths over HTTP/1.1, for the supervisor and for people.

    GET /livez     200 as long as the event loop answers
    GET /readyz    200 while the worker is registered, connected and not leaving; else 503
    GET /worker    what it is and what it holds, as JSON

One request for each connection: a probe asks every few seconds. No credential is asked for and no id of a session is told, so the
port can be open to a probe; it is not meant for the internet.
"""

import json
from collections.abc import Callable
from http import HTTPStatus

import anyio
from anyio.abc import ByteStream, SocketAttribute, SocketStream
from anyio.streams.stapled import MultiListener

REQUEST_BYTES_MAX = 8192
"""Bytes of a request that are read; a probe sends some hundred."""

REQUEST_S = 5.0
"""A request takes no longer, whatever its sender does."""

CONNECTIONS_MAX = 32
"""Requests at once: a few probes. Others are closed at once, so that the port takes no memory from the worker."""

Listening = MultiListener[SocketStream]
"""Where the port is open."""

State = Callable[[], dict[str, object]]
"""Returns what `/worker` shows; `ready` (bool) decides `/readyz`."""


def address(text: str) -> tuple[str, int]:
    """Return host and port of `host:port`; an IPv6 address stands in brackets.

    Raises:
        ValueError: it is none.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or not host or int(port) > 65535:
        raise ValueError(f"a health port is `host:port`, such as `127.0.0.1:8081`, not {text!r}")
    return host.removeprefix("[").removesuffix("]"), int(port)


async def listen(at: str) -> Listening:
    """Listen at `host:port`; for port 0 one is chosen.

    Raises:
        OSError: the address cannot be listened at.
        ValueError: as `address`.
    """
    host, port = address(at)
    return await anyio.create_tcp_listener(local_host=host, local_port=port)


def port_of(listening: Listening) -> int:
    """Return the port that is listened at."""
    return int(listening.extra(SocketAttribute.local_port))  # noqa: S610 - it is no query of Django


async def serve(listening: Listening, state: State) -> None:
    """Answer requests until cancelled."""
    limiter = anyio.CapacityLimiter(CONNECTIONS_MAX)

    async def one(stream: ByteStream) -> None:
        async with stream:
            if limiter.available_tokens < 1:
                return
            async with limiter:
                with anyio.move_on_after(REQUEST_S):
                    await _answer(stream, state)

    async with listening:
        await listening.serve(one)


async def _answer(stream: ByteStream, state: State) -> None:
    try:
        head = b""
        while b"\r\n\r\n" not in head and len(head) <= REQUEST_BYTES_MAX:
            head += await stream.receive(REQUEST_BYTES_MAX)
        await stream.send(response(head, state))
    except (anyio.EndOfStream, anyio.BrokenResourceError, OSError):
        return  # the probe has gone


def response(head: bytes, state: State) -> bytes:
    """Return the response to a request whose head, or more, is `head`."""
    line = head.split(b"\r\n", 1)[0].split(b" ")
    if len(line) != 3 or not line[2].startswith(b"HTTP/1.") or b"\r\n\r\n" not in head:
        return _response(HTTPStatus.BAD_REQUEST, {"error": "not a request of HTTP/1.1"})
    method, path = line[0], line[1].split(b"?", 1)[0]
    if path not in (b"/livez", b"/readyz", b"/worker"):
        return _response(HTTPStatus.NOT_FOUND, {"error": "the paths are /livez, /readyz and /worker"})
    if method not in (b"GET", b"HEAD"):
        return _response(HTTPStatus.METHOD_NOT_ALLOWED, {"error": "GET"}, "Allow: GET, HEAD\r\n")
    body: dict[str, object] = {"alive": True}
    status = HTTPStatus.OK
    if path != b"/livez":
        body = state()
        if path == b"/readyz":
            body = {"ready": body["ready"]}
            status = HTTPStatus.OK if body["ready"] else HTTPStatus.SERVICE_UNAVAILABLE
    whole = _response(status, body)
    return whole if method == b"GET" else whole[: whole.index(b"\r\n\r\n") + 4]


def _response(status: HTTPStatus, body: dict[str, object], more: str = "") -> bytes:
    text = json.dumps(body).encode() + b"\n"
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n"
        f"Cache-Control: no-store\r\nConnection: close\r\n{more}\r\n"
    )
    return head.encode() + text
