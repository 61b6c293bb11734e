"""Rooms for the HTTP API: see `signald.http.api.rooms`, whose protocol this implements.

Each answer comes from the store, so that any node gives it. What is published here lets the members here know at once; the store wakes the
nodes of the others.
"""

from collections.abc import AsyncGenerator

import attrs
from msgspec import UNSET, Raw

from signald.core.room_names import of_principal, stored_name
from signald.core.rooms import Entry, Right, fault_of
from signald.core.updates import fault_of_update
from signald.errors import OperationRefused, RefusedBecause, StoreUnavailable
from signald.http.api.room_views import (
    Asking,
    Post,
    PublishedAt,
    ShownMember,
    ShownPublications,
    ShownRoom,
)
from signald.ids import new_nonce
from signald.service.api.room_states import RoomStates, unknown_room
from signald.service.api.sessions import unknown_session
from signald.service.parts import Parts
from signald.service.rooms.bounds import bounds_of
from signald.service.rooms.counts import RESULTS, STORED
from signald.service.rooms.rights import rights_of_caller
from signald.store.base import Behind
from signald.store.room import ops
from signald.store.session.ops import ReadSession, SessionRead
from signald.wire.records import changes_body, placed, room_front, room_object

_REFUSALS: dict[str, tuple[RefusedBecause, str, str]] = {
    "forbidden": ("forbidden", "forbidden", "not allowed in this room"),
    "bad_record": ("invalid", "bad-record", "the id of a record has 1 to 128 characters"),
    "unsupported": ("invalid", "bad-record", "the kind yjs needs the extra: pip install signald[yjs]"),
    "too_big": ("large", "too-large", "a record is larger than rooms.record_bytes_max, or there are too many at once"),
    "room_full": (
        "state",
        "room-full",
        "the room has as much as rooms.records_max and rooms.room_bytes_max let it have",
    ),
}


@attrs.frozen
class _Place:
    """A room that a caller may do something in."""

    stored: str
    author: str
    """The member that a publication is of; empty: a service."""


class HttpRooms:
    """See the module."""

    def __init__(self, parts: Parts) -> None:
        self._context = parts.context
        self._rooms = parts.rooms
        self._counts = parts.rooms.hall.counts.publications
        self._states = RoomStates(parts.context)

    @property
    def json_depth_max(self) -> int:
        """As deep as a message may be."""
        return self._context.config.limits.json_depth_max

    async def read(self, asking: Asking, room: str, limit: int) -> ShownRoom:
        """Show a room, with up to `limit` members."""
        place = await self._enter(asking, room, "join")
        read = await self._context.committer.call(ops.ReadRoom(place.stored, limit, self._context.now_ms()))
        if not isinstance(read, ops.RoomRead):
            raise unknown_room(room)
        members = [ShownMember(one.member, Raw(one.presence or b"null")) for one in read.members]
        return ShownRoom(room, read.epoch, read.position, read.members_count, members)

    async def history(self, asking: Asking, room: str, before: int, limit: int) -> ShownPublications:
        """Show publications in front of the position `before` (0: the last ones), `limit` at most."""
        place = await self._enter(asking, room, "join")
        op = ops.ReadRoomHistory(place.stored, before, limit, self._context.now_ms())
        read = await self._context.committer.call(op)
        if not isinstance(read, ops.RoomHistory):
            raise unknown_room(room)
        front = room_front(room, None)
        shown = [Raw(_shown(front, entry)) for entry in read.entries]
        return ShownPublications(shown, str(read.next) if read.next else UNSET)

    async def post(self, asking: Asking, room: str, post: Post) -> PublishedAt:
        """Publish."""
        publication, context = post.publication, self._context
        place = await self._enter(asking, room, "publish" if publication.body else "state")
        if fault := fault_of(publication) or fault_of_update(publication):
            raise _refused(fault)
        if not publication.body and not publication.names:
            raise OperationRefused("invalid", "bad-record", "there is nothing to publish: no data, and no record")
        bounds = bounds_of(context.config.rooms)
        posted = await context.committer.call(
            ops.Post(
                place.stored,
                context.node,
                post.key,
                new_nonce(context.entropy),
                publication,
                bounds,
                context.now_ms(),
                place.author,
            )
        )
        if not isinstance(posted, ops.Posted):
            self._counts[posted.reason] += posted.reason in RESULTS
            raise _refused(posted.reason)
        self._counts[STORED] += 1
        if posted.position == 1:
            self._rooms.sweeps.watch(place.stored)  # it was made by this, and may never have a member
        self._rooms.look(place.stored)
        return PublishedAt(posted.position)

    async def state(self, asking: Asking, room: str) -> tuple[int, AsyncGenerator[bytes]]:
        """Return all records as JSON: how many bytes, and the bytes in pieces. The generator must be closed."""
        place = await self._enter(asking, room, "join")
        pieces = self._states.document(asking.caller.payer, place.stored, room)
        try:
            return int(await anext(pieces)), pieces
        except BaseException:
            await pieces.aclose()
            raise

    async def _enter(self, asking: Asking, room: str, right: Right) -> _Place:
        """Judge what a caller may do in a room. Raises OperationRefused."""
        if asking.caller.kind == "service":
            return _Place(stored_name(room, asking.tenant), "")
        read = await self._context.committer.call(ReadSession(asking.session, asking.access))
        if isinstance(read, Behind):
            raise StoreUnavailable(f"the record of {asking.session} cannot be read now")
        if not isinstance(read, SessionRead):
            raise unknown_session(asking.session)
        rights = rights_of_caller(self._context.config, asking.caller, read.head.rooms)
        if right not in rights.of(room):
            self._counts["forbidden"] += right != "join"
            raise _refused("forbidden")
        author = f"{asking.session}/worker" if asking.caller.kind == "worker" else asking.session
        return _Place(of_principal(room, read.head.principal), author)


def _shown(front: bytes, entry: Entry) -> bytes:
    publication = entry.publication
    body = publication.body or changes_body(publication.puts, publication.patches, publication.removes)
    return room_object(placed(front, entry.position, entry.member, entry.at_ms), body)


def _refused(reason: str) -> OperationRefused:
    if reason not in _REFUSALS:
        raise StoreUnavailable("the room cannot be read now")
    because, kind, text = _REFUSALS[reason]
    return OperationRefused(because, kind, text)
