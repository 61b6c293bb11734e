"""The rooms of one session and party: who is asked to join, and to which room a frame goes. No I/O.

A client has one `Rooms`, a worker one for each session. The core of the party gives it the frames of the current connection only: behind
the answer on a new one, each room is told again what was missed.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from signald.sdk.bounds import Bounds
from signald.sdk.core import NEVER, SessionCore
from signald.sdk.room_core import RoomCore
from signald.sdk.room_events import Fields
from signald.sdk.room_records import Change
from signald.sdk.values import check_number, check_text, write
from signald.sdk.writing import Batch
from signald.wire.fields import HISTORY_MAX, KIND_MAX
from signald.wire.records import changes_body, head, publication_body
from signald.wire.rooms import (
    PRESENCE_BYTES_MAX,
    ROOMS_MAX,
    Joined,
    Left,
    Published,
    RoomError,
    RoomMessage,
    RoomPresence,
    RoomSnapshot,
)
from signald.wire.surrogates import mark

OfRooms = Joined | RoomSnapshot | Published | RoomMessage | RoomError | RoomPresence | Left

Records = Mapping[str, Mapping[str, Any]]

_NAME = re.compile(r"[A-Za-z0-9_.:~-]{1,128}")

USER_ROOM = "user:"
"""How the name of a room begins that signald joins unasked."""

SEQ_ROOM = 16
"""Digits of the largest seq: the head of a publication is measured with one."""


SNAPSHOT_HEAD_MAX = 512
"""Bytes of a snapshot's header, with the longest names of a room and of a session."""

OPAQUE = frozenset({"update", "yjs"})
"""Kinds of binary publications that are updates of a document, from the contract of the wire."""

ID_MAX = 128
"""Characters of the id of a record, from the contract of the wire."""


def _nothing() -> None:
    """Stand in for a driver without a callback."""


class Rooms:
    """See the module."""

    __slots__ = ("_bounds", "_named", "_rooms", "_session", "_slow_until", "_taken_back", "changed", "of_the_user")

    def __init__(self, session: SessionCore, bounds: Callable[[], Bounds]) -> None:
        """`bounds` gives what signald takes at the moment."""
        self._session = session
        self._bounds = bounds
        self._rooms: dict[str, RoomCore] = {}
        self._slow_until = -NEVER
        self._named: list[str] = []
        """Rooms in which the party is only because it was in them as its opening message was written: at most `ROOMS_MAX`."""
        self._taken_back: set[str] = set()
        """Those of them whose `leave` is written, and not answered on this connection."""
        self.of_the_user: RoomCore | None = None
        """The room `user:<subject>`, in which a client is unasked."""
        self.changed: Callable[[], None] = _nothing
        """A callback of the driver: `of_the_user` is there, or a room is gone."""

    def get(self, name: str) -> RoomCore | None:
        """Return the room `name`, if the party is in it or on its way."""
        return self._rooms.get(name)

    # --- what the application does ----------------------------------------------------------------------------------

    def join(self, name: str, *, state: bool = False, history: int = 0, presence: Any = None) -> RoomCore:
        """Join a room. `state` asks for its records, `history` for so many of its last publications. `presence` is what others see.

        Raises:
            ValueError: no room can have this name, the party is in it or in too many, or an option is what signald would refuse.
        """
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError("the name of a room has 1 to 128 characters of A-Za-z0-9_.:~-")
        if name in self._rooms:
            raise ValueError(f"already in the room {name}")
        if len(self._rooms) >= ROOMS_MAX:
            raise ValueError(f"a session is in at most {ROOMS_MAX} rooms")
        check_number("history", history, HISTORY_MAX)
        said = None if presence is None else self.presence_of(presence)
        room = RoomCore(name, self._session.name, state=state, history=history, presence=said)
        self._rooms[name] = room
        return room

    def presence_of(self, presence: Any) -> bytes:
        """Return a presence as JSON.

        Raises:
            ValueError: not JSON, too deep, or longer than signald takes.
        """
        said = write(presence, self._bounds().json_depth_max - 1)
        if len(said) > PRESENCE_BYTES_MAX:
            raise ValueError(f"a presence may have at most {PRESENCE_BYTES_MAX} bytes, not {len(said)}")
        return said

    def publish(self, room: RoomCore, data: Any, kind: str | None) -> int:
        """Publish `data` (a JSON value, or bytes); return the number of the publication.

        Raises:
            ValueError: signald would refuse it; nothing was published.
        """
        check_text("kind", kind, KIND_MAX)
        if isinstance(data, bytes | bytearray | memoryview):
            return self._publish(room, publication_body(kind, b"", bytes(data)), None, opaque=kind in OPAQUE)
        return self._publish(room, publication_body(kind, write(data, self._bounds().json_depth_max - 1), None), None)

    def change(self, room: RoomCore, put: Records, patch: Records, remove: tuple[str, ...]) -> int:
        """Change records, in the order put, patch, remove; return the number of the publication.

        Raises:
            ValueError: as `publish`; or it changes nothing.
        """
        if not (put or patch or remove):
            raise ValueError("nothing is changed")
        puts, patches = self._fields(put), self._fields(patch)
        for name in remove:
            check_text("id", name, ID_MAX, 1)
        body = changes_body(
            [(name, list(fields.items())) for name, fields in puts.items()],
            [(name, list(fields.items())) for name, fields in patches.items()],
            list(remove),
        )
        if mark(body) is not None:
            raise ValueError("half of a surrogate pair in a record")
        return self._publish(room, body, Change(puts, patches, tuple(remove)))

    def _fields(self, records: Records) -> dict[str, Fields]:
        # The message, the map of records and the record are the first three levels.
        depth = self._bounds().json_depth_max - 3
        found = {}
        for name, record in records.items():
            check_text("id", name, ID_MAX, 1)
            if not isinstance(record, Mapping):
                raise ValueError("a record is a map of properties")  # noqa: TRY004 - one kind for all that is refused
            found[name] = {_key(key): write(value, depth) for key, value in record.items()}
        return found

    def _publish(self, room: RoomCore, body: bytes, change: Change | None, *, opaque: bool = False) -> int:
        size = len(room.framed(10**SEQ_ROOM - 1, body)[1])
        most = self._bounds().message_bytes_max
        if size > most:
            raise ValueError(f"a publication may have at most {most} bytes on the wire, not {size}")
        return room.publish(body, change, opaque=opaque)

    def snapshot(self, room: RoomCore, position: int, data: bytes) -> None:
        """Let `data` stand for all updates up to `position`.

        Raises:
            ValueError: longer than signald takes, or of a position to come.
        """
        most = self._bounds().message_bytes_max - SNAPSHOT_HEAD_MAX
        if len(data) > most:
            raise ValueError(f"a snapshot may have at most {most} bytes, not {len(data)}")
        if not 1 <= position <= room.at:
            raise ValueError(f"a snapshot stands for updates up to a position from 1 to {room.at}")
        room.snapshot(position, data)

    # --- connections ------------------------------------------------------------------------------------------------

    def positions(self) -> list[dict[str, object]]:
        """Return what an opening message says of the rooms."""
        return [said for room in self._rooms.values() if (said := room.position()) is not None]

    def attach(self, listed: frozenset[str]) -> None:
        """Go on over another connection, whose opening message has named the rooms `listed`."""
        self._slow_until = -NEVER
        # `left` came on the connection before while the answer was under way, and signald gives the seat again to a party that names it.
        self._named = [name for name in sorted(listed) if name not in self._rooms]
        self._taken_back.clear()
        for name, room in self._rooms.items():
            # One that was joined meanwhile is not the one that was named: its position and its options are other ones.
            room.attach(listed=name in listed and bool(room.epoch))

    def receive(self, message: OfRooms, binary: bytes | None, size: int, now: float) -> None:
        """Take a frame of `size` bytes. One of a room in which the party is not any more is passed over."""
        if message.room in self._taken_back and not (isinstance(message, Left) and message.reason != "left"):
            # In front of the answer all is of the membership that ends, also where the application has joined again.
            if isinstance(message, Left):
                self._taken_back.discard(message.room)
            return
        room = self._rooms.get(message.room)
        if room is None and isinstance(message, Joined) and message.room.startswith(USER_ROOM):
            room = self._of_the_user(message.room)
        if room is None:
            return
        match message:
            case RoomMessage():
                room.message(message, binary, now)
            case Published():
                room.published(message, now)
            case Joined():
                room.joined(message, size, now)
            case RoomPresence():
                room.presence(message)
            case RoomSnapshot():
                room.update(message, binary)
            case RoomError():
                room.refused(message, now)
            case Left():
                room.left(message, now)
        self._sweep(room)

    def _of_the_user(self, name: str) -> RoomCore | None:
        if self._session.name is not None or self.of_the_user is not None or len(self._rooms) >= ROOMS_MAX:
            return None
        room = RoomCore(name, None)
        room.attach(listed=True)
        self._rooms[name] = self.of_the_user = room
        self.changed()
        return room

    def _sweep(self, room: RoomCore) -> None:
        if room.ended is not None and self._rooms.get(room.name) is room:
            del self._rooms[room.name]
            if room is self.of_the_user:
                self.of_the_user = None
            self.changed()

    def leave(self, room: RoomCore) -> None:
        """Leave a room, after everything that was published is confirmed."""
        room.leave()
        self._sweep(room)

    def end(self, reason: str) -> None:
        """End them all: the session is over for this party."""
        for room in list(self._rooms.values()):
            room.end(reason)
            self._sweep(room)

    # --- writing ----------------------------------------------------------------------------------------------------

    def write(self, now: float, batch: Batch) -> bool:
        """Put what is due into `batch`; True when the budget ended before that. Rooms with much to publish take turns."""
        while self._named:
            name = self._named.pop()
            if name not in self._rooms:
                self._taken_back.add(name)
                batch.add((True, head(b"leave", self._session.name) + b'"room":' + msgspec.json.encode(name) + b"}"))
        for room in list(self._rooms.values()):
            for said in room.write(now):
                batch.add(said)
        busy = [room for room in self._rooms.values() if room.has_more]
        pace = self._session.pace
        while busy:
            for room in busy:
                if batch.left <= 0:
                    return True
                wait_s = pace.take(now) if pace is not None else 0.0
                if wait_s > 0:
                    self._slow_until = now + wait_s
                    return False
                if (one := room.write_next()) is not None:
                    batch.add(one)
            busy = [room for room in busy if room.has_more]
        return False

    def wake_at(self, now: float) -> float:
        """Return when a pause ends that keeps something from being written, or NEVER."""
        at = min((room.wake_at(now) for room in self._rooms.values()), default=NEVER)
        waits = self._slow_until > now and any(room.has_more for room in self._rooms.values())
        return min(at, self._slow_until) if waits else at


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise ValueError(f"not JSON: a key is a text, not {type(key).__name__}")  # noqa: TRY004
    return key
