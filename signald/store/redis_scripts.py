"""Every operation as one RESP command, and its reply as a result.

`append.lua`, `ack.lua` and `look.lua` are the hot path; `session.lua` and `registry.lua` hold the rest. Each script touches one
hash slot only: the keys of a session share the tag `{<session>}`, those of the registry `{signald}`.

In every deploy two releases share these keys. So a field may be added, with a meaning for its absence, and none may change its
own. The scripts themselves are each release's own: they are called by their hash.
"""

import hashlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from signald.store.base import (
    AcceptSession,
    Ack,
    Append,
    Appended,
    Behind,
    ClaimClient,
    Claimed,
    ClaimWorker,
    ClaimWorkerSide,
    ClusterSecret,
    ConfirmToken,
    ConfirmWorkerToken,
    CreateSession,
    Detach,
    DetachWorker,
    Done,
    DropNode,
    Ended,
    EndSession,
    Enqueue,
    Enqueued,
    Entry,
    Exists,
    ExpireSession,
    Fenced,
    Forget,
    Full,
    Gap,
    GetReceipt,
    Head,
    History,
    Incarnation,
    KeepAlive,
    ListNodes,
    ListOverdue,
    ListReceipts,
    ListWaiting,
    ListWorkers,
    Look,
    Looked,
    Mark,
    Named,
    NodeInfo,
    Nodes,
    NoSession,
    NoWorker,
    Op,
    Paced,
    Party,
    PutNode,
    PutReceipt,
    ReadHistory,
    ReadTrail,
    Receipts,
    Refused,
    RegisterWorker,
    Release,
    Released,
    RemoveWorker,
    Reseed,
    ReseedWorker,
    Reserve,
    Reserved,
    Result,
    Secret,
    SessionOp,
    Signal,
    TakePace,
    Text,
    Trail,
    Unpair,
    UpdateWorker,
    Waiting,
    WaitingSession,
    WorkerClaimed,
    WorkerInfo,
    Workers,
    WorkerSessions,
)
from signald.store.damage import REPORTS, Unreadable, answer, seal, unseal
from signald.store.redis_connection import Reply, Word, pack

REGISTRY_TAG = "signald"
OpT = TypeVar("OpT", bound=Op)


class Check(Op, frozen=True):
    """Write something, to prove that it is possible. → `Done`"""

    now_ms: int


class Script(NamedTuple):
    """One Lua script, and the name Redis gives it."""

    text: bytes
    sha: bytes


def _script(name: str) -> Script:
    text = Path(__file__).with_name(name).read_bytes()
    return Script(text, hashlib.sha1(text, usedforsecurity=False).hexdigest().encode())


APPEND, ACK, LOOK, SESSION, REGISTRY, TRAIL = SCRIPTS = tuple(
    _script(name) for name in ("append.lua", "ack.lua", "look.lua", "session.lua", "registry.lua", "trail.lua")
)


def channel(node: str) -> str:
    """The pub/sub channel on which `node` is woken."""
    return f"signald:node:{node}"


# --- packing ------------------------------------------------------------------------------------------------------

# The hot commands are written by hand. What stays the same from one message of a session to the next is remembered, so
# a third of the time of a general packer is left.
_PARTY = {"client": b"$1\r\nc\r\n", "worker": b"$1\r\nw\r\n"}
_APPEND = b"*%%d\r\n$7\r\nEVALSHA\r\n$40\r\n%b\r\n$1\r\n4\r\n" % APPEND.sha
_APPEND_ONE = _APPEND % 17
_ACK = b"*10\r\n$7\r\nEVALSHA\r\n$40\r\n%b\r\n$1\r\n3\r\n" % ACK.sha


def _bulk(data: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(data), data)


@lru_cache(4096)
def _number(number: int) -> bytes:
    return _bulk(b"%d" % number)


@lru_cache(64)
def _limits(backlog_max: int, history_max: int, history_bytes_max: int) -> bytes:
    return b"".join([_bulk(b"%d" % number) for number in (backlog_max, history_max, history_bytes_max)])


def _keys(session: str) -> bytes:
    key = b"signald:{%b}" % session.encode()
    return _bulk(key) + _bulk(key + b":up") + _bulk(key + b":down")


@lru_cache(8192)
def _append_start(session: str, party: Party, node: str, epoch: int) -> bytes:
    history = _bulk(b"signald:{%b}:history" % session.encode())
    return _keys(session) + history + _PARTY[party] + _bulk(node.encode()) + _bulk(b"%d" % epoch)


@lru_cache(8192)
def _ack_start(session: str, party: Party, node: str, epoch: int) -> bytes:
    return _ACK + _keys(session) + _PARTY[party] + _bulk(node.encode()) + _bulk(b"%d" % epoch)


def _flags(entries: tuple[Entry, ...]) -> bytes:
    return b"".join([b"1" if entry.history else b"0" for entry in entries])


def _append(op: Append) -> bytes:
    entries = op.entries
    if len(entries) == 1:
        (entry,) = entries
        seq = b"%d" % entry.seq
        body = seal(entry.body)
        return b"%b%b%b%b$%d\r\n%b\r\n%b$%d\r\n%b\r\n" % (
            _APPEND_ONE,
            _append_start(op.session, op.party, op.node, op.epoch),
            _number(op.ack),
            _limits(op.backlog_max, op.history_max, op.history_bytes_max),
            len(seq),
            seq,
            b"$1\r\n1\r\n" if entry.history else b"$0\r\n\r\n",
            len(body),
            body,
        )
    flags = _flags(entries)
    return b"".join(
        [
            _APPEND % (16 + len(entries)),
            _append_start(op.session, op.party, op.node, op.epoch),
            _number(op.ack),
            _limits(op.backlog_max, op.history_max, op.history_bytes_max),
            _number(entries[0].seq if entries else 1),
            _bulk(flags if b"1" in flags else b""),
            *[_bulk(seal(entry.body)) for entry in entries],
        ]
    )


def _ack(op: Ack) -> bytes:
    return _ack_start(op.session, op.party, op.node, op.epoch) + _number(op.seq)


def _look(op: Look) -> bytes:
    key = f"signald:{{{op.session}}}"
    return pack("EVALSHA", LOOK.sha, 3, key, key + ":up", key + ":down", op.party[0], op.after, op.limit)


def _trail(op: SessionOp) -> str:
    return f"signald:{{{op.session}}}:trail"


def _session(op: SessionOp, operation: str, *words: Word, node: str = "") -> bytes:
    key = f"signald:{{{op.session}}}"
    return pack(
        "EVALSHA", SESSION.sha, 4, key, key + ":up", key + ":down", key + ":history", operation, node, *words
    )  # fmt: skip


_REGISTRY_KEYS = tuple(
    f"signald:{{{REGISTRY_TAG}}}:{name}"
    for name in (
        "nodes", "leases", "workers", "pairs", "paired", "waiting", "line", "alive", "misc", "receipts", "receipt_times",
    )
)  # fmt: skip


def _registry(operation: str, *words: Word, node: str = "") -> bytes:
    return pack("EVALSHA", REGISTRY.sha, len(_REGISTRY_KEYS), *_REGISTRY_KEYS, operation, node, *words)


def _create(op: CreateSession) -> bytes:
    return _session(
        op, "create", op.nonce, op.principal, _json(op.want), op.meta, int(op.receipts), op.token, op.now_ms, op.ttl_ms,
        node=op.node,
    )  # fmt: skip


def _claim_client(op: ClaimClient) -> bytes:
    return _session(
        op, "claim_client", op.nonce, op.principal, op.presented, op.issued, op.received, op.acked, op.now_ms, op.ttl_ms,
        op.attempt, node=op.node,
    )  # fmt: skip


def _claim_worker_side(op: ClaimWorkerSide) -> bytes:
    return _session(
        op, "claim_worker_side", op.nonce, op.worker, int(op.assign), op.received, op.acked, op.now_ms, node=op.node,
    )  # fmt: skip


def _reseed(op: Reseed) -> bytes:
    head = op.head
    up, down = op.up_tail, op.down_tail
    current, previous, *_ = (*op.client_tokens, b"", b"")
    return _session(
        op, "reseed", int(op.create), head.created_ms, head.principal, _json(head.want), head.meta, int(head.receipts),
        head.client_epoch, head.client_node, head.worker, head.worker_state, head.worker_epoch, head.worker_node,
        head.workers, head.up_last, head.up_acked, head.down_last, head.down_acked, head.said_before,
        int(bool(op.client_tokens)), current, previous, op.now_ms,
        up[0].seq if up else 0, _flags(up), down[0].seq if down else 0, _flags(down),
        *[seal(entry.body) for entry in (*up, *down)], node=op.node,
    )  # fmt: skip


def _put_node(op: PutNode) -> bytes:
    info = op.info
    return _registry("put_node", info.id, info.state, info.lease_until_ms, msgspec.msgpack.encode(info), node=info.id)


def _register(op: RegisterWorker) -> bytes:
    return _registry(
        "register", op.worker, op.nonce, op.principal, op.instance, _json(op.labels), op.capacity, op.token, op.now_ms,
        node=op.node,
    )  # fmt: skip


def _claim_worker(op: ClaimWorker) -> bytes:
    return _registry(
        "claim", op.worker, op.nonce, op.principal, op.presented, op.issued, _json(op.labels), op.capacity, op.now_ms,
        op.attempt, node=op.node,
    )  # fmt: skip


def _reseed_worker(op: ReseedWorker) -> bytes:
    current, previous, *_ = (*op.tokens, b"", b"")
    pairings = [word for session, want, order_ms in op.sessions for word in (session, order_ms, _json(want))]
    return _registry(
        "reseed", op.worker, op.epoch, op.principal, op.instance, _json(op.labels), op.capacity, current, previous,
        op.now_ms, *pairings, node=op.node,
    )  # fmt: skip


def _json(labels: dict[str, str]) -> bytes:
    return msgspec.json.encode(labels)


# --- reading replies ----------------------------------------------------------------------------------------------

_LABELS = msgspec.json.Decoder(dict[str, str])
_NODE = msgspec.msgpack.Decoder(NodeInfo)
_DONE = Done()
_NO_SESSION = NoSession()
_PARTIES: dict[bytes, Party] = {b"c": "client", b"w": "worker"}


def _head(session: str, v: list[bytes]) -> Head:
    return Head(
        session, int(v[0]), v[1].decode(), _LABELS.decode(v[2]), _meta(v[3]), v[4] == b"1", int(v[5]), _name(v[6]), _name(v[7]),
        _name(v[8]), int(v[9]), _name(v[10]), int(v[11]), int(v[12]), int(v[13]), int(v[14]), int(v[15]),
        int(v[16]),
    )  # fmt: skip


def _name(name: bytes) -> str:
    # A damaged name is that of nobody.
    return name.decode(errors="replace")


@lru_cache(1024)
def _meta(meta: bytes) -> bytes:
    # It is put into frames as it is.
    if meta:
        msgspec.json.decode(meta)
    return meta


def _appended(_op: Append, reply: Reply) -> Result:
    first = reply[0]
    if first >= 0:
        return Appended(first, reply[1], reply[2].decode())
    if first == -1:
        return Gap(reply[1])
    if first == -2:
        return Full(reply[1], reply[2])
    return _outdated(first, reply)


def _acked(_op: Ack, reply: Reply) -> Result:
    return _DONE if reply[0] == 0 else _outdated(reply[0], reply)


def _outdated(kind: int, reply: Reply) -> Result:
    if kind == -3:
        return Fenced(reply[1])
    return Behind(reply[1]) if kind == -4 else _NO_SESSION


def _looked(op: Look, reply: Reply) -> Result:
    if not reply:
        return _NO_SESSION
    head, stream = reply
    entries = []
    for name, (kind, kept) in stream:
        body = unseal(kept)
        if body is None:
            REPORTS.tell("message", op.session)
        else:
            entries.append(Entry(int(name[:-2]), body, kind == b"h"))
    if stream and not entries and len(stream) == op.limit:
        # Nothing of this can be read, but there may be more behind it.
        return Looked(_head(op.session, head), (), int(stream[-1][0][:-2]))
    if entries and entries[-1].seq - entries[0].seq >= len(entries):
        # The store lost some in between: what is dense ends there, and the next look begins behind.
        hole = next(place for place, entry in enumerate(entries) if entry.seq != entries[0].seq + place)
        del entries[hole:]
    return Looked(_head(op.session, head), tuple(entries))


def _history(op: ReadHistory, reply: Reply) -> Result:
    entries: list[tuple[str, bytes]] = []
    for item in reply:
        party, body = _PARTIES.get(item[:1]), unseal(item[1:])
        if party is None or body is None:
            REPORTS.tell("chat history", op.session)
        else:
            entries.append((party, body))
    return History(tuple(entries))


def _loss(first: int, last: int) -> tuple[int, int] | None:
    return (first, last) if first else None


def _about_session(op: SessionOp, reply: Reply) -> Result:
    match reply:
        case [b"done"]:
            return _DONE
        case [b"head", head]:
            return _head(op.session, head)  # type: ignore[return-value]
        case [b"claimed", [_, epoch, previous_node, up_from, up_to, down_from, down_to], head, away_ms]:
            return Claimed(
                epoch,
                _head(op.session, head),
                _name(previous_node),
                _loss(up_from, up_to),
                _loss(down_from, down_to),
                away_ms,
            )
        case [b"ended", head]:
            return Ended(_head(op.session, head))
        case _:
            return _refusal(reply)


def _refusal(reply: Reply) -> Result:
    match reply:
        case [b"refused", reason]:
            return Refused(reason.decode())
        case [b"exists"]:
            return Exists()
        case [b"fenced", epoch]:
            return Fenced(epoch)
        case [b"behind", epoch]:
            return Behind(epoch)
        case [b"no_session"]:
            return _NO_SESSION
        case [b"no_worker"]:
            return NoWorker()
        case _:
            raise ValueError("a script answered with a kind that is not known here")


def _done(_op: Op, _reply: Reply) -> Result:
    return _DONE


def _about_worker(_op: Op, reply: Reply) -> Result:
    match reply:
        case [b"done"]:
            return _DONE
        case [b"claimed", epoch, sessions, previous_node]:
            return WorkerClaimed(epoch, _names(sessions), _name(previous_node))
        case _:
            return _refusal(reply)


def _names(reply: list[bytes]) -> tuple[str, ...]:
    return tuple([_name(name) for name in reply])


def _released(_op: Op, reply: Reply) -> Result:
    return Released(_names(reply))


def _nodes(_op: Op, reply: Reply) -> Result:
    nodes = []
    for item in reply:
        try:
            state, _, packed = (item or b"").partition(b" ")
            node = _NODE.decode(packed)
        except msgspec.DecodeError:
            REPORTS.tell("node", "registry")
            continue
        if node.state.encode() == state:
            nodes.append(node)
        else:
            REPORTS.tell("node", node.id)
    return Nodes(tuple(sorted(nodes, key=lambda node: node.id)))


def _workers(_op: Op, reply: Reply) -> Result:
    found = []
    for name, *record in sorted(reply, key=lambda item: item[0]):
        try:
            node, epoch, labels, capacity, assigned, leaving, away_ms, instance = record
            found.append(
                WorkerInfo(
                    name.decode(), _name(node), epoch, _LABELS.decode(labels), capacity, assigned, leaving == 1, away_ms,
                    _name(instance),
                )
            )  # fmt: skip
        except (ValueError, msgspec.DecodeError):
            REPORTS.tell("worker", _name(name))
    return Workers(tuple(found))


def _waiting(_op: Op, reply: Reply) -> Result:
    found = []
    for session, order, want in reply:
        try:
            found.append(WaitingSession(session.decode(), _LABELS.decode(want), int(order)))
        except (ValueError, msgspec.DecodeError):
            REPORTS.tell("place", _name(session))
    return Waiting(tuple(found))


# --- both, by operation -------------------------------------------------------------------------------------------


class Codec(NamedTuple):
    """How one kind of operation is sent and its reply read."""

    pack: Callable[[Any], bytes]
    unpack: Callable[[Any, Reply], Result]


CODECS: dict[type[Op], Codec] = {}


def _codec(kind: type[OpT], packs: Callable[[OpT], bytes], unpacks: Callable[[OpT, Reply], Result]) -> None:
    CODECS[kind] = Codec(packs, unpacks)


_codec(Append, _append, _appended)
_codec(Ack, _ack, _acked)
_codec(Look, _look, _looked)
_codec(CreateSession, _create, _about_session)
_codec(ClaimClient, _claim_client, _about_session)
_codec(ClaimWorkerSide, _claim_worker_side, _about_session)
_codec(AcceptSession, lambda op: _session(op, "accept", op.epoch, node=op.node), _about_session)
_codec(Unpair, lambda op: _session(op, "unpair", op.worker, op.epoch, node=op.node), _about_session)
_codec(ReadHistory, lambda op: _session(op, "history", op.limit), _history)
_codec(Detach, lambda op: _session(op, "detach", op.party, op.epoch, op.now_ms, node=op.node), _about_session)
_codec(ConfirmToken, lambda op: _session(op, "confirm", op.epoch), _about_session)
_codec(EndSession, lambda op: _session(op, "finish", node=op.node), _about_session)
_codec(ExpireSession, lambda op: _session(op, "expire", op.now_ms, op.ttl_ms, *op.nodes, node=op.node), _about_session)
_codec(Reseed, _reseed, _about_session)
_codec(Mark, lambda op: pack("EVALSHA", TRAIL.sha, 1, _trail(op), op.keep_max, op.keep_ms, *op.steps), _done)
_codec(ReadTrail, lambda op: pack("LRANGE", _trail(op), 0, -1), lambda _op, reply: Trail(tuple(reply)))
_codec(PutNode, _put_node, _done)
_codec(DropNode, lambda op: _registry("drop_node", op.node, node=op.node), _done)
_codec(ListNodes, lambda op: _registry("list_nodes", op.now_ms), _nodes)
_codec(Incarnation, lambda op: _registry("once", "incarnation", op.candidate), lambda _op, reply: Named(_name(reply)))
_codec(ClusterSecret, lambda op: _registry("once", "secret", op.candidate), lambda _op, reply: Secret(reply))
_codec(RegisterWorker, _register, _about_worker)
_codec(ClaimWorker, _claim_worker, _about_worker)
_codec(UpdateWorker, lambda op: _registry("update", op.worker, op.epoch, op.capacity, int(op.leaving)), _about_worker)
_codec(ConfirmWorkerToken, lambda op: _registry("confirm", op.worker, op.epoch), _about_worker)
_codec(DetachWorker, lambda op: _registry("detach", op.worker, op.epoch, op.now_ms), _about_worker)
_codec(RemoveWorker, lambda op: _registry("remove", op.worker, op.epoch, int(op.requeue), node=op.node), _released)
_codec(ReseedWorker, _reseed_worker, _about_worker)
_codec(ListWorkers, lambda _op: _registry("list_workers"), _workers)
_codec(WorkerSessions, lambda op: _registry("worker_sessions", op.worker), _released)
_codec(
    Enqueue,
    lambda op: _registry("enqueue", op.session, _json(op.want), op.order_ms, op.alive_until_ms),
    lambda _op, reply: Enqueued(_name(reply)),
)
_codec(ListWaiting, lambda op: _registry("list_waiting", op.limit), _waiting)
_codec(
    Reserve,
    lambda op: _registry("reserve", *[name for pair in op.pairs for name in pair], node=op.node),
    lambda _op, reply: Reserved(tuple([held == 1 for held in reply])),
)
_codec(Release, lambda op: _registry("release", op.session, op.worker, int(op.requeue)), _done)
_codec(Forget, lambda op: _registry("forget", op.session), _done)
_codec(KeepAlive, lambda op: _registry("keep_alive", op.until_ms, *op.sessions), _done)
_codec(ListOverdue, lambda op: _registry("list_overdue", op.now_ms, op.limit), _released)
_codec(
    TakePace,
    lambda op: _registry("take_pace", op.tokens, op.rate_per_s, op.now_ms),
    lambda _op, reply: Paced(float(reply)),
)
_codec(PutReceipt, lambda op: _registry("put_receipt", op.node, op.body, op.now_ms), _done)
_codec(
    ListReceipts,
    lambda _op: _registry("list_receipts"),
    lambda _op, reply: Receipts(tuple([(_name(reply[i]), int(reply[i + 1])) for i in range(0, len(reply), 2)])),
)
_codec(GetReceipt, lambda op: _registry("get_receipt", op.node), lambda _op, reply: Text(reply))
# A realtime message needs no script: it is kept nowhere.
_codec(Signal, lambda op: pack("PUBLISH", channel(op.node), op.wake), _done)
_codec(Check, lambda op: _registry("check", op.now_ms), _done)


_UNREADABLE = (ValueError, TypeError, AttributeError, LookupError, msgspec.MsgspecError)


def read(op: Op, reply: Reply) -> Result:
    """Return the result of `op`: also where what the script found cannot be read. Raises Unreadable for what has no answer then."""
    try:
        return CODECS[type(op)].unpack(op, reply)
    except _UNREADABLE:
        return unreadable(op)


def unreadable(op: Op) -> Result:
    """Return the result of `op` when what it is about cannot be read. Raises Unreadable as `read`."""
    about = op.session if isinstance(op, SessionOp) else "registry"
    REPORTS.tell("record", about)
    result = answer(op)
    if result is None:
        raise Unreadable(type(op).__name__, about)
    return result


TOUCH_REPLIES = 4


def touch(session: str, left_ms: int) -> bytes:
    """Renew the safety TTL of a session's keys: what `KeepAlive` means outside the registry. Has `TOUCH_REPLIES`."""
    key = b"signald:{%b}" % session.encode()
    left = _bulk(b"%d" % left_ms)
    return b"".join(
        [b"*3\r\n$7\r\nPEXPIRE\r\n" + _bulk(key + end) + left for end in (b"", b":up", b":down", b":history")]
    )


def tag_of(op: Op) -> str:
    """The hash tag of the keys `op` touches."""
    return op.session if isinstance(op, SessionOp) else REGISTRY_TAG
