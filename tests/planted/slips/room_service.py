"""Slips in how a node serves rooms: what members are told, in which order, and what becomes of their seats."""

from tests.planted.bug import Bug

_HALL = "signald/service/rooms/hall.py"
_JOINING = "signald/service/rooms/joining.py"
_PUBLISHING = "signald/service/rooms/publishing.py"

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
        ("tests/service/rooms/test_rooms.py::test_records_are_told_at_a_position",),
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
        "floor-of-the-log-not-seen",
        _HALL,
        "Hall._take",
        "is_dense(entries, after, result.upto)",
        "is_dense(entries, max(after, result.floor), result.upto)",
        _ORDER,
        "Members of a node that looks too late are told what is kept, behind a hole.",
    ),
)
