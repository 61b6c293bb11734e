"""`GET /metrics`: the registry as Prometheus or OpenMetrics text, and the count of answers over HTTP.

The registry is the node's own: nothing is shared between nodes of one process, and nothing is registered on import.
"""

from collections import Counter

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send


def metrics_routes(registry: CollectorRegistry) -> list[BaseRoute]:
    """The route. Collecting must not block."""

    async def metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), media_type=content_type, headers={"cache-control": "no-store"})

    return [Route("/metrics", metrics)]


class CountAnswers:
    """An ASGI application in front of `app` that counts its answers by status code. A request that raises counts as 500."""

    def __init__(self, app: ASGIApp, answers: Counter[int]) -> None:
        """Count in `answers`, which several applications may share."""
        self._app = app
        self._answers = answers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        answered = False

        async def counted(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = True
                self._answers[message["status"]] += 1
            await send(message)

        try:
            await self._app(scope, receive, counted)
        except Exception:
            if not answered:
                self._answers[500] += 1
            raise
