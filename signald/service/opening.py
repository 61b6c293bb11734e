"""The opening message of a party, and its answer: the first frame it gets.

    connect            ▸ session_started      a new session, which waits for a worker
    restore_session    ▸ session_restored     the claim of a client
    app_ready          ▸ app_accepted         a new worker
    app_ready (again)  ▸ reconnection_ack     the claim of a worker and of all its sessions

Every step that can be refused is refused before anything is attached; from the store's answer to the attachment there
is no checkpoint, so nothing can happen between the two.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import structlog
import trio
from msgspec import UNSET, UnsetType

from signald.core import tokens
from signald.errors import BadMessage, StoreUnavailable, UnknownType
from signald.ids import new_nonce, new_session_id, new_worker_id
from signald.net.connection import Connection, ConnectionClosed
from signald.net.frames import Message as Frame
from signald.service.auth import Forbidden, Role, Unauthenticated
from signald.service.client_link import ClientLink
from signald.service.counts import RESUMED
from signald.service.link import Link, retry_reason
from signald.service.mender import ask_holders, is_unreadable
from signald.service.worker_link import WorkerLink
from signald.store.base import (
    WAKE_SESSION,
    WAKE_WORKER,
    ClaimClient,
    Claimed,
    ClaimWorker,
    CreateSession,
    Detach,
    DetachWorker,
    EndSession,
    Enqueue,
    Forget,
    Head,
    History,
    KeepAlive,
    Op,
    ReadHistory,
    Refused,
    RegisterWorker,
    Result,
    Wake,
    WorkerClaimed,
)
from signald.wire import codec
from signald.wire.close_codes import CloseCode
from signald.wire.messages import (
    AppAccepted,
    AppReady,
    Connect,
    ErrorMessage,
    Limits,
    Peer,
    Ping,
    ReconnectionAck,
    RestoreSession,
    SessionRestored,
    SessionStarted,
)
from signald.wire.records import chat_history
from signald.wire.traces import log_fields

if TYPE_CHECKING:
    from signald.service.hub import Hub

log = structlog.get_logger(__name__)

Opened = tuple[Link, list[Frame]]
Opening = Connect | RestoreSession | AppReady

FRAMES_MAX = 100
"""Frames until a party has begun, its opening message included: whoever is there to begin does not ping for long."""

_OPENED = {
    ("client", False): "session_started",
    ("client", True): "session_restored",
    ("worker", False): "worker_registered",
    ("worker", True): "worker_resumed",
}
"""Party, and whether it resumed → what that is called in logs and spans."""

_REFUSALS: dict[str, tuple[CloseCode, str]] = {
    "unknown": (CloseCode.NOTHING_TO_RESUME, "nothing to resume for this token"),
    "unreadable": (CloseCode.NOTHING_TO_RESUME, "nothing to resume for this token"),
    "expired": (CloseCode.NOTHING_TO_RESUME, "nothing to resume for this token"),
    "principal": (CloseCode.FORBIDDEN, "this token belongs to somebody else"),
    "revoked": (CloseCode.FORBIDDEN, "this token has been revoked"),
    "token_reuse": (CloseCode.FORBIDDEN, "this token was used before; all tokens of this party are revoked"),
}
"""Reason of a refused claim → how the connection ends."""


class _Turned(Exception):
    """The party is turned away."""

    def __init__(self, code: CloseCode, error: str, message: str, retry_after_ms: int | UnsetType = UNSET) -> None:
        super().__init__(error)
        self.code = code
        self.error = error
        self.message = message
        self.retry_after_ms = retry_after_ms


async def open_link(hub: "Hub", conn: Connection) -> Opened | None:
    """Read the opening message and answer it; None when the party was turned away or went.

    The second part is what came behind the opening message in the same read.
    """
    resuming = False
    try:
        try:
            message, rest = await _read(hub, conn)
            resuming = _resumes(message)
            if isinstance(message, Connect):
                link: Link = await _connect(hub, conn, message)
            elif isinstance(message, RestoreSession):
                link = await _restore(hub, conn, message)
            elif resuming:
                link = await _resume_worker(hub, conn, message)
            else:
                link = await _register_worker(hub, conn, message)
        except Unauthenticated as error:
            raise _Turned(CloseCode.UNAUTHENTICATED, "unauthenticated", str(error)) from None
        except Forbidden as error:
            raise _Turned(CloseCode.FORBIDDEN, "forbidden", str(error)) from None
        except StoreUnavailable:
            raise _Turned(
                CloseCode.REFUSED, "store_unavailable", "the store does not answer; come again", hub.retry_after_ms()
            ) from None
    except _Turned as turned:
        if resuming:
            hub.counts.resumes[turned.error] += 1
        _turn_away(conn, turned)
        await conn.wait_finished()
        return None
    except ConnectionClosed:
        if resuming:
            hub.counts.resumes["left"] += 1
        return None
    if resuming:
        hub.counts.resumes[RESUMED] += 1
    if hub.spans is not None:
        _tell_opening(hub, link, message, resuming=resuming)
    hub.arrived(link)
    return link, rest


def _resumes(message: Opening) -> bool:
    """Tell whether a party goes on with what it had; a worker that says so without a token starts afresh."""
    if isinstance(message, AppReady):
        return message.reconnection and message.recovery_token is not None
    return isinstance(message, RestoreSession)


def _tell_opening(hub: "Hub", link: Link, message: Opening, *, resuming: bool) -> None:
    assert hub.spans is not None
    what = _OPENED[link.party, resuming]
    owner = {f"signald.{'session' if link.party == 'client' else 'worker'}": link.owner}
    hub.spans.tell(f"signald.{what}", link.conn.opened_at, trio.current_time(), message.trace, owner)


def _turn_away(conn: Connection, turned: _Turned) -> None:
    error = ErrorMessage(turned.error, turned.message, fatal=True, retry_after_ms=turned.retry_after_ms)
    conn.send_text(codec.encode(error))
    if turned.code is CloseCode.TIMEOUT:
        # Who had all this time and said nothing gets no more of it: thousands of such are an attack.
        conn.fail(turned.code, turned.error)
        return
    retry = turned.retry_after_ms
    conn.close(turned.code, retry_reason(retry) if isinstance(retry, int) else turned.error)


async def _read(hub: "Hub", conn: Connection) -> tuple[Opening, list[Frame]]:
    decode: Callable[[bool, bytes, int], tuple[object, bytes | None]] = (
        codec.decode_worker if conn.path == "/v1/worker" else codec.decode_client
    )
    depth_max = hub.config.limits.json_depth_max
    frames = 0
    with trio.move_on_after(hub.config.timeouts.hello_s):
        while True:
            batch = await conn.receive()
            for index, (text, payload) in enumerate(batch):
                frames += 1
                if frames > FRAMES_MAX:
                    raise _Turned(CloseCode.BAD_MESSAGE, "out_of_place", "an opening message comes first")
                try:
                    message, _ = decode(text, payload, depth_max)
                except UnknownType as unknown:
                    error = ErrorMessage("unknown_type", f"unknown type: {unknown}", fatal=False)
                    conn.send_text(codec.encode(error))
                    continue
                except BadMessage as bad:
                    raise _Turned(CloseCode.BAD_MESSAGE, "bad_message", str(bad)) from None
                if isinstance(message, Opening):
                    return message, batch[index + 1 :]
                if not isinstance(message, Ping):
                    raise _Turned(CloseCode.BAD_MESSAGE, "out_of_place", "an opening message comes first")
                conn.send_text(codec.PONG)
            conn.flush()
    raise _Turned(CloseCode.TIMEOUT, "hello_timeout", "no opening message in time")


class _SetUp:
    """A place among the set-ups in progress."""

    def __init__(self, hub: "Hub", *, resume: bool, ticket: bool = False) -> None:
        self._hub = hub
        self._resume = resume
        self._free = ticket

    def __enter__(self) -> None:
        if not self._free:
            retry_after_ms = self._hub.gate.enter(resume=self._resume)
            if retry_after_ms:
                raise _Turned(CloseCode.REFUSED, "busy", "too many parties at once; come again", retry_after_ms)

    def __exit__(self, *_: object) -> None:
        if not self._free:
            self._hub.gate.leave()


def _subject(hub: "Hub", conn: Connection, auth: str | None, role: Role) -> str:
    return hub.auth.authenticate(auth or conn.bearer, role, hub.store.now_ms() / 1000).name


def _heartbeat_ms(hub: "Hub") -> int:
    return round(hub.config.timeouts.ping_interval_s * 1000)


def _worker_ttl_ms(hub: "Hub") -> int:
    return round(hub.config.worker.resume_timeout_s * 1000)


def _still_open(hub: "Hub", conn: Connection, undo: Sequence[Op]) -> None:
    """The store has granted; is there still somebody to tell? If not, it is undone.

    A drain that has begun meanwhile is no reason to refuse: the claim has taken the session from where it was, so the
    party is served here, and told to go with the others.
    """
    if conn.closing:
        for op in undo:
            hub.committer.submit(op, lambda _: None)
        raise ConnectionClosed(conn.closed) if conn.closed else _Turned(CloseCode.REFUSED, "closing", "closing")


async def _connect(hub: "Hub", conn: Connection, message: Connect) -> Link:
    subject = _subject(hub, conn, message.auth, "client")
    session_id = new_session_id(hub.entropy)
    token, token_hash = tokens.issue(session_id, hub.entropy)
    with _SetUp(hub, resume=False):
        now = hub.store.now_ms()
        alive_until = now + hub.life_ms
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
            [KeepAlive((session_id,), alive_until), create, Enqueue(session_id, message.want, now, alive_until)],
            undo=undo,
        )
    if not isinstance(head, Head):
        raise StoreUnavailable("a session with this id exists")
    _still_open(hub, conn, undo)
    session = hub.adopt(head)
    session.client_tokens = (token_hash,)
    link = ClientLink(hub, conn, session)
    session.attach("client", link, head.client_epoch, hub.node, 0)
    hub.ready(link)
    # Nobody has read from the connection while the store was asked: that the client is gone shows when it is to be answered.
    conn.on_unsaid = partial(hub.unheard, link)
    hub.counters.sessions_started += 1
    limits = hub.config.limits
    link.send(
        SessionStarted(
            session_id,
            token,
            hub.ttl_ms,
            Peer(session.peer_state, session.worker_id or None),
            1,
            Limits(limits.message_bytes_max, limits.messages_per_s, limits.messages_burst, limits.backlog_messages_max),
            _heartbeat_ms(hub),
        )
    )
    hub.outbox.flush()
    hub.poke_matchmaker()
    if not hub.alone:
        hub.relay.look(session)  # another node may have paired it before it was attached here
    hub.trail.note(session_id, "client", "started")
    log.info("session_started", node=hub.node, session=session_id, **log_fields(message.trace))
    return link


async def _restore(hub: "Hub", conn: Connection, message: RestoreSession) -> Link:
    subject = _subject(hub, conn, message.auth, "client")
    parsed = tokens.parse(message.recovery_token)
    if parsed is None or not parsed[0].startswith("s_"):
        raise _refused(hub, "unknown")
    session_id, presented = parsed
    token, issued = tokens.issue(session_id, hub.entropy)
    with _SetUp(hub, resume=True, ticket=hub.has_ticket(session_id, message.ticket)):
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
        )
        ops = [claim, ReadHistory(session_id, message.history)]
        claimed, history = await _claim(hub, conn, ops, now, WAKE_SESSION + session_id.encode())
        if isinstance(claimed, Refused):
            raise await _refused_by_store(hub, claimed.reason, session_id)
    assert isinstance(claimed, Claimed)
    # Not in one step with the claim: a token that resumes nothing must leave nothing behind.
    hub.committer.submit(KeepAlive((session_id,), now + hub.life_ms), lambda _: None)
    _still_open(hub, conn, [Detach(session_id, "client", hub.node, claimed.epoch, now)])
    head = claimed.head
    known = hub.sessions.get(session_id)
    if max(head.client_epoch, known.client.epoch if known is not None else 0) > claimed.epoch:
        raise _late(hub)
    session = hub.adopt(head)
    session.client_tokens = (issued, presented)
    link = ClientLink(hub, conn, session)
    received = min(message.received, head.down_last)
    session.attach("client", link, claimed.epoch, hub.node, received)
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
            _heartbeat_ms(hub),
            chat_history(entries) if message.history else UNSET,
        )
    )
    link.log_lost(session_id, "sent", claimed.lost_up)
    link.log_lost(session_id, "received", claimed.lost_down)
    hub.relay.deliver(session, "client")
    hub.outbox.flush()
    if not session.worker_id:
        hub.committer.submit(
            Enqueue(session_id, session.want, session.created_ms, now + hub.life_ms), lambda _: hub.poke_matchmaker()
        )
    if not hub.alone:
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
    before = hub.nodes.get(claimed.previous_node)
    if not claimed.previous_node:
        hub.counts.gaps.observe(claimed.away_ms / 1000)
    elif before is not None and before.state == "draining":
        hub.counts.gaps.observe(
            0.0
        )  # it was told to go and is still attached there: a new connection before the old one ends
    # Otherwise its node has not noticed that it was gone, or is dead: nobody knows since when.


async def _claim(hub: "Hub", conn: Connection, ops: Sequence[Op], asked_ms: int, wake: Wake) -> list[Result]:
    """Claim by the first of `ops`; a record that is damaged may be given back by who holds the party, who is asked by `wake`.

    A claim that has waited for the store is not made any more when its connection is over, or when the clock was set back
    since it was dated: it would pass for a later one than all that were made meanwhile, and a token that its party has left
    behind in the meantime for a stolen one.
    """

    def worth() -> bool:
        return not conn.closing and hub.store.now_ms() >= asked_ms

    try:
        results = await hub.committer.call_many(ops, worth=worth)
        if is_unreadable(results[0]):
            await ask_holders(hub, [wake])
            results = await hub.committer.call_many(ops, worth=worth)
    except StoreUnavailable:
        if conn.closed is not None:
            raise ConnectionClosed(conn.closed) from None
        raise
    return results


def _resumed(claimed: Claimed, replaying: int) -> str:
    came = f" from {claimed.previous_node}" if claimed.previous_node else ""
    return f"epoch {claimed.epoch}{came}, replaying {replaying}"


async def _refused_by_store(hub: "Hub", reason: str, owner: str) -> _Turned:
    if reason == "unknown" and await hub.may_come_back():
        # The store has just lost everything, and the node that still knows this party may not have said so yet.
        return _Turned(CloseCode.REFUSED, "store_unavailable", "the store is being filled again", hub.retry_after_ms())
    if reason == "late":
        return _late(hub)
    if reason == "token_reuse":
        hub.trail.note(owner, "", "token reused", "all its tokens are revoked")
    return _refused(hub, reason, owner)


def _late(hub: "Hub") -> _Turned:
    """A newer claim of the party holds. Hardly anybody reads this: the party asked again because it gave this one up."""
    return _Turned(CloseCode.REFUSED, "late", "a newer claim was granted meanwhile", hub.retry_after_ms())


def _refused(hub: "Hub", reason: str, owner: str = "") -> _Turned:
    hub.counters.resumes_refused += 1
    if reason == "token_reuse":
        hub.counters.token_reuse += 1
        log.warning("token_reuse", owner=owner)
    code, text = _REFUSALS[reason]
    error = {"principal": "forbidden", "revoked": "token_revoked", "token_reuse": "token_reuse"}
    return _Turned(code, error.get(reason, "nothing_to_resume"), text)


async def _register_worker(hub: "Hub", conn: Connection, message: AppReady) -> Link:
    subject = _subject(hub, conn, message.auth, "worker")
    worker = new_worker_id(hub.entropy)
    token, token_hash = tokens.issue(worker, hub.entropy)
    message = _capped(hub, message)
    with _SetUp(hub, resume=False):
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
    _still_open(hub, conn, [DetachWorker(worker, registered.epoch, hub.store.now_ms())])
    link = WorkerLink(hub, conn, worker, registered.epoch, message, subject)
    link.tokens = tokens.Slots(token_hash)
    hub.worker_links[worker] = link
    hub.ready(link)
    hub.counters.workers_registered += 1
    if message.reconnection:
        # It says it was here before, but has nothing to prove it with: it starts afresh.
        lost = [one.session for one in message.sessions]
        link.send(
            ReconnectionAck("ok", worker, token, _worker_ttl_ms(hub), False, "running", [], lost, _heartbeat_ms(hub)),
        )
    else:
        link.send(AppAccepted("ok", worker, token, _worker_ttl_ms(hub), _heartbeat_ms(hub)))
    hub.outbox.flush()
    if not hub.alone:
        hub.workers.check(link)  # another node may have given it sessions before it was attached here
    hub.poke_matchmaker()
    log.info(
        "worker_registered",
        node=hub.node,
        worker=worker,
        instance=message.instance_id,
        capacity=message.capacity,
        **log_fields(message.trace),
    )
    return link


async def _resume_worker(hub: "Hub", conn: Connection, message: AppReady) -> Link:
    subject = _subject(hub, conn, message.auth, "worker")
    parsed = tokens.parse(message.recovery_token or "")
    if parsed is None or not parsed[0].startswith("w_"):
        raise _refused(hub, "unknown")
    worker, presented = parsed
    with hub.resuming(worker):
        return await _claim_worker(hub, conn, message, subject, worker, presented)


async def _claim_worker(
    hub: "Hub", conn: Connection, message: AppReady, subject: str, worker: str, presented: bytes
) -> Link:
    token, issued = tokens.issue(worker, hub.entropy)
    message = _capped(hub, message)
    asked = hub.store.now_ms()
    with _SetUp(hub, resume=True, ticket=hub.has_ticket(worker, message.ticket)):
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
        (claimed,) = await _claim(hub, conn, [claim], asked, WAKE_WORKER + worker.encode())
        if isinstance(claimed, Refused):
            raise await _refused_by_store(hub, claimed.reason, worker)
        assert isinstance(claimed, WorkerClaimed)
        sides = await hub.workers.claim_sessions(worker, claimed.sessions, message.sessions, asked)
    now = hub.store.now_ms()
    granted = [(name, side.epoch) for name, side in sides if isinstance(side, Claimed)]
    undo: list[Op] = [Detach(name, "worker", hub.node, epoch, now) for name, epoch in granted]
    _still_open(hub, conn, [*undo, DetachWorker(worker, claimed.epoch, now)])
    before = hub.worker_links.get(worker)
    if before is not None and before.epoch > claimed.epoch:
        # Two claims of one worker were under way here, and the newer one came through first.
        for op in undo:
            hub.committer.submit(op, lambda _: None)
        raise _late(hub)
    link = WorkerLink(hub, conn, worker, claimed.epoch, message, subject)
    link.tokens = tokens.Slots(issued, presented)
    hub.worker_links[worker] = link
    hub.ready(link)
    hub.counters.resumes += 1
    if before is not None:
        hub.workers.replaced_link(before)
    restored, lost = hub.workers.attach_claimed(link, sides, message.sessions)
    link.send(
        ReconnectionAck("ok", worker, token, _worker_ttl_ms(hub), True, "running", restored, lost, _heartbeat_ms(hub)),
    )
    for session in list(link.sessions.values()):
        hub.relay.deliver(session, "worker")
    hub.outbox.flush()
    if not hub.alone:
        for session in list(link.sessions.values()):
            hub.relay.look(session)
    # Some may be paired with it that it does not know, since a moment ago perhaps: it is asked to take them.
    hub.workers.check(link)
    hub.poke_matchmaker()
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


def _capped(hub: "Hub", message: AppReady) -> AppReady:
    """A worker may offer more room than a node lets one connection carry."""
    most = hub.config.limits.sessions_per_worker_max
    if message.capacity <= most:
        return message
    fields = {name: getattr(message, name) for name in message.__struct_fields__}
    return AppReady(**{**fields, "capacity": most})
