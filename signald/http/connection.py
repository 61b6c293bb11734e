"""One HTTP/1.1 connection on Hypercorn's Trio connection code, corrected where one peer could hurt the others.

Hypercorn 0.18 gives each connection its parser, its ASGI streams and keep-alive. This file changes the
following; each point was found by running it, and a test holds it:

- **No WebSocket and no HTTP/2.** One malformed `Sec-WebSocket-Extensions` header ends Hypercorn's whole server, so
  `Upgrade` is dropped before Hypercorn can see it, and neither h2c nor prior-knowledge HTTP/2 is followed.
- **A barrier per connection.** Whatever escapes one connection is logged and ends that one.
- **Every wait ends.** Hypercorn shields its writes without a deadline, so one peer that stops reading holds a shutdown for
  ever. A body that the application does not read fills a queue for ever, and the connection hangs. Here writes have a
  deadline; unread bodies are discarded for a while, and then the connection is cut.
- **One reading of each request.** `signald.http.strict` refuses what two parsers read differently.
- **100 Continue is the application's.** Hypercorn says it before the application has seen the request. Here it is said when
  the application asks for the body, so a request that is refused at once sends no body.

There is no ASGI lifespan: the daemon's nursery tree owns what the application uses.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from http import HTTPStatus
from typing import Any

import h11
import structlog
import trio
from hypercorn.config import Config as HypercornConfig
from hypercorn.events import Closed, RawData
from hypercorn.protocol.events import Response
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from signald.addresses import subscriber
from signald.http.strict import StrictConnection

# From accept, or from the end of the last answer, to the last byte of a request's head.
HEAD_TIMEOUT_S = 5.0
# Silence of the peer while its request is under way, which bounds the time an answer may take.
READ_TIMEOUT_S = 60
WRITE_TIMEOUT_S = 10.0
# How long the unread rest of a body is discarded, so that the peer can read the answer before the connection ends.
UNREAD_BODY_TIMEOUT_S = 5.0
# How long a peer may take to read the last answer and hang up, before its TCP connection is cut. As `NetSettings.linger_s`.
LINGER_S = 0.5

log = structlog.get_logger(__name__)


def reason_of(status: int) -> bytes:
    """Return the phrase of a status."""
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""


def hypercorn_config() -> HypercornConfig:
    """Return the settings of Hypercorn that all connections share."""
    config = HypercornConfig()
    config.include_server_header = False
    config.keep_alive_timeout = HEAD_TIMEOUT_S
    config.read_timeout = READ_TIMEOUT_S
    # Pieces of a body that wait for the application: each has up to 64 KiB, and one lets reading and work overlap.
    config.max_app_queue_size = 1
    # A logger, not a name: given a name Hypercorn would add a handler that writes its own format.
    config.errorlog = logging.getLogger("signald.http")
    return config


class HttpConnection(TCPServer):
    """One connection; ends by itself, by `cut`, or with the nursery it runs in."""

    def __init__(
        self, app: ASGIApp, config: HypercornConfig, context: WorkerContext, stream: Any, *, secure: bool = False
    ) -> None:
        """Serve `app` on `stream`: a `trio.SocketStream`, or what looks like one. `secure` makes the scheme https."""
        # Hypercorn types its messages one by one and every stream as TLS; at run time it takes these.
        super().__init__(self._run_app, config, context, {}, stream)  # type: ignore[arg-type]
        self._asgi = app
        self._secure = secure
        self._scope = trio.CancelScope()
        try:
            address = stream.socket.getpeername()
        except OSError:  # the peer has gone already
            address = ""
        self.holder = subscriber(str(address[0])) if isinstance(address, tuple) else "local"
        """The holder that the connection counts for: an address, or all of this host's Unix sockets."""
        self.on_request: Callable[[], object] = bool
        """Called when the head of a request is complete: the peer makes progress."""

    def cut(self, reason: str) -> None:
        """End the connection without a further answer."""
        self._scope.cancel(reason=reason)

    async def run(self) -> None:
        """Serve the connection; raises nothing but cancellation."""
        try:
            with self._scope:
                await self._serve()
        except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError, h11.LocalProtocolError):
            # The peer went away, or Hypercorn tried to end an answer that was cut halfway.
            pass
        except* Exception:
            log.exception("http_connection_failed")
        finally:
            self.stream.socket.close()

    async def _serve(self) -> None:
        # A Unix socket's addresses are texts, and the peer's is empty.
        peer, own = (
            address if isinstance(address, tuple) else (address, 0)
            for address in (self.stream.socket.getpeername(), self.stream.socket.getsockname())
        )
        async with TaskGroup() as group:
            self._task_group = group
            self.protocol = self._protocol(group, peer[:2], own[:2])  # type: ignore[assignment]
            await self._read_to_the_end()

    def _protocol(self, group: TaskGroup, peer: Any, own: Any) -> "PlainHttp":
        return PlainHttp(
            self.app,
            self.config,
            self.context,
            group,
            ConnectionState({}),
            self._secure,
            peer,
            own,
            self.protocol_send,
        )

    async def _read_to_the_end(self) -> None:
        await self.idle_task.restart(self._task_group, self._idle_timeout)
        await self._read_data()
        await self.idle_task.stop()

    async def protocol_send(self, event: Any) -> None:
        """Carry out what the protocol asks for; a write that is late or fails cuts the connection."""
        if isinstance(event, Closed):
            # The end is bounded whatever still waits: a pipelined request that is not answered any more waits for ever.
            self._scope.deadline = min(self._scope.deadline, trio.current_time() + LINGER_S)
        if not isinstance(event, RawData):
            await super().protocol_send(event)
            return
        async with self.send_lock:
            try:
                await self._write(event.data)
            except (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
                self.cut("http: write failed or late")
            except trio.BusyResourceError:
                # Hypercorn is ending the stream already, because of what came behind this request.
                self.cut("http: written after the end")

    async def _write(self, data: bytes) -> None:
        """Write all of `data`; raises TooSlowError when the peer is too slow."""
        with trio.fail_after(WRITE_TIMEOUT_S):
            await self.stream.send_all(data)

    async def _idle_timeout(self) -> None:
        with trio.move_on_after(self.config.keep_alive_timeout):
            await self.context.terminated.wait()
        self.cut("http: idle")

    async def _run_app(self, scope: Scope, receive: Receive, send: Send, *_: object) -> None:
        """Run the application on one request, and see that its body is read to the end."""
        assert scope["type"] == "http", "no upgrade is followed"
        self.on_request()
        protocol = self.protocol
        assert isinstance(protocol, PlainHttp)
        body_read = False

        async def receive_counted() -> Message:
            nonlocal body_read
            await protocol.go_ahead()
            message = await receive()
            body_read = body_read or not message.get("more_body", False)
            return message

        async def send_after_body(message: Message) -> None:
            last = message["type"] == "http.response.body" and not message.get("more_body", False)
            if not last or body_read or protocol.awaits_go_ahead:
                await send(message)
                return
            # The peer gets the whole answer before the rest of its body is discarded.
            await send({**message, "more_body": True})
            with trio.move_on_after(UNREAD_BODY_TIMEOUT_S):
                while not body_read:
                    await receive_counted()
            # The stream's end is announced through the queue that may still be full.
            with trio.move_on_after(WRITE_TIMEOUT_S):
                await send({"type": "http.response.body", "body": b""})
            if not body_read:
                self.cut("http: endless body")

        try:
            await self._asgi(scope, receive_counted, send_after_body)
        finally:
            if not body_read:
                # The application has failed. What still comes for it would fill its queue, and the answer would wait for that.
                self._task_group.spawn(_discard, receive)


async def _discard(receive: Receive) -> None:
    """Discard all that comes for an application that has ended."""
    while (await receive())["type"] != "http.disconnect":
        pass


class PlainHttp(H11Protocol):
    """HTTP/1.1 and 1.0, whatever the request asks to be upgraded to."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.connection: Any = StrictConnection(max_incomplete_event_size=self.config.h11_max_incomplete_size)

    @property
    def awaits_go_ahead(self) -> bool:
        """The peer sends its body only after a 100 Continue, which was not said yet."""
        return bool(self.connection.awaits_go_ahead)

    async def go_ahead(self) -> None:
        """Say 100 Continue to a peer that waits for it."""
        if self.awaits_go_ahead:
            await self._send_h11_event(h11.InformationalResponse(status_code=100, headers=[]))

    async def _send_h11_event(self, event: Any) -> None:
        """Send what h11 makes of `event`; a status has its phrase, which people read in traces."""
        if isinstance(event, h11.Response) and not event.reason:
            event = h11.Response(
                status_code=event.status_code, headers=event.headers, reason=reason_of(event.status_code)
            )
        await super()._send_h11_event(event)

    async def stream_send(self, event: Any) -> None:
        """Carry what the application says; an answer that the peer gets instead of a 100 Continue is the last one."""
        if isinstance(event, Response) and event.status_code >= 200 and (self.awaits_go_ahead or self.is_last()):
            event = replace(event, headers=[*event.headers, (b"connection", b"close")])
        await super().stream_send(event)

    def is_last(self) -> bool:
        """The answer that begins now is the last one of its connection."""
        return False

    async def _check_protocol(self, event: h11.Request) -> None:
        """Follow no upgrade to HTTP/2 (the base class would)."""

    async def _create_stream(self, request: h11.Request) -> None:
        headers = [(name, value) for name, value in request.headers if name != b"upgrade"]
        plain = h11.Request(
            method=request.method, target=request.target, headers=headers, http_version=request.http_version
        )
        await super()._create_stream(plain)
