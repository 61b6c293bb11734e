"""The application of the public HTTP API: what holds for every request, whatever its route.

    request ─▸ counted ─▸ rate of its principal ─▸ bound of its body ─▸ routes ─▸ answer: no-store, traceparent

Every error is a problem document (RFC 9457), also an unknown path, a method that a path does not have, and a failure of a
handler, which is logged once. A handler finds in `request.app.state`: `draining`, a `trio.Event` that is set when the process
is about to end, for waits and streams that end early; `counts` and `settings`, for `signald.http.api.bodies`.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import attrs
import structlog
import trio
from starlette.datastructures import State
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from signald.addresses import subscriber
from signald.bucket import Buckets
from signald.config import Config
from signald.http.api.bodies import bounded, declared_length, too_large
from signald.http.api.requests import NO_ROUTE, RequestCounts
from signald.http.api.turns import Turns
from signald.http.problem_details import HttpProblem, problem_of
from signald.wire import traces

log = structlog.get_logger(__name__)

KeyOf = Callable[[Scope], str]
"""Names the holder of a request's rate: a principal, or an address; "" has no rate. Must not block; raises nothing."""


@attrs.frozen(kw_only=True)
class ApiSettings:
    """Bounds of the API. The defaults are those of the configuration."""

    requests_per_s: float = 20.0
    requests_burst: int = 100
    body_bytes_max: int = 65536
    """Of a route that names no bound of its own."""
    bodies_bytes_max: int = 33554432
    """Of all bodies that are kept in memory."""


def api_settings(config: Config) -> ApiSettings:
    """Return the share of the configuration that the API has."""
    limits = config.limits
    return ApiSettings(
        requests_per_s=limits.requests_per_s,
        requests_burst=limits.requests_burst,
        body_bytes_max=limits.message_bytes_max,
        bodies_bytes_max=limits.request_bodies_bytes_max,
    )


class ApiRoute(Route):
    """A route with a bound of its own for bodies: `body_bytes_max` gives it when a request comes, as a reload may change it."""

    body_bytes_max: Callable[[], int] | None = None
    times_as_often: int = 1
    """1: its requests count with those of all other routes. More: it has a rate of its own, so many times the one that they share."""


def address_of(scope: Scope) -> str:
    """Return the address that a request comes from, as the holder of a rate."""
    if scope.get("state", {}).get("remote_is_shared"):
        return ""  # a trusted proxy that names no client speaks for many
    client = scope.get("client")
    return subscriber(client[0]) if client else ""


def trace_of(scope: Scope) -> str | None:
    """Return the `traceparent` of a request, if it is one; a request may be given instead of its scope."""
    for name, value in scope["headers"]:
        if name == b"traceparent":
            text = value.decode("latin-1")
            return text if traces.parse(text) is not None else None
    return None


class Api:
    """See the module. An ASGI application."""

    def __init__(
        self,
        routes: Sequence[BaseRoute],
        *,
        draining: trio.Event,
        settings: ApiSettings | None = None,
        counts: RequestCounts | None = None,
        key_of: KeyOf = address_of,
        more_state: Mapping[str, object] = MappingProxyType({}),
        owed_s: Callable[[float], float] = lambda _: 0.0,
    ) -> None:
        """Serve `routes`. Each request takes a token of the holder that `key_of` names. Handlers find `more_state` beside the rest.

        `owed_s` tells how long the process itself has paused: what was sent meanwhile arrives at once, and is no burst.
        """
        self.counts = counts if counts is not None else RequestCounts()
        self._routes = list(routes)
        self._settings = settings if settings is not None else ApiSettings()
        self._key_of = key_of
        self._owed_s = owed_s
        self._rates = Buckets()
        self._rates_of: dict[str, Buckets] = {}
        """Path of a route → its own rates; there are as many as routes that have some."""
        # Not a Starlette application: its outermost layer answers 500 with a text, and raises on.
        self._router = Router(self._routes, redirect_slashes=False)
        self.state = State(
            {
                "draining": draining,
                "counts": self.counts,
                "settings": lambda: self._settings,
                "turns": Turns(),
                **more_state,
            }
        )
        """What handlers find in `request.app.state`."""

    def renew(self, settings: ApiSettings) -> None:
        """Apply other settings from now on."""
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; raises nothing but cancellation."""
        route = self._route_of(scope)
        began, status, whole = trio.current_time(), 0, False
        trace = trace_of(scope)

        async def answer(message: Message) -> None:
            nonlocal status, whole
            if message["type"] == "http.response.start":
                message["headers"] = _with_common(message.get("headers", []), trace)
                status = message["status"]
            elif message["type"] == "http.response.body":
                whole = not message.get("more_body", False)
            await send(message)

        scope["app"] = self
        self.counts.in_flight += 1
        try:
            error = await self._serve(scope, route, receive, answer)
            if error is not None and not status:
                await error(scope, receive, answer)
        finally:
            self.counts.in_flight -= 1
            self.counts.bodies_held -= scope.get("state", {}).get("held_bytes", 0)
            seconds = trio.current_time() - began
            self.counts.ended(scope["method"], _path_of(route), status if whole else 0, seconds)

    async def _serve(self, scope: Scope, route: BaseRoute | None, receive: Receive, send: Send) -> Response | None:
        """Have the route answer; return the answer to an error."""
        try:
            bytes_max = self._admit(scope, route)
            await self._router(scope, bounded(receive, bytes_max, self.counts), send)
        except Exception as error:
            match _only_one(error):
                case HttpProblem() as problem:
                    return problem.response()
                case HTTPException() as refusal:
                    return problem_of(refusal).response()
                case ClientDisconnect():
                    return None  # it has gone in the middle of its body
            log.exception("request_failed", method=_printable(scope["method"]), route=_path_of(route))
            return HttpProblem(500, "internal", "this request has failed").response()
        return None

    def _admit(self, scope: Scope, route: BaseRoute | None) -> int:
        """Judge a request before any handler; return the bound of its body. Raises HttpProblem."""
        settings = self._settings
        holder = self._key_of(scope)
        if holder:
            times, now = getattr(route, "times_as_often", 1), trio.current_time()
            rates = self._rates if times == 1 else self._rates_of.setdefault(_path_of(route), Buckets())
            rate = settings.requests_per_s * times, settings.requests_burst * times
            wait_s = rates.take(holder, *rate, now, self._owed_s(now))
            if wait_s:
                self.counts.refused["rate"] += 1
                problem = HttpProblem(429, "rate", f"more than {settings.requests_per_s * times:g} requests per second")
                raise problem.with_headers(retry_after=str(-int(-wait_s // 1)))
        own = getattr(route, "body_bytes_max", None)
        bytes_max = int(own()) if own is not None else settings.body_bytes_max
        if declared_length(scope) > bytes_max:
            self.counts.refused["body"] += 1
            raise too_large(bytes_max)
        return bytes_max

    def _route_of(self, scope: Scope) -> BaseRoute | None:
        """Return the route that will answer, for its bound and its name."""
        partial = None
        for route in self._routes:
            match, _ = route.matches(scope)
            if match is Match.FULL:
                return route
            if match is Match.PARTIAL and partial is None:
                partial = route
        return partial


def api_app(
    routes: Sequence[BaseRoute],
    *,
    draining: trio.Event,
    settings: ApiSettings | None = None,
    counts: RequestCounts | None = None,
    key_of: KeyOf = address_of,
) -> ASGIApp:
    """Return the application that serves `routes`; see `Api`."""
    return Api(routes, draining=draining, settings=settings, counts=counts, key_of=key_of)


def _only_one(error: Exception) -> Exception:
    """Return the only error that a handler's nurseries have wrapped, or the group of several."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        (error,) = error.exceptions
    return error


def _path_of(route: BaseRoute | None) -> str:
    return getattr(route, "path", NO_ROUTE) if route is not None else NO_ROUTE


def _printable(method: str) -> str:
    return method if method.isascii() and method.isalpha() and len(method) <= 16 else "other"


def _with_common(headers: list[tuple[bytes, bytes]], trace: str | None) -> list[tuple[bytes, bytes]]:
    """Add what every answer has: it is kept in no cache unless it says otherwise, and names the trace of its request."""
    names = {name.lower() for name, _ in headers}
    more = [] if b"cache-control" in names else [(b"cache-control", b"no-store")]
    if trace is not None and b"traceparent" not in names:
        more.append((b"traceparent", trace.encode("latin-1")))
    return [*headers, *more]
