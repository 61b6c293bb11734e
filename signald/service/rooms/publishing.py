"""The way of a publication: offered by a member, stored, told to the others, `published` to the member. In that order, always.

    frames ▸ offer() ▸ settle() ▸ Publish ▸ _stored() ▸ Hall.deliver() ▸ the other members here
                                                                     ▸ `published`

One step of each member is under way, and what it publishes meanwhile goes with the next one. Where nobody else has published since this
node knew of the room, the node tells the others what it has sent to the store itself; else it looks what is to be told first.
"""

from functools import partial

from signald.core.rooms import Entry, Offer
from signald.service.context import Context
from signald.service.rooms.bounds import bounds_of
from signald.service.rooms.counts import GAP
from signald.service.rooms.folding import Folding
from signald.service.rooms.guest import Guest, State
from signald.service.rooms.hall import Hall
from signald.store.base import Behind, Result
from signald.store.room.ops import NotMember, Publish, Published

STEP_MAX = 64
"""Publications of one step. A script stores them in a good millisecond, for which it holds up all others of its server. Of a longer burst
the store has one step while the node tells of the one before it."""


class Publishing:
    """See the module."""

    def __init__(self, context: Context, hall: Hall, folding: Folding) -> None:
        self._context = context
        self._hall = hall
        self._folding = folding
        self._touched: dict[Guest, None] = {}

    def offer(self, guest: Guest, offer: Offer) -> None:
        """Take one publication of a member; `settle_all` must follow when the batch is through."""
        seq = offer.publication.seq
        if guest.expected and seq < guest.expected:
            # Stored already: say so again, the first word may have been lost. Only waiting: its word is on the way.
            if seq <= guest.stored and guest.state is not State.JOINING:
                self._hall.tell_published(guest, guest.stored, guest.stored_at)
        elif guest.expected and (seq > guest.expected or not guest.may_wait):
            self._gap(guest, seq, guest.expected)
        else:
            guest.offer(offer)
            self._touched[guest] = None

    def settle_all(self) -> None:
        """Hand to the store what the members of this batch have offered."""
        if self._touched:
            touched, self._touched = self._touched, {}
            for guest in touched:
                self.settle(guest)

    def seated(self, guest: Guest) -> None:
        """A member has its seat, and knows its next seq: go on with what it has offered before it knew."""
        expected = guest.stored + 1
        waiting = [offer for offer in guest.take() if offer.publication.seq >= expected]
        guest.expected = expected
        for offer in waiting:
            self.offer(guest, offer)
        self._touched.pop(guest, None)
        self.settle(guest)

    def settle(self, guest: Guest) -> None:
        """Hand to the store what a member has offered, unless a step of it is under way: its answer does it then."""
        if guest.gone or guest.in_flight or not guest.seated or not guest.offers:
            return
        guest.in_flight = True
        context, offers = self._context, guest.take(STEP_MAX)
        now_ms = context.now_ms()
        op = Publish(
            guest.room.name, guest.name, context.node, guest.epoch, offers, bounds_of(context.config.rooms), now_ms
        )
        context.committer.submit(op, partial(self._stored, guest, offers, now_ms))

    def _stored(self, guest: Guest, offers: tuple[Offer, ...], now_ms: int, result: Result) -> None:
        guest.in_flight = False
        room = guest.room
        if not isinstance(result, Published):
            if isinstance(result, NotMember | Behind) and not guest.gone and guest.state is not State.JOINING:
                # The store has lost its seat. It is told its next seq, and sends again what is not stored.
                guest.forget()
                self._hall.lost(guest)
            return
        fault_of = dict(result.refused)
        new = [
            offer.publication
            for offer in offers
            if guest.stored < offer.publication.seq <= result.seq and offer.publication.seq not in fault_of
        ]
        self._hall.counts.published(result, len(new))
        first = result.position - len(new) + 1
        entries = [Entry(first + place, guest.name, now_ms, said) for place, said in enumerate(new)]
        if entries:
            self._folding.stored(room, entries)
        if guest.gone:
            self._hall.look(room.name)  # the others here are not woken by what this node has stored
            return
        for seq, fault in result.refused:
            guest.link.room_refused(guest.session.id, room.shown, seq, fault)
        if result.seq < guest.stored:
            self._hall.look(room.name)  # the store has lost publications that it had taken
        guest.stored, guest.stored_at = max(guest.stored, result.seq), result.position
        if entries and room.known and room.position == first - 1 and not self._hall.doubts(room):
            self._hall.deliver(room, entries)
        elif entries:
            self._hall.look(room.name)
        slow = guest.state is State.SLOW
        stored_before = guest.state is State.LIVE and not entries and len(fault_of) < len(offers)
        if slow or stored_before:
            # It hears of them in no order with others'. One that joins again hears of them by its next seq.
            self._hall.tell_published(guest, result.seq, result.position)
        if result.expected:
            behind = [offer.publication.seq for offer in offers if offer.publication.seq > result.seq]
            guest.forget()
            self._gap(guest, behind[0] if behind else result.expected, result.expected)
            guest.expected = result.expected
        else:
            self.settle(guest)

    def _gap(self, guest: Guest, seq: int, expected: int) -> None:
        self._hall.counts.publications[GAP] += 1
        guest.link.room_refused(guest.session.id, guest.room.shown, seq, "gap", expected)
