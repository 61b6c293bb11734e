"""B1 and B2: a worker dies, and another one does its job and says its answer anew; the page shows each once."""

from tests.systems.play import Play
from tests.systems.program import Program
from tests.systems.service import credential

BEFORE = 10
"""Pieces before the worker dies."""
PIECES = 40
OWN = '{"for": "attempts"}'
"""What only the workers of this play can do."""


class Attempts(Play):
    """A page with two workers of its own, of which the first one dies before the first move."""

    name = "attempts"
    shown: Program
    second: Program

    async def start(self) -> None:
        """Let the first worker begin, and kill it."""
        first = await self._start_worker("first")
        self.shown = await self.page("attempts.mjs", WANT=OWN)
        await self.shown.has_seen("piece", BEFORE, within_s=30)
        await first.kill()
        self.second = await self._start_worker("second")

    async def _start_worker(self, name: str) -> Program:
        shown = credential("worker", name)
        return await self.cast.start("ai_worker.py", self.service.workers_url, name, "1", credential=shown, LABELS=OWN)

    async def finish(self) -> None:
        """Wait until the second worker has done all."""
        await self.shown.tell()
        await self.shown.end(within_s=40)

    def judge(self) -> None:
        """Both were done once more, from the beginning, and nothing of an older attempt came behind it."""
        end = self.shown.saw("end")[0]
        texts = "".join(f"{n} " for n in range(1, PIECES + 1))
        assert (end["state"], end["attempt"], end["result"]) == ("succeeded", 2, texts), self.shown.account()
        assert (end["job"]["attempt"], end["job"]["text"]) == (2, texts), self.shown.account()
        said = next(line for line in self.second.saw("ended") if line["stream"] == "answer")
        answer = "".join(f"{n} " for n in range(1, said["pieces"] + 1))
        assert (end["answer"]["attempt"], end["answer"]["text"]) == (2, answer), self.shown.account()
        assert [line["attempt"] for line in self.second.saw("job")] == [2], self.second.account()
        assert not self.shown.saw("older") + self.shown.saw("hole"), self.shown.account()
