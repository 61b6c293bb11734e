"""The chat history of a session over HTTP, and the request to end a stream of its worker.

GET  /v1/sessions/{session}/history                    a page, the newest first asked for, oldest first within the page
POST /v1/sessions/{session}/streams/{stream}/cancel    ask the worker to end a stream
"""

from typing import Annotated, Literal, Protocol

from msgspec import UNSET, Meta, Raw, Struct, UnsetType
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from signald.core.callers import Access
from signald.http.api.auth import caller_of, session_of
from signald.http.api.describe import PARTIES, Answer, Operation, described, json_answer
from signald.http.api.reading import JsonBody, Path, Query
from signald.http.api.refusals import as_problems
from signald.http.api.sessions import OF_ITS_USER, SESSION_ID, OneSession
from signald.wire.fields import Reason

PAGE_MAX = 200
"""Entries of one page; the whole of a history has at most 1,000 by default."""


class ShownEntry(Struct, frozen=True, omit_defaults=True, kw_only=True, rename={"sender": "from"}):
    """A message of the chat history, or all of a stream that belongs to it."""

    sender: Literal["client", "worker"]
    seq: Annotated[int, Meta(description="Of a stream: its last piece.")]
    data: Raw
    at: Annotated[str | None, Meta(description="When it arrived; null: release 0.1.0 has stored it, and did not say.")]
    kind: str | UnsetType = UNSET
    blob: str | UnsetType = UNSET
    stream: str | UnsetType = UNSET
    attempt: int | UnsetType = UNSET
    open: Annotated[bool, Meta(description="true: the stream goes on.")] = False
    outcome: str | UnsetType = UNSET
    truncated: Annotated[bool, Meta(description="true: the stream is cut in front.")] = False


class ShownHistory(Struct, frozen=True, omit_defaults=True):
    """A page of the chat history, oldest first."""

    entries: list[ShownEntry]
    next: (
        Annotated[str, Meta(description="`before` of the page with older entries; absent on the last one.")] | UnsetType
    ) = UNSET


class HistoryQuery(Struct, frozen=True):
    """A page of the chat history."""

    limit: Annotated[int, Meta(ge=1, le=PAGE_MAX, description="Entries of a page.")] = 50
    before: Annotated[str, Meta(pattern="^[0-9]{1,20}$", description="`next` of the page before.")] | UnsetType = UNSET


class OneStream(Struct, frozen=True):
    """A stream of the worker of a session."""

    session: Annotated[str, Meta(pattern=SESSION_ID)]
    stream: Annotated[str, Meta(min_length=1, max_length=64)]


class CancelRequest(Struct, frozen=True):
    """Why the stream is to end."""

    reason: Reason = ""


class Histories(Protocol):
    """The operations of the service. They raise OperationRefused and StoreUnavailable."""

    @property
    def json_depth_max(self) -> int:
        """The nesting that the JSON of a body may have."""

    async def history(self, session: str, access: Access, before: int, limit: int) -> ShownHistory:
        """Show the entries that stand before the entry `before` (0: the last ones), `limit` at most."""

    async def cancel_stream(self, session: str, access: Access, stream: str, reason: str) -> None:
        """Ask the worker to end a stream."""


ONE, PAGE, STREAM = Path(OneSession), Query(HistoryQuery), Path(OneStream)
CANCEL_BODY = JsonBody(CancelRequest, may_be_missing=True)

SHOWN = Answer(200, "The entries.", ShownHistory)
ASKED = Answer(202, "The worker is asked to end it.")

HISTORY = Operation(
    name="readHistory", method="GET", path="/v1/sessions/{session}/history", tag="sessions",
    summary="Show the chat history of a session", callers=PARTIES, scope="sessions", parameters=(ONE, PAGE), answers=(SHOWN,),
    problems=frozenset({404}),
)  # fmt: skip
CANCEL = Operation(
    name="cancelStream", method="POST", path="/v1/sessions/{session}/streams/{stream:path}/cancel", tag="sessions",
    summary="Ask the worker to end a stream", about="The same again is harmless, also when the stream is over. On the id of a job it "
    "is the same as its DELETE.",
    callers=OF_ITS_USER, scope="sessions", parameters=(STREAM,), bodies=(CANCEL_BODY,), answers=(ASKED,), problems=frozenset({404}),
)  # fmt: skip


def routes(histories: Histories) -> list[BaseRoute]:
    """Return the routes of histories and streams."""

    async def history(request: Request) -> Response:
        session, access = session_of(await caller_of(request), ONE.read(request).session)
        asked = PAGE.read(request)
        before = 0 if asked.before is UNSET else int(asked.before)
        with as_problems():
            return json_answer(SHOWN, await histories.history(session, access, before, asked.limit))

    async def cancel(request: Request) -> Response:
        caller, named = await caller_of(request), STREAM.read(request)
        session, access = session_of(caller, named.session)
        asked = await CANCEL_BODY.read(request, histories.json_depth_max)
        with as_problems():
            await histories.cancel_stream(session, access, named.stream, asked.reason)
        return Response(status_code=202)

    return described((HISTORY, history), (CANCEL, cancel))
