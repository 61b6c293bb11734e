"""What Redis answers to each operation, read as its result. What is asked: redis_scripts.py.

Damage is met here. A part that cannot be read, as one message or one worker of many, is reported and left out. Where the whole
cannot be read, what is here raises as it comes (ValueError, TypeError, LookupError...), and `redis_codecs.read` takes it for
what it is.
"""

from functools import lru_cache

import msgspec

from signald.core.failures import NO_FAILURES, Failures
from signald.core.head import Head, Party
from signald.core.log import Entry
from signald.store.base import Behind, Done, Fenced, Op, Refused, Result, SessionOp
from signald.store.damage import REPORTS, unseal
from signald.store.redis_connection import Reply
from signald.store.registry.ops import (
    NodeInfo,
    Nodes,
    NodeTaken,
    NoWorker,
    Sessions,
    Waiting,
    WaitingSession,
    WorkerClaimed,
    WorkerInfo,
    Workers,
)
from signald.store.session.ops import (
    Ack,
    Append,
    Appended,
    Claimed,
    Ended,
    Exists,
    Full,
    Gap,
    History,
    Look,
    Looked,
    NoSession,
    ReadHistory,
    Unpaired,
)
from signald.wire.messages import SEQ_MAX

_LABELS = msgspec.json.Decoder(dict[str, str])
_NODE = msgspec.msgpack.Decoder(NodeInfo)
_DONE = Done()
_NO_SESSION = NoSession()
_PARTIES: dict[bytes, Party] = {b"c": "client", b"w": "worker"}


def read_name(name: bytes) -> str:
    """The name of a node, worker, session, or whatever. A damaged one is that of nobody."""
    return name.decode(errors="replace")


def read_done(_op: Op, _reply: Reply) -> Result:
    """Whatever the reply: of what is done when it is answered."""
    return _DONE


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


def read_hold(_op: Op, reply: Reply) -> Result:
    """What `hold` of `registry.lua` answers."""
    return _DONE if reply == [b"done"] else _refusal(reply)


# --- the hot path -------------------------------------------------------------------------------------------------


def read_append(_op: Append, reply: Reply) -> Result:
    """What `append.lua` answers, with a number for its kind."""
    first = reply[0]
    if first > SEQ_MAX:
        raise ValueError("no seq")
    if first >= 0:
        return Appended(first, reply[1], reply[2].decode())
    if first == -1:
        return Gap(reply[1])
    if first == -2:
        return Full(reply[1], reply[2])
    return _outdated(first, reply)


def read_ack(_op: Ack, reply: Reply) -> Result:
    """What `ack.lua` answers, with a number for its kind."""
    return _DONE if reply[0] == 0 else _outdated(reply[0], reply)


def _outdated(kind: int, reply: Reply) -> Result:
    if kind == -3:
        return Fenced(reply[1])
    return Behind(reply[1]) if kind == -4 else _NO_SESSION


def read_look(op: Look, reply: Reply) -> Result:
    """The head and the entries that `look.lua` finds: up to the first hole, and without those that are damaged."""
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


def _claimed_seqs(ahead: bytes | None) -> tuple[int, int]:
    # Merely keeps an alarm from ringing: what cannot be read is as none.
    try:
        first, last, *_ = (ahead or b"0 0").split()
        return int(first), int(last)
    except ValueError:
        return 0, 0


def _number(text: bytes) -> int:
    number = int(text)
    if not 0 <= number <= SEQ_MAX:
        raise ValueError("no number of ours")  # damaged, or it would leave in a frame that no party can read
    return number


def _head(session: str, v: list[bytes]) -> Head:
    return Head(
        session, _number(v[0]), v[1].decode(), _LABELS.decode(v[2]), _meta(v[3]), v[4] == b"1", _number(v[5]),
        read_name(v[6]), read_name(v[7]), read_name(v[8]), _number(v[9]), read_name(v[10]), _number(v[11]), _number(v[12]),
        _number(v[13]), _number(v[14]), _number(v[15]),
        _number(v[16] or v[14]),  # without the field the worker began where the log ends now
        _claimed_seqs(v[17]), _claimed_seqs(v[18]),
        _failures(v[19]),
    )  # fmt: skip


def _failures(kept: bytes | None) -> Failures:
    """Records of releases that do not count them have none; what cannot be read counts as none."""
    try:
        seq, count, at_ms, aside = map(int, (kept or b"").split())
    except ValueError:
        return NO_FAILURES
    return Failures(seq, count, at_ms, aside == 1)


@lru_cache(1024)
def _meta(meta: bytes) -> bytes:
    # It is put into frames as it is.
    if meta:
        msgspec.json.decode(meta)
    return meta


# --- on one session -----------------------------------------------------------------------------------------------


def read_session(op: SessionOp, reply: Reply) -> Result:
    """What `session.lua` answers: a list that begins with its kind."""
    match reply:
        case [b"done"]:
            return _DONE
        case [b"head", head]:
            return _head(op.session, head)  # type: ignore[return-value]
        case [b"claimed", [_, epoch, previous_node, up_from, up_to, down_from, down_to], head, away_ms, agreed]:
            return Claimed(
                epoch,
                _head(op.session, head),
                read_name(previous_node),
                _loss(up_from, up_to),
                _loss(down_from, down_to),
                away_ms,
                agreed == 1,
            )
        case [b"unpaired", head]:
            return Unpaired(_head(op.session, head))
        case [b"ended", head]:
            return Ended(_head(op.session, head))
        case _:
            return _refusal(reply)


def _loss(first: int, last: int) -> tuple[int, int] | None:
    return (first, last) if first else None


def read_history(op: ReadHistory, reply: Reply) -> Result:
    """The chat history, without what of it is damaged."""
    entries: list[tuple[str, bytes]] = []
    for item in reply:
        party, body = _PARTIES.get(item[:1]), unseal(item[1:])
        if party is None or body is None:
            REPORTS.tell("chat history", op.session)
        else:
            entries.append((party, body))
    return History(tuple(entries))


# --- on the registry ----------------------------------------------------------------------------------------------


def read_worker(_op: Op, reply: Reply) -> Result:
    """What `registry.lua` answers about one worker: a list that begins with its kind."""
    match reply:
        case [b"done"]:
            return _DONE
        case [b"claimed", epoch, sessions, previous_node]:
            return WorkerClaimed(epoch, _names(sessions), read_name(previous_node))
        case _:
            return _refusal(reply)


def _names(reply: list[bytes]) -> tuple[str, ...]:
    return tuple([read_name(name) for name in reply])


def read_released(_op: Op, reply: Reply) -> Result:
    """The names of sessions."""
    return Sessions(_names(reply))


def read_put_node(_op: Op, reply: Reply) -> Result:
    """The entry was written, or another process holds the id."""
    match reply:
        case [b"taken", incarnation, renewed_ms, lease_until_ms]:
            return NodeTaken(read_name(incarnation), renewed_ms, lease_until_ms)
        case _:
            return _DONE


def read_nodes(_op: Op, reply: Reply) -> Result:
    """The nodes by id, without those whose record is damaged."""
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


def read_workers(_op: Op, reply: Reply) -> Result:
    """The workers by id, without those whose record is damaged."""
    found = []
    for name, *record in sorted(reply, key=lambda item: item[0]):
        try:
            node, epoch, labels, capacity, assigned, leaving, away_ms, instance, principal = record
            found.append(
                WorkerInfo(
                    name.decode(), read_name(node), epoch, _want(labels), capacity, assigned, leaving == 1,
                    away_ms, read_name(instance), read_name(principal),
                )
            )  # fmt: skip
        except (ValueError, msgspec.DecodeError):
            REPORTS.tell("worker", read_name(name))
    return Workers(tuple(found))


def read_waiting(_op: Op, reply: Reply) -> Waiting:
    """The waiting sessions as they come, without those whose place is damaged."""
    found = []
    for session, order, want in reply:
        try:
            found.append(WaitingSession(session.decode(), _want(want), int(order)))
        except (ValueError, msgspec.DecodeError):
            REPORTS.tell("place", read_name(session))
    return Waiting(tuple(sorted(found, key=lambda one: (one.order_ms, one.session))))


@lru_cache(4096)
def _want(want: bytes) -> dict[str, str]:
    return _LABELS.decode(want)
