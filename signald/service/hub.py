"""The door of a node: connections come in here, are opened, and are served until they end.

The hub makes the parts of a node from its context (`Parts`), and hands them on. What a party says goes from its link to the
parts; what the store says comes to them through the committer and the wakes. The hub decides only who may come in now.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial

import attrs
import structlog
import trio

from signald.config import Config
from signald.core.exits import Cause
from signald.core.head import Party
from signald.net.admission import SetupGate
from signald.net.connection import Connection
from signald.net.ending import ConnectionClosed
from signald.net.frames import Message as Frame
from signald.places import Place
from signald.service.api_tokens import ApiTokens
from signald.service.assigning import Assignments
from signald.service.attachments import Attachments
from signald.service.auth import Authenticator
from signald.service.batches import Batches
from signald.service.blobs import BlobDesk
from signald.service.cluster.probe import Probe
from signald.service.cluster.revocations import RevocationKeeper
from signald.service.context import Context
from signald.service.credentials import Credentials
from signald.service.dialect import Dialects
from signald.service.endings import Endings
from signald.service.giving_up import GivingUp
from signald.service.holdings import Holdings
from signald.service.hooks.authorising import Authoriser
from signald.service.hooks.reasking import Reasking
from signald.service.jobs import JobDesk
from signald.service.jwks import JwksFetcher
from signald.service.losses import Losses
from signald.service.parts import Parts
from signald.service.recording import Recorder
from signald.service.resealing import Resealing
from signald.service.retries import Retries
from signald.service.rooms.desk import RoomDesk
from signald.service.rooms.rights import token_rooms
from signald.service.telemetry import tell_life
from signald.service.terminating import Terminations
from signald.service.trail import Trail
from signald.wire.close_codes import CloseCode

log = structlog.get_logger(__name__)

HELD_BYTES_MIN = 4096
"""Less of an unfinished message is part of what a connection costs anyway."""


class Hub:
    """See the module."""

    def __init__(self, context: Context, auth: Authenticator, gate: SetupGate, dialects: Dialects) -> None:
        """`context` is the node's, `auth` tells which party it is, `gate` which may come in now; they speak in `dialects`."""
        self.context = context
        self.dialects = dialects
        self.node = context.node
        self.store = context.store
        self.committer = context.committer
        self.gate = gate
        self.entropy = context.entropy
        self.writes = context.writes
        self.pauses = context.pauses
        self.cluster = context.cluster
        self.counters = context.counters
        self.counts = context.counts
        self.spawn = context.spawn
        self.inboxes = context.inboxes
        self.incarnation = context.incarnation
        self.connections: dict[int, Connection] = {}
        """Every connection that is not over: also those being opened, and those only waiting for the peer's close."""
        self.recorder = Recorder(context)
        self.trail = Trail(context)
        if context.spans is not None:
            tell_life(context.spans, context.events)
        self.losses = Losses(context)
        self.holdings = Holdings(context)
        self.retries = Retries(context)
        self.attachments = Attachments(context, self.holdings, self.losses, self.retries)
        self.relay = self.attachments.relay
        self.sessions = self.attachments.sessions
        self.worker_links = self.attachments.workers
        self.links = self.attachments.links
        self.batches = Batches(context.writes, self.relay)
        self.endings = Endings(context, self.attachments)
        self.jobs = JobDesk(context, self.attachments)
        self.assignments = Assignments(context, self.attachments, self.losses, self.retries, self.jobs)
        self.giving_up = GivingUp(context, self.attachments, self.retries)
        self.terminations = Terminations(context, self.attachments, self.assignments, self.giving_up)
        self.credentials = Credentials(context, self.attachments, lambda: self.parts.auth)
        self.authoriser = Authoriser(context)
        self.probe = Probe(context)
        self.resealing = Resealing(context)
        self.revocations = RevocationKeeper(context, self.credentials, lambda: self.parts.auth.keys is not None)
        self.api_tokens = ApiTokens(context, token_rooms)
        self.blobs = BlobDesk(context)
        self.rooms = RoomDesk(context, self.losses.is_store_in_doubt)
        self.parts = self._parts(gate, auth)
        self.jwks = JwksFetcher(context, lambda: self.parts.auth.remote)
        self.reasking = self.parts.reasking

    def _parts(self, gate: SetupGate, auth: Authenticator) -> Parts:
        return Parts(
            self.context,
            gate,
            auth,
            self.api_tokens,
            self.attachments,
            self.relay,
            self.batches,
            self.holdings,
            self.losses,
            self.retries,
            self.endings,
            self.jobs,
            self.assignments,
            self.giving_up,
            self.credentials,
            self.blobs,
            self.authoriser,
            Reasking(self.context, self.attachments, self.endings, self.authoriser),
            self.rooms,
            self.terminations,
        )

    def renew(self, config: Config, auth: Authenticator) -> None:
        """Go on by another configuration, and let in by `auth`. Parties that are here stay as they are."""
        self.parts.auth = auth.following(self.parts.auth)
        self.attachments.renew(config)
        self.context.renew(config)
        self.rooms.review()

    @property
    def refusing(self) -> dict[Party, CloseCode]:
        """While draining: party → what its new connections are closed with."""
        return self.context.refusing

    @refusing.setter
    def refusing(self, refusing: dict[Party, CloseCode]) -> None:
        self.context.refusing = refusing

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self.context.config

    @property
    def config_changed(self) -> trio.Event:
        """Set by the next reload."""
        return self.context.config_changed

    @property
    def auth(self) -> Authenticator:
        """Tells which party it is."""
        return self.parts.auth

    @auth.setter
    def auth(self, auth: Authenticator) -> None:
        self.parts.auth = auth

    @property
    def stopping(self) -> bool:
        """True once the nursery of the connections is being cancelled."""
        return self.context.stopping

    @property
    def ttl_ms(self) -> int:
        """How long a session outlives its client's connection."""
        return self.context.ttl_ms

    @property
    def life_ms(self) -> int:
        """How long a session lives in the index of the living unless it is renewed."""
        return self.context.life_ms

    async def serve(self, conn: Connection) -> None:
        """Serve one connection from its opening message to its end."""
        self.connections[conn.id] = conn
        try:
            if (code := self.refusing.get(self.dialects.party_at(conn.route))) is not None:
                await self._refuse(conn, code)
            else:
                await self._serve(conn)
        finally:
            del self.connections[conn.id]

    async def _serve(self, conn: Connection) -> None:
        with self._stranger(conn):
            opened = await self.dialects.at(conn.route).open(self.parts, conn)
        if opened is None:
            self.counts.openings_refused[self.dialects.at(conn.route).name] += 1
            return
        link, rest = opened
        client = self.gate.client(link.principal) if link.party == "client" else nullcontext()
        try:
            with self._party(conn), client:
                if rest:
                    link.frames(rest)
                await conn.pump(link.frames)
        except ConnectionClosed as closed:
            log.debug(
                "connection_closed",
                link=repr(link),
                dialect=link.dialect,
                code=closed.info.code,
                by=closed.info.initiator,
            )
        finally:
            self.attachments.release(link, Cause.CLIENT_GONE if link.party == "client" else Cause.WORKER_GONE)

    def _shed(self, conn: Connection) -> None:
        """Let the peer of `conn` give way to others."""
        conn.shed(CloseCode.REFUSED, self._retry_reason(conn))

    @contextmanager
    def _stranger(self, conn: Connection) -> Iterator[None]:
        """Within the block the peer is not known: it holds a place that it may have to give up to another.

        Raises ConnectionClosed when there is no place.
        """
        gate = self.gate
        give_up = partial(self._shed, conn)
        # Each party behind a proxy that names no address holds a place of its own.
        holder = f"{conn.remote} {conn.id}" if conn.shared else conn.remote
        place = gate.greet(holder, trio.current_time(), give_up)
        if place is None:
            give_up()
        else:
            conn.on_heard = partial(_heard_stranger, gate, place)
        try:
            yield
        finally:
            conn.on_heard = None
            if place is not None:
                gate.strangers.leave(place)

    @contextmanager
    def _party(self, conn: Connection) -> Iterator[None]:
        """Within the block the peer is a party: what it has sent of a message that is not complete counts for its address."""
        gate = self.gate
        holder = f"{conn.remote} {conn.id}" if conn.shared else conn.remote
        give_up = partial(self._shed, conn)
        place = gate.admit(holder, trio.current_time(), give_up)
        conn.on_heard = partial(_heard_party, gate, place)
        try:
            yield
        finally:
            conn.on_heard = None
            gate.parties.leave(place)

    def close(self, conn: Connection, code: CloseCode, reason: str) -> None:
        """Close a connection because this node goes; a link closes its own."""
        conn.close(self.dialects.at(conn.route).arrival_code(code), reason)

    async def _refuse(self, conn: Connection, code: CloseCode) -> None:
        dialect = self.dialects.at(conn.route)
        self.counts.openings_refused[dialect.name] += 1
        conn.close(dialect.arrival_code(code), self._retry_reason(conn))
        await conn.wait_finished()

    def _retry_reason(self, conn: Connection) -> str:
        return self.dialects.at(conn.route).retry_reason(self.context.retry_after_ms())

    def statistics(self) -> dict[str, int]:
        """What is held here now."""
        return {
            "connections": len(self.links),
            "sessions": len(self.sessions),
            "clients": sum(session.client.link is not None for session in self.sessions.values()),
            "workers": len(self.worker_links),
            "accepted": self.relay.accepted,
            "delivered": self.relay.delivered,
            "store_batches": self.committer.batches,
            "store_ops": self.committer.ops,
            **attrs.asdict(self.counters),
        }


def _heard_stranger(gate: SetupGate, place: Place, held: int, messages: list[Frame]) -> None:
    gate.heard(place, held + sum([len(payload) for _, payload in messages]))


def _heard_party(gate: SetupGate, place: Place, held: int, _messages: list[Frame]) -> None:
    # Most reads end with a whole message, and cost nothing here.
    if held >= HELD_BYTES_MIN or place.bytes:
        gate.heard_party(place, held)
