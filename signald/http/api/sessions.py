"""Sessions over HTTP: shown, listed by subject, begun for a user by a backend, ended.

    GET    /v1/sessions/{session}    a session, wherever its parties are
    GET    /v1/sessions?subject=     those of a subject
    POST   /v1/sessions              begin one whose client is still to come
    DELETE /v1/sessions/{session}    end one

A caller is judged by the principal of the session in the store's step (`core.callers.Access`). Nothing here depends on which node holds
a connection.
"""

from typing import Annotated, Literal, Protocol

from msgspec import UNSET, Meta, Raw, Struct, UnsetType
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from signald.core.callers import Access, Caller, CallerKind
from signald.http.api.auth import caller_of, session_of
from signald.http.api.describe import Answer, Header, Operation, described, json_answer
from signald.http.api.reading import JsonBody, Path, Query
from signald.http.api.refusals import as_problems
from signald.wire.messages import Labels, PeerState

SUBJECT_MAX = 1024
"""Characters of a subject: more than a token of 8 KiB leaves it beside its other claims and its signature, in any practice."""

PAGE_MAX = 200
"""Sessions of one page: one batch of the store."""

SESSION_ID = "^s_[a-z2-7]{24}$"

Subject = Annotated[str, Meta(min_length=1, max_length=SUBJECT_MAX, pattern="^[^\\x1f]+$")]
"""What a token calls `sub`; without the character that separates it from the tenant in the name of a principal."""

Tenant = Annotated[str, Meta(max_length=SUBJECT_MAX, pattern="^[^\\x1f]*$")]


# --- what is shown ------------------------------------------------------------------------------------------------


class ShownPeer(Struct, frozen=True, omit_defaults=True):
    """The worker of a session."""

    state: PeerState
    id: str | UnsetType = UNSET


class SessionJob(Struct, frozen=True):
    """A job of a session, in short."""

    job: str
    state: str
    attempt: int


class ShownSession(Struct, frozen=True):
    """A session. Times are RFC 3339 texts in UTC."""

    session: str
    subject: Annotated[str, Meta(description="What the credential of its client says; empty for an anonymous one.")]
    node: Annotated[str | None, Meta(description="Where its client is attached; null while it is away.")]
    created_at: str
    connected_at: Annotated[str | None, Meta(description="When its client has attached last; null: it never has.")]
    last_seen_at: Annotated[str, Meta(description="Now while its client is attached, or else since when it is away.")]
    presence: Literal["online", "away"]
    peer: ShownPeer
    rooms: list[str]
    settings: dict[str, Raw]
    jobs: list[SessionJob]


class ShownSessions(Struct, frozen=True, omit_defaults=True):
    """A page of the sessions of a subject, in order of their ids."""

    sessions: list[ShownSession]
    next: Annotated[str, Meta(description="`after` of the next page; absent on the last one.")] | UnsetType = UNSET


class NewSession(Struct, frozen=True, kw_only=True):
    """A session to be begun for a user."""

    subject: Subject
    tenant: (
        Annotated[Tenant, Meta(description="The user's tenant, for a service that is bound to none.")] | UnsetType
    ) = UNSET
    want: Labels = {}
    meta: Raw = Raw()
    pair: Annotated[bool, Meta(description="false: the session has no worker.")] = True


class MadeSession(Struct, frozen=True):
    """A session whose client is still to come: it attaches with `restore_session` within `token_ttl_ms`."""

    session: str
    recovery_token: Annotated[str, Meta(description="A secret, for the user alone.")]
    token_ttl_ms: int
    api_token: Annotated[str, Meta(description="A secret: the credential of the session's client for this API.")]
    api_token_ttl_ms: int

    def __repr__(self) -> str:
        return f"MadeSession({self.session!r}, ...)"


class Sessions(Protocol):
    """The operations of the service. They raise OperationRefused and StoreUnavailable."""

    @property
    def json_depth_max(self) -> int:
        """The nesting that the JSON of a body may have."""

    async def read(self, session: str, access: Access) -> ShownSession:
        """Show a session."""

    async def of_subject(
        self, caller: Caller, subject: str, tenant: str | None, after: str, limit: int
    ) -> ShownSessions:
        """Show the sessions of a subject."""

    async def create(self, caller: Caller, new: NewSession) -> MadeSession:
        """Begin a session without a client."""

    async def end(self, session: str, access: Access) -> None:
        """End a session."""


# --- what is asked ------------------------------------------------------------------------------------------------


class OneSession(Struct, frozen=True):
    """The id of a session."""

    session: Annotated[str, Meta(pattern=SESSION_ID)]


class OfSubject(Struct, frozen=True):
    """A page of the sessions of a subject."""

    subject: Subject
    tenant: (
        Annotated[Tenant, Meta(description="The subject's tenant, for a service that is bound to none.")] | UnsetType
    ) = UNSET
    limit: Annotated[int, Meta(ge=1, le=PAGE_MAX, description="Sessions of a page.")] = 50
    after: Annotated[str, Meta(max_length=64, description="`next` of the page before.")] = ""


ONE, LISTED, NEW = Path(OneSession), Query(OfSubject), JsonBody(NewSession)

SHOWN = Answer(200, "The session.", ShownSession)
PAGE = Answer(200, "The sessions.", ShownSessions)
MADE = Answer(201, "The session is stored.", MadeSession, headers={"Location": Header("Where it is shown.")})
ENDED = Answer(204, "The session has ended.")

OF_ITS_USER: frozenset[CallerKind] = frozenset({"client", "person", "service"})
SERVICE: frozenset[CallerKind] = frozenset({"service"})

READ = Operation(
    name="readSession", method="GET", path="/v1/sessions/{session}", tag="sessions", summary="Show a session",
    callers=OF_ITS_USER, scope="sessions", parameters=(ONE,), answers=(SHOWN,), problems=frozenset({404}),
)  # fmt: skip
LIST = Operation(
    name="listSessions", method="GET", path="/v1/sessions", tag="sessions", summary="List the sessions of a subject",
    callers=SERVICE, scope="sessions", parameters=(LISTED,), answers=(PAGE,),
)  # fmt: skip
CREATE = Operation(
    name="createSession", method="POST", path="/v1/sessions", tag="sessions", summary="Begin a session for a user",
    about="The user's program attaches with `restore_session` and the credential of the same subject.",
    callers=SERVICE, scope="sessions", bodies=(NEW,), answers=(MADE,),
)  # fmt: skip
END = Operation(
    name="endSession", method="DELETE", path="/v1/sessions/{session}", tag="sessions", summary="End a session",
    about="Both parties are told. What was not delivered yet is lost, and nothing of the session can be resumed.",
    callers=OF_ITS_USER, scope="sessions", parameters=(ONE,), answers=(ENDED,), problems=frozenset({404}),
)  # fmt: skip


def routes(sessions: Sessions) -> list[BaseRoute]:
    """Return the routes of sessions."""

    async def read(request: Request) -> Response:
        session, access = session_of(await caller_of(request), ONE.read(request).session)
        with as_problems():
            return json_answer(SHOWN, await sessions.read(session, access))

    async def listed(request: Request) -> Response:
        caller, asked = await caller_of(request), LISTED.read(request)
        tenant = None if asked.tenant is UNSET else asked.tenant
        with as_problems():
            return json_answer(PAGE, await sessions.of_subject(caller, asked.subject, tenant, asked.after, asked.limit))

    async def create(request: Request) -> Response:
        caller = await caller_of(request)
        new = await NEW.read(request, sessions.json_depth_max)
        with as_problems():
            made = await sessions.create(caller, new)
        return json_answer(MADE, made, {"location": f"/v1/sessions/{made.session}"})

    async def end(request: Request) -> Response:
        session, access = session_of(await caller_of(request), ONE.read(request).session)
        with as_problems():
            await sessions.end(session, access)
        return Response(status_code=204)

    return described((READ, read), (END, end), (LIST, listed), (CREATE, create))
