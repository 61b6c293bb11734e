"""What members of a room are told, whatever wire they speak. A publication is made into the frame of `signald.v1` once for all clients."""

from collections.abc import Callable, Mapping, Sequence

import attrs

from signald.core.rooms import Entry, Publication
from signald.wire import records

NOTHING = b't"data":null}'
"""Stands for the body of a publication that the store has damaged."""


class Shown:
    """A publication that is in the log of a room."""

    __slots__ = ("_body", "_for_clients", "entry", "room")

    def __init__(self, room: str, entry: Entry) -> None:
        self.room = room
        self.entry = entry
        self._body = body_of(entry.publication)
        self._for_clients: tuple[bool, bytes] | None = None

    def frame(self, session: str | None, *, own: bool = False) -> tuple[bool, bytes]:
        """Return a `room_message`: (is text, payload). `own`: its receiver has published it, and is told under which seq."""
        if session is None and not own:
            if self._for_clients is None:
                self._for_clients = records.room_frame(self._front(None), self._body)
            return self._for_clients
        return records.room_frame(self._front(session, self.entry.publication.seq if own else 0), self._body)

    def shown(self) -> bytes:
        """Return it as a JSON object: an entry of a history."""
        return records.room_object(self._front(None), self._body)

    def _front(self, session: str | None, seq: int = 0) -> bytes:
        entry = self.entry
        return records.placed(records.room_front(self.room, session), entry.position, entry.member, entry.at_ms, seq)


class Told:
    """Publications that stand next to each other in the log of a room, as all its members at a node are told of them."""

    __slots__ = ("_frames", "first", "shown", "upto")

    def __init__(self, room: str, entries: Sequence[Entry]) -> None:
        """`entries` are one at least, in order."""
        self.shown = [Shown(room, entry) for entry in entries]
        self.first = entries[0].position
        self.upto = entries[-1].position
        self._frames: dict[Callable[[Sequence[Shown]], bytes], bytes] = {}

    def frames(self, make: Callable[[Sequence[Shown]], bytes]) -> bytes:
        """Return the frames in which a client is told of all. `make`, one function for each wire, makes them at the first time."""
        if make not in self._frames:
            self._frames[make] = make(self.shown)
        return self._frames[make]


def body_of(publication: Publication) -> bytes:
    """Return the body of a publication, or its changes of records in the form of one."""
    if publication.puts or publication.patches or publication.removes:
        return records.changes_body(publication.puts, publication.patches, publication.removes)
    return publication.body if records.is_body(publication.body) else NOTHING


def data_of(body: bytes) -> tuple[bytes, bytes]:
    """Return the bytes of a snapshot or of an update, and its fields as JSON. Of one that the store has damaged there are none."""
    fields, data = records.parts(body) if records.is_body(body) else (b"{}", b"")
    return data or b"", fields if data is not None else b"{}"


@attrs.frozen
class Answer:
    """The answer to a join; each field as in `joined` of `signald.v1`."""

    room: str
    epoch: str
    position: int
    next_seq: int
    replaying: int
    recovered: bool
    wipe: bool
    members: Sequence[tuple[str, bytes]]
    """Member, and its presence as JSON; empty: it has said nothing."""
    members_count: int
    history: Sequence[Shown] | None
    """None: it was not asked for. So with the next two."""
    records: Mapping[str, bytes] | None
    """Records by id, as JSON."""
    removed: Sequence[str] | None


@attrs.frozen
class Came:
    """Who has come, changed his presence, and left."""

    room: str
    joined: Sequence[tuple[str, bytes]] = ()
    changed: Sequence[tuple[str, bytes]] = ()
    left: Sequence[str] = ()
    _frames: list[bytes] = attrs.field(factory=list, eq=False, repr=False)

    def encoded(self, encode: Callable[[], bytes]) -> bytes:
        """Return the frame that tells of it, which `encode` makes at the first time."""
        if not self._frames:
            self._frames.append(encode())
        return self._frames[0]

    def __bool__(self) -> bool:
        """Tell whether there is anything to tell."""
        return bool(self.joined or self.changed or self.left)
