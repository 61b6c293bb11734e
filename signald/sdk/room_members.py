"""Who is in a room, as a member is told, and the events that wait for its application. No I/O."""

from collections import deque
from collections.abc import Sequence

from signald.sdk.room_events import MembersChanged, RoomEvent, RoomLagged
from signald.sdk.room_records import NULL
from signald.wire.rooms import PRESENCE_BYTES_MAX, Joined, RoomMember, RoomPresence

MEMBERS_MAX = 10_000
"""Members that are kept: ten times as many as a room has. Others are counted."""

EVENTS_MAX = 4096
"""Events that wait for the application: four times the history of a room, so that a resume alone makes none lag."""

EVENTS_BYTES_MAX = 4 * 1024 * 1024
"""Bytes of them: the history of a room as well."""


class Members:
    """The members of a room."""

    __slots__ = ("count", "known")

    def __init__(self) -> None:
        self.known: dict[str, bytes] = {}
        """Member → its presence as JSON."""
        self.count = 0
        """How many there are, those that are not known included."""

    def begin(self, pages: Sequence[Joined]) -> MembersChanged:
        """Take those of an answer to a join; return what is new."""
        before, self.known = self.known, {}
        for page in pages:
            for one in page.members:
                self._keep(one)
        self.count = max(pages[-1].members_count, len(self.known))
        return MembersChanged(
            tuple(name for name in self.known if name not in before),
            tuple(name for name, said in self.known.items() if before.get(name, said) != said),
            tuple(name for name in before if name not in self.known),
        )

    def change(self, message: RoomPresence) -> MembersChanged:
        """Take who has come, has changed and has left, in this order."""
        joined, changed, left = message.joined or [], message.changed or [], message.left or []
        come = tuple(one.member for one in joined if one.member not in self.known)
        for one in (*joined, *changed):
            self._keep(one)
        for name in left:
            self.known.pop(name, None)
        self.count = max(self.count + len(come) - len(left), len(self.known))
        others = tuple(one.member for one in (*joined, *changed) if one.member not in come)
        return MembersChanged(come, others, tuple(left))

    def _keep(self, one: RoomMember) -> None:
        if len(self.known) < MEMBERS_MAX or one.member in self.known:
            said = bytes(one.presence)
            self.known[one.member] = said if len(said) <= PRESENCE_BYTES_MAX else NULL


class News:
    """The events of a room that wait. When there are too many, those that follow are dropped and counted."""

    __slots__ = ("_bytes", "_events")

    def __init__(self) -> None:
        self._events: deque[tuple[RoomEvent, int]] = deque()
        self._bytes = 0

    def tell(self, event: RoomEvent, size: int, position: int) -> None:
        """Queue an event of `size` bytes; the room stands at `position`."""
        last = self._events[-1][0] if self._events else None
        if isinstance(last, RoomLagged):
            # The gap goes on until the application has seen it: one gap, not many.
            self._events[-1] = (RoomLagged(last.missed + 1, position), 0)
        elif len(self._events) >= EVENTS_MAX or self._bytes + size > EVENTS_BYTES_MAX:
            self._events.append((RoomLagged(1, position), 0))
        else:
            self._events.append((event, size))
            self._bytes += size

    def take(self) -> RoomEvent | None:
        """Hand out the next event, or None."""
        if not self._events:
            return None
        event, size = self._events.popleft()
        self._bytes -= size
        return event
