"""A party's connection that speaks `signald.v1`: a place to put frames, flushed by the batch.

Nothing here writes. `send` queues on the connection and marks the link; whoever ends a batch calls `Outbox.flush`, so
that everything a batch produced for one connection leaves in one write. Acks wait a few milliseconds for something to
ride with (`ack_later`).
"""

from typing import ClassVar, Literal

import trio
from msgspec import UNSET, UnsetType

from signald.core.head import Party
from signald.core.tokens import Slots
from signald.net.connection import Connection
from signald.pauses import Pauses
from signald.service.attached import LiveSession
from signald.service.outgoing import Outbox
from signald.service.rate_limit import RateLimit
from signald.service.seats import Seat
from signald.wire import codec, records
from signald.wire.close_codes import CloseCode
from signald.wire.messages import ErrorMessage, Outbound


class Link:
    """See the module. Base of `ClientLink` and `WorkerLink`."""

    party: ClassVar[Party]

    def __init__(self, conn: Connection, outbox: Outbox, pauses: Pauses) -> None:
        """`pauses` are those of this process, for which no party is charged."""
        self.conn = conn
        self.outbox = outbox
        self._pauses = pauses
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

    @property
    def owner(self) -> str:
        """The session or the worker it belongs to."""
        raise NotImplementedError

    def session_name(self, session: str) -> str | None:
        """What `session` is called in frames on this connection: its id, or nothing on a client's."""
        raise NotImplementedError

    def delivering(self, session: LiveSession) -> bool:
        """Tell whether messages of `session` may be sent here now."""
        raise NotImplementedError

    def message_front(self, session: str) -> bytes:
        """The beginning of a `message` frame of `session`, which is attached here."""
        raise NotImplementedError

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

    def send(self, message: Outbound) -> None:
        """Queue a message."""
        self.conn.send_text(codec.encode(message))
        self.outbox.mark(self)

    def send_text(self, payload: bytes) -> None:
        """Queue a text frame."""
        self.conn.send_text(payload)
        self.outbox.mark(self)

    def send_body(self, front: bytes, body: bytes) -> None:
        """Queue a stored body behind `front`."""
        text, payload = records.frame(front, body)
        if text:
            self.conn.send_text(payload)
        else:
            self.conn.send_binary(payload)
        self.outbox.mark(self)

    def ack_later(self, session: str, seq: int) -> None:
        """Ack up to `seq` with the next write, or soon."""
        seat = self.seats.get(session)
        if seat is None:
            return
        if not seat.ack:
            self._acks.append(seat)
        seat.ack = seq
        self.outbox.mark_acking(self)

    @property
    def has_acks(self) -> bool:
        """True when an ack waits for a write."""
        return bool(self._acks)

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
            )
        )

    @property
    def how_over(self) -> str:
        """How the connection ended, in a few words."""
        closed = self.conn.closed
        return "" if closed is None else f"{closed.code} by {closed.initiator}"

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

    def close(self, code: CloseCode, reason: str = "") -> None:
        """Close behind what is queued."""
        self.write()
        self.conn.close(code, reason)

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
