"""A node: the parts that serve parties on an open store, in the inner nurseries of the daemon (see daemon.py). Simulations run it alone."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import attrs
import structlog
import trio
from starlette.routing import BaseRoute

from signald.blobs.media import Media
from signald.config import Config
from signald.dialects.canvas.dialect import Canvas
from signald.dialects.deepstream.dialect import Deepstream
from signald.dialects.deepstream.health import health_routes
from signald.dialects.v1.dialect import SignaldV1
from signald.dialects.v1.paths import PATHS
from signald.errors import StoreUnavailable
from signald.http.api import blobs, history, rooms, sessions
from signald.http.api.app import Api, api_settings
from signald.http.api.auth import Authentication
from signald.http.api.cors import Cors
from signald.http.api.documents import document_routes, published
from signald.http.api.jobs import routes as job_routes
from signald.http.client import HttpClient, Poster
from signald.http.public import PublicHttp, public_settings
from signald.ids import Entropy
from signald.net.admission import Admission, SetupGate
from signald.net.endpoints import Endpoints
from signald.net.listener import Server
from signald.net.settings import net_settings
from signald.service.api.blobs import HttpBlobs
from signald.service.api.callers import HttpCallers
from signald.service.api.history import HttpHistories
from signald.service.api.jobs import HttpJobs
from signald.service.api.rooms import HttpRooms
from signald.service.api.sessions import HttpSessions
from signald.service.auth import Authenticator
from signald.service.cluster.identity import Claimant
from signald.service.cluster.lease import Lease
from signald.service.cluster.lives import Lives
from signald.service.cluster.looks import SecondLooks
from signald.service.cluster.lost_workers import LostWorkers
from signald.service.cluster.mender import Mender
from signald.service.cluster.sweeps import Sweeps
from signald.service.cluster.wakes import Wakes
from signald.service.context import Context
from signald.service.dialect import Dialect, Dialects
from signald.service.drain.shutdown import ShutdownScope
from signald.service.hub import Hub
from signald.service.matchmaker import Matchmaker
from signald.service.operations import NodeOperations
from signald.service.telemetry import Spans
from signald.service.telling.teller import Teller
from signald.store.base import Store
from signald.store.committer import Committer

log = structlog.get_logger(__name__)

DIALECTS: Sequence[Dialect] = (SignaldV1(),)
"""The wires that each node speaks."""

PROFILES: Mapping[str, Callable[[], Dialect]] = {"canvas": Canvas, "deepstream": Deepstream}
"""Key of `[profiles]` → the wire that is spoken where it is on."""

HANDSHAKE_POLL_S = 0.01

LAST_HEADS_S = 0.5
"""How long the first request of an accepted connection is waited for at the end: a client that has one sends it with its first round
trip. A silent peer, such as a probe, holds up the end of a node no longer."""

EVENT_CONNECTIONS_MAX = 1024
"""Connections to the core server for events: the most that `core.events_in_flight_max` may be, which is what bounds them."""

LAST_POSTS_S = 0.25
"""How long an attempt under way at the core server is waited for: most are answered within that. Part of `drain.margin_s`."""

STORE_GOODBYE_S = 1.0
"""How long giving the lease back may take; without an answer the lease expires by itself."""


@attrs.frozen
class Node:
    """The parts of a node. The listeners, or a simulation, bring its connections."""

    hub: Hub
    server: Server
    lease: Lease
    wakes: Wakes
    shutdown: ShutdownScope
    admission: Admission
    committer: Committer
    operations: NodeOperations
    public: PublicHttp
    """The HTTP connections of the listener of the parties."""
    api: Api
    """What answers them."""
    teller: Teller
    """Tells the core server what happens."""


def dialects_of(config: Config) -> Sequence[Dialect]:
    """Return the wires that a node speaks by its configuration."""
    return [*DIALECTS, *[make() for name, make in PROFILES.items() if getattr(config.profiles, name)]]


def api_routes(hub: Hub) -> Sequence[BaseRoute]:
    """Return the routes of the HTTP API, which the parts of `hub` serve, and those of the documents about them."""
    media = HttpBlobs(hub.parts)
    nouns: list[BaseRoute] = [
        *job_routes(HttpJobs(hub.parts), media),
        *sessions.routes(HttpSessions(hub.parts)),
        *history.routes(HttpHistories(hub.parts)),
        *blobs.routes(media),
        *rooms.routes(HttpRooms(hub.parts)),
    ]
    if hub.config.profiles.deepstream:
        nouns += health_routes(hub)
    return [*nouns, *document_routes(nouns, lambda: published(hub.config), PATHS)]


@asynccontextmanager
async def node_on(
    store: Store,
    config: Config,
    entropy: Entropy,
    spans: Spans | None = None,
    claimant: Claimant | None = None,
    *,
    media: Media | None = None,
    dialects: Sequence[Dialect] | None = None,
    routes: Callable[[Hub], Sequence[BaseRoute]] = api_routes,
    core: Poster | None = None,
) -> AsyncIterator[Node]:
    """Run the parts of a node on an open `store`, until the body ends. Simulations bring their own connections.

    `media` keep the bytes of blobs, and `routes` are those of the HTTP API. Requests under way are waited for at the end. `core` stands
    for the core server, which is asked and told; None: that of the configuration. So with `dialects`.
    """
    async with (
        HttpClient(allow_inner=True, connections_max=EVENT_CONNECTIONS_MAX) as client,
        trio.open_nursery() as storing,
    ):
        committer = Committer(store, batch_ops_max=config.store.batch_ops_max)
        storing.start_soon(committer.run)
        async with trio.open_nursery() as keepers, trio.open_nursery() as connections:
            spoken = Dialects(dialects_of(config) if dialects is None else dialects)
            settings = net_settings(config, spoken.endpoints(config))
            auth, gate = Authenticator.from_config(config.auth), SetupGate(settings, entropy=entropy)
            context = Context(config, store, committer, entropy, connections.start_soon, spans, media)
            hub = Hub(context, attrs.evolve(auth, revocations=context.revocations), gate, spoken)
            committer.after_batch = hub.batches.done
            committer.refused = hub.inboxes.store_refused
            hub.authoriser.poster = core
            teller = Teller(context, core or client)
            lease, shutdown, wakes = await _keep(hub, keepers, claimant, teller)
            admission = Admission(settings, entropy=entropy, budget=gate.budget)
            api, public = _http(hub, routes(hub), config, settings.endpoints)
            shutdown.on_stop = public.stop
            server = Server(
                hub.serve,
                settings=settings,
                admission=admission,
                nursery=connections,
                pauses=hub.pauses,
                http=public.serve,
            )
            try:
                operations = NodeOperations(
                    hub.parts, hub.trail, lease, shutdown, hub.statistics, hub.revocations, teller, hub.resealing
                )
                yield Node(hub, server, lease, wakes, shutdown, admission, committer, operations, public, api, teller)
                teller.stop()
                await _finish_http(admission, public, shutdown)
                await _finish_telling(teller)
            finally:
                context.stopping = True
                connections.cancel_scope.cancel(reason="the node stops: every connection has had its goodbye")
                keepers.cancel_scope.cancel(reason="the node stops")
        teller.scheduling.schedule()  # what the last connections have left, and the drain
        await _leave_store(committer, lease, claimant)
        storing.cancel_scope.cancel(reason="no part of the node uses the store any more")


def _http(hub: Hub, routes: Sequence[BaseRoute], config: Config, endpoints: Endpoints) -> tuple[Api, PublicHttp]:
    """Make the HTTP side of the public port: the API, and what serves it."""
    stopping = trio.Event()
    callers = Authentication(HttpCallers(hub.parts), lambda: hub.config)
    api = Api(
        routes,
        draining=stopping,
        settings=api_settings(config),
        key_of=callers.key_of,
        more_state={"authentication": callers},
        owed_s=hub.pauses.owed_s,
    )
    return api, PublicHttp(Cors(api, lambda: hub.config), public_settings(config, endpoints), stopping=stopping)


async def _leave_store(committer: Committer, lease: Lease, claimant: Claimant | None) -> None:
    """Wait for what was asked of the store, and give the lease back, in the time that there is."""
    with trio.move_on_after(STORE_GOODBYE_S):
        try:
            await committer.wait_idle()
            await lease.end()
            if claimant is not None:
                claimant.returned()
        except StoreUnavailable:
            log.warning("lease_not_returned")


async def _keep(
    hub: Hub, keepers: trio.Nursery, claimant: Claimant | None, teller: Teller
) -> tuple[Lease, ShutdownScope, Wakes]:
    """Start the tasks that keep a node in the cluster. Raises StoreUnavailable, StoreMisused, NodeIdTaken, StartCalledOff."""
    context, attachments, assignments, giving_up = hub.context, hub.attachments, hub.assignments, hub.giving_up
    lease = Lease(context, hub.losses, lambda: len(attachments.links), lambda: shutdown.usurp(), claimant)
    shutdown = ShutdownScope(hub.parts, hub.trail, hub, lease)
    matchmaker = Matchmaker(context, attachments)
    mender = Mender(context, attachments, assignments, giving_up, hub.losses, lease.sight)
    lives = Lives(context, attachments)
    sweeps = Sweeps(context, assignments, lease, lives, LostWorkers(context, attachments, giving_up, lease.sight))
    wakes = Wakes(context, attachments, lives, hub.probe, hub.rooms, hub.terminations)
    await mender.begin()
    await hub.revocations.begin()
    await lease.begin()
    await hub.api_tokens.begin()
    tasks: list[Callable[[], object]] = [
        wakes.run,
        hub.batches.run_acks,
        hub.trail.run,
        hub.probe.run,
        hub.jwks.run,
        hub.credentials.run,
        hub.authoriser.run,
        hub.reasking.run,
        hub.revocations.run,
        hub.resealing.run,
        hub.jobs.run,
        matchmaker.run,
        mender.run,
        lease.run,
        lease.lag.run,
        lives.run_renewals,
        sweeps.run,
        SecondLooks(context, attachments).run,
        shutdown.run_progress,
        hub.api_tokens.run_keys,
        hub.api_tokens.run_renewals,
        hub.blobs.shelves.run,
        hub.rooms.hall.run,
        hub.rooms.sweeps.run,
        teller.scheduling.run,
        teller.run,
        teller.run_sums,
    ]
    for task in tasks:
        keepers.start_soon(task)  # type: ignore[arg-type]
    return lease, shutdown, wakes


async def _finish_telling(teller: Teller) -> None:
    """Wait a moment for the answers to what the core server is being told: else another node tells it once more."""
    with trio.move_on_after(LAST_POSTS_S):
        await teller.finish()


async def _finish_http(admission: Admission, public: PublicHttp, shutdown: ShutdownScope) -> None:
    """Wait for the requests that have arrived: those whose first bytes are under way, and those that are being answered."""
    public.stop()
    with trio.move_on_after(LAST_HEADS_S):
        while admission.handshakes:  # noqa: ASYNC110 - once in the life of a node
            await trio.sleep(HANDSHAKE_POLL_S)
    await public.finish(shutdown.answers_until)
