"""CORS: which pages may read answers of the API, by `listen.allowed_origins`, as for WebSockets.

A page of a listed origin may send its cookie and read the answer. `*` lets any page read, and no page send a cookie: then the answer
never names the origin, so that no browser lends it credentials.
"""

from collections.abc import Callable

from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from signald.config import Config
from signald.http.problem_details import HttpProblem

METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE"

REQUEST_HEADERS = (
    "Authorization, Content-Type, Content-Digest, Idempotency-Key, If-None-Match, If-Range, Last-Event-ID, Prefer, "
    "Range, traceparent"
)
"""What a page may send beside what each page may."""

EXPOSED = "Location, Retry-After, ETag, Idempotency-Replayed, Preference-Applied, Content-Range, Repr-Digest"
"""What a page may read beside what each page may. Without the last two it could not go on with a download, nor know that it is whole."""

MAX_AGE_S = 600
"""How long a browser keeps the answer to a preflight: ten minutes spare nearly all of them, and follow a change of the list."""


class Cors:
    """An ASGI application in front of `app` that answers preflights, and lets pages read the answers. See the module."""

    def __init__(self, app: ASGIApp, config: Callable[[], Config]) -> None:
        """`config` returns the configuration in force."""
        self._app = app
        self._config = config

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        headers = dict(scope["headers"])
        origin = headers.get(b"origin")
        granted = None if origin is None else self._granted(origin.decode("latin-1"))
        if scope["method"] == "OPTIONS" and origin is not None and b"access-control-request-method" in headers:
            await _preflight(granted)(scope, receive, send)
            return

        async def readable(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer = MutableHeaders(raw=message.setdefault("headers", []))
                answer.add_vary_header("Origin")
                if granted is not None:
                    answer.update(granted)
                    answer["access-control-expose-headers"] = EXPOSED
            await send(message)

        await self._app(scope, receive, readable)

    def _granted(self, origin: str) -> dict[str, str] | None:
        """Return the headers that let a page of `origin` read; None when it may not."""
        config = self._config()
        allowed = config.listen.allowed_origins
        if origin in allowed:
            granted = {"access-control-allow-origin": origin}
            if config.auth.cookie_name:
                granted["access-control-allow-credentials"] = "true"
            return granted
        return {"access-control-allow-origin": "*"} if "*" in allowed else None


def _preflight(granted: dict[str, str] | None) -> Response:
    if granted is None:
        response: Response = HttpProblem(403, "origin", "the origin of this page is not allowed").response()
    else:
        response = Response(
            status_code=204,
            headers={
                **granted,
                "access-control-allow-methods": METHODS,
                "access-control-allow-headers": REQUEST_HEADERS,
                "access-control-max-age": str(MAX_AGE_S),
                "cache-control": "no-store",
            },
        )
    response.headers["vary"] = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"
    return response
