"""Slips in how a node serves rooms: what members are told, in which order, and what becomes of their seats."""

from tests.planted.bug import Bug

_DESK = "signald/service/rooms/desk.py"
_HALL = "signald/service/rooms/hall.py"
_JOINING = "signald/service/rooms/joining.py"
_PRESENCE = "signald/service/rooms/presence.py"
_PUBLISHING = "signald/service/rooms/publishing.py"
_SWEEPING = "signald/service/rooms/sweeping.py"

_ORDER = "room-order"

ROOM_SERVICE: tuple[Bug, ...] = (
    Bug(
        "own-publication-told-over-a-hole",
        _PUBLISHING,
        "Publishing._stored",
        "room.known and (room.position == first - 1)",
        "room.known",
        _ORDER,
        "A node tells its members of what one of them has published, and skips what others have published in front of it.",
    ),
    Bug(
        "published-told-while-joining-again",
        _PUBLISHING,
        "Publishing._stored",
        "slow = guest.state is State.SLOW",
        "slow = guest.state is not State.LIVE",
        _ORDER,
        "A member that the node has join again is told of its publications ahead of others' that it has not.",
    ),
    Bug(
        "waiting-publication-dropped-at-the-seat",
        _PUBLISHING,
        "Publishing.seated",
        "offer.publication.seq >= expected",
        "offer.publication.seq > expected + 1",
        _ORDER,
        "What a member has published before its node knew its seat is dropped without a word.",
    ),
    Bug(
        "replay-left-out",
        _JOINING,
        "Joining._answer",
        "request.received if joined.recovered else picture.position",
        "picture.position",
        _ORDER,
        "A member that comes back is told that it has missed nothing, and is not told what it has missed.",
    ),
    Bug(
        "removals-not-told-at-a-join",
        _JOINING,
        "Joining._read_records",
        "{} if picture.wipe else removed",
        "{}",
        _ORDER,
        "A record that was removed meanwhile stays at a member that comes back.",
    ),
    Bug(
        "joiner-no-member-of-its-room",
        _JOINING,
        "Joining._members",
        "members[guest.name] = guest.said",
        "pass",
        _ORDER,
        "The first list of a member is without itself when its node has not heard of it yet.",
    ),
    Bug(
        "came-during-a-join-not-told",
        _JOINING,
        "Joining._go_live",
        "if came:",
        "if came and came.changed:",
        _ORDER,
        "Who came while a member joined is never told to it.",
    ),
    Bug(
        "came-told-once-more",
        _HALL,
        "Hall._tell_roll",
        "whole if guest.since <= roll.told_upto else",
        "whole if guest.since <= roll.news else",
        _ORDER,
        "A member that has joined since the last telling is told of those that it knows.",
    ),
    Bug(
        "publication-told-twice",
        _HALL,
        "Hall._tell",
        "entry.position <= guest.given",
        "entry.position < guest.given",
        _ORDER,
        "A member that has read ahead of its room at this node gets the last publication again.",
    ),
    Bug(
        "look-takes-what-was-told",
        _HALL,
        "Hall._take",
        "if entry.position > room.position",
        "if entry.position > after",
        _ORDER,
        "What was told while a look was under way is told again by the look, and the room of the node goes back.",
    ),
    Bug(
        "floor-of-the-log-not-seen",
        _HALL,
        "Hall._take",
        "is_dense(result.entries, after, result.upto)",
        "is_dense(result.entries, max(after, result.floor), result.upto)",
        _ORDER,
        "Members of a node that looks too late are told what is kept, behind a hole.",
    ),
    Bug(
        "leave-of-another-connection-forgotten",
        _DESK,
        "RoomDesk._has_left",
        "if not link.over and (not isinstance(result, Fenced)):",
        "if not link.over:",
        _ORDER,
        "A member whose leave was refused is told that it has left.",
    ),
    Bug(
        "presence-left-for-later-is-forgotten",
        _HALL,
        "Hall._go_on",
        "self._wait(room)",
        "pass",
        _ORDER,
        "A presence that came too soon behind the last one is never told.",
    ),
    Bug(
        "departure-of-a-changed-member-not-told",
        _PRESENCE,
        "Roll._put",
        "self._untold[name] = (self.news, was_known)",
        "self._untold[name] = (self.news, was_known and presence is not None)",
        _ORDER,
        "A member that has left stays in the list of the others.",
    ),
    Bug(
        "seats-of-the-living-taken",
        _SWEEPING,
        "RoomSweeps._take_seats",
        "isinstance(looked, NoSession)",
        "not isinstance(looked, NoSession)",
        _ORDER,
        "The sweep of a room takes the seats of sessions that live, and leaves those of sessions that have ended.",
    ),
)
