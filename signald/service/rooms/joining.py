"""How a party becomes a member of a room here: its seat in the store, what it is told first, and what it has missed.

    begin ─▸ JoinRoom ─▸ the records, the history, the snapshot ─▸ `joined` ─▸ what was published since ─▸ live

A party joins its rooms one after the other, in the order in which it asks. What others publish meanwhile waits in the store: the last step
reads it, until the member has everything that its room at this node has told, and from there to being live there is no checkpoint.

What is read at once for one member may be as large as a room. So only a few are read at a time, and one whose connection does not take it
in time is told that it is slow, and joins again.
"""

from collections.abc import Callable
from typing import TypeVar

import attrs
import structlog
import trio
from msgspec.structs import replace

from signald.core.head import Party
from signald.core.room_views import Answer, Shown, body_of, data_of
from signald.core.rooms import Entry, is_dense, is_picture
from signald.errors import StoreUnavailable
from signald.ids import new_nonce
from signald.service.attached import PartyLink
from signald.service.context import Context
from signald.service.rooms.bounds import bounds_of
from signald.service.rooms.guest import Guest, RoomHere, State
from signald.service.rooms.hall import LOOK_LIMIT, SLOW, Hall
from signald.service.rooms.making import OF_NONE, Making, owner_of
from signald.service.rooms.presence import difference
from signald.store.base import Fenced, Op, Refused
from signald.store.room.ops import (
    CHANGED_MAX,
    LOOKED_MAX,
    Joined,
    JoinRoom,
    LookRoom,
    NoRoom,
    ReadRoomHistory,
    ReadRoomState,
    ReadRoomUpdates,
    RoomHistory,
    RoomLooked,
    RoomState,
    RoomUpdates,
)
from signald.wire.records import record_json

log = structlog.get_logger(__name__)

R = TypeVar("R")

STORE_S = 30.0
"""How long a join waits for the store: a failover takes some seconds, and a party that is told `unavailable` has to ask again."""

TAKE_S = 30.0
"""How long a member may take for what it is told at its join. At 8 MiB that is a line of 2 Mbit/s."""

PICTURES_MAX = 8
"""Members whose rooms are read at once: 64 MiB of the largest rooms."""

PIECE_BYTES = 60_000
"""Bytes of one frame of a snapshot: below 64 KiB with its header, as each page of an answer. A queue that has room takes one more."""

SMALL_BYTES = 1 << 20
"""What is read of a smaller room waits for its member beside others: as much as its send queue holds."""

PAGE_PAUSE_S = 0.008
"""Between two pages of records. A page takes the store a millisecond, and all that is stored meanwhile waits for it: without a pause the
messages of others took three times as long while a member joined. A room of 10,000 records is read in two seconds."""

PAGES_MAX = 4000
"""Pages of one picture: 25 times the largest room. A room that changes faster than it can be read is told to no one."""

BELIEVED_MAX = 10_000
"""Rooms of which this is remembered. One that is forgotten may be reset by a lie once more."""

ATTEMPTS_MAX = 5
"""How often a join begins anew because the room was lost while it was read."""

MEMBERS_SHOWN_MAX = 1000
"""Members that an answer names, from the contract of the wire."""


@attrs.frozen
class Request:
    """What a party says when it joins; each field as in `join` of `signald.v1`."""

    received: int = 0
    epoch: str = ""
    presence: bytes | None = None
    """None: as it was."""
    state: bool = False
    history: int = 0
    is_lost: bool = False
    """It was a member here, and the store has lost its seat or the room."""


@attrs.define
class _Picture:
    """What a member is told of a room besides its log."""

    position: int
    wipe: bool
    records: dict[str, bytes] | None = None
    removed: dict[str, None] = attrs.field(factory=dict)
    history: list[Shown] | None = None
    snapshot: tuple[int, bytes] | None = None
    updates: list[Entry] = attrs.field(factory=list)

    @property
    def size(self) -> int:
        """Its bytes."""
        shown = [one.entry for one in self.history or ()]
        log = sum([entry.publication.size for entry in (*self.updates, *shown)])
        return log + sum([len(record) for record in (self.records or {}).values()])


class _VoidError(Exception):
    """The room is another one, or has not what it has said: the join begins anew."""


class _OverError(Exception):
    """The member is gone, or has joined again meanwhile."""


class Joining:
    """See the module."""

    def __init__(
        self,
        context: Context,
        hall: Hall,
        making: Making,
        left: Callable[[Guest, str], None],
        is_store_in_doubt: Callable[[], bool],
    ) -> None:
        """`left` is called for a member that does not come in, with the reason that it is told; empty: it is told nothing."""
        self._context = context
        self._hall = hall
        self._making = making
        self._left = left
        self._is_store_in_doubt = is_store_in_doubt
        self._believed: dict[str, int] = {}
        """Room → `Store.lives` when the claim of a member was last believed there."""
        self.live: Callable[[Guest], None] = lambda _: None
        """Called for each member that has everything."""
        self._asked: dict[tuple[str, Party], dict[Guest, Request]] = {}
        """Party → what it has asked, in order. A party that asks again for a room is answered once."""
        self._room_on: dict[PartyLink, trio.Event] = {}
        """Connections whose send queue some member waits for."""
        self._pictures = trio.CapacityLimiter(PICTURES_MAX)

    def begin(self, guest: Guest, request: Request) -> None:
        """Have a party join, or join again."""
        guest.joins += 1
        guest.state, guest.seated = State.JOINING, False
        guest.wants_state = request.state
        if request.presence is not None:
            guest.said = request.presence
        key = guest.session.id, guest.party
        asked = self._asked.get(key)
        if asked is None:
            self._asked[key] = {guest: request}
            self._context.spawn(self._run, key)
        else:
            asked.pop(guest, None)
            asked[guest] = request

    def has_room(self, link: PartyLink) -> None:
        """The send queue of `link` has room again, or its connection is over."""
        waited = self._room_on.pop(link, None)
        if waited is not None:
            waited.set()

    async def _run(self, key: tuple[str, Party]) -> None:
        asked = self._asked[key]
        try:
            while asked:
                guest = next(iter(asked))
                request = asked.pop(guest)
                if not guest.gone:
                    await self._join(guest, request, guest.joins)
                self._context.writes.flush()
        finally:
            del self._asked[key]

    async def _join(self, guest: Guest, request: Request, number: int) -> None:
        try:
            for _ in range(ATTEMPTS_MAX):
                try:
                    await self._attempt(guest, request, number)
                except _VoidError:
                    request = attrs.evolve(request, received=0, epoch="")
                else:
                    return
            self._left(guest, "unavailable")
        except StoreUnavailable:
            if not guest.gone:
                self._left(guest, "unavailable")
        except _OverError:
            pass

    async def _attempt(self, guest: Guest, request: Request, number: int) -> None:
        room = guest.room
        joined = await self._seat(guest, request, number)
        if joined is None:
            return
        if room.known and room.epoch != joined.epoch:
            self._hall.forget(room)
        if not room.known:
            await self._know(guest, joined, number)
        self._hall.look(room.name)
        async with self._pictures:
            # A member that has given up while it waited is not read for: when all come at once, the places are for those that still wait.
            self._check(guest, number)
            picture = await self._picture(guest, request, joined, number)
            if picture.size > SMALL_BYTES:
                await self._welcome(guest, request, joined, picture, number)
                return
        await self._welcome(guest, request, joined, picture, number)

    async def _welcome(self, guest: Guest, request: Request, joined: Joined, picture: _Picture, number: int) -> None:
        """Tell a member what it has joined, and what it has missed."""
        members = self._members(guest)
        with trio.move_on_after(TAKE_S):
            await self._answer(guest, request, joined, picture, members, number)
            await self._catch_up(guest, number)
            self._go_live(guest, members)
            return
        guest.state, guest.seated = State.SLOW, True
        guest.link.room_left(guest.session.id, guest.room.shown, SLOW)

    async def _seat(self, guest: Guest, request: Request, number: int) -> Joined | None:
        context = self._context
        op = JoinRoom(
            guest.room.name,
            guest.name,
            context.node,
            guest.epoch,
            new_nonce(context.entropy),
            new_nonce(context.entropy),
            request.epoch,
            request.received,
            request.presence,
            bounds_of(context.config.rooms),
            context.now_ms(),
            makes=False,
            told=self._told(guest.room, request),
        )
        result = await self._ask(op, guest, number)
        if isinstance(result, NoRoom):
            owner = OF_NONE if request.is_lost else owner_of(guest.session, guest.party)
            refusal = await self._making.enter(guest.room.name, owner, STORE_S)
            self._check(guest, number)
            if refusal:
                self._left(guest, refusal)
                return None
            result = await self._ask(replace(op, now_ms=context.now_ms(), makes=True), guest, number)
        if isinstance(result, Joined):
            guest.presence_turn = result.turn
            if op.told and result.epoch == op.new_epoch:
                self._was_believed(guest.room)
            return result
        if isinstance(result, Fenced):
            self._left(guest, "")  # it has a seat at another connection, and this one is about to be released
        else:
            assert isinstance(result, Refused), "this operation makes the room"
            self._left(guest, "room_full" if result.reason == "room_full" else "unavailable")
        return None

    def _told(self, room: RoomHere, request: Request) -> int:
        """Return the position of which members were told under the epoch that the member knows, as far as that can be said.

        This node knows what it has told. What a party claims is believed after the store has shown that it may have lost something, and
        once for each room: a lie resets the room.
        """
        told = max(room.position, room.told) if room.epoch == request.epoch else 0
        if self._believed.get(room.name) == self._context.store.lives or not self._is_store_in_doubt():
            return told
        return max(told, request.received)

    def _was_believed(self, room: RoomHere) -> None:
        self._believed.pop(room.name, None)
        self._believed[room.name] = self._context.store.lives
        if len(self._believed) > BELIEVED_MAX:
            del self._believed[next(iter(self._believed))]

    async def _ask(self, op: Op[R], guest: Guest, number: int) -> R:
        """Have the store do `op` for a member. Raises _OverError, so that nothing more is read for a member that has gone meanwhile."""
        result = await self._context.committer.call(op, STORE_S)
        self._check(guest, number)
        return result

    def _check(self, guest: Guest, number: int) -> None:
        if guest.gone or guest.joins != number:
            raise _OverError

    def _same(self, guest: Guest, epoch: str) -> None:
        """The room is the one that the member has joined, and not one that was made since. Raises _VoidError."""
        if not guest.room.known or guest.room.epoch != epoch:
            raise _VoidError

    async def _know(self, guest: Guest, joined: Joined, number: int) -> None:
        """The first member here: learn who else is in the room."""
        room = guest.room
        look = LookRoom(room.name, max(0, joined.position - 1), 0, 1, self._context.now_ms())
        looked = await self._ask(look, guest, number)
        if not isinstance(looked, RoomLooked) or looked.epoch != joined.epoch:
            raise _VoidError
        if not room.known:
            self._hall.know(room, looked, joined.position)

    def _members(self, guest: Guest) -> dict[str, bytes]:
        """Return who is here as the member is told: it is one of them, even where this node has not heard of it yet."""
        members = dict(guest.room.roll.members)
        if guest.name not in members:
            members[guest.name] = guest.said
        return members

    # --- what is read -----------------------------------------------------------------------------------------------

    async def _picture(self, guest: Guest, request: Request, joined: Joined, number: int) -> _Picture:
        picture = _Picture(joined.position, joined.wipe)
        if request.state:
            await self._read_records(guest, request.received, joined, picture, number)
        if not joined.recovered and joined.position:
            await self._read_updates(guest, joined, picture, number, fixed=request.state)
        if request.history:
            last = request.received if joined.recovered else picture.position
            picture.history = await self._read_history(guest, last, request.history, number)
        self._same(guest, joined.epoch)
        return picture

    async def _read_records(self, guest: Guest, received: int, joined: Joined, picture: _Picture, number: int) -> None:
        begun, start = 0, 0 if picture.wipe else received
        records: dict[str, bytes] = {}
        removed: dict[str, None] = {}
        cursor = start
        for _ in range(PAGES_MAX):
            read = ReadRoomState(guest.room.name, cursor, CHANGED_MAX, self._context.now_ms())
            page = await self._ask(read, guest, number)
            if not isinstance(page, RoomState) or page.epoch != joined.epoch:
                raise _VoidError
            begun = begun or page.position
            for name, record in page.records:
                if record.properties is None:
                    records.pop(name, None)
                    removed[name] = None
                else:
                    removed.pop(name, None)
                    records[name] = record_json(record.properties)
            cursor = page.upto
            if cursor < page.position:
                await trio.sleep(PAGE_PAUSE_S)
                continue
            if is_picture(start, begun, page.horizon):
                picture.position, picture.records = page.position, records
                picture.removed = {} if picture.wipe else removed
                return
            picture.wipe = True
            begun = start = cursor = 0
            records.clear()
            removed.clear()
        raise _VoidError

    async def _read_updates(self, guest: Guest, joined: Joined, picture: _Picture, number: int, *, fixed: bool) -> None:
        """Read the snapshot and the updates behind it. `fixed`: the position of the picture is that of its records."""
        cursor = 0
        for _ in range(PAGES_MAX):
            read = ReadRoomUpdates(guest.room.name, cursor, LOOKED_MAX, self._context.now_ms())
            page = await self._ask(read, guest, number)
            if not isinstance(page, RoomUpdates) or page.epoch != joined.epoch:
                raise _VoidError
            if page.body:
                picture.snapshot, picture.updates = (page.snapshot, page.body), []
                if page.snapshot > picture.position:
                    if fixed:
                        raise _VoidError
                    picture.position = page.snapshot
            picture.updates += page.updates
            cursor = page.upto
            if cursor >= min(page.position, picture.position):
                picture.updates = [entry for entry in picture.updates if entry.position <= picture.position]
                return
        raise _VoidError

    async def _read_history(self, guest: Guest, last: int, count: int, number: int) -> list[Shown]:
        found: list[Shown] = []
        before = last + 1
        while count > len(found) and before > 1:
            most = min(count - len(found), LOOKED_MAX)
            read = ReadRoomHistory(guest.room.name, before, most, self._context.now_ms())
            page = await self._ask(read, guest, number)
            if not isinstance(page, RoomHistory):
                raise _VoidError
            found = [Shown(guest.room.shown, entry) for entry in page.entries] + found
            before = page.next
        return found

    # --- what is told -----------------------------------------------------------------------------------------------

    async def _answer(
        self,
        guest: Guest,
        request: Request,
        joined: Joined,
        picture: _Picture,
        members: dict[str, bytes],
        number: int,
    ) -> None:
        room, link, session = guest.room, guest.link, guest.session.id
        if request.epoch == joined.epoch:
            for seq, fault in joined.refused:
                link.room_refused(session, room.shown, seq, fault)
        guest.given = request.received if joined.recovered else picture.position
        guest.stored = joined.next_seq - 1
        replaying = picture.position - guest.given
        answer = Answer(
            room.shown,
            joined.epoch,
            picture.position,
            joined.next_seq,
            replaying,
            joined.recovered,
            picture.wipe,
            list(members.items())[-MEMBERS_SHOWN_MAX:],
            len(members),
            picture.history,
            picture.records,
            list(picture.removed) if picture.records is not None else None,
        )
        for _ in link.room_joined(session, answer):
            # All pages of a large room take some 20 ms: others have their turn behind each.
            await trio.lowlevel.checkpoint()
            await self._wait_for_room(guest, number)
        if picture.snapshot is not None:
            position, body = picture.snapshot
            data, fields = data_of(body)
            for start in range(0, max(1, len(data)), PIECE_BYTES):
                await self._wait_for_room(guest, number)
                more = start + PIECE_BYTES < len(data)
                link.room_snapshot(session, room.shown, position, data[start : start + PIECE_BYTES], fields, more=more)
        for entry in picture.updates:
            await self._wait_for_room(guest, number)
            link.room_snapshot(session, room.shown, entry.position, *data_of(body_of(entry.publication)), update=True)

    async def _wait_for_room(self, guest: Guest, number: int) -> None:
        """Wait until the send queue of a member takes more. Raises _OverError."""
        self._check(guest, number)
        link = guest.link
        if not link.conn.room:
            self._context.writes.flush()
        while not link.conn.room:
            await self._room_on.setdefault(link, trio.Event()).wait()
            self._check(guest, number)

    async def _catch_up(self, guest: Guest, number: int) -> None:
        """Tell a member what its room at this node has told the others. Raises _VoidError when that is kept no more."""
        room = guest.room
        epoch = room.epoch
        while guest.given < room.position:
            look = LookRoom(room.name, guest.given, room.turn, LOOK_LIMIT, self._context.now_ms())
            looked = await self._ask(look, guest, number)
            self._same(guest, epoch)
            if not isinstance(looked, RoomLooked) or looked.epoch != epoch or looked.floor > guest.given:
                raise _VoidError
            if not is_dense(looked.entries, guest.given, looked.upto) or looked.upto <= guest.given:
                raise _VoidError
            for entry in looked.entries:
                await self._wait_for_room(guest, number)
                guest.link.room_message(guest.session.id, Shown(room.shown, entry), own=entry.member == guest.name)
                guest.given = entry.position
        self._same(guest, epoch)

    def _go_live(self, guest: Guest, members: dict[str, bytes]) -> None:
        room = guest.room
        came = difference(room.shown, members, room.roll.members, but=guest.name)
        if came:
            guest.link.room_presence(guest.session.id, came)
        guest.since = room.roll.news
        guest.state, guest.seated = State.LIVE, True
        self.live(guest)
