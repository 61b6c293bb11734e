"""A connection of a party that speaks `signald.v1`: what both parties are told alike.

Acks wait a few milliseconds for a frame to ride with (`ack_later`).
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar, Literal

import trio
from msgspec import UNSET, UnsetType, json

from signald.core.room_views import Answer, Came, Shown
from signald.dialects.v1.rooms import named, pages_of, presence_of
from signald.net.connection import Connection
from signald.pauses import Pauses
from signald.service.attached import ApiToken, LiveSession
from signald.service.link import Link
from signald.service.outgoing import PendingWrites
from signald.service.rate_limit import RateLimit
from signald.service.rooms.desk import RoomDesk
from signald.wire import codec, records
from signald.wire.close_codes import CloseCode
from signald.wire.fields import Outbound
from signald.wire.messages import SUBPROTOCOL, ErrorMessage, GoAway, NewApiToken
from signald.wire.rooms import (
    PRESENCE_BYTES_MAX,
    Join,
    Leave,
    Left,
    Presence,
    Published,
    RoomError,
    RoomErrorCode,
    RoomSnapshot,
    Snapshot,
)

InRoom = Join | Snapshot | Presence | Leave


class V1Link(Link, ABC):
    """See the module. The base of `ClientLink` and `WorkerLink`."""

    dialect: ClassVar[str] = SUBPROTOCOL

    def __init__(self, conn: Connection, writes: PendingWrites, pauses: Pauses) -> None:
        """`pauses` are those of this process, for which no party is charged."""
        super().__init__(conn, writes)
        self._pauses = pauses

    @abstractmethod
    def session_name(self, session: str) -> str | None:
        """What `session` is called in frames on this connection: its id, or nothing on a client's."""

    def send(self, message: Outbound) -> None:
        """Queue a message."""
        self.conn.send_text(codec.encode(message))
        self.writes.mark(self)

    def send_text(self, payload: bytes) -> None:
        """Queue a text frame."""
        self.conn.send_text(payload)
        self.writes.mark(self)

    def send_body(self, front: bytes, body: bytes) -> None:
        """Queue a stored body behind `front`."""
        text, payload = records.frame(front, body)
        if text:
            self.conn.send_text(payload)
        else:
            self.conn.send_binary(payload)
        self.writes.mark(self)

    def realtime(self, session: str, body: bytes) -> None:
        """Queue a realtime message, in the form of a stored one."""
        self.send_body(records.head(b"realtime", self.session_name(session)), body)

    def go_away(self, reason: str, deadline_ms: int, ticket: str | None) -> None:
        """Send GOAWAY: the party may come to another node at once."""
        self.send(GoAway(reason, 0, deadline_ms, UNSET, ticket or UNSET))

    def api_token(self, token: ApiToken) -> None:
        """Give the party its next API token."""
        self.send(NewApiToken(token.text, token.ttl_ms))

    def write(self) -> None:
        """Write everything queued. Acks ride along."""
        if self._acks:
            for seat in self._acks:
                self.conn.send_text(codec.ack_frame(seat.ack, self.session_name(seat.session.id)))
                seat.ack = 0
            self._acks.clear()
        self.conn.flush()

    def error(
        self,
        code: str,
        message: str,
        *,
        session: str | None = None,
        expected: int | UnsetType = UNSET,
        retry_after_ms: int | UnsetType = UNSET,
        seq: int | UnsetType = UNSET,
        stream: str | UnsetType = UNSET,
    ) -> None:
        """Queue an `error` that is not fatal."""
        name = self.session_name(session) if session is not None else None
        self.send(
            ErrorMessage(
                code,
                message,
                fatal=False,
                session=UNSET if name is None else name,
                expected=expected,
                retry_after_ms=retry_after_ms,
                seq=seq,
                stream=stream,
            )
        )

    # --- of rooms ---------------------------------------------------------------------------------------------------

    def in_room(self, rooms: RoomDesk, session: LiveSession, message: InRoom, binary: bytes | None) -> None:
        """Hand on what a party says about a room, a publication excepted."""
        if isinstance(message, Join):
            rooms.join(session, self.party, message)
        elif isinstance(message, Leave):
            rooms.leave(session, self.party, message.room)
        elif isinstance(message, Snapshot):
            rooms.snapshot(session, self.party, message.room, message.position, binary or b"")
        elif not rooms.presence(session, self.party, message.room, message.presence):
            self.error("too_big", f"a presence is at most {PRESENCE_BYTES_MAX} bytes", session=session.id)

    def room_joined(self, session: str, answer: Answer) -> Iterator[None]:
        """See `PartyLink`; so are the next ones."""
        for page in pages_of(answer, self.session_name(session)):
            self.send(page)
            yield

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
        """A binary `snapshot`."""
        kind = json.decode(fields).get("kind", UNSET)
        head = RoomSnapshot(room, position, kind, update, more, named(self.session_name(session)))
        self.conn.send_binary(codec.encode_binary(head, data))
        self.writes.mark(self)

    def room_message(self, session: str, shown: Shown, *, own: bool = False) -> None:
        """A `room_message`, which is the same for all clients."""
        text, payload = shown.frame(self.session_name(session), own=own)
        if text:
            self.conn.send_text(payload)
        else:
            self.conn.send_binary(payload)
        self.writes.mark(self)

    def room_published(self, session: str, room: str, seq: int, position: int) -> None:
        """A `published`."""
        self.send(Published(room, seq, position, named(self.session_name(session))))

    def room_refused(self, session: str, room: str, seq: int, code: RoomErrorCode, expected: int = 0) -> None:
        """A `room_error`."""
        self.send(RoomError(room, seq, code, expected or UNSET, named(self.session_name(session))))

    def room_presence(self, session: str, came: Came) -> None:
        """A `room_presence`, which is the same for all clients that know as much."""
        name = self.session_name(session)
        if name is None:
            self.send_text(came.encoded(lambda: codec.encode(presence_of(came, None))))
        else:
            self.send(presence_of(came, name))

    def room_left(self, session: str, room: str, reason: str) -> None:
        """A `left`."""
        self.send(Left(room, reason, named(self.session_name(session))))

    def log_lost(self, session: str, direction: Literal["sent", "received"], lost: tuple[int, int]) -> None:
        """Say that the store has lost messages this party has sent or was to receive. To the operator: `Losses.tell`."""
        name = self.session_name(session)
        self.send(
            ErrorMessage(
                "log_lost",
                "the store has lost messages",
                fatal=False,
                session=UNSET if name is None else name,
                lost_from=lost[0],
                lost_to=lost[1],
                direction=direction,
            )
        )

    def fail(self, code: CloseCode, error: str, message: str, retry_after_ms: int | UnsetType = UNSET) -> None:
        """Say what was wrong, then close."""
        self.send(ErrorMessage(error, message, fatal=True, retry_after_ms=retry_after_ms))
        self.close(code, retry_reason(retry_after_ms) if isinstance(retry_after_ms, int) else error)

    def bears(self, limit: RateLimit, text: str) -> bool:
        """Count one frame in `limit`; False when that is one too many: the connection is closed, with `text` as the reason."""
        now = trio.current_time()
        limit.refill(now, self._pauses.owed_s(now))
        if limit.take():
            return True
        self.fail(CloseCode.RATE, "rate", text, limit.retry_after_ms)
        return False


def retry_reason(retry_after_ms: int) -> str:
    """The reason of a close 1013: JSON, so that a program can read when to come again."""
    return f'{{"retry_after_ms":{retry_after_ms}}}'
