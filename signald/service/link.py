"""A party's connection as the service sees it: a place to put frames, flushed by the batch.

Nothing here writes. `send` queues on the connection and marks the link; whoever ends a batch calls `Outbox.flush`, so
that everything a batch produced for one connection leaves in one write. Acks wait a few milliseconds for something to
ride with (`ack_later`).
"""

from typing import ClassVar, Literal

from msgspec import UNSET, UnsetType

from signald.core.head import Party
from signald.core.session import Session
from signald.core.tokens import Slots
from signald.net.connection import Connection
from signald.wire import codec, records
from signald.wire.close_codes import CloseCode
from signald.wire.messages import ErrorMessage, Outbound


class Outbox:
    """Which links have something to write."""

    def __init__(self) -> None:
        self._marked: list[Link] = []
        self._acking: list[Link] = []

    def mark(self, link: "Link") -> None:
        """Have `link` flushed at the end of this batch."""
        if not link.marked:
            link.marked = True
            self._marked.append(link)

    def mark_acking(self, link: "Link") -> None:
        """Have the acks of `link` written with its next write, or by `flush_acks`."""
        if not link.acking:
            link.acking = True
            self._acking.append(link)

    def flush(self) -> None:
        """One write for each marked connection."""
        marked, self._marked = self._marked, []
        for link in marked:
            link.marked = False
            link.write()

    def flush_acks(self) -> None:
        """Write the acks that found nothing to ride with."""
        acking, self._acking = self._acking, []
        for link in acking:
            link.acking = False
            if link.acks:
                self.mark(link)
        self.flush()

    @property
    def has_acks(self) -> bool:
        """True when `flush_acks` has something to do."""
        return bool(self._acking)


class Link:
    """See the module. Base of `ClientLink` and `WorkerLink`."""

    party: ClassVar[Party]

    def __init__(self, conn: Connection, outbox: Outbox) -> None:
        self.conn = conn
        self.outbox = outbox
        self.marked = False
        self.acking = False
        self.acks: dict[str, int] = {}
        """session → seq to ack with the next write."""
        self.blocked: dict[str, Session[Link]] = {}
        """Sessions with more to deliver than the send queue had room for."""
        self.told_to_go = False
        """GOAWAY was sent: the close to come is `moved`."""
        self.told_at = 0.0
        """When it was (trio time)."""
        self.over = False
        """The link has been detached; nothing may be attached to it any more."""
        self.tokens = Slots()

    @property
    def owner(self) -> str:
        """The session or the worker it belongs to."""
        raise NotImplementedError

    def session_name(self, session: str) -> str | None:
        """What `session` is called in frames on this connection: its id, or nothing on a client's."""
        raise NotImplementedError

    def delivering(self, session: Session["Link"]) -> bool:
        """Tell whether messages of `session` may be sent here now."""
        raise NotImplementedError

    def message_front(self, _session: str) -> bytes:
        """The beginning of a `message` frame of `session`."""
        raise NotImplementedError

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
        """Ack up to `seq` with whatever is written next, or soon."""
        self.acks[session] = seq
        self.outbox.mark_acking(self)

    def write(self) -> None:
        """Write everything queued. Acks ride along."""
        if self.acks:
            for session, seq in self.acks.items():
                self.conn.send_text(codec.ack_frame(seq, self.session_name(session)))
            self.acks.clear()
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


def retry_reason(retry_after_ms: int) -> str:
    """The reason of a close 1013: JSON, so that a program can read when to come again."""
    return f'{{"retry_after_ms":{retry_after_ms}}}'
