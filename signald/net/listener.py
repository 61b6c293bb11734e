"""Accepts connections, takes them through the handshake, and keeps each one's failures to itself.

    accept ─▸ handshake slot ─▸ request, TLS first ─▸ admission ─▸ gate ─▸ 101 ─▸ handler(connection) ─▸ wait_finished
                                               └ its path is no endpoint ─▸ http(plain request)

Two lifetimes: accepting lives in the task of `serve`, connections in the nursery handed to it, so that accepting can
be cancelled first and connections served on. A fault of a handler, a gate or a peer ends one connection. An
exception is logged and closed with 1011; it never reaches the nursery in which the other connections live.

A connection whose first request names another path than an endpoint goes to the HTTP half, with the bytes read so far and
without a place here: it has given back the one among the handshakes, and takes none among the connections.

Running out of file descriptors or memory makes accepting pause, not end; connections already accepted go on.
"""

import errno
import itertools
import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial

import structlog
import trio

from signald.addresses import ProxyTrust
from signald.ids import Entropy, SystemEntropy
from signald.net import backlog
from signald.net.admission import Admission, Refusal
from signald.net.compression import Compression, inflater_of
from signald.net.connection import Connection
from signald.net.ending import LOST, NO_CODE, ConnectionClosed
from signald.net.handshake import Handshake, HandshakeReader, HandshakeRefused, OtherPath, refuse, response
from signald.net.plain import PlainHandler, PlainRequest
from signald.net.poller import Poller, Spawn
from signald.net.queues import SendQueues
from signald.net.refusal_log import REASONS, TIMEOUT, TLS, RefusalLog
from signald.net.settings import NetSettings
from signald.net.transport import GONE, SocketTransport, StreamTransport, TlsTransport, Transport
from signald.pauses import Pauses
from signald.places import Place
from signald.tally import Traffic
from signald.wire.close_codes import CloseCode

ACCEPTS_PER_TURN = 64
"""Connections taken from one listening socket before all other tasks have a turn."""

ACCEPTS_AT_LAST = 4096
"""As many as wait in the kernel by default (`listen.backlog`), so that newcomers cannot hold up the end."""

ACCEPT_PAUSE_S = 0.1
"""How long accepting pauses when the process or the kernel has run out of something."""

TICK_S = 1.0
CONNECTIONS_PER_TURN = 1000
"""Connections ticked before all other tasks have a turn: about a millisecond."""

_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_KNOWN_CODES = frozenset(CloseCode) | {NO_CODE, LOST}
_LISTENER_IS_GONE = frozenset({errno.EBADF, errno.EINVAL, errno.ENOTSOCK, errno.EOPNOTSUPP})

Handler = Callable[[Connection], Awaitable[None]]
Gate = Callable[[Handshake, str], Refusal | None]
"""Judges a handshake and its remote address before the 101; None lets it in."""

log = structlog.get_logger("signald.net")


class Server:
    """Serves connections in one nursery, wherever they come from."""

    def __init__(
        self,
        handler: Handler,
        *,
        settings: NetSettings,
        admission: Admission,
        nursery: trio.Nursery,
        gate: Gate | None = None,
        tls: ssl.SSLContext | None = None,
        pauses: Pauses | None = None,
        http: PlainHandler | None = None,
    ) -> None:
        """Serve with `handler` in `nursery`, over TLS if there is `tls`.

        `gate`, if any, may refuse a handshake with an HTTP status of its own. Peers are not charged for `pauses`. `http` serves
        requests to other paths than the endpoints; without it they are answered 404.
        """
        self.pauses = pauses if pauses is not None else Pauses()
        self.connections: dict[int, Connection] = {}
        """Every connection that is past its handshake and not over, by id."""
        self.opened: Counter[str] = Counter()
        """Connections that came past their handshake, by route."""
        self.ended: Counter[tuple[int, str]] = Counter()
        """Connections that are over, by close code and the side that began it."""
        self.traffic = Traffic()
        self._compression = self._compression_of(settings)
        self.queues = SendQueues(settings.send_queues_bytes_max)
        self.refusals = RefusalLog()
        self._handler = handler
        self._settings = settings
        self._tls = tls
        self._http = http
        self.admission = admission
        self._spawn: Spawn = nursery.start_soon
        self._poller = Poller(self._spawn) if Poller.works else None
        self._gate = gate
        self._trust = ProxyTrust(settings.trusted_proxies)
        self._ids = itertools.count(1)
        self._proxied = itertools.count(1)
        self._ticking = False
        self._empty = trio.Event()

    def renew(self, settings: NetSettings, tls: ssl.SSLContext | None) -> None:
        """Serve new connections by other settings and another certificate from now on."""
        self._settings, self._tls = settings, tls
        self._compression = self._compression_of(settings)
        self.queues.bytes_max = settings.send_queues_bytes_max
        self._trust = ProxyTrust(settings.trusted_proxies)

    def _compression_of(self, settings: NetSettings) -> Compression:
        return Compression(settings.compression, settings.compression_bytes_min, self.traffic)

    async def accept_from(self, listening: socket.socket) -> None:
        """Accept from `listening`, a non-blocking socket, until cancelled.

        Raises OSError when the socket itself is unusable.
        """
        complained_at = -trio.current_time() - 3600
        while True:
            await trio.lowlevel.wait_readable(listening)
            for _ in range(ACCEPTS_PER_TURN):
                try:
                    client, address = listening.accept()
                except BlockingIOError:
                    break
                except OSError as error:
                    if error.errno in _EXHAUSTED:
                        if trio.current_time() - complained_at > 10:
                            complained_at = trio.current_time()
                            log.error("accept_paused", error=errno.errorcode[error.errno])  # noqa: TRY400
                        await trio.sleep(ACCEPT_PAUSE_S)
                        break
                    if error.errno in _LISTENER_IS_GONE:
                        raise
                    continue  # the connection died before we took it: the peer's affair (accept(2))
                self._take(client, address)

    async def close_at_last(self, listeners: Sequence[socket.socket]) -> None:
        """Close `listeners`, from which nothing accepts any more; serve each connection that the kernel has made until then.

        Takes `ROUND_TRIP_S` where the kernel can be told to make no further one; else a late one may be reset.
        """
        try:
            told = [backlog.take_no_more(listening) for listening in listeners]
            if any(told):
                await trio.sleep(backlog.ROUND_TRIP_S)
        finally:
            for listening in listeners:
                self._accept_rest(listening)
                listening.close()

    def _accept_rest(self, listening: socket.socket) -> None:
        for _ in range(ACCEPTS_AT_LAST):
            try:
                client, address = listening.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _EXHAUSTED | _LISTENER_IS_GONE:
                    return
                continue  # this one died in the queue; others wait behind it
            self._take(client, address)

    def _take(self, client: socket.socket, address: object) -> None:
        tls = self._tls
        host = str(address[0]) if isinstance(address, tuple) else "local"
        try:
            client.setblocking(False)
            if client.family != socket.AF_UNIX:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            client.close()
            return
        scope = trio.CancelScope()
        place = self._begin_handshake(host, scope)
        if place is None:
            self._turn_away(client, tls)
            self.refusals.note_answer(503, "too many handshakes", host)
            return
        if tls is None:
            transport: Transport = SocketTransport(client, self._poller)
        else:
            transport = TlsTransport(client, tls, self._spawn)
        try:
            self._spawn(partial(self._serve, transport, host, place, scope))
        except BaseException:
            self.admission.end_handshake(place)
            client.close()
            raise

    def _begin_handshake(self, host: str, scope: trio.CancelScope) -> Place | None:
        """Take a place; `scope` is cancelled when the peer has to give way to another."""
        # A silent peer gets no answer: it is cut, so that making room costs next to nothing.
        give_up = partial(scope.cancel, reason="gave way to another handshake")
        # A proxy has many parties, and only the request tells them apart: each holds a place of its own.
        holder = f"{host} {next(self._proxied)}" if self._trust.trusts(host) else host
        return self.admission.begin_handshake(holder, trio.current_time(), give_up)

    def _turn_away(self, client: socket.socket, tls: ssl.SSLContext | None) -> None:
        """Refuse without reading and without a task: no peer may cost more than this while all slots are taken."""
        with suppress(OSError):
            if tls is None:
                busy = Refusal(503, "too many handshakes", self.admission.retry_after_ms())
                client.send(refuse(busy).response)
                client.shutdown(socket.SHUT_WR)
                client.recv(4096)  # a request already here would turn the close into a reset
        client.close()

    async def serve_stream(self, stream: trio.abc.Stream, remote: str = "memory") -> None:
        """Serve one stream that is already there, until its connection is over."""
        scope = trio.CancelScope()
        place = self._begin_handshake(remote, scope)
        if place is None:
            self.refusals.note_answer(503, "too many handshakes", remote)
            await trio.aclose_forcefully(stream)
            return
        await self._serve(StreamTransport(stream, self._spawn), remote, place, scope)

    async def _serve(self, transport: Transport, peer: str, place: Place, scope: trio.CancelScope) -> None:
        """Serve one connection from its first byte to its last.

        `place` is its place among the handshakes; `scope` is cancelled when it gives way.
        """
        try:
            connection = None
            try:
                with scope:
                    connection = await self._open(transport, peer, place)
            finally:
                self.admission.end_handshake(place)
            if connection is None:
                return
            if isinstance(connection, PlainRequest):
                await self._serve_plain(connection)
                return
            self._add(connection)
            try:
                await self._handler(connection)
            except* ConnectionClosed:
                pass
            except* Exception as group:
                log.exception("handler_failed", connection=connection.id, path=connection.route, exc_info=group)
                connection.close(CloseCode.INTERNAL, "internal error")
            finally:
                await self._finish(connection)
        finally:
            transport.close()

    async def _serve_plain(self, plain: PlainRequest) -> None:
        """Have the HTTP half serve a connection; what it lets escape costs that connection only."""
        assert self._http is not None
        try:
            await self._http(plain)
        except* GONE:
            pass
        except* Exception as group:
            log.exception("http_failed", exc_info=group)

    async def _finish(self, connection: Connection) -> None:
        """See the closing handshake through; a handler that was cancelled still says goodbye, but waits for nothing."""
        try:
            if not connection.closing:
                cancelled = trio.current_effective_deadline() == -float("inf")
                connection.close(
                    CloseCode.GOING_AWAY if cancelled else CloseCode.INTERNAL, "" if cancelled else "handler ended"
                )
            await connection.wait_finished()
        finally:
            connection.release()
            del self.connections[connection.id]
            if connection.closed is not None:
                self.ended[_bounded(connection.closed.code), connection.closed.initiator] += 1
            self.admission.end_connection(connection.remote, shared=connection.shared)
            if not self.connections:
                self._empty.set()

    # ---- the handshake

    async def _open(self, transport: Transport, peer: str, place: Place) -> Connection | PlainRequest | None:
        """Return the open connection, or the request that opens none, or None when there is nothing to serve."""
        try:
            answering = False
            with self.pauses.within(self._settings.handshake_s) as patience:
                try:
                    return await self._shake_hands(transport, peer, place)
                except HandshakeRefused as refused:
                    answering = True
                    self.refusals.note_answer(refused.status, refused.reason, refused.remote or peer, refused.said)
                    await self._answer(transport, refused.response)
            if patience.cancelled_caught and not answering:
                self.refusals.note(TIMEOUT, "no whole request in time", peer)
        except GONE as error:
            # A peer that only went away has tried nothing: a probe of a load balancer, for instance.
            if isinstance(error.__cause__, ssl.SSLError) and not isinstance(error.__cause__, ssl.SSLEOFError):
                self.refusals.note(TLS, error.__cause__.reason or "no TLS", peer)
        except Exception:
            log.exception("handshake_failed")
            self.refusals.counts[REASONS[500]] += 1
            with suppress(*GONE), trio.move_on_after(self._settings.linger_s):
                await self._answer(transport, response(500, "internal error"))
        return None

    async def _shake_hands(self, transport: Transport, peer: str, place: Place) -> Connection | PlainRequest | None:
        reader, received = HandshakeReader(self._settings, plain=self._http is not None), 0
        handshake = None
        while handshake is None:
            data = await transport.receive()
            if not data:
                return None
            received += len(data)
            self.admission.heard(place, received)
            try:
                handshake = reader.feed(data)
            except HandshakeRefused as refused:
                refused.remote = self._trust.remote(peer, reader.forwarded)
                raise
            except OtherPath as other:
                secure = isinstance(transport, TlsTransport)
                return PlainRequest(transport, other.received, peer, self._trust, secure)
        remote = self._trust.remote(peer, handshake.header(b"x-forwarded-for"))
        shared = self._trust.trusts(remote)
        now = trio.current_time()
        refusal = self.admission.begin_connection(remote, now, shared=shared, owed_s=self.pauses.owed_s(now))
        if refusal is not None:
            raise refuse(refusal, remote)
        try:
            self._ask_gate(handshake, remote)
            await _send_all(transport, reader.accept(handshake))
        except BaseException:
            self.admission.end_connection(remote, shared=shared)
            raise
        terms, compression = handshake.compression, self._compression
        return Connection(
            transport,
            handshake,
            id=next(self._ids),
            remote=remote,
            shared=shared,
            settings=self._settings,
            spawn=self._spawn,
            traffic=self.traffic,
            pauses=self.pauses,
            queues=self.queues,
            inflater=inflater_of(terms),
            deflater=compression.own(terms),
            deflates_for_many=compression.shared(terms),
        )

    def _ask_gate(self, handshake: Handshake, remote: str) -> None:
        refusal = self._gate(handshake, remote) if self._gate is not None else None
        if refusal is not None:
            raise refuse(refusal, remote)

    async def _answer(self, transport: Transport, answer: bytes) -> None:
        """Write an HTTP answer and give the peer a moment to read it."""
        await _send_all(transport, answer)
        transport.finish_writing()
        with trio.move_on_after(self._settings.linger_s):
            while await transport.receive():
                pass

    # ---- the clock

    def _add(self, connection: Connection) -> None:
        self.connections[connection.id] = connection
        self.opened[connection.route] += 1
        if not self._ticking:
            self._ticking = True
            self._empty = trio.Event()
            self._spawn(self._tick)
        elif self._empty.is_set():
            self._empty = trio.Event()

    async def _tick(self) -> None:
        """Tick every connection once a second, as long as there is one: an idle server has no task to wait for."""
        try:
            while self.connections:
                with trio.move_on_after(TICK_S):
                    await self._empty.wait()
                for index, connection in enumerate(list(self.connections.values()), start=1):
                    try:
                        connection.tick(trio.current_time())
                    except Exception:
                        log.exception("tick_failed", connection=connection.id)
                        connection.abort("internal error")
                    if index % CONNECTIONS_PER_TURN == 0:
                        await trio.lowlevel.checkpoint()
        finally:
            self._ticking = False


def _bounded(code: int) -> int:
    """Return the code to count: peers may close with any of thousands of codes, so unknown ones count as 0."""
    return code if code in _KNOWN_CODES else 0


async def _send_all(transport: Transport, data: bytes) -> None:
    rest = memoryview(data)[transport.send_nowait(data) :]
    while rest:
        rest = rest[await transport.send(rest) :]


async def serve(
    listeners: Sequence[socket.socket],
    handler: Handler,
    *,
    settings: NetSettings,
    admission: Admission,
    connection_nursery: trio.Nursery,
    gate: Gate | None = None,
    tls: ssl.SSLContext | None = None,
    http: PlainHandler | None = None,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Accept from `listeners`, and close them at the end; run each connection's `handler` in `connection_nursery`.

    Runs until cancelled, which ends the accepting and nothing else. A handler that returns leaves the closing handshake
    to us; when it has not closed, the close is 1011. Starts with the `Server`, to look at its connections.
    """
    server = Server(
        handler, settings=settings, admission=admission, nursery=connection_nursery, gate=gate, tls=tls, http=http
    )
    try:
        async with trio.open_nursery() as accepting:
            for listening in listeners:
                accepting.start_soon(server.accept_from, listening)
            task_status.started(server)
    finally:
        for listening in listeners:
            trio.lowlevel.notify_closing(listening)
            listening.close()


async def serve_stream(
    stream: trio.abc.Stream,
    handler: Handler,
    *,
    settings: NetSettings,
    admission: Admission | None = None,
    entropy: Entropy | None = None,
    gate: Gate | None = None,
    remote: str = "memory",
) -> None:
    """Serve one connection over `stream`, for instance a half of `trio.testing.memory_stream_pair()`, until it is over."""
    if admission is None:
        admission = Admission(settings, entropy=entropy if entropy is not None else SystemEntropy())
    async with trio.open_nursery() as nursery:
        server = Server(handler, settings=settings, admission=admission, nursery=nursery, gate=gate)
        await server.serve_stream(stream, remote)


async def open_listeners(address: str, *, backlog: int = 4096, reuse_port: bool = False) -> list[socket.socket]:
    """Return non-blocking sockets that listen on `address`, `host:port` or `[v6]:port`; an empty host means every one.

    Raises OSError when the address cannot be used, ValueError when it is not one.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal():
        raise ValueError(f"not host:port: {address!r}")
    found = await trio.socket.getaddrinfo(
        host.strip("[]") or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, where in found:
            listening = socket.socket(family, kind, protocol)
            sockets.append(listening)
            listening.setblocking(False)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reuse_port:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listening.bind(where)
            listening.listen(backlog)
    except BaseException:
        for listening in sockets:
            listening.close()
        raise
    return sockets
