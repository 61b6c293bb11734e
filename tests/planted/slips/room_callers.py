"""Slips in the rights in rooms, and in rooms over HTTP: named tests notice them, because the simulation shows no credentials."""

from tests.planted.bug import Bug

_NAMES = "signald/core/room_names.py"
_RIGHTS = "signald/service/rooms/rights.py"
_API = "signald/service/api/rooms.py"
_STATES = "signald/service/api/room_states.py"
_HTTP = "signald/http/api/rooms.py"
_TOKENS = "signald/service/api_tokens.py"
_HALL = "signald/service/rooms/hall.py"

_OF_NAMES = ("tests/core/test_room_names.py",)
_OF_RIGHTS = ("tests/service/rooms/test_rights.py",)
_OF_API = ("tests/service/api/test_rooms.py",)

RIGHTS = (
    Bug(
        "tenants-share-rooms",
        _NAMES,
        "of_principal",
        "stored_name(room, tenant_of(principal))",
        "stored_name(room, None)",
        "nobody-hurts",
        "Two tenants that give a room the same name read each other.",
        _OF_NAMES,
    ),
    Bug(
        "empty-claim-is-none",
        _RIGHTS,
        "_patterns",
        "claim if claim is not None else",
        "claim or",
        "nobody-hurts",
        "A credential that allows nothing gets what one without the claim has.",
        _OF_RIGHTS,
    ),
    Bug(
        "claim-before-the-core-server",
        _RIGHTS,
        "_patterns",
        "if answered:",
        "if answered and claim is None:",
        "nobody-hurts",
        "What the core server takes away stays allowed.",
        _OF_RIGHTS,
    ),
    Bug(
        "claim-opens-rooms-of-users",
        _RIGHTS,
        "Rights.of",
        "return MEMBER if room == self.own else NO_RIGHTS",
        "return MEMBER if room == self.own else rights_in(self.patterns, room)",
        "nobody-hurts",
        "A party with a wide claim reads and writes what a backend says to other users.",
        _OF_RIGHTS,
    ),
    Bug(
        "api-token-forgets-an-empty-claim",
        _TOKENS,
        "ApiTokens.issue",
        "rooms is not None:",
        "rooms:",
        "nobody-hurts",
        "Over HTTP a party has rights that its credential denies.",
        _OF_RIGHTS,
    ),
)

OVER_HTTP = (
    Bug(
        "records-need-publish-only",
        _API,
        "HttpRooms.post",
        "if publication.body else",
        "if True else",
        "nobody-hurts",
        "A party that may only chat changes the records of a canvas.",
        _OF_API,
    ),
    Bug(
        "party-speaks-as-a-service",
        _API,
        "HttpRooms.post",
        "context.now_ms(), place.author",
        'context.now_ms(), ""',
        "nobody-hurts",
        "What a party publishes over HTTP looks like a word of the backend.",
        _OF_API,
    ),
    Bug(
        "callers-share-a-key",
        _HTTP,
        "_digests",
        "caller.payer, asking.session, key",
        '"", asking.session, key',
        "exactly-once",
        "A publication is lost because another caller has used the same idempotency key.",
        _OF_API,
    ),
    Bug(
        "key-of-any-content",
        "signald/store/room/rules.py",
        "post",
        "if content == op.content else Refused('key_taken')",
        "if True else Refused('key_taken')",
        "exactly-once",
        "A backend that uses a key again by mistake is told that its second notice is stored, and it is lost.",
        _OF_API,
    ),
    Bug(
        "scope-users-is-rooms",
        _HTTP,
        "_asked",
        "if is_of_user(room) else",
        "if False else",
        "nobody-hurts",
        "A backend that may only use rooms speaks to each user.",
        _OF_API,
    ),
    Bug(
        "place-of-a-reader-kept",
        _STATES,
        "RoomStates._held",
        "self.bytes_held -= half.size",
        "self.bytes_held -= 0",
        "bounded",
        "After some readers of records each further one is refused.",
        _OF_API,
    ),
    Bug(
        "author-over-http-is-not-told",
        _HALL,
        "Hall._tell",
        "entry.member == guest.name and entry.publication.seq",
        "entry.member == guest.name",
        "exactly-once",
        "A member that publishes over HTTP is not told of it, and counts it as one of its connection.",
        _OF_API,
    ),
)

ROOM_CALLERS = (*RIGHTS, *OVER_HTTP)
