"""A session as one node knows it: two sides, two logs, and the pairing that its client has been told.

A node holds a `Session` while at least one of its parties is attached here. The truth is the `Head` in the store. `observe`
compares a head with the session and returns the difference, so a lost wake-up costs time and never an event. A head from a store that
has lost something is the matter of `core.failover`.
"""

from typing import Generic, TypeVar

from msgspec import Struct

from signald.core import failover
from signald.core.failover import NO_LOSS, Loss, Overtaken, Seqs
from signald.core.failures import Failures
from signald.core.head import Head, Party
from signald.core.log import Entry, Log
from signald.core.once_more import OnceMore
from signald.core.pairing import PAIRING, Pairing, PairingEvent
from signald.core.transitions import step
from signald.ids import SessionId, WorkerId
from signald.wire.messages import PeerState

L = TypeVar("L")


class Side(Generic[L]):
    """A party of a session, as this node knows it."""

    __slots__ = ("ack_due", "ack_stored", "epoch", "link", "node", "sent", "streams", "told", "traced", "waiting_since")

    def __init__(self, epoch: int, node: str, sent: int) -> None:
        self.epoch = epoch
        self.node = node
        """The node where the party is attached, as far as known here; `""`: none."""
        self.link: L | None = None
        """The connection that serves it here. Invariant: set only while `node` is this node."""
        self.sent = sent
        """The highest seq written to that connection."""
        self.ack_due = sent
        """The highest seq this party has acked."""
        self.ack_stored = sent
        """The part of `ack_due` that the store has been told."""
        self.streams: set[str] = set()
        """The streams of this party that are open, as far as this node knows."""
        self.told: set[str] = set()
        """The streams of which this connection was told what no message tells."""
        self.traced: list[tuple[int, float, str]] = []
        """Messages offered and not stored yet that carry a sampled trace: seq, when it came (trio time), trace."""
        self.waiting_since = -1.0
        """Arrival (trio time) of the oldest message that this party has offered while an append is under way; negative: none waits."""

    @property
    def is_here(self) -> bool:
        """True while the party is attached to this node."""
        return self.link is not None

    def forgets(self, epoch: int, node: str) -> bool:
        """True when a head with this epoch and node does not know the claim that this node knows.

        Only this node can detach a party that is attached here, so another node under the same epoch is a loss as well.
        """
        return epoch < self.epoch or (epoch == self.epoch and self.is_here and node != self.node)

    def take(self, epoch: int, node: str) -> None:
        """Take over the claim that a head holds, unless that forgets a later one."""
        if not self.forgets(epoch, node):
            self.epoch = epoch
            self.node = node


class News(Struct, frozen=True):
    """The changes that a head brought to a session, for the parties attached here."""

    tell: PeerState | None = None
    """The state of its worker to tell the client; None: no change."""
    client_superseded: bool = False
    """Another connection holds a newer claim of the client."""
    worker_superseded: bool = False
    """Another connection, or another worker, holds a newer claim of the worker's side."""
    up_acked: bool = False
    """The worker has acked more of what the client sent."""
    streams: bool = False
    """Something has changed in the streams that no message tells."""
    events: bool = False
    """The queue of its events has been given more than this node knew of."""
    set_aside: int = 0
    """The session has just been set aside at this seq; 0: it has not."""
    overtaken: Overtaken | None = None
    """The worker here is an overtaken worker: see `core.failover`."""
    usurped: Seqs | None = None
    """A usurper has the session. These messages of the worker before are void: see `core.failover`."""
    loss: Loss = NO_LOSS
    """The loss of the store, which the mender makes good."""


class Session(Generic[L]):
    """See the module."""

    __slots__ = (
        "asked_until_ms", "client", "client_asked", "client_tokens", "created_ms", "down", "ending", "events", "events_max", "failed",
        "id", "jobs", "known_worker", "looks", "meta", "pair", "pairing", "principal", "receipts", "rooms", "said_before", "settings",
        "stream_looks", "streams",
        "up", "void_to", "want", "worker", "worker_id", "workers",
    )  # fmt: skip

    def __init__(self, head: Head, backlog_max: int, bytes_max: int) -> None:
        self.id = SessionId(head.session)
        self.created_ms = head.created_ms
        self.principal = head.principal
        self.want = head.want
        self.meta = head.meta
        self.receipts = head.receipts
        self.settings = head.settings
        """See `Head`; so are the next two."""
        self.rooms = head.rooms
        self.asked_until_ms = head.asked_until_ms
        self.up = Log(head.up_last, head.up_acked, backlog_max, bytes_max)
        self.down = Log(head.down_last, head.down_acked, backlog_max, bytes_max)
        self.client: Side[L] = Side(head.client_epoch, head.client_node, head.down_acked)
        self.worker: Side[L] = Side(head.worker_epoch, head.worker_node, head.up_acked)
        self.worker_id = WorkerId(head.worker)
        self.workers = head.workers
        self.known_worker = ""
        """The last worker with which the client was paired."""
        self.pair = head.pair
        self.pairing = Pairing.WAITING if head.pair else Pairing.NONE
        self.client_tokens: tuple[bytes, ...] = ()
        """Hashes of the tokens issued with `client.epoch`, newest first; empty when another node issued them."""
        self.client_asked: tuple[int, int] = (0, 0)
        """How the claim that issued them was asked for: when (ms), and the client's own count; 0: not known."""
        self.ending = False
        """Its end is on the way to the store: it must not be given back there."""
        self.looks = OnceMore()
        """The reads of its head and messages from the store."""
        self.stream_looks = OnceMore()
        """The reads of its streams from the store."""
        self.streams = head.streams
        """As far as known here; see `Head`."""
        self.said_before = head.said_before
        self.failed = head.failed
        self.jobs = head.jobs
        """See `Head.jobs`: the highest that is known here."""
        self.events = head.events
        """See `Head.events`: the highest that is known here."""
        self.events_max = head.events_max
        self.void_to = 0
        """The client here gets no message up to this seq, because a usurper has used seqs again: see `core.failover`."""
        self._settle(head)

    def __repr__(self) -> str:
        return f"<Session {self.id} {self.pairing.value} up={self.up!r} down={self.down!r}>"

    def side(self, party: Party) -> Side[L]:
        """The side of `party`."""
        return self.client if party == "client" else self.worker

    def log_from(self, party: Party) -> Log:
        """The log that `party` writes."""
        return self.up if party == "client" else self.down

    def log_to(self, party: Party) -> Log:
        """The log that `party` reads."""
        return self.down if party == "client" else self.up

    @property
    def spent(self) -> bool:
        """True when the seqs of a direction have run out."""
        return self.up.spent or self.down.spent

    @property
    def local(self) -> bool:
        """True while a party is attached here."""
        return self.client.link is not None or self.worker.link is not None

    @property
    def failures(self) -> Failures:
        """The failed hand-outs at the first message that no worker has acked."""
        return self.failed.current(self.up.acked)

    @property
    def set_aside_at(self) -> int:
        """The seq at which the session is set aside; 0: it is not."""
        failures = self.failures
        return failures.seq if failures.set_aside else 0

    @property
    def peer_state(self) -> PeerState:
        """The state of the worker for the answer to an opening message of the client."""
        if self.pairing is Pairing.PAIRED:
            return "paired"
        if self.pairing is Pairing.AWAY:
            return "away"
        if self.pairing is Pairing.NONE:
            return "none"
        return "gone" if self.pairing is Pairing.ENDED else "waiting"

    def attach(self, party: Party, link: L, epoch: int, node: str, received: int) -> None:
        """Let `link` serve `party` here from now on; the party has everything up to `received`."""
        side = self.side(party)
        side.link = link
        side.epoch = epoch
        side.node = node
        side.sent = side.ack_due = side.ack_stored = received
        side.waiting_since = -1.0
        side.traced = []
        side.told = set()
        side.streams = set()
        self.log_to(party).absorb(received, received)
        # The party offers again what an older connection of it had offered.
        self.log_from(party).forget_pending()
        self.log_from(party).asked = 0

    def detach(self, party: Party) -> None:
        """Note that the connection of `party` here is gone."""
        side = self.side(party)
        side.link = None
        side.node = ""
        self.log_from(party).forget_pending()

    def set_backlog(self, backlog_max: int, bytes_max: int) -> None:
        """Set new bounds of what waits for a receiver. Messages that wait already stay."""
        for log in (self.up, self.down):
            log.backlog_max, log.bytes_max = backlog_max, bytes_max

    def recall(self, up_last: int, down_last: int) -> bool:
        """Continue from the last seqs that this node knew of the session; True if the store has lost something since."""
        lost = up_last > self.up.last or down_last > self.down.last
        self.up.pass_over(up_last)
        self.down.pass_over(down_last)
        return lost

    def observe(self, head: Head, entries: tuple[Entry, ...] = (), reader: Party | None = None) -> News:
        """Take over what the store knows and return what that changed.

        `entries` are the messages read with the head that `reader` has not been sent.
        """
        up_acked_before, set_aside_before, streams_before = self.up.acked, self.set_aside_at, self.streams
        events_before = self.events
        self.streams = max(self.streams, head.streams)
        if head.asked_until_ms > self.asked_until_ms:  # it was asked again
            self.answered(head.settings, head.rooms, head.asked_until_ms)
        usurped = failover.give_way(self, head) if failover.is_usurped(self, head) else None
        client_superseded, worker_superseded = self._supersede(head)
        self._learn_failures(head)
        self.client.take(head.client_epoch, head.client_node)
        self.worker.take(head.worker_epoch, head.worker_node)
        loss, overtaken = failover.find_loss(self, head), failover.find_overtaken(self, head)
        outdated = failover.is_outdated(self, head)
        self._absorb(self.up, head.up_last, head.up_acked, entries if reader == "worker" else ())
        self._absorb(self.down, head.down_last, head.down_acked, entries if reader == "client" else ())
        self.workers = head.workers
        self.jobs = max(self.jobs, head.jobs)
        if head.events >= self.events:
            # Not of a head that has lost events: that is given back.
            self.events, self.events_max = head.events, head.events_max
        tell = None if outdated else self._settle(head)
        set_aside = 0 if outdated or self.set_aside_at == set_aside_before else self.set_aside_at
        return News(
            tell=tell,
            client_superseded=client_superseded,
            worker_superseded=worker_superseded,
            up_acked=self.up.acked > up_acked_before,
            streams=self.streams > streams_before,
            events=self.events > events_before,
            set_aside=set_aside,
            overtaken=overtaken,
            usurped=usurped,
            loss=loss,
        )

    def _supersede(self, head: Head) -> tuple[bool, bool]:
        """Drop what newer claims make void. Returns whether the client and the worker here are superseded.

        An append or an ack in flight under an older epoch gets no answer that counts, and must not hide what is stored now.
        """
        client_is_newer, worker_is_newer = (
            head.client_epoch > self.client.epoch,
            head.worker_epoch > self.worker.epoch,
        )
        if client_is_newer:
            self.client_tokens, self.client_asked = (), (0, 0)
            self.up.forget_pending()
            self.down.disown_acks(head.down_acked)
        if worker_is_newer:
            self.down.forget_pending()
            self.up.disown_acks(head.up_acked)
            self.said_before = head.said_before
        return client_is_newer and self.client.is_here, worker_is_newer and self.worker.is_here

    def _learn_failures(self, head: Head) -> None:
        # Every failure and every retry raises the worker's epoch, so of two records under one epoch the lesser has lost something.
        if head.worker_epoch > self.worker.epoch:
            self.failed = head.failed
        elif head.worker_epoch == self.worker.epoch:
            self.failed = max(self.failed, head.failed)

    def _absorb(self, log: Log, last: int, acked: int, entries: tuple[Entry, ...]) -> None:
        """Take over the positions of a log, and the `entries` read from it.

        An append in flight may already count in `last`. Then its own answer moves `last` here, and not this head.
        """
        if log.in_flight:
            log.absorb(log.last, acked)
        else:
            log.absorb(last, acked, entries)

    def _settle(self, head: Head) -> PeerState | None:
        """Take over the worker of `head` and step the pairing; return the state to tell the client, or None."""
        event = self._event(head)
        self.worker_id = WorkerId(head.worker)
        if event is None:
            return None
        self.pairing, tell = step(PAIRING, self.pairing, event)
        if self.pairing is Pairing.PAIRED:
            self.known_worker = head.worker
        return tell

    def _event(self, head: Head) -> PairingEvent | None:
        """Return the event that leads from the pairing here to that of `head`; None: nothing has changed."""
        state = self.pairing
        if state in (Pairing.ENDED, Pairing.NONE):
            return None
        if not head.worker:
            return None if state is Pairing.WAITING else PairingEvent.RELEASE
        if head.worker_state != "paired":
            return None if state is Pairing.ASSIGNED else PairingEvent.ASSIGN
        other = self.known_worker not in ("", head.worker)
        # A worker that is attached here is not away, even when the store has forgotten its claim.
        away = not head.worker_node and self.worker.link is None
        if away and not other:
            return None if state is Pairing.AWAY else PairingEvent.DETACH
        if other:
            return PairingEvent.REPLACE
        if state is Pairing.AWAY:
            return PairingEvent.ATTACH
        if state is Pairing.PAIRED:
            return None
        return PairingEvent.ACCEPT

    def end(self) -> PeerState | None:
        """End the session; return the state to tell the client, or None when it had ended already."""
        if self.pairing is Pairing.ENDED:
            return None
        self.pairing, tell = step(PAIRING, self.pairing, PairingEvent.END)
        return tell

    def answered(self, settings: bytes, rooms: bytes, asked_until_ms: int) -> None:
        """Take over what the core server has answered."""
        self.settings, self.rooms, self.asked_until_ms = settings, rooms, asked_until_ms

    def head(self) -> Head:
        """Return the head that this node gives back to a store that has lost the session."""
        return Head(
            session=self.id,
            created_ms=self.created_ms,
            principal=self.principal,
            want=self.want,
            meta=self.meta,
            receipts=self.receipts,
            client_epoch=self.client.epoch,
            client_node=self.client.node,
            worker=self.worker_id,
            worker_state={Pairing.PAIRED: "paired", Pairing.AWAY: "paired", Pairing.ASSIGNED: "assigned"}.get(
                self.pairing, ""
            ),
            worker_epoch=self.worker.epoch,
            worker_node=self.worker.node,
            workers=self.workers,
            up_last=self.up.last,
            up_acked=self.up.acked,
            down_last=self.down.last,
            down_acked=self.down.acked,
            said_before=self.said_before,
            failed=self.failed,
            pair=self.pair,
            jobs=self.jobs,
            streams=self.streams,
            events=self.events,
            events_max=self.events_max,
            settings=self.settings,
            rooms=self.rooms,
            asked_until_ms=self.asked_until_ms,
        )
