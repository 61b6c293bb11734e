"""What the stores that think in Python keep, and the few ways in which they keep it."""

from collections.abc import Iterable
from typing import Literal, Protocol

from msgspec import Struct, field

from signald.core.failures import NO_FAILURES, Failures
from signald.core.head import Head, Party
from signald.core.log import Entry
from signald.core.tokens import Slots, Verdict
from signald.store.base import CLOCK_SET_MS, WAKE_REALTIME, WAKE_SESSION, WAKE_WORKER, Wake
from signald.store.registry.ops import NodeInfo

CLAIMS_REMEMBERED = 8
"""How many claims of one party are remembered by their nonces. A claim is repeated within seconds, or never."""

WORKERS_REMEMBERED = 16
"""How many workers a session remembers having had, so that one that comes back is not counted again."""

HOLDS_CHECKED = 16
"""Counts looked at with each new session: many times as many as come, so that counts left behind go within minutes."""

HOLD_CHECK_MS = 60_000
"""How long a count is believed again when its session lives."""

TRAIL_BYTES = 256
"""What a trail takes beside its steps: two keys and a count."""

TRAILS_EXPIRED = 64
"""Counts of trails whose time is over that are dropped in a call, beside two for each that is counted in it: more go than come."""

TRAILS_DROPPED = 1000
"""Trails that give way in one call: far more than come in a batch, and a batch's worth of operations to remove them."""

FORGET_NODE_AFTER_MS = 60_000
RECEIPTS_MAX = 100
PACE_BURST_S = 0.05
"""What an idle budget has saved up: enough to begin at once, too little to show in the claims of a second."""
PACE_DEBT_MAX_S = 600.0
"""Longer than any drain. A debt beyond it is an error of the asker, and the next ones must not wait hours for it."""

Way = Literal["up", "down"]


class Claim(Struct, array_like=True, frozen=True, gc=False):
    """One claim, by its nonce, with what is needed to answer it again."""

    nonce: str
    epoch: int
    previous_node: str = ""
    lost_up: tuple[int, int] | None = None
    lost_down: tuple[int, int] | None = None
    asked_ms: int = 0
    """When the party asked for it, by the store's clock."""
    attempt: int = 0
    """The party's own count of its claims; 0 when it did not tell."""
    agreed: bool = False
    """It bore out what the other party had claimed beyond the store."""


class Side(Struct, array_like=True):
    """Where one party is attached, and under which epoch."""

    epoch: int = 0
    node: str = ""
    claims: tuple[Claim, ...] = ()

    def claim(self, claim: Claim, node: str) -> None:
        """Attach the party at `node` by `claim`."""
        self.epoch = claim.epoch
        self.node = node
        self.claims = (*self.claims, claim)[-CLAIMS_REMEMBERED:]

    def claimed(self, nonce: str) -> Claim | None:
        """Return the claim that was made with `nonce`."""
        return next((claim for claim in self.claims if claim.nonce == nonce), None)

    def is_late(self, asked_ms: int) -> bool:
        """Tell whether the last claim that was granted had been asked for after `asked_ms`."""
        return bool(self.claims) and 0 < self.claims[-1].asked_ms - asked_ms <= CLOCK_SET_MS

    def is_tied(self, attempt: int, asked_ms: int) -> bool:
        """Tell whether the last claim that was granted is a later attempt of the party, asked for in the same moment."""
        return bool(self.claims) and 0 < attempt < self.claims[-1].attempt and asked_ms == self.claims[-1].asked_ms

    def is_outdone(self, attempt: int, asked_ms: int) -> bool:
        """Tell whether the last claim that was granted is a later attempt of the party, of not long ago."""
        if not self.claims:
            return False
        last = self.claims[-1]
        return 0 < attempt < last.attempt and abs(asked_ms - last.asked_ms) <= CLOCK_SET_MS


class Log(Struct, array_like=True, gc=False):
    """The two numbers of one direction. What lies between them waits for the receiver, holes excepted."""

    last: int = 0
    acked: int = 0


class Ahead(Struct, array_like=True, frozen=True, gc=False):
    """By what seqs claims of a party have raised `last` of one direction."""

    first: int = 0
    last: int = 0
    """The seqs, `first` to `last`; those that the receiver has acked may be forgotten. 0: none."""
    lone: str = ""
    """The party that claimed them while the other was detached, and has not come back since."""
    lone_first: int = 0
    """The first seq it claimed since the other left. If the other claims it too, it knew of it by itself."""


class Record(Struct, array_like=True):
    """Everything about a session but its messages. `worker_side` may outlive a worker: its epoch goes on."""

    session: str
    created_ms: int
    principal: str
    want: dict[str, str]
    meta: bytes
    receipts: bool
    ttl_ms: int
    slots: Slots = field(default_factory=Slots)
    client: Side = field(default_factory=Side)
    client_away_ms: int = 0
    """Since when the client is detached; meaningless while it is attached."""
    worker_side: Side = field(default_factory=Side)
    worker: str = ""
    worker_state: str = ""
    workers: int = 0
    workers_had: tuple[str, ...] = ()
    up: Log = field(default_factory=Log)
    down: Log = field(default_factory=Log)
    history_first: int = 0
    history_next: int = 0
    history_bytes: int = 0
    said_before: int = 0
    """`down.last` when the session was last assigned."""
    up_ahead: Ahead = field(default_factory=Ahead)
    down_ahead: Ahead = field(default_factory=Ahead)
    failed: Failures = NO_FAILURES
    """The failed hand-outs; records of releases that do not count them have none."""
    up_heard: int = 0
    """What the worker says that it has of its client's messages, where that is more than is stored; 0: no more. When the client's
    own word or a node raises `up.last`, this much of it is acked."""

    def side(self, party: Party) -> Side:
        """Return where `party` is."""
        return self.client if party == "client" else self.worker_side

    def log(self, way: Way) -> Log:
        """Return the numbers of one direction."""
        return self.up if way == "up" else self.down

    def hear_claim(self, way: Way, party: Party, known: int) -> tuple[tuple[int, int] | None, bool]:
        """Let `last` of one direction be at least `known`, by the word of `party`.

        The word of a worker about what its client has sent is noted, and raises nothing: a lie would make the client's next
        messages pass for duplicates. The client's own word does, and what it offers again the worker knows by its seq.

        Returns the seqs that the store must have lost if that is true, and whether the other party has said so independently.
        """
        log, ahead = self.log(way), self.up_ahead if way == "up" else self.down_ahead
        agreed = ahead.lone not in ("", party) and known >= ahead.lone_first
        lone, lone_first = (ahead.lone, ahead.lone_first) if ahead.lone == party else ("", 0)
        first, last, lost = ahead.first, ahead.last, None
        if known > log.last:
            lost = log.last + 1, known
            if not self.side("worker" if party == "client" else "client").node:
                lone, lone_first = party, lone_first or lost[0]
            else:
                lone, lone_first = "", 0
            if way == "down" or party == "client":
                first, last = lost[0] if log.acked >= last else first, known
                log.last = known
        ahead = Ahead(first, last, lone, lone_first)
        if way == "up":
            self.up_ahead = ahead
        else:
            self.down_ahead = ahead
        return lost, agreed

    def head(self) -> Head:
        """Return what the contract shows of the session."""
        return Head(
            session=self.session,
            created_ms=self.created_ms,
            principal=self.principal,
            want=self.want,
            meta=self.meta,
            receipts=self.receipts,
            client_epoch=self.client.epoch,
            client_node=self.client.node,
            worker=self.worker,
            worker_state=self.worker_state,
            worker_epoch=self.worker_side.epoch,
            worker_node=self.worker_side.node,
            workers=self.workers,
            up_last=self.up.last,
            up_acked=self.up.acked,
            down_last=self.down.last,
            down_acked=self.down.acked,
            said_before=self.said_before,
            up_claimed=(self.up_ahead.first, self.up_ahead.last),
            down_claimed=(self.down_ahead.first, self.down_ahead.last),
            failed=self.failed,
        )


class Worker(Struct, array_like=True):
    """One worker of the registry. Which sessions it has is told by their places."""

    id: str
    principal: str
    instance: str
    labels: dict[str, str]
    capacity: int
    slots: Slots
    side: Side
    leaving: bool = False
    away_since_ms: int = 0


class Place(Struct, array_like=True, frozen=True, gc=False):
    """Where a session stands in the registry: in the waiting line (no `worker`), or paired, keeping its place in it."""

    session: str
    want: dict[str, str]
    order_ms: int
    worker: str = ""


class TrailCount(Struct, array_like=True, frozen=True, gc=False):
    """What a trail counts for, and until when."""

    session: str
    until_ms: int
    bytes: int


class Rows(Protocol):
    """How a store keeps things. Records are changed in place and then saved; nothing here decides anything.

    What cannot be read is left out of what returns many; where one record is asked for, `Unreadable` is raised for that of a
    session or a worker, and anything else counts as not there.
    """

    def session(self, session: str) -> Record | None: ...
    def save_session(self, record: Record) -> None: ...
    def drop_session(self, session: str) -> None:
        """Remove the record, both logs and the history."""

    def put_entries(self, session: str, way: Way, entries: Iterable[Entry]) -> None: ...
    def trim_entries(self, session: str, way: Way, last: int) -> None:
        """Remove the entries up to and including `last`."""

    def read_entries(self, session: str, way: Way, after: int, limit: int) -> list[Entry]: ...

    def put_history(self, session: str, number: int, party: Party, body: bytes) -> None: ...
    def drop_history(self, session: str, number: int) -> int:
        """Remove one entry and return the length of its body."""

    def read_history(self, session: str, limit: int) -> list[tuple[str, bytes]]:
        """Return the last `limit` entries, oldest first."""

    def nodes(self) -> list[NodeInfo]:
        """Return all nodes in order of id."""

    def save_node(self, node: NodeInfo) -> None: ...
    def drop_node(self, node: str) -> None: ...

    def worker(self, worker: str) -> Worker | None: ...
    def workers(self) -> list[Worker]:
        """Return all workers in order of id."""

    def save_worker(self, worker: Worker) -> None: ...
    def drop_worker(self, worker: str) -> None: ...

    def place(self, session: str) -> Place | None: ...
    def save_place(self, place: Place) -> None: ...
    def drop_place(self, session: str) -> None: ...
    def waiting(self, limit: int) -> list[Place]:
        """Return the first places without a worker, in order of `order_ms`, then session id."""

    def is_wanted(self, node: str) -> bool:
        """Tell whether `node` (see `core.wants`) is on the way to the want of a waiting session."""

    def line(self, node: str, limit: int) -> list[Place]:
        """Return the first places of the line at `node`, in order of `order_ms`, then session id."""

    def strays(self, limit: int) -> list[str]:
        """Return sessions whose place an earlier release has written: the lines by want do not know them as they are."""

    def enter(self, session: str) -> None:
        """Enter the place of a stray in the lines by want as it is now, or remove it from them."""

    def sessions_of(self, worker: str) -> tuple[str, ...]:
        """Return the worker's sessions, in order of their ids."""

    def assigned(self, worker: str) -> int: ...

    def renew(self, session: str, until_ms: int) -> None:
        """Let the life of `session` in the index end at `until_ms`, unless it ends later already."""

    def life(self, session: str) -> int | None:
        """Return until when `session` lives in the index, None when it is not there."""

    def lives(self) -> int:
        """Return how many sessions are in the index."""

    def hold(self, session: str, holder: str, due_ms: int) -> None:
        """Count `session` for `holder`; the count is to be looked at from `due_ms` on."""

    def postpone_hold(self, session: str, due_ms: int) -> None: ...
    def drop_hold(self, session: str) -> None:
        """Count `session` no more for any holder."""

    def held_by(self, holder: str) -> int: ...
    def holds_due(self, now_ms: int, limit: int) -> list[str]:
        """Return sessions whose count is to be looked at."""

    def drop_life(self, session: str) -> None: ...
    def overdue(self, now_ms: int, limit: int) -> list[str]:
        """Return the sessions whose life has ended, in order of its end, then of id."""

    def fact(self, name: str) -> bytes | None: ...
    def save_fact(self, name: str, value: bytes) -> None: ...

    def receipt(self, node: str) -> bytes | None: ...
    def save_receipt(self, node: str, body: bytes, now_ms: int, keep: int) -> None:
        """Keep `body` for `node`, and of all receipts the `keep` latest."""

    def receipts(self) -> list[tuple[str, int]]:
        """Return (node, at_ms) of all receipts, the latest first, then by node."""

    def add_steps(self, session: str, steps: Iterable[bytes], keep: int, now_ms: int, until_ms: int) -> None:
        """Add to a trail, keep its `keep` last steps until `until_ms`, and forget the trails whose time was over at `now_ms`."""

    def drop_steps(self, session: str) -> None: ...
    def steps(self, session: str) -> list[bytes]: ...

    def trail(self, session: str) -> TrailCount | None: ...
    def save_trail(self, trail: TrailCount) -> None: ...
    def drop_trail(self, session: str) -> None:
        """Count a trail no more."""

    def oldest_trails(self, limit: int) -> list[TrailCount]:
        """Return the counts of trails whose time ends first, then in order of session id."""

    def trails_bytes(self) -> int:
        """Return the sum of all counts."""


class Wakes:
    """The wake-ups of one batch, in order. Each that says `look` is said once; realtime messages are all different."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Wake]] = []
        self._said: set[tuple[str, Wake]] = set()

    def tell(self, node: str, wake: Wake) -> None:
        """Wake `node`, whichever it is."""
        told = (node, wake)
        if wake[:1] != WAKE_REALTIME:
            if told in self._said:
                return
            self._said.add(told)
        self.sent.append(told)

    def session(self, record: Record, by: str, *nodes: str) -> None:
        """Let each of `nodes`, other than `by` itself, look at the session."""
        for node in nodes:
            if node and node != by:
                self.tell(node, WAKE_SESSION + record.session.encode())

    def worker(self, worker: str, by: str, node: str) -> None:
        """Let `node`, if it is not `by` itself, look at the worker."""
        if node and node != by:
            self.tell(node, WAKE_WORKER + worker.encode())


def refusal(verdict: Verdict, slots: Slots) -> str:
    # Slots that never held a token say nothing of a revocation: the record was given back by a node that did not know it.
    return "unknown" if verdict is Verdict.REVOKED and not slots.retired else verdict.value
