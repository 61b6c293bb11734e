"""The admin API: what `signald ctl`, gates of a rollout and operators' programs ask of a node.

    GET  /v1/admin/status            this node and its drain
    POST /v1/admin/drain             begin or widen a drain: {"parties": ["workers","clients"], "reason": "..."}
    POST /v1/admin/abort             call an operator's drain off
    POST /v1/admin/reload            read the configuration again
    PUT  /v1/admin/log-level         {"level": "debug"}
    GET  /v1/admin/nodes             the cluster's live nodes
    GET  /v1/admin/workers           the cluster's workers
    GET  /v1/admin/sessions          sessions with a party here: ?limit=, ?stuck=1 those set aside only;
                                     ?subject=, ?tenant= those of a subject, wherever they are
    POST /v1/admin/sessions/ID/end   end a session, wherever its parties are
    POST /v1/admin/sessions/ID/retry hand a session out again that is set aside
    GET  /v1/admin/sessions/ID/trail the steps of a session
    GET  /v1/admin/sessions/ID/jobs  its jobs, the newest first: ?limit=
    GET  /v1/admin/jobs              how many unfinished jobs the sessions here have, by state
    GET  /v1/admin/apps              the apps of the cluster: ?limit=
    POST /v1/admin/apps/terminate    ask an app to clean up and end: {"instance": "...", "tenant": "..."}
    GET  /v1/admin/events            how the core server is told of events: ?limit= queues that wait
    POST /v1/admin/events/retry      tell everything that waits now
    POST /v1/admin/reseal            seal anew what is under older keys
    GET  /v1/admin/reseal            how far that is
    POST /v1/admin/revoke            void the tokens of a subject: {"subject": "...", "tenant": "..."}
    GET  /v1/admin/receipts          the latest drains of the cluster
    GET  /v1/admin/receipts/NODE     the fate of each session in a drain

The Unix socket is not authenticated: file permissions decide. Over TCP the bearer token of `[admin]` opens the API. Errors
are problem documents (RFC 9457).
"""

import hmac
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any, Protocol

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from signald.errors import OperationRefused, RefusedBecause, StoreUnavailable
from signald.http.problem_details import HttpProblem

STATUSES: dict[RefusedBecause, int] = {
    "invalid": 422,
    "state": 409,
    "unknown": 404,
    "forbidden": 403,
    "share": 429,
    "large": 413,
    "full": 503,
}
"""The status of an `OperationRefused`. No operation knows HTTP."""

BODY_BYTES_MAX = 65_536
ROWS_MAX = 1000
"""Rows of one answer."""

Json = dict[str, Any]


class DrainRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /v1/admin/drain`."""

    parties: list[str] = msgspec.field(default_factory=lambda: ["workers", "clients"])
    """Any of "workers", "clients"."""
    reason: str = "operator"
    """Told to every party in its `goaway`."""


class RevokeRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /v1/admin/revoke`."""

    subject: str
    tenant: str | None = None
    """None: the subject without a tenant."""


class TerminateRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /v1/admin/apps/terminate`."""

    instance: str
    tenant: str | None = None
    """None: of whichever tenant it is."""


class LogLevelRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `PUT /v1/admin/log-level`."""

    level: str


class Operations(Protocol):
    """The operations of a node. Methods that need the store raise StoreUnavailable; all may raise OperationRefused."""

    def status(self) -> Json:
        """This node and its drain."""

    def drain(self, parties: list[str], reason: str) -> Json:
        """Begin or widen a drain; returns the status."""

    async def abort(self) -> Json:
        """Call an operator's drain off; returns the status."""

    async def reload(self) -> Json:
        """Read the configuration again: what was applied, what waits for a restart."""

    def set_log_level(self, level: str) -> Json:
        """Log from `level` on."""

    async def nodes(self) -> Json:
        """The live nodes."""

    async def workers(self) -> Json:
        """The workers of the cluster."""

    def sessions(self, limit: int, *, stuck: bool = False) -> Json:
        """Sessions with a party at this node; `stuck`: only those that are set aside."""

    async def sessions_of(self, subject: str, tenant: str | None, limit: int) -> Json:
        """The sessions of a subject, wherever they are."""

    async def end(self, session: str) -> Json:
        """End a session, wherever its parties are."""

    async def retry(self, session: str) -> Json:
        """Hand a session out again that is set aside."""

    async def revoke(self, subject: str, tenant: str | None) -> Json:
        """Void the tokens of a subject that were issued before now."""

    def reseal(self) -> Json:
        """Begin to seal anew what is under older keys, or plain."""

    def resealing(self) -> Json:
        """How far that is."""

    async def trail(self, session: str) -> Json:
        """The way of a session."""

    async def jobs(self) -> Json:
        """How many unfinished jobs the sessions of this node have, by state."""

    async def jobs_of(self, session: str, limit: int) -> Json:
        """The jobs of a session, the newest first."""

    async def rooms(self, limit: int) -> Json:
        """The rooms with members at this node, the largest first."""

    async def room(self, room: str, tenant: str | None, limit: int) -> Json:
        """A room, wherever its members are, with up to `limit` of them."""

    async def apps(self, limit: int) -> Json:
        """The apps of the cluster."""

    async def terminate(self, instance: str, tenant: str | None) -> Json:
        """Ask an app to clean up and end, wherever it is."""

    async def events(self, limit: int) -> Json:
        """How the core server is told of events."""

    async def retry_events(self) -> Json:
        """Tell everything that waits now."""

    async def receipts(self) -> Json:
        """The latest drains."""

    async def receipt(self, node: str) -> Json:
        """The drain of `node`."""


Answer = Callable[[Request, Operations], Awaitable[Json]]


def admin_routes(operations: Callable[[], Operations | None], *, token: Callable[[], str] | None) -> list[BaseRoute]:
    """Return the routes. Without a `token` every request is allowed; a token that returns "" allows none.

    `operations` returns None while the node starts.
    """

    def route(method: str, path: str, answer: Answer) -> Route:
        async def handle(request: Request) -> Response:
            if token is not None:
                _authenticate(request, token())
            node = operations()
            if node is None:
                raise HttpProblem(503, "starting", "this node has not come up yet")
            try:
                return JSONResponse(await answer(request, node), headers={"cache-control": "no-store"})
            except OperationRefused as error:
                raise HttpProblem(STATUSES[error.because], error.kind, str(error), **error.members) from None
            except StoreUnavailable as error:
                raise HttpProblem(503, "store-unavailable", str(error)) from None

        return Route(f"/v1/admin/{path}", handle, methods=[method])

    return [
        route("GET", "status", _status),
        route("POST", "drain", _drain),
        route("POST", "abort", _abort),
        route("POST", "reload", _reload),
        route("PUT", "log-level", _log_level),
        route("GET", "nodes", _nodes),
        route("GET", "workers", _workers),
        route("GET", "sessions", _sessions),
        route("GET", "sessions/{session}/trail", _trail),
        route("GET", "sessions/{session}/jobs", _jobs_of),
        route("GET", "jobs", _jobs),
        route("POST", "sessions/{session}/end", _end),
        route("POST", "sessions/{session}/retry", _retry),
        route("GET", "rooms", _rooms),
        route("GET", "rooms/{room}", _room),
        route("GET", "apps", _apps),
        route("POST", "apps/terminate", _terminate),
        route("GET", "events", _events),
        route("POST", "events/retry", _retry_events),
        route("POST", "revoke", _revoke),
        route("POST", "reseal", _reseal),
        route("GET", "reseal", _resealing),
        route("GET", "receipts", _receipts),
        route("GET", "receipts/{node}", _receipt),
    ]


def _authenticate(request: Request, token: str) -> None:
    if not token:
        raise HttpProblem(403, "no-token", "set admin.token_file to use the admin API here, or use the Unix socket")
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), token.encode()):
        raise HttpProblem(401, "unauthenticated", "this needs the bearer token of [admin]")


async def _body(request: Request, kind: type[Any]) -> Any:
    body = b""
    async with aclosing(request.stream()) as stream:
        async for chunk in stream:
            body += chunk
            if len(body) > BODY_BYTES_MAX:
                raise HttpProblem(400, "too-large", f"a request may have {BODY_BYTES_MAX} bytes")
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise HttpProblem(422, "invalid", str(error)) from None


async def _status(_: Request, node: Operations) -> Json:
    return node.status()


async def _drain(request: Request, node: Operations) -> Json:
    asked: DrainRequest = await _body(request, DrainRequest)
    return node.drain(asked.parties, asked.reason)


async def _abort(_: Request, node: Operations) -> Json:
    return await node.abort()


async def _reload(_: Request, node: Operations) -> Json:
    return await node.reload()


async def _log_level(request: Request, node: Operations) -> Json:
    asked: LogLevelRequest = await _body(request, LogLevelRequest)
    return node.set_log_level(asked.level)


async def _nodes(_: Request, node: Operations) -> Json:
    return await node.nodes()


async def _workers(_: Request, node: Operations) -> Json:
    return await node.workers()


def _limit(request: Request) -> int:
    text = request.query_params.get("limit", "100")
    if not text.isdecimal() or not 1 <= int(text) <= ROWS_MAX:
        raise HttpProblem(422, "invalid", f"limit is a number from 1 to {ROWS_MAX}")
    return int(text)


async def _sessions(request: Request, node: Operations) -> Json:
    limit = _limit(request)
    stuck = request.query_params.get("stuck", "0")
    if stuck not in ("0", "1"):
        raise HttpProblem(422, "invalid", "stuck is 0 or 1")
    subject, tenant = request.query_params.get("subject"), request.query_params.get("tenant")
    if subject is None:
        if tenant is not None:
            raise HttpProblem(422, "invalid", "tenant goes with subject")
        return node.sessions(limit, stuck=stuck == "1")
    if not subject or stuck == "1":
        raise HttpProblem(422, "invalid", "subject is a text, and goes without stuck")
    return await node.sessions_of(subject, tenant, limit)


async def _jobs(_: Request, node: Operations) -> Json:
    return await node.jobs()


async def _jobs_of(request: Request, node: Operations) -> Json:
    return await node.jobs_of(request.path_params["session"], _limit(request))


async def _rooms(request: Request, node: Operations) -> Json:
    return await node.rooms(_limit(request))


async def _room(request: Request, node: Operations) -> Json:
    return await node.room(request.path_params["room"], request.query_params.get("tenant"), _limit(request))


async def _apps(request: Request, node: Operations) -> Json:
    return await node.apps(_limit(request))


async def _terminate(request: Request, node: Operations) -> Json:
    asked: TerminateRequest = await _body(request, TerminateRequest)
    return await node.terminate(asked.instance, asked.tenant)


async def _events(request: Request, node: Operations) -> Json:
    return await node.events(_limit(request))


async def _retry_events(_: Request, node: Operations) -> Json:
    return await node.retry_events()


async def _end(request: Request, node: Operations) -> Json:
    return await node.end(request.path_params["session"])


async def _retry(request: Request, node: Operations) -> Json:
    return await node.retry(request.path_params["session"])


async def _revoke(request: Request, node: Operations) -> Json:
    asked: RevokeRequest = await _body(request, RevokeRequest)
    return await node.revoke(asked.subject, asked.tenant)


async def _reseal(_: Request, node: Operations) -> Json:
    return node.reseal()


async def _resealing(_: Request, node: Operations) -> Json:
    return node.resealing()


async def _trail(request: Request, node: Operations) -> Json:
    return await node.trail(request.path_params["session"])


async def _receipts(_: Request, node: Operations) -> Json:
    return await node.receipts()


async def _receipt(request: Request, node: Operations) -> Json:
    return await node.receipt(request.path_params["node"])
