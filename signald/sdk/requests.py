"""One HTTP request of a client to the node, over a connection of its own. On h11 and Trio.

Each request has one deadline around the whole, and its answer a bound, whatever the other side does.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from ssl import SSLContext
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import h11
import trio
from attrs import field, frozen

from signald.sdk.errors import PartyError

ANSWER_BYTES_MAX = 20 * 1024 * 1024
"""The longest answer: a result of 16 MiB (the highest `jobs.result_bytes_max`), and the job around it."""

INTERIM_MAX = 16
"""Answers of 1xx before the real one: a proxy says one or two."""

OpenStream = Callable[[str, SSLContext | None], Awaitable[trio.abc.Stream]]
"""Opens a stream to the host of a URL (`ws:`, `wss:`), TLS included; raises OSError or ValueError."""


class NoAnswer(PartyError):
    """There was no whole answer: refused, broken, or not in time. It may have been done all the same."""


@frozen
class Answer:
    """An answer over HTTP."""

    status: int
    headers: dict[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    def json(self) -> Any:
        """Return the JSON of the body as a dict; an empty one when it is none."""
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}

    @property
    def retry_after_s(self) -> float | None:
        """The seconds that the answer asks to wait, at most an hour; None when it names none."""
        said = self.headers.get("retry-after", "")
        return min(float(said), 3600.0) if said.isascii() and said.isdigit() and len(said) < 7 else None


def origin(url: str) -> str:
    """Return the URL of a WebSocket without its path."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], "", "", ""))


async def ask(
    opened: OpenStream,
    url: str,
    method: str,
    target: str,
    *,
    headers: Mapping[str, str],
    body: bytes = b"",
    ssl_context: SSLContext | None = None,
    timeout_s: float,
) -> Answer:
    """Send a request to the host of `url` and return its answer.

    Raises:
        NoAnswer: there is no whole one within `timeout_s`.
    """
    stream: trio.abc.Stream | None = None
    try:
        with trio.fail_after(timeout_s):
            stream = await opened(url, ssl_context)
            said = {"host": urlsplit(url).netloc.rpartition("@")[2], "connection": "close", **headers}
            request = h11.Request(
                method=method, target=target, headers=[*said.items(), ("content-length", str(len(body)))]
            )
            return await _exchange(stream, request, body)
    except trio.TooSlowError:
        raise NoAnswer(f"no whole answer within {timeout_s:g} s") from None
    except (OSError, ValueError, h11.ProtocolError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
        raise NoAnswer(f"no answer: {type(error).__name__}") from None
    finally:
        if stream is not None:
            await trio.aclose_forcefully(stream)


async def _exchange(stream: trio.abc.Stream, request: h11.Request, body: bytes) -> Answer:
    connection = h11.Connection(h11.CLIENT)
    parts = [connection.send(request), connection.send(h11.Data(data=body)), connection.send(h11.EndOfMessage())]
    await stream.send_all(b"".join(part for part in parts if part))
    answer: h11.Response | None = None
    content = bytearray()
    received = interim = 0
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            data = await stream.receive_some(65536)
            received += len(data)
            if received > 2 * ANSWER_BYTES_MAX:
                raise NoAnswer("the answer has no end")
            connection.receive_data(bytes(data))
        elif isinstance(event, h11.InformationalResponse):
            interim += 1
            if interim > INTERIM_MAX:
                raise NoAnswer("no answer, but many before it")
        elif isinstance(event, h11.Response):
            answer = event
        elif isinstance(event, h11.Data):
            content += event.data
            if len(content) > ANSWER_BYTES_MAX:
                raise NoAnswer(f"the answer has more than {ANSWER_BYTES_MAX} bytes")
        elif isinstance(event, h11.EndOfMessage) and answer is not None:
            headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in answer.headers}
            return Answer(answer.status_code, headers, bytes(content))
        elif isinstance(event, h11.ConnectionClosed):
            raise NoAnswer("no answer: the connection was closed")
