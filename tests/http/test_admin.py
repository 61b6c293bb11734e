"""The admin API as HTTP: how the refusals of operations become problem documents."""

import json
from typing import Any, cast

import pytest

from signald.errors import OperationRefused, RefusedBecause
from signald.http.admin import Operations, admin_routes
from signald.http.health import HealthStatus, http_app


class Refusing:
    """Operations of which one refuses."""

    def __init__(self, refusal: OperationRefused) -> None:
        self._refusal = refusal

    def status(self) -> dict[str, Any]:
        """Refuse."""
        raise self._refusal


async def ask(refusal: OperationRefused) -> tuple[int, dict[str, Any]]:
    """Return the status and the document of an operation that refuses."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    operations = cast("Operations", Refusing(refusal))
    health = HealthStatus(node="n1", release="1", listening=True, store=True)
    app = http_app(lambda: health, routes=admin_routes(lambda: operations, token=None))
    scope = {"type": "http", "method": "GET", "path": "/v1/admin/status", "query_string": b"", "headers": []}
    await app(scope, receive, send)
    return sent[0]["status"], json.loads(b"".join(message["body"] for message in sent[1:]))


@pytest.mark.parametrize(("because", "status"), [("invalid", 422), ("state", 409), ("unknown", 404)])
async def test_a_refused_operation_is_a_problem_document(because: RefusedBecause, status: int) -> None:
    """An operation knows no HTTP: its reason decides the status; kind, text and members reach the document."""
    answer = await ask(OperationRefused(because, "not-draining", "this node does not drain", problems=["one"]))
    assert answer[0] == status
    assert answer[1]["type"] == "urn:signald:problem:not-draining"
    assert (answer[1]["status"], answer[1]["detail"]) == (status, "this node does not drain")
    assert answer[1]["problems"] == ["one"]
