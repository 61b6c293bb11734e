"""A worker opens: a new one, or the claim of a worker and of all its sessions."""

from contextlib import ExitStack
from typing import TYPE_CHECKING

import structlog

from signald.core import tokens
from signald.ids import new_nonce, new_worker_id
from signald.net.connection import Connection
from signald.service.link import Link
from signald.service.opening_steps import SetUp, heartbeat_ms, make_claim, still_open, subject_of, worker_limits
from signald.service.refusals import late, refused, refused_by_store
from signald.service.worker_link import WorkerLink
from signald.store.base import WAKE_WORKER, Op, Refused
from signald.store.committer import ignore
from signald.store.registry.ops import ClaimWorker, DetachWorker, RegisterWorker, WorkerClaimed
from signald.store.session.ops import Claimed, Detach
from signald.wire.messages import AppAccepted, AppReady, ReconnectionAck
from signald.wire.traces import log_fields

if TYPE_CHECKING:
    from signald.service.hub import Hub

log = structlog.get_logger(__name__)


async def register_worker(hub: "Hub", conn: Connection, message: AppReady) -> Link:
    """Enter a new worker in the registry and tell it its token; it may have lost the one of an earlier life."""
    subject = subject_of(hub, conn, message.auth, "worker")
    worker = new_worker_id(hub.entropy)
    token, token_hash = tokens.issue(worker, hub.entropy)
    message = _capped(hub, message)
    with SetUp(hub, conn, resume=False):
        registered = await hub.committer.call(
            RegisterWorker(
                worker,
                hub.node,
                new_nonce(hub.entropy),
                subject,
                message.instance_id,
                message.labels,
                message.capacity,
                token_hash,
                hub.store.now_ms(),
            )
        )
    assert isinstance(registered, WorkerClaimed)
    still_open(hub, conn, [DetachWorker(worker, registered.epoch, hub.store.now_ms())])
    link = WorkerLink(hub, conn, worker, registered.epoch, message, subject)
    link.tokens = tokens.Slots(token_hash)
    hub.worker_links[worker] = link
    hub.ready(link)
    hub.counters.workers_registered += 1
    limits = worker_limits(hub)
    if message.reconnection:
        # It says it was here before, but has nothing to prove it with: it starts afresh.
        lost = [one.session for one in message.sessions]
        link.send(
            ReconnectionAck(
                "ok", worker, token, _worker_ttl_ms(hub), False, "running", [], lost, heartbeat_ms(hub), limits
            ),
        )
    else:
        link.send(AppAccepted("ok", worker, token, _worker_ttl_ms(hub), heartbeat_ms(hub), limits))
    hub.outbox.flush()
    if not hub.cluster.alone:
        hub.workers.check(link)  # another node may have given it sessions before it was attached here
    hub.inboxes.line()
    log.info(
        "worker_registered",
        node=hub.node,
        worker=worker,
        instance=message.instance_id,
        capacity=message.capacity,
        **log_fields(message.trace),
    )
    return link


async def resume_worker(hub: "Hub", conn: Connection, message: AppReady) -> Link:
    """Claim the worker its token names and all its sessions, and replay in each what it has not got."""
    subject = subject_of(hub, conn, message.auth, "worker")
    parsed = tokens.parse(message.recovery_token or "")
    if parsed is None or not parsed[0].startswith("w_"):
        raise refused(hub, "unknown")
    worker, presented = parsed
    with ExitStack() as until_attached:
        return await _claim_worker(hub, conn, message, subject, worker, presented, until_attached)


async def _claim_worker(
    hub: "Hub",
    conn: Connection,
    message: AppReady,
    subject: str,
    worker: str,
    presented: bytes,
    until_attached: ExitStack,
) -> Link:
    token, issued = tokens.issue(worker, hub.entropy)
    message = _capped(hub, message)
    asked = hub.store.now_ms()
    with SetUp(hub, conn, resume=True, ticket=hub.cluster.has_ticket(worker, message.ticket)):
        claim = ClaimWorker(
            worker,
            hub.node,
            new_nonce(hub.entropy),
            subject,
            presented,
            issued,
            message.labels,
            message.capacity,
            asked,
            message.attempt,
        )
        (claimed,) = await make_claim(hub, conn, [claim], asked, WAKE_WORKER + worker.encode())
        if isinstance(claimed, Refused):
            raise await refused_by_store(hub, claimed.reason, worker)
        assert isinstance(claimed, WorkerClaimed)
        # Only now: a claim that is not granted shows that its sender knows an id, and must hold up neither the loss of that worker
        # nor a drain. It is in time, because the sessions are claimed by what follows.
        until_attached.enter_context(hub.resuming(worker))
        sides = await hub.workers.claim_sessions(worker, claimed.sessions, message.sessions, asked)
    now = hub.store.now_ms()
    granted = [(name, side.epoch) for name, side in sides if isinstance(side, Claimed)]
    undo: list[Op] = [Detach(name, "worker", hub.node, epoch, now) for name, epoch in granted]
    still_open(hub, conn, [*undo, DetachWorker(worker, claimed.epoch, now)])
    before = hub.worker_links.get(worker)
    if before is not None and before.epoch > claimed.epoch:
        # Two claims of one worker were under way here, and the newer one came through first.
        for op in undo:
            hub.committer.submit(op, ignore)
        raise late(hub)
    link = WorkerLink(hub, conn, worker, claimed.epoch, message, subject)
    link.tokens = tokens.Slots(issued, presented)
    hub.worker_links[worker] = link
    hub.ready(link)
    hub.counters.resumes += 1
    if before is not None:
        hub.workers.replaced_link(before)
    restored, lost = hub.workers.attach_claimed(link, sides, message.sessions)
    ttl_ms, limits = _worker_ttl_ms(hub), worker_limits(hub)
    link.send(
        ReconnectionAck("ok", worker, token, ttl_ms, True, "running", restored, lost, heartbeat_ms(hub), limits),
    )
    hub.workers.tell_claimed(link, sides)
    for session in list(link.sessions.values()):
        hub.relay.deliver(session, "worker")
    hub.outbox.flush()
    if not hub.cluster.alone:
        for session in list(link.sessions.values()):
            hub.relay.look(session)
    # Some may be paired with it that it does not know, since a moment ago perhaps: it is asked to take them.
    hub.workers.check(link)
    hub.inboxes.line()
    log.info(
        "worker_resumed",
        node=hub.node,
        worker=worker,
        epoch=claimed.epoch,
        sessions=len(restored),
        lost=len(lost),
        **log_fields(message.trace),
    )
    return link


def _worker_ttl_ms(hub: "Hub") -> int:
    return round(hub.config.worker.resume_timeout_s * 1000)


def _capped(hub: "Hub", message: AppReady) -> AppReady:
    """A worker may offer more room than a node lets one connection carry."""
    most = hub.config.limits.sessions_per_worker_max
    if message.capacity <= most:
        return message
    fields = {name: getattr(message, name) for name in message.__struct_fields__}
    return AppReady(**{**fields, "capacity": most})
