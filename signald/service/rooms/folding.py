"""Snapshots of rooms: those that a party makes, and those of Yjs, which this node makes of the updates behind the last one.

    a member's update is stored ─▸ stored() ─▸ ReadRoomUpdates ─▸ merged in steps ─▸ SnapshotRoom

The node folds whose member has published, so mostly one of them does. Should two do it, the later snapshot stands, and both stand for the
same. A room is signald's to fold when its snapshot, or without one its first update, is of Yjs: then no party's snapshot is taken, since a
wrong one would take the place of what all have written.
"""

from functools import partial
from math import inf

import structlog
import trio

from signald.core.rooms import Entry
from signald.core.updates import YJS, can_merge, is_of_yjs, is_yjs, merge, steps
from signald.errors import StoreUnavailable
from signald.service.context import Context
from signald.service.rooms.bounds import bounds_of
from signald.service.rooms.guest import Guest, RoomHere
from signald.store.base import Done, Refused, Result
from signald.store.room.ops import ReadRoomUpdates, RoomUpdates, SnapshotRoom
from signald.wire.records import parts, publication_body

log = structlog.get_logger(__name__)

FOLDED_MAX = 200
"""Updates behind the snapshot that are folded, and read, at once: a joiner applies so many in a millisecond."""

DOCUMENT_BYTES_MAX = 1 << 20
"""Bytes that are folded, the snapshot included: the last step, which cannot be divided, takes some 10 ms. A larger document grows on behind
its snapshot, until the room is full."""

STORE_S = 30.0
"""How long the store may take: through a failover. The updates are safe meanwhile."""


class Folding:
    """See the module."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._one = trio.CapacityLimiter(1)
        """One room at a time, so that the steps of many rooms do not stand beside each other."""

    def offered(self, guest: Guest, position: int, body: bytes) -> None:
        """A party folds all updates up to `position`. What is not taken costs nothing: the updates stay."""
        room, context = guest.room, self._context
        if room.folding:
            return
        room.folding = True
        op = ReadRoomUpdates(room.name, 0, 1, context.now_ms())
        context.committer.submit(op, partial(self._judged, guest, position, body))

    def _judged(self, guest: Guest, position: int, body: bytes, found: Result) -> None:
        guest.room.folding = False
        if isinstance(found, RoomUpdates) and not guest.gone and guest.seated and not _is_ours(found):
            self._context.submit(self._snapshot(guest, position, publication_body(None, b"", body)))

    def _snapshot(self, guest: Guest, position: int, body: bytes) -> SnapshotRoom:
        context = self._context
        bounds = bounds_of(context.config.rooms)
        return SnapshotRoom(guest.room.name, guest.name, context.node, guest.epoch, position, body, bounds)

    def stored(self, room: RoomHere, entries: list[Entry]) -> None:
        """Publications of a member here are stored: fold if it is time."""
        if (
            entries[-1].position >= room.fold_at
            and not room.folding
            and can_merge()
            and any(is_yjs(entry.publication) for entry in entries)
        ):
            room.folding = True
            self._context.spawn(self._run, room)

    async def _run(self, room: RoomHere) -> None:
        try:
            room.fold_at = room.position + FOLDED_MAX
            more = True
            while more:
                async with self._one:
                    more = await self._fold(room)
        except StoreUnavailable:
            room.fold_at = 0.0  # the next publication asks again
        finally:
            room.folding = False

    async def _fold(self, room: RoomHere) -> bool:
        """Fold the first updates behind the snapshot; tell whether there may be more to fold."""
        read = ReadRoomUpdates(room.name, 0, FOLDED_MAX, self._context.now_ms())
        page = await self._context.committer.call(read, STORE_S)
        if not isinstance(page, RoomUpdates):
            return False
        if len(page.updates) < FOLDED_MAX:
            room.fold_at = page.position + FOLDED_MAX - len(page.updates)
            return False
        if why := _why_not(page):
            log.warning("room_not_folded", room=room.name, why=why)
            room.fold_at = inf
            return False
        guest = next((one for one in room.guests.values() if one.seated), None)
        if guest is None or page.epoch != room.epoch:
            return False
        try:
            body = publication_body(YJS, b"", await _merged(page))
        except ValueError:
            log.warning("room_not_folded", room=room.name, why="damaged")
            room.fold_at = inf
            return False
        done = await self._context.committer.call(self._snapshot(guest, page.updates[-1].position, body), STORE_S)
        return isinstance(done, Done) or done == Refused("stale")


def _is_ours(page: RoomUpdates) -> bool:
    if page.snapshot:
        return is_of_yjs(page.body)
    return bool(page.updates) and is_yjs(page.updates[0].publication)


def _why_not(page: RoomUpdates) -> str:
    """Return why the updates of a page are not folded; empty: they can be."""
    if not _is_ours(page) or not all(is_yjs(entry.publication) for entry in page.updates):
        return "other_kind"
    size = len(page.body) + sum([len(entry.publication.body) for entry in page.updates])
    return "too_large" if size > DOCUMENT_BYTES_MAX else ""


async def _merged(page: RoomUpdates) -> bytes:
    """Merge the snapshot and the updates, with a turn for others behind each step. Raises ValueError."""
    merged = [_data(page.body)] if page.snapshot else []
    for group in steps([_data(entry.publication.body) for entry in page.updates]):
        merged.append(merge(group))
        await trio.lowlevel.checkpoint()
    return merge(merged)


def _data(body: bytes) -> bytes:
    _, data = parts(body)
    if data is None:
        raise ValueError("the body is no binary one")
    return data
