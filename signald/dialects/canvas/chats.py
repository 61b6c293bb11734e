"""The chat of a canvas: the log of its room, and a room of its own in which it outlives that log.

The log of a room has its last publications, of any kind: a minute of drawing would take a chat out of it. So each message of the chat is
copied, with its place, into a second room that has no members. A socket that restores its session is told what both have. A copy that was
lost, with its node, is made again by the next socket that still finds the message in the log.

The copy is made at each node by the first of its sockets that is told of the message. A key, made of the place, has the store take it once.
"""

from collections.abc import Sequence
from functools import partial
from hashlib import sha256

import attrs
import msgspec
from msgspec import Raw, Struct

from signald.core.room_names import of_principal
from signald.core.rooms import Bounds, Entry, Publication, room_of
from signald.dialects.canvas.views import Chat, chat_of
from signald.ids import new_nonce
from signald.service.attached import LiveSession
from signald.service.context import Context
from signald.service.parts import Parts
from signald.service.rooms.bounds import bounds_of
from signald.service.rooms.making import Owner, owner_of
from signald.store.base import Result
from signald.store.committer import ignore
from signald.store.room.ops import NoRoom, Post, ReadRoomHistory, RoomHistory
from signald.wire import records

CHATS_MAX = 500
"""Messages of a chat that are kept and told: one page of the store, and more than a person reads again."""

CHATS_BYTES_MAX = 256 << 10
"""The same in bytes: five hundred of half a KiB. It is a part of one frame, beside the records."""

RECENT = 200
"""Publications of the log in which messages without a copy are looked for. A copy is made some milliseconds after its message."""

STORE_S = 30.0
"""How long the store is waited for, as at a join."""


class _Copy(Struct, frozen=True, gc=False):
    message: Raw
    member: str
    at_ms: int
    position: int
    epoch: str


class _Body(Struct, frozen=True, gc=False):
    data: _Copy


_bodies = msgspec.json.Decoder(_Body)


@attrs.frozen
class Kept:
    """Messages that have their copies, by epoch of the room and position, oldest first."""

    chats: dict[tuple[str, int], Chat]

    def with_log(self, epoch: str, entries: Sequence[Entry]) -> tuple[list[Chat], list[Entry]]:
        """Return the chat, with what else the log has of it, and the entries that have no copy. `epoch` is the room's."""
        known, uncopied = dict(self.chats), list[Entry]()
        for entry in entries:
            said = chat_of(entry)
            if said is not None and (epoch, entry.position) not in known:
                known[epoch, entry.position] = said
                uncopied.append(entry)
        # Positions begin anew with an epoch, and the present one is the last. Copies come in any order from several nodes.
        ordered = sorted(
            known.items(), key=lambda one: (one[0][0] == epoch, one[1].at_ms * (one[0][0] != epoch), one[0][1])
        )
        return _last([said for _, said in ordered]), uncopied


def _last(chats: list[Chat]) -> list[Chat]:
    """Return the last ones, as many as are told."""
    chats, size = chats[-CHATS_MAX:], 0
    for count, said in enumerate(reversed(chats)):
        size += len(said.message)
        if size > CHATS_BYTES_MAX and count:
            return chats[-count:]
    return chats


class Chats:
    """The copies of the chat of one canvas, for one socket."""

    def __init__(self, parts: Parts, session: LiveSession, canvas: str) -> None:
        """`canvas` is the `session_id` of the path."""
        self._context: Context = parts.context
        self._making = parts.rooms.making
        self._session = session
        self._room = of_principal(room_of("canvas-chat", canvas), session.principal)

    async def read(self) -> Kept:
        """Return what has its copies. Raises StoreUnavailable."""
        op = ReadRoomHistory(self._room, 0, CHATS_MAX, self._context.now_ms())
        found = await self._context.committer.call(op, STORE_S)
        chats: dict[tuple[str, int], Chat] = {}
        for entry in found.entries if isinstance(found, RoomHistory) else ():
            if entry.publication.body[:1] != b"t":
                continue
            try:
                copy = _bodies.decode(b"{" + entry.publication.body[1:]).data
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                continue  # damaged, or not of a canvas
            chats[copy.epoch, copy.position] = Chat(bytes(copy.message), copy.member, copy.at_ms, copy.position)
        return Kept(chats)

    def keep(self, epoch: str, entry: Entry) -> None:
        """Copy a message of the chat that the log has. Nothing waits for it."""
        said = chat_of(entry)
        if said is None:
            return
        copy = _Copy(Raw(said.message), said.member, said.at_ms, said.position, epoch)
        body = records.publication_body("chat", msgspec.json.encode(copy), None)
        key = sha256(f"{epoch} {entry.position}".encode()).digest()[:16]
        op = self._post(Publication(0, body), key, entry.member)
        self._context.committer.submit(op, partial(self._kept, op, owner_of(self._session, "client")))

    def _post(self, publication: Publication, key: bytes, member: str) -> Post:
        context = self._context
        epoch, now_ms = new_nonce(context.entropy), context.now_ms()
        return Post(self._room, context.node, key, epoch, publication, _bounds(context), now_ms, member, makes=False)

    def _kept(self, op: Post, owner: Owner, result: Result) -> None:
        if isinstance(result, NoRoom):
            self._context.spawn(self._make, op, owner)

    async def _make(self, op: Post, owner: Owner) -> None:
        """The first message: the room of the copies is made. Where it may not be, the chat has what the log has."""
        if not await self._making.enter(self._room, owner, STORE_S):
            again = msgspec.structs.replace(op, makes=True, now_ms=self._context.now_ms())
            self._context.committer.submit(again, ignore)


def _bounds(context: Context) -> Bounds:
    return msgspec.structs.replace(
        bounds_of(context.config.rooms), history_messages_max=CHATS_MAX, history_bytes_max=CHATS_BYTES_MAX
    )
