"""B1: a job is cancelled, fails or expires once, and says so over HTTP and over the WebSocket."""

from tests.systems.program import Line, Program
from tests.systems.repeated import Repeated

ENDED: dict[str, Line] = {
    "cancelled": {"state": "cancelled", "outcome": "cancelled", "status": 202, "early": 409},
    "failed": {"state": "failed", "code": "out_of_paper", "outcome": "failed"},
    "expired": {"state": "expired"},
}
"""How each step ends."""


class Ends(Repeated):
    """Jobs that do not succeed by themselves."""

    name = "ends"
    program = "ends.mjs"

    def judge_run(self, run: Program) -> None:
        """Each job ended as its step says; its result is refused, and to cancel it again changes nothing."""
        ends = {line["step"]: line for line in run.saw("ended")}
        assert list(ends) == list(ENDED), run.account()
        for step, expected in ENDED.items():
            assert expected.items() <= ends[step].items(), run.account()
            assert (ends[step]["result"], ends[step]["again"]) == (404, 200), run.account()
        waited = run.saw("waited")[0]
        # A node that drains answers at once, with the job as it is.
        assert waited["status"] in (200, 202), run.account()
        if waited["status"] == 200:
            assert waited["applied"].startswith("wait"), run.account()
            assert (waited["state"], waited["result"]) == ("succeeded", "1 2 3 ")
