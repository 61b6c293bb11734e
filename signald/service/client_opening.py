"""A client is let in: with a new session, or by the claim of the one it had. A dialect has read what it asks for."""

from collections.abc import Callable, Sequence
from functools import partial

import attrs

from signald.core import tokens
from signald.core.head import Head
from signald.core.holders import principal_holder
from signald.core.jobs import Job
from signald.errors import StoreUnavailable
from signald.ids import new_nonce, new_session_id
from signald.net.connection import Connection
from signald.service.attached import ApiToken, ClientLike, LiveSession, Restored, Started
from signald.service.auth import Verified
from signald.service.context import Context
from signald.service.events import ClientResumed, ClientStarted
from signald.service.jobs import CHANGED_MAX
from signald.service.line import enqueue, give_back, place
from signald.service.opening_steps import (
    SetUp,
    address_of,
    admit,
    credential_of,
    hold_session,
    make_claim,
    still_open,
)
from signald.service.parts import Parts
from signald.service.pasts import take_back
from signald.service.refusals import late, refused, refused_by_store, turning_away
from signald.store.base import WAKE_SESSION, Op, Refused
from signald.store.committer import ignore
from signald.store.registry.ops import KeepAlive
from signald.store.session.jobs.ops import JobList, ListChangedJobs
from signald.store.session.ops import ClaimClient, Claimed, CreateSession, Detach
from signald.wire.rooms import RoomPosition


@attrs.frozen
class NewClient:
    """What the opening of a new client asks for; each field as in `connect` of `signald.v1`."""

    want: dict[str, str]
    meta: bytes = b""
    receipts: bool = False
    trace: str | None = None
    pair: bool = True
    api: bool = False


@attrs.frozen
class ReturningClient:
    """What the opening of a client that resumes asks for; each field as in `restore_session` of `signald.v1`."""

    token: str = attrs.field(repr=False)
    received: int | None
    """None: it does not know."""
    acked: int = 0
    attempt: int = 0
    history: int = 0
    ticket: str | None = None
    trace: str | None = None
    api: bool = False
    rooms: Sequence[RoomPosition] = ()


MakeLink = Callable[[Parts, Connection, LiveSession], ClientLike]
"""Makes the link of a client that is let in, in the dialect of its connection."""


async def start_session(
    parts: Parts, conn: Connection, auth: str | None, asked: NewClient, make: MakeLink
) -> ClientLike:
    """Make a session for a new client, put it in the waiting line and tell the client its token.

    `_create` ends with the store's answer, and `_begin` is no coroutine: between the two there is no checkpoint.
    Raises Turned and ConnectionClosed, before anything is attached.
    """
    with turning_away(parts.context, resuming=False):
        made = await _create(parts, conn, auth, asked)
        return _begin(parts, conn, made, asked, make)


@attrs.frozen
class _Made:
    """A session that the store has made."""

    head: Head
    credential: Verified
    token: str = attrs.field(repr=False)
    """In the clear."""
    token_hash: bytes = attrs.field(repr=False)
    undo: Sequence[Op]
    """The operations that take the session back."""


async def _create(parts: Parts, conn: Connection, auth: str | None, asked: NewClient) -> _Made:
    context = parts.context
    credential = credential_of(parts, conn, auth, "client")
    subject = credential.principal.name
    session_id = new_session_id(context.entropy)
    token, token_hash = tokens.issue(session_id, context.entropy)
    with SetUp(parts, conn, resume=False, client=subject):
        admitted = await admit(parts, conn, credential, want=asked.want, meta=asked.meta)
        grant, want = admitted.grant, {**asked.want, **admitted.grant.want}
        now = context.now_ms()
        alive_until = now + context.life_ms
        await hold_session(parts, conn, subject, session_id, len(asked.meta), now, alive_until)
        create = CreateSession(
            session_id,
            context.node,
            new_nonce(context.entropy),
            subject,
            want,
            asked.meta,
            asked.receipts,
            token_hash,
            now,
            context.ttl_ms,
            asked.pair,
            context.events_max,
            grant.settings,
            grant.rooms,
            admitted.asked_until_ms,
        )
        ops: list[Op] = [KeepAlive((session_id,), alive_until), create]
        if asked.pair:
            ops.append(place(session_id, want, subject, now, alive_until))
        # Nobody has its token before this is answered: a session that was made for nothing would take a worker's place for as
        # long as one that is waited for.
        undo = take_back(context, session_id)
        _, head, *_ = await context.committer.call_many(ops, undo=undo)
    if not isinstance(head, Head):
        raise StoreUnavailable("a session with this id exists")
    return _Made(head, credential, token, token_hash, undo)


def _begin(parts: Parts, conn: Connection, made: _Made, asked: NewClient, make: MakeLink) -> ClientLike:
    """Attach a new client to its session, and answer it."""
    context, head = parts.context, made.head
    session_id = head.session
    still_open(context, conn, made.credential, made.undo)
    session = parts.attachments.adopt(head)
    session.client_tokens, session.client_asked = (made.token_hash,), (head.created_ms, 0)
    link = make(parts, conn, session)
    parts.attachments.attach(link, session, head.client_epoch, 0, address_of(conn))
    parts.attachments.open(link)
    parts.credentials.bind(link, made.credential)
    # Nobody has read from the connection while the store was asked: that the client is gone shows when it is to be answered.
    conn.on_unsaid = partial(parts.endings.unheard, session, link)
    api = parts.api_tokens.issue(link) if asked.api else None
    link.started(
        Started(
            session_id,
            made.token,
            context.ttl_ms,
            session.peer_state,
            session.worker_id,
            api=api,
            settings=head.settings,
        )
    )
    if asked.api:
        parts.rooms.greet(session)
    context.writes.flush()
    if session.pair:
        context.inboxes.line()
    if not context.cluster.alone:
        parts.relay.look(session)  # another node may have paired it before it was attached here
    context.events.emit(ClientStarted(session_id, conn.opened_at, asked.trace, link.dialect))
    return link


@attrs.frozen
class _Granted:
    """A claim that the store has granted."""

    credential: Verified
    token: str = attrs.field(repr=False)
    """The new token, in the clear."""
    hashes: tuple[bytes, bytes] = attrs.field(repr=False)
    """Of the new token, and of the presented one."""
    claimed: Claimed
    jobs: Sequence[Job]
    """Those that the client is told of in its answer."""
    now: int
    """When it was asked for (time of the store)."""


async def restore_session(
    parts: Parts, conn: Connection, auth: str | None, asked: ReturningClient, make: MakeLink
) -> ClientLike:
    """Claim the client of the session its token names, and replay what it has not got.

    `_claim` ends with the store's answer, and `_attach` is no coroutine: between the two there is no checkpoint.
    Raises as `start_session`.
    """
    with turning_away(parts.context, resuming=True):
        granted = await _claim(parts, conn, auth, asked)
        return _attach(parts, conn, granted, asked, make)


async def _claim(parts: Parts, conn: Connection, auth: str | None, asked: ReturningClient) -> _Granted:
    context = parts.context
    credential = credential_of(parts, conn, auth, "client")
    subject = credential.principal.name
    parsed = tokens.parse_session(asked.token)
    if parsed is None:
        raise refused(context, "unknown")
    session_id, presented = parsed
    token, issued = tokens.issue(session_id, context.entropy)
    here = parts.attachments.sessions.get(session_id)
    replaces = here is not None and here.client.link is not None and here.principal == subject
    ticket = context.cluster.has_ticket(session_id, asked.ticket)
    with SetUp(parts, conn, resume=True, ticket=ticket, client=subject, replaces=replaces):
        now = context.now_ms()
        claim = ClaimClient(
            session_id,
            context.node,
            new_nonce(context.entropy),
            subject,
            presented,
            issued,
            asked.received or 0,
            asked.acked,
            now,
            context.ttl_ms,
            asked.attempt,
            context.config.limits.claim_ahead_max,
            asked.history,
            context.events_max,
        )
        (claimed,) = await make_claim(parts, conn, [claim], now, WAKE_SESSION + session_id.encode())
        if isinstance(claimed, Refused):
            raise await refused_by_store(parts, claimed.reason, session_id)
        assert isinstance(claimed, Claimed)
        jobs = await _jobs(context, claimed.head, now)
    return _Granted(credential, token, (issued, presented), claimed, jobs, now)


async def _jobs(context: Context, head: Head, now: int) -> Sequence[Job]:
    """Return the jobs of a session that have not ended, or have within the time to live of its token; oldest first.

    Only a session with jobs waits for them. What happens meanwhile is found by the look that follows its attachment.
    """
    if not head.jobs:
        return ()
    listed = await context.committer.call(ListChangedJobs(head.session, 0, now - context.ttl_ms, CHANGED_MAX))
    return listed.jobs[::-1] if isinstance(listed, JobList) else ()


def _attach(parts: Parts, conn: Connection, granted: _Granted, asked: ReturningClient, make: MakeLink) -> ClientLike:
    """Attach a client whose claim was granted, answer it, and give it what it has not got."""
    context, claimed, now = parts.context, granted.claimed, granted.now
    head = claimed.head
    session_id = head.session
    # Not in one step with the claim: a token that resumes nothing must leave nothing behind.
    holder = principal_holder(head.principal)  # of a session that release 0.1.0 has made
    context.committer.submit(KeepAlive((session_id,), now + context.life_ms, (holder,)), ignore)
    still_open(context, conn, granted.credential, [Detach(session_id, "client", context.node, claimed.epoch, now)])
    known = parts.attachments.sessions.get(session_id)
    if max(head.client_epoch, known.client.epoch if known is not None else 0) > claimed.epoch:
        raise late(context)
    session = parts.attachments.adopt(head)
    session.client_tokens, session.client_asked = granted.hashes, (now, asked.attempt)
    link = make(parts, conn, session)
    received = head.down_acked if asked.received is None else min(asked.received, head.down_last)
    replaying = head.down_last - received
    parts.attachments.attach(link, session, claimed.epoch, received, address_of(conn))
    parts.attachments.open(link)
    parts.credentials.bind(link, granted.credential)
    parts.reasking.resumed(session, granted.credential, "" if conn.shared else conn.remote)
    parts.jobs.restored(session, link, head.jobs, granted.jobs)
    api = parts.api_tokens.issue(link) if asked.api else None
    link.restored(_restored(context, session, granted, asked, replaying, api))
    parts.losses.tell_claim(link, session_id, claimed)
    parts.attachments.tell_set_aside(session)
    parts.relay.deliver(session, "client")
    parts.attachments.streams.tell(session, claimed.streams)
    if session.spent:
        parts.attachments.spent(session)
    parts.rooms.resume(session, "client", asked.rooms)
    if asked.api:
        parts.rooms.greet(session)
    context.writes.flush()
    if not session.pair:
        if head.worker:  # by a node of release 0.1.0
            context.spawn(give_back, context, session_id, head.worker, head.worker_epoch)
    elif not session.worker_id and session.failures.may_queue(now):
        context.committer.submit(enqueue(session, now + context.life_ms), lambda _: context.inboxes.line())
    if head.jobs or not context.cluster.alone:
        parts.relay.look(session)  # something may have been appended since the claim and before the attachment
    context.events.emit(
        ClientResumed(
            session_id,
            claimed.epoch,
            claimed.previous_node,
            replaying,
            _gap_s(context, claimed),
            conn.opened_at,
            asked.trace,
            link.dialect,
        )
    )
    return link


def _restored(
    context: Context,
    session: LiveSession,
    granted: _Granted,
    asked: ReturningClient,
    replaying: int,
    api: ApiToken | None,
) -> Restored:
    last = granted.claimed.head.down_last
    return Restored(
        session.id,
        granted.token,
        context.ttl_ms,
        session.peer_state,
        session.worker_id if session.pair else "",
        granted.claimed.head.up_last,
        replaying,
        granted.claimed.history if asked.history else None,
        jobs=granted.jobs,
        next_received=last - replaying + 1 if asked.received is None else None,
        api=api,
        settings=session.settings,
    )


def _gap_s(context: Context, claimed: Claimed) -> float | None:
    """Return how long the client was away; None when it is not known."""
    if not claimed.previous_node:
        # A session that was begun over HTTP has its first client now, which has missed nothing.
        return claimed.away_ms / 1000 if claimed.epoch > 1 else None
    before = context.cluster.nodes.get(claimed.previous_node)
    if before is not None and before.state == "draining":
        # It was told to go and is still attached there: a new connection before the old one ends.
        return 0.0
    return None  # its node has not noticed that it was gone, or is dead
