"""What Redis answers to the operations on one session, read as their results. What is asked: packing.py. Damage: redis_replies.py."""

from signald.core.head import Head, Party
from signald.core.log import Entry
from signald.store.base import Behind, Fenced, Result, SessionOp
from signald.store.damage import REPORTS, unseal
from signald.store.redis_connection import Reply
from signald.store.redis_replies import DONE, read_name, read_refusal
from signald.store.session.head import read_head
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
    SessionRead,
    Unpaired,
)
from signald.wire.messages import SEQ_MAX

_NO_SESSION = NoSession()
_PARTIES: dict[bytes, Party] = {b"c": "client", b"w": "worker"}


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
    return DONE if reply[0] == 0 else _outdated(reply[0], reply)


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
        return Looked(read_head(op.session, head), (), int(stream[-1][0][:-2]))
    if entries and entries[-1].seq - entries[0].seq >= len(entries):
        # The store lost some in between: what is dense ends there, and the next look begins behind.
        hole = next(place for place, entry in enumerate(entries) if entry.seq != entries[0].seq + place)
        del entries[hole:]
    return Looked(read_head(op.session, head), tuple(entries))


# --- all else -----------------------------------------------------------------------------------------------------


def read_session(op: SessionOp, reply: Reply) -> Result | Head:
    """What `session.lua` answers: a list that begins with its kind."""
    match reply:
        case [b"done"]:
            return DONE
        case [b"head", head]:
            return read_head(op.session, head)
        case [b"claimed", [_, epoch, previous_node, up_from, up_to, down_from, down_to], head, away_ms, agreed]:
            return Claimed(
                epoch,
                read_head(op.session, head),
                read_name(previous_node),
                _loss(up_from, up_to),
                _loss(down_from, down_to),
                away_ms,
                agreed == 1,
            )
        case [b"unpaired", head]:
            return Unpaired(read_head(op.session, head))
        case [b"exists"]:
            return Exists()
        case [b"no_session"]:
            return _NO_SESSION
        case [b"read", head, connected_ms, away_ms]:
            return SessionRead(read_head(op.session, head), connected_ms, away_ms)
        case [b"ended", head]:
            return Ended(read_head(op.session, head))
        case _:
            return read_refusal(reply)


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
