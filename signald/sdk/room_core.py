"""A member of one room: what it publishes, what it has of the room, and how it comes back. No I/O.

::

    ABSENT ── join, or an opening message that names the room ──▶ JOINING ── joined ──▶ IN
       ▲                                                                                 │
       └── another connection; left (slow, unavailable); out of step ────────────────────┘

    each state ── left for another reason, or the session is over ──▶ ended

`at` is the cursor in the room on this connection: everything up to there was shown and is in the records. A `room_message` that leaves
positions out says that those are own publications, in order of seq: they are stored. `published` says the same, and what was told before it
lies in front of it. When the positions do not fit, the member is *out of step*: it joins anew as if it had nothing, and tells its
application (`RoomReset`).

After a move a node may begin in front of what the one before has told last. So the highest position that was shown is kept beside the
cursor, and so is the position of the records.
"""

from collections.abc import Callable
from typing import Literal

import msgspec
from msgspec import UNSET, Raw

from signald.sdk.errors import LinkBroken
from signald.sdk.room_events import (
    Fields,
    MembersChanged,
    PublicationRefused,
    Record,
    RecordsChanged,
    RoomEvent,
    RoomPublication,
    RoomReset,
    RoomUpdate,
    fields_of,
    history_of,
)
from signald.sdk.room_members import Members, News
from signald.sdk.room_outgoing import Outgoing, Waiting
from signald.sdk.room_records import Change, RoomRecords
from signald.sdk.values import read
from signald.wire.records import head, room_frame
from signald.wire.rooms import (
    Joined,
    Left,
    Published,
    RoomError,
    RoomMessage,
    RoomPresence,
    RoomSnapshot,
)

NEVER = float("inf")

ROOM_BYTES_MAX = 64 * 1024 * 1024
"""Bytes of the records, and of an answer to `join`: eight times what a room may have (8 MiB), which an operator may have raised. A service
that sends more is not trusted."""

PRESENCE_S = 0.05
"""Seconds between two presences: 20 each second are what a room tells of them."""

REJOIN_MIN_S, REJOIN_MAX_S = 0.5, 30.0
"""The pause before another `join`. It doubles while joins are followed by `left` at once."""

STEADY_S = 10.0
"""Seconds in a room after which the pause is the shortest again."""

GAP_QUIET_S = 1.0
"""A gap is told for each publication behind it: one of them is enough. As for messages."""

COME_AGAIN = frozenset({"slow", "unavailable"})
"""Reasons of `left` that mean: not now."""

State = Literal["absent", "joining", "in"]


def _nothing() -> None:
    """Stand in for a driver without a callback."""


class RoomCore:
    """See the module."""

    def __init__(
        self,
        name: str,
        session: str | None,
        *,
        state: bool = False,
        history: int = 0,
        presence: bytes | None = None,
    ) -> None:
        """`session`: on a worker's connection. `state`: it wants the records. `history`: publications that it wants at its first join."""
        self.name = name
        self.changed: Callable[[], None] = _nothing
        """A callback of the driver: there may be an event, room to publish, or an end."""
        self.ended: str | None = None
        """Why it is no member any more; None while it is, or is on its way."""
        self.leaving = False
        self.epoch = ""
        """Empty until it is in the room for the first time."""
        self.at = 0
        self.wants_records = state
        self.records = RoomRecords()
        self.members = Members()
        self.news = News()
        """The events for the application."""
        self.history: list[RoomPublication | RecordsChanged] = []
        self.out = Outgoing()
        self._history = history
        self._head = {kind: head(kind, session) + b'"room":' + msgspec.json.encode(name) for kind in _KINDS}
        self._state: State = "absent"
        self._join_at = -NEVER
        self._joined_at = -NEVER
        self._pause_s = REJOIN_MIN_S
        self._left_said = False
        self._anew = False
        """It joins as if it had nothing."""
        self._shown = 0
        self._records_at = 0
        self._pages: list[Joined] = []
        self._pages_bytes = 0
        self._pieces = bytearray()
        """Of a snapshot whose next piece is to come."""
        self._presence = presence
        self._presence_due = False
        self._presence_at = -NEVER
        self._snapshot: tuple[int, bytes] | None = None
        self._rewound_to = 0
        self._rewound_at = -NEVER

    def __repr__(self) -> str:
        return f"RoomCore({self.name!r}, {self._state}, at={self.at}, waiting={len(self.out)}, ended={self.ended!r})"

    @property
    def is_in(self) -> bool:
        """It is a member, as far as it knows."""
        return self._state == "in"

    @property
    def said(self) -> bytes | None:
        """What others are to see of this member, as JSON; None: it has said nothing here."""
        return self._presence

    # --- what the application does ----------------------------------------------------------------------------------

    def publish(self, body: bytes, change: Change | None, *, opaque: bool = False) -> int:
        """Take a publication, and show its change at once; return its number. `opaque`: it is an update of a document."""
        if change is not None and self.wants_records:
            self.records.show(change)
        return self.out.add(body, change, opaque=opaque)

    def set_presence(self, presence: bytes) -> None:
        """Say what others see from now on; the latest counts."""
        self._presence = presence
        self._presence_due = True

    def snapshot(self, position: int, data: bytes) -> None:
        """Let `data` stand for all updates up to `position`; the latest counts."""
        self._snapshot = (position, data)

    def leave(self) -> None:
        """Leave, after everything that was published is confirmed."""
        self.leaving = True
        if self._state == "absent" and not self.epoch and not len(self.out):
            self.end("left")

    def resync(self) -> None:
        """Join anew, as if nothing were known."""
        if self.ended is None:
            self._state = "absent"
            self._anew = True
            self._join_at = -NEVER

    def end(self, reason: str) -> None:
        """End the membership. Events can still be taken."""
        if self.ended is None:
            self.ended = reason
            for waiting in self.out.clear():
                if waiting.change is not None:
                    self.records.hide(waiting.change)
            self._pages.clear()
            self._pieces.clear()
            self.changed()

    # --- connections ------------------------------------------------------------------------------------------------

    def position(self) -> dict[str, object] | None:
        """Return what an opening message says of the room, or None: it is joined behind the answer."""
        if not self.epoch or self._anew:
            return None
        said: dict[str, object] = {"room": self.name, "received": self.at, "epoch": self.epoch}
        if self.wants_records:
            said["state"] = True
        return said

    def attach(self, *, listed: bool) -> None:
        """Go on over another connection; `listed`: its opening message has named the room."""
        if self.ended is not None:
            return
        self._state = "joining" if listed else "absent"
        self._join_at = -NEVER
        self._left_said = False
        self._pages.clear()
        self._pages_bytes = 0
        self._pieces.clear()
        # What was written last on the connection before may have been lost with it.
        self._presence_due = self._presence is not None and bool(self.epoch)

    def write(self, now: float) -> list[tuple[bool, bytes]]:
        """Return what is to be written before publications: a join, a presence, a snapshot, or a leave."""
        if self.ended is not None:
            return []
        if self._state == "absent":
            if now < self._join_at:
                return []
            self._state = "joining"
            return [(True, self._join())]
        if self._state != "in":
            return []
        frames: list[tuple[bool, bytes]] = []
        if self._presence_due and self._presence is not None and now >= self._presence_at + PRESENCE_S:
            self._presence_due, self._presence_at = False, now
            frames.append((True, self._head[b"presence"] + b',"presence":' + self._presence + b"}"))
        if self._snapshot is not None:
            position, data = self._snapshot
            self._snapshot = None
            header = self._head[b"snapshot"] + b',"position":%d}' % position
            frames.append((False, len(header).to_bytes(2, "big") + header + data))
        if self.leaving and not len(self.out) and not self._left_said:
            self._left_said = True
            frames.append((True, self._head[b"leave"] + b"}"))
        return frames

    def write_next(self) -> tuple[bool, bytes] | None:
        """Return the next publication to be written, or None."""
        found = self.out.next() if self._state == "in" and self.ended is None else None
        return None if found is None else self.framed(*found)

    @property
    def has_more(self) -> bool:
        """A publication is to be written."""
        return self._state == "in" and self.ended is None and self.out.due

    def framed(self, seq: int, body: bytes) -> tuple[bool, bytes]:
        """Return the frame of a publication."""
        return room_frame(self._head[b"publish"] + b',"seq":%d,' % seq, body)

    def wake_at(self, now: float) -> float:
        """Return when `write` has more because a pause ends, or NEVER."""
        if self.ended is not None:
            return NEVER
        if self._state == "absent":
            return max(now, self._join_at)
        return self._presence_at + PRESENCE_S if self._state == "in" and self._presence_due else NEVER

    def _join(self) -> bytes:
        said = self._head[b"join"]
        if self.epoch and not self._anew:
            said += b',"received":%d,"epoch":%b' % (self.at, msgspec.json.encode(self.epoch))
        elif self._history and not self.epoch:
            said += b',"history":%d' % self._history
        if self._presence is not None:
            said += b',"presence":' + self._presence
            self._presence_due = False
        return said + (b',"state":true}' if self.wants_records else b"}")

    # --- joined -----------------------------------------------------------------------------------------------------

    def joined(self, message: Joined, size: int, now: float) -> bool:
        """Take a page of the answer to a join, of `size` bytes; True when it was the last one."""
        if self.ended is not None:
            return False
        self._pages.append(message)
        self._pages_bytes += size
        if self._pages_bytes > ROOM_BYTES_MAX:
            self._give_up()
            return False
        if message.more:
            return False
        pages, self._pages, self._pages_bytes = self._pages, [], 0
        first, same = not self.epoch, self.epoch in ("", message.epoch)
        recovered = not first and same and message.recovered and not self._anew
        position, begins_at = message.position, message.position - message.replaying
        if recovered and begins_at > self._shown:
            self.out_of_step(now)  # a hole that the service does not admit
            return False
        for stored in self.out.attach(message.next_seq, same=same):
            self._settle(stored, None)
        if not same:
            self._snapshot = None  # of a document that is lost: in the next room it would bring all of it back
        self.epoch = message.epoch
        self.at = begins_at if recovered else position
        self._shown = max(self._shown, self.at) if recovered else position
        self._state, self._joined_at, self._anew = "in", now, False
        if self.wants_records:
            self._read_records(pages)
        if not (first or recovered):
            self._tell(RoomReset(position, lost=not same), 0)
            self._presence_due = self._presence is not None
        changed = self.members.begin(pages)
        if not first:
            self._tell_members(changed)
        if any(page.history is not UNSET for page in pages):
            self.history = history_of([raw for page in pages for raw in (page.history or [])])
        self.changed()
        return True

    def _read_records(self, pages: list[Joined]) -> None:
        if pages[-1].wipe:
            self.records.wipe()
        for page in pages:
            for name, raw in (page.records or {}).items():
                self.records.keep(name, _fields(raw))
            for name in page.removed or []:
                self.records.keep(name, None)
        self._records_at = pages[-1].position
        self._check_size()

    # --- what follows -----------------------------------------------------------------------------------------------

    def message(self, message: RoomMessage, binary: bytes | None, now: float) -> None:
        """Take a publication of the room."""
        position = message.position
        if self._state != "in" or self.ended is not None or position <= self.at:
            return
        own = self.out.confirm_next(position - 1 - self.at)
        if own is None:
            self.out_of_step(now)
            return
        for stored in own:
            self._settle(stored, self.at + 1)
        self.at = position
        is_new = position > self._shown
        self._shown = max(self._shown, position)
        change, event, size = _told(message, binary)
        if change is not None:
            self._fold(change, position)
        if is_new and message.seq is UNSET:
            self._tell(event, size)
        self.changed()

    def published(self, message: Published, now: float) -> None:
        """Take a confirmation."""
        if self._state != "in" or self.ended is not None or message.seq <= self.out.accepted:
            return
        stored = self.out.confirm(message.seq)
        if stored is None or (stored and message.position - self.at != len(stored)):
            for one in stored or ():
                self._settle(one, None)
            self.out_of_step(now)
            return
        for one in stored:
            self._settle(one, self.at + 1)
        self.changed()

    def refused(self, error: RoomError, now: float) -> None:
        """Take the refusal of a publication."""
        if self.ended is not None:
            return
        if error.code == "gap":
            expected = error.expected if error.expected is not UNSET else self.out.accepted + 1
            if expected == self._rewound_to and now - self._rewound_at < GAP_QUIET_S:
                return
            self._rewound_to, self._rewound_at = expected, now
            if self._state == "in" and not self.out.rewind(expected):
                self.out_of_step(now)
            return
        waiting = self.out.refuse(error.seq)
        if waiting is not None:
            if waiting.change is not None:
                self.records.hide(waiting.change)
            self._tell(PublicationRefused(waiting.number, error.code), 0)
            self.changed()

    def presence(self, message: RoomPresence) -> None:
        """Take who has come, has changed and has left."""
        if self._state != "in" or self.ended is not None:
            return
        self._tell_members(self.members.change(message))
        self.changed()

    def _tell_members(self, changed: MembersChanged) -> None:
        if changed != MembersChanged():
            self._tell(changed, 0)

    def _tell(self, event: RoomEvent, size: int) -> None:
        self.news.tell(event, size, self._shown)

    def update(self, message: RoomSnapshot, binary: bytes | None) -> None:
        """Take a snapshot, a piece of one, or an update behind it."""
        if self._state != "in" or self.ended is not None or binary is None:
            return
        self._pieces += binary
        if len(self._pieces) > ROOM_BYTES_MAX:
            self._give_up()
        elif not message.more:
            kind = message.kind if message.kind is not UNSET else None
            data = bytes(self._pieces)
            self._pieces.clear()
            self._tell(RoomUpdate(message.position, data, kind, snapshot=not message.update), len(data))
            self.changed()

    def left(self, message: Left, now: float) -> None:
        """Take the end of the membership; some reasons ask for another join."""
        if self.ended is not None:
            return
        if message.reason not in COME_AGAIN or (self.leaving and not len(self.out)):
            self.end("left" if self.leaving else message.reason)
            return
        self._join_later(now)

    def _join_later(self, now: float) -> None:
        self._state = "absent"
        self._pieces.clear()
        steady = now - self._joined_at >= STEADY_S
        self._pause_s = REJOIN_MIN_S if steady else min(self._pause_s * 2, REJOIN_MAX_S)
        self._join_at = now + self._pause_s
        self.changed()

    def out_of_step(self, now: float) -> None:
        """Join anew after a pause, because the positions contradict each other. What is told until then is void."""
        self._anew = True
        self._join_later(now)

    def _give_up(self) -> None:
        self.leaving = True
        self.end("too_big")

    def _settle(self, stored: Waiting, position: int | None) -> None:
        """Note that an own publication is stored at `position`; None: the records of the answer have it."""
        if stored.change is not None:
            self.records.hide(stored.change)
        if position is not None:
            self.at = position
            self._shown = max(self._shown, position)
            if stored.change is not None:
                self._fold(stored.change, position)

    def _fold(self, change: Change, position: int) -> None:
        if self.wants_records and position > self._records_at:
            self._records_at = position
            self.records.fold(change)
            self._check_size()

    def _check_size(self) -> None:
        if self.records.size > ROOM_BYTES_MAX:
            self._give_up()


_KINDS = (b"join", b"publish", b"presence", b"snapshot", b"leave")


_record = msgspec.json.Decoder(dict[str, Raw])


def _fields(raw: Raw) -> Fields:
    try:
        return fields_of(_record.decode(raw))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise LinkBroken(f"a record is no map of properties: {error}"[:300]) from None


def _told(message: RoomMessage, binary: bytes | None) -> tuple[Change | None, RoomEvent, int]:
    """Return the change of records that a publication makes, its event, and its bytes."""
    place = (message.position, message.member, message.at_ms)
    kind = message.kind if message.kind is not UNSET else None
    if binary is not None:
        return None, RoomPublication(*place, binary, kind, binary=True), len(binary)
    if message.put is UNSET and message.patch is UNSET and message.remove is UNSET:
        data = bytes(message.data)
        return None, RoomPublication(*place, read(data), kind), len(data)
    puts = {name: fields_of(record) for name, record in (message.put or {}).items()}
    patches = {name: fields_of(record) for name, record in (message.patch or {}).items()}
    change = Change(puts, patches, tuple(message.remove or ()))
    size = sum(len(value) + len(key) for record in (*puts.values(), *patches.values()) for key, value in record.items())
    event = RecordsChanged(*place, _records(puts), _records(patches), change.removes)
    return change, event, size


def _records(some: dict[str, Fields]) -> dict[str, Record]:
    return {name: Record(fields) for name, fields in some.items()}
