"""A side of a session: its ledgers of messages sent and of messages received. No I/O.

A client has one `SessionCore`, a worker one per session. It lives as long as its party does; connections come and go
under it. `now` (seconds, any monotonic clock) and randomness are arguments, so an asyncio or JavaScript driver can
carry the same decisions.

    outgoing    1 ..... accepted | accepted+1 ....... sent | sent+1 ...... next_seq-1
                stored by signald   written on this         not yet written
                (forgotten here)    connection, unacked

    incoming    1 ..... finished | finished+1 .. received | (nothing: seqs are dense)
                acked: the app      in the inbox
                asked for more

A resume reports `finished`, not `received`, because signald takes the reported position for acked and deletes everything up
to it. A message that only reached this process would then be lost with the process.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import UNSET, Raw

from signald.ids import Entropy
from signald.sdk.bounds import DEFAULT_BOUNDS, Bounds, Pace
from signald.sdk.errors import LinkBroken
from signald.sdk.events import LogLost, MessageReceived, NamedBlob
from signald.sdk.stream_fields import PLAIN, Of
from signald.sdk.values import check_text, read, write
from signald.sdk.writing import Batch, payload_size
from signald.wire.codec import ack_frame
from signald.wire.fields import KIND_MAX, REASON_MAX, SEQ_MAX
from signald.wire.messages import TRACE_MAX, ErrorMessage, Message
from signald.wire.records import frame, head, message_body, renumbered

NEVER = float("inf")

PAUSES = frozenset({"rate", "backlog", "store_unavailable"})
"""Errors that mean: not now. The refused messages are sent again, from the first one on (go-back-N)."""

STREAM_REFUSALS = frozenset({"stream_over", "stream_superseded", "bad_message"})
"""Errors that mean, with `expected`: never. That one message is dropped."""

ACK_PIECES_S = 0.25
"""How long a client's ack waits for more pieces of a growing stream. Pieces that are rolled up come every 40 ms: about six for each ack.
No party waits for it: it frees what signald keeps, and without it a reload is shown a quarter of a second again."""

ACK_PIECES = 8
"""Pieces that a client acks at once, however fast they come: far below the 1,000 messages that signald lets wait."""

ACK_PIECE_BYTES = 16384
"""A larger piece is acked at once: eight of them are an eighth of the bytes that signald lets wait (1 MiB)."""

_LOST_RANGES_MAX = 16
_GAP_QUIET_S = 1.0
_PAUSE_MIN_S, _PAUSE_MAX_S = 0.005, 60.0
"""The bounds of the pause after a refusal. Without a pause a service could have everything sent again as fast as it refuses. An honest
one asks for at most the seconds that a message takes by its rate, and the next connection begins without a pause anyway."""
_WINDOW_MAX = 1 << 20
_WINDOW_AFTER_REFUSAL = 16


def _none(_message: Message) -> bool:
    """Stand in for an SDK that reads no message itself."""
    return False


def _unread(_blob: str) -> NamedBlob | None:
    """Stand in for a driver that reads no blobs."""
    return None


def _nothing() -> None:
    """Stand in for a driver without a callback."""


class SessionCore:
    """A side of a session; see the module's text for the two ledgers.

    Invariants: `finished <= received`; `accepted <= sent <= next_seq - 1`; `_unacked` holds exactly the bodies of
    `accepted + 1 .. next_seq - 1`; `inbox` holds messages in order, each once.
    """

    __slots__ = (
        "_ack_at",
        "_ack_told",
        "_anchored",
        "_bounds",
        "_bye_sent",
        "_entropy",
        "_head",
        "_inbox_bytes",
        "_lost",
        "_paused_until",
        "_prompt_to",
        "_rewound_at",
        "_rewound_to",
        "_slow_until",
        "_unacked",
        "_unacked_bytes",
        "_window",
        "accepted",
        "alone",
        "blob_of",
        "bye",
        "changed",
        "ended",
        "finished",
        "inbox",
        "is_own",
        "name",
        "next_seq",
        "pace",
        "received",
        "sent",
    )

    def __init__(
        self,
        name: str | None,
        entropy: Entropy,
        *,
        next_seq: int = 1,
        received: int | None = 0,
        bounds: Bounds = DEFAULT_BOUNDS,
    ) -> None:
        self.name = name
        """The session's id on a worker's connection, None on a client's."""
        self.changed: Callable[[], None] = _nothing
        """Called when the inbox, the room to send or `ended` changed."""
        self.ended: str | None = None
        """Why the session ended; None while it lives."""
        self.alone = False
        """The session has no worker, and will have none."""
        self.bye: str | None = None
        """The reason to end it with, once everything sent is stored."""
        self._bye_sent = False
        self._head = head(b"message", name)
        self._bounds = bounds
        self._entropy = entropy
        self.next_seq = next_seq
        self.accepted = next_seq - 1
        self.sent = next_seq - 1
        self._unacked: dict[int, bytes] = {}
        self._unacked_bytes = 0
        self.pace: Pace | None = None
        """The rate that the service allows this party; None: it named none."""
        self._window = _WINDOW_MAX
        self._paused_until = -NEVER
        self._slow_until = -NEVER
        self._rewound_to = 0
        self._rewound_at = -NEVER
        # A worker does not know how far its predecessor came: the first message it gets says where it begins.
        self._anchored = received is not None
        self.received = received or 0
        self.finished = self.received
        self._ack_told = self.received
        self._ack_at = NEVER
        """When the ack that waits for more pieces is due; NEVER: none waits."""
        self._prompt_to = 0
        """Up to here messages have come whose ack does not wait: it takes along the ack of pieces before them."""
        self.inbox: deque[tuple[Message, bytes | None]] = deque()
        self.is_own: Callable[[Message], bool] = _none
        """Tells the messages that the SDK has read itself: they never come to the application, and are finished with in their turn."""
        self.blob_of: Callable[[str], NamedBlob | None] = _unread
        """A callback of the driver: what an application reads a blob with, by the id that a message names."""
        self._inbox_bytes = 0
        self._lost: deque[tuple[int, int]] = deque(maxlen=_LOST_RANGES_MAX)

    def __repr__(self) -> str:
        return (
            f"SessionCore({self.name or 'client'}, accepted={self.accepted}, sent={self.sent}, next={self.next_seq}, "
            f"finished={self.finished}, received={self.received}, ended={self.ended!r})"
        )

    def begin(self, next_seq: int, bounds: Bounds) -> None:
        """Begin at the seq and within the bounds that signald names for a new session."""
        self.next_seq = next_seq
        self.accepted = self.sent = next_seq - 1
        self._bounds = bounds

    def bound(self, bounds: Bounds) -> None:
        """Apply other bounds that signald has named."""
        self._bounds = bounds

    # --- outgoing --------------------------------------------------------------------------------------------------

    @property
    def room(self) -> bool:
        """Another message may be sent without waiting."""
        return (
            len(self._unacked) < self._bounds.unacked_messages_max
            and self._unacked_bytes < self._bounds.unacked_bytes_max
        )

    @property
    def unacked(self) -> int:
        """How many messages signald has not confirmed as stored."""
        return len(self._unacked)

    def unacked_bodies(self) -> list[bytes]:
        """Return what is not confirmed yet, oldest first, in the stored form of wire/records."""
        return list(self._unacked.values())

    def send(
        self,
        data: object,
        *,
        kind: str | None = None,
        history: bool | None = None,
        trace: str | None = None,
        of: Of = PLAIN,
    ) -> int:
        """Take a message into the ledger; return its seq. `data`: a JSON value, or bytes for a binary frame. `of`: what it is of a stream.

        A message of a stream may get a lower seq later, when one before it was refused (`turned_down`).

        Raises:
            ValueError: larger or deeper than the service takes, not JSON, or for a session without a worker; nothing was sent.
        """
        if kind is not None:
            check_text("kind", kind, KIND_MAX)
        if trace is not None:
            check_text("trace", trace, TRACE_MAX)
        self.check_peer()
        of.check(data)
        if self.next_seq > SEQ_MAX:
            raise ValueError("this direction of the session has used up its numbers")
        binary = bytes(data) if isinstance(data, bytes | bytearray | memoryview) else None
        # The object of the message itself is the first level.
        raw = Raw() if binary is not None else Raw(write(data, self._bounds.json_depth_max - 1))
        said = Message(self.next_seq, raw, None, kind, history, trace, *of)
        body = message_body(said, binary)
        size = len(body) - 1 + len(self._head)  # the first letter of a body is not sent
        if size > self._bounds.message_bytes_max:
            most = self._bounds.message_bytes_max
            raise ValueError(f"a message may have at most {most} bytes on the wire, not {size}")
        self.restore_unacked(body)
        return self.next_seq - 1

    def check_peer(self) -> None:
        """Raises ValueError when the session has no worker, and will have none."""
        if self.alone:
            raise ValueError("this session has no worker: it was started with pair=False")

    def restore_unacked(self, body: bytes) -> None:
        """Take an already encoded body as the next message: from a saved state."""
        self._unacked[self.next_seq] = body
        self._unacked_bytes += len(body)
        self.next_seq += 1

    def acked(self, seq: int) -> bool:
        """Note that signald has stored everything up to `seq`; True when there may be more to write because of it."""
        if seq >= self.next_seq:
            raise LinkBroken(f"ack {seq} is beyond what was sent ({self.next_seq - 1})")
        if seq <= self.accepted:
            return False
        had_room = self.room
        for done in range(self.accepted + 1, seq + 1):
            self._unacked_bytes -= len(self._unacked.pop(done))
        self.accepted = seq
        self.sent = max(self.sent, seq)
        self._rewound_to = 0
        held_back = self._window < _WINDOW_MAX
        self._window = min(self._window * 2, _WINDOW_MAX)
        if not had_room or not self._unacked:
            self.changed()
        return held_back or self.bye is not None

    def refused(self, error: ErrorMessage, now: float) -> None:
        """Note that signald refused messages: they are sent again, at once after a gap, later after a refusal."""
        expected = error.expected if error.expected is not UNSET else self.accepted + 1
        # Signald may have stored more than it told: never resend below `accepted`, never skip above the last message held.
        expected = min(max(expected, self.accepted + 1), self.next_seq)
        if error.code in PAUSES:
            hint_s = error.retry_after_ms / 1000 if error.retry_after_ms is not UNSET else self._bounds.pause_s
            hint_s = min(max(hint_s, _PAUSE_MIN_S), _PAUSE_MAX_S)
            self._paused_until = now + hint_s + self._entropy.uniform(0.0, min(1.0, hint_s * 0.25))
            # The whole window was refused with the first of it; the next try is a small one, growing with the acks.
            self._window = _WINDOW_AFTER_REFUSAL
        elif self._rewound_to == expected and now - self._rewound_at < _GAP_QUIET_S:
            return  # a refusal of a message that was already under way; the resend is under way too
        self.sent = expected - 1
        self._rewound_to = expected
        self._rewound_at = now

    def turned_down(self, error: ErrorMessage) -> bool:
        """Note that signald refuses one message for good: what is behind it is numbered anew. False when it is none of those kept here."""
        expected = error.expected
        if expected is UNSET or not self.accepted < expected < self.next_seq:
            return False
        behind = [self._unacked.pop(seq) for seq in range(expected, self.next_seq)]
        self._unacked_bytes -= sum(map(len, behind))
        self.next_seq = expected
        self.sent = expected - 1
        self._rewound_to = 0
        for body in behind[1:]:
            self.restore_unacked(renumbered(body, self.next_seq))
        self.changed()
        return True

    # --- incoming --------------------------------------------------------------------------------------------------

    @property
    def full(self) -> bool:
        """The inbox is at its bound."""
        bounds = self._bounds
        return len(self.inbox) >= bounds.inbox_messages_max or self._inbox_bytes >= bounds.inbox_bytes_max

    def receive(self, message: Message, binary: bytes | None) -> bool:
        """Take a message of the peer; False when it is a duplicate.

        Raises:
            LinkBroken: a message is missing before this one, and signald did not say that it is lost.
        """
        seq = message.seq
        if not self._anchored:
            self._anchored = True
            self.received = self.finished = self._ack_told = seq - 1
        if seq <= self.received:
            # The sender of a duplicate has not seen our ack, or the ack was for an older claim.
            self.ack_again()
            return False
        if seq != self.received + 1:
            raise LinkBroken(f"message {seq} came after {self.received}")
        self.received = self._behind_lost(seq)
        self.inbox.append((message, binary))
        size = payload_size(message, binary)
        self._inbox_bytes += size
        # What a worker has not acked goes to the next worker, so its acks never wait.
        if self.name is not None or message.stream is None or message.end or size > ACK_PIECE_BYTES:
            self._prompt_to = seq
        self._skip()
        self.changed()
        return True

    def _skip(self) -> None:
        """Finish with the messages of the SDK's own that are next."""
        while self.inbox and self.is_own(self.inbox[0][0]) and self.finished >= self.inbox[0][0].seq - 1:
            message, binary = self.inbox.popleft()
            self._inbox_bytes -= payload_size(message, binary)
            self.finished = max(self.finished, self._behind_lost(message.seq))

    def _behind_lost(self, seq: int) -> int:
        """Return the last seq of the lost range that follows `seq`, or `seq` itself."""
        for low, high in sorted(self._lost):
            if low <= seq + 1:
                seq = max(seq, high)
        return seq

    def log_lost(self, low: int, high: int, *, incoming: bool) -> LogLost:
        """Note that the store lost these seqs. Incoming ones are acked as if received: only the ack shows signald that this party knows."""
        if incoming:
            if not self._anchored:
                self._anchored = True
                self.received = self.finished = self._ack_told = low - 1
            self._lost.append((low, high))
            self._prompt_to = high
            self.received = self._behind_lost(self.received)
            self.finished = self._behind_lost(self.finished)
        return LogLost(low, high)

    def take(self) -> MessageReceived | None:
        """Hand the next message to the application, or None."""
        if not self.inbox:
            return None
        was_full = self.full
        message, binary = self.inbox.popleft()
        self._inbox_bytes -= payload_size(message, binary)
        if was_full:
            self.changed()
        data: Any = binary if binary is not None else read(message.data)
        return MessageReceived(
            message.seq,
            data,
            message.kind,
            binary is not None,
            message.trace,
            message.stream,
            message.attempt or 1,
            message.end,
            message.outcome,
            None if message.blob is None else self.blob_of(message.blob),
        )

    def finish(self, seq: int) -> bool:
        """Note that the application has finished with everything up to `seq`; True when there is an ack to be written."""
        if seq > self.finished:
            self.finished = self._behind_lost(min(seq, self.received))
            was_full = self.full
            self._skip()
            if was_full and not self.full:
                self.changed()
        return self.finished > self._ack_told

    def ack_again(self) -> None:
        """Repeat the last ack: it may not have counted."""
        self._ack_told = min(self._ack_told, self.finished - 1)
        self._prompt_to = max(self._prompt_to, self.finished)

    # --- connections -----------------------------------------------------------------------------------------------

    def attach(self, accepted: int) -> None:
        """Continue over another connection; signald has everything up to `accepted`."""
        if accepted >= self.next_seq:
            if self._unacked:
                raise LinkBroken(f"signald has {accepted}, beyond what was sent ({self.next_seq - 1})")
            # A restored state may not have the last messages of its former holder: continue after them.
            self.next_seq = accepted + 1
            self.accepted = self.sent = accepted
        self.acked(accepted)
        self.sent = self.accepted
        self._paused_until = self._slow_until = -NEVER
        self._window = _WINDOW_MAX
        if self.pace is not None:
            self.pace.reset()
        self._rewound_to = 0
        self._bye_sent = False
        # Acks written on the old connection may have come too late to count.
        self.ack_again()
        self.changed()

    def write(self, now: float, batch: Batch) -> bool:
        """Put what is due into `batch`; True when the budget ended before that."""
        if self.finished > self._ack_told and self.finished > 0 and self._ack_is_due(now):
            self._ack_told = self.finished
            self._ack_at = NEVER
            batch.text(ack_frame(self.finished, self.name))
        if now >= self._paused_until:
            while self.sent + 1 < self.next_seq and self.sent - self.accepted < self._window:
                if batch.left <= 0:
                    return True
                wait_s = self.pace.take(now) if self.pace is not None else 0.0
                if wait_s > 0:
                    self._slow_until = now + wait_s
                    break
                self.sent += 1
                batch.add(frame(self._head, self._unacked[self.sent]))
        if self.bye is not None and not self._unacked and not self._bye_sent:
            self._bye_sent = True
            batch.text(msgspec.json.encode(_bye(self.bye, self.name)))
        return False

    def part(self, now: float, batch: Batch) -> None:
        """Put what may still be written into `batch`; the session is given back behind it.

        What the application has finished with is acked together with all that it has said, or not at all. Else the next worker
        would not get a message whose answer is lost here.
        """
        self.bye = None
        told, self._ack_told = self._ack_told, max(self._ack_told, self.finished)
        self.write(now, batch)
        if self.finished > max(told, 0) and self.sent + 1 == self.next_seq:
            batch.text(ack_frame(self.finished, self.name))

    def _ack_is_due(self, now: float) -> bool:
        """Tell whether the ack leaves now: only that of a few pieces of a stream waits, and rides with what else is written."""
        pieces = min(ACK_PIECES, max(1, self._bounds.unacked_messages_max // 2))
        if self._prompt_to > self._ack_told or self.finished - self._ack_told >= pieces:
            return True
        if self.bye is not None or (now >= self._paused_until and self.sent + 1 < self.next_seq):
            return True
        if self._ack_at == NEVER:
            self._ack_at = now + ACK_PIECES_S
        return now >= self._ack_at

    def wake_at(self, now: float) -> float:
        """Return when a pause or a wait ends that keeps something from being written, or NEVER."""
        until = max(self._paused_until, self._slow_until)
        return min(until if self.sent + 1 < self.next_seq and until > now else NEVER, self._ack_at)

    def end(self, reason: str) -> None:
        """End the session; messages in the inbox can still be taken."""
        if self.ended is None:
            self.ended = reason
            self.changed()


def _bye(reason: str, session: str | None) -> dict[str, str]:
    bye = {"type": "bye", "reason": reason[:REASON_MAX]}
    if session is not None:
        bye["session"] = session
    return bye
