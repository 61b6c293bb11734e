"""The documents of the public port: `/openapi.json`, `/asyncapi.json` and `/docs`.

They are made when they are first asked for, and again when a reload has changed a setting that they publish. A copy is checked with its
`ETag` before each use, because the next release serves another document at the same address.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from signald import __version__
from signald.config import Config
from signald.http.api.asyncapi import asyncapi
from signald.http.api.describe import Answer, Header, Operation, described, operations
from signald.http.api.openapi import Published, openapi
from signald.http.api.page import POLICY, page
from signald.http.api.reading import JSON

_ETAG = {"ETag": Header("The version of the document."), "Cache-Control": Header("Check a copy before each use.")}


def _operation(name: str, path: str, summary: str, media: str) -> Operation:
    body = bytes if media != JSON else dict[str, Any]
    answers = (
        Answer(200, summary, body, media, _ETAG),
        Answer(304, "The copy that `If-None-Match` names is current.", headers=_ETAG),
    )
    return Operation(name=name, method="GET", path=path, tag="documents", summary=summary, answers=answers)


OPENAPI = _operation("openapi", "/openapi.json", "The requests and answers of HTTP, as OpenAPI 3.1", JSON)
ASYNCAPI = _operation("asyncapi", "/asyncapi.json", "The messages on the WebSocket, as AsyncAPI 3.0", JSON)
DOCS = _operation("docs", "/docs", "Both documents as a page", "text/html; charset=utf-8")


class _Document(Struct, frozen=True):
    body: bytes
    etag: str
    media: str
    headers: Mapping[str, str]


class _Documents:
    """The documents of one state of the settings."""

    def __init__(self, all_operations: Sequence[Operation], paths: Mapping[Literal["client", "worker"], str]) -> None:
        self._operations = all_operations
        self._paths = paths
        self._made: tuple[Published, Mapping[str, _Document]] | None = None

    def get(self, name: str, published: Published) -> _Document:
        """Return the document of the operation `name`."""
        if self._made is None or self._made[0] != published:
            http, messages = openapi(self._operations, published), asyncapi(published.version, self._paths)
            self._made = (
                published,
                {
                    OPENAPI.name: _document(msgspec.json.encode(http), JSON),
                    ASYNCAPI.name: _document(msgspec.json.encode(messages), JSON),
                    DOCS.name: _document(
                        page(http, messages).encode(),
                        "text/html; charset=utf-8",
                        {"content-security-policy": POLICY, "referrer-policy": "no-referrer"},
                    ),
                },
            )
        return self._made[1][name]


def _document(body: bytes, media: str, headers: Mapping[str, str] | None = None) -> _Document:
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    every = {"etag": etag, "cache-control": "public, no-cache", "x-content-type-options": "nosniff"}
    return _Document(body, etag, media, every | dict(headers or {}))


def published(config: Config) -> Published:
    """Return what the documents publish of the configuration."""
    limits, auth = config.limits, config.auth
    return Published(
        __version__,
        requests_per_s=limits.requests_per_s,
        requests_burst=limits.requests_burst,
        key_life_s=config.jobs.keep_s,
        api_token_ttl_s=auth.api_token_ttl_s,
        cookie=auth.cookie_name,
    )


def document_routes(
    routes: Sequence[BaseRoute],
    settings: Callable[[], Published],
    paths: Mapping[Literal["client", "worker"], str],
) -> list[BaseRoute]:
    """Return the routes of the documents about `routes` and about themselves.

    They publish the `settings` of the moment; `paths` are the endpoints of the parties.
    """
    own = (OPENAPI, ASYNCAPI, DOCS)
    documents = _Documents([*operations(routes), *own], paths)

    async def answer(request: Request) -> Response:
        operation: Operation = request.scope["signald.operation"]
        document = documents.get(operation.name, settings())
        if _has(request, document.etag):
            return Response(status_code=304, headers=document.headers)
        return Response(document.body, headers=document.headers, media_type=document.media)

    return described(*((operation, answer) for operation in own))


def _has(request: Request, etag: str) -> bool:
    """Tell whether the request names `etag` as a copy it has. A weak mark counts, since the bytes are the same."""
    given = [one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")]
    return etag in given or "*" in given
