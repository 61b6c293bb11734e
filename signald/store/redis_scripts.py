"""The Lua scripts, and each operation packed as one RESP command that calls one. What it answers: redis_replies.py.

`append.lua`, `ack.lua` and `look.lua` are the hot path; `session.lua` and `registry.lua` hold the rest, and `trail.lua` writes
what outlives a session. Each script touches one hash slot only: the keys of a session share the tag `{<session>}`, those of
the registry `{signald}`.

In every deploy two releases share these keys. So a field may be added, with a meaning for its absence, and none may change its
own. The scripts themselves are each release's own: they are called by their hash.
"""

from functools import lru_cache

import msgspec

from signald.core.failures import Failures
from signald.core.head import Party
from signald.core.log import Entry
from signald.store.base import Op, SessionOp
from signald.store.damage import seal
from signald.store.redis_connection import Word, pack
from signald.store.redis_keys import PACKING, REGISTRY_TAG, Keyspace
from signald.store.registry.ops import ClaimWorker, Enqueue, PutNode, RegisterWorker, ReseedWorker, Signal
from signald.store.session.ops import (
    Ack,
    Append,
    ClaimClient,
    ClaimWorkerSide,
    CreateSession,
    Look,
    Mark,
    ReadTrail,
    Reseed,
)


def tag_of(op: Op) -> str:
    """The hash tag of the keys `op` touches."""
    return op.session if isinstance(op, SessionOp) else REGISTRY_TAG


# --- the hot path -------------------------------------------------------------------------------------------------

# The hot commands are written by hand. What stays the same from one message of a session to the next is remembered, so
# a third of the time of a general packer is left.
_PARTY = {"client": b"$1\r\nc\r\n", "worker": b"$1\r\nw\r\n"}
_EVAL = b"*%d\r\n$7\r\nEVALSHA\r\n$40\r\n%b\r\n$1\r\n%d\r\n"


def _bulk(data: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(data), data)


@lru_cache(4096)
def _number(number: int) -> bytes:
    return _bulk(b"%d" % number)


@lru_cache(64)
def _limits(backlog_max: int, history_max: int, history_bytes_max: int) -> bytes:
    return b"".join([_bulk(b"%d" % number) for number in (backlog_max, history_max, history_bytes_max)])


def _keys(space: Keyspace, session: str) -> bytes:
    key = space.key(session).encode()
    return _bulk(key) + _bulk(key + b":up") + _bulk(key + b":down")


@lru_cache(8192)
def _append_start(space: Keyspace, session: str, party: Party, node: str, epoch: int) -> bytes:
    history = _bulk(space.key(session).encode() + b":history")
    return _keys(space, session) + history + _PARTY[party] + _bulk(node.encode()) + _bulk(b"%d" % epoch)


@lru_cache(16)
def _append_one(space: Keyspace) -> bytes:
    return _EVAL % (17, space.append.sha, 4)


@lru_cache(8192)
def _ack_start(space: Keyspace, session: str, party: Party, node: str, epoch: int) -> bytes:
    eval_ack = _EVAL % (10, space.ack.sha, 3)
    return eval_ack + _keys(space, session) + _PARTY[party] + _bulk(node.encode()) + _bulk(b"%d" % epoch)


def _flags(entries: tuple[Entry, ...]) -> bytes:
    return b"".join([b"1" if entry.history else b"0" for entry in entries])


def pack_append(op: Append) -> bytes:
    """Call `append.lua`. Each body has its seal."""
    entries, space = op.entries, PACKING.get()
    if len(entries) == 1:
        (entry,) = entries
        seq = b"%d" % entry.seq
        body = seal(entry.body)
        return b"%b%b%b%b$%d\r\n%b\r\n%b$%d\r\n%b\r\n" % (
            _append_one(space),
            _append_start(space, op.session, op.party, op.node, op.epoch),
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
            _EVAL % (16 + len(entries), space.append.sha, 4),
            _append_start(space, op.session, op.party, op.node, op.epoch),
            _number(op.ack),
            _limits(op.backlog_max, op.history_max, op.history_bytes_max),
            _number(entries[0].seq if entries else 1),
            _bulk(flags if b"1" in flags else b""),
            *[_bulk(seal(entry.body)) for entry in entries],
        ]
    )


def pack_ack(op: Ack) -> bytes:
    """Call `ack.lua`."""
    return _ack_start(PACKING.get(), op.session, op.party, op.node, op.epoch) + _number(op.seq)


def pack_look(op: Look) -> bytes:
    """Call `look.lua`."""
    space = PACKING.get()
    key = space.key(op.session)
    return pack("EVALSHA", space.look.sha, 3, key, key + ":up", key + ":down", op.party[0], op.after, op.limit)


# --- on one session -----------------------------------------------------------------------------------------------


def pack_session(op: SessionOp, operation: str, *words: Word, node: str = "") -> bytes:
    """Call the function of `session.lua` named `operation` with `words`. `node` is the caller, where it matters who calls."""
    space = PACKING.get()
    key = space.key(op.session)
    return pack(
        "EVALSHA", space.session.sha, 4, key, key + ":up", key + ":down", key + ":history", operation, node, *words
    )  # fmt: skip


def pack_create(op: CreateSession) -> bytes:
    """Call `create` of `session.lua`."""
    return pack_session(
        op, "create", op.nonce, op.principal, _json(op.want), op.meta, int(op.receipts), op.token, op.now_ms, op.ttl_ms,
        node=op.node,
    )  # fmt: skip


def pack_claim_client(op: ClaimClient) -> bytes:
    """Call `claim_client` of `session.lua`."""
    return pack_session(
        op, "claim_client", op.nonce, op.principal, op.presented, op.issued, op.received, op.acked, op.now_ms, op.ttl_ms,
        op.attempt, op.ahead_max, node=op.node,
    )  # fmt: skip


def pack_claim_worker_side(op: ClaimWorkerSide) -> bytes:
    """Call `claim_worker_side` of `session.lua`."""
    return pack_session(
        op, "claim_worker_side", op.nonce, op.worker, int(op.assign), op.received, op.acked, op.now_ms,
        op.ahead_max, node=op.node,
    )  # fmt: skip


def pack_reseed(op: Reseed) -> bytes:
    """Call `reseed` of `session.lua`: the head, both tokens, and what is left of both logs, each body with its seal."""
    head = op.head
    up, down = op.up_tail, op.down_tail
    current, previous, *_ = (*op.client_tokens, b"", b"")
    return pack_session(
        op, "reseed", int(op.create), head.created_ms, head.principal, _json(head.want), head.meta, int(head.receipts),
        head.client_epoch, head.client_node, head.worker, head.worker_state, head.worker_epoch, head.worker_node,
        head.workers, head.up_last, head.up_acked, head.down_last, head.down_acked, head.said_before,
        int(bool(op.client_tokens)), current, previous, op.now_ms,
        up[0].seq if up else 0, _flags(up), down[0].seq if down else 0, _flags(down), _failures(head.failed),
        *[seal(entry.body) for entry in (*up, *down)], node=op.node,
    )  # fmt: skip


def _failures(failed: Failures) -> str:
    return f"{failed.seq} {failed.count} {failed.at_ms} {int(failed.set_aside)}"


def _trail(op: SessionOp) -> str:
    return PACKING.get().key(op.session) + ":trail"


def pack_mark(op: Mark) -> bytes:
    """Call `trail.lua`."""
    return pack("EVALSHA", PACKING.get().trail.sha, 1, _trail(op), op.keep_max, op.keep_ms, *op.steps)


def pack_read_trail(op: ReadTrail) -> bytes:
    """Ask for all steps that are kept, which needs no script."""
    return pack("LRANGE", _trail(op), 0, -1)


TOUCH_REPLIES = 4
"""How many replies one `touch` has."""


def touch(session: str, left_ms: int) -> bytes:
    """Renew the safety TTL of a session's keys: what `KeepAlive` means outside the registry."""
    key = PACKING.get().key(session).encode()
    left = _bulk(b"%d" % left_ms)
    return b"".join(
        [b"*3\r\n$7\r\nPEXPIRE\r\n" + _bulk(key + end) + left for end in (b"", b":up", b":down", b":history")]
    )


# --- on the registry ----------------------------------------------------------------------------------------------

_REGISTRY_KEYS = (
    "nodes", "leases", "workers", "pairs", "paired", "waiting", "line", "alive", "misc", "receipts", "receipt_times",
    "lines", "spots", "wanted",
    "holds", "held", "holds_due", "trails", "trail_bytes",
)  # fmt: skip


@lru_cache(16)
def _registry_keys(space: Keyspace) -> tuple[str, ...]:
    return tuple(f"{space.key(REGISTRY_TAG)}:{name}" for name in _REGISTRY_KEYS)


def pack_registry(operation: str, *words: Word, node: str = "") -> bytes:
    """Call the function of `registry.lua` named `operation` with `words`. `node` is the caller, where it matters who calls."""
    space = PACKING.get()
    keys = _registry_keys(space)
    return pack("EVALSHA", space.registry.sha, len(keys), *keys, operation, node, *words)


def pack_put_node(op: PutNode) -> bytes:
    """Call `put_node` of `registry.lua`."""
    info = op.info
    return pack_registry(
        "put_node", info.id, info.state, info.lease_until_ms, msgspec.msgpack.encode(info), info.incarnation,
        info.renewed_ms, op.over, op.over_ms, node=info.id,
    )  # fmt: skip


def pack_register(op: RegisterWorker) -> bytes:
    """Call `register` of `registry.lua`."""
    return pack_registry(
        "register", op.worker, op.nonce, op.principal, op.instance, _json(op.labels), op.capacity, op.token, op.now_ms,
        node=op.node,
    )  # fmt: skip


def pack_claim_worker(op: ClaimWorker) -> bytes:
    """Call `claim` of `registry.lua`."""
    return pack_registry(
        "claim", op.worker, op.nonce, op.principal, op.presented, op.issued, _json(op.labels), op.capacity, op.now_ms,
        op.attempt, node=op.node,
    )  # fmt: skip


def pack_reseed_worker(op: ReseedWorker) -> bytes:
    """Call `reseed` of `registry.lua`: the worker, both tokens, and each of its sessions."""
    current, previous, *_ = (*op.tokens, b"", b"")
    pairings = [word for session, want, order_ms in op.sessions for word in (session, order_ms, _json(want))]
    return pack_registry(
        "reseed", op.worker, op.epoch, op.principal, op.instance, _json(op.labels), op.capacity, current, previous,
        op.now_ms, *pairings, node=op.node,
    )  # fmt: skip


def pack_enqueue(op: Enqueue) -> bytes:
    """Call `enqueue` of `registry.lua`."""
    return pack_registry("enqueue", op.session, _json(op.want), op.order_ms, op.alive_until_ms)


def _json(labels: dict[str, str]) -> bytes:
    return msgspec.json.encode(labels)


# --- to a node ----------------------------------------------------------------------------------------------------


def pack_signal(op: Signal) -> bytes:
    """Publish a wake-up. A realtime message needs no script: it is kept nowhere."""
    return pack("PUBLISH", PACKING.get().channel(op.node), op.wake)
