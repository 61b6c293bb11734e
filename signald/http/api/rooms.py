"""Rooms over HTTP: shown, read, published in, and their records changed. See `docs/http.md`.

    GET   /v1/rooms/{room}             the room and its members
    GET   /v1/rooms/{room}/history     what it keeps of its publications
    POST  /v1/rooms/{room}/messages    publish
    GET   /v1/rooms/{room}/state       its records
    PATCH /v1/rooms/{room}/state       change some of them

A service may ask for each room of its tenant. A party and a person may what their credential says (`service/rooms/rights.py`), for a
session that the store knows.
"""

import hashlib
from collections.abc import AsyncGenerator, Mapping
from typing import Annotated, Protocol, TypeVar

from msgspec import UNSET, Meta, Raw, Struct, UnsetType
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from signald.core import updates
from signald.core.room_names import is_of_user
from signald.core.rooms import ID_CHARS_MAX, Properties, Publication
from signald.http.api.app import address_of
from signald.http.api.auth import caller_of, session_of
from signald.http.api.blobs import Pieces
from signald.http.api.bodies import read_body
from signald.http.api.describe import PARTIES, Answer, Header, Operation, described, json_answer
from signald.http.api.reading import (
    JSON,
    Headers,
    JsonBody,
    Path,
    Query,
    RawBody,
    bad_fields,
    media_type,
    must_be_json,
)
from signald.http.api.refusals import as_problems
from signald.http.api.room_views import (
    Asking,
    Post,
    PublishedAt,
    ShownPublications,
    ShownRoom,
    ShownState,
    Stored,
)
from signald.http.api.sessions import Tenant
from signald.http.problem_details import HttpProblem
from signald.wire.fields import KIND_MAX
from signald.wire.records import publication_body

Q = TypeVar("Q", bound="OfCaller")

PAGE_MAX = 200
"""Members or publications of one answer."""

RecordId = Annotated[str, Meta(min_length=1, max_length=ID_CHARS_MAX)]
Kind = Annotated[str, Meta(max_length=KIND_MAX, description="What the data is, by the word of its readers.")]
Session = Annotated[
    str, Meta(max_length=64, description="The session: a worker names one that it has, a person any of its own.")
]


# --- what is asked ------------------------------------------------------------------------------------------------


class OneRoom(Struct, frozen=True):
    """The name of a room."""

    room: Annotated[str, Meta(pattern="^[A-Za-z0-9_.:~-]{1,128}$")]


class OfCaller(Struct, frozen=True):
    """For which session, or which tenant."""

    session: Session | UnsetType = UNSET
    tenant: (
        Annotated[Tenant, Meta(description="The tenant whose rooms are meant, for a service that is bound to none.")]
        | UnsetType
    ) = UNSET


class OfRoom(OfCaller, frozen=True):
    """How much of a room."""

    limit: Annotated[int, Meta(ge=0, le=PAGE_MAX, description="Members that are shown.")] = PAGE_MAX


class OfHistory(OfCaller, frozen=True):
    """A page of publications."""

    limit: Annotated[int, Meta(ge=1, le=PAGE_MAX, description="Entries of a page.")] = 50
    before: Annotated[str, Meta(pattern="^[0-9]{1,16}$", description="`next` of the page before.")] | UnsetType = UNSET


class OfPost(OfCaller, frozen=True):
    """What stands in the query beside binary data."""

    kind: Kind | UnsetType = UNSET


class PostHeaders(Struct, frozen=True, rename="kebab"):
    """Header fields of a publication."""

    idempotency_key: Annotated[str, Meta(min_length=1, max_length=255, pattern="^[\\x21-\\x7e]+$")] | UnsetType = UNSET


class NewPublication(Struct, frozen=True):
    """Data, or a change of records: in this order, put, patch, remove."""

    data: Raw | UnsetType = UNSET
    kind: Kind | UnsetType = UNSET
    put: Annotated[dict[RecordId, dict[str, Raw]], Meta(description="Records, each replaced whole.")] | UnsetType = (
        UNSET
    )
    patch: (
        Annotated[dict[RecordId, dict[str, Raw]], Meta(description="Properties to set; null removes one.")] | UnsetType
    ) = UNSET
    remove: Annotated[list[RecordId], Meta(description="Records to remove.")] | UnsetType = UNSET

    @property
    def changes(self) -> bool:
        """Tell whether it names records."""
        return self.put is not UNSET or self.patch is not UNSET or self.remove is not UNSET


class Rooms(Protocol):
    """The operations of the service. They raise OperationRefused and StoreUnavailable."""

    @property
    def json_depth_max(self) -> int:
        """The nesting that the JSON of a body may have."""

    async def read(self, asking: Asking, room: str, limit: int) -> ShownRoom:
        """Show a room, with up to `limit` members."""

    async def history(self, asking: Asking, room: str, before: int, limit: int) -> ShownPublications:
        """Show publications in front of the position `before` (0: the last ones), `limit` at most."""

    async def post(self, asking: Asking, room: str, post: Post) -> Stored:
        """Publish."""

    async def state(self, asking: Asking, room: str) -> tuple[int, AsyncGenerator[bytes]]:
        """Return all records as JSON (`ShownState`): how many bytes, and the bytes in pieces. The generator must be closed."""


ROOM, CALLER, OF_ROOM, OF_HISTORY, OF_POST = (
    Path(OneRoom),
    Query(OfCaller),
    Query(OfRoom),
    Query(OfHistory),
    Query(OfPost),
)
POST_HEADERS = Headers(PostHeaders)
NEW, PATCH_BODY = JsonBody(NewPublication), JsonBody(dict[RecordId, dict[str, Raw]])

SHOWN = Answer(200, "The room.", ShownRoom)
ENTRIES = Answer(200, "The publications.", ShownPublications)
_REPLAYED = {
    "Idempotency-Replayed": Header("`true`: an earlier request with the same key has stored it.", always=False)
}
STORED = Answer(201, "It is stored, and its readers get it.", PublishedAt, headers=_REPLAYED)
STATE = Answer(200, "The records.", ShownState)
CHANGED = Answer(200, "The change is stored, and its readers get it.", PublishedAt, headers=_REPLAYED)

READ = Operation(
    name="readRoom", method="GET", path="/v1/rooms/{room}", tag="rooms", summary="Show a room and its members",
    callers=PARTIES, scope="rooms", parameters=(ROOM, OF_ROOM), answers=(SHOWN,), problems=frozenset({404}),
)  # fmt: skip
HISTORY = Operation(
    name="readRoomHistory", method="GET", path="/v1/rooms/{room}/history", tag="rooms", summary="Show what was published",
    callers=PARTIES, scope="rooms", parameters=(ROOM, OF_HISTORY), answers=(ENTRIES,), problems=frozenset({404}),
)  # fmt: skip
PUBLISH = Operation(
    name="publish", method="POST", path="/v1/rooms/{room}/messages", tag="rooms", summary="Publish in a room",
    about="With another content type than JSON the body is binary data, and `kind` stands in the query. The room is made when there is "
    "none. In the room of a user (`user:SUBJECT`) only services publish; their credential must cover `users`.",
    callers=PARTIES, scope="rooms", parameters=(ROOM, OF_POST, POST_HEADERS), bodies=(NEW, RawBody("The data.")), answers=(STORED,),
    problems=frozenset({404, 409, 413, 422}),
)  # fmt: skip
READ_STATE = Operation(
    name="readRoomState", method="GET", path="/v1/rooms/{room}/state", tag="rooms", summary="Show the records of a room",
    callers=PARTIES, scope="rooms", parameters=(ROOM, CALLER), answers=(STATE,), problems=frozenset({404}),
)  # fmt: skip
CHANGE_STATE = Operation(
    name="patchRoomState", method="PATCH", path="/v1/rooms/{room}/state", tag="rooms", summary="Change records of a room",
    about="The body is as `patch` of a publication: records by id, each with the properties to set. A record that is missing is made, and "
    "null removes a property.",
    callers=PARTIES, scope="rooms", parameters=(ROOM, CALLER, POST_HEADERS), bodies=(PATCH_BODY,), answers=(CHANGED,),
    problems=frozenset({404, 409, 413, 422}),
)  # fmt: skip


def routes(rooms: Rooms) -> list[BaseRoute]:
    """Return the routes of rooms."""

    async def read(request: Request) -> Response:
        room, asked, asking = await _asked(request, OF_ROOM)
        with as_problems():
            return json_answer(SHOWN, await rooms.read(asking, room, asked.limit))

    async def history(request: Request) -> Response:
        room, asked, asking = await _asked(request, OF_HISTORY)
        before = 0 if asked.before is UNSET else int(asked.before)
        with as_problems():
            return json_answer(ENTRIES, await rooms.history(asking, room, before, asked.limit))

    async def publish(request: Request) -> Response:
        room, asked, asking = await _asked(request, OF_POST)
        key, body = POST_HEADERS.read(request).idempotency_key, await read_body(request)
        if media_type(request) in (JSON, ""):
            publication = publication_of(NEW.decode(body, rooms.json_depth_max))
        else:
            kind = None if asked.kind is UNSET else asked.kind
            publication = Publication(0, publication_body(kind, b"", body), update=kind in updates.KINDS)
        post = Post(publication, *_digests(request, asking, key, body))
        with as_problems():
            return _stored(STORED, await rooms.post(asking, room, post))

    async def state(request: Request) -> Response:
        room, _, asking = await _asked(request, CALLER)
        with as_problems():
            size, pieces = await rooms.state(asking, room)
        headers = {"content-type": JSON, "content-length": str(size)}
        if request.method == "HEAD":
            await pieces.aclose()
            return Response(status_code=200, headers=headers)
        try:
            first = await anext(pieces)
        except BaseException:
            await pieces.aclose()
            raise
        return Pieces(200, headers, first, pieces, size, request.app.state.turns)

    async def change(request: Request) -> Response:
        room, _, asking = await _asked(request, CALLER)
        key = POST_HEADERS.read(request).idempotency_key
        must_be_json(request)
        body = await read_body(request)
        publication = Publication(0, patches=_records(PATCH_BODY.decode(body, rooms.json_depth_max)))
        post = Post(publication, *_digests(request, asking, key, body))
        with as_problems():
            return _stored(CHANGED, await rooms.post(asking, room, post))

    return described((READ, read), (HISTORY, history), (PUBLISH, publish), (READ_STATE, state), (CHANGE_STATE, change))


async def _asked(request: Request, query: Query[Q]) -> tuple[str, Q, Asking]:
    """Return the room of a request, its query, and for whom it asks. Raises HttpProblem."""
    room = ROOM.read(request).room
    caller = await caller_of(request, "users" if is_of_user(room) else "rooms")
    asked = query.read(request)
    session = None if asked.session is UNSET else asked.session
    tenant = None if asked.tenant is UNSET else asked.tenant
    if caller.kind == "service":
        if caller.tenant is not None and tenant not in (None, caller.tenant):
            raise HttpProblem(403, "forbidden", "this credential is bound to another tenant")
        tenant = tenant if caller.tenant is None else caller.tenant
        return room, asked, Asking(caller, tenant, address=address_of(request.scope))
    named, access = session_of(caller, session)
    return room, asked, Asking(caller, caller.tenant, named, access, address_of(request.scope))


def publication_of(new: NewPublication) -> Publication:
    """Return what a body of JSON publishes. Raises HttpProblem 400 when that is nothing, or too much at once."""
    if new.data is not UNSET:
        if new.changes:
            raise bad_fields(("data", "does not go with put, patch and remove"))
        return Publication(0, publication_body(None if new.kind is UNSET else new.kind, bytes(new.data), None))
    if not new.changes:
        raise bad_fields(("data", "required, unless put, patch or remove is there"))
    if new.kind is not UNSET:
        raise bad_fields(("kind", "goes with data only"))
    removes = () if new.remove is UNSET else tuple(new.remove)
    return Publication(0, puts=_records(new.put), patches=_records(new.patch), removes=removes)


def _records(named: Mapping[str, Mapping[str, Raw]] | UnsetType) -> tuple[tuple[str, Properties], ...]:
    if named is UNSET:
        return ()
    return tuple(
        [(name, tuple([(key, bytes(value)) for key, value in record.items()])) for name, record in named.items()]
    )


def _stored(answer: Answer, stored: Stored) -> Response:
    headers = {"idempotency-replayed": "true"} if stored.replayed else None
    return json_answer(answer, PublishedAt(stored.position), headers)


def _digests(request: Request, asking: Asking, key: str | UnsetType, body: bytes) -> tuple[bytes, bytes]:
    """Return the digests of a key, with the caller, the session and the path to which it belongs, and of the content of its request."""
    if key is UNSET:
        return b"", b""
    caller = asking.caller
    of_key = caller.kind, caller.payer, asking.session, key, request.method, request.url.path
    of_content = request.url.query, request.headers.get("content-type", "")
    return _digest(*[text.encode() for text in of_key]), _digest(*[text.encode() for text in of_content], body)[:16]


def _digest(*parts: bytes) -> bytes:
    made = hashlib.sha256()
    for part in parts:
        made.update(len(part).to_bytes(8) + part)
    return made.digest()
