"""A client opens: a new session, or the claim of the one it had."""

from functools import partial
from typing import TYPE_CHECKING

import structlog
from msgspec import UNSET

from signald.core import tokens
from signald.core.head import Head
from signald.errors import StoreUnavailable
from signald.ids import new_nonce, new_session_id
from signald.net.connection import Connection
from signald.service.client_link import ClientLink
from signald.service.line import enqueue, place
from signald.service.link import Link
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
from signald.service.refusals import late, refused, refused_by_store
from signald.store.base import WAKE_SESSION, Refused
from signald.store.committer import ignore
from signald.store.registry.ops import Forget, KeepAlive
from signald.store.session.ops import ClaimClient, Claimed, CreateSession, Detach, EndSession, History, ReadHistory
from signald.wire.messages import Connect, Peer, RestoreSession, SessionRestored, SessionStarted
from signald.wire.records import chat_history
from signald.wire.traces import log_fields

if TYPE_CHECKING:
    from signald.service.hub import Hub

log = structlog.get_logger(__name__)


async def start_session(hub: "Hub", conn: Connection, message: Connect) -> Link:
    """Make a session for a new client, put it in the waiting line and tell the client its token."""
    subject = subject_of(hub, conn, message.auth, "client")
    session_id = new_session_id(hub.entropy)
    token, token_hash = tokens.issue(session_id, hub.entropy)
    with SetUp(hub, conn, resume=False, client=subject):
        now = hub.store.now_ms()
        alive_until = now + hub.life_ms
        await hold_session(hub, conn, subject, session_id, len(message.meta), now, alive_until)
        create = CreateSession(
            session_id,
            hub.node,
            new_nonce(hub.entropy),
            subject,
            message.want,
            bytes(message.meta),
            message.receipts,
            token_hash,
            now,
            hub.ttl_ms,
        )
        # Nobody has its token before this is answered: a session that was made for nothing would take a worker's place for as
        # long as one that is waited for.
        undo = [EndSession(session_id, hub.node), Forget(session_id)]
        _, head, _ = await hub.committer.call_many(
            [KeepAlive((session_id,), alive_until), create, place(session_id, message.want, subject, now, alive_until)],
            undo=undo,
        )
    if not isinstance(head, Head):
        raise StoreUnavailable("a session with this id exists")
    still_open(hub, conn, undo)
    session = hub.adopt(head)
    session.client_tokens = (token_hash,)
    link = ClientLink(hub, conn, session)
    session.attach("client", link, head.client_epoch, hub.node, 0)
    hub.holdings.attach(address_of(conn), session)
    hub.ready(link)
    # Nobody has read from the connection while the store was asked: that the client is gone shows when it is to be answered.
    conn.on_unsaid = partial(hub.endings.unheard, link)
    hub.counters.sessions_started += 1
    link.send(
        SessionStarted(
            session_id,
            token,
            hub.ttl_ms,
            Peer(session.peer_state, session.worker_id or None),
            1,
            client_limits(hub),
            heartbeat_ms(hub),
        )
    )
    hub.outbox.flush()
    hub.inboxes.line()
    if not hub.cluster.alone:
        hub.relay.look(session)  # another node may have paired it before it was attached here
    hub.trail.note(session_id, "client", "started")
    log.info("session_started", node=hub.node, session=session_id, **log_fields(message.trace))
    return link


async def restore_session(hub: "Hub", conn: Connection, message: RestoreSession) -> Link:
    """Claim the client of the session its token names, and replay what it has not got."""
    subject = subject_of(hub, conn, message.auth, "client")
    parsed = tokens.parse(message.recovery_token)
    if parsed is None or not parsed[0].startswith("s_"):
        raise refused(hub, "unknown")
    session_id, presented = parsed
    token, issued = tokens.issue(session_id, hub.entropy)
    here = hub.sessions.get(session_id)
    replaces = here is not None and here.client.link is not None and here.principal == subject
    ticket = hub.cluster.has_ticket(session_id, message.ticket)
    with SetUp(hub, conn, resume=True, ticket=ticket, client=subject, replaces=replaces):
        now = hub.store.now_ms()
        claim = ClaimClient(
            session_id,
            hub.node,
            new_nonce(hub.entropy),
            subject,
            presented,
            issued,
            message.received,
            message.acked,
            now,
            hub.ttl_ms,
            message.attempt,
            hub.config.limits.claim_ahead_max,
        )
        ops = [claim, ReadHistory(session_id, message.history)]
        claimed, history = await make_claim(hub, conn, ops, now, WAKE_SESSION + session_id.encode())
        if isinstance(claimed, Refused):
            raise await refused_by_store(hub, claimed.reason, session_id)
    assert isinstance(claimed, Claimed)
    # Not in one step with the claim: a token that resumes nothing must leave nothing behind.
    hub.committer.submit(KeepAlive((session_id,), now + hub.life_ms), ignore)
    still_open(hub, conn, [Detach(session_id, "client", hub.node, claimed.epoch, now)])
    head = claimed.head
    known = hub.sessions.get(session_id)
    if max(head.client_epoch, known.client.epoch if known is not None else 0) > claimed.epoch:
        raise late(hub)
    session = hub.adopt(head)
    session.client_tokens = (issued, presented)
    link = ClientLink(hub, conn, session)
    received = min(message.received, head.down_last)
    session.attach("client", link, claimed.epoch, hub.node, received)
    hub.holdings.attach(address_of(conn), session)
    hub.ready(link)
    hub.counters.resumes += 1
    _count_gap(hub, claimed)
    entries = history.entries if isinstance(history, History) else ()
    link.send(
        SessionRestored(
            session_id,
            token,
            hub.ttl_ms,
            head.up_last,
            head.down_last - received,
            Peer(session.peer_state, session.worker_id or None),
            heartbeat_ms(hub),
            chat_history(entries) if message.history else UNSET,
            client_limits(hub),
        )
    )
    hub.losses.tell_claim(link, session_id, claimed)
    hub.tell_set_aside(session)
    hub.relay.deliver(session, "client")
    if session.spent:
        hub.spent(session)
    hub.outbox.flush()
    if not session.worker_id and session.failures.may_queue(now):
        hub.committer.submit(enqueue(session, now + hub.life_ms), lambda _: hub.inboxes.line())
    if not hub.cluster.alone:
        hub.relay.look(session)  # something may have been appended since the claim and before the attachment
    hub.trail.note(session_id, "client", "resumed", _resumed(claimed, head.down_last - received))
    log.info(
        "session_restored",
        node=hub.node,
        session=session_id,
        epoch=claimed.epoch,
        replaying=head.down_last - received,
        **log_fields(message.trace),
    )
    return link


def _count_gap(hub: "Hub", claimed: Claimed) -> None:
    before = hub.cluster.nodes.get(claimed.previous_node)
    if not claimed.previous_node:
        hub.counts.gaps.observe(claimed.away_ms / 1000)
    elif before is not None and before.state == "draining":
        # It was told to go and is still attached there: a new connection before the old one ends.
        hub.counts.gaps.observe(0.0)
    # Otherwise its node has not noticed that it was gone, or is dead: nobody knows since when.


def _resumed(claimed: Claimed, replaying: int) -> str:
    came = f" from {claimed.previous_node}" if claimed.previous_node else ""
    return f"epoch {claimed.epoch}{came}, replaying {replaying}"
