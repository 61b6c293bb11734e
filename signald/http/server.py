"""Plain HTTP/1.1 on Hypercorn's Trio connection code, corrected where one peer could hurt the others.

Hypercorn 0.18 gives each connection its parser, its ASGI streams and keep-alive. This file changes the
following; each point was found by running it, and a test holds it:

- **No WebSocket and no HTTP/2.** One malformed `Sec-WebSocket-Extensions` header ends Hypercorn's whole server, so
  `Upgrade` is dropped before Hypercorn can see it, and neither h2c nor prior-knowledge HTTP/2 is followed.
- **A barrier per connection.** Whatever escapes one connection is logged and ends that one.
- **Every wait ends.** Hypercorn shields its writes without a deadline, so one peer that stops reading holds a shutdown for
  ever. A body that the application does not read fills a queue for ever, and the connection hangs. Here writes have a
  deadline; unread bodies are discarded for a while, and then the connection is cut.
- **A place for every newcomer.** Peers that dawdle over a request or a body hold connections for long. When all are taken, they
  give way, so that they cannot keep a probe out.

There is no ASGI lifespan: the daemon's nursery tree owns what the application uses.
"""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import h11
import structlog
import trio
from hypercorn.config import Config as HypercornConfig
from hypercorn.events import RawData
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from signald.addresses import subscriber
from signald.places import Places

# Probes, scrapes and operators: far fewer than parties, and a flood here must not take the parties' descriptors. Beyond it the
# oldest connection without a request gives way, or the one that makes least progress: a probe always finds a place.
CONNECTIONS_MAX = 512
# From accept, or from the end of the last answer, to the last byte of a request's head.
HEAD_TIMEOUT_S = 5.0
# Silence of the peer while its request is under way, which bounds the time an answer may take.
READ_TIMEOUT_S = 60
WRITE_TIMEOUT_S = 10.0
# How long the unread rest of a body is discarded, so that the peer can read the answer before the connection ends.
UNREAD_BODY_TIMEOUT_S = 5.0

log = structlog.get_logger(__name__)


async def serve_http(
    app: ASGIApp,
    listeners: list[trio.SocketListener],
    *,
    shutdown: trio.Event,
    grace_s: float = 2.0,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `app` on `listeners` until `shutdown` is set, and close them.

    After `shutdown` nothing is accepted, idle connections close at once, and answers under way have `grace_s` seconds.
    Cancelling is safe too and ends all connections at once.
    """
    context = WorkerContext(max_requests=None)
    config = _hypercorn_config()
    places = Places(always=True)

    async def handle(stream: trio.SocketStream) -> None:
        connection = _Connection(app, config, context, stream)
        place = places.take(
            connection.holder,
            trio.current_time(),
            CONNECTIONS_MAX,
            partial(connection.cut, "http: gave way to another"),
        )
        assert place is not None, "a newcomer is never refused"
        connection.on_request = partial(places.heard, place, 0)
        try:
            await connection.run()
        finally:
            places.leave(place)

    async with trio.open_nursery() as connections:
        async with trio.open_nursery() as accepting:
            await accepting.start(_serve_listeners, handle, listeners, connections)
            task_status.started()
            await shutdown.wait()
            accepting.cancel_scope.cancel(reason="http: shutdown")
        await context.terminated.set()
        connections.cancel_scope.deadline = trio.current_time() + grace_s


async def _serve_listeners(
    handle: Any,
    listeners: list[trio.SocketListener],
    connections: trio.Nursery,
    task_status: trio.TaskStatus[list[trio.SocketListener]],
) -> None:
    await trio.serve_listeners(handle, listeners, handler_nursery=connections, task_status=task_status)


def _hypercorn_config() -> HypercornConfig:
    config = HypercornConfig()
    config.include_server_header = False
    config.keep_alive_timeout = HEAD_TIMEOUT_S
    config.read_timeout = READ_TIMEOUT_S
    # A logger, not a name: given a name Hypercorn would add a handler that writes its own format.
    config.errorlog = logging.getLogger("signald.http")
    return config


class _Connection(TCPServer):
    """One TCP connection; ends by itself, by `cut`, or with the nursery it runs in."""

    def __init__(
        self, app: ASGIApp, config: HypercornConfig, context: WorkerContext, stream: trio.SocketStream
    ) -> None:
        # Hypercorn types its messages one by one and every stream as TLS; at run time it takes these.
        super().__init__(self._run_app, config, context, {}, stream)  # type: ignore[arg-type]
        self._asgi = app
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
        except* (OSError, h11.LocalProtocolError):
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
            self.protocol = _PlainHttp(  # type: ignore[assignment]
                self.app,
                self.config,
                self.context,
                group,
                ConnectionState({}),
                False,
                peer[:2],
                own[:2],
                self.protocol_send,
            )
            await self.idle_task.restart(group, self._idle_timeout)
            await self._read_data()
            await self.idle_task.stop()

    async def protocol_send(self, event: Any) -> None:
        """Carry out what the protocol asks for; a write that is late or fails cuts the connection."""
        if not isinstance(event, RawData):
            await super().protocol_send(event)
            return
        async with self.send_lock:
            try:
                with trio.fail_after(WRITE_TIMEOUT_S):
                    await self.stream.send_all(event.data)
            except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
                self.cut("http: write failed or late")
            except trio.BusyResourceError:
                # Hypercorn is ending the stream already, because of what came behind this request.
                self.cut("http: written after the end")

    async def _idle_timeout(self) -> None:
        with trio.move_on_after(self.config.keep_alive_timeout):
            await self.context.terminated.wait()
        self.cut("http: idle")

    async def _run_app(self, scope: Scope, receive: Receive, send: Send, *_: object) -> None:
        """Run the application on one request, and see that its body is read to the end."""
        assert scope["type"] == "http", "no upgrade is followed"
        self.on_request()
        body_read = False

        async def receive_counted() -> Message:
            nonlocal body_read
            message = await receive()
            body_read = body_read or not message.get("more_body", False)
            return message

        async def send_after_body(message: Message) -> None:
            last = message["type"] == "http.response.body" and not message.get("more_body", False)
            if not last or body_read:
                await send(message)
                return
            with trio.move_on_after(UNREAD_BODY_TIMEOUT_S):
                while not body_read:
                    await receive_counted()
            # The stream's end is announced through the queue that may still be full.
            with trio.move_on_after(WRITE_TIMEOUT_S):
                await send(message)
            if not body_read:
                self.cut("http: endless body")

        await self._asgi(scope, receive_counted, send_after_body)


class _PlainHttp(H11Protocol):
    """HTTP/1.1 and 1.0, whatever the request asks to be upgraded to."""

    async def _check_protocol(self, event: h11.Request) -> None:
        """Follow no upgrade to HTTP/2 (the base class would)."""

    async def _create_stream(self, request: h11.Request) -> None:
        headers = [(name, value) for name, value in request.headers if name != b"upgrade"]
        plain = h11.Request(
            method=request.method, target=request.target, headers=headers, http_version=request.http_version
        )
        await super()._create_stream(plain)
