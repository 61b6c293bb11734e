"""A client opens: a new session, or the claim of the one it had."""

from functools import partial

from msgspec import UNSET

from signald.core import tokens
from signald.core.head import Head
from signald.dialects.v1.client import ClientLink
from signald.errors import StoreUnavailable
from signald.ids import new_nonce, new_session_id
from signald.net.connection import Connection
from signald.service.context import Context
from signald.service.events import ClientResumed, ClientStarted
from signald.service.line import enqueue, place
from signald.service.opening_steps import (
    SetUp,
    address_of,
    client_limits,
    heartbeat_ms,
    hold_session,
    make_claim,
    still_open,
    subject_of,
)
from signald.service.parts import Parts
from signald.service.refusals import late, refused, refused_by_store
from signald.store.base import WAKE_SESSION, Refused
from signald.store.committer import ignore
from signald.store.registry.ops import KeepAlive
from signald.store.sagas import end_session
from signald.store.session.ops import ClaimClient, Claimed, CreateSession, Detach, History, ReadHistory
from signald.wire.messages import Connect, Peer, RestoreSession, SessionRestored, SessionStarted
from signald.wire.records import chat_history


async def start_session(parts: Parts, conn: Connection, message: Connect) -> ClientLink:
    """Make a session for a new client, put it in the waiting line and tell the client its token."""
    context = parts.context
    subject = subject_of(parts, conn, message.auth, "client")
    session_id = new_session_id(context.entropy)
    token, token_hash = tokens.issue(session_id, context.entropy)
    with SetUp(parts, conn, resume=False, client=subject):
        now = context.now_ms()
        alive_until = now + context.life_ms
        await hold_session(parts, conn, subject, session_id, len(message.meta), now, alive_until)
        create = CreateSession(
            session_id,
            context.node,
            new_nonce(context.entropy),
            subject,
            message.want,
            bytes(message.meta),
            message.receipts,
            token_hash,
            now,
            context.ttl_ms,
        )
        # Nobody has its token before this is answered: a session that was made for nothing would take a worker's place for as
        # long as one that is waited for.
        undo = end_session(session_id, context.node)
        _, head, _ = await context.committer.call_many(
            [KeepAlive((session_id,), alive_until), create, place(session_id, message.want, subject, now, alive_until)],
            undo=undo,
        )
    if not isinstance(head, Head):
        raise StoreUnavailable("a session with this id exists")
    still_open(context, conn, undo)
    session = parts.attachments.adopt(head)
    session.client_tokens = (token_hash,)
    link = ClientLink(parts, conn, session)
    parts.attachments.attach(link, session, head.client_epoch, 0, address_of(conn))
    parts.attachments.open(link)
    # Nobody has read from the connection while the store was asked: that the client is gone shows when it is to be answered.
    conn.on_unsaid = partial(parts.endings.unheard, session, link)
    link.send(
        SessionStarted(
            session_id,
            token,
            context.ttl_ms,
            Peer(session.peer_state, session.worker_id or None),
            1,
            client_limits(context),
            heartbeat_ms(context),
        )
    )
    context.outbox.flush()
    context.inboxes.line()
    if not context.cluster.alone:
        parts.relay.look(session)  # another node may have paired it before it was attached here
    context.events.emit(ClientStarted(session_id, conn.opened_at, message.trace))
    return link


async def restore_session(parts: Parts, conn: Connection, message: RestoreSession) -> ClientLink:
    """Claim the client of the session its token names, and replay what it has not got."""
    context = parts.context
    subject = subject_of(parts, conn, message.auth, "client")
    parsed = tokens.parse(message.recovery_token)
    if parsed is None or not parsed[0].startswith("s_"):
        raise refused(context, "unknown")
    session_id, presented = parsed
    token, issued = tokens.issue(session_id, context.entropy)
    here = parts.attachments.sessions.get(session_id)
    replaces = here is not None and here.client.link is not None and here.principal == subject
    ticket = context.cluster.has_ticket(session_id, message.ticket)
    with SetUp(parts, conn, resume=True, ticket=ticket, client=subject, replaces=replaces):
        now = context.now_ms()
        claim = ClaimClient(
            session_id,
            context.node,
            new_nonce(context.entropy),
            subject,
            presented,
            issued,
            message.received,
            message.acked,
            now,
            context.ttl_ms,
            message.attempt,
            context.config.limits.claim_ahead_max,
        )
        ops = [claim, ReadHistory(session_id, message.history)]
        claimed, history = await make_claim(parts, conn, ops, now, WAKE_SESSION + session_id.encode())
        if isinstance(claimed, Refused):
            raise await refused_by_store(parts, claimed.reason, session_id)
    assert isinstance(claimed, Claimed)
    # Not in one step with the claim: a token that resumes nothing must leave nothing behind.
    context.committer.submit(KeepAlive((session_id,), now + context.life_ms), ignore)
    still_open(context, conn, [Detach(session_id, "client", context.node, claimed.epoch, now)])
    head = claimed.head
    known = parts.attachments.sessions.get(session_id)
    if max(head.client_epoch, known.client.epoch if known is not None else 0) > claimed.epoch:
        raise late(context)
    session = parts.attachments.adopt(head)
    session.client_tokens = (issued, presented)
    link = ClientLink(parts, conn, session)
    received = min(message.received, head.down_last)
    parts.attachments.attach(link, session, claimed.epoch, received, address_of(conn))
    parts.attachments.open(link)
    entries = history.entries if isinstance(history, History) else ()
    link.send(
        SessionRestored(
            session_id,
            token,
            context.ttl_ms,
            head.up_last,
            head.down_last - received,
            Peer(session.peer_state, session.worker_id or None),
            heartbeat_ms(context),
            chat_history(entries) if message.history else UNSET,
            client_limits(context),
        )
    )
    parts.losses.tell_claim(link, session_id, claimed)
    parts.attachments.tell_set_aside(session)
    parts.relay.deliver(session, "client")
    if session.spent:
        parts.attachments.spent(session)
    context.outbox.flush()
    if not session.worker_id and session.failures.may_queue(now):
        context.committer.submit(enqueue(session, now + context.life_ms), lambda _: context.inboxes.line())
    if not context.cluster.alone:
        parts.relay.look(session)  # something may have been appended since the claim and before the attachment
    previous, replaying = claimed.previous_node, head.down_last - received
    gap_s, opened_at = _gap_s(context, claimed), conn.opened_at
    context.events.emit(ClientResumed(session_id, claimed.epoch, previous, replaying, gap_s, opened_at, message.trace))
    return link


def _gap_s(context: Context, claimed: Claimed) -> float | None:
    """Return how long the client was away; None when it is not known."""
    if not claimed.previous_node:
        return claimed.away_ms / 1000
    before = context.cluster.nodes.get(claimed.previous_node)
    if before is not None and before.state == "draining":
        # It was told to go and is still attached there: a new connection before the old one ends.
        return 0.0
    return None  # its node has not noticed that it was gone, or is dead
