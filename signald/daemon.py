"""The daemon: the one place where the nursery tree stands whole, and the order in which it comes up and goes down.

    store           its threads                                            live longest
    └ http          health answers to the very end; readiness flips first
      └ storing     the committer
        └ keepers   lease, sweeps, matchmaker, mender, acks, backplane
          └ conns   one task for each connection                           bounded by the drain's deadline
            └ accept    listeners                                          cancelled first
              └ body    signals → ShutdownScope

One task for each connection, and none for a session: a session may span connections and nodes, and has nothing to wait for.

Going down runs the tree from the inside out: the drain has said goodbye to everybody before the first nursery is
cancelled, and every cancel has a reason.
"""

import errno
import gc
import os
import signal
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import attrs
import structlog
import trio

from signald import early
from signald.config import Config, ConfigError, Problem, cgroup_limit, has_key, is_loopback, memory_problem
from signald.config.paths import admin_socket, socket_directory
from signald.config.reloading import Source
from signald.errors import ResourceRefused, StoreError, StoreMisused, StoreUnavailable
from signald.exits import Exit
from signald.http.admin import admin_routes
from signald.http.admin_socket import AdminSocket
from signald.http.health import HealthStatus, http_app
from signald.http.listening import cannot_listen, open_tcp, open_unix
from signald.http.metrics import CountAnswers, metrics_routes
from signald.http.server import serve_http
from signald.ids import Entropy, SystemEntropy
from signald.logs import reconfigure_logging, writing_logs
from signald.net.admission import Admission, SetupGate
from signald.net.listener import Server, open_listeners
from signald.net.settings import NetSettings
from signald.service.auth import Authenticator
from signald.service.cluster.identity import Claimant, HostFile, NodeIdTaken, StartCalledOff
from signald.service.cluster.lag import LoopLag
from signald.service.cluster.lease import Lease
from signald.service.cluster.lives import Lives
from signald.service.cluster.looks import SecondLooks
from signald.service.cluster.lost_workers import LostWorkers
from signald.service.cluster.mender import Mender
from signald.service.cluster.sight import Sight
from signald.service.cluster.sweeps import Sweeps
from signald.service.cluster.wakes import Wakes
from signald.service.context import Context
from signald.service.drain.shutdown import ShutdownScope
from signald.service.hub import Hub
from signald.service.matchmaker import Matchmaker
from signald.service.meters import Observed, node_registry
from signald.service.operations import NodeOperations
from signald.service.reloading import Prepared, Reloader, prepare
from signald.service.supervision import EXTEND_S, Supervision
from signald.service.telemetry import Spans, exporting
from signald.store.base import Store
from signald.store.committer import Committer
from signald.store.open import open_store, renew_store
from signald.systemd import Inherited, Notifier, SocketRefused, inherited_sockets, open_notifier

log = structlog.get_logger(__name__)

SESSION_POSITION_BYTES = 128
"""What one session adds to an `app_ready`: its id, two seqs, and the JSON around them."""

GC_THRESHOLDS = (10_000, 20, 50)
"""Cycles are rare here (a failed connection leaves one) and full collections are pauses for everybody: the youngest are
looked at after ten thousand allocations, all of them after ten million."""

Announce = Callable[[int, int], None]
"""Called with the port of the WebSocket listener and that of the HTTP listener."""

NO_SOCKETS = Inherited()

HANDSHAKE_POLL_S = 0.01

STORE_GOODBYE_S = 1.0
"""How long the store may take to hear that this node is gone; its lease ends by itself otherwise."""


def run(config: Config, source: Source | None = None, announce: Announce | None = None) -> int:
    """Serve until told to stop; returns the exit status (sysexits), which the process is to end with: SIGTERM is ignored.

    SIGHUP reads `source` again; without one it stops, as the end of a terminal does. `announce` is called with the ports of both listeners
    once the node serves.
    """
    with writing_logs(config.log):
        return _run(config, source, announce)


def _run(config: Config, source: Source | None, announce: Announce | None) -> int:
    kept = early.keep()  # the program has begun to long ago
    status: int = Exit.SOFTWARE
    notifier = open_notifier(os.environ)
    try:
        inherited = inherited_sockets(os.environ)
        status = trio.run(partial(_main, config, source, kept, inherited, notifier, announce))
    except* (StoreMisused, SocketRefused, ConfigError) as group:
        status = _failed(Exit.CONFIGURATION, group)
    except* StoreError as group:
        status = _failed(Exit.UNAVAILABLE, group)
    except* NodeIdTaken as group:
        status = _failed(Exit.NOT_NOW, group)  # it is free again when the other process has ended
    except* StartCalledOff:
        log.info("stopped", node=config.node.id)
        status = Exit.OK
    except* OSError as group:
        status = _failed(Exit.ADDRESS, group)
    except* Exception:
        log.exception("failed")  # an error of ours: the supervisor starts us again
        status = Exit.SOFTWARE
    if notifier is not None:
        notifier.close()
    early.ignore()
    return status


def _failed(status: int, group: BaseExceptionGroup[BaseException]) -> int:
    leaf: BaseException = group
    while isinstance(leaf, BaseExceptionGroup):
        leaf = leaf.exceptions[0]
    log.error("cannot_serve", why=str(leaf))
    return status


async def _main(
    config: Config,
    source: Source | None,
    kept: Sequence[int],
    inherited: Inherited,
    notifier: Notifier | None,
    announce: Announce | None,
) -> int:
    with trio.open_signal_receiver(*early.SIGNALS) as signals:
        async with trio.open_nursery() as receiving:
            taken = _Signals(receiving.cancel_scope, reloads=source is not None)
            for number in kept:
                taken.take(number)
            receiving.start_soon(_receive_signals, signals, taken)
            claimant = _claimant(config, notifier, taken.stop)
            async with (
                running(
                    config, SystemEntropy(), source=source, inherited=inherited, notifier=notifier, claimant=claimant
                ) as daemon,
                trio.open_nursery() as nursery,
            ):
                if announce is not None:
                    announce(daemon.websocket_port, daemon.http_port)
                taken.node = daemon.node
                nursery.start_soon(taken.run_reloads, daemon.node)
                await daemon.node.shutdown.run()
                taken.over = True
                nursery.cancel_scope.cancel(reason="the drain is done")
            receiving.cancel_scope.cancel(reason="the node has ended")
    if taken.node is not None and taken.node.lease.outdated:
        return Exit.CONFIGURATION
    if taken.node is not None and taken.node.lease.taken:
        return Exit.NOT_NOW
    log.info("stopped", node=config.node.id)
    return Exit.OK


def _claimant(config: Config, notifier: Notifier | None, stop: trio.Event) -> Claimant:
    """How this process comes to its node id. A store in memory has no other processes."""
    host = None
    if not config.store.url.startswith("memory:"):
        host = HostFile(socket_directory(os.environ), config.node.id)
    return Claimant(host, (lambda line: notifier.extend(EXTEND_S, line)) if notifier else (lambda _: None), stop)


class _Signals:
    """What each signal means. A reload is slow (it reads files), and no signal waits for one.

    A stop that comes before there is a node ends the start: no party is served yet, so there is nothing to drain.
    """

    def __init__(self, start: trio.CancelScope, *, reloads: bool) -> None:
        """A stop before there is a node cancels `start`. A hangup is a stop where nothing `reloads`."""
        self.node: Node | None = None
        self.over = False
        """The drain is done: one signal too many changes nothing any more."""
        self._start = start
        self._reloads = reloads
        self._hung_up = trio.Event()
        self.stop = trio.Event()

    def take(self, number: int) -> None:
        """A signal has come."""
        if self.over:
            return
        log.info("signal", name=signal.Signals(number).name)
        if number == signal.SIGHUP and self._reloads:
            self._hung_up.set()
        elif self.node is not None:
            self.node.shutdown.signal()
        else:
            # Its store may be away, or its id another's: it would be long in coming.
            self.stop.set()
            self._start.cancel(reason="told to stop before the node served")

    async def run_reloads(self, node: "Node") -> None:
        """Reload for every SIGHUP, until cancelled; those that come during a reload are one."""
        while True:
            await self._hung_up.wait()
            self._hung_up = trio.Event()
            reloader = node.operations.reloader
            assert reloader is not None
            with suppress(ConfigError):  # it is logged, and nobody waits for an answer
                await reloader.reload()


async def _receive_signals(signals: AsyncIterator[int], taken: _Signals) -> None:
    async for number in signals:
        taken.take(number)


@attrs.frozen
class Node:
    """What lives inside a node, whoever brings its connections."""

    hub: Hub
    server: Server
    lease: Lease
    wakes: Wakes
    shutdown: ShutdownScope
    admission: Admission
    committer: Committer
    operations: NodeOperations


@attrs.frozen
class Daemon:
    """A node that listens."""

    node: Node
    websocket_port: int
    http_port: int


@asynccontextmanager
async def running(
    config: Config,
    entropy: Entropy,
    *,
    source: Source | None = None,
    inherited: Inherited = NO_SOCKETS,
    notifier: Notifier | None = None,
    claimant: Claimant | None = None,
) -> AsyncIterator[Daemon]:
    """Run a node that listens, until the body ends. The body ends when the drain has: what follows is cancellation only.

    `source` can be read again while the node runs. Sockets that are `inherited` take the place of those that would be
    bound; `notifier` is told how the node is; `claimant` takes the node's id.

    Raises ConfigError (the certificate, an inherited socket that the configuration does not protect), StoreMisused,
    StoreUnavailable, NodeIdTaken, StartCalledOff, OSError (an address is taken) before the body begins.
    """
    prepared = prepare(config)
    _warn_of_memory(config)
    check_inherited(inherited, config)
    listeners = list(inherited.websocket) or await _bind(config)
    websocket_port = _port(listeners[0])
    accept_scopes = [trio.CancelScope() for _ in listeners]
    health = _Health(config)
    async with (
        _closing(listeners),
        exporting(config) as spans,
        open_store(config.store.url, config.node.id, config.store) as store,
        trio.open_nursery() as http_nursery,
        _serving_http(config, health, inherited, http_nursery) as http_port,
    ):
        try:
            async with (
                node_on(store, prepared.config, entropy, spans, claimant) as node,
                trio.open_nursery() as watching,
                trio.open_nursery() as accepting,
            ):
                if inherited.websocket:
                    node.shutdown.socket_outlives = True
                    node.shutdown.stop_accepting = partial(_stop_accepting, accept_scopes, node)
                apply_config(node, prepared)
                for listening, scope in zip(listeners, accept_scopes, strict=True):
                    accepting.start_soon(_accept, node.server, listening, scope)
                # What the imports have made lives as long as the process: a collection during a handover need not look at it,
                # and what it looks at is then a tenth of the heap.
                gc.collect()
                gc.freeze()
                gc.set_threshold(*GC_THRESHOLDS)
                trio.lowlevel.add_instrument(node.hub.pauses)
                await node.lease.set_state("ready")
                health.begin(node)
                log.info(
                    "ready",
                    node=config.node.id,
                    release=config.node.release,
                    websocket=websocket_port,
                    http=http_port,
                )
                supervision = Supervision(notifier, node.hub, node.shutdown) if notifier is not None else None
                if source is not None:
                    node.operations.reloader = Reloader(
                        source,
                        node.hub,
                        partial(check_inherited, inherited),
                        partial(_apply_reloaded, node),
                        supervision,
                    )
                    watching.start_soon(node.operations.reloader.run_store_url)
                if supervision is not None:
                    watching.start_soon(supervision.run)
                try:
                    yield Daemon(node, websocket_port, http_port)
                finally:
                    trio.lowlevel.remove_instrument(node.hub.pauses)
                    if supervision is not None:
                        supervision.end()
                    watching.cancel_scope.cancel(reason="the node stops")
                    accepting.cancel_scope.cancel(reason="the node stops")
        finally:
            for listening in listeners:
                listening.close()  # before the HTTP half goes: nobody knocks in vain


def _warn_of_memory(config: Config) -> None:
    """Say it at start when the budgets do not fit what the container grants: it serves, until it is killed at its limit."""
    granted = cgroup_limit()
    if granted is not None and (found := memory_problem(config, granted[1], granted[0], "")) is not None:
        log.warning("memory_limit_low", limit=granted[0], error=found.message)


def apply_config(node: Node, prepared: Prepared) -> None:
    """Tell everybody in `node` who holds settings: the one place that knows who does. Cannot fail."""
    settings = net_settings(prepared.config)
    node.hub.renew(prepared.config, prepared.auth)
    node.hub.gate.renew(settings)
    node.admission.settings = settings
    node.server.renew(settings, prepared.tls)
    renew_store(node.hub.store, prepared.config.store.url)


def _apply_reloaded(node: Node, prepared: Prepared) -> None:
    apply_config(node, prepared)
    reconfigure_logging(prepared.config.log)


async def _bind(config: Config) -> list[socket.socket]:
    listening: list[socket.socket] = []
    try:
        for address in config.listen.websocket:
            listening += await open_listeners(address, backlog=config.listen.backlog)
    except OSError as error:
        for opened in listening:
            opened.close()
        raise cannot_listen("listen.websocket", address, error) from None
    return listening


def _port(listening: socket.socket) -> int:
    """The port of a listening socket; 0 for one that has none."""
    address = listening.getsockname()
    return int(address[1]) if isinstance(address, tuple) else 0


def check_inherited(inherited: Inherited, config: Config) -> None:
    """Hold inherited sockets to the rule for configured addresses: beyond this machine a party shows who it is.

    Raises ConfigError.
    """
    if has_key(config.auth) or config.auth.insecure:
        return
    for key, sockets in (("listen.websocket", inherited.websocket), ("listen.http", inherited.http)):
        for listening in sockets:
            address = listening.getsockname()
            if isinstance(address, tuple) and not is_loopback(address[0]):
                message = (
                    f"the socket passed by systemd is reachable from other machines ({address[0]}): set an auth key"
                )
                raise ConfigError([Problem("", key, message)])


async def _accept(server: Server, listening: socket.socket, scope: trio.CancelScope) -> None:
    with scope:
        await server.accept_from(listening)


async def _stop_accepting(scopes: Sequence[trio.CancelScope], node: Node) -> None:
    """Leave those who connect from now on to the next process: the supervisor keeps the socket, and they wait in it.

    Who is in a handshake already is still answered. Each listener has a scope of its own: the nursery's would cancel the body
    too, and with it the drain that waits for the closing handshakes.
    """
    for scope in scopes:
        scope.cancel(reason="the listening sockets outlive this process")
    while node.admission.handshakes:  # noqa: ASYNC110 - the last moments of a drain; its phase ends it
        await trio.sleep(HANDSHAKE_POLL_S)
    for conn in list(node.hub.connections.values()):
        await conn.wait_closed()


@asynccontextmanager
async def _serving_http(
    config: Config, health: "_Health", inherited: Inherited, nursery: trio.Nursery
) -> AsyncIterator[int]:
    """Answer over HTTP until the body has ended; yields the TCP port."""
    over = trio.Event()
    if inherited.http:
        tcp = [trio.SocketListener(trio.socket.from_stdlib_socket(passed)) for passed in inherited.http]
    else:
        tcp = [listener for address in config.listen.http for listener in await open_tcp(address)]
    port = _port(tcp[0].socket)  # type: ignore[arg-type]
    metrics, answers = metrics_routes(node_registry(health.observed)), health.answers
    app = http_app(health.read, routes=[*metrics, *admin_routes(health.operations, token=health.admin_token)])
    await nursery.start(partial(serve_http, CountAnswers(app, answers), tcp, shutdown=over))
    app = http_app(health.read, routes=[*metrics, *admin_routes(health.operations, token=None)])
    unix = AdminSocket(partial(_open_admin_socket, config), partial(serve_http, CountAnswers(app, answers)), over)
    await nursery.start(unix.run)
    try:
        yield port
    finally:
        over.set()


def _open_admin_socket(config: Config) -> trio.SocketListener | None:
    """Open the admin API's Unix socket; None where there is to be none. Raises OSError."""
    if config.admin.socket == "off":
        return None
    directory = socket_directory(os.environ)
    path = Path(config.admin.socket) if config.admin.socket else admin_socket(directory, config.node.id)
    try:
        try:
            return open_unix(path)
        except OSError as error:
            if config.admin.socket or error.errno != errno.EADDRINUSE:
                raise
            # A node of another cluster on this host has the same name: no reason not to serve.
            return open_unix(admin_socket(directory, config.node.id, f"-{os.getpid()}"))
    except OSError as error:
        advice = 'set it to a path in a directory that this user may write, or to "off" for no admin socket'
        raise ResourceRefused("admin.socket", f"cannot open {path}", error, advice) from None


@asynccontextmanager
async def _closing(listeners: list[socket.socket]) -> AsyncIterator[None]:
    """Close `listeners` also when nothing that would use them comes up."""
    try:
        yield
    finally:
        for listening in listeners:
            listening.close()


@asynccontextmanager
async def node_on(
    store: Store, config: Config, entropy: Entropy, spans: Spans | None = None, claimant: Claimant | None = None
) -> AsyncIterator[Node]:
    """Run what lives inside a node on an open `store`, until the body ends. Simulations bring their own connections."""
    async with trio.open_nursery() as storing:
        committer = Committer(store, batch_ops_max=config.store.batch_ops_max)
        storing.start_soon(committer.run)
        async with trio.open_nursery() as keepers, trio.open_nursery() as connections:
            settings = net_settings(config)
            auth, gate = Authenticator.from_config(config.auth), SetupGate(settings, entropy=entropy)
            context = Context(config, store, committer, entropy, connections.start_soon, spans)
            hub = Hub(context, auth, gate)
            committer.after_batch = hub.batch_done
            committer.refused = hub.inboxes.store_refused
            lease, shutdown, wakes = await _keep(hub, keepers, claimant)
            admission = Admission(settings, entropy=entropy, budget=gate.budget)
            server = Server(hub.serve, settings=settings, admission=admission, nursery=connections, pauses=hub.pauses)
            try:
                operations = NodeOperations(hub, lease, shutdown)
                yield Node(hub, server, lease, wakes, shutdown, admission, committer, operations)
            finally:
                context.stopping = True
                connections.cancel_scope.cancel(reason="the node stops: what is left was told goodbye")
                keepers.cancel_scope.cancel(reason="the node stops")
        with trio.move_on_after(STORE_GOODBYE_S):
            try:
                await committer.wait_idle()
                await lease.end()
                if claimant is not None:
                    claimant.returned()
            except StoreUnavailable:
                log.warning("lease_not_returned")
        storing.cancel_scope.cancel(reason="nobody uses the store any more")


async def _keep(hub: Hub, keepers: trio.Nursery, claimant: Claimant | None) -> tuple[Lease, ShutdownScope, Wakes]:
    """Start what keeps a node in the cluster. Raises StoreUnavailable, StoreMisused, NodeIdTaken, StartCalledOff."""
    sight = Sight(hub.store.now_ms, lambda: hub.config.node.lease_ttl_s)
    lease = Lease(hub, sight, LoopLag(), lambda: shutdown.usurp(), claimant)
    shutdown = ShutdownScope(hub, lease)
    matchmaker, mender, lives = Matchmaker(hub), Mender(hub, sight), Lives(hub)
    sweeps = Sweeps(hub, lease, lives, LostWorkers(hub, sight))
    wakes = Wakes(hub, lives)
    await mender.begin()
    await lease.begin()
    tasks: list[Callable[[], object]] = [
        wakes.run,
        hub.run_acks,
        hub.trail.run,
        hub.probe.run,
        matchmaker.run,
        mender.run,
        lease.run,
        lease.lag.run,
        lives.run_renewals,
        sweeps.run,
        SecondLooks(hub).run,
        shutdown.run_progress,
    ]
    for task in tasks:
        keepers.start_soon(task)  # type: ignore[arg-type]
    return lease, shutdown, wakes


class _Health:
    """What the probes are shown; readable from before there is a node until the end."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._node: Node | None = None
        self.answers: Counter[int] = Counter()
        """HTTP answers by status code, counted by whoever serves them."""

    def begin(self, node: Node) -> None:
        """The node listens and is ready."""
        self._node = node

    def operations(self) -> NodeOperations | None:
        """What operators may do; None while there is no node."""
        return self._node.operations if self._node is not None else None

    def observed(self) -> Observed | None:
        """What metrics are read from; None while there is no node."""
        node = self._node
        if node is None:
            return None
        return Observed(node.hub, node.server, node.lease, node.shutdown, self.answers)

    def admin_token(self) -> str:
        """What opens the admin API over TCP now."""
        config = self._node.hub.config if self._node is not None else self._config
        return config.admin.token

    def read(self) -> HealthStatus:
        """The status now."""
        name, release = self._config.node.id, self._config.node.release
        node = self._node
        if node is None:
            return HealthStatus(node=name, release=release, listening=False, store=False)
        status = node.shutdown.status
        draining = status.refuses_clients
        return HealthStatus(
            node=name,
            release=release,
            listening=True,
            store=node.committer.down_since is None,
            draining=draining and not status.by_signal,
            shutting_down=draining and status.by_signal,
        )


def net_settings(config: Config) -> NetSettings:
    """What the listener must know of the configuration."""
    limits, timeouts, admission = config.limits, config.timeouts, config.admission
    return NetSettings(
        allowed_origins=tuple(config.listen.allowed_origins),
        trusted_proxies=tuple(config.listen.trusted_proxies),
        handshake_s=timeouts.handshake_s,
        message_bytes_max=limits.message_bytes_max,
        # A worker that resumes names each of its sessions in one message; the limit of the others is the link's to keep.
        path_bytes_max={
            "/v1/worker": limits.message_bytes_max + SESSION_POSITION_BYTES * limits.sessions_per_worker_max
        },
        fragments_max=limits.fragments_max,
        send_queue_bytes_max=limits.send_queue_bytes_max,
        send_queue_messages_max=limits.send_queue_messages_max,
        send_queues_bytes_max=limits.send_queues_bytes_max,
        ping_interval_s=timeouts.ping_interval_s,
        pong_timeout_s=timeouts.pong_timeout_s,
        write_s=timeouts.write_s,
        close_s=timeouts.close_s,
        connections_max=admission.connections_max,
        handshakes_in_progress_max=admission.handshakes_in_progress_max,
        strangers_bytes_max=admission.strangers_bytes_max,
        address_share=admission.address_share,
        setups_in_progress_max=admission.setups_in_progress_max,
        resume_reserved_share=admission.resume_reserved_share,
        connects_per_s=admission.connects_per_s,
        connects_burst=admission.connects_burst,
        retry_after_ms=admission.retry_after_ms,
    )
