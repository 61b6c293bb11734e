"""How each kind of operation is sent to Redis and how its reply is read: a table; and the result where nothing can be read.

Commands are packed in redis_scripts.py and replies read in redis_replies.py. What takes no more than a line is in the table.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import msgspec

from signald.store.base import Op, Result, SessionOp
from signald.store.damage import REPORTS, Unreadable
from signald.store.redis_connection import Reply
from signald.store.redis_replies import (
    read_ack,
    read_append,
    read_done,
    read_history,
    read_hold,
    read_look,
    read_name,
    read_nodes,
    read_put_node,
    read_released,
    read_session,
    read_waiting,
    read_worker,
    read_workers,
)
from signald.store.redis_scripts import (
    pack_ack,
    pack_append,
    pack_claim_client,
    pack_claim_worker,
    pack_claim_worker_side,
    pack_create,
    pack_enqueue,
    pack_look,
    pack_mark,
    pack_put_node,
    pack_read_trail,
    pack_register,
    pack_registry,
    pack_reseed,
    pack_reseed_worker,
    pack_session,
    pack_signal,
)
from signald.store.registry.ops import (
    ClaimWorker,
    ClusterSecret,
    ConfirmWorkerToken,
    CountTrails,
    DetachWorker,
    DropNode,
    Enqueue,
    Enqueued,
    Forget,
    Format,
    GetReceipt,
    Hold,
    Incarnation,
    KeepAlive,
    Leave,
    ListNodes,
    ListOverdue,
    ListReceipts,
    ListSuited,
    ListWaiting,
    ListWorkers,
    Mended,
    MendLine,
    Named,
    Paced,
    PutNode,
    PutReceipt,
    RaiseFormat,
    Receipts,
    RegisterWorker,
    Release,
    RemoveWorker,
    ReseedWorker,
    Reserve,
    Reserved,
    Secret,
    Signal,
    TakePace,
    Text,
    UpdateWorker,
    Waiting,
    WorkerSessions,
)
from signald.store.session.ops import (
    AcceptSession,
    Ack,
    Append,
    ClaimClient,
    ClaimWorkerSide,
    ConfirmToken,
    CreateSession,
    Detach,
    EndSession,
    ExpireSession,
    Look,
    Mark,
    ReadHistory,
    ReadTrail,
    Reseed,
    RetrySession,
    Trail,
    Unpair,
    UnpairFailed,
)

OpT = TypeVar("OpT", bound=Op)


class Check(Op, frozen=True):
    """Write something, to prove that it is possible. → `Done`"""

    now_ms: int


class Codec(NamedTuple):
    """How one kind of operation is sent and its reply read."""

    pack: Callable[[Any], bytes]
    unpack: Callable[[Any, Reply], Result]


CODECS: dict[type[Op], Codec] = {}
"""By kind of operation: all of `base`, and `Check`."""


def _codec(kind: type[OpT], packs: Callable[[OpT], bytes], unpacks: Callable[[OpT, Reply], Result]) -> None:
    CODECS[kind] = Codec(packs, unpacks)


_codec(Append, pack_append, read_append)
_codec(Ack, pack_ack, read_ack)
_codec(Look, pack_look, read_look)
_codec(CreateSession, pack_create, read_session)
_codec(ClaimClient, pack_claim_client, read_session)
_codec(ClaimWorkerSide, pack_claim_worker_side, read_session)
_codec(AcceptSession, lambda op: pack_session(op, "accept", op.epoch, node=op.node), read_session)
_codec(Unpair, lambda op: pack_session(op, "unpair", op.worker, op.epoch, node=op.node), read_session)
_codec(
    UnpairFailed,
    lambda op: pack_session(
        op, "unpair_failed", op.worker, op.epoch, op.failures_max, op.now_ms, op.ended_ms, node=op.node
    ),
    read_session,
)
_codec(RetrySession, lambda op: pack_session(op, "retry", node=op.node), read_session)
_codec(ReadHistory, lambda op: pack_session(op, "history", op.limit), read_history)
_codec(Detach, lambda op: pack_session(op, "detach", op.party, op.epoch, op.now_ms, node=op.node), read_session)
_codec(ConfirmToken, lambda op: pack_session(op, "confirm", op.epoch), read_session)
_codec(EndSession, lambda op: pack_session(op, "finish", node=op.node), read_session)
_codec(
    ExpireSession, lambda op: pack_session(op, "expire", op.now_ms, op.ttl_ms, *op.nodes, node=op.node), read_session
)
_codec(Reseed, pack_reseed, read_session)
_codec(Mark, pack_mark, read_done)
_codec(ReadTrail, pack_read_trail, lambda _op, reply: Trail(tuple(reply)))
_codec(PutNode, pack_put_node, read_put_node)
_codec(DropNode, lambda op: pack_registry("drop_node", op.node, op.incarnation, node=op.node), read_done)
_codec(ListNodes, lambda op: pack_registry("list_nodes", op.now_ms), read_nodes)
_codec(
    Incarnation,
    lambda op: pack_registry("once", "incarnation", op.candidate),
    lambda _op, reply: Named(read_name(reply)),
)
_codec(ClusterSecret, lambda op: pack_registry("once", "secret", op.candidate), lambda _op, reply: Secret(reply))
_codec(RaiseFormat, lambda op: pack_registry("raise_format", op.format), lambda _op, reply: Format(int(reply)))
_codec(RegisterWorker, pack_register, read_worker)
_codec(ClaimWorker, pack_claim_worker, read_worker)
_codec(UpdateWorker, lambda op: pack_registry("update", op.worker, op.epoch, op.capacity, int(op.leaving)), read_worker)
_codec(ConfirmWorkerToken, lambda op: pack_registry("confirm", op.worker, op.epoch), read_worker)
_codec(DetachWorker, lambda op: pack_registry("detach", op.worker, op.epoch, op.now_ms), read_worker)
_codec(
    RemoveWorker, lambda op: pack_registry("remove", op.worker, op.epoch, int(op.requeue), node=op.node), read_released
)
_codec(ReseedWorker, pack_reseed_worker, read_worker)
_codec(ListWorkers, lambda _op: pack_registry("list_workers"), read_workers)
_codec(WorkerSessions, lambda op: pack_registry("worker_sessions", op.worker), read_released)
_codec(Enqueue, pack_enqueue, lambda _op, reply: Enqueued(read_name(reply)))
_codec(ListWaiting, lambda op: pack_registry("list_waiting", op.limit), read_waiting)
_codec(
    ListSuited,
    lambda op: pack_registry("list_suited", op.limit, op.edges_max, *[" ".join(offer) for offer in op.offers]),
    lambda op, reply: Waiting(read_waiting(op, reply[1]).sessions, reply[0] == 1),
)
_codec(
    MendLine,
    lambda op: pack_registry("mend_line", op.cursor, op.limit),
    lambda _op, reply: Mended(int(reply)),
)
_codec(Leave, lambda op: pack_registry("leave", op.session), read_done)
_codec(
    Reserve,
    lambda op: pack_registry("reserve", *[name for pair in op.pairs for name in pair], node=op.node),
    lambda _op, reply: Reserved(tuple([held == 1 for held in reply])),
)
_codec(Release, lambda op: pack_registry("release", op.session, op.worker, int(op.requeue)), read_done)
_codec(Forget, lambda op: pack_registry("forget", op.session), read_done)
_codec(
    Hold,
    lambda op: pack_registry("hold", op.session, op.sessions_max, op.holder_max, op.until_ms, op.now_ms, *op.holders),
    read_hold,
)
_codec(
    CountTrails,
    lambda op: pack_registry(
        "count_trails",
        op.bytes_max,
        op.trail_bytes_max,
        op.until_ms,
        op.now_ms,
        *[word for one in op.grown for word in one],
    ),
    read_released,
)
_codec(KeepAlive, lambda op: pack_registry("keep_alive", op.until_ms, *op.sessions), read_done)
_codec(ListOverdue, lambda op: pack_registry("list_overdue", op.now_ms, op.limit), read_released)
_codec(
    TakePace,
    lambda op: pack_registry("take_pace", op.tokens, op.rate_per_s, op.now_ms),
    lambda _op, reply: Paced(float(reply)),
)
_codec(PutReceipt, lambda op: pack_registry("put_receipt", op.node, op.body, op.now_ms), read_done)
_codec(
    ListReceipts,
    lambda _op: pack_registry("list_receipts"),
    lambda _op, reply: Receipts(tuple([(read_name(reply[i]), int(reply[i + 1])) for i in range(0, len(reply), 2)])),
)
_codec(GetReceipt, lambda op: pack_registry("get_receipt", op.node), lambda _op, reply: Text(reply))
_codec(Signal, pack_signal, read_done)
_codec(Check, lambda op: pack_registry("check", op.now_ms), read_done)


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
    if op.damaged is None:
        raise Unreadable(type(op).__name__, about)
    return op.damaged
