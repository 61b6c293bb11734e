"""A room at this node, and a member of it here: a party of a session, on its connection.

    JOINING ──everything up to the room's position is sent──▸ LIVE ──its send queue is full──▸ SLOW
       ▲                                                        │                                │
       └──────────── it joins again, or the store has lost its seat ─────────────────────────────┘

A member that is joining reads for itself what it has missed. One that is live gets what its room at this node hears of. One that is slow
gets nothing until it joins again; its seat is good, so what it publishes is stored.
"""

from collections.abc import Iterator
from enum import Enum
from math import inf

from signald.core.head import Party
from signald.core.once_more import OnceMore
from signald.core.room_names import shown_name
from signald.core.rooms import NO_RIGHTS, Entry, Offer, Right
from signald.service.attached import LiveSession, PartyLink
from signald.service.rooms.presence import Roll

WAITING_MAX = 500
"""Publications of one member that wait for those before them: five bursts of a client. They go to the store in steps (`publishing`)."""

WAITING_BYTES_MAX = 1 << 20
"""The same in bytes: sixteen of the largest messages. One more always may wait, so that each can be published."""


Mark = tuple[int, str, int, int]
"""By what an entry of the log is known again: position, author, time, seq. Another one in its place is of a later time."""


def mark_of(entry: Entry) -> Mark:
    """Return the mark of `entry`."""
    return entry.position, entry.member, entry.at_ms, entry.publication.seq


class State(Enum):
    """How far a member is in its room."""

    JOINING = "joining"
    LIVE = "live"
    SLOW = "slow"


class Guest:
    """See the module."""

    __slots__ = (
        "epoch", "expected", "given", "gone", "grounds", "in_flight", "joins", "link", "name", "offers", "party", "presence",
        "presence_from", "presence_turn", "rights", "room", "said", "seated", "session", "since", "size", "state", "stored",
        "stored_at", "telling", "wants_state",
    )  # fmt: skip

    def __init__(self, room: "RoomHere", session: LiveSession, party: Party, link: PartyLink) -> None:
        self.room = room
        self.session = session
        self.party = party
        self.link = link
        self.name = member_name(session.id, party)
        self.epoch = session.side(party).epoch
        """Of its connection, under which it has its seat."""
        self.state = State.JOINING
        self.joins = 0
        """How often it has asked to join: an earlier answer is not told any more."""
        self.seated = False
        """It has its seat, and knows from which seq on it publishes."""
        self.gone = False
        """It is no member here any more."""
        self.given = 0
        """The position up to which it has been told everything."""
        self.since = 0
        """The change of the roll up to which it has been told everything."""
        self.stored = 0
        """Its last seq that is stored or refused."""
        self.stored_at = 0
        """The position of its last publication that is stored."""
        self.expected = 0
        """Its next seq; 0: not known yet."""
        self.offers: list[Offer] = []
        """What waits for the store, in order of seq."""
        self.size = 0
        """Bytes of it."""
        self.in_flight = False
        """The store is being told of some."""
        self.wants_state = False
        self.grounds: tuple[object, object, object] | None = None
        """What its rights were found by; None: they are not known."""
        self.rights: frozenset[Right] = NO_RIGHTS
        self.said = b""
        """What others see of it, as far as it has said that here."""
        self.presence: bytes | None = None
        """What is to be told to the store as soon as it may; None: nothing."""
        self.presence_from = 0.0
        """When it may (trio time)."""
        self.presence_turn = 0
        """A turn of the room behind which its presence has not changed; 0: not known."""
        self.telling = False
        """The store is being told of one: the turn of that tells whether the next one is a late repetition."""

    def __repr__(self) -> str:
        return f"<Guest {self.name} {self.state.value} in {self.room.name}>"

    @property
    def may_wait(self) -> bool:
        """Tell whether one more publication may wait."""
        return len(self.offers) < WAITING_MAX and self.size < WAITING_BYTES_MAX

    def offer(self, offer: Offer) -> None:
        """Have a publication wait."""
        self.offers.append(offer)
        self.size += offer.publication.size
        self.expected = offer.publication.seq + 1

    def take(self, most: int = WAITING_MAX) -> tuple[Offer, ...]:
        """Take what waits, `most` of it at most, for one step in the store."""
        offers = tuple(self.offers[:most])
        if len(offers) == len(self.offers):
            self.forget()
        else:
            del self.offers[:most]
            self.size -= sum([offer.publication.size for offer in offers])
        return offers

    def forget(self) -> None:
        """Drop what waits."""
        self.offers.clear()
        self.size = 0


class RoomHere:
    """A room with members at this node."""

    __slots__ = (
        "epoch", "fold_at", "folding", "guests", "known", "last", "lives", "looks", "name", "position", "roll", "shown", "told",
        "told_at", "turn",
    )  # fmt: skip

    def __init__(self, name: str) -> None:
        self.name = name
        """By which the store knows it."""
        self.shown = shown_name(name)
        """As its members say it."""
        self.guests: dict[str, Guest] = {}
        """By member."""
        self.known = False
        """The store has told who is here, and how far the room is."""
        self.epoch = ""
        self.position = 0
        """Live members were told everything up to here."""
        self.last: Mark | None = None
        """What stood at that position; None: not known."""
        self.lives = 0
        """`Store.lives` when the log was last known to have that."""
        self.told = 0
        """A position beyond the room's, once its log is found to have lost what its members were told; 0: it is not."""
        self.turn = 0
        """The roll stands here."""
        self.roll = Roll()
        self.looks = OnceMore()
        self.fold_at = 0.0
        """The position from which on the updates are to be folded, as far as this node knows."""
        self.folding = False
        """The updates are being folded, or a party's snapshot is judged."""
        self.told_at = -inf
        """When its members were last told who is here (trio time)."""

    def live(self) -> Iterator[Guest]:
        """Yield the members that get what this node hears of."""
        return iter([guest for guest in self.guests.values() if guest.state is State.LIVE])


def member_name(session: str, party: Party) -> str:
    """Return what a party of a session is called in rooms."""
    return session if party == "client" else f"{session}/worker"
