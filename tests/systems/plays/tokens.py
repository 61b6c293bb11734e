"""A1: a recovery token resumes its session and no other; a stale one is refused and recalls all of them; the end recalls them too."""

from tests.systems.program import Program
from tests.systems.repeated import Repeated

STEPS = {
    "started": {"session_started"},
    "resumed": {"session_restored"},
    "resumed again": {"session_restored"},
    "stale token": {"token_reuse"},
    "after the theft": {"token_reuse", "token_revoked"},
    "ended": {"session_started"},
    "after the end": {"nothing_to_resume"},
}
"""What may be answered to each step: the type of the answer, or the code of an error."""


class Tokens(Repeated):
    """Sessions that are resumed, stolen and ended."""

    name = "tokens"
    program = "tokens.mjs"

    def judge_run(self, run: Program) -> None:
        """Each run had the answers of the contract, whatever node gave them."""
        steps = run.saw("step")
        assert [line["step"] for line in steps] == list(STEPS)
        assert all(line.get("code", line["type"]) in STEPS[line["step"]] for line in steps), run.account()
        assert [line["closed"] for line in steps if "code" in line] == [4403, 4403, 4404], run.account()
        assert len({line["session"] for line in steps[:3]}) == 1
        assert run.saw("end")[0]["ttl_ms"] > 0
        assert run.saw("end")[0]["secret"]
