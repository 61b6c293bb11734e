"""What members of rooms are told on `signald.v1`: long answers in pages, and each frame with its session on a worker's connection."""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial

from msgspec import UNSET, Raw, UnsetType

from signald.core.room_views import Answer, Came, Shown
from signald.net.compression import Deflater
from signald.net.frames import binary_header, text_header
from signald.wire.rooms import Joined, RoomMember, RoomPresence

PAGE_BYTES = 63 * 1024
"""What one frame of an answer holds beside its scalars, at most 64 KiB together. What is longer by itself has a frame of its own."""

ITEM_BYTES = 32
"""What an item takes beside its content: names of fields, quotes, commas."""

NO_PRESENCE = Raw(b"null")


@lru_cache(maxsize=16)
def frames_by(deflater: Deflater | None) -> Callable[[Sequence[Shown]], bytes]:
    """Return what makes frames for connections that share `deflater`: always the same one, so that frames are made once for all."""
    return frames_of if deflater is None else partial(frames_of, deflater=deflater)


def frames_of(shown: Sequence[Shown], deflater: Deflater | None = None) -> bytes:
    """Return the `room_message`s for clients as whole frames, one after the other."""
    parts: list[bytes] = []
    for one in shown:
        text, payload = one.frame(None)
        if deflater is None:
            parts += (text_header(len(payload)) if text else binary_header(len(payload)), payload)
        else:
            parts += deflater.parts(payload, text=text)
    return b"".join(parts)


def pages_of(answer: Answer, session: str | None) -> Iterator[Joined]:
    """Yield the frames of an answer, all but the last with `more`. Each is made when it is asked for: all at once hold up others."""
    pages = _pages(answer)
    page = next(pages)
    for following in pages:
        yield page.message(answer, session, more=True)
        page = following
    yield page.message(answer, session, more=False)


class _Page:
    """What one frame has of the lists."""

    def __init__(self) -> None:
        self.size = 0
        self.members: list[RoomMember] = []
        self.history: list[Raw] = []
        self.records: dict[str, Raw] = {}
        self.removed: list[str] = []

    def message(self, answer: Answer, session: str | None, *, more: bool) -> Joined:
        return Joined(
            answer.room,
            answer.epoch,
            answer.position,
            answer.next_seq,
            answer.replaying,
            answer.recovered,
            answer.wipe,
            self.members,
            answer.members_count,
            UNSET if answer.history is None else self.history,
            UNSET if answer.records is None else self.records,
            UNSET if answer.removed is None else self.removed,
            more,
            named(session),
        )


def _pages(answer: Answer) -> Iterator[_Page]:
    page = _Page()
    for kind, name, content in _items(answer):
        size = len(name.encode()) + len(content) + ITEM_BYTES
        if page.size and page.size + size > PAGE_BYTES:
            yield page
            page = _Page()
        page.size += size
        if kind == "member":
            page.members.append(RoomMember(name, Raw(content) if content else NO_PRESENCE))
        elif kind == "history":
            page.history.append(Raw(content))
        elif kind == "record":
            page.records[name] = Raw(content)
        else:
            page.removed.append(name)
    yield page


def _items(answer: Answer) -> Iterator[tuple[str, str, bytes]]:
    for name, presence in answer.members:
        yield "member", name, presence
    for shown in answer.history or ():
        yield "history", "", shown.shown()
    for name, record in (answer.records or {}).items():
        yield "record", name, record
    for name in answer.removed or ():
        yield "removed", name, b""


def presence_of(came: Came, session: str | None) -> RoomPresence:
    """Return what tells of `came`."""
    return RoomPresence(
        came.room, _members(came.joined), _members(came.changed), list(came.left) or UNSET, named(session)
    )


def _members(members: Sequence[tuple[str, bytes]]) -> list[RoomMember] | UnsetType:
    return [RoomMember(name, Raw(said) if said else NO_PRESENCE) for name, said in members] or UNSET


def named(session: str | None) -> str | UnsetType:
    """Return the session of a frame, which a client's has not."""
    return UNSET if session is None else session
