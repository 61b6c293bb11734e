"""Every codec and script of every aggregate, and the result of an operation whose reply cannot be read."""

import msgspec

from signald.store import redis_reseal
from signald.store.base import Op, Result, RoomOp, SessionOp, ShelfOp
from signald.store.damage import REPORTS, Unreadable
from signald.store.lua import SCRIPTS
from signald.store.redis_codec import CODECS
from signald.store.redis_connection import Reply
from signald.store.redis_keys import REGISTRY_TAG, ROOM_TAG, Keyspace, Script
from signald.store.registry import packing as registry_packing
from signald.store.registry.agenda import packing as agenda_packing
from signald.store.registry.queues import packing as queues_packing
from signald.store.room import packing as room_packing
from signald.store.session import packing as session_packing
from signald.store.session.events import packing as events_packing
from signald.store.session.jobs import packing as jobs_packing
from signald.store.shelf import packing as shelf_packing

__all__ = ["AGGREGATES", "CODECS", "read", "scripts", "tag_of", "unreadable"]

AGGREGATES = (
    session_packing, jobs_packing, events_packing, shelf_packing, room_packing, registry_packing, agenda_packing,
    queues_packing, redis_reseal,
)  # fmt: skip
"""Where the codecs are. Importing an aggregate's packing enters its codecs and scripts."""

_UNREADABLE = (ValueError, TypeError, AttributeError, LookupError, msgspec.MsgspecError)


def scripts(space: Keyspace) -> tuple[Script, ...]:
    """Return all scripts of a store, to be loaded."""
    return tuple([space.script(lua) for lua in SCRIPTS])


def tag_of(op: Op) -> str:
    """The hash tag of the keys `op` touches."""
    if isinstance(op, SessionOp):
        return op.session
    if isinstance(op, RoomOp):
        return ROOM_TAG + op.room
    return op.shelf if isinstance(op, ShelfOp) else REGISTRY_TAG


def read(op: Op, reply: Reply) -> Result:
    """Return the result of `op`: also where what the script found cannot be read. Raises Unreadable for what has no answer then."""
    try:
        result: Result = CODECS[type(op)].unpack(op, reply)  # or a `Head`, which is no `Result`
    except _UNREADABLE:
        return unreadable(op)
    return result


def unreadable(op: Op) -> Result:
    """Return the result of `op` when what it is about cannot be read. Raises Unreadable as `read`."""
    tag = tag_of(op)
    about = "registry" if tag == REGISTRY_TAG else tag.removeprefix(ROOM_TAG)
    REPORTS.tell("record", about)
    if op.damaged is None:
        raise Unreadable(type(op).__name__, about)
    return op.damaged
