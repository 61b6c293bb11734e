"""A worker is let in: as a new one, or by the claim of a worker and of all its sessions. A dialect has read what it asks for."""

from collections.abc import Callable
from contextlib import ExitStack

import attrs

from signald.core import tokens
from signald.core.exits import Cause
from signald.ids import new_nonce, new_worker_id
from signald.net.connection import Connection
from signald.service.assigning import Sides
from signald.service.auth import Verified
from signald.service.context import Context
from signald.service.events import WorkerRegistered, WorkerResumed
from signald.service.opening_steps import SetUp, admit, credential_of, make_claim, still_open
from signald.service.parts import Parts
from signald.service.refusals import late, refused, refused_by_store, turning_away
from signald.service.worker_like import Offer, Registered, WorkerLike
from signald.store.base import WAKE_WORKER, Op, Refused
from signald.store.committer import ignore
from signald.store.registry.ops import ClaimWorker, DetachWorker, RegisterWorker, WorkerClaimed
from signald.store.session.ops import Claimed, Detach

MakeLink = Callable[[Parts, Connection, str, int, Offer, str], WorkerLike]
"""Makes the link of a worker that is let in, in the dialect of its connection: worker, epoch, its offer, its principal."""


async def register_worker(parts: Parts, conn: Connection, auth: str | None, offer: Offer, make: MakeLink) -> WorkerLike:
    """Enter a new worker in the registry and tell it its token; it may have lost the one of an earlier life.

    Raises Turned and ConnectionClosed, before anything is attached.
    """
    with turning_away(parts.context, resuming=False):
        return await _register(parts, conn, auth, offer, make)


async def _register(parts: Parts, conn: Connection, auth: str | None, offer: Offer, make: MakeLink) -> WorkerLike:
    context = parts.context
    credential = credential_of(parts, conn, auth, "worker")
    subject = credential.principal.name
    worker = new_worker_id(context.entropy)
    token, token_hash = tokens.issue(worker, context.entropy)
    offer = capped(context, offer)
    with SetUp(parts, conn, resume=False):
        admitted = await admit(parts, conn, credential, want={}, labels=offer.labels)
        offer = granted_offer(offer, admitted.grant.labels, admitted.grant.rooms)
        now = context.now_ms()
        registered = await context.committer.call(
            RegisterWorker(
                worker,
                context.node,
                new_nonce(context.entropy),
                subject,
                offer.instance,
                offer.labels,
                offer.capacity,
                token_hash,
                now,
                context.events_max,
                offer.granted,
                offer.rooms,
            )
        )
    assert isinstance(registered, WorkerClaimed)
    still_open(context, conn, credential, [DetachWorker(worker, registered.epoch, context.now_ms())])
    link = make(parts, conn, worker, registered.epoch, offer, subject)
    link.tokens, link.asked = tokens.Slots(token_hash), (now, 0)
    parts.attachments.workers[worker] = link
    parts.attachments.open(link)
    parts.credentials.bind(link, credential)
    # Sessions that it names are those of an earlier life, which it has nothing to prove with: it starts afresh.
    lost = [one.session for one in offer.sessions]
    api = parts.api_tokens.issue(link) if offer.api else None
    link.registered(Registered(token, _worker_ttl_ms(context), resumed=False, lost=lost, api=api))
    context.writes.flush()
    if not context.cluster.alone:
        parts.assignments.check(link)  # another node may have given it sessions before it was attached here
    context.inboxes.line()
    context.events.emit(
        WorkerRegistered(worker, offer.instance, offer.capacity, conn.opened_at, offer.trace, link.dialect)
    )
    return link


@attrs.frozen
class ReturningWorker:
    """What the opening of a worker that resumes asks for; each field as in `app_ready` of `signald.v1`."""

    token: str = attrs.field(repr=False)
    offer: Offer
    attempt: int = 0
    ticket: str | None = None


@attrs.frozen
class GrantedWorker:
    """The claims of a worker and of its sessions, as the store has granted them."""

    worker: str
    credential: Verified
    token: str = attrs.field(repr=False)
    """The new token, in the clear."""
    slots: tokens.Slots = attrs.field(repr=False)
    asked: tuple[int, int]
    """See `WorkerLike.asked`."""
    epoch: int
    sides: Sides
    labels: dict[str, str]
    """Those that the core server has given the worker."""
    rooms: bytes
    """What it lets the worker do in rooms, as JSON."""
    new: bool = False
    """It was not known before."""


async def resume_worker(
    parts: Parts, conn: Connection, auth: str | None, asked: ReturningWorker, make: MakeLink
) -> WorkerLike:
    """Claim the worker its token names and all its sessions, and replay in each what it has not got.

    `_claim` ends with the store's answer, and `attach_worker` is no coroutine: between the two there is no checkpoint.
    Raises as `register_worker`.
    """
    offer = capped(parts.context, asked.offer)
    with turning_away(parts.context, resuming=True), ExitStack() as until_attached:
        granted = await _claim(parts, conn, auth, asked, offer, until_attached)
        return attach_worker(parts, conn, granted, granted_offer(offer, granted.labels, granted.rooms), make)


async def _claim(
    parts: Parts, conn: Connection, auth: str | None, asked: ReturningWorker, offer: Offer, until_attached: ExitStack
) -> GrantedWorker:
    context = parts.context
    credential = credential_of(parts, conn, auth, "worker")
    subject = credential.principal.name
    parsed = tokens.parse_worker(asked.token)
    if parsed is None:
        raise refused(context, "unknown")
    worker, presented = parsed
    token, issued = tokens.issue(worker, context.entropy)
    now = context.now_ms()
    with SetUp(parts, conn, resume=True, ticket=context.cluster.has_ticket(worker, asked.ticket)):
        claim = ClaimWorker(
            worker,
            context.node,
            new_nonce(context.entropy),
            subject,
            presented,
            issued,
            offer.labels,
            offer.capacity,
            now,
            asked.attempt,
        )
        (claimed,) = await make_claim(parts, conn, [claim], now, WAKE_WORKER + worker.encode())
        if isinstance(claimed, Refused):
            raise await refused_by_store(parts, claimed.reason, worker)
        assert isinstance(claimed, WorkerClaimed)
        # Only now: a claim that is not granted shows that its sender knows an id, and must hold up neither the loss of that worker
        # nor a drain. It is in time, because the sessions are claimed by what follows.
        until_attached.enter_context(parts.attachments.resuming(worker))
        sides = await parts.assignments.claim_sessions(worker, claimed.sessions, offer.sessions, now)
    return GrantedWorker(
        worker,
        credential,
        token,
        tokens.Slots(issued, presented),
        (now, asked.attempt),
        claimed.epoch,
        sides,
        claimed.granted,
        claimed.rooms,
    )


def attach_worker(parts: Parts, conn: Connection, granted: GrantedWorker, offer: Offer, make: MakeLink) -> WorkerLike:
    """Attach a worker whose claims were granted, answer it, and give it what it has not got."""
    context, worker, sides = parts.context, granted.worker, granted.sides
    before = _predecessor(context, parts, conn, granted)
    link = make(parts, conn, worker, granted.epoch, offer, granted.credential.principal.name)
    link.tokens, link.asked = granted.slots, granted.asked
    parts.attachments.workers[worker] = link
    parts.attachments.open(link)
    parts.credentials.bind(link, granted.credential)
    if before is not None:
        parts.attachments.release(before, Cause.WORKER_REPLACED)
    restored, lost = parts.assignments.attach_claimed(link, sides, offer.sessions)
    api = parts.api_tokens.issue(link) if offer.api else None
    link.registered(
        Registered(
            granted.token, _worker_ttl_ms(context), resumed=not granted.new, restored=restored, lost=lost, api=api
        )
    )
    parts.assignments.tell_claimed(link, sides)
    for session in link.attached:
        parts.relay.deliver(session, "worker")
    for one in offer.sessions:
        if one.rooms and (live := parts.attachments.sessions.get(one.session)) is not None and live.worker.link is link:
            parts.rooms.resume(live, "worker", one.rooms)
    context.writes.flush()
    if not context.cluster.alone:
        for session in link.attached:
            parts.relay.look(session)
    # Some may be paired with it that it does not know, since a moment ago perhaps: it is asked to take them.
    parts.assignments.check(link)
    context.inboxes.line()
    since = conn.opened_at, offer.trace, link.dialect
    if granted.new:
        context.events.emit(WorkerRegistered(worker, offer.instance, offer.capacity, *since))
    else:
        context.events.emit(WorkerResumed(worker, granted.epoch, len(restored), len(lost), *since))
    return link


def _predecessor(context: Context, parts: Parts, conn: Connection, granted: GrantedWorker) -> WorkerLike | None:
    """Return the connection that the worker has here already; undoes the claims where no party is left to attach."""
    now = context.now_ms()
    undo: list[Op] = [
        Detach(name, "worker", context.node, side.epoch, now)
        for name, side in granted.sides
        if isinstance(side, Claimed)
    ]
    still_open(context, conn, granted.credential, [*undo, DetachWorker(granted.worker, granted.epoch, now)])
    before = parts.attachments.workers.get(granted.worker)
    if before is not None and before.epoch > granted.epoch:
        # Two claims of one worker were under way here, and the newer one came through first.
        for op in undo:
            context.committer.submit(op, ignore)
        raise late(context)
    return before


def _worker_ttl_ms(context: Context) -> int:
    return round(context.config.worker.resume_timeout_s * 1000)


def granted_offer(offer: Offer, labels: dict[str, str], rooms: bytes) -> Offer:
    """Return the offer with what the core server gives: its labels win over the worker's own."""
    return attrs.evolve(offer, labels={**offer.labels, **labels}, granted=labels, rooms=rooms)


def capped(context: Context, offer: Offer) -> Offer:
    """A worker may offer more room than a node lets one connection carry."""
    return attrs.evolve(offer, capacity=min(offer.capacity, context.config.limits.sessions_per_worker_max))
