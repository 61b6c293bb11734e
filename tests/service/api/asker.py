"""A program that asks the routes of sessions, on nodes in memory."""

import json
from typing import Any

import pytest

from signald.core.callers import Caller
from signald.http.api import history, sessions
from signald.service.api.history import HttpHistories
from signald.service.api.sessions import HttpSessions
from signald.testing.cluster import Cluster
from tests.http.api.asking import Told, ask

SERVICE = Caller("service", "backend", "backend")


class Asker:
    """A program that asks a node as `caller`."""

    def __init__(self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
        self.caller = SERVICE
        self._cluster = cluster

        async def caller_of(_request: object) -> Caller:
            return self.caller

        for noun in (history, sessions):
            monkeypatch.setattr(noun, "caller_of", caller_of)

    async def __call__(
        self, method: str, target: str = "", body: Any = None, *, at: str = "n1", by: Caller | None = None
    ) -> Told:
        """Ask node `at`."""
        self.caller = by if by is not None else SERVICE
        parts = self._cluster.nodes[at].hub.parts
        own = [*sessions.routes(HttpSessions(parts)), *history.routes(HttpHistories(parts))]
        return await ask(
            own, method, "/v1/sessions" + target, pieces=(b"" if body is None else json.dumps(body).encode(),)
        )

    async def shown(self, session: str, *, at: str = "n1", by: Caller | None = None) -> dict[str, Any]:
        """Return a session as it is shown."""
        told = await self("GET", f"/{session}", at=at, by=by)
        assert told.status == 200, told.body
        body: dict[str, Any] = told.json()
        return body

    async def ids(self, query: str, *, at: str = "n1", by: Caller | None = None) -> list[str]:
        """Return the ids of the sessions of a page."""
        told = await self("GET", f"?{query}", at=at, by=by)
        assert told.status == 200, told.body
        return [one["session"] for one in told.json()["sessions"]]
