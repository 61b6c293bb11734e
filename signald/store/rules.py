"""What every operation of the contract does, said once for the stores that think in Python: memory and SQLite.

A rule is a synchronous function of an operation and of `Rows`, the few ways in which a store keeps things. It checks
first and changes afterwards, so a refused operation has changed nothing. Whom to wake it tells `Wakes`, which the store
delivers together with the change. There is no clock and no randomness here: time comes with the operation.
"""

from collections.abc import Callable, Iterable
from typing import Any, Literal, Protocol, cast

from msgspec import Struct, field

from signald.core.tokens import Slots, Verdict, confirm, present
from signald.store import base
from signald.store.base import (
    WAKE_NODES,
    WAKE_REALTIME,
    WAKE_SESSION,
    WAKE_WORKER,
    Entry,
    Head,
    NodeInfo,
    Op,
    Party,
    Result,
    WaitingSession,
    Wake,
    WorkerInfo,
)

CLAIMS_REMEMBERED = 8
"""How many claims of one party are remembered by their nonces. A claim is repeated within seconds, or never."""

WORKERS_REMEMBERED = 16
"""How many workers a session remembers having had, so that one that comes back is not counted again."""

FORGET_NODE_AFTER_MS = 60_000
RECEIPTS_MAX = 100
PACE_BURST_S = 0.05
"""What an idle budget has saved up: enough to begin at once, too little to show in the claims of a second."""
PACE_DEBT_MAX_S = 600.0
"""Longer than any drain. A debt beyond it is an error of the asker, and the next ones must not wait hours for it."""

Way = Literal["up", "down"]


# --- what is kept --------------------------------------------------------------------------------------------------


class Claim(Struct, array_like=True, frozen=True, gc=False):
    """One claim, by its nonce, with what is needed to answer it again."""

    nonce: str
    epoch: int
    previous_node: str = ""
    lost_up: tuple[int, int] | None = None
    lost_down: tuple[int, int] | None = None


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


class Log(Struct, array_like=True, gc=False):
    """The two numbers of one direction. What lies between them waits for the receiver, holes excepted."""

    last: int = 0
    acked: int = 0


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

    def side(self, party: Party) -> Side:
        """Return where `party` is."""
        return self.client if party == "client" else self.worker_side

    def log(self, way: Way) -> Log:
        """Return the numbers of one direction."""
        return self.up if way == "up" else self.down

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


class Rows(Protocol):
    """How a store keeps things. Records are changed in place and then saved; nothing here decides anything."""

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

    def places_of(self, worker: str) -> list[Place]:
        """Return the places of the worker's sessions, in order of session id."""

    def assigned(self, worker: str) -> int: ...

    def renew(self, session: str, until_ms: int) -> None:
        """Let the life of `session` in the index end at `until_ms`, unless it ends later already."""

    def drop_life(self, session: str) -> None: ...
    def overdue(self, now_ms: int, limit: int) -> list[str]:
        """Return the sessions whose life has ended, in order of its end, then of id."""

    def fact(self, name: str) -> bytes | None: ...
    def save_fact(self, name: str, value: bytes) -> None: ...

    def receipt(self, node: str) -> bytes | None: ...
    def save_receipt(self, node: str, body: bytes, now_ms: int, keep: int) -> None:
        """Keep `body` for `node`, and of all receipts the `keep` latest."""


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


# --- sessions ------------------------------------------------------------------------------------------------------


def create_session(op: base.CreateSession, rows: Rows, _wakes: Wakes) -> Result:
    record = rows.session(op.session)
    if record is not None:
        return _shown(record) if record.client.claimed(op.nonce) else base.Exists()
    record = Record(
        session=op.session,
        created_ms=op.now_ms,
        principal=op.principal,
        want=op.want,
        meta=op.meta,
        receipts=op.receipts,
        ttl_ms=op.ttl_ms,
        slots=Slots(current=op.token),
    )
    record.client.claim(Claim(op.nonce, 1), op.node)
    rows.save_session(record)
    return _shown(record)


def _shown(record: Record) -> Result:
    return cast("Result", record.head())  # `Head` answers two operations without being declared a `Result`


def _refusal(verdict: Verdict, slots: Slots) -> str:
    # Slots that never held a token say nothing of a revocation: the record was given back by a node that did not know it.
    return "unknown" if verdict is Verdict.REVOKED and not slots.retired else verdict.value


def claim_client(op: base.ClaimClient, rows: Rows, wakes: Wakes) -> Result:
    record = rows.session(op.session)
    if record is None:
        return base.Refused("unknown")
    if claim := record.client.claimed(op.nonce):
        return _claimed(claim, record)
    slots, verdict = present(record.slots, op.presented, op.issued)
    if verdict is Verdict.REUSED:
        record.slots = slots
        rows.save_session(record)
    if verdict is not Verdict.GRANTED:
        return base.Refused(_refusal(verdict, slots))
    if op.principal != record.principal:
        return base.Refused("principal")
    if not record.client.node and op.now_ms - record.client_away_ms >= record.ttl_ms:
        return base.Refused("expired")
    record.slots = slots
    record.ttl_ms = op.ttl_ms
    return _claim(record, "client", op.nonce, op.node, op.acked, op.received, rows, wakes)


def claim_worker_side(op: base.ClaimWorkerSide, rows: Rows, wakes: Wakes) -> Result:
    record = rows.session(op.session)
    if record is None:
        return base.Refused("unknown")
    if claim := record.worker_side.claimed(op.nonce):
        return _claimed(claim, record)
    if not op.assign and record.worker != op.worker:
        return base.Refused("not_yours")
    if op.assign:
        record.worker = op.worker
        record.worker_state = "assigned"
        _count_worker(record)
    return _claim(record, "worker", op.nonce, op.node, op.received, op.acked, rows, wakes)


def _claim(record: Record, party: Party, nonce: str, node: str, up: int, down: int, rows: Rows, wakes: Wakes) -> Result:
    """Attach `party` at `node`; by what it knows, at least `up` and `down` messages have been in the logs."""
    side = record.side(party)
    lost_up, lost_down = _raise_last(record.up, up), _raise_last(record.down, down)
    if party == "client":
        _acknowledge(record, "down", down, rows)
    else:
        _acknowledge(record, "up", up, rows)
    claim = Claim(nonce, side.epoch + 1, side.node, lost_up, lost_down)
    wakes.session(record, node, record.client.node, record.worker_side.node)
    side.claim(claim, node)
    rows.save_session(record)
    return _claimed(claim, record)


def _claimed(claim: Claim, record: Record) -> base.Claimed:
    return base.Claimed(claim.epoch, record.head(), claim.previous_node, claim.lost_up, claim.lost_down)


def _raise_last(log: Log, known: int) -> tuple[int, int] | None:
    if known <= log.last:
        return None
    lost = (log.last + 1, known)
    log.last = known
    return lost


def _acknowledge(record: Record, way: Way, seq: int, rows: Rows) -> bool:
    """Trim one log up to `seq`; tell whether that was news."""
    log = record.log(way)
    seq = min(seq, log.last)
    if seq <= log.acked:
        return False
    log.acked = seq
    rows.trim_entries(record.session, way, seq)
    return True


def _count_worker(record: Record) -> None:
    if record.worker not in record.workers_had:
        record.workers_had = (*record.workers_had, record.worker)[-WORKERS_REMEMBERED:]
        record.workers += 1


def accept_session(op: base.AcceptSession, rows: Rows, wakes: Wakes) -> Result:
    record = rows.session(op.session)
    if record is None:
        return base.NoSession()
    if record.worker_side.epoch != op.epoch or record.worker_side.node != op.node:
        return base.Fenced(record.worker_side.epoch)
    if record.worker_state != "paired":
        record.worker_state = "paired"
        wakes.session(record, op.node, record.client.node)
        rows.save_session(record)
    return base.Done()


def unpair(op: base.Unpair, rows: Rows, wakes: Wakes) -> Result:
    record = rows.session(op.session)
    if record is None:
        return base.NoSession()
    if record.worker and record.worker == op.worker:
        wakes.session(record, op.node, record.client.node, record.worker_side.node)
        record.worker = record.worker_state = ""
        record.worker_side.node = ""
        record.worker_side.epoch += 1
        rows.save_session(record)
    return base.Done()


def _not_holder(side: Side, epoch: int, node: str) -> Result | None:
    """Answer one who writes for a party without holding it."""
    if epoch > side.epoch:
        return base.Behind(side.epoch)
    if epoch < side.epoch or node != side.node:
        return base.Fenced(side.epoch)
    return None


def append(op: base.Append, rows: Rows, wakes: Wakes) -> Result:
    record = rows.session(op.session)
    if record is None:
        return base.NoSession()
    if op.party == "client":
        side, peer, log = record.client, record.worker_side, record.up
        way: Way = "up"
        back: Way = "down"
    else:
        side, peer, log = record.worker_side, record.client, record.down
        way, back = "down", "up"
    if refused := _not_holder(side, op.epoch, op.node):
        return refused
    # The ack counts even if the entries are refused: with both directions full, each side's acks may ride on messages
    # that cannot be stored before the other side's have been.
    acked = op.ack and _acknowledge(record, back, op.ack, rows)
    new = op.entries
    if new and new[0].seq <= log.last:
        new = tuple(entry for entry in new if entry.seq > log.last)
    result: Result
    if new and new[0].seq != log.last + 1:
        result, new = base.Gap(log.last), ()
    elif new and new[-1].seq - log.acked > op.backlog_max:
        result, new = base.Full(log.last, log.acked), ()
    else:
        if new:
            log.last = new[-1].seq
            rows.put_entries(record.session, way, new)
            _put_history(record, op.party, new, rows)
            _bound_history(record, op.history_max, op.history_bytes_max, rows)
        result = base.Appended(log.last, log.acked, peer.node)
    if new or (acked and record.receipts):
        wakes.session(record, op.node, peer.node)
    if new or acked:
        rows.save_session(record)
    return result


def _put_history(record: Record, party: Party, entries: Iterable[Entry], rows: Rows) -> None:
    for entry in entries:
        if entry.history:
            rows.put_history(record.session, record.history_next, party, entry.body)
            record.history_next += 1
            record.history_bytes += len(entry.body)


def _bound_history(record: Record, count_max: int, bytes_max: int, rows: Rows) -> None:
    while record.history_first < record.history_next and (
        record.history_next - record.history_first > count_max or record.history_bytes > bytes_max
    ):
        record.history_bytes -= rows.drop_history(record.session, record.history_first)
        record.history_first += 1


def acknowledge(op: base.Ack, rows: Rows, wakes: Wakes) -> Result:
    record = rows.session(op.session)
    if record is None:
        return base.NoSession()
    if refused := _not_holder(record.side(op.party), op.epoch, op.node):
        return refused
    if _acknowledge(record, "down" if op.party == "client" else "up", op.seq, rows):
        if record.receipts:
            wakes.session(record, op.node, record.side("worker" if op.party == "client" else "client").node)
        rows.save_session(record)
    return base.Done()


def look(op: base.Look, rows: Rows, _wakes: Wakes) -> Result:
    record = rows.session(op.session)
    if record is None:
        return base.NoSession()
    way: Way = "down" if op.party == "client" else "up"
    log = record.log(way)
    after = max(op.after, log.acked)
    entries: list[Entry] = []
    if op.limit > 0 and after < log.last:
        entries = rows.read_entries(record.session, way, after, op.limit)
        for place, entry in enumerate(entries):
            if entry.seq != entries[0].seq + place:
                del entries[place:]
                break
    return base.Looked(record.head(), tuple(entries))


def read_history(op: base.ReadHistory, rows: Rows, _wakes: Wakes) -> Result:
    return base.History(tuple(rows.read_history(op.session, op.limit)) if op.limit > 0 else ())


def detach(op: base.Detach, rows: Rows, wakes: Wakes) -> Result:
    record = rows.session(op.session)
    if record is None:
        return base.Done()
    side = record.side(op.party)
    if not op.node or _not_holder(side, op.epoch, op.node):
        return base.Done()
    side.node = ""
    if op.party == "client":
        record.client_away_ms = op.now_ms
    wakes.session(record, op.node, record.client.node, record.worker_side.node)
    rows.save_session(record)
    return base.Done()


def confirm_token(op: base.ConfirmToken, rows: Rows, _wakes: Wakes) -> Result:
    record = rows.session(op.session)
    if record is not None and record.client.epoch == op.epoch and record.slots.previous:
        record.slots = confirm(record.slots)
        rows.save_session(record)
    return base.Done()


def end_session(op: base.EndSession, rows: Rows, wakes: Wakes) -> Result:
    record = rows.session(op.session)
    return base.NoSession() if record is None else _end(record, op.node, rows, wakes)


def expire_session(op: base.ExpireSession, rows: Rows, wakes: Wakes) -> Result:
    record = rows.session(op.session)
    if record is None:
        return base.Done()
    away_ms = op.now_ms - record.client_away_ms
    dead = record.client.node not in op.nodes if record.client.node else away_ms >= op.ttl_ms
    return _end(record, op.node, rows, wakes) if dead else base.Done()


def _end(record: Record, by: str, rows: Rows, wakes: Wakes) -> Result:
    wakes.session(record, by, record.client.node, record.worker_side.node)
    rows.drop_session(record.session)
    return base.Ended(record.head())


def reseed(op: base.Reseed, rows: Rows, wakes: Wakes) -> Result:
    known = op.head
    record = rows.session(op.session)
    if record is None:
        record = Record(
            session=op.session,
            created_ms=known.created_ms,
            principal=known.principal,
            want=known.want,
            meta=known.meta,
            receipts=known.receipts,
            # The time to live comes with the next claim; until then no token of this session expires by it, and the
            # session itself does, by ExpireSession.
            ttl_ms=_NO_TTL_MS,
            client_away_ms=op.now_ms,
        )
    _reseed_client(record, op)
    _reseed_worker(record, op)
    _reseed_log(record, "up", "client", known.up_last, known.up_acked, op.up_tail, rows)
    _reseed_log(record, "down", "worker", known.down_last, known.down_acked, op.down_tail, rows)
    wakes.session(record, op.node, record.client.node, record.worker_side.node)
    rows.save_session(record)
    return _shown(record)


_NO_TTL_MS = 1 << 52


def _reseed_side(side: Side, epoch: int, node: str, by: str) -> bool:
    """Merge what `by` knows of a party; tell whether it is newer. A node speaks for the parties it holds itself only.

    Of the others it may have missed that they left; their own nodes speak for them, or they count as away.
    """
    newer = epoch > side.epoch
    if newer:
        side.epoch, side.node = epoch, ""
    if epoch == side.epoch and not side.node and node == by:
        side.node = by
    return newer


def _reseed_client(record: Record, op: base.Reseed) -> None:
    side = record.client
    was_attached = bool(side.node)
    newer = _reseed_side(side, op.head.client_epoch, op.head.client_node, op.node)
    if was_attached and not side.node:
        record.client_away_ms = op.now_ms
    unknown = not (record.slots.current or record.slots.retired)
    if op.client_tokens and (newer or (unknown and op.head.client_epoch == side.epoch)):
        current, previous = (*op.client_tokens, b"")[:2]
        record.slots = Slots(current, previous, record.slots.retired)


def _reseed_worker(record: Record, op: base.Reseed) -> None:
    known = op.head
    newer = _reseed_side(record.worker_side, known.worker_epoch, known.worker_node, op.node)
    if newer:
        record.worker, record.worker_state = known.worker, known.worker_state
    elif known.worker_epoch == record.worker_side.epoch and known.worker == record.worker and record.worker_state:
        record.worker_state = max(record.worker_state, known.worker_state)  # in the alphabet too, `paired` is the last
    if record.worker:
        _count_worker(record)
    record.workers = max(record.workers, known.workers)


def _reseed_log(
    record: Record, way: Way, sender: Party, last: int, acked: int, tail: tuple[Entry, ...], rows: Rows
) -> None:
    log = record.log(way)
    new = [entry for entry in tail if entry.seq > log.last]
    log.last = max(log.last, last)
    _acknowledge(record, way, acked, rows)
    rows.put_entries(record.session, way, [entry for entry in new if entry.seq > log.acked])
    _put_history(record, sender, new, rows)


# --- the registry --------------------------------------------------------------------------------------------------


def put_node(op: base.PutNode, rows: Rows, wakes: Wakes) -> Result:
    before = next((node for node in rows.nodes() if node.id == op.info.id), None)
    rows.save_node(op.info)
    if before is None or before.state != op.info.state:
        _wake_nodes(op.info.id, rows, wakes)
    return base.Done()


def drop_node(op: base.DropNode, rows: Rows, wakes: Wakes) -> Result:
    if any(node.id == op.node for node in rows.nodes()):
        rows.drop_node(op.node)
        _wake_nodes(op.node, rows, wakes)
    return base.Done()


def _wake_nodes(but: str, rows: Rows, wakes: Wakes) -> None:
    # Neither operation carries the time, so a node whose lease has ended is told as well; it is not there to hear it.
    for node in rows.nodes():
        if node.id != but:
            wakes.tell(node.id, WAKE_NODES)


def list_nodes(op: base.ListNodes, rows: Rows, _wakes: Wakes) -> Result:
    nodes = rows.nodes()
    for node in nodes:
        if node.lease_until_ms < op.now_ms - FORGET_NODE_AFTER_MS:
            rows.drop_node(node.id)
    return base.Nodes(tuple(node for node in nodes if node.lease_until_ms > op.now_ms))


def _first_fact(name: str, candidate: bytes, rows: Rows) -> bytes:
    value = rows.fact(name)
    if value is None:
        value = candidate
        rows.save_fact(name, value)
    return value


def incarnation(op: base.Incarnation, rows: Rows, _wakes: Wakes) -> Result:
    return base.Named(_first_fact("incarnation", op.candidate.encode(), rows).decode())


def cluster_secret(op: base.ClusterSecret, rows: Rows, _wakes: Wakes) -> Result:
    return base.Secret(_first_fact("secret", op.candidate, rows))


def register_worker(op: base.RegisterWorker, rows: Rows, _wakes: Wakes) -> Result:
    worker = rows.worker(op.worker)
    if worker is not None:
        claim = worker.side.claimed(op.nonce)
        # Ids are random, so a second holder can only be a mistake. It is told so in the one way a claim can fail.
        return base.Refused("exists") if claim is None else _worker_claimed(claim, worker, rows)
    worker = Worker(op.worker, op.principal, op.instance, op.labels, op.capacity, Slots(current=op.token), Side())
    claim = Claim(op.nonce, 1)
    worker.side.claim(claim, op.node)
    rows.save_worker(worker)
    return _worker_claimed(claim, worker, rows)


def claim_worker(op: base.ClaimWorker, rows: Rows, wakes: Wakes) -> Result:
    worker = rows.worker(op.worker)
    if worker is None:
        return base.Refused("unknown")
    if claim := worker.side.claimed(op.nonce):
        return _worker_claimed(claim, worker, rows)
    slots, verdict = present(worker.slots, op.presented, op.issued)
    if verdict is Verdict.REUSED:
        worker.slots = slots
        rows.save_worker(worker)
    if verdict is not Verdict.GRANTED:
        return base.Refused(_refusal(verdict, slots))
    if op.principal != worker.principal:
        return base.Refused("principal")
    claim = Claim(op.nonce, worker.side.epoch + 1, worker.side.node)
    wakes.worker(op.worker, op.node, worker.side.node)
    worker.side.claim(claim, op.node)
    worker.slots, worker.labels, worker.capacity = slots, op.labels, op.capacity
    worker.leaving, worker.away_since_ms = False, 0
    rows.save_worker(worker)
    return _worker_claimed(claim, worker, rows)


def _worker_claimed(claim: Claim, worker: Worker, rows: Rows) -> Result:
    return base.WorkerClaimed(claim.epoch, _sessions_of(worker.id, rows), claim.previous_node)


def _sessions_of(worker: str, rows: Rows) -> tuple[str, ...]:
    return tuple(place.session for place in rows.places_of(worker))


def update_worker(op: base.UpdateWorker, rows: Rows, _wakes: Wakes) -> Result:
    worker = rows.worker(op.worker)
    if worker is None:
        return base.NoWorker()
    if worker.side.epoch != op.epoch:
        return base.Fenced(worker.side.epoch)
    worker.capacity, worker.leaving = op.capacity, op.leaving
    rows.save_worker(worker)
    return base.Done()


def confirm_worker_token(op: base.ConfirmWorkerToken, rows: Rows, _wakes: Wakes) -> Result:
    worker = rows.worker(op.worker)
    if worker is not None and worker.side.epoch == op.epoch and worker.slots.previous:
        worker.slots = confirm(worker.slots)
        rows.save_worker(worker)
    return base.Done()


def detach_worker(op: base.DetachWorker, rows: Rows, _wakes: Wakes) -> Result:
    worker = rows.worker(op.worker)
    if worker is not None and worker.side.epoch == op.epoch and worker.side.node:
        worker.side.node = ""
        worker.away_since_ms = op.now_ms
        rows.save_worker(worker)
    return base.Done()


def remove_worker(op: base.RemoveWorker, rows: Rows, wakes: Wakes) -> Result:
    worker = rows.worker(op.worker)
    if worker is None or op.epoch not in (0, worker.side.epoch):
        return base.Released(())
    sessions = _sessions_of(op.worker, rows)
    for session in sessions:
        _unplace(session, op.worker, rows, requeue=op.requeue)
    rows.drop_worker(op.worker)
    wakes.worker(op.worker, op.node, worker.side.node)
    return base.Released(sessions)


def _unplace(session: str, worker: str, rows: Rows, *, requeue: bool) -> None:
    place = rows.place(session)
    if place is None or not place.worker or place.worker != worker:
        return
    if requeue:
        rows.save_place(Place(session, place.want, place.order_ms))
    else:
        rows.drop_place(session)


def reseed_worker(op: base.ReseedWorker, rows: Rows, _wakes: Wakes) -> Result:
    worker = rows.worker(op.worker)
    if worker is None or op.epoch > worker.side.epoch:
        current, previous = (*op.tokens, b"", b"")[:2]
        retired = worker.slots.retired if worker is not None else ()
        slots, side = Slots(current, previous, retired), Side(op.epoch, op.node)
        rows.save_worker(Worker(op.worker, op.principal, op.instance, op.labels, op.capacity, slots, side))
    for session, want, order_ms in op.sessions:
        place = rows.place(session)
        if place is None or not place.worker:
            rows.save_place(Place(session, want, order_ms, op.worker))
        # Due at once: whoever looks after the overdue finds out whether the session still lives. Otherwise a session
        # whose client's node died together with the store would be in no index, and so would never end.
        rows.renew(session, op.now_ms)
    return base.Done()


def list_workers(_op: base.ListWorkers, rows: Rows, _wakes: Wakes) -> Result:
    return base.Workers(
        tuple(
            WorkerInfo(
                id=worker.id,
                node=worker.side.node,
                epoch=worker.side.epoch,
                labels=worker.labels,
                capacity=worker.capacity,
                assigned=rows.assigned(worker.id),
                leaving=worker.leaving,
                away_since_ms=worker.away_since_ms,
                instance=worker.instance,
            )
            for worker in rows.workers()
        )
    )


def worker_sessions(op: base.WorkerSessions, rows: Rows, _wakes: Wakes) -> Result:
    return base.Released(_sessions_of(op.worker, rows))


def enqueue(op: base.Enqueue, rows: Rows, _wakes: Wakes) -> Result:
    rows.renew(op.session, op.alive_until_ms)
    place = rows.place(op.session)
    if place is not None and place.worker and rows.worker(place.worker) is not None:
        return base.Enqueued(place.worker)
    rows.save_place(Place(op.session, op.want, op.order_ms))
    return base.Enqueued("")


def list_waiting(op: base.ListWaiting, rows: Rows, _wakes: Wakes) -> Result:
    places = rows.waiting(op.limit) if op.limit > 0 else []
    return base.Waiting(tuple(WaitingSession(place.session, place.want, place.order_ms) for place in places))


def reserve(op: base.Reserve, rows: Rows, wakes: Wakes) -> Result:
    return base.Reserved(tuple([_reserve(session, worker, op.node, rows, wakes) for session, worker in op.pairs]))


def _reserve(session: str, worker: str, by: str, rows: Rows, wakes: Wakes) -> bool:
    place = rows.place(session)
    if place is None or place.worker:
        # A pair that holds already is one whose first answer was lost.
        return place is not None and place.worker == worker
    found = rows.worker(worker)
    if found is None or not found.side.node or found.leaving or rows.assigned(worker) >= found.capacity:
        return False
    rows.save_place(Place(session, place.want, place.order_ms, worker))
    wakes.worker(worker, by, found.side.node)
    return True


def release(op: base.Release, rows: Rows, _wakes: Wakes) -> Result:
    _unplace(op.session, op.worker, rows, requeue=op.requeue)
    return base.Done()


def forget(op: base.Forget, rows: Rows, _wakes: Wakes) -> Result:
    rows.drop_place(op.session)
    rows.drop_life(op.session)
    return base.Done()


def keep_alive(op: base.KeepAlive, rows: Rows, _wakes: Wakes) -> Result:
    for session in op.sessions:
        rows.renew(session, op.until_ms)
    return base.Done()


def list_overdue(op: base.ListOverdue, rows: Rows, _wakes: Wakes) -> Result:
    return base.Released(tuple(rows.overdue(op.now_ms, op.limit)) if op.limit > 0 else ())


def take_pace(op: base.TakePace, rows: Rows, _wakes: Wakes) -> Result:
    if op.rate_per_s <= 0:
        return base.Paced(0.0)
    level, at_ms = op.rate_per_s * PACE_BURST_S, op.now_ms
    if fact := rows.fact("pace"):
        kept, kept_ms = fact.split()
        at_ms = max(op.now_ms, int(kept_ms))
        level = min(level, float(kept) + op.rate_per_s * (at_ms - int(kept_ms)) / 1000)
    level = max(level - op.tokens, -PACE_DEBT_MAX_S * op.rate_per_s)
    rows.save_fact("pace", b"%b %d" % (repr(level).encode(), at_ms))
    return base.Paced(max(0.0, -level / op.rate_per_s * 1000))


def put_receipt(op: base.PutReceipt, rows: Rows, _wakes: Wakes) -> Result:
    rows.save_receipt(op.node, op.body, op.now_ms, RECEIPTS_MAX)
    return base.Done()


def get_receipt(op: base.GetReceipt, rows: Rows, _wakes: Wakes) -> Result:
    return base.Text(rows.receipt(op.node) or b"")


def signal(op: base.Signal, _rows: Rows, wakes: Wakes) -> Result:
    wakes.tell(op.node, op.wake)
    return base.Done()


# --- all of them ---------------------------------------------------------------------------------------------------

Rule = Callable[[Any, Rows, Wakes], Result]

RULES: dict[type[Op], Rule] = {
    base.CreateSession: create_session,
    base.ClaimClient: claim_client,
    base.ClaimWorkerSide: claim_worker_side,
    base.AcceptSession: accept_session,
    base.Unpair: unpair,
    base.Append: append,
    base.Ack: acknowledge,
    base.Look: look,
    base.ReadHistory: read_history,
    base.Detach: detach,
    base.ConfirmToken: confirm_token,
    base.EndSession: end_session,
    base.ExpireSession: expire_session,
    base.Reseed: reseed,
    base.PutNode: put_node,
    base.DropNode: drop_node,
    base.ListNodes: list_nodes,
    base.Incarnation: incarnation,
    base.RegisterWorker: register_worker,
    base.ClaimWorker: claim_worker,
    base.UpdateWorker: update_worker,
    base.ConfirmWorkerToken: confirm_worker_token,
    base.DetachWorker: detach_worker,
    base.RemoveWorker: remove_worker,
    base.ReseedWorker: reseed_worker,
    base.ListWorkers: list_workers,
    base.WorkerSessions: worker_sessions,
    base.Enqueue: enqueue,
    base.ListWaiting: list_waiting,
    base.Reserve: reserve,
    base.Release: release,
    base.Forget: forget,
    base.KeepAlive: keep_alive,
    base.ListOverdue: list_overdue,
    base.TakePace: take_pace,
    base.PutReceipt: put_receipt,
    base.GetReceipt: get_receipt,
    base.ClusterSecret: cluster_secret,
    base.Signal: signal,
}


def apply(op: Op, rows: Rows, wakes: Wakes) -> Result:
    """Carry out one operation."""
    return RULES[type(op)](op, rows, wakes)
