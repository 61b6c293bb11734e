"""What the operations on the registry do: nodes, workers, pairings, the waiting line, the pace (see rules)."""

from contextlib import suppress
from math import isfinite

import msgspec

from signald.core.api_keys import ApiKey, renewed
from signald.core.tokens import Slots, Verdict, confirm, is_previous, present
from signald.core.wants import suited
from signald.store import base
from signald.store.base import CLOCK_SET_MS, WAKE_NODES
from signald.store.claims import Claim, Side, refusal
from signald.store.damage import Unreadable
from signald.store.formats import FORMAT_UNSAID
from signald.store.registry import ops
from signald.store.registry.ops import WaitingSession, WorkerInfo
from signald.store.registry.queues.fields import lost, registered
from signald.store.registry.queues.rules import leave as leave_queue
from signald.store.registry.queues.rules import tell
from signald.store.registry.records import (
    FORGET_NODE_AFTER_MS,
    HOLD_CHECK_MS,
    HOLDS_CHECKED,
    PACE_BURST_S,
    PACE_DEBT_MAX_S,
    RECEIPTS_MAX,
    TRAIL_BYTES,
    TRAILS_DROPPED,
    TRAILS_EXPIRED,
    Place,
    TrailCount,
    Worker,
)
from signald.store.rows import Rows, Wakes
from signald.store.rule import rule


@rule(ops.PutNode)
def put_node(op: ops.PutNode, rows: Rows, wakes: Wakes) -> base.Done | ops.NodeTaken:
    before = next((node for node in rows.nodes() if node.id == op.info.id), None)
    if before is not None and _is_held(before, op):
        return ops.NodeTaken(before.incarnation, before.renewed_ms, before.lease_until_ms)
    rows.save_node(op.info)
    if before is None or before.state != op.info.state:
        wake_nodes(op.info.id, rows, wakes)
    return base.Done()


def _is_held(entry: ops.NodeInfo, op: ops.PutNode) -> bool:
    """Tell whether `entry` belongs to another process than the one that asks, as far as is known a live one."""
    if not op.info.incarnation or entry.incarnation == op.info.incarnation:
        return False  # release 0.1.0 names no incarnation, and is not fenced
    is_dead = op.over_ms > 0 and (entry.incarnation, entry.renewed_ms) == (op.over, op.over_ms)
    return not is_dead and entry.lease_until_ms > op.info.renewed_ms


@rule(ops.DropNode)
def drop_node(op: ops.DropNode, rows: Rows, wakes: Wakes) -> base.Done:
    if any(node.id == op.node and op.incarnation in ("", node.incarnation) for node in rows.nodes()):
        rows.drop_node(op.node)
        wake_nodes(op.node, rows, wakes)
    return base.Done()


def wake_nodes(but: str, rows: Rows, wakes: Wakes, wake: base.Wake = WAKE_NODES) -> None:
    # Neither operation carries the time, so a node whose lease has ended is told as well; it is not there to hear it.
    for node in rows.nodes():
        if node.id != but:
            wakes.tell(node.id, wake)


@rule(ops.ListNodes)
def list_nodes(op: ops.ListNodes, rows: Rows, _wakes: Wakes) -> ops.Nodes:
    nodes = rows.nodes()
    for node in nodes:
        if node.lease_until_ms < op.now_ms - FORGET_NODE_AFTER_MS:
            rows.drop_node(node.id)
    return ops.Nodes(tuple(node for node in nodes if node.lease_until_ms > op.now_ms))


def _first_fact(name: str, candidate: bytes, rows: Rows) -> bytes:
    value = rows.fact(name)
    if value is None:
        value = candidate
        rows.save_fact(name, value)
    return value


@rule(ops.Incarnation)
def incarnation(op: ops.Incarnation, rows: Rows, _wakes: Wakes) -> ops.Named:
    return ops.Named(_first_fact("incarnation", op.candidate.encode(), rows).decode(errors="replace"))


@rule(ops.RaiseFormat)
def raise_format(op: ops.RaiseFormat, rows: Rows, _wakes: Wakes) -> ops.Format:
    kept = FORMAT_UNSAID
    with suppress(ValueError):  # a damaged number counts as none
        kept = max(kept, int(rows.fact("format") or b""))
    if op.format > kept:
        kept = op.format
        rows.save_fact("format", b"%d" % kept)
    return ops.Format(kept)


@rule(ops.UseSealKey)
def use_seal_key(op: ops.UseSealKey, rows: Rows, _wakes: Wakes) -> ops.SealKeys:
    before = tuple((rows.fact("seal_keys") or b"").decode(errors="replace").split())
    kept = tuple([key for key in before if key == op.key or key not in op.retired])
    if op.key and op.key not in kept:
        kept = (*kept, op.key)
    if kept != before:
        rows.save_fact("seal_keys", " ".join(kept).encode())
    return ops.SealKeys(kept)


@rule(ops.ClusterSecret)
def cluster_secret(op: ops.ClusterSecret, rows: Rows, _wakes: Wakes) -> ops.Secret:
    return ops.Secret(_first_fact("secret", op.candidate, rows))


_KEYS = msgspec.msgpack.Decoder(tuple[ApiKey, ...])


@rule(ops.ReadApiKeys)
def read_api_keys(op: ops.ReadApiKeys, rows: Rows, _wakes: Wakes) -> ops.Keys:
    fact = rows.fact("api_keys") or b""
    kept: tuple[ApiKey, ...] = ()
    with suppress(msgspec.DecodeError):  # damaged ones count as lost
        kept = _KEYS.decode(fact)
    keys = renewed(kept, op.known, op.candidate, op.now_ms, op.rotate_ms, op.life_ms)
    if keys != kept:
        rows.save_fact("api_keys", msgspec.msgpack.encode(keys))
    return ops.Keys(keys)


def _readable(worker: str, rows: Rows) -> Worker | None:
    with suppress(Unreadable):
        return rows.worker(worker)
    return None


@rule(ops.RegisterWorker)
def register_worker(op: ops.RegisterWorker, rows: Rows, _wakes: Wakes) -> ops.WorkerClaimed | base.Refused:
    worker = rows.worker(op.worker)
    if worker is not None:
        claim = worker.side.claimed(op.nonce)
        # Ids are random, so a second holder can only be a mistake. It is told so in the one way a claim can fail.
        return base.Refused("exists") if claim is None else _worker_claimed(claim, worker, rows)
    worker = Worker(op.worker, op.principal, op.instance, op.labels, op.capacity, Slots(current=op.token), Side())
    worker.granted, worker.labels, worker.rooms = op.granted, {**op.labels, **op.granted}, op.rooms
    claim = Claim(op.nonce, 1, asked_ms=op.now_ms)
    worker.side.claim(claim, op.node)
    rows.save_worker(worker)
    tell(op.worker, "worker.registered", registered(op), op.events_max, op.now_ms, rows)
    return _worker_claimed(claim, worker, rows)


@rule(ops.ClaimWorker)
def claim_worker(op: ops.ClaimWorker, rows: Rows, wakes: Wakes) -> ops.WorkerClaimed | base.Refused:
    worker = rows.worker(op.worker)
    if worker is None:
        return base.Refused("unknown")
    if claim := worker.side.claimed(op.nonce):
        return _worker_claimed(claim, worker, rows)
    if op.principal != worker.principal:  # before the token, as in `claim_client`
        return base.Refused("principal")
    if worker.side.is_late(op.now_ms):
        return base.Refused("late")
    slots, verdict = present(worker.slots, op.presented, op.issued)
    if verdict is Verdict.REUSED and worker.side.is_tied(op.attempt, op.now_ms):
        return base.Refused("late")
    if verdict is Verdict.REUSED:
        worker.slots = slots
        rows.save_worker(worker)
    if verdict is not Verdict.GRANTED:
        return base.Refused(refusal(verdict, slots))
    if is_previous(worker.slots, op.presented) and worker.side.is_outdone(op.attempt, op.now_ms):
        return base.Refused("late")
    claim = Claim(op.nonce, worker.side.epoch + 1, worker.side.node, asked_ms=op.now_ms, attempt=op.attempt)
    wakes.worker(op.worker, op.node, worker.side.node)
    worker.side.claim(claim, op.node)
    worker.slots, worker.labels, worker.capacity = slots, {**op.labels, **worker.granted}, op.capacity
    worker.leaving, worker.away_since_ms = False, 0
    rows.save_worker(worker)
    return _worker_claimed(claim, worker, rows)


@rule(ops.ClaimNamed)
def claim_named(op: ops.ClaimNamed, rows: Rows, wakes: Wakes) -> ops.WorkerClaimed | base.Refused:
    worker = rows.worker(op.worker)
    if worker is None and not op.create:
        return base.Refused("unknown")
    if worker is None:
        return _enter_named(op, rows)
    if claim := worker.side.claimed(op.nonce):
        return _worker_claimed(claim, worker, rows)
    if op.principal != worker.principal:
        return base.Refused("principal")
    if worker.side.is_late(op.now_ms):
        return base.Refused("late")
    claim = Claim(op.nonce, worker.side.epoch + 1, worker.side.node, asked_ms=op.now_ms)
    wakes.worker(op.worker, op.node, worker.side.node)
    worker.side.claim(claim, op.node)
    worker.labels, worker.capacity = {**op.labels, **worker.granted}, op.capacity
    worker.leaving, worker.away_since_ms = False, 0
    rows.save_worker(worker)
    return _worker_claimed(claim, worker, rows)


def _enter_named(op: ops.ClaimNamed, rows: Rows) -> ops.WorkerClaimed:
    # Without a token: no claim by one is ever granted.
    worker = Worker(op.worker, op.principal, op.instance, op.labels, op.capacity, Slots(), Side())
    worker.granted, worker.labels, worker.rooms = op.granted, {**op.labels, **op.granted}, op.rooms
    claim = Claim(op.nonce, 1, asked_ms=op.now_ms)
    worker.side.claim(claim, op.node)
    rows.save_worker(worker)
    tell(op.worker, "worker.registered", registered(op), op.events_max, op.now_ms, rows)
    return _worker_claimed(claim, worker, rows)


def _worker_claimed(claim: Claim, worker: Worker, rows: Rows) -> ops.WorkerClaimed:
    sessions = _sessions_of(worker.id, rows)
    return ops.WorkerClaimed(claim.epoch, sessions, claim.previous_node, worker.granted, worker.rooms)


def _sessions_of(worker: str, rows: Rows) -> tuple[str, ...]:
    return rows.sessions_of(worker)


@rule(ops.UpdateWorker)
def update_worker(
    op: ops.UpdateWorker, rows: Rows, _wakes: Wakes
) -> base.Done | base.Fenced | base.Behind | ops.NoWorker:
    worker = rows.worker(op.worker)
    if worker is None:
        return ops.NoWorker()
    if worker.side.epoch != op.epoch:
        return base.Fenced(worker.side.epoch)
    worker.capacity, worker.leaving = op.capacity, op.leaving
    rows.save_worker(worker)
    return base.Done()


@rule(ops.ConfirmWorkerToken)
def confirm_worker_token(op: ops.ConfirmWorkerToken, rows: Rows, _wakes: Wakes) -> base.Done:
    worker = rows.worker(op.worker)
    if worker is not None and worker.side.epoch == op.epoch and worker.slots.previous:
        worker.slots = confirm(worker.slots)
        rows.save_worker(worker)
    return base.Done()


@rule(ops.DetachWorker)
def detach_worker(op: ops.DetachWorker, rows: Rows, _wakes: Wakes) -> base.Done:
    worker = rows.worker(op.worker)
    if worker is not None and worker.side.epoch == op.epoch and worker.side.node:
        worker.side.node = ""
        worker.away_since_ms = op.now_ms
        rows.save_worker(worker)
    return base.Done()


@rule(ops.RemoveWorker)
def remove_worker(op: ops.RemoveWorker, rows: Rows, wakes: Wakes) -> ops.Sessions:
    node = ""
    with suppress(Unreadable):  # then its node and epoch are unknown, and it can only be removed
        worker = rows.worker(op.worker)
        if worker is None or op.epoch not in (0, worker.side.epoch):
            return ops.Sessions(())
        node = worker.side.node
    sessions = _sessions_of(op.worker, rows)
    for session in sessions:
        _unplace(session, op.worker, rows, requeue=op.requeue)
    rows.drop_worker(op.worker)
    tell(op.worker, "worker.lost", lost(op), op.events_max, op.now_ms, rows, last=True)
    leave_queue(op.worker, rows)
    wakes.worker(op.worker, op.node, node)
    return ops.Sessions(sessions)


def _unplace(session: str, worker: str, rows: Rows, *, requeue: bool) -> None:
    place = rows.place(session)
    if place is None or not place.worker or place.worker != worker:
        return
    if requeue:
        rows.save_place(Place(session, place.want, place.order_ms))
    else:
        rows.drop_place(session)


@rule(ops.ReseedWorker)
def reseed_worker(op: ops.ReseedWorker, rows: Rows, _wakes: Wakes) -> base.Done:
    worker = _readable(op.worker, rows)
    if worker is None or op.epoch > worker.side.epoch:
        current, previous = (*op.tokens, b"", b"")[:2]
        retired = worker.slots.retired if worker is not None else ()
        slots, side = Slots(current, previous, retired), Side(op.epoch, op.node)
        side.give_back(Claim("", op.epoch, asked_ms=op.asked_ms, attempt=op.attempt))
        worker = Worker(op.worker, op.principal, op.instance, op.labels, op.capacity, slots, side, granted=op.granted)
        worker.rooms = op.rooms
        rows.save_worker(worker)
    for session, want, order_ms in op.sessions:
        place = rows.place(session)
        if place is None or not place.worker:
            rows.save_place(Place(session, want, order_ms, op.worker))
        # Due at once: the node that sweeps overdue sessions finds out whether this one still lives. Otherwise a session
        # whose client's node died together with the store would be in no index, and would never end.
        rows.renew(session, op.now_ms)
    return base.Done()


@rule(ops.ListWorkers)
def list_workers(_op: ops.ListWorkers, rows: Rows, _wakes: Wakes) -> ops.Workers:
    return ops.Workers(
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
                principal=worker.principal,
            )
            for worker in rows.workers()
        )
    )


@rule(ops.WorkerSessions)
def worker_sessions(op: ops.WorkerSessions, rows: Rows, _wakes: Wakes) -> ops.Sessions:
    return ops.Sessions(_sessions_of(op.worker, rows))


@rule(ops.Enqueue)
def enqueue(op: ops.Enqueue, rows: Rows, _wakes: Wakes) -> ops.Enqueued:
    rows.renew(op.session, op.alive_until_ms)
    place = rows.place(op.session)
    if place is not None and place.worker and _readable(place.worker, rows) is not None:
        return ops.Enqueued(place.worker)
    rows.save_place(Place(op.session, op.want, op.order_ms))
    return ops.Enqueued("")


@rule(ops.ListWaiting)
def list_waiting(op: ops.ListWaiting, rows: Rows, _wakes: Wakes) -> ops.Waiting:
    places = rows.waiting(op.limit) if op.limit > 0 else []
    return ops.Waiting(tuple(WaitingSession(place.session, place.want, place.order_ms) for place in places))


@rule(ops.ListSuited)
def list_suited(op: ops.ListSuited, rows: Rows, _wakes: Wakes) -> ops.Waiting:
    heads: dict[str, tuple[int, str]] = {}
    for offered in op.offers:
        for node in suited(offered, rows.is_wanted, op.edges_max):
            if node not in heads and (head := rows.line(node, 1)):
                heads[node] = (head[0].order_ms, node)
    oldest = sorted(heads.values())[: max(0, op.limit)]
    share = op.limit // len(oldest) if oldest else 0
    places = [place for _, node in oldest for place in rows.line(node, share)]
    places.sort(key=lambda place: (place.order_ms, place.session))
    waiting = tuple([WaitingSession(place.session, place.want, place.order_ms) for place in places])
    return ops.Waiting(waiting, bool(rows.strays(1)))


@rule(ops.MendLine)
def mend_line(op: ops.MendLine, rows: Rows, _wakes: Wakes) -> ops.Mended:
    for session in rows.strays(op.limit):
        rows.enter(session)
    return ops.Mended(len(rows.strays(1)))


@rule(ops.Leave)
def leave(op: ops.Leave, rows: Rows, _wakes: Wakes) -> base.Done:
    place = rows.place(op.session)
    if place is not None and not place.worker:
        rows.drop_place(op.session)
    return base.Done()


@rule(ops.Reserve)
def reserve(op: ops.Reserve, rows: Rows, wakes: Wakes) -> ops.Reserved:
    return ops.Reserved(tuple([_reserve(session, worker, op.node, rows, wakes) for session, worker in op.pairs]))


def _reserve(session: str, worker: str, by: str, rows: Rows, wakes: Wakes) -> bool:
    place = rows.place(session)
    if place is None or place.worker:
        # A pair that holds already is one whose first answer was lost.
        return place is not None and place.worker == worker
    found = _readable(worker, rows)
    if found is None or not found.side.node or found.leaving or rows.assigned(worker) >= found.capacity:
        return False
    rows.save_place(Place(session, place.want, place.order_ms, worker))
    wakes.worker(worker, by, found.side.node)
    return True


@rule(ops.Release)
def release(op: ops.Release, rows: Rows, _wakes: Wakes) -> base.Done:
    _unplace(op.session, op.worker, rows, requeue=op.requeue)
    return base.Done()


@rule(ops.Forget)
def forget(op: ops.Forget, rows: Rows, _wakes: Wakes) -> base.Done:
    rows.drop_place(op.session)
    rows.drop_life(op.session)
    rows.drop_hold(op.session)
    return base.Done()


@rule(ops.Hold)
def hold(op: ops.Hold, rows: Rows, _wakes: Wakes) -> base.Done | base.Refused:
    for session in rows.holds_due(op.now_ms, HOLDS_CHECKED):
        until_ms = rows.life(session)
        if until_ms is None:
            rows.drop_hold(session)
        else:
            rows.postpone_hold(session, max(until_ms, op.now_ms + HOLD_CHECK_MS))
    if rows.life(op.session) is None:
        if rows.lives() >= op.sessions_max:
            return base.Refused("sessions")
        if any(rows.held_by(holder) >= op.holder_max for holder in op.holders):
            return base.Refused("holder")
    if op.holders:
        rows.drop_hold(op.session)
    for holder in op.holders:
        rows.hold(op.session, holder, op.until_ms)
    rows.renew(op.session, op.until_ms)
    return base.Done()


@rule(ops.CountTrails)
def count_trails(op: ops.CountTrails, rows: Rows, _wakes: Wakes) -> ops.Sessions:
    for over in rows.oldest_trails(TRAILS_EXPIRED + 2 * len(op.grown)):
        if over.until_ms <= op.now_ms:
            rows.drop_trail(over.session)
    for session, size in op.grown:
        kept = rows.trail(session)
        counted = min(op.trail_bytes_max, TRAIL_BYTES + size if kept is None else kept.bytes + size)
        rows.save_trail(TrailCount(session, op.until_ms if kept is None else max(op.until_ms, kept.until_ms), counted))
    named: list[str] = []
    total = rows.trails_bytes()
    for oldest in rows.oldest_trails(TRAILS_DROPPED) if total > op.bytes_max else ():
        if total <= op.bytes_max:
            break
        total -= oldest.bytes
        rows.drop_trail(oldest.session)
        named.append(oldest.session)
    return ops.Sessions(tuple(named))


@rule(ops.KeepAlive)
def keep_alive(op: ops.KeepAlive, rows: Rows, _wakes: Wakes) -> base.Done:
    for session in op.sessions:
        rows.renew(session, op.until_ms)
    for session, holder in zip(op.sessions, op.holders or ("",) * len(op.sessions), strict=True):
        if holder and not rows.is_held(session):
            rows.hold(session, holder, op.until_ms)
    return base.Done()


@rule(ops.ListSessionsOf)
def list_sessions_of(op: ops.ListSessionsOf, rows: Rows, _wakes: Wakes) -> ops.Sessions:
    return ops.Sessions(tuple(rows.sessions_held(op.holder, op.after, op.limit)) if op.limit > 0 else ())


@rule(ops.ListOverdue)
def list_overdue(op: ops.ListOverdue, rows: Rows, _wakes: Wakes) -> ops.Sessions:
    return ops.Sessions(tuple(rows.overdue(op.now_ms, op.limit)) if op.limit > 0 else ())


@rule(ops.TakePace)
def take_pace(op: ops.TakePace, rows: Rows, _wakes: Wakes) -> ops.Paced:
    if op.rate_per_s <= 0:
        return ops.Paced(0.0)
    level, at_ms = op.rate_per_s * PACE_BURST_S, op.now_ms
    name = "pace" if op.party == "client" else "pace_workers"
    with suppress(ValueError):  # a damaged one counts as none
        kept, kept_ms = _pace(rows.fact(name) or b"")
        if kept_ms - op.now_ms <= CLOCK_SET_MS:
            at_ms = max(op.now_ms, kept_ms)
        level = min(level, kept + op.rate_per_s * max(0, at_ms - kept_ms) / 1000)
    level = max(level - op.tokens, -PACE_DEBT_MAX_S * op.rate_per_s)
    rows.save_fact(name, b"%b %d" % (repr(level).encode(), at_ms))
    return ops.Paced(max(0.0, -level / op.rate_per_s * 1000))


def _pace(fact: bytes) -> tuple[float, int]:
    level, at_ms = fact.split()
    if not isfinite(float(level)):
        raise ValueError("not a level")
    return float(level), int(at_ms)


@rule(ops.PutReceipt)
def put_receipt(op: ops.PutReceipt, rows: Rows, _wakes: Wakes) -> base.Done:
    rows.save_receipt(op.node, op.body, op.now_ms, RECEIPTS_MAX)
    return base.Done()


@rule(ops.GetReceipt)
def get_receipt(op: ops.GetReceipt, rows: Rows, _wakes: Wakes) -> ops.Text:
    return ops.Text(rows.receipt(op.node) or b"")


@rule(ops.ListReceipts)
def list_receipts(_op: ops.ListReceipts, rows: Rows, _wakes: Wakes) -> ops.Receipts:
    return ops.Receipts(tuple(rows.receipts()))


@rule(ops.Signal)
def signal(op: ops.Signal, _rows: Rows, wakes: Wakes) -> base.Done:
    wakes.tell(op.node, op.wake)
    return base.Done()
