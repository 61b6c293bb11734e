"""The probes: what each state of a node answers."""

import json
from typing import Any

import attrs
import pytest
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from signald.http.health import HealthStatus, http_app

READY = HealthStatus(node="node-a", release="1.2.3", listening=True, store=True)


async def get(
    status: HealthStatus, path: str, query: str = "", method: str = "GET"
) -> tuple[int, dict[str, str], bytes]:
    """Ask the application for `path` as an ASGI server would; return (code, headers, body)."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    app = http_app(lambda: status, routes=[Route("/extra", lambda _: PlainTextResponse("extra"))])
    scope = {"type": "http", "method": method, "path": path, "query_string": query.encode(), "headers": []}
    await app(scope, receive, send)
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers, b"".join(message["body"] for message in sent[1:])


STATES: list[tuple[dict[str, Any], int, str]] = [
    ({}, 200, "ready"),
    ({"store": False}, 503, "degraded"),
    ({"listening": False}, 503, "starting"),
    ({"draining": True}, 503, "draining"),
    ({"shutting_down": True}, 503, "shutting_down"),
    ({"shutting_down": True, "draining": True, "listening": False, "store": False}, 503, "shutting_down"),
]


@pytest.mark.parametrize(("change", "code", "word"), STATES)
async def test_readiness_says_in_one_word_whether_new_parties_may_come(
    change: dict[str, Any], code: int, word: str
) -> None:
    """Only a listening node with its store and no drain is ready; the most final state is the word."""
    answer = await get(attrs.evolve(READY, **change), "/readyz")
    assert (answer[0], answer[2]) == (code, f"{word}\n".encode())
    assert answer[1]["cache-control"] == "no-store"


@pytest.mark.parametrize(("change", "code", "word"), STATES)
async def test_liveness_looks_at_nothing_else(change: dict[str, Any], code: int, word: str) -> None:
    """A node that drains or has lost its store is alive: killing it would cut those it holds."""
    answer = await get(attrs.evolve(READY, **change), "/livez")
    assert (answer[0], answer[2]) == (200, b"ok\n")


async def test_verbose_readiness_lists_every_check_and_the_reasons() -> None:
    """An operator sees which check fails, on which node and release."""
    status = attrs.evolve(READY, store=False, draining=True)
    code, headers, body = await get(status, "/readyz", "verbose")
    assert code == 503
    assert headers["content-type"] == "application/json"
    assert json.loads(body) == {
        "status": "draining",
        "ready": False,
        "node": "node-a",
        "release": "1.2.3",
        "checks": {"listening": True, "store": False, "not_draining": False, "not_shutting_down": True},
        "reasons": ["draining", "the store does not answer"],
    }


async def test_probes_answer_get_and_head_only_and_the_rest_is_not_found() -> None:
    """A probe changes nothing, so other methods are refused; unknown paths are 404."""
    assert (await get(READY, "/readyz", method="HEAD"))[0] == 200
    assert (await get(READY, "/readyz", method="POST"))[0] == 405
    assert (await get(READY, "/health"))[0] == 404


async def test_the_daemon_can_add_routes() -> None:
    """Further routes stand beside the probes."""
    assert (await get(READY, "/extra"))[2] == b"extra"
