"""What every link keeps, whatever wire it speaks: its seats, and what is marked to be written at the end of the batch.

Nothing here writes. A dialect's link queues on its connection and marks itself (`PendingWrites.mark`); the end of a batch calls
`PendingWrites.flush`, so that everything a batch produced for one connection leaves in one write (`write`).
"""

from collections.abc import Iterator
from typing import ClassVar

from signald.core.head import Party
from signald.core.room_views import Answer, Came, Shown, Told
from signald.core.tokens import Slots
from signald.net.connection import Connection
from signald.service.attached import ApiToken, LiveSession
from signald.service.auth import Verified
from signald.service.outgoing import PendingWrites
from signald.service.seats import Seat
from signald.wire.close_codes import CloseCode
from signald.wire.rooms import RoomErrorCode


class Link:
    """See the module. The base of a dialect's links."""

    party: ClassVar[Party]
    dialect: ClassVar[str]

    def __init__(self, conn: Connection, writes: PendingWrites) -> None:
        self.conn = conn
        self.writes = writes
        self.marked = False
        self.acking = False
        self.seats: dict[str, Seat] = {}
        """The sessions attached here, in the order of attachment."""
        self._acks: list[Seat] = []
        """Seats with an ack to go with the next write, in the order in which they came to have one."""
        self.blocked: list[Seat] = []
        """Seats with more to deliver than the send queue had room for, in the order in which they came to be."""
        self.told_to_go = False
        """GOAWAY was sent: the close to come is `moved`."""
        self.told_at = 0.0
        """When it was (trio time)."""
        self.over = False
        """The link has been released; nothing may be attached to it any more."""
        self.ending = False
        """The party has said `bye`, or its end is under way for another reason."""
        self.tokens = Slots()
        self.asked: tuple[int, int] = (0, 0)
        self.credential: Verified | None = None
        """What the party has shown last; None until it is attached."""
        self.expires_by = 0.0
        """Its credential has run out and must be renewed by then (seconds since 1970); 0: it has not."""
        self.rooms = b""
        """What the core server lets a worker do in rooms, as JSON; empty: nothing is said, or it is a client, whose session has it."""

    # --- seats ------------------------------------------------------------------------------------------------------

    @property
    def attached(self) -> list[LiveSession]:
        """The sessions attached here, in the order of attachment."""
        return [seat.session for seat in self.seats.values()]

    def serves(self, session: str) -> bool:
        """Tell whether `session` is attached here."""
        return session in self.seats

    def drop(self, session: str) -> None:
        """Forget a session that is over here, has moved or was refused."""
        seat = self.seats.pop(session, None)
        if seat is not None:
            if seat.ack:
                self._acks.remove(seat)
            if seat.blocked:
                self.blocked.remove(seat)

    def block(self, session: str) -> None:
        """`session` has more to deliver than the send queue has room for."""
        seat = self.seats.get(session)
        if seat is not None and not seat.blocked:
            seat.blocked = True
            self.blocked.append(seat)

    def unblock(self) -> list[LiveSession]:
        """Return the sessions that are blocked, in the order in which they came to be; none is blocked any more."""
        blocked, self.blocked = self.blocked, []
        for seat in blocked:
            seat.blocked = False
        return [seat.session for seat in blocked]

    # --- out --------------------------------------------------------------------------------------------------------

    def ack_later(self, session: str, seq: int) -> None:
        """Ack up to `seq` with the next write, or soon."""
        seat = self.seats.get(session)
        if seat is None:
            return
        if not seat.ack:
            self._acks.append(seat)
        seat.ack = seq
        self.writes.mark_acking(self)

    def api_token(self, token: ApiToken) -> None:
        """Give the party its next API token. A wire without a word for it asks for none."""

    @property
    def has_acks(self) -> bool:
        """True when an ack waits for a write."""
        return bool(self._acks)

    def write(self) -> None:
        """Write everything queued. Acks ride along, on a wire that has them."""
        for seat in self._acks:
            seat.ack = 0
        self._acks.clear()
        self.conn.flush()

    def stream_state(self, stream: str, attempt: int, outcome: str) -> None:
        """Nothing is told on a wire without such a word."""

    def stream_cancel(self, session: str, stream: str, reason: str) -> None:
        """Nothing is told on a wire without such a word."""

    # --- of rooms: a wire without words for them joins none ----------------------------------------------------------

    def room_joined(self, _session: str, _answer: Answer) -> Iterator[None]:
        """See `PartyLink`; so are the next ones."""
        return iter(())

    def room_snapshot(
        self,
        session: str,
        room: str,
        position: int,
        data: bytes,
        fields: bytes,
        *,
        update: bool = False,
        more: bool = False,
    ) -> None:
        """Nothing is told."""

    def room_message(self, session: str, shown: Shown, *, own: bool = False) -> None:
        """Nothing is told."""

    def room_messages(self, told: Told) -> bool:  # noqa: ARG002
        """See `PartyLink`. Nothing is queued: each is told for itself."""
        return False

    def room_published(self, session: str, room: str, seq: int, position: int) -> None:
        """Nothing is told."""

    def room_refused(self, session: str, room: str, seq: int, code: RoomErrorCode, expected: int = 0) -> None:
        """Nothing is told."""

    def room_presence(self, session: str, came: Came) -> None:
        """Nothing is told."""

    def room_left(self, session: str, room: str, reason: str) -> None:
        """Nothing is told."""

    def close(self, code: CloseCode, reason: str = "") -> None:
        """Close behind what is queued."""
        self.write()
        self.conn.close(code, reason)

    @property
    def how_over(self) -> str:
        """How the connection ended, in a few words."""
        closed = self.conn.closed
        return "" if closed is None else f"{closed.code} by {closed.initiator}"
