"""The daemon: the one file where the nursery tree stands whole, and the order in which it starts and ends.

    signals         open_signal_receiver, from before the start until the exit status is known
    └ store         its threads                                            lives longest
      └ http        health answers until the end; readiness flips first
        └ storing     the committer
          └ keepers   lease, sweeps, matchmaker, mender, acks, wake-ups
            └ connections   one task for each connection, HTTP too         bounded by the drain's deadline
              └ watching    the supervisor, and the store's URL after a refusal
                └ accepting   listeners                                    cancelled first
                  └ body        signals → ShutdownScope

One task for each connection, and none for a session: a session may span connections and nodes, and waits for nothing.

The tree ends from the inside out. The drain has sent every goodbye before the first nursery is cancelled, and every
cancel has a reason. HTTP requests under way are waited for when nothing is accepted any more: they are served through the
whole drain, and have its deadline.
"""

import gc
import os
import signal
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial

import attrs
import structlog
import trio

from signald import early
from signald.blobs.media import Media
from signald.blobs.open import open_media
from signald.blobs.sealed import SealedMedia
from signald.config import Config, ConfigError, cgroup_limit, memory_problem
from signald.config.changes import Source
from signald.config.paths import socket_directory
from signald.errors import StoreError, StoreMisused
from signald.exit_codes import ExitCode
from signald.health import Health
from signald.http.admin import admin_routes
from signald.http.admin_socket import AdminSocket
from signald.http.api.app import api_settings
from signald.http.health import http_app
from signald.http.metrics import CountAnswers, metrics_routes
from signald.http.public import public_settings
from signald.http.server import serve_http
from signald.ids import Entropy, SystemEntropy
from signald.logs import reconfigure_logging, writing_logs
from signald.net.listener import Server
from signald.net.settings import net_settings
from signald.node import HANDSHAKE_POLL_S, Node, node_on
from signald.service.cluster.identity import Claimant, HostFile, NodeIdTaken, StartCalledOff
from signald.service.meters import Observed, node_registry
from signald.service.reloading import Prepared, Reloader, prepare
from signald.service.supervision import EXTEND_S, Supervision
from signald.service.telemetry import exporting
from signald.sockets import check_inherited, closing, http_listeners, open_admin_socket, port_of, websocket_listeners
from signald.store.base import Store
from signald.store.open import open_store, renew_keys, renew_store, seals_of
from signald.systemd import Inherited, Notifier, SocketRefused, inherited_sockets, open_notifier

log = structlog.get_logger(__name__)

GC_THRESHOLDS = (10_000, 20, 50)
"""Cycles are rare here (a failed connection leaves one) and a full collection is a pause for every party: the youngest
objects are collected after ten thousand allocations, all of them after ten million."""

Announce = Callable[[int, int], None]
"""Called with the port of the WebSocket listener and that of the HTTP listener."""

NO_SOCKETS = Inherited()

FIRST_KEYS_QUIET_S = 2.0
"""A first fetch that takes longer is worth a line."""


def run(config: Config, source: Source | None = None, announce: Announce | None = None) -> int:
    """Serve until a signal ends the node; returns the exit status. SIGTERM is ignored from then on, so that the status stands.

    SIGHUP reads `source` again; without a source it stops the node, as the end of a terminal does. `announce` is called with
    the ports of both listeners once the node serves.
    """
    with writing_logs(config.log):
        return _run(config, source, announce)


def _run(config: Config, source: Source | None, announce: Announce | None) -> int:
    kept = early.keep()  # the same list as at the start of the program
    status: int = ExitCode.SOFTWARE
    notifier = open_notifier(os.environ)
    try:
        inherited = inherited_sockets(os.environ)
        status = trio.run(partial(_main, config, source, kept, inherited, notifier, announce))
    except* (StoreMisused, SocketRefused, ConfigError) as group:
        status = _failed(ExitCode.CONFIGURATION, group)
    except* StoreError as group:
        status = _failed(ExitCode.UNAVAILABLE, group)
    except* NodeIdTaken as group:
        status = _failed(ExitCode.NOT_NOW, group)  # the id is free when the other process has ended
    except* StartCalledOff:
        log.info("stopped", node=config.node.id)
        status = ExitCode.OK
    except* OSError as group:
        status = _failed(ExitCode.ADDRESS, group)
    except* Exception:
        log.exception("failed")  # an error of signald: the supervisor starts it again
        status = ExitCode.SOFTWARE
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
        return ExitCode.CONFIGURATION
    if taken.node is not None and taken.node.lease.taken:
        return ExitCode.NOT_NOW
    log.info("stopped", node=config.node.id)
    return ExitCode.OK


def _claimant(config: Config, notifier: Notifier | None, stop: trio.Event) -> Claimant:
    """Return how this process claims its node id. A store in memory has no other processes."""
    host = None
    if not config.store.url.startswith("memory:"):
        host = HostFile(socket_directory(os.environ), config.node.id)
    return Claimant(host, (lambda line: notifier.extend(EXTEND_S, line)) if notifier else (lambda _: None), stop)


class _Signals:
    """Decides what each signal does. A reload is slow (it reads files), and no signal waits for one.

    A stop before there is a node ends the start: no party is served yet, so there is nothing to drain.
    """

    def __init__(self, start: trio.CancelScope, *, reloads: bool) -> None:
        """A stop before there is a node cancels `start`. Without `reloads`, SIGHUP is a stop."""
        self.node: Node | None = None
        self.over = False
        """The drain is done: a further signal only cuts the HTTP requests that are still under way."""
        self._start = start
        self._reloads = reloads
        self._hung_up = trio.Event()
        self.stop = trio.Event()

    def take(self, number: int) -> None:
        """Act on a signal."""
        if self.over:
            if self.node is not None:
                self.node.public.hurry()  # nothing else is waited for any more
            return
        log.info("signal", name=signal.Signals(number).name)
        if number == signal.SIGHUP and self._reloads:
            self._hung_up.set()
        elif self.node is not None:
            self.node.shutdown.signal()
        else:
            # The start may wait for its store, or for another process to give up the node id.
            self.stop.set()
            self._start.cancel(reason="told to stop before the node served")

    async def run_reloads(self, node: "Node") -> None:
        """Reload for every SIGHUP, until cancelled; those that arrive during a reload count as one."""
        while True:
            await self._hung_up.wait()
            self._hung_up = trio.Event()
            reloader = node.operations.reloader
            assert reloader is not None
            with suppress(ConfigError):  # the reloader has logged it, and a signal has no answer
                await reloader.reload()


async def _receive_signals(signals: AsyncIterator[int], taken: _Signals) -> None:
    async for number in signals:
        taken.take(number)


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
    """Run a node that listens, until the body ends. The body ends after the drain: what follows is cancellation only.

    `source` can be read again while the node runs. `inherited` sockets replace those of the configured addresses;
    `notifier` hears the state of the node; `claimant` claims the node id.

    Raises, before the body begins:
        ConfigError: the certificate cannot be used, or an inherited socket needs an auth key.
        StoreMisused, StoreUnavailable: the store cannot serve.
        NodeIdTaken, StartCalledOff: another process holds the node id.
        OSError: an address cannot be bound.
    """
    prepared = prepare(config)
    _warn_of_memory(config)
    check_inherited(inherited, config)
    listeners = await websocket_listeners(config, inherited)
    websocket_port = port_of(listeners[0])
    health = Health(config)
    async with (
        closing(listeners),  # also when the start fails below
        exporting(config) as spans,
        open_store(config.store.url, config.node.id, config.store) as store,
        open_media(config) as plain_media,
        trio.open_nursery() as http_nursery,
        _serving_http(config, health, inherited, http_nursery) as http_port,
        node_on(store, prepared.config, entropy, spans, claimant, media=_sealed(plain_media, store)) as node,
        _closing_at_last(node, listeners, outlive=bool(inherited.websocket)),
        trio.open_nursery() as watching,
        trio.open_nursery() as accepting,
    ):
        apply_config(node, prepared)
        _begin_accepting(node, listeners, accepting, outlive=bool(inherited.websocket))
        _freeze_imports()
        trio.lowlevel.add_instrument(node.hub.pauses)
        await _wait_for_keys(node, notifier)
        await node.lease.set_state("ready")
        health.begin(observed(node, health.answers), node.operations)
        _say_ready(config, websocket=websocket_port, http=http_port)
        supervision = _supervision(notifier, node)
        if source is not None:
            reloader = _reloader(source, node, inherited, supervision)
            watching.start_soon(reloader.run_store_url)
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


def _sealed(media: Media | None, store: Store) -> Media | None:
    """Return media whose objects are sealed by the keys of the store; as they are where the store has none, or there are no media."""
    seals = seals_of(store)
    return media if media is None or seals is None else SealedMedia(media, seals)


def _say_ready(config: Config, **ports: int) -> None:
    log.info("ready", node=config.node.id, release=config.node.release, **ports)


async def _wait_for_keys(node: Node, notifier: Notifier | None) -> None:
    """Wait for the first key set of `auth.jwks_url`, with the listeners open: parties that come are put off, not sent away.

    A node without keys can let no party in. While it is not ready, a rollout waits and the nodes before it serve on; a signal ends
    the wait. Without a URL there is nothing to wait for.
    """
    with trio.move_on_after(FIRST_KEYS_QUIET_S):
        await node.hub.jwks.wait_first()
        return
    log.warning("keys_waited_for")
    while True:
        if notifier is not None:
            notifier.extend(EXTEND_S, "waits for the keys of auth.jwks_url")
        with trio.move_on_after(EXTEND_S / 3):
            await node.hub.jwks.wait_first()
            return


@asynccontextmanager
async def _closing_at_last(node: Node, listeners: Sequence[socket.socket], *, outlive: bool) -> AsyncIterator[None]:
    """Close `listeners` when the body ends, before the last requests are waited for: a client gets ECONNREFUSED, not a hang.

    What the kernel has accepted by then is served. With `outlive` it waits for the next process instead.
    """
    try:
        yield
    finally:
        if outlive:
            for listening in listeners:
                listening.close()
        else:
            await node.server.close_at_last(listeners)


def _freeze_imports() -> None:
    """Exempt from collection all that the imports made: it lives as long as the process, and is nine tenths of the heap."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def _supervision(notifier: Notifier | None, node: Node) -> Supervision | None:
    if notifier is None:
        return None
    return Supervision(notifier, node.hub.context, node.hub.attachments, node.shutdown)


def _reloader(source: Source, node: Node, inherited: Inherited, supervision: Supervision | None) -> Reloader:
    """Make the node reloadable: by SIGHUP, by an operator, and when the store refuses the login."""
    check, apply = partial(check_inherited, inherited), partial(_apply_reloaded, node)
    reloader = Reloader(source, node.hub.context, check, apply, supervision)
    node.operations.reloader = reloader
    return reloader


def _warn_of_memory(config: Config) -> None:
    """Warn at the start when the budgets exceed the memory limit of the container, at which the kernel kills the process."""
    granted = cgroup_limit()
    if granted is not None and (found := memory_problem(config, granted[1], granted[0], "")) is not None:
        log.warning("memory_limit_low", limit=granted[0], error=found.message)


def apply_config(node: Node, prepared: Prepared) -> None:
    """Give the settings to every part of `node` that holds some: the one place that lists these parts. Cannot fail."""
    settings = net_settings(prepared.config, node.hub.dialects.endpoints(prepared.config))
    node.public.settings = public_settings(prepared.config, settings.endpoints)
    node.api.renew(api_settings(prepared.config))
    node.hub.renew(prepared.config, prepared.auth)
    node.hub.gate.renew(settings)
    node.admission.settings = settings
    node.server.renew(settings, prepared.tls)
    renew_store(node.hub.store, prepared.config.store.url)
    renew_keys(node.hub.store, prepared.seal_keys)


def _apply_reloaded(node: Node, prepared: Prepared) -> None:
    apply_config(node, prepared)
    reconfigure_logging(prepared.config.log)


def _begin_accepting(node: Node, listeners: Sequence[socket.socket], accepting: trio.Nursery, *, outlive: bool) -> None:
    """Accept on each of `listeners`. With `outlive` the supervisor keeps the sockets beyond this process."""
    scopes = [trio.CancelScope() for _ in listeners]
    if outlive:
        node.shutdown.socket_outlives = True
        node.shutdown.stop_accepting = partial(_stop_accepting, scopes, node)
    for listening, scope in zip(listeners, scopes, strict=True):
        accepting.start_soon(_accept, node.server, listening, scope)


async def _accept(server: Server, listening: socket.socket, scope: trio.CancelScope) -> None:
    with scope:
        await server.accept_from(listening)


async def _stop_accepting(scopes: Sequence[trio.CancelScope], node: Node) -> None:
    """Leave new connections to the next process: the supervisor keeps the socket, and they wait in its backlog.

    Handshakes under way are still answered. Each listener has a scope of its own: the nursery's would cancel the body too,
    and with it the drain, which waits for the closing handshakes.
    """
    for scope in scopes:
        scope.cancel(reason="the listening sockets outlive this process")
    while node.admission.handshakes:  # noqa: ASYNC110 - the last moments of a drain; its phase ends it
        await trio.sleep(HANDSHAKE_POLL_S)
    for conn in list(node.hub.connections.values()):
        await conn.wait_closed()


@asynccontextmanager
async def _serving_http(
    config: Config, health: Health, inherited: Inherited, nursery: trio.Nursery
) -> AsyncIterator[int]:
    """Answer over HTTP until the body has ended; yields the TCP port."""
    over = trio.Event()
    tcp = await http_listeners(config, inherited)
    port = port_of(tcp[0].socket)
    metrics, answers = metrics_routes(node_registry(health.observed)), health.answers
    app = http_app(health.read, routes=[*metrics, *admin_routes(health.operations, token=health.admin_token)])
    await nursery.start(partial(serve_http, CountAnswers(app, answers), tcp, shutdown=over))
    app = http_app(health.read, routes=[*metrics, *admin_routes(health.operations, token=None)])
    unix = AdminSocket(partial(open_admin_socket, config), partial(serve_http, CountAnswers(app, answers)), over)
    await nursery.start(unix.run)
    try:
        yield port
    finally:
        over.set()


def observed(node: Node, answers: Counter[int]) -> Observed:
    """Return what the metrics of `node` are read from; `answers` counts those of the internal listener."""
    return Observed(
        node.hub, node.server, node.lease, node.shutdown, answers, node.public, node.api.counts, node.teller
    )
