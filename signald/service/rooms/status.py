"""What operators are told of rooms: `signald ctl rooms` and `signald ctl room`. Nothing that a party has said is in it."""

from typing import Any

from signald.core.room_names import shown_name, stored_name, tenant_in
from signald.core.rooms import is_room
from signald.errors import OperationRefused
from signald.service.context import Context
from signald.service.rooms.hall import Hall
from signald.store.room.ops import ReadRoom, RoomRead

Json = dict[str, Any]

READ_MAX = 10_000
"""Rooms that are read for one question: more than a node usually has, and some seconds of work for the store at most."""

READ_AT_ONCE = 100
"""Of these in one round trip, so that publications are stored between two."""


async def rooms_json(context: Context, hall: Hall, limit: int) -> Json:
    """Return the rooms with members at this node, the largest first, at most `limit` of them.

    `unread` are rooms beyond READ_MAX.
    """
    names = sorted(hall.rooms)
    found: list[tuple[str, RoomRead]] = []
    for start in range(0, min(len(names), READ_MAX), READ_AT_ONCE):
        part = names[start : min(start + READ_AT_ONCE, READ_MAX)]
        read = await context.committer.call_many([ReadRoom(name, 0, context.now_ms()) for name in part])
        found += [(name, one) for name, one in zip(part, read, strict=True) if isinstance(one, RoomRead)]
    found.sort(key=lambda one: (-one[1].bytes, one[0]))
    return {
        "node": context.node,
        "total": len(names),
        "unread": max(0, len(names) - READ_MAX),
        "rooms": [_json(name, read, hall) for name, read in found[:limit]],
    }


async def room_json(context: Context, hall: Hall, room: str, tenant: str | None, limit: int) -> Json:
    """Return a room, wherever its members are, with up to `limit` of them. Raises OperationRefused when there is none."""
    stored = stored_name(room, tenant)
    read = await context.committer.call(ReadRoom(stored, limit, context.now_ms())) if is_room(room) else None
    if not isinstance(read, RoomRead):
        raise OperationRefused("unknown", "unknown-room", f"there is no room {room}")
    members = [{"member": one.member, "presence_bytes": len(one.presence)} for one in read.members]
    return {
        "node": context.node,
        **_json(stored, read, hall),
        "epoch": read.epoch,
        "kept_from": read.floor + 1,
        "snapshot": read.snapshot,
        "nodes": list(read.nodes),
        "listed": members,
    }


def _json(stored: str, read: RoomRead, hall: Hall) -> Json:
    here = hall.rooms.get(stored)
    return {
        "room": shown_name(stored),
        "tenant": tenant_in(stored),
        "members": read.members_count,
        "members_here": len(here.guests) if here is not None else 0,
        "position": read.position,
        "position_here": here.position if here is not None else None,
        "records": read.records,
        "bytes": read.bytes,
    }
