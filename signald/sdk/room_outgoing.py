"""The own publications of a member of a room that are not confirmed. No I/O.

::

    seq   1 ..... accepted | accepted+1 ....... sent | sent+1 ...... accepted+len(waiting)
          stored or        written on this           not yet written
          refused          connection

A seq is given by the place in the line, so a room that the store has lost gives each of them another one. A publication that is refused has
used its seq: it stays in the line until all in front of it are confirmed, and it is neither shown nor sent any more.
"""

from collections import deque

from attrs import define, field

from signald.sdk.room_records import Change

WAITING_MAX = 512
"""Publications of one room that may wait for their confirmation: five bursts of a client (100)."""

WAITING_BYTES_MAX = 1024 * 1024
"""Bytes of them, in each of up to 64 rooms. One of the longest (64 KiB) is a sixteenth."""

WINDOW = 256
"""Publications on their way at once: two bursts, and less than a node takes before it leaves the socket unread."""


@define(eq=False)
class Waiting:
    """A publication in the line."""

    number: int
    """What the application was given for it."""
    body: bytes = field(repr=False)
    """In the stored form of wire/records."""
    change: Change | None = None
    opaque: bool = False
    """It changes a document that only the room of this epoch has."""
    refused: bool = False


class Outgoing:
    """See the module."""

    __slots__ = ("_bytes", "_line", "_most", "_numbers", "accepted", "sent")

    def __init__(self) -> None:
        self._line: deque[Waiting] = deque()
        self._bytes = 0
        self._numbers = 0
        self.accepted = 0
        self.sent = 0
        self._most = 0
        """The highest seq that was ever written: signald may have it."""

    def __len__(self) -> int:
        return len(self._line)

    @property
    def room(self) -> bool:
        """Another publication may be made without waiting."""
        return len(self._line) < WAITING_MAX and self._bytes < WAITING_BYTES_MAX

    def add(self, body: bytes, change: Change | None, *, opaque: bool = False) -> int:
        """Take a publication into the line; return its number."""
        self._numbers += 1
        self._line.append(Waiting(self._numbers, body, change, opaque))
        self._bytes += len(body)
        return self._numbers

    def next(self) -> tuple[int, bytes] | None:
        """Return the seq and the body of the next one to be written, and count it as written; None: nothing is to be written now."""
        if not self.due:
            return None
        waiting = self._line[self.sent - self.accepted]
        self.sent += 1
        self._most = max(self._most, self.sent)
        return self.sent, waiting.body

    @property
    def due(self) -> bool:
        """Something is to be written."""
        return self.sent - self.accepted < min(len(self._line), WINDOW)

    def _pop(self) -> Waiting:
        waiting = self._line.popleft()
        self._bytes -= len(waiting.body)
        self.accepted += 1
        self.sent = max(self.sent, self.accepted)
        return waiting

    def confirm(self, seq: int) -> list[Waiting] | None:
        """Take those up to `seq` out of the line, and return the ones that are stored. None: more than were ever sent."""
        if seq > self._most:
            return None
        done = []
        while self.accepted < seq and self._line:
            done.append(self._pop())
        self._pass_over()
        return [waiting for waiting in done if not waiting.refused]

    def confirm_next(self, count: int) -> list[Waiting] | None:
        """Take out the next `count` that are stored: others in the room stand behind them. None: so many were not sent."""
        done: list[Waiting] = []
        while len(done) < count and self._line and self.accepted < self._most:
            waiting = self._pop()
            if not waiting.refused:
                done.append(waiting)
        self._pass_over()
        return done if len(done) == count else None

    def refuse(self, seq: int) -> Waiting | None:
        """Note that one is refused, and return it; None when it is none of those that wait."""
        if not self.accepted < seq <= min(self._most, self.accepted + len(self._line)):
            return None
        waiting = self._line[seq - self.accepted - 1]
        if waiting.refused:
            return None
        waiting.refused = True
        self._pass_over()
        return waiting

    def _pass_over(self) -> None:
        """Take those out whose refusal is all that will come of them."""
        while self._line and self._line[0].refused:
            self._pop()

    def rewind(self, seq: int) -> bool:
        """Send again from `seq` on; False when that cannot be."""
        if not self.accepted < seq <= self._most + 1:
            return False
        self.sent = min(self.sent, seq - 1)
        return True

    def attach(self, next_seq: int, *, same: bool) -> list[Waiting]:
        """Go on at another connection, where `next_seq` is expected; return those that are stored.

        `same`: it is the room that has the others. A room that does not know it counts anew: all that wait are sent again, but for opaque
        updates. Those belong to the document that was lost with the room, and would bring a part of it back.
        """
        done: list[Waiting] = []
        if same:
            done = self.confirm(min(next_seq - 1, self._most)) or []
        self._line = deque(each for each in self._line if not each.refused and (same or not each.opaque))
        self._bytes = sum(len(waiting.body) for waiting in self._line)
        self.accepted = self.sent = self._most = next_seq - 1
        return done

    def clear(self) -> list[Waiting]:
        """Forget all of them; return them."""
        left = list(self._line)
        self._line.clear()
        self._bytes = 0
        return left
