"""`/openapi.json`: OpenAPI 3.1, made from the operations of the routes (`describe`) and from the structs that decode and encode."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from signald.core.callers import CallerKind
from signald.http.api.describe import Answer, Operation
from signald.http.api.reading import JSON, Body, JsonBody
from signald.http.api.schemas import Json, components, parameters
from signald.http.problem_details import STATUS_TITLES

OPENAPI = "3.1.0"
PROBLEM_JSON = "application/problem+json"

BEARERS: Mapping[CallerKind, str] = {
    "client": "apiToken",
    "worker": "apiToken",
    "service": "serviceToken",
    "person": "personToken",
}
"""Caller → the scheme of the credential that it shows in `Authorization`."""

COMMON: frozenset[int] = frozenset({429, 500, 503})
"""Statuses of problems that any operation can give: over the rate, a fault of signald, a node that cannot serve requests now."""

OF_CALLERS: frozenset[int] = frozenset({401, 403})
"""Statuses of problems of an operation that needs a credential."""

OF_PARAMETERS: frozenset[int] = frozenset({400})
"""Statuses of problems of an operation that decodes something."""

OF_BODIES: frozenset[int] = frozenset({400, 413, 415})
"""Statuses of problems of an operation with a body."""

RETRY_AFTER: frozenset[int] = frozenset({429, 503})
"""Statuses with which `Retry-After` always says when the same request is worth repeating."""


class FieldError(Struct, frozen=True):
    """A field of a request that is not as described."""

    field: str
    """Where it stands in the query, the header or the body; "" is the whole body."""
    message: str


class Problem(Struct, frozen=True):
    """An error, as RFC 9457 describes it. Programs compare `type`; `detail` is a sentence for a reader."""

    type: Annotated[str, Meta(pattern="^urn:signald:problem:[a-z0-9_-]+$", description="The kind of the error.")]
    title: str
    status: Annotated[int, Meta(ge=400, le=599)]
    detail: str
    errors: list[FieldError] | UnsetType = UNSET


class Published(Struct, frozen=True):
    """The settings of a node that programs have to know."""

    version: str
    requests_per_s: float
    requests_burst: int
    key_life_s: float = 0
    """How long an idempotency key is good; 0: no operation takes one."""
    api_token_ttl_s: float = 0
    """How long an API token is good; 0: there are none."""
    cookie: str = ""
    """The name of the cookie of a person; "": there is none."""


def openapi(operations: Sequence[Operation], published: Published) -> Json:
    """Return the document."""
    schemas, named = components([Problem, *dict.fromkeys(kind for one in operations for kind in _kinds(one))])
    paths: dict[str, Json] = {}
    for operation in operations:
        paths.setdefault(operation.shown_path, {})[operation.method.lower()] = _operation(operation, schemas, published)
    statuses = sorted({status for operation in operations for status in problem_statuses(operation)})
    return {
        "openapi": OPENAPI,
        "info": {"title": "signald", "version": published.version, "description": _prose(published)},
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in dict.fromkeys(operation.tag for operation in operations)],
        "paths": paths,
        "components": {
            "schemas": named,
            "responses": {f"Problem{status}": _problem(status) for status in statuses},
            "securitySchemes": _security_schemes(published),
        },
        **({"x-idempotency-key-life-ms": round(published.key_life_s * 1000)} if published.key_life_s else {}),
    }


def problem_statuses(operation: Operation) -> frozenset[int]:
    """Return the status of each problem document that `operation` can answer with."""
    found = operation.problems | COMMON
    if operation.callers:
        found |= OF_CALLERS
    if operation.parameters:
        found |= OF_PARAMETERS
    if operation.bodies:
        found |= OF_BODIES
    return found


def _kinds(operation: Operation) -> Iterator[Any]:
    for body in operation.bodies:
        if isinstance(body, JsonBody):
            yield body.kind
    for answer in operation.answers:
        if answer.body not in (None, bytes):
            yield answer.body


def _operation(operation: Operation, schemas: Mapping[Any, Json], published: Published) -> Json:
    described: Json = {
        "operationId": operation.name,
        "tags": [operation.tag],
        "summary": operation.summary,
        "responses": _responses(operation, schemas),
        "security": list(_security(operation, published)),
    }
    if operation.about:
        described["description"] = operation.about
    if operation.parameters:
        described["parameters"] = list(_parameters(operation))
    if operation.bodies:
        described["requestBody"] = _request_body(operation.bodies, schemas)
    return described


def _responses(operation: Operation, schemas: Mapping[Any, Json]) -> Json:
    found = {str(answer.status): _answer(answer, schemas) for answer in operation.answers}
    for status in sorted(problem_statuses(operation)):
        own = found.setdefault(str(status), {"$ref": f"#/components/responses/Problem{status}"})
        if "$ref" not in own:
            # The operation has an answer of this status beside the problem: the media type tells them apart.
            own["content"] = own.get("content", {}) | _problem(status)["content"]
    return found


def _parameters(operation: Operation) -> Iterator[Json]:
    for part in operation.parameters:
        properties, required = parameters(part.kind)
        for name, schema in properties.items():
            about = schema.pop("description", "")
            yield {
                "name": name.title() if part.place == "header" else name,
                "in": part.place,
                **({"description": about} if about else {}),
                "required": name in required,
                "schema": schema,
            }


def _request_body(bodies: Sequence[Body], schemas: Mapping[Any, Json]) -> Json:
    content: Json = {}
    required = True
    for body in bodies:
        if isinstance(body, JsonBody):
            content[JSON] = {"schema": schemas[body.kind]}
            required = required and not body.may_be_missing
        else:
            content[body.media] = {}
    about = " ".join(body.about for body in bodies if not isinstance(body, JsonBody))
    return {**({"description": about} if about else {}), "required": required, "content": content}


def _answer(answer: Answer, schemas: Mapping[Any, Json]) -> Json:
    described: Json = {"description": answer.about}
    if answer.headers:
        described["headers"] = {
            name: {"description": header.about, "required": header.always, "schema": {"type": header.kind}}
            for name, header in answer.headers.items()
        }
    if answer.body is bytes:
        described["content"] = {answer.media: {}}
    elif answer.body is not None:
        described["content"] = {answer.media: {"schema": schemas[answer.body]}}
    return described


def _problem(status: int) -> Json:
    described: Json = {
        "description": STATUS_TITLES[status],
        "content": {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    if status in RETRY_AFTER:
        about = "Seconds to wait before the same request is worth repeating."
        described["headers"] = {"Retry-After": {"description": about, "required": True, "schema": {"type": "integer"}}}
    if status == 401:
        about = "The scheme of the credential."
        described["headers"] = {
            "WWW-Authenticate": {"description": about, "required": True, "schema": {"type": "string"}}
        }
    return described


def _security(operation: Operation, published: Published) -> Iterator[Json]:
    scopes = [operation.scope] if operation.scope else []
    for kind in ("client", "worker", "service", "person"):
        if kind not in operation.callers:
            continue
        scheme: Json = {BEARERS[kind]: scopes if kind == "service" else []}
        if not (kind == "worker" and "client" in operation.callers):
            yield scheme
        if kind == "person" and published.cookie:
            yield {"personCookie": []}


def _security_schemes(published: Published) -> Json:
    bearer = {"type": "http", "scheme": "bearer"}
    schemes: Json = {
        "apiToken": {
            **bearer,
            "description": "The `api_token` of a client's session or of a worker, from the WebSocket. "
            f"It lives {published.api_token_ttl_s:g} seconds, and a connected party is sent the next one in time.",
        },
        "serviceToken": {
            **bearer,
            "bearerFormat": "JWT",
            "description": "A JWT with `role` `service`. `scope` limits it to some of `jobs`, `sessions`, `rooms`, `blobs` and "
            "`users`; `tenant` limits it to the sessions of one tenant.",
        },
        "personToken": {
            **bearer,
            "bearerFormat": "JWT",
            "description": "A JWT with `role` `client`: the sessions of its `sub`.",
        },
    }
    if published.cookie:
        schemes["personCookie"] = {
            "type": "apiKey",
            "in": "cookie",
            "name": published.cookie,
            "description": "The JWT of a person in a cookie. A method that changes something needs an allowed `Origin`.",
        }
    return schemes


def _prose(published: Published) -> str:
    parts = [
        "The requests and answers of signald over HTTP. The messages on the WebSocket are in `/asyncapi.json`.",
        (
            f"**Errors** are problem documents (RFC 9457, `{PROBLEM_JSON}`). `type` names the kind of the error. "
            "`errors` lists the fields of the request that are not as described. A field that this release does not know is ignored. "
            "Types are strict: an integer is written without a fraction."
        ),
    ]
    if published.key_life_s:
        parts.append(
            "**Idempotency.** An `Idempotency-Key` belongs to the session, the method and the path, and is good for "
            f"{published.key_life_s:g} seconds, that of an upload for as long as its blob is kept. "
            "The same key with the same request gives the first answer again, with "
            "`Idempotency-Replayed: true`. The same key with another request gives 422."
        )
    parts += [
        "**Pages.** A list that goes on has `next`. The value is opaque: hand it back unchanged.",
        (
            f"**Rates.** A principal may ask {published.requests_per_s:g} times a second, with bursts of "
            f"{published.requests_burst}. Beyond it 429 with `Retry-After`."
        ),
        "**Times** are RFC 3339 texts in UTC with names in `_at`. Durations are integers in milliseconds with names in `_ms`.",
    ]
    return "\n\n".join(parts)
