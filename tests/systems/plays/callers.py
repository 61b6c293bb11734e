"""B6: each node verifies the caller: the API token of a session, or the JWT of its user, in a header or a cookie."""

from tests.systems.program import Program
from tests.systems.repeated import Repeated
from tests.systems.service import ORIGIN, credential

STEPS = {
    "own session": {200},
    "nothing shown": {401},
    "recovery token": {401},
    "forged": {401},
    "session of another": {403, 404},
    "all of a user": {403},
    "person": {200},
    "person, no session": {400},
    "person, of another": {403, 404},
    "cookie": {200},
    "cookie, cross-site": {401, 403},
    "cookie, posts": {202},
    "cookie, posts from elsewhere": {403},
    "posts": {202},
    "after the end": {200},
    "posts after the end": {404},
}
"""The statuses that may be answered to each step."""


class Callers(Repeated):
    """One user who shows all there is to show, and some things that are no credential."""

    name = "callers"

    async def start(self) -> None:
        """Have a session of another user."""
        await super().start()
        self.other = await self.cast.start("push.mjs", self.service.url, credential=credential("client", "mallory"))
        await self.other.has_seen("opened", within_s=30)

    async def run(self) -> Program:
        """Start one run."""
        return await self.page("callers.mjs", ORIGIN, self.other.saw("opened")[0]["session"])

    def judge_run(self, run: Program) -> None:
        """Each step had its status; each refusal said why, and 401 how to do better."""
        steps = {line["step"]: line for line in run.saw("step")}
        assert list(steps) == list(STEPS), run.account()
        for step, line in steps.items():
            assert line["status"] in STEPS[step], f"{step}: {line['status']}: {run.account()}"
            assert line["problem"] is (line["status"] >= 400), f"{step}: {run.account()}"
            assert line["challenge"] is (line["status"] == 401), f"{step}: {run.account()}"
