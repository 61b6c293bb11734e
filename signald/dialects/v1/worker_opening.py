"""A worker opens: a new one, or the claim of a worker and of all its sessions."""

from contextlib import ExitStack

from signald.core import tokens
from signald.core.exits import Cause
from signald.dialects.v1.worker import WorkerLink
from signald.ids import new_nonce, new_worker_id
from signald.net.connection import Connection
from signald.service.context import Context
from signald.service.events import WorkerRegistered, WorkerResumed
from signald.service.opening_steps import SetUp, heartbeat_ms, make_claim, still_open, subject_of, worker_limits
from signald.service.parts import Parts
from signald.service.refusals import late, refused, refused_by_store
from signald.store.base import WAKE_WORKER, Op, Refused
from signald.store.committer import ignore
from signald.store.registry.ops import ClaimWorker, DetachWorker, RegisterWorker, WorkerClaimed
from signald.store.session.ops import Claimed, Detach
from signald.wire.messages import AppAccepted, AppReady, ReconnectionAck


async def register_worker(parts: Parts, conn: Connection, message: AppReady) -> WorkerLink:
    """Enter a new worker in the registry and tell it its token; it may have lost the one of an earlier life."""
    context = parts.context
    subject = subject_of(parts, conn, message.auth, "worker")
    worker = new_worker_id(context.entropy)
    token, token_hash = tokens.issue(worker, context.entropy)
    message = _capped(context, message)
    with SetUp(parts, conn, resume=False):
        registered = await context.committer.call(
            RegisterWorker(
                worker,
                context.node,
                new_nonce(context.entropy),
                subject,
                message.instance_id,
                message.labels,
                message.capacity,
                token_hash,
                context.now_ms(),
            )
        )
    assert isinstance(registered, WorkerClaimed)
    still_open(context, conn, [DetachWorker(worker, registered.epoch, context.now_ms())])
    link = WorkerLink(parts, conn, worker, registered.epoch, message, subject)
    link.tokens = tokens.Slots(token_hash)
    parts.attachments.workers[worker] = link
    parts.attachments.open(link)
    limits = worker_limits(context)
    if message.reconnection:
        # It says it was here before, but has nothing to prove it with: it starts afresh.
        lost = [one.session for one in message.sessions]
        link.send(
            ReconnectionAck(
                "ok", worker, token, _worker_ttl_ms(context), False, "running", [], lost, heartbeat_ms(context), limits
            ),
        )
    else:
        link.send(AppAccepted("ok", worker, token, _worker_ttl_ms(context), heartbeat_ms(context), limits))
    context.outbox.flush()
    if not context.cluster.alone:
        parts.assignments.check(link)  # another node may have given it sessions before it was attached here
    context.inboxes.line()
    context.events.emit(WorkerRegistered(worker, message.instance_id, message.capacity, conn.opened_at, message.trace))
    return link


async def resume_worker(parts: Parts, conn: Connection, message: AppReady) -> WorkerLink:
    """Claim the worker its token names and all its sessions, and replay in each what it has not got."""
    subject = subject_of(parts, conn, message.auth, "worker")
    parsed = tokens.parse(message.recovery_token or "")
    if parsed is None or not parsed[0].startswith("w_"):
        raise refused(parts.context, "unknown")
    worker, presented = parsed
    with ExitStack() as until_attached:
        return await _claim_worker(parts, conn, message, subject, worker, presented, until_attached)


async def _claim_worker(
    parts: Parts,
    conn: Connection,
    message: AppReady,
    subject: str,
    worker: str,
    presented: bytes,
    until_attached: ExitStack,
) -> WorkerLink:
    context = parts.context
    token, issued = tokens.issue(worker, context.entropy)
    message = _capped(context, message)
    asked = context.now_ms()
    with SetUp(parts, conn, resume=True, ticket=context.cluster.has_ticket(worker, message.ticket)):
        claim = ClaimWorker(
            worker,
            context.node,
            new_nonce(context.entropy),
            subject,
            presented,
            issued,
            message.labels,
            message.capacity,
            asked,
            message.attempt,
        )
        (claimed,) = await make_claim(parts, conn, [claim], asked, WAKE_WORKER + worker.encode())
        if isinstance(claimed, Refused):
            raise await refused_by_store(parts, claimed.reason, worker)
        assert isinstance(claimed, WorkerClaimed)
        # Only now: a claim that is not granted shows that its sender knows an id, and must hold up neither the loss of that worker
        # nor a drain. It is in time, because the sessions are claimed by what follows.
        until_attached.enter_context(parts.attachments.resuming(worker))
        sides = await parts.assignments.claim_sessions(worker, claimed.sessions, message.sessions, asked)
    now = context.now_ms()
    granted = [(name, side.epoch) for name, side in sides if isinstance(side, Claimed)]
    undo: list[Op] = [Detach(name, "worker", context.node, epoch, now) for name, epoch in granted]
    still_open(context, conn, [*undo, DetachWorker(worker, claimed.epoch, now)])
    before = parts.attachments.workers.get(worker)
    if before is not None and before.epoch > claimed.epoch:
        # Two claims of one worker were under way here, and the newer one came through first.
        for op in undo:
            context.committer.submit(op, ignore)
        raise late(context)
    link = WorkerLink(parts, conn, worker, claimed.epoch, message, subject)
    link.tokens = tokens.Slots(issued, presented)
    parts.attachments.workers[worker] = link
    parts.attachments.open(link)
    if before is not None:
        parts.attachments.release(before, Cause.WORKER_REPLACED)
    restored, lost = parts.assignments.attach_claimed(link, sides, message.sessions)
    ttl_ms, limits = _worker_ttl_ms(context), worker_limits(context)
    link.send(
        ReconnectionAck("ok", worker, token, ttl_ms, True, "running", restored, lost, heartbeat_ms(context), limits),
    )
    parts.assignments.tell_claimed(link, sides)
    for session in link.attached:
        parts.relay.deliver(session, "worker")
    context.outbox.flush()
    if not context.cluster.alone:
        for session in link.attached:
            parts.relay.look(session)
    # Some may be paired with it that it does not know, since a moment ago perhaps: it is asked to take them.
    parts.assignments.check(link)
    context.inboxes.line()
    context.events.emit(WorkerResumed(worker, claimed.epoch, len(restored), len(lost), conn.opened_at, message.trace))
    return link


def _worker_ttl_ms(context: Context) -> int:
    return round(context.config.worker.resume_timeout_s * 1000)


def _capped(context: Context, message: AppReady) -> AppReady:
    """A worker may offer more room than a node lets one connection carry."""
    most = context.config.limits.sessions_per_worker_max
    if message.capacity <= most:
        return message
    fields = {name: getattr(message, name) for name in message.__struct_fields__}
    return AppReady(**{**fields, "capacity": most})
