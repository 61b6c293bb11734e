"""A7: an upload that is under way when a deploy begins ends well; one that a SIGKILL cuts is made again, and is kept once."""

from contextlib import suppress

import trio

from tests.systems.play import MOVES, Play
from tests.systems.program import Program
from tests.systems.service import BETWEEN, UNPLANNED


class Uploads(Play):
    """One upload over each move."""

    name = "uploads"

    def __init__(self) -> None:
        super().__init__()
        self.runs: list[Program] = []

    async def start(self) -> None:
        """Wait for the first move."""

    async def goes_on(self) -> None:
        """Wait for the end of the last upload, and begin the next one."""
        for run in self.runs:
            await run.end(within_s=60)
        self.runs.append(await self.page("uploads.mjs"))
        await self.runs[-1].has_seen("sending", within_s=30)

    async def during_move(self) -> None:
        """Let the rest be sent, if the node has not said already that it goes."""
        with suppress(trio.BrokenResourceError):
            await self.runs[-1].tell()

    async def finish(self) -> None:
        """Let the last one be sent as well."""
        await self.runs[-1].tell()
        await self.runs[-1].end(within_s=60)

    def judge(self) -> None:
        """One blob for each, in one go unless its node was killed, and one file for each blob."""
        assert len(self.runs) == len(MOVES) + 1
        for move, run in zip((*MOVES, BETWEEN), self.runs, strict=True):
            (stored,), (repeated,), (read,) = run.saw("stored"), run.saw("repeated"), run.saw("read")
            assert (stored["status"], stored["own"], stored["located"]) == (201, True, True), run.account()
            assert (repeated["status"], repeated["same"], repeated["replayed"]) == (201, True, "true"), run.account()
            assert read["whole"], run.account()
            assert read["proper"], run.account()
            if move == "kill":
                assert run.saw("broken"), run.account()
            else:
                # The node that is asked to stop takes the rest, and answers.
                assert not [line for line in run.saw("broken") if line["during"] not in UNPLANNED], run.account()
                assert stored["replayed"] is None, run.account()
        blobs = {run.saw("stored")[0]["blob"] for run in self.runs}
        assert len(blobs) == len(self.runs)
        shelf = min(blobs)[:24]
        assert {file.name for file in self.service.media.iterdir() if file.name.startswith(shelf)} == blobs
