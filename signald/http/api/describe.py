"""An operation of the HTTP API: one object makes its route and its place in `/openapi.json`.

    READ = Operation(
        name="readJob", method="GET", path="/v1/jobs/{job}", tag="jobs",
        summary="Show a job", callers=frozenset({"client", "service", "person"}), scope="jobs",
        parameters=(JOB, QUERY), answers=(Answer(200, "The job.", JobBody),), problems=frozenset({404, 410, 503}),
    )

    def routes(jobs: Jobs) -> list[BaseRoute]:
        async def read(request: Request) -> Response: ...

        return described((READ, read), (CREATE, create))

`described` puts the operations of one path into one route, so that a method that is not there gets 405 and an `Allow` with all that are.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from signald.core.callers import CallerKind, Scope
from signald.http.api.app import ApiRoute
from signald.http.api.reading import JSON, Body, Parameters

Handler = Callable[[Request], Awaitable[Response]]

PARTIES: frozenset[CallerKind] = frozenset({"client", "worker", "service", "person"})
"""Every kind of caller."""


class Header(Struct, frozen=True):
    """A header field of an answer."""

    about: str
    kind: Literal["string", "integer", "boolean"] = "string"
    always: bool = True


class Answer(Struct, frozen=True):
    """An answer that is no problem."""

    status: int
    about: str
    body: Any = None
    """The type of the body: a struct for JSON, bytes for any content; None: there is no body."""
    media: str = JSON
    headers: Mapping[str, Header] = {}


class Operation(Struct, frozen=True):
    """One method of one path."""

    name: str
    """Unique; programs that are made from the document call their function so."""
    method: str
    path: str
    tag: str
    summary: str
    answers: tuple[Answer, ...]
    callers: frozenset[CallerKind] = frozenset()
    """The kinds of callers that may ask; empty: every program, without a credential."""
    scope: Scope | None = None
    """What a service's credential must cover."""
    about: str = ""
    parameters: tuple[Parameters, ...] = ()
    bodies: tuple[Body, ...] = ()
    """One of these, told apart by the media type; empty: the operation takes none."""
    problems: frozenset[int] = frozenset()
    """The statuses of problem documents, beside those that every operation can give (see `openapi.COMMON`)."""
    times_as_often: int = 1
    """Of the rate of other requests; the same for all operations of a path. See `ApiRoute`."""

    @property
    def shown_path(self) -> str:
        """The path as a document shows it. A parameter that may hold a slash is `{name:path}` for the route."""
        return self.path.replace(":path}", "}")


class DescribedRoute(ApiRoute):
    """A path with all its operations."""

    operations: Mapping[str, Operation]
    """By method."""


def described(
    *handlers: tuple[Operation, Handler], body_bytes_max: Mapping[str, Callable[[], int]] | None = None
) -> list[BaseRoute]:
    """Return a route for each path, in the order in which the paths first come. A GET answers HEAD as well.

    `body_bytes_max` gives the bound of a path's bodies where it is not that of all.
    """
    paths: dict[str, dict[str, tuple[Operation, Handler]]] = {}
    for operation, handler in handlers:
        methods = paths.setdefault(operation.path, {})
        assert operation.method not in methods, f"{operation.method} {operation.path} stands twice"
        methods[operation.method] = (operation, handler)
    bounds = body_bytes_max or {}
    assert bounds.keys() <= paths.keys(), "a bound of a path that is not there"
    return [_route(path, methods, bounds.get(path)) for path, methods in paths.items()]


def _route(
    path: str, methods: Mapping[str, tuple[Operation, Handler]], body_bytes_max: Callable[[], int] | None
) -> Route:
    async def dispatch(request: Request) -> Response:
        asked = "GET" if request.method == "HEAD" and "HEAD" not in methods else request.method
        operation, handler = methods[asked]
        request.scope["signald.operation"] = operation
        return await handler(request)

    route = DescribedRoute(path, dispatch, methods=list(methods))
    route.operations = {method: operation for method, (operation, _) in methods.items()}
    route.body_bytes_max = body_bytes_max
    (route.times_as_often,) = {operation.times_as_often for operation, _ in methods.values()}
    return route


def operations(routes: Sequence[BaseRoute]) -> list[Operation]:
    """Return the operations of `routes`, in their order. Other routes have none."""
    return [one for route in routes if isinstance(route, DescribedRoute) for one in route.operations.values()]


def json_answer(answer: Answer, body: Struct, headers: Mapping[str, str] | None = None) -> Response:
    """Return `body` as `answer` describes it."""
    assert isinstance(body, answer.body), f"{type(body)} is not described"
    return Response(msgspec.json.encode(body), answer.status, headers, media_type=answer.media)
