"""Ask routes in memory, without a server."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import trio
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from signald.http.api.app import api_app


@attrs.frozen
class Told:
    """An answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


async def ask(
    routes: Sequence[BaseRoute],
    method: str,
    target: str,
    headers: Sequence[tuple[str, str]] = (),
    pieces: Sequence[bytes] = (b"",),
) -> Told:
    """Send one request, its body in `pieces`, to an application of `routes`."""
    return await ask_app(api_app(routes, draining=trio.Event()), method, target, headers, pieces)


async def ask_app(
    app: ASGIApp,
    method: str,
    target: str,
    headers: Sequence[tuple[str, str]] = (),
    pieces: Sequence[bytes] = (b"",),
) -> Told:
    """Send one request to `app`."""
    sent: list[Any] = []
    waiting = list(pieces)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": waiting.pop(0), "more_body": bool(waiting)}

    async def send(message: Any) -> None:
        sent.append(message)

    path, _, query = target.partition("?")
    await app(
        {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": query.encode(),
            "client": ("192.0.2.1", 1),
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers],
        },
        receive,
        send,
    )
    given = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Told(sent[0]["status"], given, b"".join(message.get("body", b"") for message in sent[1:]))
