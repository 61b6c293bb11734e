"""What parties of sessions ask of rooms: to join, publish, say their presence, fold updates, and leave; and what becomes of it with them.

A party that resumes names its rooms, and is a member of them again behind the answer to its claim. One whose connection is gone is
forgotten here without a word: its seat stays in the store, and others see it as before. It is taken when the party leaves, or when its
session ends.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import structlog
from msgspec import Raw

from signald.core.head import Party
from signald.core.room_names import of_principal, room_of_user, shown_name
from signald.core.rooms import Right, is_room
from signald.service.attached import LiveSession, PartyLink
from signald.service.context import Context
from signald.service.events import PartyReleased, RightsChanged, SessionGone
from signald.service.rooms.bounds import bounds_of
from signald.service.rooms.casting import Casting
from signald.service.rooms.folding import Folding
from signald.service.rooms.guest import Guest, member_name
from signald.service.rooms.hall import Hall
from signald.service.rooms.joining import Joining, Request
from signald.service.rooms.making import Making
from signald.service.rooms.offers import offer_of, refused
from signald.service.rooms.publishing import Publishing
from signald.service.rooms.rights import rights_of
from signald.service.rooms.sweeping import RoomSweeps
from signald.store.base import Fenced, Result
from signald.store.room.ops import DropMembers, LeaveRoom, RoomOver
from signald.wire.fields import NO_DATA
from signald.wire.rooms import PRESENCE_BYTES_MAX, ROOMS_MAX, Join, Publish, RoomPosition

log = structlog.get_logger(__name__)

DEPARTED_MAX = 10_000
"""Sessions without a party here whose rooms are remembered, so that their seats are taken when they end: some minutes at a busy node."""


class RoomDesk:
    """See the module."""

    def __init__(self, context: Context, is_store_in_doubt: Callable[[], bool]) -> None:
        """`is_store_in_doubt` tells whether the store has shown lately that it may have lost something."""
        self._context = context
        self.hall = Hall(context)
        self.casting = Casting(context, self.hall)
        self.sweeps = RoomSweeps(context, self.hall.members_of)
        self.making = Making(context, self.hall.counts.not_made)
        self._joining = Joining(context, self.hall, self.making, self._stay_out, is_store_in_doubt)
        self._folding = Folding(context)
        self._publishing = Publishing(context, self.hall, self._folding)
        self.hall.lost = self._again
        self.hall.followed = self.sweeps.watch
        self._joining.live = self._publishing.seated
        self._of: dict[tuple[str, Party], dict[str, Guest]] = {}
        """Party → its rooms."""
        self._departed: dict[str, dict[str, None]] = {}
        """Session without a party here → the rooms that it was in."""
        context.events.subscribe(PartyReleased, self._released)
        context.events.subscribe(SessionGone, self._ended)
        context.events.subscribe(RightsChanged, self._rights_changed)

    # --- what a party says ------------------------------------------------------------------------------------------

    def join(self, session: LiveSession, party: Party, said: Join) -> None:
        """A party joins a room, or joins it again."""
        presence = None if said.presence is NO_DATA else bytes(said.presence)
        request = Request(said.received, said.epoch, presence, said.state, said.history)
        why = self._why_not(session, party, said.room)
        if not why and presence is not None and len(presence) > PRESENCE_BYTES_MAX:
            why = "too_big"
        if why == "forbidden":
            self._put_out(session, party, said.room)
        elif why:
            self._refuse(session, party, said.room, why)
        else:
            self._enter(session, party, said.room, request)

    def _why_not(self, session: LiveSession, party: Party, room: str) -> str:
        if not is_room(room):
            return "bad_name"
        if "join" not in self._rights(session, party, room):
            return "forbidden"
        mine = self._of.get((session.id, party), {})
        is_new = of_principal(room, session.principal) not in mine
        return "too_many" if is_new and len(mine) >= ROOMS_MAX else ""

    def _refuse(self, session: LiveSession, party: Party, room: str, why: str) -> None:
        link = session.side(party).link
        if link is not None:
            link.room_left(session.id, room, why)

    def _rights(self, session: LiveSession, party: Party, room: str) -> frozenset[Right]:
        return rights_of(self._context.config, session, party).of(room)

    def _guest(self, session: LiveSession, party: Party, room: str) -> Guest | None:
        return self.hall.guest(session.id, party, of_principal(room, session.principal))

    def _enter(self, session: LiveSession, party: Party, room: str, request: Request) -> None:
        link = session.side(party).link
        if link is None:
            return
        guest = self._guest(session, party, room)
        if guest is None or guest.link is not link:
            if guest is not None:
                self.hall.remove(guest)
            stored = of_principal(room, session.principal)
            here = self.hall.enter(stored)
            guest = here.guests[member_name(session.id, party)] = Guest(here, session, party, link)
            self._of.setdefault((session.id, party), {})[here.name] = guest
        self._joining.begin(guest, request)

    def publish(
        self, session: LiveSession, party: Party, said: Publish, binary: bytes | None, *, in_rate: bool = True
    ) -> None:
        """Take one publication; `settle` must follow when the batch is through. `in_rate`: the party is not over its rate."""
        guest = self._guest(session, party, said.room)
        if guest is None:
            link = session.side(party).link
            if link is not None:
                link.room_refused(session.id, said.room, said.seq, "forbidden")
        elif in_rate:
            self._publishing.offer(guest, offer_of(said, binary, self._rights(session, party, said.room)))
        else:
            self._publishing.offer(guest, refused(said.seq, "rate"))

    def settle(self) -> None:
        """Hand to the store what was published in this batch."""
        self._publishing.settle_all()

    def presence(self, session: LiveSession, party: Party, room: str, said: Raw) -> bool:
        """A party says what others see of it; False when that is too long."""
        presence = bytes(said)
        if len(presence) > PRESENCE_BYTES_MAX:
            return False
        guest = self._guest(session, party, room)
        if guest is not None:
            guest.said = presence
            self.hall.say(guest, presence)
        return True

    def snapshot(self, session: LiveSession, party: Party, room: str, position: int, body: bytes) -> None:
        """A party folds all updates up to `position`. One that is not taken costs nothing: the updates stay."""
        guest = self._guest(session, party, room)
        if guest is not None and guest.seated and "publish" in self._rights(session, party, room):
            self._folding.offered(guest, position, body)

    def leave(self, session: LiveSession, party: Party, room: str) -> None:
        """A party leaves a room. It is told when the store has taken its seat; nothing of the room comes from now on.

        One that is no member here may have its seat from an earlier connection, on which its `leave` was lost.
        """
        link = session.side(party).link
        guest = self._guest(session, party, room)
        if link is None:
            return
        if not is_room(room):
            link.room_left(session.id, room, "left")
            return
        if guest is not None:
            self._publishing.settle(guest)  # what it has said in front of this, also in the same read
            self._forget(guest)
        stored = of_principal(room, session.principal)
        self._take_seat(session, party, stored, partial(self._has_left, link, session.id, stored))

    def _take_seat(self, session: LiveSession, party: Party, stored: str, then: Callable[[Result], None]) -> None:
        context = self._context
        member, epoch = member_name(session.id, party), session.side(party).epoch
        op = LeaveRoom(stored, member, context.node, epoch, self._keep_ms, context.now_ms())
        context.committer.submit(op, then)

    def _has_left(self, link: PartyLink, session: str, room: str, result: Result) -> None:
        self._dropped(room, result)
        # Fenced: it has its seat at another connection, and this one is about to be released.
        if not link.over and not isinstance(result, Fenced):
            link.room_left(session, shown_name(room), "left")

    # --- what a party may not any more -------------------------------------------------------------------------------

    def review(self) -> None:
        """The configuration has changed: members that may not be in their room by it are put out."""
        for (session, party), mine in list(self._of.items()):
            self._review(session, party, mine)

    def _rights_changed(self, event: RightsChanged) -> None:
        for session in event.sessions:
            self._review(session, event.party, self._of.get((session, event.party), {}))

    def _review(self, session: str, party: Party, mine: Mapping[str, Guest]) -> None:
        for guest in list(mine.values()):
            if "join" not in self._rights(guest.session, party, guest.room.shown):
                log.info("room_forbidden", room=guest.room.name, session=session, party=party)
                self._put_out(guest.session, party, guest.room.shown)

    def _put_out(self, session: LiveSession, party: Party, room: str) -> None:
        """A party may not be in a room. It may have a seat there, from here or from an earlier connection: that is taken."""
        guest, stored = self._guest(session, party, room), of_principal(room, session.principal)
        if guest is not None:
            self._forget(guest)
        self._refuse(session, party, room, "forbidden")
        self._take_seat(session, party, stored, partial(self._dropped, stored))

    # --- what becomes of a party ------------------------------------------------------------------------------------

    def resume(self, session: LiveSession, party: Party, positions: Sequence[RoomPosition]) -> None:
        """A party has resumed here, and was answered: it is a member again of the rooms that it names."""
        for one in positions:
            why = self._why_not(session, party, one.room)
            if why == "forbidden":
                self._put_out(session, party, one.room)
            elif why:
                self._refuse(session, party, one.room, why)
            else:
                self._enter(session, party, one.room, Request(one.received, one.epoch, None, one.state))

    def greet(self, session: LiveSession) -> None:
        """A client of a subject was answered: it joins the room of its user unasked, unless it has named that."""
        room = room_of_user(session.principal)
        if room and self._guest(session, "client", room) is None:
            self._enter(session, "client", room, Request())

    def has_room(self, link: PartyLink) -> None:
        """The send queue of `link` has room again."""
        self._joining.has_room(link)

    def rooms_of(self, session: str) -> list[str]:
        """Return the rooms in which a session is here, by name."""
        parties: tuple[Party, Party] = ("client", "worker")
        return sorted({shown_name(room) for party in parties for room in self._of.get((session, party), {})})

    def look(self, room: str) -> None:
        """Something is new in `room`, by the name that the store knows: tell its members here."""
        self.hall.look(room)

    @property
    def _keep_ms(self) -> int:
        return bounds_of(self._context.config.rooms).keep_ms

    def _stay_out(self, guest: Guest, reason: str) -> None:
        """A party does not come in, for the reason that it is told; empty: it is told nothing."""
        self._forget(guest)
        if reason:
            guest.link.room_left(guest.session.id, guest.room.shown, reason)

    def _again(self, guest: Guest) -> None:
        """The store has lost the seat of a member, or the room: it joins again with what it knows, and is told anew."""
        request = Request(guest.given, guest.room.epoch, guest.said or None, guest.wants_state, is_lost=True)
        self._joining.begin(guest, request)

    def _forget(self, guest: Guest) -> None:
        self.hall.remove(guest)
        key = guest.session.id, guest.party
        mine = self._of.get(key, {})
        if mine.get(guest.room.name) is guest:
            del mine[guest.room.name]
        if not mine:
            self._of.pop(key, None)

    def _released(self, event: PartyReleased) -> None:
        """A party is here no more: its rooms forget it without a word."""
        mine = self._of.pop((event.session, event.party), {})
        for guest in mine.values():
            self.hall.remove(guest)
            self._joining.has_room(guest.link)
        if mine:
            known = self._departed.pop(event.session, {})
            self._departed[event.session] = known | dict.fromkeys(mine)
            if len(self._departed) > DEPARTED_MAX:
                del self._departed[next(iter(self._departed))]

    def _ended(self, event: SessionGone) -> None:
        """A session is over: its seats are taken."""
        context, name = self._context, event.session
        rooms = self._departed.pop(name, {})
        if not event.held:
            # Its node is gone, and this one has found its end: it may be a member of any room here.
            rooms |= dict.fromkeys(self.hall.rooms_with(name))
        for room in rooms:
            op = DropMembers(room, name, context.node, self._keep_ms, context.now_ms())
            context.committer.submit(op, partial(self._dropped, room))

    def _dropped(self, room: str, result: Result) -> None:
        self.hall.look(room)
        if isinstance(result, RoomOver):
            self.sweeps.poke(room)
