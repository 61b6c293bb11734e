"""A session as one node knows it: two sides, two logs, and what the client knows of its worker.

A node holds a `Session` while at least one of its parties is attached here. The truth is the `Head` in the store; `observe`
compares a head with what was known and says what is news, so a lost wake-up costs time and never an event.
"""

from typing import Generic, Literal, TypeVar

from msgspec import Struct

from signald.core.failures import NO_FAILURES, Failures
from signald.core.log import Entry, Log
from signald.core.pairing import PAIRING, Pairing, PairingEvent
from signald.core.transitions import step
from signald.wire.messages import PeerState

Party = Literal["client", "worker"]
L = TypeVar("L")


class Head(Struct, frozen=True, gc=False):
    """Everything about a session but its messages and its token hashes.

    `up` is client → worker, `down` worker → client; `last` is the highest stored seq, `acked` the highest one its
    receiver has acknowledged. A node of `""` means detached. `worker` is the id of the paired worker (`""`: none), and
    `worker_state` tells how far the pairing is: `""`, `assigned` (claimed, not yet accepted) or `paired`. `workers` counts
    the workers the session has had. `said_before` is `down_last` when it was last assigned: who is given a session begins
    behind all that was said before.

    `up_claimed` and `down_claimed` are the seqs (first, last) that no message has because one party claimed to know of them; 0, 0:
    none. They are a party's word, so a hole there says nothing of the store.
    """

    session: str
    created_ms: int
    principal: str
    want: dict[str, str]
    meta: bytes
    receipts: bool
    client_epoch: int
    client_node: str
    worker: str
    worker_state: str
    worker_epoch: int
    worker_node: str
    workers: int
    up_last: int
    up_acked: int
    down_last: int
    down_acked: int
    said_before: int = 0
    up_claimed: tuple[int, int] = (0, 0)
    down_claimed: tuple[int, int] = (0, 0)
    failed: Failures = NO_FAILURES
    """The failed hand-outs as they were noted; `failures` are those that still count."""

    @property
    def failures(self) -> Failures:
        """The failed hand-outs at the first message that no worker has acked."""
        return self.failed.current(self.up_acked)


class Side(Generic[L]):
    """One party of a session at this node."""

    __slots__ = ("ack_due", "ack_stored", "epoch", "link", "node", "sent", "traced", "waiting_since")

    def __init__(self, epoch: int, node: str, sent: int) -> None:
        self.epoch = epoch
        self.node = node
        """Where the party is attached, as far as known here; `""` is nowhere."""
        self.link: L | None = None
        """The connection that serves it here. Invariant: set only while `node` is this node."""
        self.sent = sent
        """The highest seq written to that connection."""
        self.ack_due = sent
        """The highest seq this party has acked."""
        self.ack_stored = sent
        """How much of `ack_due` the store has been told."""
        self.traced: list[tuple[int, float, str]] = []
        """Messages offered and not stored yet that carry a sampled trace: seq, when it came (trio time), trace."""
        self.waiting_since = -1.0
        """When the oldest message this party has offered while an append is under way came (trio time); negative: none waits."""

    def take(self, epoch: int, node: str) -> bool:
        """Take over what the store knows; True when it knows less: nobody but this node can detach what is attached here."""
        if epoch < self.epoch or (epoch == self.epoch and self.link is not None and node != self.node):
            return self.link is not None
        self.epoch = epoch
        self.node = node
        return False


class News(Struct, frozen=True):
    """What `observe` found."""

    tell: PeerState | None = None
    """What the client is to be told."""
    client_superseded: bool = False
    worker_superseded: bool = False
    up_acked: bool = False
    down_acked: bool = False
    behind: bool = False
    """The store does not know that a party is attached here: it has lost that, and is to be given it back."""
    lost: bool = False
    """The store knows fewer messages than it has had: the numbers of the others must not be given once more."""
    overtaken: tuple[int, int] | None = None
    """Numbers the worker here is about to give were used already, before the store lost them: what it has said (from, to; from
    above to when nothing) is taken for what was said then."""
    overtaken_by_claim: bool = False
    """That they were used is the client's word alone."""
    usurped: tuple[int, int] | None = None
    """The store has forgotten who had the session, and another has it who has said things since: whoever had it is to go. What
    it has said that its client did not get (from, to; from above to when nothing) has lost its numbers."""
    set_aside: int = 0
    """The session has just been set aside at this seq; 0: it has not."""


class Session(Generic[L]):
    """See the module."""

    __slots__ = (
        "busy_looking", "client", "client_tokens", "created_ms", "down", "ending", "failed", "id", "known_worker", "look_again",
        "meta", "pairing", "principal", "receipts", "said_before", "up", "void_to", "want", "worker", "worker_id", "workers",
    )  # fmt: skip

    def __init__(self, head: Head, backlog_max: int, bytes_max: int) -> None:
        self.id = head.session
        self.created_ms = head.created_ms
        self.principal = head.principal
        self.want = head.want
        self.meta = head.meta
        self.receipts = head.receipts
        self.up = Log(head.up_last, head.up_acked, backlog_max, bytes_max)
        self.down = Log(head.down_last, head.down_acked, backlog_max, bytes_max)
        self.client: Side[L] = Side(head.client_epoch, head.client_node, head.down_acked)
        self.worker: Side[L] = Side(head.worker_epoch, head.worker_node, head.up_acked)
        self.worker_id = head.worker
        self.workers = head.workers
        self.known_worker = ""
        """The last worker the client was paired with."""
        self.pairing = Pairing.WAITING
        self.client_tokens: tuple[bytes, ...] = ()
        """Hashes of the tokens issued with `client.epoch`, newest first; empty when another node issued them."""
        self.ending = False
        """Its end is on the way to the store: nothing is to make it anew there."""
        self.busy_looking = False
        self.look_again = False
        self.said_before = head.said_before
        self.failed = head.failed
        self.void_to = 0
        """The client here is given nothing up to this seq: what has the numbers behind those it has heard was said by somebody who
        gave some of those again."""
        self._settle(head)

    def __repr__(self) -> str:
        return f"<Session {self.id} {self.pairing.value} up={self.up!r} down={self.down!r}>"

    def side(self, party: Party) -> Side[L]:
        """The side of `party`."""
        return self.client if party == "client" else self.worker

    def log_from(self, party: Party) -> Log:
        """The log `party` writes."""
        return self.up if party == "client" else self.down

    def log_to(self, party: Party) -> Log:
        """The log `party` reads."""
        return self.down if party == "client" else self.up

    @property
    def spent(self) -> bool:
        """True when the numbers of a direction have run out."""
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
        """What a client that asks now is told of its worker."""
        if self.pairing is Pairing.PAIRED:
            return "paired"
        if self.pairing is Pairing.AWAY:
            return "away"
        return "gone" if self.pairing is Pairing.ENDED else "waiting"

    def attach(self, party: Party, link: L, epoch: int, node: str, received: int) -> None:
        """`party` is served here by `link` from now on, and has everything up to `received`."""
        side = self.side(party)
        side.link = link
        side.epoch = epoch
        side.node = node
        side.sent = side.ack_due = side.ack_stored = received
        side.waiting_since = -1.0
        side.traced = []
        self.log_to(party).absorb(received, received)
        # Whatever an older connection of the party had offered, the party offers again.
        self.log_from(party).forget_pending()
        self.log_from(party).asked = 0

    def detach(self, party: Party) -> None:
        """The connection of `party` here is gone."""
        side = self.side(party)
        side.link = None
        side.node = ""
        self.log_from(party).forget_pending()

    def set_backlog(self, backlog_max: int, bytes_max: int) -> None:
        """Bound what waits for a receiver anew; what is there already stays."""
        for log in (self.up, self.down):
            log.backlog_max, log.bytes_max = backlog_max, bytes_max

    def recall(self, up_last: int, down_last: int) -> bool:
        """Go on from where the session was when this node last had it; True if the store has lost something since."""
        lost = up_last > self.up.last or down_last > self.down.last
        self.up.pass_over(up_last)
        self.down.pass_over(down_last)
        return lost

    def observe(self, head: Head, entries: tuple[Entry, ...] = (), reader: Party | None = None) -> News:
        """Take over what the store knows, and say what is news. `entries` are those `reader` has yet to get."""
        set_aside_before = self.set_aside_at
        usurped = self._give_way(head) if self._is_usurped(head) else None
        client_superseded = head.client_epoch > self.client.epoch and self.client.link is not None
        worker_superseded = head.worker_epoch > self.worker.epoch and self.worker.link is not None
        if head.client_epoch > self.client.epoch:
            self.client_tokens = ()
            # What is in flight under an older epoch gets no answer that counts, and must not keep us from what is stored now.
            self.up.forget_pending()
            self.down.disown_acks(head.down_acked)
        if head.worker_epoch > self.worker.epoch:
            self.down.forget_pending()
            self.up.disown_acks(head.up_acked)
            self.said_before = head.said_before
        self._learn_failures(head)
        behind = self.client.take(head.client_epoch, head.client_node)
        behind = self.worker.take(head.worker_epoch, head.worker_node) or behind
        lost = head.up_last < self.up.last or head.down_last < self.down.last
        # Nobody but a worker adds to what it has said. But it is told to begin where the store ends, and a store that has
        # lost its tail ends too early, until a node that knows better has said so.
        overtaken = None
        if (
            self.worker.link is not None
            and head.worker_epoch == self.worker.epoch
            and head.worker == self.worker_id
            and head.down_last > max(self.down.last, self.down.asked)
        ):
            overtaken = self.down.acked + 1, self.down.last
        up_before, down_before = self.up.acked, self.down.acked
        self._absorb(self.up, head.up_last, head.up_acked, entries if reader == "worker" else ())
        self._absorb(
            self.down, head.down_last, head.down_acked, entries if reader == "client" and usurped is None else ()
        )
        if usurped is not None:
            # One number is given up. The node of the worker that has the session now finds it taken (`overtaken`), and so
            # hears that what its worker has said was not heard.
            self.down.pass_over(head.down_last + 1)
            lost = True
        self.workers = head.workers
        # Who has the session is known together with the epoch: a store that knows an older one is told, and not believed. Half
        # believed, an epoch would go with the worker of another. What has no epoch of its own the node of the worker knows best.
        accept_lost = (
            head.worker_epoch == self.worker.epoch
            and head.worker == self.worker_id
            and head.worker_state == "assigned"
            and self.pairing in (Pairing.PAIRED, Pairing.AWAY)
        )
        outdated = head.worker_epoch < self.worker.epoch or (self.worker.link is not None and accept_lost)
        behind = behind or outdated
        tell = None if outdated else self._settle(head)
        set_aside = 0 if outdated else self.set_aside_at
        return News(
            tell,
            client_superseded,
            worker_superseded,
            self.up.acked > up_before,
            self.down.acked > down_before,
            behind,
            lost,
            overtaken,
            overtaken is not None and head.down_claimed[1] >= head.down_last,
            usurped,
            set_aside if set_aside != set_aside_before else 0,
        )

    def _learn_failures(self, head: Head) -> None:
        # Every failure and every retry raises the worker's epoch, so of two records under one epoch the lesser has lost something.
        if head.worker_epoch > self.worker.epoch:
            self.failed = head.failed
        elif head.worker_epoch == self.worker.epoch:
            self.failed = max(self.failed, head.failed)

    def _is_usurped(self, head: Head) -> bool:
        """Tell whether somebody got the session by a store that had lost the tail of it, and gives numbers again that were used.

        A store that has lost nothing has another worker under a newer epoch only, which begins behind all that is known here;
        and what a store holds that has merely lost something is known here.
        """
        if head.worker in ("", self.worker_id):
            return False
        if head.worker_epoch > self.worker.epoch:
            return head.said_before < self.down.last
        if head.worker == self.known_worker:
            return False  # it was let go, and goes on as if it had not been
        if self.client.link is not None:
            return head.down_last > self.down.last
        # Where the client is elsewhere, it may have heard the other one.
        return self.worker.link is not None and head.down_last > max(self.said_before, self.down.acked)

    def _give_way(self, head: Head) -> tuple[int, int]:
        """Let the worker that the store knows have the session; returns what of the other one's words lost its numbers.

        The numbers of that other one have been given again, some of them perhaps to what the client here did not get.
        """
        heard = self.down.acked if self.client.link is None else self.client.sent
        said = max(heard, min(head.said_before, self.down.last)) + 1, self.down.last
        self.down.forget_pending()
        if head.down_last > self.down.last:
            self.void_to = head.down_last
        self.worker.epoch = head.worker_epoch
        self.worker.node = head.worker_node
        self.said_before = head.said_before
        return said

    def _absorb(self, log: Log, last: int, acked: int, entries: tuple[Entry, ...]) -> None:
        # While this node appends, what it has in flight may already be counted in `last`: the append's own answer,
        # not this look, moves `last` then.
        if log.in_flight:
            log.absorb(log.last, acked)
        else:
            log.absorb(last, acked, entries)

    def _settle(self, head: Head) -> PeerState | None:
        event = self._event(head)
        self.worker_id = head.worker
        if event is None:
            return None
        self.pairing, tell = step(PAIRING, self.pairing, event)
        if self.pairing is Pairing.PAIRED:
            self.known_worker = head.worker
        return tell

    def _event(self, head: Head) -> PairingEvent | None:
        state = self.pairing
        if state is Pairing.ENDED:
            return None
        if not head.worker:
            return None if state is Pairing.WAITING else PairingEvent.RELEASE
        if head.worker_state != "paired":
            return None if state is Pairing.ASSIGNED else PairingEvent.ASSIGN
        other = self.known_worker not in ("", head.worker)
        # A worker that is attached here is not away, whatever a store says that has lost it.
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
        """The session is over; returns what the client is told."""
        if self.pairing is Pairing.ENDED:
            return None
        self.pairing, tell = step(PAIRING, self.pairing, PairingEvent.END)
        return tell

    def head(self) -> Head:
        """What this node would tell a store that has lost the session."""
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
        )
