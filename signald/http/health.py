"""Liveness and readiness, as Kubernetes, load balancers and operators ask for them.

Liveness (`/livez`) says the event loop turns; it looks at nothing else, so that a store that is away never makes a
supervisor kill nodes that hold connections. Readiness (`/readyz`) says whether *new* parties should be sent here.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import attrs
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from signald.http.problem_details import HttpProblem, answer_http_error, answer_problem

Word = Literal["ready", "degraded", "starting", "draining", "shutting_down"]

# A probe is a measurement: an answer from a cache says nothing.
_headers = {"cache-control": "no-store"}


@attrs.frozen
class HealthStatus:
    """The state of a node at this moment."""

    node: str
    release: str
    listening: bool
    """The WebSocket listener accepts."""
    store: bool
    """The store answered lately. Without it live sessions go on, but no party can be started or resumed."""
    draining: bool = False
    """An operator's drain, which can be aborted."""
    shutting_down: bool = False
    """A drain that ends with the process."""

    @property
    def word(self) -> Word:
        """The state in one word, the most final one first."""
        if self.shutting_down:
            return "shutting_down"
        if self.draining:
            return "draining"
        if not self.listening:
            return "starting"
        return "ready" if self.store else "degraded"

    @property
    def ready(self) -> bool:
        """True when new parties should be sent here."""
        return self.listening and self.store and not self.draining and not self.shutting_down

    @property
    def reasons(self) -> tuple[str, ...]:
        """The reasons for a state other than `ready`, for a reader."""
        found = {
            "shutting down": self.shutting_down,
            "draining": self.draining,
            "not listening yet": not self.listening,
            "the store does not answer": not self.store,
        }
        return tuple(reason for reason, holds in found.items() if holds)


def http_app(status: Callable[[], HealthStatus], *, routes: Sequence[BaseRoute] = ()) -> Starlette:
    """Return the HTTP application: the two probes, and whatever `routes` the daemon adds. Errors are problem documents.

    `status` is called once per readiness request and must not block.

    - `/livez`: 200 `ok`.
    - `/readyz`: 200 or 503 and the state in one word; with `?verbose` a JSON object with each check and the reasons.
    """

    async def livez(_: Request) -> Response:
        return PlainTextResponse("ok\n", headers=_headers)

    async def readyz(request: Request) -> Response:
        now = status()
        code = 200 if now.ready else 503
        if "verbose" in request.query_params:
            return JSONResponse(_verbose(now), code, headers=_headers)
        return PlainTextResponse(f"{now.word}\n", code, headers=_headers)

    return Starlette(
        routes=[Route("/livez", livez), Route("/readyz", readyz), *routes],
        exception_handlers={HttpProblem: answer_problem, HTTPException: answer_http_error},
    )


def _verbose(now: HealthStatus) -> dict[str, object]:
    return {
        "status": now.word,
        "ready": now.ready,
        "node": now.node,
        "release": now.release,
        "checks": {
            "listening": now.listening,
            "store": now.store,
            "not_draining": not now.draining,
            "not_shutting_down": not now.shutting_down,
        },
        "reasons": now.reasons,
    }
