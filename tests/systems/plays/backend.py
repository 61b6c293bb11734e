"""B3: a backend opens, sees and ends the sessions of its users, at any node, while nodes come and go."""

from tests.systems.program import Program
from tests.systems.repeated import Repeated
from tests.systems.service import credential

VIEW = {"session", "subject", "connected_at", "last_seen_at", "presence", "peer", "rooms", "jobs"}
"""What each view of a session has."""


class Backend(Repeated):
    """Sessions that a backend opens for one user."""

    name = "backend"

    async def run(self) -> Program:
        """Start one run, with the credentials of a service and of its user."""
        return await self.cast.start(
            "backend.py",
            self.service.url,
            credential=credential("service", "backend", scope=["sessions"]),
            SUBJECT="alice",
            USER_CREDENTIAL=credential("client", "alice"),
        )

    def judge_run(self, run: Program) -> None:
        """The session was there from its 201 to its 204, with what its user said and was answered."""
        made = run.saw("made")[0]
        assert made["status"] == 201, run.account()
        assert {"session", "recovery_token", "token_ttl_ms", "api_token"} <= set(made["has"]), run.account()
        for line in run.saw("looked"):
            assert (line["status"], line["listed"]) == (200, True), run.account()
            assert line["view"].keys() >= VIEW, run.account()
            assert (line["view"]["session"], line["view"]["subject"]) == (made["session"], "alice"), run.account()
        assert run.saw("attached")[0]["session"] == made["session"], run.account()
        history = run.saw("history")[0]
        assert history["status"] == 200
        assert history["entries"] == [["client", 1, {"line": 1}], ["worker", 1, {"to": 1}]], run.account()
        assert all(at is not None and at.endswith("Z") for at in run.saw("times")[0]["at"]), run.account()
        assert run.saw("deleted")[0]["status"] == 204, run.account()
        assert run.saw("gone")[0]["status"] == 404, run.account()
        assert not run.saw("gone")[0]["listed"], run.account()
        assert run.saw("unknown")[0]["status"] == 404, run.account()
        assert run.saw("unknown")[0]["type"].startswith("application/problem+json"), run.account()
