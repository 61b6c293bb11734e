"""What Redis answers to the operations on the registry, read as their results. What is asked: packing.py. Damage: redis_replies.py."""

from functools import lru_cache

import msgspec

from signald.core.api_keys import ApiKey
from signald.store.base import Op, Result
from signald.store.damage import REPORTS
from signald.store.redis_connection import Reply
from signald.store.redis_replies import DONE, LABELS, read_name, read_names, read_refusal
from signald.store.registry.ops import (
    Keys,
    NodeInfo,
    Nodes,
    NodeTaken,
    NoWorker,
    Revocation,
    Revoked,
    RevokedPage,
    Sessions,
    Waiting,
    WaitingSession,
    WorkerClaimed,
    WorkerInfo,
    Workers,
)

_NODE = msgspec.msgpack.Decoder(NodeInfo)


def read_worker(_op: Op, reply: Reply) -> Result:
    """What `registry.lua` answers about one worker: a list that begins with its kind."""
    match reply:
        case [b"done"]:
            return DONE
        case [b"claimed", epoch, sessions, previous_node, granted, rooms]:
            return WorkerClaimed(epoch, read_names(sessions), read_name(previous_node), _want(granted), rooms)
        case [b"no_worker"]:
            return NoWorker()
        case _:
            return read_refusal(reply)


def read_sessions(_op: Op, reply: Reply) -> Result:
    """The names of sessions."""
    return Sessions(read_names(reply))


def read_hold(_op: Op, reply: Reply) -> Result:
    """What `hold` of `registry.lua` answers."""
    return DONE if reply == [b"done"] else read_refusal(reply)


def read_keys(_op: Op, reply: Reply) -> Result:
    """The keys of API tokens."""
    return Keys(tuple([ApiKey(int(signs_from), int(life), secret) for signs_from, life, secret in reply]))


def read_revoke(_op: Op, reply: Reply) -> Result:
    """The principal is revoked under a number, or there are too many."""
    match reply:
        case [b"revoked", number]:
            return Revoked(number)
        case _:
            return read_refusal(reply)


def read_revoked(_op: Op, reply: Reply) -> Result:
    """The revoked principals, by number."""
    upto, last, *words = reply
    found = []
    for place in range(0, len(words), 4):
        principal, number, at_ms, until_ms = words[place : place + 4]
        try:
            found.append(Revocation(principal.decode(), number, at_ms, until_ms))
        except UnicodeDecodeError:
            REPORTS.tell("revocation", read_name(principal))
    return RevokedPage(tuple(found), int(float(upto)), int(float(last)))


def read_put_node(_op: Op, reply: Reply) -> Result:
    """The entry was written, or another process holds the id."""
    match reply:
        case [b"taken", incarnation, renewed_ms, lease_until_ms]:
            return NodeTaken(read_name(incarnation), renewed_ms, lease_until_ms)
        case _:
            return DONE


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
    return LABELS.decode(want)
