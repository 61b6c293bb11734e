"""The operations on the registry as RESP commands, each with the reader of its reply, and the script they call.

Everything of the registry shares the tag `{signald}`, and so one hash slot. What packing.py of the session says of two releases
holds here too.
"""

from functools import lru_cache

import msgspec

from signald.core import api_keys, wants
from signald.core.life import EVENTS_LEFT_MS
from signald.store import lua
from signald.store.base import Done, RegistryOp
from signald.store.claims import CLAIMS_REMEMBERED
from signald.store.formats import FORMAT_UNSAID
from signald.store.redis_codec import call, codec, labels
from signald.store.redis_connection import Word, pack
from signald.store.redis_keys import PACKING, REGISTRY_TAG, Keyspace
from signald.store.redis_replies import read_done, read_name, read_names
from signald.store.registry import records
from signald.store.registry.agenda.records import LEASE_MAX_MS, ROOMS
from signald.store.registry.ops import (
    ClaimNamed,
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
    GetKeySet,
    GetReceipt,
    Hold,
    Incarnation,
    KeepAlive,
    KeepKeySet,
    KeptKeySet,
    Leave,
    ListNodes,
    ListOverdue,
    ListReceipts,
    ListRevoked,
    ListSessionsOf,
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
    ReadApiKeys,
    Receipts,
    RegisterWorker,
    Release,
    RemoveWorker,
    ReseedWorker,
    Reserve,
    Reserved,
    Revoke,
    SealKeys,
    Secret,
    Signal,
    TakePace,
    Text,
    UpdateWorker,
    UseSealKey,
    Waiting,
    WorkerSessions,
)
from signald.store.registry.queues.fields import lost, registered
from signald.store.registry.queues.ops import CLUSTER
from signald.store.registry.queues.records import ONCE_REMEMBERED, QUEUES_CHECKED
from signald.store.registry.replies import (
    read_hold,
    read_keys,
    read_nodes,
    read_put_node,
    read_revoke,
    read_revoked,
    read_sessions,
    read_waiting,
    read_worker,
    read_workers,
)

_REGISTRY_KEYS = (
    "nodes", "leases", "workers", "pairs", "paired", "waiting", "line", "alive", "misc", "receipts", "receipt_times",
    "lines", "spots", "wanted",
    "holds", "held_by", "holds_due", "trails", "trail_bytes",
    "revoked", "revoked_numbers", "revoked_ends",
    "agenda", "agenda_order", "event_queues",
)  # fmt: skip
"""What the keys of the registry end with; the script calls them `KEY.nodes` and so on."""

REGISTRY = lua.cold(
    "registry/nodes.lua",
    "registry/line.lua",
    "registry/agenda/agenda.lua",
    "registry/queues/queues.lua",
    "registry/workers.lua",
    "registry/revoked.lua",
    "registry/registry.lua",
    constants={
        **{f"KEY.{name}": lua.Raw(f"KEYS[{place}]") for place, name in enumerate(_REGISTRY_KEYS, 1)},
        "API_KEYS_MAX": api_keys.KEYS_MAX,
        "API_KEY_AHEAD_MAX_MS": api_keys.AHEAD_MAX_MS,
        "API_KEY_BYTES": api_keys.SECRET_BYTES,
        "API_KEY_LEAD_MS": api_keys.LEAD_MS,
        "CLAIMS_REMEMBERED": CLAIMS_REMEMBERED,
        "CLUSTER": CLUSTER,
        "DIGEST": wants.DIGEST,
        "EVENTS_LEFT_MS": EVENTS_LEFT_MS,
        "FORGET_NODE_AFTER_MS": records.FORGET_NODE_AFTER_MS,
        "FORMAT_UNSAID": FORMAT_UNSAID,
        "HOLDS_CHECKED": records.HOLDS_CHECKED,
        "HOLD_CHECK_MS": records.HOLD_CHECK_MS,
        "LEASE_MAX_MS": LEASE_MAX_MS,
        "ROOMS": ROOMS,
        "ONCE_REMEMBERED": ONCE_REMEMBERED,
        "PACE_BURST_S": records.PACE_BURST_S,
        "PACE_DEBT_MAX_S": records.PACE_DEBT_MAX_S,
        "QUEUES_CHECKED": QUEUES_CHECKED,
        "RECEIPTS_MAX": records.RECEIPTS_MAX,
        "REVOKED_DROPPED": records.REVOKED_DROPPED,
        "ROOT": wants.ROOT,
        "TENANT": wants.TENANT,
        "TRAILS_DROPPED": records.TRAILS_DROPPED,
        "TRAILS_EXPIRED": records.TRAILS_EXPIRED,
        "TRAIL_BYTES": records.TRAIL_BYTES,
    },
)


class Check(RegistryOp[Done], frozen=True):
    """Write something, to prove that it is possible."""

    now_ms: int


@lru_cache(16)
def _registry_keys(space: Keyspace) -> tuple[str, ...]:
    return tuple(f"{space.key(REGISTRY_TAG)}:{name}" for name in _REGISTRY_KEYS)


def pack_registry(operation: str, *words: Word, node: str = "") -> bytes:
    """Call the function of `registry.lua` named `operation` with `words`. `node` is the caller, where the rule needs it."""
    space = PACKING.get()
    return call(space.script(REGISTRY[operation]), _registry_keys(space), operation, node, *words)


# --- nodes and the cluster ----------------------------------------------------------------------------------------


def pack_put_node(op: PutNode) -> bytes:
    """Call `put_node` of `registry.lua`."""
    info = op.info
    return pack_registry(
        "put_node", info.id, info.state, info.lease_until_ms, msgspec.msgpack.encode(info), info.incarnation,
        info.renewed_ms, op.over, op.over_ms, node=info.id,
    )  # fmt: skip


codec(PutNode, pack_put_node, read_put_node)
codec(DropNode, lambda op: pack_registry("drop_node", op.node, op.incarnation, node=op.node), read_done)
codec(ListNodes, lambda op: pack_registry("list_nodes", op.now_ms), read_nodes)
codec(
    Incarnation,
    lambda op: pack_registry("once", "incarnation", op.candidate),
    lambda _op, reply: Named(read_name(reply)),
)
codec(
    UseSealKey,
    lambda op: pack_registry("use_seal_key", op.key, *op.retired),
    lambda _op, reply: SealKeys(read_names(reply)),
)
codec(ClusterSecret, lambda op: pack_registry("once", "secret", op.candidate), lambda _op, reply: Secret(reply))


def pack_read_api_keys(op: ReadApiKeys) -> bytes:
    """Call `read_api_keys` of `registry.lua`: the node's own keys follow, three words for each."""
    known = [word for key in op.known for word in (key.signs_from_ms, key.life_ms, key.secret)]
    return pack_registry("read_api_keys", op.candidate, op.now_ms, op.rotate_ms, op.life_ms, *known)


codec(ReadApiKeys, pack_read_api_keys, read_keys)
codec(RaiseFormat, lambda op: pack_registry("raise_format", op.format), lambda _op, reply: Format(int(reply)))
codec(
    TakePace,
    lambda op: pack_registry("take_pace", op.tokens, op.rate_per_s, op.now_ms, op.party),
    lambda _op, reply: Paced(float(reply)),
)
codec(PutReceipt, lambda op: pack_registry("put_receipt", op.node, op.body, op.now_ms), read_done)
codec(GetReceipt, lambda op: pack_registry("get_receipt", op.node), lambda _op, reply: Text(reply))
codec(
    ListReceipts,
    lambda _op: pack_registry("list_receipts"),
    lambda _op, reply: Receipts(tuple([(read_name(reply[i]), int(reply[i + 1])) for i in range(0, len(reply), 2)])),
)
codec(
    Revoke,
    lambda op: pack_registry("revoke", op.principal, op.at_ms, op.until_ms, op.now_ms, op.revoked_max, node=op.node),
    read_revoke,
)
codec(ListRevoked, lambda op: pack_registry("list_revoked", op.after, op.limit, op.now_ms), read_revoked)
codec(KeepKeySet, lambda op: pack_registry("keep_key_set", op.source, op.body, op.fetched_ms), read_done)
codec(
    GetKeySet,
    lambda op: pack_registry("get_key_set", op.source),
    lambda _op, reply: KeptKeySet(reply[1], int(reply[0])),
)
codec(Check, lambda op: pack_registry("check", op.now_ms), read_done)


# --- workers ------------------------------------------------------------------------------------------------------


def pack_register(op: RegisterWorker) -> bytes:
    """Call `register` of `registry.lua`."""
    return pack_registry(
        "register", op.worker, op.nonce, op.principal, op.instance, labels(op.labels), op.capacity, op.token, op.now_ms,
        op.events_max, msgspec.msgpack.encode(registered(op)), labels(op.granted), op.rooms, node=op.node,
    )  # fmt: skip


codec(RegisterWorker, pack_register, read_worker)


def pack_claim_worker(op: ClaimWorker) -> bytes:
    """Call `claim` of `registry.lua`."""
    return pack_registry(
        "claim", op.worker, op.nonce, op.principal, op.presented, op.issued, labels(op.labels), op.capacity, op.now_ms,
        op.attempt, node=op.node,
    )  # fmt: skip


codec(ClaimWorker, pack_claim_worker, read_worker)


def pack_claim_named(op: ClaimNamed) -> bytes:
    """Call `claim_named` of `workers.lua`."""
    return pack_registry(
        "claim_named", op.worker, op.nonce, op.principal, op.instance, labels(op.labels), op.capacity, int(op.create), op.now_ms,
        op.events_max, msgspec.msgpack.encode(registered(op)), labels(op.granted), op.rooms, node=op.node,
    )  # fmt: skip


codec(ClaimNamed, pack_claim_named, read_worker)
codec(UpdateWorker, lambda op: pack_registry("update", op.worker, op.epoch, op.capacity, int(op.leaving)), read_worker)
codec(ConfirmWorkerToken, lambda op: pack_registry("confirm", op.worker, op.epoch), read_worker)
codec(DetachWorker, lambda op: pack_registry("detach", op.worker, op.epoch, op.now_ms), read_worker)


def pack_remove_worker(op: RemoveWorker) -> bytes:
    """Call `remove` of `workers.lua`."""
    words = op.worker, op.epoch, int(op.requeue), op.events_max, op.now_ms, msgspec.msgpack.encode(lost(op))
    return pack_registry("remove", *words, node=op.node)


codec(RemoveWorker, pack_remove_worker, read_sessions)
codec(ListWorkers, lambda _op: pack_registry("list_workers"), read_workers)
codec(WorkerSessions, lambda op: pack_registry("worker_sessions", op.worker), read_sessions)


def pack_reseed_worker(op: ReseedWorker) -> bytes:
    """Call `reseed` of `registry.lua`: the worker, both tokens, and each of its sessions."""
    current, previous, *_ = (*op.tokens, b"", b"")
    pairings = [word for session, want, order_ms in op.sessions for word in (session, order_ms, labels(want))]
    return pack_registry(
        "reseed", op.worker, op.epoch, op.principal, op.instance, labels(op.labels), op.capacity, current, previous,
        op.now_ms, op.asked_ms, op.attempt, labels(op.granted), op.rooms, *pairings, node=op.node,
    )  # fmt: skip


codec(ReseedWorker, pack_reseed_worker, read_worker)


# --- sessions: the waiting line, pairs, lives ---------------------------------------------------------------------


def pack_enqueue(op: Enqueue) -> bytes:
    """Call `enqueue` of `registry.lua`."""
    return pack_registry("enqueue", op.session, labels(op.want), op.order_ms, op.alive_until_ms)


codec(Enqueue, pack_enqueue, lambda _op, reply: Enqueued(read_name(reply)))
codec(ListWaiting, lambda op: pack_registry("list_waiting", op.limit), read_waiting)
codec(
    ListSuited,
    lambda op: pack_registry("list_suited", op.limit, op.edges_max, *[" ".join(offer) for offer in op.offers]),
    lambda op, reply: Waiting(read_waiting(op, reply[1]).sessions, reply[0] == 1),
)
codec(
    MendLine,
    lambda op: pack_registry("mend_line", op.cursor, op.limit),
    lambda _op, reply: Mended(int(reply)),
)
codec(Leave, lambda op: pack_registry("leave", op.session), read_done)
codec(
    Reserve,
    lambda op: pack_registry("reserve", *[name for pair in op.pairs for name in pair], node=op.node),
    lambda _op, reply: Reserved(tuple([held == 1 for held in reply])),
)
codec(Release, lambda op: pack_registry("release", op.session, op.worker, int(op.requeue)), read_done)
codec(Forget, lambda op: pack_registry("forget", op.session), read_done)
codec(
    Hold,
    lambda op: pack_registry("hold", op.session, op.sessions_max, op.holder_max, op.until_ms, op.now_ms, *op.holders),
    read_hold,
)
codec(
    CountTrails,
    lambda op: pack_registry(
        "count_trails",
        op.bytes_max,
        op.trail_bytes_max,
        op.until_ms,
        op.now_ms,
        *[word for one in op.grown for word in one],
    ),
    read_sessions,
)


def pack_keep_alive(op: KeepAlive) -> bytes:
    """Call `keep_alive` of `registry.lua`: each session, and its holder."""
    holders = op.holders or ("",) * len(op.sessions)
    words = [word for pair in zip(op.sessions, holders, strict=True) for word in pair]
    return pack_registry("keep_alive", op.until_ms, *words)


codec(KeepAlive, pack_keep_alive, read_done)
codec(ListSessionsOf, lambda op: pack_registry("list_sessions_of", op.holder, op.after, op.limit), read_sessions)
codec(ListOverdue, lambda op: pack_registry("list_overdue", op.now_ms, op.limit), read_sessions)


# --- to a node ----------------------------------------------------------------------------------------------------


def pack_signal(op: Signal) -> bytes:
    """Publish a wake-up. A realtime message needs no script: it is kept nowhere."""
    return pack("PUBLISH", PACKING.get().channel(op.node), op.wake)


codec(Signal, pack_signal, read_done)
