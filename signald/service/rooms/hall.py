"""The rooms that have members at this node, and what those are told.

    store ─wake─▸ look() ─▸ LookRoom ─▸ _looked() ─▸ deliver() ─▸ each member that is live
    settle() ─▸ Publish ─▸ published() ─▸ deliver()                (without a look, when nobody else has published)

One look is under way for each room, so a hundred wake-ups cost two. The position of the room here is that of the last publication that its
live members were told; those that are joining read for themselves what is behind their own (`joining`). A publication is made into a frame
once for all clients of a room.

Publications are told at once, and changes of who is here and of presences in frames of their own pace (`presence.interval_s`).
"""

from collections.abc import Callable, Collection, Sequence
from functools import partial

import attrs
import structlog
import trio

from signald.core.head import Party
from signald.core.room_views import Came, Shown, Told
from signald.core.rooms import Entry, is_dense
from signald.service.context import Context
from signald.service.rooms.counts import RoomCounts
from signald.service.rooms.guest import Guest, Mark, RoomHere, State, mark_of, member_name
from signald.service.rooms.presence import INTERVAL_S, interval_s
from signald.store.base import Result
from signald.store.room.ops import LookRoom, NoRoom, PresenceOld, PresenceSet, RoomLooked, SetPresence
from signald.wire.fields import SEQ_MAX

log = structlog.get_logger(__name__)

LOOK_LIMIT = 256
"""Publications read at once: at 64 KiB each 16 MiB, as a look at a session."""

SLOW = "slow"

BEYOND = SEQ_MAX
"""A position that no room has: members were told what the log has not."""


@attrs.frozen
class _Asked:
    """Of what room a look was asked for."""

    epoch: str
    after: int
    last: Mark | None
    """What is to stand at `after`; None: anything."""
    lives: int
    """Of the store."""


class Hall:
    """See the module."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.rooms: dict[str, RoomHere] = {}
        self.lost: Callable[[Guest], None] = lambda _: None
        """Called for each member of a room that the store has lost, or that has gone on without them: it is to join again."""
        self.followed: Callable[[str], None] = lambda _: None
        """Called for each room that this node begins to follow, or is about to follow again: a store that had lost it has lost its place
        in the agenda too."""
        self._waiting: dict[str, RoomHere] = {}
        """Rooms whose members are to be told who is here, or who have presences to tell the store."""
        self._work = trio.Event()
        self.counts = RoomCounts()

    @property
    def members(self) -> int:
        """How many members are here, each once for each of its rooms."""
        return sum([len(room.guests) for room in self.rooms.values()])

    # --- who is here ------------------------------------------------------------------------------------------------

    def guest(self, session: str, party: Party, room: str) -> Guest | None:
        """Return a party of a session as a member of `room` here."""
        here = self.rooms.get(room)
        return None if here is None else here.guests.get(member_name(session, party))

    def members_of(self, room: str) -> Collection[str]:
        """Return the members of `room` that are here."""
        here = self.rooms.get(room)
        return () if here is None else here.guests

    def rooms_with(self, session: str) -> list[str]:
        """Return the rooms here in which a party of `session` is, wherever it is."""
        names = [member_name(session, "client"), member_name(session, "worker")]
        return [room.name for room in self.rooms.values() if any(name in room.roll.members for name in names)]

    def enter(self, room: str) -> RoomHere:
        """Return `room` as it is here."""
        here = self.rooms.get(room)
        if here is None:
            here = self.rooms[room] = RoomHere(room)
        return here

    def remove(self, guest: Guest) -> None:
        """A member is here no more; the room neither, when it was the last one."""
        guest.gone = True
        guest.forget()
        room = guest.room
        if room.guests.get(guest.name) is guest:
            del room.guests[guest.name]
        if not room.guests and self.rooms.get(room.name) is room:
            del self.rooms[room.name]
            self._waiting.pop(room.name, None)

    def know(self, room: RoomHere, looked: RoomLooked, position: int) -> None:
        """Begin to follow `room` behind `position`, by the first look at it."""
        room.known, room.epoch, room.position, room.turn = True, looked.epoch, position, looked.turn
        room.lives, room.told = self._context.store.lives, 0
        room.last = mark_of(looked.entries[0]) if looked.entries and looked.entries[0].position == position else None
        room.fold_at = 0.0
        room.roll.clear()
        room.roll.whole(looked.members)
        room.roll.count = looked.members_count
        room.roll.told()
        self.followed(room.name)

    def forget(self, room: RoomHere) -> None:
        """What this node knows of `room` is void; its members are to join again."""
        # Before they do, as for a first member: when this node dies or their sessions end meanwhile, no node follows the room.
        self.followed(room.name)
        room.known = False
        for guest in room.guests.values():
            guest.said = guest.said or room.roll.members.get(guest.name, b"")
        room.roll.clear()
        for guest in list(room.guests.values()):
            if guest.state is not State.JOINING:
                self.lost(guest)

    # --- from the store ---------------------------------------------------------------------------------------------

    def look(self, name: str) -> None:
        """Read what is new in a room, if it has members here."""
        room = self.rooms.get(name)
        if room is None or not room.known or not room.looks.begin():
            return
        # Another server of the store answers: what members were told last is read once more, and has to be the same.
        again = int(room.position > 0 and self.doubts(room))
        op = LookRoom(name, room.position - again, room.turn, LOOK_LIMIT + again, self._context.now_ms())
        asked = _Asked(room.epoch, room.position, room.last if again else None, self._context.store.lives)
        self._context.committer.submit(op, partial(self._looked, room, asked))

    def look_at_everything(self) -> None:
        """Wake-ups may have been lost."""
        for name in list(self.rooms):
            self.look(name)

    def doubts(self, room: RoomHere) -> bool:
        """Tell whether another server of the store may have other publications where members were told theirs."""
        return room.lives != self._context.store.lives

    def _looked(self, room: RoomHere, asked: _Asked, result: Result) -> None:
        again = room.looks.end()
        if self.rooms.get(room.name) is not room or not room.known or room.epoch != asked.epoch:
            return
        after, lives = asked.after, self._context.store.lives
        if isinstance(result, RoomLooked) and result.epoch == asked.epoch and result.position >= after:
            if lives != asked.lives:
                self.look(room.name)  # another server has taken over since it was asked for
                return
            if asked.last is not None and asked.last not in [mark_of(entry) for entry in result.entries[:1]]:
                room.told = BEYOND
                self._lost(room, after)
                return
            room.lives = lives
            self._take(room, after, result)
            if again or result.upto < result.position:
                self.look(room.name)
        elif isinstance(result, RoomLooked | NoRoom):
            self._lost(room, after)

    def _lost(self, room: RoomHere, had: int) -> None:
        log.warning("room_lost", room=room.name, had=had)
        self.forget(room)

    def _take(self, room: RoomHere, after: int, result: RoomLooked) -> None:
        if result.turn >= room.turn:
            if result.whole:
                room.roll.whole(result.members)
            elif result.members or result.departed:
                room.roll.change(result.members, result.departed)
            room.roll.count, room.turn = result.members_count, result.turn
        entries = [entry for entry in result.entries if entry.position > after]
        if not is_dense(entries, after, result.upto):
            # The oldest that its members here have not are kept no more, or are damaged.
            self.forget(room)
            return
        # Some may have been told already, as those of a member here.
        self.deliver(room, [entry for entry in entries if entry.position > room.position])
        self._tell_soon(room)

    def deliver(self, room: RoomHere, entries: Sequence[Entry]) -> None:
        """Tell the live members of the next entries of the log."""
        if not entries:
            return
        told = Told(room.shown, entries)
        room.position, first, room.last = told.upto, told.first, mark_of(entries[-1])
        publishers = {room.guests.get(entry.member) for entry in entries}
        alike = 0
        for guest in room.live():
            # All but those that have published, or joined a moment ago, get the same bytes, and little else is done for each.
            if guest.given < first and guest not in publishers and guest.link.room_messages(told):
                guest.given = told.upto
                alike += 1
            else:
                self._tell(guest, told.shown)
        self.counts.deliveries += alike * len(entries)
        self.counts.told(entries, self._context.now_ms())

    def _tell(self, guest: Guest, shown: Sequence[Shown]) -> None:
        own: Entry | None = None
        for one in shown:
            entry = one.entry
            if entry.position <= guest.given:
                continue
            # What a member has published over HTTP has no seq, and it is told of it as the others are.
            if entry.member == guest.name and entry.publication.seq:
                own = entry
            else:
                if own is not None:
                    self.tell_published(guest, own.publication.seq, own.position)
                    own = None
                if not guest.link.conn.room:
                    self.slow(guest)
                    return
                guest.link.room_message(guest.session.id, one)
                self.counts.deliveries += 1
            guest.given = entry.position
        if own is not None:
            self.tell_published(guest, own.publication.seq, own.position)

    def tell_published(self, guest: Guest, seq: int, position: int) -> None:
        """Tell a member how far its publications are stored."""
        guest.link.room_published(guest.session.id, guest.room.shown, seq, position)

    def slow(self, guest: Guest) -> None:
        """A member does not take what is published as fast as it comes."""
        guest.state = State.SLOW
        self.counts.slow += 1
        guest.link.room_left(guest.session.id, guest.room.shown, SLOW)

    # --- presence ---------------------------------------------------------------------------------------------------

    def _tell_soon(self, room: RoomHere) -> None:
        if not room.roll.untold:
            return
        if trio.current_time() - room.told_at >= interval_s(room.roll.count):
            self._tell_roll(room)
        else:
            self._wait(room)

    def _wait(self, room: RoomHere) -> None:
        self._waiting[room.name] = room
        self._work.set()

    def _tell_roll(self, room: RoomHere) -> None:
        """Tell the live members who has come, changed his presence, and left."""
        room.told_at = trio.current_time()
        roll, whole = room.roll, room.roll.came(room.shown)
        for guest in room.live():
            came = whole if guest.since <= roll.told_upto else roll.came(room.shown, guest.since)
            guest.since = roll.news
            if came and not _is_only(guest.name, came):
                if guest.link.conn.room:
                    guest.link.room_presence(guest.session.id, came)
                else:
                    self.slow(guest)
        roll.told()

    def say(self, guest: Guest, presence: bytes) -> None:
        """A member says what others see of it: the store is told as soon as it may be."""
        guest.presence = presence
        if guest.seated and not guest.telling and trio.current_time() >= guest.presence_from:
            self._store_presence(guest)
        else:
            self._wait(guest.room)

    def _store_presence(self, guest: Guest) -> None:
        presence, guest.presence = guest.presence, None
        if presence is None:
            return
        room = guest.room
        guest.presence_from = trio.current_time() + interval_s(room.roll.count)
        guest.telling = True
        op = SetPresence(room.name, guest.name, self._context.node, guest.epoch, presence, guest.presence_turn)
        self._context.committer.submit(op, partial(self._presence_told, guest))

    def _presence_told(self, guest: Guest, result: Result) -> None:
        guest.telling = False
        if isinstance(result, PresenceSet | PresenceOld):
            guest.presence_turn = result.turn
        if isinstance(result, PresenceOld) and guest.presence is None:
            # What is kept was stored twice, and the second time behind what the member has said since.
            guest.presence = guest.said
        if guest.presence is not None and not guest.gone:
            self._wait(guest.room)
        # A member that has lost its seat hears of it with its next publication, or with the look.
        self.look(guest.room.name)

    async def run(self) -> None:
        """Tell members who is here, and the store their presences, at the pace of their rooms. Runs until cancelled."""
        while True:
            await self._work.wait()
            await trio.sleep(INTERVAL_S)
            self._work = trio.Event()
            waiting, self._waiting = self._waiting, {}
            for room in waiting.values():
                self._go_on(room)
            self._context.writes.flush()

    def _go_on(self, room: RoomHere) -> None:
        now = trio.current_time()
        if self.rooms.get(room.name) is not room:
            return
        self._tell_soon(room)
        for guest in list(room.guests.values()):
            if guest.presence is not None and not guest.telling:
                if guest.seated and now >= guest.presence_from:
                    self._store_presence(guest)
                else:
                    self._wait(room)


def _is_only(name: str, came: Came) -> bool:
    """Tell whether `came` is about this member alone."""
    return not came.left and {one for one, _ in (*came.joined, *came.changed)} == {name}
