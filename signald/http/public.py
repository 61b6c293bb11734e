"""HTTP on the public listener: the connections that open no WebSocket.

The listener hands over a connection with the bytes that it has read (`PlainRequest` of the net half). It is served in the
task of the listener that accepted it, and the listener closes the transport.

    serve ─▸ rate of its address ─▸ place ─▸ PublicConnection.run ─▸ the application, request by request

- **Places of its own.** HTTP connections have a bound of their own, so that neither half takes the other's connections. When
  all places are taken, an idle connection gives way first, then one of the address with the most. Nothing is taken from an
  address with few: then the newcomer is refused with 503.
- **The address of each request.** A trusted proxy sends requests of several clients on one connection. So the address that is
  limited, and the ASGI `client`, are those that the request's own `X-Forwarded-For` names.
- **A patience for each state.** A head and a body that stand still, an idle connection and a peer that takes no answer each
  have a time of their own. An answer that is being made has none: a stream of events may last.
- **The end.** `stop` begins it: each answer is the last one of its connection, and idle connections end a moment later.
  `finish` waits for the requests under way.
"""

from collections.abc import Container
from contextlib import suppress
from functools import partial
from itertools import count
from typing import Any

import attrs
import h11
import trio
from hypercorn.events import Closed, RawData, Updated
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from starlette.types import ASGIApp, Receive, Scope, Send

from signald.addresses import subscriber
from signald.bucket import Buckets
from signald.config import Config
from signald.http.connection import LINGER_S, HttpConnection, PlainHttp, hypercorn_config, reason_of
from signald.http.plain_stream import READ_BYTES, Plain, PlainStream
from signald.http.problem_details import KINDS, HttpProblem
from signald.places import Place, Places

IDLE_GRACE_S = 1.0
"""How long an idle connection may still bring a request after a stop has begun. A request that was sent before its sender could see
the end arrives within a round trip; a request that is sent later finds the connection closed."""

REFUSALS_MAX = 256
"""Refused connections that are given a moment to read why: a flood of them must not take the descriptors of others. Further ones
are closed at once."""

REQUESTS_PER_CONNECTION = 10_000
"""Requests of one connection before it is closed: a proxy's connections move to other nodes in the end, and seldom."""


@attrs.frozen(kw_only=True)
class PublicSettings:
    """Bounds and times of the HTTP connections of a public listener. The defaults are those of the configuration."""

    websocket_paths: Container[str] = frozenset()
    """Paths of WebSockets: they are opened by the first request of a connection only."""
    connections_max: int = 1024
    connects_per_s: float = 0.0
    """Per remote address; 0: no limit."""
    connects_burst: int = 100
    retry_after_ms: int = 1000
    head_s: float = 5.0
    """From the first byte of a head to its last."""
    body_s: float = 10.0
    """Silence within a body."""
    idle_s: float = 75.0
    """Silence between two requests."""
    write_s: float = 10.0
    """How long the peer may take nothing of what is written."""


def public_settings(config: Config, websocket_paths: Container[str]) -> PublicSettings:
    """Return the share of the configuration that the HTTP connections of the public listener have."""
    timeouts, admission = config.timeouts, config.admission
    return PublicSettings(
        websocket_paths=websocket_paths,
        connections_max=admission.http_connections_max,
        connects_per_s=admission.connects_per_s,
        connects_burst=admission.connects_burst,
        retry_after_ms=admission.retry_after_ms,
        head_s=timeouts.handshake_s,
        body_s=timeouts.http_body_s,
        idle_s=timeouts.http_idle_s,
        write_s=timeouts.write_s,
    )


class PublicHttp:
    """See the module; one for each node."""

    def __init__(self, app: ASGIApp, settings: PublicSettings, *, stopping: trio.Event | None = None) -> None:
        """Serve `app`; `stop` sets `stopping`."""
        self.settings = settings
        """Replaced when the configuration is reloaded."""
        self.stopping = stopping if stopping is not None else trio.Event()
        """The process ends: routes that wait or stream end early."""
        self.connections: set[PublicConnection] = set()
        """Every connection that is not over."""
        self.refused = dict.fromkeys(("connections", "address"), 0)
        """Connections refused since the start, by what was full: all places, or an address's rate."""
        self.places = Places()
        self._app = app
        self._connects = Buckets()
        self._alone = count(1)
        self._refusing = 0
        self._config = hypercorn_config()
        self._config.keep_alive_max_requests = REQUESTS_PER_CONNECTION
        self._context = WorkerContext(max_requests=None)
        self._over = trio.Event()
        self._finishing = trio.CancelScope()

    async def serve(self, plain: Plain) -> None:
        """Serve one connection until it is over; raises nothing but cancellation."""
        stream = PlainStream(plain, self.settings.write_s)
        connection = PublicConnection(self, self._app, self._config, self._context, stream, plain)
        refusal = self._admit(connection)
        if refusal is not None:
            await self._refuse(stream, refusal)
            return
        self.connections.add(connection)
        try:
            await connection.run()
        finally:
            self.places.leave(connection.place)
            self.connections.discard(connection)
            if not self.connections:
                self._over.set()
                self._over = trio.Event()

    async def _refuse(self, stream: PlainStream, refusal: HttpProblem) -> None:
        """Say why a connection is not served, unless too many are told so already."""
        if self._refusing >= REFUSALS_MAX:
            return
        self._refusing += 1
        try:
            with suppress(OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
                with trio.move_on_after(LINGER_S):
                    await stream.send_all(_raw(refusal))
                    await stream.linger()
        finally:
            self._refusing -= 1

    def _admit(self, connection: "PublicConnection") -> HttpProblem | None:
        """Give the connection a place; return why there is none."""
        settings, now = self.settings, trio.current_time()
        retry = str(max(1, -(-settings.retry_after_ms // 1000)))
        rate = settings.connects_per_s, settings.connects_burst
        if not connection.proxied and self._connects.take(connection.holder, *rate, now):
            self.refused["address"] += 1
            return HttpProblem(429, "rate", "too many connects from this address").with_headers(retry_after=retry)
        give_up = partial(connection.cut, "http: gave way to another")
        place = self.places.take(connection.holder, now, settings.connections_max, give_up)
        if place is None:
            self.refused["connections"] += 1
            return HttpProblem(503, "busy", "too many connections").with_headers(retry_after=retry)
        connection.place = place
        return None

    def alone(self) -> str:
        """Return a holder of its own: that of a proxy's connection before a request names the client."""
        return f"proxy {next(self._alone)}"

    def stop(self) -> None:
        """The process ends: make each answer the last of its connection, and end idle connections. Idempotent."""
        if not self.stopping.is_set():
            self.stopping.set()
            for connection in self.connections:
                connection.stop()

    async def finish(self, until: float) -> None:
        """Wait for the requests under way, until the time `until`; then cut them."""
        self.stop()
        self._finishing.deadline = min(self._finishing.deadline, until)
        with self._finishing:
            while self.connections:
                await self._over.wait()
        for connection in self.connections:
            connection.cut("http: the node stops")

    def hurry(self) -> None:
        """Cut the requests that `finish` waits for."""
        self._finishing.cancel(reason="http: a further signal")


class PublicConnection(HttpConnection):
    """One connection of the public listener."""

    place: Place

    def __init__(
        self, owner: PublicHttp, app: ASGIApp, config: Any, context: WorkerContext, stream: PlainStream, plain: Plain
    ) -> None:
        super().__init__(app, config, context, stream, secure=plain.secure)
        self._owner = owner
        self._plain = plain
        self.proxied = plain.trust.trusts(plain.peer)
        """The peer is a trusted proxy: its requests name their clients."""
        self.holder = owner.alone() if self.proxied else subscriber(plain.peer)
        self._reading = trio.CancelScope()
        self._idle_since = trio.current_time()
        self._head_since: float | None = None
        self._ended = False

    # ---- the end

    def stop(self) -> None:
        """The process ends: an idle connection ends a moment later."""
        self._reading.deadline = self._patience()

    @property
    def stopping(self) -> bool:
        """The process ends."""
        return self._owner.stopping.is_set()

    @property
    def settings(self) -> PublicSettings:
        """The settings that hold now."""
        return self._owner.settings

    # ---- reading

    def _protocol(self, group: TaskGroup, peer: Any, own: Any) -> "PublicProtocol":
        protocol = PublicProtocol(
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
        protocol.owner = self
        return protocol

    async def _read_to_the_end(self) -> None:
        while (data := await self._receive()) is not None:
            if data:
                # While its request waits or is answered, a peer makes no progress by sending.
                self._owner.places.heard(self.place, 0)
            await self.protocol.handle(RawData(data))
            if not data:
                break
        await self.protocol.handle(Closed())

    async def _receive(self) -> bytes | None:
        """Return what comes, b"" at the end; None when the peer has dawdled, or when it has nothing more to say here."""
        while True:
            with trio.CancelScope(deadline=self._patience()) as self._reading:
                try:
                    data = await self.stream.receive_some(READ_BYTES)
                except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
                    return None
            if self._reading.cancelled_caught:
                return None
            if not self._ended or not data:
                return bytes(data)

    def _patience(self) -> float:
        """Return until when the peer may say nothing."""
        now, settings = trio.current_time(), self.settings
        parser = self._parser
        if self._ended or parser is None:
            return now + LINGER_S
        if parser.their_state is h11.SEND_BODY:
            # Before it is told to go on, the peer waits for the application.
            return float("inf") if parser.awaits_go_ahead else now + settings.body_s
        if parser.their_state is not h11.IDLE:
            return float("inf")
        if parser.trailing_data[0]:
            self._head_since = now if self._head_since is None else self._head_since
            return self._head_since + settings.head_s
        self._head_since = None
        idle = self._idle_since + settings.idle_s
        return min(idle, max(now, self._idle_since) + IDLE_GRACE_S) if self.stopping else idle

    @property
    def _parser(self) -> Any:
        return self.protocol.connection if hasattr(self, "protocol") else None  # type: ignore[attr-defined]

    async def protocol_send(self, event: Any) -> None:
        """Carry out what the protocol asks for."""
        if isinstance(event, Closed):
            self._ended = True
            self._reading.deadline = trio.current_time() + LINGER_S
        if not isinstance(event, Updated):
            await super().protocol_send(event)
        elif event.idle:
            self._idle_since = trio.current_time()
            self._owner.places.quiet(self.place, self._idle_since)
            self._reading.deadline = self._patience()

    async def _write(self, data: bytes) -> None:
        await self.stream.send_all(data)

    # ---- the application

    async def _run_app(self, scope: Scope, receive: Receive, send: Send, *more: object) -> None:
        hops = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
        remote = self._plain.trust.remote(self._plain.peer, ", ".join(hops) or None)
        scope["client"], scope["server"] = (remote, 0), None
        # A proxy that named no address speaks for many: it has no share and no rate of its own.
        scope["state"]["remote_is_shared"] = shared = self._plain.trust.trusts(remote)
        if self.proxied and not shared:
            self._owner.places.rename(self.place, subscriber(remote))
        await super()._run_app(scope, receive, send, *more)


class PublicProtocol(PlainHttp):
    """The protocol of one public connection: its refusals are problem documents, and its end can be asked for."""

    owner: PublicConnection

    def is_last(self) -> bool:
        """The answer that begins now is the last one of its connection."""
        return self.owner.stopping

    async def _create_stream(self, request: h11.Request) -> None:
        path = request.target.partition(b"?")[0].decode("ascii")
        if path in self.owner.settings.websocket_paths:
            await self._refuse(HttpProblem(426, KINDS[426], WEBSOCKET_LATE).with_headers(upgrade="websocket"))
            await self.send(Closed())
            return
        await super()._create_stream(request)

    async def _send_error_response(self, status_code: int) -> None:
        await self._refuse(
            HttpProblem(status_code, KINDS.get(status_code, "bad-request"), "the request cannot be read")
        )

    async def _refuse(self, problem: HttpProblem) -> None:
        """Answer without the application, for the last time on this connection."""
        answer = problem.response()
        headers = [*answer.raw_headers, (b"connection", b"close")]
        await self._send_h11_event(h11.Response(status_code=problem.status, headers=headers))
        if self.connection.method != b"HEAD":
            await self._send_h11_event(h11.Data(data=bytes(answer.body)))
        await self._send_h11_event(h11.EndOfMessage())


WEBSOCKET_LATE = "a WebSocket is opened by the first request of a connection: open another connection"


def _raw(problem: HttpProblem) -> bytes:
    """Return a whole answer that ends its connection."""
    answer = problem.response()
    lines = [b"HTTP/1.1 %d %s" % (problem.status, reason_of(problem.status))]
    lines += [b"%s: %s" % header for header in answer.raw_headers]
    return b"\r\n".join([*lines, b"connection: close"]) + b"\r\n\r\n" + bytes(answer.body)
