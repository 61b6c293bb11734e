"""B2: an answer is stopped over the page's connection, and from another device over HTTP; it ends `cancelled`."""

from tests.systems.program import Program
from tests.systems.repeated import Repeated


class Stop(Repeated):
    """Two answers that are stopped."""

    name = "stop"
    program = "stop.mjs"

    def judge_run(self, run: Program) -> None:
        """Both answers ended where they were stopped, with each piece once."""
        assert [line["stream"] for line in run.saw("stopped")] == ["here", "there"], run.account()
        for line in run.saw("stopped"):
            count = len(line["texts"]) - 1
            assert line["texts"] == [*(f"{n} " for n in range(1, count + 1)), ""], run.account()
            assert line["outcome"] == "cancelled", run.account()
        assert run.saw("asked")[0]["status"] == 202, run.account()
