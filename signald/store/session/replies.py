"""What Redis answers to the operations on one session, read as their results. What is asked: packing.py. Damage: redis_replies.py."""

import msgspec

from signald.core.chat_history import unfold
from signald.core.head import Head, Party
from signald.core.log import Entry
from signald.core.streams import StreamView
from signald.store.base import Behind, Fenced, Result, SessionOp
from signald.store.damage import REPORTS, SEAL_BYTES
from signald.store.redis_connection import Reply
from signald.store.redis_keys import PACKING
from signald.store.redis_replies import DONE, read_name, read_refusal
from signald.store.seals import NOT_SAID, number_of
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
    ReadTrail,
    SessionRead,
    StreamRefused,
    Trail,
    Unpaired,
)
from signald.store.session.records import Way
from signald.store.session.streams.ops import NoStream, Streams
from signald.store.session.streams.packing import PIECE_OF
from signald.store.session.streams.records import decode_stream
from signald.wire.fields import SEQ_MAX

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
    if first == -6:
        return StreamRefused(reply[4].decode(), reply[5].decode(), reply[1], reply[2], reply[3].decode())
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
    unwrap, way = PACKING.get().seals.unwrap, b"down" if op.party == "client" else b"up"
    for name, (kind, kept) in stream:
        seq = int(name[:-2])
        body = unwrap(kept, way, op.session, seq)
        if body is None:
            REPORTS.tell("message", op.session)
        else:
            entries.append(Entry(seq, body, kind == b"h"))
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
        case [b"claimed", *_]:
            return _read_claimed(op, reply)
        case [b"unpaired", head]:
            return Unpaired(read_head(op.session, head))
        case [b"exists"]:
            return Exists()
        case [b"no_session"]:
            return _NO_SESSION
        case [b"read", head, connected_ms, away_ms]:
            return SessionRead(read_head(op.session, head), connected_ms, away_ms)
        case [b"ended", head, streams, history_bytes, events]:
            return Ended(read_head(op.session, head), _views(op, streams), history_bytes, events)
        case _:
            return read_refusal(reply)


def _read_claimed(op: SessionOp, reply: Reply) -> Result:
    _, claim, head, away_ms, agreed, items, streams, hand_outs, state = reply
    _, epoch, previous_node, up_from, up_to, down_from, down_to = claim
    return Claimed(
        epoch,
        read_head(op.session, head),
        read_name(previous_node),
        _loss(up_from, up_to),
        _loss(down_from, down_to),
        away_ms,
        agreed == 1,
        unfold(_items(op, items), getattr(op, "history", 0))[0],
        _views(op, streams),
        hand_outs,
        _handed_on(op, state),
    )


def _handed_on(op: SessionOp, kept: bytes) -> bytes:
    state = PACKING.get().seals.uncover(kept, b"handed_on", op.session)
    if state is None:
        REPORTS.tell("state that a worker has left", op.session)
    return state or b""


def _loss(first: int, last: int) -> tuple[int, int] | None:
    return (first, last) if first else None


def read_history(op: ReadHistory, reply: Reply) -> Result:
    """The chat history, without what of it is damaged."""
    match reply:
        case [b"history", items]:
            return History(*unfold(_items(op, items), op.limit, op.before)) if op.limit > 0 else History(())
        case [b"no_session"]:
            return _NO_SESSION
        case _:
            return read_refusal(reply)


def _items(op: SessionOp, kept: list[bytes]) -> list[tuple[Party, bytes]]:
    """Return the items of a chat history.

    The messages of a party stand in the order of their seqs. A sealed one that does not was put there by no script.
    """
    found: list[tuple[Party, bytes]] = []
    last: dict[Party, int] = {"client": 0, "worker": 0}
    for item in kept:
        party = _PARTIES.get(item[:1].lower())
        prefix, sealed = b"", item[1:]
        if item[:1] in b"CW" and item[1:2] == b"p":
            index, blank, sealed = sealed.partition(b" ")
            prefix = index + blank
        seq = number_of(sealed)
        if party is None:
            body = None
        elif item[:1] in b"CW" and item[1:2] == b"e":
            body = sealed[:-SEAL_BYTES]  # by a script, which knows no seals
        else:
            way: Way = "up" if party == "client" else "down"
            kind = PIECE_OF[way] if prefix else way.encode()
            body = PACKING.get().seals.unwrap(sealed, kind, op.session, NOT_SAID)
        if party is None or body is None or 0 < seq <= last[party]:
            REPORTS.tell("chat history", op.session)
        else:
            last[party] = seq or last[party]
            found.append((party, prefix + body))
    return found


def read_trail(op: ReadTrail, reply: Reply) -> Result:
    """The steps of a trail, without those that do not open."""
    steps = [PACKING.get().seals.uncover(step, b"step", op.session) for step in reply]
    if None in steps:
        REPORTS.tell("trail", op.session)
    return Trail(tuple([step for step in steps if step is not None]))


def read_streams(op: SessionOp, reply: Reply) -> Result:
    """What `session.lua` answers to the operations on streams."""
    match reply:
        case [b"streams", streams]:
            return Streams(_views(op, streams))
        case [b"no_stream"]:
            return NoStream()
        case _:
            result = read_session(op, reply)
            assert isinstance(result, Result)
            return result


def _views(op: SessionOp, kept: list[bytes]) -> tuple[StreamView, ...]:
    found = []
    for record in kept:
        try:
            found.append(decode_stream(record).view())
        except msgspec.DecodeError:
            REPORTS.tell("stream", op.session)
    return tuple(found)
