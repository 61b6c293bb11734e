"""The operations on one session as RESP commands, each with the reader of its reply, and the scripts they call.

`append.lua`, `ack.lua` and `look.lua` are the hot path; `session.lua`, with the files before it, holds the rest, and `trail.lua`
writes what outlives a session. Each touches one hash slot only: the keys of a session share the tag `{<session>}`.

In every deploy two releases share these keys. So a field may be added, with a meaning for its absence, and none may change its
meaning. The scripts themselves are each release's own: they are called by their hash.
"""

from functools import lru_cache

from signald.core.head import Party
from signald.core.log import Entry
from signald.store import lua
from signald.store.base import SessionOp
from signald.store.claims import CLAIMS_REMEMBERED
from signald.store.damage import SEAL_BYTES
from signald.store.redis_codec import EVAL, bulk, call, codec, labels
from signald.store.redis_connection import DAMAGE_SIGNS, Word, pack
from signald.store.redis_keys import PACKING, Keyspace
from signald.store.redis_replies import read_done
from signald.store.seals import MARK, SEALED_BYTES
from signald.store.session import head
from signald.store.session.events import records as events
from signald.store.session.head import SAFETY_MIN_MS
from signald.store.session.jobs import packing as jobs
from signald.store.session.ops import (
    IDLE_FAILURE_MS,
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
    HandOn,
    KeepAnswer,
    Look,
    Mark,
    ReadHistory,
    ReadSession,
    ReadTrail,
    Reseed,
    RetrySession,
    Unpair,
    UnpairFailed,
)
from signald.store.session.records import NO_TTL_MS, WORKERS_REMEMBERED, Way
from signald.store.session.replies import (
    read_ack,
    read_append,
    read_history,
    read_look,
    read_session,
    read_streams,
    read_trail,
)
from signald.store.session.streams import records as streams
from signald.store.session.streams.ops import CancelStream, CloseStreams, OpenStreams
from signald.store.session.streams.packing import entry_words
from signald.store.session.streams.records import mark_in
from signald.wire.fields import SEQ_MAX

APPEND = lua.hot("session/append.lua", {"SEAL_BYTES": SEAL_BYTES, "SEALED_BYTES": SEALED_BYTES, "SEAL_MARK": MARK})
ACK = lua.hot("session/ack.lua")
LOOK = lua.hot("session/look.lua", head.CONSTANTS)
TRAIL = lua.hot("session/trail.lua")
SESSION = lua.cold(
    *jobs.FILES,
    "session/events/operations.lua",
    "session/jobs/pieces.lua",
    "session/jobs/session.lua",
    "session/streams/streams.lua",
    "session/claims.lua",
    "session/reseed.lua",
    "session/session.lua",
    constants={
        **head.CONSTANTS,
        **events.CONSTANTS,
        "NONCES_REMEMBERED": events.NONCES_REMEMBERED,
        **jobs.CONSTANTS,
        **streams.CONSTANTS,
        "CLAIMS_REMEMBERED": CLAIMS_REMEMBERED,
        "DAMAGE_SIGNS": DAMAGE_SIGNS,
        "IDLE_FAILURE_MS": IDLE_FAILURE_MS,
        "NO_TTL_MS": NO_TTL_MS,
        "SAFETY_MIN_MS": SAFETY_MIN_MS,
        **head.SEAL_CONSTANTS,
        "SEQ_MAX": SEQ_MAX,
        "WORKERS_REMEMBERED": WORKERS_REMEMBERED,
    },
)

PIECES = lua.cold(
    *jobs.FILES,
    "session/jobs/pieces.lua",
    "session/streams/streams.lua",
    "session/streams/append.lua",
    constants={
        **head.CONSTANTS,
        **events.CONSTANTS,
        **{name: value for name, value in jobs.CONSTANTS.items() if name != "WORKER_LOST"},
        **streams.CONSTANTS,
        "SAFETY_MIN_MS": SAFETY_MIN_MS,
        **head.SEAL_CONSTANTS,
        "SEQ_MAX": SEQ_MAX,
    },
)

# --- the hot path -------------------------------------------------------------------------------------------------

# The hot commands are written by hand. What stays the same from one message of a session to the next is remembered, so
# a third of the time of a general packer is left.
_PARTY = {"client": b"$1\r\nc\r\n", "worker": b"$1\r\nw\r\n"}
_WAYS: dict[Party, Way] = {"client": "up", "worker": "down"}
_KINDS: dict[Party, bytes] = {"client": b"up", "worker": b"down"}


@lru_cache(4096)
def _number(number: int) -> bytes:
    return bulk(b"%d" % number)


@lru_cache(64)
def _limits(backlog_max: int, history_max: int, history_bytes_max: int) -> bytes:
    return b"".join([bulk(b"%d" % number) for number in (backlog_max, history_max, history_bytes_max)])


def _keys(space: Keyspace, session: str) -> bytes:
    key = space.key(session).encode()
    return bulk(key) + bulk(key + b":up") + bulk(key + b":down")


@lru_cache(8192)
def _append_start(space: Keyspace, session: str, party: Party, node: str, epoch: int) -> bytes:
    history = bulk(space.key(session).encode() + b":history")
    return _keys(space, session) + history + _PARTY[party] + bulk(node.encode()) + bulk(b"%d" % epoch)


@lru_cache(16)
def _append_one(space: Keyspace) -> bytes:
    return EVAL % (17, space.script(APPEND).sha, 4)


@lru_cache(8192)
def _ack_start(space: Keyspace, session: str, party: Party, node: str, epoch: int) -> bytes:
    eval_ack = EVAL % (10, space.script(ACK).sha, 3)
    return eval_ack + _keys(space, session) + _PARTY[party] + bulk(node.encode()) + bulk(b"%d" % epoch)


def _flags(entries: tuple[Entry, ...]) -> bytes:
    return b"".join([b"1" if entry.history else b"0" for entry in entries])


def pack_append(op: Append) -> bytes:
    """Call `append.lua`, or that of the streams. Each body has its seal."""
    entries, space = op.entries, PACKING.get()
    if len(entries) == 1 and entries[0].mark is None:
        (entry,) = entries
        seq = b"%d" % entry.seq
        body = space.seals.wrap(entry.body, _KINDS[op.party], op.session, entry.seq)
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
    if any(entry.mark is not None for entry in entries):
        return pack_pieces(op)
    flags, way, wrap = _flags(entries), _KINDS[op.party], space.seals.wrap
    return b"".join(
        [
            EVAL % (16 + len(entries), space.script(APPEND).sha, 4),
            _append_start(space, op.session, op.party, op.node, op.epoch),
            _number(op.ack),
            _limits(op.backlog_max, op.history_max, op.history_bytes_max),
            _number(entries[0].seq if entries else 1),
            bulk(flags if b"1" in flags else b""),
            *[bulk(wrap(entry.body, way, op.session, entry.seq)) for entry in entries],
        ]
    )


def pack_pieces(op: Append) -> bytes:
    """Call `append` of the streams: three words for each entry."""
    way = _WAYS[op.party]
    words = [word for entry in op.entries for word in entry_words(op.session, way, entry, entry.mark, op.now_ms)]
    space = PACKING.get()
    return call(
        space.script(PIECES["append"]), space.session_keys(op.session), "append", op.node, op.party, op.epoch, op.ack, op.backlog_max,
        op.history_max, op.history_bytes_max, op.now_ms, op.entries[0].seq, _flags(op.entries), *words,
    )  # fmt: skip


codec(Append, pack_append, read_append)


def pack_ack(op: Ack) -> bytes:
    """Call `ack.lua`."""
    return _ack_start(PACKING.get(), op.session, op.party, op.node, op.epoch) + _number(op.seq)


codec(Ack, pack_ack, read_ack)


def pack_look(op: Look) -> bytes:
    """Call `look.lua`."""
    space = PACKING.get()
    key = space.key(op.session)
    return call(space.script(LOOK), (key, key + ":up", key + ":down"), op.party[0], op.after, op.limit)


codec(Look, pack_look, read_look)


# --- all else -----------------------------------------------------------------------------------------------------


def pack_session(op: SessionOp, operation: str, *words: Word, node: str = "") -> bytes:
    """Call the function of `session.lua` named `operation` with `words`. `node` is the caller, where the rule needs it."""
    space = PACKING.get()
    return call(space.script(SESSION[operation]), space.session_keys(op.session), operation, node, *words)


def pack_create(op: CreateSession) -> bytes:
    """Call `create` of `session.lua`."""
    meta = head.cover("meta", op.meta, op.session)
    settings, rooms = head.cover("settings", op.settings, op.session), head.cover("rooms", op.rooms, op.session)
    return pack_session(
        op, "create", op.nonce, op.principal, labels(op.want), meta, int(op.receipts), op.token, op.now_ms, op.ttl_ms,
        int(op.pair), op.events_max, settings, rooms, op.asked_until_ms, node=op.node,
    )  # fmt: skip


def pack_keep_answer(op: KeepAnswer) -> bytes:
    """Call `keep_answer` of `session.lua`."""
    settings, rooms = head.cover("settings", op.settings, op.session), head.cover("rooms", op.rooms, op.session)
    return pack_session(op, "keep_answer", settings, rooms, op.asked_until_ms)


codec(CreateSession, pack_create, read_session)
codec(KeepAnswer, pack_keep_answer, read_session)


def pack_claim_client(op: ClaimClient) -> bytes:
    """Call `claim_client` of `session.lua`."""
    return pack_session(
        op, "claim_client", op.nonce, op.principal, op.presented, op.issued, op.received, op.acked, op.now_ms, op.ttl_ms,
        op.attempt, op.ahead_max, op.history, op.events_max, node=op.node,
    )  # fmt: skip


codec(ClaimClient, pack_claim_client, read_session)


def pack_claim_worker_side(op: ClaimWorkerSide) -> bytes:
    """Call `claim_worker_side` of `session.lua`."""
    return pack_session(
        op, "claim_worker_side", op.nonce, op.worker, int(op.assign), op.received, op.acked, op.now_ms,
        op.ahead_max, op.history, op.events_max, node=op.node,
    )  # fmt: skip


codec(ClaimWorkerSide, pack_claim_worker_side, read_session)
codec(AcceptSession, lambda op: pack_session(op, "accept", op.epoch, op.now_ms, node=op.node), read_session)
codec(
    HandOn,
    lambda op: pack_session(op, "hand_on", op.epoch, head.cover("handed_on", op.state, op.session), node=op.node),
    read_session,
)
codec(Unpair, lambda op: pack_session(op, "unpair", op.worker, op.epoch, node=op.node), read_session)
codec(
    UnpairFailed,
    lambda op: pack_session(
        op,
        "unpair_failed",
        op.worker,
        op.epoch,
        op.failures_max,
        op.now_ms,
        op.ended_ms,
        op.jobs_failures_max,
        node=op.node,
    ),
    read_session,
)
codec(RetrySession, lambda op: pack_session(op, "retry", node=op.node), read_session)
codec(ReadSession, lambda op: pack_session(op, "read", *op.access.words), read_session)
codec(ReadHistory, lambda op: pack_session(op, "history", *op.access.words, op.now_ms), read_history)
codec(Detach, lambda op: pack_session(op, "detach", op.party, op.epoch, op.now_ms, node=op.node), read_session)
codec(ConfirmToken, lambda op: pack_session(op, "confirm", op.epoch), read_session)
codec(EndSession, lambda op: pack_session(op, "finish", op.now_ms, op.keep_ms, op.reason, node=op.node), read_session)
codec(
    ExpireSession,
    lambda op: pack_session(op, "expire", op.now_ms, op.ttl_ms, op.keep_ms, op.reason, *op.nodes, node=op.node),
    read_session,
)


def pack_reseed(op: Reseed) -> bytes:
    """Call `reseed` of `session.lua`: both tokens, the head, and what is left of both logs, each body with its seal."""
    up, down = op.up_tail, op.down_tail
    current, previous, *_ = (*op.client_tokens, b"", b"")
    return pack_session(
        op, "reseed", int(op.create), int(bool(op.client_tokens)), current, previous, op.now_ms,
        up[0].seq if up else 0, _flags(up), down[0].seq if down else 0, _flags(down), op.asked_ms, op.attempt, *head.write_head(op.head),
        *_tail(op, "up", up), *_tail(op, "down", down), node=op.node,
    )  # fmt: skip


def _tail(op: Reseed, way: Way, entries: tuple[Entry, ...]) -> list[Word]:
    return [word for entry in entries for word in entry_words(op.session, way, entry, mark_in(entry), op.now_ms)]


codec(Reseed, pack_reseed, read_session)


# --- streams ------------------------------------------------------------------------------------------------------

codec(OpenStreams, lambda op: pack_session(op, "streams"), read_streams)
codec(
    CancelStream,
    lambda op: pack_session(op, "cancel_stream", op.way, op.stream, op.reason, *op.access.words, node=op.node),
    read_streams,
)
codec(
    CloseStreams,
    lambda op: pack_session(op, "close_streams", op.epoch, op.outcome, op.now_ms, *op.streams, node=op.node),
    read_streams,
)


# --- the trail ----------------------------------------------------------------------------------------------------


def _trail(op: SessionOp) -> str:
    return PACKING.get().key(op.session) + ":trail"


def pack_mark(op: Mark) -> bytes:
    """Call `trail.lua`."""
    space = PACKING.get()
    steps = [space.seals.cover(step, b"step", op.session) for step in op.steps]
    return call(space.script(TRAIL), (_trail(op),), op.keep_max, op.keep_ms, *steps)


def pack_read_trail(op: ReadTrail) -> bytes:
    """Ask for all steps that are kept, which needs no script."""
    return pack("LRANGE", _trail(op), 0, -1)


codec(Mark, pack_mark, read_done)
codec(ReadTrail, pack_read_trail, read_trail)


# --- the safety TTL -----------------------------------------------------------------------------------------------

TOUCH_REPLIES = 8
"""How many replies one `touch` has."""


def touch(session: str, left_ms: int) -> bytes:
    """Renew the safety TTL of a session's keys: what `KeepAlive` means outside the registry."""
    key = PACKING.get().key(session).encode()
    left = bulk(b"%d" % left_ms)
    return b"".join(
        [
            b"*3\r\n$7\r\nPEXPIRE\r\n" + bulk(key + end) + left
            for end in (b"", b":up", b":down", b":history", b":jobs", b":pieces", b":streams", b":events")
        ]
    )
