"""Operations with everything said that a test does not care about."""

import hashlib
import json
from collections.abc import Mapping
from typing import Literal

from msgspec import Raw

from signald.core.callers import ALL, Access
from signald.core.head import Head, Party
from signald.core.log import Entry
from signald.core.rooms import Bounds, Fault, Offer, Properties, Publication
from signald.core.streams import Mark
from signald.store.registry.ops import ClaimNamed, ClaimWorker, Enqueue, NodeInfo, PutNode, RegisterWorker, ReseedWorker
from signald.store.room.ops import JoinRoom, Post, Publish
from signald.store.session.jobs.ops import CreateJob
from signald.store.session.ops import Ack, Append, ClaimClient, ClaimWorkerSide, CreateSession, Reseed
from signald.store.shelf.ops import BeginBlob, FinishBlob
from signald.wire.messages import Message
from signald.wire.records import message_body

NOW_MS = 1_700_000_000_000
TTL_MS = 300_000
SESSION = "s_1"
WORKER = "w_1"
SHELF = "p_1"
BLOB = "b_1"
ROOM = "canvas:1"
BOUNDS = Bounds(10, 1000, 5, 100, 400, 3, 4, 60_000)
"""Of a room in tests: ten messages or a thousand bytes, five records, three removals, four members, a minute."""
LEASE_MS = 20_000
KEEP_MS = 3_600_000


def token(name: str) -> bytes:
    """Return the hash of a token that tests call `name`."""
    return hashlib.sha256(name.encode()).digest()


def create(
    session: str = SESSION,
    *,
    node: str = "a",
    nonce: str = "create",
    principal: str = "ann",
    receipts: bool = False,
    now_ms: int = NOW_MS,
    ttl_ms: int = TTL_MS,
    pair: bool = True,
    events_max: int = 0,
    settings: bytes = b"",
    rooms: bytes = b"",
    asked_until_ms: int = 0,
) -> CreateSession:
    """A session whose client holds the token `t1`."""
    return CreateSession(
        session, node, nonce, principal, {"lang": "en"}, b'{"m":1}', receipts, token("t1"), now_ms, ttl_ms, pair, events_max,
        settings, rooms, asked_until_ms,
    )  # fmt: skip


def claim_client(
    presented: str = "t1",
    issued: str = "t2",
    *,
    session: str = SESSION,
    node: str = "b",
    nonce: str = "claim",
    principal: str = "ann",
    received: int = 0,
    acked: int = 0,
    now_ms: int = NOW_MS,
    ttl_ms: int = TTL_MS,
    attempt: int = 0,
    ahead_max: int = 1000,
    history: int = 0,
    events_max: int = 0,
) -> ClaimClient:
    """The client resumes at `b`."""
    tokens = token(presented), token(issued)
    return ClaimClient(
        session,
        node,
        nonce,
        principal,
        *tokens,
        received,
        acked,
        now_ms,
        ttl_ms,
        attempt,
        ahead_max,
        history,
        events_max,
    )


def claim_side(
    worker: str = WORKER,
    *,
    session: str = SESSION,
    node: str = "b",
    nonce: str = "side",
    assign: bool = True,
    received: int = 0,
    acked: int = 0,
    ahead_max: int = 1000,
    history: int = 0,
    events_max: int = 0,
) -> ClaimWorkerSide:
    """The worker takes its side at `b`."""
    return ClaimWorkerSide(
        session, node, nonce, worker, assign, received, acked, NOW_MS, ahead_max, history, events_max
    )


def entries(first: int, last: int, *, history: bool = False, text: str = "m") -> tuple[Entry, ...]:
    """The messages `first` to `last`, their seq in their bodies."""
    return tuple(Entry(seq, b"t%b%d" % (text.encode(), seq), history) for seq in range(first, last + 1))


def piece(
    seq: int,
    text: str | None = "",
    *,
    stream: str = "a",
    attempt: int = 1,
    end: str = "",
    kind: str = "",
    history: bool = True,
    marked: bool = True,
) -> Entry:
    """A piece of a text, or of a stream without one. Not `marked`: as it is read from a store."""
    fold = None if text is None else json.dumps(text)[1:-1].encode()
    said = Message(
        seq, Raw(json.dumps(text).encode()), kind=kind or None, stream=stream, attempt=attempt,
        fold=None if text is None else "text", end=bool(end), outcome=end or None,
    )  # fmt: skip
    mark = Mark(stream, attempt, fold, end, kind) if marked else None
    return Entry(seq, message_body(said, None), history and text is not None, mark)


def append(
    tail: tuple[Entry, ...],
    *,
    party: Party = "client",
    session: str = SESSION,
    node: str = "",
    epoch: int = 1,
    ack: int = 0,
    backlog_max: int = 100,
    history_max: int = 10,
    history_bytes_max: int = 1000,
) -> Append:
    """The client appends at `a`, the worker at `b`."""
    at = node or ("a" if party == "client" else "b")
    return Append(session, party, at, epoch, tail, ack, backlog_max, history_max, history_bytes_max, NOW_MS)


def create_job(
    session: str = SESSION,
    *,
    node: str = "a",
    access: Access = ALL,
    nonce: str = "n",
    key: bytes = b"k",
    payload: bytes = b"p",
    kind: str = "tts",
    data: bytes = b'{"x":1}',
    content_type: str = "",
    too_big: bool = False,
    deadline_ms: int = 0,
    in_flight_max: int = 100,
    result_bytes_max: int = 1000,
    keep_ms: int = 3_600_000,
    now_ms: int = NOW_MS,
) -> CreateJob:
    """A job, asked for at `a`."""
    data = b"" if too_big else data
    bounds = in_flight_max, result_bytes_max, keep_ms, now_ms
    return CreateJob(
        session, node, access, nonce, key, payload, kind, data, content_type, "", too_big, deadline_ms, *bounds
    )


def ack(seq: int, *, party: Party = "worker", session: str = SESSION, node: str = "", epoch: int = 1) -> Ack:
    """The worker at `b` acks, or the client at `a`."""
    return Ack(session, party, node or ("a" if party == "client" else "b"), epoch, seq)


def head(
    session: str = SESSION,
    *,
    client_epoch: int = 1,
    client_node: str = "a",
    worker: str = "",
    worker_state: str = "",
    worker_epoch: int = 0,
    worker_node: str = "",
    workers: int = 0,
    up_last: int = 0,
    up_acked: int = 0,
    down_last: int = 0,
    down_acked: int = 0,
    said_before: int = 0,
    receipts: bool = False,
) -> Head:
    """The head of a session made by `create`."""
    return Head(
        session=session,
        created_ms=NOW_MS,
        principal="ann",
        want={"lang": "en"},
        meta=b'{"m":1}',
        receipts=receipts,
        client_epoch=client_epoch,
        client_node=client_node,
        worker=worker,
        worker_state=worker_state,
        worker_epoch=worker_epoch,
        worker_node=worker_node,
        workers=workers,
        up_last=up_last,
        up_acked=up_acked,
        down_last=down_last,
        down_acked=down_acked,
        said_before=said_before,
    )


def reseed(
    known: Head,
    *,
    node: str = "a",
    tokens: tuple[bytes, ...] = (),
    up_tail: tuple[Entry, ...] = (),
    down_tail: tuple[Entry, ...] = (),
    now_ms: int = NOW_MS,
    create: bool = True,
    asked_ms: int = 0,
    attempt: int = 0,
) -> Reseed:
    """Node `a` gives back what it knows."""
    return Reseed(known.session, node, known, tokens, up_tail, down_tail, now_ms, create, asked_ms, attempt)


def node_info(
    node: str, state: str = "ready", *, lease_until_ms: int = NOW_MS + 10_000, connections: int = 0
) -> NodeInfo:
    """One node's entry."""
    assert state in {"starting", "ready", "draining"}
    return NodeInfo(node, "1.0", state, NOW_MS, lease_until_ms, connections)  # type: ignore[arg-type]


def put_node(node: str, state: str = "ready", *, lease_until_ms: int = NOW_MS + 10_000) -> PutNode:
    """A node writes its entry."""
    return PutNode(node_info(node, state, lease_until_ms=lease_until_ms))


def hold_node(
    node: str,
    incarnation: str,
    *,
    now_ms: int = NOW_MS,
    lease_ms: int = 10_000,
    over: tuple[str, int] = ("", 0),
    state: Literal["starting", "ready", "draining"] = "starting",
) -> PutNode:
    """A process takes the id of a node, or renews its lease."""
    info = NodeInfo(node, "1.0", state, now_ms, now_ms + lease_ms, 0, renewed_ms=now_ms, incarnation=incarnation)
    return PutNode(info, *over)


def register(
    worker: str = WORKER,
    *,
    node: str = "b",
    nonce: str = "register",
    capacity: int = 2,
    principal: str = "wes",
    granted: dict[str, str] | None = None,
    rooms: bytes = b"",
) -> RegisterWorker:
    """A worker announces itself at `b`, holding the token `w1`."""
    return RegisterWorker(
        worker, node, nonce, principal, "pod-1", {"lang": "en"}, capacity, token("w1"), NOW_MS, granted=granted or {}, rooms=rooms,
    )  # fmt: skip


def claim_worker(
    presented: str = "w1",
    issued: str = "w2",
    *,
    worker: str = WORKER,
    node: str = "a",
    nonce: str = "claim-worker",
    principal: str = "wes",
    capacity: int = 2,
    now_ms: int = NOW_MS,
    attempt: int = 0,
) -> ClaimWorker:
    """The worker resumes at `a`."""
    return ClaimWorker(
        worker, node, nonce, principal, token(presented), token(issued), {"lang": "en"}, capacity, now_ms, attempt
    )


def claim_named(
    worker: str = WORKER,
    *,
    node: str = "a",
    nonce: str = "claim-named",
    principal: str = "wes",
    capacity: int = 1,
    create: bool = True,
    now_ms: int = NOW_MS,
    events_max: int = 0,
    granted: dict[str, str] | None = None,
) -> ClaimNamed:
    """The worker that is called `pod-1` comes to `a`."""
    return ClaimNamed(
        worker, node, nonce, principal, "pod-1", {"lang": "en"}, capacity, create, now_ms, events_max, granted or {}
    )


def reseed_worker(
    worker: str = WORKER,
    *,
    node: str = "b",
    epoch: int = 1,
    tokens: tuple[bytes, ...] = (),
    sessions: tuple[str, ...] = (),
    capacity: int = 2,
    asked_ms: int = 0,
    attempt: int = 0,
    granted: dict[str, str] | None = None,
    rooms: bytes = b"",
) -> ReseedWorker:
    """Node `b` gives its worker back; its sessions were waiting since `NOW_MS`."""
    pairings = tuple((session, {"lang": "en"}, NOW_MS) for session in sessions)
    return ReseedWorker(
        worker, node, epoch, "wes", "pod-1", {"lang": "en", **(granted or {})}, capacity, tokens, pairings, NOW_MS, asked_ms,
        attempt, granted or {}, rooms,
    )  # fmt: skip


def enqueue(
    session: str = SESSION,
    *,
    want: dict[str, str] | None = None,
    order_ms: int = NOW_MS,
    alive_until_ms: int = NOW_MS + TTL_MS,
) -> Enqueue:
    """A session waits."""
    return Enqueue(session, {"lang": "en"} if want is None else want, order_ms, alive_until_ms)


def begin_blob(
    blob: str = BLOB,
    *,
    shelf: str = SHELF,
    nonce: str = "upload",
    key: bytes = b"",
    reserved: int = 100,
    total_max: int = 1000,
    lease_ms: int = LEASE_MS,
    now_ms: int = NOW_MS,
) -> BeginBlob:
    """The client of a session begins to upload up to a hundred bytes."""
    return BeginBlob(shelf, blob, SESSION, "ann", nonce, key, "audio/ogg", reserved, total_max, lease_ms, now_ms)


def finish_blob(
    blob: str = BLOB,
    *,
    shelf: str = SHELF,
    nonce: str = "upload",
    size: int = 60,
    until_ms: int = NOW_MS + KEEP_MS,
    now_ms: int = NOW_MS,
) -> FinishBlob:
    """Its bytes have come."""
    return FinishBlob(shelf, blob, nonce, size, token(blob), until_ms, now_ms)


def join_room(
    member: str = SESSION,
    *,
    room: str = ROOM,
    node: str = "a",
    epoch: int = 1,
    nonce: str = "join",
    new_epoch: str = "e1",
    known_epoch: str = "",
    received: int = 0,
    presence: bytes | None = None,
    bounds: Bounds = BOUNDS,
    now_ms: int = NOW_MS,
    makes: bool = True,
    told: int = 0,
) -> JoinRoom:
    """The client of a session joins a room at `a`."""
    return JoinRoom(
        room, member, node, epoch, nonce, new_epoch, known_epoch, received, presence, bounds, now_ms, makes, told
    )


def publication(
    seq: int = 1,
    body: bytes = b"",
    *,
    put: Mapping[str, Properties] | None = None,
    patch: Mapping[str, Properties] | None = None,
    remove: tuple[str, ...] = (),
    update: bool = False,
) -> Publication:
    """What a member publishes: a body unless records are named."""
    changes = tuple((put or {}).items()), tuple((patch or {}).items()), remove
    return Publication(seq, body or (b"" if any(changes) else b"m%d" % seq), *changes, update)


def publish(
    *said: Publication,
    member: str = SESSION,
    room: str = ROOM,
    node: str = "a",
    epoch: int = 1,
    faults: Mapping[int, Fault] | None = None,
    bounds: Bounds = BOUNDS,
    now_ms: int = NOW_MS,
) -> Publish:
    """The client publishes; its node refuses those with `faults`, by seq."""
    offers = tuple([Offer(each, (faults or {}).get(each.seq, "")) for each in said])
    return Publish(room, member, node, epoch, offers, bounds, now_ms)


def post(
    said: Publication | None = None,
    *,
    room: str = ROOM,
    node: str = "a",
    key: bytes = b"",
    new_epoch: str = "e1",
    bounds: Bounds = BOUNDS,
    now_ms: int = NOW_MS,
    member: str = "",
    content: bytes = b"",
    makes: bool = True,
) -> Post:
    """A service publishes, or a party over HTTP."""
    said = publication(0, b"post") if said is None else said
    return Post(room, node, key, new_epoch, said, bounds, now_ms, member, content, makes)
