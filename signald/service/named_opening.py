"""A worker without a recovery token is let in: found by its name and its principal, or entered under them.

The wires of older programs have no token. Such a worker says the name of its instance, and its id in the registry follows from it
(`ids.named_worker`). A newer connection of the same principal supersedes the one before, at whichever node that is; another
principal is refused for as long as the name is known. What the worker has received it cannot say either: it goes on with what the
store knows to be acked, for which its link acks in its place.
"""

from contextlib import ExitStack

import attrs

from signald.core import tokens
from signald.core.wants import tenant_of
from signald.ids import named_worker, new_nonce
from signald.net.connection import Connection
from signald.service.auth import Verified
from signald.service.opening_steps import SetUp, admit, credential_of, make_claim
from signald.service.parts import Parts
from signald.service.refusals import Turned, late, refused_by_store, turning_away
from signald.service.worker_like import Offer, WorkerLike
from signald.service.worker_opening import GrantedWorker, MakeLink, attach_worker, capped, granted_offer
from signald.store.base import WAKE_WORKER, Refused
from signald.store.registry.ops import ClaimNamed, RemoveWorker, WorkerClaimed
from signald.store.session.ops import Look, Looked
from signald.wire.close_codes import CloseCode
from signald.wire.messages import SessionPosition


@attrs.frozen
class NamedWorker:
    """What the opening of such a worker says."""

    offer: Offer
    kind: str
    """The kind of program: two kinds may use one name."""
    returning: bool
    """It has said that it was here before."""


async def enter_worker(
    parts: Parts, conn: Connection, auth: str | None, asked: NamedWorker, make: MakeLink
) -> WorkerLike:
    """Claim the worker by its name with all its sessions, or enter it, and answer it.

    From the store's last answer to the attachment there is no checkpoint. Raises as `register_worker`.
    """
    offer = capped(parts.context, asked.offer)
    with turning_away(parts.context, resuming=asked.returning), ExitStack() as until_attached:
        credential = credential_of(parts, conn, auth, "worker")
        granted, offer = await _claim(parts, conn, credential, attrs.evolve(asked, offer=offer), until_attached)
        return attach_worker(parts, conn, granted, offer, make)


async def _claim(
    parts: Parts, conn: Connection, credential: Verified, asked: NamedWorker, until_attached: ExitStack
) -> tuple[GrantedWorker, Offer]:
    context, offer = parts.context, asked.offer
    worker = _id_of(asked, credential)
    with SetUp(parts, conn, resume=asked.returning):
        now = context.now_ms()
        claim = ClaimNamed(
            worker,
            context.node,
            new_nonce(context.entropy),
            credential.principal.name,
            offer.instance,
            offer.labels,
            offer.capacity,
            create=False,
            now_ms=now,
            events_max=context.events_max,
        )
        claimed = await _ask(parts, conn, claim)
        if claimed is None:
            admitted = await admit(parts, conn, credential, want={}, labels=offer.labels)
            offer = granted_offer(offer, admitted.grant.labels, admitted.grant.rooms)
            now = context.now_ms()
            claimed = await _ask(parts, conn, _entering(claim, offer, new_nonce(context.entropy), now))
            assert claimed is not None
        until_attached.enter_context(parts.attachments.resuming(worker))
        positions = await _positions(parts, claimed.sessions)
        sides = await parts.assignments.claim_sessions(worker, claimed.sessions, positions, now)
    granted = GrantedWorker(
        worker,
        credential,
        "",
        tokens.Slots(),
        (now, 0),
        claimed.epoch,
        sides,
        claimed.granted,
        claimed.rooms,
        new=claimed.epoch == 1,
    )
    return granted, attrs.evolve(granted_offer(offer, claimed.granted, claimed.rooms), sessions=positions)


def _id_of(asked: NamedWorker, credential: Verified) -> str:
    """Return the id of a worker by its name. The same name in two tenants is two workers."""
    tenant = tenant_of(credential.principal.name)
    # No tenant has the character between the parts in it, and the last part may have any.
    return named_worker("\x1f".join((asked.kind, "" if tenant is None else f"={tenant}", asked.offer.instance)))


def _entering(claim: ClaimNamed, offer: Offer, nonce: str, now_ms: int) -> ClaimNamed:
    """Return `claim` for a worker that is not known yet, with what the core server gives it."""
    return ClaimNamed(
        claim.worker,
        claim.node,
        nonce,
        claim.principal,
        claim.instance,
        offer.labels,
        claim.capacity,
        create=True,
        now_ms=now_ms,
        events_max=claim.events_max,
        granted=offer.granted,
        rooms=offer.rooms,
    )


async def _ask(parts: Parts, conn: Connection, claim: ClaimNamed) -> WorkerClaimed | None:
    """Make a claim; None: no such worker is known, and it may be entered. Raises Turned."""
    context = parts.context
    (claimed,) = await make_claim(parts, conn, [claim], claim.now_ms, WAKE_WORKER + claim.worker.encode())
    if isinstance(claimed, WorkerClaimed):
        return claimed
    assert isinstance(claimed, Refused)
    if claimed.reason == "principal":
        raise Turned(CloseCode.FORBIDDEN, "forbidden", "this instance_id belongs to another subject")
    if claimed.reason == "unreadable":
        # Its record is damaged, and no token is lost with it: it begins anew.
        removed = RemoveWorker(claim.worker, context.node, 0, True, "unreadable", claim.events_max, claim.now_ms)
        await context.committer.call(removed)
        return None
    if claimed.reason == "unknown":
        if await context.incarnation.may_come_back():
            # The store has just lost everything, and the node that still knows this worker may not have said so yet.
            raise await refused_by_store(parts, "unknown", claim.worker)
        return None
    raise late(context)


async def _positions(parts: Parts, sessions: tuple[str, ...]) -> list[SessionPosition]:
    """Return how far the worker is in its sessions, as far as the store knows."""
    looked = await parts.context.committer.call_many([Look(name, "worker", 0, 0) for name in sessions])
    return [
        SessionPosition(name, result.head.up_acked, result.head.down_last)
        for name, result in zip(sessions, looked, strict=True)
        if isinstance(result, Looked)
    ]
