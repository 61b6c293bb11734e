"""A program that comes to its end by itself, and is run in the middle of each move."""

from tests.systems.play import MOVES, Play
from tests.systems.program import Program


class Repeated(Play):
    """One run in each move."""

    program = ""

    def __init__(self) -> None:
        super().__init__()
        self.runs: list[Program] = []

    async def start(self) -> None:
        """Wait for the first move."""

    async def run(self) -> Program:
        """Start one run."""
        return await self.page(self.program)

    async def during_move(self) -> None:
        """Start a run; it finds the node that admits."""
        self.runs.append(await self.run())

    async def goes_on(self) -> None:
        """Wait for its end."""
        for run in self.runs:
            await run.end(within_s=30)

    def judge(self) -> None:
        """Judge each run by itself."""
        assert len(self.runs) == len(MOVES)
        for run in self.runs:
            self.judge_run(run)

    def judge_run(self, run: Program) -> None:
        """Assert what one run must have seen."""
        raise NotImplementedError
