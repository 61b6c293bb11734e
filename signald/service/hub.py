"""Everything a node holds: the sessions with a party attached here, the worker links, and what the store reports of them.

The hub connects the parts and decides little itself. A connection comes in through `serve`, and
what the relay finds comes back as `RelayEvents`. A session is over by `endings`. What a drain must know goes to `watcher`.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, Literal, Protocol

import attrs
import structlog
import trio

from signald.config import Config
from signald.core.head import Head, Party
from signald.core.session import News, Session
from signald.errors import StoreUnavailable
from signald.ids import SessionId, WorkerId
from signald.net.admission import SetupGate
from signald.net.connection import Connection, ConnectionClosed
from signald.net.frames import Message as Frame
from signald.places import Place
from signald.service.auth import Authenticator
from signald.service.client_link import ClientLink
from signald.service.cluster.probe import Probe
from signald.service.context import Context
from signald.service.departed import Departed
from signald.service.endings import Endings
from signald.service.holdings import Holdings
from signald.service.line import leave_if_away
from signald.service.link import Link, Outbox, retry_reason
from signald.service.losses import Losses
from signald.service.opening import open_link
from signald.service.paths import PARTY_AT
from signald.service.relay import LiveSession, Relay, RelaySettings
from signald.service.retries import Retries
from signald.service.trail import Trail
from signald.service.worker_link import WorkerLink
from signald.service.workers import Workers
from signald.store.registry.ops import ConfirmWorkerToken, DetachWorker, KeepAlive, UpdateWorker
from signald.store.session.ops import ConfirmToken, Detach
from signald.wire.close_codes import CloseCode
from signald.wire.messages import AppState, PeerChanged

log = structlog.get_logger(__name__)

HELD_BYTES_MIN = 4096
"""Less of an unfinished message is part of what a connection costs anyway."""

ACK_DELAY_S = 0.02
"""How long an ack waits for something to ride with: about a round trip between people who are near, so that the answer to
a message mostly takes its ack along. Nobody waits for an ack; it only frees what its receiver keeps."""


class Watcher(Protocol):
    """Who must know when parties come and go: the drain."""

    def worker_came(self, worker: WorkerId) -> None:
        """`worker` is attached here."""

    def client_came(self, session: LiveSession) -> None:
        """The client of `session` is attached here."""

    def worker_left(self, worker: WorkerId) -> None:
        """The link of `worker` here is over: it resumed elsewhere, or is gone."""

    def client_left(self, session: SessionId) -> None:
        """The link of the client of `session` here is over."""

    def session_changed(self, session: LiveSession) -> None:
        """The session's worker has moved, come or gone."""


class Hub:
    """See the module."""

    def __init__(self, context: Context, auth: Authenticator, gate: SetupGate) -> None:
        """`context` is the node's, `auth` tells who a party is, and `gate` who may come in now."""
        self.context = context
        self.node = context.node
        self.store = context.store
        self.committer = context.committer
        self.auth = auth
        self.gate = gate
        self.entropy = context.entropy
        self.outbox = Outbox()
        self.pauses = context.pauses
        self.cluster = context.cluster
        self.sessions: dict[str, LiveSession] = {}
        self.worker_links: dict[str, WorkerLink] = {}
        self.refusing: dict[Party, CloseCode] = {}
        """While draining: party → what its new connections are closed with."""
        self.watcher: Watcher | None = None
        self.counters = context.counters
        self.spans = context.spans
        self.counts = context.counts
        self.spawn = context.spawn
        self.links: set[Link] = set()
        """Links with a party attached."""
        self.connections: dict[int, Connection] = {}
        """Every connection that is not over: also those being opened, and those only waiting for the peer's close."""
        self.inboxes = context.inboxes
        self.incarnation = context.incarnation
        self.relay = Relay(
            _relay_settings(context.config), context.committer, self.outbox, self, context.now_ms, context.spans
        )
        self.holdings = Holdings(self)
        self.workers = Workers(self)
        self.retries = Retries(self)
        self.endings = Endings(self)
        self.losses = Losses(self)
        self.trail = Trail(self)
        self.probe = Probe(context)
        self._resuming: Counter[str] = Counter()
        self._departed = Departed()
        self._acks = trio.Event()

    def renew(self, config: Config, auth: Authenticator) -> None:
        """Go on by another configuration, and let in by `auth`. Parties that are here stay as they are."""
        self.auth = auth
        self.relay.settings = _relay_settings(config)
        for session in self.sessions.values():
            session.set_backlog(config.limits.backlog_messages_max, config.limits.backlog_bytes_max)
        self.context.renew(config)

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self.context.config

    @property
    def config_changed(self) -> trio.Event:
        """Set by the next reload."""
        return self.context.config_changed

    @property
    def stopping(self) -> bool:
        """True once the nursery of the connections is being cancelled."""
        return self.context.stopping

    # --- connections ------------------------------------------------------------------------------------------------

    async def serve(self, conn: Connection) -> None:
        """Serve one connection from its opening message to its end."""
        self.connections[conn.id] = conn
        try:
            if (code := self.refusing.get(PARTY_AT[conn.path])) is not None:
                await self._refuse(conn, code)
            else:
                await self._serve(conn)
        finally:
            del self.connections[conn.id]

    async def _serve(self, conn: Connection) -> None:
        with self._stranger(conn):
            opened = await open_link(self, conn)
        if opened is None:
            return
        link, rest = opened
        client = self.gate.client(link.session.principal) if isinstance(link, ClientLink) else nullcontext()
        try:
            with self._party(conn), client:
                if rest:
                    self._take(link, rest)
                while True:
                    self._take(link, await conn.receive())
        except ConnectionClosed as closed:
            log.debug("connection_closed", link=repr(link), code=closed.info.code, by=closed.info.initiator)
        finally:
            self.link_over(link)

    def _shed(self, conn: Connection) -> None:
        """Let the peer of `conn` give way to others."""
        conn.shed(CloseCode.REFUSED, retry_reason(self.retry_after_ms()))

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

    def _take(self, link: Link, frames: list[Any]) -> None:
        if isinstance(link, ClientLink | WorkerLink):
            link.frames(frames)

    async def _refuse(self, conn: Connection, code: CloseCode) -> None:
        conn.close(code, retry_reason(self.retry_after_ms()))
        await conn.wait_finished()

    def retry_after_ms(self) -> int:
        """When a refused party should come again, in milliseconds."""
        return self.context.retry_after_ms()

    def ready(self, link: Link) -> None:
        """A link has been opened."""
        self.links.add(link)
        link.conn.bearer = None
        link.conn.on_room = partial(self._room, link)

    def arrived(self, link: Link) -> None:
        """A link has its session, or its sessions: the opening is through."""
        if self.watcher is None:
            return
        if isinstance(link, ClientLink):
            self.watcher.client_came(link.session)
        elif isinstance(link, WorkerLink):
            self.watcher.worker_came(link.worker)

    def _room(self, link: Link) -> None:
        self.relay.unblock(link)
        if isinstance(link, WorkerLink):
            self.workers.ask_on(link)
        self.outbox.flush()

    def link_over(self, link: Link) -> None:
        """A connection is gone: its party is detached, unless it has resumed elsewhere."""
        if link.over:
            return
        if link.conn.closed is not None and link.conn.closed.initiator != "local":
            self.count_handover(link)  # it left by itself before it came back elsewhere
        link.over = True
        self.links.discard(link)
        if isinstance(link, ClientLink):
            self._client_over(link)
        elif isinstance(link, WorkerLink):
            self._worker_over(link)

    def count_handover(self, link: Link) -> None:
        """A party is gone from here: if it was told to go, take down how long that took."""
        if not link.told_to_go:
            return
        now = trio.current_time()
        self.counts.handovers[link.party].observe(now - link.told_at)
        if self.spans is not None:
            whom = {f"signald.{'session' if link.party == 'client' else 'worker'}": link.owner}
            self.spans.tell("signald.handover", link.told_at, now, None, {"signald.party": link.party, **whom})

    def _client_over(self, link: ClientLink) -> None:
        session = link.session
        if session.client.link is link:
            epoch = session.client.epoch
            self.relay.store_acks()
            self.holdings.detach(session)
            session.detach("client")
            self.trail.note(session.id, "client", "connection over", link.how_over)
            if not link.ending:  # behind its end, this would be all that is left of the session
                now = self.store.now_ms()
                self.context.submit(Detach(session.id, "client", self.node, epoch, now))
                self.context.submit(KeepAlive((session.id,), now + self.ttl_ms))
                if not session.worker_id:
                    self.spawn(leave_if_away, self, [session.id])
        if self.watcher is not None:
            self.watcher.client_left(session.id)
        self.forget_if_idle(session)

    def _worker_over(self, link: WorkerLink) -> None:
        current = self.worker_links.get(link.worker) is link
        if current:
            del self.worker_links[link.worker]
        now = self.store.now_ms()
        self.relay.store_acks()
        for session in list(link.sessions.values()):
            if session.worker.link is link:
                epoch = session.worker.epoch
                session.detach("worker")
                self.trail.note(session.id, "worker", "connection over", link.how_over)
                self.context.submit(Detach(session.id, "worker", self.node, epoch, now))
                # A client here learns it now; one elsewhere is woken by the store.
                self.relay.look(session)
            self.forget_if_idle(session)
        link.sessions.clear()
        if current:
            if _left_in_order(link):
                # What ends by a drain is no failure of a session, should the worker not come back.
                self.context.submit(UpdateWorker(link.worker, link.epoch, link.capacity, True))
            self.context.submit(DetachWorker(link.worker, link.epoch, now))
        if self.watcher is not None:
            self.watcher.worker_left(link.worker)

    @property
    def ttl_ms(self) -> int:
        """How long a session outlives its client's connection."""
        return self.context.ttl_ms

    @property
    def life_ms(self) -> int:
        """How long a session lives in the index of the living unless it is renewed."""
        return self.context.life_ms

    # --- sessions ---------------------------------------------------------------------------------------------------

    def adopt(self, head: Head) -> LiveSession:
        """Return the session of `head` as held here, up to date with it."""
        session = self.sessions.get(head.session)
        if session is None:
            limits = self.config.limits
            session = Session(head, limits.backlog_messages_max, limits.backlog_bytes_max)
            self.sessions[head.session] = session
            if session.recall(*self._departed.recall(session.id)):
                self.behind(session)
        else:
            news = session.observe(head)
            if news.loss:
                # This head may be older than one that was observed while its task waited to run, so it proves no loss.
                # A look, whose answers are taken in the order of the store's, tells whether the store has lost anything.
                self.relay.look(session)
            self.changed(session, news)
            # That may have ended an attachment here, and let go of a session that is about to get a new one.
            self.sessions[head.session] = session
            # With both parties here nobody looks at the store any more: what is heard of only now is to be sent from here.
            self.relay.deliver(session, "client")
            self.relay.deliver(session, "worker")
        return session

    def forget_if_idle(self, session: LiveSession) -> None:
        """Let go of a session with no party here."""
        if not session.local and self.sessions.get(session.id) is session:
            self.let_go(session)

    def let_go(self, session: LiveSession) -> None:
        """Hold `session` no more, and remember how far it had come."""
        del self.sessions[session.id]
        self._departed.note(session)

    def batch_done(self) -> None:
        """End a batch: write what it produced; acks may wait a little for something to ride with."""
        self.outbox.flush()
        if self.outbox.has_acks or self.relay.has_acks:
            self._acks.set()

    async def run_acks(self) -> None:
        """Write and store the acks that found nothing to ride with. Runs until cancelled."""
        while True:
            await self._acks.wait()
            await trio.sleep(ACK_DELAY_S)
            self._acks = trio.Event()
            self.outbox.flush_acks()
            self.relay.store_acks()

    def confirm_client_token(self, session: LiveSession) -> None:
        """The client has shown that it holds its newest token."""
        if len(session.client_tokens) > 1:
            session.client_tokens = session.client_tokens[:1]
            self.context.submit(ConfirmToken(session.id, session.client.epoch))

    def confirm_worker_token(self, link: WorkerLink) -> None:
        """The worker has shown that it holds its newest token."""
        if link.tokens.previous:
            link.tokens = type(link.tokens)(link.tokens.current)
            self.context.submit(ConfirmWorkerToken(link.worker, link.epoch))

    # --- what the relay reports -------------------------------------------------------------------------------------

    def superseded(self, session: LiveSession, party: Party) -> None:
        """A newer claim holds `party`: its link here is done with this session."""
        link = session.side(party).link
        if link is None:
            return
        session.detach(party)
        self.trail.note(
            session.id, party, "moved" if link.told_to_go else "superseded", f"epoch {session.side(party).epoch}"
        )
        if isinstance(link, ClientLink):
            self.holdings.forget(session.id)
            moved = link.told_to_go
            self.count_handover(link)
            link.over = True
            self.links.discard(link)
            link.close(CloseCode.MOVED if moved else CloseCode.SUPERSEDED, "moved" if moved else "superseded")
            if self.watcher is not None:
                self.watcher.client_left(session.id)
        elif isinstance(link, WorkerLink):
            link.drop(session.id)
            self.workers.check(link)
        self.relay.look(session)
        self.forget_if_idle(session)

    def news(self, session: LiveSession, news: News) -> None:
        """A look has found `news`: act on it, and let the mender give back what the store has lost."""
        self.changed(session, news)
        if news.loss.messages:
            self.losses.store_went_back("it knows fewer messages of a session than this node")
        if news.loss:
            self.behind(session)

    def changed(self, session: LiveSession, news: News) -> None:
        """Act on `news` for those attached here and for the drain; what the store has lost is left to the caller."""
        if news.client_superseded:
            self.superseded(session, "client")
        if news.worker_superseded:
            link = session.worker.link
            if isinstance(link, WorkerLink) and session.worker_id != link.worker:
                link.end_session(session.id, "reassigned")
            self.superseded(session, "worker")
        if news.overtaken is not None:
            self.workers.overtaken(session, news.overtaken.said, by_claim=news.overtaken.by_claim)
        if news.usurped is not None:
            self.workers.usurped(session, news.usurped)
        client = session.client.link
        if client is not None:
            if news.tell is not None:
                worker = session.worker_id
                client.send(PeerChanged(news.tell, worker) if worker else PeerChanged(news.tell))
            if news.set_aside:
                self.tell_set_aside(session)
            if news.up_acked and session.receipts:
                self.relay.receipt(session)
        if self.watcher is not None:
            self.watcher.session_changed(session)

    def tell_set_aside(self, session: LiveSession) -> None:
        """Tell the client here that its session is set aside; nothing when it is not."""
        link, seq = session.client.link, session.set_aside_at
        if link is not None and seq:
            link.error("undeliverable", "each worker that was given this message failed", seq=seq)

    def missing(self, session: LiveSession) -> None:
        """The store does not know `session`."""
        self.inboxes.doubts.session_missing(session)

    def behind(self, session: LiveSession) -> None:
        """The store knows less of `session` than this node."""
        self.inboxes.doubts.session_behind(session)

    def logs_bytes(self) -> int:
        """What the logs of all sessions hold here."""
        return sum([session.up.bytes_held + session.down.bytes_held for session in self.sessions.values()])

    def history_bytes_max(self, session: LiveSession) -> int:
        """How much of its chat history is kept: less where its address holds too much."""
        return self.holdings.history_bytes_max(session.id)

    def last_words(self, session: LiveSession) -> None:
        """What a party had said here before it went has been stored."""
        self._departed.note_again(session)

    def lost(
        self, link: Link, session: str, direction: Literal["sent", "received"], lost: tuple[int, int], *, shown: bool
    ) -> None:
        """Messages are lost that the party of `link` has sent, or was to receive."""
        self.losses.tell(link, session, direction, lost, shown=shown)

    def spent(self, session: LiveSession) -> None:
        """The numbers of `session` have run out: it ends."""
        if not session.ending:
            session.ending = True
            self.spawn(self.endings.spent, session)

    # --- what workers say -------------------------------------------------------------------------------------------

    def session_accepted(self, link: WorkerLink, session: LiveSession) -> None:
        """A worker takes a session it was assigned."""
        self.workers.accepted(link, session)

    def session_refused(self, link: WorkerLink, session: LiveSession, reason: str) -> None:
        """A worker does not take a session, or gives it back."""
        self.relay.settle(session, "worker")  # what it has said before is part of the session
        # Before it accepts, a worker has seen no message: it has no room, or leaves. One that goes gives back in good order.
        failed = session.id in link.accepted and not link.leaving and not link.told_to_go
        self.workers.refused(link, session, reason, failed=failed)

    def session_spoiled(self, link: WorkerLink, session: LiveSession) -> None:
        """A worker has sent a frame that is wrong in this session: it loses the session, another worker gets it."""
        self.relay.settle(session, "worker")
        link.end_session(session.id, "bad message")
        self.workers.refused(link, session, "bad message")

    def worker_state(self, link: WorkerLink, state: AppState) -> None:
        """A worker's room has changed."""
        self.workers.update(link, state.capacity, state.leaving)

    async def worker_leaves(self, link: WorkerLink, reason: str) -> None:
        """A worker said `bye`: its sessions go to others."""
        while True:
            try:
                await self.workers.give_up(link.worker, link.epoch, reason, leaving=True)
                break
            except StoreUnavailable:
                await trio.sleep(1.0)
        if not link.over:
            link.close(CloseCode.NORMAL)

    # --- who is here ------------------------------------------------------------------------------------------------

    def legacy_workers(self) -> list[WorkerLink]:
        """Workers here that know no GOAWAY."""
        return [link for link in self.worker_links.values() if not link.speaks_handover]

    def is_resuming(self, worker: str) -> bool:
        """Tell whether `worker` is being let in again: the store may have granted its claims already."""
        return worker in self._resuming

    @contextmanager
    def resuming(self, worker: str) -> Iterator[None]:
        """Within the block, `worker` is about to be attached here: the store has granted its claim."""
        self._resuming[worker] += 1
        try:
            yield
        finally:
            self._resuming[worker] -= 1
            if not self._resuming[worker]:
                del self._resuming[worker]

    def holds(self, worker: str) -> bool:
        """Tell whether `worker` is attached here, or about to be."""
        return worker in self.worker_links or worker in self._resuming

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


def _relay_settings(config: Config) -> RelaySettings:
    return RelaySettings(
        node=config.node.id,
        backlog_messages_max=config.limits.backlog_messages_max,
        backlog_bytes_max=config.limits.backlog_bytes_max,
        history_messages_max=config.session.history_messages_max,
        claim_ahead_max=config.limits.claim_ahead_max,
        logs_bytes_max=config.limits.logs_bytes_max,
    )


def _left_in_order(link: WorkerLink) -> bool:
    """Tell whether a worker's connection ended because it leaves, or because this node sent it away."""
    closed = link.conn.closed
    sent_away = closed is not None and closed.initiator == "local" and closed.code in _SENT_AWAY
    return link.leaving or link.told_to_go or link.terminated.is_set() or sent_away


_SENT_AWAY = frozenset({CloseCode.NORMAL, CloseCode.GOING_AWAY, CloseCode.RESTARTING})
