"""The records of a room as one JSON document, for the HTTP API: read in pages from the store, and sent in pieces.

A document may be as large as a room. So all that are read or sent at once have a budget of memory, and each caller a few at a time: a slow
reader keeps no other from reading.
"""

from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager

import msgspec

from signald.config import RoomsConfig
from signald.config.memory import room_states_bytes
from signald.core.rooms import is_picture
from signald.errors import OperationRefused, RefusedBecause, StoreUnavailable
from signald.service.context import Context
from signald.service.shares import NoPlace, Shares
from signald.store.room.ops import CHANGED_MAX, ReadRoom, ReadRoomState, RoomRead, RoomState
from signald.wire.records import record_json

OF_CALLER_MAX = 2
"""Documents of one caller at once: a page that is loaded again while the first is on its way."""

AT_ONCE_MAX = 256
"""Documents at once; small ones find no other end in the budget."""

PIECE_BYTES = 65_536
"""What a write to a socket takes at once."""

PAGES_MAX = 2000
"""Pages for one picture: far more than the largest room has, and an end for a reader that is slower than all writers."""


class RoomStates:
    """See the module. One for each node."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._places = Shares()
        self.bytes_held = 0
        """Of all documents that are read or sent now."""

    async def document(self, payer: str, stored: str, room: str) -> AsyncGenerator[bytes]:
        """Yield how many bytes the records of a room have as JSON, and then those bytes in pieces. Raises OperationRefused."""
        read = await self._context.committer.call(ReadRoom(stored, 0, self._context.now_ms()))
        if not isinstance(read, RoomRead):
            raise unknown_room(room)
        with self._held(payer, 2 * read.bytes) as half:
            text = await self._records(stored, room)
            half()
            yield b"%d" % len(text)
            for start in range(0, len(text), PIECE_BYTES):
                yield text[start : start + PIECE_BYTES]

    @contextmanager
    def _held(self, payer: str, size: int) -> Iterator["_Half"]:
        """Hold a place and `size` bytes of the budget. Raises OperationRefused when there is no room."""
        rooms: RoomsConfig = self._context.config.rooms
        if self.bytes_held and self.bytes_held + size > room_states_bytes(rooms):
            raise OperationRefused("full", "busy", "too many records are being read at once")
        half = _Half(self, size)
        try:
            with self._places.place(AT_ONCE_MAX, {payer: OF_CALLER_MAX}):
                yield half
        except NoPlace as error:
            because: RefusedBecause = "share" if error.full == "share" else "full"
            raise OperationRefused(because, "busy", "too many records are being read at once") from None
        finally:
            self.bytes_held -= half.size

    async def _records(self, stored: str, room: str) -> bytes:
        """Return the records of a room as they are at one position, as JSON."""
        records: dict[str, bytes] = {}
        epoch, after, begun = "", 0, 0
        for _ in range(PAGES_MAX):
            page = await self._context.committer.call(ReadRoomState(stored, after, CHANGED_MAX, self._context.now_ms()))
            if not isinstance(page, RoomState):
                raise unknown_room(room)
            if after and page.epoch != epoch:
                after = 0  # the store has lost the room, and this page is one of its successor
                continue
            if not after:
                records, epoch, begun = {}, page.epoch, page.position
            for name, record in page.records:
                if record.properties is None:
                    records.pop(name, None)
                else:
                    records[name] = record_json(record.properties)
            if page.upto < page.position:
                after = page.upto
            elif is_picture(0, begun, page.horizon):
                return _document(room, page, records)
            else:
                after = 0
        raise StoreUnavailable("the room changes faster than it can be read")


class _Half:
    """What a document holds of the budget: twice its size while the records and their document are both there, then once."""

    def __init__(self, states: RoomStates, size: int) -> None:
        self._states = states
        self.size = size
        states.bytes_held += size

    def __call__(self) -> None:
        """The records are not needed any more."""
        self._states.bytes_held -= self.size - self.size // 2
        self.size //= 2


def unknown_room(room: str) -> OperationRefused:
    """Return the refusal of a room that there is not."""
    return OperationRefused("unknown", "unknown-room", f"there is no room {room}")


def _document(room: str, page: RoomState, records: dict[str, bytes]) -> bytes:
    front = {"room": room, "epoch": page.epoch, "position": page.position}
    shown = b",".join([msgspec.json.encode(name) + b":" + record for name, record in records.items()])
    return msgspec.json.encode(front)[:-1] + b',"records":{' + shown + b"}}"
