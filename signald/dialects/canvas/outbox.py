"""What one socket publishes, on its way to the store: in its order, each at most once by its id, and bounded.

    edit, chat ▸ put() ──the socket is a member──▸ Post ▸ _posted() ▸ the room looks what is new, and tells it
                  └──it is not yet──▸ waits ──the socket is one, or its connection is over──▸ Post

A socket numbers nothing and is acked nothing. So what has arrived is stored also when its connection is over meanwhile, and a message that
is not taken is answered with an error.
"""

from collections import deque
from collections.abc import Callable
from functools import partial
from hashlib import sha256

import attrs

from signald.core.rooms import Publication
from signald.dialects.canvas.messages import WrongError
from signald.errors import StoreUnavailable
from signald.ids import new_nonce
from signald.service.attached import LiveSession
from signald.service.context import Context
from signald.service.parts import Parts
from signald.service.rooms.bounds import bounds_of
from signald.service.rooms.counts import RESULTS, STORED
from signald.service.rooms.making import owner_of
from signald.store.base import Refused, Result
from signald.store.room.ops import NoRoom, Post, Posted

WAITING_MAX = 500
"""Messages of one socket that are not stored: as of a member of a room that speaks `signald.v1`."""

WAITING_BYTES_MAX = 1 << 20
"""The same in bytes. One more always may wait, so that each can be published."""

KEY_BYTES = 16
"""Of the digest by which a message is known again: among the keys of a room no two are alike by chance."""

STORE_S = 30.0
"""How long the place of a room is waited for, as at a join."""

WHY_NOT = {
    "too_big": "a value, with its key, is larger than rooms.record_bytes_max",
    "bad_record": "a key of a patch has 1 to 128 characters",
    "room_full": "the canvas holds as much as rooms.records_max and rooms.room_bytes_max let it have",
    "too_many_made": "as many canvases were made from here as rooms.owned_max lets be made",
    "rooms_full": "there are rooms.rooms_max rooms already",
    "unavailable": "the store does not answer; send it again",
}
"""Reason → what the socket is told. Another one is told as `unavailable`."""


@attrs.define(eq=False)
class Message:
    """One message that is published."""

    publication: Publication
    id: str
    key: bytes


class Outbox:
    """See the module. One for each socket."""

    def __init__(self, parts: Parts, session: LiveSession, room: str, refused: Callable[[WrongError], None]) -> None:
        """`room` is the name that the store knows; `refused` is called for each message that is not taken."""
        self._context: Context = parts.context
        self._rooms = parts.rooms
        self._session = session
        self._room = room
        self._refused = refused
        self._owner = owner_of(session, "client")
        self._waiting: deque[Message] = deque()
        self._lost: list[Message] = []
        """Those that the store has given back, because the room is not there: they come before those that wait."""
        self._count = 0
        self._bytes = 0
        self._making = False
        self.open = False
        """The socket is a member of its room, so the room is there."""

    def put(self, publication: Publication, id: str | None) -> None:  # noqa: A002
        """Take one message. Raises WrongError: too many wait."""
        if self._count >= WAITING_MAX or self._bytes >= WAITING_BYTES_MAX:
            raise WrongError("busy", "too many messages wait for the store; send it again later", id or "")
        self._count += 1
        self._bytes += publication.size
        self._waiting.append(Message(publication, id or "", self._key(publication, id)))
        if self.open:
            self.send()

    def _key(self, publication: Publication, id: str | None) -> bytes:  # noqa: A002
        """Return the key by which the store takes a message once; empty: an edit without an id, which may be repeated without harm."""
        if id is not None:
            return sha256(f"canvas {id}".encode()).digest()[:KEY_BYTES]
        # When the answer of the store is lost, it is asked again: a chat must not stand there twice.
        return new_nonce(self._context.entropy).encode() if publication.body else b""

    def go_on(self) -> None:
        """The socket is a member of its room now."""
        self.open = True
        self.send()

    def drop(self, reason: str) -> None:
        """The socket has not become a member: what waits for it is not taken."""
        self.open = False
        for message in self._take():
            self._done(message)
            self._tell(message, reason)

    def finish(self) -> None:
        """The connection is over: what has arrived is stored."""
        self.go_on()

    def send(self) -> None:
        """Store what waits, in a room that may not be there, unless the room is being made: then it is stored behind that."""
        while not self._making and self._waiting:
            self._post(self._waiting.popleft(), makes=False)

    def _post(self, message: Message, *, makes: bool) -> None:
        context = self._context
        op = Post(
            self._room,
            context.node,
            message.key,
            new_nonce(context.entropy),
            message.publication,
            bounds_of(context.config.rooms),
            context.now_ms(),
            self._session.id,
            makes=makes,
        )
        context.committer.submit(op, partial(self._posted, message))

    def _posted(self, message: Message, result: Result) -> None:
        counts = self._rooms.hall.counts.publications
        if isinstance(result, NoRoom):
            # The store has lost it, or its members had left.
            self._lost.append(message)
            if not self._making:
                self._making = True
                self._context.spawn(self._make)
            return
        self._done(message)
        if isinstance(result, Posted):
            counts[STORED] += not result.replayed
            self._rooms.look(self._room)
            return
        reason = result.reason if isinstance(result, Refused) else "unavailable"
        counts[reason] += reason in RESULTS
        self._tell(message, reason)

    async def _make(self) -> None:
        """Give the room its place, and store what waits."""
        try:
            refusal = await self._rooms.making.enter(self._room, self._owner, STORE_S)
        except StoreUnavailable:
            refusal = "unavailable"
        self._making = False
        if refusal:
            self.drop(refusal)
            return
        for message in self._take():
            self._post(message, makes=True)

    def _take(self) -> list[Message]:
        """Return all that waits, in order; nothing waits any more."""
        waiting = [*self._lost, *self._waiting]
        self._lost.clear()
        self._waiting.clear()
        return waiting

    def _done(self, message: Message) -> None:
        self._count -= 1
        self._bytes -= message.publication.size

    def _tell(self, message: Message, reason: str) -> None:
        code = reason if reason in WHY_NOT else "unavailable"
        self._refused(WrongError(code, WHY_NOT[code], message.id))
