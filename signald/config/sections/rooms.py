"""The section `[rooms]`."""

import attrs

from signald.config.keys import key


@attrs.frozen
class RoomsConfig:
    """Rooms: what one may hold, how long it is kept, and what a party without the claim `rooms` may do."""

    members_max: int = key(
        1000,
        "Members of one room; a join beyond it is refused. A publication is written to each, which takes a node some milliseconds.",
        unit="members",
        at_least=1,
        at_most=100_000,
        reload=True,
    )
    records_max: int = key(
        10_000,
        "Records of one room; a publication that would make more is refused. A large drawing has a few thousand shapes.",
        unit="records",
        at_least=1,
        at_most=100_000,
        reload=True,
    )
    record_bytes_max: int = key(
        65_536,
        "Largest record, with its id. A joiner gets it in one frame, so it is never more than 64 KiB. Media are blobs.",
        unit="bytes",
        at_least=256,
        at_most=65_536,
        reload=True,
    )
    room_bytes_max: int = key(
        8_388_608,
        "All that a room holds beside its log: records, the snapshot, and the updates behind it. A joiner gets all of it.",
        unit="bytes",
        at_least=65_536,
        at_most=67_108_864,
        reload=True,
    )
    history_messages_max: int = key(
        1000,
        "Publications of one room that are kept for members that come back. Three quarters of a minute at the rate of a client.",
        unit="messages",
        at_least=1,
        at_most=100_000,
        reload=True,
    )
    history_bytes_max: int = key(
        4_194_304,
        "The same, counted in bytes: a thousand of 4 KiB.",
        unit="bytes",
        at_least=65_536,
        at_most=67_108_864,
        reload=True,
    )
    tombstones_max: int = key(
        1000,
        "Removed records that are remembered, so that a member that comes back gets what has changed, and not all records anew.",
        unit="records",
        at_least=0,
        at_most=100_000,
        reload=True,
    )
    keep_s: float = key(
        86_400.0,
        "How long a room without members is kept, if something was published in it: a day, in which a program can save its content.",
        unit="seconds",
        at_least=1,
        at_most=31_536_000,
        reload=True,
    )
    owned_max: int = key(
        200,
        "Rooms that clients of one principal (an anonymous one: of one address) have made and that are still kept; a join that would make "
        "another is refused. Three sessions in 64 rooms each. Each takes up to room_bytes_max and history_bytes_max.",
        unit="rooms",
        at_least=1,
        at_most=1_000_000,
        reload=True,
    )
    rooms_max: int = key(
        50_000,
        "Rooms of all nodes; a further one is not made. As many as sessions by default. One service or worker may have made "
        "admission.address_share of them.",
        unit="rooms",
        at_least=1,
        at_most=10_000_000,
        reload=True,
    )
    default_rights: tuple[str, ...] = key(
        (),
        "What a party may do in every room whose token has no claim rooms, and which the core server gives none either: join, publish, "
        "state. Empty: nothing. Without auth everything is allowed.",
        reload=True,
    )
